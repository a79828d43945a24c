"""The CUDA runtime, as far as the code asks it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ._blas import get_cublas_handle
from ._device import DEVICES, CUDARuntimeError, Device, Event, Graph, Stream, current_stream, get_elapsed_time
from ._memory import MemoryPool, OutOfMemoryError, using_allocator


def _properties(number: int) -> dict[str, Any]:
    return {"name": b"No device at all, a stand-in", "major": 0, "minor": 0, "multiProcessorCount": 0}


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=lambda: DEVICES,
    getDeviceProperties=_properties,
    getDevice=lambda: Device().id,
    memGetInfo=lambda: Device().mem_info,
    runtimeGetVersion=lambda: 12090,
    driverGetVersion=lambda: 12090,
)
cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    Graph=Graph,
    MemoryPool=MemoryPool,
    Stream=Stream,
    get_cublas_handle=get_cublas_handle,
    get_current_stream=current_stream,
    get_elapsed_time=get_elapsed_time,
    is_available=lambda: DEVICES > 0,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    runtime=runtime,
    using_allocator=using_allocator,
)
