"""The derivative table: products of matrices, and sums of products.

What a product pulls back to a 2-D weight is a `Product`: the pair (x, g) whose xᵀ g is the
gradient. It is lazy. The engine joins the pairs of all uses of a weight into few large products,
which is how back-propagation through time sums over time.
"""

from __future__ import annotations

import math
from typing import Any

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, dot, namespace
from tinygrad_rnn.tensor.graph import Product
from tinygrad_rnn.tensor.op import Operand, op
from tinygrad_rnn.tensor.ops.indexing import getitem
from tinygrad_rnn.tensor.ops.reduction import sum
from tinygrad_rnn.tensor.ops.shape import broadcast_to, expand_dims, reshape, with_shape
from tinygrad_rnn.tensor.tensor import Tensor

LETTERS = "".join(map(chr, range(ord("a"), ord("z") + 1)))
LETTERS += LETTERS.upper()


def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Tensor:
    """x Wᵀ + b, as a layer of O units computes it: (..., I) and a `weight` (O, I) give (..., O).

    `bias` is (O,) or None. Raises `ShapeError` if the shapes are not these; nothing but the leading
    axes of `x` is free.

    >>> import tinygrad_rnn as tr
    >>> tr.linear(tr.ones(4, 2), tr.ones(3, 2), tr.zeros(3)).shape
    (4, 3)
    """
    return _linear(x, weight) if bias is None else _linear_bias(x, weight, bias)


@op(lambda g, W: _rows(g, W), lambda g, x: _pair(g, x), promote=True)
def _linear(x: Array, W: Array) -> Array:
    if x.shape[-1:] != W.shape[1:] or not x.shape:
        raise ShapeError(f"linear: x {x.shape} and W {W.shape} are not (..., I) and (O, I)")
    y: Array = _rows(x, W.mT)
    return y


@op(lambda g, W: _rows(g, W), lambda g, x: _pair(g, x), lambda g: g, promote=True)
def _linear_bias(x: Array, W: Array, b: Array) -> Array:
    if x.shape[-1:] != W.shape[1:] or b.shape != W.shape[:1] or not x.shape:
        raise ShapeError(
            f"linear: x {x.shape}, W {W.shape}, b {b.shape} are not (..., I), (O, I) and (O,)"
        )
    y: Array = _rows(x, W.mT)
    if b.dtype != y.dtype:
        return y + b
    y += b  # y is ours alone; a second array of its size would cost a fifth of the whole
    return y


@op(
    lambda g, b, a_shape: _pull_left(g, b, a_shape),
    lambda g, a, b_shape: _pull_right(g, a, b_shape),
    promote=True,
)
def matmul(a: Array, b: Array) -> Array:
    """The matrix product, as NumPy's `@`: 1-D operands are vectors, axes before the last two
    broadcast.

    Raises `ShapeError` if the shapes do not fit.

    >>> import tinygrad_rnn as tr
    >>> tr.matmul(tr.ones(5, 4, 2), tr.ones(2, 3)).shape
    (5, 4, 3)
    """
    return _rows(a, b) if b.ndim == 2 and a.ndim > 1 else a @ b


def _pull_left(g: Operand, b: Operand, a_shape: tuple[int, ...]) -> Any:
    if b.ndim == 1:  # (..., I) @ (I,)
        return expand_dims(g, -1) * b
    if b.ndim > 2 and len(a_shape) == 1:  # (I,) @ (..., I, K)
        return (b @ expand_dims(g, -1))[..., 0]
    return _rows(g, b.mT) if b.ndim == 2 and g.ndim > 1 else matmul(g, b.mT)


def _pull_right(g: Operand, a: Operand, b_shape: tuple[int, ...]) -> Any:
    if len(b_shape) == 2:  # (..., I) @ (I, K)
        return _pair(a, g)
    if len(b_shape) == 1:  # (..., I) @ (I,)
        return expand_dims(g, -1) * a
    if a.ndim == 1:  # (I,) @ (..., I, K)
        return expand_dims(a, -1) * expand_dims(g, -2)
    return a.mT @ g  # (..., J, I) @ (..., I, K)


@op(lambda g, b: b @ g.mT, lambda g, a: a @ g)
def product(a: Array, b: Array) -> Array:
    """aᵀ b of two matrices with equally many rows: what a `Product` stands for, as an op."""
    return dot(a.mT, b)


def _rows(x: Operand, W: Operand) -> Any:
    """x W of `x` (..., I) and a matrix `W` as one product; unfolded, it were many small ones."""
    return dot(x, W) if x.ndim == 2 else reshape(dot(fold(x), W), (*x.shape[:-1], W.shape[1]))


def _pair(x: Operand, g: Operand) -> Product:
    """What a product pulls back to its weight, as matrices."""
    return Product(x, g) if x.ndim == 2 == g.ndim else Product(fold(x), fold(g))


