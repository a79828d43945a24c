"""The graph and the backward sweep: reverse-mode differentiation itself.

A `Node` is what a tensor remembers of how it was made: the op, the nodes of its inputs, and just the arrays that the
derivative asks for. Nothing points from a node to a tensor, so a graph has no cycles and dies with its last reference.

The chain rule then reads: the gradient of a node is the sum, over its uses, of what each use pulls back to it. `sweep`
computes exactly that, newest node first.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from tinygrad_rnn.errors import GraphFreedError
from tinygrad_rnn.tensor.backend import AnyArray, Array, DType


class Node:
    """One value of the computation. `sources` and `kept` are freed by a backward; a leaf has neither.

    In a graph that a failed backward has left half freed, `kept` is the name of the op that failed.
    """

    __slots__ = ("serial", "plan", "sources", "kept", "shape", "dtype", "watch")

    def __init__(
        self, plan: Any, sources: Sources, kept: Any, shape: tuple[int, ...], dtype: DType
    ) -> None:
        self.serial = (
            next_serial()
        )  # inputs are older than outputs: the order of serials is a topological order
        self.plan = plan
        self.sources: Sources | None = sources
        self.kept = kept
        self.shape = shape
        self.dtype = dtype
        self.watch: Watch | None = None


Sources: TypeAlias = "tuple[Node | None, ...]"


class Watch:
    """What somebody wants to know of a node's gradient: every leaf has one, an inner node only on request."""

    __slots__ = ("keeps", "grad", "hooks", "born")

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        self.grad: AnyArray | None = None
        self.hooks: list[Callable[[Any], Any]] = []
        self.born = ""  # the user's line, under detect_anomaly


next_serial = itertools.count().__next__
_serial = operator.attrgetter("serial")


def leaf(shape: tuple[int, ...], dtype: DType) -> Node:
    """The node of a tensor that requires a gradient and was computed from nothing."""
    node = Node(None, (), None, shape, dtype)
    node.watch = Watch(keeps=True)
    return node


def newest_first(roots: Iterable[Node], floor: int = 0, inputs: Iterable[Node] = ()) -> list[Node]:
    """All that `roots` were computed from, newest first: up to and with the first nodes older than `floor`, and no
    further than to the oldest of `inputs`, as nothing older leads to one.
    """
    oldest = max(floor, min((node.serial + 1 for node in inputs), default=0))
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if node.serial >= oldest:
            if node.sources is None:
                raise GraphFreedError(_freed(node, seen))
            for source in node.sources:
                if source is not None and source not in seen:
                    seen.add(source)
                    stack.append(source)
    return sorted(seen, key=_serial, reverse=True)


def leading_to(inputs: Iterable[Node], order: Sequence[Node]) -> tuple[list[Node], set[Node]]:
    """The nodes of `order` that are among `inputs` or computed from them; and those inputs that lead to no other."""
    useful = set(inputs)
    ends = set(inputs)
    for node in reversed(order):
        if node.sources and not useful.isdisjoint(node.sources):
            useful.add(node)
            ends.discard(node)
    return [node for node in order if node in useful], ends


class Part:
    """What indexing pulls back: `g` belongs at `index` of an array that is 0 elsewhere. Lazy, so T parts cost O(T).

    A `basic` index, of integers and slices, addresses every entry at most once.
    """

    __slots__ = ("g", "index", "basic")
    shape = None  # like no array's, which is how the gate tells

    def __init__(self, g: Array, index: Any, basic: bool = False) -> None:
        self.g, self.index, self.basic = g, index, basic


class Product:
    """What `x @ W` pulls back to a 2-D `W`: xᵀ g. Lazy, so that T uses of one weight become few large products.

    Over the steps of a recurrent network this *is* the sum of back-propagation through time, sum_t h_tᵀ δ_t = Hᵀ Δ.
    """

    __slots__ = ("x", "g")
    shape = None

    def __init__(self, x: Array, g: Array) -> None:
        self.x, self.g = x, g


# --- messages ---------------------------------------------------------------------------------------------------------


def _freed(node: Node, seen: Iterable[Node]) -> str:
    """The message for a graph that an earlier backward has freed, and the cure."""
    user = next((n for n in seen if n.sources and node in n.sources), None)
    what = f"the output of {node.plan.name}, shape {node.shape}"
    through = (
        f", carried into this graph by {user.plan.name} (output {user.shape})," if user else ""
    )
    if isinstance(node.kept, str):
        return f"{what}{through} is half freed by a backward that failed in {node.kept}: compute the graph anew"
    if user is None:
        return (
            f"{what}, was differentiated before, and its graph was freed: compute it again, or pass retain_graph=True "
            f"to the first backward if you mean to go through one graph twice"
        )
    return (
        f"{what}{through} was freed by an earlier backward. If it is a state carried from one chunk to the next, carry "
        f"state.detach() (of each part, if it is a tuple); pass retain_graph=True to the first backward only if you "
        f"mean to go through one graph twice"
    )
