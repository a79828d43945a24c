"""The derivative table: ops that move, repeat or cut elements without changing them.

Their derivatives are the opposite moves. A gradient that comes back larger than the argument, as
after `broadcast_to`, is summed by the engine, so no line here speaks of broadcasting.
"""

# mypy: disable-error-code="has-type"
# (a derivative may name its own op, or one below it)

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.scalars import as_integer, as_integers
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, namespace
from tinygrad_rnn.tensor.graph import Part
from tinygrad_rnn.tensor.op import Operand, op
from tinygrad_rnn.tensor.tensor import Tensor

Axes = int | Sequence[int] | None


@op(lambda g, x_shape: reshape(g, x_shape))
def reshape(x: Operand, shape: int | Sequence[int]) -> Array:
    """The elements of `x` in another shape of the same size; one entry may be -1 and is worked out.

    Raises `ShapeError` if the sizes differ.

    >>> import tinygrad_rnn as tr
    >>> tr.reshape(tr.Tensor([[1.0, 2.0], [3.0, 4.0]]), -1).numpy()
    array([1., 2., 3., 4.], dtype=float32)
    """
    return namespace(x).reshape(x, shape if type(shape) is tuple else integers("shape", shape))


@op(lambda g, axes: transpose(g, _inverse(axes)))
def transpose(x: Operand, axes: Sequence[int] | None = None) -> Array:
    """`x` with its axes in the order `axes`; without it, reversed.

    >>> import tinygrad_rnn as tr
    >>> tr.transpose(tr.Tensor([[1.0, 2.0], [3.0, 4.0]])).numpy()
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    """
    order = axes if type(axes) is tuple else None if axes is None else integers("axes", axes)
    order = tuple(reversed(range(x.ndim))) if order is None else order
    return namespace(x).permute_dims(x, order)


@op(lambda g, axis1, axis2: swapaxes(g, axis1, axis2))
def swapaxes(x: Operand, axis1: int, axis2: int) -> Array:
    """`x` with two axes exchanged.

    >>> import tinygrad_rnn as tr
    >>> tr.swapaxes(tr.zeros(2, 3, 4), 0, -1).shape
    (4, 3, 2)
    """
    axes = list(range(x.ndim))
    first, second = axes_of((axis1, axis2), x.ndim)
    axes[first], axes[second] = second, first
    return namespace(x).permute_dims(x, tuple(axes))


@op(lambda g, source, destination: moveaxis(g, destination, source))
def moveaxis(
    x: Operand, source: int | tuple[int, ...], destination: int | tuple[int, ...]
) -> Array:
    """`x` with the axes `source` moved to the places `destination`; the others keep their order.

    >>> import tinygrad_rnn as tr
    >>> tr.moveaxis(tr.zeros(2, 3, 4), 0, -1).shape
    (3, 4, 2)
    """
    return namespace(x).moveaxis(x, source, destination)


@op(lambda g, x_shape: reshape(g, x_shape))
def squeeze(x: Operand, axis: Axes = None) -> Array:
    """`x` without its axes of length 1, or without those in `axis`; a `ShapeError` if one of them
    is longer.

    >>> import tinygrad_rnn as tr
    >>> tr.squeeze(tr.zeros(1, 3, 1), axis=0).shape
    (3, 1)
    """
    ones = tuple(i for i, n in enumerate(x.shape) if n == 1)
    drop = ones if axis is None else axes_of(axis, x.ndim)
    if not set(drop) <= set(ones):
        raise ShapeError(f"squeeze: axis {axis} of shape {x.shape} is longer than 1")
    return namespace(x).reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in drop))


@op(lambda g, x_shape: reshape(g, x_shape))
def expand_dims(x: Operand, axis: int | Sequence[int]) -> Array:
    """`x` with a new axis of length 1 at each position in `axis` of the result.

    >>> import tinygrad_rnn as tr
    >>> tr.expand_dims(tr.zeros(3), axis=-1).shape
    (3, 1)
    """
    axes = integers("axis", axis)
    ndim = x.ndim + len(axes)
    new = axes_of(axes, ndim)
    sizes = iter(x.shape)
    if len(set(new)) < len(new):
        raise ShapeError(f"expand_dims: axis {axis} names one place twice")
    return namespace(x).reshape(x, tuple(1 if i in new else next(sizes) for i in range(ndim)))


