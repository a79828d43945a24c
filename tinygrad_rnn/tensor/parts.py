"""The parts of a gradient that slices have pulled back, put where they belong or joined."""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.tensor.backend import namespace, scatter_add, widened, zeros_beside
from tinygrad_rnn.tensor.graph import Node, Part

_WHOLE = slice(None)


class Parts:
    """The parts that have come to a node: their total, and which of its rows they have met.

    Rows are those of the axis that the first part cuts. Where nothing was before, a part is put:
    that is faster than a sum, and 0 + g would have no -0.0. The pieces of a `split`, the last of
    which comes first, wait for one another and are joined, which is faster still.

    >>> import numpy as np
    >>> from tinygrad_rnn.tensor.graph import leaf
    >>> first, again = Part(np.array([1.0, 2.0]), 1, True), Part(np.array(3.0), (..., 0), True)
    >>> parts = Parts(leaf((3, 2), np.float64))
    >>> for part in (first, again):
    ...     parts.add(part)
    >>> parts.joined().tolist()
    [[3.0, 0.0], [4.0, 2.0], [3.0, 0.0]]
    """

    __slots__ = ("node", "pieces", "end", "total", "axis", "met")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pieces: list[Part] = []  # of the last axis, each ending where the one before begins
        self.end: int | None = None  # where the next of them would end
        self.total: Any = None  # while there is none, the pieces are all that has come

    def add(self, d: Part) -> None:
        """Keep a part that is the next piece; anything else ends that, and goes into the total."""
        if self.total is None:
            if d.basic and (cut := _piece(d.index)) and cut.stop == self.end:
                self.pieces.append(d)
                self.end = cut.start or 0
                return
            self.begin(d)
        self._put(d)

    def joined(self) -> Any:
        """All parts as one array."""
        if self.total is None and self.end == 0:
            xp = namespace(self.pieces[0].g)
            self.total = widened(xp.concat([piece.g for piece in self.pieces[::-1]], axis=-1))
        if self.total is None or self.total.shape != self.node.shape:  # not whole, or overlapping
            self.begin(self.pieces[0])
        return self.total

    def begin(self, d: Part) -> None:
        """Make the total, of zeros and the pieces."""
        node, first = self.node, self.pieces[0] if self.pieces else d
        self.total = widened(zeros_beside(first.g, node.shape, node.dtype))
        _, self.axis = cut_of(first.index, self.total.ndim) if first.basic else (_WHOLE, 0)
        self.met = bytearray(node.shape[self.axis] if node.shape else 1)
        for piece in self.pieces:
            self._put(piece)

    def _put(self, d: Part) -> None:
        """Put a part where it belongs, or add it to what is there."""
        index = d.index
        if not d.basic:
            self.is_first(...)
            self.total = scatter_add(self.total, index, d.g)
        elif self.is_first(index):
            self.total[index] = d.g
        elif (place := self.total[index]).ndim:
            place += d.g  # `total[index] += g` would copy the sum back
        else:
            self.total = scatter_add(self.total, index, d.g)

    def is_first(self, index: Any) -> bool:
        """Whether a basic index meets nothing that another has met before; from now on it has."""
        cut, axis = cut_of(index, self.total.ndim)
        if axis != self.axis:
            cut = _WHOLE
        met = self.met[cut]
        if type(cut) is int:
            self.met[cut] = 1
            return not met
        self.met[cut] = b"\1" * len(met)
        return 1 not in met


def _piece(index: Any) -> Any:
    """The slice of an index that cuts nothing but the last axis, as those of `split`; else None."""
    if type(index) is tuple and len(index) == 2 and index[0] is ... and type(index[1]) is slice:
        return index[1] if index[1].step is None else None
    return None


def cut_of(index: Any, ndim: int) -> tuple[Any, int]:
    """The first key of a basic index that takes less than all of its axis, and that axis.

    >>> cut_of((slice(None), 3, ...), 3), cut_of((..., 3), 3)
    ((3, 1), (3, 2))
    """
    if type(index) is not tuple:
        return (_WHOLE if index is ... else index), 0
    if type(index[0]) is int:  # nearly always: this or a piece of the last axis
        return index[0], 0
    if index[0] is ... and len(index) == 2:
        return index[1], ndim - 1
    for axis, key in enumerate(index):
        if key is ...:
            break
        if key != _WHOLE:
            return key, axis
    return _WHOLE, 0
