"""What `grid` and `loops` share: layers at sizes, their schedule, ratios, tables and the frame of the pictures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.processes import Workers, agree
from benchmarks.rnn_step import GATES

Cell = dict[str, Any]  # kind, B, T, H, and the seconds of every round by contender

SIZES = [(1, 25, 100), (16, 32, 32), (32, 64, 128), (64, 64, 256), (64, 128, 512)]
BETWEEN = [(8, 50, 64), (32, 100, 200)]
QUICK = SIZES[:2]
TURN = 0.12  # seconds that a contender runs at a time
LEAST, MOST = 3, 9  # rounds; what small cells leave of their time goes to the larger ones


class Requirement(NamedTuple):
    """What was asked for, what was found, and whether that is enough; None where it was not measured."""

    what: str
    found: str
    reached: bool | None

    def row(self) -> list[str]:
        return [
            self.what,
            self.found,
            {True: "reached", False: "**not reached**", None: "not judged: not all was measured"}[self.reached],
        ]


def work(size: tuple[int, int, int]) -> int:
    B, T, H = size
    return B * T * H * H


def cells(sizes: list[tuple[int, int, int]]) -> list[Cell]:
    """One per layer and size, small ones first."""
    return [{"kind": kind, **dict(zip("BTH", s, strict=True))} for kind in GATES for s in sorted(sizes, key=work)]


def size_of(cell: Cell) -> tuple[int, int, int]:
    return cell["B"], cell["T"], cell["H"]


def label(cell: Cell) -> str:
    return f"{cell['kind']} {cell['B']},{cell['T']},{cell['H']}"


def in_order(found: list[Cell]) -> list[Cell]:
    """By layer, then by size, whatever was measured first."""
    return sorted(found, key=lambda cell: (list(GATES).index(cell["kind"]), work(size_of(cell))))


def asked(found: list[Cell]) -> list[Cell]:
    """The cells that requirements and means are about."""
    return [cell for cell in in_order(found) if size_of(cell) in SIZES]


# --- measuring ------------------------------------------------------------------------------------


def groups(sizes: list[tuple[int, int, int]]) -> list[list[Cell]]:
    """What runs in the same processes. The largest size comes first, so that the time left is known, and apart, so that
    it leaves no heap of a gigabyte to the others.
    """
    largest = max(sizes, key=work)
    parts = [[largest], [s for s in sizes if s != largest]] if largest in SIZES[3:] else [sizes]
    return [sorted(cells(part), key=lambda cell: work(size_of(cell))) for part in parts if part]


def measure(
    module: str,
    names: Callable[[Cell], list[str]],
    sizes: list[tuple[int, int, int]],
    allowed: float,
    keep: Callable[[list[Cell]], None],
) -> list[Cell]:
    """One entry a cell: the seconds of a step in each round, of everybody among `names` who is installed.

    All cells together take about the `allowed` seconds: each gets an equal share of what is left of them, making the
    contenders' steps included, and at least three rounds. `keep` is given what there is after every cell. The results
    of all that have one must agree.
    """
    end = time.perf_counter() + allowed
    found: list[Cell] = []
    todo = sum(len(group) for group in groups(sizes))
    for group in groups(sizes):
        everybody = list(dict.fromkeys(name for cell in group for name in names(cell)))
        with Workers(module, everybody) as workers:
            for cell in group:
                stop = time.perf_counter() + max(0, end - time.perf_counter()) / (todo - len(found))
                results = workers.build(cell, names(cell))
                agree({name: result for name, result in results.items() if result})
                found.append({**cell, "seconds": workers.rounds_until(stop, TURN, LEAST, MOST)})
                keep(found)
    return found


# --- ratios ---------------------------------------------------------------------------------------


def seconds(cell: Cell, name: str) -> float:
    """The median over the rounds."""
    return statistics.median(cell["seconds"][name])


def ratio(cell: Cell, of: str, to: str) -> float:
    """How many times as long `of` takes as `to`."""
    return seconds(cell, of) / seconds(cell, to)


def mean(ratios: list[float]) -> float:
    """The geometric mean, which does not care which way a ratio is written."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def present(found: list[Cell], names: list[str]) -> list[str]:
    """Those of the names that were measured somewhere."""
    return [name for name in names if any(name in cell["seconds"] for cell in found)]


def left_out(found: list[Cell], names: list[str]) -> list[str]:
    """A line on those that were not: every contender runs that is installed."""
    absent = [name for name in names if name not in present(found, names)]
    return [f"Left out, because not installed: {', '.join(absent)}.", ""] if absent else []


def spread(found: list[Cell]) -> str:
    """How far the rounds lie apart, in words."""
    parts = []
    for times in (times for cell in found for times in cell["seconds"].values() if len(times) > 2):
        first, middle, third = statistics.quantiles(times, n=4, method="inclusive")
        parts.append((third - first) / middle)
    rounds = sorted({len(times) for cell in found for times in cell["seconds"].values()})
    many = f"{rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"{rounds[0]}"
    if not parts:
        return f"Rounds in a cell: {many}."
    typical = 100 * statistics.median(parts)
    return (
        f"Rounds in a cell: {many}. The middle half of a contender's rounds spans {typical:.1f} % of their median, or "
        "less, in half of the cases."
    )


# --- what is shown --------------------------------------------------------------------------------


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table: the first column to the left, the others to the right."""
    return [f"| {' | '.join(row)} |" for row in [head, [":--", *["--:"] * (len(head) - 1)], *rows]]


def ratio_text(value: float, line: float = 1.0) -> str:
    """A ratio; bold where it is under the line."""
    text = f"{value:.2f}"
    return f"**{text}**" if value < line else text


def listed(lost: list[tuple[Cell, float]]) -> str:
    """Cells with their ratios, for a sentence."""
    return ", ".join(f"{label(cell)} ({value:.2f})" for cell, value in lost) or "none"


def panels(found: list[Cell]) -> tuple[Any, dict[str, tuple[Any, list[Cell]]]]:
    """A figure with a panel for each layer, its rows the sizes, the smallest on top: the axes and the cells of each."""
    from matplotlib.figure import Figure

    from examples.common.plots import CELLS

    kinds = [kind for kind in GATES if any(cell["kind"] == kind for cell in found)]
    sizes = sorted({size_of(cell) for cell in found}, key=work)
    figure = Figure(figsize=(11, 1.3 + 0.48 * len(sizes)), layout="constrained")
    all_axes = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    parts = {}
    for kind, axes in zip(kinds, all_axes, strict=True):
        axes.set_title(kind, fontsize=11, fontweight="bold", color=CELLS[kind])
        axes.set(xscale="log", ylim=(len(sizes) - 0.5, -0.5))
        axes.set_yticks(range(len(sizes)), ["B {}  T {}  H {}".format(*size) for size in sizes])
        axes.tick_params(length=0)
        axes.grid(axis="x", color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        parts[kind] = axes, [next((c for c in found if c["kind"] == kind and size_of(c) == s), {}) for s in sizes]
    return figure, parts


def ticks(axes: Any, values: list[float]) -> None:
    """The logarithmic axis around `values`, which stand for themselves."""
    low, high = min(values) / 1.15, max(values) * 1.15
    marks = [m for e in range(-3, 4) for m in (10**e, 2 * 10**e, 5 * 10**e) if low <= m <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(marks, [f"{m:g}" for m in marks])
    axes.minorticks_off()
