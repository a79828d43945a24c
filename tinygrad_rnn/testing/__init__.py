"""The public test kit: is a derivative right?

`check_gradients` checks any function of Tensors, `domains` has a row for every op, and `strategies` (which
alone needs Hypothesis, and is not imported here) draws shapes, layouts and examples.
"""

from __future__ import annotations

from tinygrad_rnn.testing.domains import DOMAINS, Case, Domain
from tinygrad_rnn.testing.errors import GradientError, KinkError, LawError
from tinygrad_rnn.testing.gradients import check_gradients
from tinygrad_rnn.testing.modules import check_module
from tinygrad_rnn.testing.ops import check_op
from tinygrad_rnn.testing.recurrent import check_recurrent
from tinygrad_rnn.testing.values import Boolean, Distinct, Integer, Real

__all__ = [
    "DOMAINS",
    "Boolean",
    "Case",
    "Distinct",
    "Domain",
    "GradientError",
    "Integer",
    "KinkError",
    "LawError",
    "Real",
    "check_gradients",
    "check_module",
    "check_op",
    "check_recurrent",
]
