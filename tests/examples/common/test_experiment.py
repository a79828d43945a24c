"""The frame of the example scripts: options, training, results, claims, and what goes wrong."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from examples.common.experiment import Experiment, Fit, experiment, file_name
from tinygrad_rnn import nn
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import MetricsLog, load_checkpoint, read_metrics

pytest.importorskip("matplotlib")

X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5]).astype(np.float32)[:, None]


def line(run: Experiment) -> None:
    """Fits a line, and claims that it is one."""
    run.source("generated")
    model = nn.Linear(3, 1).to(run.device)
    x, y = run.tensor(X), run.tensor(Y)
    loss = lambda x, y: F.mse_loss(model(x), y)
    errors: list[float] = []

    def evaluate() -> dict[str, float]:
        assert not model.training and not tr.is_recording()
        errors.append(float(loss(x, y)))
        return {"error": errors[-1]}

    fit = run.fit("A line", model, lambda step: ((x, y), len(X)), loss, evaluate, lr=0.1)
    assert fit.best["error"] == min(errors) == float(loss(x, y)) and not model.training
    run.table("Errors", ["model", "error"], [["mean", float(np.var(Y))], ["line", fit.best["error"]]], best=1)
    with run.picture("errors.png", "The error falls.") as figure:
        figure.subplots().plot([r["loss"] for r in fit.records])
    run.expect("the line's error", fit.best["error"], at_most=0.01)
    run.note("It is a line.")


def test_steps_recorded_or_not_are_the_same_to_the_last_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By NumPy; and where numba is, it is used without being asked for."""
    assert go("--quick", "--out", str(tmp_path / "plain"), "--plain") == 1
    assert capsys.readouterr().out.startswith("Steps op by op, by NumPy alone: --plain\n")
    before = tr.numba_enabled()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        assert go("--quick", "--out", str(tmp_path / "recorded")) == 1
    said = "Steps recorded once and replayed, by NumPy alone: numba is not installed: pip install numba\n"
    assert capsys.readouterr().out.startswith(said) and tr.numba_enabled() == before
    plain, recorded = (
        load_checkpoint(tmp_path / run / "checkpoints", "a-line").tensors for run in ("plain", "recorded")
    )
    assert all(plain[key].tobytes() == recorded[key].tobytes() for key in plain)
    pytest.importorskip("numba")
    assert go("--quick", "--out", str(tmp_path / "numba")) == 1
    assert capsys.readouterr().out.startswith("Steps recorded once and replayed, with kernels by numba ")
    assert tr.numba_enabled() == before


def test_a_curve_has_the_records_with_its_figure() -> None:
    records = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0, "error": 0.5}, {"step": 4, "error": 0.25}]
    fit = Fit(records, {"error": 0.25}, parameters=1, steps=4, seconds=0.1, early=False)
    assert fit.curve("error") == ([2, 4], [0.5, 0.25])
    assert fit.curve("loss") == ([1, 2], [3.0, 2.0])
    assert fit.curve("accuracy") == ([], [])


def go(*argv: str, main: Any = line, **options: Any) -> int:
    return experiment(main, steps=200, quick=20, argv=argv, **options)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_it_leaves_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert go("--out", str(out), "--seed", "3") == 0
    found = results(out)
    assert found["example"] == "test_experiment" and found["command"] == "python -m examples.test_experiment --seed 3"
    assert found["tables"][0]["rows"][0][0] == "mean" and found["notes"] == ["It is a line."]
    assert found["source"] == "generated" and found["seed"] == 3 and not found["quick"]
    assert found["claims"][0]["holds"] and found["claims"][0]["bound"] == "at most 0.01"
    assert (out / "errors.png").read_bytes()[:4] == b"\x89PNG"
    assert [r["step"] for r in read_metrics(out / "a-line.jsonl")] == list(range(1, 201))
    kept = load_checkpoint(out / "checkpoints", "a-line")
    np.testing.assert_allclose(kept.tensors["weight"], [[1, -2, 0.5]], atol=0.05)
    shown = capsys.readouterr().out
    for part in ("Data: generated", "A line, 4 parameters", "Errors", "✓ the line's error", "errors.png"):
        assert part in shown


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        go("--quick", "--seed", str(seed), "--out", str(tmp_path / name))
    a, b, c = (results(tmp_path / name) for name in "abc")
    assert a["tables"] == b["tables"] != c["tables"] and a["claims"] == b["claims"]


