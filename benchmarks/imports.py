"""What `import tinygrad_rnn` costs beside NumPy's own import, of which it is the greater part."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

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
