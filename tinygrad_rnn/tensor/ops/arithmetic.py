"""The derivative table: arithmetic, comparisons, and the choice between two values.

How to read a line: above each op stands one rule per argument. `g` is the gradient of the output;
the other names are what the rule needs: `y` the output, an argument, a shape (`x_shape`) or an
option. Nothing else is kept for the backward.

Two products close this table. Where a derivative is infinite or undefined (sqrt at 0, log at 0, 1 /
b at b = 0), `multiply_no_nan` and `divide_no_nan` let a gradient of 0 stay 0: a branch that `where`
did not choose contributes nothing, instead of 0 * inf = NaN.
"""

# mypy: disable-error-code="has-type"
# (a derivative may name its own op, or one below it)

from __future__ import annotations

from typing import Any

from tinygrad_rnn.errors import DTypeError
from tinygrad_rnn.scalars import real_number
from tinygrad_rnn.tensor.backend import (
    Array,
    choose,
    fitting,
    is_boolean,
    is_integer,
    namespace,
    promote,
)
from tinygrad_rnn.tensor.op import Operand, op
from tinygrad_rnn.tensor.tensor import Tensor


@op(lambda g: g, lambda g: g, promote=True)
def add(a: Array, b: Array) -> Array:
    """`a + b`, of shapes that broadcast; an integer operand takes the other's floating dtype. Also
    `a + b`.

    >>> import tinygrad_rnn as tr
    >>> tr.add(tr.Tensor([1.0, 2.0]), 1).numpy()
    array([2., 3.], dtype=float32)
    """
    return a + b


@op(lambda g: g, lambda g: -g, promote=True)
def subtract(a: Array, b: Array) -> Array:
    """`a - b`, of shapes that broadcast.

    >>> import tinygrad_rnn as tr
    >>> tr.subtract(tr.Tensor([1.0, 2.0]), 1).numpy()
    array([0., 1.], dtype=float32)
    """
    return a - b


@op(lambda g, b: g * b, lambda g, a: g * a, promote=True)
def multiply(a: Array, b: Array) -> Array:
    """`a * b` element by element, of shapes that broadcast.

    >>> import tinygrad_rnn as tr
    >>> tr.multiply(tr.Tensor([1.0, 2.0]), tr.Tensor([3.0, 4.0])).numpy()
    array([3., 8.], dtype=float32)
    """
    return a * b


@op(
    lambda g, b: divide_no_nan(g, b),
    lambda g, b, y: -multiply_no_nan(divide_no_nan(g, b), y),
    promote=True,
)
def divide(a: Array, b: Array) -> Array:
    """`a / b` element by element, of shapes that broadcast; a gradient of 0 stays 0 where `b` is 0.

    >>> import tinygrad_rnn as tr
    >>> tr.divide(tr.Tensor([1.0, 2.0]), 4).numpy()
    array([0.25, 0.5 ], dtype=float32)
    """
    return a / b


@op(lambda g: -g)
def negative(x: Array) -> Array:
    """`-x`.

    >>> import tinygrad_rnn as tr
    >>> tr.negative(tr.Tensor([1.0, -2.0])).numpy()
    array([-1.,  2.], dtype=float32)
    """
    return -x


@op(lambda g, a, b: if_larger(a, b, g), lambda g, a, b: if_larger(b, a, g), promote=True)
def maximum(a: Operand, b: Operand) -> Array:
    """The larger of `a` and `b` element by element; NaN if either is. Subgradient: half to each
    where equal.

    >>> import tinygrad_rnn as tr
    >>> tr.maximum(tr.Tensor([1.0, 5.0]), 2.0).numpy()
    array([2., 5.], dtype=float32)
    """
    return namespace(a, b).maximum(a, b)


@op(lambda g, a, b: if_larger(b, a, g), lambda g, a, b: if_larger(a, b, g), promote=True)
def minimum(a: Operand, b: Operand) -> Array:
    """The smaller of `a` and `b` element by element; NaN if either is. Subgradient: half to each
    where equal.

    >>> import tinygrad_rnn as tr
    >>> tr.minimum(tr.Tensor([1.0, 5.0]), 2.0).numpy()
    array([1., 2.], dtype=float32)
    """
    return namespace(a, b).minimum(a, b)


