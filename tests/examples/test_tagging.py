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


def run(folder: Path) -> int:
    command = ["--quick", "--steps", "1", "--data", str(folder), "--out", str(folder / "out")]
    return experiment(tagging.main, steps=1, quick=1, data="a folder", argv=command)


def test_programs_of_every_look(tmp_path: Path) -> None:
    """Of any declared encoding, some files empty, few lines and long ones, folders and dead links called .py."""
    pytest.importorskip("matplotlib")
    for k in range(5):
        line = f"café = {' + '.join(str(n) for n in range(200))}\n"
        (tmp_path / f"{k}.py").write_bytes(f"# coding: latin-1\n{line}".encode("latin-1"))
    (tmp_path / "__init__.py").touch()
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "link.py").symlink_to(tmp_path / "nowhere")
    assert run(tmp_path) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tables"][0]["rows"][0][1] == "–"  # there are no keywords
    assert not any("keyword" in note for note in results["notes"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n" * 500, ": the files to choose by, or to test with, are nothing but blanks\n"),
        ("# coding: klingon\n", "0.py: unknown encoding for "),
        ("# caf\udce9\n", "0.py: invalid or missing encoding declaration for "),
        (
            "\n\nx = 1  # caf\udce9\n",
            "not utf-8: invalid continuation byte at byte 14: declare another encoding, # coding: ",
        ),
        ("x = 1\n", " characters, and each must have 256\n"),
    ],
)
def test_wrong_programs_are_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    for k in range(5):
        (tmp_path / f"{k}.py").write_text(text, errors="surrogateescape")
    assert run(tmp_path) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_program_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    for content, what in ((b"x = 1\0\n", "line 1: a binary file, not a text"), (b"# coding: utf-8\n\xff\n", "declare")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=what) as found:
            tagging.read_source(file)
        assert str(found.value).count("declare another encoding") == (what == "declare")
