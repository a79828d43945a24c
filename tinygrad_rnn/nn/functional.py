"""Losses, normalisation, dropout, convolution and pooling, as functions.

Every loss has `reduction`, "mean", "sum" or "none", and `mask`: booleans, True where an element counts, of the shape of
the unreduced losses or of its first axes: a mask (T, B) from `sequence_mask` fits losses (T, B) and (T, B, F). What the
mask leaves out adds 0 and gets a gradient of exactly 0, even where the input or the target is NaN; "mean" is over what
counts, and 0 if nothing does. Losses of class ids have `ignore_index`, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.kernels.cross_entropy import cross_entropy_forward, cross_entropy_vjp
from tinygrad_rnn.kernels.normalisation import layer_norm_forward, layer_norm_vjp
from tinygrad_rnn.nn import ctc
from tinygrad_rnn.nn.windows import avg_pool1d, avg_pool2d, conv1d, conv2d, max_pool1d, max_pool2d
from tinygrad_rnn.tensor import backend, ops, random
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.checkpoint import recomputed
from tinygrad_rnn.tensor.creation import arange
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.mode import active_tape, no_grad, replayed
from tinygrad_rnn.tensor.ops.arithmetic import multiply_no_nan
from tinygrad_rnn.tensor.tensor import Tensor, box

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "ctc_loss",
    "dropout",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "positional_encoding",
    "scaled_dot_product_attention",
    "sequence_mask",
]


def _rows(x: Tensor, *, targets: Array, keep: Array, label_smoothing: float) -> Tensor:
    """For each row of logits x (N, C): its loss (0 where `keep` is False) and its logsumexp, as one array (2, N)."""
    log_p = ops.log_softmax(x, axis=-1)
    loss = -ops.take_along_axis(log_p, targets[:, None], axis=-1)[:, 0]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * ops.mean(log_p, axis=-1)
    return ops.stack([ops.where(keep, loss, 0.0), ops.logsumexp(x, axis=-1)])


cross_entropy_rows = fused("cross_entropy", _rows, cross_entropy_forward, cross_entropy_vjp)


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
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    x, flat, keep, shape = _classes("cross_entropy", as_tensor(logits), targets, ignore_index, mask)
    losses = cross_entropy_rows(x, targets=flat, keep=keep, label_smoothing=float(label_smoothing))[0]
    return _reduce_kept("cross_entropy", losses, keep, shape, reduction)


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
    x, flat, keep, shape = _classes("nll_loss", as_tensor(log_p), targets, ignore_index, mask)
    losses = -ops.take_along_axis(x, flat[:, None], axis=-1)[:, 0] if flat.shape[0] else ops.sum(x, axis=-1)
    return _reduce_kept("nll_loss", ops.where(keep, losses, 0.0), keep, shape, reduction)


def _classes(
    name: str, x: Tensor, targets: Any, ignore_index: int, mask: Any
) -> tuple[Tensor, Array, Array, tuple[int, ...]]:
    """Rows (N, C) of what stands before the classes, targets (N,) in range, whether each counts, and their shape."""
    if not x.ndim:
        raise ShapeError(f"{name}: the input must have an axis of classes, got a 0-d tensor")
    if not backend.is_floating(x.dtype):
        raise DTypeError(f"{name}: the input must be floats, got {x.dtype}")
    ids = as_tensor(targets)
    *lead, C = x.shape
    if ids.shape != tuple(lead):
        raise ShapeError(
            f"{name}: an input {x.shape} needs targets of shape {tuple(lead)}, got {ids.shape} "
            f"(the classes are on the last axis)"
        )
    flat = integer_ids(f"{name}: targets", ids).reshape(-1)
    keep = flat != ignore_index
    if mask is not None:
        keep = keep & backend.to_device(_mask(name, mask, ids.shape)._array.reshape(-1), backend.device_of(flat))
    xp = backend.namespace(flat)
    flat = xp.where(keep, flat, xp.zeros_like(flat))
    check_range(f"{name}: target", flat, C)
    all_count = active_tape.get() is None and bool(xp.all(keep))  # a recording must hold for any targets
    flat, keep = (backend.to_device(a, x.device) for a in (flat, keep))
    rows = ops.reshape(x, (flat.shape[0], C))
    return (rows if all_count else ops.where(keep[:, None], rows, 0.0)), flat, keep, ids.shape


def _reduce_kept(name: str, losses: Tensor, keep: Array, shape: tuple[int, ...], reduction: str) -> Tensor:
    if reduction == "mean":
        return ops.sum(losses) / _count(keep, losses)
    return _reduce(name, losses if reduction == "sum" else ops.reshape(losses, shape), reduction)


def mse_loss(x: Tensor, target: Any, *, reduction: str = "mean", mask: Any = None) -> Tensor:
    """The square of `x - target`, tensors of the same shape; `mask` and `reduction` as in the docstring of the module.

    Raises `ShapeError` if the shapes differ: broadcasting here has hidden many a bug.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.mse_loss(tr.Tensor([1.0, 2.0]), [1.0, 4.0]).item()
    2.0
    """
    d, keep = _difference("mse_loss", x, target, mask)
    return _reduce("mse_loss", ops.square(d), reduction, keep)


def l1_loss(x: Tensor, target: Any, *, reduction: str = "mean", mask: Any = None) -> Tensor:
    """|x - target|, with a gradient of 0 where they are equal; otherwise as `mse_loss`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.l1_loss(tr.Tensor([1.0, 2.0]), [1.0, 4.0]).item()
    1.0
    """
    d, keep = _difference("l1_loss", x, target, mask)
    return _reduce("l1_loss", ops.abs(d), reduction, keep)


def huber_loss(x: Tensor, target: Any, *, delta: float = 1.0, reduction: str = "mean", mask: Any = None) -> Tensor:
    """The loss of Huber (1964) of d = x - target: d²/2 where |d| <= `delta`, else delta (|d| - delta/2); otherwise as
    `mse_loss`. Raises `ValueError` unless `delta` is above 0.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.huber_loss(tr.Tensor([0.5, 4.0]), [0.0, 0.0], reduction="none").tolist()
    [0.125, 3.5]
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be above 0, got {delta!r}")
    d, keep = _difference("huber_loss", x, target, mask)
    near = ops.clip(d, -delta, delta)
    return _reduce("huber_loss", near * (d - 0.5 * near), reduction, keep)


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
                         (N,)        or all of them one after the other, N in all
        input_lengths    (B,)        how many of the T steps count, from 0 to T, in any order
        target_lengths   (B,)        how many targets there are of each, from 0 up
                                     (both a number without a batch)

    `reduction`: "none" for the losses (B,), "sum", or "mean": each loss over its number of targets (at least 1), and
    the mean of these over the batch. Where the steps are too few for the targets (every one takes a step, and two equal
    ones a blank between them), the loss is `inf`, or 0 with `zero_infinity`, and its gradient is 0 in either case.

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
    if isinstance(blank, bool) or not isinstance(blank, int) or not 0 <= blank < C:
        raise ValueError(f"ctc_loss: blank {blank!r} is out of range for {C} classes: 0 to {C - 1}")
    given = {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths}
    ids, steps, counts = (
        backend.to_host(integer_ids(f"ctc_loss: {what}", as_tensor(value))) for what, value in given.items()
    )
    if single:
        steps, counts = steps.reshape(-1), counts.reshape(-1)
    ctc.check_counts("input_lengths", steps, B, T, f"log_probs has 0 to {T} steps")
    labels = ctc.checked_labels(ids, counts, B, C, blank)
    losses = ctc.labelling_losses(x, labels, steps, counts, blank)
    if zero_infinity:
        losses = ops.where(losses < math.inf, losses, 0.0)
    if reduction == "mean":
        losses = losses / ctc.beside(x, counts.clip(1))
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
    keep = _mask(name, mask, x.shape).to(x.device)
    return ops.where(keep, x, 0.0), ops.where(keep, target, 0), keep


