"""Connectionist temporal classification: the loss of a sequence of labels whose times are not given.

At each of T steps a network says one of C classes: a label, or *blank*, which is silence. What it says is an alignment
of a labelling if that is left when repeats are joined and blanks dropped: `aa-ab`, `a-ab-` and `-a-ab` all say `aab`.
The probability of a labelling is the sum over all its alignments, and they are summed by walking through a trellis
(A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist temporal classification", ICML 2006):

    step         0   1   2   3   4          states: the labels with blanks around them
                                            moves from one step to the next:
    state 0  -   o---o---o   .   .            stay in the state,
    state 1  a   o---o---o---o   .            go on to the next,
    state 2  -   .   o---o---o   .            skip a blank between two labels that differ
    state 3  b   .   o---o---o---o          a path begins in one of the first two states
    state 4  -   .   .   o---o---o          and ends in one of the last two

`alpha[t, s]` is the log-probability of being in state s after t steps, summed over all ways there. The derivative
walks the same trellis backwards: of the paths through a state, what share came by which move? A share is a softmax
over at most three numbers, so nothing overflows, and the shares of each step add up to the whole.

`forward_variables` has the equation in ops, which is what it means, and a kernel, which is how it is fast: it takes
one loop over the steps, with all sequences and all states side by side.
"""

from __future__ import annotations

import math

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.kernels.ctc import ctc_forward, ctc_vjp
from tinygrad_rnn.nn.checks import beside, check_counts
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import Array, namespace, zeros_beside
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.mode import active_tape, replayed
from tinygrad_rnn.tensor.tensor import Tensor, box


def labelling_losses(log_p: Tensor, labels: Array, steps: Array, counts: Array, blank: int) -> Tensor:
    """Minus the log-probability of each labelling, (B,): `inf`, with a gradient of 0, of one that has no alignment.

    `log_p` (T, B, C) floats. Integers on the host: `labels` (B, S), of which the first `counts` (B,) count, the others
    being `blank`; of the T steps the first `steps` (B,) count.
    """
    xp = namespace(labels, counts)
    B, S = labels.shape
    states = xp.full((2 * S + 1, B), blank, dtype=int)
    states[1::2] = labels.T
    skips = xp.zeros((2 * S + 1, B), dtype=bool)
    skips[3::2] = states[3::2] != states[1:-2:2]  # wrong past a count, whence no path leads back to an end
    ends = 2 * counts + xp.arange(1, 3)[:, None]  # the last two of 2 count + 1 states, after two rows
    states, skips, ends = (beside(log_p, a) for a in (states, skips, ends))
    alpha = forward_variables(log_p, states=states, skips=skips, steps=steps, counts=counts)
    return -ops.logsumexp(ops.take_along_axis(alpha[-1], ends, axis=0), axis=0)


def checked_labels(targets: Array, counts: Array, B: int, C: int, blank: int) -> Array:
    """The targets (B, S), or (N,) one after the other, as labels (B, S) with `blank` past each end; or an error that
    names the entry of the batch. Of (N,) S is the largest count.
    """
    if targets.ndim not in (1, 2) or (targets.ndim == 2 and targets.shape[0] != B):
        raise ShapeError(f"ctc_loss: targets must be ({B}, S), or (N,) one after the other, got shape {targets.shape}")
    room = targets.shape[-1]
    check_counts("target_lengths", counts, B, room, f"targets {targets.shape} have room for 0 to {room}")
    xp = namespace(targets, counts)
    if targets.ndim == 2:
        inside = xp.arange(room) < counts[:, None]
        labels: Array = xp.where(inside, xp.astype(targets, int), blank)
    else:
        inside, labels = _side_by_side(targets, counts, blank)
    check_labels(labels, inside, C, blank)
    return labels


def _side_by_side(targets: Array, counts: Array, blank: int) -> tuple[Array, Array]:
    """Targets (N,) as labels (B, S), and where there are some."""
    tape = active_tape.get()
    if tape is not None and (tape.differs(targets) or tape.differs(counts)):
        raise tape.error(
            "ctc_loss of targets that stand one after the other, in a function that tr.compile records: how they are "
            "cut depends on values; pass them padded, (B, S)"
        )
    total = int(counts.sum())
    if total != targets.shape[0]:
        raise ShapeError(
            f"ctc_loss: target_lengths add up to {total}, but targets (one after the other) are {targets.shape[0]}"
        )
    xp = namespace(targets)
    inside = xp.arange(max(counts.tolist(), default=0)) < counts[:, None]
    labels = xp.full(inside.shape, blank, dtype=int)
    labels[inside] = targets
    return inside, labels


@replayed(changes="nothing")
def check_labels(labels: Array, inside: Array, C: int, blank: int) -> None:
    """Raise `ValueError` naming the first of `labels` (B, S) that is no class, or is blank, `inside` of its entry."""
    wrong = inside & ((labels < 0) | (labels >= C) | (labels == blank))
    if wrong.any():
        b, s = divmod(int(wrong.argmax()), labels.shape[1])
        why = f"is out of range for {C} classes: 0 to {C - 1}"
        if labels[b, s] == blank:
            why = "is the blank, which stands between labels without being asked"
        raise ValueError(f"ctc_loss: target {labels[b, s]} of entry {b} of the batch (at {s}) {why}")


def _forward_variables(log_p: Tensor, *, states: Array, skips: Array, steps: Array, counts: Array) -> Tensor:
    """alpha (T + 1, U + 2, B) of log_p (T, B, C): alpha[t, s + 2, b] = log P(in state s after t steps).

    `states` (U, B) are the classes of the states, `skips` (U, B) tells which may be entered from two before. The two
    rows in front are states that nobody can be in: what stands one or two before the first. Before the first step all
    are in state 0, a blank; after `steps` (B,), on the host, a sequence rests. In states past those of the longest
    labelling, of the `counts` (B,), nobody is.
    """
    T, B, _ = log_p.shape
    xp, stops = namespace(counts), beside(log_p, steps)
    longest = xp.max(counts) if B else 0
    there = beside(log_p, (xp.arange(states.shape[0]) <= 2 * longest)[:, None])
    start = box(zeros_beside(log_p._array, (1, B), log_p.dtype), None)
    alpha = ops.pad(start, ((2, states.shape[0] - 1), (0, 0)), constant_values=-math.inf)
    spoken = ops.take_along_axis(ops.swapaxes(log_p, 1, 2), states[None, ...], axis=1)
    alphas = [alpha]
    for t in range(T):
        stay, go, skip = alpha[2:], alpha[1:-1], ops.where(skips, alpha[:-2], -math.inf)
        runs = stops > t
        here = ops.where(there, spoken[t] + ops.logsumexp(ops.stack([stay, go, skip]), axis=0), -math.inf)
        alpha = ops.where(runs, ops.pad(here, ((2, 0), (0, 0)), constant_values=-math.inf), alpha)
        alphas.append(alpha)
    return ops.stack(alphas)


forward_variables = fused("ctc", _forward_variables, ctc_forward, ctc_vjp)
