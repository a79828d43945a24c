"""The arguments of the command, and its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.cli.main import main


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for args, part in [
        (["--version"], f"tinygrad-rnn {tr.__version__}"),
        (["--help"], "COMMAND --help"),
        (["train", "--help"], "examples:"),
        (["train", "--help"], "--resume RUN"),
        (["generate", "--help"], "examples:"),
        (["evaluate", "--help"], "examples:"),
        (["doctor", "--help"], "GPUs or what to install"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            main(args)
        assert exit_.value.code == 0
        said = capsys.readouterr().out
        assert part in said and max(map(len, said.splitlines())) <= 110


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom tinygrad_rnn.cli.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'rich', 'matplotlib', 'safetensors'} & set(sys.modules)"
    )
    root = str(Path(tr.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": root}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_text_without_its_option_is_recognised(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("yours.txt").write_text("some text")
    assert main(["train", "yours.txt"]) == 2
    assert "did you mean --text yours.txt? (see tinygrad-rnn train --help)" in capsys.readouterr().err
