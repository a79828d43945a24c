"""The array library under a tensor, and everything that NumPy and CuPy do differently.

A backend is chosen by the type of the array, never by a global switch: `namespace(x)` is NumPy for
a NumPy array, CuPy for a CuPy array, and whatever `__array_namespace__` answers for any other array
of the standard. Everything above this file uses the names of the array API standard, so the same
line runs on each of them.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from tinygrad_rnn.errors import BackendMismatchError, DTypeError, ShapeError
from tinygrad_rnn.memory import memory_for
from tinygrad_rnn.scalars import as_number
from tinygrad_rnn.tensor import device as cuda
from tinygrad_rnn.tensor.device import is_on_device
from tinygrad_rnn.tensor.effects import effects
from tinygrad_rnn.tensor.mode import active_tape, replayed

DType: TypeAlias = Any
HostArray: TypeAlias = "np.ndarray[Any, Any]"
A = TypeVar("A")
AnyArray: TypeAlias = Any  # an `Array`, where functions take it that are typed for NumPy's alone

# --- which library --------------------------------------------------------------------------------

_SCALARS: set[type] = {float, int, bool, complex}  # Python's numbers go with every library
_PLAIN_NUMBERS, _REAL_NUMBERS = frozenset(_SCALARS), frozenset({float, int, bool})
_NAMESPACES: dict[type, Any] = {np.ndarray: np, **dict.fromkeys(_SCALARS)}


def namespace(x: Array | complex, *others: Array | complex) -> Namespace:
    """The array library that the arguments belong to: `numpy`, `cupy`, ...

    Python's numbers go with any library, and alone with NumPy. Raises `BackendMismatchError` when
    the arrays belong to different libraries or devices.

    >>> namespace(np.zeros(2), 1.0) is np
    True
    """
    if not others and (xp := _NAMESPACES.get(type(x))) is not None:
        return xp  # type: ignore[no-any-return]
    found: Any = None
    arrays = (x, *others)
    for x in arrays:
        try:
            xp = _NAMESPACES[type(x)]
        except KeyError:
            xp = _discover(x)
        if xp is None or xp is found:
            continue
        if found is not None and _library(found) is not _library(xp):
            raise BackendMismatchError(mismatch(arrays))
        if not hasattr(found, "of"):
            found = xp
    if found is None:
        found = np
    elif found is not np and len({device_of(x) for x in arrays if type(x) not in _SCALARS}) > 1:
        raise BackendMismatchError(mismatch(arrays))
    return found  # type: ignore[no-any-return]


def register_namespace(kind: type, namespace: Any) -> None:
    """Have `namespace` answer for arrays of the type `kind`, as NumPy does for `numpy.ndarray`.

    If it only stands before another library, whose calls it records say, its attribute `of` is that
    library, and arrays of the two go together.
    """
    _NAMESPACES[kind] = namespace


def register_number(kind: type) -> None:
    """Have numbers of the type `kind` go with every library, as Python's do."""
    _SCALARS.add(kind)
    _NAMESPACES[kind] = None


def _library(xp: Any) -> Any:
    """The library that a namespace stands before, or itself."""
    return getattr(xp, "of", xp)


def _discover(x: Any) -> Any:
    """The namespace of a type of array met for the first time."""
    xp: Any
    if isinstance(x, np.ndarray | np.generic):
        xp = np
    elif is_on_device(x):
        xp = sys.modules["cupy"]
    elif hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()  # not cached: its flags may change
    else:
        raise TypeError(f"expected an array or a number, got {type(x).__name__}: {x!r:.60}")
    register_namespace(type(x), xp)
    return xp


def mismatch(arrays: Sequence[Any]) -> str:
    """The message for arrays that do not live together."""
    where = ", ".join(
        f"{type(x).__module__.partition('.')[0]} array of shape {x.shape} on {device_of(x)}"
        for x in arrays
        if type(x) not in _SCALARS
    )
    return (
        f"arrays of different devices or libraries in one op: {where}; "
        f"move one of them with .to(device)"
    )


stages: Any = None
"""The module that `use_stages` was given, or None."""


def use_stages(module: Any) -> None:
    """Run the pointwise stages of kernels by those of `module` from now on; None: by NumPy."""
    global stages
    stages = module


# --- where arrays live ----------------------------------------------------------------------------


def device_of(x: Any) -> str:
    """Where an array lives: `"cpu"`, `"cuda:0"`, ...

    >>> device_of(np.zeros(2))
    'cpu'
    """
    if isinstance(x, np.ndarray | np.generic):
        return "cpu"
    if is_on_device(x):
        return f"cuda:{x.device.id}"
    return str(x.device)


def check_device(device: str | None) -> str:
    """`device` in its full form, `"cpu"` or `"cuda:N"`; an unknown one is a `ValueError`.

    "cuda" is the device that is in use.

    >>> check_device("cuda")
    'cuda:0'
    """
    if device is None or device == "cpu":
        return "cpu"
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise ValueError(f'unknown device {device!r}: use "cpu", "cuda" or "cuda:N"')
    return f"cuda:{int(number) if number else cuda.current()}"


