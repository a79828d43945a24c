"""Convolution and pooling as functions: what looks at the windows of a sequence or of a picture.

A convolution copies its windows side by side and is then one matrix product (Chellapilla, Puri and Simard, "High
performance convolutional neural networks for document processing", 2006). Pooling is the mean or the maximum over
the same copies. So there is one pair of ops here: `windows`, and `overlap_add`, which adds windows up where they came
from. Each is the derivative of the other, and all the rest follows from the table of ops. (Maxima have a kernel, too,
which copies nothing.)

Inside, channels stand first and the batch last, (C, ..., N): however small a picture is, a step to the side is
then a copy of many neighbouring numbers. What comes out has PyTorch's shape, (N, C, ...), and that order in memory.
"""

# mypy: disable-error-code="has-type"
# (a derivative may name its own op, or one below it)

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.backend import Array, namespace, zeros_beside
from tinygrad_rnn.tensor.creation import full
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.op import Operand, op
from tinygrad_rnn.tensor.tensor import Tensor

Sizes = int | Sequence[int]
Lengths = tuple[int, ...]


@op(lambda g, x_shape, kernel, stride, dilation: overlap_add(g, x_shape, kernel, stride, dilation))
def windows(x: Operand, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Array:
    """The windows of `x` (C, *S, N) side by side: (C, K, *O, N), where K = prod(`kernel`).

    Along each of the axes S, O = (S - dilation (kernel - 1) - 1) // stride + 1 windows begin `stride` apart, and the
    entries of one stand `dilation` apart.
    """
    return namespace(x).stack([x[key] for key in _taps(x.shape, kernel, stride, dilation)], axis=1)


@op(lambda g, kernel, stride, dilation: windows(g, kernel, stride, dilation))
def overlap_add(w: Operand, shape: tuple[int, ...], kernel: Lengths, stride: Lengths, dilation: Lengths) -> Array:
    """Zeros of `shape` to which every one of the `windows` (C, K, *O, N) was added where it came from."""
    x = zeros_beside(w, shape, w.dtype)
    for k, key in enumerate(_taps(shape, kernel, stride, dilation)):
        x[key] += w[:, k, ...]
    return x


def _taps(shape: Lengths, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Iterator[tuple[slice, ...]]:
    """For each place in a window, where all windows have it: an index of an array (C, *S, N)."""
    out = _counts(shape[1:-1], kernel, stride, dilation)
    for place in product(*map(range, kernel)):
        starts = (d * p for d, p in zip(dilation, place, strict=True))
        slices = (slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, stride, out, strict=True))
        yield (slice(None), *slices, slice(None))


def _counts(sizes: Lengths, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Lengths:
    """How many windows there are along each axis: less than 1 where they do not fit."""
    return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True))


