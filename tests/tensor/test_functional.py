"""Derivatives of functions."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import leaf, t


def quartic(x):
    return (x * x * x * x).sum()


def test_grad_of_nests_to_any_order():
    x, f, expected = t(2.0), quartic, [32, 48, 48, 24, 0]
    for value in expected:
        f = tr.grad_of(f)
        assert f(x).item() == pytest.approx(value)
        assert x.grad is None


def test_value_and_grad_takes_argnums_and_keywords():
    def f(a, b, power=1):
        return (a * b**power).sum()

    value, (ga, gb) = tr.value_and_grad(f, argnums=(0, 1))(t([1.0, 2.0]), t([3.0, 4.0]), power=2)
    assert value.item() == 9 + 32
    assert not value.requires_grad
    assert ga.tolist() == [9, 16]
    assert gb.tolist() == [6, 16]
    assert tr.grad_of(f, argnums=1)(t(1.0), t(5.0)).item() == 1
    with pytest.raises(tr.errors.ShapeError, match=r"one element, not \(2,\)"):
        tr.grad_of(lambda x: x * 2)(t([1.0, 2.0]))


def test_the_value_beside_a_gradient_can_be_differentiated_if_the_gradient_can():
    x, w = t([1.0, 2.0]), t([3.0, 4.0], True)
    value, slope = tr.value_and_grad(lambda x: (x * x * w).sum())(x)
    assert tr.grad(value, w).tolist() == [1, 4]
    assert tr.grad(slope.sum(), w).tolist() == [2, 4]


def test_arrays_and_lists_are_taken_for_tensors():
    x, v, n = [1.0, 2.0], [1.0, 10.0], np.array([1.0, 2.0])
    assert tr.grad_of(quartic)(x).tolist() == tr.grad_of(quartic)(n).tolist() == [4, 32]
    assert tr.jacobian(lambda x: x * x)(x).tolist() == tr.jacobian(lambda x: x * x)(n).tolist() == [[2, 0], [0, 4]]
    assert tr.vjp(lambda x: x * x, n)[1](np.array(v))[0].tolist() == [2, 40]
    assert tr.vjp(lambda x: x * x, x)[1](v)[0].tolist() == [2, 40]
    assert tr.jvp(lambda x: x * x, (n,), (np.array(v),))[1].tolist() == [2, 40]
    assert tr.hvp(quartic, (x,), (v,))[0].tolist() == [12, 480]


def test_a_recorded_gradient_has_the_dtype_of_its_leaf():
    x, w = tr.Tensor([1.0, 2.0], requires_grad=True), t([3.0, 4.0])
    g = tr.grad((x * x * w).sum(), x, create_graph=True)
    assert (g.dtype, g.tolist()) == ("float32", [6, 16])
    second = tr.grad((g * w).sum(), x)
    assert (second.dtype, second.tolist()) == ("float32", [18, 32])


def test_a_recorded_gradient_of_what_is_not_reached_is_zero():
    x, w = t([1.0, 2.0], True), t([[3.0]], True)
    gx, gw = tr.grad((x * x).sum(), [x, w], create_graph=True)
    assert gx.tolist() == [2, 4]
    assert gw.tolist() == [[0]]


def test_grad_never_hands_out_somebody_elses_array():
    x = leaf(np.ones(3))
    seed = tr.Tensor(np.ones(3))
    g = tr.grad(x + 1.0, x, gradient=seed)
    assert not np.shares_memory(g.numpy(), seed.numpy())


def test_grad_of_what_is_not_reached_is_zero():
    x, y = leaf([1.0]), leaf([1.0, 2.0])
    gx, gy = tr.grad((x * 3).sum(), [x, y])
    assert gx.tolist() == [3]
    assert gy.tolist() == [0, 0]
    assert tr.grad(tr.grad((x * 3).sum(), x, create_graph=True).sum(), x).tolist() == [0]
    with pytest.raises(RuntimeError, match="input 0 of shape"):
        tr.grad((x * 3).sum(), tr.zeros(2))


def test_grad_of_several_outputs():
    x = leaf([1.0, 2.0])
    g = tr.grad([x * 2, x * x], x, gradient=[tr.ones(2, dtype="float64"), tr.Tensor(np.array([10.0, 0.0]))])
    assert g.tolist() == [22.0, 2.0]


def test_recorded_gradients_leave_nothing_for_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(np.ones(10))
        for _ in range(5):
            tr.grad((x * x * x).sum(), x, create_graph=True)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_grad_of_a_list_is_that_of_its_sum():
    x = t([1.0, 2.0], True)
    assert tr.grad([(x * x).sum(), x.sum()], x).tolist() == [3, 5]
    assert tr.grad([(x * x).sum()], [x])[0].tolist() == tr.grad((x * x).sum(), x).tolist() == [2, 4]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_of_another_shape_is_refused(create_graph):
    x = t(np.ones((2, 3)), True)
    for wrong in (t(np.ones(3)), np.ones((3, 2)), 1.0):
        with pytest.raises(tr.errors.ShapeError, match=r"gradient of shape .* for a tensor of shape \(2, 3\)"):
            tr.grad(x * 2, x, gradient=wrong, create_graph=create_graph)


def test_grad_of_leaves_the_users_leaves_alone():
    x, w = t([1.0], True), t([5.0], True)
    g = tr.grad_of(lambda v: (v * v * w).sum())(x)
    assert x.grad is None
    assert w.grad is None
    g.sum().backward()  # the penalty of a gradient reaches both: nothing is silently constant
    assert x.grad.item() == 10
    assert w.grad.item() == 2


def test_grad_of_inside_no_grad_computes_and_records_nothing():
    w = t([5.0], True)
    with tr.no_grad():
        g = tr.grad_of(lambda v: (v * v * w).sum())(t([3.0]))
    assert g.item() == 30
    assert not g.requires_grad


def test_vjp_and_jvp_are_transposes():
    rng = np.random.default_rng(0)
    a, x, v, u = (t(rng.standard_normal(s)) for s in ((4, 3), (3,), (3,), (4,)))

    def f(x):
        return tr.tanh(a @ x) * tr.exp(x).sum()

    y, pull = tr.vjp(f, x)
    y2, dy = tr.jvp(f, (x,), (v,))
    assert np.allclose(y.numpy(), y2.numpy(), rtol=1e-13, atol=0)
    assert (dy.numpy() @ u.numpy()) == pytest.approx(pull(u)[0].numpy() @ v.numpy(), rel=1e-13)
    assert np.allclose(tr.jacobian(f)(x).numpy() @ v.numpy(), dy.numpy(), rtol=1e-13, atol=0)


def test_grad_of_a_leaf_inside_no_grad():
    x = t([3.0], True)
    with tr.no_grad():
        assert tr.grad_of(lambda v: (v * v).sum())(x).tolist() == [6]
        assert tr.hvp(quartic, (x,), ([1.0],))[0].tolist() == [108]
    assert x.grad is None


def test_a_derivative_is_recorded_only_if_it_can_be_asked_for():
    x, v, w = t([1.0, 2.0]), t([1.0, 10.0]), t([3.0, 4.0], True)
    y, pull = tr.vjp(lambda x: x * x, x)
    assert not pull(v)[0].requires_grad
    y, pull = tr.vjp(lambda x: x * x * w, x)  # w may be differentiated by, later
    (g,) = pull(v)
    assert g.tolist() == [6, 160]
    assert tr.grad(g.sum(), w).tolist() == [2, 40]
    (g,) = tr.vjp(lambda x: x * x, x)[1](w)  # so may the gradient that is pulled back
    assert tr.grad(g.sum(), w).tolist() == [2, 4]
    y, dy = tr.jvp(lambda x: x * x, (x,), (v,))
    assert not y.requires_grad
    assert not dy.requires_grad
    y, dy = tr.jvp(lambda x: x * x * w, (x,), (v,))
    assert tr.grad(y.sum(), w).tolist() == [1, 4]
    assert tr.grad(dy.sum(), w).tolist() == [2, 40]
    y, dy = tr.jvp(lambda x: x * x, (x,), (w,))
    assert tr.grad(dy.sum(), w).tolist() == [2, 4]
    assert not tr.hvp(quartic, (x,), (v,))[0].requires_grad


def test_a_recorded_gradient_is_the_sum_of_slices_products_and_whole_uses():
    rng = np.random.default_rng(0)
    x, w, v = t(rng.standard_normal((2, 3))), t(rng.standard_normal((3, 3)), True), t(rng.standard_normal((3, 3)))
    uses = [lambda: (x @ w).tanh().sum(), lambda: (w[0] * w[1:]).sum(), lambda: (w * w * w).sum(), lambda: w[0, 0] ** 2]
    for chosen in ([0, 1, 2, 3], [2, 1, 0, 3], [0, 2], [2, 0], [1, 2], [2, 1], [0, 1], [0, 0], [1, 3]):
        total = sum((uses[i]() for i in chosen), t(0.0))
        plain = tr.grad(total, w, retain_graph=True)
        recorded = tr.grad(total, w, create_graph=True)
        assert np.allclose(recorded.numpy(), plain.numpy(), rtol=1e-13, atol=0)
        second = tr.grad((recorded * v).sum(), w).numpy()
        parts = [tr.grad((tr.grad(uses[i](), w, create_graph=True) * v).sum(), w).numpy() for i in chosen]
        assert np.allclose(second, sum(parts), rtol=1e-12, atol=1e-14)


def test_vjp_of_several_outputs():
    x, v = t([1.0, 2.0]), t([1.0, 10.0])
    (y, z), pull = tr.vjp(lambda x: (x * x, x.sum()), x)
    assert y.tolist() == [1, 4]
    assert z.item() == 3
    assert pull((v, t(100.0)))[0].tolist() == [102, 140]
    assert pull([v, t(0.0)])[0].tolist() == [2, 40]  # again: the graph is kept
    with pytest.raises(tr.errors.ShapeError, match="2 outputs, but 1 gradients"):
        pull((v,))


@pytest.mark.filterwarnings("ignore:.*sqrt:RuntimeWarning")
def test_jvp_of_linear_and_constant_functions():
    x, v = t([1.0, 2.0]), t([1.0, 10.0])
    assert tr.jvp(lambda x: x * 3, (x,), (v,))[1].tolist() == [3, 30]
    assert tr.jvp(lambda x: t([5.0]), (x,), (v,))[1].tolist() == [0]
    assert tr.jvp(lambda x: tr.where(x > 0, tr.sqrt(x), x), (t([-1.0, 4.0]),), (v,))[1].tolist()[1] == 2.5


def test_jvp_of_what_does_not_depend_on_the_input():
    x, v, w = t([1.0, 2.0]), t([1.0, 10.0]), t([3.0, 4.0], True)
    y, dy = tr.jvp(lambda x: w * 2, (x,), (v,))
    assert dy.tolist() == [0, 0]
    assert tr.grad(y.sum(), w).tolist() == [2, 2]
    for f in (lambda x: x > 1, lambda x: x.argmax()):  # no floats: nothing to differentiate
        y, dy = tr.jvp(f, (x,), (v,))
        assert y.tolist() == f(x).tolist()
        assert (dy.dtype, dy.shape) == (y.dtype, y.shape)
        assert not dy.numpy().any()


def test_jacobian_shapes():
    x = t(np.arange(6.0).reshape(2, 3))
    assert tr.jacobian(lambda x: x.sum(axis=0) ** 2)(x).shape == (3, 2, 3)
    assert tr.jacobian(lambda x: x[:0])(x).shape == (0, 3, 2, 3)
    assert tr.jacobian(lambda a, x: a * x, argnums=1)(t(2.0), t([1.0, 1.0])).tolist() == [[2, 0], [0, 2]]
    assert tr.jacobian(lambda x: (x * x).sum())(t([1.0, 3.0])).tolist() == [2, 6]
    assert tr.jacobian(lambda a, b, c, k=1: a * b * c**k)(t([1.0, 1.0]), t(3.0), t(5.0), k=2).tolist() == [
        [75, 0],
        [0, 75],
    ]
    a = np.random.default_rng(0).standard_normal((4, 2))
    expected = np.einsum("ik,jl->ijkl", a, np.eye(3))
    assert np.array_equal(tr.jacobian(lambda x: t(a) @ x)(x).numpy(), expected)
    assert np.array_equal(tr.hessian(lambda x: ((t(a) @ x) ** 2).sum() / 2)(x).shape, (2, 3, 2, 3))


def test_hessian_and_hvp_agree():
    rng = np.random.default_rng(0)
    a, x, v = t(rng.standard_normal((3, 3))), t(rng.standard_normal(3)), t(rng.standard_normal(3))

    def f(x):
        return (tr.tanh(a @ x) ** 2).sum()

    h = tr.hessian(f)(x).numpy()
    assert np.allclose(h, h.T, rtol=1e-12, atol=0)
    assert np.allclose(tr.hvp(f, (x,), (v,))[0].numpy(), h @ v.numpy(), rtol=1e-12, atol=0)
    assert tr.hvp(lambda x: (x * 3).sum(), (x,), (v,))[0].tolist() == [0, 0, 0]
    hx, hz = tr.hvp(lambda x, z: f(x) + z.sum(), (x, t(1.0)), (v, t(5.0)))
    assert np.allclose(hx.numpy(), h @ v.numpy(), rtol=1e-12, atol=0)
    assert hz.item() == 0


def test_third_order_of_a_recurrent_step():
    w = t(0.7)

    def f(w):
        h = t(0.3)
        for _ in range(3):
            h = tr.tanh(h * w)
        return h

    third = tr.grad_of(tr.grad_of(tr.grad_of(f)))
    second = tr.grad_of(tr.grad_of(f))
    e = 1e-5
    numeric = (second(t(0.7 + e)).item() - second(t(0.7 - e)).item()) / (2 * e)
    assert third(w).item() == pytest.approx(numeric, rel=1e-7)


def test_hvp_can_be_differentiated():
    f = tr.grad_of(lambda a: tr.hvp(lambda x: (x**3).sum(), (a,), (t([1.0, 1.0]),))[0].sum())
    assert f(t([1.0, 2.0])).tolist() == [6, 6]
    v = t([1.0, 1.0], True)
    tr.hvp(lambda x: (x**3).sum(), (t([1.0, 2.0]),), (v,))[0].sum().backward()
    assert v.grad.tolist() == [6, 12]


def test_misuse_is_named():
    x = t(1.0, True)
    with pytest.raises(TypeError, match=r"outputs must be a Tensor or a list of Tensors, not float: 3\.0"):
        tr.grad(3.0, x)
    with pytest.raises(ValueError, match="1 primals, but 0 tangents"):
        tr.jvp(lambda x: x, (x,), ())
    with pytest.raises(ValueError, match="1 primals, but 2 vectors"):
        tr.hvp(lambda x: x * x, (x,), (x, x))
    with pytest.raises(tr.errors.ShapeError, match="a tensor of one element, not float"):
        tr.grad_of(lambda x: 3.0)(x)
    for call in (tr.jvp, tr.hvp):
        with pytest.raises(TypeError, match="the function must return one Tensor, not tuple"):
            call(lambda x: (x, x), (x,), (x,))
    with pytest.raises(TypeError, match="jacobian: the function must return one Tensor, not tuple"):
        tr.jacobian(lambda x: (x, x))(x)


def test_argnums_count_from_the_end_too():
    assert tr.grad_of(lambda a, b: a * b, -1)(t(2.0), t(3.0)).item() == 2
    assert tr.jacobian(lambda a, b: a * b, -1)(t(2.0), t(3.0)).item() == 2
    with pytest.raises(ValueError, match="argnums 2 of a function called with 2 arguments"):
        tr.grad_of(lambda a, b: a * b, 2)(t(2.0), t(3.0))


def test_a_function_may_close_over_what_was_freed_before():
    w = t(2.0, True)
    h = w * w
    h.backward()
    assert tr.grad_of(lambda x: x * x)(h.detach()).item() == 8


def test_a_gradient_is_never_the_seed_itself():
    """Of a copy the gradient is what comes in; new values for the leaf that came in do not change it."""
    x, seed = (tr.Tensor(values, requires_grad=True) for values in ([1.0, 2.0], [3.0, 4.0]))
    d = tr.grad(x + 0, x, seed, create_graph=True)
    (again,) = tr.grad(d.sum(), [seed], create_graph=True)
    seed.assign_([5.0, 6.0])
    assert d.tolist() == [3, 4] and again.tolist() == [1, 1]


def test_functions_of_derivatives_take_tensors_with_graphs():
    w = tr.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    square = lambda x: x * x
    assert tr.jacobian(square)(w).tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert tr.grad(tr.jacobian(square)(3 * w).sum(), w).tolist() == [6.0, 6.0]
    assert tr.hessian(lambda x: (x**3).sum())(w).tolist() == [[6.0, 0.0], [0.0, 12.0]]
    for f in (tr.vjp(square, w)[1](np.ones(2))[0], tr.jvp(square, (w,), (np.ones(2),))[1]):
        assert f.tolist() == [2.0, 4.0]
    assert tr.hvp(lambda x: (x**3).sum(), (w,), (np.ones(2),))[0].tolist() == [6.0, 12.0]
