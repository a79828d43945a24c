"""`tr.compile`: N compiled steps are N plain steps, bit for bit; what cannot be repeated is an error with its line."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.compiler import arrays, leaves, memory, program, traced
from tinygrad_rnn.compiler.program import Program
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.testing import DOMAINS

V = 7
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: tr.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "RMSprop": lambda p: tr.optim.RMSprop(p, lr=0.01),
    "Adam": lambda p: tr.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: tr.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


class Model(tr.nn.Module):
    """Embedding, dropout, a recurrent layer, linear."""

    def __init__(self, kind: str, H: int, dropout: float = 0.0, **options: Any) -> None:
        rng = np.random.default_rng(0)
        self.embed = tr.nn.Embedding(V, H, generator=rng)
        self.drop = tr.nn.Dropout(dropout)
        self.rnn = getattr(tr.nn, kind)(H, H, generator=rng, **options)
        self.head = tr.nn.Linear(H * (2 if options.get("bidirectional") else 1), V, generator=rng)

    def forward(self, ids: Any, lengths: Any = None) -> tr.Tensor:
        output, _ = self.rnn(self.drop(self.embed(ids)), lengths=lengths)
        return self.head(output)


def trainer(model: Any, optimizer: Any, schedule: Any = None) -> Callable[..., Any]:
    def step(ids: Any, targets: Any, lengths: Any = None) -> Any:
        loss = tr.nn.functional.cross_entropy(model(ids, lengths), targets)
        optimizer.zero_grad()
        loss.backward()
        norm = tr.optim.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        return {"loss": loss, "norm": norm}

    return step


def batches(T: int, B: int, count: int = 6, seed: int = 1) -> list[tuple[Any, Any]]:
    """Ids and targets, of which some do not count."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        targets = rng.integers(0, V, (T, B))
        targets[rng.random((T, B)) < 0.2] = -100
        found.append((rng.integers(0, V, (T, B)), targets))
    return found


def run(
    compiled: bool, kind: str, T: int, B: int, H: int, rule: str = "Adam", lengths: Any = None, **options: Any
) -> Any:
    """Losses, norms, parameters and gradients after six steps."""
    tr.manual_seed(3)
    model = Model(kind, H, **options)
    optimizer = OPTIMIZERS[rule](model.parameters())
    step = trainer(model, optimizer, tr.optim.CosineAnnealingLR(optimizer, T_max=5, warmup=2))
    if compiled:
        step = tr.compile(step)
    outcomes = [step(ids, targets, lengths) for ids, targets in batches(T, B)]
    if compiled:
        (found,) = step.compiled.found.values()
        assert type(found) is Program
    return (
        [o["loss"].item() for o in outcomes],
        [o["norm"] for o in outcomes],
        [p.numpy().tobytes() for p in model.parameters()],
        [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None],
        tr.rand(2).tolist(),
    )


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
def test_of_any_shape(
    kind: str, T: int, B: int, H: int, layers: int, both: bool, fused: bool, bias: bool, rule: str, data: Any
) -> None:
    lengths = data.draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B))
    options = {"num_layers": layers, "bidirectional": both, "fused": fused, "bias": bias, "lengths": lengths}
    sizes = {"kind": kind, "T": T, "B": B, "H": H, "rule": rule}
    assert run(True, **sizes, **options) == run(False, **sizes, **options)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_with_compiled_kernels(kind: str) -> None:
    pytest.importorskip("numba")
    tr.enable_numba()
    try:
        assert run(True, kind, 5, 3, 8) == run(False, kind, 5, 3, 8)
    finally:
        tr.enable_numba(False)


def test_with_all_kernels_off() -> None:
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
def test_other_layers(name: str) -> None:
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


# --- sabotage: the tests above must notice ------------------------------------------------------------------------


def test_a_forgotten_entry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "needed", lambda entries, result: [e for e in entries if e.f is not np.tanh])
    assert run(True, "RNN", 3, 2, 4) != run(False, "RNN", 3, 2, 4)