def conv1d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` along one axis: x (N, C, L) or (C, L) and weight (O, C / groups, K) give (N, O, L') or (O, L').

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([[[1.0, 2.0, 4.0, 8.0]]])
    >>> tr.nn.functional.conv1d(x, tr.Tensor([[[-1.0, 1.0]]])).tolist()
    [[[1.0, 2.0, 4.0]]]
    """
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The products of `weight` with every window of `x`, plus `bias` (O,): cross-correlation, as in every library.

    x (N, C, H, W), or (C, H, W) for one picture, and weight (O, C / groups, KH, KW) give (N, O, H', W') or
    (O, H', W'), where H' = (H + 2 padding - dilation (KH - 1) - 1) // stride + 1 and W' likewise:

        y[n, o, i, j] = bias[o] + Σ_c,a,b weight[o, c, a, b] x[n, c, stride i + dilation a - padding, ...]

    `stride`, `padding` and `dilation` are one number, or one for each axis. Zeros are put around x: `padding` on
    either side; none for "valid"; for "same" (stride 1 only) as many as keep H and W, an odd one at the end.
    With `groups` the channels and the outputs fall into so many groups, each on its own.

    Raises `ShapeError` if the shapes do not fit or no window does, `DTypeError` if x holds no floats, `ValueError`
    for options that are none.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.conv2d(tr.ones(1, 3, 8, 8), tr.ones(5, 3, 3, 3), padding="same").shape
    (1, 5, 8, 8)
    """
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def _conv(
    name: str,
    d: int,
    x: Any,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    if weight.ndim != d + 2:
        raise ShapeError(
            f"{name}: the weight must be (O, C / groups, {'KH, KW' if d == 2 else 'K'}), got {weight.shape}"
        )
    outputs, inputs, *kernel = weight.shape
    stride, dilation = per_axis(name, "stride", stride, d), per_axis(name, "dilation", dilation, d)
    pads = paddings(name, padding, tuple(kernel), stride, dilation)
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or outputs % groups:
        raise ValueError(
            f"{name}: groups must be a positive integer that divides the {outputs} outputs, got {groups!r}"
        )
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"{name}: the bias must have shape ({outputs},), got {bias.shape}")
    x, single = _batch_last(name, d, x)
    if x.shape[0] != inputs * groups:
        shown = f"{groups} groups of {inputs}" if groups > 1 else str(inputs)
        raise ShapeError(f"{name}: the weight {weight.shape} is for {shown} channels, but the input has {x.shape[0]}")
    x = _padded(name, x, tuple(kernel), stride, dilation, pads)
    cols = windows(x, tuple(kernel), stride, dilation)
    *out, N = cols.shape[2:]
    rows, columns = inputs * math.prod(kernel), math.prod(out) * N
    if groups == 1:  # 2-D products are the fast ones
        y = ops.reshape(weight, (outputs, rows)) @ ops.reshape(cols, (rows, columns))
    else:
        W = ops.reshape(weight, (groups, outputs // groups, rows))
        y = ops.reshape(W @ ops.reshape(cols, (groups, rows, columns)), (outputs, columns))
    if bias is not None:
        y = y + ops.expand_dims(bias, 1)
    return _batch_first(ops.reshape(y, (outputs, *out, N)), single)


def max_pool1d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1
) -> Tensor:
    """`max_pool2d` along one axis: (N, C, L) becomes (N, C, L'), (C, L) becomes (C, L').

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.max_pool1d(tr.Tensor([[1.0, 5.0, 3.0, 4.0]]), 2).tolist()
    [[5.0, 4.0]]
    """
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation)


def max_pool2d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1
) -> Tensor:
    """The largest entry of each window of each channel of x (N, C, H, W), or (C, H, W): (N, C, H', W').

    `stride` is `kernel_size` unless given; H' is that of `conv2d`. What `padding`, at most half a window, puts around x
    is never the largest. Entries that are equally large share the gradient, as in `tr.max`.

    Raises as `conv2d` does.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([[[1.0, 2.0], [2.0, 0.0]]], requires_grad=True)
    >>> tr.nn.functional.max_pool2d(x, 2).sum().backward()
    >>> x.grad.tolist()
    [[[0.0, 0.5], [0.5, 0.0]]]
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation)


def _maxima(x: Tensor, *, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Tensor:
    """The largest entry of each of the windows of `x` (C, *S, N): (C, *O, N)."""
    return ops.max(windows(x, kernel, stride, dilation), axis=1)


def _maxima_forward(x: Array, *, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Array:
    first, *others = (x[key] for key in _taps(x.shape, kernel, stride, dilation))
    xp = namespace(x)
    y = xp.asarray(first, copy=True)
    for tap in others:
        xp.maximum(y, tap, out=y)
    return y


def _maxima_vjp(
    g: Array, y: Array, needs: Sequence[bool], x: Array, *, kernel: Lengths, stride: Lengths, dilation: Lengths
) -> Sequence[Any]:
    """What attains a maximum gets an equal share of its gradient; a maximum that is NaN, no one does."""
    xp = namespace(g)
    keys = list(_taps(x.shape, kernel, stride, dilation))
    attains = [x[key] == y for key in keys]
    share = g / xp.astype(xp.maximum(sum(attains[1:], xp.astype(attains[0], int)), 1), g.dtype)
    dx = zeros_beside(x, x.shape, g.dtype)
    for key, here in zip(keys, attains, strict=True):
        dx[key] += share * here
    return (dx,)


maxima = fused("max_pool", _maxima, _maxima_forward, _maxima_vjp)


def _max_pool(
    name: str, d: int, x: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes
) -> Tensor:
    kernel, steps, apart, pads = pooling(name, d, kernel_size, stride, padding, dilation)
    x, single = _batch_last(name, d, x)
    x = _padded(name, x, kernel, steps, apart, pads, value=-math.inf)
    return _batch_first(maxima(x, kernel=kernel, stride=steps, dilation=apart), single)


def avg_pool1d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, *, count_include_pad: bool = True
) -> Tensor:
    """`avg_pool2d` along one axis: (N, C, L) becomes (N, C, L'), (C, L) becomes (C, L').

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.avg_pool1d(tr.Tensor([[1.0, 5.0, 3.0, 4.0]]), 2).tolist()
    [[3.0, 3.5]]
    """
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, count_include_pad)


def avg_pool2d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, *, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window of each channel of x (N, C, H, W), or (C, H, W): (N, C, H', W').

    `stride` is `kernel_size` unless given; H' is that of `conv2d`. The zeros that `padding`, at most half a window,
    puts around x count, unless `count_include_pad` is False. Raises as `conv2d` does.

    >>> import tinygrad_rnn as tr
    >>> x = tr.ones(1, 2, 2)
    >>> tr.nn.functional.avg_pool2d(x, 2, padding=1).tolist()
    [[[0.25, 0.25], [0.25, 0.25]]]
    >>> tr.nn.functional.avg_pool2d(x, 2, padding=1, count_include_pad=False).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, count_include_pad)


def _avg_pool(
    name: str, d: int, x: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, count_include_pad: bool
) -> Tensor:
    kernel, steps, apart, pads = pooling(name, d, kernel_size, stride, padding, 1)
    x, single = _batch_last(name, d, x)
    options = kernel, steps, apart
    w = windows(_padded(name, x, *options, pads), *options)
    if count_include_pad:
        return _batch_first(ops.mean(w, axis=1), single)
    ones = full((1, *x.shape[1:-1], 1), 1.0, x.dtype, x.device)
    counts = ops.sum(windows(_padded(name, ones, *options, pads), *options), axis=1)
    return _batch_first(ops.sum(w, axis=1) / counts, single)


def _batch_last(name: str, d: int, x: Any) -> tuple[Tensor, bool]:
    """`x` (N, C, *S), or (C, *S), as (C, *S, N), and whether it was a single one."""
    x = x if isinstance(x, Tensor) else Tensor(x)
    if x.ndim not in (d + 1, d + 2):
        axes = "H, W" if d == 2 else "L"
        raise ShapeError(f"{name}: the input must be (N, C, {axes}) or (C, {axes}), got shape {x.shape}")
    if not (backend.is_floating(x.dtype) or backend.is_complex(x.dtype)):
        raise DTypeError(f"{name}: the input must be floats, got {x.dtype}")
    single = x.ndim == d + 1
    return (ops.expand_dims(x, -1) if single else ops.moveaxis(x, 0, -1)), single


def _batch_first(y: Tensor, single: bool) -> Tensor:
    """`y` (C, *S, N) as (N, C, *S), or (C, *S) for a single one."""
    return y[..., 0] if single else ops.moveaxis(y, -1, 0)


def _padded(
    name: str,
    x: Tensor,
    kernel: Lengths,
    stride: Lengths,
    dilation: Lengths,
    pads: Sequence[Lengths],
    value: float = 0.0,
) -> Tensor:
    """`x` (C, *S, N) with entries of `value` around it, or an error where no window fits."""
    if any(map(any, pads)):
        x = ops.pad(x, ((0, 0), *pads, (0, 0)), value)
    sizes = x.shape[1:-1]
    if min(_counts(sizes, kernel, stride, dilation)) < 1:
        spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
        raise ShapeError(f"{name}: windows of {spans} do not fit into an input of {sizes}, padding included")
    return x


def per_axis(name: str, what: str, value: Any, d: int, least: int = 1) -> Lengths:
    """An option as one number of at least `least` for each of `d` axes; else a `ValueError`."""
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * d
    wrong = [n for n in numbers if isinstance(n, bool) or not isinstance(n, int) or n < least]
    if len(numbers) != d or wrong:
        each = f", or {d} of them" if d > 1 else ""
        raise ValueError(f"{name}: {what} must be an integer of at least {least}{each}, got {value!r}")
    return numbers


def paddings(
    name: str, padding: Sizes | str, kernel: Lengths, stride: Lengths, dilation: Lengths
) -> list[tuple[int, int]]:
    """How many zeros stand before and after each axis for the `padding` of a convolution."""
    if padding == "same":
        if any(s > 1 for s in stride):
            raise ValueError(f'{name}: padding="same" needs a stride of 1, got {stride}')
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in totals]
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(f'{name}: padding must be a number, one for each axis, "same" or "valid", got {padding!r}')
    numbers = (0,) * len(kernel) if isinstance(padding, str) else per_axis(name, "padding", padding, len(kernel), 0)
    return [(n, n) for n in numbers]


def pooling(
    name: str, d: int, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes
) -> tuple[Lengths, Lengths, Lengths, list[tuple[int, int]]]:
    """The options of a pooling, checked: kernel, stride and dilation by axis, and what is put around it."""
    kernel = per_axis(name, "kernel_size", kernel_size, d)
    steps = kernel if stride is None else per_axis(name, "stride", stride, d)
    apart, around = per_axis(name, "dilation", dilation, d), per_axis(name, "padding", padding, d, 0)
    spans = tuple(a * (k - 1) + 1 for k, a in zip(kernel, apart, strict=True))
    if any(2 * p > n for p, n in zip(around, spans, strict=True)):
        raise ValueError(f"{name}: padding {around} is more than half of a window of {spans}")
    return kernel, steps, apart, [(p, p) for p in around]
