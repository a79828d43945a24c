"""PyTorch's ops said in ours: small functions that take PyTorch's arguments and call our ops.

`OPS` has, under the name of each of our ops, the names of PyTorch's that judge it. `COMPOSED` are ops of PyTorch that
we do not have and that are a line or two of ours: they judge chains of ops, broadcasting and accumulation. A sample
that asks for what ours does not have is refused, with one of `REASONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

import tinygrad_rnn as tr
from tinygrad_rnn.tensor.ops.shape import axes_of

F = tr.nn.functional
Adapter = Callable[..., Any]

REASONS = {
    "complex": "complex numbers: tensors are real here",
    "bfloat16": "bfloat16, which NumPy does not have",
    "65 axes": "more than 64 axes, which NumPy does not have",
    "no tensor": "no tensor among the arguments: that is Python's arithmetic",
    "erf": "gelu: only the form with tanh is here",
    "matrix norm": "norm: nuclear and spectral norms of matrices",
    "class weight": "cross_entropy, nll_loss: no weight per class",
    "probabilities": "cross_entropy: targets are ids, not probabilities",
    "nothing counts": "cross_entropy, nll_loss: the mean over nothing is 0 here and NaN in PyTorch",
    "pos_weight": "binary_cross_entropy_with_logits: no pos_weight",
    "out": "no results are written into given arrays",
    "proj_size": "LSTM: no proj_size",
    "drawn": "dropout: each library draws its own random numbers",
    "negative pad": "pad: negative widths",
    "empty gather": "take_along_axis: no ids at all, in another number of axes",
    "no dots": "einsum: `...` of the operands must be in the output, as in NumPy",
    "silu of -inf": "silu: 0, its limit, of -inf; PyTorch has NaN",
    "sign of NaN": "sign: NaN of NaN, as in NumPy; PyTorch has 0",
    "power at 0": "norms made of powers have no gradient at 0 (ours, of order 2, has)",
    "row of -inf": "softmax, log_softmax: a row of -inf alone is zeros, or -inf, here and NaN in PyTorch",
    "broadcast loss": "losses of shapes that differ are an error here",
    "max_norm": "embedding: no max_norm, which changes the weight",
    "added keys": "MultiheadAttention: no add_bias_kv, no add_zero_attn",
    "no channels": "batch_norm: an input has a batch and channels",
    "empty batch": "batch_norm: nothing has no mean, and is an error",
    "one bias": "BatchNorm1d, BatchNorm2d: weight and bias are there together",
    "ceil_mode": "pooling: no windows that reach past the end",
    "places": "max_pool1d, max_pool2d: the values only",
    "divisor": "avg_pool2d: the divisor is the size of a window",
    "sparse": "embedding: no sparse gradients",
    "mean of nothing": "var, std of nothing: NaN, but with NumPy's warning",
    "norm of nothing": "norm: sums of no rows or columns have no largest",
    "scale_grad_by_freq": "embedding: no scale_grad_by_freq",
}


class Refused(Exception):
    """A sample that asks for what ours does not have; `reason` is a key of REASONS."""

    def __init__(self, reason: str) -> None:
        assert reason in REASONS
        super().__init__(REASONS[reason])
        self.reason = reason


def refuse_if(condition: Any, reason: str) -> None:
    if condition:
        raise Refused(reason)


def axes(x: Any, dim: Any) -> Any:
    """PyTorch's `dim` of a reduction as our `axis`: no axes at all mean all there, and numbers have an axis 0."""
    if dim is None or x.ndim == 0 or (isinstance(dim, Sequence) and not dim):
        return None
    return tuple(dim) if isinstance(dim, Sequence) else dim


def lifted(x: Any) -> Any:
    """A number as the vector of length 1 for which PyTorch takes it."""
    return x if x.ndim else tr.reshape(x, (1,))


def cast(x: Any, dtype: Any) -> Any:
    return tr.astype(x, dtype) if dtype is not None and isinstance(x, tr.Tensor) else x


def scaled(x: Any, alpha: Any) -> Any:
    return x if type(alpha) is int and alpha == 1 else x * alpha


