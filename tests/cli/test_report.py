"""What `tinygrad-rnn train` says when it is done."""

from __future__ import annotations

import io
import re
import shlex
import sys

from rich.console import Console

from tinygrad_rnn.cli import report
from tinygrad_rnn.data.vocabularies import Vocabulary
from tinygrad_rnn.language.model import CharModel, CharModelConfig
from tinygrad_rnn.training import LoopState, Outcome, RunFolder, Spent


def test_the_command_is_named_as_it_can_be_called(monkeypatch, tmp_path):
    monkeypatch.setattr(report.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert report.command() == "tinygrad-rnn"
    monkeypatch.setattr(report.shutil, "which", lambda name: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "tinygrad-rnn")])
    assert report.command() == ".venv/bin/tinygrad-rnn"
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert report.command() == "/usr/bin/python3 -m tinygrad_rnn"


def test_what_is_to_be_copied_is_never_folded(tmp_path, monkeypatch):
    monkeypatch.setattr(report.shutil, "which", lambda name: f"/usr/bin/{name}")
    folder = RunFolder(tmp_path / "a long name" / "it's a run" / ("x" * 60))
    folder.make()
    folder.metrics.write_text("")
    monkeypatch.setattr(report, "plot_loss", lambda *args, **options: None)
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, width=40, force_terminal=terminal)
        said = report.Report(console, folder, "LSTM", 0, None, Spent())
        said.results(Outcome(LoopState(step=3), stopped_by=2), [], None)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
        command = f"To go on: tinygrad-rnn train --resume {shlex.quote(str(folder.path))}"
        assert shown == [f"Stopped after step 3 and saved in {folder.path}.", command]


def test_a_sample_is_cut_short_where_the_model_is_slow(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(report, "perf_counter", lambda: next(clock))
    model = CharModel(CharModelConfig(3, hidden=2, embedding=2))
    assert len(report.sample(model, Vocabulary("abc"), 40, seconds=9)) == 10
    assert len(report.sample(model, Vocabulary("abc"), 40)) == 40 and model.training
