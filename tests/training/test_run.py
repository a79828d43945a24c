"""The run's folder: made, replaced, gone on in and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.training import RunFolder, free_run


def test_a_run_is_made_where_nothing_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "b")
    run.check(replace=False)
    assert not run.path.exists()  # checking touches nothing
    run.create({"seed": 3})
    assert run.is_run() and run.config()["seed"] == 3


def test_a_run_is_replaced_only_when_asked_and_only_its_own_files(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.create({"seed": 1})
    run.metrics.write_text("{}\n")
    run.checkpoints.mkdir()
    (run.checkpoints / "best.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds a run already"):
        run.check(replace=False)
    run.check(replace=True)
    run.create({"seed": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]
    assert run.config()["seed"] == 2


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_run_is_not_touched(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"format": "of another program"}')
    (tmp_path / "file").write_text("x")
    for place, match in [
        ("folder", "not empty and holds no run"),
        ("file", "is a file"),
        ("file/below", "is not a folder"),
    ]:
        with pytest.raises(InputError, match=match):
            RunFolder(tmp_path / place).check(replace)
    assert (tmp_path / "folder" / "config.json").exists()


def test_no_run_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        RunFolder(tmp_path / "none").config()
    with pytest.raises(InputError, match="is no run"):
        RunFolder(tmp_path).config()


def test_free_run(tmp_path: Path) -> None:
    (tmp_path / "gru-1").mkdir()
    assert free_run(tmp_path, "gru") == tmp_path / "gru-2"
