"""A whole stretch of a sequence as one node of the graph, for a GPU, where it is asked for in a few calls a step.

`rnn_sequence`, `lstm_sequence` and `gru_sequence` run the equations of `cells` over the projected input x (T, B, G*H)
of all steps, from the last to the first with `reverse`. What they mean is the graph unrolled: it runs where there is no
GPU, and where the derivative is itself differentiated. `runs` (T, B, 1) is 0 where the state of a sequence stays as it
was; `saved` takes what the kernels need on their way back, and may be None where nobody goes back. `precision` is that
of the kernels' products (`nn/precision.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_rnn.kernels import sequences as kernels
from tinygrad_rnn.kernels.cuda import has_cuda_kernels
from tinygrad_rnn.kernels.sequences import Saved
from tinygrad_rnn.nn.cells import gru_cell, lstm_cell, rnn_cell
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.fused import fused, fused_enabled
from tinygrad_rnn.tensor.mode import is_recording
from tinygrad_rnn.tensor.tensor import Tensor

States = tuple[Tensor, ...]


def run_as_one(*arrays: Tensor | None) -> bool:
    """Whether the steps over these, the input, the states and the weights, are to be one node: on a GPU."""
    return fused_enabled() and has_cuda_kernels(*(x._array for x in arrays if x is not None))


def to_save() -> Saved | None:
    """Where kernels save what the way back needs; None where there is none."""
    return Saved() if is_recording() else None


def kept(new: States, before: States, runs: Array | None, t: int) -> States:
    """The states after step t: those `before` it of the sequences that have ended, or have not begun."""
    if runs is None:
        return new
    return tuple(ops.where(runs[t, ...] > 0, a, b) for a, b in zip(new, before, strict=True))


def _unrolled(
    x: Tensor, states: States, step: Callable[..., States], reverse: bool, runs: Array | None
) -> tuple[list[Tensor], States]:
    """The first of the states after each step, in the order of time, and all of them after the last."""
    times = range(x.shape[0])
    outputs = []
    for t in reversed(times) if reverse else times:
        states = kept(step(x[t], *states), states, runs, t)
        outputs.append(states[0])
    return outputs[::-1] if reverse else outputs, states


def _stacked(outputs: list[Tensor], x: Tensor, h: Tensor) -> Tensor:
    return ops.stack(outputs) if outputs else x[..., : h.shape[-1]]


def _rnn_plain(
    x: Tensor,
    h: Tensor,
    W: Tensor,
    *,
    nonlinearity: str,
    reverse: bool = False,
    runs: Array | None = None,
    precision: str = "float32",
) -> Tensor:
    """The states (T, B, H) of `rnn_cell` over x (T, B, H), from h (B, H)."""
    outputs, _ = _unrolled(x, (h,), lambda x, h: (rnn_cell(x, h, W, nonlinearity=nonlinearity),), reverse, runs)
    return _stacked(outputs, x, h)


def _lstm_plain(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    W: Tensor,
    *,
    reverse: bool = False,
    runs: Array | None = None,
    saved: Saved | None = None,
    precision: str = "float32",
) -> Tensor:
    """The states h of `lstm_cell` over x (T, B, 4H), from h and c (B, H), and below them the last c: (T + 1, B, H)."""
    outputs, (_, c) = _unrolled(x, (h, c), lambda x, h, c: lstm_cell(x, h, c, W), reverse, runs)
    return ops.stack([*outputs, c])


def _gru_plain(
    x: Tensor,
    h: Tensor,
    W: Tensor,
    b: Tensor | None,
    *,
    reverse: bool = False,
    runs: Array | None = None,
    saved: Saved | None = None,
    precision: str = "float32",
) -> Tensor:
    """The states (T, B, H) of `gru_cell` over x (T, B, 3H), from h (B, H)."""
    outputs, _ = _unrolled(x, (h,), lambda x, h: (gru_cell(x, h, W, b),), reverse, runs)
    return _stacked(outputs, x, h)


def _fits(arrays: Sequence[Any]) -> bool:
    return has_cuda_kernels(*arrays)


rnn_sequence = fused("rnn_sequence", _rnn_plain, kernels.rnn_forward, kernels.rnn_vjp, _fits)
lstm_sequence = fused("lstm_sequence", _lstm_plain, kernels.lstm_forward, kernels.lstm_vjp, _fits)
gru_sequence = fused("gru_sequence", _gru_plain, kernels.gru_forward, kernels.gru_vjp, _fits)
