"""Lowering: calls of a program on buffers as instructions of `kernels.machine`, which run without Python.

A call is lowered if all of it is known: its function and options, the dtypes, shapes and strides of its arrays, and
where they overlap. What it does then is what NumPy's own loop or a stage does, in the same order, so the bits are the
same. Any other call stays as it is, between two runs of the machine. Of an instruction that fails, as of ids out of
range, the call is made, which raises what it raises without a machine.

What is lowered gives no floating-point warnings. Where more than a warning is asked for, by `np.seterr(all="raise")`,
say, a program makes its calls instead.
"""

from __future__ import annotations

import inspect
import operator
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from importlib import import_module
from itertools import combinations, groupby
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tinygrad_rnn.compiler.arrays import address, same_place
from tinygrad_rnn.compiler.numpy_calls import NUMBERS, assign, choose
from tinygrad_rnn.compiler.products import multiply, parts_of
from tinygrad_rnn.compiler.share import Sharing, shared
from tinygrad_rnn.nn.checks import check_range
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import HostArray, scatter_add, take_rows
from tinygrad_rnn.tensor.ops.indexing import checked_ids

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]
Axes: TypeAlias = list[tuple[int, tuple[int, ...]]]  # from outer to inner: a size, and the stride of each array
Rows: TypeAlias = list[list[int]] | None  # the instructions of a call; None if it is not lowered

ON = True  # whether programs are lowered where numba is enabled

# Ufuncs that compute the same bits for a number wherever it stands, since they round at most once, and those of which
# NumPy's loops need not: these are taken of one stretch alone, as NumPy takes them.
ANYWHERE = {
    np.add,
    np.subtract,
    np.multiply,
    np.divide,
    np.negative,
    np.maximum,
    np.minimum,
    np.abs,
    np.square,
    np.sqrt,
}
ANYWHERE |= {np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.isfinite}
ANYWHERE |= {np.logical_and, np.logical_or, np.logical_not}
BY_STRETCHES = {np.exp, np.expm1, np.log, np.log1p, np.tanh, np.sin, np.cos}


# --- what is run ------------------------------------------------------------------------------------------------------


class Code:
    """Calls that were lowered, and so the memory of their arrays, which it holds."""

    def __init__(self, lowering: Lowering, calls: Sequence[Call], rows: Sequence[list[list[int]]], n: int) -> None:
        self.lowering, self.calls = lowering, calls
        self.owners = [k for k, some in enumerate(rows) for _ in some]  # the call of each instruction
        self.code = np.array([row for some in rows for row in some], np.int64).reshape(-1, lowering.machine.WIDTH)
        self.shared = shared(calls, rows, Sharing(n, lowering)) if n > 1 else None

    def __call__(self) -> None:
        at = 0
        if self.shared is not None:
            owner = self.shared.run()
            at = len(self.owners) if owner is None else self.call(owner)
        self.follow(at)

    def follow(self, at: int) -> None:
        """Run the instructions from one on."""
        while (at := self.lowering.machine.run(self.code, at)) < len(self.owners):  # that one has failed
            at = self.call(self.owners[at])

    def call(self, owner: int) -> int:
        """Make a call; the number of the instruction after it."""
        f, args = self.calls[owner]
        f(*args)
        return bisect_right(self.owners, owner)


class Calls:
    """Calls that stay as they are, with floating-point warnings off (`quiet`) or on."""

    def __init__(self, quiet: bool, calls: list[Call]) -> None:
        self.quiet, self.calls = quiet, calls

    def __call__(self) -> None:
        if self.quiet:
            with np.errstate(all="ignore"):
                for f, args in self.calls:
                    f(*args)
        else:
            for f, args in self.calls:
                f(*args)


def lowered(segments: Sequence[Calls], n: int = 1) -> list[Code | Calls]:
    """The same with what can be lowered lowered, and shared by `n` threads: nothing where numba is not enabled."""
    if not ON or backend.stages is None:
        return list(segments)
    lowering = Lowering(import_module("tinygrad_rnn.kernels.machine"), backend.stages)
    marked = [(call, lowering.rows(*call), segment.quiet) for segment in segments for call in segment.calls]
    found: list[Code | Calls] = []
    for quiet, some in groupby(marked, lambda x: x[2] if x[1] is None else None):
        calls, rows, _ = zip(*some, strict=True)
        if quiet is None:
            found.append(Code(lowering, calls, rows, n))
        else:
            found.append(Calls(quiet, list(calls)))
    return found


