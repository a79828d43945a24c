"""Long sequences: the time of a step, and memory, against the number of steps T, with `checkpoint` and without.

One training step without an optimiser, in float32: ids are looked up, a fused recurrent layer runs over T steps, the
loss is the mean square of its output over all steps, backward. Reported is the time per step of the sequence, which
should not depend on T, and the peak of memory, which should be linear in T.

**Bytes per step.** At its peak the plain run holds for each step 4 B H (2 R + 2 G + 1) bytes in arrays:

    R   rows of the layer's packed state, from the forward: an LSTM's three sigmoids, tanh, h, c (6), a GRU's
        r, z, n, m, h (5), an RNN's h (1)
    R   their gradients: what goes to the output is handed to all steps at once (an RNN's are one array of all steps)
    G   blocks of the projected input, x W_ihᵀ + b of all steps (LSTM 4, GRU 3, RNN 1)
    G   their gradient
    1   the input, the rows that were looked up: a second derivative would need them

The output and its square are gone by then. To this come Python objects, nodes, tensors and the heads of arrays, whose
number has nothing to do with B and H: they are measured apart, by a layer with B = H = 1. Constant, and so not in the
slope, are the gradients of the weights, and the pairs that wait to become one matrix product, 1,024 rows at most.

**In segments.** The layer runs on segment after segment of about √T steps, with the state carried over; each segment,
lookup and loss included, is inside `tr.checkpoint`. What is held is then one segment's graph, and a state for each
segment: both grow as √T. The price is every forward twice, and work that is done once for a call of a layer or of
`checkpoint`, which is shared by fewer steps: segments of 4 √T pay a quarter of it, with about four times the memory.
Both are measured. All contenders must agree in loss and gradients: none cuts the gradient, as truncated BPTT does.

**What is fair.** Memory is what a whole step asks for at its peak, forward and backward, by tracemalloc, to which
NumPy reports every array. RSS would depend on what the allocator keeps; it is given for the longest run as a check.
Not counted are the weights and the ids, which are there before: O(T), but a byte each, and the data set's. Each
measurement of memory has a process of its own; so has each contender at each length where time is measured, one of
them running at a time, round-robin over contenders and lengths. Ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.cells import Requirement
from benchmarks.processes import Workers, agree, call, current_memory, peak_memory, prepare

MODULE = "benchmarks.scale"  # also where it runs as a program
V = 65
LENGTHS = [64, 256, 1024, 4096, 16384]
LONG = 10_000  # from here on three rounds must do: each takes many seconds
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
ROWS = {"RNN": 1, "LSTM": 6, "GRU": 5}
PLAIN, ROOT_T = "plain", "segments of √T"
SEGMENTS = {ROOT_T: 1, "segments of 4√T": 4}
NAMES = [PLAIN, *SEGMENTS]

Made = tuple[Callable[[], object], dict[str, list[float]]]


def segment_of(T: int, factor: int) -> int:
    """How many steps a segment has."""
    return min(T, round(factor * math.sqrt(T)))


def predicted(kind: str, B: int, H: int) -> int:
    """Bytes in arrays for each step, at the peak of the plain run."""
    return 4 * B * H * (2 * ROWS[kind] + 2 * GATES[kind] + 1)


def contender(factor: int) -> Callable[..., Made]:
    """The step of a training run: plain for 0, else in segments of `factor` √T steps."""

    def make(kind: str, B: int, T: int, H: int) -> Made:
        import numpy as np

        import tinygrad_rnn as tr

        tr.keep_freed_memory()  # as `tinygrad-rnn train` does
        tr.manual_seed(0)
        embed, layer = tr.nn.Embedding(V, H), getattr(tr.nn, kind)(H, H)
        parameters = [*embed.parameters(), *layer.parameters()]
        ids = np.random.default_rng(0).integers(0, V, (T, B), dtype=np.uint8)

        def loss_of(ids: Any, state: Any) -> Any:
            output, state = layer(embed(ids), state)
            return tr.square(output).sum() / (T * B * H), state

        def forward() -> Any:
            if not factor:
                return loss_of(ids, None)[0]
            total, state, steps = 0, None, segment_of(T, factor)
            for first in range(0, T, steps):
                loss, state = tr.checkpoint(loss_of, ids[first : first + steps], state)
                total = total + loss
            return total

        def step() -> float:
            for parameter in parameters:
                parameter.grad = None
            loss = forward()
            loss.backward()
            return loss.item()

        loss = step()
        return step, {"loss": [loss], "norms": [tr.norm(p.grad).item() for p in parameters]}

    return make


CONTENDERS = {PLAIN: contender(0), **{name: contender(factor) for name, factor in SEGMENTS.items()}}


def peak(name: str, **size: Any) -> int:
    """Bytes that one step asks for at its peak: a second one, when whatever is cached is there."""
    import tracemalloc

    step, _ = CONTENDERS[name](**size)
    tracemalloc.start()
    step()
    return tracemalloc.get_traced_memory()[1]


def resident(name: str, **size: Any) -> int:
    """By how many bytes the peak of RSS exceeds what it was before the first step."""
    import tinygrad_rnn as tr

    tr.zeros(1)
    before = current_memory()
    CONTENDERS[name](**size)
    return peak_memory() - before


def measure(quick: bool, kinds: tuple[str, ...] = ("LSTM",), B: int = 8, H: int = 64) -> dict[str, Any]:
    """Seconds of every round and bytes at the peak, for each layer, length and contender."""
    lengths, rounds, seconds = (LENGTHS[:3], 3, 0.1) if quick else (LENGTHS, 5, 0.25)
    layers = []
    for kind in kinds:
        sizes = [{"kind": kind, "B": B, "T": T, "H": H} for T in lengths]
        raced = race(sizes, rounds, seconds)
        cells = []
        for size, times in zip(sizes, raced, strict=True):
            held = {name: call(f"{MODULE}:peak", name=name, **size) for name in NAMES}
            cells.append({"T": size["T"], "seconds": times, "bytes": held})
        small = [call(f"{MODULE}:peak", name=PLAIN, kind=kind, B=1, T=T, H=1) for T in (256, 1024)]
        objects = (small[1] - small[0]) / (1024 - 256) - predicted(kind, 1, 1)
        whole = call(f"{MODULE}:resident", name=PLAIN, **sizes[-1])
        layers.append({"kind": kind, "cells": cells, "objects": objects, "resident": whole})
    return {"B": B, "H": H, "layers": layers}


def race(sizes: list[dict[str, Any]], rounds: int, seconds: float) -> list[dict[str, list[float]]]:
    """The seconds of a training step in each round, by contender; one entry a size."""
    found: list[dict[str, list[float]]] = [{name: [] for name in NAMES} for _ in sizes]
    with ExitStack() as stack:
        teams = [stack.enter_context(Workers(MODULE, NAMES)) for _ in sizes]
        for team, size in zip(teams, sizes, strict=True):
            agree(team.build(size))
        for number in range(rounds):  # round by round over all lengths: what slows the machine down slows all of them
            for team, size, times in zip(teams, sizes, found, strict=True):
                if number < 3 or size["T"] < LONG:
                    for name, value in team.race(1, seconds).items():
                        times[name].append(value)
    return found


def per_step(cell: dict[str, Any], name: str) -> float:
    """Seconds for each step of the sequence."""
    return statistics.median(cell["seconds"][name]) / cell["T"]


def ratio(cell: dict[str, Any], name: str) -> float:
    """How many times as long as the plain run `name` takes: the median over the rounds."""
    seconds = cell["seconds"]
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[PLAIN], strict=True))


def slope(cells: list[dict[str, Any]], name: str) -> float:
    """Bytes for each further step, from the second longest sequence to the longest."""
    a, b = cells[-2:]
    return (b["bytes"][name] - a["bytes"][name]) / (b["T"] - a["T"])


def exponent(cells: list[dict[str, Any]], name: str) -> float:
    """p where memory grows as T to the p, over the last three lengths: before them the weights' gradients count."""
    a, b = cells[-3], cells[-1]
    return math.log(b["bytes"][name] / a["bytes"][name]) / math.log(b["T"] / a["T"])


