"""The folded graph: every node in one box, every edge an arrow or inside of one, steps in their own box."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn.explain.boxes import Drawing
from tinygrad_rnn.explain.fold import fold
from tinygrad_rnn.explain.layout import Layout, by_graphviz, in_layers
from tinygrad_rnn.explain.loops import Loop, find_loops
from tinygrad_rnn.explain.names import Names
from tinygrad_rnn.explain.watch import place_of
from tinygrad_rnn.tensor.graph import Node, newest_first

LAYERS = {"RNN": tr.nn.RNN, "LSTM": tr.nn.LSTM, "GRU": tr.nn.GRU}
Drawn = tuple[str, int, int, bool, tr.Tensor]
SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def losses(draw: Any) -> Drawn:
    """A layer's kind, its number of steps and of rows of steps (layers and directions), whether all run
    to the end, and a loss, watched.
    """
    kind = draw(st.sampled_from(sorted(LAYERS)))
    T, layers, both = draw(st.integers(3, 9)), draw(st.integers(1, 2)), draw(st.booleans())
    options = {"fused": draw(st.booleans()), "layer_norm": draw(st.booleans()), "bias": draw(st.booleans())}
    layer = LAYERS[kind](2, 3, layers, bidirectional=both, **options)
    lengths = draw(st.sampled_from([None, [T, 1, 2]]))
    head = tr.nn.Linear(6 if both else 3, 2)
    with tr.explain.watch():
        output, _ = layer(tr.randn(T, 3, 2), lengths=lengths)
        loss = sum(tr.square(head(output[t]) - 1).mean() for t in range(T))
    return kind, T, layers * (1 + both), lengths is None, loss


def by_hand(T: int, *, carry: bool = True) -> tuple[tr.Tensor, dict[str, Any]]:
    """The README's loop."""
    x = tr.randn(T, 2, 3)
    W_x, W_h, b = tr.nn.Parameter(tr.randn(3, 4)), tr.nn.Parameter(tr.randn(4, 4)), tr.nn.Parameter(tr.zeros(4))
    h = tr.zeros(2, 4)
    for x_t in x:
        h = tr.tanh(x_t @ W_x + h @ W_h + b)
    return tr.square(h - 1).mean(), {"x": x, "W_x": W_x, "W_h": W_h, "b": b, "h": h}


def nodes_of(loss: tr.Tensor) -> list[Node]:
    return [node for node in newest_first([loss._node])[::-1] if node.plan is not None]


@given(losses())
@examples(15, 25, 100)
def test_every_node_is_in_one_box_and_every_edge_is_an_arrow(drawn: Drawn) -> None:
    loss = drawn[-1]
    nodes = nodes_of(loss)
    groups = fold(nodes)
    of = {node: group for group in groups for node in group.nodes}
    assert sorted(of, key=lambda n: n.serial) == nodes
    assert sum(len(group.nodes) for group in groups) == len(nodes)
    drawing = Drawing(groups, Names())
    box_of = {id(group): box for group, box in zip(drawing.groups, drawing.boxes[-len(groups) :], strict=True)}
    wanted: Counter[Any] = Counter()
    for node in nodes:
        for source in node.sources:
            if source is None or source.plan is None:
                continue
            a, b = of[source], of[node]
            if a is not b:
                wanted[box_of[id(a)].id, box_of[id(b)].id] += 1
            elif a.turns[source] is not None and a.turns[source] != a.turns[node]:
                wanted[box_of[id(a)].id, box_of[id(a)].id] += 1
    found: Counter[Any] = Counter()
    inner = {box.id for box in box_of.values()}
    for arrow in drawing.arrows:
        if arrow.source in inner:
            found[arrow.source, arrow.target] += arrow.uses
    assert found == wanted
    leaves = {s for node in nodes for s in node.sources if s is not None and s.plan is None}
    assert sum(box.nodes for box in drawing.boxes) == len(nodes) + len(leaves)


@given(losses())
@examples(15, 25, 100)
def test_steps_are_folded_by_layer_and_direction(drawn: Drawn) -> None:
    kind, T, rows, whole, loss = drawn
    found = tr.explain.graph(loss)
    steps = [box for box in found.boxes if box.unit == "steps" and box.path == kind]
    assert len(steps) == rows and all(box.count == T for box in steps)
    for box in steps:
        back = [a for a in found.arrows if a.target == box.id and a.carried]  # between stretches, by way of the layer
        assert back and {a.label for a in back} == {"h, c" if kind == "LSTM" else "h"}
        assert not whole or sum(a.uses for a in back if a.source == box.id) >= T - 1
    for group in fold(nodes_of(loss)):
        if group.place.name:
            for node in group.nodes:
                place = place_of(node)
                assert group.turns[node] is None or (place.name, place.step) == (group.place.name, group.turns[node])


