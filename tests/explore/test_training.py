"""The training run of the page."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.explore import training
from tinygrad_rnn.explore.network import HalfSquaredErrors, network_of, sequences
from tinygrad_rnn.explore.settings import Settings
from tinygrad_rnn.explore.training import event, run, truncated_loss
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training import tbptt


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("loss", ["last", "every"])
@pytest.mark.parametrize("k2", [1, 2, 4, 5, 6, 64])
def test_the_gradient_is_that_of_tbptt(cell: str, loss: str, k2: int) -> None:
    settings = Settings(cell=cell, steps=6, hidden=3, loss=loss, k2=k2)
    network = network_of(settings)
    x, y = sequences(settings, 5)

    def step(t: int, state: object) -> tuple[Tensor | None, object]:
        output, state = network.layer(Tensor(x[t : t + 1]), state)
        if loss == "last" and t < 5:
            return None, state
        part = HalfSquaredErrors("every")(network.head(output), y[t : t + 1]).sum()
        return part / (6 if loss == "every" else 1), state

    total, _ = tbptt(step, range(6), None, 1, min(k2, 6))
    expected = [parameter.grad.numpy() for parameter in network.parameters()]
    network.zero_grad()
    found = truncated_loss(network, x, y, settings)
    found.backward()
    assert found.item() == pytest.approx(total, rel=1e-12)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert np.allclose(parameter.grad.numpy(), gradient, rtol=1e-11, atol=1e-14)


def test_a_run_learns_where_gradients_reach_and_not_where_they_are_cut_off() -> None:
    for k2, words in ((64, "It has learned to remember."), (2, "It has learned nothing.")):
        *losses, (name, end) = run(Settings(steps=12, k2=k2))
        assert name == "end" and end["sentence"].endswith(words)
        first, last = losses[0][1], losses[-1][1]
        assert first["step"] == 0 and last["step"] == 400 and 0.14 < last["nothing"] < 0.19


def test_a_run_ends_by_the_clock() -> None:
    clock = itertools.count(0, 7.0)
    *losses, (_, end) = run(Settings(steps=2), now=lambda: next(clock))
    assert len(losses) == 1 and end["sentence"].startswith("After 2 steps")


def test_a_run_that_nobody_wants_any_more_ends() -> None:
    wanted = iter([True] * 15)
    events = list(run(Settings(steps=2), is_wanted=lambda: next(wanted, False)))
    assert [(name, told["step"]) for name, told in events] == [("loss", 0), ("loss", 10)]


def test_what_diverges_is_said(monkeypatch) -> None:
    monkeypatch.setattr(training, "RATE", 1e200)
    *_, (name, end) = run(Settings(steps=8, nonlinearity="relu"))
    assert name == "end" and "diverged" in end["sentence"]


def test_an_event_is_never_bad_json() -> None:
    with pytest.raises(ValueError):
        event("loss", {"loss": float("nan")})


def test_a_run_leaves_the_librarys_draws_alone() -> None:
    tr.manual_seed(3)
    expected = tr.randn(2).tolist()
    tr.manual_seed(3)
    list(itertools.islice(run(Settings(steps=2)), 2))
    assert tr.randn(2).tolist() == expected
