"""What it costs to look: the ledger of W_hh beside its backward, and the hooks in a layer where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import call


def least(f: Callable[[], object], rounds: int) -> float:
    """The least time of some calls, in seconds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return min(times)


def looked_at(kind: str, B: int, H: int, T: int) -> dict[str, float]:
    """Seconds of the ledger of a loss at each step, with every entry's norm, and of what it is beside."""
    import tinygrad_rnn as tr

    layer = getattr(tr.nn, kind)(H, H)
    x = tr.randn(T, B, H)

    def forward() -> list[Any]:
        return [tr.square(h).sum() for h in layer(x)[0]]

    def watched() -> list[Any]:
        with tr.explain.watch():
            return forward()

    losses = watched()
    return {
        "forward": least(forward, 20),
        "watched": least(watched, 20),
        "backward": least(lambda: tr.stack(forward()).sum().backward(), 10),
        "ledger": least(lambda: tr.explain.ledger(losses, layer.weight_hh_l0).norms, 5),
    }


def hooks(kind: str, B: int, H: int, T: int) -> dict[str, float]:
    """Seconds of what stands in a layer for those who look, and of a forward and backward of it."""
    import tinygrad_rnn as tr
    from tinygrad_rnn.nn.watching import Steps, watcher

    layer = getattr(tr.nn, kind)(H, H)
    x = tr.randn(T, B, H)
    times = range(T)

    def hook() -> None:
        for _ in range(1000):
            watcher.get()
            iter(Steps(layer, "_l0", 0, times, B))

    return {
        "step": least(lambda: layer(x)[0].sum().backward(), 200),
        "hook": least(hook, 20) / 1000,
    }


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a layer."""
    rows = []
    for kind, B, H, T in [("RNN", 1, 16, 64), ("LSTM", 1, 16, 64), ("GRU", 1, 16, 64), ("LSTM", 8, 64, 64)]:
        row: dict[str, Any] = {"layer": f"{kind} B={B} H={H} T={T}"}
        seconds = call(f"{__name__}:looked_at", kind=kind, B=B, H=H, T=T)
        row |= {f"{name}, ms": 1e3 * value for name, value in seconds.items()}
        seconds = call(f"{__name__}:hooks", kind=kind, B=B, H=H, T=T)
        row |= {"hooks, us": 1e6 * seconds["hook"], "of a step, %": 100 * seconds["hook"] / seconds["step"]}
        rows.append(row)
    return rows
