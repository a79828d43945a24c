"""ctc_loss: against a sum over all alignments, NumPy by hand, numeric derivatives and PyTorch; kernel against plain."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import ctc
from tinygrad_rnn.nn.functional import ctc_loss
from tinygrad_rnn.testing import check_gradients


@contextlib.contextmanager
def kernels(on: bool) -> Iterator[None]:
    tr.enable_fused(on)
    try:
        yield
    finally:
        tr.enable_fused(True)


def said(path: tuple[int, ...], blank: int) -> list[int]:
    """What an alignment says: repeats joined, blanks dropped."""
    return [c for c, _ in itertools.groupby(path) if c != blank]


def by_enumeration(log_p: np.ndarray, target: list[int], blank: int) -> tuple[float, np.ndarray]:
    """The loss of one labelling of log_p (T, C), and its gradient, by looking at all C ** T alignments."""
    T, C = log_p.shape
    total, seen = 0.0, np.zeros((T, C))
    for path in itertools.product(range(C), repeat=T):
        if said(path, blank) == target:
            p = math.exp(sum(log_p[t, c] for t, c in enumerate(path)))
            total += p
            for t, c in enumerate(path):
                seen[t, c] += p
    return (-math.log(total), -seen / total) if total else (math.inf, 0 * seen)


def log_softmax(x: np.ndarray) -> np.ndarray:
    z = x - x.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@st.composite
def batches(draw: Any, most_steps: int = 5, most_classes: int = 3, most_labels: int = 3) -> dict[str, Any]:
    """A batch of everything that can happen: lengths in any order, 0 included, targets too long for their steps."""
    T, B = draw(st.integers(0, most_steps)), draw(st.integers(0, 3))
    C, S = draw(st.integers(1, most_classes)), draw(st.integers(0, most_labels))
    blank = draw(st.integers(0, C - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    labels = [c for c in range(C) if c != blank]
    S = S if labels else 0
    steps = rng.integers(0, T + 1, B) if draw(st.booleans()) else np.full(B, T)
    counts = rng.integers(0, S + 1, B)
    targets = rng.choice(labels, (B, S)) if S else np.zeros((B, 0), int)
    log_p = log_softmax(draw(st.sampled_from([1.0, 5.0])) * rng.standard_normal((T, B, C)))
    return {"log_p": log_p, "targets": targets, "steps": steps, "counts": counts, "blank": blank, "rng": rng}


def expected(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Losses (B,) and gradients (T, B, C) of each, by enumeration."""
    log_p = case["log_p"]
    losses, slopes = np.zeros(log_p.shape[1]), np.zeros(log_p.shape)
    for b, (n, k) in enumerate(zip(case["steps"], case["counts"], strict=True)):
        losses[b], slopes[:n, b] = by_enumeration(log_p[:n, b], case["targets"][b, :k].tolist(), case["blank"])
    return losses, slopes


@given(case=batches(), fused=st.booleans(), joined=st.booleans(), reduction=st.sampled_from(["none", "sum", "mean"]))
def test_the_loss_is_the_sum_over_all_alignments(
    case: dict[str, Any], fused: bool, joined: bool, reduction: str
) -> None:
    """Padded and joined targets; what stands past an end, in targets and in log_probs, may be anything."""
    losses, slopes = expected(case)
    B, counts = len(losses), case["counts"]
    x = case["log_p"].copy()
    targets = np.where(np.arange(case["targets"].shape[1]) < counts[:, None], case["targets"], -7)
    for b, n in enumerate(case["steps"]):
        x[n:, b] = np.nan
    if joined:
        targets = targets[targets != -7]
    log_p = tr.Tensor(x, requires_grad=True)
    with kernels(fused):
        loss = ctc_loss(log_p, targets, case["steps"], counts, case["blank"], reduction)
        g = case["rng"].standard_normal(loss.shape)
        (found,) = tr.grad(loss, [log_p], g)
    scale = np.ones(B)
    if reduction != "none":
        scale = 1 / (np.maximum(counts, 1) * max(B, 1)) if reduction == "mean" else scale
        losses = np.asarray((losses * scale).sum())
    assert loss.shape == losses.shape and loss.dtype == np.float64
    np.testing.assert_allclose(loss.numpy(), losses, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.numpy(), slopes * (g * scale)[..., None], rtol=1e-9, atol=1e-13)
    assert (found.numpy()[np.isnan(x)] == 0).all()


