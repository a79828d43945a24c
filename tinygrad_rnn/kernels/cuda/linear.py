"""Products of matrices on a GPU, and x Wᵀ + b with its derivatives in a precision that is said with each product."""

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


def product(
    a: Array,
    b: Array,
    m: int,
    n: int,
    k: int,
    turned: tuple[bool, bool] = (False, False),
    precision: str = "tf32",
) -> Array:
    """A (m, k) times B (k, n); where `turned`, one that lies in memory the other way."""
    xp: Any = namespace(a)
    if not m * n * k:
        return xp.zeros((m, n), dtype=a.dtype)  # type: ignore[no-any-return]
    y = xp.empty((m, n), dtype=a.dtype)
    products = Products(str(a.dtype), precision)
    products.multiply(a.data.ptr, b.data.ptr, y.data.ptr, m, n, k, turned)  # type: ignore[attr-defined]
    return y  # type: ignore[no-any-return]


def multiplies(a: Any, b: Any) -> bool:
    """Whether `multiply` takes these: matrices of float32 or float64 on a GPU."""
    return getattr(a, "ndim", 0) == getattr(b, "ndim", 0) == 2 and has_cuda_kernels(a, b)


def multiply(a: Array, b: Array) -> Array:
    """`a @ b` of two matrices, each row by row or column by column in memory, or else copied."""
    if a.shape[1] != b.shape[0]:
        raise ShapeError(f"a product of matrices {a.shape} and {b.shape}, which do not fit")
    turned = tuple([not x.flags.c_contiguous and x.flags.f_contiguous for x in (a, b)])
    a, b = (x if turn else by_rows(x) for x, turn in zip((a, b), turned, strict=True))
    return product(a, b, a.shape[0], b.shape[1], a.shape[1], turned, "float32")  # type: ignore[arg-type]
