"""All that needs a GPU in one command, `python -m benchmarks.gpu`: the tests marked `gpu`, then a benchmark.

It takes the Python that runs it and what is installed there, since a machine with a GPU often has no network; its first
lines say what is missing. The exit status is not 0 where something failed, or where nothing was checked. The benchmark
is the training step of `benchmarks.train_step` on the first device, in IEEE float32 for both sides.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks import train_step
from benchmarks.__main__ import show
from benchmarks.processes import ROOT, prepare

NEEDED = {"numpy": "everything", "cupy": "everything", "pytest": "the tests", "hypothesis": "the tests"}
HELPFUL = {"torch": "the comparison with cuDNN", "threadpoolctl": "a few tests", "safetensors": "a few tests"}
CONTENDERS = {
    "tinygrad_rnn, CuPy": train_step.ours(device="cuda"),
    "PyTorch, cuDNN": train_step.in_torch(device="cuda"),
}
SIZES = [(16, 32, 32), (64, 64, 256), (64, 128, 512)]


def marked() -> list[str]:
    """The files with tests that need a GPU: others may import what is not installed here."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("tests/**/test_*.py"))}
    return [str(path.relative_to(ROOT)) for path, text in texts.items() if "pytest.mark.gpu" in text]


def look_around() -> dict[str, str]:
    """Say what is installed here; returns what is not, and what it is for."""
    print(f"Python {platform.python_version()}, {sys.executable}")
    missing = {}
    for name, use in (NEEDED | HELPFUL).items():
        if importlib.util.find_spec(name) is None:
            missing[name] = use
            print(f"Missing: {name}, for {use}")
            continue
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:  # CuPy's wheels have other names
            print(f"{name} {getattr(importlib.import_module(name), '__version__', '')}")
    return missing


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 if tests ran and passed and the benchmark ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program itself")
    args = parser.parse_args(arguments)
    missing = look_around()
    if missing.keys() & {"numpy", "cupy"}:
        print("Nothing was checked: see what is missing above.")
        return 1
    from tinygrad_rnn.errors import BackendMismatchError
    from tinygrad_rnn.tensor.device import probe

    try:
        probe()
    except BackendMismatchError as error:
        print(f"Nothing was checked: {error}.")
        return 1
    status = 1
    if missing.keys().isdisjoint(NEEDED):
        # a machine's pytest may be older than the one that this project asks for
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", "minversion=7", *marked()]
        status = subprocess.run(command, cwd=ROOT).returncode
    else:
        print("The tests were not run.")
    print("\n".join(["", *prepare(threads=2)]), flush=True)
    sizes = [(2, 3, 4)] if args.quick else SIZES
    show([train_step.compare("benchmarks.gpu", list(CONTENDERS), size, full=False) for size in sizes])
    return status


if __name__ == "__main__":
    sys.exit(main())
