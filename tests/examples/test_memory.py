"""What the tasks of `examples/memory.py` ask is what its story says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from examples import memory
from examples.common.experiment import experiment
from examples.memory import LETTERS, REMEMBER, adding, copying, remembering_nothing


@pytest.mark.parametrize("T", [2, 3, 50])
def test_adding_marks_one_number_in_each_half(T: int) -> None:
    x, y = adding((0, T), T, 2000)
    marked = x[..., 1] == 1
    assert x.shape == (T, 2000, 2) and marked[: T // 2].sum(0).tolist() == [1] * 2000
    assert marked[T // 2 :].sum(0).tolist() == [1] * 2000
    np.testing.assert_allclose(y, np.where(marked, x[..., 0], 0).sum(0), rtol=1e-6)
    # Always answering the mean: the variance of the sum of two uniform numbers, within four standard errors.
    assert abs(remembering_nothing("adding", y) - 1 / 6) < 4 * np.std((y - 1) ** 2) / math.sqrt(2000)


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


def test_remembering_nothing_is_measured_on_the_same_sequences() -> None:
    assert remembering_nothing("copy", np.zeros((30, 5))) == pytest.approx(10 * math.log(8) / 30)
    assert remembering_nothing("adding", np.array([1.0, 1.0])) == 0
    assert remembering_nothing("adding", np.array([0.5, 2.0])) == pytest.approx((0.25 + 1) / 2)


def test_a_few_steps(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    argv = ["--quick", "--steps", "2", "--out", str(tmp_path)]
    assert experiment(memory.main, steps=2, quick=2, argv=argv) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    (_, nothing, rnn, _), *_ = (table["rows"][0] for table in results["tables"])
    note = next(note for note in results["notes"] if note.startswith("adding, the RNN's loss over"))
    assert f"{float(rnn) / float(nothing):.2f} at 50" in note
