"""Convolution and pooling over the windows of a sequence (1d) or of a picture (2d), as functions and as layers.

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
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.kernels.pooling import Lengths, maxima_forward, maxima_vjp, taps, window_counts
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.checks import as_optional, as_tensor, check_sizes
from tinygrad_rnn.nn.module import Module, Parameter
from tinygrad_rnn.scalars import as_integer, as_integers
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.backend import Array, namespace, zeros_beside
from tinygrad_rnn.tensor.creation import full
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.op import Operand, in_float32, op
from tinygrad_rnn.tensor.tensor import Tensor

Sizes = int | Sequence[int]


@op(lambda g, x_shape, kernel, stride, dilation: overlap_add(g, x_shape, kernel, stride, dilation))
def windows(x: Operand, kernel: Lengths, stride: Lengths, dilation: Lengths) -> Array:
    """The windows of `x` (C, *S, N) side by side: (C, K, *O, N), where K = prod(`kernel`).

    Along each of the axes S, O = (S - dilation (kernel - 1) - 1) // stride + 1 windows begin `stride` apart, and the
    entries of one stand `dilation` apart.
    """
    return namespace(x).stack([x[key] for key in taps(x.shape, kernel, stride, dilation)], axis=1)


@op(lambda g, kernel, stride, dilation: windows(g, kernel, stride, dilation))
def overlap_add(w: Operand, shape: tuple[int, ...], kernel: Lengths, stride: Lengths, dilation: Lengths) -> Array:
    """Zeros of `shape` to which every one of the `windows` (C, K, *O, N) was added where it came from."""
    x = zeros_beside(w, shape, w.dtype)
    for k, key in enumerate(taps(shape, kernel, stride, dilation)):
        x[key] += w[:, k, ...]
    return x


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
    weight, bias = as_tensor(weight), as_optional(bias)
    if weight.ndim != d + 2:
        raise ShapeError(
            f"{name}: the weight must be (O, C / groups, {'KH, KW' if d == 2 else 'K'}), got {weight.shape}"
        )
    outputs, inputs, *kernel = weight.shape
    stride, dilation = per_axis(name, "stride", stride, d), per_axis(name, "dilation", dilation, d)
    pads = paddings(name, padding, tuple(kernel), stride, dilation)
    count = as_integer(groups)
    if count is None or count < 1 or outputs % count:
        raise ValueError(
            f"{name}: groups must be a positive integer that divides the {outputs} outputs, got {groups!r}"
        )
    groups = count
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


maxima = fused("max_pool", _maxima, maxima_forward, maxima_vjp)


def _max_pool(
    name: str, d: int, x: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes
) -> Tensor:
    kernel, steps, apart, pads = pooling(name, d, kernel_size, stride, padding, dilation)
    x, single = _batch_last(name, d, x)
    x = _padded(name, x, kernel, steps, apart, pads, value=-math.inf)
    return _batch_first(maxima(x, kernel=kernel, stride=steps, dilation=apart), single)


@in_float32
def avg_pool1d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, *, count_include_pad: bool = True
) -> Tensor:
    """`avg_pool2d` along one axis: (N, C, L) becomes (N, C, L'), (C, L) becomes (C, L').

    >>> import tinygrad_rnn as tr
    >>> tr.nn.functional.avg_pool1d(tr.Tensor([[1.0, 5.0, 3.0, 4.0]]), 2).tolist()
    [[3.0, 3.5]]
    """
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, count_include_pad)


@in_float32
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
    if min(window_counts(sizes, kernel, stride, dilation)) < 1:
        spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
        raise ShapeError(f"{name}: windows of {spans} do not fit into an input of {sizes}, padding included")
    return x


def per_axis(name: str, what: str, value: Any, d: int, least: int = 1) -> Lengths:
    """An option as one number of at least `least` for each of `d` axes; else a `ValueError`."""
    numbers = as_integers(value) or ()
    if as_integer(value) is not None:
        numbers *= d
    if len(numbers) != d or min(numbers) < least:
        each = f", or {d} of them" if d > 1 else ""
        raise ValueError(f"{name}: {what} must be an integer of at least {least}{each}, got {value!r}")
    return numbers


def paddings(
    name: str, padding: Sizes | str, kernel: Lengths, stride: Lengths, dilation: Lengths
) -> list[tuple[int, int]]:
    """How many zeros stand before and after each axis for the `padding` of a convolution."""
    if isinstance(padding, str) and padding == "same":
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


# --- the layers -----------------------------------------------------------------------------------


class _Conv(Module):
    """The base of Conv1d and Conv2d."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        name = type(self).__name__
        in_channels, out_channels, groups = check_sizes(
            name, in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: {in_channels} and {out_channels} channels do not fall into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.axes)
        self.stride = per_axis(name, "stride", stride, self.axes)
        self.dilation = per_axis(name, "dilation", dilation, self.axes)
        paddings(name, padding, self.kernel_size, self.stride, self.dilation)  # refuses a wrong one here
        self.padding = _plain(padding)
        dtype = dtype or "float32"
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = Parameter(init.uniform(shape, -bound, bound, generator=generator), dtype, device)
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(init.uniform((out_channels,), -bound, bound, generator=generator), dtype, device)

    def forward(self, x: Any) -> Tensor:
        """The convolution; see the class."""
        return self.function(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        one = (1,) * self.axes
        options = {
            "stride": (self.stride, one),
            "padding": (self.padding, 0),
            "dilation": (self.dilation, one),
            "groups": (self.groups, 1),
            "bias": (self.bias is not None, True),
        }
        shown = [f"{k}={_short(v)!r}" for k, (v, default) in options.items() if v != default]
        return ", ".join(map(str, [self.in_channels, self.out_channels, _short(self.kernel_size), *shown]))


class Conv1d(_Conv):
    """A convolution along the last axis, learnt: (N, in_channels, L) becomes (N, out_channels, L').

    Without N, too. Arguments, L' and errors are those of `functional.conv2d`, along one axis. `weight`
    (out_channels, in_channels / groups, kernel_size) and `bias` (out_channels,), None without `bias`, are drawn from
    U(-b, b) with b = 1 / √(in_channels / groups · kernel_size), as PyTorch does.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Conv1d(40, 64, 5, stride=2, padding=2)(tr.ones(3, 40, 100)).shape
    (3, 64, 50)
    """

    axes, function = 1, staticmethod(conv1d)


class Conv2d(_Conv):
    """A convolution over the last two axes, learnt: (N, in_channels, H, W) becomes (N, out_channels, H', W').

    Without N, too. Arguments, sizes and errors are those of `functional.conv2d`. `weight` (out_channels, in_channels /
    groups, KH, KW) and `bias` (out_channels,), None without `bias`, are drawn from U(-b, b) with
    b = 1 / √(in_channels / groups · KH · KW), as PyTorch does.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Conv2d(1, 8, 3, padding="same")(tr.ones(2, 1, 28, 28)).shape
    (2, 8, 28, 28)
    """

    axes, function = 2, staticmethod(conv2d)


class _MaxPool(Module):
    """The base of MaxPool1d and MaxPool2d."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1
    ) -> None:
        found = pooling(type(self).__name__, self.axes, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.dilation, _ = found
        self.padding = _plain(padding)

    def forward(self, x: Any) -> Tensor:
        """The maxima; see the class."""
        return self.function(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        dilation = f", dilation={_short(self.dilation)}" if max(self.dilation) > 1 else ""
        return _pooling_repr(self) + dilation


class MaxPool1d(_MaxPool):
    """The largest entry of each window along the last axis; see `functional.max_pool1d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.MaxPool1d(2)([[1.0, 5.0, 3.0, 4.0]]).tolist()
    [[5.0, 4.0]]
    """

    axes, function = 1, staticmethod(max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest entry of each window over the last two axes; see `functional.max_pool2d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.MaxPool2d(2)([[[1.0, 5.0], [3.0, 4.0]]]).tolist()
    [[[5.0]]]
    """

    axes, function = 2, staticmethod(max_pool2d)


class _AvgPool(Module):
    """The base of AvgPool1d and AvgPool2d."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, *, count_include_pad: bool = True
    ) -> None:
        self.kernel_size, self.stride, *_ = pooling(type(self).__name__, self.axes, kernel_size, stride, padding, 1)
        self.padding, self.count_include_pad = _plain(padding), bool(count_include_pad)

    def forward(self, x: Any) -> Tensor:
        """The means; see the class."""
        return self.function(x, self.kernel_size, self.stride, self.padding, count_include_pad=self.count_include_pad)

    def extra_repr(self) -> str:
        return _pooling_repr(self) + ("" if self.count_include_pad else ", count_include_pad=False")


