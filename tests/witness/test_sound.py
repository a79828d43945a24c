"""librosa judges the bands of pitch that sounds are heard in."""

from __future__ import annotations

import numpy as np
import pytest

from tinygrad_rnn.data import mel_filters

filters = pytest.importorskip("librosa.filters")
SIZES = [(40, 256, 8000), (32, 512, 16000), (80, 2048, 44100), (1, 8, 8000)]


@pytest.mark.parametrize(("bands", "size", "rate"), SIZES)
def test_filters_are_those_of_librosa(bands: int, size: int, rate: int) -> None:
    expected = filters.mel(sr=rate, n_fft=size, n_mels=bands, htk=True, norm=None, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(bands, size, rate), expected, rtol=1e-9, atol=1e-12)
