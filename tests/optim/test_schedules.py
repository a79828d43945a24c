"""Schedules against their formulas, against PyTorch where it is installed, and across saving and loading."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.nn import Parameter


def optimiser(*rates: float) -> Any:
    return tr.optim.SGD([{"params": [Parameter([1.0])], "lr": lr} for lr in rates])


def rates(schedule: Any, steps: int) -> list[list[float]]:
    found = []
    for _ in range(steps):
        found.append(schedule.last_lr)
        schedule.step()
    return found


@given(st.integers(1, 5), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 5))
def test_step(step_size: int, gamma: float, warmup: int) -> None:
    schedule = tr.optim.StepLR(optimiser(1.0, 0.2), step_size, gamma, warmup=warmup)
    for k, found in enumerate(rates(schedule, 15)):
        f = (k + 1) / warmup if k < warmup else gamma ** ((k - warmup) // step_size)
        assert found == pytest.approx([f, 0.2 * f], rel=1e-15)


@given(st.integers(1, 9), st.sampled_from([0.0, 0.01]), st.integers(0, 5))
def test_cosine_falls_to_its_end_and_stays_there(T_max: int, eta_min: float, warmup: int) -> None:
    T_max += warmup
    schedule = tr.optim.CosineAnnealingLR(optimiser(1.0, 0.2), T_max, eta_min, warmup=warmup)
    found = rates(schedule, T_max + 4)
    for k, pair in enumerate(found):
        for lr, initial in zip(pair, (1.0, 0.2), strict=True):
            done = min((k - warmup) / (T_max - warmup), 1)
            down = eta_min + (initial - eta_min) * (1 + math.cos(math.pi * done)) / 2
            assert lr == pytest.approx(initial * (k + 1) / warmup if k < warmup else down, rel=1e-14)
    assert found[T_max] == found[-1] == [eta_min, eta_min]


def test_constant_and_lambda() -> None:
    assert rates(tr.optim.ConstantLR(optimiser(0.3), warmup=2), 4) == [[0.15], [0.3], [0.3], [0.3]]
    schedule = tr.optim.LambdaLR(optimiser(1.0), lambda k: 0.5**k, warmup=2)
    assert rates(schedule, 4) == [[0.5], [1.0], [1.0], [0.5]]


@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "LambdaLR", "warm-up"])
def test_is_what_pytorch_does(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    lr = torch.optim.lr_scheduler
    ours = optimiser(0.3)
    pairs: dict[str, Any] = {
        "StepLR": lambda: (tr.optim.StepLR(ours, 3, 0.5), lr.StepLR(theirs, 3, 0.5)),
        "CosineAnnealingLR": lambda: (
            tr.optim.CosineAnnealingLR(ours, 8, 0.01),
            lr.CosineAnnealingLR(theirs, 8, 0.01),
        ),
        "LambdaLR": lambda: (tr.optim.LambdaLR(ours, lambda k: 0.9**k), lr.LambdaLR(theirs, lambda k: 0.9**k)),
        "warm-up": lambda: (
            tr.optim.ConstantLR(ours, warmup=4),
            lr.LinearLR(theirs, start_factor=1 / 4, total_iters=3),
        ),
    }
    schedule, reference = pairs[name]()
    for _ in range(9):
        assert schedule.last_lr == pytest.approx(reference.get_last_lr(), rel=1e-12)
        schedule.step()
        theirs.step()
        reference.step()


plateaus = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 0.05]),
    }
)
metrics = st.lists(st.integers(1, 12).map(lambda n: n / 4), max_size=25)


@given(plateaus, metrics)
def test_plateau_is_what_pytorch_does(options: dict[str, Any], values: list[float]) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, eps=0.0, **options)
    schedule = tr.optim.ReduceLROnPlateau(optimiser(0.3), **options)
    for value in values:
        schedule.step(value)
        reference.step(value)
        assert schedule.last_lr == pytest.approx([theirs.param_groups[0]["lr"]], rel=1e-12)


def test_plateau_by_hand() -> None:
    """Patience 1, cooldown 2: reduced by the second bad step; the two after it do not count; NaN is bad."""
    schedule = tr.optim.ReduceLROnPlateau(optimiser(1.0), factor=0.5, patience=1, cooldown=2)
    found = []
    for metric in [5.0, 4.0, tr.Tensor(4.0), float("nan"), 9, 9, 9, 9, 1.0, 2.0]:
        schedule.step(metric)
        found += schedule.last_lr
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert schedule.best == 1.0
    low = tr.optim.ReduceLROnPlateau(optimiser(1.0, 1e-3), patience=0, min_lr=1e-2)
    for _ in range(5):
        low.step(1.0)
    assert low.last_lr == [1e-2, 1e-3]  # a rate that was below min_lr is not raised to it
    warm = tr.optim.ReduceLROnPlateau(optimiser(1.0), factor=0.5, patience=0, warmup=3)
    seen = []
    for _ in range(6):
        seen += warm.last_lr
        warm.step(1.0)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.5, 0.25])


SHAPES = {
    "warmup_cosine": tr.optim.warmup_cosine,
    "warmup_linear": tr.optim.warmup_linear,
    "warmup_constant": tr.optim.warmup_constant,
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_a_budget_start_at_0_reach_1_and_stay_between(name: str) -> None:
    factors = [SHAPES[name](k / 100) for k in range(101)]
    assert factors[0] == 0 and max(factors) == pytest.approx(1) and min(factors) >= 0
    assert factors[3] == pytest.approx(1) and (factors[-1] == pytest.approx(0)) == (name != "warmup_constant")


@pytest.mark.parametrize("name", SHAPES)
def test_a_warm_up_may_be_none_or_all_of_a_budget(name: str) -> None:
    f = SHAPES[name]
    assert f(0.0, warmup=0.0) == 1 and f(0.0, warmup=1.0) == 0 and f(0.5, warmup=1.0) == 0.5 and f(1.0, warmup=1.0) == 1
    assert f(0.25, warmup=0.0) == f(0.25, warmup=1e-12) or name != "warmup_constant"
    assert f(1.0, warmup=0.0) == (name == "warmup_constant")


def test_the_cosine_of_a_budget_rises_then_falls() -> None:
    factors = [tr.optim.warmup_cosine(k / 100) for k in range(101)]
    top = factors.index(max(factors))
    assert factors[0] == 0 and factors[-1] == pytest.approx(0) and max(factors) == 1 and top == 3
    assert factors[:4] == sorted(factors[:4]) and factors[3:] == sorted(factors[3:], reverse=True)


def test_a_budget_moves_the_rates_of_a_step_and_gives_them_back() -> None:
    o = optimiser(0.5, 0.25)
    schedule = tr.optim.BudgetLR(o, lambda used: 1 - used)
    with schedule.at(0.75):
        assert schedule.last_lr == [0.125, 0.0625]
    assert schedule.last_lr == [0.5, 0.25] and schedule.state_dict() == {}
    with pytest.raises(ZeroDivisionError), schedule.at(0.5):
        raise ZeroDivisionError
    assert schedule.last_lr == [0.5, 0.25]
    o.param_groups[1]["lr"] = 4.0  # a rate set by hand is the whole of what follows
    schedule.evaluated(1.0)
    with schedule.at(0.5):
        assert schedule.last_lr == [0.25, 2.0]
    schedule.load_state_dict({})
    with pytest.raises(ValueError, match="load_state_dict of BudgetLR: this is the state of StepLR"):
        schedule.load_state_dict(tr.optim.StepLR(o, 2).state_dict())
    assert repr(tr.optim.BudgetLR(o)) == "BudgetLR(warmup_cosine)"


def test_a_loop_calls_all_of_them_in_one_way() -> None:
    """A step counts where steps count, and only once it has been made; a figure counts for a plateau alone."""

    def rates_of(schedule: Any) -> list[float]:
        found = []
        for k in range(4):
            with schedule.at(k / 4):
                found += schedule.last_lr
            schedule.evaluated(1.0)
        return found

    assert rates_of(tr.optim.StepLR(optimiser(1.0), 2, 0.5)) == [1, 1, 0.5, 0.5]
    assert rates_of(tr.optim.ReduceLROnPlateau(optimiser(1.0), factor=0.5, patience=1)) == [1, 1, 1, 0.5]
    assert rates_of(tr.optim.BudgetLR(optimiser(1.0), lambda used: 1 - used)) == [1, 0.75, 0.5, 0.25]
    schedule = tr.optim.StepLR(optimiser(1.0), 1)
    with pytest.raises(ZeroDivisionError), schedule.at(0.0):
        raise ZeroDivisionError
    assert schedule.steps == 0


MAKERS: list[Any] = [
    lambda o: tr.optim.ConstantLR(o, warmup=3),
    lambda o: tr.optim.StepLR(o, 2, 0.7, warmup=2),
    lambda o: tr.optim.CosineAnnealingLR(o, 20, 0.001, warmup=3),
    lambda o: tr.optim.LambdaLR(o, lambda k: 0.9**k),
    lambda o: tr.optim.ReduceLROnPlateau(o, factor=0.9, patience=1, cooldown=2),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("at", range(12))
def test_a_saved_schedule_goes_on_bit_for_bit(make: Any, at: int) -> None:
    """The state passes through JSON; the rates of the new optimiser do not matter."""
    one = make(optimiser(0.3, 0.1))
    values = np.random.default_rng(0).random(20).round(1)

    def run(schedule: Any, first: int, last: int) -> list[list[float]]:
        found = []
        for k in range(first, last):
            schedule.step(*([values[k]] if isinstance(schedule, tr.optim.ReduceLROnPlateau) else []))
            found.append(schedule.last_lr)
        return found

    run(one, 0, at)
    saved = json.loads(json.dumps(one.state_dict(), allow_nan=False))
    expected = [one.last_lr, *run(one, at, 20)]
    other = make(optimiser(7.0, 8.0))
    other.load_state_dict(saved)
    assert [other.last_lr, *run(other, at, 20)] == expected
    assert "20 steps" in repr(other)


def test_wrong_states_are_refused() -> None:
    schedule = tr.optim.StepLR(optimiser(1.0), 2)
    saved = schedule.state_dict()
    with pytest.raises(ValueError, match="load_state_dict of ConstantLR: this is the state of StepLR"):
        tr.optim.ConstantLR(optimiser(1.0)).load_state_dict(saved)
    with pytest.raises(ValueError, match="2 parameter groups given, 1 here"):
        schedule.load_state_dict({**saved, "initial": [1.0, 2.0]})
    with pytest.raises(KeyError, match="gamma"):
        schedule.load_state_dict({k: v for k, v in saved.items() if k != "gamma"})
    assert schedule.state_dict() == saved


# For each kind, entries that cannot be: every count, rate and option of it in turn.
BROKEN: list[tuple[int, str, Any]] = [
    *(
        (k, key, value)
        for k in range(5)
        for key, value in (("steps", "x"), ("steps", -1), ("steps", 1.5), ("steps", True))
    ),
    *(
        (k, "initial", value)
        for k in range(5)
        for value in (None, ["y"], [math.nan], [-1.0], [math.inf], [1.0, 1.0], [None])
    ),
    *((k, "warmup", value) for k in range(5) for value in (None, -1, 0.5, "2")),
    *((1, key, value) for key, value in (("gamma", None), ("gamma", 0), ("gamma", 2.0), ("gamma", math.nan))),
    *((1, "step_size", value) for value in (0, None, 2.5, "2")),
    *(
        (2, key, value)
        for key, value in (("T_max", 0), ("T_max", 3), ("T_max", None), ("eta_min", -1), ("eta_min", "0"))
    ),
    *((4, key, value) for key in ("patience", "cooldown", "bad", "resting", "reductions") for value in (-1, None, 0.5)),
    *((4, key, value) for key, value in (("mode", "low"), ("threshold_mode", None), ("decay", 1.0), ("decay", "x"))),
    *((4, key, value) for key, value in (("threshold", math.nan), ("min_lr", -1), ("best", "x"), ("best", math.nan))),
]


@pytest.mark.parametrize(("kind", "key", "value"), BROKEN)
def test_a_load_that_fails_has_changed_nothing(kind: int, key: str, value: Any) -> None:
    schedule = MAKERS[kind](optimiser(0.5))
    other = MAKERS[kind](optimiser(0.25))
    for s in (schedule, other):
        s.step(*([1.0] if kind == 4 else []))
    other.step(*([1.0] if kind == 4 else []))
    before, rates_before = schedule.state_dict(), schedule.last_lr
    with pytest.raises((ValueError, TypeError)):
        schedule.load_state_dict({**other.state_dict(), key: value})
    assert schedule.state_dict() == before and schedule.last_lr == rates_before
    schedule.load_state_dict(other.state_dict())
    assert schedule.last_lr == other.last_lr


def test_a_load_whose_rate_cannot_be_has_changed_nothing() -> None:
    """The formula of the schedule itself fails where it is to go on; or the optimiser has got another group."""

    def short(k: int) -> float:
        return [1.0, 0.5][k]

    for f, message in ((short, "list index"), (lambda k: math.nan if k > 1 else 1.0, "the rate after 3 steps")):
        schedule = tr.optim.LambdaLR(optimiser(0.5), f)
        with pytest.raises((IndexError, ValueError), match=message):
            schedule.load_state_dict({**schedule.state_dict(), "steps": 3})
        assert schedule.steps == 0 and schedule.last_lr == [0.5]
    schedule = tr.optim.StepLR(optimiser(0.5), 1)
    saved = {**schedule.state_dict(), "steps": 3}
    schedule.optimizer.add_param_group({"params": [Parameter([2.0])]})
    with pytest.raises(ValueError, match="made for 1 parameter groups, the optimiser has 2"):
        schedule.load_state_dict(saved)
    assert schedule.steps == 0 and schedule.last_lr == [0.5, 0.5]


def test_options_and_metrics_may_be_of_any_kind_of_number() -> None:
    schedule = tr.optim.ReduceLROnPlateau(
        optimiser(np.float32(0.5)), factor=np.float32(0.5), patience=np.int64(0), min_lr=tr.Tensor(0.0)
    )
    for metric in (np.float32(1), np.array([1.0]), tr.Tensor(1.0)):
        schedule.step(metric)
    saved = json.loads(json.dumps(schedule.state_dict(), allow_nan=False))
    other = tr.optim.ReduceLROnPlateau(optimiser(1.0))
    other.load_state_dict(saved)
    assert other.last_lr == schedule.last_lr == [0.125] and other.state_dict() == saved


def test_wrong_use_is_refused_by_name() -> None:
    o = optimiser(1.0)
    for make, message in (
        (lambda: tr.optim.StepLR(o, 0), "StepLR: step_size must be an integer of at least 1, got 0"),
        (lambda: tr.optim.StepLR(o, 2, 0.0), "gamma"),
        (lambda: tr.optim.StepLR(o, 2, warmup=-1), "warmup"),
        (lambda: tr.optim.CosineAnnealingLR(o, 0), "T_max"),
        (lambda: tr.optim.CosineAnnealingLR(o, 5, -1.0), "eta_min"),
        (lambda: tr.optim.CosineAnnealingLR(o, 5, warmup=5), "leaves nothing"),
        (lambda: tr.optim.ReduceLROnPlateau(o, "low"), "mode"),
        (lambda: tr.optim.ReduceLROnPlateau(o, factor=1.0), "reduces nothing"),
        (lambda: tr.optim.ReduceLROnPlateau(o, factor=2.0), "factor"),
        (lambda: tr.optim.ReduceLROnPlateau(o, patience=-1), "patience"),
        (lambda: tr.optim.ReduceLROnPlateau(o, threshold=math.nan), "threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for schedule in (tr.optim.ConstantLR, tr.optim.BudgetLR):
        with pytest.raises(TypeError, match="an optimiser is needed, got Linear"):
            schedule(tr.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs the metric"):
        tr.optim.ReduceLROnPlateau(o).step()
    schedule = tr.optim.ConstantLR(o)
    o.add_param_group({"params": [Parameter([2.0])]})
    with pytest.raises(ValueError, match="made for 1 parameter groups, the optimiser has 2"):
        schedule.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_a_plateau_that_meets_infinity_goes_on(mode: str, threshold_mode: str, bad: float, first: bool) -> None:
    """Whatever its sign: what improves afterwards improves, and what does not is counted."""
    schedule = tr.optim.ReduceLROnPlateau(optimiser(1.0), mode, 0.5, patience=2, threshold_mode=threshold_mode)
    sign = 1 if mode == "min" else -1
    for value in [bad] if first else [9.0 * sign, bad]:
        schedule.step(value)
    for value in (8.0, 7.0, 6.0, 5.0):
        schedule.step(value * sign)
        assert schedule.best == value * sign and schedule.last_lr == [1.0]
    saved = schedule.state_dict()
    for _ in range(3):
        schedule.step(5.0 * sign)
    assert schedule.last_lr == [0.5]
    schedule.load_state_dict({**saved, "best": bad})
    schedule.step(4.0 * sign)
    assert schedule.best == 4.0 * sign
