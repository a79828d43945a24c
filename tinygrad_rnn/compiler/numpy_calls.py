"""The NumPy calls that a recording takes, what they do, and as which call on buffers each is repeated.

What is not listed here is refused: a call may write into its arguments, hold a state, or ask for values.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.compiler.arrays import rebuilt
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import effects

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # f(*args, **kwargs)

# --- which calls ------------------------------------------------------------------------------------------------------

NUMBERS = (bool, int, float)  # Python's, by which an array is filled

# What a function does. PURE ones return new arrays, VIEW ones views where they can, whatever the values; STATIC ones
# are told by shapes and dtypes alone; LIKE ones make arrays of one value; IN_PLACE ones write into their first argument
# and return nothing; those BY_VALUE return arrays whose shape, or whose memory, depends on values.
PURE, VIEW, STATIC, LIKE, IN_PLACE, BY_VALUE = "pure", "view", "static", "like", "in place", "by value"


def named(places: Iterable[Any], names: str) -> set[Any]:
    """The functions of these names, where a place has them."""
    return {getattr(place, name, None) for place in places for name in names.split()} - {None}


KNOWN: dict[Any, str] = dict.fromkeys(
    named(
        [np],
        "all any amax amin append argmax argmin argpartition argsort around average bincount block choose clip "
        "column_stack concatenate concat convolve copy corrcoef correlate count_nonzero cov cross cumprod cumsum "
        "cumulative_prod cumulative_sum delete diagflat diff digitize dot dstack ediff1d gradient hstack i0 inner "
        "insert interp isclose allclose array_equal isin iscomplex isneginf isposinf isreal kron lexsort max mean "
        "median min nan_to_num nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile "
        "nanprod nanquantile nanstd nansum nanvar outer packbits pad partition percentile polyval prod ptp quantile "
        "repeat resize roll round searchsorted select sinc sort stack std sum take take_along_axis tensordot tile "
        "trace trapezoid tri tril triu unpackbits unwrap vander var vdot vstack where meshgrid fix",
    ),
    PURE,
)
KNOWN |= dict.fromkeys(
    named(
        [np.linalg],
        "cholesky cond cross det eigh eigvalsh inv matmul matrix_norm matrix_power matrix_rank multi_dot norm outer "
        "pinv qr slogdet solve svd svdvals tensordot tensorinv tensorsolve trace vecdot vector_norm",
    ),
    PURE,
)
KNOWN |= dict.fromkeys(named([np.fft], "fft fft2 fftn ifft ifft2 ifftn rfft rfft2 rfftn irfft irfft2 irfftn hfft ihfft fftshift ifftshift"), PURE)  # fmt: skip  # noqa: E501
METHODS = "all any argmax argmin argpartition argsort choose clip copy cumprod cumsum dot flatten max "
METHODS += "mean min prod repeat round searchsorted std sum take trace var __pow__ __rpow__"
VIEWS = "reshape transpose swapaxes squeeze ravel diagonal view astype conj conjugate"
KNOWN |= dict.fromkeys(named([np.ndarray, np.generic], METHODS), PURE)
KNOWN |= dict.fromkeys(named([np.generic], VIEWS), PURE)  # a number is no view
KNOWN |= dict.fromkeys(named([np.ndarray, np], VIEWS), VIEW)
KNOWN |= dict.fromkeys(
    named(
        [np],
        "permute_dims matrix_transpose moveaxis rollaxis expand_dims broadcast_to broadcast_arrays flip fliplr flipud "
        "rot90 split array_split hsplit vsplit dsplit unstack atleast_1d atleast_2d atleast_3d real imag diag einsum",
    ),
    VIEW,
)
KNOWN |= dict.fromkeys([np.linalg.diagonal, np.linalg.matrix_transpose, np.lib.stride_tricks.sliding_window_view], VIEW)
KNOWN |= dict.fromkeys(named([np], "shape ndim size result_type can_cast iscomplexobj isrealobj common_type"), STATIC)
KNOWN |= dict.fromkeys([np.zeros_like, np.ones_like, np.empty_like, np.full_like], LIKE)
KNOWN |= dict.fromkeys(named([np], "copyto put putmask place put_along_axis fill_diagonal"), IN_PLACE)
KNOWN |= dict.fromkeys(named([np.ndarray], "fill sort partition put"), IN_PLACE)
KNOWN |= dict.fromkeys(
    named(
        [np, np.ndarray],
        "nonzero flatnonzero argwhere unique unique_all unique_counts unique_inverse unique_values compress extract "
        "trim_zeros intersect1d union1d setdiff1d setxor1d",
    ),
    BY_VALUE,
)
# What Python does with numbers, NumPy's and its own.
OPERATORS = named([operator], "add sub mul truediv floordiv mod pow neg pos abs")
KNOWN |= dict.fromkeys(OPERATORS, PURE)

SAME = {
    getattr(np.ndarray, name): getattr(np, name)
    for name in ["sum", "max", "min", "mean", "any", "all", "dot", "argmax", "argmin"]
}
FILLS = {np.zeros_like: 0, np.ones_like: 1, np.empty_like: None}
REFUSED = {"overwrite_input": True, "copy": False}  # options by which a function writes into what it is given


def takes_numbers(f: Any) -> bool:
    """Whether a function treats NumPy's numbers as arrays without axes, to the last bit."""
    return isinstance(f, np.ufunc) or f in (np.astype, np.where)


