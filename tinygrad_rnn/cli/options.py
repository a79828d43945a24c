"""What options do that the command and the scripts in `examples/` share, and which of them an error names."""

from __future__ import annotations

from collections.abc import Container

from tinygrad_rnn.errors import InputError, TinygradRnnError
from tinygrad_rnn.kernels.switch import enable_numba
from tinygrad_rnn.tensor.creation import zeros

# What the hints of the library's errors advise, and the option that does it.
FLAGS = {
    "learning rate": "--lr",
    "clip harder": "--clip",
    "another encoding": "--encoding",
    "another folder": "--out",
    "replace it": "--replace",
    "smaller batch": "--batch",
    "shorter sequences": "--seq-len",
}


def with_flags(error: TinygradRnnError, flags: Container[str]) -> str:
    """The message of an error; where its hint advises what one of `flags` does, that is named.

    >>> error = InputError("holds a run already", hint="choose another folder, or replace it")
    >>> with_flags(error, {"--out"})
    'holds a run already: choose another folder (--out), or replace it'
    """
    hint = error.hint
    for advice, flag in FLAGS.items():
        if flag in flags:
            hint = hint.replace(advice, f"{advice} ({flag})")
    return str(error).replace(error.hint, hint) if error.hint else str(error)


def check_device(device: str) -> None:
    """Raise InputError unless `device` is there."""
    try:
        zeros(1, device=device)
    except (RuntimeError, ValueError) as error:  # CuPy's own errors are RuntimeErrors
        if isinstance(error, TinygradRnnError):
            raise
        raise InputError(f"--device {device}: {error}") from None


def use_compiled_kernels() -> str:
    """Enable the kernels that numba compiles; returns what to say. Raises InputError where numba is missing."""
    try:
        return f"Compiled kernels, ready in {enable_numba():.1f} s"
    except ModuleNotFoundError as error:
        raise InputError(f"--numba: {error}") from None
