"""`tinygrad-rnn explore`: a page to play with."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.cli.options import quoted
from tinygrad_rnn.explore.one_file import one_file
from tinygrad_rnn.explore.server import serve
from tinygrad_rnn.training.disk import write_atomically


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or write it as one file; returns the exit status."""
    check_output()
    if args.html:
        return _write(Path(args.html))
    return serve(args.port, browser=not args.no_browser)


def _write(path: Path) -> int:
    """Write the page as one file, whole or not at all. What stands in the way is found out before it is computed."""
    new = not path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    print("Computing the answers that the file holds: about 15 seconds", flush=True)
    try:
        page = one_file().encode()
        if path.is_file():
            write_atomically(path, page)
        else:  # a pipe, say
            path.write_bytes(page)
    except BaseException:
        if new:
            path.unlink(missing_ok=True)
        raise
    print(f"{quoted(path)}: {len(page) / 1e6:.2f} MB")
    return 0
