"""Linear, Embedding, Dropout and the initialisers."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.reference import assert_close
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import init


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead: tuple[int, ...], bias: bool) -> None:
    layer = tr.nn.Linear(4, 2, bias, dtype="float64")
    rng = np.random.default_rng(0)
    x = tr.Tensor(rng.standard_normal((*lead, 4)), requires_grad=True)
    y = layer(x)
    W = layer.weight.numpy()
    b = layer.bias.numpy() if layer.bias is not None else np.zeros(2)
    assert_close(y.numpy(), x.numpy() @ W.T + b, 1e-14)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    assert x.grad is not None and layer.weight.grad is not None
    assert_close(x.grad.numpy(), g @ W, 1e-14)
    assert_close(layer.weight.grad.numpy(), g.reshape(-1, 2).T @ x.numpy().reshape(-1, 4), 1e-13)
    if layer.bias is not None:
        assert layer.bias.grad is not None
        assert_close(layer.bias.grad.numpy(), g.reshape(-1, 2).sum(0), 1e-13)


def test_linear_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"in_features is 4, but the input has shape \(2, 3\)"):
        tr.nn.Linear(4, 2)(tr.zeros(2, 3))
    with pytest.raises(ValueError, match="out_features must be a positive integer, got 0"):
        tr.nn.Linear(4, 0)


def test_linear_weights_are_drawn_as_documented() -> None:
    layer = tr.nn.Linear(25, 400)
    assert 0.19 < np.abs(layer.weight.numpy()).max() <= 0.2
    assert layer.bias is not None and 0.19 < np.abs(layer.bias.numpy()).max() <= 0.2


def test_embedding_and_its_gradient() -> None:
    layer = tr.nn.Embedding(6, 3, dtype="float64")
    ids = np.array([[1, 1], [5, 0]])
    y = layer(ids)
    assert (y.numpy() == layer.weight.numpy()[ids]).all()
    g = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(g)
    expected = np.zeros((6, 3))
    np.add.at(expected, ids, g)
    assert layer.weight.grad is not None
    assert_close(layer.weight.grad.numpy(), expected, 1e-14)
    assert layer([]).shape == (0, 3)
    assert layer(tr.Tensor(ids)).shape == (2, 2, 3)
    assert layer(2).shape == (3,)


@pytest.mark.parametrize("bad", [6, -1, 100])
def test_embedding_names_an_id_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"id {bad} \(element 2\) is out of range for 6 classes: 0 to 5"):
        tr.nn.Embedding(6, 3)([[0, 1], [bad, 5]])


def test_embedding_takes_integers_only() -> None:
    with pytest.raises(DTypeError, match="ids must be integers, got float32"):
        tr.nn.Embedding(6, 3)([0.5])
    with pytest.raises(DTypeError, match="bool"):
        tr.nn.Embedding(6, 3)([True])


def test_dropout() -> None:
    x = tr.ones(200, 50, requires_grad=True)
    layer = tr.nn.Dropout(0.25)
    tr.manual_seed(0)
    y = layer(x)
    values = y.numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((values == 0).mean() - 0.25) < 0.02 and abs(values.mean() - 1) < 0.02
    (dx,) = tr.grad(y.sum(), [x])
    assert (dx.numpy() == values).all()
    tr.manual_seed(0)
    assert (layer(x).numpy() == values).all()
    assert (layer(x).numpy() != values).any()
    assert layer.eval()(x) is x
    assert (tr.nn.Dropout(1.0)(x).numpy() == 0).all() and tr.nn.Dropout(0)(x) is x
    assert tr.nn.Dropout(0.5)(tr.ones(3, dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "half", True])
def test_dropout_checks_its_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        tr.nn.Dropout(p)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        tr.nn.functional.dropout(tr.ones(1), p)


def test_checkpoint_replays_dropout() -> None:
    layer = tr.nn.Dropout(0.5)
    x = tr.ones(100, requires_grad=True)
    tr.manual_seed(1)
    mask = layer(x).numpy()
    tr.manual_seed(1)
    loss = tr.checkpoint(layer, x).sum()
    layer.eval()
    tr.rand(10)
    (dx,) = tr.grad(loss, [x])
    assert (dx.numpy() == mask).all()


def test_initialisers() -> None:
    tr.manual_seed(0)
    p = tr.nn.Parameter(tr.zeros(200, 100))
    assert init.uniform_(p, -2.0, -1.0) is p
    assert p.numpy().min() >= -2 and p.numpy().max() <= -1 and p.requires_grad
    assert abs(init.normal_(p, 3.0, 0.1).numpy().mean() - 3) < 0.01
    assert (init.constant_(p, 1.5).numpy() == 1.5).all()
    bound = np.sqrt(6 / 300)
    assert 0.99 * bound < np.abs(init.xavier_uniform_(p).numpy()).max() <= bound
    for shape in ((5, 3), (3, 5), (4, 4)):
        q = init.orthogonal_(tr.nn.Parameter(tr.zeros(shape, dtype="float64")), gain=2.0).numpy()
        product = q @ q.T if shape[0] < shape[1] else q.T @ q
        assert_close(product, 4 * np.eye(min(shape)), 1e-12)
    generator = np.random.default_rng(3)
    one = init.normal_(tr.nn.Parameter(tr.zeros(3)), generator=np.random.default_rng(3))
    assert (one.numpy() == generator.normal(0, 1, 3).astype("float32")).all()
    with pytest.raises(ShapeError, match="a matrix is needed"):
        init.orthogonal_(tr.nn.Parameter(tr.zeros(3)))


def test_initialising_leaves_what_was_handed_out_as_it_was() -> None:
    p = tr.nn.Parameter(tr.zeros(3))
    before = p.numpy()
    init.constant_(p, 1.0)
    assert (before == 0).all()
