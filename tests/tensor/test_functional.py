"""Derivatives of functions, and checkpoint."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import graph


def t(data, requires_grad=False):
    return tr.Tensor(np.asarray(data, "float64"), requires_grad=requires_grad)


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


def test_derivatives_under_detect_anomaly_are_those_without():
    def derivatives():
        x, w = t([[0.5, -1.0], [2.0, 0.3]], True), t([[1.0, 2.0], [-0.5, 0.7]], True)

        def loss():
            return (tr.tanh(x @ w) * w[0] * t([2.0, 3.0])).sum()

        loss().backward()
        slopes = tr.grad(loss(), [x, w], create_graph=True)
        second = tr.grad(sum((s * s).sum() for s in slopes), [x, w])
        return [g.tolist() for g in (x.grad, w.grad, *slopes, *second)]

    plain = derivatives()
    with tr.detect_anomaly():
        assert derivatives() == plain


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


class Net:
    def __init__(self):
        rng = np.random.default_rng(1)
        self.w = t(rng.standard_normal((3, 3)) * 0.5, True)
        self.b = t(rng.standard_normal(3), True)
        self.h = t(rng.standard_normal((2, 3)), True)

    def step(self, h):
        return tr.tanh(h @ self.w + self.b)

    def loss(self, call):
        h = self.h
        for _ in range(4):
            h = call(self.step, h)
        return (h * h).sum()

    def leaves(self):
        return [self.w, self.b, self.h]


def plain(f, *args):
    return f(*args)


def test_checkpoint_gives_the_same_gradients_and_finds_what_it_closes_over():
    a, b = Net(), Net()
    a.loss(plain).backward()
    b.loss(tr.checkpoint).backward()
    for x, y in zip(a.leaves(), b.leaves(), strict=True):
        assert np.allclose(
            x.grad.numpy(), y.grad.numpy(), rtol=1e-13, atol=0
        )  # the sum over steps is grouped otherwise


def test_checkpoint_keeps_nothing_inside():
    net = Net()
    node = tr.checkpoint(lambda h: net.step(net.step(h)), net.h)._node
    assert node.plan.name == "checkpoint"
    assert set(node.sources) == {x._node for x in net.leaves()}


def test_second_order_through_checkpoint():
    a, b = Net(), Net()
    results = []
    for net, call in ((a, plain), (b, tr.checkpoint)):
        g = tr.grad(net.loss(call), net.w, create_graph=True)
        (g * g).sum().backward()
        results.append([x.grad.numpy() for x in net.leaves()])
    for x, y in zip(*results, strict=True):
        assert np.allclose(x, y, rtol=1e-12, atol=0)


def ops_of(y):
    """The names of the ops that a tensor was computed by."""
    return {n.plan.name for n in graph.newest_first([y._node]) if n.plan}


def test_checkpoint_returns_tuples_of_any_float_dtype():
    x = tr.Tensor([1.0, 2.0], requires_grad=True)
    y = t([3.0], True)
    a, b, ids = tr.checkpoint(lambda: (x * x, y * x[0], tr.arange(2)))
    assert (a.dtype, b.dtype, ids.dtype) == ("float32", "float64", "int64")
    assert ids.tolist() == [0, 1]
    (a.sum() + b.sum()).backward()
    assert x.grad.tolist() == [5, 4]
    assert y.grad.tolist() == [1]


def test_checkpoint_takes_nested_outputs():
    x, y = t([1.0, 2.0], True), t([3.0], True)
    a, (b, [c], name) = tr.checkpoint(lambda: (x * x, (y * x[0], [x + 1], "name")))
    assert name == "name"
    (a.sum() + b.sum() * 10 + c.sum() * 100).backward()
    assert x.grad.tolist() == [2 + 30 + 100, 4 + 100]
    assert y.grad.tolist() == [10]


def test_checkpoint_keeps_nothing_inside_nested_outputs():
    x = t([1.0, 2.0], True)
    a, (b, [c]) = tr.checkpoint(lambda: (x.tanh(), (x.exp(), [tr.sin(x)])))
    for y in (a, b, c):
        assert "checkpoint" in ops_of(y)
        assert not ops_of(y) & {"tanh", "exp", "sin"}


def test_checkpoint_returns_outputs_of_any_shape():
    rng = np.random.default_rng(2)
    arrays, v = [rng.standard_normal((2, 3)), rng.standard_normal(())], t(rng.standard_normal((3, 2)))
    results = []
    for call in (plain, tr.checkpoint):
        x, w = (t(a, True) for a in arrays)
        a, b, c = call(lambda x, w: (tr.tanh(x).T * w, (x * x).sum() * w, x[0] * w), x, w)
        assert (a.shape, b.shape, c.shape) == ((3, 2), (), (3,))
        first = tr.grad((a * v).sum() + b + (c * c).sum(), [x, w], create_graph=True)
        second = tr.grad(sum((g * g).sum() for g in first), [x, w])
        results.append([g.numpy() for g in (a, b, c, *first, *second)])
    for x, y in zip(*results, strict=True):
        assert np.allclose(x, y, rtol=1e-12, atol=0)


def test_what_was_there_before_a_checkpoint_comes_back_as_it_is():
    x = t([2.0], True)
    assert tr.checkpoint(lambda v: v, x) is x
    with tr.no_grad():
        assert tr.checkpoint(lambda v: [v, v], x) == [x, x]


def test_nested_checkpoints_replay_decisions_and_draws():
    from tinygrad_rnn.tensor.checkpoint import recomputed

    mode = {"scale": 10.0}
    x = t(np.ones(50), True)

    def f(x):
        return x * recomputed(mode["scale"]) * (tr.rand(50, dtype="float64") > 0.5)

    y = tr.checkpoint(lambda v: tr.checkpoint(f, v), x)
    mode["scale"] = 0.0
    y.backward(np.ones(50))
    assert np.array_equal(x.grad.numpy(), y.numpy())


def test_checkpoint_notices_that_a_weight_has_changed():
    x = t([1.0, 2.0], True)
    y = tr.checkpoint(lambda v: v * v, x).sum()
    x.assign_([10.0, 20.0])
    with pytest.raises(RuntimeError, match="other values when it was recomputed"):
        y.backward()


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_leaf_that_no_longer_requires_a_gradient_does_not_disturb_a_checkpoint(create_graph):
    x, w = t([1.0, 2.0], True), t([3.0, 4.0], True)
    y, z = tr.checkpoint(lambda v: (v * v, v * w), x)
    alone = tr.checkpoint(lambda v: v * v, x)
    x.requires_grad = False  # what was recorded belongs to the leaf that it was, which nobody sees any more
    total = y.sum() + z.sum() + alone.sum()
    if create_graph:
        assert tr.grad(total, w, create_graph=True).tolist() == [1, 2]
    else:
        total.backward()
        assert w.grad.tolist() == [1, 2]


def test_checkpoints_of_several_threads_do_not_share_their_draws():
    wrong = []

    def work():
        x = t(np.ones(64), True)
        for _ in range(50):
            x.grad = None
            y = tr.checkpoint(lambda v: v * (tr.rand(64, dtype="float64") > 0.5), x)
            y.backward(np.ones(64))
            wrong.append(not np.array_equal(x.grad.numpy(), y.numpy()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 200
    assert not any(wrong)


def test_checkpoint_nests():
    a, b = Net(), Net()

    def twice(net, call):
        return lambda h: call(net.step, call(net.step, h))

    loss = [(call(twice(net, call), net.h) ** 2).sum() for net, call in ((a, plain), (b, tr.checkpoint))]
    loss[0].backward()
    loss[1].backward()
    for x, y in zip(a.leaves(), b.leaves(), strict=True):
        assert np.allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-13, atol=0)


def test_checkpoint_replays_random_draws():
    x = t(np.ones(1000), True)
    masks = []

    def f(x):
        mask = tr.rand(1000, dtype="float64") > 0.5
        masks.append(mask.tolist())
        return (x * mask).sum()

    tr.manual_seed(3)
    y = tr.checkpoint(f, x)
    expected = tr.rand(4).tolist()  # a replay leaves the generator where it was
    tr.manual_seed(3)
    y2 = tr.checkpoint(f, x)
    y2.backward()
    assert tr.rand(4).tolist() == expected
    tr.manual_seed(3)
    f(x)
    assert tr.rand(4).tolist() == expected  # and the first run draws as a call does
    assert masks[1] == masks[2]
    assert np.array_equal(x.grad.numpy(), masks[2])
    assert y.item() == y2.item()


def test_checkpoint_replays_decisions():
    from tinygrad_rnn.tensor.checkpoint import recomputed

    mode = {"training": True}
    x = t([2.0], True)

    def f(x):
        return x * 10 if recomputed(mode["training"]) else x * 0

    y = tr.checkpoint(f, x)
    mode["training"] = False
    y.sum().backward()
    assert x.grad.item() == 10


def test_decisions_are_replayed_in_their_order():
    from tinygrad_rnn.tensor.checkpoint import recomputed

    settings = [2.0, 30.0, 400.0]
    x = t([1.0, 5.0], True)
    y = tr.checkpoint(lambda x: (x * recomputed(settings[0]) + recomputed(settings[1])) * recomputed(settings[2]), x)
    settings[:] = [0.0, 0.0, 0.0]
    y.sum().backward()
    assert x.grad.tolist() == [800, 800]


def test_checkpoint_without_recording_or_gradients_is_a_call():
    x = t([2.0], True)
    with tr.no_grad():
        assert not tr.checkpoint(lambda v: v * 2, x).requires_grad
    assert tr.checkpoint(lambda v: v * 2, t([1.0])).tolist() == [2]
    assert tr.checkpoint(lambda v: (v, v * 2), t([1.0]))[1].tolist() == [2]


def test_a_fused_op_is_its_plain_definition():
    def square_sum(x, w):
        return (x * x * w).sum()

    calls = []

    def forward(x, w):
        return (x * x * w).sum()

    def vjp(g, y, needs, x, w):
        calls.append(needs)
        return g * 2 * x * w, g * x * x

    f = tr.fused("square_sum", square_sum, forward, vjp)
    x, w = t([1.0, 2.0], True), t([3.0, 4.0], True)
    f(x, w).backward()
    assert calls == [(True, True)]
    assert x.grad.tolist() == [6, 16]
    assert w.grad.tolist() == [1, 4]
    g = tr.grad(f(x, w), x, create_graph=True)
    assert tr.grad(g.sum(), [x, w])[0].tolist() == [6, 8]
    assert calls == [(True, True)]
    tr.enable_fused(False)
    try:
        assert f(x, w)._node.plan.name != "square_sum"
    finally:
        tr.enable_fused(True)
    f(x.detach(), w).backward()
    assert calls[-1] == (False, True)


def test_a_fused_op_whose_definition_does_not_depend_on_its_input():
    f = tr.fused("seven", lambda x: t([7.0, 7.0]), lambda x: x * 0 + 7.0, lambda g, y, needs, x: (g * 0,))
    x = t([1.0, 2.0], True)
    assert tr.grad((f(x) * x * x).sum(), x, create_graph=True).tolist() == [14, 28]


def test_a_gradient_is_never_the_seed_itself():
    """Of a copy the gradient is what comes in; new values for the leaf that came in do not change it."""
    x, seed = (tr.Tensor(values, requires_grad=True) for values in ([1.0, 2.0], [3.0, 4.0]))
    d = tr.grad(x + 0, x, seed, create_graph=True)
    (again,) = tr.grad(d.sum(), [seed], create_graph=True)
    seed.assign_([5.0, 6.0])
    assert d.tolist() == [3, 4] and again.tolist() == [1, 1]
