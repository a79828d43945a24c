"""One step of an RNN, an LSTM and a GRU as kernels: one pass of array operations for what `cells` says in many ops.

Each pair `*_forward`, `*_vjp` is how an op of `nn/cells.py` is fast; what it means stands there, in ops, and a test
ties the two together. They run on NumPy and CuPy arrays, write only into arrays of their own, and see nothing but the
inputs, the output and the metadata: what the way back needs of the way forth is a part of the output.

Two habits explain the code. Gates are kept as blocks (4, B, H) and not side by side (B, 4H), so that the
work on one gate runs over contiguous memory, and all sigmoids take one call. What goes to a weight is a lazy
`Product`, so that the sum over time becomes a few large matrix products.

`t` picks the step of a projected sequence x (T, B, G*H): one node less for each step than x[t] would be. Without `t`,
x is the input of one step, (B, G*H).

`runs` (T, B, 1), numbers, are 1 where a sequence still has a step and 0 past its end, and come with `t`. A sequence
that rests keeps its state: its gates are 0, and what comes back to its state goes on to the state before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tinygrad_rnn.kernels.copies import packed, transposed
from tinygrad_rnn.kernels.stages import fast_products, numba_stages
from tinygrad_rnn.tensor.backend import Array, DType, asarray, device_of, namespace, sum_to
from tinygrad_rnn.tensor.graph import Part, Product

Needs = tuple[bool, ...]
LARGE = 2**14  # elements of a weight from which on (W hᵀ)ᵀ is faster than h Wᵀ by a copy of Wᵀ
SHORT = 4  # a sequence of at most so many steps does not repay a copy of W


@lru_cache(maxsize=64)
def _one(dtype: DType, device: str) -> Array:
    """1 as an array: cheaper than a Python number, which NumPy converts at each call."""
    return asarray(1.0, dtype, device)


@lru_cache(maxsize=256)
def _full(value: float, shape: tuple[int, ...], dtype: DType, device: str) -> Array:
    """An array of one number. NumPy takes the minimum, or the maximum, of two arrays of one shape three times as fast
    as that of an array and a number.
    """
    one = asarray(value, dtype, device)
    return namespace(one).broadcast_to(one, shape).copy()


def _capped(z: Array, out: Array) -> None:
    """Copy z, but of what is larger a number whose sigmoid is 1 to the last digit and whose exp does not overflow."""
    top = _full(80.0 if z.dtype.itemsize > 2 else 10.0, z.shape, z.dtype, device_of(z))
    namespace(z).minimum(z, top, out=out)


def _become_sigmoid(z: Array, spare: Array) -> None:
    """Write the sigmoid of z, which is capped, over it, as `ops.sigmoid` computes it: e / (1 + e), e = exp(z). `spare`
    is overwritten.
    """
    xp, device = namespace(z), device_of(z)
    xp.exp(z, out=z)
    xp.add(z, _one(z.dtype, device), out=spare)
    z /= spare


@lru_cache(maxsize=256)
def _least(shape: tuple[int, ...], dtype: DType, device: str) -> Array:
    """The smallest number above 0, everywhere."""
    info = namespace(_one(dtype, device)).finfo(dtype)
    return _full(float(info.smallest_normal) * float(info.eps), shape, dtype, device)


def _tanh_again(o: Array, h: Array) -> Array:
    """tanh(c), of which o tanh(c) has become h: a division takes a tenth of the time of a tanh. 0 where o is 0."""
    xp = namespace(h)
    found = xp.maximum(o, _least(h.shape, h.dtype, device_of(h)))
    return xp.divide(h, found, out=found)


def _blocks(z: Array, count: int) -> Array:
    """(B, count * H) seen as (count, B, H), without a copy."""
    B, width = z.shape
    return z.reshape(B, count, width // count).swapaxes(0, 1)


def _across(h: Array, W: Array, x: Array, t: int | None) -> Array:
    """h Wᵀ, for one step of x; row by row in memory where stages read it."""
    xp = namespace(h)
    if W.shape[0] * W.shape[1] >= LARGE and not numba_stages(h, W):
        return xp.matmul(W, h.T).T  # BLAS takes W as it lies: faster, and without a copy
    if not _shared(x, t):
        return xp.matmul(h, W.T)
    if stages := fast_products(h, W):
        z = xp.empty((h.shape[0], W.shape[0]), dtype=h.dtype)
        stages.product(h, packed(W, stages, turned=True), z)
        return z
    return xp.matmul(h, transposed(W) if h.shape[0] > 1 else W.T)


def _back(d: Array, W: Array, x: Array, t: int | None, out: Array) -> None:
    """Write d W, for one step of x."""
    if _shared(x, t) and (stages := fast_products(d, W)):
        stages.product(d, packed(W, stages, turned=False), out)
    else:
        namespace(d).matmul(d, W, out=out)


def _shared(x: Array, t: int | None) -> bool:
    """Whether so many steps have the weight that copies of it pay."""
    return t is not None and x.shape[0] > SHORT


def _carry(runs: Array, before: Array, y: Array) -> None:
    """Write `before` (k, B, H) over the rows of y (k, B, H) that rest; `runs` (B, 1) are 0 there."""
    if stages := numba_stages(y, before, runs):
        stages.carry_rows(runs, before, y)
    else:
        y[...] = namespace(y).where(runs > 0, y, before)


def _clear(runs: Array, y: Array) -> None:
    """Write 0 over the rows of y (k, B, H) that rest."""
    if stages := numba_stages(y, runs):
        stages.clear_rows(runs, y)
    else:
        y[...] = namespace(y).where(runs > 0, y, 0)


# --- RNN ------------------------------------------------------------------------------------------


def rnn_forward(
    x: Array, h: Array, W: Array, *, nonlinearity: str, t: int | None = None, runs: Array | None = None
) -> Array:
    """y = f(x + h Wᵀ) for x, y (B, H)."""
    xp = namespace(x, h, W)
    a = _across(h, W, x, t)
    x = x if t is None else x[t]
    if nonlinearity == "tanh" and (stages := numba_stages(a, x)):
        stages.rnn_tanh(a, x)
        y = a
    else:
        y = xp.empty(h.shape, dtype=a.dtype)
        xp.add(a, x, out=y)
        if nonlinearity == "relu":
            xp.maximum(y, 0, out=y)
        elif nonlinearity == "tanh":
            xp.tanh(y, out=y)
        else:
            _capped(y, y)
            _become_sigmoid(y, xp.empty(y.shape, dtype=y.dtype))
    if runs is not None:
        _carry(runs[t], h[None], y[None])
    return y


def rnn_vjp(
    g: Array,
    y: Array,
    needs: Needs,
    x: Array,
    h: Array,
    W: Array,
    *,
    nonlinearity: str,
    t: int | None = None,
    runs: Array | None = None,
) -> Sequence[Any]:
    """Gradients of x, h and W."""
    xp = namespace(g)
    if nonlinearity == "tanh" and (stages := numba_stages(y, g)):
        d = xp.empty(y.shape, dtype=y.dtype)
        stages.rnn_tanh_slope(g, y, d)
    elif nonlinearity == "relu":
        d = g * (y > 0)
    else:
        one = _one(y.dtype, device_of(y))
        d = xp.multiply(y, y) if nonlinearity == "tanh" else xp.subtract(one, y)
        if nonlinearity == "tanh":
            xp.subtract(one, d, out=d)
        else:
            d *= y
        d *= g
    if runs is not None:
        _clear(runs[t], d[None])
    dh: Any = None
    if needs[1]:
        dh = xp.empty(h.shape, dtype=d.dtype)
        _back(d, W, x, t, dh)
        if runs is not None:
            _carry(runs[t], g[None], dh[None])
    return d if t is None else Part(d, t, basic=True), dh, Product(d, h) if needs[2] else None


# --- LSTM -----------------------------------------------------------------------------------------


def lstm_forward(x: Array, state: Array, W: Array, *, t: int | None = None, runs: Array | None = None) -> Array:
    """The rows i, f, o, g, h, c (6, B, H) of one step; x (B, 4H), `state` ends in the rows h, c.

    The sigmoids stand together: W and x have g before o, as PyTorch has.
    """
    xp = namespace(x, state, W)
    B, H = state.shape[1:]
    z = _across(state[-2], W, x, t)
    x = x if t is None else x[t]
    y = xp.empty((6, B, H), dtype=z.dtype)
    if stages := numba_stages(z, x, state):
        stages.lstm_gates(z, x, state[-1], y)
    else:
        _lstm_gates(z, x, state[-1], y)
    if runs is not None:
        _clear(runs[t], y[:4])
        _carry(runs[t], state[-2:], y[4:])
    return y


def _lstm_gates(z: Array, x: Array, before: Array, y: Array) -> None:
    """Write all rows of a step, from the projected state z and input x and the cell `before` it."""
    xp = namespace(z)
    i, f, o, u, h, c = y
    z = xp.add(_blocks(z, 4), _blocks(x, 4), out=xp.empty((4, *before.shape), dtype=z.dtype))
    _capped(z[:2], y[:2])
    _capped(z[3], o)
    _become_sigmoid(y[:3], y[3:])
    xp.tanh(z[2], out=u)
    xp.multiply(f, before, out=c)
    xp.multiply(i, u, out=h)
    c += h
    xp.tanh(c, out=h)
    h *= o


def lstm_vjp(
    g: Array,
    y: Array,
    needs: Needs,
    x: Array,
    state: Array,
    W: Array,
    *,
    t: int | None = None,
    runs: Array | None = None,
) -> Sequence[Any]:
    """Gradients of x, state and W."""
    xp = namespace(g)
    B, H = y.shape[1:]
    dz = xp.empty((B, 4 * H), dtype=y.dtype)
    both = xp.empty((2, B, H), dtype=y.dtype)  # of h and c
    if stages := numba_stages(y, g, state):
        stages.lstm_slopes(g, y, state[-1], dz, both[1])
    else:
        _lstm_slopes(g, y, state[-1], dz, both[1], some_rest=runs is not None)
    if runs is not None:
        _clear(runs[t], dz[None])
    dstate = None
    if needs[1]:
        _back(dz, W, x, t, both[0])
        if runs is not None:
            _carry(runs[t], g[-2:], both)
        dstate = Part(both, slice(-2, None), basic=True)
    return dz if t is None else Part(dz, t, basic=True), dstate, Product(dz, state[-2]) if needs[2] else None


def _lstm_slopes(g: Array, y: Array, before: Array, dz: Array, to_c: Array, some_rest: bool) -> None:
    """Write the gradients of z and of the cell `before` the step, from `g`, that of all rows."""
    xp = namespace(g)
    B, H = y.shape[1:]
    one = _one(y.dtype, device_of(y))
    _, f, o, u, h, c = y
    dh = g[4]
    d = xp.empty((4, B, H), dtype=y.dtype)
    di, df, do, du = d
    spare = xp.tanh(c) if some_rest else _tanh_again(o, h)  # where one rests, h is no product of o
    xp.multiply(dh, spare, out=do)
    dc = dh * o  # dc + dh o (1 - tanh(c)²), where o tanh(c) = h
    xp.multiply(do, h, out=spare)
    dc -= spare
    dc += g[5]
    xp.multiply(dc, u, out=di)
    xp.multiply(dc, before, out=df)
    xp.multiply(dc, y[0], out=du)
    d += g[:4]  # zeros, unless somebody looks at the gates
    slope = one - y[:4]  # times y for a sigmoid, times 1 + y for tanh
    d *= slope
    sigmoids = d[:3]
    sigmoids *= y[:3]
    du *= xp.add(u, one, out=spare)
    blocks = _blocks(dz, 4)
    blocks[:2], blocks[:1:-1] = d[:2], d[2:]
    xp.multiply(dc, f, out=to_c)


# --- GRU ------------------------------------------------------------------------------------------


def gru_forward(
    x: Array, state: Array, W: Array, b: Array | None, *, t: int | None = None, runs: Array | None = None
) -> Array:
    """The rows r, z, n, m, h (5, B, H) of one step; x (B, 3H), `state` ends in the row h."""
    xp = namespace(x, state, W)
    B, H = state.shape[1:]
    h = state[-1]
    a = _across(h, W, x, t)
    x = x if t is None else x[t]
    y = xp.empty((5, B, H), dtype=a.dtype)
    if stages := numba_stages(a, x, h, a if b is None else b):
        stages.gru_gates(a, x, a.reshape(-1)[:0] if b is None else b, h, y)
    else:
        _gru_gates(a, x, b, h, y)
    if runs is not None:
        _clear(runs[t], y[:4])
        _carry(runs[t], state[-1:], y[4:])
    return y


def _gru_gates(a: Array, x: Array, b: Array | None, h: Array, y: Array) -> None:
    """Write all rows of a step, from a = h Wᵀ and the projected input x."""
    xp, H = namespace(a), h.shape[1]
    r, z, n, m, new = y
    gates = y[:2]
    xp.add(_blocks(a[:, : 2 * H], 2), _blocks(x[:, : 2 * H], 2), out=gates)
    _capped(gates, gates)
    _become_sigmoid(gates, y[2:4])
    if b is None:
        m[...] = a[:, 2 * H :]
    else:
        xp.add(a[:, 2 * H :], b, out=m)
    xp.multiply(r, m, out=n)
    n += x[:, 2 * H :]
    xp.tanh(n, out=n)
    xp.subtract(h, n, out=new)
    new *= z
    new += n


def gru_vjp(
    g: Array,
    y: Array,
    needs: Needs,
    x: Array,
    state: Array,
    W: Array,
    b: Array | None,
    *,
    t: int | None = None,
    runs: Array | None = None,
) -> Sequence[Any]:
    """Gradients of x, state, W and b."""
    xp = namespace(g)
    B, H = y.shape[1:]
    inward = xp.empty((B, 3 * H), dtype=y.dtype)  # to x
    across = xp.empty((B, 3 * H), dtype=y.dtype)  # to h Wᵀ: the last third has passed the reset gate
    beside = xp.empty((B, H), dtype=y.dtype)  # to h, past the product
    if stages := numba_stages(y, g, state):
        stages.gru_slopes(g, y, state[-1], inward, across, beside)
    else:
        _gru_slopes(g, y, state[-1], inward, across, beside)
    if runs is not None:
        _clear(runs[t], inward[None])
        _clear(runs[t], across[None])
    dstate = None
    if needs[1]:
        back = xp.empty(beside.shape, dtype=beside.dtype)
        _back(across, W, x, t, back)
        back += beside
        if runs is not None:
            _carry(runs[t], g[-1:], back[None])
        dstate = Part(back, -1, basic=True)
    return (
        inward if t is None else Part(inward, t, basic=True),
        dstate,
        Product(across, state[-1]) if needs[2] else None,
        sum_to(across[:, 2 * H :], (H,)) if needs[3] else None,
    )


def _gru_slopes(g: Array, y: Array, h: Array, inward: Array, across: Array, beside: Array) -> None:
    """Write the gradients of x, of h Wᵀ, and of h `beside` the product, from `g`, that of all rows."""
    xp = namespace(g)
    B, H = y.shape[1:]
    one = _one(y.dtype, device_of(y))
    r, z, n, m, _ = y
    dh = g[4]
    d = xp.empty((2, B, H), dtype=y.dtype)
    rest = xp.subtract(one, z)
    dn = dh * rest
    dn += g[2]
    slope = n * n
    xp.subtract(one, slope, out=slope)
    dn *= slope
    inward[:, 2 * H :] = dn
    dm = xp.multiply(dn, r, out=slope)
    dm += g[3]
    across[:, 2 * H :] = dm
    xp.multiply(dn, m, out=d[0])
    xp.subtract(h, n, out=d[1])
    d[1] *= dh
    d += g[:2]
    d *= y[:2]
    xp.subtract(one, r, out=dn)
    d[0] *= dn
    d[1] *= rest
    _blocks(inward[:, : 2 * H], 2)[...] = d
    across[:, : 2 * H] = inward[:, : 2 * H]
    xp.multiply(dh, z, out=beside)