@given(case=batches(12, 6, 6), dtype=st.sampled_from(["float32", "float64"]))
def test_the_kernel_is_the_definition(case: dict[str, Any], dtype: str) -> None:
    """All that it returns and pulls back: alpha at every step, gradients into every state that one can be in."""
    labels = ctc.checked_labels(
        case["targets"], case["counts"], len(case["counts"]), case["log_p"].shape[2], case["blank"]
    )
    seen: dict[str, Any] = {}

    def spy(log_p: tr.Tensor, **metadata: Any) -> tr.Tensor:
        seen.update(metadata)
        return forward(log_p, **metadata)

    forward = ctc.forward_variables
    x = tr.Tensor(case["log_p"], dtype=dtype, requires_grad=True)
    x._array.flags.writeable = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctc, "forward_variables", spy)
        ctc.labelling_losses(x, labels, case["steps"], case["counts"], case["blank"])
    results = []
    for on in (True, False):
        with kernels(on):
            y = forward(x, **seen)
            g = np.where(np.isfinite(y.numpy()), np.random.default_rng(0).standard_normal(y.shape), 0).astype(dtype)
            g.flags.writeable = False
            results.append((y, tr.grad(y, x, g)))
    (y, dx), (plain, expected_dx) = results
    assert y.shape == plain.shape and y.dtype == plain.dtype == np.dtype(dtype) == dx.dtype
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(y.numpy(), plain.numpy(), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(dx.numpy(), expected_dx.numpy(), rtol=10 * rtol, atol=100 * rtol)


def test_gradients_of_both_orders_are_those_of_a_numeric_derivative() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, 4))

    def loss(x: tr.Tensor) -> tr.Tensor:
        return ctc_loss(tr.log_softmax(x), [[1, 1, 2], [3, 9, 9], [9, 9, 9]], [6, 4, 3], [3, 1, 0], reduction="none")

    for fused in (True, False):
        with kernels(fused):
            check_gradients(loss, x, order=2)
    check_gradients(lambda x: ctc_loss(x, [[2, 1], [1, 2], [1, 1]], [6, 2, 5], [2, 2, 2], reduction="sum"), x, order=2)


def test_the_gradient_is_the_alignment() -> None:
    """Minus the slope: each step's classes have probabilities that sum to 1; steps at which it was sure stand out."""
    p = np.full((5, 1, 3), 0.05)
    p[[0, 1, 2, 3, 4], 0, [0, 1, 0, 2, 2]] = 0.9
    log_p = tr.Tensor(np.log(p), requires_grad=True)
    alignment = -tr.grad(ctc_loss(log_p, [[1, 2]], [5], [2], reduction="sum"), log_p).numpy()[:, 0]
    np.testing.assert_allclose(alignment.sum(1), 1, rtol=1e-12)
    assert alignment.argmax(1).tolist() == [0, 1, 0, 2, 2] and alignment.min() >= 0


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("zero", [True, False])
def test_a_target_that_cannot_be_said(fused: bool, zero: bool) -> None:
    """Too few steps, and one too few for the blank between two equal labels: `inf`, and nothing else is harmed."""
    x = tr.randn(3, 4, 3, dtype="float64", requires_grad=True)
    targets, steps, counts = [[1, 2, 1], [1, 1, 9], [1, 2, 9], [1, 1, 9]], [2, 2, 2, 3], [3, 2, 2, 2]
    with kernels(fused):
        losses = ctc_loss(tr.log_softmax(x), targets, steps, counts, reduction="none", zero_infinity=zero)
        (dx,) = tr.grad(losses, [x], np.ones(4))
        mean = ctc_loss(tr.log_softmax(x), targets, steps, counts, zero_infinity=zero)
        (of_mean,) = tr.grad(mean, [x])
    assert losses.numpy()[:2].tolist() == ([0, 0] if zero else [math.inf, math.inf])
    assert np.isfinite(losses.numpy()[2:]).all() and (mean.item() < math.inf) == zero
    assert (dx.numpy()[:, :2] == 0).all() and (dx.numpy()[:2, 2:] != 0).all()
    assert (of_mean.numpy()[:, :2] == 0).all() and (of_mean.numpy()[:2, 2:] != 0).all()


@pytest.mark.parametrize("fused", [True, False])
def test_what_is_nearly_or_quite_impossible(fused: bool) -> None:
    """Logits of -1e4, whose exponentials are 0 in any dtype, and probabilities that are exactly 0."""
    with kernels(fused):
        for dtype in ("float32", "float64"):
            x = tr.Tensor([[[0.0, -1e4, -1e4]]] * 3, dtype=dtype, requires_grad=True)
            loss = ctc_loss(tr.log_softmax(x), [[1, 2]], [3], [2])
            assert loss.item() == pytest.approx((2e4 - math.log(3)) / 2, rel=1e-6)  # 3 of the 5 ways have one blank
            (dx,) = tr.grad(loss, [x])
            np.testing.assert_allclose(dx.numpy().sum((1, 2)), 0, atol=1e-3)
            assert np.isfinite(dx.numpy()).all() and dx.numpy()[0, 0, 1] < -0.2
        log_p = tr.Tensor([[[-np.inf, 0.0]], [[0.0, -np.inf]]], requires_grad=True)
        losses = [ctc_loss(log_p, target, [2], [len(target)], reduction="sum") for target in ([1], [])]
        assert [loss.item() for loss in losses] == [0, math.inf]
        slopes = [tr.grad(loss, log_p).numpy() for loss in losses]
        assert slopes[0].tolist() == [[[0, -1]], [[-1, 0]]] and (slopes[1] == 0).all()


