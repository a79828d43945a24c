"""Boxes and arrows as SVG, in the colours of where they stand: it reads on a light page and on a dark one.

It has no ids and no script, so that many of them can stand in one page. Kinds of boxes are told apart by their form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tinygrad_rnn.explain.boxes import Arrow, Box
from tinygrad_rnn.explain.layout import LINE, PAD, Layout, Point

FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
# A picture by itself, as a file or in a notebook, inherits no colour.
ALONE = (
    "<style>.tr-graph { color: #1b1b1b } @media (prefers-color-scheme: dark) { .tr-graph { color: #e8e8e8 } }</style>"
)


def svg(boxes: Sequence[Box], arrows: Sequence[Arrow], layout: Layout, title: str, alone: bool = False) -> str:
    """The picture; `alone` if it is to stand by itself, and not in a page whose colours it takes."""
    names = {box.id: box.title for box in boxes}
    width, height = layout.width, layout.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tr-graph" role="graphics-document document" '
        f'aria-label="{escape(title)}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" '
        f'font-family="{FONT}" font-size="12" fill="currentColor" stroke="none">',
        f"<title>{escape(title)}</title>",
        ALONE if alone else "",
    ]
    for arrow, points, label in zip(arrows, layout.arrows, layout.labels, strict=True):
        parts.append(_arrow(arrow, points, label, names))
    parts += [_box(box, *layout.boxes[box.id]) for box in boxes]
    return "\n".join([*filter(None, parts), "</svg>"]) + "\n"


def _box(box: Box, x: float, y: float, w: float, h: float) -> str:
    """A box with its text; its form says what kind it is."""
    radius = h / 2 if box.kind in ("parameter", "input", "constant") else 4
    dashes = ' stroke-dasharray="3 3"' if box.kind == "constant" else ""
    fill = {"steps": 0.12, "module": 0.06}.get(box.kind, 0.0)
    line = 'fill="none" stroke="currentColor"'
    ground = f'stroke="currentColor" fill="currentColor" fill-opacity="{fill}"'
    shapes = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:.1f}" {ground}{dashes}/>']
    if box.kind == "steps":  # many sheets, one behind the other
        shapes.insert(0, f'<path d="M{x + 4:.1f} {y:.1f}v-3h{w - 1:.1f}v{h - 1:.1f}h-3" {line}/>')
    texts = []
    for i, text in enumerate([box.title, *box.lines]):
        style = 'font-weight="600"' if i == 0 else 'opacity="0.8"'
        place = f'x="{x + w / 2:.1f}" y="{y + PAD + LINE * (i + 0.75):.1f}" text-anchor="middle"'
        texts.append(f"<text {place} {style}>{escape(text)}</text>")
    told = f"{box.kind} {box.text}" + (f", {box.nodes} nodes" if box.nodes > 1 else "")
    return (
        f'<g role="graphics-symbol img" aria-label="{escape(told)}"><title>{escape(told)}</title>'
        f"{''.join(shapes)}{''.join(texts)}</g>"
    )


def _arrow(arrow: Arrow, points: Sequence[Point], label: Point | None, names: dict[str, str]) -> str:
    """An arrow; dashed for what is carried."""
    (x0, y0), *rest = points
    d = f"M{x0:.1f} {y0:.1f}" + "".join(
        f"C{a:.1f} {b:.1f} {c:.1f} {e:.1f} {f:.1f} {g:.1f}"
        for (a, b), (c, e), (f, g) in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    )
    dashes = ' stroke-dasharray="5 3"' if arrow.carried else ""
    told = f"{arrow.label or 'arrow'} from {names[arrow.source]} to {names[arrow.target]}"
    told += ", to the next step" if arrow.carried else ""
    text = ""
    if label is not None:
        text = f'<text x="{label[0]:.1f}" y="{label[1] + 4:.1f}" text-anchor="middle" font-style="italic">'
        text += f"{escape(arrow.label)}</text>"
    return (
        f'<g role="graphics-symbol img" aria-label="{escape(told)}"><title>{escape(told)}</title>'
        f'<path d="{d}" fill="none" stroke="currentColor"{dashes}/><path d="{_head(points)}"/>{text}</g>'
    )


def _head(points: Sequence[Point]) -> str:
    """The tip of an arrow: a triangle in the direction from which its curve comes."""
    x, y = points[-1]
    a, b = next(((x - p, y - q) for p, q in reversed(points[:-1]) if math.hypot(x - p, y - q) > 0.5), (0.0, 1.0))
    length = math.hypot(a, b)
    a, b = a / length, b / length
    left, right = (x - 8 * a - 3.5 * b, y - 8 * b + 3.5 * a), (x - 8 * a + 3.5 * b, y - 8 * b - 3.5 * a)
    return f"M{x:.1f} {y:.1f}L{left[0]:.1f} {left[1]:.1f}L{right[0]:.1f} {right[1]:.1f}Z"
