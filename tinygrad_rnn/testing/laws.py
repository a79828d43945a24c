"""The laws of a derivative: what must hold of every op, whatever it computes, and `check_op`, which checks them.

`check_gradients` compares a derivative with numbers. The laws need none: they say how values, gradients, dtypes,
layouts and libraries hang together, and each of them has caught bugs that a numeric derivative does not see. `Laws`
has one method for each; they share one recorded call of the function, which is what makes an example cheap.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import is_floating, namespace
from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.graph import leaf, newest_first
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing.domains import LAYOUTS, Case, Distinct, Domain, RandomChoose, loops_of
from tinygrad_rnn.testing.errors import GradientError, LawError
from tinygrad_rnn.testing.gradients import check_gradients

__all__ = ["Laws", "check_case", "check_op", "explore", "flat"]

Array = NDArray[Any]
Function = Callable[..., Any]
Counts = Counter[str]
T = TypeVar("T")

EPS = float(np.finfo(np.float64).eps)
ULPS = 256  # how many roundings apart two ways to compute the same may be, before their conditioning is looked at


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
    and adds up), "layout" (of arrays in memory), "float32" (and float16: kept, and near float64 of the same
    graph), "backend" (array_api_strict agrees with NumPy).

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
    domain = _domain_of(op, domain, reference)

    def check(case: Case) -> Counts:
        return check_case(domain, case, order=order)

    strategies = hypothesis_strategies("check_op")
    counts: Counts = Counter()
    for case in _corners(domain):
        counts += check(case)
    return counts + explore(f"check_op of {domain}", strategies.cases(domain), check, examples)


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


def check_case(domain: Domain, case: Case, *, order: int = 2) -> Counts:
    """Check the op of a domain on one of its cases, as `check_op` does on many; without Hypothesis.

    Returns the laws that were checked, each once. Raises LawError.

    >>> import tinygrad_rnn as tr
    >>> from tinygrad_rnn.testing import Case, Domain
    >>> sorted(check_case(Domain(tr.less, "*, *", constant=True), Case(((2,), ()))))[:3]
    ['backend', 'dtype', 'float32']
    """
    arrays = case.arrays(domain)

    def f(*xs: Any) -> Any:
        return domain(*xs, **case.options)

    laws = Laws(f, arrays, seed=case.seed, where=f"{domain}, {case!r}")
    if (reference := domain.reference) is not None:
        laws.value(lambda *xs: reference(*xs, **case.options))
    laws.repeats()
    laws.raw(must=hasattr(domain.op, "op"))
    if any(layout != "C" for layout in case.layouts):
        laws.layout()
    if domain.constant:
        laws.no_gradient()
    elif laws.varied:
        laws.linear()
        if domain.draw is None:
            laws.broadcasting(loops_of(domain.signature, case.shapes))
        laws.gradient(order if domain.smooth else 1, domain.analytic)
        laws.zero()
        laws.transpose()
        laws.backward()
    if laws.varied and not domain.casts:
        for dtype in (np.float16, np.float32):
            laws.precision(dtype)
    laws.backend()
    laws.no_mutation()
    return laws.counts


class Laws:
    """The laws of one function of Tensors at one point, and in `counts` those that were checked.

    `f` takes a Tensor for each of `arrays`, of which the floats are varied. It is called once and recorded; the laws
    pull gradients back through that one graph.
    """

    def __init__(
        self,
        f: Function,
        arrays: Sequence[Array],
        *,
        seed: int = 0,
        where: str = "",
        names: Sequence[str] = (),
    ) -> None:
        self.f, self.arrays, self.where = f, [frozen(x) for x in arrays], where
        self.named, self.names = bool(names), names or [f"input {i}" for i in range(len(arrays))]
        self.counts: Counts = Counter()
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        self.bytes = [x.tobytes() for x in arrays]
        self.varied = [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]
        with self.law("no mutation"), np.errstate(all="ignore"):  # what is not finite is told apart from a warning
            self.point = Point(f, self.arrays)
        self.cotangents = self.point.cotangents(self.rng)
        self.no_mutation()
        self.check_outputs()

    # --- how a law fails --------------------------------------------------------------------------

    @contextmanager
    def law(self, law: str) -> Iterator[None]:
        """What is done inside is the check of a law."""
        with only_reading(self.where):
            try:
                yield
            except ShapeError as error:
                if "the derivative is wrong" in str(error):
                    self.fail("shape", str(error), error)
                raise
        self.counts[law] = 1

    def fail(self, law: str, message: str, cause: BaseException | None = None) -> NoReturn:
        raise broken(law, message, self.where) from cause

    def agree(
        self, law: str, what: str, ours: Array, theirs: Array, size: float | None = None, spread: Any = None
    ) -> None:
        """Fail unless two arrays are equal up to rounding: relative to `size`, the largest entry unless given.

        `spread()` is what they may differ by where their conditioning is bad; it is asked for only if they do.
        """
        if ours.shape != theirs.shape:
            self.fail("shape", f"{what} has shape {ours.shape}, expected {theirs.shape}")
        if ours.dtype.kind not in "fc":
            if not np.array_equal(ours, theirs):
                self.fail(law, f"{what} is {brief(ours)}, expected {brief(theirs)}")
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
            self.fail(law, f"{what} is {ours[at]:.12g} at {at}, expected {theirs[at]:.12g}")

    # --- what the laws are made of ----------------------------------------------------------------

    def pulled(self, cotangents: Sequence[Array]) -> list[Array]:
        return self.point.pull(cotangents)

    @cached_property
    def gradients(self) -> list[Array]:
        """Jᵀu for the cotangents of this example."""
        with self.law("shape"):
            gradients = self.pulled(self.cotangents)
        self.check_gradients_given(gradients)
        return gradients

    def spread(self, dtype: Any) -> tuple[list[Array], list[Array]]:
        """By how much values and gradients move when the last bits of everything do: what rounding may do to them.

        Ill-conditioned sums, whose terms cancel, move by more than their size tells; mistakes don't move. The last bits
        are those of `dtype`; it is computed in float64, where only the inputs move, and in `dtype`, where roundings do,
        too. Where they stay as they are (a softmax that is nearly 1), a gradient may be off by some units in the last
        place of what was pulled back.
        """
        rng = np.random.default_rng(self.seed)
        eps = float(np.finfo(dtype).eps)

        def jittered(x: Array, kind: Any) -> Array:
            if x.dtype.kind != "f":
                return x
            return np.asarray(x * (1 + 8 * eps * rng.uniform(-1, 1, x.shape))).astype(kind)

        def ranges(samples: Iterable[Sequence[Array]]) -> list[Array]:
            floats = [[np.asarray(x, np.float64) for x in s] for s in samples]
            with np.errstate(invalid="ignore"):
                return [16 * np.nan_to_num(np.max(s, axis=0) - np.min(s, axis=0)) for s in floats]

        least = 4 * eps * max(map(largest, self.cotangents), default=0.0)
        values = [np.zeros(y.shape) for y in self.point.values]
        gradients = [np.full(self.arrays[i].shape, least) for i in self.varied]
        for kind in dict.fromkeys((np.dtype(np.float64), np.dtype(dtype))):
            with np.errstate(all="ignore"):  # float16 overflows soon
                points = [Point(self.f, [jittered(x, kind) for x in self.arrays]) for _ in range(6)]
                pulled = [point.pull([jittered(u, kind) for u in self.cotangents]) for point in points]
            values = [v + r for v, r in zip(values, ranges(zip(*(p.values for p in points), strict=True)), strict=True)]
            gradients = [g + r for g, r in zip(gradients, ranges(zip(*pulled, strict=True)), strict=True)]
        return values, gradients

    def value_spread(self, k: int, factor: float = 1, dtype: Any = np.float64) -> Callable[[], Array]:
        """What rounding may do to output `k`, computed on demand."""
        return lambda: factor * self.spread(dtype)[0][k]

    def gradient_spread(self, j: int, factor: float = 1, dtype: Any = np.float64) -> Callable[[], Array]:
        """What rounding may do to the gradient of the varied input `j`, computed on demand."""
        return lambda: factor * self.spread(dtype)[1][j]

    # --- the laws ---------------------------------------------------------------------------------

    def check_outputs(self) -> None:
        """Finite, and of the inputs' floating dtype, as all that they are computed from."""
        with self.law("dtype"):
            for k, y in enumerate(self.point.values):
                if self.varied and y.dtype.kind == "f" and y.dtype != np.float64:
                    self.fail("dtype", f"output {k} is {y.dtype}, but the floating inputs are float64")
            for node in newest_first([y._node for y in self.point.live if y._node is not None]):
                if node.dtype != np.float64:
                    name = node.plan.name if node.plan else "a leaf"
                    self.fail("dtype", f"{name} of shape {node.shape} is {node.dtype}, between float64 and float64")
        for k, y in enumerate(self.point.values):
            if y.dtype.kind == "f" and not np.all(np.isfinite(y)):
                self.fail(
                    "value",
                    f"output {k} is not finite: {brief(y)}. Where the function is defined, `values` of a Domain say",
                )

    def check_gradients_given(self, gradients: Sequence[Array]) -> None:
        """Shape and dtype of each input, finite, and memory of their own."""
        arrays = [self.arrays[i] for i in self.varied]
        with self.law("shape"), self.law("dtype"):
            for name, x, g in zip(self.varied_names(), arrays, gradients, strict=True):
                if g.shape != x.shape:
                    self.fail("shape", f"the gradient of {name} has shape {g.shape}, the input {x.shape}")
                if g.dtype != x.dtype:
                    self.fail("dtype", f"the gradient of {name} is {g.dtype}, the input {x.dtype}")
                if not np.all(np.isfinite(g)):
                    raise GradientError(f"the gradient of {name} is not finite: {brief(g)}\n  in {self.where}")
        with self.law("no aliasing"):
            self.no_aliasing(gradients)

    def no_aliasing(self, gradients: Sequence[Array]) -> None:
        """No gradient shares memory with an input, an output, an incoming gradient or another gradient."""
        others = [
            *(("the value of " + n, x) for n, x in zip(self.names, self.arrays, strict=True)),
            *((f"output {k}", y) for k, y in enumerate(self.point.values)),
            *((f"the incoming gradient {k}", u) for k, u in enumerate(self.cotangents)),
        ]
        for name, g in zip(self.varied_names(), gradients, strict=True):
            for other, x in others:
                if np.shares_memory(g, x):
                    self.fail("no aliasing", f"the gradient of {name} shares memory with {other}")
            others.append((f"the gradient of {name}", g))

    def varied_names(self) -> list[str]:
        return [self.names[i] for i in self.varied]

    def value(self, reference: Function) -> None:
        """What the reference computes of the arrays."""
        expected = leaves_of(reference(*self.arrays), np.asarray)
        with self.law("value"):
            if len(expected) != len(self.point.values):
                self.fail("shape", f"{len(self.point.values)} outputs, the reference has {len(expected)}")
            for k, (y, e) in enumerate(zip(self.point.values, expected, strict=True)):
                if y.dtype != e.dtype and (y.dtype.kind != "f" or e.dtype.kind != "f"):
                    self.fail("dtype", f"output {k} is {y.dtype}, the reference's {e.dtype}")
                size = 16 * largest(e)  # a reference may be less exact than the op
                self.agree("value", f"output {k}", y, e, size, self.value_spread(k, factor=16))

    def repeats(self) -> None:
        """Called again, on constants, it gives the very same values."""
        with self.law("repeats"):
            again = Point(self.f, self.arrays, record=False)
            for k, (y, z) in enumerate(zip(self.point.values, again.values, strict=True)):
                if not np.array_equal(y, z, equal_nan=True):
                    self.fail("repeats", f"output {k} is {brief(z)} when called again, and was {brief(y)}")
            if any(y.requires_grad for y in again.outputs):
                self.fail("frozen", "an output of constants requires a gradient")

    def raw(self, must: bool) -> None:
        """A call with raw arrays is the same call. A function that is not an op may need Tensors."""
        try:
            found = leaves_of(self.f(*self.arrays), lambda y: y)
        except (AttributeError, TypeError):
            if must:
                raise
            return
        if any(isinstance(y, Tensor) for y in found) and not must:
            return
        with self.law("raw"):
            for k, (r, y) in enumerate(zip(found, self.point.values, strict=True)):
                if isinstance(r, Tensor):
                    self.fail("raw", f"output {k} of a call with arrays is a Tensor")
                r = np.asarray(r)
                if r.dtype != y.dtype or not np.array_equal(r, y):
                    self.fail("raw", f"output {k} of a call with arrays is {brief(r)}, with Tensors {brief(y)}")

    def no_gradient(self) -> None:
        """A constant function has none, or zeros."""
        with self.law("gradient"):
            if self.point.live and any(np.any(g) for g in self.gradients):
                self.fail("gradient", "a constant function has a gradient")

    def linear(self) -> None:
        """The vjp is linear in the incoming gradient, large and tiny ones too."""
        u, pulled_u = self.cotangents, self.gradients
        w = self.point.cotangents(self.rng)
        with self.law("linear"):
            pulled_w = self.pulled(w)
            both = self.pulled([1024 * a - b for a, b in zip(u, w, strict=True)])
            tiny = self.pulled([a * 2.0**-40 for a in u])
            for i, name in enumerate(self.varied_names()):
                size = largest(1024 * abs(pulled_u[i]) + abs(pulled_w[i]))
                spread = self.gradient_spread(i, factor=2048)
                what = f"what the vjp of {name} makes of"
                expected = 1024 * pulled_u[i] - pulled_w[i]
                self.agree("linear", f"{what} 1024 u - w", both[i], expected, size, spread)
                self.agree("linear", f"{what} u / 2^40, times 2^40,", tiny[i] * 2.0**40, pulled_u[i], None, spread)

    def zero(self) -> None:
        """A zero gradient pulls back to exact zeros."""
        with self.law("zero"):
            zeros = [np.zeros(u.shape) for u in self.cotangents]
            for name, g in zip(self.varied_names(), self.pulled(zeros), strict=True):
                if np.any(g):
                    self.fail("zero", f"a zero gradient pulls back to {brief(g)} for {name}")

    def transpose(self) -> None:
        """⟨Jv, u⟩ = ⟨v, Jᵀu⟩, where Jv is the derivative of the vjp, computed on Tensors, by the incoming gradient."""
        with self.law("transpose"):
            vs = [self.rng.standard_normal(self.arrays[i].shape) for i in self.varied]
            along = self.point.push(vs)
            left = [a * b for a, b in zip(along, self.cotangents, strict=True)]
            right = [v * g for v, g in zip(vs, self.gradients, strict=True)]
            size = sum(float(np.sum(abs(t))) for t in (*left, *right))
            difference = abs(sum(float(np.sum(t)) for t in left) - sum(float(np.sum(t)) for t in right))
            if not difference <= 16 * ULPS * EPS * size:
                slack = sum(float(np.sum(abs(v) * s)) for v, s in zip(vs, self.spread(np.float64)[1], strict=True))
                if not difference <= 16 * ULPS * EPS * size + slack:
                    self.fail(
                        "transpose",
                        f"<Jv, u> is {sum(map(np.sum, left)):.12g}, and <v, Jᵀu> {sum(map(np.sum, right)):.12g}",
                    )

    def broadcasting(self, loops: Sequence[int | None] | None) -> None:
        """The gradient of an argument that was broadcast is the sum over the copies, where they are made by hand.

        `loops` says how many leading axes of each argument broadcast; None for one without.
        """
        if loops is None:
            return
        shapes = [x.shape[:n] for x, n in zip(self.arrays, loops, strict=True) if n is not None]
        if len(set(shapes)) < 2:
            return
        loop = np.broadcast_shapes(*shapes)
        wide = [
            x if n is None else np.array(np.broadcast_to(x, loop + x.shape[n:]))
            for x, n in zip(self.arrays, loops, strict=True)
        ]
        point = Point(self.f, wide)
        if [y.shape for y in point.values] != [y.shape for y in self.point.values]:
            return  # an option meant other axes
        with self.law("broadcasting"):
            for k, (y, z) in enumerate(zip(self.point.values, point.values, strict=True)):
                self.agree("broadcasting", f"output {k}", y, z, None, self.value_spread(k))
            for j, (i, g) in enumerate(zip(self.varied, point.pull(self.cotangents), strict=True)):
                shape = self.arrays[i].shape
                extra = g.ndim - len(shape)
                axes = (*range(extra), *(extra + a for a, n in enumerate(shape) if n == 1 and g.shape[extra + a] != 1))
                total, size = g.sum(axis=axes).reshape(shape), largest(abs(g).sum(axis=axes))
                what = f"the gradient of {self.names[i]}, which was broadcast from {shape} to {g.shape},"
                self.agree("broadcasting", what, self.gradients[j], total, size, self.gradient_spread(j))

    def gradient(self, order: int, analytic: bool | None) -> None:
        """The numeric derivatives."""
        with self.law("gradient"):
            self.numeric(self.f, order, analytic)
            if any(self.arrays[i].ndim == 0 for i in self.varied):
                # Within a chain: what NumPy makes of 0-d arrays are scalars, which are easily taken for numbers.
                self.numeric(self.chained, order, analytic)
        if order == 2:
            self.counts["second derivative"] = 1

    def chained(self, *xs: Tensor) -> Any:
        ys = flat(self.f(*(x * 1.0 if i in self.varied else x for i, x in enumerate(xs))))
        return [y * (1 / 3) for y in ys if y._array.dtype.kind in "fc"]

    def numeric(self, f: Function, order: int, analytic: bool | None) -> None:
        def named(match: re.Match[str]) -> str:
            i = int(match[2])
            return f"{match[1]} ({self.names[i] if i < len(self.names) else 'an incoming gradient'})"

        try:
            check_gradients(lambda *xs: flat(f(*xs)), *self.arrays, order=order, analytic=analytic, seed=self.seed)
        except LawError as error:
            message = re.sub(r"((?:of|by) input (\d+))(?=[ ,:])", named, str(error)) if self.named else str(error)
            error.args = (f"{message}\n  in {self.where}" if self.where else message, *error.args[1:])
            raise

    def backward(self) -> None:
        """`backward` gives what `grad` gives, once for each use, and owns what it gives."""
        if not self.point.live:
            return
        with self.law("backward"):
            for times in (1, 2):
                self.point.backward(self.cotangents)
                for name, t, expected in zip(self.varied_names(), self.point.inputs, self.gradients, strict=True):
                    if t.grad is None:
                        if np.any(expected):
                            self.fail("backward", f"{name} has no .grad after a backward")
                        continue
                    if t.grad.dtype != t.dtype:
                        self.fail("dtype", f".grad of {name} is {t.grad.dtype}, the input {t.dtype}")
                    what = f".grad of {name} after {times} backward{'s' * (times - 1)}"
                    self.agree("backward", what, t.grad._array, times * expected)
                if times == 1:
                    self.no_aliasing([np.empty(0) if t.grad is None else t.grad._array for t in self.point.inputs])
        for t in self.point.inputs:
            t.grad = None

    def layout(self) -> None:
        """Inputs that lie in memory in another way give the same."""
        with self.law("layout"):
            point = Point(self.f, [np.array(x, order="C") for x in self.arrays])
            for k, (y, z) in enumerate(zip(self.point.values, point.values, strict=True)):
                self.agree("layout", f"output {k}", y, z, None, self.value_spread(k))
            if self.varied and self.point.live:
                pairs = zip(self.varied_names(), self.gradients, point.pull(self.cotangents), strict=True)
                for j, (name, g, e) in enumerate(pairs):
                    self.agree("layout", f"the gradient of {name}", g, e, None, self.gradient_spread(j))

    def precision(self, dtype: Any) -> None:
        """float16 and float32 stay what they are, forward and backward, and near float64 of the same graph."""
        with self.law("float32"):
            self.low_precision(np.dtype(dtype))

    def low_precision(self, dtype: np.dtype[Any]) -> None:
        low = [frozen(x.astype(dtype)) if x.dtype.kind == "f" else x for x in self.arrays]
        high = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in low]
        with np.errstate(all="ignore"):  # float16 overflows soon
            point, exact = Point(self.f, low), Point(self.f, high)
            us = [u.astype(dtype) for u in self.cotangents]
            pulled, exact_pulled = point.pull(us), exact.pull([u.astype(np.float64) for u in us])
        for k, (y, e) in enumerate(zip(point.values, exact.values, strict=True)):
            if y.dtype != (dtype if e.dtype.kind == "f" else e.dtype):
                self.fail("dtype", f"output {k} is {y.dtype} for {dtype} inputs")
            self.near(f"output {k}", y, e, dtype, self.value_spread(k, 4, dtype))
        for j, (name, g, e) in enumerate(zip(self.varied_names(), pulled, exact_pulled, strict=True)):
            if g.dtype != dtype:
                self.fail("dtype", f"the gradient of {name} is {g.dtype} for {dtype} inputs")
            self.near(f"the gradient of {name}", g, e, dtype, self.gradient_spread(j, 4, dtype))

    def near(self, what: str, low: Array, exact: Array, dtype: np.dtype[Any], spread: Callable[[], Array]) -> None:
        if exact.dtype.kind != "f":
            self.agree("float32", f"{what} in {dtype}", low, exact)
            return
        if low.shape != exact.shape:
            self.fail("shape", f"{what} has shape {low.shape} in {dtype}, {exact.shape} in float64")
        size = largest(exact)
        if size > float(np.finfo(dtype).max) / 64:
            return  # does not fit
        wrong = ~(abs(low - exact) <= 32 * float(np.finfo(dtype).eps) * size + float(np.finfo(dtype).tiny))
        if np.any(wrong):
            wrong &= ~(abs(low - exact) <= spread())
        if np.any(wrong):
            at = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
            self.fail("float32", f"{what} in {dtype} is {low[at]:.8g} at {at}, and {exact[at]:.8g} in float64")

    def backend(self) -> None:
        """array_api_strict, which forgives nothing that NumPy does, agrees: in values, gradients and dtypes.

        A forward that NumPy alone can run has nothing to agree with: then the law does not apply.
        """
        strict = strict_library()
        if strict is None:
            return
        for dtype in (np.float64, np.float32) if self.varied else (np.float64,):
            here = [x.astype(dtype) if x.dtype.kind == "f" else x for x in self.arrays]
            point = self.point if dtype == np.float64 else Point(self.f, here)
            try:
                other = Point(self.f, [strict.asarray(np.array(x)) for x in here])
            except Exception:  # noqa: BLE001 (whatever a library raises for what it cannot do)
                return
            if any(namespace(y) is not strict for y in other.values):
                return
            self.same_elsewhere(point, other, strict, np.dtype(dtype))
        self.counts["backend"] = 1

    def same_elsewhere(self, point: Point, other: Point, strict: Any, dtype: np.dtype[Any]) -> None:
        us = [u.astype(dtype) for u in self.cotangents]
        ours, theirs = point.values, other.values
        names = [f"output {k}" for k in range(len(ours))]
        if point.live:
            names += [f"the gradient of {name}" for name in self.varied_names()]
            ours = [*ours, *(self.gradients if point is self.point else point.pull(us))]
            try:
                theirs = [*theirs, *other.pull([strict.asarray(u) for u in us])]
            except Exception as error:  # noqa: BLE001 (reported as the law that it breaks)
                self.fail("backend", f"the backward fails with array_api_strict: {error}", error)
        eps = float(np.finfo(dtype).eps)
        spreads = [self.value_spread(k, 1, dtype) for k in range(len(point.values))]
        spreads += [self.gradient_spread(j, 1, dtype) for j in range(len(self.varied))]
        for k, (name, a, b) in enumerate(zip(names, ours, theirs, strict=True)):
            b = np.asarray(b)
            if a.dtype != b.dtype:
                self.fail("backend", f"{name} is {b.dtype} with array_api_strict, {a.dtype} with NumPy")
            self.agree("backend", f"{name} with array_api_strict", b, a, eps / EPS * largest(a), spreads[k])

    def no_mutation(self) -> None:
        """The inputs have the bytes that they had before everything."""
        with self.law("no mutation"):
            for name, x, before in zip(self.names, self.arrays, self.bytes, strict=True):
                if x.tobytes() != before:
                    self.fail("no mutation", f"{name} was written to: it is {brief(x)} now")


