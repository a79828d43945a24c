"""The derivative table: functions of one number, applied to every element, and powers.

Each keeps the shape and the floating dtype of its argument. Functions that saturate are written so
that nothing in them overflows and no digit of a tail is lost: at every finite `x` they and their
derivatives are as finite as the mathematics says, and a value is 0 only where the dtype has no
number for it. Those that take several steps compute float16 in float32 (`wide`).
"""

# mypy: disable-error-code="has-type"
# (a derivative may name its own op, or one below it)

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from tinygrad_rnn.scalars import real_number
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, namespace, repeated
from tinygrad_rnn.tensor.op import Operand, cast, op
from tinygrad_rnn.tensor.ops.arithmetic import (
    clip,
    divide_no_nan,
    equal,
    minimum,
    multiply_no_nan,
    where,
)
from tinygrad_rnn.tensor.tensor import Tensor


@op(lambda g, y: multiply_no_nan(g, y))
def exp(x: Operand) -> Array:
    """e to the power `x`; `inf` where that overflows.

    >>> import tinygrad_rnn as tr
    >>> tr.exp(tr.Tensor(0.0)).item()
    1.0
    """
    return namespace(x).exp(x)


@op(lambda g, x: multiply_no_nan(g, exp(x)))
def expm1(x: Operand) -> Array:
    """exp(x) - 1, accurate near 0.

    >>> import tinygrad_rnn as tr
    >>> tr.expm1(tr.Tensor(0.0)).item()
    0.0
    """
    return namespace(x).expm1(x)


@op(lambda g, x: divide_no_nan(g, x))
def log(x: Operand) -> Array:
    """The natural logarithm: `-inf` at 0, NaN below. A gradient of 0 stays 0 at `x = 0`.

    >>> import tinygrad_rnn as tr
    >>> tr.log(tr.Tensor(1.0)).item()
    0.0
    """
    return namespace(x).log(x)


@op(lambda g, x: divide_no_nan(g, 1 + x))
def log1p(x: Operand) -> Array:
    """log(1 + x), accurate near 0: `-inf` at -1, NaN below. A gradient of 0 stays 0 at `x = -1`.

    >>> import tinygrad_rnn as tr
    >>> tr.log1p(tr.Tensor(0.0)).item()
    0.0
    """
    return namespace(x).log1p(x)


@op(lambda g, y: divide_no_nan(g, 2 * y))
def sqrt(x: Operand) -> Array:
    """The square root, NaN below 0. Its derivative at 0 is `inf`; a gradient of 0 stays 0 there.

    >>> import tinygrad_rnn as tr
    >>> tr.sqrt(tr.Tensor([0.0, 4.0])).numpy()
    array([0., 2.], dtype=float32)
    """
    return namespace(x).sqrt(x)


@op(lambda g, x: g * (2 * x))
def square(x: Array) -> Array:
    """`x * x`.

    >>> import tinygrad_rnn as tr
    >>> tr.square(tr.Tensor([-2.0, 3.0])).numpy()
    array([4., 9.], dtype=float32)
    """
    return x * x


@op(lambda g, x: g * sign(x))
def abs(x: Operand) -> Array:
    """The absolute value. Subgradient: 0 at 0.

    >>> import tinygrad_rnn as tr
    >>> tr.abs(tr.Tensor([-2.0, 3.0])).numpy()
    array([2., 3.], dtype=float32)
    """
    return namespace(x).abs(x)


@op(lambda g: 0 * g)
def sign(x: Operand) -> Array:
    """-1, 0 or 1. Its derivative is 0, at the jump too.

    >>> import tinygrad_rnn as tr
    >>> tr.sign(tr.Tensor([-2.0, 0.0, 3.0])).numpy()
    array([-1.,  0.,  1.], dtype=float32)
    """
    return namespace(x).sign(x)


@op(lambda g, x: g * cos(x))
def sin(x: Operand) -> Array:
    """The sine of `x` radians.

    >>> import tinygrad_rnn as tr
    >>> tr.sin(tr.Tensor(0.0)).item()
    0.0
    """
    return namespace(x).sin(x)


@op(lambda g, x: -g * sin(x))
def cos(x: Operand) -> Array:
    """The cosine of `x` radians.

    >>> import tinygrad_rnn as tr
    >>> tr.cos(tr.Tensor(0.0)).item()
    1.0
    """
    return namespace(x).cos(x)


