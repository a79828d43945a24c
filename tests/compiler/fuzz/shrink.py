"""The smallest program that still differs, by leaving out lines."""

from __future__ import annotations

import copy
import re
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
            if found and alike(found, verdict) and not misses_names(found):
                program, verdict, smaller = one, found, True
                break
    return program, verdict


def alike(a: Verdict, b: Verdict) -> bool:
    """Whether two differences are of one sort: one must not turn into another while the program gets smaller."""
    return sort_of(a.where) == sort_of(b.where)


def misses_names(verdict: Verdict) -> bool:
    """Whether the plain call fails for a line that was left out."""
    plain = verdict.plain
    return (
        isinstance(plain, tuple)
        and len(plain) == 2
        and isinstance(plain[0], str)
        and plain[0] == "raised"
        and plain[1] in ("NameError", "UnboundLocalError")
    )


def sort_of(where: str) -> str:
    """Refused, and why; left changed by an error; or other values."""
    first, _, rest = where.partition(": ")
    if first == "refused":
        return re.sub(r"[\d.(), -]+", " ", rest.split(": ", 1)[-1])[:30]
    return first if first in ("after a CompileError", "the world fails") else ""


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
    for lines in ("setup", "body"):
        for k, text in enumerate(getattr(program, lines)):
            parts = text.split("\n")
            for n in range(len(parts) if len(parts) > 1 else 0):
                less = "\n".join(parts[:n] + parts[n + 1 :])
                yield lambda p, lines=lines, k=k, less=less: getattr(p, lines).__setitem__(k, less)  # type: ignore[misc]
    if program.closure:
        yield lambda p: setattr(p, "closure", False)
    if program.decorators:
        yield lambda p: p.decorators.clear()
