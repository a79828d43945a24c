"""Learning rates that change: one family of schedules, of three kinds.

    counted         ConstantLR, StepLR, CosineAnnealingLR, LambdaLR: a formula of the number of steps
    listening       ReduceLROnPlateau: a formula of the figures that evaluations give
    of a budget     BudgetLR: a formula of the part of a training's steps or minutes that is used up

The first two are used as in PyTorch, and `training.train` calls all of them in one way, `BaseSchedule.at`:

    schedule = CosineAnnealingLR(optimiser, T_max=1000, warmup=100)
    for batch in batches:
        ...
        optimiser.step()
        schedule.step()

A rate is a closed formula, never a product carried along, so a schedule that was saved and loaded goes on exactly as it
would have. What a step is, a batch or an epoch, is up to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.scalars import number, plain
from tinygrad_rnn.tensor.mode import replay_overrides, replayed


class BaseSchedule:
    """The base of all schedules. This is what a training loop asks of one:

        with schedule.at(used):  # the part of the budget, from 0 to 1
            optimiser.step()
        schedule.evaluated(loss)  # after an evaluation

    A subclass defines `at`; `evaluated` and the state where it needs them. Raises `TypeError` for what is no
    `Optimizer`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        replay_overrides(cls, ("step", "evaluated", "load_state_dict", "factor", "rate"))

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: an optimiser is needed, got {type(optimizer).__name__}")
        self.optimizer = optimizer

    if not TYPE_CHECKING:  # to a type checker no name is missing then

        def __getattr__(self, name: str) -> Any:
            from tinygrad_rnn.pytorch import missing

            return missing(self, "schedule", name)

    @property
    def last_lr(self) -> list[float]:
        """The rate of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def at(self, used: float) -> AbstractContextManager[None]:
        """A context in which the optimiser has the rates of a step at `used`, the part of the budget."""
        raise NotImplementedError

    def evaluated(self, figure: float) -> None:
        """Take a figure of an evaluation, which is to become small."""

    def state_dict(self) -> dict[str, Any]:
        """What the schedule needs to go on, fit for JSON; empty if that is nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. Raises `ValueError` for the state of another kind of schedule."""
        if state:
            raise ValueError(f"load_state_dict of {type(self).__name__}: this is the state of {state.get('kind')}")


class Schedule(BaseSchedule):
    """The base of the schedules that count: lr = (its value at the start) * `factor(k)` after k steps, for each group.

    With `warmup` n the rate first rises in n equal parts: it is 1/n of the initial rate before the first step,
    2/n after it, and whole after n - 1; `factor` begins at step n. A rate that somebody sets in a group by hand
    holds until the next step. A subclass defines `factor`, and names its options in `options`.
    """

    options: tuple[str, ...] = ()

    def __init__(self, optimizer: Optimizer, warmup: int = 0) -> None:
        super().__init__(optimizer)
        for name in self.options:
            setattr(self, name, plain(getattr(self, name)))
        self.warmup: int = plain(warmup)
        self.steps = 0
        self.initial: list[float] = [float(group["lr"]) for group in optimizer.param_groups]
        self.check()
        self._set()

    def check(self) -> None:
        """Raise `ValueError` for an option out of its range, or a count or rate that cannot be; a subclass looks at its
        own, too.
        """
        for name in ("warmup", "steps"):
            _check_count(self, name, getattr(self, name), 0)
        for lr in self.initial:
            _check_number(self, "initial", lr)

    def factor(self, k: int) -> float:
        """What the initial rate is multiplied by, k steps after the warm-up."""
        raise NotImplementedError

    def rate(self, initial: float) -> float:
        """The rate now of a group that began with `initial`."""
        if self.steps < self.warmup:
            return initial * (self.steps + 1) / self.warmup
        return initial * self.factor(self.steps - self.warmup)

    @replayed(changes="options")
    def step(self) -> None:
        """Count a step and set the rates."""
        self.steps += 1
        self._set()

    @contextmanager
    def at(self, used: float) -> Iterator[None]:
        """Inside, the rates are those after so many steps, whatever the budget; then the step is counted."""
        yield
        self.step()

    def _set(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.initial):
            name = type(self).__name__
            raise ValueError(f"{name}: made for {len(self.initial)} parameter groups, the optimiser has {len(groups)}")
        rates = [self.rate(initial) for initial in self.initial]
        for rate in rates:
            _check_number(self, f"the rate after {self.steps:,} steps", rate)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only, fit for JSON: kind, options, steps and initial rates."""
        state = {name: plain(getattr(self, name)) for name in ("warmup", *self.options)}
        return {"kind": type(self).__name__, "steps": self.steps, "initial": list(self.initial), **state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, options included, and set the rates. All or nothing.

        Raises `ValueError` for the state of another kind of schedule, another number of groups, or an entry out of its
        range, `KeyError` naming what is missing or unexpected.
        """
        own = self.state_dict()
        name = type(self).__name__
        if state.get("kind") != name:
            raise ValueError(f"load_state_dict of {name}: this is the state of {state.get('kind')}")
        if set(state) != set(own):
            raise KeyError(f"load_state_dict of {name}: {sorted(set(state) ^ set(own))} missing or unexpected")
        if not isinstance(state["initial"], list | tuple):
            raise ValueError(f"{name}: initial must be a list of rates, got {state['initial']!r:.80}")
        if len(state["initial"]) != len(self.initial):
            raise ValueError(f"{name}: {len(state['initial'])} parameter groups given, {len(self.initial)} here")
        before = {key: getattr(self, key) for key in own if key != "kind"}
        try:
            for key in before:
                value = state[key]
                setattr(self, key, list(map(plain, value)) if isinstance(value, list | tuple) else plain(value))
            self.check()
            self._set()
        except BaseException:
            for key, value in before.items():
                setattr(self, key, value)
            raise

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)}" for name in (*self.options, "warmup"))
        return f"{type(self).__name__}({options}; {self.steps} steps)"


class ConstantLR(Schedule):
    """The initial rate, after the warm-up.

    >>> import tinygrad_rnn as tr
    >>> optimiser = tr.optim.SGD([tr.nn.Parameter([1.0])], lr=1.0)
    >>> schedule = tr.optim.ConstantLR(optimiser, warmup=4)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += schedule.last_lr
    ...     schedule.step()
    >>> rates
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    def factor(self, k: int) -> float:
        """1."""
        return 1.0


class StepLR(Schedule):
    """The rate times `gamma` every `step_size` steps.

    >>> import tinygrad_rnn as tr
    >>> optimiser = tr.optim.SGD([tr.nn.Parameter([1.0])], lr=1.0)
    >>> schedule = tr.optim.StepLR(optimiser, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates += schedule.last_lr
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    options = ("step_size", "gamma")

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, *, warmup: int = 0) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, warmup)

    def check(self) -> None:
        """Raise `ValueError` for an option out of its range."""
        super().check()
        _check_count(self, "step_size", self.step_size, 1)
        _check_factor(self, "gamma", self.gamma)

    def factor(self, k: int) -> float:
        """gamma^⌊k / step_size⌋."""
        return float(self.gamma ** (k // self.step_size))


class CosineAnnealingLR(Schedule):
    """Half a cosine from the initial rate down to `eta_min` at step `T_max`, the warm-up included, where it stays:
    Loshchilov and Hutter (2017, arXiv:1608.03983), without restarts.

    >>> import tinygrad_rnn as tr
    >>> optimiser = tr.optim.SGD([tr.nn.Parameter([1.0])], lr=1.0)
    >>> schedule = tr.optim.CosineAnnealingLR(optimiser, T_max=4)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += schedule.last_lr
    ...     schedule.step()
    >>> [round(rate, 4) for rate in rates]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    options = ("T_max", "eta_min")

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, *, warmup: int = 0) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, warmup)

    def check(self) -> None:
        """Raise `ValueError` for an option out of its range."""
        super().check()
        _check_count(self, "T_max", self.T_max, 1)
        _check_number(self, "eta_min", self.eta_min)
        if self.warmup >= self.T_max:
            name = type(self).__name__
            raise ValueError(f"{name}: a warm-up of {self.warmup} steps leaves nothing of T_max = {self.T_max}")

    def factor(self, k: int) -> float:
        """Half a cosine: 1 at k = 0, 0 at the end."""
        done = min(k / (self.T_max - self.warmup), 1.0)
        return (1 + math.cos(math.pi * done)) / 2

    def rate(self, initial: float) -> float:
        """The rate now of a group that began with `initial`."""
        if self.steps < self.warmup:
            return super().rate(initial)
        return self.eta_min + (initial - self.eta_min) * self.factor(self.steps - self.warmup)


