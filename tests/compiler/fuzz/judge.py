"""A program plain and compiled, in two worlds of their own, compared to the bit after every call."""

from __future__ import annotations

import collections
import functools
import struct
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tinygrad_rnn as tr
from tests.compiler.fuzz.program import HEAD, Program
from tinygrad_rnn.compiler.arrays import copied, rebuilt
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor import random as library_random

# --- portraits --------------------------------------------------------------------------------------------------------


class Painter:
    """What a world looks like, as tuples that can be compared: who is who, and every bit."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no id is used twice

    def of(self, x: Any) -> Any:
        """The portrait of anything."""
        if x is None or isinstance(x, bool | int | str | bytes):
            return type(x).__name__, x
        if isinstance(x, float) and not isinstance(x, np.generic):
            return "float", "nan" if x != x else struct.pack("d", x)
        if isinstance(x, np.generic):
            return type(x).__name__, bits(np.asarray(x))
        if id(x) in self.seen:
            return "the same as", self.seen[id(x)]
        self.seen[id(x)] = len(self.seen)
        self.kept.append(x)
        return self.new(x)

    def new(self, x: Any) -> Any:
        """The portrait of an object that has not been met before."""
        if isinstance(x, tr.Tensor):
            return self.tensor(x)
        if isinstance(x, np.ndarray):
            writeable = ("writeable", x.flags.writeable)
            return type(x).__name__, ("dtype", str(x.dtype)), ("shape", x.shape), layout(x), writeable, bits(x)
        if isinstance(x, collections.abc.Mapping):
            return type(x).__name__, tuple((self.of(k), self.of(v)) for k, v in x.items()), self.attributes(x)
        if isinstance(x, list | tuple | collections.deque | types.SimpleNamespace):
            values = vars(x).values() if isinstance(x, types.SimpleNamespace) else x
            return type(x).__name__, tuple([self.of(v) for v in values]), self.attributes(x)
        if isinstance(x, np.random.Generator):
            return "Generator", str(x.bit_generator.state)
        if isinstance(x, weakref.ReferenceType):
            return "a weak reference", self.of(x())
        if isinstance(x, tr.optim.Optimizer):
            state = x.state_dict()
            return type(x).__name__, self.of(state["groups"]), Painter().of(state["state"]), self.attributes(x)
        if isinstance(x, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
            return "a function", getattr(x, "__name__", "")
        if isinstance(x, type):
            own = x.__module__ in ("builtins", "a world")
            return x.__name__, tuple(self.pairs(vars(x))) if own else ()
        return type(x).__name__, self.attributes(x)

    def tensor(self, x: tr.Tensor) -> Any:
        """Values and, of a leaf, its gradient. Whether a result still has a graph is not told: a replay has none."""
        node = x._node if x.is_leaf else None
        watch = None if node is None else node.watch
        grad = None if watch is None or watch.grad is None else (str(watch.grad.dtype), bits(watch.grad))
        hooks = 0 if watch is None else len(watch.hooks)
        a = x._array
        kind = type(x).__name__, ("dtype", str(a.dtype)), ("shape", a.shape), layout(a), ("leaf", node is not None)
        return *kind, bits(a), ("grad", grad), ("hooks", hooks)

    def attributes(self, x: Any) -> Any:
        """What hangs on an object by names, but for the inside of an optimiser."""
        inside = ("_flats", "_owner", "param_groups") if isinstance(x, tr.optim.Optimizer) else ()
        named = dict(getattr(x, "__dict__", {}))
        for kind in type(x).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if not slot.startswith("__") and hasattr(x, slot):
                    named[slot] = getattr(x, slot)
        return tuple(self.pairs({k: v for k, v in named.items() if k not in inside}))

    def pairs(self, named: Any) -> Iterator[Any]:
        for name, value in named.items():
            if not name.startswith("__") and not callable_of_python(value):
                yield name, self.of(value)


def callable_of_python(x: Any) -> bool:
    return isinstance(x, types.FunctionType | property | staticmethod | classmethod | types.GetSetDescriptorType)


class Bits:
    """The bytes of an array, which are shown as numbers."""

    def __init__(self, data: bytes, dtype: Any) -> None:
        self.data, self.dtype = data, dtype

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bits) and self.data == other.data and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return str(np.frombuffer(self.data, self.dtype).tolist()) if self.dtype != object else self.data.decode()


def bits(a: np.ndarray[Any, Any]) -> tuple[str, Bits]:
    """The bytes of an array in C order; all NaNs are one."""
    if a.dtype.kind == "f":
        a = np.where(a != a, np.array(np.nan, a.dtype), a)
    return "values", Bits(a.tobytes() if a.dtype != object else repr(a.tolist()).encode(), a.dtype)


def layout(a: np.ndarray[Any, Any]) -> tuple[str, Any]:
    """The axes by their strides, with which of them continue each other: by this NumPy's loops go.

    How wide gaps are does not count.
    """
    found, dense = [], a.itemsize
    for k in sorted([k for k in range(a.ndim) if a.shape[k] > 1 and a.size], key=lambda k: abs(a.strides[k])):
        stride = a.strides[k]
        found.append((k, "still" if not stride else "-"[stride > 0 :] + ("next" if abs(stride) == dense else "gap")))
        dense = abs(stride) * a.shape[k] if stride else dense
    return "axes in memory", tuple(found)


# --- worlds -----------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a world looked like after each call, and which calls were refused, with the reason."""

    portraits: list[Any] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    untidy: dict[int, str] = field(default_factory=dict)  # refused calls that have left something changed
    replays: int = 0
    results: list[Any] = field(default_factory=list)


