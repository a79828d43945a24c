"""`tinygrad-rnn doctor`: what a computer has for training, and what slows it down."""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.errors import BackendMismatchError
from tinygrad_rnn.kernels import native
from tinygrad_rnn.screen import install
from tinygrad_rnn.tensor.device import probe

# Variables that choose the threads and the kernels of a BLAS, or of NumPy itself.
PREFIXES = ("OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "VECLIB_", "NPY_")
CUPY = {12: "cupy-cuda12x[ctk]>=14.2", 13: "cupy-cuda13x[ctk]>=14.2"}

# The best of many short turns, as a busy machine can only make one slower. The process of a measurement ends itself.
_MEASURE = """
import sys, time
import numpy as np
a = np.ones((384, 384), np.float32)
best, end = 1.0, time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    start = time.perf_counter()
    a @ a
    best = min(best, time.perf_counter() - start)
print(2 * 384**3 / best / 1e9)
"""


def run(args: argparse.Namespace) -> int:
    """Print the report; returns the exit status."""
    check_output()
    for line in examine():
        print(line, flush=True)
    return 0


def examine() -> Iterator[str]:
    """The report, line by line as it is found out."""
    yield f"Python       {platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}"
    yield f"NumPy        {np.__version__}"
    blas = _blas()
    for entry in blas:
        kernels = f", kernels for {entry['architecture']}" if entry.get("architecture") else ""
        yield f"BLAS         {entry['internal_api']} {entry.get('version') or ''}{kernels}".rstrip()
    if not blas:
        yield "BLAS         one that threadpoolctl does not know"
    threads = max((entry["num_threads"] for entry in blas), default=1)
    yield f"Threads      {_plural(threads, 'thread')} for large products, {_plural(_cores(), 'core')} to run on"
    yield from _busy()
    yield from _variables(os.environ)
    yield from _gpus()
    yield f"Memory       {_memory()}"
    others = ("safetensors", "rich", "threadpoolctl", "matplotlib", "numba")
    yield f"Kernels      {native.state()}"
    yield "Packages     " + ", ".join(f"{name} {_version(name)}" for name in others)


def _busy() -> Iterator[str]:
    """Whether other programs want the cores, which the threads of a BLAS take while they wait for one another."""
    if hasattr(os, "getloadavg"):  # not on Windows
        load = os.getloadavg()[0]
        cure = "; so a script may be faster on one thread: OPENBLAS_NUM_THREADS=1" if load > _cores() / 2 else ""
        yield f"Load         {load:.1f} of {_plural(_cores(), 'core')} in the last minute{cure}"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def _blas() -> list[dict[str, Any]]:
    return [entry for entry in threadpool_info() if entry.get("user_api") == "blas"]


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def measure(environment: Mapping[str, str], seconds: float = 0.25) -> float:
    """The speed of NumPy's matrix products in a new process with this environment, in 10⁹ operations a second."""
    command = [sys.executable, "-c", _MEASURE, str(seconds)]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


def _variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Which variables meddle with the BLAS, and how fast it is with and without each."""
    found = sorted(name for name in environment if name.startswith(PREFIXES))
    try:
        now = measure(environment)
        yield f"Products     {now:,.0f} GFLOP/s (float32)"
        if not found:
            yield "Variables    none that changes the BLAS"
        without = {k: v for k, v in environment.items() if k not in found}
        free = measure(without) if found else now
        for name in found:
            one = measure({k: v for k, v in environment.items() if k != name}, 0.15) if len(found) > 1 else free
            verdict = "no matter"
            if one > 1.15 * now:
                verdict = f"slows it: {one / now:.1f} times as fast without it ({one:,.0f} GFLOP/s); unset {name}"
            elif one < now / 1.15:
                verdict = f"helps: {now / one:.1f} times as slow without it"
            yield f"Variables    {name}={environment[name]}: {verdict}"
        if len(found) > 1 and free > 1.15 * now:
            yield f"             without all of them: {free:,.0f} GFLOP/s, {free / now:.1f} times as fast"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        yield f"Products     could not be measured: {error}"


def _gpus() -> Iterator[str]:
    driver = _driver()
    try:
        import cupy
    except ImportError:
        if driver is None:
            yield "GPU          none: there is no NVIDIA driver, so CuPy would find nothing (training on the CPU works)"
        else:
            package = CUPY[min(max(driver // 1000, 12), 13)]
            version = f"{driver // 1000}.{driver % 1000 // 10}"
            yield f"GPU          there is a driver for CUDA {version}, but no CuPy: install it"
            yield f"             {install(package)}"
        return
    count = cupy.cuda.runtime.getDeviceCount() if cupy.cuda.is_available() else 0
    yield f"CuPy         {cupy.__version__}" + ("" if count else ", but it finds no GPU or no driver")
    for number in range(count):
        name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
        yield f"GPU          cuda:{number}  {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if count:
        try:
            probe()
            yield "GPU          a kernel and a product run"
        except BackendMismatchError as error:
            yield f"GPU          {error}"


def _driver() -> int | None:
    """The newest CUDA version that the NVIDIA driver runs, as 1000 major + 10 minor; None without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            version = ctypes.c_int()
            if ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
                return version.value
        except (OSError, AttributeError):
            continue
    return None


def _memory() -> str:
    """Free and total memory, and the limit of a container where there is one."""
    try:
        found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(found[key].split()[0]) / 2**20 for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= getattr(os, "sysconf_names", {}).keys():
            return "unknown on this system"
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB in all"
    said = f"{free:.1f} of {total:.1f} GiB free"
    try:
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        said += f"; this container may have {limit / 2**30:.1f} GiB and uses {used / 2**30:.1f}"
    except (OSError, ValueError):  # no container, or "max": no limit
        pass
    return said
