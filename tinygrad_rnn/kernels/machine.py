"""Lists of instructions on memory, and the compiled function that runs one without Python and without its lock.

An instruction calls a loop: a C function of the form that NumPy's ufuncs are made of,

    void loop(char **args, const intptr_t *dims, const intptr_t *steps, void *data)

at each place of two outer axes. So what NumPy computes is computed by NumPy's own loops (`loop_of` finds them in the
ufunc), the matrix product included, which chooses the call of BLAS: the bits are the same whatever the NumPy, the BLAS
and the processor. Copies, what looks at ids, and the stages of `numba_stages` are loops of the same form, by numba.

A list is an array of int64, one instruction a row of WIDTH numbers. All that it depends on stands in it, so that any
thread may run one:

    LOOP       the address of the loop
    DATA       what the loop is given as `data`
    CHECKS     1 of a loop that may fail: it is given this number as `data`, and makes it FAILED
    COUNTS  2  how often it is called, along two outer axes
    ARGS    6  the addresses of its arguments
    OUTER  12  how far, in bytes, each argument moves along the first outer axis, then along the second
    DIMS    4  what the loop is given as `dims`
    STEPS   9  what it is given as `steps`, in bytes

Imported by `enable_numba` only, as `numba_stages` is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LOOP, DATA, CHECKS, COUNTS, ARGS, OUTER, DIMS, STEPS, WIDTH = 0, 1, 2, 3, 5, 11, 23, 27, 36
FAILED = 2
MOST = OUTER - ARGS  # arguments of a loop


@intrinsic
def call(context: Any, loop: Any, args: Any, dims: Any, steps: Any, data: Any) -> Any:
    """Call the loop at an address; all are addresses."""

    def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
        pointers = [builder.inttoptr(a, cgutils.voidptr_t) for a in given[1:]]
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] * 4)
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), pointers)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), build


@intrinsic
def at(context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer of the type of another one."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return like(types.intp, like), build


@intrinsic
def byte(context: Any, address: Any) -> Any:
    """An address as a pointer to bytes."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int8)(types.intp), build


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


@njit("intp(intp[:, ::1], intp)", cache=True, nogil=True)
def run(code: Any, first: int) -> Any:
    """Run the instructions from number `first` on: the number of the one that failed, or how many there are."""
    args = np.empty(MOST, np.int64)
    start = code.ctypes.data
    for k in range(first, code.shape[0]):
        row = start + 8 * WIDTH * k
        data = row + 8 * CHECKS if code[k, CHECKS] else code[k, DATA]
        for i in range(code[k, COUNTS]):
            for j in range(code[k, COUNTS + 1]):
                for n in range(MOST):
                    args[n] = code[k, ARGS + n] + i * code[k, OUTER + n] + j * code[k, OUTER + MOST + n]
                call(code[k, LOOP], args.ctypes.data, row + 8 * DIMS, row + 8 * STEPS, data)
        if code[k, CHECKS] == FAILED:
            code[k, CHECKS] = 1
            return k
    return code.shape[0]


# --- threads ----------------------------------------------------------------------------------------------------------

SPINS = 2000  # looks at whether the others have come, before a thread lets others run in between


@cfunc(types.void(*[types.CPointer(types.intp)] * 4), nopython=True, cache=True)
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


# --- loops of NumPy ---------------------------------------------------------------------------------------------------


class _UFunc(ctypes.Structure):
    """The head of a ufunc in memory, `PyUFuncObject` in `numpy/ufuncobject.h`."""

    _fields_ = [
        ("references", ctypes.c_ssize_t),
        ("type", ctypes.c_void_p),
        *[(name, ctypes.c_int) for name in ("nin", "nout", "nargs", "identity")],
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("ntypes", ctypes.c_int),
    ]


