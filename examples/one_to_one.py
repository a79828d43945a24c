"""One in, one out: a plain network beside a recurrent one, for the same pictures.

A plain network takes all 64 pixels of a digit at once. A recurrent network takes the 8 rows one after the other, with
the same weights for each row: eight times fewer for the input, and as many for a picture of any height. Both get as
many parameters as the other, more or less, at three sizes; which is the better reader?

Then what sharing weights is for. Trained on digits in the middle of a taller picture, both are shown digits that stand
higher or lower than any in training. To the plain network a shifted digit is a new set of pixels, whose weights never
learned a thing; to the recurrent one it is the same rows, earlier or later. (Its answer is read off the largest value
that each unit had on the way. Its last state would not do: blank rows below a digit wear that away.)
"""

from __future__ import annotations

import sys

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.plots import CELLS, GREY, INK, ORANGE, draw_curves
from tinygrad_rnn import nn
from tinygrad_rnn.data import Batches, split_at_random
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import accuracy

ROOM = 16  # the height of the taller picture
MIDDLE = (ROOM - 8) // 2


class Plain(nn.Module):
    """scores = W₂ relu(W₁ x + b₁) + b₂, x all pixels in a row."""

    def __init__(self, rows: int, hidden: int) -> None:
        self.first, self.head = nn.Linear(8 * rows, hidden), nn.Linear(hidden, 10)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Pictures (B, rows, 8) give the scores (B, 10)."""
        return self.head(tr.relu(self.first(x.reshape(len(x), -1))))


class Recurrent(nn.Module):
    """h_t = tanh(W x_t + b + V h_{t-1}), x_t row t; the scores are linear in the largest value each unit ever had."""

    def __init__(self, rows: int, hidden: int) -> None:
        self.layer, self.head = nn.RNN(8, hidden), nn.Linear(hidden, 10)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Pictures (B, rows, 8) give the scores (B, 10)."""
        y, _ = self.layer(tr.transpose(x, (1, 0, 2)))
        return self.head(tr.max(y, axis=0))


