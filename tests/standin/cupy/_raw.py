"""Kernels in CUDA on the stand-in: the same source, compiled by the C++ compiler behind `shim.h`, on NumPy's memory."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ._array import host_of, ndarray
from ._device import do, need

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / "build" / "standin"
# C's types, by what CuPy passes for them: Python's numbers have one width, NumPy's their own.
TYPES: dict[str, Any] = {
    "bool": np.bool_,
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "unsigned char": np.uint8,
    "float": np.float32,
    "double": np.float64,
}
MISSING = "no C++ compiler, by which the stand-in runs kernels in CUDA: install g++ or clang++, or set CXX"
PYTHONS = {bool: np.bool_, int: np.int64, float: np.float64}


class CompileException(Exception):
    """What CuPy raises where NVRTC refuses a source."""


@cache
def compiler() -> str | None:
    """The C++ compiler of this machine, or None."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    return next(filter(None, map(shutil.which, names)), None)


def built(code: str, *options: str) -> ctypes.CDLL:
    """A shared library of C++ `code`, which is compiled once and kept in build/standin."""
    cxx = compiler()
    if cxx is None:
        raise RuntimeError(MISSING)
    words = [cxx, "-O2", "-fPIC", "-shared", "-std=c++17", "-Wall", "-Werror", *options]
    key = hashlib.sha256("\0".join([*words, code]).encode()).hexdigest()[:24]
    library = BUILD / f"{key}.so"
    if not library.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            source, made = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
            source.write_text(code, encoding="utf-8")
            done = subprocess.run([*words, str(source), "-o", str(made)], capture_output=True, text=True)
            if done.returncode:
                raise CompileException(done.stderr[-6000:])
            os.replace(made, library)
    return ctypes.CDLL(str(library))


@cache
def shimmed(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """The library of a CUDA source behind the shim, with a `launch_NAME` for each kernel."""
    head = 'extern "C" int launch_{0}(const unsigned *dims, void **args) {{ return shim::launch({0}, dims, args); }}'
    launches = [head.format(name) for name, _ in kernels(code)]
    barriers = ["-DBARRIERS"] if "__syncthreads" in code else []
    shim = (HERE / "shim.h").read_text(encoding="utf-8")
    defines = [word for word in options if word.startswith("-D")]
    return built("\n".join([shim, code, *launches, ""]), *defines, *barriers)


def kernels(code: str) -> list[tuple[str, list[str]]]:
    """The kernels of a CUDA source, each with the words of its parameters."""
    found = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)", code)
    return [(name, [" ".join(p.split()) for p in words.split(",") if p.strip()]) for name, words in found]


def type_of(parameter: str, code: str, options: tuple[str, ...]) -> tuple[Any, bool]:
    """The NumPy type of a parameter, and whether it is a pointer."""
    pointer = "*" in parameter
    words = re.sub(r"\b(const|__restrict__)\b|\*", " ", parameter).split()[:-1]
    names = {new: old for old, new in re.findall(r"typedef ([\w ]+) (\w+);", code)}
    names |= dict(word[2:].split("=") for word in options if word.startswith("-D") and "=" in word)
    return TYPES[" ".join(names.get(word, word) for word in words)], pointer


class RawKernel:
    """A kernel, called as CuPy's: with a grid, a block, and arguments of exactly the types of its parameters."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        need("kernel")
        self.name = name
        words = dict(kernels(code)).get(name)
        if words is None:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        self._launch = getattr(shimmed(code, options), f"launch_{name}")
        self._parameters = [(word, *type_of(word, code, options)) for word in words]

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        grid, block = ((*map(int, sizes), 1, 1)[:3] for sizes in (grid, block))
        dims = [max(1, n) for n in (*grid, *block)]
        most = (2**31 - 1, 65535, 65535, 1024, 1024, 64)
        if any(n > limit for n, limit in zip(dims, most, strict=True)) or np.prod(dims[3:]) > 1024 or shared_mem:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: grid {grid}, block {block}, shared memory {shared_mem}")
        if len(args) != len(self._parameters):
            raise TypeError(f"{self.name} has {len(self._parameters)} parameters, {len(args)} arguments were given")
        values = [self._value(*parameter, arg) for parameter, arg in zip(self._parameters, args, strict=True)]
        places = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        hosts = [arg._host for arg in args if isinstance(arg, ndarray)]

        def run(values: Any = values, hosts: Any = hosts) -> None:  # which live as long as this
            if self._launch((ctypes.c_uint * 6)(*dims), places):
                raise RuntimeError(f"{self.name}: some threads of a block never reach a barrier at which others wait")

        do("kernel", run)

    def _value(self, word: str, kind: Any, pointer: bool, arg: Any) -> Any:
        """An argument in memory, where a launch reads it."""
        if pointer and isinstance(arg, ndarray):
            if arg.dtype != kind or not arg.flags.c_contiguous:
                raise TypeError(f"{self.name}: `{word}` is given {arg.dtype} of strides {arg.strides}")
            return np.array([host_of(arg).ctypes.data], np.uint64)
        if pointer and type(arg) is int and arg == 0:
            return np.zeros(1, np.uint64)
        given = PYTHONS.get(type(arg), type(arg))
        wide = given is np.int64 and kind is np.uint64  # the same eight bytes
        if pointer or not (given is kind or wide):
            raise TypeError(f"{self.name}: `{word}` is given {type(arg).__name__} {arg!r}")
        return np.array([arg], kind)


class RawModule:
    """Some kernels in one source."""

    def __init__(
        self, *, code: str | None = None, path: Any = None, options: tuple[str, ...] = (), backend: str = "nvrtc"
    ) -> None:
        if code is None or path is not None:
            raise NotImplementedError("the stand-in compiles sources alone")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        self._code, self._options = code, options

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self._code, name, self._options)
