"""The chain rule of a small network with its numbers put in, for a lecture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_rnn.explain.fold import fold
from tinygrad_rnn.explain.formulas import BACKWARD, FORWARD, Formula, Latex, Text, call, leaf, one, partial
from tinygrad_rnn.explain.names import Names, node_of
from tinygrad_rnn.explain.trace import Trace
from tinygrad_rnn.explain.values import Values
from tinygrad_rnn.explain.watch import modules_met
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.graph import Node, newest_first
from tinygrad_rnn.tensor.tensor import Tensor

MOST_NODES, MOST_NUMBERS = 60, 4
MATRICES = ("matmul", "linear", "linear_bias")
SUMS = ("add", "subtract")
TERMS = ("multiply", "negative", "matmul", "linear", *SUMS)  # an op of these, if nobody named it, is a part of a sum


@dataclass(frozen=True)
class Line:
    """What `name` is, or the derivative of the loss by it: a formula, the values of its terms, the value of all."""

    name: str
    formula: Formula | None
    value: Any
    terms: tuple[Any, ...] = ()
    derivative: bool = False


class Worked:
    """What `worked` has found: `given`, `forward` and `backward` are lines; as text, Markdown or LaTeX."""

    def __init__(self, loss: str, given: list[Line], forward: list[Line], backward: list[Line], digits: int) -> None:
        self.loss, self.given, self.forward, self.backward, self.digits = loss, given, forward, backward, digits

    def __str__(self) -> str:
        """Text for a terminal."""
        style = Text(digits=self.digits), Text(numbers=True, digits=self.digits)
        parts = []
        for title, lines in self._parts():
            parts.append("\n".join([title, *(f"  {' = '.join(self._sides(line, *style))}" for line in lines)]))
        return "\n\n".join(parts)

    def markdown(self, path: str | Path | None = None) -> str:
        """Markdown with formulas between dollar signs, as notebooks and many sites show it; also written to `path`."""
        parts = [f"**{title}**\n\n$$\n{self._aligned('aligned', lines)}\n$$\n" for title, lines in self._parts()]
        return _written("\n".join(parts), path)

    def latex(self, path: str | Path | None = None) -> str:
        """LaTeX, to be put into a document that uses the package amsmath; also written to `path`."""
        parts = [f"\\paragraph{{{title}}}\n{self._aligned('align*', lines)}\n" for title, lines in self._parts()]
        return _written("\n".join(parts), path)

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def _parts(self) -> list[tuple[str, list[Line]]]:
        parts = [("Given", self.given), ("Forward", self.forward), ("Backward", self.backward)]
        return [(title, lines) for title, lines in parts if lines]

    def _sides(self, line: Line, names: Text, numbers: Text) -> list[str]:
        """What stands between the equals signs, without what would only be said again."""
        start = names.partial(self.loss, line.name) if line.derivative else names.named(line.name)
        sides = [start] if line.formula is None else [start, names.show(line.formula), numbers.show(line.formula)]
        if len(line.terms) > 1:
            sides.append(numbers.show(_added([leaf("", term) for term in line.terms])))
        return list(dict.fromkeys([*sides, numbers.number(line.value)]))

    def _aligned(self, environment: str, lines: Sequence[Line]) -> str:
        style = Latex(digits=self.digits), Latex(numbers=True, digits=self.digits)
        rows = []
        for line in lines:
            left, *sides = self._sides(line, *style)
            long = len(sides) > 1 and sum(map(len, sides)) > 120
            rows.append(f"{left} &= " + (" \\\\\n &= " if long else " = ").join(sides))
        return f"\\begin{{{environment}}}\n" + " \\\\\n".join(rows) + f"\n\\end{{{environment}}}"


def worked(loss: Tensor, names: Mapping[str, Any] | None = None, *, digits: int = 4) -> Worked:
    """The chain rule of a small network, `loss`, with its numbers put in: forward, then each derivative to the weights.

    `names` are the variables, such as `locals()`; what a loop computes under one name is numbered by its steps, and
    what has no name gets a letter. A weight that is used several times gets the sum over its uses.

    Raises `ValueError` for more than 60 nodes, for arrays of more than 4 numbers, for an op that the tables of this
    page lack (make a layer with `fused=False`), and where a value can be found neither in the graph nor in `names`.

    >>> import tinygrad_rnn as tr
    >>> w, x = tr.nn.Parameter(0.5), tr.Tensor(2.0)
    >>> h = tr.tanh(w * x)
    >>> L = tr.square(h - 0.5)
    >>> print(tr.explain.worked(L, locals()))
    Given
      w = 0.5
      x = 2
    <BLANKLINE>
    Forward
      z_1 = w · x = 0.5 · 2 = 1
      h = tanh(z_1) = tanh(1) = 0.7616
      z_2 = h - 0.5 = 0.7616 - 0.5 = 0.2616
      L = z_2² = 0.2616² = 0.06843
    <BLANKLINE>
    Backward
      ∂L/∂z_2 = 2 · z_2 = 2 · 0.2616 = 0.5232
      ∂L/∂h = ∂L/∂z_2 = 0.5232
      ∂L/∂z_1 = ∂L/∂h · (1 - h²) = 0.5232 · (1 - 0.7616²) = 0.2197
      ∂L/∂w = ∂L/∂z_1 · x = 0.2197 · 2 = 0.4395
    """
    nodes = newest_first([node_of("worked", loss)])[::-1]
    _check_size(nodes)
    return _Book(loss, nodes, names or {}).worked(digits)


def _check_size(nodes: Sequence[Node]) -> None:
    """Raise `ValueError` for a network of which no page of formulas can be read."""
    if len(nodes) > MOST_NODES:
        raise ValueError(f"worked: {len(nodes)} nodes are more than {MOST_NODES}, which fill a page: fewer steps?")
    for node in nodes:
        if node.plan is not None and node.plan.name not in FORWARD:
            raise ValueError(
                f"worked: it has no formula for {node.plan.name}; it knows {', '.join(sorted(FORWARD))} "
                f"(make a layer with fused=False, or write the step out)"
            )
    for node in nodes:
        if int(np.prod(node.shape)) > MOST_NUMBERS:
            what = "a leaf" if node.plan is None else f"the result of {node.plan.name}"
            raise ValueError(f"worked: {what} has shape {node.shape}, more than {MOST_NUMBERS} numbers")
        if node.plan is not None and node.plan.name in MATRICES and len(node.shape) != 2:
            raise ValueError(f"worked: {node.plan.name} gives shape {node.shape}: it has formulas for matrices alone")


class _Book:
    """Names, values, formulas and gradients of the nodes of one network."""

    def __init__(self, loss: Tensor, nodes: Sequence[Node], given: Mapping[str, Any]) -> None:
        self.nodes, self.root = nodes, loss._node
        self.inner = [node for node in nodes if node.plan is not None]
        self.names = Names(given)
        self.users: dict[Node, list[tuple[Node, int]]] = defaultdict(list)
        for node in self.inner:
            for i, source in enumerate(node.sources or ()):
                if source is not None:
                    self.users[source].append((node, i))
        self.values = Values(nodes, {loss._node: loss._array, **_values_of(given)} if loss._node else {})
        self.named = self._named(given)
        self.gradients: dict[int, Any] = {}
        for step in Trace(loss, None, None):
            self.gradients[step.at.number] = step.g
        self.number = {node: i for i, node in enumerate(nodes, 1)}

    def worked(self, digits: int) -> Worked:
        """All lines."""
        constants: dict[str, Line] = {}
        leaves = [node for node in self.nodes if node.plan is None]
        given = [Line(self.named[node], None, self._value(node)) for node in leaves]
        for node in self.inner:
            for i, source in enumerate(node.sources or ()):
                if source is None and (name := self._constant(node, i).name):
                    constants.setdefault(name, Line(name, None, self._constant(node, i).number))
        shown = [node for node in self.inner if node in self.named]
        forward = [Line(self.named[node], self._formula(node), self._value(node)) for node in shown]
        backward = [
            self._derivative(node)
            for node in [*shown[::-1], *leaves]
            if node is not self.root and self.number[node] in self.gradients
        ]
        root = self.named[self.root] if self.root else ""
        return Worked(root, given + list(constants.values()), forward, backward, digits)

    # --- names ------------------------------------------------------------------------------------

    def _named(self, given: Mapping[str, Any]) -> dict[Node, str]:
        """The names of leaves and of the nodes that are shown by themselves; the rest is a part of a sum."""
        named = {node: name for node in self.nodes if (name := self.names.of(node))}
        roles = _by_role(self.inner)
        for members in roles:  # what a loop computes under one name
            plain = [named[node] for node in members if node in named and not named[node].endswith("]")]
            if plain and len(members) > 1 and not any(node in named and named[node].endswith("]") for node in members):
                named |= {node: f"{plain[0]}[{t}]" for t, node in enumerate(members)}
        taken = {name.partition("[")[0].partition("_")[0] for name in [*named.values(), *given]}
        letters = iter([c for c in "zauvsqpmkrnd" if c not in taken] + [f"v{i}" for i in range(MOST_NODES)])
        if self.root not in named and self.root is not None:
            named[self.root] = "L" if "L" not in taken else next(letters)
        for node in self.nodes:
            if node.plan is None and node not in named:
                named[node] = f"{next(letters)}"
        wanted = [node for node in self.inner if node not in named and not self._is_part(node, named)]
        letter = next(letters) if wanted else ""
        for members in roles:
            if len(members) > 1 and all(node in wanted for node in members):
                named |= {node: f"{letter}[{t}]" for t, node in enumerate(members)}
                letter = next(letters)
        rest = [node for node in wanted if node not in named]
        return named | {node: f"{letter}[{i}]" if len(rest) > 1 else letter for i, node in enumerate(rest, 1)}

    def _is_part(self, node: Node, named: Mapping[Node, str]) -> bool:
        """Whether a node is shown as a part of the sum that uses it."""
        if node.plan.name not in TERMS or len(self.users[node]) != 1:
            return False
        user, _ = self.users[node][0]
        return user.plan.name in SUMS and user.shape == node.shape

    # --- formulas ---------------------------------------------------------------------------------

    def _value(self, node: Node) -> Any:
        value = self.values.of(node)
        if value is None:
            what = self.names.of(node) or ("a leaf" if node.plan is None else f"the result of {node.plan.name}")
            raise ValueError(f"worked: the graph has not kept the value of {what}: pass names=locals()")
        return value

    def _constant(self, node: Node, i: int) -> Formula:
        """The formula of a constant operand."""
        value = self.values.operand(node, i)
        if value is None:
            raise ValueError(
                f"worked: the graph has not kept a constant that {node.plan.name} takes: "
                f"make it a Tensor with requires_grad=True"
            )
        if value.size > MOST_NUMBERS:
            raise ValueError(f"worked: a constant has shape {value.shape}, more than {MOST_NUMBERS} numbers")
        return leaf(self.names.of_array(value), value)

    def _operand(self, node: Node, i: int) -> Formula:
        source = (node.sources or ())[i]
        if source is None:
            return self._constant(node, i)
        return leaf(self.named[source], self._value(source)) if source in self.named else self._formula(source)

    def _formula(self, node: Node) -> Formula:
        """What a node is, of named values."""
        return FORWARD[node.plan.name](*(self._operand(node, i) for i in range(len(node.sources or ()))))

    def _gradient(self, node: Node) -> Any:
        return self.gradients[self.number[node]]

    def _above(self, node: Node) -> Formula:
        """The derivative of the loss by a node: a name for it, or, of a part of a sum, that of the sum and its sign."""
        if node is self.root:
            return one(node.shape)
        if node in self.named:
            return partial(self.named[self.root] if self.root else "", self.named[node], self._gradient(node))
        user, i = self.users[node][0]
        g = self._above(user)
        return -g if user.plan.name == "subtract" and i == 1 else g

    def _derivative(self, node: Node) -> Line:
        """The derivative of the loss by a node: the sum over its uses."""
        terms = list(self._terms(node))
        total = _added(terms)
        precision = 100 * float(np.finfo(node.dtype).eps)
        if not np.allclose(total.value(), self._gradient(node), rtol=precision, atol=precision):
            raise ValueError(
                f"worked: the chain rule gives {total.value()} for {self.named[node]}, and the backward "
                f"{self._gradient(node)}: is there a hook on the way?"
            )
        values = tuple(np.reshape(term.value(), node.shape) for term in terms)
        return Line(self.named[node], total, self._gradient(node), values, True)

    def _terms(self, node: Node) -> Iterator[Formula]:
        for user, i in self.users[node]:
            if self.number[user] not in self.gradients:
                continue
            g, own = self._above(user), leaf(self.named.get(user, ""), self._value(user))
            operands = [self._operand(user, k) for k in range(len(user.sources or ()))]
            term = BACKWARD[user.plan.name][i](g, own, *operands)
            yield (
                call("Σ", term, leaf("", np.ones(node.shape))) if np.size(term.value()) > np.prod(node.shape) else term
            )


def _added(terms: Sequence[Formula]) -> Formula:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _by_role(inner: Sequence[Node]) -> list[list[Node]]:
    """The nodes that do the same in the steps of a loop, in the order of the steps."""
    found = []
    for group in fold(inner):
        if group.unit == "steps":
            seen: Counter[Any] = Counter()
            roles: dict[Any, list[Node]] = defaultdict(list)
            for node in group.nodes:
                turn = group.turns[node]
                roles[node.plan.name, seen[turn, node.plan.name]].append(node)
                seen[turn, node.plan.name] += 1
            found += [nodes for nodes in roles.values() if len(nodes) == group.count]
    return found


def _values_of(given: Mapping[str, Any]) -> dict[Node, Any]:
    """The values of the nodes that variables hold."""
    found: dict[Node, Any] = {}
    waiting: list[Any] = [module for _, module in modules_met()]
    waiting += [value for name, value in given.items() if not name.startswith("_")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor) and value._node is not None:
            found[value._node] = value._array
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, Module):
            waiting += value.parameters()
    return found


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
