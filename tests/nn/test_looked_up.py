"""A recurrent layer that is given ids and an embedding reads what the embedding would have given it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.errors import DTypeError, ShapeError

LAYERS = {"RNN": tr.nn.RNN, "LSTM": tr.nn.LSTM, "GRU": tr.nn.GRU}


def results(layer: Any, embedding: Any, x: Any, looked_up: bool, **options: Any) -> list[Any]:
    """Output, states and all gradients."""
    parameters = [*embedding.parameters(), *layer.parameters()]
    for p in parameters:
        p.grad = None
    output, state = layer(x, embedding=embedding, **options) if looked_up else layer(embedding(x), **options)
    states = state if isinstance(state, tuple) else (state,)
    weigh = np.random.default_rng(0).standard_normal
    loss = sum((tr.square(y) * weigh(y.shape)).sum() for y in (output, *states))
    loss.backward()
    return [output.numpy(), *(s.numpy() for s in states), *(p.grad.numpy() for p in parameters)]


@examples(dev=30, ci=60, thorough=500)
@given(
    kind=st.sampled_from(list(LAYERS)),
    T=st.integers(1, 6),
    B=st.integers(0, 3),
    V=st.integers(1, 30),  # few ids are looked up one by one
    padding=st.booleans(),
    lengths=st.booleans(),
    batch_first=st.booleans(),
    bidirectional=st.booleans(),
    layers=st.integers(1, 2),
    extras=st.sampled_from([{}, {"layer_norm": True}, {"fused": False}]),
    seed=st.integers(0, 2**16),
)
@example("LSTM", 6, 3, 5, True, True, False, True, 2, {}, 0)
@example("GRU", 6, 3, 5, True, True, True, False, 1, {"layer_norm": True}, 1)
def test_values_and_gradients_are_those_of_the_embedded_input(
    kind, T, B, V, padding, lengths, batch_first, bidirectional, layers, extras, seed
):
    rng = np.random.default_rng(seed)
    embedding = tr.nn.Embedding(V, 3, padding_idx=0 if padding else None, dtype="float64", generator=rng)
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first, **extras}
    layer = LAYERS[kind](3, 4, dtype="float64", generator=rng, **options)
    ids = rng.integers(0, V, (B, T) if batch_first else (T, B))
    given_lengths = {"lengths": rng.integers(1, T + 1, B)} if lengths and T and B else {}
    expected = results(layer, embedding, ids, False, **given_lengths)
    for found, wanted in zip(results(layer, embedding, ids, True, **given_lengths), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_one_sequence_and_a_state() -> None:
    embedding, layer = tr.nn.Embedding(3, 2), tr.nn.LSTM(2, 4)
    ids, state = np.array([0, 2, 1, 1]), (tr.ones(1, 4), tr.ones(1, 4))
    (found, _), (expected, _) = layer(ids, state, embedding=embedding), layer(embedding(ids), state)
    assert found.shape == (4, 4)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


def test_each_row_is_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    linear = tr.linear
    monkeypatch.setattr(
        "tinygrad_rnn.nn.recurrent_options.ops.linear", lambda x, *rest: rows.append(x.shape) or linear(x, *rest)
    )
    embedding, layer = tr.nn.Embedding(5, 2), tr.nn.RNN(2, 3)
    layer(np.zeros((7, 2), int), embedding=embedding)
    layer(np.zeros((2, 2), int), embedding=embedding)
    assert rows == [(5, 2), (2, 2, 2)]


def test_second_order_flows_through_the_table() -> None:
    rng = np.random.default_rng(0)
    layer = tr.nn.GRU(2, 3, dtype="float64", generator=rng)
    ids = rng.integers(0, 4, (5, 2))

    def loss(table: Any, looked_up: bool) -> Any:
        embedding = tr.nn.Embedding(4, 2, dtype="float64", generator=np.random.default_rng(1))
        object.__setattr__(embedding, "weight", table)
        output, _ = layer(ids, embedding=embedding) if looked_up else layer(embedding(ids))
        return tr.sin(output).sum()

    table = tr.Tensor(rng.standard_normal((4, 2)), requires_grad=True)
    v = tr.Tensor(rng.standard_normal((4, 2)))
    (found,), (expected,) = (tr.hvp(lambda t, way=way: loss(t, way), (table,), (v,)) for way in (True, False))
    assert np.any(expected.numpy())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.zeros((2, 3, 4), int), ShapeError, r"LSTM: the ids for embedding= must be \(T, B\).*got \(2, 3, 4\)"),
        (np.zeros((2, 3)), DTypeError, "Embedding: ids must be integers, got float64"),
        (np.full((2, 3), 5), ValueError, r"Embedding: id 5 \(element 0\) is out of range for 5 classes"),
    ],
)
def test_wrong_ids(ids: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tr.nn.LSTM(2, 4)(ids, embedding=tr.nn.Embedding(5, 2))


def test_a_wrong_table() -> None:
    with pytest.raises(ShapeError, match="LSTM, embedding=: input_size is 3, but the input's last axis is 2"):
        tr.nn.LSTM(3, 4)(np.zeros((2, 1), int), embedding=tr.nn.Embedding(5, 2))
    with pytest.raises(DTypeError, match="embedding=: the input is float64, but the weights are float32"):
        tr.nn.LSTM(2, 4)(np.zeros((2, 1), int), embedding=tr.nn.Embedding(5, 2, dtype="float64"))


def test_it_compiles() -> None:
    embedding, layer = tr.nn.Embedding(4, 2), tr.nn.LSTM(2, 3)
    optimizer = tr.optim.SGD([*embedding.parameters(), *layer.parameters()], lr=0.1)

    def step(ids: Any) -> Any:
        loss = tr.square(layer(ids, embedding=embedding)[0]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    batches = [np.random.default_rng(k).integers(0, 4, (6, 2)) for k in range(5)]
    start = {name: p.numpy().copy() for name, p in layer.state_dict().items()}
    table = embedding.weight.numpy().copy()
    plain = [step(ids).item() for ids in batches]
    layer.load_state_dict(start)
    embedding.weight.assign_(table)
    compiled = tr.compile(step)
    assert [compiled(ids).item() for ids in batches] == plain


class Scaled(tr.nn.Embedding):
    """An embedding that gives ten times its rows."""

    def forward(self, ids: Any) -> tr.Tensor:
        return super().forward(ids) * 10.0


class Noted(tr.nn.Embedding):
    """An embedding that is a plain one, but for a note."""

    note = "as it is"


def patched() -> Any:
    embedding = tr.nn.Embedding(4, 2)
    rows = embedding.forward
    embedding.forward = lambda ids: -rows(ids)  # type: ignore[method-assign]
    return embedding


@pytest.mark.parametrize("T", [1, 3, 8])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Scaled(4, 2),
        lambda: Scaled(4, 2, padding_idx=1),
        lambda: Noted(4, 2),
        patched,
        lambda: tr.nn.Sequential(tr.nn.Embedding(4, 2), tr.tanh),
        lambda: lambda ids: tr.ones(*tr.Tensor(ids).shape, 2),
    ],
)
def test_what_is_read_is_what_the_embedding_gives(make: Any, T: int) -> None:
    embedding, layer = make(), tr.nn.GRU(2, 3)
    ids = np.arange(2 * T).reshape(T, 2) % 4
    for x in (ids, ids.tolist(), tr.Tensor(ids), ids[:, 0]):
        found, expected = layer(x, embedding=embedding)[0], layer(embedding(x))[0]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


def test_an_embedding_of_another_width_says_so() -> None:
    with pytest.raises(ShapeError, match="embedding=: input_size is 2"):
        tr.nn.GRU(2, 3)([0, 1], embedding=Scaled(4, 5))
