"""check_op is itself checked: right ops pass, and each kind of broken one is refused, by the law it breaks."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor.backend import namespace
from tinygrad_rnn.testing import (
    DOMAINS,
    Boolean,
    Case,
    Domain,
    GradientError,
    Integer,
    KinkError,
    LawError,
    Real,
    check_op,
)
from tinygrad_rnn.testing.ops import check_case

ROWS = {str(domain): domain for domain in DOMAINS}
LAWS = {
    "value", "raw", "repeats", "shape", "dtype", "no mutation", "no aliasing", "linear", "broadcasting", "gradient",
    "second derivative", "zero", "transpose", "backward", "layout", "float32", "backend", "frozen",
}  # fmt: skip


# --- right ops pass -----------------------------------------------------------------------------------------


@tr.op(lambda g, y: g * (1 - y * y))
def right_tanh(x):
    return namespace(x).tanh(x)


@tr.op(lambda g, b: g * b, lambda g, a: g * a)
def right_product(a, b):
    return a * b


@tr.op(lambda g, b: g @ b.mT, lambda g, a: a.mT @ g)
def right_matmul(a, b):
    return a @ b


def test_a_right_op_passes_every_law():
    assert set(check_op(right_product, "*, *", reference=np.multiply, examples=40)) == LAWS


@pytest.mark.parametrize(
    ("op", "domain", "reference"),
    [
        (right_tanh, "*", np.tanh),
        (right_matmul, "*mn, *np", np.matmul),
        (right_matmul, "(m,n),(n,p)->(m,p)", np.matmul),
        (tr.relu, "*", lambda x: np.where(x > 0, x, 0)),  # the grid of a signature is off the kink
        (tr.maximum, "*, *", np.maximum),  # and without ties
        (lambda a, b: (a * b, tr.sum(a + b)), "*, *", lambda a, b: (a * b, np.sum(a + b))),  # several outputs
        (lambda x: {"y": [tr.exp(x)]}, "*", lambda x: {"y": [np.exp(x)]}),
        (lambda x: x, "*", lambda x: x),
        (lambda x, unused: x * 2.0, "*n, 2", None),
        (lambda x: tr.exp(x.detach()), Domain(tr.exp, "*", np.exp, constant=True), None),
        (lambda a, b: tr.sum(a * b, axis=-1, keepdims=True), "*n, *n", None),
    ],
)
def test_right_functions_pass(op, domain, reference):
    counts = check_op(op, domain, reference=reference, examples=30)
    assert counts["repeats"] >= 30
    assert counts["gradient"] == counts["no mutation"] == counts["repeats"]


@pytest.mark.parametrize("row", ["multiply", "split", "concatenate", "where", "argmax", "power of a number", "astype"])
def test_an_op_is_checked_on_the_row_of_another(row):
    """A wrapper is another op, and what the row says of shapes, values and options holds for it."""
    domain = ROWS[row]
    counts = check_op(lambda *args, **options: domain.op(*args, **options), domain, examples=20)
    assert counts["value"] == counts["repeats"]


def test_an_op_that_runs_on_numpy_alone_has_no_backend_to_agree_with():
    @tr.op(lambda g, x: g * tr.cos(x))
    def numpy_sin(x):
        return np.sin(x)

    counts = check_op(numpy_sin, examples=10)
    assert counts["backend"] == 0
    assert counts["gradient"] > 10


def test_float32_and_backend_of_integers_and_booleans():
    domain = Domain(
        lambda x, keep, ids: tr.where(keep, x, 0.0) * ids,
        "*, *, *",
        lambda x, keep, ids: np.where(keep, x, 0.0) * ids,
        (Real(), Boolean(), Integer(-2, 3)),
        name="masked",
    )
    assert set(check_op(domain.op, domain, examples=30)) == LAWS - {"frozen"}  # of one floating argument


# --- wrong ones do not --------------------------------------------------------------------------------------

calls = []


def tanh_with(vjp):
    @tr.op(vjp)
    def tanh(x):
        return namespace(x).tanh(x)

    return tanh


def tanh_forward(forward, vjp=lambda g, y: g * (1 - y * y)):
    return tr.op(vjp)(forward)


def product_with(vjp_a, vjp_b):
    @tr.op(vjp_a, vjp_b)
    def product(a, b):
        return a * b

    return product


def writes_by_force(x):
    y = np.tanh(x)
    if isinstance(x, np.ndarray) and x.size and x.base is not None:
        x.flags.writeable = True  # no flag is safe from those who want
        x[...] = 0.0
        x.flags.writeable = False
    return y


def counted(x):
    calls.append(1)
    return np.tanh(x) * (1 + 1e-9 * len(calls))


def mean_of_copies(g, a, b_shape):
    return g * a * (math.prod(b_shape) / max(math.prod(a.shape), 1) if len(b_shape) < len(a.shape) else 1.0)


def last_of_copies(g, a, b_shape):
    g = g * a
    return g[-1, ...] if len(b_shape) < len(a.shape) and a.shape[0] else g


def from_the_left(a, b):
    """Adds the matrices of a batch to those of the other batch's transpose."""
    return a + b if a.shape == b.shape else a + b * 2.0


