"""The shape of the repository: which way imports point, how much code the core has, what an import costs."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygrad_rnn as tr
from tests.code_lines import code_lines, show, table

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinygrad_rnn"
FILES = sorted(PACKAGE.rglob("*.py"))
PARTS = {path.stem for path in PACKAGE.iterdir()}

# A part may import parts up to its own rank. `testing` and `explain` stand beside them.
RANK = {
    "errors": 0,
    "tensor": 1,
    "kernels": 2,
    "nn": 3,
    "optim": 4,
    "data": 4,
    "compiler": 5,
    "training": 5,
    "decoding": 5,
    "language": 6,
    "__init__": 6,  # what users import; below it a part says which part it needs
    "cli": 7,
    "__main__": 8,
}
ASIDE = {"testing", "explain"}
TENSOR_BUDGET = 2700  # code lines without imports


def part_of(module: str) -> str:
    """The part of the package that a dotted module name lies in."""
    names = [*module.split("."), "__init__"]
    return names[1] if names[1] in PARTS else "__init__"


def module_of(path: Path) -> str:
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imports(path: Path) -> Iterator[str]:
    """The absolute dotted names of all that a file imports, inside functions too."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + (node.module.split(".") if node.module else []))
            # `from tinygrad_rnn import nn` imports the module nn where there is one.
            yield from (f"{module}.{alias.name}" if module == "tinygrad_rnn" else module for alias in node.names)


def may_import(part: str, other: str) -> bool:
    if other in ASIDE:
        return part in {other, "__init__"}
    if part in ASIDE:
        return RANK[other] <= RANK["nn"]
    return RANK[other] <= RANK[part]


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(module_of(path))
    assert part in RANK or part in ASIDE, f"{part} is a new part of the package: give it a rank here"
    for name in imports(path):
        if name.split(".")[0] == "tinygrad_rnn":
            other = part_of(name)
            assert may_import(part, other), f"{part} must not import {name}"


def test_parts_of_the_same_rank_form_no_cycle() -> None:
    edges = {
        (part_of(module_of(path)), part_of(name))
        for path in FILES
        for name in imports(path)
        if name.split(".")[0] == "tinygrad_rnn"
    }
    both = {(a, b) for a, b in edges if a < b and (b, a) in edges and RANK.get(a) == RANK.get(b)}
    assert not both


def test_one_file_of_tensor_and_nn_knows_the_array_library() -> None:
    # `random` draws on the host, and `numba_stages` are for NumPy only
    knows = {PACKAGE / name for name in ("tensor/backend.py", "tensor/random.py", "kernels/numba_stages.py")}
    for path in itertools.chain(*((PACKAGE / part).rglob("*.py") for part in ("tensor", "kernels", "nn"))):
        if path not in knows:
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & {"numpy", "cupy", "cupyx", "array_api_strict"}, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_code_lines_counts_code_only() -> None:
    source = (
        '"""What.\n\nMore.\n"""\n\nfrom a import (\n    b,\n)\n\n# why\nx = """a\nb"""  # two lines\n\n\n'
        'def f():\n    """Doc."""\n    import c\n    return (\n        x\n    )\n'
    )
    assert code_lines(source) == (6, 4)


def test_the_core_keeps_to_its_budget() -> None:
    show(PACKAGE / "tensor")
    assert table(PACKAGE / "tensor")[-1][1] <= TENSOR_BUDGET


def test_import_loads_numpy_and_nothing_heavier() -> None:
    program = (
        "import sys, tinygrad_rnn\n"
        "loaded = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(*sorted(loaded))"
    )
    # -S: an environment's .pth files may load whatever they like at start.
    paths = "; ".join(["import sys", f"sys.path[:0] = {[str(ROOT), *(p for p in sys.path if 'site-packages' in p)]!r}"])
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{paths}\n{program}"], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= {"__main__", "numpy", "tinygrad_rnn"}


def test_every_public_name_exists() -> None:
    assert len(set(tr.__all__)) == len(tr.__all__)
    missing = [name for name in tr.__all__ if not hasattr(tr, name)]
    assert not missing


def tracked_texts() -> Iterator[Path]:
    """Every text of the repository, by git where there is git."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    for name in done.stdout.splitlines():
        if (ROOT / name).suffix in {"", ".cfg", ".json", ".md", ".py", ".toml", ".txt", ".yml"}:
            yield ROOT / name


def test_no_text_names_a_folder_of_somebodys_machine() -> None:
    private = re.compile(r"(?<![\w./])/(?:home|root|Users|mnt|srv|opt|work)/\w|file:/{2}")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked_texts()
        if path.is_file()
        for match in private.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found
