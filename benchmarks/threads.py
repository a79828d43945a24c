"""What threads add: a recurrent layer forwards and backwards, its products alone, and a training step, by 1 and by all.

The layer and the step are compiled, with numba; the products are NumPy's, by the threads of its BLAS. The least time of
some rounds counts, in which everybody has a turn; after products of several threads there is a pause, since OpenBLAS's
threads wait for more to do, and that takes a core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.processes import call
from benchmarks.rnn_step import GATES

SIZES = [(32, 64, 128), (64, 64, 256), (64, 128, 512)]
PAUSE = 0.2  # seconds after which OpenBLAS's threads sleep


def layer_of(kind: str, B: int, T: int, H: int) -> Callable[[], object]:
    """A layer forwards, and backwards to its weights."""
    import tinygrad_rnn as tr

    layer, x, g = getattr(tr.nn, kind)(H, H), tr.randn(T, B, H), tr.randn(T, B, H)

    @tr.compile
    def run() -> None:
        layer.zero_grad()
        (layer(x)[0] * g).sum().backward()

    return run


def products_of(kind: str, B: int, T: int, H: int) -> Callable[[], object]:
    """The products of that, and nothing else."""
    import numpy as np

    def array(*shape: int) -> Any:
        return np.full(shape, 0.01, np.float32)

    width = GATES[kind] * H
    x, h, W = array(T * B, H), array(T, B, H), array(width, H)
    a, z, d, dW = array(T * B, width), array(B, width), array(B, H), array(width, H)
    transposed, rows = W.T.copy(), a.reshape(T, B, width)

    def run() -> None:
        np.matmul(x, W.T, out=a)
        for t in range(T):
            np.matmul(h[t], transposed, out=z)
        for t in range(T):
            np.matmul(rows[t], W, out=d)
        for factor in (x, h.reshape(T * B, H)):
            np.matmul(a.T, factor, out=dW)

    return run


def step_of(kind: str, B: int, T: int, H: int) -> Callable[[], object]:
    """The step of `train_step`."""
    from benchmarks.train_step import ours

    step, _ = ours(compiled=True, numba=True)(B, T, H, kind)
    return step


def seconds(kind: str, B: int, T: int, H: int, rounds: int) -> dict[str, list[float]]:
    """The least seconds of each, by one thread and by all."""
    from threadpoolctl import threadpool_info, threadpool_limits

    import tinygrad_rnn as tr

    tr.enable_numba()
    all_of_them = max(x["num_threads"] for x in threadpool_info())
    contenders = {
        "layer": layer_of(kind, B, T, H),
        "step": step_of(kind, B, T, H),
        "products": products_of(kind, B, T, H),
    }
    found: dict[str, list[float]] = {name: [float("inf")] * 2 for name in contenders}
    for k in range(rounds + 1):
        for place, count in enumerate((1, all_of_them)):
            for name, run in contenders.items():
                with threadpool_limits(count):
                    for _ in range(3):  # the first ones, which are recorded, among them
                        begin = time.perf_counter()
                        run()
                        spent = time.perf_counter() - begin
                        found[name][place] = min(found[name][place], spent) if k else float("inf")
            time.sleep(PAUSE)
    return found


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a layer and size; `of one` is how many times as fast all threads are as one."""
    rows = []
    for kind in GATES if full else ["LSTM"]:
        for B, T, H in SIZES if full else SIZES[:2]:
            found = call(f"{__name__}:seconds", kind=kind, B=B, T=T, H=H, rounds=20 if full else 8)
            row: dict[str, Any] = {"layer": f"{kind} {B},{T},{H}"}
            for name, (one, some) in found.items():
                row |= {f"{name}, ms": 1e3 * some, f"{name}, of one": one / some}
            rows.append({**row, "layer / products": found["layer"][1] / found["products"][1]})
    return rows
