"""Two recordings of one step, compared: what a step does must be the same each time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.compiler.arrays import address, root_of
from tinygrad_rnn.compiler.found import slot
from tinygrad_rnn.compiler.numpy_calls import AsNumbers
from tinygrad_rnn.compiler.traced import Traced
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Entry


def signature(x: Any, buffers: Mapping[int, int], given: Mapping[int, int]) -> Any:
    """What two recordings must have in common: buffers by their number, arguments by their position, what exists
    outside of the step by its identity, and what the step makes by its values.
    """
    if isinstance(x, Traced):
        return signature(x.raw, buffers, given)
    if isinstance(x, np.ndarray):
        return _array_signature(x, buffers)
    if isinstance(x, Tensor):
        array = slot(x)
        if id(x) in given:
            return "the argument", given[id(x)]
        if isinstance(array, Traced) or not isinstance(array, np.ndarray) or id(root_of(array)) in buffers:
            return "a tensor", signature(array, buffers, given)
        return "a tensor", Constant(x, array)
    if isinstance(x, tuple | list):
        return tuple(signature(v, buffers, given) for v in x)
    if type(x) is dict:
        return tuple((k if isinstance(k, str) else None, signature(v, buffers, given)) for k, v in x.items())
    return _object_signature(x)


def _object_signature(x: Any) -> Any:
    """A number by its value; of a module, an optimiser, a schedule there is one."""
    if isinstance(x, AsNumbers):
        return "numbers", x.f, *x.numbers.items()
    if isinstance(x, slice):
        return "slice", x.start, x.stop, x.step
    if isinstance(x, int | float | str | bool | np.generic | np.dtype | type | None):
        return "the constant", repr(x)
    if isinstance(x, FunctionType):
        return x.__code__, tuple(map(_variable_signature, x.__closure__ or ()))
    if hasattr(x, "state_dict") or isinstance(x, dict):
        return type(x), id(x)
    return type(x).__name__


def _variable_signature(cell: CellType) -> Any:
    """What a variable of a closure holds: a number by its value, of a function the code."""
    try:
        x = cell.cell_contents
    except ValueError:  # not bound
        return None
    return x.__code__ if isinstance(x, FunctionType) else _object_signature(x)


def _array_signature(x: HostArray, buffers: Mapping[int, int]) -> Any:
    """A view of a buffer by where it lies, a constant by its values."""
    root = root_of(x)
    if (number := buffers.get(id(root))) is not None:
        return "buffer", number, address(x) - address(root), x.shape, x.strides, x.dtype.str
    if not x.ndim:
        return "the constant", Constant(x, x), x.dtype.str
    return "an array", x.shape, x.dtype.str, Constant(x, x)


def digest(x: HostArray) -> bytes:
    """What tells apart the values of arrays."""
    body = x.tobytes()
    return body if len(body) < 64 else hashlib.blake2b(body).digest()


class Constant:
    """What a step uses that is no buffer: the same thing in both recordings, or of the same values."""

    __slots__ = ("x", "form", "values")

    def __init__(self, x: Any, array: HostArray) -> None:
        self.x, self.form = x, (type(x), array.shape, array.dtype.str, array.strides)
        self.values = digest(array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant):
            return False
        return self.x is other.x or (self.form == other.form and (self.values == other.values or self.lies_as(other)))

    def lies_as(self, other: Constant) -> bool:
        """Whether both are the same view of one array."""
        a, b = self.x, other.x
        return isinstance(a, np.ndarray) and root_of(a) is root_of(b) and address(a) == address(b)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return str(self.x[()]) if isinstance(self.x, np.ndarray) else repr(self.x)


def compare(first: Sequence[Entry], second: Sequence[Entry]) -> None:
    """Raise `CompileError`, with the line, unless two recordings are the same calls with the same constants."""
    for a, b in zip_longest(first, second):
        if a is None or b is None or a.signature != b.signature:
            (file, line), what = (b or a).place, "does something else"
            if a is not None and b is not None and a.signature[0] == b.signature[0]:
                what = "computes with " + difference(a.signature, b.signature)
            raise CompileError(
                f"{file}, line {line}: {what} at the second call. What a function that tr.compile records reads, "
                f"beside its arguments, the parameters of its modules and its optimisers, must be the same at each "
                f"call: pass it as an argument (a number that changes at each call as an array, or it is recorded anew)"
            )


def difference(a: Any, b: Any) -> str:
    """The first difference of two signatures, in words."""
    for x, y in zip(a, b, strict=False):
        if x != y:
            if isinstance(x, tuple) and isinstance(y, tuple) and len(x) == len(y):
                if x[0] == y[0] == "the constant":
                    return f"the constant {y[1]}, which was {x[1]}"
                if x[0] == y[0] == "an array":
                    return f"an array {y[1]} of other values"
                return difference(x, y)
            break
    return "other arrays"
