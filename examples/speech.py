"""Digits spoken in a row, and nobody says where one ends and the next begins.

A string of digits is a sound: a hundred pieces in which the ear's bands of pitch are loud or quiet. A bidirectional
LSTM says of each piece which digit it hears, or none (blank); the CTC loss (Graves et al. 2006) asks only that the
right digits come out in the right order, and sums over all the ways in which they can be spread over time. So what
the network learns besides, untold, is where each digit is spoken. The picture shows it.

The voices are synthetic (examples/common/voices.py). Each has its pitch, size of throat, speed, breath and background
noise, and those of the test have not been heard before. The baseline is what telephones did before networks: templates
of each digit, stretched and joined by dynamic programming (Ney 1984).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

import tinygrad_rnn as tr
from examples.common.baselines import join_templates
from examples.common.experiment import Experiment, experiment
from examples.common.plots import BLUE, GREY, INK, ORANGE
from examples.common.shapes import few_shapes
from examples.common.use import Answer, OnDevice, Use, Used
from examples.common.voices import DIGITS, RATE, Utterance, Voice, speak, write_wav
from tinygrad_rnn import nn
from tinygrad_rnn.data import Batches, log_mel, pad_sequences, read_sound, read_waveforms
from tinygrad_rnn.decoding import ctc_beam_search, ctc_best_path
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import error_rate

BEAM = 10  # labellings that are followed at once


class Listener(nn.Module):
    """A convolution that halves the steps, a bidirectional LSTM, then log-probabilities: blank, or one of the words."""

    def __init__(self, bands: int, words: int, hidden: int = 96) -> None:
        self.convolution = nn.Conv1d(bands, hidden, 5, stride=2, padding=2)
        self.lstm = nn.LSTM(hidden, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 1 + words)

    def forward(self, x: tr.Tensor, lengths: np.ndarray) -> tuple[tr.Tensor, np.ndarray]:
        """Pieces (T, B, bands) and their numbers (B,) give log-probabilities (T', B, 1 + words), and how many count."""
        y = tr.relu(self.convolution(tr.transpose(x, (1, 2, 0))))
        halves = (lengths + 1) // 2
        y, _ = self.lstm(tr.transpose(y, (2, 0, 1)), lengths=halves)
        return tr.log_softmax(self.head(y), axis=-1), halves


class Data(NamedTuple):
    """Strings of words to train on, to choose by and to test; single words of those to train on; the rate."""

    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]
    single: list[Utterance]
    rate: int


def generated(run: Experiment) -> Data:
    """Strings of one to five digits by synthetic voices, each of its own."""
    rng = np.random.default_rng((run.seed, 1))
    sizes = (400, 60, 150) if run.quick else (2400, 150, 500)

    def strings(count: int) -> list[Utterance]:
        said = [rng.choice(list(DIGITS), rng.integers(1, 6)).tolist() for _ in range(count)]
        return [speak(words, Voice.draw(rng), rng) for words in said]

    parts = [strings(count) for count in sizes]
    single = [speak([word], Voice.draw(rng), rng) for word in DIGITS for _ in range(6 if run.quick else 16)]
    run.source(
        f"generated: strings of one to five spoken digits, synthesised from formants, a new voice for each: "
        f"{sizes[0]:,} to train on, {sizes[2]:,} to test"
    )
    return Data(*parts, single, RATE)


