"""`tinygrad-rnn evaluate`: the bits per character of a text."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.cli.command import TEXT, Trained, command
from tinygrad_rnn import data
from tinygrad_rnn.cli import evaluate
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.language import task
from tinygrad_rnn.language.model import load_model


def test_evaluate_gives_the_bits_of_a_text(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "the sun of the moon\n\nthe a of"
    (tmp_path / "new.txt").write_text(text)
    args = ["evaluate", str(trained[0] / "run"), "--text", str(tmp_path / "new.txt")]
    assert main(args) == 0
    said = capsys.readouterr().out
    model, vocabulary, manifest = load_model(trained[0] / "run" / "checkpoints")
    ids = vocabulary.encode("\n" + text)
    scores, _ = model(ids[:-1, None])
    p = tr.softmax(scores, axis=-1).numpy()[np.arange(len(text)), 0, ids[1:]]
    bits = -np.log2(p)
    assert said.startswith(f"{bits.mean():.3f} bits per character: {len(text)} of ")
    assert said.endswith(f"new.txt, by the model of step {manifest['step']}\n")
    assert main([*args, "--per-line", "--checkpoint", "last"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines[:3]] == ["the sun of the moon", "", "the a of"]
    assert "by the model of step 60" in lines[3]
    if manifest["step"] == 60:
        assert float(lines[0].split()[0]) == pytest.approx(bits[:20].mean(), abs=6e-4)
        assert float(lines[2].split()[0]) == pytest.approx(bits[21:].mean(), abs=6e-4)


def test_a_long_text_is_evaluated_in_pieces(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "long.txt").write_text(TEXT * 4)
    args = ["evaluate", str(trained[0] / "run"), "--text", str(tmp_path / "long.txt")]
    real = data.read_blocks
    said = []
    for size in (10**6, 700):
        monkeypatch.setattr(evaluate, "read_blocks", lambda path, encoding, size=size: real(path, encoding, size))
        assert main(args) == 0
        said.append(capsys.readouterr().out.split())
    assert said[0][1:] == said[1][1:] and float(said[0][0]) == pytest.approx(float(said[1][0]), rel=0.02)


def test_a_few_unseen_characters_are_left_out_and_counted(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figure is that of the text without them, and the lines are shown with them."""
    text = "the sun of the moon is 3.\nthe a of the b is 7.\n"
    (tmp_path / "clean.txt").write_text(text)
    (tmp_path / "one.txt").write_text(text.replace("b is", "b§ is"), encoding="utf-8")
    (tmp_path / "more.txt").write_text(f"é{text}ÄÄ\n", encoding="utf-8")
    run = str(trained[0] / "run")
    said = {}
    for name in ("clean", "one", "more"):
        assert main(["evaluate", run, "--per-line", "--text", str(tmp_path / f"{name}.txt")]) == 0
        said[name] = capsys.readouterr().out.splitlines()
    assert said["one"][0] == said["clean"][0] and said["one"][1] == said["clean"][1].replace("b is", "b§ is")
    assert said["one"][2] == said["clean"][2].replace("clean", "one")
    assert said["one"][3:] == ["Left out, neither read nor counted: 1 character that the model has never seen ('§': 1)"]
    assert said["more"][2].endswith("  ÄÄ") and f"{len(text) + 1} of " in said["more"][3]
    assert said["more"][4].endswith("3 characters that the model has never seen ('Ä': 2, 'é': 1)")


def test_too_many_unseen_characters_are_an_error(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("the sun\n")
    (tmp_path / "b.txt").write_text("Привет, мир")
    args = ["evaluate", str(trained[0] / "run"), "--text", *(str(tmp_path / f"{name}.txt") for name in "ab")]
    assert main(args) == 2
    said = capsys.readouterr()
    assert said.out == "" and "b.txt: the model has never seen 'П' (character 1 of it), and 10 of 19" in said.err
    assert main([*args[:3], str(tmp_path / "b.txt")]) == 2  # of which nothing at all was seen but a blank


def test_unseen_characters_in_any_piece_are_infinite_bits(trained: Trained, tmp_path: Path) -> None:
    text = ("§" + TEXT[:3000] + "§§" + TEXT[3000:] + "§") * 2
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    (tmp_path / "clean.txt").write_text(text.replace("§", ""))
    model, vocabulary, _ = load_model(trained[0] / "run" / "checkpoints")
    found = {}
    for name in ("long", "clean"):
        blocks = data.read_blocks(tmp_path / f"{name}.txt")
        pieces = list(task.text_bits(model, vocabulary, ((name, block) for block in blocks)))
        found[name] = np.concatenate([bits for _, bits in pieces])
    unseen = np.array([c == "§" for c in text])
    assert np.array_equal(np.isposinf(found["long"]), unseen)
    np.testing.assert_allclose(found["long"][~unseen], found["clean"], rtol=1e-5)


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="needs /dev/stdin")
def test_a_text_is_piped_in_or_unpacked(trained: Trained, tmp_path: Path) -> None:
    """The figure is that of the file; a run that read its text from a pipe is given it again to go on."""
    folder = trained[0]
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    plain = command("evaluate", "run", "--text", "text.txt", cwd=folder)
    piped = command("evaluate", "run", "--text", "-", cwd=folder, input=TEXT)
    packed = command("evaluate", "run", "--text", tmp_path / "text.txt.gz", cwd=folder)
    assert plain.stdout.split()[0] == piped.stdout.split()[0] == packed.stdout.split()[0], piped.stderr
    options = ["--steps", 2, "--plain", "--threads", 1, "--hidden", 8]
    assert command("train", "--text", "-", "--out", "piped", *options, cwd=tmp_path, input=TEXT).returncode == 0
    again = command("train", "--resume", "piped", "--steps", 3, cwd=tmp_path, input=TEXT)
    assert again.returncode == 0, again.stderr
    other = command("train", "--resume", "piped", "--steps", 4, cwd=tmp_path, input=TEXT + "more")
    assert other.returncode == 2 and "was trained on another text than" in other.stderr
