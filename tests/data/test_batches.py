"""Padding, batches by number, and splits: nothing is lost, nothing is twice, and a seed means the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.data import Batches, folds, last_values, pad_sequences, split_at_random, split_in_time
from tinygrad_rnn.errors import InputError


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([(), (2,), (0,)]), st.booleans())
def test_padding_keeps_every_sequence(lengths: list[int], tail: tuple[int, ...], batch_first: bool) -> None:
    sequences = [np.random.default_rng(n).standard_normal((n, *tail)).astype("f") for n in lengths]
    padded, found = pad_sequences(sequences, -7, batch_first=batch_first)
    assert found.tolist() == lengths and padded.dtype == np.float32
    x = padded.swapaxes(0, 1) if batch_first else padded
    assert x.shape == (max(lengths), len(lengths), *tail)
    for b, (sequence, n) in enumerate(zip(sequences, lengths, strict=True)):
        assert (x[:n, b] == sequence).all() and (x[n:, b] == -7).all()


def test_padded_ids_go_into_a_layer() -> None:
    ids, lengths = pad_sequences([[1, 2, 3], [4]])
    assert ids.dtype.kind == "i"
    y, _ = tr.nn.LSTM(3, 2)(tr.nn.Embedding(5, 3, padding_idx=0)(ids), lengths=lengths)
    assert y.shape == (3, 2, 2) and (y.numpy()[1:, 1] == 0).all()


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "no sequences to make a batch of"),
        ([[1], []], "sequence 1 of the batch is empty"),
        ([1], "sequence 0 of the batch is empty"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"sequence 1 .* entries of shape \(4,\), the first one \(3,\)"),
    ],
)
def test_what_cannot_be_padded(sequences: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pad_sequences(sequences)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_every_example_stands_once_in_an_epoch(lengths: list[int], batch: int, pool: int, seed: int) -> None:
    batches = Batches(lengths, batch, seed, pool)
    assert batches.epoch_length == -(-len(lengths) // batch)
    for epoch in (0, 1, 0):
        found = [batches[epoch * batches.epoch_length + k] for k in range(batches.epoch_length)]
        assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
        sizes = sorted(map(len, found))
        assert sizes[1:] == [batch] * (len(sizes) - 1) and 1 <= sizes[0] <= batch
        assert all((a == b).all() for a, b in zip(found, batches.epoch(epoch), strict=True))
        again = Batches(np.array(lengths), batch, seed, pool)
        assert all((a == b).all() for a, b in zip(found, again.epoch(epoch), strict=True))


def test_epochs_and_seeds_differ() -> None:
    def told(batches: list[np.ndarray]) -> list[list[int]]:
        return [batch.tolist() for batch in batches]

    batches = Batches(100, 10)
    assert told(batches.epoch(0)) != told(batches.epoch(1))
    assert told(batches.epoch(0)) != told(Batches(100, 10, seed=1).epoch(0))
    assert told(Batches(100, 10, pool=1).epoch(0)) == told(batches.epoch(0))  # equally long ones need no sorting


def test_a_pool_puts_equally_long_ones_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 2000)

    def padding(pool: int) -> float:
        """What share of the padded batches is padding."""
        batches = Batches(lengths, 20, pool=pool).epoch()
        padded = sum(len(b) * lengths[b].max() for b in batches)
        return 1 - lengths.sum() / padded

    assert padding(100) < padding(50) < padding(10) < padding(1)
    assert padding(50) < 0.05 and padding(1) > 0.4
    first = [lengths[b].mean() for b in Batches(lengths, 20).epoch()]
    assert not (np.diff(first[:10]) >= 0).all()  # the batches themselves come in no order


def test_wrong_batches() -> None:
    for lengths in (0, [], [[1, 2]]):
        with pytest.raises(InputError, match="no examples"):
            Batches(lengths, 2)
    with pytest.raises(ValueError, match="batch and pool are at least 1, not 0 and 50"):
        Batches(3, 0)


FRACTIONS = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(lambda ns: [n / sum(ns) for n in ns])


@given(st.integers(40, 200), FRACTIONS, st.integers(0, 9))
def test_splits_hold_everything_once(count: int, fractions: list[float], seed: int) -> None:
    for parts in (split_at_random(count, fractions, seed), split_in_time(count, fractions)):
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        for part, fraction in zip(parts, fractions, strict=True):
            assert abs(len(part) - count * fraction) <= 1 and (np.diff(part) > 0).all()
    in_time = split_in_time(count, fractions)
    assert (np.concatenate(in_time) == np.arange(count)).all()
    again = split_at_random(count, fractions, seed)
    assert all((a == b).all() for a, b in zip(split_at_random(count, fractions, seed), again, strict=True))


def test_a_random_split_depends_on_its_seed_and_is_no_order() -> None:
    train, _, test = split_at_random(100)
    assert train.tolist() != split_at_random(100, seed=1)[0].tolist() and test.tolist() != list(range(90, 100))


@given(st.integers(30, 100), st.integers(0, 5))
def test_a_gap_keeps_windows_apart(count: int, gap: int) -> None:
    train, validation, test = split_in_time(count, (0.5, 0.25, 0.25), gap)
    for before, after in ((train, validation), (validation, test)):
        assert after[0] - before[-1] == gap + 1
    assert train[0] == 0 and test[-1] == count - 1


@given(st.integers(2, 60), st.data())
def test_folds(count: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(2, min(count, 8)))
    pairs = folds(count, k, seed=3)
    assert len(pairs) == k
    assert sorted(np.concatenate([test for _, test in pairs]).tolist()) == list(range(count))
    for train, test in pairs:
        assert sorted([*train, *test]) == list(range(count)) and len(test) in (count // k, -(-count // k))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda: split_at_random(10, (0.5, 0.6)), r"add up to 1, not \(0.5, 0.6\)"),
        (lambda: split_at_random(10, (1.5, -0.5)), "are positive"),
        (lambda: split_in_time(10, ()), "add up to 1"),
        (lambda: split_at_random(3, (0.8, 0.1, 0.1)), "3 examples are too few for parts of 0.8, 0.1, 0.1"),
        (lambda: split_in_time(10, (0.8, 0.2), gap=2), "a gap of 2 steps leaves nothing of a part of 2"),
        (lambda: split_in_time(10, (0.8, 0.2), gap=-1), "a gap must be a whole number of at least 0, not -1"),
        (lambda: folds(3, 4), "3 examples do not fall into 4 folds"),
        (lambda: folds(3, 1), "1 folds, which are at least 2"),
        (lambda: folds(3, 2.5), "the number of folds must be a whole number of at least 0, not 2.5"),
        (lambda: split_at_random(10, (0.5, float("nan"))), "add up to 1"),
        (lambda: split_at_random(10, "abc"), "are a list of numbers, not 'abc'"),
        (lambda: split_in_time(10, 0.5), "are a list of numbers, not 0.5"),
    ],
)
def test_wrong_splits(split: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split()


@pytest.mark.parametrize("shape", [(7,), (7, 2), (7, 2, 3)])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_last_values_are_those_before_each_step(shape: tuple[int, ...], count: int) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    zeros, edge = last_values(x, count), last_values(x, count, mode="edge")
    assert zeros.shape == edge.shape == (*shape, count)
    for t in range(7):
        for k in range(count):
            at = t - (count - 1) + k
            np.testing.assert_array_equal(zeros[t, ..., k], x[at] if at >= 0 else np.zeros(shape[1:]))
            np.testing.assert_array_equal(edge[t, ..., k], x[max(at, 0)])


def test_last_values_never_come_from_later_steps() -> None:
    for mode in ("wrap", "reflect", "symmetric", "maximum", "linear_ramp", None):
        with pytest.raises(ValueError, match='mode must be "constant" or "edge"'):
            last_values([5, 6, 7], 2, mode=mode)  # type: ignore[arg-type]


def test_what_has_no_last_values() -> None:
    with pytest.raises(InputError, match="without a step"):
        last_values(np.zeros((0, 3)), 2)
    with pytest.raises(ValueError, match="at least 1 value, not 0"):
        last_values([1.0], 0)
