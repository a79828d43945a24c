"""The kernel of the largest entries of windows; `nn/convolution.py` says what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace, zeros_beside

Lengths = tuple[int, ...]


def taps(shape: Lengths, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Iterator[tuple[slice, ...]]:
    """Yield for each place in a window the index of what all windows have there, in an array (C, *S, N)."""
    out = window_counts(shape[1:-1], kernel, stride, dilation)
    for place in product(*map(range, kernel)):
        starts = (d * p for d, p in zip(dilation, place, strict=True))
        slices = (slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, stride, out, strict=True))
        yield (slice(None), *slices, slice(None))


def window_counts(sizes: Lengths, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Lengths:
    """How many windows there are along each axis: less than 1 where they do not fit."""
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True))


def maxima_forward(x: Array, *, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Array:
    """The largest entry of each of the windows of `x` (C, *S, N), without a copy of them: (C, *O, N)."""
    first, *others = (x[key] for key in taps(x.shape, kernel, stride, dilation))
    xp = namespace(x)
    y = xp.asarray(first, copy=True)
    for tap in others:
        xp.maximum(y, tap, out=y)
    return y


def maxima_vjp(
    g: Array, y: Array, needs: Sequence[bool], x: Array, *, kernel: Lengths, stride: Lengths, dilation: Lengths
) -> Sequence[Any]:
    """What attains a maximum gets an equal share of its gradient; a maximum that is NaN, no one does."""
    xp = namespace(g)
    keys = list(taps(x.shape, kernel, stride, dilation))
    attains = [x[key] == y for key in keys]
    share = g / xp.astype(xp.maximum(sum(attains[1:], xp.astype(attains[0], int)), 1), g.dtype)
    dx = zeros_beside(x, x.shape, g.dtype)
    for key, here in zip(keys, attains, strict=True):
        dx[key] += share * here
    return (dx,)
