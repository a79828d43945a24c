"""check_op: does an op obey the laws of a derivative, on examples of the domain on which it is defined?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing import laws
from tinygrad_rnn.testing.calls import Call, Function, brief, largest, leaves_of
from tinygrad_rnn.testing.domains import Case, Domain
from tinygrad_rnn.testing.errors import Broken, KinkError
from tinygrad_rnn.testing.example import SLACK, Example
from tinygrad_rnn.testing.judge import Counts, Law, explore, hypothesis_strategies, judge, law
from tinygrad_rnn.testing.signatures import large_shapes, loops_of
from tinygrad_rnn.testing.values import LAYOUTS, Distinct, RandomChoose, Values

__all__ = ["LAWS", "OpExample", "check_case", "check_op"]


def check_op(
    op: Function,
    domain: Domain | str = "*",
    *,
    reference: Function | None = None,
    order: int = 2,
    examples: int | None = None,
) -> Counts:
    """Check an op, or any function of Tensors, by all laws that apply to it; needs Hypothesis.

    Arguments:
        op: what `tr.op` has made, or a function of Tensors that returns a Tensor or (nested) tuples of them.
        domain: a signature, "*" or "*, *" or "*mn, *np" (see `domains.shapes_of`): the values are then off a
            grid around 0, which has no ties and avoids kinks at 0, 1, 2. Or a `Domain`, which may have values,
            options and shapes of its own; `op` is checked on it, whatever op it was written for.
        reference: what the op computes, as a function of NumPy arrays, and not the op itself. A wrong forward
            with a derivative to match is seen by nothing else.
        order: 2 also checks the second derivative, 1 does not.
        examples: how many to draw; as many as the Hypothesis profile says unless given.

    Returns how many examples each law was checked on: what is not there did not apply ("backend" without
    array_api_strict, or for a forward written with NumPy; "broadcasting" for one argument).

    Raises:
        LawError: for the smallest example found; its `law` names the law, its message the case. `GradientError`
            where a derivative disagrees with numbers.
        ImportError: if Hypothesis is missing.

    The laws, by name: "value" (the reference's, of a call with raw arrays too), "repeats" (the same when called
    again), "shape" and "dtype" of outputs and gradients, "no mutation" of inputs, "no aliasing" (a gradient
    shares no memory with anything), "linear" (the vjp in the incoming gradient), "broadcasting" (the gradient
    of an argument that was broadcast is the sum over its copies), "gradient" and "second derivative" (numbers),
    "zero" (a zero gradient pulls back to exact zeros), "transpose" (⟨Jv, u⟩ = ⟨v, Jᵀu⟩), "backward" (is `grad`,
    and adds up), "layout" (of arrays and incoming gradients in memory), "frozen" (what requires no gradient takes
    none from the others), "float32" (and float16: kept, and near float64 of the same graph), "backend"
    (array_api_strict agrees with NumPy). They are asked of larger arrays, too, 67 along each axis that has a name
    or loops, and, of a signature, of values up to 12, where much saturates.

    What it cannot see: a wrong value without a reference; the derivative at a kink or a tie; options and sizes that
    are not drawn; a mistake outside of the domain, or within rounding.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> @tr.op(lambda g, y: g * (1 - y * y))
    ... def my_tanh(x):
    ...     return np.tanh(x)
    >>> counts = check_op(my_tanh, "*", reference=np.tanh, examples=20)
    >>> counts["value"] == counts["gradient"] == counts["linear"] > 20
    True
    >>> @tr.op(lambda g, y: g * (1 - y))
    ... def wrong(x):
    ...     return np.tanh(x)
    >>> check_op(wrong, "*", examples=20)
    Traceback (most recent call last):
        ...
    tinygrad_rnn.testing.errors.GradientError: ...
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    signature = isinstance(domain, str)
    domain = _domain_of(op, domain, reference)
    strategies = hypothesis_strategies("check_op")
    counts = explore(
        f"check_op of {domain}",
        strategies.cases(domain),
        lambda case: check_case(domain, case, order=order),
        examples,
        first=_corners(domain),
    )
    for large, case, laws_of_it in _beyond(domain, whole=signature):
        _check_beyond(OpExample(large, case, order, slack=SLACK), laws_of_it)
    return counts


