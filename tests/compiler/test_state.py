"""What a step does to optimisers, schedules, modes, generators and parameters is done at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import random

CALLS = 8


def xs(n: int = CALLS, *shape: int) -> list[tr.Tensor]:
    return [tr.Tensor(np.random.default_rng(k).standard_normal(shape or (2,)).astype("f")) for k in range(n)]


# --- rules of one's own -----------------------------------------------------------------------------------------------


class Decaying(tr.optim.SGD):
    """Sets its rate in Python."""

    k = 0

    def step(self) -> None:
        super().step()
        self.k += 1
        self.param_groups[0]["lr"] = 0.1 / (1 + self.k)


class Signs(tr.optim.SGD):
    """Has a formula of its own."""

    def update(self, p: Any, g: Any, moments: Any, step: int, options: Any) -> Any:
        return p - options["lr"] / step * np.sign(g)


class Zeros(tr.optim.SGD):
    """Leaves zeros, and counts."""

    calls = 0

    def zero_grad(self) -> None:
        self.calls += 1
        for p in self._parameters:
            p.grad = tr.full(p.shape, float(self.calls))


class Halved(tr.optim.Adam):
    """Changes the gradients, and calls the rule of its base."""

    def step(self) -> None:
        for p in self._parameters:
            if p.grad is not None:
                p.grad = p.grad * 0.5
        super().step()


class Alone(tr.optim.Optimizer):
    """Uses nothing of its base."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.average: dict[int, Any] = {}
        self.count = 0

    def step(self) -> None:
        self.count += 1
        for k, p in enumerate(self._parameters):
            if p.grad is not None:
                self.average[k] = 0.9 * self.average.get(k, 0.0) + p.grad.numpy()
                p.assign_(p.numpy() - self.param_groups[0]["lr"] / self.count * self.average[k])


class Inverse(tr.optim.Schedule):
    """Overrides `step`."""

    def factor(self, k: int) -> float:
        return 1.0

    def step(self) -> None:
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + self.steps)


class Remembers(tr.optim.Schedule):
    """Its formula has a memory."""

    seen = 0

    def factor(self, k: int) -> float:
        self.seen += 1
        return 1.0 / self.seen


class Cyclic(tr.optim.BaseSchedule):
    """Has a method of its own."""

    k = 0

    def advance(self) -> None:
        self.k = (self.k + 1) % 3
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1 * (1 + self.k)


RULES: dict[str, Callable[[Any], Any]] = {
    "Decaying": lambda p: Decaying(p, lr=0.1),
    "Signs": lambda p: Signs(p, lr=0.1),
    "Zeros": lambda p: Zeros(p, lr=0.1),
    "Halved": lambda p: Halved(p, lr=0.1),
    "Alone": lambda p: Alone(p, lr=0.1),
}


@pytest.mark.parametrize("name", RULES)
def test_optimisers_of_ones_own(name: str) -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter(np.float32([1, -2]))
        optimizer = RULES[name]([w])

        def step(x: Any) -> Any:
            loss = tr.square(w * x - 3).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        f = C(step)
        return [(f(x), w.tolist(), optimizer.param_groups[0]["lr"]) for x in xs()]

    alike(run)


@pytest.mark.parametrize("kind", [Inverse, Remembers, Cyclic])
def test_schedules_of_ones_own(kind: Any) -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter(np.float32([1, -2]))
        optimizer = tr.optim.SGD([w], lr=0.1)
        schedule = kind(optimizer)

        def step(x: Any) -> Any:
            loss = tr.square(w * x - 3).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.advance() if kind is Cyclic else schedule.step()
            return loss

        f = C(step)
        return [(f(x), w.tolist(), schedule.last_lr) for x in xs()]

    alike(run)


def test_a_plateau_is_told_figures_between_the_calls() -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter([1.0])
        optimizer = tr.optim.SGD([w], lr=0.5)
        schedule = tr.optim.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            (w * x).sum().backward()
            optimizer.step()

        f, out = C(step), []
        for k in range(CALLS):
            f(tr.ones(1))
            schedule.step(float(k))
            out.append((w.item(), optimizer.param_groups[0]["lr"]))
        return out

    alike(run)


# --- read and set inside ----------------------------------------------------------------------------------------------


def own_rule(w: Any, o: Any, s: Any, m: Any, rate: float) -> None:
    w.assign_((w - s.last_lr[0] * w.grad).detach())
    s.step()


