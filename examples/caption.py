"""A picture of some handwritten digits, described in words: "three seven one".

A convolution looks for strokes, a bidirectional GRU sweeps over what it finds, column by column, and an LSTM writes
word after word, fed with its own last word, until it thinks that nothing is left to be said: one input, many outputs.
For each word, attention chooses the columns that matter (Xu et al. 2015, "Show, attend and tell"). Nobody tells it
where the digits are, how many there are, or that captions go from left to right.

The digits are real; they stand two or three in a row, at varied heights and distances, and may touch. Those of the test
pictures are in no training picture. The baseline is what one would do without a network: cut the picture where columns
are empty, and tell the digits apart by logistic regression. A second picture asks the gradient which pixels a word
hangs on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.pictures import picture_options, pictures_of, write_picture
from examples.common.plots import INK, ORANGE, draw_picture
from examples.common.use import Answer, OnDevice, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.data import WordVocabulary, pad_sequences, split_at_random
from tinygrad_rnn.data.vocabularies import BEGIN, END, PAD
from tinygrad_rnn.decoding import greedy_search, one_step
from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import error_rate

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HEIGHT, WIDTH = 14, 36
TOKENS = WordVocabulary((PAD, BEGIN, END, *WORDS))


class Captioner(nn.Module):
    """Two convolutions, each with a maximum over 2 x 2; a sweep over the columns; an LSTM that looks and writes."""

    def __init__(self, filters: int = 16, hidden: int = 128) -> None:
        self.first, self.norm_first = nn.Conv2d(1, filters, 3, padding=1), nn.BatchNorm2d(filters)
        self.second, self.norm_second = nn.Conv2d(filters, 2 * filters, 3, padding=1), nn.BatchNorm2d(2 * filters)
        self.pool = nn.MaxPool2d(2)
        self.sweep = nn.GRU(2 * filters * (HEIGHT // 4), hidden // 2, bidirectional=True)
        self.embedding = nn.Embedding(len(TOKENS), 16)
        self.lstm = nn.LSTM(16, hidden)
        self.attention = nn.AdditiveAttention(hidden, hidden, hidden)
        self.output = nn.Linear(2 * hidden, len(TOKENS))

    def look(self, x: tr.Tensor) -> tr.Tensor:
        """Pictures (B, rows, columns) give what there is to see from left to right, (columns / 4, B, H)."""
        y = self.pool(tr.relu(self.norm_first(self.first(tr.expand_dims(x, 1)))))
        y = self.pool(tr.relu(self.norm_second(self.second(y))))
        return self.sweep(tr.transpose(y, (3, 0, 1, 2)).reshape(WIDTH // 4, len(x), -1))[0]

    def write(self, ids: np.ndarray, state: tuple | None, seen: tr.Tensor) -> tuple[tr.Tensor, tuple]:
        """The words so far (L, B) give the scores of the next ones (L, B, V), and the state."""
        h, state = self.lstm(self.embedding(ids), state)
        context, _ = self.attention(h, seen)
        return self.output(tr.concatenate([h, context], axis=-1)), state


class Pictures(NamedTuple):
    """Pictures (N, rows, columns) from 0 to 1, and their captions."""

    pixels: np.ndarray
    captions: list[list[str]]


def compose(digits: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> Pictures:
    """Pictures of two or three of the digits (N, 8, 8), from left to right."""
    pixels, captions = np.zeros((count, HEIGHT, WIDTH), np.float32), []
    for picture in pixels:
        chosen = rng.integers(len(digits), size=rng.integers(2, 4))
        gaps = rng.integers(-2, 4, len(chosen))  # to the next: neighbours may share two of their eight columns
        left = rng.integers(0, WIDTH - 8 * len(chosen) - gaps[:-1].sum() + 1)
        tops = rng.integers(0, HEIGHT - 7, len(chosen))
        for k, gap, top in zip(chosen, gaps, tops, strict=True):
            place = picture[top : top + 8, left : left + 8]
            np.maximum(place, digits[k], out=place)
            left += 8 + gap
        captions.append([WORDS[labels[k]] for k in chosen])
    return Pictures(pixels, captions)


def main(run: Experiment) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    digits, labels = (found.images / 16).astype(np.float32), found.target
    train, validation, test = split_at_random(len(digits), (0.7, 0.1, 0.2), run.seed)
    rng = np.random.default_rng((run.seed, 1))
    held_out = compose(digits[validation], labels[validation], 300, rng)
    unseen = compose(digits[test], labels[test], 500 if run.quick else 2000, rng)
    run.source(
        f"scikit-learn's digits, {len(digits):,} real ones, composed to pictures: {len(train):,} digits to train on, "
        f"{len(test)} others in {len(unseen.pixels):,} test pictures"
    )
    model = Captioner().to(run.device)

    def arrays(pictures: Pictures) -> tuple[tr.Tensor, np.ndarray]:
        """Pixels (B, rows, columns), and ids to be written, between begin and end, (L, B)."""
        ids = [TOKENS.encode(words, begin=True, end=True) for words in pictures.captions]
        return run.tensor(pictures.pixels), pad_sequences(ids, TOKENS[PAD])[0]

    def batch(step: int) -> tuple[tuple, int]:
        rng = np.random.default_rng((run.seed, 2, step))
        return arrays(compose(digits[train], labels[train], 64, rng)), 64  # no picture is seen twice

    def loss(pixels: tr.Tensor, y: np.ndarray) -> tr.Tensor:
        """Teacher forcing: given the true words so far, how surprising the next one is."""
        scores, _ = model.write(y[:-1], None, model.look(pixels))
        return F.cross_entropy(scores, y[1:], ignore_index=TOKENS[PAD])

    def evaluate() -> dict[str, float]:
        right = exact(describe(run, model, held_out.pixels), held_out)["all"]
        return {"held_out_loss": loss(*arrays(held_out)).item(), "exact": right}

    use = {"sizes": {}, "height": HEIGHT, "width": WIDTH, "words": TOKENS.tokens}
    fit = run.fit("network", model, batch, loss, evaluate, lr=5e-3, unit="pictures", use=use)

    answers = {
        "network": (fit.parameters, describe(run, model, unseen.pixels)),
        "cut and read": cut_and_read(digits[train], labels[train], unseen.pixels),
    }
    table, right = [], []
    for name, (numbers, captions) in answers.items():
        shares = exact(captions, unseen)
        right.append(shares["all"])
        errors = 100 * error_rate(captions, unseen.captions)
        table.append([name, numbers, *(f"{share:.2f}" for share in shares.values()), f"{errors:.2f}"])
    columns = ["method", "parameters", "exact, %", "apart", "touching", "wrong words, %"]
    run.table(f"Captions of {len(unseen.pixels):,} pictures of unseen digits", columns, table)
    run.expect("exact captions in %", right[0], at_least=80 if run.quick else 90)
    run.expect("exact captions, ahead of the baseline by", right[0] - right[1], at_least=2 if run.quick else 5)
    draw_grid(run, unseen, answers["network"][1])
    draw_looks(run, model, unseen, answers["network"][1])
    write_picture(run.out / "sample.png", unseen.pixels[0])
    run.try_with("--input", file="sample.png")


def describe(on: OnDevice, model: Captioner, pixels: np.ndarray) -> list[list[str]]:
    """The captions of pictures (N, rows, columns)."""
    written = []
    for k in range(0, len(pixels), 250):
        part = pixels[k : k + 250]
        with tr.no_grad():
            seen = model.look(on.tensor(part))
        step = one_step(partial(model.write, seen=seen))
        written += greedy_search(step, None, TOKENS[BEGIN], TOKENS[END], count=len(part), length=5)
    return [TOKENS.decode(ids) for ids in written]


def exact(answers: list[list[str]], pictures: Pictures) -> dict[str, float]:
    """How many of a hundred captions are right: of all, of digits that stand apart, and of digits that touch."""
    right = np.array([answer == truth for answer, truth in zip(answers, pictures.captions, strict=True)])
    edges = np.diff(pictures.pixels.any(axis=1), axis=1, prepend=False, append=False)
    touch = edges.sum(axis=1) // 2 < [len(truth) for truth in pictures.captions]  # fewer pieces than digits
    return {"all": 100 * right.mean(), "apart": 100 * right[~touch].mean(), "touch": 100 * right[touch].mean()}


def cut_and_read(digits: np.ndarray, labels: np.ndarray, pixels: np.ndarray) -> tuple[int, list[list[str]]]:
    """The baseline: pieces between empty columns, in equal parts where they are too wide, each read on its own."""
    from sklearn.linear_model import LogisticRegression

    def centred(piece: np.ndarray) -> np.ndarray:
        """What is inked, in the middle of 8 x 8."""
        rows, columns = (np.flatnonzero(piece.any(axis=axis)) for axis in (1, 0))
        inked = piece[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][:8, :8]
        top, left = (8 - inked.shape[0]) // 2, (8 - inked.shape[1]) // 2
        return np.pad(inked, ((top, 8 - inked.shape[0] - top), (left, 8 - inked.shape[1] - left))).reshape(-1)

    model = LogisticRegression(max_iter=2000).fit([centred(digit) for digit in digits], labels)
    captions = []
    for picture in pixels:
        inked = np.flatnonzero(np.diff(picture.any(axis=0), prepend=False, append=False))
        pieces = []
        for start, stop in inked.reshape(-1, 2):
            parts = -(-(stop - start) // 9)
            pieces += [part for part in np.array_split(picture[:, start:stop], parts, axis=1) if part.any()]
        captions.append([WORDS[k] for k in model.predict([centred(piece) for piece in pieces])])
    return model.coef_.size + model.intercept_.size, captions


def draw_grid(run: Experiment, pictures: Pictures, answers: list[list[str]]) -> None:
    """Test pictures with their captions: some that are right, then some that are not."""
    right = [k for k, answer in enumerate(answers) if answer == pictures.captions[k]]
    wrong = [k for k, answer in enumerate(answers) if answer != pictures.captions[k]]
    chosen = (right[:16] + wrong[:8])[:24]
    caption = "Test pictures with their captions; in orange, captions that are wrong, with the true one in brackets."
    with run.picture("captions.png", caption, (9, 7)) as fig:
        for n, k in enumerate(chosen):
            text = " ".join(answers[k]) + ("" if k in right else f"\n({' '.join(pictures.captions[k])})")
            axes = fig.add_subplot(6, 4, n + 1)
            draw_picture(axes, pictures.pixels[k], text, color=INK if k in right else ORANGE)


def draw_looks(run: Experiment, model: Captioner, pictures: Pictures, answers: list[list[str]]) -> None:
    """For each word, the pixels that it hangs on: the gradient of its log-probability."""
    of_three = [k for k, words in enumerate(pictures.captions) if len(set(words)) == 3]
    chosen = sorted(of_three, key=lambda k: answers[k] != pictures.captions[k])[:4]  # the right ones first
    with run.picture("looks.png", "Which pixels each word hangs on: |∂ log p(word) / ∂ pixel|.", (9, 5.5)) as fig:
        for row, k in enumerate(chosen):
            words = pictures.captions[k]
            ids = TOKENS.encode(words, begin=True, end=True)
            draw_picture(fig.add_subplot(len(chosen), 4, 4 * row + 1), pictures.pixels[k])
            for n, word in enumerate(words):
                x = tr.Tensor(pictures.pixels[k][None], device=run.device, requires_grad=True)
                scores, _ = model.write(ids[:-1, None], None, model.look(x))
                (-F.cross_entropy(scores[n], ids[n + 1 : n + 2])).backward()
                draw_picture(fig.add_subplot(len(chosen), 4, 4 * row + n + 2), np.abs(x.grad.numpy()[0]), word, "Blues")


def answer(used: Used) -> Iterator[Answer]:
    """The caption of each picture."""
    kept = used.models[0]
    if tuple(kept["words"]) != TOKENS.tokens:
        raise CheckpointError(f"{kept.place}: its words are others than those of this version: train it again")
    model = kept.load(Captioner)
    for picture in pictures_of(used, kept["height"], kept["width"]):
        [caption] = describe(used, model, picture.pixels[None])
        said = " ".join(caption) or "(nothing)"
        yield Answer(f"{said}  {picture.file}{picture.aside}", {**picture.content, "caption": caption})


USE = Use(answer, files=f"pictures of {WIDTH} x {HEIGHT} pixels, digits in a row", options=picture_options)

if __name__ == "__main__":
    sys.exit(experiment(main, steps=1800, quick=400, use=USE))
