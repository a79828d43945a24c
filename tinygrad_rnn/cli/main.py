"""The command `tinygrad-rnn`: runs a subcommand, and answers what goes wrong with a line and an exit status.

Each subcommand is the module of its name. It is imported when it is called, so that `--help` and a mistyped option
answer at once.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from tinygrad_rnn.cli.options import with_flags
from tinygrad_rnn.cli.parser import PROGRAM, parser
from tinygrad_rnn.errors import InputError, NonFiniteError, TinygradRnnError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 training diverged, 2 wrong input, 128 + the signal that
    ended it.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character the terminal cannot show is no reason to stop
    try:
        with _terminable():
            return _run(argv)
    except BrokenPipeError:  # the reader of a pipe has gone; let the interpreter's last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (TinygradRnnError, MemoryError, OSError, KeyboardInterrupt, _Terminated) as error:
        message, status = _answer(error)
        print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
        return status


def _run(argv: Sequence[str] | None) -> int:
    """Parse the arguments and run the subcommand."""
    args, extra = parser().parse_known_args(argv)
    if extra:
        files = [name for name in extra if args.command == "train" and os.path.isfile(name)]
        hint = f": did you mean --text {' '.join(files)}?" if files else ""
        raise InputError(f"unrecognized arguments: {' '.join(extra)}{hint} (see {PROGRAM} {args.command} --help)")
    subcommand = importlib.import_module(f"tinygrad_rnn.cli.{args.command}")
    try:
        return int(subcommand.run(args))
    except TinygradRnnError as error:
        error.args = (with_flags(error, args.flags),)
        raise


def _answer(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    match error:
        case NonFiniteError():
            return str(error), 1
        case TinygradRnnError():
            return str(error), 2
        case MemoryError():
            return f"not enough memory: {error}".removesuffix(": "), 2
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}", 2
        case KeyboardInterrupt():
            return "stopped", 130
        case _:
            return "stopped", 143


class _Terminated(BaseException):
    """SIGTERM, so that what is half done is undone; the training loop has an answer of its own."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `_Terminated`."""

    def terminated(number: int, frame: object) -> NoReturn:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
