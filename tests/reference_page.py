"""docs/reference.md: every public name with the start of its docstring. `python -m tests.reference_page` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import tinygrad_rnn as tr
from tinygrad_rnn import data, nn, optim, testing, training
from tinygrad_rnn.nn import functional, init
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.ops import arithmetic, elementwise, indexing, linalg, reduction, shape

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Reference

Every public name, with the first words of its docstring; `help(tr.NAME)` shows the rest and an example. This page is
written by `python -m tests.reference_page`, and a test fails if it is not up to date.
"""


def first_paragraph(thing: object) -> str:
    """The first paragraph of a docstring on one line, without what would end a table cell."""
    paragraph = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def table(prefix: str, names: list[str], module: object) -> str:
    rows = [f"| `{prefix}{name}` | {first_paragraph(getattr(module, name))} |" for name in names]
    return "\n".join(["| | |", "|---|---|", *rows])


def listed(module: ModuleType) -> list[str]:
    """The names of a module's classes and functions."""
    things = {name: getattr(module, name) for name in module.__all__}
    return [name for name, thing in things.items() if inspect.isclass(thing) or inspect.isroutine(thing)]


def page() -> str:
    groups = {
        "Arithmetic and comparison": arithmetic,
        "Functions of one number": elementwise,
        "Reductions": reduction,
        "Shapes": shape,
        "Indexing": indexing,
        "Products": linalg,
    }
    parts = [HEAD]
    here = {name: getattr(ops, name) for name in ops.__all__}
    own = [name for name in tr.__all__ if name not in here and name != "errors"]
    parts.append(f"## Tensors and derivatives\n\n{table('tr.', own, tr)}")
    for title, module in groups.items():
        names = [name for name in ops.__all__ if getattr(module, name, None) is here[name] and defines(module, name)]
        parts.append(f"## {title}\n\n{table('tr.', names, tr)}")
    for title, module in {
        "Layers": nn,
        "Losses and functions": functional,
        "Initialisers": init,
        "Optimisers": optim,
        "Data": data,
        "Training": training,
        "Tests": testing,
    }.items():
        prefix = module.__name__.replace("tinygrad_rnn", "tr") + "."
        parts.append(f"## {title}\n\n{table(prefix, listed(module), module)}")
    parts.append(f"## Errors\n\n{table('tr.errors.', errors(), tr.errors)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def defines(module: ModuleType, name: str) -> bool:
    return f"def {name}(" in inspect.getsource(module)


def errors() -> list[str]:
    return [name for name, e in vars(tr.errors).items() if inspect.isclass(e) and issubclass(e, Exception)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