@op(lambda g, y: g - g * (y * y))  # no number 1: scalars cost NumPy more than a small array
def tanh(x: Operand) -> Array:
    """The hyperbolic tangent, between -1 and 1.

    >>> import tinygrad_rnn as tr
    >>> tr.tanh(tr.Tensor([0.0, 100.0])).numpy()
    array([0., 1.], dtype=float32)
    """
    return namespace(x).tanh(x)


@op(lambda g, y: g * (y * (1 - y)), wide=True)
def sigmoid(x: Operand) -> Array:
    """1 / (1 + exp(-x)), between 0 and 1, with all digits of the tail: exp(x) where that is small.

    >>> import tinygrad_rnn as tr
    >>> tr.sigmoid(tr.Tensor([-1000.0, -20.0, 0.0])).numpy()
    array([0.0000000e+00, 2.0611537e-09, 5.0000000e-01], dtype=float32)
    """
    return _sigmoid(x)


def _sigmoid(x: Operand) -> Array:
    """e / (1 + e) with e = exp(x), which must not overflow: beyond 80 it is 1 to the last digit."""
    xp = namespace(x)
    top, one = repeated(x, 80.0, 1.0)
    e = xp.exp(xp.minimum(x, top))
    y: Array = e / (one + e)
    return y


@op(lambda g, x: g * sigmoid(x), wide=True)
def softplus(x: Operand) -> Array:
    """log(1 + exp(x)), a smooth `relu`; computed as max(x, 0) + log1p(exp(-|x|)), which cannot
    overflow.

    >>> import tinygrad_rnn as tr
    >>> tr.softplus(tr.Tensor([-1000.0, 1000.0])).numpy()
    array([   0., 1000.], dtype=float32)
    """
    xp = namespace(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


@op(lambda g, y: where(y > 0, g, 0.0))
def relu(x: Operand) -> Array:
    """max(x, 0); NaN stays NaN. Subgradient: 0 at 0.

    >>> import tinygrad_rnn as tr
    >>> tr.relu(tr.Tensor([-2.0, 3.0])).numpy()
    array([0., 3.], dtype=float32)
    """
    return namespace(x).maximum(x, 0.0)


@op(lambda g, x, negative_slope: where(x > 0, g, negative_slope * g))
def leaky_relu(x: Operand, negative_slope: float = 0.01) -> Array:
    """`x` above 0, `negative_slope * x` below. Subgradient: `negative_slope` at 0.

    >>> import tinygrad_rnn as tr
    >>> tr.leaky_relu(tr.Tensor([-2.0, 3.0]), negative_slope=0.5).numpy()
    array([-1.,  3.], dtype=float32)
    """
    slope = real_number("leaky_relu: negative_slope", negative_slope)
    return namespace(x).where(x > 0, x, slope * x)


@op(lambda g, x, alpha: where(x > 0, g, g * (alpha * exp(minimum(x, 0.0)))), wide=True)
def elu(x: Operand, alpha: float = 1.0) -> Array:
    """`x` above 0, `alpha * (exp(x) - 1)` below (Clevert et al. 2016, arXiv:1511.07289). Slope at
    0: `alpha`.

    >>> import tinygrad_rnn as tr
    >>> tr.elu(tr.Tensor([-1000.0, 3.0])).numpy()
    array([-1.,  3.], dtype=float32)
    """
    xp, alpha = namespace(x), real_number("elu: alpha", alpha)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0)))


# The bound of 1000: inf * 0 would be NaN, 1000 * 0 is 0.
@op(lambda g, x, y: g * (sigmoid(x) + minimum(y, 1000.0) * sigmoid(-x)), wide=True)
def silu(x: Operand) -> Array:
    """`x * sigmoid(x)`, also called swish (Elfwing et al. 2018, arXiv:1702.03118).

    >>> import tinygrad_rnn as tr
    >>> tr.silu(tr.Tensor([0.0, 1000.0])).numpy()
    array([   0., 1000.], dtype=float32)
    """
    return namespace(x).maximum(x, -1000.0) * _sigmoid(x)


_C, _K = 2 * math.sqrt(2 / math.pi), 0.044715


