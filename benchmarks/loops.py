"""The plain unrolled loop of `rnn_step`, RNN, LSTM and GRU at five sizes, beside PyTorch eager, MyGrad, HIPS autograd.

`report` runs it. MyGrad and HIPS autograd run at the three small sizes only: above them a step takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cells
from benchmarks.cells import Cell, Requirement, asked, label, markdown, mean, present, ratio, seconds

OURS, COMPILED, EAGER = "tinygrad_rnn, fused=False", "tinygrad_rnn, fused=False, compiled", "PyTorch eager"
FORMS = {OURS: "plain loop", COMPILED: "plain loop, compiled"}
SMALL_ONLY = ["MyGrad", "HIPS autograd"]
PEERS = [EAGER, *SMALL_ONLY]
NAMES = [*FORMS, *PEERS]
SMALL = cells.SIZES[:3]
BOUNDS = {EAGER: 1.0, "MyGrad": 3.0, "HIPS autograd": 3.0}
ENOUGH = 12  # of the cells beside PyTorch eager


def names(cell: Cell) -> list[str]:
    return NAMES if cells.size_of(cell) in SMALL else [*FORMS, EAGER]


def measure(quick: bool, allowed: float, keep: Callable[[list[Cell]], None]) -> list[Cell]:
    """One entry a cell; `keep` has what there is after each."""
    return cells.measure("benchmarks.rnn_step", names, cells.QUICK if quick else cells.SIZES, allowed, keep)


def against(found: list[Cell], peer: str, ours: str = OURS) -> list[tuple[Cell, float]]:
    """How many times as long the peer takes as a form of ours, for each cell in which both ran."""
    return [(c, ratio(c, peer, ours)) for c in asked(found) if {peer, ours} <= c["seconds"].keys()]


def requirements(found: list[Cell]) -> list[Requirement]:
    """What was asked of the plain loop, judged by the figures."""
    lines = []
    for peer, bound in BOUNDS.items():
        values = [value for _, value in against(found, peer)]
        reached = sum(value >= bound for value in values)
        cells_run = len(cells.GATES) * len(cells.SIZES if peer == EAGER else SMALL)
        enough, what = cells_run, f"{bound:g} times as fast as {peer} at small ones"
        if peer == EAGER:
            enough, what = ENOUGH, f"at least as fast as {peer} in {ENOUGH} of {cells_run}"
        verdict = reached >= enough if len(values) == cells_run else None
        lines.append(Requirement(f"plain loop: {what}", f"{reached} of {len(values)}", verdict))
    return lines


def not_reached(found: list[Cell]) -> list[str]:
    """The cells in which ours is not as far ahead as was asked, with how many times as long the other takes."""
    lines = []
    for peer, bound in BOUNDS.items():
        if values := against(found, peer):
            what = "slower than" if peer == EAGER else f"not {bound:g} times as fast as"
            lines.append(f"- plain loop, {what} {peer}: {cells.listed([(c, v) for c, v in values if v < bound])}.")
    return lines


def table(found: list[Cell], ours: str = OURS) -> list[str]:
    """Milliseconds of ours, and how many times as long the others take; bold where that is less than was asked."""
    peers = present(found, PEERS)
    rows = []
    for cell in (cell for cell in found if ours in cell["seconds"]):
        rows.append([label(cell), f"{1e3 * seconds(cell, ours):.3g}"])
        for peer in peers:
            there = peer in cell["seconds"]
            rows[-1].append(cells.ratio_text(ratio(cell, peer, ours), BOUNDS[peer]) if there else "-")
    means = [mean([value for _, value in against(found, peer, ours)]) for peer in peers]
    texts = [cells.ratio_text(value, BOUNDS[peer]) for value, peer in zip(means, peers, strict=True)]
    rows.append(["geometric mean", "", *texts])
    return markdown([f"{FORMS[ours]} B,T,H", "ours, ms", *(f"{peer} / ours" for peer in peers)], rows)


def section(found: list[Cell], picture: str) -> list[str]:
    """What the page says of the plain loop."""
    found = cells.in_order(found)
    return [
        "## The plain unrolled loop",
        "",
        "Forward and backward in float32 of a recurrent layer that is a Python loop in each library's own ops, with",
        "the mean square over all steps as the loss and no optimiser. Ours is the layer with `fused=False`, as it is",
        "and recorded by `tr.compile`; both need NumPy alone. The input of all steps is projected in one product, and",
        "PyTorch adds products by `addmm`, which is its fastest form. Loss and gradients of all agree. MyGrad and HIPS",
        "autograd run at the three small sizes only, since above them a step of theirs takes too long. Bold: less than",
        "was asked, which is 3 for these two and 1 for PyTorch.",
        "",
        f"![how many times as long the others take, by layer and size]({picture})",
        "",
        *cells.left_out(found, NAMES),
        cells.spread(found),
        "",
        *(line for ours in present(found, list(FORMS)) for line in [*table(found, ours), ""]),
    ]


def draw(found: list[Cell], path: Path) -> None:
    """How many times as long the others take as ours: a panel for each layer, lines at what was asked."""
    from matplotlib.lines import Line2D

    from examples.common.plots import BLUE, GREEN, INK, ORANGE, PURPLE

    others = [COMPILED, *PEERS]
    colours = dict(zip(others, (BLUE, ORANGE, GREEN, PURPLE), strict=True))
    markers = dict(zip(others, "Dosv", strict=True))
    peers = present(found, others)
    look: dict[str, dict[str, Any]] = {
        peer: {"marker": markers[peer], "color": colours[peer], "markersize": 7, "linestyle": ""} for peer in peers
    }
    values = [1.0, 3.0]
    figure, parts = cells.panels(found)
    for axes, rows in parts.values():
        axes.axvline(1, color=INK, linewidth=1)
        axes.axvline(3, color=INK, linewidth=1, linestyle=":")
        for place, cell in enumerate(rows):
            here = {peer: ratio(cell, peer, OURS) for peer in peers if cell and peer in cell["seconds"]}
            axes.plot([1, *here.values()], [place] * (1 + len(here)), color=INK, alpha=0.15, linewidth=2, zorder=1)
            values += here.values()
            for peer, value in here.items():
                axes.plot(value, place, zorder=2, **look[peer])
        axes.set_xlabel("times as long as ours")
    cells.ticks(axes, values)
    handles = [Line2D([], [], label="ours, compiled" if p == COMPILED else p, **look[p]) for p in peers]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(peers)), fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)
