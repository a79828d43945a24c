"""What a step uses is found by use: while it is recorded, to read a tensor's array is to make it a leaf."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.compiler.arrays import copied, layout, on_host, root_of
from tinygrad_rnn.compiler.engine import expect_none, refresh_grad, refresh_leaf
from tinygrad_rnn.compiler.traced import Traced, users_place
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor.backend import AnyArray, HostArray
from tinygrad_rnn.tensor.graph import Node, Watch
from tinygrad_rnn.tensor.mode import Changes, active_tape
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Tape


class Leaf:
    """A tensor that exists outside of the calls on a tape, and the traced array that stands for its own now.

    `first` is the buffer of the array that it had when the step began, if it was read before anything could change it.
    """

    __slots__ = ("tensor", "node", "array", "initial", "first", "traced", "version")

    def __init__(self, tensor: Tensor, array: HostArray) -> None:
        self.tensor, self.node = tensor, tensor._node
        self.array = self.initial = array
        self.first: HostArray | None = None
        self.traced: Traced | None = None
        self.version = -1


class Forms:
    """The leaves as they were when a step was recorded: what must still be so for its recording to hold."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.leaves = [(x.tensor, x.node, *form_of(x.array)) for x in leaves]
        self.held = [x.array for x in leaves]  # arrays that are known to fit

    def fit(self) -> bool:
        """Whether no leaf was frozen or moved."""
        held = self.held
        for k, (tensor, node, shape, dtype, strides, how) in enumerate(self.leaves):
            if tensor._node is not node:
                return False
            a = tensor._array
            if a is not held[k]:
                if type(a) is not np.ndarray or a.shape != shape or a.dtype != dtype:
                    return False
                if a.strides != strides and layout(a) != how:
                    return False
                held[k] = a
        return True


def form_of(a: HostArray) -> tuple[Any, ...]:
    """What must be equal in two arrays for the same calls to do the same with them."""
    return a.shape, a.dtype, a.strides, layout(a)


def hooks_of(node: Node | None) -> tuple[Callable[[Any], Any], ...]:
    """The hooks that see the gradient of a node."""
    return () if node is None or node.watch is None else tuple(node.watch.hooks)


def give_back(tensor: Tensor, node: Node | None, hooks: tuple[Callable[[Any], Any], ...]) -> None:
    """Have a tensor require a gradient, or none, as it did, and these hooks see it."""
    if tensor._node is node and hooks_of(node) == hooks:
        return
    tensor._node = node
    if node is not None and node.watch is not None:
        node.watch.hooks[:] = hooks
    Changes.count += 1


