"""check_gradients: is the derivative that the engine computes the derivative of the function?

The gradient Jᵀu for a random cotangent u is compared with a numeric directional derivative <u, Jd> along a
random direction d, one input at a time; of small functions also every entry of J. The tolerance is relative to
sum|d * Jᵀu|, what the two numbers are sums of, or to the entry: there is no absolute tolerance under which a
vanishing gradient could hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.errors import DTypeError
from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.graph import leaf
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing.errors import GradientError, KinkError
from tinygrad_rnn.testing.guesses import guess
from tinygrad_rnn.testing.numeric import (
    EPS,
    STEP,
    Slopes,
    Step,
    closer,
    complex_step,
    complex_step_fault,
    four_point,
    kink_along,
    total,
    varied,
)

__all__ = ["check_gradients"]

Function = Callable[..., Any]
Arrays = tuple[NDArray[Any], ...]
Floats = NDArray[np.float64]

FIRST, SECOND = "the gradient", "the second derivative"
JACOBIAN = 256  # up to so many entries the whole Jacobian is checked too
MAX_ENTRIES = 2000  # a failure is located entry by entry up to this size


def check_gradients(
    f: Function,
    *inputs: Any,
    order: int = 1,
    analytic: bool | None = None,
    rtol: float | None = None,
    seed: int = 0,
) -> None:
    """Compare the gradients of `f` with numeric derivatives; return nothing, or raise GradientError.

    Arguments:
        f: a function of Tensors, the inputs in order, that returns a Tensor or (nested) tuples of Tensors. It
            must be deterministic, and differentiable at the inputs and within 0.2 % of them.
        inputs: Tensors or arrays of float64, of any shape; integers and booleans are passed on as constants.
        order: 2 also checks the derivatives of the gradient Jᵀu, with respect to the inputs and to u.
        analytic: True demands the complex step (no rounding error, but `f` must do without abs, comparisons
            and real parts; it is verified against a plain difference), False the four-point difference
            (4 c(h) - c(2h)) / 3 of central differences c. None takes the complex step where it proves right.
        rtol: relative tolerance; 1e-12 for the complex step and 1e-9 for the difference unless given.
        seed: of the random cotangents and directions.

    Raises:
        GradientError: an AssertionError whose message shows the input, its worst entry, both values, their ratio,
            and a guess at the mistake where it looks like a usual one.
        KinkError: a GradientError, for an input at a kink, a jump or a pole, even where its subgradient happens to
            agree with the difference.
        DTypeError: inputs or outputs that are floats but not float64: no difference is accurate in those; or no
            floats at all.
        ValueError: a function that gives other values when it is called again.

    The complex step is by Squire and Trapp, "Using Complex Variables to Estimate Derivatives of Real
    Functions", SIAM Review 40(1), 1998; the four-point difference is one step of Richardson's extrapolation.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> check_gradients(lambda x, w: tr.tanh(x @ w), np.ones((2, 3)), np.full((3, 4), 0.1), order=2)
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    arrays: Arrays = tuple(_float64_or_constant(x, i) for i, x in enumerate(inputs))
    if not varied(arrays):
        kinds = ", ".join(str(x.dtype) for x in arrays) or "no inputs"
        raise DTypeError(f"check_gradients has nothing to check: no input is float64 ({kinds}); write 2.0 and not 2")
    with np.errstate(all="ignore"):  # where a step leaves the domain, the error says so
        _check_all(f, arrays, order, analytic, rtol, np.random.default_rng(seed))


def _check_all(
    f: Function, arrays: Arrays, order: int, analytic: bool | None, rtol: float | None, rng: np.random.Generator
) -> None:
    twice = zip(_values(f, arrays), _values(f, arrays), strict=True)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in twice):
        raise ValueError("check_gradients: the function gives other values when it is called again (dropout? seed it)")
    cotangents = _check(f, arrays, analytic, rtol, rng, FIRST)
    if order == 2:
        # The vjp is a function of the inputs and of the cotangents, and its gradients are checked in the same
        # way. Whether the complex step holds for it is for the step to prove: a vjp may use a comparison.
        vjp, again = _vjp_as_function(f, arrays), None if analytic is None or analytic else False
        _check(vjp, (*arrays, *cotangents), again, rtol, rng, SECOND)


# --- the two evaluations ------------------------------------------------------------------------------------


