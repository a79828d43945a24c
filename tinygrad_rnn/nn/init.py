"""Initial values of weights.

Draws are made on the host in float64, from the library's generator (`tr.manual_seed`) or the one given, then
cast and moved: a seed gives the same network in any dtype and on any device. The functions that end in `_`
give a parameter new values, as PyTorch's do, and return it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.scalars import as_number, real_number
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.backend import Array
from tinygrad_rnn.tensor.tensor import Tensor

__all__ = [
    "uniform",
    "normal",
    "uniform_",
    "normal_",
    "constant_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "calculate_gain",
    "forget_bias_",
    "orthogonal_",
]

T = TypeVar("T", bound=Tensor)


def uniform(shape: tuple[int, ...], low: float, high: float, *, generator: Any = None) -> Array:
    """A float64 array drawn from U(low, high)."""
    low, high = real_number("uniform: low", low), real_number("uniform: high", high)
    return (generator or random.generator()).uniform(low, high, shape)


def normal(shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Array:
    """A float64 array drawn from N(mean, std²)."""
    mean, std = real_number("normal: mean", mean), real_number("normal: std", std)
    return (generator or random.generator()).normal(mean, std, shape)


def uniform_(parameter: T, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> T:
    """Draw from U(low, high).

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.init.uniform_(tr.nn.Parameter(tr.zeros(2, 3)), -0.1, 0.1)
    >>> bool(abs(w.numpy()).max() <= 0.1)
    True
    """
    _check("uniform_", parameter)
    parameter.assign_(uniform(parameter.shape, low, high, generator=generator))
    return parameter


def normal_(parameter: T, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> T:
    """Draw from N(mean, std²)."""
    _check("normal_", parameter)
    parameter.assign_(normal(parameter.shape, mean, std, generator=generator))
    return parameter


def constant_(parameter: T, value: float) -> T:
    """Set every element to `value`."""
    _check("constant_", parameter)
    value = backend.fitting("constant_: value", value, parameter.dtype)
    parameter.assign_(backend.namespace(parameter.data).full_like(parameter.data, value))
    return parameter


def xavier_uniform_(parameter: T, gain: float = 1.0, *, generator: Any = None) -> T:
    """Draw from U(-a, a), a = gain √(6 / (fan_in + fan_out)), for a weight (fan_out, fan_in).

    Glorot and Bengio (2010).
    """
    bound = real_number("xavier_uniform_: gain", gain) * math.sqrt(6 / sum(_fans("xavier_uniform_", parameter)))
    return uniform_(parameter, -bound, bound, generator=generator)


def xavier_normal_(parameter: T, gain: float = 1.0, *, generator: Any = None) -> T:
    """Draw from N(0, σ²), σ = gain √(2 / (fan_in + fan_out)), for a weight (fan_out, fan_in).

    Glorot and Bengio (2010).
    """
    std = real_number("xavier_normal_: gain", gain) * math.sqrt(2 / sum(_fans("xavier_normal_", parameter)))
    return normal_(parameter, 0.0, std, generator=generator)


def kaiming_uniform_(
    parameter: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", *, generator: Any = None
) -> T:
    """Draw from U(-b, b), b = gain √(3 / fan): He et al. (2015, arXiv:1502.01852). What passes a layer followed by
    `nonlinearity` then keeps its variance, forwards (`mode="fan_in"`) or backwards (`"fan_out"`).

    The weight is (fan_out, fan_in); further axes, of a convolution, multiply both. `gain` is
    `calculate_gain(nonlinearity, a)`, `a` the negative slope of a leaky ReLU. Raises `ShapeError` for a
    vector, `ValueError` for another mode or nonlinearity.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.init.kaiming_uniform_(tr.nn.Parameter(tr.zeros(5, 24)), nonlinearity="relu")
    >>> bool(abs(w.numpy()).max() <= 0.5)
    True
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound, generator=generator)


def kaiming_normal_(
    parameter: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", *, generator: Any = None
) -> T:
    """Draw from N(0, σ²), σ = gain / √fan; the rest is as in `kaiming_uniform_`."""
    std = _kaiming_std("kaiming_normal_", parameter, a, mode, nonlinearity)
    return normal_(parameter, 0.0, std, generator=generator)


_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that PyTorch recommends for weights before `nonlinearity`; `param` is the slope of a leaky ReLU.

    >>> round(calculate_gain("relu"), 4), round(calculate_gain("leaky_relu", 1.0), 4)
    (1.4142, 1.0)
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else real_number("calculate_gain: param", param)
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}: {', '.join(_GAINS)} or leaky_relu")
    return _GAINS[nonlinearity]


def _kaiming_std(name: str, parameter: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'{name}: mode must be "fan_in" or "fan_out", got {mode!r}')
    fan_in, fan_out = _fans(name, parameter)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def forget_bias_(bias_ih: Tensor, bias_hh: Tensor, value: float) -> None:
    """Set the bias of an LSTM's forget gate to `value`: in `bias_ih` (4H,), and to 0 in `bias_hh`, so that their sum,
    which is all that the equations see, is exactly `value`. The other three quarters stay.

    With 1 an LSTM begins by remembering: Gers et al. (2000), Jozefowicz et al. (2015). Raises `ValueError` for
    a value that is not finite.
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"forget_bias must be finite, got {value!r}")
    for bias, b in ((bias_ih, number), (bias_hh, 0.0)):
        _check("forget_bias_", bias)
        H = bias.shape[0] // 4
        new = backend.asarray(bias.data, device=bias.device)
        new[H : 2 * H] = b
        bias.assign_(new)


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
    parameter.assign_(real_number("orthogonal_: gain", gain) * (q if rows >= columns else q.T))
    return parameter


def _check(name: str, parameter: Any) -> None:
    """Raise `TypeError` for anything but a Tensor: an array, of `.data` say, has no new values to take."""
    if not isinstance(parameter, Tensor):
        raise TypeError(
            f"{name}: give the parameter itself, layer.weight, not {type(parameter).__name__}: the array that .data "
            "returns is read-only here, and the parameter takes new values as a whole"
        )


def _fans(name: str, parameter: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...)."""
    _check(name, parameter)
    if parameter.ndim < 2 or not parameter.size:
        raise ShapeError(f"{name}: a weight (fan_out, fan_in, ...) is needed, got shape {parameter.shape}")
    rest = math.prod(parameter.shape[2:])
    return parameter.shape[1] * rest, parameter.shape[0] * rest


def _matrix(name: str, parameter: Tensor) -> tuple[int, int]:
    _check(name, parameter)
    if parameter.ndim != 2:
        raise ShapeError(f"{name}: a matrix is needed, got shape {parameter.shape}")
    rows, columns = parameter.shape
    return rows, columns


if not TYPE_CHECKING:  # to a type checker no name is missing then

    def __getattr__(name: str) -> Any:
        from tinygrad_rnn.pytorch import no_name

        raise no_name(__name__, name)
