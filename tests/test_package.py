"""What a user installs: the declared dependencies are the ones used, and extras are extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import tinygrad_rnn as tr

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, TOOLS = PYPROJECT["project"], PYPROJECT["tool"]
EXTRAS = PROJECT["optional-dependencies"]


def import_name(requirement: str) -> str:
    """The module that a requirement installs."""
    name = re.match(r"[\w-]+", requirement).group().lower().replace("-", "_")
    return (
        "cupy"
        if name.startswith("cupy_")
        else {"scikit_learn": "sklearn", "ipykernel": "IPython", "argparse_manpage": "build_manpages"}.get(name, name)
    )


def third_party(folder: str) -> set[str]:
    """Every top-level module that the files of a folder import and Python does not bring."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return (
        found
        - set(sys.stdlib_module_names)
        - {"tinygrad_rnn", "tests", "examples", "benchmarks", "cupyx", "no_such_peer"}
    )


def test_all_that_is_imported_is_declared() -> None:
    hard = {import_name(requirement) for requirement in PROJECT["dependencies"]}
    optional = {import_name(requirement) for extra in EXTRAS.values() for requirement in extra}
    assert third_party("tinygrad_rnn") <= hard | optional
    of_tests = {
        import_name(r) for extra in ("test", "viz", "browser", "mutation", "witness") for r in EXTRAS.get(extra, ())
    }
    assert third_party("tests") <= hard | of_tests | {"cupy"}


ADVICE = re.compile(
    r"pip install +(?:-e |--editable )?(?:'([^']+)'|\\?\"([^\"\\]+)\\?\"|([\w.-]+))|\binstall\(['\"]([^-'\"]+)['\"]\)"
)


def test_the_advice_to_install_something_can_be_followed() -> None:
    """The project itself is on no index: it is the clone, `.`, with extras that there are, or a package by its name."""
    files = [path for folder in ("tinygrad_rnn", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    files += [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    advised = {x for file in files for found in ADVICE.findall(file.read_text("utf-8")) for x in found if x}
    packages = {re.split("[=><]", requirement)[0] for extra in EXTRAS.values() for requirement in extra}
    clone = re.compile(r"\.(\[\w+(,\w+)*\])?")
    assert {".[viz]", ".", "numba", "pooch", "matplotlib", "cupy-cuda12x[ctk]"} <= advised
    for what in advised - {"{package}"}:  # the doctor's, which has a test
        extras = re.findall(r"\w+", what) if clone.fullmatch(what) else []
        assert set(extras) <= EXTRAS.keys() if clone.fullmatch(what) else what in packages, what


def test_the_tools_are_pinned() -> None:
    assert all("==" in requirement for requirement in EXTRAS["test"] + EXTRAS["browser"])


def test_the_version_is_in_one_place_and_in_the_changelog() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", tr.__version__)
    assert "version" in PROJECT["dynamic"]
    assert f"\n## {tr.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_who_cites_it_cites_this_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {tr.__version__}" in lines and f"license: {PROJECT['license']}" in lines
    assert f"  - name: {PROJECT['authors'][0]['name']}" in lines


def test_the_page_of_the_index_links_into_no_repository() -> None:
    page, hook = (ROOT / "README.md").read_text(encoding="utf-8"), TOOLS["hatch"]["metadata"]["hooks"]
    for rule in hook["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(rule["pattern"], rule["replacement"], page)
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert targets and all(target.startswith("https://") for target in targets)
    assert "PyTorch name, ours, difference |" in page  # the words of a link remain


def test_types_are_shipped() -> None:
    assert (ROOT / "tinygrad_rnn" / "py.typed").is_file()


def test_without_extras_all_else_imports() -> None:
    """The check that .ci/run makes of the wheel, with every extra made unimportable."""
    blocked = sorted({import_name(requirement) for extra in EXTRAS.values() for requirement in extra})
    program = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"runpy.run_path({str(ROOT / '.ci' / 'check_bare.py')!r})"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    for target in targets:
        assert re.search(rf"^{target}:.* ## \S", makefile, re.MULTILINE), target


def test_make_help_fits_a_screen() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [f"make {target:16} {text}" for target, text in re.findall(r"^([a-z-]+):.*## (.*)$", makefile, re.M)]
    assert 10 < len(lines) <= 24 and max(map(len, lines)) <= 100, max(lines, key=len)
