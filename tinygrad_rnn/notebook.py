"""What a notebook shows of a tensor, a module, a run and a training that goes on: HTML, legible on light and on dark.

It is asked for by `_repr_html_`, and knows of what it shows only the public names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

CELLS = (24, 16)  # rows and columns up to which the values of a tensor are a table


def rows_html(rows: Iterable[Iterable[object]], head: Iterable[object] = ()) -> str:
    """A table of texts; the first of each row is its name.

    >>> rows_html([["a<b", 1]])
    '<table><tbody><tr><th scope="row">a&lt;b</th><td>1</td></tr></tbody></table>'
    """
    top = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in head)
    lines = []
    for name, *cells in rows:
        line = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(str(name))}</th>{line}</tr>')
    start = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f"<table>{start}<tbody>{''.join(lines)}</tbody></table>"


def tensor_html(x: Any) -> str:
    """A tensor: what it is, and its values; a vector or a matrix that is small as a table."""
    said = repr(x)
    values = x.numpy()
    name = f"{type(x).__name__} of shape {x.shape}, {x.dtype}"
    name += f", {x.device}" * (x.device != "cpu") + ", requires a gradient" * x.requires_grad
    rows = values.reshape(1, -1) if values.ndim == 1 else values
    if rows.ndim != 2 or not rows.size or rows.shape[0] > CELLS[0] or rows.shape[1] > CELLS[1]:
        return f"<div><p>{escape(name)}</p><pre>{escape(said)}</pre></div>"
    cells = [["" if values.ndim == 1 else k, *(_number(v) for v in row)] for k, row in enumerate(rows.tolist())]
    return f"<div><p>{escape(name)}</p>{rows_html(cells, ['', *range(rows.shape[1])])}</div>"


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def module_html(module: Any, name: str = "", above: tuple[Any, ...] = ()) -> str:
    """A module as a list that opens and closes: its tensors with their shapes, and its parts."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    count = sum(p.size for p in module.parameters())
    extra = module.extra_repr()
    title = f"{name}: " * bool(name) + type(module).__name__ + f"({extra})" * bool(extra)
    title += f", {count:,} parameter{'s' * (count != 1)}"
    above = (*above, module)
    parts = [(of, part) for of, part in module.named_children() if not any(part is m for m in above)]
    within = tuple(f"{of}." for of, _ in parts)
    own = [[of, x.shape, x.dtype] for of, x in tensors.items() if not of.startswith(within)]
    body = rows_html(own, ["", "shape", "dtype"]) if own else ""
    body += "".join(module_html(part, of, above) for of, part in parts)
    opened = " open" * (len(above) == 1)
    return f'<details{opened} style="margin-left:1em"><summary>{escape(title)}</summary>{body}</details>'


def run_html(path: object, config: Mapping[str, Any], record: Mapping[str, Any], picture: bytes | None) -> str:
    """A run: its folder, its learning curve, the figures of its last step, and what was asked for."""
    image = ""
    if picture:
        data = base64.b64encode(picture).decode()
        image = f'<img alt="the learning curve" style="max-width:100%" src="data:image/png;base64,{data}">'
    asked = [[key, value if isinstance(value, str) else json.dumps(value)] for key, value in config.items()]
    return (
        f"<div><p>run {escape(str(path))}</p>{image}{figures_html(record)}"
        f"<details><summary>config.json</summary>{rows_html(asked)}</details></div>"
    )


def figures_html(figures: Mapping[str, Any]) -> str:
    """Figures beside each other, each below its name."""
    names = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in figures)
    values = "".join(f"<td>{escape(_number(value))}</td>" for value in figures.values())
    return f"<table><thead><tr>{names}</tr></thead><tbody><tr>{values}</tr></tbody></table>" if figures else ""


def progress_html(used: float, figures: Mapping[str, str], lines: Iterable[str]) -> str:
    """A training that goes on: a bar, its newest figures, and what has been said."""
    said = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f'<div><progress value="{used:.4f}" max="1" style="width:100%"></progress>{figures_html(figures)}{said}</div>'
    )