class AvgPool1d(_AvgPool):
    """The mean of each window along the last axis; see `functional.avg_pool1d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.AvgPool1d(2)([[1.0, 5.0, 3.0, 4.0]]).tolist()
    [[3.0, 3.5]]
    """

    axes, function = 1, staticmethod(avg_pool1d)


class AvgPool2d(_AvgPool):
    """The mean of each window over the last two axes; see `functional.avg_pool2d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.AvgPool2d(2)([[[1.0, 5.0], [3.0, 4.0]]]).tolist()
    [[[3.25]]]
    """

    axes, function = 2, staticmethod(avg_pool2d)


def _pooling_repr(pool: _MaxPool | _AvgPool) -> str:
    stride = f", stride={_short(pool.stride)}" if pool.stride != pool.kernel_size else ""
    return f"{_short(pool.kernel_size)}{stride}" + (f", padding={pool.padding}" if pool.padding else "")


def _plain(padding: Any) -> Any:
    """A padding that has been checked, in its form, of Python's integers."""
    one = as_integer(padding)
    return padding if isinstance(padding, str) else as_integers(padding) if one is None else one


def _short(sizes: Any) -> Any:
    """One number where all axes have the same."""
    return sizes[0] if isinstance(sizes, tuple) and len(set(sizes)) == 1 else sizes
