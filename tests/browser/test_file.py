"""The page as one file, from a disk."""

from __future__ import annotations

import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import Open, entries, settled


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the file that the command writes."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    subprocess.run([sys.executable, "-m", "tinygrad_rnn", "explore", "--html", str(path)], check=True, timeout=300)
    assert path.stat().st_size < 1_000_000
    return path.as_uri()


def test_it_works_alone_and_under_its_own_policy(open_page: Open, file: str) -> None:
    page = open_page(file, own_policy=True, offline=True)
    loaded = []
    page.on("request", lambda request: loaded.append(request.url))
    expect(page.locator("#network-text")).to_contain_text("RNN with 4 hidden units")
    expect(page.locator("#stored-note")).to_contain_text("it holds the answers to 400 settings")
    page.get_by_role("radio", name="LSTM").check()
    page.get_by_role("radio", name="every step").check()
    expect(page.locator("#network-text")).to_contain_text("LSTM with 4 hidden units")
    assert len(entries(page, "#ledger")) == 36
    page.get_by_role("button", name="Back in time").click()
    expect(page.locator("#flows")).to_contain_text("for step 6")
    assert page.url == f"{file}#cell=lstm&loss=every&at=6" and not loaded


def test_its_controls_offer_what_it_holds(open_page: Open, file: str) -> None:
    page = open_page(file)
    for name, values in {"steps": "4 8 16 32", "scale": "0.60 0.80 1.00 1.50 2.00"}.items():
        slider = page.locator(f"#{name}")
        slider.press("Home")
        for value in values.split():
            expect(page.locator(f"#{name}-shown")).to_have_text(value)
            expect(slider).to_have_attribute("aria-valuetext", value)
            slider.press("ArrowRight")
            settled(page)
            expect(page.locator("#problem")).to_be_hidden()
        expect(page.locator(f"#{name}-shown")).to_have_text(values.split()[-1])
    expect(page.locator("#hidden")).to_be_disabled()
    for seed in ("1", "0"):
        page.get_by_role("button", name="Another").click()
        expect(page.locator("#seed")).to_have_value(seed)
    page.get_by_role("slider", name="Truncation k2").fill("5")
    expect(page.locator("#cut-text")).to_contain_text("k2 = 5 keeps")
    expect(page.get_by_role("button", name="Train")).to_be_hidden()
    expect(page.locator("#training-text")).to_contain_text("tinygrad-rnn explore opens this page with a training run")


def test_things_to_try_are_inside(open_page: Open, file: str) -> None:
    page = open_page(file)
    for link in page.get_by_role("navigation").get_by_role("link").all():
        link.click()
        settled(page)
        expect(page.locator("#problem")).to_be_hidden()


def test_what_it_does_not_hold_is_told(open_page: Open, file: str) -> None:
    page = open_page(f"{file}#steps=5")
    said = "This file holds no answer for steps = 5: of steps it has 4, 8, 16, 32."
    expect(page.get_by_role("alert")).to_have_text(said)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, file: str, scheme: str) -> None:
    page = open_page(f"{file}#cell=gru", color_scheme=scheme)
    found = Axe().run(page)
    assert not found.violations_count, found.generate_report()


def test_it_is_the_page_of_the_server(open_page: Open, file: str) -> None:
    """The same pictures, to the pixel, for the same settings."""
    pixels = "[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())"
    texts = "[...document.querySelectorAll('main section')].map(section => section.textContent)"
    where = "#cell=lstm&loss=every&steps=16&k2=4&at=9"
    one, other = open_page(f"{file}{where}"), open_page(where)
    for page in (one, other):
        settled(page)
    assert one.evaluate(pixels) == other.evaluate(pixels)
    assert one.evaluate(texts)[:-1] == other.evaluate(texts)[:-1]  # all but the training run
