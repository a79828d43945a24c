"""Numbers as text: bars, sparklines, tables of HTML, and what a sentence lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np


def parts(values: Iterable[float]) -> list[float]:
    """Each number's height between the smallest (but no less than a millionth of the largest), which is not quite 0,
    and the largest, 1, by logarithms; 0 for 0 and NaN.
    """
    top = max((v for v in values if math.isfinite(v)), default=0.0)
    logs = [math.log10(v / top) if top > 0 and math.isfinite(v) and v > 0 else -math.inf for v in values]
    low = max(-6.0, min((v for v in logs if v > -math.inf), default=-1.0))
    return [1.0 if v == 0 else max(0.0, 1 - v / (1.1 * low)) if v > -math.inf else 0.0 for v in logs]


def bars(values: Iterable[float], width: int = 20) -> list[str]:
    """A bar for each number, as long as its logarithm is large.

    >>> bars([1.0, 0.1, 0.0], width=4)
    ['████', '▍', '']
    """
    eighths = [round(8 * width * part) for part in parts(values)]
    return ["█" * (n // 8) + " ▏▎▍▌▋▊▉"[n % 8].strip() for n in eighths]


def sparkline(values: Iterable[float]) -> str:
    """Numbers as a line of blocks, as high as their logarithms are large; a dot where there is none.

    >>> sparkline([0.001, 0.01, 0.1, 1.0, float("nan")])
    '▁▄▆█·'
    """
    heights = [min(7, int(8 * part)) for part in parts(values)]
    return "".join(
        "·" if not math.isfinite(v) or v <= 0 else "▁▂▃▄▅▆▇█"[n] for v, n in zip(values, heights, strict=True)
    )


def table(title: str, columns: Mapping[str, np.ndarray], barred: str, legend: str) -> str:
    """A table in HTML, a row a step, with a bar for one of the columns."""
    head = "".join(f'<th style="text-align:right">{escape(name)}</th>' for name in ("t", *columns))
    lines = []
    for t, part in enumerate(parts(columns[barred].tolist())):
        cells = "".join(f'<td style="text-align:right">{escape(text)}</td>' for text in [str(t), *_texts(columns, t)])
        bar = f'<div style="background:#3b6fb6;height:.7em;width:{8 * part:.2f}em"></div>'
        lines.append(f'<tr>{cells}<td style="text-align:left">{bar}</td></tr>')
    return (
        f"<div><p>{escape(title)}</p><table><thead><tr>{head}<th></th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table><p>{escape(legend)}</p></div>"
    )


def _texts(columns: Mapping[str, np.ndarray], t: int) -> list[str]:
    return ["" if math.isnan(values[t]) else f"{values[t]:.3g}" for values in columns.values()]


def share(value: float) -> str:
    """A part of a whole, or how many times as much.

    >>> share(0.0321), share(190.4)
    ('3.2 %', '190 times as much')
    """
    return f"{value:.3g} times as much" if value >= 1 else f"{100 * value:.2g} %"


def named(layers: Sequence[Any], name: str) -> Any:
    """The one of some layers with this name, "l0_reverse", or title, "encoder.l0"; a KeyError names those there are."""
    found = [layer for layer in layers if name in (layer.name, layer.title)]
    if not found:
        raise KeyError(f"there is no {name!r}, but {', '.join(repr(layer.title) for layer in layers)}")
    return found[0]


def listed(parts: Sequence[str], last: str) -> str:
    """Some parts as a sentence lists them.

    >>> listed(["a", "b", "c"], "or")
    'a, b or c'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def picked(count: int, most: int) -> list[int]:
    """All of `count` numbers, or up to `most` of them and the last, evenly spaced.

    >>> picked(4, 24), picked(10, 4)
    ([0, 1, 2, 3], [0, 3, 6, 9])
    """
    return sorted({*range(0, count, max(1, -(-count // most))), count - 1})
