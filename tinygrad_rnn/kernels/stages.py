"""The choice between NumPy and the stages that numba has compiled."""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, device_of
from tinygrad_rnn.tensor.mode import active_tape


def numba_stages(*arrays: Array) -> Any:
    """The compiled stages, if they are enabled and take these arrays, else None."""
    if backend.stages is None or device_of(arrays[0]) != "cpu" or arrays[0].dtype.char not in "fd":
        return None
    for a in arrays:
        if not a.flags.c_contiguous or a.dtype != arrays[0].dtype:
            return None
    tape = active_tape.get()
    return backend.stages if tape is None else tape.stages(backend.stages)


def fast_products(x: Array, W: Array) -> Any:
    """The same if they multiply such a matrix by such a weight faster than BLAS."""
    stages = numba_stages(x, W)
    return stages if stages is not None and backend.stages.FAST else None
