"""Lists of instructions on memory, and the compiled function that runs one without Python and without its lock.

An instruction calls a loop: a C function of the form that NumPy's ufuncs are made of,

    void loop(char **args, const intptr_t *dims, const intptr_t *steps, void *data)

at each place of two outer axes. So what NumPy computes is computed by NumPy's own loops (`loop_of` finds them in the
ufunc), the matrix product included, which chooses the call of BLAS: the bits are the same whatever the NumPy, the BLAS
and the processor. Copies, what looks at ids, and the stages of `numba_stages` are loops of the same form, by numba, of
which `native` has the addresses.

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
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tinygrad_rnn.kernels import native

LOOP, DATA, CHECKS, COUNTS, ARGS, OUTER, DIMS, STEPS, WIDTH = 0, 1, 2, 3, 5, 11, 23, 27, 36
FAILED = 2
MOST = OUTER - ARGS  # arguments of a loop


def run(code: Any, first: int) -> int:
    """Run the instructions from number `first` on: the number of the one that failed, or how many there are."""
    return int(_run()(code, first))


def _run() -> Any:
    return native.function("run", ctypes.py_object, ctypes.c_ssize_t)


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


class Loops:
    """A loop by numba: the address of it for each kind of numbers that it is compiled for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[Any, int] = {}

    def __getitem__(self, kind: Any) -> int:
        found = self.known.get(kind)
        if found is None:
            found = self.known[kind] = native.address(self.name, kind)
        return found

    @property
    def address(self) -> int:
        """That of a loop of one kind alone."""
        return self[""]


copy, widen, choose = Loops("copy"), Loops("widen"), Loops("choose")
cast_booleans, cast_integers = Loops("cast_booleans"), Loops("cast_integers")
check_range, wrapped = Loops("check_range"), Loops("wrapped")
take, pick, put = Loops("take"), Loops("pick"), Loops("put")
meet = Loops("meet")


# --- on arrays --------------------------------------------------------------------------------------------------------

# Where things are in the head of an object of Python's, in bytes: its type, the items of a tuple, and what NumPy's
# `ndarraytypes.h` has in PyArrayObject and PyArray_Descr.
OBJECT, ITEMS = object.__basicsize__, tuple.__basicsize__
ARRAY_DATA, ARRAY_NDIM, ARRAY_SHAPE, ARRAY_STRIDES, ARRAY_DTYPE, ARRAY_FLAGS = (
    OBJECT + k for k in (0, 8, 16, 24, 40, 48)
)
DTYPE_KIND = OBJECT + 8  # and its character, byte order and number: 8 bytes
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400

# A plan says how a loop is called on arrays: the loop, the type of an array, how many arrays, dims and steps there are;
# of each array its dtype, axes, flags, and, if its rows may be apart, the bytes of a number; of each of the dims and
# steps the array and the axis.
PLAN_LOOP, PLAN_TYPE, PLAN_ARRAYS, PLAN_DIMS, PLAN_STEPS, PLAN, PLANNED = 0, 1, 2, 3, 4, 5, 4
