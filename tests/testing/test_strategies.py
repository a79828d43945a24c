"""Each strategy yields what it promises, and throws nothing away on the way."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.internal.observability import with_observability_callback

import tinygrad_rnn as tr
from tinygrad_rnn.testing import DOMAINS, Boolean, Distinct, Domain, Integer, Real
from tinygrad_rnn.testing import strategies as kit
from tinygrad_rnn.testing.signatures import loops_of, shapes_of
from tinygrad_rnn.testing.strategies import (
    arrays,
    axes,
    broadcastable_shapes,
    cases,
    indices,
    layouts,
    shapes,
    signature_shapes,
    tensors,
)
from tinygrad_rnn.testing.values import LAYOUTS, laid_out


def drawn(strategy, count=100):
    """What a strategy draws."""
    found = []

    @settings(max_examples=count, database=None)
    @given(strategy)
    def draw(x):
        found.append(x)

    draw()
    return found


def rejected(strategy):
    """Why Hypothesis has thrown draws away: not what it cut short itself."""
    reasons = Counter()

    def observe(told):
        if getattr(told, "status", "") == "gave_up" and "maximum test case size" not in told.status_reason:
            reasons[told.status_reason] += 1

    with with_observability_callback(observe):
        drawn(strategy, 25)  # this is slow: it is watched line by line
    return reasons


@pytest.mark.parametrize(
    "strategy",
    [
        shapes(),
        broadcastable_shapes(3),
        signature_shapes("*mn, *np | n, n"),
        arrays(),
        arrays(values=Real(-1.0, 1.0, kinks=(0.0,), gap=0.9)),
        arrays(shapes(), Distinct(), layouts()),
        tensors(),
        axes(3),
        layouts(),
        indices((2, 0, 3)),
        cases(DOMAINS[0]),
        kit.sequences(),
        kit.configurations(),
    ],
    ids=lambda strategy: str(strategy).partition("(")[0],
)
def test_nothing_is_drawn_and_thrown_away(strategy):
    assert not rejected(strategy)


def test_a_rejection_would_be_seen():
    assert rejected(kit.seeds().filter(lambda n: n % 2))


def test_every_strategy_is_tested_here():
    elsewhere = {"sequences", "configurations", "seeds"}
    assert set(kit.__all__) - elsewhere <= set(globals())


# --- shapes -------------------------------------------------------------------------------------------------


def test_shapes():
    found = drawn(shapes())
    assert {len(s) for s in found} == {0, 1, 2, 3}
    assert {n for s in found for n in s} == {0, 1, 2, 3, 4}
    narrow = drawn(shapes(min_dims=2, max_dims=2, min_side=1, max_side=2))
    assert set(narrow) == {(1, 1), (1, 2), (2, 1), (2, 2)}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_broadcastable_shapes_broadcast(count):
    found = drawn(broadcastable_shapes(count))
    for some in found:
        assert len(some) == count
        np.broadcast_shapes(*some)
    if count > 1:
        assert any(len({len(s) for s in some}) > 1 for some in found)  # axes are missing,
        assert any(1 in a and 1 not in b and len(a) == len(b) for a, b, *_ in found)  # or have length one,
        assert any(1 in b and 1 not in a and len(a) == len(b) for a, b, *_ in found)  # on either side
    assert any(0 in s for some in found for s in some)
    assert not any(0 in s for some in drawn(broadcastable_shapes(count, empty=False)) for s in some)


@pytest.mark.parametrize(
    ("signature", "f"),
    [
        ("*, *", np.add),
        ("(),()->()", np.add),
        ("*mn, *np", np.matmul),
        ("(m,n),(n,p)->(m,p)", np.matmul),
        ("(in, hidden), (hidden)", lambda a, b: a * b[..., None, :]),
        ("n, *np | *mn, n | n, n", np.matmul),
        ("*i, oi, o", lambda x, w, b: x @ w.T + b),
        ("(3),(3)->(3)", np.cross),
        ("22", np.linalg.det),
        ("*nn", np.linalg.matrix_transpose),
    ],
)
def test_signature_shapes_fit(signature, f):
    for some in drawn(signature_shapes(signature, empty="cross" not in str(f))):
        f(*map(np.zeros, some))
        assert loops_of(signature, some) is not None


def test_what_a_signature_means():
    first = lambda sequence: sequence[0]
    assert shapes_of("m3, 3", first) == ((2, 3), (3,))
    assert shapes_of("", first) == ((),)
    assert loops_of("*mn, *np", [(5, 2, 3), (3, 4)]) == [1, 0]
    assert loops_of("*mn, *np", [(5, 2, 3), (4, 4)]) is None
    assert loops_of("*, *", [(2,)]) is None
    assert loops_of("*3", [(2, 3)]) == [1]
    assert loops_of("*3", [(2, 4)]) is None
    assert loops_of("(n),(n)", [(2, 3), (3,)]) == [1, 0]
    for wrong in ("(m,n", "(m)(n)", "*+", "m;n", "m,*(n)"):
        with pytest.raises(ValueError, match="signature"):
            shapes_of(wrong, first)


# --- values -------------------------------------------------------------------------------------------------


def test_real_values_keep_off_the_kinks():
    kind = Real(-3.0, 3.0, kinks=(0.0, 1.0, 4.0), gap=0.25)
    x = np.concatenate([x.ravel() for x in drawn(arrays((50,), kind))])
    assert x.min() >= -3
    assert x.max() <= 3
    assert min(abs(x - k).min() for k in kind.kinks) >= 0.25 - 1e-12
    for low, high in kind.intervals():
        assert np.any((low <= x) & (x <= high))
    assert kind.intervals() == [(-3.0, -0.25), (0.25, 0.75), (1.25, 3.0)]
    assert np.histogram(x, [-3, -0.25, 0.25, 0.75, 1.25, 3])[0][[1, 3]].tolist() == [0, 0]
    with pytest.raises(ValueError, match="no values are left"):
        Real(0.0, 1.0, kinks=(0.5,), gap=1.0)


def test_real_values_are_uniform():
    x = Real(-2.0, 2.0, kinks=(-1.0, 1.0)).sample(np.random.default_rng(0), (30_000,))
    counts = np.histogram(x, [-2, -1.5, -0.5, 0, 0.5, 1.5, 2])[0]
    assert counts[[1, 4]].tolist() == [0, 0]
    assert np.all(abs(counts[[0, 2, 3, 5]] / 7500 - 1) < 0.05)


def test_distinct_values_are_apart_in_all_arguments_together():
    domain = Domain(tr.maximum, "*, *", np.maximum, (Distinct(),))
    for case in drawn(cases(domain)):
        x = np.concatenate([x.ravel() for x in case.arrays(domain)])
        if x.size:
            assert abs(x / 0.0625 - np.round(x / 0.0625)).min() >= 0.25 - 1e-9
        if x.size > 1:
            assert np.diff(np.sort(x)).min() >= 0.03125 - 1e-12
    many = drawn(arrays((100,), Distinct(step=1.0)))  # more than the grid has
    assert all(np.diff(np.sort(x)).min() >= 0.5 for x in many)


def test_integers_and_booleans():
    for x in drawn(arrays((20,), Integer(-2, 3))):
        assert x.dtype == np.int64
        assert set(x) <= {-2, -1, 0, 1, 2}
    assert all(x.dtype == np.float64 for x in drawn(arrays((2,), Integer(0, 2, floating=True)), 10))
    assert {bool(v) for x in drawn(arrays((3,), Boolean())) for v in x} == {True, False}


@pytest.mark.parametrize("values", [Real(), Distinct(), Integer(0, 9), Boolean()])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_are_read_only_and_of_their_dtype(values, dtype):
    for x in drawn(arrays(shapes(), values, layouts(), dtype), 50):
        assert not x.flags.writeable
        assert x.dtype == (dtype if isinstance(values, Real | Distinct) else x.dtype)
        assert x.dtype.kind == {Real: "f", Distinct: "f", Integer: "i", Boolean: "b"}[type(values)]


def test_tensors():
    found = drawn(tensors(shapes(), requires_grad=True))
    assert all(t.requires_grad and t.is_leaf and t.dtype == np.float64 for t in found)
    assert {t.ndim for t in found} == {0, 1, 2, 3}
    (x, *_) = drawn(tensors((2, 2), layout="F"), 1)
    assert x._array.flags.f_contiguous
    assert not x.requires_grad


# --- layouts ------------------------------------------------------------------------------------------------


def test_layouts_are_what_they_are_called():
    x = np.arange(12.0).reshape(3, 4)
    assert laid_out(x, "C").flags.c_contiguous
    assert laid_out(x, "F").flags.f_contiguous
    assert laid_out(x, "strided").strides == (64, 16)
    assert laid_out(x, "reversed").strides == (-32, 8)
    assert laid_out(x, "stride 0").strides == (8, 0)
    for layout in LAYOUTS:
        made = laid_out(x, layout)
        assert not made.flags.writeable
        if layout != "stride 0":
            np.testing.assert_array_equal(made, x)
        for empty in (np.zeros(()), np.zeros((0, 3)), np.zeros((3, 0))):
            assert laid_out(empty, layout).shape == empty.shape
    assert set(drawn(layouts())) == set(LAYOUTS)


def test_distinct_values_are_not_repeated_by_a_layout():
    for x in drawn(arrays((4,), Distinct(), "stride 0"), 10):
        assert len(np.unique(x)) == 4


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [0, 1, 2, 3])
def test_axes_are_those_of_a_reduction(ndim):
    found = drawn(axes(ndim))
    x = np.zeros((2, 3, 4)[:ndim])
    for axis in found:
        x.sum(axis=axis)
    assert None in found
    assert () in found
    if ndim:
        assert {a for a in found if isinstance(a, int)} == set(range(-ndim, ndim))
    if ndim > 1:
        assert any(isinstance(a, tuple) and list(a) != sorted(a) for a in found)


@pytest.mark.parametrize(("basic", "advanced"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (4, 1, 2)])
def test_indices_index(shape, basic, advanced):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    kinds = set()
    for index in drawn(indices(shape, basic, advanced)):
        x[index]
        for key in index if isinstance(index, tuple) else (index,):
            kinds.add(key.dtype.kind if isinstance(key, np.ndarray) else type(key).__name__)
    if not advanced:
        assert not kinds & {"i", "b"}
    if not basic:
        assert not kinds & {"int", "NoneType", "ellipsis"}
    if shape == (4, 1, 2):
        assert kinds == {"slice"} | ({"int", "NoneType", "ellipsis"} if basic else set()) | (
            {"i", "b"} if advanced else set()
        )


# --- cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [str(d) for d in DOMAINS])
def test_cases_are_what_the_row_says(row):
    domain = next(d for d in DOMAINS if str(d) == row)
    for case in drawn(cases(domain), 20):
        xs = case.arrays(domain)
        assert [x.shape for x in xs] == list(case.shapes)
        domain(*xs, **case.options)
        again = case.arrays(domain)
        assert [x.tobytes() for x in xs] == [x.tobytes() for x in again]
        low = case.arrays(domain, np.float32)
        for x, y in zip(xs, low, strict=True):
            np.testing.assert_array_equal(x.astype(y.dtype), y)
