"""One step: fused = plain = the reference, and what each step gives to the recurrent weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.nn.test_recurrent import EVERY, FORWARD
from tests.profiles import examples
from tests.reference import GATES, assert_close, assert_steps_close, backward, forward
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.kernels import recurrent as kernels
from tinygrad_rnn.nn import cells
from tinygrad_rnn.tensor.fused import fused_enabled
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.testing import check_recurrent

KINDS = sorted(GATES)
each_kind = pytest.mark.parametrize("kind", KINDS)
both_graphs = pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])


def step_inputs(kind: str, B: int, H: int, T: int | None, rng: np.random.Generator) -> list[tr.Tensor]:
    """Random arguments of a fused step: x, state, W and for the GRU b."""
    G = GATES[kind]
    shapes: list[tuple[int, ...]] = [(B, G * H) if T is None else (T, B, G * H)]
    shapes.append({"rnn": (B, H), "lstm": (2, B, H), "gru": (1, B, H)}[kind])
    shapes.append((G * H, H))
    if kind == "gru":
        shapes.append((H,))
    # Not saturated: of 1 - y² only so many digits are left that two ways of adding differ.
    return [tr.Tensor(rng.uniform(-1, 1, shape), requires_grad=True) for shape in shapes]


CELLS: dict[str, Any] = {"rnn": tr.nn.RNNCell, "lstm": tr.nn.LSTMCell, "gru": tr.nn.GRUCell}
STEPS: dict[str, Any] = {"rnn": cells.rnn_step, "lstm": cells.lstm_step, "gru": cells.gru_step}


def plain(step: Callable[..., tr.Tensor], *arguments: Any, **options: Any) -> tr.Tensor:
    """The plain definition of a fused op."""
    tr.enable_fused(False)
    try:
        return step(*arguments, **options)
    finally:
        tr.enable_fused(True)


@each_kind
@both_graphs
def test_a_cell_records_the_kernel_or_the_plain_graph(kind: str, fused: bool) -> None:
    if not fused_enabled():
        pytest.skip("kernels are off")
    y = CELLS[kind](2, 3, fused=fused)(tr.ones(4, 2))
    y = y[0] if isinstance(y, tuple) else y
    recorded = {node.plan.name for node in newest_first([y._node]) if node.plan}
    assert (f"{kind}_step" in recorded) == fused
    assert ("tanh" in recorded) == (not fused)


@each_kind
@given(data=st.data())
def test_kernel_is_its_plain_definition(kind: str, data: Any) -> None:
    """Every row of the packed output, looked at from outside: the gates too."""
    B, H = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 5))
    T = data.draw(st.none() | st.integers(1, 6))  # from five on by a copy of the transposed weight
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    options: dict[str, Any] = {} if T is None else {"t": data.draw(st.integers(0, T - 1))}
    if kind == "rnn":
        options["nonlinearity"] = data.draw(st.sampled_from(["tanh", "relu", "sigmoid"]))
    inputs = step_inputs(kind, B, H, T, rng)
    y, expected = STEPS[kind](*inputs, **options), plain(STEPS[kind], *inputs, **options)
    assert y.dtype == expected.dtype
    assert_close(y.numpy(), expected.numpy(), 1e-13)
    g = rng.standard_normal(y.shape)
    some = [x for x in inputs if data.draw(st.booleans())] or inputs[:1]
    for found, wanted in zip(tr.grad(y, some, g), tr.grad(expected, some, g), strict=True):
        assert found.dtype == wanted.dtype
        assert_close(found.numpy(), wanted.numpy(), 1e-12)


@each_kind
@pytest.mark.parametrize("T", [None, 6])
def test_a_large_weight_is_multiplied_as_it_lies(kind: str, T: int | None, monkeypatch: Any) -> None:
    monkeypatch.setattr(kernels, "LARGE", 0)
    inputs = step_inputs(kind, 3, 4, T, np.random.default_rng(0))
    options: dict[str, Any] = ({"nonlinearity": "tanh"} if kind == "rnn" else {}) | ({} if T is None else {"t": 5})
    y, expected = STEPS[kind](*inputs, **options), plain(STEPS[kind], *inputs, **options)
    assert_close(y.numpy(), expected.numpy(), 1e-13)
    assert y._array.flags.c_contiguous  # whatever its product was
    for found, wanted in zip(tr.grad(y.sum(), inputs), tr.grad(expected.sum(), inputs), strict=True):
        assert_close(found.numpy(), wanted.numpy(), 1e-12)


@each_kind
def test_second_order_of_a_step_is_that_of_its_plain_definition(kind: str) -> None:
    rng = np.random.default_rng(0)
    inputs = step_inputs(kind, 2, 3, None, rng)
    options = {"nonlinearity": "tanh"} if kind == "rnn" else {}
    g = rng.standard_normal(STEPS[kind](*inputs, **options).shape)
    vectors = [rng.standard_normal(x.shape) for x in inputs]

    def second(y: tr.Tensor) -> Any:
        first = tr.grad(y, inputs, g, create_graph=True)
        total = sum(((d * v).sum() for d, v in zip(first, vectors, strict=True)), tr.Tensor(0.0))
        return tr.grad(total, inputs)

    pairs = zip(second(STEPS[kind](*inputs, **options)), second(plain(STEPS[kind], *inputs, **options)), strict=True)
    for found, expected in pairs:
        assert_close(found.numpy(), expected.numpy(), 1e-12)


@each_kind
@both_graphs
def test_what_each_step_gives_to_the_recurrent_weights(kind: str, fused: bool) -> None:
    """A leaf of its own for the recurrent weights of every step: its gradient is that step's term of the sum."""
    T, B, H = 30, 2, 4
    rng = np.random.default_rng(1)
    G = GATES[kind]
    w = {
        "weight_ih": rng.uniform(-0.5, 0.5, (G * H, H)),
        "weight_hh": rng.uniform(-0.5, 0.5, (G * H, H)),
        "bias_ih": np.zeros(G * H),
        "bias_hh": np.zeros(G * H),
    }
    x, h0, c0 = rng.standard_normal((T, B, H)), rng.standard_normal((B, H)), rng.standard_normal((B, H))
    dy = np.zeros((T, B, H))
    dy[-1] = rng.standard_normal((B, H))
    zero = np.zeros((B, H))
    trace = forward(kind, x, h0, c0, w)
    _, expected = backward(trace, dy, zero, zero, w)

    weights = [tr.Tensor(w["weight_hh"], requires_grad=True) for _ in range(T)]
    projected = tr.linear(tr.Tensor(x), tr.Tensor(w["weight_ih"]))
    h, c = tr.Tensor(h0), tr.Tensor(c0)
    state = {"rnn": h, "lstm": tr.stack([h, c]), "gru": tr.expand_dims(h, 0)}[kind]
    for t, W in enumerate(weights):
        if fused:
            more = {"rnn": {"nonlinearity": "tanh"}}.get(kind, {})
            state = STEPS[kind](projected, state, W, *([None] * (kind == "gru")), t=t, **more)
        elif kind == "lstm":
            h, c = cells.lstm_cell(projected[t], h, c, W)
        else:
            h = {"rnn": cells.rnn_cell, "gru": cells.gru_cell}[kind](projected[t], h, W)
    if fused:
        h = state if kind == "rnn" else state[-2 if kind == "lstm" else -1]
    assert_close(h.numpy(), trace.h[-1])
    (h * dy[-1]).sum().backward()
    assert_steps_close([W.grad.numpy() for W in weights if W.grad is not None], expected["weight_hh"], 1e-9)


