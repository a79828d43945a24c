"""`tr.compile(step, graph=True)`: N launches are N plain steps, bit for bit; and what no graph can hold is refused.

On the stand-in for CuPy, whose streams capture as strictly as CUDA's; of a real device only it can tell.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.steps import OPTIMIZERS, Model, batches, line_of, trainer
from tests.standin.cupy import _device, _memory
from tinygrad_rnn.errors import BackendMismatchError, CompileError, NonFiniteError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.tensor import device

CASES: list[dict[str, Any]] = [{"kind": kind, "dropout": 0.3} for kind in ("RNN", "LSTM", "GRU")]
CASES += [
    {"kind": "LSTM", "fused": False},
    {"kind": "LSTM", "num_layers": 2, "bidirectional": True, "rule": "SGD"},
    {"kind": "GRU", "num_layers": 2, "dropout": 0.5, "rule": "AdamW"},
    {"kind": "LSTM", "layer_norm": True, "recurrent_dropout": 0.4, "T": 10},
    {"kind": "RNN", "nonlinearity": "relu", "rule": "RMSprop"},
]


@pytest.fixture(autouse=True)
def cupy(standin: Any) -> Iterator[Any]:
    """The stand-in, with nothing put off from before."""
    device._flags.clear()
    device._put_off.clear()
    _device.calls.clear()
    yield standin
    device._flags.clear()
    device._put_off.clear()


def there(x: Any) -> tr.Tensor:
    return tr.Tensor(x, device="cuda")


def captured(step: Any) -> list[Any]:
    """The graphs that a compiled step has."""
    return [r.memory for rs in step.compiled.found.values() for r in rs if r.memory is not None]


def state(model: Any, optimizer: Any) -> Any:
    """All that a training leaves behind."""
    entries = optimizer.state_dict()["state"].values()
    return (
        [p.numpy().tobytes() for p in model.parameters()],
        [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        [[v if isinstance(v, int) else v.numpy().tobytes() for v in entry.values()] for entry in entries],
        tr.rand(2).tolist(),
    )


def build(kind: str, rule: str = "Adam", **options: Any) -> tuple[Any, Any]:
    tr.manual_seed(3)
    model = Model(kind, 5, **options).to("cuda")
    return model, OPTIMIZERS[rule](model.parameters())


def run(graph: bool, kind: str, rule: str = "Adam", T: int = 4, between: Any = None, **options: Any) -> Any:
    """Losses, norms and what is left after eight steps; `between` changes something before the sixth."""
    model, optimizer = build(kind, rule, **options)
    step = trainer(model, optimizer, tr.optim.CosineAnnealingLR(optimizer, T_max=9, warmup=2))
    step = tr.compile(step, graph=True) if graph else step
    found = []
    for k, (ids, targets) in enumerate(batches(T, 3, count=8)):
        if k == 5 and between is not None:
            between(model, optimizer)
        outcome = step(there(ids), there(targets))
        found.append((outcome["loss"].item(), outcome["norm"]))
    if graph:
        assert captured(step) and _device.totals()["graph"] >= 3
    return found, state(model, optimizer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_captured_steps_are_the_steps_themselves(case: dict[str, Any]) -> None:
    assert run(True, **case) == run(False, **case)


def other_rate(model: Any, optimizer: Any) -> None:
    optimizer.param_groups[0]["lr"] = 0.5


def other_option(model: Any, optimizer: Any) -> None:
    optimizer.param_groups[0]["weight_decay"] = 0.25


def other_weights(model: Any, optimizer: Any) -> None:
    model.head.weight.assign_(np.ones(model.head.weight.shape))


def no_gradients(model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()


def resumed(model: Any, optimizer: Any) -> None:
    model.load_state_dict(model.state_dict())
    optimizer.load_state_dict(optimizer.state_dict())


def evaluating(model: Any, optimizer: Any) -> None:
    model.eval()


def frozen(model: Any, optimizer: Any) -> None:
    model.head.bias.requires_grad = False


CHANGES = [other_rate, other_option, other_weights, no_gradients, resumed, evaluating, frozen]


@pytest.mark.parametrize("between", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("rule", ["Adam", "SGD"])
def test_what_changes_between_two_calls_is_seen(between: Callable[..., None], rule: str) -> None:
    case = {"kind": "LSTM", "dropout": 0.3, "rule": rule, "between": between}
    assert run(True, **case) == run(False, **case)


def test_other_shapes_are_other_graphs_of_one_training() -> None:
    found = []
    for graph in (False, True):
        model, optimizer = build("GRU", dropout=0.2)
        step = trainer(model, optimizer)
        step = tr.compile(step, graph=True) if graph else step
        sizes = [(4, 3), (2, 5)] * 5
        pairs = [batches(*size, count=1, seed=k)[0] for k, size in enumerate(sizes)]
        found.append([step(there(x), there(y))["loss"].item() for x, y in pairs] + [state(model, optimizer)])
        assert not graph or len(captured(step)) == 2
    assert found[0] == found[1]


def test_a_call_is_one_launch_and_copies_and_waits_for_the_norm_alone() -> None:
    counts = []
    for T in (4, 9):
        model, optimizer = build("LSTM", dropout=0.3)
        step = tr.compile(trainer(model, optimizer), graph=True)
        for ids, targets in batches(T, 3, count=4):
            _device.calls.clear()
            step(there(ids), there(targets))
        counts.append(_device.totals())
    copies = 2 + 1 + 1 + 1 + 1  # arguments, numbers of the host, state, the loss, the norm beside the flags
    assert counts[0] == counts[1] == {"graph": 1, "upload": 2 + 1, "kernel": copies, "synchronisation": 1}
    ((memory,),) = [captured(step)]
    assert memory.graph.nodes["product"] > 2 * 9 and memory.graph.nodes["kernel"] > 2 * 9


def test_what_somebody_holds_is_never_written() -> None:
    model, optimizer = build("RNN")
    step = tr.compile(trainer(model, optimizer), graph=True)
    pairs = [(there(x), there(y)) for x, y in batches(3, 2, count=6)]
    kept: list[Any] = []
    for ids, targets in pairs:
        outcome = step(ids, targets)
        kept += [
            (x, x.numpy().tobytes()) for x in (outcome["loss"], model.head.weight.detach(), model.head.weight.grad)
        ]
        kept += [(ids, ids.numpy().tobytes()), (model.head.weight._array, model.head.weight.numpy().tobytes())]
    arrays = [(x._array if isinstance(x, tr.Tensor) else x, values) for x, values in kept]
    assert captured(step) and all(array.get().tobytes() == values for array, values in arrays)
    assert len({id(x) for x, _ in kept}) == len(kept)


def test_state_that_is_carried_and_a_forward_alone() -> None:
    layer = tr.nn.LSTM(2, 3, device="cuda")
    norm = tr.nn.BatchNorm1d(3).to("cuda")

    @tr.no_grad()
    def forward(x: tr.Tensor, carried: Any, scale: float) -> Any:
        y, carried = layer(x, carried)
        return {"y": (norm(y[-1]) * scale, x), "state": carried}

    found = []
    for f in (forward, tr.compile(forward, graph=True)):
        norm.running_mean.assign_([0.0, 0.0, 0.0])
        norm.num_batches_tracked.assign_(0)
        carried: Any = tuple(tr.zeros(1, 2, 3, device="cuda") for _ in range(2))
        values = []
        for k in range(5):
            x = there(np.full((4, 2, 2), 1.0 + k, np.float32))
            outcome = f(x, carried, 2.0)
            assert outcome["y"][1] is x
            carried = outcome["state"]
            values += [t.numpy().tobytes() for t in (outcome["y"][0], *carried, norm.running_mean)]
        found.append([*values, norm.num_batches_tracked.item()])
    assert found[0] == found[1] and found[0][-1] == 5


@pytest.mark.parametrize("end", [True, False])
def test_gradients_that_add_up_or_are_gone(end: bool) -> None:
    found = []
    for graph in (False, True):
        w = tr.nn.Parameter(there([1.0, 2.0]))
        optimizer = tr.optim.SGD([w], lr=0.1)

        def step(x: tr.Tensor, w: Any = w, optimizer: Any = optimizer) -> tr.Tensor:
            loss = ((w * x) ** 2).sum()
            loss.backward()
            optimizer.step()
            if end:
                optimizer.zero_grad()
            return loss

        step = tr.compile(step, graph=True) if graph else step
        losses = []
        for k in range(9):
            if k in (4, 7):  # which are gone now, for one call
                optimizer.zero_grad()
            losses.append(step(there([1.0, 0.1 * k])).item())
        assert not graph or captured(step)
        found.append((losses, w.tolist(), None if w.grad is None else w.grad.tolist()))
    assert found[0] == found[1]


# --- what is read after the launch ------------------------------------------------------------------------------------


def test_a_norm_that_is_of_no_use_and_the_error_of_the_step_itself() -> None:
    found = []
    for graph in (False, True):
        tr.manual_seed(0)
        w = tr.nn.Parameter(there([1.0, 2.0]))
        optimizer = tr.optim.Adam([w], lr=0.1)

        def step(x: tr.Tensor, w: Any = w, optimizer: Any = optimizer) -> Any:
            loss = (F.dropout(w * x, 0.5) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            norm = tr.optim.clip_grad_norm_({"w": w}.items(), 0.5)
            optimizer.step()
            return loss, norm

        step = tr.compile(step, graph=True) if graph else step
        values: list[Any] = [step(there([1.0, 3.0]))[1] for _ in range(4)]
        before = w.tolist()
        with pytest.raises(NonFiniteError, match="the gradient of parameter w holds a NaN"):
            step(there([float("inf"), float("inf")]))
        assert w.tolist() == before
        values += [step(there([1e-30, 1e-30]))[1], step(there([1.0, 3.0]))[1], w.tolist(), tr.rand(1).item()]
        found.append((values, optimizer.state_dict()["state"]["0"]["step"]))
    assert found[0] == found[1]


def ids_step(clip: bool) -> tuple[Any, Any]:
    """A lookup and its step; with clipping something is read at each call."""
    embed = tr.nn.Embedding(5, 2).to("cuda")
    optimizer = tr.optim.SGD(embed.parameters(), lr=0.1)

    def step(ids: tr.Tensor) -> tr.Tensor:
        loss = embed(ids).sum()
        optimizer.zero_grad()
        loss.backward()
        if clip:
            tr.optim.clip_grad_norm_(embed.parameters(), 1.0)
        optimizer.step()
        return loss

    return tr.compile(step, graph=True), embed


def test_an_id_that_is_out_of_range_is_named_and_changes_nothing_where_something_is_read() -> None:
    step, embed = ids_step(clip=True)
    for _ in range(4):
        step(there([1, 2]))
    before = embed.weight.tolist()
    with pytest.raises((IndexError, ValueError), match="7"):
        step(there([1, 7]))
    assert embed.weight.tolist() == before
    assert captured(step)
    assert step(there([1, 2])).item() == pytest.approx(sum(before[1]) + sum(before[2]))


def test_an_id_that_is_out_of_range_comes_with_the_next_read() -> None:
    step, _ = ids_step(clip=False)
    for _ in range(4):
        loss = step(there([1, 2]))
    loss.item()
    loss = step(there([1, 7]))
    with pytest.raises((IndexError, ValueError), match="7"):
        loss.item()
    step(there([1, 8]))
    loss = step(there([1, 2]))
    with pytest.raises((IndexError, ValueError), match=r"out of range at an earlier call .* read a result after each"):
        loss.item()
    step(there([1, 2])).item()


def test_many_arrays_are_joined_and_stacked_without_a_table() -> None:
    def many(x: tr.Tensor) -> Any:
        rows = [x[k % 3] * k for k in range(20)]
        return tr.stack(rows, axis=1), tr.concatenate([x, *[x] * 9], axis=1)

    step, x = tr.compile(many, graph=True), there(np.arange(6.0).reshape(3, 2))
    for _ in range(4):
        found = step(x)
    assert captured(step)
    assert [y.numpy().tolist() for y in found] == [y.numpy().tolist() for y in many(x)]


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse_float(x, w):
    return float(w.sum())  # here


def refuse_if(x, w):
    return x if w.sum() > 1 else w  # here


def refuse_caught(x, w):
    try:
        w.sum().item()  # here
    except CompileError:
        return x


def refuse_print(x, w):
    return f"{w}"  # here


def refuse_norm(x, w):
    (w * x).sum().backward()
    return tr.optim.clip_grad_norm_([w], 1.0) + 1  # here


def refuse_upload(x, w):
    return w * tr.Tensor([1.0, 2.0], device="cuda")  # here


def refuse_draw(x, w):
    return w * tr.rand(2).to("cuda")  # here


def refuse_products(x, w):
    return (w.reshape(2, 1, 1) @ x.reshape(2, 1, 1)).detach()  # here


def refuse_mask(x, w):
    return w[x > 0].detach()  # here


def refuse_table(x, w):
    return tr.Tensor(device.cupy_here().stack([x._array] * 9))  # here


def refuse_wait(x, w):
    tr.tensor.backend.synchronize("cuda:0")  # here
    return x


def refuse_graph(x, w):
    return w * x


def refuse_argument(x, w):
    x.assign_(x * 2)  # here
    return x


KEPT: list[tr.Tensor] = []


def refuse_keeping(x, w):
    KEPT.append(w * x)
    return x


def refuse_checkpoint(x, w):
    return tr.checkpoint(lambda v: F.dropout(v, 0.5), w * x).detach()  # here


REFUSED = {
    refuse_float: "a value is read from the GPU, where nothing is computed yet: return the tensor",
    refuse_if: "a value is read from the GPU",
    refuse_caught: "a value is read from the GPU",
    refuse_print: "a value is read from the GPU",
    refuse_norm: "a number that the step computes, such as a norm, is looked at: return it instead",
    refuse_upload: "something is copied from the host",
    refuse_draw: "random numbers are drawn on the host: draw them outside, and pass them",
    refuse_products: "a product that is not of two matrices of float32 or float64",
    refuse_mask: "a shape depends on values",
    refuse_table: "a table of more than 8 arrays",
    refuse_wait: "the GPU is waited for",
    refuse_graph: "the output of multiply, shape \\(2,\\), is returned, whose graph is still there",
    refuse_argument: "Tensor.assign_ of an argument, or of what the step computes",
    refuse_keeping: "what the step computes is kept in a list: return it",
    refuse_checkpoint: "random draws inside a checkpoint",
}


@pytest.mark.parametrize("f", REFUSED, ids=lambda f: f.__name__[7:])
def test_what_cannot_be_captured_is_refused_with_its_line(f: Any) -> None:
    w = tr.nn.Parameter(there([1.0, 2.0]))
    step = tr.compile(lambda x: f(x, w), graph=True)
    plain = 2
    for _ in range(plain):
        step(there([3.0, 4.0]))
    held = w._array
    for _ in range(2):  # it warms up again, and is refused again
        with pytest.raises(CompileError, match=REFUSED[f]) as caught:
            for _ in range(plain + 1):
                step(there([3.0, 4.0]))
        assert f in (refuse_graph, refuse_keeping) or f"test_graphs.py, {line_of(f, '# here')}" in str(caught.value), (
            caught.value
        )
        assert "in a function that is captured as a CUDA graph" in str(caught.value)
    assert w._array is held and w.tolist() == [1.0, 2.0]
    assert all(np.isfinite(x.numpy()).all() for x in KEPT)  # those of the calls that ran as they are


class Own(tr.optim.SGD):
    """A rule of a user's own."""

    def update(self, *args: Any) -> Any:
        return super().update(*args)


