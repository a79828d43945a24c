"""What completes the command, and its manual page: both are of its parser."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.parser import parser


def printed(kind: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", kind]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    script = printed(shell, capsys)
    assert all(word in script for word in ("train", "doctor", "hidden", "temperature"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_manual_page_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("build_manpages")
    page = printed("man", capsys)
    assert page.startswith(".TH TINYGRAD") and ".SH DESCRIPTION" in page
    commands = next(action for action in parser()._actions if action.dest == "command").choices
    assert {"train", "completion"} <= set(commands)
    for command in commands.values():
        for action in command._actions:
            for flag in action.option_strings:
                assert flag.replace("-", r"\-") in page, flag


@pytest.mark.parametrize(
    ("kind", "module", "name"), [("bash", "shtab", "shtab"), ("man", "build_manpages", "argparse-manpage")]
)
def test_what_makes_it_is_named_where_it_is_missing(
    kind: str, module: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.manpage", None)
    assert main(["completion", kind]) == 2
    assert capsys.readouterr().err.endswith(f"made with {name}: pip install {name}\n")