def test_float32_is_near_float64_over_a_long_sequence() -> None:
    rng = np.random.default_rng(0)
    x, targets = 3 * rng.standard_normal((400, 2, 9)), rng.integers(1, 9, (2, 40))
    found = []
    for dtype in ("float32", "float64"):
        z = tr.Tensor(x, dtype=dtype, requires_grad=True)
        loss = ctc_loss(tr.log_softmax(z), targets, [400, 333], [40, 31])
        found.append((loss.item(), tr.grad(loss, z)))
        assert loss.dtype == found[-1][1].dtype == np.dtype(dtype)
    (a, da), (b, db) = found
    assert a == pytest.approx(b, rel=1e-6)
    assert np.abs(da.numpy() - db.numpy()).max() < 2e-3 * np.abs(db.numpy()).max()


def test_dtypes_are_kept() -> None:
    for dtype in ("float16", "float32", "float64"):
        x = tr.randn(5, 2, 3, dtype=dtype, requires_grad=True)
        for reduction in ("none", "sum", "mean"):
            loss = ctc_loss(tr.log_softmax(x), np.ones((2, 1), np.uint8), [5, 4], [1, 1], reduction=reduction)
            assert loss.dtype == np.dtype(dtype)
            assert tr.grad(loss, x, np.ones(loss.shape, dtype)).dtype == np.dtype(dtype)


def test_without_a_batch() -> None:
    x = tr.log_softmax(tr.randn(5, 3, dtype="float64"))
    for lengths in ((5, 2), ([5], [2]), (np.array(5), tr.Tensor([2]))):
        loss = ctc_loss(x, [1, 2], *lengths, reduction="none")
        assert loss.shape == () and loss.item() == ctc_loss(x[:, None], [[1, 2]], [5], [2], reduction="sum").item()
    assert ctc_loss(x, [1, 2], 5, 2).item() == pytest.approx(loss.item() / 2)


def test_order_and_company_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    x = tr.log_softmax(tr.Tensor(rng.standard_normal((7, 4, 5))))
    targets, steps, counts = rng.integers(1, 5, (4, 3)), np.array([3, 7, 5, 6]), np.array([1, 3, 0, 2])
    losses = ctc_loss(x, targets, steps, counts, reduction="none").numpy()
    order = [2, 0, 3, 1]
    turned = ctc_loss(x[:, order], targets[order], steps[order], counts[order], reduction="none").numpy()
    np.testing.assert_allclose(turned, losses[order], rtol=1e-12)
    for b in range(4):
        alone = ctc_loss(x[: steps[b], b], targets[b, : counts[b]], steps[b], counts[b], reduction="none")
        np.testing.assert_allclose(alone.numpy(), losses[b], rtol=1e-12)


