"""The flow of gradients: dL/dh_t against probes, step Jacobians against `jacobian`, bounds that hold, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import tinygrad_rnn as tr
from tests.explain.layers import KINDS, Case, by_hand, cases
from tests.profiles import examples
from tinygrad_rnn.errors import GraphFreedError, ShapeError
from tinygrad_rnn.explain import gates, gradient_flow, watch

each_kind = pytest.mark.parametrize("kind", KINDS)


def close(found: Any, wanted: Any) -> None:
    size = np.nanmax(np.abs(wanted), initial=1.0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * size)


def flow_of(case: Case) -> Any:
    return gradient_flow(case.layer, case.x, case.loss, case.hx, lengths=case.lengths)


def made(kind: str, H: int = 4, **options: Any) -> Any:
    return KINDS[kind](3, H, dtype="float64", generator=np.random.default_rng(3), **options)


def series(*shape: int) -> Any:
    return tr.Tensor(np.random.default_rng(4).normal(size=shape))


def last(output: Any) -> Any:
    return tr.square(output[-1]).sum()


# --- dL/dh_t --------------------------------------------------------------------------------------


@given(cases())
@examples(dev=10, ci=15, thorough=600)
def test_it_is_the_derivative_by_every_state_of_every_layer(case: Case) -> None:
    flow = flow_of(case)
    output, probes, _ = by_hand(case)
    gradients = dict(zip(probes, tr.grad(case.loss(output), list(probes.values())), strict=True))
    there = np.arange(case.x.shape[0])[:, None, None] < np.array(case.ends)[:, None]
    for layer in flow:
        for name, found in (("h", layer.dh), ("c", layer.dc)):
            if found is not None:
                close(found, np.where(there, gradients[f"{name} {layer.name}"].numpy(), np.nan))
    assert len(flow) * (2 if case.layer.gates == 4 else 1) == len(probes)


@given(cases())
@examples(dev=10, ci=10, thorough=400)
def test_no_gradient_is_above_its_bound_and_the_recursion_behind_it_holds(case: Case) -> None:
    for layer in flow_of(case):
        states = layer.states[~np.isnan(layer.states)]
        bound = layer.bound[~np.isnan(layer.states)]
        assert (states <= bound * (1 + 1e-9) + 1e-12 * np.nanmax(layer.states)).all()
        assert (np.nan_to_num(layer.norms) <= np.nan_to_num(layer.step_bounds) * (1 + 1e-9)).all()
        assert (np.nan_to_num(layer.radii) <= np.nan_to_num(layer.norms) * (1 + 1e-9)).all()


@each_kind
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"bidirectional": True, "num_layers": 2}], ids=str)
def test_fused_and_plain_have_the_same_flow(kind: str, options: dict[str, Any]) -> None:
    found = []
    for fused in (True, False):
        layer = made(kind, **options, fused=fused)
        flow = gradient_flow(layer, series(5, 3, 3), lambda y: tr.square(y).sum(), lengths=[2, 5, 4])
        found.append(
            [v for x in flow for v in (x.dh, x.dc, x.jacobians, x.bound, x.carried, x.explicit) if v is not None]
        )
    for fused_value, plain_value in zip(*found, strict=True):
        close(fused_value, plain_value)


def test_the_loss_of_a_whole_model_and_a_state_that_it_does_not_reach() -> None:
    lstm, head = made("LSTM"), tr.nn.Linear(4, 2, dtype="float64")
    with watch() as seen:
        output, (h_n, _) = lstm(series(5, 2, 3))
        early, late = tr.square(head(output[2])).sum(), tr.square(head(h_n[0])).sum()
    (flow,) = seen.gradient_flow(early)
    assert (flow.dh[3:] == 0).all() and (flow.states[:3] > 0).all()
    (flow,) = seen.gradient_flow(late, lstm)
    assert (flow.states > 0).all()
    late.backward()
    with pytest.raises(GraphFreedError):
        seen.gradient_flow(late)


def test_retain_grad_of_the_output_shows_the_way_through_the_output_alone() -> None:
    rnn = made("RNN")
    output, _ = rnn(series(4, 1, 3))
    output.retain_grad()
    last(output).backward()
    assert (output.grad.numpy()[:-1] == 0).all()
    assert (gradient_flow(rnn, series(4, 1, 3), last)[0].states > 1e-3).all()


def test_no_gradient_is_left_behind() -> None:
    layer = made("GRU")
    gradient_flow(layer, series(3, 2, 3), last)
    assert all(p.grad is None for p in layer.parameters())


def test_sequences_of_any_lengths_have_the_gradients_that_each_has_alone() -> None:
    layer, x = made("LSTM", bidirectional=True), series(5, 3, 3)
    flow = gradient_flow(layer, x, lambda y: tr.square(y).sum(), lengths=[2, 5, 4])
    for b, end in enumerate([2, 5, 4]):
        alone = gradient_flow(layer, x[:end, b], lambda y: tr.square(y).sum())
        for both, one in zip(flow, alone, strict=True):
            close(both.dh[:end, b], one.dh[:, 0])
            assert np.isnan(both.dh[end:, b]).all()


# --- cells, and calls one after the other ------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_a_cell_in_a_loop_is_the_layer(kind: str, fused: bool, layer_norm: bool) -> None:
    layer = made(kind, layer_norm=layer_norm)
    cell = getattr(tr.nn, f"{kind}Cell")(3, 4, dtype="float64", fused=fused, layer_norm=layer_norm)
    for name, p in cell.named_parameters():
        p.assign_(getattr(layer, f"{name}_l0").numpy())
    x = series(4, 2, 3)
    (wanted,) = gradient_flow(layer, x, last)
    (found,) = gradient_flow(cell, x, last)
    hx = None
    with watch() as seen:
        for x_t in x:
            hx = cell(x_t, hx)
        loss = tr.square(hx[0] if isinstance(hx, tuple) else hx).sum()
    (by_loop,) = seen.gradient_flow(loss)
    for flow in (found, by_loop):
        close(flow.dh, wanted.dh)
        close(flow.jacobians, wanted.jacobians)
        close(flow.bound, wanted.bound)
        assert kind != "LSTM" or np.allclose(flow.dc, wanted.dc, rtol=1e-12)


@each_kind
def test_a_call_that_goes_on_from_the_state_of_another_belongs_to_it(kind: str) -> None:
    layer, x = made(kind, num_layers=2), series(6, 2, 3)
    wanted = gradient_flow(layer, x, last)
    with watch() as seen:
        _, state = layer(x[:4])
        output, _ = layer(x[4:], state)
        loss = last(output)
    flow = seen.gradient_flow(loss)
    assert len(flow) == 2
    for a, b in zip(flow, wanted, strict=True):
        close(a.dh, b.dh)
        close(a.bound, b.bound)
        assert a.arrives == pytest.approx(b.arrives)


def test_a_state_that_was_detached_begins_anew() -> None:
    layer, x = made("RNN"), series(6, 2, 3)
    with watch() as seen:
        _, state = layer(x[:4])
        loss = last(layer(x[4:], state.detach())[0])
    first, second = seen.gradient_flow(loss)
    assert first.state == "none" and second.T == 2 and second.title == "RNN.l0, call 1"


def test_a_call_that_begins_with_another_state_begins_anew() -> None:
    layer, x = made("RNN"), series(6, 2, 3)
    with watch() as seen:
        _, state = layer(x[:4])
        loss = last(layer(x[4:], state * 0.5)[0])
    assert [flow.T for flow in seen.gradient_flow(loss)] == [4, 2]


# --- step by step -----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("layer_norm", [True, False])
def test_a_step_jacobian_is_that_of_the_cell(kind: str, layer_norm: bool) -> None:
    layer, x = made(kind, layer_norm=layer_norm), series(3, 2, 3)
    cell = getattr(tr.nn, f"{kind}Cell")(3, 4, dtype="float64", layer_norm=layer_norm)
    for name, p in cell.named_parameters():
        p.assign_(getattr(layer, f"{name}_l0").numpy())
    (flow,) = gradient_flow(layer, x, last)
    state = None
    for t in range(2):
        state = cell(x[t], state)
    parts = state if isinstance(state, tuple) else (state,)

    def step(s: Any) -> Any:
        given = tuple(tr.split(s, 2)) if kind == "LSTM" else s
        after = cell(x[2, 1], given)
        return tr.concatenate(after) if kind == "LSTM" else after

    wanted = tr.jacobian(step)(tr.concatenate([s[1] for s in parts])).numpy()
    close(flow.jacobians[2, 1], wanted)
    assert flow.norms[2, 1] == pytest.approx(np.linalg.svd(wanted)[1][0])
    assert flow.radii[2, 1] == pytest.approx(np.abs(np.linalg.eigvals(wanted)).max())


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid"])
def test_the_bound_of_a_loss_on_the_last_state_is_the_product_of_the_textbook(nonlinearity: str) -> None:
    layer = made("RNN", nonlinearity=nonlinearity)
    (flow,) = gradient_flow(layer, series(5, 1, 3), last)
    close(flow.explicit[:-1], np.zeros(4))
    h, W = layer(series(5, 1, 3))[0].numpy()[:, 0], layer.weight_hh_l0.numpy()
    slope = {"tanh": 1 - h**2, "relu": h > 0, "sigmoid": h * (1 - h)}[nonlinearity].max(axis=1)
    close(flow.step_bounds[:, 0], slope * np.linalg.norm(W, 2))
    for t in range(5):
        assert flow.bound[t] == pytest.approx(flow.states[-1] * np.prod(flow.step_bounds[t + 1 :, 0]))
    close(flow.carried, flow.states)


def test_what_is_carried_is_of_the_gradient_at_the_last_step_alone() -> None:
    layer, x = made("GRU"), series(5, 2, 3)
    (flow,) = gradient_flow(layer, x, lambda y: tr.square(y).sum())
    (alone,) = gradient_flow(layer, x, last)
    close(flow.carried, alone.states)
    assert flow.arrives == pytest.approx(alone.states[0] / alone.states[-1])


def test_what_is_left_is_counted_from_the_end_of_each_sequence() -> None:
    layer, x = made("RNN"), series(5, 3, 3)
    (flow,) = gradient_flow(layer, x, lambda y: tr.square(y).sum(), lengths=[5, 2, 4])
    squares, ends = np.zeros(5), np.zeros(5)
    for b, end in enumerate([5, 2, 4]):
        (alone,) = gradient_flow(layer, x[:end, b], lambda y: tr.square(y[-1]).sum())
        squares[:end] += alone.states[::-1] ** 2
        ends[:end] += alone.states[-1] ** 2
    close(flow.left, np.sqrt(squares / ends))


def test_a_mask_of_recurrent_dropout_is_in_the_bound() -> None:
    tr.manual_seed(2)
    layer = made("RNN", recurrent_dropout=0.5)
    (flow,) = gradient_flow(layer, series(6, 3, 3), last)
    assert (flow.states <= flow.bound * (1 + 1e-9)).all()
    assert (flow.norms <= flow.step_bounds * (1 + 1e-9)).all()
    assert flow.norms.max() > np.linalg.norm(layer.weight_hh_l0.numpy(), 2)  # which without the mask would be less


# --- verdicts ---------------------------------------------------------------------------------------


def scaled(factor: float, nonlinearity: str = "relu") -> Any:
    """An RNN whose state goes on as it is, times a factor."""
    rnn = made("RNN", nonlinearity=nonlinearity)
    rnn.weight_hh_l0.assign_(factor * np.eye(4))
    rnn.weight_ih_l0.assign_(np.abs(rnn.weight_ih_l0.numpy()))
    return rnn


@pytest.mark.parametrize(
    ("factor", "state", "words"),
    [
        (0.5, "vanishes", "orthogonal"),
        (1.0, "holds", "the gradient at the last step holds"),
        (2.0, "explodes", "clip_grad_norm_"),
    ],
)
def test_the_verdict(factor: float, state: str, words: str) -> None:
    (flow,) = gradient_flow(scaled(factor), tr.ones(9, 1, 3, dtype="float64"), last)
    assert flow.arrives == pytest.approx(factor**8)
    assert flow.left == pytest.approx(factor ** np.arange(9)) and flow.reach == (6 if factor < 1 else 8)
    assert flow.state == state and words in flow.verdict() and f"({factor:.2g} a step)" in flow.verdict()


def test_a_gradient_that_would_vanish_over_more_steps_fades() -> None:
    (flow,) = gradient_flow(scaled(0.5), tr.ones(4, 1, 3, dtype="float64"), last)
    assert flow.state == "holds" and "the gradient at the last step fades: 12 %" in flow.verdict()
    assert flow.verdict().endswith("(0.5 a step), so that less than 1 % would be left after 7 steps.")


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_state_that_is_not_finite_is_refused(kind: str) -> None:
    x = tr.Tensor(np.full((4, 1, 3), np.nan))
    for look in (lambda: gradient_flow(made(kind), x, last), lambda: gates(made(kind), x)):
        with pytest.raises(tr.errors.NonFiniteError, match=f"{kind}.l0: its states hold a NaN"):
            look()


def test_the_verdict_is_not_fooled_by_a_loss_at_every_step() -> None:
    (flow,) = gradient_flow(scaled(0.5), tr.ones(9, 1, 3, dtype="float64"), lambda y: y.sum())
    assert flow.states.min() >= 1 and flow.state == "vanishes"


def test_a_gradient_of_which_little_is_left_does_not_hold() -> None:
    (flow,) = gradient_flow(scaled(0.95), tr.ones(60, 1, 3, dtype="float64"), last)
    assert flow.state == "holds" and "the gradient at the last step fades slowly: 4.8 % of it arrives" in flow.verdict()
    (flow,) = gradient_flow(scaled(0.95), tr.ones(30, 1, 3, dtype="float64"), last)
    assert "the gradient at the last step holds: 23 % of it arrives" in flow.verdict()


def test_the_table_shows_what_the_verdict_goes_by() -> None:
    x = tr.ones(9, 1, 3, dtype="float64")
    (every,) = gradient_flow(scaled(0.5), x, lambda y: y.sum())
    close(every.columns()["carried"], every.carried)
    assert "carried: of the gradient at the last step alone, by which the verdict goes" in str(every)
    (alone,) = gradient_flow(scaled(0.5), x, last)
    assert "carried" not in alone.columns()


def test_of_sequences_of_many_lengths_it_is_said_whose_verdict_it_is() -> None:
    rnn, x = scaled(0.5), tr.ones(9, 3, 3, dtype="float64")
    said = [str(gradient_flow(rnn, x, lambda y: y.sum(), lengths=n)[0]) for n in ([9, 2, 4], [9, 9, 4], [9, 9, 9])]
    assert "8 steps before, in the longest of 3 sequences (0.5" in said[0] and "of the longest" in said[0]
    assert "8 steps before, in the 2 longest of 3 sequences (0.5" in said[1]
    assert "8 steps before (0.5" in said[2] and "longest" not in said[2]


# --- what helps -------------------------------------------------------------------------------------


def turned(factor: float, nonlinearity: str) -> Any:
    """An RNN with an orthogonal W_hh times a factor."""
    rnn = made("RNN", nonlinearity=nonlinearity)
    rnn.weight_hh_l0.assign_(factor * np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0])
    return rnn


def advice(layer: Any, x: Any) -> str:
    (flow,) = gradient_flow(layer, x, last)
    return str(flow.verdict().partition("; ")[2])


def test_no_orthogonal_weights_are_advised_where_they_are() -> None:
    x = series(40, 1, 3) * 4
    said = advice(turned(1.0, "tanh"), x)
    assert said.startswith("W_hh is orthogonal, but the slopes f' of tanh are 0.")
    assert "what helps: smaller inputs or weights of the input, relu, nn.LSTM, nn.GRU or layer_norm=True." in said
    steep = turned(1.0, "tanh")
    for bias in (steep.bias_ih_l0, steep.bias_hh_l0):
        bias.assign_(np.zeros(4))
    said = advice(steep, series(300, 1, 3) * 0.3)
    assert said.startswith("W_hh is orthogonal, but the slopes f' of tanh are 0.9")  # 300 steps are many
    said = advice(turned(0.5, "tanh"), x * 0.01)
    assert said.startswith("what helps: a larger W_hh (it is orthogonal but for its norm, 0.5), nn.LSTM")
    said = advice(turned(0.5, "tanh"), x)
    assert "norm, 0.5), smaller inputs" in said and said.startswith("the slopes f' of tanh are 0.")
    said = advice(made("RNN"), x * 0.01)
    assert said.startswith("what helps: W_hh orthogonal at first (tr.nn.init.orthogonal_), nn.LSTM")
    assert "tanh (its slope is up to 1)" in advice(turned(1.0, "sigmoid"), x)
    assert "W_hh the identity at first" in advice(turned(1.0, "relu"), x)
    assert "a smaller W_hh (its norm is 3)" in advice(scaled(3.0), tr.ones(9, 1, 3, dtype="float64"))


@pytest.mark.parametrize(("kind", "gate"), [("LSTM", "f"), ("GRU", "z")])
def test_a_larger_bias_of_the_gate_is_advised_where_the_gate_is_not_open(kind: str, gate: str) -> None:
    layer, x = made(kind), series(60, 1, 3)
    (flow,) = gradient_flow(layer, x, last)
    kept, needed = gates(layer, x)[0].means()[gate].mean(), 0.01 ** (1 / 59)
    more = np.log(needed / (1 - needed)) - np.log(kept / (1 - kept))
    assert f"; {gate} is {kept:.2g} in the mean, and {needed:.2g} would keep 1 %; what helps: " in flow.verdict()
    assert f" larger by {np.ceil(10 * more) / 10:g} or layer_norm=True" in flow.verdict()


def test_no_larger_bias_is_advised_where_the_forget_gate_is_open() -> None:
    lstm, x = made("LSTM", forget_bias=9.0), tr.ones(60, 1, 3, dtype="float64")
    weights = np.ones((16, 3))
    weights[4:8] = 0
    lstm.weight_ih_l0.assign_(weights)  # c grows at each step, and tanh(c) is flat
    said = advice(lstm, x)
    assert said.startswith("f is 1 in the mean, open enough; what helps: smaller inputs or") and "bias" not in said


def test_where_there_is_nothing_to_say() -> None:
    (flow,) = gradient_flow(made("RNN"), series(1, 1, 3), last)
    assert flow.state == "none" and "one step only" in flow.verdict()
    (flow,) = gradient_flow(made("RNN"), series(4, 1, 3), lambda y: y[1].sum())
    assert flow.state == "none" and "no gradient comes to its last step, but to t = 1: give it" in str(flow)
    assert "the steps up to that alone, x[:2]." in str(flow)
    (_, back) = gradient_flow(made("RNN", bidirectional=True), series(4, 1, 3), lambda y: y[2, 0, 4:].sum())
    assert "to t = 2: give it the steps up to that alone, x[2:]." in back.verdict()
    (flow,) = gradient_flow(made("RNN"), series(4, 1, 3), lambda y: (y * 0).sum())
    assert "to any of its steps; does the loss depend on what it returns?" in flow.verdict()


# --- shown ------------------------------------------------------------------------------------------


def test_it_is_printed_drawn_and_shown_in_a_notebook(tmp_path: Path) -> None:
    flow = gradient_flow(made("LSTM", bidirectional=True), series(40, 2, 3), last, lengths=[40, 3])
    text = str(flow)
    assert (
        text.count("bound") == 4
        and "; radius: its spectral radius; bars:" in text
        and "   39 " in text
        and len(text.splitlines()) < 60
    )
    assert flow["l0_reverse"] is flow[1] and flow["LSTM.l0"] is flow[0] and len(flow[:1]) == 1
    flow[:1].plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    assert flow._repr_html_().count("<tr>") == 2 * 41


def test_jacobians_that_take_long_are_left_out_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygrad_rnn.explain.flow.AT_ONCE", 10)
    (flow,) = gradient_flow(made("LSTM"), series(3, 1, 3), last)
    assert list(flow.columns()) == ["|dL/dh|", "|dL/dc|", "carried"]
    (flow,) = gradient_flow(made("RNN"), series(3, 1, 3), last)
    assert list(flow.columns()) == ["|dL/dh|", "bound", "step"]
    assert "norms, radii and jacobians would take a while" in str(flow)


# --- what is refused --------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    layer, x = made("RNN"), series(3, 2, 3)
    with pytest.raises(ShapeError, match=r"must be a scalar tensor, got shape \(3, 2, 4\)"):
        gradient_flow(layer, x, lambda y: y)
    for wrong in (tr.ones(()), 2.0):
        with pytest.raises(
            TypeError, match=r"must be a function of the output, such as lambda output: .*, not a (T|f)"
        ):
            gradient_flow(layer, x, wrong)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match=r"no 'l1', but 'RNN\.l0'"):
        gradient_flow(layer, x, last)["l1"]
    with watch() as seen:
        tr.nn.Linear(3, 2, dtype="float64")(x)
        loss = layer.forward(x)[0].sum()
    with pytest.raises(ValueError, match="past the watch: call the layer itself"):
        seen.gradient_flow(loss)
    with pytest.raises(ValueError, match="this LSTM was not called"):
        seen.gradient_flow(loss, made("LSTM"))
    with pytest.raises(ValueError, match=r"a cell knows no lengths; give nn\.RNN"):
        gradient_flow(tr.nn.RNNCell(3, 4, dtype="float64"), x, last, lengths=[1, 2])
    with pytest.raises(TypeError, match=r"not a Linear; of a whole model: .* seen\.gradient_flow"):
        gradient_flow(tr.nn.Linear(3, 4, dtype="float64"), x, last)
    for p in layer.parameters():
        p.requires_grad = False
    with pytest.raises(RuntimeError, match=r"RNN\.l0 have no graph"):
        gradient_flow(layer, x, lambda y: (y * tr.ones(1, dtype="float64", requires_grad=True)).sum())


class _Odd(tr.nn.RNN):
    def _unroll(self, x: Any, *others: Any) -> Any:
        y, end = super()._unroll(x * 2, *others)
        return y, end


def test_a_layer_with_other_equations_is_refused() -> None:
    (flow,) = gradient_flow(_Odd(3, 4, dtype="float64"), series(3, 2, 3), last)
    assert flow.states.shape == (3,)  # of any graph
    with pytest.raises(ValueError, match="its steps are not those of the equations of RNN"):
        flow.explicit  # noqa: B018
