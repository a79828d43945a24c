"""What a training step costs on a GPU: layers of several sizes, beside PyTorch with cuDNN, at equal precision.

The step is that of `benchmarks.train_step`; it ends by reading its loss, and is timed by CUDA events. "eager" asks for
each kernel anew; "captured" is one CUDA graph, ours by `tr.compile(step, graph=True)`, theirs by `torch.cuda.graph`.
Theirs has its cuDNN layer, and a loop over its cells. Each contender has a process, which is warm after its first cell;
one runs at a time.

Two floors: what the matrix products of a step take at the speed of a large one (by operations), and what 4 T + 60 of
the smallest kernels take one after the other (by latency).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from benchmarks import cells, train_step
from benchmarks.cells import Cell, Requirement
from benchmarks.processes import Workers
from benchmarks.rnn_step import GATES
from benchmarks.train_step import CLIP, LR, Made, V, first_losses, numbers

SIZES = [*cells.SIZES, (64, 128, 1024)]
TURN, ROUNDS = 0.12, 3  # seconds that a contender runs at a time, and how often
SAME = 1e-5  # how far, of the loss, the first three may be from PyTorch's
OURS, CAPTURED, TF32 = "tinygrad_rnn", "tinygrad_rnn, captured", "tinygrad_rnn, tf32"
CUDNN, GRAPH, LOOP, CUDNN_TF32 = "PyTorch", "PyTorch, captured", "PyTorch, cells", "PyTorch, tf32"
SAID = 160  # characters of why somebody cannot run


# --- the two sides ------------------------------------------------------------------------------------------------


class Timed:
    """A step on a GPU, which `benchmarks.processes` times by its own `seconds`, by CUDA events."""

    def __init__(
        self, step: Callable[[], float], event: Callable[[], Any], elapsed: Callable[[Any, Any], float]
    ) -> None:
        self.step, self.event, self.elapsed = step, event, elapsed

    def __call__(self) -> object:
        return self.step()

    def seconds(self, wanted: float) -> float:
        """Seconds of one step, the mean over as many as fill the time."""
        self.step()  # caches warm up again after the others' turns
        begin, count, first, last = time.perf_counter(), 0, self.event(), self.event()
        first.record()
        while time.perf_counter() - begin < wanted or not count:
            self.step()
            count += 1
        last.record()
        last.synchronize()
        return 1e-3 * self.elapsed(first, last) / count


def careful(make: Callable[..., Made]) -> Callable[..., Made]:
    """`make`, whose failure is a result: one contender that cannot run leaves the others alone."""

    def made(**size: Any) -> Made:
        try:
            return make(**size)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001 (nobody has run this on a device)
            said = " ".join(f"{type(error).__name__}: {error}".split())
            refused: dict[str, Any] = {"refused": said[:SAID]}
            return lambda: None, refused

    return made


def ours(compiled: bool = False, precision: str = "float32") -> Callable[..., Made]:
    """Our step on the first GPU; and how many launches it makes, as far as that is known, and what CuPy holds."""

    def make(B: int, T: int, H: int, kind: str) -> Made:
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
        step, result = train_step.ours(device="cuda", compiled=compiled, precision=precision)(B, T, H, kind)
        found: dict[str, Any] = {**result, "bytes": cupy.get_default_memory_pool().total_bytes()}
        found["launches"] = launches(step, cupy)
        return Timed(step, cupy.cuda.Event, cupy.cuda.get_elapsed_time), found

    return make


def launches(step: Callable[[], object], cupy: Any = None) -> int | None:
    """The kernels and copies of a step: by the stand-in's count, or by PyTorch's profiler, which sees CuPy's, too."""
    if hasattr(cupy, "standin"):
        cupy.standin.calls.clear()
        step()
        return sum(n for kind, n in cupy.standin.totals().items() if kind != "synchronisation")
    with suppress(Exception):  # no PyTorch, or a profiler that may not look
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            step()
        events = [event for event in seen.events() or () if "CUDA" in str(event.device_type)]
        return len(events) or None
    return None


