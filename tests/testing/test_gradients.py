"""The checker is itself checked: right derivatives pass, and each kind of wrong one is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import DTypeError
from tinygrad_rnn.testing import GradientError, KinkError, check_gradients


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# --- right derivatives pass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("analytic", [None, True, False])
@pytest.mark.parametrize("order", [1, 2])
def test_accepts_what_is_right(order, analytic):
    check_gradients(
        lambda x, w, b: tr.tanh(x @ w + b) * x[..., :1], normal(4, 3), normal(3, 2), normal(2), order=order,
        analytic=analytic,
    )  # fmt: skip


def test_accepts_tensors_nested_outputs_and_constants():
    def f(x, ids, h):
        y = tr.take(x, ids, axis=0)
        return y * 2, (tr.sum(h * y), [tr.exp(h)])

    check_gradients(f, tr.Tensor(normal(3, 2)), np.array([0, 2, 2, 1]), normal(4, 2), order=2)


def test_takes_the_difference_where_the_complex_step_is_wrong():
    x = np.linspace(-2, 2, 8)
    check_gradients(tr.abs, x, order=2)
    check_gradients(lambda x: tr.maximum(x, 0.1) * x, x, order=2)


def test_accepts_scalars_empty_arrays_and_unused_inputs():
    check_gradients(tr.sin, np.array(0.3), order=2)
    check_gradients(lambda x, y: tr.sum(x) + 0 * tr.sum(y), np.zeros((0, 3)), normal(2), order=2)
    check_gradients(lambda x, unused: x * x, normal(3), normal(2), order=2)
    check_gradients(lambda x: x.detach() - x.detach(), normal(3))


def test_a_vanishing_gradient_is_neither_a_failure_nor_a_hiding_place():
    x = np.array([-28.0, -29.0, -30.0])  # gradients of 1e-12

    @tr.op(lambda g, y: 2 * g * y)
    def doubled(x):
        return np.exp(x)

    check_gradients(tr.exp, x, analytic=True)
    with pytest.raises(GradientError, match=r"ratio 2\b"):
        check_gradients(doubled, x, analytic=True)


def test_a_gradient_that_cancels_to_zero_is_no_failure():
    """The sum of a softmax is constant: analytic and numeric derivative are different noise, of 1e-17."""
    for seed in range(20):
        for analytic in (True, False):
            check_gradients(lambda x: tr.sum(tr.softmax(x, axis=-1)), normal(2, 3), analytic=analytic, seed=seed)


# --- wrong ones do not --------------------------------------------------------------------------------------


def sabotaged(*vjps, joint=None):
    """tanh, multiply, add or a product with a derivative of one's own, by the number of vjps."""
    return tr.op(*vjps, joint=joint)


def tanh_with(vjp):
    @tr.op(vjp)
    def tanh(x):
        return np.tanh(x)

    return tanh


def product_with(vjp_a, vjp_b):
    @tr.op(vjp_a, vjp_b)
    def product(a, b):
        return a @ b

    return product


