"""Boxes and arrows: what is drawn of a graph, as plain data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygrad_rnn.explain.fold import Group, components
from tinygrad_rnn.explain.names import UNKNOWN, Names, constants_of, operand_name, root_of
from tinygrad_rnn.tensor.graph import Node

STATES = {"RNN": "h", "GRU": "h", "RNNCell": "h", "GRUCell": "h", "LSTM": "h, c", "LSTMCell": "h, c"}
STEPS = {"rnn_step": "h", "gru_step": "h", "lstm_step": "h, c"}  # where nobody has watched
READERS = {"matmul", "linear", "linear_bias", "take", "einsum", "conv"}  # what they read is an input
MOST = 6  # lines in a box


@dataclass
class Box:
    """A box of the drawing.

    `kind` is "op" for a single op, "module", "steps" (of a loop or of a layer), "parameter" for leaves, "input" for
    arrays that need no gradient and go into a product, or "constant". `count` says how many steps or calls it stands
    for, `unit` which of the two, `nodes` how many nodes of the graph. `ops` counts the ops of one step or call.

    >>> from tinygrad_rnn.explain.boxes import Box
    >>> Box("b1", "steps", "RNN.l0, 7 steps", ["rnn_step", "(2, 4)"]).text
    'RNN.l0, 7 steps: rnn_step, (2, 4)'
    """

    id: str
    kind: str
    title: str
    lines: list[str] = field(default_factory=list)
    shape: tuple[int, ...] | None = None
    path: str = ""
    count: int = 1
    unit: str = ""
    nodes: int = 0
    ops: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The box in one line."""
        return (", " if self.kind == "parameter" else ": ").join(filter(None, [self.title, ", ".join(self.lines)]))


@dataclass
class Arrow:
    """An arrow from the box with the id `source` to that with the id `target`; `uses` are the edges that it stands for.

    What is `carried` goes from one step, or call, to the next.
    """

    source: str
    target: str
    label: str = ""
    carried: bool = False
    uses: int = 1


@dataclass
class _Edge:
    """An arrow while it is made; `first` is the serial number of the first node at which it ends."""

    source: Any
    target: Group
    label: str
    carried: bool
    first: int
    uses: int = 0


