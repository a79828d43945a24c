"""Streams: every chunk continues the one before, and a chunk follows from its number alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import Streams, passage
from tinygrad_rnn.errors import InputError


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 60), st.integers(0, 5))
def test_chunks_continue_their_streams(batch: int, steps: int, extra: int, seed: int) -> None:
    ids = np.arange(batch * steps + 1 + extra, dtype=np.int32)
    streams = Streams(ids, batch, steps, seed)
    for n in range(3 * streams.epoch_length):
        chunk = streams[n]
        assert chunk.x.shape == chunk.y.shape == (steps, batch)
        assert np.array_equal(chunk.y, chunk.x + 1)  # the ids are their own positions
        assert chunk.fresh == (n % streams.epoch_length == 0)
        if not chunk.fresh:
            assert np.array_equal(chunk.x[0], streams[n - 1].y[-1])
        again = Streams(ids, batch, steps, seed)[n]
        assert np.array_equal(again.x, chunk.x)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 60))
def test_an_epoch_shows_nothing_twice_and_leaves_little_out(batch: int, steps: int, extra: int) -> None:
    ids = np.arange(batch * steps + 1 + extra, dtype=np.int32)
    streams = Streams(ids, batch, steps)
    for epoch in range(3):
        numbers = range(epoch * streams.epoch_length, (epoch + 1) * streams.epoch_length)
        seen = np.concatenate([streams[n].y.ravel() for n in numbers])
        assert len(np.unique(seen)) == len(seen)
        assert len(ids) - 1 - len(seen) < batch * steps + batch


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_a_short_text_is_refused(batch: int, steps: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, batch * steps))
    with pytest.raises(InputError, match="too short"):
        Streams(np.zeros(length, dtype=np.int32), batch, steps)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 9), st.integers(0, 12))
def test_a_passage_counts_every_held_out_id_once(before: int, held_out: int, batch: int, warm_up: int) -> None:
    ids = np.arange(before + held_out, dtype=np.int32)
    text = passage(ids[:before], ids[before:], batch, warm_up)
    assert sorted(text.y[text.counted].tolist()) == list(range(before, before + held_out))
    assert np.array_equal(text.x[text.counted] + 1, text.y[text.counted])
    # What is fed before a counted step is the text that stands before it.
    for column in range(text.x.shape[1]):
        fed = text.x[:, column]
        first = int(text.counted[:, column].argmax())
        if text.counted[first, column]:
            lead = fed[: first + 1]
            real = lead[np.maximum(0, len(lead) - 1 - int(lead[-1])) :]
            assert np.array_equal(np.diff(real), np.ones(len(real) - 1))


@pytest.mark.parametrize("wrong", [0, -1, 2.5, float("nan"), None, "2", True])
def test_a_batch_or_a_length_of_nothing_is_refused(wrong: Any) -> None:
    """Not even where two of them below 0 have a product above it."""
    ids = np.arange(50, dtype=np.int32)
    for batch, steps in ((wrong, 5), (2, wrong), (wrong, wrong)):
        with pytest.raises(InputError, match="must be a whole number of at least 1"):
            Streams(ids, batch, steps)
    with pytest.raises(InputError, match="the batch of a passage must be"):
        passage(ids, ids, wrong)
    assert Streams(ids, np.int64(2), np.uint8(5)).epoch_length == Streams(ids, 2, 5).epoch_length == 4
