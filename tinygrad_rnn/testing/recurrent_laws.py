"""The laws of recurrent layers that compare runs: one batch in parts, in other orders, of other lengths, in other ways.

Each is asked about a `RecurrentExample`; the laws of its derivatives are in `recurrent_gradients`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.fused import enable_fused, fused_enabled
from tinygrad_rnn.tensor.random import own_generator
from tinygrad_rnn.testing.calls import Array, variable
from tinygrad_rnn.testing.errors import Broken
from tinygrad_rnn.testing.judge import law
from tinygrad_rnn.testing.numeric import EPS
from tinygrad_rnn.testing.runs import RecurrentExample
from tinygrad_rnn.testing.subject import SHORT, Given, Run, named_values, state_parts

FEW = 4  # so many parameters are frozen alone
FLOAT32_RTOL = 1e-4  # of an array's largest entry, over at most SHORT steps


@law("shape")
def shape(example: RecurrentExample) -> bool:
    """Shapes of outputs, states and gradients."""
    T, B = example.case.T, example.case.B
    expected = [(T, B, example.subject.width), *example.subject.shapes_for(B)]
    for (name, value), shape in zip(example.base.values.items(), expected, strict=True):
        if value.shape != shape:
            raise Broken(f"{name} has shape {value.shape}, not {shape}")
    return True


@law("dtype")
def dtype(example: RecurrentExample) -> bool:
    """float64 stays float64."""
    whole = {f"state {i}": s.dtype for i, s in enumerate(state_parts(example.subject.state)) if s.dtype.kind in "iub"}
    for name, value in (example.base.values | example.base.gradients).items():
        if value.dtype != whole.get(name, np.float64):
            raise Broken(f"{name} of a float64 layer is {value.dtype}")
    return True


@law("repeats")
def repeats(example: RecurrentExample) -> bool:
    """Called again, a layer gives the same: it is a function of what it is given."""
    again = example.subject.run(example.given)
    for name, value in (example.base.values | example.base.gradients).items():
        other = (again.values | again.gradients)[name]
        if not np.array_equal(value, other, equal_nan=True):
            raise Broken(
                f"{name} differs when the layer is called again with the same input in eval mode: "
                "is a state kept between calls, or something drawn?",
            )
    return True


@law("no aliasing")
def no_aliasing(example: RecurrentExample) -> bool:
    """What a layer returned does not change when it is called again."""
    before = {name: value.copy() for name, value in example.base.values.items()}
    example.subject.run(replace(example.given, x=example.given.x + 1))
    for name, value in example.base.values.items():
        if not np.array_equal(value, before[name], equal_nan=True):
            raise Broken(f"{name} of a run changes when the layer is called again")
    return True


@law("no mutation")
def no_mutation(example: RecurrentExample) -> bool:
    """Inputs, states, cotangents and parameters are read-only in every run; here they are compared, too."""
    arrays = example.subject.arrays(example.given)
    before = [a.copy() for a in arrays]
    example.subject.run(example.given)
    for name, array, was in zip(example.subject.names(example.given), arrays, before, strict=True):
        if not np.array_equal(array, was):
            raise Broken(f"{name} changes when the layer is called")
    return True


@law("zero")
def zero(example: RecurrentExample) -> bool:
    """A cotangent of 0 gives gradients of exactly 0."""
    run = example.subject.run(replace(example.given, u=[0 * v for v in example.given.u]))
    for name, g in run.gradients.items():
        if np.any(g != 0):
            raise Broken(f"the gradient of {name} is not 0 for a cotangent of 0")
    return True


@law("causality")
def causality(example: RecurrentExample) -> bool:
    """Outputs before a step do not depend on it, and give it a gradient of exactly 0."""
    if example.subject.bidirectional or example.case.T < 2 or example.given.lengths:
        return False
    t = int(example.rng.integers(1, example.case.T))
    x = example.given.x.copy()
    x[t:] += 1 + example.rng.random(x[t:].shape)
    before, *states = example.given.u
    u = [np.concatenate([before[:t] + 1, 0 * before[t:]]), *(0 * v for v in states)]
    output = example.subject.run(replace(example.given, x=x)).values["output"]
    example.same(f"after a change of x from step {t} on", "output", output[:t], np.s_[:t])
    g = example.subject.run(replace(example.given, u=u)).gradients["x"]
    if np.any(g[t:] != 0):
        at = t + int(np.argwhere(g[t:] != 0)[0][0])
        raise Broken(f"outputs before step {t} give x at step {at} a gradient of {g[at].ravel()}")
    return True


@law("batch permutation")
def batch_permutation(example: RecurrentExample) -> bool:
    """The order of the sequences is free."""
    B = example.case.B
    if B < 2:
        return False
    order = np.roll(example.rng.permutation(B), 1)
    order = order[::-1] if np.array_equal(order, np.arange(B)) else order
    back = np.argsort(order)
    run = example.subject.run(example.part(np.s_[:], order, lengths=True))
    example.all_same(f"the sequences in the order {order.tolist()}", _rows(example, run, back))
    return True


def _rows(example: RecurrentExample, run: Run, rows: Any) -> Run:
    """A run with its sequences in another order."""
    take, n = example.subject.take, len(example.base.values) - 1
    states = [run.values[f"state {i}"] for i in range(n)]
    values = {"output": run.values["output"][:, rows]}
    values |= {f"state {i}": s for i, s in enumerate(take(states, rows))}
    gradients = run.gradients | {"x": run.gradients["x"][:, rows]}
    if "hx 0" in gradients:
        hx = [run.gradients[f"hx {i}"] for i in range(n)]
        gradients |= {f"hx {i}": s for i, s in enumerate(take(hx, rows))}
    return Run(values, gradients)


def _one_by_one(example: RecurrentExample, how: str, ends: Sequence[int], lengths: bool) -> None:
    """The batch against its sequences run alone, each up to its end: rows equal, parameters' gradients the sum."""
    total: dict[str, Array] = {}
    for b, n in enumerate(ends):
        run = example.subject.run(example.part(np.s_[:n], [b], lengths))
        arrays = run.values | run.gradients
        here = f"{how} (sequence {b})"
        for name, array in arrays.items():
            if name in ("output", "x"):
                example.same(here, name, array, np.s_[:n, b : b + 1])
            elif name.startswith(("state ", "hx ")):
                axis = example.subject.batch_axes[int(name.split()[1])]
                if axis is None:  # steps that are counted for all: not those of this sequence
                    continue
                example.same(here, name, array, (slice(None),) * axis + (slice(b, b + 1),))
            else:
                total[name] = total.get(name, 0) + array
    for name, array in total.items():
        example.same(f"{how} (sum of all)", name, array)


