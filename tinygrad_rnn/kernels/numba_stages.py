"""The pointwise stages of a training step, as numba compiles them: one pass over memory each.

Each does what its caller does with a dozen NumPy calls, for arrays of float32 or float64 without gaps. What its
arguments are says `compiled_stages`, as Python calls it; here it is a loop of the machine, and a part of the rows is
other addresses and another B. Tests tie it to NumPy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from tinygrad_rnn.kernels.numba_object import FLOATS, as_kind, at, byte, inlined, loops, place

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


@overload(tanh, strict=False)
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


@overload(sigmoid, strict=False)
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

# dims are B, H, the B of arrays of several blocks (their distance, N), and how many blocks of a gradient or of what
# rests, or biases, are given.


@loops(FLOATS)
def rnn_tanh_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`rnn_tanh`."""
    y, x = at(args[0], data), at(args[1], data)
    for k in range(dims[0] * dims[1]):
        y[k] = tanh(y[k] + x[k])


@loops(FLOATS)
def rnn_tanh_slope_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`rnn_tanh_slope`."""
    g, y, d, one = at(args[0], data), at(args[1], data), at(args[2], data), as_kind(data, 1)
    for k in range(dims[0] * dims[1]):
        d[k] = g[k] * (one - y[k] * y[k])


@loops(FLOATS)
def lstm_gates_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`lstm_gates`; of one array y the compiler sees sooner that its rows are apart than of many addresses."""
    B, H = dims[0], dims[1]
    z, x = carray(at(args[0], data), (B, 4 * H)), carray(at(args[1], data), (B, 4 * H))
    c, y = carray(at(args[2], data), (B, H)), carray(at(args[3], data), (6, dims[2], H))
    for b in range(B):
        for k in range(H):
            i = sigmoid(z[b, k] + x[b, k])
            f = sigmoid(z[b, H + k] + x[b, H + k])
            u = tanh(z[b, 2 * H + k] + x[b, 2 * H + k])
            o = sigmoid(z[b, 3 * H + k] + x[b, 3 * H + k])
            new = f * c[b, k] + i * u
            y[0, b, k], y[1, b, k], y[2, b, k], y[3, b, k] = i, f, o, u
            y[4, b, k], y[5, b, k] = o * tanh(new), new


@loops(FLOATS)
def lstm_slopes_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:  # noqa: C901 (a loop for each gate)
    """`lstm_slopes`."""
    B, H, far, one = dims[0], dims[1], dims[2] * dims[1], as_kind(data, 1)
    for b in range(B):  # short loops: with more arrays in one the compiler does not vectorise
        c, dc, dz = place(args[2], H * b, data), place(args[4], H * b, data), place(args[3], 4 * H * b, data)
        g, y = place(args[0], H * b, data), place(args[1], H * b, data)
        to_h, to_c = (
            place(args[0], (dims[3] - 2) * far + H * b, data),
            place(args[0], (dims[3] - 1) * far + H * b, data),
        )
        i, f, o = y, place(args[1], far + H * b, data), place(args[1], 2 * far + H * b, data)
        u, new = place(args[1], 3 * far + H * b, data), place(args[1], 5 * far + H * b, data)
        if dims[3] == 6:
            for n in range(4):
                row = far * (n if n < 2 else 5 - n)
                for k in range(H):
                    dz[n * H + k] = g[row + k]
        else:
            for k in range(4 * H):
                dz[k] = 0
        for k in range(H):
            t = tanh(new[k])
            dc[k] = to_h[k] * o[k] * (one - t * t) + to_c[k]
            dz[3 * H + k] = (to_h[k] * t + dz[3 * H + k]) * o[k] * (one - o[k])
        for k in range(H):
            dz[k] = (dc[k] * u[k] + dz[k]) * i[k] * (one - i[k])
        for k in range(H):
            dz[2 * H + k] = (dc[k] * i[k] + dz[2 * H + k]) * (one - u[k] * u[k])
        for k in range(H):
            dz[H + k] = (dc[k] * c[k] + dz[H + k]) * f[k] * (one - f[k])
        for k in range(H):
            dc[k] *= f[k]


