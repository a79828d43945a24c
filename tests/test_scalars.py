"""Numbers as people give them, and everything that takes one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.scalars import as_integer, as_integers, as_number, plain, real_number

nn, F = tr.nn, tr.nn.functional

INTEGERS = [np.int64, np.int32, np.uint8, np.array, tr.Tensor]
FLOATS = [np.float32, np.float64, np.float16, np.longdouble, np.array, tr.Tensor]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_kind(kind: Any) -> None:
    assert as_integer(kind(3)) == 3 and type(as_integer(kind(3))) is int
    assert as_integers([kind(3), kind(4)]) == as_integers((kind(3), kind(4))) == (3, 4)
    assert as_integers(kind(3)) == (3,)


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_of_every_kind(kind: Any) -> None:
    assert as_number(kind(0.25)) == 0.25 and type(as_number(kind(0.25))) is float
    assert as_integer(kind(3.0)) is None


def test_what_is_no_number() -> None:
    leaf = tr.Tensor(3.0, requires_grad=True)
    for value in (
        None,
        "3",
        [3],
        np.array([3]),
        3j,
        np.complex64(3),
        np.ma.masked,
        np.datetime64("2020"),
        leaf,
        object(),
    ):
        assert as_number(value) is None and as_integer(value) is None
        with pytest.raises(TypeError, match="the size must be a real number"):
            real_number("the size", value)
    for value in (True, np.True_, np.array(True), tr.Tensor(True), 3.0):
        assert as_integer(value) is None
    assert as_number(np.True_) is True
    for value in ("12", [1, 2.0], [True], [[1, 2]], None, np.ones((1, 1), int), {1: 2}):
        assert as_integers(value) is None
    assert as_integers(np.array([2, 3])) == (2, 3) and as_integers([]) == ()
    assert plain(np.ma.masked) is np.ma.masked


x = tr.ones(2, 4)
LOG_P = tr.log_softmax(tr.zeros(4, 1, 3))


def optimiser(**options: Any) -> Any:
    return tr.optim.SGD([nn.Parameter([1.0])], **options)


SIZES = {
    "reshape": lambda n: x.reshape(n(2), -1),
    "reshape of an array": lambda n: tr.reshape(x.numpy(), (n(8),)),
    "sum": lambda n: x.sum(axis=n(1)),
    "sum over two": lambda n: x.sum(axis=(n(0), n(1))),
    "std": lambda n: x.std(axis=n(1), ddof=n(1)),
    "prod": lambda n: x.prod(n(1)),
    "any": lambda n: (x > 0).any(n(1)),
    "softmax": lambda n: tr.softmax(x, n(1)),
    "transpose": lambda n: x.transpose(n(1), n(0)),
    "swapaxes": lambda n: x.swapaxes(n(0), n(1)),
    "moveaxis": lambda n: tr.moveaxis(x, n(0), n(1)),
    "squeeze": lambda n: tr.squeeze(tr.ones(2, 1), n(1)),
    "expand_dims": lambda n: tr.expand_dims(x.numpy(), n(1)),
    "flip": lambda n: tr.flip(x, n(1)),
    "tril": lambda n: tr.tril(x, n(1)),
    "pad": lambda n: tr.pad(x, ((n(1), n(2)), (n(0), n(0)))),
    "pad alike": lambda n: tr.pad(x, n(1)),
    "split": lambda n: x.split(n(2), n(1)),
    "split at": lambda n: x.split([n(1), n(2)], axis=n(1)),
    "take": lambda n: x.take(n(1), n(1)),
    "index": lambda n: x[n(1), n(0) : n(2)],
    "broadcast_to": lambda n: tr.broadcast_to(tr.ones(4), (n(2), n(4))),
    "zeros": lambda n: tr.zeros(n(2), n(3)),
    "full": lambda n: tr.full(n(2), n(7)),
    "randn": lambda n: tr.randn(n(2), n(3)),
    "arange": lambda n: tr.arange(n(0), n(3), n(1)),
    "manual_seed": lambda n: tr.manual_seed(n(3)),
    "power": lambda n: x ** n(2),
    "argnums": lambda n: tr.grad_of(lambda a, b: (a * b).sum(), n(1))(x, x),
    "Linear": lambda n: nn.Linear(n(4), n(2))(x),
    "Embedding": lambda n: nn.Embedding(n(3), n(2), padding_idx=n(1))([n(2)]),
    "LSTM": lambda n: nn.LSTM(n(4), n(2), n(2)),
    "GRUCell": lambda n: nn.GRUCell(n(4), n(2)),
    "LayerNorm": lambda n: nn.LayerNorm((n(2), n(4)))(x),
    "BatchNorm2d": lambda n: nn.BatchNorm2d(n(4)),
    "Conv2d": lambda n: nn.Conv2d(n(2), n(4), (n(3), n(3)), stride=n(1), padding=n(1), dilation=n(1), groups=n(2)),
    "MaxPool2d": lambda n: nn.MaxPool2d(n(2), n(2), n(1))(tr.ones(1, 1, 4, 4)),
    "MultiheadAttention": lambda n: nn.MultiheadAttention(n(4), n(2), kdim=n(4)),
    "AdditiveAttention": lambda n: nn.AdditiveAttention(n(4), n(4), n(4)),
    "DotAttention": lambda n: nn.DotAttention(n(4), n(4)),
    "positional_encoding": lambda n: F.positional_encoding(n(3), n(4)),
    "layer_norm": lambda n: F.layer_norm(x, n(4)),
    "sequence_mask": lambda n: F.sequence_mask([n(2), n(1)], n(2)),
    "cross_entropy": lambda n: F.cross_entropy(x, [n(1), n(2)], ignore_index=n(1)),
    "ctc_loss": lambda n: F.ctc_loss(LOG_P, [[1]], [n(4)], [n(1)], blank=n(0)),
    "Batches": lambda n: tr.data.Batches(n(5), n(2), n(1), n(3))[n(1)],
    "Streams": lambda n: tr.data.Streams(np.arange(50), n(2), n(3), n(1))[n(2)].x,
    "passage": lambda n: tr.data.passage(np.arange(4), np.arange(4, 10), n(2), n(1)).x,
    "split_at_random": lambda n: tr.data.split_at_random(n(50), seed=n(1)),
    "split_in_time": lambda n: tr.data.split_in_time(n(50), gap=n(1)),
    "folds": lambda n: tr.data.folds(n(10), n(2), n(1))[0],
    "last_values": lambda n: tr.data.last_values([1, 2, 3], n(2)),
    "StepLR": lambda n: tr.optim.StepLR(optimiser(lr=1.0), n(2), warmup=n(1)),
}
TAKES_NO_TENSOR = ("takes plain values, not a Tensor", "are the tensors in a list")  # an op could give it no gradient


@pytest.mark.parametrize("what", SIZES)
def test_integers_of_numpy_are_sizes(what: str) -> None:
    expected = SIZES[what](int)
    for kind in INTEGERS:
        if kind is tr.Tensor:
            try:
                found = SIZES[what](kind)
            except TypeError as error:
                assert any(words in str(error) for words in TAKES_NO_TENSOR)
                continue
        else:
            found = SIZES[what](kind)
        assert repr(found) == repr(expected) or what in ("randn", "Linear", "Embedding")


RATES = {
    "Dropout": lambda v: nn.Dropout(v(0.25)),
    "LSTM": lambda v: nn.LSTM(3, 4, 2, dropout=v(0.25), recurrent_dropout=v(0.5)),
    "forget_bias": lambda v: nn.LSTM(1, 1, forget_bias=v(0.5)).extra_repr(),
    "MultiheadAttention": lambda v: nn.MultiheadAttention(4, 2, v(0.25)),
    "LayerNorm": lambda v: nn.LayerNorm(4, v(0.25)),
    "BatchNorm1d": lambda v: nn.BatchNorm1d(4, v(0.25), v(0.5)),
    "LeakyReLU": lambda v: nn.LeakyReLU(v(0.25)),
    "clip": lambda v: tr.clip(x, v(0.25), v(0.5)),
    "huber_loss": lambda v: F.huber_loss(x, tr.zeros(2, 4), delta=v(0.25)),
    "label_smoothing": lambda v: F.cross_entropy(x, [1, 2], label_smoothing=v(0.25)),
    "SGD": lambda v: optimiser(lr=v(0.25), momentum=v(0.5)),
    "full": lambda v: tr.full((2,), v(0.25)),
    "arange": lambda v: tr.arange(v(0.0), v(1.0), v(0.25)),
    "pad": lambda v: tr.pad(x, 1, v(0.25)),
    "pad_sequences": lambda v: tr.data.pad_sequences([[1.0], [1.0, 2.0]], v(0.25)),
    "constant_": lambda v: nn.init.constant_(nn.Parameter(tr.zeros(2)), v(0.25)),
    "multiply": lambda v: x * v(0.5),
    "power": lambda v: (x * 4) ** v(0.5),
    "where": lambda v: tr.where(x > 0, v(0.5), x),
}


@pytest.mark.parametrize("what", RATES)
def test_floats_of_numpy_are_rates(what: str) -> None:
    expected = repr(RATES[what](float))
    for kind in FLOATS[:4]:
        assert repr(RATES[what](kind)) == expected


def test_flags_of_numpy() -> None:
    layer = nn.LSTM(2, 3, bias=np.False_, bidirectional=np.True_, batch_first=np.array(True))
    assert layer.extra_repr() == "2, 3, bias=False, batch_first=True, bidirectional=True"
    assert x.sum(keepdims=np.True_).shape == (1, 1) and nn.Linear(2, 2, bias=np.False_).bias is None
    assert tr.Tensor([1.0], requires_grad=np.True_).requires_grad


def test_what_is_no_size_or_axis_is_refused() -> None:
    for size in (True, 2.0, "2", None, [2], 0, -1):
        with pytest.raises(ValueError, match="in_features must be a positive integer"):
            nn.Linear(size, 2)
    for axis in (True, np.True_, 1.0, "0"):
        for f in (
            lambda axis: tr.take(x, [0], axis=axis),
            lambda axis: tr.swapaxes(x, axis, 0),
            lambda axis: tr.stack([x], axis=axis),
            lambda axis: tr.squeeze(tr.ones(1, 1), axis=axis),
            lambda axis: tr.expand_dims(x, axis),
            lambda axis: tr.split(x, 2, axis=axis),
        ):
            with pytest.raises(TypeError, match="must be an integer"):
                f(axis)
    for y in (x, tr.ones(3), tr.ones(1)):
        with pytest.raises((TypeError, ValueError)):
            tr.cumsum(y, axis=())
    for shape in (2.0, "2", [2.0], None):
        with pytest.raises(TypeError):
            tr.zeros(shape)
        with pytest.raises(TypeError):
            tr.reshape(x, shape)
    with pytest.raises(TypeError, match="a seed is an integer"):
        tr.manual_seed(1.5)
    with pytest.raises(ValueError, match="kdim must be a positive integer, got 0"):
        nn.MultiheadAttention(4, 2, kdim=0)