@law("batch of singles")
def batch_of_singles(example: RecurrentExample) -> bool:
    """A batch is its sequences run one by one."""
    if example.case.B < 2:
        return False
    how = "the sequences run one by one"
    _one_by_one(example, how, [example.case.T] * example.case.B, lengths=True)
    return True


@law("lengths")
def lengths(example: RecurrentExample) -> bool:
    """With lengths, a batch is its sequences cut to their lengths and run one by one, without lengths."""
    if not example.given.lengths:
        return False
    how = f"of lengths {example.given.lengths}, the sequences cut to them and run one by one"
    _one_by_one(example, how, example.given.lengths, lengths=False)
    return True


@law("padding")
def padding(example: RecurrentExample) -> bool:
    """Past the end of a sequence nothing is read, the output is 0 and so is the gradient of x."""
    lengths = example.given.lengths
    if not lengths or min(lengths) == example.case.T:
        return False
    x, u = example.given.x.copy(), example.given.u[0].copy()
    for b, n in enumerate(lengths):
        x[n:, b], u[n:, b] = np.nan, 1 + example.rng.random(u[n:, b].shape)
    run = example.subject.run(replace(example.given, x=x))
    example.all_same(f"with NaN past the lengths {lengths}", run)
    run = example.subject.run(replace(example.given, x=x, u=[u, *example.given.u[1:]]))
    example.all_same(f"with a cotangent for the output past the lengths {lengths}", run)
    for name, array in (("output", run.values["output"]), ("the gradient of x", run.gradients["x"])):
        for b, n in enumerate(lengths):
            if np.any(array[n:, b] != 0):
                t = n + int(np.argwhere(array[n:, b] != 0)[0][0])
                raise Broken(
                    f"{name} at step {t} of sequence {b}, whose length is {n}, is {array[t, b]}, not 0",
                )
    return True


