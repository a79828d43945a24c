"""The training step of `train_step`, every layer at every size, in every form of ours, beside PyTorch and JAX.

`report` runs it. A contender is one worker process for the largest size and one for all others; at a size one of them
runs at a time, round-robin, and medians are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cells
from benchmarks.cells import Cell, Requirement, asked, label, markdown, mean, present, ratio, seconds

PLAIN, FUSED = "tinygrad_rnn, fused=False", "tinygrad_rnn"
NUMBA, COMPILED, BOTH = "tinygrad_rnn, numba", "tinygrad_rnn, compiled", "tinygrad_rnn, numba and compiled"
INSIDE = "tinygrad_rnn, numba and compiled, embedding="
NUMPY_ALONE = [PLAIN, FUSED, COMPILED]
OURS = [PLAIN, FUSED, NUMBA, COMPILED, BOTH]
PEERS = ["PyTorch", "JAX"]
FLOOR, OWN = "products alone", "products of ours alone"
NAMES = [*OURS, INSIDE, *PEERS, FLOOR, OWN]
EVERY = len(cells.SIZES) * len(cells.GATES)
SHORT = {PLAIN: "fused=False", FUSED: "fused", NUMBA: "fused, numba", COMPILED: "compiled", BOTH: "compiled, numba"}
SHORT[INSIDE] = "embedding="


def measure(quick: bool, allowed: float, keep: Callable[[list[Cell]], None]) -> list[Cell]:
    """One entry a cell; `keep` has what there is after each."""
    sizes = cells.QUICK if quick else cells.SIZES + cells.BETWEEN
    return cells.measure("benchmarks.train_step", lambda _: NAMES, sizes, allowed, keep)


def best(cell: Cell, names: list[str]) -> str | None:
    """The fastest of those that ran."""
    return min((name for name in names if name in cell["seconds"]), key=lambda name: seconds(cell, name), default=None)


def against(found: list[Cell], ours: list[str], others: list[str]) -> list[tuple[Cell, float]]:
    """For each cell that was asked for how many times as long the fastest of the others takes as the fastest of ours;
    empty where one side was not measured.
    """
    pairs = [(cell, best(cell, others), best(cell, ours)) for cell in asked(found)]
    return [(cell, ratio(cell, other, our)) for cell, other, our in pairs if other and our]


def lost(found: list[Cell], ours: list[str], others: list[str]) -> list[tuple[Cell, float]]:
    """Where ours is the slower one."""
    return [(cell, value) for cell, value in against(found, ours, others) if value < 1]


def won(found: list[Cell], ours: list[str], others: list[str], bound: int) -> tuple[str, bool | None]:
    """In how many cells ours is at least as fast, and whether that reaches the bound; judged when all were run."""
    values = [value for _, value in against(found, ours, others)]
    ahead = sum(value >= 1 for value in values)
    return f"{ahead} of {len(values)}", ahead >= bound if len(values) == EVERY else None


def requirements(found: list[Cell]) -> list[Requirement]:
    """What was asked of the training step, judged by the figures."""
    both = present(found, PEERS) == PEERS
    faster = [value for _, value in against(found, [BOTH], PEERS)] if both else []
    inside = [value for _, value in against(found, [BOTH], [INSIDE])]
    return [
        Requirement(
            "compiled, numba: at least as fast as the faster of PyTorch and JAX in all 15",
            *(won(found, [BOTH], PEERS, EVERY) if both else ("-", None)),
        ),
        at_least("compiled, numba: 1.5 times as fast as the faster of both in the geometric mean", faster, 1.5),
        Requirement("NumPy alone: at least as fast as PyTorch in 12 of 15", *won(found, NUMPY_ALONE, ["PyTorch"], 12)),
        at_least("`rnn(embed(x))`: as fast as with `embedding=` in the geometric mean, to 3 %", inside, 0.97),
    ]


def at_least(what: str, values: list[float], bound: float) -> Requirement:
    """That the geometric mean over all cells reaches a bound."""
    every = len(values) == EVERY
    return Requirement(what, f"{mean(values):.2f}" if values else "-", mean(values) >= bound if every else None)


def not_reached(found: list[Cell]) -> list[str]:
    """The cells in which ours is behind, by name, with how many times as long the other takes."""
    lines = []
    if present(found, [BOTH]) and present(found, PEERS) == PEERS:
        behind = cells.listed(lost(found, [BOTH], PEERS))
        lines.append(f"- compiled, numba, slower than the faster of PyTorch and JAX: {behind}.")
    if present(found, NUMPY_ALONE) and "PyTorch" in present(found, PEERS):
        behind = cells.listed(lost(found, NUMPY_ALONE, ["PyTorch"]))
        lines.append(f"- NumPy alone, slower than PyTorch: {behind}.")
    return lines


def milliseconds(found: list[Cell]) -> list[str]:
    """Everybody's median."""
    names = present(found, NAMES)
    rows = [[label(c), *(f"{1e3 * seconds(c, n):.3g}" if n in c["seconds"] else "-" for n in names)] for c in found]
    return markdown(["layer B,T,H", *(SHORT.get(name, name) for name in names)], rows)


