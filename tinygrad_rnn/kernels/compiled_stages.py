"""The stages that numba has compiled, as Python calls them.

They take arrays of one dtype, float32 or float64, of the shapes that they are given for: shapes are not looked at here,
but dtypes, axes, and the order in memory are, and what does not fit is a TypeError. A stage reads some arrays, writes
others, and says which (`effects`); what it does is in `numba_stages` and `numba_products`.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.kernels import machine, native
from tinygrad_rnn.kernels.machine import ALIGNED, CONTIGUOUS, WRITEABLE, Loops
from tinygrad_rnn.kernels.registers import FAST, width_of  # noqa: F401 (what callers ask, too)
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import effects

DTYPES = {"l": np.dtype(np.int64), "?": np.dtype(bool)}


def stage(
    takes: str,
    dims: str,
    steps: str = "",
    *,
    writes: Sequence[str] = (),
    updates: Sequence[str] = (),
    last_rows: Mapping[str, int] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A stage by its `loops`, with its `effects`: what it writes, what it updates; all else it reads.

    `takes` says how many axes each argument has, with `l` or `?` behind it that it is of ids or booleans, with `r` that
    there may be gaps between its rows, with `*` anywhere. `dims` and `steps` are sizes and strides, each as the name of
    an argument and an axis, `c0`.
    """

    def compiled(f: Callable[..., None]) -> Callable[..., None]:
        names, kinds = list(inspect.signature(f).parameters), takes.split()
        declared = effects(writes=writes, updates=updates, last_rows=last_rows)(f)
        first = next(k for k, kind in enumerate(kinds) if kind[1:] in ("", "r", "*"))
        places = [[(names.index(x[:-1]), int(x[-1])) for x in some.split()] for some in (dims, steps)]
        written = {names.index(name) for name in (*writes, *updates)}
        plans, loops = dict[str, Plan](), Loops(f"{f.__name__}_loop")

        def call(*arrays: Any) -> None:
            plan = plans.get(arrays[first].dtype.char)
            if plan is None:
                dtype = np.dtype(arrays[first].dtype)
                plan = plans[dtype.char] = Plan(f.__name__, loops, dtype, names, kinds, written, places)
            if bad := plan.call(plan.address, arrays):
                plan.refuse(bad, arrays)

        call.__name__, call.__qualname__, call.__doc__ = f.__name__, f.__qualname__, f.__doc__
        call.effects, call.loops = declared.effects, loops  # type: ignore[attr-defined]
        return call

    return compiled


class Plan:
    """How a stage's loop is called on arrays, as `machine` has it, for one dtype."""

    def __init__(
        self,
        name: str,
        loops: Loops,
        dtype: np.dtype[Any],
        names: Sequence[str],
        kinds: Sequence[str],
        written: set[int],
        places: Sequence[Sequence[tuple[int, int]]],
    ) -> None:
        if dtype.char not in "fd" or not dtype.isnative:
            raise TypeError(f"{name} takes arrays of float32 or float64 in this machine's byte order, got {dtype}")
        self.name, self.names = name, names
        self.dtypes = [DTYPES.get(kind[1:], dtype) for kind in kinds]
        self.axes = [int(kind[0]) for kind in kinds]
        self.flags = [
            ALIGNED | (0 if kind[1:] in ("r", "*") else CONTIGUOUS) | (WRITEABLE if k in written else 0)
            for k, kind in enumerate(kinds)
        ]
        apart = [dtype.itemsize if kind[1:] == "r" else 0 for kind in kinds]
        self.call = native.function("on_arrays", ctypes.c_ssize_t, ctypes.py_object)
        numbers = [loops[dtype.char], id(np.ndarray), len(kinds), *map(len, places)]
        for known, axes, flags, size in zip(self.dtypes, self.axes, self.flags, apart, strict=True):
            numbers += [ctypes.c_int64.from_address(id(known) + machine.DTYPE_KIND).value, axes, flags, size]
        self.code = np.array([*numbers, *(n for some in places for place in some for n in place)], np.int64)
        self.address = self.code.ctypes.data

    def refuse(self, bad: int, arrays: Sequence[Any]) -> None:
        """Say what does not fit."""
        if bad < 0:
            raise TypeError(f"{self.name} takes {len(self.names)} arrays, got {len(arrays)}")
        k = bad - 1
        wanted = f"{self.axes[k]} axes, of {self.dtypes[k]}, in order in memory" + (
            ", writeable" if self.flags[k] & WRITEABLE else ""
        )
        x = arrays[k]
        got = f"{x.dtype} of shape {x.shape} and strides {x.strides}" if isinstance(x, np.ndarray) else repr(type(x))
        raise TypeError(f"{self.name}: {self.names[k]} is to have {wanted}, got {got}")


# --- recurrent layers -------------------------------------------------------------------------------------------------


@stage("2 2", "y0 y1", updates=["y"])
def rnn_tanh(y: HostArray, x: HostArray) -> None:
    """y = tanh(y + x) for y, x (B, H)."""


