"""Watching the gradient while a network is trained: it changes nothing, and says once what is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.cli.command import TEXT
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.explain import WatchedTask, plot_watched, read_watched
from tinygrad_rnn.training import Budget, LiveDisplay, PlainDisplay, RunFolder, load_checkpoint, read_metrics, train

SMALL = ["--hidden=12", "--embedding=6", "--seq-len=12", "--batch=3", "--threads=1", "--layers=2", "--dropout=0.3"]


class Echo:
    """The first number of a sequence is asked for at its end."""

    goal, unit = "error", "sequences"

    def __init__(self, factor: float = 1.0, **options: Any) -> None:
        tr.manual_seed(1)
        self.rnn = tr.nn.RNN(1, 4, nonlinearity="relu", recurrent_dropout=0.1, **options)
        self.rnn.weight_hh_l0.assign_(factor * np.eye(4))

    def batch(self, step: int) -> tuple[tuple[Any], int]:
        return (tr.rand(8, 4, 1),), 4

    def loss(self, x: Any) -> Any:
        return tr.square(self.rnn(x)[1][0, :, 0] - x[0, :, 0]).mean()

    def describe(self, loss: float) -> dict[str, float]:
        return {}

    def evaluate(self) -> dict[str, float]:
        return {"error": 1.0}


def look(task: WatchedTask, step: int) -> None:
    arguments, _ = task.batch(step)
    task.loss(*arguments)


def trained(task: Any, rnn: Any, steps: int = 12, **options: Any) -> list[np.ndarray]:
    adam = tr.optim.Adam(rnn.named_parameters(), lr=1e-3)
    train(task, adam, list(rnn.named_parameters()), Budget(steps), evaluations=2, **options)
    return [p.numpy() for p in rnn.parameters()]


@pytest.mark.parametrize("fused", [True, False])
def test_the_training_is_the_same_to_the_last_bit(fused: bool) -> None:
    plain, watched = Echo(fused=fused), None
    wanted = trained(plain, plain.rnn)
    inner = Echo(fused=fused)
    watched = WatchedTask(inner, every=3)
    for a, b in zip(trained(watched, inner.rnn), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert watched.flow is not None and watched.goal == "error" and watched.unit == "sequences"


@pytest.mark.parametrize(("factor", "state"), [(0.3, "vanishes"), (3.0, "explodes")])
def test_trouble_is_said_once_when_it_stays(factor: float, state: str) -> None:
    task = WatchedTask(Echo(factor), every=2)
    said = []
    for step in range(12):
        look(task, step)
        said.append(task.news())
    assert not any(said[:2]) and state in said[2] and "; what helps: " in said[2] and not any(said[3:])
    own = WatchedTask(Echo(factor), every=1, advice={state: "eat well"})
    for step in range(3):
        look(own, step)
    assert own.news().endswith("; eat well")


def test_a_gradient_that_holds_is_no_news_and_has_a_status() -> None:
    task = WatchedTask(Echo())
    assert task.status() == "" and task.news() == ""
    look(task, 0)
    line = task.status()
    assert line.startswith("gradient in step 1: l0 holds, ") and " at t=0 " in line and line.endswith("100 % at t=7")
    first = task.flow
    look(task, 1)
    assert task.flow is first and task.news() == "" and task.status() == line
    task = WatchedTask(Echo(0.3))
    look(task, 0)
    assert "(1 % over 4 of 7 steps)" in task.status()


def test_a_look_is_a_line_and_a_loss_that_is_not_finite_is_none(tmp_path: Path) -> None:
    inner = Echo()
    task = WatchedTask(inner, tmp_path / "flow.jsonl", every=1)
    look(task, 4)
    inner.rnn.weight_ih_l0.assign_(np.full((4, 1), np.nan))
    look(task, 5)
    (record,) = read_watched(tmp_path / "flow.jsonl")
    seen = record["layers"]["RNN.l0"]
    assert record["step"] == 5 and seen["state"] == "holds" and len(seen["left"]) == len(seen["states"]) == 8
    assert seen["left"][0] == 1 and seen["left"][-1] == seen["arrives"]
    plot_watched(tmp_path / "flow.jsonl", tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 5_000
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="no gradient was looked at"):
        plot_watched(tmp_path / "empty")


@pytest.mark.parametrize("live", [True, False])
def test_displays_show_it(live: bool) -> None:
    from rich.console import Console

    stream, task = io.StringIO(), WatchedTask(Echo(0.3), every=1)
    console = Console(file=stream, force_terminal=live, width=150, legacy_windows=False)
    display = LiveDisplay(console, task) if live else PlainDisplay(stream=stream, aside=task)
    trained(task, task.task.rnn, display=display)
    shown = stream.getvalue()
    assert shown.count("the gradient at the last step vanishes: ") == 1 and "gradient in step 12: l0 " in shown


def test_a_narrow_terminal_shows_all_of_the_line() -> None:
    from rich.console import Console

    stream, task = io.StringIO(), WatchedTask(Echo(0.3), every=1)
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=50, legacy_windows=False), task)
    trained(task, task.task.rnn, display=display)
    assert "of 7 steps)" in stream.getvalue()


def test_a_line_is_not_printed_again_before_the_next_look() -> None:
    stream, task = io.StringIO(), WatchedTask(Echo(), every=8)
    adam = tr.optim.Adam(task.task.rnn.named_parameters(), lr=1e-3)
    named = list(task.task.rnn.named_parameters())
    train(task, adam, named, Budget(12), evaluations=6, display=PlainDisplay(stream=stream, aside=task))
    shown = stream.getvalue()
    assert shown.count("step ") > 6 and shown.count("gradient in step 1:") == shown.count("gradient in step 9:") == 1


@pytest.mark.parametrize("looks", [1, 3])
def test_the_picture_ends_with_the_last_look(looks: int) -> None:
    from tinygrad_rnn.explain.pictures import draw_watched, picture

    steps = np.array([1, 51, 60])[:looks]
    figure = picture(draw_watched, {"RNN.l0": (steps, np.full((looks, 8), 0.5))}, None, (8, 4))
    left, right = figure.axes[:2]
    assert [label.get_text() for label in left.get_xticklabels()] == [str(step) for step in steps]
    assert left.get_xlim() == (-0.5, looks - 0.5) and "part of it" in right.get_ylabel()


def bits(run: Path) -> Any:
    times = {"chars_per_second"}
    logged = [{k: v for k, v in r.items() if k not in times} for r in read_metrics(run / "metrics.jsonl")]
    tensors = load_checkpoint(run / "checkpoints", "last").tensors
    return logged, {name: array.tobytes() for name, array in tensors.items()}


def test_the_command_watches_changes_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WatchedTask.__init__.__kwdefaults__, "every", 5)  # type: ignore[index]
    drawn: list[Any] = []
    monkeypatch.setattr("tinygrad_rnn.cli.report.plot_loss", lambda *_, **__: None)
    monkeypatch.setattr("tinygrad_rnn.cli.report.plot_watched", lambda *paths: drawn.append(paths))
    monkeypatch.setattr("tinygrad_rnn.cli.report.generate", lambda *_, **__: iter(()))
    monkeypatch.setattr("tinygrad_rnn.language.measure_baselines", lambda *_: [])
    (tmp_path / "text.txt").write_text(TEXT)
    begin = ["train", "--text", str(tmp_path / "text.txt"), "--steps=20", "--save-every=7", *SMALL]
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    assert main([*begin, "--out", str(plain)]) == 0
    assert not (plain / "flow.jsonl").exists()
    assert main([*begin, "--watch", "--out", str(watched)]) == 0
    said = capsys.readouterr().out
    assert "gradient in step 1: l0 " in said and "; l1 " in said and "flow.jsonl, flow.png, checkpoints" in said
    assert bits(watched) == bits(plain)
    assert drawn == [(watched / "flow.jsonl", watched / "flow.png")]
    whole = (watched / "flow.jsonl").read_text()
    assert [record["step"] for record in map(json.loads, whole.splitlines())] == [1, 6, 11, 16]

    (watched / "checkpoints" / "last.json").write_text("damaged")  # it goes on after step 14
    assert main(["train", "--resume", str(watched)]) == 0
    assert (watched / "flow.jsonl").read_text() == whole
    assert bits(watched) == bits(plain)


def test_a_run_that_is_replaced_or_never_began_leaves_no_look(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for leave in (lambda: run.create({}), run.undo):
        run.create({})
        run.flow.touch()
        run.flow_picture.touch()
        leave()
        assert not run.flow.exists() and not run.flow_picture.exists()
