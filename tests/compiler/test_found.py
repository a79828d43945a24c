"""Leaves keep their identity; their values and gradients are those of each call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tests.compiler.steps import counted, run
from tinygrad_rnn.compiler import program


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


def test_buffers_of_modules_that_move_are_recorded_anew() -> None:
    norm = tr.nn.BatchNorm1d(2, affine=False).eval()
    step = tr.compile(lambda x: norm(x))
    x = tr.Tensor([[0.1, 0.2]], dtype="float64")
    for _ in range(3):
        assert step(x).tolist() == norm(x).tolist()
    norm.to("float64")
    assert norm.running_mean is not None
    norm.running_mean.assign_([0.1, 0.2])
    assert step(x).tolist() == [[0, 0]]


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


def test_a_graph_keeps_the_values_that_it_saw() -> None:
    def outcome(compiled: bool) -> Any:
        w = tr.nn.Parameter([1.0, 2.0])

        def step(x: Any) -> Any:
            w.grad = None
            before = w.data
            loss = (w * w * x).sum()
            w.assign_(w.data * 2)
            loss.backward()  # by the weight that the loss was computed with
            return before, w.grad, w.data, (w * x).detach()

        f = tr.compile(step) if compiled else step
        found = []
        for k in range(5):
            found.append([v.tolist() for v in f(np.float32([1, k]))])
            if k == 3:
                w.assign_([5.0, 7.0])
        return found, w.tolist()

    assert outcome(True) == outcome(False)


def test_leaves_that_are_not_refreshed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.Program, "refresh", lambda self: None)
    assert run(True, "GRU", 3, 2, 4) != run(False, "GRU", 3, 2, 4)


class Remembers(tr.nn.Module):
    """Keeps a state of its own from call to call, or what it computed last."""

    def __init__(self, state: bool) -> None:
        self.w, self.h, self.state = tr.nn.Parameter([1.0, 2.0]), None, state

    def forward(self, x: Any) -> Any:
        y = (self.w * x if self.h is None or not self.state else self.w * x + self.h[0]).detach()
        self.h = (y, [y * 2])
        return self.h[1][0] + 1


@pytest.mark.parametrize("state", [True, False])
def test_what_a_module_keeps_is_that_of_the_call(state: bool) -> None:
    def run(compiled: Any) -> Any:
        module = Remembers(state)
        step = compiled(lambda x: module(x))
        seen = []
        for k in range(7):
            seen += [step(tr.ones(2) * k), module.h]
        return [seen, seen]  # what was kept of a call is not changed by the next

    alike(run)


def test_an_attribute_that_no_code_names_is_watched() -> None:
    def run(compiled: Any) -> Any:
        class Holder:
            head = tr.nn.Parameter([1.0])

        holder = Holder()
        holder.head = tr.nn.Parameter([2.0])
        step = compiled(lambda x: (x * getattr(holder, "".join(["he", "ad"]))).detach())
        seen = []
        for k in range(8):
            if k == 4:
                holder.head = tr.nn.Parameter([3.0])
            seen.append(step(tr.ones(1)))
        return seen

    alike(run)


def test_views_of_a_large_array_are_read_at_each_call() -> None:
    def run(compiled: Any) -> Any:
        table = np.arange(100_000, dtype=np.float32)
        step = compiled(lambda x: x + tr.Tensor(table[::2][:3]))
        seen = []
        for _ in range(6):
            table[:] += 1
            seen.append(step(tr.ones(3)))
        return seen

    alike(run)


def test_what_is_first_read_after_an_assignment_is_what_was_assigned() -> None:
    def run(compiled: Any) -> Any:
        w = tr.nn.Parameter([1.0])

        def step(x: Any) -> Any:
            w.assign_(x)
            return (w * 2).detach()

        f = compiled(step)
        return [f(tr.ones(1) * k) for k in range(6)]

    alike(run)


def test_a_parameter_in_another_order_of_memory_is_recorded_anew() -> None:
    def run(compiled: Any) -> Any:
        array = np.random.default_rng(0).standard_normal((37, 53)).astype(np.float32)
        w, seen = tr.nn.Parameter(array), []
        f = compiled(lambda: w.sum().detach())
        for k in range(8):
            if k == 4:
                w.assign_(np.asfortranarray(array))
            seen.append(f())
        return seen

    alike(run)
