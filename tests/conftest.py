"""What every test shares: how long Hypothesis searches, which tests need a GPU, and a run of the command.

HYPOTHESIS_PROFILE chooses how long: `dev` (the default; few examples, new ones every time), `ci` (the default
where CI is set; the same examples every time), `thorough` (`make test-thorough`) or `fast` (`make test-pythons`). A
test that needs another number than the profile's says so with `tests.profiles.examples`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: the machine may be shared, and a slow example is not a wrong one.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **COMMON)
settings.register_profile("ci", max_examples=60, derandomize=True, **COMMON)
settings.register_profile("fast", max_examples=5, derandomize=True, **COMMON)
settings.register_profile("thorough", max_examples=1000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@cache
def why_no_gpu() -> str:
    """Why the tests marked `gpu` cannot run here; empty where they can."""
    from tinygrad_rnn.errors import BackendMismatchError
    from tinygrad_rnn.tensor.device import probe

    try:
        probe()
    except BackendMismatchError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and why_no_gpu():
            item.add_marker(pytest.mark.skip(reason=why_no_gpu()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--numba", action="store_true", help="run with the kernels that numba compiles (extra `numba`)")


@pytest.fixture(autouse=True)
def compiled_kernels(request: pytest.FixtureRequest):
    """All that holds of the kernels holds of the compiled ones: the same tests, with `--numba`, each of them."""
    if request.config.getoption("--numba"):
        import tinygrad_rnn as tr

        tr.enable_numba()


@pytest.fixture(autouse=True)
def seeded():
    """Weights that a test does not seed itself are the same each time: a failure comes back."""
    import tinygrad_rnn as tr

    tr.manual_seed(0)


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for CuPy in this process, which is `cupy` while the test runs, for tests that launch kernels."""
    from tests.standin import cupy as cp
    from tests.standin.cupy import _raw
    from tinygrad_rnn.kernels import cuda

    if _raw.compiler() is None:
        pytest.skip(_raw.MISSING)
    monkeypatch.setitem(sys.modules, "cupy", cp)
    monkeypatch.setattr(cuda, "kernel", cuda.kernel.__wrapped__)  # what it has cached may be of another `cupy`
    return cp


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread_per_worker():
    """Under pytest-xdist the workers are the parallelism: BLAS threads on top would only fight each other."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import numpy  # noqa: F401  (its BLAS must be loaded before it can be limited)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with `text.txt` and the run `run`, and what the command said: `tests.cli.command.Trained`."""
    from tests.cli.command import SMALL, TEXT, command

    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    done = command("train", "--text", "text.txt", "--steps", 60, "--out", "run", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done
