"""`tinygrad-rnn explore`: a page to play with."""

from __future__ import annotations

import argparse

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.explore.server import serve


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit status."""
    check_output()
    return serve(args.port, browser=not args.no_browser)