class Found:
    """The leaves of a recording and their gradients, each written down when it is first read."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.leaves: dict[int, Leaf] = {}  # by the id of the tensor, in the order in which they were read
        self.inside: dict[int, Tensor] = {}  # constants that the step makes, by their ids
        self.constants: dict[int, Any] = {}  # their arrays
        self.made: list[Tensor] = []  # what the step computes
        self.assigned: dict[int, Tensor] = {}  # the tensors that the step has assigned to
        self.grads: dict[Watch, tuple[Any, int, Traced | None]] = {}  # gradient, version, what stands for it
        self.start: dict[Watch, Any] = {}  # the gradients of tensors that the step may use, when it began
        self.before: dict[Watch, bool] = {}  # whether there was a gradient when the step began
        self.written: dict[Watch, None] = {}  # whose gradients the step may have written

    def array(self, tensor: Tensor, array: AnyArray) -> AnyArray:
        """What stands for the array of a tensor that is read: of a constant that the step makes, its own."""
        tape = self.tape
        if id(tensor) in self.inside:
            return array
        leaf = self.leaves.get(id(tensor))
        if leaf is not None and leaf.array is array and leaf.version == tape.version:
            assert leaf.traced is not None
            return leaf.traced
        buffer = tape.adopt(copied(host(array)))
        tape.unwritable.add(id(root_of(buffer)))
        if leaf is None:
            self.leaves[id(tensor)] = leaf = Leaf(tensor, array)
            tape.undo.steps.append(partial(give_back, tensor, tensor._node, hooks_of(tensor._node)))
            if tape.version == 0 and id(tensor) not in self.assigned:
                leaf.first = buffer
        if leaf.first is not buffer:  # a graph that was built with the buffer before keeps the values that it saw
            tape.log(refresh_leaf, (tensor, buffer))
        leaf.array, leaf.version, leaf.traced = array, tape.version, Traced(buffer, tape)
        return leaf.traced

    def grad(self, watch: Watch, g: Any) -> Traced | None:
        """What stands for a gradient that is read."""
        tape = self.tape
        held = self.grads.get(watch)
        if held is not None and held[0] is g and held[1] == tape.grad_version:
            return held[2]
        if tape.grad_version == 0 or self.start.get(watch, tape) is g:
            self.before.setdefault(watch, g is not None)
        if g is None:
            tape.log(expect_none, (watch,))
            traced = None
        else:
            buffer = tape.adopt(copied(host(np.asarray(g) if isinstance(g, np.generic) else g)))
            tape.log(refresh_grad, (watch, buffer))
            traced = Traced(buffer, tape)
        self.grads[watch] = g, tape.grad_version, traced
        return traced

    def change(self, tensor: Tensor) -> None:
        """Have a constant that the step makes be a leaf from now on, since it is about to change."""
        if self.inside.pop(id(tensor), None) is not None:
            self.array(tensor, slot(tensor))

    def assign(self, tensor: Tensor) -> None:
        """Have a tensor be read anew, since it was assigned to."""
        self.assigned[id(tensor)] = tensor
        if (leaf := self.leaves.get(id(tensor))) is not None:
            leaf.version = -1

    def check(self) -> None:
        """Raise `CompileError` if the step has frozen a tensor, or moved it."""
        for leaf in self.leaves.values():
            if leaf.tensor._node is not leaf.node or isinstance(slot(leaf.tensor), Traced):
                raise CompileError(
                    "a function that tr.compile records has moved a tensor that it did not make, or changed its "
                    "requires_grad: do that outside of it"
                )

    def settle(self) -> None:
        """Copy the gradients that are buffers of the recording."""
        for watch in self.written:
            g = watch.grad
            if type(g) is np.ndarray and self.tape.owns(g):
                watch.grad = copied(g)


def host(array: Any) -> HostArray:
    """`array`, or `CompileError` if it is none of NumPy's on the CPU."""
    if type(on_host(array)) is not np.ndarray:
        raise CompileError(
            f"{users_place()}: tr.compile records arrays of NumPy, and this is one of {type(array).__module__}"
        )
    return array  # type: ignore[no-any-return]


# --- reading is noticed -----------------------------------------------------------------------------------------------


class Reading:
    """In the place of a slot of a class: has the tape that is active answer in the place of a real array."""

    def __init__(self, slot: Any, answer: str, kept: bool) -> None:
        self.slot, self.answer, self.kept = slot, answer, kept

    def __get__(self, x: Any, kind: type | None = None) -> Any:
        if x is None:
            return self
        value = self.slot.__get__(x, kind)
        tape = active_tape.get()
        return value if tape is None or isinstance(value, Traced) else getattr(tape.found, self.answer)(x, value)

    def __set__(self, x: Any, value: Any) -> None:
        tape = active_tape.get()
        if self.kept and tape is not None:
            if id(x) in tape.found.leaves:
                raise CompileError(
                    f"{users_place()}: a function that tr.compile records gives a tensor another array: do that "
                    f"outside of it, or by assign_"
                )
            if isinstance(value, Traced):
                tape.found.made.append(x)
            elif not hasattr(x, "_node"):
                tape.found.inside[id(x)] = x
                tape.found.constants[id(value)] = value
        self.slot.__set__(x, value)


SLOTS = {(Tensor, "_array"): Tensor.__dict__["_array"], (Watch, "grad"): Watch.__dict__["grad"]}
ANSWERS = {(Tensor, "_array"): "array", (Watch, "grad"): "grad"}  # methods of what a tape has found
_lock = threading.Lock()
_readers = 0


def slot(tensor: Tensor) -> AnyArray:
    """The array that a tensor itself holds."""
    return SLOTS[Tensor, "_array"].__get__(tensor)


def release(made: list[Tensor]) -> None:
    """Give arrays of their own to the computed tensors that somebody still holds when the step is over."""
    while made:
        tensor = made.pop()
        if sys.getrefcount(tensor) > 2 and isinstance(array := slot(tensor), Traced):
            SLOTS[Tensor, "_array"].__set__(tensor, copied(array.raw))


@contextmanager
def reading_is_noticed() -> Iterator[None]:
    """Have reads of arrays and gradients go to the active tape: in this thread, and at no cost outside of it."""
    global _readers
    with _lock:
        if not _readers:
            for (kind, name), own in SLOTS.items():
                setattr(kind, name, Reading(own, ANSWERS[kind, name], kept=kind is Tensor))
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                for (kind, name), own in SLOTS.items():
                    setattr(kind, name, own)
