"""The backward sweep: accumulation, ownership, hooks, failures, floors."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import ops, sweep


def leaf(data, dtype="float64"):
    return tr.Tensor(data, dtype=dtype, requires_grad=True)


@tr.op(lambda g: bad_vjp(g))
def failing(x):
    return x * 1.0


def bad_vjp(g):
    raise KeyError("a bug in a derivative")


def test_leaves_accumulate():
    x = leaf([1.0, 2.0])
    for times in (1, 2, 3):
        (x * x).sum().backward()
        assert x.grad.tolist() == [2 * times, 4 * times]


def test_a_gradient_once_handed_out_never_changes():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    first = x.grad
    view = first.numpy()
    (x * x).sum().backward()
    assert view.tolist() == [2, 4]
    assert first.tolist() == [2, 4]
    assert x.grad.tolist() == [4, 8]


def test_no_two_gradients_share_memory():
    x, y = leaf(np.ones(3)), leaf(np.ones(3))
    seed = np.ones(3)
    z = x + y
    z.backward(seed)
    arrays = [x.grad.numpy(), y.grad.numpy(), seed, z.numpy(), x.numpy(), y.numpy()]
    for i, a in enumerate(arrays):
        for b in arrays[i + 1 :]:
            assert not np.shares_memory(a, b)
    a = leaf(np.ones((2, 2)))
    w = leaf(np.ones((2, 2)))
    ((a @ w) @ w + w.reshape(-1).reshape(2, 2)).sum().backward()
    assert not np.shares_memory(a.grad.numpy(), w.grad.numpy())


def test_grad_never_hands_out_somebody_elses_array():
    x = leaf(np.ones(3))
    seed = tr.Tensor(np.ones(3))
    g = tr.grad(x + 1.0, x, gradient=seed)
    assert not np.shares_memory(g.numpy(), seed.numpy())


def test_a_failing_derivative_leaves_every_leaf_untouched():
    x, y = leaf([1.0]), leaf([2.0])
    x.grad = tr.Tensor([7.0])
    z = (y * failing(x * 3.0)).sum()
    with pytest.raises(KeyError) as caught:
        z.backward()
    assert x.grad.tolist() == [7.0]
    assert y.grad is None
    (note,) = caught.value.__notes__
    assert "failing" in note
    assert "inputs (1,)" in note
    with pytest.raises(tr.errors.GraphFreedError, match="half freed by a backward that failed in failing"):
        z.backward()


def test_the_note_has_the_users_line_under_detect_anomaly():
    with tr.detect_anomaly():
        y = failing(leaf([1.0]))  # this line
        with pytest.raises(KeyError) as caught:
            y.backward()
    assert "y = failing(leaf([1.0]))  # this line" in caught.value.__notes__[0]
    assert "test_graph.py" in caught.value.__notes__[0]


def test_detect_anomaly_names_where_a_nan_is_born():
    @tr.op(lambda g, x: g * (x - x) / (x - x))
    def sick(x):
        return x + 0.0

    with tr.detect_anomaly():
        y = (sick(leaf([1.0])) * 2.0).sum()
        with pytest.raises(tr.errors.NonFiniteError, match="derivative of sick") as caught:
            y.backward()
    assert "y = (sick(leaf([1.0])) * 2.0).sum()" in caught.value.__notes__[0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_detect_anomaly_finds_a_nan_made_of_an_infinite_gradient(create_graph):
    x, infinite = leaf([0.0]), tr.Tensor([np.inf], dtype="float64")
    assert np.isnan(tr.grad(x * 0.0, x, gradient=infinite, create_graph=create_graph).item())  # outside, NaN is a value
    with tr.detect_anomaly(), pytest.raises(tr.errors.NonFiniteError, match="derivative of multiply made a NaN"):
        tr.grad(x * 0.0, x, gradient=infinite, create_graph=create_graph)


def test_the_gradient_of_a_backward_must_have_the_shape():
    y = leaf(np.ones((2, 3))) * 2
    with pytest.raises(tr.errors.ShapeError, match=r"\(2, 3\).*one element only"):
        y.backward()
    for wrong in (np.ones(3), np.ones((3, 2)), 1.0):
        with pytest.raises(tr.errors.ShapeError, match=r"for a tensor of shape \(2, 3\)"):
            y.backward(wrong)
    y.backward(np.ones((2, 3)))


def test_backward_needs_a_gradient_to_reach():
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        tr.zeros(1).backward()


def test_retain_grad_and_hooks_see_the_complete_gradient():
    x = leaf([1.0, 2.0])
    y = x * 2
    y.retain_grad()
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y + y * y + y[0]).sum().backward()
    expected = [1 + 2 * 2 + 2, 1 + 2 * 4]
    assert y.grad.tolist() == seen[0] == expected
    assert len(seen) == 1
    assert x.grad.tolist() == [2 * g for g in expected]


def test_inner_tensors_have_no_grad_unless_asked():
    x = leaf([1.0])
    y = x * 2
    y.sum().backward()
    with pytest.warns(UserWarning, match="retain_grad"):
        assert y.grad is None


def test_a_hook_may_replace_the_gradient_and_be_removed():
    x = leaf([1.0, 2.0])
    remove = x.register_hook(lambda g: g * 10)
    (x * 1.0).sum().backward()
    assert x.grad.tolist() == [10, 10]
    remove()
    remove()
    x.grad = None
    (x * 1.0).sum().backward()
    assert x.grad.tolist() == [1, 1]
    x.register_hook(lambda g: tr.zeros(7))
    with pytest.raises(tr.errors.ShapeError, match=r"a hook returned shape \(7,\)"):
        (x * 1.0).sum().backward()
    y = leaf([1.0])
    y.register_hook(lambda g: 1.0)
    with pytest.raises(TypeError, match="a hook returned float"):
        y.backward()


def test_what_a_hook_kept_is_not_written():
    x = leaf([1.0, 2.0])
    kept = []
    x.register_hook(kept.append)
    (x + x).sum().backward()
    assert not np.shares_memory(kept[0].numpy(), x.grad.numpy())
    (x + x).sum().backward()
    assert kept[0].tolist() == [2, 2]


def test_hooks_run_once_through_a_checkpoint():
    x = leaf([1.0, 2.0])
    calls = []
    x.register_hook(lambda g: calls.append(1))
    tr.checkpoint(lambda: (x * x + x).sum()).backward()
    assert len(calls) == 1


def test_detach_cuts_the_graph():
    x = leaf([3.0])
    y = (x * x).detach()
    assert not y.requires_grad
    (y * x).sum().backward()
    assert x.grad.tolist() == [9.0]


def test_broadcasting_is_undone_in_the_engine():
    x, y = leaf(np.ones((3, 1))), leaf(2.0)
    (x * np.ones((2, 3, 4)) * y).sum().backward()
    assert x.grad.numpy().tolist() == [[16.0]] * 3
    assert y.grad.item() == 24


def test_contributions_are_cast_to_the_source_dtype():
    x = leaf([1.0, 2.0], "float32")
    (x * np.array([1.0, 3.0])).sum().backward()
    assert x.grad.dtype == "float32"


def test_the_products_of_many_steps_are_batched(monkeypatch):
    flushed = []
    flush = sweep.Gradients.flush

    def counted(self, node):
        flushed.append(len(self.pairs[node].xs))
        flush(self, node)

    monkeypatch.setattr(sweep.Gradients, "flush", counted)
    rng = np.random.default_rng(0)
    w, h, expected = leaf(rng.standard_normal((3, 3)) * 0.3), tr.Tensor(rng.standard_normal((64, 3))), 0.0
    states = []
    for _ in range(40):
        states.append(h)
        h = (h @ w).tanh()
    h.sum().backward()
    assert flushed == [16, 16, 8]  # 1,024 rows each
    g = np.ones((64, 3))
    for t in reversed(range(40)):
        y = states[t + 1].numpy() if t < 39 else h.numpy()
        g = g * (1 - y * y)
        expected = expected + states[t].numpy().T @ g
        g = g @ w.numpy().T
    assert np.allclose(w.grad.numpy(), expected, rtol=1e-12, atol=0)


def test_grad_touches_no_leaf_and_prunes():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = failing(w)  # would raise if it were pulled
    h = x * 2
    z = (h * h + y.sum() * 0.0).sum()
    assert tr.grad(z, h).tolist() == [4, 8]
    assert x.grad is None
    assert w.grad is None
    h.sum().backward()  # what lies behind an input was neither pulled nor freed
    assert x.grad.tolist() == [2, 2]


def test_grad_does_not_look_behind_its_inputs():
    x = leaf([1.0, 2.0])
    h = x * 2
    h.sum().backward()  # frees what is behind h
    assert tr.grad((h * h).sum(), h).tolist() == [4, 8]


def test_a_value_without_a_gradient_does_not_end_the_sweep():
    @tr.op(None, lambda g: g)
    def second(a, b):
        return b * 1.0

    b, a = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    c = b * 3
    second(a * 2, c).sum().backward()  # a * 2 is newer than c, and nothing comes back to it
    assert b.grad.tolist() == [3, 3]
    assert a.grad is None


def test_a_value_used_twice_at_every_step_is_visited_once():
    """2 ** 200 paths lead through this graph."""
    x = y = leaf([0.5])
    for _ in range(200):
        y = (y + y) * 0.5
    y.sum().backward()
    assert x.grad.tolist() == [1]
    assert tr.grad(((x + x) * 0.5).sum(), x).tolist() == [1]


def test_grad_of_an_input_and_of_what_was_computed_from_it():
    x = leaf([1.0, 2.0])
    h = x * 2
    z = (h * h + x).sum()
    for inputs, expected in (([x, h], [[9, 17], [4, 8]]), ([h, x], [[4, 8], [9, 17]]), ([h, h], [[4, 8], [4, 8]])):
        assert [g.tolist() for g in tr.grad(z, inputs, retain_graph=True)] == expected


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


def test_an_integer_or_constant_path_carries_no_gradient():
    x = leaf([0.2, 3.0])
    assert not (x > 1).requires_grad
    assert not x.argmax().requires_grad


def test_a_metadata_tensor_is_refused():
    x = leaf([1.0])

    @tr.op(lambda g, k: g * k)
    def scale(x, *, k=1.0):
        return x * k

    assert scale(x, k=2.0).tolist() == [2.0]
    with pytest.raises(TypeError, match="k= takes plain values"):
        scale(x, k=tr.Tensor(2.0))
    assert scale(x, 3.0).tolist() == [3.0]  # by position, as NumPy's options are
    with pytest.raises(TypeError, match=r"scale takes 1 arrays and \['k'\], but 3 were given"):
        scale(x, 2.0, 3.0)


@pytest.mark.parametrize(
    ("vjps", "message"),
    [
        ((lambda g, z: g,), "asks for 'z'"),
        ((lambda y, g: g,), "asks for 'y'"),
        ((), "0 vjps for 1 arguments"),
        ((lambda g: g, lambda g: g), "2 vjps for 1 arguments"),
    ],
)
def test_a_wrong_vjp_is_an_error_at_the_definition(vjps, message):
    with pytest.raises(TypeError, match=message):

        @tr.op(*vjps)
        def wrong(x):
            return x


def test_a_derivative_of_the_wrong_shape_is_an_error():
    @tr.op(lambda g: g)
    def flipped(x):
        return x.T

    for create_graph in (False, True):
        x = leaf(np.arange(6.0).reshape(2, 3))
        with pytest.raises(
            tr.errors.ShapeError, match=r"gradient of shape \(3, 2\) for an input of shape \(2, 3\)"
        ) as e:
            tr.grad((flipped(x) * np.ones((3, 2))).sum(), x, create_graph=create_graph)
        assert "in the backward of flipped" in e.value.__notes__[0]


def test_a_joint_vjp_returns_one_gradient_for_each_argument():
    @tr.op(joint=lambda g: [g])
    def both(a, b):
        return a + b

    with pytest.raises(TypeError, match="1 gradients from a joint vjp for 2 arguments"):
        both(leaf([1.0]), leaf([1.0])).backward()


def test_metadata_is_not_changed_under_the_graph():
    x, axes, i = leaf(np.arange(8.0).reshape(2, 2, 2)), [1, 2, 0], np.array(0)
    y, z = tr.transpose(x, axes), x[i : i + 1]
    axes[:] = [0, 1, 2]
    i += 1
    g = np.arange(8.0).reshape(2, 2, 2)
    y.backward(g)
    assert np.array_equal(x.grad.numpy(), g.transpose(2, 0, 1))
    x.grad = None
    z.backward(np.ones((1, 2, 2)))
    assert x.grad.numpy()[0].tolist() == [[1, 1], [1, 1]]


def test_numpy_integers_are_axes():
    x = leaf(np.ones((2, 3)))
    for y in (x.sum(axis=np.int64(0)), tr.concatenate([x, x], axis=np.int64(1)), tr.expand_dims(x, np.int64(0))):
        y.sum().backward()
    with pytest.raises(tr.errors.ShapeError, match="axis 4 is out of range for 2 dimensions"):
        tr.split(x, 1, axis=4)
    with pytest.raises(tr.errors.ShapeError, match="out of range for 2 dimensions"):
        x.swapaxes(0, 5)


def test_none_is_no_operand():
    for operate in (lambda x: x + None, lambda x: x @ None, lambda x: x == None):  # noqa: E711
        with pytest.raises(TypeError, match="None is no operand"):
            operate(leaf([[1.0]]))


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


def test_anomalies_are_found_in_recorded_gradients():
    @tr.op(lambda g, x: g * (x - x) / (x - x))
    def sick(x):
        return x + 0.0

    with tr.detect_anomaly(), pytest.raises(tr.errors.NonFiniteError, match="derivative of sick"):
        x = leaf([1.0])
        tr.grad(sick(x), x, create_graph=True)


def test_reserved_names_are_refused():
    with pytest.raises(TypeError, match="reserved"):

        @tr.op(lambda g: g, lambda g: g)
        def wrong(x, y):
            return x + y


def test_only_what_the_derivative_names_is_kept():
    x, w = leaf(np.ones((2, 3))), leaf(np.ones((3, 4)))
    assert (x + x)._node.kept == ()
    y = tr.tanh(x)
    (kept,) = y._node.kept
    assert kept is y._array
    (kept,) = (k for k in (x.detach() @ w)._node.kept if isinstance(k, np.ndarray))
    assert kept.shape == (2, 3)
    (kept,) = (k for k in (x @ w.detach())._node.kept if isinstance(k, np.ndarray))
    assert kept.shape == (3, 4)


def test_float_contributions_from_many_threads_are_all_counted():
    x = leaf(np.zeros(4))

    def work():
        for _ in range(200):
            (x * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert x.grad.tolist() == [800.0] * 4


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(tr.errors.ShapeError, match=r"^add: shapes \(2,\) and \(3,\) cannot be broadcast together$"):
        tr.zeros(2) + tr.zeros(3)
    with pytest.raises(tr.errors.ShapeError, match=r"matmul: shapes \(2, 3\) and \(4, 5\)"):
        tr.zeros(2, 3) @ tr.zeros(4, 5)
    with pytest.raises(tr.errors.ShapeError, match=r"matmul: shapes \(2, 3\) and 2.0 do not fit: a plain number"):
        tr.zeros(2, 3) @ 2.0


def test_an_error_of_ones_own_forward_keeps_its_line_and_its_words():
    @tr.op(lambda g, x: g / x)
    def mylog(x):
        if (x <= 0).any():
            raise ValueError("mylog wants positive numbers")
        return np.log(x)

    with pytest.raises(ValueError, match=r"^mylog wants positive numbers") as caught:
        mylog(leaf([1.0, -1.0]))
    assert not isinstance(caught.value, tr.errors.ShapeError)
    assert "in mylog of shapes (2,)" in caught.value.__notes__
    assert any("mylog wants positive" in str(entry.statement) for entry in caught.traceback)


def test_op_without_parentheses_is_named():
    @tr.op
    def square(x):
        return x * x

    with pytest.raises(TypeError, match=r"write @tr\.op\(vjp, \.\.\.\)"):
        square(leaf([1.0]))


def test_unknown_operands_are_named():
    with pytest.raises(TypeError, match="str: 'abc'"):
        tr.zeros(2) + "abc"


def test_leaves_are_copied_and_pickled_and_computed_tensors_are_not():
    x = leaf([1.0, 2.0])
    x.grad = tr.Tensor([1.0, 1.0])
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):  # noqa: S301 (our own bytes)
        assert twin.tolist() == [1, 2]
        assert twin.requires_grad
        assert twin.dtype == "float64"
        assert not np.shares_memory(twin.numpy(), x.numpy())
    for copier in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"made by multiply: \.detach\(\) it first"):
            copier(x * 2)


def test_conversions():
    x = tr.Tensor(2.5)
    assert float(x) == 2.5
    assert int(tr.Tensor(3)) == 3
    assert [10, 20][tr.Tensor(1)] == 20
    assert f"{x:.2f}" == "2.50"
    assert bool(tr.Tensor(True))
    assert len(tr.zeros(3, 2)) == 3
    assert [row.shape for row in tr.zeros(3, 2)] == [(2,)] * 3
    assert 2.5 in tr.Tensor([1.0, 2.5])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(tr.zeros(2))
    with pytest.raises(TypeError, match="0-d"):
        len(x)
    with pytest.raises(tr.errors.ShapeError, match="one element"):
        tr.zeros(2).item()
    with pytest.raises(AttributeError):
        x.gard = None


def test_dlpack_copies():
    x = tr.Tensor([1.0, 2.0])
    array = np.from_dlpack(x)
    assert array.tolist() == [1, 2]
    assert not np.shares_memory(array, x.numpy())
    with pytest.raises(BufferError, match="detach"):
        np.from_dlpack(leaf([1.0]))


def test_the_repr_helps():
    x = leaf([1.0, 2.0], "float32")
    assert repr(x) == "Tensor([1., 2.], dtype=float32, requires_grad=True)"
    assert repr(x.tanh()).endswith("dtype=float32, made_by=tanh)")
    assert repr(tr.Tensor([[1, 2], [3, 4]])) == "Tensor([[1, 2],\n        [3, 4]], dtype=int64)"
    assert "..." in repr(tr.zeros(5000))


def test_devices_are_checked():
    with pytest.raises(ValueError, match=r'"cpu", "cuda" or "cuda:N"'):
        tr.zeros(2, device="gpu")


def test_to_changes_dtype_with_a_gradient():
    x = leaf([1.0, 2.0], "float32")
    y = x.to("float64")
    assert y.dtype == "float64"
    (y * y).sum().backward()
    assert x.grad.dtype == "float32"
    assert x.grad.tolist() == [2, 4]
    with pytest.raises(tr.errors.DTypeError, match="float31"):
        x.to("float31")


def test_the_gradient_of_a_move_is_moved_back():
    x = leaf([1.0, 2.0])
    y = ops.to_device(x, device="cpu", source="cpu")  # `to` would not move it
    assert y is not x
    (y * np.array([3.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [3, 5]


def test_requires_grad_may_be_set_on_leaves_only():
    x = tr.zeros(2)
    x.requires_grad = True
    (x * 1.0).sum().backward()
    assert x.grad is not None
    x.requires_grad = False
    assert not (x * 2).requires_grad
    y = leaf([1.0]) * 2
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False


def test_flatten_is_a_reshape():
    x = leaf(np.arange(6.0).reshape(2, 3))
    y = x.flatten()
    assert y.tolist() == [0, 1, 2, 3, 4, 5]
    (y * np.arange(6.0)).sum().backward()
    assert x.grad.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_was_generated_for_an_op_can_be_read():
    both = tr.multiply.op.plan((True, True))
    assert both.source == (
        "def keep(y, a, b):\n"
        "    return (b, a)\n"
        "def pull(g, kept):\n"
        "    (b, a) = kept\n"
        "    return (vjp0(g, b), vjp1(g, a))"
    )
    assert tr.multiply.op.plan((False, True)).source.endswith("return (None, vjp1(g, a))")
    assert "return (x.shape, axis)" in tr.sum.op.plan((True,)).source
    assert both.keep(6, 2, 3) == (3, 2) and both.pull(1, (3, 2)) == (3, 2)


def test_a_fused_op_has_a_name_and_a_plain_definition():
    double = tr.fused("double", lambda x: x + x, lambda x: 2 * x, lambda g, y, needs, x: (2 * g,))
    assert double.op.name == "double"
    x = leaf([1.0, 2.0])
    assert double.op.forward(x).tolist() == double(x).tolist() == [2, 4]
    assert double.op.plan((True,)) is double(x)._node.plan
