"""What an error says of the options: those which advise what helps, and only those that there are."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import forecast, sentiment
from tests.cli.command import SMALL, TEXT, Trained
from tinygrad_rnn.cli import options
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.options import FLAGS, quoted, with_flags
from tinygrad_rnn.cli.parser import parser
from tinygrad_rnn.data import Streams, read_text
from tinygrad_rnn.errors import InputError, NonFiniteError
from tinygrad_rnn.memory import out_of_memory
from tinygrad_rnn.training import RunFolder

ROOT = Path(__file__).parents[2]


def test_only_options_that_there_are_get_named() -> None:
    error = NonFiniteError("the loss is nan", hint="try a smaller learning rate, or clip harder")
    assert str(error) == "the loss is nan: try a smaller learning rate, or clip harder"
    assert with_flags(error, {"--lr"}) == "the loss is nan: try a smaller learning rate (--lr), or clip harder"
    assert with_flags(error, {"--out"}) == str(error)
    plain = InputError("a learning rate that is too high")
    assert with_flags(plain, set(FLAGS.values())) == str(plain)


def test_what_helps_who_writes_code_is_not_said_to_who_uses_a_command() -> None:
    assert (
        with_flags(out_of_memory(MemoryError("7 TiB"), "matmul"), {"--batch"}) == "not enough memory for matmul: 7 TiB"
    )


def test_the_command_names_the_options_of_the_subcommand(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    Path("latin.txt").write_bytes("café ".encode("latin-1") * 2000)
    Path("full").mkdir()
    Path("full", "notes.txt").write_text("mine")
    RunFolder("run").create({"seed": 0})

    def said(*args: str) -> str:
        assert main(["train", *SMALL, *args]) == 2
        return capsys.readouterr().err

    assert "choose another encoding (--encoding), such as latin-1, if it is a text" in said("--text", "latin.txt")
    assert "not touched: choose another folder (--out)\n" in said("--text", "text.txt", "--out", "full")
    holds = said("--text", "text.txt", "--out", "run")
    assert "choose another folder (--out), or replace it (--replace)\n" in holds
    short = said("--text", "text.txt", "--seq-len", "5000")
    assert "choose a smaller batch (--batch) or shorter sequences (--seq-len)\n" in short
    assert main(["evaluate", str(trained[0] / "run"), "--text", "latin.txt"]) == 2
    assert "choose another encoding (--encoding), such as latin-1" in capsys.readouterr().err


def test_the_library_names_no_option_of_the_command(tmp_path: Path) -> None:
    of_the_command = re.compile(r"(?<![\w-])--[a-z]")
    package = ROOT / "tinygrad_rnn"
    for path in package.rglob("*.py"):
        if path.parent != package / "cli":
            found = [line for line in path.read_text(encoding="utf-8").splitlines() if of_the_command.search(line)]
            assert not found, path
    RunFolder(tmp_path / "run").create({})
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for call, hint in (
        (lambda: Streams(np.zeros(9, np.int32), 2, 5), "choose a smaller batch or shorter sequences"),
        (lambda: read_text(tmp_path / "latin.txt"), "choose another encoding, such as latin-1, if it is a text"),
        (lambda: RunFolder(tmp_path / "run").check(replace=False), "choose another folder, or replace it"),
    ):
        with pytest.raises(InputError, match=f": {hint}$") as found:
            call()
        assert found.value.hint == hint


def test_every_advice_is_given_somewhere_and_every_option_is_one() -> None:
    files = [p for room in ("tinygrad_rnn", "examples") for p in (ROOT / room).rglob("*.py") if p.name != "options.py"]
    texts = [p.read_text(encoding="utf-8") for p in files]
    for advice in FLAGS:
        assert any(advice in text for text in texts), advice
    of_examples = argparse.ArgumentParser(conflict_handler="resolve")
    for example in (forecast, sentiment):
        example.data_options(of_examples.add_argument_group())
    flags = [parser().parse_args([command]).flags for command in ("train", "explore")]
    known = frozenset(of_examples._option_string_actions).union(*flags)
    assert {flag.split()[0] for flag in FLAGS.values()} <= known


PATHS = ["runs/a", "two  blanks", "it's", 'say "x"', "$HOME `ls` ~ !1 \\n", "-rf", "--out=x", "a\nb", "\t\r\x1b[0m'\\"]
PATHS += ["caf\u00e9 \u65e5\u672c \U0001f600", "\u00a0\u2028e\u0301", "caf\udce9", "*?[a]{b,c}", "#x;y|z&"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_path_that_is_shown_can_be_copied(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """On one line, in characters that can be shown, and a shell reads it as it was."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    shown = [quoted(path) for path in PATHS]
    assert all(text.isprintable() and text.encode(encoding) for text in shown)
    program = "\n".join(f"printf '%s\\0' {text}" for text in shown)
    done = subprocess.run(["bash", "-c", program], capture_output=True, check=True)
    read = [os.fsdecode(path) for path in done.stdout.split(b"\0")[:-1]]
    assert read == [f"./{path}" if path.startswith("-") else path for path in PATHS]


def test_numba_that_does_not_fit_is_said_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    on = []

    def broken(wanted: bool = True) -> float:
        on.append(wanted)
        if wanted:
            raise ImportError("Numba needs NumPy 2.9 or less.\nGot NumPy 3.0.")
        return 0.0

    monkeypatch.setattr(options, "enable_numba", broken)
    begin, why = "Steps recorded once and replayed, by NumPy alone: ", "Numba needs NumPy 2.9 or less. Got NumPy 3.0."
    assert options.choose_path("cpu", plain=False) == begin + why
    assert options.choose_path("cpu", plain=False, numba=False) == begin + "as asked for" and on == [True, False, False]
    with pytest.raises(InputError, match=f"^--numba: {why}$"):
        options.choose_path("cpu", plain=False, numba=True)
