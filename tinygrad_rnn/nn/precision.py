"""The precision of matrix products: that of a module, which says it with each product, and never of the process.

"float32": a product of float32 is IEEE float32. "tf32": a GPU that can (compute capability 8.0 and later) may round
both factors to TF32, float32 with 10 bits behind the point, and adds up in float32: faster, with errors of some 1e-3 of
the largest term. It is a permission: on the CPU, on older GPUs and for float64 it changes nothing, so that a model may
be trained with it on a GPU and go on anywhere.
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.kernels.cuda.linear import takes_tf32, tf32_forward, tf32_vjp
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.tensor import Tensor

PRECISIONS = ("float32", "tf32")


def check_precision(layer: str, precision: Any) -> str:
    """`precision` itself; `ValueError` unless it is "float32" or "tf32"."""
    if precision not in PRECISIONS:
        raise ValueError(f'{layer}: precision must be "float32" or "tf32", got {precision!r}')
    return str(precision)


def linear(x: Tensor, W: Tensor, b: Tensor | None, precision: str) -> Tensor:
    """x Wᵀ + b, and on the way back its derivatives, in this precision."""
    if precision == "float32":
        return ops.linear(x, W, b)
    return _linear(x, W) if b is None else _linear_bias(x, W, b)


_linear = fused("linear", lambda x, W: ops.linear(x, W), tf32_forward, tf32_vjp, takes_tf32)
_linear_bias = fused("linear_bias", lambda x, W, b: ops.linear(x, W, b), tf32_forward, tf32_vjp, takes_tf32)
