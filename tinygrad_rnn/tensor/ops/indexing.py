"""The derivative table: indexing. What an index pulls back is a `Part`: the gradient, and where it
belongs.

Parts are lazy. The engine adds all parts of a tensor into one buffer, so a loop over the T steps of
a sequence costs O(T), not T arrays of the sequence's size. Indices are copied, checked and made
non-negative here, at the forward.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.errors import BackendMismatchError
from tinygrad_rnn.tensor import backend, device
from tinygrad_rnn.tensor.backend import (
    Array,
    asarray,
    gather,
    is_boolean,
    is_integer,
    namespace,
    real,
    scatter_add,
    zeros_beside,
)
from tinygrad_rnn.tensor.device import check_later, is_on_device
from tinygrad_rnn.tensor.graph import Part
from tinygrad_rnn.tensor.mode import replayed
from tinygrad_rnn.tensor.op import Operand, op
from tinygrad_rnn.tensor.ops.shape import axes_of, slice_, squeeze, with_shape
from tinygrad_rnn.tensor.tensor import Tensor, box

_BOUNDS = frozenset({int, type(None)})
_BASIC = frozenset({int, slice, type(Ellipsis)})


def getitem(x: Operand, index: Any) -> Tensor:
    """`x[index]` as in NumPy: integers, slices, `...`, `None`, and arrays, lists or tensors of int
    or bool.

    An entry taken twice collects both gradients. Raises `IndexError` for an integer out of range
    (naming it, its axis and the size), for an array of floats, and for too many indices.

    >>> import tinygrad_rnn as tr
    >>> tr.Tensor([[1.0, 2.0], [3.0, 4.0]])[1, [0, 0, -1]].numpy()
    array([3., 3., 4.], dtype=float32)
    """
    if type(index) is int:  # `for x_t in x`
        return slice_(x, (index, ...))
    keys = index if type(index) is tuple else (index,)
    keys = tuple(_plain_slice(k) if type(k) is slice else k for k in keys)
    if _BASIC.issuperset(map(type, keys)):  # with `...` NumPy never answers with a scalar
        return slice_(x, keys if Ellipsis in keys else (*keys, ...))
    x = with_shape(x)
    return _gather(x, index=_checked_keys(keys, _raw(x)))


@op(lambda g, index: Part(g, index))
def _gather(x: Operand, index: Any) -> Array:
    return gather(x, index)


def take(x: Operand, indices: Operand, axis: int = 0) -> Tensor:
    """The entries `indices` (integers, any shape) of `axis` of `x`, whose axes take its place.

    An embedding is `take(weight, indices)`; where no axis is given NumPy flattens `x`, and we take
    the first. Raises `IndexError` for an index out of range, naming it and the size.

    >>> import tinygrad_rnn as tr
    >>> tr.take(tr.Tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 1], axis=0).numpy()
    array([[3., 4.],
           [3., 4.]], dtype=float32)
    """
    x = with_shape(x)
    (axis,) = axes_of(axis, x.ndim)
    ids = checked_ids(_raw(indices), x.shape[axis], axis, _raw(x))
    if ids.shape:
        return _take(x, box(ids, None) if is_on_device(ids) else ids, axis=axis)  # new ids: no copy
    return squeeze(_take(x, namespace(ids).reshape(ids, (1,)), axis=axis), axis=axis)


@op(lambda g, indices, axis: Part(g, (slice(None),) * axis + (_raw(indices),)), None)
def _take(x: Operand, indices: Operand, *, axis: int) -> Array:
    xp = namespace(x, indices)
    y = backend.take(x, xp.reshape(indices, (-1,)), axis)
    return xp.reshape(y, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def take_along_axis(x: Operand, indices: Operand, axis: int = -1) -> Tensor:
    """The entry of `x` at the place of each of `indices` (integers), at that position of `axis`.

    `indices` has as many axes as `x`; the others broadcast. Raises `IndexError` for an index out of
    range.

    >>> import tinygrad_rnn as tr
    >>> tr.take_along_axis(tr.Tensor([[1.0, 2.0], [3.0, 4.0]]), [[1], [0]]).numpy()
    array([[2.],
           [3.]], dtype=float32)
    """
    x = with_shape(x)
    (axis,) = axes_of(axis, x.ndim)
    return _take_along_axis(x, checked_ids(_raw(indices), x.shape[axis], axis, _raw(x)), axis=axis)


@op(lambda g, indices, x_shape, axis: Part(g, _grid(_raw(indices), x_shape, axis)), None)
def _take_along_axis(x: Operand, indices: Operand, *, axis: int) -> Array:
    return namespace(x, indices).take_along_axis(x, indices, axis=axis)


@op(joint=lambda g, indices: [getitem(g, index) for index in indices])
def assemble(*gs: Operand, indices: Sequence[Any], shape: tuple[int, ...]) -> Array:
    """Zeros of `shape` to which each of `gs` was added at its index: the sum of parts, as an op.

    >>> import numpy as np
    >>> places = [slice(0, 1), slice(0, 2)]
    >>> assemble(np.array([1.0]), np.array([2.0, 3.0]), indices=places, shape=(3,))
    array([3., 3., 0.])
    """
    buffer = zeros_beside(gs[0], shape, gs[0].dtype)
    for g, index in zip(gs, indices, strict=True):
        buffer = scatter_add(buffer, index, g)
    return buffer


def _plain_slice(key: slice) -> slice:
    """`key` with bounds that nobody can write to: a 0-d array is an index, too."""
    bounds = (key.start, key.stop, key.step)
    if _BOUNDS.issuperset(map(type, bounds)):
        return key
    return slice(*(None if b is None else _place(b) for b in bounds))


def _place(key: Any) -> int:
    """A key of an index as an integer; one on a device is read."""
    return operator.index(backend.to_host(key) if is_on_device(key) else key)


def _raw(x: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return x._array if isinstance(x, Tensor) else x


def _checked_keys(keys: tuple[Any, ...], x: Array) -> tuple[Any, ...]:
    """An index with arrays in it, made safe to keep, but for booleans, which the op copies."""
    keys = tuple(asarray(k) if isinstance(k, list | tuple | range) else _raw(k) for k in keys)
    for key in keys:
        if not (key is None or key is ... or isinstance(key, int | slice) or hasattr(key, "dtype")):
            raise IndexError(
                "an index is made of integers, slices, `...`, None, and arrays or lists of "
                f"integers or booleans, not {type(key).__name__}: {key!r:.60}"
            )
    widths = [_width(key) for key in keys]
    if sum(widths) > x.ndim:
        raise IndexError(f"too many indices: {sum(widths)} for a tensor of {x.ndim} dimensions")
    checked: list[Any] = []
    axis = 0
    for key, width in zip(keys, widths, strict=True):
        if _is_mask(key):
            key = key if isinstance(key, bool) else _beside(x, real(key))
        elif getattr(key, "ndim", 0):
            key = checked_ids(key, x.shape[axis], axis, x)
        elif hasattr(key, "dtype"):
            key = backend.to_host(key) if is_on_device(key) else key
            key = int(real(key)) if is_integer(key.dtype) else key.__index__()
        checked.append(key)
        axis += x.ndim - sum(widths) if key is ... else width
    return tuple(checked)


def _width(key: Any) -> int:
    """How many axes a key of an index takes the place of."""
    if _is_mask(key):
        return getattr(key, "ndim", 0)
    return int(key is not None and key is not ...)


def _is_mask(key: Any) -> bool:
    return isinstance(key, bool) or (hasattr(key, "dtype") and is_boolean(key.dtype))


@replayed(changes="nothing")
def checked_ids(ids: Operand, size: int, axis: int, x: Array) -> Array:
    """`ids` as new non-negative int64 beside `x`; an `IndexError` for one outside [-size, size), of
    ids on a device when something is next read from it.
    """
    ids = _raw(ids)
    ids = real(ids) if hasattr(ids, "dtype") else asarray(ids)
    xp = namespace(ids)
    if 0 in ids.shape:
        return _beside(x, xp.astype(ids, xp.int64))
    if not is_integer(ids.dtype):
        raise IndexError(f"an index must be of integers or booleans, not {ids.dtype}")
    if is_on_device(ids):  # and not waited for: CuPy wraps them meanwhile
        return _beside(x, _checked_later(ids, size, axis))
    low, high = int(xp.min(ids)), int(xp.max(ids))
    if low < -size or high >= size:
        raise _out_of_range(ids, size, axis)
    ids = xp.astype(ids, xp.int64)  # a copy, too
    return namespace(x).asarray(xp.where(ids < 0, ids + size, ids) if low < 0 else ids)


def _checked_later(ids: Array, size: int, axis: int) -> Array:
    """`ids` of a device as new ids from 0 on; one out of range is an error at the next read."""

    def error(placed: Array) -> IndexError:
        given = namespace(placed).where(placed < 0, placed - size, placed)
        return _out_of_range(given, size, axis)

    if device.kernels is not None and device.kernels.takes_ids():
        return device.kernels.placed_ids(ids, size, error)  # type: ignore[no-any-return]
    ids = namespace(ids).astype(ids, "int64")
    check_later((ids < -size) | (ids >= size), lambda: _out_of_range(ids, size, axis))
    return namespace(ids).where(ids < 0, ids + size, ids)


def _out_of_range(ids: Array, size: int, axis: int) -> IndexError:
    xp = namespace(ids)
    low, high = int(xp.min(ids)), int(xp.max(ids))
    wrong = low if low < -size else high
    return IndexError(f"index {wrong} is out of range for axis {axis} of size {size}")


def _beside(x: Array, index: Array) -> Array:
    """`index` in the library of `x`: from the host to a device, not the other way."""
    if is_on_device(index) and not is_on_device(x):
        raise BackendMismatchError(backend.mismatch((x, index)))
    return namespace(x).asarray(index)


def _grid(ids: Array, shape: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """The index that has `ids` along `axis` and every position along the other axes of `shape`."""
    xp = namespace(ids)
    grid = []
    for i, n in enumerate(shape):
        place = xp.reshape(xp.arange(n), (-1,) + (1,) * (len(shape) - 1 - i))
        grid.append(ids if i == axis else place)
    return tuple(grid)