def _float64_or_constant(x: Any, i: int) -> NDArray[Any]:
    array = np.asarray(x.detach().numpy() if isinstance(x, Tensor) else x)
    if array.dtype.kind == "f" and array.dtype != np.float64:
        raise DTypeError(
            f"check_gradients needs float64, input {i} is {array.dtype}: no difference is accurate in it. "
            "Convert it with .astype('float64'); compare float32 with float64 of the same function instead."
        )
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"check_gradients cannot vary input {i} of dtype {array.dtype}")
    array = array.view()
    array.flags.writeable = False  # a vjp that writes to what was kept for it raises here
    return array


def _flatten(outputs: Any) -> list[Tensor]:
    """The Tensors of nested tuples and lists, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, tuple | list):
        return [y for part in outputs for y in _flatten(part)]
    raise TypeError(f"check_gradients needs a function that returns Tensors, it returned {type(outputs).__name__}")


def _values(f: Function, arrays: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """The raw floating outputs of `f`; nothing is recorded as no input requires a gradient."""
    outputs = _flatten(f(*(box(x, None) for x in arrays)))
    return [y._array for y in outputs if y._array.dtype.kind in "fc"]


def _gradients(f: Function, arrays: Sequence[NDArray[Any]], cotangents: Sequence[Floats]) -> list[Floats]:
    """Jᵀu for every floating input, by the engine, every array that a vjp sees first hand made read-only."""
    tensors = [_variable(x) if x.dtype.kind == "f" else box(x, None) for x in arrays]
    outputs = [y for y in _flatten(f(*tensors)) if y._array.dtype.kind == "f"]
    for y in outputs:
        y._array.flags.writeable = False
    return [g._array for g in _pull(outputs, cotangents, [tensors[i] for i in varied(arrays)], False)]


def _jacobian(f: Function, arrays: Sequence[NDArray[Any]], outputs: Sequence[Floats]) -> list[list[dict[int, Floats]]]:
    """For each output, and each of its entries, the gradients of that entry by input, by one backward each."""
    tensors = [_variable(x) if x.dtype.kind == "f" else box(x, None) for x in arrays]
    made = [y for y in _flatten(f(*tensors)) if y._array.dtype.kind == "f"]
    moving = varied(arrays)
    rows: list[list[dict[int, Floats]]] = []
    for y, values in zip(made, outputs, strict=True):
        rows.append([])
        for at in np.ndindex(values.shape):
            u = np.zeros(values.shape)
            u[at] = 1.0
            gradients = _pull([y], [u], [tensors[i] for i in moving], False, retain_graph=True)
            rows[-1].append({i: g._array for i, g in zip(moving, gradients, strict=True)})
    return rows


def _variable(array: NDArray[Any]) -> Tensor:
    """A leaf that requires a gradient and holds `array` itself: its layout, its flags, its dtype."""
    return box(array, leaf(array.shape, array.dtype))


def _pull(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Any],
    tensors: Sequence[Tensor],
    create_graph: bool,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """Gradients of sum <output, cotangent>, zeros where the outputs do not depend on a tensor."""
    live = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not live or not tensors:
        return [box(np.zeros_like(x._array), None) for x in tensors]
    u = [u if isinstance(u, Tensor) else box(u, None) for _, u in live]
    return list(
        grad([y for y, _ in live], list(tensors), gradient=u, create_graph=create_graph, retain_graph=retain_graph)
    )


def _vjp_as_function(f: Function, arrays: Sequence[NDArray[Any]]) -> Function:
    """The function (inputs, cotangents) -> gradients, itself differentiable."""
    moving = set(varied(arrays))

    def vjp(*tensors: Tensor) -> list[Tensor]:
        xs, us = list(tensors[: len(arrays)]), tensors[len(arrays) :]
        for i in moving:
            if not xs[i].requires_grad:  # a plain evaluation, for a numeric derivative
                xs[i] = _variable(xs[i]._array)
        outputs = [y for y in _flatten(f(*xs)) if y._array.dtype.kind in "fc"]
        return _pull(outputs, us, [xs[i] for i in sorted(moving)], True)

    return vjp


# --- the comparison -----------------------------------------------------------------------------------------


def _direction(x: NDArray[Any], rng: np.random.Generator) -> Floats:
    """Random signs and sizes in [0.5, 1], so that every entry counts, times the step's scale max(1, |x|)."""
    signs = 2.0 * rng.integers(0, 2, x.shape) - 1.0
    return np.asarray(signs * rng.uniform(0.5, 1.0, x.shape) * np.maximum(1.0, abs(x)))


