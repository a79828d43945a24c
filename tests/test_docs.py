"""The pages are true: every block of Python in them runs, every command and link in them exists.

The blocks of one page run from top to bottom as one program, so a page may build on what it showed before.
Functions called `test_...` in a page are called at the end, as pytest would. A block in the language `output` is a
part of what the page's program prints.
"""

from __future__ import annotations

import doctest
import operator
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tests import files_page, reference_page

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md") if path.exists()]
PAGES += sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
# On the first line, which is a page's title: the same few examples each time, as in CI.
FEW_EXAMPLES = "from hypothesis import settings as _s; _s.register_profile('page', max_examples=20, derandomize=True); "
FEW_EXAMPLES += "_s.load_profile('page')"
CALL_TESTS = "\nfor _name, _test in list(globals().items()):\n    _name.startswith('test_') and _test()\n"


def blocks(page: Path) -> Iterator[tuple[str, int, list[str]]]:
    """The language, first line and lines of every fenced block of a page."""
    inside: tuple[str, int, list[str]] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            if inside:
                inside[2].append(line)
        elif inside:
            yield inside
            inside = None
        else:
            inside = (line[3:].strip(), number + 1, [])
    assert inside is None, f"{page}: a block is not closed"


def program(page: Path) -> str:
    """The Python of a page, on the lines it has there: a traceback names the line of the page."""
    lines: list[str] = []
    for language, first, text in blocks(page):
        if language == "python" and not text[0].startswith(">>>"):
            lines += [""] * (first - 1 - len(lines)) + text
    if any("tinygrad_rnn.testing" in line for line in lines):
        lines[0] = FEW_EXAMPLES
    return "\n".join(lines) + CALL_TESTS if lines else ""


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of the shell blocks of a page, without comments, prompts and continuation lines."""
    for language, _, text in blocks(page):
        if language in {"sh", "shell", "bash", "console"}:
            for line in "\n".join(text).replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield words


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if program(page)], ids=page_id)
def test_python_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / page.with_suffix(".py").name
    script.write_text(program(page), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for language, first, lines in blocks(page):
        if language == "output":
            assert "\n".join(lines) in done.stdout, f"{page_id(page)}:{first} is not what is printed"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_sessions_of_the_page_are_as_printed(page: Path) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    # A closing fence would be read as expected output.
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    session = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=flags).run(session).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_of_the_page_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(page):
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), words
        if Path(words[0]).name == "tinygrad-rnn":
            check_command(words[1:])
    for target in re.findall(r"`make ([a-z][a-z-]*)", prose(page)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def check_command(words: list[str]) -> None:
    """The command line accepts these words; nothing is run."""
    from tinygrad_rnn.cli.parser import parser

    try:
        parser().parse_args(words)
    except SystemExit as done:
        assert done.code == 0, f"tinygrad-rnn {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith(("http://", "https://", "mailto:")):
            file, _, anchor = target.partition("#")
            found = page.parent / file if file else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks, and without what the changelog's table says was typed before."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^\| .*? \|", "|", text, flags=re.MULTILINE) if page.name == "CHANGELOG.md" else text


def anchors(page: Path) -> set[str]:
    """What links may name after a `#`: the headings, in small letters, without punctuation, with hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_names_on_the_page_exist(page: Path) -> None:
    for names in set(re.findall(r"`tr((?:\.[a-zA-Z_]\w*)+)", prose(page))):
        try:
            operator.attrgetter(names[1:])(tr)
        except AttributeError as error:
            raise AssertionError(f"tr{names}: {error}") from None


def test_every_block_says_its_language() -> None:
    for page in PAGES:
        for language, first, _ in blocks(page):
            assert language, f"{page_id(page)}:{first - 1}"


def test_the_reference_is_up_to_date():
    assert reference_page.PAGE.read_text(encoding="utf-8") == reference_page.page(), (
        "run: python -m tests.reference_page"
    )


def test_the_list_of_files_is_up_to_date():
    assert files_page.PAGE.read_text(encoding="utf-8") == files_page.page(), "run: python -m tests.files_page"


def test_the_list_of_files_names_every_file_of_the_package_and_no_other():
    listed = re.findall(r"^\| \**`([\w/.]+)`\** \|", files_page.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    package = ROOT / "tinygrad_rnn"
    files = [path.relative_to(package).as_posix() for path in package.rglob("*.py")]
    rooms = {name: name.removesuffix("__init__.py") or name for name in files}
    assert sorted(listed) == sorted(rooms.values())
