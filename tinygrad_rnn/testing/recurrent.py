"""check_recurrent: does a recurrent layer or cell obey the laws of its kind, and are its gradients right?

A layer is looked at from outside: it is run on whole batches, parts of them, other orders and other lengths, and what
comes out must fit together, in values and in gradients. Gradients are compared with numeric derivatives too, and those
of a sequence step by step, each relative to its own size: what reaches the first of forty steps is small, and a
gradient that was cut on the way differs from it by all it has.

The laws do not need Hypothesis: `check_case` checks all of them on one case. `check_recurrent` searches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.functional import grad
from tinygrad_rnn.tensor.fused import enable_fused, fused_enabled
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing.errors import GradientError, LawError
from tinygrad_rnn.testing.gradients import check_gradients
from tinygrad_rnn.testing.numeric import complex_step, complex_step_fault, four_point
from tinygrad_rnn.testing.subject import (
    LONG,
    SHORT,
    Factory,
    Given,
    Run,
    Sequences,
    Subject,
    named_values,
    values_of,
    variable,
)

__all__ = ["check_case", "check_recurrent"]

Array = NDArray[Any]

RTOL = 1e-9  # of two ways to compute the same, and of a gradient and its complex step
DIFFERENCE_RTOL = 1e-5  # of a gradient and a difference: over several steps it is no better
SECOND_RTOL = 1e-8  # of a gradient of gradients
FLOAT32_RTOL = 1e-4  # of an array's largest entry, over at most SHORT steps
EPS = float(np.finfo(np.float64).eps)
TINY = 1e-290  # below it float64 loses digits: it is 0
ZERO = box(np.zeros(()), None)


# --- the comparison -----------------------------------------------------------------------------------------


class _Proof:
    """One case of one layer: what was run, and the laws."""

    def __init__(self, subject: Subject, case: Sequences) -> None:
        self.subject, self.case = subject, case
        self.rng = np.random.default_rng(case.seed)
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
            return np.asarray(a * (1 + 16 * EPS * self.rng.uniform(-1, 1, a.shape)))

        for _ in range(4):
            g = self.given
            hx = None if g.hx is None else [jittered(h) for h in g.hx]
            run = self.subject.run(replace(g, x=jittered(g.x), hx=hx, u=[jittered(v) for v in g.u]))
            for name, value in (run.values | run.gradients).items():
                found[name] = np.maximum(found.get(name, 0.0), abs(value - unmoved[name]))
        return {name: np.nan_to_num(value, posinf=0) for name, value in found.items()}

    def same(self, law: str, how: str, name: str, found: Array, at: Any = ()) -> None:
        """Raise unless `found` is the base run's array of that name, or its part `at`.

        A sequence is compared row by row, a row being one sequence at one step; anything else as a whole. Each is
        compared relative to its own size, with what the same number moves by for rounding.
        """
        expected = (self.base.values | self.base.gradients)[name][at]
        what = name if name in self.base.values else f"the gradient of {name}"
        if found.shape != expected.shape:
            raise LawError(law, f"{how}: {what} has shape {found.shape}, not {expected.shape}")
        if not expected.size:
            return
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
            raise LawError(
                law,
                f"{how}: {what} at {where} is {found[worst]:.12g}, where {expected[worst]:.12g} was expected "
                f"({int(np.sum(wrong))} of {wrong.size} {'steps of sequences' if axes else 'arrays'} differ)",
            )

    def all_same(self, law: str, how: str, run: Run) -> None:
        """`same` for all values and gradients of a run."""
        for name, array in (run.values | run.gradients).items():
            self.same(law, how, name, array)

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

    # each law returns whether it applied

    def shape(self) -> bool:
        """Shapes of outputs, states and gradients."""
        T, B = self.case.T, self.case.B
        expected = [(T, B, self.subject.width), *self.subject.shapes_for(B)]
        for (name, value), shape in zip(self.base.values.items(), expected, strict=True):
            if value.shape != shape:
                raise LawError("shape", f"{name} has shape {value.shape}, not {shape}")
        return True

    def dtype(self) -> bool:
        """float64 stays float64."""
        for name, value in (self.base.values | self.base.gradients).items():
            if value.dtype != np.float64:
                raise LawError("dtype", f"{name} of a float64 layer is {value.dtype}")
        return True

    def repeats(self) -> bool:
        """Called again, a layer gives the same: it is a function of what it is given."""
        again = self.subject.run(self.given)
        for name, value in (self.base.values | self.base.gradients).items():
            other = (again.values | again.gradients)[name]
            if not np.array_equal(value, other, equal_nan=True):
                raise LawError(
                    "repeats",
                    f"{name} differs when the layer is called again with the same input in eval mode: "
                    "is a state kept between calls, or something drawn?",
                )
        return True

    def no_aliasing(self) -> bool:
        """What a layer returned does not change when it is called again."""
        before = {name: value.copy() for name, value in self.base.values.items()}
        self.subject.run(replace(self.given, x=self.given.x + 1))
        for name, value in self.base.values.items():
            if not np.array_equal(value, before[name], equal_nan=True):
                raise LawError("no aliasing", f"{name} of a run changes when the layer is called again")
        return True

    def no_mutation(self) -> bool:
        """Inputs, states, cotangents and parameters are read-only in every run; here they are compared, too."""
        arrays = self.subject.arrays(self.given)
        before = [a.copy() for a in arrays]
        self.subject.run(self.given)
        for name, array, copy in zip(self.subject.names(self.given), arrays, before, strict=True):
            if not np.array_equal(array, copy):
                raise LawError("no mutation", f"{name} changes when the layer is called")
        return True

    def gradient(self, seed: int | None = None) -> bool:
        """The gradients of all that goes in against numeric derivatives along random directions. For long sequences no
        difference is exact enough: there are `per_step` and `truncation`.
        """
        if self.case.T > SHORT:
            return False
        for attempt in range(5):
            given = self.given if not attempt else self.subject.given(self.case, self.case.seed + attempt)
            if self._gradient(given, seed):
                return True
        self._explain(given, seed)  # kinks wherever one looks
        return False

    def _gradient(self, given: Given, seed: int | None) -> bool:
        """False where there is a kink nearby; that is no matter to a complex step."""
        arrays, names = self.subject.arrays(given), self.subject.names(given)
        f = self.subject.function(given, seed)
        tensors = [variable(a) for a in arrays]
        gradients = self.subject.pull(f(*tensors), given.u, dict(zip(names, tensors, strict=True)))
        step = complex_step if self.analytic else four_point
        rtol = RTOL if self.analytic else DIFFERENCE_RTOL
        for i, name in enumerate(names):
            d = self._direction(arrays[i])
            numeric = step.along(values_of(f), arrays, i, d)
            if numeric.bent:
                return False
            terms, (slope, noise) = d * gradients[name], numeric.dot(given.u)
            ours, size = float(np.sum(terms)), float(np.sum(abs(terms)))
            error = abs(ours - slope)
            if error <= rtol * size + noise + TINY or error <= rtol * size + self._rounding(name, given, seed):
                continue
            self._explain(given, seed)  # who finds the entry, and may have a guess
            raise GradientError(
                f"the gradient of {name} along a random direction is {ours:.12g}, and by the {step.name} {slope:.12g}"
            )
        return True

    def _rounding(self, name: str, given: Given, seed: int | None) -> float:
        """How far rounding may move a gradient summed along a direction; known for the base run."""
        return 64 * float(np.sum(self.noise[name])) if given is self.given and seed is None else 0.0

    def _explain(self, given: Given, seed: int | None) -> None:
        """Have `check_gradients` say what is wrong, if it sees it."""
        arrays, names = self.subject.arrays(given), self.subject.names(given)
        rtol = None if self.analytic else DIFFERENCE_RTOL
        try:
            check_gradients(self.subject.function(given, seed), *arrays, rtol=rtol, seed=self.case.seed % 1000)
        except GradientError as error:
            message = re.sub(r"\bof input (\d+)", lambda found: f"of {names[int(found[1])]}", str(error))
            where = "x is (steps, sequences, entries)" + ("" if seed is None else ", the layer in training mode")
            error.args = (f"{message}\n({where})",)
            raise

    def second_derivative(self) -> bool:
        """The Hessian of sum <output, u> times a direction in all at once (x, states, parameters, u): a gradient of
        gradients, against the numeric derivative of the gradients along that direction.
        """
        if self.case.T > 3:
            return False  # it says nothing more, and takes a while
        arrays, f = [*self.subject.arrays(self.given), *self.given.u], self.subject.function(self.given)
        directions, n = [self._direction(a) for a in arrays], len(self.given.u)
        names = [*self.subject.names(self.given), "the cotangent of output"]
        names += [f"that of state {i}" for i in range(n - 1)]

        def first(xs: Sequence[Tensor]) -> list[Tensor]:
            pairs = zip(f(*xs[:-n]), xs[-n:], strict=True)
            return list(grad(sum(((y * u).sum() for y, u in pairs), ZERO), list(xs), create_graph=True))

        def along(s: Sequence[Array]) -> list[Array]:
            found = first([variable(a + s[0] * d) for a, d in zip(arrays, directions, strict=True)])
            return [g._array for g in found]

        leaves = [variable(a) for a in arrays]
        total = sum(((g * d).sum() for g, d in zip(first(leaves), directions, strict=True)), ZERO)
        second = [g._array for g in grad(total, leaves)] if total.requires_grad else [0 * a for a in arrays]

        at = [np.zeros(())]
        for step in [complex_step, four_point] if self.analytic else [four_point]:
            numeric = step.along(along, at, 0, np.ones(()))
            if numeric.bent:
                return False  # there is a kink nearby
            rounding = 256 * EPS * max(np.max(abs(v), initial=0) for v in numeric.values)
            for name, found, expected, noise in zip(names, second, numeric.values, numeric.noise, strict=True):
                size = (SECOND_RTOL if step is complex_step else DIFFERENCE_RTOL) * np.max(abs(expected), initial=0)
                wrong = ~(abs(found - expected) <= size + rounding + noise)
                if np.any(wrong):
                    worst = tuple(int(i) for i in np.argwhere(wrong)[0])
                    values = f"{found[worst]:.12g}, and by the {step.name} {expected[worst]:.12g}"
                    message = f"the Hessian times a random direction, of {name} at {worst}, is {values}"
                    break
            else:
                return True
            if step is four_point or not complex_step_fault(along, at, np.ones_like):
                raise LawError("second derivative", message)
        raise AssertionError("unreachable")

    def per_step(self) -> bool:
        """The gradient of each step of x, of the initial states and of the parameters against the complex step, each
        relative to its own size, for what the case pulls back.
        """
        if not self.analytic:
            return False
        given, T = self.given, self.case.T
        arrays, names = self.subject.arrays(given), self.subject.names(given)
        # One run for all steps: T copies of the batch, each with one step moved. Rows do not see each other, as the
        # laws of the batch have shown.
        d, B = self._direction(given.x), self.case.B
        copies, moved = self.part(np.s_[:], np.tile(np.arange(B), T), lengths=True), np.zeros((T, T, B, d.shape[2]))
        for t in range(T):
            moved[t, t] = d[t]
        columns = self._columns(copies, 0, moved.reshape(T, T * B, -1))
        for t in reversed(range(T)):  # so that the first that is wrong is where a gradient was cut
            rows = np.arange(t * B, t * B + B)
            here = [columns[0][:, rows], *self.subject.take(columns[1:], rows)]
            self._judge("x", f" at step {t} of {T}", d[t], here, given.u, self.base.gradients["x"], t)
        for i in range(1, len(arrays)):
            d = self._direction(arrays[i])
            self._judge(names[i], "", d, self._columns(given, i, d), given.u, self.base.gradients[names[i]])
        return True

    def _direction(self, x: Array) -> Array:
        return np.asarray(self.rng.choice([-1.0, 1.0], x.shape) * self.rng.uniform(0.5, 1, x.shape))

    @cached_property
    def analytic(self) -> bool:
        """Whether the complex step is right for this layer, along one direction in all that may be varied; a few steps
        tell, and a plain difference over many may be rough.
        """
        given = self.part(np.s_[:3])
        arrays, f = self.subject.arrays(given), self.subject.function(given)
        directions = [self._direction(a) for a in arrays]

        def along(s: Sequence[Array]) -> list[Array]:
            return [y._array for y in f(*(box(a + s[0] * d, None) for a, d in zip(arrays, directions, strict=True)))]

        return complex_step_fault(along, [np.zeros(())], np.ones_like) is None

    def _columns(self, given: Given, i: int, d: Array) -> list[Array]:
        """The derivatives of all outputs along `d` of input `i`."""
        f = self.subject.function(given)
        return complex_step.along(values_of(f), self.subject.arrays(given), i, d).values

    def _judge(
        self, name: str, where: str, d: Array, columns: list[Array], u: list[Array], gradient: Array, at: Any = ()
    ) -> None:
        numeric = float(sum(np.sum(v * c) for v, c in zip(u, columns, strict=True)))
        terms = d * gradient[at]
        ours = float(np.sum(terms))
        allowed, error = RTOL * float(np.sum(abs(terms))) + TINY, abs(ours - numeric)
        if not error <= allowed and not error <= allowed + 64 * float(np.sum(self.noise[name][at])):
            raise LawError(
                "per-step gradients",
                f"the gradient of {name}{where} along a random direction is {ours:.12g}, and by the complex step "
                f"{numeric:.12g}; pulled back: {self.case.pulled}",
            )

    def zero(self) -> bool:
        """A cotangent of 0 gives gradients of exactly 0."""
        run = self.subject.run(replace(self.given, u=[0 * v for v in self.given.u]))
        for name, g in run.gradients.items():
            if np.any(g != 0):
                raise LawError("zero", f"the gradient of {name} is not 0 for a cotangent of 0")
        return True

    def causality(self) -> bool:
        """Outputs before a step do not depend on it, and give it a gradient of exactly 0."""
        if self.subject.bidirectional or self.case.T < 2 or self.given.lengths:
            return False
        t = int(self.rng.integers(1, self.case.T))
        x = self.given.x.copy()
        x[t:] += 1 + self.rng.random(x[t:].shape)
        u = [np.concatenate([self.given.u[0][:t] + 1, 0 * self.given.u[0][t:]]), *(0 * v for v in self.given.u[1:])]
        output = self.subject.run(replace(self.given, x=x)).values["output"]
        self.same("causality", f"after a change of x from step {t} on", "output", output[:t], np.s_[:t])
        g = self.subject.run(replace(self.given, u=u)).gradients["x"]
        if np.any(g[t:] != 0):
            at = t + int(np.argwhere(g[t:] != 0)[0][0])
            raise LawError("causality", f"outputs before step {t} give x at step {at} a gradient of {g[at].ravel()}")
        return True

    def batch_permutation(self) -> bool:
        """The order of the sequences is free."""
        B = self.case.B
        if B < 2:
            return False
        order = np.roll(self.rng.permutation(B), 1)
        order = order[::-1] if np.array_equal(order, np.arange(B)) else order
        back = np.argsort(order)
        run = self.subject.run(self.part(np.s_[:], order, lengths=True))
        self.all_same("batch permutation", f"the sequences in the order {order.tolist()}", self._rows(run, back))
        return True

    def _rows(self, run: Run, rows: Any) -> Run:
        """A run with its sequences in another order."""
        take, n = self.subject.take, len(self.base.values) - 1
        states = [run.values[f"state {i}"] for i in range(n)]
        values = {"output": run.values["output"][:, rows]}
        values |= {f"state {i}": s for i, s in enumerate(take(states, rows))}
        gradients = run.gradients | {"x": run.gradients["x"][:, rows]}
        if "hx 0" in gradients:
            hx = [run.gradients[f"hx {i}"] for i in range(n)]
            gradients |= {f"hx {i}": s for i, s in enumerate(take(hx, rows))}
        return Run(values, gradients)

    def _one_by_one(self, law: str, how: str, ends: Sequence[int], lengths: bool) -> None:
        """The batch against its sequences run alone, each up to its end: rows equal, parameters' gradients the sum."""
        total: dict[str, Array] = {}
        for b, n in enumerate(ends):
            run = self.subject.run(self.part(np.s_[:n], [b], lengths))
            arrays = run.values | run.gradients
            here = f"{how} (sequence {b})"
            for name, array in arrays.items():
                if name in ("output", "x"):
                    self.same(law, here, name, array, np.s_[:n, b : b + 1])
                elif name.startswith(("state ", "hx ")):
                    axis = self.subject.batch_axes[int(name.split()[1])]
                    self.same(law, here, name, array, (slice(None),) * axis + (slice(b, b + 1),))
                else:
                    total[name] = total.get(name, 0) + array
        for name, array in total.items():
            self.same(law, f"{how} (sum of all)", name, array)

    def batch_of_singles(self) -> bool:
        """A batch is its sequences run one by one."""
        if self.case.B < 2:
            return False
        how = "the sequences run one by one"
        self._one_by_one("batch of singles", how, [self.case.T] * self.case.B, lengths=True)
        return True

    def lengths(self) -> bool:
        """With lengths, a batch is its sequences cut to their lengths and run one by one, without lengths."""
        if not self.given.lengths:
            return False
        how = f"of lengths {self.given.lengths}, the sequences cut to them and run one by one"
        self._one_by_one("lengths", how, self.given.lengths, lengths=False)
        return True

    def padding(self) -> bool:
        """Past the end of a sequence nothing is read, the output is 0 and so is the gradient of x."""
        lengths = self.given.lengths
        if not lengths or min(lengths) == self.case.T:
            return False
        x, u = self.given.x.copy(), self.given.u[0].copy()
        for b, n in enumerate(lengths):
            x[n:, b], u[n:, b] = np.nan, 1 + self.rng.random(u[n:, b].shape)
        run = self.subject.run(replace(self.given, x=x))
        self.all_same("padding", f"with NaN past the lengths {lengths}", run)
        run = self.subject.run(replace(self.given, x=x, u=[u, *self.given.u[1:]]))
        self.all_same("padding", f"with a cotangent for the output past the lengths {lengths}", run)
        for name, array in (("output", run.values["output"]), ("the gradient of x", run.gradients["x"])):
            for b, n in enumerate(lengths):
                if np.any(array[n:, b] != 0):
                    t = n + int(np.argwhere(array[n:, b] != 0)[0][0])
                    raise LawError(
                        "padding",
                        f"{name} at step {t} of sequence {b}, whose length is {n}, is {array[t, b]}, not 0",
                    )
        return True

    def chunking(self) -> bool:
        """A run in two chunks, the second from the state that the first has ended with, is one run."""
        T, g, subject = self.case.T, self.given, self.subject
        if not subject.carries or T < 2 or g.lengths:
            return False
        t = int(self.rng.integers(1, T))
        x, hx = variable(g.x), None if g.hx is None else [variable(h) for h in g.hx]
        first, state = subject.forward(x[:t], hx, None)
        second, state = subject.forward(x[t:], state, None)
        output = ops.concatenate([first, second])
        leaves = {"x": x, **{f"hx {i}": h for i, h in enumerate(hx or ())}, **subject.parameters}
        run = Run(named_values(output, state), subject.pull([output, *state], g.u, leaves))
        self.all_same("chunking", f"in chunks of {t} and {T - t} steps, the state carried over", run)
        return True

    def truncation(self) -> bool:
        """Backwards chunk by chunk, each handing the gradient of its first state to the chunk before, is the backward
        of all: what `tbptt(k1, k2)` does, where k2 >= T makes it full back-propagation through time.
        """
        T, g, subject = self.case.T, self.given, self.subject
        if not subject.carries or T < 1 or g.lengths:
            return False
        k = int(self.rng.integers(1, T + 1))
        state, chunks = g.hx, []
        for t in range(0, T, k):
            leaves = {"x": variable(g.x[t : t + k])}
            leaves |= {f"hx {i}": variable(s) for i, s in enumerate(state or ())}
            hx = None if state is None else list(leaves.values())[1:]
            output, final = subject.forward(leaves["x"], hx, None)
            chunks.append((leaves, [output, *final]))
            state = [s._array for s in final]
        u, steps = g.u[1:], []
        total: dict[str, Array] = {}
        for n, (leaves, outputs) in reversed(list(enumerate(chunks))):
            found = subject.pull(outputs, [g.u[0][n * k : n * k + k], *u], leaves | subject.parameters)
            steps.append(found["x"])
            u = [found[f"hx {i}"] for i in range(len(leaves) - 1)]
            for name in subject.parameters:
                total[name] = total.get(name, 0) + found[name]
        total |= {"x": np.concatenate(steps[::-1])} | ({f"hx {i}": v for i, v in enumerate(u)} if g.hx else {})
        for name, array in total.items():
            self.same("truncation", f"backwards in chunks of {k} steps", name, array)
        return True

    def reversal(self) -> bool:
        """With the weights of both directions exchanged, the sequences backwards give the outputs backwards, with the
        directions' halves exchanged. The names of a direction's weights tell: `X` and `X_reverse`.
        """
        subject, given = self.subject, self.given
        there = {name: name + "_reverse" for name in subject.parameters if not name.endswith("_reverse")}
        if not subject.bidirectional or given.lengths or set(there.values()) | set(there) != set(subject.parameters):
            return False
        width = subject.width
        exchanged: dict[str, Array] = {}
        for name, other in there.items():
            a, b = (subject.parameters[n].numpy() for n in (name, other))
            if name.startswith("weight_ih_l") and not name.endswith("_l0"):  # it sees both halves of the layer below
                a, b = (np.roll(w, width // 2, axis=1) for w in (a, b))
            exchanged |= {name: b, other: a}

        def turned(states: Sequence[Array]) -> list[Array]:
            pairs = [s.reshape(-1, 2, *s.shape[1:])[:, ::-1].reshape(s.shape) for s in states]
            return [np.ascontiguousarray(s) for s in pairs]

        if any(shape[0] % 2 for shape in subject.shapes_for(self.case.B)):
            return False
        back = Given(
            np.ascontiguousarray(given.x[::-1]),
            None if given.hx is None else turned(given.hx),
            None,
            [np.roll(given.u[0][::-1], width // 2, axis=-1), *turned(given.u[1:])],
        )
        with subject.holding([variable(exchanged[name]) for name in subject.parameters]):
            run = subject.run(back)
        states = turned([run.values[f"state {i}"] for i in range(len(subject.state_shapes))])
        found = {"output": np.roll(run.values["output"], width // 2, axis=-1)[::-1], "x": run.gradients["x"][::-1]}
        found |= {f"state {i}": s for i, s in enumerate(states)}
        if given.hx is not None:
            hx = turned([run.gradients[f"hx {i}"] for i in range(len(given.hx))])
            found |= {f"hx {i}": h for i, h in enumerate(hx)}
        for name, array in found.items():
            self.same("reversal", "the sequences backwards, the two directions' weights exchanged", name, array)
        return True

    def fused(self) -> bool:
        """Kernels and the plain graph give the same."""
        modules: list[Any] = [m for m in self.subject.layer.modules() if isinstance(getattr(m, "fused", None), bool)]
        if not modules:
            return False
        before = [m.fused for m in modules]
        try:
            for on in (True, False):
                for m in modules:
                    m.fused = on
                self.all_same("fused = plain", f"with fused={on}", self.subject.run(self.given))
        finally:
            for m, on in zip(modules, before, strict=True):
                m.fused = on
        was = fused_enabled()
        enable_fused(False)
        try:
            self.all_same("fused = plain", "with enable_fused(False)", self.subject.run(self.given))
        finally:
            enable_fused(was)
        return True

    def unbatched(self) -> bool:
        """One sequence without a batch axis is a batch of one, where a layer takes that."""
        subject, T = self.subject, self.case.T
        given = self.part(np.s_[:], [0])
        if self.given.lengths:
            return False

        def squeezed(arrays: Sequence[Array]) -> list[Array]:
            return [np.squeeze(a, axis) for a, axis in zip(arrays, subject.batch_axes, strict=True)]

        x, hx = variable(given.x[:, 0]), None if given.hx is None else [variable(h) for h in squeezed(given.hx)]
        swapped, subject.batch_first = subject.batch_first, False
        try:
            output, states = subject.forward(x, hx, None)
        except Exception:  # noqa: BLE001  (it does not take that)
            return False
        finally:
            subject.batch_first = swapped
        shapes = [
            np.squeeze(np.empty(s), a).shape for s, a in zip(subject.shapes_for(1), subject.batch_axes, strict=True)
        ]
        if [output.shape, *(s.shape for s in states)] != [(T, subject.width), *shapes]:
            return False  # it takes such arrays for something else
        leaves = {"x": x, **{f"hx {i}": h for i, h in enumerate(hx or ())}}
        found = subject.pull([output, *states], [given.u[0][:, 0], *squeezed(given.u[1:])], leaves)
        how = "without a batch axis"
        self.same("unbatched", how, "output", output._array[:, None], np.s_[:, :1])
        self.same("unbatched", how, "x", found["x"][:, None], np.s_[:, :1])
        for i, axis in enumerate(subject.batch_axes):
            at = (slice(None),) * axis + (slice(0, 1),)
            self.same("unbatched", how, f"state {i}", np.expand_dims(states[i]._array, axis), at)
            if hx:
                self.same("unbatched", how, f"hx {i}", np.expand_dims(found[f"hx {i}"], axis), at)
        return True

    def float32(self) -> bool:
        """A float32 layer gives float32, near what float64 gives."""
        subject, g = self.subject, self.given
        if self.case.T > SHORT:
            return False
        values = {name: p.numpy() for name, p in subject.layer.named_parameters()}
        other = Subject.__new__(Subject)
        other.__dict__.update(subject.__dict__)
        other.layer = subject._made().to("float32")
        for name, p in other.layer.named_parameters():
            p.assign_(values[name].astype("float32"))
        other.parameters = {n: p for n, p in other.layer.named_parameters() if n in subject.parameters}

        def small(arrays: Sequence[Array]) -> list[Array]:
            return [a.astype("float32") for a in arrays]

        run = other.run(Given(small([g.x])[0], None if g.hx is None else small(g.hx), g.lengths, small(g.u)))
        for name, array in (run.values | run.gradients).items():
            if array.dtype != np.float32:
                raise LawError("dtype", f"{name} of a float32 layer is {array.dtype}")
            expected = (self.base.values | self.base.gradients)[name]
            error, size = np.max(abs(array - expected), initial=0), np.max(abs(expected), initial=0)
            if error <= FLOAT32_RTOL * size:
                continue
            rounding = 16 * np.finfo(np.float32).eps / EPS * np.max(self.noise[name], initial=0)
            if not error <= FLOAT32_RTOL * size + rounding:
                raise LawError(
                    "float32", f"{name} in float32 is {error:.3g} off, its largest entry in float64 {size:.3g}"
                )
        return True

    def dropout(self) -> bool:
        """In training mode what is drawn depends on the seed alone, and the backward uses what the forward drew."""
        subject = self.subject
        arrays = subject.arrays(self.given)
        f = subject.function(self.given, seed=self.case.seed)
        subject.layer.train()
        try:
            one, two = ([y._array for y in f(*(box(a, None) for a in arrays))] for _ in range(2))
            if all(np.array_equal(a, b) for a, b in zip(one, self.base.values.values(), strict=True)):
                return False
            if not all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)):
                raise LawError("dropout", "what is drawn in training mode is not fixed by tr.manual_seed")
            return self.gradient(seed=self.case.seed)
        finally:
            subject.layer.eval()

    def empty(self) -> bool:
        """No steps: an empty output, and the state that went in. No sequences: no gradient at all."""
        g, (T, B) = self.given, (self.case.T, self.case.B)
        if self.subject.cell and not T:
            return False
        try:
            self.base  # noqa: B018  (it runs the layer)
        except Exception:  # noqa: BLE001  (it does not take that)
            return False
        self.shape()
        exact = {name: np.zeros(p.shape) for name, p in self.subject.parameters.items()}
        found = dict(self.base.gradients)
        if g.hx is not None and not T:
            exact |= {f"state {i}": h for i, h in enumerate(g.hx)}
            exact |= {f"hx {i}": v for i, v in enumerate(g.u[1:])}
            found |= self.base.values
        for name, value in exact.items():
            if not np.array_equal(found[name], value):
                what = "state" if name.startswith("state") else "gradient"
                raise LawError("empty", f"T = {T}, B = {B}: the {what} of {name} is not what went in, or 0")
        return True


_LAWS: dict[str, Callable[[_Proof], bool]] = {
    "shape": _Proof.shape,
    "dtype": _Proof.dtype,
    "repeats": _Proof.repeats,
    "no mutation": _Proof.no_mutation,
    "no aliasing": _Proof.no_aliasing,
    "gradient": _Proof.gradient,
    "batch permutation": _Proof.batch_permutation,
    "batch of singles": _Proof.batch_of_singles,
    "per-step gradients": _Proof.per_step,
    "zero": _Proof.zero,
    "causality": _Proof.causality,
    "lengths": _Proof.lengths,
    "padding": _Proof.padding,
    "chunking": _Proof.chunking,
    "truncation": _Proof.truncation,
    "reversal": _Proof.reversal,
    "fused = plain": _Proof.fused,
    "unbatched": _Proof.unbatched,
    "float32": _Proof.float32,
    "dropout": _Proof.dropout,
    "second derivative": _Proof.second_derivative,
}


# --- what users call ----------------------------------------------------------------------------------------


def check_case(
    layer_factory: Factory, case: Sequences, *, input_size: int | None = None, cell: bool | None = None
) -> Counter[str]:
    """All laws of `check_recurrent` that apply, on one case, without Hypothesis: {law: 1} for those that did.

    Raises LawError with a note that shows the case.

    >>> from tinygrad_rnn import nn
    >>> found = check_case(lambda: nn.GRU(3, 4), Sequences(T=3, B=2))
    >>> "causality" in found, "reversal" in found
    (True, False)
    """
    try:
        subject = Subject(layer_factory, case.seed, input_size, cell)
        proof = _Proof(subject, case)
        laws = {"empty": _Proof.empty} if not case.T or not case.B else _LAWS
        return Counter(name for name, law in laws.items() if law(proof))
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        mutation = LawError("no mutation", f"the layer, or a vjp, writes to an array that it was given: {error}")
        mutation.add_note(f"with {case}")
        raise mutation from error
    except Exception as error:
        error.add_note(f"with {case}")
        raise


# Whatever Hypothesis draws, these are checked: each law has one that it applies to, small ones first.
CASES = (
    Sequences(T=1, B=1, initial=False),
    Sequences(T=2, B=2),
    Sequences(T=4, B=3, lengths=(2, 4, 1)),
    Sequences(T=0, B=2),
    Sequences(T=3, B=0),
    Sequences(T=LONG, B=2, pulled="last"),
    Sequences(T=LONG, B=2, lengths=(LONG, 27), pulled="state"),
)


def check_recurrent(
    layer_factory: Factory,
    *,
    examples: int | None = None,
    input_size: int | None = None,
    cell: bool | None = None,
) -> Counter[str]:
    """Prove a recurrent layer or a cell: all laws that apply, on fixed cases and on random ones that Hypothesis draws.

    Arguments:
        layer_factory: makes the layer, a `tr.nn.Module`; it is made anew, in float64, for every case.
        examples: random cases; as many as the active Hypothesis profile says unless given; 0: the fixed ones alone.
        input_size: where the layer has no attribute of this name and its weights' shapes do not tell.
        cell: whether it is a cell, where trying does not tell.

    Returns how many cases each law was checked on: one that never applied is not there.

    Raises:
        LawError: an AssertionError whose `law` names the law that is broken, and whose message says at which step,
            sequence and entry; a note shows the smallest case found.
        TypeError: what the factory makes can be called neither as a layer nor as a cell.

    What is expected of a layer:
        `forward(x, hx=None)` returns `output, state`. x is (T, B, I), output (T, B, O); both (B, T, ...) if the layer
        has `batch_first = True`. A state, given and returned alike, is a Tensor or a tuple of Tensors of any shapes,
        one axis of which is the batch. State and weights are all that a layer has: it keeps nothing between calls.
    and of a cell:
        `forward(x, hx=None)` with x (B, I) returns the next state, a Tensor (B, H) or a tuple of those; the first is
        its output. The kit unrolls it.

    Every gradient (parameters, x, initial states) is compared with a numeric derivative, in first and second order,
    and that of x for each step alone, over up to 40 steps. The complex step judges, to 1e-9; where it does not apply
    (abs is not analytic) a difference does, to 1e-5 over a few steps, and over 40 the run in chunks. Runs are compared
    with each other: batches with their sequences alone and in other orders, a run in chunks with the whole, forwards
    and backwards. More is checked of

        a parameter `lengths` of forward   sequences of different lengths, in any order. The output past an end is 0,
                                           the state is each sequence's own last one, and nothing is read past it
        bidirectional = True               halves of the output, weights `X` and `X_reverse`, states (2 * layers, B,
                                           H) as in `tr.nn.RNN`. Causality and chunks do not apply
        fused = True or False              the same with both
        dropout                            drawn from the library's generator, in training mode

    Empty batches and sequences, and x (T, I) without a batch, are checked where the layer takes them.

    >>> from tinygrad_rnn import nn
    >>> laws = check_recurrent(lambda: nn.GRUCell(2, 3), examples=2)
    >>> laws["per-step gradients"] >= 4, laws["lengths"]
    (True, 0)
    """
    try:
        from hypothesis import HealthCheck, Phase, given, settings
    except ImportError as error:
        raise ImportError("check_recurrent draws its cases with Hypothesis: pip install hypothesis") from error
    from tinygrad_rnn.testing.strategies import sequences

    laws: Counter[str] = Counter()

    def prove(case: Sequences) -> None:
        laws.update(check_case(layer_factory, case, input_size=input_size, cell=cell))

    for case in CASES:
        prove(case)
    if examples == 0:
        return laws
    search = settings(
        max_examples=examples or settings().max_examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow],
    )
    search(given(sequences())(prove))()
    return laws
