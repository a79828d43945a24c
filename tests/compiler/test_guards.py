"""What a step finds around it, wherever it hangs: changes between calls are seen, whatever they are."""

from __future__ import annotations

import argparse
import array
import collections
import contextvars
import ctypes
import dataclasses
import functools
import gc
import itertools
import os
import random
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tests.compiler.steps import counted
from tinygrad_rnn.errors import CompileError

CALLS = 6


made: list[Any] = []


def linear(seed: int = 0) -> Any:
    made.append(tr.nn.Linear(3, 2, generator=np.random.default_rng(seed)))
    return made[-1]


# --- wherever it hangs ------------------------------------------------------------------------------------------------


class Slots:
    __slots__ = ("m",)


@dataclasses.dataclass(slots=True)
class Data:
    m: Any


class Held:
    m: Any = None


class Inherits(Held):
    pass


class Uses:
    def run(self, x: Any) -> Any:
        return net(x)

    @staticmethod
    def static(x: Any) -> Any:
        return net(x)

    @classmethod
    def of_class(cls, x: Any) -> Any:
        return net(x)


class Inner(tr.nn.Module):
    def forward(self, x: Any) -> Any:
        return net(x)


class Property:
    m = property(lambda self: store[0])


class Cached:
    @functools.cached_property
    def m(self) -> Any:
        return store[0]


class Getattr:
    def __getattr__(self, name: str) -> Any:
        return store[0]


class Descriptor:
    def __get__(self, instance: Any, owner: Any) -> Any:
        return store[0]


class Described:
    m = Descriptor()


class Called:
    def __call__(self, x: Any) -> Any:
        return store[0](x)


class Item:
    def __getitem__(self, key: str) -> Any:
        return store[0]


class Meta(type):
    m: Any = None


class OfMeta(metaclass=Meta):
    pass


def generated() -> Any:
    yield store[0]


net: Any = None
store: list[Any] = []


