"""The gradient of a weight taken apart: one sweep for all losses, which adds up nothing that the ledger tells apart.

Every path from the weight to a loss begins with a use. Walking back along it, the last step that it comes through is
the first that the weight's value enters: from there on what flows to the weight carries that step's number. Between
the steps and the weight lie nodes of no step, a projection of all steps at once or the sum of two biases; what flows
there is kept apart for each loss and step, and everywhere else for each loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.explain.together import pull_together
from tinygrad_rnn.explain.watch import place_of
from tinygrad_rnn.tensor.backend import dot, quiet, scatter_add, sum_to, to_host, zeros_beside
from tinygrad_rnn.tensor.graph import Node, Part, Product, leading_to, newest_first
from tinygrad_rnn.tensor.sweep import Gradients, blaming

Key: TypeAlias = "tuple[int, int | None]"  # which loss, and which step the weight was used at
StepOf: TypeAlias = Callable[[Node], "int | None"]


MANY = 4  # sources: what joins so many, the states of all steps say, gives most of them a gradient of zeros


def _is_zero(d: Any) -> bool:
    """Whether a contribution is 0 throughout: it need not be pulled any further."""
    return not (d.g if isinstance(d, Part) else d.x if isinstance(d, Product) else d).any()


class Term:
    """One entry: what came to the weight, as the factors of its products, and the rest added up."""

    __slots__ = ("shape", "xs", "gs", "rest")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.xs: list[Any] = []
        self.gs: list[Any] = []
        self.rest: Any = None

    def add(self, d: Any) -> None:
        """Add what a rule has pulled back: a product as its factors, where those are smaller than it is."""
        if isinstance(d, Product) and d.x.shape[0] * sum(self.shape) < 2 * d.x.shape[1] * d.g.shape[1]:
            self.xs.append(_double(d.x))
            self.gs.append(_double(d.g))
            return
        if isinstance(d, Product):
            d = dot(_double(d.x).T, _double(d.g))
        elif isinstance(d, Part):
            g = _double(d.g)
            d = scatter_add(zeros_beside(g, self.shape, g.dtype), d.index, g)
        else:
            d = sum_to(_double(d), self.shape)
        self.rest = d if self.rest is None else self.rest + d

    def take(self, other: Term) -> None:
        """Add another entry."""
        self.xs += other.xs
        self.gs += other.gs
        if other.rest is not None:
            self.rest = other.rest if self.rest is None else self.rest + other.rest

    def dense(self) -> Any:
        """The entry as an array of the weight's shape."""
        if self.rest is None and len(self.xs) == 1:
            return self.xs[0].T @ self.gs[0]
        total = np.zeros(self.shape) if self.rest is None else self.rest
        return total + np.concatenate(self.xs).T @ np.concatenate(self.gs) if self.xs else total

    def norm(self) -> float:
        """The entry's norm. That of xᵀ g is had from the small matrices x xᵀ and g gᵀ: |xᵀ g|² = sum (x xᵀ) (g gᵀ)."""
        if self.rest is None and len(self.xs) == 1:
            x, g = self.xs[0], self.gs[0]
            if len(x) == 1:
                return float(np.sqrt(np.dot(x[0], x[0]) * np.dot(g[0], g[0])))
            if len(x) * 2 <= min(self.shape):
                return float(np.sqrt(max(float(np.sum((x @ x.T) * (g @ g.T))), 0.0)))
        return float(np.linalg.norm(self.dense()))


def _double(x: Any) -> Any:
    return np.asarray(to_host(x), np.float64)


def terms(losses: Sequence[Node | None], weight: Node, step_of: StepOf) -> dict[Key, Term]:
    """Every entry that is not 0 by construction: for each loss and step the sum over their paths to `weight`.

    `step_of` tells the step of a node, None for one of no step.
    """
    roots = [node for node in losses if node is not None]
    order, _ = leading_to([weight], newest_first(roots, inputs=[weight]))
    below = _of_no_step(order, weight, step_of)
    flow = _Flow(weight, order)
    for t, root in enumerate(losses):
        if root is not None:
            flow.add((t, None), [root], [_one(root)])
    with quiet(), blaming(order) as nodes:
        for node in nodes:
            if node is weight:
                continue
            step = step_of(node)
            for (t, k), pulled in flow.pulled(node):
                key = (t, k) if node in below else (t, step)
                flow.add_apart(key, node.sources or (), pulled, below)
    return flow.found


def _of_no_step(order: Sequence[Node], weight: Node, step_of: StepOf) -> set[Node]:
    """The nodes between a weight and the steps: computed from it by nodes of no step alone, and itself."""
    below = {weight}
    for node in reversed(order):  # the oldest first
        if node is not weight and step_of(node) is None and not below.isdisjoint(node.sources or ()):
            below.add(node)
    return below


def _one(node: Node) -> Any:
    """1, the gradient of a scalar by itself."""
    return np.ones(node.shape, node.dtype)


class _Flow:
    """The gradients on their way down: sums of the engine's for each key, and what has come to the weight."""

    def __init__(self, weight: Node, order: Iterable[Node]) -> None:
        self.weight = weight
        self.useful = frozenset(order)
        self.sums: dict[Key, Gradients] = {}
        self.come: defaultdict[Node, dict[Key, None]] = defaultdict(dict)  # to which nodes something has come, in order
        self.found: dict[Key, Term] = {}

    def add(self, key: Key, nodes: Sequence[Node | None], pulled: Sequence[Any]) -> None:
        """Add to the sums of one key."""
        sums = self.sums.get(key)
        if sums is None:
            self.sums[key] = sums = Gradients()
            sums.limit = self.useful
        sums.add(nodes, pulled)
        for node, d in zip(nodes, pulled, strict=True):
            if node is not None and d is not None and node in self.useful:
                self.come[node][key] = None

    def add_apart(self, key: Key, nodes: Sequence[Node | None], pulled: Sequence[Any], below: set[Node]) -> None:
        """Add what a node has pulled back: the key's step is kept below the steps, and for the weight alone."""
        many = len(nodes) > MANY
        for node, d in zip(nodes, pulled, strict=True):
            if node is None or d is None or node not in self.useful or (many and _is_zero(d)):
                continue
            if node is self.weight:
                if key not in self.found:
                    self.found[key] = Term(self.weight.shape)
                self.found[key].add(d)
            else:
                self.add(key if node in below else (key[0], None), (node,), (d,))

    def pulled(self, node: Node) -> Iterable[tuple[Key, Sequence[Any]]]:
        """What a node pulls back for each key that has come to it."""
        keys = list(self.come.pop(node, ()))
        gs = [self.sums[key].complete(node) for key in keys]
        return zip(keys, pull_together(node, gs), strict=True)


def uses_of(order: Iterable[Node], weight: Node) -> dict[Node, int]:
    """The nodes that a weight enters, numbered in the order in which they were made."""
    using = [node for node in order if weight in (node.sources or ())]
    return {node: k for k, node in enumerate(sorted(using, key=lambda node: node.serial))}


def steps_of(losses: Sequence[Node | None], weight: Node) -> tuple[StepOf, str]:
    """What numbers the columns: the steps that a watch has seen; where it saw none, the uses of the weight.

    Returns the function, and "step" or "use".
    """
    order, _ = leading_to([weight], newest_first([n for n in losses if n is not None], inputs=[weight]))
    steps: dict[Node, int] = {}
    for node in order:
        if node is not weight and (place := place_of(node)) is not None and place.step is not None:
            steps[node] = place.step
    if steps:
        return steps.get, "step"
    return uses_of(order, weight).get, "use"
