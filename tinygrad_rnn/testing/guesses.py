"""What a wrong gradient looks like: a guess at the mistake, from the gradient and its numeric derivative."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["guess"]

Floats = NDArray[Any]


def guess(analytic: Floats, numeric: Floats, lengths: Iterable[int] = ()) -> str | None:
    """In a few words the usual mistake that makes `analytic` of `numeric`, or None.

    Arguments:
        analytic, numeric: the gradient and its numeric derivative, of the same shape.
        lengths: lengths of axes of the inputs and outputs, a factor of which may be a forgotten mean.

    >>> import numpy as np
    >>> guess(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
    'twice what it should be: is a term counted twice?'
    >>> guess(np.eye(2)[::-1] * [[1], [2]], np.eye(2)[::-1] * [[2], [1]])
    'looks transposed'
    """
    if not np.all(np.isfinite(analytic)):
        return "is not finite: 0 * inf, or a division by zero, in the vjp?"
    if not np.any(analytic):
        return "nothing flows: a detach, a vjp that is None, or a way around the graph?"
    # a guess must explain nearly all of the error, be it large or small
    allowed = min(1e-6 * _largest(numeric), 1e-3 * _largest(analytic - numeric))
    for words, candidate in _candidates(analytic, numeric, lengths):
        if candidate.shape == numeric.shape and _largest(candidate - numeric) <= allowed:
            return words
    return None


def _largest(x: Floats) -> float:
    return float(np.max(abs(x), initial=0))


def _candidates(a: Floats, n: Floats, lengths: Iterable[int]) -> Iterator[tuple[str, Floats]]:
    """Each mistake, and `a` with it undone: what comes out as the numeric derivative is the guess."""
    yield "the sign is wrong", -a
    yield "twice what it should be: is a term counted twice?", a / 2
    yield "half of what it should be: is one of two equal terms missing?", a * 2
    for k in sorted({k for k in lengths if k > 1}):
        yield f"{k} times what it should be, the length of an axis: is a mean's 1/N missing?", a / k
        yield f"1/{k} of what it should be, the length of an axis: is a mean taken for a sum?", a * k
    if a.ndim > 1:
        yield "looks transposed", np.swapaxes(a, -1, -2)
    for axis, length in enumerate(a.shape):
        if length > 1:
            yield f"looks reversed along axis {axis}", np.flip(a, axis)
    for axis, length in enumerate(a.shape):
        if length > 2:
            for late, words in ((1, "late"), (-1, "early")):
                # what the shift lost at one end is not asked for
                lost = [slice(None)] * a.ndim
                lost[axis] = slice(-1, None) if late > 0 else slice(0, 1)
                moved = np.roll(a, -late, axis)
                moved[tuple(lost)] = n[tuple(lost)]
                yield f"looks one step {words} along axis {axis}", moved
    yield from _swapped_blocks(a)
    ratio = _ratio(a, n)
    if ratio is not None:
        yield f"{ratio:.6g} times what it should be, everywhere", a / ratio
    empty = np.all(a == 0, axis=tuple(range(1, a.ndim))) if a.ndim else np.zeros(0, bool)
    if 0 < np.sum(empty) < len(empty):
        filled = np.where(empty.reshape(-1, *[1] * (a.ndim - 1)), n, a)
        where = ", ".join(map(str, np.flatnonzero(empty)[:8])) + (", ..." if np.sum(empty) > 8 else "")
        yield f"nothing flows to index {where} of axis 0: is the graph cut?", filled
    yield "right where it is not 0: a mask, or the last of several writes?", np.where(a == 0, n, a)


def _ratio(a: Floats, n: Floats) -> float | None:
    at = np.unravel_index(int(np.argmax(abs(n))), n.shape)
    return float(a[at] / n[at]) if n[at] and a[at] else None


def _swapped_blocks(a: Floats) -> Iterator[tuple[str, Floats]]:
    """Gates are blocks along an axis: two to four of them, in another order."""
    for axis in {0, a.ndim - 1} & set(range(a.ndim)):
        for count in (2, 3, 4):
            if a.shape[axis] % count or not a.shape[axis]:
                continue
            blocks = np.split(a, count, axis)
            for order in permutations(range(count)):
                if order != tuple(range(count)):
                    words = f"the {count} blocks of axis {axis} look as if in the order {order}: gates swapped?"
                    yield words, np.concatenate([blocks[order.index(k)] for k in range(count)], axis)
