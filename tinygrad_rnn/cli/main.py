"""The command: `tinygrad-rnn train`, `generate`, `evaluate` and `doctor`.

Wrong input is an InputError: one line on stderr and exit status 2. Everything heavier than argparse is
imported where it is used, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from tinygrad_rnn.errors import CheckpointError, InputError, NonFiniteError, TinygradRnnError

if TYPE_CHECKING:
    from rich.console import Console

    from tinygrad_rnn.data.vocabularies import Vocabulary
    from tinygrad_rnn.language.baselines import Baseline
    from tinygrad_rnn.language.corpus import Corpus
    from tinygrad_rnn.language.model import CharModel
    from tinygrad_rnn.training.run import RunFolder

PROGRAM = "tinygrad-rnn"
MEASURED = 250_000  # held-out characters that an evaluation reads: enough for three digits, and soon done
RATES = {"lstm": 6e-3, "gru": 3e-3, "rnn": 4e-3}  # the best of those tried; at 8e-3 a GRU of 256 units diverges

# What `train` assumes. The parser leaves out what is not given, so that --resume can tell it from what is.
DEFAULTS: dict[str, Any] = {
    "text": None,
    "encoding": "utf-8",
    "out": None,
    "replace": False,
    "resume": None,
    "model": "lstm",
    "hidden": 256,
    "layers": 1,
    "embedding": 64,
    "dropout": 0.1,
    "seq_len": 32,
    "batch": 16,
    "steps": None,
    "minutes": None,
    "lr": None,
    "schedule": "cosine",
    "clip": 1.0,
    "patience": None,
    "save_every": 500,
    "seed": 0,
    "device": "cpu",
    "threads": None,
    "numba": False,
}
CHANGEABLE = (
    "text",
    "encoding",
    "steps",
    "minutes",
    "lr",
    "clip",
    "patience",
    "save_every",
    "device",
    "threads",
    "numba",
)

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

  tinygrad-rnn train --resume runs/book
      go on with a run that was stopped or killed
  tinygrad-rnn train --resume runs/book --steps 6000
      train a run of 3000 steps 3000 more

With --steps, the same --seed, machine and --threads give the same model; --minutes ends by the clock.
Ctrl-C finishes the step and saves. A resumed run goes on as if it had never stopped, bit for bit, even
after a crash (from the newest checkpoint: --save-every). If it gets another --steps or --minutes, the
learning rate goes on where the schedule of the new total is at that point."""

GENERATE_HELP = "Write with a trained model, a character at a time. The same --seed writes the same text."

GENERATE_EXAMPLES = """\
examples:
  tinygrad-rnn generate runs/demo
  tinygrad-rnn generate runs/demo --prompt "The method " --length 1000 --temperature 0.5
  tinygrad-rnn generate runs/demo --prompt "The " --temperature 0    always the likeliest character
  tinygrad-rnn generate runs/demo --top-k 5 --seed 7            only ever one of the 5 likeliest"""

EVALUATE_HELP = """\
Measure how well a trained model predicts a text: the bits per character it needs, the mean of -log2 of
the probabilities it gave to the characters that came. Fewer is better. The text may hold only
characters that the model has seen in training."""

EVALUATE_EXAMPLES = """\
examples:
  tinygrad-rnn evaluate runs/demo --text new.txt
  tinygrad-rnn evaluate runs/demo --text new.txt --per-line | sort -n | tail    the lines it found oddest"""

