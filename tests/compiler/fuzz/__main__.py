"""`python -m tests.compiler.fuzz`: draw programs, run them plain and compiled, print the first that differs."""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import tinygrad_rnn as tr
from tests.compiler.fuzz.judge import Verdict, judge
from tests.compiler.fuzz.kinds import KINDS, draw
from tests.compiler.fuzz.program import NOT_YET, Program
from tests.compiler.fuzz.shrink import shrunk
from tinygrad_rnn.cli.answers import answered

EVERY = 60.0  # seconds between two lines of progress where there is no terminal
KIND: list[str] = [""]  # what alone is drawn; a list, so that workers inherit it


def one(seed: int) -> tuple[int, str, Verdict | None, str, int]:
    """What became of the program of a seed: its verdict, and an error of the fuzzer itself."""
    try:
        program = draw(seed, KIND[0])
        verdict = judge(program)
    except Exception as error:  # noqa: BLE001
        return seed, "", None, f"{type(error).__name__}: {error}", 0
    verdict.plain = verdict.compiled = None  # which may hold what cannot be sent
    return seed, program.kind, verdict, "", len(program.calls)


def outcomes(seeds: range, workers: int) -> Iterator[tuple[int, str, Verdict | None, str, int]]:
    if workers < 2:
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=16)


def report(program: Program, verdict: Verdict, shrink: bool) -> str:
    if shrink:
        program, verdict = shrunk(program, verdict)
    return f"# seed {program.seed}, {program.kind}: {verdict.where}\n\n{program.source(verdict.where[:200])}"


def main(argv: list[str] | None = None) -> int:
    """The exit status: 1 if a program differs, or the fuzzer fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiler.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the program of one seed alone")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1000, help="how many programs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep-going", type=int, default=1, metavar="N", help="go on until N differ; each is shown")
    parser.add_argument("--kind", choices=sorted(KINDS), help="programs of one kind alone")
    parser.add_argument("--without", action="append", default=[], metavar="FEATURE", help="draw it in no program")
    parser.add_argument(
        "--numba", action="store_true", help="with numba, by which most of a replay runs without Python"
    )
    parser.add_argument("--print", action="store_true", help="show the program, whatever becomes of it")
    parser.add_argument("--no-shrink", action="store_true")
    given = parser.parse_args(argv)
    KIND[0] = given.kind or ""
    if given.numba:
        tr.enable_numba()
    NOT_YET.update(dict.fromkeys(given.without, "--without"))
    if given.seed is not None:
        program = draw(given.seed, KIND[0])
        if given.print:
            print(program.source())
        verdict = judge(program)
        print(report(program, verdict, not given.no_shrink) if verdict else f"seed {given.seed}: no difference")
        print(*list(dict.fromkeys(f"refused: {why[:200]}" for why in verdict.refused.values())), sep="\n")
        return int(bool(verdict))
    return many(given)


def many(given: argparse.Namespace) -> int:
    console = Console(stderr=True)
    kinds: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    wholly: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    broken: list[tuple[int, str]] = []
    differ: list[int] = []
    start = said = time.perf_counter()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("programs", total=given.count)
        for seed, kind, verdict, error, count in outcomes(range(given.first, given.first + given.count), given.workers):
            progress.advance(task)
            if progress.disable and time.perf_counter() - said > EVERY:  # no terminal, which has the bar
                said = time.perf_counter()
                done = sum(kinds.values()) + len(broken)
                console.print(f"{done:,} of {given.count:,} in {said - start:.0f} s; {len(differ)} differ: {differ}")
            if verdict is None:
                broken.append((seed, error))
                continue
            kinds[kind] += 1
            calls[kind] += count
            refused[kind] += len(verdict.refused)
            wholly[kind] += len(verdict.refused) == count
            reasons.update(message.split(": ", 1)[-1][:60] for message in verdict.refused.values())
            if verdict:
                differ.append(seed)
                if len(differ) <= given.keep_going:
                    program = draw(seed, KIND[0])
                    progress.console.print(
                        report(program, judge(program), not given.no_shrink),
                        markup=False,
                        highlight=False,
                        soft_wrap=True,
                    )
                if len(differ) == given.keep_going:
                    break
    table = Table("kind", "programs", "calls", "refused", "wholly refused")
    for kind in sorted(kinds):
        table.add_row(
            kind,
            f"{kinds[kind]:,}",
            f"{calls[kind]:,}",
            f"{refused[kind] / calls[kind]:.1%}",
            f"{wholly[kind] / kinds[kind]:.1%}",
        )
    console.print(table)
    for reason, n in reasons.most_common(15):
        console.print(f"{n:7,}  {reason}", markup=False, highlight=False)
    for seed, error in broken[:10]:
        console.print(f"seed {seed}: the fuzzer fails: {error}", markup=False)
    took = time.perf_counter() - start
    console.print(f"{sum(kinds.values()):,} programs in {took:.0f} s; {len(differ)} differ: {sorted(differ)[:50]}")
    return int(bool(differ or broken))


if __name__ == "__main__":
    sys.exit(answered("fuzz", main))