def placed(x: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """The digits (B, 8, 8) in pictures (B, ROOM, 8), digit b with its first row at tops[b]."""
    tall = np.zeros((len(x), ROOM, 8), np.float32)
    tall[np.arange(len(x))[:, None], tops[:, None] + np.arange(8)] = x
    return tall


def learn(run: Experiment, name: str, model: nn.Module, x: np.ndarray, y: np.ndarray, valid: tuple, tops=None) -> None:
    """Train on the digits; with `tops`, each time at a random one of these heights of the taller picture."""
    batches = Batches(len(x), 64, seed=run.seed)

    def batch(step: int) -> tuple[tuple, int]:
        at = batches[step]
        seen = x[at]
        if tops is not None:
            seen = placed(seen, np.random.default_rng((run.seed, 6, step)).choice(tops, len(at)))
        return (run.tensor(seen), y[at]), len(at)

    def loss(x: tr.Tensor, y: np.ndarray) -> tr.Tensor:
        return F.cross_entropy(model(x), y)

    def evaluate() -> dict[str, float]:
        return {"validation": loss(run.tensor(valid[0]), valid[1]).item()}

    run.fit(name, model, batch, loss, evaluate, lr=5e-3, weight_decay=0.01, show=False)


def score(run: Experiment, model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """The accuracy in percent."""
    with tr.no_grad():
        return 100 * accuracy(model(run.tensor(x)).numpy().argmax(-1), y)


def main(run: Experiment) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    x, y = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    seeds = range(run.seed, run.seed + (1 if run.quick else 5))
    run.source(f"scikit-learn's digits: {len(x):,} real handwritten ones of 8 x 8 pixels; random splits: {len(seeds)}")
    # Three pairs of about the same number of parameters.
    sizes = {"plain network": (Plain, (8, 22, 72)), "RNN over rows": (Recurrent, (16, 32, 64))}
    trained = (MIDDLE - 1, MIDDLE, MIDDLE + 1)
    tops = range(ROOM - 8 + 1)
    accuracies: dict[tuple[str, int], list[float]] = {}
    moved: dict[str, list[list[float]]] = {name: [] for name in sizes}
    counts, baseline = {}, []
    for seed in seeds:
        train, valid, test = split_at_random(len(x), (0.6, 0.2, 0.2), seed)
        linear = LogisticRegression(max_iter=1000).fit(x[train].reshape(-1, 64), y[train])
        baseline.append(100 * linear.score(x[test].reshape(-1, 64), y[test]))
        for name, (build, widths) in sizes.items():
            for hidden in widths[-1:] if run.quick else widths:
                tr.manual_seed(seed)
                model = build(8, hidden).to(run.device)
                counts[name, hidden] = sum(p.size for p in model.parameters())
                learn(run, f"{name} {hidden}", model, x[train], y[train], (x[valid], y[valid]))
                accuracies.setdefault((name, hidden), []).append(score(run, model, x[test], y[test]))
            tr.manual_seed(seed)
            model = build(ROOM, widths[-1]).to(run.device)
            counts[name, "tall"] = sum(p.size for p in model.parameters())
            at = np.random.default_rng((seed, 5)).choice(trained, len(valid))
            learn(run, f"{name} tall", model, x[train], y[train], (placed(x[valid], at), y[valid]), trained)
            scores = [score(run, model, placed(x[test], np.full(len(test), top)), y[test]) for top in tops]
            moved[name].append(scores)
            run.say(f"split {seed - run.seed + 1}, {name}: {accuracies[name, widths[-1]][-1]:.1f} %")

    mean = {key: float(np.mean(values)) for key, values in accuracies.items()}
    rows = [["logistic regression", 650, float(np.mean(baseline))]]
    rows += [[f"{name}, {hidden} units", counts[name, hidden], value] for (name, hidden), value in mean.items()]
    run.table("Accuracy on test digits", ["model", "parameters", "%"], rows)

    heights = {name: np.mean(values, axis=0) for name, values in moved.items()}
    new = [top for top in tops if top not in trained]
    rows = [
        [name, counts[name, widths[-1]], counts[name, "tall"], scores[list(trained)].mean(), scores[new].mean()]
        for (name, scores), (_, widths) in zip(heights.items(), sizes.values(), strict=True)
    ]
    columns = ["model", "parameters, 8 rows", f"{ROOM} rows", "% at heights trained on", "% at new heights"]
    run.table("Digits higher or lower than in training", columns, rows)
    best = {name: max(value for (n, _), value in mean.items() if n == name) for name in sizes}
    if np.mean(baseline) > max(best.values()):
        run.note("In their own place, logistic regression reads the digits best, with 650 parameters.")
    (smallest, units), *_ = mean
    if mean[smallest, units] > mean["RNN over rows", 64 if run.quick else 16]:
        run.note(f"With about {counts[smallest, units]:,} parameters the plain network reads them better than the RNN.")
    for name, value in best.items():
        run.expect(f"{name}: accuracy in %", value, at_least=92 if run.quick else 96)
    run.expect(
        "RNN ahead of the plain network at new heights by", rows[1][-1] - rows[0][-1], at_least=30 if run.quick else 50
    )
    run.note("New heights cost the plain network what it knew; the RNN, with the same weights for each row, far less.")
    draw(run, heights, trained, x[:1])


def draw(run: Experiment, heights: dict[str, np.ndarray], trained: tuple[int, ...], digit: np.ndarray) -> None:
    """Accuracy by height, above the picture that the networks are shown."""
    caption = "Accuracy by where the digit stands; shaded: the heights of training. Below: one digit at each height."
    with run.picture("heights.png", caption, (9, 5.5)) as fig:
        curves, row = fig.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        by_height = {name: (range(len(y)), y) for name, y in heights.items()}
        draw_curves(curves, by_height, (GREY, CELLS["RNN"]), marker="o", linewidth=2)
        curves.axvspan(trained[0] - 0.5, trained[-1] + 0.5, color=ORANGE, alpha=0.15, label="seen in training")
        curves.axhline(10, color=INK, linestyle=":", label="guessing")
        curves.set(ylabel="accuracy on test digits, %", ylim=(0, 102))
        curves.legend(frameon=False, loc="center")
        for top in range(len(next(iter(heights.values())))):
            tall = placed(digit, np.array([top]))[0]
            row.imshow(tall, cmap="gray_r", extent=(top - 0.25, top + 0.25, ROOM, 0), aspect="auto")
        row.set(xlabel="blank rows above the digit", yticks=[], ylim=(ROOM, 0), xlim=(-0.5, ROOM - 7.5))


if __name__ == "__main__":
    sys.exit(experiment(main, steps=2000, quick=500))
