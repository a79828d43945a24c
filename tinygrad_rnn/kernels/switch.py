"""`enable_numba`: have numba run the stages of kernels on the CPU. The extra `numba` brings it."""

from __future__ import annotations

import time
from importlib import import_module

from tinygrad_rnn.tensor import backend


def enable_numba(on: bool = True) -> float:
    """Have numba run the stages of kernels on NumPy arrays, or NumPy again; returns the seconds it took.

    It is a switch for the whole process, for recurrent layers, the gradient of an embedding, and Adam. A step of an
    LSTM is then its matrix product, by a weight that was rearranged once a sequence, and one pass over memory, where
    NumPy takes a dozen: small layers gain most. In
    float32 tanh is within 6 units in the last place. Most of what `tr.compile` has recorded then runs without Python,
    and on as many threads as NumPy's BLAS may use. The first time on a machine numba compiles for some seconds, in a
    process of its own; what it made is kept on disk, and loaded without numba. The kernels for float64 and those of
    `ctc_loss` are compiled when they are needed for the first time.

    Raises `ModuleNotFoundError` where numba is not installed, saying what to install, and `RuntimeError` where it does
    not compile.

    >>> import tinygrad_rnn as tr
    >>> tr.enable_numba(False)
    0.0
    """
    begin = time.perf_counter()
    if not on:
        backend.use_stages(None)
        return 0.0
    from importlib.util import find_spec

    from tinygrad_rnn.kernels import native  # which takes a third of the import of NumPy

    if find_spec("numba") is None:
        raise ModuleNotFoundError(native.MISSING)
    native.load()
    backend.use_stages(import_module("tinygrad_rnn.kernels.compiled_stages"))
    return time.perf_counter() - begin


def numba_enabled() -> bool:
    """Whether numba runs the pointwise stages of kernels."""
    return backend.stages is not None
