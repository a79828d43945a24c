"""The derivative table: every op with its derivatives beside it.

`__all__` holds what users see as `tr.NAME`; names imported `as` themselves are for the engine and
kernels.
"""

from __future__ import annotations

# fmt: off
# isort: off
from tinygrad_rnn.tensor.ops.arithmetic import (
    add, subtract, multiply, divide, negative,
    maximum, minimum, clip, where,
    equal, not_equal, less, less_equal, greater, greater_equal,
    bitwise_and, bitwise_or, bitwise_xor, bitwise_invert,
    logical_and, logical_or, logical_xor, logical_not,
)
from tinygrad_rnn.tensor.ops.elementwise import (
    exp, expm1, log, log1p, sqrt, square, power, abs, sign,
    sin, cos, tanh,
    sigmoid, softplus, relu, leaky_relu, elu, silu, gelu,
    astype, identity as identity, to_device as to_device,
)
from tinygrad_rnn.tensor.ops.reduction import (
    sum, mean, prod, max, min, var, std, norm, cumsum,
    softmax, log_softmax, logsumexp,
    argmax, argmin, any, all,
    sum_to as sum_to,
)
from tinygrad_rnn.tensor.ops.shape import (
    reshape, transpose, swapaxes, moveaxis, squeeze, expand_dims, broadcast_to,
    concatenate, stack, split,
    flip, pad, tril, triu,
)
from tinygrad_rnn.tensor.ops.indexing import getitem, take, take_along_axis, assemble as assemble
from tinygrad_rnn.tensor.ops.linalg import matmul, einsum, linear, product as product

__all__ = [
    "add", "subtract", "multiply", "divide", "negative",
    "maximum", "minimum", "clip", "where",
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert",
    "logical_and", "logical_or", "logical_xor", "logical_not",
    "exp", "expm1", "log", "log1p", "sqrt", "square", "power", "abs", "sign",
    "sin", "cos", "tanh",
    "sigmoid", "softplus", "relu", "leaky_relu", "elu", "silu", "gelu",
    "astype",
    "sum", "mean", "prod", "max", "min", "var", "std", "norm", "cumsum",
    "softmax", "log_softmax", "logsumexp",
    "argmax", "argmin", "any", "all",
    "reshape", "transpose", "swapaxes", "moveaxis", "squeeze", "expand_dims", "broadcast_to",
    "concatenate", "stack", "split",
    "flip", "pad", "tril", "triu",
    "getitem", "take", "take_along_axis",
    "matmul", "einsum", "linear",
]
