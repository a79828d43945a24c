"""Why plain recurrent networks forget: the gradient dL/dh_t, followed back over 200 steps.

In h_t = f(x_t + h_{t-1} Wᵀ), t = 0 ... T-1, the chain rule multiplies by W and by f' once a step, so |dL/dh_t| is at
most (max f' · ‖W‖)^(T-1-t) times |dL/dh_{T-1}|, ‖W‖ being the largest singular value of W (Pascanu, Mikolov and Bengio
2013). Below 1 that is a death sentence, above 1 a licence to explode. The first picture follows five cells at three
scales of their weights, with that bound; the second shows what gates change: the factor is theirs to choose.

Then both cures in numbers. Clipping, against explosion: the same training with it and without. Gates, against
vanishing: which cell learns to remember one sign over a hundred steps of noise?
"""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.plots import CELLS, GREY, INK, draw_curves, tones
from tinygrad_rnn import nn
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.optim import SGD, clip_grad_norm_
from tinygrad_rnn.training import accuracy

T, B, H = 200, 16, 32
SCALES = (0.5, 1.0, 2.0)
SLOPE = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0}  # the largest value of f'
SHOWN = {"sigmoid": "sigmoid RNN", "tanh": "tanh RNN", "relu": "ReLU RNN", "LSTM": "LSTM", "GRU": "GRU"}
AXES = {"yscale": "log", "xlim": (0, T), "xlabel": "steps back from the end"}


def gradients(run: Experiment, cell: str, scale: float, gate: float = 0.0) -> np.ndarray:
    """|dL/dh_t| for t = 0 ... T-1, the mean of B sequences: L = u·h_{T-1}, u a random unit vector, inputs are noise.

    Each H x H block of W is `scale` times a random orthogonal matrix, so ‖W‖ is `scale`. `gate` is the bias of the
    LSTM's forget gate and of the GRU's update gate, both of which keep the old state where they are open.
    """
    rng = np.random.default_rng((run.seed, 1))
    blocks = {"LSTM": 4, "GRU": 3}.get(cell, 1)
    W = np.concatenate([scale * np.linalg.qr(rng.standard_normal((H, H)))[0] for _ in range(blocks)])
    x = 0.5 * rng.standard_normal((T, B, blocks * H))
    if blocks > 1:
        x[..., H : 2 * H] += gate  # the second block is f in the LSTM, z in the GRU
    u = rng.standard_normal((B, H))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)

    # float64: these gradients leave the range of float32. The plain cells give every h_t as a node of the graph.
    W, x, u = (tr.Tensor(a, device=run.device, requires_grad=a is W) for a in (W, x, u))
    h = c = tr.zeros(B, H, dtype="float64", device=run.device)
    states = []
    for x_t in x:
        if cell == "LSTM":
            h, c = nn.lstm_cell(x_t, h, c, W)
        else:
            h = nn.gru_cell(x_t, h, W) if cell == "GRU" else nn.rnn_cell(x_t, h, W, nonlinearity=cell)
        states.append(h)
    g = np.stack([g.numpy() for g in tr.grad((u * h).sum(), states)])
    largest = np.abs(g).max(axis=(1, 2), keepdims=True).clip(1e-300)  # the square of an entry may underflow
    return (largest[..., 0] * np.linalg.norm(g / largest, axis=-1)).mean(axis=-1)


