"""Arguments and results of a compiled function are those of a plain call."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import itertools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tinygrad_rnn.compiler.arrays import layout
from tinygrad_rnn.errors import CompileError

CALLS = 6


def rows(n: int, *shape: int, dtype: str = "float32") -> list[Any]:
    return [np.random.default_rng(k).standard_normal(shape).astype(dtype) for k in range(n)]


# --- numbers ----------------------------------------------------------------------------------------------------------

NUMBERS = [np.float64(0.1), np.float32(0.1), np.float16(0.1), np.int64(3), np.int8(3), np.bool_(True), np.array(0.5)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: f"{type(n).__name__} {n.dtype}")
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool"])
def test_a_number_of_numpy_is_as_weak_as_in_plain_code(number: Any, dtype: str) -> None:
    x = tr.Tensor(np.ones(2, dtype))
    alike(lambda C: [[f(x, number) for _ in range(CALLS)] for f in [C(lambda x, k: x * k)]])


def test_numbers_of_numpy_may_differ_from_call_to_call() -> None:
    x = tr.ones(2)
    for kind in (np.float64, np.float32, np.int32):
        alike(lambda C: [[f(x, kind(k // 3)) for k in range(9)] for f in [C(lambda x, k: x * k)]])  # noqa: B023


EQUAL = [
    [0.0, -0.0],
    [1, True, 1.0],
    [0, False, 0.0, -0.0],
    [2, 2.0, np.float32(2), np.int8(2)],
    [1 + 0j, 1.0 + -0j],
    ["1", 1, b"1"],
]


def told(x: tr.Tensor, number: Any) -> Any:
    """Something that every two of the numbers above give otherwise."""
    if isinstance(number, str | bytes | complex):
        return x, repr(number)
    return tr.Tensor([1.0]) / (x * number), x * number, type(number).__name__, x + 10 if isinstance(number, bool) else x


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("numbers", EQUAL, ids=repr)
@pytest.mark.parametrize(
    "form", [lambda k: k, lambda k: [k], lambda k: (1, (k,)), lambda k: {"k": k}, lambda k: slice(k)]
)
def test_equal_numbers_are_not_the_same_number(numbers: list[Any], form: Callable[[Any], Any]) -> None:
    def first(k: Any) -> Any:
        while isinstance(k, list | tuple | dict | slice):
            k = k.stop if isinstance(k, slice) else list(k.values() if isinstance(k, dict) else k)[-1]
        return k

    order = [k for k in [*numbers, *reversed(numbers)] for _ in range(3)]
    x = tr.ones(1)
    alike(lambda C: [[f(x, form(k)) for k in order] for f in [C(lambda x, k: told(x, first(k)))]])


@pytest.mark.parametrize("keys", [[1, True, 1.0], ["a", "b"], [0.0, -0.0], [(1,), (True,)]], ids=repr)
def test_equal_keys_of_dictionaries_are_not_the_same_key(keys: list[Any]) -> None:
    step = lambda d: (next(iter(d.values())) * 2, repr(list(d)))
    order = [k for k in [*keys, *reversed(keys)] for _ in range(3)]
    alike(lambda C: [[f({k: tr.ones(1)}) for k in order] for f in [C(step)]])


def test_the_order_of_a_dictionary_counts() -> None:
    step = lambda d: [v * (k + 1) for k, v in enumerate(d.values())]
    a, b = tr.ones(1), tr.ones(1) * 3
    orders = [{"a": a, "b": b}, {"b": b, "a": a}] * 4
    alike(lambda C: [[f(d) for d in orders] for f in [C(step)]])


def test_nan_is_one_recording() -> None:
    f, ran = tr.compile(lambda x, c: x * c), []
    g = tr.compile(lambda x, c: (ran.append(1), x * c)[1])
    for _ in range(5):
        assert np.isnan(f(tr.ones(1), float("nan")).item())
        g(tr.ones(1), float("nan"))
    assert len(ran) == 2


# --- which object it is -----------------------------------------------------------------------------------------------


def test_one_object_given_twice_is_one_object() -> None:
    x, y = tr.ones(2), tr.ones(2)
    step = lambda a, b, c: (a * 2, a is b, b is c)
    pairs = [(x, x, y), (x, y, x), (x, y, y), (x, x, x), (x, y, tr.ones(2))] * 3
    alike(lambda C: [[f(*p) for p in pairs] for f in [C(step)]])
    arrays = [np.ones(2), np.ones(2)]

    def add(a: Any, b: Any) -> Any:
        a += 1
        return b * 2

    def run(C: Any) -> Any:
        f, a, b = C(add), *[v.copy() for v in arrays]
        return [f(*p) for p in [(a, a), (a, b), (a, a), (b, b), (a, b)] * 3], a, b

    alike(run)


def test_attention_to_itself_takes_one_product() -> None:
    m = tr.nn.MultiheadAttention(16, 2, generator=np.random.default_rng(0))
    xs = [tr.Tensor(x) for x in rows(CALLS, 7, 3, 16)]
    alike(lambda C: [[f(x, x, x) for x in xs] for f in [C(lambda q, k, v: m(q, k, v)[0].detach())]])
    alike(
        lambda C: [[f(x, y, y) for x, y in itertools.pairwise(xs)] for f in [C(lambda q, k, v: m(q, k, v)[0].detach())]]
    )


@pytest.mark.parametrize("how", ["buffer", "parameter", "constant", "argument twice"])
def test_an_argument_may_be_in_the_closure_as_well(how: str) -> None:
    def run(C: Any) -> Any:
        norm = tr.nn.BatchNorm1d(1).eval()
        t = {"buffer": norm.running_mean, "parameter": norm.weight}.get(how, tr.ones(1))

        def step(x: Any, m: Any) -> Any:
            return norm(x).detach() + m.detach() + t.detach(), m is t

        f, out = C(step), []
        for k in range(CALLS):
            out.append(f(tr.Tensor([[1.0], [2.0]]), t if k < 4 else tr.ones(1)))
            if k >= 2:
                t.assign_([float(k)])
        return out

    alike(run)


def test_what_is_returned_of_the_arguments_is_the_argument() -> None:
    step = lambda x, xs, w: (x, xs[0], w, [x], x * 2)

    def run(C: Any) -> Any:
        f, out = C(step), []
        for _ in range(CALLS):
            x, xs, w = tr.ones(2), [tr.zeros(1)], tr.nn.Parameter([1.0])
            a, b, c, (d,), _ = f(x, xs, w)
            out.append((a is x, b is xs[0], c is w, d is x))
        return out

    alike(run)


# --- what is done to them ---------------------------------------------------------------------------------------------


def fill(x: Any, out: Any) -> None:
    out[...] = x * 2


def count(x: Any, out: Any) -> Any:
    x += 1
    return x * 2


def through(x: Any, out: Any) -> Any:
    np.multiply(x, 3, out=out)
    out[::-1] += x
    return out


def view(x: Any, out: Any) -> Any:
    y = out[:1]
    y[...] = x[1:]
    np.copyto(out[1:], x[:1], where=x[:1] > 0)
    return y, out


@pytest.mark.parametrize("step", [fill, count, through, view], ids=lambda f: f.__name__)
def test_arrays_are_written_into(step: Callable[..., Any]) -> None:
    def run(C: Any) -> Any:
        f, x, out = C(step), np.ones(2), np.zeros(2)
        seen = []
        for k in range(CALLS):
            y = f(x, out)
            seen.append((copy.deepcopy(y), x.copy(), out.copy()))
            out[0] = k
        return seen

    alike(run)


def test_a_step_that_is_refused_has_not_written_into_its_arguments() -> None:
    """Nor where NumPy puts an error of its own in the place of what refused it."""

    def step(x: Any) -> Any:
        x[...] = x * 2
        return np.fromiter((v for v in x), float)

    x = np.ones(3)
    with pytest.raises(CompileError, match="float"):
        tr.compile(step)(x)
    assert x.tolist() == [1, 1, 1]


def test_a_read_only_array_is_not_written_into() -> None:
    def run(C: Any) -> Any:
        f, kinds = C(count), []
        for k in range(CALLS):
            x = np.ones(2)
            x.flags.writeable = k % 2 == 0
            try:
                f(x, None)
            except ValueError as error:
                kinds.append(type(error).__name__)
        return kinds

    alike(run)


def test_tensors_that_are_arguments_may_be_assigned_to() -> None:
    def step(x: Any, y: Any) -> Any:
        x.assign_(x * 2 + y)
        return x * 3

    def run(C: Any) -> Any:
        f, x, z = C(step), tr.ones(2), tr.zeros(2)
        out = [(f(x, tr.ones(2) * k), x.tolist()) for k in range(CALLS)]
        return out, f(z, z), z.tolist(), x.tolist()

    alike(run)


def test_leaves_that_are_arguments_get_their_gradients() -> None:
    def step(x: Any, w: Any) -> Any:
        (x * w).sum().backward()
        return w.grad

    def run(C: Any) -> Any:
        f, out = C(step), []
        v = tr.nn.Parameter([1.0, 2.0])
        for k in range(CALLS):
            w = v if k % 2 else tr.Tensor([1.0, k], requires_grad=True)
            out.append((f(tr.Tensor([1.0, k]), w), w.grad))
            if k == 3:
                v.grad = None
        return out

    alike(run)


def test_requires_grad_of_arguments_may_change() -> None:
    def step(x: Any) -> Any:
        y = (x * x).sum()
        if y.requires_grad:
            y.backward()
        return y.detach(), x.requires_grad, x.grad

    def run(C: Any) -> Any:
        f, x, out = C(step), tr.Tensor([1.0, 2.0]), []
        for k in range(12):
            if k % 3 == 0:
                x.requires_grad = not x.requires_grad
            out.append(f(x))
        return out

    alike(run)


def test_requires_grad_may_be_set_inside() -> None:
    def step(x: Any) -> Any:
        x = x.detach()
        x.requires_grad = True
        (x * x).sum().backward()
        return x.grad

    alike(lambda C: [[f(tr.Tensor([1.0, k])) for k in range(CALLS)] for f in [C(step)]])


# --- containers -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    x: Any
    k: Any = 1


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any
    k: Any = 1


class List(list):  # type: ignore[type-arg]
    pass


class Dict(dict):  # type: ignore[type-arg]
    pass


class Bag:
    def __init__(self, x: Any) -> None:
        self.x = x


Pair = collections.namedtuple("Pair", "x k")

CONTAINERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], None], Callable[[Any], Any]]] = {
    "list": (lambda v: [v], lambda b, v: b.__setitem__(0, v), lambda b: b[0]),
    "subclass of list": (lambda v: List([v]), lambda b, v: b.__setitem__(0, v), lambda b: b[0]),
    "dict": (lambda v: {"x": v}, lambda b, v: b.update(x=v), lambda b: b["x"]),
    "subclass of dict": (lambda v: Dict(x=v), lambda b, v: b.update(x=v), lambda b: b["x"]),
    "OrderedDict": (lambda v: collections.OrderedDict(x=v), lambda b, v: b.update(x=v), lambda b: b["x"]),
    "defaultdict": (lambda v: collections.defaultdict(list, x=v), lambda b, v: b.update(x=v), lambda b: b["x"]),
    "UserDict": (lambda v: collections.UserDict(x=v), lambda b, v: b.update(x=v), lambda b: b["x"]),
    "Counter": (lambda v: collections.Counter(x=v), lambda b, v: b.update({"y": 1}), lambda b: len(b)),
    "deque": (lambda v: collections.deque([v]), lambda b, v: b.__setitem__(0, v), lambda b: b[0]),
    "dataclass": (Batch, lambda b, v: setattr(b, "x", v), lambda b: b.x),
    "dataclass with slots": (Slotted, lambda b, v: setattr(b, "x", v), lambda b: b.x),
    "object": (Bag, lambda b, v: setattr(b, "x", v), lambda b: b.x),
    "namespace": (lambda v: types.SimpleNamespace(x=v), lambda b, v: setattr(b, "x", v), lambda b: b.x),
    "list in an object": (lambda v: Bag([v]), lambda b, v: b.x.__setitem__(0, v), lambda b: b.x[0]),
    "object in a list": (lambda v: [Bag(v)], lambda b, v: setattr(b[0], "x", v), lambda b: b[0].x),
    "dict in a tuple": (lambda v: ({"x": v},), lambda b, v: b[0].update(x=v), lambda b: b[0]["x"]),
    "array of objects": (lambda v: [np.array([1, None])], lambda b, v: None, lambda b: b[0][0]),
}


@pytest.mark.parametrize("value", ["tensor", "array", "number", "text"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_what_containers_hold_may_change(name: str, value: str) -> None:
    make, put, get = CONTAINERS[name]
    values = {
        "tensor": lambda k: tr.Tensor([1.0, k]),
        "array": lambda k: np.array([1.0, k]),
        "number": lambda k: float(k),
        "text": lambda k: "x" * k,
    }[value]
    if name == "Counter" and value not in ("number",):
        pytest.skip("it counts")

    def step(b: Any) -> Any:
        v = get(b)
        return tr.ones(2) * (len(v) if isinstance(v, str) else v)

    def run(C: Any) -> Any:
        f, b, out = C(step), make(values(1)), []
        for k in range(9):
            put(b, values(k // 3 + 1))
            out.append(f(b))
        return [*out, *(f(make(values(k))) for k in (1, 1, 4, 4, 4))]

    try:
        alike(run)
    except CompileError:
        assert name in MAY_BE_REFUSED


MAY_BE_REFUSED = ("UserDict", "array of objects")


def test_named_tuples_and_tuples_are_not_the_same() -> None:
    step = lambda p: p[0] * 2 if type(p) is tuple else p.x * 3
    pairs = [(tr.ones(1), 2), Pair(tr.ones(1), 2)] * 4
    alike(lambda C: [[f(p) for p in pairs] for f in [C(step)]])


class Own(np.ndarray):
    """An array that multiplies otherwise."""

    def __mul__(self, other: Any) -> Any:
        return np.asarray(self) * 100


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(2).view(Own),
        lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
        lambda: np.array([(1, 2.0)], [("a", int), ("b", float)]),
        lambda: np.array(["a", "b"]),
        lambda: np.array([1, None]),
        lambda: np.array([1 + 2j]),
    ],
)
def test_arrays_of_other_kinds_are_right_or_refused(make: Callable[[], Any]) -> None:
    step = lambda x: x * 2 if x.dtype.kind in "fc" else x[:1]
    with contextlib.suppress(CompileError):
        alike(lambda C: [[f(make()) for _ in range(CALLS)] for f in [C(step)]])


class Celsius(tr.Tensor):
    """A tensor of a class of one's own."""

    __slots__ = ()

    def __mul__(self, other: Any) -> Any:
        return super().__mul__(other) + 1