def test_a_buffer_reused_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    lifetimes = memory.lifetimes
    calls = []

    def early(*args: Any) -> Any:
        first, last = lifetimes(*args)
        calls.append(last)
        return first, first  # free after the first use

    layer, x = tr.nn.LSTM(2, 4), tr.randn(3, 2, 2)  # no ids, which would point anywhere
    step = lambda x: tr.grad(tr.square(layer(x)[0]).sum(), layer.weight_hh_l0)
    monkeypatch.setattr(memory, "lifetimes", early)
    compiled = tr.compile(step)
    assert [compiled(x).tolist() for _ in range(3)][-1] != step(x).tolist() and calls


def test_leaves_that_are_not_refreshed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves.Leaves, "refresh", lambda self: None)
    assert run(True, "GRU", 3, 2, 4) != run(False, "GRU", 3, 2, 4)


# --- when it is recorded anew -------------------------------------------------------------------------------------


def counted(f: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """`f` compiled, and a list that grows whenever `f` itself runs."""
    ran: list[int] = []

    def step(*args: Any, **kwargs: Any) -> Any:
        ran.append(1)
        return f(*args, **kwargs)

    return tr.compile(step), ran


def test_other_shapes_dtypes_and_structures_are_recorded_anew() -> None:
    step, ran = counted(lambda x, k=1, extra=(): x * k + sum(extra))
    cases = [
        (np.ones((2, 3)),),
        (np.ones(3),),
        (np.ones(3, np.float32),),
        (np.ones(3), 2),
        (np.ones(3), 2.0),
        (np.ones(3), 2, [np.ones(3)]),
        (tr.ones(3),),
    ]
    for n, case in enumerate(cases, 1):
        for _ in range(4):
            step(*case)
        assert len(ran) == 2 * n
    for case in cases:
        step(*case)
    assert len(ran) == 2 * len(cases)


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


def test_values_of_leaves_are_those_of_the_call() -> None:
    w, c = tr.nn.Parameter([2.0]), tr.Tensor([1.0])
    step, ran = counted(lambda x: (w * x + c).detach())
    assert [step(np.float32([k])).item() for k in range(4)] == [1, 3, 5, 7]
    w.assign_([10.0])
    c.assign_([5.0])
    assert step(np.float32([1])).item() == 15
    assert len(ran) == 2
    w.requires_grad = False
    assert step(np.float32([1])).item() == 15
    assert len(ran) == 3


def test_parameters_that_move_are_recorded_anew() -> None:
    layer = tr.nn.Linear(2, 1)
    step = tr.compile(lambda x: layer(x).detach())
    for _ in range(3):
        step(tr.ones(1, 2))
    layer.to("float64")
    for _ in range(3):
        assert step(tr.ones(1, 2, dtype="float64")).dtype == np.float64


# --- what cannot be recorded --------------------------------------------------------------------------------------


def line_of(f: Callable[..., Any], mark: str) -> str:
    lines, first = inspect.getsourcelines(f)
    (at,) = (i for i, line in enumerate(lines) if mark in line)
    return f"line {first + at}"


def test_values_as_python_numbers_are_refused_with_their_line() -> None:
    x = tr.Tensor([3.0])

    def by_float(x: tr.Tensor) -> Any:
        return float(x)  # here

    def by_item(x: tr.Tensor) -> Any:
        return (x + 1).item()  # here

    def by_if(x: tr.Tensor) -> Any:
        return x if x.sum() > 0 else -x  # here

    def by_int(x: tr.Tensor) -> Any:
        return int(x)  # here

    def by_numpy(x: tr.Tensor) -> Any:
        return x.numpy()  # here

    def by_print(x: tr.Tensor) -> Any:
        return f"{x}"  # here

    def by_in(x: tr.Tensor) -> Any:
        return 3.0 in x  # here

    def by_mask(x: tr.Tensor) -> Any:
        return x[x > 0]  # here

    def by_numpy_function(x: tr.Tensor) -> Any:
        return np.unique(x.data)  # here

    for f in (by_float, by_item, by_if, by_int, by_numpy, by_print, by_in, by_mask, by_numpy_function):
        with pytest.raises(CompileError) as caught:
            tr.compile(f)(x)
        assert line_of(f, "# here") in str(caught.value), f
        assert "test_compile.py" in str(caught.value)
    assert (x + 1).item() == 4  # all is usable


def test_a_constant_that_differs_is_refused_with_its_line() -> None:
    count = [0]

    def step(x: tr.Tensor) -> tr.Tensor:
        count[0] += 1
        y = x + 1
        return y * (0.5 * count[0])  # here

    compiled = tr.compile(step)
    compiled(tr.ones(2))
    with pytest.raises(CompileError, match=r"1\.0, which was 0\.5") as caught:
        compiled(tr.ones(2))
    assert line_of(step, "# here") in str(caught.value)

    rng = np.random.default_rng(0)
    noisy = tr.compile(lambda x: x + rng.standard_normal(2))
    noisy(tr.ones(2))
    with pytest.raises(CompileError, match="an array"):
        noisy(tr.ones(2))


def test_another_path_at_the_second_call_is_refused() -> None:
    calls: list[int] = []

    def step(x: tr.Tensor) -> tr.Tensor:
        calls.append(1)
        return tr.tanh(x) if len(calls) % 2 else tr.exp(x)

    compiled = tr.compile(step)
    compiled(tr.ones(2))
    with pytest.raises(CompileError, match="something else at the second call"):
        compiled(tr.ones(2))


def test_graphs_do_not_cross_the_border() -> None:
    w = tr.nn.Parameter([2.0])
    with pytest.raises(CompileError, match="whose graph is still there"):
        tr.compile(lambda x: x * w)(tr.ones(1))
    with pytest.raises(CompileError, match=r"pass it as \.detach"):
        tr.compile(lambda x: x)(w * 2)
    kept: list[Any] = []
    tr.compile(lambda x: kept.append(x * 2))(tr.ones(1))
    with pytest.raises(CompileError, match="return what is wanted"):
        kept[0] + 1


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


# --- ownership ----------------------------------------------------------------------------------------------------


def test_results_and_gradients_are_not_written_again() -> None:
    w = tr.nn.Parameter([1.0, 2.0])

    def step(x: Any) -> Any:
        w.grad = None
        y = w * x
        y.sum().backward()
        return y.detach(), [x * 2, w.data]

    compiled = tr.compile(step)
    seen = []
    for k in range(5):
        w.assign_([k, 1.0])
        y, (double, held) = compiled(np.float32([k, 1]))
        seen.append((y, double, held, w.grad, w.grad.numpy()))
    for k, (y, double, held, grad, array) in enumerate(seen):
        assert y.tolist() == [k * k, 1] and double.tolist() == [2 * k, 2] and held.tolist() == [k, 1]
        assert grad.tolist() == array.tolist() == [k, 1]


def test_arguments_are_read_at_each_call() -> None:
    x = np.zeros(2)
    step = tr.compile(lambda x: x + 1)
    for k in range(5):
        x[:] = k
        assert step(x).tolist() == [k + 1, k + 1]


def test_gradients_add_up() -> None:
    def total(compiled: bool) -> list[float]:
        w = tr.nn.Parameter([1.0])

        def step(x: Any) -> None:
            (w * w * x).sum().backward()

        f = tr.compile(step) if compiled else step
        sums = []
        for k in range(6):
            f(np.float32([k]))
            assert w.grad is not None
            sums.append(w.grad.item())
            if k == 3:
                w.grad = None
        return sums

    assert total(True) == total(False)


def test_a_rule_of_ones_own() -> None:
    def losses(compiled: bool) -> list[float]:
        w = tr.nn.Parameter([1.0, -2.0])

        def step(x: Any, lr: Any) -> Any:
            w.grad = None
            loss = tr.square(w * x - 3).sum()
            loss.backward()
            with tr.no_grad():
                assert w.grad is not None
                w.assign_(w - lr * w.grad)
            return loss

        f = tr.compile(step) if compiled else step
        return [f(np.float32([1, 2]), np.float32(0.1 / (k + 1))).item() for k in range(6)]

    assert losses(True) == losses(False)


def test_a_plateau_a_seed_and_clipped_values() -> None:
    def outcome(compiled: bool) -> Any:
        model = Model("RNN", 4, dropout=0.5)
        optimizer = tr.optim.SGD(model.parameters(), lr=0.5)
        schedule = tr.optim.ReduceLROnPlateau(optimizer, patience=1)

        def step(ids: Any, targets: Any) -> Any:
            tr.manual_seed(5)
            loss = tr.nn.functional.cross_entropy(model(ids), targets)
            model.zero_grad()
            loss.backward()
            tr.optim.clip_grad_value_(model.parameters(), 0.01)
            optimizer.step()
            schedule.step(loss)
            return loss

        f = tr.compile(step) if compiled else step
        losses = [f(ids, targets).item() for ids, targets in batches(3, 2, count=9)]
        return losses, schedule.last_lr, schedule.reductions

    assert outcome(True) == outcome(False)
    assert outcome(True)[-1] > 0


def test_a_state_is_carried_through_the_arguments() -> None:
    def losses(compiled: bool) -> list[float]:
        model = Model("LSTM", 4)
        optimizer = tr.optim.Adam(model.parameters(), lr=0.01)

        def step(ids: Any, targets: Any, state: Any) -> Any:
            output, state = model.rnn(model.embed(ids), state)
            loss = tr.nn.functional.cross_entropy(model.head(output), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss, tuple(s.detach() for s in state)

        f = tr.compile(step) if compiled else step
        state, found = (tr.zeros(1, 2, 4), tr.zeros(1, 2, 4)), []
        for ids, targets in batches(3, 2):
            loss, state = f(ids, targets, state)
            found.append(loss.item())
        return found

    assert losses(True) == losses(False)


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


def test_methods_and_modules_compile() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = tr.nn.Linear(2, 1)
            self.step = tr.compile(self._step)

        def _step(self, x: Any) -> Any:
            return self.model(x).detach()

        @tr.compile
        def other(self, x: Any) -> Any:
            return self.model(x).detach() * 2

    trainer = Trainer()
    for k in range(4):
        trainer.model.bias.assign_([k])
        x = tr.Tensor([[k, 1.0]])
        expected = trainer.model(x).tolist()
        assert trainer.step(x).tolist() == expected
        assert trainer.other(x).tolist() == [[2 * expected[0][0]]]
    with tr.no_grad():
        module = tr.compile(trainer.model)
        for _ in range(3):
            assert module(x).tolist() == expected


def test_memory_is_reused_and_given_back() -> None:
    model = Model("LSTM", 16)
    step = tr.compile(trainer(model, tr.optim.SGD(model.parameters(), lr=0.1)))
    for ids, targets in batches(12, 4, count=3):
        step(ids, targets)
    (found,) = step.compiled.found.values()
    calls = [c for _, segment in found.segments for c in segment]
    every = {id(arrays.root_of(a)): a for _, args in calls for a in traced.arrays_in(args)}
    assert len(every) < 60  # one block, inputs, leaves, gradients and constants
    gone = [weakref.ref(x) for x in (model, found.leaves)]
    gc.collect()
    gc.disable()
    try:
        del model, step, found, calls, every
        assert [ref() for ref in gone] == [None, None]  # without the collector: there are no cycles
    finally:
        gc.enable()


def test_anomalies_are_looked_for_in_the_step_itself() -> None:
    step, ran = counted(lambda x: x * 2)
    with tr.detect_anomaly():
        for _ in range(4):
            step(tr.ones(1))
    assert len(ran) == 4


def test_what_is_elsewhere_is_refused() -> None:
    on_gpu = type("ndarray", (), {"__module__": "cupy"})()
    with pytest.raises(CompileError, match="on the CPU only"):
        tr.compile(lambda x: x)(on_gpu)
    layer = tr.nn.RNN(2, 2)
    step = tr.compile(lambda x, lengths: layer(x, lengths=lengths)[0].detach())
    with pytest.raises(CompileError, match="lengths"):
        step(tr.ones(3, 2, 2), np.array([3, 1]))
    for lengths in ([3, 1], [1, 2], [3, 1], [3, 1]):
        expected = layer(tr.ones(3, 2, 2), lengths=lengths)[0]
        assert step(tr.ones(3, 2, 2), lengths).tolist() == expected.tolist()
    with pytest.raises(TypeError, match="takes a function"):
        tr.compile(3)


def test_a_constant_that_is_returned_must_stay() -> None:
    count: list[int] = []
    step = tr.compile(lambda x: (x + 1, count.append(1), len(count)))
    step(tr.ones(1))
    with pytest.raises(CompileError, match="the constant 2, which was 1"):
        step(tr.ones(1))


def test_warnings_are_those_of_the_step() -> None:
    step = tr.compile(lambda x: tr.exp(x))
    for _ in range(4):
        with pytest.warns(RuntimeWarning, match="overflow"):
            step(tr.Tensor([1000.0]))


def test_buffers_that_move_are_recorded_anew() -> None:
    norm = tr.nn.BatchNorm1d(2, affine=False).eval()
    step = tr.compile(lambda x: norm(x))
    x = tr.Tensor([[0.1, 0.2]], dtype="float64")
    for _ in range(3):
        assert step(x).tolist() == norm(x).tolist()
    norm.to("float64")
    assert norm.running_mean is not None
    norm.running_mean.assign_([0.1, 0.2])
    assert step(x).tolist() == [[0, 0]]


def test_two_updates_in_one_step() -> None:
    def weights(compiled: bool) -> Any:
        layer = tr.nn.Linear(2, 1, generator=np.random.default_rng(0))
        optimizer = tr.optim.SGD(layer.parameters(), lr=0.1, momentum=0.5)

        def step(x: Any) -> Any:
            for part in x:
                optimizer.zero_grad()
                tr.square(layer(part)).sum().backward()
                optimizer.step()
            return layer.weight, layer(x[0]).detach()

        f = tr.compile(step) if compiled else step
        seen = [f(np.float32([[k, 1], [2, k]]))[1].tolist() for k in range(5)]
        return seen, layer.weight.tolist()

    assert weights(True) == weights(False)


def test_a_shape_that_depends_on_values_is_noticed_at_the_replay() -> None:
    step = tr.compile(lambda x: np.trim_zeros(x) * 2)
    for _ in range(3):
        assert step(np.array([0.0, 1, 2, 0])).tolist() == [2, 4]
    with pytest.raises(CompileError, match="trim_zeros gave shape"):
        step(np.array([0.0, 1, 0, 0]))
    assert step(np.array([0.0, 3, 1, 0])).tolist() == [6, 2]
    empty = tr.compile(lambda x: np.trim_zeros(x))
    for _ in range(3):
        assert empty(np.zeros(2)).tolist() == []
    with pytest.raises(CompileError, match="trim_zeros gave shape"):
        empty(np.ones(2))


def test_an_index_is_read_at_each_call() -> None:
    step = tr.compile(lambda x, i: (x[i], x.data[i[0]], tr.take(x, i)))
    x = tr.Tensor([1.0, 2.0, 3.0])
    for i in ([0, 1], [2, 0], [-1, 1], [1, 1]):
        for found in step(x, np.array(i)):
            assert found.tolist() == x.numpy()[i if found.shape else i[0]].tolist()
