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

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import tinygrad_rnn as tr
from examples.common.dates import FORMATS, LANGUAGES, dates
from examples.common.experiment import Experiment, Fit, experiment
from examples.common.plots import CELLS, draw_curves, draw_weights, tones
from examples.common.shapes import few_shapes
from examples.common.use import Answer, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.data import Batches, WordVocabulary, pad_sequences, read_parts, read_tsv, split_at_random, words
from tinygrad_rnn.data.vocabularies import BEGIN, END, PAD, UNKNOWN
from tinygrad_rnn.decoding import beam_search, greedy_search, one_step
from tinygrad_rnn.nn import functional as F

BEAM = {"width": 5, "penalty": 0.6}
Pairs = list[tuple[list[str], list[str]]]  # sentences and their translations, as tokens


class Translator(nn.Module):
    """Encoder, decoder and, unless `attention` is "no", what looks from one to the other."""

    def __init__(self, sources: int, targets: int, attention: str, size: int, dropout: float) -> None:
        self.source = nn.Embedding(sources, size // 2)
        self.target = nn.Embedding(targets, size // 2)
        self.encoder = nn.GRU(size // 2, size, bidirectional=True)
        self.bridge = nn.Linear(2 * size, size)
        self.decoder = nn.GRU(size // 2, size)
        kinds = {"dot": nn.DotAttention, "additive": partial(nn.AdditiveAttention, hidden_size=size)}
        self.attention = kinds[attention](size, 2 * size) if attention in kinds else None
        self.combine = nn.Linear(size + (2 * size if self.attention else 0), size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, targets)

    def encode(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[tr.Tensor, tr.Tensor, tr.Tensor]:
        """Ids (S, B) -> states (S, B, 2H) to look at, their mask (S, B), and the decoder's first state (1, B, H)."""
        states, last = self.encoder(self.dropout(self.source(ids)), lengths=lengths)
        first = tr.tanh(self.bridge(tr.concatenate([last[0], last[1]], axis=-1)))
        return states, F.sequence_mask(lengths, len(ids), device=states.device), tr.expand_dims(first, 0)

    def decode(self, ids: np.ndarray, states: tr.Tensor, mask: tr.Tensor, h: tr.Tensor) -> tuple:
        """What was written so far, ids (L, B) -> scores of what comes next (L, B, V), the state, the weights (B, L, S).

        s_t = GRU(y_{t-1}, s_{t-1}),   scores = W tanh(U [s_t | context]),   context = Σ weight · state
        """
        y, h = self.decoder(self.dropout(self.target(ids)), h)
        weights = None
        if self.attention:
            context, weights = self.attention(y, states, mask=mask)
            y = tr.concatenate([y, context], axis=-1)
        return self.output(self.dropout(tr.tanh(self.combine(y)))), h, weights

    def reader(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[Callable, tr.Tensor]:
        """What the searches take: a step of the decoder, the state before the first."""
        states, mask, first = self.encode(ids, lengths)

        def write(last: np.ndarray, h: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
            rows = np.arange(last.shape[1]) % ids.shape[1]  # in a beam, all beginnings see the one sentence
            return self.decode(last, states[:, rows], mask[:, rows], h)[:2]

        return one_step(write), first


def pairs_of(run: Experiment) -> list[Pairs]:
    """The user's sentences, or dates of a hundred years in some language: to train on, to choose by, to test with."""
    if run.data:
        parts = read_parts(run.data, lambda file: read_tsv(file, encoding=run.encoding, filled=True), seed=run.seed)
        import sacrebleu  # noqa: F401  (before hours of training, not after)

        counts = [len(part) for part in parts]
        run.source(f"{run.data}: {sum(counts):,} sentence pairs, {counts[0]:,} to train on, {counts[2]:,} to test")
        return [[(words(source), words(target)) for source, target in part] for part in parts]
    found = dates(6000 if run.quick else 12000, np.random.default_rng((run.seed, 1)))
    cuts = split_at_random(len(found), (0.8, 0.05, 0.15), run.seed)  # of days: none is in two parts in any language
    run.source(
        f"generated: {len(found):,} dates from 1950 to 2049 in {len(LANGUAGES)} languages and {len(FORMATS)} formats "
        f"({len(cuts[0]):,} to train on, {len(cuts[2]):,} others to test), by Babel's locale data"
    )
    return [[(list(found[i][0]), list(found[i][1])) for i in cut] for cut in cuts]


def main(run: Experiment) -> None:
    train, validation, test = pairs_of(run)
    size, dropout, lr = (256, 0.3, 1e-3) if run.data else (64, 0.0, 4e-3)
    by = "words" if run.data else "characters"
    rare = 2 if run.data else 1  # words that occur once are unknown
    read = WordVocabulary.of((source for source, _ in train), min_count=rare)
    write = WordVocabulary.of((target for _, target in train), min_count=rare, special=(PAD, UNKNOWN, BEGIN, END))
    ends = {"begin": write[BEGIN], "end": write[END], "length": 2 + max(len(target) for _, target in train)}
    batches = Batches([len(source) for source, _ in train], 64, seed=run.seed)
    multiples = few_shapes([x for x, _ in train]), few_shapes([(BEGIN, *y, END) for _, y in train])

    def arrays(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids to be read (S, B), their lengths (B,), and ids to be written, between begin and end, (L, B)."""
        written = [write.encode(target, begin=True, end=True) for _, target in pairs]
        y, _ = pad_sequences(written, write[PAD], multiple=multiples[1])
        return *pad_sequences([read.encode(source) for source, _ in pairs], multiple=multiples[0]), y

    def greedy(model: Translator, pairs: Pairs) -> list[list[str]]:
        found: dict[int, list[str]] = {}
        for part in Batches([len(source) for source, _ in pairs], 250).epoch():
            step, first = model.reader(*arrays([pairs[i] for i in part])[:2])
            ids = greedy_search(step, first, count=len(part), **ends)
            found |= zip(part.tolist(), map(write.decode, ids), strict=True)
        return [found[k] for k in range(len(pairs))]

    def beam(model: Translator, pairs: Pairs) -> list[list[str]]:
        found = [beam_search(*model.reader(*arrays([pair])[:2]), **BEAM, **ends) for pair in pairs]
        return [write.decode(best) for (best, _), *_ in found]

    models: dict[str, tuple[Translator, Fit]] = {}
    for kind in ("no", "dot", "additive"):
        tr.manual_seed(run.seed)
        sizes = {"sources": len(read), "targets": len(write), "attention": kind, "size": size, "dropout": dropout}
        model = Translator(**sizes).to(run.device)

        def batch(step: int) -> tuple[tuple, int]:
            return arrays([train[i] for i in batches[step]]), len(batches[step])

        def loss(x: np.ndarray, lengths: np.ndarray, y: np.ndarray, model=model) -> tr.Tensor:
            """Teacher forcing: at each step the decoder is given the true tokens up to it, and scored on the next."""
            scores, _, _ = model.decode(y[:-1], *model.encode(x, lengths))
            return F.cross_entropy(scores, y[1:], ignore_index=write[PAD])

        def evaluate(model=model, loss=loss, some=validation[:250]) -> dict[str, float]:
            return {"held_out_loss": loss(*arrays(some)).item(), "right": exact(greedy(model, some), some)}

        evaluations = 6 if run.quick else 20
        use = {"sizes": sizes, "by": by, "read": read.tokens, "write": write.tokens, "length": ends["length"]}
        fit = run.fit(f"{kind} attention", model, batch, loss, evaluate, lr=lr, evaluations=evaluations, use=use)
        models[kind] = model, fit

    few = test[: 50 if run.quick else 500]  # the beam goes sentence by sentence
    score = bleu if run.data else exact
    table, right = [], {}
    for kind, (model, fit) in models.items():
        answers = greedy(model, test)
        right[kind] = score(answers, test)
        shown = right[kind], score(answers[: len(few)], few), score(beam(model, few), few)
        table.append([kind, fit.parameters, *(f"{value:.2f}" for value in shown), f"{fit.seconds:.0f}"])
    what = "BLEU of lower-cased words" if run.data else "Dates that are right in all ten characters, in %"
    columns = ["attention", "parameters", "greedy", f"first {len(few)}", "beam of 5", "seconds"]
    run.table(f"{what}: {len(test):,} that it has never seen", columns, table)
    claim(run, right)
    run.try_with("--text", " ".join(test[0][0]) if run.data else "".join(test[0][0]))
    draw_attention(run, models["additive"][0], test, arrays)
    draw_learning(run, {f"{kind} attention": fit for kind, (_, fit) in models.items()})


def claim(run: Experiment, right: dict[str, float]) -> None:
    """What is expected of attention, and what it is worth, of a hundred answers."""
    both = ["additive", "dot"]
    for kind in [max(both, key=right.__getitem__)] if run.quick else both:  # a glance may be too short for one of them
        run.expect(f"{kind} attention: exact matches in %", right[kind], at_least=70 if run.quick else 98)
        run.expect(f"{kind} attention, ahead of none by", right[kind] - right["no"], at_least=50 if run.quick else 5)
    figure = "BLEU" if run.data else "Right to the last character, in %"
    said = (
        f"{figure}, after as many steps: without attention {right['no']:.1f}, with it {max(map(right.get, both)):.1f}"
    )
    if not run.data and max(map(right.get, both)) > right["no"]:
        said += ": one vector must carry all that was read, and the decoder has to unpack it"
    run.note(f"{said}.")


def exact(answers: list[list[str]], pairs: Pairs) -> float:
    """How many of a hundred answers are right to the last token."""
    return 100 * float(np.mean([answer == target for answer, (_, target) in zip(answers, pairs, strict=True)]))


def bleu(answers: list[list[str]], pairs: Pairs) -> float:
    """BLEU by sacrebleu, of words as they were split here."""
    from sacrebleu import corpus_bleu

    truth = [" ".join(target) for _, target in pairs]
    return corpus_bleu([" ".join(answer) for answer in answers], [truth], tokenize="none").score


def draw_attention(run: Experiment, model: Translator, pairs: Pairs, arrays: Callable) -> None:
    """Where the decoder looks for each token that it writes, for test pairs of different looks."""
    kinds = (".{29,}", r"\d.*[a-z]", r"[A-Z].*\d, \d+")  # long; the weekday last (Turkish); the month first (American)
    chosen = [next((pair for pair in pairs if re.fullmatch(look, "".join(pair[0]))), pairs[0]) for look in kinds]
    if run.data:  # a short one, one of medium length, a longer one
        chosen = [sorted(pairs, key=lambda pair: len(pair[0]))[k * len(pairs) // 4] for k in (1, 2, 3)]
    with run.picture("attention.png", "Where additive attention looks for each token that it writes.", (9, 8.2)) as fig:
        for axes, pair in zip(fig.subplots(3), chosen, strict=True):
            x, lengths, y = arrays([pair])
            with tr.no_grad():
                _, _, weights = model.decode(y[:-1], *model.encode(x, lengths))
            looks = weights.numpy()[0, : len(pair[1]), : len(pair[0])]
            image = draw_weights(axes, looks, *pair, rotation=40 if run.data else 0)
        axes.set_xlabel("read")
        fig.colorbar(image, ax=fig.axes, label="weight", shrink=0.4, pad=0.01)


def draw_learning(run: Experiment, fits: dict[str, Fit]) -> None:
    """What the three have learnt after so many steps."""
    caption = "The held-out loss of the three while they learn."
    if not run.data:
        caption = "With attention it learns in a fraction of the steps."
    with run.picture("learning.png", caption, (9, 4)) as fig:
        curves = {name: fit.curve("held_out_loss" if run.data else "right") for name, fit in fits.items()}
        axes = fig.add_subplot(xlabel="training step")
        axes.set_ylabel("held-out loss, nats per token" if run.data else "held-out dates written right, %")
        draw_curves(axes, curves, tones(CELLS["GRU"], 3), marker="o", markersize=4)
        axes.grid(axis="y", color="#ececec")
        axes.legend(frameon=False)


def answer(used: Used) -> Iterator[Answer]:
    """The translation of each sentence, by a beam search, and its log-probability."""
    kept = used.models[0]
    model, write = kept.load(Translator), WordVocabulary(tuple(kept["write"]))
    read, by_words = WordVocabulary(tuple(kept["read"])), kept["by"] == "words"
    ends = {"begin": write[BEGIN], "end": write[END], "length": kept["length"]}
    for given in used.lines():
        tokens = words(given.text) if by_words else list(given.text)
        unknown = sorted({token for token in tokens if token not in read})
        best, score = beam_search(*model.reader(*pad_sequences([read.encode(tokens)])), **BEAM, **ends)[0]
        said = (" " if by_words else "").join(write.decode(best))
        content = {**given.content, "text": given.text, "translation": said, "score": round(float(score), 4)}
        aside = f"  (unknown: {' '.join(unknown)})" if unknown else ""
        yield Answer(f"{said}{aside}", {**content, "unknown": unknown})


USE = Use(answer, text="a sentence, or a date", files="text files, one sentence a line")

if __name__ == "__main__":
    about = "a TSV file of sentence pairs (no header), or a folder with train.tsv, val.tsv and test.tsv"
    sys.exit(experiment(main, steps=2000, quick=220, data=about, encoded=True, fetch="multi30k", use=USE))
