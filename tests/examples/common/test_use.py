"""The frame of `--use`: what a run keeps, what is asked, what is answered, and what goes wrong."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.common import use as frame
from examples.common.experiment import Experiment, experiment
from examples.common.use import Answer, Use, Used, as_json
from tinygrad_rnn import nn
from tinygrad_rnn.data import read_text
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import load_checkpoint, save_checkpoint

pytest.importorskip("matplotlib")


def main(run: Experiment) -> None:
    """Two models, of which the second is better, and one that is not for use."""
    for name, error in (("first", 0.5), ("second", 0.25), ("third", 0.1)):
        sizes = {"in_features": 2, "out_features": 1}
        model = nn.Linear(**sizes)
        use = {"sizes": sizes, "words": ("a", "b"), "scale": 0.1 + 0.2} if name != "third" else None
        x, y = run.tensor(np.ones((4, 2))), run.tensor(np.zeros((4, 1)))
        loss = lambda model=model, x=x, y=y: F.mse_loss(model(x), y)
        run.fit(name, model, lambda step: ((), 1), loss, lambda error=error: {"error": error}, use=use, show=False)
    run.try_with("--text", "it's", file="sample.png")


def answer(used: Used) -> Iterator[Answer]:
    kept = used.models[0]
    model = kept.load(nn.Linear)
    for given in used.lines():
        score = model(used.tensor(np.array([[len(given.text), 1.0]]))).item()
        content = {**given.content, "text": given.text, "model": kept.name, "scale": kept["scale"], "score": score}
        yield Answer(f"{given.text}: {kept['words']}", content, [{"text": given.text, "score": score}])


USE = Use(answer, text="a text", files="text files", table="the scores", allows=("seed",), settled=("kind",))


def go(*argv: str, use: Use | None = USE) -> int:
    def data_options(group: argparse._ArgumentGroup) -> None:
        group.add_argument("--delimiter")
        group.add_argument("--kind")

    more: dict[str, Any] = {"data": "a file", "encoded": True, "data_options": data_options, "use": use}
    return experiment(main, steps=2, quick=1, argv=argv, **more)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert go("--quick", "--out", str(tmp_path / "run")) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    sample = tmp_path / "run" / "sample.png"
    assert said == f"Use it: python -m examples.test_use --use {tmp_path / 'run'} --text 'it'\"'\"'s' {sample}"
    return tmp_path / "run"


def test_the_best_model_answers_as_it_was_trained(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go("--use", str(run), "--text", "abc", "--text", "a", "--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    weights = load_checkpoint(run / "checkpoints", "second").tensors
    assert first == {"text": "abc", "model": "second", "scale": 0.1 + 0.2, "score": pytest.approx(first["score"])}
    for one, length in ((first, 3), (second, 1)):
        expected = (weights["weight"] @ [length, 1] + weights["bias"]).item()
        assert one["score"] == pytest.approx(expected, rel=1e-5)
    assert go("--use", str(run), "--text", "abc", "--text", "a") == 0
    assert capsys.readouterr().out == "abc: ['a', 'b']\na: ['a', 'b']\n"


def test_the_lines_of_files_and_a_table(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  \ntwo")
    (tmp_path / "b.txt").write_text("größe\n", encoding="latin-1")
    argv = ["--use", str(run), "--json", "--csv", str(tmp_path / "out.csv"), "--input"]
    assert go(*argv, str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--encoding", "latin-1") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(one["file"]).name, one["line"], one["text"]) for one in found] == [
        ("a.txt", 1, "one"),
        ("a.txt", 4, "two"),
        ("b.txt", 1, "größe"),
    ]
    table = read_text(tmp_path / "out.csv").splitlines()
    assert table == ["text,score", *(f"{one['text']},{one['score']}" for one in found)]
    assert go(*argv, str(tmp_path / "b.txt")) == 2
    assert "choose another encoding (--encoding), such as latin-1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--use", "{run}"], "--use answers what is given to it: --text or --input is missing"),
        (["--use", "{run}", "--text", " \n"], "--text: must be a text, not blanks"),
        (["--use", "{run}", "--input", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--use", "{run}", "--input", "{there}/blank.txt"], "{there}/blank.txt: there is nothing in it but blanks"),
        (["--use", "{run}", "--input", "{there}/table.tsv"], "{there}/table.tsv, line 2: there is a tab in it"),
        (["--use", "{run}", "--input", "{there}"], "{there}: is a folder, not a file"),
        (
            ["--use", "{run}", "--text", "a", "--csv", "{there}/no/x.csv"],
            "{there}/no/x.csv: there is no folder {there}/no",
        ),
        (
            ["--use", "{run}", "--text", "a", "--quick"],
            "--quick is of training, and --use trains nothing: leave it out",
        ),
        (["--use", "{run}", "--text", "a", "--steps", "3"], "--steps is of training"),
        (["--use", "{run}", "--text", "a", "--out", "x"], "--out is of training"),
        (["--use", "{run}", "--text", "a", "--data", "x"], "--data is of training"),
        (["--use", "{run}", "--input", "x", "--kind", "x"], "--kind is of training"),
        (
            ["--use", "{run}", "--text", "a", "--delimiter", ";"],
            "--delimiter says how --input is read, and there is none",
        ),
        (["--use", "{run}", "--text", "a", "--device", "tpu"], "argument --device: unknown device 'tpu'"),
        (
            ["--use", "nowhere", "--text", "a"],
            "nowhere: no such folder: train first: python -m examples.test_use --out",
        ),
        (["--use", "{there}", "--text", "a"], "{there}: holds no run of this example"),
        (["--use", "{there}/blank.txt", "--text", "a"], "{there}/blank.txt: holds no run of this example"),
        (["--text", "a"], "--text is for a run that is used: give --use RUN, too"),
        (["--json"], "--json is for a run that is used: give --use RUN, too"),
    ],
)
def test_wrong_questions_are_one_line(
    run: Path, argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "table.tsv").write_text("a\nb\tc\n")
    names = {"run": run, "there": tmp_path}
    assert go(*(word.format(**names) for word in argv)) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"test_use: {message.format(**names)}") and shown.err.count("\n") == 1 and not shown.out


def test_what_may_be_asked_besides(run: Path) -> None:
    assert go("--use", str(run), "--text", "a", "--seed", "3", "--threads", "2", "--device", "cpu") == 0


def test_a_script_that_cannot_be_used_has_no_such_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert go("--use", "x", use=None) == 2
    assert "unrecognized arguments: --use x" in capsys.readouterr().err


def rewritten(run: Path, **entries: Any) -> None:
    """The checkpoint of the best model, with other entries."""
    found = load_checkpoint(run / "checkpoints", "second")
    manifest = found.manifest | {"use": found.manifest["use"] | entries}
    save_checkpoint(run / "checkpoints", "second", found.tensors, manifest)


def test_a_run_that_this_version_cannot_use_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(message: str) -> None:
        assert go("--use", str(run), "--text", "a") == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1

    place = run / "checkpoints" / "second.json"
    rewritten(run, version=frame.VERSION + 1, library="9.9")
    says(f"{place}: was trained by a newer version, 9.9, whose scripts keep what this one cannot read: upgrade")
    rewritten(run, version=frame.VERSION, sizes={"in_features": 3, "out_features": 1})
    says(f"{place}: is of another version of this script: ")
    rewritten(run, sizes={"layers": 3})
    says(f"{place}: is of another version of this script: ")
    rewritten(run, sizes={"in_features": 2, "out_features": 1})
    assert go("--use", str(run), "--text", "a") == 0
    capsys.readouterr()
    place.write_text(place.read_text().replace('"words"', '"birds"'))
    says(f"{place}: damaged: the manifest's own SHA-256 differs")
    place.unlink()
    (run / "checkpoints" / "first.json").unlink()
    says(f"{run}: keeps no model that can be used: train it again with this version")


def test_what_an_older_script_did_not_keep(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = load_checkpoint(run / "checkpoints", "second")
    del found.manifest["use"]["scale"]
    save_checkpoint(run / "checkpoints", "second", found.tensors, found.manifest)
    assert go("--use", str(run), "--text", "a") == 2
    said = "second.json: there is no 'scale' in it: it was trained by another version of this script\n"
    assert capsys.readouterr().err.endswith(said)


def test_a_run_of_something_else_says_what_uses_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text())
    for change, message in (
        ({"example": "speech"}, "is a run of the example speech: python -m examples.speech --use uses it"),
        (
            {"format": "tinygrad-rnn run", "example": None},
            "is a run of tinygrad-rnn train: tinygrad-rnn generate uses it",
        ),
    ):
        (run / "config.json").write_text(json.dumps(config | change))
        assert go("--use", str(run), "--text", "a") == 2
        assert capsys.readouterr().err == f"test_use: {run}: {message}\n"
    (run / "config.json").unlink()
    (run / "unfinished").mkdir()
    assert go("--use", str(run), "--text", "a") == 2
    assert f"has not come to an end yet: what it has so far is in {run / 'unfinished'}\n" in capsys.readouterr().err


def test_how_files_are_read_is_as_in_the_run(tmp_path: Path) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(used: Used) -> Iterator[Answer]:
        seen.append((used.options.delimiter, used.options.encoding))
        yield Answer("", {})

    (tmp_path / "x").write_text("x")
    argv = ["--quick", "--out", str(tmp_path / "run"), "--data", str(tmp_path / "x"), "--delimiter", ";"]
    assert go(*argv, "--encoding", "latin-1") == 0
    for more in ([], ["--delimiter", ","]):
        assert (
            go("--use", str(tmp_path / "run"), "--input", str(tmp_path / "x"), *more, use=Use(answer, files="x")) == 0
        )
    assert seen == [(";", None), (",", None)]  # a new file may well be of another encoding: that is said, or UTF-8


def test_an_object_is_a_line_that_any_screen_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"a": [np.float32(0.5), np.int64(3), float("inf"), None, True], "b": {"c": "ü\n"}, "d": "caf\udce9"}
    assert json.loads(as_json(content)) == content | {"a": [0.5, 3, None, None, True]}
    assert "\n" not in as_json(content) and "ü" in as_json({"b": "ü"})
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert as_json({"b": "ü"}) == '{"b": "\\u00fc"}'
