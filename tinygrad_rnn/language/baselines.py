"""What a language model has to beat: n-gram models and a file compressor.

The n-gram models are interpolated Kneser-Ney (Chen and Goodman, "An empirical study of smoothing techniques
for language modeling", 1998, section 4.1.6, a discount per order). With N(s) how often the string s was seen,
and D(u) how many different characters followed u:

    p(c | u) = max(N(uc) - d, 0) / N(u)  +  d D(u) / N(u) * p(c | u without its oldest character)

down to p(c) = 1 / V. In all orders but the highest, N(s) counts the different characters seen before s
instead of s.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.vocabularies import Ids, Vocabulary
from tinygrad_rnn.errors import InputError

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _windows(ids: Ids, n: int, size: int) -> Codes:
    """Every string of n neighbouring ids as one integer, in base `size`, oldest id first; shape (len(ids) - n
    + 1,).
    """
    count = len(ids) - n + 1
    codes = np.zeros(max(count, 0), dtype=np.int64)
    for k in range(n):
        codes = codes * size + ids[k : k + count]
    return codes


@dataclass(frozen=True)
class _Order:
    """What was seen of one length: strings and their counts, contexts and their totals and numbers of
    followers.
    """

    strings: Codes
    counts: Floats
    contexts: Codes
    totals: Floats
    followers: Floats


@dataclass(frozen=True)
class _Evidence:
    """One order's view of a text, from its id number `skip` on; `new` is D(u) / N(u), `hit` says that u was
    seen.
    """

    skip: int
    count: Floats
    total: Floats
    new: Floats
    hit: npt.NDArray[np.bool_]


def _find(keys: Codes, wanted: Codes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each of `wanted` stands in the sorted `keys`, and whether it is there at all."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


class NGram:
    """A character n-gram model of the ids in `train`, over `size` different characters.

    `discounts` holds one number in [0, 1] per order, from 1 up to `n`; `NGram.fit` chooses them.

        >>> ids = np.array([0, 1] * 50, dtype=np.int32)
        >>> round(NGram(ids, n=2, size=2, discounts=(0.5, 0.5)).bits(ids[:80], ids[80:]), 3)
        0.007
    """

    def __init__(self, train: Ids, n: int, size: int, discounts: tuple[float, ...]) -> None:
        if not 1 <= n <= len(train):
            raise InputError(f"{len(train)} characters are too few for a {n}-gram model")
        if size**n > 2**62:
            raise InputError(f"{size} different characters are too many for a {n}-gram model")
        if len(discounts) != n:
            raise InputError(f"a {n}-gram model takes {n} discounts, not {len(discounts)}")
        self.n, self.size, self.discounts = n, size, discounts
        self.orders: list[_Order] = []
        codes = _windows(train, n, size)
        for order in range(n, 0, -1):
            strings, counts = np.unique(codes, return_counts=True)
            contexts, first = np.unique(strings // size, return_index=True)
            totals = np.add.reduceat(counts, first)
            followers = np.diff(np.append(first, len(strings)))
            self.orders.insert(
                0,
                _Order(strings, counts.astype(float), contexts, totals.astype(float), followers.astype(float)),
            )
            codes = strings % size ** (order - 1)  # each different string once, without its oldest character

    def _evidence(self, before: Ids, ids: Ids) -> list[_Evidence]:
        """What each order knows about each of `ids`: the part of a prediction that no discount changes."""
        whole = np.concatenate([before[len(before) - min(len(before), self.n - 1) :], ids])
        found = []
        for order, seen in enumerate(self.orders, start=1):
            codes = _windows(whole, order, self.size)[-len(ids) :]
            at, hit = _find(seen.contexts, codes // self.size)
            total = np.where(hit, seen.totals[at], 1)
            new = np.where(hit, seen.followers[at] / total, 1)  # an unseen context leaves all to the shorter ones
            at, known = _find(seen.strings, codes)
            # The first ids may have too little before them for this order.
            found.append(_Evidence(len(ids) - len(codes), np.where(known, seen.counts[at], 0), total, new, hit))
        return found

    def _mix(self, evidence: list[_Evidence], length: int) -> Floats:
        p = np.full(length, 1.0 / self.size)
        for e, d in zip(evidence, self.discounts, strict=True):
            p[e.skip :] = np.maximum(e.count - d, 0) / e.total + np.where(e.hit, d, 1) * e.new * p[e.skip :]
        return p

    def probabilities(self, before: Ids, ids: Ids) -> Floats:
        """The probability of each of `ids` given all that stands before it (`before` first); shape
        (len(ids),).
        """
        return self._mix(self._evidence(before, ids), len(ids))

    def bits(self, before: Ids, ids: Ids) -> float:
        """Bits per character: the mean of -log2 of the probabilities."""
        return float(-np.log2(self.probabilities(before, ids)).mean())

    @classmethod
    def fit(cls, train: Ids, n: int, size: int) -> NGram:
        """The model with the discounts that do best on the last tenth of `train`.

        They are chosen order by order on a model of the first nine tenths; the model returned is of all of
        `train`.
        """
        cut = len(train) - max(1, len(train) // 10)
        fitting, checking = train[:cut], train[cut:]
        grid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99]
        model = cls(fitting, n, size, (0.75,) * n)
        evidence = model._evidence(fitting, checking)
        for order in [*range(n)] * 2:
            trials = []
            for d in grid:
                model.discounts = (*model.discounts[:order], d, *model.discounts[order + 1 :])
                trials.append((float(-np.log2(model._mix(evidence, len(checking))).mean()), model.discounts))
            model.discounts = min(trials)[1]
        return cls(train, n, size, model.discounts)


def lzma_bits(before: str, text: str) -> tuple[float, float]:
    """Bits per character that `lzma` needs for `text` alone, and after it has read `before` as well.

    The second is the size of both together less the size of `before`.

        >>> alone, given = lzma_bits("abcdefgh" * 100, "abcdefgh" * 100)
        >>> alone > 0.5 > given
        True
    """

    def size(s: str) -> int:
        raw = s.encode("utf-8", "surrogatepass")
        best = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}
        return len(lzma.compress(raw, filters=[{**best, "dict_size": max(4096, len(raw))}]))  # which takes less memory

    return 8 * size(text) / len(text), 8 * (size(before + text) - size(before)) / len(text)


@dataclass(frozen=True)
class Baseline:
    """One line of the comparison: a name, bits per character of the held-out text, and how measured."""

    name: str
    bits_per_char: float
    how: str


def measure_baselines(vocabulary: Vocabulary, train: Ids, held_out: Ids, most: int = 2_000_000) -> list[Baseline]:
    """A 3-gram and a 4-gram model and lzma, alone and given the training part, on the held-out ids.

    Of the training part they learn from the last `most` characters, about a second a million. What a text is too short
    for is left out.

        >>> text = "the cat sat on the mat; " * 20
        >>> vocabulary = Vocabulary.of(text)
        >>> ids = vocabulary.encode(text)
        >>> [b.name for b in measure_baselines(vocabulary, ids[:400], ids[400:])]
        ['3-gram', '4-gram', 'lzma', 'lzma + training part']
    """
    if not len(held_out):
        return []
    part = "the training part" if len(train) <= most else f"the last {most:,} characters of the training part"
    found, train = [], train[-most:]
    for n in (3, 4):
        if len(train) > 10 * n and len(vocabulary) ** n < 2**62:
            model = NGram.fit(train, n, len(vocabulary))
            how = f"Kneser-Ney, discounts chosen on the end of {part}"
            found.append(Baseline(f"{n}-gram", model.bits(train, held_out), how))
    alone, given = lzma_bits(vocabulary.decode(train), vocabulary.decode(held_out))
    found.append(Baseline("lzma", alone, "the held-out text compressed by itself"))
    found.append(Baseline("lzma + training part", given, f"what it adds when compressed after {part}"))
    return found