def test_subclasses_of_tensors_are_what_they_are() -> None:
    step = lambda x: (x * 2, type(x).__name__)
    kinds = [tr.Tensor, Celsius] * 4
    alike(lambda C: [[f(kind([1.0])) for kind in kinds] for f in [C(step)]])


# --- layout -----------------------------------------------------------------------------------------------------------

BIG = np.random.default_rng(0).standard_normal((64, 301)).astype("f")
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "columns": lambda a: a[:, 3:203],
    "every second": lambda a: a[:, ::2],
    "backwards": lambda a: a[::-1],
    "transposed": lambda a: a.T,
    "broadcast": lambda a: np.broadcast_to(a[0], a.shape),
}


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_sums_are_taken_in_the_order_of_memory(first: str, second: str) -> None:
    a, b = (LAYOUTS[name](BIG) for name in (first, second))

    def run(C: Any) -> Any:
        of_tensor, of_array, out = C(lambda x: (x.sum(), x.mean(0))), C(lambda x: np.sum(x, keepdims=True)), []
        for x in [a, a, a, b, b, b, a]:
            t = tr.Tensor(BIG)
            t._array = x
            out.append((of_tensor(t), of_array(x)))
        return out

    alike(run)


def test_parameters_gradients_and_results_keep_their_layout() -> None:
    a = np.random.default_rng(0).standard_normal((37, 53)).astype("f")
    w, v = tr.nn.Parameter(np.asfortranarray(a)), tr.nn.Parameter(a)

    def gradient(x: Any) -> Any:
        v.grad = None
        (v.T * x).sum().backward()
        return v.grad.sum()

    def run(C: Any) -> Any:
        h, s, t = C(lambda: w.sum().detach()), C(gradient), C(lambda x: ((x * 2).T, x[:, ::2] + 0, x.T))
        out = []
        for x in rows(CALLS, 53, 37):
            y = t(tr.Tensor(x))
            out.append((h(), s(tr.Tensor(x)), v.grad.sum(), y, [z.sum() for z in y]))
        return out

    alike(run)


