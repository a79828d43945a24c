"""A picture read row by row: many rows in, one digit out.

A recurrent network sees a picture as a sequence: row 1, then row 2, to the last. What it has understood is in its
state, and a linear layer reads the digit off the last one. It never sees two rows at once, and still does better than
logistic regression, which sees all pixels at once.

Two variations: a small convolution first, so that what comes in are not pixels but strokes; and two bidirectional
networks, of which one sweeps over the rows and one over the columns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.pictures import picture_options, pictures_of, write_picture
from examples.common.plots import draw_picture
from examples.common.use import Answer, OnDevice, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.data import Batches, folds, read_idx
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import accuracy

Split = tuple[np.ndarray, np.ndarray]  # numbers of pictures: to train on, to test


class Rows(nn.Module):
    """The last state of a recurrent network over the rows, then a linear layer."""

    def __init__(self, layer: type[nn.Module], width: int, hidden: int = 96) -> None:
        self.layer = layer(width, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Pictures (B, rows, columns) give the scores (B, 10)."""
        y, _ = self.layer(tr.transpose(x, (1, 0, 2)))
        return self.head(y[-1])


class Strokes(nn.Module):
    """A convolution first: what the recurrent network gets of each row is what 8 small filters see around it."""

    def __init__(self, width: int, filters: int = 8) -> None:
        self.filters = nn.Conv2d(1, filters, 3, padding=1)
        self.rows = Rows(nn.GRU, filters * width)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Pictures (B, rows, columns) give the scores (B, 10)."""
        B, R, C = x.shape
        seen = tr.relu(self.filters(x.reshape(B, 1, R, C)))
        return self.rows(tr.transpose(seen, (0, 2, 1, 3)).reshape(B, R, -1))


class Sweeps(nn.Module):
    """Four networks: down and up the rows, and to and fro over the columns."""

    def __init__(self, rows: int, columns: int, hidden: int = 48) -> None:
        self.down = nn.GRU(columns, hidden, bidirectional=True)
        self.across = nn.GRU(rows, hidden, bidirectional=True)
        self.head = nn.Linear(4 * hidden, 10)

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Pictures (B, rows, columns) give the scores (B, 10)."""
        _, h_down = self.down(tr.transpose(x, (1, 0, 2)))
        _, h_across = self.across(tr.transpose(x, (2, 0, 1)))
        return self.head(tr.concatenate([*h_down, *h_across], axis=-1))


KINDS = {
    "RNN": lambda rows, columns: Rows(nn.RNN, columns),
    "LSTM": lambda rows, columns: Rows(nn.LSTM, columns),
    "GRU": lambda rows, columns: Rows(nn.GRU, columns),
    "convolution, then GRU": lambda rows, columns: Strokes(columns),
    "bidirectional, both ways": lambda rows, columns: Sweeps(rows, columns),
}


def build(kind: str, rows: int, columns: int) -> nn.Module:
    """A network of one of the `KINDS` for pictures of so many rows and columns."""
    return KINDS[kind](rows, columns)


def pictures(run: Experiment) -> tuple[np.ndarray, np.ndarray, list[Split]]:
    """The pictures (N, rows, columns) from 0 to 1, their digits (N,), and what to train on and to test with."""
    if run.data:
        (x, y), (x_test, y_test) = (part_of(run.data, name) for name in ("train", "t10k"))
        if x.shape[1:] != x_test.shape[1:]:
            raise InputError(f"{run.data}: pictures of {x.shape[1:]} to train on, of {x_test.shape[1:]} to test with")
        if len(set(y)) < 2:
            raise InputError(f"{run.data}: train: all pictures are of the digit {y[0]}: there is nothing to tell apart")
        run.source(f"{run.data}: {len(x):,} pictures to train on, {len(x_test):,} to test with")
        numbers = np.arange(len(x) + len(x_test))
        splits = [(numbers[: len(x)], numbers[len(x) :])]
        return np.concatenate([x, x_test]), np.concatenate([y, y_test]), splits
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    run.source(f"scikit-learn's digits: {len(x):,} real handwritten digits of 8 x 8 pixels, 5-fold cross-validation")
    return x, y, folds(len(x), 5, run.seed)[: 2 if run.quick else 5]


