"""`metrics.jsonl`: one JSON object a line, written as it happens, so that a run can be followed and survives
a crash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


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
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by close)

    def write(self, record: Mapping[str, float]) -> None:
        """Append one record."""
        finite = {k: v if abs(v) < float("inf") else None for k, v in record.items()}
        self._file.write(json.dumps(finite) + "\n")

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
