"""How soon the page answers, on a machine that does nothing else: from a change of a control to the new picture."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import mean, median

import pytest

from tests.browser.conftest import Open, settled

CHANGE = """async ([name, value]) => {
    const begun = performance.now();
    const input = State.form.elements[name];
    input.value = value;
    for (const kind of ["input", "change"]) input.dispatchEvent(new Event(kind, {bubbles: true}));
    const wanted = `${State.query(false)} k2=${State.k2} `;
    while (!document.body.dataset.shown.startsWith(wanted)) await new Promise((done) => setTimeout(done, 1));
    await new Promise(requestAnimationFrame);
    return performance.now() - begun;
}"""
DRAG = """async (pause) => {
    const slider = State.form.elements.steps;
    for (let k = 0; k < 30; k += 1) {
        slider.value = 64 - k;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        await new Promise((done) => setTimeout(done, pause));
    }
    const begun = performance.now();
    slider.dispatchEvent(new Event("change", {bubbles: true}));
    const wanted = `${State.query(false)} `;
    while (!document.body.dataset.shown.startsWith(wanted)) await new Promise((done) => setTimeout(done, 1));
    await new Promise(requestAnimationFrame);
    return performance.now() - begun;
}"""
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
def test_a_drag_asks_seldom_and_settles_soon(open_page: Open, cell: str, pause: int) -> None:
    page = open_page(f"#cell={cell}&hidden=16")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for first in TRIES:
        for change in (["steps", 8], ["seed", first]):
            page.evaluate(CHANGE, change)
        asked.clear()
        loads = [load()]
        slow = page.evaluate(DRAG, pause)
        loads.append(load())
        settled(page)
        said = f"{cell}, 30 events {pause} ms apart: {len(asked)} requests, settled after {slow:.0f} ms, "
        said += f"load {mean(loads):.1f}"
        print(said)
        assert 1 <= len(asked) <= 10 and "steps=35" in asked[-1], said
        if slow < 500 * mean(loads):
            return
    raise AssertionError(said)
