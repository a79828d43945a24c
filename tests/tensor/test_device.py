"""What a device asks for, as far as NumPy can show it: sums in one order, random numbers, an install that is whole."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from tests.reference import assert_close
from tinygrad_rnn.errors import BackendMismatchError
from tinygrad_rnn.tensor import backend, device


@pytest.mark.parametrize(("rows", "n", "width"), [(1, 1, 1), (5, 1, 3), (3, 64, 2), (4, 65, 1), (70, 33, 2), (3, 0, 2)])
def test_rows_are_added_up_as_add_at_does(rows: int, n: int, width: int) -> None:
    rng = np.random.default_rng(n)
    ids, g, before = rng.integers(0, rows, n), rng.standard_normal((n, width)), rng.standard_normal((rows, width))
    found, expected = before.copy(), before.copy()
    device.add_rows(np, found, ids, g)
    np.add.at(expected, ids, g)
    assert_close(found, expected, 1e-13)


def test_an_infinite_gradient_stays_in_its_row() -> None:
    buffer = np.zeros((3, 1))
    device.add_rows(np, buffer, np.array([0, 2, 0]), np.array([[np.inf], [1.0], [1.0]]))
    assert buffer.tolist() == [[np.inf], [0], [1]]


def test_draws_are_uniform_and_of_their_seed_and_place() -> None:
    x, same, other = (device.uniform(np, (400, 250), seed) for seed in (1, 1, 2))
    assert x.dtype == np.float32 and np.array_equal(x, same) and not np.any(x == other)
    assert x.min() >= 0 and x.max() < 1
    counts = np.histogram(x, 50, (0, 1))[0]
    assert 25 < ((counts - 2000) ** 2 / 2000).sum() < 90  # chi-squared with 49 degrees of freedom
    for y in (x[:, 1:] - 0.5, other[:, 1:] - 0.5):  # no number tells of the one before, nor of another seed's
        assert abs(12 * np.mean((x[:, :-1] - 0.5) * y)) < 0.02 or y is not other
    assert abs(12 * np.mean((x - 0.5) * (other - 0.5))) < 0.02


class Broken:
    """A CuPy in half an install: what it is asked for first raises."""

    def __init__(self, kernel: Exception | None, product: Exception | None) -> None:
        self.kernel, self.product = kernel, product
        self.cuda = types.SimpleNamespace(is_available=lambda: True)

    def ones(self, *args: Any, **named: Any) -> Any:
        return self

    def __add__(self, other: Any) -> Any:
        if self.kernel:
            raise self.kernel
        return self

    def __matmul__(self, other: Any) -> Any:
        if self.product:
            raise self.product
        return self

    def get(self) -> None:
        pass


def test_half_an_install_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler, no_blas = RuntimeError("no libnvrtc\n"), ImportError("libcublas.so.12: cannot open")
    for broken, said in (
        (
            Broken(no_compiler, None),
            r"cannot compile a kernel \(no libnvrtc\): CUDA's libraries come with python -m pip",
        ),
        (Broken(None, no_blas), r"cannot multiply matrices \(libcublas.so.12: cannot open\): CUDA's libraries"),
    ):
        monkeypatch.setitem(sys.modules, "cupy", broken)  # type: ignore[arg-type]
        with pytest.raises(BackendMismatchError, match=said):
            device.probe()
    monkeypatch.setitem(sys.modules, "cupy", Broken(None, None))  # type: ignore[arg-type]
    device.probe()


def test_numbers_of_the_host_are_read_as_they_are() -> None:
    assert backend.numbers([np.float32(0.5), np.array(2.0)]) == [0.5, 2]
    assert backend.host_array([[1], [2]]).tolist() == [[1], [2]]
