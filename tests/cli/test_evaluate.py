"""`tinygrad-rnn evaluate`: the bits per character of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.cli.command import TEXT, Trained
from tinygrad_rnn import data
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
        monkeypatch.setattr(task, "read_blocks", lambda path, encoding, size=size: real(path, encoding, size))
        assert main(args) == 0
        said.append(capsys.readouterr().out.split())
    assert said[0][1:] == said[1][1:] and float(said[0][0]) == pytest.approx(float(said[1][0]), rel=0.02)
