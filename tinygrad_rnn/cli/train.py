"""`tinygrad-rnn train`: train a character model on a text.

arguments -> settings -> folder and text -> session, made or restored -> training -> what is said of it
"""

from __future__ import annotations

import argparse
import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinygrad_rnn import (
    __version__,
    enable_numba,
    explain,
    keep_freed_memory,
    language,
    manual_seed,
    numba_enabled,
    optim,
    screen,
)
from tinygrad_rnn.cli import cost, reading, report
from tinygrad_rnn.cli.answers import placed
from tinygrad_rnn.cli.options import check_device, choose_path, listed
from tinygrad_rnn.cli.parser import PROGRAM
from tinygrad_rnn.cli.reading import MOST, Text
from tinygrad_rnn.cli.settings import as_toml, settings_of
from tinygrad_rnn.errors import InputError, NonFiniteError, OutOfMemoryError
from tinygrad_rnn.explain.live import EVERY
from tinygrad_rnn.kernels.threads import allowed, asked_for
from tinygrad_rnn.language.baselines import Baseline
from tinygrad_rnn.language.model import CharModel, CharModelConfig, describe_model
from tinygrad_rnn.language.task import NextCharacter, measuring_speed
from tinygrad_rnn.training import (
    Budget,
    LoopState,
    MetricsLog,
    Outcome,
    RunFolder,
    Session,
    Spent,
    display_for,
    free_run,
    newest_checkpoint,
    restore,
)
from tinygrad_rnn.training.resume import CARRIED

if TYPE_CHECKING:
    from rich.console import Console

# What is read, as a part of the characters that are learnt from, so that all of it takes less than a tenth of the time:
# by each of the ten evaluations, by the last one, and by the simple models. Learning from a character takes two to four
# times as long as reading it.
SAMPLED, MEASURED, BASELINES = 0.008, 0.05, 0.1
LEAST = 256  # that are read, at the least, of what is held out
ALWAYS = 500_000  # that simple models read, if there are so many: half a second
SMALLER = "choose a smaller --hidden, --batch or --seq-len"
SHAPES = {"cosine": optim.warmup_cosine, "linear": optim.warmup_linear, "constant": optim.warmup_constant}


def run(args: argparse.Namespace) -> int:
    """Train as the arguments say; returns the exit status: 0, or 128 + the signal that stopped it."""
    try:
        return _run(settings_of(args))
    except OutOfMemoryError as error:  # its advice is for who writes code
        error.args, error.hint = (str(error).removesuffix(error.hint) + SMALLER,), SMALLER
        raise
    except MemoryError as error:
        raise MemoryError(f"{error}: {SMALLER}" if str(error) else SMALLER) from None


def _run(settings: argparse.Namespace) -> int:
    """Check and read everything, then train: until the folder is made nothing is written."""
    spent = Spent()
    check_device(settings.device)
    folder = _folder(settings)
    with spent.on("reading"):
        text = reading.read(settings)
    if settings.epochs:
        settings.steps = max(1, round(settings.epochs * text.streams.epoch_length))
    keep_freed_memory()
    with _kernels(settings, spent), _on_threads(settings):
        console = screen.console()
        session = _session(settings, text)
        folder = _made(folder, settings)
        if settings.watch:
            advice = report.flow_advice(settings.model, settings.clip)
            session.task = explain.WatchedTask(session.task, folder.flow, advice=advice)
        with _kept(folder, session, settings), folder.occupied():
            damage = _restore(session, folder, settings) if settings.begun else ""
            baselines = _announce(console, settings, text, session, spent)
            config = _config(settings, text, session, baselines)
            if settings.begun:
                folder.reopen(config, session.state.step, damaged=bool(damage))
            else:
                folder.create(config, as_toml(settings))
            outcome = _train(console, settings, config, folder, text, session, spent)
        said = report.Report(console, folder, _kind(settings), settings.seed, text.corpus.vocabulary, spent)
        try:
            said.results(outcome, baselines, text.whole())
        except OSError as error:
            if outcome.stopped_by is None and error.errno != errno.EIO:  # else the terminal has gone
                raise
    return 0 if outcome.stopped_by is None else 128 + outcome.stopped_by


# --- how it is computed ----------------------------------------------------------------------------------------


