"""NVRTC by ctypes: what compiles CUDA on a device, which needs neither a device nor a driver.

`pip install nvidia-cuda-nvrtc-cu12` brings it; `make kernel-test` has an environment with it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path

ARCHITECTURES = (70, 80, 90, 100)
MISSING = "no NVRTC: python -m pip install nvidia-cuda-nvrtc-cu12 (make kernel-test does)"


@cache
def library() -> ctypes.CDLL | None:
    """The library of the wheel, or None."""
    if importlib.util.find_spec("nvidia") is None or (spec := importlib.util.find_spec("nvidia.cuda_nvrtc")) is None:
        return None
    for folder in spec.submodule_search_locations or ():
        for path in sorted(Path(folder).glob("*/*nvrtc[.6]*")):
            if re.fullmatch(r"libnvrtc\.so\.\d+|nvrtc64_\d+_0\.dll", path.name):
                return ctypes.CDLL(str(path))
    return None


def compiled(source: str, *options: str) -> tuple[bool, str, str]:
    """Whether a source compiles, what the compiler says, and the PTX, the text of virtual instructions."""
    nvrtc = library()
    assert nvrtc is not None, MISSING
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) == 0
    words = (ctypes.c_char_p * len(options))(*(word.encode() for word in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), words)
    texts = []
    for what in ("ProgramLog", "PTX"):
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(max(1, size.value))
        getattr(nvrtc, f"nvrtcGet{what}")(program, text)
        texts.append(text.value.decode())
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status == 0, texts[0], texts[1]


def resources(log: str) -> dict[str, tuple[int, int, int]]:
    """{kernel: (bytes of its stack, bytes that spill, registers)}, of a log with --ptxas-options=-v."""
    found = {}
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    for name, stack, stores, loads, registers in re.findall(pattern, log, re.DOTALL):
        found[name] = int(stack), int(stores) + int(loads), int(registers)
    return found
