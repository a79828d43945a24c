"""The smallest program that still differs, by leaving out lines."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from tests.compiler.fuzz.judge import Verdict, judge
from tests.compiler.fuzz.program import Program


def shrunk(program: Program, verdict: Verdict) -> tuple[Program, Verdict]:
    """A program without the lines that the difference does not need."""
    program = copy.deepcopy(program)
    program.calls = program.calls[: max(verdict.call, 1)]
    again = judge(program)
    if not again:  # it needs what comes later
        return program, verdict
    verdict, smaller = again, True
    while smaller:
        smaller = False
        for cut in cuts(program):
            one = copy.deepcopy(program)
            try:
                cut(one)
                found = judge(one)
            except Exception:  # noqa: BLE001
                continue
            if found and alike(found, verdict):
                program, verdict, smaller = one, found, True
                break
    return program, verdict


def alike(a: Verdict, b: Verdict) -> bool:
    """Whether two differences are of one sort: one must not turn into another while the program gets smaller."""
    sort = [("refused:" in v.where, "CompileError" in v.where, "fails" in v.where) for v in (a, b)]
    return sort[0] == sort[1]


def cuts(program: Program) -> Iterator[Callable[[Program], None]]:
    """Ways of leaving something out."""
    for n in reversed(range(len(program.calls))):
        yield lambda p, n=n: p.calls.pop(n)  # type: ignore[misc]
    for n, call in enumerate(program.calls):
        for k in range(len(call.changes)):
            yield lambda p, n=n, k=k: p.calls[n].changes.pop(k)  # type: ignore[misc]
    for k in reversed(range(len(program.body))):
        yield lambda p, k=k: p.body.pop(k)  # type: ignore[misc]
    if program.body and program.body[-1].startswith("return "):
        for simple in ("return None", *(f"return {x.strip()}" for x in program.body[-1][7:].split(","))):
            if simple != program.body[-1]:
                yield lambda p, simple=simple: p.body.__setitem__(-1, simple)  # type: ignore[misc]
    for k in reversed(range(len(program.setup))):
        yield lambda p, k=k: p.setup.pop(k)  # type: ignore[misc]
    if program.closure:
        yield lambda p: setattr(p, "closure", False)
    if program.decorators:
        yield lambda p: p.decorators.clear()
