"""The memory of the devices: what lives is counted, and one that asks for more than there is gets CuPy's error."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._device import Device, current, current_stream

TOTAL = 16 * 2**30


class OutOfMemoryError(MemoryError):
    """CuPy's, by its name, its place and what it says."""

    __module__ = "cupy.cuda.memory"

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        said = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(f"{said}, limit set to: {limit:,} bytes)." if limit else f"{said}).")


# By the id of a host array that owns memory: it, how many arrays are in it, device, bytes, first and last address.
_held: dict[int, list[Any]] = {}
_used: Counter[int] = Counter()  # bytes by device
_private: Counter[int] = Counter()  # of them in pools other than the default one
_limits: dict[int, int] = {}
_pools: dict[int, weakref.ref[MemoryPool]] = {}  # of private pools' memory, by its id
_local = threading.local()


class MemoryPool:
    """The default pool, which here keeps no blocks that nobody uses; or another one, which keeps all that it has."""

    def __init__(self, allocator: Any = None) -> None:
        self._blocks: dict[int, Any] = {}
        self._free: dict[int, list[Any]] = {}

    def malloc(self, size: int) -> Any:
        raise NotImplementedError("the stand-in gives memory to arrays alone")

    def used_bytes(self) -> int:
        if self is _pool:
            return _used[current()] - _private[current()]
        return sum(_size(block) for block in self._blocks.values() if id(block) in _held)

    def total_bytes(self) -> int:
        return self.used_bytes() if self is _pool else sum(map(_size, self._blocks.values()))

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def free_all_blocks(self, stream: Any = None) -> None:
        for block in [block for blocks in self._free.values() for block in blocks]:
            self._forget(block)
            _used[current()] -= _size(block)
        self._free.clear()

    def get_limit(self) -> int:
        return _limits.get(current(), int(os.environ.get("CUPY_GPU_MEMORY_LIMIT", "0")))

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        _limits[current()] = int((fraction or 0) * TOTAL) if size is None else size

    def place(self, host: Any) -> Any:
        """A copy of an array in memory of this pool: in a block that nobody uses, or in a new one."""
        size = max(1, host.nbytes)
        blocks = self._free.get(size)
        block = blocks.pop() if blocks else None
        if block is None:
            block = np.empty(size, np.uint8)
            _take(_size(block))
            self._blocks[id(block)], _pools[id(block)] = block, weakref.ref(self)
            _private[current()] += _size(block)
        dense = np.empty_like(host)  # whose strides are those of an array of its own
        placed = np.ndarray(host.shape, host.dtype, block, 0, dense.strides)
        placed[...] = host
        return placed

    def _forget(self, block: Any) -> None:
        poison(block)
        del self._blocks[id(block)], _pools[id(block)]
        _private[current()] -= _size(block)

    def __del__(self, is_over: Any = sys.is_finalizing) -> None:
        if not is_over() and hasattr(self, "_free"):
            self.free_all_blocks()
            for block in list(self._blocks.values()):  # which arrays are still in
                self._forget(block)


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


@contextlib.contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """Have the arrays that this thread makes inside be in another pool."""
    before = getattr(_local, "pool", None)
    _local.pool = allocator.__self__
    try:
        yield
    finally:
        _local.pool = before


def _size(host: Any) -> int:
    """The bytes that an array takes of a device."""
    return 512 * -(-host.nbytes // 512)


def _take(size: int) -> None:
    """Count memory; raise where there is none left."""
    device, limit = current(), _pool.get_limit()
    if _used[device] + size > (limit or TOTAL):
        raise OutOfMemoryError(size, _used[device], limit)
    _used[device] += size


def owner(host: Any) -> Any:
    """The array that owns the memory of a view."""
    while isinstance(host.base, np.ndarray):
        host = host.base
    return host


def poison(host: Any) -> None:
    """Have memory hold what no result should come of."""
    kind = host.dtype.kind
    host.fill(np.nan if kind in "fc" else np.iinfo(host.dtype).max if kind in "iu" else True)


def hold(host: Any) -> Any:
    """Count another array of a device over the memory of `host`; raise where there is none left. Returns the array
    itself, or a copy in the pool that is in use.
    """
    root = owner(host)
    if (found := _held.get(id(root))) is not None:
        found[1] += 1
        return host
    pool = getattr(_local, "pool", None)
    if pool is None and current_stream().graph is not None:
        raise RuntimeError("the stand-in: memory of the default pool while a stream captures, which others will use")
    if pool is None:
        _take(_size(root))
    else:
        host = pool.place(host)
        root = owner(host)
    _held[id(root)] = [root, 1, current(), _size(root), *np.lib.array_utils.byte_bounds(root)]
    return host


def memory_of(address: int, size: int) -> Any:
    """The array, of those that are there, in which `size` bytes from an address on lie; None if there is none."""
    inside = (x[0] for x in list(_held.values()) if x[4] <= address and address + size <= x[5])
    return next(inside, None)


def let_go(host: Any) -> None:
    """Count one less. Memory that nobody has any more is somebody else's, whatever a graph thinks."""
    root = owner(host)
    found = _held[id(root)]
    found[1] -= 1
    if found[1]:
        return
    del _held[id(root)]
    pool = _pools[id(root)]() if id(root) in _pools else None
    if pool is not None:
        pool._free.setdefault(root.nbytes, []).append(root)
        return
    _used[found[2]] -= found[3]
    if root.flags.writeable:
        poison(root)


def mem_info(self: Device) -> tuple[int, int]:
    return TOTAL - _used[self.id], TOTAL


Device.mem_info = property(mem_info)  # type: ignore[assignment, method-assign]
