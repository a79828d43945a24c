"""Truncated back-propagation through time: its laws, and a naive reference that computes everything anew."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn import nn
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.training import tbptt

B, H = 2, 4
INPUTS = 3


class Problem:
    """A layer or a cell run step by step, with a loss at every step but each fifth; weights that are the same twice."""

    def __init__(self, kind: str, seed: int) -> None:
        tr.manual_seed(seed)
        make = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(kind)
        self.layer = make(INPUTS, H).to("float64") if make else nn.LSTM(INPUTS, H, num_layers=2).to("float64")
        self.head = nn.Linear(H, 1).to("float64")
        self.cell = bool(make)
        shape = (B, H) if self.cell else (2, B, H)
        state = [tr.randn(*shape, dtype="float64") for _ in range(1 if kind in ("rnn", "gru") else 2)]
        for part in state:
            part.requires_grad = True
        self.state: Any = state[0] if len(state) == 1 else tuple(state)
        self.parameters = [*self.layer.parameters(), *self.head.parameters(), *state]

    def inputs(self, T: int) -> list[tuple[int, tr.Tensor]]:
        return [(t, tr.randn(B, INPUTS, dtype="float64")) for t in range(T)]

    def step(self, given: tuple[int, tr.Tensor], state: Any) -> tuple[tr.Tensor | None, Any]:
        t, x = given
        if self.cell:
            state = self.layer(x, state)
            h = state[0] if isinstance(state, tuple) else state
        else:
            output, state = self.layer(tr.reshape(x, (1, B, INPUTS)), state)
            h = output[0]
        return (None if t % 5 == 4 else tr.square(self.head(h)).sum()), state

    def gradients(self) -> list[np.ndarray]:
        found = [np.zeros(p.shape) if p.grad is None else p.grad.numpy() for p in self.parameters]
        for p in self.parameters:
            p.grad = None
        return found


def map_state(f: Callable[[tr.Tensor], tr.Tensor], state: Any) -> Any:
    return tuple(map(f, state)) if isinstance(state, tuple) else f(state)


def parts(state: Any) -> tuple[tr.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def naive(problem: Problem, inputs: list[Any], k1: int, k2: int) -> list[list[np.ndarray]]:
    """The gradients of each backward: run up to its beginning without a graph, from there with one."""
    found, T = [], len(inputs)
    for end in range(k1, T + k1, k1):
        begin = max(0, end - k2) if k2 < T else 0
        state = problem.state
        if begin:
            with tr.no_grad():
                for x in inputs[:begin]:
                    _, state = problem.step(x, state)
            state = map_state(tr.Tensor.detach, state)
        losses = []
        for t in range(begin, min(end, T)):
            loss, state = problem.step(inputs[t], state)
            if t >= end - k1 and loss is not None:
                losses.append(loss)
        if losses:
            sum(losses).backward()
        found.append(problem.gradients())
    return found


def close(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-13 * max(1.0, np.abs(y).max(initial=0)))


KINDS = st.sampled_from(["rnn", "lstm", "gru", "layers"])


@examples(dev=40, ci=80, thorough=400)
@given(KINDS, st.integers(0, 14), st.integers(1, 6), st.integers(0, 9), st.integers(0, 999))
def test_each_backward_is_that_of_the_naive_reference(kind: str, T: int, k1: int, more: int, seed: int) -> None:
    problem = Problem(kind, seed)
    inputs, found = problem.inputs(T), []
    total, state = tbptt(problem.step, inputs, problem.state, k1, k1 + more, lambda: found.append(problem.gradients()))
    expected = naive(problem, inputs, k1, k1 + more)
    assert len(found) == len(expected) == -(-T // k1)
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    whole, last = 0.0, problem.state
    for x in inputs:
        loss, last = problem.step(x, last)
        whole += 0.0 if loss is None else loss.item()
    assert total == whole
    for x, y in zip(parts(state), parts(last), strict=True):
        np.testing.assert_array_equal(x.numpy(), y.detach().numpy())
        assert not x.requires_grad


@examples(dev=20, ci=40, thorough=200)
@given(KINDS, st.integers(1, 12), st.integers(1, 6), st.integers(0, 5), st.integers(0, 999))
def test_k2_of_at_least_all_steps_is_full_bptt(kind: str, T: int, k1: int, more: int, seed: int) -> None:
    problem = Problem(kind, seed)
    inputs = problem.inputs(T)
    tbptt(problem.step, inputs, problem.state, k1, max(k1, T) + more)
    truncated = problem.gradients()
    loss, state = tr.zeros((), dtype="float64"), problem.state
    for x in inputs:
        of_step, state = problem.step(x, state)
        loss = loss if of_step is None else loss + of_step
    loss.backward()
    close(truncated, problem.gradients())


@examples(dev=20, ci=40, thorough=200)
@given(KINDS, st.integers(1, 12), st.integers(1, 6), st.integers(0, 999))
def test_k1_equal_to_k2_is_detaching_between_chunks(kind: str, T: int, k: int, seed: int) -> None:
    problem = Problem(kind, seed)
    inputs, found, expected = problem.inputs(T), [], []
    tbptt(problem.step, inputs, problem.state, k, k, lambda: found.append(problem.gradients()))
    state = problem.state
    for start in range(0, T, k):
        losses = []
        for x in inputs[start : start + k]:
            loss, state = problem.step(x, state)
            losses += [] if loss is None else [loss]
        if losses:
            sum(losses).backward()
        expected.append(problem.gradients())
        state = map_state(tr.Tensor.detach, state)
    for a, b in zip(found, expected, strict=True):
        close(a, b)


def test_memory_holds_the_last_k2_steps_only() -> None:
    w = nn.Parameter(np.ones(40_000))

    def step(x: Any, h: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
        h = tr.tanh(h * w)
        return h.sum(), h

    def peak(T: int) -> int:
        tracemalloc.start()
        try:
            tbptt(step, range(T), tr.Tensor(np.ones(40_000)), k1=2, k2=6)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(12)
    assert peak(120) < 1.1 * peak(12)


def test_weights_may_change_between() -> None:
    """A learner that steps after every backward: the graphs of earlier steps are still those that were run."""
    problem = Problem("lstm", 1)
    adam = tr.optim.Adam(problem.parameters[:-2], lr=0.01)

    def update() -> None:
        adam.step()
        adam.zero_grad()

    inputs = problem.inputs(40)
    first, _ = tbptt(problem.step, inputs, problem.state, 2, 6, update)
    for _ in range(5):
        last, _ = tbptt(problem.step, inputs, problem.state, 2, 6, update)
    assert last < 0.7 * first


@pytest.mark.parametrize(("k1", "k2"), [(0, 1), (3, 2), (-1, 4)])
def test_numbers_out_of_range(k1: int, k2: int) -> None:
    with pytest.raises(InputError, match="1 <= k1 <= k2"):
        tbptt(lambda x, state: (None, state), [], None, k1, k2)


def test_numbers_of_numpy_are_numbers() -> None:
    total, last = tbptt(lambda x, state: (None, state + x), range(7), tr.zeros(1), np.int64(2), np.uint8(4))
    assert (total, last.item()) == (0.0, 21.0)
    with pytest.raises(InputError, match="1 <= k1 <= k2"):
        tbptt(lambda x, state: (None, state), [], None, 1.5, 2)
