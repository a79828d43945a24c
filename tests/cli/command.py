"""The command in a process of its own, on a small text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tinygrad_rnn as tr

SMALL = ["--hidden", "16", "--embedding", "8", "--seq-len", "16", "--batch", "4", "--threads", "1"]
TEXT = "".join(f"the {a} of the {b} is {(7 * i) % 11}.\n" for i in range(12) for a in "abc" for b in ("sun", "moon"))
Trained = tuple[Path, subprocess.CompletedProcess[str]]


def command(*args: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """`python -W error -m tinygrad_rnn ARGS`, in a process of its own."""
    root = str(Path(tr.__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": root,
        "COLUMNS": "100",
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    environment |= options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "tinygrad_rnn", *map(str, args)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        **options,
    )
