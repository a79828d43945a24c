"""The page as one file."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from tinygrad_rnn.cli import explore
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.explore.answer import answer
from tinygrad_rnn.explore.one_file import HIDDEN, NAMES, SCALES, SEEDS, STEPS, inside, one_file
from tinygrad_rnn.explore.settings import CHOICES, READ, Settings, settings_of

FEW = [Settings(steps=4), Settings(steps=4, scale=0.6), Settings("lstm", steps=4, loss="every")]


@pytest.fixture(scope="module")
def page() -> str:
    return one_file(FEW)


def test_nothing_is_loaded(page: str) -> None:
    assert not re.search(r"""\b(src|href)=["'](?!#|data:)""", page) and "http://" not in page.replace(SVG, "")
    assert "@import" not in page and "url(" not in page


SVG = "http://www.w3.org/2000/svg"


def test_its_policy_names_every_script_and_style_by_its_hash(page: str) -> None:
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page).group(1)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for kind in ("script", "style"):
        found = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        listed = " ".join(f"'sha256-{digest}'" for digest in digests)
        assert found and f"{kind}-src {listed};" in policy
    places = [page.index(text) for text in ("Content-Security-Policy", "<style>", 'id="stored"', "<script>")]
    assert places == sorted(places)


def test_it_holds_the_answers(page: str) -> None:
    packed = re.search(r'id="stored">([\w+/=]+)<', page).group(1)
    box = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert tuple(box["names"]) == NAMES and box["values"]["scale"] == ["1", "0.6"] and "3 settings" in box["note"]
    for one, (key, found) in zip(FEW, box["answers"].items(), strict=True):
        assert key == f"{one.cell} tanh {one.loss} 4 4 {one.scale:g} 0"
        assert {**found, "graph": box["graphs"][found["graph"]]} == json.loads(json.dumps(answer(one)))
    assert len(box["graphs"]) == 2


def test_what_is_inside_can_be_chosen_and_has_the_page_as_it_opens() -> None:
    chosen = list(inside())
    assert Settings() in chosen and len(set(chosen)) == len(chosen) >= 200
    for name, values in {"steps": STEPS, "hidden": HIDDEN, "scale": SCALES, "seed": SEEDS}.items():
        assert [READ[name](str(value)) for value in values] == list(values) == sorted(values)
        assert {getattr(one, name) for one in chosen} == set(values)
    for name, values in CHOICES.items():
        assert {getattr(one, name) for one in chosen} == set(values)


def test_what_the_course_shows_of_it_is_inside() -> None:
    """A frame of a chapter opens the page at some settings."""
    chapters = Path(__file__).parents[2].joinpath("docs", "course").glob("*.md")
    frames = [
        query for chapter in chapters for query in re.findall(r"play\.html#([^\s\"]*)", chapter.read_text("utf-8"))
    ]
    assert frames
    for query in frames:
        asked = "&".join(part for part in query.split("&") if part[:3] not in ("at=", "sho"))
        assert dataclasses.replace(settings_of(asked), k2=64) in list(inside()), query


def test_the_command_writes_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(explore, "one_file", lambda: "<p>the page</p>")
    assert main(["explore", "--html", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == "<p>the page</p>"
    assert capsys.readouterr().out.endswith("page.html: 0.00 MB\n")
    assert main(["explore", "--html", str(tmp_path / "none" / "page.html")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "none/page.html" in said.err and not said.out


def test_what_is_broken_off_leaves_what_was_there(tmp_path: Path, monkeypatch, capsys) -> None:
    def broken_off() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(explore, "one_file", broken_off)
    (tmp_path / "old.html").write_text("<p>old</p>")
    for name in ("new.html", "old.html"):
        main(["explore", "--html", str(tmp_path / name)])
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old.html", "<p>old</p>")]


def test_it_is_written_into_a_pipe(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(explore, "one_file", lambda: "<p>the page</p>")
    assert main(["explore", "--html", os.devnull]) == 0
    assert not Path(os.devnull + ".tmp").exists() and not Path(os.devnull).is_file()