def ratios(found: list[Cell], other: str) -> list[str]:
    """How many times as long another takes as each form of ours; below it the mean of the cells that were asked for."""
    ours = present(found, OURS)
    text = (lambda value: f"{value:.2f}") if other in (FLOOR, OWN) else cells.ratio_text
    rows = [[label(cell), *(text(ratio(cell, other, name)) for name in ours)] for cell in found]
    if counted := asked(found):
        means = [text(mean([ratio(cell, other, name) for cell in counted])) for name in ours]
        rows.append([f"geometric mean of {len(counted)}", *means])
    return markdown([f"{other} / ours", *(SHORT[name] for name in ours)], rows)


def section(found: list[Cell], picture: str) -> list[str]:
    """What the page says of the training step."""
    found = cells.in_order(found)
    lines = [
        "## A training step",
        "",
        "In float32: embedding, recurrent layer, linear, cross-entropy over all steps, backward, clipping of the",
        "gradients' norm, Adam, over 65 characters. All start from the same weights and must reach the same losses.",
        "PyTorch has its own layers, JAX one jitted step over `lax.scan` that owns its state. Ours has five forms:",
        "`fused=False` is the plain graph, fused a kernel for each step of the sequence, compiled a step recorded by",
        "`tr.compile`, and numba has the kernels of `tr.enable_numba()`, for which numba is needed; the others need",
        "NumPy alone. They are written `rnn(embed(x))`; beside them stands the fastest with `rnn(x, embedding=embed)`.",
        "",
        f"![how fast each form is beside the others, by layer and size]({picture})",
        "",
        *cells.left_out(found, NAMES),
        cells.spread(found),
        "",
        "### Milliseconds",
        "",
        *milliseconds(found),
    ]
    for peer in present(found, PEERS):
        lines += ["", f"### Beside {peer}", "", f"How many times as long {peer} takes: in bold where ours is slower."]
        lines += ["", *ratios(found, peer)]
    if FLOOR in present(found, NAMES):
        lines += [
            "",
            "### Beside the products alone",
            "",
            "The step's matrix products and nothing else, by the BLAS that NumPy uses, as a part of our time. Ours",
            "needs fewer: where the table of the embedding has fewer rows than there are ids, it multiplies those of",
            "the table by W_ih, and looks them up. The second table is about the products that are left.",
        ]
        for floor in present(found, [FLOOR, OWN]):
            lines += ["", *ratios(found, floor)]
    if others := sorted({cells.size_of(cell) for cell in found} - set(cells.SIZES), key=cells.work):
        sizes = " and ".join("{},{},{}".format(*size) for size in others)
        lines += ["", f"The sizes {sizes} lie between those that were asked for, and do not count in the means."]
    return [*lines, ""]


def draw(found: list[Cell], path: Path) -> None:
    """How many times as fast as PyTorch, or our fused step where there is none: a panel for each layer."""
    from matplotlib.lines import Line2D

    from examples.common.plots import BLUE, GREY, INK, ORANGE

    to = "PyTorch" if "PyTorch" in present(found, PEERS) else FUSED
    looks: dict[str, dict[str, Any]] = {
        PLAIN: {"marker": "o", "mfc": "white", "mec": GREY, "ms": 6},
        FUSED: {"marker": "o", "mfc": "white", "mec": BLUE, "ms": 7},
        NUMBA: {"marker": "D", "mfc": "white", "mec": BLUE, "ms": 6},
        COMPILED: {"marker": "o", "mfc": BLUE, "mec": BLUE, "ms": 7},
        BOTH: {"marker": "D", "mfc": BLUE, "mec": INK, "ms": 8},
        "JAX": {"marker": "s", "mfc": ORANGE, "mec": ORANGE, "ms": 6},
        FLOOR: {"marker": "|", "mec": INK, "ms": 15, "mew": 2},
    }
    names = [name for name in looks if name in present(found, NAMES) and name != to]
    values = [1.0]
    figure, parts = cells.panels(found)
    for axes, rows in parts.values():
        axes.axvline(1, color=INK, linewidth=1)
        for place, cell in enumerate(rows):
            here = {name: ratio(cell, to, name) for name in names if cell and name in cell["seconds"]}
            values += here.values()
            if ours := [value for name, value in here.items() if name in OURS]:
                axes.plot([min(ours), max(ours)], [place] * 2, color=BLUE, alpha=0.25, linewidth=5, zorder=1)
            for name, value in here.items():
                axes.plot(value, place, linestyle="", zorder=3 if name in OURS else 2, **looks[name])
        axes.set_xlabel(f"times as fast as {to}")
    cells.ticks(axes, values)
    handles = [Line2D([], [], linestyle="", label=SHORT.get(name, name), **looks[name]) for name in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(names), fontsize=9, frameon=False)
    figure.savefig(path, dpi=120)
