"""To see how gradients go back through time: the ledger of BPTT, the graph, and which module and step made what."""

from tinygrad_rnn.explain.flow import Flow, LayerFlow, gradient_flow
from tinygrad_rnn.explain.gates import Gates, LayerGates, gates
from tinygrad_rnn.explain.graph import Graph, graph
from tinygrad_rnn.explain.ledger import Ledger, Truncated, ledger
from tinygrad_rnn.explain.live import WatchedTask, plot_watched, read_watched
from tinygrad_rnn.explain.trace import Handed, Step, Trace, Value, trace
from tinygrad_rnn.explain.watch import Place, Watch, step, watch
from tinygrad_rnn.explain.worked import Worked, worked

__all__ = [
    "Flow",
    "Gates",
    "Graph",
    "Handed",
    "LayerFlow",
    "LayerGates",
    "Ledger",
    "Place",
    "Step",
    "Trace",
    "Truncated",
    "Value",
    "Watch",
    "Worked",
    "WatchedTask",
    "gates",
    "gradient_flow",
    "graph",
    "ledger",
    "plot_watched",
    "read_watched",
    "step",
    "trace",
    "watch",
    "worked",
]
