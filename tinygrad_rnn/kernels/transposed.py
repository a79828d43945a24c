"""Contiguous copies of transposed weights, by which BLAS multiplies up to twice as fast as by a transposed view."""

from __future__ import annotations

import weakref
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace

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
    copy[...] = W.mT

    def forget(_: Any, pop: Any = _copies.pop) -> None:  # before the id can become another array's
        pop(key, None)

    _copies[key] = (weakref.ref(W, forget), copy)
    return copy
