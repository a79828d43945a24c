"""Pictures of the flow of gradients and of gates, by matplotlib, which is imported where one is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.explain import text, verdicts
from tinygrad_rnn.screen import install, new_figure, plain_labels, save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSTALL = f"pictures need matplotlib: {install('matplotlib')}"
WORDS = {
    "i": "i, input gate", "f": "f, forget gate", "g": "g, candidate", "o": "o, output gate", "c": "c, cell",
    "r": "r, reset gate", "z": "z, update gate", "n": "n, candidate", "h": "h, state",
}  # fmt: skip
"""What the gates and the states are called."""
FLOOR = 1e-30  # of a gradient: less is drawn as that
IN_01 = "iforz"
"""Those that lie between 0 and 1."""
BLUE, ORANGE, GREEN, GREY, INK = (
    "#3b6fb6",
    "#d9622b",
    "#3f8f5b",
    "#8a8a8a",
    "#757575",
)  # INK is read on light and on dark ground


def picture(
    draw: Callable[..., None], what: Any, path: str | os.PathLike[str] | None, size: tuple[float, float], **options: Any
) -> Figure:
    """A figure of so many inches on which `draw(figure, what)` has drawn, saved as `path` if one is given."""
    try:
        figure = new_figure(size)
    except ImportError:
        raise ImportError(INSTALL) from None
    with plain_labels():
        draw(figure, what, **options)
    if path is not None:
        save_picture(figure, os.fspath(path))
    return figure


def draw_flow(figure: Figure, flow: Any) -> None:
    """A row for each layer: on the left the gradients below their bound, on the right what each step does to them."""
    grid = figure.subplots(len(flow), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), layer in zip(grid, flow, strict=True):
        columns, t = layer.columns(), np.arange(layer.T)
        if "bound" in columns:
            left.plot(t, positive(columns["bound"]), color=GREY, linestyle=(0, (4, 3)), label="bound", zorder=2)
        if "|dL/dc|" in columns:
            left.plot(
                t, positive(columns["|dL/dc|"]), color=ORANGE, marker="s", markersize=3, label="|dL/dc_t|", zorder=3
            )
        left.plot(t, positive(columns["|dL/dh|"]), color=BLUE, marker="o", markersize=4, label="|dL/dh_t|", zorder=4)
        if "carried" in columns:
            label = "of the last step's gradient"
            left.plot(t, positive(columns["carried"]), color=BLUE, linestyle=":", label=label, zorder=2)
        left.set_yscale("log")
        left.set_ylabel("norm")
        left.set_title(f"{layer.title}\n{_said(layer)}", loc="left", fontsize=10, color=INK)
        right.axhline(1.0, color=GREY, linewidth=0.9)
        for name, label, colour, mark in (
            ("step", "||W_hh|| max |f'|", GREY, "x"),
            ("|J|", "|dh_t / dh_t-1|" if layer.dc is None else "|d(h, c)_t / d(h, c)_t-1|", GREEN, "o"),
            ("radius", "its spectral radius", ORANGE, "^"),
        ):
            if name in columns:
                right.plot(t, columns[name], color=colour, marker=mark, markersize=3, linewidth=1, label=label)
        right.set_title("one step, mean of the batch", loc="left", fontsize=10, color=INK)
        for axes in (left, right):
            _plain(axes, "step t")
            axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.18), ncols=4)


def draw_watched(figure: Figure, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """A row for each layer: what was left of the gradient k steps before the last (looks, K), and at the first step."""
    from matplotlib.colors import LogNorm

    grid = figure.subplots(len(found), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), (title, (steps, rows)) in zip(grid, found.items(), strict=True):
        looks = np.arange(len(steps) + 1) - 0.5  # of the same width each, as the training may end right after the last
        shown = np.clip(rows, 1e-6, 1e6)
        drawn = left.pcolormesh(
            looks, np.arange(rows.shape[1] + 1) - 0.5, shown.T, norm=LogNorm(1e-6, 1e2), cmap="viridis"
        )
        figure.colorbar(drawn, ax=left, pad=0.01, extend="both")
        left.set_title(f"{title}: what is left of the last step's gradient", loc="left", fontsize=10, color=INK)
        left.set_ylabel("steps of time before the last")
        left.set_xlabel("looked at in step of the training")
        ticks = text.picked(len(steps), 9)
        left.set_xticks(ticks, [str(steps[i]) for i in ticks])
        arrives = np.maximum(positive(rows[:, -1]), FLOOR)  # what is less stands on the edge
        right.axhspan(FLOOR / 3, verdicts.VANISHES, color="#f3f3f3", zorder=0)
        right.axhline(1.0, color=GREY, linewidth=0.9)
        right.plot(steps, arrives, color=BLUE, linewidth=1.5, marker="o", markersize=3, zorder=3)
        right.set_yscale("log")
        low, high = np.nanmin(arrives, initial=1.0), np.nanmax(arrives, initial=1.0)
        right.set_ylim(max(low / 3, FLOOR / 3), high * 3)
        right.set_title("what arrives at the first step", loc="left", fontsize=10, color=INK)
        right.set_ylabel("part of it (grey: it vanishes)")
        _plain(right, "step of the training")


def draw_gates(figure: Figure, gates: Any, *, tokens: Sequence[str], sequence: int, unit: int | None) -> None:
    """For each gate of each layer a map of steps by units, or for each layer the curves of one unit."""
    t = np.arange(len(tokens))
    if unit is None:
        rows = [(layer, name) for layer in gates for name in layer.names]
        grid = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (layer, name) in zip(grid, rows, strict=True):
            values = getattr(layer, name)[: len(tokens), sequence].T
            size = max(1.0, float(np.nanmax(np.abs(values))))
            look = (
                {"cmap": "viridis", "vmin": 0, "vmax": 1}
                if name in IN_01
                else {"cmap": "RdBu_r", "vmin": -size, "vmax": size}
            )
            drawn = axes.imshow(values, aspect="auto", interpolation="nearest", **look)
            figure.colorbar(drawn, ax=axes, pad=0.01, aspect=8)
            axes.set_yticks([])
            axes.set_ylabel(WORDS[name].replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
            if name == layer.names[0]:
                axes.set_title(f"{layer.title}, units from top to bottom", loc="left", fontsize=10, color=INK)
    else:
        grid = figure.subplots(len(gates), 1, squeeze=False, sharex=True)[:, 0]
        for axes, layer in zip(grid, gates, strict=True):
            for name, mark in zip(layer.names, "o^sDxv", strict=False):
                values = getattr(layer, name)[: len(tokens), sequence, unit]
                axes.plot(t, values, marker=mark, markersize=3, linewidth=1.2, label=WORDS[name])
            axes.set_title(f"{layer.title}, unit {unit}", loc="left", fontsize=10, color=INK)
            axes.axhline(0.0, color=GREY, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    grid[-1].set_xticks(t, ["␣" if token == " " else "⏎" if token == "\n" else token for token in tokens])
    if max(map(len, tokens)) > 2:
        grid[-1].tick_params(axis="x", rotation=60)


def _said(layer: Any) -> str:
    """The verdict without its reasons."""
    if layer.state == "none":
        return "no gradient"
    return f"the last step's gradient {verdicts.word(layer)}, {text.share(layer.arrives)} arrives at the first"


def _plain(axes: Any, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=GREY, alpha=0.2, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def positive(values: np.ndarray) -> np.ndarray:
    """Numbers for a logarithmic axis, on which 0 has no place."""
    return np.where(values > 0, values, np.nan)
