"""Back-propagation through time written out by hand in float64 NumPy: the oracle of the recurrent layers.

Nothing here knows of the package: the derivatives are those one finds with pencil and paper, in the layouts
and the gate orders of PyTorch (LSTM i, f, g, o; GRU r, z, n with the reset after the product). One function
per direction of time and kind runs forwards and remembers, its partner runs backwards. `Network` puts layers,
directions, dropout and sequences of their own lengths together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
Weights = dict[str, np.ndarray]  # weight_ih (G*H, I), weight_hh (G*H, H), bias_ih (G*H,), bias_hh (G*H,)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


@dataclasses.dataclass
class Trace:
    """What one direction of one layer did: the states of all steps, and what the way back needs."""

    kind: str
    nonlinearity: str
    x: np.ndarray  # (T, B, I)
    h: np.ndarray  # (T + 1, B, H): h[0] is the initial state, h[t + 1] the state after step t
    c: np.ndarray  # (T + 1, B, H): used by the LSTM only
    kept: list[tuple[np.ndarray, ...]]
    running: np.ndarray  # (T, B, 1): a sequence that has ended keeps its state


def forward(
    kind: str,
    x: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray,
    w: Weights,
    nonlinearity: str = "tanh",
    running: np.ndarray | None = None,
) -> Trace:
    """Run one direction over x (T, B, I); a sequence computes where `running` (T, B, 1), by default everywhere."""
    T, B, _ = x.shape
    running = np.ones((T, B, 1), bool) if running is None else running
    H = h0.shape[-1]
    h = np.zeros((T + 1, B, H))
    c = np.zeros((T + 1, B, H))
    h[0], c[0] = h0, c0
    kept: list[tuple[np.ndarray, ...]] = []
    for t in range(T):
        a = x[t] @ w["weight_ih"].T + w["bias_ih"]
        b = h[t] @ w["weight_hh"].T + w["bias_hh"]
        if kind == "rnn":
            z = a + b
            h[t + 1] = {"tanh": np.tanh, "relu": lambda v: np.maximum(v, 0), "sigmoid": sigmoid}[nonlinearity](z)
            kept.append((z,))
        elif kind == "lstm":
            z = a + b
            i, f = sigmoid(z[:, :H]), sigmoid(z[:, H : 2 * H])
            u, o = np.tanh(z[:, 2 * H : 3 * H]), sigmoid(z[:, 3 * H :])
            c[t + 1] = f * c[t] + i * u
            h[t + 1] = o * np.tanh(c[t + 1])
            kept.append((i, f, u, o))
        else:
            r = sigmoid(a[:, :H] + b[:, :H])
            z = sigmoid(a[:, H : 2 * H] + b[:, H : 2 * H])
            m = b[:, 2 * H :]
            n = np.tanh(a[:, 2 * H :] + r * m)
            h[t + 1] = (1 - z) * n + z * h[t]
            kept.append((r, z, m, n))
        h[t + 1] = np.where(running[t], h[t + 1], h[t])
        c[t + 1] = np.where(running[t], c[t + 1], c[t])
    return Trace(kind, nonlinearity, x, h, c, kept, running)


def backward(
    trace: Trace, dy: np.ndarray, dh_n: np.ndarray, dc_n: np.ndarray, w: Weights
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Gradients of sum(dy * h[1:]) + sum(dh_n * h[T]) + sum(dc_n * c[T]).

    The first dictionary holds x, h0, c0 and every weight, the second what each step contributes to each
    weight: arrays with a leading axis of T whose sums over time are the weights' gradients.
    """
    T, B, _ = trace.x.shape
    H = trace.h.shape[-1]
    G = GATES[trace.kind]
    dx = np.zeros_like(trace.x)
    steps = {name: np.zeros((T, *value.shape)) for name, value in w.items()}
    dh, dc = dh_n.copy(), dc_n.copy()
    for t in reversed(range(T)):
        on = trace.running[t]
        waiting = dh, dc
        dh = dh + dy[t]
        h, c = trace.h[t], trace.c[t]
        if trace.kind == "rnn":
            (z,) = trace.kept[t]
            y = trace.h[t + 1]
            slope = {"tanh": 1 - y * y, "relu": (z > 0) * 1.0, "sigmoid": y * (1 - y)}[trace.nonlinearity]
            da = db = dh * slope
            dh = np.zeros((B, H))
        elif trace.kind == "lstm":
            i, f, u, o = trace.kept[t]
            tc = np.tanh(trace.c[t + 1])
            dc = dc + dh * o * (1 - tc**2)
            da = db = np.concatenate(
                [dc * u * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - u**2), dh * tc * o * (1 - o)],
                axis=1,
            )
            dc = dc * f
            dh = np.zeros((B, H))
        else:
            r, z, m, n = trace.kept[t]
            dn = dh * (1 - z) * (1 - n**2)
            dz = dh * (h - n) * z * (1 - z)
            dr = dn * m * r * (1 - r)
            da = np.concatenate([dr, dz, dn], axis=1)
            db = np.concatenate([dr, dz, dn * r], axis=1)
            dh = dh * z
        assert da.shape == (B, G * H)
        da, db = da * on, db * on
        dx[t] = da @ w["weight_ih"]
        dh = np.where(on, dh + db @ w["weight_hh"], waiting[0])
        dc = np.where(on, dc, waiting[1])
        steps["weight_ih"][t] = da.T @ trace.x[t]
        steps["weight_hh"][t] = db.T @ h
        steps["bias_ih"][t] = da.sum(0)
        steps["bias_hh"][t] = db.sum(0)
    total = {name: value.sum(0) for name, value in steps.items()}
    return {"x": dx, "h0": dh, "c0": dc, **total}, steps


