"""The page by keyboard, by ear, without colour, on a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, entries

CELLS = ["rnn", "lstm", "gru"]


def findings(page: Page) -> str:
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("cell", CELLS)
def test_axe_finds_nothing(open_page: Open, cell: str, scheme: str) -> None:
    page = open_page(f"#cell={cell}&steps=6&loss=every&k2=3&at=2", color_scheme=scheme)
    assert not findings(page)
    page.get_by_role("button", name="Train").click()
    expect(page.locator("#training canvas")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Stop").click()
    assert not findings(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_an_error_or_on_a_phone(open_page: Open, scheme: str) -> None:
    page = open_page("#steps=99", color_scheme=scheme, width=390)
    expect(page.get_by_role("alert")).to_be_visible()
    assert not findings(page)
    open_page.complaints.clear()


def tab_stops(page: Page) -> list[str]:
    """What the tab key reaches from the top of the page, until it leaves it."""
    page.evaluate("document.activeElement.blur()")
    stops: list[str] = []
    while len(stops) < 200:
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => {
            const at = document.activeElement;
            if (at === document.body) return "";
            const grid = at.closest("[role=grid]");
            if (grid) return `grid ${grid.getAttribute("aria-label")}`;
            return at.id || at.name || (at.tagName === "A" ? at.textContent : at.tagName);
        }""")
        if not stop or stop in stops:
            return stops
        stops.append(stop)
    raise AssertionError("the tab key never leaves the page")


@pytest.mark.parametrize("cell", CELLS)
def test_the_tab_key_reaches_every_control_and_every_picture(open_page: Open, cell: str) -> None:
    page = open_page(f"#cell={cell}&steps=5&at=2")
    stops = tab_stops(page)
    controls = {"cell", "loss", "steps", "hidden", "scale", "k2", "seed", "another", "reset"}
    controls |= {"back", "at", "later", "play", "train"} | ({"nonlinearity"} if cell == "rnn" else set())
    assert controls <= set(stops) and not any(stop.startswith("svg") for stop in stops)
    grids = page.eval_on_selector_all("[role=grid]", "grids => grids.map(g => g.getAttribute('aria-label'))")
    assert len(set(grids)) == len(grids) >= 7
    assert {f"grid {label}" for label in grids} == {stop for stop in stops if stop.startswith("grid ")}
    links = page.get_by_role("navigation").get_by_role("link").all_inner_texts()
    assert set(links) <= set(stops)


LABEL = "document.activeElement.getAttribute('aria-label')"


def test_the_arrow_keys_reach_every_entry_and_each_is_spoken(open_page: Open) -> None:
    page = open_page("#cell=lstm&steps=5&loss=every&k2=2")
    hosts = ["forward", "sweep", "ledger", "angles", "flow", "jacobians", "gates"]
    for host in hosts:
        walked = []
        for grid in page.locator(f"#{host} [role=grid]").all():
            grid.locator("[role=gridcell]").focus()
            page.keyboard.press("Control+Home")
            rows = int(grid.get_attribute("aria-rowcount"))
            for row in range(rows):
                page.keyboard.press("Home")
                before = None
                while (label := page.evaluate(LABEL)) != before:
                    walked.append(label)
                    before = label
                    page.keyboard.press("ArrowRight")
                assert grid.locator("[role=row]").get_attribute("aria-rowindex") == str(row + 1)
                if row + 1 < rows:
                    page.keyboard.press("ArrowDown")
        assert walked == entries(page, f"#{host}") and len(set(walked)) == len(walked) and all(walked)


def test_keys_move_as_in_a_table(open_page: Open) -> None:
    page = open_page("#steps=6&loss=every")
    page.locator("#ledger [role=gridcell]").focus()
    moves = [
        *(("Control+End", "5 5"), ("ArrowUp", "4 4"), ("ArrowLeft", "4 3"), ("ArrowDown", "5 3"), ("Home", "5 0")),
        *(("PageUp", "0 0"), ("ArrowUp", "0 0"), ("PageDown", "5 0"), ("End", "5 5"), ("ArrowRight", "5 5")),
        *(("Control+Home", "0 0"), ("ArrowLeft", "0 0")),
    ]
    for key, where in moves:
        page.keyboard.press(key)
        t, k = where.split()
        assert page.evaluate(LABEL).startswith(f"loss of step {t}, use at step {k}, "), key
        row, column = page.evaluate(
            "[document.activeElement.parentNode.ariaRowIndex, document.activeElement.ariaColIndex]"
        )
        assert (row, column) == (str(int(t) + 1), str(int(k) + 1))
    assert page.locator("#ledger [tabindex='0']").count() == 1
    expect(page.locator("#ledger .readout")).to_have_text("loss of step 0, use at step 0, explicit: exactly 0")


