"""The backward sweep: accumulation, ownership, hooks, broadcasting, products of many steps, failures, threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import failing, leaf
from tinygrad_rnn.tensor import sweep
from tinygrad_rnn.tensor.graph import Part


def test_leaves_accumulate():
    x = leaf([1.0, 2.0])
    for times in (1, 2, 3):
        (x * x).sum().backward()
        assert x.grad.tolist() == [2 * times, 4 * times]


def test_what_goes_where_nobody_asks_is_not_collected():
    a, b = (leaf([1.0, 2.0])._node for _ in range(2))
    gradients = sweep.Gradients()
    gradients.add([a, b], [np.ones(2), np.ones(2)])
    gradients.limit_to([b])
    gradients.add([a, b, a], [np.ones(2), np.ones(2), Part(np.ones(1), slice(1))])
    assert [gradients.left_over()[node].tolist() for node in (a, b)] == [[1, 1], [2, 2]]


def test_a_gradient_once_handed_out_never_changes():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    first = x.grad
    view = first.numpy()
    (x * x).sum().backward()
    assert view.tolist() == [2, 4]
    assert first.tolist() == [2, 4]
    assert x.grad.tolist() == [4, 8]


def test_no_two_gradients_share_memory():
    x, y = leaf(np.ones(3)), leaf(np.ones(3))
    seed = np.ones(3)
    z = x + y
    z.backward(seed)
    arrays = [x.grad.numpy(), y.grad.numpy(), seed, z.numpy(), x.numpy(), y.numpy()]
    for i, a in enumerate(arrays):
        for b in arrays[i + 1 :]:
            assert not np.shares_memory(a, b)
    a = leaf(np.ones((2, 2)))
    w = leaf(np.ones((2, 2)))
    ((a @ w) @ w + w.reshape(-1).reshape(2, 2)).sum().backward()
    assert not np.shares_memory(a.grad.numpy(), w.grad.numpy())


def test_a_failing_derivative_leaves_every_leaf_untouched():
    x, y = leaf([1.0]), leaf([2.0])
    x.grad = tr.Tensor([7.0])
    z = (y * failing(x * 3.0)).sum()
    with pytest.raises(KeyError) as caught:
        z.backward()
    assert x.grad.tolist() == [7.0]
    assert y.grad is None
    (note,) = caught.value.__notes__
    assert "failing" in note
    assert "inputs (1,)" in note
    with pytest.raises(tr.errors.GraphFreedError, match="half freed by a backward that failed in failing"):
        z.backward()


def test_retain_grad_and_hooks_see_the_complete_gradient():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y + y * y + y[0]).sum().backward()
    expected = [1 + 2 * 2 + 2, 1 + 2 * 4]
    assert y.grad.tolist() == seen[0] == expected
    assert len(seen) == 1
    assert x.grad.tolist() == [2 * g for g in expected]


def test_a_hook_may_replace_the_gradient_and_be_removed():
    x = leaf([1.0, 2.0])
    remove = x.register_hook(lambda g: g * 10)
    (x * 1.0).sum().backward()
    assert x.grad.tolist() == [10, 10]
    remove()
    remove()
    x.grad = None
    (x * 1.0).sum().backward()
    assert x.grad.tolist() == [1, 1]
    x.register_hook(lambda g: tr.zeros(7))
    with pytest.raises(tr.errors.ShapeError, match=r"a hook returned shape \(7,\)"):
        (x * 1.0).sum().backward()
    y = leaf([1.0])
    y.register_hook(lambda g: 1.0)
    with pytest.raises(TypeError, match="a hook returned float"):
        y.backward()


def test_what_a_hook_kept_is_not_written():
    x = leaf([1.0, 2.0])
    kept = []
    x.register_hook(kept.append)
    (x + x).sum().backward()
    assert not np.shares_memory(kept[0].numpy(), x.grad.numpy())
    (x + x).sum().backward()
    assert kept[0].tolist() == [2, 2]


def test_broadcasting_is_undone_in_the_engine():
    x, y = leaf(np.ones((3, 1))), leaf(2.0)
    (x * np.ones((2, 3, 4)) * y).sum().backward()
    assert x.grad.numpy().tolist() == [[16.0]] * 3
    assert y.grad.item() == 24


def test_contributions_are_cast_to_the_source_dtype():
    x = leaf([1.0, 2.0], "float32")
    (x * np.array([1.0, 3.0])).sum().backward()
    assert x.grad.dtype == "float32"


def test_the_products_of_many_steps_are_batched(monkeypatch):
    flushed = []
    flush = sweep.Gradients.flush

    def counted(self, node):
        flushed.append(len(self.pairs[node].xs))
        flush(self, node)

    monkeypatch.setattr(sweep.Gradients, "flush", counted)
    rng = np.random.default_rng(0)
    w, h, expected = leaf(rng.standard_normal((3, 3)) * 0.3), tr.Tensor(rng.standard_normal((64, 3))), 0.0
    states = []
    for _ in range(40):
        states.append(h)
        h = (h @ w).tanh()
    h.sum().backward()
    assert flushed == [16, 16, 8]  # 1,024 rows each
    g = np.ones((64, 3))
    for t in reversed(range(40)):
        y = states[t + 1].numpy() if t < 39 else h.numpy()
        g = g * (1 - y * y)
        expected = expected + states[t].numpy().T @ g
        g = g @ w.numpy().T
    assert np.allclose(w.grad.numpy(), expected, rtol=1e-12, atol=0)


def test_a_value_without_a_gradient_does_not_end_the_sweep():
    @tr.op(None, lambda g: g)
    def second(a, b):
        return b * 1.0

    b, a = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    c = b * 3
    second(a * 2, c).sum().backward()  # a * 2 is newer than c, and nothing comes back to it
    assert b.grad.tolist() == [3, 3]
    assert a.grad is None


def test_a_derivative_of_the_wrong_shape_is_an_error():
    @tr.op(lambda g: g)
    def flipped(x):
        return x.T

    for create_graph in (False, True):
        x = leaf(np.arange(6.0).reshape(2, 3))
        with pytest.raises(
            tr.errors.ShapeError, match=r"gradient of shape \(3, 2\) for an input of shape \(2, 3\)"
        ) as e:
            tr.grad((flipped(x) * np.ones((3, 2))).sum(), x, create_graph=create_graph)
        assert "in the backward of flipped" in e.value.__notes__[0]


def test_float_contributions_from_many_threads_are_all_counted():
    x = leaf(np.zeros(4))

    def work():
        for _ in range(200):
            (x * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert x.grad.tolist() == [800.0] * 4


@pytest.mark.parametrize("seed", range(40))
def test_what_comes_to_a_place_first_is_put_there_and_the_rest_is_added(seed):
    """Of parts that overlap or not, along one axis or more: their sum, in which a part alone keeps its -0.0."""
    rng = np.random.default_rng(seed)
    index = indices_of_rows(rng)
    indices = [next(index) for _ in range(rng.integers(1, 6))]
    x = leaf(np.zeros((4, 3)))
    pieces = [x[i] for i in indices]
    cotangents = [np.round(rng.normal(size=p.shape)) * rng.choice([1.0, -1.0, 0.0]) for p in pieces]
    sum((p * g).sum() for p, g in zip(pieces, cotangents, strict=True)).backward()
    expected = np.zeros((4, 3))
    for i, g in zip(indices, cotangents, strict=True):
        np.add.at(expected, i, g)
    assert x.grad.tolist() == expected.tolist()
    if len(indices) == 1 and not any(isinstance(i, list) for i in indices):
        assert np.signbit(x.grad.data[indices[0]]).tolist() == np.signbit(cotangents[0]).tolist()


ALL = slice(None)


@pytest.mark.parametrize(
    ("shape", "indices", "free"),
    [
        ((4, 2), [slice(0, 2), (slice(2, 3), ...), slice(3, None), (3, 0)], [True, True, True, False]),
        ((4, 2), [slice(0, 3), slice(2, 3), 3, -1], [True, False, True, False]),
        ((4, 2), [..., 0], [True, False]),
        ((300, 2), [(ALL, ...), (0, ...)], [True, False]),
        ((300,), [(ALL, ...), 0], [True, False]),
        ((2, 3), [(ALL, 0), (ALL, slice(1, 2)), (ALL, -1), (ALL, 1)], [True, True, True, False]),
        ((2, 3), [(ALL, 0), (0, ...)], [True, False]),
        ((2, 3), [(..., 0), (..., slice(1, 3)), (..., 2), (0, ...)], [True, True, False, False]),
        ((2, 3), [(..., 0, 1), (..., 0, 2)], [True, False]),  # that is not looked at so closely
        ((), [..., ...], [True, False]),
    ],
)
def test_an_index_is_free_where_none_has_been(shape, indices, free):
    parts = sweep.Parts(leaf(np.zeros(shape))._node)
    parts.begin(Part(np.zeros(()), indices[0], basic=True))
    assert [parts.is_first(index) for index in indices] == free


@pytest.mark.parametrize(
    ("cuts", "joined"),
    [
        ([(3, None), (1, 3), (None, 1)], True),
        ([(3, None), (1, 3), (0, 1), (2, None)], False),  # once more
        ([(-1, None), (1, -1), (0, 1)], True),
        ([(None, None)], True),
        ([(3, None), (1, 3)], False),  # the first one is missing
        ([(0, 1), (1, 3), (3, None)], False),  # in another order
        ([(2, None), (5, 2), (0, 5)], False),  # one after the other, but not side by side
        ([(2, None), (-1, 2), (0, -1)], False),
    ],
)
def test_pieces_are_joined_where_they_lie_side_by_side(cuts, joined):
    x, rng = leaf(np.zeros((2, 5))), np.random.default_rng(0)
    parts, expected, zero = sweep.Parts(x._node), np.zeros((2, 5)), True
    for cut in cuts:
        g = -rng.integers(0, 3, expected[..., slice(*cut)].shape).astype(float)
        expected[..., slice(*cut)] += g
        zero &= (np.signbit(g)).all()
        parts.add(Part(g, (..., slice(*cut)), basic=True))
    assert parts.joined().tolist() == expected.tolist()
    assert (not hasattr(parts, "met")) == joined and (not joined or np.signbit(parts.joined()).all() == zero)
    dense = (3 * x[..., 2:]).sum() + (2 * x).sum() + (x[..., :2] * x[..., :2]).sum()
    dense.backward()
    assert x.grad.tolist() == [[2, 2, 5, 5, 5]] * 2


def test_an_ellipsis_tells_no_axis():
    x = leaf(np.ones((2, 4, 3)))
    (x[..., 1].sum() + x[:, 2].sum() + x[..., 1].sum()).backward()
    expected = np.zeros((2, 4, 3))
    expected[..., 1] += 2
    expected[:, 2] += 1
    assert x.grad.tolist() == expected.tolist()
    y = leaf(np.ones((2, 1, 3)))
    (y[..., 2] * y[..., 2]).sum().backward()
    assert y.grad.tolist() == [[[0, 0, 2]], [[0, 0, 2]]]


def indices_of_rows(rng):
    """Endless indices of an array (4, 3): integers, slices, arrays with repeats, of one axis or two."""
    whole = slice(None)
    while True:
        a, b = sorted(rng.integers(0, 5, 2).tolist())
        k, low = int(rng.integers(-4, 4)), int(rng.integers(-3, 3))
        some = [k, slice(a, b), (whole, low), (k, slice(0, 2)), [k, k, 1], ..., slice(None, None, -2), (..., low)]
        yield some[rng.integers(8)]


# --- hooks that change the hooks ----------------------------------------------------------------------------


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(("count", "leaving"), [(2, {0}), (3, {0, 1, 2}), (3, {1})])
def test_a_hook_that_removes_hooks_keeps_none_from_its_turn(computed, create_graph, count, leaving):
    x = tr.Tensor([2.0], requires_grad=True)
    y = x * 1.0 if computed else x
    called, removers = [], []

    def hook_of(k):
        def hook(g):
            called.append(k)
            if k in leaving:
                removers[k]()
                removers[(k + 1) % count]()

        return hook

    removers += [y.register_hook(hook_of(k)) for k in range(count)]
    loss = (y * y).sum()
    tr.grad(loss, x, create_graph=create_graph, retain_graph=True)
    assert called == list(range(count))
    gone = leaving | {(k + 1) % count for k in leaving}
    tr.grad(loss, x, retain_graph=True)
    assert called[count:] == [k for k in range(count) if k not in gone]


def test_a_hook_that_registers_hooks_is_called_once_in_a_backward():
    x = tr.Tensor([1.0], requires_grad=True)
    called = []

    def again(g):
        called.append(len(called))
        if len(called) < 100:
            x.register_hook(again)
        return g * 2

    x.register_hook(again)
    (x * 3).sum().backward()
    assert called == [0] and x.grad.tolist() == [6.0]
    x.grad = None
    (x * 3).sum().backward()
    assert called == [0, 1, 2] and x.grad.tolist() == [12.0]


def test_a_hook_that_is_registered_twice_is_called_twice_and_removed_once():
    x = tr.Tensor([1.0], requires_grad=True)
    called = []
    off, _ = x.register_hook(called.append), x.register_hook(called.append)
    off()
    off()
    (x * 3).sum().backward()
    assert len(called) == 1


def test_rows_to_which_ids_have_led_are_added_to():
    x = leaf(np.zeros((4, 3)))
    later, between, earlier = x[1], x[[1, 2, 2]], x[0]  # the newest pulls first
    (earlier.sum() + 2 * between.sum() + 3 * later.sum()).backward()
    assert x.grad[:, 0].tolist() == [1, 5, 4, 0]


@tr.op(lambda g: g, None)
def first_of(a: Any, b: Any) -> Any:
    """`a`: nothing comes back to `b`, whether it requires a gradient or not."""
    return a * 1


def test_a_node_that_no_gradient_reaches_holds_up_no_other() -> None:
    x, y = tr.Tensor([2.0], requires_grad=True), tr.Tensor([5.0], requires_grad=True)
    cubed = x**3
    beside = y * 2  # newer, so it is visited before
    seen: list[Any] = []
    beside.register_hook(seen.append)
    first_of(cubed, beside).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [12.0] and y.grad is None and not seen


def test_nor_does_it_where_the_backward_is_recorded() -> None:
    def f(x: tr.Tensor) -> tr.Tensor:
        cubed = x**3
        return first_of(cubed, x * 2).sum()

    second = tr.grad_of(lambda x: tr.grad_of(f)(x).sum())(tr.Tensor([2.0]))
    assert second.tolist() == [12.0]


KEYS = [
    0,
    1,
    -1,
    -2,
    slice(None),
    slice(0, 2),
    slice(1, 3),
    slice(-2, None),
    slice(None, None, -1),
    slice(None, None, 2),
]


@tr.op(lambda g, index: Part(g, index, basic=True))
def rows_of(x: Any, index: Any = 0) -> Any:
    """`x[index]` as the kernels pull it back: of the index as it is."""
    return x[index]


def index_of(rng: np.random.Generator) -> Any:
    """An index of an array of shape (4, 3, 2): of one axis or several, from the front, the end or both."""
    keys = [KEYS[rng.integers(len(KEYS))] for _ in range(rng.integers(1, 4))]
    kind = rng.integers(5)
    if kind == 0:
        return keys[0]
    if kind == 1:
        return (*keys[:2], ...)
    if kind == 2:
        return (..., *keys[:2])
    return [..., [0, 3, 0], (slice(None), [1, 1])][rng.integers(3)] if kind == 3 else tuple(keys)


@pytest.mark.parametrize("seed", range(60))
def test_parts_of_any_indices_add_up(seed):
    rng = np.random.default_rng(seed)
    x = leaf(rng.standard_normal((4, 3, 2)))
    expected, loss = np.zeros((4, 3, 2)), 0.0
    for k in range(1, int(rng.integers(2, 7))):
        index, dense = index_of(rng), rng.integers(8) == 0
        direct = type(index) in (int, slice) and rng.random() < 0.5
        part = rows_of(x, index=index) if direct else x[index]
        loss = loss + (k * (x * 1.0 if dense else part)).sum()
        np.add.at(expected, ... if dense else index, k)
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    signs = rng.permutation(4)
    x.grad = None
    sum((x[int(i) if seed % 2 else int(i) - 4] * -0.0).sum() for i in signs[:2]).backward()
    assert np.signbit(x.grad.numpy()[signs[:2]]).all()
