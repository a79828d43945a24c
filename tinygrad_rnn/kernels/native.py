"""The compiled kernels: object files that numba makes once on a machine, loaded by llvmlite, without numba.

numba with its compiler takes a process 70 MB and a second, so it is never imported here. What it makes of the kernels
(`numba_object`, in a process of its own) is kept as an object file, one of each of the `GROUPS`, and llvmlite, which
numba is built on, links that into any other process. The file is found by `key`: what its code depends on. It is
written as a whole or not at all, and read only if its hash is right; otherwise the kernels are compiled again. Before
it is kept, another process loads it, since LLVM ends a process that it cannot link something into.

Kept it is beside this file, or in the user's cache where that cannot be written to; `NUMBA_CACHE_DIR` names another
place. Where nothing can be written to it is compiled for this process alone.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

GROUPS = ("float32", "others", "ctc")  # all but the first are compiled when they are needed for the first time
OTHERS = ("d", 2)  # the kinds of numbers whose kernels are in the second, and words of a table but float32's
# what is compiled, in the order in which it is read, and what its code depends on
SOURCES = ("native", "numba_object", "machine", "registers", "numba_machine", "numba_products", "numba_stages")
MISSING = "numba is not installed: pip install numba"
HEAD = b"tinygrad_rnn kernels"


def symbol_of(name: str, kind: Any = "") -> str:
    """The name of a kernel in the object file."""
    return f"tinygrad_rnn_{name}_{kind}" if kind else f"tinygrad_rnn_{name}"


def group_of(name: str, kind: Any) -> str:
    """The group in which a kernel for a kind of numbers is."""
    others = kind in OTHERS or (name in ("pick", "put", "take") and kind != 4)
    return "ctc" if name.startswith("ctc") else GROUPS[others]


# --- the file ---------------------------------------------------------------------------------------------------------


@functools.cache
def key() -> str:
    """What the code of the kernels depends on, as a hash. Raises ModuleNotFoundError where numba is not installed."""
    try:
        versions = [f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
        from llvmlite import binding
    except ModuleNotFoundError:
        raise ModuleNotFoundError(MISSING) from None
    python = [sys.implementation.cache_tag, sys.version, str(sysconfig.get_config_var("Py_GIL_DISABLED"))]
    processor = [binding.get_process_triple(), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()]
    found = hashlib.sha256("\n".join([*versions, *python, *processor]).encode())
    for name in SOURCES:
        found.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return found.hexdigest()


def container(code: bytes, key: str) -> bytes:
    """A file of an object, with what shows that it is whole, and what it is the object of."""
    return b"%s %s %s\n%s" % (HEAD, key.encode(), hashlib.sha256(code).hexdigest().encode(), code)


def content(data: bytes) -> bytes | None:
    """The object in a file; None for one that is damaged, or of other kernels."""
    head, _, code = data.partition(b"\n")
    return code if container(code, key()).startswith(head + b"\n") else None


def places() -> Iterator[Path]:
    """The folders in which an object file may be kept, the best first."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named)
        return
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # there is no home
        caches = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / caches) / "tinygrad_rnn"


def file_name(group: str) -> str:
    """The name of a group's file."""
    return f"kernels-{group}-{sys.implementation.cache_tag}-{key()[:16]}.o"


def kept(group: str) -> tuple[Path, bytes] | None:
    """The file of a group, and the object in it; None if there is no whole one."""
    for place in places():
        with suppress(OSError):
            file = place / file_name(group)
            if (code := content(file.read_bytes())) is not None:
                return file, code
    return None


def keep(group: str, data: bytes) -> Path | None:
    """Write a group's file, as a whole or not at all; None where that cannot be."""
    for place in places():
        with suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            written = place / f"{file_name(group)}.{os.getpid()}"
            try:
                written.write_bytes(data)
                return written.replace(place / file_name(group))
            except BaseException:
                written.unlink(missing_ok=True)
                raise
    return None


def state() -> str:
    """What is kept of the kernels, in words."""
    try:
        found = {group: file for group in GROUPS if (file := kept(group)) is not None}
    except (ImportError, OSError) as error:
        return f"NumPy's alone: {error}"
    if not found:
        return f"none compiled yet: numba will, for some seconds, into {next(places())}"
    places_of = ", ".join(sorted({str(file.parent) for file, _ in found.values()}))
    return f"compiled by numba {metadata.version('numba')} for {' and '.join(found)}, in {places_of}"


# --- how it is made ---------------------------------------------------------------------------------------------------


def _run(module: str, *arguments: str, folder: str) -> None:
    """Run a module's `main` in a process of its own. Raises RuntimeError for one that fails, with its last line."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise RuntimeError("kernels are compiled by another Python, and this program has none")
    paths = [os.path.abspath(p) for p in sys.path]
    code = f"import sys; sys.path[:] = {paths!r}; from {module} import main; main(*{arguments!r})"
    # numba has its own defaults there: no settings of this process, nor of a file in this folder, and no mathematics of
    # Intel's, whose digits are others
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    environment |= {"NUMBA_DISABLE_INTEL_SVML": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", code]
    try:
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise RuntimeError(f"the kernels cannot be compiled: {error}") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"the kernels cannot be compiled: {last or f'exit status {done.returncode}'}")


def compiled(group: str) -> bytes:
    """Compile the kernels of a group, try them, and keep them; returns the object."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.o")
        _run("tinygrad_rnn.kernels.numba_object", group, str(path), folder=folder)
        _run(__name__, group, str(path), folder=folder)
        data = path.read_bytes()
    code = content(data)
    if code is None:
        raise RuntimeError("the kernels cannot be compiled: this package was changed in the meantime: start anew")
    keep(group, data)
    return code


def main(group: str, path: str) -> None:
    """Load the kernels of a group from a file, as a trial."""
    code = content(Path(path).read_bytes())
    assert code is not None
    _engines[group] = _linked(code)
    if group == GROUPS[0]:
        from tinygrad_rnn.kernels import compiled_stages

        compiled_stages.trial()


# --- in this process --------------------------------------------------------------------------------------------------

_lock = threading.RLock()
_engines: dict[str, Any] = {}  # by group: what holds its code


def _linked(code: bytes) -> Any:
    """An object in memory, where it stays for as long as what is returned."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple()).create_target_machine(opt=3, jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def load(group: str = GROUPS[0]) -> None:
    """Have the kernels of a group in this process; compile them if need be.

    Raises ModuleNotFoundError where numba is not installed, RuntimeError where it does not compile them.
    """
    with _lock:
        if group not in _engines:
            found = kept(group)
            _engines[group] = _linked(found[1] if found else compiled(group))


def address(name: str, kind: Any = "") -> int:
    """The address of a kernel. Raises KeyError for one that there is none of."""
    group = group_of(name, kind)
    load(group)
    found = _engines[group].get_function_address(symbol_of(name, kind))
    if not found:
        raise KeyError(kind)
    return int(found)


@functools.cache
def function(name: str, *arguments: Any) -> Any:
    """A kernel that returns a number, as Python calls it; meanwhile it has not Python's lock."""
    return ctypes.CFUNCTYPE(ctypes.c_ssize_t, *arguments)(address(name))
