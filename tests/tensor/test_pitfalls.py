"""What bites users of systems like this one, each as a test: graphs and gradients.

The rows about the checker itself are in `tests/testing/test_gradients.py`, those about every op's dtype in
`test_ops_table.py`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import leaf
from tinygrad_rnn.errors import DTypeError
from tinygrad_rnn.tensor import parts
from tinygrad_rnn.testing import check_gradients


def test_a_graph_deeper_than_the_stack_is_built_differentiated_and_freed():
    depth = 100 * sys.getrecursionlimit()
    x = leaf(1.0)
    y = x
    for _ in range(depth):
        y = y + x
    y.backward()
    assert x.grad.item() == depth + 1


def test_a_deep_graph_is_dropped_without_a_backward():
    x = leaf(1.0)
    y = x
    for _ in range(100 * sys.getrecursionlimit()):
        y = -y
    del y
    assert x.grad is None


def test_the_order_is_topological():
    a = leaf(1.0)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad.item() == 4


def test_a_late_use_of_an_early_value_is_waited_for():
    a = leaf(3.0)
    b = a * a
    c = b * a
    d = c + b
    d.backward()
    assert a.grad.item() == 3 * 3**2 + 2 * 3


def test_a_second_backward_is_an_error_with_the_cure():
    x = leaf([1.0, 2.0])
    y = (x.tanh() * x).sum()
    y.backward()
    before = x.grad.numpy().copy()
    with pytest.raises(tr.errors.GraphFreedError, match=r"retain_graph=True") as caught:
        y.backward()
    assert "the output of sum, shape (), was differentiated before" in str(caught.value)
    assert np.array_equal(x.grad.numpy(), before)


def test_a_retained_graph_gives_the_same_gradient_again():
    x = leaf(3.0)
    y = x * x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 54


def test_a_carried_hidden_state_is_named():
    w = leaf(np.eye(3))
    h = tr.zeros(1, 3, dtype="float64")
    for step in range(2):
        h = (tr.ones(1, 3, dtype="float64") + h @ w).tanh()
        if step:
            with pytest.raises(tr.errors.GraphFreedError) as caught:
                h.sum().backward()
        else:
            h.sum().backward()
    message = str(caught.value)
    assert "the output of tanh, shape (1, 3)" in message
    assert "carried into this graph by matmul" in message
    assert "state.detach()" in message


def test_using_a_weight_again_keeps_its_gradient():
    w = leaf(2.0)
    (w * 3).backward()
    _ = w * 5
    assert w.grad.item() == 3
    (w * 5).backward()
    assert w.grad.item() == 8


def test_slices_share_one_buffer(monkeypatch):
    # one zero array for all the slices of a sequence, not one each: linear in T
    made = []

    def counted(*args):
        made.append(1)
        return zeros_beside(*args)

    zeros_beside = parts.zeros_beside
    monkeypatch.setattr(parts, "zeros_beside", counted)
    x = leaf(np.ones((50, 3)))
    tr.stack([x_t * 2 for x_t in x]).sum().backward()
    assert len(made) == 1
    assert np.array_equal(x.grad.numpy(), np.full((50, 3), 2.0))


def test_second_order_through_slices_is_one_op():
    x = leaf(np.arange(1.0, 41.0))
    y = sum((x_t**3 for x_t in x), start=tr.Tensor(0.0))
    g = tr.grad(y, x, create_graph=True)
    assert g._node.plan.name == "assemble"
    assert np.allclose(tr.grad(g.sum(), x).numpy(), 6 * x.numpy(), rtol=1e-13, atol=0)


def step(w, x):
    h = tr.zeros(2, 3)
    for t in range(4):
        h = (x[t] + h @ w).tanh()
    loss = (h * h).mean()
    loss.backward()
    w.assign_(w.numpy() - 0.1 * w.grad.numpy())
    w.grad = None
    return loss


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_gc")
def test_nothing_is_left_for_the_cyclic_collector():
    w, x = leaf(np.eye(3), "float32"), tr.ones(4, 2, 3)
    step(w, x)
    before = len(gc.get_objects())
    for _ in range(50):
        step(w, x)
    assert len(gc.get_objects()) <= before + 1
    assert gc.collect() == 0


@pytest.mark.usefixtures("no_gc")
def test_float_of_a_loss_is_free_of_its_graph():
    w, x = leaf(np.eye(3), "float32"), tr.ones(4, 2, 3)
    total = float(step(w, x))
    before = len(gc.get_objects())
    for _ in range(20):
        h = (x[0] @ w).tanh().sum()
        total += float(h)
    del h
    assert len(gc.get_objects()) <= before


@pytest.mark.usefixtures("no_gc")
def test_a_dropped_graph_frees_its_arrays_at_once():
    x = leaf(np.ones(1000))
    y = x.tanh()
    array = weakref.ref(y._array)
    z = y * 2
    del y
    assert array() is not None  # kept for the derivative of tanh
    del z
    assert array() is None


def test_handed_out_arrays_are_read_only():
    x = leaf([1.0, 2.0])
    y = x * 2
    for array in (x.data, x.numpy(), y.data, y.numpy(), y.detach().numpy(), np.asarray(y.detach())):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
    y.sum().backward()
    with pytest.raises(ValueError, match="read-only"):
        x.grad.numpy()[0] = 5


def test_the_users_arrays_are_copied():
    data, factor = np.ones(2), np.array([2.0, 3.0])
    x = leaf(data)
    y = (x * factor).sum()
    data[:] = 100
    factor[:] = 100
    y.backward()
    assert x.tolist() == [1, 1]
    assert x.grad.tolist() == [2, 3]


def test_assign_leaves_old_graphs_and_views_alone():
    x = leaf([1.0, 2.0])
    seen, detached = x.numpy(), x.detach()
    y = (x * x).sum()
    x.assign_([10.0, 20.0])
    y.backward()
    assert seen.tolist() == [1, 2]
    assert detached.tolist() == [1, 2]
    assert x.tolist() == [10, 20]
    assert x.grad.tolist() == [2, 4]


def test_in_place_operators_on_a_leaf_say_why():
    p = leaf([1.0])
    for operate in ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"):
        with pytest.raises(tr.errors.ImmutableError, match="assign_"):
            getattr(p, operate)(0.1)
    total = tr.Tensor([0.0])
    total += p  # not a leaf that requires a gradient: an ordinary sum
    assert total.requires_grad


def test_item_assignment_says_what_to_do():
    with pytest.raises(tr.errors.ImmutableError, match=r"tr\.where"):
        tr.zeros(3)[0] = 1.0


def test_no_grad_is_per_thread():
    seen = {}
    inside, leave = threading.Event(), threading.Event()

    def other():
        with tr.no_grad():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    seen["main"] = tr.is_recording()
    leave.set()
    thread.join()
    assert seen["main"]
    with tr.no_grad():
        thread = threading.Thread(target=lambda: seen.update(fresh=tr.is_recording()))
        thread.start()
        thread.join()
    assert seen["fresh"]


def test_no_grad_is_per_async_task():
    async def quiet(entered, leave):
        with tr.no_grad():
            entered.set()
            await leave.wait()

    async def main():
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(quiet(entered, leave))
        await entered.wait()
        recording = tr.is_recording()
        leave.set()
        await task
        return recording

    assert asyncio.run(main())


def test_no_grad_decorates_coroutines_and_refuses_async_generators():
    @tr.no_grad()
    async def inside():
        await asyncio.sleep(0)
        return tr.is_recording()

    async def main():
        task = asyncio.create_task(inside())
        await asyncio.sleep(0)
        return tr.is_recording(), await task

    assert asyncio.run(main()) == (True, False)
    with pytest.raises(TypeError, match="async generator leaking"):

        @tr.no_grad()
        async def leaking():
            yield 1


def test_no_grad_without_parentheses_is_named():
    with pytest.raises(TypeError, match=r"write @no_grad\(\), with parentheses"):

        @tr.no_grad
        def f():
            pass


def test_no_grad_is_restored_on_exceptions():
    with pytest.raises(KeyError), tr.no_grad():
        raise KeyError
    assert tr.is_recording()


def test_no_grad_does_not_leak_from_a_generator():
    @tr.no_grad()
    def generate():
        for _ in range(3):
            received = yield tr.is_recording()
            assert received in (None, "sent")

    steps = generate()
    for inside in (next(steps), steps.send("sent")):
        assert inside is False
        assert tr.is_recording()

    def leaking():
        with tr.no_grad():
            yield

    with pytest.raises(RuntimeError, match="leaking"):
        next(leaking())
    assert tr.is_recording()


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: tr.where(x > 0, tr.sqrt(x), x), -1.0),
        (lambda x: tr.where(x > 0, tr.sqrt(x), x), 0.0),
        (lambda x: tr.where(x > 0, tr.log(x), x), 0.0),
        (lambda x: tr.where(x != 0, 1 / x, x), 0.0),
        (lambda x: tr.where(x > 0, x**0.5, x), 0.0),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:.*encountered in.*:RuntimeWarning"
)  # the forward of the vanished branch is the user's
def test_a_vanished_branch_contributes_nothing(f, x):
    x = leaf([x])
    f(x).sum().backward()
    assert x.grad.tolist() == [1.0]


def test_the_norm_has_gradient_0_at_0():
    x = leaf([0.0, 0.0])
    tr.norm(x).backward()
    assert x.grad.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ties_of_max_share_the_gradient(dtype):
    x = leaf(np.ones(4096), dtype)
    x.max().backward()
    assert x.grad.dtype == dtype
    assert np.allclose(x.grad.numpy(), 1 / 4096, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * 2,
        lambda x: 2.5 * x,
        lambda x: x * np.float64(2.5),
        lambda x: x * (1 / np.sqrt(8)),
        lambda x: x + np.float64(1),
        lambda x: x * tr.arange(4),
        lambda x: x * (x > 0),
        lambda x: x * [1, 2, 3, 4],
        lambda x: x * [0.1, 0.2, 0.3, 0.4],
        lambda x: tr.stack([x, tr.arange(4)]),
        lambda x: tr.concatenate([tr.arange(2), x]),
        lambda x: tr.einsum("i,i->", x, tr.arange(4)),
        lambda x: tr.linear(tr.arange(4), tr.reshape(x, (1, 4))),
        lambda x: tr.clip(x, np.float64(0.1)),
        lambda x: tr.leaky_relu(x, np.float64(0.1)),
        lambda x: tr.elu(x, np.float64(0.1)),
        lambda x: x / 3,
        lambda x: 1 / (x + 5),
        lambda x: x**2,
        lambda x: x.mean() + x.var() + x.std(),
        lambda x: x.max() + x.min(),
        lambda x: tr.maximum(x, 0.5),
        lambda x: tr.where(x > 0, x, 0.0),
        lambda x: tr.clip(x, min=-0.5, max=0.5),
        lambda x: tr.nn.functional.mse_loss(x, tr.zeros(4, dtype="float16")),
    ],
)
def test_float16_and_float32_stay_what_they_are(f):
    for dtype in ("float16", "float32"):
        x = leaf([0.1, 0.7, -0.3, 0.2], dtype)
        y = f(x)
        assert y.dtype == dtype
        y.sum().backward()
        assert x.grad.dtype == dtype


def test_python_floats_become_float32_and_arrays_keep_their_type():
    assert tr.Tensor(1.5).dtype == tr.Tensor([[1.5]]).dtype == "float32"
    assert tr.Tensor(np.ones(2)).dtype == "float64"
    assert tr.Tensor(np.ones(2, "float16")).dtype == "float16"
    assert tr.Tensor([1, 2]).dtype == "int64"
    assert tr.Tensor([True]).dtype == "bool"
    with pytest.raises(tr.errors.DTypeError, match="complex"):
        tr.Tensor([1j])
    with pytest.raises(tr.errors.DTypeError, match="<U1"):
        tr.Tensor(["a"])
    for name in ("complex64", complex, np.complex128):
        with pytest.raises(tr.errors.DTypeError, match="not a dtype for a tensor"):
            tr.zeros(2, dtype=name)


def test_arrays_that_a_function_makes_let_the_complex_step_through():
    """`dtype=x.dtype` is what one writes; if it failed on a checker's complex x, a plain difference would judge."""

    def f(x):
        start, mask = tr.zeros(3, dtype=x.dtype), tr.Tensor([1, 0, 2], dtype=x.dtype)
        with tr.tensor.random.own_generator(np.random.default_rng(0).bit_generator.state):
            return tr.nn.functional.dropout(tr.sin(x + start) * mask + tr.full((3,), 0.5, dtype=x.dtype))

    check_gradients(f, np.array([0.1, 0.2, 0.3]), analytic=True)


