"""To see how gradients go back through time: the ledger of BPTT, and which step of which module made what."""

from tinygrad_rnn.explain.ledger import Ledger, Truncated, ledger
from tinygrad_rnn.explain.watch import Place, Watch, step, watch

__all__ = ["Ledger", "Place", "Truncated", "Watch", "ledger", "step", "watch"]
