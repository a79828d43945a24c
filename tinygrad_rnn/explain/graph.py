"""The graph that a tensor was computed from, folded by module and by time step."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinygrad_rnn.explain.boxes import Arrow, Box, Drawing
from tinygrad_rnn.explain.fold import fold, single
from tinygrad_rnn.explain.layout import Layout, laid_out
from tinygrad_rnn.explain.names import Names, node_of
from tinygrad_rnn.explain.svg import svg
from tinygrad_rnn.tensor.graph import Node, newest_first
from tinygrad_rnn.tensor.tensor import Tensor

MANY = 300  # boxes above which it asks first
DEEP = 24  # levels of a tree of text


class Graph:
    """What `graph` has found: `boxes` and `arrows`, to be printed or drawn.

    `nodes` is the number of nodes that they stand for. In a notebook it is a picture.
    """

    def __init__(self, boxes: list[Box], arrows: list[Arrow], nodes: int) -> None:
        self.boxes, self.arrows, self.nodes = boxes, arrows, nodes
        self._layout: Layout | None = None

    def __repr__(self) -> str:
        return f"<graph of {self.nodes} nodes: {len(self.boxes)} boxes, {len(self.arrows)} arrows>"

    def __str__(self) -> str:
        """A tree of text, from the result down to what it was computed from; a list where that would be too deep."""
        lines = _tree(self) or list(_list(self))
        return "\n".join([f"{self.nodes} nodes in {len(self.boxes)} boxes", "", *lines])

    def layout(self) -> Layout:
        """Where boxes and arrows stand in the picture, found by graphviz where that is installed."""
        if self._layout is None:
            self._layout = laid_out(self.boxes, self.arrows)
        return self._layout

    def svg(self, path: str | Path | None = None) -> str:
        """The picture as SVG, in the colour of the text around it; written to the file `path`, in one of its own."""
        if path is not None:
            _written(self._drawn(alone=True), path)
        return self._drawn()

    def _drawn(self, alone: bool = False) -> str:
        return svg(self.boxes, self.arrows, self.layout(), f"A graph of {self.nodes} nodes", alone)

    def _repr_svg_(self) -> str:
        return self._drawn(alone=True)

    def dot(self, path: str | Path | None = None) -> str:
        """The graph in the language of graphviz, also written to the file `path`."""
        shapes = {"parameter": "ellipse", "input": "ellipse", "constant": "ellipse"}
        lines = ["digraph {", "  node [shape=box]"]
        for box in self.boxes:
            label = "\\n".join(_quoted(text) for text in [box.title, *box.lines])
            lines.append(f'  {box.id} [label="{label}", shape={shapes.get(box.kind, "box")}]')
        for a in self.arrows:
            style = ", style=dashed" if a.carried else ""
            lines.append(f'  {a.source} -> {a.target} [label="{_quoted(a.label)}"{style}]')
        return _written("\n".join([*lines, "}"]) + "\n", path)

    def mermaid(self, path: str | Path | None = None) -> str:
        """The graph in the language of Mermaid, which pages in Markdown draw, also written to the file `path`."""
        ends = {"parameter": ("([", "])"), "input": ("([", "])"), "constant": ("([", "])"), "steps": ("[[", "]]")}
        lines = ["flowchart TB"]
        for box in self.boxes:
            begin, end = ends.get(box.kind, ("[", "]"))
            text = "<br/>".join(_entities(text) for text in [box.title, *box.lines])
            lines.append(f'  {box.id}{begin}"{text}"{end}')
        for a in self.arrows:
            label = f'|"{_entities(a.label)}"|' if a.label else ""
            lines.append(f"  {a.source} {'-.->' if a.carried else '-->'}{label} {a.target}")
        return _written("\n".join(lines) + "\n", path)

    def as_dict(self) -> dict[str, Any]:
        """Boxes, arrows and where they stand, of plain lists, numbers and strings: what JSON can hold."""
        return {
            "nodes": self.nodes,
            "boxes": [{**vars(b), "shape": None if b.shape is None else list(b.shape)} for b in self.boxes],
            "arrows": [dict(vars(a)) for a in self.arrows],
            "layout": self.layout().as_dict(),
        }


def graph(tensor: Tensor, *, unfold: bool | int = False, names: Mapping[str, Any] | None = None) -> Graph:
    """The graph that `tensor` was computed from, folded by module and by time step.

    A layer is a box, the steps of a layer or of a loop are one box, and a dashed arrow shows what is carried from one
    step to the next. Modules and steps are known of what was computed inside `tr.explain.watch()`; of the rest, loops
    are found where the same ops with the same weights come at least three times. `names`, such as `locals()`, tells
    what variables are called. With `unfold` each node is a box.

    Raises `ValueError` for more than 300 boxes, or in a terminal asks first; a number as `unfold` allows as many. A
    tensor that was computed from nothing is a `ValueError`, and a graph that a backward has freed a `GraphFreedError`:
    look before `loss.backward()`.

    >>> import tinygrad_rnn as tr
    >>> W, h = tr.nn.Parameter(tr.randn(3, 3)), tr.zeros(2, 3)
    >>> for x_t in tr.randn(6, 2, 3):
    ...     h = (x_t + h @ W).tanh()
    >>> print(tr.explain.graph(h.sum(), names=locals()))
    20 nodes in 5 boxes
    <BLANKLINE>
    sum: a number
    └─ 6 steps: matmul, add, tanh, (2, 3)   ⟲ h
       ├─ W (3, 3)
       ├─ constant
       └─ initial state: (2, 3)
    """
    node = node_of("graph", tensor)
    nodes = newest_first([node])[::-1]
    inner = [n for n in nodes if n.plan is not None]
    several = unfold if isinstance(unfold, bool) else unfold > 0
    groups = single(inner) if several else fold(inner)
    drawing = Drawing(groups, Names(names))
    boxes, arrows = drawing.boxes or [_lonely(node, names)], drawing.arrows
    allowed = MANY if isinstance(unfold, bool) else unfold
    if len(boxes) > allowed and not _wanted(message := _many(len(nodes), len(boxes), allowed, bool(several))):
        raise ValueError(message)
    return Graph(boxes, arrows, len(nodes))


def _lonely(node: Node, names: Mapping[str, Any] | None) -> Box:
    """The box of a leaf, which was computed from nothing."""
    return Box("b1", "parameter", f"{Names(names).of(node) or 'leaf'} {tuple(node.shape)}", [], node.shape, nodes=1)


def _many(nodes: int, boxes: int, allowed: int, unfolded: bool) -> str:
    """The message for more boxes than anybody reads."""
    cure = "" if unfolded else "; or compute it inside tr.explain.watch(), so that modules and steps are known"
    return f"graph: {nodes} nodes are {boxes} boxes, more than {allowed}: unfold={boxes} draws them all{cure}"


def _wanted(message: str) -> bool:
    """Whether somebody at a terminal wants so many boxes."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return input(f"{message}. Draw them now? [y/N] ").strip().lower().startswith("y")


