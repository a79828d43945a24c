"""Backward step by step: what is handed on is what `backward` adds up, by the rule that is shown."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.explain.rules import WORDS, rule_of, source_of, words_for
from tinygrad_rnn.explain.trace import shown
from tinygrad_rnn.tensor.fused import FusedOp
from tinygrad_rnn.tensor.op import Op

LAYERS = [tr.nn.RNN, tr.nn.LSTM, tr.nn.GRU]
UNARY = [tr.tanh, tr.sigmoid, tr.exp, tr.square, tr.sin, lambda x: x[..., :1], lambda x: x.T, lambda x: x[[0, 0]]]
BINARY = [tr.add, tr.subtract, tr.multiply, tr.maximum, lambda a, b: a @ b]


def all_ops() -> dict[str, Op | FusedOp]:
    """Every op of the library that has a derivative."""
    found: dict[str, Op | FusedOp] = {}
    for module in pkgutil.walk_packages(tr.__path__, "tinygrad_rnn."):
        if not any(
            part in module.name for part in ("__main__", ".numba_", ".compiled_", ".registers", ".cli", ".testing")
        ):
            for value in vars(importlib.import_module(module.name)).values():
                op = getattr(value, "op", None)
                if isinstance(op, FusedOp) or (isinstance(op, Op) and (op.joint or any(op.vjps))):
                    found[op.name] = op
    return found


@st.composite
def programs(draw: Any) -> tuple[tr.Tensor, list[tr.Tensor]]:
    """A random graph over square matrices, vectors and numbers, in which values are used again; and its leaves."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    leaves = [tr.Tensor(rng.normal(size=shape) / 2, requires_grad=True) for shape in ((2, 2), (2, 2), (2,), ())]
    values = list(leaves)
    for _ in range(draw(st.integers(1, 9))):
        a, b = (draw(st.sampled_from(values)) for _ in range(2))
        if draw(st.booleans()):
            f = draw(st.sampled_from(UNARY if a.shape == (2, 2) else UNARY[:5]))
            made = f(a)
        else:
            f = draw(st.sampled_from(BINARY if a.shape == b.shape == (2, 2) else BINARY[:4]))
            made = f(a, b)
        values.append(tr.broadcast_to(made, (2, 2)) if made.shape == (2, 1) else made)
    loss = tr.sum(values[-1]) + sum(tr.sum(v) for v in draw(st.lists(st.sampled_from(values), max_size=3)))
    return loss, leaves


def handed_in_all(loss: tr.Tensor) -> dict[Any, Any]:
    """For each node what was handed to it, added up here."""
    sums: dict[Any, Any] = defaultdict(float)
    for step in tr.explain.trace(loss):
        for h in step.handed:
            sums[h.node] = sums[h.node] + h.array()
    return sums


@given(programs())
@examples(25, 60, 400)
def test_what_is_handed_on_adds_up_to_grad(drawn: tuple[tr.Tensor, list[tr.Tensor]]) -> None:
    loss, leaves = drawn
    sums = handed_in_all(loss)
    steps = list(tr.explain.trace(loss))
    assert all(leaf.grad is None for leaf in leaves)
    for step in steps:
        str(step), step._repr_html_(), json.dumps(step.as_dict())
    loss.backward()
    for leaf in leaves:
        if leaf.grad is not None:
            np.testing.assert_allclose(sums[leaf._node], leaf.grad.numpy(), rtol=1e-12, atol=1e-12)
        else:
            assert leaf._node not in sums
    ends = {step.at.number: step for step in steps if step.at.leaf}
    assert len(ends) == sum(leaf.grad is not None for leaf in leaves)


