"""Looking on while a network runs: which node of the graph belongs to which module, and to which step.

Serial numbers of nodes are time stamps. A watch notes those at which the call of a module, or a step of a layer, begins
and ends; a node belongs to the innermost of these that was open when it was made. The engine knows nothing of it.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinygrad_rnn.nn.cells import _Cell
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.watching import Steps, watcher
from tinygrad_rnn.tensor.graph import Node, next_serial
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.explain.flow import Flow
    from tinygrad_rnn.explain.gates import Gates


@dataclass(frozen=True)
class Place:
    """Where a node was made.

    `path` names the module, as its owner's parameters are named ("encoder.lstm"), or is that of its class, where it has
    no owner; `kind` is its class; `call` says which of its calls it was, from 0; `name` is that of a recurrent layer's
    direction, as its weights end ("_l0_reverse"). `step` is None outside of steps.
    """

    path: str = ""
    kind: str = ""
    call: int = 0
    name: str = ""
    step: int | None = None

    def __str__(self) -> str:
        where = self.path + self.name.replace("_", ".", 1).replace("_", " ") if self.path else ""
        return ", ".join(filter(None, [where, "" if self.step is None else f"step {self.step}"]))


NOWHERE = Place()


class Places:
    """What a watch has noted: from which serial number on which place is the innermost."""

    def __init__(self) -> None:
        self._serials: list[int] = []
        self._places: list[Place] = []
        self.end: int | None = None
        self.modules: list[weakref.ref[Module]] = []  # the outermost that were met
        self.paths: list[str] = []  # of these
        self.leaves: dict[int, tuple[str, str]] = {}  # path and name of their parameters, by serial number

    def note(self, place: Place) -> None:
        """From here on nodes are made at `place`."""
        self._serials.append(next_serial())
        self._places.append(place)

    def at(self, serial: int) -> Place | None:
        """The place of the node with this number; None if nobody looked when it was made."""
        i = bisect_right(self._serials, serial) - 1
        if i < 0 or (self.end is not None and serial > self.end):
            return None
        return self._places[i]


_kept: deque[Places] = deque(
    maxlen=16
)  # those of the last watches, a few numbers a step: graphs are looked at afterwards


def place_of(node: Node) -> Place | None:
    """Where a node was made, if a watch, one of the last 16, looked on."""
    for places in reversed(_kept):
        if (place := places.at(node.serial)) is not None:
            return place
    return None


def leaf_name(node: Node) -> str:
    """The name of a leaf that was a parameter of a module when one of the last 16 watches met it; else ""."""
    for places in reversed(_kept):
        if (found := places.leaves.get(node.serial)) is not None:
            path, name = found
            return name if len(places.paths) == 1 else f"{path}.{name}"
    return ""


def modules_met() -> Iterator[tuple[str, Module]]:
    """The outermost modules that the last 16 watches have met and that are still alive, the newest first.

    Each comes with what is put before the names of its parameters: nothing where it was the only one.
    """
    for places in reversed(_kept):
        for path, reference in zip(places.paths, places.modules, strict=True):
            if (module := reference()) is not None:
                yield ("" if len(places.paths) == 1 else path), module


@dataclass(frozen=True)
class Run:
    """What a watch has seen of one direction of one layer, over one stretch of steps.

    `first` is the step at which the stretch begins. `shown` has what the steps gave in the order in which they were
    run, that of `times`: a tensor that packs the rows of a fused LSTM or GRU, a tuple of such rows, or the state alone.
    `lengths` are those that the layer was called with. The call of a cell is a stretch of one step.
    """

    place: Place
    steps: Steps
    first: int
    lengths: Any = None

    @property
    def shown(self) -> list[Any]:
        """What each step gave."""
        return self.steps.shown or []

    @property
    def times(self) -> list[int]:
        """The step of each of `shown`."""
        return [self.first + t for t in self.steps.order][: len(self.shown)]


class Watch:
    """What was seen inside `with watch() as seen`."""

    def __init__(self) -> None:
        self.places = Places()
        self.runs: list[Run] = []
        self._stack: list[Place] = [NOWHERE]
        self._names: dict[int, str] = {}  # of the modules that were met, by id; `_met` keeps them alive
        self._met: list[Module] = []
        self._calls: Counter[int] = Counter()
        self._before: Counter[int] = Counter()  # how many steps the earlier calls of a layer have taken
        self._taken: Counter[int] = Counter()
        self._called: tuple[Any, Any] = (None, None)  # the innermost module that is being called, its lengths=

    def place(self, of: Tensor | Node) -> Place | None:
        """Where a tensor was made; None if it is a constant, or was made elsewhere."""
        node = of if isinstance(of, Node) else of._node
        return None if node is None or node.plan is None else self.places.at(node.serial)

    def gradient_flow(self, loss: Tensor, layer: Module | None = None) -> Flow:
        """How the gradient of `loss` flows back through the recurrent layers and cells that were watched, or through
        one `layer`: dL/dh_t for each step. To be called while the graph is there, before `loss.backward()`.

        >>> import tinygrad_rnn as tr
        >>> rnn, head = tr.nn.RNN(2, 3), tr.nn.Linear(3, 1)
        >>> with tr.explain.watch() as seen:
        ...     output, h_n = rnn(tr.randn(4, 1, 2))
        ...     loss = tr.square(head(h_n)).sum()
        >>> seen.gradient_flow(loss)[0].dh.shape
        (4, 1, 3)
        """
        from tinygrad_rnn.explain.flow import flow_of

        return flow_of(self, loss, layer)

    def gates(self, layer: Module | None = None) -> Gates:
        """The gates and states of the recurrent layers and cells that were watched, or of one `layer`, as they were.

        >>> import tinygrad_rnn as tr
        >>> model = tr.language.CharModel(tr.language.CharModelConfig(vocabulary=7, hidden=5))
        >>> with tr.no_grad(), tr.explain.watch() as seen:
        ...     scores, state = model.eval()([[1], [4], [2]])
        >>> seen.gates()["recurrent.l0"].f.shape
        (3, 1, 5)
        """
        from tinygrad_rnn.explain.gates import gates_of

        return gates_of(self, layer)

    # --- what `nn` calls --------------------------------------------------------------------------

    def call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`module.forward(*args, **kwargs)`, whose nodes are the module's."""
        outer = self._stack[-1]
        key = id(module)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Module):  # such as an embedding
                self._name(value)
        place = Place(self._name(module), type(module).__name__, self._calls[key], step=outer.step)
        if isinstance(module, _Cell) and outer.step is None:
            place = replace(place, step=self._calls[key])  # a cell in a loop that somebody wrote: a call is a step
        self._before[key] = self._taken[key]
        outer_call, self._called = self._called, (module, kwargs.get("lengths"))
        try:
            with self._inside(place):
                result = module.forward(*args, **kwargs)
        finally:
            self._called = outer_call
        if isinstance(module, _Cell):
            steps = Steps(module, "", 0, range(1), 1)
            self.runs.append(_call_of_cell(place, steps, self._calls[key], result, _arguments(*args, **kwargs)))
        self._calls[key] += 1
        return result

    def go_through(self, steps: Steps, times: Iterator[int]) -> Iterator[int]:
        """The same times, each of which is a step; the steps of a second call go on where those of the first ended."""
        outer, key = self._stack[-1], id(steps.layer)
        first = self._before[key] + steps.first
        self._taken[key] = max(self._taken[key], first + len(steps.order))
        place = replace(outer, name=steps.name)
        called, lengths = self._called
        if called is not steps.layer:
            steps.given = None  # somebody called its `forward`: with what lengths is not known
        self.runs.append(Run(place, steps, first, lengths))
        for t in times:
            self.places.note(replace(place, step=first + t if outer.step is None else outer.step))
            yield t
        self.places.note(outer)

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _inside(self, place: Place) -> Iterator[None]:
        self._stack.append(place)
        self.places.note(place)
        try:
            yield
        finally:
            self._stack.pop()
            self.places.note(self._stack[-1])

    def _name(self, module: Module) -> str:
        if id(module) not in self._names:
            kind = type(module).__name__
            self.places.modules.append(weakref.ref(module))
            others = sum(name.split(" ")[0] == kind for name in self._names.values())
            for name, part in module.named_modules():
                self._names.setdefault(id(part), name or (f"{kind} {others + 1}" if others else kind))
                self._met.append(part)
            path = self._names[id(module)]
            self.places.paths.append(path)
            for name, parameter in module.named_parameters():
                if parameter._node is not None:
                    self.places.leaves.setdefault(parameter._node.serial, (path, name))
        return self._names[id(module)]


