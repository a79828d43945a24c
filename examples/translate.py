"""Dates in ten languages, translated into one: "sobota, 9 marca 2024" becomes 2024-03-09.

An encoder reads the date character by character, in both directions; a decoder writes the answer character by
character, and is fed its own last character. Between them stands either one vector that has to hold everything
(Sutskever et al. 2014), or attention: for each character that it writes, the decoder looks back at the characters
that matter for it (Bahdanau et al. 2015, additive; Luong et al. 2015, dot product).

Nobody tells the networks where day, month and year stand, that German writes 09.03.2024, or that "mar" is a month in
Spanish and "martes" a day. The pictures show where attention looks, and how much sooner it learns. With --data the
same networks translate sentence pairs, word by word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

import tinygrad_rnn as tr
from tinygrad_rnn import nn
from tinygrad_rnn.data import Batches, Tokens, pad_sequences, read_tsv, split_at_random, words
from tinygrad_rnn.data.tokens import BEGIN, END, PAD, UNKNOWN
from tinygrad_rnn.decoding import beam_search, greedy_search
from tinygrad_rnn.experiment import Experiment, Fit, experiment
from tinygrad_rnn.nn import functional as F

LOCALES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "tr")
FORMATS = ("medium", "long", "full")
Step = Callable[[np.ndarray, tr.Tensor], tuple[tr.Tensor, tr.Tensor]]


class Pairs(NamedTuple):
    """Sentences and their translations as tokens, and which of them are for what."""

    sources: list[list[str]]
    targets: list[list[str]]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Translator(nn.Module):
    """Encoder, decoder and, unless `attention` is "no", what looks from one to the other."""

    def __init__(self, sources: int, targets: int, attention: str, size: int, dropout: float) -> None:
        self.source = nn.Embedding(sources, size // 2)
        self.target = nn.Embedding(targets, size // 2)
        self.encoder = nn.GRU(size // 2, size, bidirectional=True)
        self.bridge = nn.Linear(2 * size, size)
        self.decoder = nn.GRU(size // 2, size)
        kinds = {"additive": lambda: nn.AdditiveAttention(size, 2 * size, size)}
        kinds["dot"] = lambda: nn.DotAttention(size, 2 * size)
        self.attention = kinds[attention]() if attention != "no" else None
        self.combine = nn.Linear(size + (2 * size if self.attention else 0), size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, targets)

    def encode(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[tr.Tensor, tr.Tensor, tr.Tensor]:
        """Ids (S, B) -> what attention sees: states (S, B, 2H), their mask (S, B); the decoder's first state
        (1, B, H), made of the last states of both directions.
        """
        states, last = self.encoder(self.dropout(self.source(ids)), lengths=lengths)
        first = tr.tanh(self.bridge(tr.concatenate([last[0], last[1]], axis=-1)))
        return states, F.sequence_mask(lengths, len(ids), device=states.device), tr.expand_dims(first, 0)

    def decode(
        self, ids: np.ndarray, h: tr.Tensor, states: tr.Tensor, mask: tr.Tensor
    ) -> tuple[tr.Tensor, tr.Tensor, tr.Tensor | None]:
        """What was written so far, ids (L, B) -> scores of what comes next (L, B, V), the state, the weights (B, L, S).

        s_t = GRU(y_{t-1}, s_{t-1}),   scores = W tanh(U [s_t | context]),   context = Σ weight · state
        """
        y, h = self.decoder(self.dropout(self.target(ids)), h)
        weights = None
        if self.attention:
            context, weights = self.attention(y, states, mask=mask)
            y = tr.concatenate([y, context], axis=-1)
        return self.output(self.dropout(tr.tanh(self.combine(y)))), h, weights

    def reader(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[Step, tr.Tensor]:
        """What the searches take: a step of the decoder, the state before the first."""
        states, mask, first = self.encode(ids, lengths)

        def step(last: np.ndarray, h: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
            rows = np.arange(len(last)) % ids.shape[1]  # in a beam, all beginnings see the one sentence
            scores, h, _ = self.decode(last[None], h, states[:, rows], mask[:, rows])
            return scores[0], h

        return step, first


def pairs_of(run: Experiment) -> Pairs:
    """The user's sentences, or dates of a hundred years, each in some languages and formats."""
    if run.data:
        return read_pairs(run)
    from babel.dates import format_date

    rng = np.random.default_rng((run.seed, 1))
    days = [date(1950, 1, 1) + timedelta(days=int(k)) for k in rng.permutation(36524)[: 6000 if run.quick else 12000]]
    parts = split_at_random(len(days), (0.8, 0.05, 0.15), run.seed)  # of days: none is in two parts in any language
    texts = [(format_date(d, FORMATS[rng.integers(3)], LOCALES[rng.integers(10)]), d.isoformat()) for d in days]
    run.source(
        f"generated: {len(days):,} dates from 1950 to 2049 in {len(LOCALES)} languages and {len(FORMATS)} formats "
        f"({len(parts[0]):,} to train on, {len(parts[2]):,} others to test), by Babel's locale data"
    )
    return Pairs([list(s) for s, _ in texts], [list(t) for _, t in texts], *parts)


