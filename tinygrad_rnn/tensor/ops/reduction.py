"""The derivative table: sums, extremes and other functions of many elements.

`axis` is `None` (all axes), an integer or a tuple of them, counted from the end if negative; with
`keepdims` a reduced axis stays with length 1. What they pull back is `spread`: the gradient
repeated along the axes that were reduced. What adds up computes float16 in float32 (`wide`).
"""

from __future__ import annotations

import builtins
import math
from typing import Any

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.scalars import real_number
from tinygrad_rnn.tensor.backend import Array, namespace, summed
from tinygrad_rnn.tensor.op import Operand, in_float32, op
from tinygrad_rnn.tensor.ops.arithmetic import equal, where
from tinygrad_rnn.tensor.ops.elementwise import exp, square
from tinygrad_rnn.tensor.ops.shape import (
    Axes,
    axes_of,
    broadcast_to,
    flip,
    pad,
    reshape,
    transpose,
    with_shape,
)
from tinygrad_rnn.tensor.squares import length, shrinking
from tinygrad_rnn.tensor.tensor import Tensor


@op(lambda g, x_shape, axis: spread(g, x_shape, axis), wide=True)
def sum(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum over `axis`; 0 over nothing.

    >>> import tinygrad_rnn as tr
    >>> tr.sum(tr.Tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).numpy()
    array([4., 6.], dtype=float32)
    """
    return summed(x, axis, keepdims)


@op(
    lambda g, x_shape, axis: spread(g * (1 / (count(x_shape, axis) or 1)), x_shape, axis),
    wide=True,
)
def mean(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The arithmetic mean over `axis`.

    >>> import tinygrad_rnn as tr
    >>> tr.mean(tr.Tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).numpy()
    array([2., 3.], dtype=float32)
    """
    return summed(x, axis, keepdims, mean=True)


@op(None, None)
def _share(x: Operand, extreme: Operand, *, axis: Axes) -> Array:
    """1 / n at each of the n elements of `x` that equal their reduction `extreme`, else 0."""
    xp = namespace(x)
    attains = x == xp.reshape(extreme, kept_shape(x.shape, axis))
    wide = xp.result_type(x.dtype, xp.float32)  # float16 could not count beyond 2048
    n = xp.sum(xp.astype(attains, wide), axis=axis, keepdims=True)
    return xp.astype(attains, wide) / xp.maximum(n, 1.0)


@op(lambda g, x, y, axis: spread(g, x.shape, axis) * _share(x, y, axis=axis))
def max(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The largest value over `axis`. Subgradient: equal shares to all elements that attain it.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([1.0, 3.0, 3.0], requires_grad=True)
    >>> tr.max(x).backward()
    >>> x.grad.numpy()
    array([0. , 0.5, 0.5], dtype=float32)
    """
    return namespace(x).max(x, axis=axis, keepdims=keepdims)


@op(lambda g, x, y, axis: spread(g, x.shape, axis) * _share(x, y, axis=axis))
def min(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The smallest value over `axis`. Subgradient: equal shares to all elements that attain it.

    >>> import tinygrad_rnn as tr
    >>> tr.min(tr.Tensor([[1.0, 2.0], [3.0, 0.0]]), axis=1).numpy()
    array([1., 0.], dtype=float32)
    """
    return namespace(x).min(x, axis=axis, keepdims=keepdims)


@op(
    lambda g, x, y, axis: keep(g, x.shape, axis) * _direction(x, keep(y, x.shape, axis)),
    wide=True,
)
def norm(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """The Euclidean norm √(Σ x²) over `axis`, also where the squares are too large or too small for
    the dtype. Subgradient: 0 where the norm is 0.

    >>> import tinygrad_rnn as tr
    >>> tr.norm(tr.Tensor([3.0, 4.0])).item()
    5.0
    """
    return length(x, axis, keepdims)


def _direction(x: Operand, y: Operand) -> Tensor:
    """x / y, and 0 in every order of derivative where the norm y is 0."""
    zero = equal(y, 0)
    return where(zero, 0.0, x) / where(zero, 1.0, y)


@op(lambda g, x_shape, axis: reshape(_sums_to_the_end(g, axis), x_shape), wide=True)
def cumsum(x: Operand, axis: int | None = None) -> Array:
    """The running sum along `axis`; of all elements in order, as one axis, if it is `None`.

    >>> import tinygrad_rnn as tr
    >>> tr.cumsum(tr.Tensor([1.0, 2.0, 3.0])).numpy()
    array([1., 3., 6.], dtype=float32)
    """
    xp = namespace(x)
    if axis is None:
        return xp.cumulative_sum(xp.reshape(x, (-1,)), axis=0)
    return xp.cumulative_sum(x, axis=axis)


def _sums_to_the_end(g: Operand, axis: int | None) -> Tensor:
    return flip(cumsum(flip(g, axis), axis), axis)


@op(lambda g, y, axis: y * (g - sum(g * y, axis, keepdims=True)), wide=True)
def softmax(x: Operand, axis: Axes = -1) -> Array:
    """exp(x) / Σ exp(x) over `axis`: positive, with sum 1. Where all of `x` is `-inf`, zeros.

    >>> import tinygrad_rnn as tr
    >>> tr.softmax(tr.Tensor([1000.0, 1000.0])).numpy()
    array([0.5, 0.5], dtype=float32)
    """
    _, _, e, total = _exponents(x, axis)
    return e / total


@op(lambda g, y, axis: g - exp(y) * sum(g, axis, keepdims=True), wide=True)
def log_softmax(x: Operand, axis: Axes = -1) -> Array:
    """The logarithm of `softmax`, finite where that rounds to 0; `-inf` where all of `x` is `-inf`.

    >>> import tinygrad_rnn as tr
    >>> tr.log_softmax(tr.Tensor([0.0, -1000.0])).numpy()
    array([    0., -1000.], dtype=float32)
    """
    _, z, _, total = _exponents(x, axis)
    return z - namespace(x).log(total)


@op(lambda g, x, axis: keep(g, x.shape, axis) * softmax(x, axis), wide=True)
def logsumexp(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """log Σ exp(x) over `axis`, a smooth maximum that cannot overflow. Of `-inf` alone: `-inf`,
    gradient 0.

    >>> import tinygrad_rnn as tr
    >>> tr.logsumexp(tr.Tensor([1000.0, -1000.0])).item()
    1000.0
    """
    xp = namespace(x)
    peak, _, _, total = _exponents(x, axis)
    y = xp.where(xp.isfinite(peak), peak + xp.log(total), peak)
    return y if keepdims else xp.reshape(y, left_shape(x.shape, axis))


def _exponents(x: Array, axis: Axes) -> tuple[Array, Array, Array, Array]:
    """The peak over `axis`, z = `x` less it (0 if infinite), e = exp(z), and Σ e, or 1 where 0."""
    xp = namespace(x)
    if x.size:
        peak = xp.max(x, axis=axis, keepdims=True)
    else:
        peak = xp.sum(x, axis=axis, keepdims=True) - math.inf
    z = x - xp.where(xp.isfinite(peak), peak, 0.0)
    e = xp.exp(z)
    total = summed(e, axis, keepdims=True)
    return peak, z, e, xp.where(total == 0, 1.0, total)


@op(None)
def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Array:
    """Where along `axis` (`None`: in the flattened `x`) the largest value is, first of equals. No
    derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.argmax(tr.Tensor([1.0, 3.0, 2.0])).item()
    1
    """
    return namespace(x).argmax(x, axis=axis, keepdims=keepdims)


@op(None)
def argmin(x: Operand, axis: int | None = None, keepdims: bool = False) -> Array:
    """Where along `axis` (`None`: in the flattened `x`) the smallest is, first of equals. No
    derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.argmin(tr.Tensor([1.0, 3.0, 2.0])).item()
    0
    """
    return namespace(x).argmin(x, axis=axis, keepdims=keepdims)


@op(None)
def any(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """Whether an element over `axis` is other than 0; False over nothing. No derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.any(tr.Tensor([[1.0, 2.0], [0.0, 0.0]]) > 1, axis=1).numpy()
    array([ True, False])
    """
    return namespace(x).any(x, axis=axis, keepdims=keepdims)


@op(None)
def all(x: Operand, axis: Axes = None, keepdims: bool = False) -> Array:
    """Whether every element over `axis` is other than 0; True over nothing. No derivative.

    >>> import tinygrad_rnn as tr
    >>> tr.all(tr.Tensor([[1.0, 2.0], [0.0, 2.0]]) > 1, axis=0).numpy()
    array([False,  True])
    """
    return namespace(x).all(x, axis=axis, keepdims=keepdims)


# Made of the ops above, so their derivatives of every order are there already.


@in_float32
def prod(x: Operand, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The product over `axis`; 1 over nothing. Exact with zeros in `x`, in every order of
    derivative.

    Halves are multiplied until one element is left: a tree of products, with no division by an
    element anywhere.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([0.0, 2.0, 3.0], requires_grad=True)
    >>> tr.prod(x).backward()
    >>> x.grad.numpy()
    array([6., 0., 0.], dtype=float32)
    """
    x = with_shape(x)
    reduced = reduced_axes(axis, x.ndim)
    left = tuple(i for i in range(x.ndim) if i not in reduced)
    n, rest = count(x.shape, axis), left_shape(x.shape, axis)
    y = reshape(transpose(x, (*reduced, *left)), (n, *rest))
    filling = (1 << ((n or 1) - 1).bit_length()) - n  # up to a power of two, with ones
    if filling:
        y = pad(y, ((0, filling), *((0, 0) for _ in rest)), constant_values=1)
    while y.shape[0] > 1:
        half = y.shape[0] // 2
        y = y[:half, ...] * y[half:, ...]
    return reshape(y, kept_shape(x.shape, axis) if keepdims else rest)


@in_float32
def var(x: Operand, axis: Axes = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The variance over `axis`: the sum of squared distances from the mean, divided by n - `ddof`.

    >>> import tinygrad_rnn as tr
    >>> tr.var(tr.Tensor([1.0, 3.0])).item()
    1.0
    """
    x, ddof = with_shape(x), real_number("var: ddof", ddof)
    n = count(x.shape, axis)
    d = _centred(x, axis)
    k = shrink(d, axis=axis, by=2.0 ** -(n or 1).bit_length())
    y: Tensor = (
        mean(square(d * k), axis, keepdims=True) / k / k
    )  # a mean may fit where the sum does not
    y = y if keepdims else reshape(y, left_shape(x.shape, axis))
    if not ddof:
        return y
    return y * (n / (n - ddof) if n > ddof else math.nan)


@in_float32
def std(x: Operand, axis: Axes = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation over `axis`, the root of `var`. Subgradient: 0 where all values are
    equal.

    >>> import tinygrad_rnn as tr
    >>> tr.std(tr.Tensor([1.0, 1.0, 7.0, 7.0])).item()
    3.0
    """
    x, ddof = with_shape(x), real_number("std: ddof", ddof)
    n = count(x.shape, axis)
    y: Tensor = norm(_centred(x, axis), axis, keepdims)
    return y * (1 / math.sqrt(n - ddof) if n > ddof else math.nan)


@op(None)
def shrink(x: Operand, *, axis: Axes, by: float | None = None) -> Array:
    """Powers of two for the rows of `x` along `axis`, as `shrinking` has them."""
    return shrinking(x, axis, by)


def _centred(x: Operand, axis: Axes) -> Any:
    """`x` less its mean: a mean of large numbers is rounded, so what is left is centred again."""
    rounded = mean(x, axis, keepdims=True)
    d = x - (rounded.detach() if isinstance(rounded, Tensor) else rounded)
    return d - mean(d, axis, keepdims=True)


def reduced_axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    """`axis` as `axes_of` has it; 0 and -1 of a 0-d array mean its one element, as in NumPy."""
    return () if ndim == 0 and axis in (0, -1) else axes_of(axis, ndim)


def kept_shape(shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    """`shape` reduced over `axis` with `keepdims`."""
    reduced = reduced_axes(axis, len(shape))
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))


def left_shape(shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    """`shape` reduced over `axis` without `keepdims`."""
    reduced = reduced_axes(axis, len(shape))
    return tuple(n for i, n in enumerate(shape) if i not in reduced)


def count(shape: tuple[int, ...], axis: Axes) -> int:
    """How many elements of an array of `shape` one element of its reduction is made of."""
    return math.prod(shape[i] for i in reduced_axes(axis, len(shape)))


def keep(g: Operand, shape: tuple[int, ...], axis: Axes) -> Tensor:
    """The reduction `g` of an array of `shape` with `keepdims`, whether it was made so or not."""
    return reshape(g, kept_shape(shape, axis))


def spread(g: Operand, shape: tuple[int, ...], axis: Axes) -> Tensor:
    """The reduction `g` repeated along `axis` to the `shape` that was reduced: `sum` transposed."""
    return broadcast_to(g if axis is None else keep(g, shape, axis), shape)


def sum_to(g: Operand, shape: tuple[int, ...]) -> Tensor:
    """`g` summed to the `shape` that was broadcast to it: the engine's inlet where it records."""
    extra = g.ndim - len(shape)
    if extra < 0 or builtins.any(
        n not in (1, m) for n, m in zip(shape, g.shape[extra:], strict=True)
    ):
        raise ShapeError(
            f"a gradient of shape {tuple(g.shape)} for an input of shape {shape}: "
            "the derivative is wrong"
        )
    stretched = (i for i in range(extra, g.ndim) if shape[i - extra] == 1 != g.shape[i])
    return reshape(sum(g, (*range(extra), *stretched)), shape)
