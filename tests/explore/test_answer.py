"""What the page shows, beside the same from other ways: plain cells in a loop, weights of their own, `tbptt`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.explore.answer import answer, short
from tinygrad_rnn.explore.network import HalfSquaredErrors, network_of, sequences
from tinygrad_rnn.explore.settings import CHOICES, Settings
from tinygrad_rnn.explore.training import truncated_loss

SMALL = st.builds(
    Settings,
    **{name: st.sampled_from(values) for name, values in CHOICES.items()},
    steps=st.integers(1, 7),
    hidden=st.integers(1, 4),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
    k2=st.integers(1, 8),
    seed=st.integers(0, 9),
)


def by_hand(settings: Settings) -> tuple[list[tr.Tensor], list[tr.Tensor], list[tr.Tensor]]:
    """The losses of a loop with a weight for each step, those weights, and the zeros that are added to the states."""
    network = network_of(settings)
    layer, H = network.layer, settings.hidden
    x, y = sequences(settings, 1)
    weights = [tr.Tensor(network.weight_hh.numpy(), requires_grad=True) for _ in x]
    nothings = [tr.Tensor(np.zeros((1, H)), requires_grad=True) for _ in x]
    h = c = tr.Tensor(np.zeros((1, H)))
    losses = []
    for x_t, y_t, W, nothing in zip(x, y, weights, nothings, strict=True):
        a, b = tr.Tensor(x_t) @ layer.weight_ih_l0.T + layer.bias_ih_l0, layer.bias_hh_l0
        if settings.cell == "rnn":
            h = tr.nn.rnn_cell(a + b, h, W, nonlinearity=settings.nonlinearity)
        elif settings.cell == "lstm":
            h, c = tr.nn.lstm_cell(a + b, h, c, W)
        else:
            h = tr.nn.gru_cell(a + tr.concatenate([b[: 2 * H], 0 * b[2 * H :]]), h, W, b[2 * H :])
        h = h + nothing
        losses.append(tr.square(network.head(h) - y_t[0]).sum() / 2)
    return losses, weights, nothings


def close(shown: object, expected: object) -> bool:
    """Equal to the four digits that are shown."""
    return np.allclose(np.array(shown, float), np.asarray(expected, float), rtol=6e-4, atol=1e-12)


@given(SMALL)
@examples(dev=15, ci=40, thorough=200)
def test_every_number_of_the_gradient_is_that_of_a_loop_by_hand(settings: Settings) -> None:
    shown, T = answer(settings), settings.steps
    losses, weights, nothings = by_hand(settings)
    first = T - 1 if settings.loss == "last" else 0
    assert shown["ledger"]["first"] == first and len(shown["ledger"]["rows"]) == T - first
    table = np.zeros((T, T, *weights[0].shape))
    for t in range(first, T):
        found = tr.grad(losses[t], weights[: t + 1], retain_graph=True)
        table[t, : t + 1] = [g.numpy() for g in found]
        assert close(shown["ledger"]["rows"][t - first], np.linalg.norm(table[t, : t + 1], axis=(1, 2)))
    whole = table.sum(axis=(0, 1))
    assert close(shown["ledger"]["total"], np.linalg.norm(whole))
    uses = table.sum(axis=0)
    assert close(shown["sweep"]["uses"], np.linalg.norm(uses, axis=(1, 2)))
    assert close(shown["sweep"]["sofar"], [np.linalg.norm(uses[k:].sum(axis=0)) for k in range(T)])

    loss = sum(losses[first:], tr.Tensor(np.array(0.0)))
    total = np.concatenate([g.numpy() for g in tr.grad(loss, nothings, retain_graph=True)])
    assert close(shown["sweep"]["g"], total)
    assert close(shown["flow"]["states"], np.linalg.norm(total, axis=1))
    own = np.zeros_like(total)
    for t in range(first, T):
        own[t] = tr.grad(losses[t], nothings[t], retain_graph=True).numpy()[0]
    assert close(shown["sweep"]["direct"], np.linalg.norm(own, axis=1))
    assert np.allclose(shown["sweep"]["carried"], np.linalg.norm(total - own, axis=1), rtol=1e-3, atol=1e-9)
    assert close(shown["forward"]["losses"], [one.item() for one in losses[first:]])


@given(SMALL)
@examples(dev=15, ci=40, thorough=200)
def test_a_truncation_is_what_the_training_run_goes_by(settings: Settings) -> None:
    network, cut = network_of(settings), answer(settings)["ledger"]["truncated"]
    x, y = sequences(settings, 1)
    steps = settings.steps if settings.loss == "every" else 1  # a training run takes their mean
    gradient = tr.grad(truncated_loss(network, x, y, settings) * steps, network.weight_hh).numpy()
    whole = tr.grad(HalfSquaredErrors(settings.loss)(network(tr.Tensor(x)), y).sum(), network.weight_hh).numpy()
    k = min(settings.k2, settings.steps) - 1
    assert close(cut["norm"][k], np.linalg.norm(gradient))
    assert np.allclose(cut["cut"][k], np.linalg.norm(whole - gradient), rtol=1e-3, atol=1e-9)
    long, short_ = np.linalg.norm(whole), np.linalg.norm(gradient)
    if not long or not short_:
        assert cut["angle"][k] is None
    else:
        cosine = np.sum(gradient * whole) / long / short_
        assert np.allclose(cut["angle"][k], np.degrees(np.arccos(np.clip(cosine, -1, 1))), rtol=1e-3, atol=1e-4)
    assert cut["cut"][-1] == 0 and cut["angle"][-1] in (0, None)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gates_and_states_follow_the_equations(cell: str) -> None:
    shown = answer(Settings(cell=cell, steps=5, hidden=3))
    forward, gates = shown["forward"], {name: np.array(values) for name, values in shown["gates"].items()}
    h = np.array(forward["h"])
    before = np.concatenate([np.zeros((1, 3)), h[:-1]])
    if cell == "rnn":
        assert not gates and "c" not in forward
    elif cell == "lstm":
        c = np.array(forward["c"])
        assert list(gates) == ["i", "f", "g", "o"]
        expected = gates["f"] * np.concatenate([np.zeros((1, 3)), c[:-1]]) + gates["i"] * gates["g"]
        assert np.allclose(c, expected, atol=1e-3) and np.allclose(h, gates["o"] * np.tanh(c), atol=1e-3)
    else:
        assert list(gates) == ["r", "z", "n"]
        assert np.allclose(h, (1 - gates["z"]) * gates["n"] + gates["z"] * before, atol=1e-3)


@given(SMALL)
@examples(dev=15, ci=40, thorough=200)
def test_the_gradient_is_never_above_its_bound(settings: Settings) -> None:
    flow = answer(settings)["flow"]
    assert all(state <= bound * 1.001 + 1e-300 for state, bound in zip(flow["states"], flow["bound"], strict=True))
    assert all(r <= n * 1.001 for r, n in zip(flow["radii"], flow["norms"], strict=True))


@pytest.mark.parametrize("settings", [
    Settings("rnn", "relu", 64, 16, 3.0, "every"),
    Settings("rnn", "relu", 64, 4, 0.0, "every"),
    Settings("lstm", steps=64, hidden=16, scale=3.0, loss="every"),
    Settings("gru", steps=1, hidden=1, scale=0.0),
    Settings("rnn", "sigmoid", 64, 1, 3.0),
], ids=lambda one: one.query())  # fmt: skip
def test_the_ends_of_the_controls_have_an_answer(settings: Settings) -> None:
    shown = answer(settings)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["graph"].startswith("<svg ") and " style=" not in shown["graph"]  # which the policy would refuse


def test_an_answer_is_the_same_each_time_and_leaves_the_librarys_draws_alone() -> None:
    tr.manual_seed(3)
    expected = tr.randn(2).tolist()
    tr.manual_seed(3)
    assert answer(Settings("gru", steps=3)) == answer(Settings("gru", steps=3))
    assert tr.randn(2).tolist() == expected


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=4))
def test_numbers_are_shown_with_four_digits(values: list[float]) -> None:
    for value, shown in zip(values, short(values), strict=True):
        if not np.isfinite(value):
            assert shown is None
        else:
            assert shown == 0 if value == 0 else shown is None or abs(shown - value) <= 0.0006 * abs(value) + 1e-300
