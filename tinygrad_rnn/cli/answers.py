"""What a program answers: its exit status and, to what goes wrong, a line on the standard error output.

The command `tinygrad-rnn` and the scripts in `examples/` share it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from tinygrad_rnn.errors import NonFiniteError, TinygradRnnError


class Terminated(BaseException):
    """SIGTERM, so that what is half done is undone; the training loop has an answer of its own."""


def answered(program: str, work: Callable[[], int]) -> int:
    """Do the `work` and return its exit status; of an error that was expected, 1 training diverged, 2 wrong input,
    128 + the signal that ended it, and say what it was in a line that begins with the `program`.

        >>> answered("demo", lambda: 0)
        0
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character the terminal cannot show is no reason to stop
    try:
        with _terminable():
            return work()
    except BrokenPipeError:  # the reader of a pipe has gone; let the interpreter's last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (TinygradRnnError, ImportError, MemoryError, OSError, KeyboardInterrupt, Terminated) as error:
        message, status = _answer(error)
        said = "; ".join([message, *getattr(error, "__notes__", ())])
        print(f"{program}: {' '.join(said.split())}", file=sys.stderr)
        return status


def _answer(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    match error:
        case NonFiniteError():
            return str(error), 1
        case TinygradRnnError() | ImportError():
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


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`."""

    def terminated(number: int, frame: object) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
