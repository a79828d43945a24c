"""Every op against three oracles that share one draw: NumPy's value, a numeric derivative, algebraic laws.

The table is `tinygrad_rnn.testing.domains.DOMAINS`: a row per op says where it is defined and what it should
compute.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.testing import DOMAINS, Case, check_gradients
from tinygrad_rnn.testing.domains import LAYOUTS, RandomChoose
from tinygrad_rnn.testing.strategies import cases

ROWS = {str(domain): domain for domain in DOMAINS}
DIFFERENTIABLE = {name: domain for name, domain in ROWS.items() if not domain.constant}
EPS = np.finfo(np.float64).eps

# Cases that have failed once: (row, case), as Hypothesis printed them.
PINNED = [
    ("relu", Case(((),))),  # where() took a 0-d float64 for a Python number, and made float32 of it
    ("std", Case(((2,),), {"axis": None, "keepdims": False, "ddof": 0})),  # a second derivative that cancels
]


# --- helpers ------------------------------------------------------------------------------------------------


def flat(y):
    """The outputs of an op as a list (split has several)."""
    return list(y) if isinstance(y, list | tuple) else [y]


def floats(arrays):
    return [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]


def as_function(domain, case, arrays):
    """The op as a function of its floating arguments, which returns one Tensor."""
    varied = floats(arrays)

    def f(*xs):
        arguments = list(arrays)
        for i, x in zip(varied, xs, strict=True):
            arguments[i] = x
        ys = flat(domain(*arguments, **case.options))
        return ys[0] if len(ys) == 1 else tr.concatenate([tr.reshape(y, (-1,)) for y in ys])

    return f, [arrays[i] for i in varied]


def leaf(x):
    """A leaf with the very array: its layout and its read-only flag."""
    t = tr.Tensor(0.0).detach()
    t._array = x
    t.requires_grad = True
    return t


def constant(x):
    return leaf(x).detach() if x.dtype.kind == "f" else tr.Tensor(x)


def assert_equal(ours, expected, dtype=None):
    assert ours.shape == expected.shape
    assert dtype is None or ours.dtype == dtype
    np.testing.assert_array_equal(ours, expected)


# --- the three oracles --------------------------------------------------------------------------------------


def check_value(domain, case, arrays):
    """Oracle one: an independent reference. And a raw call is the same call."""
    expected = [np.asarray(y) for y in flat(domain.reference(*arrays, **case.options))]
    raw = flat(domain(*arrays, **case.options))
    tensors = flat(domain(*(constant(x) for x in arrays), **case.options))
    assert len(raw) == len(tensors) == len(expected)
    for r, t, e in zip(raw, tensors, expected, strict=True):
        assert isinstance(t, tr.Tensor)
        assert not isinstance(r, tr.Tensor)
        assert not t.requires_grad
        assert t.shape == e.shape
        assert np.asarray(r).dtype == t.dtype == e.dtype
        np.testing.assert_allclose(t.numpy(), e, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(r, t.numpy())


def check_laws(domain, case, arrays):
    """Oracle three: the vjp is linear, zero for zero, and the transpose of the jvp."""
    rng = np.random.default_rng(case.seed)
    f, xs = as_function(domain, case, arrays)
    y, pull = tr.vjp(f, *map(constant, xs))
    u, w = (rng.standard_normal(y.shape) for _ in range(2))
    pulled_u, pulled_w, pulled_both = pull(u), pull(w), pull(3 * u - 2 * w)
    for x, a, b, both in zip(xs, pulled_u, pulled_w, pulled_both, strict=True):
        assert a.shape == x.shape
        assert a.dtype == x.dtype
        a, b, both = a.numpy(), b.numpy(), both.numpy()
        size = 1 + sum(np.max(abs(part), initial=0) for part in (a, b))
        np.testing.assert_allclose(both, 3 * a - 2 * b, rtol=1e-12, atol=256 * EPS * size)
    for zero in pull(np.zeros(y.shape)):
        assert not np.any(zero.numpy()), "a zero cotangent must pull back to exact zeros"

    vs = [rng.standard_normal(x.shape) for x in xs]
    value, along = tr.jvp(f, [constant(x) for x in xs], [tr.Tensor(v) for v in vs])
    assert_equal(value.numpy(), y.numpy())
    left = along.numpy() * u
    right = [v * a.numpy() for v, a in zip(vs, pulled_u, strict=True)]
    size = np.sum(abs(left)) + sum(np.sum(abs(r)) for r in right)
    assert abs(np.sum(left) - sum(np.sum(r) for r in right)) <= 1e-12 * size + 1e-14


def check_backward(domain, case, arrays):
    """`backward` gives what `grad` gives, once for each use, and owns what it gives."""
    f, xs = as_function(domain, case, arrays)
    leaves = [leaf(x) for x in xs]
    y = f(*leaves)
    u = np.random.default_rng(case.seed).standard_normal(y.shape)
    expected = tr.grad(y, leaves, gradient=tr.Tensor(u), retain_graph=True)
    y.backward(tr.Tensor(u), retain_graph=True)
    for t, e in zip(leaves, expected, strict=True):
        assert_equal(t.grad.numpy(), e.numpy(), t.dtype)
        assert not np.shares_memory(t.grad._array, t._array)
        assert not np.shares_memory(t.grad._array, y._array)
    y.backward(tr.Tensor(u))
    for t, e in zip(leaves, expected, strict=True):
        assert_equal(t.grad.numpy(), 2 * e.numpy())


def check_all(domain, case):
    arrays = case.arrays(domain)
    before = [x.tobytes() for x in arrays]
    check_value(domain, case, arrays)
    if domain.constant:
        leaves = [leaf(x) for x in arrays]
        for t in flat(domain(*leaves, **case.options)):
            assert not t.requires_grad or not any(g.numpy().any() for g in tr.grad(tr.sum(t), leaves))
    else:
        f, xs = as_function(domain, case, arrays)
        check_gradients(f, *xs, analytic=domain.analytic, seed=case.seed)
        check_laws(domain, case, arrays)
        check_backward(domain, case, arrays)
    assert [x.tobytes() for x in arrays] == before, "an input was written to"


@pytest.mark.parametrize("row", ROWS)
@given(data=st.data())
def test_value_gradient_and_laws(row, data):
    check_all(ROWS[row], data.draw(cases(ROWS[row])))


@pytest.mark.parametrize("row", ROWS)
def test_every_layout(row):
    """Non-contiguous, reversed and stride-0 arguments, whatever Hypothesis draws."""
    for i, layout in enumerate(LAYOUTS):
        for k in range(3):
            check_all(ROWS[row], ROWS[row].case(RandomChoose(3 * i + k), (layout,), seed=k))


@pytest.mark.parametrize("row", [name for name, d in ROWS.items() if set(d.signature) <= set("*, ") and not d.draw])
def test_scalars_and_empty_arrays(row):
    """0-d in, 0-d out; nothing in, nothing out; of elementwise ops and full reductions."""
    domain = ROWS[row]
    count = domain.signature.count("*")
    for shape in ((), (0,), (3, 0)) if domain.empty else ((),):
        shapes = (shape,) * count
        case = Case(shapes, domain.metadata(lambda s: s[0], shapes))
        check_all(domain, case)
        if not domain.constant:
            # within a chain: what NumPy makes of 0-d arrays are scalars, which are easily taken for numbers
            f, xs = as_function(domain, case, case.arrays(domain))
            check_gradients(lambda *xs, f=f: f(*(x * 1.0 for x in xs)) * (1 / 3), *xs, order=1 + domain.smooth, seed=1)


@pytest.mark.parametrize("i", range(len(PINNED)))
def test_pinned(i):
    row, case = PINNED[i]
    check_all(ROWS[row], case)
    if not ROWS[row].constant:
        f, xs = as_function(ROWS[row], case, case.arrays(ROWS[row]))
        check_gradients(f, *xs, order=2, seed=case.seed)


# --- second order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [name for name, domain in DIFFERENTIABLE.items() if domain.smooth])
@given(data=st.data())
def test_second_order(row, data):
    """The derivative of the vjp, which runs on Tensors there."""
    domain = ROWS[row]
    case = data.draw(cases(domain))
    f, xs = as_function(domain, case, case.arrays(domain))
    check_gradients(f, *xs, order=2, analytic=None if domain.analytic else False, seed=case.seed)


# --- dtypes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [name for name in ROWS if name != "astype"])
@given(data=st.data())
def test_dtypes(row, data):
    """float16 and float32 stay what they are, forward and backward, and near float64 of the same graph."""
    domain = ROWS[row]
    case = data.draw(cases(domain))
    for dtype in (np.float16, np.float32):
        low = case.arrays(domain, dtype)
        high = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in low]
        if domain.constant:
            for a, b in zip(flat(domain(*low, **case.options)), flat(domain(*high, **case.options)), strict=True):
                assert_equal(np.asarray(a), np.asarray(b, dtype=np.asarray(a).dtype))
            continue
        (f, xs), (exact_f, exact_xs) = as_function(domain, case, low), as_function(domain, case, high)
        y, pull = tr.vjp(f, *map(constant, xs))
        exact, exact_pull = tr.vjp(exact_f, *map(constant, exact_xs))
        assert y.dtype == dtype
        u = np.random.default_rng(case.seed).standard_normal(y.shape).astype(dtype)
        near(y, exact, dtype)
        for x, g, e in zip(xs, pull(tr.Tensor(u)), exact_pull(tr.Tensor(u.astype(np.float64))), strict=True):
            assert g.dtype == dtype
            assert g.shape == x.shape
            near(g, e, dtype)


def near(low, exact, dtype):
    assert low.shape == exact.shape
    size = 1 + np.max(abs(exact.numpy()), initial=0)
    worst = np.max(abs(low.numpy() - exact.numpy()), initial=0)
    assert worst <= 32 * np.finfo(dtype).eps * size


def test_astype():
    x = leaf(np.array([1.0, 2.0], np.float32))
    y = ops.astype(x, "float64")
    assert y.dtype == np.float64
    y.backward(tr.Tensor(np.array([1.0, 3.0])))
    assert_equal(x.grad.numpy(), np.array([1.0, 3.0]), np.float32)
    assert not ops.astype(x, "int64").requires_grad


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row", [name for name, d in DIFFERENTIABLE.items() if d.signature == "*, *"])
def test_numbers_do_not_widen(row, dtype):
    """A number beside a Tensor, Python's or NumPy's, leaves its dtype alone; so does an integer array."""
    x = leaf(np.array([1.0, 2.0, 3.0], dtype))
    for other in (2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.5), np.array([1, 2, 3])):
        for y in (ROWS[row](x, other), ROWS[row](other, x)):
            if isinstance(other, np.ndarray) and other.dtype == np.float64:
                assert y.dtype in (dtype, np.float64)  # an array has a dtype of its own
            else:
                assert y.dtype == dtype, (row, other)
            assert y.requires_grad
            (g,) = tr.grad(tr.sum(y), [x])
            assert g.dtype == dtype


# --- the table itself ---------------------------------------------------------------------------------------


def test_every_public_op_has_a_row():
    missing = set(ops.__all__) - {domain.op.__name__ for domain in DOMAINS}
    assert not missing, f"ops without a row in tinygrad_rnn/testing/domains.py: {sorted(missing)}"


def test_rows_are_told_apart():
    assert len(ROWS) == len(DOMAINS)


@pytest.mark.parametrize("row", ROWS)
def test_a_case_can_be_made_again_from_its_repr(row):
    case = ROWS[row].sample(3)

    def array(data, dtype=np.int64, shape=None):  # how NumPy writes one
        return np.array(data, dtype).reshape(np.shape(data) if shape is None else shape)

    names = {"Case": Case, "array": array, "slice": slice, "Ellipsis": ..., "int64": np.int64, "bool": bool}
    again = eval(repr(case), names)
    for a, b in zip(case.arrays(ROWS[row]), again.arrays(ROWS[row]), strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.strides == b.strides