def only_warned_of() -> bool:
    """Whether floating-point errors are ignored, or warned of, and not raised or told to a function."""
    return set(np.geterr().values()) <= {"ignore", "warn"}


# --- how a call is lowered --------------------------------------------------------------------------------------------


class Lowering:
    """The instructions that do what calls do. It keeps the numbers that they fill arrays with."""

    def __init__(self, machine: Any, stages: Any) -> None:
        self.machine, self.stages = machine, stages
        self.kept: list[HostArray] = []
        # how functions are lowered, and of how many arguments: others have options
        self.known: dict[Any, tuple[Callable[..., Rows], Sequence[int]]] = {
            np.copyto: (self.copyto, (2, 3)),
            np.ndarray.fill: (self.fill, (2,)),
            np.matmul: (self.matmul, (3,)),
            np.dot: (self.dot, (3,)),
            multiply: (self.multiply, (4,)),
            np.concatenate: (self.concatenate, (3,)),
            np.add.reduce: (self.sum, (5,)),
            np.maximum.reduce: (self.maximum, (5,)),
            operator.setitem: (self.put, (3,)),
            choose: (self.choose, (4,)),
            inspect.unwrap(check_range): (self.check_range, (3,)),
            inspect.unwrap(scatter_add): (self.scatter_add, (3,)),
            inspect.unwrap(take_rows): (self.take_rows, (3,)),
            assign: (self.assign, (4,)),
        }
        # what has no `out` of its own: of how many arguments, and with which options
        self.assigned: dict[Any, tuple[Callable[..., Rows], int, Sequence[dict[str, Any]]]] = {
            np.take: (self.take, 2, ({"axis": 0},)),
            np.pad: (self.pad, 2, ({"constant_values": 0},)),
            operator.getitem: (self.pick, 2, ({},)),
            inspect.unwrap(checked_ids): (self.wrapped, 4, ({},)),
        }
        self.known[stages.pack], self.known[stages.product] = (self.pack, (2,)), (self.product, (3,))
        for name, how in STAGES.items():
            self.known[getattr(stages, name)] = partial(self.stage, name, how), range(9)

    def rows(self, f: Any, args: tuple[Any, ...]) -> Rows:
        """The instructions that do what `f(*args)` does; None if it is not lowered."""
        if isinstance(f, partial):  # as a program has options
            if f.args or f.keywords.keys() != {"out"} or f.func not in (np.dot, np.concatenate, np.maximum, np.minimum):
                return None
            f, args = f.func, (*args, 0, f.keywords["out"]) if f.func is np.concatenate else (*args, f.keywords["out"])
        if not isinstance(f, Hashable):
            return None
        how, counts = self.known.get(f, (None, ()))
        if how is not None:
            return how(*args) if len(args) in counts else None
        return self.ufunc(f, args) if f in ANYWHERE or f in BY_STRETCHES else None

    # --- elements

    def ufunc(self, f: np.ufunc, args: tuple[Any, ...]) -> Rows:
        args = tuple(self.as_arrays(args))
        if len(args) != f.nargs or not all(isinstance(a, np.ndarray) and char_of(a) in "fdli?" for a in args):
            return None
        *xs, y = args
        if f is np.multiply and char_of(y) in "fd" and {char_of(x) for x in xs} == {"?", char_of(y)}:  # cast, as a mask
            before = [self.numbers(x, y.dtype) if char_of(x) == "?" else (x, []) for x in xs]
            after = self.ufunc(f, (*(x for x, _ in before), y))
            return None if after is None else [*(row for _, rows in before for row in rows), *after]
        loop = self.machine.loop_of(f, "".join(x.dtype.char for x in xs) + "->" + y.dtype.char)
        if f in BY_STRETCHES and not all(x.flags.c_contiguous and x.shape == y.shape for x in args):
            return None
        return self.elements(loop, args)

    def elements(self, loop: tuple[int, int] | None, args: Sequence[HostArray]) -> Rows:
        """A loop over the elements of arrays, of which the last is written, and the others are broadcast to it."""
        *xs, y = args
        axes = axes_of(args)
        if loop is None or axes is None or not can_write(y) or not all(same_place(x, y) or apart(x, y) for x in xs):
            return None
        if not y.size:
            return []
        *outer, (n, steps) = [(1, (0,) * len(args))] * (3 - len(axes)) + axes
        return [self.row(loop, args, (n,), steps, outer)]

    def row(
        self,
        loop: tuple[int, int],
        args: Sequence[HostArray | int],
        dims: Sequence[int],
        steps: Sequence[int] = (),
        outer: Axes | Sequence[tuple[int, tuple[int, ...]]] = (),
        checks: bool = False,
    ) -> list[int]:
        """One instruction; arguments are arrays or addresses."""
        m = self.machine
        row = [0] * m.WIDTH
        row[m.LOOP], row[m.DATA] = loop
        row[m.CHECKS] = int(checks)
        row[m.COUNTS : m.COUNTS + 2] = [n for n, _ in outer] or [1, 1]
        row[m.ARGS : m.ARGS + len(args)] = [a if isinstance(a, int) else address(a) for a in args]
        for k, (_, moves) in enumerate(outer):
            row[m.OUTER + k * m.MOST : m.OUTER + k * m.MOST + len(args)] = moves
        row[m.DIMS : m.DIMS + len(dims)] = dims
        row[m.STEPS : m.STEPS + len(steps)] = steps
        return row

    def own(self, loops: Any, kind: Any) -> tuple[int, int]:
        """A loop that is made for the machine."""
        return loops[kind], 0

    def copyto(self, y: Any, x: Any, casting: str = "same_kind") -> Rows:
        if not (isinstance(x, np.ndarray) and isinstance(casting, str) and is_plain(y) and apart(x, y)):
            return None
        if x.dtype == y.dtype:
            return self.elements(self.own(self.machine.copy, y.itemsize), (x, y))
        kind = char_of(x) + char_of(y)
        if kind in ("?f", "?d", "?l") or (kind in ("lf", "ld") and casting in ("same_kind", "unsafe")):
            cast = self.machine.cast_booleans if kind[0] == "?" else self.machine.cast_integers
            return self.elements(self.own(cast, kind[1]), (x, y))
        return None

    def fill(self, y: HostArray, value: Any) -> Rows:
        return self.copyto(y, self.number(value, y)) if type(value) in NUMBERS and is_plain(y) else None

    def numbers(self, x: HostArray, dtype: Any) -> tuple[HostArray, list[list[int]]]:
        """Booleans as an array of numbers, which is kept, and what fills it."""
        found = np.empty(x.shape, dtype)
        self.kept.append(found)
        return found, self.copyto(found, x) or []

    def as_arrays(self, args: Sequence[Any]) -> list[Any]:
        """Arguments with Python's numbers as arrays of the dtype of the first array, where NumPy takes them so."""
        like = next((a for a in args if isinstance(a, np.ndarray)), np.empty(0, bool))
        kinds = {"f": (int, float), "i": (int,)}.get(like.dtype.kind, ())
        return [self.number(a, like) if type(a) in kinds and abs(a) < 2**31 else a for a in args]

    def number(self, value: Any, like: HostArray) -> HostArray:
        """One of Python's numbers as an array, which is kept."""
        found = np.empty((), like.dtype)
        found.fill(value)
        self.kept.append(found)
        return found

    def choose(self, condition: Any, a: Any, b: Any, y: HostArray) -> Rows:
        if not is_plain(y) or not isinstance(condition, np.ndarray) or condition.dtype.char != "?":
            return None
        a, b = (self.number(x, y) if type(x) is float and y.dtype.kind == "f" else x for x in (a, b))
        if not all(isinstance(x, np.ndarray) and x.dtype == y.dtype and apart(x, y) for x in (a, b)):
            return None
        return self.elements(self.own(self.machine.choose, y.itemsize), (condition, a, b, y))

    def concatenate(self, xs: Any, axis: Any, y: HostArray) -> Rows:
        if type(axis) is not int or not all(isinstance(x, np.ndarray) and x.ndim == y.ndim for x in xs):
            return None
        ends = np.cumsum([x.shape[axis] for x in xs])
        found = [self.copyto(part, x) for part, x in zip(np.split(y, ends[:-1], axis), xs, strict=True)]
        return None if any(rows is None for rows in found) else [row for rows in found for row in rows or ()]

    def pad(self, x: HostArray, widths: Any, y: HostArray) -> Rows:
        """Zeros around a copy."""
        widths = np.broadcast_to(np.asarray(widths), (x.ndim, 2)).tolist()
        zeros = self.fill(y, 0)
        copy = self.copyto(y[tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))], x)
        return None if zeros is None or copy is None else zeros + copy

    # --- products and sums

    def matmul(self, a: Any, b: Any, y: Any) -> Rows:
        """Of matrices, by NumPy's own loop, which chooses between gemm, gemv, syrk and a loop of its own."""
        if not all(isinstance(x, np.ndarray) and x.ndim == 2 and x.dtype == y.dtype for x in (a, b, y)):
            return None
        if char_of(y) not in "fd" or not can_write(y) or not (apart(a, y) and apart(b, y)):
            return None
        loop = self.machine.loop_of(np.matmul, f"{y.dtype.char * 2}->{y.dtype.char}")
        if loop is None or not (a.flags.aligned and b.flags.aligned):
            return None
        steps = [s if n > 1 else 0 for x in (a, b, y) for n, s in zip(x.shape, x.strides, strict=True)]
        return [self.row(loop, (a, b, y), (1, *a.shape, b.shape[1]), (0, 0, 0, *steps))] if y.size else []

    def dot(self, a: Any, b: Any, y: Any) -> Rows:
        """The same call of BLAS as `matmul`, where the matrices are such that it takes no copies."""
        if not all(isinstance(x, np.ndarray) and x.ndim == 2 for x in (a, b, y)) or not y.flags.c_contiguous:
            return None
        if not all(x.flags.c_contiguous or x.flags.f_contiguous for x in (a, b)):
            return None
        return self.matmul(a, b, y) if sorted((*a.shape, b.shape[1]))[1] > 1 and a.shape[1] > 1 else None

    def multiply(self, *args: Any) -> Rows:
        """The parts of a product."""
        found = [self.matmul(*some) for some in parts_of(*args)]
        return None if any(rows is None for rows in found) else [row for rows in found for row in rows or ()]

    def pack(self, W: Any, packed: HostArray) -> Rows:
        """A weight in panels."""
        char = char_of(packed)
        if char not in "fd" or char_of(W) != char or W.ndim != 2 or not packed.flags.c_contiguous:
            return None
        width = self.stages.width_of(char)
        fit = packed.shape == (-(-W.shape[1] // width), len(W), width) and W.flags.aligned and apart(W, packed)
        if not (fit and can_write(packed) and W.size):
            return None
        return [self.row(self.own(self.stages.pack.loops, char), (W, packed), W.shape, W.strides)]

    def product(self, x: Any, w: Any, y: HostArray) -> Rows:
        """A product with a weight in panels, of which some columns may be there."""
        char = char_of(y)
        if char not in "fd" or {char_of(x), char_of(w)} != {char} or not x.ndim == y.ndim == 2:
            return None
        width = self.stages.width_of(char)
        if w.shape != (-(-y.shape[1] // width), x.shape[1], width) or len(x) != len(y) or not (x.size and y.size):
            return None
        dense = all(a.flags.aligned and (a.shape[1] == 1 or a.strides[1] == a.itemsize) for a in (x, y))
        if not (dense and w.flags.c_contiguous and can_write(y) and apart(x, y) and apart(w, y)):
            return None
        steps = (x.strides[0], 0, y.strides[0])
        return [self.row(self.own(self.stages.product.loops, char), (x, w, y), (*x.shape, y.shape[1]), steps)]

    def sum(self, x: Any, axis: Any, dtype: Any, y: Any, keepdims: Any) -> Rows:
        """Sums in the order in which NumPy takes them: of rows below one another, or of each stretch."""
        if dtype is not None or not isinstance(x, np.ndarray) or x.dtype != y.dtype or char_of(y) not in "fdl":
            return None
        axis = range(x.ndim) if axis is None else (axis,) if type(axis) is int else axis
        over = {k % x.ndim for k in axis}
        kept = [k for k in range(x.ndim) if k not in over]
        y = y.reshape([1 if k in over else x.shape[k] for k in range(x.ndim)])
        if not (x.size and can_write(y) and x.flags.aligned and apart(x, y) and y.flags.c_contiguous):
            return None
        rows, columns = (axes_of([x, y], axes) for axes in (sorted(over), kept))
        loop = self.machine.loop_of(np.add, f"{y.dtype.char * 2}->{y.dtype.char}")
        if loop is None or rows is None or columns is None or len(rows) != 1 or len(columns) > 1:
            return None
        (m, (down, _)), (n, (across, _)), size = rows[0], columns[0] if columns else (1, (0, 0)), x.itemsize
        start = self.fill(y, 0) or []
        if n > 1 and across == size and (m == 1 or down >= n * size):
            return [*start, self.row(loop, (y, x, y), (n,), (size,) * 3, [(1, (0, 0, 0)), (m, (0, down, 0))])]
        if m > 1 and down == size and (n == 1 or across >= m * size):
            return [*start, self.row(loop, (y, x, y), (m,), (0, size, 0), [(1, (0, 0, 0)), (n, (size, across, size))])]
        return None

    def maximum(self, x: Any, axis: Any, dtype: Any, y: Any, keepdims: Any) -> Rows:
        """The largest of each row, which begins as the first number of the row."""
        if dtype is not None or not isinstance(x, np.ndarray) or x.dtype != y.dtype or char_of(y) not in "fd":
            return None
        if x.ndim != 2 or axis != 1 or not (x.size and x.flags.c_contiguous and y.flags.c_contiguous and apart(x, y)):
            return None
        loop = self.machine.loop_of(np.maximum, f"{y.dtype.char * 2}->{y.dtype.char}")
        (m, n), size = x.shape, x.itemsize
        first = self.copyto(y.reshape(m), x[:, 0])
        if loop is None or first is None or not can_write(y):
            return None
        moves: Axes = [(1, (0, 0, 0)), (m, (size, n * size, size))]
        rest = [self.row(loop, (y, address(x) + size, y), (n - 1,), (0, size, 0), moves)] if n > 1 else []
        return first + rest

    # --- ids

    def wide(self, ids: Any) -> tuple[Any, list[list[int]]]:
        """Ids as int64, in an array that is kept if they are of int32, and what fills it."""
        if not is_ids(ids, "i"):
            return ids, []
        found = np.empty(ids.shape, np.int64)
        self.kept.append(found)
        return found, self.elements(self.own(self.machine.widen, "i"), (ids, found)) or []

    def check_range(self, what: str, ids: Any, count: int) -> Rows:
        return self.checked(ids, 0, count) if is_ids(ids, "li") else None

    def checked(self, ids: HostArray, low: int, high: int) -> list[list[int]]:
        """Fail where ids are out of a range."""
        loop = self.own(self.machine.check_range, char_of(ids))
        return [self.row(loop, (ids,), (ids.size, low, high), (ids.itemsize,), checks=True)] if ids.size else []

    def assign(self, f: Any, y: HostArray, args: Any, kwargs: Any) -> Rows:
        """What has no `out` of its own."""
        how, count, options = self.assigned.get(f, (None, 0, ())) if isinstance(f, Hashable) else (None, 0, ())
        return how(*args, y) if how is not None and len(args) == count and kwargs in options else None

    def take(self, x: Any, ids: Any, y: HostArray) -> Rows:
        """Rows of a table."""
        given, (ids, before) = ids, self.wide(ids)
        if not (is_ids(ids) and isinstance(x, np.ndarray) and x.ndim == 2 and is_plain(x) and x.flags.c_contiguous):
            return None
        if x.dtype != y.dtype or y.shape != (*ids.shape, x.shape[1]) or not y.flags.c_contiguous:
            return None
        if not (y.size and can_write(y) and apart(x, y) and apart(ids, y)):
            return None
        loop = self.own(self.machine.take, y.itemsize)
        row = self.row(loop, (x, ids, y), (ids.size, *x.shape[::-1]), (0, ids.itemsize, x.shape[1] * y.itemsize))
        return [*self.checked(given, -len(x), len(x)), *before, row]

    def take_rows(self, y: HostArray, x: Any, ids: Any) -> Rows:
        """`take`, of ids that were checked."""
        return self.take(x, ids, y)

    def pick(self, x: Any, index: Any, y: HostArray) -> Rows:
        """Some places of a matrix."""
        return self.placed(self.machine.pick, x, index, y, y)

    def put(self, y: Any, index: Any, x: Any) -> Rows:
        """Numbers put at some places of a matrix."""
        return self.placed(
            self.machine.put, y, index, self.number(x, y) if type(x) in NUMBERS and is_plain(y) else x, y
        )

    def placed(self, loops: Any, x: Any, index: Any, beside: Any, written: HostArray) -> Rows:
        """`pick` or `put` at an index by rows and columns of a matrix; `beside` it is what is picked or put."""
        if not (isinstance(x, np.ndarray) and x.ndim == 2 and is_plain(x) and x.flags.c_contiguous and x.size):
            return None
        if type(index) is not tuple or len(index) != 2:
            return None
        (rows, before), (columns, more) = map(self.wide, index)
        if not (is_ids(rows) and is_ids(columns) and rows.ndim == 1 and rows.shape == columns.shape):
            return None
        if not isinstance(beside, np.ndarray) or beside.dtype != x.dtype or beside.shape not in ((), rows.shape):
            return None
        if not can_write(written) or not all(apart(a, b) for a, b in combinations((rows, columns, x, beside), 2)):
            return None
        steps = (0, rows.itemsize, columns.itemsize, *(beside.strides or (0,)))
        dims = (len(rows), *x.shape[::-1])
        checks = self.checked(index[0], -len(x), len(x)) + self.checked(index[1], -x.shape[1], x.shape[1])
        return [*checks, *before, *more, self.row(self.own(loops, x.itemsize), (x, rows, columns, beside), dims, steps)]

    def wrapped(self, ids: Any, size: int, axis: int, x: Any, y: HostArray) -> Rows:
        """Ids in range, those from the end as those from the front."""
        given, (ids, before) = ids, self.wide(ids)
        if not (is_ids(ids) and is_ids(y) and ids.shape == y.shape and can_write(y) and apart(ids, y)):
            return None
        row = self.row(self.own(self.machine.wrapped, "l"), (ids, y), (ids.size, size))
        return [*self.checked(given, -size, size), *before, row] if y.size else []

    def scatter_add(self, y: Any, index: Any, g: Any) -> Rows:
        """Rows added to those of a table, by the stage that does it."""
        given = index[0] if type(index) is tuple and len(index) == 1 else index
        ids, before = self.wide(given)
        if not (is_ids(ids) and isinstance(g, np.ndarray) and g.dtype == y.dtype and char_of(y) in "fd"):
            return None
        if y.ndim != 2 or g.shape != (*ids.shape, y.shape[1]) or not (g.flags.c_contiguous or g.ndim == 2):
            return None
        if not (g.size and can_write(y) and apart(g, y) and apart(ids, y)):
            return None
        if y.shape[1] > 1 and not y.strides[1] == g.strides[-1] == y.itemsize:
            return None
        loop = self.own(self.stages.add_rows.loops, y.dtype.char)
        steps = (y.strides[0], 0, g.strides[0] if g.ndim == 2 else y.shape[1] * y.itemsize)
        row = self.row(loop, (y, ids, g), (ids.size, y.shape[1], len(y)), steps)
        return [*self.checked(given, -len(y), len(y)), *before, row]

    # --- stages

    def stage(self, name: str, how: Callable[..., Any], *args: Any) -> Rows:
        """A stage of numba's, for arrays of one dtype without gaps."""
        floats = [a for a in args if not is_ids(a)]
        char = char_of(floats[0])
        if char not in "fd" or not all(char_of(a) == char and blocks_apart(a) for a in floats):
            return None
        dims = how(*(a.shape for a in args))
        far = {blocks_apart(a) for a in floats if a.ndim == 3 and len(a) > 1} or {0}
        if dims is None or len(far) > 1 or not (floats[0].size and all(can_write(a) for a in floats)):
            return None
        return [self.row(self.own(getattr(self.stages, name).loops, char), args, (*dims[:2], *far, *dims[3:]))]


def _pointwise(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The dims of a stage whose arguments are all (B, H)."""
    return shapes[0] if len(shapes[0]) == 2 and len(set(shapes)) == 1 else None


def _lstm_gates(z: Any, x: Any, c: Any, y: Any) -> tuple[int, ...] | None:
    return (*c, c[0]) if y == (6, *c) and z == x == (c[0], 4 * c[1]) else None


def _lstm_slopes(g: Any, y: Any, c: Any, dz: Any, dc: Any) -> tuple[int, ...] | None:
    fit = g in ((2, *c), (6, *c)) and y == (6, *c) and dz == (c[0], 4 * c[1]) and dc == c
    return (*c, c[0], g[0]) if fit else None


def _gru_gates(a: Any, x: Any, b: Any, h: Any, y: Any) -> tuple[int, ...] | None:
    return (*h, h[0], *b) if y == (5, *h) and a == x == (h[0], 3 * h[1]) and b in ((0,), (h[1],)) else None


def _gru_slopes(g: Any, y: Any, h: Any, inward: Any, across: Any, rest: Any) -> tuple[int, ...] | None:
    fit = g in ((1, *h), (5, *h)) and y == (5, *h) and inward == across == (h[0], 3 * h[1]) and rest == h
    return (*h, h[0], g[0]) if fit else None


def _carry_rows(runs: Any, before: Any, y: Any) -> tuple[int, ...] | None:
    return _clear_rows(runs, y) if before == y else None


def _clear_rows(runs: Any, y: Any) -> tuple[int, ...] | None:
    return (*y[1:], y[1], y[0]) if len(y) == 3 and runs == (y[1], 1) else None


# the stages, and their dims by the shapes of their arguments; None if these do not fit
STAGES: dict[str, Callable[..., tuple[int, ...] | None]] = {
    "rnn_tanh": _pointwise,
    "rnn_tanh_slope": _pointwise,
    "lstm_gates": _lstm_gates,
    "lstm_slopes": _lstm_slopes,
    "gru_gates": _gru_gates,
    "gru_slopes": _gru_slopes,
    "carry_rows": _carry_rows,
    "clear_rows": _clear_rows,
}


# --- arrays in memory -------------------------------------------------------------------------------------------------


def axes_of(arrays: Sequence[HostArray], which: Sequence[int] | None = None) -> Axes | None:
    """The axes along which arrays, broadcast to the last of them, are walked through, as few as can be, in the order in
    which that one lies in memory; None if more than three, or if the last is not the largest. `which` are some axes of
    arrays of one number of axes alone, in their order.

    >>> turned = np.zeros((2, 3)).T
    >>> axes_of([turned, turned])
    [(6, (8, 8))]
    """
    shape = arrays[-1].shape if which is None else tuple(max(a.shape[k] for a in arrays) for k in which)
    try:
        views = [np.broadcast_to(a, shape) for a in arrays] if which is None else arrays
    except ValueError:
        return None
    axes = sorted(range(len(shape)), key=lambda k: -abs(views[-1].strides[k])) if which is None else which
    found: Axes = []
    for k in axes:
        n = max(a.shape[k] for a in views)
        steps = tuple(a.strides[k] if a.shape[k] > 1 else 0 for a in views)
        if n == 1:
            continue
        if found and all(outer == n * inner for outer, inner in zip(found[-1][1], steps, strict=True)):
            found[-1] = (found[-1][0] * n, steps)
        else:
            found.append((n, steps))
    found = found or [(1, tuple(0 for _ in arrays))]
    return found if len(found) <= 3 else None


def apart(a: HostArray, b: HostArray) -> bool:
    """Whether two arrays have no byte in common."""
    if not (a.size and b.size):
        return True
    (low, high), (first, end) = byte_bounds(a), byte_bounds(b)
    return high <= first or end <= low


def char_of(a: HostArray) -> str:
    """The character of a dtype in the byte order of the machine; of any other one that no loop has."""
    return a.dtype.char if a.dtype.isnative else "-"


def is_plain(a: HostArray) -> bool:
    """Whether an array holds numbers or booleans, in the byte order of the machine."""
    return a.dtype.kind in "fiub" and a.dtype.isnative and a.itemsize <= 8


def blocks_apart(a: HostArray) -> int:
    """How many rows lie between the beginnings of an array's blocks, (k, B, H) without gaps in each; 0 if otherwise."""
    if a.flags.c_contiguous:
        return a.shape[1] if a.ndim == 3 else 1
    dense = a.ndim == 3 and a[0].flags.c_contiguous and a.strides[0] % (width := a.shape[2] * a.itemsize) == 0
    return max(a.strides[0] // width, 0) if dense else 0


def can_write(a: HostArray) -> bool:
    """Whether an array may be written to, and no two of its elements lie at one place."""
    distinct = all(abs(s) >= a.itemsize for s, n in zip(a.strides, a.shape, strict=True) if n > 1)
    return bool(a.flags.writeable and a.flags.aligned and distinct)


def is_ids(a: Any, kinds: str = "l") -> bool:
    """Whether ids are an array of int64, or of other kinds of integers, without gaps."""
    return isinstance(a, np.ndarray) and char_of(a) in kinds and a.flags.c_contiguous
