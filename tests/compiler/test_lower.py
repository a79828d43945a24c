"""What is lowered does to memory what the call does that it replaces, to the last bit, and the rest is left alone."""

from __future__ import annotations

import inspect
import operator
import threading
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.compiler.steps import Model, batches, run, trainer
from tests.profiles import examples
from tinygrad_rnn.compiler import lower
from tinygrad_rnn.compiler.arrays import root_of
from tinygrad_rnn.compiler.lower import Calls, Code
from tinygrad_rnn.compiler.numpy_calls import OUT_BY_NAME, assign, choose
from tinygrad_rnn.compiler.traced import arrays_in
from tinygrad_rnn.nn.checks import check_range
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import scatter_add
from tinygrad_rnn.tensor.ops.indexing import checked_ids

pytest.importorskip("numba")


@pytest.fixture(autouse=True, scope="module")
def stages() -> Iterator[Any]:
    before = backend.stages
    tr.enable_numba()
    yield backend.stages
    backend.use_stages(before)


@pytest.fixture(autouse=True)
def enabled(stages: Any) -> None:
    backend.use_stages(stages)


def memory(args: Any) -> list[np.ndarray]:
    """The arrays that own the memory of arguments, each once."""
    return list({id(root_of(a)): root_of(a) for a in arrays_in(args)}.values())


def bits(a: np.ndarray) -> bytes:
    """The bytes of an array; of a NaN only that it is one."""
    return np.where(a != a, np.nan, a).astype(a.dtype).tobytes() if a.dtype.kind == "f" else a.tobytes()


def outcome(f: Callable[[], None], roots: list[np.ndarray]) -> Any:
    """What a call leaves in memory, which is then as it was, or the error that it raises."""
    before = [a.copy() for a in roots]
    try:
        with np.errstate(all="ignore"):
            f()
        return [bits(a) for a in roots]
    except Exception as error:  # noqa: BLE001 (it is compared)
        return type(error), str(error)
    finally:
        for a, values in zip(roots, before, strict=True):
            a[...] = values


def check(f: Any, *args: Any, must: bool = True) -> bool:
    """Compare a call with its instructions. Whether it is lowered, which it `must` be."""
    call = f, args
    (part,) = lower.lowered([Calls(False, [call])])
    if isinstance(part, Calls):
        assert not must, f"{f} is not lowered"
        return False
    roots = memory((args, getattr(f, "keywords", None)))
    assert outcome(part, roots) == outcome(lambda: f(*args), roots), args
    return True


SIZES = st.sampled_from([1, 1, 2, 3, 5, 8, 17, 33, 130])
SHAPES = st.builds(
    lambda outer, inner: [*outer, *inner], st.lists(st.integers(1, 4), max_size=3), st.lists(SIZES, max_size=1)
)
DTYPES = st.sampled_from(["f", "d"])
EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1.0, -1.0]


@st.composite
def arrays(draw: Any, shape: tuple[int, ...], dtype: str, edges: bool = True) -> np.ndarray:
    """An array of a shape, with or without gaps, in some order of axes, of usual numbers and, perhaps, unusual ones."""
    order = draw(st.permutations(range(len(shape)))) if draw(st.integers(0, 3)) == 0 else range(len(shape))
    gaps = [draw(st.sampled_from([1, 1, 1, 2])) for _ in shape]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    base = np.asarray(rng.standard_normal([shape[k] * gaps[k] for k in order]))
    base = np.asarray(base > 0 if dtype == "?" else 5 * base).astype(dtype)
    if edges and dtype in "fd" and draw(st.booleans()):
        some = rng.random(base.shape) < 0.2
        base[some] = rng.choice(EDGES, some.sum())
    return base[(*(slice(None, None, gaps[k]) for k in order), ...)].transpose(np.argsort(order))


def drawn(data: Any, *shape: int, dtype: str = "f", edges: bool = True) -> np.ndarray:
    return data.draw(arrays(shape, dtype, edges))


def fresh(*shape: int, dtype: str = "f") -> np.ndarray:
    return np.full(shape, 7, dtype)


