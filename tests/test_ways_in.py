"""One gate for what becomes a tensor: what it lets in, from every side, and what it refuses by name."""

from __future__ import annotations

import datetime
import decimal
import fractions
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.tensor import backend

nn, F = tr.nn, tr.nn.functional

REFUSED = {
    "complex": (1j, "complex"),
    "NumPy's complex": (np.complex64(1j), "complex"),
    "complex array": (np.array([1 + 2j, 3]), "complex"),
    "complex list": ([1j, 2.0], "complex"),
    "text": ("1", "text|str"),
    "texts": (["1", "2"], "text"),
    "text array": (np.array(["1", "2"]), "text"),
    "bytes": (b"12", "text|bytes"),
    "None in a list": ([None, 1.0], "NoneType"),
    "object array": (np.array([None, 1.0], object), "NoneType"),
    "numbers as objects": (np.array([1, 2], object), "objects|more than 64 bits"),
    "date": (datetime.date(2020, 1, 1), "date"),
    "dates": (np.array(["2020", "2021"], "M8[Y]"), "dates"),
    "a date of NumPy": (np.datetime64("2020-01-01"), "dates"),
    "spans": (np.array([1, 2], "m8[s]"), "spans of time"),
    "records": (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), "records"),
    "masked": (np.ma.array([1.0, 2.0], mask=[False, True]), "masked array"),
    "masked in a list": ([np.ma.array([1.0], mask=[True]), [2.0]], "masked array"),
    "the masked number": ([np.ma.masked, 1.0], "masked array"),
    "decimals": ([decimal.Decimal("0.1"), 1], "Decimal"),
    "fractions": ([fractions.Fraction(1, 2), 1], "Fraction"),
    "more than 64 bits": ([2**70, 1], "more than 64 bits"),
    "a set": ({1, 2}, "set"),
    "a function": (print, "builtin_function"),
}


def leaf() -> Any:
    return nn.Parameter([1.0, 2.0])


