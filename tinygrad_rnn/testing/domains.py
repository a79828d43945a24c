"""Where every op is tested: one `Domain` a row, in the table `DOMAINS`.

A row says which shapes an op takes, which values keep it away from kinks and poles, which metadata, and what
it should compute, by a reference that is not our op. Shapes, options, layouts and a seed make a `Case`; NumPy
makes its arrays from the seed, so a case is drawn in microseconds and its `repr` is all that is needed to see
it again.

This module does not need Hypothesis: `strategies.cases` draws cases with it, `Domain.sample` without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

import numpy as np

from tinygrad_rnn.tensor import ops
from tinygrad_rnn.testing.calls import Array
from tinygrad_rnn.testing.signatures import LOOPS, broadcast_shapes, shapes_of
from tinygrad_rnn.testing.values import (
    LAYOUTS,
    Boolean,
    Choose,
    Distinct,
    Integer,
    RandomChoose,
    Real,
    Shape,
    Values,
    make_arrays,
)

__all__ = ["DOMAINS", "Case", "Domain", "Special", "at"]

Options = dict[str, Any]


# --- cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One example of a domain: everything that is needed to make its arrays again."""

    shapes: tuple[Shape, ...]
    options: Options = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    seed: int = 0

    def arrays(self, domain: Domain, dtype: Any = np.float64) -> tuple[Array, ...]:
        """The arguments of the op, read-only, floats in `dtype`; the same values (rounded) in every dtype."""
        layouts = (*self.layouts, *("C",) * len(self.shapes))[: len(self.shapes)]
        return make_arrays(self.shapes, domain.values_of(len(self.shapes)), layouts, self.seed, dtype)


Metadata = Callable[[Choose, tuple[Shape, ...]], Options]


def _nothing(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    return {}


@dataclass(frozen=True)
class Special:
    """An op at special values: its value there, and what it pulls back to each argument, exactly."""

    arguments: tuple[Any, ...]
    value: Any
    gradients: tuple[Any, ...]
    call: Callable[..., Any] | None
    cotangent: Any


def at(x: Any, value: Any, *gradients: Any, f: Callable[..., Any] | None = None, u: Any = None) -> Special:
    """A row's op, or `f`, at `x` (or at a tuple of arguments): its value, and the gradients of `u`, or else of ones.

    >>> at([0.0, math.inf], [1.0, math.inf], [1.0, math.inf]).arguments
    ([0.0, inf],)
    """
    arguments = x if isinstance(x, tuple) else (x,)
    if len(gradients) != len(arguments):
        raise ValueError(f"{len(arguments)} arguments, but {len(gradients)} gradients: one for each is needed")
    return Special(arguments, value, gradients, f, u)


@dataclass(frozen=True)
class Domain:
    """Where an op is defined, smooth and worth testing, and what it should compute there.

    Attributes:
        op: the op, a function of Tensors or arrays; the row is named after it unless `name` is given.
        signature: shapes, as in `shapes_of`; ignored if `draw` is given.
        reference: the same function of NumPy arrays, and not our op; without one, values are not compared.
        values: one per argument, the last one repeated.
        metadata: the keyword options of a case, given its shapes.
        draw: shapes and options together, where they depend on each other.
        analytic: the forward runs on complex numbers and is analytic, so the complex step is its derivative; None
            leaves it to the kit to find out.
        smooth: its second derivative exists too.
        constant: no gradient flows through it (comparisons, argmax).
        empty: it takes arrays without entries.
        casts: its output has a floating dtype of its own, and not that of its arguments.
        call: how the op, arrays and options become a call, `op(*arrays, **options)` unless given.
        name: apart from the op's own, for a second row of the same op.
        special: what happens at zeros, poles, ties, infinities and NaN, each `at(...)`; or why there is nothing to
            say, in words.
        zero_stays: a gradient of 0 stays 0 even where the derivative is infinite or NaN.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> domain = Domain(tr.tanh, "*", np.tanh, analytic=True)
    >>> [x.shape for x in domain.sample(1).arrays(domain)]
    [(3, 2)]
    """

    op: Callable[..., Any]
    signature: str
    reference: Callable[..., Any] | None = None
    values: tuple[Values, ...] = (Real(),)
    metadata: Metadata = _nothing
    draw: Callable[[Choose], tuple[tuple[Shape, ...], Options]] | None = None
    analytic: bool | None = False
    smooth: bool = True
    constant: bool = False
    empty: bool = True
    casts: bool = False
    call: Callable[..., Any] | None = None
    name: str = ""
    special: tuple[Special, ...] | str = field(default=(), compare=False, repr=False)
    zero_stays: bool = False

    def __str__(self) -> str:
        return self.name or str(self.op.__name__)

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """The op itself, on arrays or Tensors."""
        return self.op(*arrays, **options) if self.call is None else self.call(self.op, *arrays, **options)

    def values_of(self, count: int) -> tuple[Values, ...]:
        """The values of `count` arguments."""
        return (self.values + (self.values[-1],) * count)[:count]

    def case(self, choose: Choose, layouts: Sequence[str] = LAYOUTS, seed: int = 0) -> Case:
        """A case whose shapes, options and layouts `choose` has chosen."""
        if self.draw is not None:
            shapes, options = self.draw(choose)
        else:
            shapes = shapes_of(self.signature, choose, self.empty)
            options = self.metadata(choose, shapes)
        return Case(shapes, options, tuple(choose(layouts) for _ in shapes), seed)

    def sample(self, seed: int) -> Case:
        """A random case, without Hypothesis."""
        return self.case(RandomChoose(seed), seed=seed)


# --- metadata of the rows -----------------------------------------------------------------------------------


def _axis(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0])
    return {"axis": choose((-1, *range(n), *range(-n, -1)))}


