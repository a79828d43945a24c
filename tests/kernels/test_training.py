"""What stands around the layers in a step of training, by kernels in CUDA: each beside its definition in NumPy.

The stand-in compiles the same source by a C++ compiler; that NVRTC compiles it, too, is in test_cuda.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.kernels.test_cuda import TOLERANCE, each_dtype
from tests.reference import assert_close
from tests.standin.cupy import _device
from tinygrad_rnn.kernels.cuda import training
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.tensor import device

RNG = np.random.default_rng(0)


@pytest.fixture
def cp(standin: Any) -> Iterator[Any]:
    """The stand-in, with nothing put off from before."""
    device._flags.clear()
    device._put_off.clear()
    yield standin
    device._flags.clear()
    device._put_off.clear()


@pytest.fixture
def without_kernels() -> Iterator[None]:
    yield
    tr.enable_cuda_kernels()


def launches(f: Any) -> int:
    """How many calls of the device `f` makes."""
    _device.calls.clear()
    f()
    return sum(n for kind, n in _device.totals().items() if kind != "synchronisation")


# --- ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_ids_are_placed_and_looked_at(cp: Any, dtype: str) -> None:
    ids = cp.asarray(RNG.integers(0, 7, (3, 100)), dtype=dtype)
    placed = training.placed_ids(ids, 7, lambda placed: IndexError("no"))
    training.check_ids(ids[:, ::2], 7, lambda: ValueError("no"))
    assert placed.dtype == "int64" and np.array_equal(device.read(placed), ids.get())
    wrong = cp.asarray(np.array([[6, 7], [0, 1]]), dtype=dtype)
    training.check_ids(wrong, 7, lambda: ValueError("7 is none"))
    with pytest.raises(ValueError, match="7 is none"):
        device.read(cp.zeros(1))
    device.read(cp.zeros(1))
    training.placed_ids(wrong, 7, lambda placed: IndexError(f"{placed.get()[0].tolist()}"))
    with pytest.raises(IndexError, match=r"\[6, 7\]"):
        device.read(cp.zeros(1))


def test_ids_below_zero_count_from_the_end(cp: Any) -> None:
    placed = training.placed_ids(cp.asarray(np.array([-7, -1, 0])), 7, lambda placed: IndexError("no"))
    assert device.read(placed).tolist() == [0, 6, 0]
    training.placed_ids(cp.asarray(np.array([-8])), 7, lambda placed: IndexError(f"{placed.get().tolist()}"))
    with pytest.raises(IndexError, match=r"\[-1\]"):
        device.check_now()
    with pytest.raises(IndexError, match=r"index -8 is out of range for axis 0 of size 7"):
        tr.take(tr.zeros(7, device="cuda"), tr.Tensor([1, -8], device="cuda")).numpy()
    training.check_ids(cp.asarray(np.array([-1])), 7, lambda: ValueError("-1 is none"))
    with pytest.raises(ValueError, match="-1 is none"):
        device.check_now()


@each_dtype
@pytest.mark.parametrize("size", [(0, 3, 2), (1, 1, 1), (300, 5, 130), (257, 65, 7), (128, 2, 128), (5, 9, 0)])
def test_rows_are_added_in_their_order(cp: Any, size: tuple[int, int, int], dtype: str) -> None:
    N, R, K = size
    ids, g, table = RNG.integers(0, R, N), RNG.standard_normal((N, K)), RNG.standard_normal((R, K))
    there = cp.asarray(table, dtype=dtype)
    training.add_rows(there, cp.asarray(ids, dtype="int32"), cp.asarray(g, dtype=dtype))
    expected = table.copy()
    np.add.at(expected, ids, g)
    assert_close(there.get(), expected, TOLERANCE[dtype])
    assert training.adds_rows(there, cp.asarray(ids), there)
    assert not training.adds_rows(there.T if K > 1 else there.astype("float16"), cp.asarray(ids), there)


def test_the_sum_of_rows_is_that_of_their_order(cp: Any) -> None:
    """To the bit, where another order would have other bits."""
    g = np.array([1e8, 1, -1e8, 1] * 40, np.float32)[:, None]
    table, expected = cp.zeros((2, 1), dtype="float32"), np.float32(0)
    training.add_rows(table, cp.asarray(np.zeros(160, np.int64)), cp.asarray(g))
    for value in g[:, 0]:
        expected = expected + value
    assert table.get().tolist() == [[expected], [0]]


# --- dropout --------------------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 100)])
def test_dropout_draws_as_the_definition(cp: Any, shape: tuple[int, ...], dtype: str) -> None:
    like = np.zeros(shape, dtype)
    for p, seed in ((0.25, 7), (0.9, 2**63 - 1), (1.0, 3)):
        mask = training.dropout_mask(cp.asarray(like), p, lambda seed=seed: seed)
        scale = like.dtype.type(0 if p == 1 else 1 / (1 - p))
        assert mask.dtype == dtype
        assert np.array_equal(mask.get(), (device.uniform(np, shape, seed) >= np.float32(p)) * scale)


def test_dropout_is_the_same_without_kernels(cp: Any, without_kernels: None) -> None:
    x, found = tr.ones(40, 30, device="cuda"), []
    for on in (True, False):
        tr.enable_cuda_kernels(on)
        tr.manual_seed(3)
        found.append(F.dropout(x, 0.3).numpy())
    assert np.array_equal(*found)


# --- the loss -------------------------------------------------------------------------------------------------


def losses_of(x: Any, targets: Any, **options: Any) -> tuple[Any, Any]:
    """The loss and the gradient, of arrays of the host or of the device."""
    logits = tr.Tensor(x, requires_grad=True)
    loss = F.cross_entropy(logits, tr.Tensor(targets), **options)
    (loss * 3.0).backward()
    assert logits.grad is not None
    return loss.numpy(), logits.grad.numpy()


@each_dtype
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"label_smoothing": 0.1}, {"ignore_index": 0}])
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (7, 65), (5, 300), (2, 128)])
def test_the_loss_is_that_of_the_host(cp: Any, size: tuple[int, int], options: dict[str, Any], dtype: str) -> None:
    N, C = size
    x, targets = 4 * RNG.standard_normal((N, C)).astype(dtype), RNG.integers(0, C, N)
    for mask in (None, RNG.integers(0, 2, N) > 0):
        for sure in (False, True):
            x[0, 0] = 60 if sure else x[0, 0]
            expected = losses_of(x, targets, mask=mask, **options)
            found = losses_of(cp.asarray(x), cp.asarray(targets), mask=mask, **options)
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.dtype == dtype
                np.testing.assert_allclose(ours, theirs, TOLERANCE[dtype], TOLERANCE[dtype])  # 0 of one class


def test_the_loss_of_nothing(cp: Any) -> None:
    for N, mask in ((0, None), (2, [False, False])):
        loss, slopes = losses_of(cp.zeros((N, 3), "float32"), cp.asarray(np.zeros(N, np.int64)), mask=mask)
        assert loss == 0 and not slopes.any() and slopes.shape == (N, 3)


def test_what_does_not_count_may_be_anything(cp: Any) -> None:
    x = np.array([[np.nan, np.inf, 1], [1, 2, 3]])
    expected = losses_of(x[1:], [2])
    for targets, mask in (([-100, 2], None), ([7, 2], [False, True])):
        loss, slopes = losses_of(cp.asarray(x), cp.asarray(np.array(targets)), mask=mask)
        assert_close(loss, expected[0], 1e-12)
        assert not slopes[0].any()
        assert_close(slopes[1:], expected[1], 1e-12)


@pytest.mark.parametrize(
    "row", [[-np.inf, 0, 1], [np.inf, 0, 1], [-np.inf] * 3, [np.nan, 0, 1], [1e30, -1e30, 0], [0, -np.inf, np.inf]]
)
def test_special_logits_have_the_losses_of_the_host(cp: Any, row: list[float]) -> None:
    with np.errstate(all="ignore"):
        expected = losses_of(np.array([row]), [0])
        found = losses_of(cp.asarray(np.array([row])), cp.asarray(np.array([0])))
    np.testing.assert_allclose(found[0], expected[0], 1e-12)
    np.testing.assert_allclose(found[1], expected[1], 1e-12)


def test_a_sure_answer_keeps_its_digits(cp: Any) -> None:
    x = np.array([[60.0, 1.0, 2.0], [0.0, 90.0, -3.0]])
    loss, slopes = losses_of(cp.asarray(x), cp.asarray(np.array([0, 1])))
    probabilities = np.exp(x - [[60], [90]])
    probabilities[[0, 1], [0, 1]] = 0  # of the others
    assert_close(loss, probabilities.sum() / 2, 1e-12)
    assert_close(-slopes[[0, 1], [0, 1]], 1.5 * probabilities.sum(1), 1e-12)


def test_an_id_out_of_range_is_wrapped_until_it_is_named(cp: Any) -> None:
    x = cp.asarray(RNG.standard_normal((1, 3)))
    for target in (7, -8, -3):
        loss = F.cross_entropy(tr.Tensor(x), tr.Tensor([target], device="cuda"))
        with pytest.raises(ValueError, match=f"target {target}"):
            loss.item()
        assert loss.item() == F.cross_entropy(tr.Tensor(x), tr.Tensor([target % 3], device="cuda")).item()


def test_a_target_out_of_range_is_named_with_the_loss(cp: Any) -> None:
    x = cp.zeros((4, 3), "float32")
    for targets, mask in (([0, 1, 3, 0], None), ([9, 1, -1, 0], [False, True, True, True])):
        loss = F.cross_entropy(tr.Tensor(x), tr.Tensor(targets, device="cuda"), mask=mask)
        with pytest.raises(
            ValueError, match=rf"cross_entropy: target {targets[2]} \(element 2\) is out of range for 3"
        ):
            loss.item()
        assert math.isfinite(loss.item())


def test_the_loss_may_be_differentiated_twice(cp: Any) -> None:
    x = RNG.standard_normal((3, 4))
    curvatures = []
    for logits in (tr.Tensor(x, requires_grad=True), tr.Tensor(cp.asarray(x), requires_grad=True)):
        targets = tr.Tensor([0, -100, 2], device=logits.device)
        loss = F.cross_entropy(logits, targets, label_smoothing=0.1)
        slopes = tr.grad(loss, logits, create_graph=True)
        curvatures.append(tr.grad(tr.square(slopes).sum(), logits).numpy())
    assert_close(curvatures[1], curvatures[0], 1e-12)


# --- clipping, and Adam ---------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("n", [0, 1, 129, 70_000])
def test_the_square_of_a_norm_and_the_factor_of_clipping(cp: Any, n: int, dtype: str) -> None:
    x = RNG.standard_normal(n)
    there = cp.asarray(x, dtype=dtype)
    both = training.squared_norm(there, 2.0)
    squares = (x * x).sum()
    assert_close(both.get(), np.array([squares, 2 / (math.sqrt(squares) + 1e-6)]), TOLERANCE[dtype])
    clipped = training.clipped(there, both).get()
    assert np.array_equal(clipped, there.get() * min(1, both.get()[1])) and clipped.dtype == dtype


@each_dtype
@pytest.mark.parametrize("kind", [tr.optim.Adam, tr.optim.AdamW])
def test_steps_with_clipping_are_those_of_the_host(cp: Any, kind: Any, dtype: str) -> None:
    start, slopes = [RNG.standard_normal(s) for s in ((3, 4), (), (130,))], RNG.standard_normal((3, 150))
    found: list[list[Any]] = []
    for place in ("cpu", "cuda"):
        parameters = [tr.nn.Parameter(a, dtype=dtype, device=place) for a in start]
        optimizer, norms = kind(parameters, lr=0.1, weight_decay=0.01), []
        for g in slopes:
            for p in parameters:
                p.grad = g[: p.size].reshape(p.shape).tolist()
            norms.append(tr.optim.clip_grad_norm_(parameters, 0.5))
            assert all(p.grad is not None and p.grad.shape == p.shape for p in parameters)
            optimizer.step()
        found.append([np.array(norms), *(p.numpy() for p in parameters)])
    for ours, theirs in zip(*found, strict=True):
        assert_close(theirs, ours, TOLERANCE[dtype])


def test_gradients_that_cannot_be_squared_are_clipped_with_care(cp: Any) -> None:
    p = tr.nn.Parameter([3.0, 4.0], device="cuda")
    for scale in (1e30, 1e-30):
        p.grad = [3.0 * scale, 4.0 * scale]
        assert tr.optim.clip_grad_norm_([p], 1e-20) == pytest.approx(5 * scale)


# --- how many launches ----------------------------------------------------------------------------------------


def test_each_is_a_handful_of_launches(cp: Any) -> None:
    """Counted by the stand-in; without the kernels they are 61, 15, 18, 23 and 13."""
    x = tr.Tensor(RNG.standard_normal((40, 7)), dtype="float32", device="cuda", requires_grad=True)
    ids = tr.Tensor(RNG.integers(0, 7, 40), device="cuda")
    embedding = tr.nn.Embedding(7, 5).to("cuda")
    parameters = [tr.nn.Parameter(np.ones((3, 4), np.float32), device="cuda") for _ in range(7)]
    optimizer = tr.optim.Adam(parameters)

    def with_gradients(f: Any) -> int:
        for p in parameters:
            p.grad = np.ones((3, 4)).tolist()
        return launches(f)

    device.new_flag()
    with_gradients(optimizer.step)
    counts = {
        "loss": launches(lambda: F.cross_entropy(x, ids).backward()),
        "lookup": launches(lambda: embedding(ids)),
        "dropout": launches(lambda: F.dropout(x, 0.5)),
        "clip": with_gradients(lambda: tr.optim.clip_grad_norm_(parameters, 0.1)),
        "Adam": with_gradients(optimizer.step),
    }
    most = {"loss": 7, "lookup": 3, "dropout": 2, "clip": 5, "Adam": 2}
    assert {name: n for name, n in counts.items() if n > most[name]} == {}, counts
