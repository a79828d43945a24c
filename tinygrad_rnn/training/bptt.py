"""Truncated back-propagation through time, with one stated meaning.

    tbptt(k1, k2): after every k1 steps, a backward of the losses of these k1 steps through the last k2 steps

    k1 = 2, k2 = 4      losses of steps      go back to the beginning of step
                            1 2                  1
                            3 4                  1
                            5 6                  3
                            7 8                  5

Each loss is taken once, and reaches back over k2 - k1 to k2 - 1 steps before its own (Williams and Peng, "An efficient
gradient-based algorithm for on-line training of recurrent network trajectories", 1990, call it BPTT(h; h')). With
k1 = k2 it is what cutting a sequence into chunks and detaching the state between them does. With k2 at least the
number of steps it is full back-propagation through time, exactly, as long as the weights stay as they are.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.scalars import as_integer
from tinygrad_rnn.tensor.backend import is_floating
from tinygrad_rnn.tensor.tensor import Tensor


def tbptt(
    step: Callable[[Any, Any], tuple[Tensor | None, Any]],
    inputs: Iterable[Any],
    state: Any,
    k1: int,
    k2: int,
    update: Callable[[], object] | None = None,
) -> tuple[float, Any]:
    """Run `loss, state = step(x, state)` over `inputs`, and add to the gradients as `tbptt(k1, k2)` says.

    A loss is a scalar, or None where there is none; a state is a tensor, None, or tuples of such, as an RNN or an
    LSTM has it. After each backward `update()` is called: an optimiser's `step` and `zero_grad`, say. It may change
    the weights: gradients through earlier steps are then those of the weights that these steps were run with.
    Fewer than k1 steps at the end get a backward that goes back as far as if they were complete. If `state` requires
    a gradient it gets one, from the backwards that reach it. Returns the sum of the losses, and the state after the
    last step, detached.

    Memory holds the graphs of the last k2 steps. Raises InputError unless 1 <= k1 <= k2.

    A recurrence without inputs, small enough for paper: x_t = w x_{t-1} with w = 0.2 and x_0 = 0.9, and each x_t
    asked for its derivative. dx_3/dw = 3 w² x_0 = 0.108. It is the sum over the three uses of w in

        x_2 + w x_1 + w² x_0 = 0.036 + 0.036 + 0.036

    A program that keeps the gradient which the second backward has left at x_1, w = 0.2, and adds to it, says
    0.036 + 0.036 + (w² + 0.2) x_0 = 0.288 (https://discuss.pytorch.org/t/15500).

    >>> import numpy as np
    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.Parameter(np.array(0.2))
    >>> def step(_, x):
    ...     x = w * x
    ...     return x, x
    >>> def show():
    ...     print(round(w.grad.item(), 9))
    ...     w.grad = None
    >>> total, x_3 = tbptt(step, range(3), tr.Tensor(np.array(0.9)), k1=1, k2=3, update=show)
    0.9
    0.36
    0.108
    >>> round(x_3.item(), 9)
    0.0072

    With k2 = 2 the third goes through two steps only, 0.036 + 0.036, x_1 being a constant to it:

    >>> _ = tbptt(step, range(3), tr.Tensor(np.array(0.9)), k1=1, k2=2, update=show)
    0.9
    0.36
    0.072
    """
    every, back = as_integer(k1), as_integer(k2)
    if every is None or back is None or not 1 <= every <= back:
        raise InputError(f"tbptt: k1 and k2 must be whole numbers with 1 <= k1 <= k2, not {k1} and {k2}")
    k1, k2 = every, back
    size = math.gcd(k1, k2)  # steps between two places where a backward can begin or end
    segments: deque[_Segment] = deque(maxlen=k2 // size)
    initial, total, count = state, 0.0, 0

    def backward(end: int) -> None:
        """That of the chunk which ends, or would end if it were complete, after step number `end`."""
        begin = 0 if count <= k2 else end - k2
        _backward([s for s in segments if s.at >= begin], None if begin else initial, retain=k2 > k1)
        if update:
            update()

    for x in inputs:
        if count % size == 0:
            segments.append(_Segment(count, state))
            state = segments[-1].start
        newest = segments[-1]
        loss, state = step(x, state)
        newest.end = state
        if loss is not None:
            newest.loss = loss if newest.loss is None else newest.loss + loss
            total += loss.item()
        count += 1
        if count % k1 == 0:
            backward(count)
    if count % k1:
        backward(count + k1 - count % k1)
    return total, _map(Tensor.detach, state)


class _Segment:
    """Some steps with a graph of their own: `start` are leaves in the place of the state before, `end` the state after
    and `loss` what no backward has taken yet.
    """

    def __init__(self, at: int, before: Any) -> None:
        self.at = at
        self.start = _map(_leaf, before)
        self.end: Any = None
        self.loss: Tensor | None = None


def _backward(segments: Sequence[_Segment], initial: Any, retain: bool) -> None:
    """From the newest segment to the oldest, each handing the gradients at its start to the end of the one before.

    `initial` is the state before all steps if the oldest segment begins there, else None.
    """
    gradients: list[Tensor | None] = []
    for segment in reversed(segments):
        _pull(segment.loss, _parts(segment.end), gradients, retain)
        segment.loss = None
        gradients = []
        for leaf in _parts(segment.start):
            gradients.append(leaf.grad)
            leaf.grad = None  # or else the next backward through here would add to it
    _pull(None, _parts(initial), gradients, retain=True)


def _pull(loss: Tensor | None, ends: Sequence[Tensor], gradients: Sequence[Tensor | None], retain: bool) -> None:
    """One backward from a loss and from tensors whose gradients are known."""
    root = loss
    for end, g in zip(ends, gradients, strict=False):  # there may be no end, or no gradient yet
        if g is not None and end.requires_grad:
            part = (end * g).sum()  # whose derivative by `end` is g
            root = part if root is None else root + part
    if root is not None and root.requires_grad:
        root.backward(retain_graph=retain)


def _leaf(x: Tensor) -> Tensor:
    leaf = x.detach()
    leaf.requires_grad = is_floating(x.dtype)
    return leaf


def _map(f: Callable[[Tensor], Tensor], state: Any) -> Any:
    if isinstance(state, tuple | list):
        return type(state)(_map(f, part) for part in state)
    return None if state is None else f(state)


def _parts(state: Any) -> list[Tensor]:
    if isinstance(state, tuple | list):
        return [x for part in state for x in _parts(part)]
    return [] if state is None else [state]
