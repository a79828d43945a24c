"""check_gradients: is the derivative that the engine computes the derivative of the function?

The gradient Jᵀu for a random cotangent u is compared with a numeric directional derivative <u, Jd> along a
random direction d, one input at a time; of small functions also every entry of J. The tolerance is relative to
sum|d * Jᵀu|, what the two numbers are sums of, or to the entry: there is no absolute tolerance under which a
vanishing gradient could hide. Then the laws of a derivative are asked, which need no numbers, and other points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.testing import laws, modules
from tinygrad_rnn.testing.calls import Array, Function, generator_of
from tinygrad_rnn.testing.derivatives import Derivatives
from tinygrad_rnn.testing.elsewhere import check_elsewhere
from tinygrad_rnn.testing.errors import GradientError, LawError
from tinygrad_rnn.testing.example import Example
from tinygrad_rnn.testing.judge import Law, judge, law_of

__all__ = ["LAWS", "check_gradients"]


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
            must be deterministic, and differentiable at the inputs and within 0.2 % of them. Or a Module: it is
            checked with its parameters, in both modes, by the laws of `check_module`.
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
        ValueError: a function that gives other values when it is called again, or that writes to what it was given.

    Beside the numbers it is asked that gradients have the shapes and dtypes of their inputs, share no memory, are
    linear in what is pulled back and exactly 0 for 0, do not depend on how arrays lie in memory or on which of the
    inputs require a gradient, add up in `.grad`, and are near the same in float32. The numbers are then compared at
    other points, where `f` takes them and is smooth: values 4, 16 and 64 times as large and of the other sign; one row,
    an odd number and 67 of them, along each axis of the first input but its last.

    What it cannot see:

    - the value of `f` itself: a derivative that fits a wrong forward is right;
    - a derivative at a kink, a tie or a jump, where there is none; a straight-through estimator is refused;
    - a function that bends within a thousandth of its input, without a complex step: a normalisation of equal values;
    - what happens on a condition that no argument meets here: a size, an option, a number of calls;
    - the second derivative, unless `order=2`, and third ones;
    - weights that `f`, a function, closes over: pass them as inputs, or pass the module;
    - what is within rounding: 1e-12 of a gradient by the complex step, 1e-9 by a difference.

    The complex step is by Squire and Trapp, "Using Complex Variables to Estimate Derivatives of Real
    Functions", SIAM Review 40(1), 1998; the four-point difference is one step of Richardson's extrapolation.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> check_gradients(lambda x, w: tr.tanh(x @ w), np.ones((2, 3)), np.full((3, 4), 0.1), order=2)
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    try:
        if isinstance(f, Module):
            _check_layer(f, inputs, order, seed)
        else:
            _check_function(f, inputs, order, analytic, rtol, seed)
    except GradientError:
        raise
    except LawError as error:
        raise GradientError(str(error), error.law) from error
    except ShapeError as error:
        broken = law_of(error)
        if broken is None:
            raise
        raise GradientError(str(error), broken.law) from error


def _check_function(
    f: Function, inputs: Sequence[Any], order: int, analytic: bool | None, rtol: float | None, seed: int
) -> None:
    derivatives = Derivatives(f, inputs, analytic, rtol, seed)
    derivatives.check_first()
    if order == 2:
        derivatives.check_second()

    def example(arguments: tuple[Array, ...]) -> Example:
        return Example(f, arguments, seed=seed, order=order, analytic=analytic, low_dtypes=(np.float32,))

    judge(LAWS[order], example(derivatives.arrays))
    check_elsewhere(example, derivatives.arrays, generator_of(seed, 4))


def _check_layer(layer: Module, inputs: tuple[Any, ...], order: int, seed: int) -> None:
    """The layer itself, with its parameters, in both modes; it is left as it was.

    A copy would not do: a function that it holds may close over it.
    """
    held = [(vars(m), dict(vars(m))) for m in layer.modules()]
    tensors = [(t, t._array.copy(), t._node) for m in layer.modules() for _, t in m._tensors()]

    def as_it_was() -> Module:
        for attributes, before in held:
            attributes.clear()
            attributes.update(before)
        for t, array, node in tensors:
            t._array, t._node = array.copy(), node
        return layer

    try:
        for training in (True, False):
            laws = OF_A_LAYER[order]
            modules.check_case(as_it_was, inputs, training=training, seed=seed, order=order, laws=laws)
            modules.check_beyond(as_it_was, inputs, training=training, seed=seed)
    finally:
        as_it_was()


OF_FIRST: tuple[Law[Example], ...] = (
    laws.no_mutation,
    laws.shape,
    laws.dtype,
    laws.no_aliasing,
    laws.other_layouts,
    laws.layout,
    laws.linear,
    laws.alone,
    laws.zero,
    laws.backward,
    laws.low_gradients,
    laws.no_mutation,
)
# the transpose takes a second derivative
LAWS = {1: OF_FIRST, 2: (*OF_FIRST, laws.transpose)}
OF_A_LAYER = {1: tuple(law for law in modules.LAWS if law.name != "transpose"), 2: modules.LAWS}