def places() -> dict[str, tuple[Callable[[Any], Any], Callable[[Any], None]]]:
    """How a step gets at a module, and how another is put there."""
    global net
    net = linear()
    store[:] = [linear()]
    slots, data, held, inherits = Slots(), Data(linear()), Held(), Inherits()
    slots.m = Held.m = linear()
    package: Any = types.ModuleType("package")
    package.sub = types.ModuleType("package.sub")
    package.sub.net = linear()
    deque, mapping = collections.deque([linear()]), {"m": linear()}
    proxy, chain = types.MappingProxyType(mapping), collections.ChainMap({}, mapping)
    space, inner, objects = types.SimpleNamespace(m=linear()), Inner(), np.array([None])
    objects[0] = linear()
    cell: Any = linear()

    def put_cell(m: Any) -> None:
        nonlocal cell
        cell = m

    def put_net(m: Any) -> None:
        global net
        net = m

    def put_proxy(m: Any) -> None:
        mapping["m"] = m

    def put_array(m: Any) -> None:
        objects[0] = m

    put_store = functools.partial(store.__setitem__, 0)
    users, options, local = collections.UserList([linear()]), argparse.Namespace(m=linear()), threading.local()
    local.m = linear()
    context: contextvars.ContextVar[Any] = contextvars.ContextVar("context")
    context.set(linear())
    Meta.m = linear()

    def with_attribute(x: Any) -> Any:
        return with_attribute.m(x)  # type: ignore[attr-defined]

    with_attribute.m = linear()  # type: ignore[attr-defined]

    @functools.lru_cache
    def remembered() -> Any:
        return store[0]

    def put_remembered(m: Any) -> None:
        put_store(m)
        remembered.cache_clear()

    cached, described, called, item, getattr_ = Cached(), Described(), Called(), Item(), Getattr()
    return {
        "closure": (lambda x: cell(x), put_cell),
        "global": (lambda x: net(x), put_net),
        "slots": (lambda x: slots.m(x), functools.partial(setattr, slots, "m")),
        "dataclass with slots": (lambda x: data.m(x), functools.partial(setattr, data, "m")),
        "class attribute": (lambda x: Held.m(x), functools.partial(setattr, Held, "m")),
        "inherited attribute": (lambda x: held.m(x), functools.partial(setattr, Held, "m")),
        "attribute of a base": (lambda x: inherits.m(x), functools.partial(setattr, Held, "m")),
        "global of a method": (lambda x: Uses().run(x), put_net),
        "global of a static method": (lambda x: Uses.static(x), put_net),
        "global of a class method": (lambda x: Uses.of_class(x), put_net),
        "global of a forward": (lambda x: inner(x), put_net),
        "module of a package": (lambda x: package.sub.net(x), functools.partial(setattr, package.sub, "net")),
        "property": (lambda x: Property().m(x), put_store),
        "cached property": (lambda x: cached.m(x), functools.partial(setattr, cached, "m")),
        "__getattr__": (lambda x: getattr_.anything(x), put_store),
        "descriptor": (lambda x: described.m(x), put_store),
        "__call__": (lambda x: called(x), put_store),
        "__getitem__": (lambda x: item["m"](x), put_store),
        "generator": (lambda x: next(generated())(x), put_store),
        "deque": (lambda x: deque[0](x), functools.partial(deque.__setitem__, 0)),
        "weak reference": (lambda x: weak()(x), put_store),
        "mapping proxy": (lambda x: proxy["m"](x), put_proxy),
        "chain of mappings": (lambda x: chain["m"](x), put_proxy),
        "namespace": (lambda x: space.m(x), functools.partial(setattr, space, "m")),
        "array of objects": (lambda x: objects[0](x), put_array),
        "getattr by name": (lambda x: getattr(space, "".join(["m"]))(x), functools.partial(setattr, space, "m")),
        "vars": (lambda x: vars(space)["m"](x), functools.partial(setattr, space, "m")),
        "globals()": (lambda x: globals()["net"](x), put_net),
        "a list of functions": (lambda x: [lambda v: store[0](v)][0](x), put_store),
        "partial": (functools.partial(lambda s, x: s[0](x), store), put_store),
        "default": (lambda x, s=store: s[0](x), put_store),  # type: ignore[misc]
        "keyword default": (lambda x, *, s=store: s[0](x), put_store),  # type: ignore[misc]
        "wrapped": (functools.wraps(linear)(lambda x: store[0](x)), put_store),
        "local import": (imports, put_net),
        "a list of collections": (lambda x: users[0](x), functools.partial(users.__setitem__, 0)),
        "options": (lambda x: options.m(x), functools.partial(setattr, options, "m")),
        "a thread's own": (lambda x: local.m(x), functools.partial(setattr, local, "m")),
        "context": (lambda x: context.get()(x), context.set),
        "attribute of a function": (with_attribute, functools.partial(setattr, with_attribute, "m")),
        "attribute of a class of classes": (lambda x: OfMeta.m(x), functools.partial(setattr, Meta, "m")),  # type: ignore[attr-defined]
        "remembered": (lambda x: remembered()(x), put_remembered),
    }


def weak() -> Any:
    return weakref.ref(store[0])()


def imports(x: Any) -> Any:
    import sys

    return sys.modules[__name__].net(x)


@pytest.mark.parametrize("name", places())
def test_a_parameter_is_used_as_it_is_wherever_it_hangs(name: str) -> None:
    def run(C: Any) -> Any:
        made.clear()
        f, _ = places()[name]
        step = C(lambda x: f(x).detach())
        x, out = tr.ones(1, 3), []
        for k in range(8):
            if k % 3 == 2:
                for m in made:
                    m.weight.assign_(m.weight.numpy() + 1)
            out.append(step(x))
        return out

    alike(run)


@pytest.mark.parametrize("name", places())
def test_what_is_replaced_is_seen_wherever_it_hangs(name: str) -> None:
    def run(C: Any) -> Any:
        f, put = places()[name]
        step = C(lambda x: f(x).detach())
        x, out = tr.ones(1, 3), []
        for k in range(9):
            if k in (1, 4, 5):
                put(linear(k))
            out.append(step(x))
        return out

    alike(run)


# --- numbers that no name leads to ------------------------------------------------------------------------------------


