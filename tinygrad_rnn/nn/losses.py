"""Losses, as functions.

Every loss has `reduction`, "mean", "sum" or "none", and `mask`: booleans, True where an element counts, of the shape of
the unreduced losses or of its first axes: a mask (T, B) from `sequence_mask` fits losses (T, B) and (T, B, F). What the
mask leaves out adds 0 and gets a gradient of exactly 0, even where the input or the target is NaN; "mean" is over what
counts, and 0 if nothing does. Losses of class ids have `ignore_index`, too.

A loss of float16 is computed in float32, its sum or mean over many rows included, and is float16 only as a result.
"""

from __future__ import annotations

import math
from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.kernels.cross_entropy import cross_entropy_forward, cross_entropy_vjp, row_peaks
from tinygrad_rnn.kernels.cuda import has_cuda_kernels
from tinygrad_rnn.kernels.cuda.training import Targets
from tinygrad_rnn.kernels.cuda.training import cross_entropy_forward as cuda_forward
from tinygrad_rnn.kernels.cuda.training import cross_entropy_vjp as cuda_vjp
from tinygrad_rnn.nn import ctc
from tinygrad_rnn.nn.checks import (
    as_tensor,
    beside,
    check_counts,
    check_number,
    check_one_of,
    check_range,
    integer_ids,
    loss_mask,
    out_of_range,
)
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.device import is_on_device
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.mode import active_tape
from tinygrad_rnn.tensor.op import in_float32
from tinygrad_rnn.tensor.ops.arithmetic import multiply_no_nan
from tinygrad_rnn.tensor.tensor import Tensor, box


def _rows(x: Tensor, *, targets: Array, keep: Array, label_smoothing: float) -> Tensor:
    """For each row of logits x (N, C): its loss (0 where `keep` is False), its peak, and Σ exp(x - peak) (1 where that
    is 0), as one array (3, N); only the loss has a derivative.

    The loss is log Σ exp(x) - x_t, of distances from the peak. Where those of the target t are small, it is
    log(1 + Σ exp(x_j - x_t)) over the other classes j, which keeps the digits of a loss near 0.
    """
    xp = backend.namespace(x._array)
    peak = box(row_peaks(x._array), None)
    z = x - peak
    own = ops.take_along_axis(z, targets[:, None], axis=-1)[:, 0]
    others = ops.sum(ops.where(xp.arange(x.shape[1]) == targets[:, None], 0.0, ops.exp(z)), axis=-1)
    total = (others + ops.exp(own)).detach()
    logarithm = ops.where(total == 0, 0.0, ops.logsumexp(z, axis=-1))
    small = ops.log1p(others * ops.exp(-ops.clip(own, -1.0, 0.0)))
    loss = ops.where(ops.abs(own) < 1, small, logarithm - own)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * (logarithm - ops.mean(z, axis=-1))
    return ops.stack([ops.where(keep, loss, 0.0), peak[:, 0], ops.where(total == 0, 1.0, total)])


cross_entropy_rows = fused("cross_entropy", _rows, cross_entropy_forward, cross_entropy_vjp)


@in_float32
def cross_entropy(
    logits: Tensor,
    targets: Any,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    mask: Any = None,
) -> Tensor:
    """Minus the log of the probability that softmax(logits) gives to the targets.

    `logits` (..., C) has the classes on its **last** axis, whatever stands before: (N, C), or (T, B, C) for
    a sequence. `targets` (...) are the integer ids of the classes. (PyTorch wants the classes on axis 1: (N,
    C, T). For (N, C) the two agree.) Positions whose target is `ignore_index`, or whose `mask` (...) is
    False, count nothing and get no gradient, whatever the logits are there.

    `reduction`: "mean" over the positions that count (0 if there is none), "sum", or "none" for a loss per
    position, of the shape of `targets`. `label_smoothing` ε puts 1 - ε on the target and spreads ε over all
    C classes.

    Raises `ShapeError` if the shapes do not fit, `DTypeError` for targets that are no integers, `ValueError`
    naming a target out of range.

    >>> import tinygrad_rnn as tr
    >>> logits = tr.zeros(3, 2, 4)
    >>> loss = tr.nn.functional.cross_entropy(logits, [[0, 1], [2, 3], [-100, 0]])
    >>> round(loss.item(), 4)  # log 4
    1.3863
    """
    label_smoothing = check_number("cross_entropy: label_smoothing", label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    x = as_tensor(logits)
    given = _given("cross_entropy", x, targets, ignore_index, mask)
    if reduction in ("mean", "sum") and _fits_kernels(x, *given):
        return _by_kernels(x, *given, float(label_smoothing), reduction == "mean")
    x, flat, keep, shape = _classes("cross_entropy", x, *given)
    losses = cross_entropy_rows(x, targets=flat, keep=keep, label_smoothing=float(label_smoothing))[0]
    return _reduce_kept("cross_entropy", losses, keep, shape, reduction)


@in_float32
def nll_loss(
    log_p: Tensor, targets: Any, *, ignore_index: int = -100, reduction: str = "mean", mask: Any = None
) -> Tensor:
    """Minus the log-probability of the targets: `cross_entropy` of what `log_softmax` returned.

    `log_p` (..., C) has the classes on its last axis; targets, `ignore_index`, `reduction`, `mask` and errors
    are those of `cross_entropy`.

    >>> import tinygrad_rnn as tr
    >>> log_p = tr.log(tr.Tensor([[0.5, 0.5], [0.25, 0.75]]))
    >>> [round(v, 4) for v in tr.nn.functional.nll_loss(log_p, [0, 1], reduction="none").tolist()]
    [0.6931, 0.2877]
    """
    x = as_tensor(log_p)
    x, flat, keep, shape = _classes("nll_loss", x, *_given("nll_loss", x, targets, ignore_index, mask))
    losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)
    return _reduce_kept("nll_loss", ops.where(keep, losses, 0.0), keep, shape, reduction)