@op(lambda g: g)
def broadcast_to(x: Operand, shape: Sequence[int]) -> Array:
    """`x` repeated to `shape` by NumPy's rules, without copying; a `ShapeError` if they do not
    allow it.

    >>> import tinygrad_rnn as tr
    >>> tr.broadcast_to(tr.Tensor([1.0, 2.0]), (2, 2)).numpy()
    array([[1., 2.],
           [1., 2.]], dtype=float32)
    """
    return namespace(x).broadcast_to(x, integers("shape", shape))


@op(lambda g, axis: flip(g, axis))
def flip(x: Operand, axis: int | tuple[int, ...] | None = None) -> Array:
    """`x` backwards along `axis`: one, several, or (`None`) all of them.

    >>> import tinygrad_rnn as tr
    >>> tr.flip(tr.Tensor([1.0, 2.0, 3.0])).numpy()
    array([3., 2., 1.], dtype=float32)
    """
    return namespace(x).flip(x, axis=axis)


@op(lambda g, k: tril(g, k))
def tril(x: Operand, k: int = 0) -> Array:
    """The matrices of `x` (..., M, N) with 0 above the `k`-th diagonal.

    >>> import tinygrad_rnn as tr
    >>> tr.tril(tr.ones(2, 2)).numpy()
    array([[1., 0.],
           [1., 1.]], dtype=float32)
    """
    _check_matrix("tril", x)
    return namespace(x).tril(x, k=k)


@op(lambda g, k: triu(g, k))
def triu(x: Operand, k: int = 0) -> Array:
    """The matrices of `x` (..., M, N) with 0 below the `k`-th diagonal.

    >>> import tinygrad_rnn as tr
    >>> tr.triu(tr.ones(2, 2)).numpy()
    array([[1., 1.],
           [0., 1.]], dtype=float32)
    """
    _check_matrix("triu", x)
    return namespace(x).triu(x, k=k)


def _check_matrix(name: str, x: Operand) -> None:
    if not x.ndim:
        raise ShapeError(f"{name}: a matrix is needed, not a number")


@op(lambda g, x_shape, pad_width: g[_interior(x_shape, pad_width)])
def pad(x: Operand, pad_width: Any, constant_values: float = 0) -> Array:
    """`x` with entries of `constant_values`, one number, around it.

    `pad_width` is n, (before, after), or one such pair per axis; `ShapeError` for anything else.

    >>> import tinygrad_rnn as tr
    >>> tr.pad(tr.Tensor([1.0, 2.0]), (1, 2), constant_values=9).numpy()
    array([9., 1., 2., 9., 9.], dtype=float32)
    """
    pairs = _pairs(pad_width, x.ndim)
    return backend.pad(x, pairs, constant_values) if pairs else x


def _one_axis(name: str, xs: Sequence[Operand], axis: Any) -> int:
    """`axis` of a list that is not empty, or the cure where a second tensor was given instead."""
    found = None if isinstance(axis, Tensor) else as_integer(axis)
    if found is None:
        raise TypeError(
            f"{name}: axis must be an integer, not {type(axis).__name__}: "
            "are the tensors in a list?"
        )
    if len(xs) == 0:
        raise ShapeError(f"{name}: the list has no tensors")
    return found


def concatenate(arrays: Sequence[Operand], axis: int = 0) -> Tensor:
    """A list of tensors joined along `axis`; their other axes must agree, or it is a `ShapeError`.

    >>> import tinygrad_rnn as tr
    >>> tr.concatenate([tr.zeros(2), tr.ones(1)]).numpy()
    array([0., 0., 1.], dtype=float32)
    """
    return _concatenate(*arrays, axis=_one_axis("concatenate", arrays, axis))


@op(joint=lambda g, xs_shapes, axis: split(g, _seams(xs_shapes, axis), axis), promote=True)
def _concatenate(*xs: Operand, axis: int) -> Array:
    return backend.concat(xs, axis=axis)


def _seams(shapes: Sequence[tuple[int, ...]], axis: int) -> list[int]:
    """Where along `axis` arrays of `shapes` meet once they are joined."""
    return list(accumulate(shape[axis] for shape in shapes))[:-1]