@stage("2 2 2", "d0 d1", writes=["d"])
def rnn_tanh_slope(g: HostArray, y: HostArray, d: HostArray) -> None:
    """d = g (1 - y²)."""


@stage("2 2 2 3", "c0 c1 c0", writes=["y"])
def lstm_gates(z: HostArray, x: HostArray, c: HostArray, y: HostArray) -> None:
    """The rows i, f, o, g, h', c' (6, B, H) from z = h Wᵀ and x (B, 4H), in the order i, f, g, o, and c (B, H)."""


@stage("3 3 2 2 2", "c0 c1 c0 g0", writes=["dz", "dc"], last_rows={"g": 2})
def lstm_slopes(g: HostArray, y: HostArray, c: HostArray, dz: HostArray, dc: HostArray) -> None:
    """dz (B, 4H) and the gradient dc (B, H) of c, from that of all rows, g (6, B, H), or of h and c alone (2, B, H)."""


@stage("2 2 1 2 3", "h0 h1 h0 bias0", writes=["y"])
def gru_gates(a: HostArray, x: HostArray, bias: HostArray, h: HostArray, y: HostArray) -> None:
    """The rows r, z, n, m, h' (5, B, H) from a = h Wᵀ and x (B, 3H), h (B, H) and the bias (H,) of m, or (0,)."""


@stage("3 3 2 2 2 2", "h0 h1 h0 g0", writes=["inward", "across", "rest"], last_rows={"g": 1})
def gru_slopes(g: HostArray, y: HostArray, h: HostArray, inward: HostArray, across: HostArray, rest: HostArray) -> None:
    """The gradients of x and of h Wᵀ (B, 3H), and what h gets beside the product, from that of all rows, g (5, B, H),
    or of h' alone (1, B, H).
    """


@stage("2 3 3", "y1 y2 y1 y0", updates=["y"])
def carry_rows(runs: HostArray, before: HostArray, y: HostArray) -> None:
    """Write the rows of `before` (k, B, H) over those of y (k, B, H) where `runs` (B, 1) is 0."""


@stage("2 3", "y1 y2 y1 y0", updates=["y"])
def clear_rows(runs: HostArray, y: HostArray) -> None:
    """Write 0 over the rows of y (k, B, H) where `runs` (B, 1) is 0."""


# --- connectionist temporal classification ----------------------------------------------------------------------------


@stage("3 3 2l 2? 1l", "log_p0 log_p1 log_p2 states0 y1", updates=["y"])
def ctc_alphas(y: HostArray, log_p: HostArray, states: HostArray, skips: HostArray, steps: HostArray) -> None:
    """y[1:] (T, U + 2, B) of y[0], as `kernels.ctc` has it; what is past the states (U, B) stays as it is."""


@stage("3 3 3 2l 2? 1l 3", "dx0 dx1 dx2 states0 y1", updates=["dx"], writes=["room"])
def ctc_slopes(
    dx: HostArray,
    g: HostArray,
    y: HostArray,
    states: HostArray,
    skips: HostArray,
    steps: HostArray,
    room: HostArray,
) -> None:
    """Add to dx (T, B, C) the gradient of log_p, from that of all forward variables; `room` is (2, U + 2, B)."""


# --- embeddings and optimisers ----------------------------------------------------------------------------------------


@stage("2r 1l 2r", "g0 g1 buffer0", "buffer0 buffer0 g0", updates=["buffer"])
def add_rows(buffer: HostArray, ids: HostArray, g: HostArray) -> None:
    """buffer[ids[n]] += g[n] for each n in turn; buffer (V, H), ids (N,) in range, g (N, H)."""


@stage("1 1 1 1 1 1", "p0", writes=["new"], updates=["m", "v"])
def adam(p: HostArray, g: HostArray, m: HostArray, v: HostArray, new: HostArray, numbers: HostArray) -> None:
    """One step of Adam or AdamW, as `optim.Adam.update` has it: m and v are written, and `new` is p after it.

    `numbers` are β₁, 1 - β₁, β₂, 1 - β₂, 1 / √(1 - β₂ᵗ), ε, -lr / (1 - β₁ᵗ), what is added to g as a part of p, and
    what p is multiplied by.
    """


# --- products ---------------------------------------------------------------------------------------------------------


@stage("2* 3", "W0 W1", "W0 W1", writes=["packed"])
def pack(W: HostArray, packed: HostArray) -> None:
    """The matrix W (K, N) as panels (P, K, width) of `width` columns each, with zeros beyond the last one."""


@stage("2r 3 2r", "x0 x1 y1", "x0 x0 y0", writes=["y"])
def product(x: HostArray, w: HostArray, y: HostArray) -> None:
    """y = x W for x (M, K), y (M, N), both with rows without gaps, and W (K, N), packed as w; K is at least 1."""


def trial() -> None:
    """Call a stage, which ends this process, or fails, where Python or NumPy has objects of another form in memory."""
    y, d = np.full((2, 3), 0.5, np.float32), np.zeros((2, 3), np.float32)
    rnn_tanh_slope(2 * y, y, d)
    assert (d == 0.75).all()
