"""docs/reference.md lists what there is: no public module and no public name is missing, and each says what it is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tests import reference_page

PACKAGE = Path(tr.__file__).parent
# Parts of the package that are reached by other names: `tr.matmul`, `tr.compile`, the command.
INSIDE = {"tensor", "compiler", "cli", "explore", "memory", "notebook", "pytorch", "scalars", "screen"}
ROWS = dict(re.findall(r"^\| `(tr\.[\w.]+)` \| (.*) \|$", reference_page.page(), re.MULTILINE))


def test_every_part_of_the_package_has_a_section() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    public = {f"tr.{part}" for part in parts - INSIDE if not part.startswith("__")}
    assert public <= set(reference_page.public_modules())
    assert set(reference_page.TITLES) <= set(reference_page.public_modules())
    for name, module in reference_page.public_modules().items():
        assert f"\n## {reference_page.TITLES.get(name, name)}\n" in reference_page.page()
        assert module.__doc__


@pytest.mark.parametrize("name", ["tr", *reference_page.public_modules()])
def test_every_public_name_has_a_row_that_says_something(name: str) -> None:
    module = tr if name == "tr" else reference_page.public_modules()[name]
    defined = [n for n, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
    for public in getattr(module, "__all__", [n for n in defined if not n.startswith("_")]):
        if not inspect.ismodule(getattr(module, public)):
            assert ROWS.get(f"{name}.{public}"), f"{name}.{public} is missing, or has no docstring"


def test_the_names_that_were_missed_once() -> None:
    wanted = {"tr.decoding.beam_search", "tr.language.CharModel", "tr.compile", "tr.testing.DOMAINS", "tr.data.SETS"}
    assert wanted <= set(ROWS)


def test_what_is_said_of_a_constant() -> None:
    source = 'A = 1\n"""What."""\nB: int = 2  # why\nC = 3\n'
    assert [reference_page.said_below(source, name) for name in "ABCD"] == ["What.", "Why.", "", ""]
