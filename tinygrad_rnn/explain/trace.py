"""Backward played step by step: which node is at its turn, by which rule, what it hands to whom, what adds up there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from tinygrad_rnn.errors import GraphFreedError
from tinygrad_rnn.explain.names import Names, node_of
from tinygrad_rnn.explain.rules import rule_of, words_for
from tinygrad_rnn.explain.watch import Place, place_of
from tinygrad_rnn.tensor.backend import dot, namespace, quiet, scatter_add, sum_to, to_host, zeros_beside
from tinygrad_rnn.tensor.graph import Node, Part, Product, looked_at, newest_first
from tinygrad_rnn.tensor.sweep import Gradients, blaming
from tinygrad_rnn.tensor.tensor import Tensor

SMALL = 12  # numbers that are shown one by one


@dataclass(frozen=True)
class Value:
    """What a node is called, and its shape: `name` is that of the variable or parameter, else its op and number."""

    name: str
    number: int
    shape: tuple[int, ...]
    place: Place | None = None
    leaf: bool = False

    def __str__(self) -> str:
        where = str(self.place) if self.place is not None else ""
        return f"{self.name} ({where})" if where else self.name


@dataclass(eq=False)
class Handed:
    """What a rule hands to one operand of its op.

    `raw` is as the rule gave it: an array, a `Part` of one, or a `Product` not yet multiplied. `array()` is what that
    comes to, and `total()` what has come to the operand so far, this included.
    """

    to: Value
    operand: int
    rule: str
    raw: Any
    node: Node = field(repr=False)
    came: list[Handed] = field(repr=False)  # all that comes to the operand
    index: int = 0  # this one's place among them
    count: int = 1  # how many will have come in the end
    _total: np.ndarray | None = field(default=None, repr=False)

    def array(self) -> np.ndarray:
        """The contribution as an array of the operand's shape and dtype."""
        return np.asarray(to_host(_dense(self.raw, self.node)))

    def total(self) -> np.ndarray:
        """The sum so far."""
        known = next((i for i in range(self.index, -1, -1) if self.came[i]._total is not None), -1)
        for i in range(known + 1, self.index + 1):
            own = self.came[i].array()
            self.came[i]._total = np.asarray(self.came[i - 1]._total + own) if i else own
        assert self._total is not None
        return self._total

    @property
    def how(self) -> str:
        """How the contribution comes to the operand's shape, where it was of another: in words."""
        d = self.raw
        if isinstance(d, Product):
            return f"a product of {_shape(d.x)}ᵀ and {_shape(d.g)}, which the engine multiplies later, many at once"
        if isinstance(d, Part):
            return f"{_shape(d.g)} at [{_index(d.index)}], 0 elsewhere"
        if tuple(d.shape) != self.to.shape:
            return f"{_shape(d)}, summed to {self.to.shape}, as the operand was used for all of it"
        return ""


