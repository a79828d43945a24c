"""What `--device` and `--numba` do, for the command and for the frame of the examples."""

from __future__ import annotations

from tinygrad_rnn.errors import InputError, TinygradRnnError


def check_device(device: str) -> None:
    """InputError unless `device` is there: before anything else is done."""
    from tinygrad_rnn.tensor.creation import zeros

    try:
        zeros(1, device=device)
    except (RuntimeError, ValueError) as error:  # CuPy's own errors are RuntimeErrors
        if isinstance(error, TinygradRnnError):
            raise
        raise InputError(f"--device {device}: {error}") from None


def use_compiled_kernels() -> str:
    """Enable them for what follows; returns what to say. InputError where numba is missing."""
    from tinygrad_rnn.kernels.switch import enable_numba

    try:
        return f"Compiled kernels, ready in {enable_numba():.1f} s"
    except ModuleNotFoundError as error:
        raise InputError(f"--numba: {error}") from None
