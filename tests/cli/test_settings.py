"""Options from all sides: typed, from a file, from a run that goes on; and what a run leaves to be asked for again."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.command import TEXT, Trained
from tinygrad_rnn import language
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.cli.parser import parser
from tinygrad_rnn.cli.settings import as_toml, settings_of
from tinygrad_rnn.training import load_checkpoint, read_metrics

LIGHT = ["--plain", "--threads=1", "--hidden=8", "--embedding=4", "--seq-len=8", "--batch=4"]


@pytest.fixture(autouse=True)
def without_the_ending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a picture and a sample, which take longer than all the steps here."""
    monkeypatch.setattr("tinygrad_rnn.cli.report.plot_loss", lambda *_, **__: None)
    monkeypatch.setattr("tinygrad_rnn.cli.report.generate", lambda *_, **__: iter(()))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def train(*args: object) -> int:
    return main(["train", *map(str, args)])


def settings(*args: object) -> argparse.Namespace:
    return settings_of(parser().parse_args(["train", *map(str, args)]))


def figures(run: str) -> list[dict[str, float]]:
    records = read_metrics(Path(run, "metrics.jsonl"))
    return [{key: value for key, value in record.items() if key != "chars_per_second"} for record in records]


def tensors(run: str) -> dict[str, bytes]:
    return {name: x.tobytes() for name, x in load_checkpoint(Path(run, "checkpoints"), "last").tensors.items()}


# --- a file of options ---------------------------------------------------------------------------


def test_what_is_typed_goes_before_the_file(tmp_path: Path) -> None:
    Path("run.toml").write_text('text = "text.txt"\nhidden = 64\nseq-len = 20\nlr = 1e-3\nsteps = 9\nnumba = false\n')
    found = settings("--config", "run.toml", "--hidden", 32)
    assert (found.hidden, found.seq_len, found.lr, found.steps) == (32, 20, 0.001, 9)
    assert found.text == ["text.txt"] and found.numba is False and found.batch == 16
    found = settings("--config", "run.toml", "--minutes", 2, "--plain")  # a budget goes before a budget
    assert (found.steps, found.minutes, found.plain, found.numba) == (None, 2, True, None)
    assert settings("--config", "run.toml", "--epochs", 2).steps is None


