"""The derivative table: every op with its derivatives beside it.

`__all__` holds what users see as `tr.NAME`. The names imported `as` themselves are for the engine and for kernels.
"""

from __future__ import annotations

from tinygrad_rnn.tensor.ops.arithmetic import (
    add,
    clip,
    divide,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    subtract,
    where,
)
from tinygrad_rnn.tensor.ops.elementwise import (
    abs,
    astype,
    cos,
    elu,
    exp,
    expm1,
    gelu,
    leaky_relu,
    log,
    log1p,
    power,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    sqrt,
    square,
    tanh,
)
from tinygrad_rnn.tensor.ops.elementwise import identity as identity
from tinygrad_rnn.tensor.ops.elementwise import to_device as to_device
from tinygrad_rnn.tensor.ops.indexing import assemble as assemble
from tinygrad_rnn.tensor.ops.indexing import getitem, take, take_along_axis
from tinygrad_rnn.tensor.ops.indexing import part as part
from tinygrad_rnn.tensor.ops.linalg import einsum, linear, matmul
from tinygrad_rnn.tensor.ops.linalg import product as product
from tinygrad_rnn.tensor.ops.reduction import (
    argmax,
    argmin,
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    std,
    sum,
    var,
)
from tinygrad_rnn.tensor.ops.reduction import sum_to as sum_to
from tinygrad_rnn.tensor.ops.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    pad,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
    tril,
    triu,
)

__all__ = [
    # arithmetic
    "add",
    "subtract",
    "multiply",
    "divide",
    "negative",
    "maximum",
    "minimum",
    "clip",
    "where",
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    # elementwise
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "square",
    "power",
    "abs",
    "sign",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "softplus",
    "relu",
    "leaky_relu",
    "elu",
    "silu",
    "gelu",
    "astype",
    # reduction
    "sum",
    "mean",
    "prod",
    "max",
    "min",
    "var",
    "std",
    "norm",
    "cumsum",
    "softmax",
    "log_softmax",
    "logsumexp",
    "argmax",
    "argmin",
    # shape
    "reshape",
    "transpose",
    "swapaxes",
    "moveaxis",
    "squeeze",
    "expand_dims",
    "broadcast_to",
    "concatenate",
    "stack",
    "split",
    "flip",
    "pad",
    "tril",
    "triu",
    # indexing
    "getitem",
    "take",
    "take_along_axis",
    # linalg
    "matmul",
    "einsum",
    "linear",
]
