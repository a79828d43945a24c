"""The array class of the stand-in: a NumPy array inside, and CuPy's refusals around it."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import _memory, _surface
from ._device import Device, count, current, current_stream, do

_SHUFFLE = random.Random()  # of another seed in each process: what depends on an order shows


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VIEWS = _words("""reshape transpose swapaxes squeeze view ravel diagonal real imag broadcast_to expand_dims moveaxis
    permute_dims atleast_1d atleast_2d atleast_3d flip broadcast_arrays split array_split matrix_transpose unstack""")
_PRODUCTS = _words("matmul dot tensordot vdot inner outer einsum")
_WAITS = _words("nonzero unique flatnonzero argwhere compress extract")
_ABOUT_DTYPES = _words("result_type promote_types can_cast issubdtype isdtype broadcast_shapes")
_UFUNCS = frozenset(name for kind, name in _surface.surface() if kind == "u")


def host_of(x: Any) -> Any:
    """What NumPy computes with in the place of an argument of CuPy's; a `TypeError` for what CuPy refuses."""
    if isinstance(x, ndarray):
        if x._id != current():
            raise ValueError(
                f"The device where the array resides ({x._id}) is different from the current device ({current()}). "
                "Peer access is unavailable between these devices."
            )
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, list | tuple):
        return type(x)(map(host_of, x))
    if x is None or isinstance(x, bool | int | float | complex | str | slice | np.generic | np.dtype | type):
        return x
    if x is Ellipsis:
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def wrap(y: Any) -> Any:
    """What NumPy has answered, as CuPy would: numbers are 0-d arrays."""
    if isinstance(y, np.ndarray | np.generic):
        return ndarray._of(np.asarray(y))
    if type(y) is tuple or type(y) is list:
        return type(y)(map(wrap, y))
    if isinstance(y, tuple):
        return type(y)(*map(wrap, y))
    return y


def flush(y: Any) -> Any:
    """Subnormal numbers of float32 become 0: CuPy compiles with -ftz=true."""
    if isinstance(y, np.ndarray | np.generic) and y.dtype == np.float32:
        small = np.abs(y) < np.finfo(np.float32).tiny
        if np.any(small):
            return np.where(small, np.copysign(np.float32(0), y), y)
    return y


def compute(name: str, function: Any, args: Any, kwargs: Any) -> Any:
    """Call NumPy's function in the place of CuPy's of this name."""
    if name in _ABOUT_DTYPES:
        return function(*(x.dtype if isinstance(x, ndarray) else x for x in args), **kwargs)
    if name in _UFUNCS and any(isinstance(x, list | tuple) for x in args):
        raise TypeError("Unsupported type <class 'list'>")
    values = [host_of(x) for x in args]
    named = {k: host_of(v) for k, v in kwargs.items()}
    if name in _WAITS:
        count("synchronisation")
    if name in _PRODUCTS and current_stream().graph is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    kind = "product" if name in _PRODUCTS else "memset" if name in ("zeros", "zeros_like") else "kernel"
    out = kwargs.get("out")
    if isinstance(out, ndarray):
        if not out._host.flags.writeable:
            raise ValueError("output array is read-only")
        named["out"] = host = out._host

    def run() -> Any:
        with np.errstate(all="ignore"):  # a device does not warn
            y = function(*values, **named)
        return flush(y) if name in _UFUNCS else y

    if isinstance(out, ndarray):
        do(kind, lambda: host.__setitem__(..., run()))
        return out
    if name in _VIEWS:
        y = run()
        parts = y if isinstance(y, tuple | list) else (y,)
        roots = {id(_memory.owner(x)) for x in values if isinstance(x, np.ndarray)}
        if all(id(_memory.owner(x)) in roots for x in parts if isinstance(x, np.ndarray)):
            return wrap(y)
    return fresh(kind, run)


def fresh(kind: str, run: Any) -> Any:
    """New arrays of what `run` computes. Where a stream captures they hold nothing before a graph is launched."""
    count(kind)
    graph = current_stream().graph
    made = wrap(run())
    if graph is not None:
        hosts = [x._host for x in (made if isinstance(made, tuple | list) else (made,))]
        for host in hosts:
            _memory.poison(host)

        def step() -> None:
            y = run()
            for host, new in zip(hosts, y if isinstance(y, tuple | list) else (y,), strict=True):
                host[...] = new

        graph.steps.append(step)
    return made


