"""Parameter: a tensor that a module trains."""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.tensor.tensor import Tensor


class Parameter(Tensor):
    """A leaf that a `Module` lists among its parameters; it requires a gradient unless told otherwise (frozen).

    >>> import tinygrad_rnn as tr
    >>> tr.nn.Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype, device, requires_grad)

    def __repr__(self) -> str:
        return "Parameter" + super().__repr__().removeprefix("Tensor")