@op(lambda g, x, y: where(equal(x, y), g, 0.0))
def clip(x: Operand, min: float | None = None, max: float | None = None) -> Array:
    """`x` with values below `min` or above `max` (numbers) replaced by them. Subgradient: 1 on the
    bounds.

    >>> import tinygrad_rnn as tr
    >>> tr.clip(tr.Tensor([-2.0, 0.5, 2.0]), min=-1, max=1).numpy()
    array([-1. ,  0.5,  1. ], dtype=float32)
    """
    low = None if min is None else real_number("clip: min", min)
    high = None if max is None else real_number("clip: max", max)
    return x if low is None and high is None else namespace(x).clip(x, low, high)


def check_choices(a: Any, b: Any) -> None:
    """Raise `DTypeError` for a Python integer beside integers of a dtype that does not hold it."""
    for x, other in ((a, b), (b, a)):
        if type(x) is int and hasattr(other, "dtype") and is_integer(other.dtype):
            fitting("where: the number", x, other.dtype)


@op(
    None,
    lambda g, condition: where(condition, g, 0.0),
    lambda g, condition: where(condition, 0.0, g),
)
def where(condition: Operand, a: Operand, b: Operand) -> Array:
    """`a` where `condition` (boolean, no derivative) holds, else `b`; the three broadcast.

    The branch that is not chosen gets a gradient of exactly 0, whatever its own derivative is
    there:

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([0.0, 4.0], requires_grad=True)
    >>> tr.where(x > 0, tr.sqrt(x), x).sum().backward()
    >>> x.grad.numpy()
    array([1.  , 0.25], dtype=float32)
    """
    xp = namespace(condition, a, b)
    if not hasattr(a, "dtype") and not hasattr(b, "dtype"):
        a = xp.asarray(a, dtype=xp.float32 if isinstance(a + b, float) else xp.int64)
    if type(a) is int or type(b) is int:
        check_choices(a, b)
    a, b = promote(a, b)
    chosen = choose(condition, a, b)
    return xp.where(condition, a, b) if chosen is None else chosen


# Comparisons have no derivative; their results are boolean.


@op(None, None, promote=True)
def equal(a: Array, b: Array) -> Array:
    """`a == b` element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.equal(tr.Tensor([1.0, 2.0]), 2).numpy()
    array([False,  True])
    """
    return a == b


@op(None, None, promote=True)
def not_equal(a: Array, b: Array) -> Array:
    """`a != b` element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.not_equal(tr.Tensor([1.0, 2.0]), 2).numpy()
    array([ True, False])
    """
    return a != b


@op(None, None, promote=True)
def less(a: Array, b: Array) -> Array:
    """`a < b` element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.less(tr.Tensor([1.0, 2.0]), 2).numpy()
    array([ True, False])
    """
    return a < b


@op(None, None, promote=True)
def less_equal(a: Array, b: Array) -> Array:
    """`a <= b` element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.less_equal(tr.Tensor([1.0, 2.0]), 2).numpy()
    array([ True,  True])
    """
    return a <= b


@op(None, None, promote=True)
def greater(a: Array, b: Array) -> Array:
    """`a > b` element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.greater(tr.Tensor([1.0, 2.0]), 1).numpy()
    array([False,  True])
    """
    return a > b


@op(None, None, promote=True)
def greater_equal(a: Array, b: Array) -> Array:
    """`a >= b` element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.greater_equal(tr.Tensor([1.0, 2.0]), 2).numpy()
    array([False,  True])
    """
    return a >= b


# Booleans and integers: their results have no derivative.


@op(None, None)
def bitwise_and(a: Array, b: Array) -> Array:
    """`a & b` element by element: of booleans whether both hold, of integers their bits. No
    derivative.

    Raises `DTypeError` for floats.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([1.0, 2.0, 3.0])
    >>> ((x > 1) & (x < 3)).numpy()
    array([False,  True, False])
    """
    _check_bits("bitwise_and", a, b)
    return a & b


@op(None, None)
def bitwise_or(a: Array, b: Array) -> Array:
    """`a | b` element by element: of booleans whether one holds, of integers their bits. No
    derivative.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([1.0, 2.0, 3.0])
    >>> ((x == 1) | (x == 3)).numpy()
    array([ True, False,  True])
    """
    _check_bits("bitwise_or", a, b)
    return a | b


