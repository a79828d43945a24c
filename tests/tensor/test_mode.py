"""The modes of a thread: what `detect_anomaly` finds and says; `no_grad` is in `test_pitfalls.py`."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.tensor.helpers import failing, leaf, t


def test_the_note_has_the_users_line_under_detect_anomaly():
    with tr.detect_anomaly():
        y = failing(leaf([1.0]))  # this line
        with pytest.raises(KeyError) as caught:
            y.backward()
    assert "y = failing(leaf([1.0]))  # this line" in caught.value.__notes__[0]
    assert "test_mode.py" in caught.value.__notes__[0]


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


def test_anomalies_are_found_in_recorded_gradients():
    @tr.op(lambda g, x: g * (x - x) / (x - x))
    def sick(x):
        return x + 0.0

    with tr.detect_anomaly(), pytest.raises(tr.errors.NonFiniteError, match="derivative of sick"):
        x = leaf([1.0])
        tr.grad(sick(x), x, create_graph=True)


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


def test_a_decorated_generator_is_sent_thrown_and_closed_as_any_other():
    seen = []

    @tr.no_grad()
    def told():
        got = None
        try:
            while True:
                try:
                    got = yield got, tr.is_recording()
                except KeyError as error:
                    got = f"caught {error.args[0]}"
        finally:
            seen.append(tr.is_recording())

    generator = told()
    assert next(generator) == (None, False)
    assert generator.send(1) == (1, False)
    assert generator.throw(KeyError("a")) == ("caught a", False)
    assert generator.send(2) == (2, False) and tr.is_recording()
    with pytest.raises(ValueError, match="not for it"):
        generator.throw(ValueError("not for it"))
    assert seen == [False]
    another = told()
    next(another)
    another.close()
    assert seen == [False, False] and tr.is_recording()


def test_a_decorated_generator_returns_its_value_to_yield_from():
    @tr.no_grad()
    def two():
        first = yield 1
        try:
            yield 2
        except KeyError:
            return first, "thrown"

    def outer():
        return (yield from two())

    generator = outer()
    assert next(generator) == 1 and generator.send("sent") == 2
    with pytest.raises(StopIteration) as stop:
        generator.throw(KeyError)
    assert stop.value.value == ("sent", "thrown")
