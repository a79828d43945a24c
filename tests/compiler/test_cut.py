"""The parts of a call do what the call does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.compiler import cut
from tinygrad_rnn.compiler.arrays import root_of
from tinygrad_rnn.compiler.numpy_calls import assign, choose
from tinygrad_rnn.compiler.products import cuts, multiply
from tinygrad_rnn.compiler.traced import arrays_in

ROWS, COLUMNS, THREADS = st.integers(1, 40), st.integers(1, 70), st.integers(2, 5)
RNG = np.random.default_rng(0)


def a(*shape: int, dtype: str = "f") -> np.ndarray:
    return np.asarray(RNG.standard_normal(shape)).astype(dtype)


def memory(call: Any) -> list[np.ndarray]:
    """What a call may read and write."""
    f, args = call
    return list({id(root_of(x)): root_of(x) for x in arrays_in((args, getattr(f, "keywords", {})))}.values())


def on_copies(stage: Any, args: Any) -> None:
    """Call a stage on parts, between which there are gaps that instructions know, and Python's calls do not."""
    copies = [x.copy() for x in args]
    stage(*copies)
    for x, copy in zip(args, copies, strict=True):
        x[...] = copy


def check(n: int, f: Any, *args: Any, stages: Any = MappingProxyType({}), must: bool = False) -> None:
    """Make the parts, last ones first, and the call, and compare what they leave."""
    call = f, args
    parts = cut.parts_of(n, call, stages)
    if parts is None:
        assert not must
        return
    assert len(parts) == n
    roots = memory(call)
    before = [x.copy() for x in roots]
    for g, some in reversed(parts):
        if all(x.size for x in arrays_in((some, getattr(g, "keywords", {})))):
            on_copies(g, some) if f in stages else g(*some)
    found = [x.copy() for x in roots]
    for x, values in zip(roots, before, strict=True):
        x[...] = values
    f(*args)
    for x, y in zip(roots, found, strict=True):
        np.testing.assert_array_equal(y, x)


