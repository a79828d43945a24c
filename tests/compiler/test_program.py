"""A program does all that its tape has, with the warnings of the step."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.steps import run
from tinygrad_rnn.compiler import lower, program


def test_a_forgotten_entry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "needed", lambda entries, result: [e for e in entries if e.f is not np.add])
    assert run(True, "RNN", 3, 2, 4) != run(False, "RNN", 3, 2, 4)


def test_warnings_are_those_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "ON", False)  # else it warns of nothing
    step = tr.compile(lambda x: tr.exp(x))
    for _ in range(4):
        with pytest.warns(RuntimeWarning, match="overflow"):
            step(tr.Tensor([1000.0]))
