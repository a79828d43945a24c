"""Where boxes and arrows of a picture stand: by graphviz where it is installed, else in layers by a page of our own.

Ours does what Sugiyama, Tagawa and Toda (1981) do: layers by the longest path, an order within each layer by the mean
place of the neighbours, then coordinates. What is carried from step to step stands beside what goes down, and goes up.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tinygrad_rnn.explain.boxes import Arrow, Box

Point = tuple[float, float]
Place = tuple[float, float, float, float]  # left, top, width, height
LETTER, LINE, PAD = 7.2, 16.0, 9.0  # of text of 12 pixels: the width of a letter, the height of a line, the margin
GAP_X, GAP_Y, LOOP, MARGIN, ASIDE = 26.0, 46.0, 34.0, 4.0, 16.0
FAR = 60  # layers
FOR_DOT = 150  # boxes; above it graphviz takes minutes
PATIENCE = 5.0  # seconds for graphviz


@dataclass
class Layout:
    """Boxes as (left, top, width, height) by their id; arrows as points of cubic curves: one, then three for each.

    `labels` are where the middle of an arrow's label stands; None for an arrow without.
    """

    width: float
    height: float
    boxes: dict[str, Place]
    arrows: list[list[Point]]
    labels: list[Point | None]
    by: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {
            "width": round(self.width, 1),
            "height": round(self.height, 1),
            "boxes": {id: [round(v, 1) for v in place] for id, place in self.boxes.items()},
            "arrows": [[[round(x, 1), round(y, 1)] for x, y in points] for points in self.arrows],
            "labels": [p and [round(v, 1) for v in p] for p in self.labels],
        }


def laid_out(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout:
    """The layout of a picture."""
    return by_graphviz(boxes, arrows) or in_layers(boxes, arrows)


def size_of(box: Box) -> tuple[float, float]:
    """Width and height of a box by its text."""
    texts = [box.title, *box.lines]
    return max(map(len, texts)) * LETTER + 2 * PAD + 6, len(texts) * LINE + 2 * PAD


# --- by graphviz ----------------------------------------------------------------------------------


def by_graphviz(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout | None:
    """The layout that `dot` finds; None where it is not installed, fails, or takes too long."""
    program = shutil.which("dot")
    if program is None or len(boxes) > FOR_DOT:
        return None
    lines = ["digraph {", "nodesep=0.3 ranksep=0.45"]
    lines += ['node [shape=box fixedsize=true label=""]', "edge [fontsize=12]"]
    for box in boxes:
        w, h = size_of(box)
        lines.append(f"{box.id} [width={w / 72:.4f} height={h / 72:.4f}]")
    for i, a in enumerate(arrows):
        letters = len(a.label) + 4 * (a.source == a.target)  # room for our loop, which is rounder
        label = f' label="{"x" * letters}"' if a.label else ""
        above, below, back = (a.target, a.source, " dir=back") if a.carried else (a.source, a.target, "")
        lines.append(f"{above} -> {below} [number={i}{label}{back}]")
    try:
        done = subprocess.run(
            [program, "-Tjson0"], input="\n".join([*lines, "}"]), capture_output=True, text=True, timeout=PATIENCE
        )
        return _read(json.loads(done.stdout), boxes, arrows)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None


def _read(found: Mapping[str, Any], boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout:
    """The layout that `dot -Tjson0` has written; its y goes up."""
    _, _, width, height = (float(v) + 2 * MARGIN for v in found["bb"].split(","))
    places = {}
    for thing in found["objects"]:
        x, y = _point(thing["pos"], height)
        w, h = float(thing["width"]) * 72, float(thing["height"]) * 72
        places[thing["name"]] = (x - w / 2, y - h / 2, w, h)
    paths: list[list[Point]] = [[] for _ in arrows]
    labels: list[Point | None] = [None for _ in arrows]
    for edge in found.get("edges", ()):
        i = int(edge["number"])
        labels[i] = _point(edge["lp"], height) if "lp" in edge else None
        if (a := arrows[i]).source == a.target:
            paths[i], labels[i] = _loop(places[a.source], a.label)
            continue
        first, *rest = edge["pos"].split()
        if not first.startswith("s," if a.carried else "e,"):
            raise ValueError(f"an arrow that ends nowhere: {first}")
        end, *points = [_point(p, height) for p in (first[2:], *rest)]
        points = points[::-1] if a.carried else points
        paths[i] = [*points, *_straight(points[-1], end)]
    return Layout(width, height, {box.id: places[box.id] for box in boxes}, paths, labels, "graphviz")


def _point(text: str, height: float) -> Point:
    x, y = text.split(",")
    return float(x) + MARGIN, height - float(y) - MARGIN


def _straight(a: Point, b: Point) -> list[Point]:
    """A straight line as a cubic curve from `a`, without `a`."""
    return [a, b, b]


# --- in layers ------------------------------------------------------------------------------------


def in_layers(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> Layout:
    """The layout in layers, which needs nothing installed.

    >>> from tinygrad_rnn.explain.boxes import Arrow, Box
    >>> found = in_layers([Box("b1", "op", "x"), Box("b2", "op", "y")], [Arrow("b1", "b2")])
    >>> [found.boxes[id][1] for id in ("b1", "b2")]  # the tops
    [4.0, 84.0]
    """
    sizes = {box.id: size_of(box) for box in boxes}
    room = {id: w for id, (w, _) in sizes.items()}
    for a in arrows:
        if a.source == a.target:
            room[a.source] = max(room[a.source], sizes[a.source][0] + 2 * (LOOP + len(a.label) * LETTER))
    level = _levels([box.id for box in boxes], [(a.source, a.target) for a in arrows if not a.carried])
    layers: list[list[str]] = [[] for _ in range(max(level.values(), default=0) + 1)]
    for id in level:
        layers[level[id]].append(id)
    chains = [_chain(i, a, level, layers) for i, a in enumerate(arrows)]
    for chain in chains:
        room |= dict.fromkeys(chain[1:-1], GAP_X)
    down, up = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for chain in chains:
        for above, below in pairwise(chain):
            down[above].append(below)
            up[below].append(above)
    _order(layers, up, down)
    middle = _across(layers, room, up, down)
    top = _heights(layers, sizes)
    places = {id: (middle[id] - w / 2, top[level[id]], w, h) for id, (w, h) in sizes.items()}
    right = max(middle[id] + room[id] / 2 for layer in layers for id in layer)
    paths, labels = [], []
    for a, chain in zip(arrows, chains, strict=True):
        if a.source == a.target:
            path, label = _loop(places[a.source], a.label)
        else:
            stops = [(middle[id], top[int(id.split()[1])]) for id in chain[1:-1]]
            path = _through(places[chain[0]], stops, places[chain[-1]], ASIDE if a.carried else 0.0)
            (x0, y0), (x1, y1) = path[-4], path[-1]
            label = ((x0 + x1) / 2 + 5 + len(a.label) * LETTER / 2, (y0 + y1) / 2)
            path = path[::-1] if a.carried else path
        paths.append(path)
        labels.append(label if a.label else None)
    width = max([right, *(p[0] + len(a.label) * LETTER / 2 for p, a in zip(labels, arrows, strict=True) if p)])
    bottom = max(y + h for _, y, _, h in places.values())
    return Layout(width + MARGIN, bottom + MARGIN, places, paths, labels, "layers")


def _levels(ids: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The layer of each box: as low as it can be, just above the highest of the boxes that it goes to."""
    sources, waits = defaultdict[str, list[str]](list), dict.fromkeys(ids, 0)
    for a, b in arrows:
        sources[b].append(a)
        waits[a] += 1
    height, ready = dict.fromkeys(ids, 0), [id for id in ids if not waits[id]]
    while ready:
        b = ready.pop()
        for a in sources[b]:
            height[a] = max(height[a], height[b] + 1)
            waits[a] -= 1
            if not waits[a]:
                ready.append(a)
    top = max(height.values(), default=0)
    return {id: top - height[id] for id in ids}


