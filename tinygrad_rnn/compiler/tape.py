"""The tape: what a function did to arrays, as a flat list of calls on buffers.

Views need no entry, since buffers stay where they are. A NumPy function becomes a call with `out=` its buffer, or an
assignment into it. What changes the engine's state (an optimiser's step, say) becomes a call of the Python function.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from itertools import zip_longest
from types import ModuleType
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.traced import STALE, Traced, place, users_place
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.backend import AnyArray as Array
from tinygrad_rnn.tensor.graph import Node, Watch
from tinygrad_rnn.tensor.mode import active_tape
from tinygrad_rnn.tensor.tensor import Tensor, box

LIKES = {np.zeros_like: 0, np.ones_like: 1, np.empty_like: None}
TAKES_OUT = {np.dot, np.concatenate, np.cumsum, np.clip, np.argmax, np.argmin, np.einsum, np.mean}
COPIES = {np.ndarray.copy, np.ndarray.astype, np.astype, np.copy}
# ufuncs whose two operands have one dtype, so that a Python number may be made an array beforehand
ARITHMETIC = {np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.equal, np.not_equal}
ARITHMETIC |= {np.less, np.less_equal, np.greater, np.greater_equal}
REDUCTIONS: dict[Any, Any] = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum, np.prod: np.multiply}
LOGIC = {np.any: np.logical_or, np.all: np.logical_and}
REDUCTIONS |= LOGIC
METHODS = {np.ndarray.sum: np.sum, np.ndarray.max: np.max, np.ndarray.min: np.min, np.ndarray.mean: np.mean}
METHODS |= {np.ndarray.any: np.any, np.ndarray.all: np.all, np.ndarray.dot: np.dot}
STATIC = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj}
# what returns views that do not depend on values
NAMES = "reshape transpose permute_dims matrix_transpose swapaxes moveaxis rollaxis expand_dims squeeze ravel diagonal "
NAMES += "broadcast_to flip fliplr flipud rot90 split array_split hsplit vsplit dsplit unstack view astype"
VIEWS = {getattr(place, name, None) for place in (np, np.ndarray) for name in NAMES.split()} - {None}
# Python functions that touch nothing but the arrays they are given, and write the first
PURE = {inspect.unwrap(backend.scatter_add)}
BY_VALUE = {np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.compress, np.extract, np.ndarray.nonzero}


class Entry:
    """One call: `f(*args, **kwargs)`, where the user made it, and whether floating-point warnings were off."""

    __slots__ = ("f", "args", "kwargs", "place", "quiet", "signature", "state")

    def __init__(self, f: Any, args: Any, kwargs: Any, signature: Any, state: bool) -> None:
        self.f, self.args, self.kwargs, self.signature, self.state = f, args, kwargs, signature, state
        self.place = place()
        self.quiet = np.geterr()["invalid"] == "ignore"


class Tape:
    """A recording in the making. `leaves` are the tensors of outside; while recording, their arrays are traced."""

    def __init__(self, leaves: list[Tensor]) -> None:
        self.entries: list[Entry] = []
        self.roots: dict[int, int] = {}  # the buffers, by id: which one it is
        self.held: list[Array] = []
        self.leaves = leaves
        self.own_generator = random._own_generator.get()
        self.nodes = [leaf._node for leaf in leaves]
        self.real = [leaf._array for leaf in leaves]
        self.buffers = [self.adopt(array.copy()) for array in self.real]
        self.traced = [Traced(buffer, self) for buffer in self.buffers]
        watches = [node.watch for node in self.nodes if node is not None and node.watch is not None]
        self.watches: dict[Watch, Array] = {watch: watch.grad for watch in watches}  # with the gradients of before
        self.grads: dict[Watch, tuple[Array, Array]] = {}  # the real gradient, and what stands for it

    def adopt(self, raw: Array) -> Array:
        """Make `raw` a buffer of this recording."""
        root = root_of(raw)
        if id(root) not in self.roots:
            self.roots[id(root)] = len(self.held)
            self.held.append(root)
        return raw

    def owns(self, raw: Array) -> bool:
        return id(root_of(raw)) in self.roots

    def log(self, f: Any, args: Any, kwargs: Any = None, state: bool = False) -> None:
        kwargs = kwargs or {}
        self.entries.append(Entry(f, args, kwargs, (f, self.signature(args), self.signature(kwargs)), state))

    def signature(self, x: Any) -> Any:
        """What two recordings must have in common: buffers by their number, constants by value."""
        if isinstance(x, np.ndarray):
            root = root_of(x)
            if (number := self.roots.get(id(root))) is not None:
                return "buffer", number, address(x) - address(root), x.shape, x.strides, x.dtype.str
            if not x.ndim:
                return "the constant", str(x[()]), x.dtype.str
            body = x.tobytes()
            return "an array", x.shape, x.dtype.str, body if len(body) < 64 else hashlib.blake2b(body).digest()
        if isinstance(x, Traced):
            return self.signature(x.raw)
        if isinstance(x, Tensor):
            return "a tensor", self.signature(x._array) if isinstance(x._array, np.ndarray) else None
        if isinstance(x, tuple | list):
            return tuple(self.signature(v) for v in x)
        if isinstance(x, dict):
            return tuple((k if isinstance(k, str) else None, self.signature(v)) for k, v in x.items())
        if isinstance(x, slice):
            return "slice", x.start, x.stop, x.step
        if isinstance(x, int | float | str | bool | np.generic | np.dtype | type | None):
            return "the constant", repr(x)
        return type(x).__name__

    # --- NumPy --------------------------------------------------------------------------------------------------------

    def fresh(self, raw: Array, value: Any) -> Traced:
        """A new buffer, filled with `value` at each replay, or not at all."""
        self.adopt(raw)
        if value is not None:
            self.log(np.copyto, (raw, np.asarray(value, raw.dtype)))
        return Traced(raw, self)

    def function(self, f: Any, args: Any, kwargs: Any) -> Any:
        """Compute `f(*args, **kwargs)`, and write it down."""
        if active_tape.get() is not self:
            raise CompileError(f"{users_place()}: {STALE}")
        f = METHODS.get(f, f)
        args, out = lower(tuple(args)), kwargs.get("out")
        kwargs = {k: v for k, v in lower(kwargs).items() if k != "out" and v is not np._NoValue}
        if f in LIKES and not kwargs:
            return self.fresh(f(*args), LIKES[f])
        if f in BY_VALUE:
            raise CompileError(
                f"{users_place()}: np.{f.__name__} in a function that tr.compile records: the shape of its result "
                f"depends on values; compute it outside and pass the result"
            )
        if out is not None:
            if not isinstance(out, Traced) or not self.owns(out.raw):
                raise CompileError(
                    f"{users_place()}: a value of the recording is written into an array that it does not know: make "
                    f"that array by an op of tinygrad_rnn"
                )
            self.entry(f, args, kwargs, out.raw)
            return out
        y = f(*args, **kwargs)
        if y is None:  # in place
            self.log(f, args, kwargs)
            return None
        if f in STATIC:
            return y
        still = f in VIEWS and not any(self.owns(a) for a in (*args[1:], *kwargs.values()) if isinstance(a, np.ndarray))
        if isinstance(y, tuple | list):
            if not still or not all(views(v, args) for v in y):
                raise CompileError(f"{users_place()}: {f.__name__} returns several arrays: it cannot be recorded")
            return type(y)(Traced(v, self) for v in y)
        if not isinstance(y, np.ndarray | np.generic):
            raise CompileError(
                f"{users_place()}: {getattr(f, '__name__', f)} returns {type(y).__name__}, which a recording repeats "
                f"as it is now: use an op that returns a tensor"
            )
        if isinstance(y, np.ndarray) and views(y, args):
            if still:
                return Traced(y, self)
            y = y.copy()
        y = self.adopt(y if isinstance(y, np.ndarray) and y.flags.writeable else np.array(y))
        self.entry(f, args, kwargs, y)
        return Traced(y, self)

    def entry(self, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Array) -> None:
        """Compute into `out` and write that down, in the form that is fastest to repeat."""
        given = kwargs.keys()
        plain = len(args) < 3 and given <= {"axis", "keepdims"} and not (f in LOGIC and args[0].dtype != bool)
        if f in REDUCTIONS and plain:
            axis = args[1] if len(args) > 1 else kwargs.get("axis")
            f, args = REDUCTIONS[f].reduce, (args[0], axis, None, out, kwargs.get("keepdims", False))
            kwargs = {}
        elif f in COPIES:
            f, args, kwargs = np.copyto, (out, args[0], "unsafe"), {}
        elif f in (np.reshape, np.ndarray.reshape) and not given:
            f, args = np.copyto, (out.reshape(args[0].shape), args[0])
        elif f is np.stack and given <= {"axis"}:
            axis = kwargs.get("axis", 0) if len(args) < 2 else args[1]
            f, args, kwargs = np.concatenate, ([np.expand_dims(x, axis) for x in args[0]], axis, out), {}
        elif f is np.take:  # ids have been checked; the mode "raise" would copy once more
            kwargs = {**kwargs, "out": out, "mode": "clip"}
        elif f is np.where and len(args) == 3:
            f, args = choose, (*args, out)
        elif isinstance(f, np.ufunc) and not given and f not in (np.maximum, np.minimum):  # which want `out=` by name
            args = (*(as_arrays(args) if f in ARITHMETIC else args), out)
        elif isinstance(f, np.ufunc) or isinstance(getattr(f, "__self__", None), np.ufunc) or f in TAKES_OUT:
            kwargs = {**kwargs, "out": out}
        else:
            f, args, kwargs = assign, (f, out, args, kwargs), {}
        f(*args, **kwargs)
        self.log(f, args, kwargs)

    def getitem(self, x: Traced, key: Any) -> Traced:
        key = lower(key)
        y = x.raw[key]
        if not isinstance(y, np.ndarray):  # a scalar: the same entry as a view
            key = (*key, ...) if isinstance(key, tuple) else (key, ...)
            y = x.raw[key]
        if not has_arrays(key) and (views(y, (x.raw,)) or not y.size):
            return Traced(y, self)
        if active_tape.get() is not self:
            raise CompileError(f"{users_place()}: {STALE}")
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, np.ndarray) and k.dtype == bool and self.owns(k) for k in keys):
            raise CompileError(
                f"{users_place()}: a boolean mask as an index, in a function that tr.compile records: how many it "
                f"takes depends on values; use tr.where"
            )
        y = self.adopt(y.copy() if views(y, (x.raw,)) else y)
        self.log(assign, (np.ndarray.__getitem__, y, (x.raw, key), {}))
        return Traced(y, self)

    def setitem(self, x: Traced, key: Any, value: Any) -> None:
        if active_tape.get() is not self:
            raise CompileError(f"{users_place()}: {STALE}")
        key, value = lower(key), lower(value)
        target = x.raw[key] if not has_arrays(key) else None
        if not isinstance(target, np.ndarray):
            x.raw[key] = value
            self.log(np.ndarray.__setitem__, (x.raw, key, value))
        elif not (isinstance(value, np.ndarray) and same_place(target, value)):  # not the end of `x[k] += y`
            value = np.asarray(value)
            if not self.owns(value):
                value = value.astype(target.dtype)
            np.copyto(target, value, casting="unsafe")
            self.log(np.copyto, (target, value) if value.dtype == target.dtype else (target, value, "unsafe"))

    # --- the engine ---------------------------------------------------------------------------------------------------

    def stages(self, module: ModuleType) -> Any:
        """The compiled stages of `nn.compiled`, whose calls are entries as they are."""
        return _Stages(self, module)

    def call(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call `f`, which knows nothing of recordings, on real arrays; at each replay it is called again."""
        args = lower(tuple(self.real_tensor(x) for x in args))
        kwargs = lower({name: self.real_tensor(x) for name, x in kwargs.items()})
        for node in (key for x in args if type(x) is dict for key in x if isinstance(key, Node)):
            if node.watch is not None and node.watch not in self.watches:  # a leaf that the step itself has made
                self.watches[node.watch] = None
                self.log(forget, (node.watch,), state=True)
        token, own = active_tape.set(None), random._own_generator.set(self.own_generator)
        try:
            self.give_back()
            y = f(*args, **kwargs)
        finally:
            random._own_generator.reset(own)
            active_tape.reset(token)
            changed = self.lend()
        result: Any = y
        if isinstance(y, np.ndarray | bool | int | float):
            ours = isinstance(y, np.ndarray) and views(y, args) and self.owns(y)
            number = None if isinstance(y, np.ndarray) else type(y)
            result = Traced(np.asarray(y) if ours else self.adopt(np.array(y)), self, number)
            f, args, kwargs = (f, args, kwargs) if ours else (assign, (f, result.raw, args, kwargs), {})
        self.log(f, args, kwargs, state=f not in PURE)
        if changed:
            self.log(refresh, ())
        for watch, (_, buffer) in self.grads.items():
            self.log(refresh_grad, (watch, buffer))
        return result

    def real_tensor(self, x: Any) -> Any:
        """A computed tensor as one of the buffer; what an iterator, such as `parameters()`, yields as a list."""
        if isinstance(x, Iterator):
            return list(x)
        leaf = isinstance(x, Tensor) and any(x is leaf for leaf in self.leaves)
        return box(x._array.raw, None) if isinstance(x, Tensor) and isinstance(x._array, Traced) and not leaf else x

    def lend(self) -> bool:
        """Have the leaves hold traced arrays; whether one of them has got another array since the last time."""
        changed = False
        for k, leaf in enumerate(self.leaves):
            if leaf._array is not self.real[k]:
                self.real[k] = leaf._array
                np.copyto(self.buffers[k], leaf._array)
                changed = True
            leaf._array = self.traced[k]
        for watch, before in self.watches.items():
            if watch.grad is not None and watch.grad is not before:
                buffer = self.adopt(watch.grad.copy())
                self.grads[watch] = (watch.grad, buffer)
                watch.grad = Traced(buffer, self)
        return changed

    def give_back(self) -> None:
        """Have the leaves hold what they are to hold outside."""
        for watch, (real, buffer) in self.grads.items():
            if isinstance(watch.grad, Traced) and watch.grad.raw is buffer:
                watch.grad = real
        self.grads = {}
        moved = None
        for k, leaf in enumerate(self.leaves):
            if leaf._array is not self.traced[k] and leaf._array is not self.real[k]:
                moved = leaf
            leaf._array = self.real[k]
        if moved is not None or any(leaf._node is not n for leaf, n in zip(self.leaves, self.nodes, strict=True)):
            raise CompileError(
                "a function that tr.compile records has moved a parameter, or changed requires_grad of one: do that "
                "outside of it"
            )

    def settle(self) -> None:
        """The end: what leaves hold is no buffer of the recording."""
        for watch in self.watches:
            if watch.grad is not None and self.owns(watch.grad):
                watch.grad = watch.grad.copy()

    def close(self) -> None:
        """Let go of all buffers: what is repeated has its own."""
        for held in (self.entries, self.roots, self.held, self.traced, self.real, self.watches):
            held.clear()


