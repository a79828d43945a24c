"""The progress of a training on the screen: a live display in a terminal or a notebook, plain lines anywhere else.

rich is imported where a terminal is drawn on, as plain lines start without it.

step     420/1,500  loss 1.402  bits/char 2.023  held-out 2.088   68,120 chars/s  0:38 left
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from tinygrad_rnn.notebook import progress_html

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


class Display(Protocol):
    """What the loop tells while it runs."""

    def start(self, steps: int | None, unit: str) -> None:
        """Training begins: its number of steps, if that is fixed, and the name of what is counted."""

    def show(
        self, record: Mapping[str, float], measured: Mapping[str, float], used: float, seconds: float, note: str
    ) -> None:
        """One record of the metrics, the part of it that an evaluation has just found (else empty), the part of the
        budget used, the seconds so far, and a line of text or ''.
        """

    def say(self, line: str) -> None:
        """Something has happened that whoever looks on should know."""

    def stop(self) -> None:
        """Training is over, whatever ended it."""


class Aside(Protocol):
    """Somebody who has something to say while a training runs, such as `explain.WatchedTask`."""

    def status(self) -> str:
        """A line for below the figures, or ''."""

    def news(self) -> str:
        """A sentence that has not been said yet, or ''."""


class Silent:
    """Shows nothing."""

    def start(self, steps: int | None, unit: str) -> None: ...

    def show(
        self, record: Mapping[str, float], measured: Mapping[str, float], used: float, seconds: float, note: str
    ) -> None: ...

    def say(self, line: str) -> None: ...

    def stop(self) -> None: ...


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> clock(38.2), clock(3725)
    ('0:38', '1:02:05')
    """
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


SHORT = {"bits_per_char": "bits/char", "held_out_bits_per_char": "held-out", "held_out_standard_error": "±"}
"""What figures are called where room is scarce; others by their own names, with blanks."""


LINES = 8  # of what has been said, in a notebook


class _Figures:
    """The figures of a display: what an evaluation found stays, losses and rates are smoothed a little."""

    def __init__(self, steps: int | None, unit: str) -> None:
        self.steps, self.unit = steps, unit
        self.step, self.left, self.used = 0, float("nan"), 0.0
        self.smooth: dict[str, float] = {}
        self.measured: dict[str, float] = {}

    def take(self, record: Mapping[str, float], measured: Mapping[str, float], used: float, seconds: float) -> None:
        self.step, self.used = int(record["step"]), used
        self.left = seconds * (1 - used) / used if used else float("nan")
        for key, value in record.items():
            if key not in measured:
                self.smooth[key] = 0.9 * self.smooth.get(key, value) + 0.1 * value
        self.measured |= measured

    def parts(self) -> dict[str, str]:
        """Each figure, spelt out: the step, those of the training, those of the last evaluation, the rate, the rest."""
        rate = f"{self.unit}_per_second"
        found = {"step": f"{self.step:,}" + (f"/{self.steps:,}" if self.steps else "")}
        found |= {key: f"{value:.3f}" for key, value in self.smooth.items() if key not in ("step", rate)}
        found |= {key: f"{value:.3f}" for key, value in self.measured.items()}
        found = {SHORT.get(key, key.replace("_", " ")): value for key, value in found.items()}
        found["rate"] = f"{self.smooth.get(rate, 0):,.0f} {self.unit}/s"
        found["left"] = f"{clock(self.left)} left" if 0 < self.used < 1 else ""
        return found


class PlainDisplay:
    """A line whenever something was evaluated, and at least every `every` seconds; for logs and pipes."""

    def __init__(self, every: float = 10.0, stream: Any = None, aside: Aside | None = None) -> None:
        self.every, self.stream, self.aside = every, stream, aside

    def start(self, steps: int | None, unit: str) -> None:
        self.figures, self.last, self.status = _Figures(steps, unit), perf_counter(), ""

    def show(
        self, record: Mapping[str, float], measured: Mapping[str, float], used: float, seconds: float, note: str
    ) -> None:
        self.figures.take(record, measured, used, seconds)
        if self.aside and (news := self.aside.news()):
            print(news, file=self.stream or sys.stdout, flush=True)
        if not measured and not note and perf_counter() - self.last < self.every:
            return
        self.last = perf_counter()
        p = self.figures.parts()
        width = len(f"{self.figures.steps:,}") * 2 + 1 if self.figures.steps else 8
        line = f"step {p.pop('step'):>{width}}"
        rate, left = p.pop("rate"), p.pop("left")
        line += "".join(f"  {name} {value:>5}" for name, value in p.items())
        print(f"{line}  {rate:>16}  {left}".rstrip(), file=self.stream or sys.stdout, flush=True)
        if self.aside and (status := self.aside.status()) != self.status:  # else it was said before
            self.status = status
            print(f"  {status}", file=self.stream or sys.stdout, flush=True)

    def say(self, line: str) -> None:
        print(line, file=self.stream or sys.stdout, flush=True)

    def stop(self) -> None: ...


