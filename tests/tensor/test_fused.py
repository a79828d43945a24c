"""Fused ops are their plain definitions."""

from __future__ import annotations

import tinygrad_rnn as tr
from tests.tensor.helpers import leaf, t


def test_a_fused_op_has_a_name_and_a_plain_definition():
    double = tr.fused("double", lambda x: x + x, lambda x: 2 * x, lambda g, y, needs, x: (2 * g,))
    assert double.op.name == "double"
    x = leaf([1.0, 2.0])
    assert double.op.forward(x).tolist() == double(x).tolist() == [2, 4]
    assert double.op.plan((True,)) is double(x)._node.plan


def test_a_fused_op_is_its_plain_definition():
    def square_sum(x, w):
        return (x * x * w).sum()

    calls = []

    def forward(x, w):
        return (x * x * w).sum()

    def vjp(g, y, needs, x, w):
        calls.append(needs)
        return g * 2 * x * w, g * x * x

    f = tr.fused("square_sum", square_sum, forward, vjp)
    x, w = t([1.0, 2.0], True), t([3.0, 4.0], True)
    f(x, w).backward()
    assert calls == [(True, True)]
    assert x.grad.tolist() == [6, 16]
    assert w.grad.tolist() == [1, 4]
    g = tr.grad(f(x, w), x, create_graph=True)
    assert tr.grad(g.sum(), [x, w])[0].tolist() == [6, 8]
    assert calls == [(True, True)]
    tr.enable_fused(False)
    try:
        assert f(x, w)._node.plan.name != "square_sum"
    finally:
        tr.enable_fused(True)
    f(x.detach(), w).backward()
    assert calls[-1] == (False, True)


def test_a_fused_op_whose_definition_does_not_depend_on_its_input():
    f = tr.fused("seven", lambda x: t([7.0, 7.0]), lambda x: x * 0 + 7.0, lambda g, y, needs, x: (g * 0,))
    x = t([1.0, 2.0], True)
    assert tr.grad((f(x) * x * x).sum(), x, create_graph=True).tolist() == [14, 28]