@loops(FLOATS)
def gru_gates_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`gru_gates`."""
    B, H, zero, biased = dims[0], dims[1], as_kind(data, 0), dims[3] > 0
    a, x = carray(at(args[0], data), (B, 3 * H)), carray(at(args[1], data), (B, 3 * H))
    bias, h = at(args[2], data), carray(at(args[3], data), (B, H))
    y = carray(at(args[4], data), (5, dims[2], H))
    for b in range(B):
        for k in range(H):
            r = sigmoid(a[b, k] + x[b, k])
            z = sigmoid(a[b, H + k] + x[b, H + k])
            m = a[b, 2 * H + k] + (bias[k] if biased else zero)
            n = tanh(x[b, 2 * H + k] + r * m)
            y[0, b, k], y[1, b, k], y[2, b, k], y[3, b, k] = r, z, n, m
            y[4, b, k] = n + z * (h[b, k] - n)


@loops(FLOATS)
def gru_slopes_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:  # noqa: C901 (a loop for each gate)
    """`gru_slopes`."""
    B, H, far, one = dims[0], dims[1], dims[2] * dims[1], as_kind(data, 1)
    for b in range(B):  # short loops, as above
        g, new = place(args[0], H * b, data), place(args[0], (dims[3] - 1) * far + H * b, data)
        r, z = place(args[1], H * b, data), place(args[1], far + H * b, data)
        n, m = place(args[1], 2 * far + H * b, data), place(args[1], 3 * far + H * b, data)
        h, rest = place(args[2], H * b, data), place(args[5], H * b, data)
        inward, across = place(args[3], 3 * H * b, data), place(args[4], 3 * H * b, data)
        if dims[3] == 5:
            for k in range(H):
                inward[k], inward[H + k] = g[k], g[far + k]
            for k in range(H):
                rest[k], across[2 * H + k] = g[2 * far + k], g[3 * far + k]
        else:
            for k in range(2 * H):
                inward[k] = 0
            for k in range(H):
                rest[k] = across[2 * H + k] = 0
        for k in range(H):
            rest[k] = (new[k] * (one - z[k]) + rest[k]) * (one - n[k] * n[k])
        for k in range(H):
            inward[k] = (rest[k] * m[k] + inward[k]) * r[k] * (one - r[k])
        for k in range(H):
            inward[H + k] = (new[k] * (h[k] - n[k]) + inward[H + k]) * z[k] * (one - z[k])
        for k in range(H):
            inward[2 * H + k] = rest[k]
        for k in range(H):
            across[2 * H + k] = rest[k] * r[k] + across[2 * H + k]
        for k in range(2 * H):
            across[k] = inward[k]
        for k in range(H):
            rest[k] = new[k] * z[k]


@loops(FLOATS)
def carry_rows_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`carry_rows`."""
    B, H, far, runs = dims[0], dims[1], dims[2] * dims[1], at(args[0], data)
    for b in range(B):
        if runs[b] == 0:
            for n in range(dims[3]):
                before, y = place(args[1], n * far + H * b, data), place(args[2], n * far + H * b, data)
                for k in range(H):
                    y[k] = before[k]


