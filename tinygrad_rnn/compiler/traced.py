"""`Traced` arrays: while a step is recorded, each call on one of them is computed, and written down on a tape.

A `Traced` is no `ndarray`: what wants the values of one cannot have them unnoticed, and is an error with its line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tinygrad_rnn.compiler.arrays import flat, rebuilt
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.mode import active_tape
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Tape


class Traced(NDArrayOperatorsMixin):
    """A NumPy array, `raw`, whose uses are written down on `tape`.

    `number` is the type of a Python number that is kept as an array of shape (), or None.
    """

    __slots__ = ("raw", "tape", "number", "__weakref__")

    def __init__(self, raw: np.ndarray[Any, Any], tape: Tape, number: type | None = None) -> None:
        self.raw, self.tape, self.number = raw, tape, number

    # --- what does not depend on the values ---------------------------------------------------------------------------

    shape = property(lambda self: self.raw.shape)
    ndim = property(lambda self: self.raw.ndim)
    size = property(lambda self: self.raw.size)
    dtype = property(lambda self: self.raw.dtype)
    itemsize = property(lambda self: self.raw.itemsize)
    nbytes = property(lambda self: self.raw.nbytes)
    flags = property(lambda self: self.raw.flags)
    device = "cpu"
    T = property(lambda self: Traced(self.raw.T, self.tape))
    mT = property(lambda self: Traced(self.raw.mT, self.tape))

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return NAMESPACE

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(len(self)))

    # --- what is computed ---------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if any(isinstance(x, Tensor) for x in inputs):
            return NotImplemented  # a tensor knows what to do
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if out is not None:
            kwargs["out"] = out[0] if len(out) == 1 else out
        return self.tape.function(function, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self.tape.function(function, args, kwargs)

    def __matmul__(self, other: Any) -> Any:
        return self.tape.function(product_of(self, other), (self, other), {})

    def __rmatmul__(self, other: Any) -> Any:
        return self.tape.function(product_of(self, other), (other, self), {})

    def __pow__(self, other: Any) -> Any:
        return self.tape.function(np.ndarray.__pow__, (self, other), {})  # which knows squares, where the ufunc doesn't

    def __getitem__(self, key: Any) -> Any:
        return self.tape.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tape.setitem(self, key, value)

    def __getattr__(self, name: str) -> Any:
        method = None if name.startswith("_") else getattr(np.ndarray, name, None)
        if not callable(method):
            raise AttributeError(f"the array of a recording has no attribute {name!r}")
        if name in ("item", "tolist", "tobytes", "tofile", "dump", "dumps", "resize"):
            return lambda *args, **kwargs: refuse(f".{name}()")
        return lambda *args, **kwargs: self.tape.function(method, (self, *args), kwargs)

    # --- what would need the values -----------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        refuse("the values (.numpy(), np.asarray, print)")

    def __float__(self) -> float:
        refuse("float() or .item()")

    def __int__(self) -> int:
        refuse("int()")

    def __index__(self) -> int:
        refuse("an index, range() or int()")

    def __bool__(self) -> bool:
        refuse("if, while, bool() or a comparison with `in`")

    def __complex__(self) -> complex:
        refuse("complex()")

    def __format__(self, spec: str) -> str:
        refuse("a formatted string")

    def __reduce__(self) -> NoReturn:
        refuse("pickle or copy")

    def __repr__(self) -> str:
        return f"<array {self.shape} {self.dtype} of a recording>"


def product_of(a: Any, b: Any) -> Any:
    """The function that multiplies as `backend.dot` does: `np.dot` for two matrices."""
    return np.dot if a.ndim == 2 and getattr(b, "ndim", 0) == 2 else np.matmul


def untraced(x: Any) -> Any:
    """`x` with NumPy arrays in the place of traced ones."""
    return rebuilt(x, lambda v: v.raw if isinstance(v, Traced) else v)


def arrays_in(x: Any) -> Iterator[HostArray]:
    """The NumPy arrays among arguments or results, those of tensors included."""
    for v in flat(x):
        array = v._array if isinstance(v, Tensor) else v
        array = array.raw if isinstance(array, Traced) else array
        if isinstance(array, np.ndarray):
            yield array


# --- errors -----------------------------------------------------------------------------------------------------------

STALE = (
    "a tensor that was computed while tr.compile recorded is used outside of the function: return what is wanted "
    "later, a state to carry on, say, and pass it as an argument"
)


def refuse(what: str) -> NoReturn:
    """Raise `CompileError` for what asks for values, which differ at each replay."""
    raise CompileError(
        f"{users_place()}: {what} of a value that is computed from the arguments or the parameters, in a function that "
        f"tr.compile records: the recording would repeat this one value. Return the tensor and look at it outside; "
        f"choose by tr.where instead of `if`; pass what decides (lengths, flags) as plain numbers, which are recorded "
        f"anew when they change"
    )


def place(depth: int = 2) -> tuple[str, int]:
    """The file and the line of the innermost frame outside of this package and NumPy."""
    frame = sys._getframe(depth)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("tinygrad_rnn", "numpy"):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def users_place() -> str:
    """The file and the line where the user called, in words."""
    file, line = place()
    return f"{file}, line {line}"


# --- the namespace ----------------------------------------------------------------------------------------------------


class TracedNamespace:
    """NumPy for traced arrays: new arrays are traced, too, since what is written into them must be seen."""

    of = np  # the library whose arrays it takes as well

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = None) -> Traced:
        return _tape().fresh(np.empty(shape, dtype), None)

    def zeros(self, shape: Any, dtype: Any = None) -> Traced:
        return _tape().fresh(np.zeros(shape, dtype), 0)

    def ones(self, shape: Any, dtype: Any = None) -> Traced:
        return _tape().fresh(np.ones(shape, dtype), 1)

    def asarray(self, x: Any, dtype: Any = None, copy: bool | None = None) -> Any:
        if not isinstance(x, Traced):
            return np.array(x, dtype=dtype)
        if copy or (dtype is not None and x.dtype != dtype):
            return _tape().function(np.ndarray.astype, (x, x.dtype if dtype is None else dtype), {})
        return x

    def einsum(self, subscripts: str, *xs: Any) -> Any:
        return _tape().function(np.einsum, (subscripts, *xs), {"optimize": len(xs) > 1})  # as `backend.einsum`


def _tape() -> Tape:
    tape: Tape | None = active_tape.get()
    if tape is None:
        raise CompileError(f"{users_place()}: {STALE}")
    return tape


NAMESPACE = TracedNamespace()
