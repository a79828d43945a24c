"""How many lines of code a file has: docstrings, comments and blank lines are not counted.

Run as `python -m tests.code_lines [FOLDER ...]`.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(source: str) -> int:
    """The number of lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        # A string that is a statement is a docstring, also below an assignment.
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                lines.difference_update(range(first, last + 1))
    return len(lines)


def table(folder: Path) -> tuple[list[tuple[str, int]], int]:
    """The code lines of every Python file below a folder, and their sum."""
    rows = [
        (path.relative_to(folder.parent).as_posix(), code_lines(path.read_text(encoding="utf-8")))
        for path in sorted(folder.rglob("*.py"))
    ]
    return rows, sum(lines for _, lines in rows)


def main(folders: list[str]) -> None:
    for folder in folders or ["tinygrad_rnn/tensor"]:
        rows, total = table(Path(folder))
        print("\n".join(f"{lines:6,}  {name}" for name, lines in [*rows, (f"{folder}: code lines", total)]))


if __name__ == "__main__":
    main(sys.argv[1:])
