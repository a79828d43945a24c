"""The comparison of one derivative with numbers: what the engine says along a direction, and what a step says.

A `Comparison` is of one function at one point; `Derivatives` makes one for each order. Where the two differ it tells a
mistake from rounding and from a kink, looks for the worst entry, and guesses at what was forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, Function, Held, constant, flat, holding, pull, values_of, variable
from tinygrad_rnn.testing.errors import GradientError, KinkError
from tinygrad_rnn.testing.guesses import guess
from tinygrad_rnn.testing.numeric import (
    EPS,
    STEP,
    Floats,
    Slopes,
    Step,
    closer,
    kink_along,
    nearer,
    total,
    varied,
)

__all__ = ["Comparison", "direction", "gradients_of", "vjp_as_function"]

FIRST, SECOND = "the gradient", "the second derivative"
JACOBIAN = 256  # up to so many entries the whole Jacobian is checked too
MAX_ENTRIES = 2000  # a failure is located entry by entry up to this size


# --- what is compared ---------------------------------------------------------------------------------------


def _recorded(f: Function, arrays: Sequence[Array]) -> tuple[list[Tensor], list[Tensor]]:
    """All inputs and the real outputs of a call."""
    tensors = [variable(x) if x.dtype.kind == "f" else constant(x) for x in arrays]
    return tensors, [y for y in flat(f(*tensors)) if y._array.dtype.kind == "f"]


def gradients_of(f: Function, arrays: Sequence[Array], cotangents: Sequence[Floats]) -> list[Floats]:
    """Jᵀu for every floating input, by the engine, every array that a vjp sees first hand made read-only."""
    tensors, outputs = _recorded(f, arrays)
    for y in outputs:
        y._array.flags.writeable = False
    with holding(f, tensors):
        return [g._array for g in pull(outputs, cotangents, [tensors[i] for i in varied(arrays)])]


def jacobian_of(f: Function, arrays: Sequence[Array], outputs: Sequence[Floats]) -> list[list[dict[int, Floats]]]:
    """For each output, and each of its entries, the gradients of that entry by input, by one backward each."""
    tensors, made = _recorded(f, arrays)
    inputs = [tensors[i] for i in varied(arrays)]
    rows: list[list[dict[int, Floats]]] = []
    for y, values in zip(made, outputs, strict=True):
        rows.append([])
        for at in np.ndindex(values.shape):
            u = np.zeros(values.shape)
            u[at] = 1.0
            with holding(f, tensors):
                gradients = pull([y], [u], inputs, retain_graph=True)
            rows[-1].append({i: g._array for i, g in zip(varied(arrays), gradients, strict=True)})
    return rows


def vjp_as_function(f: Function, arrays: Sequence[Array]) -> Function:
    """The function (inputs, cotangents) -> gradients, itself differentiable."""
    moving = set(varied(arrays))

    def vjp(*tensors: Tensor) -> list[Tensor]:
        xs, us = list(tensors[: len(arrays)]), tensors[len(arrays) :]
        for i in moving:
            if not xs[i].requires_grad:  # a plain evaluation, for a numeric derivative
                xs[i] = variable(xs[i]._array)
        outputs = [y for y in flat(f(*xs)) if y._array.dtype.kind in "fc"]
        with holding(f, xs):
            return pull(outputs, us, [xs[i] for i in sorted(moving)], create_graph=True)

    return Held(vjp, lambda tensors: holding(f, tensors[: len(arrays)]))


# --- the comparison -----------------------------------------------------------------------------------------


def direction(x: Array, rng: np.random.Generator) -> Floats:
    """Random signs and sizes in [0.5, 1], so that every entry counts, times the step's scale max(1, |x|)."""
    signs = 2.0 * rng.integers(0, 2, x.shape) - 1.0
    return np.asarray(signs * rng.uniform(0.5, 1.0, x.shape) * np.maximum(1.0, abs(x)))


