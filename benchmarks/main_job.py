"""`tinygrad-rnn train` as typed, beside the same training as one writes it in PyTorch: speed and memory.

Ours is the command in a process of its own, with its defaults, on the text that comes with Python; its rate is what its
log says. PyTorch has the same batches, model, dropout, optimiser, schedule and clipping, with its own layers, and logs
every loss; it evaluates nothing and writes no checkpoint. All run in turn, in several rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.cells import Requirement, markdown
from benchmarks.processes import ROOT

RATE, WHOLE, PEAK, TIMES, SHARE = "chars/s", "whole run, s", "peak, MB", "times PyTorch's rate", "of its peak"
PAGE = """`tinygrad-rnn train` as it is typed, in three forms, beside the same training as one writes it in PyTorch:
batches, model, dropout, Adam, schedule, clipping and a log of every loss. The rate is that of training steps, the
median of all but the first; the whole run has all else, which for ours is reading, baselines, recording, evaluations,
checkpoints and the picture, for PyTorch its import alone. The peak is the largest memory of the process, libraries
included."""
WARM = 50  # steps that are not counted: recording, compiling, caches
NUMBA, NUMPY, PLAIN = "ours, numba", "ours, --no-numba", "ours, --plain"
TORCH, ONE = "PyTorch", "PyTorch, one thread"
OURS: dict[str, list[str]] = {NUMBA: ["--numba"], NUMPY: ["--no-numba"], PLAIN: ["--plain"]}
PEERS: dict[str, dict[str, Any]] = {TORCH: {}, ONE: {"threads": 1}}


def measure(full: bool = False, rounds: int = 3) -> list[dict[str, Any]]:
    """One row for each contender: the medians over the rounds. A run is of 400 steps, or, `full`, of the usual 3000."""
    steps = 3000 if full else 400
    names = [*(n for n in OURS if n != NUMBA or find_spec("numba")), *(PEERS if find_spec("torch") else ())]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(ours(steps, OURS[name]) if name in OURS else peer(steps, PEERS[name]))
    rows: list[dict[str, Any]] = [{"": name, **of_rounds(found[name])} for name in names]
    if TORCH in names:
        torch = of(rows, TORCH)
        for found_row in rows:
            found_row[TIMES] = found_row[RATE] / torch[RATE]
            found_row[SHARE] = found_row[PEAK] / torch[PEAK]
    return rows


def of(rows: list[dict[str, Any]], name: str) -> Any:
    """The row of a contender, None if it was not there."""
    return next((row for row in rows if row[""] == name), None)


def requirements(rows: list[dict[str, Any]]) -> list[Requirement]:
    """What was asked of the main job, judged by the figures."""
    found = []
    for name, words, bound in ((NUMBA, "with numba", 1.5), (NUMPY, "by NumPy alone", 1.0)):
        if (row := of(rows, name)) and TIMES in row:
            what = f"the main job as typed, {words}: at least {bound:g} times PyTorch's rate"
            found.append(Requirement(what, f"{row[TIMES]:.2f}", row[TIMES] >= bound))
            what = f"the main job as typed, {words}: at most half of PyTorch's memory"
            found.append(Requirement(what, f"{row[SHARE]:.2f}", row[SHARE] <= 0.5))
    return found


def not_reached(rows: list[dict[str, Any]]) -> list[str]:
    """Nothing but the requirements themselves."""
    return []


def section(rows: list[dict[str, Any]]) -> list[str]:
    """What the page says of the main job."""
    columns = list(rows[0])
    cells = [[row[""], *(shown(key, row[key]) for key in columns[1:])] for row in rows]
    return ["## The main job", "", *PAGE.splitlines(), "", *markdown(columns, cells), ""]


def shown(key: str, value: float) -> str:
    return (
        f"{value:,.0f}" if key == RATE or "MB" in key else f"{value:.2f}" if key in (TIMES, SHARE) else f"{value:.1f}"
    )


def of_rounds(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def ours(steps: int, options: list[str]) -> dict[str, float]:
    """The command, as typed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        arguments = ["train", "--steps", str(steps), "--out", str(run), *options]
        seconds, peak = process("-m", "tinygrad_rnn", *arguments)
        bare = process("-c", "import tinygrad_rnn.cli.train")[1]
        rates = [json.loads(line)["chars_per_second"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return row(rates, seconds, peak, bare)


def peer(steps: int, options: dict[str, Any]) -> dict[str, float]:
    """The program in PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "rates.json"
        seconds, peak = process("-m", "benchmarks.main_job", json.dumps({"steps": steps, "log": str(log), **options}))
        bare = process("-c", "import torch, tinygrad_rnn.data")[1]
        return row(json.loads(log.read_text()), seconds, peak, bare)


def row(rates: list[float], seconds: float, peak: int, bare: int) -> dict[str, float]:
    over = "over the bare import, MB"
    return {RATE: statistics.median(rates[WARM:]), WHOLE: seconds, PEAK: peak / 1e6, over: (peak - bare) / 1e6}


def process(*arguments: str) -> tuple[float, int]:
    """The seconds that Python takes with these arguments, and the bytes of its largest memory."""
    begin = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"a process ended with status {child.returncode}: {' '.join(arguments)}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_torch(steps: int, log: str, threads: int | None = None) -> None:
    """The main job as one writes it in PyTorch; writes the characters of each second, step by step."""
    import numpy as np
    import torch

    from tinygrad_rnn.data import Streams, Vocabulary, default_text, split_held_out
    from tinygrad_rnn.optim import warmup_cosine

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    text = default_text()
    vocabulary = Vocabulary.of(text)
    train, _ = split_held_out(vocabulary.encode(text))
    streams = Streams(train, 16, 32)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(len(vocabulary), 64)
            self.lstm = torch.nn.LSTM(64, 256)
            self.dropout = torch.nn.Dropout(0.1)
            self.output = torch.nn.Linear(256, len(vocabulary))

        def forward(self, ids: Any, state: Any) -> Any:
            y, state = self.lstm(self.embedding(ids), state)
            return self.output(self.dropout(y)), state

    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: warmup_cosine((n + 0.5) / steps))
    state, rates = None, []
    for step in range(steps):
        begin = time.perf_counter()
        chunk = streams[step]
        x, y = (torch.from_numpy(np.asarray(ids, np.int64)) for ids in (chunk.x, chunk.y))
        scores, state = model(x, None if chunk.fresh else state)
        state = tuple(part.detach() for part in state)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        loss.item()
        rates.append(y.numel() / (time.perf_counter() - begin))
    Path(log).write_text(json.dumps(rates))


if __name__ == "__main__":
    in_torch(**json.loads(sys.argv[1]))
