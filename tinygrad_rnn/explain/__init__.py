"""To see how gradients go back through time: the ledger of BPTT, and which step of which module made what."""

from tinygrad_rnn.explain.flow import Flow, LayerFlow, gradient_flow
from tinygrad_rnn.explain.gates import Gates, LayerGates, gates
from tinygrad_rnn.explain.ledger import Ledger, Truncated, ledger
from tinygrad_rnn.explain.watch import Place, Watch, step, watch

__all__ = [
    "Flow",
    "Gates",
    "LayerFlow",
    "LayerGates",
    "Ledger",
    "Place",
    "Truncated",
    "Watch",
    "gates",
    "gradient_flow",
    "ledger",
    "step",
    "watch",
]
