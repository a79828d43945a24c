"""`python -m tests.mutants.report`: mutates every derivative, asks every oracle, and writes docs/mutation-report.md.

The bugs on the page are those of the last `python -m tests.mutants`. The section of figures is kept as it stands.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.mutants import judge
from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.mutations import ROOT, Mutant, mutants_of, regions
from tinygrad_rnn.cli.answers import answered

PAGE = ROOT / "docs" / "mutation-report.md"
RESULTS, BUGS = ROOT / "runs" / "mutation.json", ROOT / "runs" / "mutants.json"
ENOUGH = 0.95
FIGURES = re.compile(r"<!-- figures -->.*<!-- end of figures -->", re.DOTALL)

HEAD = """# The tests are tested

A test suite that has never failed proves little. So we break the derivatives on purpose and look who notices: {bugs}
bugs of the kind people make, and every derivative of the library mutated term by term. This page is written by
`make mutation-report`, from that and from the last `make mutants`; both end with an error if something goes unnoticed.

Contents: [figures](#figures) · [summary](#summary) · [bugs](#bugs) · [the derivative table](#the-derivative-table) ·
[layers](#layers) · [the engine](#the-engine) · [survivors](#survivors)
"""
SUMMARY = """An *expression* is one derivative, or one function that derivatives are made of. A *mutant* is the library
with one term of it changed: an operator, a number, a condition or a sign by
[Cosmic Ray](https://cosmic-ray.readthedocs.io), and by our own operators a term dropped, two arguments or gates
exchanged, a transpose or a reduction left out, the gradient negated, doubled or zeroed, `=` for `+=`. Each mutant is
shown to *all* the laws of the test kit that its op or layer has, so that a column says how many that law would have
caught alone; the nearest tests are asked about what the laws have let pass. *Witnesses* are the cases and tests that
were heard. A zero among the expressions, mutants, kills or witnesses of a row would be an error, and so would a column
that never killed, though it was heard about some that died, and a survivor without a reason."""
AREAS = {
    "The derivative table": (
        "tensor/ops/",
        "Every rule given to `op(...)`, under the name of its op, and the functions that rules call. The oracles are "
        "the laws of the test kit on seeded cases of the op's row in the table of domains, and the nearest tests.",
    ),
    "Layers": (
        ("nn/", "kernels/"),
        "The backward kernels, the equations of the cells, the losses, and how layers unroll. The oracles are the "
        "tests of `tests/nn`, by what they compare with.",
    ),
    "The engine": (
        "tensor/",
        "The sweep and the derivatives of functions, statement by statement. The oracles are files of `tests/tensor`.",
    ),
}

Outcome = dict[str, Any]  # of a mutant: file, label, line, before, after, nth, witnesses, killers


# --- the runs -------------------------------------------------------------------------------------


def outcomes(mutants: Sequence[Mutant], workers: int) -> Iterator[Outcome]:
    """The verdict on each mutant; refuses to start if an oracle objects to the package as it is.

    Those that a few examples let pass are shown many more, unless a reason is known why no example can tell.
    """
    runs = alone(judge.rows_that_run)
    assert isinstance(runs, dict), runs
    courts = [judge.court_of(m.region, runs) for m in mutants]
    clean = every_oracle_once(courts)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    # No refreshing thread: a process that forks should have one.
    with Progress(*columns, auto_refresh=False) as progress:
        task = progress.add_task("the package as it is", total=len(clean))
        for _, verdict in judge.forked(
            [partial(judge.judge, None, court) for court in clean], workers, 10 * judge.LIMIT
        ):
            if not isinstance(verdict, judge.Verdict) or verdict.killers:
                raise SystemExit(f"an oracle objects to the package as it is: {verdict}")
            progress.update(task, advance=1, refresh=True)
        left = list(zip(mutants, courts, strict=True))
        for examples in (judge.FEW, judge.MANY):
            task = progress.add_task(f"mutants, {examples} examples a test", total=len(left))
            asked, left = left, []
            jobs = [partial(judge.judge, mutant, court, examples) for mutant, court in asked]
            for i, verdict in judge.forked(jobs, workers):
                assert not isinstance(verdict, str), verdict
                verdict = verdict or judge.Verdict({}, {"crash or endless loop": ""})
                m = asked[i][0]
                left += [asked[i]] * (not verdict.killers and m.key not in explained())
                yield {
                    "file": m.region.file, "label": m.region.label, "line": m.line, "before": m.before,
                    "after": m.after, "nth": m.nth, "witnesses": verdict.witnesses, "killers": verdict.killers,
                }  # fmt: skip
                progress.update(task, advance=1, refresh=True)


def every_oracle_once(courts: Sequence[judge.Court]) -> list[judge.Court]:
    """All rows, files and kinds of these courts, in as many small ones: to ask about the package as it is."""
    rows = sorted({row for court in courts for row in court.rows})
    files = sorted({file for court in courts for file in court.files})
    kinds = sorted({kind for court in courts for kind in court.kinds})
    parts = [tuple(rows[i::8]) for i in range(8)]
    return [
        *(judge.Court((), (file,), ()) for file in files),
        *(judge.Court((), (), (kind,)) for kind in kinds),
        *(judge.Court(part, (), ()) for part in parts if part),
    ]


def alone(work: Any) -> Any:
    """What `work` returns in a process of its own."""
    ((_, result),) = judge.forked([work], 1, 10 * judge.LIMIT)
    return result


# --- the page -------------------------------------------------------------------------------------


def key(outcome: Outcome) -> str:
    return f"{outcome['file']}: {outcome['before']}  ->  {outcome['after']}"


def area_of(outcome: Outcome) -> str:
    return next(area for area, (prefix, _) in AREAS.items() if outcome["file"].startswith(prefix))


def group_of(outcome: Outcome) -> str:
    """An op under its public name; anything else as it is called in its file."""
    name = outcome["label"].partition("[")[0]
    return name.strip("_") if area_of(outcome) == "The derivative table" else f"{outcome['file']}: {name}"


def row(name: str, found: Sequence[Outcome], columns: Sequence[str]) -> list[str]:
    killers = Counter(column for o in found for column in shown(o["killers"], columns))
    asked = {column for o in found for column in o["witnesses"]}
    by = [str(killers[c]) if killers[c] else "0" if c in asked else "–" for c in columns]
    killed = sum(bool(o["killers"]) for o in found)
    witnesses = sum(sum(o["witnesses"].values()) for o in found)
    expressions = len({o["label"] for o in found})
    return [name, str(expressions), str(len(found)), str(killed), *by, f"{witnesses:,}"]


def shown(killers: dict[str, str], columns: Sequence[str]) -> set[str]:
    return {column if column in columns else "other" for column in killers}


def columns_of(found: Sequence[Outcome]) -> list[str]:
    """The oracles of an area, in the order in which they were asked."""
    names = dict.fromkeys(column for o in found for column in o["witnesses"])
    other = any(column not in names for o in found for column in o["killers"])
    return [*names, *["other"] * other]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: bool = True) -> str:
    rule = ["---", *("--:" if right else "---" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def zeros(found: Sequence[Outcome]) -> list[str]:
    """What should not be zero and is."""
    wrong = []
    for name, some in grouped(found).items():
        counts = dict(zip(("expressions", "mutants", "kills", "witnesses"), row(name, some, [])[1:], strict=True))
        wrong += [f"{name}: no {what}" for what, n in counts.items() if n == "0"]
    for area in AREAS:
        dead = [o for o in found if area_of(o) == area and o["killers"]]  # of the others nobody can kill any
        killers = Counter(c for o in dead for c in o["killers"])
        wrong += [f"{area}: {c} never killed" for c in columns_of(dead) if c != "other" and not killers[c]]
    return wrong


def grouped(found: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for o in found:
        groups.setdefault(group_of(o), []).append(o)
    return groups


def page(found: Sequence[Outcome], figures: str, total: int) -> str:
    bugs = json.loads(BUGS.read_text(encoding="utf-8")) if BUGS.exists() else []
    parts = [HEAD.format(bugs=len(bugs))]
    if len(found) < total:
        parts.append(f"**Not all yet:** {len(found):,} of {total:,} mutants have been tried (`--resume` goes on).")
    parts += [f"## Figures\n\n{figures}", f"## Summary\n\n{SUMMARY}", summary(found)]
    caught = [bug for bug in bugs if bug["outcome"] == "killed"]
    near = sum(bug["asked"] == "nearest" for bug in caught)
    parts.append(
        f"## Bugs\n\n{len(caught)} of {len(bugs)} turn the suite red, {near} of them the tests nearest to them, which "
        f"are asked first. Beside each stands the test that was red first."
    )
    rows = [[b["name"], code(b["file"]), cell(b["why"]), code(cell(b["by"].removeprefix("tests/")))] for b in bugs]
    parts.append(table(["bug", "file", "what it is", "first red test"], rows, right=False))
    for area, (_, words) in AREAS.items():
        some = [o for o in found if area_of(o) == area]
        columns = columns_of(some)
        rows = [row(code(name), group, columns) for name, group in grouped(some).items()]
        head = ["", "expressions", "mutants", "killed", *columns, "witnesses"]
        parts += [f"## {area}\n\n{words}", table(head, [*rows, row("all", some, columns)])]
    parts += ["## Survivors\n\nWhat nobody noticed, because nothing is wrong with it.", *survivors(found)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def summary(found: Sequence[Outcome]) -> str:
    rows = []
    for area in (*AREAS, "all"):
        some = [o for o in found if area in (area_of(o), "all")]
        killed = sum(bool(o["killers"]) for o in some)
        witnesses = sum(sum(o["witnesses"].values()) for o in some)
        numbers = len({(o["file"], o["label"]) for o in some}), len(some), killed, len(some) - killed, witnesses
        rows.append([area, *(f"{n:,}" for n in numbers), f"{100 * killed / max(len(some), 1):.1f} %"])
    return table(["", "expressions", "mutants", "killed", "survivors", "witnesses", "score"], rows)


def survivors(found: Sequence[Outcome]) -> Iterator[str]:
    """The survivors under the reason that each is no bug."""
    left: dict[str, list[Outcome]] = {}
    for o in found:
        if not o["killers"]:
            left.setdefault(key(o), []).append(o)
    for reason, keys in {**EQUIVALENT, "Without a reason": sorted(left.keys() - explained())}.items():
        some = [o for k in keys for o in left.get(k, ())]
        if some:
            lines = [f"- `{o['file']}`:{o['line']} {code(o['before'])} → {code(o['after'])}" for o in some]
            yield f"**{reason}** ({len(some)})\n\n" + "\n".join(lines)


def explained() -> set[str]:
    return {k for keys in EQUIVALENT.values() for k in keys}


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def figures_of(page_: Path) -> str:
    """The section that is written by hand."""
    found = FIGURES.search(page_.read_text(encoding="utf-8")) if page_.exists() else None
    return found.group() if found else "<!-- figures -->\n<!-- end of figures -->"


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 if enough mutants were killed, and every survivor is explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.report", description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--file", default="", help="mutate files whose name begins so; keeps the results of the others")
    parser.add_argument("--resume", action="store_true", help="continue a run that was interrupted")
    parser.add_argument("--again", action="store_true", help="run those again that survived; keeps the others' results")
    options = parser.parse_args(argv)
    judge.prepare()
    mutants = [m for region in regions() for m in mutants_of(region)]
    order = {name(m): i for i, m in enumerate(mutants)}
    kept: dict[Name, Outcome] = {}
    if (options.again or options.resume or options.file) and RESULTS.exists():
        kept = {name_of(o): o for o in json.loads(RESULTS.read_text(encoding="utf-8")) if name_of(o) in order}
    todo = [m for m in mutants if m.region.file.startswith(options.file)]
    if options.resume:
        todo = [m for m in todo if name(m) not in kept]
    if options.again:
        todo = [m for m in todo if not kept.get(name(m), {}).get("killers")]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    RESULTS.parent.mkdir(exist_ok=True)
    try:
        for o in outcomes(todo, options.workers):
            kept[name_of(o)] = o
            if len(kept) % 50 == 0:
                keep(kept, order)
    except KeyboardInterrupt:
        return 130
    finally:
        found = keep(kept, order)
    PAGE.write_text(page(found, figures_of(PAGE), len(mutants)), encoding="utf-8")
    return verdict(found, complete=len(found) == len(mutants))


def keep(kept: dict[Name, Outcome], order: dict[Name, int]) -> list[Outcome]:
    """Write the results so far, in the order of the code."""
    found = [kept[n] for n in sorted(kept, key=order.__getitem__)]
    RESULTS.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
    return found


Name = tuple[str, str, str, str, int]


def name(m: Mutant) -> Name:
    return m.region.file, m.region.label, m.before, m.after, m.nth


def name_of(o: Outcome) -> Name:
    return o["file"], o["label"], o["before"], o["after"], o["nth"]


def verdict(found: Sequence[Outcome], complete: bool) -> int:
    """Print what is wrong; 1 if anything is."""
    alive = {key(o) for o in found if not o["killers"]}
    wrong = [f"survived without a reason: {k}" for k in sorted(alive - explained())]
    wrong += [f"no survivor, but in equivalent.py: {k}" for k in sorted(explained() - alive)]
    if complete:
        wrong += zeros(found)
    share = sum(bool(o["killers"]) for o in found) / max(len(found), 1)
    if share < ENOUGH:
        wrong.append(f"killed {share:.1%}, less than {ENOUGH:.0%}")
    print(*wrong, f"{len(found)} mutants, {share:.1%} killed; all is in {PAGE.relative_to(ROOT)}", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(answered("report", main))
