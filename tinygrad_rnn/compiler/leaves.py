"""The leaves, tensors that exist outside of a compiled step, and the buffers that stand for their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinygrad_rnn.compiler.arrays import root_of
from tinygrad_rnn.compiler.traced import Traced
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.graph import Node, Watch
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Tape


class LentLeaves:
    """The leaves of a recording: while the step runs they hold traced arrays, and their own ones outside of it."""

    def __init__(self, tensors: list[Tensor], tape: Tape) -> None:
        self.tape = tape
        self.tensors = tensors
        self.nodes = [leaf._node for leaf in tensors]
        self.real = [leaf._array for leaf in tensors]
        self.buffers = [tape.adopt(array.copy()) for array in self.real]  # of the arrays at the start
        self.traced = [Traced(buffer, tape) for buffer in self.buffers]
        watches = [node.watch for node in self.nodes if node is not None and node.watch is not None]
        self.watches: dict[Watch, HostArray | None] = {watch: watch.grad for watch in watches}  # gradients before it
        self.grads: dict[Watch, tuple[HostArray, HostArray]] = {}  # real gradients, and buffers that stand for them

    def lend(self) -> list[tuple[Tensor, HostArray]]:
        """Have the leaves hold traced arrays. Returns those that have got another array, each with a buffer for it.

        The buffer of the array before stays as it is: a graph that was built with it keeps the values that it saw.
        """
        changed = []
        for k, leaf in enumerate(self.tensors):
            if leaf._array is not self.real[k]:
                self.real[k] = leaf._array
                self.traced[k] = Traced(self.tape.adopt(leaf._array.copy()), self.tape)
                changed.append((leaf, self.traced[k].raw))
            leaf._array = self.traced[k]
        for watch, before in self.watches.items():
            if watch.grad is not None and watch.grad is not before:
                buffer = self.tape.adopt(watch.grad.copy())
                self.grads[watch] = (watch.grad, buffer)
                watch.grad = Traced(buffer, self.tape)
        return changed

    def give_back(self) -> None:
        """Have the leaves hold their own arrays. `CompileError` if the step has moved or frozen one."""
        for watch, (real, buffer) in self.grads.items():
            if isinstance(watch.grad, Traced) and watch.grad.raw is buffer:
                watch.grad = real
        self.grads = {}
        moved = False
        for k, leaf in enumerate(self.tensors):
            moved |= leaf._array is not self.traced[k] and leaf._array is not self.real[k]
            leaf._array = self.real[k]
        if moved or any(leaf._node is not node for leaf, node in zip(self.tensors, self.nodes, strict=True)):
            raise CompileError(
                "a function that tr.compile records has moved a parameter, or changed requires_grad of one: do that "
                "outside of it"
            )

    def settle(self) -> None:
        """Copy the gradients that are buffers of the recording."""
        for watch in self.watches:
            if watch.grad is not None and self.tape.owns(watch.grad):
                watch.grad = watch.grad.copy()


class Leaves:
    """The leaves of a program, and the buffers that it reads in the place of the arrays that they start with."""

    def __init__(self, tensors: Sequence[Tensor], nodes: Sequence[Node | None], buffers: Sequence[HostArray]) -> None:
        self.tensors, self.nodes, self.buffers = tensors, nodes, buffers
        self.held: list[HostArray | None] = [None] * len(tensors)  # the arrays whose values the buffers hold

    def fits(self) -> bool:
        """Whether the leaves are those that were recorded: neither moved nor frozen."""
        for leaf, node, held, buffer in zip(self.tensors, self.nodes, self.held, self.buffers, strict=True):
            if leaf._node is not node:
                return False
            a = leaf._array
            if a is not held and (type(a) is not np.ndarray or a.shape != buffer.shape or a.dtype != buffer.dtype):
                return False
        return True

    def refresh(self) -> None:
        """Copy the arrays that leaves have been given since the last time."""
        held = self.held
        for k, leaf in enumerate(self.tensors):
            a = leaf._array
            if a is not held[k]:
                np.copyto(self.buffers[k], a)
                held[k] = a

    def settle(self, owned: Mapping[int, HostArray]) -> None:
        """Copy the gradients that lie in buffers, `owned` by id: what somebody can hold is never written again."""
        for node in self.nodes:
            if node is not None and node.watch is not None:
                g = node.watch.grad
                if g is not None and id(root_of(g)) in owned:
                    node.watch.grad = g.copy()