def test_a_number_that_is_repeated_leaves_the_layout_to_others() -> None:
    a = np.asfortranarray(np.random.default_rng(0).standard_normal((3, 9)).astype("f"))

    def run(C: Any) -> Any:
        w, out = tr.nn.Parameter(a), []

        def step() -> None:
            y = w * 2
            (y.mean() + tr.norm(y, axis=-1).sum()).backward()

        f = C(step)
        for _ in range(CALLS):
            w.grad = None
            f()
            out.append((w.grad, layout(w.grad.data)))
        return out

    alike(run)


@pytest.mark.parametrize("orders", ["CCCFFCCF", "CFCFCF", " C FF"])
def test_a_gradient_that_is_added_to_may_lie_in_another_way_at_the_next_call(orders: str) -> None:
    a = np.random.default_rng(0).standard_normal((3, 3)).astype("f")

    def run(C: Any) -> Any:
        w, out = tr.nn.Parameter(a), []

        def step(x: Any) -> Any:
            (x @ w.T).sum().backward()
            return w.grad

        f = C(step)
        for order in orders:
            if order != " ":
                w.grad = tr.Tensor(np.ones((3, 3), "f", order=order))
            y = f(tr.Tensor(a))
            out.append((y, layout(y.data), layout(w.grad.data)))
        return out

    alike(run)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_parameter_may_be_given_another_layout_that_the_optimiser_undoes(at: int) -> None:
    a, b = rows(2, 3, 4)

    def run(C: Any) -> Any:
        w = tr.nn.Parameter(a)
        sgd = tr.optim.SGD([w], lr=0.1)

        def step() -> Any:
            tr.square(w).sum().backward()
            sgd.step()
            return w.detach()

        f, out = C(step), []
        for call in range(7):
            if call == at:
                w.assign_(np.asfortranarray(b))
            y = f()
            out.append((y, layout(y.data), layout(w.data)))
        return out

    alike(run)


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_are_new_at_each_call() -> None:
    table = tr.zeros(2)
    constants: Any = lambda x: (x * 2, np.zeros(2), tr.zeros(2), [1.0], {"a": tr.ones(1)}, x, x * 0 + 1, table)

    def run(C: Any) -> Any:
        f, out, x = C(constants), [], tr.ones(2)
        for k in range(CALLS):
            doubled, total, t, items, named, same, filled, shared = f(x)
            total += 1
            t.assign_(t + 1)
            items.append(k)
            named["a"].assign_([7.0])
            out.append((doubled, total, t, items, named, same is x, filled, shared is table))
        return out

    alike(run)


