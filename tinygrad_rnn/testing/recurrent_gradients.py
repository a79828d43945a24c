"""The laws of a recurrent layer's derivatives: numbers, in first and second order, and step by step.

The gradients of a sequence are compared step by step, each relative to its own size: what reaches the first of forty
steps is small, and a gradient that was cut on the way differs from it by all it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, Function, constant, holding, values_of
from tinygrad_rnn.testing.derivatives import Derivatives
from tinygrad_rnn.testing.errors import Broken, GradientError
from tinygrad_rnn.testing.judge import law
from tinygrad_rnn.testing.numeric import EPS, complex_step, complex_step_fault, four_point
from tinygrad_rnn.testing.runs import RTOL, TINY, RecurrentExample, shifted
from tinygrad_rnn.testing.subject import LONG, SHORT, Given

DIFFERENCE_RTOL = 1e-5  # of a gradient and a difference: over several steps it is no better
SECOND_RTOL = 1e-8  # of a gradient of gradients
FEW = 3  # sequences, whose kinks can be kept off
SOME = 18  # of very many steps
ZERO = constant(np.zeros(()))


@law("gradient")
def gradient(example: RecurrentExample) -> bool:
    """The gradients of all that goes in against numeric derivatives along random directions. For long sequences no
    difference is exact enough: there are `per_step` and `truncation`.
    """
    return _numbers_agree(example, None)


def _numbers_agree(example: RecurrentExample, seed: int | None) -> bool:
    """The law of the gradient; with a seed for each call where the layer is random."""
    if example.case.T > SHORT:
        return False
    for attempt in range(5):
        given = example.given if not attempt else example.subject.given(example.case, example.case.seed + attempt)
        if _agrees(example, given, seed):
            return True
    if example.case.B > FEW or example.case.scale != 1:
        return False  # so many values that some are near a kink, wherever one looks
    _explain(example, given, seed)  # kinks wherever one looks
    return False


def _agrees(example: RecurrentExample, given: Given, seed: int | None) -> bool:
    """False where there is a kink nearby; that is no matter to a complex step."""
    arrays, names = example.subject.arrays(given), example.subject.names(given)
    f = example.subject.function(given, seed)
    tensors = example.subject.tensors(arrays)
    outputs = f(*tensors)
    with holding(f, tensors):
        gradients = example.subject.pull(outputs, given.u, dict(zip(names, tensors, strict=True)))
    step = complex_step if example.analytic else four_point
    rtol = RTOL if example.analytic else DIFFERENCE_RTOL
    directions = [example.direction(a) for a in arrays]
    if example.analytic and _agree_together(f, arrays, directions, [gradients[name] for name in names], given.u):
        return True
    for i, (name, d) in enumerate(zip(names, directions, strict=True)):
        numeric = step.along(partial(values_of, f), arrays, i, d)
        if numeric.bent:
            return False
        terms, (slope, noise) = d * gradients[name], numeric.dot(given.u)
        ours, size = float(np.sum(terms)), float(np.sum(abs(terms)))
        error = abs(ours - slope)
        if error <= rtol * size + noise + TINY or error <= rtol * size + _rounding(example, name, given, seed):
            continue
        _explain(example, given, seed)  # who finds the entry, and may have a guess
        raise GradientError(
            f"the gradient of {name} along a random direction is {ours:.12g}, and by the {step.name} {slope:.12g}"
        )
    return True


def _rounding(example: RecurrentExample, name: str, given: Given, seed: int | None) -> float:
    """How far rounding may move a gradient summed along a direction; known for the base run."""
    return 64 * float(np.sum(example.noise[name])) if given is example.given and seed is None else 0.0


def _explain(example: RecurrentExample, given: Given, seed: int | None) -> None:
    """Have `Derivatives` say what is wrong, if they see it."""
    arrays, names = example.subject.arrays(given), example.subject.names(given)
    rtol = None if example.analytic else DIFFERENCE_RTOL
    try:
        f = example.subject.function(given, seed)
        Derivatives(f, arrays, rtol=rtol, seed=example.case.seed % 1000).check_first()
    except GradientError as error:
        message = re.sub(r"\bof input (\d+)", lambda found: f"of {names[int(found[1])]}", str(error))
        where = "x is (steps, sequences, entries)" + ("" if seed is None else ", the layer in training mode")
        error.args = (f"{message}\n({where})",)
        raise


@law("second derivative")
def second_derivative(example: RecurrentExample) -> bool:
    """The Hessian of sum <output, u> times a direction in all at once (x, states, parameters, u): a gradient of
    gradients, against the numeric derivative of the gradients along that direction.
    """
    if example.case.T > 3:
        return False  # it says nothing more, and takes a while
    arrays, f = [*example.subject.arrays(example.given), *example.given.u], example.subject.function(example.given)
    directions, n = [example.direction(a) for a in arrays], len(example.given.u)
    names = [*example.subject.names(example.given), "the cotangent of output"]
    names += [f"that of state {i}" for i in range(n - 1)]
    names = [name for name, a in zip(names, arrays, strict=True) if a.dtype.kind == "f"]
    moving = [d for d, a in zip(directions, arrays, strict=True) if a.dtype.kind == "f"]

    def first(xs: Sequence[Tensor]) -> list[Tensor]:
        with holding(f, xs[:-n]):
            pairs = zip(f(*xs[:-n]), xs[-n:], strict=True)
            total = sum(((y * u).sum() for y, u in pairs), ZERO)
            return list(grad(total, [x for x in xs if x.requires_grad], create_graph=True))

    def along(s: Sequence[Array]) -> list[Array]:
        return [g._array for g in first(example.subject.tensors(shifted(arrays, s[0], directions)))]

    try:
        leaves = example.subject.tensors(arrays)
        total = sum(((g * d).sum() for g, d in zip(first(leaves), moving, strict=True)), ZERO)
        leaves, xs = [t for t in leaves if t.requires_grad], leaves
        with holding(f, xs[:-n]):
            second = [g._array for g in grad(total, leaves)] if total.requires_grad else [0 * d for d in moving]
    except Exception as error:
        told = f"the gradients cannot be differentiated: {type(error).__name__}: {error}"
        raise Broken(f"{told}\n(a vjp does it by ops on Tensors, where it is given Tensors)") from error
    return _hessian_agrees(example, along, names, second)


def _hessian_agrees(
    example: RecurrentExample,
    along: Callable[[Sequence[Array]], list[Array]],
    names: Sequence[str],
    second: list[Array],
) -> bool:
    """Raise Broken unless `second` is the numeric derivative of the gradients `along` a direction; False at a kink."""
    at = [np.zeros(())]
    for step in [complex_step, four_point] if example.analytic else [four_point]:
        try:
            numeric = step.along(along, at, 0, np.ones(()))
        except Exception:
            if step is complex_step:
                continue  # a vjp may not run on complex numbers
            raise
        if numeric.bent:
            return False  # there is a kink nearby
        rounding = 256 * EPS * max(np.max(abs(v), initial=0) for v in numeric.values)
        for name, found, expected, noise in zip(names, second, numeric.values, numeric.noise, strict=True):
            size = (SECOND_RTOL if step is complex_step else DIFFERENCE_RTOL) * np.max(abs(expected), initial=0)
            wrong = ~(abs(found - expected) <= size + rounding + noise)
            if np.any(wrong):
                worst = tuple(int(i) for i in np.argwhere(wrong)[0])
                values = f"{found[worst]:.12g}, and by the {step.name} {expected[worst]:.12g}"
                message = f"the Hessian times a random direction, of {name} at {worst}, is {values}"
                break
        else:
            return True
        if step is four_point or not complex_step_fault(along, at, np.ones_like):
            raise Broken(message)
    raise AssertionError("unreachable")


@law("per-step gradients")
def per_step(example: RecurrentExample) -> bool:
    """The gradient of each step of x, of the initial states and of the parameters against the complex step, each
    relative to its own size, for what the case pulls back.
    """
    if not example.analytic:
        return False
    given, T = example.given, example.case.T
    arrays, names = example.subject.arrays(given), example.subject.names(given)
    # One run for all steps: a copy of the batch for each, with this step moved. Rows do not see each other, as the laws
    # of the batch have shown. Of very many steps some are looked at, the first among them: the cuts are between.
    steps = list(range(T)) if T <= LONG else [round(t) for t in np.linspace(0, T - 1, SOME)]
    d, B = example.direction(given.x), example.case.B
    copies, moved = example.part(np.s_[:], np.tile(np.arange(B), len(steps)), lengths=True), []
    for t in steps:
        moved.append(np.zeros(d.shape))
        moved[-1][t] = d[t]
    columns = _columns(example, copies, 0, np.concatenate(moved, axis=1))
    for k, t in reversed(list(enumerate(steps))):  # so that the first that is wrong is where a gradient was cut
        rows = np.arange(k * B, k * B + B)
        here = [columns[0][:, rows], *example.subject.take(columns[1:], rows)]
        _step_agrees(example, "x", f" at step {t} of {T}", d[t], here, given.u, example.base.gradients["x"], t)
    directions = [0 * given.x, *(example.direction(a) for a in arrays[1:])]
    gradients = [0 * given.x, *(example.base.gradients[name] for name in names[1:])]
    first = 1 + len(given.hx or ())  # what has vanished on its way to the initial states is compared alone
    alone = range(1, len(arrays))
    masked = [d if i >= first else 0 * d for i, d in enumerate(directions)]
    if _agree_together(example.subject.function(given), arrays, masked, gradients, given.u):
        alone = range(1, first)
    for i in alone:
        columns = _columns(example, given, i, directions[i])
        _step_agrees(example, names[i], "", directions[i], columns, given.u, gradients[i])
    return True


def _agree_together(
    f: Function,
    arrays: Sequence[Array],
    directions: Sequence[Array],
    gradients: Sequence[Array],
    u: Sequence[Array],
) -> bool:
    """Whether gradients agree with the complex step along a direction in all their arrays at once, to within what the
    smallest of them may be off: then each does, and they need not be looked at one by one. Directions are random, so
    mistakes do not cancel.
    """

    def along(s: Sequence[Array]) -> list[Array]:
        return values_of(f, shifted(arrays, s[0], directions))

    numeric = complex_step.along(along, [np.zeros(())], 0, np.ones(())).dot(u)[0]
    terms = [d * g for d, g in zip(directions, gradients, strict=True) if np.any(d)]
    allowed = RTOL * min((float(np.sum(abs(t))) for t in terms), default=0.0)
    return bool(abs(sum(float(np.sum(t)) for t in terms) - numeric) <= allowed)


def _columns(example: RecurrentExample, given: Given, i: int, d: Array) -> list[Array]:
    """The derivatives of all outputs along `d` of input `i`."""
    f = example.subject.function(given)
    return complex_step.along(partial(values_of, f), example.subject.arrays(given), i, d).values


def _step_agrees(
    example: RecurrentExample,
    name: str,
    where: str,
    d: Array,
    columns: list[Array],
    u: list[Array],
    gradient: Array,
    at: Any = (),
) -> None:
    """Raise Broken unless a gradient, or its part `at`, agrees along `d` with the derivatives of the outputs."""
    numeric = float(sum(np.sum(v * c) for v, c in zip(u, columns, strict=True)))
    terms = d * gradient[at]
    ours = float(np.sum(terms))
    allowed, error = RTOL * float(np.sum(abs(terms))) + TINY, abs(ours - numeric)
    if not error <= allowed and not error <= allowed + 64 * float(np.sum(example.noise[name][at])):
        raise Broken(
            f"the gradient of {name}{where} along a random direction is {ours:.12g}, and by the complex step "
            f"{numeric:.12g}; pulled back: {example.case.pulled}"
        )


@law("dropout")
def dropout(example: RecurrentExample) -> bool:
    """In training mode what is drawn depends on the seed alone, and the backward uses what the forward drew."""
    subject = example.subject
    arrays = subject.arrays(example.given)
    f = subject.function(example.given, seed=example.case.seed)
    subject.layer.train()
    try:
        one, two = ([y._array for y in f(*map(constant, arrays))] for _ in range(2))
        if all(
            np.array_equal(a, b) for a, b in zip(one, example.base.values.values(), strict=True) if a.dtype == b.dtype
        ):
            return False
        if not all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)):
            raise Broken("what is drawn in training mode is not fixed by tr.manual_seed")
        if example.case.T > SHORT:
            return _steps_agree(example, f, arrays)
        return _numbers_agree(example, example.case.seed)
    finally:
        subject.layer.eval()


def _steps_agree(example: RecurrentExample, f: Function, arrays: Sequence[Array]) -> bool:
    """The gradient of the first step of x and of some others against the complex step, each relative to its size."""
    if not example.analytic:
        return False
    tensors, names, u = example.subject.tensors(arrays), example.subject.names(example.given), example.given.u
    outputs = f(*tensors)
    with holding(f, tensors):
        gradient = example.subject.pull(outputs, u, dict(zip(names, tensors, strict=True)))["x"]
    for t in (0, int(example.rng.integers(1, example.case.T))):
        d = np.zeros(gradient.shape)
        d[t] = example.direction(d[t])
        columns = complex_step.along(partial(values_of, f), arrays, 0, d).values
        _step_agrees(example, "x", f" at step {t} in training mode", d, columns, u, gradient)
    return True
