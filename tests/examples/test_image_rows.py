"""The networks of `examples/image_rows.py` see what they should, in the order they should."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from examples.image_rows import Rows, Strokes, Sweeps
from tinygrad_rnn import nn


@pytest.mark.parametrize(
    "build", [lambda: Rows(nn.GRU, 5), lambda: Strokes(5), lambda: Sweeps(7, 5)], ids=["rows", "strokes", "sweeps"]
)
def test_pictures_give_scores_one_by_one(build) -> None:
    model = build()
    x = np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)
    together = model(tr.Tensor(x)).numpy()
    assert together.shape == (3, 10)
    for k in range(3):
        np.testing.assert_allclose(model(tr.Tensor(x[k : k + 1])).numpy()[0], together[k], rtol=1e-4, atol=1e-6)


def test_rows_are_read_one_after_the_other() -> None:
    model = Rows(nn.RNN, 5)
    x = np.random.default_rng(0).random((1, 7, 5)).astype(np.float32)
    state = model.layer(tr.Tensor(x[0, :, None]))[1][0]  # the rows as steps of a sequence
    np.testing.assert_allclose(model(tr.Tensor(x)).numpy(), model.head(state).numpy(), rtol=1e-5)
