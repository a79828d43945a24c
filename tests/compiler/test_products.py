"""Large products are made in the same parts by every call of a step that threads may share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import tinygrad_rnn as tr
from tinygrad_rnn.compiler import products
from tinygrad_rnn.compiler.products import is_large, multiply
from tinygrad_rnn.kernels import threads
from tinygrad_rnn.tensor import backend

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = backend.stages
    tr.enable_numba()
    monkeypatch.setattr(products, "LARGE", 0)
    with threadpool_limits(2):
        if threads.allowed() == 1:
            pytest.skip("NumPy has no OpenBLAS whose threads are its own")
        yield
    backend.use_stages(before)


def calls_of(step: Any) -> list[Any]:
    """The functions that a step which has been replayed consists of."""
    ((recording,),) = step.compiled.found.values()
    return [f for part in recording.program.segments for f, _ in part.calls]


def a(*shape: int, dtype: str = "f") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def into_itself(x: Any) -> Any:
    y = np.zeros_like(x)
    y += x
    return np.matmul(y, y, out=y)


def into_another(x: Any) -> Any:
    y = np.zeros_like(x)
    np.dot(x, x, out=y)
    return y


@pytest.mark.parametrize("f", [lambda x: x @ x, into_itself, into_another], ids=["@", "itself", "another"])
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_a_product_is_the_same_at_every_call(f: Any, dtype: str) -> None:
    step = tr.compile(lambda x: f(x))
    x = a(40, 40, dtype=dtype)
    found = [step(x) for _ in range(4)]
    assert multiply in calls_of(step) and {np.matmul, np.dot}.isdisjoint(calls_of(step))
    for y in found:
        np.testing.assert_array_equal(y, found[0])
        np.testing.assert_allclose(y, f(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shapes", [((40,), (40, 40)), ((3, 40, 40), (3, 40, 40)), ((1, 40), (40, 40))], ids=str)
def test_other_products_are_made_as_they_are(shapes: Any) -> None:
    x, y = (tr.Tensor(a(*shape)) for shape in shapes)
    step = tr.compile(lambda x, y: x @ y)
    for _ in range(3):
        np.testing.assert_array_equal(step(x, y).numpy(), (x @ y).numpy())
    assert multiply not in calls_of(step)


def test_without_numba_or_threads_there_are_no_parts() -> None:
    x = tr.Tensor(a(40, 40))
    with threadpool_limits(1):
        one = tr.compile(lambda x: x @ x)
        for _ in range(3):
            np.testing.assert_array_equal(one(x).numpy(), (x @ x).numpy())
    backend.use_stages(None)
    plain = tr.compile(lambda x: x @ x)
    for _ in range(3):
        np.testing.assert_array_equal(plain(x).numpy(), (x @ x).numpy())
    assert multiply not in calls_of(one) and multiply not in calls_of(plain)


def test_an_error_is_that_of_the_product() -> None:
    step = tr.compile(lambda x, y: np.matmul(x, y))
    with pytest.raises(ValueError, match="matmul"):
        step(a(20, 30), a(20, 30))


def test_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGE", 1000)
    assert is_large(a(10, 10), a(10, 10)) and not is_large(a(10, 9), a(9, 10))
    assert not is_large(a(10, 10), a(10, 10, dtype="d")) and not is_large(a(10, 10), 2.0)
    assert not is_large(a(10, 10), a(10, 10), a(10, 11))
