"""N compiled steps are N plain steps, bit for bit; when a step is recorded anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.compiler.steps import OPTIMIZERS, Model, V, batches, counted, run, trainer
from tests.profiles import examples
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.testing import DOMAINS

CASES = [
    {"kind": kind, "fused": fused, "dropout": 0.3} for kind in ("RNN", "LSTM", "GRU") for fused in (True, False)
] + [
    {"kind": "LSTM", "num_layers": 2, "bidirectional": True, "lengths": [4, 1, 3]},
    {"kind": "GRU", "num_layers": 2, "dropout": 0.5, "rule": "SGD"},
    {"kind": "LSTM", "layer_norm": True, "recurrent_dropout": 0.4, "rule": "AdamW"},
    {"kind": "RNN", "nonlinearity": "relu", "rule": "RMSprop"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_compiled_steps_are_the_steps_themselves(case: dict[str, Any]) -> None:
    assert run(True, T=4, B=3, H=5, **case) == run(False, T=4, B=3, H=5, **case)


@examples(dev=15, ci=15, thorough=150)
@given(
    kind=st.sampled_from(["RNN", "LSTM", "GRU"]),
    T=st.integers(1, 6),
    B=st.integers(1, 4),
    H=st.integers(1, 9),
    layers=st.integers(1, 2),
    both=st.booleans(),
    fused=st.booleans(),
    bias=st.booleans(),
    rule=st.sampled_from(sorted(OPTIMIZERS)),
    data=st.data(),
)
def test_steps_of_any_shape(
    kind: str, T: int, B: int, H: int, layers: int, both: bool, fused: bool, bias: bool, rule: str, data: Any
) -> None:
    lengths = data.draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B))
    options = {"num_layers": layers, "bidirectional": both, "fused": fused, "bias": bias, "lengths": lengths}
    sizes = {"kind": kind, "T": T, "B": B, "H": H, "rule": rule}
    assert run(True, **sizes, **options) == run(False, **sizes, **options)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_steps_with_numba_stages(kind: str) -> None:
    pytest.importorskip("numba")
    before = backend.stages
    tr.enable_numba()
    try:
        assert run(True, kind, 5, 3, 8) == run(False, kind, 5, 3, 8)
    finally:
        backend.use_stages(before)


def test_steps_with_all_kernels_off() -> None:
    tr.enable_fused(False)
    try:
        assert run(True, "LSTM", 3, 2, 4) == run(False, "LSTM", 3, 2, 4)
    finally:
        tr.enable_fused(True)


ROWS = {str(domain): domain for domain in DOMAINS}
REFUSED = {"getitem"}  # some of its cases have boolean masks


@pytest.mark.parametrize("row", ROWS)
def test_every_op_and_its_derivatives(row: str) -> None:
    domain = ROWS[row]

    def outcome(options: dict[str, Any], *arrays: Any) -> Any:
        xs = [tr.Tensor(x) for x in arrays]
        for x in xs:
            x.requires_grad = x.dtype.kind == "f"
        y = domain(*xs, **options)
        ys = y if isinstance(y, list) else [y]
        loss = sum(tr.square(y).sum() for y in ys)
        if loss.requires_grad:
            loss.backward()
        return [*(y.detach() for y in ys), *(x.grad for x in xs)]

    for seed in range(4):
        case = domain.sample(seed)
        step = tr.compile(lambda *arrays, options=case.options: outcome(options, *arrays))
        for again in range(4):
            arrays = replace(case, seed=case.seed + 7 * again).arrays(domain)
            try:
                found = step(*arrays)
            except CompileError:
                if row not in REFUSED:
                    raise
                break
            for ours, plain in zip(found, outcome(case.options, *arrays), strict=True):
                assert (ours is None) == (plain is None)
                if ours is not None:
                    assert ours.dtype == plain.dtype
                    np.testing.assert_array_equal(ours.numpy(), plain.numpy())


def layers() -> dict[str, tuple[Callable[[], Any], tuple[int, ...]]]:
    nn = tr.nn
    return {
        "Conv1d": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 9)),
        "Conv2d, MaxPool2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)), (2, 3, 6, 6)),
        "BatchNorm1d": (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.2)), (5, 4)),
        "LayerNorm": (lambda: nn.LayerNorm(4), (5, 4)),
        "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3), (5, 2, 8)),
        "LSTMCell": (lambda: nn.LSTMCell(4, 5), (2, 4)),
        "GRUCell": (lambda: nn.GRUCell(4, 5), (2, 4)),
        "activations": (lambda: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.ELU(), nn.LogSoftmax()), (3, 4)),
    }


@pytest.mark.parametrize("name", layers())
def test_steps_of_other_layers(name: str) -> None:
    make, shape = layers()[name]

    def outcome(compiled: bool) -> Any:
        tr.manual_seed(0)
        layer = make()
        optimizer = tr.optim.Adam(layer.parameters(), lr=0.01)

        def step(x: Any, target: Any) -> Any:
            y = layer(x)
            loss = tr.nn.functional.huber_loss(y[0] if isinstance(y, tuple) else y, target, mask=target < 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        f = tr.compile(step) if compiled else step
        rng = np.random.default_rng(1)
        y = layer(tr.zeros(*shape))
        y = y[0] if isinstance(y, tuple) else y
        for _ in range(5):
            f(tr.Tensor(rng.standard_normal(shape), "float32"), tr.Tensor(rng.standard_normal(y.shape), "float32"))
        return [t.numpy().tobytes() for t in (*layer.parameters(), *layer.buffers())]

    assert outcome(True) == outcome(False)


def test_only_the_last_recordings_are_kept() -> None:
    step, ran = counted(lambda x, k: x * k)
    for k in range(20):
        step(np.ones(2), k)
    assert len(step.compiled.found) == 8
    assert len(ran) == 20


def test_the_mode_of_modules_and_the_switches_are_watched() -> None:
    drop = tr.nn.Dropout(0.5)
    step, ran = counted(lambda x: drop(x))
    for _ in range(3):
        assert (step(tr.ones(50)).numpy() == 0).any()
    drop.eval()
    for _ in range(3):
        assert (step(tr.ones(50)).numpy() == 1).all()
    drop.train()
    assert (step(tr.ones(50)).numpy() == 0).any()
    before = len(ran)
    tr.enable_fused(False)
    try:
        step(tr.ones(50))
    finally:
        tr.enable_fused(True)
    assert len(ran) == before + 1
    with tr.no_grad():
        step(tr.ones(50))
    assert len(ran) == before + 2


def test_anomalies_are_looked_for_in_the_step_itself() -> None:
    step, ran = counted(lambda x: x * 2)
    with tr.detect_anomaly():
        for _ in range(4):
            step(tr.ones(1))
    assert len(ran) == 4


def test_two_compiled_functions_do_not_disturb_each_other() -> None:
    model = Model("GRU", 4)
    optimizer = tr.optim.SGD(model.parameters(), lr=0.1)
    train = tr.compile(trainer(model, optimizer))

    @tr.compile
    @tr.no_grad()
    def evaluate(ids: Any, targets: Any) -> Any:
        return tr.nn.functional.cross_entropy(model(ids), targets)

    twin = Model("GRU", 4)
    plain = trainer(twin, tr.optim.SGD(twin.parameters(), lr=0.1))
    for ids, targets in batches(3, 2):
        train(ids, targets)
        plain(ids, targets)
        with tr.no_grad():
            expected = tr.nn.functional.cross_entropy(twin(ids), targets).item()
        assert evaluate(ids, targets).item() == expected


def test_one_inside_another_is_a_part_of_it() -> None:
    inner = tr.compile(lambda x: tr.tanh(x))
    outer, ran = counted(lambda x: inner(x) * 2)
    for k in range(4):
        assert outer(np.float64([k])).tolist() == [2 * np.tanh(k)]
    assert len(ran) == 2 and not inner.compiled.found


def test_errors_leave_all_usable() -> None:
    model = Model("LSTM", 4)
    optimizer = tr.optim.SGD(model.parameters(), lr=0.1)
    step = tr.compile(trainer(model, optimizer))
    (ids, targets), *rest = batches(3, 2)
    for n in range(4):  # while it is recorded, and when it is replayed
        before = [p.numpy() for p in model.parameters()]
        with pytest.raises(ValueError, match="id 99 "):
            step(np.full_like(ids, 99), targets)
        assert all(np.array_equal(p.numpy(), b) for p, b in zip(model.parameters(), before, strict=True))
        step(*rest[n])
    head = model.head
    head.weight.assign_(np.full(head.weight.shape, np.nan))
    with pytest.raises(tr.errors.NonFiniteError):
        step(ids, targets)
    tr.nn.functional.cross_entropy(model(ids), np.abs(targets) % V).backward()


def test_writes_in_place_are_those_of_a_plain_call():
    """To a gradient, to a buffer under another name, and in a hook."""

    def trained(compiled):
        p, norm = tr.nn.Parameter([1.0, 2.0]), tr.nn.BatchNorm1d(2)

        def doubled(g):
            g *= 2

        p.register_hook(doubled)

        def step(x):
            p.grad = None
            (p * x).sum().backward()
            p.grad *= 0.25
            running = norm.running_var
            running += x
            norm.running_mean += 1.0
            return p.grad.detach()

        f = tr.compile(step) if compiled else step
        return [(f(tr.Tensor([k, 1.0])).tolist(), *map(tr.Tensor.tolist, norm.buffers())) for k in range(4)]

    assert trained(False) == trained(True)


def test_masks_are_combined_in_a_recording():
    def step(x):
        return (x > 0) & (x < 2), ((x > 0) | (x < -1)).any(), ~(x > 1), tr.logical_xor(x, x > 1).all()

    compiled = tr.compile(step)
    for k in range(4):
        x = tr.Tensor([k, 1.0, -2.0])
        assert [y.tolist() for y in step(x)] == [y.tolist() for y in compiled(x)]


def test_one_number_taken_twice_is_differentiated_in_a_recording():
    """Its place is an array of the recording, which has no value that the sum of the parts could ask for."""
    w = tr.nn.Parameter([1.0, 2.0, 3.0])

    def step(x):
        first = tr.take(w, 0, axis=0)
        (g,) = tr.grad(first * first * x.sum() + (w * w).sum(), [w], create_graph=True)
        return tr.grad((g * g).sum(), [w])[0]

    compiled = tr.compile(step)
    for k in range(4):
        x = tr.Tensor([k, 1.0])
        assert compiled(x).tolist() == step(x).tolist()
