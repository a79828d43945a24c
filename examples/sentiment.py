"""Is a review favourable? Many words in, one verdict out; of your own texts, one label of any number.

A bag of words knows which words there are, not where. A small grammar writes reviews in which that is not enough:
"funny but dull" and "dull but funny" have the same words and opposite verdicts, and so have many sentences with "not",
"very" and "a bit". Logistic regression over counts of words is right where the words tell and guesses where their order
does. A bidirectional LSTM reads them in order.

There are only a few hundred sentences to learn from, so the network soon knows them by heart: its loss on other
sentences falls and then rises. Dropout makes it learn longer; early stopping ends the training when it is best.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

import tinygrad_rnn as tr
from examples.common.baselines import bag_of_words
from examples.common.experiment import Experiment, Fit, experiment
from examples.common.plots import BLUE, GREY, INK, ORANGE
from examples.common.reviews import KINDS, reviews
from examples.common.shapes import few_shapes
from examples.common.tables import add_delimiter, delimiter
from examples.common.use import Answer, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.data import (
    Batches,
    Labelled,
    WordVocabulary,
    pad_sequences,
    read_labelled,
    read_parts,
    read_text,
    words,
)
from tinygrad_rnn.data.rows import find_columns, read_table
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.screen import one_line
from tinygrad_rnn.training import accuracy

WRONG = 0.1  # of the labels to learn from are wrong, as labels given by people are
SHOWN = [
    "the film was not dull",
    "the plot was dull but the cast was funny",
    "the plot was funny but the cast was dull",
    "the music was a bit silly and the story was really moving",
]


class Reader(nn.Module):
    """Embedding -> bidirectional LSTM -> the last state of each direction -> a score of each label; dropout."""

    def __init__(self, vocabulary: int, dropout: float, hidden: int = 48, labels: int = 2) -> None:
        self.embedding = nn.Embedding(vocabulary, 32)
        self.recurrent = nn.LSTM(32, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, labels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: np.ndarray, lengths: np.ndarray) -> tr.Tensor:
        """Words (T, B), of which the first `lengths` (B,) count, give the scores (B, labels)."""
        _, (h, _) = self.recurrent(self.dropout(self.embedding(ids)), lengths=lengths)
        return self.head(self.dropout(tr.concatenate([h[0], h[1]], axis=-1)))


def read_reviews(file: Path, asked: argparse.Namespace, encoding: str) -> list[tuple[str, str]]:
    """The texts of a file and their labels, as the options say."""
    columns = asked.text_column or "sentence", asked.label_column or "label"
    found = read_labelled(file, columns, encoding=encoding, delimiter=delimiter(asked))
    return [(text, found.names[label]) for text, label in zip(found.texts, found.labels, strict=True)]


def own_sentences(run: Experiment, file: Path) -> list[Labelled]:
    """The user's texts in three parts. Raises InputError for labels that cannot be learnt."""
    read = partial(read_reviews, asked=run.options, encoding=run.encoding)
    parts = read_parts(file, read, ("train", "dev"), run.seed, endings=(".tsv", ".csv"))
    counts = Counter(label for _, label in parts[0])
    if len(counts) < 2:
        raise InputError(f"{file}: only one of the labels occurs among those to learn from: {next(iter(counts))!r}")
    if 2 * len(counts) > len(parts[0]):
        what = f"{len(counts):,} different labels of {len(parts[0]):,} sentences to learn from"
        raise InputError(f"{file}: {what} are no labels", hint="choose the column of the labels")
    for label, n in Counter(label for part in parts for _, label in part).items():
        if n < 3 or label not in counts:
            what = f"{n} sentence{'s' * (n != 1)}, {counts[label]} of them to learn from"
            raise InputError(f"{file}: the label {label!r} has {what}: 3 or more are to be learnt from, and tested")
    names = tuple(sorted(counts))
    many = ", ".join(f"{counts[name]:,} {name!r}" for name in names[:10]) + ", ..." * (len(names) > 10)
    run.say(f"{len(names)} labels, of those to learn from: {many}")
    return [Labelled([text for text, _ in part], np.array([names.index(x) for _, x in part]), names) for part in parts]


