"""Functions of arrays that users have written: a replay calls them as they are, and copies what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.engine import Deviation
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.graph import Part, Product


def call_as_it_is(f: Callable[..., Any], outs: Sequence[HostArray], form: Any, args: Any, kwargs: Any) -> None:
    """Call `f`, and copy the arrays that it returns into `outs`. `Deviation` if they are not of the same form."""
    y = f(*args, **kwargs)
    if form_of(y) != form:
        raise Deviation
    for out, part in zip(outs, parts_of(y), strict=True):
        a = np.asarray(part)
        if a.shape != out.shape or a.dtype != out.dtype:
            raise Deviation
        out[...] = a


def parts_of(y: Any) -> Iterator[Any]:
    """The arrays and numbers of a result: of an array or a gradient, or of several, some of which are None."""
    if isinstance(y, tuple | list):
        for v in y:
            yield from parts_of(v)
    elif isinstance(y, Part):
        yield y.g
        yield from (k for k in keys_of(y) if isinstance(k, np.ndarray | list))
    elif isinstance(y, Product):
        yield from (y.x, y.g)
    elif y is not None:
        yield y


def form_of(y: Any) -> Any:
    """What is the same in a result of each call: all but the values of its arrays."""
    if isinstance(y, tuple | list):
        return type(y), *map(form_of, y)
    if isinstance(y, Part):
        return Part, y.basic, *[None if isinstance(k, np.ndarray | list) else repr(k) for k in keys_of(y)]
    return type(y)


def keys_of(part: Part) -> tuple[Any, ...]:
    """The entries of an index."""
    return part.index if isinstance(part.index, tuple) else (part.index,)


def with_parts(y: Any, left: Iterator[Any]) -> Any:
    """A result with other arrays in the place of its own."""
    if isinstance(y, tuple | list):
        return type(y)([with_parts(v, left) for v in y])
    if isinstance(y, Part):
        g = next(left)
        keys = tuple([next(left) if isinstance(k, np.ndarray | list) else k for k in keys_of(y)])
        return Part(g, keys if isinstance(y.index, tuple) else keys[0], y.basic)
    if isinstance(y, Product):
        return Product(next(left), next(left))
    return None if y is None else next(left)