def loop_of(f: np.ufunc, kinds: str) -> tuple[int, int] | None:
    """The addresses of the loop of a ufunc for these types, as in `f.types`, and of its data; None if it has none.

    >>> loop_of(np.add, "ff->e") is None
    True
    """
    head = _UFunc.from_address(id(f))
    if kinds not in f.types or (head.nin, head.nout, head.ntypes) != (f.nin, f.nout, f.ntypes):
        return None
    k = f.types.index(kinds)
    return int(head.functions[k] or 0), int(head.data[k] or 0)


# --- loops of our own -------------------------------------------------------------------------------------------------

FLOATS = {"f": types.float32, "d": types.float64}
WORDS = {1: types.int8, 2: types.int16, 4: types.int32, 8: types.int64}  # by their size: what is copied, whatever it is
_numbers = types.CPointer(types.intp)


def loops(kinds: Mapping[Any, Any]) -> Callable[[Callable[..., None]], dict[Any, Any]]:
    """Compile a loop for the types of numbers that `data` may point to: it is given as their example."""

    def compiled(f: Callable[..., None]) -> dict[Any, Any]:
        make = partial(cfunc, nopython=True, cache=True, error_model="numpy")
        return {k: make(types.void(_numbers, _numbers, _numbers, types.CPointer(t)))(f) for k, t in kinds.items()}

    return compiled


@loops(WORDS)
def copy(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """The words of the first argument become those of the second."""
    n, size = dims[0], carray(data, 0).itemsize
    if steps[1] == size and steps[0] in (0, size):
        x, y = carray(at(args[0], data), n), carray(at(args[1], data), n)
        if steps[0]:
            for i in range(n):
                y[i] = x[i]
        else:
            y[:] = x[0]
    else:
        for i in range(n):
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
    n, size = dims[0], carray(data, 0).itemsize
    if steps[0] == 0 and steps[3] == size:  # one boolean for all of a row
        k = 1 if byte(args[0])[0] else 2
        x, y = carray(at(args[k], data), n), carray(at(args[3], data), n)
        if steps[k] == size:
            for i in range(n):
                y[i] = x[i]
        else:
            for i in range(n):
                y[i] = at(args[k] + i * steps[k], data)[0]
    else:
        for i in range(n):
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


@loops(WORDS)
def pick(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Of rows of dims[1] words, dims[2] rows: those at the rows and columns in the second and third argument."""
    width, size = dims[1], carray(data, 0).itemsize
    for i in range(dims[0]):
        row, column = at(args[1] + i * steps[1], dims)[0], at(args[2] + i * steps[2], dims)[0]
        row, column = row + (dims[2] if row < 0 else 0), column + (width if column < 0 else 0)
        at(args[3] + i * steps[3], data)[0] = at(args[0] + (row * width + column) * size, data)[0]


@loops(WORDS)
def put(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """The words in the fourth argument become those which `pick` would take, one after the other."""
    width, size = dims[1], carray(data, 0).itemsize
    for i in range(dims[0]):
        row, column = at(args[1] + i * steps[1], dims)[0], at(args[2] + i * steps[2], dims)[0]
        row, column = row + (dims[2] if row < 0 else 0), column + (width if column < 0 else 0)
        at(args[0] + (row * width + column) * size, data)[0] = at(args[3] + i * steps[3], data)[0]


@loops({"l": types.int64})
def wrapped(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Ids below 0 of the first argument count from the end, dims[1]: those of the second do not."""
    x, y = carray(at(args[0], data), dims[0]), carray(at(args[1], data), dims[0])
    for i in range(dims[0]):
        y[i] = x[i] + (dims[1] if x[i] < 0 else 0)


@loops(WORDS)
def take(args: Any, dims: Any, steps: Any, data: Any) -> None:
    """Rows of dims[1] words, of a table of dims[2] in the first argument, by ids in the second, to the third."""
    width, size = dims[1], carray(data, 0).itemsize
    for i in range(dims[0]):
        row = at(args[1] + i * steps[1], dims)[0]
        row += dims[2] if row < 0 else 0
        x, y = carray(at(args[0] + row * width * size, data), width), carray(at(args[2] + i * steps[2], data), width)
        for k in range(width):
            y[k] = x[k]
