"""Losses: values and gradients against float64 NumPy, kernel against plain, and every refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn.losses import cross_entropy, cross_entropy_rows, mse_loss
from tinygrad_rnn.testing import check_gradients


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


@given(
    N=st.integers(0, 3),
    C=st.integers(1, 4),
    smoothing=st.sampled_from([0.0, 0.3]),
    impossible=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_row_of_the_kernel_is_its_plain_definition(
    N: int, C: int, smoothing: float, impossible: bool, seed: int
) -> None:
    """Its first row, the loss; the others are constants, kept for the way back. All classes of a row may be -inf."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((N, C))
    logits[:1] = -np.inf if impossible else logits[:1]
    x = tr.Tensor(logits, requires_grad=True)
    options = {"targets": rng.integers(0, C, N), "keep": rng.random(N) < 0.7, "label_smoothing": smoothing}
    g = rng.standard_normal((3, N))
    y = cross_entropy_rows(x, **options)
    tr.enable_fused(False)
    try:
        expected = cross_entropy_rows(x, **options)
    finally:
        tr.enable_fused(True)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-12, atol=1e-14)
    found, wanted = tr.grad(y, x, g), tr.grad(expected, x, g)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-11, atol=1e-14)


F = tr.nn.functional


def softplus(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, z)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-softplus(-z))


# Each loss of two arrays by hand, and its slope in the first.
PAIRS: dict[str, tuple[Any, Any]] = {
    "mse_loss": (lambda x, y: (x - y) ** 2, lambda x, y: 2 * (x - y)),
    "l1_loss": (lambda x, y: np.abs(x - y), lambda x, y: np.sign(x - y)),
    "huber_loss": (
        lambda x, y: np.where(abs(x - y) <= 0.7, (x - y) ** 2 / 2, 0.7 * (abs(x - y) - 0.35)),
        lambda x, y: np.clip(x - y, -0.7, 0.7),
    ),
    "binary_cross_entropy_with_logits": (
        lambda x, y: y * softplus(-x) + (1 - y) * softplus(x),
        lambda x, y: sigmoid(x) - y,
    ),
}
each_pair = pytest.mark.parametrize("name", PAIRS)


@each_pair
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    masked=st.none() | st.integers(0, 3),
    seed=st.integers(0, 2**20),
)
@examples(dev=20, ci=50, thorough=500)
def test_losses_of_two_arrays(name: str, shape: list[int], reduction: str, masked: int | None, seed: int) -> None:
    """Values, and the gradients of both, by hand; what the mask leaves out is NaN, and gives 0 to everything."""
    rng = np.random.default_rng(seed)
    x0, y0 = 2 * rng.standard_normal(shape), rng.random(shape)
    keep = np.ones(shape, bool)
    options: dict[str, Any] = {"delta": 0.7} if name == "huber_loss" else {}
    if masked is not None:
        mask = rng.random(shape[:masked]) < 0.6
        keep &= mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
        options["mask"] = mask
    x = tr.Tensor(np.where(keep, x0, np.nan), requires_grad=True)
    y = tr.Tensor(np.where(keep, y0, np.nan), requires_grad=True)
    loss = getattr(F, name)(x, y, reduction=reduction, **options)
    value, slope = (np.where(keep, f(x0, y0), 0) for f in PAIRS[name])
    g = rng.standard_normal(loss.shape)
    if reduction != "none":
        count = max(keep.sum(), 1) if reduction == "mean" else 1
        value, slope = np.asarray(value.sum() / count), slope / count
    np.testing.assert_allclose(loss.numpy(), value, rtol=1e-12, atol=1e-14)
    dx, dy = tr.grad(loss, [x, y], g)
    np.testing.assert_allclose(dx.numpy(), slope * g, rtol=1e-11, atol=1e-14)
    assert (dx.numpy()[~keep] == 0).all() and (dy.numpy()[~keep] == 0).all()
    if name != "binary_cross_entropy_with_logits":
        np.testing.assert_allclose(dy.numpy(), -slope * g, rtol=1e-11, atol=1e-14)


@each_pair
def test_second_order_of_losses_of_two_arrays(name: str) -> None:
    x0, y0 = np.array([-1.3, 0.2, 0.9, 2.1]), np.array([0.3, 0.1, 0.7, 1.0])
    check_gradients(lambda x: getattr(F, name)(x, y0, reduction="none"), x0, order=2)


