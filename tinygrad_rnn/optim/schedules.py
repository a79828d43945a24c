"""Learning rates that change: a schedule sets `lr` of every parameter group after each of its steps.

    schedule = CosineAnnealingLR(optimiser, T_max=1000, warmup=100)
    for batch in batches:
        ...
        optimiser.step()
        schedule.step()

The rate is a closed formula of the number of steps, never a product carried along, so a schedule that was saved and
loaded goes on exactly as it would have. What a step is, a batch or an epoch, is up to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.tensor.mode import replayed


class Schedule:
    """The base of the schedules: lr = (its value at the start) * `factor(k)` after k steps, for each group.

    With `warmup` n the rate first rises in n equal parts: it is 1/n of the initial rate before the first step,
    2/n after it, and whole after n - 1; `factor` begins at step n. A rate that somebody sets in a group by hand
    holds until the next step. A subclass defines `factor`, and names its options in `options`.
    """

    options: tuple[str, ...] = ()

    def __init__(self, optimizer: Optimizer, warmup: int = 0) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: an optimiser is needed, got {type(optimizer).__name__}")
        _check_count(self, "warmup", warmup, 0)
        self.optimizer, self.warmup = optimizer, warmup
        self.steps = 0
        self.initial: list[float] = [float(group["lr"]) for group in optimizer.param_groups]
        self._set()

    def factor(self, k: int) -> float:
        """What the initial rate is multiplied by, k steps after the warm-up."""
        raise NotImplementedError

    def rate(self, initial: float) -> float:
        """The rate now of a group that began with `initial`."""
        if self.steps < self.warmup:
            return initial * (self.steps + 1) / self.warmup
        return initial * self.factor(self.steps - self.warmup)

    @replayed
    def step(self) -> None:
        """Count a step and set the rates."""
        self.steps += 1
        self._set()

    @property
    def last_lr(self) -> list[float]:
        """The rate of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _set(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.initial):
            name = type(self).__name__
            raise ValueError(f"{name}: made for {len(self.initial)} parameter groups, the optimiser has {len(groups)}")
        for group, initial in zip(groups, self.initial, strict=True):
            group["lr"] = self.rate(initial)

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists of them only, fit for JSON: kind, options, steps and initial rates."""
        state = {name: getattr(self, name) for name in ("warmup", *self.options)}
        return {"kind": type(self).__name__, "steps": self.steps, "initial": list(self.initial), **state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, options included, and set the rates. All or nothing.

        Raises `ValueError` for the state of another kind of schedule or another number of groups, `KeyError`
        naming what is missing or unexpected.
        """
        own = self.state_dict()
        name = type(self).__name__
        if state.get("kind") != name:
            raise ValueError(f"load_state_dict of {name}: this is the state of {state.get('kind')}")
        if set(state) != set(own):
            raise KeyError(f"load_state_dict of {name}: {sorted(set(state) ^ set(own))} missing or unexpected")
        if len(state["initial"]) != len(self.initial):
            raise ValueError(f"{name}: {len(state['initial'])} parameter groups given, {len(self.initial)} here")
        for key, value in state.items():
            if key != "kind":
                setattr(self, key, list(value) if isinstance(value, list | tuple) else value)
        self._restore()

    def _restore(self) -> None:
        """Set the rates that a loaded state stands for."""
        self._set()

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
        _check_count(self, "step_size", step_size, 1)
        _check_factor(self, "gamma", gamma)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, warmup)

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
        _check_count(self, "T_max", T_max, 1)
        if not (eta_min >= 0 and math.isfinite(eta_min)):
            raise ValueError(f"CosineAnnealingLR: eta_min must be finite and at least 0, got {eta_min!r}")
        if warmup >= T_max:
            raise ValueError(f"CosineAnnealingLR: a warm-up of {warmup} steps leaves nothing of T_max = {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, warmup)

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
    are not counted. No rate falls below `min_lr`. A NaN is no improvement. `warmup` is that of `Schedule`; no
    step within it is counted as bad.

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
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError('ReduceLROnPlateau: mode is "min" or "max", threshold_mode "rel" or "abs"')
        _check_factor(self, "factor", factor)
        if factor == 1:
            raise ValueError("ReduceLROnPlateau: a factor of 1 reduces nothing")
        _check_count(self, "patience", patience, 0)
        _check_count(self, "cooldown", cooldown, 0)
        for name, value in (("threshold", threshold), ("min_lr", min_lr)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"ReduceLROnPlateau: {name} must be finite and at least 0, got {value!r}")
        self.mode, self.decay, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.min_lr = threshold, threshold_mode, min_lr
        self.best: float | None = None
        self.bad = self.resting = self.reductions = 0
        super().__init__(optimizer, warmup)

    @replayed
    def step(self, metric: Any = None) -> None:
        """Count a step with its metric, a number or a tensor of one element, and set the rates."""
        if metric is None:
            raise TypeError("ReduceLROnPlateau: step(metric) needs the metric")
        value = float(metric)
        if self._better(value):
            self.best, self.bad = value, 0
        elif self.resting == 0 and self.steps >= self.warmup:
            self.bad += 1
        self.resting = max(self.resting - 1, 0)
        if self.bad > self.patience:
            self.bad, self.resting = 0, self.cooldown
            self.reductions += 1
        super().step()

    def _better(self, value: float) -> bool:
        if math.isnan(value) or self.best is None:
            return not math.isnan(value)
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def factor(self, k: int) -> float:
        """factor^(number of reductions)."""
        return float(self.decay**self.reductions)

    def rate(self, initial: float) -> float:
        """The rate now of a group that began with `initial`."""
        return max(super().rate(initial), min(initial, self.min_lr)) if self.reductions else super().rate(initial)


def _check_count(schedule: Schedule, name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{type(schedule).__name__}: {name} must be an integer of at least {least}, got {value!r}")


def _check_factor(schedule: Schedule, name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{type(schedule).__name__}: {name} must lie in (0, 1], got {value!r}")
