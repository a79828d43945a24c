"""Exactly at kinks, ties and poles: the subgradients that the documentation promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_rnn as tr


def slope(f, *values, dtype=np.float64):
    """The gradients of sum(f) at the values."""
    xs = [tr.Tensor(np.array(v, dtype), requires_grad=True) for v in values]
    gs = tr.grad(tr.sum(f(*xs)), xs)
    assert all(g.dtype == dtype for g in gs)
    return gs[0].tolist() if len(gs) == 1 else [g.tolist() for g in gs]


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (tr.relu, [0.0, 0.0, 0.0, 1.0]),
        (tr.abs, [-1.0, 0.0, 0.0, 1.0]),
        (tr.sign, [0.0, 0.0, 0.0, 0.0]),
        (lambda x: 0.0 * tr.sign(x), [0.0, 0.0, 0.0, 0.0]),
        (lambda x: tr.maximum(x, 0.0), [0.0, 0.5, 0.5, 1.0]),
        (lambda x: tr.minimum(x, 0.0), [1.0, 0.5, 0.5, 0.0]),
        (lambda x: tr.clip(x, min=0.0, max=5.0), [0.0, 1.0, 1.0, 1.0]),
        (lambda x: tr.clip(x, min=-1.0, max=0.0), [1.0, 1.0, 1.0, 0.0]),
        (lambda x: tr.clip(x, min=0.0), [0.0, 1.0, 1.0, 1.0]),
        (lambda x: tr.clip(x, max=0.0), [1.0, 1.0, 1.0, 0.0]),
        (lambda x: tr.where(x > 0, x, 2 * x), [2.0, 2.0, 2.0, 1.0]),
    ],
)
def test_kinks_at_zero_and_minus_zero(f, expected):
    x = [-1.0, 0.0, -0.0, 2.0]
    for dtype in (np.float64, np.float32, np.float16):
        assert slope(f, x, dtype=dtype) == expected


def test_leaky_relu_and_elu_are_continuous_at_zero():
    (left, zero, right) = slope(lambda x: tr.elu(x), [-1e-9, 0.0, 1e-9])
    assert abs(left - 1) < 1e-8
    assert zero == right == 1.0
    assert slope(lambda x: tr.leaky_relu(x, negative_slope=0.25), [-1.0, 0.0, 1.0]) == [0.25, 0.25, 1.0]
    assert slope(lambda x: tr.elu(x, alpha=0.5), [0.0, 1.0]) == [0.5, 1.0]


@pytest.mark.parametrize("f", [tr.norm, lambda x: tr.norm(x, axis=0), lambda x: tr.norm(x, axis=-1, keepdims=True)])
def test_norm_at_zero(f):
    assert slope(f, np.zeros((2, 3))) == np.zeros((2, 3)).tolist()
    x = tr.Tensor(np.zeros((2, 3)), requires_grad=True)
    (g,) = tr.grad(tr.sum(f(x)), [x], create_graph=True)
    assert np.all(g.numpy() == 0)


@pytest.mark.filterwarnings("ignore:.*empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_a_mean_of_nothing_has_a_gradient_of_nothing():
    assert slope(tr.mean, np.zeros((0, 3))) == []
    assert slope(lambda x: tr.mean(x, axis=1), np.zeros((2, 0))) == [[], []]


def test_a_running_sum_of_all_elements():
    u = np.arange(6.0)
    found = slope(lambda x: tr.cumsum(x) * u, np.ones((2, 3)))
    assert found == [[15.0, 15.0, 14.0], [12.0, 9.0, 5.0]]


def test_norm_of_some_zero_rows():
    assert slope(lambda x: tr.norm(x, axis=1), [[3.0, 4.0], [0.0, 0.0]]) == [[0.6, 0.8], [0.0, 0.0]]


@pytest.mark.parametrize("f", [tr.max, tr.min])
def test_max_and_min_share_equally_among_ties(f):
    sign = 1.0 if f is tr.max else -1.0
    x = sign * np.array([[1.0, 5.0, 5.0], [5.0, 2.0, 5.0]])
    assert slope(f, x) == [[0.0, 0.25, 0.25], [0.25, 0.0, 0.25]]
    assert slope(lambda x: f(x, axis=1), x) == [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]
    assert slope(lambda x: f(x, axis=(1, 0), keepdims=True), x) == [[0.0, 0.25, 0.25], [0.25, 0.0, 0.25]]
    assert slope(lambda x: f(x, axis=0), x) == [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]]


def test_max_of_float16_with_many_ties():
    """1 / 5000 is fine in float16, a count of 5000 in float16 too, but a sum of ones would stop at 2048."""
    for n in (5000, 70000):
        x = tr.Tensor(np.ones(n, np.float16), requires_grad=True)
        tr.max(x).backward()
        g = x.grad.numpy().astype(np.float64)
        assert np.all(np.isfinite(g))
        assert np.all(g > 0)
        assert abs(g.sum() - 1) < 0.2  # 1 / 70000 is subnormal in float16, with few digits


def test_max_of_stride_0_shares():
    x = tr.Tensor(np.ones(1), requires_grad=True)
    tr.max(tr.broadcast_to(x, (4, 4))).backward()
    assert x.grad.tolist() == [1.0]


def test_maximum_and_minimum_give_half_to_each():
    for f in (tr.maximum, tr.minimum):
        assert slope(f, [1.0, 2.0], [1.0, 2.0]) == [[0.5, 0.5], [0.5, 0.5]]
        assert slope(lambda a, b, f=f: 6 * f(a, b), [1.0], [1.0]) == [[3.0], [3.0]]
        x = tr.Tensor([3.0], requires_grad=True)
        f(x, x).backward()
        assert x.grad.tolist() == [1.0]


@np.errstate(invalid="ignore", divide="ignore")  # the forward does compute the branch that is not taken
def test_a_masked_branch_contributes_nothing():
    """where(x > 0, sqrt(x), x) at -1: torch, JAX, MyGrad and autograd give NaN."""
    assert slope(lambda x: tr.where(x > 0, tr.sqrt(x), x), [-1.0, 4.0]) == [1.0, 0.25]
    assert slope(lambda x: tr.where(x > 0, tr.sqrt(x), 0.0 * x), [0.0, 4.0]) == [0.0, 0.25]
    assert slope(lambda x: tr.where(x > 0, tr.log(x), x), [-1.0, 0.0, 4.0]) == [1.0, 1.0, 0.25]
    assert slope(lambda x: tr.where(x != 0, 1 / x, x), [0.0, 2.0]) == [1.0, -0.25]


@np.errstate(all="ignore")
@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (lambda x: tr.where(x < 10, tr.exp(x), 3 * x * x), [0.0, 1000.0], [1.0, 6.0]),
        (tr.elu, [-1.0, 1000.0], [math.exp(-1), 0.0]),
        (lambda x: tr.where(x < 10, tr.expm1(x), 3 * x * x), [0.0, 1000.0], [1.0, 6.0]),
        (lambda x: tr.where(x > 0, tr.sqrt(x), 3 * x * x), [0.0, 4.0], [6.0, -1 / 32]),
        (lambda x: tr.where(x > 0, x**0.5, 3 * x * x), [0.0, 4.0], [6.0, -1 / 32]),
        (lambda x: tr.where(x > 0, tr.log(x), 3 * x * x), [-1.0, 0.0, 4.0], [6.0, 6.0, -1 / 16]),
        (lambda x: tr.where(x != 0, 1 / x, 3 * x * x), [0.0, 4.0], [6.0, 1 / 32]),
        (lambda x: tr.where(x > 0, x**x, 3 * x * x), [0.0, 1.0], [6.0, 2.0]),
    ],
)
def test_a_masked_branch_contributes_nothing_to_a_second_derivative(f, x, expected):
    x = tr.Tensor(np.array(x), requires_grad=True)
    first = tr.grad(tr.sum(f(x)), x, create_graph=True)
    assert np.all(np.isfinite(first.numpy()))
    assert first.tolist() == tr.grad(tr.sum(f(x)), x).tolist()
    assert tr.grad(tr.sum(first), x).tolist() == expected


@np.errstate(all="ignore")
def test_a_masked_branch_stays_out_where_the_second_gradient_is_infinite():
    x = tr.Tensor(np.array([0.0, 1000.0]), requires_grad=True)
    first = tr.grad(tr.sum(tr.where(x < 10, tr.exp(x), 3 * x * x)), x, create_graph=True)
    assert tr.grad(first, x, gradient=np.array([1.0, np.inf])).tolist() == [1.0, np.inf]


def test_sqrt_at_zero_is_infinite_where_it_is_used():
    assert slope(tr.sqrt, [0.0, 4.0]) == [np.inf, 0.25]


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2.0, 0.0, 3.0], [0.0, 6.0, 0.0]),  # one zero: only its own factor counts
        ([2.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0], [1.0]),
        ([2.0, -3.0, 4.0], [-12.0, 8.0, -6.0]),
    ],
)
def test_prod_with_zeros(x, expected):
    assert slope(tr.prod, x) == expected
    assert slope(lambda x: tr.prod(x, axis=1), [x, x[::-1]]) == [expected, expected[::-1]]
    assert slope(lambda x: tr.prod(x, axis=(0, 1)), [x]) == [expected]


def test_prod_with_zeros_to_second_order():
    """d2/dx1 dx2 of x0 x1 x2 at (2, 0, 0) is 2, though the gradient is zero."""
    x = np.array([2.0, 0.0, 0.0])
    assert tr.hessian(tr.prod)(tr.Tensor(x)).tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    x = np.array([2.0, 0.0, 3.0])
    assert tr.hessian(tr.prod)(tr.Tensor(x)).tolist() == [[0.0, 3.0, 0.0], [3.0, 0.0, 2.0], [0.0, 2.0, 0.0]]


def test_power_at_zero():
    assert slope(lambda x: x**2, [0.0, -1.0]) == [0.0, -2.0]
    assert slope(lambda x: x**1, [0.0, -1.0]) == [1.0, 1.0]
    assert slope(lambda x: x**0, [0.0, -1.0]) == [0.0, 0.0]
    assert slope(lambda x: x**3, [0.0, -2.0]) == [0.0, 12.0]
    assert slope(lambda a, b: a**b, [0.0, 2.0], [2.0, 3.0])[0] == [0.0, 12.0]
    assert slope(lambda a, b: a**b, [0.0, 1.0], [2.0, 3.0])[1] == [0.0, 0.0]


def test_std_of_equal_entries_is_finite_or_named():
    """A pole: the derivative of sqrt at 0 meets a cotangent; torch gives NaN."""
    g = np.array(slope(tr.std, [2.0, 2.0, 2.0]))
    assert np.all(np.isfinite(g)) and np.all(g == 0)


@np.errstate(over="ignore")  # x³ of a float16: the tanh around it saturates
def test_saturated_values_have_finite_gradients():
    big = [-1000.0, -100.0, 100.0, 1000.0]
    for dtype in (np.float64, np.float32, np.float16):
        assert slope(tr.sigmoid, big, dtype=dtype)[::3] == [0.0, 0.0]
        assert slope(tr.tanh, big, dtype=dtype)[::3] == [0.0, 0.0]
        assert slope(tr.softplus, big, dtype=dtype)[::3] == [0.0, 1.0]
        for f in (tr.silu, tr.gelu, lambda x: tr.gelu(x, approximate="tanh"), tr.elu):
            assert np.all(np.isfinite(slope(f, big, dtype=dtype))), f
        assert np.all(np.isfinite(slope(lambda x: tr.softmax(x, axis=-1)[0], big, dtype=dtype)))
        assert np.all(np.isfinite(slope(lambda x: tr.log_softmax(x, axis=-1)[0], big, dtype=dtype)))
        assert slope(tr.logsumexp, big, dtype=dtype) == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "f", [tr.elu, tr.silu, tr.gelu, tr.softplus, tr.sigmoid, tr.tanh, tr.relu, tr.leaky_relu], ids=lambda f: f.__name__
)
def test_saturated_values_have_the_same_derivative_forwards(f):
    """A jvp differentiates the vjp by its gradient: what overflows in a branch not taken would be NaN there."""
    x = tr.Tensor(np.array([-1000.0, -1.0, 0.5, 1000.0]))
    assert tr.jvp(f, (x,), (tr.ones(4, dtype="float64"),))[1].tolist() == slope(f, x.numpy())


def test_values_at_the_ends_of_the_range():
    big = tr.Tensor(np.array([-1000.0, 1000.0]))
    assert tr.softplus(big).tolist() == [0.0, 1000.0]
    assert tr.sigmoid(big).tolist() == [0.0, 1.0]
    assert tr.logsumexp(big).item() == 1000.0
    assert tr.log_softmax(big, axis=-1).tolist() == [-2000.0, 0.0]
    assert tr.softmax(big, axis=-1).tolist() == [0.0, 1.0]


def test_a_masked_row_of_a_softmax_is_finite_where_one_entry_is_left():
    x = [[-np.inf, 1.0], [2.0, -np.inf]]
    assert slope(lambda x: tr.softmax(x, axis=-1)[:, 0], x) == [[0.0, 0.0], [0.0, 0.0]]
    assert slope(lambda x: tr.logsumexp(x, axis=-1), x) == [[0.0, 1.0], [1.0, 0.0]]


def test_infinities_and_nan_in_max():
    assert slope(tr.max, [1.0, np.inf, np.inf]) == [0.0, 0.5, 0.5]
    assert np.isnan(tr.max(tr.Tensor([1.0, np.nan])).item())


def test_second_order_where_a_norm_or_a_deviation_is_zero():
    for f in (tr.norm, tr.std):
        x = tr.Tensor([1.0, 1.0], dtype="float64", requires_grad=True)
        y = f(x - 1.0) + (x**3).sum()
        g = tr.grad(y, x, create_graph=True)
        assert tr.grad(g.sum(), x).tolist() == [6, 6]


def test_softplus_has_its_small_slope_where_sigmoid_rounds_to_zero():
    # sigmoid is exact to a digit of 1: at -36.6 it is wrong by a tenth of itself, below -37.5 it is 0.
    for dtype, rtol in ((np.float64, 1e-13), (np.float32, 1e-5)):
        x = np.array([-80.0, -40.0, -36.6, -20.0, -1.0, 0.0, 1.0, 40.0], dtype)
        np.testing.assert_allclose(slope(tr.softplus, x, dtype=dtype), 1 / (1 + np.exp(-x.astype(np.float64))), rtol)
    loss = lambda x: tr.nn.functional.binary_cross_entropy_with_logits(x, [1.0], reduction="sum")
    assert slope(loss, [40.0])[0] == pytest.approx(-np.exp(-40.0), rel=1e-12)