class Point:
    """A call of a function of Tensors, recorded; what the laws pull back through."""

    def __init__(self, f: Function, arrays: Sequence[Any], record: bool = True) -> None:
        tensors = [box(x, leaf(tuple(x.shape), x.dtype) if record and is_floating(x.dtype) else None) for x in arrays]
        self.inputs = [t for t in tensors if t.requires_grad]
        self.outputs = flat(f(*tensors))
        self.values = [y._array for y in self.outputs]
        self.floating = [is_floating(y.dtype) for y in self.values]
        self.live = [y for y in self.outputs if y.requires_grad]
        for y in self.values:
            if isinstance(y, np.ndarray):
                y.flags.writeable = False  # a vjp must not write to it, either

    def cotangents(self, rng: np.random.Generator) -> list[Array]:
        """Random ones, for the floating outputs. Never all ones: the gradient of a softmax's sum is zero."""
        us = [rng.standard_normal(y.shape) for y, floating in zip(self.values, self.floating, strict=True) if floating]
        return [frozen(u) for u in us]

    def seeds(self, cotangents: Sequence[Any]) -> list[Tensor]:
        floats = [y for y, floating in zip(self.outputs, self.floating, strict=True) if floating]
        return [box(u, None) for u, y in zip(cotangents, floats, strict=True) if y.requires_grad]

    def pull(self, cotangents: Sequence[Any]) -> list[Any]:
        """Jᵀu for every input; zeros for one that the outputs do not depend on."""
        if not self.live:
            return [np.zeros(t.shape, t.dtype) for t in self.inputs]
        seeds = self.seeds(cotangents)
        return [g._array for g in grad(self.live, self.inputs, gradient=seeds, retain_graph=True)]

    def push(self, tangents: Sequence[Array]) -> list[Array]:
        """Jv for every floating output: the vjp, which is linear in u, differentiated by u."""
        us = [box(np.zeros(y.shape), leaf(y.shape, y._array.dtype)) for y in self.live]
        pulled = grad(self.live, self.inputs, gradient=us, create_graph=True) if self.live else ()
        reached = [(p, box(v, None)) for p, v in zip(pulled, tangents, strict=False) if p.requires_grad]
        along = iter(grad([p for p, _ in reached], us, gradient=[v for _, v in reached]) if reached else us)
        floats = [y for y, floating in zip(self.outputs, self.floating, strict=True) if floating]
        return [next(along)._array if y.requires_grad else np.zeros(y.shape) for y in floats]

    def backward(self, cotangents: Sequence[Array]) -> None:
        """Add Jᵀu to `.grad` of the inputs."""
        pull_into_leaves(self.outputs, cotangents)


