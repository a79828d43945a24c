"""A stretch of a sequence on a GPU: a loop of one matrix product and one kernel a step, forth and back.

Each pair `*_forward`, `*_vjp` is how an op of `nn/sequences.py` is fast; what it means stands there, in ops, and tests
tie the two together. Time comes first in all arrays, so that a step is a piece of memory: nothing is cut out, copied or
joined on the way. Forth, the state's part of a step, h Wᵀ, goes into one small array that every step writes anew, and
the kernel adds the projected input. Back, a kernel makes of what has come to a state what goes to the gates, and a
product adds to the state before. At the end one product over all steps is the weight's gradient (and one more adds
that of the state which the stretch began with).

`Saved` has what the way back needs beside the output: the gates, and the LSTM's cells. Without it they are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tinygrad_rnn.kernels.cuda import by_rows, grid_of_rows, kernel
from tinygrad_rnn.kernels.cuda.cublas import Products
from tinygrad_rnn.tensor.backend import Array, namespace, sum_to

Needs = tuple[bool, ...]
KINDS = {"tanh": 0, "relu": 1, "sigmoid": 2}
NULL = 0  # a null pointer


class Saved:
    """What a way forth leaves for the way back, once it has run: gates (T, B, 4H) and cells (T, B, H)."""

    __slots__ = ("gates", "cells")

    def __init__(self) -> None:
        self.gates: Array | None = None
        self.cells: Array | None = None


class _Stretch:
    """T steps of a batch: sizes, the order of time, the products and kernels of one dtype."""

    def __init__(self, cell: str, x: Array, W: Array, reverse: bool, precision: str) -> None:
        self.T, self.B = x.shape[:2]
        self.G, self.H = W.shape
        self.cell, self.W, self.reverse = cell, W, reverse
        self.dtype, self.size, self.xp = str(x.dtype), x.dtype.itemsize, namespace(x)
        self.products = Products(self.dtype, precision)

    def empty(self, *shape: int) -> Array:
        """An array that a kernel will fill."""
        return self.xp.empty(shape, dtype=self.dtype)

    def steps(self) -> Iterator[tuple[int, int]]:
        """The steps in the order in which they run, each with the one before it, -1 at the first; none of nothing."""
        times = range(self.T if self.B * self.H else 0)
        before = -1
        for t in reversed(times) if self.reverse else times:
            yield t, before
            before = t

    def forwards(self, x: Array, h: Array, y: Array, *rest: Any) -> None:
        """Run the steps; y[t] becomes the state of each."""
        B, G, H, W = self.B, self.G, self.H, _address(self.W)
        launch, (grid, block) = kernel("recurrent", f"{self.cell}_forward", self.dtype), grid_of_rows(B, H)
        a = self.empty(B, G)
        first, states, across, step = _address(h), _address(y), _address(a), B * H * self.size
        for t, before in self.steps():
            state = first if before < 0 else states + before * step
            self.products.multiply(state, W, across, B, G, H, (False, True))
            launch(grid, block, (B, H, t, before, x, a, h, *rest))

    def backwards(self, to_state: bool, d: Array, dh: Array, *rest: Any) -> None:
        """Run the steps back: d (T, B, G) becomes what goes to h Wᵀ, dh, if asked for, what goes to the first state."""
        B, G, H, W = self.B, self.G, self.H, _address(self.W)
        launch, (grid, block) = kernel("recurrent", f"{self.cell}_slopes", self.dtype), grid_of_rows(B, H)
        across, state, step = _address(d), _address(dh), B * G * self.size
        for t, before in reversed(list(self.steps())):
            launch(grid, block, (B, H, t, before, *rest))
            if to_state or before >= 0:
                self.products.multiply(across + t * step, W, state, B, H, G, add=1)

    def weight(self, d: Array, h: Array, y: Array) -> Array:
        """The gradient of W (G, H): the sum of dᵀ h over all steps, h the state before each."""
        T, B, G, H = self.T, self.B, self.G, self.H
        if not T * B * H:
            return self.xp.zeros((G, H), dtype=self.dtype)
        dW = self.empty(G, H)
        begins = T - 1 if self.reverse else 0
        turned = (True, False)
        first = _address(d) + begins * B * G * self.size
        self.products.multiply(first, _address(h), _address(dW), G, H, B, turned)
        if T > 1:
            later, earlier = (0, 1) if self.reverse else (1, 0)
            rest = _address(d) + later * B * G * self.size
            states = _address(y) + earlier * B * H * self.size
            self.products.multiply(rest, states, _address(dW), G, H, (T - 1) * B, turned, add=1)
        return dW


def _address(x: Array) -> int:
    return x.data.ptr  # type: ignore[attr-defined, no-any-return]


def _rows(*arrays: Array | None) -> list[Any]:
    """Arrays that lie row by row, as kernels read them; 0, a null pointer, for None."""
    return [NULL if x is None else by_rows(x) for x in arrays]


def rnn_forward(
    x: Array,
    h: Array,
    W: Array,
    *,
    nonlinearity: str,
    reverse: bool = False,
    runs: Array | None = None,
    precision: str = "float32",
) -> Array:
    """The states (T, B, H)."""
    x, h, W, runs = _rows(x, h, W, runs)
    stretch = _Stretch("rnn", x, W, reverse, precision)
    y = stretch.empty(*x.shape)
    stretch.forwards(x, h, y, runs, KINDS[nonlinearity], y)
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
    reverse: bool = False,
    runs: Array | None = None,
    precision: str = "float32",
) -> Sequence[Any]:
    """Gradients of x, h and W."""
    g, h, W, runs = _rows(g, h, W, runs)
    stretch = _Stretch("rnn", x, W, reverse, precision)
    dz, dh = stretch.empty(*x.shape), stretch.xp.zeros(h.shape, dtype=h.dtype)
    stretch.backwards(needs[1], dz, dh, g, y, runs, KINDS[nonlinearity], dz, dh)
    return dz, dh if needs[1] else None, stretch.weight(dz, h, y) if needs[2] else None


def lstm_forward(
    x: Array,
    h: Array,
    c: Array,
    W: Array,
    *,
    reverse: bool = False,
    runs: Array | None = None,
    saved: Saved | None = None,
    precision: str = "float32",
) -> Array:
    """The states h of all steps and, below them, the c of the last: (T + 1, B, H)."""
    x, h, c, W, runs = _rows(x, h, c, W, runs)
    stretch = _Stretch("lstm", x, W, reverse, precision)
    T, B, H = stretch.T, stretch.B, stretch.H
    y, cells = stretch.empty(T + 1, B, H), stretch.empty(T, B, H)
    gates = None if saved is None else stretch.empty(*x.shape)
    if saved is not None:
        saved.gates, saved.cells = gates, cells
    stretch.forwards(x, h, y, runs, c, NULL if gates is None else gates, cells, y)
    y[T] = cells[0 if reverse else T - 1] if T else c
    return y


def lstm_vjp(
    g: Array,
    y: Array,
    needs: Needs,
    x: Array,
    h: Array,
    c: Array,
    W: Array,
    *,
    saved: Saved,
    reverse: bool = False,
    runs: Array | None = None,
    precision: str = "float32",
) -> Sequence[Any]:
    """Gradients of x, h, c and W."""
    g, h, c, W, runs = _rows(g, h, c, W, runs)
    stretch = _Stretch("lstm", x, W, reverse, precision)
    dz, dh = stretch.empty(*x.shape), stretch.xp.zeros(h.shape, dtype=h.dtype)
    dc = stretch.xp.asarray(g[stretch.T], copy=True)
    stretch.backwards(needs[1], dz, dh, g, saved.cells, runs, c, saved.gates, dz, dh, dc)
    return (
        dz,
        dh if needs[1] else None,
        dc if needs[2] else None,
        stretch.weight(dz, h, y) if needs[3] else None,
    )


def gru_forward(
    x: Array,
    h: Array,
    W: Array,
    b: Array | None,
    *,
    reverse: bool = False,
    runs: Array | None = None,
    saved: Saved | None = None,
    precision: str = "float32",
) -> Array:
    """The states (T, B, H)."""
    x, h, W, b, runs = _rows(x, h, W, b, runs)
    stretch = _Stretch("gru", x, W, reverse, precision)
    T, B, H = stretch.T, stretch.B, stretch.H
    y, gates = stretch.empty(T, B, H), None if saved is None else stretch.empty(T, B, 4 * H)
    if saved is not None:
        saved.gates = gates
    stretch.forwards(x, h, y, runs, b, NULL if gates is None else gates, y)
    return y


def gru_vjp(
    g: Array,
    y: Array,
    needs: Needs,
    x: Array,
    h: Array,
    W: Array,
    b: Array | None,
    *,
    saved: Saved,
    reverse: bool = False,
    runs: Array | None = None,
    precision: str = "float32",
) -> Sequence[Any]:
    """Gradients of x, h, W and b."""
    g, h, W, runs = _rows(g, h, W, runs)
    stretch = _Stretch("gru", x, W, reverse, precision)
    dx, da = stretch.empty(*x.shape), stretch.empty(*x.shape)  # to x, and to h Wᵀ
    dh = stretch.xp.zeros(h.shape, dtype=h.dtype)
    stretch.backwards(needs[1], da, dh, g, y, runs, h, saved.gates, dx, da, dh)
    return (
        dx,
        dh if needs[1] else None,
        stretch.weight(da, h, y) if needs[2] else None,
        sum_to(da[:, :, 2 * stretch.H :], (stretch.H,)) if needs[3] else None,
    )