class _Stages:
    def __init__(self, tape: Tape, module: ModuleType) -> None:
        self.tape, self.module = tape, module

    def __getattr__(self, name: str) -> Any:
        f = getattr(self.module, name)

        def call(*args: Any) -> None:
            raw = lower(args)
            f(*raw)
            self.tape.log(f, raw)

        return call


class Generator:
    """What `random.generator()` returns while recording: each draw is an entry."""

    def __init__(self, tape: Tape, real: Any) -> None:
        self.tape, self.real = tape, real

    def __getattr__(self, name: str) -> Any:
        if name == "bit_generator":
            return self.real.bit_generator
        return lambda *args, **kwargs: self.tape.call(draw, (name, *args), kwargs)


def draw(name: str, *args: Any, **kwargs: Any) -> Any:
    """A draw from the library's generator, of now."""
    return getattr(random.generator(), name)(*args, **kwargs)


def assign(f: Callable[..., Any], buffer: Array, args: Any, kwargs: Any) -> None:
    """buffer[...] = f(*args, **kwargs)."""
    y = f(*args, **kwargs)
    if np.shape(y) != buffer.shape:
        raise CompileError(
            f"{getattr(f, '__name__', f)} gave shape {np.shape(y)}, but {buffer.shape} when tr.compile recorded it: "
            f"the shape depends on values"
        )
    buffer[...] = y


