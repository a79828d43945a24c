"""The memory of the devices: what lives is counted, and one that asks for more than there is gets CuPy's error."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np

from ._device import Device, current

TOTAL = 16 * 2**30


class OutOfMemoryError(MemoryError):
    """CuPy's, by its name, its place and what it says."""

    __module__ = "cupy.cuda.memory"

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        said = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(f"{said}, limit set to: {limit:,} bytes)." if limit else f"{said}).")


# By the id of a host array that owns memory: how many arrays are in it, their device, bytes, first and last address.
_held: dict[int, list[int]] = {}
_used: Counter[int] = Counter()  # bytes by device
_limits: dict[int, int] = {}


class MemoryPool:
    """The default pool, which here keeps no blocks that nobody uses."""

    def used_bytes(self) -> int:
        return _used[current()]

    total_bytes = used_bytes

    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        pass

    def get_limit(self) -> int:
        return _limits.get(current(), int(os.environ.get("CUPY_GPU_MEMORY_LIMIT", "0")))

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        _limits[current()] = int((fraction or 0) * TOTAL) if size is None else size


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


def owner(host: Any) -> Any:
    """The array that owns the memory of a view."""
    while isinstance(host.base, np.ndarray):
        host = host.base
    return host


def hold(host: Any) -> None:
    """Count another array of a device over the memory of `host`; raise where there is none left."""
    host = owner(host)
    found = _held.get(id(host))
    if found is not None:
        found[0] += 1
        return
    device, size = current(), 512 * -(-host.nbytes // 512)
    limit = _pool.get_limit()
    if _used[device] + size > (limit or TOTAL):
        raise OutOfMemoryError(size, _used[device], limit)
    _used[device] += size
    _held[id(host)] = [1, device, size, *np.lib.array_utils.byte_bounds(host)]


def memory_of(address: int, size: int) -> bool:
    """Whether `size` bytes from an address on lie in one array."""
    return any(first <= address and address + size <= end for *_, first, end in list(_held.values()))


def let_go(host: Any) -> None:
    """Count one less."""
    host = owner(host)
    found = _held[id(host)]
    found[0] -= 1
    if not found[0]:
        del _held[id(host)]
        _used[found[1]] -= found[2]


def mem_info(self: Device) -> tuple[int, int]:
    return TOTAL - _used[self.id], TOTAL


Device.mem_info = property(mem_info)  # type: ignore[assignment, method-assign]
