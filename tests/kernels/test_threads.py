"""Threads that run lists of instructions: what becomes of them after errors, interrupts and forks, and of BLAS."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tinygrad_rnn.kernels import threads


def blas_threads() -> int:
    blas = threads._blas()
    assert blas is not None
    return blas.threads()


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    with threadpool_limits(2):
        if threads.allowed() == 1:
            pytest.skip("NumPy has no OpenBLAS whose threads are its own")
        yield


class Lists:
    """Lists that are run in Python: each appends to what was done, and meets the others at the end."""

    def __init__(self, n: int) -> None:
        self.done: list[Any] = []
        self.codes = list(range(n))
        self.meeting = np.zeros(2, np.int64)
        self.lock = threading.Lock()

    def run(self, code: int, first: int) -> int:
        with self.lock:
            self.done.append((code, threading.current_thread() is threading.main_thread(), blas_threads()))
            self.meeting[0] += 1
        return 1

    def here(self) -> None:
        self.run(0, 0)
        while self.meeting[0] < len(self.codes):
            assert not self.meeting[-1]
            time.sleep(0)

    def start(self, here: Any = None) -> list[Any]:
        self.done = []
        with threads.one_each(len(self.codes)):
            threads.together(self.run, self.codes, self.meeting, here or self.here, lambda: self.done.append("alone"))
        return sorted(self.done)


@pytest.mark.parametrize("n", [2, 4])
def test_each_list_is_run_once_by_a_thread_of_its_own_and_blas_uses_one(n: int) -> None:
    lists = Lists(n)
    for _ in range(100):
        assert lists.start() == [(0, True, 1), *((k, False, 1) for k in range(1, n))]
    assert threads.allowed() == blas_threads() == 2


def test_others_may_be_asked_for_than_blas_uses() -> None:
    with threads.asked_for(3):
        assert threads.allowed() == 3 and blas_threads() == 2
        with threads.asked_for(1):
            assert threads.allowed() == 1
        assert threads.allowed() == 3
    assert threads.allowed() == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_calls_it_off_and_the_next_run_is_as_ever(error: type[BaseException]) -> None:
    lists = Lists(3)

    def fail() -> None:
        raise error

    for _ in range(50):
        with pytest.raises(error):
            lists.start(fail)
        assert lists.meeting[-1] == 1
        count = len(lists.done)
        time.sleep(0.001)
        assert len(lists.done) == count  # nobody is at it any more
        assert len(lists.start()) == 3
    assert threads.allowed() == blas_threads() == 2


def test_an_error_of_a_worker_calls_it_off() -> None:
    lists = Lists(2)
    real = lists.run

    def run(code: int, first: int) -> int:
        if code:
            raise MemoryError
        return real(code, first)

    lists.run = run  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        lists.start()
    lists.run = real  # type: ignore[method-assign]
    assert len(lists.start()) == 2


def test_who_has_no_workers_is_alone() -> None:
    inner, outer = Lists(2), Lists(2)

    def here() -> None:
        assert inner.start() == ["alone"]
        outer.here()

    assert len(outer.start(here)) == 2
    assert len(inner.start()) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_has_workers_of_its_own() -> None:
    lists = Lists(2)
    assert len(lists.start()) == 2

    def child() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if len(lists.start()) == 2 else 1)
        return os.waitpid(pid, 0)[1]

    def here() -> None:  # while the parent's workers are busy
        assert child() == 0
        lists.here()

    assert child() == 0
    assert len(lists.start(here)) == 2


def test_a_process_ends_though_it_has_workers() -> None:
    code = (
        "from threadpoolctl import threadpool_limits\n"
        "from tests.kernels.test_threads import Lists\n"
        "threadpool_limits(2)\n"
        "assert len(Lists(2).start()) == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_limit_of_blas_is_the_limit_here() -> None:
    for n in (1, 2, 3):
        with threadpool_limits(n):
            assert threads.allowed() == n
    with threads.one_each(2):
        assert threads.allowed() == 2 and blas_threads() == 1
        with threads.one_each(2):
            assert threads.allowed() == 2
        assert blas_threads() == 1
    assert blas_threads() == 2
