"""NumPy on the arrays that a step is given: what a recording takes is right to the last bit, the rest is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import CompileError

SPECIAL = [0.0, -0.0, 1.0, -1.5, 0.25, np.inf, -2.0, 3.0]


def inputs(count: int, dtype: str = "float32", shape: tuple[int, ...] = (3, 4)) -> list[Any]:
    """Arrays of normal numbers among which are zeros of both signs, where they are floats."""
    rng = np.random.default_rng(0)
    return [
        np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL[:5], shape), rng.normal(size=shape)).astype(dtype)
        for _ in range(count)
    ]


def bits(y: Any) -> Any:
    """What tells apart two arrays: their dtype, shape, and every bit; a NaN is a NaN."""
    y = np.array(y._array if isinstance(y, tr.Tensor) else y)
    if y.dtype.kind == "f":
        y[np.isnan(y)] = np.nan
    return str(y.dtype), y.shape, y.tobytes()


def check(f: Callable[..., Any], dtype: str = "float32", shape: tuple[int, ...] = (3, 4)) -> None:
    """`f` compiled gives what it gives plain, six times, with other values each time; so does an op that it makes."""
    op = tr.op(lambda g, x: g)(f)
    steps = [(tr.compile(f), f, np.copy), (tr.compile(lambda x: op(x)), op, tr.Tensor)]
    for k, x in enumerate(inputs(6, dtype, shape)):
        with np.errstate(all="ignore"):
            for compiled, plain, given in steps:
                assert bits(compiled(given(x))) == bits(plain(given(x))), f"call {k + 1}"


def refused(f: Callable[..., Any], words: str = "") -> None:
    """`f` is not recorded."""
    with pytest.raises(CompileError, match=rf"test_numpy_calls.py, line \d+: .*{words}"):
        tr.compile(lambda x: f(x))(inputs(1)[0])


OUTSIDE = np.arange(12, dtype=np.float32).reshape(3, 4) - 6
MASK = OUTSIDE > 0


def changed(x: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of `x` to which something was done."""
    y = x * 1
    change(y)
    return y