WAYS = {
    "Tensor": lambda v: tr.Tensor(v),
    "Tensor, float32": lambda v: tr.Tensor(v, dtype="float32"),
    "Tensor, int64": lambda v: tr.Tensor(v, dtype="int64"),
    "Tensor, bool": lambda v: tr.Tensor(v, dtype=bool),
    "Parameter": lambda v: nn.Parameter(v, "float32"),
    "buffer": lambda v: nn.Tanh().register_buffer("b", v),
    "add": lambda v: leaf() + v,
    "radd": lambda v: tr.add(v, leaf()),
    "power": lambda v: leaf() ** v,
    "matmul": lambda v: leaf() @ v,
    "equal": lambda v: leaf() == v,
    "less": lambda v: leaf() < v,
    "and": lambda v: (leaf() > 1) & v,
    "where": lambda v: tr.where([True, False], v, leaf()),
    "stack": lambda v: tr.stack([leaf(), v]),
    "maximum": lambda v: tr.maximum(leaf(), v),
    "a list alone": lambda v: tr.exp([v]) if isinstance(v, str | set) else tr.Tensor(v),
    "grad": lambda v: setattr(leaf(), "grad", v),
    "backward": lambda v: (leaf() * 1).backward(v),
    "tr.grad": lambda v: (lambda p: tr.grad(p * 1, p, v))(leaf()),
    "assign_": lambda v: leaf().assign_(v),
    "load_state_dict": lambda v: nn.Linear(2, 1, bias=False).load_state_dict({"weight": v}),
    "mse_loss": lambda v: F.mse_loss(leaf(), v),
    "cross_entropy": lambda v: F.cross_entropy(tr.zeros(2, 3), v),
    "lengths": lambda v: F.sequence_mask(v, 2),
    "Linear": lambda v: nn.Linear(2, 2)(v),
    "Embedding": lambda v: nn.Embedding(3, 2)(v),
    "pad_sequences": lambda v: tr.data.pad_sequences([[1.0, 2.0], v]),
    "last_values": lambda v: tr.data.last_values(v, 2),
    "accuracy": lambda v: tr.training.accuracy([1, 2], v),
    "perplexity": lambda v: tr.training.perplexity(v),
    "sample": lambda v: tr.decoding.sample(v, np.random.default_rng(0)),
    "greedy_search": lambda v: tr.decoding.greedy_search(lambda last, h: ([v], h), None, 0, count=1, length=1),
    "beam_search": lambda v: tr.decoding.beam_search(lambda last, h: ([v], h), None, 0, length=1),
    "ctc_best_path": lambda v: tr.decoding.ctc_best_path([[v]]),
    "ctc_beam_search": lambda v: tr.decoding.ctc_beam_search([[v]]),
    "log_mel": lambda v: tr.data.log_mel(v, 8000),
    "decode": lambda v: tr.data.Vocabulary("abc").decode(v),
    "decode words": lambda v: tr.data.WordVocabulary(("a", "b", "c")).decode(v),
    "Streams": lambda v: tr.data.Streams(v, 1, 1),
    "passage": lambda v: tr.data.passage(np.arange(3), v, 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_no_tensor_holds_is_refused_on_every_way_in(way: str) -> None:
    for kind, (value, _) in REFUSED.items():
        with pytest.raises((TypeError, ValueError)):
            print(f"{way} takes {kind}:", WAYS[way](value))


@pytest.mark.parametrize("kind", REFUSED)
def test_the_gate_names_what_it_refuses(kind: str) -> None:
    value, named = REFUSED[kind]
    for dtype in (None, "float32", "int64", "bool"):
        with pytest.raises(DTypeError, match=named):
            tr.Tensor(value, dtype=dtype)


@pytest.mark.parametrize(
    "way",
    [
        lambda v: tr.data.Vocabulary("abc").decode(v),
        lambda v: tr.data.WordVocabulary(("a", "b", "c")).decode(v),
        lambda v: tr.data.Streams(v, 1, 1),
        lambda v: tr.data.passage(np.arange(3), v, 1),
        lambda v: tr.data.passage(v, np.arange(3), 1),
        lambda v: tr.decoding.ctc_best_path(np.zeros((3, 2, 2)), v),
        lambda v: tr.decoding.ctc_beam_search(np.zeros((3, 2, 2)), v),
    ],
)
def test_ids_and_lengths_are_integers(way: Any) -> None:
    """1.9 is not 1."""
    way([1, 2])
    for wrong in ([1.9, 1.0], np.array([1.0, 2.0]), [True, False], tr.Tensor([1.0, 2.0])):
        with pytest.raises(DTypeError, match="integers"):
            way(wrong)


def test_none_is_refused_where_it_means_nothing() -> None:
    for way in (tr.Tensor, nn.Parameter, lambda v: leaf() + v, lambda v: leaf() == v, lambda v: tr.exp(v)):
        with pytest.raises(TypeError, match="None"):
            way(None)


@pytest.mark.parametrize(
    "way",
    [
        lambda v: tr.full((2,), v, dtype="float32"),
        lambda v: tr.arange(v),
        lambda v: tr.clip(leaf(), min=v),
        lambda v: tr.leaky_relu(leaf(), v),
        lambda v: tr.elu(leaf(), v),
        lambda v: tr.var(leaf(), ddof=v),
        lambda v: tr.pad(leaf(), 1, v),
        lambda v: tr.data.pad_sequences([[1.0], [1.0, 2.0]], v),
        lambda v: nn.init.constant_(leaf(), v),
        lambda v: nn.init.uniform_(leaf(), v, 2.0),
        lambda v: nn.init.normal_(leaf(), 0.0, v),
        lambda v: F.dropout(leaf(), v),
        lambda v: F.huber_loss(leaf(), [1.0, 2.0], delta=v),
        lambda v: nn.LayerNorm(2, eps=v),
        lambda v: nn.LSTM(1, 1, forget_bias=v),
    ],
)
def test_an_option_is_a_real_number(way: Any) -> None:
    for value in (1j, "0.5", [0.5, 0.5], np.ma.masked, decimal.Decimal("0.5"), np.datetime64("2020"), {}):
        with pytest.raises((TypeError, ValueError)):
            way(value)


def test_what_gives_an_array_is_asked_for_it() -> None:
    class Column:
        """As of a table: its dtype is not that of the array that it gives."""

        dtype = np.dtype("float64")
        array: Any = np.array([1.0, 2.0])

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return self.array

    assert tr.Tensor(Column()).tolist() == (tr.zeros(2) + Column()).tolist() == [1.0, 2.0]
    for array, named in (
        (np.ma.array([1.0], mask=[True]), "masked"),
        (np.array([1j]), "complex"),
        (np.array([1, None], object), "NoneType"),
    ):
        column = Column()
        column.array = array
        for way in (lambda c: tr.Tensor(c, dtype="float32"), lambda c: tr.ones(1) * c, lambda c: leaf().assign_(c)):
            with pytest.raises(DTypeError, match=named):
                way(column)


def test_what_numbers_come_in_is_what_was_given() -> None:
    for value in (2.0, [1.0, 2.0], np.float64(0.1), np.arange(3), [True, False], (1, 2), range(3), np.ones((2, 0))):
        expected = np.array(value)
        found = tr.Tensor(value)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)
        weak = expected.dtype == np.float64 and not hasattr(value, "dtype")
        assert found.dtype == (np.float32 if weak else expected.dtype)
    given = np.arange(6.0).reshape(2, 3)
    held = tr.Tensor(given.T)
    given[...] = 7
    assert held.tolist() == np.arange(6.0).reshape(2, 3).T.tolist()
    assert tr.Tensor(np.longdouble(1.5) * np.ones(2)).tolist() == [1.5, 1.5]
    assert (tr.ones(2) * np.longdouble(1.5)).dtype == np.float32  # a number, as weak as Python's


def test_an_integer_dtype_takes_what_it_reaches() -> None:
    assert tr.Tensor([1.7, -1.7], dtype="int8").tolist() == [1, -1]  # a cast, as NumPy's
    assert tr.Tensor([3, 0], dtype=bool).tolist() == [True, False]
    for value, dtype in (([300], "int8"), (np.array([300]), "int8"), ([-1], "uint8"), ([np.nan], "int64")):
        with pytest.raises(DTypeError, match="beyond"):
            tr.Tensor(value, dtype=dtype)
    with pytest.raises(DTypeError, match="beyond int8"):
        tr.arange(300, dtype="int8")
    with pytest.raises(DTypeError, match="does not fit int64"):
        tr.arange(0, 1, 0.5, dtype="int64")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (300, "int8"),
        (-1, "uint8"),
        (0.5, "int64"),
        (np.nan, "int64"),
        (np.inf, "int16"),
        (2, "bool"),
        (1e39, "float32"),
    ],
)
def test_what_fills_must_fit(value: float, dtype: str) -> None:
    x = tr.zeros(2, dtype=dtype)
    for fill in (
        lambda: tr.full((2,), value, dtype=dtype),
        lambda: tr.pad(x, 1, value),
        lambda: tr.data.pad_sequences([x.numpy(), x.numpy()[:1]], value),
        lambda: nn.init.constant_(x, value),
        lambda: backend.fitting("it", value, np.dtype(dtype)),
    ):
        with pytest.raises(DTypeError, match="does not fit"):
            fill()


