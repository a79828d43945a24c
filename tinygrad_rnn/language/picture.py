"""Pictures of bits over steps: the learning curve of a run, beside what the simple models reach, or of several runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.screen import install, plain_labels, save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSTALL = f"pictures need matplotlib: {install('matplotlib')}"


def plot_loss(
    path: str | os.PathLike[str],
    records: Sequence[Mapping[str, Any]],
    *,
    title: str,
    lines: Mapping[str, float] | None = None,
) -> None:
    """Save what `draw_loss` draws as the picture `path`. Raises ImportError, with what to install, where matplotlib is
    missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(INSTALL) from None

    figure = Figure(figsize=(9, 5.2), dpi=150, layout="constrained")
    draw_loss(figure, records, title=title, lines=lines)
    save_picture(figure, os.fspath(path))


def plot_runs(path: str | os.PathLike[str], curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Save what `draw_runs` draws as the picture `path`. Raises ImportError, with what to install, where matplotlib is
    missing, and InputError for a name without an ending that matplotlib knows.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(INSTALL) from None

    figure = Figure(figsize=(9, 5.2), dpi=150, layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    kind = os.path.splitext(os.fspath(path))[1].removeprefix(".").lower()
    if kind not in kinds:
        raise InputError(f"{os.fspath(path)}: the name of a picture ends in .png, .svg or .pdf")
    draw_runs(figure, curves)
    save_picture(figure, os.fspath(path))


@plain_labels()
def draw_runs(figure: Figure, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the bits per held-out character of several runs over steps, from the records of each one's `metrics.jsonl`,
    by name, on a figure of matplotlib. Those whose marks are alike come after ten others.
    """
    axes = figure.subplots()
    best, labels = [], []
    for k, (name, records) in enumerate(curves.items()):
        points = [(r["step"], bits) for r in records if (bits := _number(r.get("held_out_bits_per_char"))) > 0]
        if points:
            x, y = zip(*points, strict=True)
            colour, marker = f"C{k % 10}", "osD^v"[k // 10 % 5]
            axes.plot(x, y, color=colour, linewidth=1.4, marker=marker, markersize=4.5)
            best.append(min(y))
            labels.append((y[-1], f"{name}  {min(y):.3f}", colour))
    if best:
        low, high = min(best), max(best)
        margin = max(0.07 * (high - low), 0.02 * low)
        axes.set_ylim(low - margin, high + max(0.8 * (high - low), 0.6 * low))  # the first steps are no news
    _label(axes, [(min(height, axes.get_ylim()[1]), text, colour) for height, text, colour in labels])
    _style(axes, "Bits per held-out character, and the least of each run")


@plain_labels()
def draw_loss(
    figure: Figure, records: Sequence[Mapping[str, Any]], *, title: str, lines: Mapping[str, float] | None = None
) -> None:
    """Draw bits per character over steps from the records of a `metrics.jsonl` on a figure of matplotlib.

    A record has a `step`, and `bits_per_char` of the training or `held_out_bits_per_char` or both. The training curve
    stands faint and smoothed, held-out figures are points, `lines` are labelled horizontal lines.
    """
    blue, orange, grey = "#3b6fb6", "#d9622b", "#8a8a8a"
    steps = np.array([r["step"] for r in records], dtype=float)
    train = np.array([_number(r.get("bits_per_char")) for r in records])
    held = [(r["step"], r["held_out_bits_per_char"]) for r in records if _number(r.get("held_out_bits_per_char")) > 0]

    axes = figure.subplots()
    for bits in (lines or {}).values():
        axes.axhline(bits, color=grey, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.plot(steps, train, color=blue, alpha=0.22, linewidth=0.8, zorder=2)
    smooth = _smooth(train, max(1, len(train) // 50))
    axes.plot(steps, smooth, color=blue, linewidth=1.8, label="training", zorder=3)
    if held:
        x, y = zip(*held, strict=True)
        axes.plot(
            x,
            y,
            color=orange,
            linewidth=1.2,
            marker="o",
            markersize=4.5,
            label="held out",
            zorder=4,
        )
    shown = [*smooth[len(smooth) // 50 :], *(bits for _, bits in held), *(lines or {}).values()]
    shown = [bits for bits in shown if np.isfinite(bits)]
    if shown:
        low, high = min(shown), max(shown)
        high = min(high, max([low * 2.6, *(lines or {}).values()]))  # the first steps are no news
        margin = 0.07 * (high - low) or 0.1
        axes.set_ylim(low - 1.6 * margin, high + margin)
    axes.set_xlim(0, 1.01 * float(steps[-1]) if len(steps) else 1)  # the last point is whole
    labels = [(bits, f"{name}  {bits:.2f}", grey) for name, bits in (lines or {}).items()]
    labels += [(min(y for _, y in held), f"held out, best  {min(y for _, y in held):.3f}", orange)] if held else []
    _label(axes, labels)
    _style(axes, title)
    axes.legend(frameon=False, loc="upper right", ncols=2)


def _style(axes: Any, title: str) -> None:
    """What all pictures of bits over steps have."""
    axes.set_xlabel("step")
    axes.set_ylabel("bits per character")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color="#222222", pad=12)
    axes.grid(axis="y", color="#ececec", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _label(axes: Any, labels: list[tuple[float, str, str]]) -> None:
    """Labels at the right-hand side, each at its height, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.042
    labels = sorted(labels)
    heights = [bits for bits, _, _ in labels]
    for k in range(1, len(heights)):
        heights[k] = max(heights[k], heights[k - 1] + gap)
    for k in reversed(range(len(heights))):  # and back down, where that went over the top
        heights[k] = min(heights[k], heights[k + 1] - gap if k + 1 < len(heights) else high)
    for height, (_, text, colour) in zip(heights, labels, strict=True):
        axes.annotate(
            text,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """A running mean over the newest `width` values (fewer at the start)."""
    if not len(values):
        return values
    total = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))
