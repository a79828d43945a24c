"""The backward sweep: reverse-mode differentiation itself."""

from __future__ import annotations

import operator
from _thread import allocate_lock  # `threading` takes as long to import as a module of ours
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tinygrad_rnn.errors import GraphFreedError, NonFiniteError, OutOfMemoryError
from tinygrad_rnn.memory import out_of_memory, ran_out
from tinygrad_rnn.tensor.backend import (
    Array,
    concat,
    dot,
    is_half,
    namespace,
    quiet,
    sum_to,
    widened,
)
from tinygrad_rnn.tensor.graph import (
    Node,
    Part,
    Product,
    Shortcut,
    leading_to,
    looked_at,
    newest_first,
    not_older,
)
from tinygrad_rnn.tensor.mode import ANOMALY, grad_mode, replayed
from tinygrad_rnn.tensor.parts import Parts

PRODUCT_ROWS = 1024  # enough rows for one matrix product to be fast; more would only keep memory

_write_lock = allocate_lock()


def sweep(
    roots: Sequence[Node],
    seeds: Sequence[Any],
    gradients: Gradients,
    *,
    inputs: Iterable[Node] | None = None,
    floor: int = 0,
    retain: bool = False,
) -> dict[Node, Any]:
    """Pull `seeds`, the gradients of `roots`, back through the graph.

    Why newest first? `b = a + a; c = b + b + b; d = b + c`: the derivative of `d` by `a` is
    2 + 6 = 8. If `b` went before the newer `c`, it would hand on what `d` gave it before `c` has
    reported, and `a` would get 2. A node may hand on its gradient only when all of its uses, which
    are newer than it, have added theirs. Serial numbers grow, so sorting by them is all it takes.

    Returns the gradients of the nodes that keep theirs, as every leaf does; beside them those of

    - `inputs`: if they are given, what does not lead to them is left alone;
    - the nodes below `floor`, a serial number: they are not pulled, freed or written to.

    With `retain` the graph stays whole, for another sweep through it. Else what is pulled is freed,
    and all of it where memory runs out: a smaller step may be next.
    """
    gradients.wanted = wanted = frozenset(inputs or ())
    order = newest_first(roots, floor, wanted)
    ends: set[Node] = set()
    if inputs is not None:
        order, ends = leading_to(wanted, order)
        gradients.limit_to(order)
    results: dict[Node, Any] = {}
    gradients.add(roots, seeds)
    pulled = not_older(order, floor)
    try:
        with quiet(), blaming(pulled) as nodes:
            for node in nodes:
                g = gradients.complete(node)
                if g is None:  # no gradient has come this way
                    continue
                if node in wanted or (node.watch is not None and node.watch.keeps):
                    results[node] = g
                if node.sources and node not in ends:
                    gradients.add(node.sources, gradients.pull(node, g))
                    if not retain:
                        node.sources = node.kept = None  # freed
    except OutOfMemoryError:  # whoever catches it has the frames, and with them the graph
        gradients.forget()
        if not retain:
            free(pulled, ends)
        raise
    return results | gradients.left_over()


@contextmanager
def blaming(order: Sequence[Node]) -> Iterator[Iterator[Node]]:
    """The nodes of `order`, to go through inside; an error is blamed on the one that it was at.

    What had been freed by then remembers who failed, for the message of the next attempt.
    """
    nodes = iter(order)
    try:
        yield nodes
    except Exception as error:
        at = len(order) - operator.length_hint(nodes) - 1  # how many were done before
        failed = order[at]
        for node in order[:at]:
            if node.sources is None:
                node.kept = failed.plan.name if failed.plan else "a hook"
        if ran_out(error) and not isinstance(error, OutOfMemoryError):
            raise out_of_memory(error, _what(failed)) from None
        if not isinstance(error, GraphFreedError):
            error.add_note(_where(failed))
        raise


def free(order: Sequence[Node], ends: set[Node]) -> None:
    """Free what a sweep that ran out of memory has not come to."""
    for node in order:
        if node.sources and node not in ends:
            node.sources, node.kept = None, "an op, for want of memory"