@pytest.mark.parametrize("more", [[], ["--model=gru", "--epochs=0.5", "--accumulate=2", "--dropout=0.3", "--seed=5"]])
def test_the_options_that_a_run_leaves_train_the_same_again(more: list[str]) -> None:
    assert train("--text", "text.txt", "--steps=8" if not more else "--out=a", "--out=a", *LIGHT, *more) == 0
    assert train("--config", "a/options.toml", "--out=b") == 0
    assert tensors("a") == tensors("b") and figures("a") == figures("b")
    assert Path("a/options.toml").read_bytes() == Path("b/options.toml").read_bytes()
    assert train("--config", "a/options.toml", "--seed=9", "--out=c") == 0
    assert tensors("a") != tensors("c")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("hiden = 3", "'hiden' is no option that can stand here: did you mean hidden?"),
        ("xyz = 3", "'xyz' is no option that can stand here: see tinygrad-rnn train --help"),
        ('resume = "a"', "'resume' is no option that can stand here"),
        ("hidden = 0", "argument --hidden: must be a whole number from 1 to 65,536, not '0'"),
        ("hidden = true", "hidden cannot be true"),
        ("hidden = [1]", "hidden cannot be [1]"),
        ("text = []", "text cannot be []"),
        ('plain = "yes"', 'plain cannot be "yes"'),
        ("steps = 3\nepochs = 2", "--steps and --epochs exclude each other"),
        ("hidden = ", "no TOML: "),
        ("[model]\nhidden = 3", 'model cannot be {"hidden": 3}'),
    ],
)
def test_a_wrong_file_is_one_line(content: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text(content)
    assert train("--config", "run.toml") == 2
    said = capsys.readouterr().err
    assert said.startswith("tinygrad-rnn: run.toml: ") and why in said and said.count("\n") == 1
    assert train("--config", "none.toml") == 2
    assert "none.toml: no such file" in capsys.readouterr().err


def test_any_value_comes_back_from_the_file() -> None:
    text = ["-a b.txt", 'q"\\\x7f\n\t.txt', "é日.txt"]
    given = argparse.Namespace(text=text, encoding="utf-8", lr=1e-05, plain=True, numba=None, steps=10**9, out="x")
    expected = {"text": text, "encoding": "utf-8", "lr": 1e-05, "plain": True, "steps": 10**9}
    assert tomllib.loads(as_toml(given)) == expected
    assert as_toml(argparse.Namespace(text=["caf\udce9"])) == ""
    Path("run.toml").write_text(as_toml(given), encoding="utf-8")
    assert settings("--config", "run.toml").text == ["./-a b.txt", *text[1:]]


# --- budgets -------------------------------------------------------------------------------------


def test_epochs_are_passes_over_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--text", "text.txt", "--epochs", 1.5, "--out", "run", *LIGHT) == 0
    config = json.loads(Path("run/config.json").read_text())
    epoch = (config["text"]["train"] - 1) // 4 // 8
    assert config["training"]["steps"] == len(figures("run")) == round(1.5 * epoch)
    assert train("--resume", "run", "--epochs", 2) == 0
    assert len(figures("run")) == 2 * epoch
    capsys.readouterr()
    assert train("--text", "text.txt", "--epochs", 1, "--steps", 3) == 2
    assert "--steps and --epochs exclude each other: choose one" in capsys.readouterr().err


def test_accumulated_batches_train_as_the_larger_batch_does() -> None:
    common = ["--text", "text.txt", "--steps=12", "--dropout=0", *LIGHT]
    assert train(*common, "--out=whole", "--batch=6") == 0
    assert train(*common, "--out=parts", "--batch=2", "--accumulate=3") == 0
    whole, parts = ([record["loss"] for record in figures(run)] for run in ("whole", "parts"))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


# --- going on otherwise --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        ["--lr=0.01"],
        ["--dropout=0.6"],
        ["--batch=3"],
        ["--accumulate=2", "--batch=2"],
        ["--schedule=plateau"],
        ["--schedule=linear", "--lr=0.02"],
    ],
)
def test_a_run_goes_on_otherwise_and_from_there_bit_for_bit(changes: list[str], capsys) -> None:
    """What is changed is changed, is said, and holds for whoever resumes later, even before the first checkpoint."""
    assert train("--text", "text.txt", "--steps=10", "--out=run", "--schedule=constant", *LIGHT) == 0
    before = json.loads(Path("run/config.json").read_text())
    for run in ("once", "killed"):
        copy(Path("run"), Path(run))
    capsys.readouterr()
    assert train("--resume", "once", "--steps=24", *changes) == 0
    said = capsys.readouterr().out
    for change in changes:
        key, value = change.removeprefix("--").split("=")
        assert f"{key} {value}, not " in said
    assert figures("once")[:10] == figures("run")
    # One that was killed after it had taken the changes, before it saved: the old checkpoint, the new config.json.
    after = json.loads(Path("once/config.json").read_text())
    assert after["training"] != before["training"] or after["model"] != before["model"]
    Path("killed/config.json").write_text(json.dumps(after))
    assert train("--resume", "killed") == 0
    assert tensors("killed") == tensors("once") and figures("killed") == figures("once")


def test_what_stays_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--text", "text.txt", "--steps=2", "--out=run", *LIGHT) == 0
    assert train("--resume", "run", "--hidden=9", "--seed=1") == 2
    assert "--hidden and --seed cannot be changed when a run is resumed" in capsys.readouterr().err


