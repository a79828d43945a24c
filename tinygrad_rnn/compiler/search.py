"""The tensors and the modules that a function can get at, without calling it."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import flat
from tinygrad_rnn.compiler.boundary import on_host
from tinygrad_rnn.compiler.traced import Traced
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.tensor import Tensor

LIBRARIES = ("tinygrad_rnn", "numpy")  # modules that hold no parameters
ATOMS = (int, float, str, bytes, complex, np.ndarray, np.generic, type, types.ModuleType)


def reachable(step: Any, args: Any, kwargs: Any) -> tuple[list[Tensor], list[Module]]:
    """The leaves and the modules that `step` can get at: by its closure, its globals, its object, its arguments.

    They may be in containers, and in attributes of objects. Tensors without a gradient that are given as arguments are
    inputs, not leaves.
    """
    seen: set[int] = set()
    kept: list[Any] = []
    tensors: list[Tensor] = []
    modules: list[Module] = []
    waiting = [*inside(kwargs), *inside(args), step]
    given = {id(x) for x in flat((args, kwargs)) if isinstance(x, Tensor) and x._node is None}
    while waiting:
        x = waiting.pop()
        if id(x) in seen or x is None or isinstance(x, ATOMS):
            continue
        seen.add(id(x))
        kept.append(x)  # so that no id is used twice
        if isinstance(x, Tensor):
            if x.is_leaf and id(x) not in given and not isinstance(x._array, Traced):
                on_host(x._array)
                tensors.append(x)
            continue
        if isinstance(x, Module):
            modules.append(x)
        waiting.extend(reversed(list(inside(x))))
    return tensors, modules


def inside(x: Any) -> Iterable[Any]:
    """What an object refers to, as far as a step may use it."""
    if isinstance(x, tuple | list | set | frozenset):
        return x
    if isinstance(x, dict):
        return x.values()
    if isinstance(x, functools.partial):
        return x.func, x.args, x.keywords
    if isinstance(x, types.MethodType):
        return x.__self__, x.__func__
    if isinstance(x, types.FunctionType):
        return inside_function(x)
    return vars(x).values() if hasattr(x, "__dict__") else ()


def inside_function(f: types.FunctionType) -> Iterator[Any]:
    """What a function refers to: its closure, its defaults, the globals that it names, what it wraps."""
    for cell in f.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from f.__defaults__ or ()
    yield from (f.__kwdefaults__ or {}).values()
    names = set(names_in(f.__code__))
    for name in names.intersection(f.__globals__):
        value = f.__globals__[name]
        yield value
        if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in LIBRARIES:
            yield from (v for n, v in vars(value).items() if n in names)
    if hasattr(f, "__wrapped__"):
        yield f.__wrapped__


def names_in(code: types.CodeType) -> Iterator[str]:
    """The names that a function and those inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)
