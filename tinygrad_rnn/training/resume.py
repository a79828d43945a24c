"""All that a run needs to go on as if it had never stopped, as the tensors and the manifest of a checkpoint.

    NAME                       parameters and buffers, under the names of the model's `state_dict`
    optimizer/MOMENT/NAME      what the optimiser remembers of each parameter
    carried/NAME               what the task carries from one step to the next: the recurrent state
    manifest                   the loop's numbers, the optimiser's options and step counts, the random generator

The position in the data follows from the loop's step, and so does that in a `BudgetLR`; other schedules are in the
manifest. What the parameters are called has no slash in it, so the rest can be told apart.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinygrad_rnn.errors import CheckpointError, TinygradRnnError
from tinygrad_rnn.nn import Module
from tinygrad_rnn.optim import Optimizer, Schedule
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.checkpoint import Checkpoint, load_checkpoint
from tinygrad_rnn.training.loop import LoopState


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
    schedule: Schedule | None = None,
    *,
    copy: bool = True,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors, by name, and the entries of the manifest that `restore` needs.

    With `copy=False` the tensors on the host are views, which the next step of the optimiser changes.
    """
    tensors = weights(model)
    found = optimizer.state_dict(copy=copy)
    for name, entry in found["state"].items():
        for moment, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{moment}/{name}"] = backend.to_host(value._array)
    if isinstance(task, Carrying):
        tensors |= {f"carried/{name}": backend.to_host(x._array) for name, x in task.state_dict().items()}
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
    checkpoint: Checkpoint, model: Module, optimizer: Optimizer, task: object, schedule: Schedule | None = None
) -> LoopState:
    """Put everything back as it was when `checkpoint` was written; returns where the loop stands.

    Raises CheckpointError, naming the file and the reason, for a checkpoint of another model or optimiser.
    """
    manifest, tensors = checkpoint.manifest, checkpoint.tensors
    try:
        if manifest["optimizer"]["kind"] != type(optimizer).__name__:
            raise TypeError(f"its optimiser is {manifest['optimizer']['kind']}, not {type(optimizer).__name__}")
        moments: dict[str, dict[str, Any]] = {}
        for name, step in manifest["optimizer"]["steps"].items():
            moments[name] = {"step": step}
        carried = {}
        for key, array in tensors.items():
            part, _, rest = key.partition("/")
            if part == "optimizer" and rest:
                moment, _, name = rest.partition("/")
                moments[name][moment] = array
            elif part == "carried" and rest:
                carried[rest] = array
        groups = [
            {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
            for group in manifest["optimizer"]["groups"]
        ]
        state = LoopState(**manifest["loop"])
        state.best = math.inf if state.best is None else state.best
        model.load_state_dict({key: array for key, array in tensors.items() if "/" not in key})
        optimizer.load_state_dict({"groups": groups, "state": moments})
        if schedule:
            schedule.load_state_dict(manifest["schedule"] or {})
        if isinstance(task, Carrying):
            task.load_state_dict(carried)
        random.generator().bit_generator.state = manifest["random"]
    except (KeyError, TypeError, ValueError, AttributeError, TinygradRnnError) as error:
        why = " ".join(str(error.args[0] if error.args else error).split())
        raise CheckpointError(f"{checkpoint.path}: does not fit this run: {why}") from None
    return state


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
