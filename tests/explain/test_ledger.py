"""The ledger against `tr.grad`, and against a network whose steps have weights of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.errors import GraphFreedError, InputError, ShapeError
from tinygrad_rnn.explain import together
from tinygrad_rnn.nn import recurrent
from tinygrad_rnn.training import tbptt

KINDS = ("RNN", "LSTM", "GRU")
N, H = 2, 3


def drawn(*shape: int) -> tr.Tensor:
    return tr.randn(*shape, dtype="float64")


def layer_of(kind: str, **options: Any) -> Any:
    return getattr(tr.nn, kind)(N, H, dtype="float64", **options)


def losses_of(output: tr.Tensor, target: tr.Tensor) -> list[tr.Tensor]:
    return [tr.square(output[t] - target[t]).sum() for t in range(len(output))]


def gradient(loss: tr.Tensor, p: tr.Tensor) -> Any:
    return tr.grad(loss, p, retain_graph=True).numpy()


def relative(a: Any, b: Any) -> float:
    return float(np.abs(a - b).max() / max(1e-3, np.abs(b).max()))


layers = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "fused": st.booleans(),
        "layer_norm": st.booleans(),
        "bidirectional": st.booleans(),
        "num_layers": st.integers(1, 2),
        "bias": st.booleans(),
    }
)


@given(options=layers, lengths=st.none() | st.lists(st.integers(1, 4), min_size=3, max_size=3), seed=st.integers(0, 99))
@examples(dev=6, ci=10, thorough=400)
def test_the_sum_is_the_gradient_and_every_row_that_of_its_loss(options: Any, lengths: Any, seed: int) -> None:
    tr.manual_seed(seed)
    T, B = 4, 3
    layer = layer_of(options.pop("kind"), **options)
    x = drawn(T, B, N)
    with tr.explain.watch():
        output, _ = layer(x, lengths=lengths)
        losses = losses_of(output, drawn(*output.shape))
    for _, p in layer.named_parameters():
        table = tr.explain.ledger(losses, p)
        assert table.counted == "step"
        assert table.columns == list(range(max(lengths or [T])))
        whole = gradient(tr.stack(losses).sum(), p)
        assert relative(table.total(), whole) < 1e-12
        for t, loss in enumerate(losses):
            assert relative(table.row(t), gradient(loss, p)) < 1e-12
        dense = [[np.linalg.norm(table[t, k]) for k in table.columns] for t in table.rows]
        assert np.allclose(table.norms, dense, rtol=1e-9, atol=1e-14)


def by_hand(kind: str, cells: list[Any], x: tr.Tensor, backward: bool) -> list[tr.Tensor]:
    """The states of a layer, by a cell with weights of its own for each step."""
    T, B = x.shape[:2]
    h = c = tr.zeros(B, H, dtype="float64")
    states: dict[int, tr.Tensor] = {}
    for t in reversed(range(T)) if backward else range(T):
        if kind == "LSTM":
            h, c = cells[t](x[t], (h, c))
        else:
            h = cells[t](x[t], h)
        states[t] = h
    return [states[t] for t in range(T)]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_is_that_of_a_weight_of_its_own(kind: str, fused: bool, layer_norm: bool, backward: bool) -> None:
    """The definition: a cell for each step, all with the same values, and the gradient of each alone."""
    tr.manual_seed(1)
    T, B = 5, 2
    layer = layer_of(kind, fused=fused, layer_norm=layer_norm, bidirectional=backward)
    tail = "_l0_reverse" if backward else "_l0"
    x, target = drawn(T, B, N), drawn(T, B, H)
    with tr.explain.watch():
        output, _ = layer(x)
        losses = losses_of(output[:, :, H:] if backward else output, target)

    cells = [getattr(tr.nn, f"{kind}Cell")(N, H, layer_norm=layer_norm, dtype="float64") for _ in range(T)]
    for cell in cells:
        cell.load_state_dict({name: getattr(layer, name + tail) for name, _ in cell.named_parameters()})
    theirs = losses_of(tr.stack(by_hand(kind, cells, x, backward)), target)
    for name, _ in cells[0].named_parameters():
        table = tr.explain.ledger(losses, getattr(layer, name + tail))
        for t, loss in enumerate(theirs):
            for k, cell in enumerate(cells):
                reached = k >= t if backward else k <= t
                own = gradient(loss, getattr(cell, name)) if reached else 0 * table[t, k]
                assert np.abs(table[t, k] - own).max() < 1e-12, (name, t, k)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_layers_each_has_steps_of_its_own(kind: str) -> None:
    """What goes to the lower layer at step k comes through the upper one at steps k and later."""
    tr.manual_seed(2)
    T, B = 4, 2
    layer = layer_of(kind, num_layers=2)
    lower, upper = layer_of(kind), getattr(tr.nn, kind)(H, H, dtype="float64")
    for part, k in ((lower, 0), (upper, 1)):
        part.load_state_dict({n: getattr(layer, n.replace("_l0", f"_l{k}")) for n, _ in part.named_parameters()})
    x, target = drawn(T, B, N), drawn(T, B, H)
    with tr.explain.watch():
        losses = losses_of(layer(x)[0], target)
    with tr.explain.watch():
        theirs = losses_of(upper(lower(x)[0])[0], target)
    for name, k, part in (("weight_ih_l0", 0, lower), ("weight_hh_l0", 0, lower), ("bias_hh_l0", 1, upper)):
        table = tr.explain.ledger(losses, getattr(layer, name.replace("_l0", f"_l{k}")))
        other = tr.explain.ledger(theirs, getattr(part, name))
        assert np.allclose(table.norms, other.norms, rtol=1e-10, atol=1e-14)
        assert table.norms[3, 1] > 0 and not np.triu(table.norms, 1).any()


def test_columns_of_a_ragged_batch_are_the_steps_of_the_input() -> None:
    tr.manual_seed(3)
    lengths, T = [7, 2, 4], 7
    layer, x = layer_of("LSTM", bidirectional=True), drawn(T, 3, N)
    with tr.explain.watch():
        output, _ = layer(x, lengths=lengths)
        losses = [tr.square(output[t]).sum() for t in range(T)]
    singles = []
    for b, n in enumerate(lengths):
        with tr.explain.watch():
            output, _ = layer(x[:n, b])
            singles.append([tr.square(output[t]).sum() for t in range(n)])
    for name in ("weight_hh_l0", "weight_hh_l0_reverse", "weight_ih_l0_reverse", "bias_ih_l0"):
        p = getattr(layer, name)
        table = tr.explain.ledger(losses, p)
        assert table.columns == list(range(T))
        parts = [tr.explain.ledger(single, p) for single in singles]
        for t in range(T):
            for k in range(T):
                alone = sum((part[t, k] for part, n in zip(parts, lengths, strict=True) if max(t, k) < n), np.zeros(()))
                assert np.abs(table[t, k] - alone).max() < 1e-12


def test_an_embedding_that_is_looked_up_in_the_layer() -> None:
    tr.manual_seed(4)
    embedding, layer = tr.nn.Embedding(3, N, dtype="float64"), layer_of("GRU")
    ids = np.array([[0, 1], [2, 2], [0, 0], [1, 2]])
    tables = []
    for extra in ({"embedding": embedding}, {}):
        with tr.explain.watch():
            output, _ = layer(ids, **extra) if extra else layer(embedding(ids))
            losses = [tr.square(h).sum() for h in output]
        parameters = [embedding.weight, layer.weight_ih_l0, layer.bias_ih_l0, layer.weight_hh_l0]
        tables.append([tr.explain.ledger(losses, p) for p in parameters])
        for p, table in zip(parameters, tables[-1], strict=True):
            assert relative(table.total(), gradient(tr.stack(losses).sum(), p)) < 1e-12
    for table, other in zip(*tables, strict=True):
        assert np.allclose(table.norms, other.norms, rtol=1e-10, atol=1e-14)


def loop_by_hand(T: int = 6) -> tuple[list[tr.Tensor], list[Any]]:
    """The README's loop."""
    tr.manual_seed(0)
    x = drawn(T, 2, 3)
    W_x, W_h = tr.nn.Parameter(0.5 * drawn(3, 4), "float64"), tr.nn.Parameter(0.5 * drawn(4, 4), "float64")
    b = tr.nn.Parameter(tr.zeros(4), "float64")
    h, losses = tr.zeros(2, 4, dtype="float64"), []
    for x_t in x:
        h = tr.tanh(x_t @ W_x + h @ W_h + b)
        losses.append(tr.square(h - 1).mean())
    return losses, [W_x, W_h, b]


