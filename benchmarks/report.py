"""All that docs/performance.md shows, measured in one go: `make bench` runs this.

The main job, the grid of training steps, the plain loops, the memory of a step, the import, the first use of the extra
`numba`, and long sequences, one after the other. Each leaves its figures in `runs/bench` as it goes; the page and its
pictures are made from these files alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from benchmarks import first_use, grid, imports, loops, main_job, scale, step_memory
from benchmarks.cells import Requirement, markdown
from benchmarks.processes import call, prepare
from tinygrad_rnn.screen import console as console_of
from tinygrad_rnn.screen import say

# Seconds: `grid` and `loops` take what they are given, the others about as long on two cores. 14 minutes in all.
PLAN = {"main_job": 150, "grid": 380, "loops": 100, "step_memory": 40, "imports": 10, "first_use": 30, "scale": 110}
QUICK_PLAN = {"main_job": 50, "grid": 40, "loops": 12, "step_memory": 40, "imports": 10, "first_use": 40, "scale": 40}
DRAWN: dict[str, Any] = {"grid": grid, "loops": loops, "scale": scale}  # the parts that have a picture
JUDGED: dict[str, Any] = {  # the parts of which something was asked
    "main_job": main_job,
    **DRAWN,
    "step_memory": step_memory,
    "imports": imports,
}
PARTS: dict[str, Any] = {**JUDGED, "first_use": first_use}
TITLES = {
    "main_job": "the main job",
    "grid": "training steps",
    "loops": "plain unrolled loops",
    "step_memory": "memory of a step",
    "imports": "the import",
    "first_use": "first use of numba",
    "scale": "long sequences",
}
WHY = """Why, and what it would take. With numba a compiled step is a list of instructions that runs without Python, and
a recurrent layer's products are our own; at the smallest sizes the optimiser, clipping and the gradients, which stay
calls of Python, are a good part of what is left. NumPy alone makes a call from Python for each instruction, of a
microsecond, and multiplies by OpenBLAS, which copies the weight at every step: where the *products alone* take as long
as PyTorch's whole step, only faster ones would help. The plain loop makes a node and new arrays at every op, and
computes them on one core, where PyTorch's ops share large arrays among all; compiled it makes neither, and is the same
graph of the same ops."""
BUSY = 0.5  # a load average above which figures are not to be trusted
PATIENCE = 60  # seconds to wait for it to fall: that of a machine which has just installed things does


class Clock(Progress):
    """A bar over time, which is planned, rather than over work."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            task.completed = min(task.elapsed or 0, task.total or 0)
        yield from super().get_renderables()


class Left(ProgressColumn):
    """Time left, in minutes and seconds."""

    def render(self, task: Task) -> Text:
        left = max(0, (task.total or 0) - task.completed)
        return Text(f"{int(left) // 60}:{int(left) % 60:02d} left")


# --- measuring ------------------------------------------------------------------------------------


