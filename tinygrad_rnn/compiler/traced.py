"""`Traced` arrays: while a step is recorded, each call on one of them is computed, and written down on a tape.

A `Traced` holds no values: what wants those of one cannot have them unnoticed, and is an error with its line.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tinygrad_rnn.compiler.arrays import flat, rebuilt
from tinygrad_rnn.compiler.numpy_calls import NUMBERS, OPERATORS, kind_of
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.mode import active_tape
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Tape


VALUES = "the values (.item(), .numpy(), np.asarray, print)"


def _fixed(name: str) -> Any:
    """A property of shapes and dtypes, which an array has while it is recorded, too; it is not set there."""

    def refused(self: Traced, value: Any) -> None:
        self.refuse(f"setting .{name}")

    return property(operator.attrgetter(f"raw.{name}"), refused)


class Traced(NDArrayOperatorsMixin):
    """A NumPy array, `raw`, whose uses are written down on `tape`. It passes for an `ndarray` by its class.

    What a recording cannot have of it is a `CompileError`, attributes included; what an `ndarray` lacks, it lacks.
    """

    __slots__ = ("raw", "tape", "read", "__weakref__")

    def __init__(self, raw: np.ndarray[Any, Any], tape: Tape) -> None:
        self.raw, self.tape = raw, tape
        self.read: tuple[Read, ...] | None = None  # the options that it is computed from, if it is from nothing else

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return np.ndarray

    def value(self, what: str) -> Any:
        """The number that this is, if it follows from options as they were when the step began: they are expected to
        be so. Otherwise what asks for it is refused.
        """
        if self.read is None:
            self.refuse(what)
        self.tape.expect(self.read)
        return self.raw.item()

    def refuse(self, what: str) -> NoReturn:
        """Raise `CompileError` for what asks for values, which differ at each replay."""
        raise self.tape.error(
            f"{what} of a value that is computed from the arguments or the parameters, in a function that tr.compile "
            f"records: the recording would repeat this one value. Return the tensor and look at it outside; choose by "
            f"tr.where instead of `if`; pass what decides (lengths, flags) as plain numbers, which are recorded anew "
            f"when they change"
        )

    # --- what does not depend on the values ---------------------------------------------------------------------------

    shape, ndim, size, dtype = _fixed("shape"), _fixed("ndim"), _fixed("size"), _fixed("dtype")
    itemsize, nbytes = _fixed("itemsize"), _fixed("nbytes")
    device = "cpu"

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of an array without gaps and axes of 1: of another they differ from its copy's, or by the call."""
        if not self.raw.flags.forc or min(self.raw.shape, default=2) < 2:
            raise self.tape.error(
                f".strides of an array of shape {self.raw.shape} that has gaps, or an axis of less than 2, "
                f"in a function that tr.compile records: it may be another at each call"
            )
        return self.raw.strides

    flags = property(lambda self: Flags(self))
    T = property(lambda self: type(self)(self.raw.T, self.tape))
    mT = property(lambda self: type(self)(self.raw.mT, self.tape))

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return NAMESPACE

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Any]:
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

    def __pow__(self, other: Any) -> Any:
        if isinstance(other, Tensor):
            return NotImplemented
        return self.tape.function(np.ndarray.__pow__, (self, other), {})  # which knows squares, where the ufunc doesn't

    def __rpow__(self, other: Any) -> Any:
        return self.tape.function(np.ndarray.__rpow__, (self, other), {})

    def __ipow__(self, other: Any) -> Any:
        self.tape.function(np.copyto, (self, self**other), {})
        return self

    def __getitem__(self, key: Any) -> Any:
        return self.tape.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tape.setitem(self, key, value)

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __getattr__(self, name: str) -> Any:
        kind = self.raw.dtype.type if isinstance(self, TracedScalar) else np.ndarray
        method = getattr(kind, name)  # an AttributeError for what the array itself has not
        if kind_of(method) is None:
            if callable(method) and not name.startswith("_"):
                return lambda *args, **kwargs: self.refuse(f".{name}()")
            self.refuse(f".{name}")
        return lambda *args, **kwargs: self.tape.function(method, (self, *args), kwargs)

    @property
    def real(self) -> Any:
        return self.tape.function(np.real, (self,), {})

    @real.setter
    def real(self, value: Any) -> None:
        self.refuse("setting .real")

    @property
    def imag(self) -> Any:
        return self.tape.function(np.imag, (self,), {})

    @imag.setter
    def imag(self, value: Any) -> None:
        self.refuse("setting .imag")

    @property
    def flat(self) -> Any:
        self.refuse(".flat")

    @flat.setter
    def flat(self, value: Any) -> None:
        self.refuse("setting .flat")

    # --- what would need the values -----------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        self.refuse(VALUES)

    # what NumPy asks for before it
    __array_struct__ = __array_interface__ = property(lambda self: self.refuse(VALUES))

    def __float__(self) -> float:
        return float(self.value("float() or .item()"))

    def __int__(self) -> int:
        return int(self.value("int()"))

    def __index__(self) -> int:
        return operator.index(self.value("an index, range() or int()"))

    def __bool__(self) -> bool:
        return bool(self.value("if, while, bool() or a comparison with `in`"))

    def __complex__(self) -> complex:
        return complex(self.value("complex()"))

    def __format__(self, spec: str) -> str:
        return format(self.value("a formatted string"), spec)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self.refuse("pickle or copy")

    def __repr__(self) -> str:
        return f"<array {self.raw.shape} {self.raw.dtype} of a recording>"


