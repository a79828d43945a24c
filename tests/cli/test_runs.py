"""`tinygrad-rnn runs`: the table, the picture, and what is no run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Trained
from tinygrad_rnn.cli.main import main


@pytest.fixture
def runs(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, from the worst to the best, one that was stopped before it was measured, and what is none."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("a", "[b] $x$", "c", "early")):
        run = Path("runs") / name
        shutil.copytree(trained[0] / "run", run)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for record in records:
            if "held_out_bits_per_char" in record:
                record["held_out_bits_per_char"] -= 0.5 * k
        if name == "early":
            records = [{"step": 1, "loss": 3.0, "bits_per_char": 4.0}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    Path("runs/notes").mkdir()
    Path("runs/file.txt").write_text("mine")
    Path("runs/damaged").mkdir()
    Path("runs/damaged/config.json").write_text('{"format": "tinygrad-rnn run"}')
    return Path("runs")


def names(said: str) -> list[str]:
    return [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]


def test_runs_are_listed_the_best_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    assert names(said) == ["runs/c", "runs/[b] $x$", "runs/a", "runs/early"]
    cells = [cell.strip() for cell in next(line for line in said.splitlines() if "runs/a" in line).split("│")[2:-1]]
    records = [json.loads(line) for line in (runs / "a" / "metrics.jsonl").read_text().splitlines()]
    bits, at = min((r["held_out_bits_per_char"], r["step"]) for r in records if "held_out_bits_per_char" in r)
    assert (
        cells[:3] == [f"{bits:.3f}", f"{at}", "60"]
        and cells[4] == "LSTM 16"
        and cells[6:9] == ["0.006", "4 x 16", "0.1"]
    )
    early = next(line for line in said.splitlines() if "runs/early" in line)
    assert "│     - │" in early and "1 of 60" in early and "cannot be compared" not in said
    assert main(["runs", "runs/a", "runs", "runs/a"]) == 0
    assert len(names(capsys.readouterr().out)) == 4


def test_runs_of_different_texts_are_told_apart(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((runs / "a" / "config.json").read_text())
    config["text"]["sha256"] = "0" * 64
    (runs / "a" / "config.json").write_text(json.dumps(config))
    assert main(["runs", "runs/a", "runs/c"]) == 0
    assert "They have read 2 different texts: bits of different texts cannot be compared." in capsys.readouterr().out


def test_their_curves_are_one_picture(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["runs", "--picture", "curves.png"]) == 0
    assert capsys.readouterr().out.endswith("curves.png: the curves of 3 of them\n")
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    assert main(["runs", "runs/early", "--picture", "none.png"]) == 2
    assert "none of these runs has been measured" in capsys.readouterr().err
    assert main(["runs", "--picture", "curves.xyz"]) == 2
    assert "curves.xyz: the name of a picture ends in .png, .svg or .pdf" in capsys.readouterr().err
    assert not Path("none.png").exists()


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ([], "no run in runs: name a run, or a folder with runs in it"),
        (["nothing"], "nothing: no such folder"),
        (["empty"], "empty: no run, and none in it"),
        (["file"], "file: no run, and none in it"),
    ],
)
def test_what_is_no_run_is_one_line(
    places: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").write_text("mine")
    assert main(["runs", *places]) == 2
    assert capsys.readouterr().err == f"tinygrad-rnn: {why}\n"
