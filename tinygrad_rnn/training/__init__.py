"""The training loop and what belongs to it: tasks, metrics, scores, progress, pictures, checkpoints, the run's
folder.
"""

from __future__ import annotations

from .bptt import tbptt
from .checkpoint import Checkpoint, clear_stale, load_checkpoint, rename_checkpoint, save_checkpoint
from .display import Display, LiveDisplay, PlainDisplay, Silent, display_for
from .language import NextCharacter, bits_per_char, character_bits
from .loop import SCHEDULES, Budget, LoopState, Outcome, Task, interruptible, train, warmup_cosine
from .metrics import MetricsLog, read_metrics, truncate_metrics
from .plot import plot_loss
from .run import RunFolder, free_run
from .scores import accuracy, edit_distance, error_rate, perplexity
from .snapshot import Carrying, restore, snapshot

__all__ = [
    "SCHEDULES",
    "Budget",
    "Carrying",
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
    "accuracy",
    "bits_per_char",
    "character_bits",
    "clear_stale",
    "display_for",
    "edit_distance",
    "error_rate",
    "free_run",
    "interruptible",
    "load_checkpoint",
    "perplexity",
    "plot_loss",
    "read_metrics",
    "rename_checkpoint",
    "restore",
    "save_checkpoint",
    "snapshot",
    "tbptt",
    "train",
    "truncate_metrics",
    "warmup_cosine",
]
