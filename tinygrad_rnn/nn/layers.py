"""Layers without time: Linear, Embedding, LayerNorm, Dropout, and activations as modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.errors import DTypeError, ShapeError
from tinygrad_rnn.nn import functional, init
from tinygrad_rnn.nn.checks import (
    as_tensor,
    check_number,
    check_one_of,
    check_probability,
    check_range,
    check_shape,
    check_sizes,
    integer_ids,
)
from tinygrad_rnn.nn.looked_up import look_up
from tinygrad_rnn.nn.module import Module, Parameter
from tinygrad_rnn.nn.precision import check_precision, linear
from tinygrad_rnn.tensor import backend, creation, ops
from tinygrad_rnn.tensor.tensor import Tensor, box


class Linear(Module):
    """y = x Wᵀ + b for x (..., in_features), y (..., out_features).

    `weight` (out_features, in_features) and `bias` (out_features,), None without `bias`, both drawn from
    U(-1/√in_features, 1/√in_features) as PyTorch does. With `precision="tf32"` a GPU may round what it multiplies:
    `nn/precision.py` says how. Raises `ShapeError` if the last axis of x is not in_features, `ValueError` for another
    precision.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Linear(3, 2)(tr.ones(5, 4, 3)).shape
    (5, 4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        precision: str = "float32",
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        self.precision = check_precision("Linear", precision)
        in_features, out_features = check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        dtype = dtype or "float32"
        weight = init.uniform((out_features, in_features), -bound, bound, generator=generator)
        self.weight = Parameter(weight, dtype, device)
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(init.uniform((out_features,), -bound, bound, generator=generator), dtype, device)

    def extra_repr(self) -> str:
        options = ("" if self.bias is not None else ", bias=False", f", precision={self.precision!r}")
        return f"{self.in_features}, {self.out_features}" + "".join(options[: 1 + (self.precision != "float32")])

    def forward(self, x: Any) -> Tensor:
        """The product; see the class."""
        x = as_tensor(x)
        if not x.ndim or x.shape[-1] != self.in_features:
            raise ShapeError(f"Linear: in_features is {self.in_features}, but the input has shape {x.shape}")
        return linear(x, self.weight, self.bias, self.precision)


class Embedding(Module):
    """A row of `weight` (num_embeddings, embedding_dim) for each integer id: (...) becomes (..., embedding_dim).

    Rows are drawn from N(0, 1) as PyTorch does. The row `padding_idx` (negative: from the end) starts as zeros,
    and looking it up gives it no gradient, so that it stays as it is. Where the weight is used elsewhere, tied to
    an output layer, what comes from there still reaches it.

    Raises `ValueError` naming an id or a `padding_idx` that is out of range (negative ids do not count from
    the end), `DTypeError` for ids that are no integers.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Embedding(10, 4)([[1, 2, 3]]).shape
    (1, 3, 4)
    >>> tr.nn.Embedding(10, 2, padding_idx=0)([0]).tolist()
    [[0.0, 0.0]]
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        num_embeddings, embedding_dim = check_sizes(
            "Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim
        )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        drawn = init.normal((num_embeddings, embedding_dim), generator=generator)
        if padding_idx is not None:
            padding_idx = check_one_of("Embedding: padding_idx", padding_idx, num_embeddings, "rows", -num_embeddings)
            padding_idx %= num_embeddings
            drawn[padding_idx] = 0
        self.padding_idx = padding_idx
        self.weight = Parameter(drawn, dtype or "float32", device)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

    def forward(self, ids: Any) -> Tensor:
        """The rows; see the class."""
        found = self.checked(ids)
        if found.size >= self.num_embeddings:
            return look_up(self.table(), found)
        rows = ops.take(self.weight, found, axis=0)
        if self.padding_idx is None:
            return rows
        return ops.where(ops.expand_dims(found == self.padding_idx, -1), rows.detach(), rows)

    def checked(self, ids: Any) -> Tensor:
        """`ids` as a Tensor beside the weight, if they are integers in range."""
        array = integer_ids("Embedding: ids", as_tensor(ids))
        check_range("Embedding: id", array, self.num_embeddings)
        return box(backend.to_device(array, self.weight.device), None)

    def reads_rows(self) -> bool:
        """Whether `forward` is this class's, which reads rows of `table()`: a subclass may do something else."""
        methods = ("__call__", "forward", "checked", "table")
        own = all(getattr(type(self), name) is getattr(Embedding, name) for name in methods)
        return own and not any(name in vars(self) for name in methods)

    def table(self) -> Tensor:
        """All rows, (num_embeddings, embedding_dim), as `forward` looks them up: no gradient for that of padding."""
        if self.padding_idx is None:
            return self.weight
        every = creation.arange(self.num_embeddings, device=self.weight.device)
        return ops.where(ops.expand_dims(every == self.padding_idx, -1), self.weight.detach(), self.weight)


class LayerNorm(Module):
    """Layer normalisation over the last axes; see `functional.layer_norm` for the equation.

    `normalized_shape` (a number or several) are the lengths of those axes. `weight`, ones at the start, and
    `bias`, zeros, have that shape; both are None with `elementwise_affine=False`, `bias` with `bias=False`.
    Raises `ShapeError` if the last axes of the input are others.

    >>> import tinygrad_rnn as tr
    >>> y = tr.nn.LayerNorm(4)(tr.Tensor([[1.0, 2.0, 3.0, 4.0]]))
    >>> [round(v, 3) for v in y[0].tolist()]
    [-1.342, -0.447, 0.447, 1.342]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
    ) -> None:
        shape, eps = check_shape("LayerNorm", "normalized_shape", normalized_shape), check_number("LayerNorm: eps", eps)
        if not (eps >= 0 and math.isfinite(eps)):
            raise ValueError(f"LayerNorm: eps must be finite and at least 0, got {eps!r}")
        self.normalized_shape, self.eps = shape, eps
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None
        if elementwise_affine:
            self.weight = Parameter(creation.ones(shape), dtype or "float32", device)
            if bias:
                self.bias = Parameter(creation.zeros(shape), dtype or "float32", device)

    def extra_repr(self) -> str:
        sizes = str(self.normalized_shape[0] if len(self.normalized_shape) == 1 else self.normalized_shape)
        return sizes + (f", eps={self.eps}" if self.eps != 1e-5 else "")

    def forward(self, x: Any) -> Tensor:
        """`x` normalised; see the class."""
        x = as_tensor(x)
        if self.weight is not None and x.dtype != self.weight.dtype:
            raise DTypeError(f"LayerNorm: the input is {x.dtype}, but the weight is {self.weight.dtype}")
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class Dropout(Module):
    """Inverted dropout while training, the identity in `eval()`; see `functional.dropout`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Dropout(0.5).eval()(tr.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability("Dropout", p)

    def extra_repr(self) -> str:
        return str(self.p)

    def forward(self, x: Any) -> Tensor:
        """`x` with elements dropped; see the class."""
        return functional.dropout(x, self.p, self.is_training())


class Tanh(Module):
    """`tr.tanh` as a module. `Sequential` takes the function itself, too.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Sequential(tr.nn.Tanh(), tr.relu)([[0.0]]).tolist()
    [[0.0]]
    """

    def forward(self, x: Any) -> Tensor:
        """tanh(x)."""
        return ops.tanh(as_tensor(x))


class Sigmoid(Module):
    """`tr.sigmoid` as a module."""

    def forward(self, x: Any) -> Tensor:
        """1 / (1 + exp(-x))."""
        return ops.sigmoid(as_tensor(x))


class ReLU(Module):
    """`tr.relu` as a module."""

    def forward(self, x: Any) -> Tensor:
        """max(x, 0)."""
        return ops.relu(as_tensor(x))


class LeakyReLU(Module):
    """`tr.leaky_relu` as a module.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.LeakyReLU(0.5)([-2.0, 2.0]).tolist()
    [-1.0, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = check_number("LeakyReLU: negative_slope", negative_slope)

    def extra_repr(self) -> str:
        return str(self.negative_slope)

    def forward(self, x: Any) -> Tensor:
        """x, or negative_slope x below 0."""
        return ops.leaky_relu(as_tensor(x), negative_slope=self.negative_slope)


class ELU(Module):
    """`tr.elu` as a module."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_number("ELU: alpha", alpha)

    def extra_repr(self) -> str:
        return str(self.alpha)

    def forward(self, x: Any) -> Tensor:
        """x, or alpha (exp(x) - 1) below 0."""
        return ops.elu(as_tensor(x), alpha=self.alpha)


class GELU(Module):
    """`tr.gelu` as a module; only the form with tanh is here, which PyTorch calls `approximate="tanh"`."""

    def __init__(self, approximate: str = "tanh") -> None:
        ops.gelu(0.0, approximate)  # refuses another form here, and not at the first call
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """x Φ(x), Φ approximated by tanh."""
        return ops.gelu(as_tensor(x), approximate=self.approximate)


class SiLU(Module):
    """`tr.silu` as a module."""

    def forward(self, x: Any) -> Tensor:
        """x σ(x)."""
        return ops.silu(as_tensor(x))


class Softplus(Module):
    """`tr.softplus` as a module."""

    def forward(self, x: Any) -> Tensor:
        """log(1 + exp(x))."""
        return ops.softplus(as_tensor(x))


class Softmax(Module):
    """`tr.softmax` as a module, over `axis` (PyTorch's `dim`).

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Softmax()([[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def extra_repr(self) -> str:
        return f"axis={self.axis}"

    def forward(self, x: Any) -> Tensor:
        """exp(x) / Σ exp(x)."""
        return ops.softmax(as_tensor(x), axis=self.axis)


class LogSoftmax(Softmax):
    """`tr.log_softmax` as a module, over `axis` (PyTorch's `dim`)."""

    def forward(self, x: Any) -> Tensor:
        """log softmax(x)."""
        return ops.log_softmax(as_tensor(x), axis=self.axis)
