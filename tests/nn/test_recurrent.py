"""RNN, LSTM and GRU against the hand-written reference, step by step, and against the laws they must obey."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tests.reference import GATES, Network, assert_close, assert_steps_close
from tinygrad_rnn.errors import DTypeError, GraphFreedError, ShapeError
from tinygrad_rnn.nn import recurrent
from tinygrad_rnn.nn.recurrent import in_pieces
from tinygrad_rnn.tensor import random
from tinygrad_rnn.tensor.fused import fused_enabled
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.testing import check_recurrent

LAYERS: dict[str, Any] = {"rnn": tr.nn.RNN, "lstm": tr.nn.LSTM, "gru": tr.nn.GRU}
KINDS = sorted(LAYERS)
both_graphs = pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
each_kind = pytest.mark.parametrize("kind", KINDS)


@dataclasses.dataclass
class Case:
    """A layer, its inputs, and what is pulled back from each of its outputs."""

    kind: str
    T: int
    B: int
    input_size: int = 3
    hidden_size: int = 4
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    nonlinearity: str = "tanh"
    fused: bool = True
    batch_first: bool = False
    dtype: str = "float64"
    seed: int = 0

    def layer(self, **changes: Any) -> Any:
        case = dataclasses.replace(self, **changes)
        options: dict[str, Any] = {} if case.kind != "rnn" else {"nonlinearity": case.nonlinearity}
        for name in ("num_layers", "bidirectional", "bias", "fused", "batch_first", "dtype"):
            options[name] = getattr(case, name)
        generator = np.random.default_rng(case.seed)
        return LAYERS[case.kind](case.input_size, case.hidden_size, generator=generator, **options)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed + 1)
        D = 1 + self.bidirectional
        L, B, H = self.num_layers * D, self.B, self.hidden_size
        shapes = {"x": (self.T, B, self.input_size), "h0": (L, B, H), "c0": (L, B, H)}
        shapes |= {"dy": (self.T, B, D * H), "dh": (L, B, H), "dc": (L, B, H)}
        self.arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        if self.kind != "lstm":
            self.arrays["dc"] = np.zeros((L, B, H))

    def expected(self, layer: Any, masks: list[np.ndarray] | None = None) -> tuple[Any, ...]:
        """Outputs, final states and gradients by the reference."""
        a = self.arrays
        parameters = {name: p.numpy() for name, p in layer.named_parameters()}
        net = Network(self.kind, parameters, self.num_layers, self.bidirectional, self.nonlinearity, masks)
        y, h_n, c_n = net.run(a["x"], a["h0"], a["c0"])
        return y, h_n, c_n, net.gradients(a["dy"], a["dh"], a["dc"])

    def found(self, layer: Any) -> tuple[Any, ...]:
        """The same from `layer`, time major, as NumPy arrays."""
        a = {name: tr.Tensor(value, dtype=self.dtype) for name, value in self.arrays.items()}
        for name in ("x", "h0", "c0"):
            a[name].requires_grad = True
        swap = (lambda v: v.swapaxes(0, 1)) if self.batch_first else (lambda v: v)
        if self.kind == "lstm":
            y, (h_n, c_n) = layer(swap(a["x"]), (a["h0"], a["c0"]))
        else:
            (y, h_n), c_n = layer(swap(a["x"]), a["h0"]), a["c0"].detach()
        loss = (swap(y) * a["dy"]).sum() + (h_n * a["dh"]).sum() + (c_n * a["dc"]).sum()
        layer.zero_grad()
        loss.backward()
        leaves = {"x": a["x"], "h0": a["h0"], "c0": a["c0"], **dict(layer.named_parameters())}
        gradients = {
            name: np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy() for name, leaf in leaves.items()
        }
        return swap(y).numpy(), h_n.numpy(), c_n.numpy(), gradients

    def check(self, rtol: float = 1e-10) -> None:
        layer = self.layer()
        y, h_n, c_n, gradients = self.expected(layer)
        found_y, found_h, found_c, found = self.found(layer)
        assert_steps_close(found_y, y, rtol)
        assert_close(found_h, h_n, rtol)
        if self.kind == "lstm":
            assert_close(found_c, c_n, rtol)
        assert_steps_close(found["x"], gradients["x"], rtol)
        for name, expected in gradients.items():
            if name != "c0" or self.kind == "lstm":
                assert_close(found[name], expected, rtol)


cases = st.builds(
    Case,
    kind=st.sampled_from(KINDS),
    T=st.integers(0, 5),
    B=st.integers(0, 3),
    input_size=st.integers(1, 4),
    hidden_size=st.integers(1, 4),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    nonlinearity=st.sampled_from(["tanh", "relu", "sigmoid"]),
    fused=st.booleans(),
    batch_first=st.booleans(),
    seed=st.integers(0, 2**20),
)


@given(cases)
def test_outputs_states_and_all_gradients_are_those_of_the_reference(case: Case) -> None:
    case.check()


EVERY = {"shape", "dtype", "repeats", "no mutation", "no aliasing", "gradient", "second derivative", "zero", "float32"}
EVERY |= {
    "per-step gradients",
    "frozen",
    "batch permutation",
    "batch of singles",
    "fused = plain",
    "unbatched",
    "empty",
}
OF_A_LAYER = {"lengths", "padding"}
FORWARD = {"causality", "chunking", "truncation"}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False, "fused": False},
    {"num_layers": 2, "dropout": 0.3},
    {"bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "dropout": 0.5, "hidden_size": 2},
]
OWN: dict[str, list[dict[str, Any]]] = {
    "rnn": [{"nonlinearity": "relu"}, {"nonlinearity": "sigmoid", "fused": False}],
    "lstm": [{"forget_bias": 1.0}],
    "gru": [{"hidden_size": 1, "input_size": 1}],
}


@pytest.mark.parametrize(("kind", "options"), [(kind, o) for kind in KINDS for o in OPTIONS + OWN[kind]])
def test_every_law_of_the_kit(kind: str, options: dict[str, Any]) -> None:
    given = {"input_size": 3, "hidden_size": 3} | options
    laws = check_recurrent(lambda: LAYERS[kind](**given), examples=settings().max_examples // 40)
    more = {"reversal"} if "bidirectional" in options else FORWARD
    assert set(laws) == EVERY | OF_A_LAYER | more | {"dropout" if "dropout" in options else "modes"}


@both_graphs
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid"])
def test_every_nonlinearity(nonlinearity: str, fused: bool) -> None:
    Case("rnn", T=6, B=2, nonlinearity=nonlinearity, fused=fused).check()


@both_graphs
@each_kind
@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 3), (4, 1), (0, 2), (3, 0), (0, 0)])
def test_sequences_and_batches_of_one_and_of_none(kind: str, T: int, B: int, fused: bool) -> None:
    Case(kind, T, B, fused=fused, num_layers=2, bidirectional=True).check()


@both_graphs
@each_kind
def test_a_vanishing_gradient_is_right_at_every_step(kind: str, fused: bool) -> None:
    """The loss sees the last output only: what reaches step 0 is tiny, and must be right relative to itself."""
    case = Case(kind, T=60, B=2, fused=fused)
    for name in ("dh", "dc"):
        case.arrays[name][:] = 0
    case.arrays["dy"][:-1] = 0
    layer = case.layer()
    expected = case.expected(layer)[3]["x"]
    assert np.abs(expected[0]).max() < 1e-6 * np.abs(expected[-1]).max()
    assert_steps_close(case.found(layer)[3]["x"], expected, 1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@both_graphs
@each_kind
def test_dtype_is_kept_and_float32_is_close_to_float64(kind: str, fused: bool, dtype: str) -> None:
    case = Case(kind, T=5, B=2, fused=fused, dtype=dtype)
    layer = case.layer()
    y, h_n, _, gradients = case.found(layer)
    assert {y.dtype, h_n.dtype, *(p.grad.dtype for p in layer.parameters())} == {np.dtype(dtype)}
    rtol = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-10}[dtype]
    expected = case.expected(layer)
    assert_close(y.astype("float64"), expected[0], rtol)
    for name in ("x", "weight_hh_l0", "bias_hh_l0"):
        assert_close(gradients[name].astype("float64"), expected[3][name], rtol)


@each_kind
def test_fused_and_plain_agree_in_float32_step_by_step(kind: str) -> None:
    case = Case(kind, T=20, B=3, hidden_size=8, dtype="float32", num_layers=2)
    one, other = case.found(case.layer(fused=True)), case.found(case.layer(fused=False))
    assert_steps_close(one[0], other[0], 1e-5)
    assert_steps_close(one[3]["x"], other[3]["x"], 1e-4)


@both_graphs
@each_kind
@given(data=st.data())
@examples(dev=8, ci=15, thorough=100)
def test_second_order(kind: str, fused: bool, data: Any) -> None:
    """A Hessian-vector product against the difference of the reference's gradients along the vector."""
    nonlinearity = data.draw(st.sampled_from(["tanh", "sigmoid"]))
    case = Case(
        kind,
        T=data.draw(st.integers(1, 4)),
        B=data.draw(st.integers(1, 2)),
        nonlinearity=nonlinearity,
        num_layers=data.draw(st.integers(1, 2)),
        bidirectional=data.draw(st.booleans()),
        bias=data.draw(st.booleans()),
        fused=fused,
        seed=data.draw(st.integers(0, 1000)),
    )
    layer = case.layer()
    a = {name: tr.Tensor(value) for name, value in case.arrays.items()}
    x = tr.Tensor(case.arrays["x"], requires_grad=True)
    state = (a["h0"], a["c0"]) if kind == "lstm" else a["h0"]
    leaves = {"x": x, **dict(layer.named_parameters())}
    rng = np.random.default_rng(case.seed)
    vectors = {name: rng.standard_normal(leaf.shape) for name, leaf in leaves.items()}
    loss = (layer(x, state)[0] * a["dy"]).sum()
    first = tr.grad(loss, list(leaves.values()), create_graph=True)
    along = sum(((g * v).sum() for g, v in zip(first, vectors.values(), strict=True)), tr.Tensor(0.0))
    second = tr.grad(along, list(leaves.values()))

    case.arrays["dh"][:] = 0
    case.arrays["dc"][:] = 0
    values = {name: leaf.numpy().copy() for name, leaf in leaves.items()}

    def gradients_at(step: float) -> dict[str, np.ndarray]:
        case.arrays["x"] = values["x"] + step * vectors["x"]
        for name, p in layer.named_parameters():
            p.assign_(values[name] + step * vectors[name])
        return case.expected(layer)[3]

    e = 1e-3
    at = {k: gradients_at(k * e) for k in (-2, -1, 1, 2)}
    for found, name in zip(second, leaves, strict=True):
        slope = (8 * (at[1][name] - at[-1][name]) - (at[2][name] - at[-2][name])) / (12 * e)
        assert_close(found.numpy(), slope, 1e-6)


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [90, 7, 41]])
def test_a_long_look_without_a_graph_is_the_same_to_the_last_bit(
    kind: str, bidirectional: bool, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made in pieces, so that the gates of all steps are never in memory at once."""
    layer = getattr(tr.nn, kind.split()[0].upper())(3, 4, bidirectional=bidirectional)
    embedding, ids = tr.nn.Embedding(5, 3), np.random.default_rng(0).integers(0, 5, (90, 3))
    pieces = []
    monkeypatch.setattr(recurrent, "AT_ONCE", 64)
    monkeypatch.setattr(recurrent, "in_pieces", lambda spans: (pieces.append(in_pieces(spans)), pieces[-1])[1])
    whole = layer(ids, embedding=embedding, lengths=lengths)
    assert not pieces
    with tr.no_grad():
        cut = layer(ids, embedding=embedding, lengths=lengths)
    assert len(pieces) == 1 + bidirectional and all(len(spans) >= 4 for spans in pieces)
    for a, b in zip(flat(whole), flat(cut), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def flat(x: Any) -> list[tr.Tensor]:
    return [v for part in x for v in flat(part)] if isinstance(x, tuple) else [x]


@both_graphs
@each_kind
def test_a_run_in_two_chunks_with_carried_state_is_one_run(kind: str, fused: bool) -> None:
    case = Case(kind, T=7, B=2, num_layers=2, fused=fused)
    layer = case.layer()
    x = tr.Tensor(case.arrays["x"], requires_grad=True)
    whole, end = layer(x)
    first, state = layer(x[:3])
    second, last = layer(x[3:], state)
    assert_close(tr.concatenate([first, second]).numpy(), whole.numpy(), 1e-13)
    pairs = zip(last, end, strict=True) if kind == "lstm" else [(last, end)]
    for found, expected in pairs:
        assert_close(found.numpy(), expected.numpy(), 1e-13)
    dy = tr.Tensor(case.arrays["dy"])
    (expected_dx,) = tr.grad((whole * dy).sum(), [x])
    (dx,) = tr.grad((tr.concatenate([first, second]) * dy).sum(), [x])
    assert_steps_close(dx.numpy(), expected_dx.numpy(), 1e-11)


@each_kind
def test_a_carried_state_that_was_not_detached_says_so(kind: str) -> None:
    layer = Case(kind, T=1, B=1).layer()
    x = tr.ones(2, 1, 3, dtype="float64")
    y, state = layer(x)
    y.sum().backward()
    y, _ = layer(x, state)
    with pytest.raises(GraphFreedError, match="detach"):
        y.sum().backward()


@both_graphs
@each_kind
def test_a_batch_is_its_rows_and_their_order_is_free(kind: str, fused: bool) -> None:
    case = Case(kind, T=4, B=3, num_layers=2, bidirectional=True, fused=fused)
    layer = case.layer()
    x = case.arrays["x"]
    y, state = layer(tr.Tensor(x))
    order = [2, 0, 1]
    assert_close(layer(tr.Tensor(x[:, order]))[0].numpy(), y.numpy()[:, order], 1e-13)
    for b in range(3):
        one, _ = layer(tr.Tensor(x[:, b : b + 1]))
        assert_close(one.numpy(), y.numpy()[:, b : b + 1], 1e-13)
        alone, last = layer(tr.Tensor(x[:, b]))  # (T, input_size): no batch at all
        assert_close(alone.numpy(), y.numpy()[:, b], 1e-13)
        h_n, h_one = (state[0], last[0]) if kind == "lstm" else (state, last)
        assert_close(h_one.numpy(), h_n.numpy()[:, b], 1e-13)


@each_kind
def test_without_a_batch_states_and_gradients_lose_that_axis(kind: str) -> None:
    case = Case(kind, T=4, B=1, num_layers=2, bidirectional=True)
    layer = case.layer()
    y, h_n, _, gradients = case.expected(layer)
    a = {k: tr.Tensor(v[:, 0], requires_grad=k in ("x", "h0", "c0")) for k, v in case.arrays.items()}
    if kind == "lstm":
        found, (h, c) = layer(a["x"], (a["h0"], a["c0"]))
        loss = (found * a["dy"]).sum() + (h * a["dh"]).sum() + (c * a["dc"]).sum()
    else:
        found, h = layer(a["x"], a["h0"])
        loss = (found * a["dy"]).sum() + (h * a["dh"]).sum()
    loss.backward()
    assert_close(found.numpy(), y[:, 0])
    assert_close(h.numpy(), h_n[:, 0])
    assert a["x"].grad is not None and a["h0"].grad is not None
    assert_steps_close(a["x"].grad.numpy(), gradients["x"][:, 0])
    assert_close(a["h0"].grad.numpy(), gradients["h0"][:, 0])


@both_graphs
@each_kind
def test_the_past_does_not_see_the_future(kind: str, fused: bool) -> None:
    case = Case(kind, T=6, B=2, fused=fused)
    layer = case.layer()
    x = case.arrays["x"].copy()
    before = layer(tr.Tensor(x))[0].numpy()
    x[4] += 1
    after = layer(tr.Tensor(x))[0].numpy()
    assert (before[:4] == after[:4]).all() and (before[4:] != after[4:]).any(axis=(1, 2)).all()


@each_kind
def test_the_backward_direction_is_a_forward_run_over_the_flipped_input(kind: str) -> None:
    case = Case(kind, T=5, B=2, bidirectional=True)
    layer, one_way = case.layer(), case.layer(bidirectional=False)
    for name, p in one_way.named_parameters():
        p.assign_(getattr(layer, f"{name}_reverse"))
    x = case.arrays["x"]
    y, state = layer(tr.Tensor(x))
    flipped, last = one_way(tr.Tensor(x[::-1].copy()))
    H = case.hidden_size
    assert_close(y.numpy()[:, :, H:], flipped.numpy()[::-1], 1e-13)
    h_n, h_one = (state[0], last[0]) if kind == "lstm" else (state, last)
    assert_close(h_n.numpy()[1], h_one.numpy()[0], 1e-13)
    assert_close(h_n.numpy()[1], y.numpy()[0, :, H:], 1e-13)  # after x_0, at the left end


@each_kind
def test_order_of_the_final_states(kind: str) -> None:
    """Layer 0 forward, layer 0 backward, layer 1 forward, ... as the docstring draws it."""
    case = Case(kind, T=5, B=2, num_layers=2, bidirectional=True)
    y, state = case.layer()(tr.Tensor(case.arrays["x"]))
    h_n = (state[0] if kind == "lstm" else state).numpy()
    H = case.hidden_size
    assert (h_n[2] == y.numpy()[-1, :, :H]).all() and (h_n[3] == y.numpy()[0, :, H:]).all()
    assert "h_n[3]" in (inspect.getdoc(tr.nn.RNN) or "")
    assert "layer 1 backward" in " ".join((inspect.getdoc(LAYERS[kind]) or "").split())


@both_graphs
@each_kind
@pytest.mark.parametrize("used", ["h_n", "c_n", "first output", "nothing of one layer"])
def test_unused_outputs(kind: str, used: str, fused: bool) -> None:
    case = Case(kind, T=4, B=2, num_layers=2, fused=fused)
    keep = {"h_n": ["dh"], "c_n": ["dc"], "first output": ["dy"], "nothing of one layer": ["dh"]}[used]
    for name in ("dy", "dh", "dc"):
        if name not in keep:
            case.arrays[name][:] = 0
    case.arrays["dy"][1:] = 0
    if used == "nothing of one layer":
        case.arrays["dh"][1] = 0
    layer = case.layer()
    a = {name: tr.Tensor(value, requires_grad=name in ("x", "h0", "c0")) for name, value in case.arrays.items()}
    if kind == "lstm":
        y, (h_n, c_n) = layer(a["x"], (a["h0"], a["c0"]))
    else:
        (y, h_n), c_n = layer(a["x"], a["h0"]), a["c0"] * 0
    loss = {
        "h_n": lambda: (h_n * a["dh"]).sum(),
        "c_n": lambda: (c_n * a["dc"]).sum(),
        "first output": lambda: (y[0] * a["dy"][0]).sum(),
        "nothing of one layer": lambda: (h_n[0] * a["dh"][0]).sum(),
    }[used]()
    loss.backward()
    gradients = case.expected(layer)[3]
    for name, leaf in {"x": a["x"], "h0": a["h0"], **dict(layer.named_parameters())}.items():
        found = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
        assert np.isfinite(found).all()
        assert_close(found, gradients[name])


def masks_of(case: Case, p: float, seed: int) -> list[np.ndarray]:
    """The masks that a layer draws after `tr.manual_seed(seed)`."""
    tr.manual_seed(seed)
    shape = (case.T, case.B, case.hidden_size * (1 + case.bidirectional))
    return [random.kept(shape, p) / (1 - p) for _ in range(case.num_layers - 1)]


@both_graphs
@each_kind
def test_dropout_between_layers_forwards_and_backwards(kind: str, fused: bool) -> None:
    case = Case(kind, T=5, B=3, num_layers=3, bidirectional=True, fused=fused)
    layer = case.layer()
    layer.dropout = 0.4
    tr.manual_seed(7)
    found = case.found(layer)
    expected = case.expected(layer, masks_of(case, 0.4, 7))
    assert_steps_close(found[0], expected[0])
    for name, g in expected[3].items():
        if name != "c0" or kind == "lstm":
            assert_close(found[3][name], g)
    layer.eval()
    assert_steps_close(case.found(layer)[0], case.expected(layer)[0])


@each_kind
def test_a_checkpointed_layer_replays_its_dropout_and_its_mode(kind: str) -> None:
    case = Case(kind, T=5, B=2, num_layers=2)
    layer = case.layer()
    layer.dropout = 0.5
    x = tr.Tensor(case.arrays["x"], requires_grad=True)
    tr.manual_seed(3)
    (expected,) = tr.grad((layer(x)[0] * case.arrays["dy"]).sum(), [x])
    tr.manual_seed(3)
    loss = (tr.checkpoint(lambda v: layer(v)[0], x) * case.arrays["dy"]).sum()
    layer.eval()
    tr.rand(100)
    (found,) = tr.grad(loss, [x])
    assert_close(found.numpy(), expected.numpy(), 1e-13)


@each_kind
def test_the_plain_steps_turn_their_weight_once(kind: str) -> None:
    layer = getattr(tr.nn, kind.upper())(3, 4, fused=False)

    def ops_of(T: int) -> Counter[str]:
        output, _ = layer(tr.randn(T, 2, 3))
        return Counter(node.plan.name for node in newest_first([output._node]) if node.plan)

    another_step = ops_of(5) - ops_of(4)
    assert another_step["linear"] == 1 and not {"matmul", "transpose"} & another_step.keys()


@each_kind
def test_kernels_write_to_no_argument(kind: str) -> None:
    case = Case(kind, T=3, B=2, num_layers=2)
    layer = case.layer()
    x = tr.Tensor(case.arrays["x"], requires_grad=True)
    for tensor in (x, *layer.parameters()):
        tensor._array.flags.writeable = False
    y, _ = layer(x)
    y._array.flags.writeable = False
    y.backward(case.arrays["dy"])


@each_kind
def test_with_kernels_off_everything_is_the_same(kind: str) -> None:
    case = Case(kind, T=4, B=2, num_layers=2, bidirectional=True)
    layer = case.layer()
    expected = case.found(layer)
    tr.enable_fused(False)
    try:
        found = case.found(layer)
    finally:
        tr.enable_fused(True)
    assert_close(found[0], expected[0], 1e-12)
    for name in expected[3]:
        assert_close(found[3][name], expected[3][name], 1e-11)


@each_kind
@both_graphs
def test_a_layer_records_the_kernel_or_the_plain_graph(kind: str, fused: bool) -> None:
    if not fused_enabled():
        pytest.skip("kernels are off")
    y, _ = Case(kind, 5, 4, fused=fused).layer()(tr.Tensor(np.ones((5, 4, 3))))
    recorded = {node.plan.name for node in newest_first([y._node]) if node.plan}
    assert (f"{kind}_step" in recorded) == fused
    assert ("tanh" in recorded) == (not fused)


@each_kind
def test_the_fused_graph_has_one_node_for_each_step(kind: str) -> None:
    if not fused_enabled():
        pytest.skip("kernels are off")

    def nodes(T: int) -> int:
        y, _ = Case(kind, T, 1).layer()(tr.Tensor(np.ones((T, 1, 3))))
        seen, stack = set(), [y._node]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen.add(node)
                stack.extend(node.sources or ())
        return len(seen)

    assert nodes(20) - nodes(10) == 10


@each_kind
def test_frozen_weights_get_no_gradient(kind: str) -> None:
    case = Case(kind, T=3, B=2)
    layer = case.layer()
    expected = case.found(layer)[3]
    layer.weight_hh_l0.requires_grad = False
    found = case.found(layer)[3]
    for name in ("x", "h0", "weight_ih_l0", "bias_hh_l0"):
        assert_close(found[name], expected[name], 1e-13)
    assert layer.weight_hh_l0.grad is None


@each_kind
def test_wrong_input_is_named(kind: str) -> None:
    layer = Case(kind, 1, 1, num_layers=2, bidirectional=True).layer()
    name = type(layer).__name__

    def x(*shape: int, dtype: str = "float64") -> tr.Tensor:
        return tr.zeros(*shape, dtype=dtype)

    def state(*shape: int, dtype: str = "float64") -> Any:
        return (x(*shape, dtype=dtype), x(*shape, dtype=dtype)) if kind == "lstm" else x(*shape, dtype=dtype)

    with pytest.raises(ShapeError, match=rf"{name}: input_size is 3.*last axis is 5 \(shape \(2, 1, 5\)\)"):
        layer(x(2, 1, 5))
    with pytest.raises(ShapeError, match=rf"{name}: the input must be \(T, B, input_size\)"):
        layer(x(2, 1, 1, 3))
    with pytest.raises(ShapeError, match=rf"{name}: h_0 must be .*= \(4, 1, 4\), got shape \(1, 1, 4\)"):
        layer(x(2, 1, 3), state(1, 1, 4))
    with pytest.raises(ShapeError, match=r"h_0 must be .*= \(4, 4\)"):
        layer(x(2, 3), state(4, 1, 4))
    with pytest.raises(DTypeError, match=f"{name}: the input is float32, but the weights are float64"):
        layer(x(2, 1, 3, dtype="float32"))
    with pytest.raises(DTypeError, match="h_0 is float32"):
        layer(x(2, 1, 3), state(4, 1, 4, dtype="float32"))
    with pytest.raises(DTypeError, match="int64"):
        layer(tr.Tensor(np.zeros((2, 1, 3), int)))
    if kind == "lstm":
        with pytest.raises(ShapeError, match="pair"):
            layer(x(2, 1, 3), x(4, 1, 4))
        with pytest.raises(ShapeError, match="c_0 must be"):
            layer(x(2, 1, 3), (x(4, 1, 4), x(4, 1, 5)))


@each_kind
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be a positive integer, got 0"),
        ({"input_size": -1}, "input_size"),
        ({"num_layers": 1.5}, "num_layers"),
        ({"dropout": 1.5}, r"dropout: the probability must lie in \[0, 1\], got 1.5"),
        ({"dropout": float("nan")}, "dropout"),
    ],
)
def test_wrong_options_are_named(kind: str, options: dict[str, Any], message: str) -> None:
    given = {"input_size": 3, "hidden_size": 4} | options
    with pytest.raises(ValueError, match=f"{LAYERS[kind].__name__}.*{message}"):
        LAYERS[kind](**given)


def test_unknown_nonlinearity() -> None:
    with pytest.raises(ValueError, match="tanh, relu, sigmoid, got 'softmax'"):
        tr.nn.RNN(1, 1, nonlinearity="softmax")


@each_kind
def test_names_shapes_and_scale_of_the_weights(kind: str) -> None:
    layer = LAYERS[kind](3, 16, num_layers=2, bidirectional=True)
    G = GATES[kind]
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    expected = {}
    for k, inputs in ((0, 3), (1, 32)):
        for tail in ("", "_reverse"):
            expected |= {
                f"weight_ih_l{k}{tail}": (G * 16, inputs),
                f"weight_hh_l{k}{tail}": (G * 16, 16),
                f"bias_ih_l{k}{tail}": (G * 16,),
                f"bias_hh_l{k}{tail}": (G * 16,),
            }
    assert shapes == expected and list(shapes) == list(expected)
    assert all(0.9 / 4 < np.abs(p.numpy()).max() <= 1 / 4 for p in layer.parameters() if p.ndim == 2)
    no_bias = LAYERS[kind](3, 4, bias=False)
    assert [name for name, _ in no_bias.named_parameters()] == ["weight_ih_l0", "weight_hh_l0"]
    assert no_bias.bias_ih_l0 is None


@each_kind
def test_a_seed_gives_the_same_weights_in_every_dtype(kind: str) -> None:
    tr.manual_seed(5)
    one = LAYERS[kind](3, 4)
    tr.manual_seed(5)
    other = LAYERS[kind](3, 4, dtype="float64")
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert (p.numpy() == q.numpy().astype("float32")).all()


@each_kind
def test_on_another_library_of_arrays_the_equations_run(kind: str) -> None:
    """Kernels are for NumPy and CuPy; what they stand for runs on any array of the standard."""
    xp = pytest.importorskip("array_api_strict")
    case = Case(kind, T=4, B=2, num_layers=2, bidirectional=True)
    layer, other = case.layer(), case.layer()
    for p in other.parameters():
        p.requires_grad = False
        p._array = xp.asarray(p._array)
        p.requires_grad = True
    x = case.arrays["x"]
    y, z = layer(tr.Tensor(x))[0], other(tr.Tensor(xp.asarray(x)))[0]
    y.sum().backward()
    z.sum().backward()
    assert_close(z.numpy(), y.numpy(), 1e-13)
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        assert q.grad is not None
        assert_close(q.grad.numpy(), p.grad.numpy(), 1e-11)


@pytest.mark.gpu
@both_graphs
@each_kind
def test_on_a_gpu_everything_is_as_on_the_cpu(kind: str, fused: bool) -> None:
    case = Case(kind, T=5, B=3, num_layers=2, bidirectional=True, fused=fused)
    here, there = case.layer(), case.layer().to("cuda")
    x, y = (tr.Tensor(case.arrays["x"], device=device, requires_grad=True) for device in ("cpu", "cuda"))
    results = [here(x)[0], there(y)[0]]
    for result in results:
        (result * result).sum().backward()
    assert_steps_close(results[1].numpy(), results[0].numpy(), 1e-12)
    assert x.grad is not None and y.grad is not None
    assert_steps_close(y.grad.numpy(), x.grad.numpy(), 1e-10)
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert q.device == "cuda:0"
        assert_close(q.grad.numpy(), p.grad.numpy(), 1e-10)
