"""Segments that are recomputed in the backward."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import leaf, t
from tinygrad_rnn.tensor import checkpoint, graph


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


def test_hooks_run_once_through_a_checkpoint():
    x = leaf([1.0, 2.0])
    calls = []
    x.register_hook(lambda g: calls.append(1))
    tr.checkpoint(lambda: (x * x + x).sum()).backward()
    assert len(calls) == 1


def test_a_recording_recomputes():
    w = leaf([1.0, 2.0])

    def step(x):
        w.grad = None
        tr.checkpoint(lambda v: (v * w).tanh(), x).sum().backward()
        return w.grad

    compiled = tr.compile(step)
    for k in range(5):
        x = t([1.0, k])
        assert compiled(x).tolist() == step(x).tolist()


def test_no_decision_is_noted_outside_of_a_checkpoint():
    layer = tr.nn.Dropout(0.5)
    x = tr.Tensor([1.0], requires_grad=True)
    y = tr.checkpoint(layer, x)
    assert checkpoint._decisions.get() == ()
    y.sum().backward()
    assert checkpoint._decisions.get() == ()
