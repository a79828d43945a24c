"""Batches of few shapes: a step is recorded once for each, and that pays if there are few."""

from __future__ import annotations

from collections.abc import Iterable, Sized


def few_shapes(sequences: Iterable[Sized], most: int = 6) -> int:
    """The multiple to which batches of these sequences are padded, so that they have at most so many lengths.

    >>> few_shapes(["a" * 38, "b"])  # 7, 14, 21, 28, 35, 42
    7
    """
    return max(1, -(-max(map(len, sequences), default=0) // most))
