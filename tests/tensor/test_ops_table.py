"""Every op by all laws of the kit: values, derivatives of both orders, dtypes, layouts, broadcasting, backends.

The table is `tinygrad_rnn.testing.domains.DOMAINS`: a row per op says where it is defined and what it should
compute. What each law says stands in `tinygrad_rnn.testing.laws`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.graph import leaf
from tinygrad_rnn.tensor.tensor import box
from tinygrad_rnn.testing import DOMAINS, Case, check_gradients, check_op
from tinygrad_rnn.testing.ops import check_case
from tinygrad_rnn.testing.values import make_arrays

ROWS = {str(domain): domain for domain in DOMAINS}
DIFFERENTIABLE = {name: domain for name, domain in ROWS.items() if not domain.constant}
EXAMPLES = examples(dev=30, ci=60, thorough=1000).max_examples

# Cases that have failed once: (row, case), as Hypothesis printed them.
PINNED = [
    ("relu", Case(((),))),  # where() took a 0-d float64 for a Python number, and made float32 of it
    ("std", Case(((2,),), {"axis": None, "keepdims": False, "ddof": 0})),  # a second derivative that cancels
]

# What every example of a row must have been checked for.
ALWAYS = ("value", "repeats", "raw", "no mutation", "gradient", "backend")
OF_GRADIENTS = ("shape", "dtype", "no aliasing", "linear", "zero", "transpose", "backward")


@pytest.mark.parametrize("row", ROWS)
def test_all_laws(row):
    domain = ROWS[row]
    counts = check_op(domain.op, domain, examples=EXAMPLES)
    total = counts["repeats"]
    assert total >= EXAMPLES
    wanted = set(ALWAYS)
    if not domain.constant:
        wanted.update(OF_GRADIENTS)
        if domain.smooth:
            wanted.add("second derivative")
    if not domain.casts and any(getattr(values, "floating", True) for values in domain.values):
        wanted.add("float32")
    assert {law: counts[law] for law in wanted} == dict.fromkeys(wanted, total)
    assert counts["layout"] > total / 4
    if any(alternative.count("*") > 1 for alternative in domain.signature.split("|")) and not domain.constant:
        # Hypothesis explores by varying what it has found, so the share of fifty examples may be anything
        assert counts["broadcasting"] > (total / 20 if total >= 300 else 0)


@pytest.mark.parametrize("i", range(len(PINNED)))
def test_pinned(i):
    row, case = PINNED[i]
    check_case(ROWS[row], case)


# --- without a Tensor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_lists_are_arrays(row):
    """An op that is called without a Tensor takes lists of numbers, and answers as it does for arrays of them."""
    domain = ROWS[row]
    checked = 0
    for seed in range(40):
        case = domain.sample(seed)
        if any(not shape or 0 in shape for shape in case.shapes):
            continue  # a number stays a number, and an empty list has lost its shape
        lists = [x.tolist() for x in case.arrays(domain)]
        found = domain(*lists, **case.options)
        expected = domain(*map(backend.asarray, lists), **case.options)
        for y, z in zip(*(v if isinstance(v, list) else [v] for v in (found, expected)), strict=True):
            assert not isinstance(y, tr.Tensor)
            assert y.dtype == z.dtype
            np.testing.assert_array_equal(y, z)
        checked += 1
    assert checked > 5


# --- axes of arrays that have none, or no entries -----------------------------------------------------------

OF_AXES = {name: domain for name, domain in DIFFERENTIABLE.items() if "axis" in domain.sample(0).options}
FEW = [(), (1,), (0,), (2, 0), (0, 3)]


def cases_of_few(domain):
    """0-d arrays and arrays of no entries or one, with every axis and the other options of a row."""
    others = [o for o in ({}, {"keepdims": True}, {"ddof": 1}) if o.keys() <= domain.sample(0).options.keys()]
    for shape, axis, other in itertools.product(FEW, (None, 0, -1, 1, (), (0,), (0, 1)), others):
        options = {**domain.sample(0).options, **other, "axis": axis}
        if "indices" in options:
            ndim = len(shape) if "along" in str(domain) else 1
            options["indices"] = np.zeros((min(math.prod(shape), 1),) * ndim, np.int64)
        if "indices_or_sections" in options:
            options["indices_or_sections"] = 1
        yield shape, options


@pytest.mark.filterwarnings("ignore:.*empty slice:RuntimeWarning")
@np.errstate(invalid="ignore", divide="ignore")
@pytest.mark.parametrize("row", OF_AXES)
def test_what_the_forward_takes_the_backward_takes(row):
    domain, ran = OF_AXES[row], 0
    for shape, options in cases_of_few(domain):
        (x,) = make_arrays([shape], domain.values_of(1), ["C"], seed=1)

        def f(x, options=options):
            y = domain(x, **options)
            return y[0] if isinstance(y, list) else y

        leaf = tr.Tensor(x, requires_grad=True)
        try:
            y = f(leaf)
        except (ValueError, IndexError, TypeError):  # no such axis, or nothing to reduce
            continue
        ran += 1
        u = np.ones(y.shape)
        first = tr.grad(y, leaf, u, retain_graph=True)
        again = tr.grad(y, leaf, u, create_graph=True)
        assert first.shape == again.shape == shape
        if again.requires_grad:
            assert tr.grad(again, leaf, np.ones(shape)).shape == shape
        if y.size and np.isfinite(y.numpy()).all():
            check_gradients(f, x)
    assert ran >= 3


@pytest.mark.parametrize("axis", [0, -1])
def test_an_axis_of_a_number(axis):
    """NumPy takes axis 0 and -1 of a 0-d array for its one element; what follows NumPy there has the derivative."""
    for f, slope in ((tr.sum, 1), (tr.max, 1), (tr.min, 1), (tr.prod, 1), (tr.norm, -1), (tr.logsumexp, 1)):
        x = tr.Tensor(-3.0, requires_grad=True)
        f(x, axis=axis, keepdims=True).backward()
        f(x, axis=axis).backward()
        assert x.grad.item() == 2 * slope, f


# --- dtypes -------------------------------------------------------------------------------------------------


def variable(x):
    return box(x, leaf(x.shape, x.dtype))


def assert_equal(ours, expected, dtype=None):
    assert ours.shape == expected.shape
    assert dtype is None or ours.dtype == dtype
    np.testing.assert_array_equal(ours, expected)


def test_astype():
    x = variable(np.array([1.0, 2.0], np.float32))
    y = ops.astype(x, "float64")
    assert y.dtype == np.float64
    y.backward(tr.Tensor(np.array([1.0, 3.0])))
    assert_equal(x.grad.numpy(), np.array([1.0, 3.0]), np.float32)
    assert not ops.astype(x, "int64").requires_grad


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row", [name for name, d in DIFFERENTIABLE.items() if d.signature == "*, *"])
def test_numbers_do_not_widen(row, dtype):
    """A number beside a Tensor, Python's or NumPy's, leaves its dtype alone; so does an integer array."""
    x = variable(np.array([1.0, 2.0, 3.0], dtype))
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
