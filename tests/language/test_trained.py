"""What a training left, in Python: a run or an exported file, whole or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import tinygrad_rnn as tr
from tests.cli.command import TEXT, Trained
from tinygrad_rnn import decoding
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.errors import CheckpointError, InputError
from tinygrad_rnn.language.model import load_model


def test_a_run_is_loaded_and_used(trained: Trained) -> None:
    run = trained[0] / "run"
    loaded = tr.language.load(run)
    model, vocabulary, manifest = load_model(run / "checkpoints")
    assert loaded.step == manifest["step"] and loaded.config["model"]["hidden"] == 16
    assert loaded.figures["held_out_bits_per_char"] == manifest["figures"]["held_out_bits_per_char"]
    assert not loaded.model.training and loaded.vocabulary == vocabulary
    expected = "".join(decoding.generate(model, vocabulary, "the ", 30, 0.5, 4, seed=3))
    assert loaded.generate("the ", 30, temperature=0.5, top_k=4, seed=3) == expected
    assert tr.language.load(run, "last").step == 60


def test_its_bits_per_char_are_those_of_the_command(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = tr.language.load(trained[0] / "run")
    assert main(["evaluate", str(trained[0] / "run"), "--text", str(trained[0] / "text.txt")]) == 0
    assert capsys.readouterr().out.startswith(f"{loaded.bits_per_char(TEXT):.3f} bits per character")
    assert loaded.bits_per_char("the sun§ of the moon") == pytest.approx(loaded.bits_per_char("the sun of the moon"))
    for text, why in (("", "no character"), ("§§", "the text: the model has never seen '§'")):
        with pytest.raises(InputError, match=why):
            loaded.bits_per_char(text)


def test_an_exported_file_is_loaded_as_the_run_is(trained: Trained, tmp_path: Path, capsys) -> None:
    run, file = trained[0] / "run", tmp_path / "m.safetensors"
    assert main(["export", str(run), "--out", str(file)]) == 0
    ours, other = tr.language.load(run), tr.language.load(file)
    for (name, a), (again, b) in zip(ours.model.state_dict().items(), other.model.state_dict().items(), strict=True):
        assert name == again and a.numpy().tobytes() == b.numpy().tobytes()
    assert (ours.config, ours.vocabulary, ours.step) == (other.config, other.vocabulary, other.step)
    assert ours.figures == other.figures and not other.model.training
    for command in (["generate", "--length", "40"], ["evaluate", "--text", str(trained[0] / "text.txt")]):
        said = []
        for path in (run, file):
            capsys.readouterr()
            assert main([command[0], str(path), *command[1:]]) == 0
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]


def test_what_cannot_be_loaded_is_said(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        tr.language.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        tr.language.load(trained[0] / "text.txt")
    file = tmp_path / "m.safetensors"
    assert main(["export", str(trained[0] / "run"), "--out", str(file)]) == 0
    with pytest.raises(InputError, match="is one model, and not a run with checkpoints"):
        tr.language.load(file, "last")


def test_training_goes_on_in_python(trained: Trained, tmp_path: Path) -> None:
    """From the weights and the optimiser of the last checkpoint: the next steps are those that the command makes."""
    folder = tmp_path / "run"
    text = trained[0] / "text.txt"
    options = [
        "--hidden=8",
        "--seq-len=16",
        "--batch=4",
        "--threads=1",
        "--plain",
        "--dropout=0",
        "--schedule=constant",
    ]
    assert main(["train", "--text", str(text), "--out", str(folder), "--steps=20", *options]) == 0
    loaded = tr.language.load(folder, "last")
    ids = loaded.vocabulary.encode(TEXT)
    train, held_out = tr.data.split_held_out(ids)
    loaded.model.train()
    adam = tr.optim.Adam(loaded.model.named_parameters(), lr=loaded.config["training"]["lr"])
    task = tr.language.NextCharacter(
        loaded.model, tr.data.Streams(train, 4, 16), tr.data.passage(train, held_out, batch=4)
    )
    session = tr.training.Session(loaded.model, adam, task, tr.optim.BudgetLR(adam, tr.optim.warmup_constant))
    session.restore(tr.training.load_checkpoint(folder / "checkpoints", "last"))
    with threadpool_limits(1):
        session.train(tr.training.Budget(steps=30), plain=True)
    assert main(["train", "--resume", str(folder), "--steps=30"]) == 0
    for name, value in tr.language.load(folder, "last").model.state_dict().items():
        np.testing.assert_allclose(value.numpy(), loaded.model.state_dict()[name].numpy(), rtol=1e-4, atol=1e-6)
