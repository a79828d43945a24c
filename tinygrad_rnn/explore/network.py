"""The network of the page, and its task: to say which number came first.

An input x_t (2,) is a number from -1 to 1 beside a mark, which is 1 at the first step and 0 after it. The target is the
first number: at the last step, or at every step. The loss of a step is half the squared error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinygrad_rnn import nn
from tinygrad_rnn.explore.settings import Settings
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.random import use_generator
from tinygrad_rnn.tensor.tensor import Tensor

INPUTS = 2
FORGET_BIAS = 2.0  # gates that begin open: without it the LSTM learns to remember too late to be watched
Floats = npt.NDArray[np.float64]


class Recall(nn.Module):
    """A recurrent layer, and a linear one on its states: (T, B, 2) gives (T, B, 1).

    The recurrent weight W_hh is orthogonal times `scale`, each of its blocks of H rows for itself: `scale` is the norm
    and the spectral radius of them all. An LSTM's forget gates begin open; the rest is drawn as the layers draw it.

    >>> from tinygrad_rnn.tensor.creation import zeros
    >>> network_of(Settings(cell="gru"))(zeros(8, 3, 2, dtype="float64")).shape
    (8, 3, 1)
    """

    def __init__(self, settings: Settings) -> None:
        H = settings.hidden
        self.layer: nn.RNN | nn.LSTM | nn.GRU
        if settings.cell == "rnn":
            self.layer = nn.RNN(INPUTS, H, nonlinearity=settings.nonlinearity, dtype="float64")
        elif settings.cell == "lstm":
            self.layer = nn.LSTM(INPUTS, H, forget_bias=FORGET_BIAS, dtype="float64")
        else:
            self.layer = nn.GRU(INPUTS, H, dtype="float64")
        self.head = nn.Linear(H, 1, dtype="float64")
        W = self.weight_hh
        blocks = [nn.init.orthogonal_(nn.Parameter(W.numpy()[k : k + H]), settings.scale) for k in range(0, len(W), H)]
        W.assign_(np.concatenate([block.numpy() for block in blocks]))

    @property
    def weight_hh(self) -> nn.Parameter:
        """W_hh, of which the ledger is."""
        return dict(self.layer.named_parameters())["weight_hh_l0"]

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x)
        outputs: Tensor = self.head(states)
        return outputs


class HalfSquaredErrors(nn.Module):
    """The loss of each step, its mean over the batch: outputs (T, B, 1) and targets (T, B) give (T,), or (1,), the last
    one's. A module, so that the graph has one box for it.

    >>> import numpy as np
    >>> HalfSquaredErrors("every")(Tensor(np.ones((3, 2, 1))), np.zeros((3, 2))).tolist()
    [0.5, 0.5, 0.5]
    """

    def __init__(self, loss: str) -> None:
        self.last_only = loss == "last"

    def forward(self, outputs: Tensor, targets: Floats) -> Tensor:
        first = len(targets) - 1 if self.last_only else 0
        errors = ops.squeeze(outputs, -1)[first:] - Tensor(targets[first:])
        return (ops.square(errors) * 0.5).mean(axis=-1)


def network_of(settings: Settings) -> Recall:
    """The network that the settings ask for; the same each time."""
    with use_generator(np.random.default_rng((settings.seed, 0))):
        return Recall(settings)


def sequences(settings: Settings, B: int, draw: int = 0) -> tuple[Floats, Floats]:
    """Inputs (T, B, 2) and targets (T, B); another `draw` gives others.

    >>> x, y = sequences(Settings(steps=3), 1)
    >>> x[:, 0, 1].tolist(), (y == x[0, 0, 0]).all().item()
    ([1.0, 0.0, 0.0], True)
    """
    T = settings.steps
    x = np.zeros((T, B, INPUTS))
    x[..., 0] = np.random.default_rng((settings.seed, 1, draw)).uniform(-1, 1, (T, B))
    x[0, :, 1] = 1
    return x, np.broadcast_to(x[0, :, 0], (T, B)).copy()