FLOOR = Domain(tr.sign, "*", np.floor, constant=True)
SABOTAGED = {
    # the value
    "forward wrong, vjp to match": (
        "value",
        tanh_forward(lambda x: 1.1 * namespace(x).tanh(x), lambda g, y: g * 1.1 * (1 - (y / 1.1) * (y / 1.1))),
        "*",
        np.tanh,
    ),
    "wrong in one place": (
        "value",
        tr.op(lambda g, x: g * 3 * x * x)(lambda x: x * x * x),
        "*",
        lambda x: np.where(x > 1, x * x, x**3),
    ),
    "an axis too many": ("shape", tr.op(lambda g: g[0])(lambda x: x[None] * 1.0), "*", lambda x: x * 1.0),
    "integers of floats": ("dtype", tr.op(None)(lambda x: namespace(x).astype(x, int)), FLOOR, None),
    "not finite": ("value", tr.log, "*", np.log),
    "raw call differs": ("raw", lambda x: tr.tanh(x) if isinstance(x, tr.Tensor) else np.tanh(x) * 2, "*", None),
    "other values each time": ("repeats", tr.op(lambda g, y: g * (1 - y * y))(counted), "*", None),
    # what is given is left alone
    "forward writes to its input": ("no mutation", tanh_forward(lambda x: np.tanh(x, out=x)), "*", None),
    "vjp writes to g": ("no mutation", tanh_with(lambda g, y: g.__imul__(1 - y * y)), "*", None),
    "vjp writes to what was kept": ("no mutation", tr.op(lambda g, x: g * x.__imul__(2))(lambda x: x * x), "*", None),
    "a write by force": ("no mutation", tanh_forward(writes_by_force), "*", None),
    # shapes and dtypes
    "gradient of another shape": ("shape", tr.op(lambda g: tr.sum(g, axis=-1))(lambda x: x * 1.0), "*3", None),
    "float64 out of float32": (
        "dtype",
        tr.op(lambda g, y: g * (1 - y * y))(lambda x: np.tanh(np.asarray(x, np.float64))),
        "*",
        np.tanh,
    ),
    "float32 out of float64": (
        "dtype",
        tr.op(lambda g, y: g * (1 - y * y))(lambda x: np.tanh(np.asarray(x, np.float32))),
        "*",
        None,
    ),
    "half a precision": (
        "float32",
        tr.op(lambda g: g)(lambda x: (x + 1e4) - 1e4 if x.dtype == np.float32 else x * 1),
        "*",
        None,
    ),
    # the derivative
    "sign": ("gradient", tanh_with(lambda g, y: -g * (1 - y * y)), "*", np.tanh),
    "NaN": ("gradient", tanh_with(lambda g: g * float("nan")), "*", np.tanh),
    "no derivative at all": ("gradient", tr.op(None)(lambda x: namespace(x).tanh(x)), "*", np.tanh),
    "one way, on a grid of another row": (
        "gradient",
        tr.op(lambda g, b: g * b, lambda g, a: -g * a)(lambda a, b: a * b),
        ROWS["multiply"],
        None,
    ),
    "a stashed constant": (
        "second derivative",
        tr.op(lambda g, x: g * 3 * x * (x.detach() if isinstance(x, tr.Tensor) else x))(lambda x: x * x * x),
        "*",
        None,
    ),
    "clipped at 10": ("linear", tanh_with(lambda g, y: tr.clip(g, -10.0, 10.0) * (1 - y * y)), "*", np.tanh),
    "small gradients dropped": (
        "linear",
        tanh_with(lambda g, y: tr.where(tr.abs(g) < 1e-6, 0.0, g) * (1 - y * y)),
        "*",
        np.tanh,
    ),
    "1e-300 at zero": ("zero", tanh_with(lambda g, y: g * (1 - y * y) + 1e-300), "*", np.tanh),
    "NaN at zero": ("zero", tanh_with(lambda g, y: g * g / g * (1 - y * y)), "*", np.tanh),
    "wrong on Tensors only": (
        "transpose",
        tanh_with(lambda g, y: g * (1 - y * y) * (1.5 if isinstance(g, tr.Tensor) else 1)),
        "*",
        np.tanh,
    ),
    "mean of the copies": ("broadcasting", product_with(lambda g, b: g * b, mean_of_copies), "*, *", np.multiply),
    "last of the copies": ("broadcasting", product_with(lambda g, b: g * b, last_of_copies), "*, *", np.multiply),
    "broadcasts from the left": ("broadcasting", from_the_left, "*mn, *mn", None),
    "wrong where the other requires none": (
        "frozen",
        lambda a, b: a * b if b.requires_grad or not a.requires_grad else a.detach() * b + 0.0 * a,
        "*, *",
        None,
    ),
    "wrong where it saturates": (
        "gradient",
        tanh_with(lambda g, y: g * tr.where(tr.abs(y) > 0.9999, 0, 1 - y * y)),
        "*",
        None,
    ),
    # memory
    "gradients in C order only": (
        "layout",
        tr.op(lambda g: 2 * (np.ravel(g, order="K").reshape(g.shape) if isinstance(g, np.ndarray) else g))(
            lambda x: x * 2
        ),
        "*",
        None,
    ),
    "one block of 32": (
        "gradient",
        tr.op(lambda g: 2 * g * ((np.arange(g.size) < 32).reshape(g.shape) if isinstance(g, np.ndarray) else 1))(
            lambda x: x * 2
        ),
        "*",
        None,
    ),
    "C order only": ("layout", tanh_forward(lambda x: np.tanh(np.ravel(x, order="K").reshape(x.shape))), "*", None),
    "strict arrays differ": (
        "backend",
        tanh_forward(lambda x: namespace(x).tanh(x) * (1.0 if isinstance(x, np.ndarray) else 2.0)),
        "*",
        None,
    ),
}