def sentences(run: Experiment) -> tuple[list[Labelled], np.ndarray, tuple[str, ...]]:
    """What to learn from, to choose by and to test with; of the last, the kind of each, and the names of the kinds."""
    if run.data is None:
        rng, known, found = np.random.default_rng((run.seed, 0)), set(), []
        for count in (600, 500, 1000 if run.quick else 3000):
            data, kinds = reviews(count, rng, known)
            known |= set(data.texts)
            found.append(data)
        wrong = rng.random(len(found[0].labels)) < WRONG
        found[0] = Labelled(found[0].texts, np.where(wrong, 1 - found[0].labels, found[0].labels), found[0].names)
        what, names = f"generated from a grammar, {wrong.sum()} of the labels to learn from wrong", KINDS
    else:
        found = own_sentences(run, run.data)
        few = len(found[0].names) <= 8  # a column of the table each
        kinds, names = (found[2].labels, found[0].names) if few else (0 * found[2].labels, ("sentences",))
        what = f"{run.data}"
    counts = [f"{len(data.texts):,}" for data in found]
    run.source(f"{what}: {counts[0]} sentences to learn from, {counts[1]} to choose by, {counts[2]} to test with")
    return found, kinds, names


def favour(model: nn.Module, ids: list[np.ndarray]) -> np.ndarray:
    """The probability of each label of each sentence, (N, labels)."""
    with tr.no_grad():
        scores = [model(*pad_sequences(ids[k : k + 500])) for k in range(0, len(ids), 500)]
    return tr.softmax(tr.concatenate(scores), axis=-1).numpy()


