"""Accuracy, error rate and perplexity, against definitions that are slow and plain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.training import accuracy, edit_distance, error_rate, metrics, perplexity

SHORT = st.text("abc", max_size=7)


def plainly(a: str, b: str) -> int:
    @cache
    def d(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


@pytest.fixture(params=["rapidfuzz", "NumPy"], scope="module")
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    """What computes edit distances."""
    if request.param == "rapidfuzz":
        pytest.importorskip("rapidfuzz")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics, "_rapidfuzz", metrics._rapidfuzz if request.param == "rapidfuzz" else lambda: None)
        yield request.param


@given(SHORT, SHORT)
def test_edit_distance(library: str, a: str, b: str) -> None:
    assert edit_distance(a, b) == plainly(a, b) == edit_distance(b, a)
    assert edit_distance([ord(c) for c in a], [ord(c) for c in b]) == plainly(a, b)
    assert edit_distance(a, a) == 0


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [([-1], [-2], 1), ([1, True, 1.0], [1.0, 1, 1], 0), ([(1, 2)], ["(1, 2)"], 1), ("", "ab", 2), (["ab"], "ab", 2)],
)
def test_tokens_are_compared_as_they_are(library: str, a: Any, b: Any, distance: int) -> None:
    """-1 and -2 have the same hash."""
    assert edit_distance(a, b) == distance


@given(SHORT, SHORT, SHORT)
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_error_rate() -> None:
    assert error_rate(["abc", ""], ["abd", "xy"]) == 3 / 5
    assert error_rate([["one", "two", "three"]], [["one"]]) == 2.0
    assert error_rate([np.array([1, 2])], [np.array([1, 3])]) == 0.5
    assert math.isnan(error_rate([""], [""])) and math.isnan(error_rate([], []))
    with pytest.raises(ShapeError, match="1 predictions for 2 targets"):
        error_rate(["a"], ["a", "b"])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=12))
def test_accuracy(rows: list[tuple[int, int, bool]]) -> None:
    a, b, mask = (np.array(column, dtype=int) for column in (zip(*rows, strict=True) if rows else ([], [], [])))
    kept = [x == y for x, y, keep in rows if keep]
    expected = sum(kept) / len(kept) if kept else math.nan
    assert accuracy(a, b, mask.astype(bool)) == pytest.approx(expected, nan_ok=True)
    everything = sum(x == y for x, y, _ in rows) / len(rows) if rows else math.nan
    assert accuracy(tr.Tensor(a), b.tolist()) == pytest.approx(everything, nan_ok=True)


@pytest.mark.parametrize("make", [np.asarray, tr.Tensor])
def test_perplexity(make: Any) -> None:
    losses = make(np.log(np.full((3, 2), 5.0)))
    assert perplexity(losses) == pytest.approx(5)
    assert perplexity(make(np.array([math.log(3.0), math.nan])), [True, False]) == pytest.approx(3)
    assert perplexity(tr.Tensor(math.log(7))) == pytest.approx(7, rel=1e-6)
    assert perplexity(1e9) == math.inf and math.isnan(perplexity([]))


def test_a_million_small_losses_do_not_drift() -> None:
    assert perplexity(np.full(2**20, 0.1, "float32")) == pytest.approx(math.exp(np.float32(0.1)), rel=1e-12)


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match=r"accuracy: the shapes must be equal, got \(2, 1\) and \(2,\)"):
        accuracy([[1], [2]], [1, 2])
    with pytest.raises(ShapeError, match=r"mask must be booleans of shape \(2,\), got int64 of shape \(2,\)"):
        accuracy([1, 2], [1, 2], [1, 0])
    with pytest.raises(
        ShapeError, match=r"perplexity: mask must be booleans of shape \(2,\), got bool of shape \(1,\)"
    ):
        perplexity([1.0, 2.0], [True])


@pytest.mark.gpu
def test_tensors_may_live_on_a_device() -> None:
    x = tr.Tensor([1, 2, 3], device="cuda")
    assert accuracy(x, [1, 2, 0], tr.Tensor([True, True, True], device="cuda")) == pytest.approx(2 / 3)
