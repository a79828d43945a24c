"""Looking at the flow of gradients while a network is trained, and what to say of it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.errors import InputError, NonFiniteError
from tinygrad_rnn.explain import pictures, text, verdicts
from tinygrad_rnn.explain.flow import Flow, LayerFlow
from tinygrad_rnn.explain.watch import looking
from tinygrad_rnn.scalars import whole
from tinygrad_rnn.training.disk import to_disk
from tinygrad_rnn.training.steps import batch_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVERY = 50  # a look takes about as long as a step: some 2 % of a training
PATIENCE = 2  # so often in a row the gradient has vanished or exploded before it is said


class WatchedTask:
    """A task of `training.train` whose gradient is looked at in every 50th step, the first among them.

    The training is the same to the last bit. `flow` is what was seen last; `status()` is a line on it; `news()` is a
    sentence once a gradient has vanished, or exploded, twice in a row, and "" ever after. With a `path` every
    look is a line of JSON there: the step, and for each layer what is `left` of the gradient at the last step, 0, 1, 2
    ... steps before, and `arrives`, `state` and `states` as in `LayerFlow`. `plot_watched` draws them.

    `advice` has a sentence on what to do for "vanishes" and for "explodes"; those of `LayerFlow.verdict` unless given.

    >>> import tinygrad_rnn as tr
    >>> class Last:
    ...     goal, unit = "error", "sequences"
    ...     rnn = tr.nn.RNN(2, 3)
    ...     def batch(self, step):
    ...         return (tr.randn(5, 4, 2),), 4
    ...     def loss(self, x):
    ...         return tr.square(self.rnn(x)[1]).mean()
    >>> task = tr.explain.WatchedTask(Last())
    >>> arguments, count = task.batch(0)
    >>> task.loss(*arguments).shape, len(task.flow)
    ((), 1)
    """

    def __init__(
        self,
        task: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        every: int = EVERY,
        advice: Mapping[str, str] | None = None,
    ) -> None:
        self.task, self.path, self.every = task, path, whole("every", every, 1)
        self.goal: str = task.goal
        self.unit: str = task.unit
        self.advice = advice
        self.flow: Flow | None = None
        self.looks = False  # whether the step of the last batch is looked at
        self._step = self._looked = 0  # that step, and the one that was looked at last, from 1 on
        self._row: Counter[str] = Counter()  # how often in a row a layer was in trouble
        self._said: set[str] = set()

    # --- the task ----------------------------------------------------------------------------------

    def batch(self, step: int) -> tuple[tuple[Any, ...], int]:
        """The task's."""
        self.looks, self._step = step % self.every == 0, step + 1
        return batch_of(self.task, step)

    def loss(self, *arguments: Any) -> Any:
        """The task's, with a look at its gradient where that is due."""
        if not self.looks:
            return self.task.loss(*arguments)
        self.looks = False  # of a batch in parts at the first
        with looking() as seen:
            result = self.task.loss(*arguments)
        loss = result[0] if isinstance(result, tuple) else result
        if math.isfinite(float(loss)):  # else the training says so
            with suppress(NonFiniteError):  # a state that is infinite is for the training to stop at, too
                self.flow = seen.gradient_flow(loss)
                self._take(self.flow, self._step)
        return result

    def keep(self, kept: Any) -> None:
        """The task's, if it carries anything from step to step."""
        if hasattr(self.task, "keep"):
            self.task.keep(kept)

    def describe(self, loss: float) -> dict[str, float]:
        """The task's."""
        return self.task.describe(loss)  # type: ignore[no-any-return]

    def evaluate(self) -> dict[str, float]:
        """The task's."""
        return self.task.evaluate()  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """The task's, if it carries anything from step to step."""
        return self.task.state_dict() if hasattr(self.task, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The task's, if it carries anything from step to step."""
        if hasattr(self.task, "load_state_dict"):
            self.task.load_state_dict(state)

    # --- what was seen -----------------------------------------------------------------------------

    def _take(self, flow: Flow, step: int) -> None:
        layers, self._looked = {}, step
        for layer in flow:
            trouble = layer.state in ("vanishes", "explodes")
            self._row[layer.title] = self._row[layer.title] + 1 if trouble else 0
            layers[layer.title] = {
                "arrives": _short(layer.arrives),
                "state": layer.state,
                "left": [_short(v) for v in layer.left],
                "states": [_short(v) for v in layer.states],
            }
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "layers": layers}) + "\n")
                file.flush()
                to_disk(file.fileno())  # no checkpoint knows of a step that this has lost

    def status(self) -> str:
        """A line on the gradients of all layers: how much of the gradient at the last step is left from the first step
        to it, by logarithms.

        "gradient in step 51: l0 fades, 3.2 % at t=0 ▁▂▄▆█ 100 % at t=31; l1 holds, 42 % at t=0 ▁▃▅▆█ 100 % at t=31"
        """
        if self.flow is None:
            return ""
        return f"gradient in step {self._looked}: " + "; ".join(map(_told, self.flow))

    def news(self) -> str:
        """A sentence, once, where a gradient vanishes or explodes."""
        for layer in self.flow or ():
            if self._row[layer.title] >= PATIENCE and layer.state not in self._said:
                self._said.add(layer.state)
                if self.advice is None:
                    return layer.verdict()
                return f"{layer.verdict().partition('; ')[0]}; {self.advice[layer.state]}"
        return ""


def _told(layer: LayerFlow) -> str:
    """What there is to say of a layer in a line."""
    name = layer.name or layer.title
    if layer.state == "none":
        return f"{name} has none"
    line = text.sparkline([float(layer.left[::-1][i]) for i in text.picked(len(layer.left), 16)])
    reach = f" (1 % over {layer.reach} of {layer.distance} steps)" if layer.state == "vanishes" else ""
    first, last = f"{text.share(layer.arrives)} at t={layer.order[0]}", f"100 % at t={layer.order[-1]}"
    return f"{name} {verdicts.word(layer)}, {first} {line} {last}{reach}"


def _short(value: float) -> float | None:
    """Four digits of a number; None for what JSON has no word for."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def read_watched(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a `WatchedTask` has written; a last line left half written by a killed process is passed over."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def plot_watched(path: str | os.PathLike[str], picture: str | os.PathLike[str] | None = None) -> Figure:
    """A figure of matplotlib of what a `WatchedTask` has written to `path`: what was left of the gradient, step by step
    before the last, all along the training. Saved as `picture` if that is given. Raises InputError for a file without a
    look, ImportError, with what to install, where matplotlib is missing.
    """
    records = read_watched(path)
    if not records:
        raise InputError(f"{os.fspath(path)}: no gradient was looked at")
    titles = list(records[0]["layers"])
    found = {}
    for title in titles:
        looks = [(r["step"], r["layers"][title]["left"]) for r in records if title in r["layers"]]
        long = max(len(left) for _, left in looks)
        rows = [[np.nan if v is None else v for v in left] + [np.nan] * (long - len(left)) for _, left in looks]
        found[title] = (np.array([step for step, _ in looks]), np.array(rows, float))
    return pictures.picture(pictures.draw_watched, found, picture, (10, 0.6 + 3.2 * len(found)))
