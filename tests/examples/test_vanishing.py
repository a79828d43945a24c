"""The gradients of `examples/vanishing.py` against the bound that its story tells, and its recall task."""

from __future__ import annotations

import numpy as np
import pytest

from examples import vanishing


class Run:
    """As much of an `Experiment` as is asked for."""

    seed, device = 0, "cpu"

    def tensor(self, array: np.ndarray) -> np.ndarray:
        return array


@pytest.mark.parametrize("cell", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_no_gradient_is_above_the_bound(monkeypatch: pytest.MonkeyPatch, cell: str, scale: float) -> None:
    monkeypatch.setattr(vanishing, "T", 30)
    found = vanishing.gradients(Run(), cell, scale)
    bound = (vanishing.SLOPE[cell] * scale) ** (29 - np.arange(30))
    assert found.shape == (30,) and found[-1] == pytest.approx(1)
    assert (found <= bound * (1 + 1e-9)).all()


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_an_open_gate_keeps_the_gradient(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    monkeypatch.setattr(vanishing, "T", 30)
    shut, ajar = (vanishing.gradients(Run(), cell, 1.0, bias)[0] for bias in (0.0, 3.0))
    assert ajar > 100 * shut


def test_the_first_input_alone_tells_the_sign() -> None:
    x, positive = vanishing.recall_batch(Run(), 7, length=20, count=50)
    assert x.shape == (20, 50, 1) and positive.shape == (50,)
    assert (x[0, :, 0] == 2 * positive - 1).all() and np.abs(x[1:]).max() < 2
    assert abs(np.corrcoef(x[1:].mean(axis=(0, 2)), positive)[0, 1]) < 0.5
