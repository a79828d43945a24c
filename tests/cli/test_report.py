"""What `tinygrad-rnn train` says when it is done."""

from __future__ import annotations

import sys

from tinygrad_rnn.cli import report


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