def test_what_fits_fills() -> None:
    assert tr.full((2,), 3.0, dtype="int8").tolist() == [3, 3]
    assert tr.pad(tr.zeros(1, dtype="int64"), 1, np.float32(-2.0)).tolist() == [-2, 0, -2]
    assert tr.pad(tr.ones(1), 1, -np.inf).tolist() == [-np.inf, 1.0, -np.inf]
    assert tr.full((1,), True).dtype == np.int64 and tr.full((1,), 1, dtype=bool).tolist() == [True]
    assert tr.data.pad_sequences([[1.0], [1.0, 2.0]], np.nan)[0][1].tolist() == pytest.approx(
        [np.nan, 2.0], nan_ok=True
    )


def test_ignore_index_is_an_integer_that_a_target_may_be() -> None:
    logits, targets = tr.zeros(2, 3), np.array([0, 2], np.uint8)
    assert F.cross_entropy(logits, targets).item() == pytest.approx(np.log(3))  # the default, -100, is no uint8
    assert F.cross_entropy(logits, targets, ignore_index=np.int64(2), reduction="sum").item() == pytest.approx(
        np.log(3)
    )
    for value in (300, -1, 0.5, np.nan, None, "0"):
        with pytest.raises((TypeError, ValueError), match="ignore_index"):
            F.cross_entropy(logits, targets, ignore_index=value)


# --- numbers alone, where arrays are wanted -------------------------------------------------------------------------


