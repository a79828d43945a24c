"""The command `tinygrad-rnn`: runs a subcommand, and answers what goes wrong with a line and an exit status.

Each subcommand is the module of its name. It is imported when it is called, so that `--help` and a mistyped option
answer at once.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from tinygrad_rnn.cli.answers import answered
from tinygrad_rnn.cli.options import quoted, with_flags
from tinygrad_rnn.cli.parser import PROGRAM, parser
from tinygrad_rnn.errors import InputError, TinygradRnnError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 training diverged, 2 wrong input, 128 + the signal that
    ended it.
    """
    return answered(PROGRAM, lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    """Parse the arguments and run the subcommand."""
    args, extra = parser().parse_known_args(argv)
    if extra:
        files = [name for name in extra if args.command == "train" and os.path.isfile(name)]
        hint = f": did you mean --text {' '.join(map(quoted, files))}?" if files else ""
        raise InputError(f"unrecognized arguments: {' '.join(extra)}{hint} (see {PROGRAM} {args.command} --help)")
    subcommand = importlib.import_module(f"tinygrad_rnn.cli.{args.command}")
    try:
        return int(subcommand.run(args))
    except TinygradRnnError as error:
        error.args = (with_flags(error, args.flags),)
        raise
