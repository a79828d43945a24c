"""The judge asks laws in order, counts those that applied, and says which one is broken, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.testing import GradientError, LawError
from tinygrad_rnn.testing.errors import Broken
from tinygrad_rnn.testing.judge import Law, explore, judge, law


@dataclass
class Subject:
    where: str = "an example"


def raising(error: Exception, name: str = "small") -> Law[Subject]:
    def asked(subject: Subject) -> bool:
        raise error

    return Law(name, asked)


def test_laws_are_asked_in_order_and_counted_once_by_name_if_they_applied() -> None:
    asked = []

    def one(name: str, applies: bool) -> Law[Subject]:
        return law(name)(lambda subject: asked.append(name) or applies)

    assert judge([one("b", True), one("a", True), one("c", False), one("b", True)], Subject()) == {"b": 1, "a": 1}
    assert asked == ["b", "a", "c", "b"]


def test_the_first_that_is_broken_is_named_and_nothing_is_asked_after_it() -> None:
    with pytest.raises(LawError, match=r"^small: 11 is large\n  in an example$") as caught:
        judge([raising(Broken("11 is large")), raising(KeyError("asked"))], Subject())
    assert caught.value.law == "small"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Broken("it has another shape", "shape"), "shape"),
        (GradientError("it is wrong"), "gradient"),
        (GradientError("it is wrong", "second derivative"), "second derivative"),
        (ShapeError("a gradient of shape (2,): the derivative is wrong"), "shape"),
        (ValueError("assignment destination is read-only"), "no mutation"),
    ],
)
def test_what_is_raised_names_its_law_and_the_example(error: Exception, name: str) -> None:
    with pytest.raises(LawError, match=r"\n  in an example$") as caught:
        judge([raising(error)], Subject())
    assert caught.value.law == name
    assert isinstance(caught.value, type(error)) or isinstance(error, Broken | ShapeError | ValueError)


def test_what_breaks_no_law_is_raised_as_it_is_with_a_note_of_the_example() -> None:
    error = KeyError("not a matter of laws")
    with pytest.raises(KeyError) as caught:
        judge([raising(error)], Subject())
    assert caught.value is error and error.__notes__ == ["in an example"]


def test_a_write_that_numpy_refuses_is_a_mutation() -> None:
    x = np.zeros(2)
    x.flags.writeable = False

    def writes(subject: Subject) -> bool:
        x[0] = 1.0
        return True

    with pytest.raises(LawError, match="no mutation: something writes to an array that it was given"):
        judge([Law("linear", writes)], Subject(""))


# --- the search ---------------------------------------------------------------------------------------------


def no_larger_than(limit: int) -> Any:
    def check(n: int) -> dict[str, int]:
        if n > limit:
            raise LawError("small", f"{n} is large")
        return {"small": 1}

    return check


def test_what_only_a_drawn_example_breaks_is_raised_shrunk() -> None:
    integers = pytest.importorskip("hypothesis.strategies").integers
    with pytest.raises(LawError, match=r"^11 is large"):
        explore("numbers", integers(0, 10**6), no_larger_than(10), examples=100)


def test_the_first_examples_are_checked_before_what_is_drawn_and_alone_for_none() -> None:
    integers = pytest.importorskip("hypothesis.strategies").integers
    with pytest.raises(LawError, match=r"^12 is large"):
        explore("numbers", integers(0, 10**6), no_larger_than(10), examples=100, first=[3, 12])
    assert explore("numbers", integers(0, 10), no_larger_than(10), examples=7, first=[1, 2])["small"] == 9
    assert explore("numbers", integers(11, 12), no_larger_than(10), examples=0, first=[1, 2]) == {"small": 2}
