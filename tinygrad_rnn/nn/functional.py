"""Losses and dropout, as functions."""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import kernels
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.tensor import Tensor


def _rows(x: Tensor, *, targets: Array, keep: Array, label_smoothing: float) -> Tensor:
    """For each row of logits x (N, C): its loss (0 where `keep` is False) and its logsumexp, as one array (2, N)."""
    log_p = ops.log_softmax(x, axis=-1)
    loss = -ops.take_along_axis(log_p, targets[:, None], axis=-1)[:, 0]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * ops.mean(log_p, axis=-1)
    return ops.stack([ops.where(keep, loss, 0.0), ops.logsumexp(x, axis=-1)])


_rows.__name__ = "cross_entropy"
cross_entropy_rows = fused(_rows, kernels.cross_entropy_forward, kernels.cross_entropy_vjp)


def cross_entropy(
    logits: Tensor,
    targets: Any,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Minus the log of the probability that softmax(logits) gives to the targets.

    `logits` (..., C) has the classes on its **last** axis, whatever stands before: (N, C), or (T, B, C) for
    a sequence. `targets` (...) are the integer ids of the classes. (PyTorch wants the classes on axis 1: (N,
    C, T). For (N, C) the two agree.) Positions whose target is `ignore_index` count nothing and get no
    gradient.

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
    logits = as_tensor(logits)
    if not logits.ndim:
        raise ShapeError("cross_entropy: logits must have an axis of classes, got a 0-d tensor")
    if not backend.is_floating(logits.dtype):
        raise DTypeError(f"cross_entropy: logits must be floats, got {logits.dtype}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], got {label_smoothing}")
    ids = as_tensor(targets)
    *lead, C = logits.shape
    if ids.shape != tuple(lead):
        raise ShapeError(
            f"cross_entropy: logits {logits.shape} need targets of shape {tuple(lead)}, got {ids.shape} "
            f"(the classes are on the last axis)"
        )
    flat = integer_ids("cross_entropy: targets", ids).reshape(-1)
    keep = flat != ignore_index
    xp = backend.namespace(flat)
    flat = xp.where(keep, flat, xp.zeros_like(flat))
    check_range("cross_entropy: target", flat, C)
    flat, keep = (backend.to_device(a, logits.device) for a in (flat, keep))
    x = ops.reshape(logits, (-1, C)) if logits.size else ops.reshape(logits, (flat.shape[0], C))
    losses = cross_entropy_rows(x, targets=flat, keep=keep, label_smoothing=float(label_smoothing))[0]
    if reduction == "mean":
        return ops.sum(losses) / float(max(int(keep.sum()), 1))
    return _reduce("cross_entropy", losses if reduction == "sum" else ops.reshape(losses, ids.shape), reduction)


def mse_loss(x: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """The square of `x - target`; `reduction` "mean", "sum" or "none". Both must have the same shape.

    Raises `ShapeError` if they have not: broadcasting here has hidden many a bug.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.mse_loss(tr.Tensor([1.0, 2.0]), [1.0, 4.0]).item()
    2.0
    """
    x = as_tensor(x)
    target = as_tensor(target)
    if x.shape != target.shape:
        raise ShapeError(f"mse_loss: the shapes must be equal, got {x.shape} and {target.shape}")
    return _reduce("mse_loss", ops.square(x - target), reduction)


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
    drawn = backend.generator().random(x.shape, dtype="float32")
    scale = 0.0 if p == 1 else 1 / (1 - p)
    mask = Tensor((drawn >= p) * scale, dtype=x.dtype, device=x.device)
    return x * mask


def as_tensor(x: Any) -> Tensor:
    """`x` itself if it is a Tensor, else a Tensor of it."""
    return x if isinstance(x, Tensor) else Tensor(x)


def check_sizes(layer: str, **sizes: int) -> None:
    """Raise `ValueError` unless every size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{layer}: {name} must be a positive integer, got {size!r}")


def check_probability(name: str, p: float) -> None:
    """Raise `ValueError` unless `p` lies in [0, 1]."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name}: the probability must lie in [0, 1], got {p!r}")


def integer_ids(what: str, ids: Tensor) -> Array:
    """The array of a tensor of ids, or a `DTypeError`. An empty list, which becomes float32, passes as no ids."""
    if "int" in str(ids.dtype):
        return ids._array
    if not ids.size:
        return backend.namespace(ids._array).astype(ids._array, int)
    raise DTypeError(f"{what} must be integers, got {ids.dtype}")


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


def _reduce(name: str, losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction == "mean":
        return ops.mean(losses)
    raise ValueError(f'{name}: reduction must be "mean", "sum" or "none", got {reduction!r}')