def to_device(x: Array, device: str) -> Array:
    """`x` copied to `device`, or `x` itself if it lives there."""
    device = check_device(device)
    if device == device_of(x):
        return x
    if device == "cpu":
        return to_host(x)
    cuda.check_number(int(device.partition(":")[2]))
    with memory_for(f"a copy of shape {tuple(x.shape)}"):
        moved: Array = sys.modules["cupy"].asarray(x)
    return moved


def to_host(x: Any) -> HostArray:
    """`x` as a NumPy array; the same memory where it is one already."""
    if type(x) is np.ndarray:
        return x
    if is_on_device(x):
        return cuda.read(x)  # type: ignore[no-any-return]
    return np.asarray(x)


def host_array(x: Any) -> HostArray:
    """A Tensor, an array, or lists of numbers and arrays, of any device as a NumPy array of its own
    dtype. Raises `DTypeError` for what `real` refuses.
    """
    return to_host(real(getattr(x, "_array", x)))


def recorded_on_host(x: Any) -> Any:
    """`to_host`, but an array of a recording, whose values nobody may have, stays what it is."""
    return x if isinstance(x, np.ndarray) else to_host(x)


def synchronize(device: str) -> None:
    """Wait until `device` has finished what it was given; nothing to do on the CPU."""
    if device != "cpu":
        cuda.cupy_here().cuda.Device(int(device.partition(":")[2])).synchronize()


# --- dtypes ---------------------------------------------------------------------------------------


def dtype_of(name: Any) -> DType:
    """A NumPy dtype, in the byte order of this machine, from a name, a type or a dtype.

    Raises `DTypeError` for anything but real numbers and booleans.

    >>> dtype_of(">f4")
    dtype('float32')
    """
    try:
        dtype = np.dtype(name) if name is not None else None
    except TypeError:
        dtype = None
    if dtype is None or not _is_real(dtype):
        raise DTypeError(
            f"not a dtype for a tensor: {name!r}; "
            f"use float16, float32, float64, an integer type or bool"
        )
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def name_of(dtype: DType) -> str:
    """The name that every library has for a dtype: `float32`, whatever its byte order is.

    >>> name_of(np.dtype(">f4"))
    'float32'
    """
    return dtype.name if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]


def is_floating(dtype: DType) -> bool:
    """Whether `dtype` is a real floating type; NumPy's and the standard's dtype objects both do."""
    return getattr(dtype, "kind", "") == "f" or "float" in str(dtype)


def is_complex(dtype: DType) -> bool:
    """Whether `dtype` is complex: only the gradient checker makes such tensors."""
    kind = getattr(dtype, "kind", "")
    return bool(kind == "c") if kind else "complex" in str(dtype)


def is_half(x: Any) -> bool:
    """Whether `x`, an array or anything else, holds float16.

    >>> is_half(np.ones(2, np.float16)), is_half(1.0)
    (True, False)
    """
    return getattr(getattr(x, "dtype", None), "char", "") == "e"  # the standard's have no `char`


def widened(x: Array) -> Array:
    """`x` itself, or a copy in float32 of what is float16.

    >>> widened(np.ones(2, np.float16)).dtype, widened(np.ones(2)).dtype
    (dtype('float32'), dtype('float64'))
    """
    return namespace(x).astype(x, namespace(x).float32) if is_half(x) else x


def flattened(x: Array) -> Array:
    """`x` with one axis.

    >>> flattened(np.zeros((2, 3))).shape
    (6,)
    """
    return x.reshape(-1) if type(x) is np.ndarray else namespace(x).reshape(x, (-1,))


def joined(arrays: Sequence[Array]) -> Array:
    """Arrays of any shapes behind one another, as one new array with one axis."""
    return concat([flattened(x) for x in arrays])


TABLE = (
    8  # arrays from which on CuPy joins more by a table of pointers, which it copies from the host
)


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays joined along an axis. In a graph that is captured many are copied one by one."""
    xp: Any = namespace(*arrays)
    if len(arrays) > TABLE and cuda.capture.get() is not None:
        return cuda.kernels.join(xp, arrays, axis)  # type: ignore[no-any-return]
    return xp.concat(arrays, axis=axis) if axis else xp.concat(arrays)  # type: ignore[no-any-return]


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays of one shape along a new axis."""
    xp: Any = namespace(*arrays)
    if len(arrays) <= TABLE or cuda.capture.get() is None:
        return xp.stack(arrays, axis=axis)  # type: ignore[no-any-return]
    return concat([xp.expand_dims(x, axis) for x in arrays], axis)


def is_integer(dtype: DType) -> bool:
    """Whether `dtype` is an integer type, of any byte order."""
    kind = getattr(dtype, "kind", "")
    return kind in ("i", "u") or (not kind and name_of(dtype).startswith(("int", "uint")))


def is_boolean(dtype: DType) -> bool:
    """Whether `dtype` is that of booleans."""
    kind = getattr(dtype, "kind", "")
    return kind == "b" or (not kind and name_of(dtype) == "bool")


