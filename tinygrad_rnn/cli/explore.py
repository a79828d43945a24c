"""`tinygrad-rnn explore`: a page to play with."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.cli.options import quoted
from tinygrad_rnn.explore.one_file import one_file
from tinygrad_rnn.explore.server import serve


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or write it as one file; returns the exit status."""
    check_output()
    if args.html:
        return _write(Path(args.html))
    return serve(args.port, browser=not args.no_browser)


def _write(path: Path) -> int:
    """Write the page as one file. What stands in the way is found out before it is computed."""
    with path.open("a", encoding="utf-8"):
        pass
    print("Computing the answers that the file holds: about 15 seconds", flush=True)
    text = one_file()
    path.write_text(text, encoding="utf-8")
    print(f"{quoted(path)}: {len(text) / 1e6:.2f} MB")
    return 0
