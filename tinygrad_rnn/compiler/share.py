"""Sharing: the instructions of a program, split among threads.

Calls are cut into parts, one a thread, and stand in regions. Within a region no thread reads or writes a byte that
another one writes, which is looked at byte by byte, so that nobody waits; after it all threads meet. A recurrent layer
of a large batch is one region for all its steps, forwards, and one backwards. With fewer rows its products are cut by
columns, and the threads meet at each step, since that is cheaper than to copy all of a weight in each of them.

A call that does not fit into a region, such as a sum of what all threads have made, waits for the next one, and with it
what depends on it; nothing passes a check of ids, so that a replay that fails has done what is before the check, and
no more. What is not cut is done by one thread. All of that depends on the number of threads alone, and so do the bits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import byte_bounds

from tinygrad_rnn.compiler.arrays import address
from tinygrad_rnn.compiler.cut import Call, multiplied, packed, parts_of, staged
from tinygrad_rnn.compiler.products import multiply
from tinygrad_rnn.compiler.uses import touched
from tinygrad_rnn.kernels import threads
from tinygrad_rnn.tensor.backend import HostArray

Row: TypeAlias = list[int]
Stretches: TypeAlias = list[tuple[int, int]]  # of bytes: first and end

# What things take, in nanoseconds on a core with AVX-512: whether sharing pays is judged by them.
MULTIPLY = 0.015  # a multiplication of a product, with its addition
BYTE = 0.1  # a byte that is read or written
STAGE_BYTE = 0.15  # by a stage of a recurrent layer
CALL = 100.0
MEETING = 250.0  # for each thread
WAKING = 30_000.0  # until workers have begun

AHEAD = 16  # calls that wait, one after the other, before no more are looked at
RUNS = 64  # what is read in more stretches is taken for all that lies between its ends
STAGES = ["rnn_tanh", "rnn_tanh_slope", "lstm_gates", "lstm_slopes", "gru_gates", "gru_slopes"]
STAGES += ["carry_rows", "clear_rows"]


# --- bytes ------------------------------------------------------------------------------------------------------------


def stretches(a: HostArray) -> Stretches:
    """The bytes of an array.

    >>> x = np.zeros((4, 6), np.int8)
    >>> [(low - address(x), high - address(x)) for low, high in stretches(x[1:3, 2:4])]
    [(8, 10), (14, 16)]
    """
    if not a.size:
        return []
    axes = [(s, n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1 and s]
    starts, size = [address(a) + sum(s * (n - 1) for s, n in axes if s < 0)], a.itemsize
    for stride, n in sorted((abs(s), n) for s, n in axes):
        if stride == size and len(starts) == 1:
            size *= n
        else:
            starts = [start + stride * k for k in range(n) for start in starts]
    return [(start, start + size) for start in starts]


def bytes_of(call: Call) -> tuple[Stretches, Stretches]:
    """What a call reads, or may read, and what it writes."""
    f, args = call
    options = f.keywords if isinstance(f, partial) else {}
    f = f.func if isinstance(f, partial) else f
    read, written = touched(SimpleNamespace(f=f, args=args, kwargs=options, state=False))  # type: ignore[arg-type]
    found = [stretches(a) for a in read]
    reads = [x for a, some in zip(read, found, strict=True) for x in (some if len(some) <= RUNS else [byte_bounds(a)])]
    return reads, [x for a in written for x in stretches(a)]


class Owned:
    """Bytes, each with whom it belongs to: to a thread, or to SEVERAL.

    >>> owned = Owned()
    >>> owned.give(0, 8, 0), owned.give(4, 12, 1)
    (None, None)
    >>> owned.parts, owned.only(0, 4, 0), owned.only(0, 5, 0)
    ([(0, 4, 0), (4, 8, -1), (8, 12, 1)], True, False)
    """

    SEVERAL = -1

    def __init__(self) -> None:
        self.parts: list[tuple[int, int, int]] = []  # disjoint, in order: first byte, end, whose

    def meeting(self, low: int, high: int) -> slice:
        """The places of the parts that have bytes of a stretch."""
        start = bisect_left(self.parts, (low,))
        return slice(start - (start > 0 and self.parts[start - 1][1] > low), bisect_left(self.parts, (high,)))

    def only(self, low: int, high: int, who: int) -> bool:
        """Whether no byte of a stretch belongs to anybody else."""
        return all(whose == who for _, _, whose in self.parts[self.meeting(low, high)])

    def give(self, low: int, high: int, who: int) -> None:
        """Have a stretch belong to a thread, too."""
        place = self.meeting(low, high)
        new, end = list[tuple[int, int, int]](), low
        for a, b, whose in self.parts[place]:
            both = whose if whose == who else self.SEVERAL
            new += [(a, low, whose), (end, a, who), (max(a, low), min(b, high), both), (high, b, whose)]
            end = b
        new += [(end, high, who)]
        self.parts[place] = [x for x in new if x[0] < x[1]]


class Claims:
    """Which bytes each thread reads and writes in a region."""

    def __init__(self) -> None:
        self.read, self.written = Owned(), Owned()
        self.known: set[tuple[int, int, int]] = set()  # what is read again and again: weights

    def allow(self, touched: tuple[Stretches, Stretches], who: int) -> bool:
        """Whether a thread may do that at any time: no other one writes what it touches, or reads what it writes."""
        reads, writes = touched
        if not all((*x, who) in self.known or self.written.only(*x, who) for x in reads):
            return False
        return all(self.written.only(*x, who) and self.read.only(*x, who) for x in writes)

    def add(self, touched: tuple[Stretches, Stretches], who: int) -> None:
        """What a thread does, which is allowed."""
        for x in touched[0]:
            if (*x, who) not in self.known:
                self.known.add((*x, who))
                self.read.give(*x, who)
        for x in touched[1]:
            self.written.give(*x, who)


# --- regions ----------------------------------------------------------------------------------------------------------


class Task:
    """A call, or the checks before it, a fence, and its parts if it is cut: of each its instructions and bytes."""

    def __init__(self, call: Call, number: int, rows: list[Row], fence: bool = False) -> None:
        self.number, self.rows, self.fence, self.touched, self.cost = number, rows, fence, bytes_of(call), 0.0
        self.parts: list[tuple[list[Row], tuple[Stretches, Stretches]]] | None = None


class Sharing:
    """How calls are shared by `n` threads, whose instructions `lowering` makes."""

    def __init__(self, n: int, lowering: Any) -> None:
        self.n, self.machine, self.lower = n, lowering.machine, lowering.rows
        self.stages, self.product = {getattr(lowering.stages, name) for name in STAGES}, lowering.stages.product
        self.cuts: dict[Any, Any] = {
            **dict.fromkeys(self.stages, staged),
            self.product: multiplied,
            lowering.stages.pack: packed,
        }

    def tasks(self, calls: Sequence[Call], rows: Sequence[list[Row]]) -> Iterator[Task]:
        """The tasks that calls, whose instructions are given, consist of."""
        for number, (call, some) in enumerate(zip(calls, rows, strict=True)):
            checks, rest = ([row for row in some if bool(row[self.machine.CHECKS]) is fails] for fails in (True, False))
            if checks:
                yield Task(call, number, checks, fence=True)
            if rest:
                task = Task(call, number, rest)
                task.cost, task.parts = self.cost(call, task.touched), self.parts(call)
                yield task

    def parts(self, call: Call) -> list[tuple[list[Row], tuple[Stretches, Stretches]]] | None:
        """The instructions of each thread, without the checks, which have been made by then."""
        found, claims = [], Claims()
        for who, part in enumerate(parts_of(self.n, call, self.cuts) or ()):
            touched = bytes_of(part)
            rows = self.lower(*part) if touched[1] else []
            if rows is None or not claims.allow(touched, who):
                return None
            claims.add(touched, who)
            found.append(([row for row in rows if not row[self.machine.CHECKS]], touched))
        return found or None

    def cost(self, call: Call, touched: tuple[Stretches, Stretches]) -> float:
        """What a call takes that touches so many bytes."""
        f, args = call
        f = f.func if isinstance(f, partial) else f
        if f in (np.dot, np.matmul, multiply, self.product):
            a, y = args[-3] if f is multiply else args[0], args[-1]
            return CALL + MULTIPLY * float(a.size * y.shape[-1])
        size = sum(high - low for some in touched for low, high in some)
        return CALL + size * (STAGE_BYTE if f in self.stages else BYTE)


class Region:
    """What threads do without waiting for one another: of each, its instructions, with the numbers of their calls."""

    def __init__(self, n: int) -> None:
        self.claims = Claims()
        self.rows: list[list[tuple[int, Row]]] = [[] for _ in range(n)]
        self.loads = [0.0] * n

    def add(self, task: Task) -> bool:
        """Whether a task fits in, and so is there now: its parts, or all of it by the thread that has least to do."""
        if task.parts is not None:
            if not all(self.claims.allow(touched, who) for who, (_, touched) in enumerate(task.parts)):
                return False
            count = sum(bool(rows) for rows, _ in task.parts)
            for who, (rows, touched) in enumerate(task.parts):
                self.put(who, task.number, rows, touched, task.cost / count)
            return True
        for who in sorted(range(len(self.loads)), key=self.loads.__getitem__):
            if self.claims.allow(task.touched, who):
                self.put(who, task.number, task.rows, task.touched, task.cost)
                return True
        return False

    def put(self, who: int, number: int, rows: list[Row], touched: tuple[Stretches, Stretches], cost: float) -> None:
        if rows:
            self.claims.add(touched, who)
            self.rows[who] += [(number, row) for row in rows]
            self.loads[who] += cost

    @property
    def shared(self) -> bool:
        """Whether others than the first thread have something to do."""
        return any(self.rows[1:])


def regions_of(tasks: Sequence[Task], n: int) -> list[Region]:
    """The regions: each takes what fits in and depends on nothing that waits, until AHEAD tasks in a row wait."""
    found = []
    while tasks:
        region, waiting, held = Region(n), list[Task](), Claims()
        k = row = 0
        while k < len(tasks) and row < AHEAD and not (k and (tasks[k].fence or tasks[k - 1].fence)):
            task = tasks[k]
            if held.allow(task.touched, 0) and region.add(task):
                row = 0
            else:
                waiting.append(task)
                held.add(task.touched, 1)
                row += 1
            k += 1
        tasks = [*waiting, *tasks[k:]]
        found.append(region)
    return found


# --- what is run ------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """An instruction that looks at ids has failed, of the call of this number."""

    def __init__(self, number: int) -> None:
        self.number = number


class Pace:
    """Whether threads share a replay, or one does all of it: the bits are the same.

    Where others run, too, a thread that is put aside keeps all from meeting, and a replay may take fifty times as long.
    What is lost so is a debt, which a tenth of the time alone pays off: until then the threads are let be.
    """

    PAID = 0.1
    FIRST = 2  # replays by one thread, to know what that takes

    def __init__(self) -> None:
        self.begun, self.alone, self.debt = 0, math.inf, 0.0

    @property
    def together(self) -> bool:
        return self.begun >= self.FIRST and self.debt <= 0

    def note(self, together: bool, seconds: float) -> None:
        """Take what a replay has taken."""
        self.begun += 1
        if together:
            self.debt = max(0.0, self.debt + seconds - self.alone)
        else:
            self.alone = seconds if self.begun <= self.FIRST else self.alone + 0.2 * (seconds - self.alone)
            self.debt -= self.PAID * seconds


class Shared:
    """The lists of instructions of some threads, which meet after each region."""

    def __init__(self, machine: Any, regions: Sequence[Region]) -> None:
        self.machine, self.count, self.pace = machine, 0, Pace()
        self.meeting = np.zeros(16, np.int64)  # how many have come, and at its end whether it is called off
        n = len(regions[0].rows)
        lists: list[list[tuple[int, Row]]] = [[] for _ in range(n)]
        for k, region in enumerate(regions, 1):
            last = k == len(regions)
            meet = last or region.shared or regions[k].shared
            self.count += meet
            for who, some in enumerate(region.rows):
                wait = 0 if last and who else n * self.count  # in the end the first alone waits
                lists[who] += [*some, (-1, self.meet(wait))] if meet else some
        self.codes = [np.array([row for _, row in some], np.int64) for some in lists]
        self.owners = [number for number, _ in lists[0]]

    def meet(self, count: int) -> Row:
        """The instruction that waits until so many have come, in all."""
        m, place = self.machine, address(self.meeting)
        row = [0] * m.WIDTH
        row[m.LOOP], row[m.CHECKS], row[m.COUNTS : m.COUNTS + 2], row[m.DIMS] = m.meet.address, 1, [1, 1], count
        row[m.ARGS : m.ARGS + 3] = place, place + self.meeting.nbytes - self.meeting.itemsize, threads.pause()
        return row

    def run(self) -> int | None:
        """Run them. The number of the call of an instruction that has failed: what comes after it has not been run."""
        begin, together = perf_counter(), self.pace.together
        try:
            if together:
                threads.together(self.machine.run, self.codes, self.meeting, self.here, self.alone)
            else:
                self.alone()
        except Failed as failed:
            return failed.number
        self.pace.note(together, perf_counter() - begin)
        return None

    def here(self) -> None:
        """The first list, while workers run the others."""
        at = self.machine.run(self.codes[0], 0)
        if at < len(self.owners):
            raise Failed(self.owners[at]) if self.owners[at] >= 0 else RuntimeError("a thread of a replay has failed")

    def alone(self) -> None:
        """All lists by this thread, from meeting to meeting: it is called off, so that there each of them stops."""
        self.meeting[-1] = 1
        at = [0] * len(self.codes)
        for _ in range(self.count):
            for who, code in enumerate(self.codes):
                at[who] = self.machine.run(code, at[who])
                if who == 0 and self.owners[at[0]] >= 0:
                    raise Failed(self.owners[at[0]])
                at[who] += 1


def shared(calls: Sequence[Call], rows: Sequence[list[Row]], sharing: Sharing) -> Shared | None:
    """Calls, whose instructions are given, by threads; None if that does not pay."""
    tasks = list(sharing.tasks(calls, rows))
    regions = regions_of(tasks, sharing.n)
    alone = sum(task.cost for task in tasks)
    together = WAKING + sum(max(region.loads) + MEETING * sharing.n for region in regions)
    return Shared(sharing.machine, regions) if together < alone else None