@law("chunking")
def chunking(example: RecurrentExample) -> bool:
    """A run in two chunks, the second from the state that the first has ended with, is one run."""
    T, g, subject = example.case.T, example.given, example.subject
    if not subject.carries or T < 2 or g.lengths:
        return False
    t = int(example.rng.integers(1, T))
    x, hx = variable(g.x), None if g.hx is None else subject.tensors(g.hx)
    first, state = subject.forward(x[:t], hx, None)
    second, state = subject.forward(x[t:], state, None)
    output = ops.concatenate([first, second])
    leaves = {"x": x, **{f"hx {i}": h for i, h in enumerate(hx or ())}, **subject.parameters}
    run = Run(named_values(output, state), subject.pull([output, *state], g.u, leaves))
    example.all_same(f"in chunks of {t} and {T - t} steps, the state carried over", run)
    return True


@law("truncation")
def truncation(example: RecurrentExample) -> bool:
    """Backwards chunk by chunk, each handing the gradient of its first state to the chunk before, is the backward
    of all: what `tbptt(k1, k2)` does, where k2 >= T makes it full back-propagation through time.
    """
    T, g, subject = example.case.T, example.given, example.subject
    if not subject.carries or T < 1 or g.lengths:
        return False
    k = int(example.rng.integers(1, T + 1))
    state, chunks = g.hx, []
    for t in range(0, T, k):
        leaves = {"x": variable(g.x[t : t + k])}
        leaves |= {f"hx {i}": s for i, s in enumerate(subject.tensors(state or ()))}
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
        example.same(f"backwards in chunks of {k} steps", name, array)
    return True


@law("reversal")
def reversal(example: RecurrentExample) -> bool:
    """With the weights of both directions exchanged, the sequences backwards give the outputs backwards, with the
    directions' halves exchanged. The names of a direction's weights tell: `X` and `X_reverse`.
    """
    subject, given = example.subject, example.given
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

    if any(shape[0] % 2 for shape in subject.shapes_for(example.case.B)):
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
        example.same("the sequences backwards, the two directions' weights exchanged", name, array)
    return True


@law("frozen")
def frozen(example: RecurrentExample) -> bool:
    """What requires no gradient takes none from the others: each parameter frozen alone, all, and x and the states."""
    subject, few = example.subject, list(example.rng.permutation(list(example.subject.parameters)))[:FEW]
    if example.case.T > SHORT:
        return False
    few = few[: 2 if example.case.T > 2 else FEW]
    for frozen in [*({str(name)} for name in few), set(subject.parameters), {"x"}, {"hx"}]:
        if not frozen or (frozen == {"hx"} and example.given.hx is None):
            continue
        for name in frozen & set(subject.parameters):
            subject.parameters[name].requires_grad = False
        try:
            run = subject.run(example.given, constants=frozen)
        finally:
            for name in frozen & set(subject.parameters):
                subject.parameters[name].requires_grad = True
        told = "x" if frozen == {"x"} else "hx" if frozen == {"hx"} else ", ".join(sorted(frozen))
        for name, g in run.gradients.items():
            if name not in frozen and name.split()[0] not in frozen:
                example.same(f"where {told} requires no gradient", name, g)
    return True


@law("modes")
def modes(example: RecurrentExample) -> bool:
    """Training mode, where it gives the same values as eval mode, has the same gradients."""
    subject = example.subject
    subject.layer.train()
    try:
        with own_generator(np.random.default_rng(example.case.seed).bit_generator.state):
            run = subject.run(example.given)
    finally:
        subject.layer.eval()
    if not all(np.array_equal(y, run.values[name]) for name, y in example.base.values.items()):
        return False  # something is drawn: the law of dropout is asked
    example.all_same("in training mode, whose values are the same", run)
    return True


@law("fused = plain")
def fused(example: RecurrentExample) -> bool:
    """Kernels and the plain graph give the same."""
    modules: list[Any] = [m for m in example.subject.layer.modules() if isinstance(getattr(m, "fused", None), bool)]
    if not modules:
        return False
    before = [m.fused for m in modules]
    try:
        for on in (True, False):
            for m in modules:
                m.fused = on
            example.all_same(f"with fused={on}", example.subject.run(example.given))
    finally:
        for m, on in zip(modules, before, strict=True):
            m.fused = on
    was = fused_enabled()
    enable_fused(False)
    try:
        example.all_same("with enable_fused(False)", example.subject.run(example.given))
    finally:
        enable_fused(was)
    return True


