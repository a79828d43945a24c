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


def test_several_texts_have_the_seeds_that_follow(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained[0] / "run")
    each = []
    for seed in ("4", "5"):
        assert main(["generate", run, "--length", "20", "--prompt", "the ", "--seed", seed]) == 0
        each.append(capsys.readouterr().out)
    assert main(["generate", run, "--length", "20", "--prompt", "the ", "--seed", "4", "--num-samples", "2"]) == 0
    assert capsys.readouterr().out == f"{each[0]}---------------\n{each[1]}"
    assert main(["generate", run, "--seed", str(2**32 - 2), "--num-samples", "3"]) == 2
    assert "leaves no seeds for 3 samples" in capsys.readouterr().err


def test_a_prompt_from_a_file(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = str(trained[0] / "run"), tmp_path / "begin.txt"
    file.write_bytes(b"the sun\r\nthe ")
    assert main(["generate", run, "--prompt-file", str(file), "--length", "9", "--temperature", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("the sun\nthe ") and len(said) == 12 + 9 + 1
    file.write_text("the sun\nthe \n")  # as an editor saves it
    assert main(["generate", run, "--prompt-file", str(file), "--length", "9", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == said
    assert main(["generate", run, "--prompt-file", str(file), "--prompt", ""]) == 2
    assert "--prompt and --prompt-file exclude each other" in capsys.readouterr().err
    assert main(["generate", run, "--prompt-file", str(tmp_path / "none")]) == 2
    file.write_text("the §")
    assert main(["generate", run, "--prompt-file", str(file)]) == 2
    said = capsys.readouterr().err
    assert "none: no such file" in said and "never seen the character '§' of the prompt" in said
