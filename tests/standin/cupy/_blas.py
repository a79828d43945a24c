"""cuBLAS on the stand-in: a shared library of the same name and C functions, whose matrices are NumPy's.

The library is a trampoline: whoever has found it by its name and calls it by its C types arrives in `_gemm`, which
checks what cuBLAS checks, and that every matrix lies inside of an array of the stand-in's.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import CFUNCTYPE, c_double, c_float, c_int, c_void_p
from functools import cache
from typing import Any

import numpy as np

from ._device import current_stream, do, need
from ._memory import memory_of
from ._raw import built

HANDLE = 0xB1A5
SUCCESS, NOT_INITIALIZED, INVALID_VALUE = 0, 1, 7
MATRICES = [c_void_p, c_void_p, c_int, c_void_p, c_int, c_void_p, c_void_p, c_int]
GEMM = CFUNCTYPE(c_int, c_int, c_void_p, *[c_int] * 5, *MATRICES)
SET = CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)
CODE = """
#include <cstddef>
#include <cstdint>
typedef int (*Gemm)(int, void *, int, int, int, int, int, const void *, const void *, int, const void *, int,
                    const void *, void *, int);
typedef int (*Set)(int, void *, void *);
static Gemm gemm;
static Set set;
extern "C" {
void standin(Gemm g, Set s) { gemm = g; set = s; }
int cublasSetStream_v2(void *handle, void *stream) { return set(0, handle, stream); }
int cublasSetWorkspace_v2(void *handle, void *workspace, std::size_t size)
{ return size < 4 << 20 ? 7 : set(2, handle, workspace); }
int cublasSetPointerMode_v2(void *handle, int mode) { return set(1, handle, (void *)(intptr_t)mode); }
#define GEMM(name, REAL, wide) \\
    int name(void *handle, int ta, int tb, int m, int n, int k, const REAL *alpha, const REAL *A, int lda, \\
             const REAL *B, int ldb, const REAL *beta, REAL *C, int ldc) \\
    { return gemm(wide, handle, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc); }
GEMM(cublasSgemm_v2, float, 0)
GEMM(cublasDgemm_v2, double, 1)
int cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *A, int type_a,
                 int lda, const void *B, int type_b, int ldb, const void *beta, void *C, int type_c, int ldc, int how,
                 int algorithm)
{
    if (type_a || type_b || type_c || how != 77 || algorithm != -1) return 7; // float32, by TF32: all that is known
    return gemm(2, handle, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
}
"""

_set: dict[int, int] = {}  # what the handle has been told: 0 the stream, 1 the pointer mode


def _set_handle(what: int, handle: int | None, value: int | None) -> int:
    if handle != HANDLE:
        return NOT_INITIALIZED
    _set[what] = value or 0
    if what == 0:
        _set.pop(2, None)  # the workspace is its own again
    return SUCCESS


def _gemm(wide: int, handle: int, ta: int, tb: int, m: int, n: int, k: int, *matrices: Any) -> int:
    try:
        alpha, A, lda, B, ldb, beta, C, ldc = matrices
        workspace = {2: _set.get(2)} if current_stream().graph is not None else {}
        if handle != HANDLE or _set != {0: current_stream().ptr, 1: 0, **workspace}:
            raise ValueError(f"handle {handle} has stream and pointer mode {_set}")
        if not {ta, tb} <= {0, 1} or min(m, n, k) < 0:
            raise ValueError(f"operations {ta}, {tb}, sizes {m}, {n}, {k}")
        real = c_double if wide == 1 else c_float
        alpha, beta = (ctypes.cast(p, ctypes.POINTER(real)).contents.value for p in (alpha, beta))
        if workspace and memory_of(_set.get(2) or 0, 4 << 20) is None:
            raise ValueError("a stream captures, and the workspace is cuBLAS's own, of which a graph may not allocate")
        x, y = _matrix(A, (k, m) if ta else (m, k), lda, real), _matrix(B, (n, k) if tb else (k, n), ldb, real)
        c = _matrix(C, (m, n), ldc, real)

        def run() -> None:
            a, b = (rounded(x), rounded(y)) if wide == 2 else (x, y)
            product = (a.T if ta else a) @ (b.T if tb else b)
            c[...] = alpha * product + beta * c if beta else alpha * product

        do("product", run)
    except (ValueError, TypeError, ImportError) as error:
        print(f"the stand-in's cuBLAS: {error}", file=sys.stderr)
        return INVALID_VALUE
    return SUCCESS


def rounded(x: Any) -> Any:
    """float32 as TF32: 10 bits behind the point."""
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


def _matrix(address: int | None, shape: tuple[int, int], leading: int, real: Any) -> Any:
    """The matrix that lies column by column at an address, where `leading` numbers lead to the next column."""
    rows, columns = shape
    if leading < max(1, rows):
        raise ValueError(f"a leading dimension of {leading} for {rows} rows")
    if not rows * columns:
        return np.zeros(shape, real)
    size = ((columns - 1) * leading + rows) * ctypes.sizeof(real)
    home = memory_of(address or 0, size)
    if home is None:
        raise ValueError(f"{size} bytes at {address} are in no array of the device")
    strides = (ctypes.sizeof(real), leading * ctypes.sizeof(real))
    axes = sorted(range(home.ndim), key=lambda k: -home.strides[k])  # as they lie in memory, so that nothing is copied
    memory = home.transpose(axes).reshape(-1).view(np.uint8)  # which lives as long as this view
    return np.ndarray(shape, real, memory, (address or 0) - memory.ctypes.data, strides)


_callbacks = GEMM(_gemm), SET(_set_handle)  # for as long as the library may call them


@cache
def _library() -> ctypes.CDLL:
    library = built(CODE, "-Wl,-soname,libcublas.so.12")
    library.standin(*_callbacks)
    return library


def get_cublas_handle() -> int:
    """A handle, as CuPy makes one: the library is loaded then."""
    need("product")
    _library()
    _set.clear()
    return HANDLE
