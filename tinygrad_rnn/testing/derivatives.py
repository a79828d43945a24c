"""The derivatives of a function at one point, compared with numeric ones: are they those of the function?

The gradient Jᵀu for a random cotangent u is compared with a numeric directional derivative <u, Jd> along a
random direction d, one input at a time; of small functions also every entry of J. The tolerance is relative to
sum|d * Jᵀu|, what the two numbers are sums of, or to the entry: there is no absolute tolerance under which a
vanishing gradient could hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinygrad_rnn.errors import DTypeError
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, Function, frozen, generator_of, values_of
from tinygrad_rnn.testing.comparison import (
    FIRST,
    JACOBIAN,
    SECOND,
    Comparison,
    direction,
    gradients_of,
    vjp_as_function,
)
from tinygrad_rnn.testing.errors import GradientError
from tinygrad_rnn.testing.numeric import (
    EPS,
    Floats,
    closer,
    complex_step,
    complex_step_fault,
    four_point,
    nearer,
    varied,
)

__all__ = ["Derivatives"]

SURE = 8  # times nearer to each other than to a gradient are numbers that judge it


class Derivatives:
    """The derivatives of a function at one point, to be compared with numeric ones; see `check_gradients`."""

    def __init__(
        self,
        f: Function,
        inputs: Sequence[Any],
        analytic: bool | None = None,
        rtol: float | None = None,
        seed: int = 0,
        slack: float = 0.0,
        locate: bool = True,
    ) -> None:
        self.locate = locate
        self.f, self.analytic, self.rtol, self.slack = f, analytic, rtol, slack
        self.arrays = tuple(_float64_or_constant(x, i) for i, x in enumerate(inputs))
        if not varied(self.arrays):
            kinds = ", ".join(str(x.dtype) for x in self.arrays) or "no inputs"
            raise DTypeError(
                f"check_gradients has nothing to check: no input is float64 ({kinds}); write 2.0 and not 2"
            )
        self.rng = generator_of(seed)

    def check_first(self) -> None:
        """Compare Jᵀu with numbers; GradientError where it is wrong."""
        assert self.cotangents is not None

    def agree_together(self) -> bool:
        """Whether Jᵀu may be right, along a random direction in all inputs at once, which is quick.

        It is not where it disagrees with the steps, and these agree with each other: where rounding or a kink decides,
        they do not. Raises only what the backward does.
        """
        rng = self.rng
        moving = varied(self.arrays)
        ds = [direction(self.arrays[i], rng) for i in moving]

        def along(s: Sequence[Array]) -> list[Floats]:
            moved = list(self.arrays)
            for i, d in zip(moving, ds, strict=True):
                moved[i] = moved[i] + s[0] * d
            return values_of(self.f, [frozen(np.asarray(x)) for x in moved])

        at, one = [np.zeros(())], np.ones(())
        with np.errstate(all="ignore"):
            us = [frozen(rng.standard_normal(y.shape)) for y in values_of(self.f, self.arrays)]
            terms = [d * g for d, g in zip(ds, gradients_of(self.f, self.arrays, us), strict=True)]
            ours, size = (sum(float(np.sum(t)) for t in some) for some in (terms, [abs(t) for t in terms]))
            fault = self.analytic is False or complex_step_fault(along, at, np.ones_like)
            steps = [four_point, nearer, closer] if fault else [complex_step, four_point, closer]
            numeric, noise = steps[0].along(along, at, 0, one).dot(us)
            scale = max((float(np.max(abs(x), initial=1.0)) for x in (*ds, *self.arrays)), default=1.0)
            slack = self.slack * EPS * scale * sum(float(np.sum(abs(u))) for u in us)
            if abs(ours - numeric) <= steps[0].rtol * size + noise + slack:
                return True
            found = [numeric, *(step.along(along, at, 0, one).dot(us)[0] for step in steps[1:])]
        between = max(found) - min(found)
        return not all(np.isfinite(found)) or not all(not abs(ours - n) <= SURE * between for n in found)

    def check_first_of(self, i: int, axis: int) -> None:
        """Compare the gradient of the first entries of one input along an axis with numbers, relative to their own
        size: what comes there from far, by many steps of a layer with memory, is little beside the rest. Only where
        the complex step holds.
        """
        rng = self.rng
        with np.errstate(all="ignore"):
            us = [frozen(rng.standard_normal(y.shape)) for y in values_of(self.f, self.arrays)]
            if self._fault(self.f, self.arrays, self.analytic) is None:
                d = direction(self.arrays[i], rng)
                d[(slice(None),) * axis + (slice(1, None),)] = 0
                gradients = gradients_of(self.f, self.arrays, us)
                comparison = Comparison(self.f, self.arrays, complex_step, complex_step.rtol, rng, FIRST, locate=False)
                comparison.along(i, gradients[varied(self.arrays).index(i)], d, us)

    def _fault(self, f: Function, arrays: Sequence[Array], analytic: bool | None) -> str | None:
        """Why the complex step is not to be trusted, or None."""
        if analytic is False:
            return "it is not asked for"
        return complex_step_fault(lambda xs: values_of(f, xs), arrays, lambda x: direction(x, self.rng))

    def check_second(self) -> None:
        """Compare the derivatives of Jᵀu, by the inputs and by u, with numbers; the first order is checked before."""
        cotangents = self.cotangents
        # The vjp is a function of the inputs and of the cotangents, and its gradients are checked in the same
        # way. Whether the complex step holds for it is for the step to prove: a vjp may use a comparison.
        vjp, analytic = vjp_as_function(self.f, self.arrays), None if self.analytic is None or self.analytic else False
        with np.errstate(all="ignore"):
            self._check(vjp, (*self.arrays, *cotangents), analytic, SECOND)

    @cached_property
    def cotangents(self) -> list[Floats]:
        """Those of the first order, which has been checked with them."""
        with np.errstate(all="ignore"):  # where a step leaves the domain, the error says so
            twice = zip(values_of(self.f, self.arrays), values_of(self.f, self.arrays), strict=True)
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in twice):
                raise ValueError(
                    "check_gradients: the function gives other values when it is called again (dropout? seed it)"
                )
            return self._check(self.f, self.arrays, self.analytic, FIRST)

    def _check(self, f: Function, arrays: Sequence[Array], analytic: bool | None, what: str) -> list[Floats]:
        """Check every floating input along a random direction of its own; the cotangents that were used."""
        outputs, rng = values_of(f, arrays), self.rng
        for y in outputs:
            if y.dtype != np.float64:
                raise DTypeError(f"check_gradients needs float64, the function made {y.dtype} of it")
        # never all ones: the gradient of a softmax's sum is zero, whatever its vjp returns
        cotangents = [rng.standard_normal(y.shape) for y in outputs]
        for u in cotangents:
            u.flags.writeable = False

        fault = self._fault(f, arrays, analytic)
        if fault and analytic:
            raise GradientError(f"analytic=True, but the complex step is wrong for this function: {fault}")
        step = four_point if fault else complex_step
        comparison = Comparison(
            f, arrays, step, step.rtol if self.rtol is None else self.rtol, rng, what, self.slack, self.locate
        )

        gradients = gradients_of(f, arrays, cotangents)
        for i, gradient in zip(varied(arrays), gradients, strict=True):
            x = arrays[i]
            if gradient.shape != x.shape or gradient.dtype != x.dtype:
                raise GradientError(
                    f"{what} of input {i} is {gradient.dtype} of shape {gradient.shape}, "
                    f"the input {x.dtype} of shape {x.shape}",
                    "shape" if gradient.shape != x.shape else "dtype",
                )
            comparison.along(i, gradient, direction(x, rng), cotangents)
        entries = sum(arrays[i].size for i in varied(arrays)) * sum(y.size for y in outputs)
        if what == FIRST and 0 < entries <= JACOBIAN:
            comparison.jacobian(outputs)
        return cotangents


def _float64_or_constant(x: Any, i: int) -> Array:
    """An input as an array, read-only: a vjp that writes to what was kept for it raises."""
    array = np.asarray(x.detach().numpy() if isinstance(x, Tensor) else x)
    if array.dtype.kind == "f" and array.dtype != np.float64:
        raise DTypeError(
            f"check_gradients needs float64, input {i} is {array.dtype}: no difference is accurate in it. "
            "Convert it with .astype('float64'); compare float32 with float64 of the same function instead."
        )
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"check_gradients cannot vary input {i} of dtype {array.dtype}")
    return frozen(array)