def load() -> float:
    """How many programs wanted a core in the last minute, on average; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def wait_until_quiet(console: Console, patience: float) -> float:
    """The load average, after it has fallen or patience is at its end."""
    end = time.monotonic() + patience
    if load() > BUSY and patience:
        console.print(f"Load average {load():.1f}: waiting up to {patience:.0f} s for the machine to become quiet")
    while load() > BUSY and time.monotonic() < end:
        time.sleep(2)
    return load()


def setting_of(threads: int, quick: bool, busy: float) -> dict[str, Any]:
    """What the heading says of machine, libraries and circumstances."""
    lines = [f"Python {platform.python_version()}, {platform.machine()}, {cpu()}", *prepare(threads)]
    lines += [f"load average at the start: {busy:.1f}", *call("benchmarks.report:kernels")]
    return {"lines": lines, "load": busy, "quick": quick}


def cpu() -> str:
    """The processor's name, where the system tells it, and how many cores there are."""
    try:
        names = [line.split(":")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    except OSError:
        names = []
    return f"{' '.join((names or [platform.processor() or 'a processor'])[0].split())}, {os.cpu_count()} cores"


def kernels() -> list[str]:
    """The BLAS kernels of everybody, in words; runs in a worker."""
    import numpy as np  # before BLAS is asked: it brings its own
    from threadpoolctl import threadpool_info

    lines = [
        f"NumPy {np.__version__}, which ours, MyGrad and HIPS autograd use: {entry['internal_api']} "
        f"{entry.get('version')}, kernels for {entry.get('architecture', 'this machine')}, "
        f"{entry['num_threads']} threads"
        for entry in threadpool_info()
        if entry["user_api"] == "blas"
    ]
    if find_spec("torch"):
        import torch

        vectors = torch.backends.cpu.get_cpu_capability()
        blas = "MKL" if torch.backends.mkl.is_available() else "no MKL"
        lines.append(f"PyTorch {torch.__version__}: {vectors}, {blas}, {torch.get_num_threads()} threads")
    if find_spec("jax"):
        import jax

        lines.append(f"JAX {jax.__version__}: XLA on the CPU, a thread for each of these cores")
    return lines


def measure(options: argparse.Namespace, console: Console) -> None:
    """Run the parts; their figures go into files as they come."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ["setting", *PLAN]:
        (options.out / f"{name}.json").unlink(missing_ok=True)  # figures of two runs are not mixed
    busy = wait_until_quiet(console, 0 if options.quick else PATIENCE)
    setting = setting_of(options.threads, options.quick, busy)
    save(options.out, "setting", setting)
    console.print("\n".join(setting["lines"]), style="dim", markup=False, soft_wrap=True)
    if busy > BUSY:
        say(console, (f"The machine is busy (load average {busy:.1f}): do not trust these figures.", "yellow"))
    plan = QUICK_PLAN if options.quick else PLAN
    columns = (TextColumn("{task.description:36}"), BarColumn(), Left())
    with Clock(*columns, console=console, refresh_per_second=1) as progress:
        task = progress.add_task("", total=sum(plan[name] for name in options.parts))
        for number, name in enumerate(options.parts):
            begin = time.perf_counter()
            progress.update(task, description=TITLES[name])
            run(name, options, plan[name], lambda text: progress.update(task, description=text))
            elapsed = progress.tasks[0].elapsed or 0
            progress.update(task, total=elapsed + sum(plan[later] for later in options.parts[number + 1 :]))
            progress.console.print(f"{TITLES[name]}: {time.perf_counter() - begin:.0f} s")


def run(name: str, options: argparse.Namespace, allowed: float, show: Any) -> None:
    """Measure one part."""

    def keep(found: list[Any]) -> None:
        save(options.out, name, found)
        show(f"{TITLES[name]}, {len(found)} cells")

    if name == "main_job":
        save(options.out, name, main_job.measure(rounds=1 if options.quick else 3))
    elif name in ("grid", "loops"):
        PARTS[name].measure(options.quick, allowed, keep)
    elif name in ("step_memory", "imports"):
        save(options.out, name, PARTS[name].measure(full=False))
    elif name == "first_use":
        save(options.out, name, first_use.measure(options.quick))
    else:
        prepare(1)  # the products of a step are small; nothing comes after it
        save(options.out, name, scale.measure(options.quick))


def save(folder: Path, name: str, found: Any) -> None:
    """Write a file in one go, so that an interrupted run leaves a whole one."""
    part = folder / f"{name}.json.part"
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / f"{name}.json")


def read(folder: Path) -> dict[str, Any]:
    """The figures that there are."""
    paths = {name: folder / f"{name}.json" for name in ["setting", *PLAN]}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


# --- the page -------------------------------------------------------------------------------------


def requirements(found: dict[str, Any]) -> list[Requirement]:
    return [line for name, part in JUDGED.items() if found.get(name) for line in part.requirements(found[name])]


def heading(setting: dict[str, Any]) -> list[str]:
    lines = [
        "# Performance",
        "",
        "Written by `make bench`, every figure and verdict on it: one run, each contender in a process of its own, one",
        "of them running at a time in turn on the same cores, medians compared. Ratios are the time of another divided",
        "by ours: above 1 ours is faster.",
        "",
    ]
    if setting["load"] > BUSY:
        lines += [
            f"**The machine was busy, load average {setting['load']:.1f}: these figures are not to be trusted.**",
            "",
        ]
    if setting["quick"]:
        lines += ["**A small look (`--quick`): few sizes, few rounds.**", ""]
    return [*lines, *(f"- {line}" for line in setting["lines"]), ""]


def page(found: dict[str, Any], folder: str) -> str:
    """docs/performance.md, with its pictures in `folder`."""
    lines = heading(found["setting"])
    if rows := requirements(found):
        lines += ["## What was asked for", ""]
        lines += [
            "The verdicts are computed from the figures below. Where ours falls short, by name, in brackets how many"
        ]
        lines += ["times as long the other takes:", ""]
        behind = [line for name, part in JUDGED.items() if found.get(name) for line in part.not_reached(found[name])]
        lines += [*markdown(["requirement", "found", ""], [r.row() for r in rows]), ""]
        lines += [*behind, "", WHY, ""] if behind else []
    for name in filter(found.get, PLAN):
        lines += PARTS[name].section(found[name], *([f"{folder}/{name}.png"] if name in DRAWN else []))
        lines += ["This part ran on one core, with one thread.", ""] if name == "scale" else []
    absent = [TITLES[name] for name in PLAN if not found.get(name)]
    if absent:
        lines += [f"Not measured in this run: {', '.join(absent)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def write(found: dict[str, Any], path: Path) -> None:
    """The page, and its pictures in the folder of its name."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, module in DRAWN.items():
        if found.get(name):
            module.draw(found[name], folder / f"{name}.png")
    path.write_text(page(found, folder.name), encoding="utf-8")


def overview(found: dict[str, Any], screen: Console) -> None:
    """Requirements and verdicts, on the terminal."""
    for requirement in requirements(found):
        what, value, verdict = requirement.row()
        colour = {True: "green", False: "red", None: "dim"}[requirement.reached]
        say(screen, f"  {what}: {value}, ", (verdict.strip("*"), colour))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small look: two sizes, few rounds")
    parser.add_argument("--only", nargs="+", choices=PLAN, default=list(PLAN), dest="parts", metavar="PART",
                        help=", ".join(PLAN))  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="cores and threads for each worker (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of figures (default: runs/bench)")
    parser.add_argument("--page", type=Path, help="write this page, too; its pictures go into the folder of its name")
    parser.add_argument("--from-json", action="store_true", help="measure nothing: write from the last run's figures")
    options = parser.parse_args(argv)
    screen = console_of()
    if not find_spec("matplotlib"):
        parser.error("the pictures need matplotlib: pip install '.[viz]'")
    options.parts = [name for name in PLAN if name in options.parts]
    try:
        if not options.from_json:
            measure(options, screen)
        found = read(options.out)
        if "setting" not in found:
            parser.error(f"no figures in {options.out}")
        for path in filter(None, (options.out / "performance.md", options.page)):
            write(found, path)
            say(screen, f"Written: {path}")
        overview(found, screen)
    except KeyboardInterrupt:
        say(screen, f"Stopped. What was measured is in {options.out}; --from-json makes the page of it.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