@each_kind
@both_graphs
@pytest.mark.parametrize("bias", [True, False])
@given(data=st.data())
@examples(dev=8, ci=20, thorough=100)
def test_cell_modules_are_the_reference(kind: str, fused: bool, bias: bool, data: Any) -> None:
    B, inputs, H = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    cell = CELLS[kind](inputs, H, bias, fused=fused, dtype="float64")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    x, h0, c0 = (tr.Tensor(rng.standard_normal(s), requires_grad=True) for s in ((B, inputs), (B, H), (B, H)))
    w = {name: p.numpy() for name, p in cell.named_parameters()}
    assert list(w) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"][: 4 if bias else 2]
    zero = np.zeros(GATES[kind] * H)
    w = {"bias_ih": zero, "bias_hh": zero} | w
    trace = forward(kind, x.numpy()[None], h0.numpy(), c0.numpy(), w)
    dh, dc = rng.standard_normal((B, H)), rng.standard_normal((B, H)) * (kind == "lstm")
    gradients, _ = backward(trace, np.zeros((1, B, H)), dh, dc, w)
    if kind == "lstm":
        h, c = cell(x, (h0, c0))
        assert_close(c.numpy(), trace.c[1])
        ((h * dh).sum() + (c * dc).sum()).backward()
        assert c0.grad is not None
        assert_close(c0.grad.numpy(), gradients["c0"])
    else:
        h = cell(x, h0)
        (h * dh).sum().backward()
    assert_close(h.numpy(), trace.h[1])
    assert x.grad is not None and h0.grad is not None
    assert_close(x.grad.numpy(), gradients["x"][0])
    assert_close(h0.grad.numpy(), gradients["h0"])
    for name, p in cell.named_parameters():
        assert p.grad is not None
        assert_close(p.grad.numpy(), gradients[name])


