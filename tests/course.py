"""The chapters of docs/course/: their cells, run as one program each, and what the pages say that they print.

A cell is a block `{code-cell} python`. What it prints stands below it in a block `output`, which
`python -m tests.course` writes anew in every chapter, or in those named; what can be computed is not typed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "course"
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```\n(?:\n```output\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^(`{3,}|:{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """A cell of a page: the line that its code begins on, its code, and what is said that it prints."""

    line: int
    code: str
    said: str


def chapters() -> list[Path]:
    return sorted(FOLDER.glob("[0-9][0-9]-*.md"))


def cells(text: str) -> list[Cell]:
    """The cells of a page."""
    return [Cell(text[: m.start(1)].count("\n") + 1, m[1], m[2] or "") for m in CELL.finditer(text)]


def run(page: Path) -> Iterator[tuple[Cell, str]]:
    """Each cell of a chapter with what it prints, all in one namespace; pictures are drawn, and thrown away."""
    import matplotlib.pyplot as plt

    space: dict[str, Any] = {"__name__": "__main__"}
    with plt.rc_context(fname=FOLDER / "matplotlibrc"):
        plt.switch_backend("Agg")
        for cell in cells(page.read_text(encoding="utf-8")):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                execute(cell, page, space)
            for number in plt.get_fignums():
                plt.figure(number).canvas.draw()
            plt.close("all")
            yield cell, printed.getvalue()


def execute(cell: Cell, page: Path, space: dict[str, Any]) -> None:
    """Run a cell; a traceback names the lines of the page. Of a notebook's last value only a picture may be shown."""
    tree = ast.parse("\n" * (cell.line - 1) + cell.code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, page, "exec"), space)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), page, "eval"), space)
        quiet = value is None or cell.code.rstrip().endswith(";")
        shown = quiet or hasattr(value, "_repr_html_") or hasattr(value, "_repr_svg_")
        assert shown, f"{page.name}:{last.lineno}: a notebook would show {value!r:.60}: print it, or end it with ;"


def prose(text: str) -> str:
    """What a page says: without its head, its blocks, its tags, and names in backticks."""
    text = re.sub(r"\A---\n.*?^---\n", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|<[^>\n]*>", "", FENCED.sub("", text))


def typed_numbers(text: str) -> set[str]:
    """The figures in the prose of a page that neither its code nor its output has: nobody has computed them.

    Decimals and whole numbers from ten on; years, links and the numbers of formulas' indices are none.
    """
    blocks = "\n".join(match.group() for match in FENCED.finditer(text))
    there = set(re.findall(r"\d+(?:\.\d+)?", blocks.replace(",", "").replace("_", "")))
    said = re.sub(
        r"^# \d+|chapter \d+|\[\d+(?=\]\()|\]\([^)]*\)|arXiv:[\d.]+|\b(?:19|20)\d\d\b", "", prose(text), flags=re.M
    )
    return set(re.findall(r"(?<![\w.])\d+\.\d+|(?<![\w.])\d{2,}", said.replace(",", ""))) - there


def rewritten(page: Path) -> str:
    """The page with what its cells print now."""
    printed = iter([text for _, text in run(page)])

    def cell(match: re.Match[str]) -> str:
        text = next(printed)
        return f"```{{code-cell}} python\n{match[1]}```\n" + (f"\n```output\n{text}```\n" if text else "")

    return CELL.sub(cell, page.read_text(encoding="utf-8"))


def main() -> None:
    for page in map(Path, sys.argv[1:]) if sys.argv[1:] else chapters():
        began = time.process_time()
        text = rewritten(page)
        page.write_text(text, encoding="utf-8")
        print(f"{page.name}: {time.process_time() - began:.1f} s", *sorted(typed_numbers(text)))


if __name__ == "__main__":
    main()