@replayed(changes="gradients")
def write_gradients(results: dict[Node, Array], gradients: Gradients) -> None:
    """Add the results of a sweep to `.grad` of the nodes that keep one.

    All of them are written, or none, if the sweep has failed or memory runs out. A sum that
    accumulation allocated is adopted; any other array may be somebody's, and is copied.
    """
    with _write_lock:
        written = []
        for node, g in results.items():
            watch = node.watch
            if watch is None or not watch.keeps:
                continue
            if watch.grad is not None:
                written.append((watch, namespace(g).asarray(watch.grad + g)))
            else:
                written.append((watch, gradients.own(node, g)))
        for watch, total in written:
            watch.grad = total


class Gradients:
    """The gradients of one sweep: for each node the sum of what its uses pulled back.

    Only here does the engine write into an array. A sum borrows its first contribution, allocates
    at the second and adds in place from then on, so no array that somebody else may hold is ever
    written. `owned` are the nodes whose sum is a buffer of ours. Sums of float16 are float32 until
    their node has its turn.
    """

    def __init__(self) -> None:
        self.dense: dict[Node, Any] = {}
        self.owned: set[Node] = set()
        self.lazy: set[Node] = set()  # the nodes with parts or pairs
        self.parts: dict[Node, Parts] = {}
        self.pairs: dict[Node, Pairs] = {}
        self.shortcuts: dict[Node, list[Shortcut]] = {}
        self.wanted: frozenset[Node] | None = None  # whose gradients are asked for; None: of all
        self.limit: frozenset[Node] | None = None
        self.checks = grad_mode.get() == ANOMALY

    def forget(self) -> None:
        """Let go of all that has come."""
        for held in (self.dense, self.parts, self.pairs, self.shortcuts):
            held.clear()

    def limit_to(self, nodes: Iterable[Node]) -> None:
        """Take contributions to these nodes only: what goes elsewhere is wanted by nobody."""
        self.limit = frozenset(nodes)

    def add(self, nodes: Sequence[Node | None], contributions: Sequence[Any]) -> None:
        """Add to each node's gradient its contribution; None stands for a constant, or for none.

        The one inlet: an array is summed to the shape of its node and cast to its dtype, and what
        is lazy goes to `add_lazy`, in whose buffers and products it gets both.
        """
        for node, d in zip(nodes, contributions):  # noqa: B905 (hot, and the plan has counted)
            if node is None or d is None or (self.limit is not None and node not in self.limit):
                continue
            if d.shape != node.shape:
                if d.shape is None:
                    self.add_lazy(node, d)
                    continue
                d = sum_to(d, node.shape)
            if d.dtype is not node.dtype and d.dtype != node.dtype:
                d = namespace(d).astype(namespace(d).asarray(d), node.dtype)
            if node not in self.dense:
                self.dense[node] = d
            elif node in self.owned:
                held = self.dense[node]
                held += d
            else:
                self.dense[node] = total = widened(self.dense[node]) + d
                if total.ndim:  # a 0-d sum may be an immutable scalar
                    self.owned.add(node)

    def add_lazy(self, node: Node, d: Part | Product | Shortcut) -> None:
        """Add a part to the node's one buffer of parts, or a product to its pairs."""
        self.lazy.add(node)
        if isinstance(d, Part):
            parts = self.parts.get(node)
            if parts is None:
                self.parts[node] = parts = Parts(node)
            parts.add(d)
            return
        if isinstance(d, Shortcut):
            self.shortcuts.setdefault(node, []).append(d)
            return
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
        x, g = (
            arrays[0] if len(arrays) == 1 else concat(arrays[::-1])
            for arrays in (pairs.xs, pairs.gs)
        )
        fresh = node not in self.dense
        self.add((node,), (dot(x.mT, g),))
        if fresh and not is_half(self.dense[node]):  # what comes next makes it float32
            self.owned.add(node)

    def settle(self, node: Node) -> None:
        """Make the lazy contributions to a node a part of its dense sum."""
        for shortcut in self.shortcuts.pop(node, ()):
            self.add((node,), (shortcut.array(),))
        if node in self.pairs:
            self.flush(node)
        if node in self.parts:
            part = self.parts.pop(node).joined()
            if node in self.dense:
                part += self.dense[node]
            self.dense[node] = part
            self.owned.add(node)

    def complete(self, node: Node) -> Any:
        """The gradient of a node, now that its uses have reported; None if none of them did.

        A lazy sum becomes an array, and the node's hooks have seen and perhaps replaced it. Where
        shortcuts alone have come to a node at which nobody looks, they are what is returned.
        """
        if node in self.lazy:
            if self.is_passed_by(node):
                return self.shortcuts.pop(node)
            self.settle(node)
        g = self.dense.pop(node, None)
        if g is not None and g.dtype is not node.dtype:
            g = self.narrowed(g, node.dtype)
        if g is not None and node.watch is not None:
            g = self.hooked(node, g)
        return g

    def is_passed_by(self, node: Node) -> bool:
        """Whether nobody looks at the gradient of a node, and all that has come goes past it."""
        if self.wanted is None or node in self.wanted or node.watch is not None:
            return False
        others = (self.dense, self.parts, self.pairs)
        return node in self.shortcuts and not any(node in found for found in others)

    def left_over(self) -> dict[Node, Any]:
        """What has come to nodes that were not visited: those below the floor."""
        with quiet():
            for node in self.lazy:
                self.settle(node)
        return {node: self.narrowed(g, node.dtype) for node, g in self.dense.items()}

    def pull(self, node: Node, g: Any) -> Sequence[Any]:
        """What a node pulls back to its sources."""
        if type(g) is list:  # of shortcuts
            assert node.sources is not None
            self.add((node.sources[0],) * len(g), [d.past(node) for d in g])
            return ()
        pulled: Sequence[Any] = node.plan.pull(g, node.kept)
        if self.checks:
            check_finite(node, g, pulled)
        return pulled

    def hooked(self, node: Node, g: Any) -> Any:
        """`g` after the node's hooks, each of which may replace it."""
        assert node.watch is not None
        for hook in tuple(node.watch.hooks):  # a hook may add hooks, or remove itself
            self.owned.discard(node)  # the hook has seen it, and may have kept it
            replaced = hook(g)
            g = g if replaced is None else replaced
        return g

    def narrowed(self, g: Any, dtype: Any) -> Any:
        """A sum in the dtype of its node: that of float16 is float32 until then."""
        return g if g.dtype == dtype else namespace(g).astype(namespace(g).asarray(g), dtype)

    def own(self, node: Node, g: Array) -> Array:
        """`g`, the gradient of a node, as an array that nobody else holds."""
        return g if node in self.owned else namespace(g).asarray(g, copy=True)


