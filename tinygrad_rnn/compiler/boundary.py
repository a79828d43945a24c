"""What crosses the boundary of a compiled step: its arguments on the way in, its result on the way out."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import operator
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import address, copied, flat, layout, on_host, rebuilt, root_of
from tinygrad_rnn.compiler.found import slot
from tinygrad_rnn.compiler.tape import Tape
from tinygrad_rnn.compiler.traced import Traced, as_given, users_place
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.tensor import Tensor, twin

NUMBERS = frozenset({bool, int, float, complex, str, bytes, type(None)})
ARRAYS = frozenset({np.ndarray, np.memmap})
LISTS = (list, tuple, set, frozenset, collections.deque)

# --- arguments --------------------------------------------------------------------------------------------------------


def signature_of(x: Any, given: list[Any], inside: bool = False) -> Any:
    """What must be equal in the arguments of two calls for one recording to hold for both.

    The tensors and arrays in `x` whose values may differ are appended to `given`, each once. Those `inside` of a
    container that is not taken apart are told by their identity.
    """
    kind = type(x)
    if kind in ARRAYS and not inside:
        return kind, position(x, given), x.shape, x.dtype, layout(x)
    if kind is Tensor or isinstance(x, Tensor):
        return of_tensor(x, given)
    if kind in NUMBERS:
        return kind, repr(x) if kind is float or kind is complex else x
    if kind is tuple or kind is list or (isinstance(x, tuple) and hasattr(x, "_fields")):
        return kind, *[signature_of(v, given, inside) for v in x]
    if kind is dict:
        return kind, *[(signature_of(k, given), signature_of(v, given, inside)) for k, v in x.items()]
    return of_other(x, given)


def of_tensor(x: Tensor, given: list[Any]) -> Any:
    """The signature of a tensor: of a constant its form, of a parameter its identity."""
    a = x._array
    if type(a) is not np.ndarray:
        on_host(a)
    if x._node is not None:
        if not x.is_leaf:
            raise CompileError(
                f"{users_place()}: an argument of a compiled function was computed from tensors that require a "
                f"gradient, which could not flow on: pass it as .detach()"
            )
        return Identity(x)
    return type(x), position(x, given), a.shape, a.dtype, layout(a)


def of_other(x: Any, given: list[Any]) -> Any:
    """The signature of what is no tensor, array, number, tuple, list or dict, nor a string."""
    if isinstance(x, np.generic):
        return type(x), x.tobytes()
    if isinstance(x, np.ndarray):
        if type(x) not in ARRAYS:
            raise CompileError(
                f"{users_place()}: an argument of a compiled function is a {type(x).__name__}, which does other things "
                f"than an array: pass np.asarray of it"
            )
        return Identity(x), x.shape, x.dtype, layout(x)
    if isinstance(x, slice):
        return slice, *[signature_of(v, given) for v in (x.start, x.stop, x.step)]
    if isinstance(x, Mapping):
        pairs = [(signature_of(k, given), signature_of(v, given, inside=True)) for k, v in x.items()]
        return Identity(x) if isinstance(x, types.MappingProxyType) else type(x), *pairs
    if isinstance(x, LISTS):
        return type(x), *[signature_of(v, given, inside=True) for v in x]
    if is_dataclass(x) and hasattr(x, "__dict__"):
        return Identity(x), *[(k, signature_of(v, given, inside=True)) for k, v in vars(x).items()]
    if isinstance(x, Iterator):
        raise CompileError(
            f"{users_place()}: an argument of a compiled function is a {type(x).__name__}, which reading uses up: pass "
            f"a list"
        )
    if isinstance(x, enum.Enum | range | np.dtype):
        return type(x), x
    return Identity(on_host(x))


def position(x: Any, given: list[Any]) -> int:
    """Where `x` stands among the arguments so far; it is added if it is new."""
    k = 0
    for other in given:
        if other is x:
            return k
        k += 1
    given.append(x)
    return k


class Identity:
    """Equal to itself alone, whatever the object thinks of equality."""

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x

    def __hash__(self) -> int:
        return id(self.x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.x is self.x


def with_inputs(x: Any, tape: Tape) -> Any:
    """Arguments with a traced array in the place of each array; tensors stay, and answer for theirs when read."""
    made: dict[int, Traced] = {}

    def traced(v: Any) -> Any:
        if type(v) not in ARRAYS:
            return v
        if id(v) not in made:
            made[id(v)] = tape.input(v)
        return made[id(v)]

    def one(v: Any) -> Any:  # the container itself, where it holds no arrays
        new = rebuilt(v, traced)
        return new if any(isinstance(a, Traced) for a in flat(new)) else v

    args, kwargs = x
    return tuple(one(v) for v in args), {name: one(v) for name, v in kwargs.items()}


def parts(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The containers among arguments, and what they hold, in order: to see whether a step has changed them."""
    return [p for x in (*args, *kwargs.values()) for p in parts_of(x)]


def parts_of(x: Any) -> list[Any]:
    """`parts` of one argument."""
    if isinstance(x, Mapping):
        return [x, *[p for k, v in x.items() for p in (k, *parts_of(v))]]
    if isinstance(x, LISTS):
        return [x, *[p for v in x for p in parts_of(v)]]
    if is_dataclass(x) and hasattr(x, "__dict__"):
        return [x, *parts_of(vars(x))]
    return [x]


def check_parts(before: Sequence[Any], now: Sequence[Any]) -> None:
    """Raise `CompileError` if a step has changed the containers that it was given."""
    if len(before) != len(now) or not all(map(operator.is_, before, now)):
        raise CompileError(
            "a function that tr.compile records has changed a container that it was given: a replay would not, so "
            "return what is new"
        )


