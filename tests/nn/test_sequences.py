"""What a stretch of a sequence means, as one op: the graph that a layer unrolls on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.reference import assert_close
from tinygrad_rnn.kernels.sequences import Saved
from tinygrad_rnn.nn import cells, sequences

KINDS = ("rnn", "lstm", "gru")
each_kind = pytest.mark.parametrize("kind", KINDS)


def operands(kind: str, T: int, B: int = 3, H: int = 2) -> tuple[list[tr.Tensor], dict[str, Any]]:
    """The projected input, the states, the weight and, for a GRU, the bias, and what else the op is told."""
    G = {"rnn": 1, "lstm": 4, "gru": 3}[kind]
    rng = np.random.default_rng(0)
    shapes = [(T, B, G * H), (B, H), *[(B, H)] * (kind == "lstm"), (G * H, H), *[(H,)] * (kind == "gru")]
    options: dict[str, Any] = {"nonlinearity": "tanh"} if kind == "rnn" else {}
    return [tr.Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes], options


@each_kind
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_stretch_is_its_steps(kind: str, masked: bool, reverse: bool) -> None:
    xs, options = operands(kind, T=4)
    runs = np.random.default_rng(1).integers(0, 2, (4, 3, 1)) * 1.0 if masked else None
    saved = {} if kind == "rnn" else {"saved": sequences.to_save()}
    y = getattr(sequences, f"{kind}_sequence")(*xs, reverse=reverse, runs=runs, **options, **saved)
    step, packed, rows = getattr(cells, f"{kind}_step"), xs[1], {}
    if kind != "rnn":
        packed = tr.stack(xs[1:3]) if kind == "lstm" else tr.expand_dims(xs[1], 0)
    rest = xs[3:] if kind == "lstm" else xs[2:]
    for t in reversed(range(4)) if reverse else range(4):
        packed = step(xs[0], packed, *rest, t=t, runs=runs, **options)
        rows[t] = packed if kind == "rnn" else packed[-2 if kind == "lstm" else -1]
    expected = tr.stack([*(rows[t] for t in range(4)), *([packed[-1]] if kind == "lstm" else [])])
    weights = np.random.default_rng(2).standard_normal(y.shape)
    ours, theirs = (tr.grad(tr.sum(out * weights), xs) for out in (y, expected))
    for a, b in zip([y, *ours], [expected, *theirs], strict=True):
        assert_close(a.numpy(), b.numpy())


@each_kind
def test_no_steps(kind: str) -> None:
    xs, options = operands(kind, T=0)
    y = getattr(sequences, f"{kind}_sequence")(*xs, **options)
    assert y.shape == (int(kind == "lstm"), 3, 2)
    if kind == "lstm":
        assert y[0].tolist() == xs[2].tolist()  # the cells that it began with


def test_what_is_saved_is_no_option_of_the_graph() -> None:
    """It is filled by kernels, which do not run here."""
    xs, _ = operands("lstm", T=2)
    saved = Saved()
    sequences.lstm_sequence(*xs, saved=saved)
    assert saved.gates is saved.cells is None
