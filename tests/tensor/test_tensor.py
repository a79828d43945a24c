"""class Tensor: what would cut a graph silently, or answer None without a word, says so; conversions, moves, copies."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import leaf
from tinygrad_rnn.tensor import ops


@pytest.fixture
def y():
    return 2 * tr.Tensor([1.0, 2.0], requires_grad=True)


@pytest.mark.parametrize("kind", [tr.Tensor, tr.nn.Parameter])
def test_a_tensor_of_a_tensor_with_a_graph_is_refused(kind, y):
    for with_graph in (y, tr.Tensor([1.0], requires_grad=True)):
        with pytest.raises(TypeError, match=rf"{kind.__name__}\(y\) .* would cut the graph silently: .*detach\(\)"):
            kind(with_graph)
    assert kind(y.detach()).tolist() == kind(tr.Tensor([2.0, 4.0])).tolist() == [2.0, 4.0]
    with tr.no_grad():
        assert tr.Tensor(2 * y).tolist() == [4.0, 8.0]


def test_a_list_of_tensors_with_graphs_names_stack(y):
    for make in (tr.Tensor, np.array, np.asarray, tr.sum, lambda x: tr.Tensor([0.0]) + x):
        for rows in ([y, y], [[y], [y]], (y[0], 1.0)):
            with pytest.raises(TypeError, match=r"would cut the graph silently.*tr\.stack.*detach"):
                make(rows)
    assert tr.Tensor([y.detach(), y.detach()]).tolist() == [[2.0, 4.0], [2.0, 4.0]]


def test_grad_of_a_computed_tensor_warns_and_names_retain_grad(y):
    y.sum().backward(retain_graph=True)
    with pytest.warns(UserWarning, match=r"\.grad of the output of multiply is None: .* \.retain_grad\(\)") as caught:
        assert y.grad is None
    assert caught[0].filename == __file__
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    assert y.grad.tolist() == [1.0, 1.0]


def test_grad_that_may_be_none_does_not_warn(y):
    x = tr.Tensor([1.0], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.grad is None
        assert tr.Tensor([1.0]).grad is None
        assert y.detach().grad is None
        y.retain_grad()
        assert y.grad is None  # asked for, and no backward yet
        y.grad = None
        z = 3 * y
        z.grad = np.ones(2)
        assert z.grad.tolist() == [1.0, 1.0]
        z.grad = None
        with tr.no_grad():
            assert (2 * x).grad is None


def test_the_classic_that_ends_a_training_says_why():
    w = tr.Tensor([1.0], requires_grad=True)
    (w * w).sum().backward()
    w = w - 0.1 * w.grad
    (w * w).sum().backward()
    with pytest.warns(UserWarning, match="output of subtract"):
        assert w.grad is None


def test_the_gradient_of_a_backward_must_have_the_shape():
    y = leaf(np.ones((2, 3))) * 2
    with pytest.raises(tr.errors.ShapeError, match=r"\(2, 3\).*one element only"):
        y.backward()
    for wrong in (np.ones(3), np.ones((3, 2)), 1.0):
        with pytest.raises(tr.errors.ShapeError, match=r"for a tensor of shape \(2, 3\)"):
            y.backward(wrong)
    y.backward(np.ones((2, 3)))


def test_backward_needs_a_gradient_to_reach():
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        tr.zeros(1).backward()


def test_inner_tensors_have_no_grad_unless_asked():
    x = leaf([1.0])
    y = x * 2
    y.sum().backward()
    with pytest.warns(UserWarning, match="retain_grad"):
        assert y.grad is None


def test_detach_cuts_the_graph():
    x = leaf([3.0])
    y = (x * x).detach()
    assert not y.requires_grad
    (y * x).sum().backward()
    assert x.grad.tolist() == [9.0]


def test_leaves_are_copied_and_pickled_and_computed_tensors_are_not():
    x = leaf([1.0, 2.0])
    x.grad = tr.Tensor([1.0, 1.0])
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):  # noqa: S301 (our own bytes)
        assert twin.tolist() == [1, 2]
        assert twin.requires_grad
        assert twin.dtype == "float64"
        assert not np.shares_memory(twin.numpy(), x.numpy())
    for copier in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"made by multiply: \.detach\(\) it first"):
            copier(x * 2)


def test_conversions():
    x = tr.Tensor(2.5)
    assert float(x) == 2.5
    assert int(tr.Tensor(3)) == 3
    assert [10, 20][tr.Tensor(1)] == 20
    assert f"{x:.2f}" == "2.50"
    assert bool(tr.Tensor(True))
    assert len(tr.zeros(3, 2)) == 3
    assert [row.shape for row in tr.zeros(3, 2)] == [(2,)] * 3
    assert 2.5 in tr.Tensor([1.0, 2.5])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tr.zeros(2))
    with pytest.raises(TypeError, match="0-d"):
        len(x)
    with pytest.raises(tr.errors.ShapeError, match="one element"):
        tr.zeros(2).item()
    with pytest.raises(AttributeError):
        x.gard = None


def test_dlpack_copies():
    x = tr.Tensor([1.0, 2.0])
    array = np.from_dlpack(x)
    assert array.tolist() == [1, 2]
    assert not np.shares_memory(array, x.numpy())
    with pytest.raises(BufferError, match="detach"):
        np.from_dlpack(leaf([1.0]))


def test_the_repr_helps():
    x = leaf([1.0, 2.0], "float32")
    assert repr(x) == "Tensor([1., 2.], dtype=float32, requires_grad=True)"
    assert repr(x.tanh()).endswith("dtype=float32, made_by=tanh)")
    assert repr(tr.Tensor([[1, 2], [3, 4]])) == "Tensor([[1, 2],\n        [3, 4]], dtype=int64)"
    assert "..." in repr(tr.zeros(5000))


def test_to_changes_dtype_with_a_gradient():
    x = leaf([1.0, 2.0], "float32")
    y = x.to("float64")
    assert y.dtype == "float64"
    (y * y).sum().backward()
    assert x.grad.dtype == "float32"
    assert x.grad.tolist() == [2, 4]
    with pytest.raises(tr.errors.DTypeError, match="float31"):
        x.to("float31")


def test_the_gradient_of_a_move_is_moved_back():
    x = leaf([1.0, 2.0])
    y = ops.to_device(x, device="cpu", source="cpu")  # `to` would not move it
    assert y is not x
    (y * np.array([3.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [3, 5]


def test_requires_grad_may_be_set_on_leaves_only():
    x = tr.zeros(2)
    x.requires_grad = True
    (x * 1.0).sum().backward()
    assert x.grad is not None
    x.requires_grad = False
    assert not (x * 2).requires_grad
    y = leaf([1.0]) * 2
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False


def test_flatten_is_a_reshape():
    x = leaf(np.arange(6.0).reshape(2, 3))
    y = x.flatten()
    assert y.tolist() == [0, 1, 2, 3, 4, 5]
    (y * np.arange(6.0)).sum().backward()
    assert x.grad.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_masks_are_combined_as_numpys():
    x = tr.Tensor([1.0, 2.0, 3.0])
    a = x.numpy()
    for f in (
        lambda x: (x == 1) | (x == 2),
        lambda x: (x > 1) & (x < 3),
        lambda x: (x > 1) ^ (x > 2),
        lambda x: ~(x == 1),
        lambda x: (x == 1).any(),
        lambda x: (x >= 1).all(),
        lambda x: (x > 1) & True,
        lambda x: False | (x > 1),
        lambda x: True ^ (x > 1),
        lambda x: (x > 1) & np.array([True, True, False]),
    ):
        found = f(x)
        assert isinstance(found, tr.Tensor) and found.dtype == bool and not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), f(a))
    mask = x > 1
    assert (np.array([True, True, False]) & mask).tolist() == [False, True, False]
    assert ([True, True, False] | mask).tolist() == [True, True, True]
    mask &= x < 3
    mask |= x == 1
    mask ^= True
    assert mask.tolist() == [False, False, True]
    for axis in (None, 0, 1, (0, 1)):
        table = np.array([[True, False, True], [False, False, True]])
        for name in ("any", "all"):
            for keepdims in (False, True):
                found = getattr(tr.Tensor(table), name)(axis, keepdims)
                np.testing.assert_array_equal(found.numpy(), getattr(table, name)(axis=axis, keepdims=keepdims))
    assert tr.zeros(0).all().item() is True and tr.zeros(0).any().item() is False
    assert not tr.any(tr.Tensor([[]])).item()


def test_bits_of_integers_and_truth_of_numbers_are_numpys():
    a, b = np.array([6, -3, 7], np.int32), np.array([3, 5, 0], np.int64)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "logical_xor"):
        found, expected = getattr(tr, name)(tr.Tensor(a), tr.Tensor(b)), getattr(np, name)(a, b)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found.numpy(), expected)
    assert (~tr.Tensor(a)).tolist() == (~a).tolist() and (tr.Tensor(a) & 2).dtype == np.int32
    assert tr.logical_not(tr.Tensor([0.0, np.nan, 2.0])).tolist() == [True, False, False]
    assert tr.logical_and(tr.Tensor([0.0, 0.5]), 1.0).tolist() == [False, True]
    assert tr.logical_xor(tr.Tensor([1.0, 0.0], requires_grad=True), [True, True]).requires_grad is False
    assert tr.all(tr.Tensor([1.0, np.nan])).item() is True and tr.any([0, 0]) == np.False_
    for f in (lambda x: x & x, lambda x: x | True, lambda x: x ^ 1, lambda x: ~x, lambda x: (x > 1) & 1.0):
        with pytest.raises(tr.errors.DTypeError, match="of booleans and integers, not"):
            f(tr.Tensor([1.0, 2.0]))


def test_the_truth_of_many_names_any_and_all():
    with pytest.raises(ValueError, match=r"use \.any\(\) or \.all\(\)"):
        bool(tr.ones(2) > 0)