SQUARE = (normal(3, 3), normal(3, 3, seed=1))
TRUE_A, TRUE_B = (lambda g, b: g @ b.mT), (lambda g, a: a.mT @ g)
SABOTAGED = {
    "zero": (tanh_with(lambda g: g * 0.0), normal(3)),
    "sign": (tanh_with(lambda g, y: -g * (1 - y * y)), normal(3)),
    "factor 2": (tanh_with(lambda g, y: 2 * g * (1 - y * y)), normal(3)),
    "a millionth too much": (tanh_with(lambda g, y: 1.000001 * g * (1 - y * y)), normal(3)),
    "dropped term": (tanh_with(lambda g: g * 1.0), normal(3)),
    "of the input, not the output": (tanh_with(lambda g, x: g * (1 - x * x)), normal(3)),
    "NaN": (tanh_with(lambda g: g * float("nan")), normal(3)),
    "transposed": (product_with(lambda g, b: (g @ b.mT).mT, TRUE_B), *SQUARE),
    "not transposed": (product_with(lambda g, b: g @ b, TRUE_B), *SQUARE),
    "sides swapped": (product_with(TRUE_A, lambda g, a: g @ a.mT), *SQUARE),
    "second argument without a derivative": (product_with(TRUE_A, None), *SQUARE),
    "missing mean's 1/N": (
        tr.op(lambda g, x_shape: tr.broadcast_to(g, x_shape))(lambda x: np.mean(x)),
        normal(4),
    ),
    "one row only": (tanh_with(lambda g, y: tr.pad((g * (1 - y * y))[:-1], ((0, 1),))), normal(4)),
    "one step off": (tanh_with(lambda g, y: tr.flip(tr.flip(g) * (1 - y * y))), normal(4)),
    "detached": (lambda x: tr.tanh(x) * x.detach(), normal(3)),
    "detached at all": (lambda x: tr.tanh(x.detach()), normal(3)),
    "detached through an array": (lambda x: x * tr.Tensor(np.array(x.detach().numpy())), normal(3)),
    "relu's mask inverted": (
        tr.op(lambda g, x: tr.where(x > 0, 0.0 * g, g))(lambda x: np.maximum(x, 0)),
        np.array([-1.0, 2.0, 3.0, -0.5]),
    ),
}


@pytest.mark.parametrize("name", SABOTAGED)
@pytest.mark.parametrize("analytic", [None, False])
def test_refuses_what_is_wrong(name, analytic):
    f, *inputs = SABOTAGED[name]
    with pytest.raises(GradientError):
        check_gradients(f, *inputs, analytic=analytic)


def test_refuses_a_missing_unbroadcast():
    """The engine undoes broadcasting, so the mistake is made by hand: a mean, or the first row."""
    for reduce in (lambda g: g[:1], lambda g: tr.mean(g, axis=0, keepdims=True)):

        @tr.op(lambda g: g, lambda g, reduce=reduce: reduce(g))
        def add_bias(x, b, *, reduce=reduce):
            return x + b

        with pytest.raises(GradientError, match="of input 1"):
            check_gradients(add_bias, normal(4, 3), normal(1, 3))


def test_refuses_a_softmax_without_a_derivative():
    """Its gradient for a cotangent of ones is zero, so a checker that sums the output would pass this."""

    @tr.op(lambda g: g * 0.0)
    def softmax(x):
        e = np.exp(x)
        return e / e.sum(-1, keepdims=True)

    check_gradients(lambda x: tr.sum(tr.softmax(x, axis=-1)), normal(2, 3))
    check_gradients(lambda x: tr.softmax(x, axis=-1), normal(2, 3), order=2)
    with pytest.raises(GradientError):
        check_gradients(softmax, normal(2, 3))


def test_refuses_a_vjp_that_writes_to_its_arguments():
    @tr.op(lambda g, y: g.__imul__(1 - y * y))
    def writes_to_g(x):
        return np.tanh(x)

    @tr.op(lambda g, x: g * x.__imul__(2))
    def writes_to_x(x):
        return x * x

    for f in (writes_to_g, writes_to_x):
        with pytest.raises(ValueError, match="read-only"):
            check_gradients(f, normal(3))


def test_refuses_a_wrong_second_derivative():
    """The first derivative is right, but a part of it is a constant, as if an array had been stashed."""

    @tr.op(lambda g, x: g * 3 * x * (x.detach() if isinstance(x, tr.Tensor) else x))
    def cube(x):
        return x * x * x

    check_gradients(cube, normal(3))
    with pytest.raises(GradientError, match="second derivative of input 0"):
        check_gradients(cube, normal(3), order=2)


@pytest.mark.parametrize("f", [tr.abs, lambda x: tr.norm(x), lambda x: tr.relu(x) ** 2, tr.softplus])
def test_the_complex_step_is_verified_not_assumed(f):
    """It is silently wrong, mostly zero, for functions that are not analytic."""
    x = np.array([1.0, 2.0, -1.0])
    check_gradients(f, x)
    try:
        check_gradients(f, x, analytic=True)
    except GradientError as error:
        assert "complex step is wrong" in str(error)
    for wrong in (tr.abs, lambda x: tr.abs(x) * x):
        with pytest.raises(GradientError, match="complex step is wrong"):
            check_gradients(wrong, x, analytic=True)


