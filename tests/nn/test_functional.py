"""Losses: values and gradients against float64 NumPy, kernel against plain, and every refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn.functional import cross_entropy, cross_entropy_rows, mse_loss


def by_hand(x: np.ndarray, ids: np.ndarray, g: Any, reduction: str, smoothing: float, ignore: int) -> Any:
    """Value and gradient of the cross-entropy in float64, position by position."""
    C = x.shape[-1]
    losses, slopes = np.zeros(ids.shape), np.zeros(x.shape)
    for at in np.ndindex(ids.shape):
        if ids[at] != ignore:
            z = x[at] - x[at].max()
            p = np.exp(z) / np.exp(z).sum()
            q = np.full(C, smoothing / C)
            q[ids[at]] += 1 - smoothing
            losses[at] = -(q * np.log(p)).sum()
            slopes[at] = p - q
    if reduction == "none":
        return losses, slopes * np.asarray(g)[..., None]
    count = max((ids != ignore).sum(), 1) if reduction == "mean" else 1
    return np.asarray(losses.sum() / count), slopes * g / count


@given(
    shape=st.lists(st.integers(0, 3), min_size=0, max_size=3),
    C=st.integers(1, 5),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignored=st.booleans(),
    fused=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_cross_entropy(
    shape: list[int], C: int, reduction: str, smoothing: float, ignored: bool, fused: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = tr.Tensor(3 * rng.standard_normal((*shape, C)), requires_grad=True)
    ids = rng.integers(0, C, shape)
    if ignored:
        ids = np.where(rng.random(shape) < 0.5, -100, ids)
    tr.enable_fused(fused)
    try:
        loss = cross_entropy(x, ids, reduction=reduction, label_smoothing=smoothing)
        g = rng.standard_normal(loss.shape)
        (dx,) = tr.grad(loss, [x], g)
    finally:
        tr.enable_fused(True)
    value, slope = by_hand(x.numpy(), ids, g, reduction, smoothing, -100)
    assert loss.shape == value.shape and loss.dtype == np.float64
    np.testing.assert_allclose(loss.numpy(), value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx.numpy(), slope, rtol=1e-11, atol=1e-14)


def test_layout_of_pytorch_and_of_sequences() -> None:
    rng = np.random.default_rng(0)
    x, ids = rng.standard_normal((4, 2, 5)), rng.integers(0, 5, (4, 2))
    sequence = cross_entropy(tr.Tensor(x), ids)
    rows = cross_entropy(tr.Tensor(x.reshape(8, 5)), ids.reshape(8))
    assert_close(sequence.numpy(), rows.numpy(), 1e-15)


@pytest.mark.parametrize("fused", [True, False])
def test_everything_ignored_is_a_finite_loss_without_a_gradient(fused: bool) -> None:
    tr.enable_fused(fused)
    try:
        x = tr.randn(3, 4, requires_grad=True)
        loss = cross_entropy(x, [-100, -100, -100])
        (dx,) = tr.grad(loss, [x])
    finally:
        tr.enable_fused(True)
    assert loss.item() == 0 and (dx.numpy() == 0).all()


def test_another_ignore_index() -> None:
    x = tr.Tensor(np.random.default_rng(0).standard_normal((3, 4)))
    assert_close(cross_entropy(x, [1, 0, 2], ignore_index=0).numpy(), cross_entropy(x[[0, 2]], [1, 2]).numpy(), 1e-15)


def test_extreme_logits() -> None:
    x = tr.Tensor([[1e4, 0.0, -1e4], [-np.inf, 0.0, 0.0]], dtype="float32", requires_grad=True)
    loss = cross_entropy(x, [0, 1], reduction="none")
    np.testing.assert_allclose(loss.numpy(), [0, np.log(2)], rtol=1e-6)
    (dx,) = tr.grad(loss.sum(), [x])
    np.testing.assert_allclose(dx.numpy(), [[0, 0, 0], [0, -0.5, 0.5]], atol=1e-7)


def test_dtype_is_kept() -> None:
    for dtype in ("float16", "float32", "float64"):
        x = tr.randn(3, 4, dtype=dtype, requires_grad=True)
        loss = cross_entropy(x, [0, 1, 2])
        assert loss.dtype == np.dtype(dtype) and tr.grad(loss, x).dtype == np.dtype(dtype)


def test_second_order_of_the_kernel_is_that_of_the_definition() -> None:
    x0 = np.random.default_rng(0).standard_normal((3, 4))
    v = np.random.default_rng(1).standard_normal((3, 4))

    def second() -> np.ndarray:
        x = tr.Tensor(x0, requires_grad=True)
        dx = tr.grad(cross_entropy(x, [0, 3, -100], label_smoothing=0.1), x, create_graph=True)
        return tr.grad((dx * v).sum(), x).numpy()

    found = second()
    tr.enable_fused(False)
    try:
        expected = second()
    finally:
        tr.enable_fused(True)
    assert_close(found, expected, 1e-12)
    assert np.abs(found).max() > 0.01


def test_the_kernel_writes_to_no_argument() -> None:
    x = tr.randn(3, 4, requires_grad=True)
    x._array.flags.writeable = False
    tr.grad(cross_entropy(x, [0, 1, 2]), x)


def test_cross_entropy_refuses_what_does_not_fit() -> None:
    x = tr.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"an input \(2, 3\) needs targets of shape \(2,\), got \(3,\)"):
        cross_entropy(x, [0, 1, 2])
    with pytest.raises(ValueError, match=r"target 3 \(element 1\) is out of range for 3 classes: 0 to 2"):
        cross_entropy(x, [0, 3])
    with pytest.raises(ValueError, match="target -1"):
        cross_entropy(x, [-1, 0])
    with pytest.raises(DTypeError, match="targets must be integers, got float32"):
        cross_entropy(x, [0.0, 1.0])
    with pytest.raises(DTypeError, match="the input must be floats"):
        cross_entropy(tr.Tensor([[1, 2]]), [0])
    with pytest.raises(ShapeError, match="0-d"):
        cross_entropy(tr.Tensor(1.0), 0)
    with pytest.raises(ValueError, match="reduction"):
        cross_entropy(x, [0, 1], reduction="average")
    with pytest.raises(ValueError, match="label_smoothing"):
        cross_entropy(x, [0, 1], label_smoothing=2.0)


def test_mse_loss() -> None:
    rng = np.random.default_rng(0)
    x = tr.Tensor(rng.standard_normal((3, 2)), requires_grad=True)
    y = rng.standard_normal((3, 2))
    for reduction, count in (("mean", 6), ("sum", 1)):
        loss = mse_loss(x, y, reduction=reduction)
        assert_close(loss.numpy(), np.asarray(((x.numpy() - y) ** 2).sum() / count), 1e-14)
        assert_close(tr.grad(loss, x).numpy(), 2 * (x.numpy() - y) / count, 1e-14)
    assert mse_loss(x, y, reduction="none").shape == (3, 2)
    with pytest.raises(ShapeError, match=r"\(3, 2\) and \(2,\)"):
        mse_loss(x, y[0])


@given(N=st.integers(0, 3), C=st.integers(1, 4), smoothing=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 1000))
def test_every_row_of_the_kernel_is_its_plain_definition(N: int, C: int, smoothing: float, seed: int) -> None:
    """The logsumexp is an output too: a gradient may come through it."""
    rng = np.random.default_rng(seed)
    x = tr.Tensor(rng.standard_normal((N, C)), requires_grad=True)
    options = {"targets": rng.integers(0, C, N), "keep": rng.random(N) < 0.7, "label_smoothing": smoothing}
    g = rng.standard_normal((2, N))
    y = cross_entropy_rows(x, **options)
    tr.enable_fused(False)
    try:
        expected = cross_entropy_rows(x, **options)
    finally:
        tr.enable_fused(True)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-12, atol=1e-14)
    found, wanted = tr.grad(y, x, g), tr.grad(expected, x, g)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-11, atol=1e-14)
