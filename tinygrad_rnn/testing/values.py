"""Arrays to test an op on: values that keep off kinks and ties, in any memory layout, made by NumPy from a seed.

What kind of values an argument takes is said by `Real`, `Distinct`, `Integer` or `Boolean`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinygrad_rnn.testing.calls import Array, frozen

__all__ = [
    "LAYOUTS",
    "Boolean",
    "Choose",
    "Distinct",
    "Integer",
    "RandomChoose",
    "Real",
    "Shape",
    "Values",
    "laid_out",
    "make_arrays",
]

Shape = tuple[int, ...]


class Choose(Protocol):
    """Who decides: Hypothesis in a property test, else a generator. Simpler elements come first."""

    def __call__(self, sequence: Sequence[Any], /) -> Any: ...


class RandomChoose:
    """Choices by a seeded NumPy generator."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, sequence: Sequence[Any], /) -> Any:
        return sequence[int(self._rng.integers(len(sequence)))]


# --- values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Real:
    """Floats from `low` to `high`, none nearer than `gap` to any of `kinks`: Real(-3, 3, kinks=(0,)) avoids 0.

    Raises ValueError where the kinks leave nothing.
    """

    low: float = -2.0
    high: float = 2.0
    kinks: tuple[float, ...] = ()
    gap: float = 0.5

    def __post_init__(self) -> None:
        if not self.intervals():
            raise ValueError(f"no values are left in {self}")

    def intervals(self) -> list[tuple[float, float]]:
        """What is left of [low, high] where the kinks have been cut out."""
        edges = [self.low, *(k + s * self.gap for k in sorted(self.kinks) for s in (-1, 1)), self.high]
        left, start = [], self.low
        for stop, after in zip(edges[1::2], edges[2::2] + [self.high], strict=True):
            if start < min(stop, self.high):
                left.append((start, min(stop, self.high)))
            start = max(start, after)
        return left

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        """Values, uniform over the intervals."""
        left = self.intervals()
        x = rng.uniform(0.0, sum(b - a for a, b in left), shape)
        value = left[0][0] + x
        for (_, stop), (start, _) in itertools.pairwise(left):
            value = np.where(value > stop, value + (start - stop), value)
        return np.asarray(value)


@dataclass(frozen=True)
class Distinct:
    """Floats that differ from each other by half a `step`, and from its multiples by a quarter of it, at least.

    A permuted grid of at least `points`, around 0, each moved a little: all the `Distinct` arguments of a case
    share one, so max, sort and comparisons have no ties, and kinks at multiples of `step` (0 for relu, 1 for a
    clip) are kept off.
    """

    step: float = 0.0625
    points: int = 64


@dataclass(frozen=True)
class Integer:
    """Integers from `low` up to `high`, exclusive: int64, or `floating` numbers, with ties."""

    low: int
    high: int
    floating: bool = False


@dataclass(frozen=True)
class Boolean:
    """True or False."""

    floating = False


Values = Real | Distinct | Integer | Boolean

LAYOUTS = ("C", "F", "strided", "reversed", "stride 0")


def laid_out(x: Array, layout: str) -> Array:
    """`x` in another memory layout, read-only; "stride 0" repeats the first entry of the longest axis."""
    if layout == "F":
        x = x.copy(order="F")
    elif layout == "strided" and x.ndim:
        buffer = np.full((*x.shape[:-1], 2 * x.shape[-1]), x.dtype.type(0))
        buffer[..., ::2] = x
        x = buffer[..., ::2]
    elif layout == "reversed" and x.ndim:
        x = np.ascontiguousarray(x[::-1])[::-1]
    elif layout == "stride 0" and x.size:
        axis = int(np.argmax(x.shape)) if x.ndim else 0
        x = np.broadcast_to(x.take([0], axis) if x.ndim else x, x.shape)
    return frozen(x)


def make_arrays(
    shapes: Sequence[Shape], values: Sequence[Values], layouts: Sequence[str], seed: int, dtype: Any = np.float64
) -> tuple[Array, ...]:
    """Read-only arrays of such shapes, values and layouts, floats in `dtype`; a seed makes the same ones again.

    "stride 0" repeats entries, which `Distinct` ones must not: those stay in C order.
    """
    rng = np.random.default_rng(seed)
    grids = [v for v in values if isinstance(v, Distinct)]
    sizes = [math.prod(s) if isinstance(v, Distinct) else 0 for s, v in zip(shapes, values, strict=True)]
    points = max([sum(sizes), *(v.points for v in grids)])
    ranks, taken, made = rng.permutation(points) if grids else np.arange(0), 0, []
    x: Array
    for shape, kind, layout, size in zip(shapes, values, layouts, sizes, strict=True):
        if isinstance(kind, Distinct):
            rank = ranks[taken : taken + size].reshape(shape) - points // 2
            x = (rank + rng.uniform(0.25, 0.75, shape)) * kind.step
            taken += size
        elif isinstance(kind, Real):
            x = kind.sample(rng, shape)
        elif isinstance(kind, Integer):
            x = rng.integers(kind.low, kind.high, shape)
            x = x * 1.0 if kind.floating else x
        else:
            x = rng.integers(0, 2, shape) > 0
        x = np.asarray(x)
        if x.dtype.kind == "f":
            x = x.astype(dtype)
        made.append(laid_out(x, "C" if isinstance(kind, Distinct) and layout == "stride 0" else layout))
    return tuple(made)
