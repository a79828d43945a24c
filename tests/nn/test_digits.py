"""Losses, normalisers and gates keep the digits of their inputs, by kernels, by their definitions, and repeated.

The witness is the same formula in a longer precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.nn import functional as F

LONG = np.longdouble
RNG = np.random.default_rng(0)


@pytest.fixture(params=["kernel", "definition", "compiled"])
def way(request: Any) -> Iterator[Callable[..., Any]]:
    """Calls a function of tensors: by kernels, by the definitions in ops, or as `tr.compile` repeats it."""

    def repeated(f: Any, *args: Any) -> Any:
        g = tr.compile(f)
        for _ in range(3):
            y = g(*args)
        return y

    tr.enable_fused(request.param != "definition")
    yield repeated if request.param == "compiled" else lambda f, *args: f(*args)
    tr.enable_fused(True)


def value_and_slopes(f: Any) -> Any:
    """A function that returns what `f` does, and the gradients of its sum."""

    def both(*args: Any) -> Any:
        xs = [leaf(a) for a in args]
        y = f(*xs)
        return y.detach(), *tr.grad(y.sum(), xs)

    return both


def leaf(x: Any) -> Any:
    """The values of a tensor under a node of their own, in a recording, too."""
    x = x.detach()
    x.requires_grad = True
    return x


def softmax(x: Any) -> Any:
    z = x - x.max(-1, keepdims=True)
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def logsumexp(z: Any) -> Any:
    top = z.max(-1, keepdims=True)
    return np.log(np.exp(z - top).sum(-1)) + top[..., 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6, 1e7, 1e8, -1e7])
def test_cross_entropy_at_any_offset(way: Any, offset: float, smoothing: float) -> None:
    x = (RNG.integers(-6, 7, (9, 5)) * (8.0 if offset == 1e8 else 1.0) + offset).astype("float32")
    ids = RNG.integers(0, 5, 9)
    f = value_and_slopes(lambda t: F.cross_entropy(t, ids, reduction="none", label_smoothing=smoothing))
    loss, slope = (t.numpy() for t in way(f, tr.Tensor(x)))
    z = x.astype(LONG) - x.max(-1, keepdims=True)
    share = (1 - smoothing) * np.eye(5)[ids] + smoothing / 5
    np.testing.assert_allclose(
        loss.astype(float), (logsumexp(z) - (share * z).sum(-1)).astype(float), rtol=2e-6, atol=1e-15
    )
    np.testing.assert_allclose(slope.astype(float), (softmax(z) - share).astype(float), rtol=2e-5, atol=1e-7)
    mean = way(lambda t: F.cross_entropy(t, ids, label_smoothing=smoothing), tr.Tensor(x)).item()
    assert mean == pytest.approx(float((logsumexp(z) - (share * z).sum(-1)).mean()), rel=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_confident_answer_has_its_small_loss(way: Any, offset: float, dtype: str) -> None:
    """Not 0, as log(1 + 2e-9) is, and the slope of the target is not 1 - 1."""
    gaps = np.array([1.0, 5.0, 12.0, 20.0, 40.0, 80.0])
    x = np.stack([offset + 0 * gaps, offset - gaps, offset - gaps - 1], 1).astype(dtype)
    f = value_and_slopes(lambda t: F.cross_entropy(t, np.zeros(6, int), reduction="none"))
    loss, slope = (t.numpy() for t in way(f, tr.Tensor(x)))
    rest = np.exp(-gaps.astype(LONG)) * (1 + np.exp(LONG(-1)))
    rtol = 4e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(loss.astype(float), np.log1p(rest).astype(float), rtol=rtol)
    np.testing.assert_allclose(slope[:, 0].astype(float), (-rest / (1 + rest)).astype(float), rtol=rtol)
    np.testing.assert_allclose(slope[:, 1].astype(float), (np.exp(-gaps) / (1 + rest)).astype(float), rtol=rtol)


def test_cross_entropy_of_70_000_classes(way: Any) -> None:
    x = RNG.standard_normal((2, 70_000)).astype("float32")
    for dtype, rtol in (("float32", 1e-6), ("float16", 1e-3)):
        rows = x.astype(dtype)
        f = value_and_slopes(lambda t: F.cross_entropy(t, [5, 69_999], reduction="none"))
        loss, slope = (t.numpy() for t in way(f, tr.Tensor(rows)))
        wide = rows.astype(LONG)
        exact = logsumexp(wide) - wide[[0, 1], [5, 69_999]]
        assert loss.dtype == slope.dtype == dtype
        np.testing.assert_allclose(loss.astype(float), exact.astype(float), rtol=rtol)
        assert slope[0, 5] == pytest.approx(float(softmax(wide)[0, 5] - 1), rel=1e-3)


def test_binary_cross_entropy_keeps_both_tails(way: Any) -> None:
    x = np.array([-80, -20, -5, 0.5, 5, 20, 80], "float32")
    for p in (0.0, 1.0, 0.25):
        f = value_and_slopes(lambda t: F.binary_cross_entropy_with_logits(t, np.full(7, p), reduction="none"))  # noqa: B023
        loss, slope = (t.numpy() for t in way(f, tr.Tensor(x)))
        z = x.astype(LONG)
        exact = p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
        np.testing.assert_allclose(loss.astype(float), exact.astype(float), rtol=2e-6)
        exact = -p / (1 + np.exp(z)) + (1 - p) / (1 + np.exp(-z))
        np.testing.assert_allclose(slope.astype(float), exact.astype(float), rtol=2e-6)


# --- normalisers --------------------------------------------------------------------------------------------------


def normalised(x: Any, axis: Any, g: Any, eps: float = 1e-5) -> Any:
    """x (N, D) in a longer precision, and what it pulls g back to."""
    x, g = x.astype(LONG), g.astype(LONG)
    scale = 1 / np.sqrt(x.var(axis, keepdims=True) + eps)
    z = (x - x.mean(axis, keepdims=True)) * scale
    return z, (g - g.mean(axis, keepdims=True) - z * (g * z).mean(axis, keepdims=True)) * scale


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e7])
@pytest.mark.parametrize("kind", ["layer", "batch"])
def test_normalisation_far_from_zero(way: Any, kind: str, offset: float) -> None:
    x = (RNG.integers(-9, 10, (16, 12)) + offset).astype("float32")
    g = RNG.standard_normal((16, 12)).astype("float32")
    norm = (lambda t: F.layer_norm(t, 12)) if kind == "layer" else (lambda t: F.batch_norm(t, training=True))
    y, dx = (t.numpy() for t in way(value_and_slopes(lambda t: norm(t) * g), tr.Tensor(x)))
    z, exact = normalised(x, -1 if kind == "layer" else 0, g)
    np.testing.assert_allclose(y.astype(float), (z * g).astype(float), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(dx.astype(float), exact.astype(float), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["layer", "batch"])
def test_normalisation_of_float16_in_the_hundreds(way: Any, kind: str) -> None:
    x = RNG.uniform(-900, 900, (64, 48)).astype("float16")
    g = RNG.standard_normal((64, 48)).astype("float16")
    norm = (lambda t: F.layer_norm(t, 48)) if kind == "layer" else (lambda t: F.batch_norm(t, training=True))
    y, dx = way(value_and_slopes(lambda t: norm(t) * g), tr.Tensor(x))
    z, exact = normalised(x, -1 if kind == "layer" else 0, g)
    assert y.dtype == dx.dtype == "float16"
    np.testing.assert_allclose(y.numpy().astype(float), (z * g).astype(float), rtol=4e-3, atol=2e-3)
    np.testing.assert_allclose(dx.numpy().astype(float), exact.astype(float), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("made", ["so", "by to", "inside another"])
def test_running_statistics_of_float16_are_float32(made: str) -> None:
    layer = tr.nn.BatchNorm1d(2, momentum=None, dtype="float16" if made == "so" else "float32")
    module: Any = tr.nn.Sequential(layer) if made == "inside another" else layer
    module.to("float16")
    assert layer.weight is not None and layer.weight.dtype == "float16"
    x = RNG.uniform(-900, 900, (500, 2)).astype("float16")
    for _ in range(3):
        y = module(x)
    assert layer.running_var is not None and layer.running_var.dtype == "float32" and y.dtype == "float16"
    np.testing.assert_allclose(layer.running_var.numpy(), x.astype(float).var(0, ddof=1), rtol=1e-5)
    z, _ = normalised(x, 0, x)
    np.testing.assert_allclose(module.eval()(x).numpy().astype(float), z.astype(float), rtol=5e-3, atol=2e-3)
    assert module.to("float64") and layer.running_var.dtype == "float64"


# --- float16 ------------------------------------------------------------------------------------------------------

PAIRS = ("mse_loss", "l1_loss", "huber_loss", "binary_cross_entropy_with_logits")


@pytest.mark.parametrize(("reduction", "masked"), [("mean", True), ("mean", False), ("sum", False)])
@pytest.mark.parametrize("name", [*PAIRS, "cross_entropy", "nll_loss"])
def test_losses_of_float16_over_many_rows(way: Any, name: str, masked: bool, reduction: str) -> None:
    """The sum is above 65504, the count above 2048 and 65504, a square may be: the mean is none of these."""
    N = 70_000
    scale = 1e-3 if reduction == "sum" else 1.0  # then the sum is a float16, too
    options: dict[str, Any] = {"reduction": reduction}
    if masked:
        options["mask"] = np.arange(N) % 5 > 0
    if name in PAIRS:
        x, target = RNG.uniform(-400, 400, N) * scale, RNG.uniform(0, 1, N) * scale
    else:
        x, target = -RNG.uniform(0, 9, (N, 2)) * scale, RNG.integers(0, 2, N)
    f = lambda t: getattr(F, name)(t, target, **options)
    half = tr.Tensor(x.astype("float16"))
    loss, slope = (t.numpy() for t in way(value_and_slopes(f), half))
    exact, exact_slope = (t.numpy() for t in value_and_slopes(f)(half.to("float64")))
    assert loss.dtype == slope.dtype == "float16"
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(loss, exact.astype("float16"), rtol=2e-3)
    np.testing.assert_allclose(slope.astype(float), exact_slope, rtol=2e-3, atol=6e-8)


def test_ctc_of_float16_over_many_steps() -> None:
    """Its log-probabilities add up to less than -65504, and to losses with more digits than float16 counts."""
    x = tr.log_softmax(tr.Tensor(RNG.uniform(-4, 4, (400, 2, 5)).astype("float16")))
    labels, steps, counts = np.tile([1, 2, 3, 4] * 20, (2, 1)), [400, 390], [80, 80]

    def loss(t: Any) -> Any:
        return F.ctc_loss(t, labels, steps, counts, reduction="none")

    found, slope = (t.numpy() for t in value_and_slopes(loss)(x))
    exact, exact_slope = (t.numpy() for t in value_and_slopes(loss)(x.to("float64")))
    assert found.dtype == slope.dtype == "float16"
    np.testing.assert_allclose(found.astype(float), exact, rtol=1e-3)
    np.testing.assert_allclose(slope.astype(float), exact_slope, atol=1e-3)


def test_average_pooling_of_float16() -> None:
    x = tr.full((1, 1, 3000), 300.0, dtype="float16")
    for counted in (False, True):
        found = F.avg_pool1d(x, 3000, padding=1500, count_include_pad=counted)
        assert found.dtype == "float16"
        np.testing.assert_allclose(found.numpy().ravel(), [150, 150] if counted else [300, 300], rtol=1e-3)


# --- gates --------------------------------------------------------------------------------------------------------


def gates(kind: str, z: np.ndarray, fused: bool) -> Any:
    """One step whose gates are σ(z), of states and inputs that let each of them be seen, and its gradient of z."""
    H, dtype = len(z), z.dtype
    ones = np.ones((1, H), dtype)

    def step(t: Any) -> Any:
        if kind == "rnn":
            W = tr.zeros(H, H, dtype=dtype.name)
            f = tr.nn.cells.rnn_step if fused else tr.nn.rnn_cell
            return f(t, tr.Tensor(ones), W, nonlinearity="sigmoid")
        if kind == "lstm":  # c' = σ(i) tanh(20), h' = σ(o) tanh(c') = σ(o) σ(i) in the tail
            W = tr.zeros(4 * H, H, dtype=dtype.name)
            x = tr.concatenate([t, tr.Tensor(-np.inf * ones), tr.Tensor(20 * ones), tr.zeros_like(t)], 1)
            state = tr.zeros(2, 1, H, dtype=dtype.name)
            if fused:
                return tr.nn.cells.lstm_step(x, state, W)[-1]
            return tr.nn.lstm_cell(x, state[0], state[1], W)[1]
        # h' = n + σ(z) (h - n) with n = 0, h = 1
        W = tr.zeros(3 * H, H, dtype=dtype.name)
        x = tr.concatenate([tr.zeros_like(t), t, tr.zeros_like(t)], 1)
        if fused:
            return tr.nn.cells.gru_step(x, tr.Tensor(ones[None]), W, None)[-1]
        return tr.nn.gru_cell(x, tr.Tensor(ones), W)

    return [t.numpy()[0] for t in value_and_slopes(step)(tr.Tensor(z[None]))]


@pytest.mark.parametrize("stages", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_gates_keep_the_tail_of_their_sigmoid(kind: str, dtype: str, fused: bool, stages: bool) -> None:
    if stages:
        pytest.importorskip("numba")
        tr.enable_numba()
    try:
        z = np.array([-9, -7.25, -3, 0, 3, 60] if dtype == "float16" else [-87, -40, -20, -9, -3, 0, 3, 20, 1e6], dtype)
        y, slope = gates(kind, z, fused)
    finally:
        if stages:
            tr.enable_numba(False)
    exact = 1 / (1 + np.exp(-z.astype(LONG)))
    rtol = {"float16": 4e-3, "float32": 1e-6, "float64": 1e-15}[dtype]
    np.testing.assert_allclose(y.astype(float), exact.astype(float), rtol=rtol)
    np.testing.assert_allclose(slope.astype(float), (exact * (1 - exact)).astype(float), rtol=4 * rtol, atol=rtol / 4)
    low = z < -2
    np.testing.assert_allclose(slope[low].astype(float), (exact * (1 - exact))[low].astype(float), rtol=4 * rtol)


@pytest.mark.parametrize("stages", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_an_output_gate_that_is_nearly_shut_keeps_the_slopes_behind_it(dtype: str, stages: bool) -> None:
    """Of h' = σ(z) tanh(c): its slopes by z and by c, from where σ(z) is 0 on."""
    if stages:
        pytest.importorskip("numba")
        tr.enable_numba()
    try:
        z = np.array([-1e4, -9, -3, 0, 3] if dtype == "float16" else [-1e4, -80, -20, -3, 0, 3], dtype)
        c = np.linspace(-2, 2, len(z), dtype=dtype)
        shut, ones = np.full_like(z, -np.inf), np.ones_like(z)
        x = leaf(tr.Tensor(np.concatenate([shut, -shut, 0 * ones, z])[None]))
        state = leaf(tr.Tensor(np.stack([0 * ones, c])[:, None]))
        y = tr.nn.cells.lstm_step(x, state, tr.zeros(4 * len(z), len(z), dtype=dtype))
        dx, dstate = (d.numpy() for d in tr.grad(y[-2].sum(), [x, state]))
    finally:
        if stages:
            tr.enable_numba(False)
    gate, t = 1 / (1 + np.exp(-z.astype(LONG))), np.tanh(c.astype(LONG))
    rtol, least = {"float16": 1e-2, "float32": 4e-6, "float64": 1e-14}[dtype], np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(dx[0, -len(z) :].astype(float), (gate * (1 - gate) * t).astype(float), rtol, least)
    np.testing.assert_allclose(dstate[1, 0].astype(float), (gate * (1 - t * t)).astype(float), rtol, least)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["layer", "batch"])