def kind_of(f: Any) -> str | None:
    """What a function does, if that is known: a NumPy function, a method of arrays or numbers, a ufunc or one of its.

    >>> kind_of(np.add), kind_of(np.add.reduce), kind_of(np.add.at), kind_of(np.vectorize)
    ('pure', 'pure', 'in place', None)
    """
    if isinstance(f, np.ufunc):
        return PURE
    if isinstance(getattr(f, "__self__", None), np.ufunc):
        return IN_PLACE if f.__name__ == "at" else PURE
    try:
        return KNOWN.get(f)
    except TypeError:  # not hashable
        return None


def name_of(f: Any) -> str:
    """What a function is called, for messages."""
    return str(getattr(f, "__name__", f))


signature_of = functools.cache(inspect.signature)


def misused(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """What stands against a call of a known function: an option by which it does something else, in words; or None."""
    if isinstance(f, np.ufunc):
        return "where= without out= leaves what it skips to chance" if "where" in kwargs else None
    if f in (np.ndarray.view, np.generic.view) and (
        kwargs or any(isinstance(a, type) and issubclass(a, np.ndarray) for a in args)
    ):
        return "a view of another class"
    try:
        given = signature_of(f).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return None
    if given.get("out") is not None:
        return "out= must be given by its name"
    if f in (np.nan_to_num, np.median, np.percentile, np.quantile, np.nanmedian, np.nanpercentile, np.nanquantile):
        for name, value in REFUSED.items():
            if name in given and bool(given[name]) is value:
                return f"{name}={value} writes into what it is given"
    return None


# --- how they are repeated --------------------------------------------------------------------------------------------

OUT_BY_NAME = {np.maximum, np.minimum}  # ufuncs that warn of an `out` by position
# ufuncs whose two operands have one dtype, so that a Python number may be made an array beforehand
ARITHMETIC = {np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.equal, np.not_equal}
ARITHMETIC |= {np.less, np.less_equal, np.greater, np.greater_equal}
REDUCTIONS: dict[Any, np.ufunc] = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum, np.prod: np.multiply}
REDUCTIONS |= {np.any: np.logical_or, np.all: np.logical_and}


def into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call:
    """The call that computes `f(*args, **kwargs)` into `out`, in the fastest way that gives the same bits.

    The fast ways are for the arguments and options that they name; everything else is called as it is, and assigned.
    """
    fast = ufunc_into if isinstance(f, np.ufunc) else None if isinstance(f, AsNumbers) else FAST.get(f)
    call: Call | None = fast(f, args, kwargs, out) if fast else None
    return call or (assign, (f, out, args, kwargs), {})


