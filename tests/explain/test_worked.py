"""The chain rule with its numbers put in: what stands there is so, by name and by number, in every step."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.explain.formulas import BACKWARD, FORWARD, Latex, Text, leaf
from tinygrad_rnn.explain.worked import Worked

SAID = {
    "tanh": math.tanh,
    "σ": lambda x: 1 / (1 + math.exp(-x)),
    "exp": math.exp,
    "log": math.log,
    "sin": math.sin,
    "cos": math.cos,
    "root": math.sqrt,
    "max": max,
    "sum": float,
    "mean": float,
}
FUNCTIONS = [
    tr.tanh,
    tr.sigmoid,
    tr.sin,
    tr.cos,
    lambda x: tr.exp(-tr.square(x)),
    tr.relu,
    lambda x: tr.sqrt(tr.square(x) + 1),
    lambda x: -x,
]
FUNCTIONS += [lambda x: tr.log(tr.square(x) + 1), lambda x: 1 / (tr.square(x) + 1)]


def computed(text: str, values: dict[str, float]) -> tuple[float, float]:
    """What a formula of single numbers comes to, as a reader would compute it, and how large its numbers are."""
    text = text.replace("√", "root").replace("·", "*").replace("²", "**2")
    for name in sorted(values, key=len, reverse=True):
        text = re.sub(rf"(?<![\w/∂]){re.escape(name)}(?!\w)", f"({values[name]!r})", text)
    text = re.sub(r"\[(.*?) > 0\]", r"float((\1) > 0)", text)
    size = 1 + sum(abs(float(n)) for n in re.findall(r"[\d.]+(?:e-?\d+)?", text))
    return float(eval(text, {"__builtins__": {}, "float": float}, SAID)), size


def check(found: Worked, digits: int) -> None:
    """Every side of every line comes to its value: those of names, with all that was said before, and of numbers."""
    values = {Text().named(line.name): float(line.value) for line in (*found.given, *found.forward)}
    values |= {f"∂{found.loss}/∂{Text().named(line.name)}": float(line.value) for line in found.backward}
    lines = [line.strip().split(" = ") for line in str(found).splitlines() if " = " in line]
    assert len(lines) == len(found.given) + len(found.forward) + len(found.backward)
    for start, *sides in lines:
        for side in sides:
            value, size = computed(side, values)
            assert value == pytest.approx(values[start], abs=20 * size**2 * 10.0**-digits), side


@st.composite
def networks(draw: Any) -> tuple[tr.Tensor, dict[str, Any], list[tr.Tensor]]:
    """A recurrent network of single numbers with a loss at some of its steps, its variables and its weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w_x, w_h, b = (tr.nn.Parameter(rng.normal(), dtype="float64") for _ in range(3))
    f, T = draw(st.sampled_from(FUNCTIONS)), draw(st.integers(1, 4))
    x, h, losses = tr.Tensor(rng.normal(size=T)), tr.Tensor(rng.normal()), []
    bias, every, last = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    for x_t in x:
        h = f(w_x * x_t - w_h * h + b) if bias else f(w_h * h + w_x * x_t)
        losses.append(tr.square(h - 0.3))
    loss = losses[0] if T == 1 else sum(losses[1:], losses[0]) if every else losses[-1]
    loss = loss / 2 if last else loss
    names = {"w_x": w_x, "w_h": w_h, "x": x, "h": h} | ({"b": b} if bias else {}) | ({"L": loss} if last else {})
    return loss, names, [w_x, w_h, *([b] if bias else [])]


@given(networks())
@examples(12, 40, 300)
def test_every_side_of_every_line_is_right(drawn: tuple[tr.Tensor, dict[str, Any], list[tr.Tensor]]) -> None:
    loss, names, weights = drawn
    found = tr.explain.worked(loss, names, digits=9)
    check(found, 8)
    check(tr.explain.worked(loss, names), 4)
    by_name = {line.name: line for line in found.backward}
    grads = tr.grad(loss, weights)
    for name, weight, g in zip(("w_x", "w_h", "b"), weights, grads, strict=False):
        assert names[name] is weight
        assert by_name[name].value == pytest.approx(g.item(), rel=1e-12, abs=1e-14)
        assert sum(by_name[name].terms) == pytest.approx(g.item(), rel=1e-10, abs=1e-12)