def theirs(precision: str = "float32", captured: bool = False, by_cells: bool = False) -> Callable[..., Made]:
    """PyTorch's step."""

    def make(B: int, T: int, H: int, kind: str) -> Made:
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        update = torch_update(B, T, H, kind, captured, by_cells)
        step, result = (in_a_graph if captured else plainly)(update)
        found: dict[str, Any] = {**result, "bytes": torch.cuda.max_memory_reserved(), "launches": launches(step)}
        return Timed(step, lambda: torch.cuda.Event(enable_timing=True), lambda a, b: a.elapsed_time(b)), found

    return make


def torch_update(B: int, T: int, H: int, kind: str, captured: bool, by_cells: bool) -> Callable[[], Any]:
    """A step that returns its loss on the GPU."""
    import torch

    class Loop(torch.nn.Module):
        """PyTorch's cell, called step by step."""

        def __init__(self) -> None:
            super().__init__()
            self.cell = getattr(torch.nn, f"{kind}Cell")(H, H)

        def forward(self, x: Any) -> Any:
            state, outputs = None, []
            for x_t in x:
                state = self.cell(x_t, state)
                outputs.append(state[0] if kind == "LSTM" else state)
            return torch.stack(outputs), state

    weights, tokens = numbers(kind, B, T, H)
    ids = torch.from_numpy(tokens).to("cuda")
    inputs, targets = ids[:-1], ids[1:].reshape(-1)
    rnn = Loop() if by_cells else getattr(torch.nn, kind)(H, H)
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(V, H), "rnn": rnn, "linear": torch.nn.Linear(H, V)})
    names = {name: name.replace("rnn.", "rnn.cell.").removesuffix("_l0") if by_cells else name for name in weights}
    model.load_state_dict({names[name]: torch.from_numpy(weight) for name, weight in weights.items()})
    model.to("cuda")
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR, capturable=captured)

    def update() -> Any:
        optimizer.zero_grad(set_to_none=not captured)
        logits = model["linear"](model["rnn"](model["embed"](inputs))[0]).reshape(-1, V)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return loss

    return update


def plainly(update: Callable[[], Any]) -> Made:
    step = lambda: float(update().item())
    return step, first_losses(step)


def in_a_graph(update: Callable[[], Any]) -> Made:
    """The first three steps warm up on a stream of their own, as PyTorch's manual has it; then one is captured."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        losses = [float(update().item()) for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = update()

    def step() -> float:
        graph.replay()
        return float(loss.item())

    return step, {"losses": losses}


CONTENDERS: dict[str, Callable[..., Made]] = {
    OURS: careful(ours()),
    CAPTURED: careful(ours(compiled=True)),
    TF32: careful(ours(precision="tf32")),
    CUDNN: careful(theirs()),
    GRAPH: careful(theirs(captured=True)),
    LOOP: careful(theirs(by_cells=True)),
    CUDNN_TF32: careful(theirs(precision="tf32")),
}


# --- floors, and agreement with the CPU: in processes of their own -------------------------------------------------


def floors(product: int = 4096, many: int = 2000) -> dict[str, float]:
    """Operations a second in a large product of float32, and seconds of one of many smallest kernels."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    a, x = cupy.ones((product, product), dtype="float32"), cupy.ones((1,), dtype="float32")

    def seconds(f: Callable[[], object], count: int) -> float:
        f()
        begin.record()
        for _ in range(count):
            f()
        end.record()
        end.synchronize()
        return 1e-3 * float(cupy.cuda.get_elapsed_time(begin, end)) / count

    return {
        "operations": 2.0 * product**3 / max(1e-12, seconds(lambda: a @ a, 10)),
        "launch": seconds(lambda: cupy.add(x, x, out=x), many),
    }


