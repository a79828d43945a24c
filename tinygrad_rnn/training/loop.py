"""The one training loop: what the command and the examples share.

A `Task` says what is trained and how it is measured; `train` turns the crank:

    loss of the next batch -> backward -> clip -> optimiser step -> now and then: evaluate, keep the best

Everything the loop itself knows is in `LoopState`, plain numbers; what a batch is follows from the step's
number.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

from ..errors import InputError, NonFiniteError
from ..optim import clip_grad_norm_
from ..tensor.tensor import Tensor
from .display import Display, Silent
from .metrics import MetricsLog


class Task(Protocol):
    """What `train` needs to know of a problem. Plain attributes and methods; nothing to inherit from."""

    goal: str
    """The entry of `evaluate()` that is to become small."""
    unit: str
    """What `loss` counts, for the rate: "chars", "sequences"."""

    def loss(self, step: int) -> tuple[Tensor, int]:
        """The loss of training step number `step` (from 0), a scalar with its graph, and how many units it is
        over.
        """

    def describe(self, loss: float) -> dict[str, float]:
        """Further figures that follow from a training loss, to be logged beside it."""

    def evaluate(self) -> dict[str, float]:
        """Figures of what was not trained on, `goal` among them."""


class Optimizer(Protocol):
    """What `train` asks of an optimiser of `tr.optim`."""

    param_groups: list[dict[str, Any]]

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, a number of minutes, or both (whichever is used up first)."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("training needs a number of steps or of minutes")

    def used(self, step: float, seconds: float) -> float:
        """The part of the budget that is used up, from 0 to 1.

        >>> Budget(steps=200).used(50, 9.0)
        0.25
        """
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))


@dataclass
class LoopState:
    """Where a run stands: all that the loop itself would need to go on."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `stopped_by` is the number of the signal that ended it, or None if it used up its
    budget.
    """

    state: LoopState
    stopped_by: int | None = None
    figures: dict[str, float] = field(default_factory=dict)


def warmup_cosine(used: float, warmup: float = 0.03) -> float:
    """A factor for the learning rate: from 0 to 1 over the first `warmup` of the budget, half a cosine to 0.

    From "SGDR: Stochastic gradient descent with warm restarts" (Loshchilov and Hutter, 2017), without the
    restarts.

        >>> [round(warmup_cosine(used), 3) for used in (0.0, 0.015, 0.03, 0.515, 1.0)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if used < warmup:
        return used / warmup
    return 0.5 * (1 + math.cos(math.pi * (used - warmup) / (1 - warmup)))


def train(
    task: Task,
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    budget: Budget,
    *,
    schedule: Callable[[float], float] = warmup_cosine,
    clip: float | None = 1.0,
    evaluations: int = 10,
    log_every: int = 1,
    display: Display | None = None,
    metrics: MetricsLog | None = None,
    keep_best: Callable[[LoopState, dict[str, float]], None] | None = None,
    note: Callable[[], str] | None = None,
    state: LoopState | None = None,
) -> Outcome:
    """Train until the budget is used up, or Ctrl-C or SIGTERM asks to stop; the end is evaluated then too.

    `parameters` are the (name, parameter) pairs that `optimizer` moves. The learning rate is the
    optimiser's own times `schedule(part of the budget used)`. Gradients are clipped to the norm `clip`.
    `evaluations` times, evenly spread over the budget, and at the end, the task is evaluated; `keep_best`
    is called when its goal is better than ever before. `note` gives a line to show at evaluations, such as
    a sample. Goes on from `state`, which it changes, if one is given.

    Raises NonFiniteError, with the step and what helps, as soon as a loss or a gradient is NaN or infinite:
    the weights are then still those of the step before.
    """
    display = display or Silent()
    state = state or LoopState()
    peaks = [group["lr"] for group in optimizer.param_groups]
    started = perf_counter() - state.seconds
    figures: dict[str, float] = {}
    reached = int(budget.used(state.step, state.seconds) * evaluations)
    units, clock = 0, perf_counter()
    display.start(budget.steps, task.unit)
    try:
        with interruptible() as interruption:
            while budget.used(state.step, state.seconds) < 1 and interruption.signal is None:
                # The rate of a step is that at its middle, so that neither the first nor the last has rate 0.
                factor = schedule(budget.used(state.step + 0.5, state.seconds))
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * factor
                value, counted = _step(task, optimizer, parameters, clip, state.step)
                state.step += 1
                state.seconds = perf_counter() - started
                units += counted

                used = budget.used(state.step, state.seconds)
                due = used >= 1 or int(used * evaluations) > reached or interruption.signal is not None
                if not due and state.step % log_every:
                    continue
                record = {"step": state.step, "loss": value, **task.describe(value)}
                record[f"{task.unit}_per_second"] = round(units / (perf_counter() - clock), 1)
                if due:
                    reached = int(used * evaluations)
                    figures = task.evaluate()
                    record |= figures
                    goal = figures[task.goal]
                    if not math.isfinite(goal):
                        raise NonFiniteError(f"{task.goal} is {goal} after step {state.step}: {_CURE}")
                    if goal < state.best:
                        state.best, state.best_step = goal, state.step
                        if keep_best:
                            keep_best(state, figures)
                if metrics:
                    metrics.write(record)
                display.show(record, used, state.seconds, note() if due and note else "")
                units, clock = 0, perf_counter()
                state.seconds = clock - started
    finally:
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak
        display.stop()
    return Outcome(state, interruption.signal, figures)


def _step(
    task: Task,
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    clip: float | None,
    number: int,
) -> tuple[float, int]:
    """One step of training; returns its loss and what `Task.loss` counted."""
    loss, counted = task.loss(number)
    value = float(loss)
    if not math.isfinite(value):
        raise NonFiniteError(f"the loss is {value} at step {number + 1}: {_CURE}")
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        try:
            clip_grad_norm_(parameters, clip)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}, at step {number + 1}: {_CURE}") from None
    optimizer.step()
    return value, counted


_CURE = "try a smaller learning rate (--lr), or clip harder (--clip)"


@dataclass
class Interruption:
    """The signal that asked to stop, if one did."""

    signal: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, Ctrl-C and SIGTERM are noted and not obeyed at once; a second Ctrl-C is obeyed at once."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def noted(number: int, frame: FrameType | None) -> None:
        if interruption.signal is not None:
            raise KeyboardInterrupt
        interruption.signal = number

    before: dict[int, Any] = {number: signal.signal(number, noted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
