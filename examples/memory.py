"""How far back can a cell remember? Two tasks that ask for nothing else, at three distances each.

The adding problem (Hochreiter and Schmidhuber 1997): a sequence of random numbers, two of them marked; after the last
step, what is their sum? Always answering the mean, 1, costs 0.167. The copy task: ten letters, a wait, a signal; then
the ten letters again, in order. Remembering that they come after the signal but not which costs 10 ln 8 / (wait + 20).
Both need something kept unchanged over the distance, and that is what gates are for.

What remembering nothing costs is measured on the very sequences that the cell is measured on. Their sums may lie nearer
to 1 than usual, or farther: beside 0.167 a cell that has learned nothing would look better, or worse, than it is.

Every curve is one run. All have the same number of steps, and a cap on their time as a safety net. What a cell has not
learned by then it may learn later: the pictures say who is quick at which distance, not who is able at all.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.plots import CELLS, INK, draw_curves
from tinygrad_rnn import nn
from tinygrad_rnn.nn import functional as F

LETTERS, REMEMBER = 8, 10
Batch = tuple[np.ndarray, np.ndarray]


class Learned(NamedTuple):
    """How one cell did: its validation loss by step, over what remembering nothing costs there; its `loss` on the test
    sequences, and what remembering `nothing` costs there; and the `seconds` it took.
    """

    curve: tuple[list[int], list[float]]
    loss: float
    nothing: float
    seconds: float


def adding(seed: tuple[int, ...], T: int, B: int) -> Batch:
    """Inputs (T, B, 2), numbers from 0 to 1 beside marks, one in each half; the sums (B,) of the marked numbers."""
    rng = np.random.default_rng(seed)
    x = np.zeros((T, B, 2), np.float32)
    x[..., 0] = rng.random((T, B))
    first, second = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B)
    x[first, np.arange(B), 1] = x[second, np.arange(B), 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(0)


def copying(seed: tuple[int, ...], wait: int, B: int) -> Batch:
    """Inputs (wait + 20, B, 10), one-hot letters, blanks and one signal; what is to be answered (wait + 20, B): blank
    until the signal, then the letters.
    """
    rng = np.random.default_rng(seed)
    blank, signal = LETTERS, LETTERS + 1
    letters = rng.integers(0, LETTERS, (REMEMBER, B))
    ids = np.full((wait + 2 * REMEMBER, B), blank)
    ids[:REMEMBER] = letters
    ids[wait + REMEMBER - 1] = signal
    answer = np.full_like(ids, blank)
    answer[-REMEMBER:] = letters
    return np.eye(LETTERS + 2, dtype=np.float32)[ids], answer


class Reader(nn.Module):
    """A recurrent layer and a linear one on its output: at every step, or at the last."""

    def __init__(self, cell: str, sizes: tuple[int, int, int], distance: int, last: bool) -> None:
        inputs, H, outputs = sizes
        if cell == "LSTM":
            # Tallec and Ollivier (2018): the forget gate begins open, for a memory of about the distance, and the
            # input gate as much closed.
            self.layer = nn.LSTM(inputs, H, forget_bias=math.log(distance))
            bias = self.layer.bias_ih_l0.numpy().copy()
            bias[:H] = -math.log(distance)
            self.layer.bias_ih_l0.assign_(bias)
        else:
            self.layer = {"RNN": nn.RNN, "GRU": nn.GRU}[cell](inputs, H)
        if cell == "GRU" and not last:  # its update gate half open; for the adding problem it is better as drawn
            bias = self.layer.bias_ih_l0.numpy().copy()
            bias[H : 2 * H] += 2
            self.layer.bias_ih_l0.assign_(bias)
        self.head, self.last = nn.Linear(H, outputs), last

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """(T, B, inputs) gives (T, B, outputs), or (B, outputs) of the last step."""
        y, _ = self.layer(x)
        return self.head(y[-1] if self.last else y)


def squared_error(answer: tr.Tensor, target: tr.Tensor) -> tr.Tensor:
    return F.mse_loss(answer.reshape(-1), target)


# name: (batches, loss, (inputs, hidden, outputs), distances, batch, steps as a multiple of --steps)
TASKS = {
    "adding": (adding, squared_error, (2, 64, 1), (50, 100, 200), 32, 1),
    "copy": (copying, F.cross_entropy, (LETTERS + 2, 64, LETTERS + 1), (10, 20, 30), 16, 3),
}
RATES = {("copy", "GRU"): 2e-2, ("adding", "RNN"): 2e-3, ("copy", "RNN"): 2e-3}  # others 1e-2
CURVE, ALL = 12.0, 60.0  # caps in minutes; far above what is needed even on a busy machine, so that the steps decide


def remembering_nothing(task: str, answer: np.ndarray) -> float:
    """What the best answer that remembers nothing costs on these very sequences."""
    if task == "adding":
        return float(np.mean((answer - 1) ** 2))  # 1/6 in the mean of all sequences there are
    return REMEMBER * math.log(LETTERS) / len(answer)


def learn(run: Experiment, task: str, distance: int, cell: str, minutes: float) -> Learned:
    """Train one cell on one task at one distance, and test it on 500 fresh sequences."""
    make, cost, sizes, _, batch_size, multiple = TASKS[task]
    tr.manual_seed(run.seed)
    model = Reader(cell, sizes, distance, last=task == "adding").to(run.device)

    def batch(step: int) -> tuple[tuple, int]:
        return tuple(map(run.tensor, make((run.seed, 3, step), distance, batch_size))), batch_size

    def loss(x: tr.Tensor, target: tr.Tensor) -> tr.Tensor:
        return cost(model(x), target)

    valid, test = (make((run.seed, k), distance, count) for k, count in ((1, 250), (2, 500)))
    fit = run.fit(
        f"{task} {distance} {cell}",
        model,
        batch,
        loss,
        lambda: {"validation": loss(*map(run.tensor, valid)).item()},
        steps=run.steps * multiple,
        minutes=minutes,
        lr=RATES.get((task, cell), 1e-2),
        evaluations=25,
        show=False,
    )
    with tr.no_grad():
        tested = loss(*map(run.tensor, test)).item()
    run.say(f"{task}, distance {distance}, {cell}: {tested:.4f} after {fit.steps:,} steps, {fit.seconds:.0f} s")
    if fit.steps < run.steps * multiple:
        run.note(f"{task}, distance {distance}, {cell}: the cap on time ended it after {fit.steps:,} steps.")
    steps, losses = fit.curve("validation")
    of_valid, of_test = (remembering_nothing(task, answer) for _, answer in (valid, test))
    return Learned((steps, [value / of_valid for value in losses]), tested, of_test, fit.seconds)


def distances(run: Experiment, task: str) -> tuple[int, ...]:
    return TASKS[task][3][:1] if run.quick else TASKS[task][3]


def main(run: Experiment) -> None:
    run.source("generated: the adding problem and the copy task")
    found: dict[tuple[str, int, str], Learned] = {}
    cells = ["RNN", "GRU"] if run.quick else ["RNN", "LSTM", "GRU"]
    minutes = ALL
    for key in [(task, d, cell) for task in TASKS for d in distances(run, task) for cell in cells]:
        found[key] = learn(run, *key, max(0.02, min(CURVE, minutes)))
        minutes -= found[key].seconds / 60
    for task, title in (("adding", "Adding problem: mean squared error"), ("copy", "Copy task: nats per step")):
        rows = []
        for d in distances(run, task):
            here = [found[task, d, cell] for cell in cells]
            figures = [here[0].nothing, *(learned.loss for learned in here)]
            rows.append([f"distance {d}", *(f"{figure:.4f}" for figure in figures)])
        run.table(f"{title}, of 500 test sequences", ["", "remembering nothing", *cells], rows)

    relative = {key: learned.loss / learned.nothing for key, learned in found.items()}
    for task in TASKS:
        at = {cell: [f"{d}" for d in distances(run, task) if relative[task, d, cell] < 0.5] for cell in cells}
        said = "; ".join(f"{cell} at {', '.join(ds) or 'none'}" for cell, ds in at.items())
        run.note(f"{task}, learned by then (less than half of what remembering nothing costs): {said}.")
    for task in TASKS:
        shares = {d: relative[task, d, "RNN"] for d in distances(run, task)}
        said = ", ".join(f"{share:.2f} at {d}" for d, share in shares.items())
        verdict = "it has learned nothing" if min(shares.values()) > 0.95 else "1 would be nothing learned"
        run.note(f"{task}, the RNN's loss over that of remembering nothing on the same sequences: {said}: {verdict}.")
    claims = QUICK if run.quick else FULL
    for key, most in claims.items():
        run.expect("{} at {}, {}: loss, of that of remembering nothing".format(*key), relative[key], at_most=most)
    rnn = min(value for (task, _, cell), value in relative.items() if cell == "RNN" and task == "adding")
    run.expect("adding, the RNN's best, likewise", rnn, at_least=0.5)
    draw(run, found)


# What is claimed: a loss of at most this part of what remembering nothing costs.
QUICK = {("adding", 50, "GRU"): 0.5, ("copy", 10, "GRU"): 0.8}
FULL = {("adding", d, "GRU"): 0.2 for d in (50, 100, 200)} | {("adding", d, "LSTM"): 0.2 for d in (50, 100)}
FULL |= {("copy", d, "GRU"): 0.5 for d in (10, 20, 30)} | {("copy", 10, "LSTM"): 0.8}


def draw(run: Experiment, found: dict[tuple[str, int, str], Learned]) -> None:
    """One panel for each task and distance: the loss on sequences not trained on."""
    caption = "Validation loss, one run each, over what remembering nothing costs on the same sequences (dashed)."
    panels = list(dict.fromkeys((task, distance) for task, distance, _ in found))
    columns = len(panels) // 2
    with run.picture("curves.png", caption, (10 if columns > 1 else 6, 6.4)) as fig:
        for k, (task, distance) in enumerate(panels):
            axes = fig.add_subplot(2, columns, k + 1)
            axes.axhline(1, color=INK, linestyle="--", linewidth=1, label="remembering nothing")
            here = {cell: learned.curve for (*panel, cell), learned in found.items() if panel == [task, distance]}
            draw_curves(axes, here, map(CELLS.get, here), linewidth=2)
            axes.set(title=f"{task}, distance {distance}", ylim=(0, 1.35), xlabel="training step")
            if k % columns == 0:
                axes.set_ylabel("loss / remembering nothing")
            if k == 0:
                axes.legend(frameon=False, loc="center right")


if __name__ == "__main__":
    sys.exit(experiment(main, steps=1000, quick=400))