def operations(kind: str, B: int, T: int, H: int) -> int:
    """Those of the matrix products of a training step: a factor, its way back to the input and to the weight."""
    gates = GATES[kind] * H * H
    return 3 * 2 * (B * T * gates + min(V, B * T) * gates + B * T * H * V)


LIMITS = {"float64": 1e-12, "float32": 1e-5}


def agreement(B: int = 8, T: int = 20, H: int = 32) -> list[dict[str, Any]]:
    """How far the loss and the gradients of a step are from those of the CPU, of the largest element of each."""
    import numpy as np

    import tinygrad_rnn as tr

    found = []
    for kind in GATES:
        weights, tokens = numbers(kind, B, T, H)
        for dtype in LIMITS:
            sides = []
            for device in ("cpu", "cuda"):
                parts: dict[str, Any] = {
                    "embed": tr.nn.Embedding(V, H), "rnn": getattr(tr.nn, kind)(H, H), "linear": tr.nn.Linear(H, V)
                }  # fmt: skip
                for name, part in parts.items():
                    mine = {k.partition(".")[2]: w for k, w in weights.items() if k.startswith(f"{name}.")}
                    part.load_state_dict(mine)
                    part.to(dtype).to(device)
                ids = tr.Tensor(tokens, device=device)
                logits = parts["linear"](parts["rnn"](parts["embed"](ids[:-1]))[0])
                loss = tr.nn.functional.cross_entropy(logits, ids[1:])
                loss.backward()
                gradients = [p.grad.numpy() for part in parts.values() for p in part.parameters()]
                sides.append([loss.numpy(), *gradients])
            errors = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(*sides, strict=True)]
            found.append({"kind": kind, "dtype": dtype, "error": max(errors), "limit": LIMITS[dtype]})
    return found


# --- measuring ----------------------------------------------------------------------------------------------------


def contenders(size: tuple[int, int, int]) -> list[str]:
    """Who runs at a size: TF32 where products are large."""
    return [name for name in CONTENDERS if "tf32" not in name or size[2] >= 512]


def measure(sizes: list[tuple[int, int, int]], allowed: float) -> Iterator[Cell]:
    """One entry a cell: of each contender seconds by round, launches and bytes, or why it cannot run. What the time
    does not allow is left out, the largest sizes first.
    """
    end = time.perf_counter() + allowed
    sides = list(CONTENDERS)
    with Workers(__name__, sides) as workers:
        for cell in sorted(cells.cells(sizes), key=lambda cell: cells.work(cells.size_of(cell))):
            if time.perf_counter() > end:
                break
            results = workers.build(cell, contenders(cells.size_of(cell)))
            refused = {name: result.pop("refused") for name, result in results.items() if "refused" in result}
            workers.built = [name for name in results if name not in refused]
            seconds = workers.rounds_until(math.inf, TURN, most=ROUNDS)
            found = {name: results[name] for name in workers.built}
            yield {**cell, "seconds": seconds, "found": found, "refused": refused}


def losses_agree(cell: Cell) -> str:
    """What is wrong with the first losses, "" if nothing is: ours are those of PyTorch, both in float32."""
    if CUDNN not in cell["found"]:
        return ""
    expected = cell["found"][CUDNN]["losses"]
    for name in (OURS, CAPTURED, GRAPH, LOOP):
        for a, b in zip(cell["found"].get(name, {"losses": expected})["losses"], expected, strict=True):
            if not abs(a - b) <= SAME * abs(b):
                return f"{cells.label(cell)}: {name} has the losses {cell['found'][name]['losses']}, PyTorch {expected}"
    return ""


# --- what is shown ------------------------------------------------------------------------------------------------


