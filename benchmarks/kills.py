"""Kill training runs at random moments, resume them, and count those that end as if nothing had happened.

    python -m benchmarks.kills --kills 200

A run is a fork of this process, killed by SIGKILL somewhere between its start and its end, some of them inside the
write of a checkpoint. Then it is resumed, once in three times to be killed again, until it ends. What is left must be
that of a run that was never stopped: every bit of the parameters, the optimiser's moments and the recurrent state,
the random generator, the loop's numbers, every field of the log that is no time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.training.test_resume import TEXT, everything
from tinygrad_rnn import data, decoding, language, optim, training
from tinygrad_rnn.cli import main as cli
from tinygrad_rnn.cli import train as train_command

IMPORTED = (data, decoding, language, optim, training, train_command)  # once, before all forks
OPTIONS = ["--hidden=24", "--embedding=8", "--seq-len=12", "--batch=3", "--threads=1", "--layers=2", "--dropout=0.2"]
OPTIONS += ["--steps=60", "--save-every=2"]


def start(argv: list[str]) -> int:
    """The command in a process of its own, silent; returns its id."""
    pid = os.fork()
    if pid == 0:
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        os._exit(cli.main(argv))
    return pid


def ended(pid: int) -> int:
    """The exit status of a process, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def command(run: Path, model: str, text: Path) -> list[str]:
    """How a user would go on: resume what is a run, begin what is not one yet."""
    if (run / "config.json").exists():
        return ["train", "--resume", str(run)]
    return ["train", "--text", str(text), "--model", model, "--out", str(run), *OPTIONS]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    # What takes longer than the training and writes nothing: kills shall come where they can do harm.
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    language.measure_baselines = lambda *args: []

    folder = Path(tempfile.mkdtemp())
    (text := folder / "text.txt").write_text(TEXT)
    whole, seconds = {}, {}
    for model in ("lstm", "gru", "rnn"):
        begin = time.perf_counter()
        assert ended(start(command(folder / model, model, text))) == 0
        seconds[model], whole[model] = time.perf_counter() - begin, everything(folder / model)
    counts: Counter[str] = Counter()
    while counts["kills"] < options.kills:
        model, run = draw.choice(["lstm", "gru", "rnn"]), folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        kills = 0
        again = True
        while again:
            pid = start(command(run, model, text))
            time.sleep(draw.uniform(0, 1.1 * seconds[model]))
            os.kill(pid, signal.SIGKILL)
            if ended(pid) == -signal.SIGKILL:
                kills += 1
                counts["before the first checkpoint"] += not (run / "checkpoints" / "last.json").exists()
                counts["inside a write"] += any(run.rglob("*.tmp"))
            again = kills > 0 and draw.random() < 1 / 3
        if not kills:
            continue  # it was faster
        status = ended(start(command(run, model, text)))
        same = status == 0 and everything(run) == whole[model]
        counts["kills"] += kills
        counts["runs"] += 1
        counts["runs identical"] += same
        if not same:
            print(f"different: {model}, {kills} kill(s), exit status {status}")
    shutil.rmtree(folder)
    for name in ("kills", "before the first checkpoint", "inside a write", "runs", "runs identical"):
        print(f"{counts[name]:>6}  {name}")
    return counts["runs"] != counts["runs identical"]


if __name__ == "__main__":
    sys.exit(main())