def test_float64_never_passes_through_float32():
    x = leaf([1.0])
    assert (x * [0.1]).item() == 0.1
    (x * 1.0).backward([0.1])
    assert x.grad.item() == 0.1
    x.grad = [0.3]
    assert x.grad.item() == 0.3
    assert np.array(tr.Tensor([1.0, 2.0])).dtype == "float32"
    assert np.array(tr.Tensor([1, 2])).dtype == "int64"
    x.register_hook(lambda g: g.to("float32"))
    (x * 1.0).backward([1.0])
    assert x.grad.dtype == "float64"


def test_full_takes_numpy_scalars():
    for half in (0.5, np.float32(0.5), np.float16(0.5), np.array(0.5)):
        assert tr.full((2,), half).tolist() == [0.5, 0.5]


def test_the_gradient_of_a_float16_mean_does_not_vanish():
    x = leaf(np.ones(70_000), "float16")
    x.mean().backward()
    assert x.grad.numpy()[0] == np.float16(1 / 70_000)


def test_an_integer_leaf_is_refused():
    with pytest.raises(tr.errors.DTypeError, match="int64 cannot require a gradient"):
        tr.Tensor([1, 2], requires_grad=True)


def test_numpy_functions_name_the_op_to_use():
    x = leaf([1.0, 2.0])
    with pytest.raises(TypeError, match=r"use tr\.tanh"):
        np.tanh(x)
    with pytest.raises(TypeError, match=r"use tr\.concatenate"):
        np.concatenate([x, x])
    with pytest.raises(TypeError, match="cut the graph"):
        np.asarray(x)
    array = np.ones(2)
    with pytest.raises(TypeError):
        array += x
    assert np.asarray(x.detach()).tolist() == [1, 2]


