"""What a program answers: its exit status and, to what goes wrong, a line on the standard error output.

The command `tinygrad-rnn` and the scripts in `examples/` share it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from tinygrad_rnn.errors import InputError, NonFiniteError, TinygradRnnError
from tinygrad_rnn.screen import one_line, show_any_name


class Terminated(BaseException):
    """SIGTERM or SIGHUP, its number the argument, so that what is half done is undone; the training loop has an answer
    of its own.
    """


def answered(program: str, work: Callable[[], int]) -> int:
    """Do the `work` and return its exit status; of an error that was expected, 1 training diverged, 2 wrong input,
    128 + the signal that ended it, and say what it was in a line that begins with the `program`.

    Standard streams that are closed go nowhere.

        >>> answered("demo", lambda: 0)
        0
    """
    _open_streams()
    show_any_name(sys.stdout, sys.stderr)
    try:
        with _terminable():
            return _whole(work)
    except BrokenPipeError as error:  # the reader of a pipe has gone
        _say(program, *getattr(error, "__notes__", ()))
        return 141
    except (TinygradRnnError, ImportError, MemoryError, OSError, KeyboardInterrupt, Terminated) as error:
        message, status = _answer(placed(error) if isinstance(error, OSError) else error)
        _say(program, message, *getattr(error, "__notes__", ()))
        return status
    finally:
        with suppress(OSError):
            _flushed()


def _whole(work: Callable[[], int]) -> int:
    """Do the `work` and write all that waits to be written; returns the exit status."""
    try:
        status = work()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich's answer to it
            raise error.__context__ from None
        _flushed()  # the help
        raise
    return _flushed() if status == 0 else status


def check_output() -> None:
    """Raise InputError where the standard output is closed: all that a command finds out would be lost."""
    if getattr(sys.stdout, "name", None) == 1:  # one of `_open_streams`
        raise InputError("the standard output is closed, and there is nowhere else to write to")


def _open_streams() -> None:
    """Have the standard streams that are closed go nowhere. Files that are opened later do not get their numbers then,
    and with them what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 (for good)


def _flushed() -> int:
    """Write what waits to be written to the standard output; returns 0. What cannot be written goes nowhere, also when
    the interpreter ends, and the error is raised, unless it is a terminal that has been closed.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        _lead_nowhere(sys.stdout)
        if error.errno != errno.EIO:
            error.filename = error.filename or "the standard output"
            raise
    return 0


def _lead_nowhere(stream: TextIO) -> None:
    """Have what a stream could not write go nowhere: the interpreter would answer it with a status of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def placed(error: OSError) -> OSError:
    """An error of the standard output with its name, where it is one; any other as it is."""
    if error.filename is None:
        try:
            _flushed()
        except OSError as lost:
            return lost
    return error


def _say(program: str, *parts: str) -> None:
    """A line on the standard error output, if there is something to say and somebody to read it."""
    line = one_line("; ".join(parts))
    if line:
        try:
            print(f"{program}: {line}", file=sys.stderr, flush=True)
        except OSError:
            _lead_nowhere(sys.stderr)


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
        case Terminated(args=(number,)):
            return "stopped", 128 + int(number)
        case _:
            raise error


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP (the terminal was closed) raise `Terminated`, unless they are ignored, as by nohup."""

    def terminated(number: int, frame: object) -> NoReturn:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has no SIGHUP
    found = {number: signal.getsignal(number) for number in map(signal.Signals.__getitem__, names)}
    found = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}
    for number in found:
        signal.signal(number, terminated)
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
