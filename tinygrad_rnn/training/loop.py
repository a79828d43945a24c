"""The one training loop: what the command and the examples share.

A `Task` says what is trained and how it is measured; `train` turns the crank:

    loss of the next batch -> backward -> clip -> optimiser step -> now and then: evaluate, keep the best, save

Everything the loop itself knows is in `LoopState`, plain numbers; what a batch is follows from the step's
number. So a run goes on from a saved state as if it had never stopped: see `snapshot`.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

from tinygrad_rnn.errors import InputError, NonFiniteError
from tinygrad_rnn.optim import ReduceLROnPlateau, Schedule, clip_grad_norm_
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.display import Display, Silent
from tinygrad_rnn.training.log import MetricsLog


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
    """What training asks of an optimiser of `tr.optim`."""

    param_groups: list[dict[str, Any]]

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


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
    """Where a run stands: all that the loop itself needs to go on. `unimproved` counts evaluations since the best."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    unimproved: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `stopped_by` is the number of the signal that ended it, or None if it used up its
    budget or, `early`, its patience.
    """

    state: LoopState
    stopped_by: int | None = None
    early: bool = False
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


def constant(used: float, warmup: float = 0.03) -> float:
    """A factor for the learning rate: from 0 to 1 over the first `warmup` of the budget, then 1."""
    return min(1.0, used / warmup)


def linear(used: float, warmup: float = 0.03) -> float:
    """A factor for the learning rate: from 0 to 1 over the first `warmup` of the budget, then straight down to 0."""
    return min(used / warmup, (1 - used) / (1 - warmup))


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": warmup_cosine, "linear": linear, "constant": constant}


def train(
    task: Task,
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    budget: Budget,
    *,
    schedule: Callable[[float], float] | Schedule = warmup_cosine,
    clip: float | None = 1.0,
    evaluations: int = 10,
    patience: int | None = None,
    log_every: int = 1,
    display: Display | None = None,
    metrics: MetricsLog | None = None,
    keep_best: Callable[[LoopState, dict[str, float]], None] | None = None,
    save: Callable[[LoopState], None] | None = None,
    save_every: int | None = None,
    note: Callable[[], str] | None = None,
    state: LoopState | None = None,
) -> Outcome:
    """Train until the budget is used up, `patience` evaluations in a row brought nothing better, or a signal asks
    to stop: Ctrl-C and SIGTERM let the step finish and be saved.

    `parameters` are the (name, parameter) pairs that `optimizer` moves. The learning rate is the
    optimiser's own times `schedule(part of the budget used)`; or it is that of a schedule of `tr.optim`, which counts
    a step after each step, a `ReduceLROnPlateau` after each evaluation, with its goal. Gradients are clipped to the
    norm `clip`. `evaluations` times, evenly spread over the budget, and at its end, the task is evaluated;
    `keep_best` is called when its goal is better than ever before. `save` is called before the first step, every
    `save_every` steps and at the end, whatever ends it but an error. `note` gives a line to show at evaluations,
    such as a sample. Goes on from `state`, which it changes, if one is given.

    Raises NonFiniteError, with the step and what helps, as soon as a loss or a gradient is NaN or infinite:
    the weights are then still those of the step before.
    """
    display = display or Silent()
    state = state or LoopState()
    started = perf_counter() - state.seconds
    figures: dict[str, float] = {}
    reached = int(budget.used(state.step, state.seconds) * evaluations)
    units, clock = 0, perf_counter()
    saved = state.step or None
    display.start(budget.steps, task.unit)

    def out_of_patience() -> bool:
        return patience is not None and state.unimproved >= patience

    try:
        with interruptible() as interruption:
            if save and saved is None:
                save(state)
                saved = state.step
            while budget.used(state.step, state.seconds) < 1 and interruption.signal is None and not out_of_patience():
                # The rate of a step is that at its middle, so that neither the first nor the last has rate 0.
                factor = (
                    1.0 if isinstance(schedule, Schedule) else schedule(budget.used(state.step + 0.5, state.seconds))
                )
                value, counted = _step(task, optimizer, parameters, clip, state.step, factor)
                if isinstance(schedule, Schedule) and not isinstance(schedule, ReduceLROnPlateau):
                    schedule.step()
                state.step += 1
                state.seconds = perf_counter() - started
                units += counted

                used = budget.used(state.step, state.seconds)
                due = used >= 1 or int(used * evaluations) > reached
                if due or not state.step % log_every:
                    record = {"step": state.step, "loss": value, **task.describe(value)}
                    record[f"{task.unit}_per_second"] = round(units / (perf_counter() - clock), 1)
                    better = False
                    if due:
                        reached = int(used * evaluations)
                        figures = task.evaluate()
                        if taken := sorted(record.keys() & figures.keys()):
                            raise ValueError(f"evaluate() returns {taken[0]!r}, which is a figure of the training")
                        record |= figures
                        goal = figures[task.goal]
                        if not math.isfinite(goal):
                            raise NonFiniteError(f"{task.goal} is {goal} after step {state.step}: {_CURE}")
                        if isinstance(schedule, ReduceLROnPlateau):
                            schedule.step(goal)
                        better = goal < state.best
                        state.unimproved = 0 if better else state.unimproved + 1
                        if better:
                            state.best, state.best_step = goal, state.step
                    if metrics:
                        metrics.write(record)
                    if better and keep_best:
                        keep_best(state, figures)
                    display.show(record, figures if due else {}, used, state.seconds, note() if due and note else "")
                    units, clock = 0, perf_counter()
                    state.seconds = clock - started
                if save and save_every and not state.step % save_every:
                    save(state)
                    saved = state.step
            if save and saved != state.step:
                save(state)
    finally:
        display.stop()
    early = out_of_patience() and budget.used(state.step, state.seconds) < 1
    return Outcome(state, interruption.signal, early, figures)


def _step(
    task: Task,
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    clip: float | None,
    number: int,
    factor: float,
) -> tuple[float, int]:
    """One step of training at `factor` times the optimiser's rates; returns its loss and what `Task.loss` counted."""
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
    peaks = [group["lr"] for group in optimizer.param_groups]
    try:
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        optimizer.step()
    finally:
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak
    return value, counted


_CURE = "try a smaller learning rate (--lr), or clip harder (--clip)"


@dataclass
class Interruption:
    """The signal that asked to stop, if one did."""

    signal: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, Ctrl-C and SIGTERM are noted and not obeyed at once; a second one is obeyed at once."""
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
