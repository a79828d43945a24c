"""What to call a value: the name of a parameter in its module, or of a variable that the user has passed.

A node knows no tensor, and a constant has no node. So a leaf is known by the module that a watch has met, and a
constant by its array, where a rule has kept it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinygrad_rnn.explain.watch import leaf_name, modules_met
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.graph import Node
from tinygrad_rnn.tensor.tensor import Tensor

UNKNOWN = object()  # a constant whose value no rule has kept


class Names:
    """Names of nodes and of arrays.

    `given` are names of tensors, of arrays, of modules, and of lists of tensors, as `locals()` has them; those that
    begin with an underscore are left out. A tensor in a list `h` is `h[0]`. What has no name there may be a parameter
    of a module that one of the last watches has met.

    >>> import tinygrad_rnn as tr
    >>> from tinygrad_rnn.explain.names import Names
    >>> w, lstm = tr.nn.Parameter([1.0]), tr.nn.LSTM(2, 3)
    >>> names = Names({"w": w, "lstm": lstm})
    >>> names.of(w._node), names.of(lstm.bias_hh_l0._node)
    ('w', 'lstm.bias_hh_l0')
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.nodes: dict[Node, str] = {}
        self.parameters: set[Node] = set()
        self._arrays: list[tuple[str, Any]] = []
        for name, value in (given or {}).items():
            if not name.startswith("_"):
                self._add(name, value)
        for name, value in (given or {}).items():  # after the plain variables, whose names are shorter
            if isinstance(value, list | tuple) and not name.startswith("_"):
                for i, part in enumerate(value):
                    self._add(f"{name}[{i}]", part)
        for prefix, module in modules_met():
            self._add_module(prefix, module)

    def of(self, node: Node | None) -> str:
        """The name of what a node gives; "" where it has none."""
        if node is None:
            return ""
        return self.nodes.get(node) or (leaf_name(node) if node.plan is None else "")

    def of_array(self, array: Any) -> str:
        """The name of the array of a constant, or of what it is a part of, "x[2]" or "x[...]"; "" if it has none."""
        found = ""
        for name, known in self._arrays:
            if array is not known and hasattr(array, "base") and root_of(array) is root_of(known):
                row = _row(array, known)
                if row.isdecimal():
                    return f"{name}[{row}]"  # says more than the name of a loop's variable
                found = found or f"{name}[...]"
        return next((name for name, known in self._arrays if array is known), found)

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, Module):
            self._add_module(name, value)
        elif isinstance(value, Tensor):
            if value._node is None:
                self._arrays.append((name, value._array))
            else:
                self.nodes.setdefault(value._node, name)
        elif hasattr(value, "dtype") and hasattr(value, "shape"):
            self._arrays.append((name, value))

    def _add_module(self, prefix: str, module: Module) -> None:
        for name, tensor in module._names():
            if tensor._node is None:
                self._arrays.append((f"{prefix}.{name}" if prefix else name, tensor._array))
            else:
                self.nodes.setdefault(tensor._node, f"{prefix}.{name}" if prefix else name)
                self.parameters.add(tensor._node)


def _row(array: Any, of: Any) -> str:
    """Which row of an array another is; "..." where it is something else, or where the library does not tell."""
    try:
        start = array.__array_interface__["data"][0] - of.__array_interface__["data"][0]
    except AttributeError:
        return "..."
    if array.shape != of.shape[1:] or array.strides != of.strides[1:] or not of.strides[0] or start % of.strides[0]:
        return "..."
    return str(start // of.strides[0])


def root_of(array: Any) -> Any:
    """The array that owns the memory of another: what a view is a view of."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "shape"):
        array = array.base
    return array


def node_of(function: str, tensor: Any) -> Node:
    """The node of the tensor that a function is called with; a `TypeError` or `ValueError` where there is none."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}: it takes a Tensor, such as a loss before .item(), not {type(tensor).__name__}")
    if tensor._node is None:
        raise ValueError(
            f"{function}: the tensor was computed from nothing that requires a gradient, or under no_grad: "
            f"it has no graph"
        )
    return tensor._node


def constants_of(node: Node) -> Iterator[tuple[int, Any]]:
    """The constants among the operands of a node: which operand, and its value, `UNKNOWN` where no rule has kept it.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.Parameter([1.0])
    >>> [list(constants_of((w * 3.0)._node)), len(list(constants_of((w + 3.0)._node)))]
    [[(1, 3.0)], 1]
    """
    for i, source in enumerate(node.sources or ()):
        if source is None and (value := operand_of(node, i)) is not None:
            yield i, value


def operand_of(node: Node, i: int) -> Any:
    """The value of operand `i` of a node, as it is kept for the backward; `UNKNOWN` where it is not."""
    plan, kept = node.plan, node.kept
    op = getattr(plan, "op", None)
    if op is None or kept is None:
        return UNKNOWN
    if hasattr(op, "vjp"):  # a fused op keeps its output, all its operands, and the options
        return kept[1][i]
    name = op.arrays[0] if op.variadic else op.arrays[i]
    if name not in plan.names:
        return UNKNOWN
    value = kept[plan.names.index(name)]
    return value[i] if op.variadic else value


def operand_name(node: Node, i: int) -> str:
    """What an op calls its operand `i`, where that says something: "targets", not "a"."""
    op = getattr(node.plan, "op", None)
    name = "" if op is None or getattr(op, "variadic", False) else str(op.arrays[i])
    return name if len(name) > 2 else ""
