"""`for x_t in x`: the backward of a loop over the time steps of one array must cost T, and not T times T.

Where a slice pulls back a whole array of zeros, four times the steps cost sixteen times the time.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.processes import Missing, call


def ours(T: int, H: int) -> float:
    import tinygrad_rnn as tr

    x = tr.ones((T, H), requires_grad=True)

    def backward() -> float:
        total = tr.zeros(())
        for x_t in x:
            total = total + (x_t * x_t).sum()
        begin = time.perf_counter()
        total.backward()
        seconds = time.perf_counter() - begin
        assert x.grad.numpy()[-1, -1] == 2
        x.grad = None
        return seconds

    return statistics.median(backward() for _ in range(5))


def in_torch(T: int, H: int) -> float:
    """Slices by index, as a loop over a range writes them; `unbind` is what PyTorch's users learn instead."""
    import torch

    x = torch.ones(T, H, requires_grad=True)

    def backward() -> float:
        total = torch.zeros(())
        for t in range(T):
            x_t = x[t]
            total = total + (x_t * x_t).sum()
        begin = time.perf_counter()
        total.backward()
        return time.perf_counter() - begin

    return statistics.median(backward() for _ in range(3))


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a length; PyTorch at 16,000 steps takes minutes and is left out."""
    rows = []
    for T in (1000, 4000, 16000):
        row = {"T": T, "backward, ms": 1e3 * call(f"{__name__}:ours", T=T, H=256)}
        row["us a step"] = 1e3 * row["backward, ms"] / T
        if T <= 4000:
            try:
                row["PyTorch x[t], ms"] = 1e3 * call(f"{__name__}:in_torch", T=T, H=256)
            except Missing as missing:
                if not rows:
                    print(f"  PyTorch: skipped, {missing}")
        rows.append(row)
    return rows
