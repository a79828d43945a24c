"""Threads that run lists of instructions of `machine` side by side.

There are as many as NumPy's BLAS may use at the moment (`OPENBLAS_NUM_THREADS`, threadpoolctl), and while they run
BLAS uses one in each of them. They wait for one another at instructions, without Python: `meet` of `machine`. Workers
begin when there is something to do for the first time, sleep in between, and end with the process; a fork has its own.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, NamedTuple

Run = Callable[[Any, int], int]  # `machine.run`

# --- how many ---------------------------------------------------------------------------------------------------------


class Blas(NamedTuple):
    """NumPy's BLAS, as far as it is about threads: how many it uses."""

    threads: Callable[[], int]
    use: Callable[[int], None]


@functools.cache
def _blas() -> Blas | None:
    """NumPy's BLAS, if it is OpenBLAS with threads of its own."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    if len(found) > 1:
        found = [x for x in found if os.sep + "numpy" in x.filepath]
    if len(found) != 1 or found[0].threading_layer != "pthreads":
        return None
    library = ctypes.CDLL(found[0].filepath)
    for before, after in itertools.product(("scipy_", ""), ("64_", "_64", "")):
        names = [f"{before}openblas_{verb}_num_threads{after}" for verb in ("get", "set")]
        if all(hasattr(library, name) for name in names):
            return Blas(*(getattr(library, name) for name in names))
    return None


class _Limit:
    """BLAS on one thread, for as long as somebody needs it so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: set[object] = set()
        self.before = 1
        self.asked: int | None = None

    def allowed(self) -> int:
        """How many threads were asked for, or else BLAS may use when nobody needs it so."""
        blas = _blas()
        if blas is None:
            return 1
        if self.asked is not None:
            return self.asked
        with self.lock:
            return self.before if self.users else blas.threads()

    @contextmanager
    def one(self) -> Iterator[None]:
        """BLAS is on one thread inside."""
        me, blas = object(), _blas()
        assert blas is not None
        try:
            with self.lock:
                self.before = self.before if self.users else blas.threads()
                self.users.add(me)
                blas.use(1)
            yield
        finally:
            with self.lock:
                self.users.discard(me)
                if not self.users:
                    blas.use(self.before)


# --- workers ----------------------------------------------------------------------------------------------------------


class _Job:
    """A list of instructions that a worker is to run."""

    def __init__(self, run: Run, code: Any, meeting: Any) -> None:
        self.run, self.code, self.meeting = run, code, meeting
        self.off = self.taken = self.done = False


def _work(jobs: SimpleQueue[_Job]) -> None:
    """What a worker does, for ever."""
    while True:
        job = jobs.get()
        job.taken = True
        try:
            if not job.off:
                job.run(job.code, 0)
        except BaseException:  # noqa: BLE001 (out of memory, say: nobody waits for it then)
            job.meeting[-1] = 1
        job.done = True
        del job  # and so the memory of its arrays


class _Team:
    """The workers of a process. One thread at a time has them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queues: list[SimpleQueue[_Job]] = []

    def give(self, jobs: Sequence[_Job]) -> None:
        """Have each job run by a worker."""
        while len(self.queues) < len(jobs):
            queue: SimpleQueue[_Job] = SimpleQueue()
            threading.Thread(target=_work, args=(queue,), name="tinygrad_rnn", daemon=True).start()
            self.queues.append(queue)
        for queue, job in zip(self.queues, jobs, strict=False):
            queue.put(job)


_limit, _team = _Limit(), _Team()


def _after_fork() -> None:
    global _limit, _team
    _limit, _team = _Limit(), _Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def allowed() -> int:
    """How many threads may run instructions: as many as NumPy's BLAS may use. 1 where that is not known."""
    return _limit.allowed()


@contextmanager
def asked_for(n: int | None) -> Iterator[None]:
    """Inside, `n` threads run instructions, whatever BLAS may use for other things; None: as many as BLAS may use."""
    before, _limit.asked = _limit.asked, n
    try:
        yield
    finally:
        _limit.asked = before


def one_each(n: int) -> AbstractContextManager[None]:
    """BLAS is on one thread inside, if there may be `n`, more than one."""
    return _limit.one() if n > 1 else nullcontext()


@functools.cache
def pause() -> int:
    """The address of a function of the system that lets other threads run."""
    if sys.platform == "win32":
        f: Any = ctypes.windll.kernel32.SwitchToThread
    else:
        f = ctypes.CDLL(None).sched_yield
    return ctypes.cast(f, ctypes.c_void_p).value or 0


def together(run: Run, codes: Sequence[Any], meeting: Any, here: Callable[[], None], alone: Callable[[], None]) -> None:
    """Run lists of instructions that end with a meeting: `here()` runs the first of them, workers the others.

    `meeting` are the numbers by which they meet: the first is how many have come, the last whether it is called off,
    which an exception of `here` does. If another thread has the workers, `alone()` is to do all of it.
    """
    if not _team.lock.acquire(blocking=False):
        alone()
        return
    jobs = [_Job(run, code, meeting) for code in codes[1:]]
    try:
        meeting[:] = 0
        _team.give(jobs)
        here()
    except BaseException:
        meeting[-1] = 1
        for job in jobs:
            job.off = True
        while any(job.taken and not job.done for job in jobs):
            time.sleep(0)
        raise
    finally:
        _team.lock.release()