@given(networks())
@examples(5, 15, 100)
def test_latex_says_the_same(drawn: tuple[tr.Tensor, dict[str, Any], list[tr.Tensor]]) -> None:
    loss, names, _ = drawn
    found = tr.explain.worked(loss, names)
    latex, markdown = found.latex(), found.markdown()
    assert latex.count("&") - latex.count("\\\\\n &=") == len(found.given) + len(found.forward) + len(found.backward)
    for text, environment in ((latex, "align*"), (markdown, "aligned")):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 3
        assert text.count("{") == text.count("}")
        known = r"\\(begin|end|frac|partial|cdot|tanh|sigma|sin|cos|exp|log|sqrt|max|times|mathit|paragraph)(?![a-z])"
        assert not re.findall(r"\\[a-z]+", re.sub(known, "", text))
    numbers = [re.findall(r"\d+\.\d+", text) for text in (str(found), latex)]
    assert sorted(numbers[0]) == sorted(numbers[1])


def test_a_shared_weight_gets_the_sum_over_its_steps() -> None:
    w = tr.nn.Parameter(0.5)
    h, x = tr.Tensor(1.0), tr.Tensor([1.0, 2.0, 4.0])
    for x_t in x:
        h = w * h + x_t
    text = str(tr.explain.worked(h, {"w": w, "h": h, "x": x}))
    assert "\n  h_2 = w · h_1 + 4 = 0.5 · 2.75 + 4 = 5.375\n" in text
    last = "∂h_2/∂w = ∂h_2/∂h_0 · 1 + ∂h_2/∂h_1 · h_0 + h_1 = 0.25 · 1 + 0.5 · 1.5 + 2.75 = 0.25 + 0.75 + 2.75 = 3.75"
    assert text.endswith(last)


def test_names_of_steps_lists_modules_and_none() -> None:
    linear = tr.nn.Linear(1, 1)
    with tr.explain.watch():
        h, hs = tr.ones(1, 1), []
        for k in range(2):
            with tr.explain.step(k):
                h = tr.tanh(linear(h))
            hs.append(h)
    names = [line.name for line in tr.explain.worked(h.sum(), {"h": h}).forward]
    assert names == ["z[0]", "h[0]", "z[1]", "h[1]", "L"]
    names = [line.name for line in tr.explain.worked(h.sum(), {"hs": hs, "_": h}).forward]
    assert names == ["z[0]", "hs[0]", "z[1]", "hs[1]", "L"]
    given = [line.name for line in tr.explain.worked(h.sum(), {"h": h, "read": linear}).given]
    assert given == ["read.weight", "read.bias"]
    a = tr.Tensor(2.0, requires_grad=True)
    found = tr.explain.worked(tr.square(tr.sin(a) * 1.5), {})
    assert str(found).startswith("Given\n  z = 2\n\nForward\n  a_1 = sin(z) = sin(2) = 0.9093")


def test_arrays_of_up_to_four_numbers() -> None:
    tr.manual_seed(0)
    W, b = tr.nn.Parameter([[1.0, 2.0], [3.0, 4.0]]), tr.nn.Parameter([0.5, -0.5])
    x = tr.Tensor([[1.0, 0.0], [0.0, 2.0]])
    h = tr.relu(x @ W + b)
    loss = h.mean()
    found = tr.explain.worked(loss, {"W": W, "b": b, "x": x, "h": h, "loss": loss})
    lines = {line.name: line for line in found.backward}
    assert lines["b"].value.tolist() == [0.5, 0.5]
    assert lines["W"].value.tolist() == [[0.25, 0.25], [0.5, 0.5]]
    text, latex = str(found), found.latex()
    assert (
        "∂loss/∂W = xᵀ ∂loss/∂z = [[1, 0], [0, 2]]ᵀ [[0.25, 0.25], [0.25, 0.25]] = [[0.25, 0.25], [0.5, 0.5]]" in text
    )
    assert "∂loss/∂b = Σ ∂loss/∂z = Σ [[0.25, 0.25], [0.25, 0.25]] = [0.5, 0.5]" in text
    assert r"x^\top \, \frac{\partial \mathit{loss}}{\partial z}" in latex
    assert r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}" in latex and r"\odot" in latex