HIDDEN = {"__builtins__", "np", "tr", "collections", "functools", "types", "weakref", "EDGES", "f", "step", "make"}
HIDDEN |= {"normal", "edges", "ids", "cell", "free", "C", "wrapped"}


REFUSED = [False]  # whether a call that was refused is being made plain


def compiled_unless_refused(f: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function beside the step, which is plain while a refused call is repeated."""
    compiled = tr.compile(f)

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (f if REFUSED[0] else compiled)(*args, **kwargs)

    return call


class World:
    """The names of a program, and what is seen of them."""

    def __init__(self, program: Program, compiled: bool) -> None:
        self.program, self.compiled = program, compiled
        self.names: dict[str, Any] = {"__name__": "a world"}
        self.results: list[Any] = []

    def run(self) -> Outcome:
        """All calls, one after the other."""
        outcome, stages = Outcome(), backend.stages
        try:
            self.do(HEAD.format(seed=self.program.seed))
            self.names["C"] = compiled_unless_refused if self.compiled else (lambda f: f)
            for line in self.program.setup:
                self.do(line)
            self.do(self.program.step())
            f = self.names["step"]
            self.names["f"] = tr.compile(f) if self.compiled else f
            for n, call in enumerate(self.program.calls, 1):
                for change in call.changes:
                    self.attempt(lambda change=change: self.do(change))  # type: ignore[misc]
                try:
                    self.names["result"] = self.apart(self.called(n, call.text, outcome))
                    self.results.append(self.names["result"])
                    outcome.portraits.append(self.portrait())
                except CompileError as error:  # a tensor of the recording was put somewhere, and says so when used
                    outcome.refused[n] = str(error)
                    break
                outcome.results.append(self.results[-1])
        finally:
            tr.enable_fused(True)
            backend.use_stages(stages)
        return outcome

    def do(self, text: str) -> None:
        exec(compile_cached(text), self.names)

    def attempt(self, f: Callable[[], Any]) -> Any:
        """What `f` returns, or what it raises."""
        try:
            return f()
        except CompileError:
            raise
        except Exception as error:  # noqa: BLE001
            return "raised", type(error).__name__

    def apart(self, result: Any) -> Any:
        """A result, with copies of the arrays in it that are views of arrays with a name.

        In plain code `np.reshape(a, -1)` is, or is not, a view of the argument `a`, by how `a` lies in memory; what a
        replay returns is new at each call. So an old result is compared as it was returned, whatever is written later.
        """
        given = [v for v in self.names.values() if isinstance(v, np.ndarray)]

        def own(x: Any) -> Any:
            view = isinstance(x, np.ndarray) and any(x is not v and np.may_share_memory(x, v) for v in given)
            return copied(x) if view and not any(x is v for v in given) else x

        return rebuilt(result, own)

    def called(self, n: int, text: str, outcome: Outcome) -> Any:
        """The result of a call. One that is refused must have left all as it was, and is made plain."""
        before = self.portrait() if self.compiled else None
        try:
            return self.attempt(lambda: eval(compile_cached(text, "eval"), self.names))
        except CompileError as error:
            outcome.refused[n] = str(error)
            if where := difference(before, self.portrait()):
                outcome.untidy[n] = where
            f, self.names["f"] = self.names["f"], self.names["step"]
            REFUSED[0] = True
            try:
                return self.attempt(lambda: eval(compile_cached(text, "eval"), self.names))
            finally:
                self.names["f"], REFUSED[0] = f, False

    def portrait(self) -> Any:
        """All that can be seen now: results so far, what has a name, the generator, the switches."""
        painter = Painter()
        named = [(k, v) for k, v in self.names.items() if k not in HIDDEN and not k.startswith("__")]
        seen = [("results", painter.of(self.results)), *((k, painter.of(v)) for k, v in named)]
        seen.append(("the library's generator", painter.of(library_random.generator())))
        return tuple(seen)


CODES: dict[tuple[str, str], Any] = {}


def compile_cached(text: str, mode: str = "exec") -> Any:
    if (text, mode) not in CODES:
        if len(CODES) > 2000:
            CODES.clear()
        CODES[text, mode] = compile(text, "<program>", mode)
    return CODES[text, mode]


# --- judgement --------------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What the judge found: `call` and `where` of the first difference, or an empty `where`."""

    call: int = 0
    where: str = ""
    plain: Any = None
    compiled: Any = None
    refused: dict[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.where)


def judge(program: Program) -> Verdict:
    """The first difference between a program and itself compiled."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        plain = World(program, False).run()
        try:
            found = World(program, True).run()
        except Exception as error:  # noqa: BLE001
            return Verdict(0, f"the world fails: {type(error).__name__}: {error}")
    verdict = Verdict(refused=found.refused)
    for n, (a, b) in enumerate(zip(plain.portraits, found.portraits, strict=False), 1):
        where = difference(a, b)
        if n in found.untidy:
            where = f"after a CompileError: {found.untidy[n]}"
        elif n in found.refused and program.must_run:
            where = f"refused: {found.refused[n]}"
        if where:
            verdict.call, verdict.where = n, where
            verdict.plain, verdict.compiled = plain.results[n - 1], found.results[n - 1]
            break
    return verdict


def difference(a: Any, b: Any, path: str = "") -> str:
    """Where two portraits differ first; empty if nowhere."""
    if a == b:
        return ""
    if not (isinstance(a, tuple) and isinstance(b, tuple)) or len(a) != len(b):
        return f"{path.strip() or 'all'}: {shown(a)} plain, {shown(b)} compiled"
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        if x != y:
            labels = [
                part[0] if isinstance(part, tuple) and part and isinstance(part[0], str) else str(n)
                for n, part in enumerate(a)
            ]
            name = "" if k and len(a) == 2 and isinstance(a[0], str) else f" {labels[k]}"
            return difference(x, y, f"{path}{name}")
    return path


def shown(x: Any) -> str:
    text = repr(x)
    return text if len(text) < 80 else text[:77] + "..."