def _is_real(dtype: DType) -> bool:
    return getattr(dtype, "kind", "f") in ("f", "i", "u", "b") and not is_complex(dtype)


_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_USUAL = frozenset({_FLOAT32, _FLOAT64, np.dtype(np.int64), np.dtype(np.int32), np.dtype(bool)})


def promote(*arrays: Any) -> tuple[Any, ...]:
    """Operands with integers and booleans cast to the floating type among them.

    So float32 stays float32 beside integers, where NumPy would make it float64.

    >>> promote(np.ones(1, np.float32), np.arange(1))[1].dtype
    dtype('float32')
    """
    usual = getattr(arrays[0], "dtype", None)
    if usual is _FLOAT32 or usual is _FLOAT64:  # nearly always: nothing to cast
        for x in arrays:
            if type(x) not in _SCALARS and x.dtype is not usual:
                break
        else:
            return arrays
    dtypes = [x.dtype for x in arrays if type(x) not in _SCALARS]
    floats = [dtype for dtype in dtypes if is_floating(dtype)]
    if len(floats) == len(dtypes) or any(is_complex(dtype) for dtype in dtypes):
        return arrays
    if not floats and not any(isinstance(x, float) for x in arrays):
        return arrays
    xp = namespace(*arrays)
    target = xp.result_type(*floats) if floats else xp.float32
    return tuple(
        x if type(x) in _SCALARS or is_floating(x.dtype) else xp.astype(x, target) for x in arrays
    )


# --- arrays from what users pass ------------------------------------------------------------------


def asarray(data: Any, dtype: Any = None, device: str | None = None) -> Array:
    """A new array of `data` on `device` (never shared with `data`).

    Python floats become float32; arrays and NumPy's scalars keep their dtype, integers stay
    integers. Raises `DTypeError` for what `real` refuses, and for numbers that an integer `dtype`
    does not reach.

    >>> asarray([1.0, 2.0]).dtype, asarray(np.ones(2)).dtype
    (dtype('float32'), dtype('float64'))
    """
    tape = active_tape.get()
    if type(data) is np.ndarray and dtype is None and data.dtype in _USUAL and tape is None:
        return to_device(data.copy("K"), device) if device else data.copy("K")
    if isinstance(dtype, np.dtype) and is_complex(dtype):
        # `dtype=x.dtype`, where a checker takes a complex step in x
        x: Any = asarray(data, "float64", device)
        return x.astype(dtype)  # type: ignore[no-any-return]
    x = real(data)
    wanted: DType = None
    if dtype is not None:
        wanted = dtype_of(dtype)
    elif not hasattr(data, "dtype") and x.dtype == np.float64:
        wanted = _FLOAT32
    if issubclass(type(x), np.ndarray) and (tape is None or x is not data):
        if wanted is not None and wanted.kind in "iu" and x.dtype != wanted:
            _check_reach(x, wanted)
        x = np.array(x, dtype=wanted, copy=x is data or None)
        return to_device(x, device) if device else x
    xp: Any = namespace(x)
    xp = tape.namespace if tape is not None and xp is np else xp  # somebody may write to it
    x = xp.asarray(x, dtype=None if wanted is None else getattr(xp, wanted.name), copy=True)
    return x if device is None else to_device(x, device)


def real(data: Any) -> Array:
    """`data` as an array of real numbers in this machine's byte order: the one way into a tensor.

    An array that is one passes as it is, of any library. Raises `DTypeError` naming what no tensor
    holds: complex numbers, text, dates, None and other objects, records, masked arrays.

    >>> real(np.array([1, 2], ">i4")).dtype
    dtype('int32')
    """
    x = data if type(data) is np.ndarray else _as_array(data)
    if not _is_real(x.dtype):
        raise DTypeError(
            f"a tensor holds numbers or booleans, not {_what_it_holds(x)} (from {data!r:.60})"
        )
    if not getattr(x.dtype, "isnative", True):
        x = x.astype(x.dtype.newbyteorder("="))
    return x


def _as_array(data: Any) -> Any:
    """The array of anything that is passed: itself, if it is one of another library."""
    if is_on_device(data):  # whose `__array__` raises
        return data
    if "numpy.ma" in sys.modules and _holds_masked(data):
        raise DTypeError(
            "a tensor holds numbers or booleans, not a masked array: say what stands in its gaps, "
            ".filled(value), or pass .data and the mask on its own"
        )
    if not isinstance(data, list | tuple):
        if issubclass(type(data), np.ndarray | np.generic):
            return np.array(data)
        if hasattr(data, "__array_namespace__"):
            return data
    if isinstance(data, list | tuple) and (found := _on_device_within(data)):
        return sys.modules["cupy"].asarray(found)
    try:
        return np.array(data)
    except ValueError as error:
        kind = type(data).__name__
        raise ValueError(f"cannot make a tensor of {kind}: {error}") from None