class Scaled(tr.nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2

    def __mul__(self, x: Any) -> Any:
        return x * 3


class Inherited(Scaled):
    pass


def doubled(x: Any) -> Any:
    return x * 2


def other(*xs: Any) -> Any:
    return xs[-1] * 7


def numbers() -> dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]]:
    """Steps of x, and what changes beside them, of which the step names nothing, or not the place."""
    raw, ours, c, of_c = bytearray(b"abc"), array.array("d", [2.0]), (ctypes.c_double * 2)(1, 2), ctypes.c_double(2)
    under, held, m = bytearray(b"abc"), Held(), Inherited()
    seen, held.a, name = memoryview(under), 2.0, ["a"]  # type: ignore[attr-defined]
    os.environ["TR_TEST"] = "2"
    for kind in (Scaled, Inherited):
        kind.forward = lambda self, x: x * 2  # type: ignore[method-assign]
    Scaled.__mul__ = lambda self, x: x * 3  # type: ignore[method-assign]
    doubled.__code__ = (lambda x: x * 2).__code__
    return {
        "bytearray": (lambda x: x * raw[0], lambda: raw.__setitem__(0, 5)),
        "bytearray, longer": (lambda x: x * len(raw), lambda: raw.append(5)),
        "array": (lambda x: x * ours[0], lambda: ours.__setitem__(0, 5)),
        "memoryview": (lambda x: x * seen[0], lambda: under.__setitem__(0, 5)),
        "array of C": (lambda x: x * c[0], lambda: c.__setitem__(0, 5)),
        "number of C": (lambda x: x * of_c.value, lambda: setattr(of_c, "value", 5)),
        "environment": (lambda x: x * float(os.environ["TR_TEST"]), lambda: os.environ.update(TR_TEST="5")),
        "getenv": (lambda x: x * float(os.getenv("TR_TEST", "")), lambda: os.environ.update(TR_TEST="5")),
        "vars": (lambda x: x * sum(vars(held).values()), lambda: setattr(held, "a", 5.0)),
        "vars, one more": (lambda x: x * len(held.__dict__), lambda: setattr(held, "b", 5.0)),
        "getattr": (lambda x: x * getattr(held, name[0]), lambda: setattr(held, "a", 5.0)),
        "forward of a class": (lambda x: m(x), lambda: setattr(Inherited, "forward", other)),
        "forward of a base": (lambda x: Scaled()(x), lambda: setattr(Scaled, "forward", other)),
        "operator of a class": (lambda x: m * x, lambda: setattr(Scaled, "__mul__", other)),
        "code": (lambda x: doubled(x), lambda: setattr(doubled, "__code__", other.__code__)),
    }


@pytest.mark.parametrize("argument", [False, True])
@pytest.mark.parametrize("name", numbers())
def test_numbers_that_no_name_leads_to_are_watched(name: str, argument: bool) -> None:
    def run(C: Any) -> Any:
        f, change = numbers()[name]
        step = C((lambda x, f: f(x)) if argument else (lambda x: f(x)))
        x, out = tr.Tensor([1.0, 2.0]), []
        for k in range(7):
            if k == 4:
                change()
            out.append(step(x, f) if argument else step(x))
        return out

    alike(run)


def test_a_buffer_that_is_watched_may_grow_and_be_written_to_by_the_step() -> None:
    def run(C: Any) -> Any:
        raw = bytearray(b"a")

        def count(x: Any) -> Any:
            raw[0] += 1
            return x * raw[0]

        step, out = C(count), []
        for _ in range(6):
            out.append(step(tr.ones(2)))
            raw.append(1)
        return out, bytes(raw)

    alike(run)


@pytest.mark.parametrize(
    "make", [lambda: itertools.cycle([1, 1, 2]), lambda: iter([1, 1, 2]), lambda: (1 for _ in "ab")]
)
def test_iterators_that_a_step_would_use_up_are_refused(make: Any) -> None:
    it = make()
    with pytest.raises(CompileError, match=r"take the next of 'it', a .*: pass what it gives as an argument"):
        tr.compile(lambda x: x * next(it))(tr.ones(2))


