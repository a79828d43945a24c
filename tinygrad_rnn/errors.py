"""What can go wrong, by name. Each error is also the built-in that fits: `except ValueError` works."""

from __future__ import annotations


class TinygradRnnError(Exception):
    """The base of every error this library raises on purpose.

    `hint` is the end of the message that says what helps, "" if there is none: a command finds there which of its
    options to name.

    >>> error = InputError("the text is too short", hint="choose a smaller batch")
    >>> str(error), error.hint
    ('the text is too short: choose a smaller batch', 'choose a smaller batch')
    """

    def __init__(self, *args: object, hint: str = "") -> None:
        super().__init__(*((f"{args[0]}: {hint}", *args[1:]) if hint else args))
        self.hint = hint


class ShapeError(TinygradRnnError, ValueError):
    """Shapes that do not fit: the message names the op and every shape."""


class DTypeError(TinygradRnnError, TypeError):
    """A dtype that an op or a leaf cannot take, such as an integer tensor that requires a gradient."""


class BackendMismatchError(TinygradRnnError, TypeError):
    """Tensors of different devices or array libraries in one op; nothing crosses devices implicitly."""


class GraphFreedError(TinygradRnnError, RuntimeError):
    """A backward through a graph that an earlier backward has freed."""


class ImmutableError(TinygradRnnError, TypeError):
    """An attempt to change the values of a tensor in place."""


class CheckpointError(TinygradRnnError, ValueError):
    """A checkpoint that is damaged, foreign or of a newer format; the message names the file and reason."""


class NonFiniteError(TinygradRnnError, ArithmeticError):
    """A NaN or an infinity where training or decoding cannot go on; the message says where it was born or met."""


class CompileError(TinygradRnnError, RuntimeError):
    """What `tr.compile` cannot record or repeat; the message names the line and says what to do."""


class OutOfMemoryError(TinygradRnnError, MemoryError):
    """Memory that has run out, on a device or on the host: the message says in what, how much was asked for and is
    free, and what helps.
    """


class InputError(TinygradRnnError, ValueError):
    """Wrong input from a user: a file that cannot be read, a number out of range, a folder that is in use."""
