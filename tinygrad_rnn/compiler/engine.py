"""The engine while a step is recorded: its stages and its random draws as entries, its state brought up to date."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.compiler.traced import untraced
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import random
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.effects import effects
from tinygrad_rnn.tensor.graph import Watch
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from tinygrad_rnn.compiler.tape import Tape


class Stages:
    """The functions of a module, each written down when it is called."""

    def __init__(self, tape: Tape, module: ModuleType) -> None:
        self.tape, self.module = tape, module

    def __getattr__(self, name: str) -> Callable[..., None]:
        f = getattr(self.module, name)
        return lambda *args: self.tape.run(f, untraced(args), {})


class Generator:
    """What `random.generator()` returns while recording: each draw is an entry."""

    def __init__(self, tape: Tape, real: Any) -> None:
        self.tape, self.real = tape, real

    def __getattr__(self, name: str) -> Any:
        if name == "bit_generator":
            return self.real.bit_generator
        return lambda *args, **kwargs: self.tape.call(draw, (name, *args), kwargs)


def draw(name: str, *args: Any, **kwargs: Any) -> Any:
    """A draw from the library's generator, as it is at the replay."""
    return getattr(random.generator(), name)(*args, **kwargs)


@effects(writes=["buffer"])
def refresh_leaf(leaf: Tensor, buffer: HostArray) -> None:
    """Copy the array that a leaf has been given within the step into the buffer that stands for it."""
    np.copyto(buffer, leaf._array)


@effects(writes=["buffer"])
def refresh_grad(watch: Watch, buffer: HostArray) -> None:
    """Copy a gradient into the buffer that stands for it."""
    if watch.grad is None:
        raise CompileError("a .grad that a compiled function reads is None now, and was not when it was recorded")
    np.copyto(buffer, watch.grad)


def forget(watch: Watch) -> None:
    """Drop the gradient of a leaf that the step itself makes."""
    watch.grad = None


def returned(*constants: Any) -> None:
    """Stand for the result of the step, so that constants in it are compared, too."""