@each_pair
def test_losses_keep_the_dtype_and_take_any_target(name: str) -> None:
    for dtype in ("float16", "float32", "float64"):
        x = tr.randn(3, dtype=dtype, requires_grad=True)
        for target in ([0.0, 1.0, 0.5], np.array([0, 1, 1]), [True, False, True], tr.ones(3, dtype=dtype)):
            loss = getattr(F, name)(x, target)
            assert loss.dtype == np.dtype(dtype) and tr.grad(loss, x).dtype == np.dtype(dtype)


@each_pair
def test_losses_of_two_arrays_refuse_what_does_not_fit(name: str) -> None:
    loss, x = getattr(F, name), tr.zeros(3, 2)
    with pytest.raises(ShapeError, match=rf"{name}: the shapes must be equal, got \(3, 2\) and \(3,\)"):
        loss(x, tr.zeros(3))
    with pytest.raises(DTypeError, match="must be floats, got int64"):
        loss(tr.Tensor([1]), [1.0])
    with pytest.raises(ValueError, match="reduction"):
        loss(x, x, reduction="average")
    with pytest.raises(ShapeError, match=rf"{name}: a mask \(2,\) does not fit losses of shape \(3, 2\)"):
        loss(x, x, mask=[True, False])
    with pytest.raises(DTypeError, match="mask must be booleans"):
        loss(x, x, mask=[1, 0, 1])


def test_huber_loss_at_its_joints_and_its_delta() -> None:
    x = tr.Tensor([-1.0, 0.0, 1.0], dtype="float64", requires_grad=True)
    (dx,) = tr.grad(F.huber_loss(x, tr.zeros(3, dtype="float64"), reduction="sum"), [x], create_graph=True)
    assert dx.tolist() == [-1, 0, 1]
    for delta in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="delta must be above 0"):
            F.huber_loss(x, x, delta=delta)


def test_binary_cross_entropy_takes_tensors_of_another_type_as_targets() -> None:
    x = tr.Tensor([0.5, -1.0])
    expected = F.binary_cross_entropy_with_logits(x, [0.0, 1.0]).item()
    for target in (np.array([0.0, 1.0]), np.array([False, True]), np.array([0, 1])):
        loss = F.binary_cross_entropy_with_logits(x, tr.Tensor(target))
        assert loss.dtype == np.float32 and loss.item() == expected


def test_losses_of_no_rows_and_no_classes() -> None:
    for shape in ((0, 0), (0, 3)):
        for loss in (cross_entropy, F.nll_loss):
            assert loss(tr.zeros(*shape), []).item() == 0
            assert loss(tr.zeros(*shape), [], reduction="none").shape == (0,)


def test_binary_cross_entropy_is_exact_in_both_tails() -> None:
    x = tr.Tensor([40.0, -40.0, 1e4, -1e4], dtype="float32", requires_grad=True)
    right = F.binary_cross_entropy_with_logits(x, [1, 0, 1, 0], reduction="none")
    np.testing.assert_allclose(right.numpy(), [np.exp(-40.0)] * 2 + [0, 0], rtol=1e-6)
    (dx,) = tr.grad(right.sum(), [x])
    np.testing.assert_allclose(dx.numpy(), [0, 0, 0, 0], atol=1e-7)
    wrong = F.binary_cross_entropy_with_logits(x, [0, 1, 0, 1], reduction="none")
    np.testing.assert_allclose(wrong.numpy(), [40, 40, 1e4, 1e4], rtol=1e-6)


