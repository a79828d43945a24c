"""The one training loop: what the command and the examples share.

A `Task` says what is trained and how it is measured; `train` repeats:

    the next batch -> its loss -> backward -> clip -> optimiser step -> now and then: evaluate, keep the best, save

From the loss to the optimiser it is one function, which `tr.compile` records and repeats: see `steps`. So a task tells
apart what is new at each step, its `batch`, from what is done with it, its `loss`. Everything the loop itself knows is
in `LoopState`, plain numbers; what a batch is follows from the step's number. So a run goes on from a saved state as if
it had never stopped: see `snapshot`.
"""

from __future__ import annotations

import errno
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
from tinygrad_rnn.optim import BaseSchedule, BudgetLR, Optimizer
from tinygrad_rnn.scalars import number, whole
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.display import Display, Silent
from tinygrad_rnn.training.log import MetricsLog
from tinygrad_rnn.training.spent import Spent
from tinygrad_rnn.training.steps import CURE, Steps

MOST = 0.08  # the part of a budget of minutes that evaluations may have taken before another one


class Task(Protocol):
    """What `train` needs to know of a problem. Plain attributes and methods; nothing to inherit from.

    One that carries something from step to step, such as the state of a recurrent network, has a method `keep`, too:
    its `loss` returns a pair, the loss and what is to be kept, detached, and `keep` is called with that after the step,
    for `batch` to hand it to the next one. While a step runs it is kept by nobody: before it, `keep(None)` is called.

    One with `parts`, a number above 1, returns from `batch` so many tuples of arguments. A step is then made with the
    mean of their losses and of their gradients, one after the other, in the memory that one takes; `keep` gets a list.

    One without `batch` has a `loss(step)` that is given the number of the step, and returns the loss and how many units
    it is of. What it will read is not known beforehand, so its steps are not recorded.
    """

    goal: str
    """The entry of `evaluate()` that is to become small."""
    unit: str
    """What `batch` counts, for the rate: "chars", "sequences"."""

    def batch(self, step: int) -> tuple[tuple[Any, ...], int]:
        """The arguments of `loss` in training step number `step` (from 0), and how many units they are."""

    def loss(self, *arguments: Any) -> Any:
        """The loss, a scalar with its graph, by the arguments and the model alone: `tr.compile` says what else it may
        look at. Arrays and tensors may have other values at each step; what has other shapes is recorded anew.
        """

    def describe(self, loss: float) -> dict[str, float]:
        """Further figures that follow from a training loss, to be logged beside it."""

    def evaluate(self) -> dict[str, float]:
        """Figures of what was not trained on, `goal` among them."""


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, a number of minutes, or both (whichever is used up first). 0 is not at all.

    Numbers may be of NumPy's types. Raises InputError for none, for steps that are no whole number of at least 0, and
    for minutes that are not finite and at least 0, DTypeError for minutes that are no number.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("training needs a number of steps or of minutes")
        if self.steps is not None:
            object.__setattr__(self, "steps", whole("the steps of a training", self.steps))
        if self.minutes is not None:
            minutes = float(number("the minutes of a training", self.minutes))
            if not 0 <= minutes < math.inf:
                raise InputError(f"the minutes of a training must be finite and at least 0, not {minutes}")
            object.__setattr__(self, "minutes", minutes)

    def used(self, step: float, seconds: float) -> float:
        """The part of the budget that is used up, from 0 to 1.

        >>> Budget(steps=200).used(50, 9.0), Budget(steps=0).used(0, 0.0)
        (0.25, 1.0)
        """
        by_steps, by_time = _part(step, self.steps), _part(seconds, self.minutes and 60 * self.minutes)
        return min(1.0, max(by_steps, by_time))


def _part(done: float, total: float | None) -> float:
    """Which part of a total is done: none where there is no total, all of a total of 0."""
    if total is None:
        return 0.0
    return done / total if total else 1.0


@dataclass
class LoopState:
    """Where a run stands: all that the loop itself needs to go on. `unimproved` counts evaluations since the best.

    Raises InputError for a count that is no whole number of at least 0, or seconds that are not finite and at least 0.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    unimproved: int = 0

    def __post_init__(self) -> None:
        for name in ("step", "best_step", "unimproved"):
            setattr(self, name, whole(f"the {name} of a run", getattr(self, name)))
        self.seconds, self.best = number("the seconds of a run", self.seconds), number("the best of a run", self.best)
        if not 0 <= self.seconds < math.inf or math.isnan(self.best):
            raise InputError(f"a run of {self.seconds} s with {self.best} as its best figure cannot be gone on with")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `stopped_by` is the number of the signal that ended it, or None if it used up its
    budget or, `early`, its patience.
    """

    state: LoopState
    stopped_by: int | None = None
    early: bool = False
    figures: dict[str, float] = field(default_factory=dict)


