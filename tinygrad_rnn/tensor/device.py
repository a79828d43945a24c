"""What a CUDA device asks for that a host does not.

An install that is whole, one device in use, checks that nobody waits for, sums in a fixed order,
random numbers made where they are used, and what a graph that is captured asks for.

Arrays here are CuPy's; what computes takes their library as `xp`, so that a test can give NumPy.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from tinygrad_rnn.errors import BackendMismatchError

INSTALL = "python -m pip install 'cupy-cuda12x[ctk]', or 'cupy-cuda13x[ctk]', as your driver is"


_CUPY = frozenset({"cupy", "cupy."})  # beginnings of the names of its modules


def is_on_device(x: Any) -> bool:
    """Whether `x` is an array of CuPy's."""
    return type(x).__module__[:5] in _CUPY


def cupy_here() -> Any:
    """CuPy, or an error that says how to get it."""
    try:
        import cupy
    except ImportError as error:
        raise BackendMismatchError(
            f'device "cuda" needs CuPy: {INSTALL} (tinygrad-rnn doctor knows)'
        ) from error
    if not cupy.cuda.is_available():
        raise BackendMismatchError(
            'device "cuda": CuPy is installed, but finds no usable GPU or driver'
        )
    return cupy


def probe() -> None:
    """Run a kernel and a product; what half an install lacks is an error that says so."""
    cupy = cupy_here()
    what = "compile a kernel"
    try:
        x = cupy.ones((2, 2), dtype="float32") + 1
        x.get()
        what = "multiply matrices"
        (x @ x).get()
    except (ImportError, OSError, RuntimeError) as error:  # CuPy's own and CUDA's are RuntimeErrors
        raise BackendMismatchError(
            f'device "cuda": CuPy is installed, but cannot {what} '
            f"({' '.join(str(error).split())}): CUDA's libraries come with {INSTALL}"
        ) from error


def current() -> int:
    """The number of the device that this thread computes on."""
    cupy = sys.modules.get("cupy")
    return int(cupy.cuda.Device().id) if cupy is not None and cupy.cuda.is_available() else 0


def check_number(number: int) -> None:
    """Raise unless the device `number` is there, and is the one that this thread computes on."""
    cupy = cupy_here()
    count = cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise ValueError(
            f"device 'cuda:{number}' does not exist: "
            f"this machine has {count} GPU(s), counted from 0"
        )
    if number != current():
        raise BackendMismatchError(
            f'device "cuda:{number}": this process computes on cuda:{current()}, and on one GPU '
            f"only; choose it first, by cupy.cuda.Device({number}).use()"
        )


def use(device: str) -> None:
    """Compute on `device`, "cuda:1" say, from now on in this thread: "cuda" means that one."""
    number = int(device.partition(":")[2] or current())
    cupy = cupy_here()
    if number < cupy.cuda.runtime.getDeviceCount():  # else whoever moves something is told
        cupy.cuda.Device(number).use()


capture: ContextVar[Any] = ContextVar("capture", default=None)
"""The `Capture` of `compiler/graphs.py` while what is asked of the device becomes a graph; or None

What the host hands to a kernel would be the same at each launch then, and nothing can be read.
"""


# --- checks that nobody waits for -----------------------------------------------------------------

MOST = 64  # checks that are put off at a time
SLOTS = 1024  # flags of a device: many times as many
OF_GRAPHS = 1024  # flags more, which graphs keep for themselves

_flags: dict[int, Any] = {}  # of each device, as numbers: they are read beside others
_slots = itertools.count()
free_slots = list(range(SLOTS, SLOTS + OF_GRAPHS))
_put_off: list[tuple[Flag, Callable[[], Exception]]] = []


class Flag(NamedTuple):
    """A number on a device, `place`, which is 0, and which a kernel sets to 1 where it is wrong."""

    device: int
    slot: int
    place: Any

    def raise_later(self, error: Callable[[], Exception]) -> None:
        """Raise `error()` when something is next read from the device, if the flag is set then."""
        if (graph := capture.get()) is not None:
            graph.checks.append((self, error))
            return
        _put_off.append((self, error))
        if len(_put_off) >= MOST:
            check_now()


def new_flag() -> Flag:
    """A flag on the device of this thread."""
    graph, number = capture.get(), current()
    slot = next(_slots) % SLOTS if graph is None else graph.slot()
    if number not in _flags:
        _flags[number] = sys.modules["cupy"].zeros((SLOTS + OF_GRAPHS,), dtype="float32")
    return Flag(number, slot, _flags[number][slot : slot + 1])


