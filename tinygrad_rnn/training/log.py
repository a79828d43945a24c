"""`metrics.jsonl`: one JSON object a line, written as it happens, so that a run can be followed and survives
a crash.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tinygrad_rnn.scalars import number
from tinygrad_rnn.training.disk import to_disk


class MetricsLog:
    """Appends records to a file, a line each, whole lines only. Use it as a context manager, or `close()` it.

    Numbers that are not finite become null: JSON has no NaN.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with MetricsLog(Path(folder.name) / "metrics.jsonl") as log:
        ...     log.write({"step": 1, "loss": 4.6})
        >>> read_metrics(Path(folder.name) / "metrics.jsonl")
        [{'step': 1, 'loss': 4.6}]
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record: numbers of Python or NumPy, 0-d arrays or tensors. On an OSError (no space) none of it.
        Raises DTypeError, naming the figure, for what is no number.
        """
        numbers = {str(key): number(f"the figure {key!r}", value) for key, value in record.items()}
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
        """Wait until what was written is on the disk."""
        to_disk(self._file.fileno())

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a last line left half written by a killed process is passed over."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def truncate_metrics(path: str | os.PathLike[str], step: int) -> None:
    """Remove the records of the steps after `step` from a `metrics.jsonl`: a run that goes on from there writes them
    again.

    A line that a killed process left half written goes, too; a file that is missing stays so.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept += len(line)
    os.truncate(path, kept)
