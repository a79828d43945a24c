"""The progress on the screen: plain lines, and the live display of a terminal."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tinygrad_rnn.training import LiveDisplay, NotebookDisplay, PlainDisplay, display_for

RECORDS = [
    {"step": n, "loss": 3.0 / n, "bits_per_char": 4.3 / n, "chars_per_second": 1000.0 * n}
    | ({"held_out_bits_per_char": 4.4 / n} if n % 10 == 0 else {})
    for n in range(1, 41)
]


def measured(record: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in record.items() if key.startswith("held_out")}


def test_plain_lines_come_with_evaluations() -> None:
    stream = io.StringIO()
    display = PlainDisplay(every=1e9, stream=stream)
    display.start(40, "chars")
    for record in RECORDS:
        display.show(record, measured(record), record["step"] / 40, record["step"] * 2.0, "")
    display.stop()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("step 20/40  loss 0.")
    assert "held-out 0.220" in lines[1] and "chars/s" in lines[1] and lines[1].endswith("0:40 left")


def test_the_live_display_shows_every_figure() -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
    display = display_for(console)
    assert isinstance(display, LiveDisplay)
    display.start(40, "chars")
    for record in RECORDS:
        display.show(record, measured(record), record["step"] / 40, record["step"] * 2.0, "a [bold] sample")
    console.print(display._picture())
    display.stop()
    shown = stream.getvalue()
    for part in ("step", "40/40", "loss", "bits/char", "held-out", "0.110", "chars/s", "a [bold] sample"):
        assert part in shown


def test_what_is_said_is_never_folded() -> None:
    from rich.console import Console

    stream = io.StringIO()
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=20, legacy_windows=False))
    display.start(40, "chars")
    display.say("to go on: tinygrad-rnn train --resume 'a long name'")
    display.stop()
    assert "to go on: tinygrad-rnn train --resume 'a long name'\n" in stream.getvalue()


def test_without_a_terminal_lines_are_plain() -> None:
    from rich.console import Console

    assert isinstance(display_for(Console(file=io.StringIO())), PlainDisplay)


class Notebook:
    """What IPython shows below a cell."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    def display(self, html: str, display_id: bool = False) -> Any:
        assert display_id
        self.shown.append([html])
        return SimpleNamespace(update=self.shown[-1].append)


def test_in_a_notebook_progress_is_made_new_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=notebook.display))
    aside = SimpleNamespace(news=lambda: "", status=lambda: "it flows")
    display = display_for(SimpleNamespace(is_jupyter=True), aside)  # type: ignore[arg-type]
    assert isinstance(display, NotebookDisplay)
    display.start(40, "chars")
    display.say("op by op <from here on>")
    for record in RECORDS:
        display.show(record, measured(record), record["step"] / 40, record["step"] * 2.0, "")
    display.stop()
    (below,) = notebook.shown  # one place, however often it is made new
    assert len(below) < len(RECORDS)  # not at every step
    for part in (
        "40/40",
        "bits/char",
        "0.110",
        "chars/s",
        'value="1.0000"',
        "op by op &lt;from here on&gt;",
        "it flows",
    ):
        assert part in below[-1]
    assert 'value="0.0000"' in below[0] and "op by op" in below[1]