# --- the whole Jacobian -------------------------------------------------------------------------------------


@pytest.mark.parametrize("analytic", [None, False])
def test_refuses_a_small_entry_that_is_wrong_beside_a_large_one(analytic):
    """Along a random direction it is 1e-20 of the whole; entry by entry it is a factor of two."""
    scale = np.array([1.0, 1e-20, 1.0])

    @tr.op(lambda g: g * np.array([1.0, 2e-20, 1.0]))
    def scaled(x):
        return x * scale

    with pytest.raises(GradientError, match=r"entry \(1,\) of output 0 .* entry \(1,\) of input 0.* ratio 2 "):
        check_gradients(scaled, normal(3), analytic=analytic)
    check_gradients(lambda x: x * scale, normal(3), analytic=analytic)


def test_an_entry_is_judged_by_its_own_size_and_not_by_that_of_another_output():
    @tr.op(lambda g, x: g[..., 0] * 1e15 + g[..., 1] * 2 * x)  # 1e15 x and a wrong derivative of 3 x²
    def two(x):
        return np.stack([1e15 * x, 3 * x * x], -1)

    with pytest.raises(GradientError, match=r"entry \(0, 1\) of output 0 .* ratio 0\.333"):
        check_gradients(two, np.array([0.5, 0.75]))


@pytest.mark.parametrize("size", [1, 300])
def test_refuses_nan(size):
    """With a Jacobian of its own, and too large for one."""

    @tr.op(lambda g: g * np.nan)
    def sick(x):
        return x * 1.0

    with pytest.raises(GradientError, match="analytic nan"):
        check_gradients(sick, np.ones(size))


@pytest.mark.parametrize("size", [1, 300])
def test_what_is_small_beside_the_values_is_no_rounding_if_it_stays(size):
    @tr.op(lambda g: 0 * g)
    def nearly_one(x):
        return 1 + 1e-14 * x

    with pytest.raises(GradientError, match="ratio 0"):
        check_gradients(nearly_one, np.linspace(0.5, 1, size))


def test_the_jacobian_of_several_inputs_and_outputs():
    def right(x, y):
        return x * tr.sum(y), (1e-20 * y, tr.exp(x))

    @tr.op(lambda g: 3e-20 * g)
    def small(v):
        return 1e-20 * v

    check_gradients(right, normal(2), normal(3))
    with pytest.raises(GradientError, match=r"of output 1 .* of input 1 .* ratio 3 "):
        check_gradients(lambda x, y: (x * tr.sum(y), (small(y), tr.exp(x))), normal(2), normal(3))


# --- kinks --------------------------------------------------------------------------------------------------

KINKS = {
    "abs at 0": (tr.abs, np.array([1.0, 0.0, -1.0]), "slope -1 on one side and 1 on the other"),
    "abs at 0 alone": (tr.abs, np.zeros(3), "slope -1 on one side and 1 on the other"),
    "relu at 0": (tr.relu, np.array([0.0]), "slope 0 on one side and 1 on the other"),
    "relu near 0": (lambda x: tr.relu(x) + tr.abs(x - 7), np.array([0.0004]), r"0\.0004 away"),
    "clip at a bound": (lambda x: tr.clip(x, -1, 1), np.array([0.0, 1.0]), r"entry \(1,\) of input 0, which is 1"),
    "tie of max": (lambda x: tr.max(x), np.ones(3), "kink"),
    "norm at 0": (tr.norm, np.zeros(3), "kink"),
    "in a long sum": (lambda x: tr.sum(tr.abs(x)), np.r_[normal(30) + 9, 0.0, normal(30) + 9], r"entry \(30,\)"),
    "jump": (lambda x: tr.where(x > 0, x + 1, x), np.array([2.0, 0.0]), r"entry \(1,\) .* a jump, by 1"),
    "of the slope": (lambda x: tr.relu(x) * tr.relu(x), np.zeros(2), "kink"),
    "edge of the domain": (tr.sqrt, np.array([1.0, 0.0]), "not finite near it"),
    "pole": (lambda x: 1 / x, np.array([1.0, 0.0]), "not finite near it"),
}


