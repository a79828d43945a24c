"""The traps of class Tensor: what would cut a graph silently, or answer None without a word, says so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tinygrad_rnn as tr


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


def test_functions_of_derivatives_take_tensors_with_graphs():
    w = tr.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    square = lambda x: x * x
    assert tr.jacobian(square)(w).tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert tr.grad(tr.jacobian(square)(3 * w).sum(), w).tolist() == [6.0, 6.0]
    assert tr.hessian(lambda x: (x**3).sum())(w).tolist() == [[6.0, 0.0], [0.0, 12.0]]
    for f in (tr.vjp(square, w)[1](np.ones(2))[0], tr.jvp(square, (w,), (np.ones(2),))[1]):
        assert f.tolist() == [2.0, 4.0]
    assert tr.hvp(lambda x: (x**3).sum(), (w,), (np.ones(2),))[0].tolist() == [6.0, 12.0]
