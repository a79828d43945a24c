"""The page to play with, as one file beside the others: chapters show it in a frame, each with settings of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(app: Any, error: Exception | None) -> None:
    """Write the page when all others are written."""
    if error is None and app.builder.format == "html":
        from tinygrad_rnn.explore.one_file import one_file

        (Path(app.outdir) / "play.html").write_text(one_file(), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Connect the event."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
