"""Stages that numba compiles do what NumPy does. `pytest --numba` runs every other test of the layers with them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.kernels import recurrent as kernels
from tinygrad_rnn.kernels.stages import numba_stages
from tinygrad_rnn.tensor import backend


@pytest.fixture
def stages():
    """The stages that numba compiles, enabled; afterwards as before."""
    pytest.importorskip("numba")
    before = backend.stages
    tr.enable_numba()
    yield backend.stages
    backend.use_stages(before)


DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SIZES = pytest.mark.parametrize("size", [(1, 1), (1, 100), (3, 7), (5, 64), (0, 4)])
ULPS = 32  # of float32, where numba's code may also add in another order


def near(found, expected):
    eps = np.finfo(expected.dtype).eps
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.all(abs(found - expected) <= ULPS * eps * max(1, np.max(abs(expected), initial=0)))


def normal(dtype, *shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def both(forward, vjp, arrays, g, metadata):
    """Output and gradients of a kernel, by NumPy and by numba."""
    results = []
    compiled = backend.stages
    for stages in (None, compiled):
        backend.use_stages(stages)
        y = forward(*arrays, **metadata)
        contributions = vjp(g, y, (True,) * len(arrays), *arrays, **metadata)
        results.append([y, *(a for d in contributions if d is not None for a in parts(d))])
    backend.use_stages(compiled)
    return results


def parts(d):
    return [d] if isinstance(d, np.ndarray) else [d.x, d.g] if hasattr(d, "x") else [d.g]


@DTYPES
@SIZES
@pytest.mark.parametrize("t", [None, 1])
@pytest.mark.parametrize("kind", ["rnn tanh", "rnn relu", "rnn sigmoid", "lstm", "gru", "gru without bias"])
def test_a_kernel_with_numba_is_the_kernel(stages, kind, t, size, dtype):
    B, H = size
    name, *more = kind.split()
    gates, rows = {"rnn": (1, 0), "lstm": (4, 6), "gru": (3, 5)}[name]
    x = normal(dtype, *([] if t is None else [3]), B, gates * H)
    W = normal(dtype, gates * H, H) / np.sqrt(H, dtype=dtype)  # sums of no more than a few: their order is another
    state = normal(dtype, rows, B, H)  # what the step before has put out
    if name == "rnn":
        arrays, metadata = (x, normal(dtype, B, H), W), {"nonlinearity": more[0], "t": t}
    elif name == "lstm":
        arrays, metadata = (x, state, W), {"t": t}
    else:
        arrays, metadata = (x, state, W, None if more else normal(dtype, H)), {"t": t}
    forward, vjp = getattr(kernels, f"{name}_forward"), getattr(kernels, f"{name}_vjp")
    g = normal(dtype, *([rows] if rows else []), B, H)
    plain, compiled = both(forward, vjp, arrays, g, metadata)
    assert len(plain) == len(compiled) >= 4
    for found, expected in zip(compiled, plain, strict=True):
        near(found, expected)


def test_what_is_not_contiguous_goes_to_numpy(stages):
    x = np.asfortranarray(normal("float32", 3, 8))
    state = normal("float32", 2, 3, 2)
    assert numba_stages(x, state) is None
    y = kernels.lstm_forward(x, state, normal("float32", 8, 2))
    backend.use_stages(None)
    near(y, kernels.lstm_forward(x, state, normal("float32", 8, 2)))


@DTYPES
@pytest.mark.parametrize("n", [0, 1, 100])
def test_rows_are_added_as_numpy_adds_them(stages, dtype, n):
    ids, g = np.random.default_rng(n).integers(0, 7, n), normal(dtype, n, 5)
    compiled, plain = backend.scatter_add(normal(dtype, 7, 5), ids, g), normal(dtype, 7, 5)
    np.add.at(plain, ids, g)
    near(compiled, plain)
    assert (backend.scatter_add(np.ones((7, 5), dtype), ids, g[:, ::-1])).dtype == dtype  # not contiguous
    assert (backend.scatter_add(np.ones((7, 2, 5), dtype), ids, normal(dtype, n, 2, 5))).shape == (7, 2, 5)


@DTYPES
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_of_adam_with_numba_is_adams(stages, dtype, kind, decay):
    results = []
    for used in (stages, None):
        backend.use_stages(used)
        p = tr.nn.Parameter(normal(dtype, 3, 50))
        optimizer = getattr(tr.optim, kind)([p], lr=0.1, betas=(0.8, 0.95), weight_decay=decay)
        for k in range(4):
            p.grad = tr.Tensor(normal(dtype, 3, 50) * (k - 1.5))
            optimizer.step()
        results.append([p.numpy(), *(optimizer.state_dict()["state"]["0"][name] for name in optimizer.moments)])
    for found, expected in zip(*results, strict=True):
        near(np.asarray(found), np.asarray(expected))


def test_the_fraction_for_tanh(stages):
    """Within 6 units in the last place, odd, never above 1, exact at 0 and infinity, NaN for NaN."""
    x = np.concatenate([np.linspace(-12, 12, 200_001), np.geomspace(1e-30, 1, 1000)]).astype("float32")
    y = np.zeros((1, x.size), "float32")
    stages.rnn_tanh(y, x[None])
    exact = np.tanh(x.astype("float64"))
    assert np.all(abs(y[0] - exact) <= 6 * np.spacing(abs(exact).astype("float32")))
    assert np.all(abs(y) <= 1)
    special = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan]], "float32")
    y = np.zeros_like(special)
    stages.rnn_tanh(y, special)
    np.testing.assert_array_equal(y[0, :2], [0, 0])
    np.testing.assert_allclose(y[0, 2:4], [1, -1], rtol=1e-6)
    assert np.isnan(y[0, 4])


def test_the_sigmoid(stages):
    """Within 4 units in the last place, however small it is, never above 1, NaN for NaN."""
    x = np.concatenate([np.linspace(-103, 40, 200_001), [0, np.inf, -np.inf, np.nan, 1e30, -1e30]]).astype("float32")
    H = x.size
    z, y = np.zeros((1, 4 * H), "float32"), np.empty((6, 1, H), "float32")
    z[0, :H] = x
    stages.lstm_gates(z, np.zeros_like(z), np.zeros((1, H), "float32"), y)
    found, exact = y[0, 0], 1 / (1 + np.exp(-x[:-6].astype("float64")))
    assert np.all(abs(found[:-6] - exact) <= 4 * np.spacing(exact.astype("float32")))
    assert np.all(found[:-6] <= 1) and found[0] > 0
    np.testing.assert_array_equal(found[-6:], np.array([0.5, 1, 0, np.nan, 1, 0], "float32"))


def test_enable_numba_is_a_switch(stages):
    assert tr.numba_enabled()
    assert tr.enable_numba(False) == 0
    assert not tr.numba_enabled()


def test_without_numba_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ModuleNotFoundError, match="numba is not installed: pip install numba"):
        tr.enable_numba()


def test_numba_is_not_imported_unless_asked_for():
    code = "import sys, tinygrad_rnn as tr; tr.nn.LSTM(1, 1); sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what the passes of `tr.compile` read -------------------------------------------------------------------------


def arguments(dtype, width=16):
    """Arguments of every stage, by its name; panels have so many columns."""
    B, H = 3, 5
    x, x3, x4 = (normal(dtype, B, n * H) for n in (1, 3, 4))
    y5, y6 = normal(dtype, 5, B, H), normal(dtype, 6, B, H)
    ids, numbers = np.array([1, 0, 1]), np.linspace(0.1, 0.9, 9).astype(dtype)
    ways, labels = normal(dtype, 3, 5, B), np.array([[0, 0, 0], [1, 3, 2], [0, 0, 0]])
    p, g, m = (normal(dtype, 7) + k for k in range(3))
    return {
        "rnn_tanh": [x, x3[:, :H].copy()],
        "rnn_tanh_slope": [x, x3[:, :H].copy(), x4[:, :H].copy()],
        "lstm_gates": [x4, x4[::-1].copy(), x, y6],
        "lstm_slopes": [y6, y6[::-1].copy(), x, x4, x3[:, :H].copy()],
        "gru_gates": [x3, x3[::-1].copy(), normal(dtype, H), x, y5],
        "gru_slopes": [y5, y5[::-1].copy(), x, x3, x3[::-1].copy(), x4[:, :H].copy()],
        "carry_rows": [np.array([[1], [0], [1]], dtype), y6[:2].copy(), y5[:2].copy()],
        "clear_rows": [np.array([[1], [0], [1]], dtype), y5],
        "ctc_alphas": [ways.copy(), normal(dtype, 2, B, 4), labels, labels == 1, np.array([2, 1, 2])],
        "ctc_slopes": [
            *(normal(dtype, 2, B, 4), ways[::-1].copy(), ways, labels, labels == 1, np.array([2, 1, 2])),
            normal(dtype, 2, 5, B),
        ],
        "add_rows": [normal(dtype, 2, H), ids, x],
        "adam": [p, g, m, abs(m), p + 1, numbers],
        "pack": [x3, normal(dtype, -(-3 * H // width), B, width)],
        "product": [x, normal(dtype, 1, H, width), x4[:, :7].copy()],
    }


NAMES = pytest.mark.parametrize("name", arguments("float32"))


def test_every_stage_declares_its_effects(stages):
    found = {name for name, f in vars(stages).items() if hasattr(f, "effects")}
    assert found == set(arguments("float32"))
    assert all(hasattr(getattr(stages, name), "effects") for name in found)
    assert {name for name in found if getattr(stages, name).effects.last_rows} == {"lstm_slopes", "gru_slopes"}


@DTYPES
@NAMES
def test_a_stage_writes_what_it_declares_and_reads_the_rest(stages, name, dtype):
    stage, given = getattr(stages, name), arguments(dtype, stages.width_of(dtype))[name]
    once, again = [a.copy() for a in given], [a.copy() for a in given]
    for k in stage.effects.writes:
        again[k][...] = np.nan  # what is there does not matter
    stage(*once)
    stage(*again)
    for k, (a, b, before) in enumerate(zip(once, again, given, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"argument {k}")
        written = k in stage.effects.writes or k in stage.effects.updates
        assert np.array_equal(a, before) == (not written), f"argument {k}"


@DTYPES
@pytest.mark.parametrize("name", ["lstm_slopes", "gru_slopes"])
def test_last_rows_stand_for_zeros_before_them(stages, name, dtype):
    stage, whole = getattr(stages, name), arguments(dtype, stages.width_of(dtype))[name]
    for k, count in stage.effects.last_rows.items():
        whole[k][:-count] = 0
        last = [a.copy() for a in whole]
        last[k] = last[k][-count:]
        stage(*whole)
        stage(*last)
        for j in stage.effects.writes:
            np.testing.assert_array_equal(whole[j], last[j])