def power(a: Any, b: Any, **named: Any) -> Any:
    """`numpy.power`; integers to a negative power are what CuPy's kernel makes of them."""
    if np.result_type(a, b).kind == "i" and np.any(np.asarray(b) < 0):
        odd = np.where(np.asarray(b) % 2 == 1, -1, 1)
        special = np.where(np.asarray(a) == -1, odd, np.where(np.asarray(a) == 1, 1, 0))
        y = np.where(np.asarray(b) < 0, special, np.power(a, np.maximum(b, 0))).astype(np.result_type(a, b))
        return y if named.get("out") is None else np.copyto(named["out"], y) or named["out"]
    return np.power(a, b, **named)


class ndarray:
    """An array that says to be on a device."""

    __module__ = "cupy"
    __array_priority__ = 100
    __slots__ = ("_base", "_host", "_id", "__weakref__")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        raise NotImplementedError("the stand-in makes arrays by functions alone")

    @classmethod
    def _of(cls, host: Any, base: Any = None) -> ndarray:
        host = _memory.hold(host)
        x = object.__new__(cls)
        x._host, x._id, x._base = host, current(), base
        return x

    def __del__(self, is_over: Any = sys.is_finalizing) -> None:
        if not is_over() and hasattr(self, "_host"):
            _memory.let_go(self._host)

    # --- what CuPy refuses ----------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy's ufuncs of these arrays and of numbers are CuPy's; nothing else is."""
        mixed = not all(isinstance(x, ndarray | int | float | complex | np.generic) for x in inputs)
        if mixed or method != "__call__" or ("u", ufunc.__name__) not in _surface.surface():
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return compute(ufunc.__name__, power if ufunc is np.power else ufunc, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        if ("f", name) not in _surface.surface() or not all(issubclass(t, ndarray) for t in types):
            return NotImplemented
        return getattr(sys.modules["cupy"], name)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        _surface.check_call("m", name, 0, ())

        def method(*args: Any, **kwargs: Any) -> Any:
            _surface.check_call("m", name, len(args), kwargs)
            return compute(name, getattr(np.ndarray, name), (self, *args), kwargs)

        return method

    # --- what it is -----------------------------------------------------------------------------------------

    shape = property(lambda x: x._host.shape)
    ndim = property(lambda x: x._host.ndim)
    size = property(lambda x: x._host.size)
    dtype = property(lambda x: x._host.dtype)
    itemsize = property(lambda x: x._host.itemsize)
    nbytes = property(lambda x: x._host.nbytes)
    strides = property(lambda x: x._host.strides)
    base = property(lambda x: x._base)
    device = property(lambda x: Device(x._id))
    T = property(lambda x: x._view(x._host.T))
    mT = property(lambda x: x._view(x._host.mT))
    real = property(lambda x: x._view(x._host.real))
    imag = property(lambda x: x._view(x._host.imag))

    @property
    def flags(self) -> Any:
        own = self._host.flags
        return SimpleNamespace(c_contiguous=own.c_contiguous, f_contiguous=own.f_contiguous, owndata=self._base is None)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._host.__array_interface__["data"][0], device_id=self._id)

    def _view(self, host: Any) -> ndarray:
        view = ndarray._of(host, self)
        view._id = self._id
        return view

    # --- to the host, which waits ---------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        count("synchronisation")
        return self._host.copy()

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self) -> Any:
        return _from_host, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with Device(self._id):
            return self.copy()

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the stand-in exports nothing: what a consumer makes of it only a device shows")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._id

    # --- parts ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return len(self._host)

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        index, advanced, masks = self._index(key)
        if not advanced:
            return self._view(np.asarray(self._host[index()]))
        host = host_of(self)
        if masks:
            count("synchronisation")  # how many are taken decides a shape
        return fresh("kernel", lambda: host[index()])  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, value: Any) -> None:
        index, _, masks = self._index(key)
        if isinstance(value, np.ndarray) and value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if isinstance(value, list | tuple):
            raise TypeError("float() argument must be a string or a real number, not 'list'")
        host, new = host_of(self), value if isinstance(value, np.ndarray) else host_of(value)
        if masks and getattr(value, "size", 1) > 1:
            count("synchronisation")
        do("kernel", lambda: host.__setitem__(index(), new))

    def _index(self, key: Any) -> tuple[Any, bool, bool]:
        """What makes an index for NumPy, whether it has arrays, whether masks: integers out of range are wrapped, as
        CuPy does.
        """
        keys = [self._key(k) for k in (key if isinstance(key, tuple) else (key,))]
        arrays = [k for k in keys if isinstance(k, np.ndarray)]
        masks = [k for k in arrays if k.dtype == bool]
        if len(masks) > 1:
            raise ValueError("Currently, CuPy only supports one boolean array in an index.")
        widths = [
            k.ndim if isinstance(k, np.ndarray) and k.dtype == bool else k not in (None, ...) for k in _plain(keys)
        ]
        if sum(widths) > self.ndim:
            raise IndexError(f"too many indices for array: array is {self.ndim}-dimensional, but {sum(widths)} were")
        axis, sizes = 0, {}
        for i, (k, width) in enumerate(zip(keys, widths, strict=True)):
            if isinstance(k, np.ndarray) and k.dtype != bool and self.shape[axis]:
                sizes[i] = np.asarray(self.shape[axis], k.dtype if k.dtype.kind == "i" else np.int64)
            axis += self.ndim - sum(widths) if k is Ellipsis else width
        make = lambda: tuple([k % sizes[i] if i in sizes else k for i, k in enumerate(keys)])
        return make, bool(arrays), bool(masks)

    def _key(self, k: Any) -> Any:
        """One key; lists and host arrays would be copied to the device, which the code must not do unseen."""
        if isinstance(k, ndarray):
            if k.dtype.kind not in "biu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {k.dtype.type})")
            return np.asarray(host_of(k))
        if isinstance(k, bool | np.bool_):
            return np.asarray(k)
        if k is None or k is Ellipsis or isinstance(k, int | slice | np.integer):
            return k
        if isinstance(k, np.ndarray | list | tuple):
            count("upload")
            return np.asarray(k, np.int32 if not np.size(k) else None)
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean arrays are "
            "valid indices"
        )

    # --- methods that are not NumPy's -----------------------------------------------------------------------

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        host = host_of(self)

        def run() -> Any:
            with np.errstate(all="ignore"):
                return host.astype(dtype, order=order, copy=True)

        return fresh("kernel", run)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        flat = self._host.reshape(*shape, order=order)
        if np.may_share_memory(flat, self._host):
            return self._view(flat)
        host = host_of(self)
        return fresh("kernel", lambda: host.reshape(*shape, order=order))  # type: ignore[no-any-return]

    def fill(self, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        host = self._host
        do("kernel", lambda: host.fill(value))

    def set(self, arr: Any, stream: Any = None) -> None:
        count("upload")
        self._host[...] = arr

    def scatter_add(self, slices: Any, value: Any) -> None:
        add_at(self, slices, value)

    # --- arithmetic -----------------------------------------------------------------------------------------

    def __pow__(self, other: Any) -> Any:
        return _binary("power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _binary("power", other, self)

    def __neg__(self) -> Any:
        return compute("negative", np.negative, (self,), {})

    def __pos__(self) -> Any:
        return compute("positive", np.positive, (self,), {})

    def __abs__(self) -> Any:
        return compute("absolute", np.absolute, (self,), {})

    def __invert__(self) -> Any:
        return compute("invert", np.invert, (self,), {})

    def __matmul__(self, other: Any) -> Any:
        return _binary("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _binary("matmul", other, self)


def _plain(keys: list[Any]) -> list[Any]:
    """Keys that can be compared with `in`: arrays of integers as 0."""
    return [0 if isinstance(k, np.ndarray) and k.dtype != bool else k for k in keys]


def _from_host(host: Any) -> ndarray:
    count("upload")
    return ndarray._of(host.copy())


def _binary(name: str, a: Any, b: Any, out: Any = None) -> Any:
    if getattr(b, "__array_ufunc__", ()) is None:
        return NotImplemented
    function = power if name == "power" else getattr(np, name)
    return compute(name, function, (a, b), {} if out is None else {"out": out})


def _operator(name: str, kind: str) -> Any:
    if kind == "i":
        return lambda a, b: _binary(name, a, b, a)
    return (lambda a, b: _binary(name, b, a)) if kind == "r" else (lambda a, b: _binary(name, a, b))


for _short, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}.items():
    for _kind in ("", "r", "i"):
        setattr(ndarray, f"__{_kind}{_short}__", _operator(_name, _kind))
for _short, _name in {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"
}.items():  # fmt: skip
    setattr(ndarray, f"__{_short}__", _operator(_name, ""))


def add_at(x: ndarray, slices: Any, value: Any) -> None:
    """What atomic additions do: each adds, in an order that nobody knows."""
    index, advanced, _ = x._index(slices)
    host, new = x._host, host_of(value)

    def run() -> None:
        if not advanced:
            host[index()] += new
            return
        places = np.arange(host.size).reshape(host.shape)[index()]
        values = np.broadcast_to(new, places.shape).reshape(-1)
        order = list(range(places.size))
        _SHUFFLE.shuffle(order)
        np.add.at(host.reshape(-1), places.reshape(-1)[order], values[order])

    do("kernel", run)