def _on_device_within(data: Any) -> Any:
    """A list as one of arrays on a device, if one of its arrays or Tensors is there; else None."""
    if "cupy" not in sys.modules or _REAL_NUMBERS.issuperset(map(type, data)):
        return None
    raw = [getattr(x, "_array", x) for x in data]
    inner = [_on_device_within(x) if isinstance(x, list | tuple) else None for x in raw]
    if not any(is_on_device(x) for x in raw) and not any(inner):
        return None
    xp = sys.modules["cupy"]
    return [xp.asarray(x if y is None else y) for x, y in zip(raw, inner, strict=True)]


def _holds_masked(data: Any) -> bool:
    """Whether `data` is a masked array, or nested lists with one, whose mask NumPy would drop."""
    if isinstance(data, list | tuple):
        return not _REAL_NUMBERS.issuperset(map(type, data)) and any(map(_holds_masked, data))
    if is_on_device(data):  # CuPy has none, and its `__array__` raises
        return False
    if hasattr(data, "__array__") and not hasattr(data, "__array_namespace__"):
        data = data.__array__()  # of a table's column, say
    return isinstance(data, sys.modules["numpy.ma"].MaskedArray)


_KINDS = {"c": "complex numbers", "U": "text", "S": "text", "T": "text", "M": "dates"}
_KINDS |= {"m": "spans of time", "V": "records"}


def _what_it_holds(x: Any) -> str:
    """What an array holds that no tensor does, in words, with the dtype or the type of an entry."""
    kind = getattr(x.dtype, "kind", "c")
    if kind != "O":
        return f"{_KINDS.get(kind, 'these')} ({x.dtype})"
    odd = [type(v).__name__ for v in x.reshape(-1) if not isinstance(v, int | float)]
    many = any(isinstance(v, int) and abs(v) >= 2**63 for v in x.reshape(-1)) and not odd
    return "integers of more than 64 bits" if many else f"objects ({(*odd, 'numbers')[0]})"


def _check_reach(x: HostArray, dtype: DType) -> None:
    """Raise `DTypeError` for a number in `x` beyond what an integer `dtype` reaches, or NaN."""
    if not x.size or x.dtype.kind == "b":
        return
    low, high, least, most = x.min(), x.max(), np.iinfo(dtype).min, np.iinfo(dtype).max
    if not (least <= low and high <= most):  # NaN, too
        wrong = low if low < least or low != low else high
        raise DTypeError(f"{wrong} is beyond {dtype}, which reaches from {least} to {most}")


def operand(x: Any, like: Array) -> Any:
    """What stands beside the array of a Tensor, made safe.

    NumPy scalars become Python ones, so that float32 stays float32. Arrays are copied, since
    writing into one later must not change a derivative. Lists become arrays on the device of
    `like`. Raises `DTypeError` or `TypeError` naming what is no number.
    """
    if type(x) in _SCALARS and (type(x) is not complex or is_complex(like.dtype)):
        return x
    if isinstance(x, np.generic) and x.dtype.kind in "fiub":
        xp: Any = _NAMESPACES.get(type(x), np)
        if xp is not np:
            return xp.number(x)
        return float(x) if x.dtype.kind == "f" else x.item()
    if hasattr(x, "dtype"):
        return asarray(x)
    if isinstance(x, list | tuple):
        host = real(x)
        # its floats are as weak as a single float is
        weak = host.dtype == np.float64
        wanted = name_of(like.dtype) if is_floating(like.dtype) else "float32"
        return asarray(host, wanted if weak else None, device_of(like))
    if x is None:
        raise TypeError("None is no operand: a Tensor, an array or a number is")
    raise DTypeError(
        f"expected a Tensor, an array, a real number or a list of them, "
        f"got {type(x).__name__}: {x!r:.60}"
    )


_AS_IT_IS = frozenset({np.ndarray, np.float64, np.float32, type(None), *_PLAIN_NUMBERS})


def raw_operand(x: Any) -> Any:
    """An operand of a call without Tensors: a list becomes an array, a number stays one."""
    if type(x) in _AS_IT_IS or type(x) in _SCALARS or hasattr(x, "dtype"):
        return x
    return asarray(x)


def raw_array(x: Any) -> Any:
    """As `raw_operand`, but a number becomes an array: ops with axes ask for its shape."""
    return np.asarray(x) if type(x) in _PLAIN_NUMBERS else raw_operand(x)


def kept(x: AnyArray) -> Array:
    """A copy of an array that is an option of an op: its owner may write to it."""
    if type(x) is np.ndarray and x.dtype in _USUAL:
        return x.copy("K")
    return namespace(x).asarray(real(x), copy=True)


def as_array(y: Any, like: Array) -> Array:
    """`y` as an array of the library of `like`: NumPy answers some 0-d results with a scalar."""
    if type(y) is not type(like) and isinstance(y, np.generic | float | int | complex):
        return _NAMESPACES.get(type(y), np).asarray(y)  # type: ignore[no-any-return]
    return y


