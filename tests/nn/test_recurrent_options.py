"""`layer_norm` and `recurrent_dropout`: the equations by hand, the laws of the kit, and what a mask must be."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import tinygrad_rnn as tr
from tests.nn.test_cells import CELLS
from tests.nn.test_recurrent import EVERY, FORWARD, LAYERS, OF_A_LAYER, both_graphs, each_kind
from tests.reference import GATES, assert_close, sigmoid
from tinygrad_rnn.tensor import device, random
from tinygrad_rnn.testing import check_recurrent

BOTH: dict[str, Any] = {"layer_norm": True, "recurrent_dropout": 0.4}
OPTIONS: list[dict[str, Any]] = [{"layer_norm": True}, {"recurrent_dropout": 0.4}, BOTH]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=["norm", "dropout", "both"])


def made(kind: str, table: dict[str, Any] = LAYERS, **options: Any) -> Any:
    """A layer of 3 inputs and 4 states in float64, whose gains are not 1 and whose biases are not 0."""
    rng = np.random.default_rng(1)
    layer = table[kind](3, 4, dtype="float64", generator=rng, **options)
    for _, p in layer.named_parameters():
        p.assign_(p.numpy() + rng.uniform(-0.3, 0.3, p.shape))
    return layer


# --- the equations by hand ----------------------------------------------------------------------------------


def normal(v: np.ndarray) -> np.ndarray:
    return (v - np.mean(v)) / np.sqrt(np.mean((v - np.mean(v)) ** 2) + 1e-5)


def normalised(v: np.ndarray, w: dict[str, np.ndarray], name: str, cut: int | None = None) -> np.ndarray:
    """One vector; up to `cut` and from there on by itself."""
    if f"norm_weight_{name}" not in w:
        return v
    z = normal(v) if cut is None else np.concatenate([normal(v[:cut]), normal(v[cut:])])
    return w[f"norm_weight_{name}"] * z + w[f"norm_bias_{name}"]


def step(
    kind: str, x: np.ndarray, h: np.ndarray, c: np.ndarray, w: dict[str, np.ndarray], mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One step of one sequence: x (I,), h, c and mask (H,)."""
    H = len(h)
    cut = 2 * H if kind == "gru" else None
    a = normalised(w["weight_ih"] @ x, w, "ih", cut) + w["bias_ih"]
    b = normalised(w["weight_hh"] @ (mask * h), w, "hh", cut) + w["bias_hh"]
    if kind == "rnn":
        return np.tanh(a + b), c
    if kind == "lstm":
        i, f, u, o = np.split(a + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(u)
        return sigmoid(o) * np.tanh(normalised(c, w, "c")), c
    r, z = sigmoid(a[:H] + b[:H]), sigmoid(a[H:cut] + b[H:cut])
    n = np.tanh(a[cut:] + r * b[cut:])
    return (1 - z) * n + z * h, c


def by_hand(
    kind: str,
    layer: Any,
    x: np.ndarray,
    states: Sequence[np.ndarray],
    lengths: Sequence[int],
    masks: list[np.ndarray],
) -> tuple[np.ndarray, ...]:
    """Outputs (T, B, D * H), h_n and c_n, sequence by sequence; a mask (B, H) for each layer and direction."""
    tails = ["", "_reverse"] if layer.bidirectional else [""]
    finals = [s.copy() for s in states]
    y = x
    for k, (B, H) in enumerate([states[0].shape[1:]] * layer.num_layers):
        below, y = y, np.zeros((*x.shape[:2], len(tails) * H))
        for d, tail in enumerate(tails):
            end = f"_l{k}{tail}"
            named = {name: p.numpy() for name, p in layer.named_parameters()}
            w = {name.removesuffix(end): p for name, p in named.items() if name.endswith(end)}
            row = k * len(tails) + d
            for s in range(B):
                h, c = states[0][row, s], states[1][row, s]
                steps = range(lengths[s])
                for t in reversed(steps) if d else steps:
                    h, c = step(kind, below[t, s], h, c, w, masks[row][s])
                    y[t, s, d * H : (d + 1) * H] = h
                finals[0][row, s], finals[1][row, s] = h, c
    return (y, *finals)


def drawn(seed: int, count: int, lengths: Sequence[int], p: float) -> list[np.ndarray]:
    """The masks that `seed` stands for; the longest sequence has the first row."""
    order = np.argsort([-n for n in lengths], kind="stable")
    tr.manual_seed(seed)
    masks = []
    for _ in range(count):
        mask = np.empty((len(lengths), 4))
        mask[order] = random.kept((len(lengths), 4), p) / (1 - p)
        masks.append(mask)
    return masks


@each_kind
@both_graphs
@each_option
@pytest.mark.parametrize("lengths", [None, [2, 5, 1]])
def test_two_layers_in_both_directions_by_hand(
    kind: str, fused: bool, options: dict[str, Any], lengths: list[int] | None
) -> None:
    layer = made(kind, num_layers=2, bidirectional=True, batch_first=True, fused=fused, **options)
    rng = np.random.default_rng(2)
    x, h0, c0 = rng.standard_normal((5, 3, 3)), *rng.standard_normal((2, 4, 3, 4))
    whole = lengths or [5, 5, 5]
    masks = drawn(3, 4, whole, layer.recurrent_dropout)
    assert all(bool(np.any(mask == 0)) == ("recurrent_dropout" in options) for mask in masks)
    y, h_n, c_n = by_hand(kind, layer, x, (h0, c0), whole, masks)
    tr.manual_seed(3)
    hx = tr.Tensor(h0)
    output, states = layer(tr.Tensor(x.swapaxes(0, 1)), (hx, tr.Tensor(c0)) if kind == "lstm" else hx, lengths=lengths)
    assert_close(output.numpy().swapaxes(0, 1), y, 1e-12)
    if kind == "lstm":
        assert_close(states[0].numpy(), h_n, 1e-12)
        assert_close(states[1].numpy(), c_n, 1e-12)
    else:
        assert_close(states.numpy(), h_n, 1e-12)


@each_kind
def test_a_normalised_layer_without_biases_is_one_whose_biases_are_0(kind: str) -> None:
    without = LAYERS[kind](3, 4, layer_norm=True, bias=False, dtype="float64")
    zero = LAYERS[kind](3, 4, layer_norm=True, dtype="float64")
    zero.load_state_dict({**{name: p * 0 for name, p in zero.named_parameters()}, **dict(without.named_parameters())})
    x = np.random.default_rng(4).standard_normal((5, 2, 3))
    assert_close(without(tr.Tensor(x))[0].numpy(), zero(tr.Tensor(x))[0].numpy(), 1e-14)


@each_kind
@both_graphs
def test_cells_by_hand(kind: str, fused: bool) -> None:
    cell = made(kind, CELLS, fused=fused, layer_norm=True)
    rng = np.random.default_rng(2)
    x, h, c = rng.standard_normal((2, 3)), *rng.standard_normal((2, 2, 4))
    w = {name: p.numpy() for name, p in cell.named_parameters()}
    rows = [step(kind, x[s], h[s], c[s], w, np.ones(4)) for s in range(2)]
    found = cell(tr.Tensor(x), (tr.Tensor(h), tr.Tensor(c)) if kind == "lstm" else tr.Tensor(h))
    for i, state in enumerate(found if kind == "lstm" else [found]):
        assert_close(state.numpy(), np.array([row[i] for row in rows]), 1e-12)


# --- laws, and gradients -----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize(
    "options",
    [
        *OPTIONS,
        {"layer_norm": True, "bias": False, "fused": False},
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3, **BOTH},
    ],
)
def test_every_law_of_the_kit(kind: str, options: dict[str, Any]) -> None:
    laws = check_recurrent(lambda: LAYERS[kind](3, 3, **options), examples=settings().max_examples // 40)
    more = {"reversal"} if "bidirectional" in options else FORWARD
    more = more | ({"dropout"} if "recurrent_dropout" in options else set())
    assert set(laws) | {"modes"} == EVERY | OF_A_LAYER | more | {"modes"}  # a mask may let all pass


@each_kind
def test_every_law_of_the_kit_for_cells(kind: str) -> None:
    assert set(check_recurrent(lambda: CELLS[kind](3, 3, layer_norm=True), examples=5)) == EVERY | FORWARD | {"modes"}


@each_kind
def test_a_checkpointed_layer_has_the_same_mask_on_its_way_back(kind: str) -> None:
    layer = made(kind, num_layers=2, **BOTH)
    x = tr.Tensor(np.random.default_rng(2).standard_normal((6, 2, 3)), requires_grad=True)
    gradients = []
    for run in (lambda z: layer(z)[0], lambda z: tr.checkpoint(lambda v: layer(v)[0], z)):
        tr.manual_seed(4)
        gradients.append(tr.grad((run(x) ** 2).sum(), [x, *layer.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert_close(other.numpy(), one.numpy(), 1e-12)


# --- off, they are not there -------------------------------------------------------------------------------


@each_kind
@both_graphs
def test_in_eval_mode_and_with_p_0_nothing_is_dropped_and_nothing_drawn(kind: str, fused: bool) -> None:
    x = tr.Tensor(np.random.default_rng(2).standard_normal((5, 2, 3)))
    expected = made(kind, fused=fused)(x)[0].numpy()
    before = random.generator().bit_generator.state
    for layer in (made(kind, fused=fused, recurrent_dropout=0.4).eval(), made(kind, fused=fused, recurrent_dropout=0)):
        assert np.array_equal(layer(x)[0].numpy(), expected)
    assert random.generator().bit_generator.state == before
    normed = made(kind, layer_norm=True, recurrent_dropout=0.4).eval()(x)[0]
    assert np.array_equal(normed.numpy(), made(kind, layer_norm=True)(x)[0].numpy())


@each_kind
@pytest.mark.parametrize("table", [LAYERS, CELLS], ids=["layer", "cell"])
def test_names_shapes_and_first_values(kind: str, table: dict[str, Any]) -> None:
    def shapes(module: Any) -> dict[str, tuple[int, ...]]:
        return {name: p.shape for name, p in module.named_parameters()}

    more: dict[str, Any] = {"num_layers": 2, "bidirectional": True} if table is LAYERS else {}
    tails = [f"_l{k}{tail}" for k, tail in product(range(2), ("", "_reverse"))] if more else [""]
    tr.manual_seed(1)
    plain = table[kind](3, 4, **more)
    tr.manual_seed(1)
    layer = table[kind](3, 4, layer_norm=True, **more)
    added = {k: v for k, v in shapes(layer).items() if k.startswith("norm_")}
    sizes = {"ih": GATES[kind] * 4, "hh": GATES[kind] * 4} | ({"c": 4} if kind == "lstm" else {})
    assert added == {
        f"norm_{what}_{name}{tail}": (n,) for tail, (name, n), what in product(tails, sizes.items(), ("weight", "bias"))
    }
    assert {k: v for k, v in shapes(layer).items() if k not in added} == shapes(plain)
    for name, p in layer.named_parameters():
        assert p.dtype == np.float32
        if name in added:
            assert np.all(p.numpy() == name.startswith("norm_weight"))
        else:
            assert np.array_equal(p.numpy(), dict(plain.named_parameters())[name].numpy())
    assert "norm" not in repr(plain) and "layer_norm=True" in repr(layer)
    if more:
        assert "recurrent_dropout=0.25" in repr(table[kind](3, 4, recurrent_dropout=0.25))
        dropping = table[kind](3, 4, recurrent_dropout=0.25, **more)
        assert list(dropping.state_dict()) == list(plain.state_dict())


@each_kind
def test_a_state_dict_and_a_copy_carry_gains_and_biases(kind: str) -> None:
    layer, other = made(kind, num_layers=2, layer_norm=True), LAYERS[kind](3, 4, 2, layer_norm=True, dtype="float64")
    x = tr.Tensor(np.random.default_rng(2).standard_normal((4, 2, 3)))
    expected = layer(x)[0].numpy()
    assert not np.allclose(other(x)[0].numpy(), expected)
    other.load_state_dict({name: p.numpy() for name, p in layer.state_dict().items()})
    copies = [other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]  # noqa: S301 (bytes of our own)
    assert all(np.array_equal(c(x)[0].numpy(), expected) for c in copies)
    with pytest.raises(KeyError, match="unexpected: norm_weight_ih_l0"):
        LAYERS[kind](3, 4, 2, dtype="float64").load_state_dict(layer.state_dict())


# --- the mask ----------------------------------------------------------------------------------------------


def powers(p: float, B: int, H: int, T: int, **options: Any) -> np.ndarray:
    """Outputs of h' = relu(mask h) from h = 1: each step multiplies by the mask once more."""
    rnn = tr.nn.RNN(1, H, nonlinearity="relu", bias=False, recurrent_dropout=p, dtype="float64", **options)
    for name, weight in rnn.named_parameters():
        weight.assign_(np.eye(H) if "hh" in name else np.zeros(weight.shape))
    D = 2 if rnn.bidirectional else 1
    output, _ = rnn(tr.zeros(T, B, 1, dtype="float64"), tr.ones(D, B, H, dtype="float64"))
    return output.numpy().copy()


def test_a_mask_is_the_same_at_every_step_and_differs_between_sequences_directions_and_calls() -> None:
    tr.manual_seed(0)
    p, H = 0.25, 400
    y = powers(p, 3, H, 4, bidirectional=True)
    y[:, :, H:] = y[::-1, :, H:]
    mask = y[0]
    assert set(np.unique(mask)) == {0.0, 1 / (1 - p)}
    for t in range(4):
        assert_close(y[t], mask ** (t + 1), 1e-13)
    rows = [mask[s, d * H : (d + 1) * H] for s, d in product(range(3), range(2))]
    rows.append(powers(p, 1, H, 1)[0, 0])  # of the next call
    for i, j in product(range(7), range(7)):
        share = np.mean(rows[i] != rows[j])  # independent ones differ with probability 2 p (1 - p)
        assert share == 0 if i == j else abs(share - 0.375) < 0.1  # 4 deviations of 0.024


def test_the_mean_is_kept() -> None:
    tr.manual_seed(0)
    for p in (0.1, 0.5, 0.8):
        mask = powers(p, 20, 500, 1)[0]
        assert abs(np.mean(mask == 0) - p) < 0.02  # 4 deviations of 0.005
        assert abs(np.mean(mask) - 1) < 4 * np.sqrt(p / (1 - p) / mask.size)


@each_kind
def test_a_seed_fixes_the_masks(kind: str) -> None:
    x = tr.Tensor(np.random.default_rng(2).standard_normal((5, 2, 3)))
    layer, found = made(kind, num_layers=2, bidirectional=True, recurrent_dropout=0.5), []
    for seed in (7, 7, 8):
        tr.manual_seed(seed)
        found.append(layer(x)[0].numpy())
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_what_an_open_gate_carries_over_is_not_masked() -> None:
    """z = 1 in a GRU and i = 0, f = o = 1 in an LSTM: the state stays as it is, whatever the mask."""
    h = tr.Tensor(np.linspace(0.1, 0.8, 8).reshape(1, 2, 4))
    x = tr.zeros(5, 2, 3, dtype="float64")
    gru, lstm = (made(kind, recurrent_dropout=0.9) for kind in ("gru", "lstm"))
    gru.bias_ih_l0.assign_(np.repeat([0.0, 1e3, 0.0], 4))
    lstm.bias_ih_l0.assign_(np.repeat([-1e3, 1e3, 0.0, 1e3], 4))
    output, h_n = gru(x, h)
    assert_close(h_n.numpy(), h.numpy(), 1e-14)  # not exactly: it is n + z (h - n)
    assert_close(output.numpy()[-1:], h.numpy(), 1e-14)
    output, (h_n, c_n) = lstm(x, (h, h))
    assert np.array_equal(c_n.numpy(), h.numpy())
    assert_close(h_n.numpy(), np.tanh(h.numpy()), 1e-15)


# --- errors, dtypes, devices -------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan"), True, "a half", 1, 1.0])
def test_a_probability_outside_0_to_1_is_named(kind: str, p: Any) -> None:
    with pytest.raises(ValueError, match=f"^{LAYERS[kind].__name__}: recurrent_dropout.* got {p!r}"):
        LAYERS[kind](3, 4, recurrent_dropout=p)


@each_kind
def test_the_options_go_by_name_and_a_cell_has_no_recurrent_dropout(kind: str) -> None:
    with pytest.raises(TypeError):
        LAYERS[kind](3, 4, 1, True)
    with pytest.raises(TypeError, match="recurrent_dropout"):
        CELLS[kind](3, 4, recurrent_dropout=0.5)


@each_kind
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_dtype_is_kept(kind: str, dtype: str) -> None:
    layer = LAYERS[kind](3, 4, dtype=dtype, **BOTH)
    output, _ = layer(tr.ones(5, 2, 3, dtype=dtype), lengths=[2, 5])
    output.sum().backward()
    assert {output.dtype, *(p.dtype for p in layer.parameters())} == {np.dtype(dtype)}
    assert all(p.grad is not None and p.grad.dtype == np.dtype(dtype) for p in layer.parameters())


@each_kind
@each_option
def test_on_another_library_of_arrays_the_equations_run(kind: str, options: dict[str, Any]) -> None:
    xp = pytest.importorskip("array_api_strict")
    layer, other = (made(kind, num_layers=2, bidirectional=True, **options) for _ in range(2))
    for p in other.parameters():
        p.requires_grad = False
        p._array = xp.asarray(p._array)
        p.requires_grad = True
    x, found = np.random.default_rng(2).standard_normal((4, 3, 3)), []
    for each, given in ((layer, x), (other, xp.asarray(x))):
        tr.manual_seed(3)
        found.append(each(tr.Tensor(given), lengths=[2, 4, 1])[0])
        found[-1].sum().backward()
    assert_close(found[1].numpy(), found[0].numpy(), 1e-13)
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        assert_close(q.grad.numpy(), p.grad.numpy(), 1e-11)


@pytest.mark.gpu
@each_kind
@each_option
def test_on_a_gpu_everything_is_as_on_the_cpu(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_there(shape: tuple[int, ...], p: float) -> Any:  # a device makes its masks itself
        return device.uniform(np, shape, int(random.generator().integers(2**63))) >= p

    monkeypatch.setattr(random, "kept", as_there)
    here = made(kind, num_layers=2, bidirectional=True, **options)
    there = copy.deepcopy(here).to("cuda")
    x, found = np.random.default_rng(2).standard_normal((5, 3, 3)), []
    for layer, where in ((here, "cpu"), (there, "cuda")):
        tr.manual_seed(3)
        found.append(layer(tr.Tensor(x, device=where), lengths=[2, 5, 1])[0])
        (found[-1] * found[-1]).sum().backward()
    assert_close(found[1].numpy(), found[0].numpy(), 1e-12)
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert_close(q.grad.numpy(), p.grad.numpy(), 1e-10)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_a_misspelt_option_is_an_error_that_names_the_layer(name: str) -> None:
    layer: Any = getattr(tr.nn, name)
    with pytest.raises(TypeError, match=rf"\b{name}\b.*'hiden'"):
        layer(3, 4, hiden=3)
    options = inspect.signature(layer).parameters
    assert {"bias", "fused", "layer_norm", "generator"} <= set(options)
    assert not any(p.kind is p.VAR_KEYWORD for p in options.values())
