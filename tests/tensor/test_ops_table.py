"""Every op by all laws of the kit: values, derivatives of both orders, dtypes, layouts, broadcasting, backends.

The table is `tinygrad_rnn.testing.domains.DOMAINS`: a row per op says where it is defined and what it should
compute. What each law says stands in `tinygrad_rnn.testing.laws`.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.graph import leaf
from tinygrad_rnn.tensor.tensor import box
from tinygrad_rnn.testing import DOMAINS, Case, check_op
from tinygrad_rnn.testing.ops import check_case

ROWS = {str(domain): domain for domain in DOMAINS}
DIFFERENTIABLE = {name: domain for name, domain in ROWS.items() if not domain.constant}
EXAMPLES = examples(dev=50, ci=300, thorough=1000).max_examples

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
    if not domain.casts:
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