def fold(x: Operand) -> Any:
    """`x` (..., I) as a matrix (N, I)."""
    return x if x.ndim == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def einsum(subscripts: str, *xs: Operand) -> Tensor:
    """Sums of products, as `numpy.einsum`: `"ij,jk->ik"`, implicit output, `...`, traces
    (`"ii->"`).

    Axes under one letter must have one length, or length 1, which is stretched. Raises `ShapeError`
    for axes and subscripts that do not fit.

    >>> import tinygrad_rnn as tr
    >>> tr.einsum("bi,bi->b", tr.ones(2, 3), tr.ones(2, 3)).numpy()
    array([3., 3.], dtype=float32)
    """
    xs = tuple(map(with_shape, xs))
    terms, out = _letters(subscripts, [x.shape for x in xs])
    sizes = _sizes(subscripts, terms, [x.shape for x in xs])
    simple = [_simplified(x, terms, i, out, sizes) for i, x in enumerate(xs)]
    inputs = ",".join(term for _, term in simple)
    y: Tensor = _einsum(*(x for x, _ in simple), subscripts=f"{inputs}->{out}")
    return y


@op(joint=lambda g, xs, subscripts: _pull_einsum(g, xs, subscripts), promote=True)
def _einsum(*xs: Operand, subscripts: str) -> Array:
    return backend.einsum(subscripts, *xs)


def _pull_einsum(g: Operand, xs: tuple[Operand, ...], subscripts: str) -> list[Any]:
    """Swap the output with one operand after the other: `ij,jk->ik` pulls back `ik,jk->ij` and
    `ij,ik->jk`.

    This is all, since each letter of an operand is also in the output or in another operand:
    `einsum` has seen to that.
    """
    inputs, out = subscripts.split("->")
    terms = inputs.split(",")

    def swap(i: int) -> Any:
        others = ",".join((*terms[:i], out, *terms[i + 1 :]))
        return _einsum(*xs[:i], g, *xs[i + 1 :], subscripts=f"{others}->{terms[i]}")

    return [swap(i) for i in range(len(xs))]


def _simplified(
    x: Operand, terms: list[str], i: int, out: str, sizes: dict[str, int]
) -> tuple[Operand, str]:
    """Operand `i` and its letters.

    Repeated letters become the diagonal, length 1 is stretched, lonely letters are summed.
    """
    term = "".join(dict.fromkeys(terms[i]))
    own = dict(zip(terms[i], x.shape, strict=True))
    if term != terms[i]:
        xp = namespace(x._array if isinstance(x, Tensor) else x)
        x = getitem(x, tuple(xp.reshape(xp.arange(own[c]), _column(term, c)) for c in terms[i]))
    if any(own[c] != sizes[c] for c in term):
        x = broadcast_to(x, tuple(sizes[c] for c in term))
    elsewhere = set(out).union(*terms[:i], *terms[i + 1 :])
    lonely = tuple(axis for axis, c in enumerate(term) if c not in elsewhere)
    if lonely:
        x = sum(x, lonely)
    return x, "".join(c for c in term if c in elsewhere)


def _column(term: str, letter: str) -> tuple[int, ...]:
    """The shape that lays a range along the axis of `letter`."""
    return tuple(-1 if c == letter else 1 for c in term)


def _letters(subscripts: str, shapes: list[tuple[int, ...]]) -> tuple[list[str], str]:
    """The letters of each operand and of the output: `...` spelt out, the output made explicit."""
    inputs, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(shapes):
        raise ShapeError(
            f"einsum: {subscripts!r} has {len(terms)} operands, but {len(shapes)} were given"
        )
    free = [c for c in LETTERS if c not in subscripts]
    spare = [len(shape) - len(t.replace("...", "")) for t, shape in zip(terms, shapes, strict=True)]
    most = max((n for t, n in zip(terms, spare, strict=True) if "..." in t), default=0)
    dots = "".join(free[:most])
    spelt = []
    for term, n in zip(terms, spare, strict=True):
        spelt.append(term.replace("...", dots[most - n :] if n > 0 else ""))
    joined = "".join(spelt)
    if not arrow:
        once = (c for c in sorted(set(joined)) if joined.count(c) == 1 and c not in dots)
        out = dots + "".join(once)
    out = out.replace("...", dots)
    wrong = [c for c in joined + out if not (c.isascii() and c.isalpha())]
    if wrong or len(set(out)) < len(out) or not set(dots) <= set(out) <= set(joined):
        raise ShapeError(
            f"einsum: {subscripts!r} is not understood: {wrong or 'see the letters of the output'}"
        )
    for term, shape in zip(spelt, shapes, strict=True):
        if len(term) != len(shape):
            raise ShapeError(
                f"einsum: {subscripts!r} does not fit shapes {', '.join(map(str, shapes))}"
            )
    return spelt, out


def _sizes(subscripts: str, terms: list[str], shapes: list[tuple[int, ...]]) -> dict[str, int]:
    """The length of the axis of each letter, where 1 goes with any."""
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        own = dict(zip(term, shape, strict=True))
        for c, n in zip(term, shape, strict=True):
            held = sizes.setdefault(c, n)
            if own[c] != n or (n != held and 1 not in (n, held)):
                shown = " and ".join(map(str, shapes))
                raise ShapeError(
                    f"einsum: {subscripts!r} of shapes {shown}: {c!r} stands for different lengths"
                )
            sizes[c] = n if held == 1 else held
    return sizes
