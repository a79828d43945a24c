"""Contiguous copies of transposed weights, by which BLAS multiplies up to twice as fast as by a transposed view."""

from __future__ import annotations

import weakref
from typing import Any

from tinygrad_rnn.tensor.backend import AnyArray, Array, device_of, namespace

BLOCK, LARGE = 32, 48_000  # columns that are written at once, and the elements above which that is faster

# by the id of a weight, for as long as it lives: a weak reference to it, and the copy
_copies: dict[int, tuple[weakref.ref[Any], Array]] = {}


def transposed(W: Array) -> Array:
    """A contiguous copy of Wᵀ: the same one for as long as the array W lives.

    Arrays never change, so the copy is right while there is a W, and goes with it: an optimiser's step gives a
    parameter another array. While `tr.compile` records it is an entry of the recording, made again at each replay.
    """
    key = id(W)
    held = _copies.get(key)
    if held is not None and held[0]() is W:
        return held[1]
    copy = namespace(W).empty((W.shape[1], W.shape[0]), dtype=W.dtype)
    _copy(W.mT, copy)

    def forget(_: Any, pop: Any = _copies.pop) -> None:  # before the id can become another array's
        pop(key, None)

    _copies[key] = (weakref.ref(W, forget), copy)
    return copy


def _copy(V: Array, copy: AnyArray) -> None:
    """Copy a view of a transposed array: of a large one block by block, so that the lines of memory that are read stay
    in the cache until all of them are used; three times as fast at (1024, 256).
    """
    block = BLOCK if V.shape[0] * V.shape[1] > LARGE and device_of(V) == "cpu" else max(1, V.shape[1])
    for start in range(0, V.shape[1], block):
        copy[:, start : start + block] = V[:, start : start + block]