def ufunc_into(f: np.ufunc, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """A ufunc writes into `out` itself, given by position, which is faster."""
    if kwargs or f.nout != 1:
        return None
    args = as_arrays(args) if f in ARITHMETIC else args
    return (f, args, {"out": out}) if f in OUT_BY_NAME else (f, (*args, out), {})


def reduce_into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """A reduction is the `reduce` of its ufunc; `any` and `all` of booleans alone."""
    x, *rest = args
    if len(rest) > 1 or not kwargs.keys() <= {"axis", "keepdims"} or not isinstance(x, np.ndarray):
        return None
    if x.dtype != out.dtype:  # counts, or `any` of numbers
        return None
    ufunc, axis = REDUCTIONS.get(f), rest[0] if rest else kwargs.get("axis", 0 if f == np.add.reduce else None)
    return ufunc.reduce if ufunc else f, (x, axis, None, out, kwargs.get("keepdims", False)), {}


def copy_into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """A copy, or a cast; by `reshape` where that copies, in C order."""
    x = args[0]
    if f in (np.reshape, np.ndarray.reshape):
        if kwargs or any(isinstance(v, str) for v in args) or not out.flags.c_contiguous:
            return None
        out = out.reshape(x.shape)
    return (np.copyto, (out, x, "unsafe"), {}) if isinstance(x, np.ndarray) else None


def stack_into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """What is stacked is joined along a new axis."""
    xs, *rest = args
    if len(rest) > 1 or not kwargs.keys() <= {"axis"} or not all(isinstance(x, np.ndarray) for x in xs):
        return None
    axis = rest[0] if rest else kwargs.get("axis", 0)
    return np.concatenate, ([np.expand_dims(x, axis) for x in xs], axis, out), {}


def where_into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """A choice between two by booleans; by anything else as it is."""
    return (choose, (*args, out), {}) if len(args) == 3 and str(getattr(args[0], "dtype", "")) == "bool" else None


def take_into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """`np.take` writes into `out` itself if it does not look whether the ids are in range."""
    return (f, args, {**kwargs, "out": out}) if kwargs.get("mode") == "clip" else None


def floats_into(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """What takes `out` and computes in the dtype of that: of float32 and float64, whose means are computed in them."""
    if not kwargs.keys() <= {"axis", "keepdims"} or getattr(args[0], "dtype", None) not in (np.float32, np.float64):
        return None
    return f, args, {**kwargs, "out": out}


def out_by_name(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: HostArray) -> Call | None:
    """What takes `out`, and has no dtype of its own."""
    return (f, args, {**kwargs, "out": out}) if kwargs.keys() <= {"axis", "keepdims", "optimize"} else None


FAST: dict[Any, Callable[..., Call | None]] = {
    **dict.fromkeys([*REDUCTIONS, np.add.reduce], reduce_into),
    **dict.fromkeys([np.ndarray.copy, np.ndarray.astype, np.astype, np.copy], copy_into),
    **dict.fromkeys([np.reshape, np.ndarray.reshape], copy_into),
    **dict.fromkeys([np.mean, np.cumsum], floats_into),
    **dict.fromkeys([np.dot, np.concatenate, np.clip, np.argmax, np.argmin, np.einsum], out_by_name),
    np.stack: stack_into,
    np.where: where_into,
    np.take: take_into,
}


def as_arrays(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`args` with Python numbers as arrays of the floating dtype that stands beside them, which saves a conversion."""
    dtypes: list[Any] = [a.dtype for a in args if isinstance(a, np.ndarray | np.generic)]
    if any(dtype != dtypes[0] for dtype in dtypes) or dtypes[0].kind != "f":
        return args
    return tuple(np.asarray(a, dtypes[0]) if type(a) in (int, float) else a for a in args)


@effects(writes=["out"])
def assign(f: Callable[..., Any], out: HostArray, args: Any, kwargs: Any) -> None:
    """Compute `out[...] = f(*args, **kwargs)`."""
    checked_copy(f, out, f(*args, **kwargs))


@effects(writes=["outs"])
def assign_all(f: Callable[..., Any], outs: Sequence[HostArray], args: Any, kwargs: Any) -> None:
    """Compute `f(*args, **kwargs)`, which is several arrays, into `outs`."""
    for out, y in zip(outs, f(*args, **kwargs), strict=True):
        checked_copy(f, out, y)


def checked_copy(f: Callable[..., Any], out: HostArray, y: Any) -> None:
    """Copy what `f` gave into `out`. `CompileError` if its shape or dtype is another than it was."""
    y = np.asarray(y)
    if y.shape != out.shape or y.dtype != out.dtype:
        was, now = (f"shape {a.shape}" + f" of {a.dtype}" * (a.dtype != b.dtype) for a, b in ((out, y), (y, out)))
        raise CompileError(f"{name_of(f)} gave {now}, but {was} when tr.compile recorded it: that depends on values")
    out[...] = y


@effects(writes=["out"])
def choose(condition: HostArray, a: Any, b: Any, out: HostArray) -> None:
    """Compute `out = where(condition, a, b)` without another array."""
    if condition.all():  # targets that all count
        np.copyto(out, a)
    elif backend.choose(condition, a, b, out) is None:
        np.copyto(out, b)
        np.copyto(out, a, where=condition)


@dataclass
class AsNumbers:
    """`f` of numbers: some arguments, by their place among all, are NumPy's or Python's and lie in 0-d arrays."""

    f: Callable[..., Any]
    numbers: Mapping[int, bool]  # whether they are Python's

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        places = count()

        def number(v: Any) -> Any:
            python = self.numbers.get(next(places))
            return v if python is None else v.item() if python else v[()]

        args, kwargs = rebuilt((args, kwargs), number)
        return self.f(*args, **kwargs)

    @property
    def __name__(self) -> str:
        return name_of(self.f)