def _given(name: str, x: Tensor, targets: Any, ignore_index: int, mask: Any) -> tuple[Tensor, int, Array | None]:
    """Targets that fit the input, what is ignored among them, and the mask (N,) beside them, if there is one."""
    if not x.ndim:
        raise ShapeError(f"{name}: the input must have an axis of classes, got a 0-d tensor")
    if not backend.is_floating(x.dtype):
        raise DTypeError(f"{name}: the input must be floats, got {x.dtype}")
    ids = as_tensor(targets)
    lead = x.shape[:-1]
    if ids.shape != lead:
        raise ShapeError(
            f"{name}: an input {x.shape} needs targets of shape {lead}, got {ids.shape} "
            f"(the classes are on the last axis)"
        )
    ids = box(integer_ids(f"{name}: targets", ids), None)
    if ignore_index != -100:  # the default, which no unsigned target is
        ignore_index = backend.fitting(f"{name}: ignore_index", ignore_index, ids.dtype)
    if mask is None:
        return ids, ignore_index, None
    return ids, ignore_index, backend.to_device(loss_mask(name, mask, ids.shape)._array.reshape(-1), ids.device)


def _classes(
    name: str, x: Tensor, ids: Tensor, ignored: int, mask: Array | None
) -> tuple[Tensor, Array, Array, tuple[int, ...]]:
    """The input as rows (N, C), the targets (N,) in range, whether each counts (N,), and the shape of the targets."""
    flat, keep = _counted(ids._array.reshape(-1), ignored, mask)
    check_range(f"{name}: target", flat, x.shape[-1])
    # a recording must hold for any targets, and a device is not waited for
    all_count = active_tape.get() is None and not is_on_device(keep) and bool(backend.namespace(keep).all(keep))
    flat, keep = (backend.to_device(a, x.device) for a in (flat, keep))
    rows = ops.reshape(x, (flat.shape[0], x.shape[-1]))
    return (rows if all_count else ops.where(keep[:, None], rows, 0.0)), flat, keep, ids.shape


def _counted(flat: Array, ignored: int, mask: Array | None) -> tuple[Array, Array]:
    """Targets (N,), 0 where they do not count, and whether each counts."""
    xp = backend.namespace(flat)
    keep = flat != ignored
    if mask is not None:
        keep = keep & mask
    return xp.where(keep, flat, xp.zeros_like(flat)), keep


# --- the same on a GPU, as a mean or a sum: two launches, and one on the way back -----------------------------


def _fits_kernels(x: Tensor, ids: Tensor, ignored: int, mask: Array | None) -> bool:
    return is_on_device(ids._array) and has_cuda_kernels(x._array) and x.shape[-1] > 0


def _by_kernels(x: Tensor, ids: Tensor, ignored: int, mask: Array | None, smoothing: float, mean: bool) -> Tensor:
    """The cross-entropy of logits, whose targets are on the same GPU."""
    flat, C = ids._array.reshape(-1), x.shape[-1]
    error = lambda: out_of_range("cross_entropy: target", _counted(flat, ignored, mask)[0], C)
    targets = Targets(flat, int(ignored), mask, error)
    return _total(ops.reshape(x, (flat.shape[0], C)), targets=targets, smoothing=smoothing, mean=mean)[0]


