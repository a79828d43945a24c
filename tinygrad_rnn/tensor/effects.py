"""What a function does to its arguments: declared beside it, read by the passes of `tr.compile`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Effects(NamedTuple):
    """Which arguments a function touches, by their positions. It touches nothing else.

    `writes` are overwritten as a whole and not read, `updates` are read and written, all others are
    read. `last_rows` has arguments of which the last rows alone may be given where all rows before
    them are zeros, and how many.
    """

    writes: tuple[int, ...] = ()
    updates: tuple[int, ...] = ()
    last_rows: Mapping[int, int] = MappingProxyType({})


def effects(
    *,
    writes: Sequence[str] = (),
    updates: Sequence[str] = (),
    last_rows: Mapping[str, int] | None = None,
) -> Callable[[F], F]:
    """Declare the `Effects` of a function by the names of its parameters.

    A name that it lacks is a `TypeError`.

    >>> @effects(writes=["y"])
    ... def double(x, y):
    ...     y[...] = 2 * x
    >>> double.effects.writes
    (1,)
    """

    def declare(f: F) -> F:
        position = {name: k for k, name in enumerate(inspect.signature(f).parameters)}
        rows = last_rows or {}
        if unknown := {*writes, *updates, *rows} - set(position):
            names = ", ".join(sorted(unknown))
            raise TypeError(f"effects of {f.__name__}: it has no parameter {names}")
        f.effects = Effects(  # type: ignore[attr-defined]
            tuple(position[name] for name in writes),
            tuple(position[name] for name in updates),
            {position[name]: count for name, count in rows.items()},
        )
        return f

    return declare
