"""Gradient clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.reference import assert_close
from tinygrad_rnn.errors import NonFiniteError
from tinygrad_rnn.nn import Parameter
from tinygrad_rnn.optim import clip_grad_norm_, clip_grad_value_


def with_gradients(*values: object, dtype: str = "float64") -> list[Parameter]:
    ps = []
    for value in values:
        g = np.asarray(value, dtype)
        p = Parameter(np.zeros(g.shape), dtype=dtype)
        p.grad = tr.Tensor(g)
        ps.append(p)
    return ps


def test_norm_over_all_parameters() -> None:
    ps = with_gradients([3.0, 0.0], [[4.0]])
    no_gradient = Parameter([1.0])
    before = [p.grad for p in ps]
    norm = clip_grad_norm_([*ps, no_gradient], 1.0)
    assert norm == 5.0 and no_gradient.grad is None
    factor = 1.0 / (5.0 + 1e-6)
    for p, old in zip(ps, before, strict=True):
        assert p.grad is not None and old is not None
        assert_close(p.grad.numpy(), old.numpy() * factor, 1e-15)
    assert before[0] is not None and before[0].numpy()[0] == 3.0  # what was handed out stays


def test_small_gradients_stay_bit_for_bit() -> None:
    ps = with_gradients([0.1, 0.2])
    assert math.isclose(clip_grad_norm_(ps, 1.0), math.hypot(0.1, 0.2))
    assert ps[0].grad is not None and (ps[0].grad.numpy() == [0.1, 0.2]).all()
    assert clip_grad_norm_([Parameter([1.0])], 1.0) == 0.0
    assert clip_grad_norm_([], 1.0) == 0.0


def test_one_parameter_generators_and_names() -> None:
    (p,) = with_gradients([3.0, 4.0])
    assert clip_grad_norm_(p, 10.0) == 5.0
    assert clip_grad_norm_((q for q in [p]), 10.0) == 5.0
    assert clip_grad_norm_([("p", p)], 10.0) == 5.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_gradient_is_named_and_nothing_changes(bad: float) -> None:
    ps = with_gradients([1.0], [2.0, bad], [3.0])
    with pytest.raises(NonFiniteError, match="parameter 1 holds"):
        clip_grad_norm_(ps, 1.0)
    with pytest.raises(NonFiniteError, match=r"parameter lstm\.weight"):
        clip_grad_norm_(zip(["a", "lstm.weight", "b"], ps, strict=True), 1.0)
    assert ps[0].grad is not None and ps[0].grad.item() == 1.0
    norm = clip_grad_norm_(ps, 1.0, error_if_nonfinite=False)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf


def test_the_norm_of_large_gradients_does_not_overflow() -> None:
    ps = with_gradients([3e30, 4e30], dtype="float32")
    assert math.isclose(clip_grad_norm_(ps, 1.0), 5e30, rel_tol=1e-6)
    assert ps[0].grad is not None
    assert_close(ps[0].grad.numpy(), np.array([0.6, 0.8], "float32"), 1e-6)
    half = with_gradients([300.0, 400.0], dtype="float16")
    assert math.isclose(clip_grad_norm_(half, 1.0), 500.0, rel_tol=1e-3)
    assert half[0].grad is not None
    assert_close(half[0].grad.numpy(), np.array([0.6, 0.8], "float16"), 1e-3)


def test_the_norm_of_small_gradients_does_not_vanish() -> None:
    ps = with_gradients([3e-30], [4e-30], dtype="float32")
    assert math.isclose(clip_grad_norm_(ps, 1e-35), 5e-30, rel_tol=1e-6)
    assert math.isclose(clip_grad_norm_(with_gradients([3e-5, 4e-5], dtype="float16"), 1.0), 5e-5, rel_tol=1e-2)
    assert clip_grad_norm_(with_gradients([0.0], []), 1.0) == 0
    with pytest.raises(NonFiniteError, match="parameter 1"):
        clip_grad_norm_(with_gradients([0.0], [float("nan")]), 1.0)


def test_a_factor_that_is_no_float16() -> None:
    """The norm of many large gradients is 6e7, and 1 over that is below what float16 holds."""
    ps = with_gradients(np.full(1_000_000, 6e4), dtype="float16")
    assert math.isclose(clip_grad_norm_(ps, 1.0), 6e7, rel_tol=1e-3)
    assert ps[0].grad is not None and ps[0].grad.dtype == "float16"
    assert ps[0].grad.numpy()[0] == np.float16(1e-3)
    clip_grad_value_(ps, 1e6)  # no float16, either
    assert ps[0].grad.numpy()[0] == np.float16(1e-3)


def test_values() -> None:
    ps = with_gradients([-3.0, 0.5], [2.0])
    clip_grad_value_(ps, 1.0)
    assert [p.grad.tolist() for p in ps if p.grad is not None] == [[-1.0, 0.5], [1.0]]


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_limits_must_be_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        clip_grad_norm_([], bad)
    with pytest.raises(ValueError, match="above 0"):
        clip_grad_value_([], bad)


def test_is_what_pytorch_does() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ps = with_gradients(rng.standard_normal((3, 2)), rng.standard_normal(4))
    qs = [torch.nn.Parameter(torch.zeros(p.shape, dtype=torch.float64)) for p in ps]
    for p, q in zip(ps, qs, strict=True):
        assert p.grad is not None
        q.grad = torch.tensor(p.grad.numpy())
    norm = clip_grad_norm_(ps, 0.5)
    assert math.isclose(norm, torch.nn.utils.clip_grad_norm_(qs, 0.5).item(), rel_tol=1e-12)
    for p, q in zip(ps, qs, strict=True):
        assert p.grad is not None
        assert_close(p.grad.numpy(), q.grad.numpy(), 1e-12)
