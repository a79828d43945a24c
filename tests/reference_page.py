"""docs/reference.md: every public name with the start of its docstring. `python -m tests.reference_page` writes it."""

from __future__ import annotations

import ast
import inspect
import itertools
from pathlib import Path
from types import ModuleType

import tinygrad_rnn as tr
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.ops import arithmetic, elementwise, indexing, linalg, reduction, shape

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Reference

Every public name, with the first words of its docstring; `help(tr.NAME)` shows the rest and an example. This page is
written by `python -m tests.reference_page`, and a test fails if it is not up to date.
"""
OPS = {
    "Arithmetic and comparison": arithmetic,
    "Functions of one number": elementwise,
    "Reductions": reduction,
    "Shapes": shape,
    "Indexing": indexing,
    "Products": linalg,
}
# In this order; a public module that is not here stands at the end, under its own name.
TITLES = {
    "tr.nn": "Layers",
    "tr.nn.functional": "Losses and functions",
    "tr.nn.init": "Initialisers",
    "tr.optim": "Optimisers",
    "tr.data": "Data",
    "tr.decoding": "Decoding",
    "tr.training": "Training",
    "tr.estimators": "Estimators of scikit-learn",
    "tr.language": "Language models",
    "tr.explain": "Looking inside",
    "tr.testing": "Tests",
    "tr.errors": "Errors",
}


def first_paragraph(text: str | None) -> str:
    """The first paragraph of a docstring on one line, without what would end a table cell."""
    return " ".join((text or "").split("\n\n")[0].split()).replace("|", "\\|")


def public_modules() -> dict[str, ModuleType]:
    """The modules that a user reaches from `tr`, by the name they have there."""
    found: dict[str, ModuleType] = {}
    waiting = [(f"tr.{name}", getattr(tr, name)) for name in dir(tr)]
    while waiting:
        name, thing = waiting.pop()
        if inspect.ismodule(thing) and name not in found:
            found[name] = thing
            waiting += [(f"{name}.{inner}", getattr(thing, inner)) for inner in getattr(thing, "__all__", ())]
    return {name: found[name] for name in [*TITLES, *sorted(found.keys() - TITLES.keys())]}


def public_names(module: ModuleType) -> list[str]:
    """The names of a module: those of its `__all__`, or all that it defines; modules have a section of their own."""
    if hasattr(module, "__all__"):
        names = list(module.__all__)
    else:
        here = {name: t for name, t in vars(module).items() if getattr(t, "__module__", "") == module.__name__}
        names = [name for name in here if not name.startswith("_")]
    return [name for name in names if not inspect.ismodule(getattr(module, name))]


def description(module: ModuleType, name: str) -> str:
    """The start of a docstring: of a class or a function its own, of a constant the string below it."""
    thing = getattr(module, name)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return first_paragraph(inspect.getdoc(thing))
    for path in sorted(Path(str(module.__file__)).parent.glob("*.py")):
        if said := said_below(path.read_text(encoding="utf-8"), name):
            return first_paragraph(said)
    if isinstance(thing, dict):
        return "A table: " + ", ".join(f"`{key}`" for key in thing) + "."
    return f"`{thing!r}`".replace("|", "\\|") if isinstance(thing, str | int | float) else ""


def said_below(source: str, name: str) -> str:
    """The string below the assignment of a constant, or the comment behind it; empty without either."""
    for statement, below in itertools.pairwise([*ast.parse(source).body, ast.Pass()]):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                return str(below.value.value)
            comment = source.splitlines()[statement.end_lineno - 1].partition("  # ")[2]
            return comment and f"{comment[0].upper()}{comment[1:]}."
    return ""


def table(prefix: str, names: list[str], module: ModuleType) -> str:
    rows = [f"| `{prefix}{name}` | {description(module, name)} |" for name in names]
    return "\n".join(["| | |", "|---|---|", *rows])


def page() -> str:
    parts = [HEAD]
    own = [name for name in tr.__all__ if name not in ops.__all__ and name != "errors"]
    parts.append(f"## Tensors and derivatives\n\n{table('tr.', own, tr)}")
    for title, module in OPS.items():
        parts.append(f"## {title}\n\n{table('tr.', [name for name in ops.__all__ if defines(module, name)], tr)}")
    for name, module in public_modules().items():
        title = TITLES.get(name, name)
        parts.append(f"## {title}\n\n{first_paragraph(module.__doc__)}")
        if names := public_names(module):
            parts.append(table(f"{name}.", names, module))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def defines(module: ModuleType, name: str) -> bool:
    return f"\ndef {name}(" in inspect.getsource(module)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
