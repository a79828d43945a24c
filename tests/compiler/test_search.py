"""The guard: what a function can get at, and whether any of it is another thing now."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
import weakref
from typing import Any

import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.compiler.search import Guard

SOMEWHERE = tr.nn.Parameter([1.0])
SWITCH = 1


class Holder:
    def __init__(self, x: Any) -> None:
        self.held = {"deep": [(x,)]}

    def method(self) -> Any:
        return self.held


class Slots:
    __slots__ = ("held",)

    def __init__(self, x: Any) -> None:
        self.held = x


@dataclasses.dataclass(slots=True)
class Data:
    held: Any


def found(f: Any, *args: Any) -> set[int]:
    """The ids of the tensors that are found: tensors compare by value."""
    return set(Guard(f, (args, {})).tensors)


def test_tensors_are_found_where_a_function_may_look() -> None:
    w = tr.nn.Parameter([2.0])
    default = lambda x=w, *, y=w: x + y
    inner = lambda: lambda: w
    wrapper = functools.wraps(lambda: w)(lambda: None)
    for f in (lambda: w, default, inner, wrapper, Holder(w).method, functools.partial(max, w)):
        assert found(f) == {id(w)}
    assert found(lambda: SOMEWHERE) == {id(SOMEWHERE)}
    holders = [Slots(w), Data(w), types.SimpleNamespace(held=w)]
    for holder in holders:
        assert found(lambda holder=holder: holder.held) == {id(w)}
    for box in (collections.deque([w]), types.MappingProxyType({"w": w}), {1: [w]}):
        assert found(lambda box=box: box) == {id(w)}
    holder = Holder(w)
    weak = weakref.ref(holder)
    assert found(lambda: weak().held) == {id(w)}


def test_of_the_arguments_the_objects_are_searched() -> None:
    w, x = tr.nn.Parameter([2.0]), tr.ones(1)
    assert found(lambda h: h.held, Holder(w)) == {id(w)}
    assert found(max, [w, x]) == {id(w)}


def test_recordings_of_another_compiled_function_are_not_searched() -> None:
    w, v = tr.nn.Parameter([2.0]), tr.nn.Parameter([3.0])
    inner = tr.compile(lambda x: (w * x).detach())
    for _ in range(3):
        inner(v)
    assert found(lambda x: inner(x)) == {id(w)}


def changes() -> dict[str, tuple[Any, Any]]:
    """Functions, and what makes them another."""
    w = tr.nn.Parameter([2.0])
    layer, net, holder, slots = tr.nn.Dropout(0.5), tr.nn.Sequential(tr.nn.Linear(1, 1)), Holder(w), Slots(w)
    table, queue, cell = {"a": 1.0}, collections.deque([w]), 0.0

    class Far:
        far = 1

    class Near(Far):
        pass

    near = Near()

    def nonlocal_() -> None:
        nonlocal cell
        cell = -0.0

    return {
        "a variable of a closure": (lambda: cell, nonlocal_),
        "a global": (lambda: SWITCH, lambda: globals().update(SWITCH=SWITCH + 1)),
        "an attribute": (holder.method, lambda: setattr(holder, "held", {})),
        "a slot": (lambda: slots.held, lambda: setattr(slots, "held", tr.ones(1))),
        "a class": (lambda: Holder.method, lambda: setattr(Holder, "method", lambda self: self.held)),
        "an entry": (lambda: table["a"], lambda: table.update(a=2.0)),
        "another entry": (lambda: table, lambda: table.update(b=2.0)),
        "a queue": (lambda: queue[0], lambda: queue.rotate() or queue.append(w)),
        "an option": (lambda x: layer(x), lambda: setattr(layer, "p", 0.25)),
        "the mode": (lambda x: net(x), lambda: net.eval()),
        "a parameter": (lambda x: net(x), lambda: setattr(net[0], "bias", tr.nn.Parameter([0.0]))),
        "a part": (lambda x: net(x), lambda: net.append(tr.nn.Linear(1, 1))),
        "a part less": (lambda x: net(x), lambda: delattr(net, "0")),
        "a hook": (lambda x: w * x, lambda: w.register_hook(lambda g: None)),
        "an attribute that was not there": (lambda: hasattr(holder, "later"), lambda: setattr(holder, "later", 1)),
        "a class nearer by": (lambda: near.far, lambda: setattr(Near, "far", 2)),
        "a default": ((f := lambda x=1.0: x), lambda: setattr(f, "__defaults__", (2.0,))),
    }


@pytest.mark.parametrize("name", changes())
def test_what_is_changed_is_seen(name: str) -> None:
    f, change = changes()[name]
    guard = Guard(f, ((), {}))
    assert guard.fits()
    change()
    assert not guard.fits()
    assert guard.changed()


def test_what_is_equal_in_every_respect_is_no_change() -> None:
    size, net = float("2.5"), tr.nn.Dropout(0.5)
    guard = Guard(lambda x: net(x) * size, ((), {}))
    size = float("2.5")
    net.p = float("0.5")
    net.train()
    assert guard.fits()


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
