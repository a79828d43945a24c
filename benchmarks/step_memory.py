"""Bytes that the training step of `train_step` takes at its peak, as it is and compiled, and what they were before.

Counted by tracemalloc, to which NumPy reports every array: weights, moments, gradients, what a recording keeps, and
what one step more asks for. Each number is from a process of its own, and the same at each run.
"""

from __future__ import annotations

from typing import Any

from benchmarks import cells
from benchmarks.cells import Cell, Requirement, label, markdown
from benchmarks.processes import call
from benchmarks.train_step import CONTENDERS

FORMS = {"tinygrad_rnn": "fused", "tinygrad_rnn, compiled": "compiled"}
# Megabytes at commit 7e7f6f6, fused and compiled, of the same step: Python 3.11, NumPy 2.4.
BEFORE = {
    "RNN 1,25,100": (2.74, 5.51),
    "RNN 16,32,32": (2.80, 5.31),
    "RNN 32,64,128": (11.24, 13.12),
    "RNN 64,64,256": (34.28, 34.32),
    "RNN 64,128,512": (121.17, 114.02),
    "LSTM 1,25,100": (4.21, 7.94),
    "LSTM 16,32,32": (3.89, 6.83),
    "LSTM 32,64,128": (29.77, 32.68),
    "LSTM 64,64,256": (108.31, 110.62),
    "LSTM 64,128,512": (416.03, 416.08),
    "GRU 1,25,100": (3.72, 7.35),
    "GRU 16,32,32": (3.59, 6.79),
    "GRU 32,64,128": (24.51, 30.10),
    "GRU 64,64,256": (88.32, 96.93),
    "GRU 64,128,512": (338.30, 355.60),
}
PART, IMPORTED = 1.01, 1.0  # what may be more: a hundredth, and the megabyte of what Python imports on the way


def peak(name: str, **cell: Any) -> int:
    """Bytes at the peak of the fourth step of a contender: a recording is then replayed."""
    import tracemalloc

    import tinygrad_rnn as tr

    tr.zeros(1)
    tracemalloc.start()
    step, _ = CONTENDERS[name](**cell)  # with its first three steps
    tracemalloc.reset_peak()
    step()
    return tracemalloc.get_traced_memory()[1]


def measure(full: bool) -> list[Cell]:
    """One entry a cell: the bytes of both forms."""
    sizes = cells.SIZES if full else cells.SIZES[:4]
    return [
        {**cell, **{words: call("benchmarks.step_memory:peak", name=name, **cell) for name, words in FORMS.items()}}
        for cell in cells.in_order(cells.cells(sizes))
    ]


def growth(found: list[Cell]) -> list[tuple[str, str, float]]:
    """For each cell and form by how many megabytes it takes more than it may."""
    known = [(cell, words, k) for cell in found for k, words in enumerate(FORMS.values()) if label(cell) in BEFORE]
    return [(label(c), words, c[words] / 1e6 - PART * BEFORE[label(c)][k] - IMPORTED) for c, words, k in known]


def requirements(found: list[Cell]) -> list[Requirement]:
    """What was asked of the memory of a step."""
    more, every = growth(found), len(found) >= len(cells.GATES) * 4
    what = "bytes of a step, fused and compiled: no more than before, to 1 % and what is imported, 1 MB"
    enough = sum(megabytes <= 0 for _, _, megabytes in more)
    return [Requirement(what, f"{enough} of {len(more)}", enough == len(more) if every else None)]


def not_reached(found: list[Cell]) -> list[str]:
    """Where it takes more."""
    more = [f"{name} {words} (by {megabytes:.1f} MB)" for name, words, megabytes in growth(found) if megabytes > 0]
    return [f"- bytes of a step, more than before: {', '.join(more) or 'none'}."]


def section(found: list[Cell]) -> list[str]:
    """What the page says of it."""
    head = ["layer B,T,H", *(f"{words}, MB{was}" for words in FORMS.values() for was in ("", " before"))]
    rows = []
    for cell in found:
        before = BEFORE.get(label(cell))
        was = [f"{v:.2f}" for v in before] if before else ["-", "-"]
        now = [f"{cell[words] / 1e6:.2f}" for words in FORMS.values()]
        rows.append([label(cell), *(text for pair in zip(now, was, strict=True) for text in pair)])
    return [
        "## Memory of a training step",
        "",
        "Bytes at the peak of a training step as above, by tracemalloc: weights, moments, gradients, what a recording",
        "keeps, and what one step more asks for. *Before* is commit 7e7f6f6.",
        "",
        *markdown(head, rows),
        "",
    ]
