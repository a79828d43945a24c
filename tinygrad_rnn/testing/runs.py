"""A recurrent layer on one batch: the example that its laws are asked about, and the run that others are compared with.

Whole batches, parts of them, other orders and other lengths: what comes out must fit together, in values and in
gradients, to within what rounding may do, which is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from tinygrad_rnn.testing.calls import Array, constant, generator_of
from tinygrad_rnn.testing.errors import Broken
from tinygrad_rnn.testing.numeric import EPS, complex_step_fault
from tinygrad_rnn.testing.subject import Given, Run, Sequences, Subject

__all__ = ["RTOL", "TINY", "RecurrentExample", "shifted"]

RTOL = 1e-9  # of two ways to compute the same, and of a gradient and its complex step
TINY = 1e-250  # below it a complex step of float64 loses digits: it is 0


def shifted(arrays: Sequence[Array], s: Any, directions: Sequence[Array]) -> list[Array]:
    """All arrays moved by s along their directions, but those of integers."""
    return [a + s * d if a.dtype.kind in "fc" else a for a, d in zip(arrays, directions, strict=True)]


class RecurrentExample:
    """One layer on one batch: what was run, and how it is compared with other runs."""

    def __init__(self, subject: Subject, case: Sequences) -> None:
        self.subject, self.case = subject, case
        self.where = f"{subject.name}, {case}" + (f", inputs times {case.scale:g}" if case.scale != 1 else "")
        self.rng = generator_of(case.seed, 3)
        self.given = subject.given(case, case.seed)

    @cached_property
    def base(self) -> Run:
        """The run that others are compared with."""
        return self.subject.run(self.given)

    @cached_property
    def noise(self) -> dict[str, Array]:
        """How much each number changes when what goes in moves by its last bits: that much is rounding."""
        found: dict[str, Array] = {}
        here = self.subject.run(self.given)  # and not the base: a law may have changed the layer for now
        unmoved = here.values | here.gradients

        def jittered(a: Array) -> Array:
            if a.dtype.kind != "f":
                return a
            return np.asarray(a * (1 + 16 * EPS * self.rng.uniform(-1, 1, a.shape)))

        for _ in range(4):
            g = self.given
            hx = None if g.hx is None else [jittered(h) for h in g.hx]
            run = self.subject.run(replace(g, x=jittered(g.x), hx=hx, u=[jittered(v) for v in g.u]))
            for name, value in (run.values | run.gradients).items():
                found[name] = np.maximum(found.get(name, 0.0), abs(np.subtract(value, unmoved[name], dtype=float)))
        return {name: np.nan_to_num(value, posinf=0) for name, value in found.items()}

    def same(self, how: str, name: str, found: Array, at: Any = ()) -> None:
        """Raise Broken unless `found` is the base run's array of that name, or its part `at`.

        A sequence is compared row by row, a row being one sequence at one step; anything else as a whole. Each is
        compared relative to its own size, with what the same number moves by for rounding.
        """
        expected = (self.base.values | self.base.gradients)[name][at]
        what = name if name in self.base.values else f"the gradient of {name}"
        if found.shape != expected.shape:
            raise Broken(f"{how}: {what} has shape {found.shape}, not {expected.shape}")
        if not expected.size:
            return
        if expected.dtype.kind in "iub":
            found, expected = found.astype(float), expected.astype(float)
        axes = tuple(range(2, expected.ndim)) if name in ("x", "output") else None
        size = np.max(abs(expected), axes, keepdims=True)
        error = np.max(abs(found - expected), axes, keepdims=True)
        if np.all(error <= RTOL * size + TINY):
            return
        slack = 64 * np.max(self.noise[name][at], axes, keepdims=True)
        wrong = ~(error <= RTOL * size + TINY + slack)
        if np.any(wrong):
            entries = wrong & ~(abs(found - expected) <= RTOL * size)  # written so that a NaN is wrong
            worst = tuple(int(i) for i in np.argwhere(entries)[0])
            where = f"step {worst[0]}, sequence {worst[1]}, entry {worst[2]}" if axes else f"entry {worst}"
            raise Broken(
                f"{how}: {what} at {where} is {found[worst]:.12g}, where {expected[worst]:.12g} was expected "
                f"({int(np.sum(wrong))} of {wrong.size} {'steps of sequences' if axes else 'arrays'} differ)",
            )

    def all_same(self, how: str, run: Run) -> None:
        """`same` for all values and gradients of a run."""
        for name, array in (run.values | run.gradients).items():
            self.same(how, name, array)

    def part(self, t: slice, rows: Any = slice(None), lengths: bool = False) -> Given:
        """What was given, for some steps and sequences."""
        g = self.given
        B = g.x.shape[1]
        take = self.subject.take
        index = np.arange(B)[rows]
        return Given(
            g.x[t][:, index],
            None if g.hx is None else take(g.hx, index),
            tuple(g.lengths[b] for b in index) if lengths and g.lengths else None,
            [g.u[0][t][:, index], *take(g.u[1:], index)],
        )

    def direction(self, x: Array) -> Array:
        """Random signs and sizes in [0.5, 1]; 0 for integers."""
        if x.dtype.kind != "f":
            return np.zeros(x.shape)
        return np.asarray(self.rng.choice([-1.0, 1.0], x.shape) * self.rng.uniform(0.5, 1, x.shape))

    @cached_property
    def analytic(self) -> bool:
        """Whether the complex step is right for this layer, along one direction in all that may be varied; a few steps
        tell, and a plain difference over many may be rough.
        """
        given = self.part(np.s_[:3])
        arrays, f = self.subject.arrays(given), self.subject.function(given)
        directions = [self.direction(a) for a in arrays]

        def along(s: Sequence[Array]) -> list[Array]:
            return [y._array for y in f(*map(constant, shifted(arrays, s[0], directions)))]

        return complex_step_fault(along, [np.zeros(())], np.ones_like) is None
