"""The page, served by the command, in a headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import tinygrad_rnn as tr

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where the command has said that the page is."""
    command = [sys.executable, "-W", "error", "-m", "tinygrad_rnn", "explore", "--port", "0", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(Path(tr.__file__).parents[1])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the command has not said where the page is"
        yield found.group()
        process.terminate()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that the variable CHROMIUM names. Without one the tests fail."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.fail("there is no chromium: apt-get install chromium, or have CHROMIUM name one")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # as root there is no sandbox
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """`open_page("#cell=lstm", width=390, color_scheme="dark")`: the page, its first pictures drawn. Whatever the
    browser complains of fails the test, unless it is taken out of `open_page.complaints`.
    """
    complaints: list[str] = []
    contexts = []

    def opened(where: str = "", *, width: int = 1280, height: int = 900, own_policy: bool = False, **options) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, bypass_csp=not own_policy, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(where if ":" in where else address + where)
        page.locator("body[data-answered]").wait_for()
        return page

    opened.complaints = complaints
    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def settled(page: Page) -> None:
    """Wait until the pictures are those of the settings."""
    page.wait_for_function("document.body.dataset.shown?.startsWith(`${State.query(false)} k2=${State.k2} `)")


def entries(page: Page, host: str) -> list[str]:
    """What is said of each entry of the pictures in an element."""
    return page.eval_on_selector(host, "host => Draw.entries(host)")
