"""A step of training as one function of its batch, which `tr.compile` records and repeats where it can."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from tinygrad_rnn.compiler.compile import Compiled
from tinygrad_rnn.errors import CompileError, NonFiniteError
from tinygrad_rnn.optim import Optimizer, clip_grad_norm_
from tinygrad_rnn.scalars import number
from tinygrad_rnn.tensor.backend import give_back_freed_memory
from tinygrad_rnn.tensor.mode import replayed
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.spent import Spent

CURE = "try a smaller learning rate, or clip harder"
LONG = 100  # characters of a reason, without what stands after a colon
MISSES = 12  # steps in a row that no recording fitted, though one was there
WINDOW, MANY = 64, 16  # so many of so many steps may be recorded: a recording takes as long as several steps


class Steps:
    """The steps of a training, by their numbers. Called with one, it makes the step, and returns its loss and what
    `Task.batch` counted.

    They are recorded unless `plain`, until that proves of no use; `say` gets the reason, in a line. A task that looks
    on, such as `explain.WatchedTask`, has another as its `task`, whose loss is recorded, and says by its `looks`, after
    `batch`, whether that step is to be made op by op, with its own `loss`.

    Raises NonFiniteError, with the step and what helps, for a loss or a gradient that is not finite, before the
    optimiser has moved anything.
    """

    def __init__(
        self,
        task: Any,
        optimizer: Optimizer,
        parameters: Sequence[tuple[str, Tensor]],
        clip: float | None,
        *,
        plain: bool,
        say: Callable[[str], None],
        spent: Spent,
    ) -> None:
        self.task, self.say, self.spent = task, say, spent
        task_itself = getattr(task, "task", task)
        self.by_number = not hasattr(task_itself, "batch")
        make = make_step if getattr(task_itself, "parts", 1) == 1 else make_step_of_parts
        others = optimizer, parameters, clip
        self.plain = partial(make, task.loss, *others)
        self.compiled = None if plain or self.by_number else Compiled(partial(make, task_itself.loss, *others))
        self.calls = self.recorded = 0  # of this window
        self.records = False  # whether the last step was recorded

    def __call__(self, step: int) -> tuple[float, float]:
        begin = perf_counter()
        arguments, counted = batch_of(self.task, step)
        keep = None if self.by_number else getattr(self.task, "keep", None)
        if keep:
            keep(None)
        try:
            value, kept = self.make(arguments, step)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} at step {step + 1}", hint=CURE) from None
        if self.records:
            give_back_freed_memory()  # a recording holds all that the step computes; a replay takes a third of it
        self.spent.add("recording" if self.records else "training", perf_counter() - begin)
        if keep:
            keep(kept)
        return value, number("the count of a batch", kept if self.by_number else counted)

    def make(self, arguments: tuple[Any, ...], step: int) -> tuple[float, Any]:
        """A step, by a recording if that is possible."""
        self.records = False
        if self.compiled is None or getattr(self.task, "looks", False):
            return self.plain(*arguments)
        before, self.records = self.compiled.recorded, True
        try:
            made: tuple[float, Any] = self.compiled(*arguments)
        except CompileError as error:  # all is as it was before the step
            self.give_up(step, in_short(str(error)))
            return self.plain(*arguments)
        self.records = self.compiled.recorded > before
        self.judge(step)
        return made

    def judge(self, step: int) -> None:
        """Give up recording if it happens all the time."""
        assert self.compiled is not None
        self.calls, self.recorded = self.calls + 1, self.recorded + self.records
        if self.compiled.misses >= MISSES:
            self.give_up(step + 1, f"{self.compiled.changed} is another thing at each step")
        elif self.recorded > MANY:
            many = f"{self.recorded} of {self.calls} steps were recorded anew, since their batches have other shapes"
            self.give_up(step + 1, many)
        elif self.calls == WINDOW:
            self.calls = self.recorded = 0

    def give_up(self, step: int, why: str) -> None:
        """Go on op by op."""
        self.compiled = None
        self.say(f"From step {step + 1:,} on op by op, without recording: {why}")


def batch_of(task: Any, step: int) -> tuple[tuple[Any, ...], Any]:
    """The arguments of a task's loss, and how many units they are; of a task without `batch`, whose loss returns that
    number itself, the number of the step.
    """
    return task.batch(step) if hasattr(task, "batch") else ((step,), None)


def in_short(why: str) -> str:
    """What a `CompileError` says cannot be recorded, and where, without what helps: that is for whoever writes code.

    >>> in_short("tasks/task.py, line 7: np.unique in a function that tr.compile records: its shape depends; pass it")
    'np.unique: its shape depends (task.py, line 7)'
    """
    place = re.match(r"(?:.*[/\\])?([^/\\]+, line \d+): ", why)
    what = why[place.end() :] if place else why
    what = re.split(r"; |\. ", re.sub(",? in a function that tr.compile records", "", what))[0].rstrip(".")
    if len(what) > LONG:
        what = what.partition(": ")[0]
    return f"{what} ({place[1]})" if place else what


def make_step(
    loss: Callable[..., Any],
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    clip: float | None,
    *arguments: Any,
) -> tuple[float, Any]:
    """One step of training; returns its loss, and what the task wants to be kept."""
    result = loss(*arguments)
    value, kept = result if isinstance(result, tuple) else (result, None)
    found = finite(value)
    optimizer.zero_grad()
    value.backward()
    if clip is not None:
        clip_grad_norm_(parameters, clip)
    optimizer.step()
    return found, kept


def make_step_of_parts(
    loss: Callable[..., Any],
    optimizer: Optimizer,
    parameters: Sequence[tuple[str, Tensor]],
    clip: float | None,
    *parts: tuple[Any, ...],
) -> tuple[float, list[Any]]:
    """As `make_step`, of a batch in parts, the arguments of the loss for each: with the mean of their losses and of
    their gradients, and the list of what is to be kept. The graph of one part alone is there at a time.
    """
    optimizer.zero_grad()
    total, kept = None, []
    for arguments in parts:
        result = loss(*arguments)
        value, keep = result if isinstance(result, tuple) else (result, None)
        value = value / len(parts)
        value.backward()
        total = value.detach() if total is None else total + value.detach()
        kept.append(keep)
    assert total is not None, "a batch has a part"
    found = finite(total)
    if clip is not None:
        clip_grad_norm_(parameters, clip)
    optimizer.step()
    return found, kept


@replayed(changes="nothing")
def finite(loss: Tensor) -> float:
    """A loss as Python's number. Raises NonFiniteError for one that is none."""
    value = float(loss)
    if not math.isfinite(value):
        raise NonFiniteError(f"the loss is {value}")
    return value