def test_a_tensor_that_is_returned_twice_is_one_object() -> None:
    def step(x: Any) -> Any:
        y, z = x * 2, np.zeros(1)
        return y, [y, z], {"z": z}, x + 1

    alike(lambda C: [[f(tr.ones(2)) for _ in range(CALLS)] for f in [C(step)]])


@pytest.mark.parametrize(
    "step",
    [
        lambda x: (x * 2, x + 1),
        lambda x: [(y := x * 2)[:2], y.T, y],
        lambda x: [(y := (x.T * 2).T)[::-1], y[:1]],
        lambda x: [(y := x * 2)[:1], y[1:]],
    ],
)
def test_results_share_their_memory_as_in_plain_code(step: Callable[[Any], Any]) -> None:
    """What is written into one of them is seen in the others, and in no result of another call."""

    def run(C: Any) -> Any:
        f, out = C(step), []
        for k in range(5):
            results = f(np.full((3, 2), float(k)))
            for r in results:
                r += 1
            out.append(results)
        return out

    alike(run)


def test_strides_are_told_by_the_shape_or_refused() -> None:
    f = tr.compile(lambda x: x * x.strides[0])
    for k in range(4):
        assert f(np.full((3, 2), k)).tolist() == (np.full((3, 2), k) * 16).tolist()
    for x in (np.ones((3, 1)).T, np.ones((4, 4))[:, 1:]):
        with pytest.raises(CompileError, match=r"\.strides of an array of shape"):
            f(x)


