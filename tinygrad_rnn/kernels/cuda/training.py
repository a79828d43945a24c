"""What stands around the layers in a step of training on a GPU, each a launch or two of the kernels in `training.cu`.

Callers ask first whether they are enabled. Arrays are CuPy's, and made contiguous here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad_rnn.kernels import cuda
from tinygrad_rnn.kernels.cuda import by_rows
from tinygrad_rnn.kernels.cuda.linear import multiplies as multiplies
from tinygrad_rnn.kernels.cuda.linear import multiply as multiply
from tinygrad_rnn.tensor import device
from tinygrad_rnn.tensor.backend import Array, namespace

BLOCK = 128  # threads; that of training.cu
PARTS = 512  # blocks that add up squares, at most
LOOKS = 2**31  # at an id by a block: in larger tables rows are found by sorting
NULL = 0  # a null pointer
SMALLEST = "float32"  # the dtype under whose name kernels of ids alone are compiled

Error = Callable[[], Exception]


def takes_ids() -> bool:
    """Whether kernels look at ids on a GPU."""
    return cuda.cuda_kernels_enabled()


def check_ids(ids: Array, size: int, error: Error) -> None:
    """Have `error()` raised, when something is next read, if one of the ids is none of `size`."""
    ids = integers(ids)
    if ids.size:
        wrong = device.new_flag()
        cuda.kernel("training", "check_ids", SMALLEST)(
            (blocks(ids.size),), (BLOCK,), (ids.size, size, ids, wrong.place)
        )
        wrong.raise_later(error)


def placed_ids(ids: Array, size: int, error: Callable[[Array], Exception]) -> Array:
    """`ids` from -size on as new ids from 0 on; `error` is given these if one is out of range."""
    xp, ids = namespace(ids), integers(ids)
    placed, wrong = xp.empty(ids.shape, dtype="int64"), device.new_flag()
    launch = cuda.kernel("training", "place_ids", SMALLEST)
    launch((blocks(ids.size),), (BLOCK,), (ids.size, size, ids, placed, wrong.place))
    wrong.raise_later(lambda: error(placed))
    return placed


def adds_rows(table: Array, ids: Array, g: Array) -> bool:
    """Whether `add_rows` takes these, and finds the rows faster than a sort."""
    return table.flags.c_contiguous and cuda.has_cuda_kernels(table, g) and ids.size * table.shape[0] <= LOOKS


def add_rows(table: Array, ids: Array, g: Array) -> None:
    """Add `g[i]` (N, K) to the row `ids[i]` of `table` (R, K), in place, row by row in the order of the ids."""
    ids, g = integers(ids), by_rows(g)
    (R, K), grid = table.shape, (table.shape[0], blocks(table.shape[1]))
    if R and K and ids.size:
        cuda.kernel("training", "add_rows", str(g.dtype))(grid, (BLOCK,), (ids.size, K, ids, g, table))


def dropout_mask(like: Array, p: float, draw: Callable[[], int]) -> Array:
    """0 where a draw, of its place and a seed that `draw` draws, is below `p`, else 1 / (1 - p); shaped as `like`."""
    xp: Any = namespace(like)
    mask = xp.empty(like.shape, dtype=like.dtype)
    numbers = xp.float32(p), real(like)(0.0 if p == 1 else 1 / (1 - p))
    graph = device.capture.get()
    seed = (draw(), NULL) if graph is None else (0, graph.of_host(lambda: [draw()], 1, "uint64"))
    if mask.size:
        launch = cuda.kernel("training", "dropout_mask", str(like.dtype))
        launch((blocks(mask.size),), (BLOCK,), (mask.size, *seed, *numbers, mask))
    return mask  # type: ignore[no-any-return]


# --- the cross-entropy of logits x (N, C), as a sum or a mean -----------------------------------------------


@dataclass(frozen=True)
class Targets:
    """Ids (N,), which count unless they are `ignored` or `mask` (N,) is False; `error` names one out of range."""

    ids: Array
    ignored: int
    mask: Array | None
    error: Error

    def arguments(self) -> tuple[Any, ...]:
        """What the kernels are given."""
        return integers(self.ids), 0 if self.mask is None else by_rows(self.mask), self.ignored


def cross_entropy_forward(x: Array, *, targets: Targets, smoothing: float, mean: bool) -> Array:
    """The mean or the sum of the losses, and by what the sum was divided, as one array (2,)."""
    xp: Any = namespace(x)
    N, C = x.shape
    x, ids = by_rows(x), targets.arguments()
    y, losses, wrong = xp.empty((2,), dtype=x.dtype), xp.empty((N,), dtype=x.dtype), device.new_flag()
    dtype = str(x.dtype)
    if N:
        cuda.kernel("training", "cross_entropy", dtype)((N,), (BLOCK,), (C, x, *ids, real(x)(smoothing), losses))
    cuda.kernel("training", "reduce_losses", dtype)(
        (1,), (BLOCK,), (N, C, losses, *ids, xp.bool_(mean), y, wrong.place)
    )
    wrong.raise_later(targets.error)
    return y  # type: ignore[no-any-return]


def cross_entropy_vjp(
    g: Array,
    y: Array,
    needs: tuple[bool, ...],
    x: Array,
    *,
    targets: Targets,
    smoothing: float,
    mean: bool,
) -> Sequence[Any]:
    """The gradient of x: softmax minus one-hot, scaled, and 0 where a row does not count."""
    xp: Any = namespace(x)
    N, C = x.shape
    x, g = by_rows(x), by_rows(g)
    d = xp.empty(x.shape, dtype=x.dtype)
    if d.size:
        launch = cuda.kernel("training", "cross_entropy_slopes", str(x.dtype))
        launch((N,), (BLOCK,), (C, x, *targets.arguments(), real(x)(smoothing), g, y, d))
    return (d,)


def join(xp: Any, arrays: Sequence[Array], axis: int) -> Array:
    """Arrays joined along an axis, each by a copy of its own."""
    shape = list(arrays[0].shape)
    shape[axis] = sum(x.shape[axis] for x in arrays)
    y = xp.empty(shape, dtype=xp.result_type(*(x.dtype for x in arrays)))
    place: list[Any] = [slice(None)] * len(shape)
    start = 0
    for x in arrays:
        place[axis] = slice(start, start + x.shape[axis])
        y[tuple(place)] = x
        start += x.shape[axis]
    return y  # type: ignore[no-any-return]


# --- clipping, and Adam -------------------------------------------------------------------------------------


def squared_norm(x: Array, max_norm: float) -> Array:
    """Of a flat array the sum of its squares, and by what it is to be multiplied, if that is below 1, as one (2,)."""
    xp: Any = namespace(x)
    parts = max(1, min(PARTS, blocks(x.size)))
    sums, y = xp.empty((parts,), dtype=x.dtype), xp.empty((2,), dtype=x.dtype)
    cuda.kernel("training", "squares", str(x.dtype))((parts,), (BLOCK,), (x.size, x, sums))
    cuda.kernel("training", "total", str(x.dtype))((1,), (BLOCK,), (parts, sums, real(x)(max_norm), y))
    cuda.kernel("training", "clip", str(x.dtype))  # is compiled by now, whether it is needed or not: not in a graph
    return y  # type: ignore[no-any-return]


def clipped(x: Array, squares: Array) -> Array:
    """A flat array multiplied as its `squared_norm` says, as a new one."""
    y = namespace(x).empty(x.shape, dtype=x.dtype)
    if x.size:
        cuda.kernel("training", "clip", str(x.dtype))((blocks(x.size),), (BLOCK,), (x.size, x, squares, y))
    return y


def adam(p: Array, g: Array, m: Array, v: Array, numbers: Sequence[float], there: Any = None) -> Array:
    """The values after a step of Adam, of flat arrays; `m` and `v` are written. The numbers are those of the stage, or
    in a graph those in an array `there`.
    """
    new = namespace(p).empty(p.shape, dtype=p.dtype)
    if p.size:
        launch = cuda.kernel("training", "adam", str(p.dtype))
        values = [NULL if there is None else there, *map(real(p), numbers)]
        launch((blocks(p.size),), (BLOCK,), (p.size, p, g, m, v, new, *values))
    return new


def integers(ids: Array) -> Array:
    """Ids as kernels read them."""
    return by_rows(namespace(ids).astype(ids, "int64", copy=False))


def blocks(n: int) -> int:
    """How many blocks have n threads."""
    return math.ceil(n / BLOCK)


def real(x: Array) -> Any:
    """The numbers of the dtype of `x`: what a parameter REAL of a kernel is given."""
    return x.dtype.type


device.use_kernels(sys.modules[__name__])