@given(st.data())
@examples(6, 12, 60)
def test_layers(data: Any) -> None:
    kind, fused = data.draw(st.sampled_from(LAYERS)), data.draw(st.booleans())
    layer = kind(
        2, 3, data.draw(st.integers(1, 2)), fused=fused, bidirectional=data.draw(st.booleans()), dtype="float64"
    )
    lengths = data.draw(st.sampled_from([None, [4, 1]]))
    output, _ = layer(tr.Tensor(np.random.default_rng(0).normal(size=(4, 2, 2))), lengths=lengths)
    loss = tr.square(output).sum()
    sums = handed_in_all(loss)
    totals = {h.node: h.total() for step in tr.explain.trace(loss) for h in step.handed}
    loss.backward()
    for parameter in layer.parameters():
        np.testing.assert_allclose(sums[parameter._node], parameter.grad.numpy(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(totals[parameter._node], parameter.grad.numpy(), rtol=1e-12, atol=1e-13)


@given(programs())
@examples(10, 30, 100)
def test_g_is_complete_and_each_node_has_one_turn(drawn: tuple[tr.Tensor, list[tr.Tensor]]) -> None:
    loss, _ = drawn
    came: dict[int, Any] = {}
    turns = []
    for step in tr.explain.trace(loss):
        if turns:
            np.testing.assert_allclose(step.g, came[step.at.number], rtol=1e-12, atol=1e-13)
        turns.append(step.at.number)
        for h in step.handed:
            assert h.to.number < step.at.number
            came[h.to.number] = came.get(h.to.number, 0) + h.array()
            np.testing.assert_allclose(h.total(), came[h.to.number], rtol=1e-12, atol=1e-13)
            assert h.array().shape == h.to.shape
    assert turns == sorted(set(turns), reverse=True)


def test_no_op_is_without_words_or_source() -> None:
    ops = all_ops()
    assert len(ops) > 70
    assert sorted(ops.keys() - WORDS.keys()) == []
    assert sorted(WORDS.keys() - ops.keys()) == ["checkpoint"]
    assert len(set(WORDS.values())) > 60 and all(text and len(text) < 110 for text in WORDS.values())
    for op in ops.values():
        if isinstance(op, Op):
            for rule in filter(None, (*op.vjps, op.joint)):
                assert source_of(rule), op.name


def test_a_rule_is_its_own_part_of_the_line() -> None:
    a, b = tr.nn.Parameter([1.0]), tr.nn.Parameter([2.0])
    for made, rules in (
        (a - b, ["g", "-g"]),
        (a * b, ["g * b", "g * a"]),
        (a / b, ["divide_no_nan(g, b)", "-multiply_no_nan(divide_no_nan(g, b), y)"]),
        (tr.tanh(a), ["g - g * (y * y)"]),
    ):
        assert [rule_of(made._node.plan, i) for i in range(len(rules))] == rules


def test_ops_of_ones_own() -> None:
    def pulled(g: Any, x: Any) -> Any:
        return 3 * g * x * x

    def longer(g: Any, x: Any) -> Any:
        half = g * x
        return 2 * half

    @tr.op(pulled)
    def cube(x: Any) -> Any:
        return x * x * x

    @tr.op(longer)
    def squared(x: Any) -> Any:
        return x * x

    @tr.op(lambda g: eval("2 * g"))
    def tanh(x: Any) -> Any:  # has the name of another, and none of its words
        return 2 * x

    x = tr.nn.Parameter([2.0])
    plans = [f(x)._node.plan for f in (cube, squared, tanh)]
    assert [rule_of(plan, 0) for plan in plans] == ["3 * g * x * x", "longer(g, x)", 'eval("2 * g")']
    assert {words_for(plan) for plan in plans} == {"an op of your own"}
    unknown = eval("lambda g, y: g * y")  # no file, no source
    assert source_of(unknown) == "" and source_of(np.add) == ""


def test_hooks_checkpoints_and_seeds() -> None:
    def run(x: tr.Tensor) -> tr.Tensor:
        y = tr.checkpoint(lambda v: v.tanh() * v, x)
        y.register_hook(lambda g: 2 * g)
        return y * x

    x = tr.Tensor([0.5, -1.5], dtype="float64", requires_grad=True)
    steps = list(tr.explain.trace(run(x), [1.0, 3.0], names={"x": x}))
    assert [step.op for step in steps] == ["multiply", "checkpoint", ""]
    assert "computed again" in steps[1].words and "computed again" in steps[1].handed[0].rule
    run(x).backward([1.0, 3.0])
    np.testing.assert_allclose(steps[-1].g, x.grad.numpy(), rtol=1e-13)
    assert str(steps[-1]) == f"3 of 3   x\n   its gradient: {shown(x.grad.numpy())}, the sum of 2 contributions"
    with pytest.raises(tr.errors.ShapeError, match="needs gradient="):
        tr.explain.trace(run(x))


def test_what_it_shows_of_a_loop() -> None:
    W, b, h, x = tr.nn.Parameter([[0.5]]), tr.nn.Parameter([0.0]), tr.zeros(3, 1), tr.ones(2, 3, 1)
    with tr.explain.watch():
        for t, x_t in enumerate(x):
            with tr.explain.step(t):
                h = tr.tanh(x_t @ W + b + h @ W)
    text = "\n".join(map(str, tr.explain.trace(h.sum(), names={"W": W, "b": b, "h": h})))
    for part in (
        "1 of ",
        "h = tanh  in step 1",
        "→ W: _pull_right(g, a, b_shape) = ",
        "a product of (3, 1)ᵀ and (3, 1), which the engine multiplies later",
        ", 2 of 4 arrived",
        ", 4 of 4 arrived",
        "(3, 1), summed to (1,), as the operand was used for all of it",
        "the sum of 4 contributions",
    ):
        assert part in text, part


def test_one_at_a_time_and_the_graph_stays() -> None:
    w = tr.nn.Parameter([2.0])
    loss = tr.square(w * 3).sum()
    found = tr.explain.trace(loss)
    assert len(found) == 4 and next(found).op == "sum" and next(found).op == "square"
    loss.backward()  # while it stands in the middle
    assert w.grad.tolist() == [36.0]
    with pytest.raises(tr.errors.GraphFreedError, match="in between"):
        next(found)
    with pytest.raises(tr.errors.GraphFreedError):
        tr.explain.trace(loss)
    with pytest.raises(ValueError, match="computed from nothing"):
        tr.explain.trace(tr.Tensor([1.0]))


def test_html_is_escaped() -> None:
    w = tr.nn.Parameter([2.0])
    (html,) = {step._repr_html_() for step in tr.explain.trace((w * 1.0), names={"<w>": w}) if step.op}
    assert "<w>" not in html and "&lt;w&gt;" in html


def test_as_many_parts_arrive_as_are_announced() -> None:
    tr.manual_seed(0)
    for layer in (tr.nn.LSTM(2, 3, bidirectional=True), tr.nn.GRU(2, 3, fused=False), tr.nn.RNN(2, 3, layer_norm=True)):
        output = layer(tr.randn(5, 2, 2), lengths=[5, 3])[0]
        loss = tr.square(output).sum() + (output * tr.where(output > 0, output, 0.0)).mean()
        handed = [h for step in tr.explain.trace(loss) for h in step.handed]
        assert any(h.count > 1 for h in handed) and all(h.count == len(h.came) for h in handed)