def train(
    task: Task,
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    budget: Budget,
    *,
    schedule: BaseSchedule | None = None,
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
    plain: bool = False,
    spent: Spent | None = None,
    state: LoopState | None = None,
) -> Outcome:
    """Train until the budget is used up, `patience` evaluations in a row brought nothing better, or a signal asks
    to stop: Ctrl-C, SIGTERM and SIGHUP (the terminal was closed) let the step finish and be saved.

    `parameters` are the (name, parameter) pairs that `optimizer` moves. The learning rate is that of `schedule`,
    `BudgetLR(optimizer)` unless given: a warm-up, then half a cosine down to 0. Gradients are clipped to the norm
    `clip`. `evaluations` times (0: never), evenly spread over the budget and the last at its end, the task is
    evaluated; with minutes alone, those are left out before which evaluations took too much of the time, but not the
    last. `keep_best` is called when its goal is better than ever before. With a `patience` of 0, as with 1, the
    first evaluation that brings nothing better ends the training. `save` is called before the first step, every
    `save_every` steps and at the end, whatever ends it but an error. `note` gives a line to show at evaluations, such
    as a sample. Goes on from `state`, which it changes, if one is given; without a budget left it makes no step.

    Steps are recorded and replayed by `tr.compile`, which on one thread changes no bit. Where one cannot be recorded,
    or is recorded anew too often, training goes on op by op, and the display says why; `plain` does so from the
    beginning. `spent` is told how long the steps took, those that were recorded, evaluations, checkpoints, and log and
    display.

    Losses, counts and figures may be of NumPy's types, 0-d arrays or tensors: all that is logged, kept and returned
    are Python's numbers. Raises InputError for an option out of its range, DTypeError for a figure that is no number.
    Where the display fails (the reader of a pipe has gone, the disk is full) the step is finished and saved, and the
    OSError is raised then.

    Raises NonFiniteError, with the step and what helps, as soon as a loss or a gradient is NaN or infinite:
    the weights are then still those of the step before.
    """
    log_every, evaluations = whole("log_every", log_every, 1), whole("evaluations", evaluations)
    save_every = None if save_every is None else whole("save_every", save_every, 1)
    patience = None if patience is None else whole("patience", patience)
    shown = _Shown(display or Silent())
    state = state or LoopState()
    schedule = schedule or BudgetLR(optimizer)
    spent = spent or Spent()
    before, started = spent.seconds.get("evaluation", 0.0), state.seconds
    steps = Steps(task, optimizer, parameters, clip, plain=plain, say=shown.say, spent=spent)
    clock, saver = _Clock(state.seconds), _Saver(state, save, save_every, spent)
    measured = int(budget.used(state.step, state.seconds) * evaluations)  # how many evaluations there have been
    figures: dict[str, float] = {}

    def out_of_patience() -> bool:
        return patience is not None and state.unimproved >= max(patience, 1)

    def affordable() -> bool:
        """Whether an evaluation is made that is due: by the clock alone, only if those so far took little of it."""
        taken = spent.seconds.get("evaluation", 0.0) - before
        return budget.steps is not None or taken <= MOST * (state.seconds - started)

    def goes_on() -> bool:
        stopped = interruption.signal is not None or shown.lost is not None or out_of_patience()
        return budget.used(state.step, state.seconds) < 1 and not stopped

    shown.start(budget.steps, task.unit)
    try:
        with interruptible() as interruption:
            saver.save_new()
            while goes_on():
                # The rate of a step is that at its middle, so that neither the first nor the last has rate 0.
                middle = budget.used(state.step + 0.5, state.seconds)
                with schedule.at(middle):
                    value, counted = steps(state.step)
                state.step += 1
                state.seconds = clock.count(counted)
                used = budget.used(state.step, state.seconds)
                due = int(used * evaluations) > measured and (used == 1 or affordable())
                if due or not state.step % log_every:
                    record = {"step": state.step, "loss": value, **_figures("describe", task.describe(value))}
                    record[f"{task.unit}_per_second"] = clock.rate()
                    if due:
                        measured = int(used * evaluations)
                        with spent.on("evaluation"):
                            figures = _evaluate(task, record, state)
                        schedule.evaluated(figures[task.goal])
                        record |= figures
                    if metrics:
                        with spent.on("log and display"):
                            metrics.write(record)
                    if due and keep_best and state.best_step == state.step:
                        with spent.on("checkpoints"):
                            keep_best(state, figures)
                    with spent.on("log and display"):
                        line = note() if due and note else ""
                        shown.show(record, figures if due else {}, used, state.seconds, line)
                    state.seconds = clock.restart()
                saver.save_now_and_then()
            saver.save_new()
    finally:
        shown.stop()
    if shown.lost is not None and interruption.signal is None:
        raise shown.lost
    early = out_of_patience() and budget.used(state.step, state.seconds) < 1
    return Outcome(state, interruption.signal, early, figures)