def row(cell: Cell, floor: dict[str, float]) -> list[str]:
    """Milliseconds of everybody and of the floors, ratios, launches and memory."""

    def ms(name: str) -> str:
        return f"{1e3 * cells.seconds(cell, name):.2f}" if name in cell["seconds"] else "-"

    def ratio(of: str, to: str) -> str:
        both = of in cell["seconds"] and to in cell["seconds"]
        return f"{cells.ratio(cell, of, to):.2f}" if both else "-"

    kind, (B, T, H) = cell["kind"], cells.size_of(cell)
    by_operations = f"{1e3 * operations(kind, B, T, H) / floor['operations']:.2f}"
    by_latency = f"{1e3 * (4 * T + 60) * floor['launch']:.2f}"
    counts = [str((cell["found"].get(name) or {}).get("launches") or "-") for name in (OURS, CUDNN)]
    memory = [f"{cell['found'][n]['bytes'] / 2**20:.0f}" if n in cell["found"] else "-" for n in (OURS, CUDNN)]
    times = [ms(name) for name in CONTENDERS]
    return [cells.label(cell), *times, by_operations, by_latency, ratio(OURS, CUDNN), ratio(CAPTURED, GRAPH),
            "/".join(counts), "/".join(memory)]  # fmt: skip


HEAD = ["ms a step", *CONTENDERS, "floor, operations", "floor, latency", "eager of PyTorch", "captured of PyTorch",
        "launches, ours/PyTorch", "MiB, ours/PyTorch"]  # fmt: skip


def table(found: list[Cell], floor: dict[str, float]) -> list[str]:
    """A line a cell, in columns."""
    rows = [HEAD, *(row(cell, floor) for cell in cells.in_order(found))]
    widths = [max(len(line[i]) for line in rows) for i in range(len(HEAD))]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in rows]


def goals(found: list[Cell]) -> list[Requirement]:
    """What was asked for, and what was found."""

    def at_most(what: str, sizes: list[tuple[int, int, int]], of: str, to: str, limit: float) -> Requirement:
        wanted = [cell for cell in found if cells.size_of(cell) in sizes]
        ratios = [cells.ratio(cell, of, to) for cell in wanted if {of, to} <= cell["seconds"].keys()]
        if not ratios:
            return Requirement(what, "-", None)
        return Requirement(what, f"{max(ratios):.2f}", max(ratios) <= limit)

    large, every = [(64, 64, 256), (64, 128, 512)], SIZES
    return [
        at_most("within 1.5 of cuDNN at (64,64,256) and (64,128,512)", large, OURS, CUDNN, 1.5),
        at_most("within 1.5 of cuDNN at (16,32,32), both captured", [(16, 32, 32)], CAPTURED, GRAPH, 1.5),
        at_most("never slower than PyTorch's loop of cells", every, OURS, LOOP, 1.0),
    ]


def picture(found: list[Cell], path: str) -> None:
    """How many times as long as cuDNN each takes, a panel a layer."""
    figure, parts = cells.panels(found)
    shown = [(OURS, "o"), (CAPTURED, "s"), (GRAPH, "^"), (LOOP, "x")]
    values = [1.0]
    for axes, row_of in parts.values():
        axes.axvline(1, color="#888888", linewidth=1)
        for place, cell in enumerate(row_of):
            for name, marker in shown:
                if cell and {name, CUDNN} <= cell["seconds"].keys():
                    values.append(cells.ratio(cell, name, CUDNN))
                    axes.plot(values[-1], place, marker, color="C0" if "tinygrad" in name else "C1", label=name)
        axes.set_xlabel("times as long as PyTorch with cuDNN")
        cells.ticks(axes, values)
    handles: dict[str, Any] = {}
    for axes, _ in parts.values():
        of_axes, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, of_axes, strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=150)


def spread(found: list[Cell]) -> float:
    """The largest distance of a round from its median, as a part of that, in half of the cases."""
    parts = [
        max(abs(s / statistics.median(times) - 1) for s in times) for c in found for times in c["seconds"].values()
    ]
    return statistics.median(parts) if parts else 0.0