def table(layer: dict[str, Any]) -> list[str]:
    """A row a length: microseconds per step, how many times as long in segments, and megabytes at the peak."""
    head = ["T", f"{PLAIN}, µs a step", *(f"{n} / {PLAIN}" for n in SEGMENTS), *(f"{n}, MB" for n in NAMES)]
    rows = [head, ["--:"] * len(head)]
    for cell in layer["cells"]:
        rows.append([f"{cell['T']:,}", f"{1e6 * per_step(cell, PLAIN):.0f}"])
        rows[-1] += [f"{ratio(cell, name):.2f}" for name in SEGMENTS]
        rows[-1] += [f"{cell['bytes'][name] / 1e6:.1f}" for name in NAMES]
    return ["| " + " | ".join(row) + " |" for row in rows]


def verdict(layer: dict[str, Any], B: int, H: int) -> list[str]:
    """What the figures say of time, of memory, and of the price of less memory."""
    kind, cells = layer["kind"], layer["cells"]
    first, last = cells[0], cells[-1]
    times = [per_step(cell, PLAIN) for cell in cells]
    arrays, objects = predicted(kind, B, H), layer["objects"]
    measured, expected = slope(cells, PLAIN), arrays + objects
    lines = [
        f"- Time per step: {1e6 * min(times):.0f} to {1e6 * max(times):.0f} µs; at T = {last['T']:,} it is "
        f"{times[-1] / times[0]:.2f} times that at T = {first['T']:,}.",
        f"- Memory of the plain run: {measured:,.0f} bytes for each further step, of {expected:,.0f} predicted "
        f"({measured / expected:.3f}): {arrays:,} in arrays, {objects:,.0f} in objects. It grows as T to the "
        f"{exponent(cells, PLAIN):.2f}.",
        f"- RSS of the plain run grows by {layer['resident'] / 1e6:.0f} MB at T = {last['T']:,}.",
    ]
    for name in SEGMENTS:
        less = last["bytes"][PLAIN] / last["bytes"][name]
        lines.append(
            f"- In {name} steps memory grows as T to the {exponent(cells, name):.2f}; at T = {last['T']:,} it is "
            f"{less:.0f} times less, in {ratio(last, name):.2f} times the time."
        )
    return lines


