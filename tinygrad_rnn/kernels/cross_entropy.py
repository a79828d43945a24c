"""The kernel of the cross-entropy of logits; `nn/losses.py` says what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace


def row_peaks(x: Array) -> Array:
    """The largest entry of each row of x (N, C), 0 where that is infinite or NaN: (N, 1)."""
    xp = namespace(x)
    if not x.shape[1]:
        return xp.sum(x, axis=1, keepdims=True)
    top = xp.max(x, axis=1, keepdims=True)
    return xp.where(xp.isfinite(top), top, xp.zeros_like(top))


def cross_entropy_forward(x: Array, *, targets: Array, keep: Array, label_smoothing: float) -> Array:
    """The rows loss, peak, total (3, N) of logits x (N, C), targets (N,) in range and `keep` (N,) 1 or 0.

    The peak is that of `row_peaks`, the total Σ exp(x - peak), or 1 where that is 0. Nothing is computed of the logits
    themselves, which may be large, but of their distances from the peak. Where the target is the peak, the loss is the
    logarithm of 1 + what the other classes have: the 1 must not swallow that.
    """
    xp = namespace(x)
    N = x.shape[0]
    place = xp.arange(N), targets
    top = row_peaks(x)
    z = x - top
    own = z[place]
    middle: Any = xp.mean(z, axis=1) if label_smoothing else None
    xp.exp(z, out=z)
    z[place] = 0
    others = xp.sum(z, axis=1)
    total = others + xp.exp(own)
    total = xp.where(total == 0, xp.ones_like(total), total)
    logarithm = xp.log1p(xp.where(own == 0, others, total - 1))
    loss = logarithm - own
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * (logarithm - middle)
    y = xp.empty((3, N), dtype=x.dtype)
    y[0] = xp.where(keep, loss, xp.zeros_like(loss))
    y[1] = top[:, 0]
    y[2] = total
    return y


def cross_entropy_vjp(
    g: Array, y: Array, needs: tuple[bool, ...], x: Array, *, targets: Array, keep: Array, label_smoothing: float
) -> Sequence[Any]:
    """Softmax minus one-hot, scaled: the gradient of x."""
    xp = namespace(x)
    N, C = x.shape
    place = xp.arange(N), targets
    loss = g[0] * keep
    d = x - y[1][:, None]
    xp.exp(d, out=d)
    d *= (loss / y[2])[:, None]
    if label_smoothing:
        d -= (label_smoothing / C * loss)[:, None]
        d[place] -= (1 - label_smoothing) * loss
    else:
        d[place] = loss * xp.expm1(-y[0])  # p - 1, of a loss -log p: no digit is lost where p is nearly 1
    return (d,)
