"""A layer that the library does not have: write it, prove it, train it.

Three things are made here: an op, log cosh x, as a loss that does not mind outliers; the LSTM with peepholes of Gers,
Schraudolph and Schmidhuber (2002), whose gates see the cell; and a GRU with layer normalisation (Ba, Kiros and Hinton
2016). Each is first handed to `tinygrad_rnn.testing`, together with a version that is wrong in a way that a loss curve
would not show. What the kit says is in the table.

Then they learn to tell the time: pulses come at random, and at each step the question is how many steps ago the last
one was. Beside them are the built-in LSTM and GRU, and linear regression on a window of the last inputs.
"""

from __future__ import annotations

import sys

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.plots import CELLS, INK, ORANGE, draw_curves
from tinygrad_rnn import nn
from tinygrad_rnn.data import last_values
from tinygrad_rnn.testing import LawError, check_op, check_recurrent

HIDDEN, STEPS, WINDOW, UNIT = 24, 60, 20, 10.0  # the networks count in tens of steps


@tr.op(lambda g, x: g * tr.tanh(x))  # the derivative, in ops of `tr` so that it has a derivative, too
def log_cosh(x):
    """y = log cosh x, about x²/2 near 0 and |x| - log 2 far from it; written so that nothing overflows."""
    return np.logaddexp(x, -x) - np.log(2.0).astype(x.dtype)


@tr.op(lambda g, x: g * x / (1 + abs(x)))
def log_cosh_wrong(x):
    """The derivative has the right sign, the right limits and the right slope at 0; it even trains."""
    return np.logaddexp(x, -x) - np.log(2.0).astype(x.dtype)


class PeepholeLSTM(nn.Module):
    """i, f see c_{t-1}, o sees c_t, each unit its own: i = σ(W x_t + V h_{t-1} + p c_{t-1}), and so on."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.hidden_size = hidden_size
        self.project = nn.Linear(input_size, 4 * hidden_size)
        self.recur = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peep = nn.Parameter(0.1 * tr.randn(3, hidden_size))

    def seen(self, c: tr.Tensor) -> tr.Tensor:
        return c

    def forward(self, x: tr.Tensor, hx: tuple | None = None) -> tuple[tr.Tensor, tuple]:
        """x (T, B, I) gives the outputs (T, B, H) and the state (h, c), each (B, H)."""
        h, c = hx or tr.zeros(2, x.shape[1], self.hidden_size, dtype=x.dtype, device=x.device)
        p_i, p_f, p_o = self.peep
        outputs = []
        for x_t in self.project(x):
            i, f, g, o = tr.split(x_t + self.recur(h), 4, axis=-1)
            i, f = tr.sigmoid(i + p_i * self.seen(c)), tr.sigmoid(f + p_f * self.seen(c))
            c = f * c + i * tr.tanh(g)
            h = tr.sigmoid(o + p_o * self.seen(c)) * tr.tanh(c)
            outputs.append(h)
        return tr.stack(outputs), (h, c)


class CutPeepholes(PeepholeLSTM):
    """As the paper trains it: no gradient through the peepholes. An approximation, so not the derivative."""

    def seen(self, c: tr.Tensor) -> tr.Tensor:
        return c.detach()


class NormGRU(nn.Module):
    """A GRU whose two products are normalised over their units before they meet: tanh(LN(W x) + r LN(V h))."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        self.hidden_size = hidden_size
        self.project = nn.Linear(input_size, 3 * hidden_size, bias=False)
        self.recur = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.norm_x, self.norm_h = nn.LayerNorm(3 * hidden_size), nn.LayerNorm(3 * hidden_size)

    def normalised(self, x: tr.Tensor) -> tr.Tensor:
        return self.norm_x(self.project(x))

    def forward(self, x: tr.Tensor, hx: tr.Tensor | None = None) -> tuple[tr.Tensor, tr.Tensor]:
        """x (T, B, I) gives the outputs (T, B, H) and the last state (B, H)."""
        h = tr.zeros(x.shape[1], self.hidden_size, dtype=x.dtype, device=x.device) if hx is None else hx
        outputs = []
        for x_t in self.normalised(x):
            x_r, x_z, x_n = tr.split(x_t, 3, axis=-1)
            h_r, h_z, h_n = tr.split(self.norm_h(self.recur(h)), 3, axis=-1)
            r, z = tr.sigmoid(x_r + h_r), tr.sigmoid(x_z + h_z)
            h = (1 - z) * tr.tanh(x_n + r * h_n) + z * h
            outputs.append(h)
        return tr.stack(outputs), h


class NormOverTime(NormGRU):
    """A slip of an axis: the units are also normalised over the sequence, so step 1 knows of step 60."""

    def normalised(self, x: tr.Tensor) -> tr.Tensor:
        projected = self.project(x)
        return self.norm_x(projected - projected.mean(axis=0))


