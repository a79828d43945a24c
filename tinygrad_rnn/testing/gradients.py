"""check_gradients: is the derivative that the engine computes the derivative of the function?

The gradient Jᵀu for a random cotangent u is compared with a numeric directional derivative <u, Jd> along a
random direction d, one input at a time. The tolerance is relative to sum|d * Jᵀu|, what the two numbers are
sums of: there is no absolute tolerance under which a vanishing gradient could hide.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.errors import DTypeError
from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.graph import leaf
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing.errors import GradientError

__all__ = ["check_gradients"]

Function = Callable[..., Any]
Floats = NDArray[np.float64]

COMPLEX_STEP = 1e-30  # its square vanishes beside every float64, so the step has no truncation error
STEP = 1e-3  # of the four-point difference: truncation h^4 and rounding eps / h are both near 1e-12
COMPLEX_RTOL, DIFFERENCE_RTOL, COARSE_RTOL = 1e-12, 1e-9, 1e-4
EPS = float(np.finfo(np.float64).eps)
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
            must be deterministic, and differentiable at the inputs.
        inputs: Tensors or arrays of float64, of any shape; integers and booleans are passed on as constants.
        order: 2 also checks the derivatives of the gradient Jᵀu, with respect to the inputs and to u.
        analytic: True demands the complex step (no rounding error, but `f` must do without abs, comparisons
            and real parts; it is verified against a plain difference), False the four-point difference
            (4 c(h) - c(2h)) / 3 of central differences c. None takes the complex step where it proves right.
        rtol: relative tolerance; 1e-12 for the complex step and 1e-9 for the difference unless given.
        seed: of the random cotangents and directions.

    Raises:
        GradientError: an AssertionError whose message shows the input, its worst entry, both values and their
            ratio.
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
    arrays = tuple(_float64_or_constant(x, i) for i, x in enumerate(inputs))
    if not _varied(arrays):
        kinds = ", ".join(str(x.dtype) for x in arrays) or "no inputs"
        raise DTypeError(f"check_gradients has nothing to check: no input is float64 ({kinds}); write 2.0 and not 2")
    if any(
        not np.array_equal(a, b, equal_nan=True) for a, b in zip(_values(f, arrays), _values(f, arrays), strict=True)
    ):
        raise ValueError("check_gradients: the function gives other values when it is called again (dropout? seed it)")
    rng = np.random.default_rng(seed)
    cotangents = _check(f, arrays, analytic, rtol, rng, "the gradient")
    if order == 2:
        # The vjp is a function of the inputs and of the cotangents, and its gradients are checked in the same
        # way. Whether the complex step holds for it is for the step to prove: a vjp may use a comparison.
        vjp, again = _vjp_as_function(f, arrays), None if analytic is None or analytic else False
        _check(vjp, (*arrays, *cotangents), again, rtol, rng, "the second derivative")


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


def _varied(arrays: Sequence[NDArray[Any]]) -> list[int]:
    return [i for i, x in enumerate(arrays) if x.dtype.kind in "fc"]


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
    return [g._array for g in _pull(outputs, cotangents, [tensors[i] for i in _varied(arrays)], False)]


def _variable(array: NDArray[Any]) -> Tensor:
    """A leaf that requires a gradient and holds `array` itself: its layout, its flags, its dtype."""
    return box(array, leaf(array.shape, array.dtype))


def _pull(
    outputs: Sequence[Tensor], cotangents: Sequence[Any], tensors: Sequence[Tensor], create_graph: bool
) -> list[Tensor]:
    """Gradients of sum <output, cotangent>, zeros where the outputs do not depend on a tensor."""
    live = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not live or not tensors:
        return [box(np.zeros_like(x._array), None) for x in tensors]
    u = [u if isinstance(u, Tensor) else box(u, None) for _, u in live]
    return list(grad([y for y, _ in live], list(tensors), gradient=u, create_graph=create_graph))


def _vjp_as_function(f: Function, arrays: Sequence[NDArray[Any]]) -> Function:
    """The function (inputs, cotangents) -> gradients, itself differentiable."""
    varied = set(_varied(arrays))

    def vjp(*tensors: Tensor) -> list[Tensor]:
        xs, us = list(tensors[: len(arrays)]), tensors[len(arrays) :]
        for i in varied:
            if not xs[i].requires_grad:  # a plain evaluation, for a numeric derivative
                xs[i] = _variable(xs[i]._array)
        outputs = [y for y in _flatten(f(*xs)) if y._array.dtype.kind in "fc"]
        return _pull(outputs, us, [xs[i] for i in sorted(varied)], True)

    return vjp


# --- the numeric derivative ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slope:
    """A directional derivative <u, Jd>, and the error that rounding may have put into it."""

    value: float
    noise: float


def _moved(arrays: Sequence[NDArray[Any]], i: int, d: NDArray[Any], complex_too: bool) -> list[NDArray[Any]]:
    """The inputs with input `i` moved by `d`; a complex step makes all complex, so that no dtype cuts it."""
    return [
        np.asarray(x + d if j == i else x + 0j if complex_too else x) if x.dtype.kind == "f" else x
        for j, x in enumerate(arrays)
    ]


def _complex_step(f: Function, arrays: Sequence[NDArray[Any]], u: Sequence[Floats], i: int, d: Floats) -> _Slope:
    outputs = _values(f, _moved(arrays, i, 1j * COMPLEX_STEP * d, True))
    terms = [a * (np.imag(y) / COMPLEX_STEP) for a, y in zip(u, outputs, strict=True)]
    return _Slope(_total(terms), 64 * EPS * _total(map(np.abs, terms)))


def _central(f: Function, arrays: Sequence[NDArray[Any]], i: int, d: Floats) -> tuple[list[Floats], list[Floats]]:
    """Differences y(x + d) - y(x - d), and the size of the values that were subtracted."""
    ahead, behind = _values(f, _moved(arrays, i, d, False)), _values(f, _moved(arrays, i, -d, False))
    pairs = list(zip(ahead, behind, strict=True))
    return [a - b for a, b in pairs], [abs(a) + abs(b) for a, b in pairs]


def _four_point(f: Function, arrays: Sequence[NDArray[Any]], u: Sequence[Floats], i: int, d: Floats) -> _Slope:
    near, size = _central(f, arrays, i, STEP * d)
    far, _ = _central(f, arrays, i, 2 * STEP * d)
    terms = [a * (8 * n - m) / (12 * STEP) for a, n, m in zip(u, near, far, strict=True)]
    noise = 16 * EPS / STEP * _total(abs(a) * s for a, s in zip(u, size, strict=True))
    return _Slope(_total(terms), noise)


def _total(terms: Iterable[Any]) -> float:
    return float(sum(np.sum(t) for t in terms))


def _complex_step_fault(f: Function, arrays: Sequence[NDArray[Any]], rng: np.random.Generator) -> str | None:
    """Why the complex step cannot be trusted for `f` here, or None; a plain difference is the judge."""
    for i in _varied(arrays):
        d = _direction(arrays[i], rng)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                outputs = _values(f, _moved(arrays, i, 1j * COMPLEX_STEP * d, True))
        except (TypeError, ValueError, np.exceptions.ComplexWarning) as error:
            return f"it does not run on complex numbers ({type(error).__name__}: {error})"
        h = 1e-5
        differences, sizes = _central(f, arrays, i, h * d)
        for y, difference, size in zip(outputs, differences, sizes, strict=True):
            column, plain = np.imag(y) / COMPLEX_STEP, difference / (2 * h)
            allowed = COARSE_RTOL * np.max(abs(plain), initial=0) + 16 * EPS / h * size
            wrong = abs(column - plain) > allowed
            if np.any(wrong):
                at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
                return f"it gives {column[at]:.6g} where a plain difference gives {plain[at]:.6g}"
    return None


# --- the comparison -----------------------------------------------------------------------------------------


def _direction(x: NDArray[Any], rng: np.random.Generator) -> Floats:
    """Random signs and sizes in [0.5, 1], so that every entry counts, times the step's scale max(1, |x|)."""
    signs = 2.0 * rng.integers(0, 2, x.shape) - 1.0
    return np.asarray(signs * rng.uniform(0.5, 1.0, x.shape) * np.maximum(1.0, abs(x)))


