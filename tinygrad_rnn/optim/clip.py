"""Keeping gradients from exploding: Pascanu, Mikolov and Bengio (2013)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tinygrad_rnn.errors import NonFiniteError
from tinygrad_rnn.kernels.cuda import has_cuda_kernels
from tinygrad_rnn.kernels.cuda.training import clipped, squared_norm
from tinygrad_rnn.memory import memory_for
from tinygrad_rnn.tensor.backend import Array, dot, flattened, joined, namespace, numbers, quiet, to_host, widened
from tinygrad_rnn.tensor.device import capture
from tinygrad_rnn.tensor.mode import replayed
from tinygrad_rnn.tensor.tensor import Tensor

TINY = 1e-15  # the square of a smaller norm has few digits in float32


@replayed(changes="gradients")
def clip_grad_norm_(parameters: Any, max_norm: float, *, error_if_nonfinite: bool = True) -> float:
    """Scale the gradients so that their common 2-norm is at most `max_norm`; return the norm that they had.

    `parameters`: a parameter, an iterable of them, or of (name, parameter) pairs. Those without a gradient
    are skipped. As in PyTorch the factor is max_norm / (norm + 1e-6), where that is below 1. The norm neither overflows
    nor vanishes where the gradients do not, and of float16 all is computed in float32.

    Raises `NonFiniteError` naming the first parameter whose gradient holds a NaN or an infinity; with
    `error_if_nonfinite=False` the gradients are scaled by whatever the norm is (PyTorch's default).

    >>> import tinygrad_rnn as tr
    >>> p = tr.nn.Parameter([3.0, 4.0])
    >>> (p * p / 2).sum().backward()
    >>> clip_grad_norm_([p], 1.0)
    5.0
    >>> [round(v, 4) for v in p.grad.tolist()]
    [0.6, 0.8]
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be above 0, got {max_norm!r}")
    max_norm = float(max_norm)
    named = [(name, p, g._array) for name, p in _named(parameters) if (g := p.grad) is not None]
    gradients = [g for _, _, g in named]
    with quiet(), memory_for("clip_grad_norm_"):
        flat = _joined(gradients)
        both = None if flat is None else squared_norm(flat, max_norm)
        if flat is not None and both is not None and (graph := capture.get()) is not None:
            _set_grads(named, _pieces(clipped(flat, both), gradients))
            return graph.later(both, _usable)  # type: ignore[no-any-return]
        read = None if both is None else to_host(both).tolist()  # the square and the factor
        norm = _usable(_squares(gradients) if read is None else read[:1])
    if norm is None:
        norm, read = _careful_norm(gradients), None
        if not math.isfinite(norm) and error_if_nonfinite:
            name = next(name for name, _, g in named if not bool(namespace(g).all(namespace(g).isfinite(g))))
            raise NonFiniteError(f"clip_grad_norm_: the gradient of parameter {name} holds a NaN or an infinity")
    factor = max_norm / (norm + 1e-6) if read is None else read[1]
    if not factor >= 1:
        with quiet(), memory_for("clip_grad_norm_"):  # quiet for inf * 0, where that was asked for
            if flat is None:
                _set_grads(named, [_scaled(g, factor) for g in gradients])
            else:
                _set_grads(
                    named, _pieces(flat * factor if both is None or read is None else clipped(flat, both), gradients)
                )
    return norm


@replayed(changes="gradients")
def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Clip every element of the gradients to [-clip_value, clip_value].

    >>> import tinygrad_rnn as tr
    >>> p = tr.nn.Parameter([3.0, 4.0])
    >>> (p * p / 2).sum().backward()
    >>> clip_grad_value_([p], 3.5)
    >>> p.grad.tolist()
    [3.0, 3.5]
    """
    if not clip_value > 0:
        raise ValueError(f"clip_grad_value_: clip_value must be above 0, got {clip_value!r}")
    clip_value = float(clip_value)
    for _, p in _named(parameters):
        if p.grad is not None:
            g = p.grad._array
            bound = min(clip_value, float(namespace(g).finfo(g.dtype).max))
            _set_grad(p, namespace(g).clip(g, -bound, bound))


def _named(parameters: Any) -> Iterable[tuple[Any, Tensor]]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    for i, entry in enumerate(parameters):
        yield entry if isinstance(entry, tuple) else (i, entry)


def _usable(squares: list[float]) -> float | None:
    """The norm of gradients of these squares; None if they are too large or too small to be squared."""
    norm = math.sqrt(sum(squares))
    return norm if TINY < norm < math.inf else None


def _set_grads(named: list[tuple[Any, Tensor, Array]], gradients: Iterable[Array]) -> None:
    """Give each parameter another gradient."""
    for (_, p, _), new in zip(named, gradients, strict=True):
        _set_grad(p, new)


def _joined(gradients: list[Array]) -> Array | None:
    """The gradients behind one another, if kernels on a GPU take them: few launches, whatever their number."""
    if not gradients or not has_cuda_kernels(*gradients):
        return None
    return joined(gradients)


def _pieces(flat: Array, like: list[Array]) -> Iterator[Array]:
    """The parts of a flat array, in the shapes of `like`."""
    start = 0
    for g in like:
        yield flat[start : start + g.size].reshape(g.shape)
        start += g.size


def _squares(gradients: list[Array]) -> list[float]:
    """The sum of the squares of each."""
    flats = [flattened(widened(g)) for g in gradients]
    return numbers([dot(flat, flat) for flat in flats])


def _scaled(g: Array, factor: float) -> Array:
    """g times a factor, which may be too small for g's dtype."""
    wide = widened(g) * factor
    return wide if wide.dtype == g.dtype else namespace(g).astype(wide, g.dtype)


def _careful_norm(gradients: list[Array]) -> float:
    """The norm in float64, scaled by the largest element: finite wherever the gradients are."""
    peaks = numbers([namespace(g).max(abs(g)) for g in gradients if g.size])
    if not all(map(math.isfinite, peaks)):
        return math.nan if any(map(math.isnan, peaks)) else math.inf
    scale = max(peaks, default=0.0)
    if scale == 0:
        return 0.0
    parts = [namespace(g).astype(g, namespace(g).float64) / scale for g in gradients]
    return scale * math.sqrt(sum(_squares(parts)))


def _set_grad(p: Tensor, g: Array) -> None:
    """Give `p` another gradient without copying it; the old one, which somebody may hold, stays as it was."""
    assert p._node is not None and p._node.watch is not None
    p._node.watch.grad = namespace(g).asarray(g)  # 0-d results are NumPy's numbers
