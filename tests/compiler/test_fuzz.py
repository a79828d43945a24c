"""Programs that the fuzzer draws are the same plain and compiled; and the fuzzer can tell."""

from __future__ import annotations

import os

import pytest

import tinygrad_rnn as tr
from tests.compiler.fuzz import __main__ as fuzz
from tests.compiler.fuzz.judge import judge
from tests.compiler.fuzz.kinds import KINDS, draw
from tests.compiler.fuzz.program import NOT_YET, Call, Program
from tests.compiler.fuzz.shrink import shrunk

PORTIONS = 10  # of the programs, so that they can be run side by side
COUNT = {"thorough": 100_000}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 300)


@pytest.mark.parametrize("portion", range(PORTIONS))
def test_programs_are_the_same_plain_and_compiled(portion: int) -> None:
    for seed in range(portion, COUNT, PORTIONS):
        program = draw(seed)
        if program.kind in NOT_YET:
            continue
        verdict = judge(program)
        if verdict:
            program, verdict = shrunk(program, verdict)
            raise AssertionError(f"seed {seed}, call {verdict.call}: {verdict.where}\n\n{program.source()}")


def counting(**parts: object) -> Program:
    """A program whose recording repeats what it must not: what Python does besides."""
    return Program(0, "test", setup=["n = [0]"], parameters="x", calls=[Call([], "f(tr.ones(2))")] * 4, **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        ["n.append(1)", "return x"],  # what has a name
        ["n.append(1)", "x.requires_grad = len(n) > 3", "return x"],
    ],
)
def test_what_differs_is_seen(body: list[str]) -> None:
    assert judge(counting(body=body)).call == 3


def test_a_program_that_is_right_is_not_blamed() -> None:
    program = Program(
        0, "test", parameters="x", body=["return tr.tanh(x), [x * 2]"], calls=[Call([], "f(tr.ones(2))")] * 6
    )
    assert not judge(program)
    program.body = ["return float(x.sum())"]
    assert not judge(program)
    program.must_run = True
    assert judge(program).where.startswith("refused")


def test_a_result_that_is_a_view_is_compared_as_it_was_returned() -> None:
    calls = [Call(["x = np.asfortranarray(np.ones((2, 2)))"] * (not n) + ["x *= 2"], "f(x)") for n in range(4)]
    assert not judge(Program(0, "test", parameters="x", body=["return np.reshape(x, -1, order='F')"], calls=calls))


def test_what_the_caller_does_to_a_result_is_seen() -> None:
    program = Program(0, "test", parameters="x", body=["return x * 2"])
    program.calls = [Call(["result += 1"] * bool(n), "f(np.ones(2))") for n in range(4)]
    assert not judge(program)
    program.calls.append(Call(["seen = result.sum() + (f is step)"], "f(np.ones(2))"))
    assert judge(program).where == "seen: [5.0] plain, [4.0] compiled"


def test_a_long_run_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fuzz, "EVERY", 0.0)
    assert fuzz.main(["--count", "2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" in ")[0] for line in lines[:2]] == ["0 of 2", "1 of 2"]
    assert lines[-1].endswith("0 differ: []")


def test_programs_get_smaller() -> None:
    program = counting(body=["y = tr.tanh(x)", "n.append(1)", "z = y * 2", "return z"])
    smaller, verdict = shrunk(program, judge(program))
    assert smaller.body in (["n.append(1)", "return None"], ["n.append(1)"])
    assert verdict.call == len(smaller.calls) == 3
    names: dict[str, object] = {}
    exec(smaller.source(), names)
    assert names["n"] == [0, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_programs_of_a_seed_are_the_same(kind: str) -> None:
    assert draw(5, kind).source() == draw(5, kind).source()


@pytest.mark.parametrize("kind", KINDS)
def test_most_programs_are_not_refused(kind: str) -> None:
    """Else they would prove nothing."""
    verdicts = [judge(draw(seed, kind)) for seed in range(12)]
    assert sum(len(v.refused) for v in verdicts) < 0.35 * 8 * len(verdicts)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_do_something(kind: str) -> None:
    """A step and at least six calls; among them are some that differentiate, and some that change things between."""
    programs = [draw(seed, kind) for seed in range(30)]
    assert all(len(p.calls) >= 6 and p.body for p in programs)
    assert (
        sum(any(".requires_grad" in c or "assign_" in c for call in p.calls for c in call.changes) for p in programs)
        > 2
    )
    tr.manual_seed(0)
