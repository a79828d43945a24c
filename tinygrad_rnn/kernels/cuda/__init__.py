"""Kernels in CUDA: the sources beside this file, which CuPy compiles when one is first called, and keeps on disk.

A file NAME.cu has kernels of one subject, each `extern "C" __global__`. It is compiled once for each dtype, with `REAL`
float or double. The same text is compiled by NVRTC alone and by a C++ compiler in `make kernel-test`, so it keeps to
what both know: no headers, no warps; `__shared__` arrays of a fixed size and `__syncthreads()` may be used.

Numbers are passed as CuPy passes Python's: an integer is a `long long`, a float a `double`; 0 is a null pointer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace
from tinygrad_rnn.tensor.device import cupy_here, is_on_device

REALS = {"float32": "float", "float64": "double"}
# CuPy adds -ftz=true, as to its own kernels: float32 below 1.2e-38 is 0. Division and roots are IEEE's: no fast math.
OPTIONS = ("-std=c++17",)

_enabled = True


def enable_cuda_kernels(on: bool = True) -> None:
    """Have what runs on a GPU use the library's own CUDA kernels, as it does from the start, or CuPy's ops alone.

    It is a switch for the whole process, and changes nothing on the CPU. With it a recurrent layer on a GPU is one
    matrix product, by cuBLAS, and one kernel a step, and as much on the way back; without it a dozen calls of CuPy's.
    Values and gradients are the same but for rounding. `fused=False` of a layer, and what is differentiated twice, run
    op by op in any case.

    >>> import tinygrad_rnn as tr
    >>> tr.enable_cuda_kernels(False)
    >>> tr.cuda_kernels_enabled()
    False
    >>> tr.enable_cuda_kernels()
    """
    global _enabled
    _enabled = bool(on)


def cuda_kernels_enabled() -> bool:
    """Whether the library's own CUDA kernels are used, where there is a GPU."""
    return _enabled


def has_cuda_kernels(*arrays: Array | None) -> bool:
    """Whether the kernels are enabled and take these arrays: on a GPU, of one dtype, float32 or float64."""
    found = [x for x in arrays if x is not None]
    dtype = found[0].dtype
    if not _enabled or not is_on_device(found[0]) or str(dtype) not in REALS:
        return False
    return all(is_on_device(x) and x.dtype == dtype for x in found)


def by_rows(x: Array) -> Array:
    """`x` as it lies in memory where kernels read it."""
    xp: Any = namespace(x)
    return x if x.flags.c_contiguous else xp.ascontiguousarray(x)


def source(name: str) -> str:
    """The text of NAME.cu."""
    from pathlib import Path  # imported when it is needed: it is slow to import

    return Path(__file__).with_name(f"{name}.cu").read_text(encoding="utf-8")


def options(dtype: str) -> tuple[str, ...]:
    """What the compiler is told for arrays of this dtype."""
    return (*OPTIONS, f"-DREAL={REALS[dtype]}")


@cache
def kernel(name: str, function: str, dtype: str) -> Any:
    """The kernel `function` of NAME.cu for arrays of `dtype`, to be called as `kernel(grid, block, args)`."""
    return cupy_here().RawModule(code=source(name), options=options(dtype)).get_function(function)


def grid_of_rows(rows: int, columns: int) -> tuple[tuple[int, int], tuple[int]]:
    """Grid and block in which row `blockIdx.x` has column `blockIdx.y * blockDim.x + threadIdx.x`: no division.

    >>> grid_of_rows(3, 40), grid_of_rows(64, 512)
    (((3, 1), (64,)), ((64, 4), (128,)))
    """
    threads = min(128, -(-columns // 32) * 32)
    return (rows, -(-columns // threads)), (threads,)