def test_numpy_arrays_and_tensors_mix_in_operators():
    x, array = leaf([1.0, 2.0]), np.array([10.0, 20.0])
    for result in (array + x, array - x, array * x, array / x, array**x, np.eye(2) @ x, np.float64(3) * x):
        assert isinstance(result, tr.Tensor)
        assert result.requires_grad
    assert isinstance(array > x, tr.Tensor)


@pytest.mark.parametrize("join", [tr.concatenate, tr.stack])
def test_a_list_that_cannot_be_joined_is_named(join):
    with pytest.raises(tr.errors.ShapeError, match=rf"{join.__name__}: the list has no tensors"):
        join([])
    with pytest.raises(TypeError, match=rf"{join.__name__}: None is no operand"):
        join([tr.ones(2), None])


def test_a_slice_with_a_bound_that_is_no_integer_is_a_type_error():
    for cut in (lambda x: tr.split(x, "ab"), lambda x: x[:"a"], lambda x: x[1.5:]):
        with pytest.raises(TypeError, match=r"cannot be interpreted as an integer|must be an integer"):
            cut(tr.ones(3))


def test_a_hook_is_a_function():
    with pytest.raises(TypeError, match="a hook is a function of a gradient, not int"):
        tr.ones(2, requires_grad=True).register_hook(5)


def test_where_does_not_wrap_numbers():
    small = tr.Tensor(np.array([1, 2], np.int8))
    assert tr.where([True, False], small, 127).tolist() == [1, 127]
    for f in (lambda: tr.where([True, False], small, 300), lambda: tr.where([True, False], -129, small.numpy())):
        with pytest.raises(DTypeError, match="does not fit int8"):
            f()
    assert tr.where([True, False], small, 300.0).tolist() == [1, 300]