def freeze(x: Any) -> Any:
    """`x` for the user's eyes: a read-only view, or a copy where the library has no such thing."""
    if type(x) is np.ndarray:
        view = x.view()
        view.flags.writeable = False
        return view
    return namespace(x).asarray(x, copy=True)


def render(x: Array, prefix: str) -> str:
    """The values as text, for `repr`; long arrays are summarised as NumPy does."""
    return str(np.array2string(to_host(x), prefix=prefix, separator=", "))


def filled(shape: tuple[int, ...], value: float, dtype: Any) -> HostArray:
    """A NumPy array of `value`; a Python float becomes float32, an integer int64."""
    usual = np.float32 if isinstance(value, float) else np.int64
    found = dtype_of(dtype or usual)
    return np.full(shape, fitting("full: fill_value", value, found), dtype=found)


def fitting(what: str, value: Any, dtype: DType) -> Any:
    """`value` if it is a number that an array of `dtype` can hold; else a `DTypeError` with `what`.

    >>> fitting("a pad", 300.0, np.int16)
    300
    """
    found = as_number(value)
    if found is None:
        raise DTypeError(f"{what} must be a real number, not {type(value).__name__}: {value!r:.60}")
    held = np.dtype(name_of(np.dtype(dtype) if isinstance(dtype, type) else dtype))
    if held.kind == "b":
        fits = found in (0, 1)
    elif held.kind in "iu":
        fits = abs(found) < math.inf and found == int(found)
        fits = fits and np.iinfo(held).min <= found <= np.iinfo(held).max
        found = int(found) if fits else found
    else:
        fits = not math.isfinite(found) or abs(found) <= float(np.finfo(held).max)
    if not fits:
        raise DTypeError(f"{what} {found!r} does not fit {held}: give one that it holds")
    return found


def ranged(start: float, stop: float, step: float) -> HostArray:
    """`numpy.arange`."""
    return np.arange(start, stop, step)


# --- what libraries do differently ----------------------------------------------------------------


MANY = 2**16  # numbers of float32 that NumPy may add one after the other, not in pairs


def summed(x: Array, axis: Any, keepdims: bool = False, *, mean: bool = False) -> Array:
    """The sum over `axis`, or the mean: of many in float64, for NumPy adds up rows one by one.

    >>> float(summed(np.ones((2**24 + 2, 1), np.float32), 0)[0]), 2.0**24
    (16777218.0, 16777216.0)
    """
    xp: Any = namespace(x)
    f = xp.mean if mean else xp.sum
    if isinstance(x, np.ndarray) and x.ndim > 1 and x.size > MANY and x.dtype.char == "f":
        axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        if math.prod([x.shape[k] for k in axes]) > MANY:
            wide = f(x, axis=axis, keepdims=keepdims, dtype=np.float64)
            return wide.astype(x.dtype)  # type: ignore[no-any-return]
    return f(x, axis=axis, keepdims=keepdims)  # type: ignore[no-any-return]


def sum_to(g: Array, shape: tuple[int, ...]) -> Array:
    """`g` summed over the axes along which `shape` was broadcast to it: broadcasting transposed.

    >>> sum_to(np.ones((4, 3)), (1, 3))
    array([[4., 4., 4.]])
    """
    if getattr(g.dtype, "char", "") == "e":  # float16 counts to 2048
        return namespace(g).astype(sum_to(widened(g), shape), g.dtype)
    extra = g.ndim - len(shape)
    if isinstance(g, np.ndarray) and g.shape[extra:] == shape and g.size <= MANY:
        # a bias, at every step of a recurrent layer
        return np.add.reduce(g, axis=0 if extra == 1 else tuple(range(extra)))  # type: ignore[no-any-return]
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, g.shape[extra:], strict=True)):
        raise ShapeError(
            f"a gradient of shape {tuple(g.shape)} for an input of shape {shape}: "
            f"the derivative is wrong"
        )
    stretched = [extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i] != 1]
    axes = (*range(extra), *stretched)
    g = summed(g, axes, keepdims=True)
    return g.reshape(shape) if isinstance(g, np.ndarray) else namespace(g).reshape(g, shape)


