"""Is a review favourable? Many words in, one verdict out.

A bag of words knows which words there are, not where. A small grammar writes reviews in which that is not enough:
"funny but dull" and "dull but funny" have the same words and opposite verdicts, and so have many sentences with "not",
"very" and "a bit". Logistic regression over counts of words is right where the words tell and guesses where their order
does. A bidirectional LSTM reads them in order.

There are only a few hundred sentences to learn from, so the network soon knows them by heart: its loss on other
sentences falls and then rises. Dropout makes it learn longer; early stopping ends the training when it is best.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np

import tinygrad_rnn as tr
from tinygrad_rnn import nn
from tinygrad_rnn.data import Batches, Labelled, Tokens, pad_sequences, read_labelled, split_at_random, words
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.experiment import Experiment, Fit, experiment
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import accuracy

KINDS = ("plain", "negation", "intensity", "contrast", "both")
GOOD = ["good", "great", "funny", "clever", "moving", "lively", "fresh", "charming", "bright", "gripping", "warm"]
BAD = ["bad", "awful", "dull", "silly", "boring", "flat", "stale", "clumsy", "dark", "tiresome", "cold", "false"]
THINGS = ["film", "plot", "acting", "music", "ending", "dialogue", "camera", "script", "cast", "hero", "story"]
NOT = ["was not", "was never", "was hardly", "seemed anything but", "did not seem", "was by no means"]
STRONG, WEAK = ["very", "really", "extremely", "wonderfully"], ["a bit", "slightly", "somewhat", "rather"]
OPENINGS = ["", "", "i think", "last night", "to be honest ,", "all in all ,"]
WRONG = 0.1  # of the labels to learn from are wrong, as labels given by people are
SHOWN = [
    "the film was not dull",
    "the plot was dull but the cast was funny",
    "the plot was funny but the cast was dull",
    "the music was a bit silly and the story was really moving",
]


class Reader(nn.Module):
    """Embedding -> bidirectional LSTM -> the last state of each direction -> two scores; dropout before and after."""

    def __init__(self, vocabulary: int, dropout: float, hidden: int = 48) -> None:
        self.embedding = nn.Embedding(vocabulary, 32)
        self.recurrent = nn.LSTM(32, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: np.ndarray, lengths: np.ndarray) -> tr.Tensor:
        """Words (T, B), of which the first `lengths` (B,) count, give the scores (B, 2)."""
        _, (h, _) = self.recurrent(self.dropout(self.embedding(ids)), lengths=lengths)
        return self.head(self.dropout(tr.concatenate([h[0], h[1]], axis=-1)))


def review(kind: str, rng: np.random.Generator) -> tuple[str, int]:
    """A sentence of this kind, and 1 if it is favourable, 0 if not."""
    pick = lambda choices: str(choices[rng.integers(len(choices))])
    good, negated = int(rng.integers(2)), [bool(rng.integers(2)) and kind in ("negation", "both") for _ in range(2)]
    first, second = (f"the {thing}" for thing in rng.choice(THINGS, 2, replace=False))

    def clause(thing: str, verdict: int, negate: bool, how: str = "") -> str:
        adjective = pick(GOOD if verdict != negate else BAD)
        return " ".join(f"{thing} {pick(NOT) if negate else 'was'} {how} {adjective}".split())

    if kind in ("plain", "negation"):
        text = clause(first, good, negated[0])
        if rng.integers(2):
            text += f" and {clause(second, good, negated[1])}"
    elif kind == "intensity":  # the stronger word decides
        halves = [clause(first, good, False, pick(STRONG)), clause(second, 1 - good, False, pick(WEAK))]
        text = " and ".join(halves if rng.integers(2) else halves[::-1])
    else:  # what follows "but" decides, and what "although" does not belong to
        main, aside = clause(first, good, negated[0]), clause(second, 1 - good, negated[1])
        text = pick(
            [f"{aside} but {main}", f"{aside} , but {main}", f"although {aside} , {main}", f"{main} although {aside}"]
        )
    return f"{pick(OPENINGS)} {text}".strip(), good


def reviews(count: int, rng: np.random.Generator, known: set[str]) -> tuple[Labelled, np.ndarray]:
    """So many sentences that are not among the `known`, all kinds alike, and the number of the kind of each."""
    found: dict[str, tuple[int, int]] = {}
    while len(found) < count:
        text, good = review(KINDS[len(found) % len(KINDS)], rng)
        if text not in known:
            found.setdefault(text, (good, len(found) % len(KINDS)))
    labels, kinds = np.array(list(found.values())).T
    return Labelled(list(found), labels, ("against", "in favour")), kinds


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
        files = [run.data / "train.tsv", run.data / "dev.tsv"] if run.data.is_dir() else [run.data]
        first, *rest = (read_labelled(file, names=("0", "1")) for file in files)
        cuts = split_at_random(len(first.texts), (0.95, 0.05) if rest else (0.8, 0.1, 0.1), run.seed)
        found = [*(Labelled([first.texts[i] for i in cut], first.labels[cut], first.names) for cut in cuts), *rest]
        if len(set(found[0].labels)) < 2:
            raise InputError(f"{files[0]}: only one of the labels 0 and 1 occurs")
        what, kinds, names = f"{run.data}", np.zeros(len(found[2].texts), int), ("sentences",)
    counts = [f"{len(data.texts):,}" for data in found]
    run.source(f"{what}: {counts[0]} sentences to learn from, {counts[1]} to choose by, {counts[2]} to test with")
    return found, kinds, names


def bag_of_words(train: Labelled, choose: Labelled, longest: int):
    """The baseline: logistic regression over the counts of words, and of strings of up to `longest` words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    models = []
    for C in (0.01, 0.1, 1.0, 10.0):
        counts = CountVectorizer(tokenizer=words, token_pattern=None, ngram_range=(1, longest))
        models.append(make_pipeline(counts, LogisticRegression(C=C, max_iter=2000)).fit(train.texts, train.labels))
    return max(models, key=lambda model: model.score(choose.texts, choose.labels))


