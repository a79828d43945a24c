"""Examples as batches: which ones stand together, sequences of different lengths as one array, splits, and windows.

All of it is arrays of numbers of examples, `x[batch]` or `[texts[i] for i in batch]`, so it goes with any data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.scalars import as_integer, as_integers, number, whole
from tinygrad_rnn.tensor.backend import fitting, real

Numbers = npt.NDArray[np.int64]


def pad_sequences(
    sequences: Sequence[npt.ArrayLike], value: float = 0, *, batch_first: bool = False, multiple: int = 1
) -> tuple[npt.NDArray[Any], Numbers]:
    """Sequences (T_i, ...) padded to one array (T, B, ...), or (B, T, ...) with `batch_first`, and their lengths (B,).

    T is the length of the longest, or the next `multiple` of a number: so batches have few shapes, of each of which
    `tr.compile` makes a recording. Past the end of a shorter one stands `value`. The lengths are what the recurrent
    layers and `sequence_mask` take. Raises InputError if there is no sequence, one is empty, or the axes after the
    first differ; DTypeError for what no tensor holds, and for a `value` that the sequences' dtype does not; ValueError
    for a `multiple` below 1.

        >>> ids, lengths = pad_sequences([[1, 2, 3], [4]])
        >>> ids.tolist(), lengths.tolist()
        ([[1, 4], [2, 0], [3, 0]], [3, 1])
        >>> pad_sequences([[1, 2, 3], [4]], multiple=5)[0].shape
        (5, 2)
    """
    if (step := as_integer(multiple)) is None or step < 1:
        raise ValueError(f"T is a multiple of at least 1, not of {multiple!r}")
    arrays: list[Any] = [real(sequence) for sequence in sequences]
    if not arrays:
        raise InputError("no sequences to make a batch of")
    tail = arrays[0].shape[1:]
    for k, array in enumerate(arrays):
        if not array.ndim or not len(array):
            raise InputError(f"sequence {k} of the batch is empty")
        if array.shape[1:] != tail:
            raise InputError(f"sequence {k} of the batch has entries of shape {array.shape[1:]}, the first one {tail}")
    lengths = np.array([len(array) for array in arrays])
    dtype = np.result_type(*arrays)
    filling = fitting("pad_sequences: value", value, dtype)
    padded = np.full((-(-int(lengths.max()) // step) * step, len(arrays), *tail), filling, dtype)
    for k, array in enumerate(arrays):
        padded[: len(array), k] = array
    return (padded.swapaxes(0, 1) if batch_first else padded), lengths


class Batches:
    """An endless series of batches, by number: `batches[n]` are the numbers of the examples of training step n.

    In each epoch, `epoch_length` batches, every example stands in one batch; the last one may be smaller. Which
    ones stand together depends on `seed` and the epoch only, so the position in the data is one integer.

    Arguments:
        lengths: those of the examples, (N,), for batches of about equally long ones, which need little padding; or N,
            where that does not matter.
        batch: how many examples are in one.
        seed: of the shuffling.
        pool: how many batches' worth of random examples are sorted by length and cut into batches. More mean less
            padding and less chance; 1 means no sorting.

    Raises InputError if there are no examples.

        >>> batches = Batches([3, 9, 3, 8, 9, 3], batch=3)
        >>> sorted(map(sorted, (batches[0].tolist(), batches[1].tolist())))
        [[0, 2, 5], [1, 3, 4]]
    """

    def __init__(self, lengths: int | npt.ArrayLike, batch: int, seed: int = 0, pool: int = 50) -> None:
        count = as_integer(lengths)
        self.lengths = np.array(real(lengths)) if count is None else np.zeros(count, np.int64)
        if self.lengths.ndim != 1 or not len(self.lengths):
            raise InputError("no examples to make batches of")
        sizes, chosen = as_integers((batch, pool)), as_integer(seed)
        if sizes is None or min(sizes) < 1:
            raise ValueError(f"batch and pool are at least 1, not {batch!r} and {pool!r}")
        if chosen is None:
            raise ValueError(f"a seed is an integer, not {seed!r}")
        (self.batch, self.pool), self.seed = sizes, chosen
        self.epoch_length = -(-len(self.lengths) // self.batch)
        self._epoch: tuple[int, list[Numbers]] = (-1, [])

    def __getitem__(self, n: int) -> Numbers:
        epoch, place = divmod(whole("the number of a batch", n), self.epoch_length)
        return self.epoch(epoch)[place]

    def epoch(self, k: int = 0) -> list[Numbers]:
        """All batches of epoch `k`, in which every example stands once."""
        if self._epoch[0] != k:
            rng = np.random.default_rng((self.seed, k))
            order = rng.permutation(len(self.lengths))
            place = np.arange(len(order)) // (self.batch * self.pool)
            order = order[np.lexsort((self.lengths[order], place))]  # by length, but inside a pool; stable
            cut = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
            self._epoch = (k, [cut[i] for i in rng.permutation(len(cut))])
        return self._epoch[1]


def split_at_random(count: int, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> list[Numbers]:
    """The numbers 0 ... count - 1 in parts that have these fractions of them: to train on, to choose by, to test.

    Sorted in each part. Raises InputError for fractions that are not positive or do not add up to 1, and if a part
    would be empty.

        >>> [len(part) for part in split_at_random(50)]
        [40, 5, 5]
    """
    count, seed = whole("the number of examples", count), whole("a seed", seed)
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(order[part]) for part in _parts(count, fractions)]


def split_in_time(count: int, fractions: Sequence[float] = (0.8, 0.1, 0.1), gap: int = 0) -> list[Numbers]:
    """The numbers 0 ... count - 1 in consecutive parts that have these fractions of them: what is tested comes last.

    The first `gap` of every part but the first are left out, so that windows of up to `gap` + 1 steps that end in
    different parts have no step in common. Raises InputError as `split_at_random` does, and for a gap that leaves
    nothing of a part.

        >>> [part.tolist() for part in split_in_time(10, (0.5, 0.5), gap=2)]
        [[0, 1, 2, 3, 4], [7, 8, 9]]
    """
    count, gap = whole("the number of steps", count), whole("a gap", gap)
    parts = _parts(count, fractions)
    shortest = min(p.stop - p.start for p in parts[1:]) if parts[1:] else count
    if not 0 <= gap < shortest:
        raise InputError(f"a gap of {gap} steps leaves nothing of a part of {shortest}")
    return [np.arange(part.start + gap * (k > 0), part.stop) for k, part in enumerate(parts)]


def folds(count: int, k: int = 5, seed: int = 0) -> list[tuple[Numbers, Numbers]]:
    """The pairs (train, test) of k-fold cross-validation, of the numbers 0 ... count - 1.

    Every number is in one of the tests, which are equally large to within one. Raises InputError unless k is from 2 to
    `count`.

        >>> [(len(train), len(test)) for train, test in folds(5, 2)]
        [(2, 3), (3, 2)]
    """
    count, k, seed = whole("the number of examples", count), whole("the number of folds", k), whole("a seed", seed)
    if not 2 <= k <= count:
        raise InputError(f"{count} examples do not fall into {k} folds, which are at least 2")
    tests = [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(count), k)]
    return [(np.setdiff1d(np.arange(count), test, assume_unique=True), test) for test in tests]


def last_values(x: npt.ArrayLike, count: int, *, mode: Literal["constant", "edge"] = "constant") -> npt.NDArray[Any]:
    """A window at each step of `x` (T, ...): its value there and the `count` - 1 before it, (T, ..., count).

    The newest value is the last. Before the first step stand zeros or, with the `mode` "edge", the first value, as in
    `np.pad`. A view of one copy. Raises InputError if there are no steps, and ValueError for a `count` below 1.

        >>> last_values([5, 6, 7], 2).tolist()
        [[0, 5], [5, 6], [6, 7]]
    """
    values: Any = real(x)
    if not values.ndim or not len(values):
        raise InputError("a series without a step has no last values")
    if (width := as_integer(count)) is None or width < 1:
        raise ValueError(f"at least 1 value, not {count!r}")
    if mode not in ("constant", "edge"):  # others would look at later steps
        raise ValueError(f'mode must be "constant" or "edge", not {mode!r}')
    padded = np.pad(values, [(width - 1, 0), *[(0, 0)] * (values.ndim - 1)], mode=mode)
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)


def _parts(count: int, fractions: Sequence[float]) -> list[slice]:
    if not isinstance(fractions, Sequence | np.ndarray) or isinstance(fractions, str | bytes):
        raise InputError(f"the fractions of a split are a list of numbers, not {fractions!r:.80}")
    fractions = [number("a fraction of a split", f) for f in fractions]
    if not fractions or not min(fractions) > 0 or not abs(sum(fractions) - 1) <= 1e-9:
        raise InputError(f"the fractions of a split are positive and add up to 1, not {tuple(fractions)}")
    ends = [0, *(round(count * f) for f in np.cumsum(fractions))]
    parts = [slice(a, b) for a, b in pairwise(ends)]
    if any(part.start == part.stop for part in parts):
        raise InputError(f"{count} examples are too few for parts of {', '.join(map(str, fractions))}")
    return parts
