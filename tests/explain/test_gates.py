"""The gates and states of a layer at every step, against the equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import tinygrad_rnn as tr
from tests.explain.layers import KINDS, Case, by_hand, cases
from tests.profiles import examples
from tests.reference import sigmoid
from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.explain import gates, watch

NAMES = {"RNN": ("h",), "GRU": ("r", "z", "n", "h"), "LSTM": ("i", "f", "g", "o", "c", "h")}
each_kind = pytest.mark.parametrize("kind", KINDS)


def series(*shape: int) -> Any:
    return tr.Tensor(np.random.default_rng(4).normal(size=shape))


@given(cases())
@examples(dev=10, ci=15, thorough=400)
def test_gates_and_states_are_those_of_the_equations(case: Case) -> None:
    found = gates(case.layer, case.x, case.hx, lengths=case.lengths)
    _, _, wanted = by_hand(case)
    assert [layer.name for layer in found] == list(wanted)
    for layer in found:
        assert layer.names == NAMES[type(case.layer).__name__]
        for name in layer.names:
            np.testing.assert_allclose(getattr(layer, name), wanted[layer.name][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fused", [True, False])
def test_an_lstm_by_numbers(fused: bool) -> None:
    lstm = tr.nn.LSTM(2, 2, dtype="float64", fused=fused)
    x = series(1, 1, 2)
    z = x.numpy()[0, 0] @ lstm.weight_ih_l0.numpy().T + lstm.bias_ih_l0.numpy() + lstm.bias_hh_l0.numpy()
    i, f, g, o = z.reshape(4, 2)
    (found,) = gates(lstm, x)
    for name, wanted in (("i", sigmoid(i)), ("f", sigmoid(f)), ("g", np.tanh(g)), ("o", sigmoid(o))):
        np.testing.assert_allclose(getattr(found, name)[0, 0], wanted, rtol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_a_gru_by_numbers(fused: bool) -> None:
    gru = tr.nn.GRU(2, 2, dtype="float64", fused=fused)
    x, h = series(1, 1, 2), series(1, 1, 2)
    a, b = x.numpy()[0, 0] @ gru.weight_ih_l0.numpy().T, h.numpy()[0, 0] @ gru.weight_hh_l0.numpy().T
    (a_r, a_z, a_n), (b_r, b_z, b_n) = (
        (a + gru.bias_ih_l0.numpy()).reshape(3, 2),
        (b + gru.bias_hh_l0.numpy()).reshape(3, 2),
    )
    r, z = sigmoid(a_r + b_r), sigmoid(a_z + b_z)
    (found,) = gates(gru, x, h)
    for name, wanted in (("r", r), ("z", z), ("n", np.tanh(a_n + r * b_n))):
        np.testing.assert_allclose(getattr(found, name)[0, 0], wanted, rtol=1e-12)


@each_kind
@pytest.mark.parametrize("layer_norm", [True, False])
def test_a_cell_has_the_gates_of_the_layer(kind: str, layer_norm: bool) -> None:
    cell = getattr(tr.nn, f"{kind}Cell")(3, 4, layer_norm=layer_norm)
    layer = KINDS[kind](3, 4, layer_norm=layer_norm)
    for name, p in cell.named_parameters():
        getattr(layer, f"{name}_l0").assign_(p.numpy())
    x = tr.randn(5, 2, 3)
    (by_cell,), (by_layer,) = gates(cell, x), gates(layer, x)
    for name in NAMES[kind]:
        assert getattr(by_cell, name).dtype == np.float32
        np.testing.assert_allclose(getattr(by_cell, name), getattr(by_layer, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(by_layer.h, layer(x)[0].numpy())
    assert gates(cell, x[:, 0])[0].h.shape == (5, 1, 4)


@each_kind
def test_the_layer_and_the_generator_stay_as_they_are(kind: str) -> None:
    layer = KINDS[kind](3, 4, 2, dropout=0.5, recurrent_dropout=0.5, fused=False)
    x = tr.randn(5, 2, 3)
    before, draws = dict(vars(layer)), tr.tensor.random.generator().bit_generator.state
    found = gates(layer, x)
    assert vars(layer) == before and layer.training
    assert tr.tensor.random.generator().bit_generator.state == draws
    np.testing.assert_array_equal(found[1].h, layer.eval()(x)[0].numpy())


def test_ids_and_sequences_that_end() -> None:
    embedding, gru = tr.nn.Embedding(5, 3), tr.nn.GRU(3, 4, batch_first=True)
    ids = np.array([[0, 1, 2, 3], [4, 0, 0, 0]])
    (found,) = gates(gru, ids, lengths=[2, 3], embedding=embedding)
    (wanted,) = gates(gru, embedding(ids), lengths=[2, 3])
    np.testing.assert_allclose(found.z, wanted.z, rtol=1e-6)
    assert found.h.shape == (4, 2, 4) and np.isnan(found.h[2:, 0]).all() and not np.isnan(found.h[2, 1]).any()


@each_kind
def test_gates_of_a_model_that_was_watched_are_as_they_were(kind: str) -> None:
    layer = KINDS[kind](3, 4, 2, dropout=0.5, recurrent_dropout=0.5)
    model = tr.nn.Sequential(tr.nn.Linear(2, 3), layer)
    with watch() as seen:
        output, _ = model(tr.randn(5, 2, 2))
    found = seen.gates(layer)
    np.testing.assert_array_equal(found[1].h, output.numpy())
    assert found[1].title == "1.l1" and len(seen.gates()) == 2
    with pytest.raises(TypeError, match=r"not a Sequential; of a whole model: .* seen\.gates"):
        gates(model, tr.randn(5, 2, 2))


def test_names_that_are_not_there() -> None:
    (found,) = gates(tr.nn.GRU(3, 4), tr.randn(2, 1, 3))
    with pytest.raises(AttributeError, match="GRU: there is no 'f' among its gates, r, z, n, h"):
        found.f  # noqa: B018
    assert "z" in dir(found)


def test_they_are_printed_drawn_and_shown_in_a_notebook(tmp_path: Path) -> None:
    found = gates(tr.nn.LSTM(3, 4, bidirectional=True), tr.randn(6, 2, 3), lengths=[6, 3])
    assert len(str(found).splitlines()) == 2 * 8 + 1 and "|c|" in str(found)
    assert found._repr_html_().count("<tr>") == 14
    found[1:].plot("a $b$\n", tmp_path / "gates.png")
    found.plot(["a", "b", "long word"], tmp_path / "unit.png", sequence=1, unit=2)
    assert min((tmp_path / name).stat().st_size for name in ("gates.png", "unit.png")) > 10_000
    with pytest.raises(IndexError, match="gates: unit 4 of 4"):
        found.plot(unit=4)
    with pytest.raises(IndexError, match="gates: sequence 2 of 2"):
        found.plot(sequence=2)
    with pytest.raises(ShapeError, match="2 labels for the 6 steps of sequence 0"):
        found.plot("ab")
