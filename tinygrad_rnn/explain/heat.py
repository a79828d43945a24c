"""A table of numbers as text, as HTML and as a picture: dark where it is large."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.screen import install, new_figure, plain_labels, save_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSTALL = f"pictures need matplotlib: {install('matplotlib')}"
SHADES = " .:-=+*#%@"
NUMBERS = 9  # so many columns of numbers fit on a line of a terminal
CELLS = 64  # so many cells a side are told apart on a screen; larger tables are shown in blocks, by their largest


def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each number as its place between the smallest that shows, a thousandth of the largest, and that, in 0 ... 1."""
    finite = np.where(np.isfinite(values), np.abs(values), 0.0)
    top = finite.max(initial=0.0)
    if top == 0:
        return np.zeros_like(finite)
    with np.errstate(divide="ignore"):
        logs = np.log10(finite / top)
    return np.asarray(np.clip(1 + logs / 3, 0.0, 1.0))


def number(value: float) -> str:
    """Three digits of a number; a dot for an exact 0, so that the others stand out.

    >>> number(0.01234), number(0.0), number(123456.0)
    ('0.0123', '.', '1.23e+05')
    """
    return "." if value == 0 else f"{value:.3g}"


def table(values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], corner: str = "") -> str:
    """Text for a terminal: numbers where they fit, else a shade for each.

    >>> print(table(np.array([[1.0, 0.0], [0.5, 0.25]]), ["0", "1"], ["0", "1"], "t \\\\ k"))
    t \\ k    0     1
    0        1     .
    1      0.5  0.25
    """
    if len(columns) > NUMBERS:
        return _shaded(values, rows, columns, corner)
    cells = [[number(v) for v in line] for line in values]
    widths = [max(4, len(c), *(len(line[j]) for line in cells)) for j, c in enumerate(columns)]
    left = max(len(corner), *map(len, rows))
    lines = [corner.ljust(left) + "".join(f"  {c:>{w}}" for c, w in zip(columns, widths, strict=True))]
    for name, line in zip(rows, cells, strict=True):
        lines.append(name.ljust(left) + "".join(f"  {c:>{w}}" for c, w in zip(line, widths, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def _shaded(values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], corner: str) -> str:
    blocks, rows, columns = in_blocks(values, rows, columns)
    left = max(len(corner), *map(len, rows))
    shade = shares(blocks)
    lines = [f"{corner.ljust(left)}  {columns[0]} ... {columns[-1]}"]
    for i, name in enumerate(rows):
        marks = (SHADES[max(1, round(s * 9))] if v else " " for s, v in zip(shade[i], blocks[i], strict=True))
        lines.append(f"{name.ljust(left)}  " + "".join(marks).rstrip())
    lines.append(f"{SHADES[1]} a thousandth or less of {SHADES[-1]} {number(float(np.abs(blocks).max()))}; blank: 0")
    return "\n".join(lines)


def in_blocks(
    values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]
) -> tuple[NDArray[np.float64], list[str], list[str]]:
    """A table of at most 64 rows and columns: the largest number of each block of a larger one, named by its first."""
    steps = [-(-n // CELLS) for n in values.shape]
    starts = [np.arange(0, n, step) for n, step in zip(values.shape, steps, strict=True)]
    small = np.maximum.reduceat(np.maximum.reduceat(np.abs(values), starts[0], axis=0), starts[1], axis=1)
    return small, [rows[i] for i in starts[0]], [columns[j] for j in starts[1]]


def as_html(
    values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], caption: str, corner: str = ""
) -> str:
    """A table of HTML that is readable on a light and on a dark ground; each cell says its number."""
    values, rows, columns = in_blocks(values, rows, columns)
    head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in columns)
    lines = []
    for name, line, shade in zip(rows, values, shares(values), strict=True):
        cells = "".join(
            f'<td style="background:rgba(217,98,43,{s:.2f});min-width:1.2em" title="{v:.6g}">'
            f"{number(v) if len(columns) <= NUMBERS else ''}</td>"
            for v, s in zip(line, shade, strict=True)
        )
        lines.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr><th>{html.escape(corner)}</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


@plain_labels()
def plot(
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """A heat map on a figure of matplotlib, logarithmic over three powers of ten, saved at `path` if that is given."""
    try:
        from matplotlib.colors import LogNorm
    except ImportError:
        raise ImportError(INSTALL) from None

    side = min(2.6 + 0.42 * max(values.shape), 8.0)
    figure = new_figure((side + 1.2, side), dpi=130)
    axes = figure.subplots()
    top = float(np.abs(values).max(initial=0.0)) or 1.0
    shown = np.ma.masked_equal(np.maximum(np.abs(values), np.where(values == 0, 0.0, top / 1000)), 0.0)
    image = axes.imshow(shown, norm=LogNorm(top / 1000, top), cmap="Oranges")
    for axis, labels in ((axes.xaxis, columns), (axes.yaxis, rows)):
        every = -(-len(labels) // 16)
        axis.set_ticks(range(0, len(labels), every), labels=list(labels[::every]))
    if max(values.shape) <= NUMBERS:
        for (i, j), value in np.ndenumerate(values):
            if value:
                dark = shares(values)[i, j] > 0.7
                axes.text(j, i, number(value), ha="center", va="center", color="white" if dark else "black", fontsize=8)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("norm of the entry (blank: 0)")
    if path is not None:
        save_picture(figure, os.fspath(path))
    return figure
