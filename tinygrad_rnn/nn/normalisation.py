"""Batch normalisation: BatchNorm1d and BatchNorm2d. (LayerNorm, which knows no batch, stands with the other layers.)"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import functional
from tinygrad_rnn.nn.checks import as_tensor, check_number, check_size
from tinygrad_rnn.nn.module import Module, Parameter
from tinygrad_rnn.tensor import backend, creation
from tinygrad_rnn.tensor.tensor import Tensor


class _BatchNorm(Module):
    """The base of BatchNorm1d and BatchNorm2d. A call in train mode moves the buffers `running_mean`, `running_var` and
    `num_batches_tracked`.
    """

    shapes: ClassVar[dict[int, str]]
    never_half = ("running_mean", "running_var")  # a variance above 65504 is no float16
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
    ) -> None:
        name = type(self).__name__
        num_features, eps = check_size(name, num_features=num_features), check_number(f"{name}: eps", eps)
        if not (eps >= 0 and math.isfinite(eps)):
            raise ValueError(f"{name}: eps must be finite and at least 0, got {eps!r}")
        momentum = None if momentum is None else check_number(f"{name}: momentum", momentum)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"{name}: momentum must lie in [0, 1] or be None, got {momentum!r}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = bool(affine), bool(track_running_stats)
        dtype = dtype or "float32"
        ones, zeros = creation.ones(num_features), creation.zeros(num_features)
        self.weight = Parameter(ones, dtype, device) if affine else None
        self.bias = Parameter(zeros, dtype, device) if affine else None
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            wide = "float32" if backend.dtype_of(dtype) == "float16" else dtype
            self.register_buffer("running_mean", Tensor(zeros, wide, device))
            self.register_buffer("running_var", Tensor(ones, wide, device))
            self.register_buffer("num_batches_tracked", Tensor(0, "int64", device))

    def extra_repr(self) -> str:
        options = {
            "eps": (self.eps, 1e-5),
            "momentum": (self.momentum, 0.1),
            "affine": (self.affine, True),
            "track_running_stats": (self.track_running_stats, True),
        }
        return str(self.num_features) + "".join(f", {k}={v}" for k, (v, usual) in options.items() if v != usual)

    def forward(self, x: Any) -> Tensor:
        """`x` normalised; see the class."""
        name, x = type(self).__name__, as_tensor(x)
        if x.ndim not in self.shapes or x.shape[1] != self.num_features:
            wanted = " or ".join(self.shapes.values())
            raise ShapeError(f"{name}: the input must be {wanted} with C = {self.num_features}, got shape {x.shape}")
        if self.weight is not None and x.dtype != self.weight.dtype:
            raise DTypeError(f"{name}: the input is {x.dtype}, but the weight is {self.weight.dtype}")
        training, momentum, tracked = self.is_training(), self.momentum, self.num_batches_tracked
        if momentum is None:
            momentum = 0.0 if tracked is None else 1 / (tracked.item() + 1)
        training = training or self.running_mean is None
        affine, running = (self.weight, self.bias), (self.running_mean, self.running_var)
        y = functional.batch_norm(x, *running, *affine, training, momentum, self.eps)
        if training and tracked is not None and functional.first_run():
            tracked.assign_(tracked + 1)
        return y


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); see `functional.batch_norm` for the equation.

    While training each channel is normalised by the statistics of the batch, and `running_mean`, `running_var` (C,)
    and `num_batches_tracked`, buffers, keep their moving average: a new batch counts `momentum`, or, with None, as
    much as any before. In `eval()` those are taken; without `track_running_stats` there are none, and the batch's own
    are. `weight` (C,), ones at the start, and `bias` (C,), zeros, are None without `affine`. Of float16 the statistics
    are float32, in `to("float16")`, too.

    Raises `ShapeError` for another shape, and while training for a batch with fewer than two values per channel,
    `DTypeError` for an input of another dtype.

    >>> import tinygrad_rnn as tr
    >>> norm = tr.nn.BatchNorm1d(1, eps=0.0)
    >>> norm([[1.0], [3.0]]).tolist()
    [[-1.0], [1.0]]
    >>> norm.running_mean.tolist()  # 0.9 * 0 + 0.1 * 2
    [0.2...]
    """

    shapes: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W), otherwise as `BatchNorm1d`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.BatchNorm2d(3)(tr.randn(2, 3, 4, 4)).shape
    (2, 3, 4, 4)
    """

    shapes: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}
