"""The engine while a step is recorded: its stages and its random draws as entries, its state brought up to date."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.compiler.arrays import layout
from tinygrad_rnn.compiler.traced import untraced
from tinygrad_rnn.tensor import random
from tinygrad_rnn.tensor.backend import AnyArray, HostArray
from tinygrad_rnn.tensor.effects import effects
from tinygrad_rnn.tensor.graph import Watch
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Tape


class Deviation(Exception):
    """A replay cannot go on as it was recorded: the state is brought back, and the step runs as it is."""


class Stages:
    """The functions of a module, each written down when it is called."""

    def __init__(self, tape: Tape, module: ModuleType) -> None:
        self.tape, self.module = tape, module

    def __getattr__(self, name: str) -> Callable[..., None]:
        f = getattr(self.module, name)
        return lambda *args: self.tape.run(f, untraced(args), {})


DRAWS_INSIDE = "random draws inside a checkpoint, which a recording does not see: leave one out"


class Generator:
    """What `random.generator()` returns while recording: each draw is an entry."""

    def __init__(self, tape: Tape, real: Any) -> None:
        self.tape, self.real = tape, real

    @property
    def bit_generator(self) -> Any:
        return Bits(self.real.bit_generator, self.tape)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.tape.call(draw, (name, *args), kwargs)


class Bits:
    """The state of a generator, to be read, and not to be set to another one."""

    def __init__(self, real: Any, tape: Tape) -> None:
        self._real, self._tape = real, tape

    @property
    def state(self) -> Any:
        return self._real.state

    @state.setter
    def state(self, state: Any) -> None:
        if repr(state) != repr(self._real.state):
            raise self._tape.error(DRAWS_INSIDE)


def draw(name: str, *args: Any, **kwargs: Any) -> Any:
    """A draw from the library's generator, as it is at the replay."""
    return getattr(random.generator(), name)(*args, **kwargs)


draw.changes = "draws"  # type: ignore[attr-defined]


@effects(writes=["buffer"])
def refresh_leaf(leaf: Tensor, buffer: HostArray) -> None:
    """Copy the array that a leaf has been given within the step into the buffer that stands for it."""
    np.copyto(buffer, leaf._array)


@effects(writes=["buffer"])
def refresh_grad(watch: Watch, buffer: HostArray) -> None:
    """Copy a gradient into the buffer that stands for it; sums go by how it lies in memory."""
    if watch.grad is None or (watch.grad.strides != buffer.strides and layout(watch.grad) != layout(buffer)):
        raise Deviation
    np.copyto(buffer, watch.grad)


def expect_none(watch: Watch) -> None:
    """Go on only if there is no gradient, as when the step was recorded."""
    if watch.grad is not None:
        raise Deviation


def expect_grad(watch: Watch) -> None:
    """Go on only if there is a gradient, as when the step was recorded."""
    if watch.grad is None:
        raise Deviation


def expect_value(f: Callable[..., Any], args: Any, value: Any) -> None:
    """Go on only if an option is what it was when the step was recorded."""
    if repr(f(*args)) != repr(value):
        raise Deviation


def renew(tensor: Tensor, array: AnyArray) -> None:
    """Have a tensor that the step itself makes begin with the array that it was made with, and without a gradient."""
    tensor._array = array
    if tensor._node is not None and tensor._node.watch is not None:
        tensor._node.watch.grad = None


def forget(watch: Watch) -> None:
    """Drop the gradient of a leaf that the step itself makes."""
    watch.grad = None


def option(owner: MutableMapping[str, Any], name: str) -> Any:
    """An option of an optimiser, as it is at the replay."""
    return owner[name]


def returned(*constants: Any) -> None:
    """Stand for the result of the step, so that constants in it are compared, too."""
