"""Rows that know the table they were looked up in, so that a layer can multiply each row of it once.

`rnn(embed(ids))` reads x = table[ids], (T, B, I). Where the table has fewer rows than x, what the layer wants,
x Wᵀ + b, is (table Wᵀ + b)[ids] with fewer products, and on the way back the gradients of one id are added up before
they are multiplied. x is there for whoever looks at it, and so is its gradient: it is formed if somebody keeps it,
hooks it or asks for it, and is passed by if nobody does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tinygrad_rnn.kernels.looked_up import Lookup, looked_up_forward, looked_up_vjp
from tinygrad_rnn.nn.precision import linear
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.tensor import Tensor


class LookedUp(Tensor):
    """Rows of a table, with a history, and where they come from."""

    __slots__ = ("rows",)

    def __init__(self, x: Tensor, rows: Lookup) -> None:
        self._array, self._node, self.rows = x._array, x._node, rows


def look_up(table: Tensor, ids: Tensor) -> Tensor:
    """The rows `ids` of a `table`.

    They know it if they have a history, which cannot come from outside of what `tr.compile` records, and are no fewer
    than those of the table. float16 would lose digits where it adds up many gradients in between.
    """
    x = ops.take(table, ids, axis=0)
    if x._node is None or ids.size < len(table) or table.dtype.itemsize < 4:
        return x
    return LookedUp(x, Lookup(table._array, ids._array, x._node))


def moved(x: Tensor, move: Callable[[Any], Any]) -> Tensor:
    """`move(x)` by an op that moves the rows of x and leaves each as it is: where they are from is known then, too."""
    y: Tensor = move(x)
    return LookedUp(y, replace(x.rows, ids=move(x.rows.ids))) if isinstance(x, LookedUp) else y


def project(x: Tensor, W: Tensor, b: Tensor | None = None, precision: str = "float32") -> Tensor:
    """x Wᵀ + b, where x knows its table by one product of that, which is small, and float32 in any precision."""
    if not isinstance(x, LookedUp):
        return linear(x, W, b, precision)
    return _linear(x, W, rows=x.rows) if b is None else _linear_bias(x, W, b, rows=x.rows)


# what they mean: they are fused ops of the same names
_linear = fused("linear", lambda x, W, *, rows=None: ops.linear(x, W), looked_up_forward, looked_up_vjp)
_linear_bias = fused("linear_bias", lambda x, W, b, *, rows=None: ops.linear(x, W, b), looked_up_forward, looked_up_vjp)
