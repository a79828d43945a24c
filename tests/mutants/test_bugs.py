"""The list of bugs and the places of the mutations fit the code as it is: neither can rot. `make mutants` runs them."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import __main__ as runner
from tests.mutants import mutations
from tests.mutants.bugs import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_occurs_once_and_is_python(bug: Bug) -> None:
    assert runner.fault_of(bug) == ""
    source = (runner.ROOT / "tinygrad_rnn" / bug.file).read_text(encoding="utf-8")
    if not bug.file.endswith(".cu"):  # whose compilers are those of its tests
        assert ast.dump(ast.parse(source)) != ast.dump(ast.parse(source.replace(bug.old, bug.new)))
    words = [word for word in bug.nearest.split() if word.endswith(".py")]
    assert words and all((runner.ROOT / word).exists() for word in words)
    assert bug.why and len(bug.why) < 120


def test_bugs_are_told_apart_and_are_many() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 68
    assert len({(bug.file, bug.old, bug.new) for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("tool", [["tests.mutants", "--list"], ["tests.code_lines", "tinygrad_rnn"]], ids=" ".join)
def test_a_pipe_that_is_closed_ends_a_list_without_a_traceback(tool: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *tool], cwd=runner.ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_entry_that_fits_nothing_is_a_fault() -> None:
    bug = BUGS[0]
    changes = {"old": "no such text", "new": bug.old}
    for name, value in changes.items():
        assert runner.fault_of(Bug(**{**vars(bug), name: value}))


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize(("near", "suite"), [(1, 0), (0, 1), (0, 0), (2, 0)])
def test_the_suite_is_asked_about_what_the_nearest_tests_let_pass(
    nearest: bool, near: int, suite: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, bug = runner.Bench(tmp_path, 1, nearest), BUGS[0]
    place = tmp_path / "tinygrad_rnn" / bug.file
    place.parent.mkdir(parents=True)
    place.write_text(bug.old)
    asked: list[bool] = []

    def run(folder: Path, *words: str) -> tuple[int, str]:
        assert folder == tmp_path and place.read_text() == bug.new
        asked.append(bool(words))
        return near if words else suite, "a test"

    monkeypatch.setattr(bench, "copy", lambda: contextlib.nullcontext(tmp_path))
    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(runner.Bench, "green_suite", True)
    result = bench.judge(bug)
    assert asked == ([True] if near or nearest else [True, False])
    status = near if near or nearest else suite
    assert (result.outcome, result.asked) == (
        ("survived", "killed", "broken")[status], "suite" if len(asked) == 2 else "nearest",
    )  # fmt: skip


def test_every_function_to_mutate_is_there() -> None:
    found = mutations.regions()
    for file, names in mutations.FUNCTIONS.items():
        assert set(names.split()) <= {region.label for region in found if region.file == file}
    rules = {region.label for region in found if region.file == "tensor/ops/arithmetic.py"}
    assert {"multiply[0]", "multiply[1]", "negative", "if_larger"} <= rules


def test_our_own_mutations_of_a_line() -> None:
    text = mutations.Text("(lambda g, x: g * exp(-x))")
    changed = {text.source[:a] + new + text.source[b:] for a, b, new in mutations.own_edits(text)}
    assert changed == {
        "(lambda g, x: (g))",
        "(lambda g, x: (exp(-x)))",
        "(lambda g, x: (-g) * exp(-x))",
        "(lambda g, x: (2 * g) * exp(-x))",
        "(lambda g, x: (0 * g) * exp(-x))",
        "(lambda g, x: g * (-x))",
    } | ({"pass"} & changed)
