"""What is written down: calls of NumPy, and what the engine does at each replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.steps import Model, batches
from tinygrad_rnn.errors import CompileError


def test_an_index_is_read_at_each_call() -> None:
    step = tr.compile(lambda x, i: (x[i], x.data[i[0]], tr.take(x, i)))
    x = tr.Tensor([1.0, 2.0, 3.0])
    for i in ([0, 1], [2, 0], [-1, 1], [1, 1]):
        for found in step(x, np.array(i)):
            assert found.tolist() == x.numpy()[i if found.shape else i[0]].tolist()


def test_a_shape_that_depends_on_values_is_noticed_at_the_replay() -> None:
    step = tr.compile(lambda x, n: np.repeat(x, n) * 2)
    x = np.array([3.0, 4])
    for n in ([1, 2], [2, 1], [0, 3]):
        assert step(x, np.array(n)).tolist() == (np.repeat(x, n) * 2).tolist()
    with pytest.raises(CompileError, match=r"repeat gave shape \(4,\), but shape \(3,\) when"):
        step(x, np.array([2, 2]))
    assert step(x, np.array([3, 0])).tolist() == [6, 6, 6]
    counts = tr.compile(lambda ids: np.bincount(ids))
    for _ in range(3):
        assert counts(np.array([0, 2, 2])).tolist() == [1, 0, 2]
    with pytest.raises(CompileError, match="bincount gave shape"):
        counts(np.array([0, 0, 3]))


def test_an_update_by_assign() -> None:
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


def test_schedules_seeds_and_clipping_run_at_each_replay() -> None:
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


def test_two_optimiser_steps_in_one_step() -> None:
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


CHOSEN = np.array([True, False, True, False])


def copy_a_number(x: Any, y: Any) -> None:
    np.copyto(y, 3.0)


def copy_some(x: Any, y: Any) -> None:
    np.copyto(y, 2 * x, where=CHOSEN)


def add_some(x: Any, y: Any) -> None:
    np.add(x, 1, out=y, where=CHOSEN)


@pytest.mark.parametrize("write", [copy_a_number, copy_some, add_some])
def test_what_is_written_into_zeros_in_part_or_as_a_number(write: Any) -> None:
    def step(x: Any) -> Any:
        y = np.zeros_like(x)
        write(x, y)
        return x + y

    compiled = tr.compile(step)
    for k in range(4):
        x = np.arange(4.0) + k
        assert compiled(x).tolist() == step(x).tolist()
