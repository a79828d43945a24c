"""Options of ops in forms that the table of domains does not draw."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import ops
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


def options_of(f):
    """The parameters of an op that are no arrays, or those of a function of ops but for the first."""
    names = list(inspect.signature(f).parameters)
    return list(f.op.metadata) if hasattr(f, "op") else names[1:]


NUMPYS = [n for n in [*ops.__all__, "full"] if hasattr(np, n) and not isinstance(getattr(np, n), np.ufunc)]


@pytest.mark.parametrize("name", NUMPYS)
def test_parameters_have_numpys_names(name):
    try:
        theirs = inspect.signature(getattr(np, name)).parameters
    except ValueError as error:  # an old NumPy, of what it has written in C
        pytest.skip(str(error))
    ours = set(options_of(getattr(tr, name))) - {"requires_grad"}
    ours -= {"constant_values"} if name == "pad" else set()  # among NumPy's **kwargs
    ours -= {"xs"} if name == "einsum" else set()  # `*xs`: without a name
    assert ours <= set(theirs)


@pytest.mark.parametrize("name", [name for name in ops.__all__ if name in vars(tr.Tensor)])
def test_methods_have_the_options_of_their_ops(name):
    given = [p.name for p in inspect.signature(getattr(tr.Tensor, name)).parameters.values()][1:]
    assert given == options_of(getattr(tr, name))
