"""Bands of pitch, against what a tone, noise and silence must give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import log_mel, mel_filters
from tinygrad_rnn.data.sound import QUIET
from tinygrad_rnn.errors import DTypeError, InputError, ShapeError

RATE = 8000


def tone(frequency: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@given(size=st.integers(512, 1000), bands=st.integers(1, 12), rate=st.sampled_from([8000, 16000, 44100]))
def test_filters_are_triangles_that_add_up_to_one(size: int, bands: int, rate: int) -> None:
    filters = mel_filters(bands, size, rate)
    assert filters.shape == (bands, size // 2 + 1) and (filters >= 0).all() and (filters <= 1).all()
    middles = 700 * (10 ** (2595 * math.log10(1 + rate / 1400) * np.arange(1, bands + 1) / (bands + 1) / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * rate / size
    between = (frequencies >= middles[0]) & (frequencies <= middles[-1])
    assert np.allclose(filters.sum(axis=0)[between], 1)
    for row, middle in zip(filters, middles, strict=True):
        assert (np.diff(row[frequencies <= middle]) >= 0).all() and (np.diff(row[frequencies >= middle]) <= 0).all()


@given(frequency=st.floats(200, 3600), loud=st.floats(0.01, 1))
def test_a_tone_is_loudest_in_its_band(frequency: float, loud: float) -> None:
    found = log_mel(loud * tone(frequency), RATE, bands=20)
    middles = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + 4000 / 700), 22)[1:-1] / 2595) - 1)
    assert found.shape == (1 + (4000 - 256) // 128, 20) and found.dtype == np.float32
    nearest = np.argsort(np.abs(middles - frequency))[:2]
    assert set(found.argmax(axis=1).tolist()) <= set(nearest.tolist())
    louder = log_mel(tone(frequency), RATE, bands=20)
    assert np.allclose(found.max(axis=1), louder.max(axis=1) + 2 * math.log(loud), atol=1e-3)


def test_the_power_is_that_of_the_samples() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 80_000)
    power = np.exp(log_mel(noise, RATE, bands=30)).mean(axis=0)
    width = mel_filters(30, 256, RATE).sum(axis=1)  # in frequencies, of which 128 share the mean square of 1/3
    assert np.allclose(power / width, 1 / 3 / 128, rtol=0.15)


def test_silence_and_what_is_short() -> None:
    assert np.allclose(log_mel(np.zeros(8000), RATE), math.log(QUIET))
    assert log_mel([0.5], RATE).shape == (1, 40)
    assert log_mel(np.ones(256 + 128), RATE).shape == (2, 40)
    assert log_mel(np.ones(256 + 127), RATE).shape == (1, 40)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), None, "8000", [8000], 1e300])
def test_rates_times_and_sizes_that_are_none(wrong: Any) -> None:
    for call in (
        lambda: log_mel(np.zeros(8000), wrong),
        lambda: log_mel(np.zeros(8000), RATE, window=wrong),
        lambda: log_mel(np.zeros(8000), RATE, hop=wrong),
        lambda: log_mel(np.zeros(8000), RATE, bands=wrong if wrong != 1e300 else 2.5),
        lambda: mel_filters(4, wrong if wrong != 1e300 else 2.5, RATE),
        lambda: mel_filters(4, 256, wrong if wrong != 1e300 else 0),
    ):
        with pytest.raises((InputError, DTypeError)):
            call()


def test_what_is_wrong() -> None:
    with pytest.raises(ShapeError, match=r"log_mel: samples must be \(N,\), got shape \(2, 3\)"):
        log_mel(np.ones((2, 3)), RATE)
    with pytest.raises(InputError, match="no sound in a waveform of 0 samples"):
        log_mel([], RATE)
    with pytest.raises(
        InputError, match=r"a window of 0.0001 s and a hop of 0.016 s are 1 and 128 samples at 8,000 Hz"
    ):
        log_mel([1.0], RATE, window=0.0001)
    with pytest.raises(InputError, match="bands must be a whole number of at least 1, not 0"):
        log_mel([1.0], RATE, bands=0)
    with pytest.raises(InputError, match="200 bands are too many for windows of 256 samples"):
        log_mel([1.0], RATE, bands=200)