def read_pairs(run: Experiment) -> Pairs:
    """Pairs from a TSV file, split at random, or from a folder with train.tsv, val.tsv and test.tsv."""
    if run.data.is_dir():
        parts = [read_tsv(run.data / f"{name}.tsv", filled=True) for name in ("train", "val", "test")]
        found = [pair for part in parts for pair in part]
        split = np.split(np.arange(len(found)), np.cumsum([len(part) for part in parts])[:-1])
    else:
        found = read_tsv(run.data, filled=True)
        split = split_at_random(len(found), (0.8, 0.1, 0.1), run.seed)
    sources, targets = ([words(pair[k]) for pair in found] for k in (0, 1))
    run.source(f"{run.data}: {len(found):,} sentence pairs, {len(split[0]):,} to train on, {len(split[2]):,} to test")
    return Pairs(sources, targets, *split)


def main(run: Experiment) -> None:
    pairs = pairs_of(run)
    rare = 2 if run.data else 1  # words that occur once are unknown
    read = Tokens.of((pairs.sources[i] for i in pairs.train), min_count=rare)
    write = Tokens.of((pairs.targets[i] for i in pairs.train), min_count=rare, special=(PAD, UNKNOWN, BEGIN, END))
    sources = [read.encode(s) for s in pairs.sources]
    targets = [write.encode(t, begin=True, end=True) for t in pairs.targets]
    ends = {"begin": write[BEGIN], "end": write[END], "length": max(len(targets[i]) for i in pairs.train)}
    batches = Batches([len(sources[i]) for i in pairs.train], 64, seed=run.seed)

    def greedy(model: Translator, numbers: np.ndarray) -> list[list[str]]:
        found: dict[int, list[str]] = {}
        for part in Batches([len(sources[i]) for i in numbers], 250).epoch():
            step, first = model.reader(*pad_sequences([sources[i] for i in numbers[part]]))
            ids = greedy_search(step, first, count=len(part), **ends)
            found |= zip(part.tolist(), map(write.decode, ids), strict=True)
        return [found[k] for k in range(len(numbers))]

    def beam(model: Translator, i: int) -> list[str]:
        step, first = model.reader(sources[i][:, None], np.array([len(sources[i])]))
        return write.decode(beam_search(step, first, width=5, penalty=0.6, **ends)[0][0])

    models: dict[str, tuple[Translator, Fit]] = {}
    for kind in ("no", "dot", "additive"):
        tr.manual_seed(run.seed)
        model = Translator(len(read), len(write), kind, 256 if run.data else 64, 0.3 if run.data else 0.0)
        model.to(run.device)

        def cost(numbers: np.ndarray, model: Translator = model) -> tr.Tensor:
            """Teacher forcing: at each step the decoder is given the true tokens up to it, and scored on the next."""
            x, lengths = pad_sequences([sources[i] for i in numbers])
            y, _ = pad_sequences([targets[i] for i in numbers], write[PAD])
            states, mask, h = model.encode(x, lengths)
            return F.cross_entropy(model.decode(y[:-1], h, states, mask)[0], y[1:], ignore_index=write[PAD])

        def loss(step: int, cost=cost) -> tuple[tr.Tensor, int]:
            batch = pairs.train[batches[step]]
            return cost(batch), len(batch)

        def evaluate(model=model, cost=cost) -> dict[str, float]:
            some = pairs.validation[:500]
            return {"held_out_loss": cost(some).item(), "right": exact(greedy(model, some), pairs, some)}

        lr, evaluations = 1e-3 if run.data else 4e-3, 6 if run.quick else 20
        models[kind] = model, run.fit(f"{kind} attention", model, loss, evaluate, lr=lr, evaluations=evaluations)

    few = pairs.test[: 50 if run.quick else 500]  # the beam goes sentence by sentence
    score = bleu if run.data else exact
    table, right = [], {}
    for kind, (model, fit) in models.items():
        answers = greedy(model, pairs.test)
        right[kind] = score(answers, pairs, pairs.test)
        shown = right[kind], score(answers[: len(few)], pairs, few), score([beam(model, i) for i in few], pairs, few)
        table.append([kind, fit.parameters, *(f"{value:.2f}" for value in shown), f"{fit.seconds:.0f}"])
    what = "BLEU of lower-cased words" if run.data else "Dates that are right in all ten characters, in %"
    columns = ["attention", "parameters", "greedy", f"first {len(few)}", "beam of 5", "seconds"]
    run.table(f"{what}: {len(pairs.test):,} that it has never seen", columns, table)
    for kind in ("dot", "additive"):
        run.expect(f"{kind} attention: exact matches in %", right[kind], at_least=70 if run.quick else 98)
        run.expect(f"{kind} attention, ahead of none by", right[kind] - right["no"], at_least=50 if run.quick else 5)
    run.note(
        f"Without attention {right['no']:.1f} after as many steps, with it {max(right.values()):.1f}: one vector must "
        "carry all that was read, and the decoder has to unpack it."
    )
    draw_attention(run, models["additive"][0], pairs, sources, targets)
    draw_learning(run, {name: fit for name, (_, fit) in models.items()})


