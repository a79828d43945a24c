"""All that a run needs to go on as if it had never stopped, as the tensors and the manifest of a checkpoint.

    NAME                       parameters and buffers, under the names of the model's `state_dict`
    optimizer/MOMENT/NAME      what the optimiser remembers of each parameter
    carried/NAME               what the task carries from one step to the next: the recurrent state
    manifest                   the loop's numbers, the optimiser's options and step counts, the random generator

The position in the data follows from the loop's step, and so does that in a `BudgetLR`; other schedules are in the
manifest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinygrad_rnn.errors import CheckpointError, TinygradRnnError
from tinygrad_rnn.nn import Module
from tinygrad_rnn.optim import BaseSchedule, Optimizer
from tinygrad_rnn.screen import one_line
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.checkpoint import Checkpoint, load_checkpoint
from tinygrad_rnn.training.loop import LoopState

OPTIMIZER, CARRIED = "optimizer/", "carried/"


@runtime_checkable
class Carrying(Protocol):
    """A task that carries tensors from one step to the next: they are saved and restored with the rest."""

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by name; empty before the first step."""

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Go on with tensors of the same names."""


def snapshot(
    model: Module,
    optimizer: Optimizer,
    task: object,
    state: LoopState,
    schedule: BaseSchedule | None = None,
    *,
    copy: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors, by name, and the entries of the manifest that `restore` needs.

    With `copy=False` the tensors on the host are views, which the next step of the optimiser changes.
    """
    tensors = weights(model)
    if taken := [name for name in tensors if name.startswith((OPTIMIZER, CARRIED))]:
        raise ValueError(f"a parameter or buffer cannot be called {taken[0]!r} in a checkpoint")
    found = optimizer.state_dict(copy=copy)
    for name, entry in found["state"].items():
        for moment, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{moment}/{name}"] = backend.to_host(value._array)
    if isinstance(task, Carrying):
        tensors |= {f"{CARRIED}{name}": backend.to_host(x._array) for name, x in task.state_dict().items()}
    loop = asdict(state)
    loop["best"] = state.best if math.isfinite(state.best) else None
    manifest = {
        "step": state.step,
        "loop": loop,
        "optimizer": {
            "kind": type(optimizer).__name__,
            "groups": found["groups"],
            "steps": {name: entry["step"] for name, entry in found["state"].items()},
        },
        "schedule": (schedule.state_dict() or None) if schedule else None,
        "random": random.generator().bit_generator.state,
    }
    return tensors, manifest


def restore(
    checkpoint: Checkpoint, model: Module, optimizer: Optimizer, task: object, schedule: BaseSchedule | None = None
) -> LoopState:
    """Put everything back as it was when `checkpoint` was written; returns where the loop stands. All or nothing: after
    an error all is as it was before.

    Raises CheckpointError, naming the file and the reason, for a checkpoint of another model or optimiser.
    """
    manifest, tensors = checkpoint.manifest, checkpoint.tensors
    try:
        if manifest["optimizer"]["kind"] != type(optimizer).__name__:
            raise TypeError(f"its optimiser is {manifest['optimizer']['kind']}, not {type(optimizer).__name__}")
        own: dict[str, np.ndarray] = {}
        moments: dict[str, dict[str, Any]] = {name: {"step": n} for name, n in manifest["optimizer"]["steps"].items()}
        carried: dict[str, np.ndarray] = {}
        for key, array in tensors.items():
            if key.startswith(OPTIMIZER):
                moment, _, name = key.removeprefix(OPTIMIZER).partition("/")
                moments[name][moment] = array
            elif key.startswith(CARRIED):
                carried[key.removeprefix(CARRIED)] = array
            else:
                own[key] = array
        groups = [
            {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
            for group in manifest["optimizer"]["groups"]
        ]
        loop: dict[str, Any] = dict(manifest["loop"])
        state = LoopState(**{**loop, "best": math.inf if loop["best"] is None else loop["best"]})
        draws = random.generator().bit_generator
        type(draws)().state = manifest["random"]  # or an error, before the real one has taken a part of it
        with _undone_by_errors(model, optimizer, task, schedule):
            model.load_state_dict(own)
            optimizer.load_state_dict({"groups": groups, "state": moments})
            if schedule:
                schedule.load_state_dict(manifest["schedule"] or {})
            if isinstance(task, Carrying):
                task.load_state_dict(carried)
            draws.state = manifest["random"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, TinygradRnnError) as error:
        why = one_line(str(error.args[0] if error.args else error))
        raise CheckpointError(f"{checkpoint.path}: does not fit this run: {why}") from None
    return state


@contextmanager
def _undone_by_errors(
    model: Module, optimizer: Optimizer, task: object, schedule: BaseSchedule | None
) -> Iterator[None]:
    """Whatever ends the block with an error, all that it has loaded is as it was. What each of these is loaded from is
    never written into, so holding on to it is enough.
    """
    arrays = [(tensor, tensor._array) for tensor in (*model.parameters(), *model.buffers())]
    attributes: list[tuple[Any, Any]] = [(thing, dict(vars(thing))) for thing in (optimizer, schedule) if thing]
    groups = [(group, dict(group)) for group in optimizer.param_groups]
    carried = {name: x.numpy() for name, x in task.state_dict().items()} if isinstance(task, Carrying) else {}
    try:
        yield
    except BaseException:
        for tensor, array in arrays:
            tensor._array = array
        for thing, before in attributes:
            vars(thing).update(before)
        for group, options in groups:
            group.update(options)
        if isinstance(task, Carrying):
            task.load_state_dict(carried)
        raise


def weights(model: Module) -> dict[str, np.ndarray]:
    """The parameters and buffers of a model as arrays on the host, by name."""
    return {name: backend.to_host(value._array) for name, value in model.state_dict().items()}


def newest_checkpoint(folder: str | os.PathLike[str]) -> tuple[Checkpoint | None, str]:
    """The checkpoint of a folder to go on from, and what is wrong with a newer one, "" if nothing is.

    It is `last`, or `previous` where that is damaged, or None where neither is there. Raises CheckpointError if
    both are damaged.
    """
    if not any((Path(folder) / f"{name}.json").exists() for name in ("last", "previous")):
        return None, ""
    try:
        return load_checkpoint(folder, "last"), ""
    except CheckpointError as error:
        try:
            found = load_checkpoint(folder, "previous")
        except CheckpointError:
            raise error from None
        return found, f"{error}; going on from the one before, that of step {found.manifest['step']:,}"