def _difference(name: str, x: Any, target: Any, mask: Any) -> tuple[Tensor, Tensor | None]:
    x, target, keep = _pair(name, x, target, mask)
    return x - target, keep


def _mask(name: str, mask: Any, shape: tuple[int, ...]) -> Tensor:
    """`mask` as booleans of `shape`: it may lack the last axes."""
    given = as_tensor(mask)
    if "bool" not in str(given.dtype):
        raise DTypeError(f"{name}: mask must be booleans (True: it counts), got {given.dtype}")
    if given.shape != shape[: given.ndim]:
        raise ShapeError(f"{name}: a mask {given.shape} does not fit losses of shape {shape}")
    given = ops.reshape(given, given.shape + (1,) * (len(shape) - given.ndim))
    return ops.broadcast_to(given, shape)


def sequence_mask(lengths: Any, T: int, *, batch_first: bool = False, device: str | None = None) -> Tensor:
    """Booleans (T, B), or (B, T) with `batch_first`: True at the steps that sequences of these lengths have.

    What `mask=` of a loss wants beside `lengths=` of a recurrent layer. Raises as the layers do, `ValueError`
    naming a length that is not in 1 ... T.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.sequence_mask([3, 1], 3).tolist()
    [[True, True], [True, False], [True, False]]
    """
    given = as_tensor(lengths)
    if given.ndim != 1:
        raise ShapeError(f"sequence_mask: lengths must be (B,), got shape {given.shape}")
    steps = check_lengths("sequence_mask", given, T, given.shape[0])
    rows = [[t < n for n in steps] for t in range(T)]
    if batch_first:
        rows = [[t < n for t in range(T)] for n in steps]
    shape = (given.shape[0], T) if batch_first else (T, given.shape[0])
    return ops.reshape(Tensor(rows, dtype="bool", device=device), shape)


