"""Options, as the command and the scripts in `examples/` share them: types, what they do, which an error names."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NoReturn

from tinygrad_rnn.errors import InputError, TinygradRnnError
from tinygrad_rnn.kernels import native
from tinygrad_rnn.kernels.switch import enable_numba
from tinygrad_rnn.memory import HELPS
from tinygrad_rnn.screen import one_line
from tinygrad_rnn.tensor.creation import zeros
from tinygrad_rnn.tensor.device import probe, use

# What the hints of the library's errors advise, and the option that does it.
FLAGS = {
    "learning rate": "--lr",
    "clip harder": "--clip",
    "another encoding": "--encoding",
    "another folder": "--out",
    "another file": "--out",
    "another port": "--port",
    "replace it": "--replace",
    "smaller batch": "--batch",
    "shorter sequences": "--seq-len",
    "shorter season": "--season",
    "the delimiter": "--delimiter",
    "decimal mark": "--decimal",
    "the column of the series": "--column",
    "the column of dates": "--date-column",
    "the format of the dates": "--date-format",
    "what fills the gaps": "--gaps",
    "close the gaps": "--gaps close",
    "one by its value": "--only COLUMN=VALUE",
    "the column of the texts": "--text-column",
    "the column of the labels": "--label-column",
}

SEEDS = 2**32 - 1  # the largest


class Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions are shown as they are, and of the help of an option no command or option is broken in two."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), " ".join(text.split()))
        lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
        return [line.replace("\0", " ") for line in lines]


_COMMAND = re.compile(r"(?:\bpython -m |\bpip install |\btinygrad-rnn )+[\w'.\[\],-]*\w")


class Parser(argparse.ArgumentParser):
    """Mistakes are InputErrors of one line that say where help is, which `Help` shows at any width of a terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "formatter_class": Help})

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Show the help: argparse passes over an output that takes nothing."""
        try:
            (file or sys.stdout).write(message)
        except OSError as error:
            error.filename = error.filename or "the standard output"
            raise

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As the base does; besides, what follows an option is its value where it is a number, such as -inf or -1e5."""
        return super().parse_known_args(_joined(sys.argv[1:] if args is None else args), namespace)

    def flags(self) -> frozenset[str]:
        """The options, as they are typed."""
        return frozenset(flag for action in self._actions for flag in action.option_strings)


def _joined(args: Iterable[str]) -> list[str]:
    """The arguments, `--lr -1e5` as `--lr=-1e5`: argparse takes -1 for a value, and -1e5 for an unknown option."""
    joined: list[str] = []
    for arg in args:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and arg[:1] == "-" and _is_number(arg):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Numbers:
    """A type for argparse: a number from `low` to `high`, without `low` itself if `open_low`; anything else is an error
    that says `what` is allowed.

    >>> Numbers(float, 0, 0.99, "must be a number from 0 to 0.99")("0.5")
    0.5
    >>> Numbers(int, 1, 5, "must be a whole number from 1 to 5")("9")
    Traceback (most recent call last):
    ...
    argparse.ArgumentTypeError: must be a whole number from 1 to 5, not '9'
    """

    kind: Callable[[str], float]
    low: float
    high: float
    what: str
    open_low: bool = False

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
            right = self.low < value <= self.high if self.open_low else self.low <= value <= self.high  # NaN is neither
        except ValueError:
            right = False
        if not right:
            raise argparse.ArgumentTypeError(f"{self.what}, not {text!r}")
        return value


def whole(low: int, high: int) -> Numbers:
    """A type for argparse: a whole number from `low` to `high`."""
    return Numbers(int, low, high, f"must be a whole number from {low:,} to {high:,}")


def device(text: str) -> str:
    """A type for argparse: "cpu", "cuda" or "cuda:N"."""
    if text == "cpu" or text == "cuda" or (text.startswith("cuda:") and text[5:].isdecimal()):
        return text
    raise argparse.ArgumentTypeError(f"unknown device {text!r}: cpu, cuda or cuda:N")


def path(text: str) -> str:
    """A type for argparse: the name of a file or folder. (An empty one would be the folder one is in.)"""
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a file or folder, not ''")
    return text


def text_file(text: str) -> str:
    """A type for argparse: the name of a text file; "-" is the standard input."""
    return "/dev/stdin" if text == "-" else path(text)


def with_flags(error: TinygradRnnError, flags: Container[str]) -> str:
    """The message of an error; where its hint advises what one of `flags` does, that is named. What only helps who
    writes code is left out.

    >>> error = InputError("holds a run already", hint="choose another folder, or replace it")
    >>> with_flags(error, {"--out"})
    'holds a run already: choose another folder (--out), or replace it'
    """
    if error.hint == HELPS:
        return str(error).removesuffix(f": {HELPS}")
    hint = error.hint
    for advice, flag in FLAGS.items():
        if flag.partition(" ")[0] in flags:
            hint = hint.replace(advice, f"{advice} ({flag})")
    return str(error).replace(error.hint, hint) if error.hint else str(error)


def check_device(device: str) -> None:
    """Compute on `device` from now on; raise InputError unless it is there and its install is whole."""
    try:
        if device != "cpu":
            use(device)
            probe()
        zeros(1, device=device)
    except (RuntimeError, ValueError) as error:  # CuPy's own errors are RuntimeErrors
        if isinstance(error, TinygradRnnError):
            raise
        raise InputError(f"--device {device}: {error}") from None


def choose_path(device: str, plain: bool, numba: bool | None = None, but: str = "") -> str:
    """Choose how steps are computed: `plain`, or recorded; by numba's kernels, with None where it is there. Returns
    which, and why, in a line, with `but`, which steps are not recorded. Raises InputError for numba that is not there.
    """
    kernels = _choose_kernels(False if plain or device != "cpu" else numba)
    if device != "cpu":
        return "Steps op by op: only those on the CPU are recorded. The first compiles its kernels, for up to a minute"
    if plain:
        return "Steps op by op, by NumPy alone: --plain"
    return f"Steps recorded once and replayed{but}, {kernels}"


def _choose_kernels(numba: bool | None) -> str:
    """Have numba run the kernels, or NumPy; returns which, in words."""
    why = "as asked for"
    if numba is not False:
        try:
            if find_spec("numba") and not native.kept(native.GROUPS[0]):
                print("numba compiles the kernels, once on this machine: some seconds", file=sys.stderr, flush=True)
            seconds = enable_numba()
            return f"with kernels by numba {version('numba')}, ready in {seconds:.1f} s"
        except (ImportError, OSError, RuntimeError) as error:  # it is not there, or does not fit, or cannot write
            why = one_line(str(error))
            if numba:
                raise InputError(f"--numba: {why}") from None
    enable_numba(False)
    return f"by NumPy alone: {why}"


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as a shell takes it, on one line and in characters that can be shown and copied, whatever bytes it holds.

    >>> print(quoted("runs/a"), quoted("it's"), quoted("-a b"), quoted("two\\nlines"))
    runs/a 'it'"'"'s' './-a b' $'two\\nlines'
    """
    text = os.fspath(path)
    text = f"./{text}" if text.startswith("-") else text  # or else it would be an option
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        shown = text.isprintable()
    except UnicodeEncodeError:
        shown = False
    return shlex.quote(text) if shown else "$'" + "".join(map(_escaped, text)) + "'"  # as bash, zsh and ksh read it


def _escaped(character: str) -> str:
    """A character between $' and '."""
    if character in "\\'":
        return f"\\{character}"
    if character.isascii() and character.isprintable():
        return character
    named = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
    return named.get(character) or "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def listed(names: list[str]) -> str:
    """Names as a sentence lists them.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
