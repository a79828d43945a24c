"""Loops in a sequence of nodes: the same ops again and again, each time with the same sources.

Nothing tells the graph of a loop that somebody has written: it sees five ops, and five ops, and five ops. A stretch is
a loop if it repeats at least three times, and if each source of each op is, in every repetition, one of these:

- a node of the same repetition, or of an earlier one, always at the same place in it;
- one from outside: a weight that all share, or one for each, such as the step's input; or always a constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from tinygrad_rnn.tensor.graph import Node

TIMES = 3  # twice is no loop: x + b + c
LONGEST = 512  # ops in one repetition
TRIES = 200  # candidates looked at


@dataclass(frozen=True)
class Loop:
    """`count` repetitions of `period` nodes each, from number `start` of a sequence on."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        """The number after that of its last node."""
        return self.start + self.period * self.count


def find_loops(nodes: Sequence[Node]) -> list[Loop]:
    """The loops in a sequence of inner nodes, oldest first; where some overlap, the one that covers the most.

    >>> import tinygrad_rnn as tr
    >>> w, h = tr.nn.Parameter([0.5]), tr.Tensor([1.0])
    >>> nodes = []
    >>> for _ in range(6):
    ...     a = w * h
    ...     h = a.tanh()
    ...     nodes += [a._node, h._node]
    >>> find_loops(nodes)
    [Loop(start=0, period=2, count=6)]
    """
    index = {node: i for i, node in enumerate(nodes)}
    kinds: dict[tuple[object, ...], int] = {}
    tokens = np.array(
        [kinds.setdefault((n.plan.name, n.shape, len(n.sources or ())), len(kinds)) for n in nodes], dtype=np.int64
    )
    found: list[Loop] = []
    heap: list[
        tuple[int, int, int, int, int]
    ] = []  # what it covers at most, period, start, stop, number if it is known

    def push(period: int, start: int, stop: int) -> None:
        if stop - start >= TIMES * period:
            heappush(heap, (-((stop - start) // period * period), period, start, stop, -1))

    for start, period, length in _repeats(tokens):
        push(period, start, start + length)
    checked: list[Loop] = []
    while heap and len(checked) < TRIES:
        _, period, start, stop, number = heappop(heap)
        free = list(_free(found, start, stop))
        if free != [(start, stop)]:
            for a, b in free:
                push(period, a, b)
        elif number >= 0:
            found.append(checked[number])
        else:
            loop = _best(nodes, index, start, period, stop - start)
            if loop.count:
                heappush(heap, (loop.start - loop.stop, period, loop.start, loop.stop, len(checked)))
            checked.append(loop)
            push(period, loop.stop if loop.count else start + period, stop)
    return sorted(found, key=lambda loop: loop.start)


def _free(found: Sequence[Loop], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """What no loop has taken of a stretch."""
    for loop in sorted(found, key=lambda loop: loop.start):
        if loop.start < stop and start < loop.stop:
            if start < loop.start:
                yield start, loop.start
            start = loop.stop
    if start < stop:
        yield start, stop


def _best(nodes: Sequence[Node], index: dict[Node, int], start: int, period: int, length: int) -> Loop:
    """The best loop of a period within a stretch in which the ops repeat: where does a repetition begin?"""
    best, best_merit = Loop(start, period, 0), (0, 0, 0, 0)
    spare = length % period  # so many shifts lose no repetition
    for shifts in (range(spare + 1), range(spare + 1, min(period, length - TIMES * period + 1))):
        for shift in shifts:
            loop, carried = _checked(nodes, index, Loop(start + shift, period, (length - shift) // period))
            if loop.count >= TIMES and (merit := _merit(loop, carried)) > best_merit:
                best, best_merit = loop, merit
        if best.stop - best.start >= length - spare:
            break
    return best


def _merit(loop: Loop, carried: int) -> tuple[int, int, int, int]:
    """Which of two loops is the better: it covers more, repeats more, carries less, and begins later."""
    return loop.stop - loop.start, loop.count, -carried, loop.start


def _repeats(tokens: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(start, period, length) of the stretches in which each token is that of `period` tokens before."""
    n = len(tokens)
    for period in range(1, min(n // TIMES, LONGEST) + 1):
        same = np.concatenate([[False], tokens[period:] == tokens[:-period], [False]])
        (edges,) = np.nonzero(same[1:] != same[:-1])
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            if end - begin >= (TIMES - 1) * period:
                yield int(begin), period, int(end - begin + period)


def _checked(nodes: Sequence[Node], index: dict[Node, int], loop: Loop) -> tuple[Loop, int]:
    """As many of the first repetitions as have the same sources, and how many values they carry to the next."""
    count, shared, carried = loop.count, False, set[int]()
    own_leaves = loop.count
    for j in range(loop.period):
        rows = [nodes[loop.start + k * loop.period + j].sources or () for k in range(count)]
        for i in range(len(rows[0])):
            if count < TIMES:
                return Loop(loop.start, loop.period, 0), 0
            column = [row[i] for row in rows]
            places = [_place(s, index, loop, k) for k, s in enumerate(column)]
            count = min(count, _alike(places))
            if places[1] is not None and places[1][0] > 0:
                carried.add(places[1][1])
            else:
                count = min(count, _outside(column))
                if column[1] is not None and column[0] is column[1]:
                    shared = True
                elif column[1] is not None and column[1].plan is None:
                    own_leaves = min(own_leaves, 1)
    if not shared:  # as many layers with weights of their own are no loop
        count = min(count, own_leaves)
    return Loop(loop.start, loop.period, count), len(carried)


def _outside(column: Sequence[Node | None]) -> int:
    """How many of the first sources from outside are one, or are all others, or are all constants."""
    if column[1] is None or column[0] is column[1]:
        return next((k for k, source in enumerate(column) if source is not column[1] and k), len(column))
    seen: set[Node | None] = {None}
    for k, source in enumerate(column):
        if source in seen and k:
            return k
        seen.add(source)
    return len(column)


def _place(source: Node | None, index: dict[Node, int], loop: Loop, k: int) -> tuple[int, int] | None:
    """How many repetitions ago a source was made, and where in it; None if it comes from outside."""
    at = index.get(source, -1) if source is not None else -1
    if not loop.start <= at < loop.stop:
        return None
    before, j = divmod(at - loop.start, loop.period)
    return k - before, j


def _alike(places: Sequence[tuple[int, int] | None]) -> int:
    """How many of the first repetitions have their source at one place; what the first ones lack came from outside."""
    most = 0
    for pattern in set(places[1:TIMES]):
        fits = 0
        for k, place in enumerate(places):
            if place != pattern and not (place is None and pattern is not None and k < pattern[0]):
                break
            fits = k + 1
        most = max(most, fits)
    return most
