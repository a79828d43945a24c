"""x Wᵀ + b on a GPU, and its derivatives, in a precision that is said with each product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.kernels.cuda import by_rows, has_cuda_kernels
from tinygrad_rnn.kernels.cuda.cublas import Products
from tinygrad_rnn.tensor.backend import Array, namespace


def takes_tf32(arrays: Sequence[Any]) -> bool:
    """Whether these are float32 on a GPU, whose products may be of another precision."""
    return str(arrays[0].dtype) == "float32" and has_cuda_kernels(*arrays)


def tf32_forward(x: Array, W: Array, b: Array | None = None) -> Array:
    """x (..., I) and W (O, I) give (..., O); b is (O,) or None."""
    if x.shape[-1:] != W.shape[1:] or (b is not None and b.shape != W.shape[:1]):
        raise ShapeError(
            f"linear: x {x.shape}, W {W.shape}, b {getattr(b, 'shape', None)} are not (..., I), (O, I), (O,)"
        )
    rows, (outputs, inputs) = math.prod(x.shape[:-1]), W.shape
    y: Any = product(by_rows(x), by_rows(W), rows, outputs, inputs, (False, True)).reshape(*x.shape[:-1], outputs)
    if b is not None:
        y += b
    return y  # type: ignore[no-any-return]


def tf32_vjp(g: Array, _: None, needs: tuple[bool, ...], x: Array, W: Array, b: Array | None = None) -> Sequence[Any]:
    """Gradients of x, W and b."""
    rows, (outputs, inputs) = math.prod(x.shape[:-1]), W.shape
    g = by_rows(g)
    dx = product(g, by_rows(W), rows, inputs, outputs).reshape(x.shape) if needs[0] else None
    dW = product(g, by_rows(x), outputs, inputs, rows, (True, False)) if needs[1] else None
    return (dx, dW) if b is None else (dx, dW, g)


def product(a: Array, b: Array, m: int, n: int, k: int, turned: tuple[bool, bool] = (False, False)) -> Array:
    """A (m, k) times B (k, n); where `turned`, one that lies in memory the other way."""
    xp: Any = namespace(a)
    if not m * n * k:
        return xp.zeros((m, n), dtype=a.dtype)  # type: ignore[no-any-return]
    y = xp.empty((m, n), dtype=a.dtype)
    Products("float32", "tf32").multiply(a.data.ptr, b.data.ptr, y.data.ptr, m, n, k, turned)  # type: ignore[attr-defined]
    return y  # type: ignore[no-any-return]