@pytest.mark.parametrize("analytic", [None, False])
@pytest.mark.parametrize("name", KINKS)
def test_a_kink_is_reported_as_one_and_never_tolerated(name, analytic):
    """Whatever the subgradient: that of abs at 0 equals the central difference, and is refused as well."""
    f, x, words = KINKS[name]
    with pytest.raises(KinkError, match=words):
        check_gradients(f, x, analytic=analytic)


def test_a_kink_of_the_second_input_is_found_in_the_second_input():
    with pytest.raises(KinkError, match=r"entry \(0, 1\) of input 1"):
        check_gradients(lambda x, y: x * tr.abs(y), normal(2, 2), np.array([[1.0, 0.0], [2.0, 3.0]]))


def test_no_kink_is_seen_where_there_is_none():
    for f in (lambda x: x**3, tr.sin, tr.exp, lambda x: tr.sin(20 * x), tr.tanh, tr.softplus):
        for analytic in (None, False):
            check_gradients(f, np.array([0.0, 1.0, -0.5]), analytic=analytic, rtol=1e-5)


def test_a_difference_that_is_rough_is_said_to_be():
    with pytest.raises(GradientError, match="note: the function bends much within a step"):
        check_gradients(lambda x: tr.sin(2000 * x), normal(2), analytic=False)
    check_gradients(lambda x: tr.sin(2000 * x), normal(2))


def test_a_function_that_bends_much_gets_a_shorter_step():
    """A normalisation of nearly equal values, as batch normalisation does: no false alarm, and no hiding place."""
    x = 1 + 0.1 * normal(4, 3)

    def normalise(x):
        centred = x - tr.mean(x, axis=0)
        return centred / tr.sqrt(tr.mean(tr.square(centred), axis=0) + 1e-5)

    check_gradients(normalise, x, order=2, analytic=False)

    @tr.op(lambda g: 1.0000001 * g)
    def slightly(x):
        return x * 1

    with pytest.raises(GradientError):
        check_gradients(lambda x: slightly(normalise(x)), x, analytic=False)


def test_what_rounding_leaves_is_no_kink():
    """An output that is 0 but for rounding jumps by some 1e-17, beside others of 1."""

    def f(x):
        return x, tr.sum(x / 3) - tr.sum(x) / 3

    for seed in range(20):
        for analytic in (None, False):
            check_gradients(f, normal(5, seed=seed), analytic=analytic, seed=seed)


# --- an RNN whose gradient is cut ---------------------------------------------------------------------------


def rnn(x, h, W, U, cut=None):
    """A plain RNN by hand over x (T, I); the state is detached after `cut` steps."""
    hs = []
    for t in range(x.shape[0]):
        h = tr.tanh(x[t] @ W + h @ U)
        if cut is not None and t == cut - 1:
            h = h.detach()
        hs.append(h)
    return hs


def rnn_inputs(T=40, I=2, H=4):  # noqa: E741 (I is the input size everywhere)
    rng = np.random.default_rng(0)
    scale = H**-0.5
    return tuple(rng.uniform(-scale, scale, shape) for shape in ((T, I), (H,), (I, H), (H, H)))


@pytest.mark.parametrize("outputs", ["last", "all"])
@pytest.mark.parametrize("analytic", [None, False])
def test_refuses_an_rnn_whose_gradient_is_cut(outputs, analytic):
    """What is lost is 1e-10 of the whole, under the absolute tolerance of any other checker."""

    def run(cut=None):
        return lambda *args: rnn(*args, cut=cut)[-1] if outputs == "last" else tuple(rnn(*args, cut=cut))

    check_gradients(run(), *rnn_inputs(), analytic=analytic)
    with pytest.raises(GradientError, match="analytic"):
        check_gradients(run(cut=25), *rnn_inputs(), analytic=analytic)


