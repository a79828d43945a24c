"""The numbers in a graph: a node keeps of its forward what its rule asks for, and the rest follows from that.

What an op keeps is the value of a node, or of one of its operands. A value that nobody has kept is computed again from
the operands; a summand that nobody has kept is the rest of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.explain.names import UNKNOWN, operand_of
from tinygrad_rnn.tensor.backend import quiet, to_host
from tinygrad_rnn.tensor.graph import Node

Operand = tuple[Node, int]
AGAIN = {"add", "subtract", "multiply", "divide", "matmul", "linear", "linear_bias", "negative", "square", "sqrt"}
AGAIN |= {"exp", "log", "sin", "cos", "tanh", "sigmoid", "relu"}  # ops without options
UNDONE = {"sqrt": np.square, "exp": np.log}  # without a loss of digits, unlike tanh where it is nearly 1


class Values:
    """The values of nodes and of the constants among their operands, as far as they are known.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.Parameter(0.5)
    >>> difference = w * 3 - 1
    >>> y = tr.square(difference)
    >>> values = Values([w._node, *difference._node.sources[:1], difference._node, y._node], {w._node: 0.5})
    >>> float(values.operand(difference._node, 1))  # the 1, which nobody has kept
    1.0
    """

    def __init__(self, nodes: Sequence[Node], known: Mapping[Node, Any]) -> None:
        self._of: dict[Node, np.ndarray] = {node: np.asarray(to_host(v)) for node, v in known.items()}
        self._constants: dict[Operand, np.ndarray] = {}
        inner = [node for node in nodes if node.plan is not None and node.sources]
        for node in inner:
            self._take_what_is_kept(node)
        before = -1
        while before < (before := len(self._of) + len(self._constants)):
            for node in inner:
                self._again(node)
                self._rest_of_sum(node)
                if node.plan.name in UNDONE and node in self._of:
                    self._set(node, 0, UNDONE[node.plan.name](self._of[node]))

    def of(self, node: Node) -> np.ndarray | None:
        """The value of a node."""
        return self._of.get(node)

    def operand(self, node: Node, i: int) -> np.ndarray | None:
        """The value of an operand of a node."""
        source = (node.sources or ())[i]
        return self._constants.get((node, i)) if source is None else self._of.get(source)

    def _set(self, node: Node, i: int, value: Any) -> None:
        """Note the value of an operand, where it is not known yet."""
        assert node.sources is not None
        source = node.sources[i]
        if source is None:
            self._constants.setdefault((node, i), np.asarray(to_host(value)))
        else:
            self._of.setdefault(source, np.asarray(to_host(value)))

    def _take_what_is_kept(self, node: Node) -> None:
        for i in range(len(node.sources or ())):
            if (value := operand_of(node, i)) is not UNKNOWN and value is not None:
                self._set(node, i, value)
        names = getattr(node.plan, "names", ())
        if "y" in names:
            self._of.setdefault(node, np.asarray(to_host(node.kept[names.index("y")])))

    def _again(self, node: Node) -> None:
        """Compute a node again, if its operands are known and it has no options."""
        operands = [self.operand(node, i) for i in range(len(node.sources or ()))]
        if node not in self._of and node.plan.name in AGAIN and all(v is not None for v in operands):
            with quiet():
                self._of[node] = np.asarray(node.plan.op.forward(*operands))

    def _rest_of_sum(self, node: Node) -> None:
        """Find the one summand, or the numerator, that is not known."""
        if node.plan.name not in ("add", "subtract", "divide") or node not in self._of:
            return
        a, b = self.operand(node, 0), self.operand(node, 1)
        y, sign = self._of[node], 1 if node.plan.name == "add" else -1
        if node.plan.name == "divide":
            if a is None and b is not None:
                self._set_rest(node, 0, y * b)
        elif a is None and b is not None:
            self._set_rest(node, 0, y - sign * b)
        elif b is None and a is not None:
            self._set_rest(node, 1, sign * (y - a))

    def _set_rest(self, node: Node, i: int, rest: np.ndarray) -> None:
        """Note an operand: one number, where it is the same throughout. A node of another shape was spread."""
        assert node.sources is not None
        source = node.sources[i]
        if source is None:
            same = rest.size > 0 and bool((rest == rest.flat[0]).all())
            self._set(node, i, rest.flat[0] if same else rest)
        elif source.shape == rest.shape:
            self._set(node, i, rest)
