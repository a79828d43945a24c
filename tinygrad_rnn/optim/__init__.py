"""Optimisers over flat buffers, and gradient clipping, with PyTorch's names and results."""

from __future__ import annotations

from tinygrad_rnn.optim.clip import clip_grad_norm_, clip_grad_value_
from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.optim.optimizers import SGD, Adam, AdamW

__all__ = ["Optimizer", "SGD", "Adam", "AdamW", "clip_grad_norm_", "clip_grad_value_"]
