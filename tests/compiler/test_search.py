"""The leaves and the modules that a function can get at."""

from __future__ import annotations

import functools
from typing import Any

import tinygrad_rnn as tr
from tinygrad_rnn.compiler.search import reachable

SOMEWHERE = tr.nn.Parameter([1.0])


class Holder:
    def __init__(self, x: Any) -> None:
        self.held = {"deep": [(x,)]}

    def method(self) -> Any:
        return self.held


def leaves_of(f: Any, *args: Any, **kwargs: Any) -> list[int]:
    """Their ids: tensors compare by value."""
    return [id(x) for x in reachable(f, args, kwargs)[0]]


def test_leaves_are_found_where_a_function_may_look() -> None:
    w = tr.nn.Parameter([2.0])
    default = lambda x=w, *, y=w: x + y
    inner = lambda: lambda: w
    wrapper = functools.wraps(lambda: w)(lambda: None)
    for f in (lambda: w, default, inner, wrapper, Holder(w).method, functools.partial(max, w)):
        assert leaves_of(f) == [id(w)]
    assert leaves_of(lambda: SOMEWHERE) == [id(SOMEWHERE)]
    assert leaves_of(max, Holder(w)) == [id(w)]


def test_arguments_are_leaves_only_if_they_require_a_gradient() -> None:
    w, x = tr.nn.Parameter([2.0]), tr.ones(1)
    assert leaves_of(max, [w, x], key=x) == [id(w)]
    assert leaves_of(lambda: w * x, x) == [id(w)]


def test_modules_are_found_with_their_parameters_in_order() -> None:
    layer = tr.nn.Sequential(tr.nn.Linear(2, 3), tr.nn.Linear(3, 1))
    _, modules = reachable(lambda x: layer(x), (), {})
    assert leaves_of(lambda x: layer(x)) == [id(p) for p in layer.parameters()]
    assert [type(m).__name__ for m in modules] == ["Sequential", "Linear", "Linear"]


def test_recordings_of_another_compiled_function_are_not_searched() -> None:
    w, v = tr.nn.Parameter([2.0]), tr.nn.Parameter([3.0])
    inner = tr.compile(lambda x: (w * x).detach())
    for _ in range(3):
        inner(v)
    assert leaves_of(lambda x: inner(x)) == [id(w)]


def test_methods_and_modules_compile() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = tr.nn.Linear(2, 1)
            self.step = tr.compile(self._step)

        def _step(self, x: Any) -> Any:
            return self.model(x).detach()

        @tr.compile
        def other(self, x: Any) -> Any:
            return self.model(x).detach() * 2

    trainer = Trainer()
    for k in range(4):
        trainer.model.bias.assign_([k])
        x = tr.Tensor([[k, 1.0]])
        expected = trainer.model(x).tolist()
        assert trainer.step(x).tolist() == expected
        assert trainer.other(x).tolist() == [[2 * expected[0][0]]]
    with tr.no_grad():
        module = tr.compile(trainer.model)
        for _ in range(3):
            assert module(x).tolist() == expected
