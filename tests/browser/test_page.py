"""The page in a browser: what it shows, its address, a training run."""

from __future__ import annotations

import json
import urllib.request

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, entries, settled

PIXELS = "[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())"


def answer_of(address: str, query: str) -> dict:
    with urllib.request.urlopen(f"{address}answer?{query}") as answer:
        return json.load(answer)


def test_the_page_works_under_its_own_policy(open_page: Open) -> None:
    page = open_page("#cell=lstm&steps=6", own_policy=True)
    expect(page.locator("#network-text")).to_contain_text("LSTM with 4 hidden units")
    page.get_by_role("slider", name="Steps T").press("ArrowRight")
    expect(page.locator("#steps-shown")).to_have_text("7")
    expect(page.locator("#network-text")).to_contain_text("each of the 7 steps")
    page.get_by_role("button", name="Train").click()
    expect(page.locator("#training-status")).to_contain_text("After 400 steps", timeout=30_000)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("loss", ["last", "every"])
def test_every_picture_shows_the_numbers_of_the_answer(open_page: Open, address: str, cell: str, loss: str) -> None:
    query = f"cell={cell}&steps=5&hidden=3&loss={loss}&seed=4"
    page = open_page(f"#{query}")
    answer = answer_of(address, query)
    count = 5 if loss == "last" else 15
    assert len(entries(page, "#ledger")) == count == sum(map(len, answer["ledger"]["rows"]))
    assert len(entries(page, "#forward")) == 5 * (2 + 3 + 3 * (cell == "lstm") + 2)
    assert len(entries(page, "#sweep")) == 5 * 3
    assert len(entries(page, "#gates")) == {"rnn": 0, "lstm": 60, "gru": 45}[cell]
    said = [entry for entry in entries(page, "#forward") if entry.startswith("h_")]
    for j, t in ((0, 0), (2, 4), (1, 3)):
        shown = page.evaluate("v => Draw.number(v)", answer["forward"]["h"][t][j])
        assert said[j * 5 + t] == f"h_{t}, the state, unit {j} after step {t}: {shown}"
    t, place = (4, "implicit") if loss == "last" else (0, "explicit")
    assert entries(page, "#ledger")[0] == f"loss of step {t}, use at step 0, {place}: exactly 0"


def test_the_sweep_goes_from_the_last_step_to_the_first(open_page: Open) -> None:
    page = open_page("#steps=4")
    back, later = page.get_by_role("button", name="Back in time"), page.get_by_role("button", name="Forward")
    expect(later).to_be_disabled()
    for t in (3, 2, 1, 0):
        expect(page.locator("#flows")).to_contain_text(f"to Whh, for step {t}")
        assert sum("not come here yet" in said for said in entries(page, "#sweep")) == 4 * t
        if t:
            back.click()
    expect(back).to_be_disabled()
    assert page.evaluate("location.hash") == "#steps=4&at=0"
    later.click()
    assert page.evaluate("location.hash") == "#steps=4&at=1"


def test_the_sweep_plays(open_page: Open) -> None:
    page = open_page("#steps=3&at=0")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#flows")).to_contain_text("for step 2")
    expect(page.locator("#flows")).to_contain_text("for step 0", timeout=10_000)
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_truncation_cuts_the_band(open_page: Open) -> None:
    page = open_page("#steps=6&loss=every&k2=2")
    said = entries(page, "#ledger")
    assert sum("cut off" in entry for entry in said) == 10 == sum(range(5))
    for entry in said:
        t, k = (int(entry.split(name)[1].split(",")[0]) for name in ("loss of step ", "use at step "))
        assert ("cut off" in entry) == (t - k >= 2) and ("explicit" in entry) == (t == k)
    expect(page.locator("#cut-text")).to_contain_text("k2 = 2 keeps t − k < 2")
    page.get_by_role("slider", name="Truncation k2").press("End")
    expect(page.locator("#cut-text")).to_have_text("Truncation: nothing is cut.")
    assert not any("cut off" in entry for entry in entries(page, "#ledger"))
    page.get_by_role("slider", name="Steps T").press("ArrowRight")  # whole stays whole
    expect(page.locator("#k2-shown")).to_have_text("whole")