def _threads(settings: argparse.Namespace) -> int | None:
    """Threads where none are asked for: as many as share a recorded step with numba, else 1 for small products, and
    None, all cores, for large ones.

    The threads of a BLAS wait for each other by spinning. For the small products of a time step they gain little
    on an idle machine; beside one busy program two threads took 7 times as long as one (B = 16, H = 256). Those that
    share a step gain half, and are let be where others run, too.
    """
    size: int = settings.batch * settings.hidden**2
    if settings.numba:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(cores, size // 2**19))
    return 1 if size < 2**23 else None


@contextmanager
def _on_threads(settings: argparse.Namespace) -> Iterator[None]:
    """Have so many threads share a recorded step; BLAS is on one then, since its own would spin on after an evaluation
    and stand in their way. Where none can share one, have BLAS use as many.
    """
    with (
        asked_for(settings.threads if settings.numba else None),
        threadpool_limits(1 if settings.numba and allowed() > 1 else settings.threads),
    ):
        yield


@contextmanager
def _kernels(settings: argparse.Namespace, spent: Spent) -> Iterator[None]:
    """Choose how steps are computed, and what to say of it. What is chosen stays so when the run is resumed."""
    before = numba_enabled()
    watched = f", but every {EVERY}th, whose gradient is watched" if settings.watch else ""
    try:
        with spent.on("numba"):
            path = choose_path(settings.device, settings.plain, settings.numba, watched)
    except InputError as error:
        if settings.begun and settings.begun["training"].get("numba"):
            raise InputError(f"{settings.resume}: was begun with {error}; or go on with --no-numba") from None
        raise
    try:
        settings.numba = numba_enabled()
        settings.path = path
        settings.threads = settings.threads or _threads(settings)
        yield
    finally:
        enable_numba(before)


def _kind(settings: argparse.Namespace) -> str:
    """The network in words."""
    layers = f", {settings.layers} layers" if settings.layers > 1 else ""
    return f"{settings.model.upper()}, {settings.hidden} hidden units{layers}"


# --- where it is written ---------------------------------------------------------------------------------------


def _folder(settings: argparse.Namespace) -> RunFolder:
    """The run's folder, which can be written to."""
    if settings.resume:
        folder = RunFolder(settings.resume)
        folder.check_writable()
    else:
        folder = RunFolder(settings.out if settings.out else free_run(Path("runs"), settings.model))
        folder.check(settings.replace)
    return folder


def _made(folder: RunFolder, settings: argparse.Namespace) -> RunFolder:
    """The folder, made. Where another process has taken the name since it was found free, the next one that is."""
    chosen = settings.out or settings.resume
    while True:
        try:
            folder.make(new=not chosen)
            return folder
        except FileExistsError:
            if chosen:
                raise
            folder = RunFolder(free_run(folder.path.parent, settings.model))


# --- the session ----------------------------------------------------------------------------------------------


def _session(settings: argparse.Namespace, text: Text) -> Session[CharModel]:
    """A session before its first step."""
    manual_seed(settings.seed)
    sizes = (settings.embedding, settings.hidden, settings.layers)
    model = CharModel(CharModelConfig(len(text.corpus.vocabulary), settings.model, *sizes, settings.dropout))
    if settings.source:
        model.load_state_dict(
            language.widened(settings.source.model, settings.source.vocabulary, text.corpus.vocabulary)
        )
    if settings.device != "cpu":
        model.to(settings.device)
    adam = optim.Adam(model.named_parameters(), lr=settings.lr)
    learnt = _learnt(settings, text, model)
    text.count = settings.measured or round(max(LEAST, min(MOST, MEASURED * learnt)))
    text.sampled = settings.sampled or round(max(LEAST, min(MOST, SAMPLED * learnt)))
    lengths = text.corpus.vocabulary.lengths
    task = NextCharacter(model, text.streams, text.sample(), parts=settings.accumulate, lengths=lengths)
    return Session(model, adam, task, _schedule(settings, adam))


def _learnt(settings: argparse.Namespace, text: Text, model: CharModel) -> float:
    """How many characters a run is going to learn from. With --steps that follows from them alone, so that the same
    seed gives the same figures; with --minutes, from the speed of the model, too.
    """
    counts = [float("inf")]
    if settings.steps:
        counts.append(settings.steps * text.streams.batch * settings.seq_len)
    if settings.minutes:
        counts.append(10 * settings.minutes * measuring_speed(model, text.streams.ids))  # a sixth of the seconds
    return min(counts)


def _schedule(settings: argparse.Namespace, optimizer: optim.Optimizer) -> optim.BaseSchedule:
    if settings.schedule == "plateau":
        return optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    return optim.BudgetLR(optimizer, SHAPES[settings.schedule])


def _restore(session: Session[CharModel], folder: RunFolder, settings: argparse.Namespace) -> str:
    """Bring the session where a run stopped; returns what is wrong with its last checkpoint, "" if nothing is."""
    checkpoint, damage = newest_checkpoint(folder.checkpoints)
    changed = set()
    if checkpoint is not None:
        before = {"accumulate": 1, **checkpoint.manifest["training"]}
        changed = {key for key in ("batch", "accumulate", "lr", "schedule") if before[key] != getattr(settings, key)}
        if changed & {"batch", "accumulate"}:  # other streams: their states begin with zeros
            own = {name: x for name, x in checkpoint.tensors.items() if not name.startswith(CARRIED)}
            checkpoint = replace(checkpoint, tensors=own)
        schedule = None if "schedule" in changed else session.schedule
        session.state = restore(checkpoint, session.model, session.optimizer, session.task, schedule)
    if settings.steps and session.state.step > settings.steps:
        raise InputError(f"{folder.path}: has done {session.state.step:,} steps already, --steps is the total")
    if settings.another_lr or changed & {"lr", "schedule"}:
        for group in session.optimizer.param_groups:
            group["lr"] = settings.lr
        session.schedule = _schedule(settings, session.optimizer)  # begins anew with that rate
    if damage:
        print(f"{PROGRAM}: {damage}", file=sys.stderr)
    return damage


@contextmanager
def _kept(folder: RunFolder, session: Session[CharModel], settings: argparse.Namespace) -> Iterator[None]:
    """Remove a new run that ends without a step; say with an error what is kept of another."""
    try:
        yield
    except NonFiniteError as error:
        if (folder.checkpoints / "best.json").exists():
            error.args = (f"{error} (the best model so far is kept in {folder.path})",)
        raise
    except MemoryError as error:
        if session.state.step and (folder.checkpoints / "last.json").exists():
            error.add_note(f"to go on from the last checkpoint: {report.resume(folder)}")
        raise
    except BrokenPipeError as error:
        if session.state.step:
            error.add_note(f"nobody reads the output any more; saved, and to go on: {report.resume(folder)}")
        raise
    except OSError as error:
        if session.state.step and (folder.checkpoints / "last.json").exists():
            lost = placed(error)
            why = f"{lost.filename or folder.path}: {lost.strerror or lost}"
            raise InputError(f"{why}; to go on from the last checkpoint: {report.resume(folder)}") from None
        raise
    finally:
        if not settings.begun and not session.state.step:
            folder.undo()


# --- the training ---------------------------------------------------------------------------------------------


def _announce(
    console: Console, settings: argparse.Namespace, text: Text, session: Session[CharModel], spent: Spent
) -> list[Baseline]:
    """Say what is going to be trained, on what; returns what has to be beaten, measured or known from the config."""
    size, ids, measured = _size(session), text.streams.ids, text.measured
    screen.say(console, (_kind(settings), "bold"), f", {size:,} parameters")
    screen.say(console, settings.path)
    part = "" if len(measured) == len(text.held_out) else f" ({len(measured):,} of them measured)"
    unit = "characters" if settings.tokens == "char" else "tokens"
    counts = f"{len(ids):,} {unit} to learn from, {len(text.held_out):,} held out{part}"
    screen.say(console, f"{counts}: {reading.source(settings)}")
    if settings.tokens != "char":
        screen.say(console, cost.line(settings, text, session))
    if settings.begun:
        baselines = [Baseline(**entry) for entry in settings.begun["baselines"]]
    else:
        read = max(ALWAYS, round(BASELINES / MEASURED * text.count))
        with spent.on("baselines"):
            baselines = language.measure_baselines(*text.characters(read), read)
    if baselines:
        named = ", ".join(f"{b.name} {b.bits_per_char:.2f}" for b in baselines)
        screen.say(console, f"bits per character to beat on the held-out text: {named}")
    if settings.begun:
        changed = _changes(settings)
        screen.say(console, f"Going on after step {session.state.step:,} of {settings.resume}{changed}")
    elif settings.source:
        bits, wider = session.task.evaluate()[session.task.goal], len(text.corpus.vocabulary)
        new = wider - len(settings.source.vocabulary)
        more = f", of {new} characters more" if new else ""
        begun = f"the model of step {settings.source.step:,} of {settings.init_from}{more}"
        screen.say(console, f"Begins with {begun}: {bits:.3f} bits per held-out character before the first step")
    return baselines


def _changes(settings: argparse.Namespace) -> str:
    """What is another thing from here on, in words."""
    before = {"accumulate": 1, **settings.begun["training"], "dropout": settings.begun["model"]["dropout"]}
    keys = ("batch", "accumulate", "lr", "schedule", "dropout", "clip")
    changed = [
        f"{key} {getattr(settings, key)}, not {before[key]}" for key in keys if getattr(settings, key) != before[key]
    ]
    return f", with {listed(changed)}" if changed else ""


def _size(session: Session[CharModel]) -> int:
    return sum(p.size for p in session.model.parameters())


def _config(
    settings: argparse.Namespace, text: Text, session: Session[CharModel], baselines: list[Baseline]
) -> dict[str, Any]:
    """What `config.json` says of a run: enough to go on with it."""
    training = "steps minutes seq_len batch accumulate lr schedule clip patience save_every seed"
    training += " device threads numba plain watch"
    return {
        "text": {
            "source": reading.source(settings),
            "files": [os.path.abspath(path) for path in settings.text] if settings.text else None,
            "encoding": settings.encoding,
            "split": settings.split,
            "other_files": [os.path.abspath(path) for path in settings.held_out] if settings.held_out else None,
            "tokens": settings.tokens,
            "vocabulary": settings.vocabulary,
            "sha256": text.corpus.sha256,
            "train": len(text.streams.ids),
            "held_out": len(text.held_out),
            "measured": len(text.measured),
            "sampled": text.sampled,
        },
        "model": {**describe_model(session.model, text.corpus.vocabulary)["model"], "parameters": _size(session)},
        "training": {key: getattr(settings, key) for key in training.split()},  # as they were asked for
        "init_from": _init_from(settings),
        "baselines": [asdict(b) for b in baselines],
        "versions": {PROGRAM: __version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def _init_from(settings: argparse.Namespace) -> dict[str, Any] | None:
    """The model that the training has begun with, if it was one."""
    if settings.begun:
        return settings.begun.get("init_from")  # type: ignore[no-any-return]
    if settings.source is None:
        return None
    characters = getattr(settings.source.vocabulary, "characters", "")
    return {"run": settings.init_from, "step": settings.source.step, "characters": characters}


def _train(
    console: Console,
    settings: argparse.Namespace,
    config: dict[str, Any],
    folder: RunFolder,
    text: Text,
    session: Session[CharModel],
    spent: Spent,
) -> Outcome:
    """Train until the end, with a display, a log and checkpoints."""
    vocabulary = text.corpus.vocabulary
    described = {**describe_model(session.model, vocabulary), "training": config["training"]}

    with MetricsLog(folder.metrics) as metrics:

        def save(state: LoopState) -> None:
            metrics.sync()  # a checkpoint must not know of steps that the log has lost
            session.save(folder.checkpoints, "last", {**described, "figures": {}}, "previous")

        def keep_best(state: LoopState, figures: dict[str, float]) -> None:
            metrics.sync()
            session.save(folder.checkpoints, "best", {**described, "figures": figures})

        def note() -> str:
            seconds = session.state.seconds / 100  # ten of them take at most some hundredths of the time
            return " ".join(report.sample(session.model, vocabulary, 80, seconds=seconds).split())

        return session.train(
            Budget(settings.steps, settings.minutes),
            clip=settings.clip,
            patience=settings.patience,
            log_every=max(1, (settings.steps or 0) // 5000),
            display=display_for(console, session.task if isinstance(session.task, explain.WatchedTask) else None),
            metrics=metrics,
            keep_best=keep_best,
            save=save,
            save_every=settings.save_every,
            note=note if console.is_terminal else None,
            plain=settings.plain or settings.device != "cpu",
            spent=spent,
        )
