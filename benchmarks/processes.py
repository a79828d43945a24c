"""Worker processes: each contender in one of its own, one of them running at a time.

The parent imports neither NumPy nor a peer, so a worker's threads and BLAS are set by its environment alone.
This file is also the program that a worker runs; parent and worker speak JSON, a line a message, over the
worker's standard input and output.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SETTLE = 0.01  # seconds in which a process must not have worked, for its threads to be at rest


class Missing(Exception):
    """A contender that is not installed."""


def prepare(threads: int) -> list[str]:
    """Give every worker the same cores and threads; returns what was done, in lines to print.

    OPENBLAS_* variables are dropped: a kernel or thread count forced on NumPy's BLAS alone would decide the
    contest.
    """
    dropped = sorted(name for name in os.environ if name.startswith("OPENBLAS_"))
    for name in [*dropped, "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"]:
        os.environ.pop(name, None)
    lines = [f"removed from the environment of the workers: {', '.join(dropped)}"] if dropped else []
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)
        threads = len(cores)
        lines.append(f"every worker runs on cores {', '.join(map(str, cores))} with {threads} threads")
    else:
        lines.append(f"every worker runs with {threads} threads; this system does not bind processes to cores")
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    return lines


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.processes", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is the parent's business
    )


def ask(worker: subprocess.Popen[str], message: Any) -> Any:
    """Send one message and wait for the answer."""
    assert worker.stdin and worker.stdout
    print(json.dumps(message), file=worker.stdin, flush=True)
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"a worker ended with status {worker.wait()}: {' '.join(map(str, worker.args))}")
    return json.loads(line)


def call(function: str, **arguments: Any) -> Any:
    """The result of `module:function(**arguments)`, computed in a fresh process."""
    worker = start()
    try:
        answer = ask(worker, {"call": function, "arguments": arguments})
    except BaseException:
        worker.kill()  # rather than wait for what nobody wants any more
        raise
    finally:
        worker.communicate()
    if "missing" in answer:
        raise Missing(answer["missing"])
    return answer["result"]


class Workers:
    """One worker for each contender of `module.CONTENDERS` that is installed; a context manager that ends them.

    `CONTENDERS[name](**size)` makes a `step` to be timed and the `result` that all contenders must share.
    Those that were built last are raced.
    """

    def __init__(self, module: str, names: list[str]) -> None:
        self.module, self.names = module, names
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self.built: list[str] = []
        self.missing: list[str] = []

    def __enter__(self) -> Workers:
        self.workers = {name: start() for name in self.names}
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        for worker in self.workers.values():
            if failed:
                worker.kill()
            worker.communicate()

    def build(self, size: dict[str, Any], names: list[str] | None = None) -> dict[str, Any]:
        """Have everybody, or these, make its step for `size`; the results by name. Who is not installed leaves."""
        results = {}
        for name in [name for name in names or self.names if name in self.workers]:
            worker = self.workers[name]
            answer = ask(worker, {"contender": f"{self.module}:{name}", "arguments": size})
            if "missing" in answer:
                self.missing.append(f"  {name}: skipped, {answer['missing']}")
                self.workers.pop(name).communicate()
            else:
                results[name] = answer["result"]
        self.built = list(results)
        return results

    def race(self, rounds: int, seconds: float) -> dict[str, float]:
        """Median seconds of one step; each of `rounds` turns runs every contender for about `seconds`."""
        times = self.rounds_until(math.inf, seconds, most=rounds)
        return {name: statistics.median(values) for name, values in times.items()}

    def rounds_until(self, end: float, seconds: float, least: int = 1, most: int = 1) -> dict[str, list[float]]:
        """Seconds of one step in every round: as many rounds as `time.perf_counter()` allows before `end`, from
        `least` to `most` of them.
        """
        times: dict[str, list[float]] = {name: [] for name in self.built}
        for number in range(most):
            begin = time.perf_counter()
            for name in self.built:
                times[name].append(ask(self.workers[name], seconds)["seconds"])
            now = time.perf_counter()
            if number + 1 >= least and now + (now - begin) > end:
                break
        return times


def contest(module: str, names: list[str], size: dict[str, Any], rounds: int, seconds: float) -> dict[str, float]:
    """Median seconds of one step for each contender that is installed, all of which must agree."""
    with Workers(module, names) as workers:
        results = workers.build(size)
        print(*workers.missing, sep="\n", end="\n" if workers.missing else "")
        agree({name: result for name, result in results.items() if result})
        return workers.race(rounds, seconds)


def agree(results: dict[str, dict[str, list[float]]], tolerance: float = 2e-3) -> None:
    """Raise unless every contender computed the same numbers as the first, up to float32 rounding."""
    for name, result in results.items():
        first, expected = next(iter(results.items()))
        for key, values in expected.items():
            scale = max(map(abs, values))
            if not all(abs(a - b) <= tolerance * scale for a, b in zip(values, result[key], strict=True)):
                raise RuntimeError(f"{name} and {first} differ in {key}: {result[key]} and {values}")


def peak_memory() -> int:
    """Bytes of this process's largest memory so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def current_memory() -> int:
    """Bytes of memory this process holds now; the peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def time_step(step: Callable[[], object], seconds: float) -> float:
    """Seconds of one step: the mean over as many as fill the time, so a garbage collector's share counts.

    The first does not count, unless it fills the time twice: caches warm up again after the others' turns.
    """
    begin = time.perf_counter()
    step()
    if (first := time.perf_counter() - begin) > 2 * seconds > 0:
        return first
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds or not count:
        step()
        count += 1
    return elapsed / count


def settle() -> None:
    """Wait until all threads of this process rest, a second at most. Those of a BLAS spin for a while when there is
    nothing more to do, OpenBLAS's for an eighth of a second, and whoever is timed next would have to share the cores.
    """
    for _ in range(int(1 / SETTLE)):
        before = time.process_time()
        time.sleep(SETTLE)
        if time.process_time() - before < SETTLE / 5:
            return


def serve() -> None:
    """What a worker does: build what the first message names, then time it as often as it is asked to."""
    answers, sys.stdout = sys.stdout, sys.stderr  # prints of a library must not mix with the answers
    step: Callable[[], object] | None = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if isinstance(message, dict):
                module, name = (message.get("call") or message["contender"]).split(":")
                found = importlib.import_module(module)
                if "call" in message:
                    answer = {"result": getattr(found, name)(**message["arguments"])}
                else:
                    step, result = found.CONTENDERS[name](**message["arguments"])
                    answer = {"result": result}
            else:
                assert step
                own = getattr(step, "seconds", None)  # of a step that knows how it is timed
                answer = {"seconds": own(message) if own else time_step(step, message)}
        except ModuleNotFoundError as error:
            if (error.name or "").startswith(("benchmarks", "tinygrad_rnn")):
                raise
            answer = {"missing": f"{error.name} is not installed"}
        settle()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
