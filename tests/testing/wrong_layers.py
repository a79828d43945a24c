"""Sixty and more wrong layers of the kinds that people write, each wrong in another way, and inputs.

`SECOND` are wrong in the second derivative alone; of `WRITES` NumPy itself says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tinygrad_rnn as tr
from tests.testing.right_layers import Layer, normal
from tinygrad_rnn import nn
from tinygrad_rnn.tensor.random import generator

WRONG: dict[str, Callable[[np.random.Generator], tuple[Any, ...]]] = {}
SECOND = {
    "a stashed array",
    "twice as much where it is differentiated again",
    "leaves the tensors",
    "a hook on the first",
}
WRITES = {"writes into what was kept", "writes into the gradient"}  # NumPy refuses it


def wrong(make: Any) -> Any:
    """A layer by the name of the function that makes it, with its inputs."""
    WRONG[make.__name__.strip("_").replace("_", " ")] = make
    return make


def op(forward: Any, *vjps: Any, joint: Any = None) -> Any:
    return tr.op(*vjps, joint=joint)(forward)


def product(*vjps: Any) -> Any:
    return op(lambda x, W: x @ W, *vjps)


def raw(g: Any) -> bool:
    """Whether a vjp is called with arrays."""
    return not isinstance(g, tr.Tensor)


def elementwise(name: str, forward: Any, vjp: Any, at: Any = None) -> None:
    """A wrong derivative of a function of one array."""
    WRONG[name] = lambda rng: (op(lambda x: forward(x), vjp), normal(rng, 4, 3) if at is None else at)


def tanh_if(name: str, condition: Any) -> None:
    """tanh with a gradient that is doubled on a condition of the raw gradient and the output."""
    elementwise(name, np.tanh, lambda g, y: g * (1 - y * y) * (2 if raw(g) and condition(g, y) else 1))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# --- products and sums --------------------------------------------------------------------------------------


@wrong
def the_weight_is_not_transposed(rng):
    return product(lambda g, W: g @ W, lambda g, x: x.mT @ g), normal(rng, 4, 3), normal(rng, 3, 3)


@wrong
def the_gradient_of_the_weight_is_transposed(rng):
    return product(lambda g, W: g @ W.mT, lambda g, x: (x.mT @ g).mT), normal(rng, 4, 3), normal(rng, 3, 3)


@wrong
def the_weight_hears_of_the_first_row(rng):
    return product(lambda g, W: g @ W.mT, lambda g, x: x[:1].mT @ g[:1]), normal(rng, 4, 3), normal(rng, 3, 2)


@wrong
def the_weight_gets_the_mean_over_the_batch(rng):
    vjp = lambda g, x: x.mT @ g / x.shape[0]
    return product(lambda g, W: g @ W.mT, vjp), normal(rng, 4, 3), normal(rng, 3, 2)


@wrong
def the_bias_gets_one_row(rng):
    add = op(lambda x, b: x + b, lambda g: g, lambda g: g[:1])
    return add, normal(rng, 4, 3), normal(rng, 1, 3)


@wrong
def the_bias_gets_a_mean(rng):
    add = op(lambda x, b: x + b, lambda g: g, lambda g: tr.mean(g, axis=0))
    return add, normal(rng, 4, 3), normal(rng, 3)


@wrong
def a_number_instead_of_the_rows(rng):
    return op(lambda x: np.sum(x, axis=0), lambda g, x: tr.sum(g) * (x * 0 + 1)), normal(rng, 4, 3)


@wrong
def the_mean_is_a_sum(rng):
    return op(lambda x: np.mean(x, axis=-1, keepdims=True), lambda g, x: g + 0 * x), normal(rng, 4, 3)


@wrong
def the_sum_goes_back_along_the_other_axis(rng):
    return op(lambda x: np.sum(x, axis=1), lambda g, x: g + 0 * x), normal(rng, 3, 3)


@wrong
def the_subtrahend_has_the_sign_of_the_minuend(rng):
    return op(lambda a, b: a - b, lambda g: g, lambda g: g), normal(rng, 3), normal(rng, 3)


@wrong
def the_denominator_is_not_squared(rng):
    divide = op(lambda a, b: a / b, lambda g, b: g / b, lambda g, a, b: -g * a / b)
    return divide, normal(rng, 4), 1.5 + rng.random(4)


@wrong
def the_exponent_without_its_logarithm(rng):
    power = op(lambda a, b: a**b, lambda g, a, b: g * b * a ** (b - 1), lambda g, y: g * y)
    return power, 0.5 + rng.random(4), normal(rng, 4)


@wrong
def the_product_divided_by_what_may_be_zero(rng):
    f = op(lambda x: np.prod(x, axis=-1, keepdims=True), lambda g, x, y: g * y / x)
    return f, np.array([[1.0, 2.0, -1.0], [0.0, 2.0, 3.0]])


@wrong
def a_running_sum_goes_back_forwards(rng):
    return op(lambda x: np.cumsum(x, axis=0), lambda g: tr.cumsum(g, axis=0)), normal(rng, 5, 2)


@wrong
def a_flip_is_not_flipped_back(rng):
    return op(lambda x: x[::-1] * 1.0, lambda g: g), normal(rng, 4, 2)


@wrong
def halves_come_back_exchanged(rng):
    joint = lambda g: (g[:, 2:], g[:, :2])
    return op(lambda a, b: np.concatenate([a, b], axis=1), joint=joint), normal(rng, 3, 2), normal(rng, 3, 2)


@wrong
def a_reshape_comes_back_in_another_order(rng):
    f = op(lambda x: np.reshape(x, (3, 4)), lambda g: tr.reshape(g.mT, (4, 3)))
    return f, normal(rng, 4, 3)


# --- nonlinear ----------------------------------------------------------------------------------------------

elementwise("the sign is wrong", np.tanh, lambda g, y: -g * (1 - y * y))
elementwise("the derivative is of the input", np.tanh, lambda g, x: g * (1 - x * x))
elementwise("sigmoid without 1 - y", sigmoid, lambda g, y: g * y)
elementwise("twice too much", lambda x: x * x, lambda g, x: 4 * g * x)
elementwise("a millionth too much", np.sin, lambda g, x: 1.000001 * g * tr.cos(x))
elementwise("a slope of leaky relu for numbers above zero", lambda x: np.where(x > 0, x, 0.1 * x),
            lambda g, x: g * tr.where(x > 0, 0.1, 1.0))  # fmt: skip
elementwise(
    "right for positive numbers alone",
    lambda x: np.where(x > 0, x, 0.1 * x),
    lambda g: g,
    normal(np.random.default_rng(1), 4, 3) ** 2 + 0.1,
)
elementwise("elu without its alpha", lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)),
            lambda g, x: g * tr.where(x > 0, 1.0, tr.exp(x)))  # fmt: skip
elementwise("clip lets all through", lambda x: np.clip(x, -1, 1), lambda g: g, np.linspace(-3, 3, 8))
elementwise("rounding is taken for the identity", lambda x: np.round(x * 4) / 4, lambda g: g)
elementwise("softplus has a slope of one", lambda x: np.log1p(np.exp(x)), lambda g: g)
elementwise("gelu with a rule of its approximation", lambda x: x * sigmoid(1.702 * x),
            lambda g, x: g * tr.sigmoid(1.702 * x) * (1 + 1.7 * x * (1 - tr.sigmoid(1.702 * x))))  # fmt: skip
elementwise("swish without its second term", lambda x: x * sigmoid(x), lambda g, x: g * tr.sigmoid(x))
elementwise("the root of the absolute value", lambda x: np.sqrt(np.abs(x)), lambda g, y: g / (2 * y))
elementwise("not a number where it is large", np.tanh,
            lambda g, x: g * (1 - tr.square(tr.tanh(x))) * (np.exp(99 * x * x) ** 0 + 0 * np.exp(99 * x * x) if raw(g)
                                                            else 1))  # fmt: skip


@wrong
def softmax_by_its_diagonal(rng):
    f = op(lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), lambda g, y: g * y * (1 - y))
    return f, normal(rng, 4, 3)


@wrong
def log_softmax_without_its_sum(rng):
    f = op(lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)), lambda g, y: g - tr.exp(y) * g)
    return f, normal(rng, 4, 3)


@wrong
def cross_entropy_without_the_mean(rng):
    ids = np.arange(3)
    forward = lambda x: np.mean(np.log(np.exp(x).sum(-1)) - x[np.arange(3), ids])
    return op(forward, lambda g, x: g * (tr.softmax(x) - np.eye(3, 4))), normal(rng, 3, 4)


@wrong
def the_norm_is_a_constant(rng):
    return lambda x: x / tr.norm(x, axis=-1, keepdims=True).detach(), normal(rng, 4, 3)


@wrong
def layer_norm_with_a_constant_variance(rng):
    def f(x):
        centred = x - tr.mean(x, axis=-1, keepdims=True)
        return centred / tr.sqrt(tr.mean(centred * centred, axis=-1, keepdims=True).detach() + 1e-5)

    return f, normal(rng, 3, 4)


@wrong
def batch_norm_with_a_constant_mean(rng):
    return Layer(rng, lambda m, x: (x - tr.mean(x, axis=0).detach()) * m.w, w=(3,)), normal(rng, 4, 3)


@wrong
def a_maximum_gives_to_all(rng):
    return op(lambda x: np.max(x, axis=-1, keepdims=True), lambda g, x: g + 0 * x), normal(rng, 4, 3)


@wrong
def max_pooling_gives_to_the_first(rng):
    def vjp(g):
        return tr.reshape(tr.stack([g, 0 * g], axis=-1), (g.shape[0], -1))

    return op(lambda x: np.max(np.reshape(x, (x.shape[0], -1, 2)), axis=-1), vjp), normal(rng, 2, 6)


@wrong
def a_kernel_that_is_not_turned(rng):
    forward = lambda x, w: np.stack([np.convolve(r, w[::-1], "valid") for r in x])

    def back(g, w):
        return (
            tr.pad(g, ((0, 0), (0, 2))) * w[0] + tr.pad(g, ((0, 0), (2, 0))) * w[1] + tr.pad(g, ((0, 0), (1, 1))) * w[2]
        )

    return lambda x: op(lambda x: forward(x, np.array([1.0, 2.0, 3.0])), lambda g: back(g, [1.0, 2.0, 3.0]))(x), normal(
        rng, 2, 6
    )


# --- ids, masks ---------------------------------------------------------------------------------------------


@wrong
def repeated_ids_overwrite_each_other(rng):
    ids = np.array([1, 0, 1, 2])

    def vjp(g, W):
        if not raw(g):
            return tr.take(g, np.array([1, 2, 3]), axis=0)
        d = np.zeros_like(W)
        d[ids] = g
        return d

    return op(lambda W: W[ids], vjp), normal(rng, 3, 2)


@wrong
def a_mask_in_the_forward_alone(rng):
    mask = np.tril(np.ones((3, 3)))
    f = op(lambda s: np.where(mask, s, 0), lambda g: g)
    return lambda q, k: f(q @ k.mT), normal(rng, 2, 3, 4), normal(rng, 2, 3, 4)


@wrong
def attention_that_forgets_its_scale(rng):
    f = op(lambda s, k: s / np.sqrt(k.shape[-1]), lambda g: g, None)
    return (
        lambda q, k, v: tr.softmax(f(q @ k.mT, k.detach())) @ v,
        normal(rng, 2, 3),
        normal(rng, 4, 3),
        normal(rng, 4, 2),
    )


@wrong
def wrong_where_a_mask_is_given(rng):
    def f(m, x, mask=None):
        y = x @ m.W
        return y if mask is None else tr.where(mask, y, 0.5 * y.detach())

    return Layer(rng, f, W=(3, 2)), normal(rng, 4, 3), np.array([[True, False]])


@wrong
def dropout_drawn_again(rng):
    def mask(x):
        return 2.0 * (generator().random(x.shape) > 0.5)

    drop = op(lambda x: x * mask(x), lambda g: g * mask(g))
    return Layer(rng, lambda m, x: drop(x * m.w) if m.training else x * m.w, w=(3,)), normal(rng, 4, 3)


@wrong
def dropout_that_is_not_scaled_back(rng):
    drop = op(lambda x, keep: x * keep / 0.7, lambda g, keep: g * keep, None)
    keep = 1.0 * (rng.random((4, 3)) > 0.3)
    return lambda x: drop(x, tr.Tensor(keep)), normal(rng, 4, 3)


@wrong
def dropout_in_evaluation(rng):
    return Layer(rng, lambda m, x: nn.functional.dropout(x * m.w, 0.5), w=(3,)), normal(rng, 4, 3)


# --- what is cut --------------------------------------------------------------------------------------------


@wrong
def a_weight_is_detached(rng):
    return Layer(rng, lambda m, x: x @ m.W.detach() + m.b, W=(3, 2), b=(2,)), normal(rng, 4, 3)


@wrong
def a_bias_through_numpy(rng):
    return Layer(rng, lambda m, x: x @ m.W + tr.Tensor(m.b.detach().numpy().copy()), W=(3, 2), b=(2,)), normal(
        rng, 4, 3
    )


@wrong
def one_of_two_uses_is_detached(rng):
    return Layer(rng, lambda m, x: tr.tanh(x @ m.W) @ m.W.detach(), W=(3, 3)), normal(rng, 4, 3)


@wrong
def cut_in_training_alone(rng):
    f = lambda m, x: tr.tanh((x @ m.W).detach() if m.training else x @ m.W) + x @ m.W
    return Layer(rng, f, W=(3, 2)), normal(rng, 4, 3)


@wrong
def cut_in_evaluation_alone(rng):
    f = lambda m, x: tr.tanh(x @ m.W) * (m.s if m.training else m.s.detach() + 0 * m.s)
    return Layer(rng, f, W=(3, 2), s=(2,)), normal(rng, 4, 3)


@wrong
def cut_in_evaluation_where_it_computes_something_else(rng):
    f = lambda m, x: tr.tanh(x @ m.W) * m.s if m.training else (x @ m.W) * (m.s.detach() + 0 * m.s)
    return Layer(rng, f, W=(3, 2), s=(2,)), normal(rng, 4, 3)


@wrong
def cut_in_evaluation_of_many_rows_alone(rng):
    f = lambda m, x: tr.tanh(x @ m.W) * m.s if m.training else (x @ m.W) * (m.s if len(x) < 32 else m.s.detach())
    return Layer(rng, f, W=(3, 2), s=(2,)), normal(rng, 4, 3)


@wrong
def wrong_where_the_input_requires_none(rng):
    f = lambda m, x: x @ (m.W if x.requires_grad else 0.5 * m.W + 0.5 * m.W.detach())
    return Layer(rng, f, W=(3, 2)), normal(rng, 4, 3)


@wrong
def a_frozen_weight_stops_another(rng):
    f = lambda m, x: tr.tanh(x @ m.W) @ (m.V if m.W.requires_grad else m.V.detach())
    return Layer(rng, f, W=(3, 2), V=(2, 2)), normal(rng, 4, 3)


@wrong
def an_argument_that_requires_none_stops_another(rng):
    return lambda x, y: x * y if y.requires_grad else x.detach() * y + 0 * x, normal(rng, 3), normal(rng, 3)


@wrong
def the_second_output_has_no_gradient(rng):
    f = op(lambda x: np.stack([np.sin(x), np.cos(x)]), lambda g, x: g[0] * tr.cos(x))
    return lambda x: dict(zip("sc", f(x), strict=True)), normal(rng, 3)


@wrong
def the_state_of_an_rnn_is_detached(rng):
    def f(x, h, W, U):
        for t in range(x.shape[0]):
            h = tr.tanh(x[t] @ W + (h.detach() if t else h) @ U)
        return h

    return f, normal(rng, 3, 2, 2), normal(rng, 2, 3), normal(rng, 2, 3), normal(rng, 3, 3)


@wrong
def the_first_state_is_detached(rng):
    f = lambda x, h, W: tr.tanh(x @ W + h.detach())
    return f, normal(rng, 3, 2), normal(rng, 3, 3), normal(rng, 2, 3)


@wrong
def the_last_step_alone_tells_the_weights(rng):
    def f(m, x):
        h = tr.zeros(x.shape[1], 3, dtype=x.dtype)
        for t in range(x.shape[0]):
            last = t == x.shape[0] - 1
            h = tr.tanh(x[t] @ m.W + h @ (m.U if last else m.U.detach()))
        return h

    return Layer(rng, f, W=(2, 3), U=(3, 3)), normal(rng, 3, 2, 2)


@wrong
def the_reset_gate_without_a_gradient(rng):
    def f(m, x, h):
        r, z = tr.sigmoid(x @ m.R + h), tr.sigmoid(x @ m.Z + h)
        return (1 - z) * tr.tanh(x @ m.N + r.detach() * h) + z * h

    return Layer(rng, f, R=(2, 3), Z=(2, 3), N=(2, 3)), normal(rng, 4, 2), normal(rng, 4, 3)


@wrong
def cut_after_ten_steps(rng):
    def f(m, x):
        h = tr.zeros(x.shape[1], 2, dtype=x.dtype)
        for t in range(x.shape[0]):
            h = tr.tanh(x[t] @ m.W + (h.detach() if t == 10 else h) @ m.U)
        return h

    return Layer(rng, f, W=(2, 2), U=(2, 2)), normal(rng, 3, 2, 2)


@wrong
def a_table_of_the_weight_that_gets_old(rng):
    class Cached(nn.Module):
        def __init__(self):
            self.W, self.table = nn.Parameter(normal(rng, 3, 3)), {}

        def forward(self, x):
            return x @ self.table.setdefault(str(x.dtype), self.W.mT)

    return Cached(), normal(rng, 4, 3)


@wrong
def the_last_state_stays_in_the_layer(rng):
    class Keeps(nn.Module):
        def __init__(self):
            self.W, self.h = nn.Parameter(normal(rng, 3, 2)), 0.0

        def forward(self, x):
            y = tr.tanh(x @ self.W + self.h)
            self.h = y.detach()[:1]
            return y

    return Keeps(), normal(rng, 4, 3)


# --- only sometimes -----------------------------------------------------------------------------------------

tanh_if("wrong for one row", lambda g, y: len(y) == 1)
tanh_if("wrong for an odd number of rows", lambda g, y: len(y) % 2)
tanh_if("wrong past 32 rows", lambda g, y: (np.arange(len(y)) >= 32)[:, None].any())
tanh_if("wrong in float32", lambda g, y: y.dtype == np.float32)
tanh_if("wrong for gradients that do not lie in order", lambda g, y: not g.flags.c_contiguous)
tanh_if("wrong for inputs that lie in another order", lambda g, y: not y.flags.c_contiguous)
elementwise("wrong past 64 entries", np.tanh,
            lambda g, y: g * (1 - y * y) * (np.arange(y.size).reshape(y.shape) < 64 if raw(g) else 1))  # fmt: skip
elementwise("nothing where it saturates", np.tanh, lambda g, y: g * tr.where(tr.abs(y) > 0.9995, 0.0, 1 - y * y))
elementwise("the exponential is cut off", np.exp, lambda g, x: g * tr.exp(tr.clip(x, -8.0, 8.0)))
elementwise("clipped gradients", np.sin, lambda g, x: tr.clip(g, -5.0, 5.0) * tr.cos(x))
elementwise("small gradients are dropped", np.sin, lambda g, x: tr.where(tr.abs(g) < 1e-7, 0.0, g) * tr.cos(x))
elementwise("something for nothing", np.sin, lambda g, x: g * tr.cos(x) + 1e-300)
elementwise("in the order of memory", np.tanh,
            lambda g, y: (np.ravel(g, order="K").reshape(g.shape) if raw(g) else g) * (1 - y * y))  # fmt: skip
elementwise("computed in half precision", np.tanh,
            lambda g, y: g * (1 - y.astype(np.float16).astype(g.dtype) ** 2 if raw(g) else 1 - y * y))  # fmt: skip
elementwise("another shape that broadcasts", lambda x: x * 1.0, lambda g: tr.sum(g, axis=0, keepdims=True))


@wrong
def writes_into_what_was_kept(rng):
    return op(lambda x: x * x, lambda g, x: g * x.__imul__(2) if raw(g) else 2 * g * x), normal(rng, 3)


@wrong
def writes_into_the_gradient(rng):
    return op(lambda x: np.sin(x), lambda g, x: g.__imul__(np.cos(x)) if raw(g) else g * tr.cos(x)), normal(rng, 3)


@wrong
def writes_into_its_input(rng):
    def f(m, x):
        x._array.flags.writeable = True
        x._array[...] = np.round(x._array, 3)
        return x * m.w

    return Layer(rng, f, w=(3,)), normal(rng, 4, 3)


@wrong
def a_rule_that_remembers_the_first_input(rng):
    seen: list[Any] = []

    def vjp(g, x):
        seen.append(x)
        return 2 * g * (seen[0] if seen[0].shape == x.shape and raw(g) else x)

    f = op(lambda x: x * x, vjp)
    return lambda x, W: f(x @ W), normal(rng, 4, 3), normal(rng, 3, 2)


@wrong
def gradients_that_add_up_in_the_rule(rng):
    total: dict[Any, Any] = {}

    def vjp(g, x):
        if not raw(g):
            return 2 * g * x
        total[x.shape] = total.get(x.shape, 0) + 2 * g * x
        return total[x.shape] * 1.0

    return op(lambda x: x * x, vjp), normal(rng, 3)


@wrong
def a_gradient_in_a_buffer_of_its_own(rng):
    buffer: dict[Any, Any] = {}

    def vjp(g, x):
        if not raw(g):
            return 2 * g * x
        out = buffer.setdefault((x.shape, str(g.dtype)), np.empty(x.shape, g.dtype))
        np.multiply(2 * g, x, out=out)
        return out

    f = op(lambda x: x * x, vjp)
    return lambda x, y: (f(x), f(y)), normal(rng, 3), normal(rng, 3)


@wrong
def other_numbers_each_time(rng):
    return Layer(rng, lambda m, x: x * m.w * (1 + 1e-6 * np.random.default_rng().random()), w=(3,)), normal(rng, 4, 3)


# --- in the second derivative -------------------------------------------------------------------------------

elementwise("a stashed array", lambda x: x**3, lambda g, x: g * 3 * x * (x if raw(x) else x.detach()))
elementwise("twice as much where it is differentiated again", np.sin, lambda g, x: g * tr.cos(x) * (1 if raw(g) else 2))
elementwise("leaves the tensors", np.tanh, lambda g, y: g * (1 - (y if raw(y) else y._array) ** 2))
elementwise("a hook on the first", np.sin, lambda g, x: g * tr.cos(x) if raw(g) else g.detach() * tr.cos(x))
