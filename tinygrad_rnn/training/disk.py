"""Files that are on the disk when that is said: the one place that knows what Windows and macOS do differently."""

from __future__ import annotations

import os
import time
from pathlib import Path

WINDOWS = os.name == "nt"
WAITS = (0.01, 0.05, 0.2, 0.5)  # seconds, until a reader of a file has closed it


def to_disk(descriptor: int) -> None:
    """Wait until what was written to a file is on the disk. `fsync` of macOS stops at the disk's own memory."""
    try:
        from fcntl import F_FULLFSYNC, fcntl  # type: ignore[attr-defined]  # of macOS alone
    except ImportError:
        os.fsync(descriptor)
        return
    try:
        fcntl(descriptor, F_FULLFSYNC)
    except OSError:  # a file system, such as one over a network, that does not know it
        os.fsync(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: beside it, to the disk, move into place, the folder to the
    disk.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            to_disk(file.fileno())
        _replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise
    if not WINDOWS:  # which cannot open a folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            to_disk(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file that nobody needs any more; one that somebody reads stays where it must, on Windows."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        if not WINDOWS:
            raise


def _replace(beside: Path, path: Path) -> None:
    """Move a file into place; on Windows, where one that is open cannot be replaced, try again for a while."""
    for wait in WAITS if WINDOWS else ():
        try:
            os.replace(beside, path)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(beside, path)