def choose(condition: Array, a: Any, b: Any, out: Array) -> None:
    """out = where(condition, a, b), without another array."""
    if condition.all():  # targets that all count
        np.copyto(out, a)
    else:
        np.copyto(out, b)
        np.copyto(out, a, where=condition)


def refresh() -> None:
    """Stands for: bring the buffers of the leaves up to date."""


def forget(watch: Watch) -> None:
    """Begin a leaf of the step itself anew, as the step would."""
    watch.grad = None


def returned(*constants: Any) -> None:
    """Stands for what is returned, so that constants in it are compared, too."""


def refresh_grad(watch: Watch, buffer: Array) -> None:
    """Bring what stands for a gradient up to date."""
    if watch.grad is None:
        raise CompileError("a .grad that a compiled function reads is None now, and was not when it was recorded")
    np.copyto(buffer, watch.grad)


# --- arrays -----------------------------------------------------------------------------------------------------------


def rebuilt(x: Any, leaf: Callable[[Any], Any]) -> Any:
    """`x` with what its tuples, lists and dictionaries hold as `leaf` makes it."""
    if isinstance(x, tuple | list):
        values = [rebuilt(v, leaf) for v in x]
        return type(x)(*values) if hasattr(x, "_fields") else type(x)(values)
    return {k: rebuilt(v, leaf) for k, v in x.items()} if type(x) is dict else leaf(x)


