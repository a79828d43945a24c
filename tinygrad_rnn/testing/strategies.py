"""Hypothesis strategies for tests of ops and layers: shapes, values, layouts, axes, indices, cases, sequences.

They draw what has structure (shapes, options, layouts) and a seed; NumPy makes the numbers from the seed.
Drawing every number with Hypothesis costs a hundred times more and finds nothing more in an op that is
smooth. Nothing is drawn and then thrown away: values keep off kinks, and indices and axes fit, by construction.

This module alone needs Hypothesis, and is not imported with `tinygrad_rnn.testing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tinygrad_rnn.tensor.graph import leaf
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing.calls import Array
from tinygrad_rnn.testing.domains import Case, Domain
from tinygrad_rnn.testing.signatures import broadcast_shapes, shapes_of
from tinygrad_rnn.testing.subject import KINDS, Configuration, Sequences
from tinygrad_rnn.testing.values import LAYOUTS, Choose, Real, Shape, Values, make_arrays

__all__ = [
    "arrays",
    "axes",
    "broadcastable_shapes",
    "cases",
    "configurations",
    "indices",
    "layouts",
    "seeds",
    "sequences",
    "shapes",
    "signature_shapes",
    "tensors",
]


def seeds() -> SearchStrategy[int]:
    """A seed for NumPy."""
    return st.integers(0, 2**32 - 1)


def layouts() -> SearchStrategy[str]:
    """A memory layout of a case's array: C, F, strided, reversed, stride 0."""
    return st.sampled_from(LAYOUTS)


def _choose(draw: DrawFn) -> Choose:
    def choose(sequence: Sequence[Any], /) -> Any:
        return sequence[draw(st.integers(0, len(sequence) - 1))] if len(sequence) > 1 else sequence[0]

    return choose


@st.composite
def shapes(draw: DrawFn, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4) -> Shape:
    """A shape of few, short axes; axes without entries are among them unless `min_side` is 1."""
    return tuple(draw(st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims)))


@st.composite
def broadcastable_shapes(draw: DrawFn, count: int = 2, empty: bool = True) -> tuple[Shape, ...]:
    """Shapes that broadcast with each other.

    >>> from hypothesis import given
    >>> @given(broadcastable_shapes(3))
    ... def test(shapes):
    ...     np.broadcast_shapes(*shapes)
    >>> test()
    """
    choose = _choose(draw)
    return tuple(broadcast_shapes(choose, draw(shapes(min_side=0 if empty else 1)), count))


@st.composite
def signature_shapes(draw: DrawFn, signature: str, empty: bool = True) -> tuple[Shape, ...]:
    """Shapes that fit a signature, as `domains.shapes_of` reads it; NumPy's gufunc signatures, too.

    >>> from hypothesis import given
    >>> @given(signature_shapes("(m,n),(n,p)->(m,p)"))
    ... def test(shapes):
    ...     np.matmul(*map(np.zeros, shapes))
    >>> test()
    """
    return shapes_of(signature, _choose(draw), empty)


# --- values -------------------------------------------------------------------------------------------------


def arrays(
    shape: Shape | SearchStrategy[Shape] | None = None,
    values: Values = Real(),  # noqa: B008 (frozen)
    layout: str | SearchStrategy[str] = "C",
    dtype: Any = np.float64,
) -> SearchStrategy[Array]:
    """A read-only array: `shape` a shape or a strategy of them (any, unless given), `layout` one of `layouts()`.

    `values` says what is in it: `Real` between bounds and off kinks, `Distinct` without ties, `Integer`, `Boolean`.
    Floats have `dtype`.

    >>> from hypothesis import given
    >>> from tinygrad_rnn.testing import Distinct, Real
    >>> @given(arrays((2, 3), Real(-3, 3, kinks=(0,), gap=0.1)), arrays(shapes(), Distinct(), layouts()))
    ... def test(x, y):
    ...     assert abs(x).min() >= 0.1  # relu has its kink at 0
    ...     assert len(np.unique(y)) == y.size  # max and sort have theirs at ties
    >>> test()
    """
    shape_ = shapes() if shape is None else shape if isinstance(shape, SearchStrategy) else st.just(shape)
    layout_ = layout if isinstance(layout, SearchStrategy) else st.just(layout)
    return st.builds(
        lambda shape, layout, seed: make_arrays((shape,), (values,), (layout,), seed, dtype)[0],
        shape_,
        layout_,
        seeds(),
    )


def tensors(
    shape: Shape | SearchStrategy[Shape] | None = None,
    values: Values = Real(),  # noqa: B008 (frozen)
    layout: str | SearchStrategy[str] = "C",
    dtype: Any = np.float64,
    requires_grad: bool = False,
) -> SearchStrategy[Tensor]:
    """A Tensor around such an array as `arrays` draws; one that requires a gradient is a leaf.

    >>> import tinygrad_rnn as tr
    >>> from hypothesis import given
    >>> @given(tensors((3,), layout=layouts(), requires_grad=True))
    ... def test(x):
    ...     tr.sum(tr.sin(x)).backward()
    ...     np.testing.assert_allclose(x.grad.numpy(), np.cos(x.numpy()))
    >>> test()
    """
    return arrays(shape, values, layout, dtype).map(lambda x: box(x, leaf(x.shape, x.dtype) if requires_grad else None))


