"""`tinygrad-rnn runs`: what has been trained, beside one another."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tinygrad_rnn import screen
from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.cli.options import quoted
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.picture import plot_runs
from tinygrad_rnn.training import RunFolder, read_metrics

if TYPE_CHECKING:
    from rich.console import Console

GOAL = "held_out_bits_per_char"


@dataclass(frozen=True)
class Row:
    """A run as it is shown: what it was asked for and, of its log, how far it came and what it reached where."""

    folder: RunFolder
    config: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Those that were made."""
        return int(self.records[-1]["step"]) if self.records else 0

    @property
    def best(self) -> tuple[float, int]:
        """The least bits per held-out character, and after which step; infinitely many where none were measured."""
        measured = [(record[GOAL], record["step"]) for record in self.records if record.get(GOAL)]
        return min(measured, default=(math.inf, 0))

    @property
    def name(self) -> str:
        """The folder, as it was given."""
        return str(self.folder.path)

    def cells(self) -> list[str]:
        """The row of the table."""
        model, training, (bits, at) = self.config["model"], self.config["training"], self.best
        total = training.get("steps")
        layers = f" x {model['layers']}" if model["layers"] > 1 else ""
        batch = training["batch"] * training.get("accumulate", 1)
        return [
            self.name,
            f"{bits:.3f}" if math.isfinite(bits) else "-",
            f"{at:,}" if at else "-",
            f"{self.steps:,}" + (f" of {total:,}" if total and total > self.steps else ""),
            _time(_seconds(self.folder)),
            f"{model['cell'].upper()} {model['hidden']}{layers}",
            f"{model['parameters']:,}",
            f"{training['lr']:g}",
            f"{batch} x {training['seq_len']}",
            f"{model['dropout']:g}",
            str(self.config["text"]["source"]),
        ]


COLUMNS = ("run", "bits", "at step", "steps", "time", "network", "parameters", "rate", "batch", "dropout", "text")


def run(args: argparse.Namespace) -> int:
    """Show the runs, best first, and draw their curves if asked to; returns the exit status."""
    check_output()
    rows = sorted(_rows(args.folders or ["runs"], given=bool(args.folders)), key=lambda row: (row.best, row.name))
    _show(screen.console(), rows)
    if args.picture:
        curves = {row.name: row.records for row in rows if math.isfinite(row.best[0])}
        if not curves:
            raise InputError("none of these runs has been measured: there is no curve to draw")
        plot_runs(args.picture, curves)
        print(f"{quoted(args.picture)}: the curves of {len(curves)} of them")
    return 0


def _rows(places: list[str], given: bool) -> Iterator[Row]:
    """The runs that are named, and those in the folders that are named. Raises InputError for a place without any."""
    seen = set()
    for place in places:
        inside = [] if RunFolder(place).is_run() or not Path(place).is_dir() else sorted(Path(place).iterdir())
        folders = [RunFolder(path) for path in inside] or [RunFolder(place)]
        found = [row for row in map(_row, folders) if row]
        if not found:
            if not given:
                raise InputError(f"no run in {place}", hint="name a run, or a folder with runs in it")
            raise InputError(f"{place}: {'no run, and none in it' if Path(place).exists() else 'no such folder'}")
        for row in found:
            if row.name not in seen:
                seen.add(row.name)
                yield row


def _row(folder: RunFolder) -> Row | None:
    """A run; None for what is none of a character model."""
    if not folder.is_run():
        return None
    try:
        row = Row(folder, folder.config(), read_metrics(folder.metrics) if folder.metrics.exists() else [])
        row.cells()
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return row


def _seconds(folder: RunFolder) -> float:
    """How long it was trained for, by its last checkpoint."""
    try:
        manifest = json.loads((folder.checkpoints / "last.json").read_bytes())
        return float(manifest["loop"]["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan


def _time(seconds: float) -> str:
    """Seconds as people say them.

    >>> _time(65.2), _time(7325), _time(math.nan)
    ('1:05', '2:02:05', '-')
    """
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _show(console: Console, rows: list[Row]) -> None:
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("run", "network", "text") else "right")
    for row in rows:
        table.add_row(*row.cells())
    screen.show_table(console, "Runs by bits per held-out character, the best first", table)
    texts = {row.config["text"]["sha256"] for row in rows}
    if len(texts) > 1:
        screen.say(console, f"They have read {len(texts)} different texts: bits of different texts cannot be compared.")
