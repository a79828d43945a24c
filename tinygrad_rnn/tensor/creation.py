"""Tensors from nothing: constants, ranges and random numbers.

All are leaves, on the device that one asks for.
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.scalars import as_number
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.backend import namespace
from tinygrad_rnn.tensor.ops.shape import integers
from tinygrad_rnn.tensor.tensor import Tensor, made


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` mean the same; a `TypeError` for what is no integer."""
    return integers("a shape", shape[0] if len(shape) == 1 else shape)


def full(
    shape: int | tuple[int, ...],
    fill_value: float,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `shape` filled with `fill_value`; float32 for a float, int64 for an integer.

    Raises `DTypeError` for a value that the dtype does not hold.

    >>> import tinygrad_rnn as tr
    >>> tr.full((2,), 0.5)
    Tensor([0.5, 0.5], dtype=float32)
    """
    real = "float64" if backend.is_complex(dtype) else dtype
    number = as_number(fill_value)
    host = backend.filled(_shape((shape,)), fill_value if number is None else number, real)
    return Tensor(host, dtype, device=device, requires_grad=requires_grad)


def zeros(
    *shape: Any, dtype: Any = "float32", device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros: `tr.zeros(2, 3)` or `tr.zeros((2, 3))`; float32 without a `dtype`."""
    return full(_shape(shape), 0.0, dtype, device, requires_grad)


def ones(
    *shape: Any, dtype: Any = "float32", device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ones: `tr.ones(2, 3)` or `tr.ones((2, 3))`; float32 without a `dtype`."""
    return full(_shape(shape), 1.0, dtype, device, requires_grad)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """Evenly spaced values from `start` (0 if only one number is given) to below `stop`.

    Integers give int64, floats float32.

    >>> import tinygrad_rnn as tr
    >>> tr.arange(3).tolist()
    [0, 1, 2]
    """
    given = [as_number(v) for v in ((0, start, step) if stop is None else (start, stop, step))]
    if None in given:
        raise TypeError(
            f"arange: numbers are wanted, got {start!r:.60}, {stop!r:.60}, {step!r:.60}"
        )
    floats = any(isinstance(v, float) for v in given)
    dtype = dtype or ("float32" if floats else None)
    if floats and not backend.is_floating(backend.dtype_of(dtype)):
        for v in (given[0], given[2]):  # what the others are made of
            backend.fitting("arange: a start or a step of", v, backend.dtype_of(dtype))
    return Tensor(backend.ranged(*given), dtype=dtype, device=device)


def zeros_like(x: Any) -> Tensor:
    """A tensor of zeros of the shape, dtype and device of `x`, a Tensor or what one is made of."""
    like = (x if isinstance(x, Tensor) else Tensor(x))._array
    return made(namespace(like).zeros_like(like))


def ones_like(x: Any) -> Tensor:
    """A tensor of ones of the shape, dtype and device of `x`, a Tensor or what one is made of."""
    like = (x if isinstance(x, Tensor) else Tensor(x))._array
    return made(namespace(like).ones_like(like))


def randn(
    *shape: Any,
    dtype: Any = "float32",
    device: str | None = None,
    requires_grad: bool = False,
    generator: Any = None,
) -> Tensor:
    """Standard normal draws: `tr.randn(2, 3)`.

    They come from `generator` (a NumPy one), or else from the one that `manual_seed` seeds.

    >>> import tinygrad_rnn as tr
    >>> tr.manual_seed(0)
    >>> tr.randn(2, 3).shape
    (2, 3)
    """
    draws = (generator or random.generator()).standard_normal(_shape(shape))
    return Tensor(draws, dtype=dtype, device=device, requires_grad=requires_grad)


def rand(
    *shape: Any,
    dtype: Any = "float32",
    device: str | None = None,
    requires_grad: bool = False,
    generator: Any = None,
) -> Tensor:
    """Uniform draws from [0, 1): `tr.rand(2, 3)`.

    They come from `generator` (a NumPy one), or else from the one that `manual_seed` seeds.
    """
    draws = (generator or random.generator()).random(_shape(shape))
    return Tensor(draws, dtype=dtype, device=device, requires_grad=requires_grad)
