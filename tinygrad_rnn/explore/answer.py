"""What the page shows for one choice of settings: a dictionary of plain numbers and texts, ready for JSON.

Nothing is derived here: `tinygrad_rnn.explain` takes the gradient apart, and this file puts numbers in lists.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygrad_rnn import explain
from tinygrad_rnn.explain.layout import in_layers
from tinygrad_rnn.explain.ledger import angle
from tinygrad_rnn.explain.svg import svg
from tinygrad_rnn.explore.network import Floats, HalfSquaredErrors, network_of, sequences
from tinygrad_rnn.explore.settings import Settings
from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.tensor import Tensor


def answer(settings: Settings) -> dict[str, Any]:
    """All that the page shows. Steps count from 0; a list over steps has T entries, null where a number is not finite.

    >>> shown = answer(Settings(steps=3))
    >>> sorted(shown)
    ['flow', 'forward', 'gates', 'graph', 'ledger', 'parameters', 'settings', 'sweep']
    >>> shown["ledger"]["rows"][0][0]  # the first use multiplies h_-1 = 0
    0
    """
    network, cost = network_of(settings), HalfSquaredErrors(settings.loss)
    x, y = sequences(settings, 1)
    with explain.watch() as seen:
        states, _ = network.layer(Tensor(x))
        outputs = network.head(states)
        losses = cost(outputs, y)
        loss = losses.sum()
    gates = explain.gates(network.layer, Tensor(x))[0]
    flow = seen.gradient_flow(loss)[0]
    ledger, uses = _ledger(losses, network.weight_hh, settings.steps)
    arrays = {name: getattr(gates, name)[:, 0] for name in gates.names}
    forward = {"x": x[:, 0], "o": outputs.numpy()[:, 0, 0], "y": y[0, 0], "losses": losses.numpy()}
    forward |= {name: arrays.pop(name) for name in ("h", "c") if name in arrays}
    return {
        "settings": asdict(settings),
        "parameters": sum(parameter.size for parameter in network.parameters()),
        "forward": {name: short(values) for name, values in forward.items()},
        "gates": {name: short(values) for name, values in arrays.items()},
        "ledger": ledger,
        "sweep": _sweep(loss, states, uses, flow),
        "flow": _flow(flow),
        "graph": _picture(loss),
    }


def _picture(loss: Tensor) -> str:
    """The folded graph as SVG. Laid out without graphviz, which takes longer than all the rest."""
    found = explain.graph(loss)
    return svg(
        found.boxes, found.arrows, in_layers(found.boxes, found.arrows), f"The graph of {found.nodes} nodes, folded"
    )


def _ledger(losses: Tensor, W: Tensor, T: int) -> tuple[dict[str, Any], Floats]:
    """The norms of the table, a row for each loss, and what each truncation keeps and cuts; and what each use of the
    weight adds to its gradient, (T, ...).
    """
    first = T - len(losses)
    table = explain.ledger({first + i: loss for i, loss in enumerate(losses)}, W)
    kept = np.zeros((T, *W.shape))
    found = table.by_distance()
    kept[: len(found)] = found
    kept = kept.cumsum(axis=0)
    uses = np.stack([table.column(k) for k in range(T)])
    whole = kept[-1]
    shown = {
        "first": first,
        "rows": [short(row[: first + i + 1]) for i, row in enumerate(table.norms)],
        "total": short(np.linalg.norm(whole)),
        "truncated": {
            "norm": short(_norms(kept)),
            "cut": short(_norms(whole - kept)),
            "angle": short([angle(part, whole) for part in kept]),
        },
    }
    return shown, uses


def _norms(arrays: Floats) -> Floats:
    """The norm of each array along the first axis."""
    found: Floats = np.linalg.norm(arrays.reshape(len(arrays), -1), axis=-1)
    return found


def _sweep(loss: Tensor, states: Tensor, uses: Floats, flow: explain.LayerFlow) -> dict[str, Any]:
    """What flows where, step by step: vectors dL/dh_t, and norms of the rest."""
    total = flow.dh[:, 0]
    direct = grad(loss, states, retain_graph=True).numpy()[:, 0]  # through no other state
    from_the_end = uses[::-1].cumsum(axis=0)[::-1]
    return {
        "g": short(total),
        "direct": short(np.linalg.norm(direct, axis=-1)),
        "carried": short(np.linalg.norm(total - direct, axis=-1)),
        "cells": None if flow.cells is None else short(flow.cells),
        "uses": short(_norms(uses)),
        "sofar": short(_norms(from_the_end)),
    }


def _flow(flow: explain.LayerFlow) -> dict[str, Any]:
    return {
        "states": short(flow.states),
        "bound": short(flow.bound),
        "norms": short(flow.norms[:, 0]),
        "radii": short(flow.radii[:, 0]),
        "verdict": flow.verdict(),
    }


def short(values: npt.ArrayLike) -> Any:
    """Numbers with four digits, in lists as deep as the array; None for what is not finite.

    >>> short([[1.23456, float("nan")], [0.0, 2e-9]])
    [[1.235, None], [0, 2e-09]]
    """
    array = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = 3 - np.floor(np.log10(np.abs(array)))  # behind the point
        up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)  # whole powers, which are exact
        rounded = np.where(places > 0, np.round(array * up) / up, np.round(array / down) * down)
    return _listed(np.where(array == 0, 0.0, rounded).tolist())


def _listed(numbers: Any) -> Any:
    if isinstance(numbers, list):
        return [_listed(number) for number in numbers]
    if not math.isfinite(numbers):
        return None
    return int(numbers) if numbers == int(numbers) and abs(numbers) < 1e6 else numbers