# --- the result -------------------------------------------------------------------------------------------------------


class Given:
    """The argument in a position, whatever it is at a call."""

    __slots__ = ("k",)

    def __init__(self, k: int) -> None:
        self.k = k


def checked(result: Any, tape: Tape) -> Any:
    """The result of a step, without graphs. `CompileError` for a tensor whose graph is still there."""

    @once
    def one(v: Any) -> Any:
        if not isinstance(v, Tensor) or id(v) in tape.found.leaves:
            return v
        node = v._node
        if node is not None and node.plan is not None and node.sources is not None:
            raise CompileError(
                f"a compiled function returned the output of {node.plan.name}, shape {v.shape}, whose graph is "
                f"still there: a replay builds no graph, so call .backward() inside of the function, or return "
                f".detach() of it"
            )
        array = slot(v)
        if type(array) is np.ndarray and tape.owns(array):
            array = Traced(array, tape)
        return twin(v, array) if isinstance(array, Traced) else v

    return mapped(result, one)


def once(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`f`, which gives the same object again for the same object, while that lives."""
    found: dict[int, Any] = {}

    def call(v: Any) -> Any:
        if id(v) not in found:
            found[id(v)] = f(v)
        return found[id(v)]

    return call


def made_inside(first: Any, second: Any, given: Collection[int]) -> frozenset[int]:
    """The ids of what the step makes anew at each call, from its results at two: tensors and arrays that are constants.

    The arguments, `given` by their ids, are not. `CompileError` for an object that it makes of which a replay could
    give no copy.
    """
    found = set()
    for a, b in zip(held(first), held(second), strict=True):
        if a is b or id(b) in given or isinstance(b, Traced) or (isinstance(b, Tensor) and isinstance(slot(b), Traced)):
            continue
        if isinstance(b, Tensor | np.ndarray):
            found.add(id(b))
        elif not isinstance(b, bool | int | float | complex | str | bytes | np.generic | range | slice):
            raise CompileError(
                f"a compiled function returned a {type(b).__name__} that it makes at each call: return tensors, arrays "
                f"and numbers, alone or in tuples, lists, dictionaries and dataclasses"
            )
    return frozenset(found)


def held(x: Any) -> list[Any]:
    """What a result holds, in order."""
    found: list[Any] = []

    def one(v: Any) -> Any:
        found.append(v)
        return v

    mapped(x, one)
    return found


def overlapping(x: Any) -> dict[int, HostArray]:
    """The arrays, by their ids, of which several that a result holds are views that overlap."""
    arrays = [v.raw for v in held(x) if isinstance(v, Traced)]
    met = (a for a, b in permutations(arrays, 2) if a is not b and np.may_share_memory(a, b))
    return {id(root): root for root in map(root_of, met)}


def outside(x: Any, made: frozenset[int], given: Sequence[Any], shared: Mapping[int, HostArray]) -> Any:
    """A result with copies in the place of its traced arrays, and of the constants that the step has made. What is
    written into one array is seen in those that lie in the same of the `shared` ones.
    """
    copies = {i: copied(a) for i, a in shared.items()}

    def copy_of(a: HostArray) -> HostArray:
        root = root_of(a)
        home = copies.get(id(root))
        if home is None or home.strides != root.strides or not root.flags.forc:
            return copied(a)
        return np.ndarray(a.shape, a.dtype, home.reshape(-1, order="A"), address(a) - address(root), a.strides)

    @once
    def one(v: Any) -> Any:
        if isinstance(v, Given):
            return given[v.k]
        if isinstance(v, Tensor):
            array = slot(v)
            if isinstance(array, Traced):
                return twin(v, copy_of(array.raw))
            return twin(v, copied(array)) if id(v) in made else v
        if isinstance(v, Traced):
            value = as_given(v)
            return copy_of(value) if isinstance(value, np.ndarray) else value
        return copied(v) if id(v) in made and isinstance(v, np.ndarray) else v

    return mapped(x, one)


def mapped(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """`rebuilt`, also of sets, dataclasses and subclasses of tuple, list and dict: new containers of the same kind."""
    kind = type(x)
    if kind is tuple or kind is list or kind is dict:
        if kind is dict:
            return {k: mapped(v, leaf) for k, v in x.items()}
        return kind([mapped(v, leaf) for v in x])
    if isinstance(x, Tensor | Traced | np.ndarray):
        return leaf(x)
    if isinstance(x, set | frozenset | collections.deque):
        return kind([mapped(v, leaf) for v in x])
    if isinstance(x, tuple):
        return tuple.__new__(kind, [mapped(v, leaf) for v in x])
    return mapped_copy(x, leaf)


def mapped_copy(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """`mapped` of what is copied with its attributes before its entries are; `leaf` of what is no container."""
    new: Any = copy.copy(x) if isinstance(x, list | dict) or is_dataclass(x) else leaf(x)
    if isinstance(x, list):
        new[:] = [mapped(v, leaf) for v in x]
    elif isinstance(x, dict):
        for k, v in x.items():
            new[k] = mapped(v, leaf)
    elif is_dataclass(x):
        for field in dataclasses.fields(x):
            object.__setattr__(new, field.name, mapped(getattr(x, field.name), leaf))
    return new


def is_dataclass(x: Any) -> bool:
    """Whether `x` is an object, not a class, that `dataclasses` made."""
    return dataclasses.is_dataclass(x) and not isinstance(x, type)
