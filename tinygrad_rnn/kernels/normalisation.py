"""The kernel of layer normalisation, which batch normalisation uses, too; `nn/functional.py` says what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.tensor.backend import Array, namespace, quiet, summed
from tinygrad_rnn.tensor.device import is_on_device
from tinygrad_rnn.tensor.effects import effects
from tinygrad_rnn.tensor.mode import replayed
from tinygrad_rnn.tensor.squares import shrinking


def _normalised(x: Array, eps: float) -> tuple[Array, Array]:
    """Rows (N, D) with mean 0 and variance 1, and the factors (N, 1) that made them so.

    The mean is that of the distances from the first entry: of large numbers close together those have all digits, but
    their mean has not.
    """
    xp = namespace(x)
    z = x - x[:, :1]
    z -= xp.mean(z, axis=1, keepdims=True)
    with quiet():
        scale = 1 / xp.sqrt(xp.mean(z * z, axis=1, keepdims=True) + eps)
    mend_scales(scale, z, eps)
    z *= scale
    return z, scale


@replayed(changes="nothing")  # since it looks at values
@effects(updates=["scale"])
def mend_scales(scale: Array, z: Array, eps: float) -> None:
    """Write the factors of rows whose squares are too large: they are computed of smaller numbers."""
    xp: Any = namespace(z)
    if not is_on_device(scale) and xp.all(scale):
        return
    k = shrinking(z, 1)
    z = z * k
    with quiet():
        scale[...] = k / xp.sqrt(xp.mean(z * z, axis=1, keepdims=True) + eps * k * k)


def layer_norm_forward(x: Array, w: Array | None, b: Array | None, *, eps: float) -> Array:
    """y (N, D) = w z + b, where z are the normalised rows of x (N, D)."""
    z, _ = _normalised(x, eps)
    if w is not None:
        z *= w
    if b is not None:
        z += b
    return z


def layer_norm_vjp(
    g: Array, y: Array, needs: tuple[bool, ...], x: Array, w: Array | None, b: Array | None, *, eps: float
) -> Sequence[Any]:
    """Gradients of x, w and b. Normalising takes from a gradient its mean, and its part along z."""
    xp = namespace(g)
    z, scale = _normalised(x, eps)
    d = g if w is None else g * w
    dw = summed(g * z, 0) if needs[1] else None
    dx = None
    if needs[0]:
        dx = d - xp.mean(d, axis=1, keepdims=True)
        z *= xp.mean(d * z, axis=1, keepdims=True)
        dx -= z
        dx *= scale
    return dx, dw, summed(g, 0) if needs[2] else None