@loops(FLOATS)
def clear_rows_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`clear_rows`."""
    B, H, far, runs = dims[0], dims[1], dims[2] * dims[1], at(args[0], data)
    for b in range(B):
        if runs[b] == 0:
            for n in range(dims[3]):
                y = place(args[1], n * far + H * b, data)
                for k in range(H):
                    y[k] = 0


# --- connectionist temporal classification ----------------------------------------------------------------------------

# dims are T, B, C, how many states are used, U, and the rows of y.


@inlined
def _arrivals(y: Any, open: Any, B: Any) -> Any:
    """The best of the ways to a state, and what each is relative to it, as `kernels.ctc` has it for all at once; y is
    where the state two before it stands, and from there one may come if `open` is not 0.
    """
    stay, go, skip = y[2 * B], y[B], y[0]
    if open[0] == 0:
        skip = as_kind(y, -math.inf)
    best = stay
    if go > best or go != go:
        best = go
    if skip > best or skip != skip:
        best = skip
    if best == -math.inf:
        return best, as_kind(y, 0), as_kind(y, 0), as_kind(y, 0)
    return best, math.exp(stay - best), math.exp(go - best), math.exp(skip - best)


@loops(FLOATS)
def ctc_alphas_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`ctc_alphas`."""
    T, B, C, U, rows = dims[0], dims[1], dims[2], dims[3], dims[4]
    states, stops, one = at(args[2], dims), at(args[4], dims), as_kind(data, 1)
    for t in range(T):
        for s in range(U):
            for b in range(B):
                before, y = (
                    place(args[0], (t * rows + s) * B + b, data),
                    place(args[0], ((t + 1) * rows + s) * B + b, data),
                )
                if t >= stops[b]:
                    y[2 * B] = before[2 * B]
                    continue
                best, stay, go, skip = _arrivals(before, byte(args[3] + s * B + b), B)
                total = stay + go + skip
                if total < 1:
                    total = one
                y[2 * B] = math.log(total) + best + place(args[1], (t * B + b) * C, data)[states[s * B + b]]


@loops(FLOATS)
def ctc_slopes_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`ctc_slopes`."""
    T, B, C, U, rows = dims[0], dims[1], dims[2], dims[3], dims[4]
    states, stops, one, zero = at(args[3], dims), at(args[5], dims), as_kind(data, 1), as_kind(data, 0)
    last, size = place(args[1], T * rows * B, data), (U + 2) * B
    after = place(args[6], T % 2 * size, data)
    for k in range(size):
        after[k] = last[k]
    for t in range(T - 1, -1, -1):
        g, after, now = (
            place(args[1], t * rows * B, data),
            place(args[6], (t + 1) % 2 * size, data),
            place(args[6], t % 2 * size, data),
        )
        for s in range(U + 2):
            for b in range(B):
                now[s * B + b] = g[s * B + b] + (after[s * B + b] if t >= stops[b] else zero)
        for s in range(U):
            for b in range(B):
                if t >= stops[b]:
                    continue
                k = s * B + b
                here = after[k + 2 * B]
                place(args[0], (t * B + b) * C, data)[states[k]] += here
                y = place(args[2], (t * rows + s) * B + b, data)
                _, stay, go, skip = _arrivals(y, byte(args[4] + k), B)
                total = stay + go + skip
                if total < 1:
                    total = one
                here = here / total
                now[k + 2 * B] += here * stay
                now[k + B] += here * go
                now[k] += here * skip


# --- embeddings and optimisers ----------------------------------------------------------------------------------------


@loops(FLOATS)
def add_rows_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`add_rows` of dims[0] rows of dims[1] numbers to a buffer of dims[2]; both may have gaps between their rows."""
    ids = at(args[1], dims)
    for i in range(dims[0]):
        row = at(args[0] + (ids[i] + (dims[2] if ids[i] < 0 else 0)) * steps[0], data)
        g = at(args[2] + i * steps[2], data)
        for k in range(dims[1]):
            row[k] += g[k]


@loops(FLOATS)
def adam_loop(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """`adam` of dims[0] numbers."""
    p, g, m, v, new = at(args[0], data), at(args[1], data), at(args[2], data), at(args[3], data), at(args[4], data)
    some = at(args[5], data)
    keep1, take1, keep2, take2, root, eps, rate = some[0], some[1], some[2], some[3], some[4], some[5], some[6]
    coupled, decoupled = some[7], some[8]
    for i in range(dims[0]):
        d = g[i] + coupled * p[i]
        m[i] = keep1 * m[i] + take1 * d
        v[i] = keep2 * v[i] + take2 * (d * d)
        new[i] = decoupled * p[i] + rate * (m[i] / (math.sqrt(v[i]) * root + eps))
