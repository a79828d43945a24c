"""A stand-in for CuPy in this process, for tests that launch kernels."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.standin import cupy as cp
from tests.standin.cupy import _raw
from tinygrad_rnn.kernels import cuda


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in, which is `cupy` while the test runs."""
    if _raw.compiler() is None:
        pytest.skip(_raw.MISSING)
    monkeypatch.setitem(sys.modules, "cupy", cp)
    monkeypatch.setattr(cuda, "kernel", cuda.kernel.__wrapped__)  # what it has cached may be of another `cupy`
    return cp
