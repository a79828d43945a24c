"""`python -m tests.mutants`: every bug of `bugs.py` must turn the suite red.

Each is put into a copy of the repository, where its nearest tests run first and, if they stay green, the whole suite;
with `--nearest` they alone are asked, and have to notice it. Before a red test counts, the same tests must have been
green on a copy without a bug.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tests.mutants.bugs import BUGS, Bug
from tinygrad_rnn.cli.answers import answered
from tinygrad_rnn.screen import console, say

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "runs" / "mutants.json"
LIMIT = 600  # seconds for one run of pytest: a bug may make an endless loop
# Not copied: what is no part of the repository, and this folder, whose test would notice every bug.
LEFT = shutil.ignore_patterns(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "runs", "build", "mutants")


@dataclass
class Result:
    """What became of a bug: `killed`, `survived`, or `broken` where the list is at fault."""

    name: str
    file: str
    why: str
    outcome: str
    by: str  # the first test that failed, or what is broken
    seconds: float
    asked: str  # last: the "nearest" tests, or the whole "suite"


class Bench:
    """Runs pytest on copies of the repository, several at a time, and leaves nothing behind."""

    def __init__(self, folder: Path, workers: int, nearest: bool = False) -> None:
        self.folder, self.workers, self.nearest = folder, workers, nearest
        self.running: set[subprocess.Popen[str]] = set()
        self.lock, self.suite_lock = threading.Lock(), threading.Lock()
        self.stopped = False

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy of the repository, removed at the end."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            place = Path(name) / "repository"
            shutil.copytree(ROOT, place, ignore=LEFT)
            yield place

    def run(self, place: Path, *words: str) -> tuple[int, str]:
        """pytest's exit status, and the first test that failed."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *words]
        ours = {"PYTHONPATH": str(place), "HYPOTHESIS_PROFILE": "ci", "PYTHONDONTWRITEBYTECODE": "1"}
        with self.lock:
            if self.stopped:
                return -1, "stopped"
            process = subprocess.Popen(
                command, cwd=place, env=os.environ | ours, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self.running.add(process)
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            kill(process)
            return 1, f"an endless loop: more than {LIMIT} s"
        finally:
            with self.lock:
                self.running.discard(process)
        failures = [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return process.returncode, failures[0].split(" - ")[0] if failures else output.strip()[-300:]

    def assert_green(self, *words: str) -> None:
        """Raise unless the tests pass on a copy without a bug: else every bug would seem to be caught."""
        with self.copy() as place:
            status, test = self.run(place, "--numprocesses", str(self.workers), *words)
        if status and not self.stopped:
            raise SystemExit(f"red without any bug, so nothing can be told: {test}")

    @functools.cached_property
    def green_suite(self) -> bool:
        """True; asked before the whole suite is a judge."""
        self.assert_green()
        return True

    def judge(self, bug: Bug) -> Result:
        """Run a bug."""
        start, outcome, by, asked = time.monotonic(), "survived", "", "nearest"
        if fault := fault_of(bug):
            return Result(bug.name, bug.file, bug.why, "broken", fault, 0.0, asked)
        with self.copy() as place:
            path = place / "tinygrad_rnn" / bug.file
            path.write_text(path.read_text(encoding="utf-8").replace(bug.old, bug.new), encoding="utf-8")
            status, by = self.run(place, *shlex.split(bug.nearest))
            if status == 0 and not self.nearest:
                with self.suite_lock:
                    assert self.green_suite
                status, by = self.run(place)
                asked = "suite"
        if status:
            outcome = "killed" if status == 1 else "broken"  # 2 and more: pytest could not run the tests
        return Result(bug.name, bug.file, bug.why, outcome, by, round(time.monotonic() - start, 1), asked)

    def stop(self) -> None:
        """End every run."""
        with self.lock:
            self.stopped = True
            running = list(self.running)
        for process in running:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """End a run of pytest with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def fault_of(bug: Bug) -> str:
    """What is wrong with the entry of the list, or nothing."""
    count = (ROOT / "tinygrad_rnn" / bug.file).read_text(encoding="utf-8").count(bug.old)
    return "the old text is the new one" if bug.old == bug.new else "" if count == 1 else f"occurs {count} times"


def run(bugs: list[Bug], workers: int, nearest: bool = False) -> list[Result]:
    """The results of `bugs`, in their order."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    bars = Progress(*columns, console=console(), transient=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, bars as progress:
        bench = Bench(Path(folder), workers, nearest)
        pool = ThreadPoolExecutor(workers)
        try:
            task = progress.add_task("the tests without a bug", total=None)
            bench.assert_green(*sorted({w for bug in bugs for w in bug.nearest.split() if w.endswith(".py")}))
            progress.update(task, description="bugs", total=len(bugs))
            futures = {pool.submit(bench.judge, bug): bug for bug in bugs}
            for future in as_completed(futures):
                result = future.result()
                if result.outcome != "killed" or not progress.console.is_terminal:  # which has the bar
                    say(progress.console, f"{result.name}: {result.outcome} {result.by}")
                progress.advance(task)
        finally:
            bench.stop()
            pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


def show(results: list[Result]) -> None:
    """The table at the end."""
    table = Table("bug", "file", "what it is", "outcome", "first red test", "s", box=None)
    for r in results:
        style = "green" if r.outcome == "killed" else "bold red"
        table.add_row(r.name, r.file, r.why, Text(r.outcome, style), r.by.removeprefix("tests/"), f"{r.seconds:.0f}")
    console().print(table)
    red = sum(r.outcome == "killed" for r in results)
    near = sum(r.outcome == "killed" and r.asked == "nearest" for r in results)
    print(f"{red} of {len(results)} bugs turn the suite red, {near} of them the tests nearest to them")


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 if every bug was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Does the suite notice these bugs?")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="run these bugs (the results are not kept)")
    parser.add_argument("--nearest", action="store_true", help="ask the nearest tests of each alone: half an hour less")
    parser.add_argument("--list", action="store_true", help="print the list and run nothing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time (default: one a core)")
    options = parser.parse_args(argv)
    names = {bug.name: bug for bug in BUGS}
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"no such bug: {', '.join(sorted(unknown))} (--list prints them)")
    if options.list:
        for bug in BUGS:
            print(f"{bug.name:32} {bug.file:28} {bug.why}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` cleans up, too
    try:
        results = run([names[name] for name in options.only or names], options.workers, options.nearest)
    except KeyboardInterrupt:
        return 130
    show(results)
    if not options.only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")
    return int(any(r.outcome != "killed" for r in results))


if __name__ == "__main__":
    sys.exit(answered("mutants", main))
