"""Docstrings, which are written to be read in a terminal, as what autodoc reads.

In a docstring a name stands in single backticks, a drawing, a table or an equation is indented, an example begins with
`>>>`, a list with `-`, and below a line that ends in a colon stands, indented, what it is about: paragraphs, or names,
each with a colon. In reStructuredText a name has two backticks, an indented block says that it is literal, and stars,
bars and final underscores would mean something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from textwrap import dedent
from typing import Any

NAMED = re.compile(r"([\w, *]+): ")


def converted(lines: list[str]) -> list[str]:
    """The lines of a docstring as those of reStructuredText."""
    out: list[str] = []
    literal = False
    for block in blocks(lines):
        if block[0].lstrip().startswith(">>>"):
            block = dedent("\n".join(block)).splitlines()
        drawn = block[0].startswith(" ")
        if drawn and not literal:  # two with a blank line between them are one
            out += [".. code-block:: text", ""]
        out += [f"    {line}" for line in block] if drawn else block if block[0][:3] == ">>>" else written(block)
        out.append("")
        literal = drawn
    return out


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """The stretches between blank lines."""
    for blank, group in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            yield list(group)


def written(block: list[str]) -> list[str]:
    """A paragraph or a list; and what stands indented below a line that ends in a colon."""
    if block[0].startswith("- "):
        return prose(block)
    out: list[str] = []
    for indented, group in groupby(block, key=lambda line: line.startswith(" ")):
        lines = list(group)
        out += [*(entries(dedent("\n".join(lines)).splitlines()) if indented else prose(lines)), ""]
    return out


def entries(lines: list[str]) -> list[str]:
    """What stands below a colon: a list of names where each line that is not indented begins with one, or a text."""
    if not all(line.startswith(" ") or NAMED.match(line) for line in lines):
        return [f"    {line}" for line in prose([line.strip() for line in lines])]
    return prose([f"  {line.strip()}" if line[0] == " " else NAMED.sub(r"- `\1`: ", line, count=1) for line in lines])


def prose(lines: list[str]) -> list[str]:
    """Text with names in it: code in two backticks, and all else is itself."""
    pieces = "\n".join(lines).split("`")
    if len(pieces) % 2 == 0:
        raise ValueError(f"a backtick is not closed in {lines[0]!r} ...")
    out = ""
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            # Right beside a name a letter must be kept off it by something.
            out += ("\\ " if i and re.match(r"[\w(\[{<]", piece) else "") + escaped(piece)
        else:
            out += ("\\ " if out and not re.search(r"[\s(\[{<\"'/-]$", out) else "") + f"``{' '.join(piece.split())}``"
    return out.splitlines()


def escaped(text: str) -> str:
    """Text in which stars, bars and final underscores are themselves."""
    return re.sub(r"[*|\\]|_(?!\w)", r"\\\g<0>", text)


def convert(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Autodoc's event: the lines are changed in place."""
    lines[:] = converted(lines)


def setup(app: Any) -> dict[str, Any]:
    """Connect the event."""
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