def _check(
    f: Function,
    arrays: tuple[NDArray[Any], ...],
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

    fault = None if analytic is False else _complex_step_fault(f, arrays, rng)
    if fault and analytic:
        raise GradientError(f"analytic=True, but the complex step is wrong for this function: {fault}")
    use_complex = analytic is not False and fault is None

    step_of = _complex_step if use_complex else _four_point

    def slope(i: int, d: Floats) -> _Slope:
        return step_of(f, arrays, cotangents, i, d)

    tolerance = rtol if rtol is not None else COMPLEX_RTOL if use_complex else DIFFERENCE_RTOL
    gradients = _gradients(f, arrays, cotangents)
    for i, gradient in zip(_varied(arrays), gradients, strict=True):
        x = arrays[i]
        if gradient.shape != x.shape or gradient.dtype != x.dtype:
            raise GradientError(
                f"{what} of input {i} is {gradient.dtype} of shape {gradient.shape}, "
                f"the input {x.dtype} of shape {x.shape}"
            )
        d = _direction(x, rng)
        terms = d * gradient
        numeric = slope(i, d)
        allowed = tolerance * float(np.sum(abs(terms))) + numeric.noise
        error = abs(float(np.sum(terms)) - numeric.value)
        if not error <= allowed:  # written so that a NaN fails
            if _is_rounding(f, arrays, cotangents, i, d, step_of, error, rng):
                continue
            step = "complex step" if use_complex else "four-point difference"
            raise GradientError(_message(what, i, x, gradient, terms, numeric, allowed, step, slope))
    return cotangents


def _is_rounding(
    f: Function,
    arrays: Sequence[NDArray[Any]],
    u: Sequence[Floats],
    i: int,
    d: Floats,
    step: Callable[..., _Slope],
    error: float,
    rng: np.random.Generator,
) -> bool:
    """Whether a difference is no more than rounding, as where a derivative is zero because its terms cancel.

    Rounding is at most some eps of the values, and it changes when the inputs move by a few of their last
    bits; a mistake stays. Asking for both keeps a gradient that vanishes from hiding behind the values.
    """
    if not error <= 256 * EPS * _total(abs(a * y) for a, y in zip(u, _values(f, arrays), strict=True)):
        return False
    differences = []
    for _ in range(6):
        nearby = [_jittered(x, rng) if x.dtype.kind == "f" else x for x in arrays]
        gradient = _gradients(f, nearby, u)[_varied(arrays).index(i)]
        differences.append(float(np.sum(d * gradient)) - step(f, nearby, u, i, d).value)
    return error <= 8 * (max(differences) - min(differences))


def _jittered(x: NDArray[Any], rng: np.random.Generator) -> Floats:
    """`x` moved by some of its last bits."""
    return np.asarray(x + 64 * EPS * rng.uniform(-1, 1, x.shape) * np.maximum(1, abs(x)))


def _message(
    what: str,
    i: int,
    x: Floats,
    gradient: Floats,
    terms: Floats,
    numeric: _Slope,
    allowed: float,
    step: str,
    slope: Callable[[int, Floats], _Slope],
) -> str:
    along = float(np.sum(terms))
    lines = [
        f"{what} of input {i}, of shape {x.shape}, is wrong along a random direction: "
        f"analytic {along:.12g}, numeric {numeric.value:.12g}, ratio {_ratio(along, numeric.value)} "
        f"({step}, off by {abs(along - numeric.value):.3g}, allowed {allowed:.3g})"
    ]
    if x.size <= MAX_ENTRIES:
        numbers = np.empty(x.shape)
        for at in np.ndindex(x.shape):
            d = np.zeros(x.shape)
            d[at] = scale = max(1.0, abs(float(x[at])))
            numbers[at] = slope(i, d).value / scale
        errors = abs(gradient - numbers)
        worst = np.unravel_index(int(np.argmax(errors)), x.shape)
        count = int(np.sum(errors > 1e-6 * (abs(gradient) + abs(numbers))))
        lines.append(
            f"worst entry {tuple(map(int, worst))}: input {x[worst]:.6g}, analytic {gradient[worst]:.12g}, "
            f"numeric {numbers[worst]:.12g}, ratio {_ratio(gradient[worst], numbers[worst])}; "
            f"{count} of {x.size} entries differ"
        )
    return "\n".join(lines)


def _ratio(analytic: float, numeric: float) -> str:
    return f"{analytic / numeric:.6g}" if numeric else "undefined"
