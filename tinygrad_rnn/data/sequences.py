"""One long sequence as B parallel streams, cut into chunks of T steps, so that state can be carried along.

stream 0   a b c | d e f | g h i        chunk 0 is a b c / j k l, chunk 1 continues both streams, ...
stream 1   j k l | m n o | p q r        (T = 3, B = 2; the targets are the same letters one step later)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygrad_rnn.data.vocabularies import Ids, integers
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.scalars import whole


@dataclass(frozen=True)
class Chunk:
    """`x` and `y`, ids of shape (T, B), `y` one step after `x`; `fresh` if no earlier chunk leads up to it.

    A fresh chunk begins with a zero state, every other one with the state that the chunk before it ended in.
    """

    x: Ids
    y: Ids
    fresh: bool


class Streams:
    """An endless series of chunks over one sequence, by number: `streams[n]` is the chunk of training step n.

    Which chunk it is depends on `n`, the sequence and `seed` only, so the position in the data is one
    integer. One epoch is `epoch_length` chunks; the next one starts at another offset (less than T), so that
    a chunk does not always break at the same places.

    Raises InputError if the sequence is too short for even one chunk, or `batch` or `steps` is below 1.

        >>> streams = Streams(np.arange(21, dtype=np.int32), batch=2, steps=5)
        >>> streams[0].x.T.tolist(), streams[0].y.T.tolist()
        ([[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]], [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]])
        >>> streams[1].x.T.tolist(), streams[1].fresh
        ([[5, 6, 7, 8, 9], [15, 16, 17, 18, 19]], False)
    """

    def __init__(self, ids: Ids, batch: int, steps: int, seed: int = 0) -> None:
        batch, steps = whole("the batch of streams", batch, 1), whole("the steps of a chunk", steps, 1)
        self.ids, self.batch, self.steps, self.seed = integers("Streams: ids", ids), batch, steps, whole("a seed", seed)
        self.stride = (len(ids) - 1) // batch
        self.epoch_length = self.stride // steps
        if self.epoch_length < 1:
            raise InputError(
                f"the text is too short: {len(ids):,} characters to train on, and {batch} sequences of "
                f"{steps} need at least {batch * steps + 1:,}",
                hint="choose a smaller batch or shorter sequences",
            )

    def __getitem__(self, n: int) -> Chunk:
        epoch, place = divmod(whole("the number of a chunk", n), self.epoch_length)
        slack = (len(self.ids) - 1) - (self.batch - 1) * self.stride - self.epoch_length * self.steps
        spare = min(self.steps, slack + 1)
        offset = int(np.random.default_rng((self.seed, epoch)).integers(spare)) if epoch else 0
        starts = offset + place * self.steps + self.stride * np.arange(self.batch)
        at = starts + np.arange(self.steps + 1)[:, None]
        window = np.asarray(self.ids[at], dtype=np.int32)
        return Chunk(window[:-1], window[1:], fresh=place == 0)


@dataclass(frozen=True)
class Passage:
    """A held-out text for measuring: ids `x` and `y` of shape (T, B), and `counted`, the mask of the targets that are
    measured, (T, B).
    """

    x: Ids
    y: Ids
    counted: np.ndarray


def passage(before: Ids, held_out: Ids, batch: int, warm_up: int = 128) -> Passage:
    """The text `held_out` in `batch` parallel streams, each led by the `warm_up` ids before it, which do not count.

    `before` is the text that stands before `held_out`. Every held-out id is a counted target exactly once, and is
    predicted from what really stands before it: when the counting starts, the state of a stream is no longer zero.
    Raises InputError for a `batch` below 1 or a `warm_up` below 0.

        >>> p = passage(np.arange(4, dtype=np.int32), np.arange(4, 10, dtype=np.int32), batch=2, warm_up=1)
        >>> p.y.T.tolist(), p.counted.T.astype(int).tolist()
        ([[3, 4, 5, 6], [6, 7, 8, 9]], [[0, 1, 1, 1], [0, 1, 1, 1]])
    """
    batch, warm_up = whole("the batch of a passage", batch, 1), whole("the warm-up of a passage", warm_up)
    before, held_out = integers("passage: before", before), integers("passage: held_out", held_out)
    text = np.concatenate([before[-(warm_up + 1) :], held_out]).astype(np.int32)
    first = len(text) - len(held_out)
    batch = max(1, min(batch, len(held_out)))
    length = -(-len(held_out) // batch)
    at = (first + length * np.arange(batch)) + np.arange(-warm_up, length)[:, None]
    ends = first + np.minimum(length * np.arange(1, batch + 1), len(held_out))
    counted = (np.arange(-warm_up, length)[:, None] >= 0) & (at < ends) & (at > 0)
    at = np.clip(at, 1, len(text) - 1)  # past either end there is nothing to measure: any id will do
    return Passage(text[at - 1], text[at], counted)