def test_on_the_strict_backend() -> None:
    strict = pytest.importorskip("array_api_strict")
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    results = []
    for make in (np.array, lambda a: strict.asarray(a.copy())):
        z = tr.Tensor(make(x), requires_grad=True)
        loss = ctc_loss(tr.log_softmax(z), [[1, 2], [1, 1]], [5, 2], [2, 2], zero_infinity=True)
        results.append((loss.numpy(), tr.grad(loss, z).numpy()))
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    x = np.random.default_rng(0).standard_normal((30, 3, 6))
    results = []
    for device in ("cpu", "cuda"):
        z = tr.Tensor(x, device=device, requires_grad=True)
        loss = ctc_loss(tr.log_softmax(z), [[1, 2, 3], [4, 4, 9], [9, 9, 9]], [30, 20, 25], [3, 2, 0])
        results.append((loss.numpy(), tr.grad(loss, z).numpy()))
        assert loss.device.partition(":")[0] == device
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_it_names_what_does_not_fit() -> None:
    x = tr.log_softmax(tr.zeros(5, 2, 4))
    good = {"targets": [[1, 2], [3, 1]], "input_lengths": [5, 5], "target_lengths": [2, 2]}

    def refused(error: type[Exception], match: str, log_probs: Any = x, **changed: Any) -> None:
        with pytest.raises(error, match=f"^ctc_loss: {match}$"):
            ctc_loss(log_probs, **(good | changed))

    refused(ValueError, r"input_lengths\[1\] is 6, but log_probs has 0 to 5 steps", input_lengths=[5, 6])
    refused(ValueError, r"input_lengths\[0\] is -1, but log_probs has 0 to 5 steps", input_lengths=[-1, 5])
    refused(ShapeError, r"a batch of 2 needs 2 input_lengths, got shape \(1,\)", input_lengths=[5])
    refused(ShapeError, r"a batch of 2 needs 2 target_lengths, got shape \(\)", target_lengths=2)
    refused(ValueError, r"target_lengths\[1\] is 3, but targets \(2, 2\) have room for 0 to 2", target_lengths=[2, 3])
    refused(
        ShapeError,
        r"target_lengths add up to 4, but targets \(one after the other\) are 3",
        targets=[1, 2, 3],
    )
    refused(
        ValueError,
        r"target 4 of entry 1 of the batch \(at 0\) is out of range for 4 classes: 0 to 3",
        targets=[[1, 2], [4, 1]],
    )
    refused(ValueError, r"target -1 of entry 0 .*", targets=[1, -1, 2, 3])
    refused(
        ValueError,
        r"target 0 of entry 1 of the batch \(at 1\) is the blank, which stands between labels without being asked",
        targets=[[1, 2], [1, 0]],
    )
    refused(
        ShapeError, r"targets must be \(2, S\), or \(N,\) one after the other, got shape \(3, 1\)", targets=[[1]] * 3
    )
    refused(ShapeError, r"targets must be .* got shape \(\)", targets=1)
    refused(DTypeError, "targets must be integers, got float32", targets=[[1.0, 2.0], [3.0, 1.0]])
    refused(DTypeError, "input_lengths must be integers, got float32", input_lengths=[5.0, 5.0])
    refused(ValueError, "blank 4 is out of range for 4 classes: 0 to 3", blank=4)
    refused(ValueError, "blank True is out of range .*", blank=True)
    refused(ShapeError, r"log_probs must be \(T, B, C\), or \(T, C\) without a batch, got shape \(4,\)", x[0, 0])
    refused(DTypeError, "log_probs must be floats, got int64", tr.Tensor(np.zeros((5, 2, 4), int)))
    refused(ValueError, r'reduction must be "mean", "sum" or "none", got \'average\'', reduction="average")


@given(case=batches(10, 6, 5), reduction=st.sampled_from(["none", "sum", "mean"]), zero=st.booleans())
@examples(dev=30, ci=100, thorough=500)
def test_as_in_pytorch(case: dict[str, Any], reduction: str, zero: bool) -> None:
    """Through log_softmax: PyTorch's slope by log_probs has that of log_softmax in it already."""
    torch = pytest.importorskip("torch")
    if not case["log_p"].size:
        return  # PyTorch refuses an empty batch
    a, b = tr.Tensor(case["log_p"], requires_grad=True), torch.tensor(case["log_p"], requires_grad=True)
    targets, lengths = case["targets"], (case["steps"], case["counts"])
    ours = ctc_loss(tr.log_softmax(a), targets, *lengths, case["blank"], reduction, zero)
    theirs = torch.nn.functional.ctc_loss(
        b.log_softmax(-1), *map(torch.tensor, (targets, *lengths)), case["blank"], reduction, zero
    )
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-11, atol=1e-12)
    ours.sum().backward()
    theirs.sum().backward()
    assert a.grad is not None
    found, wanted = a.grad.numpy(), b.grad.numpy()
    possible = ~np.isnan(wanted)  # theirs of what cannot be said; ours is 0
    np.testing.assert_allclose(found[possible], wanted[possible], rtol=1e-8, atol=1e-12)
    assert (found[~possible] == 0).all() and (not zero or possible.all())


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("fused", [True, False])
def test_zero_infinity_zeroes_what_is_impossible_and_nothing_else(reduction: str, fused: bool) -> None:
    """Too few steps: 0, with a gradient of 0. NaN: a NaN, so that a network that has diverged does not look perfect."""
    x = np.full((4, 3, 3), np.log(1 / 3))
    x[:, 1] = np.nan
    labels, steps, counts = [[1, 1], [1, 0], [1, 2]], [2, 4, 4], [2, 1, 2]
    tr.enable_fused(fused)
    try:
        t = tr.Tensor(x, requires_grad=True)
        loss = ctc_loss(t, labels, steps, counts, reduction=reduction, zero_infinity=True)
        g = tr.grad(loss.sum(), t)
    finally:
        tr.enable_fused(True)
    if reduction == "none":
        assert loss.tolist()[0] == 0 and np.isnan(loss.tolist()[1]) and loss.tolist()[2] > 0
    else:
        assert np.isnan(loss.item())
    assert (g.numpy()[:, 0] == 0).all() and np.isnan(g.numpy()[:, 1]).any() and (g.numpy()[:, 2] <= 0).all()
