"""Contiguous copies of transposed weights, by which BLAS multiplies up to twice as fast as by a transposed view."""

from __future__ import annotations

import weakref
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace
from tinygrad_rnn.tensor.mode import active_tape

# by the id of an array, for as long as it lives: a weak reference to it, one to the weight, and the copy
_copies: dict[int, tuple[weakref.ref[Any], weakref.ref[Any], Array]] = {}


def transposed(W: Array, x: Array) -> Array:
    """A contiguous copy of Wᵀ for the steps of the sequence `x`: the same one for as long as the array W lives.

    Arrays never change, so the copy is right while there is a W, and goes with it: an optimiser's step gives a
    parameter another array. What `tr.compile` records is the exception. There the array of a parameter stands for its
    values at each time, also after an optimiser's step within the recording, so a copy is good for one sequence only.
    It is an entry of the recording, made again at each replay.
    """
    owner = W if active_tape.get() is None else x
    key = id(owner)
    held = _copies.get(key)
    if held is not None and held[0]() is owner and held[1]() is W:
        return held[2]
    copy = namespace(W).empty((W.shape[1], W.shape[0]), dtype=W.dtype)
    copy[...] = W.mT

    def forget(_: Any, pop: Any = _copies.pop) -> None:  # before the id can become another array's
        pop(key, None)

    _copies[key] = (weakref.ref(owner, forget), weakref.ref(W), copy)
    return copy
