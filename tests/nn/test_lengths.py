"""`lengths=`: a ragged batch is its sequences run one by one, whatever stands past their ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
import tinygrad_rnn.explain
from tests.nn.test_recurrent import KINDS, LAYERS, Case, both_graphs, each_kind, masks_of
from tests.profiles import examples
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import cells


@st.composite
def ragged(draw: Any, max_T: int = 5, max_B: int = 4) -> tuple[Case, list[int]]:
    """A case and the lengths of its sequences, in any order; the longest may end before T."""
    T = draw(st.integers(1, max_T))
    lengths = draw(st.lists(st.integers(1, T), min_size=1, max_size=max_B))
    case = Case(
        draw(st.sampled_from(KINDS)),
        T,
        len(lengths),
        input_size=draw(st.integers(1, 3)),
        hidden_size=draw(st.integers(1, 3)),
        num_layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        nonlinearity=draw(st.sampled_from(["tanh", "relu", "sigmoid"])),
        fused=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        seed=draw(st.integers(0, 2**20)),
    )
    return case, lengths


def results(case: Case, layer: Any, lengths: Any) -> tuple[list[Any], list[Any]]:
    """Output, h_n and c_n (time major), and x, h_0 and c_0, of a run with NaN past every end.

    Of every second seed the lengths are in an array: then a sequence that has ended keeps its state.
    """
    if case.seed % 2 and isinstance(lengths, list):
        lengths = np.array(lengths)
    x = case.arrays["x"].copy()
    for b, n in enumerate(lengths):
        x[n:, b] = np.nan
    leaves = [tr.Tensor(a, requires_grad=True) for a in (x, case.arrays["h0"], case.arrays["c0"])]
    swap = (lambda v: v.swapaxes(0, 1)) if case.batch_first else (lambda v: v)
    if case.kind == "lstm":
        y, (h_n, c_n) = layer(swap(leaves[0]), (leaves[1], leaves[2]), lengths=lengths)
    else:
        y, h_n = layer(swap(leaves[0]), leaves[1], lengths=lengths)
        c_n = leaves[2] * 0
    return [swap(y), h_n, c_n], leaves


def weighted(outputs: list[Any], case: Case) -> tr.Tensor:
    """A scalar that weighs every output, what lies past the ends too."""
    return sum(((y * case.arrays[n]).sum() for y, n in zip(outputs, ("dy", "dh", "dc"), strict=True)), tr.Tensor(0.0))


@given(ragged())
def test_a_ragged_batch_is_its_sequences_one_by_one(drawn: tuple[Case, list[int]]) -> None:
    """Values and every gradient against the hand-written reference, run on each sequence alone."""
    case, lengths = drawn
    layer = case.layer()
    outputs, leaves = results(case, layer, lengths)
    weighted(outputs, case).backward()
    y, h_n, c_n = (v.numpy() for v in outputs)
    totals: dict[str, Any] = {}
    for b, n in enumerate(lengths):
        one = Case(**{f: getattr(case, f) for f in case.__dataclass_fields__} | {"B": 1})
        one.arrays = {k: v[:n, b : b + 1] if k in ("x", "dy") else v[:, b : b + 1] for k, v in case.arrays.items()}
        expected_y, expected_h, expected_c, gradients = one.expected(layer)
        assert_close(y[:n, b : b + 1], expected_y)
        assert (y[n:, b] == 0).all()
        assert_close(h_n[:, b : b + 1], expected_h)
        if case.kind == "lstm":
            assert_close(c_n[:, b : b + 1], expected_c)
            assert_close(leaves[2].grad.numpy()[:, b : b + 1], gradients["c0"])
        dx = leaves[0].grad.numpy()[:, b : b + 1]
        for t in range(n):
            assert_close(dx[t], gradients["x"][t], 1e-9)
        assert (dx[n:] == 0).all()
        assert_close(leaves[1].grad.numpy()[:, b : b + 1], gradients["h0"])
        for name, _ in layer.named_parameters():
            totals[name] = totals.get(name, 0) + gradients[name]
    for name, p in layer.named_parameters():
        assert p.grad is not None
        assert_close(p.grad.numpy(), totals[name], 1e-9)


@given(ragged(max_T=4, max_B=3))
@examples(dev=15, ci=30, thorough=200)
def test_second_order(drawn: tuple[Case, list[int]]) -> None:
    """A Hessian-vector product of the batch is the sum of those of its sequences."""
    case, lengths = drawn
    layer = case.layer()
    rng = np.random.default_rng(case.seed)
    weights = list(layer.parameters())
    vectors = [rng.standard_normal(w.shape) for w in weights]
    vx = rng.standard_normal(case.arrays["x"].shape)
    for b, n in enumerate(lengths):
        vx[n:, b] = 0

    def second(loss: tr.Tensor, x: tr.Tensor, v: np.ndarray) -> list[np.ndarray]:
        leaves = [x, *weights]
        first = tr.grad(loss, leaves, create_graph=True)
        along = sum(((g * u).sum() for g, u in zip(first, [v, *vectors], strict=True)), tr.Tensor(0.0))
        return [g.numpy() for g in tr.grad(along, leaves)]

    outputs, (x, _, _) = results(case, layer, lengths)
    if case.batch_first:
        layer.batch_first = False
    found = second(weighted(outputs, case), x, vx)
    total: list[Any] = [0.0] * len(weights)
    for b, n in enumerate(lengths):
        a = {k: v[:n, b : b + 1] if k in ("x", "dy") else v[:, b : b + 1] for k, v in case.arrays.items()}
        one = tr.Tensor(a["x"], requires_grad=True)
        if case.kind == "lstm":
            y, (h, c) = layer(one, (tr.Tensor(a["h0"]), tr.Tensor(a["c0"])))
            loss = (y * a["dy"]).sum() + (h * a["dh"]).sum() + (c * a["dc"]).sum()
        else:
            y, h = layer(one, tr.Tensor(a["h0"]))
            loss = (y * a["dy"]).sum() + (h * a["dh"]).sum()
        dx, *rest = second(loss, one, vx[:n, b : b + 1])
        assert_close(found[0][:n, b : b + 1], dx, 1e-8)
        assert (found[0][n:, b] == 0).all()
        total = [t + g for t, g in zip(total, rest, strict=True)]
    for g, t in zip(found[1:], total, strict=True):
        assert_close(g, t, 1e-8)


@given(ragged(), st.booleans())
@examples(dev=25, ci=50, thorough=500)
def test_is_what_pytorch_does_with_a_packed_sequence(drawn: tuple[Case, list[int]], as_tensor: bool) -> None:
    torch = pytest.importorskip("torch")
    case, lengths = drawn
    if case.nonlinearity == "sigmoid":
        case.nonlinearity = "tanh"
    layer = case.layer()
    names = ("num_layers", "bidirectional", "bias", "batch_first")
    options = {name: getattr(case, name) for name in names} | {"dtype": torch.float64}
    options |= {"nonlinearity": case.nonlinearity} if case.kind == "rnn" else {}
    theirs = getattr(torch.nn, type(layer).__name__)(case.input_size, case.hidden_size, **options)
    theirs.load_state_dict({n: torch.tensor(p.numpy()) for n, p in layer.named_parameters()})
    outputs, leaves = results(case, layer, tr.Tensor(lengths) if as_tensor else lengths)
    weighted(outputs, case).backward()

    x, h0, c0 = (torch.tensor(case.arrays[n], requires_grad=True) for n in ("x", "h0", "c0"))
    swap = (lambda v: v.transpose(0, 1)) if case.batch_first else (lambda v: v)
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(swap(x), lengths, batch_first=case.batch_first, enforce_sorted=False)
    y, final = theirs(packed, (h0, c0) if case.kind == "lstm" else h0)
    y, _ = rnn.pad_packed_sequence(y, batch_first=case.batch_first, total_length=case.T)
    h_n, c_n = final if case.kind == "lstm" else (final, c0 * 0)
    loss = 0.0
    for found, expected, name in zip(outputs, (swap(y), h_n, c_n), ("dy", "dh", "dc"), strict=True):
        assert_close(found.numpy(), expected.detach().numpy())
        loss = loss + (expected * torch.tensor(case.arrays[name])).sum()
    loss.backward()
    for leaf, other in zip((*leaves, *layer.parameters()), (x, h0, c0, *theirs.parameters()), strict=True):
        assert leaf.grad is not None
        assert_close(leaf.grad.numpy(), other.grad.numpy(), 1e-9)


@both_graphs
@each_kind
def test_a_vanishing_gradient_is_right_at_every_step_of_every_length(kind: str, fused: bool) -> None:
    case = Case(kind, T=40, B=3, fused=fused)
    layer, lengths = case.layer(), [25, 40, 31]
    (y, h_n, _), (x, _, _) = results(case, layer, lengths)
    (h_n * case.arrays["dh"]).sum().backward()
    assert x.grad is not None and (y.numpy()[25:, 0] == 0).all()
    for b, n in enumerate(lengths):
        one = tr.Tensor(case.arrays["x"][:n, b : b + 1], requires_grad=True)
        states = [tr.Tensor(case.arrays[k][:, b : b + 1]) for k in ("h0", "c0")]
        _, end = layer(one, tuple(states) if kind == "lstm" else states[0])
        ((end[0] if kind == "lstm" else end) * case.arrays["dh"][:, b : b + 1]).sum().backward()
        assert one.grad is not None
        for t in range(n):
            assert_close(x.grad.numpy()[t, b], one.grad.numpy()[t, 0], 1e-8)


@each_kind
def test_the_backward_direction_begins_at_each_sequences_own_last_step(kind: str) -> None:
    """It has seen one step there: what came before, or after the end, cannot matter."""
    case = Case(kind, T=5, B=2, bidirectional=True)
    layer, H = case.layer(), case.hidden_size
    (y, _, _), _ = results(case, layer, [3, 5])
    case.arrays["x"][:2, 0] += 1
    case.arrays["x"][3:, 0] -= 1
    (z, _, _), _ = results(case, layer, [3, 5])
    assert_close(z.numpy()[2, 0, H:], y.numpy()[2, 0, H:], 1e-15)
    assert (z.numpy()[2, 0, :H] != y.numpy()[2, 0, :H]).any()


@both_graphs
@each_kind
def test_full_lengths_are_no_lengths_and_the_order_of_sequences_is_free(kind: str, fused: bool) -> None:
    case = Case(kind, T=4, B=3, num_layers=2, bidirectional=True, fused=fused)
    layer, x = case.layer(), case.arrays["x"]
    assert (layer(tr.Tensor(x))[0].numpy() == layer(tr.Tensor(x), lengths=[4, 4, 4])[0].numpy()).all()
    y = layer(tr.Tensor(x), lengths=[2, 4, 1])[0].numpy()
    z = layer(tr.Tensor(x[:, [2, 0, 1]]), lengths=[1, 2, 4])[0].numpy()
    assert_close(z, y[:, [2, 0, 1]], 1e-13)
    assert_close(layer(tr.Tensor(x), lengths=tr.Tensor([2, 4, 1]))[0].numpy(), y, 1e-13)


@both_graphs
@each_kind
def test_dropout_between_layers_forwards_and_backwards(kind: str, fused: bool) -> None:
    """Each sequence by the reference with its own part of the masks, which are drawn for the longest first."""
    lengths = [2, 5, 1, 4]
    case = Case(kind, T=5, B=4, num_layers=3, bidirectional=True, fused=fused)
    layer = case.layer()
    layer.dropout = 0.4
    tr.manual_seed(7)
    outputs, (x, _, _) = results(case, layer, lengths)
    weighted(outputs, case).backward()
    longest_first = sorted(range(4), key=lambda b: -lengths[b])
    masks, totals = masks_of(case, 0.4, 7), dict.fromkeys((n for n, _ in layer.named_parameters()), 0.0)
    assert x.grad is not None
    for place, b in enumerate(longest_first):
        n = lengths[b]
        one = Case(kind, T=5, B=1, num_layers=3, bidirectional=True)
        one.arrays = {k: v[:n, b : b + 1] if k in ("x", "dy") else v[:, b : b + 1] for k, v in case.arrays.items()}
        y, h_n, _, gradients = one.expected(layer, [m[:n, place : place + 1] for m in masks])
        assert_close(outputs[0].numpy()[:n, b : b + 1], y)
        assert_close(outputs[1].numpy()[:, b : b + 1], h_n)
        assert_close(x.grad.numpy()[:n, b : b + 1], gradients["x"])
        totals = {name: total + gradients[name] for name, total in totals.items()}
    for name, p in layer.named_parameters():
        assert p.grad is not None
        assert_close(p.grad.numpy(), np.asarray(totals[name]), 1e-9)


@each_kind
def test_what_is_masked_stays_out_with_dropout_and_in_float32(kind: str) -> None:
    layer = LAYERS[kind](3, 4, 3, dropout=0.5, bidirectional=True)
    x = tr.randn(6, 3, 3, requires_grad=True)
    tr.manual_seed(0)
    y, _ = layer(x, lengths=[2, 6, 3])
    assert y.dtype == np.float32 and (y.numpy()[2:, 0] == 0).all() and (y.numpy()[3:, 2] == 0).all()
    (dx,) = tr.grad(tr.square(y).sum(), [x])
    assert (dx.numpy()[2:, 0] == 0).all() and (dx.numpy()[:2, 0] != 0).any() and dx.dtype == np.float32
    tr.manual_seed(0)
    again = tr.checkpoint(lambda v: layer(v, lengths=[2, 6, 3])[0], x)
    assert (again.numpy() == y.numpy()).all()
    assert_close(tr.grad(tr.square(again).sum(), x).numpy(), dx.numpy(), 1e-6)


@each_kind
def test_a_masked_loss_of_a_padded_batch_is_finite_and_is_that_of_its_sequences(kind: str) -> None:
    case = Case(kind, T=5, B=3)
    layer, lengths = case.layer(), [2, 5, 1]
    (y, _, _), (x, _, _) = results(case, layer, lengths)
    ids = np.random.default_rng(0).integers(0, 4, (5, 3))
    mask = tr.nn.functional.sequence_mask(lengths, 5)
    loss = tr.nn.functional.cross_entropy(y, np.where(mask.numpy(), ids, -100))
    terms = [
        tr.nn.functional.cross_entropy(y[:n, b], ids[:n, b], reduction="sum").item() for b, n in enumerate(lengths)
    ]
    assert_close(loss.numpy(), np.asarray(sum(terms) / 8), 1e-12)
    assert_close(tr.nn.functional.cross_entropy(y, ids, mask=mask).numpy(), loss.numpy(), 1e-15)
    loss.backward()
    assert x.grad is not None and np.isfinite(x.grad.numpy()).all()
    assert all(p.grad is not None and np.isfinite(p.grad.numpy()).all() for p in layer.parameters())


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_in_which_some_rest_is_its_definition(kind: str, dtype: str) -> None:
    """All rows of its output and all gradients, those that come in through the gates of who rests included."""
    T, B, H, gates, rows = 6, 5, 4, {"rnn": 1, "lstm": 4, "gru": 3}[kind], {"rnn": 1, "lstm": 2, "gru": 1}[kind]
    rng = np.random.default_rng(0)
    runs = np.array([1, 0, 1, 1, 0], dtype).reshape(1, B, 1) * np.ones((T, 1, 1), dtype)
    shapes = [(T, B, gates * H), (B, H) if kind == "rnn" else (rows, B, H), (gates * H, H)]
    shapes += [(H,)] if kind == "gru" else []
    values = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    step, options = getattr(cells, f"{kind}_step"), {"nonlinearity": "relu"} if kind == "rnn" else {}
    found = []
    for on in (True, False):
        leaves = [tr.Tensor(v, requires_grad=True) for v in values]
        tr.enable_fused(on)
        try:
            y = step(*leaves, t=2, runs=runs, **options)
            g = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
            found.append([y, *tr.grad(y, leaves, g)])
        finally:
            tr.enable_fused(True)
    for ours, plain in zip(*found, strict=True):
        assert_close(ours.numpy(), plain.numpy(), 1e-5 if dtype == "float32" else 1e-13)
    after, before = (v.reshape(-1, B, H)[-rows:] for v in (found[0][0].numpy(), values[1]))
    assert (after[:, [1, 4]] == before[:, [1, 4]]).all() and (after[:, 0] != before[:, 0]).any()


def test_whoever_watches_sees_the_sequences_that_run() -> None:
    layer, x = LAYERS["lstm"](3, 4), tr.randn(5, 3, 3)
    found = [tr.explain.gates(layer, x, lengths=lengths)[0] for lengths in ([2, 5, 4], np.array([2, 5, 4]))]
    for a, b in zip(*(vars(f).values() for f in found), strict=True):
        assert not isinstance(a, np.ndarray) or np.array_equal(a, b, equal_nan=True)


@each_kind
def test_wrong_lengths_are_named(kind: str) -> None:
    layer = LAYERS[kind](3, 4)
    name, x = type(layer).__name__, tr.zeros(5, 3, 3)
    with pytest.raises(ValueError, match=rf"{name}: lengths\[1\] is 0, but a sequence has at least one step"):
        layer(x, lengths=[5, 0, 1])
    with pytest.raises(ValueError, match=r"lengths\[0\] is -1"):
        layer(x, lengths=[-1, 2, 1])
    with pytest.raises(ValueError, match=r"lengths\[2\] is 6, but the input has 5 steps"):
        layer(x, lengths=np.array([5, 1, 6]))
    with pytest.raises(ShapeError, match=r"a batch of 3 needs 3 lengths, got shape \(2,\)"):
        layer(x, lengths=[5, 1])
    with pytest.raises(ShapeError, match=r"3 lengths, got shape \(\)"):
        layer(x, lengths=5)
    with pytest.raises(DTypeError, match="lengths must be integers, got float32"):
        layer(x, lengths=[1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match="lengths= is for a batch"):
        layer(tr.zeros(5, 3), lengths=[5])
    with pytest.raises(ValueError, match=r"lengths\[0\] is 1, but the input has 0 steps"):
        layer(tr.zeros(0, 1, 3), lengths=[1])


@pytest.mark.parametrize("T", [0, 5])
@each_kind
def test_a_batch_of_no_sequences(kind: str, T: int) -> None:
    results = []
    for lengths in ([], None):
        layer = Case(kind, T, 0, num_layers=2, bidirectional=True).layer()
        y, state = layer(tr.zeros(T, 0, 3, dtype="float64"), lengths=lengths)
        if y.requires_grad:
            y.sum().backward()
        results.append([y, *(state if kind == "lstm" else [state]), *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a.shape == b.shape and not a.numpy().any())


@pytest.mark.parametrize("lengths", [[2, 4, 1], np.array([2, 4, 1])], ids=["list", "array"])
@each_kind
def test_on_another_library_of_arrays(kind: str, lengths: Any) -> None:
    xp = pytest.importorskip("array_api_strict")
    case = Case(kind, T=4, B=3, num_layers=2, bidirectional=True)
    layer, other = case.layer(), case.layer()
    for p in other.parameters():
        p.requires_grad = False
        p._array = xp.asarray(p._array)
        p.requires_grad = True
    y = layer(tr.Tensor(case.arrays["x"]), lengths=lengths)[0]
    z = other(tr.Tensor(xp.asarray(case.arrays["x"])), lengths=lengths)[0]
    y.sum().backward()
    z.sum().backward()
    assert_close(z.numpy(), y.numpy(), 1e-13)
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        assert_close(q.grad.numpy(), p.grad.numpy(), 1e-11)


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", [[2, 5, 1], np.array([2, 5, 1])], ids=["list", "array"])
@both_graphs
@each_kind
def test_on_a_gpu_lengths_are_as_on_the_cpu(kind: str, fused: bool, lengths: Any) -> None:
    case = Case(kind, T=5, B=3, num_layers=2, bidirectional=True, fused=fused)
    here, there = case.layer(), case.layer().to("cuda")
    results = [
        layer(tr.Tensor(case.arrays["x"], device=device), lengths=lengths)[0]
        for layer, device in ((here, "cpu"), (there, "cuda"))
    ]
    for y in results:
        (y * y).sum().backward()
    assert_close(results[1].numpy(), results[0].numpy(), 1e-12)
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert_close(q.grad.numpy(), p.grad.numpy(), 1e-10)


def test_of_many_steps_each_piece_knows_its_own_lengths() -> None:
    """Where no graph is built a long layer runs piece by piece: with lengths in an array, too."""
    embed, layer = tr.nn.Embedding(3, 2), tr.nn.LSTM(2, 3, bidirectional=True)
    ids, lengths = np.random.default_rng(0).integers(0, 3, (70, 32)), np.arange(32) * 2 + 7
    with tr.no_grad():
        found = [layer(ids, lengths=given, embedding=embed) for given in (lengths, lengths.tolist())]
    assert_close(found[0][0].numpy(), found[1][0].numpy(), 1e-6)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert_close(a.numpy(), b.numpy(), 1e-6)
