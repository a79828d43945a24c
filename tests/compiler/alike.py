"""A run with plain functions beside the same run with compiled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tinygrad_rnn as tr
from tests.compiler.fuzz.judge import Painter, difference

Run = Callable[[Callable[[Any], Any]], Any]  # takes what is done to a function: nothing, or `tr.compile`


def plain(f: Any) -> Any:
    return f


def alike(run: Run) -> None:
    """Assert that a run gives the same, to the bit, whether its functions are compiled or not."""
    tr.manual_seed(0)
    expected = Painter().of(run(plain))
    tr.manual_seed(0)
    found = Painter().of(run(tr.compile))
    if where := difference(expected, found):
        raise AssertionError(where)