def test_a_claim_that_fails_is_an_error_of_the_scripts_own_run_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path))
    assert go("--quick", *out) == 1
    assert "✗ the line's error" in capsys.readouterr().out
    assert go("--steps", "3", *out) == 0  # who chooses fewer steps knows
    (tmp_path / "mine.csv").write_text("")
    assert go("--quick", "--data", str(tmp_path / "mine.csv"), *out, data="a CSV file") == 0


def test_bounds_are_of_the_scripts_own_data(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("")
    assert go("--data", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out"), data="a CSV file") == 0
    assert not results(tmp_path / "out")["claims"]


@pytest.mark.parametrize(
    ("values", "least", "said"),
    [
        ({"LSTM": 3.0, "GRU": 2.0, "mean": 2.5, "last": 1.0}, False, "the network wins: LSTM, 3, before mean, 2.5."),
        ({"LSTM": 3.0, "GRU": 2.0, "mean": 2.5, "last": 1.0}, True, "a simple method wins: last, 1, before GRU, 2."),
        ({"GRU": 2.00001, "mean": 2.0}, False, "no difference is seen between GRU and mean, a simple method: 2."),
    ],
)
def test_a_verdict_says_which_is_better_by_what(
    values: dict[str, float], least: bool, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = lambda run: run.verdict("BLEU", values, ("mean", "last"), least=least)
    assert go("--out", str(tmp_path), main=main) == 0
    assert results(tmp_path)["notes"] == [f"BLEU: {said}"] and f"BLEU: {said}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"steps": 0}, 0), ({"minutes": 0}, 0), ({"steps": 0, "minutes": 1}, 0), ({"steps": np.int64(3)}, 3)]
    + [
        ({"steps": 3, "evaluations": 0}, 3),
        ({"steps": 3, "patience": 0}, 3),
        ({"minutes": 0.0, "steps": 3}, 0),
        ({}, 20),
    ],
)
def test_a_budget_means_what_it_says(tmp_path: Path, budget: dict[str, Any], steps: int) -> None:
    """Without a step there still are figures: those of the model as it is."""

    def main(run: Experiment) -> None:
        model = nn.Linear(3, 1)
        x, y = run.tensor(X), run.tensor(Y)
        before = model.weight.numpy()

        def evaluate() -> dict[str, Any]:
            assert not model.training and not tr.is_recording()
            return {"error": np.float32(F.mse_loss(model(x), y).item())}

        batch, loss = lambda step: ((x, y), np.int64(64)), lambda x, y: F.mse_loss(model(x), y)
        fit = run.fit("A line", model, batch, loss, evaluate, **budget)
        assert fit.steps == steps and fit.best == {"error": float(F.mse_loss(model(x), y))} and not model.training
        assert np.array_equal(model.weight.numpy(), before) == (steps == 0)
        run.table("Errors", ["model", "error"], [["a", np.float32(0.25)], ["b", np.array(0.5)], ["c", tr.Tensor(3)]])

    assert go("--quick", "--out", str(tmp_path / "run"), main=main) == 0
    assert results(tmp_path / "run")["tables"][0]["rows"] == [["a", "0.25"], ["b", "0.5"], ["c", "3"]]
    assert load_checkpoint(tmp_path / "run" / "checkpoints", "a-line").manifest["figures"].keys() == {"error"}


def test_options_of_the_script(tmp_path: Path) -> None:
    seen: list[Any] = []

    def main(run: Experiment) -> None:
        seen.extend([run.steps, run.quick, run.data, run.options.cell])

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cell", default="gru")

    assert go("--quick", "--cell", "rnn", "--out", str(tmp_path), main=main, options=options) == 0
    assert seen == [20, True, None, "rnn"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["--data", ".", "--fetch"], "--fetch and --data exclude each other"),
    ],
)
def test_wrong_options_are_one_line(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--out", str(tmp_path / "run"), *argv, data="a CSV file", fetch="mnist") == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"test_experiment: {message}") and shown.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_cannot_be_fetched_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(data_set: str) -> Path:
        raise InputError(f"{data_set}: cannot be downloaded")

    monkeypatch.setattr(importlib.import_module("tinygrad_rnn.data.fetch"), "fetch", unreachable)
    assert go("--out", str(tmp_path / "run"), "--fetch", data="a CSV file", fetch="mnist") == 2
    said = capsys.readouterr().err
    assert said == "test_experiment: mnist: cannot be downloaded; or give your own data with --data\n"


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert go("--quick", "--out", str(tmp_path)) == 2
    assert "holds no run of this example: not touched: choose another folder (--out)\n" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("a.csv, line 3: no number"), 2, "a.csv, line 3: no number"),
        (
            ImportError("No module named 'sklearn'"),
            2,
            "No module named 'sklearn' (",
        ),
        (tr.errors.NonFiniteError("the loss is nan at step 3"), 1, "the loss is nan at step 3"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 2, "a.csv: No such file or directory"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (MemoryError(), 2, "not enough memory\n"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(run: Experiment) -> None:
        raise error

    assert go("--out", str(tmp_path), main=main) == status
    shown = capsys.readouterr().err
    assert shown.startswith(f"test_experiment: {message}") and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_the_last_results_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go("--out", str(tmp_path)) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()

    def wrong_data(run: Experiment) -> None:
        raise InputError("a.csv, line 3: no number")

    def wrong_later(run: Experiment) -> None:
        line(run)
        raise InputError("no such tag")

    assert go("--out", str(tmp_path), main=wrong_data) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert go("--out", str(tmp_path), "--seed", "1", main=wrong_later) == 2
    kept = tmp_path / "unfinished"
    assert capsys.readouterr().err.endswith(f"no such tag; what was trained so far is in {kept}\n")
    assert (kept / "a-line.jsonl").exists() and (kept / "checkpoints" / "a-line.json").exists()
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.skipif(os.name == "nt", reason="files of POSIX, which may be removed while they are open")
def test_a_folder_that_is_removed_ends_it_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def main(run: Experiment) -> None:
        real = MetricsLog.sync
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MetricsLog, "sync", lambda log: (shutil.rmtree(tmp_path / "new"), real(log)))
            line(run)

    assert go("--out", str(tmp_path / "new"), main=main) == 2
    shown = capsys.readouterr().err
    assert "a-line.jsonl: was removed or moved while it was written" in shown and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--out", "{}"], ["--out={}"], ["--ou", "{}"], ["--o={}"]])
def test_where_it_is_written_is_no_part_of_the_command(tmp_path: Path, option: list[str]) -> None:
    assert go(*(part.format(tmp_path / "--out") for part in option), "--steps", "3", main=lambda_main) == 0
    assert results(tmp_path / "--out")["command"] == "python -m examples.test_experiment --steps 3"


def lambda_main(run: Experiment) -> None:
    """Finds nothing."""


@pytest.mark.parametrize(
    ("name", "step", "status"), [("SIGINT", 15, 130), ("SIGINT", 0, 130), ("SIGTERM", 15, 143), ("SIGHUP", 1, 129)]
)
def test_a_signal_keeps_what_was_trained(
    name: str, step: int, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best weights or, before the first evaluation, those there are; a second time, beside the last results."""
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    at = step

    def main(run: Experiment) -> None:
        model = nn.Linear(3, 1)

        def batch(step: int) -> tuple[tuple[tr.Tensor, tr.Tensor], int]:
            if step == at:
                os.kill(os.getpid(), getattr(signal, name))
            return (run.tensor(X), run.tensor(Y)), 1

        loss = lambda x, y: F.mse_loss(model(x), y)
        run.fit("line", model, batch, loss, lambda: {"error": float(loss(run.tensor(X), run.tensor(Y)))})
        raise AssertionError("nothing comes after Ctrl-C")

    for folder in (tmp_path, tmp_path / "unfinished"):
        assert go("--quick", "--out", str(tmp_path), main=main) == status
        said = f"test_experiment: stopped; what was trained so far is in {folder}\n"
        assert capsys.readouterr().err == said
        kept = load_checkpoint(folder / "checkpoints", "line")
        assert 0 < kept.manifest["step"] <= step + 1 and ("error" in kept.manifest["figures"]) == (step > 0)
        (tmp_path / "results.json").write_text("{}")
    assert load_checkpoint(tmp_path / "checkpoints", "line").manifest["step"] == kept.manifest["step"]


NAMES = ["EUR/USD [bold]x[/] [kW] a:smile:b cost_$ and q_$", "caf\udce9", "..", "long" * 60]


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_name_reaches_screen_and_files_as_it_is(
    name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*arguments: object) -> None:
        raise AssertionError(f"taken for mathematics: {arguments}")

    monkeypatch.setattr(importlib.import_module("matplotlib.mathtext").MathTextParser, "parse", parse)

    def main(run: Experiment) -> None:
        run.source(name)
        model = nn.Linear(3, 1)
        x, y = run.tensor(X), run.tensor(Y)
        loss = lambda: F.mse_loss(model(x), y)
        run.fit(name, model, lambda step: ((), 1), loss, lambda: {"error": float(loss())})
        run.table(f"title {name}", [name, "error"], [[name, 1.0]])
        with run.picture(f"{name}.png", name) as figure:
            axes = figure.subplots()
            axes.plot([1, 2], [1, 10], label=name)
            axes.set(title=name, xlabel=name, yscale="log")
            axes.legend()
        run.expect(name, 1.0, at_least=2.0)
        run.note(f"note {name}")

    out = tmp_path / ("out " + name[:9].replace("/", ":"))
    assert go("--steps", "1", "--out", str(out), main=main) == 0
    shown = capfdbinary.readouterr().out
    raw = os.fsencode(name)
    for before, after in (
        (b"Data: ", b""),
        (b"\n", b", 4 parameters"),
        (b"title ", b"\n"),
        (b" ", b": 1, at least 2"),
        (b"note ", b""),
    ):
        assert before + raw + after in shown
    assert shown.count(raw) >= 7 and b"Written to " + os.fsencode(out) in shown
    found = results(out)
    assert (found["source"], found["notes"], found["claims"][0]["what"]) == (name, [f"note {name}"], name)
    assert found["tables"] == [{"title": f"title {name}", "columns": [name, "error"], "rows": [[name, "1"]]}]
    assert (out / found["pictures"][0]["file"]).read_bytes()[:4] == b"\x89PNG"
    log = next(out.glob("*.jsonl"))
    assert load_checkpoint(out / "checkpoints", log.stem).manifest["model"] == name


def test_nothing_is_kept_in_the_place_of_another(tmp_path: Path) -> None:
    def main(run: Experiment) -> None:
        model = nn.Linear(3, 1)

        def fit(name: str) -> None:
            x, y = run.tensor(X), run.tensor(Y)
            loss = lambda: F.mse_loss(model(x), y)
            run.fit(name, model, lambda step: ((), 1), loss, lambda: {"error": 1.0}, show=False)

        fit("A line")
        fit("A line")  # again
        with pytest.raises(ValueError, match=r"'a-line' and 'A line' would both be kept as 'a-line'"):
            fit("a-line")
        with run.picture("a.png", ""):
            pass
        with pytest.raises(ValueError, match=r"a picture 'a.png' already"), run.picture("a.png", ""):
            pass

    assert go("--steps", "1", "--out", str(tmp_path), main=main) == 0


def test_names_of_files_are_told_apart() -> None:
    names = [*NAMES, "EUR/USD", "EUR%USD", "long" * 59 + "x", "", ".", "%2E.", "EUR%2FUSD", "\\", "\0"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(set(names)) == len(names)
    for file in files:
        assert file not in ("", ".", "..") and not set(file) & set("/\\\0") and len(os.fsencode(file)) <= 150
    assert file_name("A line 1") == "A line 1" and file_name("long" * 60 + ".png").endswith(".png")


def test_a_state_is_carried_from_step_to_step(tmp_path: Path) -> None:
    """What the loss gives beside itself is kept for the next batch; from the third step on recordings do it all."""
    seen: list[float] = []
    ran: list[int] = []

    def main(run: Experiment) -> None:
        model = nn.Linear(1, 1, bias=False)
        carried = run.tensor(np.zeros((1, 1), np.float32))

        def batch(step: int) -> tuple[tuple[tr.Tensor], int]:
            seen.append(carried.item())
            return (carried,), 1

        def loss(state: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
            ran.append(1)
            return (model(state) ** 2).sum(), state.detach() + 1

        def keep(state: tr.Tensor | None) -> None:
            nonlocal carried
            carried = carried if state is None else state

        fit = run.fit("counter", model, batch, loss, lambda: {"steps": 1 / len(seen)}, keep=keep)
        assert fit.steps == 20

    assert go("--quick", "--out", str(tmp_path), main=main) == 0
    assert seen == list(range(20)) and len(ran) == 2