def flat(x: Any) -> Iterator[Any]:
    """What tuples, lists and dictionaries hold, in order."""
    if isinstance(x, tuple | list | dict):
        for v in x.values() if isinstance(x, dict) else x:
            yield from flat(v)
    else:
        yield x


def lower(x: Any) -> Any:
    """`x` with the arrays of traced ones."""
    return rebuilt(x, lambda v: v.raw if isinstance(v, Traced) else v)


def root_of(x: Array) -> Array:
    """The array that owns the memory of `x`."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def address(x: Array) -> int:
    """Where the first element lies in memory."""
    return int(x.__array_interface__["data"][0])


def views(y: Array, args: Any) -> bool:
    """Whether `y` lies in the memory of one of `args`."""
    for a in args:
        if isinstance(a, np.ndarray):
            if y is a or np.may_share_memory(y, a):
                return True
        elif isinstance(a, tuple | list) and views(y, a):
            return True
    return False


def has_arrays(key: Any) -> bool:
    """Whether an index is more than integers and slices."""
    return any(isinstance(k, np.ndarray | list) for k in (key if isinstance(key, tuple) else (key,)))


def same_place(a: Array, b: Array) -> bool:
    """Whether two arrays are the same view of the same memory."""
    return address(a) == address(b) and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


def as_arrays(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python numbers as arrays of the floating dtype of what stands beside them: NumPy then converts them once."""
    dtypes: list[Any] = [a.dtype for a in args if isinstance(a, np.ndarray | np.generic)]
    if any(dtype != dtypes[0] for dtype in dtypes) or dtypes[0].kind != "f":
        return args
    return tuple(np.asarray(a, dtypes[0]) if type(a) in (int, float) else a for a in args)


def compare(first: Tape, second: Tape) -> None:
    """Raise unless both recordings are the same calls, with the same constants."""
    for a, b in zip_longest(first.entries, second.entries):
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
    """The first of what differs in two forms, in words."""
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
