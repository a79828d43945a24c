"""The end of docs/design.md: every file of the package, with what its docstring says that it is.

`python -m tests.files_page` writes it. The order of the rooms is that of `RANK`, which says who may import whom.
"""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path

from tests.test_structure import ASIDE, PACKAGE, RANK

PAGE = Path(__file__).parents[1] / "docs" / "design.md"
MARK = "<!-- From here on this page is written by `python -m tests.files_page`. -->\n"


def says(path: Path) -> str:
    """The first sentence of a file's docstring, without what would end a table cell."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = " ".join(docstring.split("\n\n")[0].split()).partition(". ")[0]
    return sentence.rstrip(".:").replace("|", "\\|")


def drawing() -> str:
    """The rooms in lines, the ones above built on those below."""
    rooms = sorted((name for name in RANK if name != "__main__"), key=RANK.__getitem__, reverse=True)
    lines = ["   ".join(sorted(same)).replace("__init__", "`tr`") for _, same in groupby(rooms, RANK.__getitem__)]
    lines[RANK["cli"] - RANK["nn"]] += f"   <- {', '.join(name for name in sorted(ASIDE) if (PACKAGE / name).exists())}"
    width = max(map(len, lines))
    return "\n".join(line.center(width).rstrip() for line in lines)


def table() -> str:
    """A row for each room and each file, the rooms from the bottom up."""

    def order(path: Path) -> tuple[int, str]:
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        return RANK.get(part, max(RANK.values())), path.as_posix().replace("__init__", "")

    rows = ["| in `tinygrad_rnn/` | |", "|---|---|"]
    for path in sorted(PACKAGE.rglob("*.py"), key=order):
        name = path.relative_to(PACKAGE).as_posix()
        room = name.removesuffix("__init__.py")
        rows.append(f"| **`{room}`** | **{says(path)}** |" if room != name and room else f"| `{name}` | {says(path)} |")
    return "\n".join(rows)


def page() -> str:
    """The whole page, its end new."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{PAGE}: the line {MARK!r} is missing"
    return f"{written}{MARK}\n```text\n{drawing()}\n```\n\n{table()}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
