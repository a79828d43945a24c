"""No digit is lost that the numbers have: tails, large offsets, many classes, and float16, whose sums are float32.

The witness is the same formula in a longer precision.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import backend

LONG = np.longdouble
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in ("float16", "float32", "float64")}
# As far as the dtype has normal numbers for their sigmoids.
TAILS = {
    "float16": np.linspace(-9.5, 9.5, 77),
    "float32": np.linspace(-87, 87, 233),
    "float64": np.linspace(-700, 700, 233),
}


def sigmoid(x):
    e = np.exp(-abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


def gelu(x):
    return x * sigmoid(2 * np.sqrt(2 / LONG(np.pi)) * (x + LONG("0.044715") * x**3))


WITNESSES = {
    "sigmoid": sigmoid,
    "softplus": softplus,
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "tanh": np.tanh,
    "expm1": np.expm1,
    "log1p": lambda x: np.log1p(abs(x)),
}
SLOPES = {
    "sigmoid": lambda x: sigmoid(x) * sigmoid(-x),
    "softplus": sigmoid,
    "silu": lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    "elu": lambda x: np.where(x > 0, 1, np.exp(np.minimum(x, 0))),
}


def near(found, exact, dtype, ulps, where=True):
    """Within so many units of the last place of each number; what is no normal number of the dtype is left out."""
    exact = np.asarray(exact, LONG)
    where = where & (abs(exact) > np.finfo(dtype).tiny) & (abs(exact) < np.finfo(dtype).max)
    assert found.dtype == dtype and np.any(where)
    error = abs(found.astype(LONG) - exact)[where] / abs(exact)[where]
    assert np.max(error) <= ulps * EPS[dtype], np.max(error) / EPS[dtype]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", TAILS)
@pytest.mark.parametrize("name", WITNESSES)
def test_tails_have_all_their_digits(name, dtype, compiled):
    x = (np.linspace(-5.5, 5.5, 56) if name == "gelu" else TAILS[dtype]).astype(dtype)
    x = abs(x) if name == "log1p" else x
    f = tr.compile(getattr(tr, name)) if compiled else getattr(tr, name)
    for _ in range(3):  # plain, recorded, and repeated
        found = f(tr.Tensor(x)).numpy()
    with np.errstate(over="ignore", under="ignore"):
        exact = WITNESSES[name](x.astype(LONG))
    # The exponent of gelu is a product of many factors: where it is large its rounding shows.
    near(found, exact, dtype, 64 if name == "gelu" else 6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SLOPES)
def test_slopes_have_all_their_digits_below_zero(name, dtype):
    """Above, that of a sigmoid is computed from a value that is 1 but for its last digits."""
    x = TAILS[dtype][TAILS[dtype] < -2].astype(dtype)
    t = tr.Tensor(x, requires_grad=True)
    (found,) = tr.grad(getattr(tr, name)(t).sum(), [t])
    near(found.numpy(), SLOPES[name](x.astype(LONG)), dtype, 16)


@pytest.mark.parametrize(("dtype", "lowest"), [("float16", -9.5), ("float32", -87), ("float64", -700)])
def test_the_logarithm_of_a_sigmoid_has_a_slope(dtype, lowest):
    x = tr.Tensor(np.linspace(lowest, 2, 50, dtype=dtype), requires_grad=True)
    y = tr.log(tr.sigmoid(x))
    (found,) = tr.grad(y.sum(), [x])
    wide = x.numpy().astype(LONG)
    np.testing.assert_allclose(y.numpy().astype(LONG), np.log(sigmoid(wide)), rtol=8 * EPS[dtype], atol=2 * EPS[dtype])
    np.testing.assert_allclose(found.numpy().astype(LONG), sigmoid(-wide), rtol=16 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6, 1e7, -1e7])
def test_functions_that_forget_an_offset(dtype, offset):
    """Of logits far from 0 nothing is left of the offset; of those of float32 all others are whole numbers."""
    x = np.random.default_rng(0).integers(-20, 20, (7, 12)) + offset
    wide = x.astype(LONG)
    z = wide - wide.max(-1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    t = tr.Tensor(x.astype(dtype))
    near(tr.softmax(t).numpy(), p, dtype, 8)
    np.testing.assert_allclose(
        tr.log_softmax(t).numpy(), np.log(p).astype(float), rtol=4 * EPS[dtype], atol=4 * EPS[dtype]
    )
    near(tr.var(t, axis=-1).numpy(), wide.var(-1), dtype, 8)
    near(tr.std(t, axis=-1).numpy(), wide.std(-1), dtype, 8)
    near(tr.std(t).numpy(), wide.std(), dtype, 16)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_70_000_classes(dtype, axis):
    x = np.random.default_rng(0).standard_normal((70_000, 2) if axis == 0 else (2, 70_000)).astype(dtype)
    t = tr.Tensor(x, requires_grad=True)
    wide = x.astype(LONG)
    e = np.exp(wide)
    total = e.sum(axis)
    near(tr.logsumexp(t, axis=axis).numpy(), np.log(total), dtype, 8)
    p = e / e.sum(axis, keepdims=True)
    # Most of the probabilities are no normal float16.
    rtol = {"float16": 2e-3, "float32": 3e-5, "float64": 1e-12}[dtype]
    atol = 6e-8 if dtype == "float16" else 0
    np.testing.assert_allclose(tr.softmax(t, axis=axis).numpy().astype(float), p.astype(float), rtol=rtol, atol=atol)
    found = tr.log_softmax(t, axis=axis).numpy().astype(float)
    np.testing.assert_allclose(found, np.log(p).astype(float), rtol=max(rtol, 1e-6) / 2)
    (g,) = tr.grad(tr.logsumexp(t, axis=axis).sum(), [t])
    np.testing.assert_allclose(g.numpy().astype(float), p.astype(float), rtol=rtol, atol=atol)


# --- float16 ------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(1)
HUNDREDS = RNG.uniform(-900, 900, (5000, 3)).astype("float16")
ONES = np.ones((5000, 3), "float16")
SMALL = RNG.uniform(1e-4, 2e-4, (5000, 3)).astype("float16")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("x", [HUNDREDS, ONES, SMALL], ids=["hundreds", "ones", "small"])
@pytest.mark.parametrize("name", ["sum", "mean", "norm", "std", "var", "logsumexp", "cumsum"])
def test_a_reduction_of_float16_is_that_of_float32_rounded(name, x, axis, compiled):
    f = lambda t: getattr(tr, name)(t, axis=axis)
    with np.errstate(over="ignore"):
        exact = f(tr.Tensor(x.astype("float64"))).numpy().astype("float16")
        called = tr.compile(f) if compiled else f
        for _ in range(3):
            found = called(tr.Tensor(x))
    assert found.dtype == "float16"
    np.testing.assert_allclose(found.numpy().astype(float), exact.astype(float), rtol=2e-3)
    assert np.isfinite(exact).all() or name in ("sum", "var", "cumsum")  # where the result itself is no float16


def test_gradients_of_float16_reductions():
    x = tr.Tensor(HUNDREDS, requires_grad=True)
    wide = tr.Tensor(HUNDREDS.astype("float64"), requires_grad=True)
    for f in (tr.norm, tr.std, tr.mean, lambda t: tr.var(t / 16), lambda t: tr.softmax(t / 64, axis=0)[:, 0].sum()):
        (found,), (exact,) = tr.grad(f(x), [x]), tr.grad(f(wide), [wide])
        assert found.dtype == "float16"
        np.testing.assert_allclose(found.numpy(), exact.numpy(), rtol=1e-2, atol=1e-6)


def test_a_product_of_float16_may_be_large_on_the_way():
    x = tr.Tensor(np.array([300, 1, 300, 1, 0.001, 1, 0.001, 1], "float16"), requires_grad=True)
    y = tr.prod(x)
    assert y.dtype == "float16" and abs(y.item() - 0.09) < 1e-3
    (g,) = tr.grad(y, [x])
    np.testing.assert_allclose(g.numpy()[:2], [0.0003, 0.09], rtol=1e-2)


def test_gradients_that_are_summed_to_a_smaller_shape():
    """A bias of many rows, a row that was looked up often, a sum of products."""
    b = tr.Tensor(np.zeros(3, "float16"), requires_grad=True)
    (g,) = tr.grad((tr.Tensor(ONES) + b).sum(), [b])
    assert g.tolist() == [5000] * 3
    (g,) = tr.grad((tr.Tensor(ONES) + b).sum(), [b], create_graph=True)
    assert g.tolist() == [5000] * 3
    column = tr.Tensor(np.zeros((1, 3), "float16"), requires_grad=True)
    (g,) = tr.grad((tr.Tensor(ONES) * column).sum(), [column])
    assert g.tolist() == [[5000] * 3]
    table = tr.Tensor(np.zeros((2, 3), "float16"), requires_grad=True)
    (g,) = tr.grad(tr.take(table, np.zeros(5000, int), axis=0).sum(), [table])
    assert g.tolist() == [[5000] * 3, [0] * 3]
    assert (tr.einsum("ji,jk,jl->ikl", *(tr.Tensor(ONES),) * 3).numpy() == 5000).all()
    assert tr.einsum("ij,ij->i", tr.Tensor(ONES), tr.Tensor(ONES.astype("float32"))).dtype == "float32"


def test_only_ops_of_one_array_are_wide():
    with pytest.raises(TypeError, match="op both: wide=True is for ops of one array"):

        @tr.op(lambda g: g, lambda g: g, wide=True)
        def both(a, b):
            return a + b


def test_a_wide_op_takes_arrays_and_numbers_as_others_do():
    half = np.array([300, 400], "float16")
    assert tr.norm(half) == 500 and tr.norm(half).dtype == "float16"
    assert tr.std(half) == 50 and tr.std(half).dtype == "float16"
    assert tr.sigmoid(0.0) == 0.5
    assert backend.widened(half).dtype == "float32"
    ones = np.ones(2)
    assert backend.widened(ones) is ones


ONE = tr.ones(1, 2, dtype="float16")
# Uses of a weight (2, 2) whose gradients are 1: whole, a row, an entry, ids, as the weight of a product.
USES = {
    "whole": (lambda w: [w * 1.0 for _ in range(3000)], [[3000, 3000]] * 2),
    "rows": (lambda w: [w[k % 2] for k in range(6000)], [[3000, 3000]] * 2),
    "entries": (lambda w: [w[0, 1] for _ in range(3000)], [[0, 3000], [0, 0]]),
    "ids": (lambda w: [w[np.array([1, 1])] for _ in range(1500)], [[0, 0], [3000, 3000]]),
    "products": (lambda w: [tr.linear(ONE, w) for _ in range(3000)], [[3000, 3000]] * 2),
    # The newest report first: a thousand products are added up before anything else has come.
    "all": (
        lambda w: [
            *(w[k % 2] for k in range(1000)),
            *(w * 1.0 for _ in range(2000)),
            *(tr.linear(ONE, w) for _ in range(1100)),
        ],
        [[3600, 3600]] * 2,
    ),
}


@pytest.mark.parametrize("way", ["backward", "grad", "recorded"])
@pytest.mark.parametrize("kind", USES)
def test_the_gradient_of_what_is_used_often_counts_beyond_2048(kind, way):
    w = tr.Tensor(np.ones((2, 2), np.float16), requires_grad=True)
    parts, expected = USES[kind]
    total = tr.sum(tr.concatenate([tr.reshape(part, (-1,)) for part in parts(w)]))
    if way == "backward":
        total.backward()
    (found,) = [w.grad] if way == "backward" else tr.grad(total, [w], create_graph=way == "recorded")
    assert found.dtype == np.float16 and found.tolist() == expected


def test_a_float16_weight_of_no_axes_is_counted_in_a_recording_too():
    w = tr.Tensor(np.array(1, np.float16), requires_grad=True)

    @tr.compile
    def step(x):
        total = w * x
        for _ in range(299):
            total = total + w * x
        total.backward()
        found, w.grad = w.grad, None
        return found

    for k in (9, 9, 10, 9):
        assert step(tr.Tensor(np.array(k, np.float16))).item() == 300 * k


@pytest.mark.parametrize("f", [tr.sum, tr.mean, tr.norm, tr.logsumexp, tr.var])
@pytest.mark.parametrize("axis", [0, (0, 2), None])
def test_many_rows_are_added_up_with_all_digits(f, axis):
    x = np.random.default_rng(0).uniform(0.1, 0.2, (300_000, 2, 2)).astype(np.float32)
    for a in (x, x[::2], np.asfortranarray(x)):
        with tr.no_grad():
            found = tr.compile(lambda a: f(tr.Tensor(a), axis=axis))
            wide = f(tr.Tensor(a.astype(np.float64)), axis=axis).numpy()
            for y in (f(tr.Tensor(a), axis=axis), found(a), found(a), found(a)):
                assert y.dtype == "float32"
                np.testing.assert_allclose(y.numpy(), wide, rtol=1e-6)


def test_gradients_of_what_is_added_to_many_rows():
    b = tr.zeros(2, requires_grad=True)
    weight, bias = tr.ones(2, requires_grad=True), tr.zeros(2, requires_grad=True)
    x, g = np.random.default_rng(0).uniform(0.1, 0.2, (2, 300_000, 2)).astype(np.float32)
    (tr.Tensor(x) + b).backward(tr.Tensor(g))
    tr.nn.functional.layer_norm(tr.Tensor(x), 2, weight, bias).backward(tr.Tensor(g))
    for p in (b, bias):
        np.testing.assert_allclose(p.grad.numpy(), g.sum(axis=0, dtype=np.float64), rtol=1e-6)
    wide = tr.ones(2, dtype="float64", requires_grad=True)
    tr.nn.functional.layer_norm(tr.Tensor(x.astype("d")), 2, wide).backward(tr.Tensor(g.astype("d")))
    np.testing.assert_allclose(weight.grad.numpy(), wide.grad.numpy(), rtol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_of_numbers_whose_squares_are_too_large_or_too_small(dtype, compiled):
    x = np.array([[3, 4, 0], [3, -4, 0], [3, 4, 12], [0, 0, 0], [3, 4, 0]], dtype)
    by = [1e-30, 1, 1e30, 1, 1e37] if dtype == "float32" else [1e-300, 1, 1e300, 1, 1e307]
    x *= np.array(by, dtype)[:, None]

    def f(x):
        t = tr.Tensor(x, requires_grad=True)
        y = tr.norm(t, axis=1)
        return y.detach(), tr.grad(y.sum(), t), tr.norm(t[:3]).detach(), tr.norm(t[:, :0], axis=1).detach()

    f = tr.compile(f) if compiled else f
    for _ in range(3):
        lengths, slope, whole, nothing = (t.numpy() for t in f(x))
        exact = np.sqrt((x.astype(LONG) ** 2).sum(1))
        np.testing.assert_allclose(lengths, exact.astype(dtype), rtol=4 * EPS[dtype])
        np.testing.assert_allclose(slope, (x / np.where(exact == 0, 1, exact)[:, None]).astype(dtype), 4 * EPS[dtype])
        assert whole == pytest.approx(float(exact[2]), rel=4 * EPS[dtype]) and nothing.tolist() == [0] * 5
    for row in x:  # alone
        length = tr.norm(tr.Tensor(row)).numpy()
        assert length == pytest.approx(np.sqrt((row.astype(LONG) ** 2).sum()).astype(dtype), rel=4 * EPS[dtype], abs=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_deviations_and_variances_of_large_numbers(dtype):
    """A variance that is a number of the dtype, though the sum of squares is none, and deviations that always are."""
    x = np.array([[1, 2, 3, 4.5], [0, -1, 1, 0.5]], dtype)
    for by in (1e19, 1e30) if dtype == "float32" else (1e154, 1e300):
        t = tr.Tensor(x * np.array([[by], [1]], dtype), requires_grad=True)
        wide = t.numpy().astype(LONG)
        d = wide - wide.mean(1, keepdims=True)
        exact = (d * d).mean(1)
        y = tr.std(t, axis=1)
        np.testing.assert_allclose(y.numpy(), np.sqrt(exact).astype(dtype), rtol=8 * EPS[dtype])
        slope = (d / 4 / np.sqrt(exact)[:, None]).astype(dtype)
        np.testing.assert_allclose(tr.grad(y.sum(), t).numpy(), slope, rtol=1e-4 if dtype == "float32" else 1e-12)
        with np.errstate(over="ignore"):  # of the second, whose variance is infinite
            y, exact = tr.var(t, axis=1), exact.astype(dtype)
        np.testing.assert_allclose(y.numpy(), exact, rtol=8 * EPS[dtype])
        np.testing.assert_allclose(tr.grad(y.sum(), t).numpy(), (d / 2).astype(dtype), rtol=1e-5)
