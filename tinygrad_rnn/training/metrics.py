"""How good predictions are: accuracy, error rate, perplexity."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.tensor.backend import host_array


def accuracy(predicted: Any, targets: Any, mask: Any = None) -> float:
    """The share of the predicted ids that are the targets: arrays or Tensors of one shape, on any device.

    Where `mask`, booleans of that shape, is False, nothing counts. NaN if nothing does. Raises `ShapeError` if the
    shapes differ.

    >>> accuracy([1, 2, 3, 3], [1, 2, 0, 3])
    0.75
    """
    a, b = host_array(predicted), host_array(targets)
    if a.shape != b.shape:
        raise ShapeError(f"accuracy: the shapes must be equal, got {a.shape} and {b.shape}")
    return _mean("accuracy", a == b, mask)


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """How many insertions, deletions and substitutions make `b` of `a` (Levenshtein, Soviet Physics Doklady 10, 1966):
    strings, lists of words, ids.

    By rapidfuzz where it is installed (extra `data`); else one row of the table of Wagner and Fischer (1974) after the
    other, each in a few operations of NumPy.

    >>> edit_distance("kitten", "sitting")
    3
    """
    numbers: dict[Hashable, int] = {}  # of the tokens: rapidfuzz compares their hashes, and those of -1 and -2 are one
    x, y = ([numbers.setdefault(token, len(numbers)) for token in tokens] for tokens in (a, b))
    if rapid := _rapidfuzz():
        return int(rapid(x, y))
    target, places = np.array(y, np.int64), np.arange(len(y) + 1)
    row = places
    for token in x:
        best = row + 1  # token deleted
        np.minimum(best[1:], row[:-1] + (target != token), out=best[1:])  # kept or replaced
        row = np.minimum.accumulate(best - places) + places  # then what is inserted
    return int(row[-1])


@cache
def _rapidfuzz() -> Any:
    """Its edit distance, None without it."""
    try:
        from rapidfuzz.distance.Levenshtein import distance
    except ImportError:
        return None
    return distance


def error_rate(predicted: Sequence[Sequence[Hashable]], targets: Sequence[Sequence[Hashable]]) -> float:
    """The edits that make the targets of the predictions, over the length of all targets: of words or of characters.

    It can be above 1. NaN if the targets are all empty. Raises `ShapeError` if there are not as many predictions as
    targets.

    >>> error_rate(["one two".split(), ["three"]], ["one too".split(), ["three", "four"]])
    0.5
    """
    if len(predicted) != len(targets):
        raise ShapeError(f"error_rate: {len(predicted)} predictions for {len(targets)} targets")
    total = sum(map(len, targets))
    return sum(map(edit_distance, predicted, targets)) / total if total else math.nan


def perplexity(losses: Any, mask: Any = None) -> float:
    """e to the power of the mean loss in nats, a number or many: among how many equally likely tokens a model chooses.

    `mask` as in `accuracy`. Infinite where that is too large for a float.

    >>> round(perplexity([math.log(2), math.log(8)]), 6)
    4.0
    """
    with np.errstate(over="ignore"):
        return float(np.exp(_mean("perplexity", host_array(losses), mask)))


def _mean(name: str, values: np.ndarray, mask: Any) -> float:
    """The mean in float64 of what counts."""
    if mask is not None:
        keep = host_array(mask)
        if keep.dtype != bool or keep.shape != values.shape:
            raise ShapeError(
                f"{name}: mask must be booleans of shape {values.shape}, got {keep.dtype} of shape {keep.shape}"
            )
        values = values[keep]
    return float(values.mean(dtype=np.float64)) if values.size else math.nan
