"""The training step of `train_step`, every layer at every size, beside the peers: what `make bench` reports.

Each contender is one worker process for the whole grid; at a size one of them runs at a time, round-robin, and
medians are compared. Written are figures (JSON), a page (Markdown) and a picture.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import Workers, agree, call, prepare
from benchmarks.train_step import GATES

SIZES = [(1, 25, 100), (16, 32, 32), (32, 64, 128), (64, 64, 256), (64, 128, 512)]
BETWEEN = [(8, 50, 64), (32, 100, 200)]
OURS = [
    "tinygrad_rnn",
    "tinygrad_rnn, fused=False",
    "tinygrad_rnn, compiled",
    "tinygrad_rnn, fast and compiled",
]
PEERS = ["PyTorch", "JAX"]
FLOOR = "products alone"
NAMES = [*OURS, *PEERS, FLOOR]


def cells(sizes: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """What the contenders are made with, one per layer and size."""
    return [{"kind": kind, **dict(zip("BTH", size, strict=True))} for kind in GATES for size in sizes]


def measure(sizes: list[tuple[int, int, int]], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One entry a cell: its size, and the median seconds of a step of everybody who is installed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found = []
    with Workers("benchmarks.train_step", NAMES) as workers, Progress(*columns) as progress:
        task = progress.add_task("", total=len(sizes) * len(GATES))
        for cell in cells(sizes):
            progress.update(task, description=label(cell))
            results = workers.build(cell)
            agree({name: result for name, result in results.items() if name != FLOOR})
            found.append({**cell, "seconds": workers.race(rounds, seconds)})
            progress.advance(task)
        for line in workers.missing:
            progress.console.print(line)
    return found


def label(cell: dict[str, Any]) -> str:
    return f"{cell['kind']} {cell['B']},{cell['T']},{cell['H']}"


def mean(ratios: list[float]) -> float:
    """The geometric mean, which does not care which way a ratio is written."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def ratios(found: list[dict[str, Any]], of: str, to: str) -> list[float]:
    """How many times as long `of` takes as `to`, for every cell."""
    return [cell["seconds"][of] / cell["seconds"][to] for cell in found]


def table(found: list[dict[str, Any]]) -> list[str]:
    """The page's table: milliseconds of ours, and how many times as long the others take."""
    present = [name for name in NAMES if name in found[0]["seconds"]]
    ours, others = [n for n in OURS if n in present], [n for n in present if n not in OURS]
    head = ["layer B,T,H", *(f"{n}, ms" for n in ours), *(f"{n} / {shorter(o)}" for o in ours for n in others)]
    rows = [head, [":--", *["--:"] * (len(head) - 1)]]
    for cell in found:
        seconds = cell["seconds"]
        rows.append([label(cell), *(f"{1e3 * seconds[n]:.3g}" for n in ours)])
        rows[-1] += [f"{seconds[n] / seconds[o]:.2f}" for o in ours for n in others]
    means = [f"**{mean(ratios(found, n, o)):.2f}**" for o in ours for n in others]
    rows.append(["geometric mean", *[""] * len(ours), *means])
    return ["| " + " | ".join(row) + " |" for row in rows]


def shorter(name: str) -> str:
    return name.replace("tinygrad_rnn", "ours")


def verdict(found: list[dict[str, Any]]) -> list[str]:
    """In how many cells each of ours is at least as fast as each peer."""
    lines = []
    for ours in (name for name in OURS if name in found[0]["seconds"]):
        for peer in (p for p in PEERS if p in found[0]["seconds"]):
            values = ratios(found, peer, ours)
            ahead = sum(v >= 1 for v in values)
            lines.append(
                f"- {shorter(ours)} is at least as fast as {peer} in {ahead} of {len(values)} cells, and "
                f"{mean(values):.2f} times as fast in the geometric mean."
            )
    return lines


def page(found: list[dict[str, Any]], setting: list[str], picture: str) -> str:
    """docs/performance.md."""
    lines = [
        "# Performance",
        "",
        "Written by `make bench`; the figures below are one run's, all contenders in turn on the same cores.",
        "",
        "One training step in float32: embedding, recurrent layer, linear, cross-entropy over all steps, backward,",
        "clipping of the gradients' norm, Adam, over 65 characters. Ratios above 1 say that we are faster. The floor,",
        '"products alone", is the step\'s matrix products and nothing else, by the BLAS that NumPy uses.',
        "",
        *(f"- {line}" for line in setting),
        "",
        f"![how many times as long the others take]({picture})",
        "",
        *verdict(found),
        "",
        *table(found),
        "",
    ]
    return "\n".join(lines)


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """The ratios as a picture: a dot for each contender and cell, right of the line where we are ahead."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    others = [name for name in [*OURS[1:], *PEERS, FLOOR] if name in found[0]["seconds"]]
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(found) + 1.2), layout="constrained")
    places = range(len(found), 0, -1)
    for name, marker in zip(others, "sxo^dv", strict=False):
        axes.plot(ratios(found, name, OURS[0]), places, marker, label=shorter(name), alpha=0.8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", yticks=list(places), yticklabels=[label(cell) for cell in found])
    axes.set_xlabel("time of a step, as a multiple of ours (log scale)")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(others), fontsize=8)
    figure.savefig(path, dpi=120)


def kernels() -> list[str]:
    """The BLAS kernels of everybody, in words."""
    import numpy as np  # before BLAS is asked: it brings its own
    from threadpoolctl import threadpool_info

    lines = [
        f"NumPy {np.__version__}: {entry['internal_api']} {entry.get('version')}, kernels for "
        f"{entry.get('architecture', 'this machine')}, {entry['num_threads']} threads"
        for entry in threadpool_info()
        if entry["user_api"] == "blas"
    ]
    try:
        import torch

        vectors = torch.backends.cpu.get_cpu_capability()
        lines.append(f"PyTorch {torch.__version__}: {vectors}, {torch.get_num_threads()} threads")
    except ModuleNotFoundError:
        pass
    try:
        import jax

        lines.append(f"JAX {jax.__version__}: XLA on the CPU")
    except ModuleNotFoundError:
        pass
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the three smallest sizes, fewer rounds")
    parser.add_argument("--between", action="store_true", help="two sizes more")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads for each worker (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of figures (default: runs/bench)")
    parser.add_argument("--page", type=Path, help="also write this page, with its picture beside it")
    options = parser.parse_args()

    begin = time.perf_counter()
    setting = [f"Python {platform.python_version()}, {platform.machine()}", *prepare(options.threads)]
    if hasattr(os, "getloadavg"):
        setting.append(f"load average at the start: {os.getloadavg()[0]:.1f}")
    setting += call("benchmarks.grid:kernels")
    print("\n".join(setting))
    sizes = SIZES[:3] if options.quick else SIZES + (BETWEEN if options.between else [])
    found = measure(sizes, rounds=5 if options.quick else 9, seconds=0.2 if options.quick else 0.4)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "grid.json").write_text(json.dumps({"setting": setting, "cells": found}, indent=2) + "\n")
    (options.out / "grid.md").write_text(page(found, setting, "grid.png"))
    draw(found, options.out / "grid.png")
    if options.page:
        picture = options.page.with_suffix(".png")
        options.page.write_text(page(found, setting, picture.name))
        draw(found, picture)
    print("\n".join(["", *table(found), "", *verdict(found)]))
    print(f"\n{options.out}/grid.json, grid.md, grid.png ({time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main()
