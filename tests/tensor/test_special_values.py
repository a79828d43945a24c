"""Every op at zeros of both signs, at poles, at infinities and at NaN: its value and its gradient, exactly.

The rules, with where they are documented:

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

inf, nan = math.inf, math.nan
L2 = math.log(2)


def at(x, y, *gs, f=None, u=None):
    """An op at x (or at several arguments): its value, and what it pulls back of u (ones) to each argument."""
    arguments = x if isinstance(x, tuple) else (x,)
    assert len(gs) == len(arguments)
    return arguments, y, gs, f, u


# fmt: off
SPECIAL = {
    "add": [at(([inf, inf, nan, -0.0], [1.0, -inf, 1.0, -0.0]), [inf, nan, nan, -0.0], [1, 1, 1, 1], [1, 1, 1, 1])],
    "subtract": [at(([inf, -inf, 0.0], [1.0, -inf, 0.0]), [inf, nan, 0.0], [1, 1, 1], [-1, -1, -1])],
    "multiply": [
        at(([0.0, inf, -0.0, 1.0, nan], [inf, 2.0, 1.0, -inf, 0.0]), [nan, inf, -0.0, -inf, nan],
           [inf, 2, 1, -inf, 0], [0, inf, 0, 1, nan]),
    ],
    "divide": [
        at(([1.0, -1.0, 1.0, 0.0], [0.0, 0.0, -0.0, 0.0]), [inf, -inf, -inf, nan],
           [inf, inf, -inf, inf], [-inf, inf, -inf, nan]),
        at(([1.0, inf, inf], [inf, 1.0, inf]), [0, inf, nan], [0, 1, 0], [0, -inf, 0]),
    ],
    "negative": [at([0.0, -0.0, inf, nan], [-0.0, 0.0, -inf, nan], [-1, -1, -1, -1])],
    "maximum": [
        at(([0.0, inf, -inf, inf, nan, 1.0], [-0.0, inf, -inf, 1.0, 1.0, nan]), [0, inf, -inf, inf, nan, nan],
           [.5, .5, .5, 1, 0, 0], [.5, .5, .5, 0, 0, 0]),
    ],
    "minimum": [
        at(([0.0, inf, -inf, inf, nan, 1.0], [-0.0, inf, -inf, 1.0, 1.0, nan]), [0, inf, -inf, 1, nan, nan],
           [.5, .5, .5, 0, 0, 0], [.5, .5, .5, 1, 0, 0]),
    ],
    "clip": [
        at([-inf, -1.0, -0.0, 1.0, inf, nan], [-1, -1, -0.0, 1, 1, nan], [0, 1, 1, 1, 0, 0],
           f=lambda x: tr.clip(x, -1, 1)),
        at([-inf, 0.0, inf], [-inf, 0, inf], [1, 1, 1], f=lambda x: tr.clip(x, -inf, inf)),
    ],
    "where": [
        at(([1.0, inf, nan, 2.0], [nan, 3.0, 4.0, inf]), [1, 3, 4, 2], [1, 0, 0, 1], [0, 1, 1, 0],
           f=lambda a, b: tr.where(np.array([True, False, False, True]), a, b)),
        at([0.0, 4.0], [0, 2], [1, .25], f=lambda x: tr.where(x > 0, tr.sqrt(x), x)),  # the other branch has a pole
        at([0.0, 4.0], [0, math.log(4)], [0, .25], f=lambda x: tr.where(x > 0, tr.log(x), 0.0)),
        at([0.0, 4.0], [5, .25], [0, -1 / 16], f=lambda x: tr.where(x > 0, 1 / x, 5.0)),
        at([inf, 0.0], [0, 1], [0, 1], f=lambda x: tr.where(x < 1, tr.exp(x), 0.0)),
        at([inf, 2.0], [0, 4], [nan, 4], f=lambda x: tr.where(x < 3, tr.square(x), 0.0)),  # inf is no pole of x * x
    ],
    "exp": [at([0.0, -0.0, inf, -inf, 1000.0, -1000.0, nan], [1, 1, inf, 0, inf, 0, nan], [1, 1, inf, 0, inf, 0, nan])],
    "expm1": [at([0.0, inf, -inf, 1000.0, -1000.0, nan], [0, inf, -1, inf, -1, nan], [1, inf, 0, inf, 0, nan])],
    "log": [at([0.0, -0.0, inf, 1.0, nan], [-inf, -inf, inf, 0, nan], [inf, -inf, 0, 1, nan])],
    "log1p": [at([-1.0, 0.0, inf, nan], [-inf, 0, inf, nan], [inf, 1, 0, nan])],
    "sqrt": [at([0.0, -0.0, inf, -1.0, nan], [0, -0.0, inf, nan, nan], [inf, -inf, 0, nan, nan])],
    "square": [at([0.0, -0.0, inf, -inf, nan], [0, 0, inf, inf, nan], [0, 0, inf, -inf, nan])],
    "power": [
        at([0.0, -0.0, inf, nan], [1, 1, 1, 1], [0, 0, 0, 0], f=lambda x: x**0),
        at([0.0, -0.0, inf, nan], [1, 1, 1, 1], [0, 0, 0, 0], f=lambda x: x**0.0),
        at([0.0, -0.0, inf], [0, -0.0, inf], [1, 1, 1], f=lambda x: x**1),
        at([0.0, inf, -inf], [0, inf, -inf], [0, inf, inf], f=lambda x: x**3),
        at([0.0, inf, -1.0], [0, inf, nan], [inf, 0, nan], f=lambda x: x**0.5),
        at([0.0, -0.0, inf], [inf, -inf, 0], [-inf, -inf, 0], f=lambda x: x**-1),
        at([0.0, -0.0, inf], [inf, inf, 0], [-inf, inf, 0], f=lambda x: x**-2),
        at([0.0, 2.0], [1, 0], [0, 0], f=lambda x: 0.0**x),
        at([0.0, 5.0, -inf, inf], [1, 1, 1, 1], [0, 0, 0, 0], f=lambda x: 1**x),
        at([0.0, inf, -inf], [1, inf, 0], [L2, inf, 0], f=lambda x: 2**x),
        at([-1.0, -inf], [0, 0], [0, 0], f=lambda x: inf**x),
        at([1.0, 2.0], [-2, 4], [nan, nan], f=lambda x: (-2.0) ** x),  # defined at integers only: no derivative
        at(([0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.5, -1.0]), [1, 0, 0, 0, inf],
           [0, 0, 1, inf, -inf], [0, 0, 0, 0, -inf]),
        at(([inf, inf, -1.0, 1.0], [2.0, -1.0, 2.0, 0.0]), [inf, 0, 1, 1], [inf, 0, -2, 0], [inf, 0, nan, 0]),
    ],
    "abs": [at([0.0, -0.0, inf, -inf, nan], [0, 0, inf, inf, nan], [0, 0, 1, -1, nan])],
    "sign": [at([0.0, -0.0, inf, -inf, nan], [0, 0, 1, -1, nan], [0, 0, 0, 0, 0])],
    "sin": [at([0.0, -0.0, nan], [0, -0.0, nan], [1, 1, nan]), at([inf, -inf], [nan, nan], [nan, nan])],
    "cos": [at([0.0, -0.0, nan], [1, 1, nan], [0, 0, nan]), at([inf, -inf], [nan, nan], [nan, nan])],
    "tanh": [at([0.0, -0.0, 1000.0, -1000.0, inf, -inf, nan], [0, -0.0, 1, -1, 1, -1, nan], [1, 1, 0, 0, 0, 0, nan])],
    "sigmoid": [at([0.0, 1000.0, -1000.0, inf, -inf, nan], [.5, 1, 0, 1, 0, nan], [.25, 0, 0, 0, 0, nan])],
    "softplus": [at([0.0, 1000.0, -1000.0, inf, -inf, nan], [L2, 1000, 0, inf, 0, nan], [.5, 1, 0, 1, 0, nan])],
    "relu": [at([0.0, -0.0, inf, -inf, nan], [0, 0, inf, 0, nan], [0, 0, 1, 0, 0])],
    "leaky_relu": [
        at([0.0, -0.0, inf, -inf, nan], [0, -0.0, inf, -inf, nan], [.25, .25, 1, .25, .25],
           f=lambda x: tr.leaky_relu(x, 0.25)),
    ],
    "elu": [at([0.0, 1000.0, -1000.0, inf, -inf, nan], [0, 1000, -1, inf, -1, nan], [1, 1, 0, 1, 0, nan])],
    "silu": [at([0.0, -0.0, 1000.0, -1000.0, inf, -inf, nan], [0, -0.0, 1000, 0, inf, 0, nan],
                [.5, .5, 1, 0, 1, 0, nan])],
    "gelu": [at([0.0, -0.0, 1000.0, -1000.0, inf, -inf, nan], [0, -0.0, 1000, 0, inf, 0, nan],
                [.5, .5, 1, 0, 1, 0, nan])],
    "sum": [
        at([inf, 1.0], inf, [1, 1]), at([inf, -inf], nan, [1, 1]), at([nan, 1.0], nan, [1, 1]), at([], 0, []),
    ],
    "mean": [at([inf, 1.0], inf, [.5, .5]), at([inf, -inf], nan, [.5, .5]), at([nan, 1.0], nan, [.5, .5])],
    "prod": [
        at([0.0, 2.0, 3.0], 0, [6, 0, 0]), at([0.0, 0.0, 3.0], 0, [0, 0, 0]), at([-0.0, 2.0], -0.0, [2, 0]),
        at([inf, 2.0], inf, [2, inf]), at([inf, 0.0], nan, [0, inf]), at([nan, 2.0], nan, [2, nan]), at([], 1, []),
    ],
    "max": [
        at([0.0, -0.0], 0, [.5, .5]), at([inf, inf, 1.0], inf, [.5, .5, 0]), at([-inf, -inf], -inf, [.5, .5]),
        at([1.0, nan], nan, [0, 0]),
    ],
    "min": [
        at([0.0, -0.0], 0, [.5, .5]), at([-inf, -inf, 1.0], -inf, [.5, .5, 0]), at([inf, inf], inf, [.5, .5]),
        at([1.0, nan], nan, [0, 0]),
    ],
    "var": [
        at([2.0, 2.0], 0, [0, 0]), at([2.0], 0, [0]), at([inf, 1.0], nan, [nan, nan]),
        at([2.0], nan, [nan], f=lambda x: tr.var(x, ddof=1)),
    ],
    "std": [
        at([2.0, 2.0], 0, [0, 0]), at([2.0], 0, [0]), at([inf, 1.0], nan, [nan, nan]),
        at([2.0, 2.0], 0, [0, 0], f=lambda x: tr.std(x, ddof=1)), at([2.0], nan, [nan], f=lambda x: tr.std(x, ddof=1)),
    ],
    "norm": [
        at([0.0, -0.0], 0, [0, 0]), at([-3.0], 3, [-1]), at([inf, 1.0], inf, [nan, 0]), at([nan, 0.0], nan, [nan, nan]),
    ],
    "cumsum": [at([1.0, inf, 1.0], [1, inf, inf], [3, 2, 1]), at([inf, -inf, 1.0], [inf, nan, nan], [3, 2, 1])],
    "softmax": [
        at([0.0, -inf], [1, 0], [0, 0], u=[1, 3]), at([-inf, -inf], [0, 0], [0, 0], u=[1, 3]),
        at([1000.0, 1000.0], [.5, .5], [-.5, .5], u=[1, 3]), at([1000.0, -1000.0], [1, 0], [0, 0], u=[1, 3]),
        at([[-inf, -inf], [0.0, 0.0]], [[0, 0], [.5, .5]], [[0, 0], [-.5, .5]], u=[[1, 3], [1, 3]]),
        at([inf, 1.0], [nan, 0], [nan, nan], u=[1, 3]), at([nan, 1.0], [nan, nan], [nan, nan], u=[1, 3]),
    ],
    "log_softmax": [
        at([0.0, -inf], [0, -inf], [-3, 3], u=[1, 3]), at([1000.0, 0.0], [0, -1000], [-3, 3], u=[1, 3]),
        at([-inf, -inf], [-inf, -inf], [1, 3], u=[1, 3]),  # x - logsumexp(x), which has gradient 0 there
        at([nan, 1.0], [nan, nan], [nan, nan], u=[1, 3]),
    ],
    "logsumexp": [
        at([0.0, -inf], 0, [1, 0]), at([-inf, -inf], -inf, [0, 0]), at([1000.0, 1000.0], 1000 + L2, [.5, .5]),
        at([inf, 1.0], inf, [nan, 0]), at([nan, 1.0], nan, [nan, nan]), at([], -inf, []),
    ],
    "astype": [at([0.0, inf, nan], [0, inf, nan], [1, 1, 1], f=lambda x: tr.astype(x, "float32"))],
    "pad": [at([nan], [inf, nan, inf], [1], f=lambda x: tr.pad(x, 1, constant_values=inf))],
    "tril": [at([[1.0, inf], [nan, 2.0]], [[1, 0], [nan, 2]], [[1, 0], [1, 1]])],  # cut off, not multiplied by 0
    "triu": [at([[1.0, inf], [nan, 2.0]], [[1, inf], [0, 2]], [[1, 1], [0, 1]])],
    "getitem": [at([inf, 1.0, nan], [inf, inf], [2, 0, 0], f=lambda x: x[[0, 0]])],  # NaN that is not taken is not seen
    "take": [at([inf, 1.0, nan], [inf, 1, 1], [1, 2, 0], f=lambda x: tr.take(x, [0, 1, 1]))],
    "take_along_axis": [
        at([[inf, nan], [1.0, 2.0]], [[inf], [2]], [[1, 0], [0, 1]], f=lambda x: tr.take_along_axis(x, [[0], [1]])),
    ],
    "matmul": [at(([[0.0, 1.0]], [[inf], [1.0]]), [[nan]], [[inf, 1]], [[0], [1]])],
    "einsum": [at(([0.0, 1.0], [inf, 1.0]), nan, [inf, 1], [0, 1], f=lambda a, b: tr.einsum("i,i->", a, b))],
    "linear": [at(([[0.0, 1.0]], [[inf, 1.0]]), [[nan]], [[inf, 1]], [[0, 1]])],
}
# fmt: on

COMPARES = "its result is boolean and has no derivative; its values are in test_comparisons_of_special_values"
MOVES = "it moves numbers and never looks at them"
NOTHING_SPECIAL = {
    **dict.fromkeys(["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"], COMPARES),
    **dict.fromkeys(["argmax", "argmin"], "its result is an integer; see test_argmax_of_special_values"),
    **dict.fromkeys(["reshape", "transpose", "swapaxes", "moveaxis", "squeeze", "expand_dims"], MOVES),
    **dict.fromkeys(["broadcast_to", "concatenate", "stack", "split", "flip"], MOVES),
}

# These keep a gradient of 0 even where their derivative is infinite or NaN.
ZERO_STAYS = {"log", "log1p", "sqrt", "divide", "power", "exp", "expm1"}

CASES = [(name, *case) for name, rows in SPECIAL.items() for case in rows]


def test_every_op_is_here_or_says_why_not():
    assert set(SPECIAL) | set(NOTHING_SPECIAL) == set(ops.__all__)
    assert not set(SPECIAL) & set(NOTHING_SPECIAL)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "arguments", "y", "gs", "f", "u"), CASES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]
)
@np.errstate(all="ignore")  # a forward at a pole warns, as NumPy does
def test_special_values(name, arguments, y, gs, f, u, dtype):
    xs = [tr.Tensor(np.array(x, dtype), requires_grad=True) for x in arguments]
    out = (f or getattr(tr, name))(*xs)
    rtol = 1e-14 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(out.numpy(), np.array(y), rtol=rtol, atol=0)
    u = np.ones(out.shape) if u is None else np.array(u)
    found = tr.grad(out, xs, u, retain_graph=True)
    for g, expected in zip(found, gs, strict=True):
        np.testing.assert_allclose(g.numpy(), np.array(expected, dtype).reshape(g.shape), rtol=rtol, atol=0)
    recorded = tr.grad(out, xs, u, create_graph=True)  # the same rules on Tensors
    for g, again in zip(found, recorded, strict=True):
        np.testing.assert_array_equal(again.numpy(), g.numpy())
    for zero, g in zip(tr.grad(out, xs, 0 * u), found, strict=True):
        finite = np.isfinite(g.numpy()) | (name in ZERO_STAYS)
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
        (tr.norm, [300.0, 300.0], inf, [0, 0]),  # x² must fit
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
