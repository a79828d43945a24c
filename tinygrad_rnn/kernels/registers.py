"""The vectors of the processor, by which the products of numba cut their tiles and panels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding


class Registers(NamedTuple):
    """What a processor has: the bytes of a vector, and the rows of a tile of two vectors that fit into registers."""

    nbytes: int
    rows: int


def registers(features: Mapping[str, bool]) -> Registers | None:
    """Those of the processor with these features, by LLVM's names. None if it does not add and multiply at once."""
    if features.get("avx512f"):
        return Registers(64, 12)
    if features.get("fma") and features.get("avx2"):
        return Registers(32, 6)
    return Registers(16, 12) if features.get("neon") else None


_here = registers(binding.get_host_cpu_features())
FAST = _here is not None  # else a multiplication with an addition is a call of a function
HERE = _here or Registers(32, 6)


def width_of(dtype: Any, registers: Registers = HERE) -> int:
    """The columns of a panel: two vectors."""
    return 2 * registers.nbytes // int(np.dtype(dtype).itemsize)
