"""What differs between two recordings of a step is an error with its line."""

from __future__ import annotations

import random

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.steps import line_of
from tinygrad_rnn.errors import CompileError


def test_a_constant_that_differs_is_refused_with_its_line() -> None:
    count = [0]

    def step(x: tr.Tensor) -> tr.Tensor:
        count[0] += 1
        y = x + 1
        return y * (0.5 * count[0])  # here

    compiled = tr.compile(step)
    compiled(tr.ones(2))
    with pytest.raises(CompileError, match=r"1\.0, which was 0\.5") as caught:
        compiled(tr.ones(2))
    assert line_of(step, "# here") in str(caught.value)

    noisy = tr.compile(lambda x: x + np.full(2, len(count.append(0) or count)))
    noisy(tr.ones(2))
    with pytest.raises(CompileError, match="an array"):
        noisy(tr.ones(2))


def test_random_numbers_of_ones_own_are_refused() -> None:
    rng = np.random.default_rng(0)
    for draw in (lambda: rng.random(), random.random, np.random.rand):
        noisy = tr.compile(lambda x, draw=draw: x * 2 if draw() < 2 else x)
        with pytest.raises(CompileError, match="draws random numbers by itself"):
            noisy(tr.ones(2))


def test_another_path_at_the_second_call_is_refused() -> None:
    calls: list[int] = []

    def step(x: tr.Tensor) -> tr.Tensor:
        calls.append(1)
        return tr.tanh(x) if len(calls) % 2 else tr.exp(x)

    compiled = tr.compile(step)
    compiled(tr.ones(2))
    with pytest.raises(CompileError, match="something else at the second call"):
        compiled(tr.ones(2))


def test_a_constant_that_is_returned_must_stay() -> None:
    count: list[int] = []
    step = tr.compile(lambda x: (x + 1, count.append(1), len(count)))
    step(tr.ones(1))
    with pytest.raises(CompileError, match="the constant 2, which was 1"):
        step(tr.ones(1))
