"""Random recurrent layers, and what they compute written down step by step, sequence by sequence, with a probe at each
state: the derivative of a loss by a probe is that by the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.nn import recurrent_options
from tinygrad_rnn.nn.cells import NONLINEARITIES, add_biases, gru_biases

KINDS = {"RNN": tr.nn.RNN, "LSTM": tr.nn.LSTM, "GRU": tr.nn.GRU}


@dataclass
class Case:
    """A layer in float64 with an input, initial states and lengths."""

    layer: Any
    x: Any
    hx: Any
    lengths: list[int] | None
    weights: Any  # of the loss, one for each number of the output

    @property
    def ends(self) -> list[int]:
        return self.lengths or [self.x.shape[0]] * self.x.shape[1]

    def output(self) -> Any:
        return self.layer(self.x, self.hx, lengths=self.lengths)[0]

    def loss(self, output: Any) -> Any:
        return (tr.square(output) * self.weights).sum()


@st.composite
def cases(draw: Any, kinds: tuple[str, ...] = tuple(KINDS), layer_norm: bool | None = None) -> Case:
    kind = draw(st.sampled_from(kinds))
    T, B, H = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    options: dict[str, Any] = {
        "bidirectional": draw(st.booleans()),
        "fused": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    options["layer_norm"] = draw(st.booleans()) if layer_norm is None else layer_norm
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu", "sigmoid"]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    layer = KINDS[kind](2, H, draw(st.integers(1, 2)), dtype="float64", generator=rng, **options)
    for p in layer.parameters():
        p.assign_(p.numpy() + rng.uniform(-0.5, 0.5, p.shape))
    lengths = draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B))
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    states = [tr.Tensor(rng.normal(size=(rows, B, H))) for _ in range(2 if kind == "LSTM" else 1)]
    hx = None if draw(st.booleans()) else tuple(states) if kind == "LSTM" else states[0]
    last = draw(st.booleans())
    weights = rng.normal(size=(T, B, H * (2 if layer.bidirectional else 1)))
    if last:
        weights[:-1] = 0
    return Case(layer, tr.Tensor(rng.normal(size=(T, B, 2))), hx, lengths, tr.Tensor(weights))


def by_hand(case: Case) -> tuple[Any, dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """The output of the layer; the probes of h and c, (T, B, H) by "h l0_reverse"; the gates (T, B, H) of each name."""
    layer, (T, B) = case.layer, case.x.shape[:2]
    H, count = layer.hidden_size, 2 if layer.gates == 4 else 1
    tails = ("", "_reverse") if layer.bidirectional else ("",)
    probes = {
        f"{s} l{k}{tail}": tr.zeros(T, B, H, dtype="float64", requires_grad=True)
        for s in "hc"[:count] for k in range(layer.num_layers) for tail in tails
    }  # fmt: skip
    seen: dict[str, dict[str, np.ndarray]] = {}
    hx = case.hx if isinstance(case.hx, tuple) else (case.hx,) * count
    x = [[case.x[t, b] for b in range(B)] for t in range(T)]
    zero = tr.zeros(H, dtype="float64")
    for k in range(layer.num_layers):
        outputs: list[list[Any]] = []
        for d, tail in enumerate(tails):
            name, row = f"l{k}{tail}", k * len(tails) + d
            out, found = [[zero] * B for _ in range(T)], seen.setdefault(name, {})
            for b, end in enumerate(case.ends):
                state = [zero if s is None else s[row, b] for s in hx]
                for t in range(end)[:: -1 if d else 1]:
                    rows = _step(
                        layer, f"_{name}", x[t][b], state, {s: probes[f"{s} {name}"][t, b] for s in "hc"[:count]}
                    )
                    state = [rows[s] for s in "hc"[:count]]
                    out[t][b] = rows["h"]
                    for gate, value in rows.items():
                        found.setdefault(gate, np.full((T, B, H), np.nan))[t, b] = value.numpy()
            outputs.append(tr.stack([tr.stack(line) for line in out]))
        both = tr.concatenate(outputs, axis=-1)
        x = [[both[t, b] for b in range(B)] for t in range(T)]
    return both, probes, seen


def _step(layer: Any, tail: str, x: Any, state: list[Any], probe: dict[str, Any]) -> dict[str, Any]:
    W_ih, W_hh, b_ih, b_hh = layer._weights(tail)
    options = recurrent_options.options_of(layer, tail)
    before, inside = gru_biases(b_ih, b_hh) if layer.gates == 3 else (add_biases(b_ih, b_hh), None)
    x, state = options.project(x[None], W_ih, before), [s[None] for s in state]
    if layer.gates == 1:
        h = recurrent_options.rnn_with_options(options, x, *state, W_hh, NONLINEARITIES[layer.nonlinearity])
        return {"h": h[0] + probe["h"]}
    if layer.gates == 3:
        r, z, n, _, h = (row[0] for row in recurrent_options.gru_with_options(options, x, *state, W_hh, inside))
        return {"r": r, "z": z, "n": n, "h": h + probe["h"]}
    i, f, o, g, _, c = (row[0] for row in recurrent_options.lstm_with_options(options, x, *state, W_hh))
    c = c + probe["c"]
    return {"i": i, "f": f, "g": g, "o": o, "c": c, "h": o * tr.tanh(options.norm("c", c)) + probe["h"]}
