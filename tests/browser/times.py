"""How soon the page answers, from a change of a control to the new picture: `make browser-times`, on a quiet machine.

It is no part of `make browser-test`: what is timed must not fail because something else runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import mean, median

import pytest

from tests.browser.conftest import Open
from tests.browser.test_drag import CHANGE, DRAG

TRIES = (1, 101, 201)  # each with seeds of its own, of which no answer is known yet


def load() -> float:
    """How many programs want a core here and now, for each core there is: so many times longer all takes."""
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return max(1.0, running / os.cpu_count())


@pytest.mark.parametrize("loss", ["last", "every"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_change_is_a_picture_at_once(open_page: Open, cell: str, loss: str) -> None:
    page = open_page(f"#cell={cell}&loss={loss}&hidden=16&seed=1000")
    for first in TRIES:
        page.evaluate(CHANGE, ["seed", first + 50])
        changes = [("steps", T) for T in (8, 16, 24, 32, 48, 64)] + [("seed", first + k) for k in range(5)]
        changes += [("scale", 0.5), ("k2", 9), ("steps", 63), ("hidden", 15), ("hidden", 16), ("scale", 1.5)]
        times, loads = [], []
        for change in changes:
            times.append(page.evaluate(CHANGE, list(change)))
            loads.append(load())
        said = f"{cell}, {loss}: median {median(times):.0f} ms, worst {max(times):.0f} ms, load {mean(loads):.1f}"
        print(said)
        if median(times) < 200 * mean(loads) and max(times) < 400 * mean(loads):
            return
    raise AssertionError(said)


@pytest.mark.parametrize("pause", [0, 10, 30])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_drag_settles_soon(open_page: Open, cell: str, pause: int) -> None:
    page = open_page(f"#cell={cell}&hidden=16")
    for first in TRIES:
        for change in (["steps", 8], ["seed", first]):
            page.evaluate(CHANGE, change)
        before = load()
        slow = page.evaluate(DRAG, pause)
        now = mean([before, load()])
        said = f"{cell}, 30 events {pause} ms apart: settled after {slow:.0f} ms, load {now:.1f}"
        print(said)
        if slow < 500 * now:
            return
    raise AssertionError(said)