class TracedScalar(Traced):
    """One of NumPy's numbers, such as `x.sum()`: it passes for a `np.float32`, say, and `d -= 1` makes another."""

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self.raw.dtype.type

    def __hash__(self) -> int:
        self.refuse("hash()")

    def __pow__(self, other: Any) -> Any:
        return self.tape.function(operator.pow, (self, other), {})

    def __rpow__(self, other: Any) -> Any:
        return self.tape.function(operator.pow, (other, self), {})


class TracedNumber(TracedScalar):
    """One of Python's numbers, such as a norm that `clip_grad_norm_` has returned."""

    __slots__ = ()

    def _is_no_array(self) -> NoReturn:
        raise AttributeError("a number is no array")

    shape = ndim = size = dtype = itemsize = nbytes = strides = flags = T = mT = device = property(_is_no_array)
    __array_namespace__ = property(_is_no_array)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.raw.item())

    def operator(self, f: Any, *args: Any) -> Any:
        """`f` of one argument or two, of which one is this number."""
        if any(isinstance(v, Tensor) for v in args):
            return NotImplemented  # a tensor knows what to do
        return self.tape.function(f, args, {})

    def __getattr__(self, name: str) -> Any:
        getattr(type(self.raw.item()), name)  # an AttributeError for what the number itself has not
        self.refuse(f".{name}")