def test_a_number_of_numpy_is_returned_as_one() -> None:
    step = lambda x: (np.sum(x), x.mean(), x[0], x.max(axis=0), np.float32(2), x.sum() + 1)
    alike(lambda C: [[f(x) for x in rows(CALLS, 3)] for f in [C(step)]])


def test_results_are_not_written_again() -> None:
    def step(x: Any) -> Any:
        y = tr.tanh(x)
        return y, y[:1], y.T, np.ones(2)

    f = tr.compile(step)
    kept = [(x, f(tr.Tensor(x))) for x in rows(CALLS, 3, 3)]
    for x, (y, first, turned, _) in kept:
        expected = np.tanh(x)
        for found, wanted in ((y, expected), (first, expected[:1]), (turned, expected.T)):
            np.testing.assert_array_equal(found.numpy(), wanted)


def test_deep_copies_of_an_object_have_functions_of_their_own() -> None:
    def run(C: Any) -> Any:
        class Trainer:
            def __init__(self) -> None:
                self.model = tr.nn.Linear(2, 1, generator=np.random.default_rng(0))
                self.step = C(self._step)

            def _step(self, x: Any) -> Any:
                return self.model(x).detach()

        first = Trainer()
        for _ in range(3):
            first.step(tr.ones(1, 2))
        twin = copy.deepcopy(first)
        for p in twin.model.parameters():
            p.assign_(np.zeros(p.shape, "f"))
        return [(twin.step(tr.ones(1, 2)), first.step(tr.ones(1, 2))) for _ in range(4)]

    alike(run)
