"""Twenty thousand training steps with the cyclic garbage collector off: nothing may be left behind."""

from __future__ import annotations

import gc
from typing import Any

from benchmarks.processes import call, current_memory


def train(steps: int) -> dict[str, Any]:
    """Objects and bytes after `steps` steps of a small LSTM, compared with after a first hundred."""
    import numpy as np

    import tinygrad_rnn as tr

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 11, (6, 3))
    embed, lstm, linear = tr.nn.Embedding(11, 8), tr.nn.LSTM(8, 8), tr.nn.Linear(8, 11)
    parameters = [*embed.parameters(), *lstm.parameters(), *linear.parameters()]
    optimizer = tr.optim.Adam(parameters, lr=1e-3)
    state = None

    def step() -> None:
        nonlocal state
        output, state = lstm(embed(tokens[:-1]), state)
        state = tuple(s.detach() for s in state)
        loss = tr.nn.functional.cross_entropy(linear(output).reshape((-1, 11)), tokens[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        tr.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    for _ in range(100):
        step()
    gc.collect()
    gc.disable()
    step()  # a collection stops tracking some tuples; those of a step's state are new again
    objects, memory = len(gc.get_objects()), current_memory()
    for _ in range(steps):
        step()
    grown = current_memory() - memory
    left = len(gc.get_objects()) - objects
    return {
        "steps": steps,
        "objects left": left,
        "of them in cycles": gc.collect(),
        "memory grown, MB": grown / 1e6,
    }


def measure(full: bool) -> list[dict[str, Any]]:
    """One row."""
    return [call(f"{__name__}:train", steps=20_000)]
