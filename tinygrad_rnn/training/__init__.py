"""The training loop and what belongs to it: sessions, checkpoints, the run's folder and log, progress, metrics."""

from __future__ import annotations

from tinygrad_rnn.training.bptt import tbptt
from tinygrad_rnn.training.checkpoint import (
    Checkpoint,
    clear_stale,
    load_checkpoint,
    rename_checkpoint,
    save_checkpoint,
)
from tinygrad_rnn.training.display import (
    Aside,
    Display,
    LiveDisplay,
    NotebookDisplay,
    PlainDisplay,
    Silent,
    display_for,
)
from tinygrad_rnn.training.log import MetricsLog, read_metrics, truncate_metrics
from tinygrad_rnn.training.loop import Budget, LoopState, Outcome, Task, interruptible, train
from tinygrad_rnn.training.metrics import accuracy, edit_distance, error_rate, perplexity
from tinygrad_rnn.training.resume import Carrying, newest_checkpoint, restore, snapshot
from tinygrad_rnn.training.run import RunFolder, free_run
from tinygrad_rnn.training.session import Session
from tinygrad_rnn.training.spent import Spent

__all__ = [
    "Aside",
    "Budget",
    "Carrying",
    "Checkpoint",
    "Display",
    "LiveDisplay",
    "LoopState",
    "MetricsLog",
    "NotebookDisplay",
    "Outcome",
    "PlainDisplay",
    "RunFolder",
    "Session",
    "Silent",
    "Spent",
    "Task",
    "accuracy",
    "clear_stale",
    "display_for",
    "edit_distance",
    "error_rate",
    "free_run",
    "interruptible",
    "load_checkpoint",
    "newest_checkpoint",
    "perplexity",
    "read_metrics",
    "rename_checkpoint",
    "restore",
    "save_checkpoint",
    "snapshot",
    "tbptt",
    "train",
    "truncate_metrics",
]
