"""The tape: what a step did to arrays, as a flat list of calls on buffers.

Views need no entry, since buffers stay where they are. A NumPy function becomes a call with `out=` its buffer, or an
assignment into it. What changes the engine's state (an optimiser's step, say) becomes a call of the Python function.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import (
    address,
    copied,
    flat,
    is_basic,
    layout,
    rebuilt,
    root_of,
    same_place,
    shares_memory,
)
from tinygrad_rnn.compiler.compare import digest, signature
from tinygrad_rnn.compiler.engine import DRAWS_INSIDE, Generator, Stages, expect_value, forget, refresh_grad
from tinygrad_rnn.compiler.found import Found, Leaf, reading_is_noticed, slot
from tinygrad_rnn.compiler.numpy_calls import (
    BY_VALUE,
    FILLS,
    IN_PLACE,
    LIKE,
    NUMBERS,
    SAME,
    STATIC,
    VIEW,
    AsNumbers,
    Call,
    assign,
    assign_all,
    into,
    kind_of,
    misused,
    name_of,
    takes_numbers,
    ufunc_into,
)
from tinygrad_rnn.compiler.products import is_large, multiply
from tinygrad_rnn.compiler.traced import (
    NAMESPACE,
    STALE,
    Read,
    Traced,
    TracedNumber,
    TracedScalar,
    arrays_in,
    as_given,
    caught,
    place,
    read_of,
    traced,
    untraced,
    users_place,
)
from tinygrad_rnn.compiler.undo import Undo
from tinygrad_rnn.compiler.users import call_as_it_is, form_of, parts_of, with_parts
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.backend import AnyArray, HostArray
from tinygrad_rnn.tensor.graph import Node, next_serial
from tinygrad_rnn.tensor.mode import active_tape
from tinygrad_rnn.tensor.tensor import Tensor, box

PLAIN = {int, float, bool, complex, str, slice, range, type, type(None), type(...), type(np._NoValue)}


class Entry:
    """One call: `f(*args, **kwargs)`, where the user made it, and whether floating-point warnings were off.

    One of `state` touches more than its arguments: it changes or reads the state of the engine. If it fails, an
    `except` of the user may be around it: it is `caught`.
    """

    __slots__ = ("f", "args", "kwargs", "signature", "state", "place", "quiet", "caught")

    def __init__(self, f: Any, args: Any, kwargs: Any, signature: Any, state: bool) -> None:
        self.f, self.args, self.kwargs, self.signature, self.state = f, args, kwargs, signature, state
        self.place = place()
        self.caught = state and caught()
        self.quiet = np.geterr()["invalid"] == "ignore"

    def changed(self, f: Any, args: tuple[Any, ...]) -> Entry:
        """An entry that does something else at the same place."""
        new = copy.copy(self)
        new.f, new.args, new.kwargs, new.signature, new.state = f, args, {}, None, False
        return new

    def bare(self) -> Entry:
        """The same without what it is given."""
        new = copy.copy(self)
        new.args = new.kwargs = ()
        return new


class Tape:
    """A recording in the making: its entries, and its buffers, the arrays whose values differ at each replay."""

    def __init__(self, given: Sequence[Any] = (), threads: int = 1) -> None:
        self.threads = threads  # how many share a replay
        self.given = {id(x): k for k, x in enumerate(given)}
        self.entries: list[Entry] = []
        self.numbers: dict[int, int] = {}  # of the buffers, by their ids
        self.buffers: list[HostArray] = []
        self.inputs: list[HostArray] = []  # the buffers that the arguments are copied into
        self.result: Any = None
        self.found = Found(self)
        # how often leaves, and gradients, may have got other arrays, and options other values
        self.version = self.grad_version = self.option_version = 0
        self.expected: list[Read] = []  # options by whose values the step decides: they must be so when it begins
        self.decided: list[str] | None = None  # `decisions` of a tape that rests
        self.undo = Undo()
        self.unwritable: set[int] = set()  # the ids of buffers that stand for parameters, or for numbers
        self.outside: dict[Any, tuple[HostArray, bytes]] = {}  # arrays from elsewhere, and their values, by their place
        self.refused: CompileError | None = None
        self.spoiled = False  # whether something failed that need not fail the next time
        self.generator = random.used_generator()
        self.serial = next_serial()  # nodes above it are made by the step

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write down what is computed inside. `CompileError` for what cannot be repeated, though the step caught it."""
        backend.register_namespace(Traced, NAMESPACE)
        backend.register_namespace(TracedScalar, NAMESPACE)
        backend.register_number(TracedNumber)
        try:
            with reading_is_noticed(), _active(self, Generator(self, random.generator())):
                yield
                self.found.check()
            self._watch([a for a, _ in self.outside.values()])
            if self.refused is not None:
                raise self.refused
        except Exception as error:
            if self.refused is None or error is self.refused:
                raise
            raise self.refused from error
        finally:
            self.found.settle()

    def close(self) -> None:
        """Let go of all, since traced arrays refer to the tape, as what was found and errors do: no cycle is left.

        A program has buffers of its own.
        """
        vars(self.found).clear()
        self.result = self.refused = None
        self.undo = Undo()
        for held in (self.entries, self.numbers, self.buffers, self.inputs, self.outside):
            held.clear()

    def rest(self) -> None:
        """Let go of all arrays: what a second recording is compared with is which calls were made, not their values."""
        entries, leaves, result = self.entries[:], self.found.leaves, self.result
        self.decided = self.decisions()
        self.close()
        self.entries += [e.bare() for e in entries]
        self.found.leaves = {i: Leaf(x.tensor, np.empty(0)) for i, x in leaves.items()}
        self.result = result

    # --- buffers ------------------------------------------------------------------------------------------------------

    def adopt(self, raw: HostArray) -> HostArray:
        """Make `raw` a buffer of this recording."""
        root = root_of(raw)
        if id(root) not in self.numbers:
            self.numbers[id(root)] = len(self.buffers)
            self.buffers.append(root)
        return raw

    def owns(self, raw: HostArray) -> bool:
        """Whether `raw` lies in a buffer of this recording."""
        return id(root_of(raw)) in self.numbers

    def fresh(self, raw: HostArray, value: Any) -> Traced:
        """A new buffer, filled with a Python number at each replay, or with nothing if that is None."""
        self.adopt(raw)
        if value is not None:
            self.log(np.ndarray.fill, (raw, value))
        return Traced(raw, self)

    def input(self, array: AnyArray) -> Traced:
        """A buffer for an argument, with its values."""
        y = traced(copied(np.asarray(array)), self)
        self.inputs.append(y.raw)
        return y

    # --- entries ------------------------------------------------------------------------------------------------------

    def log(self, f: Any, args: Any, kwargs: Any = None, state: bool = False) -> None:
        """Write down a call that has been made."""
        kwargs = kwargs or {}
        same = f, *[signature(x, self.numbers, self.given) for x in (args, kwargs)]
        self.entries.append(Entry(f, args, kwargs, same, state))

    def run(self, f: Any, args: Any, kwargs: Any) -> None:
        """Make a call, and write it down."""
        f(*args, **kwargs)
        self.log(f, args, kwargs)

    def _watch(self, given: Any) -> None:
        """Raise `CompileError` if an array that the recording does not own has been written into since it was used."""
        for a in arrays_in(given):
            if not self.owns(a):
                key, now = (address(a), a.shape, a.strides, a.dtype.str), digest(a)
                if self.outside.setdefault(key, (a, now))[1] != now:
                    raise self.error(
                        f"an array of shape {a.shape} that a recording has used is written into: it does not see that; "
                        f"make the array by np.zeros_like of an argument, or write into a copy"
                    )

    # --- NumPy's calls ------------------------------------------------------------------------------------------------

    def function(self, f: Any, args: Any, kwargs: Any) -> Any:
        """Compute a NumPy function or method, and write down how to repeat it."""
        self.check_active()
        kind = self._known(f)
        f, args, out = SAME.get(f, f), tuple(args), kwargs.get("out")
        kwargs = {k: v for k, v in kwargs.items() if k != "out" and v is not np._NoValue}
        self._check_given(name_of(f), (args, kwargs))
        self._watch((args, kwargs))
        if self.threads > 1 and f in (np.matmul, np.dot) and len(args) == 2 and not kwargs:
            a, b = untraced(args)
            if is_large(a, b, untraced(out)):
                return self._product(a, b, out, args)
        if kind == IN_PLACE:
            self.writable(args[0] if args else None)
            self.run(*self._on_buffers(f, args, kwargs))
            return None
        if out is not None:
            self._write(f, args, kwargs, self.writable(out))
            return out
        if (wrong := misused(f, args, kwargs)) is not None:
            raise self.error(f"{name_of(f)} in a way that cannot be repeated: {wrong}")
        if f in (np.broadcast_to, np.broadcast_arrays):  # a number's buffer, repeated, not a copy for each place
            args = rebuilt(args, lambda v: Traced(v.raw, self) if isinstance(v, TracedScalar) else v)
        y = f(*as_given(args), **as_given(kwargs))
        if kind == STATIC:
            return y
        value = FILLS.get(f, kwargs.get("fill_value", args[1] if len(args) > 1 else None))
        if kind == LIKE and (value is None or type(value) in NUMBERS):
            return self.fresh(y, value)
        return self._result(y, f, kind, args, kwargs)

    def _product(self, a: HostArray, b: HostArray, out: Any, given: Any) -> Any:
        """Compute a large product in as many parts as there are threads."""
        y = out
        if out is None or shares_memory(self.writable(out), (a, b)):
            y = traced(np.empty((len(a), b.shape[1]), a.dtype), self)
            y.read = read_of([v for v in given if isinstance(v, Traced)])
        self.run(multiply, (self.threads, a, b, y.raw), {})
        if out is not None and y is not out:
            self.run(np.copyto, (out.raw, y.raw), {})
        return y if out is None else out

    def _known(self, f: Any) -> str:
        """What `f` does. `CompileError` if a recording does not know."""
        kind = kind_of(f)
        if kind == BY_VALUE:
            raise self.error(
                f"np.{f.__name__} in a function that tr.compile records: the shape of its result depends on values; "
                f"compute it outside and pass the result"
            )
        if kind is None:
            raise self.error(
                f"{name_of(f)} in a function that tr.compile records: it is not among the NumPy functions of which a "
                f"recording knows what they do; compute it outside and pass the result"
            )
        return kind

    def _check_given(self, name: str, given: Any) -> None:
        """Raise `CompileError` for arguments that are neither plain arrays nor Python's constants."""
        for v in flat(given):
            if type(v) in PLAIN or isinstance(v, Traced | np.dtype | np.generic):
                continue
            if type(v) is not np.ndarray:
                raise self.error(f"{name} is given a {type(v).__name__}, which a recording does not know")
            if v.dtype.hasobject:
                raise self.error(f"{name} is given an array of Python objects")

    def writable(self, x: Any) -> HostArray:
        """The buffer of `x`, for a write. `CompileError` if `x` is no array that the recording has made."""
        if type(x) is not Traced or not self.owns(x.raw):
            raise self.error(
                "a value of the recording is written into an array that it does not know: make that array by an op of "
                "tinygrad_rnn, or by np.zeros_like of an argument"
            )
        if id(root_of(x.raw)) in self.unwritable:
            raise self.error("a write into the array of a parameter, or of a number: copy it, and write into the copy")
        return x.raw

    def _write(self, f: Any, args: Any, kwargs: Any, out: HostArray) -> None:
        """Compute a function into the array that it is given as `out`."""
        f, args, kwargs = self._on_buffers(f, args, kwargs)
        fast = ufunc_into(f, args, kwargs, out) if isinstance(f, np.ufunc) else None
        self.run(*(fast or (f, args, {**kwargs, "out": out})))

    def _on_buffers(self, f: Any, args: Any, kwargs: Any) -> Call:
        """A call on buffers. Numbers lie in arrays without axes, which ufuncs alone take for NumPy's numbers."""
        numbers = {
            k: type(v) is TracedNumber
            for k, v in enumerate(flat((args, kwargs)))
            if isinstance(v, TracedScalar) and (type(v) is TracedNumber or not takes_numbers(f))
        }
        return AsNumbers(f, numbers) if numbers else f, untraced(args), untraced(kwargs)

    def _result(self, y: Any, f: Any, kind: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """The traced form of a result `y`: views of what the call was given, or buffers that the call fills."""
        name, several = name_of(f), isinstance(y, tuple | list)
        read = [v for v in flat((args, kwargs)) if isinstance(v, Traced)]
        f, args, kwargs = self._on_buffers(f, args, kwargs)
        for v in flat(y):
            if not isinstance(v, np.ndarray | np.generic | bool | int | float) or np.asarray(v).dtype.hasobject:
                raise self.error(f"{name} returns a {type(v).__name__}, which a recording would repeat as it is now")
        if any(shares_memory(v, (args, kwargs)) for v in flat(y) if isinstance(v, np.ndarray)):
            owned = [v for v in flat((args, kwargs)) if isinstance(v, np.ndarray) and self.owns(v)]
            if kind != VIEW or not all(shares_memory(v, y) for v in owned):
                raise self.error(f"{name} returns a part of what it is given, and which depends on values: copy it")
            itself = {id(x.raw): x for x in read}  # what returns what it is given
            return rebuilt(y, lambda v: itself[id(v)] if id(v) in itself else Traced(v, self))
        if several:
            ys = [traced(v, self) for v in y]
            self.log(assign_all, (f, [v.raw for v in ys], args, kwargs))
            left = iter(ys)
            return rebuilt(y, lambda _: next(left))
        result = traced(y, self)
        result.read = read_of(read)
        expected = result.raw.tobytes()
        call = into(f, args, kwargs, result.raw)
        call[0](*call[1], **call[2])
        if result.raw.tobytes() != expected:  # not the same to the last bit
            call = assign, (f, result.raw, args, kwargs), {}
            assign(*call[1])
        self.log(*call)
        return result

    def getitem(self, x: Traced, key: Any) -> Traced:
        """Compute `x[key]`: a view, or a buffer that is filled at each replay."""
        self.check_active()
        self._check_given("an index", key)
        self._watch(key)
        if any(isinstance(k, Traced) and k.dtype == bool for k in (key if isinstance(key, tuple) else (key,))):
            raise self.error(
                "a boolean mask as an index, in a function that tr.compile records: how many it takes depends on "
                "values; use tr.where"
            )
        y = as_given(x)[as_given(key)]
        if isinstance(y, np.ndarray) and shares_memory(y, (x.raw,)):
            if any(isinstance(k, Traced) for k in flat(key)):
                raise self.error("a view whose place depends on values: index by an array of one axis, or by np.take")
            return Traced(y, self)
        f, args, kwargs = self._on_buffers(operator.getitem, (x, key), {})
        result = traced(y, self)
        self.run(assign, (f, result.raw, args, kwargs), {})
        return result

    def setitem(self, x: Traced, key: Any, value: Any) -> None:
        """Do `x[key] = value`, and write it down."""
        self.check_active()
        self._check_given("an index, or what is written there,", (key, value))
        self._watch((key, value))
        raw = self.writable(x)
        target = raw[key] if is_basic(untraced(key)) else None
        if isinstance(target, np.ndarray) and type(value) in NUMBERS:
            self.run(np.ndarray.fill, (target, value), {})
        elif isinstance(target, np.ndarray) and type(value) in (Traced, np.ndarray):
            value = untraced(value)
            if not same_place(target, value):  # not the end of `x[k] += y`
                same = value.dtype == target.dtype
                self.run(np.copyto, (target, value) if same else (target, value, "unsafe"), {})
        else:
            self.run(*self._on_buffers(operator.setitem, (x, key, value), {}))

    def check_active(self) -> None:
        """Raise `CompileError` unless this recording is going on."""
        if active_tape.get() is not self:
            raise CompileError(f"{users_place()}: {STALE}")

    def error(self, message: str) -> CompileError:
        """The error of what cannot be recorded, with its line. It ends the recording, even if the step catches it."""
        if self.refused is None:
            self.refused = CompileError(f"{users_place()}: {message}")
        return self.refused

    namespace = NAMESPACE

    # --- the engine ---------------------------------------------------------------------------------------------------

    def stages(self, module: ModuleType) -> Any:
        """The stages of `kernels.numba_stages`, whose calls are entries as they are."""
        return Stages(self, module)

    def call(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call `f`, which is marked `@replayed`, on real arrays; at each replay it is called again."""
        self.check_active()
        changes = getattr(f, "changes", "leaves")
        if changes == "nothing" and not any(self.differs(x) for x in flat((args, kwargs))):
            return self._aside(f, args, kwargs)
        if changes != "nothing" and args and isinstance(args[0], Tensor) and isinstance(slot(args[0]), Traced):
            raise self.error(f"{f.__name__} on a tensor that the step has computed: give the name to a new tensor")
        args, kwargs = untraced(rebuilt((tuple(args), kwargs), self._given))
        if changes not in ("nothing", "reads", "draws"):
            self._about_to_change((args, kwargs))
        try:
            y = self._aside(f, args, kwargs)
        except Exception:
            self.spoiled = True
            raise
        self._has_changed(changes, args)
        result = self._answer(y, f, args, kwargs)
        if isinstance(result, TracedNumber) and changes == "reads":
            result.read = (Read(f, args, y, early=not self.option_version),)
        return result

    def run_as_it_is(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function that a user has written on real arrays; at each replay it is called again."""
        self.check_active()
        if any(isinstance(x, Tensor) for x in flat((args, kwargs))):
            return f(*args, **kwargs)
        try:
            y = self._aside(f, as_given(args), as_given(kwargs))
        except Exception:
            self.spoiled = True
            raise
        ys = list(parts_of(y))
        if wrong := [v for v in ys if type(v) is not np.ndarray and not isinstance(v, np.generic | bool | int | float)]:
            raise self.error(f"{name_of(f)} returns a {type(wrong[0]).__name__}: let it return arrays")
        results = [traced(copied(v) if isinstance(v, np.ndarray) else v, self) for v in ys]
        f, args, kwargs = self._on_buffers(f, tuple(args), kwargs)
        self.log(call_as_it_is, (f, [result.raw for result in results], form_of(y), args, kwargs))
        return with_parts(y, iter(results))

    def _aside(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call `f`, and record nothing. It misses the generator of its own from which a checkpoint draws."""
        inside = not isinstance(random.used_generator(), Generator)
        with _active(None, self.generator):
            before = inside and repr(random.generator().bit_generator.state)
            try:
                return f(*args, **kwargs)
            finally:  # a call that raises may have drawn, too
                if inside and repr(random.generator().bit_generator.state) != before:
                    raise self.error(DRAWS_INSIDE)

    def decisions(self) -> list[str]:
        """The values of options by which the step has decided, after something could have changed them, and how the
        tensors and gradients lay in memory that it has found.
        """
        if self.decided is not None:
            return self.decided
        options = [repr(e.args[2]) for e in self.entries if e.f is expect_value]
        found = [x.initial for x in self.found.leaves.values()]
        return options + [repr(layout(a)) for a in [*found, *(e.args[1] for e in self.entries if e.f is refresh_grad)]]

    def expect(self, reads: Sequence[Read]) -> None:
        """Have the recording hold only where these options are what they were."""
        self.expected += [read for read in reads if read.early]
        for read in reads:
            if not read.early:
                self.log(expect_value, (read.f, read.args, read.value), state=True)

    def at_replay(self, f: Callable[..., Any], args: Any) -> None:
        """Have each replay call `f`, which is not called now: what it would do the step does by itself."""
        args = untraced(rebuilt(args, self._given))
        self._about_to_change((args, {}))
        self.option_version += 1
        self.log(f, args, state=True)

    def _about_to_change(self, given: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Remember the state of what a call is given, and have what the step makes begin anew at each replay."""
        shown = [list(x) if is_by_node(x) else x for x in (*given[0], *given[1].values())]
        for x in flat(given):
            if isinstance(x, Tensor):
                self.found.change(x)
        for node in (key for x in given[0] if is_by_node(x) for key in x):
            if node.watch is not None and not self.grad_version:  # whether it is written or added to
                self.found.before.setdefault(node.watch, node.watch.grad is not None)
            if node.watch is not None and node.watch not in self.found.written:
                self.found.written[node.watch] = None
                if node.serial > self.serial:
                    self.log(forget, (node.watch,), state=True)
        with _active(None, self.generator):
            self.undo.save(shown)

    def _has_changed(self, changes: str, args: tuple[Any, ...]) -> None:
        """Have what a call may have changed be read anew."""
        if changes == "itself":
            self.found.assign(args[0])
        self.version += changes == "leaves"
        self.option_version += changes in ("leaves", "options")
        self.grad_version += changes in ("leaves", "gradients")

    def _answer(self, y: Any, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Write down a call with the result `y`, which stands for that of each replay."""
        result: Any = y
        pure = hasattr(f, "effects")
        if isinstance(y, np.ndarray | np.generic | bool | int | float):
            if isinstance(y, np.ndarray) and shares_memory(y, args) and self.owns(y):
                result = Traced(y, self)
            else:
                result = traced(np.array(y) if isinstance(y, np.ndarray) else y, self)
                f, args, kwargs, pure = assign, (f, result.raw, args, kwargs), {}, False
        elif y is not None and not any(y is x for x in args):
            raise self.error(
                f"{f.__name__}, which each replay runs, returns a {type(y).__name__}: return a number or None"
            )
        self.log(f, args, kwargs, state=not pure)
        return result

    def differs(self, x: Any) -> bool:
        """Whether an array, or that of a tensor, may have other values at a replay: it is no constant of the step."""
        if isinstance(x, Tensor):
            return id(x) not in self.found.inside
        return isinstance(x, Traced | np.ndarray) and id(x) not in self.found.constants

    def computes(self, x: Any) -> bool:
        """Whether a value holds a tensor that the step has computed."""
        return any(isinstance(v, Tensor) and isinstance(slot(v), Traced) for v in flat(x))

    def _given(self, x: Any) -> Any:
        """An argument of a `@replayed` function: a computed tensor with its buffer, an iterator as a list."""
        if isinstance(x, Iterator):  # such as `parameters()`
            return list(x)
        return box(x._array.raw, None) if isinstance(x, Tensor) and isinstance(slot(x), Traced) else x


def is_by_node(x: Any) -> bool:
    """Whether `x` is a dictionary by nodes of the graph, as of the gradients of a sweep."""
    return type(x) is dict and any(isinstance(key, Node) for key in x)


@contextmanager
def _active(tape: Tape | None, generator: Any) -> Iterator[None]:
    """Have calls inside be written on `tape`, or on none, and draws be those of `generator`."""
    with random.use_generator(generator):
        token = active_tape.set(tape)
        try:
            yield
        finally:
            active_tape.reset(token)