def _axes(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    """What a reduction takes: no axis, one, or several in any order, and whether they stay."""
    n = len(shapes[0])
    some: list[Any] = [None, *range(-n, n), ()]
    some += [(i, j) for i in range(n) for j in range(-n, n) if i != j % n]
    return {"axis": choose(some), "keepdims": choose((False, True))}


def _ddof(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0])
    options = [{"axis": None}, *({"axis": i} for i in range(-n, n) if shapes[0][i] > 1)]
    return {**choose(options), "keepdims": choose((False, True)), "ddof": choose((0, 1))}


def _some_axis(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    """Over everything (axis=None, NumPy's flattening) or over one axis."""
    n = len(shapes[0])
    return {"axis": choose((None, *range(-n, n)))}


def _argument_axis(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    return {**_some_axis(choose, shapes), "keepdims": choose((False, True))}


def _reshapes(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = math.prod(shapes[0])
    shapes_ = [(n,), (-1,) if n else (n,), (1, n), (n, 1, 1)]
    if n == 1:
        shapes_.append(())
    if n % 2 == 0:
        shapes_ += [(2, n // 2), (n // 2, 2)]
    return {"shape": choose(shapes_)}


def _permutation(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0])
    axes = list(range(n))
    moved: list[int] = []
    while axes:
        moved.append(axes.pop(choose(range(len(axes)))))
    return {"axes": choose((None, tuple(moved), tuple(a - n for a in moved)))}


def _two_axes(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0])
    return {"axis1": choose(range(-n, n)), "axis2": choose(range(-n, n))}


def _moves(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0])
    return {"source": choose(range(-n, n)), "destination": choose(range(-n, n))}


def _length_one(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    ones = [i for i, n in enumerate(shapes[0]) if n == 1]
    return {"axis": choose((None, tuple(ones), *ones, *(i - len(shapes[0]) for i in ones)))}


def _new_axis(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0]) + 1
    return {"axis": choose((*range(-n, n), (0, n)))}


def _wider(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    grown = tuple(choose((2, 3)) if n == 1 else n for n in shapes[0])
    return {"shape": choose((grown, (2, *grown), (2, 1, *grown), (0, *grown)))}


def _flips(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    n = len(shapes[0])
    return {"axis": choose((None, *range(-n, n), tuple(range(n))))}


def _widths(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    widths = tuple((choose((0, 1, 2)), choose((0, 1))) for _ in shapes[0])
    return {"pad_width": widths, "constant_values": choose((0, 1.5))}


def _diagonal(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    return {"k": choose((0, 1, -1, 2, -5))}


def _joined(choose: Choose) -> tuple[tuple[Shape, ...], Options]:
    shape = list(choose(tuple(s for s in LOOPS if s)))
    axis = choose(range(-len(shape), len(shape)))
    shapes = []
    for _ in range(choose((2, 1, 3))):
        shape[axis] = choose((1, 2, 3, 0))
        shapes.append(tuple(shape))
    return tuple(shapes), {"axis": axis}


def _stacked(choose: Choose) -> tuple[tuple[Shape, ...], Options]:
    shape = choose(LOOPS)
    return (shape,) * choose((2, 1, 3)), {"axis": choose(range(-len(shape) - 1, len(shape) + 1))}


def _pieces(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    axis = choose(range(-len(shapes[0]), len(shapes[0])))
    n = shapes[0][axis]
    cuts = sorted((choose(range(n + 1)), choose(range(n + 1))))
    return {
        "indices_or_sections": choose(([k for k in (1, n, 2) if k and n % k == 0] or [1]) + [tuple(cuts)]),
        "axis": axis,
    }


def _keys(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    """One index of each kind; tests/tensor/test_indexing.py draws the rest."""
    shape = shapes[0]
    n = shape[0]
    keys = [
        slice(None, None, -1),
        slice(min(1, n), None),
        (Ellipsis, None, 0) if shape[-1] else Ellipsis,
        -1 if n else slice(0),
        np.arange(n)[:1].repeat(3),
        (np.arange(3 * n) % 2 == 0)[:n],
        (None, slice(None), Ellipsis),
    ]
    return {"index": choose(keys)}


def _taken(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    axis = choose(range(-len(shapes[0]), len(shapes[0])))
    n = shapes[0][axis]
    indices = [[0, n - 1, 0], [[0], [-1]], n - 1, [-n, -1]] if n else [[], []]
    return {"indices": np.asarray(choose(indices), np.int64), "axis": axis}


def _taken_along(choose: Choose, shapes: tuple[Shape, ...]) -> Options:
    axis = choose(range(-len(shapes[0]), len(shapes[0])))
    shape = list(shapes[0])
    n, shape[axis] = shape[axis], choose((2, 1, 3))
    if n == 0:
        shape[axis] = 0
    count = math.prod(shape)
    steps = choose((1, 2, 3, -1))
    indices = (np.arange(count) * steps % max(n, 1)).reshape(shape)
    return {"indices": indices - n if choose((False, True)) else indices, "axis": axis}


_SUBSCRIPTS = (
    "ij,jk->ik", "ij,jk", "ij->ji", "ij", "ji", "ii->i", "ii->", "ii", "i,i->", "i,j->ij", "ij->", "ij->i",
    "ij,j->i", "bij,bjk->bik", "...ij,...jk->...ik", "...i,i", "i...->...", "...->...", "ij,jk,kl->il",
    "a,b,c->cba", "iij->j", "ij,ij->j", "bii->bi", "ij,kj->ikj", "i,->i", "abc,abd,ce->de", "ij,kk->ij",
)  # fmt: skip


def _contraction(choose: Choose) -> tuple[tuple[Shape, ...], Options]:
    subscripts = choose(_SUBSCRIPTS)
    lengths: dict[str, int] = {}
    operands = subscripts.split("->")[0].split(",")
    count = sum("..." in s for s in operands)
    loops = iter(broadcast_shapes(choose, choose(((), (2,), (2, 3))), count) if count else ())
    shapes = []
    for operand in operands:
        core = [lengths.setdefault(c, choose((2, 3, 1, 0))) if c != "." else -1 for c in operand]
        if -1 in core:
            at = core.index(-1)
            core[at : at + 3] = next(loops)
        shapes.append(tuple(core))
    return tuple(shapes), {"subscripts": subscripts}


# --- references ---------------------------------------------------------------------------------------------


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.where(x >= 0, 1 / (1 + np.exp(-abs(x))), 1 - 1 / (1 + np.exp(-abs(x)))))


def _gelu(x: Array) -> Array:
    return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _softmax(x: Array, axis: int | None = -1) -> Array:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def _log_softmax(x: Array, axis: int | None = -1) -> Array:
    return np.asarray(np.log(_softmax(x, axis)))


def _logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.asarray(np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)))


def _norm(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)))


def _cumsum(x: Array, axis: int | None = None) -> Array:
    return np.asarray(np.cumsum(x, axis=axis))


def _linear(x: Array, W: Array, b: Any = 0.0) -> Array:
    return np.asarray(np.einsum("...i,oi->...o", x, W) + b)


def _squeeze(x: Array, axis: Any) -> Array:
    return x.reshape([n for n in x.shape if n != 1]) if axis is None else np.squeeze(x, axis)


# --- the table ----------------------------------------------------------------------------------------------

_OFF_ZERO = (Real(-3.0, 3.0, kinks=(0.0,)),)
_POSITIVE = (Real(0.5, 3.0),)
_APART = (Distinct(),)
_COMPARED = (Integer(-2, 3, floating=True),)
_BITS, _WHOLE, _TRUE = (Boolean(),), (Integer(-9, 9),), (Integer(-1, 2, floating=True), Boolean())


def _spread(op: Callable[..., Any], np_op: Callable[..., Any], *special: Special) -> Domain:
    """var and std: of at least two different values."""
    shapes = "3 | 2 | 23 | 322 | 13"
    return Domain(op, shapes, np_op, _APART, _ddof, analytic=True, empty=False, special=special)


_L2 = math.log(2)

_COMPARES = "the result is boolean, without a derivative; tests/tensor/test_special_values.py has its values"
_COUNTS = "the result is an integer, without a derivative; tests/tensor/test_special_values.py has its values"
_MOVES = "it moves numbers and never looks at them"


DOMAINS: tuple[Domain, ...] = (
    # arithmetic
    Domain(
        ops.add, "*, *", np.add, analytic=True,
        special=(
            at(([inf, inf, nan, -0.0], [1.0, -inf, 1.0, -0.0]), [inf, nan, nan, -0.0], [1, 1, 1, 1], [1, 1, 1, 1]),
        ),
    ),
    Domain(
        ops.subtract, "*, *", np.subtract, analytic=True,
        special=(at(([inf, -inf, 0.0], [1.0, -inf, 0.0]), [inf, nan, 0.0], [1, 1, 1], [-1, -1, -1]),),
    ),
    Domain(
        ops.multiply, "*, *", np.multiply, analytic=True,
        special=(
            at(([0.0, inf, -0.0, 1.0, nan], [inf, 2.0, 1.0, -inf, 0.0]), [nan, inf, -0.0, -inf, nan],
               [inf, 2, 1, -inf, 0], [0, inf, 0, 1, nan]),
        ),
    ),
    Domain(
        ops.divide, "*, *", np.divide, (Real(), *_OFF_ZERO), analytic=True, zero_stays=True,
        special=(
            at(([1.0, -1.0, 1.0, 0.0], [0.0, 0.0, -0.0, 0.0]), [inf, -inf, -inf, nan],
               [inf, inf, -inf, inf], [-inf, inf, -inf, nan]),
            at(([1.0, inf, inf], [inf, 1.0, inf]), [0, inf, nan], [0, 1, 0], [0, -inf, 0]),
        ),
    ),
    Domain(
        ops.power, "*, *", np.power, (*_POSITIVE, Real()), analytic=True, zero_stays=True,
        special=(
            at([0.0, -0.0, inf, nan], [1, 1, 1, 1], [0, 0, 0, 0], f=lambda x: x**0),
            at([0.0, -0.0, inf, nan], [1, 1, 1, 1], [0, 0, 0, 0], f=lambda x: x**0.0),
            at([0.0, -0.0, inf], [0, -0.0, inf], [1, 1, 1], f=lambda x: x**1),
            at([0.0, inf, -inf], [0, inf, -inf], [0, inf, inf], f=lambda x: x**3),
            at([0.0, inf, -1.0], [0, inf, nan], [inf, 0, nan], f=lambda x: x**0.5),
            at([0.0, -0.0, inf], [inf, -inf, 0], [-inf, -inf, 0], f=lambda x: x**-1),
            at([0.0, -0.0, inf], [inf, inf, 0], [-inf, inf, 0], f=lambda x: x**-2),
            at([0.0, 2.0], [1, 0], [0, 0], f=lambda x: 0.0**x),
            at([0.0, 5.0, -inf, inf], [1, 1, 1, 1], [0, 0, 0, 0], f=lambda x: 1**x),
            at([0.0, inf, -inf], [1, inf, 0], [_L2, inf, 0], f=lambda x: 2**x),
            at([-1.0, -inf], [0, 0], [0, 0], f=lambda x: inf**x),
            at([1.0, 2.0], [-2, 4], [nan, nan], f=lambda x: (-2.0) ** x),  # defined at integers only: no derivative
            at(([0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.5, -1.0]), [1, 0, 0, 0, inf],
               [0, 0, 1, inf, -inf], [0, 0, 0, 0, -inf]),
            at(([inf, inf, -1.0, 1.0], [2.0, -1.0, 2.0, 0.0]), [inf, 0, 1, 1], [inf, 0, -2, 0], [inf, 0, nan, 0]),
        ),
    ),
    Domain(
        ops.power,
        "*",
        lambda x, exponent: np.power(x, exponent),
        _OFF_ZERO,
        lambda choose, _: {"exponent": choose((2, 3, 1, 0, -1, -2, 2.0))},
        call=lambda op, x, exponent: op(x, exponent),
        name="power of a signed base",
    ),
    Domain(
        ops.power,
        "*",
        lambda x, base: np.power(base, x),
        (Real(),),
        lambda choose, _: {"base": choose((2, 0.5, 1))},
        call=lambda op, x, base: op(base, x),
        name="power of a number",
    ),
    Domain(
        ops.negative, "*", np.negative, analytic=True,
        special=(at([0.0, -0.0, inf, nan], [-0.0, 0.0, -inf, nan], [-1, -1, -1, -1]),),
    ),
    Domain(
        ops.maximum, "*, *", np.maximum, _APART,
        special=(
            at(([0.0, inf, -inf, inf, nan, 1.0], [-0.0, inf, -inf, 1.0, 1.0, nan]), [0, inf, -inf, inf, nan, nan],
               [.5, .5, .5, 1, 0, 0], [.5, .5, .5, 0, 0, 0]),
        ),
    ),
    Domain(
        ops.minimum, "*, *", np.minimum, _APART,
        special=(
            at(([0.0, inf, -inf, inf, nan, 1.0], [-0.0, inf, -inf, 1.0, 1.0, nan]), [0, inf, -inf, 1, nan, nan],
               [.5, .5, .5, 0, 0, 0], [.5, .5, .5, 1, 0, 0]),
        ),
    ),
    Domain(
        ops.where, "*, *, *", np.where, (Boolean(), Real()),
        special=(
            at(([1.0, inf, nan, 2.0], [nan, 3.0, 4.0, inf]), [1, 3, 4, 2], [1, 0, 0, 1], [0, 1, 1, 0],
               f=lambda a, b: ops.where(np.array([True, False, False, True]), a, b)),
            # the other branch has a pole
            at([0.0, 4.0], [0, 2], [1, .25], f=lambda x: ops.where(x > 0, ops.sqrt(x), x)),
            at([0.0, 4.0], [0, math.log(4)], [0, .25], f=lambda x: ops.where(x > 0, ops.log(x), 0.0)),
            at([0.0, 4.0], [5, .25], [0, -1 / 16], f=lambda x: ops.where(x > 0, 1 / x, 5.0)),
            at([inf, 0.0], [0, 1], [0, 1], f=lambda x: ops.where(x < 1, ops.exp(x), 0.0)),
            # inf is no pole of x * x
            at([inf, 2.0], [0, 4], [nan, 4], f=lambda x: ops.where(x < 3, ops.square(x), 0.0)),
        ),
    ),
    Domain(
        ops.clip,
        "*",
        lambda x, min, max: np.clip(x, min, max),
        _APART,
        lambda choose, _: {"min": choose((-0.125, None)), "max": choose((0.25, None))},
        special=(
            at([-inf, -1.0, -0.0, 1.0, inf, nan], [-1, -1, -0.0, 1, 1, nan], [0, 1, 1, 1, 0, 0],
               f=lambda x: ops.clip(x, -1, 1)),
            at([-inf, 0.0, inf], [-inf, 0, inf], [1, 1, 1], f=lambda x: ops.clip(x, -inf, inf)),
        ),
    ),
    Domain(ops.equal, "*, *", np.equal, _COMPARED, constant=True, special=_COMPARES),
    Domain(ops.not_equal, "*, *", np.not_equal, _COMPARED, constant=True, special=_COMPARES),
    Domain(ops.less, "*, *", np.less, _COMPARED, constant=True, special=_COMPARES),
    Domain(ops.less_equal, "*, *", np.less_equal, _COMPARED, constant=True, special=_COMPARES),
    Domain(ops.greater, "*, *", np.greater, _COMPARED, constant=True, special=_COMPARES),
    Domain(ops.greater_equal, "*, *", np.greater_equal, _COMPARED, constant=True, special=_COMPARES),
    Domain(ops.bitwise_and, "*, *", np.bitwise_and, _BITS, constant=True, special=_COMPARES),
    Domain(ops.bitwise_or, "*, *", np.bitwise_or, _BITS, constant=True, special=_COMPARES),
    Domain(ops.bitwise_xor, "*, *", np.bitwise_xor, _BITS, constant=True, special=_COMPARES),
    Domain(ops.bitwise_invert, "*", np.invert, _BITS, constant=True, special=_COMPARES),
    Domain(ops.bitwise_and, "*, *", np.bitwise_and, _WHOLE, constant=True, special=_COUNTS, name="bitwise_and of ints"),
    Domain(ops.logical_and, "*, *", np.logical_and, _TRUE, constant=True, special=_COMPARES),
    Domain(ops.logical_or, "*, *", np.logical_or, _TRUE, constant=True, special=_COMPARES),
    Domain(ops.logical_xor, "*, *", np.logical_xor, _TRUE, constant=True, special=_COMPARES),
    Domain(ops.logical_not, "*", np.logical_not, _TRUE, constant=True, special=_COMPARES),
    # elementwise
    Domain(
        ops.exp, "*", np.exp, analytic=True, zero_stays=True,
        special=(
            at([0.0, -0.0, inf, -inf, 1000.0, -1000.0, nan], [1, 1, inf, 0, inf, 0, nan], [1, 1, inf, 0, inf, 0, nan]),
        ),
    ),
    Domain(
        ops.log, "*", np.log, _POSITIVE, analytic=True, zero_stays=True,
        special=(at([0.0, -0.0, inf, 1.0, nan], [-inf, -inf, inf, 0, nan], [inf, -inf, 0, 1, nan]),),
    ),
    Domain(
        ops.log1p, "*", np.log1p, (Real(-0.5, 3.0),), analytic=True, zero_stays=True,
        special=(at([-1.0, 0.0, inf, nan], [-inf, 0, inf, nan], [inf, 1, 0, nan]),),
    ),
    Domain(
        ops.expm1, "*", np.expm1, analytic=True, zero_stays=True,
        special=(
            at([0.0, inf, -inf, 1000.0, -1000.0, nan], [0, inf, -1, inf, -1, nan], [1, inf, 0, inf, 0, nan]),
        ),
    ),
    Domain(
        ops.sqrt, "*", np.sqrt, _POSITIVE, analytic=True, zero_stays=True,
        special=(at([0.0, -0.0, inf, -1.0, nan], [0, -0.0, inf, nan, nan], [inf, -inf, 0, nan, nan]),),
    ),
    Domain(
        ops.square, "*", np.square, analytic=True,
        special=(at([0.0, -0.0, inf, -inf, nan], [0, 0, inf, inf, nan], [0, 0, inf, -inf, nan]),),
    ),
    Domain(
        ops.abs, "*", np.abs, _OFF_ZERO,
        special=(at([0.0, -0.0, inf, -inf, nan], [0, 0, inf, inf, nan], [0, 0, 1, -1, nan]),),
    ),
    Domain(
        ops.sign, "*", np.sign, _OFF_ZERO, constant=True,
        special=(at([0.0, -0.0, inf, -inf, nan], [0, 0, 1, -1, nan], [0, 0, 0, 0, 0]),),
    ),
    Domain(
        ops.sin, "*", np.sin, analytic=True,
        special=(at([0.0, -0.0, nan], [0, -0.0, nan], [1, 1, nan]), at([inf, -inf], [nan, nan], [nan, nan]),),
    ),
    Domain(
        ops.cos, "*", np.cos, analytic=True,
        special=(at([0.0, -0.0, nan], [1, 1, nan], [0, 0, nan]), at([inf, -inf], [nan, nan], [nan, nan]),),
    ),
    Domain(
        ops.tanh, "*", np.tanh, (Real(-3, 3),), analytic=True,
        special=(
            at([0.0, -0.0, 1000.0, -1000.0, inf, -inf, nan], [0, -0.0, 1, -1, 1, -1, nan], [1, 1, 0, 0, 0, 0, nan]),
        ),
    ),
    Domain(
        ops.sigmoid, "*", _sigmoid, (Real(-3, 3),), analytic=True,
        special=(at([0.0, 1000.0, -1000.0, inf, -inf, nan], [.5, 1, 0, 1, 0, nan], [.25, 0, 0, 0, 0, nan]),),
    ),
    Domain(
        ops.relu, "*", lambda x: x * (x > 0), _OFF_ZERO,
        special=(at([0.0, -0.0, inf, -inf, nan], [0, 0, inf, 0, nan], [0, 0, 1, 0, 0]),),
    ),
    Domain(
        ops.leaky_relu,
        "*",
        lambda x, negative_slope: np.where(x > 0, x, x * negative_slope),
        _OFF_ZERO,
        lambda choose, _: {"negative_slope": choose((0.01, 0.25))},
        special=(
            at([0.0, -0.0, inf, -inf, nan], [0, -0.0, inf, -inf, nan], [.25, .25, 1, .25, .25],
               f=lambda x: ops.leaky_relu(x, 0.25)),
        ),
    ),
    Domain(
        ops.elu,
        "*",
        lambda x, alpha: np.where(x > 0, x, alpha * (np.exp(x) - 1)),
        _OFF_ZERO,
        lambda choose, _: {"alpha": choose((1.0, 0.5))},
        special=(at([0.0, 1000.0, -1000.0, inf, -inf, nan], [0, 1000, -1, inf, -1, nan], [1, 1, 0, 1, 0, nan]),),
    ),
    Domain(
        ops.gelu, "*", _gelu, (Real(-3, 3),), analytic=True,
        special=(
            at([0.0, -0.0, 1000.0, -1000.0, inf, -inf, nan], [0, -0.0, 1000, 0, inf, 0, nan],
               [.5, .5, 1, 0, 1, 0, nan]),
        ),
    ),
    Domain(
        ops.silu, "*", lambda x: x * _sigmoid(x), (Real(-3, 3),), analytic=True,
        special=(
            at([0.0, -0.0, 1000.0, -1000.0, inf, -inf, nan], [0, -0.0, 1000, 0, inf, 0, nan],
               [.5, .5, 1, 0, 1, 0, nan]),
        ),
    ),
    Domain(
        ops.softplus, "*", lambda x: np.log(1 + np.exp(x)), (Real(-3, 3),),
        special=(at([0.0, 1000.0, -1000.0, inf, -inf, nan], [_L2, 1000, 0, inf, 0, nan], [.5, 1, 0, 1, 0, nan]),),
    ),
    Domain(
        ops.astype,
        "*",
        lambda x, dtype: x.astype(dtype),
        metadata=lambda choose, _: {"dtype": "float64"},
        casts=True,
        special=(at([0.0, inf, nan], [0, inf, nan], [1, 1, 1], f=lambda x: ops.astype(x, "float32")),),
    ),
    # reduction
    Domain(
        ops.sum, "*", np.sum, metadata=_axes, analytic=True,
        special=(
            at([inf, 1.0], inf, [1, 1]), at([inf, -inf], nan, [1, 1]), at([nan, 1.0], nan, [1, 1]), at([], 0, []),
        ),
    ),
    Domain(
        ops.mean, "*", np.mean, metadata=_axes, analytic=True, empty=False,
        special=(at([inf, 1.0], inf, [.5, .5]), at([inf, -inf], nan, [.5, .5]), at([nan, 1.0], nan, [.5, .5]),),
    ),
    Domain(
        ops.prod, "*", np.prod, (Real(-1.5, 1.5, kinks=(0.0,)),), _axes, analytic=True,
        special=(
            at([0.0, 2.0, 3.0], 0, [6, 0, 0]), at([0.0, 0.0, 3.0], 0, [0, 0, 0]), at([-0.0, 2.0], -0.0, [2, 0]),
            at([inf, 2.0], inf, [2, inf]), at([inf, 0.0], nan, [0, inf]), at([nan, 2.0], nan, [2, nan]), at([], 1, []),
        ),
    ),
    Domain(
        ops.max, "*", np.max, _APART, _axes, empty=False,
        special=(
            at([0.0, -0.0], 0, [.5, .5]), at([inf, inf, 1.0], inf, [.5, .5, 0]), at([-inf, -inf], -inf, [.5, .5]),
            at([1.0, nan], nan, [0, 0]),
        ),
    ),
    Domain(
        ops.min, "*", np.min, _APART, _axes, empty=False,
        special=(
            at([0.0, -0.0], 0, [.5, .5]), at([-inf, -inf, 1.0], -inf, [.5, .5, 0]), at([inf, inf], inf, [.5, .5]),
            at([1.0, nan], nan, [0, 0]),
        ),
    ),
    _spread(
        ops.var, np.var,
        at([2.0, 2.0], 0, [0, 0]), at([2.0], 0, [0]), at([inf, 1.0], nan, [nan, nan]),
        at([2.0], nan, [nan], f=lambda x: ops.var(x, ddof=1)),
    ),
    _spread(
        ops.std, np.std,
        at([2.0, 2.0], 0, [0, 0]), at([2.0], 0, [0]), at([inf, 1.0], nan, [nan, nan]),
        at([2.0, 2.0], 0, [0, 0], f=lambda x: ops.std(x, ddof=1)),
        at([2.0], nan, [nan], f=lambda x: ops.std(x, ddof=1)),
    ),
    Domain(
        ops.cumsum, "*n", _cumsum, metadata=_axis, analytic=True,
        special=(
            at([1.0, inf, 1.0], [1, inf, inf], [3, 2, 1]), at([inf, -inf, 1.0], [inf, nan, nan], [3, 2, 1]),
        ),
    ),
    Domain(ops.argmax, "*", np.argmax, _APART, _argument_axis, constant=True, empty=False, special=_COUNTS),
    Domain(ops.argmin, "*", np.argmin, _APART, _argument_axis, constant=True, empty=False, special=_COUNTS),
    Domain(ops.any, "*", np.any, _TRUE, _axes, constant=True, special=_COMPARES),
    Domain(ops.all, "*", np.all, _TRUE, _axes, constant=True, special=_COMPARES),
    Domain(
        ops.softmax, "*n", _softmax, metadata=_axis, analytic=True, empty=False,
        special=(
            at([0.0, -inf], [1, 0], [0, 0], u=[1, 3]), at([-inf, -inf], [0, 0], [0, 0], u=[1, 3]),
            at([1000.0, 1000.0], [.5, .5], [-.5, .5], u=[1, 3]), at([1000.0, -1000.0], [1, 0], [0, 0], u=[1, 3]),
            at([[-inf, -inf], [0.0, 0.0]], [[0, 0], [.5, .5]], [[0, 0], [-.5, .5]], u=[[1, 3], [1, 3]]),
            at([inf, 1.0], [nan, 0], [nan, nan], u=[1, 3]), at([nan, 1.0], [nan, nan], [nan, nan], u=[1, 3]),
        ),
    ),
    Domain(
        ops.log_softmax, "*n", _log_softmax, metadata=_axis, analytic=True, empty=False,
        special=(
            at([0.0, -inf], [0, -inf], [-3, 3], u=[1, 3]), at([1000.0, 0.0], [0, -1000], [-3, 3], u=[1, 3]),
            at([-inf, -inf], [-inf, -inf], [1, 3], u=[1, 3]),  # x - logsumexp(x), which has gradient 0 there
            at([nan, 1.0], [nan, nan], [nan, nan], u=[1, 3]),
        ),
    ),
    Domain(
        ops.logsumexp, "*", _logsumexp, metadata=_axes, analytic=True, empty=False,
        special=(
            at([0.0, -inf], 0, [1, 0]), at([-inf, -inf], -inf, [0, 0]), at([1000.0, 1000.0], 1000 + _L2, [.5, .5]),
            at([inf, 1.0], inf, [nan, 0]), at([nan, 1.0], nan, [nan, nan]), at([], -inf, []),
        ),
    ),
    Domain(
        ops.norm, "*", _norm, _OFF_ZERO, _axes, empty=False,
        special=(
            at([0.0, -0.0], 0, [0, 0]), at([-3.0], 3, [-1]),
            at([inf, 1.0], inf, [nan, 0]), at([nan, 0.0], nan, [nan, nan]),
        ),
    ),
    # shape
    Domain(ops.reshape, "*", np.reshape, metadata=_reshapes, analytic=True, special=_MOVES),
    Domain(ops.transpose, "*", np.transpose, metadata=_permutation, analytic=True, special=_MOVES),
    Domain(ops.swapaxes, "*n", np.swapaxes, metadata=_two_axes, analytic=True, special=_MOVES),
    Domain(ops.moveaxis, "*n", np.moveaxis, metadata=_moves, analytic=True, special=_MOVES),
    Domain(ops.squeeze, "*1 | 1 n 1 | n", _squeeze, metadata=_length_one, analytic=True, special=_MOVES),
    Domain(ops.expand_dims, "*", np.expand_dims, metadata=_new_axis, analytic=True, special=_MOVES),
    Domain(ops.broadcast_to, "*", np.broadcast_to, metadata=_wider, analytic=True, special=_MOVES),
    Domain(
        ops.concatenate, "", lambda *xs, axis: np.concatenate(xs, axis), draw=_joined, analytic=True,
        call=lambda op, *xs, axis: op(xs, axis=axis), special=_MOVES,
    ),
    Domain(
        ops.stack, "", lambda *xs, axis: np.stack(xs, axis), draw=_stacked, analytic=True,
        call=lambda op, *xs, axis: op(xs, axis=axis), special=_MOVES,
    ),
    Domain(ops.split, "*n", np.split, metadata=_pieces, analytic=True, special=_MOVES),
    Domain(ops.flip, "*n", np.flip, metadata=_flips, analytic=True, special=_MOVES),
    Domain(
        ops.pad, "*n", np.pad, metadata=_widths, analytic=True,
        special=(at([nan], [inf, nan, inf], [1], f=lambda x: ops.pad(x, 1, constant_values=inf)),),
    ),
    Domain(
        ops.tril, "*mn", np.tril, metadata=_diagonal,
        special=(
            at([[1.0, inf], [nan, 2.0]], [[1, 0], [nan, 2]], [[1, 0], [1, 1]]),  # cut off, not multiplied by 0
        ),
    ),
    Domain(
        ops.triu, "*mn", np.triu, metadata=_diagonal,
        special=(at([[1.0, inf], [nan, 2.0]], [[1, inf], [0, 2]], [[1, 1], [0, 1]]),),
    ),
    # indexing
    Domain(
        ops.getitem, "n | mn | kmn", lambda x, index: x[index], metadata=_keys, analytic=True,
        call=lambda op, x, index: op(x, index),
        special=(
            at([inf, 1.0, nan], [inf, inf], [2, 0, 0], f=lambda x: x[[0, 0]]),  # NaN that is not taken is not seen
        ),
    ),
    Domain(
        ops.take, "*n", np.take, metadata=_taken, analytic=True,
        special=(at([inf, 1.0, nan], [inf, 1, 1], [1, 2, 0], f=lambda x: ops.take(x, [0, 1, 1])),),
    ),
    Domain(
        ops.take_along_axis, "*n", np.take_along_axis, metadata=_taken_along, analytic=True,
        special=(
            at([[inf, nan], [1.0, 2.0]], [[inf], [2]], [[1, 0], [0, 1]],
               f=lambda x: ops.take_along_axis(x, [[0], [1]])),
        ),
    ),
    # linalg
    Domain(
        ops.matmul, "*mn, *np | mn, np | *mn, np | n, *np | *mn, n | n, n", np.matmul, analytic=True,
        special=(at(([[0.0, 1.0]], [[inf], [1.0]]), [[nan]], [[inf, 1]], [[0], [1]]),),
    ),
    Domain(
        ops.einsum, "", lambda *xs, subscripts: np.einsum(subscripts, *xs), draw=_contraction, analytic=True,
        call=lambda op, *xs, subscripts: op(subscripts, *xs),
        special=(at(([0.0, 1.0], [inf, 1.0]), nan, [inf, 1], [0, 1], f=lambda a, b: ops.einsum("i,i->", a, b)),),
    ),
    Domain(
        ops.linear, "*i, oi, o | *i, oi", _linear, analytic=True,
        special=(at(([[0.0, 1.0]], [[inf, 1.0]]), [[nan]], [[inf, 1]], [[0, 1]]),),
    ),
)  # fmt: skip
"""One row or more for every public op of `tinygrad_rnn.tensor.ops`; a test fails if one is missing."""
