"""What `op` makes of a forward and its rules: calls, metadata, plans, and errors that name what is wrong."""

from __future__ import annotations

import inspect
from functools import partial, wraps

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import leaf


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
        ((lambda g, *xs: g,), "asks for 'xs'"),
        ((lambda g, *, z: g,), "asks for 'z'"),
        ((), "0 vjps for 1 arguments"),
        ((lambda g: g, lambda g: g), "2 vjps for 1 arguments"),
    ],
)
def test_a_wrong_vjp_is_an_error_at_the_definition(vjps, message):
    with pytest.raises(TypeError, match=message):

        @tr.op(*vjps)
        def wrong(x):
            return x


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


class Doubling:
    def pull(self, g, x):
        return 2 * g * x

    __call__ = pull


@pytest.mark.parametrize("vjp", [Doubling().pull, Doubling(), partial(lambda k, g, x: k * g * x, 2)])
def test_a_derivative_need_not_be_a_plain_function(vjp):
    @tr.op(vjp)
    def my_square(x):
        return x * x

    x = leaf([3.0])
    my_square(x).backward()
    assert x.grad.tolist() == [6.0]


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


def test_a_plan_is_written_when_it_is_first_used():
    def is_written(plan):
        return any(name in type(plan).__slots__ and _has(plan, name) for name in ("names", "source", "keep", "pull"))

    def _has(plan, name):
        try:
            object.__getattribute__(plan, name)
        except AttributeError:
            return False
        return True

    @tr.op(lambda g: 2 * g)
    def twice(x):
        return x + x

    plan = twice.op.plan((True,))
    assert not is_written(plan)
    with pytest.raises(AttributeError, match="colour"):
        plan.colour  # noqa: B018
    assert not is_written(plan)
    twice(leaf([1.0])).sum().backward()
    assert is_written(plan)


def test_the_options_of_a_forward_are_read_off_its_code():
    def unchanged(f):
        return wraps(f)(lambda *xs, **options: f(*xs, **options))

    def scaled(x, k, by=2.0, *, more=3.0):
        return x * (k * by * more)

    for forward in (scaled, unchanged(scaled)):
        op = tr.op(lambda g, k, by, more: g * (k * by * more))(forward).op
        assert op.arrays == ["x"] and not op.by_position and not op.variadic
        assert list(op.metadata) == ["k", "by", "more"]
        assert op.metadata["k"] is inspect.Parameter.empty and op.metadata["by"] == 2.0 and op.metadata["more"] == 3.0
    many = tr.op(joint=lambda g, axis: [g, g])(lambda *xs, axis=0: xs[0] + xs[1]).op
    assert (many.variadic, many.arrays, many.metadata) == (True, ["xs"], {"axis": 0})
    assert tr.tensor.ops.shape.slice_.op.by_position
