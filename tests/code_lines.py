"""How many lines of code a file has: docstrings, comments and blank lines are not counted.

Imports and `__all__` are lists of names, one a line where the formatter wraps them, so they have a column of
their own. Run as `python -m tests.code_lines [FOLDER ...]`.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

from tinygrad_rnn.cli.answers import answered

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(source: str) -> tuple[int, int]:
    """The lines that hold code, and the lines that hold imports or `__all__`."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    names: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                # A string that is a statement is a docstring, also below an assignment.
                code.difference_update(range(first, last + 1))
            case (
                ast.Import(lineno=first, end_lineno=int(last))
                | ast.ImportFrom(lineno=first, end_lineno=int(last))
                | ast.Assign(targets=[ast.Name(id="__all__")], lineno=first, end_lineno=int(last))
            ):
                names.update(code.intersection(range(first, last + 1)))
    return len(code - names), len(names)


def table(folder: Path) -> list[tuple[str, int, int]]:
    """Code and import lines of every Python file below a folder; the last row is their sum."""
    rows = [
        (path.relative_to(folder).as_posix(), *code_lines(path.read_text(encoding="utf-8")))
        for path in sorted(folder.rglob("*.py"))
    ]
    return [*rows, ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))]


# Beside the engine stand the table of derivatives, which grows with every op, and what makes tensors of nothing.
NOT_ENGINE = ("ops/", "creation.py", "random.py")


def engine_lines(tensor: Path) -> int:
    """The code lines of the engine: all below the folder `tensor` but the table of derivatives and such."""
    return sum(code for path, code, _ in table(tensor)[:-1] if not path.startswith(NOT_ENGINE))


def show(folder: Path) -> None:
    """Print the table of a folder."""
    print(f"  code  names  {folder.as_posix()}/")
    for path, code, names in table(folder):
        print(f"{code:6,}{names:7,}  {path}")
    if folder.name == "tensor":
        print(f"{engine_lines(folder):6,}         the engine: without {', '.join(NOT_ENGINE)}")


def main() -> int:
    """Print the lines of the folders that are named."""
    for folder in sys.argv[1:] or ["tinygrad_rnn/tensor"]:
        show(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(answered("code_lines", main))
