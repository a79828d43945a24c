"""Intervals that are too narrow are made wider, as far as the part to choose by says; others stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from examples.common.series import Series, margins, share_held, widened


def series(n: int = 4000, season: int = 3) -> Series:
    return Series("s", np.arange(n), 100 + np.random.default_rng(0).normal(size=n).cumsum(), season)


def test_narrow_intervals_are_made_to_hold() -> None:
    """Of a random walk, whose steps have a known spread: between quantiles of none of it and of all."""
    s = series()
    known = np.quantile(np.random.default_rng(1).normal(size=10**5), [0.1, 0.5, 0.9])
    spread = np.sqrt(np.arange(1, 4))[:, None] * known  # of the sum of 1, 2 and 3 steps
    step = np.std(np.diff(s.x))
    right = np.broadcast_to(spread * step / s.scale[:, None], (len(s.x), 3, 3))
    for narrow, least in ((0.0, 0.5), (0.5, 0.2), (1.0, 0.0), (2.0, 0.0)):
        margin = margins(s, narrow * right)
        assert (margin >= least).all() and (narrow < 2 or not margin.any())
        held = share_held(s, s.undone(widened(narrow * right, margin)))
        assert held == pytest.approx(80 if narrow < 2 else 99, abs=4)
    before = share_held(s, s.undone(0.5 * right))
    assert before < 60  # it was needed


def test_steps_that_the_part_to_choose_by_does_not_reach_are_as_the_last_that_it_does() -> None:
    s = series(30, season=6)
    assert len(s.choose) < 6
    margin = margins(s, np.zeros((30, 6, 3)))
    assert (margin > 0).all() and len(set(margin[len(s.choose) - 1 :])) == 1


def test_a_margin_moves_the_ends_alone() -> None:
    found = widened(np.zeros((2, 2, 3)), np.array([1.0, 2.0]))
    assert found[1].tolist() == [[-1, 0, 1], [-2, 0, 2]]
