"""`tinygrad-rnn export`: the file, its size, and what stands in its way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import SMALL, TEXT, Trained
from tinygrad_rnn.cli.main import main


def test_the_file_has_all_but_what_a_training_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    small = [*SMALL, "--hidden", "64", "--plain"]
    assert main(["train", "--text", "text.txt", "--out", "runs/a b", "--steps", "2", *small]) == 0
    capsys.readouterr()
    assert main(["export", "runs/a b"]) == 0
    said = capsys.readouterr().out
    file = Path("runs", "a b.safetensors")
    assert said.startswith(f"'{file}': ") and "hidden 64" in said and said.count("\n") == 2
    checkpoints = Path("runs/a b/checkpoints")
    weights = json.loads((checkpoints / "best.json").read_text())["weights"]
    assert file.stat().st_size < 0.4 * (checkpoints / weights).stat().st_size


def test_an_onnx_file_is_written_and_explained(trained: Trained, tmp_path: Path, capsys) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    assert main(["export", str(trained[0] / "run"), "--format", "onnx", "--out", str(path)]) == 0
    said = capsys.readouterr().out
    assert "Opset 17: ids (time, batch) of int64 and h and c (1, batch, 16), zeros at first, give scores" in said
    model = onnx.load(str(path))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["vocabulary"]) == "".join(sorted(set(TEXT)))
    assert json.loads(told["config"])["training"]["steps"] == 60


def test_what_is_in_the_way_is_one_line(trained: Trained, tmp_path: Path, capsys) -> None:
    run = str(trained[0] / "run")
    (tmp_path / "there.bin").write_text("mine")

    def said(*args: object) -> str:
        assert main(["export", *map(str, args)]) == 2
        found = capsys.readouterr()
        assert found.err.count("\n") == 1 and found.out == ""
        return found.err

    assert "is there already: choose another file (--out), or replace it (--replace)" in said(
        run, "--out", tmp_path / "there.bin"
    )
    assert "is a folder, not a file to write" in said(run, "--out", tmp_path)
    assert "is no folder: choose another file (--out)" in said(run, "--out", tmp_path / "a" / "b")
    assert "no such folder" in said(tmp_path / "none")
    assert "not a whole safetensors file" in said(tmp_path / "there.bin")
    assert "invalid choice: 'pt'" in said(run, "--format", "pt")
    assert (tmp_path / "there.bin").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    assert main(["export", run, "--out", str(tmp_path / "there.bin"), "--replace"]) == 0
