"""Folding a graph: which nodes are drawn as one box.

First each call of a module, each step of a loop and each direction of a recurrent layer is a group, cut in two where
it would both give to another group and take from it (what a layer does before its steps, and after them). Then the
calls, and the steps, of one thing become one group. Its nodes know in which of them they stand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygrad_rnn.explain.loops import find_loops
from tinygrad_rnn.explain.watch import NOWHERE, Place, place_of
from tinygrad_rnn.tensor.graph import Node


@dataclass(eq=False)
class Group:
    """Nodes that are drawn as one box.

    `turns` says for each node in which call or step it stands; `place` is where the first was made, `unit` what is
    counted: "steps", "calls", or "" for what is there once.
    """

    place: Place
    unit: str = ""
    loop: bool = False
    nodes: list[Node] = field(default_factory=list)
    turns: dict[Node, Hashable] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many calls or steps it has."""
        return len(set(self.turns.values()) - {None})

    def first(self) -> int:
        """What orders groups: the serial number of the first node."""
        return self.nodes[0].serial


@dataclass(frozen=True)
class _Key:
    """Where a node stands: `thing` is what is drawn as one box, `call` which of its calls or steps."""

    thing: Hashable
    call: Hashable
    turn: Hashable
    unit: str
    place: Place
    whole: bool = False  # never cut: the steps of a layer, whatever stands between them


def fold(nodes: Sequence[Node]) -> list[Group]:
    """The groups of inner nodes, which are given oldest first."""
    keys = _keys(nodes)
    groups: dict[Hashable, Group] = {}
    for node, part in _cut(nodes, keys):
        key = keys[node]
        group = groups.get((key.thing, part))
        if group is None:
            groups[key.thing, part] = group = Group(key.place, key.unit, isinstance(key.thing, _Loop))
        group.nodes.append(node)
        group.turns[node] = key.turn
    return _absorbed(list(groups.values()))


def single(nodes: Sequence[Node]) -> list[Group]:
    """A group for each node."""
    return [Group(place_of(node) or NOWHERE, "", False, [node], {node: None}) for node in nodes]


# --- where each node stands -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Loop:
    """A loop that nobody has told us of: which of those in a path."""

    path: str
    number: int


