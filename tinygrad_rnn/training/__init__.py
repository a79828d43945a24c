"""The training loop and what belongs to it: tasks, metrics, progress, pictures, checkpoints, the run's
folder.
"""

from __future__ import annotations

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .display import Display, LiveDisplay, PlainDisplay, Silent, display_for
from .language import NextCharacter, bits_per_char
from .loop import Budget, LoopState, Outcome, Task, interruptible, train, warmup_cosine
from .metrics import MetricsLog, read_metrics
from .plot import plot_loss
from .run import RunFolder, free_run

__all__ = [
    "Budget",
    "Checkpoint",
    "Display",
    "LiveDisplay",
    "LoopState",
    "MetricsLog",
    "NextCharacter",
    "Outcome",
    "PlainDisplay",
    "RunFolder",
    "Silent",
    "Task",
    "bits_per_char",
    "display_for",
    "free_run",
    "interruptible",
    "load_checkpoint",
    "plot_loss",
    "read_metrics",
    "save_checkpoint",
    "train",
    "warmup_cosine",
]
