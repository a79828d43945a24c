"""A recurrent layer that is given ids and an embedding reads what the embedding would have given it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.errors import CompileError, DTypeError, GraphFreedError, NonFiniteError, ShapeError
from tinygrad_rnn.nn.looked_up import LookedUp
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.graph import Shortcut

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


# --- as people write it: layer(embedding(ids)) ------------------------------------------------------------------------


def tripled(g: tr.Tensor) -> tr.Tensor:
    return g * 3


def run(layer: Any, embedding: Any, ids: Any, look: str, plain: bool = False) -> dict[str, Any]:
    """Output and gradients; with `plain` x is what the embedding gives, but no longer known to be looked up. `look` is
    how somebody looks at x.
    """
    for p in (*embedding.parameters(), *layer.parameters()):
        p.grad = None
    x = embedding(ids)
    if plain:
        x = x * 1.0
    assert isinstance(x, LookedUp) is not plain
    seen = []
    if look == "keep":
        x.retain_grad()
    if look == "hook":
        x.register_hook(lambda g: seen.append(g.numpy()))
    if look == "replace":
        x.register_hook(tripled)
    output = layer(x)[0]
    if look == "twice":
        output = output + layer(x)[0]
    loss = (output * np.random.default_rng(0).standard_normal(output.shape)).sum()
    if look == "elsewhere":
        loss = loss + tr.sin(x).sum()
    found = {"output": output.numpy()}
    if look == "asked":
        weight = layer.weight_ih_l0
        dx, dW, dT = tr.grad(loss, (x, weight, embedding.weight), retain_graph=True)
        found |= {"dx": dx.numpy(), "dW": dW.numpy(), "dT": dT.numpy(), "x alone": tr.grad(loss, x).numpy()}
        return found
    if look == "late":
        x.retain_grad()
    if look == "during":
        output.register_hook(lambda g: x.retain_grad())
    loss.backward()
    if look in ("keep", "late", "during"):
        found["dx"] = x.grad.numpy()
    if look == "hook":
        found["dx"] = seen[0]
    return found | {str(k): p.grad.numpy() for k, p in enumerate((*embedding.parameters(), *layer.parameters()))}


LOOKS = ("no", "keep", "late", "during", "hook", "replace", "twice", "elsewhere", "asked")


@examples(dev=60, ci=120, thorough=800)
@given(
    kind=st.sampled_from(list(LAYERS)),
    look=st.sampled_from(LOOKS),
    T=st.integers(1, 6),
    B=st.integers(1, 3),
    V=st.integers(1, 6),
    padding=st.booleans(),
    single=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "batch_first": st.booleans(),
            "bidirectional": st.booleans(),
            "num_layers": st.integers(1, 2),
            "bias": st.booleans(),
            "fused": st.booleans(),
            "layer_norm": st.booleans(),
        }
    ),
    seed=st.integers(0, 2**16),
)
def test_whoever_looks_at_x_sees_what_there_was(kind, look, T, B, V, padding, single, options, seed) -> None:
    rng = np.random.default_rng(seed)
    embedding = tr.nn.Embedding(V, 3, padding_idx=0 if padding else None, dtype="float64", generator=rng)
    layer = LAYERS[kind](3, 4, dtype="float64", generator=rng, **options)
    shape = (max(T, V),) if single else (B, max(T, V)) if options["batch_first"] else (max(T, V), B)
    ids = rng.integers(0, V, shape)
    found, expected = run(layer, embedding, ids, look), run(layer, embedding, ids, look, plain=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def small(kind: str = "GRU", V: int = 4, **options: Any) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(5)
    embedding = tr.nn.Embedding(V, 2, dtype="float64", generator=rng)
    return embedding, LAYERS[kind](2, 3, dtype="float64", generator=rng, **options), rng.integers(0, V, (5, 2))


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}, {"num_layers": 2}])
def test_the_gradient_of_x_is_formed_for_those_alone_who_look_at_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    formed = []
    plain = Shortcut.__init__

    def noted(self: Shortcut, array: Any, beyond: Any, origin: Any) -> None:
        plain(self, lambda: formed.append(1) or array(), beyond, origin)

    monkeypatch.setattr(Shortcut, "__init__", noted)
    embedding, layer, ids = small(**options)
    for look in LOOKS:
        formed.clear()
        run(layer, embedding, ids, look)
        assert bool(formed) is (look not in ("no", "twice")), look
    formed.clear()
    tr.grad(layer(embedding(ids))[0].sum(), embedding.weight)
    assert not formed


def test_each_row_is_multiplied_once_as_people_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    dot, linear = backend.dot, tr.linear
    monkeypatch.setattr("tinygrad_rnn.kernels.looked_up.dot", lambda a, b: rows.append(len(a)) or dot(a, b))
    monkeypatch.setattr("tinygrad_rnn.tensor.sweep.dot", lambda a, b: rows.append(a.shape[1]) or dot(a, b))
    monkeypatch.setattr("tinygrad_rnn.tensor.ops.linear", lambda x, *rest: rows.append(x.shape) or linear(x, *rest))
    embedding, layer, ids = small("RNN")
    layer(embedding(ids))[0].sum().backward()
    assert sorted(map(str, rows)) == sorted(map(str, [(4, 2), 4, 4, 10]))  # forwards, to both, and W_hh over all steps


def test_few_ids_are_looked_up_one_by_one() -> None:
    for V, kind in ((10, LookedUp), (11, tr.Tensor)):
        embedding, _, ids = small(V=V)
        assert type(embedding(ids)) is kind


def test_what_is_known_of_x_is_lost_where_it_is_changed() -> None:
    embedding, _, ids = small()
    x = embedding(ids)
    for y in (
        x + 0,
        x.detach(),
        tr.nn.functional.dropout(x, 0.5),
        x[1:],
        x.astype("float32"),
        tr.checkpoint(embedding, ids),
    ):
        assert type(y) is tr.Tensor
    with tr.no_grad():
        assert type(embedding(ids)) is tr.Tensor
    embedding.weight.requires_grad = False
    assert type(embedding(ids)) is tr.Tensor
    assert type(tr.nn.Embedding(4, 2, dtype="float16")(ids)) is tr.Tensor


def test_second_order_flows_through_what_was_looked_up() -> None:
    embedding, layer, ids = small(bidirectional=True)
    second = []
    for plain in (False, True):
        x = embedding(ids)
        loss = tr.sin(layer(x * 1.0 if plain else x)[0]).sum()
        wanted = (x, embedding.weight, layer.weight_ih_l0)
        slopes = tr.grad(loss, wanted, create_graph=True)
        second.append(tr.grad(sum((tr.square(s)).sum() for s in slopes), (*wanted, layer.weight_hh_l0)))
    for found, expected in zip(*second, strict=True):
        assert np.any(expected.numpy())
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9, atol=1e-12)


def test_a_checkpoint_between_or_around() -> None:
    embedding, layer, ids = small()
    gradients = []
    for way in ("plain", "around", "between", "looked at"):
        embedding.weight.grad = layer.weight_ih_l0.grad = None
        x = embedding(ids)
        if way == "looked at":
            x.retain_grad()
        if way == "around":
            y = tr.checkpoint(lambda: layer(embedding(ids))[0])
        elif way == "between" or way == "looked at":
            y = tr.checkpoint(lambda x=x: layer(x)[0])
        else:
            y = layer(x * 1.0)[0]
        tr.sin(y).sum().backward()
        gradients.append((embedding.weight.grad.numpy(), layer.weight_ih_l0.grad.numpy()))
        if way == "looked at":
            assert np.any(x.grad.numpy())
    for found in gradients[1:]:
        for a, b in zip(found, gradients[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_anomalies_are_found_at_the_product() -> None:
    embedding, layer, ids = small()
    layer.weight_ih_l0.assign_(np.full((9, 2), np.nan))
    with tr.detect_anomaly():
        output = layer(embedding(ids))[0]
        with pytest.raises(NonFiniteError):
            output.backward(np.ones(output.shape))
    embedding, layer, ids = small()
    plain = run(layer, embedding, ids, "no")
    with tr.detect_anomaly():
        found = run(layer, embedding, ids, "no")
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


def test_a_row_that_is_not_looked_up_may_hold_anything() -> None:
    embedding, layer, _ = small()
    table = embedding.weight.numpy().copy()
    table[2] = np.nan
    embedding.weight.assign_(table)
    layer(embedding([[0, 1], [3, 0], [1, 1]]))[0].sum().backward()
    for p in (*layer.parameters(), embedding.weight):
        assert np.isfinite(p.grad.numpy()).all()
    assert not embedding.weight.grad.numpy()[2].any()


def test_x_keeps_the_values_that_it_was_looked_up_with() -> None:
    embedding, layer, ids = small()
    before = layer(embedding(ids))[0].numpy()
    x = embedding(ids)
    embedding.weight.assign_(np.ones((4, 2)))
    np.testing.assert_array_equal(layer(x)[0].numpy(), before)


def test_a_graph_is_freed_with_the_rows_that_are_passed_by() -> None:
    embedding, layer, ids = small()
    x = embedding(ids)
    layer(x)[0].sum().backward()
    with pytest.raises(GraphFreedError):
        x.sum().backward()
    x = embedding(ids)
    loss = layer(x)[0].sum()
    embedding.weight.grad = None
    loss.backward(retain_graph=True)
    once = embedding.weight.grad.numpy()
    loss.backward()
    np.testing.assert_allclose(embedding.weight.grad.numpy(), 2 * once)


def test_without_kernels_it_is_the_plain_product() -> None:
    embedding, layer, ids = small()
    expected = run(layer, embedding, ids, "no")
    tr.enable_fused(False)
    try:
        found = run(layer, embedding, ids, "no")
    finally:
        tr.enable_fused(True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("look", ["no", "keep", "late", "replace", "twice", "elsewhere"])
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bidirectional": True}])
def test_it_compiles_to_the_same_bits(look: str, options: dict[str, Any]) -> None:
    results = []
    for compiled in (False, True):
        embedding, layer, _ = small(**options)
        optimizer = tr.optim.SGD([*embedding.parameters(), *layer.parameters()], lr=0.1)

        def step(ids: Any, embedding: Any = embedding, layer: Any = layer, optimizer: Any = optimizer) -> Any:
            x = embedding(ids)
            if look == "keep":
                x.retain_grad()
            if look == "replace":
                x.register_hook(tripled)
            loss = tr.square(layer(x)[0]).mean()
            if look == "twice":
                loss = loss + layer(x)[0].sum()
            if look == "elsewhere":
                loss = loss + tr.sin(x).sum()
            if look == "late":
                x.retain_grad()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss, (x.grad if look in ("keep", "late") else None)

        run_step = tr.compile(step) if compiled else step
        rng = np.random.default_rng(0)
        outcomes = [run_step(tr.Tensor(rng.integers(0, 4, (5, 2)))) for _ in range(5)]
        values = [loss.item() for loss, _ in outcomes] + [g.tolist() for _, g in outcomes if g is not None]
        results.append((values, [p.numpy().tobytes() for p in (*embedding.parameters(), *layer.parameters())]))
    assert results[0] == results[1]


def test_what_was_looked_up_outside_is_no_argument_of_a_compiled_step() -> None:
    embedding, layer, ids = small()
    with pytest.raises(CompileError, match=r"pass it as \.detach"):
        tr.compile(lambda x: layer(x)[0].sum().detach())(embedding(ids))
