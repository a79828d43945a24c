"""All that needs a GPU in one command, `python -m benchmarks.gpu`: tests, agreement, then times beside PyTorch's.

It takes the Python that runs it and what is installed there, since a machine with a GPU often has no network. Its first
line names the folder that gets the results, as text, JSON and a picture; the next ones say what is missing. The exit
status is not 0 where something failed, disagreed, or where nothing was checked; a goal that is not reached is told.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import cells, gpu_grid
from benchmarks.processes import ROOT, Missing, call, prepare

NEEDED = {"numpy": "everything", "cupy": "everything", "pytest": "the tests", "hypothesis": "the tests"}
HELPFUL = {
    "torch": "the comparison with cuDNN",
    "matplotlib": "the picture",
    "threadpoolctl": "a few tests",
    "safetensors": "a few tests",
}
ALLOWED = 150  # seconds for all times; with the tests and what starts first it is less than 5 minutes


class Results:
    """What is said, on the screen and in the text of a folder, which gets the JSON and the picture, too."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.text = folder, folder / "gpu.txt"
        self.text.write_text("", encoding="utf-8")
        self.found: dict[str, Any] = {"date": date.today().isoformat(), "python": platform.python_version()}

    def say(self, *lines: str) -> None:
        for line in lines:
            print(line, flush=True)
        with self.text.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def keep(self, **found: Any) -> None:
        """Add to the JSON, which is whole after each part."""
        self.found |= found
        (self.folder / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")


def marked() -> list[str]:
    """The files with tests that need a GPU: others may import what is not installed here."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("tests/**/test_*.py"))}
    return [str(path.relative_to(ROOT)) for path, text in texts.items() if "pytest.mark.gpu" in text]


def look_around(results: Results) -> dict[str, str]:
    """Say what is installed here; returns what is not, and what it is for."""
    results.say(f"Python {platform.python_version()}, {sys.executable}")
    missing, versions = {}, {}
    for name, use in (NEEDED | HELPFUL).items():
        if importlib.util.find_spec(name) is None:
            missing[name] = use
            results.say(f"Missing: {name}, for {use}")
            continue
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # CuPy's wheels have other names
            versions[name] = str(getattr(importlib.import_module(name), "__version__", ""))
        results.say(f"{name} {versions[name]}")
    results.keep(versions=versions, missing=missing)
    return missing


def tests(results: Results, missing: dict[str, str]) -> bool:
    """Run the tests marked `gpu`; whether they ran and passed."""
    if not missing.keys().isdisjoint(NEEDED):
        results.say("The tests were not run.")
        return False
    # a machine's pytest may be older than the one that this project asks for
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", "minversion=7", *marked()]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    results.say(*done.stdout.splitlines())
    results.keep(tests={"status": done.returncode, "said": done.stdout.splitlines()[-1:]})
    return done.returncode == 0


def agrees(results: Results) -> bool:
    """Whether a step on the GPU has the loss and the gradients of the CPU."""
    found = call("benchmarks.gpu_grid:agreement")
    results.say("", "Loss and gradients, beside the CPU's: the largest error, of the largest element of each")
    for row in found:
        fine = "" if row["error"] <= row["limit"] else ": THEY DIFFER"
        results.say(f"  {row['kind']:4} {row['dtype']}  {row['error']:.1e}  (at most {row['limit']:.0e}){fine}")
    results.keep(agreement=found)
    return all(row["error"] <= row["limit"] for row in found)


def times(results: Results, sizes: list[tuple[int, int, int]], allowed: float, floors: dict[str, Any]) -> bool:
    """Measure and show the grid; whether the first losses are PyTorch's."""
    floor = call("benchmarks.gpu_grid:floors", **floors)
    rate = f"{floor['operations'] / 1e12:.2f} T operations a second, {1e6 * floor['launch']:.1f} µs a smallest kernel"
    results.say("", f"Floors: a large product of float32 makes {rate}")
    found: list[cells.Cell] = []
    for cell in gpu_grid.measure(sizes, allowed):
        found.append(cell)
        results.keep(floors=floor, cells=found)
    results.say("", "Times of a training step (B, T, H), which ends by reading its loss", *gpu_grid.table(found, floor))
    left = 3 * len(sizes) - len(found)
    results.say(*[f"Left out, for want of time: {left} of the largest"] * bool(left))
    refusals = {f"{name}: {why}" for cell in found for name, why in cell["refused"].items()}
    results.say(
        *sorted(refusals), f"Rounds lie within {100 * gpu_grid.spread(found):.1f} % of their median, or less, in half"
    )
    wrong = list(filter(None, map(gpu_grid.losses_agree, found)))
    results.say(*[f"Losses differ: {why}" for why in wrong])
    goals = gpu_grid.goals(found)
    results.say("", *(f"Goal, {goal.what}: {goal.found}, {goal.row()[-1].strip('*')}" for goal in goals))
    results.keep(losses=wrong, goals=[goal._asdict() for goal in goals])
    if importlib.util.find_spec("matplotlib") is not None:
        gpu_grid.picture(found, str(results.folder / "gpu.png"))
    return not wrong


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if tests ran and passed, and what was computed agrees."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program itself")
    parser.add_argument("--out", type=Path, default=Path("runs", "gpu"), help="the folder of the results: runs/gpu")
    args = parser.parse_args(arguments)
    begin, results = time.perf_counter(), Results(args.out)
    results.say(f"Results: {args.out}/gpu.txt, gpu.json, gpu.png")
    missing = look_around(results)
    if missing.keys() & {"numpy", "cupy"}:
        results.say("Nothing was checked: see what is missing above.")
        return 1
    from tinygrad_rnn.errors import BackendMismatchError
    from tinygrad_rnn.tensor.device import probe

    try:
        probe()
    except BackendMismatchError as error:
        results.say(f"Nothing was checked: {error}.")
        return 1
    results.say(device())
    results.keep(device=device())
    fine = tests(results, missing)
    results.say("", *prepare(threads=2))
    sizes = [(2, 3, 4)] if args.quick else gpu_grid.SIZES
    try:
        fine &= agrees(results)
        fine &= times(results, sizes, ALLOWED, {"product": 8, "many": 5} if args.quick else {})
    except (Missing, RuntimeError) as error:
        results.say(f"Not all was measured: {error}")
        fine = False
    results.say(f"({time.perf_counter() - begin:.0f} s)")
    return 0 if fine else 1


def device() -> str:
    """The GPU and its driver, in words."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    return f"{properties['name'].decode()}, driver for CUDA {driver}, CUDA {runtime}"


if __name__ == "__main__":
    sys.exit(main())