class _Clock:
    """The seconds of a run, those before it went on included, and how much it counts in a second."""

    def __init__(self, seconds: float) -> None:
        self.since = perf_counter()
        self.started, self.units = self.since - seconds, 0.0

    def count(self, units: float) -> float:
        """Take so many more; returns the seconds of the run."""
        self.units += units
        return perf_counter() - self.started

    def rate(self) -> float:
        """How many there were in a second since the last `restart`."""
        return round(self.units / (perf_counter() - self.since), 1)

    def restart(self) -> float:
        """Begin a new rate; returns the seconds of the run."""
        self.units, self.since = 0.0, perf_counter()
        return self.since - self.started


class _Saver:
    """When a run is saved: before its first step, every so many steps, and at its end."""

    def __init__(
        self, state: LoopState, save: Callable[[LoopState], None] | None, every: int | None, spent: Spent
    ) -> None:
        self.state, self.save, self.every, self.spent = state, save, every, spent
        self.saved = state.step or None  # the step of the last checkpoint; a run that goes on has one

    def save_new(self) -> None:
        """Save, unless this step is saved."""
        if self.save and self.saved != self.state.step:
            with self.spent.on("checkpoints"):
                self.save(self.state)
            self.saved = self.state.step

    def save_now_and_then(self) -> None:
        """Save if that is due."""
        if self.every and not self.state.step % self.every:
            self.save_new()


def _figures(method: str, figures: Mapping[str, Any]) -> dict[str, float]:
    """What a method of a task has returned, as Python's numbers."""
    return {key: number(f"{key!r} of {method}()", value) for key, value in figures.items()}


def _evaluate(task: Task, record: Mapping[str, float], state: LoopState) -> dict[str, float]:
    """The figures of an evaluation, its goal taken into `state`. Raises ValueError for one that `record` has already or
    where the goal is not among them, NonFiniteError for a goal that is not finite.
    """
    figures = _figures("evaluate", task.evaluate())
    if task.goal not in figures:
        raise ValueError(
            f"evaluate() returns {', '.join(figures) or 'nothing'}, and not {task.goal!r}, the task's goal"
        )
    if taken := sorted(record.keys() & figures.keys()):
        raise ValueError(f"evaluate() returns {taken[0]!r}, which is a figure of the training")
    goal = figures[task.goal]
    if not math.isfinite(goal):
        raise NonFiniteError(f"{task.goal} is {goal} after step {state.step}", hint=CURE)
    state.unimproved += 1
    if goal < state.best:
        state.best, state.best_step, state.unimproved = goal, state.step, 0
    return figures


@dataclass
class Interruption:
    """The signal that asked to stop, if one did."""

    signal: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP are noted and not obeyed at once; a second one is obeyed at once. But SIGHUP
    never is: a terminal that closes may send several. Where it is ignored, as by nohup, it stays so.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none

    def noted(number: int, frame: FrameType | None) -> None:
        if interruption.signal is None:
            interruption.signal = number
        elif number != hangup:
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    before: dict[int, Any] = {number: signal.signal(number, noted) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Shown:
    """A display that may fail, after which nothing more is shown: `lost` is the error. That of a terminal that has been
    closed does not count: a signal says so, too, and a run that ignores it is to go on.
    """

    def __init__(self, display: Display) -> None:
        self.display, self.blind = display, False
        self.lost: OSError | None = None

    def _lose(self, error: OSError) -> None:
        self.blind = True
        if self.lost is None and error.errno != errno.EIO:
            self.lost = error

    def __getattr__(self, method: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if not self.blind or method == "stop":
                try:
                    getattr(self.display, method)(*args)
                except OSError as error:
                    self._lose(error)
                except SystemExit as error:  # rich's answer to a pipe without a reader
                    if not isinstance(error.__context__, BrokenPipeError):
                        raise
                    self._lose(error.__context__)

        return call
