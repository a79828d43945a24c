"""An op is added as CONTRIBUTING.md tells: in a copy of the repository, by its edits and commands, and all is green."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("tinygrad_rnn", "tests", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")

FORWARDS = '''

@op(lambda g, x: g * cosh(x))
def sinh(x: Operand) -> Array:
    """The hyperbolic sine.

    >>> import tinygrad_rnn as tr
    >>> tr.sinh(tr.Tensor(0.0)).item()
    0.0
    """
    return namespace(x).sinh(x)


@op(lambda g, x: g * sinh(x))
def cosh(x: Operand) -> Array:
    """The hyperbolic cosine.

    >>> import tinygrad_rnn as tr
    >>> tr.cosh(tr.Tensor(0.0)).item()
    1.0
    """
    return namespace(x).cosh(x)
'''
ROWS = """
    Domain(
        ops.sinh, "*", np.sinh, analytic=True,
        special=(at([0.0, -0.0, inf, -inf, nan], [0, -0.0, inf, -inf, nan], [1, 1, inf, inf, nan]),),
    ),
    Domain(
        ops.cosh, "*", np.cosh, analytic=True,
        special=(at([0.0, -0.0, inf, -inf, nan], [1, 1, inf, inf, nan], [0, -0.0, inf, -inf, nan]),),
    ),"""


def commands() -> list[list[str]]:
    """The commands of CONTRIBUTING's section on ops, for the two ops."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("**An op**")[1].split("**A layer**")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    found = []
    for line in block.splitlines():
        words = line.partition("  #")[0].replace(".venv/bin/python", sys.executable).split(" -k ")
        assert words[0].startswith(sys.executable), f"not run by the Python of the environment: {line}"
        names = [words[1].strip('"').replace("tanh", "sinh or cosh")] if len(words) > 1 else []
        found.append([*words[0].split(), *(["-k", *names] if names else [])])
    return found


def edit(path: Path, anchor: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(anchor) == 1, f"{path.name}: {anchor!r}"
    path.write_text(text.replace(anchor, anchor + new), encoding="utf-8")


def run(command: list[str], folder: Path) -> str:
    """The output of a command in the copy; a failure shows it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH", "CI"))}
    done = subprocess.run(
        command, cwd=folder, env={**clean, "HYPOTHESIS_PROFILE": "dev"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_two_ops_are_added_as_contributing_tells(copy: Path) -> None:
    package = copy / "tinygrad_rnn"
    edit(package / "tensor/ops/elementwise.py", "    return namespace(x).cos(x)\n", FORWARDS)
    edit(package / "tensor/ops/__init__.py", "    sin, cos, ", "sinh, cosh, ")
    edit(package / "tensor/ops/__init__.py", '    "sin", "cos", ', '"sinh", "cosh", ')
    edit(package / "testing/domains.py", "    # elementwise", ROWS)
    for command in commands():
        said = run(command, copy)
    (passed,) = re.findall(r"(\d+) passed", said)
    assert int(passed) > 30 and "failed" not in said
    page = (copy / "docs/reference.md").read_text(encoding="utf-8")
    assert "| `tr.sinh` | The hyperbolic sine. |" in page and "| `tr.cosh` |" in page
