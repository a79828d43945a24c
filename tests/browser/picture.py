"""The picture of the page in docs/explore.md: `python -m tests.browser.picture` takes it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from tinygrad_rnn.explore.server import open_server

PICTURE = Path(__file__).parents[2] / "docs" / "explore.png"


def take() -> None:
    """The controls, and the sweep of twelve steps beside the ledger, at half their size."""
    with open_server(0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 1180}, bypass_csp=True)
        page.goto(f"{server.url}#cell=rnn&steps=12&loss=every&k2=4&at=6&show=sweep,ledger")
        page.locator("body[data-answered]").wait_for()
        page.screenshot(path=PICTURE)
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    take()
