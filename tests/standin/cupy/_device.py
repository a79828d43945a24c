"""Devices, the current one of a thread, and the counts of what a device would have been asked to do."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

HERE = str(Path(__file__).parent)
# A line of these reads for somebody else, whose line it is that waits.
FILES = ("tensor/device.py", "tensor/backend.py", "kernels/cuda/cublas.py")
PASSED_BY = (HERE, *(str(Path("tinygrad_rnn", name)) for name in FILES))
DEVICES = int(os.environ.get("STANDIN_DEVICES", "2"))
WITHOUT = frozenset(os.environ.get("STANDIN_WITHOUT", "").split())

# Kinds: "kernel", "product", "memset", "synchronisation" (the host waits for the device), "upload" (from the host).
calls: Counter[tuple[str, str]] = Counter()  # {(kind, "file.py:line"): how often}


def count(kind: str) -> None:
    """Count a call of the device at the line that asked for it."""
    need(kind)
    frame: Any = sys._getframe(2)
    while frame is not None and any(part in frame.f_code.co_filename for part in PASSED_BY):
        frame = frame.f_back
    calls[kind, "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"] += 1


def totals() -> dict[str, int]:
    """How many calls there were of each kind."""
    found: Counter[str] = Counter()
    for (kind, _), n in calls.items():
        found[kind] += n
    return dict(found)


def lines(kind: str) -> dict[str, int]:
    """How many calls of a kind each line has made."""
    return {line: n for (k, line), n in calls.most_common() if k == kind}


class CUDARuntimeError(RuntimeError):
    """What CUDA itself has to say."""


class DynamicLibNotFoundError(RuntimeError):
    """What cuda.pathfinder raises, of which CuPy asks where libraries are."""


def need(kind: str) -> None:
    """Raise what CuPy 14.2 raises where a library is missing that a call of this kind needs."""
    if kind == "product" and "cublas" in WITHOUT:
        raise ImportError("libcublas.so.12: cannot open shared object file: No such file or directory")
    if kind == "kernel" and "nvrtc" in WITHOUT:
        names = "libnvrtc.so.13 or libnvrtc.so.12"
        raise DynamicLibNotFoundError(f'Failure finding "{names}": No such file: {names}')


_local = threading.local()


def current() -> int:
    """The number of this thread's current device."""
    return getattr(_local, "number", 0)


class Device:
    """A device by its number; the current one without. As a context it is the current one inside."""

    def __init__(self, device: int | Device | None = None) -> None:
        self.id = current() if device is None else int(device)
        self._before: list[int] = []

    def use(self) -> Device:
        if not 0 <= self.id < DEVICES:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        _local.number = self.id
        return self

    def __enter__(self) -> Device:
        self._before.append(current())
        return self.use()

    def __exit__(self, *exception: object) -> None:
        _local.number = self._before.pop()

    def synchronize(self) -> None:
        count("synchronisation")

    @property
    def compute_capability(self) -> str:
        return os.environ.get("STANDIN_CAPABILITY", "90")

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


class Stream:
    """A stream; here everything is done when it was asked for."""

    null: Stream
    ptr = 0

    def synchronize(self) -> None:
        count("synchronisation")


Stream.null = Stream()


class Event:
    """An event; its time is the host's."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.time = 0.0

    def record(self, stream: Any = None) -> None:
        self.time = perf_counter()

    def synchronize(self) -> None:
        count("synchronisation")


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events."""
    return 1e3 * (end_event.time - start_event.time)


def current_stream(device_id: int | None = None) -> Stream:
    return Stream.null
