"""Optimisers over flat buffers, schedules of their rates, and gradient clipping, with PyTorch's names and results."""

from __future__ import annotations

from tinygrad_rnn.optim.clip import clip_grad_norm_, clip_grad_value_
from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.optim.optimizers import SGD, Adam, AdamW, RMSprop
from tinygrad_rnn.optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
)

__all__ = [
    "Optimizer",
    "SGD",
    "RMSprop",
    "Adam",
    "AdamW",
    "Schedule",
    "ConstantLR",
    "StepLR",
    "CosineAnnealingLR",
    "LambdaLR",
    "ReduceLROnPlateau",
    "clip_grad_norm_",
    "clip_grad_value_",
]
