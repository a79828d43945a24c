"""What `tinygrad-rnn train` says when it is done: a sample, a comparison, and how to go on."""

from __future__ import annotations

import math
import os
import shutil
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from rich.table import Table

from tinygrad_rnn.cli.options import listed, quoted
from tinygrad_rnn.cli.parser import PROGRAM
from tinygrad_rnn.data.sequences import Passage
from tinygrad_rnn.data.vocabularies import Coding
from tinygrad_rnn.decoding import generate
from tinygrad_rnn.explain import plot_watched
from tinygrad_rnn.language.baselines import Baseline
from tinygrad_rnn.language.model import CharModel, load_model
from tinygrad_rnn.language.picture import plot_loss
from tinygrad_rnn.language.task import bits_and_error
from tinygrad_rnn.screen import say, show_table
from tinygrad_rnn.tensor.backend import give_back_freed_memory
from tinygrad_rnn.training import Outcome, RunFolder, Spent, read_metrics

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Report:
    """What is said of a run: where it is kept, its network in words, how its samples are drawn, and its time."""

    console: Console
    folder: RunFolder
    kind: str
    seed: int
    vocabulary: Coding
    spent: Spent

    def results(self, outcome: Outcome, baselines: list[Baseline], held_out: Passage) -> None:
        """Draw the learning curve and say how a training ended, measured on all of `held_out`, and what can be done
        with it.
        """
        console, folder, state = self.console, self.folder, outcome.state
        if outcome.stopped_by is not None and not state.step:
            say(console, "Stopped before the first step: nothing was learnt, nothing kept.")
            return
        kept = f"; the best model is that of step {state.best_step:,}" if state.best_step else ""
        if outcome.stopped_by is not None:
            self.pictures(state.best, baselines)
            say(console, f"Stopped after step {state.step:,} and saved in {folder.path}{kept}.")
            say(console, f"To go on: {resume(folder)}")
            return
        if outcome.early:
            say(console, f"Stopped early: {state.unimproved} evaluations in a row brought nothing better.")
        give_back_freed_memory()  # of the training; this evaluation may be larger than those within it
        best, _, _ = load_model(folder.checkpoints)
        lengths = self.vocabulary.lengths
        with self.spent.on("evaluation"):
            bits, error = bits_and_error(best, held_out, lengths=lengths)
        pictures = self.pictures(bits, baselines)
        say(console, ("\nA sample", "bold"), (" (temperature 0.7)", "dim"))
        console.rule(style="dim")
        with self.spent.on("sample"):
            written = sample(best, self.vocabulary, 600, self.seed, seconds=max(1, state.seconds / 50))
        say(console, written.removesuffix("\n"))
        console.rule(style="dim")
        say(console)
        targets = held_out.y[held_out.counted]
        count = len(targets) if lengths is None else int(lengths[targets].sum())
        spread = "" if math.isnan(error) else f", its standard error {error:.3f}"
        title = f"Bits per character of the held-out text ({count:,} characters{spread})"
        _table(console, title, self.kind, bits, baselines)
        say(console, f"{state.step:,} steps in {state.seconds:.0f} s{kept}.")
        say(console, f"Where the time went: {self.spent.line()}")
        say(console, f"Written to {folder.path}: config.json, metrics.jsonl, {pictures}checkpoints")
        say(console, f"More of it: {command()} generate {quoted(folder.path)}")

    def pictures(self, bits: float, baselines: list[Baseline]) -> str:
        """Draw the learning curve and the flow of the gradient; returns what to say of them in a list of files."""
        give_back_freed_memory()  # since matplotlib takes much
        with self.spent.on("picture"):
            return _picture(self.folder, self.kind, bits, baselines) + _flow_picture(self.folder)


def sample(model: CharModel, vocabulary: Coding, length: int, seed: int = 0, seconds: float = float("inf")) -> str:
    """What the model writes, in evaluation mode, in so many seconds at most; its mode is then what it was."""
    training, written, started = model.training, "", perf_counter()
    model.eval()
    try:
        for character in generate(model, vocabulary, length=length, temperature=0.7, seed=seed):
            written += character
            if perf_counter() - started > seconds:
                break
        return written
    finally:
        model.train(training)


def resume(folder: RunFolder) -> str:
    """The command that goes on with a run."""
    return f"{command()} train --resume {quoted(folder.path)}"


def command() -> str:
    """How to call this command again from here: by its name if that is found, else by its path or its Python's."""
    if shutil.which(PROGRAM):
        return PROGRAM
    started = sys.argv[0] if os.path.basename(sys.argv[0]) == PROGRAM else sys.executable
    near = os.path.relpath(started)
    path = quoted(os.path.abspath(started) if near.startswith(os.pardir) else near)
    return path if started == sys.argv[0] else f"{path} -m tinygrad_rnn"


def _picture(folder: RunFolder, kind: str, bits: float, baselines: list[Baseline]) -> str:
    """Draw the learning curve if that is possible; returns what to say of it in a list of files."""
    best = f": {bits:.3f} bits per held-out character" if math.isfinite(bits) else ""
    lines = {b.name: b.bits_per_char for b in baselines}
    try:
        plot_loss(folder.picture, read_metrics(folder.metrics), title=f"{kind}{best}", lines=lines)
    except ImportError as error:
        print(f"No loss.png: {error}")
        return ""
    return "loss.png, "


def _flow_picture(folder: RunFolder) -> str:
    """Draw how the gradient flowed if that was watched; returns what to say of it in a list of files."""
    if not folder.flow.exists():
        return ""
    try:
        plot_watched(folder.flow, folder.flow_picture)
    except ImportError as error:
        print(f"No flow.png: {error}")
        return "flow.jsonl, "
    return "flow.jsonl, flow.png, "


def flow_advice(model: str, clip: float) -> dict[str, str]:
    """What to do in a training where the gradient vanishes or explodes, in the options of the command."""
    vanishes = (
        "--model lstm or gru carries it further" if model == "rnn" else "a longer --seq-len brings nothing so far"
    )
    return {"vanishes": vanishes, "explodes": f"a smaller --lr helps, or a smaller --clip than {clip:g}"}


def _table(console: Console, title: str, kind: str, bits: float, baselines: list[Baseline]) -> None:
    """The comparison on the held-out text, best first, and in words who wins."""
    table = Table()
    table.add_column("model")
    table.add_column("bits", justify="right")
    table.add_column("how")
    rows = [(b.bits_per_char, b.name, b.how, "") for b in baselines] + [(bits, kind, "this run", "bold cyan")]
    for value, name, how, style in sorted(rows):
        table.add_row(name, f"{value:.3f}", how, style=style)
    show_table(console, title, table)
    beaten = [b.name for b in baselines if b.bits_per_char > bits]
    winners = [b.name for b in baselines if b.bits_per_char <= bits]
    if beaten:
        say(console, f"The network beats {listed(beaten)}.")
    if winners:
        win = " wins" if len(winners) == 1 else " win"
        say(console, (listed(winners), "bold"), f"{win} against the network here.")
    if any("lzma" in name for name in winners):
        say(console, ("(lzma copies passages word for word that the text repeats; the network cannot.)", "dim"))