# --- as text --------------------------------------------------------------------------------------


def _list(graph: Graph) -> Iterator[str]:
    """A line for each box, what was made first on top."""
    sources: dict[str, list[str]] = defaultdict(list)
    for a in graph.arrows:
        sources[a.target].append(a.source)
    for box in graph.boxes:
        yield f"{box.id:5} {box.text}" + (f"   from {', '.join(sources[box.id])}" if sources[box.id] else "")


def _tree(graph: Graph) -> list[str]:
    """The lines of the tree, without recursion; none if it is deeper than `DEEP`."""
    boxes = {box.id: box for box in graph.boxes}
    sources: dict[str, list[str]] = defaultdict(list)
    carried: dict[str, list[str]] = defaultdict(list)
    used = set()
    for a in graph.arrows:
        if a.carried:
            source = "" if a.source == a.target else f"from {boxes[a.source].title}"
            carried[a.target].append(" ".join(filter(None, [a.label, source])))
        elif a.source not in sources[a.target]:
            sources[a.target].append(a.source)
            used.add(a.source)
    roots = [box.id for box in reversed(graph.boxes) if box.id not in used]
    shown: set[str] = set()
    stack = [(root, "", "") for root in reversed(roots)]
    lines = []
    while stack:
        id, lead, below = stack.pop()
        if len(lead) > 3 * DEEP:
            return []
        again = id in shown and sources[id]
        back = f"   ⟲ {'; '.join(carried[id])}" if carried[id] and not again else ""
        lines.append(f"{lead}{boxes[id].title} (above)" if again else f"{lead}{boxes[id].text}{back}")
        if not again:
            shown.add(id)
            parts = sources[id][::-1]  # what was made last comes first
            for i, source in reversed(list(enumerate(parts))):
                end = i == len(parts) - 1
                stack.append((source, below + ("└─ " if end else "├─ "), below + ("   " if end else "│  ")))
    return lines


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _entities(text: str) -> str:
    """Text for Mermaid, in which some characters are the language's own."""
    return "".join(c if c.isalnum() or c in " .,()×_=:" else f"#{ord(c)};" for c in text)


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
