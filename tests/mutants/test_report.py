"""The report counts what it should, and is red where it should be."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest

from tests.mutants import equivalent, judge, mutations, report


def outcome(label: str, killers: dict[str, str], file: str = "tensor/ops/elementwise.py") -> report.Outcome:
    witnesses = {"value": 2, "gradient": 3}
    seen = {"before": f"{label} a", "after": f"{label} b", "witnesses": witnesses, "killers": killers}
    return {"file": file, "label": label, "line": 7, **seen}


KILLED = outcome("tanh", {"gradient": "gradient: wrong", "value": "value: wrong"})
SURVIVOR = outcome("_power[0]", {})
LAYER = outcome("lstm_vjp", {"gradient": "", "value": ""}, "kernels/recurrent.py")
ENGINE = outcome("sweep", {"gradient": "", "value": ""}, "tensor/graph.py")


def test_rows_count_expressions_mutants_kills_and_witnesses() -> None:
    columns = report.columns_of([KILLED, SURVIVOR])
    assert columns == ["value", "gradient"]
    assert report.row("x", [KILLED, SURVIVOR], columns) == ["x", "2", "2", "1", "1", "1", "10"]
    assert report.row("x", [SURVIVOR], ["value", "backend"])[4:6] == ["0", "–"]
    assert [report.group_of(o) for o in (KILLED, SURVIVOR, LAYER)] == [
        "tanh",
        "power",
        "kernels/recurrent.py: lstm_vjp",
    ]


def test_a_zero_is_red() -> None:
    assert report.zeros([KILLED, LAYER, ENGINE]) == []
    assert report.zeros([KILLED, SURVIVOR, LAYER, ENGINE]) == ["power: no kills"]
    only_value = outcome("tanh", {"value": ""})
    assert report.zeros([only_value, LAYER, ENGINE]) == ["The derivative table: gradient never killed"]


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [KILLED] * 99
    assert report.verdict([*many, SURVIVOR], complete=False) == 1
    monkeypatch.setattr(report, "EQUIVALENT", {"it is the same": [report.key(SURVIVOR)]})
    assert report.verdict([*many, SURVIVOR], complete=False) == 0
    assert report.verdict(many, complete=False) == 1  # explained, and killed
    assert report.verdict([*many[:9], SURVIVOR], complete=False) == 1  # 90 %
    found, figures = [*many, SURVIVOR], "<!-- figures -->ours<!-- end of figures -->"
    bugs = tmp_path / "mutants.json"
    bug = {"name": "n", "file": "f.py", "why": "w", "by": "tests/t.py"}
    told = [
        {**bug, "outcome": o, "asked": a} for o, a in (("killed", "nearest"), ("killed", "suite"), ("survived", ""))
    ]
    bugs.write_text(json.dumps(told))
    monkeypatch.setattr(report, "BUGS", bugs)
    text = report.page(found, figures, len(found))
    assert "2 of 3 turn the suite red, 1 of them the tests nearest" in text
    assert "Not all yet" not in text
    assert f"**Not all yet:** {len(found)} of 1,000 mutants" in report.page(found, figures, 1000)
    assert "**it is the same** (1)" in text and "ours" in text and "99.0 %" in text


def test_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    page = tmp_path / "mutation-report.md"
    assert report.figures_of(page) == "<!-- figures -->\n<!-- end of figures -->"
    page.write_text("a <!-- figures -->\n42\n<!-- end of figures --> b")
    assert report.figures_of(page) == "<!-- figures -->\n42\n<!-- end of figures -->"


def test_a_reason_stands_once() -> None:
    keys = [key for keys in equivalent.EQUIVALENT.values() for key in keys]
    assert len(set(keys)) == len(keys)


def test_an_oracle_that_objects_is_named_and_not_asked_again() -> None:
    verdict = judge.Verdict()

    def law() -> None:
        raise AssertionError("wrong\nand more")

    for check in (lambda: None, law, law):
        judge.hear(verdict, "value", check)
    assert verdict == judge.Verdict({"value": 2}, {"value": "AssertionError: wrong"})


def test_a_test_that_is_not_asked_makes_no_other_fail(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_one():\n    assert False\n\ndef test_two():\n    pass\n")
    (tmp_path / "test_b.py").write_text("def test_three():\n    pass\n")
    verdict = judge.Verdict()
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib", f"--rootdir={tmp_path}"]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*options, str(tmp_path)], plugins=[judge.Witnesses(lambda node: node[5:6], verdict)])
    assert list(verdict.killers) == ["a"]
    assert verdict.witnesses == {"a": 1, "b": 1}


def test_a_fork_sees_the_mutated_source_and_no_file_is_written(tmp_path: Path) -> None:
    if "tinygrad_rnn" in sys.modules:  # as here: only a process that has not imported it can
        assert judge.Mutated("errors.py", "answer = 42").find_spec("tinygrad_rnn.nn") is None
    loader = judge.Mutated("errors.py", "answer = 42")
    spec = loader.find_spec("tinygrad_rnn.errors")
    assert spec is not None and spec.loader is loader
    scope: dict[str, object] = {}
    exec(loader.get_code("tinygrad_rnn.errors"), scope)
    assert scope["answer"] == 42


def test_every_region_has_tests_that_are_nearest() -> None:
    for region in mutations.regions():
        court = judge.court_of(region, {})
        assert all((mutations.ROOT / file).exists() for file in court.files), region


def test_the_package_as_it_is_is_shown_to_every_oracle_once() -> None:
    courts = [judge.court_of(region, {}) for region in mutations.regions()]
    courts += [judge.Court(("tanh", "exp"), courts[0].files, ()), judge.Court(("exp",), (), ("GRU",))]
    once = report.every_oracle_once(courts)
    for part in ("rows", "files", "kinds"):
        asked = [x for court in once for x in getattr(court, part)]
        assert sorted(asked) == sorted({x for court in courts for x in getattr(court, part)})
