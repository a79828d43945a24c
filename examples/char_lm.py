"""A network that writes: an LSTM learns which character comes next, and is then asked for text.

At each step it gives a probability to every character. Minus the binary logarithm of that of the right one is how many
bits the character costs: the mean over text that it has never seen, bits per character, says how good it is, and is
comparable with what n-gram models need, and a file compressor. The text is cut into pieces, but the state is carried
from one to the next: gradients reach back to the beginning of a piece, memory further.

Then the same network writes in several ways. A low temperature, or only the k likeliest characters, is safe and dull;
a high one is lively and misspelt; and the likeliest text of all, which a beam search looks for, goes round in circles.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, experiment
from examples.common.plots import draw_text
from examples.common.use import Answer, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.cli.options import Numbers, whole
from tinygrad_rnn.data import Ids, Streams, Vocabulary, default_text, passage, read_text, split_held_out
from tinygrad_rnn.decoding import beam_search, generate, one_step
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.baselines import NGram, measure_baselines
from tinygrad_rnn.language.model import CharModel, CharModelConfig
from tinygrad_rnn.language.picture import draw_loss
from tinygrad_rnn.language.task import bits_per_char, character_bits
from tinygrad_rnn.nn import functional as F

STREAMS, STEPS = 16, 32  # so many places of the text are read at once, in pieces of so many characters
WRITTEN = 480  # characters of a sample; fewer with --quick


def main(run: Experiment) -> None:
    text = read_text(run.data, run.encoding) if run.data else default_text()
    if len(text) < 20_000:
        raise InputError(f"{run.data}: {len(text):,} characters are too few to learn from: 20,000 at least")
    vocabulary = Vocabulary.of(text)
    if len(vocabulary) < 2:
        raise InputError(f"{run.data}: all characters are {text[0]!r}: there is nothing to learn")
    ids = vocabulary.encode(text)
    before, test = split_held_out(ids, 0.1)
    train, choose = split_held_out(before, 0.05)
    run.source(
        f"{run.data or 'help pages of the standard library (pydoc_data.topics)'}: {len(train):,} characters to learn "
        f"from, {len(choose):,} to choose by, {len(test):,} to test with"
    )
    simple = simple_methods(vocabulary, before, test)  # some refuse what is too much for them

    model = CharModel(CharModelConfig(len(vocabulary), hidden=128 if run.quick else 256, dropout=0.1)).to(run.device)
    streams, held_out = Streams(train, STREAMS, STEPS, run.seed), passage(train, choose, batch=32)
    carried = None

    def batch(step: int) -> tuple[tuple, int]:
        chunk = streams[step]
        return (chunk.x, chunk.y, None if chunk.fresh else carried), chunk.y.size

    def loss(x: np.ndarray, y: np.ndarray, state: tuple | None) -> tuple[tr.Tensor, tuple]:
        scores, state = model(x, state)
        detached = tuple(part.detach() for part in state)  # its values go on, its graph does not
        return F.cross_entropy(scores, y), detached

    def keep(state: tuple) -> None:
        nonlocal carried
        carried = state

    def evaluate() -> dict[str, float]:
        return {"held_out_bits_per_char": bits_per_char(model, held_out)}

    how = {"keep": keep, "lr": 8e-3 if run.quick else 4e-3, "unit": "chars"}
    how["use"] = {"sizes": model.config.as_dict(), "characters": vocabulary.characters}
    fit = run.fit("LSTM", model, batch, loss, evaluate, **how)
    bits = {f"LSTM, {model.config.hidden} hidden units": bits_per_char(model, passage(before, test, batch=32))}
    network = next(iter(bits))
    bits |= simple
    ranking = sorted(bits, key=bits.get)
    rows = [[name, f"{bits[name]:.3f}"] for name in ranking]
    run.table("Bits per character of the test", ["", "bits"], rows, best=ranking.index(network))
    better = [name for name in ranking if bits[name] < bits[network]]
    run.note(f"Fewer bits per character than the network: {', '.join(better) or 'none of them'}.")
    against = "3-gram" if run.quick else "5-gram"
    run.expect(f"bits per character less than the {against}", bits[against] - bits[network], at_least=0.05)

    caption = "Bits per character of the part to choose by, while learning, and what n-grams and lzma need for it."
    records = [{**record, "bits_per_char": record["loss"] / math.log(2)} for record in fit.records]
    with run.picture("learning.png", caption, (9, 5)) as figure:
        draw_loss(figure, records, title=network, lines=simple_methods(vocabulary, train, choose))
    prompt = "The " if set("The ") <= set(vocabulary.characters) else text[: text.find(" ") + 1] or text[:1]
    samples = write(run, model, vocabulary, prompt, WRITTEN // 3 if run.quick else WRITTEN)
    rows, known = [], set(vocabulary.decode(before).split())
    costs = {}
    for name, sample in samples.items():
        costs[name] = surprise(model, vocabulary.encode(prompt), vocabulary.encode(sample))
        said = sample.split()[:-1]  # the last word may be cut off
        real = np.mean([word in known for word in said]) if said else math.nan
        again = np.mean([sample[k : k + 15] in sample[: k + 14] for k in range(len(sample) - 14)])
        rows.append([name, f"{costs[name].mean():.2f}", f"{real:.0%}", f"{again:.0%}"])
    run.table("What it writes", ["", "bits per character", "words of the text", "said before"], rows)
    beam, drawn = (costs[name].mean() for name in ("beam of 5", "temperature 1"))
    ratio = beam / drawn if drawn else 1.0
    run.expect("bits per character of the beam's text over those at temperature 1", ratio, at_most=0.6)
    draw_samples(run, prompt, samples, costs)
    run.try_with("--text", prompt, "--length", "200")


def simple_methods(vocabulary: Vocabulary, train: Ids, text: Ids) -> dict[str, float]:
    """The bits per character that n-gram models of `train`, and lzma, need for the `text` after it."""
    bits = {f"{n}-gram": NGram.fit(train, n, len(vocabulary)).bits(train, text) for n in (2, 5)}
    return bits | {baseline.name: baseline.bits_per_char for baseline in measure_baselines(vocabulary, train, text)}


def write(run: Experiment, model: nn.Module, vocabulary: Vocabulary, prompt: str, length: int) -> dict[str, str]:
    """A text for each way to choose the next character."""
    ways = {
        "temperature 0.3": {"temperature": 0.3},
        "temperature 0.7": {"temperature": 0.7},
        "temperature 1": {"temperature": 1.0},
        "temperature 1.4": {"temperature": 1.4},
        "top 3": {"temperature": 1.0, "top_k": 3},
    }
    found = {
        name: "".join(generate(model, vocabulary, prompt, length, seed=run.seed, **way)) for name, way in ways.items()
    }
    *first, last = vocabulary.encode(prompt).tolist()
    with tr.no_grad():
        state = model(np.array(first)[:, None])[1] if first else None
        ids, _ = beam_search(one_step(model), state, last, width=5, length=length)[0]
    return {**found, "beam of 5": vocabulary.decode(ids)}


def surprise(model: nn.Module, prompt: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How many bits each character costs (N,), after the prompt."""
    streams = passage(prompt, ids, batch=1, warm_up=len(prompt) - 1)
    return character_bits(model, streams)[streams.counted]