# --- options ------------------------------------------------------------------------------------------------


@st.composite
def axes(draw: DrawFn, ndim: int) -> int | tuple[int, ...] | None:
    """What a reduction takes as axis: None, one, or several different ones in any order; negative ones too.

    >>> from hypothesis import given
    >>> @given(axes(3))
    ... def test(axis):
    ...     np.zeros((2, 3, 4)).sum(axis=axis)
    >>> test()
    """
    choose = _choose(draw)
    kind = choose(("all", "one", "several") if ndim else ("all", "several"))
    if kind == "all":
        return None
    left = list(range(ndim))
    count = 1 if kind == "one" else choose(range(ndim + 1))
    found = tuple(left.pop(choose(range(len(left)))) - choose((0, ndim)) for _ in range(count))
    return found[0] if kind == "one" else found


@st.composite
def cases(draw: DrawFn, domain: Domain, layouts: Sequence[str] = LAYOUTS) -> Case:
    """A case of a domain: `case.arrays(domain)` are the arguments of the op, `case.options` its metadata.

    >>> import tinygrad_rnn as tr
    >>> from hypothesis import given
    >>> from tinygrad_rnn.testing import Domain, Real
    >>> domain = Domain(tr.log, "*", np.log, (Real(0.5, 3.0),))
    >>> @given(cases(domain))
    ... def test(case):
    ...     (x,) = case.arrays(domain)
    ...     np.testing.assert_allclose(tr.log(x), domain.reference(x))
    >>> test()
    """
    return domain.case(_choose(draw), layouts, draw(seeds()))


@st.composite
def indices(draw: DrawFn, shape: Shape, basic: bool = True, advanced: bool = True) -> Any:
    """An index that fits `shape`: integers, slices with any step, None and Ellipsis (`basic`), and either
    integer arrays that broadcast together, with repeated and negative entries, or one mask of one or two axes
    (`advanced`).

    >>> from hypothesis import given
    >>> @given(indices((4, 3)))
    ... def test(index):
    ...     np.zeros((4, 3))[index]
    >>> test()
    """
    rng = np.random.default_rng(draw(seeds()))
    arrays = draw(st.sampled_from(("array", "mask", ""))) if advanced else ""
    common = draw(shapes(max_dims=2, max_side=3)) if arrays == "array" else ()
    last = draw(st.integers(0, len(shape)))  # the axes after it are left out
    keys: list[Any] = []
    axis = 0
    while axis < last:
        n = shape[axis]
        kinds = ["slice"]
        if basic:
            kinds += [
                "none",
                *(["ellipsis"] if Ellipsis not in map(_kind, keys) else []),
                *(["integer"] if n else []),
            ]
        if arrays == "mask" and "mask" not in map(_kind, keys):
            kinds += ["mask", "mask"]
        if arrays == "array" and (n or 0 in common):
            kinds += ["array", "array"]
        kind = draw(st.sampled_from(kinds))
        if kind == "none":
            keys.append(None)
            continue
        if kind == "ellipsis":
            keys.append(Ellipsis)
            axis += draw(st.integers(0, len(shape) - axis))
            last = len(shape)  # what follows must reach the last axis
            continue
        if kind == "slice":
            bound = st.none() | st.integers(-n - 1, n + 1)
            keys.append(slice(draw(bound), draw(bound), draw(st.sampled_from((None, 1, 2, -1, -2)))))
        elif kind == "integer":
            keys.append(draw(st.integers(-n, n - 1)))
        elif kind == "array":
            size = broadcast_shapes(_choose(draw), common, 2)[0] if n else common
            keys.append(rng.integers(-n, n, size) if n else np.zeros(size, np.int64))
        else:
            covered = draw(st.integers(1, min(2, len(shape) - axis)))
            keys.append(rng.integers(0, 2, shape[axis : axis + covered]) > 0)
            axis += covered - 1
            last = max(last, axis + 1)
        axis += 1
    return keys[0] if len(keys) == 1 and draw(st.booleans()) else tuple(keys)


def _kind(key: Any) -> Any:
    return "mask" if isinstance(key, np.ndarray) and key.dtype == bool else key if key is Ellipsis else ""


# --- sequences and layers -----------------------------------------------------------------------------------


@st.composite
def sequences(draw: DrawFn, max_T: int = 6, max_B: int = 3) -> Sequences:
    """A batch of sequences, mostly short ones, ragged or not: a case of `check_recurrent`."""
    return Sequences.draw(_choose(draw), draw(seeds()), max_T, max_B)


@st.composite
def configurations(draw: DrawFn, kinds: Sequence[str] = KINDS, min_size: int = 1, max_size: int = 4) -> Configuration:
    """A recurrent layer or cell of the library with its options: kind, sizes, layers, directions, dropout ..."""
    return Configuration.draw(_choose(draw), kinds, min_size, max_size)
