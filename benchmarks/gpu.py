"""All that needs a GPU in one command: `python -m benchmarks.gpu` runs the marked tests, then a benchmark.

The benchmark is the training step of `benchmarks.train_step` on the first device, in IEEE float32 for both
sides.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import train_step
from benchmarks.__main__ import show
from benchmarks.processes import ROOT, prepare
from tests.conftest import why_no_gpu

CONTENDERS = {
    "tinygrad_rnn, CuPy": train_step.ours(device="cuda"),
    "PyTorch, cuDNN": train_step.in_torch(device="cuda"),
}
SIZES = [(16, 32, 32), (64, 64, 256), (64, 128, 512)]


def main() -> int:
    """The exit status: that of the tests, and 0 where there is nothing to run them on."""
    if reason := why_no_gpu():
        print(f"Nothing was checked: {reason}.")
        return 0
    status = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu"], cwd=ROOT).returncode
    print("\n".join(["", *prepare(threads=2)]))
    show([train_step.compare(__name__, list(CONTENDERS), size, full=False) for size in SIZES])
    return status


if __name__ == "__main__":
    sys.exit(main())