def part_of(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of one part, float32 from 0 to 1, and their digits. Raises InputError for what is no such thing."""
    x, y = (read_idx(found(folder, f"{part}-{kind}*")) for kind in ("images", "labels"))
    if x.dtype != np.uint8 or x.ndim != 3 or not x.size or y.shape != x.shape[:1]:
        shapes = f"pictures of {x.dtype.name} {x.shape} and labels of {y.shape}"
        raise InputError(f"{folder}: {part}: {shapes}, and bytes (N, rows, columns) and (N,) are needed")
    if wrong := sorted({*y.tolist()} - {*range(10)}):
        raise InputError(f"{folder}: {part}: the label {wrong[0]} is no digit")
    return x / np.float32(255), y.astype(np.int64)


def found(folder: Path, pattern: str) -> Path:
    """The file of a folder that is meant."""
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"{folder}: no file {pattern} in it, as MNIST's are called (train-images-idx3-ubyte.gz)")
    return paths[0]


def main(run: Experiment) -> None:
    x, y, splits = pictures(run)
    _, rows, columns = x.shape
    kinds = [name for name in KINDS if name.lower().startswith(run.options.model or "")]
    table, misread = [logistic_regression(x, y, splits)], None
    for name in kinds:
        sizes = {"kind": name, "rows": rows, "columns": columns}
        scores, seconds, parameters = [], 0.0, 0
        for k, (train, test) in enumerate(splits):
            tr.manual_seed(run.seed)
            model = build(**sizes).to(run.device)
            batches = Batches(len(train), 64, seed=run.seed)

            def batch(step: int, train=train, batches=batches) -> tuple[tuple, int]:
                at = train[batches[step]]
                return (run.tensor(x[at]), y[at]), len(at)

            def loss(x: tr.Tensor, y: np.ndarray, model=model) -> tr.Tensor:
                return F.cross_entropy(model(x), y)

            def evaluate(model=model, test=test) -> dict[str, float]:
                return {"error": 1 - accuracy(predicted(run, model, x[test]), y[test])}

            # Evaluated once, at the end: to keep the best of several would be to choose by the test.
            how = {"lr": 4e-3, "evaluations": 1, "show": False, "use": {"sizes": sizes}}
            fit = run.fit(f"{name} {k + 1}", model, batch, loss, evaluate, **how)
            scores.append(1 - fit.best["error"])
            seconds, parameters = seconds + fit.seconds, fit.parameters
            run.say(f"{name}, fold {k + 1} of {len(splits)}: {scores[-1]:.2%} in {fit.seconds:.1f} s")
        table.append([name, parameters, *spread(scores), f"{seconds:.0f}"])
        misread = model, test, name

    columns_ = ["model", "parameters", "accuracy", "worst fold", "best fold", "seconds"]
    run.table(f"Accuracy over {len(splits)} test folds", columns_, table)
    for name, _, mean, *_ in table[1:]:
        run.expect(f"{name}: accuracy in %", float(mean), at_least=90.0 if run.quick else 96.5)
    means = {name: float(mean) for name, _, mean, *_ in table}
    run.verdict("Accuracy in %, in the mean of the folds", means, (table[0][0],))
    best = max(float(mean) for _, _, mean, *_ in table[1:])
    run.expect("the best of them, ahead of logistic regression by", best - float(table[0][2]), at_least=0.5)
    draw_misread(run, x, y, *misread)
    write_picture(run.out / "sample.png", x[splits[0][1][0]])
    run.try_with("--input", file="sample.png")


def spread(scores: list[float]) -> list[str]:
    """Mean, lowest and highest, in percent."""
    return [f"{100 * value:.2f}" for value in (np.mean(scores), min(scores), max(scores))]


def predicted(on: OnDevice, model: nn.Module, x: np.ndarray) -> np.ndarray:
    """The scores' largest entry for each picture."""
    with tr.no_grad():
        parts = [model(on.tensor(x[k : k + 1000])) for k in range(0, len(x), 1000)]
    return np.concatenate([part.numpy().argmax(-1) for part in parts])


def logistic_regression(x: np.ndarray, y: np.ndarray, splits: list[Split]) -> list[str | int]:
    """The baseline: all pixels at once, one linear layer."""
    from time import perf_counter

    from sklearn.linear_model import LogisticRegression

    begun, scores = perf_counter(), []
    flat = x.reshape(len(x), -1)
    for train, test in splits:
        model = LogisticRegression(max_iter=1000).fit(flat[train], y[train])
        scores.append(float(model.score(flat[test], y[test])))
    size = model.coef_.size + model.intercept_.size
    return ["logistic regression", size, *spread(scores), f"{perf_counter() - begun:.0f}"]


def draw_misread(run: Experiment, x: np.ndarray, y: np.ndarray, model: nn.Module, test: np.ndarray, name: str) -> None:
    """The digits of the last fold that the last model got wrong, each with what it took it for."""
    guess = predicted(run, model, x[test])
    wrong = np.flatnonzero(guess != y[test])[:24]
    with run.picture(
        "misread.png", f"All that “{name}” misread in its last fold ({len(wrong)} digits).", (9, 4)
    ) as fig:
        for k, i in enumerate(wrong):
            axes = fig.add_subplot(-(-len(wrong) // 8), 8, k + 1)
            draw_picture(axes, x[test][i], f"{y[test][i]} read as {guess[i]}", fontsize=8)
        fig.suptitle(f"{len(wrong)} of {len(test)} digits misread: {name}", fontsize=11)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=("rnn", "lstm", "gru", "convolution", "bidirectional"), help="only this one")


def answer(used: Used) -> Iterator[Answer]:
    """The digit in each picture, and the probability of each digit."""
    wanted = used.options.model or ""
    kept = next((one for one in used.models if one["sizes"]["kind"].lower().startswith(wanted)), None)
    if kept is None:
        raise InputError(f"{used.folder}: no {wanted} was trained in this run")
    model, sizes = kept.load(build), kept["sizes"]
    for picture in pictures_of(used, sizes["rows"], sizes["columns"]):
        p = tr.softmax(model(used.tensor(picture.pixels[None])), axis=-1).numpy()[0]
        digit, each = int(p.argmax()), [round(float(share), 4) for share in p]
        content = {**picture.content, "digit": digit, "probabilities": each, "model": sizes["kind"]}
        yield Answer(f"{digit}  {p.max():.3f}  {picture.file}{picture.aside}", content)


USE = Use(answer, files="pictures of one digit each", options=picture_options, allows=("model",))

if __name__ == "__main__":
    mnist = {"data": "a folder with MNIST's IDX files", "fetch": "mnist"}
    sys.exit(experiment(main, steps=1200, quick=400, options=options, use=USE, **mnist))
