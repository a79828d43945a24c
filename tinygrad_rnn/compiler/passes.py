"""The passes over a recording: what need not be repeated goes.

The engine pulls the gradient of a slice back into an array of zeros, and joins what the steps have left behind. In a
recording all of that is in sight, and much of it comes down to where an array lies. The passes, in this order, leave
the results as they are, to the last bit:

- `without_zeros`: arrays of zeros are not added, but 0, which makes 0.0 of -0.0 as they do.
- `live`: filling what is overwritten goes.
- `coalesced`: what is copied to a place, or joined, is made there.
- `merged`: what lies side by side is not joined.

A pass touches a call that it understands whole, and leaves any other alone, with all the memory that it may touch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tinygrad_rnn.compiler.arrays import address, rebuilt, root_of, same_place
from tinygrad_rnn.compiler.numpy_calls import NUMBERS
from tinygrad_rnn.compiler.tape import Entry
from tinygrad_rnn.compiler.uses import Spans, Uses, effects_of, solid, touched
from tinygrad_rnn.tensor.backend import HostArray


def simplified(entries: Sequence[Entry], buffers: Iterable[int], kept: Iterable[int]) -> list[Entry]:
    """The entries that do the same with less.

    `buffers` are the ids of the arrays that the recording owns, whose values differ at each replay, and `kept` of those
    that somebody else may read or write.
    """
    free = frozenset(buffers) - frozenset(kept)
    return merged(coalesced(live(without_zeros(entries, free), free), free), free)


# --- what an entry does -----------------------------------------------------------------------------------------------


def is_sum(e: Entry) -> bool:
    """`a += d`, of one dtype, where `d` lies elsewhere."""
    if e.f is not np.add or len(e.args) != 3 or e.kwargs or not all(isinstance(v, np.ndarray) for v in e.args):
        return False
    a, d, out = e.args
    return same_place(a, out) and d.dtype == a.dtype and root_of(d) is not root_of(a)


def is_fill(e: Entry) -> bool:
    """An array filled with one of Python's numbers."""
    return e.f is np.ndarray.fill and type(e.args[1]) in NUMBERS and solid(e.args[0])


def fills_with_zeros(e: Entry) -> bool:
    """An array filled with 0, and not with -0.0."""
    return is_fill(e) and e.args[1] == 0 and math.copysign(1, e.args[1]) > 0


def is_copy(e: Entry) -> bool:
    """`np.copyto` of an array of the same shape, without options."""
    if e.f is not np.copyto or len(e.args) != 2 or e.kwargs or not isinstance(e.args[1], np.ndarray):
        return False
    return bool(e.args[0].shape == e.args[1].shape)


# --- the passes -------------------------------------------------------------------------------------------------------


def without_zeros(entries: Sequence[Entry], free: frozenset[int]) -> list[Entry]:
    """Add the number 0 in the place of zeros, and give a stage the rows that are not zeros alone."""
    zeros: dict[int, Spans] = {}
    found = []
    for e in entries:
        if is_sum(e) and _covered(zeros, e.args[1]):
            a = e.args[0]
            if a.dtype.kind not in "fc":
                continue
            e = e.changed(np.add, (a, np.zeros((), a.dtype), a))
        else:
            e = _with_last_rows(e, zeros)
        for w in touched(e)[1]:
            if (held := zeros.get(id(root_of(w)))) is not None and w.size:
                held.remove(*byte_bounds(w))
        if fills_with_zeros(e) and id(root_of(e.args[0])) in free:
            zeros.setdefault(id(root_of(e.args[0])), Spans()).add(*byte_bounds(e.args[0]))
        found.append(e)
    return found


def _with_last_rows(e: Entry, zeros: dict[int, Spans]) -> Entry:
    """The entry with the last rows alone of an argument whose other rows are zeros, where its function takes that."""
    known = effects_of(e)
    for k, rows in known.last_rows.items() if known else ():
        if _covered(zeros, e.args[k][:-rows]):
            e = e.changed(e.f, (*e.args[:k], e.args[k][-rows:], *e.args[k + 1 :]))
    return e