def test_the_address_keeps_the_state(open_page: Open) -> None:
    page = open_page()
    assert page.evaluate("location.hash") == ""
    page.get_by_role("radio", name="GRU").check()
    page.get_by_role("slider", name="Steps T").fill("12")
    page.get_by_role("radio", name="every step").check()
    page.get_by_role("slider", name="Truncation k2").fill("3")
    page.get_by_role("button", name="Another").click()
    page.locator("#at").fill("5")
    address = page.url
    assert address.endswith("#cell=gru&loss=every&steps=12&k2=3&seed=1&at=5")
    settled(page)
    shown = page.locator("main").inner_html(), page.evaluate(PIXELS)
    page.goto("about:blank")
    page.goto(address)
    page.locator("body[data-answered]").wait_for()
    settled(page)
    assert (page.locator("main").inner_html(), page.evaluate(PIXELS)) == shown


def test_back_and_forward_work(open_page: Open) -> None:
    page = open_page()
    for name in ("LSTM", "GRU"):
        page.get_by_role("radio", name=name, exact=True).check()
        settled(page)
    slider = page.get_by_role("slider", name="Steps T")
    for value in range(9, 20):  # a drag is one entry
        slider.evaluate("(s, v) => { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})) }", value)
    slider.dispatch_event("change")
    settled(page)
    for words in ("101 parameters, the same at each of the 8 steps", "LSTM", "RNN"):
        page.go_back()
        expect(page.locator("#network-text")).to_contain_text(words)
    expect(page.get_by_role("radio", name="RNN", exact=True)).to_be_checked()
    page.go_forward()
    expect(page.get_by_role("radio", name="LSTM")).to_be_checked()
    expect(page.locator("#network-text")).to_contain_text("LSTM")


def test_things_to_try_and_start_again(open_page: Open) -> None:
    page = open_page()
    for link in page.get_by_role("navigation").get_by_role("link").all():
        link.click()
        settled(page)
        expect(page.locator("#problem")).to_be_hidden()
        assert "=" in page.evaluate("location.hash")
    page.get_by_role("button", name="Start again").click()
    settled(page)
    assert page.evaluate("location.hash") == ""


def test_a_part_of_the_page_can_be_shown_alone(open_page: Open) -> None:
    page = open_page("#show=ledger,flow&steps=4", width=736)
    for part in ("network", "forward", "sweep", "ledger", "flow", "gates", "training"):
        expect(page.locator(f"[data-part={part}]")).to_be_visible(visible=part in ("ledger", "flow"))
    page.get_by_role("slider", name="Steps T").press("ArrowRight")
    assert page.url.endswith("#steps=5&show=ledger%2Cflow")
    page.get_by_role("button", name="The whole page").click()
    expect(page.locator("[data-part=gates]")).to_be_visible()
    assert page.url.endswith("#steps=5") and len(entries(page, "#forward")) == 5 * 8
    page.go_back()
    expect(page.locator("[data-part=gates]")).to_be_hidden()
    open_page("#show=nothing&steps=4")
    expect(page.locator("[data-part=ledger]")).to_be_visible()


def test_a_bad_value_in_the_address_gets_the_sentence(open_page: Open) -> None:
    page = open_page("#steps=99")
    expect(page.get_by_role("alert")).to_have_text("steps must be a whole number from 1 to 64, not '99'")
    assert "400" in open_page.complaints.pop()  # Chromium's own
    page.get_by_role("slider", name="Steps T").fill("5")
    expect(page.locator("#problem")).to_be_hidden()
    page.get_by_label("Seed").fill("12345")
    page.get_by_label("Seed").blur()
    expect(page.get_by_role("alert")).to_have_text("The seed must be a whole number from 0 to 9999.")


def test_a_training_run_stops(open_page: Open) -> None:
    page = open_page("#cell=lstm&steps=40&hidden=16")
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_role("button", name="Train")).to_be_disabled()
    page.wait_for_function("Draw.entries(document.getElementById('training')).length > 6")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#training-status")).to_contain_text("Stopped after")
    page.get_by_role("button", name="Train").click()  # the server has noticed
    expect(page.locator("#training-status")).to_have_text("Training …")
    expect(page.locator("#training canvas")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Stop").click()


def test_a_server_that_has_gone_is_told(open_page: Open) -> None:
    page = open_page()
    page.route("**/answer?*", lambda route: route.abort())
    page.get_by_role("radio", name="GRU").check()
    expect(page.get_by_role("alert")).to_contain_text("Is tinygrad-rnn explore still running?")
    assert "ERR_FAILED" in open_page.complaints.pop()