@pytest.mark.parametrize("name", SABOTAGED)
def test_refuses_what_is_broken(name):
    law, op, domain, reference = SABOTAGED[name]
    with pytest.raises(LawError) as caught:
        check_op(op, domain, reference=reference, examples=60)
    assert caught.value.law == law
    assert "Case(shapes=" in str(caught.value)


def test_the_table_of_sabotage_breaks_every_law_that_an_op_can_break():
    of_the_engine = {"no aliasing", "backward"}
    assert {law for law, *_ in SABOTAGED.values()} == LAWS - of_the_engine
    assert len(SABOTAGED) >= 20


def test_refuses_an_engine_that_hands_out_what_it_was_given(monkeypatch):
    def careless(results, gradients):
        for node, g in results.items():
            if node.watch is not None and node.watch.keeps:
                node.watch.grad = g if node.watch.grad is None else node.watch.grad + g

    check_op(tr.add, "*, *", examples=20)
    monkeypatch.setattr("tinygrad_rnn.tensor.tensor.write_gradients", careless)
    with pytest.raises(LawError, match="shares memory with the incoming gradient") as caught:
        check_op(tr.add, "*, *", examples=20)
    assert caught.value.law == "no aliasing"


def test_refuses_an_engine_that_does_not_add_up(monkeypatch):
    def forgetful(results, gradients):
        for node, g in results.items():
            if node.watch is not None and node.watch.keeps:
                node.watch.grad = np.array(g)

    monkeypatch.setattr("tinygrad_rnn.tensor.tensor.write_gradients", forgetful)
    with pytest.raises(LawError, match="after 2 backwards") as caught:
        check_op(tr.add, "*, *", examples=20)
    assert caught.value.law == "backward"


def test_an_input_on_a_kink_is_named_as_such():
    with pytest.raises(KinkError) as caught:
        check_op(tr.relu, Domain(tr.relu, "3", values=(Integer(0, 1, floating=True),)), examples=5)
    assert caught.value.law == "kink"


# --- what it says -------------------------------------------------------------------------------------------


def test_the_smallest_example_is_reported():
    @tr.op(lambda g, y: g * (1 - y * y) * (2 if len(y.shape) == 1 and y.shape[0] == 3 else 1))
    def wrong_for_three(x):
        return np.tanh(x)

    with pytest.raises(GradientError) as caught:
        check_op(wrong_for_three, "*n", examples=1000)  # one in sixty is wrong
    assert "in wrong_for_three, Case(shapes=((3,),), options={}, layouts=('C',), seed=0)" in str(caught.value)
    assert "ratio 2" in str(caught.value)


def test_an_op_that_fails_only_once_is_reported_all_the_same():
    made = []

    @tr.op(lambda g: g * 1.0)
    def flaky(x):
        made.append(1)
        return x * (2.0 if 2000 <= len(made) < 2050 else 1.0)

    with pytest.raises(LawError) as caught:
        check_op(flaky, Domain(flaky, "3", analytic=None), examples=100)
    assert caught.value.law in LAWS
    assert len(made) > 2050


def test_what_an_op_raises_is_not_hidden():
    def broken(x):
        raise KeyError("not a matter of laws")

    with pytest.raises(KeyError, match="not a matter of laws"):
        check_op(broken)
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        check_op(tr.exp, order=3)
    with pytest.raises(ValueError, match="not the axes of an argument"):
        check_op(tr.exp, "*-")
    with pytest.raises(TypeError, match="returns Tensors, not float"):
        check_op(lambda x: 1.0)


def test_examples_order_and_counts():
    counts = check_op(tr.exp, "*n", examples=7, order=1)
    assert counts["value"] == 0  # without a reference
    assert counts["second derivative"] == 0
    assert counts["gradient"] == 7 + 5  # and the layouts
    assert sum(check_case(ROWS["exp"], Case(((2,),))).values()) == len(LAWS - {"broadcasting", "frozen"})


def test_without_hypothesis_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        check_op(tr.exp)
    check_case(ROWS["exp"], Case(((2,),)))  # needs none
