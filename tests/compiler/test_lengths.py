"""Lengths in an array, and `ctc_loss`: one recording holds for sequences of any lengths, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.compiler.steps import counted, line_of
from tests.profiles import examples
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.tensor import backend

T, B, C, S = 6, 4, 4, 3


class Listener(tr.nn.Module):
    """A recurrent layer and log-probabilities; or the mean over the steps that count, and the last state."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.rnn = getattr(tr.nn, kind)(3, 5, bidirectional=True, **options)
        self.head = tr.nn.Linear(10, C)

    def forward(self, x: Any, lengths: Any) -> Any:
        return tr.log_softmax(self.head(self.rnn(x, lengths=lengths)[0]), axis=-1)

    def last(self, x: Any, lengths: Any) -> Any:
        y, state = self.rnn(x, lengths=lengths)
        h = state[0] if isinstance(state, tuple) else state
        mask = F.sequence_mask(lengths, len(x), batch_first=True)
        return self.head(tr.concatenate([h[-2], h[-1]], axis=-1) + tr.where(mask.T[..., None], y, 0.0).sum(axis=0))


def batches(count: int = 6) -> list[Any]:
    """Sounds, their lengths, labels, and how many: other ones each time."""
    rng, found = np.random.default_rng(1), []
    for _ in range(count):
        lengths, counts = rng.integers(1, T + 1, B), rng.integers(0, S + 1, B)
        x = rng.standard_normal((T, B, 3)).astype("f")
        x[np.arange(T)[:, None] >= lengths] = np.nan
        found.append((tr.Tensor(x), lengths, rng.integers(1, C, (B, S)), counts))
    return found


def trained(compiled: bool, loss: Any, kind: str, **options: Any) -> list[Any]:
    """Losses and parameters; compiled, the step has run twice."""
    tr.manual_seed(3)
    model = Listener(kind, **options)
    adam = tr.optim.Adam(model.parameters(), lr=0.01)

    def step(*args: Any) -> tr.Tensor:
        value = loss(model, *args)
        adam.zero_grad()
        value.backward()
        adam.step()
        return value

    recorded, ran = counted(step)
    losses = [(recorded if compiled else step)(*args).item() for args in batches()]
    assert len(ran) == (2 if compiled else 0) and np.isfinite(losses).all()
    return [losses, *(p.numpy().tobytes() for p in model.parameters())]


def spoken(model: Any, x: Any, lengths: Any, targets: Any, counts: Any) -> tr.Tensor:
    return F.ctc_loss(model(x, lengths), targets, lengths, counts, zero_infinity=True)


def said(model: Any, x: Any, lengths: Any, targets: Any, counts: Any) -> tr.Tensor:
    return F.cross_entropy(model.last(x, lengths), counts)


OPTIONS: list[dict[str, Any]] = [
    {"kind": "RNN"},
    {"kind": "LSTM"},
    {"kind": "GRU"},
    {"kind": "GRU", "fused": False},
    {"kind": "LSTM", "num_layers": 2, "dropout": 0.3},
    {"kind": "LSTM", "layer_norm": True, "recurrent_dropout": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("loss", [spoken, said])
@pytest.mark.parametrize("numba", [False, True])
def test_one_recording_holds_for_all_lengths(loss: Any, numba: bool, options: dict[str, Any]) -> None:
    before = backend.stages
    if numba:
        pytest.importorskip("numba")
        tr.enable_numba()
    try:
        assert trained(True, loss, **options) == trained(False, loss, **options)
    finally:
        backend.use_stages(before)


def test_with_all_kernels_off() -> None:
    tr.enable_fused(False)
    try:
        assert trained(True, spoken, "GRU") == trained(False, spoken, "GRU")
    finally:
        tr.enable_fused(True)


@given(batch_first=st.booleans(), T=st.integers(0, 4), B=st.integers(1, 3))
@examples(dev=10, ci=20, thorough=100)
def test_a_mask_of_lengths(batch_first: bool, T: int, B: int) -> None:
    step = tr.compile(lambda n: F.sequence_mask(n, T, batch_first=batch_first))
    for seed in range(3):
        n = np.random.default_rng(seed).integers(1, T + 1, B) if T else np.ones(0, int)
        expected = np.arange(T)[:, None] < n
        assert np.array_equal(step(n).numpy(), expected.T if batch_first else expected)


@pytest.mark.parametrize(
    ("k", "value", "message"),
    [
        (1, 0, r"LSTM: lengths\[2\] is 0, but a sequence has at least one step"),
        (1, T + 1, rf"LSTM: lengths\[2\] is {T + 1}, but the input has {T} steps"),
        (2, C, rf"ctc_loss: target {C} of entry 0 of the batch \(at 2\) is out of range"),
        (2, 0, r"ctc_loss: target 0 of entry 0 .* is the blank"),
        (3, S + 1, rf"ctc_loss: target_lengths\[2\] is {S + 1}, but targets \({B}, {S}\) have room"),
    ],
)
def test_each_replay_looks_at_them(k: int, value: int, message: str) -> None:
    model = Listener("LSTM")
    step, ran = counted(lambda *args: spoken(model, *args).detach())
    for args in batches():
        step(*args)
    args = [tr.zeros(T, B, 3), np.full(B, T), np.ones((B, S), int), np.full(B, S)]
    assert np.isfinite(step(*args).item())
    args[k] = args[k].copy()
    args[k].reshape(-1)[2] = value
    with pytest.raises(ValueError, match=message):
        step(*args)
    assert len(ran) == 2


def test_targets_one_after_the_other_are_refused() -> None:
    def step(x: Any, targets: Any, counts: Any) -> Any:
        return F.ctc_loss(x, targets, [3, 3], counts)  # here

    args = tr.zeros(3, 2, 3), np.array([1, 2, 1]), np.array([1, 2])
    with pytest.raises(CompileError, match=f"{line_of(step, '# here')}: ctc_loss of targets .* pass them padded"):
        tr.compile(step)(*args)
    steady = tr.compile(lambda x: step(x, [1, 2, 1], [1, 2]))
    assert [steady(args[0]).item() for _ in range(3)] == [step(*args).item()] * 3