@given(size=st.integers(0, 100), n=THREADS, least=st.integers(1, 16))
def test_cuts_are_all_places_once_in_order(size: int, n: int, least: int) -> None:
    parts = cuts(size, n, least)
    assert len(parts) == n and [k for part in parts for k in range(part.start, part.stop)] == list(range(size))
    sizes = [part.stop - part.start for part in parts]
    assert size < n * least or max(sizes) - min(sizes) <= 2 * least


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is short is cut, too."""
    monkeypatch.setattr(cut, "LONG", 8)
    yield


@given(n=THREADS, k=st.integers(1, 3), B=ROWS, H=COLUMNS)
def test_elements(n: int, k: int, B: int, H: int) -> None:
    check(n, np.add, a(k, B, H), a(B, H), a(k, B, H), must=B >= 8)
    check(n, np.add, a(B, H), a(H), a(B, H), must=B >= 8)
    check(n, np.multiply, a(B, H), a(B, 1), a(B, H), must=B >= 8)
    check(n, np.multiply, a(B, H), a(), a(B, H), must=B >= 8)
    check(n, np.exp, a(B, H), a(B, H))
    y = a(B, H)
    check(n, np.add, y, a(B, H), y, must=B >= 8)
    check(n, partial(np.maximum, out=a(B, H)), a(B, H), a(B, 1), must=B >= 8)
    check(n, np.copyto, a(k, B, H), a(B, H), "unsafe", must=B >= 8)
    check(n, np.ndarray.fill, a(B, H), 2.0, must=B >= 8)
    check(n, choose, a(B, 1) > 0, a(B, H), 0.0, a(B, H), must=B >= 8)


@pytest.mark.usefixtures("small")
def test_what_has_one_axis() -> None:
    for size in (1, 7, 8, 30):
        check(3, np.add, a(size), a(size), a(size), must=size >= 8)
        check(3, np.add, a(size), a(), a(size), must=size >= 8)
        check(3, np.add, a(size), a(1), a(size), must=size >= 8)


@given(n=THREADS, m=st.one_of(ROWS, st.integers(600, 700)), k=COLUMNS, p=COLUMNS)
def test_products(n: int, m: int, k: int, p: int) -> None:
    for some in [(a(m, k), a(k, p), a(m, p)), (a(k, m).T, a(p, k).T, a(m, p))]:
        check(n, multiply, n, *some, must=True)
        expected = some[0] @ some[1]
        multiply(n, *some)
        np.testing.assert_allclose(some[2], expected, rtol=1e-4, atol=1e-4)


@given(n=THREADS, T=st.integers(1, 6), B=ROWS, H=COLUMNS, axis=st.integers(0, 2))
def test_joins(n: int, T: int, B: int, H: int, axis: int) -> None:
    xs = [a(*(1 if k == axis else size for k, size in enumerate((T, B, H)))) for _ in range(T)]
    y = np.concatenate(xs, axis)
    check(n, np.concatenate, xs, axis, np.zeros_like(y), must=y.shape[1] >= 8)
    check(n, partial(np.concatenate, out=a(T * B, H)), [a(B, H) for _ in range(T)], must=T * B >= 8)


@given(n=THREADS, T=st.integers(1, 6), B=ROWS, H=COLUMNS)
def test_sums(n: int, T: int, B: int, H: int) -> None:
    check(n, np.add.reduce, a(T, B, H), (0, 1), None, a(H), False, must=H >= 32)
    check(n, np.add.reduce, a(T, B, H), (0, 1), None, a(1, 1, H), True, must=H >= 32)
    check(n, np.add.reduce, a(B, H), 0, None, a(H), False, must=H >= 32)
    check(n, np.add.reduce, a(B, H), 1, None, a(B), False, must=B >= 8)
    check(n, np.add.reduce, a(B, H), -1, None, a(B, 1), True, must=B >= 8)
    check(n, np.add.reduce, a(T, B, H), 1, None, a(T, H), False)
    check(n, np.add.reduce, a(B, H), None, None, a(), False)


@given(n=THREADS, V=st.integers(1, 9), T=st.integers(1, 6), B=ROWS, H=COLUMNS)
def test_tables(n: int, V: int, T: int, B: int, H: int) -> None:
    ids = RNG.integers(-V, V, (T, B))
    check(n, assign, np.take, a(T, B, H), (a(V, H), ids), {"axis": 0}, must=T * B >= 8)
    check(n, cut.SCATTER_ADD, a(V, H), (ids,), a(T, B, H), must=H >= 32)
    check(n, cut.SCATTER_ADD, a(V, H), (ids.reshape(-1),), a(T * B, H), must=H >= 32)


@given(n=THREADS, B=ROWS, H=st.integers(1, 20))
def test_stages(n: int, B: int, H: int) -> None:
    pytest.importorskip("numba")
    from tinygrad_rnn.kernels import compiled_stages as s

    def stage(f: Any, *shapes: tuple[int, ...]) -> None:
        check(n, f, *(a(*shape) for shape in shapes), stages={f: cut.staged}, must=B >= 8)

    stage(s.rnn_tanh, (B, H), (B, H))
    stage(s.rnn_tanh_slope, (B, H), (B, H), (B, H))
    stage(s.lstm_gates, (B, 4 * H), (B, 4 * H), (B, H), (6, B, H))
    stage(s.lstm_slopes, (2, B, H), (6, B, H), (B, H), (B, 4 * H), (B, H))
    stage(s.gru_gates, (B, 3 * H), (B, 3 * H), (H,), (B, H), (5, B, H))
    stage(s.gru_slopes, (5, B, H), (5, B, H), (B, H), (B, 3 * H), (B, 3 * H), (B, H))
    stage(s.carry_rows, (B, 1), (2, B, H), (2, B, H))
    stage(s.clear_rows, (B, 1), (4, B, H))


@given(n=THREADS, B=ROWS, K=COLUMNS, N=COLUMNS, turned=st.booleans())
def test_products_with_a_weight_in_panels(n: int, B: int, K: int, N: int, turned: bool) -> None:
    pytest.importorskip("numba")
    from tinygrad_rnn.kernels import compiled_stages as s

    width = s.width_of("f")
    W, panels = a(N, K).T if turned else a(K, N), a(-(-N // width), K, width)
    check(n, s.pack, W, panels, stages={s.pack: cut.packed}, must=True)
    s.pack(W, panels)
    check(n, s.product, a(B, K), panels, a(B, N), stages={s.product: cut.multiplied}, must=True)


def test_what_is_not_known_is_not_cut() -> None:
    assert cut.parts_of(2, (print, (a(20, 20),)), {}) is None
    assert cut.parts_of(2, (np.matmul, (a(20, 20), a(20, 20), a(20, 20))), {}) is None
    assert cut.parts_of(2, (partial(np.dot, out=a(20, 20)), (a(20, 20), a(20, 20))), {}) is None
    assert cut.parts_of(2, (np.add.reduce, (a(20, 3, 20), 1, None, a(20, 20), False)), {}) is None
