"""Normalisation, dropout and attention as functions; with the losses, convolutions and poolings what PyTorch has in
its module of this name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.kernels.cuda import has_cuda_kernels
from tinygrad_rnn.kernels.cuda.training import dropout_mask
from tinygrad_rnn.kernels.normalisation import layer_norm_forward, layer_norm_vjp
from tinygrad_rnn.nn.checks import (
    as_optional,
    as_tensor,
    check_lengths,
    check_probability,
    check_sizes,
    mask_beside,
)
from tinygrad_rnn.nn.convolution import avg_pool1d, avg_pool2d, conv1d, conv2d, max_pool1d, max_pool2d
from tinygrad_rnn.nn.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    ctc_loss,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
)
from tinygrad_rnn.scalars import as_integer, as_integers
from tinygrad_rnn.tensor import backend, ops, random
from tinygrad_rnn.tensor.checkpoint import recomputed
from tinygrad_rnn.tensor.creation import arange
from tinygrad_rnn.tensor.device import is_on_device
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.mode import no_grad
from tinygrad_rnn.tensor.op import in_float32
from tinygrad_rnn.tensor.ops.reduction import shrink
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


def sequence_mask(lengths: Any, T: int, *, batch_first: bool = False, device: str | None = None) -> Tensor:
    """Booleans (T, B), or (B, T) with `batch_first`: True at the steps that sequences of these lengths have.

    What `mask=` of a loss wants beside `lengths=` of a recurrent layer. Raises as the layers do, `ValueError`
    naming a length that is not in 1 ... T.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.sequence_mask([3, 1], 3).tolist()
    [[True, True], [True, False], [True, False]]
    """
    given, found = as_tensor(lengths), as_integer(T)
    if found is None or found < 0:
        raise ValueError(f"sequence_mask: T must be an integer of at least 0, got {T!r}")
    T = found
    if given.ndim != 1:
        raise ShapeError(f"sequence_mask: lengths must be (B,), got shape {given.shape}")
    counts = check_lengths("sequence_mask", given, T, given.shape[0])
    xp = backend.namespace(counts)
    steps, counts = xp.arange(T)[:, None], counts[None, :]
    rows = box(steps.T < counts.T if batch_first else steps < counts, None)
    return rows if device is None else rows.to(device)


def _layer_norm(x: Tensor, w: Tensor | None, b: Tensor | None, *, eps: float) -> Tensor:
    """Rows (N, D) normalised, times w (D,), plus b (D,)."""
    z = x - x[:, :1].detach()  # of large numbers close together this has all digits, but their mean has not
    z = z - ops.mean(z, axis=-1, keepdims=True)
    k = shrink(z, axis=-1)  # squares of very large numbers would be infinite
    z = z * k
    y = z / ops.sqrt(ops.mean(ops.square(z), axis=-1, keepdims=True) + eps * k * k)
    y = y if w is None else y * w
    return y if b is None else y + b


layer_norm_rows = fused("layer_norm", _layer_norm, layer_norm_forward, layer_norm_vjp)


@in_float32
def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation of Ba, Kiros and Hinton (2016, arXiv:1607.06450) over the last axes, which have the lengths
    `normalized_shape`: (x - mean) / √(variance + eps), times `weight`, plus `bias` (both of that shape).

    The variance is that of all n elements, not n - 1. One node of the graph, with a kernel; float16 is computed in
    float32. Raises `ShapeError` if the last axes are others.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.layer_norm(tr.Tensor([[1.0, 3.0], [10.0, 30.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    x = as_tensor(x)
    shape = as_integers(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"layer_norm: the last axes must be {shape}, but the input has shape {x.shape}")
    weight, bias = as_optional(weight), as_optional(bias)
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and p.shape != shape:
            raise ShapeError(f"layer_norm: {name} must have shape {shape}, got {p.shape}")
    D = math.prod(shape)
    N = math.prod(x.shape[: x.ndim - len(shape)])
    w, b = (None if p is None else ops.reshape(p, (D,)) for p in (weight, bias))
    return ops.reshape(layer_norm_rows(ops.reshape(x, (N, D)), w, b, eps=float(eps)), x.shape)


@in_float32
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
    the variance over n - 1; where `tr.checkpoint` computes a segment again, they stay. Otherwise the running statistics
    are taken. float16 is computed in float32; the running statistics of it are best float32, too, since a variance
    above 65504 is no float16.

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
    if training and (fixed := [s for s in (running_mean, running_var) if not isinstance(s, Tensor | None)]):
        raise TypeError(
            f"batch_norm: running statistics must be Tensors, which training changes, not {type(fixed[0]).__name__}"
        )
    running_mean, running_var, weight, bias = map(as_optional, (running_mean, running_var, weight, bias))
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
    """Whether a checkpointed segment runs for the first time: when it is computed again, nothing is counted twice."""
    token = object()
    return recomputed(token) is token


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Inverted dropout: in training each element is 0 with probability `p`, else scaled by 1 / (1 - p).

    The mask is drawn from the library's generator, so `tr.manual_seed` fixes it, and `tr.checkpoint` draws it again.
    On a GPU it is made there, from a seed that the generator draws, and is another than on the host.

    Raises `ValueError` for `p` outside [0, 1].

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.dropout(tr.ones(4), 0.5, training=False).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    p = check_probability("dropout", p)
    x = as_tensor(x)
    if not training or p == 0:
        return x
    if has_cuda_kernels(x._array):
        return x * box(dropout_mask(x._array, p, lambda: int(random.generator().integers(2**63))), None)
    if is_on_device(x._array):
        kept = backend.uniform_on_device(x._array, random.generator()) >= p
    else:
        kept = random.kept(x.shape, p)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    mask = box(backend.beside(x._array, kept, x.dtype) * scale, None)
    return x * mask


@in_float32
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
    """`scores` (..., L, S) plus a mask of floats; or -inf where a mask of booleans is not `seen`."""
    given = mask_beside(scores, mask)
    sizes = zip(reversed(given.shape), reversed(scores.shape), strict=False)
    if given.ndim > scores.ndim or any(n not in (1, m) for n, m in sizes):
        raise ShapeError(f"{name}: a mask {given.shape} does not broadcast to the weights, {scores.shape}")
    if backend.is_boolean(given.dtype):
        return ops.where(given, *((scores, -math.inf) if seen else (-math.inf, scores)))
    if backend.is_floating(given.dtype):
        return scores + (given if given.dtype == scores.dtype else ops.astype(given, scores.dtype))
    raise DTypeError(f"{name}: a mask must be booleans, or floats to add, got {given.dtype}")


def causal_scores(scores: Tensor) -> Tensor:
    """`scores` (..., L, S) with -inf where the key stands after the query."""
    ones = box(backend.zeros_beside(scores._array, scores.shape[-2:], scores.dtype), None) + 1
    return ops.where(ops.tril(ones) > 0, scores, -math.inf)


def positional_encoding(T: int, d_model: int, *, dtype: Any = "float32", device: str | None = None) -> Tensor:
    """The positional encoding of Vaswani et al. (2017, arXiv:1706.03762, section 3.5): T rows of `d_model` numbers, to
    add to the input of a network without a memory, which cannot know where in a sequence it is. Row t has
    sin(t / 10000^(i/d)) in the even columns i, and the cosine of the same in the next.

    A constant (T, d_model); for a batch x (T, B, d_model) add `encoding[:, None]`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.positional_encoding(2, 4).tolist()[0]
    [0.0, 1.0, 0.0, 1.0]
    """
    T, d_model = check_sizes("positional_encoding", T=T, d_model=d_model)
    even = arange(0, d_model, 2, dtype="float64")
    angles = ops.expand_dims(arange(T, dtype="float64"), 1) * ops.exp(even * (-math.log(10000) / d_model))
    pairs = ops.reshape(ops.stack([ops.sin(angles), ops.cos(angles)], axis=2), (T, 2 * even.shape[0]))
    return Tensor(pairs[:, :d_model].numpy(), dtype=dtype, device=device)


if not TYPE_CHECKING:  # to a type checker no name is missing then

    def __getattr__(name: str) -> Any:
        from tinygrad_rnn.pytorch import no_name

        raise no_name(__name__, name)