@dataclass(frozen=True)
class Comparison:
    """Compares what the engine says with a numeric derivative of `f` at `arrays`, and words what differs."""

    f: Function
    arrays: Sequence[Array]
    step: Step
    rtol: float
    rng: np.random.Generator
    what: str
    slack: float = 0.0  # how many roundings of the values a derivative may be off by, too
    locate: bool = True  # a kink is looked for entry by entry

    def values(self, arrays: Sequence[Array]) -> list[Floats]:
        return values_of(self.f, arrays)

    def slopes(self, i: int, d: Floats) -> Slopes:
        """J d by the step, or by a shorter one if there is a kink on the way; one that is nearer is an error."""
        slopes = self.step.along(self.values, self.arrays, i, d)
        if slopes.bent:
            shorter = nearer.along(self.values, self.arrays, i, d)
            if not shorter.bent:
                return shorter
            self.refuse_kink(i, d)
        return slopes

    def agrees_closer(self, i: int, d: Floats, u: Sequence[Floats], ours: float, size: float, spread: float) -> bool:
        """Whether a shorter step agrees, where the function bends so much that the step may be too long."""
        numeric, noise = closer.along(self.values, self.arrays, i, d).dot(u) if spread else (0.0, 0.0)
        return spread > 1e-6 * abs(numeric) and abs(ours - numeric) <= self.rtol * size + noise

    def along(self, i: int, gradient: Floats, d: Floats, u: Sequence[Floats]) -> None:
        """Check the gradient of input `i` for the cotangents `u` along `d`."""
        terms = d * gradient
        ours = float(np.sum(terms))
        slopes, size = self.slopes(i, d), float(np.sum(abs(terms)))
        numeric, noise = slopes.dot(u)
        allowed = self.rtol * size + noise
        allowed += self.rounding(i, d, u) if self.slack else 0.0
        error = abs(ours - numeric)
        if error <= allowed or self.is_rounding(i, d, u, ours - numeric):  # a NaN is neither
            return
        if self.agrees_closer(i, d, u, ours, size, slopes.spread):
            return
        self.refuse_kink(i, d)
        how = f"{self.step.name}, off by {error:.3g}, allowed {allowed:.3g}"
        lines = [
            f"{self.what} of input {i}, of shape {self.arrays[i].shape}, is wrong along a random direction: "
            f"analytic {ours:.12g}, numeric {numeric:.12g}, ratio {_ratio(ours, numeric)} ({how})"
        ]
        if gradient.size <= MAX_ENTRIES:
            lines += self.entries(i, gradient, u)
        rough = slopes.spread > 1e-3 * abs(numeric)
        if rough:
            lines.append(
                "note: the function bends much within a step, so the difference is rough: scale the input down"
            )
        raise GradientError("\n".join(lines), self.what.removeprefix("the "), rough)

    def entries(self, i: int, gradient: Floats, u: Sequence[Floats]) -> list[str]:
        """The worst entry of a wrong gradient, and a guess at the mistake."""
        x = self.arrays[i]
        columns = {
            at: [v / scale for v in self.step.along(self.values, self.arrays, i, d).values]
            for at, d, scale in _unit_directions(x)
        }

        def numeric_for(cotangents: Sequence[Floats]) -> Floats:
            dots = [total(a * v for a, v in zip(cotangents, column, strict=True)) for column in columns.values()]
            return np.reshape(dots, x.shape)

        numeric = numeric_for(u)
        errors = abs(gradient - numeric)
        at = np.unravel_index(int(np.argmax(errors)), x.shape)
        count = int(np.sum(~(errors <= 1e-6 * (abs(gradient) + abs(numeric)))))
        lines = [
            f"worst entry {tuple(map(int, at))}: input {x[at]:.6g}, analytic {gradient[at]:.12g}, "
            f"numeric {numeric[at]:.12g}, ratio {_ratio(gradient[at], numeric[at])}; "
            f"{count} of {x.size} entries differ"
        ]
        lengths = {n for y in (*self.arrays, *u) for n in y.shape}
        guessed = guess(gradient, numeric, lengths) or _one_of_many(gradient, numeric_for, u)
        return lines + ([f"guess: {guessed}"] if guessed else [])

    def jacobian(self, outputs: Sequence[Floats]) -> None:
        """Check every entry of the Jacobian, each relative to its own size: no large one can hide a small one."""
        rows = jacobian_of(self.f, self.arrays, outputs)
        for i in varied(self.arrays):
            for at, d, scale in _unit_directions(self.arrays[i]):
                slopes = self.step.along(self.values, self.arrays, i, d)
                for k, (column, noise) in enumerate(zip(slopes.values, slopes.noise, strict=True)):
                    ours = scale * np.array([row[i][at] for row in rows[k]]).reshape(column.shape)
                    errors = abs(ours - column)
                    for j in np.argwhere(~(errors <= self.rtol * abs(ours) + noise)):
                        y = tuple(map(int, j))
                        u = [np.zeros_like(v) for v in outputs]
                        u[k][y] = 1.0
                        if errors[y] <= self.rounding(i, d, u) or self.is_rounding(i, d, u, float(ours[y] - column[y])):
                            continue
                        value = float(ours[y])
                        if self.agrees_closer(i, d, u, value, abs(value), slopes.spread):
                            continue
                        self.refuse_kink(i, d)
                        raise GradientError(
                            f"{self.what}: the derivative of entry {y} of output {k} with respect to entry "
                            f"{tuple(map(int, at))} of input {i} is wrong: input {self.arrays[i][at]:.6g}, "
                            f"analytic {ours[y] / scale:.12g}, numeric {column[y] / scale:.12g}, "
                            f"ratio {_ratio(ours[y], column[y])} ({self.step.name})"
                        )

    def rounding(self, i: int, d: Floats, u: Sequence[Floats]) -> float:
        """What `slack` roundings of the largest value, or of 1, are along `d`."""
        largest = max(
            (float(np.max(abs(y), initial=0)) for y in (*self.values(self.arrays), *self.arrays)), default=0.0
        )
        sizes = max(1.0, largest) * total(abs(a) for a in u) * float(np.max(abs(d), initial=0))
        return self.slack * EPS * sizes

    def is_rounding(self, i: int, d: Floats, u: Sequence[Floats], difference: float) -> bool:
        """Whether a difference is no more than rounding, as where a derivative is zero because its terms cancel.

        Rounding is at most some eps of the values (over the step), and it changes when the inputs move by a few of
        their last bits; a mistake stays. Asking for both keeps a gradient that vanishes from hiding behind the values.
        """
        largest = max((float(np.max(abs(y), initial=0)) for y in self.values(self.arrays)), default=0.0)
        if not abs(difference) <= self.step.rounding * largest * total(abs(a) for a in u):
            return False
        differences = [difference]
        for size in 6 * [64 * EPS] + 6 * [1e-8]:  # a few last bits may come out alike
            nearby = [_jittered(x, size, self.rng) if x.dtype.kind == "f" else x for x in self.arrays]
            pulled = [a * (1 + size * self.rng.uniform(-1, 1, a.shape)) for a in u]  # a sum depends on nothing else
            gradient = gradients_of(self.f, nearby, pulled)[varied(self.arrays).index(i)]
            slope = self.step.along(self.values, nearby, i, d).dot(pulled)[0]
            differences.append(float(np.sum(d * gradient)) - slope)
        return abs(difference) <= 8 * (max(differences) - min(differences))

    def refuse_kink(self, i: int, d: Floats) -> None:
        """Raise if the function has a kink or a jump near the inputs along `d`."""
        slopes = self.step.along(self.values, self.arrays, i, d)
        if not all(np.all(np.isfinite(v)) for v in slopes.values):
            raise KinkError(
                f"no derivative by input {i}, of shape {d.shape}, can be checked: the function is not finite near it "
                f"(by a {self.step.name} of {2 * STEP:g} of its size); move the input away from the edge of its domain"
            )
        for order in (2, 3):
            found = kink_along(self.values, self.arrays, i, d, order)
            if found is not None:
                break
        else:
            return
        place = f"input {i}, of shape {d.shape},"
        if self.locate and d.size <= MAX_ENTRIES:
            for at, unit, _ in _unit_directions(self.arrays[i]):
                here = kink_along(self.values, self.arrays, i, unit, order)
                if here is not None:
                    found, place = here, f"entry {tuple(map(int, at))} of input {i}, which is {self.arrays[i][at]:.6g},"
                    break
        raise KinkError(
            f"{place} is at {found}. A difference says nothing there: move the input away from it by more than "
            f"{2 * STEP:g} of its size, and test what you document for that point by itself"
        )


