"""The order to walk back in: what is visited, once, and what is left alone."""

from __future__ import annotations

import tinygrad_rnn as tr
from tests.tensor.helpers import failing, leaf


def test_grad_touches_no_leaf_and_prunes():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = failing(w)  # would raise if it were pulled
    h = x * 2
    z = (h * h + y.sum() * 0.0).sum()
    assert tr.grad(z, h).tolist() == [4, 8]
    assert x.grad is None
    assert w.grad is None
    h.sum().backward()  # what lies behind an input was neither pulled nor freed
    assert x.grad.tolist() == [2, 2]


def test_grad_does_not_look_behind_its_inputs():
    x = leaf([1.0, 2.0])
    h = x * 2
    h.sum().backward()  # frees what is behind h
    assert tr.grad((h * h).sum(), h).tolist() == [4, 8]


def test_a_value_used_twice_at_every_step_is_visited_once():
    """2 ** 200 paths lead through this graph."""
    x = y = leaf([0.5])
    for _ in range(200):
        y = (y + y) * 0.5
    y.sum().backward()
    assert x.grad.tolist() == [1]
    assert tr.grad(((x + x) * 0.5).sum(), x).tolist() == [1]


def test_grad_of_an_input_and_of_what_was_computed_from_it():
    x = leaf([1.0, 2.0])
    h = x * 2
    z = (h * h + x).sum()
    for inputs, expected in (([x, h], [[9, 17], [4, 8]]), ([h, x], [[4, 8], [9, 17]]), ([h, h], [[4, 8], [4, 8]])):
        assert [g.tolist() for g in tr.grad(z, inputs, retain_graph=True)] == expected
