"""The kernel of the cross-entropy of logits; `nn/losses.py` says what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace


def cross_entropy_forward(x: Array, *, targets: Array, keep: Array, label_smoothing: float) -> Array:
    """The rows loss, logsumexp (2, N) of logits x (N, C), targets (N,) in range and `keep` (N,) 1 or 0."""
    xp = namespace(x)
    N, C = x.shape
    top = xp.max(x, axis=1, keepdims=True) if C else xp.zeros((N, 1), dtype=x.dtype)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    e = xp.exp(x - top)
    y = xp.empty((2, N), dtype=x.dtype)
    total = xp.sum(e, axis=1)
    xp.log(xp.where(total == 0, xp.ones_like(total), total), out=y[1])
    y[1] += top[:, 0]
    y[0] = y[1]
    chosen = x[xp.arange(N), targets]
    if label_smoothing:
        y[0] -= (1 - label_smoothing) * chosen + label_smoothing * xp.mean(x, axis=1)
    else:
        y[0] -= chosen
    y[0] = xp.where(keep, y[0], xp.zeros_like(y[0]))
    return y


def cross_entropy_vjp(
    g: Array, y: Array, needs: tuple[bool, ...], x: Array, *, targets: Array, keep: Array, label_smoothing: float
) -> Sequence[Any]:
    """Softmax minus one-hot, scaled: the gradient of x."""
    xp = namespace(x)
    N, C = x.shape
    loss = g[0] * keep
    d = x - y[1][:, None]
    xp.exp(d, out=d)
    d *= (loss + g[1])[:, None]
    if label_smoothing:
        d -= (label_smoothing / C * loss)[:, None]
    d[xp.arange(N), targets] -= (1 - label_smoothing) * loss
    return (d,)