def zeros_beside(like: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """Zeros on the device of `like`."""
    xp: Any = namespace(like)
    if xp is np:
        return np.zeros(shape, dtype)
    return xp.zeros(shape, dtype=dtype)  # type: ignore[no-any-return]


def repeated(like: Array, *values: float) -> tuple[Any, ...]:
    """Numbers to stand beside `like` in a ufunc: as arrays of its shape, where it is small, and in
    the order of rows, which the result has then, too.

    NumPy converts a number at each call, and takes the minimum of two arrays three times as fast.
    """
    if (
        type(like) is np.ndarray
        and like.size <= 2**14
        and like.flags.c_contiguous
        and like.dtype.char in "fd"
    ):
        return _repeated(values, like.shape, like.dtype)
    return values


@lru_cache(maxsize=256)
def _repeated(
    values: tuple[float, ...], shape: tuple[int, ...], dtype: DType
) -> tuple[HostArray, ...]:
    return tuple(np.full(shape, value, dtype) for value in values)


def beside(like: Array, drawn: Any, dtype: DType) -> Array:
    """`drawn`, from the host, as an array of the library of `like` on its device."""
    if isinstance(like, np.ndarray | np.generic) and _NAMESPACES.get(type(like), np) is np:
        return np.asarray(drawn, dtype)
    return namespace(like).asarray(drawn, dtype=dtype)


def uniform_on_device(like: Array, generator: Any) -> Array:
    """Draws in float32 of the shape of `like`, made on its device from a seed of `generator`."""
    return cuda.uniform(namespace(like), like.shape, int(generator.integers(2**63)))  # type: ignore[no-any-return]


def has_kernels(arrays: Sequence[Any]) -> bool:
    """Whether fused kernels may run on these operands: real floating NumPy or CuPy arrays.

    Python's numbers and None may stand beside them.
    """
    for x in arrays:
        if x is None or type(x) in _SCALARS:
            continue
        if _NAMESPACES.get(type(x)) is None or x.dtype.kind != "f":
            return False
    return True


def choose(condition: Any, a: Any, b: Any, out: HostArray | None = None) -> HostArray | None:
    """`np.where(condition, a, b)` of many floats, without a branch, into `out` if that is given.

    Where booleans have no pattern, a processor guesses every other one wrong, and `np.where` takes
    10 times as long as this: b ^ ((a ^ b) & mask), bit by bit. None for few, for other types, and
    for what does not lie in memory side by side, where the result might lie otherwise.
    """
    arrays = [x for x in (a, b) if type(x) not in _SCALARS]
    if type(condition) is not np.ndarray or condition.size < 4096 or condition.dtype != bool:
        return None
    for x in arrays:
        if type(x) is not np.ndarray or x.dtype is not arrays[0].dtype or x.dtype.char not in "efd":
            return None
        strides = tuple(x.itemsize * n for n in condition.strides)
        if x.ndim and (x.shape != condition.shape or x.strides != strides):
            return None
    if not arrays:
        return None
    dtype: Any = arrays[0].dtype
    bits = np.dtype(f"i{dtype.itemsize}")
    x, y = (np.asarray(v, dtype).view(bits) for v in (a, b))
    mask = np.negative(condition.view(np.int8), dtype=bits)  # 0 or -1, no bit or all
    mask &= x ^ y
    chosen: HostArray = np.bitwise_xor(mask, y, mask if out is None else out.view(bits)).view(dtype)
    return chosen


def gather(x: Array, index: Any) -> Array:
    """`x[index]` for any index: what the standard has no index for goes through NumPy."""
    xp = namespace(x)
    if hasattr(xp, "einsum"):  # more than the standard
        return x[index]
    return xp.asarray(np.asarray(to_host(x)[_host_index(index)]))


def take(x: Array, ids: Array, axis: int) -> Array:
    """`x` at `ids`, one axis of them, in range, along `axis`."""
    xp: Any = namespace(x)
    taken: Array
    if isinstance(x, np.ndarray) and x.ndim == 2 and axis == 0:
        taken = take_rows(xp.empty((ids.shape[0], x.shape[1]), dtype=x.dtype), x, ids)
    else:
        taken = xp.take(x, ids, axis=axis)
    return taken


@replayed(changes="nothing")
@effects(writes=["out"])
def take_rows(out: AnyArray, x: AnyArray, ids: AnyArray) -> AnyArray:
    """Write the rows `ids`, in range, of a matrix into `out`.

    Told to clip, NumPy does that without a copy, which it makes lest one were out of range.
    """
    np.take(x, ids, axis=0, out=out, mode="clip")
    return out


@replayed(changes="nothing")
@effects(updates=["buffer"])
def scatter_add(buffer: AnyArray, index: Any, g: Any) -> AnyArray:
    """`buffer[index] += g` where an index that occurs twice adds twice. Use the array returned.

    Basic and boolean indices address every entry at most once, so `+=` is right and fast. Integer
    arrays may repeat: their contributions are sorted by target and added up, which on NumPy is many
    times faster than `add.at`, and on a device has the same bits each time, as `add.at` has not.
    """
    xp: Any = namespace(buffer)
    keys = index if isinstance(index, tuple) else (index,)
    repeats = type(g) is not float and any(_is_integer_array(k) for k in keys)
    if hasattr(xp, "einsum") and not repeats:
        buffer[index] += g
    elif hasattr(xp, "einsum") and len(keys) == 1:
        _scatter_rows(buffer, keys[0], g)
    elif hasattr(xp, "einsum"):  # several keys: the same sum over flat positions
        positions = xp.arange(buffer.size).reshape(buffer.shape)[keys]
        _scatter_rows(buffer.reshape(-1), positions, xp.broadcast_to(g, positions.shape))
    else:
        host = np.array(buffer)
        np.add.at(host, _host_index(keys), np.asarray(g))
        return xp.asarray(host)
    return buffer


SORTED = 2**18  # numbers that are sorted at a time
WIDE = 256  # numbers in a row from which on it is faster to add row by row than to sort


def _scatter_rows(buffer: AnyArray, ids: AnyArray, g: AnyArray) -> None:
    """Add `g[i]` to the row `ids[i]` of `buffer`, in place."""
    ids = ids.reshape(-1)
    g = g.reshape(ids.size, *buffer.shape[1:])
    if is_on_device(buffer):
        table = buffer.reshape(buffer.shape[0], math.prod(buffer.shape[1:]))
        cuda.add_rows(namespace(g), table, ids, widened(g).reshape(ids.size, table.shape[1]))
        return
    dense = buffer.ndim == 2 and (buffer.shape[1] < 2 or buffer.strides[1] == buffer.itemsize)
    if stages is not None and dense and buffer.dtype == g.dtype and g.dtype.char in "fd":
        stages.add_rows(buffer, np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(g))
        return
    if buffer.ndim == 2 and buffer.shape[1] >= WIDE and buffer.dtype == g.dtype and not is_half(g):
        for k, d in zip(ids.tolist(), g, strict=True):
            row = buffer[k]
            np.add(row, d, row)
        return
    ids = np.where(ids < 0, ids + len(buffer), ids)  # -1 and the last one are one row
    order = np.argsort(ids, kind="stable")
    rows, starts = np.unique(ids[order], return_index=True)
    pieces: list[Any] = [...]
    if buffer.ndim == 2:  # columns that stay in a cache
        step = max(16, SORTED // max(1, ids.size))
        pieces = [np.s_[:, k : k + step] for k in range(0, buffer.shape[1], step)]
    for piece in pieces:
        sums: Any = widened(g[piece][order])
        buffer[piece][rows] += np.add.reduceat(sums, starts, axis=0)


def _is_integer_array(key: Any) -> bool:
    return getattr(getattr(key, "dtype", None), "kind", "") in ("i", "u")


def _host_index(keys: Any) -> tuple[Any, ...]:
    """An index with its arrays as NumPy's."""
    return tuple(np.asarray(k) if hasattr(k, "dtype") else k for k in keys)


def dot(a: A, b: A) -> A:
    """`a @ b` of two matrices, or of two vectors, arrays or Tensors.

    On small ones `ndarray.dot` takes a third of the time of `@`; on a GPU cuBLAS, asked by
    `kernels/cuda/cublas.py`, of CuPy's.
    """
    if type(a) is np.ndarray and type(b) is np.ndarray:
        return a.dot(b)  # type: ignore[attr-defined, no-any-return]
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):  # one of them in a recording
        return np.dot(a, b)  # type: ignore[no-any-return]
    if cuda.kernels is not None and cuda.kernels.multiplies(a, b):
        return cuda.kernels.multiply(a, b)  # type: ignore[no-any-return]
    return a @ b  # type: ignore[operator, no-any-return]


def einsum(subscripts: str, *xs: AnyArray) -> Array:
    """`numpy.einsum` on any backend; products of more than two operands are ordered for cost.

    Of float16 it is computed in float32.
    """
    xp: Any = namespace(*xs)
    y: Array
    if any(map(is_half, xs)):
        y = einsum(subscripts, *map(widened, xs))
        return xp.astype(y, xp.result_type(*(x.dtype for x in xs)))  # type: ignore[no-any-return]
    if xp is np:
        y = np.einsum(subscripts, *xs, optimize=len(xs) > 1)
    elif hasattr(xp, "einsum"):
        y = xp.einsum(subscripts, *xs)
    else:
        y = xp.asarray(np.asarray(np.einsum(subscripts, *(np.asarray(x) for x in xs))))
    return y


def pad(x: Array, widths: Sequence[tuple[int, ...]], value: float = 0) -> Array:
    """`x` with `widths[i] = (before, after)` entries of `value` added along each axis."""
    xp = namespace(x)
    value = fitting("pad: constant_values", value, x.dtype)
    if hasattr(xp, "pad"):
        return xp.pad(x, widths, constant_values=value)
    return xp.asarray(np.pad(np.asarray(x), widths, constant_values=value))


def checked_power(a: Any, b: Any) -> Array:
    """`a ** b`. Integers to a negative power are a `ValueError`, as in NumPy: CuPy makes them 0."""
    if type(a) is not np.ndarray and type(b) is not np.ndarray and any(map(is_on_device, (a, b))):
        kinds = [is_integer(x.dtype) if hasattr(x, "dtype") else type(x) is int for x in (a, b)]
        refused = ValueError("Integers to negative integer powers are not allowed.")
        if all(kinds) and is_on_device(b):
            cuda.check_later(b < 0, lambda: refused)
        elif all(kinds) and b < 0:
            raise refused
    return a**b  # type: ignore[no-any-return]


def numbers(xs: Sequence[Array]) -> list[float]:
    """One number each of these 0-d arrays; those on a device are read in one go."""
    if "cupy" in sys.modules and (there := [x for x in xs if is_on_device(x)]):
        xp: Any = namespace(there[0])
        read = iter(to_host(xp.stack([xp.astype(x, xp.float64) for x in there])).tolist())
        return [next(read) if is_on_device(x) else float(x) for x in xs]
    return [float(x) for x in xs]


def nearly_equal(a: Array, b: Array) -> bool:
    """Whether two arrays are equal up to rounding; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    xp = namespace(a, b)
    with quiet():
        differ = (a != b) & ~((a != a) & (b != b))
        if not xp.any(differ):
            return True
        error = xp.where(differ, xp.abs(a - b), 0.0)
        scale = xp.max(xp.where(xp.isfinite(b), xp.abs(b), 0.0))
        return bool(xp.all(error <= 1000 * xp.finfo(b.dtype).eps * scale))


def quiet() -> contextlib.AbstractContextManager[Any]:
    """No floating-point warnings inside.

    A backward meets 0 * inf where a branch was not taken, and handles it.
    """
    return np.errstate(all="ignore")


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees, for its next arrays.

    Returns whether it could (glibc only). By default glibc gives large freed blocks back to the
    system, which clears each page when it is asked for again: a third of the time of a training
    step whose graph takes megabytes. It holds for the whole process, so a program decides on it,
    never an import; `tinygrad-rnn train` does.

    >>> keep_freed_memory() in (True, False)
    True
    """
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # the names in malloc.h, without their M_
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    trimmed = mallopt(trim_threshold, 1 << 30)
    mapped = mallopt(mmap_threshold, 1 << 25)
    return bool(trimmed and mapped)


def give_back_freed_memory() -> None:
    """Have the C library give back what it keeps now, after something that took much and is over.

    It keeps what is freed from then on, if `keep_freed_memory` was called.
    """
    import ctypes

    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(ctypes.c_size_t(0))


# --- types, for checkers --------------------------------------------------------------------------


class Array(Protocol):
    """An array of NumPy, CuPy or another library of the standard."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def device(self) -> Any: ...
    @property
    def T(self) -> Array: ...
    @property
    def mT(self) -> Array: ...
    def __array_namespace__(self, *, api_version: Any = None) -> Any: ...
    def __iter__(self) -> Iterator[Array]: ...
    def __getitem__(self, key: Any, /) -> Array: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...
    def __abs__(self) -> Array: ...
    def __neg__(self) -> Array: ...
    def __invert__(self) -> Array: ...
    def __add__(self, other: Any, /) -> Array: ...
    def __radd__(self, other: Any, /) -> Array: ...
    def __iadd__(self, other: Any, /) -> Array: ...
    def __sub__(self, other: Any, /) -> Array: ...
    def __rsub__(self, other: Any, /) -> Array: ...
    def __isub__(self, other: Any, /) -> Array: ...
    def __mul__(self, other: Any, /) -> Array: ...
    def __rmul__(self, other: Any, /) -> Array: ...
    def __imul__(self, other: Any, /) -> Array: ...
    def __truediv__(self, other: Any, /) -> Array: ...
    def __rtruediv__(self, other: Any, /) -> Array: ...
    def __itruediv__(self, other: Any, /) -> Array: ...
    def __floordiv__(self, other: Any, /) -> Array: ...
    def __mod__(self, other: Any, /) -> Array: ...
    def __pow__(self, other: Any, /) -> Array: ...
    def __rpow__(self, other: Any, /) -> Array: ...
    def __matmul__(self, other: Any, /) -> Array: ...
    def __rmatmul__(self, other: Any, /) -> Array: ...
    def __and__(self, other: Any, /) -> Array: ...
    def __or__(self, other: Any, /) -> Array: ...
    def __xor__(self, other: Any, /) -> Array: ...
    def __lt__(self, other: Any, /) -> Array: ...
    def __le__(self, other: Any, /) -> Array: ...
    def __gt__(self, other: Any, /) -> Array: ...
    def __ge__(self, other: Any, /) -> Array: ...
    def __eq__(self, other: Any, /) -> Array: ...  # type: ignore[override]
    def __ne__(self, other: Any, /) -> Array: ...  # type: ignore[override]

    # What only NumPy's and CuPy's have: kernels may use it, the forward of an op must not.
    @property
    def flags(self) -> Any: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def reshape(self) -> Callable[..., Array]: ...
    @property
    def astype(self) -> Callable[..., Array]: ...
    def swapaxes(self, axis1: Any, axis2: Any, /) -> Array: ...
    def copy(self) -> Array: ...
    def sum(self) -> Any: ...
    @property
    def min(self) -> Any: ...
    @property
    def max(self) -> Any: ...
    def any(self) -> Any: ...
    def all(self) -> Any: ...
    @property
    def argmax(self) -> Any: ...
    def tolist(self) -> Any: ...


class Namespace(Protocol):
    """A library of arrays, as `numpy` is one: what is not named here is a function to an array."""

    float32: DType
    int64: DType
    add: Any
    linalg: Any
    finfo: Callable[[DType], Any]
    result_type: Callable[..., DType]

    def __getattr__(self, name: str, /) -> Callable[..., Array]: ...