class LiveDisplay:
    """A bar and the newest figures, at the bottom of a terminal; what is evaluated scrolls past above it."""

    def __init__(self, console: Console, aside: Aside | None = None) -> None:
        self.console, self.aside = console, aside
        self.live: Live | None = None

    def start(self, steps: int | None, unit: str) -> None:
        from rich.live import Live

        self.figures = _Figures(steps, unit)
        self.headed = False
        # Refreshed by `show`: an error of the terminal in a thread of its own would reach nobody.
        self.live = Live(console=self.console, auto_refresh=False, get_renderable=self._picture, transient=True)
        self.refreshed = 0.0
        self.live.start()

    def show(
        self, record: Mapping[str, float], measured: Mapping[str, float], used: float, seconds: float, note: str
    ) -> None:
        from rich.text import Text

        self.figures.take(record, measured, used, seconds)
        if self.aside and (news := self.aside.news()):
            self.console.print(Text(news, "yellow"), highlight=False, soft_wrap=True)
        if measured:
            names = [SHORT.get(name, name.replace("_", " ")) for name in measured]
            if not self.headed:
                head = "".join(f"{name:>{len(name) + 2}}" for name in names) + ("  it writes" if note else "")
                self.console.print(Text(f"{'step':>7}{head}", "dim"))
                self.headed = True
            line = Text(f"{self.figures.step:>7,}", "dim")
            for name, value in zip(names, measured.values(), strict=True):
                line.append(f"{value:>{len(name) + 2}.3f}", "bold cyan")
            line.append(f"  {note}", style="italic")
            line.truncate(self.console.width - 1, overflow="ellipsis")
            self.console.print(line, highlight=False, no_wrap=True)
        if self.live and perf_counter() - self.refreshed >= 1 / 8:
            self.refreshed = perf_counter()
            self.live.refresh()

    def say(self, line: str) -> None:
        from rich.text import Text

        self.console.print(Text(line), highlight=False, soft_wrap=True)

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
            Text(f"{self.figures.used:4.0%}  {p.pop('left')}", "cyan"),
        )
        rate = p.pop("rate")
        bottom = Text()
        for name, value in p.items():
            bottom.append(f"{name} ", "dim").append(f"{value}   ")
        bottom.append(rate)
        aside = [Text(self.aside.status(), "dim")] if self.aside else []
        return Group(Text(""), top, bottom, *aside)


class NotebookDisplay:
    """A bar, the newest figures and what has been said, below the cell of a notebook, where each takes the place of the
    one before.
    """

    def __init__(self, aside: Aside | None = None) -> None:
        self.aside = aside

    def start(self, steps: int | None, unit: str) -> None:
        from IPython.display import HTML, display

        self.figures, self.said, self.refreshed = _Figures(steps, unit), list[str](), 0.0
        self._html, self._handle = HTML, display(HTML(self._picture()), display_id=True)

    def show(
        self, record: Mapping[str, float], measured: Mapping[str, float], used: float, seconds: float, note: str
    ) -> None:
        self.figures.take(record, measured, used, seconds)
        if self.aside and (news := self.aside.news()):
            self.said.append(news)
        if note:
            self.said.append(note)
        if used >= 1 or perf_counter() - self.refreshed >= 1 / 4:
            self.refreshed = perf_counter()
            self._refresh()

    def say(self, line: str) -> None:
        self.said.append(line)
        self._refresh()

    def stop(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        self._handle.update(self._html(self._picture()))

    def _picture(self) -> str:
        status = [self.aside.status()] if self.aside else []
        return progress_html(self.figures.used, self.figures.parts(), [*self.said[-LINES:], *status])


def display_for(console: Console, aside: Aside | None = None) -> Display:
    """The live display of a terminal or of a notebook if the console is one, else plain lines; each shows what `aside`
    has to say.
    """
    if console.is_jupyter:
        return NotebookDisplay(aside)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console, aside)
    return PlainDisplay(stream=console.file, aside=aside)
