"""Programs of NumPy: calls on arrays inside of a custom op, or in the step itself."""

from __future__ import annotations

import numpy as np

from tests.compiler.fuzz.changes import Argument, add_argument, array, calls
from tests.compiler.fuzz.program import Drawing, Program

# Lines of an op. {x}, {y} are arrays, {m} is a mask of x's shape, {o} a new array like x, {i} an index along an axis.
LINES = {
    "ufunc": """
{new} = np.{u}({x})
{new} = np.{b}({x}, {y})
{new} = np.{b}({x}, {k})
{new} = np.{b}({k}, {x})
{new} = {x} {s} {y}
{new} = {x} {s} {k}
{new} = {x} ** {e}
{new} = -{x}
{new} = abs({x})
{new} = np.{u}({x}, dtype={t})
{new} = np.add({x}, {y}, dtype={t}, casting='{c}')
{new} = np.heaviside({x}, 0.5)
{new} = np.copysign({x}, {y})
{new} = np.nextafter({x}, {y})
{new} = np.fmod({x}, 1.5)
{new} = np.remainder({x}, 1.5)
{new} = np.floor_divide({x}, 2)
{new} = np.arctan2({x}, {y})
{new} = np.logaddexp({x}, {y})
{new} = np.hypot({x}, {y})
{new} = np.ldexp({x}, 2)
{new} = np.frexp({x})[0]
{new} = np.modf({x})[1]
{new} = np.divmod({x}, 2)[1]
{new} = np.where({m}, {x}, {y})
{new} = np.where({m}, {x}, {k})
{new} = np.where({x} > 0, {x}, 0)
{new} = np.clip({x}, {k}, {y})
{new} = np.clip({x}, -0.5, None)
{new} = np.nan_to_num({x})
{new} = np.round({x}, 1)
{new} = np.isfinite({x}) * 1.0
{new} = np.logical_and({x}, {m}) + 0.0
{new} = np.float32(2) * {x}
{new} = np.float64(2) * {x}
{new} = {x} * True
{new} = np.add({x}, [1.0] * {x}.shape[-1])
""",
    "out": """
{o}; np.{u}({x}, out={new})
{o}; np.{b}({x}, {y}, out={new})
{o}; np.{b}({x}, {y}, {new})
{o}; np.{b}({new}, {x}, out={new})
{o}; np.{b}({x}, {y}, out=({new},))
{new} = np.{u}({x}, out=np.zeros_like({x}), where={m})
{new} = np.{b}({x}, {y}, out=np.ones_like({x}), where={m})
{o}; np.{u}({x}, out={new}, where={m})
{o}; np.{u}({x}, {new}, where={m}); {new} *= 2
{o}; np.{b}({x}, {y}, out={new}, where={x} > {y})
{o}; np.add({x}, {y}, out={new}[...], casting='same_kind')
{o}; np.multiply({x}, 2, out={new}[::-1])
{o}; np.copyto({new}, {x})
{o}; np.copyto({new}, {x}, where={m})
{o}; np.copyto({new}, 0.5, where={m})
{o}; np.copyto({new}[..., :1], 2.0)
{o}; np.sum({x}, axis=0, out={new}[0])
{o}; np.clip({x}, -1, 1, out={new})
{o}; {new}.ndim and np.cumsum({x}, axis=-1, out={new})
{o}; np.matmul({x}, {x}.T @ {x}, out={new})
{o}; np.concatenate([{x}[1:], {x}[:1]], out={new})
{o}; np.take({x}, np.arange({x}.shape[0])[::-1], axis=0, out={new}, mode='{mode}')
{o}; np.negative({x}[::-1], out={new}); {new} = {new}[::-1]
{o}; np.maximum({x}, {y}, out={new}); np.add({new}, {x}, out={new}); np.add({new}, {new}[::-1], out={new})
{new} = np.negative({x}); np.add({new}[1:], {new}[:-1], out={new}[1:])
{new} = np.negative({x}); np.add({new}[:-1], {new}[1:], out={new}[1:])
""",
    "reduce": """
{new} = {x} - np.{r}({x})
{new} = {x} - np.{r}({x}, axis={a})
{new} = {x} * np.{r}({x}, axis={a}, keepdims=True)
{new} = {x} + {x}.{rm}()
{new} = {x} + {x}.{rm}(axis={a}, keepdims=True)
{new} = {x} + {x}.{rm}({a})
{new} = {x} - np.sum({x}, axis={a}, keepdims=True, dtype={t})
{new} = {x} - np.sum({x}, axis={a}, keepdims=True, initial=1.0)
{new} = {x} - np.sum({x}, axis={a}, keepdims=True, where={m})
{new} = {x} - np.max({x}, axis={a}, keepdims=True, initial=-1.0, where={m})
{new} = {x} - np.mean({x}, axis={a}, keepdims=True, dtype={t})
{new} = {x} - np.mean({x}, axis={a}, keepdims=True, where={m})
{new} = {x} - np.add.reduce({x}, axis=0)
{new} = np.add.accumulate({x}, axis={a1})
{new} = np.maximum.accumulate({x})
{new} = np.cumprod({x}, axis={a1})
{new} = np.diff({x}, axis=0, prepend=0)
{new} = {x} * np.ptp({x}, axis=0)
{new} = {x} - np.median({x}, axis=0)
{new} = {x} - np.average({x}, axis=0)
{new} = {x} + np.std({x}, axis=0, ddof=1)
{new} = {x} + np.var({x}, axis={a}, keepdims=True)
{new} = {x} + np.any({x} > 0, axis=0)
{new} = {x} + np.all({x}, axis=0, keepdims=True)
{new} = {x} + np.argmax({x}, axis={a1}, keepdims=True)
{new} = {x} + np.argsort({x}, axis=0)
{new} = {x} + np.count_nonzero({x} > 0, axis=0)
{new} = {x} + np.linalg.norm({x}, axis={a1}, keepdims=True)
{new} = {x} * np.nansum({x}, axis=0)
{new} = {x} + np.add.reduceat({x}, [0, 1], axis=0)[:1]
{new} = {x} + np.multiply.outer({x}[0], {x}[0]).sum()
{new} = {x} + np.quantile({x}, 0.5, axis=0)
{new} = {x} + np.trapezoid({x}, axis=0)
{new} = {x} + np.amax({x}) - np.amin({x})
""",
    "index": """
{new} = {x}[{i}]; {new} = {new} + 0.0
{new} = {x}[{i}] * 2
{new} = {x}[{key}] + 1
{new} = {x}[..., ::-1]
{new} = {x}[::-1] + {x}
{new} = np.take({x}, {i}, axis={a1})
{new} = np.take({x}, {i}, mode='{mode}')
{new} = np.take({x}, [0, 5, -7], axis=0, mode='{wrap}')
{new} = {x}.take({i}, axis=0)
{new} = np.take_along_axis({x}, np.argsort({x}, axis=0), axis=0)
{new} = {x}[np.argsort({x}[:, 0])]
{new} = {x}[np.ix_([0, -1], [0])]
{new} = np.choose({m}.astype(int), [{x}, {y}])
{new} = np.choose([0, 1, 3], [{x}[0], {x}[-1]], mode='{wrap}')
{new} = np.select([{m}, {x} > 1], [{x}, {y}], 0.25)
{new} = np.compress([True, False], {x}, axis=0)
{new} = {x}[np.array([True] + [False] * ({x}.shape[0] - 1))]
{new} = {x}.ravel()[{i}]
{new} = {x}.flat[0] + {x}
{new} = {x}[{x} > 0].sum() + {x}
{new} = np.diagonal({x}) * 2
{new} = np.searchsorted(np.sort({x}[:, 0]), {y}[:, 0]) + {x}[:, 0]
{new} = np.interp({x}, [-1.0, 0.0, 1.0], [0.0, 2.0, 3.0])
{new} = np.digitize({x}, [-0.5, 0.0, 0.5]) + {x}
{new} = np.bincount({m}.ravel().astype(int), minlength=3) * 1.0
{new} = np.triu({x}, 1)
{new} = {x}[0]; {new} = {new} * {x}
""",
    "write": """
{new} = {x} * 1; {new}[{key}] = {k}
{new} = {x} * 1; {new}[{key}] += {k}
{new} = {x} * 1; {new}[{i}] += {y}[0]
{new} = {x} * 1; {new}[{i}] = {y}[-1]
{new} = {x} * 1; {new}[{m}] = {k}
{new} = {x} * 1; {new}[{m}] *= 2
{new} = {x} * 1; {new} {s}= {y}
{new} = {x} * 1; {new}[1:] = {new}[:-1]
{new} = {x} * 1; {new}[:-1] = {new}[1:]
{new} = {x} * 1; {new}[...] = {new}[::-1]
{new} = {x} * 1; {new}[::-1] += {new}
{new} = {x} * 1; {new}[:, ::-1][0] = 7
{new} = {x} * 1; {new}.T[0] = 3
{new} = {x} * 1; {new}.reshape(-1)[1:3] = 9
{new} = {x} * 1; {new}.ravel()[0] = 5
{new} = {x} * 1; np.add.at({new}, {i}, 1.5)
{new} = {x} * 1; np.add.at({new}, [0, 0, -1], {y}[:1])
{new} = {x} * 1; np.multiply.at({new}, [0, 0], 2)
{new} = {x} * 1; np.put({new}, [0, -1, 0], [5.0, 6.0])
{new} = {x} * 1; np.put({new}, [0, 99], 1.0, mode='{wrap}')
{new} = {x} * 1; np.putmask({new}, {m}, {y})
{new} = {x} * 1; np.place({new}, {m}, [1.0, 2.0])
{new} = {x} * 1; np.fill_diagonal({new}, 2)
{new} = {x} * 1; np.put_along_axis({new}, np.zeros((1, {new}.shape[1]), int), 4, axis=0)
{new} = {x} * 1; {new}.fill({k})
{new} = {x} * 1; {new}.sort(axis=0)
{new} = {x} * 1; {new}.partition(1, axis=0)
{new} = {x} * 1; {new}.put([0], 2.0)
{new} = {x} * 1; {new}.flat[1] = 3
{new} = {x} * 1; {new}.flat = 3
{new} = {x} * 1; {new}.itemset = None
{new} = {x} * 1; np.nan_to_num({new}, copy=False)
{new} = {x} * 1; w_ = {new}[0]; w_ += 1
{new} = {x} * 1; w_ = {new}[0, 0]; w_ += 1; {new} = {new} + w_
{new} = {x} * 1; m_ = {new}.mean(); d_ = m_; d_ -= 1; {new} = {new} - m_
{new} = {x} * 1; d_ = {new}; d_ -= 1; {new} = {new} * d_
{new} = {x}[0] * 1; {new} = sum([v for v in {new}]) + {new}
{new} = np.zeros_like({x}); {new}[{i}] = {x}[{i}]; {new}[0] = {x}[-1]
{new} = np.empty({x}.shape, {x}.dtype); {new}[...] = {x}; {new}[:1] = 0
{new} = np.zeros({x}.shape, {x}.dtype); {new} += {x}; {new} += {x}
{new} = np.full_like({x}, 2); {new}[::2] -= {x}[::2]
{new} = np.zeros_like({x}); {new}[:1] = {x}[:1]; {new}[1:] = {x}[1:]; {new} = np.concatenate([{new}[:1], {new}[1:]])
""",
    "shape": """
{new} = {x}.T * 1
{new} = {x}.T
{new} = {x}.reshape(-1)
{new} = np.reshape({x}, -1, order='F')
{new} = {x}.T.reshape({x}.shape)
{new} = {x}.ravel('F')
{new} = {x}.ravel('K') * 2
{new} = {x}.flatten()
{new} = {x}.flatten('F')
{new} = {x}.copy(order='F')
{new} = {x}.astype({t})
{new} = {x}.astype({t}, order='F')
{new} = {x}.astype(np.int32)
{new} = {x}.astype({x}.dtype, copy=False)
{new} = np.asfortranarray({x})
{new} = np.ascontiguousarray({x}.T)
{new} = np.asarray({x})
{new} = np.array({x})
{new} = np.atleast_2d({x})
{new} = np.expand_dims({x}, 0)
{new} = np.swapaxes({x}, 0, 1)
{new} = np.moveaxis({x}, 0, -1)
{new} = np.rollaxis({x}, 1)
{new} = np.broadcast_to({x}, (2, *{x}.shape))
{new} = np.broadcast_arrays({x}, {k})[1] + {x}
{new} = np.roll({x}, 1, axis={a1})
{new} = np.flip({x}, axis=0)
{new} = np.rot90({x})
{new} = np.tile({x}, 2)
{new} = np.repeat({x}, 2, axis=0)
{new} = np.repeat({x}, [1] * {x}.shape[0], axis=0)
{new} = np.pad({x}, 1, mode='{pad}')
{new} = np.concatenate([{x}, {y}], axis=0)
{new} = np.concatenate([{x}[:1], {x}[1:]]) * 2
{new} = np.concatenate([{x}, {y}], axis=None)
{new} = np.stack([{x}, {y}], axis={a1})
{new} = np.vstack([{x}, {y}])
{new} = np.hstack([{x}[:1], {x}[:1]])
{new} = np.column_stack([{x}[:, 0], {x}[:, 0]])
{new} = np.block([[{x}, {x}]])
{new} = np.split({x}, [1], axis=0)[1]
{new} = np.array_split({x}, 2)[0]
{new} = np.sort({x}, axis={a1})
{new} = np.sort({x}, axis=None)
{new} = np.partition({x}, 1, axis=0)
{new} = np.unique({x}).sum() + {x}
{new} = np.squeeze({x}[:1])
{new} = np.insert({x}, 0, 1.0, axis=0)
{new} = np.append({x}, {y})
{new} = np.delete({x}, 0, axis=0)
{new} = {x}.view('{view}')
{new} = {x}.view()
{new} = np.diag({x}[0])
{new} = np.tri(2) @ {x}[:2]
""",
    "product": """
{new} = {x} @ {y}.T
{new} = {x}.T @ {y}
{new} = np.dot({x}, {y}.T)
{new} = {x}.dot({y}.T)
{new} = np.matmul({x}, {x}.T)
{new} = np.inner({x}, {y})
{new} = np.outer({x}, {y}[0])
{new} = np.vdot({x}, {y}) + {x}
{new} = np.tensordot({x}, {y}, axes=([1], [1]))
{new} = np.einsum('ij,kj->ik', {x}, {y})
{new} = np.einsum('ij->j', {x})
{new} = np.einsum('ij->ji', {x})
{new} = np.einsum('ij,ij->i', {x}, {y}, optimize=True)
{new} = np.kron({x}[:1], {y}[:1])
{new} = np.trace({x}) + {x}
{new} = np.cross({x}[:, :2], {y}[:, :2])
{new} = np.convolve({x}[0], {y}[0], mode='same')
{new} = np.correlate({x}[0], {y}[0])
{new} = np.linalg.inv({x} @ {x}.T + 3 * np.eye({x}.shape[0]))
{new} = np.linalg.solve({x} @ {x}.T + 3 * np.eye({x}.shape[0]), {y})
{new} = np.polyval([1.0, 2.0], {x})
""",
    "asks": """
{new} = {x} * 2 if isinstance({x}, np.ndarray) else {x} * 3
{new} = {x} * 2 if np.isscalar({x}.sum()) else {x} * 3
{new} = {x} * {x}.shape[0] + {x}.ndim + {x}.size
{new} = {x} * {x}.itemsize
{new} = {x} * {x}.strides[0]
{new} = {x} * (2 if {x}.flags.c_contiguous else 3)
{new} = {x} * (2 if {x}.flags.writeable else 3)
{new} = {x} * (2 if {x}.base is None else 3)
{new} = {x} * (2 if {x}.dtype == np.float32 else 3)
{new} = {x} * (2 if hasattr({x}, 'base') else 3)
{new} = {x} * len({x})
{new} = {x} * np.shape({x})[0] * np.ndim({x})
{new} = {x}.astype(np.result_type({x}, np.float64))
{new} = {x} * np.finfo({x}.dtype).eps
{new} = {x} * (2 if np.may_share_memory({x}, {y}) else 3)
{new} = {x} * (2 if np.array_equal({x}, {y}) else 3)
{new} = {x} * (2 if np.allclose({x}, {x}) else 3)
{new} = {x} * (2 if {x}.sum() > 0 else 3)
{new} = {x} * float({x}[0, 0])
{new} = {x} * {x}.item(0)
{new} = {x} * {x}.tolist()[0][0]
{new} = {x} * {x}.max().item()
{new} = np.vectorize(lambda v: v * 2)({x})
{new} = np.apply_along_axis(np.sum, 0, {x}) + {x}
{new} = np.array([v * 2 for v in {x}])
{new} = np.array([float(v) for v in {x}[0]])
{new} = sum({x}) + max(1, len({x}))
{new} = np.fromiter((v for v in {x}[0]), float)
{new} = {x} * (3 if 0.0 in {x} else 2)
{new} = {x}.__array__() * 2
{new} = np.ones({x}.shape, {x}.dtype) * {x}
{new} = np.linspace(0, 1, {x}.shape[-1]) * {x}
{new} = np.random.default_rng(3).random({x}.shape) * {x}
{new} = np.arange({x}.shape[-1]) * {x}
{new} = np.eye({x}.shape[-1])[0] * {x}
{new} = np.identity({x}.shape[1])[:1] + {x}
{new} = {x} + np.zeros(1); {new} = {new} + 0 * {new}
{new} = {x} * (2 if callable(getattr({x}, 'mean', None)) else 3)
{new} = {x}.real + np.imag({x})
{new} = {x}.conj()
{new} = np.ma.masked_less({x}, 0).filled(9.0)
{new} = np.ascontiguousarray({x}).view(np.ndarray) * 1
""",
}
GROUPS = [g for g in LINES for _ in range(1 if g == "asks" else 3)]
UFUNCS = [
    "exp",
    "log",
    "sqrt",
    "square",
    "tanh",
    "sin",
    "negative",
    "abs",
    "sign",
    "floor",
    "ceil",
    "rint",
    "reciprocal",
    "cbrt",
    "log1p",
    "expm1",
    "isnan",
    "signbit",
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "maximum",
    "minimum",
    "power",
    "fmax",
    "fmin",
    "greater",
    "less_equal",
]
REDUCE = ["sum", "mean", "max", "min", "prod", "std", "var"]


