"""The clock task of `examples/new_layer.py`, and its window."""

from __future__ import annotations

import numpy as np

from examples.new_layer import STEPS, WINDOW, pulses, window


def test_ago_counts_from_the_last_pulse() -> None:
    x, ago = pulses((0,), 20)
    for b in range(20):
        since = 0
        for t in range(STEPS):
            since = 0 if x[t, b, 0] else since + 1
            assert ago[t, b] == since
    assert (x[0] == 1).all()


def test_window_holds_the_last_inputs() -> None:
    x, _ = pulses((1,), 3)
    rows = window(x).reshape(STEPS, 3, WINDOW + 1)
    assert np.array_equal(rows[30, 2, :-1], x[31 - WINDOW : 31, 2, 0])
    assert np.array_equal(rows[3, 1, :-1], [0] * (WINDOW - 4) + x[:4, 1, 0].tolist())
    assert (rows[..., -1] == 1).all()
