"""A wrong gradient is told by its looks; one that looks like nothing gets no guess."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.testing import GradientError, check_gradients
from tinygrad_rnn.testing.guesses import guess

TRUE = np.random.default_rng(0).standard_normal((4, 4))
LONG = np.random.default_rng(1).standard_normal((8, 3))
LATE = np.concatenate([np.zeros((1, 3)), LONG[:-1]])
EARLY = np.concatenate([LONG[1:], np.zeros((1, 3))])
CUT = np.where(np.arange(8)[:, None] < 5, 0, LONG)
IFGO = np.split(LONG, 4)

SEEN = {
    "nothing flows": (TRUE * 0, TRUE, ()),
    "not finite": (TRUE * np.inf, TRUE, ()),
    "the sign is wrong": (-TRUE, TRUE, ()),
    "twice": (2 * TRUE, TRUE, (4,)),
    "half": (TRUE / 2, TRUE, (4,)),
    "5 times what it should be, the length of an axis: is a mean's 1/N missing": (5 * TRUE, TRUE, (4, 5)),
    "1/5 of what it should be, the length of an axis: is a mean taken for a sum": (TRUE / 5, TRUE, (4, 5)),
    "looks transposed": (TRUE.T, TRUE, ()),
    "reversed along axis 0": (LONG[::-1], LONG, ()),
    "reversed along axis 1": (LONG[:, ::-1], LONG, ()),
    "one step late along axis 0": (LATE, LONG, ()),
    "one step early along axis 0": (EARLY, LONG, ()),
    r"in the order \(1, 0, 2, 3\): gates swapped": (np.concatenate([IFGO[k] for k in (1, 0, 2, 3)]), LONG, ()),
    r"in the order \(3, 0, 1, 2\): gates swapped": (np.concatenate([IFGO[k] for k in (3, 0, 1, 2)]), LONG, ()),
    "3.7 times what it should be": (3.7 * TRUE, TRUE, (4,)),
    "nothing flows to index 0, 1, 2, 3, 4 of axis 0: is the graph cut": (CUT, LONG, ()),
    "right where it is not 0": (np.where(LONG > 0.5, LONG, 0), LONG, ()),
}


@pytest.mark.parametrize("words", SEEN)
def test_the_usual_mistakes_are_recognised(words):
    analytic, numeric, lengths = SEEN[words]
    # a numeric derivative is not exact
    noisy = numeric * (1 + 1e-10 * np.random.default_rng(2).standard_normal(numeric.shape))
    assert re.search(words, guess(analytic, noisy, lengths) or "")


def test_what_looks_like_nothing_gets_no_guess():
    assert guess(LONG + 0.1, LONG, (8, 3)) is None
    assert guess(np.tanh(TRUE), TRUE, (4,)) is None
    off = LONG.copy()
    off[3, 1] += 1e-9  # less than a guess could be told from
    assert guess(off, LONG, (8, 3)) is None


def test_a_small_error_is_not_explained_by_what_leaves_it():
    """Nothing is 0 here: "right where it is not 0" would be said of any small error."""
    off = TRUE.copy()
    off[0, 0] *= 1 + 1e-7
    assert guess(off, TRUE) is None


@pytest.mark.parametrize(("row", "words"), [(0, "first"), (-1, "last")])
def test_a_missing_sum_over_the_batch(row, words):
    """Only the numeric derivative of one row of the output can tell."""

    @tr.op(lambda g: g, lambda g: g[:1] if row == 0 else g[-1:])
    def add_bias(x, b):
        return x + b

    with pytest.raises(GradientError, match=f"of the {words} index of axis 0 of output 0 alone: missing sum over"):
        check_gradients(add_bias, np.ones((4, 3)), np.ones((1, 3)))


def test_the_guess_is_in_the_message():
    @tr.op(lambda g, b: (g @ b.mT).mT, lambda g, a: a.mT @ g)
    def product(a, b):
        return a @ b

    with pytest.raises(GradientError, match=r"(?s)of input 0.*worst entry.*\nguess: looks transposed"):
        check_gradients(product, TRUE, TRUE + 1)