def check_later(wrong: Any, error: Callable[[], Exception]) -> None:
    """Raise `error()` when something is next read from the device, if any of `wrong` is True."""
    flag = new_flag()
    flag.place[...] = wrong.any()
    flag.raise_later(error)


def _taken() -> list[tuple[Flag, Callable[[], Exception]]]:
    """The checks that were put off, which are off the list now: none is lost between threads."""
    taken = []
    with contextlib.suppress(IndexError):  # when there are no more
        while True:
            taken.append(_put_off.pop(0))
    here = current()
    _put_off.extend(check for check in taken if check[0].device != here)
    return [check for check in taken if check[0].device == here]


def check_now() -> None:
    """Read the checks that were put off, and raise the error of the first that has failed."""
    waiting = _taken()
    if waiting:
        _raise(waiting, _flags[current()].get())


def read(x: Any) -> Any:
    """`x` as a NumPy array. A few numbers are read together with the checks that were put off."""
    if (graph := capture.get()) is not None:
        raise graph.reading()
    if not _put_off:
        return x.get()
    if x.size > SLOTS or x.dtype.kind != "f":  # which does not hold each integer
        check_now()
        return x.get()
    waiting = _taken()
    if not waiting:
        return x.get()
    both = sys.modules["cupy"].concatenate([x.reshape(-1), _flags[current()]]).get()
    _raise(waiting, both[x.size :])
    return both[: x.size].astype(x.dtype).reshape(x.shape)


def _raise(waiting: list[tuple[Flag, Callable[[], Exception]]], flags: Any) -> None:
    failed = [(flag, error) for flag, error in waiting if flags[flag.slot]]
    for flag, _ in failed:
        flag.place[...] = 0  # for who gets it next
    if failed:
        raise failed[0][1]()


kernels: Any = None
"""The module that `use_kernels` was given: what launches kernels in CUDA."""


def use_kernels(module: Any) -> None:
    """Have kernels of `module` look at ids and add up rows, where they are enabled."""
    global kernels
    kernels = module


# --- sums in a fixed order ------------------------------------------------------------------------


def add_rows(xp: Any, buffer: Any, ids: Any, g: Any) -> None:
    """Add `g[i]` (N, K) to the row `ids[i]`, in range, of `buffer` (R, K), in place.

    `add.at` of a device adds in whatever order its threads come, and has other bits each time. Here
    rows of one id lie side by side after a sort, and log N rounds add to each what lies 1, 2, 4 ...
    before it; then each row of the buffer takes its last. Nothing is read back.

    >>> import numpy as np
    >>> table = np.zeros((3, 1))
    >>> add_rows(np, table, np.array([2, 0, 2]), np.array([[1.0], [2.0], [3.0]]))
    >>> table.tolist()
    [[2.0], [0.0], [4.0]]
    """
    if not ids.shape[0]:
        return
    if kernels is not None and is_on_device(g) and kernels.adds_rows(buffer, ids, g):
        kernels.add_rows(buffer, ids, g)
        return
    order = xp.argsort(ids, kind="stable")
    ids, sums = ids[order], g[order]
    for k in range(math.ceil(math.log2(ids.shape[0]))):
        n = 2**k
        same = (ids[n:] == ids[:-n])[:, None]
        grown = sums.copy()
        grown[n:] += xp.where(same, sums[:-n], xp.zeros_like(sums[:-n]))
        sums = grown
    rows = xp.arange(buffer.shape[0])
    last = xp.searchsorted(ids, rows, side="right") - 1
    found = (ids[last] == rows)[:, None]
    sums = sums[last]
    buffer += xp.where(found, sums, xp.zeros_like(sums)).astype(buffer.dtype)


# --- random numbers -------------------------------------------------------------------------------


def uniform(xp: Any, shape: tuple[int, ...], seed: int) -> Any:
    """Uniform draws from [0, 1) in float32, each made of its place and `seed` alone: splitmix64 of
    Steele, Lea and Flood (OOPSLA 2014).

    >>> import numpy as np
    >>> uniform(np, (2, 2), 7).shape, round(float(uniform(np, (10_000,), 7).mean()), 2)
    ((2, 2), 0.5)
    """
    z = xp.arange(1, math.prod(shape) + 1, dtype=xp.uint64)
    z *= xp.uint64(0x9E3779B97F4A7C15)
    z += xp.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> xp.uint64(shift)
        z *= xp.uint64(factor)
    z ^= z >> xp.uint64(31)
    z >>= xp.uint64(40)  # 24 bits: what float32 holds
    return (z.astype(xp.float32) * xp.float32(2.0**-24)).reshape(shape)