@dataclass(eq=False)
class Step:
    """One node's turn. `print(step)` tells all of it.

    `at` is the node, `op` its op ("" for a leaf), `g` the derivative of the loss by it, complete, `values` what the
    rule has kept, by name. `handed` is what goes to the operands; a leaf hands on nothing: `.grad` gets its `g`.
    """

    number: int
    count: int
    at: Value
    op: str
    g: np.ndarray
    uses: int
    words: str
    values: dict[str, Any]
    handed: list[Handed]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        where = f"  in {self.at.place}" if self.at.place is not None and str(self.at.place) else ""
        made = f" = {self.op}" if self.op and not self.at.name.startswith(self.op) else ""
        yield f"{self.number} of {self.count}   {self.at.name}{made}{where}"
        came = "" if self.uses == 1 else f", the sum of {self.uses} contributions"
        yield f"   g = {shown(self.g)}{came}" if self.op else f"   its gradient: {shown(self.g)}{came}"
        if not self.op:
            return
        yield f"   {self.words}" if self.words else ""
        small = {name: v for name, v in self.values.items() if np.size(v) <= SMALL}
        if small:
            yield "   with " + ", ".join(f"{name} = {shown(v)}" for name, v in small.items())
        for h in self.handed:
            yield f"   → {h.to}: {h.rule} = {shown(h.array())}"
            if h.how:
                yield f"       {h.how}"
            if h.index:
                yield f"       so far {shown(h.total())}, {h.index + 1} of {h.count} arrived"

    def _repr_html_(self) -> str:
        head, *lines = self._lines()
        rows = "".join(
            f"<tr><td>{escape(str(h.to))}</td><td><code>{escape(h.rule)}</code></td><td>{escape(shown(h.array()))}</td>"
            f"<td>{escape(shown(h.total()))}</td></tr>"
            for h in self.handed
        )
        table = "<tr><th>to</th><th>rule</th><th>contribution</th><th>sum so far</th></tr>" + rows if rows else ""
        told = [escape(line.strip()) for line in lines if not line.startswith(("   →", "       "))]
        return f"<div><p><b>{escape(head)}</b><br>{'<br>'.join(told)}</p><table>{table}</table></div>"

    def as_dict(self) -> dict[str, Any]:
        """The step as plain lists, numbers and strings; arrays of more than 12 numbers by their shape and norm."""
        return {
            "number": self.number,
            "count": self.count,
            "at": str(self.at),
            "op": self.op,
            "g": _plain(self.g),
            "words": self.words,
            "handed": [
                {"to": str(h.to), "rule": h.rule, "array": _plain(h.array()), "total": _plain(h.total()), "how": h.how}
                for h in self.handed
            ],
        }


class Trace(Iterator[Step]):
    """What `trace` gives: the steps of a backward, one with each `next`."""

    def __init__(self, loss: Tensor, gradient: Any, names: Mapping[str, Any] | None) -> None:
        self._root, self._seed = node_of("trace", loss), loss._output_gradient(gradient)
        self._order = newest_first([self._root])
        self._names = Names(names)
        self._numbers = {node: i for i, node in enumerate(reversed(self._order), 1)}
        self._steps = self._play()

    def __repr__(self) -> str:
        return f"<trace of {len(self._order)} nodes>"

    def __len__(self) -> int:
        """How many nodes there are: no more steps than that, as one to which no gradient comes has no turn."""
        return len(self._order)

    def __iter__(self) -> Trace:
        return self

    def __next__(self) -> Step:
        return next(self._steps)

    def _play(self) -> Iterator[Step]:
        gradients = Gradients()
        gradients.add([self._root], [self._seed])
        came: dict[Node, list[Handed]] = defaultdict(list)
        self._to_come = Counter(source for node in self._order for source in node.sources or ())
        number = 0
        with blaming(self._order) as nodes:
            for node in nodes:
                if node.sources is None:
                    raise GraphFreedError("trace: a backward has freed the graph in between: compute it again")
                with quiet():
                    g = gradients.complete(node)
                    if g is None:
                        self._to_come.subtract(node.sources)
                        continue
                    pulled = looked_at(gradients.pull(node, g)) if node.sources else ()
                    gradients.add(node.sources, pulled)
                number += 1
                yield self._told(number, node, g, pulled, came)

    def _told(self, number: int, node: Node, g: Any, pulled: Sequence[Any], came: dict[Node, list[Handed]]) -> Step:
        plan, handed = node.plan, []
        for i, (source, d) in enumerate(zip(node.sources or (), pulled, strict=True)):
            if source is not None and d is not None:
                so_far = came[source]
                count = self._to_come[source]
                so_far.append(Handed(self._value(source), i, rule_of(plan, i), d, source, so_far, len(so_far), count))
                handed.append(so_far[-1])
            elif source is not None:
                self._to_come[source] -= 1
        values = {}
        if plan is not None and getattr(plan, "names", None):
            numbers = {"y", *plan.op.arrays}
            values = {n: _host(v) for n, v in zip(plan.names, node.kept, strict=True) if n in numbers and _known(v)}
        op, words = ("", "") if plan is None else (plan.name, words_for(plan))
        uses = max(1, len(came.pop(node, ())))
        g = np.array(to_host(g))
        return Step(number, len(self._order), self._value(node), op, g, uses, words, values, handed)

    def _value(self, node: Node) -> Value:
        number = self._numbers[node]
        if node.plan is None:
            return Value(self._names.of(node) or f"leaf #{number}", number, node.shape, leaf=True)
        name = self._names.of(node) or f"{node.plan.name} #{number}"
        return Value(name, number, node.shape, place_of(node))


