"""The command: `tinygrad-rnn train` and `tinygrad-rnn generate`.

Wrong input is an InputError: one line on stderr and exit status 2. Everything heavier than argparse is
imported where it is used, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import InputError, NonFiniteError, TinygradRnnError

if TYPE_CHECKING:
    from rich.console import Console

    from .data.baselines import Baseline
    from .data.text import Vocabulary
    from .models import CharModel

PROGRAM = "tinygrad-rnn"
RATES = {"lstm": 6e-3, "gru": 3e-3, "rnn": 4e-3}  # the best of those tried; at 8e-3 a GRU of 256 units diverges

TRAIN_HELP = """\
Train a character model: a network that reads a text and learns to predict the next character.

The text is cut into --batch streams that are read side by side, --seq-len characters at a time. The
state of the network is carried from one piece to the next; gradients reach back to the beginning of
the piece (truncated back-propagation through time). The last tenth of the text is held out: the
model never learns from it, and the bits per character it needs there are what counts. Fewer is
better: 7 would be no idea at all, 2 is decent, 1 is very good."""

TRAIN_EXAMPLES = """\
examples:
  tinygrad-rnn train
      about a minute, on the text that comes with Python; into runs/lstm-1
  tinygrad-rnn train --text book.txt --out runs/book
      a text of your own
  tinygrad-rnn train --text *.txt --minutes 10 --hidden 512 --dropout 0.2
      a larger network, for ten minutes
  tinygrad-rnn train --model gru --layers 2 --steps 5000 --lr 0.003

