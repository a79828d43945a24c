"""Names and arguments taken from an array library exist in CuPy too, and names in the array API standard.

The list is that of the stand-in for CuPy, made from its wheel. Methods are seen only where code runs, on the stand-in.
"""

from __future__ import annotations

import ast
from pathlib import Path

import array_api_strict
import pytest

from tests.standin.cupy import _surface

ROOT = Path(__file__).parents[2] / "tinygrad_rnn"
FILES = sorted([*ROOT.glob("tensor/**/*.py"), *ROOT.glob("nn/**/*.py")])
CUPY = _surface.names()


def is_namespace(node: ast.expr, aliases: set[str]) -> bool:
    """`namespace(...)`, `backend.namespace(...)`, or a name that was assigned from one."""
    if isinstance(node, ast.Call):
        f = node.func
        return (isinstance(f, ast.Name) and f.id == "namespace") or (
            isinstance(f, ast.Attribute) and f.attr == "namespace"
        )
    return isinstance(node, ast.Name) and node.id in aliases


def names_used(source: str) -> set[tuple[str, int]]:
    """(name, line) of every attribute taken from an array namespace."""
    tree = ast.parse(source)
    aliases = {"xp"}
    for node in ast.walk(tree):
        pairs = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
            pairs = [(node.target, node.value)]
        for target, value in pairs:
            if isinstance(target, ast.Name) and is_namespace(value, set()):
                aliases.add(target.id)
    return {
        (node.attr, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_namespace(node.value, aliases)
    }


def arguments_used(source: str) -> set[tuple[str, str, int]]:
    """(function, argument, line) of every argument that is given by name to a function of a namespace."""
    tree = ast.parse(source)
    return {
        (node.func.attr, keyword.arg, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_namespace(node.func.value, {"xp"})
        for keyword in node.keywords
        if keyword.arg is not None
    }


USED = [(path, name, line) for path in FILES for name, line in sorted(names_used(path.read_text()))]


def test_the_search_finds_names():
    source = "xp = namespace(x)\nxp.exp(x)\nnp2 = backend.namespace(x)\nnp2.tanh\nnamespace(a).sum(a)\nother.log"
    assert {name for name, _ in names_used(source)} == {"exp", "tanh", "sum"}
    assert len({name for _, name, _ in USED}) > 20
    assert {"exp", "einsum", "add", "concat"} <= CUPY
    assert "vecdot" not in CUPY


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_exist_in_cupy(path):
    unknown = [(name, line) for file, name, line in USED if file == path and name not in CUPY]
    assert not unknown, f"not in CuPy: {unknown}"


def test_the_search_finds_arguments():
    assert arguments_used("xp.sum(x, axis=0)\nnamespace(x).take(x, mode='clip')\nother.f(b=1)") == {
        ("sum", "axis", 1),
        ("take", "mode", 2),
    }
    assert len({name for path in FILES for name, _, _ in arguments_used(path.read_text())}) > 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arguments_exist_in_cupy(path):
    unknown = []
    for name, argument, line in arguments_used(path.read_text()):
        _, known = _surface.arguments("f", name) if ("f", name) in _surface.surface() else (0, None)
        if known is not None and argument not in known:
            unknown.append((name, argument, line))
    assert not unknown, f"not in CuPy: {unknown}"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.stem not in ("backend", "kernels")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_names_exist_in_the_standard(path):
    """Except in backend.py, which holds what the libraries do differently, and in kernels."""
    standard = {*dir(array_api_strict), "linalg"}  # an extension of the standard that all have
    unknown = [(name, line) for file, name, line in USED if file == path and name not in standard]
    assert not unknown, f"not in the array API standard: {unknown}"
