"""A step of a training: recorded and replayed it is the same to the last bit, and where it cannot be, it is plain."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import CompileError, NonFiniteError
from tinygrad_rnn.explain import WatchedTask
from tinygrad_rnn.training import Budget, Silent, Spent, train


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Sums:
    """A recurrent network with dropout that carries its state learns the sum of what it has read."""

    goal, unit = "error", "numbers"

    def __init__(self, T: Callable[[int], int] = lambda step: 5) -> None:
        tr.manual_seed(3)
        self.rnn, self.head, self.drop = nn.LSTM(1, 6), nn.Linear(6, 1), nn.Dropout(0.25)
        self.T, self.state = T, None

    def batch(self, step: int) -> tuple[tuple[Any, Any], int]:
        x = np.random.default_rng(step).random((self.T(step), 2, 1), np.float32)
        state = self.state if self.state else (tr.zeros((1, 2, 6)), tr.zeros((1, 2, 6)))
        return (x, state), x.size

    def loss(self, x: Any, state: Any) -> Any:
        y, state = self.rnn(tr.Tensor(x), state)
        return tr.square(self.head(self.drop(y)) - x).mean(), tuple(s.detach() for s in state)

    def keep(self, state: Any) -> None:
        self.state = state

    def describe(self, loss: float) -> dict[str, float]:
        return {}

    def evaluate(self) -> dict[str, float]:
        return {"error": 1.0}

    def named(self) -> list[tuple[str, Any]]:
        return [*self.rnn.named_parameters(), *self.head.named_parameters()]


def bits(task: Any, steps: int = 12, **options: Any) -> tuple[list[bytes], list[str]]:
    """All that a training leaves, and what was said."""
    said, inner = Said(), getattr(task, "task", task)
    adam = optim.Adam(inner.named(), lr=0.01)
    train(task, adam, inner.named(), Budget(steps), display=said, clip=0.1, **options)
    assert inner.state is not None
    left = [p.numpy().tobytes() for _, p in inner.named()] + [s.numpy().tobytes() for s in inner.state]
    return [*left, tr.rand(3).numpy().tobytes()], said.lines


def test_a_recorded_training_is_the_plain_one_to_the_last_bit() -> None:
    spent, plain = Spent(), Spent()
    recorded = bits(Sums(), spent=spent)
    assert recorded == bits(Sums(), plain=True, spent=plain)
    assert "recording" in spent.seconds and "recording" not in plain.seconds and recorded[1] == []


@pytest.mark.parametrize("looks", [1, 4])
def test_a_step_that_is_looked_at_is_plain_and_the_others_are_recorded(looks: int) -> None:
    wanted = bits(Sums())
    watched = WatchedTask(Sums(), every=looks)
    spent = Spent()
    assert bits(watched, spent=spent) == wanted
    assert watched.flow is not None and ("recording" in spent.seconds) == (looks > 1)


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_task_without_batches_is_given_the_number_of_the_step(looks: int) -> None:
    class ByNumber:
        """The same, as one writes it who does not care to be recorded."""

        goal, unit, describe, evaluate, named = Sums.goal, Sums.unit, Sums.describe, Sums.evaluate, Sums.named

        def __init__(self) -> None:
            self.sums = Sums()
            self.rnn, self.head = self.sums.rnn, self.sums.head
            self.rows: list[Any] = []

        @property
        def state(self) -> Any:
            return self.sums.state

        def loss(self, step: int) -> tuple[Any, int]:
            arguments, count = self.sums.batch(step)
            loss, state = self.sums.loss(*arguments)
            self.sums.keep(state)
            return loss, count

    task: Any = ByNumber()
    spent = Spent()
    found = bits(WatchedTask(task, every=looks) if looks else task, spent=spent)
    assert found == bits(Sums(), plain=True) and "recording" not in spent.seconds


def test_what_cannot_be_recorded_goes_on_op_by_op_and_says_why() -> None:
    class Branching(Sums):
        def loss(self, x: Any, state: Any) -> Any:
            loss, state = super().loss(x, state)
            return (loss if loss.item() > 0 else -loss), state

    wanted = bits(Sums())[0]
    task = Branching()
    found, lines = bits(task)
    assert found == wanted
    (line,) = lines
    assert line.startswith(
        "From step 1 on op by op, without recording: the values (.item(), .numpy(), np.asarray, print) of a"
    )
    assert re.search(r"\(test_steps\.py, line \d+\)$", line) and len(line) < 200
    with pytest.raises(CompileError):
        tr.compile(task.loss)(*task.batch(0)[0])


def test_what_is_recorded_anew_all_the_time_goes_on_op_by_op() -> None:
    class Counting(Sums):
        count = 0

        def batch(self, step: int) -> Any:
            self.count += 1
            return super().batch(step)

        def loss(self, x: Any, state: Any) -> Any:
            assert self.count
            return super().loss(x, state)

    wanted = bits(Sums(), 20)[0]
    found, lines = bits(Counting(), 20)
    assert found == wanted
    assert lines == ["From step 14 on op by op, without recording: 'count' is another thing at each step"]
    wanted = bits(Sums(lambda step: 1 + step), 20, plain=True)[0]
    found, lines = bits(Sums(lambda step: 1 + step), 20)
    assert found == wanted and len(lines) == 1 and "17 of 17 steps were recorded anew" in lines[0]
    assert bits(Sums(lambda step: 2 + step % 3), 40)[1] == []


@pytest.mark.parametrize("step", [0, 1, 7])
def test_what_is_not_finite_ends_a_recorded_training_before_it_moves_anything(step: int) -> None:
    class Poisoned(Sums):
        def batch(self, n: int) -> Any:
            (x, state), count = super().batch(n)
            return ((np.full_like(x, np.nan) if n == step else x), state), count

    def trained(task: Sums, steps: int) -> list[bytes]:
        adam = optim.Adam(task.named(), lr=0.01)
        poisoned = pytest.raises(NonFiniteError, match=rf"^the loss is nan at step {step + 1}: try a smaller")
        with poisoned if steps else nullcontext():
            train(task, adam, task.named(), Budget(steps or step), schedule=optim.ConstantLR(adam))
        return [p.numpy().tobytes() for _, p in task.named()]

    assert trained(Poisoned(), 20) == trained(Sums(), 0)