def recorded(run: Experiment) -> Data:
    """The user's recordings of single words, glued together to strings; those of the test are in no other part."""
    found = read_waveforms(run.data)
    rng = np.random.default_rng((run.seed, 2))
    split: tuple[list, list, list] = [], [], []
    single = []

    def glued(numbers: np.ndarray) -> Utterance:
        words = [found[i] for i in numbers]
        ends = np.cumsum([len(word.samples) for word in words]) / words[0].rate
        return Utterance(np.concatenate([word.samples for word in words]), [w.label for w in words], ends.tolist())

    for name in sorted({word.label for word in found}):
        said = rng.permutation([i for i, word in enumerate(found) if word.label == name])
        if len(said) < 3:
            raise InputError(f"{run.data}: {len(said)} of {name!r}: 3 or more are to be trained on, chosen by, tested")
        tenth = max(1, len(said) // 10)
        for part, numbers in zip(split, np.split(said, [-2 * tenth, -tenth]), strict=True):
            part += numbers.tolist()
        single += [glued([i]) for i in said[: -2 * tenth][: 6 if run.quick else 16]]

    def strings(numbers: list[int], count: int) -> list[Utterance]:
        return [glued(rng.choice(numbers, rng.integers(1, 6))) for _ in range(count)]

    if found[0].rate < 2000:
        raise InputError(f"{run.data}: recordings at {found[0].rate} Hz: speech needs 2,000 at least")
    run.source(f"{run.data}: {len(found):,} recordings of words, glued together to strings of one to five")
    return Data(*map(strings, split, (400, 60, 150) if run.quick else (2400, 150, 500)), single, found[0].rate)


def heard(samples: np.ndarray, rate: int) -> np.ndarray:
    """A sound as the network gets it, (T, 32): how loud it is, and how the room sounds, is no matter."""
    x = log_mel(samples, rate, bands=32)
    return 0.5 * (x - x.mean(axis=0))


def listen(
    on: OnDevice, model: Listener, sounds: list[np.ndarray], names: Sequence[str], width: int = 0
) -> list[list[str]]:
    """What the network hears: the best path, or the best labelling of a prefix beam."""
    found = []
    for k in range(0, len(sounds), 50):
        x, lengths = pad_sequences(sounds[k : k + 50])
        with tr.no_grad():
            log_p, steps = model(on.tensor(x), lengths)
        beams = ctc_beam_search(log_p, steps, width=width) if width else []
        found += [beam[0][0] for beam in beams] if width else ctc_best_path(log_p, steps)
    return [[names[i - 1] for i in labels] for labels in found]


def main(run: Experiment) -> None:
    data = recorded(run) if run.data else generated(run)
    names = sorted({word for said in data.train for word in said.words})
    ids = {name: k for k, name in enumerate(names, 1)}  # 0 is the blank

    train, validation, test, single = ([heard(said.samples, data.rate) for said in part] for part in data[:4])
    sizes = {"bands": 32, "words": len(names)}
    model = Listener(**sizes).to(run.device)
    batches = Batches([len(x) for x in train], 32, seed=run.seed)
    multiple, most = few_shapes(train), max(len(said.words) for said in data.train)

    def arrays(sounds: list[np.ndarray], said: list[Utterance]) -> tuple[tr.Tensor, np.ndarray, np.ndarray, np.ndarray]:
        """Pieces (T, B, bands), their numbers (B,), the words (B, S), and their numbers (B,)."""
        x, lengths = pad_sequences(sounds, multiple=multiple)
        words = [[ids[word] for word in one.words] for one in said]
        targets, counts = pad_sequences(words, batch_first=True, multiple=most)
        return run.tensor(x), lengths, targets, counts

    def batch(step: int) -> tuple[tuple, int]:
        at = batches[step]
        return arrays([train[i] for i in at], [data.train[i] for i in at]), len(at)

    def loss(x: tr.Tensor, lengths: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> tr.Tensor:
        log_p, steps = model(x, lengths)
        return F.ctc_loss(log_p, targets, steps, counts, zero_infinity=True)  # some may be too short for their words

    def wrong(answers: list[list[str]], said: list[Utterance]) -> float:
        return 100 * error_rate(answers, [one.words for one in said])

    def evaluate() -> dict[str, float]:
        held_out = loss(*arrays(validation, data.validation)).item()
        return {"held_out_loss": held_out, "token_error": wrong(listen(run, model, validation, names), data.validation)}

    use = {"sizes": sizes, "words": names, "rate": data.rate}
    fit = run.fit("BiLSTM with CTC", model, batch, loss, evaluate, lr=6e-3, use=use)

    templates = [(said.words[0], x) for said, x in zip(data.single, single, strict=True)]
    few = data.validation[:40]
    tried = {p: wrong([join_templates(x, templates, p) for x in validation[:40]], few) for p in (-20, 0, 10, 20, 40)}
    penalty = min(tried, key=tried.__getitem__)
    counts = {name: sum(said.words.count(name) for said in data.train) for name in names}
    often = max(names, key=counts.__getitem__)
    beam, path = (wrong(listen(run, model, test, names, width), data.test) for width in (BEAM, 0))
    joined = wrong([join_templates(x, templates, penalty) for x in test], data.test)
    table = [
        ["BiLSTM with CTC, prefix beam of 10", fit.parameters, f"{beam:.2f}"],
        ["BiLSTM with CTC, best path", fit.parameters, f"{path:.2f}"],
        [f"{len(templates)} templates joined", sum(x.size for x in single), f"{joined:.2f}"],
        [f"always “{often}”", 0, f"{wrong([[often]] * len(test), data.test):.2f}"],
    ]
    run.table(f"Token error rate: {len(test)} strings never heard", ["method", "numbers", "error in %"], table, best=0)
    simple = {name: float(error) for name, _, error in table}
    run.verdict("Token error rate in %", simple, [row[0] for row in table[2:]], least=True)
    run.expect("token error rate of the beam in %", beam, at_most=30 if run.quick else 5)
    run.expect("templates, behind the beam by", joined - beam, at_least=5)

    def alignment(x: np.ndarray, said: Utterance) -> np.ndarray:
        """How probable each word is at each step (T', 1 + words), given the string: minus the loss's gradient."""
        with tr.no_grad():
            log_p, steps = model(run.tensor(x[:, None]), np.array([len(x)]))
        leaf = tr.Tensor(log_p.numpy(), requires_grad=True)
        targets = [ids[word] for word in said.words]
        F.ctc_loss(leaf, targets, steps, [len(targets)], reduction="sum").backward()
        return -leaf.grad.numpy()[:, 0]

    longest = max(range(min(50, len(test))), key=lambda i: len(set(data.test[i].words)))
    draw(run, test[longest], data.test[longest], alignment(test[longest], data.test[longest]), names)
    write_wav(run.out / "sample.wav", data.test[longest].samples, data.rate)
    run.try_with("--input", file="sample.wav")


def draw(run: Experiment, x: np.ndarray, said: Utterance, alignment: np.ndarray, names: list[str]) -> None:
    """A spectrogram, and below it where the network heard which word."""
    seconds = len(x) * 0.016
    with run.picture(
        "alignment.png", "A string as the network gets it, and when it hears which word.", (9, 5.6)
    ) as fig:
        above, below = fig.subplots(2, sharex=True, height_ratios=(3, 2))
        above.imshow(x.T, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, x.shape[1]))
        above.set_ylabel("band of pitch")
        steps = (np.arange(len(alignment)) + 0.5) * 0.032
        below.plot(steps, alignment[:, 0], color=GREY, linewidth=1)
        for word in sorted(set(said.words)):
            p = alignment[:, 1 + names.index(word)]
            below.fill_between(steps, p, color=BLUE, alpha=0.8, linewidth=0)
            for peak in np.flatnonzero((p > 0.3) & (p >= np.pad(p, 1)[2:]) & (p > np.pad(p, 1)[:-2])):
                below.annotate(word, (steps[peak], 1.05), ha="center", color=INK)
        for start, end, word in zip([0.0, *said.ends], said.ends, said.words, strict=False):
            above.annotate(word, ((start + end) / 2, x.shape[1] + 0.5), ha="center", annotation_clip=False)
            for axes in (above, below):
                axes.axvline(end, color=ORANGE, linewidth=1, linestyle="--")
        below.set(ylim=(0, 1.2), yticks=(0, 0.5, 1), xlim=(0, seconds), xlabel="seconds")
        below.set_ylabel("probability (line: blank)")


def answer(used: Used) -> Iterator[Answer]:
    """The words in each recording, by a prefix beam search."""
    kept = used.models[0]
    model, rate = kept.load(Listener), kept["rate"]
    for file in used.files():
        samples, found = read_sound(file)
        if found != rate:
            raise InputError(f"{file}: {found:,} samples a second, and this run hears {rate:,}: resample it")
        [said] = listen(used, model, [heard(samples, rate)], kept["words"], BEAM)
        seconds = len(samples) / rate
        content = {"file": str(file), "seconds": round(seconds, 3), "words": said}
        yield Answer(f"{' '.join(said) or '(no word)'}  {file}, {seconds:.1f} s", content)


USE = Use(answer, files="sounds (WAV, FLAC, Ogg), of words that it was trained on")

if __name__ == "__main__":
    about = "a folder of sounds (WAV, FLAC, Ogg), one word each, called LABEL_ANYTHING.wav as 7_jackson_32.wav"
    sys.exit(experiment(main, steps=1200, quick=280, data=about, fetch="fsdd", use=USE))