def exact(answers: list[list[str]], pairs: Pairs, numbers: np.ndarray) -> float:
    """How many of a hundred answers are right to the last token."""
    return 100 * float(np.mean([answer == pairs.targets[i] for answer, i in zip(answers, numbers, strict=True)]))


def bleu(answers: list[list[str]], pairs: Pairs, numbers: np.ndarray) -> float:
    """BLEU by sacrebleu, of words as they were split here."""
    from sacrebleu import corpus_bleu

    truth = [" ".join(pairs.targets[i]) for i in numbers]
    return corpus_bleu([" ".join(answer) for answer in answers], [truth], tokenize="none").score


def draw_attention(run: Experiment, model: Translator, pairs: Pairs, read: list, written: list) -> None:
    """Where the decoder looks for each token that it writes, for test pairs of different looks."""
    looks = [
        lambda text: len(text) > 28,  # weekday, month and all
        lambda text: text[0].isdigit() and text[-1].islower(),  # the weekday last, as in Turkish
        lambda text: text[-1].isdigit() and text[0].isalpha() and "," in text,  # American: the month first
    ]
    if run.data:
        looks = [lambda text, most=most: len(text.split()) <= most for most in (6, 9, 12)]
    texts = {i: ("" if not run.data else " ").join(pairs.sources[i]) for i in pairs.test}
    chosen = [next((i for i, text in texts.items() if look(text)), pairs.test[0]) for look in looks]
    with run.picture("attention.png", "Where additive attention looks for each token that it writes.", (9, 8.2)) as fig:
        for axes, i in zip(fig.subplots(3), chosen, strict=True):
            with tr.no_grad():
                states, mask, h = model.encode(read[i][:, None], np.array([len(read[i])]))
                _, _, weights = model.decode(written[i][:-1, None], h, states, mask)
            image = axes.imshow(weights.numpy()[0, :-1], cmap="Blues", vmin=0, vmax=1, aspect="auto")
            turn = 40 if run.data else 0
            axes.set_xticks(range(len(pairs.sources[i])), pairs.sources[i], rotation=turn, fontsize=12)
            axes.set_yticks(range(len(pairs.targets[i])), pairs.targets[i], fontsize=12)
            axes.tick_params(length=0)
            axes.set_ylabel("written")
        axes.set_xlabel("read")
        fig.colorbar(image, ax=fig.axes, label="weight", shrink=0.4, pad=0.01)


def draw_learning(run: Experiment, fits: dict[str, Fit]) -> None:
    """What the three have learnt after so many steps."""
    with run.picture("learning.png", "With attention it learns in a fraction of the steps.", (9, 4)) as fig:
        axes = fig.subplots()
        for (name, fit), colour in zip(fits.items(), ("#8a8a8a", "#d9622b", "#3b6fb6"), strict=True):
            records = [r for r in fit.records if "right" in r]
            y = [r["held_out_loss"] if run.data else r["right"] for r in records]
            axes.plot(
                [r["step"] for r in records], y, color=colour, marker="o", markersize=4, label=f"{name} attention"
            )
        axes.set_xlabel("training step")
        axes.set_ylabel("held-out loss, nats per token" if run.data else "held-out dates written right, %")
        axes.grid(axis="y", color="#ececec")
        axes.legend(frameon=False)


if __name__ == "__main__":
    about = "a TSV file of sentence pairs (no header), or a folder with train.tsv, val.tsv and test.tsv"
    sys.exit(experiment(main, steps=2000, quick=220, data=about, fetch="multi30k"))
