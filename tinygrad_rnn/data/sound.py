"""Sound as a network hears it: the energy in some bands of pitch, many times a second.

Samples are (N,) floats in [-1, 1]. They are cut into short pieces under a Hann window, whose spectra the FFT gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.errors import InputError, ShapeError
from tinygrad_rnn.scalars import number, whole
from tinygrad_rnn.tensor.backend import host_array

Floats = npt.NDArray[np.floating[Any]]
QUIET = 1e-8
"""The power below which `log_mel` hears nothing: 80 dB less than the loudest that there is."""


def log_mel(
    samples: npt.ArrayLike, rate: int, *, bands: int = 40, window: float = 0.032, hop: float = 0.016
) -> npt.NDArray[np.float32]:
    """The natural logarithm of the power in `bands` bands, (T, bands) float32: the usual input of speech recognisers.

    `rate` is the number of samples in a second, `window` how long a piece is, in seconds, `hop` the time between the
    beginnings of two pieces. T is 1 + the number of hops that fit; what is shorter than a window ends in silence.
    The power is relative to a square wave from -1 to 1, and no less than `QUIET`. Raises ShapeError unless the samples
    are (N,), and InputError for no samples, or times or bands that make no sense at this rate.

        >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
        >>> features = log_mel(tone, 8000, bands=10)
        >>> features.shape, int(features[7].argmax())
        ((61, 10), 4)
    """
    x = _samples("log_mel", samples)
    size, step = (_steps(name, seconds, _rate(rate)) for name, seconds in (("a window", window), ("a hop", hop)))
    if size < 2 or step < 1:
        raise InputError(f"a window of {window} s and a hop of {hop} s are {size} and {step} samples at {rate:,} Hz")
    x = np.pad(x, (0, max(0, size - len(x))))
    hann = _hann(size)
    pieces = np.lib.stride_tricks.sliding_window_view(x, size)[::step]
    power = np.abs(np.fft.rfft(pieces * hann)) ** 2 * (2 / (size * (hann**2).sum()))
    return np.asarray(np.log(np.maximum(power @ mel_filters(bands, size, rate).T, QUIET)), np.float32)


def mel_filters(bands: int, size: int, rate: int) -> npt.NDArray[np.float64]:
    """Triangles that sum up a spectrum of `size` samples at `rate` Hz in `bands` bands: (bands, size // 2 + 1).

    Each triangle reaches from the middle of its lower neighbour to the middle of its upper one. The middles are equally
    far apart, from 0 Hz to rate / 2, in mel, 2595 log10(1 + f / 700), a scale on which the ear hears equal steps
    (D. O'Shaughnessy, Speech Communication, 1987). Raises InputError for fewer than one band, or a band so narrow that
    no frequency of the spectrum falls into it.

        >>> mel_filters(2, 8, 8000).round(2)
        array([[0.  , 0.68, 0.  , 0.  , 0.  ],
               [0.  , 0.32, 0.91, 0.45, 0.  ]])
    """
    bands, size = whole("bands", bands, 1), whole("the size of a window", size, 2)
    top = 2595 * np.log10(1 + _rate(rate) / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(size // 2 + 1) * rate / size
    filters = np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)))
    if not filters.any(axis=1).all():
        raise InputError(f"{bands} bands are too many for windows of {size} samples: one of them is empty")
    return np.asarray(filters)


def _rate(given: Any) -> float:
    """A number of samples in a second. Raises InputError unless it is finite and above 0."""
    if not 0 < (rate := number("the rate", given)) < np.inf:
        raise InputError(f"the rate is a number of samples in a second, above 0, not {given!r:.80}")
    return rate


def _steps(name: str, seconds: Any, rate: float) -> int:
    """So many seconds in samples. Raises InputError for a time that is not finite and above 0."""
    found = number(f"{name}, in seconds,", seconds)
    if not 0 < found * rate < 2**31:
        raise InputError(f"{name} is a time in seconds, above 0, not {seconds!r:.80}")
    return round(found * rate)


def _hann(size: int) -> npt.NDArray[np.float64]:
    """A window whose copies, half a window apart, add up to 1."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))


def _samples(name: str, samples: npt.ArrayLike) -> npt.NDArray[np.float64]:
    x = host_array(samples).astype(np.float64)
    if x.ndim != 1:
        raise ShapeError(f"{name}: samples must be (N,), got shape {x.shape}")
    if not len(x):
        raise InputError("there is no sound in a waveform of 0 samples")
    return x
