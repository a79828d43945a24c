"""The n-gram models against a slow reading of their definition, and as probability distributions; lzma."""

from __future__ import annotations

import lzma
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import Vocabulary, default_text, split_held_out
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.baselines import NGram, lzma_bits, measure_baselines

IDS = st.lists(st.integers(0, 3), min_size=4, max_size=40).map(lambda x: np.array(x, dtype=np.int32))
DISCOUNTS = st.tuples(*[st.floats(0.05, 0.99)] * 3)


def kneser_ney(train: list[int], context: list[int], c: int, discounts: tuple[float, ...], size: int) -> float:
    """p(c | context) of the module's docstring, by dictionaries and recursion."""
    n = len(discounts)

    def count(string: tuple[int, ...]) -> int:
        length = len(string)
        places = [i for i in range(len(train) - length + 1) if tuple(train[i : i + length]) == string]
        if length == n:
            return len(places)
        # Shorter strings count what is seen before them, where a whole window of n ends with them.
        return len({train[i - 1] for i in places if i + length >= n})

    def p(context: tuple[int, ...]) -> float:
        order = len(context) + 1
        shorter = 1 / size if order == 1 else p(context[1:])
        counts = {x: count((*context, x)) for x in range(size)}
        total = sum(counts.values())
        if not total:
            return shorter
        d = discounts[order - 1]
        followers = sum(1 for k in counts.values() if k)
        return max(counts[c] - d, 0) / total + d * followers / total * shorter

    return p(tuple(context[-(n - 1) :]))


@given(IDS, IDS, DISCOUNTS)
def test_equals_the_definition(train: np.ndarray, text: np.ndarray, discounts: tuple[float, ...]) -> None:
    model = NGram(train, 3, 4, discounts)
    before = train[-3:]
    got = model.probabilities(before, text)
    whole = [*before.tolist(), *text.tolist()]
    for i in range(len(text)):
        context = whole[: len(before) + i]
        assert got[i] == pytest.approx(kneser_ney(train.tolist(), context, int(text[i]), discounts, 4))


@given(IDS, DISCOUNTS, st.lists(st.integers(0, 3), max_size=4))
def test_probabilities_of_all_characters_sum_to_one(
    train: np.ndarray, discounts: tuple[float, ...], context: list[int]
) -> None:
    model = NGram(train, 3, 4, discounts)
    before = np.array(context, dtype=np.int32)
    total = sum(model.probabilities(before, np.array([c], dtype=np.int32))[0] for c in range(4))
    assert total == pytest.approx(1) if len(context) >= 2 else total > 0


def test_a_regular_text_is_predicted_and_a_random_one_is_not() -> None:
    regular = np.tile(np.arange(5, dtype=np.int32), 100)
    assert NGram.fit(regular, 3, 5).bits(regular, regular) < 0.02
    coins = np.random.default_rng(0).integers(2, size=20_000).astype(np.int32)
    assert NGram.fit(coins[:19_000], 3, 2).bits(coins[:19_000], coins[19_000:]) == pytest.approx(1, abs=0.01)


def test_what_makes_no_model() -> None:
    ids = np.zeros(10, dtype=np.int32)
    for train, n, size, discounts in [
        (ids[:2], 3, 4, (0.5,) * 3),
        (ids, 3, 2**22, (0.5,) * 3),
        (ids, 2, 4, (0.5,)),
    ]:
        with pytest.raises(InputError):
            NGram(train, n, size, discounts)


def test_lzma() -> None:
    rng = np.random.default_rng(0)
    noise = "".join(chr(97 + i) for i in rng.integers(16, size=4000))
    alone, given_ = lzma_bits(noise, noise)
    assert alone > 3.9 and given_ < 0.3
    assert alone == 8 * len(lzma.compress(noise.encode(), preset=9 | lzma.PRESET_EXTREME)) / len(noise)


def test_the_comparison_on_the_default_text() -> None:
    text = default_text()
    vocabulary = Vocabulary.of(text)
    found = measure_baselines(vocabulary, *split_held_out(vocabulary.encode(text)))
    bits = {b.name: b.bits_per_char for b in found}
    assert 2.3 < bits["3-gram"] < 2.6 and 1.8 < bits["4-gram"] < 2.2
    assert bits["lzma + training part"] < bits["lzma"] < 2.3


def test_of_a_huge_text_the_last_part_is_read_and_of_a_tiny_one_nothing() -> None:
    vocabulary = Vocabulary("ab")
    ids = np.arange(300, dtype=np.int32) // 100 % 2
    of_all, of_last = (measure_baselines(vocabulary, ids, ids[:50], most) for most in (300, 100))
    assert of_last == [
        replace(b, how=b.how.replace("the training", "the last 100 characters of the training"))
        for b in measure_baselines(vocabulary, ids[-100:], ids[:50])
    ]
    assert [b.bits_per_char for b in of_last] != [b.bits_per_char for b in of_all]
    assert measure_baselines(vocabulary, ids, ids[:0]) == []
    assert [b.name for b in measure_baselines(vocabulary, ids[:30], ids[:30])] == ["lzma", "lzma + training part"]
