"""Convolution and pooling as layers, over sequences (1d) and pictures (2d)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from tinygrad_rnn.nn import functional, init, windows
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.nn.windows import Sizes
from tinygrad_rnn.tensor.tensor import Tensor


class _Conv(Module):
    """What convolutions along one and two axes share."""

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
        functional.check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: {in_channels} and {out_channels} channels do not fall into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = windows.per_axis(name, "kernel_size", kernel_size, self.axes)
        self.stride = windows.per_axis(name, "stride", stride, self.axes)
        self.dilation = windows.per_axis(name, "dilation", dilation, self.axes)
        windows.paddings(name, padding, self.kernel_size, self.stride, self.dilation)  # refuses a wrong one here
        self.padding = padding
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

    axes, function = 1, staticmethod(windows.conv1d)


class Conv2d(_Conv):
    """A convolution over the last two axes, learnt: (N, in_channels, H, W) becomes (N, out_channels, H', W').

    Without N, too. Arguments, sizes and errors are those of `functional.conv2d`. `weight` (out_channels, in_channels /
    groups, KH, KW) and `bias` (out_channels,), None without `bias`, are drawn from U(-b, b) with
    b = 1 / √(in_channels / groups · KH · KW), as PyTorch does.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Conv2d(1, 8, 3, padding="same")(tr.ones(2, 1, 28, 28)).shape
    (2, 8, 28, 28)
    """

    axes, function = 2, staticmethod(windows.conv2d)


class _MaxPool(Module):
    """What maxima along one and two axes share."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1
    ) -> None:
        found = windows.pooling(type(self).__name__, self.axes, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.dilation, _ = found
        self.padding = padding

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

    axes, function = 1, staticmethod(windows.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest entry of each window over the last two axes; see `functional.max_pool2d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.MaxPool2d(2)([[[1.0, 5.0], [3.0, 4.0]]]).tolist()
    [[[5.0]]]
    """

    axes, function = 2, staticmethod(windows.max_pool2d)


class _AvgPool(Module):
    """What means along one and two axes share."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, *, count_include_pad: bool = True
    ) -> None:
        self.kernel_size, self.stride, *_ = windows.pooling(
            type(self).__name__, self.axes, kernel_size, stride, padding, 1
        )
        self.padding, self.count_include_pad = padding, count_include_pad

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

    axes, function = 1, staticmethod(windows.avg_pool1d)


class AvgPool2d(_AvgPool):
    """The mean of each window over the last two axes; see `functional.avg_pool2d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.AvgPool2d(2)([[[1.0, 5.0], [3.0, 4.0]]]).tolist()
    [[[3.25]]]
    """

    axes, function = 2, staticmethod(windows.avg_pool2d)


def _pooling_repr(pool: _MaxPool | _AvgPool) -> str:
    stride = f", stride={_short(pool.stride)}" if pool.stride != pool.kernel_size else ""
    return f"{_short(pool.kernel_size)}{stride}" + (f", padding={pool.padding}" if pool.padding else "")


def _short(sizes: Any) -> Any:
    """One number where all axes have the same."""
    return sizes[0] if isinstance(sizes, tuple) and len(set(sizes)) == 1 else sizes