def main(run: Experiment) -> None:
    (train, choose, test), kinds, names = sentences(run)
    vocabulary = WordVocabulary.of(map(words, train.texts), min_count=1 if len(train.texts) < 10_000 else 2)
    encode = lambda texts: [vocabulary.encode(words(text)) for text in texts]
    ids, held_out = encode(train.texts), encode(choose.texts)
    batches = Batches([len(x) for x in ids], 32, seed=run.seed)
    multiple = few_shapes(ids)

    favours, fits = {}, {}
    for name, longest in (("bag of words", 1), ("bag of pairs", 2)):
        baseline = bag_of_words(train.texts, train.labels, (choose.texts, choose.labels), longest)
        favours[name] = lambda texts, baseline=baseline: baseline.predict_proba(texts)
    for name, dropout, patience in (("LSTM", 0.0, None), ("LSTM, dropout", 0.5, 15)):
        tr.manual_seed(run.seed)
        sizes = {"vocabulary": len(vocabulary), "dropout": dropout, "labels": len(train.names)}
        model = Reader(**sizes).to(run.device)

        def batch(step: int) -> tuple[tuple, int]:
            at = batches[step]
            return (*pad_sequences([ids[i] for i in at], multiple=multiple), train.labels[at]), len(at)

        def loss(ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray, model=model) -> tr.Tensor:
            return F.cross_entropy(model(ids, lengths), labels)

        def evaluate(model=model) -> dict[str, float]:
            p = favour(model, held_out).astype(float)
            losses = -np.log(p[np.arange(len(p)), choose.labels].clip(1e-9))
            return {"held_out_loss": float(losses.mean()), "accuracy": accuracy(p.argmax(axis=1), choose.labels)}

        schedule = lambda used: min(1.0, 20 * used)
        how = {"lr": 4e-3, "schedule": schedule, "evaluations": 40, "patience": patience}
        how["use"] = {"sizes": sizes, "words": vocabulary.tokens, "labels": train.names}
        fits[name] = run.fit(name, model, batch, loss, evaluate, **how)
        favours[name] = lambda texts, model=model: favour(model, encode(texts))

    right = {name: ask(test.texts).argmax(axis=1) == test.labels for name, ask in favours.items()}
    rows = []
    for name, ok in right.items():
        each = [ok[kinds == k] for k in range(len(names))]
        rows.append([name, *(f"{100 * one.mean():.1f}" if len(one) else "–" for one in (*each, ok))])
    run.table(
        f"Sentences judged right, in %, by {'label' if run.data else 'kind'}",
        ["", *names, "all"],
        rows,
        best=len(rows) - 1,
    )
    overall = {name: 100 * ok.mean() for name, ok in right.items()}
    run.verdict(f"Judged right, in %, of {len(test.texts):,} sentences", overall, ("bag of words", "bag of pairs"))
    best = fits["LSTM"].best
    end = {figure: fits["LSTM"].curve(figure)[1][-1] for figure in best}
    with_it = fits["LSTM, dropout"].best["held_out_loss"]
    rises = end["held_out_loss"] > 1.01 * best["held_out_loss"]
    run.note(
        f"Without dropout the held-out loss falls to {best['held_out_loss']:.2f}, "
        + (f"then rises to {end['held_out_loss']:.2f}, and " if rises else "where it stays, and ")
        + f"accuracy goes from {best['accuracy']:.1%} to {end['accuracy']:.1%}. With dropout the loss reaches "
        f"{with_it:.2f}."
    )
    run.expect("held-out loss, end over best, no dropout", end["held_out_loss"] / best["held_out_loss"], at_least=1.2)
    if run.data is None:
        order = kinds >= KINDS.index("intensity")
        share = {name: 100 * ok[order].mean() for name, ok in right.items()}
        run.expect("where order decides, bag of words: % right", share["bag of words"], at_most=60)
        ahead = share["LSTM, dropout"] - share["bag of pairs"]
        run.expect("there, LSTM with dropout ahead of the bag of pairs by", ahead, at_least=15)
        run.expect("LSTM with dropout, all kinds: % right", 100 * right["LSTM, dropout"].mean(), at_least=90)
    draw_overfitting(run, fits)
    shown = SHOWN if run.data is None else sorted(test.texts, key=len)[len(test.texts) // 2 :][:4]
    draw_words(run, favours, train.names, shown)
    run.try_with("--text", one_line(shown[0]))


def draw_overfitting(run: Experiment, fits: dict[str, Fit]) -> None:
    """The loss on what is learnt from and on what is held out, with and without dropout."""
    caption = "The loss on what is learnt from and on what is held out, without dropout and with it."
    if run.data is None:
        caption = "Without dropout the network learns its sentences, and the wrong labels, by heart."
    with run.picture("overfitting.png", caption, (9, 4)) as figure:
        for k, (name, fit) in enumerate(fits.items()):
            axes = figure.add_subplot(1, 2, k + 1, title=name, xlabel="step", sharey=(figure.axes or [None])[0])
            steps, held_out = fit.curve("held_out_loss")
            spans = pairwise([0, *steps])
            learnt = [np.mean([r["loss"] for r in fit.records if a < r["step"] <= b]) for a, b in spans]
            axes.plot(steps, learnt, color=GREY, label="learnt from")
            axes.plot(steps, held_out, color=BLUE, label="held out")
            best = int(np.argmin(held_out))
            axes.plot(steps[best], held_out[best], "o", color=ORANGE, label="best: kept")
            axes.set_ylim(0)
            axes.grid(axis="y", color="#e5e5e5")
        figure.axes[0].set_ylabel("cross-entropy in nats")
        figure.axes[0].legend(frameon=False)


def draw_words(run: Experiment, favours: dict, labels: tuple[str, ...], texts: list[str]) -> None:
    """What the network, and the bag of words, think after each word: of the second label, or the one it ends with."""
    caption = "The verdict after each word, by the network and by the bag of words."
    if run.data is None:
        caption = "The verdict after each word: the network turns where the order of the words says so."
    with run.picture("words.png", caption, (9, 1.9 * len(texts))) as figure:
        for k, text in enumerate(texts):
            said = words(text)[:16]
            beginnings = [" ".join(said[: n + 1]) for n in range(len(said))]
            p, bag = favours["LSTM, dropout"](beginnings), favours["bag of words"](beginnings)
            label = 1 if len(labels) == 2 else p[-1].argmax()
            p, bag = p[:, label], bag[:, label]
            axes = figure.add_subplot(len(texts), 1, k + 1, ylim=(0, 1), yticks=[0, 0.5, 1])
            axes.bar(range(len(said)), p - 0.5, bottom=0.5, color=np.where(p > 0.5, BLUE, ORANGE))
            axes.plot(range(len(said)), bag, "D", color=INK, markersize=4, label="bag of words")
            axes.axhline(0.5, color=GREY, linewidth=0.8)
            axes.set_xticks(range(len(said)), said, fontsize=10)
            axes.set_xlim(-0.6, max(len(said), 11) - 0.4)
            if len(labels) > 2:
                axes.set_ylabel(f"“{labels[label]}”")
        figure.axes[0].legend(loc="lower right", frameon=False)
        what = "favourable" if run.data is None else labels[1]
        what = f"“{what}”" if len(labels) == 2 else "one label"
        figure.supylabel(f"probability of {what} (bars: LSTM with dropout)", fontsize=10)


def data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--text-column", metavar="NAME", help="the column of the texts (default: sentence)")
    group.add_argument("--label-column", metavar="NAME", help="the column of their labels (default: label)")
    add_delimiter(group)


def texts_in(file: Path, asked: argparse.Namespace, encoding: str) -> list[tuple[int, str]]:
    """The line and the text of each row of a table, whatever labels it has."""
    column, hints = asked.text_column or "sentence", ["choose the column of the texts"]
    table = read_table(file, read_text(file, encoding), (column,), delimiter(asked), notes=False, hints=hints)
    [at] = find_columns(file, table.header, (column,), hints)
    for row in table.rows:
        if not row.fields[at].strip():
            raise InputError(f"{file}, line {row.line}: the {column} is empty")
    return [(row.line, row.fields[at]) for row in table.rows]


def answer(used: Used) -> Iterator[Answer]:
    """For each sentence the label that is likeliest, and the probability of each."""
    kept = used.models[0]
    model, vocabulary, labels = kept.load(Reader), WordVocabulary(tuple(kept["words"])), kept["labels"]
    given = used.lines(partial(texts_in, asked=used.options, encoding=used.options.encoding or "utf-8"))
    for part in (given[k : k + 500] for k in range(0, len(given), 500)):
        said = [words(one.text) for one in part]
        scores = model(*pad_sequences([vocabulary.encode(one) for one in said]))
        for one, tokens, p in zip(part, said, tr.softmax(scores, axis=-1).numpy(), strict=True):
            label, unknown = labels[p.argmax()], sorted({word for word in tokens if word not in vocabulary})
            aside = f"  (unknown: {', '.join(unknown)})" if unknown else ""
            each = {name: round(float(share), 4) for name, share in zip(labels, p, strict=True)}
            content = {**one.content, "text": one.text, "label": label, "probabilities": each, "unknown": unknown}
            yield Answer(f"{label}  {p.max():.3f}  {one_line(one.text)}{aside}", content)


TAKES = "text files, one sentence a line, or tables (.csv, .tsv) with the column of the texts"
USE = Use(answer, text="a sentence", files=TAKES, settled=("label_column",))
DATA = "a TSV or CSV file with a column of texts and one of labels, or a folder with train.tsv and dev.tsv, or .csv"

if __name__ == "__main__":
    more = {"data": DATA, "encoded": True, "fetch": "sst2", "data_options": data_options, "use": USE}
    sys.exit(experiment(main, steps=2000, quick=500, **more))