@each_kind
@pytest.mark.parametrize("options", [{}, {"bias": False, "fused": False}])
def test_every_law_of_the_kit(kind: str, options: dict[str, Any]) -> None:
    given = [{"nonlinearity": f} for f in ("tanh", "relu", "sigmoid")] if kind == "rnn" else [{}]
    given += [{"forget_bias": 1.0}] if kind == "lstm" and not options else []
    for more in given:
        laws = check_recurrent(lambda more=more: CELLS[kind](3, 3, **options, **more), examples=5)
        assert set(laws) == EVERY | FORWARD | {"modes"}


@each_kind
def test_cells_without_a_batch_and_without_a_state(kind: str) -> None:
    cell = CELLS[kind](3, 4)
    x = tr.randn(2, 3)
    batch, one = cell(x), cell(x[0])
    if kind == "lstm":
        (batch, _), (one, c) = batch, one
        assert c.shape == (4,)
    assert one.shape == (4,)
    assert_close(one.numpy(), batch.numpy()[0], 1e-6)


@each_kind
def test_a_cell_refuses_what_does_not_fit(kind: str) -> None:
    cell = CELLS[kind](3, 4)
    name = type(cell).__name__
    with pytest.raises(ShapeError, match=f"{name}: input_size is 3.*axis is 5"):
        cell(tr.zeros(2, 5))
    with pytest.raises(ShapeError, match=f"{name}: the input must be"):
        cell(tr.zeros(2, 2, 3))
    bad = tr.zeros(3, 4)
    with pytest.raises(ShapeError, match=rf"{name}: h_0 must be \(B, hidden_size\) = \(2, 4\), got shape \(3, 4\)"):
        cell(tr.zeros(2, 3), (bad, bad) if kind == "lstm" else bad)
    with pytest.raises(DTypeError, match="float64"):
        cell(tr.zeros(2, 3, dtype="float64"))
    with pytest.raises(ValueError, match="hidden_size must be a positive integer"):
        type(cell)(3, 0)


def test_large_inputs_saturate_and_do_not_overflow() -> None:
    for kind in KINDS:
        inputs = step_inputs(kind, 2, 3, None, np.random.default_rng(0))
        inputs[0] = tr.Tensor(1e4 * inputs[0].numpy(), requires_grad=True)
        y = STEPS[kind](*inputs, **({"nonlinearity": "sigmoid"} if kind == "rnn" else {}))
        assert np.isfinite(y.numpy()).all()
        for d in tr.grad(y.sum(), inputs):
            assert np.isfinite(d.numpy()).all()
