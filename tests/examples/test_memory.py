"""What the tasks of `examples/memory.py` ask is what its story says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from examples.memory import LETTERS, REMEMBER, adding, copying, guessing


@pytest.mark.parametrize("T", [2, 3, 50])
def test_adding_marks_one_number_in_each_half(T: int) -> None:
    x, y = adding((0, T), T, 2000)
    marked = x[..., 1] == 1
    assert x.shape == (T, 2000, 2) and marked[: T // 2].sum(0).tolist() == [1] * 2000
    assert marked[T // 2 :].sum(0).tolist() == [1] * 2000
    np.testing.assert_allclose(y, np.where(marked, x[..., 0], 0).sum(0), rtol=1e-6)
    # Always answering the mean: the variance of the sum of two uniform numbers, within four standard errors.
    assert abs(np.mean((y - 1) ** 2) - guessing("adding", T)) < 4 * np.std((y - 1) ** 2) / math.sqrt(2000)


@pytest.mark.parametrize("wait", [1, 10, 30])
def test_copying_asks_for_the_letters_after_the_signal(wait: int) -> None:
    x, answer = copying((0, wait), wait, 5)
    T = wait + 2 * REMEMBER
    assert x.shape == (T, 5, LETTERS + 2) and answer.shape == (T, 5)
    ids = x.argmax(-1)
    assert np.array_equal(np.eye(LETTERS + 2)[ids], x)
    assert np.array_equal(answer[-REMEMBER:], ids[:REMEMBER]) and (ids[:REMEMBER] < LETTERS).all()
    assert (answer[:-REMEMBER] == LETTERS).all() and ((ids == LETTERS + 1).sum(0) == 1).all()
    assert (ids[T - REMEMBER - 1] == LETTERS + 1).all()  # the signal is the last thing before the answer
    assert (ids[T - REMEMBER :] == LETTERS).all()  # and nothing helps while answering


def test_guessing_is_what_uniform_letters_cost() -> None:
    assert guessing("copy", 10) == pytest.approx(10 * math.log(8) / 30)
    assert guessing("adding", 50) == pytest.approx(0.1667, abs=1e-4)
