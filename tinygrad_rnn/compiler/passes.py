"""What a recording need not repeat: adding to zeros, adding zeros, filling what is overwritten, copying.

The engine pulls the gradient of a slice back into an array of zeros, adds there, and joins what the steps have left
behind. In a recording all of that is in sight, and much of it comes down to where an array lies. A few passes over the
entries, in this order; each leaves the results as they are, but for the sign of a zero.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tinygrad_rnn.compiler.tape import PURE, Entry, address, assign, choose, flat, rebuilt, root_of, same_place
from tinygrad_rnn.tensor.backend import AnyArray as Array

# Of the compiled stages: from which argument on they write.
WRITTEN = {"lstm_gates": 3, "lstm_slopes": 3, "gru_gates": 4, "gru_slopes": 3, "rnn_tanh_slope": 2}
# Those that take a gradient of all rows, and of how many when the others are zeros.
STATE_ROWS = {"lstm_slopes": 2, "gru_slopes": 1}


def simplified(entries: Sequence[Entry], buffers: Iterable[int], kept: Iterable[int]) -> list[Entry]:
    """The entries that do the same with less. `buffers` are the ids of the arrays that the recording owns, whose values
    are others each time, and `kept` of those that somebody else may read or write.
    """
    free = frozenset(buffers) - frozenset(kept)
    constant = frozenset(buffers).isdisjoint
    fills = [is_fill(e) and constant([id(root_of(e.args[1]))]) for e in entries]
    found = live(*without_zeros(entries, fills, free), free)
    return merged(coalesced(found, free), free)


# --- which memory an entry touches ------------------------------------------------------------------------------------


def effects(e: Entry) -> tuple[list[Array], list[Array]]:
    """The arrays that an entry reads, and those that it writes. One that is not understood does both with all."""
    name = name_of(e)
    written: list[Array] = []
    if e.state:
        written = read = [e.args, e.kwargs]
    elif e.f in PURE:
        written, read = [e.args[0]], list(e.args)
    elif e.f is np.copyto:
        written, read = [e.args[0]], [e.args[1]]
    elif e.f is assign:
        written, read = [e.args[1]], [e.args[2], e.args[3]]
    elif e.f is choose:
        written, read = [e.args[3]], list(e.args[:3])
    elif name in WRITTEN:
        written, read = list(e.args[WRITTEN[name] :]), list(e.args[: WRITTEN[name]])
    elif "out" in e.kwargs:
        written, read = [e.kwargs["out"]], [e.args, *(v for k, v in e.kwargs.items() if k != "out")]
    elif isinstance(e.f, np.ufunc) and len(e.args) == e.f.nargs:
        written, read = [e.args[-1]], list(e.args[:-1])
    elif isinstance(getattr(e.f, "__self__", None), np.ufunc) and len(e.args) == 5:  # add.reduce(x, axis, None, out, _)
        written, read = [e.args[3]], [e.args[0]]
    elif e.f is np.concatenate and len(e.args) == 3:
        written, read = [e.args[2]], [e.args[0]]
    else:
        written = read = [e.args, e.kwargs]
    return list(arrays(read)), list(arrays(written))


def name_of(e: Entry) -> str:
    """What the function of an entry is called."""
    return getattr(e.f, "__name__", "")


def arrays(x: Any) -> Iterator[Array]:
    """The NumPy arrays among arguments."""
    return (v for v in flat(x) if isinstance(v, np.ndarray))


class Spans:
    """Disjoint stretches of bytes, in order.

    >>> spans = Spans([(0, 8)])
    >>> spans.remove(2, 4)
    >>> spans.parts, spans.covers(4, 8), spans.meets(2, 4)
    ([(0, 2), (4, 8)], True, False)
    """

    def __init__(self, parts: Iterable[tuple[int, int]] = ()) -> None:
        self.parts = list(parts)

    def remove(self, low: int, high: int) -> None:
        self.parts = [
            (a, b) for x, y in self.parts for a, b in ((x, min(y, low)), (max(x, high), y)) if a < b
        ]  # fmt: skip

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
        """What of them lies in a stretch."""
        return [(max(a, low), min(b, high)) for a, b in self.parts if a < high and low < b]


def solid(x: Array) -> bool:
    """Whether an array is every byte of its stretch, in order."""
    return bool(x.flags.c_contiguous) and x.size > 0


def is_sum(e: Entry) -> bool:
    """`a += d`, of one dtype, where `d` lies elsewhere."""
    if e.f is not np.add or len(e.args) != 3 or e.kwargs or not all(isinstance(v, np.ndarray) for v in e.args):
        return False
    a, d, out = e.args
    return same_place(a, out) and d.dtype == a.dtype and solid(a) and root_of(d) is not root_of(a)


def is_fill(e: Entry) -> bool:
    """An array filled with one value."""
    return e.f is np.copyto and len(e.args) == 2 and solid(e.args[0]) and not e.args[1].ndim


def changed(e: Entry, f: Any, args: tuple[Any, ...]) -> Entry:
    """An entry that does something else in the place of `e`."""
    new = object.__new__(Entry)
    new.f, new.args, new.kwargs, new.signature, new.state = f, args, {}, None, False
    new.place, new.quiet = e.place, e.quiet
    return new


# --- the passes -------------------------------------------------------------------------------------------------------


def without_zeros(
    entries: Sequence[Entry], fills: Sequence[bool], free: frozenset[int]
) -> tuple[list[Entry], list[bool]]:
    """Adding to zeros becomes copying; adding zeros goes; of a gradient of all rows those that are not zeros stay."""
    zeros: dict[int, Spans] = {}
    found = []
    for e, fill in zip(entries, fills, strict=True):
        if is_sum(e):
            a, d, _ = e.args
            if _covered(zeros, d):
                continue
            if _covered(zeros, a):
                e = changed(e, np.copyto, (a, d))
        elif (rows := STATE_ROWS.get(name_of(e), 0)) and _covered(zeros, e.args[0][:-rows]):
            e = changed(e, e.f, (e.args[0][-rows:], *e.args[1:]))
        for w in effects(e)[1]:
            if (held := zeros.get(id(root_of(w)))) is not None and w.size:
                held.remove(*byte_bounds(w))
        if fill and not e.args[1] and id(root_of(e.args[0])) in free:
            zeros.setdefault(id(root_of(e.args[0])), Spans()).add(*byte_bounds(e.args[0]))
        found.append((e, fill))
    return [e for e, _ in found], [fill for _, fill in found]


def _covered(zeros: dict[int, Spans], x: Array) -> bool:
    """Whether all of an array is known to be zeros."""
    return x.size > 0 and id(root_of(x)) in zeros and zeros[id(root_of(x))].covers(*byte_bounds(x))


def live(entries: Sequence[Entry], fills: Sequence[bool], free: frozenset[int]) -> list[Entry]:
    """Fills of what is written before it is read go, or shrink to what is read."""
    read_later: dict[int, Spans] = {}
    found: list[Entry] = []
    for e, fill in zip(reversed(entries), reversed(fills), strict=True):
        read, written = effects(e)
        if fill and id(root_of(e.args[0])) in free:
            a, value = e.args
            low, high = byte_bounds(a)
            parts = read_later.get(id(root_of(a)), Spans()).within(low, high)
            cells = a.reshape(-1)
            at = [((x - low) // a.itemsize, (y - low) // a.itemsize) for x, y in parts]
            found.extend(changed(e, np.copyto, (cells[x:y] if (x, y) != (0, a.size) else a, value)) for x, y in at)
        else:
            found.append(e)
        for w in written:
            if solid(w) and (later := read_later.get(id(root_of(w)))) is not None:
                later.remove(*byte_bounds(w))
        for r in read:
            if r.size:
                read_later.setdefault(id(root_of(r)), Spans()).add(*byte_bounds(r))
    return found[::-1]


class Uses:
    """When which bytes of which buffer are read and written."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        # by the id of the buffer, in order: number of the entry, first byte, end, whether written
        self.of: dict[int, list[tuple[int, int, int, bool]]] = {}
        for k, e in enumerate(entries):
            for some, written in zip(effects(e), (False, True), strict=True):
                for a in some:
                    low, high = byte_bounds(a) if a.size else (0, 0)
                    self.of.setdefault(id(root_of(a)), []).append((k, low, high, written))

    def last(self, root: Array) -> int:
        """The last entry that uses a buffer."""
        return self.of[id(root)][-1][0]

    def disturbed(self, a: Array, first: int, last: int, by_reading: bool) -> bool:
        """Whether one of the entries `first` ... `last` writes an array, or also `by_reading` it."""
        uses, (low, high) = self.of.get(id(root_of(a)), []), byte_bounds(a)
        some = uses[bisect_left(uses, (first,)) : bisect_left(uses, (last + 1,))]
        return any((written or by_reading) and x < high and low < y for _, x, y, written in some)

    def move(self, root: Array, place: Array) -> None:
        """The uses of a buffer are now uses of a place in another one."""
        shift, home = address(place) - address(root), self.of.setdefault(id(root_of(place)), [])
        for k, low, high, written in self.of[id(root)]:
            insort(home, (k, low + shift, high + shift, written))


