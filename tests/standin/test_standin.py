"""The stand-in for CuPy refuses what CuPy refuses; and on it, in processes of their own, what can be tried in seconds.

All of it is `python -m tests.standin`, which `.ci/run` runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.standin import cupy as cp
from tests.standin.__main__ import run
from tests.standin.cupy import _blas, _device, _memory, _raw, _surface

X = cp.asarray([[1.0, 2.0], [3.0, 4.0]])
HOST = np.ones((2, 2))

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "conversion": (lambda: np.asarray(X), TypeError, "Implicit conversion to a NumPy array is not allowed"),
    "a list of arrays for NumPy": (lambda: np.array([X, X]), TypeError, "Implicit conversion"),
    "an operator": (lambda: X + HOST, TypeError, "Unsupported type <class 'numpy.ndarray'>"),
    "an operator of NumPy's": (lambda: HOST * X, TypeError, "returned NotImplemented"),
    "a function": (lambda: cp.maximum(X, HOST), TypeError, "Unsupported type"),
    "a list": (lambda: X + [1.0, 2.0], TypeError, "Unsupported type <class 'list'>"),
    "a host array where it writes": (lambda: X.__setitem__(0, HOST[0]), ValueError, "non-scalar numpy.ndarray"),
    "a function of NumPy's": (lambda: np.concatenate([X, HOST]), TypeError, "no implementation found"),
    "a name": (lambda: cp.vecdot, AttributeError, "module 'cupy' has no attribute 'vecdot'"),
    "a method": (lambda: X.setflags(write=False), AttributeError, "'cupy.ndarray' object has no attribute 'setflags'"),
    "an argument": (lambda: cp.sum(X, where=True), TypeError, "unexpected keyword argument 'where'"),
    "an argument of a method": (lambda: X.sum(initial=0), TypeError, "unexpected keyword argument 'initial'"),
    "a place": (lambda: cp.arange(3, device="cpu"), TypeError, "unexpected keyword argument 'device'"),
    "a slice": (lambda: X[cp.asarray(1) :], TypeError, "slice indices"),
    "an index as a number": (lambda: [1, 2][cp.asarray(1)], TypeError, "list indices"),
    "the standard's way to its namespace": (lambda: X.__array_namespace__(), AttributeError, "__array_namespace__"),
    "a kind of number": (lambda: cp.asarray(["a"]), ValueError, "Unsupported dtype"),
    "parts of numbers": (lambda: cp.concatenate([X, 1.0]), TypeError, "Only cupy arrays can be concatenated"),
    "floats as ids": (lambda: X[X], IndexError, "integer or boolean"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cupy_refuses(case: str) -> None:
    f, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said):
        f()


def test_what_differs_from_numpy() -> None:
    assert type(cp.sum(X)) is type(X.max()) is type(X[0, 0]) is cp.ndarray and cp.sum(X).shape == ()
    assert not isinstance(X, np.ndarray) and type(X).__module__ == "cupy"
    assert type(np.exp(X)) is cp.ndarray  # a ufunc of NumPy's is handed on
    assert X[cp.asarray([2, -3])].tolist() == [[1, 2], [3, 4]]  # out of range: wrapped
    assert cp.take(X, cp.asarray([5]), axis=1).tolist() == [[2], [4]]
    assert np.isnan(cp.empty((2,)).get()).all() and cp.empty(1, dtype="int32").item() == 2**31 - 1
    assert (cp.asarray([2, 1, -1]) ** -1).tolist() == [0, 1, -1]
    small = cp.asarray([1e-30], dtype="float32")
    assert (small * small.dtype.type(1e-10)).item() == 0  # subnormal, which CuPy flushes
    y = X.T
    y[0, 1] = 7.0
    assert X[1, 0].item() == 7.0  # a view
    X[1, 0] = 3.0


def test_two_devices() -> None:
    with cp.cuda.Device(1):
        there = cp.zeros(2)
        assert there.device.id == (there + 1).device.id == 1
        with pytest.raises(ValueError, match=r"resides \(0\) is different from the current device \(1\)"):
            X + 1
    with pytest.raises(ValueError, match=r"resides \(1\)"):
        there + there
    assert cp.asarray(there).device.id == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        cp.cuda.Device(2).use()


def test_waiting_is_counted_by_line() -> None:
    _device.calls.clear()
    (X @ X).sum()
    assert _device.totals() == {"product": 1, "kernel": 1} and not _device.lines("synchronisation")
    assert float(X[0, 0]) and X.any()
    ((line, n),) = _device.lines("synchronisation").items()
    assert n == 2 and line.startswith(f"{__file__}:")
    cp.zeros(3)
    cp.asarray(HOST)
    assert _device.totals()["memset"] == _device.totals()["upload"] == 1


def capture(f: Callable[[], Any], pool: Any = None) -> tuple[Any, Any]:
    """The graph of what `f` asks for, and what `f` returns."""
    stream = cp.cuda.Stream(non_blocking=True)
    with cp.cuda.using_allocator((pool or cp.cuda.MemoryPool()).malloc), stream:
        stream.begin_capture()
        try:
            y = f()
        except BaseException:
            with contextlib.suppress(cp.cuda.runtime.CUDARuntimeError):
                stream.end_capture()
            raise
        return stream.end_capture(), y


def test_a_graph_computes_when_it_is_launched_on_the_same_memory() -> None:
    xs, ids, pool = [cp.asarray([1.0, 2.0])], cp.asarray([0, 7]), cp.cuda.MemoryPool()
    kept = cp.zeros(2)

    def f() -> Any:
        kept[...] = xs[0] * 2
        return xs[0][ids] + kept, xs[0].astype("float32")

    graph, (y, narrow) = capture(f, pool)
    assert np.isnan(y.get()).all() and np.isnan(narrow.get()).all() and kept.tolist() == [0, 0]
    assert pool.used_bytes() == 1024 and pool.total_bytes() > 1024
    for values in ([1.0, 2.0], [3.0, 4.0]):
        xs[0][...] = cp.asarray(values)
        _device.calls.clear()
        graph.launch()
        assert _device.totals() == {"graph": 1}
        assert y.tolist() == [3 * values[0], values[1] + 2 * values[1]] and narrow.tolist() == values
    ids[...] = cp.asarray([1, 1])  # read at each launch
    graph.launch()
    assert y.tolist() == [4 + 6, 4 + 8]
    xs.clear()  # whose memory is now somebody else's
    graph.launch()
    assert np.isnan(y.get()).all()


def test_memory_of_a_pool_is_used_again_and_goes_with_it() -> None:
    pool, before = cp.cuda.MemoryPool(), _memory._used[0]
    with cp.cuda.using_allocator(pool.malloc):
        x = cp.zeros((4,))
        place = x.data.ptr
        del x
        y = cp.zeros((4,))
    assert y.data.ptr == place and pool.total_bytes() == 512 == _memory._used[0] - before
    del y, pool
    gc.collect()
    assert _memory._used[0] == before


NINE = [X] * 9
NOT_CAPTURED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a read": (lambda: X.get(), RuntimeError, "D2H transfers are disallowed"),
    "a number": (lambda: bool(X[0, 0] > 0), RuntimeError, "D2H transfers are disallowed"),
    "an upload": (lambda: cp.asarray(HOST), RuntimeError, "H2D transfers are disallowed"),
    "a list as an index": (lambda: X[[0, 1]], RuntimeError, "H2D transfers are disallowed"),
    "many arrays": (lambda: cp.concatenate(NINE), RuntimeError, "H2D transfers are disallowed"),
    "many arrays in a stack": (lambda: cp.stack(NINE), RuntimeError, "H2D transfers are disallowed"),
    "a mask": (lambda: X[X > 1], RuntimeError, "D2H transfers are disallowed"),
    "a product": (lambda: X @ X, NotImplementedError, "calling cuBLAS API during stream capture is currently"),
    "waiting": (lambda: cp.cuda.Device().synchronize(), RuntimeError, "cudaErrorStreamCaptureUnsupported"),
    "waiting for an event": (lambda: cp.cuda.Event().synchronize(), RuntimeError, "cudaErrorStreamCaptureUnsupported"),
}


@pytest.mark.parametrize("case", NOT_CAPTURED)
def test_what_a_stream_that_captures_refuses(case: str) -> None:
    f, kind, said = NOT_CAPTURED[case]
    with pytest.raises(kind, match=said):
        capture(f)
    assert capture(lambda: cp.concatenate(NINE[:8]))[1].shape == (16, 2)
    assert capture(lambda: cp.asarray(2.0) * X)[1].shape == (2, 2)  # a kernel that fills


def test_memory_that_is_not_the_graphs_own_and_a_capture_that_an_error_has_ended() -> None:
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="memory of the default pool while a stream captures"):
            X * 2
        assert stream.is_capturing()
        with pytest.raises(RuntimeError, match="StreamCaptureUnsupported"):
            stream.synchronize()
        with pytest.raises(RuntimeError, match="StreamCaptureInvalidated"):
            stream.end_capture()
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cp.cuda.Stream.null.begin_capture()


def test_the_list_of_names_is_of_a_version() -> None:
    assert _surface.version() == cp.__version__ == "14.2.0"
    assert _surface.arguments("f", "sum") == (5, {"a", "axis", "dtype", "out", "keepdims"})
    assert _surface.arguments("m", "reshape")[0] is None and _surface.surface()["u", "add"] == "(2,1)"


def test_a_product_reads_memory_of_any_order() -> None:
    """Of an array whose axes lie in memory in another order than they are counted in."""
    made = cp.asarray(np.arange(24.0).reshape(2, 3, 4)).transpose(1, 2, 0) + 0.0
    assert _blas._matrix(made.data.ptr, (24, 1), 24, ctypes.c_double).ravel().tolist() == list(range(24))


needs_compiler = pytest.mark.skipif(_raw.compiler() is None, reason=_raw.MISSING)


@pytest.fixture(scope="module")
def counts() -> Any:
    if _raw.compiler() is None:
        pytest.skip(_raw.MISSING)
    return json.loads(run("-m", "tests.standin.steps"))


def test_a_training_step_waits_twice(counts: Any) -> None:
    """For the norm that is clipped, and for the loss that is shown; and it takes nothing from the host."""
    for kind, found in counts["steps"].items():
        places = sorted(line.rpartition(":")[0] for line in found["waits"])
        assert places == ["tinygrad_rnn/optim/clip.py", "tinygrad_rnn/tensor/tensor.py"], (kind, found)
        assert found["synchronisation"] <= 2 and "upload" not in found, (kind, found)


def test_a_training_step_makes_four_calls_a_time_step_and_few_others(counts: Any) -> None:
    """The others: ids, table, dropout, head, loss, clipping and Adam; some 200 by CuPy's functions alone."""
    assert max(counts["around"].values()) <= 50, counts["around"]
    for kind, found in counts["steps"].items():
        assert sum(found.get(what, 0) for what in ("kernel", "product", "memset")) <= 4 * 32 + 60, (kind, found)


def test_a_captured_step_is_one_launch(counts: Any) -> None:
    """And copies, of which there are not more where there are more steps."""
    for kind, found in counts["captured"].items():
        assert found["graph"] == 1 and found["synchronisation"] == 2, (kind, found)
        assert found["kernel"] + found["upload"] <= 6 and "product" not in found, (kind, found)


def test_no_op_and_no_layer_waits(counts: Any) -> None:
    assert counts["ops"] == counts["layers"] == {}


def test_a_layer_is_four_calls_a_step(counts: Any) -> None:
    """A product and a kernel forth, a kernel and a product back; and a few for all of it."""
    for kind, found in counts["calls"].items():
        for T, calls in found.items():
            asked = calls["kernel"] + calls["product"] + calls["memset"]
            assert not calls["waits"] and asked <= 4 * int(T) + 20, (kind, T, calls)


@needs_compiler
def test_what_is_marked_gpu_passes() -> None:
    files = ["tests/test_gpu.py", "tests/kernels/test_sequences.py"]
    said = run("-m", "pytest", "-q", "-m", "gpu", "-k", "not resumes", *files)
    assert " passed" in said and "skipped" not in said, said
