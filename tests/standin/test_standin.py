"""The stand-in for CuPy refuses what CuPy refuses; and on it, in processes of their own, what can be tried in seconds.

All of it is `python -m tests.standin`, which `.ci/run` runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.standin import cupy as cp
from tests.standin.__main__ import run
from tests.standin.cupy import _device, _raw, _surface

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


def test_the_list_of_names_is_of_a_version() -> None:
    assert _surface.version() == cp.__version__ == "14.2.0"
    assert _surface.arguments("f", "sum") == (5, {"a", "axis", "dtype", "out", "keepdims"})
    assert _surface.arguments("m", "reshape")[0] is None and _surface.surface()["u", "add"] == "(2,1)"


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