class LambdaLR(Schedule):
    """The initial rate times `f(k)`, k the steps after the warm-up. `f` itself is not saved with the state.

    >>> import tinygrad_rnn as tr
    >>> optimiser = tr.optim.SGD([tr.nn.Parameter([1.0])], lr=1.0)
    >>> schedule = tr.optim.LambdaLR(optimiser, lambda k: 1 / (1 + k))
    >>> schedule.step()
    >>> schedule.last_lr
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, f: Callable[[int], float], *, warmup: int = 0) -> None:
        self.f = f
        super().__init__(optimizer, warmup)

    def factor(self, k: int) -> float:
        """f(k)."""
        return float(self.f(k))


class ReduceLROnPlateau(Schedule):
    """The rate times `factor` when a metric, given to `step(metric)`, has not improved for more than `patience` steps.

    An improvement is a metric below (`mode="min"`) or above (`"max"`) the best so far by more than `threshold`:
    that part of the best (`threshold_mode="rel"`) or that amount (`"abs"`). After a reduction `cooldown` steps
    are not counted. No rate falls below `min_lr`. A NaN is no improvement, and after an infinity, of either sign, every
    finite metric is one. `warmup` is that of `Schedule`; no step within it is counted as bad. In a training loop
    the metric is the goal of its evaluations.

    >>> import tinygrad_rnn as tr
    >>> optimiser = tr.optim.SGD([tr.nn.Parameter([1.0])], lr=1.0)
    >>> schedule = tr.optim.ReduceLROnPlateau(optimiser, factor=0.5, patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.0, 1.0]:
    ...     schedule.step(loss)
    ...     print(*schedule.last_lr)
    1.0
    1.0
    1.0
    0.5
    0.5
    """

    options = (
        *("mode", "decay", "patience", "threshold", "threshold_mode", "cooldown", "min_lr"),
        *("best", "bad", "resting", "reductions"),
    )

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        *,
        warmup: int = 0,
    ) -> None:
        self.mode, self.decay, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.min_lr = threshold, threshold_mode, min_lr
        self.best: float | None = None
        self.bad = self.resting = self.reductions = 0
        super().__init__(optimizer, warmup)

    def check(self) -> None:
        """Raise `ValueError` for an option out of its range."""
        super().check()
        if self.mode not in ("min", "max") or self.threshold_mode not in ("rel", "abs"):
            raise ValueError('ReduceLROnPlateau: mode is "min" or "max", threshold_mode "rel" or "abs"')
        _check_factor(self, "factor", self.decay)
        if self.decay == 1:
            raise ValueError("ReduceLROnPlateau: a factor of 1 reduces nothing")
        for name in ("patience", "cooldown", "bad", "resting", "reductions"):
            _check_count(self, name, getattr(self, name), 0)
        for name in ("threshold", "min_lr"):
            _check_number(self, name, getattr(self, name))
        if self.best is not None and math.isnan(number("ReduceLROnPlateau: best", self.best)):
            raise ValueError("ReduceLROnPlateau: best cannot be NaN")

    @replayed(changes="options")
    def step(self, metric: Any = None) -> None:
        """Count a step with its metric, a number or a tensor of one element, and set the rates."""
        if metric is None:
            raise TypeError("ReduceLROnPlateau: step(metric) needs the metric")
        value = float(number("ReduceLROnPlateau: the metric", metric))
        if self._better(value):
            self.best, self.bad = value, 0
        elif self.resting == 0 and self.steps >= self.warmup:
            self.bad += 1
        self.resting = max(self.resting - 1, 0)
        if self.bad > self.patience:
            self.bad, self.resting = 0, self.cooldown
            self.reductions += 1
        super().step()

    @contextmanager
    def at(self, used: float) -> Iterator[None]:
        """Inside, the rates are those after so many metrics; a step of the optimiser does not count."""
        yield

    def evaluated(self, figure: float) -> None:
        """Count an evaluation: `step(figure)`."""
        self.step(figure)

    def _better(self, value: float) -> bool:
        if math.isnan(value) or self.best is None:
            return not math.isnan(value)
        if math.isinf(self.best):  # a part of which is no margin
            return math.isfinite(value)
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def factor(self, k: int) -> float:
        """factor^(number of reductions)."""
        return float(self.decay**self.reductions)

    def rate(self, initial: float) -> float:
        """The rate now of a group that began with `initial`."""
        rate = super().rate(initial)
        return max(rate, min(initial, self.min_lr)) if self.reductions else rate


def warmup_cosine(used: float, warmup: float = 0.03) -> float:
    """A factor for `BudgetLR`: from 0 to 1 over the first `warmup` of the budget, then half a cosine down to 0.

    From "SGDR: Stochastic gradient descent with warm restarts" (Loshchilov and Hutter, 2017), without the
    restarts.

        >>> [round(warmup_cosine(used), 3) for used in (0.0, 0.015, 0.03, 0.515, 1.0)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if used < warmup:
        return used / warmup
    after = (used - warmup) / (1 - warmup) if warmup < 1 else 0.0  # the warm-up may be all of the budget
    return 0.5 * (1 + math.cos(math.pi * after))


def warmup_linear(used: float, warmup: float = 0.03) -> float:
    """A factor for `BudgetLR`: from 0 to 1 over the first `warmup` of the budget, then straight down to 0.

    >>> [warmup_linear(used, warmup=0.5) for used in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if used < warmup:
        return used / warmup
    return (1 - used) / (1 - warmup) if warmup < 1 else 1.0


def warmup_constant(used: float, warmup: float = 0.03) -> float:
    """A factor for `BudgetLR`: from 0 to 1 over the first `warmup` of the budget, then 1.

    >>> [warmup_constant(used, warmup=0.5) for used in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return used / warmup if used < warmup else 1.0


class BudgetLR(BaseSchedule):
    """The rate times `factor(used)` in a step at the part `used` of the budget: one of steps, of minutes, of both.

    Between the steps each group keeps its own rate, which is the highest of a `factor` up to 1; changing it changes all
    that follows. So there is nothing to save.

    >>> import tinygrad_rnn as tr
    >>> optimiser = tr.optim.SGD([tr.nn.Parameter([1.0])], lr=2.0)
    >>> schedule = tr.optim.BudgetLR(optimiser, lambda used: 1 - used)
    >>> with schedule.at(0.25):
    ...     schedule.last_lr
    [1.5]
    >>> schedule.last_lr
    [2.0]
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[float], float] = warmup_cosine) -> None:
        super().__init__(optimizer)
        self.factor = factor

    @contextmanager
    def at(self, used: float) -> Iterator[None]:
        """Inside, the rates are those of the groups times `factor(used)`."""
        groups, own = self.optimizer.param_groups, self.last_lr
        factor = self.factor(used)
        try:
            for group, lr in zip(groups, own, strict=True):
                group["lr"] = lr * factor
            yield
        finally:
            for group, lr in zip(groups, own, strict=True):
                group["lr"] = lr

    def __repr__(self) -> str:
        return f"BudgetLR({getattr(self.factor, '__name__', self.factor)})"


def _check_count(schedule: BaseSchedule, name: str, value: Any, least: int) -> None:
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int) or found < least:
        raise ValueError(f"{type(schedule).__name__}: {name} must be an integer of at least {least}, got {value!r}")


def _check_number(schedule: BaseSchedule, name: str, value: Any) -> None:
    found = number(f"{type(schedule).__name__}: {name}", value)
    if not (found >= 0 and math.isfinite(found)):
        raise ValueError(f"{type(schedule).__name__}: {name} must be finite and at least 0, got {value!r}")


def _check_factor(schedule: BaseSchedule, name: str, value: Any) -> None:
    if not 0 < number(f"{type(schedule).__name__}: {name}", value) <= 1:
        raise ValueError(f"{type(schedule).__name__}: {name} must lie in (0, 1], got {value!r}")