def _chain(number: int, arrow: Arrow, level: Mapping[str, int], layers: list[list[str]]) -> list[str]:
    """The upper box of an arrow, a place in each layer that it crosses, and the lower box."""
    upper, lower = (arrow.target, arrow.source) if arrow.carried else (arrow.source, arrow.target)
    near = level[lower] - level[upper] <= FAR  # else it goes straight: places for it would be more than the boxes
    between = [f"{number} {k}" for k in range(level[upper] + 1, level[lower])] if near else []
    for id in between:
        layers[int(id.split()[1])].append(id)
    return [upper, *between, lower] if upper != lower else []


def _order(layers: list[list[str]], up: Mapping[str, list[str]], down: Mapping[str, list[str]]) -> None:
    """Sort each layer by the mean place of the neighbours in the layer before, to and fro."""
    for sweep in range(8):
        forward = sweep % 2 == 0
        place: dict[str, float] = {}
        for layer in layers if forward else layers[::-1]:
            near = up if forward else down
            own = {id: i / len(layer) for i, id in enumerate(layer)}
            mean = {id: sum(place[n] for n in near[id]) / len(near[id]) if near.get(id) else own[id] for id in layer}
            layer.sort(key=lambda id: (mean[id], own[id]))
            place |= {id: (i + 0.5) / len(layer) for i, id in enumerate(layer)}