def _total_plain(x: Tensor, *, targets: Targets, smoothing: float, mean: bool) -> Tensor:
    """The mean or the sum of the losses, and by what the sum was divided, as one array (2,)."""
    rows, flat, keep, _ = _classes("cross_entropy", x, box(targets.ids, None), targets.ignored, targets.mask)
    losses = cross_entropy_rows(rows, targets=flat, keep=keep, label_smoothing=smoothing)[0]
    total = ops.sum(losses)
    divisor = _count(keep, losses) if mean else box(backend.namespace(total._array).ones_like(total._array), None)
    return ops.stack([total / divisor, divisor])


_total = fused("cross_entropy", _total_plain, cuda_forward, cuda_vjp)


def _reduce_kept(name: str, losses: Tensor, keep: Array, shape: tuple[int, ...], reduction: str) -> Tensor:
    if reduction == "mean":
        return ops.sum(losses) / _count(keep, losses)
    return _reduce(name, losses if reduction == "sum" else ops.reshape(losses, shape), reduction)


@in_float32
def mse_loss(x: Tensor, target: Any, *, reduction: str = "mean", mask: Any = None) -> Tensor:
    """The square of `x - target`, tensors of the same shape; `mask` and `reduction` as in the docstring of the module.

    Raises `ShapeError` if the shapes differ: broadcasting here has hidden many a bug.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.mse_loss(tr.Tensor([1.0, 2.0]), [1.0, 4.0]).item()
    2.0
    """
    d, keep = _difference("mse_loss", x, target, mask)
    return _reduce("mse_loss", ops.square(d), reduction, keep)


@in_float32
def l1_loss(x: Tensor, target: Any, *, reduction: str = "mean", mask: Any = None) -> Tensor:
    """|x - target|, with a gradient of 0 where they are equal; otherwise as `mse_loss`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.l1_loss(tr.Tensor([1.0, 2.0]), [1.0, 4.0]).item()
    1.0
    """
    d, keep = _difference("l1_loss", x, target, mask)
    return _reduce("l1_loss", ops.abs(d), reduction, keep)


@in_float32
def huber_loss(x: Tensor, target: Any, *, delta: float = 1.0, reduction: str = "mean", mask: Any = None) -> Tensor:
    """The loss of Huber (1964) of d = x - target: d²/2 where |d| <= `delta`, else delta (|d| - delta/2); otherwise as
    `mse_loss`. Raises `ValueError` unless `delta` is above 0.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.huber_loss(tr.Tensor([0.5, 4.0]), [0.0, 0.0], reduction="none").tolist()
    [0.125, 3.5]
    """
    delta = check_number("huber_loss: delta", delta)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be above 0, got {delta!r}")
    d, keep = _difference("huber_loss", x, target, mask)
    near = ops.clip(d, -delta, delta)
    return _reduce("huber_loss", near * (d - 0.5 * near), reduction, keep)


@in_float32
def binary_cross_entropy_with_logits(x: Tensor, target: Any, *, reduction: str = "mean", mask: Any = None) -> Tensor:
    """-p log σ(x) - (1 - p) log(1 - σ(x)) for logits x and targets p in [0, 1] (floats, booleans or 0 and 1) of the
    same shape; otherwise as `mse_loss`.

    Computed as p softplus(-x) + (1 - p) softplus(x), which neither overflows nor cancels: a confident right
    answer has its tiny loss, not 0. A logit of ±inf is a certain answer: its loss is 0 or inf.

    >>> import tinygrad_rnn as tr
    >>> loss = tr.nn.functional.binary_cross_entropy_with_logits(tr.Tensor([0.0, 1000.0]), [1, 0], reduction="none")
    >>> [round(v, 4) for v in loss.tolist()]
    [0.6931, 1000.0]
    """
    name = "binary_cross_entropy_with_logits"
    x, target, keep = _pair(name, x, target, mask)
    p = ops.astype(target, x.dtype)
    # certain and right is 0, not 0 * inf
    losses = multiply_no_nan(p, ops.softplus(-x)) + multiply_no_nan(1 - p, ops.softplus(x))
    return _reduce(name, losses if keep is None else ops.where(keep, losses, 0.0), reduction, keep)


