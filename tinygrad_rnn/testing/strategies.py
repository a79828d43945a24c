"""Hypothesis strategies for tests of ops: shapes, axes, layouts, indices, and the cases of a domain.

They draw what has structure (shapes, options, layouts) and a seed; NumPy makes the numbers from the seed.
Drawing every number with Hypothesis costs a hundred times more and finds nothing more in an op that is
smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tinygrad_rnn.testing.domains import LAYOUTS, Case, Choose, Domain, Shape, broadcast_shapes, shapes_of

__all__ = [
    "axes",
    "broadcastable_shapes",
    "cases",
    "indices",
    "layouts",
    "seeds",
    "shapes",
    "signature_shapes",
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
    """Shapes that broadcast with each other."""
    choose = _choose(draw)
    return tuple(broadcast_shapes(choose, draw(shapes(min_side=0 if empty else 1)), count))


@st.composite
def signature_shapes(draw: DrawFn, signature: str, empty: bool = True) -> tuple[Shape, ...]:
    """Shapes that fit a signature, as `domains.shapes_of` reads it."""
    return shapes_of(signature, _choose(draw), empty)


@st.composite
def axes(draw: DrawFn, ndim: int) -> int | tuple[int, ...] | None:
    """What a reduction takes as axis: None, one, or several different ones; negative ones too."""
    several = st.lists(st.integers(-ndim, ndim - 1), max_size=ndim, unique_by=lambda a: a % ndim).map(tuple)
    return draw(st.none() | st.integers(-ndim, ndim - 1) | several) if ndim else draw(st.sampled_from((None, ())))


@st.composite
def cases(draw: DrawFn, domain: Domain, layouts: Sequence[str] = LAYOUTS) -> Case:
    """A case of a domain: `case.arrays(domain)` are the arguments of the op, `case.options` its metadata."""
    return domain.case(_choose(draw), layouts, draw(seeds()))


@st.composite
def indices(draw: DrawFn, shape: Shape, basic: bool = True, advanced: bool = True) -> Any:
    """An index that fits `shape`: integers, slices with any step, None and Ellipsis (`basic`), and either
    integer arrays that broadcast together, with repeated and negative entries, or one mask of one or two axes
    (`advanced`)."""
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