def requirements(found: dict[str, Any]) -> list[Requirement]:
    """What was asked of long sequences, judged where the longest was run; `checkpoint` has segments of √T steps."""
    lines = []
    for layer in found["layers"]:
        cells, words = layer["cells"], f"long sequences, {layer['kind']}"
        first, last, longest = cells[0], cells[-1], cells[-1]["T"] == max(LENGTHS)
        flat = per_step(last, PLAIN) / per_step(first, PLAIN)
        stated = slope(cells, PLAIN) / (predicted(layer["kind"], found["B"], found["H"]) + layer["objects"])
        power, price = exponent(cells, ROOT_T), ratio(last, ROOT_T)
        lines += [
            Requirement(
                f"{words}: time per step flat from T = {first['T']:,} to {last['T']:,}, to 1.5",
                f"{flat:.2f}",
                flat <= 1.5 if longest else None,
            ),
            Requirement(
                f"{words}: memory linear, each step the bytes stated, to 1 %",
                f"{stated:.3f}",
                abs(stated - 1) <= 0.01 if longest else None,
            ),
            Requirement(
                f"{words}: at the longest checkpoint brings memory to √T (T to the 0.6) in at most 1.4 times the time",
                f"T to the {power:.2f}, {price:.2f}",
                power <= 0.6 and price <= 1.4 if longest else None,
            ),
        ]
    return lines


def not_reached(found: dict[str, Any]) -> list[str]:
    """The lengths at which less memory costs more time than was asked."""
    lines = []
    for layer in found["layers"]:
        dear = [f"T = {c['T']:,} ({ratio(c, ROOT_T):.2f})" for c in layer["cells"] if ratio(c, ROOT_T) > 1.4]
        if dear:
            lines.append(f"- {layer['kind']} in {ROOT_T} steps, more than 1.4 times the time: {', '.join(dear)}.")
    return lines


