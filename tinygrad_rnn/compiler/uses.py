"""Which memory the entries of a tape read and write: of each by its declared effects, and of all in order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tinygrad_rnn.compiler.arrays import address, root_of
from tinygrad_rnn.compiler.tape import Entry
from tinygrad_rnn.compiler.traced import arrays_in
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import Effects

REDUCES_INTO = Effects(writes=(3,))  # of add.reduce(x, axis, dtype, out, keepdims)
WRITES_FIRST = Effects(writes=(0,))
JOINS_INTO = Effects(writes=(2,))  # of concatenate(xs, axis, out)


def effects_of(e: Entry) -> Effects | None:
    """What an entry does to its arguments: declared with its function, or known of NumPy's; None if neither."""
    f, count = e.f, len(e.args)
    if e.state or e.kwargs:
        return None
    if (declared := getattr(f, "effects", None)) is not None:
        return declared  # type: ignore[no-any-return]
    if (f is np.copyto and count < 4) or f is np.ndarray.fill:  # a fourth argument is a mask
        return WRITES_FIRST
    if isinstance(f, np.ufunc) and f.nout == 1 and count == f.nargs:
        return Effects(writes=(f.nargs - 1,))
    if isinstance(getattr(f, "__self__", None), np.ufunc) and f.__name__ == "reduce" and count == 5:
        return REDUCES_INTO
    return JOINS_INTO if f is np.concatenate and count == 3 else None


def touched(e: Entry) -> tuple[list[HostArray], list[HostArray]]:
    """The arrays that an entry reads, and those that it writes. One whose effects are unknown does both with all."""
    known = effects_of(e)
    if known is not None:
        written: Any = [e.args[k] for k in (*known.writes, *known.updates)]
        read: Any = [a for k, a in enumerate(e.args) if k not in known.writes]
    elif fills_out(e):
        written, read = e.kwargs["out"], [e.args, [v for k, v in e.kwargs.items() if k != "out"]]
    else:
        written = read = [e.args, e.kwargs]
    return list(arrays_in(read)), list(arrays_in(written))


def fills_out(e: Entry) -> bool:
    """Whether an entry overwrites all of its `out`, as every NumPy function does that is given no mask."""
    return isinstance(e.kwargs.get("out"), np.ndarray) and not e.state and "where" not in e.kwargs


def solid(x: HostArray) -> bool:
    """Whether an array is every byte of its stretch, in order."""
    return bool(x.flags.c_contiguous) and x.size > 0


class Spans:
    """A set of bytes, as disjoint stretches in order.

    >>> spans = Spans([(0, 8)])
    >>> spans.remove(2, 4)
    >>> spans.parts, spans.covers(4, 8), spans.meets(2, 4)
    ([(0, 2), (4, 8)], True, False)
    """

    def __init__(self, parts: Iterable[tuple[int, int]] = ()) -> None:
        self.parts = list(parts)

    def remove(self, low: int, high: int) -> None:
        cut = ((x, y, min(y, low), max(x, high)) for x, y in self.parts)
        self.parts = [(a, b) for x, y, end, start in cut for a, b in ((x, end), (start, y)) if a < b]

    def add(self, low: int, high: int) -> None:
        self.remove(low, high)
        self.parts = sorted([*self.parts, (low, high)])
        joined: list[tuple[int, int]] = []
        for a, b in self.parts:
            if joined and joined[-1][1] == a:
                joined[-1] = joined[-1][0], b
            else:
                joined.append((a, b))
        self.parts = joined

    def covers(self, low: int, high: int) -> bool:
        return any(a <= low and high <= b for a, b in self.parts)

    def meets(self, low: int, high: int) -> bool:
        return any(a < high and low < b for a, b in self.parts)

    def within(self, low: int, high: int) -> list[tuple[int, int]]:
        """Their parts inside of a stretch."""
        return [(max(a, low), min(b, high)) for a, b in self.parts if a < high and low < b]


class Uses:
    """The uses of each buffer in a list of entries: when, which bytes, whether read or written."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        # by the id of the buffer, in order: number of the entry, first byte, end, whether written
        self.of: dict[int, list[tuple[int, int, int, bool]]] = {}
        for k, e in enumerate(entries):
            for some, written in zip(touched(e), (False, True), strict=True):
                for a in some:
                    low, high = byte_bounds(a) if a.size else (0, 0)
                    self.of.setdefault(id(root_of(a)), []).append((k, low, high, written))

    def last(self, root: HostArray) -> int:
        """The last entry that uses a buffer."""
        return self.of[id(root)][-1][0]

    def disturbed(self, a: HostArray, first: int, last: int, by_reading: bool) -> bool:
        """Whether one of the entries `first` ... `last` writes an array, or also `by_reading` it."""
        uses, (low, high) = self.of.get(id(root_of(a)), []), byte_bounds(a)
        some = uses[bisect_left(uses, (first,)) : bisect_left(uses, (last + 1,))]
        return any((written or by_reading) and x < high and low < y for _, x, y, written in some)

    def move(self, root: HostArray, place: HostArray) -> None:
        """Make the uses of a buffer those of a place in another one."""
        shift, home = address(place) - address(root), self.of.setdefault(id(root_of(place)), [])
        for k, low, high, written in self.of[id(root)]:
            insort(home, (k, low + shift, high + shift, written))
