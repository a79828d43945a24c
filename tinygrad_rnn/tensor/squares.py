"""Sums of squares that a dtype does not hold: the squares of float32 end at 1.8e19."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_rnn.tensor.backend import Array, is_floating, namespace, quiet, summed
from tinygrad_rnn.tensor.device import is_on_device
from tinygrad_rnn.tensor.mode import replayed


def edge(x: Array) -> float:
    """Numbers up to it, and down to its inverse, have squares that a dtype holds: 2⁵⁰ or 2⁴⁹⁸."""
    key = namespace(x), x.dtype  # dtypes of two libraries are not to be compared
    if key not in _edges:
        _edges[key] = 2.0 ** (round(math.log2(float(key[0].finfo(x.dtype).max))) // 2 - 14)
    return _edges[key]


_edges: dict[Any, float] = {}


def shrinking(x: Array, axis: Any, by: float | None = None, tiny: bool = False) -> Array:
    """A power of two for each row along `axis`, times which its squares fit.

    It is 1 but for rows of very large numbers, where it is `by`, and with `tiny` of very small
    ones.

    >>> import numpy as np
    >>> shrinking(np.array([[1.0, 2.0], [1e20, -1.0]], np.float32), 1).tolist()
    [[1.0], [1.262177448353619e-29]]
    """
    xp: Any = namespace(x)
    if is_floating(x.dtype) and x.size:  # an array less than abs(x)
        lowest = xp.min(x, axis=axis, keepdims=True)
        peak = xp.maximum(xp.max(x, axis=axis, keepdims=True), -lowest)
    else:
        peak = (xp.max if x.size else xp.sum)(xp.abs(x), axis=axis, keepdims=True)
    one, most = xp.ones_like(peak), edge(x)
    small = 2.0**-21 / most**1.5  # 2⁻⁹⁶ or 2⁻⁷⁶⁸: it makes all squares fit
    k = xp.where(peak > most, one * (small if by is None else by), one)
    return xp.where(peak < 1 / most, one / small, k) if tiny else k  # type: ignore[no-any-return]


@replayed(changes="nothing")  # since it looks at values
def length(x: Array, axis: Any, keepdims: bool) -> Array:
    """The root of the sum of squares over `axis`.

    >>> import numpy as np
    >>> length(np.array([3e300, 4e300]), None, False) == 5e300
    np.True_
    """
    xp: Any = namespace(x)
    with quiet():
        y = xp.asarray(xp.sqrt(summed(x * x, axis, keepdims)))
        if not is_floating(x.dtype):
            return y  # type: ignore[no-any-return]
        if not is_on_device(y) and (not y.size or _is_ordinary(y)):
            return y  # type: ignore[no-any-return]
        k = shrinking(x, axis, tiny=True)
        again = xp.sqrt(summed((x * k) * (x * k), axis, True)) / k
        return xp.reshape(again, y.shape)  # type: ignore[no-any-return]


def _is_ordinary(y: Array) -> bool:
    """Whether no square has vanished or overflowed on the way to the roots `y`."""
    xp: Any = namespace(y)
    return bool(xp.min(y) > 1 / edge(y) and xp.max(y) < math.inf)