class Recall(nn.Module):
    """The first input is +1 or -1, the rest is noise; after the last step: which was it? A score (B,)."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size, 1)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        return self.head(self.layer(x)[0][-1]).reshape(-1)

    def cost(self, x: tr.Tensor, y: tr.Tensor) -> tr.Tensor:
        return F.binary_cross_entropy_with_logits(self(x), y)


def recall_batch(run: Experiment, *seed: int, length: int, count: int = 32) -> tuple[tr.Tensor, tr.Tensor]:
    """Inputs (T, B, 1) and whether the first one is +1."""
    rng = np.random.default_rng((run.seed, *seed))
    x = rng.normal(0, 0.3, (length, count, 1))
    sign = rng.integers(0, 2, count)
    x[0, :, 0] = 2 * sign - 1
    return run.tensor(x), run.tensor(sign * 1.0)


def remember(run: Experiment, length: int, name: str, layer: nn.Module) -> float:
    """Train a cell on the recall task; its accuracy in % on 1000 fresh sequences."""
    model = Recall(layer).to(run.device)
    valid, (x, y) = (recall_batch(run, k, length=length, count=count) for k, count in ((2, 500), (3, 1000)))
    batch = lambda step: (recall_batch(run, 4, step, length=length), 32)
    run.fit(name, model, batch, model.cost, lambda: {"validation": model.cost(*valid).item()}, lr=3e-3, evaluations=5)
    with tr.no_grad():
        return 100 * accuracy(model(x) > 0, y > 0)


def descend(run: Experiment, clip: float | None, steps: int, length: int = 40) -> tuple[tuple[float, ...], ...]:
    """The losses and gradient norms of plain SGD on the recall task, for a ReLU RNN that begins at W = 1.05 I."""
    tr.manual_seed(run.seed)
    model = Recall(nn.RNN(1, H, nonlinearity="relu")).to(run.device)
    model.layer.weight_hh_l0.assign_(1.05 * np.eye(H, dtype=np.float32))
    optimiser = SGD(model.parameters(), lr=0.03)
    history = []
    for step in range(steps):
        loss = model.cost(*recall_batch(run, 5, step, length=length))
        optimiser.zero_grad()
        loss.backward()
        size = clip_grad_norm_(model.parameters(), clip or math.inf, error_if_nonfinite=False)
        history.append((loss.item(), size))
        if not np.isfinite(history[-1]).all():
            break
        optimiser.step()
    return tuple(zip(*history, strict=True))


def main(run: Experiment) -> None:
    run.source(f"generated: noise through {H} units over {T} steps; a sign to be remembered")
    back = T - 1 - np.arange(T)  # how many steps before the end
    curves = {(cell, scale): gradients(run, cell, scale) for scale in SCALES for cell in SHOWN}
    bounds = {(cell, scale): (slope * scale) ** back for scale in SCALES for cell, slope in SLOPE.items()}
    rows = [[name, *(f"{curves[cell, scale][0]:.0e}" for scale in SCALES)] for cell, name in SHOWN.items()]
    rows += [[f"bound, {SHOWN[cell]}", *(f"{bounds[cell, scale][0]:.0e}" for scale in SCALES)] for cell in SLOPE]
    run.table(f"|dL/dh_0| where |dL/dh_{T - 1}| is 1", ["cell", *(f"‖W‖ = {scale:g}" for scale in SCALES)], rows)
    excess = max(float((curves[key] / bound).max()) for key, bound in bounds.items())
    run.expect("the largest |dL/dh_t|, as a multiple of the bound", excess, at_most=1 + 1e-9)
    draw_scales(run, back, curves, bounds)

    biases = (0.0, 1.0, 3.0, math.log(T))
    gates = {(cell, bias): gradients(run, cell, 1.0, bias) for cell in ("LSTM", "GRU") for bias in biases}
    rows = [[cell, *(f"{gates[cell, bias][0]:.0e}" for bias in biases)] for cell in ("LSTM", "GRU")]
    run.table("|dL/dh_0| by the bias of the gate, ‖W‖ = 1", ["cell", *(f"bias {bias:.3g}" for bias in biases)], rows)
    run.note("Gates alone are no cure: with a bias of 0 a gate halves the state at each step. Open, it keeps it.")
    run.expect(f"GRU, its gate's bias ln {T}: log10 |dL/dh_0|", math.log10(gates["GRU", biases[-1]][0]), at_least=-3)
    draw_gates(run, back, gates, curves["tanh", 1.0])

    runs = {name: descend(run, clip, 150 if run.quick else 300) for name, clip in (("none", None), ("at 1", 1.0))}
    last = {name: float(np.mean(losses[-50:])) for name, (losses, _) in runs.items()}
    rows = [[name, len(losses), f"{max(norms):.0e}", last[name]] for name, (losses, norms) in runs.items()]
    columns = ["clipping", "steps", "largest norm", "loss at the end"]
    run.table(f"SGD on a ReLU RNN; always saying “perhaps” costs ln 2 = {math.log(2):.3f}", columns, rows)
    run.expect("not clipped, loss at the end", np.nan_to_num(last["none"], nan=np.inf), at_least=0.6)  # or nothing left
    run.expect("clipped, loss at the end", last["at 1"], at_most=0.3)
    draw_clipping(run, runs)

    length = 50 if run.quick else 100
    builders = {
        "tanh RNN": nn.RNN,
        "LSTM, gates as drawn": nn.LSTM,
        "LSTM, forget gate open": partial(nn.LSTM, forget_bias=math.log(length)),  # Tallec and Ollivier (2018)
    }
    scores = {}
    for name, build in builders.items():
        tr.manual_seed(run.seed)
        scores[name] = remember(run, length, name, build(1, H))
    rows = [["guessing", 50.0], *([name, score] for name, score in scores.items())]
    run.table(f"Which sign was it, {length} steps ago? Accuracy in %, {run.steps} training steps", ["cell", "%"], rows)
    run.expect("tanh RNN: accuracy in %", scores["tanh RNN"], at_most=75)
    run.expect("LSTM, forget gate open: accuracy in %", scores["LSTM, forget gate open"], at_least=95)


def draw_scales(run: Experiment, back: np.ndarray, curves: dict, bounds: dict) -> None:
    """One panel for each scale."""
    caption = "The gradient going back in time, five cells at three weight scales; dotted: what ‖W‖ allows."
    shown = {"bound for sigmoid": "sigmoid", "bound for tanh, ReLU": "tanh"}
    with run.picture("gradients.png", caption, (10, 4.6)) as fig:
        for axes, scale in zip(fig.subplots(1, 3), SCALES, strict=True):
            here = {name: (back, curves[cell, scale]) for cell, name in SHOWN.items()}
            draw_curves(axes, here, map(CELLS.get, here))
            allowed = {name: (back, bounds[cell, scale]) for name, cell in shown.items()}
            draw_curves(axes, allowed, (CELLS["sigmoid RNN"], CELLS["tanh RNN"]), linestyle=":")
            axes.set(title=f"‖W‖ = {scale:g}", ylim=(1e-30, 1e15), **AXES)
        fig.axes[0].set_ylabel("|dL/dhₜ|")
        fig.axes[0].legend(frameon=False, loc="upper right")


def draw_gates(run: Experiment, back: np.ndarray, gates: dict, tanh: np.ndarray) -> None:
    """One panel for each of the two gated cells."""
    caption = "What the bias of one gate does to the gradient, from gone in 50 steps to kept over 200; ‖W‖ = 1."
    with run.picture("gates.png", caption, (10, 4.6)) as fig:
        for axes, (cell, gate) in zip(fig.subplots(1, 2), (("LSTM", "forget"), ("GRU", "update")), strict=True):
            own = {f"bias {bias:.3g}": (back, curve) for (name, bias), curve in gates.items() if name == cell}
            draw_curves(axes, {**own, "tanh RNN": (back, tanh)}, (*tones(CELLS[cell], len(own)), CELLS["tanh RNN"]))
            axes.set(title=f"{cell}: bias of the {gate} gate", ylim=(1e-30, 10), **AXES)
            axes.legend(frameon=False, loc="lower left")
        fig.axes[0].set_ylabel("|dL/dhₜ|")


def draw_clipping(run: Experiment, runs: dict) -> None:
    """The loss and the norm of the gradient, step by step."""
    caption = "One huge step and every ReLU is dead: SGD without clipping never moves again; clipped, it learns."
    names = {"no clipping": "none", "clipped at 1": "at 1"}
    with run.picture("clipping.png", caption, (10, 4)) as fig:
        left = fig.add_subplot(1, 2, 1, xlabel="training step", ylabel="loss", ylim=(0, 3))
        right = fig.add_subplot(1, 2, 2, xlabel="training step", ylabel="gradient norm before clipping", yscale="log")
        for k, axes in enumerate((left, right)):
            curves = {name: (range(len(runs[key][k])), runs[key][k]) for name, key in names.items()}
            draw_curves(axes, curves, (GREY, CELLS["ReLU RNN"]))
        left.axhline(math.log(2), color=INK, linestyle="--", linewidth=1, label="always “perhaps”")
        left.legend(frameon=False)


if __name__ == "__main__":
    sys.exit(experiment(main, steps=600, quick=200))
