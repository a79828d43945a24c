"""Devices, the current one of a thread, and the counts of what a device would have been asked to do."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

HERE = str(Path(__file__).parent)
# A line of these reads for somebody else, whose line it is that waits.
FILES = ("tensor/device.py", "tensor/backend.py", "kernels/cuda/cublas.py")
PASSED_BY = (HERE, *(str(Path("tinygrad_rnn", name)) for name in FILES))
DEVICES = int(os.environ.get("STANDIN_DEVICES", "2"))
WITHOUT = frozenset(os.environ.get("STANDIN_WITHOUT", "").split())

# Kinds: "kernel", "product", "memset", "graph" (a launch of one), "upload" (from the host), "synchronisation" (the host
# waits for the device).
calls: Counter[tuple[str, str]] = Counter()  # {(kind, "file.py:line"): how often}
CAPTURING = "the current stream is capturing, so"
INVALID = "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture"
UNSUPPORTED = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"


def count(kind: str) -> None:
    """Count a call of the device at the line that asked for it; raise what a stream that captures does not take."""
    need(kind)
    if (graph := current_stream().graph) is not None:
        if kind == "upload":
            raise RuntimeError(f"{CAPTURING} H2D transfers are disallowed")
        if kind == "synchronisation":
            raise RuntimeError(f"{CAPTURING} D2H transfers are disallowed")
        return graph.nodes.update([kind])
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
        current_stream().wait()

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


class Graph:
    """What a stream has captured: the calls of a device, with the memory that they were given, to be made again."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self.nodes: Counter[str] = Counter()
        self.invalid = False

    def launch(self, stream: Stream | None = None) -> None:
        if (stream or current_stream()).graph is not None:
            raise NotImplementedError("the stand-in has no graphs in graphs")
        count("graph")
        for step in self.steps:
            step()

    def upload(self, stream: Stream | None = None) -> None:
        count("graph")


def do(kind: str, step: Callable[[], object]) -> None:
    """Have the device do something: now, or where the current stream captures at each launch of the graph."""
    count(kind)
    graph = current_stream().graph
    if graph is None:
        step()
    else:
        graph.steps.append(step)


_streams = itertools.count(16, 16)


class Stream:
    """A stream; here everything is done when it was asked for. As a context it is the current one inside."""

    null: Stream

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.ptr = 0 if null else next(_streams)
        self.graph: Graph | None = None  # what it captures

    def __enter__(self) -> Stream:
        _local.__dict__.setdefault("streams", []).append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _local.streams.pop()

    def synchronize(self) -> None:
        self.wait()

    def wait(self) -> None:
        """Wait for the device: an error of CUDA's own, which ends the capture, where this stream captures."""
        if self.graph is not None:
            self.graph.invalid = True
            raise CUDARuntimeError(UNSUPPORTED)
        count("synchronisation")

    def record(self, event: Event | None = None) -> Event:
        return event or Event()

    def wait_event(self, event: Event) -> None:
        pass

    def begin_capture(self, mode: int | None = None) -> None:
        if not self.ptr:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.graph is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        self.graph = Graph()

    def end_capture(self) -> Graph:
        graph, self.graph = self.graph, None
        if graph is None or graph.invalid:
            raise CUDARuntimeError(INVALID)
        return graph

    def is_capturing(self) -> bool:
        return self.graph is not None


Stream.null = Stream(null=True)


class Event:
    """An event; its time is the host's."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.time = 0.0

    def record(self, stream: Any = None) -> None:
        self.time = perf_counter()

    def synchronize(self) -> None:
        current_stream().wait()


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events."""
    return 1e3 * (end_event.time - start_event.time)


def current_stream(device_id: int | None = None) -> Stream:
    streams = getattr(_local, "streams", None)
    return streams[-1] if streams else Stream.null