@given(
    shape=st.lists(st.integers(0, 3), max_size=2),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    masked=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_nll_loss_of_log_softmax_is_cross_entropy(shape: list[int], reduction: str, masked: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = tr.Tensor(rng.standard_normal((*shape, 4)), requires_grad=True)
    ids = np.where(rng.random(shape) < 0.3, 2, rng.integers(0, 4, shape))
    options: dict[str, Any] = {"reduction": reduction, "ignore_index": 2}
    if masked:
        options["mask"] = rng.random(shape) < 0.6
    one, other = F.nll_loss(tr.log_softmax(x), ids, **options), cross_entropy(x, ids, **options)
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-12, atol=1e-14)
    g = rng.standard_normal(one.shape)
    np.testing.assert_allclose(tr.grad(one, x, g).numpy(), tr.grad(other, x, g).numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("loss", [cross_entropy, F.nll_loss])
def test_ignored_rows_may_hold_anything(loss: Any, fused: bool) -> None:
    x = tr.Tensor([[0.1, 0.2], [np.nan, 1.0], [-np.inf, np.inf]], requires_grad=True)
    tr.enable_fused(fused)
    try:
        value = loss(x, [1, -100, 0], mask=[True, True, False])
        (dx,) = tr.grad(value, [x])
    finally:
        tr.enable_fused(True)
    assert value.item() == loss(x[:1], [1]).item()
    assert (dx.numpy()[1:] == 0).all() and (dx.numpy()[0] != 0).any()
    with pytest.raises(ShapeError, match="a mask"):
        loss(x, [1, 0, 0], mask=[True])


def test_a_mask_of_time_on_sequences_of_vectors() -> None:
    """(T, B) for predictions (T, B, F): the mean over the steps that there are."""
    x, y = np.random.default_rng(0).standard_normal((2, 4, 3, 2))
    lengths = [2, 4, 1]
    found = mse_loss(tr.Tensor(x), y, mask=F.sequence_mask(lengths, 4))
    expected = sum(((x[:n, b] - y[:n, b]) ** 2).sum() for b, n in enumerate(lengths)) / (7 * 2)
    assert_close(found.numpy(), np.asarray(expected), 1e-13)
    first = mse_loss(tr.Tensor(x.swapaxes(0, 1)), y.swapaxes(0, 1), mask=F.sequence_mask(lengths, 4, batch_first=True))
    assert_close(first.numpy(), np.asarray(expected), 1e-13)
    assert mse_loss(tr.Tensor(x), y, mask=np.zeros((4, 3), bool)).item() == 0
    assert F.sequence_mask([], 3).shape == (3, 0) and F.sequence_mask([], 3, batch_first=True).shape == (0, 3)
    with pytest.raises(ValueError, match=r"sequence_mask: lengths\[0\] is 5, but the input has 4 steps"):
        F.sequence_mask([5], 4)
    with pytest.raises(ShapeError, match="lengths must be"):
        F.sequence_mask(3, 4)


@pytest.mark.parametrize("padding", [-np.inf, np.nan])
def test_what_is_ignored_may_hold_anything(padding: float) -> None:
    x = tr.Tensor(np.array([[padding, padding], [1.0, 2.0]]), requires_grad=True)
    loss = cross_entropy(x, [-100, 1])
    loss.backward()
    assert x.grad is not None
    assert np.isfinite(loss.item())
    assert x.grad.numpy()[0].tolist() == [0.0, 0.0]
    assert np.isfinite(x.grad.numpy()).all()


# --- exactly at the ends --------------------------------------------------------------------------------------

inf, nan = np.inf, np.nan


def loss_and_slope(f: Any, x: Any) -> tuple[Any, Any]:
    t = tr.Tensor(np.array(x), requires_grad=True)
    y = f(t)
    return y.tolist(), tr.grad(tr.sum(y), t).tolist()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("x", "target", "smoothing", "loss", "slope"),
    [
        ([1e4, 0.0], 0, 0.0, 0, [0, 0]),
        ([1e4, 0.0], 1, 0.0, 1e4, [1, -1]),
        ([1e4, 0.0], 0, 0.5, 2500, [0.25, -0.25]),
        ([-inf, 0.0], 1, 0.0, 0, [0, 0]),  # a class that is masked out
        ([-inf, 0.0], 0, 0.0, inf, [-1, 1]),
        ([-inf, 0.0], 1, 0.5, inf, [-0.25, 0.25]),  # smoothing gives every class a share, the masked one too
        ([-inf, -inf], 0, 0.0, inf, [-1, 0]),  # softmax is 0 there: p - q
        ([3.0], 0, 0.0, 0, [0]),  # one class only
        ([3.0], 0, 0.5, 0, [0]),
        ([-inf], 0, 0.0, inf, [-1]),
        ([inf, 0.0], 0, 0.0, nan, [nan, 0]),  # an overflow is not hidden
        ([nan, 0.0], 1, 0.0, nan, [nan, nan]),
    ],
)
@np.errstate(invalid="ignore", over="ignore")
def test_cross_entropy_at_the_ends(fused: bool, x: Any, target: int, smoothing: float, loss: Any, slope: Any) -> None:
    tr.enable_fused(fused)
    try:
        found = loss_and_slope(lambda t: cross_entropy(t, [target], reduction="none", label_smoothing=smoothing), [x])
    finally:
        tr.enable_fused(True)
    np.testing.assert_array_equal(found[0], [loss])
    np.testing.assert_array_equal(found[1], [slope])


@pytest.mark.parametrize("fused", [True, False])
def test_what_is_ignored_may_be_anything(fused: bool) -> None:
    tr.enable_fused(fused)
    try:
        x = [[nan, inf], [0.0, 0.0]]
        assert loss_and_slope(lambda t: cross_entropy(t, [-100, 0]), x) == (np.log(2), [[0, 0], [-0.5, 0.5]])
        assert loss_and_slope(lambda t: cross_entropy(t, [-100, -100]), x) == (0, [[0, 0], [0, 0]])
        assert loss_and_slope(lambda t: F.nll_loss(t, [-100, -100]), x) == (0, [[0, 0], [0, 0]])
        assert loss_and_slope(lambda t: F.nll_loss(t, [-100, 0]), [[nan, nan], [-2.0, -3.0]]) == (2, [[0, 0], [-1, 0]])
    finally:
        tr.enable_fused(True)
    assert loss_and_slope(lambda t: F.nll_loss(t, [0, 1], reduction="none"), [[0.0, -inf], [0.0, -inf]]) == (
        [0, inf],
        [[-1, 0], [0, -1]],
    )


@pytest.mark.parametrize(
    ("p", "loss", "slope"),
    [
        (0.0, [0, 0, np.log(2), 1000, inf, nan], [0, 0, 0.5, 1, 1, nan]),
        (1.0, [inf, 1000, np.log(2), 0, 0, nan], [-1, -1, -0.5, 0, 0, nan]),
        (0.5, [inf, 500, np.log(2), 500, inf, nan], [-0.5, -0.5, 0, 0.5, 0.5, nan]),
    ],
)
@np.errstate(invalid="ignore")
def test_binary_cross_entropy_at_the_ends(p: float, loss: Any, slope: Any) -> None:
    """Logits of ±inf are probabilities of exactly 0 and 1; targets are exactly 0 and 1, too."""
    x = [-inf, -1000.0, 0.0, 1000.0, inf, nan]
    f = lambda t: F.binary_cross_entropy_with_logits(t, [p] * 6, reduction="none")
    found = loss_and_slope(f, x)
    np.testing.assert_allclose(found[0], loss, rtol=1e-15)
    np.testing.assert_allclose(found[1], slope, rtol=1e-15)


@pytest.mark.parametrize(
    ("f", "loss", "slope"),
    [
        (F.mse_loss, [0, 0, inf, inf, 1, 4, nan], [0, 0, inf, -inf, 2, 4, nan]),
        (F.l1_loss, [0, 0, inf, inf, 1, 2, nan], [0, 0, 1, -1, 1, 1, nan]),
        (F.huber_loss, [0, 0, inf, inf, 0.5, 1.5, nan], [0, 0, 1, -1, 1, 1, nan]),
    ],
)
def test_losses_of_two_arrays_at_the_ends(f: Any, loss: Any, slope: Any) -> None:
    """Kinks of l1 at 0, both sides of huber's at |d| = delta, infinities and NaN."""
    found = loss_and_slope(lambda t: f(t, np.zeros(7), reduction="none"), [0.0, -0.0, inf, -inf, 1.0, 2.0, nan])
    np.testing.assert_array_equal(found[0], loss)
    np.testing.assert_array_equal(found[1], slope)
    for keep in (np.zeros(2, bool), np.array([True, False])):
        value, slopes = loss_and_slope(lambda t, keep=keep: f(t, [0.0, inf], mask=keep), [1.0, inf])
        assert np.isfinite(value) and slopes[1] == 0 and (keep[0] or value == 0)
    assert loss_and_slope(lambda t: f(t, np.zeros(0)), np.zeros(0)) == (0, [])


@np.errstate(invalid="ignore", divide="ignore")
def test_layer_norm_of_equal_elements() -> None:
    assert loss_and_slope(lambda t: F.layer_norm(t, 3), [[2.0, 2.0, 2.0]]) == ([[0, 0, 0]], [[0, 0, 0]])
    assert loss_and_slope(lambda t: F.layer_norm(t, 1), [[5.0]]) == ([[0]], [[0]])
    assert np.isnan(F.layer_norm(tr.Tensor([[2.0, 2.0]]), 2, eps=0.0).numpy()).all()  # 0 / 0 without eps
