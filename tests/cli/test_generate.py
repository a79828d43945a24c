"""`tinygrad-rnn generate`: the text that a model writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import TEXT, Trained, command
from tinygrad_rnn import decoding
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.language.model import load_model


def test_generate_streams_the_same_text_for_the_same_seed(
    trained: Trained,
) -> None:
    folder = trained[0]
    first, again, other = (
        command("generate", "run", "--prompt", "the sun", "--length", 80, "--seed", seed, cwd=folder)
        for seed in (1, 1, 2)
    )
    assert first.returncode == 0 and first.stderr == ""
    assert first.stdout == again.stdout != other.stdout
    assert first.stdout.startswith("the sun") and len(first.stdout) == len("the sun") + 80 + 1
    assert set(first.stdout) <= set(TEXT)


def test_options_of_generate(trained: Trained, capsys) -> None:
    run = str(trained[0] / "run")
    texts = []
    for options in (
        ["--temperature", "0"],
        ["--top-k", "1", "--seed", "5"],
        ["--length", "0", "--prompt", "the"],
    ):
        assert main(["generate", run, "--length", "30", *options]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and texts[2] == "the\n"


def test_generate_writes_with_the_last_model_when_asked(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained[0] / "run")
    assert main(["generate", run, "--length", "9", "--checkpoint", "last", "--temperature", "0"]) == 0
    last, vocabulary, manifest = load_model(Path(run) / "checkpoints", "last")
    assert manifest["step"] == 60
    expected = "".join(decoding.generate(last, vocabulary, length=9, temperature=0))
    assert capsys.readouterr().out == expected + "\n"