def _layer_norm(x: Tensor, w: Tensor | None, b: Tensor | None, *, eps: float) -> Tensor:
    """Rows (N, D) normalised, times w (D,), plus b (D,)."""
    z = x - ops.mean(x, axis=-1, keepdims=True)
    y = z / ops.sqrt(ops.mean(ops.square(z), axis=-1, keepdims=True) + eps)
    y = y if w is None else y * w
    return y if b is None else y + b


layer_norm_rows = fused("layer_norm", _layer_norm, layer_norm_forward, layer_norm_vjp)


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation of Ba, Kiros and Hinton (2016, arXiv:1607.06450) over the last axes, which have the lengths
    `normalized_shape`: (x - mean) / √(variance + eps), times `weight`, plus `bias` (both of that shape).

    The variance is that of all n elements, not n - 1. One node of the graph, with a kernel. Raises `ShapeError`
    if the last axes are others.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.layer_norm(tr.Tensor([[1.0, 3.0], [10.0, 30.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    x = as_tensor(x)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"layer_norm: the last axes must be {shape}, but the input has shape {x.shape}")
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and p.shape != shape:
            raise ShapeError(f"layer_norm: {name} must have shape {shape}, got {p.shape}")
    D = math.prod(shape)
    N = math.prod(x.shape[: x.ndim - len(shape)])
    w, b = (None if p is None else ops.reshape(p, (D,)) for p in (weight, bias))
    return ops.reshape(layer_norm_rows(ops.reshape(x, (N, D)), w, b, eps=float(eps)), x.shape)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation of Ioffe and Szegedy (2015, arXiv:1502.03167) of x (N, C, ...): each channel less its mean,
    over √(variance + eps), times `weight` (C,), plus `bias` (C,).

    In `training` the statistics are those of this batch, over all axes but that of the channels, and gradients
    flow through them. The running ones (C,), where given, then become (1 - momentum) running + momentum batch, with
    the variance over n - 1; where a checkpointed segment is replayed, they stay. Otherwise the running statistics
    are taken.

    Raises `ShapeError` for shapes that do not fit, and in training for a batch with fewer than two values per channel,
    `ValueError` if there are no running statistics to take.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([[1.0, 10.0], [3.0, 30.0]])
    >>> tr.nn.functional.batch_norm(x, training=True, eps=0.0).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: the input must be (N, C, ...), got shape {x.shape}")
    C = x.shape[1]
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, p in given.items():
        if p is not None and p.shape != (C,):
            raise ShapeError(f"batch_norm: {name} must have shape ({C},) for an input {x.shape}, got {p.shape}")
    # the batch last, as a convolution leaves it in memory
    last = ops.moveaxis(x, 0, -1)
    rows = ops.reshape(last, (C, math.prod(last.shape[1:])))
    if training:
        if rows.shape[1] < 2:
            raise ShapeError(
                f"batch_norm: training needs at least two values per channel, an input {x.shape} has {rows.shape[1]}"
            )
        y = layer_norm_rows(rows, None, None, eps=float(eps))
        if first_run():
            _update(running_mean, running_var, rows, momentum)
    else:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: without training it needs running_mean and running_var")
        y = (rows - running_mean[:, None]) / ops.sqrt(running_var + eps)[:, None]
    y = y if weight is None else y * weight[:, None]
    y = y if bias is None else y + bias[:, None]
    return ops.moveaxis(ops.reshape(y, last.shape), -1, 0)


@no_grad()
def _update(running_mean: Tensor | None, running_var: Tensor | None, rows: Tensor, momentum: float) -> None:
    """Move the running statistics towards those of rows (C, D)."""
    if running_mean is not None:
        running_mean.assign_((1 - momentum) * running_mean + momentum * ops.mean(rows, axis=1))
    if running_var is not None:
        running_var.assign_((1 - momentum) * running_var + momentum * ops.var(rows, axis=1, ddof=1))


def first_run() -> bool:
    """False where a checkpointed segment is replayed: what counts its calls must not count this one."""
    token = object()
    return recomputed(token) is token


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Inverted dropout: in training each element is 0 with probability `p`, else scaled by 1 / (1 - p).

    The mask is drawn on the host from the library's generator, so `tr.manual_seed` fixes it on any device,
    and `tr.checkpoint` replays it. Raises `ValueError` for `p` outside [0, 1].

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.dropout(tr.ones(4), 0.5, training=False).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    check_probability("dropout", p)
    x = as_tensor(x)
    if not training or p == 0:
        return x
    drawn = random.generator().random(x.shape, dtype="float32")
    scale = 0.0 if p == 1 else 1 / (1 - p)
    mask = box(backend.beside(x._array, (drawn >= p) * scale, x.dtype), None)
    return x * mask


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> Tensor:
    """softmax(query keyᵀ · scale) value: for each query a mean of the values, weighted by how well their keys fit it
    (Vaswani et al. 2017, arXiv:1706.03762).

    `query` (..., L, E), `key` (..., S, E) and `value` (..., S, V) give (..., L, V); axes before these broadcast.
    `scale` is 1/√E unless given. `attn_mask` broadcasts to (..., L, S): booleans, True where a query may look at a key
    (as all masks here; `MultiheadAttention` has it the other way, as in PyTorch), or floats to add to the products,
    -inf to forbid. With `is_causal` query i sees the keys 0 to i alone. A query that may see no key gets 0, and sends
    a gradient of exactly 0 to everything. What a mask forbids must be finite all the same. `dropout_p` drops weights;
    a layer passes 0 outside of training.

    Raises `ShapeError` naming the shapes that do not fit.

    >>> import tinygrad_rnn as tr
    >>> q, k = tr.Tensor([[1.0, 0.0]]), tr.Tensor([[9.0, 0.0], [0.0, 9.0]])
    >>> y = tr.nn.functional.scaled_dot_product_attention(q, k, tr.Tensor([[1.0], [2.0]]), scale=1.0)
    >>> round(y.item(), 3)
    1.0
    """
    q, k, v = (as_tensor(x) for x in (query, key, value))
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            "scaled_dot_product_attention: query, key and value must be (..., L, E), (..., S, E) and (..., S, V), "
            f"got {q.shape}, {k.shape} and {v.shape}"
        )
    scores = (q * (1 / math.sqrt(q.shape[-1] or 1) if scale is None else scale)) @ k.mT
    if attn_mask is not None:
        scores = masked_scores("scaled_dot_product_attention", scores, attn_mask, seen=True)
    if is_causal:
        scores = causal_scores(scores)
    return dropout(ops.softmax(scores), dropout_p) @ v


def masked_scores(name: str, scores: Tensor, mask: Any, *, seen: bool) -> Tensor:
    """`scores` (..., L, S) plus a mask of floats; or -inf where one of booleans is not `seen`."""
    given = mask_beside(scores, mask)
    sizes = zip(reversed(given.shape), reversed(scores.shape), strict=False)
    if given.ndim > scores.ndim or any(n not in (1, m) for n, m in sizes):
        raise ShapeError(f"{name}: a mask {given.shape} does not broadcast to the weights, {scores.shape}")
    if "bool" in str(given.dtype):
        return ops.where(given, *((scores, -math.inf) if seen else (-math.inf, scores)))
    if backend.is_floating(given.dtype):
        return scores + (given if given.dtype == scores.dtype else ops.astype(given, scores.dtype))
    raise DTypeError(f"{name}: a mask must be booleans, or floats to add, got {given.dtype}")


def mask_beside(x: Tensor, mask: Any) -> Tensor:
    """A mask as a Tensor on the device of `x`: it often comes from the host, where lengths are known."""
    given = as_tensor(mask)
    if given.device == x.device:
        return given
    return given.to(x.device) if "cuda" in x.device + given.device else box(ctc.beside(x, given._array), None)


def causal_scores(scores: Tensor) -> Tensor:
    """`scores` (..., L, S) with -inf where the key stands after the query."""
    ones = box(backend.zeros_beside(scores._array, scores.shape[-2:], scores.dtype), None) + 1
    return ops.where(ops.tril(ones) > 0, scores, -math.inf)


def positional_encoding(T: int, d_model: int, *, dtype: Any = "float32", device: str | None = None) -> Tensor:
    """Where in a sequence one is, as T rows of `d_model` numbers, to add to what a network without a memory reads:
    sin(t / 10000^(i/d)) in the even columns i, the cosine of the same in the next (Vaswani et al. 2017,
    arXiv:1706.03762, section 3.5).

    A constant (T, d_model); for a batch x (T, B, d_model) add `encoding[:, None]`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.positional_encoding(2, 4).tolist()[0]
    [0.0, 1.0, 0.0, 1.0]
    """
    check_sizes("positional_encoding", T=T, d_model=d_model)
    even = arange(0, d_model, 2, dtype="float64")
    angles = ops.expand_dims(arange(T, dtype="float64"), 1) * ops.exp(even * (-math.log(10000) / d_model))
    pairs = ops.reshape(ops.stack([ops.sin(angles), ops.cos(angles)], axis=2), (T, 2 * even.shape[0]))
    return Tensor(pairs[:, :d_model].numpy(), dtype=dtype, device=device)


def as_tensor(x: Any) -> Tensor:
    """`x` itself if it is a Tensor, else a Tensor of it."""
    return x if isinstance(x, Tensor) else Tensor(x)


def check_sizes(layer: str, **sizes: int) -> None:
    """Raise `ValueError` unless every size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{layer}: {name} must be a positive integer, got {size!r}")


def check_lengths(name: str, lengths: Any, T: int, B: int) -> list[int]:
    """`lengths` of B sequences as integers from 1 to T; else an error that names the place and the value."""
    given = backend.to_host(integer_ids(f"{name}: lengths", as_tensor(lengths)))
    if given.shape != (B,):
        raise ShapeError(f"{name}: a batch of {B} needs {B} lengths, got shape {given.shape}")
    found: list[int] = given.tolist()
    for b, n in enumerate(found):
        if n < 1:
            raise ValueError(f"{name}: lengths[{b}] is {n}, but a sequence has at least one step")
        if n > T:
            raise ValueError(f"{name}: lengths[{b}] is {n}, but the input has {T} steps")
    return found


def check_probability(name: str, p: float) -> None:
    """Raise `ValueError` unless `p` lies in [0, 1]."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name}: the probability must lie in [0, 1], got {p!r}")


def integer_ids(what: str, ids: Tensor) -> Array:
    """The array of a tensor of ids, or a `DTypeError`. An empty list, which becomes float32, passes as no ids."""
    array: Array = ids._array
    if "int" in str(ids.dtype):
        return array
    if not ids.size:
        return backend.namespace(ids._array).astype(ids._array, int)
    raise DTypeError(f"{what} must be integers, got {ids.dtype}")


@replayed
def check_range(what: str, ids: Array, count: int) -> None:
    """Raise `ValueError` naming the first id outside 0 .. count - 1: some libraries would wrap it silently.

    On a GPU this waits for the device; ids that come from the host are checked there.
    """
    xp = backend.namespace(ids)
    if not ids.size or (int(ids.min()) >= 0 and int(ids.max()) < count):
        return
    wrong = backend.to_host(ids).reshape(-1)
    at = int(xp.argmax(xp.asarray((wrong < 0) | (wrong >= count))))
    raise ValueError(f"{what} {int(wrong[at])} (element {at}) is out of range for {count} classes: 0 to {count - 1}")


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