def test_what_is_too_large_or_not_known_is_refused() -> None:
    w = tr.nn.Parameter(0.5)
    h = w * 1.0
    for _ in range(61):
        h = h.tanh()
    with pytest.raises(ValueError, match="63 nodes are more than 60"):
        tr.explain.worked(h)
    with pytest.raises(ValueError, match=r"shape \(5,\), more than 4 numbers"):
        tr.explain.worked(tr.nn.Parameter(tr.ones(5)).sum())
    with pytest.raises(ValueError, match=r"no formula for rnn_step; it knows add, .*fused=False"):
        tr.explain.worked(tr.nn.RNN(1, 1)(tr.ones(1, 1, 1))[0].sum())
    with pytest.raises(ValueError, match="formulas for matrices alone"):
        tr.explain.worked((tr.ones(2) @ tr.nn.Parameter(tr.ones(2, 2))).sum())
    with pytest.raises(ValueError, match=r"value of a leaf: pass names=locals\(\)"):
        tr.explain.worked((w + 1.0).tanh())
    with pytest.raises(ValueError, match="not kept a constant that add takes: make it a Tensor with requires_grad"):
        tr.explain.worked((w + 1.0).tanh(), {"w": w})
    with pytest.raises(ValueError, match="computed from nothing"):
        tr.explain.worked(tr.Tensor(1.0))
    y = w * 2.0
    y.register_hook(lambda g: 3 * g)
    with pytest.raises(ValueError, match="is there a hook on the way"):
        tr.explain.worked(tr.square(y.tanh()), {"w": w})


def test_it_is_written_to_files(tmp_path: Any) -> None:
    w = tr.nn.Parameter(0.5)
    found = tr.explain.worked(tr.square(w), {"w": w})
    assert found.latex(tmp_path / "a.tex") == (tmp_path / "a.tex").read_text(encoding="utf-8")
    assert (
        found.markdown(tmp_path / "a.md") == (tmp_path / "a.md").read_text(encoding="utf-8") == found._repr_markdown_()
    )
    assert w.grad is None


def test_the_tables_are_of_the_same_ops_and_true() -> None:
    assert FORWARD.keys() == BACKWARD.keys()
    rng = np.random.default_rng(0)
    for name in FORWARD.keys() - {"matmul", "linear", "linear_bias"}:
        operands = [tr.Tensor(rng.uniform(0.5, 2, size=()), requires_grad=True) for _ in BACKWARD[name]]
        made = getattr(tr, name)(*operands)
        formulas = [leaf(f"v{i}", t.numpy()) for i, t in enumerate(operands)]
        assert FORWARD[name](*formulas).value() == pytest.approx(made.item(), rel=1e-12)
        made.backward(1.5)
        for operand, rule in zip(operands, BACKWARD[name], strict=True):
            g = rule(leaf("g", 1.5), leaf("y", made.numpy()), *formulas)
            assert float(np.asarray(g.value())) == pytest.approx(operand.grad.item(), rel=1e-12), name


def test_names_and_numbers_in_latex_keep_to_its_rules() -> None:
    latex = Latex()
    assert [latex.number(v) for v in (1e-7, -2.5e10, 0.0, -0.0)] == [
        r"1 \times 10^{-7}", r"-2.5 \times 10^{10}", "0", "0",
    ]  # fmt: skip
    assert latex.show(leaf("h", 1.0) * leaf("", 1e-7)) == r"h \cdot 1 \times 10^{-7}"
    assert "$" not in latex.named("a$b") and "#" not in latex.named("x_#")
