"""What one sees while it trains: a live display in a terminal, plain lines anywhere else.

step     420/1,500  loss 1.402  bits/char 2.023  held-out 2.088   68,120 chars/s  0:38 left
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


class Display(Protocol):
    """What the loop tells while it runs."""

    def start(self, steps: int | None, unit: str) -> None:
        """Training begins: its number of steps, if that is fixed, and the name of what is counted."""

    def show(self, record: Mapping[str, float], used: float, seconds: float, note: str) -> None:
        """One record of the metrics, the part of the budget used, the seconds so far, and a line of text or
        ''.
        """

    def stop(self) -> None:
        """Training is over, whatever ended it."""


class Silent:
    """Shows nothing."""

    def start(self, steps: int | None, unit: str) -> None: ...

    def show(self, record: Mapping[str, float], used: float, seconds: float, note: str) -> None: ...

    def stop(self) -> None: ...


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> clock(38.2), clock(3725)
    ('0:38', '1:02:05')
    """
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class _Figures:
    """The figures of a display: the newest held-out figure stays, losses and rates are smoothed a little."""

    def __init__(self, steps: int | None, unit: str) -> None:
        self.steps, self.unit = steps, unit
        self.step, self.left, self.used = 0, float("nan"), 0.0
        self.smooth: dict[str, float] = {}
        self.held_out: float | None = None

    def take(self, record: Mapping[str, float], used: float, seconds: float) -> None:
        self.step, self.used = int(record["step"]), used
        self.left = seconds * (1 - used) / used if used else float("nan")
        for key, value in record.items():
            old = self.smooth.get(key, value)
            self.smooth[key] = 0.9 * old + 0.1 * value
        self.held_out = record.get("held_out_bits_per_char", self.held_out)

    def parts(self) -> dict[str, str]:
        """Each figure, spelt out."""
        found = {"step": f"{self.step:,}" + (f"/{self.steps:,}" if self.steps else "")}
        found["loss"] = f"{self.smooth.get('loss', float('nan')):.3f}"
        if "bits_per_char" in self.smooth:
            found["bits/char"] = f"{self.smooth['bits_per_char']:.3f}"
            found["held-out"] = "-" if self.held_out is None else f"{self.held_out:.3f}"
        found["rate"] = f"{self.smooth.get(f'{self.unit}_per_second', 0):,.0f} {self.unit}/s"
        found["left"] = f"{clock(self.left)} left" if 0 < self.used < 1 else ""
        return found


class PlainDisplay:
    """A line whenever something was evaluated, and at least every `every` seconds; for logs and pipes."""

    def __init__(self, every: float = 10.0, stream: Any = None) -> None:
        self.every, self.stream = every, stream

    def start(self, steps: int | None, unit: str) -> None:
        self.figures, self.last = _Figures(steps, unit), perf_counter()

    def show(self, record: Mapping[str, float], used: float, seconds: float, note: str) -> None:
        self.figures.take(record, used, seconds)
        measured = "held_out_bits_per_char" in record or bool(note)
        if not measured and perf_counter() - self.last < self.every:
            return
        self.last = perf_counter()
        p = self.figures.parts()
        width = len(f"{self.figures.steps:,}") * 2 + 1 if self.figures.steps else 8
        line = f"step {p['step']:>{width}}  loss {p['loss']}"
        if "held-out" in p:
            line += f"  bits/char {p['bits/char']}  held-out {p['held-out']:>5}"
        print(f"{line}  {p['rate']:>16}  {p['left']}".rstrip(), file=self.stream or sys.stdout, flush=True)

    def stop(self) -> None: ...


class LiveDisplay:
    """A bar and the newest figures, at the bottom of a terminal; what is evaluated scrolls past above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    def start(self, steps: int | None, unit: str) -> None:
        from rich.live import Live

        self.figures = _Figures(steps, unit)
        self.live = Live(console=self.console, refresh_per_second=8, get_renderable=self._picture, transient=True)
        self.live.start()
        self.console.print("[dim]   step  held-out  it writes[/]", highlight=False)

    def show(self, record: Mapping[str, float], used: float, seconds: float, note: str) -> None:
        self.figures.take(record, used, seconds)
        if "held_out_bits_per_char" in record or note:
            from rich.text import Text

            held_out = self.figures.parts().get("held-out", "")
            line = Text.assemble((f"{self.figures.step:>7,}", "dim"), (f"{held_out:>10}  ", "bold cyan"))
            line.append(note, style="italic")
            line.truncate(self.console.width - 1, overflow="ellipsis")
            self.console.print(line, highlight=False, no_wrap=True)

    def stop(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        p = self.figures.parts()
        top = Table.grid(padding=(0, 1), expand=True)
        top.add_column(ratio=1)
        top.add_column(justify="right", no_wrap=True)
        top.add_row(
            ProgressBar(total=1.0, completed=self.figures.used),
            Text(f"{self.figures.used:4.0%}  {p['left']}", "cyan"),
        )
        bottom = Text()
        for name in ("step", "loss", "bits/char", "held-out"):
            if name in p:
                bottom.append(f"{name} ", "dim").append(f"{p[name]}   ", "bold" if name == "held-out" else "")
        bottom.append(p["rate"])
        return Group(Text(""), top, bottom)


def display_for(console: Console) -> Display:
    """The live display if the console is a terminal, else plain lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(stream=console.file)