def ufunc_into(f: np.ufunc, xs: Any, y: np.ndarray) -> Any:
    """The call that computes a ufunc into an array, as a program has it."""
    return (partial(f, out=y), *xs) if f in OUT_BY_NAME else (f, *xs, y)


UFUNCS = sorted(lower.ANYWHERE | lower.BY_STRETCHES, key=lambda f: f.__name__)


@given(data=st.data(), f=st.sampled_from(UFUNCS), dtype=st.sampled_from("fdli?"), shape=SHAPES)
def test_ufuncs(data: Any, f: np.ufunc, dtype: str, shape: list[int]) -> None:
    kind = next((kind for kind in f.types if kind[: f.nin] == f.nin * dtype), None)
    if kind is None:
        return
    xs = [drawn(data, *shape, dtype=dtype) for _ in range(f.nin)]
    if f.nin == 2 and data.draw(st.booleans()):  # one is broadcast
        ones = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        short = xs[1][tuple(slice(0, 1) if one else slice(None) for one in ones)]
        xs[1] = short[0] if short.ndim and short.shape[0] == 1 else short
    if f.nin == 2 and dtype != "?" and data.draw(st.integers(0, 5)) == 0:
        xs[1] = 2.0 if dtype in "fd" else 3
    y = xs[0] if data.draw(st.booleans()) and kind[-1] == dtype else fresh(*shape, dtype=kind[-1])
    check(*ufunc_into(f, xs, y), must=False)


@given(data=st.data(), f=st.sampled_from(UFUNCS), dtype=DTYPES, shape=SHAPES.map(lambda shape: shape or [3]))
def test_ufuncs_of_whole_arrays_are_lowered(data: Any, f: np.ufunc, dtype: str, shape: list[int]) -> None:
    kind = next((kind for kind in f.types if kind[: f.nin] == f.nin * dtype), None)
    if kind is not None:
        xs = [np.ascontiguousarray(drawn(data, *shape, dtype=dtype)) for _ in range(f.nin)]
        check(*ufunc_into(f, xs, fresh(*shape, dtype=kind[-1])))


@given(data=st.data(), dtype=DTYPES, m=SIZES, k=SIZES, n=SIZES, f=st.sampled_from([np.matmul, np.dot]))
def test_products(data: Any, dtype: str, m: int, k: int, n: int, f: Any) -> None:
    a, b = drawn(data, m, k, dtype=dtype, edges=False), drawn(data, k, n, dtype=dtype, edges=False)
    if data.draw(st.integers(0, 4)) == 0:
        b, n = a.T, m  # the same array transposed: syrk
    y = fresh(m, n, dtype=dtype)
    whole = all(x.flags.c_contiguous or x.flags.f_contiguous for x in (a, b))
    easy = whole and min(m, k, n) > 1
    check(
        partial(np.dot, out=y) if f is np.dot else f, a, b, *([] if f is np.dot else [y]), must=f is np.matmul or easy
    )


@given(data=st.data(), dtype=DTYPES, m=SIZES, n=SIZES, axis=st.sampled_from([0, 1, (0, 1), None]), keep=st.booleans())
def test_sums(data: Any, dtype: str, m: int, n: int, axis: Any, keep: bool) -> None:
    m *= data.draw(st.sampled_from([1, 1, 20]))
    x = drawn(data, m, n, dtype=dtype)
    y = np.full(np.argmax(x, axis=axis, keepdims=keep).shape if type(axis) is int else (1, 1) if keep else (), 7, dtype)
    check(np.add.reduce, x, axis, None, y, keep, must=False)
    if x.flags.c_contiguous and min(m, n) > 1:
        check(np.add.reduce, x, axis, None, y, keep)


@examples(dev=3, ci=10, thorough=50)
@given(n=st.integers(8000, 100_000), dtype=DTYPES)
def test_long_sums(n: int, dtype: str) -> None:
    """NumPy takes them in pieces, or does not: the order must be the same."""
    x = np.random.default_rng(n).standard_normal((n, 3)).astype(dtype)
    for a in (x, np.ascontiguousarray(x.T)):
        for k in (0, 1):
            check(np.add.reduce, a, k, None, np.empty(a.shape[1 - k], dtype), False, must=False)
        check(np.add.reduce, a, None, None, np.empty((), dtype), False)