def favour(model: nn.Module, ids: list[np.ndarray]) -> np.ndarray:
    """The probability (N,) that each sentence is favourable."""
    with tr.no_grad():
        scores = [model(*pad_sequences(ids[k : k + 500])) for k in range(0, len(ids), 500)]
    return tr.softmax(tr.concatenate(scores), axis=-1).numpy()[:, 1]


def main(run: Experiment) -> None:
    (train, choose, test), kinds, names = sentences(run)
    vocabulary = Tokens.of(map(words, train.texts), min_count=1 if len(train.texts) < 10_000 else 2)
    encode = lambda texts: [vocabulary.encode(words(text)) for text in texts]
    ids, held_out = encode(train.texts), encode(choose.texts)
    batches = Batches([len(x) for x in ids], 32, seed=run.seed)

    favours, fits = {}, {}
    for name, longest in (("bag of words", 1), ("bag of pairs", 2)):
        baseline = bag_of_words(train, choose, longest)
        favours[name] = lambda texts, baseline=baseline: baseline.predict_proba(texts)[:, 1]
    for name, dropout, patience in (("LSTM", 0.0, None), ("LSTM, dropout", 0.5, 15)):
        tr.manual_seed(run.seed)
        model = Reader(len(vocabulary), dropout).to(run.device)

        def loss(step: int, model=model) -> tuple[tr.Tensor, int]:
            batch = batches[step]
            scores = model(*pad_sequences([ids[i] for i in batch]))
            return F.cross_entropy(scores, train.labels[batch]), len(batch)

        def evaluate(model=model) -> dict[str, float]:
            p = favour(model, held_out).clip(1e-9, 1 - 1e-9)
            losses = -np.log(np.where(choose.labels == 1, p, 1 - p))
            return {"held_out_loss": float(losses.mean()), "accuracy": accuracy(p > 0.5, choose.labels == 1)}

        schedule = lambda used: min(1.0, 20 * used)
        fits[name] = run.fit(name, model, loss, evaluate, lr=4e-3, schedule=schedule, evaluations=40, patience=patience)
        favours[name] = lambda texts, model=model: favour(model, encode(texts))

    right = {name: (ask(test.texts) > 0.5) == test.labels for name, ask in favours.items()}
    rows = []
    for name, ok in right.items():
        each = [ok[kinds == k].mean() for k in range(len(names))]
        rows.append([name, *(f"{100 * share:.1f}" for share in (*each, ok.mean()))])
    run.table("Sentences judged right, in %, by kind", ["", *names, "all"], rows, best=len(rows) - 1)
    best, end = fits["LSTM"].best, evaluated(fits["LSTM"])[-1]
    with_it = fits["LSTM, dropout"].best["held_out_loss"]
    run.note(
        f"Without dropout the held-out loss falls to {best['held_out_loss']:.2f}, then rises to "
        f"{end['held_out_loss']:.2f}, and accuracy goes from {best['accuracy']:.1%} to {end['accuracy']:.1%}. "
        f"With dropout the loss reaches {with_it:.2f}."
    )
    run.expect("held-out loss, end over best, no dropout", end["held_out_loss"] / best["held_out_loss"], at_least=1.2)
    if run.data is None:
        order = kinds >= KINDS.index("intensity")
        share = {name: 100 * ok[order].mean() for name, ok in right.items()}
        run.expect("where order decides, bag of words: % right", share["bag of words"], at_most=60)
        ahead = share["LSTM, dropout"] - share["bag of pairs"]
        run.expect("there, LSTM with dropout ahead of the bag of pairs by", ahead, at_least=15)
        run.expect("LSTM with dropout, all kinds: % right", 100 * right["LSTM, dropout"].mean(), at_least=90)
    draw_curves(run, fits)
    draw_words(run, favours, SHOWN if run.data is None else sorted(test.texts, key=len)[len(test.texts) // 2 :][:4])


def evaluated(fit: Fit) -> list[dict[str, float]]:
    """Those records of a training that have figures of what is held out."""
    return [record for record in fit.records if "held_out_loss" in record]


def draw_curves(run: Experiment, fits: dict[str, Fit]) -> None:
    """The loss on what is learnt from and on what is held out, with and without dropout."""
    caption = "Without dropout the network learns its sentences, and the wrong labels, by heart."
    with run.picture("overfitting.png", caption, (9, 4)) as figure:
        for k, (name, fit) in enumerate(fits.items()):
            axes = figure.add_subplot(1, 2, k + 1, title=name, xlabel="step", sharey=(figure.axes or [None])[0])
            points, records = evaluated(fit), fit.records
            steps = [0, *(point["step"] for point in points)]
            means = [np.mean([r["loss"] for r in records if a < r["step"] <= b]) for a, b in pairwise(steps)]
            axes.plot(steps[1:], means, color="#8a8a8a", label="learnt from")
            axes.plot(steps[1:], [point["held_out_loss"] for point in points], color="#3b6fb6", label="held out")
            best = min(points, key=lambda point: point["held_out_loss"])
            axes.plot(best["step"], best["held_out_loss"], "o", color="#d9622b", label="best: kept")
            axes.set_ylim(0)
            axes.grid(axis="y", color="#e5e5e5")
        figure.axes[0].set_ylabel("cross-entropy in nats")
        figure.axes[0].legend(frameon=False)


def draw_words(run: Experiment, favours: dict, texts: list[str]) -> None:
    """What the network, and the bag of words, think after each word."""
    caption = "The verdict after each word: the network turns where the order of the words says so."
    with run.picture("words.png", caption, (9, 1.9 * len(texts))) as figure:
        for k, text in enumerate(texts):
            said = words(text)[:16]
            beginnings = [" ".join(said[: n + 1]) for n in range(len(said))]
            p, bag = favours["LSTM, dropout"](beginnings), favours["bag of words"](beginnings)
            axes = figure.add_subplot(len(texts), 1, k + 1, ylim=(0, 1), yticks=[0, 0.5, 1])
            axes.bar(range(len(said)), p - 0.5, bottom=0.5, color=np.where(p > 0.5, "#3b6fb6", "#d9622b"))
            axes.plot(range(len(said)), bag, "D", color="#222222", markersize=4, label="bag of words")
            axes.axhline(0.5, color="#8a8a8a", linewidth=0.8)
            axes.set_xticks(range(len(said)), said, fontsize=10)
            axes.set_xlim(-0.6, max(len(said), 11) - 0.4)
        figure.axes[0].legend(loc="lower right", frameon=False)
        figure.supylabel("probability of “favourable” (bars: LSTM with dropout)", fontsize=10)


DATA = "a TSV file with the columns sentence and label (1 or 0), or a folder with train.tsv and dev.tsv"

if __name__ == "__main__":
    sys.exit(experiment(main, steps=2000, quick=500, data=DATA, fetch="sst2"))
