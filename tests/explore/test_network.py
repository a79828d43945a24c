"""The network of the page and its task."""

from __future__ import annotations

import numpy as np
import pytest

from tinygrad_rnn.explore.network import HalfSquaredErrors, network_of, sequences
from tinygrad_rnn.explore.settings import Settings
from tinygrad_rnn.tensor.tensor import Tensor


def values(settings: Settings) -> dict[str, np.ndarray]:
    return {name: parameter.numpy() for name, parameter in network_of(settings).named_parameters()}


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("hidden", [1, 5])
def test_scale_is_every_singular_value_of_every_block(cell: str, hidden: int) -> None:
    W = network_of(Settings(cell=cell, hidden=hidden, scale=1.5)).layer.weight_hh_l0.numpy()
    for k in range(0, len(W), hidden):
        assert np.linalg.svd(W[k : k + hidden], compute_uv=False) == pytest.approx(1.5)
        assert np.abs(np.linalg.eigvals(W[k : k + hidden])) == pytest.approx(1.5)


def test_a_seed_makes_a_network_and_another_seed_another() -> None:
    first, again, other = (values(Settings(seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_the_scale_changes_the_recurrent_weight_alone() -> None:
    one, two = (values(Settings(cell="gru", scale=scale)) for scale in (1, 2))
    for name, value in one.items():
        factor = 2 if name == "layer.weight_hh_l0" else 1
        assert np.allclose(two[name], factor * value), name


def test_the_target_is_the_number_that_is_marked() -> None:
    x, y = sequences(Settings(steps=5), 7)
    assert x.shape == (5, 7, 2) and y.shape == (5, 7)
    assert (x[..., 1] == np.eye(5)[0][:, None]).all() and (y == x[0, :, 0]).all()
    assert np.abs(x[..., 0]).max() <= 1 and len(np.unique(x[..., 0])) == 35
    assert (sequences(Settings(steps=5), 7, draw=1)[0] != x)[..., 0].all()


def test_a_loss_is_half_the_squared_error_of_its_step() -> None:
    outputs, targets = Tensor(np.array([[[1.0], [3.0]], [[2.0], [2.0]]])), np.array([[0.0, 0.0], [1.0, 2.0]])
    assert HalfSquaredErrors("every")(outputs, targets).tolist() == [2.5, 0.25]
    assert HalfSquaredErrors("last")(outputs, targets).tolist() == [0.25]
