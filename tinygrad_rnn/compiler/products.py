"""Products of matrices in parts, one for each thread.

BLAS rounds some columns of a product otherwise than all of them, and again otherwise with threads of its own. A step
that may be shared among threads makes its large products in the same parts at each call, the first ones, which are
recorded, included, with BLAS on one thread: so all calls have the same bits, and a run that was interrupted goes on
with those that it would have had.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import effects

Factors: TypeAlias = tuple[HostArray, HostArray, HostArray]

LARGE = 2**18  # multiplications; OpenBLAS, too, leaves smaller products to one thread
LEAST = 4  # rows of a part: BLAS takes so many at a time
WIDE = 16  # columns of a part
MANY = 128  # rows of a part, so many that it matters little that BLAS copies all of the other factor first


def cuts(size: int, n: int, least: int) -> list[slice]:
    """The places of each of `n` threads: a multiple of `least` but for the last ones, or none.

    >>> cuts(30, 2, 4), cuts(6, 2, 4)
    ([slice(0, 16, None), slice(16, 30, None)], [slice(0, 6, None), slice(6, 6, None)])
    """
    parts = max(1, min(n, size // least))
    ends = [least * round(size * k / parts / least) for k in range(parts)] + [size] * (n + 1 - parts)
    return [slice(a, b) for a, b in pairwise(ends)]


def is_large(a: Any, b: Any, y: Any = None) -> bool:
    """Whether a product of these arrays, into `y` if it is there, is made in parts."""
    some = [x for x in (a, b, y) if x is not None]
    if not all(isinstance(x, np.ndarray) and x.ndim == 2 for x in some) or len({x.dtype for x in some}) > 1:
        return False
    fit = a.shape[1] == len(b) and (y is None or y.shape == (len(a), b.shape[1]))
    return fit and b.dtype.char in "fd" and len(a) > 1 and a.size * b.shape[1] >= LARGE


def parts_of(n: int, a: HostArray, b: HostArray, y: HostArray) -> list[Factors]:
    """The parts of y = a b: its columns, for which a thread reads its own part of `b`, or its rows if they are many."""
    if len(y) < n * MANY and y.shape[1] >= 2 * WIDE:
        return [(a, b[:, part], y[:, part]) for part in cuts(y.shape[1], n, WIDE)]
    return [(a[part], b, y[part]) for part in cuts(len(y), n, LEAST)]


@effects(writes=["y"])
def multiply(n: int, a: HostArray, b: HostArray, y: HostArray) -> None:
    """Compute y = a b in `n` parts."""
    for some in parts_of(n, a, b, y):
        if some[2].size:
            np.matmul(*some)
