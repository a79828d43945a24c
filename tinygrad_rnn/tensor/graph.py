"""The graph: what a tensor remembers of how it was made, and in which order to walk back.

A `Node` is what a tensor remembers: the op, the nodes of its inputs, and what the derivative asks
for. Nothing points from a node to a tensor, so a graph has no cycles and dies with its last
reference. (Only the plan of a checkpoint holds the function that it computes again.)

The chain rule then reads: the gradient of a node is the sum, over its uses, of what each use pulls
back to it. `sweep.py` computes exactly that, newest node first.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from tinygrad_rnn.errors import GraphFreedError
from tinygrad_rnn.tensor.backend import AnyArray, Array, DType

Sources: TypeAlias = "tuple[Node | None, ...]"


class Node:
    """One value of the computation.

    `sources` are the nodes of its inputs (None for a constant), `kept` is what the derivative asks
    for, and `plan` is the derivative of the op that made it: `plan.pull(g, kept)` gives a gradient
    for each source, and `plan.pull_recorded(node, g)` the same as Tensors. `op`, `fused` and
    `checkpoint` each make plans of their own. A leaf has no plan and no sources.

    A backward frees a node: `sources` and `kept` become None. In a graph that a failed backward has
    left half freed, `kept` is the name of the op that failed.
    """

    __slots__ = ("serial", "plan", "sources", "kept", "shape", "dtype", "watch")

    def __init__(
        self, plan: Any, sources: Sources, kept: Any, shape: tuple[int, ...], dtype: DType
    ) -> None:
        self.serial = next_serial()  # inputs are older than outputs: this orders the graph
        self.plan = plan
        self.sources: Sources | None = sources
        self.kept = kept
        self.shape = shape
        self.dtype = dtype
        self.watch: Watch | None = None


class Watch:
    """What somebody wants to know of a node's gradient.

    Every leaf has one and keeps its gradient; an inner node only on request.
    """

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


# --- the order of a sweep -------------------------------------------------------------------------


def newest_first(roots: Iterable[Node], floor: int = 0, inputs: Iterable[Node] = ()) -> list[Node]:
    """All that `roots` were computed from, newest first.

    Nodes older than `floor` are listed, but what they were computed from is not; nor is what the
    oldest of `inputs` was computed from, as nothing older leads to one. Raises `GraphFreedError` if
    it meets a freed node.
    """
    oldest = max(floor, min((node.serial + 1 for node in inputs), default=0))
    seen = set(roots)
    order = list(seen)
    for node in order:  # which grows meanwhile
        if node.serial >= oldest:
            if node.sources is None:
                raise GraphFreedError(_freed(node, seen))
            for source in node.sources:
                if source is not None and source not in seen:
                    seen.add(source)
                    order.append(source)
    order.sort(key=_serial, reverse=True)
    return order


def leading_to(inputs: Iterable[Node], order: Sequence[Node]) -> tuple[list[Node], set[Node]]:
    """The nodes of `order` that are among `inputs` or computed from them.

    Also those of the inputs that are computed from no other input: a sweep need not pull these.
    """
    useful = set(inputs)
    ends = set(inputs)
    for node in reversed(order):
        if node.sources and not useful.isdisjoint(node.sources):
            useful.add(node)
            ends.discard(node)
    return [node for node in order if node in useful], ends


def not_older(order: Sequence[Node], floor: int) -> Sequence[Node]:
    """The nodes of `order` whose serial is at least `floor`."""
    return [node for node in order if node.serial >= floor] if floor else order


# --- lazy contributions ---------------------------------------------------------------------------
# What a rule pulls back where an array would be wasteful; `Gradients.add_lazy` takes it.


class Part:
    """What indexing pulls back: `g` belongs at `index` of an array that is 0 elsewhere.

    It is lazy, so that T parts of one array cost O(T). A `basic` index, of integers and slices,
    addresses every entry at most once.
    """

    __slots__ = ("g", "index", "basic")
    shape = None  # like no array's: the inlet tells a lazy contribution by that

    def __init__(self, g: Array, index: Any, basic: bool = False) -> None:
        self.g, self.index, self.basic = g, index, basic


class Product:
    """What `x @ W` pulls back to a 2-D `W`: xᵀ g, not yet multiplied.

    It is lazy, so that T uses of one weight become few large products. Over the steps of a
    recurrent network this *is* the sum of back-propagation through time, sum_t h_{t-1}ᵀ δ_t = Hᵀ Δ.
    """

    __slots__ = ("x", "g")
    shape = None

    def __init__(self, x: Array, g: Array) -> None:
        self.x, self.g = x, g


class Shortcut:
    """What a use pulls back to a node that it knows a shorter way past, down to `origin`.

    It is lazy: `array()` is the gradient itself, for whoever looks at it. If nobody does, the first
    source of `origin` gets `beyond()`, which is what `array()` would come to there. The nodes on
    the way, of one source each, are passed by.
    """

    __slots__ = ("array", "beyond", "origin")
    shape = None

    def __init__(
        self, array: Callable[[], Array], beyond: Callable[[], Array], origin: Node
    ) -> None:
        self.array, self.beyond, self.origin = array, beyond, origin

    def past(self, node: Node) -> Any:
        """What comes to the first source of `node`, at which nobody looks."""
        if node is self.origin:
            return self.beyond()
        pull, kept = node.plan.pull, node.kept
        return Shortcut(lambda: pull(self.array(), kept)[0], self.beyond, self.origin)


def looked_at(pulled: Sequence[Any]) -> Sequence[Any]:
    """What a rule pulls back, for somebody who looks at it: nothing is passed by."""
    return [d.array() if isinstance(d, Shortcut) else d for d in pulled]


# --- messages -------------------------------------------------------------------------------------


def _freed(node: Node, seen: Iterable[Node]) -> str:
    """The message for a graph that an earlier backward has freed, and the cure."""
    user = next((n for n in seen if n.sources and node in n.sources), None)
    what = f"the output of {node.plan.name}, shape {node.shape}"
    through = ""
    if user is not None:
        through = f", carried into this graph by {user.plan.name} (output {user.shape}),"
    if isinstance(node.kept, str):
        return (
            f"{what}{through} is half freed by a backward that failed in {node.kept}: "
            f"compute the graph anew"
        )
    if user is None:
        return (
            f"{what}, was differentiated before, and its graph was freed: compute it again, or "
            f"pass retain_graph=True to the first backward if you mean to go through one graph "
            f"twice"
        )
    return (
        f"{what}{through} was freed by an earlier backward. If it is a state carried from one "
        f"chunk to the next, carry state.detach() (of each part, if it is a tuple); pass "
        f"retain_graph=True to the first backward only if you mean to go through one graph twice"
    )
