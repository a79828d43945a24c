"""Matrix products on a GPU by cuBLAS itself, without CuPy's wrapper, which takes three times as long to ask for one.

The library is the one that CuPy has loaded, called by `ctypes` on CuPy's handle and in CuPy's stream.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_int, c_size_t, c_void_p
from functools import cache
from typing import Any

from tinygrad_rnn.errors import BackendMismatchError
from tinygrad_rnn.tensor.device import capture, cupy_here

TF32 = 80  # the compute capability from which on a GPU has it
REAL_32F, FAST_TF32, DEFAULT_ALGORITHM = 0, 77, -1  # CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT
OUT = "tr.enable_cuda_kernels(False) does without"
POINTERS_OF_THE_HOST = 0  # CUBLAS_POINTER_MODE_HOST: alpha and beta are here
MOST = 2**31 - 1
ALLOC_FAILED = 3  # CUBLAS_STATUS_ALLOC_FAILED
REALS: dict[str, tuple[str, Any]] = {
    "float32": ("cublasSgemm_v2", ctypes.c_float),
    "float64": ("cublasDgemm_v2", ctypes.c_double),
}


class Products:
    """Products of matrices that lie row by row, given as addresses, in the stream that is current when this is made.

    The precision "tf32" has each of them round the float32 factors to 10 bits behind the point, where the GPU can, and
    add up in float32; it is said with each product, and nothing of it stays with the handle.

    >>> Products("float16")
    Traceback (most recent call last):
    ...
    KeyError: 'float16'
    """

    __slots__ = ("_gemm", "_handle", "_numbers", "_types")

    def __init__(self, dtype: str, precision: str = "float32") -> None:
        name, real = REALS[dtype]
        cupy = cupy_here()
        self._handle = cupy.cuda.get_cublas_handle()  # loads the library, too
        library = _library(cupy.cuda.runtime.runtimeGetVersion() // 1000)
        _check("cublasSetStream_v2", library.cublasSetStream_v2(self._handle, cupy.cuda.get_current_stream().ptr))
        status = library.cublasSetPointerMode_v2(self._handle, POINTERS_OF_THE_HOST)
        _check("cublasSetPointerMode_v2", status)
        if (graph := capture.get()) is not None:  # of its own it would allocate for each launch, in the graph
            status = library.cublasSetWorkspace_v2(self._handle, graph.workspace.data.ptr, graph.workspace.nbytes)
            _check("cublasSetWorkspace_v2", status)
        fast = precision == "tf32" and dtype == "float32" and int(cupy.cuda.Device().compute_capability) >= TF32
        self._gemm = library.cublasGemmEx if fast else getattr(library, name)
        # what stands behind each matrix, and at the end
        self._types = ((REAL_32F,), (FAST_TF32, DEFAULT_ALGORITHM)) if fast else ((), ())
        self._numbers = real(0), real(1)

    def multiply(
        self, a: int, b: int, out: int, m: int, n: int, k: int, turned: tuple[bool, bool] = (False, False), add: int = 0
    ) -> None:
        """Write A B (m, n) to `out`, or with `add` 1 add it to what is there: A (m, k), B (k, n), row by row.

        Where `turned`, A lies in memory as (k, m), or B as (n, k). cuBLAS has matrices column by column, to whom ours
        are the transposed ones: it is asked for Bᵀ Aᵀ.
        """
        if max(m, n, k) > MOST:
            raise ValueError(f"a matrix product of sizes {m}, {n}, {k}: cuBLAS counts to {MOST}")
        zero, one = self._numbers
        turn_a, turn_b = turned
        kind, how = self._types
        status = self._gemm(
            self._handle,
            int(turn_b),
            int(turn_a),
            n,
            m,
            k,
            one,
            b,
            *kind,
            k if turn_b else n,
            a,
            *kind,
            m if turn_a else k,
            one if add else zero,
            out,
            *kind,
            n,
            *how,
        )
        if status:
            _check(f"a product of sizes {m}, {n}, {k}", status)


@cache
def _library(major: int) -> Any:
    """The cuBLAS that CuPy has loaded: another one would know nothing of its handle."""
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    try:
        library = ctypes.CDLL(name, mode=getattr(os, "RTLD_NOLOAD", 0))
    except OSError as error:
        raise BackendMismatchError(f"CuPy has not loaded {name}, as far as can be seen ({error}): {OUT}") from error
    library.cublasSetStream_v2.argtypes = [c_void_p, c_void_p]
    library.cublasSetPointerMode_v2.argtypes = [c_void_p, c_int]
    library.cublasSetWorkspace_v2.argtypes = [c_void_p, c_void_p, c_size_t]
    matrix: list[Any] = [c_void_p, c_int, c_int]
    first: list[Any] = [c_void_p, *[c_int] * 5]
    number: Any = ctypes.POINTER(ctypes.c_float)
    library.cublasGemmEx.argtypes = [*first, number, *matrix, *matrix, number, *matrix, c_int, c_int]
    for function, real in REALS.values():
        number = ctypes.POINTER(real)
        getattr(library, function).argtypes = [
            *first, number, c_void_p, c_int, c_void_p, c_int, number, c_void_p, c_int
        ]  # fmt: skip
    return library


def _check(what: str, status: int) -> None:
    if status:
        kind = MemoryError if status == ALLOC_FAILED else RuntimeError
        raise kind(f"cuBLAS: {what} failed with status {status} (its manual lists them): {OUT}")