With --steps, the same --seed, machine and --threads give the same model; --minutes ends by the clock.
Ctrl-C stops early and keeps the best model."""

GENERATE_HELP = "Write with a trained model, a character at a time. The same --seed writes the same text."

GENERATE_EXAMPLES = """\
examples:
  tinygrad-rnn generate runs/demo
  tinygrad-rnn generate runs/demo --prompt "The method " --length 1000 --temperature 0.5
  tinygrad-rnn generate runs/demo --temperature 0               always the likeliest character
  tinygrad-rnn generate runs/demo --top-k 5 --seed 7            only ever one of the 5 likeliest"""


class _Parser(argparse.ArgumentParser):
    """Mistakes are one line, and say where help is."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _number(kind: Callable[[str], float], low: float, high: float, what: str, open_low: bool = False) -> Any:
    """An argparse type: a number from `low` to `high`, and a sentence for everything else."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
            right = low < value <= high if open_low else low <= value <= high  # NaN is neither
        except ValueError:
            right = False
        if not right:
            raise argparse.ArgumentTypeError(f"{what}, not {text!r}")
        return value

    return parse


def _whole(low: int, high: int) -> Any:
    return _number(int, low, high, f"must be a whole number from {low:,} to {high:,}")


def _device(text: str) -> str:
    if text == "cpu" or text == "cuda" or (text.startswith("cuda:") and text[5:].isdecimal()):
        return text
    raise argparse.ArgumentTypeError(f"unknown device {text!r}: cpu, cuda or cuda:N")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    top = _Parser(
        prog=PROGRAM,
        description="Train recurrent networks that write text, and write with them.",
        epilog="tinygrad-rnn COMMAND --help explains a command, with examples.",
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    rates = ", ".join(f"{rate:g} for {model}" for model, rate in RATES.items())
    train = commands.add_parser(
        "train",
        help="train a character model on a text",
        description=TRAIN_HELP,
        epilog=TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = train.add_argument_group("what to read and where to write").add_argument
    add(
        "--text",
        nargs="+",
        metavar="FILE",
        help="text files, joined in this order (default: Python's help pages)",
    )
    add("--encoding", default="utf-8", help="of the text files (default: %(default)s)")
    add("--out", metavar="RUN", help="folder for the results (default: the first free runs/MODEL-N)")
    add("--replace", action="store_true", help="replace a run that --out already holds")
    add = train.add_argument_group("the network").add_argument
    add(
        "--model",
        choices=("rnn", "lstm", "gru"),
        default="lstm",
        help="kind of recurrent layer (default: %(default)s)",
    )
    add(
        "--hidden",
        type=_whole(1, 65536),
        default=256,
        metavar="H",
        help="hidden units (default: %(default)s)",
    )
    add(
        "--layers",
        type=_whole(1, 64),
        default=1,
        metavar="N",
        help="layers on top of one another (default: 1)",
    )
    add(
        "--embedding",
        type=_whole(1, 65536),
        default=64,
        metavar="E",
        help="numbers per character (default: 64)",
    )
    add(
        "--dropout",
        type=_number(float, 0, 0.99, "must be a number from 0 to 0.99"),
        default=0.1,
        metavar="P",
        help="part of the outputs dropped in training; more helps long runs on small texts (default: %(default)s)",
    )
    add = train.add_argument_group("the training").add_argument
    add(
        "--seq-len",
        type=_whole(1, 10**6),
        default=32,
        metavar="T",
        help="characters per piece (default: %(default)s)",
    )
    add(
        "--batch",
        type=_whole(1, 10**6),
        default=16,
        metavar="B",
        help="streams side by side (default: %(default)s)",
    )
    add(
        "--steps",
        type=_whole(1, 10**9),
        metavar="N",
        help="length of the training (default: 3600, about a minute)",
    )
    add(
        "--minutes",
        type=_number(float, 0, 10**6, "must be a number above 0", open_low=True),
        metavar="M",
        help="length of the training by the clock; with --steps, whichever comes first",
    )
    add(
        "--lr",
        type=_number(float, 0, 1e3, "must be a number above 0", open_low=True),
        metavar="R",
        help=f"highest learning rate of Adam; it warms up, then falls to 0 (default: {rates})",
    )
    add(
        "--clip",
        type=_number(float, 0, 1e9, "must be a number above 0", open_low=True),
        default=1.0,
        metavar="C",
        help="largest norm of a gradient (default: %(default)s)",
    )
    add("--seed", type=_whole(0, 2**32 - 1), default=0, metavar="S", help="of all that is random (default: 0)")
    add("--device", type=_device, default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    add(
        "--threads",
        type=_whole(1, 1024),
        metavar="N",
        help="threads of the matrix products (default: 1 for small networks, else all cores)",
    )
    train.set_defaults(run=_train)

    generate = commands.add_parser(
        "generate",
        help="write with a trained model",
        description=GENERATE_HELP,
        epilog=GENERATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = generate.add_argument
    add("folder", metavar="RUN", help="a folder that train has written")
    add("--prompt", default="", metavar="TEXT", help="what the text begins with (default: a new line)")
    add(
        "--length",
        type=_whole(0, 10**9),
        default=500,
        metavar="N",
        help="characters to write (default: %(default)s)",
    )
    add(
        "--temperature",
        type=_number(float, 0, 1e6, "must be a number from 0 up"),
        default=0.7,
        metavar="X",
        help="0: always the likeliest; 1: as likely as the model says; more: wilder (default: %(default)s)",
    )
    add("--top-k", type=_whole(1, 10**9), metavar="K", help="choose among the K likeliest characters only")
    add(
        "--seed",
        type=_whole(0, 2**32 - 1),
        default=0,
        metavar="S",
        help="of the choice (default: %(default)s)",
    )
    add("--threads", type=_whole(1, 1024), metavar="N", help="threads of the matrix products (default: 1)")
    generate.set_defaults(run=_generate)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 training diverged, 2 wrong input, 128 + the signal that
    ended it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character the terminal cannot show is no reason to stop
    try:
        args = parser().parse_args(argv)
        return int(args.run(args))
    except NonFiniteError as error:
        return _fail(str(error), 1)
    except TinygradRnnError as error:
        return _fail(str(error), 2)
    except MemoryError as error:
        return _fail(f"not enough memory: {error or 'choose a smaller --hidden, --batch or --seq-len'}", 2)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:  # the reader of a pipe has gone; let the interpreter's last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)


def _fail(message: str, status: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _version() -> str:
    from . import __version__

    return __version__


def _train(args: argparse.Namespace) -> int:
    from pathlib import Path

    from threadpoolctl import threadpool_limits

    from . import data, keep_freed_memory
    from .training.run import RunFolder, free_run

    steps = args.steps or (None if args.minutes else 3600)
    text = data.read_texts(args.text, args.encoding) if args.text else data.default_text()
    vocabulary = data.Vocabulary.of(text)
    train_ids, held_out = data.split_held_out(vocabulary.encode(text))
    streams = data.Streams(train_ids, args.batch, args.seq_len, args.seed)
    if not len(held_out):
        raise InputError(f"the text is too short: {len(text)} characters leave none to hold out")
    run = RunFolder(args.out if args.out else free_run(Path("runs"), args.model))
    run.check(args.replace)
    keep_freed_memory()
    args.lr = args.lr or RATES[args.model]
    args.threads = args.threads or _threads(args.batch, args.hidden)
    with threadpool_limits(args.threads):
        return _train_on(args, steps, run, vocabulary, streams, held_out)


def _threads(batch: int, hidden: int) -> int | None:
    """Threads for the matrix products where none are asked for: 1 for small ones, else None, all cores.

    The threads of a BLAS wait for each other by spinning. For the small products of a time step they gain little
    on an idle machine; beside one busy program two threads took 7 times as long as one (B = 16, H = 256).
    """
    return 1 if batch * hidden * hidden < 2**23 else None


def _train_on(
    args: argparse.Namespace, steps: int | None, run: Any, vocabulary: Vocabulary, streams: Any, held_out: Any
) -> int:
    from functools import partial

    from rich.console import Console

    from . import data, manual_seed, optim
    from .models import CharModel, CharModelConfig, load_model, save_model
    from .training import Budget, LoopState, MetricsLog, NextCharacter, display_for, read_metrics, train

    console = Console(highlight=False)
    say = partial(console.print, markup=False, soft_wrap=not console.is_terminal)
    manual_seed(args.seed)
    shape = CharModelConfig(len(vocabulary), args.model, args.embedding, args.hidden, args.layers, args.dropout)
    model = CharModel(shape)
    if args.device != "cpu":
        model.to(args.device)
    parameters = list(model.named_parameters())
    size = sum(p.size for _, p in parameters)
    source = ", ".join(map(str, args.text)) if args.text else "Python's help pages (pydoc_data.topics)"
    kind = f"{args.model.upper()}, {args.hidden} hidden units" + (f", {args.layers} layers" if args.layers > 1 else "")
    console.print(f"[bold]{kind}[/], {size:,} parameters")
    say(f"{len(streams.ids):,} characters to learn from, {len(held_out):,} held out: {source}")
    baselines = data.measure_baselines(vocabulary, streams.ids, held_out)
    if baselines:
        named = ", ".join(f"{b.name} {b.bits_per_char:.2f}" for b in baselines)
        say(f"bits per character to beat on the held-out text: {named}")

    task = NextCharacter(model, streams, data.passage(streams.ids, held_out, batch=64))
    run.create(_config(args, steps, shape.as_dict(), size, source, len(streams.ids), len(held_out)))

    def keep(state: LoopState, figures: dict[str, float]) -> None:
        save_model(run.checkpoints, "best", model, vocabulary, state.step, {"figures": figures})

    with MetricsLog(run.metrics) as metrics:
        try:
            outcome = train(
                task,
                optim.Adam(parameters, lr=args.lr),
                parameters,
                Budget(steps, args.minutes),
                clip=args.clip,
                log_every=max(1, (steps or 0) // 5000),
                display=display_for(console),
                metrics=metrics,
                keep_best=keep,
                note=(lambda: " ".join(_sample(model, vocabulary, 80).split())) if console.is_terminal else None,
            )
        except NonFiniteError as error:
            kept = f" (the best model so far is kept in {run.path})" if run.checkpoints.exists() else ""
            raise NonFiniteError(f"{error}{kept}") from None

    state, best = outcome.state, outcome.state.best
    if not state.best_step:
        say("Stopped before the first step: nothing was learnt, nothing kept.")
        return 128 + (outcome.stopped_by or 0)
    lines = {b.name: b.bits_per_char for b in baselines}
    pictures = _picture(run, read_metrics(run.metrics), f"{kind}: {best:.3f} bits per held-out character", lines)
    if outcome.stopped_by is not None:
        say(
            f"Stopped at step {state.step:,}. The best model, that of step {state.best_step:,} with "
            f"{best:.3f} bits per held-out character, is kept in {run.path}"
        )
        return 128 + outcome.stopped_by

    best_model, _, _ = load_model(run.checkpoints)
    console.print(f"\n[bold]A sample[/] [dim](temperature 0.7)[/]\n{'─' * min(console.width, 80)}")
    console.print(_sample(best_model, vocabulary, 600, args.seed).strip("\n"), markup=False, soft_wrap=True)
    console.print("─" * min(console.width, 80))
    _table(console, kind, best, baselines)
    say(f"{state.step:,} steps in {state.seconds:.0f} s; the best model is that of step {state.best_step:,}.")
    say(f"Written to {run.path}: config.json, metrics.jsonl, {pictures}checkpoints")
    say(f"More of it: {PROGRAM} generate {run.path}")
    return 0


def _config(
    args: argparse.Namespace,
    steps: int | None,
    model: dict[str, Any],
    size: int,
    source: str,
    train: int,
    held_out: int,
) -> dict[str, Any]:
    """What `config.json` says of a run."""
    import platform

    import numpy as np

    asked = {
        key: getattr(args, key) for key in ("batch", "seq_len", "minutes", "lr", "clip", "seed", "device", "threads")
    }
    return {
        "text": {"source": source, "encoding": args.encoding, "train": train, "held_out": held_out},
        "model": {**model, "parameters": size},
        "training": {"steps": steps, **asked},
        "versions": {PROGRAM: _version(), "python": platform.python_version(), "numpy": np.__version__},
    }


def _picture(run: Any, records: list[dict[str, Any]], title: str, lines: dict[str, float]) -> str:
    """Draw the learning curve if that is possible; returns what to say of it in a list of files."""
    from .training.plot import plot_loss

    try:
        plot_loss(run.picture, records, title=title, lines=lines)
    except ImportError as error:
        print(f"No loss.png: {error}")
        return ""
    return "loss.png, "


def _sample(model: CharModel, vocabulary: Vocabulary, length: int, seed: int = 0) -> str:
    from .decoding import generate

    training = model.training
    model.eval()
    try:
        return "".join(generate(model, vocabulary, length=length, temperature=0.7, seed=seed))
    finally:
        model.train(training)


def _table(console: Console, kind: str, bits: float, baselines: list[Baseline]) -> None:
    """The comparison on the held-out text, best first, and in words who wins."""
    from rich.table import Table

    table = Table(title="Bits per character of the held-out text", title_justify="left", title_style="bold")
    table.add_column("model")
    table.add_column("bits", justify="right")
    table.add_column("how")
    rows = [(b.bits_per_char, b.name, b.how, "") for b in baselines] + [(bits, kind, "this run", "bold cyan")]
    for value, name, how, style in sorted(rows):
        table.add_row(name, f"{value:.3f}", how, style=style)
    console.print(table)
    beaten = [b.name for b in baselines if b.bits_per_char > bits]
    winners = [b.name for b in baselines if b.bits_per_char <= bits]
    if beaten:
        console.print(f"The network beats {_and(beaten)}.")
    if winners:
        console.print(f"[bold]{_and(winners)}[/] {'wins' if len(winners) == 1 else 'win'} against the network here.")
    if any("lzma" in name for name in winners):
        console.print("[dim](lzma copies passages word for word that the text repeats; the network cannot.)[/]")


def _and(names: list[str]) -> str:
    """
    >>> _and(["a"]), _and(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _generate(args: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_limits

    from .decoding import generate
    from .models import load_model
    from .training.run import RunFolder

    run = RunFolder(args.folder)
    run.config()
    with threadpool_limits(args.threads or 1):  # one character is too little work to share
        model, vocabulary, _ = load_model(run.checkpoints)
        unseen = [c for c in args.prompt if c not in vocabulary.characters]
        if unseen:
            raise InputError(f"the model has never seen the character {unseen[0]!r} of the prompt")
        sys.stdout.write(args.prompt)
        for character in generate(model, vocabulary, args.prompt, args.length, args.temperature, args.top_k, args.seed):
            sys.stdout.write(character)
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
    return 0
