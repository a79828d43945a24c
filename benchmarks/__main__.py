"""Run the benchmarks and print a table for each; `python -m benchmarks --help` has the options."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import prepare

NAMES = ["main_job", "imports", "graph", "slices", "leaks", "rnn_step"]
NAMES += ["train_step", "step_memory", "threads", "looking"]


def show(rows: list[dict[str, Any]]) -> None:
    """Rows as a table; a column for every key of any row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[text(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    left = [isinstance(rows[0].get(column), str) for column in columns]
    for line in [columns, *cells]:
        padded = (c.ljust(w) if at_left else c.rjust(w) for c, w, at_left in zip(line, widths, left, strict=True))
        print("  " + "   ".join(padded).rstrip())


def text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What things cost, beside the peers.")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--full", action="store_true", help="more rounds and larger sizes")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads for each worker (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")
    options = parser.parse_args()

    setting = [f"Python {platform.python_version()}, {platform.machine()}", *prepare(options.threads)]
    if hasattr(os, "getloadavg"):
        setting.append(f"load average at start: {os.getloadavg()[0]:.1f} (0 is a machine to trust)")
    print("\n".join(setting))
    results = {}
    for name in options.only or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        begin = time.perf_counter()
        print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        results[name] = module.measure(options.full)
        show(results[name])
        print(f"  ({time.perf_counter() - begin:.0f} s)", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"setting": setting, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
