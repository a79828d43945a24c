"""Spoken digits without a recording: pulses of a pitch, or noise, through the resonances of a throat.

A vowel is known by its formants, the frequencies at which the throat resonates; those here are what G. E. Peterson and
H. L. Barney measured of men (Journal of the Acoustical Society of America, 1952), rounded. The other sounds are made up
to look like their spectrograms. It is no good voice, but each word is said differently each time, by any number of
voices, and where a word ends is known.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.errors import InputError, ShapeError

RATE = 8000
"""Samples in a second."""
_HOP = 64  # samples in one step of what the throat does

DIGITS = {
    "zero": "Z IH R AO UH", "one": "W AH N", "two": "T UW", "three": "TH R IY", "four": "F AO R",
    "five": "F AA IH V", "six": "S IH K S", "seven": "S EH V AH N", "eight": "EH IH T", "nine": "N AA IH N",
}  # fmt: skip
"""The words that can be spoken, and their sounds."""

# Three formants in Hz, how loud the voice is, how loud the noise, its middle in Hz, and how long in milliseconds.
_SOUNDS = {
    "IY": (270, 2290, 3010, 1.0, 0.0, 0, 130),
    "IH": (390, 1990, 2550, 1.0, 0.0, 0, 90),
    "EH": (530, 1840, 2480, 1.0, 0.0, 0, 110),
    "AH": (640, 1190, 2390, 1.0, 0.0, 0, 100),
    "AA": (730, 1090, 2440, 1.0, 0.0, 0, 120),
    "AO": (570, 840, 2410, 1.0, 0.0, 0, 120),
    "UH": (440, 1020, 2240, 1.0, 0.0, 0, 90),
    "UW": (300, 870, 2240, 1.0, 0.0, 0, 140),
    "R": (310, 1060, 1380, 0.7, 0.0, 0, 70),
    "W": (290, 610, 2150, 0.6, 0.0, 0, 70),
    "N": (250, 1500, 2500, 0.4, 0.0, 0, 80),
    "V": (220, 1100, 2080, 0.3, 0.1, 2500, 60),
    "Z": (240, 1390, 2530, 0.2, 0.5, 3700, 80),
    "S": (300, 1400, 2500, 0.0, 0.7, 3600, 110),
    "F": (300, 1100, 2100, 0.0, 0.2, 2600, 100),
    "TH": (300, 1300, 2500, 0.0, 0.15, 3100, 90),
    "K": (300, 1700, 2300, 0.0, 0.5, 1900, 30),
    "T": (300, 1700, 2600, 0.0, 0.6, 3200, 30),
    "_": (400, 1400, 2400, 0.0, 0.0, 0, 50),  # silence
}


class Voice(NamedTuple):
    """The `pitch` in Hz, what formants are multiplied by, the `speed`, and the noise in the voice and behind it."""

    pitch: float = 120.0
    scale: float = 1.0
    speed: float = 1.0
    breath: float = 0.03
    background: float = 0.01

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        """Somebody's voice: a high pitch goes with a small throat, but not strictly."""
        high = rng.random()
        scale = (0.88 + 0.27 * high) * rng.uniform(0.95, 1.05)
        background = 10 ** rng.uniform(-2.5, -1)
        return cls(90 + 180 * high, scale, rng.uniform(0.8, 1.3), rng.uniform(0, 0.1), background)


class Utterance(NamedTuple):
    """`samples` (N,) of a sound, the `words` that are said, and where each of them `ends`, in seconds."""

    samples: npt.NDArray[np.floating[Any]]
    words: list[str]
    ends: list[float]


