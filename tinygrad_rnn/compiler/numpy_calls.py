"""Which NumPy functions can be repeated, and as which call on buffers that is fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import effects

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # f(*args, **kwargs)

# Methods, and the functions that do the same.
METHODS = {np.ndarray.sum: np.sum, np.ndarray.max: np.max, np.ndarray.min: np.min, np.ndarray.mean: np.mean}
METHODS |= {np.ndarray.any: np.any, np.ndarray.all: np.all, np.ndarray.dot: np.dot}

# What makes new arrays, and of which value.
LIKES = {np.zeros_like: 0, np.ones_like: 1, np.empty_like: None}

# What is told by shapes and dtypes alone.
STATIC = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj}

# What returns views that do not depend on values.
NAMES = "reshape transpose permute_dims matrix_transpose swapaxes moveaxis rollaxis expand_dims squeeze ravel diagonal "
NAMES += "broadcast_to flip fliplr flipud rot90 split array_split hsplit vsplit dsplit unstack view astype"
VIEWS = {getattr(place, name, None) for place in (np, np.ndarray) for name in NAMES.split()} - {None}

# What returns arrays whose shape depends on values.
BY_VALUE = {np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.compress, np.extract, np.ndarray.nonzero}

COPIES = {np.ndarray.copy, np.ndarray.astype, np.astype, np.copy}
TAKES_OUT = {np.dot, np.concatenate, np.cumsum, np.clip, np.argmax, np.argmin, np.einsum, np.mean}
OUT_BY_NAME = {np.maximum, np.minimum}  # ufuncs that warn of an `out` by position
LOGIC = {np.any: np.logical_or, np.all: np.logical_and}
REDUCTIONS: dict[Any, Any] = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum, np.prod: np.multiply}
REDUCTIONS |= LOGIC
# ufuncs whose two operands have one dtype, so that a Python number may be made an array beforehand
ARITHMETIC = {np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.equal, np.not_equal}
ARITHMETIC |= {np.less, np.less_equal, np.greater, np.greater_equal}


def into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call:
    """The call that computes `f(*args, **kwargs)` into `out`, in the fastest way that gives the same bits."""
    given = kwargs.keys()
    if f in REDUCTIONS and _is_plain_reduction(f, args, given):
        axis = args[1] if len(args) > 1 else kwargs.get("axis")
        return REDUCTIONS[f].reduce, (args[0], axis, None, out, kwargs.get("keepdims", False)), {}
    if f in COPIES:
        return np.copyto, (out, args[0], "unsafe"), {}
    if f in (np.reshape, np.ndarray.reshape) and not given:
        return np.copyto, (out.reshape(args[0].shape), args[0]), {}
    if f is np.stack and given <= {"axis"}:
        axis = kwargs.get("axis", 0) if len(args) < 2 else args[1]
        return np.concatenate, ([np.expand_dims(x, axis) for x in args[0]], axis, out), {}
    if f is np.take:  # ids have been checked; the mode "raise" would copy once more
        return f, args, {**kwargs, "out": out, "mode": "clip"}
    if f is np.where and len(args) == 3:
        return choose, (*args, out), {}
    if _takes_out(f):
        if isinstance(f, np.ufunc) and not given and f not in OUT_BY_NAME:
            return f, (*(as_arrays(args) if f in ARITHMETIC else args), out), {}
        return f, args, {**kwargs, "out": out}
    return assign, (f, out, args, kwargs), {}


def _is_plain_reduction(f: Any, args: tuple[Any, ...], given: Any) -> bool:
    """Whether a reduction has no options beyond axis and keepdims, and `any`, `all` are of booleans."""
    return len(args) < 3 and given <= {"axis", "keepdims"} and not (f in LOGIC and args[0].dtype != bool)


def _takes_out(f: Any) -> bool:
    """Whether a function, or a method of a ufunc, takes `out`."""
    return isinstance(f, np.ufunc) or isinstance(getattr(f, "__self__", None), np.ufunc) or f in TAKES_OUT


def as_arrays(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`args` with Python numbers as arrays of the floating dtype that stands beside them, which saves a conversion."""
    dtypes: list[Any] = [a.dtype for a in args if isinstance(a, np.ndarray | np.generic)]
    if any(dtype != dtypes[0] for dtype in dtypes) or dtypes[0].kind != "f":
        return args
    return tuple(np.asarray(a, dtypes[0]) if type(a) in (int, float) else a for a in args)


@effects(writes=["out"])
def assign(f: Callable[..., Any], out: HostArray, args: Any, kwargs: Any) -> None:
    """Compute `out[...] = f(*args, **kwargs)`."""
    y = f(*args, **kwargs)
    if np.shape(y) != out.shape:
        raise CompileError(
            f"{getattr(f, '__name__', f)} gave shape {np.shape(y)}, but {out.shape} when tr.compile recorded it: "
            f"the shape depends on values"
        )
    out[...] = y


@effects(writes=["out"])
def choose(condition: HostArray, a: Any, b: Any, out: HostArray) -> None:
    """Compute `out = where(condition, a, b)` without another array."""
    if condition.all():  # targets that all count
        np.copyto(out, a)
    else:
        np.copyto(out, b)
        np.copyto(out, a, where=condition)
