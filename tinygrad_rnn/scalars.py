"""Numbers as people give them, of Python or NumPy, in a 0-d array or a tensor, as Python's own: what files can hold."""

from __future__ import annotations

from numbers import Real
from typing import Any

from tinygrad_rnn.errors import DTypeError, InputError


def plain(value: Any) -> Any:
    """A number of NumPy's, an array or a tensor of one element as Python's own number; anything else as it is.

    >>> import numpy as np
    >>> plain(np.float32(0.5)), plain(np.array(3)), plain([0.5])
    (0.5, 3, [0.5])
    """
    return value.item() if getattr(value, "size", None) == 1 and hasattr(value, "item") else value


def number(what: str, value: Any) -> float:
    """A real number of any of these kinds as Python's own: an int stays one. Raises DTypeError, naming `what`, for
    anything else.

    >>> import numpy as np
    >>> number("the rate", np.float32(0.5)), number("the count", np.int64(3))
    (0.5, 3)
    >>> number("the rate", "fast")
    Traceback (most recent call last):
    ...
    tinygrad_rnn.errors.DTypeError: the rate must be a number, not 'fast'
    """
    found = plain(value)
    if isinstance(found, bool | int | float):
        return found
    if isinstance(found, Real):  # a fraction
        return float(found)
    raise DTypeError(f"{what} must be a number, not {value!r:.80}")


def whole(what: str, value: Any, least: int = 0) -> int:
    """A whole number of at least `least` as Python's own; 3.0 is one. Raises InputError, naming `what`, for anything
    else.

    >>> import numpy as np
    >>> whole("steps", np.int64(3)), whole("steps", 1e3)
    (3, 1000)
    >>> whole("steps", 2.5)
    Traceback (most recent call last):
    ...
    tinygrad_rnn.errors.InputError: steps must be a whole number of at least 0, not 2.5
    """
    found = plain(value)
    right = isinstance(found, int | float) and not isinstance(found, bool) and found >= least
    if not right or found != found // 1:  # an infinity is none either: its quotient is NaN
        raise InputError(f"{what} must be a whole number of at least {least:,}, not {value!r:.80}")
    return int(found)