# --- options ----------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Callable[[Any], Any]] = {
    "where= with out=": lambda x: np.log(np.abs(x), out=np.zeros_like(x), where=x > 0),
    "where= of a reduction": lambda x: x + np.sum(x, axis=0, where=x > 0) + np.max(x, initial=-1, where=MASK),
    "where= by position": lambda x: changed(x, lambda y: np.copyto(y, 2 * x, "same_kind", x > 0)),
    "where= of a mean": lambda x: x - np.mean(x, axis=1, keepdims=True, where=MASK | (x > 9) | (OUTSIDE < -4)),
    "dtype=": lambda x: x + np.sum(x, axis=0, dtype=np.float64) + np.add(x, x, dtype=np.float64),
    "dtype= by position": lambda x: x + np.sum(x, 0, np.float64) + np.mean(x, 1, np.float16)[:, None],
    "casting=": lambda x: np.add(x, 0.3, out=np.zeros_like(x, dtype=int), casting="unsafe") + x,
    "dtype= of a join": lambda x: np.concatenate([x, x], axis=1, dtype=np.float16),
    "casting= of a join": lambda x: np.concatenate([x, x], dtype=int, casting="unsafe") + 0.5,
    "order=": lambda x: np.reshape(x, (4, 3), order="F") + x.reshape(4, 3, order="F") + np.ravel(x, "F")[:3],
    "order= of a cast": lambda x: x.astype(np.float64, order="F").T.copy() + 1,
    "keepdims=": lambda x: x - x.max(axis=1, keepdims=True) - x.min(keepdims=True),
    "initial=": lambda x: x + np.max(x, axis=0, initial=0.5) + np.prod(x, initial=2.0),
    "take with negative ids": lambda x: np.take(x, [-1, 0, 2], axis=0) + np.take(x, [3, -4, -1], axis=1)[:, :1],
    "take with mode=": lambda x: np.take(x, [5, -9, 2], axis=0, mode="wrap") + x.take([7, -1, 0], 0, mode="clip"),
    "take of ids that are computed": lambda x: np.take(x, np.argmin(x, axis=0) - 3, axis=0)[:3],
    "choose": lambda x: np.choose((x > 0).astype(int) - 1, [x, -x], mode="wrap"),
    "take into": lambda x: np.take(x, [-1, 1, -2], axis=0, out=np.zeros_like(x)),
    "clip": lambda x: np.clip(x, 0, None) + x.clip(min=-0.5) + np.clip(x, x[0], 1, out=np.ones_like(x)),
    "sort": lambda x: np.sort(x, axis=0, kind="stable") + np.argsort(-x, axis=1, stable=True),
    "round": lambda x: np.round(x, 1) + x.round(decimals=2),
    "std": lambda x: (
        x / np.std(x, axis=0, ddof=1, keepdims=True) + x.var(axis=1, mean=x.mean(1, keepdims=True))[:, None]
    ),
    "cumsum": lambda x: np.cumsum(x, axis=1) + np.cumsum(x, dtype=np.float64).reshape(3, 4),
    "nan_to_num": lambda x: np.nan_to_num(x / 0, nan=1.0, posinf=2.0),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x) @ x + np.einsum("ij->ji", x).T + np.einsum("ij->i", x)[:, None],
    "einsum of a diagonal": lambda x: x + changed(x[:, :3], lambda y: np.einsum("ii->i", y).__iadd__(1)).sum(),
    "tensordot": lambda x: np.tensordot(x, x, axes=([1], [1])) @ x + np.outer(x[:, 0], x[0]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    check(OPTIONS[name])


# --- ufuncs, and what else there is of them ---------------------------------------------------------------------------

UFUNCS: dict[str, Callable[[Any], Any]] = {
    "reduce": lambda x: x + np.add.reduce(x) + np.logical_or.reduce(x, axis=1)[:, None] + np.maximum.reduce(x, None),
    "accumulate": lambda x: np.maximum.accumulate(x, axis=1) + np.add.accumulate(x),
    "reduceat": lambda x: np.add.reduceat(x, [0, 2, 1], axis=0) + np.multiply.reduceat(x, [0, 1, 2, 3], axis=1),
    "outer": lambda x: np.add.outer(x[0], x[1])[:3] + np.multiply.outer(x[:, 0], x[0]),
    "at": lambda x: changed(x, lambda y: np.add.at(y, [0, 0, 2], x[:3])),
    "at with two indices": lambda x: changed(x, lambda y: np.subtract.at(y, ([0, 0], [1, 1]), 1.0)),
    "negative.at": lambda x: changed(x, lambda y: np.negative.at(y, [0, 0, 1])),
    "two results": lambda x: np.modf(x)[0] + np.frexp(x)[1] + sum(divmod(x, 0.7)),
    "a number first": lambda x: 2**x + 1 / (abs(x) + 1) + (3 // (x + 9)) + 1.5 % (x + 9),
    "powers": lambda x: x**2 + x**0.5 + x**-1 + x**3 + x**True + x ** np.float32(2) + x**x,
    "a power in place": lambda x: changed(x, lambda y: y.__ipow__(2)),
    "matmul in place": lambda x: changed(x[:, :3], lambda y: y.__imatmul__(x[:, 1:])),
    "comparisons": lambda x: (x > 0) * (x <= 1) + (x == 0) - (x != 1) * 0.5,
    "logic": lambda x: ((x > 0) & ~(x > 1) | (x < -1) ^ MASK) * 1.5,
    "shifts": lambda x: (np.floor(abs(x)).astype(int) << 2 >> 1) + x,
    "booleans": lambda x: x * True + (x > 0) * 2 + np.bool_(True) * x,
}


@pytest.mark.parametrize("name", UFUNCS)
def test_ufuncs(name: str) -> None:
    check(UFUNCS[name])


# --- writes -----------------------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Any], Any]] = {
    "a number": lambda y: np.copyto(y, 0.5),
    "a number of NumPy": lambda y: np.copyto(y[1:], np.float64(0.1)),
    "a list": lambda y: np.copyto(y[0], [1.0, 2, 3, 4]),
    "an array from outside": lambda y: y.__setitem__(0, OUTSIDE[1]),
    "a list by index": lambda y: y.__setitem__((slice(None), 0), [1, 2, 3]),
    "more axes": lambda y: y.__setitem__(0, np.ones((1, 1, 4))),
    "overlapping": lambda y: y.__setitem__(slice(1, None), y[:-1]),
    "overlapping backwards": lambda y: np.add(y[:-1], y[1:], out=y[1:]),
    "reversed": lambda y: np.multiply(y[::-1], 2, out=y),
    "repeated indices": lambda y: y.__setitem__([0, 0, 1], y[[1, 2, 0]]),
    "negative indices": lambda y: y.__setitem__(([-1, 0], [-2, 1]), [7.0, 8.0]),
    "at True": lambda y: y.__setitem__(True, y[True] * 2),
    "at a tuple inside of a tuple": lambda y: y.__setitem__(((0, -1),), 5.0),
    "at a range": lambda y: y.__setitem__(range(2), y[range(2)] + 1),
    "at a number of NumPy": lambda y: y.__setitem__((np.int64(-1), None), y[1]),
    "a mask from outside": lambda y: y.__setitem__(MASK, 3.0),
    "a mask that is computed": lambda y: y.__setitem__(y > 0, -1.0),
    "added at a mask from outside": lambda y: y.__setitem__(MASK, y[MASK] + 1),
    "one element": lambda y: y.__setitem__((1, 2), y[0, 0] + 1),
    "an element, in place": lambda y: y[0].__setitem__(1, y[0][1] - 2),
    "a fill": lambda y: y[1].fill(-0.0),
    "a sort": lambda y: y.sort(axis=0),
    "a partition": lambda y: y.partition(1),
    "put": lambda y: (y.put([0, -1], [5.0, 6.0]), np.put(y, [2, 2], [1.0, 2.0])),
    "putmask": lambda y: np.putmask(y, y > 0, y * 2),
    "place": lambda y: np.place(y, y < 0, [1.0, 2.0]),
    "put_along_axis": lambda y: np.put_along_axis(y, np.argmax(y, axis=1, keepdims=True), 9.0, axis=1),
    "fill_diagonal": lambda y: np.fill_diagonal(y, y[0, 1]),
    "through a view": lambda y: y.T[::2].__setitem__(0, 4.0),
    "through a diagonal": lambda y: y.reshape(-1)[::5].__iadd__(1),
    "in place of a slice": lambda y: y.__setitem__(0, y[0].__iadd__(2)),
    "in place of a column": lambda y: y[:, 1].__imul__(3),
    "a cast": lambda y: np.copyto(y, np.arange(4)[None] * 2**0.5, casting="unsafe"),
    "the real part": lambda y: np.copyto(y.real[0], 5.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str) -> None:
    check(lambda x: changed(x, WRITES[name]) + x)
    check(lambda x: changed(np.zeros_like(x), WRITES[name]) - x)


# --- numbers ----------------------------------------------------------------------------------------------------------


def rebinds(x: Any) -> Any:
    m = x.mean()
    d = m
    d -= 1.0
    d **= 2
    return x - m + d


def elements(x: Any) -> Any:
    y = x[0] * 1
    for v in y:
        v += 1
    return y + sum(y) + max(1, 2)


def reads_before_a_write(x: Any) -> Any:
    y = x[0] * 1
    first = y[0]
    y[0] = 7
    return y + first


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "in place makes another": rebinds,
    "the elements of a row are numbers": elements,
    "an element is read at once": reads_before_a_write,
    "powers of numbers": lambda x: x + x.sum() ** 2 + x.max() ** 0.5 + 2 ** x.min() + x.sum() ** x.max(),
    "what NumPy's numbers can do": lambda x: x * x.sum().astype(np.float64) + x.mean().round(1) + abs(x.min()),
    "as arrays": lambda x: np.stack([x.sum(), x.max(), x.min(), x.mean()]) + x + np.reshape(x.sum(), (1, 1)),
    "as an index": lambda x: x + x[0][x[0].argmax()] + x[0, np.argmin(x[0])],
    "is a number": lambda x: x * (2 if np.isscalar(x.sum()) and isinstance(x.max(), np.float32) else 3),
    "counts": lambda x: x / np.count_nonzero(x) + np.count_nonzero(x > 0, axis=0),
    "Python's, of a norm": lambda x: x + np.float64(x.shape[0]) * np.linalg.norm(x),
    "their dtype": lambda x: x.sum().dtype.type(3) * x + x.sum().itemsize + x.mean().ndim,
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers(name: str, dtype: str) -> None:
    check(NUMBERS[name], dtype)


def test_a_number_of_numpys_is_returned_as_one() -> None:
    step = tr.compile(lambda x: (x.sum(), x.max(axis=0)))
    for x in inputs(4):
        total, top = step(x)
        assert (type(total), total, type(top)) == (np.float32, x.sum(), np.ndarray)


def test_a_norm_is_a_number_of_pythons() -> None:
    w = tr.nn.Parameter(np.float32([3.0, 4.0]))

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        norm = tr.optim.clip_grad_norm_([w], 1.0)
        return x * norm, 1 / (norm + 1) * x, norm * 2, x / norm**2, -norm, w.grad

    compiled = tr.compile(step)
    for x in inputs(6, shape=(2,)):
        x = np.abs(x) + 1
        plain, found = step(tr.Tensor(x)), compiled(tr.Tensor(x))
        assert [type(v) for v in plain] == [type(v) for v in found]
        assert [bits(v) for v in plain] == [bits(v) for v in found]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_choice_among_many(dtype: str) -> None:
    """`where` takes many by their bits; a replay does as well."""
    w = tr.nn.Parameter(np.ones(100, dtype))

    def step(x: Any) -> Any:
        w.grad = None
        y = tr.where(x > 1, tr.relu(w * x), -0.0) + tr.relu((w * x).T).T
        y.sum().backward()
        return y.detach(), w.grad, tr.where(x < 0, x, w.detach() * x)

    compiled = tr.compile(step)
    for k in range(6):
        x = np.random.default_rng(k).normal(size=(64, 100)).astype(dtype)
        x[: len(SPECIAL), 0] = SPECIAL
        plain, found = step(tr.Tensor(x)), compiled(tr.Tensor(x))
        assert [bits(v) for v in plain] == [bits(v) for v in found]


# --- dtypes, results, outside -----------------------------------------------------------------------------------------

MORE: dict[str, Callable[[Any], Any]] = {
    "np.mean": lambda x: x - np.mean(x) - x.mean(axis=0) - np.mean(x, axis=1, keepdims=True),
    "np.sum": lambda x: x - np.sum(x) - x.sum(axis=0) - np.cumsum(x, axis=1),
    "np.where": lambda x: np.where(x > 0, x, 0) + np.where(x, x, -x) + np.where((x > 0).astype(int), 1.0, x),
    "np.where of True": lambda x: np.where(True, x, 0.0) + np.where([True, False, True, False], x, 2),
    "np.dot": lambda x: x @ x.T @ x + np.dot(x, x.T) @ x + x.dot(x[0])[:, None] + np.matmul(x, x[1])[:, None],
    "np.stack": lambda x: np.stack([x, x * 2], axis=-1)[..., 1] + np.stack([x[0], np.arange(4.0)])[1] + np.stack(x),
    "zeros": lambda x: np.zeros_like(x) + x + np.full_like(x, -0.0) + np.zeros_like(x, dtype=np.float64),
    "like others": lambda x: np.full_like(x, x[0, 0]) + np.ones_like(x, shape=(4,)),
    "an array of the other byte order": lambda x: x.astype(x.dtype.newbyteorder()) * 2 + x,
    "views": lambda x: (
        x[::-1, ::2].repeat(2, axis=1) + x.T[::-1].T + np.flip(x) + np.rot90(x, 2) + np.roll(x, 1, axis=0)
    ),
    "split": lambda x: np.hstack(np.split(x, 2, axis=1)[::-1]) + np.concatenate(np.array_split(x, 2)),
    "block": lambda x: np.block([[x, x[:, :1]], [x[:1], np.ones((1, 1))]])[:3, :4],
    "broadcast": lambda x: sum(np.broadcast_arrays(x, x[0])) + np.broadcast_to(x[0], x.shape),
    "qr": lambda x: np.linalg.qr(x.astype(np.float32))[0].sum() + x,
    "svd": lambda x: np.linalg.svd(x.astype(np.float64), full_matrices=False).S[:, None] + x,
    "bytes": lambda x: (x.view(np.uint8) >> 1).sum(axis=1, keepdims=True) + x,
    "strides and flags": lambda x: x * x.strides[0] + x.T.strides[0] * x.flags.c_contiguous + x.flags["F_CONTIGUOUS"],
    "isinstance": lambda x: x * 2 if isinstance(x, np.ndarray) and not isinstance(x.sum(), np.ndarray) else x * 3,
    "hasattr": lambda x: x * (2 if hasattr(x, "item") and not hasattr(x, "numpy") else 3),
    "copies": lambda x: copy.copy(x) + copy.deepcopy(x) + changed(copy.copy(x), lambda y: y.fill(1)),
    "reading outside": lambda x: x + OUTSIDE[::-1] + OUTSIDE[[0, 0, 2]] + np.take(OUTSIDE, [1, 2, 0], axis=0),
    "indices": lambda x: (
        x[[2, 0, -1]] + x[:, [True, False, True, True]][:, :1] + x[np.array([0, 1, 1]), np.array([-1, 2, 2])][:, None]
    ),
    "None and ...": lambda x: x[None, ..., None][0, :, :, 0] + x[..., 1][:, None] + x[1, ...],
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_more(name: str, dtype: str) -> None:
    check(MORE[name], dtype)


def test_an_array_from_outside_is_read_at_each_call() -> None:
    outside = np.ones(3, np.float32)
    op = tr.op(lambda g, x: g)(lambda x: changed(x, lambda y: y.__setitem__(slice(0, 1), outside[1:2])) * outside)
    step = tr.compile(lambda x: (op(x), x + outside, x * tr.Tensor(outside)))
    for k in range(6):
        if k > 1:
            outside[...] = k
        x = tr.Tensor([1.0, -2.0, 3.0])
        for found, expected in zip(step(x), (op(x), x + outside, x * outside), strict=True):
            assert found.tolist() == expected.tolist()


# --- what is refused --------------------------------------------------------------------------------------------------


def writes_outside(x: Any) -> Any:
    m = np.zeros(4, np.float32)
    y = x + m
    m += 1
    return y + m


def swallows(x: Any) -> Any:
    try:
        return x * float(x.sum())
    except Exception:  # noqa: BLE001 (what users write)
        return x * 3


def changes_the_order(x: Any) -> Any:
    i = np.argmax(x[:, 0])
    row = x[i]
    return x + row


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a swallowed error": (swallows, "float"),
    "an array that is changed after its use": (writes_outside, "written into"),
    "a view at a place that is computed": (changes_the_order, "a view whose place"),
    "the values": (lambda x: np.asarray(x) * 2, ""),
    "contiguous": (lambda x: np.ascontiguousarray(x.T).T, ""),
    "flat": (lambda x: changed(x, lambda y: y.flat.__setitem__(0, 1)), r"\.flat"),
    "a read-only result": (lambda x: changed(x, lambda y: y.imag.__setitem__(0, 1)), "a write into"),
    "base": (lambda x: x if x.base is None else x + 1, r"\.base"),
    "data": (lambda x: x * len(bytes(x.data)), r"\.data"),
    "ctypes": (lambda x: x * x.ctypes.data, r"\.ctypes"),
    "the interface": (lambda x: x * x.__array_interface__["version"], "the values"),
    "tolist": (lambda x: np.array(x.tolist()), r"\.tolist"),
    "tobytes": (lambda x: x * len(x.tobytes()), r"\.tobytes"),
    "a shape that is set": (lambda x: changed(x, lambda y: setattr(y, "shape", (4, 3))), "setting .shape"),
    "a flag that is set": (lambda x: changed(x, lambda y: setattr(y.flags, "writeable", False)), "setting .flags"),
    "other flags": (lambda x: x * x.flags.owndata, "owndata"),
    "setflags": (lambda x: changed(x, lambda y: y.setflags(write=False)), "setflags"),
    "a resize": (lambda x: changed(x, lambda y: y.resize((2, 2))), "resize"),
    "byteswap": (lambda x: x.byteswap(True), "byteswap"),
    "another class": (lambda x: x.view(np.matrix), "another class"),
    "a matrix": (lambda x: np.add(x, OUTSIDE.view(np.matrix)), "matrix"),
    "masked": (lambda x: np.add(x, np.ma.masked_array(OUTSIDE, MASK)), ""),
    "Python objects": (lambda x: np.multiply(x, np.array([1, 2, 3, 4], object)), "objects"),
    "apply_along_axis": (lambda x: np.apply_along_axis(sorted, 0, x), "apply_along_axis"),
    "vectorize": (lambda x: np.vectorize(lambda v: 1.0)(x), ""),
    "piecewise": (lambda x: np.piecewise(x, [x < 0], [lambda v: -v, 1.0]), "piecewise"),
    "as_strided": (lambda x: np.lib.stride_tricks.as_strided(x, (2, 2)), ""),
    "nditer": (lambda x: x + sum(1 for _ in np.nditer(x)), ""),
    "memory": (lambda x: x + np.shares_memory(x, x), "shares_memory"),
    "a mask": (lambda x: x[x > 0], "mask"),
    "unique": (lambda x: np.unique(x), "unique"),
    "a part by values": (lambda x: np.trim_zeros(x[0]), "trim_zeros"),
    "where= without out=": (lambda x: np.add(x, 1, where=MASK), "where="),
    "out= by position": (lambda x: np.sum(x, 0, None, np.zeros_like(x)[0]) + x, "out="),
    "out= from outside": (lambda x: np.add(x, 1, out=np.zeros((3, 4), "f")), "does not know"),
    "overwrite_input": (lambda x: np.median(x * 1, overwrite_input=True) + x, "overwrite_input"),
    "nan_to_num in place": (lambda x: np.nan_to_num(x * 1, copy=False), "copy=False"),
    "several with a number": (lambda x: np.linalg.lstsq(x, x[:, 0])[0] + x, "lstsq"),
    "equal": (lambda x: x if np.array_equal(x, x) else -x, "if"),
    "isinstance of a number": (lambda x: x if x.sum() > 0 else -x, "if"),
    "random by size": (lambda x: x + np.random.default_rng(0).normal(size=np.argmax(x[0])), ""),
    "random by values": (lambda x: np.random.default_rng(0).permutation(x), ""),
    "hash": (lambda x: x * len({x.sum()}), "hash"),
    "print": (lambda x: x * len(f"{x.sum():.3f}"), "formatted"),
    "a write into the input of another op": (lambda x: x.__iadd__(1), "")
    if False
    else (lambda x: x.__array_struct__, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused(name: str) -> None:
    refused(*REFUSED[name])


def test_every_attribute_of_an_array_is_right_or_refused() -> None:
    def names(kind: Any) -> list[str]:
        return [n for n in dir(kind) if n not in ("__init__", "__init_subclass__", "__new__", "__del__", "__setattr__")]

    def look(x: Any) -> Any:
        for some, plain in ((x, OUTSIDE), (x.sum(), OUTSIDE.sum())):
            for name in names(plain):
                try:
                    found = getattr(some, name)
                except CompileError:
                    some.tape.refused = None  # for the next one
                    continue
                assert callable(found) == callable(getattr(plain, name)), name
                if name in ("shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides", "device"):
                    assert found == getattr(plain, name)
            assert not hasattr(some, "nothing_like_that")
        return x

    tr.compile(lambda x: look(x))(OUTSIDE.copy())


def test_third_party_functions_are_refused() -> None:
    class Kind:
        def __array_function__(self, f: Any, types: Any, args: Any, kwargs: Any) -> Any:
            return NotImplemented

    refused(lambda x: np.stack([x, Kind()]), "Kind")
