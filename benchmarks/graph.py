"""A chain of additions: the time and memory to build it, differentiate it and let it go, at three lengths.

Linear means that each line is twice the one before. `drop` is the time to free a graph on which no backward
ever ran: where nodes free each other recursively, that is what overflows the stack.
"""

from __future__ import annotations

import gc
import time
from itertools import pairwise
from typing import Any

from benchmarks.processes import call, peak_memory


def chain(length: int, backward: bool) -> dict[str, float]:
    """Seconds and bytes of one chain; run in a process of its own."""
    import tinygrad_rnn as tr

    x = tr.Tensor(1.0, requires_grad=True)
    (x + x).backward()
    x.grad = None
    gc.disable()
    before = peak_memory()
    clock = [time.perf_counter()]
    y = x
    for _ in range(length):
        y = y + 1.0
    clock.append(time.perf_counter())
    if backward:
        y.backward()
        assert x.grad.item() == 1
        clock.append(time.perf_counter())
    del y
    clock.append(time.perf_counter())
    seconds = [b - a for a, b in pairwise(clock)]
    names = ("build", "backward", "free") if backward else ("build", "drop")
    return {
        "additions": length,
        **{f"{name}, s": value for name, value in zip(names, seconds, strict=True)},
        "total, s": sum(seconds),
        "peak memory, MB": (peak_memory() - before) / 1e6,
    }


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a length, differentiated and dropped."""
    rows = []
    for length in (250_000, 500_000, 1_000_000):
        row = call(f"{__name__}:chain", length=length, backward=True)
        row["drop, s"] = call(f"{__name__}:chain", length=length, backward=False)["drop, s"]
        rows.append(row)
    return rows
