"""Signatures: which axes the arguments of an op have, by name, and which of them broadcast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tinygrad_rnn.testing.values import Choose, Shape

__all__ = ["LOOPS", "broadcast_shapes", "large_shapes", "loops_of", "shapes_of"]

_SIZES = (2, 3, 1, 4, 0)
LOOPS: tuple[Shape, ...] = (
    (2,), (), (3,), (2, 3), (1,), (3, 2), (2, 2, 2), (1, 3), (2, 1, 3), (0,), (2, 0), (0, 3),
)  # fmt: skip
_FULL_LOOPS = tuple(s for s in LOOPS if 0 not in s)


def broadcast_shapes(choose: Choose, shape: Shape, count: int) -> list[Shape]:
    """`count` shapes that broadcast to `shape`: axes are dropped from the left or have length one."""
    shapes = [list(shape)]
    for _ in range(count - 1):
        kind = choose(("same", "ones", "dropped", "both"))
        kept = list(shape)
        if kind in ("ones", "both") and kept:
            kept[choose(range(len(kept)))] = 1
        if kind in ("dropped", "both"):
            kept = kept[choose(range(len(kept) + 1)) :]
        shapes.append(kept)
    if count > 1 and shape and choose((False, True)):  # one where another is not
        axis = choose(range(-len(shape), 0))
        if any(len(s) >= -axis and s[axis] == shape[axis] for s in shapes[1:]):
            shapes[0][axis] = 1
    if count > 1 and choose((False, True)):  # the narrow one first
        shapes.reverse()
    return [tuple(s) for s in shapes]


@dataclass(frozen=True)
class Argument:
    """One argument of a signature: its axes, and whether any others may lead them."""

    axes: tuple[str, ...]
    loops: bool


@cache
def parsed(signature: str) -> tuple[tuple[Argument, ...], ...]:
    """The alternatives of a signature, and the arguments of each; see `shapes_of`."""
    if "(" in signature:
        return (_parsed_gufunc(signature),)
    alternatives = []
    for alternative in signature.split("|"):
        arguments = []
        for argument in alternative.split(","):
            axes = argument.replace(" ", "")
            loops = axes.startswith("*")
            axes = axes[loops:]
            if not axes.isalnum() and axes:
                raise ValueError(f'not the axes of an argument: {argument!r} in the signature "{signature}"')
            arguments.append(Argument(tuple(axes), loops))
        alternatives.append(tuple(arguments))
    return tuple(alternatives)


def _parsed_gufunc(signature: str) -> tuple[Argument, ...]:
    """NumPy's form, where every argument may have loop axes: what follows "->" is the op's own business."""
    inputs = signature.partition("->")[0].replace(" ", "")
    if not re.fullmatch(r"\([\w,]*\)(,\([\w,]*\))*", inputs):
        raise ValueError(f'not a signature of a generalised ufunc: "{signature}"')
    return tuple(Argument(tuple(filter(None, core.split(","))), True) for core in re.findall(r"\(([^)]*)\)", inputs))


def shapes_of(signature: str, choose: Choose, empty: bool = True) -> tuple[Shape, ...]:
    """Shapes that fit a signature.

    A signature lists the axes of each argument, by name or length, arguments apart by commas and alternatives
    by `|`; the same name has the same length everywhere. `*` stands for any leading axes, which broadcast
    between the arguments that have them. So "*, *" is elementwise, "*mn, *np | n, n" a matrix product and
    "*i, oi" a linear layer. NumPy's way to write one is understood, too: "(m,n),(n,p)->(m,p)" is "*mn, *np".

    Raises ValueError for anything else.

    >>> shapes_of("*i, oi", lambda sequence: sequence[0])
    ((2, 2), (2, 2))
    """
    arguments = choose(parsed(signature))
    count = sum(a.loops for a in arguments)
    allowed = LOOPS if empty else _FULL_LOOPS
    leading = iter(broadcast_shapes(choose, choose(allowed), count) if count else ())
    lengths: dict[str, int] = {}
    shapes = []
    for argument in arguments:
        for name in argument.axes:
            if name not in lengths:
                lengths[name] = int(name) if name.isdigit() else choose(_SIZES if empty else _SIZES[:-1])
        shapes.append((*(next(leading) if argument.loops else ()), *(lengths[name] for name in argument.axes)))
    return tuple(shapes)


def large_shapes(signature: str, large: int = 67) -> list[tuple[Shape, ...]]:
    """Shapes that fit a signature, each with an axis that is longer than a block of a kernel, and that nothing divides:
    the axes of a loop, and every axis that has a name. None where all lengths are digits, and none of square matrices.

    >>> large_shapes("*, *"), large_shapes("*mn, *np")
    ([((4, 67), (4, 67))], [((67, 3), (3, 2)), ((2, 67), (67, 3)), ((3, 2), (2, 67))])
    """
    arguments = parsed(signature)[0]
    names = list(dict.fromkeys(n for a in arguments for n in a.axes if not n.isdigit()))
    if any(len(set(a.axes)) < len(a.axes) for a in arguments):
        return []

    def shapes(loops: Shape, lengths: dict[str, int]) -> tuple[Shape, ...]:
        return tuple(
            (*(loops if a.loops else ()), *(int(n) if n.isdigit() else lengths[n] for n in a.axes)) for a in arguments
        )

    if not names:
        return [shapes((4, large), {})] if any(a.loops for a in arguments) else []
    return [
        shapes(
            (4,) if len(names) == 1 else (),
            {n: (large, 3, 2)[min((i - k) % len(names), 2)] for i, n in enumerate(names)},
        )
        for k in range(len(names))
    ]


def loops_of(signature: str, shapes: Sequence[Shape]) -> list[int | None] | None:
    """How many of each argument's axes are loop axes, which broadcast; None for an argument that has none.

    Of the first alternative that the shapes fit; None if they fit none.

    >>> loops_of("*i, oi", [(4, 3, 2), (5, 2)])
    [2, None]
    """
    for arguments in parsed(signature):
        if len(arguments) == len(shapes):
            counts = [len(s) - len(a.axes) for s, a in zip(shapes, arguments, strict=True)]
            named = [
                (name, length)
                for shape, a, n in zip(shapes, arguments, counts, strict=True)
                if n >= 0
                for name, length in zip(a.axes, shape[n:], strict=True)
            ]
            lengths = {name: int(name) if name.isdigit() else length for name, length in named}
            if all(n >= 0 if a.loops else n == 0 for n, a in zip(counts, arguments, strict=True)) and all(
                lengths[name] == length for name, length in named
            ):
                return [n if a.loops else None for n, a in zip(counts, arguments, strict=True)]
    return None
