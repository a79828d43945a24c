"""A program of the fuzzer: the text of a step, of what it finds around it, and of calls with changes between them."""

from __future__ import annotations

import random
import textwrap
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

X = TypeVar("X")

# Kinds of programs, and features of them, that are known to go wrong, and why: none of them is run.
NOT_YET: dict[str, str] = {}

HEAD = """\
import collections, functools, types, weakref
import numpy as np
import tinygrad_rnn as tr

tr.manual_seed({seed})
rng = np.random.default_rng({seed})
EDGES = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, 6e4]


def normal(*shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def edges(*shape, dtype="float32"):
    return rng.choice(EDGES, shape).astype(dtype)


def ids(n, *shape, dtype="int64"):
    return rng.integers(0, n, shape).astype(dtype)

"""


# What is compiled: the function itself, or something that calls it.
HOSTS = {
    "function": "",
    "method": """
class Host:
    def __init__(self, own):
        self.own = own
    def run(self, *args, **kwargs):
        return self.own(*args, **kwargs)
step = Host(step).run
""",
    "object": """
class Host:
    def __init__(self, own):
        self.own = own
    def __call__(self, *args, **kwargs):
        return self.own(*args, **kwargs)
step = Host(step)
""",
    "partial": "step = functools.partial(step)\n",
    "wrapped": """
def wrapped(own):
    @functools.wraps(own)
    def run(*args, **kwargs):
        return own(*args, **kwargs)
    return run
step = wrapped(step)
""",
}