def test_a_number_is_an_array_without_axes() -> None:
    for f in (tr.softmax, tr.log_softmax, tr.logsumexp, tr.transpose, tr.squeeze, tr.sum, tr.mean, tr.prod, tr.std):
        assert float(f(2.0)) == pytest.approx(f(tr.Tensor(2.0)).item()), f
    assert tr.expand_dims(2.0, 0).tolist() == [2.0] and tr.pad(2.0, 1) == 2.0 and tr.reshape(2, (1, 1)).shape == (1, 1)
    for product in (lambda: tr.matmul(2.0, 3.0), lambda: tr.linear(2.0, np.ones((1, 1))), lambda: tr.ones(2) @ 2.0):
        with pytest.raises(ShapeError, match="a plain number where an array is needed"):
            product()
    for f in (tr.tril, tr.triu):
        with pytest.raises(ShapeError, match="a matrix is needed"):
            f(2.0)


# --- the other byte order -------------------------------------------------------------------------------------------


def swapped(a: Any) -> np.ndarray:
    """An array with the bytes of its numbers in the order that this machine has not."""
    a = np.asarray(a)
    return a.astype(a.dtype.newbyteorder("S"))


X = np.random.default_rng(0).standard_normal((3, 4)).astype("f")
IDS = np.array([[0, 1, 2], [2, 1, 0]])


def learnt(loss: Any) -> Any:
    """The gradient of a loss of a parameter."""
    p = nn.Parameter(X)
    loss(p).sum().backward()
    return p.grad


def loaded(a: Any) -> Any:
    layer = nn.Linear(4, 3, bias=False)
    layer.load_state_dict({"weight": a})
    return layer.weight


def seeded(kind: Any, *sizes: int, **options: Any) -> Any:
    return kind(*sizes, generator=np.random.default_rng(1), **options)


IN_EITHER_ORDER = {
    "Tensor": lambda o: tr.Tensor(o(X)),
    "Parameter": lambda o: nn.Parameter(o(X)),
    "of integers": lambda o: tr.Tensor(o(np.arange(3, dtype="i2"))),
    "add": lambda o: tr.Tensor(X) + o(X),
    "where": lambda o: tr.where(o(X) > 0, o(X), tr.Tensor(X)),
    "stack": lambda o: tr.stack([tr.Tensor(X), o(X)]),
    "einsum": lambda o: tr.einsum("ij,ij->i", o(X), tr.Tensor(X)),
    "x[ids]": lambda o: tr.Tensor(X)[o([0, 2, 2]), o([1, 1, 0])],
    "x[number]": lambda o: tr.Tensor(X)[o(1)],
    "gradient of x[ids]": lambda o: learnt(lambda p: p[o([0, 2, 2])]),
    "take": lambda o: tr.take(tr.Tensor(X), o([0, 2])),
    "take_along_axis": lambda o: tr.take_along_axis(tr.Tensor(X), o([[0], [2], [1]])),
    "assign_": lambda o: nn.Parameter(X).assign_(o(2 * X)),
    "backward": lambda o: (lambda p: ((p * 2).backward(o(X)), p.grad)[1])(nn.Parameter(X)),
    "load_state_dict": lambda o: loaded(o(X)),
    "Linear": lambda o: seeded(nn.Linear, 4, 2)(o(X)),
    "Embedding": lambda o: seeded(nn.Embedding, 3, 4)(o(IDS)),
    "LSTM": lambda o: seeded(nn.LSTM, 4, 3)(tr.ones(4, 2, 4), lengths=o([4, 2]))[0],
    "embedding=": lambda o: seeded(nn.LSTM, 4, 3)(o(IDS), embedding=seeded(nn.Embedding, 3, 4))[0],
    "Conv1d": lambda o: seeded(nn.Conv1d, 3, 2, 2)(o(X[None])),
    "BatchNorm1d": lambda o: nn.BatchNorm1d(4)(o(X)),
    "cross_entropy": lambda o: learnt(lambda p: F.cross_entropy(p, o([0, 3, 1]), mask=o([True, False, True]))),
    "ctc_loss": lambda o: F.ctc_loss(tr.log_softmax(tr.zeros(4, 2, 3)), o(IDS[:, :2] % 2 + 1), o([4, 4]), o([2, 1])),
    "mse_loss": lambda o: F.mse_loss(tr.Tensor(X), o(X.astype("d"))),
    "sequence_mask": lambda o: F.sequence_mask(o([2, 1]), 2),
    "pad_sequences": lambda o: tr.Tensor(tr.data.pad_sequences([o([1.0, 2.0]), o([1.0])])[0]),
    "zeros": lambda o: tr.zeros(o([2, 3])),
    "reshape": lambda o: tr.Tensor(X).reshape(o([4, 3])),
    "split": lambda o: tr.split(tr.Tensor(X), o([1, 2]))[1],
}