def section(found: dict[str, Any], picture: str = "scale.png") -> list[str]:
    """The section of docs/performance.md."""
    B, H = found["B"], found["H"]
    lines = [
        "## Long sequences",
        "",
        "Forward and backward of one fused layer in float32 over T steps, ids looked up before it, a loss over all",
        f"steps after it, B = {B}, H = {H}, no optimiser. In segments: the layer runs on one segment after the other,",
        "each with its lookup and its loss inside `tr.checkpoint`, the state carried over; loss and gradients are the",
        "same. Memory is the peak of what one such step asks for, by tracemalloc; weights and ids are not counted.",
        "`benchmarks/scale.py` explains the bytes of a step.",
        "",
        f"![time per step and peak of memory against the number of steps]({picture})",
    ]
    for layer in found["layers"]:
        lines += ["", f"**{layer['kind']}**", "", *verdict(layer, B, H), "", *table(layer)]
    return [*lines, ""]


def draw(found: dict[str, Any], path: Path) -> None:
    """Two panels over T, both axes logarithmic: time per step, and the peak of memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from examples.common.plots import CELLS, tones

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    many = len(found["layers"]) > 1
    lines = []
    for layer in found["layers"]:
        cells, colours = layer["cells"], tones(CELLS[layer["kind"]], len(NAMES))
        lengths = [cell["T"] for cell in cells]
        for i, (name, marker) in enumerate(zip(NAMES, "so^", strict=True)):
            label = f"{layer['kind']}, {name}" if many else name
            look = {"color": colours[i], "marker": marker, "label": label}
            lines += left.plot(lengths, [1e6 * per_step(cell, name) for cell in cells], **look)
            right.plot(lengths, [cell["bytes"][name] / 1e6 for cell in cells], **look)
        if not many:  # the law's slope, from the last point back
            for name, power in ((PLAIN, 1), *((name, 0.5) for name in SEGMENTS)):
                end = cells[-1]["bytes"][name] / 1e6
                law = [end * (T / lengths[-1]) ** power for T in lengths]
                right.plot(lengths, law, color="black", linewidth=0.6, linestyle=":")
    left.set(ylabel="time per step, µs", title="Time per step")
    right.set(ylabel="peak memory, MB", title="Memory" if many else "Memory; dotted: T and √T")
    top = max(1e6 * per_step(cell, name) for layer in found["layers"] for cell in layer["cells"] for name in NAMES)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="steps T")
        axes.set_xticks(lengths, [f"{T:,}" for T in lengths])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if t < 2 * top]
    left.set_yticks(ticks, [str(t) for t in ticks])
    left.set_ylim(10, 2 * top)
    figure.legend(handles=lines, loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 1,024 steps, fewer rounds")
    parser.add_argument("--kinds", nargs="+", choices=GATES, default=["LSTM"], help="layers (default: LSTM)")
    parser.add_argument("--batch", type=int, default=8, help="sequences in the batch (default: 8)")
    parser.add_argument("--hidden", type=int, default=64, help="hidden units (default: 64)")
    parser.add_argument(
        "--threads", type=int, default=1, help="cores and threads (default: 1, the products of a step are small)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of figures (default: runs/bench)")
    options = parser.parse_args()

    begin = time.perf_counter()
    setting = [f"Python {platform.python_version()}, {platform.machine()}", *prepare(options.threads)]
    if hasattr(os, "getloadavg"):
        setting.append(f"load average at the start: {os.getloadavg()[0]:.1f}")
    print("\n".join(setting), flush=True)
    found = measure(options.quick, tuple(options.kinds), options.batch, options.hidden)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scale.json").write_text(json.dumps({"setting": setting, **found}, indent=2) + "\n")
    (options.out / "scale.md").write_text("\n".join(section(found)))
    draw(found, options.out / "scale.png")
    for layer in found["layers"]:
        print("\n".join(["", layer["kind"], "", *table(layer), "", *verdict(layer, found["B"], found["H"])]))
    print(f"\n{options.out}/scale.json, scale.md, scale.png ({time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main()
