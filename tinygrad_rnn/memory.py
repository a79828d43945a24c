"""Memory that has run out, on a device or on the host: one error, with what was asked for and what helps."""

from __future__ import annotations

import re
import sys

from tinygrad_rnn.errors import OutOfMemoryError

HELPS = (
    "choose a smaller batch or shorter sequences, a backward through fewer steps (k2), "
    "or tr.checkpoint around a part of the network"
)
# What CUDA and its libraries say besides, and CuPy raises as a RuntimeError.
_SAID = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is no memory left.

    >>> ran_out(MemoryError()), ran_out(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")), ran_out(RuntimeError("?"))
    (True, True, False)
    """
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(s in str(error) for s in _SAID))


def out_of_memory(error: BaseException, what: str) -> OutOfMemoryError:
    """What to raise for an error of which `ran_out` is true, met in `what`; one that is ours already as it is.

    What the functions that have failed were computing is let go of. The frames of who called them are not ours, and
    hold their tensors for as long as the error is there.

    >>> print(out_of_memory(MemoryError("Unable to allocate 7.28 TiB for an array"), "matmul"))
    not enough memory for matmul: Unable to allocate 7.28 TiB for an array: choose a smaller batch ...
    """
    from traceback import clear_frames  # rarely needed, and a good part of our import

    if isinstance(error, OutOfMemoryError):
        return error
    said = str(error).strip()
    of_device = not isinstance(error, MemoryError) or type(error).__module__.startswith("cupy") or "cuBLAS" in said
    if of_device and "cupy" in sys.modules:
        said = f"{_asked(said)}, {_free()}"
    clear_frames(error.__traceback__)
    return OutOfMemoryError(f"not enough memory for {what}{said and f': {said}'}", hint=HELPS)


class memory_for:
    """Have memory that runs out inside be an `OutOfMemoryError` that names `what`."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and ran_out(error) and not isinstance(error, OutOfMemoryError):
            raise out_of_memory(error, self.what) from None


def _asked(said: str) -> str:
    """How much CuPy was asked for, of what it says; or that, if it does not say."""
    found = re.search(r"allocating ([\d,]+) bytes", said)
    return f"{_size(int(found[1].replace(',', '')))} asked for" if found else " ".join(said.split())


def _free() -> str:
    """How much memory of the current device is free, of that which CuPy may take. What its pool keeps of freed memory
    is given back: at a limit it does not do so by itself.
    """
    cupy = sys.modules["cupy"]
    pool, device = cupy.get_default_memory_pool(), cupy.cuda.Device()
    free, total = device.mem_info
    if limit := pool.get_limit():
        free, total = min(free, max(0, limit - pool.total_bytes())), min(total, limit)
    pool.free_all_blocks()
    return f"{_size(free)} of {_size(total)} free on cuda:{device.id}"


def _size(count: float) -> str:
    """A number of bytes, to be read.

    >>> _size(3 * 2**30), _size(600)
    ('3.0 GiB', '600 bytes')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