def sized(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes or axes given one by one or as one sequence."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], Sequence) else args


def along(x: Any, dim: int, key: Any) -> Any:
    (axis,) = axes_of(dim, x.ndim)
    return tr.getitem(x, (*(slice(None),) * axis, key, ...))


# ---- arithmetic


def add(x: Any, other: Any, *, alpha: Any = 1) -> Any:
    return tr.add(x, scaled(other, alpha))


def sub(x: Any, other: Any, *, alpha: Any = 1) -> Any:
    return tr.subtract(x, scaled(other, alpha))


def rsub(x: Any, other: Any, *, alpha: Any = 1) -> Any:
    return tr.subtract(other, scaled(x, alpha))


def swapped(f: Adapter) -> Adapter:
    return lambda x, other: f(other, x)


def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """Bounds that are tensors are `maximum` and `minimum`."""
    if isinstance(min, tr.Tensor) or isinstance(max, tr.Tensor):
        x = x if min is None else tr.maximum(x, min)
        return x if max is None else tr.minimum(x, max)
    return tr.clip(x, min, max)


def sign(x: Any) -> Any:
    refuse_if(np.isnan(x.data).any(), "sign of NaN")
    return tr.sign(x)


def softplus(x: Any, *, beta: float = 1, threshold: float = 20) -> Any:
    return tr.where(beta * x > threshold, x, tr.softplus(beta * x) / beta)


def silu(x: Any) -> Any:
    refuse_if(np.isneginf(x.data).any(), "silu of -inf")
    return tr.silu(x)


def gelu(x: Any, *, approximate: str = "none") -> Any:
    refuse_if(approximate == "none", "erf")
    return tr.gelu(x, approximate)


def to(x: Any, *args: Any, memory_format: Any = None) -> Any:
    given = [a for a in args if isinstance(a, str) and a != "cpu"]
    given += [a.dtype for a in args if isinstance(a, tr.Tensor)]
    return tr.astype(x, given[0])


def as_dtype(name: str) -> Adapter:
    return lambda x, *, memory_format=None: tr.astype(x, name)


# ---- reductions


def reduction(f: Adapter) -> Adapter:
    def adapter(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        return f(cast(x, dtype), axes(x, dim), keepdims=keepdim)

    return adapter


def extreme(f: Adapter, place: Adapter) -> Adapter:
    """PyTorch's max and min over an axis return the places, too."""

    def adapter(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        value = f(x, axes(x, dim), keepdims=keepdim)
        return value if dim is None else [value, place(x, axes(x, dim), keepdims=keepdim)]

    return adapter


def aminmax(x: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return [f(x, axes(x, dim), keepdims=keepdim) for f in (tr.min, tr.max)]


def spread(f: Adapter, mean: bool = False) -> Adapter:
    """var and std: PyTorch divides by n - 1 unless told otherwise. With `mean`, that too."""

    def adapter(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
        refuse_if(not x.size, "mean of nothing")
        if isinstance(dim, bool):  # the overload that takes no axes
            dim, unbiased = None, dim
        ddof = correction if correction is not None else 0 if unbiased is False else 1
        y = f(x, axes(x, dim), ddof, keepdims=keepdim)
        return [y, tr.mean(x, axes(x, dim), keepdims=keepdim)] if mean else y

    return adapter


def vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The 2-norm is ours, the others are made of powers."""
    x, axis = cast(x, dtype), axes(x, dim)
    if ord == 2:
        return tr.norm(x, axis, keepdims=keepdim)
    a = tr.abs(x)
    if math.isinf(ord):
        return (tr.max if ord > 0 else tr.min)(a, axis, keepdims=keepdim)
    if ord == 0:
        return tr.sum(tr.astype(x != 0, x.dtype), axis, keepdims=keepdim)
    if ord == 1:
        return tr.sum(a, axis, keepdims=keepdim)
    sums = tr.sum(a**ord, axis, keepdims=keepdim)
    refuse_if(ord > 1 and bool((sums.data == 0).any()), "power at 0")
    return sums ** (1 / ord)


def matrix_norm(x: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    refuse_if(ord in ("nuc", 2, -2), "matrix norm")
    x, dims = cast(x, dtype), tuple(d % x.ndim for d in dim)
    if ord == "fro":
        return tr.norm(x, dims, keepdims=keepdim)
    refuse_if(0 in (x.shape[d] for d in dims), "norm of nothing")
    first, second = dims if abs(ord) == 1 else reversed(dims)
    y = (tr.max if ord > 0 else tr.min)(tr.sum(tr.abs(x), first, keepdims=True), second, keepdims=True)
    return y if keepdim else tr.squeeze(y, dims)


def linalg_norm(x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    dims = dim if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if ord is not None and len(dims or range(x.ndim)) == 2:
        return matrix_norm(x, ord, dims or (0, 1), keepdim, dtype=dtype)
    return vector_norm(x, 2 if ord is None else ord, dims, keepdim, dtype=dtype)


def norm(x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    refuse_if(p == "nuc", "matrix norm")
    return vector_norm(x, 2 if p == "fro" else p, dim, keepdim, dtype=dtype)


def of_axis(f: Adapter) -> Adapter:
    """What keeps the shape and works along one axis."""

    def adapter(x: Any, dim: int, *, dtype: Any = None) -> Any:
        return tr.reshape(f(lifted(cast(x, dtype)), axis=dim), x.shape)

    return adapter


# ---- shapes


def reshape(x: Any, *shape: Any) -> Any:
    return tr.reshape(x, sized(shape))


def like(f: Adapter) -> Adapter:
    return lambda x, other: f(x, other.shape)


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    x = lifted(x)
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return tr.reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Any:
    rest = x.shape[dim] // math.prod(n for n in sizes if n != -1) if -1 in sizes else 0
    sizes = [rest if n == -1 else n for n in sizes]
    return tr.reshape(x, (*x.shape[: dim % x.ndim], *sizes, *x.shape[dim % x.ndim + 1 :]))


def permute(x: Any, *dims: Any) -> Any:
    return tr.transpose(x, sized(dims))


def transpose(x: Any, dim0: int, dim1: int) -> Any:
    return tr.reshape(tr.swapaxes(lifted(x), dim0, dim1), x.shape) if x.ndim < 2 else tr.swapaxes(x, dim0, dim1)


def movedim(x: Any, source: Any, destination: Any) -> Any:
    return tr.moveaxis(x, *(tuple(d) if isinstance(d, Sequence) else d for d in (source, destination)))


def squeeze(x: Any, dim: Any = None) -> Any:
    """PyTorch passes over an axis that is longer than 1."""
    dims = dim if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    return tr.squeeze(x, dims and tuple(d for d in dims if x.ndim and x.shape[d] == 1))


def expand(x: Any, *shape: Any) -> Any:
    """-1 keeps a size."""
    shape = sized(shape)
    return tr.broadcast_to(x, [x.shape[i - len(shape)] if n == -1 else n for i, n in enumerate(shape)])


def broadcast_tensors(*xs: Any) -> Any:
    shape = np.broadcast_shapes(*(np.shape(x) if isinstance(x, int | float) else x.shape for x in xs))
    return [tr.broadcast_to(x, shape) for x in xs]


def cat(xs: Any, dim: int = 0) -> Any:
    """PyTorch passes over vectors of length 0 whatever the shape of the others is."""
    return tr.concatenate([x for x in xs if getattr(x, "shape", None) != (0,)] or xs, dim)


def stack(xs: Any, dim: int = 0) -> Any:
    return tr.stack(xs, dim)


def at_least(n: int) -> Adapter:
    def lift(x: Any) -> Any:
        shape = x.shape if x.ndim or n == 0 else (1,)
        shape = (1, *shape) if len(shape) < min(n, 2) else shape
        return tr.reshape(x, (*shape, 1) if len(shape) < n else shape)

    def adapter(*xs: Any) -> Any:
        return [lift(x) for x in (xs[0] if isinstance(xs[0], Sequence) else xs)]

    return adapter


def joined(n: int, axis: int) -> Adapter:
    return lambda xs: tr.concatenate(at_least(n)(xs), min([axis, *(x.ndim - 1 for x in at_least(n)(xs))]))


def split(x: Any, size: Any, dim: int = 0) -> Any:
    """PyTorch takes the size of a piece, or of each: here are the places to cut."""
    if isinstance(size, int):
        return tr.split(x, range(size, x.shape[dim], size), dim)
    return tr.split(x, np.cumsum(size)[:-1].tolist(), dim)


def tensor_split(x: Any, sections: Any, dim: int = 0) -> Any:
    """Pieces that may differ by one in size."""
    sections = sections.tolist() if isinstance(sections, tr.Tensor) else sections
    if isinstance(sections, int) and x.shape[dim] % sections:
        whole, rest = divmod(x.shape[dim], sections)
        sections = np.cumsum([whole + (i < rest) for i in range(sections)])[:-1].tolist()
    return tr.split(x, sections if isinstance(sections, int) else list(sections), dim)


def chunk(x: Any, chunks: int, dim: int = 0) -> Any:
    return split(x, -(-x.shape[dim] // chunks), dim)


def split_at(axis: int) -> Adapter:
    return lambda x, sections: tr.split(x, sections, min(axis, x.ndim - 1))


def unbind(x: Any, dim: int = 0) -> Any:
    return list(tr.moveaxis(x, dim, 0))


def flip(x: Any, dims: Sequence[int]) -> Any:
    return tr.flip(x, tuple(dims))


def pad(x: Any, widths: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """PyTorch names the last axis first."""
    refuse_if(min(widths) < 0, "negative pad")
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    return tr.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1], value or 0)


def constant_pad_nd(x: Any, widths: Sequence[int], value: float = 0) -> Any:
    return pad(x, widths, "constant", value)


# ---- indexing


def narrow(x: Any, dim: int, start: Any, length: int) -> Any:
    start = int(start) + (x.shape[axes_of(dim, x.ndim)[0]] if int(start) < 0 else 0)
    return along(x, dim, slice(start, start + length))


def slice_(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return along(x, dim, slice(start, end, step))


def index_select(x: Any, dim: int, index: Any) -> Any:
    y = tr.take(lifted(x), index, dim)
    return y if x.ndim else tr.reshape(y, ())


def embedding(
    weight: Any,
    ids: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """The row `padding_idx` gets no gradient."""
    refuse_if(max_norm is not None, "max_norm")
    refuse_if(scale_grad_by_freq, "scale_grad_by_freq")
    refuse_if(sparse, "sparse")
    y = tr.take(weight, ids)
    if padding_idx is None:
        return y
    return tr.where(tr.expand_dims(ids == padding_idx % weight.shape[0], -1), y.detach(), y)


def gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    """Where the ids are fewer PyTorch reads the first of the others, and broadcasts nothing."""
    v, ids = lifted(x), lifted(index)
    refuse_if(not ids.size and ids.ndim != v.ndim, "empty gather")
    head = tuple(slice(None) if i == dim % v.ndim else slice(n) for i, n in enumerate(ids.shape))
    return tr.reshape(tr.take_along_axis(tr.getitem(v, head), ids, dim), index.shape)


def take_along_dim(x: Any, ids: Any, dim: int | None = None) -> Any:
    if dim is None:
        return tr.take_along_axis(tr.reshape(x, -1), tr.reshape(ids, -1), 0)
    return tr.take_along_axis(x, ids, dim)


def einsum(xs: Any, equation: str) -> Any:
    terms, _, out = equation.partition("->")
    refuse_if("..." in terms and "..." not in out, "no dots")
    return tr.einsum(equation, *xs)


# ---- losses and functions of layers


def reduced(losses: Any, reduction: str) -> Any:
    return losses if reduction == "none" else (tr.mean if reduction == "mean" else tr.sum)(losses)


def loss(f: Adapter) -> Adapter:
    def adapter(x: Any, target: Any, reduction: str = "mean", **options: Any) -> Any:
        refuse_if(x.shape != target.shape, "broadcast loss")
        return f(x, target, reduction=reduction, **options)

    return adapter


def bce_with_logits(x: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> Any:
    refuse_if(pos_weight is not None, "pos_weight")
    if weight is None:
        return F.binary_cross_entropy_with_logits(x, target, reduction=reduction)
    return reduced(F.binary_cross_entropy_with_logits(x, target, reduction="none") * weight, reduction)


def of_classes(f: Adapter) -> Adapter:
    """PyTorch has the classes on axis 1."""

    def adapter(x: Any, target: Any, weight: Any = None, **options: Any) -> Any:
        refuse_if(weight is not None, "class weight")
        refuse_if(target.dtype.kind == "f", "probabilities")
        ignored = bool((target.data == options.get("ignore_index", -100)).all())
        refuse_if(ignored and options.get("reduction", "mean") == "mean", "nothing counts")
        return f(tr.moveaxis(x, 1, -1) if x.ndim > 1 else x, target, **options)

    return adapter


def dropout(x: Any, *, p: float = 0.5, training: bool = True) -> Any:
    refuse_if(training and 0 < p < 1, "drawn")
    return F.dropout(x, p, training)


def layer_norm(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return F.layer_norm(x, tuple(shape), weight, bias, eps)


def native_layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    axis = tuple(range(-len(shape), 0))
    statistics = tr.mean(x, axis, keepdims=True), 1 / tr.sqrt(tr.var(x, axis, keepdims=True) + eps)
    return [layer_norm(x, shape, weight, bias, eps), *statistics]


def batch_norm(x: Any, *args: Any, **options: Any) -> Any:
    refuse_if(x.ndim < 2, "no channels")
    return F.batch_norm(x, *args, **options)


def ctc_loss(x: Any, *args: Any, **options: Any) -> Any:
    """Of the log_softmax of what is given, in both libraries: see `AFTER_LOG_SOFTMAX`."""
    return F.ctc_loss(tr.log_softmax(x), *args, **options)


def attention(*inputs: Any, dropout_p: float = 0.0, **options: Any) -> Any:
    refuse_if(dropout_p, "drawn")
    return F.scaled_dot_product_attention(*inputs, **options)


def max_pool(f: Adapter) -> Adapter:
    def adapter(
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        refuse_if(ceil_mode, "ceil_mode")
        y = f(x, kernel_size, stride, padding, dilation)  # first: what it raises counts
        refuse_if(return_indices, "places")
        return y

    return adapter


def avg_pool(f: Adapter) -> Adapter:
    def adapter(
        x: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Any:
        refuse_if(divisor_override is not None, "divisor")
        refuse_if(ceil_mode, "ceil_mode")
        return f(x, kernel_size, stride or None, padding, count_include_pad=count_include_pad)

    return adapter


# Below, `x=None` and the like only give PyTorch's names to arguments that samples name.
OPS: dict[str, dict[str, Adapter]] = {
    "add": {"add": add, "__radd__": swapped(tr.add)},
    "subtract": {"sub": sub, "rsub": rsub, "__rsub__": swapped(tr.subtract)},
    "multiply": {"mul": tr.multiply, "__rmul__": swapped(tr.multiply)},
    "divide": {
        "div.no_rounding_mode": lambda x, other, *, rounding_mode=None: tr.divide(x, other),
        "true_divide": tr.divide,
        "__rdiv__": swapped(tr.divide),
        "reciprocal": lambda x: tr.divide(1.0, x),
    },
    "negative": {"neg": tr.negative},
    "maximum": {"maximum": tr.maximum, "max.binary": tr.maximum, "clamp_min": clamp},
    "minimum": {"minimum": tr.minimum, "min.binary": tr.minimum, "clamp_max": lambda x, max: clamp(x, max=max)},
    "clip": {
        "clamp": clamp,
        "nn.functional.hardtanh": lambda x, *, min_val=-1.0, max_val=1.0: tr.clip(x, min_val, max_val),
        "nn.functional.relu6": lambda x: tr.clip(x, 0, 6),
    },
    "any": {"any": reduction(tr.any)},
    "all": {"all": reduction(tr.all)},
    "where": {"where": lambda a, condition, b: tr.where(condition, a, b)},
    "equal": {"eq": tr.equal},
    "not_equal": {"ne": tr.not_equal},
    "less": {"lt": tr.less},
    "less_equal": {"le": tr.less_equal},
    "greater": {"gt": tr.greater},
    "greater_equal": {"ge": tr.greater_equal},
    "sign": {"sign": sign, "sgn": sign},
    "power": {
        "pow": tr.power,
        "__rpow__": swapped(tr.power),
        "float_power": lambda a, b: tr.power(*(cast(v, "float64") for v in (a, b))),
    },
    "softplus": {"nn.functional.softplus": softplus, "nn.functional.logsigmoid": lambda x: -tr.softplus(-x)},
    "relu": {"nn.functional.relu": lambda x, *, inplace=False: tr.relu(x)},
    "leaky_relu": {"nn.functional.leaky_relu": lambda x, negative_slope=0.01: tr.leaky_relu(x, negative_slope)},
    "elu": {"nn.functional.elu": lambda x, alpha=1.0: tr.elu(x, alpha)},
    "silu": {"nn.functional.silu": silu},
    "gelu": {"nn.functional.gelu": gelu},
    "astype": {
        "to": to,
        "double": as_dtype("float64"),
        "float": as_dtype("float32"),
        "half": as_dtype("float16"),
        "long": as_dtype("int64"),
        "int": as_dtype("int32"),
        "bool": as_dtype("bool"),
    },
    "sum": {"sum": reduction(tr.sum)},
    "mean": {"mean": reduction(tr.mean)},
    "prod": {"prod": reduction(tr.prod)},
    "max": {
        "amax": reduction(tr.max),
        "max.reduction_no_dim": reduction(tr.max),
        "max.reduction_with_dim": extreme(tr.max, tr.argmax),
    },
    "min": {
        "amin": reduction(tr.min),
        "min.reduction_no_dim": reduction(tr.min),
        "min.reduction_with_dim": extreme(tr.min, tr.argmin),
        "aminmax": aminmax,
    },
    "var": {"var": spread(tr.var), "var.unbiased": spread(tr.var), "var_mean": spread(tr.var, mean=True)},
    "std": {"std": spread(tr.std), "std.unbiased": spread(tr.std), "std_mean": spread(tr.std, mean=True)},
    "norm": {
        "norm": norm,
        "norm.fro": norm,
        "linalg.vector_norm": vector_norm,
        "linalg.matrix_norm": matrix_norm,
        "linalg.norm": linalg_norm,
        "linalg.norm.subgradients_at_zero": linalg_norm,
    },
    "cumsum": {"cumsum": of_axis(tr.cumsum)},
    "softmax": {"softmax": of_axis(tr.softmax), "softmax.with_dtype": of_axis(tr.softmax)},
    "log_softmax": {"log_softmax": of_axis(tr.log_softmax), "log_softmax.with_dtype": of_axis(tr.log_softmax)},
    "logsumexp": {
        "logsumexp": reduction(tr.logsumexp),
        "logaddexp": lambda a, b: tr.logsumexp(tr.stack(broadcast_tensors(a, b)), 0),
    },
    "argmax": {"argmax": reduction(tr.argmax)},
    "argmin": {"argmin": reduction(tr.argmin)},
    "reshape": {
        "reshape": reshape,
        "reshape_as": like(tr.reshape),
        "view": reshape,
        "view_as": like(tr.reshape),
        "flatten": flatten,
        "unflatten": unflatten,
        "ravel": lambda x: tr.reshape(x, -1),
    },
    "transpose": {"permute": permute, "t": tr.transpose, "T": lambda x: x.T},
    "swapaxes": {"transpose": transpose, "mT": lambda x: x.mT},
    "moveaxis": {"movedim": movedim},
    "squeeze": {"squeeze": squeeze, "squeeze.multiple": squeeze},
    "expand_dims": {"unsqueeze": tr.expand_dims},
    "broadcast_to": {
        "broadcast_to": expand,
        "expand": expand,
        "expand_as": like(tr.broadcast_to),
        "broadcast_tensors": broadcast_tensors,
        "meshgrid.list_of_tensors": lambda xs, *, indexing: meshgrid(*xs, indexing=indexing),
        "meshgrid.variadic_tensors": lambda *xs, indexing: meshgrid(*xs, indexing=indexing),
    },
    "concatenate": {
        "cat": cat,
        "hstack": joined(1, 1),
        "vstack": joined(2, 0),
        "dstack": joined(3, 2),
        "column_stack": lambda xs: tr.concatenate([tr.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in xs], 1),
    },
    "stack": {"stack": stack},
    "split": {
        "split": split,
        "split.list_args": split,
        "split_with_sizes": split,
        "tensor_split": tensor_split,
        "chunk": chunk,
        "hsplit": split_at(1),
        "vsplit": split_at(0),
        "dsplit": split_at(2),
    },
    "flip": {"flip": flip, "flipud": lambda x: tr.flip(x, 0), "fliplr": lambda x: tr.flip(x, 1)},
    "pad": {"nn.functional.pad.constant": pad, "constant_pad_nd": constant_pad_nd},
    "tril": {"tril": lambda x, diagonal=0: tr.tril(x, diagonal)},
    "triu": {"triu": lambda x, diagonal=0: tr.triu(x, diagonal)},
    "getitem": {
        "__getitem__": tr.getitem,
        "select": along,
        "narrow": narrow,
        "slice": slice_,
        "unbind": unbind,
        "masked_select": lambda x, mask: tr.getitem(*broadcast_tensors(x, mask)),
    },
    "take": {
        "index_select": index_select,
        "nn.functional.embedding": embedding,
        "take": lambda x, ids: tr.take(tr.reshape(x, -1), ids),
    },
    "take_along_axis": {"gather": gather, "take_along_dim": take_along_dim},
    "matmul": {
        **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot"), tr.matmul),
        "__rmatmul__": swapped(tr.matmul),
    },
    "einsum": {
        "einsum": einsum,
        "outer": lambda a, b: tr.einsum("i,j", a, b),
        "trace": lambda x: tr.einsum("ii", x[: min(x.shape), : min(x.shape)]),
        "inner": lambda a, b: a * b if 0 in (a.ndim, b.ndim) else tr.einsum("i,i", a, b),
        "linalg.vecdot": lambda a, b, *, dim=-1: vecdot(a, b, dim),
        "nn.functional.bilinear": lambda a, b, W, bias=None: bilinear(a, b, W, bias),
    },
    "linear": {"nn.functional.linear": tr.linear},
    "binary_cross_entropy_with_logits": {"nn.functional.binary_cross_entropy_with_logits": bce_with_logits},
    "cross_entropy": {"nn.functional.cross_entropy": of_classes(F.cross_entropy)},
    "nll_loss": {"nn.functional.nll_loss": of_classes(F.nll_loss)},
    "dropout": {"nn.functional.dropout": dropout},
    "huber_loss": {"nn.functional.huber_loss": loss(F.huber_loss), "nn.functional.smooth_l1_loss": None},
    "l1_loss": {"nn.functional.l1_loss": loss(F.l1_loss)},
    "mse_loss": {"nn.functional.mse_loss": loss(F.mse_loss)},
    "layer_norm": {"nn.functional.layer_norm": layer_norm, "native_layer_norm": native_layer_norm},
    "batch_norm": {"nn.functional.batch_norm": batch_norm},
    "ctc_loss": {"nn.functional.ctc_loss": ctc_loss},
    "scaled_dot_product_attention": {"nn.functional.scaled_dot_product_attention": attention},
    "conv1d": {"nn.functional.conv1d": F.conv1d},
    "conv2d": {"nn.functional.conv2d": F.conv2d},
    "max_pool1d": {"nn.functional.max_pool1d": max_pool(F.max_pool1d)},
    "max_pool2d": {"nn.functional.max_pool2d": max_pool(F.max_pool2d)},
    "avg_pool1d": {"nn.functional.avg_pool1d": avg_pool(F.avg_pool1d)},
    "avg_pool2d": {"nn.functional.avg_pool2d": avg_pool(F.avg_pool2d)},
}
# An op without a row is PyTorch's of the same name.
NOT_THERE = {
    "sequence_mask": "a helper of ours for `mask=`",
    "positional_encoding": "a table of constants",
    **dict.fromkeys(
        ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert"),
        "of booleans and integers, and the samples are floats; tests/tensor compares them with NumPy",
    ),
}
OPS |= {name: {name: getattr(tr, name)} for name in tr.tensor.ops.__all__ if name not in {**OPS, **NOT_THERE}}


def meshgrid(*xs: Any, indexing: str) -> Any:
    vectors = [lifted(x) for x in xs]
    shape = [v.shape[0] for v in vectors]
    grids = []
    for i, v in enumerate(vectors):
        g = tr.broadcast_to(tr.reshape(v, [-1 if j == i else 1 for j in range(len(shape))]), shape)
        grids.append(tr.swapaxes(g, 0, 1) if indexing == "xy" and len(shape) > 1 else g)
    return grids


def vecdot(a: Any, b: Any, dim: int) -> Any:
    return tr.einsum("...i,...i->...", *(tr.moveaxis(x, dim, -1) for x in broadcast_tensors(a, b)))


def bilinear(a: Any, b: Any, W: Any, bias: Any) -> Any:
    y = tr.einsum("...i,oij,...j->...o", a, W, b)
    return y if bias is None else y + bias


def smooth_l1(x: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    if beta == 0:
        return loss(F.l1_loss)(x, target, reduction)
    return loss(F.huber_loss)(x, target, reduction, delta=beta) / beta


OPS["huber_loss"]["nn.functional.smooth_l1_loss"] = smooth_l1


# ---- ops of PyTorch that are made of ours


def masked(f: Adapter, neutral: float) -> Adapter:
    """A reduction of what a mask leaves, by filling the rest with what changes nothing."""

    def adapter(x: Any, *args: Any, mask: Any = None, dtype: Any = None, **options: Any) -> Any:
        x = cast(x, dtype)
        return f(x if mask is None else tr.where(mask, x, neutral), *args, **options)

    return adapter


def masked_softmax(f: Adapter, neutral: float = -math.inf) -> Adapter:
    def adapter(x: Any, dim: int, *, mask: Any = None, dtype: Any = None) -> Any:
        if mask is not None and x.size:
            left = np.broadcast_to(mask.data, x.shape).any(axis=dim if x.ndim else None)
            refuse_if(not left.all(), "row of -inf")
        return masked(of_axis(f), neutral)(x, dim, mask=mask, dtype=dtype)

    return adapter


def counted(x: Any, mask: Any, dim: Any, keepdim: bool) -> tuple[Any, Any]:
    """`x` with 0 for what the mask leaves out, and how many are left."""
    ones = tr.ones_like(x)
    kept = ones if mask is None else tr.where(mask, ones, 0.0)
    return tr.where(kept != 0, x, 0.0), tr.sum(kept, axes(x, dim), keepdims=keepdim)


def masked_mean(x: Any, dim: Any = None, *, keepdim: bool = False, mask: Any = None) -> Any:
    kept, n = counted(x, mask, dim, keepdim)
    return tr.sum(kept, axes(x, dim), keepdims=keepdim) / n


def masked_spread(root: bool) -> Adapter:
    def adapter(
        x: Any,
        dim: Any = None,
        unbiased: Any = None,
        *,
        correction: Any = None,
        keepdim: bool = False,
        mask: Any = None,
    ) -> Any:
        ddof = correction if correction is not None else 0 if unbiased is False else 1
        kept, n = counted(x, mask, dim, keepdim)
        far = kept - masked_mean(x, dim, keepdim=True, mask=mask)
        far = far if mask is None else tr.where(mask, far, 0.0)
        y = tr.sum(far * far, axes(x, dim), keepdims=keepdim) / tr.maximum(n - ddof, 0.0)
        return tr.sqrt(y) if root else y

    return adapter


def repeat(x: Any, *sizes: Any) -> Any:
    sizes = sized(sizes)
    x = tr.reshape(x, (*(1,) * (len(sizes) - x.ndim), *x.shape))
    for axis, n in enumerate(sizes):
        x = tr.concatenate([x] * n, axis) if n else along(x, axis, slice(0, 0))
    return x


def tile(x: Any, sizes: Sequence[int]) -> Any:
    return repeat(x, (*(1,) * (x.ndim - len(sizes)), *sizes))


def roll(x: Any, shifts: Any, dims: Any = None) -> Any:
    if dims is None or dims == ():
        return tr.reshape(roll(tr.reshape(x, -1), shifts, 0), x.shape)
    if isinstance(dims, Sequence):
        return reduce(lambda v, pair: roll(v, *pair), zip(shifts, dims, strict=True), x)
    if not x.size:
        return x + 0
    shifts = shifts[0] if isinstance(shifts, Sequence) else shifts
    k = -shifts % x.shape[dims]
    return tr.concatenate([along(x, dims, slice(k, None)), along(x, dims, slice(0, k))], dims)


def rot90(x: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    for _ in range(k % 4):
        x = tr.flip(tr.swapaxes(x, *dims), dims[0])
    return x


def diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    if n == 0:
        return x
    x = tr.concatenate([v for v in (prepend, x, append) if v is not None], dim)
    for _ in range(min(n, x.shape[dim])):
        x = along(x, dim, slice(1, None)) - along(x, dim, slice(None, -1))
    return x


def sum_to_size(x: Any, *shape: Any) -> Any:
    shape = sized(shape)
    lead = x.ndim - len(shape)
    dims = tuple(i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 != x.shape[i]))
    return tr.reshape(tr.sum(x, dims) if dims else x, shape)


def scaled_sum(x: Any, y: Any, beta: float, alpha: float) -> Any:
    """What all of PyTorch's `addmm` and so on are: with `beta` 0 a NaN of `x` counts nothing."""
    return beta * x + alpha * y if beta else alpha * y


def added(product: Adapter) -> Adapter:
    return lambda x, a, b, *, beta=1, alpha=1: scaled_sum(x, product(a, b), beta, alpha)


def normalize(x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    return x / tr.clip(vector_norm(x, p, dim, True), min=eps)


def rms_norm(x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    y = x / tr.sqrt(tr.mean(x * x, tuple(range(-len(shape), 0)), keepdims=True) + eps)
    return y if weight is None else y * weight


def group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    parts = tr.reshape(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    y = tr.reshape(layer_norm(parts, parts.shape[2:], None, None, eps), x.shape)
    channels = (-1,) + (1,) * (x.ndim - 2)
    y = y if weight is None else y * tr.reshape(weight, channels)
    return y if bias is None else y + tr.reshape(bias, channels)


def prelu(x: Any, weight: Any) -> Any:
    slopes = tr.reshape(weight, (-1,) + (1,) * (x.ndim - 2)) if x.ndim > 1 else tr.reshape(weight, (-1,))
    return tr.where(x > 0, x, x * (slopes if x.ndim else tr.reshape(weight, ())))


def glu(x: Any, dim: int = -1) -> Any:
    a, b = tr.split(x, 2, dim)
    return a * tr.sigmoid(b)


def kl_div(x: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    if log_target:
        losses = tr.exp(target) * (target - x)
    else:
        losses = tr.where(target > 0, target * tr.log(target), 0.0) - target * x
    return tr.sum(losses) / x.shape[0] if reduction == "batchmean" else reduced(losses, reduction)


def margin_ranking(a: Any, b: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    return reduced(tr.relu(margin - target * (a - b)), reduction)


def poisson_nll(
    x: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Any:
    losses = tr.exp(x) - target * x if log_input else x - target * tr.log(x + eps)
    if full:
        stirling = target * tr.log(target) - target + 0.5 * tr.log(2 * math.pi * target)
        losses = losses + tr.where(target > 1, stirling, 0.0)
    return reduced(losses, reduction)


def pairwise_distance(a: Any, b: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    return vector_norm(a - b + eps, p, -1, keepdim)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

COMPOSED: dict[str, Adapter] = {
    "rsqrt": lambda x: 1 / tr.sqrt(x),
    "exp2": lambda x: 2.0**x,
    "log2": lambda x: tr.log(x) / math.log(2),
    "log10": lambda x: tr.log(x) / math.log(10),
    "deg2rad": lambda x: x * (math.pi / 180),
    "rad2deg": lambda x: x * (180 / math.pi),
    "positive": lambda x: +x,
    "clone": lambda x, *, memory_format=None: x + 0,
    "nn.functional.softsign": lambda x: x / (1 + tr.abs(x)),
    "nn.functional.tanhshrink": lambda x: x - tr.tanh(x),
    "nn.functional.mish": lambda x: x * tr.tanh(tr.softplus(x)),
    "nn.functional.selu": lambda x: SELU_SCALE * tr.elu(x, SELU_ALPHA),
    "nn.functional.hardshrink": lambda x, *, lambd=0.5: tr.where(tr.abs(x) <= lambd, 0.0, x),
    "nn.functional.softshrink": lambda x, *, lambd=0.5: tr.sign(x) * tr.relu(tr.abs(x) - lambd),
    "nn.functional.threshold": lambda x, threshold, value: tr.where(x <= threshold, value, x),
    "nn.functional.prelu": prelu,
    "nn.functional.glu": glu,
    "nn.functional.softmin": of_axis(lambda x, axis: tr.softmax(-x, axis)),
    "nn.functional.softmin.with_dtype": of_axis(lambda x, axis: tr.softmax(-x, axis)),
    "nn.functional.normalize": normalize,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.group_norm": group_norm,
    "nn.functional.kl_div": kl_div,
    "nn.functional.margin_ranking_loss": margin_ranking,
    "nn.functional.poisson_nll_loss": poisson_nll,
    "nn.functional.pairwise_distance": pairwise_distance,
    "nn.functional.soft_margin_loss": lambda x, t, reduction="mean": reduced(tr.softplus(-t * x), reduction),
    "lerp": lambda a, b, weight: a + weight * (b - a),
    "addcmul": lambda x, a, b, *, value=1: x + value * a * b,
    "addcdiv": lambda x, a, b, *, value=1: x + value * a / b,
    "addmm": added(tr.matmul),
    "addmm.decomposed": added(tr.matmul),
    "addmv": added(tr.matmul),
    "baddbmm": added(tr.matmul),
    "addbmm": added(lambda a, b: tr.sum(a @ b, 0)),
    "addr": added(lambda a, b: tr.einsum("i,j", a, b)),
    "linalg.multi_dot": lambda xs: reduce(tr.matmul, xs),
    "dist": lambda a, b, p=2: vector_norm(a - b, p),
    "diff": diff,
    "repeat": repeat,
    "tile": tile,
    "roll": roll,
    "rot90": rot90,
    "sum_to_size": sum_to_size,
    "masked_fill": lambda x, mask, value: tr.where(mask, value, x),
    "nansum": lambda x, dim=None, keepdim=False, *, dtype=None: reduction(tr.sum)(
        tr.where(x != x, 0.0, x), dim, keepdim
    ),
    "masked.sum": masked(reduction(tr.sum), 0.0),
    "masked.prod": masked(reduction(tr.prod), 1.0),
    "masked.amax": masked(reduction(tr.max), -math.inf),
    "masked.amin": masked(reduction(tr.min), math.inf),
    "masked.logsumexp": masked(reduction(tr.logsumexp), -math.inf),
    "masked.norm": lambda x, ord, *args, **options: masked(vector_norm, 0.0 if ord >= 0 else math.inf)(
        x, ord, *args, **options
    ),
    "masked.mean": masked_mean,
    "masked.var": masked_spread(False),
    "masked.std": masked_spread(True),
    "masked.softmax": masked_softmax(tr.softmax),
    "masked.log_softmax": masked_softmax(tr.log_softmax),
    "masked.softmin": masked_softmax(lambda x, axis: tr.softmax(-x, axis), math.inf),
    "masked.cumsum": masked(of_axis(tr.cumsum), 0.0),
}

ADAPTERS = {theirs: adapter for ours in OPS.values() for theirs, adapter in ours.items()} | COMPOSED

# What the two libraries define differently, on purpose, where it is a matter of single elements or of rounding.

# PyTorch's gradient of ctc_loss by log-probabilities is already that by what log_softmax was given. So both libraries
# take the log_softmax of the samples' input, and the gradient by that input is compared.
AFTER_LOG_SOFTMAX = {"nn.functional.ctc_loss", "nn.CTCLoss"}

# Outputs that stand on a kink, where each library has its own subgradient, get a cotangent of 0. These take arrays.
ON_A_KINK: dict[str, Adapter] = {
    # The bound is `maximum` or `minimum` here, which give half to each of two equals; PyTorch gives all to x.
    "clamp_min": lambda x, bound: x == bound,
    "clamp_max": lambda x, max: x == max,
    # Ours, as `clamp` there, passes the gradient on its bounds; these do not.
    "nn.functional.hardtanh": lambda x, *, min_val=-1.0, max_val=1.0: (x == min_val) | (x == max_val),
    "nn.functional.relu6": lambda x: (x == 0) | (x == 6),
    # The derivative of 0 ** b by b is -inf at b = 0, as a ** b * log(a) says; PyTorch has 0.
    "pow": lambda a, b: (a == 0) & (b == 0),
    "__rpow__": lambda b, a: (a == 0) & (b == 0),
    "float_power": lambda a, b: (a == 0) & (b == 0),
}

# Values are compared at NaN and at the infinities, too; what a derivative is there is nobody's definition. For these
# the libraries differ (say `maximum(NaN, 1)`: PyTorch passes the gradient to both, ours to neither).
NO_GRADIENT_AT_NAN = {
    *("div.no_rounding_mode", "true_divide", "__rdiv__", "pow", "__rpow__", "float_power", "logaddexp", "abs", "sgn"),
    *("maximum", "max.binary", "minimum", "min.binary", "clamp_min", "clamp_max"),
    *("nn.functional.hardtanh", "nn.functional.relu6", "nn.functional.relu", "nn.functional.elu"),
    *("masked.prod", "masked.amax", "masked.amin", "masked.norm"),
    *("nn.functional.softsign", "nn.functional.selu", "nn.functional.softshrink", "nn.functional.hardshrink", "clamp"),
}

# PyTorch raises in its own backward for some of the samples of these.
NO_GRADIENT_THERE = {"clamp"}

# The derivative by an exponent is NaN in PyTorch where a ** b underflows to 0 for a negative `a`; it is 0 here.
ZERO_FOR_NAN = {"pow", "__rpow__", "float_power"}

# Results that are 0 but for rounding: they may be off by as many times the dtype's epsilon.
ROUNDING = {
    "sigmoid": 1,  # (1 + tanh(x / 2)) / 2 is exact to a digit of 1, not of its tail
    "nn.functional.softsign": 1,
    "nn.functional.layer_norm": 5000,  # of one number it is 0, and 1 / sqrt(eps) is large
    "native_layer_norm": 5000,
    "nn.functional.group_norm": 5000,
    "nn.functional.batch_norm": 5000,
    "nn.functional.ctc_loss": 5000,  # differences of logarithms that are hundreds
    "nn.functional.rms_norm": 20,  # of one number it is a sign
    "nn.functional.normalize": 100,
}

# What PyTorch refuses and ours takes, by the names of its ops.
ACCEPTED = {
    "number": "an operand may be a number, as in NumPy",
    "mean": "integers have a mean, in float64, as in NumPy",
    "axes": "transpose takes any number of axes",
    "vector": "tril and triu of a vector are those of the matrix that has it as its rows, as in NumPy",
    "slice": "a slice may end past the axis, as in Python",
    "rank": "take takes entries of any rank",
    "bounds": "clip with min above max gives max, as in NumPy and in torch.clamp",
    "no channels": "an input of no channels has an output of none",
    "bias": "what is not a boolean may stand for one",
}
ACCEPTED_BY = {
    **dict.fromkeys(
        ("__radd__", "rsub", "__rsub__", "__rmul__", "__rdiv__", "pow", "__rpow__", "float_power"), "number"
    ),
    **dict.fromkeys(("maximum", "max.binary", "clamp_min", "minimum", "min.binary", "clamp_max"), "number"),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "logaddexp"), "number"),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), "number"),
    "mean": "mean",
    "t": "axes",
    "tril": "vector",
    "triu": "vector",
    "narrow": "slice",
    "nn.functional.embedding": "rank",
    "nn.functional.hardtanh": "bounds",
    "nn.functional.max_pool1d": "no channels",
}
