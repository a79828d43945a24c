"""Calls of functions: what they return is flattened, and pulled back through."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.testing.calls import Call, constant, flat, pull, variable


def test_outputs_are_flattened_in_order() -> None:
    a, b, c = (tr.Tensor(float(i)) for i in range(3))
    assert flat({"h": (a, [b, None]), "y": c}) == [a, b, c]
    with pytest.raises(TypeError, match="returns Tensors, not int: 1"):
        flat([a, 1])


def test_what_an_output_does_not_depend_on_gets_zeros_of_its_dtype() -> None:
    x, unused = variable(np.ones(3)), variable(np.ones(2, np.float32))
    pulled = pull([x * 2.0, constant(np.ones(3))], [np.ones(3), np.ones(3)], [x, unused])
    assert [g.numpy().tolist() for g in pulled] == [[2.0, 2.0, 2.0], [0.0, 0.0]]
    assert [g.dtype for g in pulled] == [np.float64, np.float32]


def test_a_call_pushes_what_it_pulls() -> None:
    """<Jv, u> is <v, J^T u>, with an output that depends on nothing and one that is no float among the others."""
    call = Call(lambda x, n: (tr.exp(x) * n, tr.ones(2), tr.argmax(x)), [np.array([0.5, 1.0]), np.array([2, 3])])
    u, v = [np.array([1.0, -2.0]), np.array([5.0, 5.0])], [np.array([0.25, 4.0])]
    pushed, (pulled,) = call.push(v), call.pull(u)
    assert np.array_equal(pushed[1], np.zeros(2))
    assert np.sum(pushed[0] * u[0]) == pytest.approx(np.sum(v[0] * pulled), rel=1e-14)