def _call_of_cell(place: Place, steps: Steps, n: int, result: Any, given: tuple[Any, Any]) -> Run:
    """The n-th call of a cell: a step by itself."""
    steps.note(*given)
    steps.shown = [result]
    return Run(place, steps, n)


def _arguments(x: Any, hx: Any = None) -> tuple[Any, Any]:
    """What a cell was called with."""
    return x, hx


@contextmanager
def watch() -> Iterator[Watch]:
    """Look on while a network runs: inside, nodes are known by their module and step.

    `seen.place(tensor)` tells where a tensor was made. `ledger` and `graph` find the steps of what the last 16 watches
    have seen by themselves. The steps of a layer that is called again, with the state of the call before, go on where
    those had ended; a call of a cell (`LSTMCell`) is a step. Another thread that computes at the same time is not told
    apart. It makes a plain RNN some 7 % slower; where nobody looks, nothing.

    >>> import tinygrad_rnn as tr
    >>> rnn = tr.nn.RNN(2, 3)
    >>> with tr.explain.watch() as seen:
    ...     output, h_n = rnn(tr.randn(4, 1, 2))
    >>> seen.place(output)
    Place(path='RNN', kind='RNN', call=0, name='', step=None)
    >>> [str(place) for run in seen.runs for place in map(seen.place, run.shown)]
    ['RNN.l0, step 0', 'RNN.l0, step 1', 'RNN.l0, step 2', 'RNN.l0, step 3']
    """
    with looking() as seen:
        _kept.append(seen.places)
        yield seen


@contextmanager
def looking() -> Iterator[Watch]:
    """`watch()` of what is of no use to `ledger` and `graph`."""
    seen = Watch()
    seen.places.note(NOWHERE)
    token = watcher.set(seen)
    try:
        yield seen
    finally:
        watcher.reset(token)
        seen.places.end = next_serial()


@contextmanager
def step(k: int) -> Iterator[None]:
    """A step of a loop that is written by hand: what is computed inside belongs to step `k`.

    It counts inside `watch()`. `ledger` needs it only where a step uses a weight more than once.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.Parameter([0.5])
    >>> with tr.explain.watch() as seen, tr.explain.step(3):
    ...     h = w * w
    >>> seen.place(h).step
    3
    """
    look = watcher.get()
    if not isinstance(look, Watch):
        yield
        return
    with look._inside(replace(look._stack[-1], step=int(k))):
        yield