def joins_rows(e: Entry) -> bool:
    """Whether arrays are joined along their first axis, into an array of the same dtype."""
    if e.f is not np.concatenate or (e.args[1] if len(e.args) > 1 else e.kwargs.get("axis", 0)) != 0:
        return False
    out = joined_into(e)
    return solid(out) and all(solid(p) and p.dtype == out.dtype for p in e.args[0])


def joined_into(e: Entry) -> Array:
    """What `np.concatenate` writes."""
    return e.args[2] if len(e.args) == 3 else e.kwargs["out"]


def coalesced(entries: Sequence[Entry], free: frozenset[int]) -> list[Entry]:
    """Buffers that are copied to their places, or joined, are made there: the copy goes."""
    uses = Uses(entries)
    moves = Moves()
    gone = set()
    for k, e in enumerate(entries):
        pairs = copies(e)
        roots = {id(root_of(d)) for _, d in pairs}
        if pairs and len(roots) == len(pairs) and all(can_be_made_there(a, d, k, uses, moves, free) for a, d in pairs):
            for a, d in pairs:
                uses.move(root_of(d), a)
                moves.add(root_of(d), a)
            gone.add(k)
    return moves.done([e for k, e in enumerate(entries) if k not in gone])


def copies(e: Entry) -> list[tuple[Array, Array]]:
    """What an entry copies: places, and what comes there."""
    if e.f is np.copyto and len(e.args) == 2 and e.args[0].shape == e.args[1].shape:
        return [e.args]
    if not joins_rows(e):
        return []
    starts = accumulate((len(p) for p in e.args[0]), initial=0)
    return [(joined_into(e)[n : n + len(p)], p) for n, p in zip(starts, e.args[0], strict=False)]


