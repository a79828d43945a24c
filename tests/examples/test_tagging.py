from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from examples import tagging
from examples.common.experiment import experiment
from tinygrad_rnn.errors import InputError

PROGRAM = '''def double(x):  # twice
    """Two of it."""
    return f"{x + 1!r}" if x else 2.5
'''


def test_each_character_gets_the_tag_of_its_token() -> None:
    tags = tagging.tags_of(PROGRAM, "program")

    def said(tag: str) -> str:
        return "".join(c if t == tagging.TAGS.index(tag) else " " for c, t in zip(PROGRAM, tags, strict=True))

    assert said("keyword").split() == ["def", "return", "if", "else"]
    assert said("name").split() == ["double", "x", "x"]
    assert said("comment").split() == ["#", "twice"]
    assert said("number").split() == ["2.5"]
    assert "".join(said("operator").split()) == "():"
    assert said("string").split() == ['"""Two', "of", 'it."""', 'f"{x', "+", '1!r}"']  # the same in every Python


def test_every_character_is_tagged_once() -> None:
    ids = np.arange(1000) % 7
    model = lambda x: tagging.tr.Tensor(np.eye(7)[x])  # says of each character its own number
    np.testing.assert_array_equal(tagging.tagged(model, ids), ids)


def test_ones_own_programs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for k in range(5):
        (tmp_path / f"{k}.py").write_text("\n".join(PROGRAM.replace("double", f"name_{k}") for _ in range(8)))
    command = ["--quick", "--steps", "3", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert experiment(tagging.main, steps=1, quick=1, data="a folder", argv=command) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert str(tmp_path) in results["source"]
    assert len(results["pictures"]) == 2


def test_what_is_no_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"x, line [23]: not Python"):
        tagging.tags_of("a = 1\nb = (\n", "x")
    pytest.importorskip("matplotlib")
    command = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert experiment(tagging.main, steps=1, quick=1, data="a folder", argv=command) == 2
    assert "0 Python files" in capsys.readouterr().err