class Pairs:
    """The products that a node has collected: their factors, and how many rows they have."""

    __slots__ = ("xs", "gs", "rows")

    def __init__(self) -> None:
        self.xs: list[Any] = []
        self.gs: list[Any] = []
        self.rows = 0


# --- messages -------------------------------------------------------------------------------------


def check_finite(node: Node, g: Array, contributions: Sequence[Any]) -> None:
    """Raise `NonFiniteError` if the op of `node` made a NaN of a gradient without one."""
    xp = namespace(g)
    if xp.any(xp.isnan(g)):
        return
    for d in looked_at(contributions):
        arrays: tuple[Any, ...] = (d,)
        if isinstance(d, Part):
            arrays = (d.g,)
        elif isinstance(d, Product):
            arrays = (d.x, d.g)
        if any(array is not None and xp.any(xp.isnan(array)) for array in arrays):
            raise NonFiniteError(
                f"the derivative of {node.plan.name} made a NaN of a gradient that had none"
            )


def _what(node: Node) -> str:
    """What a sweep does at a node, in words."""
    if node.plan is None:
        return f"a hook of a leaf of shape {node.shape}"
    shapes = ", ".join("constant" if s is None else str(s.shape) for s in node.sources or ())
    return f"the backward of {node.plan.name} (inputs {shapes}; output {node.shape})"


def _where(node: Node) -> str:
    """A note for an exception that a derivative raised."""
    what = f"in {_what(node)}"
    if node.plan is None:
        return what
    if node.watch is not None and node.watch.born:
        return f"{what}, called at {node.watch.born}"
    return f"{what}; run forward and backward inside tr.detect_anomaly() to see the line"
