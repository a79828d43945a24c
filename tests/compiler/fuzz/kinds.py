"""The kinds of programs, in equal parts."""

from __future__ import annotations

from collections.abc import Callable

from tests.compiler.fuzz.arrays import draw_arrays
from tests.compiler.fuzz.ops import draw_ops
from tests.compiler.fuzz.program import Program
from tests.compiler.fuzz.training import draw_training

KINDS: dict[str, Callable[[int], Program]] = {"ops": draw_ops, "arrays": draw_arrays, "training": draw_training}


def draw(seed: int, kind: str = "") -> Program:
    """The program of a seed; of one kind alone, if that is given."""
    names = sorted(KINDS)
    return KINDS[kind or names[seed % len(names)]](seed)