def test_normalisers_of_numbers_whose_squares_are_too_large(way: Any, kind: str, dtype: str) -> None:
    """Rows of ordinary numbers beside them keep their digits, and a row of equal large numbers is 0."""
    x = np.array([[1, 2, 3, 4.5], [0, -1, 1, 0.5], [3, -1, 2, 2], [1, 1, 1, 1]]).astype(dtype)
    x *= np.array([[1e19], [1], [1e36], [1e30]] if dtype == "float32" else [[1e160], [1], [1e300], [1e200]], dtype)
    g = RNG.standard_normal(x.shape).astype(dtype)
    if kind == "layer":
        f = lambda t: F.layer_norm(t, 4) * g
    else:
        f = lambda t: F.batch_norm(t.mT, training=True).mT * g
    y, slope = (t.numpy() for t in way(value_and_slopes(f), tr.Tensor(x)))
    z = x.astype(LONG) - x.astype(LONG).mean(1, keepdims=True)
    scale = 1 / np.sqrt((z * z).mean(1, keepdims=True) + LONG(1e-5))
    z = z * scale
    exact = scale * (g - g.mean(1, keepdims=True) - z * (g * z).mean(1, keepdims=True))
    rtol = 4e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(y.astype(float), (g * z).astype(float), rtol, atol=rtol)
    np.testing.assert_allclose((slope / scale).astype(float), (exact / scale).astype(float), rtol=1e-4, atol=8 * rtol)