def _keys(nodes: Sequence[Node]) -> dict[Node, _Key]:
    """Where each node stands: by its place, and where that says nothing of steps, by the loops that are found."""
    keys: dict[Node, _Key] = {}
    free: dict[tuple[str, int], list[Node]] = defaultdict(list)
    places: dict[Node, Place] = {}
    known: dict[Place, _Key] = {}
    place, key = NOWHERE, None
    for node in nodes:
        before, place = place, place_of(node) or NOWHERE
        if place is not before:  # most stand where the node before stands
            key = None if place.step is None else known.setdefault(place, _of_step(place))
        if key is None:
            places[node] = place
            free[place.path, place.call].append(node)
        else:
            keys[node] = key
    for (path, call), own in free.items():
        for i, loop in enumerate(find_loops(own)):
            for j, node in enumerate(own[loop.start : loop.stop]):
                turn = (call, j // loop.period)
                keys[node] = _Key(_Loop(path, i), turn, turn, "steps", places[node])
        for node in own:
            if node not in keys:
                thing: Hashable = path or node.serial
                keys[node] = _Key(thing, call, call, "calls" if path else "", places[node])
    return keys


def _of_step(place: Place) -> _Key:
    """Where the nodes of a step stand."""
    if place.name:
        return _Key((place.path, place.name), place.call, place.step, "steps", place, True)
    turn = place.call, place.step
    return _Key(place.path, turn, turn, "steps", place)


def _cut(nodes: Sequence[Node], keys: dict[Node, _Key]) -> Iterator[tuple[Node, int]]:
    """Each node with the number of its part of the call that it stands in.

    A call is cut where a group that takes from one part of it gives to the next: no way leads back to a part.
    """
    parts: dict[tuple[Hashable, Hashable], list[int]] = defaultdict(list)
    part_of: dict[Node | None, int] = {}
    goes_to: list[set[int]] = []
    for node in nodes:
        key = keys[node]
        mine = parts[key.thing, None if key.whole else key.call]
        sources = {part_of[s] for s in node.sources or () if s in part_of}
        number = 0
        if not key.whole:
            fits = (n for n, part in enumerate(mine) if not _closes_a_cycle(goes_to, part, sources))
            number = next(fits, len(mine))
        if number == len(mine):
            mine.append(len(goes_to))
            goes_to.append(set())
        part_of[node] = part = mine[number]
        for s in sources:
            if s != part:
                goes_to[s].add(part)
        yield node, number


def _closes_a_cycle(goes_to: Sequence[set[int]], start: int, sources: set[int]) -> bool:
    """Whether there is a way from a part to one of those that would be new sources of it."""
    ends = {s for s in sources if s != start and start not in goes_to[s]}
    seen, stack = {start}, [start] if ends else []
    while stack:
        for part in goes_to[stack.pop()]:
            if part in ends:
                return True
            if part not in seen:
                seen.add(part)
                stack.append(part)
    return False


def _absorbed(groups: list[Group]) -> list[Group]:
    """The same groups, but what only turns a weight around (`W.T`), or adds two biases, is a part of what uses it."""
    of = {node: group for group in groups for node in group.nodes}
    ready = [node for group in groups if not group.loop and group.unit != "steps" for node in group.nodes]
    ready = [node for node in sorted(ready, key=lambda node: node.serial) if _turns_weights(node)]
    known = set[Node]()
    for node in ready:
        if all(s is not None and (s.plan is None or s in known) for s in node.sources or ()):
            known.add(node)
    users: dict[Node, list[Node]] = {node: [] for node in known}
    for node in of:
        for source in node.sources or ():
            if source in users:
                users[source].append(node)
    for node in sorted(known, key=lambda node: -node.serial):
        goes_to = {of[user] for user in users[node]}
        if len(goes_to) == 1 and (new := goes_to.pop()) is not of[node]:
            of[node].nodes.remove(node)
            del of[node].turns[node]
            of[node] = new
            new.nodes.insert(0, node)
            new.turns[node] = None
    return [group for group in groups if group.nodes]


def _turns_weights(node: Node) -> bool:
    """Whether the op of a node only moves numbers, or adds."""
    forward = getattr(getattr(node.plan, "op", None), "forward", None)
    moves = getattr(forward, "__module__", "").endswith((".shape", ".indexing"))
    return moves or node.plan.name in ("transposed", "add")


# --- cycles of groups -----------------------------------------------------------------------------


def components(goes_to: dict[Any, set[Any]]) -> dict[Any, int]:
    """The number of the strongly connected component that each vertex is in (Kosaraju's two visits).

    >>> from tinygrad_rnn.explain.fold import components
    >>> found = components({1: {2}, 2: {3}, 3: {2}})
    >>> found[2] == found[3], found[1] == found[2]
    (True, False)
    """
    order: list[Any] = []
    _visit(goes_to, goes_to, set(), order.append)
    back: dict[Any, set[Any]] = {v: set() for v in goes_to}
    for v, targets in goes_to.items():
        for t in targets:
            back[t].add(v)
    found: dict[Any, int] = {}
    seen: set[Any] = set()
    for number, v in enumerate(reversed(order)):
        if v not in seen:
            members: list[Any] = []
            _visit(back, [v], seen, members.append)
            found |= dict.fromkeys(members, number)
    return found


def _visit(goes_to: dict[Any, set[Any]], starts: Iterable[Any], seen: set[Any], leave: Callable[[Any], None]) -> None:
    """Go through what `starts` reach, depth first, and `leave` each vertex after all that it reaches."""
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(goes_to[start]))]
        while stack:
            v, targets = stack[-1]
            new = next((t for t in targets if t not in seen), None)
            if new is None:
                leave(v)
                stack.pop()
            else:
                seen.add(new)
                stack.append((new, iter(goes_to[new])))
