"""Copies of weights in the order in which a product reads them: transposed for BLAS, in panels for numba's product."""

from __future__ import annotations

import weakref
from typing import Any

from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import AnyArray, Array, device_of, namespace

BLOCK, LARGE = 32, 48_000  # columns that are written at once, and the elements above which that is faster

# by the id of a weight and the kind of copy, for as long as the weight lives: a weak reference to it, and the copy
_copies: dict[tuple[int, str], tuple[weakref.ref[Any], Array]] = {}


def transposed(W: Array) -> Array:
    """A contiguous copy of Wᵀ, by which BLAS multiplies up to twice as fast as by a view."""
    copy = _held(W, "transposed")
    if copy is None:
        copy = namespace(W).empty((W.shape[1], W.shape[0]), dtype=W.dtype)
        _transpose(W.mT, copy)
        _hold(W, "transposed", copy)
    return copy


def packed(W: Array, stages: Any, *, turned: bool) -> Array:
    """W, or Wᵀ if it is `turned`, in panels of some columns, as the product of the `stages` takes it."""
    kind = "turned" if turned else "packed"
    copy = _held(W, kind)
    if copy is None:
        V, width = W.mT if turned else W, backend.stages.width_of(W.dtype)
        copy = namespace(W).empty((-(-V.shape[1] // width), V.shape[0], width), dtype=W.dtype)
        stages.pack(V, copy)
        _hold(W, kind, copy)
    return copy


# Arrays never change, so a copy is right while there is a W, and goes with it: an optimiser's step gives a parameter
# another array. While `tr.compile` records it is an entry of the recording, made again at each replay.


def _held(W: Array, kind: str) -> Array | None:
    held = _copies.get((id(W), kind))
    return held[1] if held is not None and held[0]() is W else None


def _hold(W: Array, kind: str, copy: Array) -> None:
    key = id(W), kind

    def forget(_: Any, pop: Any = _copies.pop) -> None:  # before the id can become another array's
        pop(key, None)

    _copies[key] = (weakref.ref(W, forget), copy)


def _transpose(V: Array, copy: AnyArray) -> None:
    """Copy a view of a transposed array: of a large one block by block, so that the lines of memory that are read stay
    in the cache until all of them are used; three times as fast at (1024, 256).
    """
    block = BLOCK if V.shape[0] * V.shape[1] > LARGE and device_of(V) == "cpu" else max(1, V.shape[1])
    for start in range(0, V.shape[1], block):
        copy[:, start : start + block] = V[:, start : start + block]
