"""Two recordings of one step, compared: what a step does must be the same each time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.compiler.arrays import address, root_of
from tinygrad_rnn.compiler.numpy_calls import AsNumbers
from tinygrad_rnn.compiler.traced import Traced
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Entry


def signature(x: Any, buffers: Mapping[int, int]) -> Any:
    """What two recordings must have in common: buffers by their number, constants by value."""
    if isinstance(x, Traced):
        return signature(x.raw, buffers)
    if isinstance(x, np.ndarray):
        return _array_signature(x, buffers)
    if isinstance(x, Tensor):
        return "a tensor", signature(x._array, buffers) if isinstance(x._array, np.ndarray) else None
    if isinstance(x, AsNumbers):
        return "numbers", x.f, *x.numbers.items()
    if isinstance(x, tuple | list):
        return tuple(signature(v, buffers) for v in x)
    if isinstance(x, dict):
        return tuple((k if isinstance(k, str) else None, signature(v, buffers)) for k, v in x.items())
    if isinstance(x, slice):
        return "slice", x.start, x.stop, x.step
    if isinstance(x, int | float | str | bool | np.generic | np.dtype | type | None):
        return "the constant", repr(x)
    return type(x).__name__


def _array_signature(x: HostArray, buffers: Mapping[int, int]) -> Any:
    """A view of a buffer by where it lies, a constant by its values."""
    root = root_of(x)
    if (number := buffers.get(id(root))) is not None:
        return "buffer", number, address(x) - address(root), x.shape, x.strides, x.dtype.str
    if not x.ndim:
        return "the constant", str(x[()]), x.dtype.str
    return "an array", x.shape, x.dtype.str, digest(x)


def digest(x: HostArray) -> bytes:
    """What tells apart the values of arrays."""
    body = x.tobytes()
    return body if len(body) < 64 else hashlib.blake2b(body).digest()


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
