"""What runs the instructions of `machine`, and its loops that are no NumPy's, as numba compiles them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinygrad_rnn.kernels import machine as m
from tinygrad_rnn.kernels.machine import CHECKS, DIMS, FAILED, MOST, STEPS, WIDTH
from tinygrad_rnn.kernels.numba_object import (
    FLOATS,
    WORDS,
    address,
    at,
    byte,
    call,
    entry,
    inlined,
    loops,
    number,
    place,
    room,
    size_of,
    small,
)

# --- instructions -----------------------------------------------------------------------------------------------------


@entry(types.intp(types.CPointer(types.intp), types.intp))
def run(code: Any, first: Any) -> Any:
    """`machine.run`: `code` is an array's head."""
    args = at(room(), code)
    start, count = code[m.ARRAY_DATA // 8], number(code[m.ARRAY_SHAPE // 8])
    for k in range(first, count):
        row = at(start + 8 * WIDTH * k, code)
        data = start + 8 * (WIDTH * k + CHECKS) if row[CHECKS] else row[m.DATA]
        dims, steps = start + 8 * (WIDTH * k + DIMS), start + 8 * (WIDTH * k + STEPS)
        for i in range(row[m.COUNTS]):
            for j in range(row[m.COUNTS + 1]):
                for n in range(MOST):
                    args[n] = row[m.ARGS + n] + i * row[m.OUTER + n] + j * row[m.OUTER + MOST + n]
                call(row[m.LOOP], address(args), dims, steps, data)
        if row[CHECKS] == FAILED:
            row[CHECKS] = 1
            return k
    return count


# --- calls from Python ------------------------------------------------------------------------------------------------


@inlined
def _fits(head: Any, wanted: Any, kind: Any) -> Any:
    """Whether an array is as a plan has it."""
    flags = small(address(head) + m.ARRAY_FLAGS)
    return (
        head[m.OBJECT // 8 - 1] == kind
        and number(head[m.ARRAY_DTYPE // 8] + m.DTYPE_KIND) == wanted[0]
        and small(address(head) + m.ARRAY_NDIM) == wanted[1]
        and flags & wanted[2] == wanted[2]
        and (
            wanted[3] == 0
            or number(head[m.ARRAY_SHAPE // 8]) == 0
            or number(head[m.ARRAY_SHAPE // 8] + 8) <= 1
            or number(head[m.ARRAY_STRIDES // 8] + 8) == wanted[3]
        )
    )


@entry(types.intp(types.CPointer(types.intp), types.CPointer(types.intp)))
def on_arrays(plan: Any, arrays: Any) -> Any:
    """Call a loop on arrays, by a plan as `machine` has it: `arrays` is a tuple's head. 0, or -1 for another number of
    arrays, or which of them, counted from 1, does not fit.
    """
    args, dims, steps = at(room(), plan), at(room(), plan), at(room(), plan)
    heads, count, p = at(address(arrays) + m.ITEMS, plan), plan[m.PLAN_ARRAYS], m.PLAN
    if arrays[m.OBJECT // 8] != count:
        return -1
    for k in range(count):
        head = at(heads[k], plan)
        if not _fits(head, at(address(plan) + 8 * p, plan), plan[m.PLAN_TYPE]):
            return k + 1
        args[k] = head[m.ARRAY_DATA // 8]
        p += m.PLANNED
    for k in range(plan[m.PLAN_DIMS]):
        dims[k] = number(number(heads[plan[p]] + m.ARRAY_SHAPE) + 8 * plan[p + 1])
        p += 2
    for k in range(plan[m.PLAN_STEPS]):
        steps[k] = number(number(heads[plan[p]] + m.ARRAY_STRIDES) + 8 * plan[p + 1])
        p += 2
    call(plan[m.PLAN_LOOP], address(args), address(dims), address(steps), 0)
    return 0


# --- threads ----------------------------------------------------------------------------------------------------------


@intrinsic
def _count(context: Any, address: Any) -> Any:
    """Add 1 to the number at an address, as other threads do, too."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        one = ir.Constant(given[0].type, 1)
        return builder.atomic_rmw("add", builder.inttoptr(given[0], one.type.as_pointer()), one, "seq_cst")

    return types.intp(types.intp), build


@intrinsic
def _seen(context: Any, address: Any) -> Any:
    """The number at an address, into which another thread may write."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        kind = given[0].type
        return builder.load_atomic(builder.inttoptr(given[0], kind.as_pointer()), "seq_cst", kind.width // 8)

    return types.intp(types.intp), build


SPINS = 2000  # looks at whether the others have come, before a thread lets others run in between


@entry(types.void(*[types.CPointer(types.intp)] * 4))
def meet(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Count one more thread in the first argument, and wait until there are dims[0]; fail if the second is not 0.

    The third is the address of a function that lets other threads run.
    """
    _count(args[0])
    spins = 0
    while _seen(args[0]) < dims[0] and not _seen(args[1]):
        spins += 1
        if spins > SPINS:
            call(args[2], 0, 0, 0, 0)
    if _seen(args[1]):
        data[0] = FAILED


# --- loops ------------------------------------------------------------------------------------------------------------


@loops(WORDS)
def copy(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """The words of the first argument become those of the second."""
    x, y = at(args[0], data), at(args[1], data)
    if steps[1] == size_of(data) and steps[0] == size_of(data):
        for i in range(dims[0]):
            y[i] = x[i]
    elif steps[1] == size_of(data) and steps[0] == 0:
        word = x[0]
        for i in range(dims[0]):
            y[i] = word
    else:
        for i in range(dims[0]):
            at(args[1] + i * steps[1], data)[0] = at(args[0] + i * steps[0], data)[0]


@loops({"i": types.int32})
def widen(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Numbers of int32 as such of int64."""
    for i in range(dims[0]):
        at(args[1] + i * steps[1], dims)[0] = at(args[0] + i * steps[0], data)[0]


@loops({"l": types.int64, "i": types.int32})
def check_range(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Fail where not all ids are from dims[1] to dims[2] - 1."""
    for i in range(dims[0]):
        if not dims[1] <= at(args[0] + i * steps[0], data)[0] < dims[2]:
            dims[CHECKS - DIMS] = FAILED  # what `data` is the address of, which has the type of the ids here


@loops(WORDS)
def choose(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """By booleans in the first argument, the words of the second or of the third become those of the fourth."""
    if steps[0] == 0 and steps[3] == size_of(data):  # one boolean for all of a row
        k = 1 if byte(args[0])[0] else 2
        x, y, step = at(args[k], data), at(args[3], data), steps[k]
        if step == size_of(data):
            for i in range(dims[0]):
                y[i] = x[i]
        else:
            for i in range(dims[0]):
                y[i] = at(args[k] + i * step, data)[0]
    else:
        for i in range(dims[0]):
            k = 1 if byte(args[0] + i * steps[0])[0] else 2
            at(args[3] + i * steps[3], data)[0] = at(args[k] + i * steps[k], data)[0]


@loops({**FLOATS, "l": types.int64})
def cast_booleans(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Booleans as numbers."""
    for i in range(dims[0]):
        at(args[1] + i * steps[1], data)[0] = 1 if byte(args[0] + i * steps[0])[0] else 0


@loops(FLOATS)
def cast_integers(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Numbers of int64 as floating ones."""
    for i in range(dims[0]):
        at(args[1] + i * steps[1], data)[0] = at(args[0] + i * steps[0], dims)[0]


@inlined
def _picked(args: Any, dims: Any, steps: Any, data: Any, i: Any) -> Any:
    """The place at the i-th row and column, in the second and third argument, of dims[2] rows of dims[1] words."""
    row, column = at(args[1] + i * steps[1], dims)[0], at(args[2] + i * steps[2], dims)[0]
    row, column = row + (dims[2] if row < 0 else 0), column + (dims[1] if column < 0 else 0)
    return place(args[0], row * dims[1] + column, data)


@loops(WORDS)
def pick(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Words of the first argument, at the rows and columns in the second and third, become those of the fourth."""
    for i in range(dims[0]):
        at(args[3] + i * steps[3], data)[0] = _picked(args, dims, steps, data, i)[0]


@loops(WORDS)
def put(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """The words in the fourth argument become those which `pick` would take, one after the other."""
    for i in range(dims[0]):
        _picked(args, dims, steps, data, i)[0] = at(args[3] + i * steps[3], data)[0]


@loops({"l": types.int64})
def wrapped(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Ids below 0 of the first argument count from the end, dims[1]: those of the second do not."""
    x, y = at(args[0], data), at(args[1], data)
    for i in range(dims[0]):
        y[i] = x[i] + (dims[1] if x[i] < 0 else 0)


@loops(WORDS)
def take(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Rows of dims[1] words, of a table of dims[2] in the first argument, by ids in the second, to the third."""
    for i in range(dims[0]):
        row = at(args[1] + i * steps[1], dims)[0]
        row += dims[2] if row < 0 else 0
        x, y = place(args[0], row * dims[1], data), at(args[2] + i * steps[2], data)
        for k in range(dims[1]):
            y[k] = x[k]
