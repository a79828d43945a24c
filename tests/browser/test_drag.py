"""A slider that is dragged: its events are many, the requests few, and the last of them is what the page shows."""

from __future__ import annotations

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


@pytest.mark.parametrize("pause", [0, 10, 30])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_drag_asks_seldom_and_shows_its_end(open_page: Open, cell: str, pause: int) -> None:
    page = open_page(f"#cell={cell}&hidden=16")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for change in (["steps", 8], ["seed", 1]):
        page.evaluate(CHANGE, change)
    asked.clear()
    page.evaluate(DRAG, pause)
    settled(page)
    assert 1 <= len(asked) <= 10 and "steps=35" in asked[-1], asked