@law("unbatched")
def unbatched(example: RecurrentExample) -> bool:
    """One sequence without a batch axis is a batch of one, where a layer takes that."""
    subject, T = example.subject, example.case.T
    given = example.part(np.s_[:], [0])
    axes = [axis for axis in subject.batch_axes if axis is not None]
    if example.given.lengths or len(axes) < len(subject.batch_axes):
        return False

    def squeezed(arrays: Sequence[Array]) -> list[Array]:
        return [np.squeeze(a, axis) for a, axis in zip(arrays, axes, strict=True)]

    x, hx = variable(given.x[:, 0]), None if given.hx is None else subject.tensors(squeezed(given.hx))
    time_major = copy(subject)
    time_major.batch_first = False  # a sequence has no axes to swap
    try:
        output, states = time_major.forward(x, hx, None)
    except Exception:  # noqa: BLE001  (it does not take that)
        return False
    shapes = [np.squeeze(np.empty(s), a).shape for s, a in zip(subject.shapes_for(1), axes, strict=True)]
    if [output.shape, *(s.shape for s in states)] != [(T, subject.width), *shapes]:
        return False  # it takes such arrays for something else
    leaves = {"x": x, **{f"hx {i}": h for i, h in enumerate(hx or ())}}
    found = subject.pull([output, *states], [given.u[0][:, 0], *squeezed(given.u[1:])], leaves)
    how = "without a batch axis"
    example.same(how, "output", output._array[:, None], np.s_[:, :1])
    example.same(how, "x", found["x"][:, None], np.s_[:, :1])
    for i, axis in enumerate(axes):
        at = (slice(None),) * axis + (slice(0, 1),)
        example.same(how, f"state {i}", np.expand_dims(states[i]._array, axis), at)
        if hx:
            example.same(how, f"hx {i}", np.expand_dims(found[f"hx {i}"], axis), at)
    return True


@law("float32")
def float32(example: RecurrentExample) -> bool:
    """A float32 layer gives float32, near what float64 gives."""
    subject, g = example.subject, example.given
    if example.case.T > SHORT:
        return False

    def small(arrays: Sequence[Array]) -> list[Array]:
        return [a.astype("float32") if a.dtype.kind == "f" else a for a in arrays]

    run = subject.in_float32().run(Given(small([g.x])[0], None if g.hx is None else small(g.hx), g.lengths, small(g.u)))
    for name, array in (run.values | run.gradients).items():
        expected = (example.base.values | example.base.gradients)[name]
        if array.dtype != (np.float32 if expected.dtype.kind == "f" else expected.dtype):
            raise Broken(f"{name} of a float32 layer is {array.dtype}", "dtype")
        error, size = (
            np.max(abs(np.subtract(array, expected, dtype=float)), initial=0),
            np.max(abs(expected), initial=0),
        )
        if error <= FLOAT32_RTOL * size:
            continue
        rounding = 16 * np.finfo(np.float32).eps / EPS * np.max(example.noise[name], initial=0)
        if not error <= FLOAT32_RTOL * size + rounding:
            raise Broken(f"{name} in float32 is {error:.3g} off, its largest entry in float64 {size:.3g}")
    return True


@law("empty")
def empty(example: RecurrentExample) -> bool:
    """No steps: an empty output, and the state that went in. No sequences: no gradient at all."""
    g, (T, B) = example.given, (example.case.T, example.case.B)
    if example.subject.cell and not T:
        return False
    try:
        example.base  # noqa: B018  (it runs the layer)
    except Exception:  # noqa: BLE001  (it does not take that)
        return False
    shape.asked(example)
    exact = {name: np.zeros(p.shape) for name, p in example.subject.parameters.items()}
    found = dict(example.base.gradients)
    if g.hx is not None and not T:
        exact |= {f"state {i}": h for i, h in enumerate(g.hx)}
        exact |= {f"hx {i}": v for i, v in enumerate(g.u[1:])}
        found |= example.base.values
    for name, value in exact.items():
        if not np.array_equal(found[name], value):
            what = "state" if name.startswith("state") else "gradient"
            raise Broken(f"T = {T}, B = {B}: the {what} of {name} is not what went in, or 0")
    return True