def _across(
    layers: Sequence[Sequence[str]],
    room: Mapping[str, float],
    up: Mapping[str, list[str]],
    down: Mapping[str, list[str]],
) -> dict[str, float]:
    """The middle of each box: as near to its neighbours as the order allows."""
    middle: dict[str, float] = {}
    for layer in layers:
        x = 0.0
        for id in layer:
            middle[id] = x + room[id] / 2
            x += room[id] + GAP_X
    for sweep in range(12):
        for layer in layers if sweep % 2 else layers[::-1]:
            near = [(up if sweep % 2 else down).get(id) or (down if sweep % 2 else up).get(id) or [id] for id in layer]
            wish = [sum(middle[n] for n in ids) / len(ids) for ids in near]
            apart = [(room[a] + room[b]) / 2 + GAP_X for a, b in pairwise(layer)]
            right, left = list(wish), list(wish)
            for i, gap in enumerate(apart):
                right[i + 1] = max(right[i + 1], right[i] + gap)
            for i, gap in reversed(list(enumerate(apart))):
                left[i] = min(left[i], left[i + 1] - gap)
            middle |= {id: (a + b) / 2 for id, a, b in zip(layer, left, right, strict=True)}
    start = min((middle[id] - room[id] / 2 for layer in layers for id in layer), default=0.0)
    return {id: x - start + MARGIN for id, x in middle.items()}


def _heights(layers: Sequence[Sequence[str]], sizes: Mapping[str, tuple[float, float]]) -> list[float]:
    """The top of each layer."""
    tops, y = [], MARGIN
    for layer in layers:
        tops.append(y)
        y += max((sizes[id][1] for id in layer if id in sizes), default=0.0) + GAP_Y
    return tops


def _through(source: Place, stops: Sequence[Point], target: Place, aside: float) -> list[Point]:
    """A curve from the bottom of a box by way of `stops` to the top of another; upright where it passes.

    It begins and ends `aside` of the middle, so that what goes up stands beside what goes down.
    """
    x, y, w, h = source
    start = (x + w / 2 + aside, y + h)
    left, top, width, _ = target
    reach = max(0.0, width / 2 - 12)  # it ends where it comes from, but well within the box
    off = (stops[-1][0] if stops else start[0]) - (left + width / 2)
    end = (left + width / 2 + min(max(off / 2, -reach), reach) + aside / 2, top)
    points = [start]
    for a, b in zip([start, *stops], [*stops, end], strict=True):
        half = (b[1] - a[1]) / 2
        points += [(a[0], a[1] + half), (b[0], b[1] - half), b]
    return points


def _loop(place: Place, label: str) -> tuple[list[Point], Point]:
    """A curve out of the right side of a box and back, and where its label stands."""
    x, y, w, h = place
    x, out = x + w + 4, x + w + 4 + LOOP
    points = [(x, y + h * 0.75), (out, y + h * 0.8), (out, y + h * 0.2), (x, y + h * 0.25)]
    return points, (x + LOOP * 0.75 + 6 + len(label) * LETTER / 2, y + h / 2)