@given(losses())
@examples(8, 15, 60)
def test_without_what_is_carried_there_is_no_cycle(drawn: Drawn) -> None:
    found = tr.explain.graph(drawn[-1])
    left = {box.id for box in found.boxes}
    onwards = [(a.source, a.target) for a in found.arrows if not a.carried]
    while ready := {id for id in left if not any(a in left and b == id for a, b in onwards)}:
        left -= ready
    assert not left


@pytest.mark.parametrize("T", [3, 6, 31])
def test_a_loop_by_hand_is_one_box(T: int) -> None:
    loss, names = by_hand(T)
    found = tr.explain.graph(loss, names=names)
    (loop,) = [box for box in found.boxes if box.kind == "steps"]
    assert (loop.count, loop.nodes, loop.ops) == (T, 5 * T, {"matmul": 2, "add": 2, "tanh": 1})
    assert [(a.label, a.uses) for a in found.arrows if a.carried] == [("h", T - 1)]
    titles = {box.kind: box.text for box in found.boxes}
    assert titles["input"] == f"x: {T} × (2, 3)"
    assert titles["parameter"] == "W_x (3, 4), W_h (4, 4), b (4,)"
    assert "initial state" in {box.title for box in found.boxes}


def test_steps_of_a_layer_that_nobody_watched() -> None:
    for kind, state in (("RNN", "h"), ("GRU", "h"), ("LSTM", "h, c")):
        found = tr.explain.graph(LAYERS[kind](2, 3)(tr.randn(5, 1, 2))[0])
        assert [a.label for a in found.arrows if a.carried] == [state]
        assert ", ".join(f"{s}_init" for s in state.split(", ")) in {box.title for box in found.boxes}


def test_marked_steps_are_one_box_of_as_many_steps() -> None:
    w, h = tr.nn.Parameter([0.5]), tr.Tensor([1.0])
    with tr.explain.watch():
        for k in range(2):  # two are no loop to who does not know
            with tr.explain.step(k):
                h = (w * h).tanh()
    (box,) = [box for box in tr.explain.graph(h).boxes if box.kind == "steps"]
    assert (box.title, box.count, box.nodes) == ("2 steps", 2, 4)


def test_what_only_looks_like_a_loop_is_none() -> None:
    weights = [tr.nn.Parameter(tr.randn(2, 2)) for _ in range(6)]
    h = tr.ones(1, 2)
    for W in weights:  # six layers, each with a weight of its own
        h = (h @ W).tanh()
    assert not find_loops(nodes_of(h))
    assert all(box.kind != "steps" for box in tr.explain.graph(h).boxes)
    a = tr.nn.Parameter([1.0])
    assert not find_loops(nodes_of(a + a + a))
    b = a.tanh()
    x = [b * b, b * a, b * b, a * b, b * b]  # the same op, with other sources
    assert not find_loops(nodes_of(tr.stack(x).sum()))


def test_a_loop_ends_where_its_weight_is_another() -> None:
    W, V, h = tr.nn.Parameter(tr.randn(2, 2)), tr.nn.Parameter(tr.randn(2, 2)), tr.ones(1, 2)
    for weight in [W] * 5 + [V] * 4:
        h = (h @ weight).tanh()
    assert find_loops(nodes_of(h)) == [Loop(0, 2, 5), Loop(10, 2, 4)]


def test_a_loop_ends_where_its_state_comes_from_elsewhere() -> None:
    W, states = tr.nn.Parameter([0.5]), [tr.ones(1)]
    for k in range(8):
        states.append((W * states[1 if k == 4 else k]).tanh())
    assert find_loops(nodes_of(tr.stack(states).sum())) == [Loop(0, 2, 4), Loop(8, 2, 4)]


def test_a_decoder_by_hand_is_a_box_for_each_module() -> None:
    cell, read = tr.nn.LSTMCell(3, 4), tr.nn.Linear(4, 3)
    with tr.explain.watch():
        h = c = tr.zeros(2, 4)
        losses = []
        for _ in range(5):
            h, c = cell(read(h) * 2, (h, c))
            losses.append(tr.square(h - 1).mean())
        loss = sum(losses)
    found = tr.explain.graph(loss)
    titles = {box.id: box.title for box in found.boxes}
    assert {"LSTMCell, 5 steps", "Linear, 5 calls"} <= set(titles.values())
    carried = {(titles[a.source], titles[a.target], a.label) for a in found.arrows if a.carried}
    assert ("LSTMCell, 5 steps", "LSTMCell, 5 steps", "h, c") in carried
    assert ("LSTMCell, 5 steps", "Linear, 5 calls", "") in carried
    assert len(carried) == 3 and len(found.boxes) == 12  # the third: the sum of the losses


