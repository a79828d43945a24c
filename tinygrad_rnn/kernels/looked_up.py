"""The product of looked-up rows with a matrix as a kernel: each row of the table is multiplied once.

What it means is `linear`, and stands in `nn/looked_up.py`. Of characters, or of any vocabulary smaller than the number
of ids, nearly half of the products of a recurrent layer go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_rnn.kernels.recurrent import Needs
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import Array, dot, namespace, scatter_add, take, zeros_beside
from tinygrad_rnn.tensor.graph import Node, Product, Shortcut
from tinygrad_rnn.tensor.ops.linalg import fold


@dataclass(frozen=True)
class Lookup:
    """Where rows come from: `ids` (...) into a `table` (V, I), by the op of the node `origin`."""

    table: Array
    ids: Array
    origin: Node


def looked_up_forward(x: Array, W: Array, b: Array | None = None, *, rows: Lookup) -> Array:
    """x Wᵀ + b for x = table[ids], without reading x."""
    projected: Any = ops.linear(rows.table, W, b)
    return take(projected, rows.ids.reshape(-1), 0).reshape(*rows.ids.shape, W.shape[0])


def looked_up_vjp(
    g: Array, _: None, needs: Needs, x: Array, W: Array, b: Array | None = None, *, rows: Lookup
) -> Sequence[Any]:
    """Gradients of x, W and b. The rows of g that belong to one id are first added up, and then multiplied."""
    xp, table = namespace(g), rows.table
    sums = scatter_add(zeros_beside(g, (table.shape[0], W.shape[0]), g.dtype), rows.ids, g)
    moved = xp.sum(abs(sums), axis=1, keepdims=True) != 0
    to_x = Shortcut(lambda: dot(fold(g), W).reshape(x.shape), lambda: dot(sums, W), rows.origin)
    # a row to which no gradient comes may hold what it likes: 0 times NaN is NaN
    to_W = Product(sums, ops.where(moved, table, 0.0)) if needs[1] else None
    return (to_x, to_W) if b is None else (to_x, to_W, sums)
