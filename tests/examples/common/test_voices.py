"""Synthetic speech: as asked for, the same for the same seed, and with the pitch and formants that it should have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.common.voices import DIGITS, RATE, Voice, shape_spectrum, speak
from tinygrad_rnn.errors import InputError, ShapeError


@settings(max_examples=20)
@given(words=st.lists(st.sampled_from(list(DIGITS)), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_words_follow_each_other_and_a_seed_says_how(words: list[str], seed: int) -> None:
    said, again = (
        speak(words, Voice.draw(rng), rng) for rng in (np.random.default_rng(seed), np.random.default_rng(seed))
    )
    assert said.words == words and len(said.ends) == len(words)
    assert (np.diff([0, *said.ends, len(said.samples) / RATE]) > 0).all()
    assert np.isfinite(said.samples).all() and 0.3 < np.abs(said.samples).max() < 1
    assert np.array_equal(said.samples, again.samples) and said.ends == again.ends


def spectrum(samples: np.ndarray) -> np.ndarray:
    """The power at each Hz."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)), RATE)) ** 2


@pytest.mark.parametrize("pitch", [100, 230])
def test_the_voice_has_its_pitch(pitch: float) -> None:
    said = speak(["nine"], Voice(pitch, background=0), np.random.default_rng(0))
    sound = said.samples[: int(said.ends[0] * RATE)]
    together = np.correlate(sound, sound, "full")[len(sound) :]  # from a lag of 1
    lags = np.arange(RATE // 300, RATE // 70)
    assert RATE / (1 + lags[together[lags].argmax()]) == pytest.approx(pitch, rel=0.15)


def test_formants_move_with_the_throat_and_hissing_is_high() -> None:
    def centre(word: str, voice: Voice) -> float:
        power = spectrum(speak([word], voice, np.random.default_rng(1)).samples)[200:]
        return float((power * np.arange(200, 200 + len(power))).sum() / power.sum())

    small, large = (centre("one", Voice(scale=scale, background=0)) for scale in (1.2, 0.85))
    assert small > 1.1 * large
    assert centre("six", Voice()) > 1.5 * centre("one", Voice())


def test_speed_and_noise() -> None:
    slow, fast = (speak(["two", "six"], Voice(speed=speed), np.random.default_rng(2)) for speed in (0.8, 1.3))
    assert 1.3 < slow.ends[-1] / fast.ends[-1] < 1.8
    quiet, loud = (speak(["two"], Voice(background=b), np.random.default_rng(2)).samples for b in (0, 0.1))
    assert (loud - quiet).std() == pytest.approx(0.03, rel=0.1)


def test_words_that_cannot_be_spoken() -> None:
    with pytest.raises(InputError, match="'ten' cannot be spoken; the words are zero, one"):
        speak(["one", "ten"], Voice(), np.random.default_rng(0))
    with pytest.raises(InputError, match="nothing to say"):
        speak([], Voice(), np.random.default_rng(0))


@given(count=st.integers(1, 500), hop=st.integers(1, 40), seed=st.integers(0, 99))
def test_gains_shape_each_moment(count: int, hop: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=count)
    rows = 1 + -(-count // hop)
    assert np.allclose(shape_spectrum(x, np.ones((rows, hop + 1))), x)
    loud = np.linspace(0, rows - 1, rows)[:, None] * np.ones(hop + 1)
    fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) % hop) / hop)  # of the row that comes
    assert np.allclose(shape_spectrum(x, loud), x * (np.arange(count) // hop + fade))


def test_gains_take_frequencies_away() -> None:
    low, high = (np.sin(2 * np.pi * f * np.arange(RATE // 2) / RATE) for f in (500, 3000))
    gains = np.ones((1 + -(-len(low) // 64), 65))
    gains[:, 33:] = 0  # from 2062 Hz
    shaped = shape_spectrum(low + high, gains)
    assert np.abs(shaped - low)[128:-128].max() < 0.01


def test_gains_of_another_shape() -> None:
    for wrong in (np.ones((3, 5)), np.ones(5), np.ones((4, 1))):
        with pytest.raises(ShapeError, match="shape_spectrum: 12 samples need gains"):
            shape_spectrum(np.ones(12), wrong)