def test_what_the_host_does_in_between_is_refused() -> None:
    def training(*, first: bool = False, plateau: bool = False, own: bool = False, keeps: bool = False) -> Any:
        model = tr.nn.Linear(2, 1, device="cuda")
        optimizer = (Own if own else tr.optim.SGD)(model.parameters(), lr=0.1)
        schedule: Any = tr.optim.ReduceLROnPlateau(optimizer) if plateau else tr.optim.StepLR(optimizer, 2)

        def step(x: tr.Tensor) -> None:
            loss = (model(x) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            if first:
                schedule.step()
            optimizer.step()
            if plateau:
                schedule.step(loss)
            if keeps:
                model.last = loss.detach()

        return step, model, optimizer

    cases: list[tuple[dict[str, bool], str]] = [
        ({"first": True}, "step before an optimiser's step: call it behind that"),
        ({"plateau": True}, "step of what the step computes: return it, and call that outside"),
        ({"own": True}, "Optimizer.step, which no graph holds: do it outside of the function"),
        ({"keeps": True}, "'last' of a module is set to what the step computes: return that, and pass it"),
    ]
    for options, said in cases:
        f, model, optimizer = training(**options)
        step = tr.compile(f, graph=True)
        x = there([[1.0, 2.0]])
        step(x), step(x)
        before = model.weight.tolist(), model.weight.grad.tolist(), optimizer._steps[:]
        with pytest.raises(CompileError, match=said):
            step(x)
        assert before == (model.weight.tolist(), model.weight.grad.tolist(), optimizer._steps), options


def test_what_is_not_on_the_gpu_is_refused() -> None:
    w = tr.ones(2)
    step = tr.compile(lambda x: x * w if x is not None else w * 1, graph=True)
    with pytest.raises(CompileError, match=r"a tensor of shape \(2,\) that the step uses is on cpu: move it"):
        step(None)
    with pytest.raises(CompileError, match=r"an argument of shape \(2,\) is on cpu: pass .to\(.cuda.\) of it"):
        step(tr.ones(2))
    with pytest.raises(CompileError, match="takes arrays as tensors on the GPU"):
        step(np.ones(2))
    y = tr.nn.Parameter(there([1.0])) * 2
    with pytest.raises(CompileError, match=r"pass it as .detach\(\)"):
        step(y)
    with pytest.raises(CompileError, match=r"has a graph that was built outside: use .detach\(\) of it"):
        tr.compile(lambda: y.sum().detach(), graph=True)()
    with pytest.raises(CompileError, match=r"records on the CPU only.*tr.compile\(step, graph=True\) captures"):
        tr.compile(lambda x: x)(there([1.0]))
    count = []

    def counts(x: tr.Tensor) -> tr.Tensor:
        count.append(0)
        return x * len(count)

    n = [0]

    def counting(x: tr.Tensor) -> tr.Tensor:
        n[0] += 1
        return x * n[0]

    with pytest.raises(CompileError, match="is changed by the step itself"):
        tr.compile(counting, graph=True)(there([1.0]))
    assert n == [0]
    tr.enable_cuda_kernels(False)
    try:
        with pytest.raises(CompileError, match=r"needs the library's CUDA kernels: tr.enable_cuda_kernels\(\)"):
            step(there([1.0]))
    finally:
        tr.enable_cuda_kernels()


def test_there_must_be_a_gpu(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> None:
    monkeypatch.setattr(cupy.cuda, "is_available", lambda: False)
    with pytest.raises(BackendMismatchError, match="no usable GPU"):
        tr.compile(lambda x: x, graph=True)


# --- memory -----------------------------------------------------------------------------------------------------------


def used() -> int:
    return _memory._used[0]


def test_a_graph_that_is_dropped_frees_its_memory() -> None:
    model, optimizer = build("LSTM", dropout=0.2)
    plain = trainer(model, optimizer)
    (ids, targets), *_ = batches(4, 3)
    x, y = there(ids), there(targets)
    plain(x, y), plain(x, y)
    gc.collect()
    gc.disable()
    try:
        slots = len(device.free_slots)
        step = tr.compile(plain, graph=True)
        for _ in range(3):
            step(x, y)["loss"].item()
        plain(x, y)["loss"].item()
        (memory,) = captured(step)
        held, private = used(), memory.pool.total_bytes()
        assert private > 4 << 20 and len(device.free_slots) < slots
        del step, memory
        plain(x, y)["loss"].item()
        assert used() <= held - private and _memory._private[0] == 0 and len(device.free_slots) == slots
    finally:
        gc.enable()


def test_graphs_of_many_shapes_are_let_go() -> None:
    step = tr.compile(lambda x: x * 2, graph=True)
    for n in range(1, 12):
        for _ in range(3):
            assert step(there(np.ones(n))).shape == (n,)
    assert len(captured(step)) == 8
    step = None
    gc.collect()
    assert _memory._private[0] == 0


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_training_that_goes_on_elsewhere(kind: str) -> None:
    """Steps as they are, and graphs, of one training take turns."""
    found = []
    for graph in (False, True):
        model, optimizer = build(kind, dropout=0.3)
        plain = trainer(model, optimizer)
        step = tr.compile(plain, graph=True) if graph else plain
        losses = []
        for k, (ids, targets) in enumerate(batches(4, 3, count=9)):
            losses.append((plain if k in (4, 6) else step)(there(ids), there(targets))["loss"].item())
        found.append((losses, state(model, optimizer)))
    assert found[0] == found[1]