def stack(arrays: Sequence[Operand], axis: int = 0) -> Tensor:
    """A list of tensors of one shape as the entries of a new axis; a `ShapeError` if the shapes
    differ.

    >>> import tinygrad_rnn as tr
    >>> tr.stack([tr.zeros(2), tr.ones(2)], axis=1).numpy()
    array([[0., 1.],
           [0., 1.]], dtype=float32)
    """
    return _stack(*arrays, axis=_one_axis("stack", arrays, axis))


@op(joint=lambda g, axis: _unstacked(moveaxis(g, axis, 0) if axis else g), promote=True)
def _stack(*xs: Operand, axis: int) -> Array:
    return backend.stack(xs, axis=axis)


def _unstacked(g: Operand) -> list[Any]:
    """The entries of the first axis."""
    return [g[t, ...] for t in range(g.shape[0])]


def split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """`x` cut along `axis`, as a list: into so many equal pieces, or before each of the positions.

    Raises `ShapeError` if the axis does not divide into equal pieces.

    >>> import tinygrad_rnn as tr
    >>> [piece.shape for piece in tr.split(tr.zeros(5, 2), [1, 3])]
    [(1, 2), (2, 2), (2, 2)]
    """
    x = with_shape(x)
    (axis,) = axes_of(axis, x.ndim)
    count = as_integer(indices_or_sections)
    cuts = integers("indices_or_sections", indices_or_sections) if count is None else count
    return [slice_(x, index) for index in _pieces(x.shape, cuts, axis)]


@lru_cache(maxsize=256)
def _pieces(
    shape: tuple[int, ...], cuts: int | tuple[int, ...], axis: int
) -> list[tuple[Any, ...]]:
    """The indices of the pieces: `split` is called at every step of a plain recurrent network."""
    if isinstance(cuts, int):
        n = shape[axis]
        if cuts < 1 or n % cuts:
            raise ShapeError(
                f"split: axis {axis} of shape {shape} does not divide into {cuts} equal pieces"
            )
        cuts = tuple(range(n // cuts, n, n // cuts)) if n else (0,) * (cuts - 1)
    pieces = [slice(*bounds) for bounds in pairwise((0, *cuts, None))]
    if axis == len(shape) - 1:
        return [(..., piece) for piece in pieces]
    return [(*(slice(None),) * axis, piece, ...) for piece in pieces]


@op(lambda g, index: Part(g, index, basic=True))
def slice_(x: Array, index: tuple[Any, ...], /) -> Array:
    """`x[index]` for integers and slices, `...` among them, so that NumPy answers no scalar."""
    return x[index]


def with_shape(x: Operand) -> Any:
    """`x` itself, or, where it is a list or a number, an array of it."""
    if x is None:
        raise TypeError("None is no operand: a Tensor, an array or a number is")
    return x if isinstance(x, Tensor) else backend.raw_array(x)


def axes_of(axis: Axes, ndim: int) -> tuple[int, ...]:
    """`axis` as a tuple of non-negative axes: all for `None`; `ShapeError` for one out of range."""
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    axes = integers("axis", axis)
    if any(not -ndim <= i < ndim for i in axes):
        raise ShapeError(f"axis {axis} is out of range for {ndim} dimensions")
    return tuple(i % ndim for i in axes)


def integers(what: str, given: Any) -> tuple[int, ...]:
    """An integer, or a sequence or an array of them, as a tuple; `TypeError` for anything else."""
    found = as_integers(given)
    if found is None:
        raise TypeError(f"{what} must be an integer or several of them, not {given!r:.60}")
    return found


def _inverse(axes: Sequence[int] | None) -> tuple[int, ...] | None:
    """The permutation that undoes `axes`."""
    if axes is None:
        return None
    return tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


def _pairs(pad_width: Any, ndim: int) -> tuple[tuple[int, ...], ...]:
    """The `pad_width` of `pad` as one (before, after) per axis."""
    flat = as_integers(pad_width)
    if flat is not None:
        pairs: tuple[tuple[int, ...], ...] = (flat * 2 if len(flat) == 1 else flat,) * ndim
    else:
        pairs = tuple(integers("pad: pad_width", pair) for pair in pad_width)
    if len(pairs) != ndim or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ShapeError(
            f"pad: pad_width {pad_width} is not n, (before, after) "
            f"or one such pair for each of {ndim} axes"
        )
    return pairs


def _interior(shape: tuple[int, ...], pad_width: Any) -> tuple[Any, ...]:
    """Where `pad` has put `x`."""
    pairs = _pairs(pad_width, len(shape))
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, pairs, strict=True))
