"""A stand-in for CuPy, over NumPy: it refuses what CuPy refuses, so that code can be tried that has no GPU to run on.

It is a test of our code, and says nothing about CuPy or a device: kernels, precision, speed and memory are NumPy's.
What it has in common with CuPy: names and arguments (`_surface.py`, from CuPy's wheel), no conversion to NumPy unasked,
no arithmetic with host arrays, 0-d arrays where NumPy has numbers, indices out of range that wrap, `empty` that holds
anything (here NaN), additions at an index in no order, subnormal float32 numbers that become 0, a current device,
memory that runs out at the limit of the default pool or of CUPY_GPU_MEMORY_LIMIT; memory that nobody has any more is
overwritten. A stream that captures computes nothing: results hold NaN until the graph is launched, which makes the same
calls on the same memory; it refuses what CUDA and CuPy refuse then, and memory of the default pool. It counts what a
device would be asked to do, and where the host waits for it: `cupy.standin.lines("synchronisation")`.
Kernels in CUDA run, compiled from the same source by a C++ compiler (`_raw.py`).

Environment: STANDIN_DEVICES (2), and STANDIN_WITHOUT="nvrtc cublas", libraries that half an install lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _device as standin
from . import _surface
from ._array import add_at, compute, fresh, host_of, ndarray, power
from ._device import count, current
from ._linked import cuda
from ._memory import get_default_memory_pool, poison
from ._raw import RawKernel, RawModule

__version__ = _surface.version()
__all__ = ["RawKernel", "RawModule", "cuda", "get_default_memory_pool", "ndarray", "standin"]

newaxis, pi, e, inf, nan = None, np.pi, np.e, np.inf, np.nan
float16, float32, float64, bool_ = np.float16, np.float32, np.float64, np.bool_
int8, int16, int32, int64 = np.int8, np.int16, np.int32, np.int64
uint8, uint16, uint32, uint64 = np.uint8, np.uint16, np.uint32, np.uint64
complex64, complex128, dtype, generic = np.complex64, np.complex128, np.dtype, np.generic
bool = np.bool_
finfo, iinfo = np.finfo, np.iinfo


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: Any = False) -> ndarray:
    if isinstance(a, ndarray):
        host = a._host
        if a._id == current() and not copy and (dtype is None or a.dtype == np.dtype(dtype)):
            return a  # else a copy, perhaps from device to device
        return fresh("kernel", lambda: np.array(host, dtype=dtype, order=order or "K"))  # type: ignore[no-any-return]
    if isinstance(a, list | tuple) and any(isinstance(v, ndarray) for v in a):
        _table_of(a)
        hosts = [host_of(v) for v in a]
        return fresh("kernel", lambda: np.array(hosts, dtype=dtype))  # type: ignore[no-any-return]
    host = np.array(a, dtype=dtype)
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    if not host.ndim:  # a kernel that fills
        return fresh("kernel", lambda: host.copy())  # type: ignore[no-any-return]
    count("upload")
    return ndarray._of(host)


def _table_of(arrays: Any) -> None:
    """Of more than eight arrays CuPy uploads a table of pointers, unless they are large or of several types."""
    several = len({x.dtype for x in arrays}) > 1
    large = sum(x.nbytes for x in arrays) >= 2**21 * len(arrays)
    if len(arrays) > 8 and not several and not large and standin.current_stream().graph is not None:
        count("upload")


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: Any = False, ndmin: int = 0
) -> ndarray:
    return asarray(obj, dtype, order, copy=copy)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: Any = True) -> Any:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    host: Any = np.empty(shape, dtype)
    poison(host)
    return ndarray._of(host)


def empty_like(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return empty(prototype.shape if shape is None else shape, prototype.dtype if dtype is None else dtype)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and a.flags.c_contiguous and a.ndim and (dtype is None or a.dtype == dtype):
        host_of(a)
        return a
    return compute("ascontiguousarray", np.ascontiguousarray, (a,), {"dtype": dtype})  # type: ignore[no-any-return]


def astype(x: Any, dtype: Any, *, copy: Any = True) -> ndarray:
    found: ndarray = x.astype(dtype, copy=copy)
    return found


def concatenate(tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    if isinstance(tup, ndarray) or not all(isinstance(x, ndarray) for x in tup):
        raise TypeError("Only cupy arrays can be concatenated")
    _table_of(tup)
    return compute("concatenate", np.concatenate, (list(tup),), {"axis": axis, "out": out})


concat = concatenate


def stack(tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    _table_of(tup)
    return compute("stack", np.stack, (list(tup),), {"axis": axis, "out": out})


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    return compute("where", np.where, (condition, x, y), {})


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    size = max(1, a.size if axis is None else a.shape[axis])
    return compute("take", lambda x, ids: np.take(x, ids % size, axis=axis), (a, indices), {})


def take_along_axis(a: Any, indices: Any, axis: Any) -> Any:
    size = a.shape[axis]
    return compute("take_along_axis", lambda x, i: np.take_along_axis(x, i % size, axis), (a, indices), {})


class _Add:
    """`cupy.add`, with its `at`."""

    at = staticmethod(add_at)
    reduce = staticmethod(lambda a, axis=0, **named: compute("sum", np.add.reduce, (a,), {"axis": axis, **named}))
    reduceat = staticmethod(lambda a, i, axis=0: compute("sum", np.add.reduceat, (a, i), {"axis": axis}))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _surface.check_call("u", "add", len(args), kwargs)
        return compute("add", np.add, args, kwargs)


add = _Add()


class _Module:
    """A module whose functions are NumPy's of the same name, where CuPy has that name and those arguments."""

    def __init__(self, prefix: str = "", numpy: Any = np) -> None:
        self._prefix, self._numpy = prefix, numpy

    def __getattr__(self, name: str) -> Any:
        full = self._prefix + name
        kind = next((k for k in "fun" if (k, full) in _surface.surface()), None)
        if kind is None:
            raise AttributeError(f"module 'cupy' has no attribute {full!r}")
        numpys = power if full == "power" else getattr(self._numpy, name, None)
        if numpys is None or (kind == "n" and not isinstance(numpys, type)):
            raise NotImplementedError(f"the stand-in does not have cupy.{full}")
        if kind == "n":
            return numpys

        def function(*args: Any, **kwargs: Any) -> Any:
            _surface.check_call(kind, full, len(args), kwargs)
            kwargs.pop("casting", None)
            return compute(full, numpys, args, kwargs)

        function.__name__ = name
        return function


_functions = _Module()
linalg = _Module("linalg.", np.linalg)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    return getattr(_functions, name)
