"""Choosing characters: the distribution asked for, and the same text for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.data import Vocabulary
from tinygrad_rnn.decoding import choose, generate
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.models import CharModel, CharModelConfig

SCORES = st.lists(st.floats(-30, 30), min_size=1, max_size=12).map(np.array)


@given(SCORES, st.integers(0, 9), st.floats(0.01, 5), st.integers(1, 15))
def test_only_the_top_k_are_chosen(scores: np.ndarray, seed: int, temperature: float, k: int) -> None:
    chosen = choose(scores, np.random.default_rng(seed), temperature, k)
    assert scores[chosen] >= np.sort(scores)[::-1][min(k, len(scores)) - 1]
    assert scores[choose(scores, np.random.default_rng(seed), 0)] == scores.max()
    assert choose(scores, np.random.default_rng(seed), temperature, 1) == scores.argmax()


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 2)])
def test_the_frequencies_are_those_of_the_softmax(temperature: float, top_k: int | None) -> None:
    scores = np.array([0.0, 1.0, -1.0, 0.5])
    p = np.exp(scores / temperature)
    if top_k:
        p[np.argsort(scores)[:-top_k]] = 0
    p /= p.sum()
    generator = np.random.default_rng(0)
    counts = np.bincount([choose(scores, generator, temperature, top_k) for _ in range(20_000)], minlength=4)
    assert np.allclose(counts / 20_000, p, atol=4 * np.sqrt(0.25 / 20_000))


@pytest.mark.parametrize(("temperature", "top_k"), [(-0.1, None), (float("nan"), None), (float("inf"), 3), (1, 0)])
def test_numbers_out_of_range(temperature: float, top_k: int | None) -> None:
    with pytest.raises(InputError):
        choose(np.zeros(3), np.random.default_rng(0), temperature, top_k)


def model(cell: str = "lstm") -> tuple[CharModel, Vocabulary]:
    tr.manual_seed(0)
    return CharModel(CharModelConfig(4, cell, embedding=3, hidden=5)), Vocabulary("\nabc")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_same_seed_writes_the_same_text(cell: str) -> None:
    network, vocabulary = model(cell)

    def text(seed: int) -> str:
        return "".join(generate(network, vocabulary, "ab", 50, 1.0, seed=seed))

    assert text(1) == text(1) != text(2)
    assert len(text(1)) == 50 and set(text(1)) <= set(vocabulary.characters)


def test_each_character_follows_from_all_before_it() -> None:
    network, vocabulary = model()
    written = "".join(generate(network, vocabulary, "ab", 6, temperature=0))
    for n in range(6):
        scores, _ = network(vocabulary.encode("ab" + written[:n])[:, None], None)
        assert written[n] == vocabulary.characters[int(scores.numpy()[-1, 0].argmax())]


def test_characters_come_as_they_are_made() -> None:
    network, vocabulary = model()
    stream = generate(network, vocabulary, length=10**12)
    assert len(list(itertools.islice(stream, 3))) == 3
    assert tr.is_recording()  # a generator that was left alone changes nothing outside
    stream.close()
    assert tr.is_recording()


def test_the_prompt_must_be_known() -> None:
    network, vocabulary = model()
    with pytest.raises(InputError, match="the prompt: character 'x' at position 1"):
        next(generate(network, vocabulary, "axb"))