def test_the_focus_is_where_its_entry_is(open_page: Open) -> None:
    page = open_page("#steps=6&loss=every")
    page.locator("#ledger canvas").scroll_into_view_if_needed()
    box = page.locator("#ledger canvas").bounding_box()
    page.mouse.click(
        box["x"] + 54 + 2.5 * 100, box["y"] + 4 + 3.5 * 30
    )  # the names, then columns of 100 and rows of 30
    assert page.evaluate(LABEL).startswith("loss of step 3, use at step 2, ")
    box, here = (page.locator(f"#ledger {name}").bounding_box() for name in ("canvas", "[role=gridcell]"))
    assert abs(here["x"] - box["x"] - 254) < 3 and abs(here["y"] - box["y"] - 94) < 3
    assert page.locator("#ledger [role=gridcell]").evaluate("e => getComputedStyle(e).outlineWidth") != "0px"
    page.mouse.move(box["x"] + 54 + 10, box["y"] + 10)
    expect(page.locator("#ledger .readout")).to_have_text("loss of step 0, use at step 0, explicit: exactly 0")


def test_the_focus_stays_in_a_picture_that_is_drawn_again(open_page: Open) -> None:
    page = open_page("#steps=6")
    page.locator("#ledger [role=gridcell]").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    before = page.evaluate(LABEL)
    page.evaluate("document.getElementById('another').click()")
    page.wait_for_function("document.body.dataset.shown.includes('seed=1')")
    after = page.evaluate(LABEL)
    assert before != after and before.split(":")[0] == after.split(":")[0] == "loss of step 5, use at step 3, implicit"


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("cell", CELLS)
def test_a_phone_needs_no_scrolling_to_the_side(open_page: Open, cell: str, width: int) -> None:
    for steps in (3, 64):
        page = open_page(f"#cell={cell}&steps={steps}&loss=every&hidden=16&k2=2", width=width, height=800)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        too_wide = page.evaluate(
            "[...document.querySelectorAll('main *, form *')].filter(e => !e.closest('.graph, .visually-hidden')"
            " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
        )
        assert not too_wide


CORNER = """([host, c, r]) => {
    const canvas = document.querySelector(`${host} canvas`), scale = canvas.width / canvas.clientWidth;
    const pen = canvas.getContext("2d");
    const at = (x, y) => [...pen.getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data];
    const x = 54 + c * 100, y = 2 + r * 15;
    return [at(x + 2, y + 2), at(x + 50, y + 7)];
}"""  # of an entry: what its corner looks like, and its middle


def test_states_are_told_apart_without_colour(open_page: Open) -> None:
    page = open_page("#steps=8&loss=every&k2=3&at=4")
    said = [entry for entry in entries(page, "#forward") if entry.startswith("x_")]
    signs = set()
    for t, entry in enumerate(said):
        corner, middle = page.evaluate(CORNER, ["#forward", t, 0])
        signs.add("−" in entry)
        assert ("−" in entry) == (corner != middle), entry  # the corner of a round entry is bare
    assert signs == {True, False}
    shapes = page.evaluate("[1, -1, 0, null, undefined].map(Draw.shapeOf)")
    assert shapes == ["square", "round", "dot", "cross", "outline"]
    legend = page.locator("#ledger .legend").inner_text()
    assert all(words in legend for words in ("framed: explicit", "dot: exactly 0", "hatched: cut off"))
    for radio in page.locator(".choice input").all():
        mark = radio.evaluate("r => getComputedStyle(r.nextElementSibling, '::before').content")
        assert ("✓" in mark) == radio.is_checked()
    dashes = page.eval_on_selector_all("#flow .key path", "ps => ps.map(p => getComputedStyle(p).strokeDasharray)")
    assert len(set(dashes)) == len(dashes) == 2
    open_page.complaints.clear()  # of Chromium, that pictures which are read are drawn elsewhere


LEVELS = """() => {
    const canvas = document.querySelector("#ledger canvas"), scale = canvas.width / canvas.clientWidth;
    const line = (x) => canvas.getContext("2d").getImageData((54 + x) * scale, 56 * scale, 90 * scale, 1).data;
    const levels = (x) => new Set([...line(x)].filter((_, i) => i % 4 === 1)).size;
    return [levels(5), levels(105)];
}"""  # of row 1: how many levels of green a line through entry 0 meets, which is exactly 0, and through entry 1


def test_what_is_cut_off_is_hatched(open_page: Open) -> None:
    page = open_page("#steps=2&loss=every&k2=1")
    cut, kept = page.evaluate(LEVELS)
    assert cut >= 2 > kept
    page.get_by_role("slider", name="Truncation k2").press("End")
    page.wait_for_function(f"() => ({LEVELS})().every((levels) => levels === 1)")  # it is drawn a moment later
    open_page.complaints.clear()  # of Chromium, that pictures which are read are drawn elsewhere


MOVING = """[...document.querySelectorAll("*")].map((e) => getComputedStyle(e)).filter((style) =>
    parseFloat(style.transitionDuration) > 0 || style.animationName !== "none" || style.scrollBehavior !== "auto")
    .length"""


def test_nothing_moves_by_itself(open_page: Open) -> None:
    """What plays is played by a button, in single steps: there is no motion left to reduce."""
    for wish in ("reduce", "no-preference"):
        page = open_page("#steps=3&at=0", reduced_motion=wish)
        assert page.evaluate(MOVING) == 0 and page.evaluate("document.getAnimations().length") == 0
        page.get_by_role("button", name="Play").click()
        expect(page.locator("#flows")).to_contain_text("for step 1", timeout=10_000)
        assert page.evaluate("document.getAnimations().length") == 0
