"""Pulling the gradients of many losses through one step of a recurrent layer at once, as if they were a larger batch.

A step treats the sequences of a batch independently. So n gradients of one fused step of B sequences are one of n B,
and one call of its kernel does for all of them, which for small layers is many times as fast. Of a large layer the
arrays that are repeated cost more than the calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.nn import cells
from tinygrad_rnn.tensor.graph import Node, Part, Product, looked_at

SMALL = 128  # numbers in a state: of larger ones a call for each is as fast

_STEPS = frozenset(getattr(step, "op") for step in (cells.rnn_step, cells.lstm_step, cells.gru_step))  # noqa: B009


def pull_together(node: Node, gs: Sequence[Any]) -> list[Sequence[Any]]:
    """`node.plan.pull(g, node.kept)` for each of `gs`."""
    n = len(gs)
    if n < 2 or not _is_small_step(node, gs[0]):
        return [looked_at(node.plan.pull(g, node.kept)) for g in gs]
    y, arrays, metadata = node.kept
    x, state, W, *b = arrays
    axis = y.ndim - 2
    repeated = [x, _repeat(state, n), W, *b]
    g = np.concatenate(gs, axis=axis)
    d, to_state, to_W, *_ = node.plan.op.vjp(g, _repeat(y, n), node.plan.needs, *repeated, **metadata)
    columns: list[Sequence[Any]] = [_pieces(d, n), _pieces(to_state, n), _pieces(to_W, n)]
    if b and node.plan.needs[3]:  # the kernel's is the sum over all; that of each is had from what goes to the weight
        H = y.shape[-1]
        columns.append([product.x[:, 2 * H :].sum(0) for product in columns[2]])
    elif b:
        columns.append([None] * n)
    return list(zip(*columns, strict=True))


def _is_small_step(node: Node, g: Any) -> bool:
    """Whether a node is a step with a kernel, of whose gradients one call for each would cost more."""
    if getattr(node.plan, "op", None) not in _STEPS or type(g) is not np.ndarray or math.prod(g.shape[-2:]) > SMALL:
        return False
    needs = node.plan.needs
    return bool(needs[2]) or not any(needs[3:])


def _repeat(x: Any, n: int) -> Any:
    return np.concatenate([x] * n, axis=-2)


def _cut(x: Any, n: int) -> list[Any]:
    B = x.shape[-2] // n
    return [x[..., i : i + B, :] for i in range(0, n * B, B)]  # np.split takes ten times as long


def _pieces(d: Any, n: int) -> list[Any]:
    """What n gradients pulled back together is of each: an array, a part, a product, or none."""
    if d is None:
        return [None] * n
    if isinstance(d, Part):
        return [Part(piece, d.index, basic=True) for piece in _cut(d.g, n)]
    if isinstance(d, Product):
        return [Product(x, g) for x, g in zip(_cut(d.x, n), _cut(d.g, n), strict=True)]
    return _cut(d, n)
