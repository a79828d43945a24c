"""The API reference: a page for each public module, which `docs/api/` holds while the site is built."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import tinygrad_rnn as tr
from tests import reference_page
from tinygrad_rnn.tensor import ops

HIDDEN = "forward, extra_repr"  # of a layer: its class says it all


def directive(module: ModuleType, name: str) -> list[str]:
    """What asks autodoc for one public name."""
    full = f"{module.__name__}.{name}"
    thing = getattr(module, name)
    if inspect.isclass(thing) and thing.__module__.startswith("tinygrad_rnn"):
        return [f".. autoclass:: {full}", "   :members:", f"   :exclude-members: {HIDDEN}", ""]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {full}", ""]
    said = reference_page.description(module, name).replace("\\|", "|").replace("`", "``")
    return [f".. py:data:: {name}", "", f"   {said}", ""]


def page(title: str, module: ModuleType, names: list[str]) -> str:
    """The reStructuredText of one page."""
    lines = [title, "=" * len(title), "", f".. py:module:: {module.__name__}", ""]
    for name in names:
        lines += directive(module, name)
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """All the pages by their names."""
    own = [name for name in reference_page.public_names(tr) if name not in ops.__all__]
    found = {"tensors": page("tr: tensors and derivatives", tr, own)}
    for title, module in reference_page.OPS.items():
        name = module.__name__.rpartition(".")[2]
        text = page(
            f"tr: {title[0].lower()}{title[1:]}", tr, [n for n in ops.__all__ if reference_page.defines(module, n)]
        )
        found[f"ops-{name}"] = text.replace(".. py:module:: tinygrad_rnn\n", "")
    for name, module in reference_page.public_modules().items():
        found[name.removeprefix("tr.")] = page(name, module, reference_page.public_names(module))
    return found


def index(names: list[str]) -> str:
    """The first page, which lists the others."""
    head = ["API", "===", "", "Every public name, with the whole of its docstring; ``import tinygrad_rnn as tr``.", ""]
    return "\n".join([*head, ".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in names), ""])


def write(app: Any) -> None:
    """Write the pages that are new or other than before, and remove those that are none any more."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    found = pages()
    found["index"] = index(list(found))
    for path in folder.glob("*.rst"):
        if path.stem not in found:
            path.unlink()
    for name, text in found.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def foreign(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to its estimators, whose docstrings are of another kind."""
    return True if str(getattr(member, "__module__", "")).startswith("sklearn.") else None


def setup(app: Any) -> dict[str, Any]:
    """Write before Sphinx looks for pages."""
    app.connect("builder-inited", write)
    app.connect("autodoc-skip-member", foreign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
