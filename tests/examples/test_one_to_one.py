"""The taller pictures of `examples/one_to_one.py`."""

from __future__ import annotations

import numpy as np

from examples.one_to_one import MIDDLE, ROOM, placed


def test_placed_moves_the_digit_and_nothing_else() -> None:
    x = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)
    tall = placed(x, np.array([0, MIDDLE, 1, ROOM - 8]))
    for picture, digit, top in zip(tall, x, (0, MIDDLE, 1, ROOM - 8), strict=True):
        assert np.array_equal(picture[top : top + 8], digit)
        assert picture.sum(dtype=np.float64) == digit.sum(dtype=np.float64)