def prove(run: Experiment) -> None:
    """Let the kit judge the three, and the three that are wrong."""
    examples = 3 if run.quick else 20
    op = lambda made: check_op(made, "*", reference=lambda x: np.log(np.cosh(x)), examples=examples)
    layer = lambda made: check_recurrent(lambda: made(3, 4), examples=examples)
    subjects = [
        ("log cosh", op, log_cosh, True),
        ("log cosh, x / (1 + |x|) for tanh x", op, log_cosh_wrong, False),
        ("peephole LSTM", layer, PeepholeLSTM, True),
        ("peephole LSTM, peepholes cut", layer, CutPeepholes, False),
        ("layer-normalised GRU", layer, NormGRU, True),
        ("layer-normalised GRU, also over time", layer, NormOverTime, False),
    ]
    rows, mistaken = [], 0
    for name, check, made, right in subjects:
        try:
            verdict = f"{len(check(made))} laws hold"
        except LawError as error:
            verdict = f"✗ {error.law}"
            run.say(f"{name}: {str(error).splitlines()[0]}\n")
        rows.append([name, verdict])
        mistaken += right == verdict.startswith("✗")
    run.table("What the test kit says", ["made here", "verdict"], rows)
    run.expect("wrong verdicts of the kit", mistaken, at_most=0)


def pulses(seed: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pulses (T, B, 1), one step in 15, the first at step 0; and how many steps ago the last one was (T, B)."""
    x = np.random.default_rng(seed).random((STEPS, count)) < 1 / 15
    x[0] = True
    t = np.arange(STEPS)[:, None]
    ago = t - np.maximum.accumulate(np.where(x, t, 0), axis=0)
    return x[..., None].astype(np.float32), ago.astype(np.float32)


class Clock(nn.Module):
    """A recurrent layer, and a linear one that reads the time off each state."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.head = layer, nn.Linear(HIDDEN, 1)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """(T, B, 1) gives (T, B), in tens of steps."""
        return self.head(self.layer(x)[0]).reshape(*x.shape[:2])


def window(x: np.ndarray) -> np.ndarray:
    """The last WINDOW inputs at each step, and a 1: (T * B, WINDOW + 1)."""
    inputs = last_values(x[..., 0], WINDOW).reshape(-1, WINDOW)
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)


def main(run: Experiment) -> None:
    run.source(f"generated: pulses at random over {STEPS} steps")
    prove(run)
    (x_valid, ago_valid), (x_test, ago_test), (x_train, ago_train) = (pulses((run.seed, k), 500) for k in (1, 2, 3))
    W = np.linalg.lstsq(window(x_train), ago_train.ravel(), rcond=None)[0]
    linear = np.abs(window(x_test) @ W - ago_test.ravel()).mean()
    median = np.abs(ago_test - np.median(ago_train)).mean()
    table = [["always the median", 1, float(median)], [f"linear, last {WINDOW} inputs", len(W), float(linear)]]
    read, errors = {}, {}
    builders = {"LSTM": nn.LSTM, "peephole LSTM": PeepholeLSTM, "GRU": nn.GRU, "layer-normalised GRU": NormGRU}
    for name, build in builders.items():
        tr.manual_seed(run.seed)
        model = Clock(build(1, HIDDEN)).to(run.device)
        batch = lambda step: (tuple(map(run.tensor, pulses((run.seed, 4, step), 32))), 32)
        loss = lambda x, ago, model=model: log_cosh(UNIT * model(x) - ago).mean()
        evaluate = lambda model=model: {"error": np.abs(UNIT * model(run.tensor(x_valid)).numpy() - ago_valid).mean()}
        fit = run.fit(name, model, batch, loss, evaluate, lr=1e-2)
        with tr.no_grad():
            read[name] = UNIT * model(run.tensor(x_test)).numpy()
        errors[name] = float(np.abs(read[name] - ago_test).mean())
        table.append([name, fit.parameters, errors[name]])
    run.table("Mean error in steps, 500 test sequences", ["model", "parameters", "error"], table)
    run.expect("layer-normalised GRU: its error, of the linear model's", errors[name] / linear, at_most=0.6)
    most = median if run.quick else 0.6 * linear
    run.expect("peephole LSTM: its error", errors["peephole LSTM"], at_most=float(most))
    if not run.quick:
        run.expect("peephole LSTM: its error, of the LSTM's", errors["peephole LSTM"] / errors["LSTM"], at_most=1)
        run.expect("layer-normalised GRU: its error, of the GRU's", errors[name] / errors["GRU"], at_most=1)
    draw(run, x_test, ago_test, read)


def draw(run: Experiment, x: np.ndarray, ago: np.ndarray, read: dict[str, np.ndarray]) -> None:
    """One test sequence, with what each cell of one's own reads off, and the error by the true time."""
    own, steps, times = ("peephole LSTM", "layer-normalised GRU"), range(STEPS), range(40)
    off = {name: [np.abs(guess - ago)[ago == time].mean() for time in times] for name, guess in read.items()}
    with run.picture("clock.png", "Left: one sequence and two clocks. Right: how far off each is, by the time.") as fig:
        left = fig.add_subplot(1, 2, 1, xlabel="step", ylabel="steps since the last pulse")
        right = fig.add_subplot(1, 2, 2, xlabel="true steps since the last pulse", ylabel="mean error in steps")
        left.step(steps, ago[:, 0], where="mid", color=INK, linewidth=1, label="steps since a pulse")
        left.plot(np.flatnonzero(x[:, 0, 0]), np.zeros(int(x[:, 0].sum())), "^", color=ORANGE, label="pulse")
        draw_curves(left, {name: (steps, read[name][:, 0]) for name in own}, map(CELLS.get, own))
        draw_curves(right, {name: (times, error) for name, error in off.items()}, map(CELLS.get, off))
        for axes in (left, right):
            axes.legend(frameon=False)


if __name__ == "__main__":
    sys.exit(experiment(main, steps=500, quick=80))
