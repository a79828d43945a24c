"""The kernel of connectionist temporal classification; `nn/ctc.py` says what it computes and draws the trellis."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_rnn.kernels.stages import numba_stages
from tinygrad_rnn.tensor.backend import Array, namespace
from tinygrad_rnn.tensor.effects import effects
from tinygrad_rnn.tensor.mode import replayed


def _arrivals(alpha: Array, closed: Array, moves: Array) -> tuple[Array, Array]:
    """For each state the best of three ways to it (U, B), and the sum of all relative to that, which is written to
    `moves` (3, U, B): stay, go, skip. `closed` (U, B) is -inf where one may not skip. Where there is no way, the best
    is -inf, the moves are 0 and the sum is 1.
    """
    xp = namespace(alpha)
    moves[0] = alpha[2:]
    moves[1] = alpha[1:-1]
    xp.add(alpha[:-2], closed, out=moves[2])
    best = xp.max(moves, axis=0)
    moves -= xp.maximum(best, xp.finfo(best.dtype).min)
    xp.exp(moves, out=moves)
    return best, xp.maximum(xp.sum(moves, axis=0), 1)


def _places(states: Array, C: int) -> Array:
    """Where the classes (U, B) stand in a row of (T, B * C)."""
    xp = namespace(states)
    return (states + C * xp.arange(states.shape[1])).reshape(-1)


def _prepared(log_p: Array, skips: Array) -> tuple[Array, Array]:
    """`closed` and room for `moves`, as `_arrivals` wants them."""
    xp = namespace(log_p)
    closed = xp.where(skips, 0.0, -math.inf).astype(log_p.dtype)
    return closed, xp.empty((3, *skips.shape), dtype=log_p.dtype)


def _used(counts: Array) -> int:
    """How many states the longest labelling has."""
    return 2 * max(counts.tolist(), default=0) + 1


def ctc_forward(log_p: Array, *, states: Array, skips: Array, steps: Array, counts: Array) -> Array:
    """The forward variables alpha (T + 1, U + 2, B) of log_p (T, B, C).

    The batch stands last, so that a step to the next state keeps rows whole.
    """
    xp = namespace(log_p)
    T, B, _ = log_p.shape
    y: Array = xp.empty((T + 1, states.shape[0] + 2, B), dtype=log_p.dtype)
    write_alphas(y, log_p, states, skips, steps, counts)
    return y


def ctc_vjp(
    g: Array,
    y: Array,
    needs: tuple[bool, ...],
    log_p: Array,
    *,
    states: Array,
    skips: Array,
    steps: Array,
    counts: Array,
) -> tuple[Array]:
    """The gradient of log_p: backwards, each state passes what it was given on to those it was entered from."""
    dx: Array = namespace(log_p).empty(log_p.shape, dtype=log_p.dtype)
    write_slopes(dx, g, y, log_p, states, skips, steps, counts)
    return (dx,)


# Both are one call for `tr.compile`, since how many steps and states they go through depends on values.


@replayed(changes="nothing")
@effects(writes=["y"])
def write_alphas(y: Array, log_p: Array, states: Array, skips: Array, steps: Array, counts: Array) -> None:
    """Write the forward variables; -inf for the states that no labelling has."""
    xp = namespace(log_p)
    T, B, C = log_p.shape
    U, first, stops = _used(counts), min(steps.tolist(), default=0), xp.asarray(steps)
    states, skips = states[:U], skips[:U]
    y[...] = -math.inf
    y[0, 2] = 0
    if stages := numba_stages(y, log_p):
        stages.ctc_alphas(y, log_p, states, skips, xp.astype(stops, xp.int64))
        return
    spoken = xp.take(log_p.reshape(T, B * C), _places(states, C), axis=1).reshape(T, U, B)
    closed, moves = _prepared(log_p, skips)
    before: Array = xp.full((U + 2, B), -math.inf, dtype=log_p.dtype)
    before[2] = 0
    for t in range(T):
        best, total = _arrivals(before, closed, moves)
        xp.log(total, out=total)
        total += best
        total += spoken[t]
        before[2:] = total if t < first else xp.where(stops > t, total, before[2:])
        y[t + 1, 2 : U + 2] = before[2:]


@replayed(changes="nothing")
@effects(writes=["dx"])
def write_slopes(
    dx: Array, g: Array, y: Array, log_p: Array, states: Array, skips: Array, steps: Array, counts: Array
) -> None:
    """Write the gradient of log_p, from `g`, that of all forward variables y."""
    xp = namespace(log_p)
    T, B, C = log_p.shape
    U, first, stops = _used(counts), min(steps.tolist(), default=0), xp.asarray(steps)
    states, skips = states[:U], skips[:U]
    dx[...] = 0
    if stages := numba_stages(dx, g, y):
        room = xp.empty((2, U + 2, log_p.shape[1]), dtype=dx.dtype)
        stages.ctc_slopes(dx, g, y, states, skips, xp.astype(stops, xp.int64), room)
        return
    g = g[:, : U + 2]
    closed, moves = _prepared(log_p, skips)
    given = xp.empty((T, U, B), dtype=log_p.dtype)  # of a loss: minus the probability of being there at that step
    d = g[T]
    for t in range(T - 1, -1, -1):
        here: Any = d[2:]
        rest: Any = 0
        if t >= first:
            here, rest = xp.where(stops > t, here, 0), xp.where(stops > t, 0, d)
        given[t] = here
        _, total = _arrivals(y[t, : U + 2], closed, moves)
        moves *= here / total
        d = g[t] + rest
        d[2:] += moves[0]
        d[1:-1] += moves[1]
        d[:-2] += moves[2]
    # A class may have many states. Each of them gets the sum of all, so that writing twice to a place writes the same.
    same = (states.T[:, :, None] == states.T[:, None, :]).astype(log_p.dtype)
    rows = xp.permute_dims(given, (2, 0, 1)).reshape(B * T, U)  # a copy: BLAS wants whole rows
    sums = xp.matmul(rows.reshape(B, T, U), same)
    dx.reshape(T, B * C)[:, _places(states, C)] = xp.permute_dims(sums, (1, 2, 0)).reshape(T, U * B)
