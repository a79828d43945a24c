"""A function of Tensors at one point: the example that the laws of ops and of modules are asked about.

The function is called once and recorded, and the laws pull gradients back through that one graph, which is what makes
an example cheap. What two ways to compute the same may differ by is measured here, too: `agree` and `spread`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, Call, Function, Held, brief, flat, frozen, generator_of, largest
from tinygrad_rnn.testing.derivatives import Derivatives
from tinygrad_rnn.testing.errors import Broken

__all__ = ["EPS", "SLACK", "ULPS", "Example"]

EPS = float(np.finfo(np.float64).eps)
ULPS = 256  # how many roundings apart two ways to compute the same may be, before their conditioning is looked at
SLACK = (
    64.0  # roundings of the values that a derivative may be off by where much is saturated: of 1 - y², with y near 1
)

Spread = Callable[[], Array]


class Example:
    """A function at one point, which takes a Tensor for each of `arrays`, of which the floats are varied.

    Attributes:
        f, arrays: the function, and its arguments, read-only.
        names: what messages call the arguments; "input 0" unless given.
        where: the example in a line.
        order: up to which derivative it is checked: 2, 1, or 0 for a function that has none.
        analytic: whether f runs on complex numbers and is analytic; None: to be found out.
        other_layouts: whether an array lies in memory otherwise than in C order.
        low_dtypes: the narrower dtypes that go in and come out.
        slack: how many roundings of its values a derivative may be off by, for large ones.
    """

    def __init__(
        self,
        f: Function,
        arrays: Sequence[Array],
        *,
        seed: int = 0,
        where: str = "",
        names: Sequence[str] = (),
        order: int = 2,
        analytic: bool | None = None,
        other_layouts: bool = True,
        low_dtypes: Sequence[Any] = (np.float16, np.float32),
        slack: float = 0.0,
    ) -> None:
        self.f, self.arrays, self.where = f, [frozen(x) for x in arrays], where
        self.named, self.names = bool(names), names or [f"input {i}" for i in range(len(arrays))]
        self.order, self.analytic = order, analytic
        self.other_layouts, self.low_dtypes, self.slack = other_layouts, low_dtypes, slack
        self.rng = generator_of(seed, 1)
        self.seed = seed
        self.bytes = [x.tobytes() for x in arrays]
        self.varied = [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]

    @property
    def varied_names(self) -> list[str]:
        """The names of the floating arguments."""
        return [self.names[i] for i in self.varied]

    @property
    def has_derivative(self) -> bool:
        """Whether there is a derivative to check."""
        return bool(self.order and self.varied)

    # --- what the laws are made of ----------------------------------------------------------------

    @cached_property
    def call(self) -> Call:
        """The recorded call."""
        with np.errstate(all="ignore"):  # what is not finite is told apart from a warning
            return Call(self.f, self.arrays)

    @cached_property
    def cotangents(self) -> list[Array]:
        """The gradients that come in."""
        return self.call.cotangents(self.rng)

    @cached_property
    def gradients(self) -> list[Array]:
        """Jᵀu for these cotangents, for every floating argument."""
        return self.call.pull(self.cotangents)

    @cached_property
    def derivatives(self) -> list[Derivatives]:
        """What is compared with numbers: the function, and, of 0-d arguments, the function within a chain: what NumPy
        makes of 0-d arrays are scalars, which are easily taken for numbers.
        """
        functions = [self.f]
        if any(self.arrays[i].ndim == 0 for i in self.varied) and not isinstance(self.f, Held):
            functions.append(self._chained)
        return [Derivatives(f, self.arrays, self.analytic, seed=self.seed, slack=self.slack) for f in functions]

    def _chained(self, *xs: Tensor) -> list[Tensor]:
        ys = flat(self.f(*(x * 1.0 if i in self.varied else x for i, x in enumerate(xs))))
        return [y * (1 / 3) for y in ys if y._array.dtype.kind in "fc"]

    # --- the comparison ---------------------------------------------------------------------------

    def agree(
        self, what: str, ours: Array, theirs: Array, size: float | None = None, spread: Spread | None = None
    ) -> None:
        """Raise Broken unless two arrays are equal up to rounding: relative to `size`, the largest entry unless given.

        `spread()` is what they may differ by where their conditioning is bad; it is asked for only if they do.
        """
        if ours.shape != theirs.shape:
            raise Broken(f"{what} has shape {ours.shape}, expected {theirs.shape}", "shape")
        if ours.dtype.kind not in "fc":
            if not np.array_equal(ours, theirs):
                raise Broken(f"{what} is {brief(ours)}, expected {brief(theirs)}")
            return
        if np.array_equal(ours, theirs):
            return
        with np.errstate(all="ignore"):
            size = largest(theirs) if size is None else size
            wrong = ~(abs(ours - theirs) <= ULPS * EPS * size)
            wrong &= ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
            if np.any(wrong) and spread is not None:
                wrong &= ~(abs(ours - theirs) <= spread())
        if np.any(wrong):
            at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
            raise Broken(f"{what} is {ours[at]:.12g} at {at}, expected {theirs[at]:.12g}")

    def spread(self, dtype: Any) -> tuple[list[Array], list[Array]]:
        """By how much values and gradients move when the last bits of everything do: what rounding may do to them.

        Ill-conditioned sums, whose terms cancel, move by more than their size tells; mistakes don't move. The last bits
        are those of `dtype`; it is computed in float64, where only the inputs move, and in `dtype`, where roundings do,
        too. Where they stay as they are (a softmax that is nearly 1), a gradient may be off by some units in the last
        place of what was pulled back.
        """
        rng = generator_of(self.seed, 2)
        eps = float(np.finfo(dtype).eps)

        def jittered(x: Array, kind: Any) -> Array:
            if x.dtype.kind != "f":
                return x
            return np.asarray(x * (1 + 8 * eps * rng.uniform(-1, 1, x.shape))).astype(kind)

        least = 4 * eps * max(map(largest, self.cotangents), default=0.0)
        values = [np.zeros(y.shape) for y in self.call.values]
        gradients = [np.full(self.arrays[i].shape, least) for i in self.varied]
        for kind in dict.fromkeys((np.dtype(np.float64), np.dtype(dtype))):
            with np.errstate(all="ignore"):  # float16 overflows soon
                calls = [Call(self.f, [jittered(x, kind) for x in self.arrays]) for _ in range(6)]
                pulled = [call.pull([jittered(u, kind) for u in self.cotangents]) for call in calls]
            values = _added(values, _ranges(zip(*(call.values for call in calls), strict=True)))
            gradients = _added(gradients, _ranges(zip(*pulled, strict=True)))
        return values, gradients

    def value_spread(self, k: int, factor: float = 1, dtype: Any = np.float64) -> Spread:
        """What rounding may do to output `k`, computed on demand."""
        return lambda: factor * self.spread(dtype)[0][k]

    def gradient_spread(self, j: int, factor: float = 1, dtype: Any = np.float64) -> Spread:
        """What rounding may do to the gradient of the varied input `j`, computed on demand."""
        return lambda: factor * self.spread(dtype)[1][j]


def _ranges(samples: Iterable[Sequence[Array]]) -> list[Array]:
    """Of each array, how far its samples lie apart, entry by entry; 16 times that, since there are few of them."""
    floats = [[np.asarray(x, np.float64) for x in s] for s in samples]
    with np.errstate(invalid="ignore"):
        return [16 * np.nan_to_num(np.max(s, axis=0) - np.min(s, axis=0)) for s in floats]


def _added(a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    return [x + y for x, y in zip(a, b, strict=True)]
