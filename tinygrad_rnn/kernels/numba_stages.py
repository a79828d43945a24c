"""The pointwise stages of a training step, compiled by numba: one pass over memory each.

Imported by `enable_numba` only, since numba takes a while to import. Each stage does what its caller does with a dozen
NumPy calls, for C-contiguous arrays of float32 or float64: the recurrent kernels, the gradient of an embedding in
`backend.scatter_add`, and `optim.Adam`. Tests tie the two together. What numba has compiled is kept on disk (beside
this file, or where NUMBA_CACHE_DIR says), so a machine compiles once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from tinygrad_rnn.kernels.machine import FLOATS, at, loops
from tinygrad_rnn.kernels.numba_products import FAST, pack, pack_loop, product, product_loop, width_of  # noqa: F401
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import effects


def stage(
    *, writes: Sequence[str] = (), updates: Sequence[str] = (), last_rows: Mapping[str, int] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function of arrays by numba, with its `effects`: what it writes, what it updates; all else it reads."""

    def compiled(f: Callable[..., None]) -> Callable[..., None]:
        declared = effects(writes=writes, updates=updates, last_rows=last_rows)(f)
        return njit(cache=True, error_model="numpy", nogil=True)(declared)  # type: ignore[no-any-return]

    return compiled


# tanh(x) = x P(x²) / Q(x²) for |x| <= 7.9, beyond which float32 has no number between tanh and 1. The coefficients are
# those of `python -m benchmarks.tanh_fit`; their relative error, 2e-8, is below float32's rounding.
LIMIT = 7.9
P = (9.999999833e-01, 1.298492617e-01, 2.992114564e-03, 9.939340181e-06, -1.490667952e-08, 2.410625383e-11)
Q = (1.0, 4.631824413e-01, 2.405316567e-02, 2.380892116e-04)


@intrinsic
def _fused(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c of float32, rounded once where the processor can."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.f32"), given)

    return types.float32(*[types.float32] * 3), build


def tanh(x: Any) -> Any:
    """tanh of a number inside of a stage: of float32 by a fraction, which the compiler can vectorise."""
    raise NotImplementedError


@overload(tanh, inline="always", strict=False)
def _tanh_of(x: Any) -> Any:
    if x is not types.float32:
        return lambda x: math.tanh(x)
    top = np.float32(LIMIT)
    p0, p1, p2, p3, p4, p5 = (np.float32(c) for c in P)
    q0, q1, q2, q3 = (np.float32(c) for c in Q)

    def fraction(x: Any) -> Any:
        v = min(max(x, -top), top)
        s = v * v
        above = _fused(_fused(_fused(_fused(_fused(p5, s, p4), s, p3), s, p2), s, p1), s, p0)
        return v * above / _fused(_fused(_fused(q3, s, q2), s, q1), s, q0)

    return fraction