@given(data=st.data(), dtype=st.sampled_from(["f", "d", "l", "?", "i", "h"]), shape=SHAPES)
def test_copies_and_fills(data: Any, dtype: str, shape: list[int]) -> None:
    few = len(shape) < 4  # or so many axes that a list does not walk through
    x, y = drawn(data, *shape, dtype=dtype), drawn(data, *shape, dtype=dtype)
    check(np.copyto, y, x, must=few)
    check(np.copyto, y, x[:1] if shape else x, "unsafe", must=few)
    check(np.ndarray.fill, y, data.draw(st.sampled_from([0, 1, 2.5, -0.0, True])), must=few)
    condition = drawn(data, *shape, dtype="?")
    check(choose, condition, x, np.zeros((), dtype), np.array(y), must=few)
    if dtype in "fd":
        check(choose, condition[:1] if shape else condition, 0.0, x, np.array(y), must=few)


@given(data=st.data(), dtype=DTYPES, N=SIZES, C=SIZES, far=st.sampled_from([0, 0, 1]))
def test_rows_of_logits(data: Any, dtype: str, N: int, C: int, far: int) -> None:
    """What a cross-entropy does: a choice by rows, the largest of each, and one place of each."""
    x, z = (np.ascontiguousarray(drawn(data, N, C, dtype=dtype)) for _ in range(2))
    keep, y = drawn(data, N, dtype="?"), fresh(N, dtype=dtype)
    check(choose, keep[:, None], x, 0.0, z)
    check(choose, keep[:, None], 0.0, x, z)
    check(np.maximum.reduce, x, 1, None, y.reshape(N, 1), True)
    check(np.multiply, y, keep, fresh(N, dtype=dtype))
    check(np.multiply, keep[:, None], x, z)
    columns = np.array(
        data.draw(st.lists(st.integers(-C - far, C - 1 + far), min_size=N, max_size=N)),
        data.draw(st.sampled_from([np.int64, np.int32])),
    )
    place = np.arange(N)[::-1].copy(), columns
    check(assign, operator.getitem, y, (x, place), {})
    check(operator.setitem, x, place, y)
    check(operator.setitem, x, (place[0] // 2, place[1]), y)  # the last one counts
    check(operator.setitem, x, place, 0)


@given(data=st.data(), shape=SHAPES, kinds=st.sampled_from(["?f", "?d", "?l", "lf", "ld"]))
def test_casts(data: Any, shape: list[int], kinds: str) -> None:
    x = drawn(data, *shape, dtype=kinds[0])
    x = np.asarray(x * 2**53 + x) if kinds[0] == "l" else x  # of more digits than a float has
    check(np.copyto, drawn(data, *shape, dtype=kinds[1]), x, must=len(shape) < 4)


@given(data=st.data(), dtype=DTYPES, shape=SHAPES.map(lambda shape: shape or [3]), count=st.integers(1, 3))
def test_joins(data: Any, dtype: str, shape: list[int], count: int) -> None:
    few, axis = len(shape) < 4, data.draw(st.integers(0, len(shape) - 1))
    xs = [drawn(data, *shape, dtype=dtype) for _ in range(count)]
    shape[axis] *= count
    y = fresh(*shape, dtype=dtype)
    check(np.concatenate, xs, axis, y, must=few)
    widths = tuple(data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in shape)
    out = fresh(*(a + n + b for n, (a, b) in zip(xs[0].shape, widths, strict=True)), dtype=dtype)
    check(assign, np.pad, out, (xs[0], widths), {"constant_values": 0}, must=few)


@given(data=st.data(), V=SIZES, H=SIZES, shape=st.lists(st.integers(0, 5), min_size=1, max_size=2), dtype=DTYPES)
def test_ids(data: Any, V: int, H: int, shape: list[int], dtype: str) -> None:
    """In range or not: the error is that of the call."""
    far = data.draw(st.sampled_from([0, 0, 1]))
    ids = data.draw(st.lists(st.integers(-V - far, V - 1 + far), min_size=prod(shape), max_size=prod(shape)))
    ids = np.array(ids, data.draw(st.sampled_from([np.int64, np.int32]))).reshape(shape)
    table = np.ascontiguousarray(drawn(data, V, H, dtype=dtype))
    check(assign, np.take, fresh(*shape, H, dtype=dtype), (table, ids), {"axis": 0}, must=ids.size > 0)
    check(inspect.unwrap(check_range), "an id", ids, V)
    check(assign, inspect.unwrap(checked_ids), np.zeros(shape, np.int64), (ids, V, 0, table), {}, must=ids.size > 0)
    if ids.size and ids.min() >= -V and ids.max() < V:
        g = np.ascontiguousarray(drawn(data, *shape, H, dtype=dtype, edges=False))
        check(inspect.unwrap(scatter_add), table, (ids,), g)
        turned = g.reshape(1, -1, H).swapaxes(0, 1)  # without gaps, but with other strides
        check(inspect.unwrap(scatter_add), table, (ids.reshape(-1, 1),), turned)


@given(data=st.data(), B=SIZES, H=SIZES, dtype=DTYPES, last=st.booleans(), biased=st.booleans())
def test_stages(data: Any, B: int, H: int, dtype: str, last: bool, biased: bool) -> None:
    s, a = backend.stages, lambda *shape: np.ascontiguousarray(drawn(data, *shape, dtype=dtype, edges=False))
    check(s.rnn_tanh, a(B, H), a(B, H))
    check(s.rnn_tanh_slope, a(B, H), a(B, H), a(B, H))
    check(s.lstm_gates, a(B, 4 * H), a(B, 4 * H), a(B, H), a(6, B, H))
    check(s.lstm_slopes, a(2 if last else 6, B, H), a(6, B, H), a(B, H), a(B, 4 * H), a(B, H))
    check(s.gru_gates, a(B, 3 * H), a(B, 3 * H), a(H if biased else 0), a(B, H), a(5, B, H))
    check(s.gru_slopes, a(1 if last else 5, B, H), a(5, B, H), a(B, H), a(B, 3 * H), a(B, 3 * H), a(B, H))
    runs, k = (a(B, 1) > 0).astype(dtype), 1 if last else 2
    check(s.carry_rows, runs, a(k, B, H), a(k, B, H))
    check(s.clear_rows, runs, a(k, B, H))


@given(data=st.data(), B=SIZES, K=SIZES, N=st.integers(1, 70), dtype=DTYPES, turned=st.booleans(), rows=st.booleans())
def test_products_with_a_weight_in_panels(
    data: Any, B: int, K: int, N: int, dtype: str, turned: bool, rows: bool
) -> None:
    s, a = backend.stages, partial(fresh, dtype=dtype)
    width = s.width_of(dtype)
    W, panels = a(N, K).T if turned else a(K, N), np.zeros((-(-N // width), K, width), dtype)
    W[...] = drawn(data, K, N, dtype=dtype, edges=False)
    check(s.pack, W, panels, must=True)
    x, y = (np.zeros((B, n + 3 * rows), dtype)[:, :n] for n in (K, N))  # with gaps between rows, or none
    x[...] = drawn(data, B, K, dtype=dtype, edges=False)
    check(s.product, x, panels, y, must=True)
    check(s.product, x.repeat(2, 1)[:, ::2], panels, y, must=False)
    assert not check(s.product, x, panels[:, :, :-1], y, must=False)


@pytest.mark.parametrize(
    "call",
    [
        (np.add, np.ones(3, "f"), np.ones(3, "d"), np.ones(3, "d")),  # a cast
        (np.add, np.ones(3, "f")[:2], np.ones(2, "f"), np.ones((2, 1), "f")),  # shapes that do not fit
        (np.add, np.ones(3, ">f4"), np.ones(3, ">f4"), np.ones(3, ">f4")),
        (np.add.reduce, np.ones((3, 2, 3)), 1, None, np.ones((3, 3)), False),
        (np.add.reduce, np.ones((3, 2), "f"), 1, np.float64, np.ones(3), False),
        (np.maximum.reduce, np.ones((3, 2)), 0, None, np.ones(2), False),
        (operator.setitem, np.ones((3, 2)), (np.arange(3), np.arange(2)), 0),  # which raises
        (operator.setitem, np.ones((3, 2)), np.arange(3), 0),
        (np.copyto, np.ones(3), np.ones(3), "same_kind", np.ones(3, bool)),
        (np.cumsum, np.ones(3), 0, None, np.ones(3)),
        (np.matmul, np.ones((2, 3, 3)), np.ones((3, 3)), np.ones((2, 3, 3))),
        (np.copyto, np.ones(3, "f"), np.ones(3, "d"), "unsafe"),
        (np.copyto, np.ones(3, "f"), 2.0),
        (partial(np.add, where=np.array([True, False])), np.ones(2), np.ones(2), np.ones(2)),
        (print, 3),
    ],
    ids=lambda call: getattr(call[0], "__name__", "partial"),
)
def test_what_is_not_known_whole_is_left_alone(call: Any) -> None:
    assert not check(*call, must=False)


def test_what_overlaps_is_left_alone() -> None:
    x = np.arange(12, dtype="f")
    assert not check(np.add, x, x, x[::-1], must=False)
    assert not check(np.add, x[:-1], x[:-1], x[1:], must=False)
    assert not check(np.copyto, x[1:], x[:-1], must=False)
    assert not check(np.matmul, x.reshape(3, 4)[:, :3], x.reshape(3, 4)[:, 1:], x.reshape(3, 4)[:, :3], must=False)
    assert check(np.add, x, x, x)


def test_what_nobody_may_write_is_left_alone() -> None:
    y = np.ones(3, "f")
    y.flags.writeable = False
    assert not check(np.add, np.ones(3, "f"), np.ones(3, "f"), y, must=False)


# --- whole programs ---------------------------------------------------------------------------------------------------


def program_of(step: Any) -> Any:
    ((recording,),) = step.compiled.found.values()
    return recording.program


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_most_of_a_step_is_lowered(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(kind, 16)
    step = tr.compile(trainer(model, tr.optim.Adam(model.parameters())))
    for ids, targets in batches(12, 4, count=3):
        step(ids, targets)
    left = [f for part in program_of(step).lowered if isinstance(part, Calls) for f, _ in part.calls]
    assert {getattr(f, "__name__", "") for f in left} <= {"zero_grad", "write_gradients", "assign", "step"}
    assert len(left) <= 5


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_lowering_can_be_switched_off(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = run(True, kind, 5, 3, 8)
    monkeypatch.setattr(lower, "ON", False)
    assert run(True, kind, 5, 3, 8) == with_it


def test_a_wrong_instruction_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison above would prove nothing."""
    expected = run(True, "LSTM", 5, 3, 8)
    right = lower.Lowering.matmul
    monkeypatch.setattr(lower.Lowering, "matmul", lambda self, a, b, y: right(self, a[::-1], b, y))
    assert run(True, "LSTM", 5, 3, 8) != expected


def test_floating_point_errors_are_raised_where_that_is_asked_for() -> None:
    step = tr.compile(lambda x: tr.exp(x) * 2)
    for _ in range(3):
        assert step(tr.Tensor([0.0])).item() == 2
    assert step(tr.Tensor([1000.0])).item() == np.inf
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        step(tr.Tensor([1000.0]))
    assert step(tr.Tensor([0.0])).item() == 2


def test_ids_out_of_range_are_told_by_the_call() -> None:
    table = tr.nn.Embedding(5, 3)
    step = tr.compile(lambda ids: table(ids).detach() * 2)
    for _ in range(3):
        step(np.array([0, 4]))
    with pytest.raises(ValueError, match=r"Embedding: id 5 \(element 1\) is out of range"):
        step(np.array([0, 5]))
    assert step(np.array([3])).shape == (1, 3)


def test_other_threads_run_while_a_list_is_run() -> None:
    """The machine holds no lock: a thread counts on in the meantime."""
    a, y = np.ones((300, 300)), np.empty((300, 300))
    (code,) = lower.lowered([Calls(False, [(np.tanh, (a, y))] * 2000)])
    assert isinstance(code, Code)
    counts, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counts[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counts[0]
    code()
    during = counts[0] - before
    done.set()
    thread.join()
    assert during > 1000
