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
from tests.code_lines import code_lines, engine_lines, show

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinygrad_rnn"
FILES = sorted(PACKAGE.rglob("*.py"))
PARTS = {path.stem for path in PACKAGE.iterdir()}

# A part may import parts up to its own rank. `testing` stands beside them.
RANK = {
    "errors": 0,
    "memory": 0,
    "notebook": 0,
    "pytorch": 0,
    "scalars": 0,
    "screen": 0,
    "tensor": 1,
    "kernels": 2,
    "nn": 3,
    "optim": 4,
    "data": 4,
    "compiler": 5,
    "training": 5,
    "decoding": 5,
    "estimators": 6,
    "explain": 6,
    "language": 6,
    "__init__": 6,  # what users import; below it a part says which part it needs
    "explore": 7,
    "cli": 8,
    "__main__": 9,
}
ASIDE = {"testing"}
ENGINE_BUDGET = 2750  # code lines without imports, a fifth above the first 2,243: it guards ideas, not lines


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
    # `random` draws on the host, and what numba compiles is for NumPy only
    names = ("tensor/backend.py", "tensor/device.py", "tensor/random.py", "kernels/machine.py")
    names += ("kernels/compiled_stages.py", "kernels/numba_stages.py", "kernels/registers.py")
    knows = {PACKAGE / name for name in names}
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


def test_the_engine_keeps_to_its_budget() -> None:
    show(PACKAGE / "tensor")
    assert engine_lines(PACKAGE / "tensor") <= ENGINE_BUDGET


def test_a_new_op_does_not_count_as_engine(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    for name in ("graph.py", "creation.py", "random.py", "ops/arithmetic.py"):
        (tmp_path / name).write_text("x = 1\n")
    assert engine_lines(tmp_path) == 1


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


# --- the tests mirror the package ---------------------------------------------------------------------------

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# Those of something that lies across modules, or outside of the package.
ACROSS = {
    "test_adding_an_op.py": "what CONTRIBUTING.md tells of an op",
    "test_benchmarks.py": "the benchmarks run, and compare the same work",
    "test_docs.py": "the pages are true",
    "test_gpu.py": "what stands around ops and layers, on a GPU",
    "test_package.py": "what is installed",
    "test_structure.py": "this repository's shape",
    "test_ways_in.py": "what becomes a tensor, from all sides",
    "kernels/test_cuda.py": "the CUDA sources, by NVRTC and by a C++ compiler",
    "kernels/test_numba.py": "numba's stages beside NumPy's, and the switch between them",
    "browser/test_access.py": "the page by keyboard, by ear, without colour, on a phone",
    "browser/test_drag.py": "a slider that is dragged: few requests, and the last one shown",
    "browser/test_file.py": "the page as one file, from a disk",
    "browser/test_page.py": "the page in a browser: what it shows, its address, a training run",
    "compiler/test_arguments.py": "arguments and results of compiled functions",
    "compiler/test_errors.py": "what fails, while it is recorded or repeated",
    "compiler/test_fuzz.py": "programs that are drawn, plain and compiled",
    "compiler/test_lengths.py": "one recording for sequences of any lengths",
    "compiler/test_guards.py": "what is changed around a compiled function between its calls",
    "compiler/test_state.py": "optimisers, schedules, modes and generators in compiled functions",
    "examples/test_options.py": "every option of every example",
    "examples/test_use.py": "every example that learns is used on what is new",
    "language/test_use_a_model_page.py": "docs/use-a-model.md",
    "nn/test_configurations.py": "random recurrent layers beside a reference of each",
    "nn/test_digits.py": "the digits of losses, normalisers and gates: offsets, tails, float16",
    "nn/test_lengths.py": "ragged batches through all recurrent layers",
    "nn/test_proof.py": "layers and losses, by the laws of the kit",
    "nn/test_torch.py": "layers beside PyTorch's",
    "nn/test_torch_page.py": "docs/pytorch.md",
    "nn/test_windows.py": "convolution and pooling as functions, beside windows written out by hand",
    "standin/test_standin.py": "the stand-in for CuPy, and on it what needs a GPU",
    "tensor/test_cupy_names.py": "names and arguments that CuPy must have",
    "tensor/test_einsum.py": "one op of `linalg`, whose subscripts are a language",
    "tensor/test_gpu.py": "ops on a GPU",
    "tensor/test_digits.py": "the digits of ops: tails, offsets, many classes, float16",
    "tensor/test_machine.py": "whatever users do to graphs, in any order",
    "tensor/test_ops_table.py": "every op, by the laws of the kit",
    "tensor/test_options.py": "every op's options in other forms",
    "tensor/test_pitfalls.py": "what bites users of systems like this one",
    "tensor/test_special_values.py": "every op at zeros, poles, infinities and NaN",
    "tensor/test_strict_backend.py": "every op on array_api_strict",
    "tensor/test_subgradients.py": "every op at its kinks",
    "tensor/test_types.py": "what a type checker knows of ops and arrays",
    "testing/test_layers.py": "the layers that people write, right and wrong",
    "witness/test_onnx.py": "layers beside ONNX's",
    "witness/test_ops.py": "ops beside PyTorch's",
    "witness/test_sound.py": "bands of pitch beside librosa's",
}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT / "tests").as_posix())
def test_a_file_of_tests_is_named_after_what_it_tests(path: Path) -> None:
    """`tests/ROOM/test_X.py` tests the module X of that room, of the package or beside it, or is in `ACROSS`."""
    room, name = path.parent.relative_to(ROOT / "tests"), path.stem.removeprefix("test_")
    names = {f"{name}.py", f"__{name}__.py"}
    modules = [*(PACKAGE / room).rglob("*.py")] if room.parts else [*PACKAGE.glob("*.py")]
    modules += [*(ROOT / room).glob("*.py"), *path.parent.glob("*.py")]  # examples; the mutants and the witness
    has_module = any(module.name in names for module in modules)
    assert has_module != ((room / path.name).as_posix() in ACROSS), "no such module: say in ACROSS what it tests"


def test_what_tests_across_modules_is_there() -> None:
    there = {path.relative_to(ROOT / "tests").as_posix() for path in TESTS}
    assert there >= ACROSS.keys()


def test_every_folder_of_tests_is_a_room() -> None:
    rooms = {path.relative_to(ROOT / "tests") for path in (path.parent for path in TESTS)}
    strangers = {room for room in rooms if not ((PACKAGE / room).is_dir() or (ROOT / room).is_dir())}
    assert {room.as_posix() for room in strangers} == {"browser", "mutants", "standin", "witness"}
