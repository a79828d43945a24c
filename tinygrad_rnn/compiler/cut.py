"""How a call is cut into parts for several threads: by which rows or columns, each of which is a call of its own.

Each entry of a result is computed in one part, by the same function, in the order in which the whole call computes it,
so the bits are the same. Of a product that is not so: `products` says which parts it has, whoever computes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.compiler import products
from tinygrad_rnn.compiler.numpy_calls import assign, choose
from tinygrad_rnn.compiler.products import LEAST, WIDE, cuts, multiply
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import HostArray

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
Parts: TypeAlias = list[Call] | None  # one a thread, some of which may be empty; None if a call is not cut

FEW = 8  # rows for a thread, below which it takes columns of a product
LONG = 4096  # what has one axis only is cut if it is as long

SCATTER_ADD, TAKE_ROWS = inspect.unwrap(backend.scatter_add), inspect.unwrap(backend.take_rows)
BY_IDS = (TAKE_ROWS, backend.take_rows, SCATTER_ADD, backend.scatter_add)


def parts_of(n: int, call: Call, stages: Mapping[Any, Callable[..., Parts]]) -> Parts:
    """A call that was lowered, cut for `n` threads; `stages` are those of numba that are cut, and how."""
    f: Any = call[0]
    args = call[1]
    if isinstance(f, partial):  # as a program has options: what is lowered has no other
        f, args = f.func, (*args, f.keywords["out"])
    if f is multiply:
        return [(np.matmul, some) for some in products.parts_of(*args)]
    if f is np.concatenate:
        return joined(n, args[0], 0 if len(args) == 2 else args[1], args[-1])
    if f == np.add.reduce:
        return summed(n, *args)
    if f is assign and args[0] is np.take:
        return taken(n, args[1], args[3], *args[2])
    if f in BY_IDS:
        return (taken_rows if f in BY_IDS[:2] else added)(n, *args)
    if f in stages:
        return stages[f](n, f, *args)
    if f is np.copyto or f is np.ndarray.fill:
        return by_rows(n, f, args, args[0])
    if f in (np.maximum, np.minimum):  # which take `out` by its name
        parts = by_rows(n, f, args, args[-1])
        return None if parts is None else [(partial(f, out=some[-1]), some[:-1]) for _, some in parts]
    elementwise = f is choose or (isinstance(f, np.ufunc) and f.signature is None)
    return by_rows(n, f, args, args[-1]) if elementwise else None


def by_rows(n: int, f: Any, args: Sequence[Any], y: HostArray) -> Parts:
    """The rows, along the axis before the last, of `y` and of all arrays that have as many; others are given whole."""
    axis, least = (-2, LEAST) if y.ndim > 1 else (-1, LONG // 2)
    count = y.shape[axis] if y.ndim else 0

    def rows(a: Any, part: slice) -> Any:
        if not isinstance(a, np.ndarray) or a.ndim < -axis or a.shape[axis] != count:
            return a
        return a[part] if axis == -1 else a[..., part, :]

    if count < 2 * least:
        return None
    return [(f, tuple(rows(a, part) for a in args)) for part in cuts(count, n, min(least, LEAST))]


def staged(n: int, f: Any, *args: HostArray) -> Parts:
    """The rows of a batch, of a stage of a recurrent layer."""
    return by_rows(n, f, args, next(a for a in args if a.ndim == 2))


def multiplied(n: int, f: Any, x: HostArray, w: HostArray, y: HostArray) -> Parts:
    """The columns of a product by the panels of a weight, or its rows if they are many."""
    if len(y) >= n * FEW:
        return [(f, (x[part], w, y[part])) for part in cuts(len(y), n, LEAST)]
    width = w.shape[2]
    return [(f, (x, w[p], y[:, p.start * width : p.stop * width])) for p in cuts(len(w), n, 1)]


def packed(n: int, f: Any, W: HostArray, w: HostArray) -> Parts:
    """Some of the panels of a weight."""
    width = w.shape[2]
    return [(f, (W[:, p.start * width : p.stop * width], w[p])) for p in cuts(len(w), n, 1)]


def joined(n: int, xs: Sequence[HostArray], axis: int, y: HostArray) -> Parts:
    """The rows of each; where they are put below one another, some of them."""
    if y.ndim < 2 or y.shape[-2] < 2 * LEAST:
        return None
    if axis % y.ndim == y.ndim - 2:
        at = np.cumsum([0, *(x.shape[axis] for x in xs)])
        ends = pairwise([k * len(xs) // n for k in range(n + 1)])
        return [(np.concatenate, (xs[i:j], axis, y[..., at[i] : at[j], :])) for i, j in ends]
    parts = cuts(y.shape[-2], n, LEAST)
    return [(np.concatenate, ([x[..., part, :] for x in xs], axis, y[..., part, :])) for part in parts]


def summed(n: int, x: HostArray, axis: Any, dtype: Any, y: HostArray, keepdims: Any) -> Parts:
    """The columns, where rows are added, or the rows, where columns are."""
    over = {k % x.ndim for k in (range(x.ndim) if axis is None else (axis,) if type(axis) is int else axis)}
    if over == set(range(x.ndim - 1)) and x.shape[-1] >= 2 * WIDE:
        places: list[Any] = [(..., part) for part in cuts(x.shape[-1], n, WIDE)]
    elif over == {1} and x.ndim == 2 and len(x) >= 2 * LEAST:
        places = list(cuts(len(x), n, LEAST))
    else:
        return None
    return [(np.add.reduce, (x[place], axis, dtype, y[place], keepdims)) for place in places]


def taken(n: int, y: HostArray, options: Any, table: HostArray, ids: HostArray) -> Parts:
    """The rows of a table for some of the ids."""
    if ids.size < 2 * LEAST:
        return None
    ids, y = ids.reshape(-1), y.reshape(ids.size, -1)
    return [(assign, (np.take, y[part], (table, ids[part]), options)) for part in cuts(ids.size, n, LEAST)]


def taken_rows(n: int, y: HostArray, table: HostArray, ids: HostArray) -> Parts:
    """The same, of ids that were checked."""
    return None if ids.size < 2 * LEAST else [(TAKE_ROWS, (y[p], table, ids[p])) for p in cuts(ids.size, n, LEAST)]


def added(n: int, table: HostArray, index: Any, g: HostArray) -> Parts:
    """The columns of the rows that are added to those of a table."""
    if table.shape[1] < 2 * WIDE:
        return None
    ids = (index[0] if isinstance(index, tuple) else index).reshape(-1)
    g = g.reshape(ids.size, -1)
    return [(SCATTER_ADD, (table[:, part], (ids,), g[:, part])) for part in cuts(table.shape[1], n, WIDE)]
