"""A session: all that belongs to one training, from its first step or a checkpoint on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinygrad_rnn.nn import Module
from tinygrad_rnn.optim import BaseSchedule, Optimizer
from tinygrad_rnn.training.checkpoint import Checkpoint, save_checkpoint
from tinygrad_rnn.training.loop import Budget, LoopState, Outcome, Task, train
from tinygrad_rnn.training.resume import restore, snapshot

M = TypeVar("M", bound=Module)


@dataclass
class Session(Generic[M]):
    """What is trained, by what, on what, and how far it has come: all that a checkpoint of it holds."""

    model: M
    optimizer: Optimizer
    task: Task
    schedule: BaseSchedule
    state: LoopState = field(default_factory=LoopState)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back as it was when `checkpoint` was written. Raises CheckpointError for one of another
        model, optimiser or schedule.
        """
        self.state = restore(checkpoint, self.model, self.optimizer, self.task, self.schedule)

    def train(self, budget: Budget, **options: Any) -> Outcome:
        """Go on until the budget is used up; `options` are those of `training.train`."""
        parameters = list(self.model.named_parameters())
        return train(self.task, self.optimizer, parameters, budget, schedule=self.schedule, state=self.state, **options)

    def save(
        self, folder: str | os.PathLike[str], name: str, manifest: Mapping[str, Any], previous: str | None = None
    ) -> Path:
        """Write the checkpoint `name`, its `manifest` with what the session adds; see `save_checkpoint`."""
        tensors, own = snapshot(self.model, self.optimizer, self.task, self.state, self.schedule, copy=False)
        return save_checkpoint(folder, name, tensors, {**manifest, **own}, previous)