# --- the message and the arguments --------------------------------------------------------------------------


def test_the_message_names_input_entry_values_and_ratio():
    @tr.op(lambda g, b: g * b, lambda g, a: tr.where(a > 10, 3 * g, g) * a)
    def multiply(a, b):
        return a * b

    a = np.array([[1.0, 2.0], [11.0, 4.0]])
    with pytest.raises(GradientError) as caught:
        check_gradients(multiply, a, np.ones((2, 2)))
    message = str(caught.value)
    assert "of input 1, of shape (2, 2)" in message
    assert "worst entry (1, 0): input 1," in message
    assert "ratio 3;" in message
    assert "1 of 4 entries differ" in message
    assert isinstance(caught.value, AssertionError)


def test_the_kit_is_imported_without_hypothesis():
    code = "import sys, tinygrad_rnn.testing; sys.exit('hypothesis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_refuses_float32():
    with pytest.raises(DTypeError, match="input 1 is float32"):
        check_gradients(tr.add, normal(2), normal(2).astype(np.float32))
    with pytest.raises(DTypeError, match="the function made float32"):
        check_gradients(lambda x: x.to("float32"), normal(2))


def test_refuses_other_nonsense():
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        check_gradients(tr.sin, normal(2), order=3)
    with pytest.raises(TypeError, match="returns Tensors"):
        check_gradients(lambda x: 1.0, normal(2))


def test_inputs_are_left_alone_and_results_repeat():
    x, w = normal(3, 2), normal(2, 2)
    before = x.copy(), w.copy()
    check_gradients(lambda x, w: x @ w, x, w, order=2)
    assert np.array_equal(x, before[0])
    assert np.array_equal(w, before[1])
    assert x.flags.writeable
    messages = set()
    for _ in range(2):
        with pytest.raises(GradientError) as caught:
            check_gradients(tanh_with(lambda g: g), x, seed=7)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_integers_alone_are_nothing_to_check():
    for integers in (np.array([-2, 1, 3]), [1, 2], 2, True):
        with pytest.raises(tr.errors.DTypeError, match="nothing to check"):
            check_gradients(lambda x: x * 2.0, integers)


def test_what_is_pulled_back_is_not_what_the_user_drew():
    """xᵀx is symmetric: a gradient that is transposed would be right, where x came again as the incoming gradient."""
    transposed = product_with(TRUE_A, lambda g, a: (a.mT @ g).mT)
    for seed in range(3):
        with pytest.raises(GradientError, match="of input 1"):
            check_gradients(transposed, normal(20, 9, seed=seed), normal(9, 9, seed=seed), seed=seed)


def test_a_layer_is_checked_with_its_parameters_and_left_alone():
    layer = tr.nn.Linear(3, 2)
    before = layer.weight.numpy().copy()
    check_gradients(layer, normal(4, 3), order=2)
    assert layer.weight.dtype == np.float32 and np.array_equal(layer.weight.numpy(), before) and layer.training
    layer.forward = lambda x: x @ layer.weight.detach().mT + layer.bias
    with pytest.raises(GradientError) as caught:
        check_gradients(layer, normal(4, 3))
    assert caught.value.law == "reached"


def test_a_kink_that_is_not_near_is_kept_off_by_a_shorter_step():
    for relu in (tr.relu, tr.leaky_relu, lambda x: tr.maximum(x, 0.0)):
        check_gradients(relu, np.array([0.0012, -0.0013, 1.0]))


def test_what_loses_its_digits_elsewhere_is_no_mistake():
    """1 - sigmoid(26) has few digits left, and its logarithm's derivative by a step none to judge by."""
    for seed in range(8):
        check_gradients(lambda x: tr.log(1 - tr.sigmoid(x)), normal(3, 2, seed=seed), seed=seed)


def test_a_random_function_is_named():
    with pytest.raises(ValueError, match="other values when it is called again"):
        check_gradients(lambda x: x * tr.rand(3, dtype="float64"), np.ones(3))