class Drawing:
    """Makes boxes and arrows of groups of nodes."""

    def __init__(self, groups: Sequence[Group], names: Names) -> None:
        self.names = names
        self.groups = sorted(groups, key=Group.first)
        self.folded = any(len(group.nodes) > 1 for group in groups)
        self.of = {node: group for group in self.groups for node in group.nodes}
        self.roles = {group: _roles(group) if group.unit else {} for group in self.groups}
        self.starts = {group: set(self._starts(group)) if group.unit else set() for group in self.groups}
        self.edges: dict[Any, _Edge] = {}
        self.inputs: dict[Any, _Input] = {}
        self._leaves: dict[Node, dict[Group, str]] = defaultdict(dict)
        for group in self.groups:
            for node in group.nodes:
                self._into(group, node)
        boxes: dict[Any, Box] = {source: source.box(names) for source in self._leaf_boxes()}
        boxes |= {source: source.box(names) for source in self._input_boxes()}
        boxes |= {group: self._box(group) for group in self.groups}
        self._find_carried()
        for i, box in enumerate(boxes.values(), 1):
            box.id = f"b{i}"
        self.boxes = list(boxes.values())
        self.arrows = [
            Arrow(boxes[e.source].id, boxes[e.target].id, e.label, e.carried, e.uses) for e in self.edges.values()
        ]
        _number_parts(boxes[group] for group in self.groups)

    # --- what goes into a group -------------------------------------------------------------------

    def _edge(self, source: Any, target: Group, label: str, first: int, carried: bool = False) -> None:
        key = source, target, label, carried
        if key not in self.edges:
            self.edges[key] = _Edge(source, target, label, carried, first)
        self.edges[key].uses += 1

    def _into(self, group: Group, node: Node) -> None:
        """Note what goes into one of a group's nodes."""
        turn = group.turns[node]
        constants = False
        for i, source in enumerate(node.sources or ()):
            if source is None:
                constants = True
            elif source.plan is None:
                label = self._start(group) if self._begins(group, node, i) else ""
                self._leaves[source][group] = self._leaves[source].get(group) or label
            elif (other := self.of[source]) is not group:
                label = self._start(group) if self._begins(group, node, i) else ""
                self._edge(other, group, label, node.serial)
            elif turn is not None and group.turns[source] not in (None, turn):
                self._edge(group, group, self._carries(group, source), node.serial, carried=True)
        if constants:
            for i, value in constants_of(node):
                self._constant(group, node, i, value)

    def _constant(self, group: Group, node: Node, i: int, value: Any) -> None:
        known = value is not UNKNOWN and bool(getattr(value, "shape", None))
        if self._begins(group, node, i):
            key: Any = (group, "start")
            source = _Input("constant", self._start(group))
        elif not known:
            key, source = (group, "constant"), _Input("constant")
        else:
            reads = node.plan.name.startswith(tuple(READERS))
            key = id(root_of(value)) if self.folded else id(value)
            source = _Input("input" if reads else "constant", operand_name(node, i))
        source = self.inputs.setdefault(key, source)
        source.values.append(value)
        self._edge(source, group, "", node.serial)

    def _leaf_boxes(self) -> Iterator[_Leaves]:
        """One source for all the leaves that the same groups use in the same way."""
        together: dict[Any, list[Node]] = defaultdict(list)
        for leaf, users in self._leaves.items():
            together[frozenset(users.items()) if self.folded else leaf].append(leaf)
        for leaves in together.values():
            source = _Leaves(sorted(leaves, key=lambda leaf: leaf.serial))
            for group, label in self._leaves[leaves[0]].items():
                self._edge(source, group, label, group.first())
            yield source

    def _input_boxes(self) -> list[_Input]:
        """The constants: those that go the same way, such as the inputs of the steps of a loop, as one."""
        goes_to: dict[_Input, set[Any]] = defaultdict(set)
        for edge in self.edges.values():
            if isinstance(edge.source, _Input):
                goes_to[edge.source].add(edge.target)
        kept: dict[Any, _Input] = {}
        for source in self.inputs.values():
            key = (source.kind, source.title, frozenset(goes_to[source])) if self.folded else source
            first = kept.setdefault(key, source)
            if first is not source:
                first.values += source.values
                for group in goes_to[source]:
                    uses = self.edges.pop((source, group, "", False)).uses
                    self.edges[first, group, "", False].uses += uses
        return list(kept.values())

    # --- what is carried --------------------------------------------------------------------------

    def _starts(self, group: Group) -> Iterator[tuple[Any, int]]:
        """The operands, each of a role, that a step takes from the step before."""
        for node, role in self.roles[group].items():
            for i, source in enumerate(node.sources or ()):
                if source in group.turns and group.turns[source] not in (None, group.turns[node]):
                    yield role, i

    def _begins(self, group: Group, node: Node, i: int) -> bool:
        """Whether operand `i` of a node, which comes from outside, is what later steps get from the step before."""
        return (self.roles[group].get(node), i) in self.starts[group]

    def _carries(self, group: Group, source: Node) -> str:
        """The name of what a step hands to the next."""
        if group.place.kind in STATES and group.unit == "steps":
            return STATES[group.place.kind]
        if source.plan.name in STEPS:
            return STEPS[source.plan.name]
        role = self.roles[group].get(source)
        named = [name for node, r in self.roles[group].items() if r == role and (name := self.names.of(node))]
        plain = [name for name in named if not name.endswith("]")] or [name.partition("[")[0] for name in named]
        return plain[0] if plain else source.plan.name

    def _start(self, group: Group) -> str:
        """The name of what the first step gets."""
        if group.place.kind in STATES and group.unit == "steps":
            return ", ".join(f"{state}_init" for state in STATES[group.place.kind].split(", "))
        ops = {node.plan.name for node in group.nodes} & STEPS.keys()
        return ", ".join(f"{state}_init" for state in STEPS[ops.pop()].split(", ")) if ops else "initial state"

    def _find_carried(self) -> None:
        """Mark the edges that close a cycle of groups: they go from one step, or call, to the next.

        Of a cycle, those that were there first go on, and what closes it goes back.
        """
        goes_to: dict[Any, set[Any]] = defaultdict(set)
        for edge in self.edges.values():
            goes_to[edge.source].add(edge.target)
            goes_to[edge.target] |= set()
        of = components(goes_to)
        within = [e for e in self.edges.values() if not e.carried and of[e.source] == of[e.target]]
        onwards: dict[Any, set[Any]] = defaultdict(set)
        for edge in sorted(within, key=lambda e: e.first):
            if _leads(onwards, edge.target, edge.source):
                edge.carried = True
                place, other = edge.source.place, edge.target.place
                edge.label = STATES.get(place.kind, "") if place.path and place.path == other.path else ""
            else:
                onwards[edge.source].add(edge.target)

    # --- boxes ------------------------------------------------------------------------------------

    def _box(self, group: Group) -> Box:
        last = group.nodes[-1]
        turn = group.turns[last]
        ops = Counter(node.plan.name for node in group.nodes if turn is None or group.turns[node] == turn)
        count = group.count if group.unit else 1
        unit = group.unit if count > 1 or group.unit == "steps" else ""
        counted = f"{count} {unit if count != 1 else unit.removesuffix('s')}" if unit else ""
        where = str(group.place).rpartition("step ")[0].rstrip(", ") if group.place.step is not None else ""
        where = where or (group.place.path if group.place.step is None else "")
        kind = "steps" if unit == "steps" else "module" if where else "op"
        title, lines = ", ".join(filter(None, [where, counted])), [_listed(ops)]
        if kind == "op":
            name = self.names.of(last)
            title, lines = f"{name} = {last.plan.name}" if name else last.plan.name, []
        lines.append(_shape(last.shape))
        return Box("", kind, title, lines, last.shape, group.place.path, count, unit, len(group.nodes), dict(ops))