@op(None, None)
def bitwise_xor(a: Array, b: Array) -> Array:
    """`a ^ b` element by element: of booleans whether they differ, of integers their bits. No
    derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.bitwise_xor(tr.Tensor([True, True]), [True, False]).numpy()
    array([False,  True])
    """
    _check_bits("bitwise_xor", a, b)
    return a ^ b


@op(None)
def bitwise_invert(x: Array) -> Array:
    """`~x`: of booleans whether they do not hold, of integers their bits. No derivative.

    >>> import tinygrad_rnn as tr
    >>> (~(tr.Tensor([1.0, 2.0]) == 1)).numpy()
    array([False,  True])
    """
    _check_bits("bitwise_invert", x)
    return namespace(x).bitwise_invert(x)


@op(None, None)
def logical_and(a: Operand, b: Operand) -> Array:
    """Whether both `a` and `b` are other than 0, element by element: booleans, without a
    derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.logical_and(tr.Tensor([0.0, 2.0]), [True, True]).numpy()
    array([False,  True])
    """
    return namespace(a, b).logical_and(_truth(a), _truth(b))


@op(None, None)
def logical_or(a: Operand, b: Operand) -> Array:
    """Whether one of `a` and `b` is other than 0, element by element: booleans, without a
    derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.logical_or(tr.Tensor([0.0, 2.0]), [False, False]).numpy()
    array([False,  True])
    """
    return namespace(a, b).logical_or(_truth(a), _truth(b))


@op(None, None)
def logical_xor(a: Operand, b: Operand) -> Array:
    """Whether just one of `a` and `b` is other than 0, element by element: booleans, without a
    derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.logical_xor(tr.Tensor([0.0, 2.0]), [True, True]).numpy()
    array([ True, False])
    """
    return namespace(a, b).logical_xor(_truth(a), _truth(b))


@op(None)
def logical_not(x: Operand) -> Array:
    """Whether `x` is 0, element by element: booleans, without a derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.logical_not(tr.Tensor([0.0, 2.0])).numpy()
    array([ True, False])
    """
    return namespace(x).logical_not(_truth(x))


def _check_bits(name: str, *xs: Operand) -> None:
    """Raise `DTypeError` if one of `xs` holds floats."""
    for x in xs:
        dtype = getattr(x, "dtype", None)
        if isinstance(x, float) if dtype is None else not (is_boolean(dtype) or is_integer(dtype)):
            raise DTypeError(f"{name}: of booleans and integers, not {dtype or x!r}: compare first")


def _truth(x: Operand) -> Any:
    """Whether `x` is other than 0."""
    return x if isinstance(x, bool) or (hasattr(x, "dtype") and is_boolean(x.dtype)) else x != 0


def if_larger(a: Operand, b: Operand, g: Operand) -> Tensor:
    """`g` where `a > b`, half of it where they are equal, else 0: what `maximum` pulls to `a`."""
    return where(a > b, g, where(equal(a, b), 0.5 * g, 0.0))


# The two products in which a gradient of 0 wins over an infinite or undefined derivative. Being
# ops, with rules that name them again, they stay right under a second derivative, where testing g
# inside `where` would cut the graph at g = 0.


@op(lambda g, d: multiply_no_nan(g, d), lambda g, a: multiply_no_nan(a, g))
def multiply_no_nan(a: Operand, d: Operand) -> Array:
    """`a * d`, but 0 where `a` is 0, even if `d` is infinite or NaN there.

    >>> import numpy as np
    >>> multiply_no_nan(np.array([0.0, 2.0]), np.array([np.nan, 3.0]))
    array([0., 6.])
    """
    return namespace(a, d).where(a == 0, 0.0, a * d)


@op(lambda g, d: divide_no_nan(g, d), lambda g, d, y: -multiply_no_nan(y, divide_no_nan(g, d)))
def divide_no_nan(a: Operand, d: Operand) -> Array:
    """`a / d`, but 0 where `a` is 0, even if `d` is 0 or NaN there.

    >>> import numpy as np
    >>> divide_no_nan(np.array([0.0, 6.0]), np.array([1.0, 3.0]))
    array([0., 2.])
    """
    return namespace(a, d).where(a == 0, 0.0, a / d)