def _one_of_many(
    gradient: Floats, numeric_for: Callable[[Sequence[Floats]], Floats], u: Sequence[Floats]
) -> str | None:
    """Whether `gradient` is that of the first or last index of an output alone: a sum is missing."""
    for k, cotangent in enumerate(u):
        for axis in (axis for axis, n in enumerate(cotangent.shape) if n > 1):
            for place, row in (("first", 0), ("last", -1)):
                only = np.zeros_like(cotangent)
                at = (slice(None),) * axis + (row,)
                only[at] = cotangent[at]
                numeric = numeric_for([only if j == k else np.zeros_like(v) for j, v in enumerate(u)])
                if np.all(abs(gradient - numeric) <= 1e-6 * np.max(abs(numeric), initial=0)):
                    return f"that of the {place} index of axis {axis} of output {k} alone: missing sum over the batch?"
    return None


def _unit_directions(x: Array) -> Iterator[tuple[tuple[int, ...], Floats, float]]:
    """Each index of `x`, the direction of that entry alone, and its length max(1, |x|)."""
    for at in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[at] = scale = max(1.0, abs(float(x[at])))
        yield at, d, scale


def _jittered(x: Array, size: float, rng: np.random.Generator) -> Floats:
    """`x` moved a little."""
    return np.asarray(x + size * rng.uniform(-1, 1, x.shape) * np.maximum(1, abs(x)))


def _ratio(analytic: float, numeric: float) -> str:
    return f"{analytic / numeric:.6g}" if numeric else "undefined"