def _check(
    f: Function,
    arrays: Arrays,
    analytic: bool | None,
    rtol: float | None,
    rng: np.random.Generator,
    what: str,
) -> list[Floats]:
    """Check every floating input along a random direction of its own; the cotangents that were used."""
    outputs = _values(f, arrays)
    for y in outputs:
        if y.dtype != np.float64:
            raise DTypeError(f"check_gradients needs float64, the function made {y.dtype} of it")
    # never all ones: the gradient of a softmax's sum is zero, whatever its vjp returns
    cotangents = [rng.standard_normal(y.shape) for y in outputs]
    for u in cotangents:
        u.flags.writeable = False

    def values(xs: Sequence[NDArray[Any]]) -> list[Floats]:
        return _values(f, xs)

    fault = None if analytic is False else complex_step_fault(values, arrays, lambda x: _direction(x, rng))
    if fault and analytic:
        raise GradientError(f"analytic=True, but the complex step is wrong for this function: {fault}")
    step = four_point if analytic is False or fault else complex_step
    judge = _Judge(f, arrays, step, step.rtol if rtol is None else rtol, rng, what)

    gradients = _gradients(f, arrays, cotangents)
    for i, gradient in zip(varied(arrays), gradients, strict=True):
        x = arrays[i]
        if gradient.shape != x.shape or gradient.dtype != x.dtype:
            raise GradientError(
                f"{what} of input {i} is {gradient.dtype} of shape {gradient.shape}, "
                f"the input {x.dtype} of shape {x.shape}",
                "shape" if gradient.shape != x.shape else "dtype",
            )
        judge.along(i, gradient, _direction(x, rng), cotangents)
    if what == FIRST and 0 < sum(arrays[i].size for i in varied(arrays)) * sum(y.size for y in outputs) <= JACOBIAN:
        judge.jacobian(outputs)
    return cotangents


@dataclass(frozen=True)
class _Judge:
    """Compares what the engine says with a numeric derivative of `f` at `arrays`, and words what differs."""

    f: Function
    arrays: Arrays
    step: Step
    rtol: float
    rng: np.random.Generator
    what: str

    def values(self, arrays: Sequence[NDArray[Any]]) -> list[Floats]:
        return _values(self.f, arrays)

    def slopes(self, i: int, d: Floats) -> Slopes:
        """J d by the step; a kink on the way is an error."""
        slopes = self.step.along(self.values, self.arrays, i, d)
        if slopes.bent:
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
        error = abs(ours - numeric)
        if error <= allowed or self.is_rounding(i, d, u, error):  # a NaN is neither
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
        if slopes.spread > 1e-3 * abs(numeric):
            lines.append(
                "note: the function bends much within a step, so the difference is rough: scale the input down"
            )
        raise GradientError("\n".join(lines), self.what.removeprefix("the "))

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
        rows = _jacobian(self.f, self.arrays, outputs)
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
                        if self.is_rounding(i, d, u, float(errors[y])):
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

    def is_rounding(self, i: int, d: Floats, u: Sequence[Floats], error: float) -> bool:
        """Whether a difference is no more than rounding, as where a derivative is zero because its terms cancel.

        Rounding is at most some eps of the values (over the step), and it changes when the inputs move by a few of
        their last bits; a mistake stays. Asking for both keeps a gradient that vanishes from hiding behind the values.
        """
        largest = max((float(np.max(abs(y), initial=0)) for y in self.values(self.arrays)), default=0.0)
        if not error <= self.step.rounding * largest * total(abs(a) for a in u):
            return False
        differences = []
        for _ in range(6):
            nearby = [_jittered(x, self.rng) if x.dtype.kind == "f" else x for x in self.arrays]
            gradient = _gradients(self.f, nearby, u)[varied(self.arrays).index(i)]
            differences.append(float(np.sum(d * gradient)) - self.step.along(self.values, nearby, i, d).dot(u)[0])
        return error <= 8 * (max(differences) - min(differences))

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
        if d.size <= MAX_ENTRIES:
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


def _unit_directions(x: NDArray[Any]) -> Iterator[tuple[tuple[int, ...], Floats, float]]:
    """Each index of `x`, the direction of that entry alone, and its length max(1, |x|)."""
    for at in np.ndindex(x.shape):
        d = np.zeros(x.shape)
        d[at] = scale = max(1.0, abs(float(x[at])))
        yield at, d, scale


def _jittered(x: NDArray[Any], rng: np.random.Generator) -> Floats:
    """`x` moved by some of its last bits."""
    return np.asarray(x + 64 * EPS * rng.uniform(-1, 1, x.shape) * np.maximum(1, abs(x)))


def _ratio(analytic: float, numeric: float) -> str:
    return f"{analytic / numeric:.6g}" if numeric else "undefined"
