"""`tinygrad-rnn completion`: what completes the command in a shell, or its manual page, both made from its parser."""

from __future__ import annotations

import argparse

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.cli.parser import parser
from tinygrad_rnn.errors import InputError

INSTALL = "{what} made with {package}: pip install {package}"


def run(args: argparse.Namespace) -> int:
    """Print it; returns the exit status."""
    check_output()
    print(manual() if args.kind == "man" else script(args.kind))
    return 0


def script(shell: str) -> str:
    """The script that a shell reads; InputError without shtab."""
    try:
        import shtab
    except ImportError:
        raise InputError(INSTALL.format(what="completions are", package="shtab")) from None
    return str(shtab.complete(parser(), shell=shell))


def manual() -> str:
    """The manual page, in the language of man; InputError without argparse-manpage."""
    try:
        from build_manpages.manpage import Manpage
    except ImportError:
        raise InputError(INSTALL.format(what="the manual page is", package="argparse-manpage")) from None
    return str(Manpage(parser(), {"manual_title": "User Commands"}))
