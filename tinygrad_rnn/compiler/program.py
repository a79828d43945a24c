"""A finished recording: the calls of a tape on buffers of their own, and how they are run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.passes import simplified
from tinygrad_rnn.compiler.tape import Entry, Tape, address, flat, rebuilt, refresh, refresh_grad, returned, root_of
from tinygrad_rnn.compiler.traced import Traced
from tinygrad_rnn.tensor.backend import AnyArray as Array
from tinygrad_rnn.tensor.tensor import Tensor, box

ALIGNMENT = 64  # bytes: a cache line


class Leaves:
    """The tensors of outside, and the buffers that stand for them."""

    def __init__(self, tape: Tape) -> None:
        self.tensors, self.nodes, self.buffers = tape.leaves, tape.nodes, tape.buffers
        self.bound: list[Array] = [None] * len(self.tensors)  # what the buffers hold

    def fits(self) -> bool:
        """Whether the leaves are what they were."""
        for leaf, node, bound, buffer in zip(self.tensors, self.nodes, self.bound, self.buffers, strict=True):
            if leaf._node is not node:
                return False
            a = leaf._array
            if a is not bound and (type(a) is not np.ndarray or a.shape != buffer.shape or a.dtype != buffer.dtype):
                return False
        return True

    def refresh(self) -> None:
        """Copy what leaves have been given since the last time."""
        bound = self.bound
        for k, leaf in enumerate(self.tensors):
            a = leaf._array
            if a is not bound[k]:
                np.copyto(self.buffers[k], a)
                bound[k] = a


class Program:
    """What is repeated. `inputs` are the traced arrays that the arguments are copied into, `result` what is returned.

    This is the seam for a GPU: there the calls, but those of Python functions, would be captured as one graph.
    """

    def __init__(self, tape: Tape, inputs: Sequence[Traced], result: Any) -> None:
        self.leaves = Leaves(tape)
        self.inputs = [x.raw for x in inputs]
        self.given: list[Array] = [None] * len(inputs)
        self.result = result
        entries = needed([e for e in tape.entries if e.f is not returned], result)
        kept = [*tape.buffers, *self.inputs, *arrays_in(result)]
        kept += [a for e in entries if e.state for a in arrays_in((e.args, e.kwargs))]
        self.roots = {id(root_of(a)): root_of(a) for a in kept}
        entries = simplified(entries, tape.roots, self.roots)
        place, self.bytes = placed(tape, entries, self.roots)
        self.segments: list[tuple[bool, list[tuple[Callable[..., Any], tuple[Any, ...]]]]] = []
        for e in entries:
            f = self.leaves.refresh if e.f is refresh else e.f
            args, kwargs = (e.args, e.kwargs) if e.state else rebuilt((e.args, e.kwargs), place)
            if not self.segments or self.segments[-1][0] != e.quiet:
                self.segments.append((e.quiet, []))
            self.segments[-1][1].append((partial(f, **kwargs) if kwargs else f, args))

    def replay(self, arrays: Sequence[Array], fixed: Sequence[bool]) -> Any:
        """Run the calls on new arguments; `fixed` tells which of them cannot have changed if they are the same."""
        self.leaves.refresh()
        for k, a in enumerate(arrays):
            if a is not self.given[k]:
                np.copyto(self.inputs[k], a)
                self.given[k] = a if fixed[k] else None
        try:
            for quiet, calls in self.segments:
                if quiet:
                    with np.errstate(all="ignore"):
                        for f, args in calls:
                            f(*args)
                else:
                    for f, args in calls:
                        f(*args)
            return outside(self.result)
        finally:
            self.settle()

    def settle(self) -> None:
        """Copy gradients that are buffers: what somebody can hold is never written again."""
        for node in self.leaves.nodes:
            if node is not None and node.watch is not None:
                g = node.watch.grad
                if g is not None and id(root_of(g)) in self.roots:
                    node.watch.grad = g.copy()


def outside(x: Any) -> Any:
    """A result with copies of its arrays."""

    def copied(v: Any) -> Any:
        if isinstance(v, Tensor):
            return box(v._array.raw.copy(), None) if isinstance(v._array, Traced) else v
        if isinstance(v, Traced):
            return v.raw.copy() if v.number is None else v.number(v.raw.item())
        return v

    return rebuilt(x, copied)


def arrays_in(x: Any) -> Iterator[Array]:
    """The arrays of arguments or results, those of tensors included."""
    for v in flat(x):
        array = v._array if isinstance(v, Tensor) else v
        array = array.raw if isinstance(array, Traced) else array
        if isinstance(array, np.ndarray):
            yield array


def needed(entries: list[Entry], result: Any) -> list[Entry]:
    """The entries without copies of gradients that nothing reads."""
    read = {id(root_of(a)) for a in arrays_in(result)}
    for e in entries:
        if e.f is not refresh_grad:
            read.update(id(root_of(a)) for a in arrays_in((e.args, e.kwargs)))
    return [e for e in entries if e.f is not refresh_grad or id(root_of(e.args[1])) in read]


def placed(tape: Tape, entries: list[Entry], kept: dict[int, Array]) -> tuple[Callable[[Any], Any], int]:
    """Where each array of the entries lies in one block of memory, as a function, and how many bytes that has.

    A buffer that nothing reads any more makes room for one of its size: less memory, and more of it in the cache.
    """
    roots = {id(a): a for a in tape.held if id(a) not in kept}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for k, e in enumerate(entries):
        for a in arrays_in((e.args, e.kwargs)):
            if (root := id(root_of(a))) in roots:
                first.setdefault(root, k)
                last[root] = k
    begins, ends = _by_entry(first), _by_entry(last)
    offsets: dict[int, int] = {}
    free: dict[int, list[int]] = {}
    total = 0
    for k in range(len(entries)):
        for root in begins.get(k, ()):
            size = -(-roots[root].nbytes // ALIGNMENT) * ALIGNMENT
            if free.get(size):
                offsets[root] = free[size].pop()
            else:
                offsets[root] = total
                total += size
        for root in ends.get(k, ()):
            free.setdefault(-(-roots[root].nbytes // ALIGNMENT) * ALIGNMENT, []).append(offsets[root])
    block = np.empty(total + ALIGNMENT, np.uint8)
    start = -address(block) % ALIGNMENT
    block = block[start : start + total]
    made: dict[int, Array] = {}

    def place(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        root = root_of(a)
        if id(root) not in offsets:
            return a
        if id(a) not in made:
            at = offsets[id(root)] + address(a) - address(root)
            made[id(a)] = np.ndarray(a.shape, a.dtype, block, at, a.strides) if a.size else a
        return made[id(a)]

    return place, total


def _by_entry(at: dict[int, int]) -> dict[int, list[int]]:
    """The keys of each value."""
    found: dict[int, list[int]] = {}
    for key, k in at.items():
        found.setdefault(k, []).append(key)
    return found
