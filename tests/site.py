"""The site that `make docs` has built: is it whole, small, and does it load nothing from elsewhere?

`python -m tests.site docs/_build/html` checks that and prints its size; with `--search implicit` a headless Chromium
also types that word into the search page, which is a file, and the pages found are printed.
"""

from __future__ import annotations

import argparse
import html.parser
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

MOST = 10_000_000  # bytes
# Attributes by which a browser loads something at once; `href` does that of <link> only.
LOADS = {"src", "srcset", "poster", "data"}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --virtual-time-budget=20000"


class Page(html.parser.HTMLParser):
    """What a page loads, its anchors, and its text outside of code and formulas."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.pictures: list[str | None] = []  # their alternative texts, and the titles of frames
        self.prose: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name in LOADS or (name == "href" and tag in {"link", "use", "image"})):
                self.loads += re.split(r"\s*,\s*", value) if name == "srcset" else [value]
            if name == "id" and value:
                self.anchors.add(value)
        if tag in {"img", "iframe"}:
            self.pictures.append(dict(attrs).get("alt" if tag == "img" else "title"))
        if tag in {"pre", "code", "math", "script", "style"}:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.prose.append(data)


def elsewhere(address: str) -> bool:
    """Whether an address is that of another machine."""
    return re.match(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", address, re.IGNORECASE) is not None


def faults_of_page(text: str) -> Iterator[str]:
    """What is wrong with the HTML of one page."""
    page = Page(text)
    yield from (f"loads {address} from elsewhere" for address in page.loads if elsewhere(address))
    yield from faults_of_style(" ".join(re.findall(r"<style.*?</style>", text, re.DOTALL)))
    if "system-message" in text or 'class="problematic"' in text:
        yield "has a message of docutils in it"
    if found := re.search(r"\$\$|\\[a-z]{3,}\b", "".join(page.prose)):
        yield f"shows a formula as its source: {found.group()}"
    if not all(page.pictures):
        yield "has a picture or a frame without words for it"


def faults_of_style(text: str) -> Iterator[str]:
    """What a style sheet loads from elsewhere."""
    for address in re.findall(r"url\(\s*['\"]?([^'\")]*)|@import\s+['\"]([^'\"]*)", text):
        if elsewhere("".join(address)):
            yield f"loads {''.join(address)} from elsewhere"


def faults(folder: Path, names: set[str]) -> Iterator[str]:
    """What is wrong with a site, whose pages must have an anchor for each of `names`."""
    for path in sorted(folder.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        names = names - Page(text).anchors
        yield from (f"{path.relative_to(folder)} {fault}" for fault in faults_of_page(text))
        for address in Page(text).loads:
            file = unquote(re.split("[?#]", address)[0])
            if not elsewhere(address) and not address.startswith("data:") and not (path.parent / file).exists():
                yield f"{path.relative_to(folder)} loads {address}, which is not there"
    for path in sorted(folder.rglob("*.css")):
        yield from (f"{path.name} {fault}" for fault in faults_of_style(path.read_text(encoding="utf-8")))
    if names:
        yield f"no page tells of {', '.join(sorted(names))}"
    if size(folder) > MOST:
        yield f"it has {size(folder):,} bytes, {MOST:,} are allowed"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def public_names() -> set[str]:
    """The full names of all that the API must tell of."""
    from tests import reference_page

    modules = {"tr": reference_page.tr, **reference_page.public_modules()}
    return {f"{m.__name__}.{name}" for m in modules.values() for name in reference_page.public_names(m)}


def searched(folder: Path, word: str) -> list[str]:
    """The pages that the search page, opened as a file, finds for a word."""
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        sys.exit(f"the search needs one of {', '.join(CHROMIUM)}: install Debian's package chromium")
    address = (folder / "search.html").resolve().as_uri() + f"?q={word}"
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET.split(), f"--user-data-dir={profile}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    listed = re.search(r'id="search-results".*?</ul>', done.stdout, re.DOTALL)
    return re.findall(r'<li[^>]*><a href="([^"?#]*)', listed.group()) if listed else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--search", metavar="WORD", help="a word that Chromium must find")
    options = parser.parse_args()
    if not (options.folder / "index.html").is_file():
        sys.exit(f"{options.folder} holds no site: run make docs")
    if found := list(faults(options.folder, public_names())):
        sys.exit("\n".join(found))
    pages = len(list(options.folder.rglob("*.html")))
    print(f"{options.folder / 'index.html'}: {pages} pages, {size(options.folder) / 1e6:.1f} MB, all of it here")
    if options.search:
        hits = searched(options.folder, options.search)
        print(f"search for {options.search!r}: {', '.join(hits) or 'nothing'}")
        sys.exit(not hits)


if __name__ == "__main__":
    main()