def rate_read(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    o.step()
    s.step()
    return o.param_groups[0]["lr"], s.last_lr


def rate_set(w: Any, o: Any, s: Any, m: Any, rate: float) -> None:
    o.param_groups[0]["lr"] = rate
    o.step()


def rate_scaled(w: Any, o: Any, s: Any, m: Any, rate: float) -> None:
    for group in o.param_groups:
        group["lr"] *= 0.9
    o.step()


def rate_decides(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    s.step()
    if o.param_groups[0]["lr"] < 0.2:
        o.step()
    return s.steps


def option_set(w: Any, o: Any, s: Any, m: Any, rate: float) -> None:
    o.param_groups[0].update(weight_decay=rate, momentum=0.9)
    o.step()


def mode_set(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    m.eval()
    y = m(tr.ones(3))
    o.step()
    return y, m.training


def mode_toggled(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    was = m.training
    m.eval()
    y = m(tr.ones(3))
    m.train(was)
    return y, m(tr.ones(3)), m.training


def option_of_a_module_set(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    m.p = rate
    return m(tr.ones(9)), m.p


def grad_set(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    w.grad = w.grad * rate
    o.step()
    return w.grad


def grad_read_and_kept(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    g = w.grad
    o.zero_grad()
    w.grad = g * 2
    o.step()
    return g, w.grad


def two_steps(w: Any, o: Any, s: Any, m: Any, rate: float) -> None:
    o.step()
    o.zero_grad()
    (w * w).sum().backward()
    o.step()


def draws(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    return tr.rand(2), tr.randn(1), m(tr.ones(5))


def seeds(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    tr.manual_seed(3)
    return tr.rand(2)


def frozen_inside(w: Any, o: Any, s: Any, m: Any, rate: float) -> Any:
    with tr.no_grad():
        y = w * 2
    return y, y.requires_grad


INSIDE = [
    own_rule,
    rate_read,
    rate_set,
    rate_scaled,
    rate_decides,
    option_set,
    mode_set,
    mode_toggled,
    option_of_a_module_set,
    grad_set,
    grad_read_and_kept,
    two_steps,
    draws,
    seeds,
    frozen_inside,
]
MAY_BE_REFUSED = (rate_scaled, rate_decides, mode_toggled)  # Python decides, or carries on


@pytest.mark.parametrize("inside", INSIDE, ids=lambda f: f.__name__)
def test_what_is_read_and_set_inside(inside: Any) -> None:
    def run(C: Any) -> Any:
        w, m = tr.nn.Parameter(np.float32([1.0, 2.0])), tr.nn.Dropout(0.5)
        o = tr.optim.SGD([w], lr=0.5)
        s = tr.optim.StepLR(o, 2, gamma=0.5)

        def step(x: Any, rate: float) -> Any:
            o.zero_grad()
            (w * x).sum().backward()
            return inside(w, o, s, m, rate)

        f, out = C(step), []
        for k, x in enumerate(xs()):
            rate = 0.1 if k < 3 else 0.01
            m.train()
            out.append((f(x, rate), w.tolist(), w.grad, m.training, m.p, o.param_groups[0]["lr"]))
        return out, tr.rand(2)

    try:
        alike(run)
    except tr.errors.CompileError:
        if inside not in MAY_BE_REFUSED:
            raise


def test_options_that_are_set_between_calls() -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter(np.float32([1.0, 2.0]))
        o = tr.optim.Adam([{"params": [w]}], lr=0.1)

        def step(x: Any) -> None:
            o.zero_grad()
            (w * x).sum().backward()
            o.step()

        f, out = C(step), []
        for k, x in enumerate(xs(12)):
            if k == 3:
                o.param_groups[0].update(lr=0.01, betas=(0.5, 0.5), weight_decay=0.1)
            if k == 6:
                o.load_state_dict(o.state_dict())
            if k == 8:
                o.add_param_group({"params": [tr.nn.Parameter([1.0])]})
            if k == 10:
                o.step()
            f(x)
            out.append((w.tolist(), o.state_dict()["state"]))
        return out

    alike(run)


def test_segments_that_are_recomputed() -> None:
    def run(C: Any) -> Any:
        model = tr.nn.Sequential(tr.nn.Linear(2, 3, generator=np.random.default_rng(0)), tr.nn.Tanh())
        optimizer = tr.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            y = tr.checkpoint(model, x)
            optimizer.zero_grad()
            (y * y).sum().backward()
            optimizer.step()
            return y

        f = C(step)
        return [(f(x), dict(model.named_parameters())) for x in xs(CALLS, 3, 2)]

    alike(run)


def test_random_draws_inside_a_segment_are_refused_also_where_it_fails() -> None:
    drop, x = tr.nn.Dropout(0.5), tr.ones(4, requires_grad=True)

    def failing() -> tr.Tensor:
        drop(x)
        raise KeyError("in the segment")

    for segment in (lambda: drop(x), failing, lambda: tr.manual_seed(1)):
        tr.manual_seed(0)
        before = repr(random.generator().bit_generator.state)
        with pytest.raises(CompileError, match="random draws inside a checkpoint"):
            tr.compile(lambda segment=segment: tr.checkpoint(segment))()
        assert repr(random.generator().bit_generator.state) == before


# --- clipping ---------------------------------------------------------------------------------------------------------

CLIPS: dict[str, Callable[[Any], Any]] = {
    "norm": lambda p: tr.optim.clip_grad_norm_(p, 0.5),
    "norm of one": lambda p: tr.optim.clip_grad_norm_(p[0], 0.5),
    "value": lambda p: tr.optim.clip_grad_value_(p, 0.5),
    "by hand": lambda p: [setattr(q, "grad", tr.clip(q.grad, -0.5, 0.5)) for q in p] and None,
}


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 1)])
@pytest.mark.parametrize("name", CLIPS)
def test_gradients_of_any_shape_are_clipped(name: str, shape: tuple[int, ...], dtype: str, read: bool) -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter(np.full(shape, 2.0), dtype)
        o = tr.optim.SGD([w], lr=0.1)

        def step(x: Any) -> Any:
            o.zero_grad()
            (w * x).sum().backward()
            norm = CLIPS[name]([w])
            g = w.grad * 1 if read else None
            o.step()
            return g, norm

        f = C(step)
        given = [tr.Tensor(np.full(shape, x), dtype) for x in (3.0, 7.0, 0.1, 0.3, 0.2, 9.0, 0.0)]
        return [(f(x), w.numpy(), w.grad) for x in given]

    alike(run)
