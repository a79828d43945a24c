"""What crosses the boundary of a compiled step: signatures of arguments, copies of results, no graphs."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tests.compiler.steps import Model, batches, counted
from tinygrad_rnn.errors import CompileError


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


def test_arguments_are_read_at_each_call() -> None:
    x = np.zeros(2)
    step = tr.compile(lambda x: x + 1)
    for k in range(5):
        x[:] = k
        assert step(x).tolist() == [k + 1, k + 1]


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


def test_graphs_do_not_cross_the_boundary() -> None:
    w = tr.nn.Parameter([2.0])
    with pytest.raises(CompileError, match="whose graph is still there"):
        tr.compile(lambda x: x * w)(tr.ones(1))
    with pytest.raises(CompileError, match=r"pass it as \.detach"):
        tr.compile(lambda x: x)(w * 2)


def test_what_is_computed_while_recording_may_be_kept() -> None:
    kept: list[Any] = []
    step = tr.compile(lambda x: kept.append((x * 2, x * w)))
    w = tr.nn.Parameter([2.0])
    step(tr.ones(1))
    assert kept[0][0].tolist() == [2]
    with pytest.raises(CompileError, match="return what is wanted"):
        kept[0][1].backward()


def test_arrays_on_a_gpu_are_refused_and_other_lengths_in_a_list_recorded_anew() -> None:
    on_gpu = type("ndarray", (), {"__module__": "cupy"})()
    with pytest.raises(CompileError, match="on the CPU only"):
        tr.compile(lambda x: x)(on_gpu)
    layer = tr.nn.RNN(2, 2)
    step = tr.compile(lambda x, lengths: layer(x, lengths=lengths)[0].detach())
    for lengths in ([3, 1], [1, 2], [3, 1], [3, 1]):
        expected = layer(tr.ones(3, 2, 2), lengths=lengths)[0]
        assert step(tr.ones(3, 2, 2), lengths).tolist() == expected.tolist()
    with pytest.raises(TypeError, match="takes a function"):
        tr.compile(3)


def test_a_constant_that_is_returned_takes_new_values_as_in_a_plain_call():
    def step(x):
        return x * 2, tr.zeros(2)

    plain, compiled = step, tr.compile(step)
    for f in (plain, compiled, compiled, compiled):
        _, total = f(tr.ones(2))
        assert total.assign_([1, 2]) is total and total.tolist() == [1.0, 2.0]


@dataclasses.dataclass
class Output:
    loss: Any
    n: int = 1


Pair = collections.namedtuple("Pair", "a b")


def test_results_are_new_containers_with_new_constants() -> None:
    def run(compiled: Any) -> Any:
        table, weight, names = np.ones(3), tr.ones(2), [1]
        step = compiled(
            lambda x: {
                "constants": [np.zeros(2), tr.Tensor([0.0]), {"deep": (np.ones(1),)}],
                "outside": (table, weight),
                "kinds": [Output(x * 3), collections.OrderedDict(q=x * 2), Pair(x, 1), names, {1.5}, None, "s"],
            }
        )
        seen = []
        for k in range(6):
            result = step(tr.ones(2) * k)
            first, second, third = result["constants"]
            kinds = result["kinds"]
            seen += [
                first.copy(),
                second.detach(),
                third["deep"][0].copy(),
                kinds[0].loss,
                [*kinds[1].items()],
                kinds[2],
            ]
            seen += [[type(v) for v in kinds], result["outside"][0] is table, result["outside"][1] is weight]
            first += 1
            second.assign_([5.0])
            third["deep"][0][...] = 7
            result["constants"].append(1)
            kinds[0].n = 5
        return seen

    alike(run)


def test_an_object_that_is_made_at_each_call_is_no_result() -> None:
    step = tr.compile(lambda x: (x * 2, object()))
    step(tr.ones(1))
    with pytest.raises(CompileError, match="a object that it makes at each call"):
        step(tr.ones(1))


def test_what_was_written_into_an_argument_before_an_error_is_there() -> None:
    def run(compiled: Any) -> Any:
        w = tr.nn.Parameter([1.0])

        def fill(x: Any, out: Any) -> Any:
            out += x
            (w * x).sum().backward()
            tr.optim.clip_grad_norm_([w], 1.0)

        step, out, seen = compiled(fill), np.zeros(1), []
        for k in range(9):
            try:
                step(np.array([np.nan if k in (0, 4, 5) else 1.0]), out)
            except tr.errors.NonFiniteError:
                w.grad = None
            seen.append(out.copy())
            out[:] = k
        return seen

    alike(run)


def test_a_replay_that_fails_inside_of_a_try_is_undone() -> None:
    def run(compiled: Any) -> Any:
        w, seen = tr.nn.Parameter([1.0, 2.0]), []

        def step(x: Any) -> Any:
            (w * x).sum().backward()
            with contextlib.suppress(tr.errors.NonFiniteError):
                tr.optim.clip_grad_norm_([w], 100.0)
                return w.grad
            return None

        f = compiled(step)
        for k in range(9):
            seen.append(f(tr.Tensor([np.nan if k in (4, 7) else 1.0, 1.0])))
            if k in (4, 7):
                seen.append(w.grad)
                w.grad = None
        return seen

    alike(run)


def test_an_op_may_return_something_else_the_next_time() -> None:
    def run(compiled: Any) -> Any:
        calls = itertools.count()
        op = tr.op(lambda g: g if next(calls) < 3 else None)(lambda a: a * 2)
        w, seen = tr.nn.Parameter([1.0]), []

        def step(x: Any) -> None:
            w.grad = None
            op(w * x).sum().backward()

        f = compiled(step)
        for _ in range(6):
            f(tr.ones(1))
            seen.append(w.grad)
        return seen

    alike(run)


def test_an_array_on_disk_is_an_argument(tmp_path: Path) -> None:
    def run(compiled: Any) -> Any:
        array = np.memmap(tmp_path / "array", np.float32, "w+", shape=(3,))
        step, seen = compiled(lambda x: tr.Tensor(x) * 2), []
        for k in range(6):
            array[:] = k
            seen.append(step(array))
        return seen

    alike(run)