@pytest.mark.parametrize("make", [lambda: random.Random(0), lambda: np.random.RandomState(0)])
def test_draws_that_are_equal_at_first_are_refused(make: Any) -> None:
    draws = make()
    with pytest.raises(CompileError, match="draws random numbers by itself"):
        tr.compile(lambda x: x * (0 * draws.randint(0, 9) + 1))(tr.ones(2))


def test_attributes_that_an_object_makes_up_are_not_asked_for() -> None:
    class Strict:
        def __getattr__(self, name: str) -> Any:
            return {"a": 2.0}[name]

    strict = Strict()
    step = tr.compile(lambda x: x * strict.a)
    for _ in range(4):
        assert step(tr.ones(2)).tolist() == [2, 2]


# --- whatever changes -------------------------------------------------------------------------------------------------


def two() -> Any:
    g = np.random.default_rng(0)
    return tr.nn.Sequential(tr.nn.Linear(2, 2, generator=g), tr.nn.Linear(2, 2, generator=g))


def fresh(value: float = 0.0) -> Any:
    return tr.nn.Parameter(np.full((2, 2), value, "f"))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "parameter": lambda m: setattr(m[0], "weight", fresh()),
    "parameter, deleted": lambda m: setattr(m[0], "bias", None),
    "parameter, of another dtype": lambda m: setattr(m[0], "weight", tr.nn.Parameter(np.ones((2, 2)))),
    "parameter, tied": lambda m: setattr(m[0], "weight", m[1].weight),
    "submodule": lambda m: setattr(m, "0", tr.nn.Linear(2, 2, generator=np.random.default_rng(5))),
    "submodule, to a function": lambda m: setattr(m, "0", tr.nn.Tanh()),
    "append": lambda m: m.append(tr.nn.Linear(2, 2, generator=np.random.default_rng(5))),
    "remove": lambda m: delattr(m, "1"),
    "swap": lambda m: [setattr(m, str(k), layer) for k, layer in enumerate(reversed(list(m)))],
    "forward": lambda m: setattr(m[0], "forward", lambda x: x * 2),
    "class": lambda m: setattr(m[0], "__class__", Doubled),
    "frozen": lambda m: setattr(m[0].weight, "requires_grad", False),
    "all frozen but one": lambda m: [setattr(p, "requires_grad", False) for p in list(m.parameters())[1:]],
    "to float64": lambda m: m.to("float64"),
    "loaded": lambda m: m.load_state_dict({k: v.numpy() * 2 for k, v in m.state_dict().items()}),
    "assigned": lambda m: m[0].weight.assign_(np.ones((2, 2))),
    "gradient": lambda m: setattr(m[0].weight, "grad", np.ones((2, 2))),
    "zero_grad": lambda m: m.zero_grad(),
    "hook": lambda m: m[0].weight.register_hook(lambda g: g * 2),
    "evaluation": lambda m: m.eval(),
}


class Doubled(tr.nn.Linear):
    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_model_between_two_calls_is_seen(name: str, at: int) -> None:
    def run(C: Any) -> Any:
        model = two()

        def step(x: Any) -> Any:
            loss = tr.square(model(x)).sum()
            loss.backward()
            return loss

        f, out = C(step), []
        for k in range(at + 4):
            if k == at:
                CHANGES[name](model)
            dtype = "float64" if k >= at and name == "to float64" else "float32"
            out.append((f(tr.ones(3, 2, dtype=dtype)), {n: p.grad for n, p in model.named_parameters()}))
        return out

    alike(run)


@pytest.mark.parametrize("add", [True, False])
def test_hooks_that_come_and_go_are_seen(add: bool) -> None:
    def run(C: Any) -> Any:
        w = tr.nn.Parameter(np.float32([1, 2]))
        remove = None if add else w.register_hook(lambda g: g * 2)

        def step(x: Any) -> None:
            w.grad = None
            (w * x).sum().backward()

        f, out = C(step), []
        for k in range(9):
            if k == 4:
                remove = w.register_hook(lambda g: g * 2) if remove is None else remove()
            if k == 6 and remove is not None:
                remove()
            f(tr.ones(2))
            out.append(w.grad)
        return out

    alike(run)


