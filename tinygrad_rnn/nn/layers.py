"""Layers without time: Linear, Embedding, Dropout."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.nn import functional, init
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.tensor import backend, ops
from tinygrad_rnn.tensor.tensor import Tensor, box


class Linear(Module):
    """y = x Wᵀ + b for x (..., in_features), y (..., out_features).

    `weight` (out_features, in_features) and `bias` (out_features,), None without `bias`, both drawn from
    U(-1/√in_features, 1/√in_features) as PyTorch does. Raises `ShapeError` if the last axis of x is not
    in_features.

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
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        functional.check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        dtype = dtype or "float32"
        weight = init.uniform((out_features, in_features), -bound, bound, generator=generator)
        self.weight = Parameter(weight, dtype, device)
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(init.uniform((out_features,), -bound, bound, generator=generator), dtype, device)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")

    def forward(self, x: Any) -> Tensor:
        """The product; see the class."""
        x = functional.as_tensor(x)
        if not x.ndim or x.shape[-1] != self.in_features:
            raise ShapeError(f"Linear: in_features is {self.in_features}, but the input has shape {x.shape}")
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A row of `weight` (num_embeddings, embedding_dim) for each integer id: (...) becomes (..., embedding_dim).

    Rows are drawn from N(0, 1) as PyTorch does. Raises `ValueError` naming an id that is out of range
    (negative ids do not count from the end), `DTypeError` for ids that are no integers.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Embedding(10, 4)([[1, 2, 3]]).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        functional.check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        drawn = init.normal((num_embeddings, embedding_dim), generator=generator)
        self.weight = Parameter(drawn, dtype or "float32", device)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"

    def forward(self, ids: Any) -> Tensor:
        """The rows; see the class."""
        tensor = functional.as_tensor(ids)
        array = functional.integer_ids("Embedding: ids", tensor)
        functional.check_range("Embedding: id", array, self.num_embeddings)
        return ops.take(self.weight, box(backend.to_device(array, self.weight.device), None), axis=0)


class Dropout(Module):
    """Inverted dropout while training, the identity in `eval()`; see `functional.dropout`.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Dropout(0.5).eval()(tr.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        functional.check_probability("Dropout", p)
        self.p = p

    def extra_repr(self) -> str:
        return str(self.p)

    def forward(self, x: Any) -> Tensor:
        """`x` with elements dropped; see the class."""
        return functional.dropout(x, self.p, self.is_training())
