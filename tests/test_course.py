"""The course: every chapter runs, prints what it says, and says no number that it does not compute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import course


@pytest.mark.parametrize("page", course.chapters(), ids=lambda page: page.stem)
def test_a_chapter_prints_what_it_says(page: Path) -> None:
    for cell, printed in course.run(page):
        assert printed == cell.said, f"{page.name}:{cell.line}: run python -m tests.course {page.name}, and read it"


@pytest.mark.parametrize("page", course.chapters(), ids=lambda page: page.stem)
def test_a_chapter_is_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^# \d+\. ", text, re.MULTILINE)
    assert len(course.FENCED.sub("", text).split()) < 1100, "a chapter is a few screens"
    assert "## Exercises" in text
    assert 2 <= text.count("<details>") <= 3
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>")
    assert any("plt." in cell.code or "plot(" in cell.code for cell in course.cells(text)), "no picture"
    assert not course.typed_numbers(text), "numbers that nothing on the page computes"
    assert max(len(line) for cell in course.cells(text) for line in cell.code.splitlines()) <= 92, "wider than the page"


def test_the_chapters_are_listed_in_their_order() -> None:
    index = (course.FOLDER / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\d\d-[\w-]+)$", index, re.MULTILINE)
    assert listed == [page.stem for page in course.chapters()]
    for number, page in enumerate(course.chapters(), 1):
        (title,) = re.findall(r"^# (\d+\. .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert title.startswith(f"{number}. ") and page.stem.startswith(f"{number:02}-")
        assert f"[{title.partition('. ')[2]}]({page.name})" in index


# --- the reader of pages ------------------------------------------------------------------------------------

PAGE = """---
file_format: mystnb
---

# 1. A page

The loss is 0.25 after 12 steps, in 1997.

```{code-cell} python
print(1 / 4)
```

```output
0.25
```

```{code-cell} python
y = 2
```
"""


def test_cells_have_their_lines_and_what_is_said_of_them() -> None:
    assert course.cells(PAGE) == [course.Cell(10, "print(1 / 4)\n", "0.25\n"), course.Cell(18, "y = 2\n", "")]


def test_a_number_that_nobody_computed_is_found() -> None:
    assert course.typed_numbers(PAGE) == {"12"}
    assert course.typed_numbers(PAGE.replace("0.25 after", "0.26 after")) == {"0.26", "12"}


def test_what_a_cell_prints_is_written_below_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("y = 2", "print('new')").replace("\n```output\n0.25\n```\n", ""))
    assert course.rewritten(page) == PAGE.replace("y = 2\n```\n", "print('new')\n```\n\n```output\nnew\n```\n")
    page.write_text(PAGE.replace("1 / 4", "1 / 5"))
    assert [printed == cell.said for cell, printed in course.run(page)] == [False, True]


def test_a_value_that_a_notebook_would_show_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{code-cell} python\n[1, 2]\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:2: a notebook would show \[1, 2\]"):
        list(course.run(page))