OPTIONS: dict[str, tuple[Callable[[], Any], tuple[int, ...], Callable[[Any], None]]] = {
    "dropout": (lambda: tr.nn.Dropout(0.9), (3, 2), lambda m: setattr(m, "p", 0.25)),
    "momentum of BatchNorm": (lambda: tr.nn.BatchNorm1d(2), (3, 2), lambda m: setattr(m, "momentum", 1.0)),
    "eps of BatchNorm": (lambda: tr.nn.BatchNorm1d(2), (3, 2), lambda m: setattr(m, "eps", 1.0)),
    "statistics of BatchNorm": (
        lambda: tr.nn.BatchNorm1d(2).eval(),
        (3, 2),
        lambda m: m.running_mean.assign_([5.0, 6.0]),
    ),
    "eps of LayerNorm": (lambda: tr.nn.LayerNorm(2), (3, 2), lambda m: setattr(m, "eps", 1.0)),
    "slope": (lambda: tr.nn.LeakyReLU(), (3, 2), lambda m: setattr(m, "negative_slope", 2.0)),
    "alpha": (lambda: tr.nn.ELU(), (3, 2), lambda m: setattr(m, "alpha", 2.0)),
    "axis": (lambda: tr.nn.Softmax(), (3, 2), lambda m: setattr(m, "axis", 0)),
    "fused": (lambda: tr.nn.LSTM(2, 2), (3, 1, 2), lambda m: setattr(m, "fused", False)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_a_change_of_an_option_is_seen(name: str) -> None:
    make, shape, change = OPTIONS[name]

    def run(C: Any) -> Any:
        module, out = make(), []

        def step(x: Any) -> Any:
            y = module(x)
            return (y[0] if isinstance(y, tuple) else y).detach()

        f = C(step)
        for k in range(8):
            if k == 4:
                change(module)
            x = tr.Tensor(np.random.default_rng(k).standard_normal(shape), "float32")
            out.append((f(x), dict(module.named_buffers())))
        return out

    alike(run)


def test_what_is_not_changed_is_not_recorded_anew() -> None:
    model = two()
    optimizer = tr.optim.Adam(model.parameters())

    def train(x: Any) -> Any:
        loss = tr.square(model(x)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step, ran = counted(train)
    for k in range(CALLS):
        step(tr.ones(1, 2))
        model.train()  # as it was
        optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
        model[0].weight.assign_(np.full((2, 2), float(k)))
    assert len(ran) == 2


# --- values beside the step -------------------------------------------------------------------------------------------

number: Any = 0.0


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    "values", [[0.0, -0.0, 0], [1, True, 1.0], [np.float32(2), np.float64(2), 2], ["a", "b"]], ids=repr
)
@pytest.mark.parametrize("where", ["global", "closure", "attribute", "list", "argument of a function"])
def test_numbers_beside_a_step_may_change(where: str, values: list[Any]) -> None:
    def run(C: Any) -> Any:
        global number
        cell: Any = None
        space, items = types.SimpleNamespace(v=None), [None]

        def step(x: Any) -> Any:
            v = {"global": number, "closure": cell, "attribute": space.v, "list": items[0]}.get(where, space.v)
            return (x * len(v), v) if isinstance(v, str) else (tr.ones(1) / (x * v), x * v, type(v).__name__)

        f, out = C(step), []
        for k in range(12):
            number = cell = space.v = items[0] = values[k // 3 % len(values)]
            out.append(f(tr.ones(1)))
        return out

    alike(run)


class Turns(tr.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0


TURNING: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "attribute": (lambda: types.SimpleNamespace(n=0), lambda x: setattr(x, "n", (x.n + 1) % 3) or x.n),
    "module": (Turns, lambda x: setattr(x, "n", (x.n + 1) % 3) or x.n),
    "list": (lambda: [0, "a"], lambda x: x.__setitem__(0, (x[0] + 1) % 3) or x[0]),
    "queue": (lambda: [0, 1, 2] * 4, lambda x: x.pop()),
    "two that change places": (lambda: [0, None], lambda x: x.reverse() or (x[0] is None)),
    "dictionary": (lambda: {"n": 0}, lambda x: x.update(n=(x["n"] + 1) % 3) or x["n"]),
    "set": (lambda: {0}, lambda x: (x.discard(0), 1)[1] if 0 in x else (x.add(0), 2)[1]),
    "array": (lambda: np.zeros(2), lambda x: np.copyto(x, (x + 1) % 3) or float(x[0])),
}


@pytest.mark.filterwarnings("ignore:tr.compile has recorded:RuntimeWarning")
@pytest.mark.parametrize("name", TURNING)
def test_a_step_that_turns_what_it_looks_at_does_so_at_each_call(name: str) -> None:
    """Once it has come round to where it was, too: a replay would leave it there."""
    make, turn = TURNING[name]

    def run(C: Any) -> Any:
        held = make()

        def step(x: Any) -> Any:
            return x * (2.0 + turn(held))

        f = C(step)
        return [f(tr.ones(2)) for _ in range(12)]

    alike(run)


def test_a_step_that_turns_what_it_looks_at_says_so() -> None:
    turn = [0]

    def step(x: Any) -> Any:
        turn[0] = 1 - turn[0]
        return x * 2

    f = tr.compile(step)
    with pytest.warns(RuntimeWarning, match="what a list holds was another thing"):
        for _ in range(20):
            f(tr.ones(2))


def test_a_list_that_grows_is_no_reason_to_record_anew() -> None:
    seen: list[Any] = []

    def body(x: Any) -> Any:
        seen.append(x)
        return x * 2

    step, ran = counted(body)
    for _ in range(CALLS):
        step(tr.ones(2))
    assert len(ran) == 2


def test_arrays_beside_a_step_are_read_as_they_are() -> None:
    def run(C: Any) -> Any:
        a, b = np.ones(2), np.ones((2, 2), "f")
        wide = np.ones(4)[::2]

        def step(x: Any) -> Any:
            return x + tr.Tensor(a), x * b, tr.tanh(x) @ b.T, x * wide, a.sum() * x

        f, out = C(step), []
        for k in range(CALLS):
            a[0], wide[1] = k, k
            b *= 1.5
            out.append(f(tr.ones(2)))
        a = np.zeros(2)
        return out, f(tr.ones(2))

    alike(run)


def test_functions_beside_a_step_may_be_replaced() -> None:
    def run(C: Any) -> Any:
        f: Any = tr.tanh
        table = {"f": tr.tanh}
        step, out = C(lambda x: (f(x), table["f"](x))), []
        for k in range(CALLS):
            if k == 3:
                f = table["f"] = tr.exp
            out.append(step(tr.ones(2)))
        return out

    alike(run)


# --- what is let go ---------------------------------------------------------------------------------------------------


def test_modules_that_are_dropped_are_let_go() -> None:
    f, x, references = tr.compile(lambda m, x: m(x).detach()), tr.ones(1, 4), []
    for _ in range(30):
        m = tr.nn.Linear(4, 4)
        references.append(weakref.ref(m))
        f(m, x)
    del m
    gc.collect()
    assert sum(r() is not None for r in references) <= 9
    del f
    gc.collect()
    assert not any(r() is not None for r in references)


def test_a_function_that_is_dropped_lets_go_of_all() -> None:
    def both() -> Any:
        model = two()
        return weakref.ref(model), tr.compile(lambda x: model(x).detach())

    reference, f = both()
    for _ in range(4):
        f(tr.ones(1, 2))
    del f
    gc.collect()
    assert reference() is None


def test_a_tensor_may_be_frozen_of_which_the_gradient_alone_is_read() -> None:
    def run(C: Any) -> Any:
        w, v = tr.nn.Parameter([1.0]), tr.nn.Parameter([2.0])

        def step(x: Any) -> Any:
            (v * v).sum().backward()
            return w.grad

        f, out = C(step), []
        for k in range(8):
            if k == 1:
                w.grad = np.ones(1)
            if k == 4:
                w.requires_grad = False
            out.append(f(tr.ones(1)))
        return out

    alike(run)


def test_an_array_without_axes_beside_a_step_may_change() -> None:
    def run(C: Any) -> Any:
        a, out = np.array(1.0), []
        f = C(lambda x: x + a)
        for k in range(CALLS):
            out.append(f(tr.ones(2)))
            a[...] = k
        return out

    alike(run)
