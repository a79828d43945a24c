"""Indexing: values by NumPy, gradients against a naive np.add.at, first and second order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.tensor.backend import WIDE, scatter_add
from tinygrad_rnn.testing import check_gradients
from tinygrad_rnn.testing.strategies import indices, layouts, seeds, shapes


def array(shape, seed=0, layout="C"):
    from tinygrad_rnn.testing import Case, Domain, Real

    domain = Domain(tr.exp, "*", np.exp, (Real(-2, 2),))
    return Case((shape,), {}, (layout,), seed).arrays(domain)[0]


def by_hand(x, index, g):
    """What indexing pulls back, the slow way."""
    dx = np.zeros(x.shape, x.dtype)
    np.add.at(dx, index, g)
    return dx


def check(x, index, second=True):
    expected = np.asarray(x[index])
    y = tr.Tensor(x)[index]
    assert y.shape == expected.shape
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.numpy(), expected)
    np.testing.assert_array_equal(tr.getitem(x, index), expected)

    rng = np.random.default_rng(0)
    u = rng.standard_normal(expected.shape).astype(x.dtype)
    leaf = tr.Tensor(x, requires_grad=True)
    leaf[index].backward(tr.Tensor(u))
    assert leaf.grad.dtype == x.dtype
    np.testing.assert_allclose(leaf.grad.numpy(), by_hand(x, index, u), rtol=1e-12, atol=1e-13)
    # the gradient of <x[index], x[other]>, where two parts meet in one sum, is what two backwards give
    leaf = tr.Tensor(x, requires_grad=True)
    (leaf[index] * leaf[index] * tr.Tensor(u)).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), by_hand(x, index, 2 * u * expected), rtol=1e-12, atol=1e-13)
    if not second:
        return
    leaf, v = tr.Tensor(x, requires_grad=True), rng.standard_normal(x.shape)
    (slope,) = tr.grad(tr.sum(leaf[index] ** 3), [leaf], create_graph=True)
    np.testing.assert_allclose(slope.numpy(), by_hand(x, index, 3 * expected**2), rtol=1e-12, atol=1e-13)
    (curvature,) = tr.grad(slope, [leaf], gradient=tr.Tensor(v))
    hand = by_hand(x, index, 6 * expected * np.asarray(v[index]))
    np.testing.assert_allclose(curvature.numpy(), hand, rtol=1e-12, atol=1e-12)


@given(data=st.data(), shape=shapes(max_dims=3), seed=seeds(), layout=layouts())
@pytest.mark.parametrize("kind", ["basic", "advanced", "mixed"])
def test_any_index(kind, data, shape, seed, layout):
    x = array(shape, seed, layout)
    check(x, data.draw(indices(shape, basic=kind != "advanced", advanced=kind != "basic")))


def shape_4_3_5():
    return array((4, 3, 5))


MASK = np.array([True, False, True, True])
EXAMPLES = {
    "integer": 1,
    "negative integer": -2,
    "all integers": (1, -1, 2),
    "NumPy integer": np.int64(2),
    "slice": slice(1, 3),
    "negative step": slice(None, None, -1),
    "long negative step": (slice(3, 0, -2), slice(None, None, 2), slice(-1, None, -3)),
    "empty slice": slice(3, 1),
    "slice out of range": slice(2, 100),
    "None": (None, slice(None), None, 0),
    "Ellipsis alone": Ellipsis,
    "Ellipsis first": (Ellipsis, 1),
    "Ellipsis between": (0, Ellipsis, -1),
    "Ellipsis for nothing": (0, 1, Ellipsis, 2),
    "nothing": (),
    "True": True,
    "mask of rows": MASK,
    "mask of two axes": array((4, 3), 1) > 0,
    "mask of all": array((4, 3, 5), 1) > 0,
    "mask after a slice": (slice(None), np.array([True, False, True])),
    "mask of nothing": np.zeros(4, bool),
    "mask with an integer": (MASK, 1),
    "mask with integers": (MASK, np.array([0, 2, 2])),
    "integers": np.array([0, 2, 1]),
    "repeated integers": np.array([1, 1, 3, 1]),
    "negative integers that repeat positive ones": np.array([3, -1, -4, 0]),
    "2-D integers": np.array([[0, 1], [1, 1]]),
    "0-d integers": np.array(2),
    "no integers": np.array([], np.int64),
    "list": [0, 0, 2],
    "list of booleans": [True, False, False, True],
    "pairs": (np.array([0, 0, 3]), np.array([1, 1, -1])),
    "pairs with an axis between": (np.array([0, 0, 3]), slice(None), np.array([1, 1, -1])),
    "pairs that broadcast": (np.array([[0], [3]]), np.array([1, 1, 2])),
    "triples": (np.array([0, 0]), np.array([1, 1]), np.array([4, -1])),
    "integers after a slice": (slice(1, None), np.array([2, 2, 0])),
    "integers and a negative step": (np.array([2, 2]), slice(None, None, -1), slice(1, 4)),
    "integers, None and Ellipsis": (None, np.array([1, 1]), Ellipsis, -1),
    "integers and an integer": (np.array([1, 1]), 0),
    "integers apart from an integer": (0, slice(None), np.array([1, 1])),
    "unsigned integers": np.array([1, 1, 3], np.uint8),
    "small integers": (np.array([1, 1, 3], np.int8), slice(None), np.array([0, 4, 4], np.int16)),
}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("layout", ["C", "reversed", "stride 0"])
def test_an_index(name, layout):
    check(array((4, 3, 5), layout=layout), EXAMPLES[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_numeric_derivative_of_an_index(name):
    check_gradients(lambda x: x[EXAMPLES[name]] * x[EXAMPLES[name]], array((4, 3, 5)), order=2, analytic=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", ["slice", "repeated integers", "pairs", "mask of two axes"])
def test_dtype_of_the_gradient(name, dtype):
    x = tr.Tensor(array((4, 3, 5)).astype(dtype), requires_grad=True)
    x[EXAMPLES[name]].sum().backward()
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(x.grad.numpy(), by_hand(x.numpy(), EXAMPLES[name], dtype(1)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("width", [WIDE - 1, WIDE])
def test_rows_of_any_width_add_up(width, dtype):
    """Wide rows are added one by one, others are sorted first."""
    ids, g = np.array([[2, 0, 3], [2, 2, 0]]), array((2, 3, width)).astype(dtype)
    start = array((4, width), 1).astype(dtype)
    expected = start.astype(np.float64)
    np.add.at(expected, ids, g)
    found = scatter_add(start.copy(), ids, g)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


def test_tensors_as_indices():
    x = array((4, 3))
    ids = np.array([[0, 2], [2, -1]])
    for index, same in (
        (tr.Tensor(ids), ids),
        ((tr.Tensor(ids), 1), (ids, 1)),
        ((slice(None), tr.Tensor(np.array([1, 1]))), (slice(None), np.array([1, 1]))),
        (tr.Tensor(x) > 0, x > 0),
        (tr.Tensor(np.array(1)), 1),
    ):
        leaf = tr.Tensor(x, requires_grad=True)
        y = leaf[index]
        np.testing.assert_array_equal(y.numpy(), x[same])
        y.sum().backward()
        np.testing.assert_array_equal(leaf.grad.numpy(), by_hand(x, same, 1.0))


def test_an_index_written_to_later_changes_nothing():
    x = tr.Tensor(array((4, 3)), requires_grad=True)
    ids, mask = np.array([0, 1]), np.array([True, False, False, True])
    y = x[ids].sum() + 2 * x[mask].sum()
    ids[:] = 3
    mask[:] = True
    y.backward()
    assert x.grad.numpy()[:, 0].tolist() == [3.0, 1.0, 0.0, 2.0]


def test_many_parts_of_one_tensor_are_one_sum():
    """A loop over time: each step is a part of x, x is used whole besides, and parts of parts are parts."""
    x = array((6, 3))

    def f(x):
        h = x[0] * 0.5
        for row in x:
            h = tr.tanh(row[1:2] * h) + row
        return h + tr.sum(x * x[::-1]) + tr.sum(x[2:][1:, ::2] ** 2) + x[[1, 1, 2]].sum()

    check_gradients(f, x, order=2, analytic=True)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (4, ["4", "axis 0", "length 4"]),
        (-5, ["-5", "axis 0", "length 4"]),
        ((0, 3), ["3", "axis 1", "length 3"]),
        ((Ellipsis, 3), ["3", "axis 1", "length 3"]),
        (np.array([0, 7]), ["7", "axis 0", "length 4"]),
        (np.array([0, -9]), ["-9", "axis 0", "length 4"]),
        ((slice(None), np.array([[0], [3]])), ["3", "axis 1", "length 3"]),
    ],
)
def test_an_index_out_of_range_is_named(index, words):
    with pytest.raises(IndexError) as caught:
        tr.Tensor(array((4, 3)))[index]
    message = str(caught.value)
    for word in words:
        assert word.split()[-1] in message, message


@pytest.mark.parametrize(
    "index",
    [
        (0, 0, 0),
        1.5,
        "a",
        np.array([0.5]),
        (Ellipsis, Ellipsis),
        np.ones(3, bool),
        (np.zeros(2, int), np.zeros(3, int)),
    ],
)
def test_an_index_that_fits_nothing_is_refused(index):
    with pytest.raises((IndexError, TypeError, ValueError)):
        tr.Tensor(array((4, 3)), requires_grad=True)[index]


def test_iteration_and_length():
    x = tr.Tensor(array((4, 3)), requires_grad=True)
    rows = list(x)
    assert len(rows) == len(x) == 4
    sum((t + 1) * row.sum() for t, row in enumerate(rows)).backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.arange(1.0, 5)[:, None] * np.ones(3))


# --- take and take_along_axis -------------------------------------------------------------------------------


@given(data=st.data(), shape=shapes(min_dims=1, min_side=1), ids=shapes(max_dims=2, max_side=3), seed=seeds())
def test_take(data, shape, ids, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    ids = np.random.default_rng(seed).integers(-n, n, ids)
    x = array(shape, seed)
    key = (slice(None),) * (axis % len(shape)) + (ids,)
    np.testing.assert_array_equal(tr.take(tr.Tensor(x), ids, axis=axis).numpy(), np.take(x, ids, axis))
    u = np.random.default_rng(seed).standard_normal(np.take(x, ids, axis).shape)
    for index in (ids, tr.Tensor(ids)):
        leaf = tr.Tensor(x, requires_grad=True)
        tr.take(leaf, index, axis=axis).backward(tr.Tensor(u))
        np.testing.assert_allclose(leaf.grad.numpy(), by_hand(x, key, u), rtol=1e-12, atol=1e-13)
    check_gradients(lambda x: tr.take(x, ids, axis=axis) ** 2, x, order=2, analytic=True)


@given(data=st.data(), shape=shapes(min_dims=1, min_side=1), seed=seeds(), k=st.integers(0, 3))
def test_take_along_axis(data, shape, seed, k):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    size = list(shape)
    size[axis] = k
    ids = np.random.default_rng(seed).integers(-n, n, size)
    x = array(shape, seed)
    expected = np.take_along_axis(x, ids, axis)
    np.testing.assert_array_equal(tr.take_along_axis(tr.Tensor(x), ids, axis=axis).numpy(), expected)
    u = np.random.default_rng(seed).standard_normal(expected.shape)
    dx = np.zeros(x.shape)
    for at in np.ndindex(*ids.shape):
        to = list(at)
        to[axis] = ids[at]
        dx[tuple(to)] += u[at]
    leaf = tr.Tensor(x, requires_grad=True)
    tr.take_along_axis(leaf, tr.Tensor(ids), axis=axis).backward(tr.Tensor(u))
    np.testing.assert_allclose(leaf.grad.numpy(), dx, rtol=1e-12, atol=1e-13)
    check_gradients(lambda x: tr.take_along_axis(x, ids, axis=axis) ** 2, x, order=2, analytic=True)


def test_take_out_of_range_is_named():
    x = tr.Tensor(array((4, 3)))
    for ids in ([0, 4], [-5]):
        with pytest.raises(IndexError, match=str(ids[-1])):
            tr.take(x, np.array(ids), axis=0)
        with pytest.raises(IndexError, match=str(ids[-1])):
            tr.take_along_axis(x, np.array([ids[-1:] * 3]), axis=0)
    with pytest.raises((IndexError, TypeError)):
        tr.take(x, np.array([0.5]), axis=0)


def test_sequences_in_an_index_are_arrays():
    for key in ((0, 0), [0, 0], range(2)):
        x = tr.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = x[key,]
        y.sum().backward()
        expected = np.zeros(3)
        np.add.at(expected, list(key), 1.0)
        assert x.grad.tolist() == expected.tolist()
    with pytest.raises(IndexError, match="not str"):
        x["a"]
