"""Where the buffers of a program lie: all in one block, and those that are not used at once at one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import address, root_of
from tinygrad_rnn.compiler.tape import Entry
from tinygrad_rnn.compiler.traced import arrays_in
from tinygrad_rnn.tensor.backend import HostArray

ALIGNMENT = 64  # bytes: a cache line


class Block:
    """Memory for the buffers that `entries` use. A buffer that nothing reads any more makes room for one of its size.

    That is less memory, and more of it in the cache.
    """

    def __init__(self, entries: Sequence[Entry], buffers: Iterable[HostArray]) -> None:
        self.offsets, self.nbytes = offsets_of(entries, buffers)
        block = np.empty(self.nbytes + ALIGNMENT, np.uint8)
        start = -address(block) % ALIGNMENT
        self.bytes = block[start : start + self.nbytes]
        self.placed: dict[int, HostArray] = {}

    def place(self, a: Any) -> Any:
        """An array in a buffer as the same view of the block; anything else as it is."""
        if not isinstance(a, np.ndarray):
            return a
        root = root_of(a)
        if id(root) not in self.offsets:
            return a
        if id(a) not in self.placed:
            at = self.offsets[id(root)] + address(a) - address(root)
            self.placed[id(a)] = np.ndarray(a.shape, a.dtype, self.bytes, at, a.strides) if a.size else a
        return self.placed[id(a)]


def offsets_of(entries: Sequence[Entry], buffers: Iterable[HostArray]) -> tuple[dict[int, int], int]:
    """The first byte in the block of each buffer that is used, by its id, and the size of the block."""
    sizes = {id(a): -(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in buffers}
    first, last = lifetimes(entries, sizes)
    begins, ends = by_entry(first), by_entry(last)
    offsets: dict[int, int] = {}
    free: dict[int, list[int]] = {}  # places by their size
    total = 0
    for k in range(len(entries)):
        for root in begins.get(k, ()):
            size = sizes[root]
            if free.get(size):
                offsets[root] = free[size].pop()
            else:
                offsets[root] = total
                total += size
        for root in ends.get(k, ()):
            free.setdefault(sizes[root], []).append(offsets[root])
    return offsets, total


def lifetimes(entries: Sequence[Entry], buffers: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
    """The numbers of the first and the last entry that use each of the buffers, given by their ids."""
    wanted = frozenset(buffers)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for k, e in enumerate(entries):
        for a in arrays_in((e.args, e.kwargs)):
            if (root := id(root_of(a))) in wanted:
                first.setdefault(root, k)
                last[root] = k
    return first, last


def by_entry(at: dict[int, int]) -> dict[int, list[int]]:
    """The buffers of each entry, from the entry of each buffer."""
    found: dict[int, list[int]] = {}
    for root, k in at.items():
        found.setdefault(k, []).append(root)
    return found
