"""The arguments of the command, and its help."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.options import Parser
from tinygrad_rnn.cli.parser import parser


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


def test_no_command_is_broken_in_two_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    shown = Parser(prog="demo")
    shown.add_argument("--x", help="a word and another (python -m pip install 'numba>=1', tinygrad-rnn doctor)")
    whole = {name: re.findall(r"pip install [\w']+", " ".join(p.format_help().split())) for name, p in commands.items()}
    assert whole["train"]
    for width in range(20, 301, 7):
        monkeypatch.setenv("COLUMNS", str(width))
        for name, command in commands.items():
            assert all(text in command.format_help() for text in whole[name]), (name, width)
        help = shown.format_help()
        assert "python -m pip install 'numba>=1'" in help and "tinygrad-rnn doctor" in help