def test_how_many_boxes_there_are() -> None:
    with tr.explain.watch():
        loss = tr.nn.RNN(2, 4)(tr.randn(100, 1, 2))[0].mean()
    assert len(tr.explain.graph(loss).boxes) <= 15
    lstm = tr.nn.LSTM(4, 8, 2, bidirectional=True, fused=False)
    with tr.explain.watch():
        loss = lstm(tr.randn(100, 1, 4))[0].mean()
    found = tr.explain.graph(loss)
    assert found.nodes > 6000 and len(found.boxes) <= 40
    with pytest.raises(ValueError, match=r"graph: \d+ nodes are \d+ boxes, more than 300: unfold=\d+ draws them all"):
        tr.explain.graph(loss, unfold=True)
    assert len(tr.explain.graph(loss, unfold=9000).boxes) > 6000
    with pytest.raises(ValueError, match=r"boxes, more than 3: unfold="):
        tr.explain.graph(loss, unfold=3)


def test_it_is_found_while_one_waits() -> None:
    lstm = tr.nn.LSTM(4, 8, 2, bidirectional=True, fused=False)
    with tr.explain.watch():
        loss = lstm(tr.randn(100, 1, 4))[0].mean()
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        found = tr.explain.graph(loss)
        in_layers(found.boxes, found.arrows)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.3


def test_at_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tr.Tensor([1.0], requires_grad=True)
    y = x
    for i in range(301):
        y = (tr.sin, tr.exp, tr.tanh)[(i * i) % 3](y)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    asked = []
    for answer, wanted in (("y", True), ("", False)):
        monkeypatch.setattr("builtins.input", lambda text, a=answer: asked.append(text) or a)
        if wanted:
            assert len(tr.explain.graph(y, unfold=True).boxes) == 302
        else:
            with pytest.raises(ValueError, match="302 boxes"):
                tr.explain.graph(y, unfold=True)
    assert len(asked) == 2 and "302 boxes" in asked[0] and asked[0].endswith("[y/N] ")


def test_it_leaves_the_graph_as_it_is() -> None:
    loss, names = by_hand(4)
    str(tr.explain.graph(loss, names=names)), tr.explain.graph(loss, unfold=True).svg()
    assert all(names[name].grad is None for name in ("W_x", "W_h", "b"))
    loss.backward()
    with pytest.raises(tr.errors.GraphFreedError):
        tr.explain.graph(loss)
    for function in (tr.explain.graph, tr.explain.trace, tr.explain.worked):
        with pytest.raises(ValueError, match=f"{function.__name__}: .* computed from nothing that requires a gradient"):
            function(tr.Tensor([1.0]))
        with pytest.raises(TypeError, match=f"{function.__name__}: it takes a Tensor, .* not float"):
            function(loss.item())


def test_a_leaf_alone() -> None:
    assert str(tr.explain.graph(tr.nn.Parameter([1.0, 2.0]))) == "1 nodes in 1 boxes\n\nleaf (2,)"


def test_a_row_of_a_named_array_is_known() -> None:
    x, w = tr.randn(4, 2, 3), tr.nn.Parameter(tr.ones(3, 3))
    for part, name in ((x[2], "x[2]"), (x[-1], "x[3]"), (x[:, 0], "x[...]"), (x, "x"), (x[1, :1], "x[...]")):
        assert tr.explain.graph(part @ w, names={"x": x}).boxes[1].title == name


def test_parameters_have_the_names_of_their_modules() -> None:
    embedding = tr.nn.Embedding(5, 2)
    with tr.explain.watch():  # the layer is gone when its graph is drawn
        output, _ = tr.nn.RNN(2, 3)(tr.Tensor([[1, 2]] * 4, dtype="int64"), embedding=embedding)
    names = {
        name for box in tr.explain.graph(output).boxes if box.kind == "parameter" for name in (box.title, *box.lines)
    }
    assert {"RNN.weight_hh_l0 (3, 3)", "RNN.bias_ih_l0 (3,)", "Embedding.weight (5, 2)"} <= names
    with tr.explain.watch():
        output, _ = tr.nn.RNN(2, 3)(tr.randn(4, 1, 2))
    assert "weight_hh_l0 (3, 3)" in {box.title for box in tr.explain.graph(output).boxes}


def test_inputs_that_come_one_by_one_are_one_box() -> None:
    W, h, xs = tr.nn.Parameter(tr.randn(3, 3)), tr.zeros(2, 3), [tr.randn(2, 3) for _ in range(5)]
    for x in xs:
        h = tr.tanh(x @ W + h)
    for names, title in ((None, "input"), ({"xs": xs}, "xs"), ({"a": xs[0], "b": xs[1]}, "a, b")):
        (box,) = [box for box in tr.explain.graph(h, names=names).boxes if box.kind == "input"]
        assert box.text == f"{title}: 5 × (2, 3)"