def _domain_of(op: Function, domain: Domain | str, reference: Function | None) -> Domain:
    """The domain with this op in it. Whether another op takes complex steps is for the kit to find out."""
    if isinstance(domain, str):
        return Domain(op, domain, reference, (Distinct(),), analytic=None, name=getattr(op, "__name__", repr(op)))
    if op is domain.op:
        return domain if reference is None else dataclasses.replace(domain, reference=reference)
    return dataclasses.replace(
        domain,
        op=op,
        reference=reference or domain.reference,
        analytic=None if domain.analytic else domain.analytic,
        name=str(domain),
    )


def _corners(domain: Domain) -> Iterator[Case]:
    """What must be among the examples, however few: 0-d and empty arrays of elementwise ops, and every layout."""
    arguments = domain.signature.replace(" ", "").split(",")
    if domain.draw is None and set(arguments) == {"*"}:
        for shape in ((), (0,), (3, 0)) if domain.empty else ((),):
            shapes = (shape,) * len(arguments)
            yield Case(shapes, domain.metadata(lambda sequence: sequence[0], shapes))
    for i, layout in enumerate(LAYOUTS):
        yield domain.case(RandomChoose(i), (layout,), seed=i)


def _beyond(domain: Domain, whole: bool) -> Iterator[tuple[Domain, Case, tuple[Law[OpExample], ...]]]:
    """What is beyond the examples that are drawn, after those, so that the smallest is reported: arrays larger than a
    block of a kernel, and, if the domain is the whole line, values at which much saturates.
    """
    if domain.draw is None:
        for seed, shapes in enumerate(large_shapes(domain.signature)):
            size = sum(map(math.prod, shapes))
            values = tuple(_narrowed(v, size) for v in domain.values_of(len(shapes)))
            narrow = dataclasses.replace(domain, values=values)
            yield narrow, Case(shapes, domain.metadata(lambda sequence: sequence[0], shapes), seed=seed), LAWS
    wide = dataclasses.replace(domain, values=(Distinct(step=0.375),))
    for seed, shapes in enumerate(large_shapes(domain.signature, large=17) if whole else ()):
        yield wide, Case(shapes, seed=seed), OF_VALUES


def _narrowed(values: Values, size: int) -> Values:
    """Values of the same range, for more of them: a grid with a finer step."""
    if not isinstance(values, Distinct) or size <= values.points:
        return values
    return Distinct(values.step * values.points / size, size)


def _check_beyond(example: OpExample, of_it: tuple[Law[OpExample], ...]) -> None:
    """Ask the laws, unless the op is not defined there: not finite, or at a kink that only many values come near."""
    if all(np.all(np.isfinite(y)) for y in example.call.values if y.dtype.kind == "f"):
        with suppress(KinkError):
            judge(of_it, example)


def check_case(domain: Domain, case: Case, *, order: int = 2) -> Counts:
    """Check the op of a domain on one of its cases, as `check_op` does on many; without Hypothesis.

    Returns the laws that were checked, each once. Raises LawError.

    >>> import tinygrad_rnn as tr
    >>> from tinygrad_rnn.testing import Case, Domain
    >>> sorted(check_case(Domain(tr.less, "*, *", constant=True), Case(((2,), ()))))[:3]
    ['backend', 'dtype', 'float32']
    """
    return judge(LAWS, OpExample(domain, case, order))


class OpExample(Example):
    """An op on one case of a domain."""

    def __init__(self, domain: Domain, case: Case, order: int = 2, slack: float = 0.0) -> None:
        super().__init__(
            lambda *xs: domain(*xs, **case.options),
            case.arrays(domain),
            seed=case.seed,
            where=f"{domain}, {case!r}",
            order=_order_of(domain, order),
            analytic=domain.analytic,
            other_layouts=any(layout != "C" for layout in case.layouts),
            low_dtypes=() if domain.casts else (np.float16, np.float32),
            slack=slack,
        )
        self.domain, self.case = domain, case


def _order_of(domain: Domain, order: int) -> int:
    """Up to which derivative the op of a domain can be checked, if up to `order` is asked for."""
    if domain.constant:
        return 0
    return order if domain.smooth else 1


# --- the laws that ops alone have ---------------------------------------------------------------------------


