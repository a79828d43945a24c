"""Learning to predict the next character, by truncated back-propagation through time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn
from ..data.sequences import Passage, Streams
from ..tensor.backend import to_host
from ..tensor.graph import no_grad
from ..tensor.tensor import Tensor


class NextCharacter:
    """The task of `tinygrad-rnn train`: a model that maps (ids (T, B), state) to (scores (T, B, V), state).

    Each training step is one chunk of the streams. The state that a chunk ends in begins the next one, but
    detached: its values are carried over, its graph is not, so gradients reach back to the beginning of their
    own chunk.
    """

    goal = "held_out_bits_per_char"
    unit = "chars"

    def __init__(self, model: nn.Module, streams: Streams, held_out: Passage, chunk: int = 256) -> None:
        self.model, self.streams, self.held_out, self.chunk = model, streams, held_out, chunk
        self.state: Any = None

    def loss(self, step: int) -> tuple[Tensor, int]:
        """The mean cross-entropy of chunk number `step` in nats, and its number of characters."""
        chunk = self.streams[step]
        scores, state = self.model(chunk.x, None if chunk.fresh else self.state)
        self.state = _detached(state)
        return nn.functional.cross_entropy(scores, chunk.y), chunk.y.size

    def describe(self, loss: float) -> dict[str, float]:
        """Bits per character: the loss in nats over ln 2."""
        return {"bits_per_char": loss / math.log(2)}

    def evaluate(self) -> dict[str, float]:
        """Bits per character of the held-out text, all of it, in evaluation mode."""
        self.model.eval()
        try:
            bits = bits_per_char(self.model, self.held_out, self.chunk)
        finally:
            self.model.train()
        return {self.goal: bits}


@no_grad()
def bits_per_char(model: Callable[..., tuple[Any, Any]], text: Passage, chunk: int = 256) -> float:
    """The mean of -log2 p over the counted targets of `text`; state is carried through all of it."""
    total, state = 0.0, None
    for start in range(0, len(text.x), chunk):
        part = slice(start, start + chunk)
        scores, state = model(text.x[part], state)
        x = to_host(scores.data)
        x = x - x.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(x, text.y[part][..., None], axis=-1)[..., 0]
        nats = np.log(np.exp(x).sum(axis=-1, dtype=np.float64)) - chosen
        total += float(nats[text.counted[part]].sum())
    return total / int(text.counted.sum()) / math.log(2)


def _detached(state: Any) -> Any:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
