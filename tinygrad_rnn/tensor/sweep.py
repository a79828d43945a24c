"""The backward sweep: reverse-mode differentiation itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tinygrad_rnn.errors import GraphFreedError, NonFiniteError
from tinygrad_rnn.tensor.backend import (
    Array,
    dot,
    namespace,
    quiet,
    scatter_add,
    sum_to,
    zeros_beside,
)
from tinygrad_rnn.tensor.graph import Node, Part, Product, leading_to, newest_first
from tinygrad_rnn.tensor.mode import ANOMALY, grad_mode, replayed

PRODUCT_ROWS = 1024  # pairs of a Product become one matrix product at this many rows: enough for speed, small in memory

_write_lock = threading.Lock()


def sweep(
    roots: Sequence[Node],
    seeds: Sequence[Any],
    gradients: Gradients,
    *,
    inputs: Iterable[Node] | None = None,
    floor: int = 0,
    retain: bool = False,
) -> dict[Node, Any]:
    """Pull `seeds`, the gradients of `roots`, back through the graph; return those of the nodes somebody watches.

    Why newest first? `b = a + a; c = b + b + b; d = b + c`: the derivative of `d` by `a` is 2 + 6 = 8. If `b` went
    before the newer `c`, it would hand on what `d` gave it before `c` has reported, and `a` would get 2. A node may
    hand on its gradient only when all of its uses, which are newer than it, have added theirs. Serial numbers grow, so
    sorting by them is all that this takes.

    - `inputs`: only these nodes are wanted; whatever does not lead to them is left alone.
    - `floor`: nodes older than this serial are not pulled, freed or written; their gradients are returned.
    - `retain`: keep what the graph holds, for another sweep through it.
    """
    wanted: frozenset[Node] = frozenset(inputs or ())
    order = newest_first(roots, floor, wanted)
    ends: set[Node] = set()
    add: Callable[[Node, Any], None] = gradients.add
    if inputs is not None:
        order, ends = leading_to(wanted, order)
        add = gradients.limited_to(order)
    results: dict[Node, Any] = {}
    dense, lazy, pull = gradients.dense, gradients.lazy, gradients.pull
    for root, seed in zip(roots, seeds, strict=True):
        gradients.add(root, seed)
    try:
        with quiet():
            for node in order:
                g = dense.pop(node, None)
                if node in lazy:
                    g = gradients.settle(node, g)
                if g is None:
                    continue
                if node.serial < floor:
                    results[node] = g
                    continue
                if node.watch is not None:
                    g = gradients.hooked(node, g)
                    if node.watch.keeps:
                        results[node] = g
                if node in wanted:
                    results[node] = g
                if node.sources and node not in ends:
                    pulled = node.plan.pull(g, node.kept) if pull is None else pull(node, g)
                    for source, d in zip(node.sources, pulled):  # noqa: B905 (a hot line; the plan has counted)
                        if source is not None and d is not None:
                            add(source, d)
                    if not retain:
                        node.sources = node.kept = None
    except Exception as error:
        if not isinstance(error, GraphFreedError):
            error.add_note(_where(node))
        for freed in order[: order.index(node)]:
            if freed.sources is None:
                freed.kept = (
                    node.plan.name if node.plan else "a hook"
                )  # for the message of the next attempt
        raise
    return results


@replayed
def write_gradients(results: dict[Node, Array], gradients: Gradients) -> None:
    """Add the results of a sweep to `.grad` of the nodes that keep one: all of them, or none had the sweep failed."""
    with _write_lock:
        for node, g in results.items():
            watch = node.watch
            if watch is not None and watch.keeps:
                if watch.grad is not None:
                    watch.grad = namespace(g).asarray(watch.grad + g)
                else:  # a buffer that accumulation allocated is adopted; anything else may be somebody's, so copied
                    watch.grad = (
                        g if node in gradients.owned else namespace(g).asarray(g, copy=True)
                    )


class Pairs:
    """The products that a node has collected: their factors, and how many rows they have together."""

    __slots__ = ("xs", "gs", "rows")

    def __init__(self) -> None:
        self.xs: list[Any] = []
        self.gs: list[Any] = []
        self.rows = 0


class Gradients:
    """The gradients of one sweep: sums of what every use pulled back. The only place of the engine that mutates.

    A sum borrows its first contribution, allocates at the second and adds in place from then on, so no array that
    somebody else may hold is ever written. `owned` are the nodes whose sum is a buffer of ours.
    """

    def __init__(self) -> None:
        self.dense: dict[Node, Array] = {}
        self.owned: set[Node] = set()
        self.lazy: set[Node] = set()  # the nodes with parts or pairs
        self.parts: dict[Node, Array] = {}
        self.pairs: dict[Node, Pairs] = {}
        self.checks = grad_mode.get() == ANOMALY

    @property
    def pull(self) -> Callable[[Node, Any], Sequence[Any]] | None:
        """How a node pulls, where it is not just `node.plan.pull(g, node.kept)`. Not stored: that would be a cycle."""
        return self.pull_checked if self.checks else None

    def add(self, node: Node, d: Any) -> None:
        """Add one contribution. The one gate: summed to the node's shape, cast to its dtype."""
        if d.shape != node.shape:
            if d.shape is None:
                return self.add_lazy(node, d)
            d = sum_to(d, node.shape)
        if d.dtype is not node.dtype and d.dtype != node.dtype:
            d = namespace(d).astype(namespace(d).asarray(d), node.dtype)
        held = self.dense.get(node)
        if held is None:
            self.dense[node] = d
        elif node in self.owned:
            held += d
        else:
            self.dense[node] = held = held + d
            if held.ndim:  # a 0-d sum may be an immutable scalar
                self.owned.add(node)
        return None

    def limited_to(self, nodes: Iterable[Node]) -> Callable[[Node, Any], None]:
        """`add` for these nodes only: what goes elsewhere is wanted by nobody."""
        visited = frozenset(nodes)
        return lambda node, d: self.add(node, d) if node in visited else None

    def add_lazy(self, node: Node, d: Any) -> None:
        """Add a part to the node's one buffer of parts, or a product to the pairs that wait to become one."""
        self.lazy.add(node)
        if type(d) is Part:
            buffer = self.parts.get(node)
            if buffer is None:
                self.parts[node] = buffer = zeros_beside(d.g, node.shape, node.dtype)
            if (
                d.basic and (place := buffer[d.index]).ndim
            ):  # `buffer[...] += g` would copy the sum back
                place += d.g
            else:
                self.parts[node] = scatter_add(buffer, d.index, d.g)
        else:
            pairs = self.pairs.get(node)
            if pairs is None:
                self.pairs[node] = pairs = Pairs()
            pairs.xs.append(d.x)
            pairs.gs.append(d.g)
            pairs.rows += d.x.shape[0]
            if pairs.rows >= PRODUCT_ROWS:
                self.flush(node)

    def flush(self, node: Node) -> None:
        """Turn the pairs that a node has collected into one matrix product."""
        pairs = self.pairs.pop(node)
        xp = namespace(pairs.xs[0])
        x, g = (
            arrays[0] if len(arrays) == 1 else xp.concat(arrays[::-1])
            for arrays in (pairs.xs, pairs.gs)
        )
        fresh = node not in self.dense
        self.add(node, dot(x.mT, g))
        if fresh:
            self.owned.add(node)

    def settle(self, node: Node, g: Any) -> Any:
        """`g`, the dense sum of a node so far, with its lazy contributions."""
        if g is not None:
            self.dense[node] = g
        if node in self.pairs:
            self.flush(node)
        g = self.dense.pop(node, None)
        if node in self.parts:
            part = self.parts.pop(node)
            if g is not None:
                part += g
            g = part
            self.owned.add(node)
        return g

    def pull_checked(self, node: Node, g: Any) -> Sequence[Any]:
        """What a node pulls back to its sources, and an error for a NaN born in it."""
        contributions: Sequence[Any] = node.plan.pull(g, node.kept)
        check_finite(node, g, contributions)
        return contributions

    def hooked(self, node: Node, g: Any) -> Any:
        """`g` after the node's hooks, each of which may replace it."""
        assert node.watch is not None
        for hook in node.watch.hooks:
            self.owned.discard(node)  # the hook has seen it, and may have kept it
            replaced = hook(g)
            g = g if replaced is None else replaced
        return g


# --- messages ---------------------------------------------------------------------------------------------------------


def check_finite(node: Node, g: Array, contributions: Sequence[Any]) -> None:
    """Raise `NonFiniteError` if the op of `node` made a NaN of a gradient without one."""
    xp = namespace(g)
    if xp.any(xp.isnan(g)):
        return
    for d in contributions:
        for array in (d.g,) if type(d) is Part else (d.x, d.g) if type(d) is Product else (d,):
            if array is not None and xp.any(xp.isnan(array)):
                raise NonFiniteError(
                    f"the derivative of {node.plan.name} made a NaN of a gradient that had none"
                )


def _where(node: Node) -> str:
    """A note for an exception that a derivative raised."""
    if node.plan is None:
        return f"in a hook of a leaf of shape {node.shape}"
    shapes = ", ".join("constant" if s is None else str(s.shape) for s in node.sources or ())
    born = node.watch.born if node.watch is not None else ""
    return f"in the backward of {node.plan.name} (inputs {shapes}; output {node.shape})" + (
        f", called at {born}"
        if born
        else "; run forward and backward inside tr.detect_anomaly() to see the line"
    )
