"""The loop: its budget, its best model, its answer to signals and to what is not finite."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import DTypeError, InputError, NonFiniteError, TinygradRnnError
from tinygrad_rnn.training import Budget, LoopState, MetricsLog, Silent, interruptible, read_metrics, train


class Line:
    """A task small enough to see through: bring w near 3; `held_out` gives what is measured, in order."""

    goal, unit = "far", "points"

    def __init__(self, held_out: list[float] | None = None) -> None:
        self.w = nn.Parameter(np.zeros(1, dtype=np.float64))
        self.held_out = held_out
        self.at: list[int] = []
        self.before: Callable[[int], None] = lambda step: None

    def batch(self, step: int) -> tuple[tuple[()], int]:
        self.before(step)
        self.at.append(step)
        return (), 5

    def loss(self) -> tr.Tensor:
        return ((self.w - 3.0) ** 2).sum()

    def describe(self, loss: float) -> dict[str, float]:
        return {"root": math.sqrt(loss)}

    def evaluate(self) -> dict[str, float]:
        return {"far": self.held_out.pop(0) if self.held_out else abs(self.w.item() - 3)}


def run(task: Line, budget: Budget, lr: float = 0.1, **options):
    return train(task, optim.SGD([task.w], lr=lr), [("w", task.w)], budget, **options)


def test_the_budget_is_used_up_exactly_and_each_step_has_its_number() -> None:
    task = Line()
    outcome = run(task, Budget(steps=30), evaluations=5)
    assert task.at == list(range(30))
    assert outcome.state.step == 30 and outcome.stopped_by is None
    assert outcome.figures["far"] == outcome.state.best < 2 and outcome.state.best_step == 30


def test_minutes_end_by_the_clock() -> None:
    task = Line()
    outcome = run(task, Budget(minutes=0.5 / 60))
    assert 0.5 <= outcome.state.seconds < 5 and outcome.state.step > 3
    assert run(Line(), Budget(steps=2, minutes=1)).state.step == 2
    with pytest.raises(InputError):
        Budget()


@pytest.mark.parametrize(
    "budget", [{"steps": 0}, {"minutes": 0}, {"steps": 0, "minutes": 9}, {"steps": 9, "minutes": 0.0}]
)
def test_a_budget_of_nothing_makes_no_step(budget: dict[str, Any]) -> None:
    task, saved = Line(), []
    task.before = lambda step: pytest.fail("a step was made")
    outcome = run(task, Budget(**budget), save=lambda state: saved.append(state.step), save_every=1, patience=0)
    assert task.at == [] and saved == [0] and task.w.item() == 0
    assert outcome.state == LoopState() and outcome.figures == {} and not outcome.early and outcome.stopped_by is None
    used_up = LoopState(step=3, seconds=70.0)  # a run that goes on with less than it has had
    assert run(task, Budget(**budget), state=used_up).state.step == 3 and task.at == []


@pytest.mark.parametrize(
    "budget",
    [{"steps": -1}, {"steps": 2.5}, {"steps": math.nan}, {"steps": math.inf}, {"steps": True}, {"steps": "9"}]
    + [{"minutes": -0.1}, {"minutes": math.nan}, {"minutes": math.inf}, {"minutes": "9"}, {"steps": 3, "minutes": -1}],
)
def test_a_budget_of_no_number_is_refused(budget: dict[str, Any]) -> None:
    with pytest.raises(TinygradRnnError, match="of a training must be"):
        Budget(**budget)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.array, tr.Tensor, float])
def test_a_budget_may_be_of_any_kind_of_number(kind: Callable[[Any], Any]) -> None:
    budget = Budget(kind(6), kind(1))
    assert (budget.steps, budget.minutes) == (6, 1.0) and type(budget.steps) is int and type(budget.minutes) is float
    assert run(Line(), budget, evaluations=kind(2), log_every=kind(2), save_every=kind(3)).state.step == 6


@pytest.mark.parametrize(
    "option",
    [{"log_every": 0}, {"save_every": 0}, {"save_every": -5}, {"evaluations": -1}, {"evaluations": 2.5}]
    + [{"patience": -1}, {"patience": math.nan}, {"log_every": None}],
)
def test_an_option_out_of_its_range_is_refused_before_the_first_step(option: dict[str, Any]) -> None:
    task = Line()
    with pytest.raises(InputError, match=f"{next(iter(option))} must be a whole number of at least"):
        run(task, Budget(steps=3), **option)
    assert task.at == []


def test_slow_evaluations_are_left_out_of_a_budget_of_minutes_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    for module in ("loop", "spent", "steps"):
        monkeypatch.setattr(f"tinygrad_rnn.training.{module}.perf_counter", lambda: now)

    def evaluated(budget: Budget, seconds: float) -> list[int]:
        task, at = Line(), []
        task.before = lambda step: passes(1)

        def evaluate() -> dict[str, float]:
            passes(seconds)
            at.append(len(task.at))
            return {"far": 1.0}

        task.evaluate = evaluate  # type: ignore[method-assign]
        run(task, budget)
        return at

    assert evaluated(Budget(minutes=1), 20) == [6, 40]
    assert len(evaluated(Budget(minutes=1), 0.1)) == 10
    assert len(evaluated(Budget(steps=10), 20)) == len(evaluated(Budget(steps=10, minutes=9), 20)) == 10


def test_no_evaluations_are_none() -> None:
    kept: list[int] = []
    task = Line(held_out=[])
    outcome = run(task, Budget(steps=4), evaluations=0, patience=1, keep_best=lambda state, _: kept.append(state.step))
    assert len(task.at) == 4 and kept == [] and outcome.figures == {} and outcome.state.best == math.inf


def test_no_patience_ends_at_the_first_evaluation_that_is_not_better() -> None:
    for patience in (0, 1):
        outcome = run(Line(held_out=[5.0, 3.0, 3.0, 1.0]), Budget(steps=4), evaluations=4, patience=patience)
        assert outcome.early and outcome.state.step == 3 and outcome.state.best_step == 2


KINDS = {
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    "0-d array": np.array,
    "array of one": lambda x: np.array([x]),
    "tensor": tr.Tensor,
    "integer": lambda x: np.int64(round(x)),
    "bool": np.bool_,
}


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_any_kind_of_number_are_logged_and_kept(tmp_path: Path, kind: str) -> None:
    make, kept = KINDS[kind], []
    task = Line()
    task.batch = lambda step: ((), make(5))  # type: ignore[method-assign]
    task.describe = lambda loss: {"root": make(loss**0.5)}  # type: ignore[method-assign]
    task.evaluate = lambda: {"far": make(0.5), "words": make(1)}  # type: ignore[method-assign]
    expected = {"far": make(0.5).item(), "words": make(1).item()}
    with MetricsLog(tmp_path / "m") as metrics:
        options = {"metrics": metrics, "keep_best": lambda state, figures: kept.append(figures)}
        outcome = run(task, Budget(steps=2), evaluations=1, lr=np.float32(0.1), **options)
        metrics.write({"step": make(3), "loss": make(1)})
    records = read_metrics(tmp_path / "m")
    assert {key: records[1][key] for key in expected} == expected == outcome.figures == kept[0]
    assert all(type(value) in (bool, int, float) for value in [*outcome.figures.values(), outcome.state.best])
    assert records[2] == {"step": make(3).item(), "loss": make(1).item()}


@pytest.mark.parametrize("figure", ["0.5", None, 1j, np.zeros(2), [0.5], np.datetime64("2020-01-01"), b"1"])
def test_a_figure_that_is_no_number_is_named(tmp_path: Path, figure: Any) -> None:
    task = Line()
    task.evaluate = lambda: {"far": figure}  # type: ignore[method-assign]
    with pytest.raises(DTypeError, match=r"'far' of evaluate\(\) must be a number, not "):
        run(task, Budget(steps=2))
    with MetricsLog(tmp_path / "m") as metrics, pytest.raises(DTypeError, match="the figure 'loss' must be a number"):
        metrics.write({"step": 1, "loss": figure})
    assert (tmp_path / "m").read_bytes() == b""


def test_an_evaluation_without_its_goal_is_an_error() -> None:
    task = Line()
    task.evaluate = lambda: {"near": 1.0}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"evaluate\(\) returns near, and not 'far', the task's goal"):
        run(task, Budget(steps=2))


def test_metrics_hold_every_step_and_the_evaluations(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m") as metrics:
        run(Line(), Budget(steps=20), evaluations=4, metrics=metrics)
    records = read_metrics(tmp_path / "m")
    assert [r["step"] for r in records] == list(range(1, 21))
    assert [r["step"] for r in records if "far" in r] == [5, 10, 15, 20]
    assert all(r["root"] == math.sqrt(r["loss"]) and r["points_per_second"] > 0 for r in records)
    with MetricsLog(tmp_path / "n") as metrics:
        run(Line(), Budget(steps=20), evaluations=2, log_every=4, metrics=metrics)
    assert [r["step"] for r in read_metrics(tmp_path / "n")] == [4, 8, 10, 12, 16, 20]


def test_the_best_is_kept_when_it_is_the_best() -> None:
    kept: list[tuple[int, float]] = []
    run(
        Line(held_out=[5.0, 3.0, 4.0, 2.0, 9.0]),
        Budget(steps=5),
        evaluations=5,
        keep_best=lambda state, figures: kept.append((state.step, figures["far"])),
    )
    assert kept == [(1, 5.0), (2, 3.0), (4, 2.0)]


def test_a_run_in_two_parts_is_the_run_in_one() -> None:
    whole, parts = Line(), Line()
    run(whole, Budget(steps=20))
    optimizer = optim.SGD([parts.w], lr=0.1)
    state = LoopState()

    def stop_at_seven(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    parts.before = stop_at_seven
    first = train(parts, optimizer, [("w", parts.w)], Budget(steps=20), state=state)
    assert first.stopped_by == signal.SIGINT and state.step == 8
    parts.before = lambda step: None
    train(parts, optimizer, [("w", parts.w)], Budget(steps=20), state=state)
    assert parts.w.item() == whole.w.item() and parts.at == whole.at


SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_the_step_finish_and_be_saved(number: signal.Signals, request: pytest.FixtureRequest) -> None:
    """No evaluation: it would be in the log of the stopped run and not in that of one that never stopped."""
    task = Line()
    saved, kept = [], []

    def interrupt(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    def obeyed(number: int, frame: Any) -> None:
        raise AssertionError("the signal was obeyed at once")

    task.before = interrupt
    before = signal.getsignal(number)
    signal.signal(number, obeyed)
    request.addfinalizer(lambda: signal.signal(number, before))
    outcome = run(
        task,
        Budget(steps=1000),
        evaluations=1,
        save=lambda state: saved.append(state.step),
        keep_best=lambda state, figures: kept.append(state.step),
    )
    assert outcome.stopped_by == number and task.at == [0, 1, 2, 3] and saved == [0, 4] and kept == []
    assert signal.getsignal(number) is obeyed


def test_saved_before_the_first_step_every_so_many_and_at_the_end() -> None:
    saved: list[int] = []
    state = LoopState()
    run(Line(), Budget(steps=10), save=lambda s: saved.append(s.step), save_every=4, state=state)
    assert saved == [0, 4, 8, 10]
    run(Line(), Budget(steps=10), save=lambda s: saved.append(s.step), save_every=4, state=state)
    run(Line(), Budget(steps=12), save=lambda s: saved.append(s.step), save_every=4, state=state)
    assert saved == [0, 4, 8, 10, 12]


def test_patience_ends_a_run_that_learns_nothing() -> None:
    held_out = [5.0, 3.0, 4.0, 3.0, 2.0, 9.0, 9.0, 9.0, 1.0, 0.0]
    outcome = run(Line(held_out=held_out), Budget(steps=10), evaluations=10, patience=3)
    assert outcome.early and outcome.state.step == 8 and outcome.state.best_step == 5
    assert not run(Line(), Budget(steps=10), evaluations=10, patience=3).early
    again = run(Line(), Budget(steps=10), evaluations=10, patience=3, state=outcome.state)
    assert again.early and again.state.step == 8  # patience does not come back with a resumed run


def test_a_second_ctrl_c_is_obeyed_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_terminal_may_hang_up_more_than_once() -> None:
    """And where that is ignored, as by nohup, training goes on."""
    before = signal.getsignal(signal.SIGHUP)
    with interruptible() as interruption:
        try:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGHUP)
        except KeyboardInterrupt:
            pytest.fail("obeyed at once")
        assert interruption.signal == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is before
    task = Line()
    task.before = lambda step: os.kill(os.getpid(), signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        outcome = run(task, Budget(steps=3))
        assert outcome.stopped_by is None and outcome.state.step == 3
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Gone(Silent):
    """A display whose reader goes away in the n-th call, that of `start` the first."""

    def __init__(self, calls: int, number: int = errno.EPIPE) -> None:
        self.calls, self.asked, self.number = calls, 0, number

    def answer(self, *args: Any) -> None:
        self.asked += 1
        if self.asked >= self.calls:
            raise OSError(self.number, os.strerror(self.number))

    start = show = stop = answer  # type: ignore[assignment]


@pytest.mark.parametrize(("calls", "steps"), [(1, 0), (2, 1), (4, 3), (6, 5), (7, 5)])
def test_a_run_that_nobody_watches_any_more_is_saved_before_it_ends(calls: int, steps: int) -> None:
    saved: list[int] = []
    task = Line()
    with pytest.raises(BrokenPipeError):
        run(task, Budget(steps=5), display=Gone(calls), save=lambda state: saved.append(state.step))
    assert saved == sorted({0, steps}) and len(task.at) == steps
    task.before = lambda step: os.kill(os.getpid(), signal.SIGTERM)  # that there was a signal, too, tells more
    assert run(task, Budget(steps=5), display=Gone(2)).stopped_by == signal.SIGTERM
    task.before = lambda step: None  # a terminal that was closed ends what a signal ends, and nothing else
    assert run(task, Budget(steps=5), display=Gone(calls, errno.EIO)).state.step == 5


def test_training_in_another_thread_takes_no_signals() -> None:
    states = []
    thread = threading.Thread(target=lambda: states.append(run(Line(), Budget(steps=3)).state.step))
    thread.start()
    thread.join()
    assert states == [3]


def test_what_is_not_finite_is_said_with_its_step_and_a_cure() -> None:
    task = Line()

    def poison(step: int) -> None:
        if step == 2:
            task.w.assign_(np.array([math.nan]))

    task.before = poison
    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 3: try a smaller learning rate"):
        run(task, Budget(steps=9))
    with pytest.raises(NonFiniteError, match="far is nan after step"):
        run(Line(held_out=[math.nan]), Budget(steps=2), evaluations=1)
    # A loss that is finite where its gradient is not: sqrt at 0.
    task = Line()
    task.loss = lambda: tr.sqrt(task.w).sum()  # type: ignore[method-assign]
    before = task.w.item()
    with pytest.raises(NonFiniteError, match=r"parameter w .*at step 1: try a smaller"):
        run(task, Budget(steps=9))
    assert task.w.item() == before


def test_the_rate_is_the_schedules_and_comes_back() -> None:
    task = Line()
    optimizer = optim.SGD([task.w], lr=0.5)
    rates: list[float] = []

    def schedule(used: float) -> float:
        rates.append(used)
        return 0.0

    train(task, optimizer, [("w", task.w)], Budget(steps=4), schedule=optim.BudgetLR(optimizer, schedule))
    assert rates == [0.125, 0.375, 0.625, 0.875]
    assert task.w.item() == 0 and optimizer.param_groups[0]["lr"] == 0.5


def test_other_schedules_count_steps_or_evaluations() -> None:
    def rates(make: Callable[[optim.SGD], optim.BaseSchedule], **options) -> list[float]:
        task, found = Line(**options), []
        optimizer = optim.SGD([task.w], lr=1.0)
        schedule = make(optimizer)
        task.before = lambda step: found.append(optimizer.param_groups[0]["lr"])
        train(task, optimizer, [("w", task.w)], Budget(steps=6), evaluations=3, schedule=schedule, clip=0.001)
        return found

    assert rates(lambda sgd: optim.StepLR(sgd, 2, 0.5)) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    plateau = rates(lambda sgd: optim.ReduceLROnPlateau(sgd, factor=0.5, patience=0), held_out=[3.0, 3.0, 1.0])
    assert plateau == [1, 1, 1, 1, 0.5, 0.5]


def test_an_evaluation_does_not_overwrite_a_figure_of_the_training() -> None:
    task = Line()
    task.evaluate = lambda: {"far": 1.0, "root": 2.0}
    with pytest.raises(ValueError, match="returns 'root', which is a figure of the training"):
        run(task, Budget(steps=2))