def flat(outputs: Any) -> list[Tensor]:
    """The Tensors of nested tuples, lists and dicts, in order, without Nones; TypeError for anything else."""
    found = [y for y in leaves_of(outputs, lambda y: y) if y is not None]
    for y in found:
        if not isinstance(y, Tensor):
            raise TypeError(f"a function of Tensors returns Tensors, not {type(y).__name__}: {y!r:.60}")
    return found


def pull_into_leaves(outputs: Sequence[Tensor], cotangents: Sequence[Array]) -> None:
    """One backward from all outputs that require a gradient; a cotangent for each floating output."""
    floats = [y for y in outputs if is_floating(y.dtype)]
    pairs = [(y, box(u, None)) for y, u in zip(floats, cotangents, strict=True) if y.requires_grad]
    if len(pairs) == 1:
        pairs[0][0].backward(pairs[0][1], retain_graph=True)
    elif pairs:
        y, u = (ops.concatenate([ops.reshape(t, (t.size,)) for t in part]) for part in zip(*pairs, strict=True))
        y.backward(u, retain_graph=True)


def broken(law: str, message: str, where: str) -> LawError:
    """The error for a broken law."""
    return LawError(law, f"{law}: {message}\n  in {where}" if where else f"{law}: {message}")


@contextmanager
def only_reading(where: str) -> Iterator[None]:
    """A write to a read-only array inside is a mutation."""
    try:
        yield
    except ValueError as error:
        if "read-only" in str(error):
            raise broken("no mutation", f"something writes to an array that it was given ({error})", where) from error
        raise