@dataclass(eq=False)
class _Leaves:
    """Leaves that are drawn as one box."""

    leaves: list[Node]

    def box(self, names: Names) -> Box:
        """The box."""
        known = [names.of(leaf) or "leaf" for leaf in self.leaves]
        texts = [f"{name} {_shape(leaf.shape)}" for name, leaf in zip(known, self.leaves, strict=True)]
        title, *lines = _shortened(texts)
        shape = self.leaves[0].shape if len(self.leaves) == 1 else None
        return Box("", "parameter", title, lines, shape, nodes=len(self.leaves))


@dataclass(eq=False)
class _Input:
    """Constants that are drawn as one box."""

    kind: str
    title: str = ""
    values: list[Any] = field(default_factory=list)

    def box(self, names: Names) -> Box:
        """The box."""
        known = [v for v in self.values if v is not UNKNOWN]
        arrays = [v for v in {id(v): v for v in known}.values() if getattr(v, "shape", ())]
        numbers = [f"{float(v):.4g}" for v in known if not getattr(v, "shape", ())]
        shapes = Counter(_shape(tuple(a.shape)) for a in arrays)
        lines = [f"{n} × {shape}" if n > 1 else shape for shape, n in shapes.items()] + list(dict.fromkeys(numbers))
        known_as = list(dict.fromkeys(filter(None, map(names.of_array, arrays))))
        title = known_as[0] if len(known_as) == len(arrays) == 1 else ", ".join(_bases(known_as))
        shape = tuple(arrays[0].shape) if len(shapes) == 1 else None
        return Box("", self.kind, title or self.title or self.kind, _shortened(lines), shape)


def _bases(names: Sequence[str]) -> list[str]:
    """What names are parts of: "x" of "x[0]" and "x[1]"."""
    return list(dict.fromkeys(name.partition("[")[0] for name in names))


def _roles(group: Group) -> dict[Node, Any]:
    """What each node is in its turn: the first matmul, the second."""
    roles: dict[Node, Any] = {}
    seen: Counter[Any] = Counter()
    for node in group.nodes:
        if (turn := group.turns[node]) is not None:
            roles[node] = (node.plan.name, seen[turn, node.plan.name])
            seen[turn, node.plan.name] += 1
    return roles


def _leads(goes_to: dict[Any, set[Any]], start: Any, end: Any) -> bool:
    """Whether there is a way from a vertex to another."""
    seen, stack = {start}, [start]
    while stack:
        v = stack.pop()
        if v is end:
            return True
        stack += goes_to[v] - seen
        seen |= goes_to[v]
    return False


def _number_parts(boxes: Iterable[Box]) -> None:
    """Number the parts in which a module was cut."""
    by_title: dict[str, list[Box]] = defaultdict(list)
    for box in boxes:
        if box.path:
            by_title[box.title].append(box)
    for title, parts in by_title.items():
        for i, box in enumerate(parts, 1):
            box.title = f"{title} ({i} of {len(parts)})" if len(parts) > 1 else title


def _listed(ops: Counter[str]) -> str:
    """The names of ops, in the order in which they were met."""
    return ", ".join(_shortened([f"{n} {name}" if n > 1 else name for name, n in ops.items()]))


def _shape(shape: tuple[int, ...]) -> str:
    return str(tuple(shape)) if shape else "a number"


def _shortened(texts: list[str]) -> list[str]:
    return texts if len(texts) <= MOST else [*texts[: MOST - 1], f"and {len(texts) - MOST + 1} more"]
