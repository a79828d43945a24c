"""Optimisers over flat buffers, schedules of their rates, and gradient clipping, with PyTorch's names and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_rnn.optim.clip import clip_grad_norm_, clip_grad_value_
from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.optim.optimizers import SGD, Adam, AdamW, RMSprop
from tinygrad_rnn.optim.schedules import (
    BaseSchedule,
    BudgetLR,
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
)

__all__ = [
    "Optimizer",
    "SGD",
    "RMSprop",
    "Adam",
    "AdamW",
    "BaseSchedule",
    "Schedule",
    "ConstantLR",
    "StepLR",
    "CosineAnnealingLR",
    "LambdaLR",
    "ReduceLROnPlateau",
    "BudgetLR",
    "warmup_cosine",
    "warmup_linear",
    "warmup_constant",
    "clip_grad_norm_",
    "clip_grad_value_",
]


if not TYPE_CHECKING:  # to a type checker no name is missing then

    def __getattr__(name: str) -> Any:
        from tinygrad_rnn.pytorch import no_name

        raise no_name(__name__, name)