def speak(words: Sequence[str], voice: Voice, rng: np.random.Generator) -> Utterance:
    """Digits, by their English names, said in a row, with or without pauses; `RATE` samples in a second.

    `rng` decides about pauses, melody, how long each sound is and how well it is met: the same state of it, the same
    sound. Raises InputError for a word that is no digit, or no word.

        >>> said = speak(["three", "one"], Voice(pitch=200), np.random.default_rng(0))
        >>> len(said.samples) / RATE, [round(end, 2) for end in said.ends]
        (0.68, [0.32, 0.63])
    """
    if not words:
        raise InputError("there is nothing to say")
    for word in words:
        if word not in DIGITS:
            raise InputError(f"{word!r} cannot be spoken; the words are {', '.join(DIGITS)}")
    names, last = ["_"], []
    for word in words:
        for name in DIGITS[word].split():
            names += ["_", name] if name in "TK" and names[-1] != "_" else [name]  # closed, then a burst
        last.append(len(names) - 1)
        names += ["_"] * int(rng.choice([0, 1, 3], p=[0.5, 0.3, 0.2]))
    names.append("_")
    sounds = np.array([_SOUNDS[name] for name in names]) * rng.uniform(0.95, 1.05, (len(names), 7))
    milliseconds = sounds[:, 6] * rng.uniform(0.8, 1.25, len(names)) / voice.speed
    steps = np.maximum(2, milliseconds / 1000 * RATE / _HOP).astype(int)
    # The throat glides: at each step the mean of the targets of five.
    path = np.repeat(sounds, steps, axis=0)
    path = np.lib.stride_tricks.sliding_window_view(np.pad(path, ((2, 2), (0, 0)), "edge"), 5, axis=0).mean(-1)
    formants, voiced, noise, middle = path[:, :3] * voice.scale, path[:, 3:4], path[:, 4:5], path[:, 5:6] * voice.scale

    f = np.linspace(1, RATE / 2, _HOP + 1)
    resonances = formants[:, :, None] ** 2 / np.hypot(
        formants[:, :, None] ** 2 - f**2, f * np.array([[70], [110], [170]])
    )
    throat = 0.5 * voiced * resonances.prod(axis=1) / (1 + f / 2000)
    hiss = noise * np.exp(-0.5 * ((f - np.minimum(middle, 3800)) / 600) ** 2)

    count = len(path)
    size = (count - 1) * _HOP
    melody = voice.pitch * (1.1 - 0.2 * np.arange(count) / count) * np.exp(rng.normal(0, 0.0075, count).cumsum())
    cycles = np.cumsum(np.interp(np.arange(size) / _HOP, np.arange(count), melody) / RATE)
    pulses = np.diff(np.floor(cycles), prepend=0) * np.sqrt(RATE / voice.pitch)
    sound = shape_spectrum(pulses + voice.breath * rng.normal(size=size), throat)
    sound += shape_spectrum(rng.normal(size=size), hiss)
    sound = 0.5 * sound / np.abs(sound).max() + 0.3 * voice.background * rng.normal(size=size)
    return Utterance(sound, list(words), (steps.cumsum()[last] * _HOP / RATE).tolist())


def write_wav(file: Path, samples: npt.ArrayLike, rate: int) -> None:
    """Write samples (N,) from -1 to 1 as a WAV file of 16 bits; what is louder is cut off."""
    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        sound.writeframes(np.rint(32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes())


def shape_spectrum(samples: npt.ArrayLike, gains: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The samples (N,) with the spectrum of each moment multiplied by that moment's `gains` (T, size // 2 + 1), (N,).

    Row t of `gains`, one for each frequency from 0 to half the rate, is what holds around sample t * size / 2; between
    two rows one fades into the other. Gains of 1 return the samples. Raises ShapeError unless size is even and there
    are T = 1 + ⌈N / (size / 2)⌉ rows.

        >>> noise = np.random.default_rng(0).normal(size=1000)
        >>> np.allclose(shape_spectrum(noise, np.ones((9, 129))), noise)
        True
    """
    x, g = np.asarray(samples, np.float64), np.asarray(gains, np.float64)
    hop = (g.shape[-1] if g.ndim else 1) - 1
    size, rows = 2 * hop, 1 + -(-len(x) // hop) if hop else 0
    if hop < 1 or g.shape != (rows, hop + 1):
        raise ShapeError(f"shape_spectrum: {len(x)} samples need gains ({rows}, {hop + 1}), got {g.shape}")
    padded = np.pad(x, (hop, rows * hop - len(x)))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)  # copies half a window apart add up to 1
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    shaped = np.fft.irfft(np.fft.rfft(pieces * hann) * g, size)
    out = np.zeros(len(padded))
    for half in (0, 1):  # every second piece, side by side without overlap
        part = shaped[half::2].reshape(-1)
        out[half * hop :][: len(part)] += part
    return out[hop : hop + len(x)]