def draw_samples(run: Experiment, prompt: str, samples: dict[str, str], costs: dict[str, np.ndarray]) -> None:
    """The texts side by side, each character on a ground that is the darker, the more bits it costs."""
    columns, lines = 40, 12
    with run.picture("samples.png", "Six ways to write; the darker, the less expected.", (11, 6.2)) as figure:
        for k, (name, sample) in enumerate(samples.items()):
            axes = figure.add_subplot(2, 3, k + 1, xlim=(0, columns), ylim=(lines, -0.6))
            places, before = [], " "
            for c, cost in [*((c, 0.0) for c in prompt), *zip(sample, costs[name], strict=True)]:
                if not (c.isspace() and before.isspace()):  # one of several blanks is enough
                    places.append((c, cost))
                before = c
            shown = "".join(" " if c.isspace() else c for c, _ in places[: columns * lines])
            draw_text(axes, "\n".join(shown[i : i + columns] for i in range(0, len(shown), columns)), fontsize=7.5)
            axes.set_title(f"{name}: {costs[name].mean():.2f} bits per character", fontsize=10, loc="left")
            ground = np.zeros((lines, columns))
            ground.flat[: len(shown)] = [cost for _, cost in places[: len(shown)]]
            axes.imshow(ground, "Oranges", vmin=0, vmax=12, aspect="auto", extent=(0, columns, lines - 0.5, -0.5))


def answer(used: Used) -> Iterator[Answer]:
    """Each text, and what the network writes after it."""
    kept, options = used.models[0], used.options
    model = kept.load(lambda **sizes: CharModel(CharModelConfig(**sizes)))
    vocabulary = Vocabulary(kept["characters"])
    temperature = 0.7 if options.temperature is None else options.temperature
    for text in options.text:
        if not text:
            raise InputError("--text: there is nothing to go on with: a character or more")
        vocabulary.encode(text)  # an error names what it has never seen
        written = "".join(generate(model, vocabulary, text, options.length or WRITTEN, temperature, seed=options.seed))
        yield Answer(text + written, {"text": text, "written": written, "temperature": temperature})


def use_options(group: argparse._ActionsContainer) -> None:
    group.add_argument("--length", type=whole(1, 10**6), help=f"characters to write (default: {WRITTEN})")
    what = "the higher, the livelier; 0 takes the likeliest (default: 0.7)"
    group.add_argument("--temperature", type=Numbers(float, 0, 100, "must be a number from 0 to 100"), help=what)


USE = Use(answer, text="a text to go on with", options=use_options, allows=("seed",))

if __name__ == "__main__":
    sys.exit(experiment(main, steps=5000, quick=600, data="a text file", encoded=True, use=USE))
