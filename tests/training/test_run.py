"""The run's folder, its metrics, its display and its picture."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.picture import plot_loss
from tinygrad_rnn.training import LiveDisplay, MetricsLog, PlainDisplay, RunFolder, display_for, free_run, read_metrics

RECORDS = [
    {"step": n, "loss": 3.0 / n, "bits_per_char": 4.3 / n, "chars_per_second": 1000.0 * n}
    | ({"held_out_bits_per_char": 4.4 / n} if n % 10 == 0 else {})
    for n in range(1, 41)
]


def measured(record: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in record.items() if key.startswith("held_out")}


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


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for record in RECORDS:
            log.write(record)
            assert json.loads(path.read_text().splitlines()[-1]) == record  # each is there at once
        log.write({"step": 41, "loss": float("nan")})
    assert read_metrics(path) == [*RECORDS, {"step": 41, "loss": None}]
    with open(path, "a") as file:
        file.write('{"step": 42, "lo')
    assert len(read_metrics(path)) == 41


def test_plain_lines_come_with_evaluations() -> None:
    stream = io.StringIO()
    display = PlainDisplay(every=1e9, stream=stream)
    display.start(40, "chars")
    for record in RECORDS:
        display.show(record, measured(record), record["step"] / 40, record["step"] * 2.0, "")
    display.stop()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("step 20/40  loss 0.")
    assert "held-out 0.220" in lines[1] and "chars/s" in lines[1] and lines[1].endswith("0:40 left")


def test_the_live_display_shows_every_figure() -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
    display = display_for(console)
    assert isinstance(display, LiveDisplay)
    display.start(40, "chars")
    for record in RECORDS:
        display.show(record, measured(record), record["step"] / 40, record["step"] * 2.0, "a [bold] sample")
    console.print(display._picture())
    display.stop()
    shown = stream.getvalue()
    for part in ("step", "40/40", "loss", "bits/char", "held-out", "0.110", "chars/s", "a [bold] sample"):
        assert part in shown


def test_without_a_terminal_lines_are_plain() -> None:
    from rich.console import Console

    assert isinstance(display_for(Console(file=io.StringIO())), PlainDisplay)


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], [{"step": 1, "loss": None, "bits_per_char": None}], []])
def test_a_picture_of_any_run(tmp_path: Path, records: list[dict[str, float]]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    plot_loss(path, records, title="a title", lines={"3-gram": 2.4, "4-gram": 2.39})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_install_command_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"tinygrad-rnn\[viz\]\""):
        plot_loss(tmp_path / "loss.png", RECORDS, title="")
    assert not list(tmp_path.iterdir())