def gelu(x: Operand, approximate: str = "tanh") -> Tensor:
    """x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, the form of Hendrycks and Gimpel (2016,
    arXiv:1606.08415); computed as x sigmoid(2 √(2/π) (...)), which keeps the digits of the tail.

    PyTorch's default is the other form, with erf, which NumPy does not have; `approximate="tanh"`
    there is this one. Anything else is a `ValueError`.

    >>> import tinygrad_rnn as tr
    >>> tr.gelu(tr.Tensor([-1000.0, 0.0, 1000.0])).numpy()
    array([  -0.,    0., 1000.], dtype=float32)
    """
    if approximate != "tanh":
        raise ValueError(f'gelu has the form approximate="tanh" only, not {approximate!r}')
    return _gelu(x)


@op(lambda g, x: g * _gelu_slope(clip(x, -30.0, 30.0)), wide=True)
def _gelu(x: Operand) -> Array:
    xp = namespace(x)
    z = xp.clip(x, -30.0, 30.0)  # beyond, it is 0 or x to the last digit, and z³ might overflow
    return xp.maximum(x, -30.0) * _sigmoid(_C * (z + _K * z * z * z))


def _gelu_slope(x: Operand) -> Any:
    s = sigmoid(_C * (x + _K * x * x * x))
    return s + x * s * (1 - s) * (_C + 3 * _C * _K * x * x)


def astype(x: Operand, dtype: Any) -> Tensor:
    """`x` in another dtype, given by name, type or dtype; its gradient returns in the old one.

    Integers and booleans carry no gradient. Raises `DTypeError` for an unknown dtype.

    >>> import tinygrad_rnn as tr
    >>> tr.astype(tr.Tensor([1.5]), "float64").numpy()
    array([1.5])
    """
    name = backend.name_of(backend.dtype_of(dtype) if isinstance(dtype, str | type) else dtype)
    return cast(x, name) if "float" in name else _to_whole(x, name)


@op(None)
def _to_whole(x: Operand, name: str) -> Array:
    xp = namespace(x)
    return xp.astype(x, getattr(xp, name), copy=False)


@op(lambda g, device, source: to_device(g, device=source, source=device))
def to_device(x: Operand, *, device: str, source: str) -> Array:
    """`x`, which lives on `source`, copied to `device`; the gradient travels back."""
    return backend.to_device(x, device)


@op(lambda g: g)
def identity(x: Array) -> Array:
    """`x` under a new node."""
    return x


def power(a: Operand, b: Operand) -> Tensor:
    """`a` to the power `b`, of shapes that broadcast. Also `a ** b`.

    NaN for a negative base and a fractional exponent. The derivative by the base is right at 0 too
    (`x ** 0` has 0, `x ** 0.5` has `inf` unless its gradient is 0); the derivative by the exponent,
    `a ** b * log(a)`, is 0 where `a ** b` is 0, and at `0 ** 0`.

    >>> import tinygrad_rnn as tr
    >>> tr.power(tr.Tensor([2.0, 3.0]), 2).numpy()
    array([4., 9.], dtype=float32)
    """
    if isinstance(b, Real):  # a NumPy scalar becomes a plain number: float32 stays float32
        return _power(a, int(b) if isinstance(b, Integral) else float(b))
    if isinstance(a, Real):
        return _exponential(b, int(a) if isinstance(a, Integral) else float(a))
    return _general_power(a, b)


@op(lambda g, x, p: multiply_no_nan(g, p * _power(x, p - 1)) if p else 0 * g)
def _power(x: Array, p: float) -> Array:
    return x**p if p >= 0 else backend.checked_power(x, p)


@op(lambda g, y, base: multiply_no_nan(multiply_no_nan(g, y), _log_of_base(base)))
def _exponential(x: Array, base: float) -> Array:
    return backend.checked_power(base, x)


def _log_of_base(base: float) -> float:
    """log(base): 0 for 0, since 0 ** x is flat where it is defined; NaN below."""
    if base > 0:
        return math.log(base)
    return math.nan if base else 0.0


@op(
    lambda g, a, b: multiply_no_nan(g, multiply_no_nan(b, _general_power(a, b - 1))),
    lambda g, a, y: multiply_no_nan(g, multiply_no_nan(y, log(_base(a, y)))),
    promote=True,
)
def _general_power(a: Array, b: Array) -> Array:
    return backend.checked_power(a, b)


def _base(a: Operand, y: Operand) -> Tensor:
    """The base `a` of y = a ** b, and 1 at 0 ** 0, where the derivative by the exponent is 0."""
    return where(equal(y, 1), where(equal(a, 0), 1.0, a), a)