DOCTOR_HELP = """\
Show what this computer has for training: Python, NumPy, the library of its matrix products with the
kernels and threads it uses, variables that slow it down and by how much (measured, in about a second),
GPUs or what to install for them, and free memory."""


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
        argument_default=argparse.SUPPRESS,
    )
    add = train.add_argument_group("what to read and where to write").add_argument
    add("--text", nargs="+", metavar="FILE", help="text files, joined in this order (default: Python's help pages)")
    add("--encoding", help="of the text files (default: utf-8)")
    add("--out", metavar="RUN", help="folder for the results (default: the first free runs/MODEL-N)")
    add("--replace", action="store_true", help="replace a run that --out already holds")
    add(
        "--resume",
        metavar="RUN",
        help="go on with a run; of the other options only --steps, --minutes, --lr, --clip, --patience, "
        "--save-every, --threads, --numba, --device and --text (the same text at another place) can then be given",
    )
    add = train.add_argument_group("the network").add_argument
    add("--model", choices=("rnn", "lstm", "gru"), help="kind of recurrent layer (default: lstm)")
    add("--hidden", type=_whole(1, 65536), metavar="H", help="hidden units (default: 256)")
    add("--layers", type=_whole(1, 64), metavar="N", help="layers on top of one another (default: 1)")
    add("--embedding", type=_whole(1, 65536), metavar="E", help="numbers per character (default: 64)")
    add(
        "--dropout",
        type=_number(float, 0, 0.99, "must be a number from 0 to 0.99"),
        metavar="P",
        help="part of the outputs dropped in training; more helps long runs on small texts (default: 0.1)",
    )
    add = train.add_argument_group("the training").add_argument
    add("--seq-len", type=_whole(1, 10**6), metavar="T", help="characters per piece (default: 32)")
    add("--batch", type=_whole(1, 10**6), metavar="B", help="streams side by side (default: 16)")
    add(
        "--steps",
        type=_whole(1, 10**9),
        metavar="N",
        help="length of the training, those before a --resume included (default: 3000, about a minute)",
    )
    add(
        "--minutes",
        type=_number(float, 0, 10**6, "must be a number above 0, up to 1,000,000", open_low=True),
        metavar="M",
        help="length of the training by the clock; with --steps, whichever comes first",
    )
    add(
        "--lr",
        type=_number(float, 0, 1e3, "must be a number above 0, up to 1,000", open_low=True),
        metavar="R",
        help=f"highest learning rate of Adam; see --schedule (default: {rates})",
    )
    add(
        "--schedule",
        choices=("cosine", "linear", "constant", "plateau"),
        help="how the rate falls after the warm-up, or that it stays; plateau: no warm-up, and half the rate after "
        "each evaluation (there are ten in a run) that brings nothing better (default: cosine)",
    )
    add(
        "--clip",
        type=_number(float, 0, 1e9, "must be a number above 0, up to 1e9", open_low=True),
        metavar="C",
        help="largest norm of a gradient (default: 1.0)",
    )
    add(
        "--patience",
        type=_whole(1, 10**9),
        metavar="N",
        help="stop when N evaluations in a row bring nothing better (default: never)",
    )
    add("--save-every", type=_whole(1, 10**9), metavar="N", help="steps between checkpoints (default: 500)")
    add("--seed", type=_whole(0, 2**32 - 1), metavar="S", help="of all that is random (default: 0)")
    add("--device", type=_device, help="cpu, cuda or cuda:N (default: cpu)")
    add(
        "--threads",
        type=_whole(1, 1024),
        metavar="N",
        help="threads of the matrix products (default: 1 for small networks, else all cores)",
    )
    add("--numba", action="store_true", help="compiled kernels on the CPU; needs numba (the extra numba)")
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
        type=_number(float, 0, 1e6, "must be a number from 0 to 1,000,000"),
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
    _which(add)
    add("--threads", type=_whole(1, 1024), metavar="N", help="threads of the matrix products (default: 1)")
    generate.set_defaults(run=_generate)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a trained model on a text",
        description=EVALUATE_HELP,
        epilog=EVALUATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = evaluate.add_argument
    add("folder", metavar="RUN", help="a folder that train has written")
    add("--text", nargs="+", metavar="FILE", required=True, help="text files, joined in this order")
    add("--encoding", default="utf-8", help="of the text files (default: %(default)s)")
    add("--per-line", action="store_true", help="first print each line with its own bits per character")
    _which(add)
    add("--threads", type=_whole(1, 1024), metavar="N", help="threads of the matrix products (default: 1)")
    evaluate.set_defaults(run=_evaluate)

    doctor = commands.add_parser(
        "doctor",
        help="show what this computer has, and what slows it down",
        description=DOCTOR_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.set_defaults(run=_doctor)
    return top


def _which(add: Callable[..., Any]) -> None:
    add(
        "--checkpoint",
        choices=("best", "last"),
        help="the model that did best on the held-out text, or the newest (default: best; last if there is none yet)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 training diverged, 2 wrong input, 128 + the signal that
    ended it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character the terminal cannot show is no reason to stop
    try:
        with _terminable():
            args, extra = parser().parse_known_args(argv)
            if extra:
                files = [name for name in extra if args.command == "train" and os.path.isfile(name)]
                hint = f": did you mean --text {' '.join(files)}?" if files else ""
                raise InputError(
                    f"unrecognized arguments: {' '.join(extra)}{hint} (see {PROGRAM} {args.command} --help)"
                )
            return int(args.run(args))
    except NonFiniteError as error:
        return _fail(str(error), 1)
    except TinygradRnnError as error:
        return _fail(str(error), 2)
    except MemoryError as error:
        return _fail(f"not enough memory: {error or 'choose a smaller --hidden, --batch or --seq-len'}", 2)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except _Terminated:
        return _fail("stopped", 143)
    except BrokenPipeError:  # the reader of a pipe has gone; let the interpreter's last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)


class _Terminated(BaseException):
    """SIGTERM, so that what is half done is undone; the training loop has an answer of its own."""


@contextmanager
def _terminable() -> Iterator[None]:
    import signal
    import threading

    def terminated(number: int, frame: object) -> NoReturn:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str, status: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _version() -> str:
    from tinygrad_rnn import __version__

    return __version__


def _train(args: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_limits

    from tinygrad_rnn import data, keep_freed_memory
    from tinygrad_rnn.cli.options import check_device, use_compiled_kernels
    from tinygrad_rnn.training.run import RunFolder

    given = {key: value for key, value in vars(args).items() if key in DEFAULTS}
    config: dict[str, Any] | None = None
    if "resume" in given:
        config = RunFolder(args.resume).config()
        args = _resumed(given, config)
    else:
        args = argparse.Namespace(**{**DEFAULTS, **given})
        args.steps = args.steps or (None if args.minutes else 3000)
        args.lr = args.lr or RATES[args.model]
    check_device(args.device)
    run = _run_folder(args)
    corpus = _read(args)
    if config and config["text"]["sha256"] != corpus.sha256:
        raise InputError(f"{run.path}: was trained on another text than {_source(args)} is now")
    train_ids, held_out = data.split_held_out(corpus.ids)
    streams = data.Streams(train_ids, args.batch, args.seq_len, args.seed)
    if not len(held_out):
        raise InputError(f"the text is too short: {len(corpus.ids)} characters leave none to hold out")
    keep_freed_memory()
    if args.numba:
        print(use_compiled_kernels(), flush=True)
    args.threads = args.threads or _threads(args.batch, args.hidden)
    with threadpool_limits(args.threads):
        return _train_on(args, config, run, corpus, streams, held_out)


def _resumed(given: dict[str, Any], config: dict[str, Any]) -> argparse.Namespace:
    """The arguments that a run was started with, and those given now in their place."""
    folder = given.pop("resume")
    if fixed := [f"--{key.replace('_', '-')}" for key in given if key not in CHANGEABLE]:
        raise InputError(f"{_and(fixed)} cannot be changed when a run is resumed")
    try:
        asked = {**config["text"], **config["model"], **config["training"], "model": config["model"]["cell"]}
        asked = {k: v for k, v in asked.items() if k in DEFAULTS and v is not None and v is not False}
        if "steps" in given or "minutes" in given:
            asked = {key: value for key, value in asked.items() if key not in ("steps", "minutes")}
        text = ["--text", *config["text"]["files"]] if config["text"]["files"] else []
        named = ((f"--{key.replace('_', '-')}", value) for key, value in asked.items())
        options = [part for name, value in named for part in ((name,) if value is True else (name, str(value)))]
        args = parser().parse_args(["train", *text, *options])  # what was edited by hand is checked as what is typed
        str(config["text"]["sha256"]), list(config["baselines"])
    except (KeyError, TypeError, AttributeError, InputError) as error:
        why = f"has no {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise InputError(f"{folder}: its config.json {why}") from None
    another = {"resume": folder, "another_lr": "lr" in given}
    return argparse.Namespace(**{**DEFAULTS, **vars(args), **given, **another})


def _run_folder(args: argparse.Namespace) -> RunFolder:
    from pathlib import Path

    from tinygrad_rnn.training.run import RunFolder, free_run

    if args.resume:
        run = RunFolder(args.resume)
        run.check_writable()
    else:
        run = RunFolder(args.out if args.out else free_run(Path("runs"), args.model))
        run.check(args.replace)
    return run


def _source(args: argparse.Namespace) -> str:
    return ", ".join(map(str, args.text)) if args.text else "Python's help pages (pydoc_data.topics)"


def _read(args: argparse.Namespace) -> Corpus:
    """The text to train on; says how long reading a large one takes."""
    from tinygrad_rnn import data, language
    from tinygrad_rnn.language.corpus import IN_MEMORY

    if not args.text:
        return language.Corpus.of(data.default_text())
    large = language.size_of(args.text) >= IN_MEMORY
    if large:
        print(f"Reading {language.size_of(args.text) / 1e6:,.0f} MB", flush=True)
    corpus = language.read_corpus(args.text, args.encoding)
    if large:
        print(f"Read in {corpus.seconds:.1f} s: {len(corpus.vocabulary)} different characters", flush=True)
    return corpus


def _threads(batch: int, hidden: int) -> int | None:
    """Threads for the matrix products where none are asked for: 1 for small ones, else None, all cores.

    The threads of a BLAS wait for each other by spinning. For the small products of a time step they gain little
    on an idle machine; beside one busy program two threads took 7 times as long as one (B = 16, H = 256).
    """
    return 1 if batch * hidden * hidden < 2**23 else None


def _train_on(
    args: argparse.Namespace, config: dict[str, Any] | None, run: RunFolder, corpus: Corpus, streams: Any, held_out: Any
) -> int:
    from functools import partial

    from rich.console import Console

    from tinygrad_rnn import data, language, manual_seed, optim
    from tinygrad_rnn.language.model import CharModel, CharModelConfig, load_model, save_model
    from tinygrad_rnn.language.task import NextCharacter
    from tinygrad_rnn.training import (
        SCHEDULES,
        Budget,
        LoopState,
        MetricsLog,
        clear_stale,
        display_for,
        read_metrics,
        rename_checkpoint,
        restore,
        snapshot,
        train,
        truncate_metrics,
    )

    console = Console(highlight=False)
    say = partial(console.print, markup=False, soft_wrap=not console.is_terminal)
    vocabulary = corpus.vocabulary
    manual_seed(args.seed)
    shape = CharModelConfig(len(vocabulary), args.model, args.embedding, args.hidden, args.layers, args.dropout)
    model = CharModel(shape)
    if args.device != "cpu":
        model.to(args.device)
    parameters = list(model.named_parameters())
    size = sum(p.size for _, p in parameters)
    adam = optim.Adam(parameters, lr=args.lr)
    measured = held_out[:MEASURED]
    task = NextCharacter(model, streams, data.passage(streams.ids, measured, batch=64))
    state = LoopState()
    plateau = optim.ReduceLROnPlateau(adam, factor=0.5, patience=0) if args.schedule == "plateau" else None

    made = config is None
    run.make()
    try:
        with run.occupied():
            if config is not None:
                checkpoint, damage = _newest(run)
                if checkpoint is not None:
                    state = restore(checkpoint, model, adam, task, plateau)
                if args.steps and state.step > args.steps:
                    raise InputError(f"{run.path}: has done {state.step:,} steps already, --steps is the total")
                if args.another_lr:
                    for group in adam.param_groups:
                        group["lr"] = args.lr
                    if plateau:  # which begins anew from there
                        plateau = optim.ReduceLROnPlateau(adam, factor=0.5, patience=0)
                if damage:
                    print(f"{PROGRAM}: {damage}", file=sys.stderr)
            kind = f"{args.model.upper()}, {args.hidden} hidden units"
            kind += f", {args.layers} layers" if args.layers > 1 else ""
            console.print(f"[bold]{kind}[/], {size:,} parameters")
            part = "" if len(measured) == len(held_out) else f" ({len(measured):,} of them measured)"
            say(f"{len(streams.ids):,} characters to learn from, {len(held_out):,} held out{part}: {_source(args)}")
            if config is None:
                baselines = language.measure_baselines(vocabulary, streams.ids, measured)
            else:
                baselines = [language.Baseline(**entry) for entry in config["baselines"]]
            if baselines:
                named = ", ".join(f"{b.name} {b.bits_per_char:.2f}" for b in baselines)
                say(f"bits per character to beat on the held-out text: {named}")
            if config is not None:
                say(f"Going on after step {state.step:,} of {run.path}")
            config = _config(args, shape.as_dict(), size, corpus, len(streams.ids), len(held_out), baselines)
            if made:
                run.create(config)
            else:
                run.configure(config)
                truncate_metrics(run.metrics, state.step)
                if damage:  # or else the damaged one would become the one before the next
                    rename_checkpoint(run.checkpoints, "previous", "last")
                if run.checkpoints.exists():
                    clear_stale(run.checkpoints)

            with MetricsLog(run.metrics) as metrics:

                def save(state: LoopState, name: str = "last", figures: dict[str, float] | None = None) -> None:
                    metrics.sync()  # a checkpoint must not know of steps that the log has lost
                    tensors, manifest = snapshot(model, adam, task, state, plateau)
                    manifest |= {"training": config["training"], "figures": figures or {}}
                    previous = "previous" if name == "last" else None
                    save_model(run.checkpoints, name, model, vocabulary, state.step, manifest, tensors, previous)

                outcome = train(
                    task,
                    adam,
                    parameters,
                    Budget(args.steps, args.minutes),
                    schedule=plateau or SCHEDULES[args.schedule],
                    clip=args.clip,
                    patience=args.patience,
                    log_every=max(1, (args.steps or 0) // 5000),
                    display=display_for(console),
                    metrics=metrics,
                    keep_best=lambda state, figures: save(state, "best", figures),
                    save=save,
                    save_every=args.save_every,
                    note=(lambda: " ".join(_sample(model, vocabulary, 80).split())) if console.is_terminal else None,
                    state=state,
                )
    except NonFiniteError as error:
        kept = f" (the best model so far is kept in {run.path})" if (run.checkpoints / "best.json").exists() else ""
        raise NonFiniteError(f"{error}{kept}") from None
    except OSError as error:
        if state.step and (run.checkpoints / "last.json").exists():
            why = f"{error.filename or run.path}: {error.strerror or error}"
            raise InputError(f"{why}; to go on from the last checkpoint: {_resume(run)}") from None
        raise
    finally:
        if made and not state.step:
            run.undo()

    best = state.best
    if outcome.stopped_by is not None and not state.step:
        say("Stopped before the first step: nothing was learnt, nothing kept.")
        return 128 + outcome.stopped_by
    lines = {b.name: b.bits_per_char for b in baselines}
    title = f"{kind}: {best:.3f} bits per held-out character" if state.best_step else kind
    pictures = _picture(run, read_metrics(run.metrics), title, lines)
    kept = f"; the best model is that of step {state.best_step:,}" if state.best_step else ""
    if outcome.stopped_by is not None:
        say(f"Stopped after step {state.step:,} and saved in {run.path}{kept}.")
        say(f"To go on: {_resume(run)}")
        return 128 + outcome.stopped_by
    if outcome.early:
        say(f"Stopped early: {state.unimproved} evaluations in a row brought nothing better.")

    best_model, _, _ = load_model(run.checkpoints)
    console.print("\n[bold]A sample[/] [dim](temperature 0.7)[/]")
    console.rule(style="dim")
    console.print(_sample(best_model, vocabulary, 600, args.seed).strip(), markup=False)
    console.rule(style="dim")
    console.print()
    _table(console, kind, best, baselines)
    say(f"{state.step:,} steps in {state.seconds:.0f} s{kept}.")
    say(f"Written to {run.path}: config.json, metrics.jsonl, {pictures}checkpoints")
    say(f"More of it: {_command()} generate {shlex.quote(str(run.path))}")
    return 0


def _resume(run: RunFolder) -> str:
    return f"{_command()} train --resume {shlex.quote(str(run.path))}"


def _command() -> str:
    """How to call this command again from here: by its name if that is found, else by its path or its Python's."""
    if shutil.which(PROGRAM):
        return PROGRAM
    started = sys.argv[0] if os.path.basename(sys.argv[0]) == PROGRAM else sys.executable
    near = os.path.relpath(started)
    path = shlex.quote(os.path.abspath(started) if near.startswith(os.pardir) else near)
    return path if started == sys.argv[0] else f"{path} -m tinygrad_rnn"


def _newest(run: RunFolder) -> tuple[Any, str]:
    """The checkpoint to go on from, None for a run killed before its first, and what to say of a damaged one."""
    from tinygrad_rnn.training import load_checkpoint

    if not any((run.checkpoints / f"{name}.json").exists() for name in ("last", "previous")):
        return None, ""
    try:
        return load_checkpoint(run.checkpoints, "last"), ""
    except CheckpointError as error:
        try:
            found = load_checkpoint(run.checkpoints, "previous")
        except CheckpointError:
            raise error from None
        return found, f"{error}; going on from the one before, that of step {found.manifest['step']:,}"


def _config(
    args: argparse.Namespace,
    model: dict[str, Any],
    size: int,
    corpus: Corpus,
    train: int,
    held_out: int,
    baselines: list[Baseline],
) -> dict[str, Any]:
    """What `config.json` says of a run: enough to go on with it."""
    import platform
    from dataclasses import asdict

    import numpy as np

    # As they were asked for:
    training = "steps minutes seq_len batch lr schedule clip patience save_every seed device threads numba"
    return {
        "text": {
            "source": _source(args),
            "files": [os.path.abspath(path) for path in args.text] if args.text else None,
            "encoding": args.encoding,
            "sha256": corpus.sha256,
            "train": train,
            "held_out": held_out,
        },
        "model": {**model, "parameters": size},
        "training": {key: getattr(args, key) for key in training.split()},
        "baselines": [asdict(b) for b in baselines],
        "versions": {PROGRAM: _version(), "python": platform.python_version(), "numpy": np.__version__},
    }


def _picture(run: Any, records: list[dict[str, Any]], title: str, lines: dict[str, float]) -> str:
    """Draw the learning curve if that is possible; returns what to say of it in a list of files."""
    from tinygrad_rnn.language.picture import plot_loss

    try:
        plot_loss(run.picture, records, title=title, lines=lines)
    except ImportError as error:
        print(f"No loss.png: {error}")
        return ""
    return "loss.png, "


def _sample(model: CharModel, vocabulary: Vocabulary, length: int, seed: int = 0) -> str:
    from tinygrad_rnn.decoding import generate

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


def _load(args: argparse.Namespace) -> tuple[CharModel, Vocabulary, dict[str, Any]]:
    """The model of a run: that of --checkpoint, else the best one, else the newest."""
    from tinygrad_rnn.language.model import load_model
    from tinygrad_rnn.training.run import RunFolder

    run = RunFolder(args.folder)
    run.config()
    name = args.checkpoint
    if name is None:
        only_last = (run.checkpoints / "last.json").exists() and not (run.checkpoints / "best.json").exists()
        name = "last" if only_last else "best"
    return load_model(run.checkpoints, name)


def _generate(args: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_limits

    from tinygrad_rnn.decoding import generate

    with threadpool_limits(args.threads or 1):  # one character is too little work to share
        model, vocabulary, _ = _load(args)
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


def _evaluate(args: argparse.Namespace) -> int:
    import re

    from threadpoolctl import threadpool_limits

    from tinygrad_rnn.language.task import text_bits

    with threadpool_limits(args.threads or 1):
        model, vocabulary, manifest = _load(args)
        total, count, line, of_line = 0.0, 0, "", 0.0
        for text, bits in text_bits(model, vocabulary, args.text, args.encoding):
            total, count = total + float(bits.sum()), count + len(text)
            at = 0
            for piece in re.findall("[^\n]*\n|[^\n]+", text) if args.per_line else ():
                line, of_line = line + piece, of_line + float(bits[at : at + len(piece)].sum())
                at += len(piece)
                if line.endswith("\n"):
                    print(f"{of_line / len(line):.3f}  {line[:-1]}")
                    line, of_line = "", 0.0
        if line:
            print(f"{of_line / len(line):.3f}  {line}")
    source = ", ".join(map(str, args.text))
    print(f"{total / count:.3f} bits per character: {count:,} of {source}, by the model of step {manifest['step']:,}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from tinygrad_rnn.cli.doctor import examine

    for line in examine():
        print(line, flush=True)
    return 0
