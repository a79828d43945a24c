"""Numbers as people give them, of Python or NumPy, in a 0-d array or a tensor, as Python's own: what files can hold."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from tinygrad_rnn.errors import DTypeError, InputError


def plain(value: Any) -> Any:
    """A number of NumPy's, an array or a tensor of one element as Python's own number; anything else as it is.

    >>> import numpy as np
    >>> plain(np.float32(0.5)), plain(np.array(3)), plain([0.5])
    (0.5, 3, [0.5])
    """
    one = getattr(value, "size", None) == 1 and hasattr(value, "item") and not hasattr(value, "mask")
    return value.item() if one else value


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


def as_number(value: Any) -> Any:
    """`value` as a Python int, float or bool; None if it is no real number.

    >>> import numpy as np
    >>> as_number(np.float32(0.5)), as_number(np.array(3)), as_number("3")
    (0.5, 3, None)
    """
    kind = type(value)
    if kind is int or kind is float or kind is bool:
        return value
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    if hasattr(value, "mask"):  # NumPy's `masked` says 0.0 there
        return None
    if is_scalar and not getattr(value, "requires_grad", False):  # its value would cut the graph
        value = value.item()
    if isinstance(value, int | float) and type(value) is not value.__class__:
        return value  # a number of a recording, which passes for one of Python's
    if isinstance(value, int):
        return bool(value) if isinstance(value, bool) else int(value)
    wide = isinstance(value, Real) and hasattr(value, "dtype")  # longdouble stays one in item()
    return float(value) if isinstance(value, float) or wide else None


def as_integer(value: Any) -> int | None:
    """`value` as a Python int; None if it is no integer. Booleans and floats are none.

    >>> import numpy as np
    >>> as_integer(np.int64(3)), as_integer(3.0), as_integer(True)
    (3, None, None)
    """
    if type(value) is int:
        return value
    found = as_number(value)
    return found if type(found) is int else None


def real_number(what: str, value: Any) -> Any:
    """`as_number`, or a `TypeError` that says what was to be a number.

    >>> real_number("clip: min", "low")
    Traceback (most recent call last):
    ...
    TypeError: clip: min must be a real number, not str: 'low'
    """
    found = as_number(value)
    if found is None:
        raise TypeError(f"{what} must be a real number, not {type(value).__name__}: {value!r:.60}")
    return found


def flag(what: str, value: Any) -> bool:
    """A boolean of Python's or NumPy's; `TypeError` for anything else, since "no" would be taken for yes.

    >>> import numpy as np
    >>> flag("bias", np.bool_(False))
    False
    """
    found = value if isinstance(value, bool) else as_number(value)
    if not isinstance(found, bool):
        raise TypeError(f"{what} must be True or False, not {value!r:.60}")
    return found


_INT = frozenset({int})


def as_integers(value: Any) -> tuple[int, ...] | None:
    """A number of several of them, a shape say, as a tuple; None where one is no integer.

    >>> as_integers(3), as_integers([2, 3]), as_integers([2, 0.5])
    ((3,), (2, 3), None)
    """
    if type(value) is tuple and _INT.issuperset(map(type, value)):
        return value
    if (one := as_integer(value)) is not None:
        return (one,)
    many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not many and getattr(value, "ndim", 0) != 1:
        return None
    found = [as_integer(v) for v in value]
    return None if None in found else tuple(n for n in found if n is not None)
