"""A program: the calls of a recording on buffers of their own, and how they are run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.compiler.arrays import rebuilt, root_of
from tinygrad_rnn.compiler.boundary import outside
from tinygrad_rnn.compiler.engine import refresh_grad, refresh_leaf, returned
from tinygrad_rnn.compiler.leaves import Leaves
from tinygrad_rnn.compiler.memory import Block
from tinygrad_rnn.compiler.passes import simplified
from tinygrad_rnn.compiler.tape import Entry, Tape
from tinygrad_rnn.compiler.traced import arrays_in
from tinygrad_rnn.tensor.backend import AnyArray, HostArray

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]


def program_of(tape: Tape) -> Program:
    """The program of a finished recording: what is needed, through the passes, in one block of memory."""
    entries = needed([e for e in tape.entries if e.f is not returned], tape.result)
    state = [(e.args, e.kwargs) for e in entries if e.state]
    kept = {id(root_of(a)): root_of(a) for a in arrays_in([tape.leaves.buffers, tape.inputs, tape.result, state])}
    entries = simplified(entries, tape.numbers, kept)
    block = Block(entries, [a for a in tape.buffers if id(a) not in kept])
    return Program(tape, entries, block, kept)


class Program:
    """What is repeated: calls on buffers.

    `inputs` are the buffers that the arguments are copied into, and `kept` those that leaves, arguments, the result or
    Python functions refer to. This is the seam for a GPU: there the calls, but those of Python functions, would be
    captured as one graph.
    """

    def __init__(self, tape: Tape, entries: Sequence[Entry], block: Block, kept: dict[int, HostArray]) -> None:
        self.leaves = Leaves(tape.leaves.tensors, tape.leaves.nodes, tape.leaves.buffers)
        self.inputs = list(tape.inputs)
        self.held: list[AnyArray] = [None] * len(self.inputs)  # arguments whose values the buffers hold
        self.result = tape.result
        self.kept = kept
        self.nbytes = block.nbytes
        self.segments: list[tuple[bool, list[Call]]] = []  # calls with warnings off, or on, in turns
        for e in entries:
            args, kwargs = (e.args, e.kwargs) if e.state else rebuilt((e.args, e.kwargs), block.place)
            if not self.segments or self.segments[-1][0] != e.quiet:
                self.segments.append((e.quiet, []))
            self.segments[-1][1].append((partial(e.f, **kwargs) if kwargs else e.f, args))

    def replay(self, arrays: Sequence[AnyArray], fixed: Sequence[bool]) -> Any:
        """Run the calls on new arguments; `fixed` tells which of them cannot have changed if they are the same."""
        self.leaves.refresh()
        for k, a in enumerate(arrays):
            if a is not self.held[k]:
                np.copyto(self.inputs[k], a)
                self.held[k] = a if fixed[k] else None
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
            self.leaves.settle(self.kept)


def needed(entries: Sequence[Entry], result: Any) -> list[Entry]:
    """The entries without copies of leaves and gradients that nothing reads."""
    copies = (refresh_leaf, refresh_grad)
    read = {id(root_of(a)) for a in arrays_in(result)}
    for e in entries:
        if e.f not in copies:
            read.update(id(root_of(a)) for a in arrays_in((e.args, e.kwargs)))
    return [e for e in entries if e.f not in copies or id(root_of(e.args[1])) in read]
