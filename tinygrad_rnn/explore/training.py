"""A short training run of the network of the page, told as it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any

import numpy as np

from tinygrad_rnn.errors import NonFiniteError
from tinygrad_rnn.explore.network import Floats, HalfSquaredErrors, Recall, network_of, sequences
from tinygrad_rnn.explore.settings import Settings
from tinygrad_rnn.optim import Adam, clip_grad_norm_
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.mode import no_grad
from tinygrad_rnn.tensor.tensor import Tensor

STEPS, SECONDS, EVERY = 400, 20.0, 10
BATCH, HELD_OUT, RATE, CLIP = 16, 256, 1e-2, 1.0


def truncated_loss(network: Recall, x: Floats, y: Floats, settings: Settings) -> Tensor:
    """The mean loss of inputs x (T, B, 2) and targets y (T, B), with the gradient of `tbptt(1, k2)`: that of each step
    goes back through the last k2 steps.

    Where each step has a loss, all windows of k2 steps are one batch, each beginning with the state before it.
    """
    T, k2 = settings.steps, settings.k2
    last, every = HalfSquaredErrors("last"), HalfSquaredErrors("every")
    loss: Tensor
    if k2 >= T:
        loss = (every if settings.loss == "every" else last)(network(Tensor(x)), y).mean()
    elif settings.loss == "last":
        with no_grad():
            _, state = network.layer(Tensor(x[: T - k2]))
        outputs, _ = network.layer(Tensor(x[T - k2 :]), state)
        loss = last(network.head(outputs), y[T - k2 :]).mean()
    else:
        start = _states_before(network, x[: T - k2])
        windows = np.concatenate([x[t : t + k2] for t in range(1, T - k2 + 1)], axis=1)
        outputs, _ = network.layer(Tensor(windows), start)
        ends = last(network.head(outputs[-1:]), y[k2:].reshape(1, -1)).sum() * (T - k2)
        loss = (every(network(Tensor(x[:k2])), y[:k2]).sum() + ends) / T
    return loss


@no_grad()
def _states_before(network: Recall, x: Floats) -> Any:
    """The states after each step of x (T, B, 2), as the initial states of T B sequences."""
    states: list[Any] = [network.layer(Tensor(x[:1]))[1]]
    for t in range(1, len(x)):
        states.append(network.layer(Tensor(x[t : t + 1]), states[-1])[1])
    if isinstance(states[0], tuple):
        return tuple(ops.concatenate(list(part), axis=1) for part in zip(*states, strict=True))
    return ops.concatenate(states, axis=1)


def run(
    settings: Settings, now: Callable[[], float] = perf_counter, is_wanted: Callable[[], bool] = lambda: True
) -> Iterator[tuple[str, dict[str, object]]]:
    """Train for 400 steps of Adam or 20 seconds: ("loss", {"step", "loss", "nothing"}) every 10 steps, of sequences it
    is not trained on, beside what remembering nothing costs there; at the end ("end", {"sentence"}). Before each step
    it is asked whether the run is still wanted; if not, it ends without a word.

    >>> events = run(Settings(steps=3))
    >>> name, told = next(events)
    >>> name, told["step"]
    ('loss', 0)
    """
    network, start = network_of(settings), now()
    held_x, held_y = sequences(settings, HELD_OUT, draw=1)
    nothing = float(np.mean(held_y[-1] ** 2) / 2)
    optimiser = Adam(network.parameters(), lr=RATE)
    last = nothing
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            last = _measured(network, held_x, held_y, settings.loss)
            if not np.isfinite(last):
                yield "end", {"sentence": f"The loss is no number any more after {step} steps: training has diverged."}
                return
            yield "loss", {"step": step, "loss": last, "nothing": nothing}
        if step == STEPS or now() - start > SECONDS:
            break
        if not is_wanted():
            return
        try:
            _learn(network, optimiser, sequences(settings, BATCH, draw=2 + step), settings)
        except NonFiniteError:
            yield "end", {"sentence": f"A gradient is no number any more at step {step}: training has diverged."}
            return
        sleep(0.0005)  # whoever waits for an answer goes first
    yield "end", {"sentence": _verdict(step, last, nothing)}


@np.errstate(over="ignore", invalid="ignore")  # what diverges is told
def _learn(network: Recall, optimiser: Adam, batch: tuple[Floats, Floats], settings: Settings) -> None:
    optimiser.zero_grad()
    truncated_loss(network, *batch, settings).backward()
    clip_grad_norm_(network.parameters(), CLIP)
    optimiser.step()


@no_grad()
@np.errstate(over="ignore", invalid="ignore")
def _measured(network: Recall, x: Floats, y: Floats, loss: str) -> float:
    return float(HalfSquaredErrors(loss)(network(Tensor(x)), y).mean().item())


def _verdict(step: int, loss: float, nothing: float) -> str:
    said = f"After {step} steps the loss is {loss:.3g}; remembering nothing costs {nothing:.3g}."
    if loss < 0.1 * nothing:
        return f"{said} It has learned to remember."
    return f"{said} It has learned a part of it." if loss < 0.8 * nothing else f"{said} It has learned nothing."


def event(name: str, told: dict[str, object]) -> bytes:
    """An event as a browser's EventSource reads it.

    >>> event("end", {"sentence": "Done."})
    b'event: end\\ndata: {"sentence": "Done."}\\n\\n'
    """
    return f"event: {name}\ndata: {json.dumps(told, allow_nan=False)}\n\n".encode()