def can_be_made_there(a: Array, d: Array, k: int, uses: Uses, moves: Moves, free: frozenset[int]) -> bool:
    """Whether `d`, which entry k copies to `a`, is a whole buffer and has nothing in its way there while it is used."""
    source = root_of(d)
    if not moves.possible(source, root_of(a), free) or a.dtype != d.dtype or d.nbytes != source.nbytes:
        return False
    if not (solid(a) and solid(d)):
        return False
    some = uses.of[id(source)]
    if any(written and n > k for n, _, _, written in some):
        return False
    return not uses.disturbed(a, some[0][0], k - 1, True) and not uses.disturbed(a, k + 1, some[-1][0], False)


def merged(entries: Sequence[Entry], free: frozenset[int]) -> list[Entry]:
    """Arrays that are joined, and lie side by side already, are not copied."""
    uses = Uses(entries)
    moves = Moves()
    gone = set()
    for k, e in enumerate(entries):
        if not joins_rows(e):
            continue
        pieces, out = e.args[0], joined_into(e)
        home, target = root_of(pieces[0]), root_of(out)
        if not moves.possible(target, home, free) or out.nbytes != target.nbytes:
            continue
        if any(root_of(p) is not home for p in pieces):
            continue
        bounds = [byte_bounds(p) for p in pieces]
        if any(a[1] != b[0] for a, b in pairwise(bounds)):
            continue
        start = (bounds[0][0] - address(home)) // home.itemsize
        place = home.reshape(-1)[start : start + out.size].reshape(out.shape)
        again = any(written and n != k for n, _, _, written in uses.of[id(target)])
        if again or uses.disturbed(place, k + 1, uses.last(target), False):
            continue
        moves.add(target, place)
        gone.add(k)
    return moves.done([e for k, e in enumerate(entries) if k not in gone])


class Moves:
    """Buffers that become parts of others."""

    def __init__(self) -> None:
        self.places: dict[int, Array] = {}
        self.homes: set[int] = set()

    def possible(self, root: Array, home: Array, free: frozenset[int]) -> bool:
        """Whether one buffer may become a part of another: both are ours alone, and a move ends where none begins."""
        if root is home or id(root) in self.places or id(root) in self.homes:
            return False
        return bool(id(root) in free and id(home) in free and home.flags.c_contiguous)

    def add(self, root: Array, place: Array) -> None:
        self.places[id(root)] = place
        self.homes.add(id(root_of(place)))

    def done(self, entries: list[Entry]) -> list[Entry]:
        """The entries with every array at its place."""
        made: dict[int, Array] = {}

        def moved(x: Any) -> Any:
            if not isinstance(x, np.ndarray) or (place := self.places.get(id(root := root_of(x)))) is None:
                return x
            if id(x) not in made:
                home = root_of(place)
                offset = address(place) - address(home) + address(x) - address(root)
                made[id(x)] = np.ndarray(x.shape, x.dtype, home.reshape(-1).view(np.uint8), offset, x.strides)
            return made[id(x)]

        for e in entries:
            if not e.state:
                e.args, e.kwargs = rebuilt((e.args, e.kwargs), moved)
        return entries