@in_float32
def ctc_loss(
    log_probs: Tensor,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log of the probability that a sequence of class probabilities says its targets, at whatever steps: the
    loss of connectionist temporal classification (Graves et al., ICML 2006), which `nn/ctc.py` draws.

        log_probs        (T, B, C)   what `log_softmax` returned; (T, C) without a batch
        targets          (B, S)      ids of classes but `blank`; what stands past an end may be anything
                         (N,)        or all of them one after the other, N in all, which no recording takes
        input_lengths    (B,)        how many of the T steps count, from 0 to T, in any order
        target_lengths   (B,)        how many targets there are of each, from 0 up
                                     (both a number without a batch)

    `reduction`: "none" for the losses (B,), "sum", or "mean": each loss over its number of targets (at least 1), and
    the mean of these over the batch. Where the steps are too few for the targets (every one takes a step, and two equal
    ones a blank between them), the loss is `inf`, or 0 with `zero_infinity`, and its gradient is 0 in either case. Of
    `log_probs` that are NaN the loss is NaN, with `zero_infinity`, too.

    Minus the gradient of a sum of losses by `log_probs` tells how probable each class is at each step given the
    targets: the alignment, to draw. Steps past an end are never read, NaN included, and get exactly 0.

    Raises `ShapeError` or `ValueError` naming the entry of the batch whose lengths or targets do not fit, or a `blank`
    that is no class; `DTypeError` for log_probs that are no floats, lengths or targets that are no integers.

    >>> import tinygrad_rnn as tr
    >>> log_p = tr.log(tr.Tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))  # a blank and two labels, at two steps
    >>> loss = tr.nn.functional.ctc_loss(log_p, [1], 2, 1)
    >>> round(tr.exp(-loss).item(), 4)  # "1-", "-1" or "11"
    0.3125
    """
    x = as_tensor(log_probs)
    single = x.ndim == 2
    x = ops.expand_dims(x, 1) if single else x
    if x.ndim != 3:
        raise ShapeError(f"ctc_loss: log_probs must be (T, B, C), or (T, C) without a batch, got shape {x.shape}")
    if not backend.is_floating(x.dtype):
        raise DTypeError(f"ctc_loss: log_probs must be floats, got {x.dtype}")
    T, B, C = x.shape
    blank = check_one_of("ctc_loss: blank", blank, C, f"classes: 0 to {C - 1}")
    given = {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths}
    ids, steps, counts = (
        backend.recorded_on_host(integer_ids(f"ctc_loss: {what}", as_tensor(value))) for what, value in given.items()
    )
    if single:
        steps, counts = steps.reshape(-1), counts.reshape(-1)
    check_counts("input_lengths", steps, B, T, f"log_probs has 0 to {T} steps")
    labels = ctc.checked_labels(ids, counts, B, C, blank)
    losses = ctc.labelling_losses(x, labels, steps, counts, blank)
    if zero_infinity:
        losses = ops.where(losses == math.inf, 0.0, losses)  # a NaN stays one
    if reduction == "mean":
        losses = losses / beside(x, counts.clip(1))
    return _reduce("ctc_loss", losses[0] if single else losses, reduction)


def _pair(name: str, x: Any, target: Any, mask: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input and target of the same shape, and the mask of that shape; both are 0 where it is False."""
    x = as_tensor(x)
    if not backend.is_floating(x.dtype):
        raise DTypeError(f"{name}: the input must be floats, got {x.dtype}")
    # What comes from a file or from NumPy is often float64: it must not make the loss so.
    target = target if isinstance(target, Tensor) else Tensor(target, x.dtype, x.device)
    if x.shape != target.shape:
        raise ShapeError(f"{name}: the shapes must be equal, got {x.shape} and {target.shape}")
    if mask is None:
        return x, target, None
    keep = loss_mask(name, mask, x.shape).to(x.device)
    return ops.where(keep, x, 0.0), ops.where(keep, target, 0), keep


def _difference(name: str, x: Any, target: Any, mask: Any) -> tuple[Tensor, Tensor | None]:
    x, target, keep = _pair(name, x, target, mask)
    return x - target, keep


def _count(keep: Array, like: Tensor) -> Tensor:
    """How many of the booleans `keep` are True, at least 1, as a constant beside `like`."""
    xp = backend.namespace(keep)
    return box(xp.astype(xp.maximum(xp.sum(xp.astype(keep, xp.int64)), 1), like.dtype), None)


def _reduce(name: str, losses: Tensor, reduction: str, keep: Tensor | None = None) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction == "mean":
        if keep is None and losses.size:
            return ops.mean(losses)
        return ops.sum(losses) / (1.0 if keep is None else _count(keep._array, losses))
    raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", got {reduction!r}')
