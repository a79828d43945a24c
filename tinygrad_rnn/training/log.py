"""`metrics.jsonl`: one JSON object a line, written as it happens, so that a run can be followed and survives
a crash.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tinygrad_rnn.errors import DTypeError, InputError
from tinygrad_rnn.scalars import number
from tinygrad_rnn.training.disk import to_disk

LONGEST = 2**20
"""The bytes at the end of a file among which the last line is looked for."""


class MetricsLog:
    """Appends records to a file, a line each, whole lines only. Use it as a context manager, or `close()` it.

    Numbers that are not finite become null: JSON has no NaN. A last line that a killed process left half written is
    removed when the file is opened: what is appended would be a part of it.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with MetricsLog(Path(folder.name) / "metrics.jsonl") as log:
        ...     log.write({"step": 1, "loss": 4.6})
        >>> read_metrics(Path(folder.name) / "metrics.jsonl")
        [{'step': 1, 'loss': 4.6}]
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by close)
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - LONGEST))
        half = self._file.read().rpartition(b"\n")[2]
        if half.startswith(b"{"):
            self._file.truncate(size - len(half))
        elif half:
            self._file.write(b"\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record: numbers of Python or NumPy, 0-d arrays or tensors, by name. On an OSError (no space)
        none of it. Raises DTypeError, naming the figure, for what is no number, cannot be read again, or has no name.
        """
        numbers = {key: number(f"the figure {key!r}", value) for key, value in record.items()}
        for key, value in numbers.items():
            if not isinstance(key, str) or (isinstance(value, int) and abs(value) >= 10**1000):
                what = "has a name that is no text" if not isinstance(key, str) else "is too large for a file"
                raise DTypeError(f"the figure {key!r} {what}")
        finite = {key: value if abs(value) < math.inf else None for key, value in numbers.items()}
        line = (json.dumps(finite) + "\n").encode()
        whole = self._file.seek(0, os.SEEK_END)
        try:
            while line:  # where there is room for a part of it, only writing the rest tells what is wrong
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(whole)
            error.filename = error.filename or self._file.name
            raise

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises FileNotFoundError where it is no longer there to be read:
        somebody has removed or moved the file, or the folder that it is in.
        """
        to_disk(self._file.fileno())
        try:
            there = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._file.name))
        except FileNotFoundError:
            there = False
        if not there:
            raise FileNotFoundError(errno.ENOENT, "was removed or moved while it was written", self._file.name)

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a last line left half written by a killed process is passed over. Raises
    InputError for another line that is no record.
    """
    *lines, _ = Path(path).read_bytes().split(b"\n")
    found = []
    for k, line in enumerate(lines, 1):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise InputError(f"{path}, line {k:,}: damaged: no record of figures") from None
    return found


def truncate_metrics(path: str | os.PathLike[str], step: int) -> None:
    """Remove the records of the steps after `step` from a `metrics.jsonl`: a run that goes on from there writes them
    again.

    A line that a killed process left half written, or that is damaged, goes, too, with what follows it; records without
    a step, and a file that is missing, stay so.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                at = dict(json.loads(line)).get("step")
            except (ValueError, TypeError, RecursionError):
                break
            if not line.endswith(b"\n") or (isinstance(at, int | float) and at > step):
                break
            kept += len(line)
    os.truncate(path, kept)
