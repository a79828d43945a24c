"""What `import tinygrad_rnn` costs beside NumPy's own import, of which it is the greater part."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

from benchmarks.cells import Requirement, markdown
from benchmarks.processes import ROOT

PROGRAM = "import time; begin = time.perf_counter(); import {0}; print(time.perf_counter() - begin)"


def seconds(module: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(module)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def measure(full: bool) -> list[dict[str, Any]]:
    """One row a module, medians of interleaved runs; the first run, which compiles, is not counted."""
    times: dict[str, list[float]] = {"numpy": [], "tinygrad_rnn": []}
    for _ in range(1 + (41 if full else 15)):
        for module, values in times.items():
            values.append(seconds(module))
    medians = {module: statistics.median(values[1:]) for module, values in times.items()}
    return [
        {"import": module, "ms": 1e3 * median, "of NumPy": median / medians["numpy"]}
        for module, median in medians.items()
    ]


def requirements(found: list[dict[str, Any]]) -> list[Requirement]:
    """What was asked of the import."""
    times = found[-1]["of NumPy"]
    return [Requirement("import: at most 1.2 times NumPy's", f"{times:.2f}", times <= 1.2)]


def not_reached(found: list[dict[str, Any]]) -> list[str]:
    """Nothing but the requirement itself."""
    return []


def section(found: list[dict[str, Any]]) -> list[str]:
    """What the page says of it."""
    rows = [[f"`{row['import']}`", f"{row['ms']:.0f}", f"{row['of NumPy']:.2f}"] for row in found]
    return [
        "## Import",
        "",
        "Each time in a process of its own, files cached by the system; medians.",
        "",
        *markdown(["import", "ms", "of NumPy"], rows),
        "",
    ]