@pytest.mark.parametrize("what", IN_EITHER_ORDER)
def test_the_other_byte_order_is_as_good(what: str) -> None:
    found, expected = IN_EITHER_ORDER[what](swapped), IN_EITHER_ORDER[what](np.asarray)
    assert found.dtype == expected.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_a_dtype_of_the_other_byte_order_is_the_dtype() -> None:
    other = np.dtype(np.float64).newbyteorder("S")
    for made in (
        tr.Tensor(X, dtype=other),
        tr.Tensor(X).to(other),
        tr.astype(tr.Tensor(X), other),
        tr.zeros(2, dtype=other),
    ):
        assert made.dtype == np.float64 and made.dtype.isnative
    assert nn.Linear(2, 2).to(other).weight.dtype.isnative


@pytest.mark.parametrize("on", [False, True])
def test_the_other_byte_order_reaches_numba(on: bool) -> None:
    if on:
        pytest.importorskip("numba")
    before = tr.numba_enabled()
    tr.enable_numba(on)
    try:
        embedding = nn.Embedding(3, 4)
        (embedding(swapped(IDS)) ** 2).sum().backward()
        expected = np.zeros((3, 4))
        np.add.at(expected, IDS.reshape(-1), 2 * embedding.weight.numpy()[IDS.reshape(-1)])
        np.testing.assert_allclose(embedding.weight.grad.numpy(), expected, rtol=1e-6)
    finally:
        tr.enable_numba(before)


# --- indices --------------------------------------------------------------------------------------------------------


def test_an_index_beyond_int64_does_not_wrap() -> None:
    far = np.array([2**64 - 1], np.uint64)  # -1, if it were cast
    for take in (lambda: tr.arange(3)[far], lambda: tr.take(tr.arange(3), far)):
        with pytest.raises(IndexError, match="18446744073709551615 is out of range"):
            take()
    with pytest.raises(DTypeError, match="masked array"):
        tr.arange(3)[np.ma.array([0, 1], mask=[True, False])]


# --- options that have owners ---------------------------------------------------------------------------------------


@tr.op(lambda g, by: g * by["factor"])
def scaled(x: Any, by: Any) -> Any:
    return x * by["factor"]


@tr.op(lambda g, weights: g * weights)
def weighted(x: Any, weights: Any) -> Any:
    return x * weights


fused_weighted = tr.fused(
    "weighted",
    lambda x, *, weights: x * weights,
    lambda x, *, weights: x * weights,
    lambda g, y, needs, x, *, weights: (g * weights,),
)

OWNED = {
    "index": (lambda x, o: x[o], np.array([1, 1]), 0),
    "mask": (lambda x, o: x[o], np.array([True, False]), [False, True]),
    "take": (lambda x, o: tr.take(x, o), np.array([1, 1]), 0),
    "pad_width": (lambda x, o: tr.pad(x, o), np.array([[1, 1], [0, 2]]), 0),
    "axes": (lambda x, o: x.transpose(o) * [[1.0, 2.0]], np.array([1, 0]), [0, 1]),
    "clip": (lambda x, o: x.clip(o), np.array(2.0), 5.0),
    "factor": (lambda x, o: x * o, np.array([1.0, 2.0, 3.0]), 0),
    "targets": (lambda x, o: F.cross_entropy(x, o), np.array([1, 1]), 0),
    "lengths": (lambda x, o: F.ctc_loss(tr.log_softmax(x), [[1]], o, [1]), np.array([2]), 1),
    "an option of one's own op": (lambda x, o: weighted(x, weights=o), np.array([1.0, 2.0, 3.0]), 0),
    "an option of one's own fused op": (lambda x, o: fused_weighted(x, weights=o), np.array([1.0, 2.0, 3.0]), 0),
}