def trace(loss: Tensor, gradient: Any = None, *, names: Mapping[str, Any] | None = None) -> Trace:
    """Backward played step by step: an iterator whose steps are the turns of the nodes, the newest first.

    Each `Step` has the node's `g`, complete, the rule of its op as a line of source and in words, and what it hands to
    whom. `names`, such as `locals()`, tells what variables are called; nodes without a name are numbered in the order
    in which they were made. Numbers are shown where there are up to 12, else shape and norm.

    It is `loss.backward(gradient)` in all but what it leaves behind: nothing is freed and no `.grad` is written. Hooks
    are called.

    >>> import tinygrad_rnn as tr
    >>> w, x = tr.nn.Parameter(3.0), 2.0
    >>> y = w * x
    >>> loss = tr.square(y)
    >>> for step in tr.explain.trace(loss, names=locals()):
    ...     print(step)
    1 of 3   loss = square
       g = 1
       g times 2 x
       with x = 6
       → y: g * (2 * x) = 12
    2 of 3   y = multiply
       g = 12
       each factor gets g times the other factor
       with b = 2
       → w: g * b = 24
    3 of 3   w
       its gradient: 24
    """
    return Trace(loss, gradient, names)


def shown(value: Any) -> str:
    """Numbers where they are few, else shape and norm.

    >>> shown(np.array([0.5, 1 / 3])), shown(np.ones((4, 4)))
    ('[0.5, 0.3333]', 'shape (4, 4), norm 4')
    """
    array = np.asarray(value)
    if array.size > SMALL:
        return f"shape {array.shape}, norm {np.linalg.norm(array.astype(float)):.4g}"
    return _nested(array.tolist())


def _nested(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(array: np.ndarray) -> Any:
    if array.size <= SMALL:
        return array.tolist()
    return {"shape": list(array.shape), "norm": float(np.linalg.norm(array.astype(float)))}


def _dense(d: Any, node: Node) -> Any:
    """A contribution as an array of the shape and dtype of the node that it goes to."""
    with quiet():
        if isinstance(d, Product):
            d = dot(d.x.mT, d.g)
        elif isinstance(d, Part):
            d = scatter_add(zeros_beside(d.g, node.shape, d.g.dtype), d.index, d.g)
        d = sum_to(d, node.shape)
        xp = namespace(d)
        return xp.astype(xp.asarray(d), node.dtype, copy=False)


def _known(value: Any) -> bool:
    """Whether a value is an array or a number."""
    return hasattr(value, "dtype") or isinstance(value, float | int)


def _host(value: Any) -> Any:
    return np.asarray(to_host(value)) if hasattr(value, "dtype") else value


def _shape(array: Any) -> str:
    return str(tuple(array.shape))


def _index(index: Any) -> str:
    """An index as it is typed."""
    if isinstance(index, tuple):
        return ", ".join(map(_index, index))
    if isinstance(index, slice):
        parts = ["" if v is None else str(v) for v in (index.start, index.stop)]
        return ":".join(parts) + ("" if index.step is None else f":{index.step}")
    if index is ...:
        return "..."
    return str(index) if np.ndim(index) == 0 else f"indices {np.shape(index)}"
