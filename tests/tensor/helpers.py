"""What several files of these tests make."""

from __future__ import annotations

import numpy as np

import tinygrad_rnn as tr


def leaf(data, dtype="float64"):
    return tr.Tensor(data, dtype=dtype, requires_grad=True)


def t(data, requires_grad=False):
    return tr.Tensor(np.asarray(data, "float64"), requires_grad=requires_grad)


@tr.op(lambda g: bad_vjp(g))
def failing(x):
    return x * 1.0


def bad_vjp(g):
    raise KeyError("a bug in a derivative")