def copy(run: Path, to: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


# --- beginning with another model ----------------------------------------------------------------


def test_a_training_begins_with_another_model(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first step it scores as the source does; new characters get rows, and the run goes on by itself."""
    source = language.load(trained[0] / "run")
    run = str(trained[0] / "run")
    Path("same.txt").write_text(TEXT[::-1][:700] + TEXT[:200])
    options = ["--seq-len=8", "--batch=4", "--plain", "--threads=1"]
    assert train("--init-from", run, "--text", "same.txt", "--steps=6", "--out=tuned", *options) == 0
    said = capsys.readouterr().out
    begun = float(
        said.split(": ")[said.split(": ").index(next(p for p in said.split(": ") if "before the first" in p))].split()[
            0
        ]
    )
    held_out = (TEXT[::-1][:700] + TEXT[:200])[-90:]
    assert f"Begins with the model of step {source.step} of {run}: " in said
    ids = source.vocabulary.encode(TEXT[::-1][:700] + TEXT[:200])
    passage = language.task.passage(ids[:-90], ids[-90:], batch=1, warm_up=64)
    assert len(held_out) == 90 and begun == pytest.approx(language.bits_per_char(source.model, passage), abs=1e-3)
    first = load_checkpoint(Path("tuned/checkpoints"), "last")
    assert first.manifest["model"]["hidden"] == 16 and first.manifest["model"]["dropout"] == 0.1

    Path("new.txt").write_text("ß" + TEXT[:900] + "ÄÖ")
    assert train("--init-from", "tuned", "--text", "new.txt", "--steps=6", "--out=wider", *options) == 0
    assert "of 3 characters more" in capsys.readouterr().out
    loaded = language.load("wider")
    assert set(loaded.vocabulary.characters) == {*source.vocabulary.characters, *"ßÄÖ"}
    assert train("--resume", "wider", "--steps=9") == 0 and len(figures("wider")) == 9


def test_a_run_with_another_model_is_the_same_if_it_is_killed_at_once(trained: Trained, capsys) -> None:
    args = ["--init-from", trained[0] / "run", "--text", "text.txt", "--steps=5", "--plain", "--threads=1"]
    assert train(*args, "--out=whole") == 0
    copy(Path("whole"), Path("killed"))
    for path in Path("killed/checkpoints").iterdir():
        path.unlink()
    assert train("--resume", "killed") == 0
    assert tensors("killed") == tensors("whole") and figures("killed") == figures("whole")
    config = json.loads(Path("killed/config.json").read_text())
    for path in Path("killed/checkpoints").iterdir():
        path.unlink()
    config["init_from"]["step"] += 1
    Path("killed/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert train("--resume", "killed") == 2
    assert "is another model now than killed was begun with" in capsys.readouterr().err


def test_the_network_of_another_model_stays(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained[0] / "run"
    for option, value, has in (("--hidden", "9", 16), ("--model", "gru", "lstm"), ("--layers", "2", 1)):
        assert train("--init-from", run, "--text", "text.txt", option, value) == 2
        assert f"{option} {value}: the network of {run} has {option} {has}" in capsys.readouterr().err
    assert settings("--init-from", run, "--hidden=16", "--dropout=0.4").dropout == 0.4
    assert train("--init-from", "none", "--text", "text.txt") == 2
    assert "none: no such folder" in capsys.readouterr().err


# --- what is held out ----------------------------------------------------------------------------


def text_of(run: str) -> dict[str, Any]:
    """What the `config.json` of a run says of its text, but for its name, which is a path from anywhere later."""
    return {**json.loads(Path(run, "config.json").read_text())["text"], "source": None}


def test_what_is_held_out_is_chosen_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """A sorted list is judged on lines of all of it; a run that goes on, and its options, hold out the same."""
    Path("names.txt").write_text("".join(f"{c}{c}name{k}\n" for c in "abcdefghij" for k in range(9)))
    for run, options in (
        ("lines", ["--split=lines"]),
        ("random", ["--split=random", "--text", "text.txt", "names.txt"]),
        ("file", ["--held-out", "text.txt"]),
    ):
        assert train("--text", "names.txt", "--steps=4", f"--out={run}", *LIGHT, *options) == 0
        read = text_of(run)
        assert train("--resume", run, "--steps=6") == 0 and text_of(run) == read
        assert train("--config", f"{run}/options.toml", f"--out={run}-again") == 0 and text_of(f"{run}-again") == read
    read = text_of("file")
    assert read["held_out"] == len(TEXT) and read["train"] == len(Path("names.txt").read_text())
    capsys.readouterr()
    for wrong, why in (
        (["--split=lines", "--held-out", "text.txt"], "--split and --held-out exclude each other"),
        (["--split=words"], "invalid choice: 'words'"),
        (["--held-out", "none.txt"], "none.txt: no such file"),
    ):
        assert train("--text", "names.txt", *wrong) == 2
        assert why in capsys.readouterr().err
    assert train("--held-out", "text.txt") == 2
    assert "--held-out goes with --text" in capsys.readouterr().err
