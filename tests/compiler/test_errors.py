"""What fails: at a call, inside of `except`, while recording; and what is left of it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tests.compiler.fuzz.judge import Painter, difference
from tinygrad_rnn.compiler.tape import Tape
from tinygrad_rnn.errors import CompileError, NonFiniteError

CALLS = 7
TICKS = itertools.count()  # is another number each time, which no guard sees


def xs(*values: float) -> list[tr.Tensor]:
    return [tr.Tensor([v, 1.0]) for v in values]


# --- exceptions in plain code are exceptions here ---------------------------------------------------------------------


def skips(w: Any, o: Any, loss: Any) -> Any:
    try:
        tr.optim.clip_grad_norm_([w], 1.0)
    except NonFiniteError:
        return "skipped"
    o.step()
    return loss


def forgets(w: Any, o: Any, loss: Any) -> Any:
    try:
        tr.optim.clip_grad_norm_([w], 1.0)
        o.step()
    except NonFiniteError as error:
        o.zero_grad()
        return type(error).__name__
    finally:
        w.assign_(w * 0.5)
    return loss


def raises(w: Any, o: Any, loss: Any) -> Any:
    tr.optim.clip_grad_norm_([w], 1.0)
    o.step()
    return loss


def raises_after(w: Any, o: Any, loss: Any) -> Any:
    o.step()
    tr.optim.clip_grad_norm_([w], 1.0)
    return loss


def wraps(w: Any, o: Any, loss: Any) -> Any:
    try:
        tr.optim.clip_grad_norm_([w], 1.0)
    except NonFiniteError as error:
        raise ValueError("a bad batch") from error
    o.step()
    return loss


def draws_first(w: Any, o: Any, loss: Any) -> Any:
    noise = tr.rand(2)
    w.assign_(w + noise)
    tr.optim.clip_grad_norm_([w], 1.0)
    o.step()
    return noise


@pytest.mark.parametrize("at", [(0,), (1,), (2,), (4,), (3, 4, 5), (0, 1)])
@pytest.mark.parametrize("after", [skips, forgets, raises, raises_after, wraps, draws_first], ids=lambda f: f.__name__)
def test_an_error_is_that_of_the_plain_step(after: Callable[..., Any], at: tuple[int, ...]) -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter(np.float32([1, 2]))
        o = tr.optim.Adam([w], lr=0.1)

        def step(x: Any) -> Any:
            o.zero_grad()
            loss = (w * x).sum()
            loss.backward()
            return after(w, o, loss)

        f, out = C(step), []
        for k in range(CALLS):
            x = tr.Tensor([np.nan if k in at else float(k), 1.0])
            try:
                found = f(x)
            except (NonFiniteError, ValueError) as error:
                found = type(error).__name__, str(error)
            out.append((found, w.tolist(), w.grad, o.state_dict()["state"]))
        return out, tr.rand(1)

    alike(run)


def test_errors_of_values_are_those_of_the_plain_step() -> None:
    embedding = tr.nn.Embedding(3, 2, generator=np.random.default_rng(0))
    steps: list[Callable[[Any], Any]] = [
        lambda i: embedding(i).detach(),
        lambda i: tr.nn.functional.cross_entropy(tr.zeros(2, 3), i),
        lambda i: tr.take(tr.zeros(3), i, axis=0),
    ]

    def run(C: Any) -> Any:
        out = []
        for step in steps:
            f = C(step)
            for ids in ([0, 1], [2, 2], [1, 0], [0, 99], [1, 1], [-7, 0], [0, 1]):
                try:
                    out.append(f(np.array(ids)))
                except (ValueError, IndexError) as error:
                    out.append((type(error).__name__, str(error)))
        return out

    alike(run)


# --- what is refused has changed nothing ------------------------------------------------------------------------------


def number(w: Any, ran: list[int]) -> Any:
    return float((w * 2).sum())


def branch(w: Any, ran: list[int]) -> Any:
    return w if (w * 2).sum() > 0 else -w


def graph(w: Any, ran: list[int]) -> Any:
    return w * 2


def other(w: Any, ran: list[int]) -> Any:
    return (w * float(next(TICKS))).detach()


def moved(w: Any, ran: list[int]) -> Any:
    w.requires_grad = False
    return None


def dropped(w: Any, ran: list[int]) -> Any:
    m = tr.nn.Dropout(0.5)
    return float(m(w.detach()).sum())


@pytest.mark.parametrize("refused", [number, branch, graph, other, moved, dropped], ids=lambda f: f.__name__)
def test_a_call_that_is_refused_has_changed_nothing(refused: Callable[..., Any]) -> None:
    w, buffer, dropout = tr.nn.Parameter([1.0, 2.0]), tr.zeros(2), tr.nn.Dropout(0.5)
    o = tr.optim.Adam([w], lr=0.5)
    s = tr.optim.StepLR(o, 1)
    ran: list[int] = []

    def portrait() -> Any:
        return Painter().of([w, buffer, o.state_dict(), s.state_dict(), vars(dropout), tr.tensor.random.generator()])

    @tr.compile
    def step(x: Any) -> Any:
        ran.append(1)
        o.zero_grad()
        (w * dropout(x)).sum().backward()
        o.step()
        s.step()
        buffer.assign_(buffer + 1)
        dropout.eval()
        x.assign_(x * 2)
        w.grad = w.grad * 2
        return refused(w, ran)

    seen = 0
    for _ in range(5):
        x = tr.ones(2)
        before, given = portrait(), x.tolist()
        try:
            step(x)
        except CompileError:
            seen += 1
            assert not difference(before, portrait())
            assert x.tolist() == given
    assert seen or refused is moved


def adds_a_hook(w: Any, remove: Any) -> None:
    w.register_hook(lambda g: g * 2)


def removes_its_hook(w: Any, remove: Any) -> None:
    remove()


def freezes(w: Any, remove: Any) -> None:
    w.requires_grad = False


def makes_it_another_leaf(w: Any, remove: Any) -> None:
    w.requires_grad = False
    w.requires_grad = True


class Hidden:
    """Holds a tensor where no search finds it."""

    def __init__(self, w: Any) -> None:
        self.find = iter([w, w]).__next__


@pytest.mark.parametrize(
    ("changes", "hidden"),
    [*((f, False) for f in (adds_a_hook, removes_its_hook, freezes, makes_it_another_leaf)), (adds_a_hook, True)],
)
def test_hooks_and_leaves_are_those_of_before_a_refused_call(changes: Callable[..., Any], hidden: bool) -> None:
    w = tr.nn.Parameter([1.0, 2.0])
    remove = w.register_hook(lambda g: g * 3)
    home = Hidden(w)

    @tr.compile
    def step(x: Any) -> float:
        t = home.find() if hidden else w
        changes(t, remove)
        return float((t * x).sum())

    node, hooks = w._node, list(w._node.watch.hooks)
    with pytest.raises(CompileError):
        step(tr.ones(2))
    assert w._node is node and node.watch.hooks == hooks


def test_a_step_that_does_something_else_is_told_before_it_runs_again() -> None:
    w = tr.nn.Parameter([1.0])
    o = tr.optim.SGD([w], lr=0.5)

    @tr.compile
    def step(x: Any) -> Any:
        o.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        o.step()
        return loss.detach() * float(next(TICKS))

    for _ in range(2):
        before = w.item()
        try:
            step(tr.ones(1))
            assert w.item() == before - 0.5
        except CompileError:
            assert w.item() == before
    before = w.item()
    with pytest.raises(CompileError, match="at the second call"):
        step(tr.ones(1))
    assert w.item() == before


def sets_flat(x: Any) -> Any:
    y = x * 1
    y.flat = 3.0
    return y


def sets_one_of_flat(x: Any) -> Any:
    y = x * 1
    y.flat[0] = 3.0
    return y


def sets_real(x: Any) -> Any:
    y = x * 1
    y.real = 3.0
    return y


def sets_shape(x: Any) -> Any:
    y = x * 1
    y.shape = (-1,)
    return y


@pytest.mark.parametrize("forward", [sets_flat, sets_one_of_flat, sets_real, sets_shape], ids=lambda f: f.__name__)
def test_numpy_that_cannot_be_recorded_is_right_or_refused_with_its_line(forward: Any) -> None:
    f = tr.compile(lambda x: forward(x))
    with pytest.raises(CompileError, match=r"test_errors\.py, line \d+"):
        f(np.ones((2, 2)))


# --- what is frozen or moved between the first two calls --------------------------------------------------------------


@pytest.mark.parametrize("how", ["unfreeze", "freeze", "float64", "hook", "replaced", "eval", "other shape"])
def test_the_second_call_may_find_something_else(how: str) -> None:
    def run(C: Any) -> Any:
        m = tr.nn.Sequential(tr.nn.Linear(2, 1, generator=np.random.default_rng(0)), tr.nn.Dropout(0.5))
        m[0].weight.requires_grad = how != "unfreeze"
        changes: dict[str, Callable[[], Any]] = {
            "unfreeze": lambda: setattr(m[0].weight, "requires_grad", True),
            "freeze": lambda: setattr(m[0].weight, "requires_grad", False),
            "float64": lambda: m.to("float64"),
            "hook": lambda: m[0].weight.register_hook(lambda g: g * 2),
            "replaced": lambda: setattr(m[0], "weight", tr.nn.Parameter([[3.0, 4.0]])),
            "eval": lambda: m.eval(),
            "other shape": lambda: setattr(m, "0", tr.nn.Linear(2, 4, generator=np.random.default_rng(1))),
        }

        def step(x: Any) -> Any:
            m.zero_grad()
            loss = tr.square(m(x.to(m[0].weight.dtype))).sum()
            loss.backward()
            return loss

        f, out = C(step), []
        for k in range(CALLS):
            if k == 1:
                changes[how]()
            out.append((f(tr.ones(1, 2)), m[0].weight.grad))
        return out

    alike(run)


# --- nothing leaks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def tapes() -> int:
    return sum(isinstance(x, Tape) for x in gc.get_objects())


def test_recordings_that_give_way_are_gone_without_the_collector(no_collector: Any) -> None:
    w = tr.nn.Parameter(np.zeros((5, 5), "f"))
    f = tr.compile(lambda x, k: (w * x * k).sum().detach())
    before = tapes()
    for k in range(40):
        for _ in range(1 + k % 3):
            f(tr.ones(5, 5), float(k))
    assert tapes() - before <= 8


@pytest.mark.parametrize("refused", [number, branch, graph, other, dropped], ids=lambda f: f.__name__)
def test_recordings_that_fail_are_gone_without_the_collector(refused: Any, no_collector: Any) -> None:
    w, ran = tr.nn.Parameter(np.zeros((5, 5), "f")), []  # type: ignore[var-annotated]
    f = tr.compile(lambda x: (ran.append(1), refused(w * x if refused is not graph else w, ran))[1])
    before = tapes()
    for _ in range(10):
        with contextlib.suppress(CompileError):
            f(tr.ones(5, 5))
    assert tapes() - before <= 1


def test_exceptions_of_the_step_leave_no_recording(no_collector: Any) -> None:
    w = tr.nn.Parameter(np.ones(3, "f"))

    def step(x: Any) -> Any:
        y = (w * x).sum()
        raise ValueError(y.shape)

    f, before = tr.compile(step), tapes()
    for _ in range(5):
        with pytest.raises(ValueError):
            f(tr.ones(3))
    assert tapes() - before <= 1


def test_arguments_and_results_are_let_go(no_collector: Any) -> None:
    class Array(np.ndarray):
        """An array that can be referred to weakly."""

    f = tr.compile(lambda x, xs: (x * 2, xs[0] + 1))
    references = []
    for _ in range(5):
        x, y = tr.ones(3), tr.ones(3)
        x._array, y._array = x._array.view(np.ndarray), y._array.copy()
        found = f(x, [y])
        references += [weakref.ref(v._array) for v in (x, y, *found)]
    del x, y, found
    assert sum(r() is not None for r in references) <= 4