def leaves_of(outputs: Any, leaf_of: Callable[[Any], Any]) -> list[Any]:
    """What stands in nested tuples, lists and dicts, in order."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        return [y for part in outputs for y in leaves_of(part, leaf_of)]
    return [leaf_of(outputs)]


def frozen(x: Array) -> Array:
    """A read-only view."""
    x = x.view()
    x.flags.writeable = False
    return x


def largest(x: Array) -> float:
    """The size of the largest number; 0.0 of none, or of other things."""
    return float(np.max(abs(x), initial=0.0)) if x.dtype.kind in "fc" else 0.0


def brief(x: Array) -> str:
    """An array in a line."""
    with np.printoptions(precision=8, threshold=12, linewidth=10_000):
        return f"{str(x).replace(chr(10), '')} {x.dtype}"


@cache
def strict_library() -> Any:
    """array_api_strict, or None where it is not installed."""
    try:
        import array_api_strict
    except ImportError:
        return None
    return array_api_strict


# --- the search -------------------------------------------------------------------------------------------------------


def hypothesis_strategies(caller: str) -> Any:
    """The strategies, which need Hypothesis; nothing else of the kit does."""
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{caller} draws its examples with Hypothesis: pip install hypothesis") from error
    from tinygrad_rnn.testing import strategies

    return strategies


def explore(what: str, strategy: Any, check: Callable[[Any], Counts], examples: int | None = None) -> Counts:
    """Draw examples from a Hypothesis strategy, check each, and return the sum of the counts.

    The first broken law is shrunk to the smallest example, for which its LawError is raised, even by a function
    that does not fail each time it is called.
    """
    from hypothesis import HealthCheck, Phase, given, settings

    counts: Counts = Counter()
    failures: list[LawError] = []

    def example(case: Any) -> None:
        try:
            counts.update(check(case))
        except LawError as error:
            failures.append(error)
            raise

    example.__name__ = re.sub(r"\W", "_", what)  # by which Hypothesis remembers what failed before
    profile = settings.default
    assert profile is not None
    drawn: Any = given(strategy)  # their types say nothing of a strategy of anything
    searched: Any = settings(
        max_examples=examples or profile.max_examples,
        deadline=None,
        report_multiple_bugs=False,
        phases=[phase for phase in profile.phases if phase is not Phase.explain],  # it runs under a tracer, slowly
        suppress_health_check={*profile.suppress_health_check, HealthCheck.too_slow},
    )
    try:
        searched(drawn(example))()
    except LawError:
        raise
    except Exception:
        if failures:  # it passed when Hypothesis tried it again
            raise failures[-1] from None
        raise
    return counts