def draw_arrays(seed: int) -> Program:
    """A step with a custom op whose forward is lines of NumPy, or with such lines on arrays that it is given."""
    w = Drawing(seed, "arrays")
    d = w.d
    w.args = []  # type: ignore[attr-defined]
    shape = d.one([(2, 3), (3, 3), (3, 2), (2, 2), (4, 3), (1, 3), (3, 9)])
    inside = d.chance(0.75)  # of an op
    for k in range(d.number(1, 2)):
        if inside:
            fresh = lambda: f"tr.Tensor({array(w, shape)})"
            kind = "tensor"
            if k and d.chance(0.3):
                fresh, kind = (lambda: f"tr.Tensor(normal{shape}, requires_grad=True)"), "leaf"
        else:
            fresh, kind = (lambda: array(w, shape)), "array"
        a, x = w.name("a"), w.name("x")
        add_argument(w, Argument(a, x, kind, fresh, a))
    w.program.parameters = ", ".join(a.parameter for a in w.args)  # type: ignore[attr-defined]
    if d.chance(0.2) and d.may("outside array"):
        w.state("array", lambda: f"normal{shape}", "b")
    if inside:
        in_an_op(w, shape)
    else:
        in_the_step(w)
    calls(w)
    return w.program


def in_the_step(w: Drawing) -> None:
    pool = [a.parameter for a in w.args] + [s.text for s in w.states]  # type: ignore[attr-defined]
    if w.d.may("array arguments written", 0.2):
        x = w.d.one(pool)
        w.line(
            w.d.one(
                [f"{x} += 1", f"{x}[...] = {x} * 2", f"np.negative({x}, out={x})", f"{x}[0] = 0", f"{x}[::-1] *= 2"]
            )
        )
    lines = numpy_lines(w, pool, w.d.number(1, 5))
    for line in lines:
        w.program.body.append(line)
    some = list(dict.fromkeys(w.d.one(pool[-3:]) for _ in range(2)))
    w.program.body.append(f"return {', '.join(own_memory(w, x) for x in some)}")