def test_unfolded_names_are_those_of_the_variables() -> None:
    a, b, c = tr.Tensor(2.0, requires_grad=True), tr.Tensor(3.0), tr.Tensor([1.0, 2.0])
    product = a * b
    y = (product + c).sum()
    found = tr.explain.graph(y, unfold=True, names={"a": a, "b": b, "c": c, "y": y, "product": product})
    assert [box.text for box in found.boxes] == [
        "a a number",
        "constant: 3",
        "constant",
        "product = multiply: a number",
        "add: (2,)",
        "y = sum: a number",
    ]


# --- pictures -------------------------------------------------------------------------------------


def pictures() -> list[tr.explain.Graph]:
    loss, names = by_hand(6)
    found = [tr.explain.graph(loss, names=names), tr.explain.graph(loss, names=names, unfold=True)]
    for kind, lengths in (("GRU", None), ("LSTM", [7, 2, 4])):
        with tr.explain.watch():
            out = LAYERS[kind](4, 8, 2, bidirectional=True)(tr.randn(7, 3, 4), lengths=lengths)[0]
        found.append(tr.explain.graph(out.mean()))
    return found


def check_layout(found: tr.explain.Graph, layout: Layout) -> None:
    places = layout.boxes
    assert places.keys() == {box.id for box in found.boxes}
    for id, (x, y, w, h) in places.items():
        assert x >= 0 and y >= 0 and x + w <= layout.width + 1 and y + h <= layout.height + 1
        for other, (x2, y2, w2, h2) in places.items():
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
            assert id == other or apart, f"{id} lies over {other}"
    for arrow, points in zip(found.arrows, layout.arrows, strict=True):
        assert len(points) % 3 == 1 and len(points) > 3
        for id, (x, y) in ((arrow.source, points[0]), (arrow.target, points[-1])):
            left, top, w, h = places[id]
            assert left - 6 <= x <= left + w + 6 and top - 6 <= y <= top + h + 6
        if not arrow.carried:
            assert places[arrow.source][1] < places[arrow.target][1]  # it goes down


def test_boxes_do_not_overlap_and_arrows_end_at_them() -> None:
    for found in pictures():
        check_layout(found, in_layers(found.boxes, found.arrows))
        if (layout := by_graphviz(found.boxes, found.arrows)) is not None:
            check_layout(found, layout)


def test_without_graphviz_or_where_it_fails_the_layout_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, _ = by_hand(3)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert tr.explain.graph(loss).layout().by == "layers"
    monkeypatch.setattr(shutil, "which", lambda _: "/nowhere/dot")
    assert tr.explain.graph(loss).layout().by == "layers"
    monkeypatch.setattr(shutil, "which", lambda _: "dot")
    late = subprocess.TimeoutExpired("dot", 5)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(late))
    assert tr.explain.graph(loss).layout().by == "layers"


def test_the_svg_has_every_box_in_the_colour_of_the_text(tmp_path: Any) -> None:
    loss, names = by_hand(6)
    names["<b>&\"'"] = names.pop("h")
    found = tr.explain.graph(loss, names=names)
    drawn = ElementTree.fromstring(found.svg(tmp_path / "graph.svg"))
    assert drawn.get("role") and drawn.get("aria-label") and drawn[0].tag == f"{SVG}title"
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    for box in found.boxes:
        assert box.title in texts and all(line in texts for line in box.lines)
    assert "<b>&\"'" in texts  # what is carried
    everything = list(drawn.iter())
    assert not any(element.get("id") for element in everything)
    for attribute in ("fill", "stroke"):
        assert {element.get(attribute) for element in everything} <= {None, "none", "currentColor"}
    alone = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in alone and alone == found._repr_svg_()
    assert "<style>" not in found.svg()


def test_dot_and_mermaid_and_json() -> None:
    for found in pictures():
        dot, mermaid = found.dot(), found.mermaid()
        assert dot.count("->") == len(found.arrows) and mermaid.count("--") + mermaid.count("-.->") >= len(found.arrows)
        assert mermaid.startswith("flowchart TB\n") and mermaid.count("\n") == 1 + len(found.boxes) + len(found.arrows)
        if shutil.which("dot"):
            subprocess.run(["dot", "-Tcanon"], input=dot, text=True, check=True, capture_output=True, timeout=30)
        again = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert [box["id"] for box in again["boxes"]] == [box.id for box in found.boxes]
        assert len(again["layout"]["arrows"]) == len(again["arrows"]) == len(found.arrows)
