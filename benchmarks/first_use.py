"""What the extra `numba` costs at first: seconds until `tr.enable_numba()` is ready, cold and warm.

Cold is a machine on which it never ran, made of an empty folder for what numba compiles; warm is every process after
that. Each time is that of a process of its own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.processes import Missing, call


def ready(cache: str) -> dict[str, float]:
    """Seconds of `enable_numba()` with what numba compiles in that folder, and its bytes afterwards."""
    if not find_spec("numba"):
        raise ModuleNotFoundError(name="numba")  # which the parent understands
    os.environ["NUMBA_CACHE_DIR"] = cache  # where the object files are kept
    import tinygrad_rnn as tr

    seconds = tr.enable_numba()
    return {"seconds": seconds, "bytes": sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())}


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of one cold start and of some warm ones; without numba nothing but what is missing."""
    try:
        with tempfile.TemporaryDirectory() as cache:
            cold = call("benchmarks.first_use:ready", cache=cache)
            warm = [call("benchmarks.first_use:ready", cache=cache)["seconds"] for _ in range(2 if quick else 7)]
    except Missing as missing:
        return {"missing": str(missing)}
    return {"cold": cold["seconds"], "warm": warm, "bytes": cold["bytes"]}


def section(found: dict[str, Any]) -> list[str]:
    """What the page says of it."""
    lines = ["## The first use of numba", ""]
    if "missing" in found:
        return [*lines, f"Not measured: {found['missing']}.", ""]
    return [
        *lines,
        "`tr.enable_numba()` has numba compile the kernels of float32 the first time on a machine, and keeps them as",
        "an object file (those of float64, and of `ctc_loss`, when they are first needed). How long that takes, each",
        "time in a process of its own; the steps above do not count it:",
        "",
        "| what numba compiles | seconds |",
        "|:--|--:|",
        f"| empty: the first time on a machine | {found['cold']:.1f} |",
        f"| filled, {found['bytes'] / 1e6:.1f} MB: every time after that, the median of {len(found['warm'])} "
        f"| {statistics.median(found['warm']):.2f} |",
        "",
    ]
