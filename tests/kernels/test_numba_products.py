"""Products with a weight in panels: right, and to the same bits however rows and columns are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.kernels.copies import packed
from tinygrad_rnn.tensor import backend

pytest.importorskip("numba")
from tinygrad_rnn.kernels import compiled_stages as stages
from tinygrad_rnn.kernels import numba_products as products
from tinygrad_rnn.kernels.registers import registers

DTYPES = st.sampled_from([np.float32, np.float64])
RNG = np.random.default_rng(0)


def times(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """x W by panels, into memory that holds NaN."""
    width = stages.width_of(W.dtype)
    panels = np.full((-(-W.shape[1] // width), len(W), width), np.nan, W.dtype)
    stages.pack(W, panels)
    y = np.full((len(x), W.shape[1]), np.nan, W.dtype)
    stages.product(x, panels, y)
    return y


def exact(x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x W, and how far from it a sum in some order may be."""
    wide = [a.astype(np.longdouble) for a in (x, W)]
    return wide[0] @ wide[1], 2 * len(W) * np.finfo(W.dtype).eps * (abs(wide[0]) @ abs(wide[1]))


@given(M=st.integers(1, 30), K=st.integers(1, 40), N=st.integers(1, 70), dtype=DTYPES, turned=st.booleans())
@example(M=13, K=2 * products.BLOCK + 1, N=33, dtype=np.float32, turned=True)
@example(M=1, K=products.BLOCK + 1, N=100, dtype=np.float64, turned=False)
def test_a_product_is_the_product(M: int, K: int, N: int, dtype: Any, turned: bool) -> None:
    x = RNG.standard_normal((M, K)).astype(dtype)
    W = RNG.standard_normal((N, K)).astype(dtype).T if turned else RNG.standard_normal((K, N)).astype(dtype)
    y, (right, far) = times(x, W), exact(x, W)
    assert y.dtype == dtype and (abs(y - right) <= far).all()
    for i in range(0, M, 5):  # a row alone, and some columns alone, which other tiles compute
        np.testing.assert_array_equal(times(x[i : i + 1], W)[0], y[i])
    np.testing.assert_array_equal(times(x, W[:, N // 2 :]), y[:, N // 2 :])


def test_infinity_and_nan_stay_where_they_are() -> None:
    x, W = np.ones((2, 3), np.float32), np.ones((3, 20), np.float32)
    x[0, 1], W[2, 18] = np.inf, np.nan
    y = times(x, W)
    assert np.isnan(y[:, 18]).all() and (np.delete(y, 18, 1) == [[np.inf], [3]]).all()


@pytest.mark.parametrize(("registers", "dtype"), [((64, 12), "float32"), ((16, 12), "float64")])
def test_a_tile_for_any_processor(registers: tuple[int, int], dtype: str) -> None:
    """The code for other vectors than this processor has, which LLVM takes apart."""
    here = products.Registers(*registers)
    tile, width, K = products.tiles(here), stages.width_of(dtype, here), 5
    run = pytest.importorskip("numba").njit(lambda like, *given: tile(like, *given))
    for rows in (1, 3, here.rows):
        panels = products.AT_ONCE[rows - 1] if rows <= len(products.AT_ONCE) else 1
        x = RNG.standard_normal((rows, K)).astype(dtype)
        w = RNG.standard_normal((panels, K, width)).astype(dtype)
        y = np.zeros((rows, panels * width), dtype)
        like, size = x.dtype.type(0), x.itemsize
        for k, more in ((3, 0), (2, 1)):  # the sum in two parts
            at = 0 if more == 0 else 3
            run(like, rows, panels, x.ctypes.data + at * size, x.strides[0], w.ctypes.data + at * width * size,
                w.strides[0], y.ctypes.data, y.strides[0], k, more)  # fmt: skip
        W = w.swapaxes(0, 1).reshape(K, -1)
        assert (abs(y - exact(x, W)[0]) <= exact(x, W)[1]).all()


def test_which_registers_a_processor_has() -> None:
    assert registers({"avx512f": True, "avx2": True, "fma": True}) == (64, 12)
    assert registers({"avx2": True, "fma": True}) == (32, 6)
    assert registers({"neon": True}) == (16, 12)
    assert registers({"avx2": True, "fma": False, "sse2": True}) is None


@pytest.fixture
def enabled() -> Any:
    before = backend.stages
    tr.enable_numba()
    yield
    backend.use_stages(before)


@pytest.mark.usefixtures("enabled")
def test_a_weight_is_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    pack = backend.stages.pack
    monkeypatch.setattr(backend.stages, "pack", lambda W, panels: calls.append(W.shape) or pack(W, panels))
    lstm = tr.nn.LSTM(3, 5)
    for _ in range(2):
        lstm(tr.randn(6, 2, 3))[0].sum().backward()
    assert calls == [(5, 20), (20, 5)]  # for the way forth and the way back
    lstm(tr.randn(4, 2, 3))[0].sum().backward()  # too few steps to repay it
    lstm.weight_hh_l0.assign_(2 * lstm.weight_hh_l0.numpy())
    lstm(tr.randn(6, 2, 3))
    assert calls[2:] == [(5, 20)]


@pytest.mark.usefixtures("enabled")
def test_without_fused_additions_blas_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.stages, "FAST", False)
    monkeypatch.setattr(backend.stages, "product", None)
    tr.nn.GRU(3, 5)(tr.randn(6, 2, 3))[0].sum().backward()


@pytest.mark.usefixtures("enabled")
def test_the_copy_in_panels_goes_with_the_weight() -> None:
    W = np.ones((3, 20), np.float32)
    panels = packed(W, backend.stages, turned=True)
    assert packed(W, backend.stages, turned=True) is panels
    assert packed(W, backend.stages, turned=False).shape != panels.shape
    assert panels.sum() == W.sum()
