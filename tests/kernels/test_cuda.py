"""Kernels in CUDA: each source compiles for every architecture without spills, and computes what it should.

`make kernel-test` runs these where NVRTC and a C++ compiler are. A kernel's numbers are tested here by the stand-in,
which compiles the same source by the C++ compiler; what its layer makes of it, in tests/kernels/test_sequences.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.kernels import nvrtc
from tests.standin.cupy import _raw
from tinygrad_rnn.kernels import cuda

SOURCES = sorted(path.stem for path in Path(cuda.__file__).parent.glob("*.cu"))
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)

needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.MISSING)


@needs_nvrtc
@each_dtype
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_every_source_compiles_without_spills(name: str, architecture: int, dtype: str) -> None:
    cupys = ("-ftz=true", f"-arch=sm_{architecture}", "--device-as-default-execution-space")  # what CuPy adds
    options = (*cuda.options(dtype), *cupys, "--ptxas-options=-v")
    source = cuda.source(name)
    fine, log, ptx = nvrtc.compiled(source, *options)
    assert fine, log
    assert not [line for line in log.splitlines() if "warning" in line and "Architectures" not in line], log
    found = nvrtc.resources(log)
    assert found.keys() == {kernel for kernel, _ in _raw.kernels(source)}, log
    assert not {kernel: used for kernel, used in found.items() if used[0] or used[1] or used[2] > 64}, log
    assert ".entry" in ptx
    if dtype == "float32":
        wide = [line for line in ptx.splitlines() if ".f64" in line and ".param" not in line]
        assert not wide, "a number of float32 is computed in float64"


@needs_nvrtc
def test_a_spill_is_seen() -> None:
    source = 'extern "C" __global__ void f(double *x) { double y[99]; for (int i = 0; i < 99; i++) y[i] = x[i * i];\n'
    source += "for (int i = 0; i < 99; i++) x[i] += y[(int)y[i]]; }"
    fine, log, _ = nvrtc.compiled(source, "-arch=sm_80", "--ptxas-options=-v")
    assert fine and nvrtc.resources(log)["f"][0] > 0
    assert not nvrtc.compiled(source.replace("double", "quadruple"), "-arch=sm_80")[0]


# --- the numbers of each kernel -----------------------------------------------------------------------------


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


@each_dtype
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (2, 300)])
def test_lstm_forward(standin: Any, shape: tuple[int, int], dtype: str) -> None:
    (B, H), T = shape, 3
    rng = np.random.default_rng(0)
    x, a, h0, c0 = (rng.standard_normal(s) for s in [(T, B, 4 * H), (B, 4 * H), (B, H), (B, H)])
    runs = rng.integers(0, 2, (T, B, 1)) * 1.0
    gates, h, c = (standin.empty(s, dtype) for s in [(T, B, 4 * H), (T, B, H), (T, B, H)])
    launch = cuda.kernel("recurrent", "lstm_forward", dtype)
    here = [standin.asarray(v, dtype=dtype) for v in (x, a, h0, runs, c0)]
    for t, before in ((1, -1), (2, 1)):
        launch(*cuda.grid_of_rows(B, H), (B, H, t, before, *here, gates, c, h))
        i, f, g, o = np.split(x[t] + a, 4, axis=1)
        cell = sigmoid(f) * c0 + sigmoid(i) * np.tanh(g)
        old = h0, c0
        h0, c0 = (np.where(runs[t] > 0, *pair) for pair in ((sigmoid(o) * np.tanh(cell), h0), (cell, c0)))
        for ours, theirs in ((h, h0), (c, c0)):
            np.testing.assert_allclose(ours[t].get(), theirs, TOLERANCE[dtype], TOLERANCE[dtype])
        assert (c0 == old[1])[runs[t, :, 0] == 0].all()
    assert np.isnan(gates[0].get()).all()  # no step has run there


# --- the switch, and what is launched -----------------------------------------------------------------------


def test_the_switch(standin: Any) -> None:
    x = standin.zeros((2,), "float32")
    assert tr.cuda_kernels_enabled() and cuda.has_cuda_kernels(x, x)
    assert not cuda.has_cuda_kernels(x, x.astype("float64")) and not cuda.has_cuda_kernels(x.astype("float16"))
    assert not cuda.has_cuda_kernels(np.zeros(2))
    tr.enable_cuda_kernels(False)
    assert not tr.cuda_kernels_enabled() and not cuda.has_cuda_kernels(x)
    tr.enable_cuda_kernels()
    assert cuda.has_cuda_kernels(x)


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a dtype": (lambda cp: (cp.zeros(2, "float64"), 1, 0.5), TypeError, "`const REAL .x` is given float64"),
    "a layout": (lambda cp: (cp.zeros((2, 2), "float32").T, 1, 0.5), TypeError, "of strides"),
    "a host array": (lambda cp: (np.zeros(2, "float32"), 1, 0.5), TypeError, "is given ndarray"),
    "a float for an integer": (lambda cp: (0, 1.0, 0.5), TypeError, "`long long n` is given float"),
    "an integer for a float": (lambda cp: (0, 1, 1), TypeError, "`double s` is given int"),
    "too few": (lambda cp: (0, 1), TypeError, "has 3 parameters, 2 arguments"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_stand_in_refuses_arguments(standin: Any, case: str) -> None:
    arguments, kind, said = WRONG[case]
    code = 'extern "C" __global__ void f(const REAL *x, long long n, double s) {}'
    f = standin.RawModule(code=code, options=("-DREAL=float",)).get_function("f")
    f((1,), (1,), (standin.zeros(2, "float32"), 1, 0.5))
    with pytest.raises(kind, match=said):
        f((1,), (1,), arguments(standin))
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        f((1,), (2048,), (0, 1, 0.5))


def test_the_shim_has_barriers(standin: Any) -> None:
    """A sum of a block, by halves in shared memory; and a barrier that some threads never reach is seen."""
    code = """
    extern "C" __global__ void total(const REAL *x, long long n, REAL *y) {
        __shared__ REAL part[64];
        part[threadIdx.x] = 0;
        for (long long i = threadIdx.x; i < n; i += blockDim.x) part[threadIdx.x] += x[blockIdx.x * n + i];
        for (unsigned half = blockDim.x / 2; half; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        }
        if (!threadIdx.x) y[blockIdx.x] = part[0];
    }
    extern "C" __global__ void stuck() { if (threadIdx.x) __syncthreads(); }
    """
    module = standin.RawModule(code=code, options=("-DREAL=double",))
    x, y = np.random.default_rng(0).standard_normal((3, 100)), standin.empty(3)
    module.get_function("total")((3,), (64,), (standin.asarray(x), 100, y))
    np.testing.assert_allclose(y.get(), x.sum(1), 1e-12)
    with pytest.raises(RuntimeError, match="never reach a barrier"):
        module.get_function("stuck")((1,), (2,), ())
