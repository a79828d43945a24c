"""Every op at zeros of both signs, at poles, at infinities and at NaN: its value and its gradient, exactly.

They stand in the row of the op, `Domain.special`. The rules, with where they are documented:

- Where a derivative is infinite (log, sqrt, 1 / b, powers), so is the gradient, but a gradient of 0 stays 0
  (`tensor/ops/arithmetic.py`, at the top).
- A zero has the derivative of its sign where that matters: 1 / x, so log and sqrt, at -0.0 is -inf, as IEEE has it.
- A product of 0 and an infinite value is NaN, forwards and backwards, as in NumPy; `tr.detect_anomaly()` names it.
- NaN in, NaN out. Rules that compare (relu, maximum, max, clip) find NaN neither larger nor equal: gradient 0.
- Functions that saturate are finite at ±inf where they have a limit.
- Rows of -inf alone: softmax is 0, logsumexp is -inf, both with gradient 0. A logit of +inf is an overflow: NaN.
- Subgradients at kinks and ties are in `test_subgradients.py`, with options; here are one or two each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.testing import DOMAINS

inf, nan = math.inf, math.nan


CASES = [
    pytest.param(domain, case, id=f"{domain}-{i}")
    for domain in DOMAINS
    if not isinstance(domain.special, str)
    for i, case in enumerate(domain.special)
]


def test_every_op_has_special_values_or_says_why_not():
    assert {domain.op.__name__ for domain in DOMAINS if domain.special} == set(ops.__all__)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("domain", "case"), CASES)
@np.errstate(all="ignore")  # a forward at a pole warns, as NumPy does
def test_special_values(domain, case, dtype):
    xs = [tr.Tensor(np.array(x, dtype), requires_grad=True) for x in case.arguments]
    out = (case.call or domain)(*xs)
    rtol = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(out.numpy(), np.array(case.value), rtol=rtol, atol=0)
    u = np.ones(out.shape) if case.cotangent is None else np.array(case.cotangent)
    found = tr.grad(out, xs, u, retain_graph=True)
    for g, expected in zip(found, case.gradients, strict=True):
        np.testing.assert_allclose(g.numpy(), np.array(expected, dtype).reshape(g.shape), rtol=rtol, atol=0)
    recorded = tr.grad(out, xs, u, create_graph=True)  # the same rules on Tensors
    for g, again in zip(found, recorded, strict=True):
        np.testing.assert_array_equal(again.numpy(), g.numpy())
    for zero, g in zip(tr.grad(out, xs, 0 * u), found, strict=True):
        finite = np.isfinite(g.numpy()) | domain.zero_stays
        assert not zero.numpy()[finite].any(), "a gradient of 0 must stay 0 where the derivative is finite"


@np.errstate(all="ignore")
def test_signs_of_zero():
    """What NumPy's own functions do, and ours must not lose."""
    zeros = tr.Tensor(np.array([0.0, -0.0]))
    for f in (tr.negative, tr.sin, tr.tanh, tr.expm1, tr.log1p, tr.sqrt, tr.silu, tr.gelu, tr.leaky_relu):
        expected = [True, False] if f is tr.negative else [False, True]
        assert np.signbit(f(zeros).numpy()).tolist() == expected, f
    assert not np.signbit(tr.abs(zeros).numpy()).any()
    assert (1 / zeros).tolist() == [inf, -inf]
    assert not np.signbit(tr.where(zeros == 0, 0.0, zeros).numpy()).any()


def test_comparisons_of_special_values():
    a, b = tr.Tensor(np.array([0.0, nan, inf, -inf])), tr.Tensor(np.array([-0.0, nan, inf, inf]))
    assert tr.equal(a, b).tolist() == [True, False, True, False]
    assert tr.not_equal(a, b).tolist() == [False, True, False, True]
    assert tr.less(a, b).tolist() == [False, False, False, True]
    assert tr.less_equal(a, b).tolist() == [True, False, True, True]
    assert tr.greater(a, b).tolist() == [False, False, False, False]
    assert tr.greater_equal(a, b).tolist() == [True, False, True, False]


def test_argmax_of_special_values():
    for x, largest, smallest in (
        ([1.0, 1.0], 0, 0),
        ([-inf, inf, inf], 1, 0),
        ([1.0, nan, 3.0], 1, 1),
        ([0.0, -0.0], 0, 0),
    ):
        assert (tr.argmax(tr.Tensor(x)).item(), tr.argmin(tr.Tensor(x)).item()) == (largest, smallest)


BIG = 65504.0  # the largest float16


@pytest.mark.parametrize(
    ("f", "x", "y", "g"),
    [
        (tr.softplus, [BIG, -BIG], [BIG, 0], [1, 0]),
        (tr.sigmoid, [BIG, -BIG], [1, 0], [0, 0]),
        (tr.tanh, [BIG, -BIG], [1, -1], [0, 0]),
        (tr.silu, [BIG, -BIG], [BIG, 0], [1, 0]),
        (tr.gelu, [BIG, -BIG], [BIG, 0], [1, 0]),
        (tr.elu, [BIG, -BIG], [BIG, -1], [1, 0]),
        (tr.softmax, [BIG, -1.0], [1, 0], [0, 0]),
        (tr.logsumexp, [BIG, BIG], BIG, [0.5, 0.5]),
        (tr.mean, [BIG, BIG], BIG, [0.5, 0.5]),
        (tr.sum, [BIG, BIG], inf, [1, 1]),
        (tr.exp, [11.0, 12.0], [59872, inf], [59872, inf]),
        (tr.square, [255.0, 256.0], [65024, inf], [510, 512]),
        (tr.log_softmax, [6e4, -6e4], [0, -inf], [-1, 1]),  # -120,000 is no float16
        (tr.norm, [300.0, 400.0], 500, [0.6, 0.8]),  # the squares are no float16
        (tr.norm, [6e4, 6e4], inf, [0.7071, 0.7071]),  # nor is this norm, but its direction
    ],
)
@np.errstate(over="ignore")
def test_the_ends_of_float16(f, x, y, g):
    x = tr.Tensor(np.array(x, np.float16), requires_grad=True)
    out = f(x)
    assert out.dtype == np.float16
    np.testing.assert_array_equal(out.numpy(), np.array(y, np.float16))
    (found,) = tr.grad(tr.sum(out), [x])
    np.testing.assert_array_equal(found.numpy(), np.array(g, np.float16))


def test_second_order_at_special_points():
    """The rules are differentiated again: 0 stays 0 there, too, and saturated ends stay finite."""
    assert tr.hessian(lambda x: tr.where(x > 0, tr.sqrt(x), x * x).sum())(tr.Tensor([0.0])).tolist() == [[2.0]]
    ends = tr.Tensor(np.array([-inf, -1000.0, 1000.0, inf]), requires_grad=True)
    for f in (tr.tanh, tr.sigmoid, tr.softplus, tr.gelu, tr.elu):
        g = tr.grad(f(ends), ends, np.ones(4), create_graph=True)
        assert tr.grad(g, ends, np.ones(4)).tolist() == [0, 0, 0, 0], f
    inner = tr.Tensor(np.array([-1000.0, 1000.0]), requires_grad=True)
    assert tr.grad(tr.grad(tr.silu(inner), inner, np.ones(2), create_graph=True), inner, np.ones(2)).tolist() == [0, 0]