def _covered(zeros: dict[int, Spans], x: HostArray) -> bool:
    """Whether all of an array is known to be zeros."""
    return x.size > 0 and id(root_of(x)) in zeros and zeros[id(root_of(x))].covers(*byte_bounds(x))


def live(entries: Sequence[Entry], free: frozenset[int]) -> list[Entry]:
    """Fill nothing that is written before it is read, and of the rest what is read."""
    read_later: dict[int, Spans] = {}
    found: list[Entry] = []
    for e in reversed(entries):
        read, written = touched(e)
        if is_fill(e) and id(root_of(e.args[0])) in free:
            a, value = e.args
            low, high = byte_bounds(a)
            parts = read_later.get(id(root_of(a)), Spans()).within(low, high)
            cells = a.reshape(-1)
            at = [((x - low) // a.itemsize, -((low - y) // a.itemsize)) for x, y in parts]  # whole cells
            found.extend(e.changed(e.f, (cells[x:y] if (x, y) != (0, a.size) else a, value)) for x, y in at)
        else:
            found.append(e)
        for w in written:
            if solid(w) and (later := read_later.get(id(root_of(w)))) is not None:
                later.remove(*byte_bounds(w))
        for r in read:
            if r.size:
                read_later.setdefault(id(root_of(r)), Spans()).add(*byte_bounds(r))
    return found[::-1]


def joins_rows(e: Entry) -> bool:
    """Whether arrays are joined along their first axis, into an array of the same dtype."""
    if e.f is not np.concatenate or (e.args[1] if len(e.args) > 1 else e.kwargs.get("axis", 0)) != 0:
        return False
    if not e.kwargs.keys() <= {"axis", "out"} or type(e.args[0]) not in (list, tuple):
        return False
    out = joined_into(e)
    return solid(out) and all(isinstance(p, np.ndarray) and solid(p) and p.dtype == out.dtype for p in e.args[0])


def joined_into(e: Entry) -> HostArray:
    """The array that `np.concatenate` writes."""
    out: HostArray = e.args[2] if len(e.args) == 3 else e.kwargs["out"]
    return out


def coalesced(entries: Sequence[Entry], free: frozenset[int]) -> list[Entry]:
    """Make buffers that are copied to a place, or joined, at that place: the copy goes."""
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


def copies(e: Entry) -> list[tuple[HostArray, HostArray]]:
    """The copies that an entry makes: pairs of a place and what is copied there."""
    if is_copy(e):
        return [e.args]
    if not joins_rows(e):
        return []
    starts = accumulate((len(p) for p in e.args[0]), initial=0)
    return [(joined_into(e)[n : n + len(p)], p) for n, p in zip(starts, e.args[0], strict=False)]


def can_be_made_there(a: HostArray, d: HostArray, k: int, uses: Uses, moves: Moves, free: frozenset[int]) -> bool:
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
    """Join no arrays that lie side by side already."""
    uses = Uses(entries)
    moves = Moves()
    gone = set()
    for k, e in enumerate(entries):
        if not joins_rows(e):
            continue
        pieces, out = e.args[0], joined_into(e)
        home, target = root_of(pieces[0]), root_of(out)
        if not moves.possible(target, home, free) or out.nbytes != target.nbytes or out.dtype != home.dtype:
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
        self.places: dict[int, HostArray] = {}
        self.homes: set[int] = set()

    def possible(self, root: HostArray, home: HostArray, free: frozenset[int]) -> bool:
        """Whether one buffer may become a part of another: both are free, and neither moves nor is moved into.

        A home may take several; what has moved is no home any more: its memory is another's.
        """
        if root is home or id(root) in self.places or id(root) in self.homes or id(home) in self.places:
            return False
        return bool(id(root) in free and id(home) in free and home.flags.c_contiguous and root.dtype == home.dtype)

    def add(self, root: HostArray, place: HostArray) -> None:
        self.places[id(root)] = place
        self.homes.add(id(root_of(place)))

    def done(self, entries: list[Entry]) -> list[Entry]:
        """The entries, with every array at its place."""
        made: dict[int, HostArray] = {}

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
