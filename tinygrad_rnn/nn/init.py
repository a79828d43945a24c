"""Initial values of weights.

Draws are made on the host in float64, from the library's generator (`tr.manual_seed`) or the one given, then
cast and moved: a seed gives the same network in any dtype and on any device. The functions that end in `_`
give a parameter new values, as PyTorch's do, and return it.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.tensor import Tensor

T = TypeVar("T", bound=Tensor)


def uniform(shape: tuple[int, ...], low: float, high: float, *, generator: Any = None) -> Array:
    """A float64 array drawn from U(low, high)."""
    return (generator or backend.generator()).uniform(low, high, shape)


def normal(shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Array:
    """A float64 array drawn from N(mean, std²)."""
    return (generator or backend.generator()).normal(mean, std, shape)


def uniform_(parameter: T, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> T:
    """Draw from U(low, high).

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.init.uniform_(tr.nn.Parameter(tr.zeros(2, 3)), -0.1, 0.1)
    >>> bool(abs(w.numpy()).max() <= 0.1)
    True
    """
    parameter.assign_(uniform(parameter.shape, low, high, generator=generator))
    return parameter


def normal_(parameter: T, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> T:
    """Draw from N(mean, std²)."""
    parameter.assign_(normal(parameter.shape, mean, std, generator=generator))
    return parameter


def constant_(parameter: T, value: float) -> T:
    """Set every element to `value`."""
    parameter.assign_(backend.namespace(parameter.data).full_like(parameter.data, value))
    return parameter


def xavier_uniform_(parameter: T, gain: float = 1.0, *, generator: Any = None) -> T:
    """Draw from U(-a, a), a = gain √(6 / (fan_in + fan_out)), for a matrix (fan_out, fan_in): Glorot and
    Bengio (2010).
    """
    fan_out, fan_in = _matrix("xavier_uniform_", parameter)
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    return uniform_(parameter, -bound, bound, generator=generator)


def orthogonal_(parameter: T, gain: float = 1.0, *, generator: Any = None) -> T:
    """Make a matrix with orthonormal rows or columns, times `gain`: Saxe et al. (2014).

    It is Q of a normal matrix's QR decomposition, with the signs that make it uniform among the orthogonal
    ones.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.init.orthogonal_(tr.nn.Parameter(tr.zeros(3, 3))).numpy()
    >>> bool(abs(w @ w.T - [[1, 0, 0], [0, 1, 0], [0, 0, 1]]).max() < 1e-5)
    True
    """
    rows, columns = _matrix("orthogonal_", parameter)
    drawn = normal((max(rows, columns), min(rows, columns)), generator=generator)
    xp = backend.namespace(drawn)
    q, r = xp.linalg.qr(drawn)
    q = q * xp.where(xp.linalg.diagonal(r) < 0, -1.0, 1.0)
    parameter.assign_(gain * (q if rows >= columns else q.T))
    return parameter


def _matrix(name: str, parameter: Tensor) -> tuple[int, int]:
    if parameter.ndim != 2:
        raise ShapeError(f"{name}: a matrix is needed, got shape {parameter.shape}")
    rows, columns = parameter.shape
    return rows, columns