@dataclasses.dataclass
class Network:
    """Several layers and directions, parameters named as PyTorch names them.

    `masks[l]`, where given, multiplies what layer l hands to layer l + 1 (dropout, already scaled). Of `lengths`
    (B,), where given, each is where a sequence ends: its output is 0 and its state rests from there on, and its
    backward direction begins at its own last step.
    """

    kind: str
    parameters: dict[str, np.ndarray]
    num_layers: int = 1
    bidirectional: bool = False
    nonlinearity: str = "tanh"
    masks: list[np.ndarray] | None = None
    lengths: Sequence[int] | None = None

    def weights(self, layer: int, direction: int) -> Weights:
        """The four arrays of one direction of one layer, in float64; absent biases are zeros."""
        tail = f"_l{layer}" + ("_reverse" if direction else "")
        found = {}
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value = self.parameters.get(name + tail)
            if value is None:
                value = np.zeros(len(self.parameters["weight_hh" + tail]))
            found[name] = np.asarray(value, np.float64)
        return found

    def turned(self, x: np.ndarray) -> np.ndarray:
        """Each sequence of x (T, B, ...) backwards in time, from its own last step to its first."""
        y = x.copy()
        for b, n in enumerate(self.running[:, :, 0].sum(0)):
            y[:n, b] = x[:n, b][::-1]
        return y

    def run(self, x: np.ndarray, h0: np.ndarray, c0: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(output, h_n, c_n) for x (T, B, I) and states (layers * directions, B, H)."""
        D = 2 if self.bidirectional else 1
        T, B, _ = x.shape
        self.traces: list[list[Trace]] = []
        ends = [T] * B if self.lengths is None else self.lengths
        self.running = np.arange(T)[:, None, None] < np.reshape(ends, (B, 1))
        y = np.where(self.running, np.asarray(x, np.float64), 0)
        h_n, c_n = [], []
        for layer in range(self.num_layers):
            traces, outputs = [], []
            for d in range(D):
                k = layer * D + d
                weights = self.weights(layer, d)
                inward = self.turned(y) if d else y
                trace = forward(self.kind, inward, h0[k], c0[k], weights, self.nonlinearity, self.running)
                traces.append(trace)
                outward = np.where(self.running, trace.h[1:], 0)
                outputs.append(self.turned(outward) if d else outward)
                h_n.append(trace.h[-1])
                c_n.append(trace.c[-1])
            self.traces.append(traces)
            y = np.concatenate(outputs, axis=-1)
            if self.masks is not None and layer + 1 < self.num_layers:
                y = y * self.masks[layer]
        return y, np.stack(h_n), np.stack(c_n)

    def gradients(self, dy: np.ndarray, dh_n: np.ndarray, dc_n: np.ndarray) -> dict[str, Any]:
        """Gradients of the last `run`: x, h0, c0 and every parameter by its name."""
        D = 2 if self.bidirectional else 1
        found: dict[str, Any] = {"h0": np.zeros_like(dh_n), "c0": np.zeros_like(dc_n)}
        for layer in reversed(range(self.num_layers)):
            if self.masks is not None and layer + 1 < self.num_layers:
                dy = dy * self.masks[layer]
            dx = 0.0
            for d in range(D):
                H = dh_n.shape[-1]
                part = np.where(self.running, dy[..., d * H : (d + 1) * H], 0)
                k = layer * D + d
                grads, _ = backward(
                    self.traces[layer][d], self.turned(part) if d else part, dh_n[k], dc_n[k], self.weights(layer, d)
                )
                dx = dx + (self.turned(grads["x"]) if d else grads["x"])
                found["h0"][k], found["c0"][k] = grads["h0"], grads["c0"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    full = f"{name}_l{layer}" + ("_reverse" if d else "")
                    if full in self.parameters:
                        found[full] = grads[name]
            dy = np.asarray(dx)
        found["x"] = dy
        return found


def assert_close(found: Any, expected: np.ndarray, rtol: float = 1e-10) -> None:
    """Equal relative to the largest element of `expected`; where that is 0, exactly.

    Never an absolute tolerance: one hides a gradient that was cut when what is left of it is small.
    """
    found = np.asarray(found)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if expected.size:
        error, scale = np.abs(found - expected).max(), np.abs(expected).max()
        # 1e-320 is a few last bits of the smallest numbers that there are: a sigmoid vanishes so far in 500 steps
        assert error <= rtol * scale + 1e-320, f"off by {error:.3e}, where the largest element is {scale:.3e}"


def assert_steps_close(found: Any, expected: np.ndarray, rtol: float = 1e-10) -> None:
    """Each entry along the first axis (time) equal relative to its own size."""
    assert len(found) == len(expected)
    for t, (a, b) in enumerate(zip(found, expected, strict=True)):
        try:
            assert_close(a, b, rtol)
        except AssertionError as error:
            raise AssertionError(f"step {t}: {error}") from None
