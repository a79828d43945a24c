"""Calls of functions of Tensors, as the kit makes them: arrays go in as they are, read-only, and gradients come out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import is_floating
from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.graph import leaf
from tinygrad_rnn.tensor.tensor import Tensor, box

__all__ = [
    "generator_of",
    "Array",
    "Call",
    "Function",
    "Held",
    "brief",
    "constant",
    "flat",
    "frozen",
    "holding",
    "largest",
    "leaves_of",
    "pull",
    "pull_into_leaves",
    "values_of",
    "variable",
]

Array = NDArray[Any]
Function = Callable[..., Any]


class Held:
    """A function that holds its arguments somewhere while it runs, as a module its parameters: `holds(tensors)` is the
    context in which it does. A checkpoint inside runs once more in the backward, which needs them there as well.
    """

    def __init__(self, f: Function, holds: Callable[[Sequence[Tensor]], AbstractContextManager[None]]) -> None:
        self.f, self.holds = f, holds

    def __call__(self, *tensors: Tensor) -> Any:
        with self.holds(tensors):
            return self.f(*tensors)


def holding(f: Function, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
    """The context of a backward through a call of `f`."""
    return f.holds(tensors) if isinstance(f, Held) else nullcontext()


def constant(array: Any) -> Tensor:
    """A Tensor that holds `array` itself and requires no gradient."""
    return box(array, None)


def variable(array: Any) -> Tensor:
    """A leaf that requires a gradient and holds `array` itself: its layout, its flags, its dtype."""
    return box(array, leaf(tuple(array.shape), array.dtype))


def flat(outputs: Any) -> list[Tensor]:
    """The Tensors of nested tuples, lists and dicts, in order, without Nones; TypeError for anything else."""
    found = [y for y in leaves_of(outputs, lambda y: y) if y is not None]
    for y in found:
        if not isinstance(y, Tensor):
            raise TypeError(f"a function of Tensors returns Tensors, not {type(y).__name__}: {y!r:.60}")
    return found


def leaves_of(outputs: Any, leaf_of: Callable[[Any], Any]) -> list[Any]:
    """What stands in nested tuples, lists and dicts, in order."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        return [y for part in outputs for y in leaves_of(part, leaf_of)]
    return [leaf_of(outputs)]


def values_of(f: Function, arrays: Iterable[Array]) -> list[Array]:
    """The raw floating outputs of `f`; nothing is recorded as no input requires a gradient."""
    outputs = flat(f(*(constant(x) for x in arrays)))
    return [y._array for y in outputs if y._array.dtype.kind in "fc"]


def pull(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Any],
    inputs: Sequence[Tensor],
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """Jᵀu: the gradients of sum <output, cotangent>; zeros where no output depends on an input."""
    live = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not live or not inputs:
        return [constant(np.zeros(x.shape, x.dtype)) for x in inputs]
    us = [u if isinstance(u, Tensor) else constant(u) for _, u in live]
    ys = [y for y, _ in live]
    return list(grad(ys, list(inputs), gradient=us, create_graph=create_graph, retain_graph=retain_graph))


def pull_into_leaves(outputs: Sequence[Tensor], cotangents: Sequence[Array]) -> None:
    """One backward from all outputs that require a gradient; a cotangent for each floating output."""
    floats = [y for y in outputs if is_floating(y.dtype)]
    pairs = [(y, constant(u)) for y, u in zip(floats, cotangents, strict=True) if y.requires_grad]
    if len(pairs) == 1:
        pairs[0][0].backward(pairs[0][1], retain_graph=True)
    elif pairs:
        y, u = (ops.concatenate([ops.reshape(t, (t.size,)) for t in part]) for part in zip(*pairs, strict=True))
        y.backward(u, retain_graph=True)


class Call:
    """A call of a function of Tensors, recorded by all inputs or by some; what the laws pull back through."""

    def __init__(self, f: Function, arrays: Sequence[Any], record: bool | Collection[int] = True) -> None:
        self.f = f
        wanted = record if not isinstance(record, bool) else range(len(arrays)) if record else ()
        self.tensors = [
            variable(x) if i in wanted and is_floating(x.dtype) else constant(x) for i, x in enumerate(arrays)
        ]
        self.inputs = [t for t in self.tensors if t.requires_grad]
        self.outputs = flat(f(*self.tensors))
        self.values = [y._array for y in self.outputs]
        self.floats = [y for y, value in zip(self.outputs, self.values, strict=True) if is_floating(value.dtype)]
        self.live = [y for y in self.outputs if y.requires_grad]
        for value in self.values:
            if isinstance(value, np.ndarray):
                value.flags.writeable = False  # a vjp must not write to it, either

    def cotangents(self, rng: np.random.Generator) -> list[Array]:
        """Random ones, for the floating outputs. Never all ones: the gradient of a softmax's sum is zero."""
        return [frozen(rng.standard_normal(y.shape)) for y in self.floats]

    def pull(self, cotangents: Sequence[Any]) -> list[Any]:
        """Jᵀu for every input."""
        with holding(self.f, self.tensors):
            return [g._array for g in pull(self.floats, cotangents, self.inputs, retain_graph=True)]

    def push(self, tangents: Sequence[Array]) -> list[Array]:
        """Jv for every floating output: the vjp, which is linear in u, differentiated by u."""
        us = [variable(np.zeros(y.shape, y.dtype)) for y in self.live]
        with holding(self.f, self.tensors):
            pulled = grad(self.live, self.inputs, gradient=us, create_graph=True) if self.live else ()
            reached = [(p, constant(v)) for p, v in zip(pulled, tangents, strict=False) if p.requires_grad]
            along = iter(grad([p for p, _ in reached], us, gradient=[v for _, v in reached]) if reached else us)
        return [next(along)._array if y.requires_grad else np.zeros(y.shape) for y in self.floats]

    def backward(self, cotangents: Sequence[Array]) -> None:
        """Add Jᵀu to `.grad` of the inputs."""
        with holding(self.f, self.tensors):
            pull_into_leaves(self.outputs, cotangents)


# --- arrays -------------------------------------------------------------------------------------------------


def generator_of(seed: int, use: int = 0) -> np.random.Generator:
    """A generator for what the kit draws. It has a stream of its own: a user's arrays, of a generator of the same seed,
    must not come again as directions or as incoming gradients, of which xᵀx, say, would then be symmetric.
    """
    return np.random.default_rng((seed, 0x6B6974, use))


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