@pytest.mark.parametrize("what", OWNED)
def test_who_changes_an_option_afterwards_changes_no_gradient(what: str) -> None:
    f, given, other = OWNED[what]
    grads = []
    for change in (False, True):
        option, x = given.copy(), tr.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
        y = f(x, option)
        if change:
            option[...] = other
        y.sum().backward()
        grads.append(x.grad.numpy())
    np.testing.assert_array_equal(*grads)


def test_a_dict_that_is_an_option_is_copied() -> None:
    by = {"factor": 2.0}
    x = tr.Tensor([1.0, 2.0], requires_grad=True)
    y = scaled(x, by=by)
    by["factor"] = 5.0
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_an_optimiser_keeps_options_of_its_own() -> None:
    p = nn.Parameter([1.0])
    group = {"params": [p], "lr": np.array(0.5), "betas": [0.5, 0.25]}
    optimiser = tr.optim.Adam([group])
    group["lr"][...], group["betas"][0] = 9.0, 0.75
    group["params"].append("no parameter")
    assert (optimiser.param_groups[0]["lr"], list(optimiser.param_groups[0]["betas"])) == (0.5, [0.5, 0.25])
    assert optimiser.param_groups[0]["params"] == (p,)


LISTS: dict[str, Any] = {  # functions, and the shapes of their arguments that are no option
    "ones_like": (tr.ones_like, (2, 3)),
    "zeros_like": (tr.zeros_like, (2, 3)),
    "linear": (tr.linear, (2, 3), (4, 3), (4,)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, 3, w, b), (2, 3), (3,), (3,)),
    "batch_norm, evaluation": (F.batch_norm, (4, 3), (3,), (3,), (3,), (3,)),
    "batch_norm, training": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (4, 3), (3,), (3,)),
    "conv1d": (F.conv1d, (1, 2, 6), (3, 2, 2), (3,)),
    "conv2d": (F.conv2d, (1, 2, 4, 4), (3, 2, 2, 2), (3,)),
    "attention": (F.scaled_dot_product_attention, (2, 3), (4, 3), (4, 2)),
    "mse_loss": (F.mse_loss, (4,), (4,)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), (1, 1, 4, 4)),
}


def tuples(x: Any) -> Any:
    return tuple(tuples(v) for v in x) if isinstance(x, list) else x


@pytest.mark.parametrize("name", LISTS)
def test_lists_tuples_and_arrays_are_taken_wherever_a_tensor_is(name: str) -> None:
    f, *shapes = LISTS[name]
    xs = [np.random.default_rng(0).uniform(0.5, 1.5, shape).astype("f") for shape in shapes]
    expected = f(*map(tr.Tensor, xs)).tolist()
    for form in (np.ndarray.tolist, lambda x: tuples(x.tolist()), lambda x: x, lambda x: x.astype(">f4")):
        for k in (*range(len(xs)), None):
            y = f(*(form(x) if k in (i, None) else tr.Tensor(x) for i, x in enumerate(xs)))
            np.testing.assert_allclose(np.asarray(y.tolist()), expected, 1e-6, 1e-7)


WITH_AXES = ["linear", "layer_norm", "batch_norm, evaluation", "batch_norm, training", "conv1d", "conv2d", "avg_pool2d"]


@pytest.mark.parametrize("name", WITH_AXES)
def test_a_number_where_an_array_is_needed_is_an_error_of_shapes(name: str) -> None:
    f, *shapes = LISTS[name]
    for number in (0.5, np.float32(0.5), tr.Tensor(0.5)):
        with pytest.raises(ShapeError):
            f(number, *(tr.ones(*s) for s in shapes[1:]))
        for k in range(1, len(shapes)):
            with pytest.raises(ShapeError):
                f(*(number if i == k else tr.ones(*s) for i, s in enumerate(shapes)))
        with pytest.raises(ShapeError):
            f(*[number] * len(shapes))


def test_running_statistics_that_nothing_could_be_written_to_are_refused() -> None:
    for wrong in (np.zeros(3, "f"), [0.0, 0.0, 0.0]):
        for given in ((wrong, None), (None, wrong), (tr.zeros(3), wrong)):
            with pytest.raises(TypeError, match="running statistics must be Tensors"):
                F.batch_norm(tr.ones(4, 3), *given, training=True)