def _give_operators() -> None:
    """What is done to a NumPy number in place makes another; an operator of Python's numbers is that of Python."""
    named = operator.attrgetter("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "xor")
    for f in (*named(operator), operator.and_, operator.or_):
        name = f.__name__.strip("_")
        setattr(TracedScalar, f"__i{name}__", lambda self, other, f=f: f(self, other))
        if f in OPERATORS:
            setattr(TracedNumber, f"__{name}__", lambda self, other, f=f: self.operator(f, self, other))
            setattr(TracedNumber, f"__r{name}__", lambda self, other, f=f: self.operator(f, other, self))
    for f in (operator.neg, operator.pos, operator.abs):
        setattr(TracedNumber, f"__{f.__name__}__", lambda self, f=f: self.operator(f, self))


_give_operators()


class Flags:
    """The flags of a traced array, as far as they are told by shapes and strides."""

    __slots__ = ("array",)
    array: Any
    known = frozenset({"C", "F", "c_contiguous", "f_contiguous", "contiguous", "forc", "fnc", "aligned"})

    def __init__(self, array: Traced) -> None:
        object.__setattr__(self, "array", array)

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __getitem__(self, name: str) -> bool:
        if name not in Flags.known and name.lower() not in Flags.known:
            self.array.refuse(f".flags.{name}")
        return bool(getattr(self.array.raw.flags, name.lower()) if len(name) > 1 else self.array.raw.flags[name])

    def __setattr__(self, name: str, value: Any) -> None:
        self.array.refuse(f"setting .flags.{name}")


def traced(y: Any, tape: Tape) -> Traced:
    """The traced form of an array, of a number of NumPy's or of one of Python's, in a buffer that is its own."""
    kind = Traced if isinstance(y, np.ndarray) else TracedScalar if isinstance(y, np.generic) else TracedNumber
    raw = tape.adopt(y if kind is Traced and y.flags.writeable else np.array(y))
    if kind is Traced and not y.flags.writeable:  # what `x.imag` is
        tape.unwritable.add(id(raw))
    return kind(raw, tape)


def untraced(x: Any) -> Any:
    """`x` with NumPy arrays in the place of traced ones."""
    return rebuilt(x, lambda v: v.raw if isinstance(v, Traced) else v)


def as_given(x: Any) -> Any:
    """`x` with arrays and numbers in the place of traced ones, as the step would have them."""

    def given(v: Any) -> Any:
        if not isinstance(v, Traced):
            return v
        return v.raw if type(v) is Traced else v.raw[()] if type(v) is TracedScalar else v.raw.item()

    return rebuilt(x, given)


def arrays_in(x: Any) -> Iterator[HostArray]:
    """The NumPy arrays among arguments or results, those of tensors included."""
    for v in flat(x):
        array = v._array if isinstance(v, Tensor) else v
        array = array.raw if isinstance(array, Traced) else array
        if isinstance(array, np.ndarray):
            yield array


# --- errors -----------------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """An option that was read: how, and what it was; whether that was before anything could have changed it."""

    f: Callable[..., Any]
    args: tuple[Any, ...]
    value: Any
    early: bool

    def now(self) -> Any:
        """What the option is now."""
        return self.f(*self.args)


def read_of(xs: Sequence[Traced]) -> tuple[Read, ...] | None:
    """The options that something is computed from, given what it is computed from; None if from anything else."""
    found = [x.read for x in xs]
    return None if None in found or not found else tuple(read for some in found if some for read in some)


STALE = (
    "a tensor that was computed while tr.compile recorded is used outside of the function: return what is wanted "
    "later, a state to carry on, say, and pass it as an argument"
)


def place(depth: int = 2) -> tuple[str, int]:
    """The file and the line of the innermost frame outside of this package and NumPy."""
    frame = sys._getframe(depth)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("tinygrad_rnn", "numpy"):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def caught() -> bool:
    """Whether the user's code on the way here has a handler around the call that it is at: `except`, or `with`."""
    frame = sys._getframe(1).f_back
    while frame is not None and frame.f_code.co_qualname != "Recording.run":
        theirs = frame.f_globals.get("__name__", "").partition(".")[0] not in ("tinygrad_rnn", "numpy")
        if theirs and any(start <= frame.f_lasti < end for start, end in handled(frame.f_code)):
            return True
        frame = frame.f_back
    return False


@functools.cache
def handled(code: CodeType) -> list[tuple[int, int]]:
    """The stretches of a code that handlers are around: its table has four numbers for each, in six bits a byte."""
    numbers, value = [], 0
    for byte in code.co_exceptiontable:
        value = value << 6 | byte & 63
        if not byte & 64:
            numbers.append(value)
            value = 0
    return [(2 * start, 2 * (start + length)) for start, length in zip(numbers[::4], numbers[1::4], strict=True)]


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

    def full(self, shape: Any, fill_value: Any, dtype: Any = None) -> Any:
        y = np.full(shape, untraced(fill_value), dtype)
        if type(fill_value) in NUMBERS:
            return _tape().fresh(y, fill_value)
        return _tape().function(np.broadcast_to, (self.asarray(fill_value, y.dtype), y.shape), {}).copy()

    def asarray(self, x: Any, dtype: Any = None, copy: bool | None = None) -> Any:
        if isinstance(x, TracedNumber):
            x.refuse("an array")
        if isinstance(x, TracedScalar):
            x.tape.unwritable.add(id(x.raw))
            x = Traced(x.raw, x.tape)
        if not isinstance(x, np.ndarray):
            return np.array(x, dtype=dtype)
        if type(x) is np.ndarray and x.dtype == bool and dtype in (None, bool):
            return x  # a mask: how many it takes is then known, while its values are those of the replay
        if copy or (dtype is not None and x.dtype != dtype):
            return _tape().function(np.ndarray.astype, (x, x.dtype if dtype is None else dtype), {})
        return x

    def einsum(self, subscripts: str, *xs: Any) -> Any:
        return _tape().function(np.einsum, (subscripts, *xs), {"optimize": len(xs) > 1})  # as `backend.einsum`

    def number(self, x: Traced) -> TracedNumber:
        """What `.item()` of a NumPy number is beside an array."""
        return TracedNumber(x.raw, x.tape)


def _tape() -> Tape:
    tape: Tape | None = active_tape.get()
    if tape is None:
        raise CompileError(f"{users_place()}: {STALE}")
    return tape


NAMESPACE = TracedNamespace()