@law("value")
def value(example: OpExample) -> bool:
    """The op computes what the reference computes of the arrays."""
    reference = example.domain.reference
    if reference is None:
        return False
    values = example.call.values
    expected = leaves_of(reference(*example.arrays, **example.case.options), np.asarray)
    if len(expected) != len(values):
        raise Broken(f"{len(values)} outputs, the reference has {len(expected)}", "shape")
    for k, (y, e) in enumerate(zip(values, expected, strict=True)):
        if y.dtype != e.dtype and (y.dtype.kind != "f" or e.dtype.kind != "f"):
            raise Broken(f"output {k} is {y.dtype}, the reference's {e.dtype}", "dtype")
        size = 16 * largest(e)  # a reference may be less exact than the op
        example.agree(f"output {k}", y, e, size, example.value_spread(k, factor=16))
    return True


@law("raw")
def raw(example: OpExample) -> bool:
    """A call with raw arrays is the same call. A function that is not an op may need Tensors."""
    is_op = hasattr(example.domain.op, "op")
    try:
        found = leaves_of(example.f(*example.arrays), lambda y: y)
    except (AttributeError, TypeError):
        if is_op:
            raise
        return False
    if any(isinstance(y, Tensor) for y in found) and not is_op:
        return False
    for k, (r, y) in enumerate(zip(found, example.call.values, strict=True)):
        if isinstance(r, Tensor):
            raise Broken(f"output {k} of a call with arrays is a Tensor")
        r = np.asarray(r)
        if r.dtype != y.dtype or not np.array_equal(r, y):
            raise Broken(f"output {k} of a call with arrays is {brief(r)}, with Tensors {brief(y)}")
    return True


@law("broadcasting")
def broadcasting(example: OpExample) -> bool:
    """The gradient of an argument that was broadcast is the sum over the copies, where they are made by hand."""
    call = _call_of_copies(example)
    if call is None:
        return False
    for k, (y, z) in enumerate(zip(example.call.values, call.values, strict=True)):
        example.agree(f"output {k}", y, z, None, example.value_spread(k))
    for j, (i, g) in enumerate(zip(example.varied, call.pull(example.cotangents), strict=True)):
        shape = example.arrays[i].shape
        extra = g.ndim - len(shape)
        axes = (*range(extra), *(extra + a for a, n in enumerate(shape) if n == 1 and g.shape[extra + a] != 1))
        total, size = g.sum(axis=axes).reshape(shape), largest(abs(g).sum(axis=axes))
        what = f"the gradient of {example.names[i]}, which was broadcast from {shape} to {g.shape},"
        example.agree(what, example.gradients[j], total, size, example.gradient_spread(j))
    return True


def _call_of_copies(example: OpExample) -> Call | None:
    """A call with arguments that have been broadcast by hand; None where no argument of the example broadcasts."""
    domain = example.domain
    if not example.has_derivative or domain.draw is not None:
        return None
    loops = loops_of(domain.signature, example.case.shapes)  # how many leading axes broadcast; None for no loop
    if loops is None:
        return None
    shapes = [x.shape[:n] for x, n in zip(example.arrays, loops, strict=True) if n is not None]
    if len(set(shapes)) < 2:
        return None
    loop = np.broadcast_shapes(*shapes)
    wide = [
        x if n is None else np.array(np.broadcast_to(x, loop + x.shape[n:]))
        for x, n in zip(example.arrays, loops, strict=True)
    ]
    call = Call(example.f, wide)
    same = [y.shape for y in call.values] == [y.shape for y in example.call.values]
    return call if same else None  # an option meant other axes


LAWS: tuple[Law[OpExample], ...] = (
    laws.no_mutation,
    laws.outputs,
    value,
    laws.repeats,
    raw,
    laws.shape,
    laws.dtype,
    laws.no_aliasing,
    laws.layout,
    laws.linear,
    laws.alone,
    broadcasting,
    laws.gradient,
    laws.second_derivative,
    laws.zero,
    laws.transpose,
    laws.backward,
    laws.low_precision,
    laws.backend,
    laws.no_mutation,
)

OF_VALUES: tuple[Law[OpExample], ...] = (value, laws.shape, laws.dtype, laws.linear, laws.gradient, laws.transpose)
