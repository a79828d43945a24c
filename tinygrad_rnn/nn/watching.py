"""Where a network is while it runs, in which module and at which step: for whoever looks, and for an error.

`tinygrad_rnn.explain` looks. Where nobody does, a call of a module costs one look at a context variable, and a step
nothing. An error finds where it happened in its own traceback.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from tinygrad_rnn.tensor.tensor import Tensor


class Watcher(Protocol):
    """Whoever looks: it runs each call of a module, and goes through the steps of each layer."""

    def call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`module.forward(*args, **kwargs)`."""

    def go_through(self, steps: Steps, times: Iterator[int]) -> Iterator[int]:
        """The same times."""


watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


class Steps:
    """The steps of one direction of one layer over a stretch of time, in the order in which they are run.

    `order` are the times to run, counted from `first`, the absolute time at which the stretch begins; `name` is that
    of the direction and layer, as weights have it at their end ("_l0_reverse"). The first `count` sequences run, of a
    batch in the order of their lengths. `shown` collects for a watcher what each step gave, `given` is what they all
    were given; None where nobody looks.

    >>> from tinygrad_rnn.nn.watching import Steps
    >>> list(Steps(None, "_l0_reverse", 4, range(1, -1, -1), 2))
    [1, 0]
    """

    __slots__ = ("layer", "name", "first", "order", "count", "shown", "given", "_times")

    def __init__(self, layer: Any, name: str, first: int, order: range, count: int) -> None:
        self.layer, self.name, self.first, self.order, self.count = layer, name, first, order, count
        self.shown: list[Any] | None = None if watcher.get() is None else []
        self.given: tuple[Any, ...] | None = None
        self._times = iter(order)

    def __iter__(self) -> Iterator[int]:
        look = watcher.get()
        return self._times if look is None else look.go_through(self, self._times)

    @property
    def reverse(self) -> bool:
        """Whether time runs backwards."""
        return self.order.step < 0

    def at(self) -> int | None:
        """The absolute time of the step that is being run; None before the first."""
        done = len(self.order) - operator.length_hint(self._times)
        return self.first + self.order[done - 1] if done else None

    def note(self, *given: Any) -> None:
        """What steps are given: T of the layer, the projected input, states, W, bias, options; a cell's x and hx."""
        if self.shown is not None:
            self.given = given

    def in_time(self, outputs: list[Tensor]) -> list[Tensor]:
        """What the steps gave, in the order of time."""
        if self.shown is not None and not self.shown:  # with nothing more to show than that
            self.shown.extend(outputs)
        return outputs if self.order[0] <= self.order[-1] else outputs[::-1]


class _Where(str):
    """The note of an error that tells where in a network it happened."""

    __slots__ = ()


def tell_where(calls: Any) -> None:
    """Give the error that comes out of the forward of a module a note of where it happened: "in encoder.lstm, step 17".

    `calls` is the code that calls a forward. Its frames in the traceback have the modules on the way, the outermost
    first, and that of a layer has its steps. Each call on the way out writes the note anew, with its own part of the
    path.
    """
    # No caller has it as a local: a frame that is asked for its locals keeps them, and the error would hold itself,
    # and with it every tensor of the step.
    error = sys.exception()
    assert error is not None
    if isinstance(error, TypeError):
        from tinygrad_rnn.pytorch import tell_call

        tell_call(error)
    modules, step = [], None
    traceback = error.__traceback__
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if frame.f_code is calls:
            modules.append(frame.f_locals["self"])
            step = None
        elif isinstance(steps := frame.f_locals.get("steps"), Steps):
            step = steps.at()
    path = _path(modules)
    if not path and step is None:
        return  # an error of a module by itself, which its traceback tells as well
    where = path or type(modules[-1]).__name__
    note = _Where(f"in {where}" + ("" if step is None else f", step {step}"))
    notes = getattr(error, "__notes__", None)
    if notes and type(notes[-1]) is _Where:
        notes[-1] = note
    else:
        error.add_note(note)


def _path(modules: Sequence[Any]) -> str:
    """The path from the first of `modules` to the last, each of which called the next; "" where it has no name."""
    if len(modules) < 2:
        return ""
    return next((name for name, module in modules[0].named_modules() if module is modules[-1]), "")
