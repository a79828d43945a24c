"""check_gradients: is the derivative that the engine computes the derivative of the function?

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
from tinygrad_rnn.testing.calls import Array, Function, frozen
from tinygrad_rnn.testing.comparison import (
    FIRST,
    JACOBIAN,
    SECOND,
    Comparison,
    direction,
    gradients_of,
    values_of,
    vjp_as_function,
)
from tinygrad_rnn.testing.errors import GradientError
from tinygrad_rnn.testing.numeric import Floats, complex_step, complex_step_fault, four_point, varied

__all__ = ["Derivatives", "check_gradients"]


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
    derivatives = Derivatives(f, inputs, analytic, rtol, seed)
    derivatives.check_first()
    if order == 2:
        derivatives.check_second()


class Derivatives:
    """The derivatives of a function at one point, to be compared with numeric ones; see `check_gradients`."""

    def __init__(
        self,
        f: Function,
        inputs: Sequence[Any],
        analytic: bool | None = None,
        rtol: float | None = None,
        seed: int = 0,
    ) -> None:
        self.f, self.analytic, self.rtol = f, analytic, rtol
        self.arrays = tuple(_float64_or_constant(x, i) for i, x in enumerate(inputs))
        if not varied(self.arrays):
            kinds = ", ".join(str(x.dtype) for x in self.arrays) or "no inputs"
            raise DTypeError(
                f"check_gradients has nothing to check: no input is float64 ({kinds}); write 2.0 and not 2"
            )
        self.rng = np.random.default_rng(seed)

    def check_first(self) -> None:
        """Compare Jᵀu with numbers; GradientError where it is wrong."""
        assert self.cotangents is not None

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

        def values(xs: Sequence[Array]) -> list[Floats]:
            return values_of(f, xs)

        fault = None if analytic is False else complex_step_fault(values, arrays, lambda x: direction(x, rng))
        if fault and analytic:
            raise GradientError(f"analytic=True, but the complex step is wrong for this function: {fault}")
        step = four_point if analytic is False or fault else complex_step
        comparison = Comparison(f, arrays, step, step.rtol if self.rtol is None else self.rtol, rng, what)

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