def own_memory(w: Drawing, x: str) -> str:
    """An array as it is returned: views of arguments are copied by a replay, whatever a plain call does."""
    given = [w.value(a.parameter) for a in w.args] + [w.value(s.text) for s in w.states]  # type: ignore[attr-defined]
    value = w.value(x)
    view = any(value is not g and np.may_share_memory(value, g) for g in given)
    locked = isinstance(value, np.ndarray) and not value.flags.writeable  # of which a replay gives a copy that is not
    return f"{x}.copy(order='K')" if view or locked else x


def in_an_op(w: Drawing, shape: tuple[int, ...]) -> None:
    """`core`, an op, in the setup, and a step that calls it."""
    d = w.d
    names = [a.parameter for a in w.args]  # type: ignore[attr-defined]
    for n in names:
        w.names[n] = w.names[n].numpy().copy()
        w.names[n].flags.writeable = False
    pool = [*names, *(s.text for s in w.states)]
    lines = numpy_lines(w, pool, d.number(1, 6))
    result = d.one(pool[-2:])
    y = w.value(result)
    if not hasattr(y, "shape") or y.dtype.kind == "c":
        result, y = names[0], w.value(names[0])
    whole = (
        f"np.sum({result}) + {names[0]}"
        if d.chance(0.3)
        else f"{result} * 1"
        if result in names or d.chance(0.5)
        else result
    )
    if any(
        np.may_share_memory(w.value(whole), w.value(p.text)) for p in w.states
    ):  # a result is a copy, whatever it was
        whole = f"{result} * 1"
    vjps = ", ".join(f"lambda g, {n}: tr.sum(g) * {n}" for n in names)
    body = "\n".join(f"    {part}" for line in lines for part in line.split("; "))
    w.setup(f"@tr.op({vjps})\ndef core({', '.join(names)}):\n{body}\n    return {whole}")
    w.program.body.append(f"y = core({', '.join(names)})")
    leaves = [a.parameter for a in w.args if a.kind == "leaf"]  # type: ignore[attr-defined]
    floats = y.dtype.kind == "f"
    if leaves and floats:
        w.program.body += ["(y * y).sum().backward()", f"return y.detach(), {leaves[0]}.grad"]
    else:
        w.program.body.append(d.one(["return y.detach()", "z = y * 2\nreturn z.detach(), y.detach()"]))