class Draw:
    """Choices, all of them from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.features: set[str] = set()  # that were drawn

    def one(self, choices: Sequence[X]) -> X:
        return choices[int(self.random.random() * len(choices))]

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def number(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self.random.random() * (high - low + 1))

    def may(self, feature: str, p: float = 1.0) -> bool:
        """With probability p, unless the feature is known to go wrong."""
        drawn = self.chance(p) and feature not in NOT_YET
        if drawn:
            self.features.add(feature)
        return drawn


@dataclass
class Call:
    """Lines that change something, and a call of `f`."""

    changes: list[str]
    text: str


@dataclass
class Program:
    """`setup`, a step with its `body`, and `calls`. `must_run`: a CompileError would be wrong."""

    seed: int
    kind: str
    setup: list[str] = field(default_factory=list)
    parameters: str = ""
    body: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    decorators: list[str] = field(default_factory=list)
    closure: bool = False
    host: str = "function"
    must_run: bool = False
    features: set[str] = field(default_factory=set)  # by which a fault can be told from another

    def step(self) -> str:
        """The text that defines `step`, in a closure or not."""
        body = textwrap.indent("\n".join(self.body) or "pass", "    ")
        text = "".join(f"{d}\n" for d in self.decorators) + f"def step({self.parameters}):\n{body}\n"
        text += HOSTS[self.host]
        if not self.closure:
            return text
        made = {name for line in self.setup for name in names_stored(line)}
        free = sorted(made.intersection(names_loaded(text)))
        inner = textwrap.indent(text, "    ")
        return f"def make({', '.join(free)}):\n{inner}    return step\n\n\nstep = make({', '.join(free)})\n"

    def source(self, note: str = "", compiled: bool = True) -> str:
        """The whole, for a person to paste and read."""
        how = "C = tr.compile  # C = lambda f: f is the same plain\n" if compiled else "C = lambda f: f\n"
        parts = [HEAD.format(seed=self.seed), how, *(line + "\n" for line in self.setup), "\n\n", self.step()]
        parts.append("\n\nf = C(step)\n")
        for n, call in enumerate(self.calls, 1):
            parts += [line + "\n" for line in call.changes]
            last = n == len(self.calls)
            parts.append(f"result = {call.text}  # call {n}{': ' + note if note and last else ''}\n")
        return "".join(parts)


def names_stored(text: str) -> set[str]:
    """The names that a text of statements binds at its top level."""
    try:
        code = compile(text, "<names>", "exec")
    except SyntaxError:
        return set()
    import dis

    return {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}


def names_loaded(text: str) -> set[str]:
    """The global names that a text and the functions in it use."""

    def walk(code: types.CodeType) -> set[str]:
        found = set(code.co_names)
        for c in code.co_consts:
            if isinstance(c, types.CodeType):
                found |= walk(c)
        return found

    return walk(compile(text, "<names>", "exec"))


@dataclass
class State:
    """Something that a step finds around it: `text` is how it is written there, `put` how another is put there."""

    kind: str  # "parameter", "tensor", "array", "number", "module", "optimizer", "schedule", "flag"
    text: str
    put: Callable[[str], str] | None
    fresh: Callable[[], str]  # the text of another one


class Drawing:
    """A program in the making: lines are tried as they are drawn, so that what is drawn runs."""

    def __init__(self, seed: int, kind: str) -> None:
        self.d = Draw(seed)
        self.program = Program(seed, kind, features=self.d.features)
        self.names: dict[str, Any] = {}
        exec(compile(HEAD.format(seed=seed) + "C = lambda f: f\n", "<head>", "exec"), self.names)
        self.states: list[State] = []
        self.arguments: list[str] = []
        self.counts: dict[str, int] = {}

    def name(self, stem: str) -> str:
        """A name that is not in use."""
        k = self.counts[stem] = self.counts.get(stem, -1) + 1
        return f"{stem}{k}"

    def run(self, text: str) -> bool:
        """Whether the lines can be run here and now."""
        try:
            with np.errstate(all="ignore"):
                exec(compile(text, "<drawing>", "exec"), self.names)
        except Exception:  # noqa: BLE001
            return False
        return True

    def setup(self, text: str) -> None:
        """Add a line to what is there before the step."""
        if not self.run(text):
            raise AssertionError(f"seed {self.program.seed}: a line of the setup fails: {text}")
        self.program.setup.append(text)

    def line(self, text: str) -> bool:
        """Add a line to the step, if it runs."""
        if ok := self.run(text):
            self.program.body.append(text)
        return ok

    def value(self, text: str) -> Any:
        """What an expression is here and now."""
        return eval(text, self.names)

    def state(self, kind: str, fresh: Callable[[], str], stem: str = "") -> State:
        """Make something that the step finds around it, somewhere."""
        d, name = self.d, self.name(stem or kind[0])
        first = fresh()
        home = d.one(["name"] * 6 + sorted(HOMES))
        if home != "name" and not d.may(f"in {home}"):
            home = "name"
        if home == "name":
            self.setup(f"{name} = {first}")
            made = State(
                kind, name, lambda new: (self.program.closure and closed(name, new)) or f"{name} = {new}", fresh
            )
        else:
            lines, text, put = HOMES[home](name)
            for line in lines:
                self.setup(line.format(new=first))
            made = State(kind, text, (lambda new: put.format(new=new)) if put else None, fresh)
        self.states.append(made)
        return made


def closed(name: str, new: str) -> str:
    """A line that puts something else into a cell of the step, if it has one of that name."""
    return (
        f"{name} = {new}\n"
        f"for cell, free in zip(step.__closure__ or (), step.__code__.co_freevars):\n"
        f"    if free == {name!r}:\n"
        f"        cell.cell_contents = {name}"
    )


# Where a thing can hang: the lines that put it there, how the step gets at it, how another is put there.
HOMES: dict[str, Callable[[str], tuple[list[str], str, str]]] = {
    "attribute": lambda n: (
        [f"class {n.upper()}: pass", f"{n}_at = {n.upper()}()", f"{n}_at.it = {{new}}"],
        f"{n}_at.it",
        f"{n}_at.it = {{new}}",
    ),
    "slots": lambda n: (
        [f"class {n.upper()}: __slots__ = ('it',)", f"{n}_at = {n.upper()}()", f"{n}_at.it = {{new}}"],
        f"{n}_at.it",
        f"{n}_at.it = {{new}}",
    ),
    "class attribute": lambda n: ([f"class {n.upper()}: it = {{new}}"], f"{n.upper()}.it", f"{n.upper()}.it = {{new}}"),
    "inherited attribute": lambda n: (
        [f"class {n.upper()}: it = {{new}}", f"{n}_at = {n.upper()}()"],
        f"{n}_at.it",
        f"{n.upper()}.it = {{new}}",
    ),
    "property": lambda n: (
        [f"{n}_in = [{{new}}]", f"class {n.upper()}: it = property(lambda self: {n}_in[0])", f"{n}_at = {n.upper()}()"],
        f"{n}_at.it",
        f"{n}_in[0] = {{new}}",
    ),
    "dict": lambda n: ([f"{n}_in = dict(it={{new}})"], f"{n}_in['it']", f"{n}_in['it'] = {{new}}"),
    "list": lambda n: ([f"{n}_in = [None, {{new}}]"], f"{n}_in[1]", f"{n}_in[1] = {{new}}"),
    "deque": lambda n: ([f"{n}_in = collections.deque([{{new}}])"], f"{n}_in[0]", f"{n}_in[0] = {{new}}"),
    "mapping proxy": lambda n: (
        [f"{n}_in = dict(it={{new}})", f"{n}_at = types.MappingProxyType({n}_in)"],
        f"{n}_at['it']",
        f"{n}_in['it'] = {{new}}",
    ),
    "module": lambda n: (
        [f"{n}_at = types.ModuleType('{n}_at')", f"{n}_at.it = {{new}}"],
        f"{n}_at.it",
        f"{n}_at.it = {{new}}",
    ),
    "function": lambda n: ([f"{n}_in = {{new}}", f"def {n}_at(): return {n}_in"], f"{n}_at()", f"{n}_in = {{new}}"),
    "method": lambda n: (
        [f"{n}_in = {{new}}", f"class {n.upper()}:\n    def at(self): return {n}_in", f"{n}_at = {n.upper()}()"],
        f"{n}_at.at()",
        f"{n}_in = {{new}}",
    ),
    "partial": lambda n: (
        [f"{n}_at = functools.partial(lambda x: x, {{new}})"],
        f"{n}_at()",
        f"{n}_at = functools.partial(lambda x: x, {{new}})",
    ),
    "nested": lambda n: (
        [
            f"class {n.upper()}: pass",
            f"{n}_at = {n.upper()}()",
            f"{n}_at.down = {n.upper()}()",
            f"{n}_at.down.it = ({{new}},)",
        ],
        f"{n}_at.down.it[0]",
        f"{n}_at.down.it = ({{new}},)",
    ),
    "generator": lambda n: ([f"{n}_in = [{{new}}]"], f"next(v for v in {n}_in)", f"{n}_in[0] = {{new}}"),
    "getattr": lambda n: (
        [
            f"class {n.upper()}:\n    def __init__(self, it): self.held = it\n"
            f"    def __getattr__(self, name): return self.__dict__['held']",
            f"{n}_at = {n.upper()}({{new}})",
        ],
        f"{n}_at.it",
        f"{n}_at.held = {{new}}",
    ),
}