# exp(x) = 2ⁿ exp(r), with n the nearest integer to x / log 2 and r what is left, |r| <= 0.35, by the coefficients of
# S. Moshier's Cephes (expf), within 2 units in the last place. The compiler can vectorise it, but not a call of exp.
LOG2E, LOG2_HIGH, LOG2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
EXP = (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
SHIFT = 12582912.0  # 1.5 2²³: beside it float32 has no fractions, so that adding it rounds
TOP, BOTTOM = 30.0, -104.0  # beyond, a sigmoid is 1 or, in float32, 0
UP = 64  # exp is computed times 2⁶⁴, since exp(-104) is too small for a float32 whose bits we write


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    """The bits of a float32 as an int32."""
    return types.int32(types.float32), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def _power_of_two(context: Any, n: Any) -> Any:
    """2ⁿ as a float32, for an int32 n from -126 to 127."""

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        exponent = builder.add(args[0], ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), build


def sigmoid(x: Any) -> Any:
    """The sigmoid of a number inside of a stage, e / (1 + e) with e = exp(x), as `ops.sigmoid` computes it."""
    raise NotImplementedError


@overload(sigmoid, inline="always", strict=False)
def _sigmoid_of(x: Any) -> Any:
    if x is not types.float32:

        def exact(x: Any) -> Any:
            e = math.exp(min(x, 80.0))
            return e / (1 + e)

        return exact
    one, top, bottom, shift = np.float32(1), np.float32(TOP), np.float32(BOTTOM), np.float32(SHIFT)
    log2e, high, low, up = np.float32(LOG2E), np.float32(-LOG2_HIGH), np.float32(-LOG2_LOW), np.float32(2.0**UP)
    c0, c1, c2, c3, c4, c5 = (np.float32(c) for c in EXP)

    def scaled(x: Any) -> Any:
        v = min(max(x, bottom), top)
        shifted = _fused(v, log2e, shift)
        n = shifted - shift
        r = _fused(n, low, _fused(n, high, v))
        near = _fused(_fused(_fused(_fused(_fused(_fused(c5, r, c4), r, c3), r, c2), r, c1), r, c0), r * r, r + one)
        e = near * _power_of_two(np.int32(_bits(shifted) - 0x4B400000 + UP))
        return e / (up + e)

    return scaled


# --- recurrent layers -------------------------------------------------------------------------------------------------


@stage(updates=["y"])
def rnn_tanh(y: HostArray, x: HostArray) -> None:
    """y = tanh(y + x) for y, x (B, H)."""
    for b in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[b, k] = tanh(y[b, k] + x[b, k])


@stage(writes=["d"])
def rnn_tanh_slope(g: HostArray, y: HostArray, d: HostArray) -> None:
    """d = g (1 - y²)."""
    one = y.dtype.type(1)
    for b in range(y.shape[0]):
        for k in range(y.shape[1]):
            d[b, k] = g[b, k] * (one - y[b, k] * y[b, k])


@stage(writes=["y"])
def lstm_gates(z: HostArray, x: HostArray, c: HostArray, y: HostArray) -> None:
    """The rows i, f, o, g, h', c' (6, B, H) from z = h Wᵀ and x (B, 4H), in the order i, f, g, o, and c (B, H)."""
    B, H = c.shape
    for b in range(B):
        for k in range(H):
            i = sigmoid(z[b, k] + x[b, k])
            f = sigmoid(z[b, H + k] + x[b, H + k])
            u = tanh(z[b, 2 * H + k] + x[b, 2 * H + k])
            o = sigmoid(z[b, 3 * H + k] + x[b, 3 * H + k])
            new = f * c[b, k] + i * u
            y[0, b, k], y[1, b, k], y[2, b, k], y[3, b, k] = i, f, o, u
            y[4, b, k], y[5, b, k] = o * tanh(new), new


@stage(writes=["dz", "dc"], last_rows={"g": 2})
def lstm_slopes(g: HostArray, y: HostArray, c: HostArray, dz: HostArray, dc: HostArray) -> None:
    """dz (B, 4H) and the gradient dc (B, H) of c, from that of all rows, g (6, B, H), or of h and c alone (2, B, H)."""
    one = y.dtype.type(1)
    B, H = c.shape
    s = 1 if g.shape[0] == 6 else 0  # or one row of zeros for all gates
    d = g if s else np.zeros((1, 1, H), y.dtype)
    for b in range(B):  # short loops: with more arrays in one the compiler does not vectorise
        for k in range(H):
            t = tanh(y[5, b, k])
            dc[b, k] = g[-2, b, k] * y[2, b, k] * (one - t * t) + g[-1, b, k]
            dz[b, 3 * H + k] = (g[-2, b, k] * t + d[2 * s, s * b, k]) * y[2, b, k] * (one - y[2, b, k])
        for k in range(H):
            dz[b, k] = (dc[b, k] * y[3, b, k] + d[0, s * b, k]) * y[0, b, k] * (one - y[0, b, k])
        for k in range(H):
            dz[b, 2 * H + k] = (dc[b, k] * y[0, b, k] + d[3 * s, s * b, k]) * (one - y[3, b, k] * y[3, b, k])
        for k in range(H):
            dz[b, H + k] = (dc[b, k] * c[b, k] + d[s, s * b, k]) * y[1, b, k] * (one - y[1, b, k])
        for k in range(H):
            dc[b, k] *= y[1, b, k]


@stage(writes=["y"])
def gru_gates(a: HostArray, x: HostArray, bias: HostArray, h: HostArray, y: HostArray) -> None:
    """The rows r, z, n, m, h' (5, B, H) from a = h Wᵀ and x (B, 3H), h (B, H) and the bias (H,) of m, or (0,)."""
    zero = y.dtype.type(0)
    B, H = h.shape
    biased = bias.shape[0] > 0
    for b in range(B):
        for k in range(H):
            r = sigmoid(a[b, k] + x[b, k])
            z = sigmoid(a[b, H + k] + x[b, H + k])
            m = a[b, 2 * H + k] + (bias[k] if biased else zero)
            n = tanh(x[b, 2 * H + k] + r * m)
            y[0, b, k], y[1, b, k], y[2, b, k], y[3, b, k] = r, z, n, m
            y[4, b, k] = n + z * (h[b, k] - n)


@stage(writes=["inward", "across", "rest"], last_rows={"g": 1})
def gru_slopes(g: HostArray, y: HostArray, h: HostArray, inward: HostArray, across: HostArray, rest: HostArray) -> None:
    """The gradients of x and of h Wᵀ (B, 3H), and what h gets beside the product, from that of all rows, g (5, B, H),
    or of h' alone (1, B, H).
    """
    one = y.dtype.type(1)
    B, H = h.shape
    s = 1 if g.shape[0] == 5 else 0
    d = g if s else np.zeros((1, 1, H), y.dtype)
    for b in range(B):  # short loops, as above
        for k in range(H):
            rest[b, k] = (g[-1, b, k] * (one - y[1, b, k]) + d[2 * s, s * b, k]) * (one - y[2, b, k] * y[2, b, k])
        for k in range(H):
            inward[b, k] = (rest[b, k] * y[3, b, k] + d[0, s * b, k]) * y[0, b, k] * (one - y[0, b, k])
        for k in range(H):
            n = g[-1, b, k] * (h[b, k] - y[2, b, k]) + d[s, s * b, k]
            inward[b, H + k] = n * y[1, b, k] * (one - y[1, b, k])
        for k in range(H):
            inward[b, 2 * H + k] = rest[b, k]
        for k in range(H):
            across[b, 2 * H + k] = rest[b, k] * y[0, b, k] + d[3 * s, s * b, k]
        for k in range(2 * H):
            across[b, k] = inward[b, k]
        for k in range(H):
            rest[b, k] = g[-1, b, k] * y[1, b, k]


@stage(updates=["y"])
def carry_rows(runs: HostArray, before: HostArray, y: HostArray) -> None:
    """Write the rows of `before` (k, B, H) over those of y (k, B, H) where `runs` (B, 1) is 0."""
    for b in range(runs.shape[0]):
        if runs[b, 0] == 0:
            for n in range(y.shape[0]):
                for k in range(y.shape[2]):
                    y[n, b, k] = before[n, b, k]


@stage(updates=["y"])
def clear_rows(runs: HostArray, y: HostArray) -> None:
    """Write 0 over the rows of y (k, B, H) where `runs` (B, 1) is 0."""
    for b in range(runs.shape[0]):
        if runs[b, 0] == 0:
            for n in range(y.shape[0]):
                for k in range(y.shape[2]):
                    y[n, b, k] = 0


# --- connectionist temporal classification ----------------------------------------------------------------------------


@njit(error_model="numpy", nogil=True, inline="always")
def _arrivals(y: Any, skips: Any, t: Any, s: Any, b: Any) -> Any:
    """The best of the ways to a state, and what each is relative to it, as `kernels.ctc` has it for all at once."""
    stay, go, skip = y[t, s + 2, b], y[t, s + 1, b], y[t, s, b]
    if not skips[s, b]:
        skip = y.dtype.type(-math.inf)
    best = stay
    if go > best or go != go:
        best = go
    if skip > best or skip != skip:
        best = skip
    if best == -math.inf:
        return best, y.dtype.type(0), y.dtype.type(0), y.dtype.type(0)
    return best, math.exp(stay - best), math.exp(go - best), math.exp(skip - best)


@stage(updates=["y"])
def ctc_alphas(y: HostArray, log_p: HostArray, states: HostArray, skips: HostArray, steps: HostArray) -> None:
    """y[1:] (T, U + 2, B) of y[0], as `kernels.ctc` has it; what is past the states (U, B) stays as it is."""
    for t in range(log_p.shape[0]):
        for s in range(states.shape[0]):
            for b in range(log_p.shape[1]):
                if t >= steps[b]:
                    y[t + 1, s + 2, b] = y[t, s + 2, b]
                    continue
                best, stay, go, skip = _arrivals(y, skips, t, s, b)
                total = stay + go + skip
                if total < 1:
                    total = y.dtype.type(1)
                y[t + 1, s + 2, b] = math.log(total) + best + log_p[t, b, states[s, b]]


@stage(updates=["dx"])
def ctc_slopes(
    dx: HostArray, g: HostArray, y: HostArray, states: HostArray, skips: HostArray, steps: HostArray
) -> None:
    """Add to dx (T, B, C) the gradient of log_p, from that of all forward variables."""
    T, B = dx.shape[0], dx.shape[1]
    rows = states.shape[0] + 2
    d = np.empty((rows, B), y.dtype)
    before = np.empty((rows, B), y.dtype)
    for s in range(rows):
        for b in range(B):
            d[s, b] = g[T, s, b]
    for t in range(T - 1, -1, -1):
        for s in range(rows):
            for b in range(B):
                before[s, b] = g[t, s, b] + (d[s, b] if t >= steps[b] else y.dtype.type(0))
        for s in range(states.shape[0]):
            for b in range(B):
                if t >= steps[b]:
                    continue
                here = d[s + 2, b]
                dx[t, b, states[s, b]] += here
                _, stay, go, skip = _arrivals(y, skips, t, s, b)
                total = stay + go + skip
                if total < 1:
                    total = y.dtype.type(1)
                here = here / total
                before[s + 2, b] += here * stay
                before[s + 1, b] += here * go
                before[s, b] += here * skip
        d, before = before, d


# --- embeddings and optimisers ----------------------------------------------------------------------------------------


@stage(updates=["buffer"])
def add_rows(buffer: HostArray, ids: HostArray, g: HostArray) -> None:
    """buffer[ids[n]] += g[n] for each n in turn; buffer (V, H), ids (N,) in range, g (N, H)."""
    for n in range(g.shape[0]):
        row = ids[n]
        for k in range(g.shape[1]):
            buffer[row, k] += g[n, k]


@stage(writes=["new"], updates=["m", "v"])
def adam(p: HostArray, g: HostArray, m: HostArray, v: HostArray, new: HostArray, numbers: HostArray) -> None:
    """One step of Adam or AdamW, as `optim.Adam.update` has it: m and v are written, and `new` is p after it.

    `numbers` are β₁, 1 - β₁, β₂, 1 - β₂, 1 / √(1 - β₂ᵗ), ε, -lr / (1 - β₁ᵗ), what is added to g as a part of p, and
    what p is multiplied by.
    """
    keep1, take1, keep2, take2, root, eps, rate, coupled, decoupled = numbers
    for i in range(p.shape[0]):
        d = g[i] + coupled * p[i]
        m[i] = keep1 * m[i] + take1 * d
        v[i] = keep2 * v[i] + take2 * (d * d)
        new[i] = decoupled * p[i] + rate * (m[i] / (math.sqrt(v[i]) * root + eps))


# --- the stages as loops of the machine -------------------------------------------------------------------------------


@loops(FLOATS)
def add_rows_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`add_rows` of dims[0] rows of dims[1] numbers to a buffer of dims[2]; both may have gaps between their rows."""
    n, width = dims[0], dims[1]
    ids = carray(at(args[1], dims), n)
    for i in range(n):
        place = args[0] + (ids[i] + (dims[2] if ids[i] < 0 else 0)) * steps[0]
        row, g = carray(at(place, data), width), carray(at(args[2] + i * steps[2], data), width)
        for k in range(width):
            row[k] += g[k]


# The stages of a recurrent layer: dims are B, H, the B of arrays of several blocks (their distance), and how many
# blocks of a gradient or of what rests, or biases, are given. So a part of the rows is other addresses and another B.


@loops(FLOATS)
def rnn_tanh_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`rnn_tanh`."""
    shape = dims[0], dims[1]
    rnn_tanh(carray(at(args[0], data), shape), carray(at(args[1], data), shape))


@loops(FLOATS)
def rnn_tanh_slope_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`rnn_tanh_slope`."""
    shape = dims[0], dims[1]
    g, y, d = carray(at(args[0], data), shape), carray(at(args[1], data), shape), carray(at(args[2], data), shape)
    rnn_tanh_slope(g, y, d)


@loops(FLOATS)
def lstm_gates_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`lstm_gates`."""
    B, H = dims[0], dims[1]
    z, x = carray(at(args[0], data), (B, 4 * H)), carray(at(args[1], data), (B, 4 * H))
    lstm_gates(z, x, carray(at(args[2], data), (B, H)), carray(at(args[3], data), (6, dims[2], H)))


@loops(FLOATS)
def lstm_slopes_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`lstm_slopes`."""
    B, H = dims[0], dims[1]
    g, y = carray(at(args[0], data), (dims[3], dims[2], H)), carray(at(args[1], data), (6, dims[2], H))
    c, dc = carray(at(args[2], data), (B, H)), carray(at(args[4], data), (B, H))
    lstm_slopes(g, y, c, carray(at(args[3], data), (B, 4 * H)), dc)


@loops(FLOATS)
def gru_gates_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`gru_gates`."""
    B, H = dims[0], dims[1]
    a, x = carray(at(args[0], data), (B, 3 * H)), carray(at(args[1], data), (B, 3 * H))
    b, h = carray(at(args[2], data), dims[3]), carray(at(args[3], data), (B, H))
    gru_gates(a, x, b, h, carray(at(args[4], data), (5, dims[2], H)))


@loops(FLOATS)
def gru_slopes_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`gru_slopes`."""
    B, H = dims[0], dims[1]
    g, y = carray(at(args[0], data), (dims[3], dims[2], H)), carray(at(args[1], data), (5, dims[2], H))
    h, rest = carray(at(args[2], data), (B, H)), carray(at(args[5], data), (B, H))
    inward, across = carray(at(args[3], data), (B, 3 * H)), carray(at(args[4], data), (B, 3 * H))
    gru_slopes(g, y, h, inward, across, rest)


@loops(FLOATS)
def carry_rows_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`carry_rows`."""
    B, shape = dims[0], (dims[3], dims[2], dims[1])
    before, y = carray(at(args[1], data), shape), carray(at(args[2], data), shape)
    carry_rows(carray(at(args[0], data), (B, 1)), before, y)


@loops(FLOATS)
def clear_rows_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`clear_rows`."""
    B, shape = dims[0], (dims[3], dims[2], dims[1])
    clear_rows(carray(at(args[0], data), (B, 1)), carray(at(args[1], data), shape))


def warm_up() -> None:
    """Compile every stage for float32 and float64, or load what was compiled before."""
    for dtype in (np.float32, np.float64):
        one, x, x3, x4 = (np.zeros((1, n), dtype) for n in (1, 1, 3, 4))
        y5, y6 = np.zeros((5, 1, 1), dtype), np.zeros((6, 1, 1), dtype)
        panel = np.zeros((1, 1, width_of(dtype)), dtype)
        pack(x4, panel)
        pack(np.zeros((4, 4), dtype).T, np.zeros((1, 4, width_of(dtype)), dtype))
        product(one, panel, x4)
        rnn_tanh(one, x)
        rnn_tanh_slope(one, x, one)
        lstm_gates(x4, x4, one, y6)
        lstm_slopes(y6, y6, one, x4, one)
        gru_gates(x3, x3, one[0], one, y5)
        gru_slopes(y5, y5, one, x3, x3, one)
        carry_rows(one, y5, y5)
        clear_rows(one, y5)
        ids, p = np.zeros((1, 1), np.int64), np.zeros((1, 1, 1), dtype)
        ctc_alphas(np.zeros((2, 3, 1), dtype), p, ids, ids > 0, ids[0])
        ctc_slopes(p, np.zeros((2, 3, 1), dtype), np.zeros((2, 3, 1), dtype), ids, ids > 0, ids[0])
        add_rows(one, np.zeros(1, np.int64), one)
        adam(one[0], one[0], one[0], one[0], one[0], np.ones(9, dtype))
