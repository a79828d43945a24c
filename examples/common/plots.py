"""What the pictures of the examples share: colours, curves, attention, small pictures, text coloured by character.

Axes are those of matplotlib, which is not imported here: `Experiment.picture` has the figure to draw on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

BLUE, ORANGE, GREEN, PURPLE, GREY, INK = "#3b6fb6", "#d9622b", "#4a9a5b", "#9a4fb0", "#8a8a8a", "#222222"

CELLS = {
    "RNN": GREEN,
    "sigmoid RNN": "#a5cdad",
    "tanh RNN": GREEN,
    "ReLU RNN": "#1f5a2d",
    "LSTM": BLUE,
    "peephole LSTM": "#2aa5b8",
    "GRU": PURPLE,
    "layer-normalised GRU": "#d977b5",
}
"""The colour of each cell, in every picture. Orange, grey and ink are of no cell: marks, baselines and the truth."""

Curve = tuple[npt.ArrayLike, npt.ArrayLike]


def tones(colour: str, count: int) -> list[str]:
    """`count` tones of a colour "#rrggbb", from pale to itself: for what one cell does in several ways.

    >>> tones("#3b6fb6", 2)
    ['#9db7db', '#3b6fb6']
    """
    channels = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return ["#" + "".join(f"{255 - (255 - c) * k // count:02x}" for c in channels) for k in range(1, count + 1)]


def draw_curves(axes: Axes, curves: Mapping[str, Curve], colours: Iterable[str], **style: Any) -> None:
    """A line for each of the curves, `x` (N,) and `y` (N,), under the name that the legend has for it.

    `colours` are as many, in the same order; `style` is what `Axes.plot` takes besides. Raises ValueError unless there
    are as many colours as curves.

        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> draw_curves(axes, {"LSTM": ([1, 2], [0.5, 0.1]), "mean": ([1, 2], [0.6, 0.6])}, (CELLS["LSTM"], GREY))
        >>> [(line.get_label(), line.get_color()) for line in axes.lines]
        [('LSTM', '#3b6fb6'), ('mean', '#8a8a8a')]
    """
    for (name, (x, y)), colour in zip(curves.items(), colours, strict=True):
        label = "\u200b" * name.startswith("_") + name  # matplotlib leaves those with a _ out of the legend
        axes.plot(np.asarray(x), np.asarray(y), color=colour, label=label, **style)


def draw_weights(
    axes: Axes, weights: npt.ArrayLike, read: Sequence[str], written: Sequence[str], **style: Any
) -> AxesImage:
    """Where attention looks: `weights` (L, S) from 0 to 1, a row for each token that is `written` (L,), a column for
    each that is `read` (S,); what it returns is what `Figure.colorbar` takes.

    `style` is what the tokens below get as text, `rotation=40` for words, say. Raises ValueError if the tokens are not
    as many as the weights.
    """
    values = np.asarray(weights)
    if values.shape != (len(written), len(read)):
        raise ValueError(f"weights {values.shape} for {len(written)} tokens written and {len(read)} read")
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(read)), read, fontsize=12, **style)
    axes.set_yticks(range(len(written)), written, fontsize=12)
    axes.tick_params(length=0)
    axes.set_ylabel("written")
    return image


def draw_picture(axes: Axes, picture: npt.ArrayLike, title: str = "", cmap: str = "gray_r", **style: Any) -> None:
    """A small picture (rows, columns) of values from 0 up, without ticks and frame, so that many can stand in a grid.

    The ground, 0, is not quite white, and shows where the picture ends. `style` is what `Axes.set_title` takes.
    """
    values = np.asarray(picture)
    axes.imshow(values, cmap=cmap, vmin=-0.06 * float(values.max()))
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.set_title(title, **{"fontsize": 10, "color": INK, **style})


def draw_text(
    axes: Axes,
    text: str,
    colours: Sequence[str] | None = None,
    marked: npt.ArrayLike | None = None,
    **style: Any,
) -> None:
    """Text in lines and columns of one unit each, line 0 at y = 0, and nothing else on the axes.

    `colours` has one for each character, line ends included, and `marked` says, likewise, which stand on a coloured
    ground. Blanks are not drawn. `style` is what `Axes.text` takes. Raises ValueError if there are not as many colours
    or marks as characters.

        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> draw_text(axes, "if x:", [BLUE, BLUE, INK, INK, ORANGE])
        >>> [(c.get_text(), c.get_position()[0]) for c in axes.texts]
        [('i', 0.5), ('f', 1.5), ('x', 3.5), (':', 4.5)]
    """
    box = {"facecolor": "#f6c6b3", "edgecolor": "none", "pad": 0.8}
    look = {"fontfamily": "monospace", "fontsize": 8, "ha": "center", "va": "center", **style}
    row = column = 0
    on_ground = [False] * len(text) if marked is None else np.asarray(marked).tolist()
    for c, colour, mark in zip(text, [INK] * len(text) if colours is None else colours, on_ground, strict=True):
        if not c.isspace():
            axes.text(column + 0.5, row, c, color=colour, bbox=box if mark else None, **look)
        row, column = (row + 1, 0) if c == "\n" else (row, column + 1)
    axes.set_axis_off()
