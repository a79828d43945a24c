"""Options of ops in forms that the table of domains does not draw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.testing import check_gradients

X = np.random.default_rng(0).standard_normal((2, 3, 4))
AXES = [axes for axes in itertools.product(range(-3, 3), repeat=3) if len({i % 3 for i in axes}) == 3]


@pytest.mark.parametrize("axes", AXES)
def test_axes_counted_from_both_ends(axes):
    assert np.array_equal(tr.transpose(X, axes), np.transpose(X, axes))
    check_gradients(lambda x: tr.transpose(x, axes), X)


@pytest.mark.parametrize("widths", [1, (1, 2), (0, 1), ((1, 2), (0, 0), (2, 1))])
def test_one_width_for_all_axes(widths):
    assert np.array_equal(tr.pad(X, widths, constant_values=7), np.pad(X, widths, constant_values=7))
    check_gradients(lambda x: tr.pad(x, widths, constant_values=7), X)
