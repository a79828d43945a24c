"""Numeric derivatives of a function of arrays: the complex step, the four-point difference, and kinks.

A function here takes arrays and returns a list of arrays of floats (`Values`). All derivatives are J d, an
array for each output, along a direction d of one input i.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Kink",
    "Slopes",
    "Step",
    "closer",
    "complex_step",
    "complex_step_fault",
    "four_point",
    "kink_along",
    "nearer",
    "varied",
]

Arrays = Sequence[NDArray[Any]]
Floats = NDArray[Any]
Values = Callable[[Arrays], list[Floats]]

COMPLEX_STEP = 1e-30  # its square vanishes beside every float64, so the step has no truncation error
STEP = 1e-3  # of the four-point difference: truncation h^4 and rounding eps / h are both near 1e-12
PLAIN_STEP, PLAIN_RTOL = 1e-5, 1e-4  # of the plain difference that judges the complex step
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Slopes:
    """J d, an array for each output, and what rounding and truncation may have put into it.

    `bent` says that there may be a kink, `spread` how far the two differences that were extrapolated lie apart.
    """

    values: list[Floats]
    noise: list[Floats]
    bent: bool = False
    spread: float = 0.0

    def dot(self, cotangents: Sequence[Floats]) -> tuple[float, float]:
        """<u, J d> and its noise."""
        return (
            total(u * v for u, v in zip(cotangents, self.values, strict=True)),
            total(abs(u) * n for u, n in zip(cotangents, self.noise, strict=True)),
        )


@dataclass(frozen=True)
class Step:
    """A way to take a numeric derivative, how exact it is, and what rounding may make of values around 1."""

    name: str
    rtol: float
    rounding: float
    along: Callable[[Values, Arrays, int, Floats], Slopes]


def total(terms: Iterable[Any]) -> float:
    """The sum of all entries."""
    return float(sum(np.sum(t) for t in terms))


def varied(arrays: Arrays) -> list[int]:
    """The inputs that can be varied: not the integers and booleans."""
    return [i for i, x in enumerate(arrays) if x.dtype.kind in "fc"]


def _moved(arrays: Arrays, i: int, d: Floats, complex_too: bool = False) -> list[NDArray[Any]]:
    """The inputs with input `i` moved by `d`; a complex step makes all complex, so that no dtype cuts it."""
    return [
        np.asarray(x + d if j == i else x + 0j if complex_too else x) if x.dtype.kind == "f" else x
        for j, x in enumerate(arrays)
    ]


# --- the two steps ------------------------------------------------------------------------------------------


def _along_complex(f: Values, arrays: Arrays, i: int, d: Floats) -> Slopes:
    columns = [np.imag(y) / COMPLEX_STEP for y in f(_moved(arrays, i, 1j * COMPLEX_STEP * d, complex_too=True))]
    return Slopes(columns, [64 * EPS * abs(v) + 1e3 * COMPLEX_STEP**2 for v in columns])


def _along_four_points(f: Values, arrays: Arrays, i: int, d: Floats, h: float = STEP) -> Slopes:
    here, ahead, behind, far_ahead, far_behind = (f(_moved(arrays, i, k * h * d)) for k in (0, 1, -1, 2, -2))
    values, noise, bent, spread = [], [], False, 0.0
    for y, a, b, aa, bb in zip(here, ahead, behind, far_ahead, far_behind, strict=True):
        near, far, size = (a - b) / (2 * h), (aa - bb) / (4 * h), abs(a) + abs(b)
        values.append((4 * near - far) / 3)
        # what extrapolation leaves is to what it took away as h^2 to 1
        noise.append(8 * EPS / h * size + 2 * h**2 * abs(near - far))
        spread = max(spread, float(np.max(abs(near - far), initial=0)))
        # second differences of a smooth function grow by 4 from h to 2h, those of a kink by 2
        bend = abs((aa - 2 * y + bb) - 4 * (a - 2 * y + b))
        bent = bent or bool(np.any(bend > 1e-6 * (abs(a - y) + abs(y - b)) + 64 * EPS * (size + 2 * abs(y))))
    return Slopes(values, noise, bent, spread)


def _along_six_points(f: Values, arrays: Arrays, i: int, d: Floats) -> Slopes:
    h = STEP / 8
    ahead, behind = ([f(_moved(arrays, i, sign * k * h * d)) for k in (1, 2, 4)] for sign in (1, -1))
    values, noise = [], []
    for (a, aa, aaaa), (b, bb, bbbb) in zip(zip(*ahead, strict=True), zip(*behind, strict=True), strict=True):
        values.append((64 * (a - b) / (2 * h) - 20 * (aa - bb) / (4 * h) + (aaaa - bbbb) / (8 * h)) / 45)
        noise.append(8 * EPS / h * (abs(a) + abs(b)))
    return Slopes(values, noise)


complex_step = Step("complex step", 1e-12, 256 * EPS, _along_complex)
"""Im f(x + i h d) / h with h = 1e-30: exact to rounding, where f is analytic and runs on complex numbers."""

four_point = Step("four-point difference", 1e-9, 16 * EPS / STEP, _along_four_points)
"""(4 c(h) - c(2h)) / 3 of central differences c, h = 0.001: for the rest."""

nearer = Step("four-point difference", 1e-9, 32 * EPS / STEP, partial(_along_four_points, h=STEP / 2))
"""The same with h = 0.0005, where there is a kink within 0.002 of the size of an input."""

closer = Step("six-point difference", 1e-9, 128 * EPS / STEP, _along_six_points)
"""(64 c(h) - 20 c(2h) + c(4h)) / 45, h = 0.000125: for functions that bend much within 0.001."""


def complex_step_fault(f: Values, arrays: Arrays, direction: Callable[[NDArray[Any]], Floats]) -> str | None:
    """Why the complex step cannot be trusted for `f` here, or None; a plain difference is the judge.

    It is silently wrong, mostly 0, for functions that are not analytic: abs, a norm by abs, softplus by max.
    """
    h, here = PLAIN_STEP, f(arrays)
    for i in varied(arrays):
        d = direction(arrays[i])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                columns = _along_complex(f, arrays, i, d).values
        except Exception as error:  # noqa: BLE001 (whatever a function of real numbers says to others)
            return f"it does not run on complex numbers ({type(error).__name__}: {error})"
        ahead, behind = f(_moved(arrays, i, h * d)), f(_moved(arrays, i, -h * d))
        for y, a, b, column in zip(here, ahead, behind, columns, strict=True):
            plain, noise = (a - b) / (2 * h), 16 * EPS / h * (abs(a) + abs(b))
            wrong = ~(abs(column - plain) <= PLAIN_RTOL * np.max(abs(plain), initial=0) + noise)  # NaN is wrong
            if np.any(wrong):
                at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
                return f"it gives {column[at]:.6g} where a plain difference gives {plain[at]:.6g}"
            if np.any(abs(a - 2 * y + b) > 1e-2 * (abs(a - y) + abs(y - b)) + 4 * h * noise):
                found = kink_along(f, arrays, i, d)  # where the plain difference agrees by chance: abs at 0
                if found is not None:
                    return f"there is {found}"
    return None


# --- kinks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kink:
    """A kink or jump near x: at x + distance * d, the slopes along d on its two sides, the height of a jump."""

    distance: float
    left: float
    right: float
    jump: float

    def __str__(self) -> str:
        if self.jump:
            kind = f"a jump, by {self.jump:.6g}"
        elif abs(self.left - self.right) > 1e-2 * (abs(self.left) + abs(self.right)):
            kind = f"a kink, with slope {self.left:.6g} on one side and {self.right:.6g} on the other"
        else:
            kind = "a kink of the slope"
        return kind if abs(self.distance) < 2e-5 else f"{kind}, {abs(self.distance):.2g} away"


def kink_along(f: Values, arrays: Arrays, i: int, d: Floats, order: int = 2) -> Kink | None:
    """The kink of one output near the inputs, along `d`, or None if all of them are smooth there.

    Differences of the second order over a grid tell: where the grid is refined eight times they fall by 64 for a
    smooth function, by 8 at a kink, and not at all at a jump. The grid closes in on whatever stands out. Those of
    the third `order` find a kink of the slope in the same way.
    """
    width, centre, before, ratio, output, floor = 2.5 * STEP, 0.0, 0.0, 0.0, (0, 0), 0.0
    for level in range(5 - order):
        points = centre + width / 8 * np.arange(-8, 9)
        columns = _grid(f, arrays, i, d, points)
        bends = [abs(np.diff(c, order, axis=0)) for c in columns]
        if level == 0:  # of the output where one bend stands out most from the others
            # an output far below the largest may be what rounding left of a difference
            floor = 1e-2 * max((float(_rounding(np.ravel(c))) for c in columns if c.size), default=0.0)
            heights = [np.max(b, 0) / (np.median(b, 0) + _rounding(c)) for b, c in zip(bends, columns, strict=True)]
            k = max(range(len(heights)), key=lambda k: float(np.max(heights[k], initial=0)))
            if not heights[k].size:
                return None
            output = (k, int(np.argmax(heights[k])))
        column, bend = columns[output[0]][:, output[1]], bends[output[0]][:, output[1]]
        at, height = int(np.argmax(bend)), float(np.max(bend))
        if not height > 16 * max(float(_rounding(column)), floor):
            return None
        if level == 0 and at in (0, len(bend) - 1):  # it grows towards an end, and stands out nowhere
            return None
        ratio = height / before if level else 1.0
        if ratio < 0.4 * (order / 16) ** (order - 1):
            return None
        # the next grid covers the points of the difference that stands out, and a little more: it may be at the end
        before, centre, width = height, float(points[at] + points[at + order]) / 2, 1.1 * width * order / 16
    beside = STEP / 8 * np.array([-2, -1, 1, 2]) + centre
    y = _grid(f, arrays, i, d, beside)[output[0]][:, output[1]]
    left, right = float(y[1] - y[0]) / (STEP / 8), float(y[3] - y[2]) / (STEP / 8)
    return Kink(centre, left, right, height if ratio > 1 / 2 else 0.0)


def _grid(f: Values, arrays: Arrays, i: int, d: Floats, points: Floats) -> list[Floats]:
    """For each output, its entries in a row for every point along `d`."""
    rows = [f(_moved(arrays, i, s * d)) for s in points]
    return [np.stack([np.ravel(row[k]) for row in rows]) for k in range(len(rows[0]))]


def _rounding(column: Floats) -> Floats:
    """What rounding may make of the entries that were subtracted."""
    return np.asarray(64 * EPS * (np.max(abs(column), axis=0) + np.finfo(np.float64).tiny))