def test_a_loop_by_hand_has_a_ledger_without_a_change_in_it() -> None:
    losses, parameters = loop_by_hand()
    for p in parameters:
        table = tr.explain.ledger(losses, p)
        assert table.counted == "use" and table.columns == list(range(6))
        assert relative(table.total(), gradient(tr.stack(losses).sum(), p)) < 1e-12
        assert not np.triu(table.norms, 1).any()
    last = tr.explain.ledger(losses[-1], parameters[1])
    assert last.rows == [5] and np.allclose(last.norms[0], tr.explain.ledger(losses, parameters[1]).norms[5])
    assert np.array_equal(last.explicit(5), last[5, 5])
    whole = tr.explain.ledger(losses, parameters[1])
    assert relative(whole.implicit(5), sum((whole[5, k] for k in range(5)), np.zeros(()))) < 1e-12
    assert relative(whole.column(2), sum((whole[t, 2] for t in range(6)), np.zeros(()))) < 1e-12
    assert not tr.explain.ledger(losses, parameters[1])[0, 0].any()  # the first state that W_h meets is 0
    assert parameters[1].grad is None


@pytest.mark.parametrize("k2", [1, 2, 3, 6])
def test_the_band_is_truncated_bptt(k2: int) -> None:
    losses, (_, W_h, _) = loop_by_hand()
    cut = tr.explain.ledger(losses, W_h).truncated(k2)
    tr.manual_seed(0)
    x = drawn(6, 2, 3)
    W_x, W = tr.nn.Parameter(0.5 * drawn(3, 4), "float64"), tr.nn.Parameter(0.5 * drawn(4, 4), "float64")

    def one(x_t: tr.Tensor, h: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
        h = tr.tanh(x_t @ W_x + h @ W)
        return tr.square(h - 1).mean(), h

    tbptt(one, x, tr.zeros(2, 4, dtype="float64"), k1=1, k2=k2)
    assert relative(cut.gradient, W.grad.numpy()) < 1e-12
    assert relative(cut.gradient + cut.cut, gradient(tr.stack(losses).sum(), W_h)) < 1e-12
    assert (cut.angle < 1e-5) == (k2 == 6)


def test_what_comes_back_over_as_many_steps_adds_up_to_the_bands() -> None:
    tr.manual_seed(1)
    lstm = tr.nn.LSTM(2, 3, bidirectional=True, dtype="float64")
    for name in ("weight_hh_l0", "weight_hh_l0_reverse", "bias_hh_l0"):
        with tr.explain.watch():
            output, _ = lstm(tr.randn(5, 2, 2, dtype="float64"))
            losses = [tr.square(output_t).sum() for output_t in output]
        table = tr.explain.ledger(losses, getattr(lstm, name))
        parts = table.by_distance()
        assert len(parts) == (1 if "reverse" in name else 5)
        for k2 in range(1, 6):
            assert np.allclose(parts[:k2].sum(axis=0), table.truncated(k2).gradient, rtol=1e-12, atol=1e-14)
        for k in range(5):
            assert np.allclose(table.column(k), sum(table[t, k] for t in range(5)), rtol=1e-12, atol=1e-14)
        assert np.allclose(table.total(), tr.grad(sum(losses), getattr(lstm, name)).numpy(), rtol=1e-12)


def test_a_cell_in_a_loop_and_a_layer_that_goes_on_count_on() -> None:
    tr.manual_seed(5)
    cell, x = tr.nn.LSTMCell(N, H, dtype="float64"), drawn(4, 2, N)
    state, losses = None, []
    with tr.explain.watch():
        for x_t in x:
            state = cell(x_t, state)
            losses.append(tr.square(state[0]).sum())
    table = tr.explain.ledger(losses, cell.bias_ih)
    assert (table.counted, table.columns) == ("step", [0, 1, 2, 3])

    layer = layer_of("LSTM")
    layer.load_state_dict({name + "_l0": p for name, p in cell.named_parameters()})
    with tr.explain.watch():
        first, state = layer(x[:3])
        rest, _ = layer(x[3:], state)
        losses = [tr.square(h).sum() for h in (*first, *rest)]
    assert np.allclose(tr.explain.ledger(losses, layer.bias_ih_l0).norms, table.norms, rtol=1e-10, atol=1e-14)


def test_what_is_outside_of_every_step_has_a_column_of_its_own() -> None:
    tr.manual_seed(6)
    layer = tr.nn.RNN(H, H, dtype="float64")
    with tr.explain.watch():
        output, _ = layer(drawn(3, 1, H))
        losses = [tr.square(h @ layer.weight_hh_l0).sum() for h in output]  # the weight once more, as a read-out
    table = tr.explain.ledger(losses, layer.weight_hh_l0)
    assert table.columns == [0, 1, 2, None] and table.norms[:, 3].all()
    assert relative(table.total(), gradient(tr.stack(losses).sum(), layer.weight_hh_l0)) < 1e-12
    assert "outside of every step" in str(table) and "-" in str(table).splitlines()[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", ["weight_hh_l0", "weight_ih_l0", "bias_hh_l0"])
def test_steps_that_are_pulled_together_are_those_pulled_one_by_one(
    kind: str, frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tr.manual_seed(7)
    layer = layer_of(kind)
    getattr(layer, frozen).requires_grad = False
    with tr.explain.watch():
        output, _ = layer(drawn(5, 2, N), *((drawn(1, 2, H),) if kind != "LSTM" else ()))
        losses = losses_of(output, drawn(5, 2, H))
    for p in filter(lambda p: p.requires_grad, layer.parameters()):
        monkeypatch.setattr(together, "SMALL", 10**6)
        one = tr.explain.ledger(losses, p)
        monkeypatch.setattr(together, "SMALL", 0)
        other = tr.explain.ledger(losses, p)
        assert np.allclose(one.norms, other.norms, rtol=1e-12, atol=1e-15)
        assert relative(one.total(), other.total()) < 1e-12


def test_text_html_and_picture(tmp_path: Any) -> None:
    losses, (_, W_h, _) = loop_by_hand(4)
    table = tr.explain.ledger(losses, W_h)
    title, head, *rows = str(table).splitlines()
    assert title == "|dL_t/dW|, shape (4, 4): row t the loss of step t, column k W at use k"
    assert head.split() == ["t", "\\", "k", "0", "1", "2", "3"]
    assert rows[0].split() == ["0", ".", ".", ".", "."] and float(rows[2].split()[3]) == pytest.approx(
        table.norms[2, 2], rel=1e-2
    )
    assert table._repr_html_().count("<td") == 16 and "<caption>" in table._repr_html_()
    table.plot(tmp_path / "ledger.png")
    assert (tmp_path / "ledger.png").stat().st_size > 5000
    long, (_, W_h, _) = loop_by_hand(100)
    text = str(tr.explain.ledger(long, W_h)).splitlines()
    assert len(text) <= 70 and max(map(len, text)) <= 80


def test_the_weight_is_used_once_and_nobody_looked() -> None:
    layer = layer_of("RNN", fused=False)
    output, _ = layer(drawn(3, 1, N))
    table = tr.explain.ledger([tr.square(h).sum() for h in output], layer.weight_ih_l0)
    assert "with tr.explain.watch():" in table.note and table.note in str(table)


def test_what_is_refused() -> None:
    losses, (_, W_h, _) = loop_by_hand(3)
    with pytest.raises(InputError, match="no loss depends on this tensor of shape"):
        tr.explain.ledger(losses, tr.nn.Parameter([1.0]))
    with pytest.raises(InputError, match="requires a gradient"):
        tr.explain.ledger(losses, tr.ones(2))
    with pytest.raises(InputError, match="there is no loss"):
        tr.explain.ledger([], W_h)
    with pytest.raises(InputError, match="the loss of step 1 is no tensor but float"):
        tr.explain.ledger([losses[0], 1.0], W_h)  # type: ignore[list-item]
    with pytest.raises(ShapeError, match=r"the loss of step 0 has shape \(2,\)"):
        tr.explain.ledger([tr.ones(2)], W_h)
    table = tr.explain.ledger(losses, W_h)
    with pytest.raises(IndexError, match=r"ledger\[0, 7\]: there are losses of steps 0 to 2 and uses at 0 to 2"):
        table[0, 7]
    for k2 in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="k2 must be a whole number"):
            table.truncated(k2)  # type: ignore[arg-type]
    losses[1].register_hook(lambda g: g)
    with pytest.raises(InputError, match="hook"):
        tr.explain.ledger(losses, W_h)


def test_losses_are_of_known_steps() -> None:
    losses, (_, W_h, _) = loop_by_hand(3)
    with pytest.raises(
        InputError, match=r"1 loss for 3 uses: of which steps\? Pass a mapping, \{2: loss\} for one of the"
    ):
        tr.explain.ledger(losses[-1:], W_h)
    with pytest.raises(InputError, match=r"2 losses for 3 uses.*with tr.explain.step\(t\):"):
        tr.explain.ledger(losses[1:], W_h)
    assert "one by one" in tr.explain.ledger(losses[-1], W_h).note and not tr.explain.ledger({2: losses[-1]}, W_h).note
    assert "later uses than its own" in str(tr.explain.ledger(losses[::-1], W_h))
    assert not tr.explain.ledger(losses, W_h).note


def test_after_a_backward_it_says_what_to_do() -> None:
    losses, (_, W_h, _) = loop_by_hand(3)
    tr.stack(losses).sum().backward()
    with pytest.raises(
        GraphFreedError, match="ledger: this graph was freed by a backward: ask for the ledger before it"
    ):
        tr.explain.ledger(losses, W_h)


def test_a_loss_that_does_not_depend_is_a_row_of_zeros_and_a_mapping_names_steps() -> None:
    losses, (_, W_h, _) = loop_by_hand(3)
    table = tr.explain.ledger({5: losses[1], 9: tr.ones(()), 7: losses[2]}, W_h)
    assert table.rows == [5, 9, 7] and not table.norms[1].any()
    assert math.isnan(tr.explain.ledger({0: losses[0]}, W_h).truncated(1).angle)


def test_the_graph_is_as_it_was() -> None:
    losses, (_, W_h, _) = loop_by_hand(3)
    first = tr.explain.ledger(losses, W_h).norms
    assert np.array_equal(first, tr.explain.ledger(losses, W_h).norms)
    tr.stack(losses).sum().backward()


def test_nobody_looks_at_a_layer_that_runs_alone() -> None:
    steps = recurrent.Steps(None, "", 0, range(3), 1)
    assert steps.shown is None and list(steps) == [0, 1, 2]