def numpy_lines(w: Drawing, pool: list[str], count: int) -> list[str]:
    """Lines that run on the arrays of a pool, which grows."""
    d = w.d
    found: list[str] = []
    for _ in range(40):
        if len(found) == count:
            break
        group = d.one(GROUPS)
        text = d.one(LINES[group].strip().split("\n"))
        new = w.name("v")
        line = filled(w, text, pool, new)
        before = {n: w.names[n] for n in pool if n in w.names}
        if not w.run("\n".join(line.split("; "))):
            w.names.update(before)
            continue
        made = w.names.get(new)
        if not hasattr(made, "shape") or made.size > 300 or made.dtype.kind not in "fib":
            continue
        if not d.may(f"NumPy: {text}"):
            continue
        pool.append(new)
        found.append(line)
    return found


def filled(w: Drawing, text: str, pool: list[str], new: str) -> str:
    """A template with arrays of the pool in it."""
    d = w.d
    x = d.one(pool[-2:] + pool)
    same = [p for p in pool if getattr(w.value(p), "shape", None) == w.value(x).shape]
    y = d.one(same)
    mask = d.one(
        [f"({x} > 0)", f"({x} > 0)", f"({y} < 0.5)", f"(np.arange({x}.size).reshape({x}.shape) % 2 == 0)", "True"]
    )
    fresh = [f"{new} = np.zeros_like({x})", f"{new} = np.empty_like({x})", f"{new} = {x} * 2"] * 4
    out = d.one([*fresh, f"{new} = np.ones({x}.shape, {x}.dtype)", f"{new} = np.zeros({x}.shape)"])
    if "empty" in out and any(part in text for part in ("where=", "{new}[", "({new}")):  # which may leave garbage
        out = f"{new} = np.full_like({x}, 3)"
    return text.format(
        new=new,
        x=x,
        y=y,
        m=mask,
        o=out,
        u=d.one(UFUNCS),
        b=d.one(BINARY),
        s=d.one("+-*/"),
        r=d.one(REDUCE),
        rm=d.one(REDUCE),
        k=d.one(["2", "0.5", "-0.0", "0.0", "1", "True", "-1.5", "np.float32(0.5)"]),
        e=d.one(["2", "0.5", "3", "-1", "2.0", "1"]),
        t=d.one(["np.float32", "np.float64", "'float16'"]),
        c=d.one(["same_kind", "unsafe", "safe"]),
        a=d.one(["0", "1", "-1", "None", "(0, 1)"]),
        a1=d.one(["0", "1", "-1"]),
        i=d.one(
            ["[0, -1, 0]", "np.array([1, 0, 1])", "[-1]", "np.array([[0], [1]])", "slice(None, None, -1)", "0", "-1"]
        ),
        key=d.one(
            [
                "0",
                "..., 0",
                "1:",
                "::2",
                ":, 1:",
                "-1",
                "::-1",
                "[0, 0], [1, -1]",
                "None",
                ":1, ::-1",
                "..., [0]",
                "0, 0",
                "True",
                "(0, -1),",
                "range(2)",
                "np.int64(-1), None",
            ]
        ),
        mode=d.one(["raise", "clip", "wrap"]),
        wrap=d.one(["clip", "wrap"]),
        pad=d.one(["edge", "constant", "reflect", "wrap"]),
        view=d.one(["int32", "uint8", "float32"]),
    )
