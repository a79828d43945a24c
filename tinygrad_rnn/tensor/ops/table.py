"""Moved to tinygrad_rnn/tensor/op.py: options follow the arrays there, by name or by position."""

from tinygrad_rnn.tensor.op import op

__all__ = ["op"]
