"""What differs between two recordings of a step is an error with its line."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.compiler.alike import alike
from tests.compiler.steps import line_of
from tinygrad_rnn.errors import CompileError


def test_a_constant_that_differs_is_refused_with_its_line() -> None:
    count = itertools.count(1)

    def step(x: tr.Tensor) -> tr.Tensor:
        y = x + 1
        return y * (0.5 * next(count))  # here

    compiled = tr.compile(step)
    compiled(tr.ones(2))
    with pytest.raises(CompileError, match=r"1\.0, which was 0\.5") as caught:
        compiled(tr.ones(2))
    assert line_of(step, "# here") in str(caught.value)

    noisy = tr.compile(lambda x: x + np.full(2, next(count)))
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
    calls = itertools.count()

    def step(x: tr.Tensor) -> tr.Tensor:
        return tr.tanh(x) if next(calls) % 2 else tr.exp(x)

    compiled = tr.compile(step)
    compiled(tr.ones(2))
    with pytest.raises(CompileError, match="something else at the second call"):
        compiled(tr.ones(2))


def test_a_constant_that_is_returned_must_stay() -> None:
    count = itertools.count(1)
    step = tr.compile(lambda x: (x + 1, next(count)))
    step(tr.ones(1))
    with pytest.raises(CompileError, match="the constant 2, which was 1"):
        step(tr.ones(1))


def test_a_table_that_the_first_call_fills_is_there_from_the_second_on() -> None:
    class Positions(tr.nn.Module):
        def __init__(self) -> None:
            self.w, self.table = tr.nn.Parameter([1.0, 2.0]), {}

        def forward(self, x: tr.Tensor) -> tr.Tensor:
            if len(x) not in self.table:
                self.table[len(x)] = tr.arange(len(x)).astype("float32")
            return (self.w * x).detach() + self.table[len(x)].sum()

    def run(compiled: Any) -> Any:
        module = Positions()
        step = compiled(lambda x: module(x))
        return [step(tr.ones(n, 2) * k) for k, n in enumerate([2, 2, 2, 3, 2, 3, 3, 3, 3])]

    alike(run)
    history: list[int] = []
    step = tr.compile(lambda x: x * len(history.append(1) or history))
    with pytest.raises(CompileError, match="which was"):
        for _ in range(3):
            step(tr.ones(1))
