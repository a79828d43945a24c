"""What a recording, or a replay that fails, has done to the state of the engine, undone."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import refill
from tinygrad_rnn.compiler.traced import Traced
from tinygrad_rnn.tensor import random
from tinygrad_rnn.tensor.graph import Node, Watch
from tinygrad_rnn.tensor.tensor import Tensor

ATOMS = (int, float, str, bytes, complex, type, type(None), np.generic, Traced)


class Undo:
    """How to bring back the state of what it was shown: of tensors, gradients, modules, optimisers, schedules.

    What they refer to is shown with them; what users' own objects hold is not.
    """

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}
        self.steps: list[Callable[[], None]] = [random.keep_generator()]

    def restore(self) -> None:
        """Bring the state back, what was remembered first in the end."""
        for step in reversed(self.steps):
            step()

    def save(self, x: Any) -> None:
        """Remember the state of `x`, as it is now, unless that has been done."""
        waiting = deque([x])
        while waiting:
            x = waiting.popleft()
            if isinstance(x, ATOMS) or id(x) in self.seen:
                continue
            self.seen[id(x)] = x
            waiting.extend(self.remember(x))

    def save_gradients(self, x: Any) -> None:
        """Remember the gradients of the tensors, modules and optimisers among arguments, as they are now."""
        for watch in watches_in(x):
            self.steps.append(functools.partial(setattr, watch, "grad", watch.grad))

    def remember(self, x: Any) -> Iterable[Any]:
        """Remember the state of one object. Returns what it refers to."""
        if isinstance(x, Tensor | Node | Watch):
            names = [name for kind in type(x).__mro__ for name in vars(kind).get("__slots__", ())]
            return self.attributes(x, {"Tensor": ("_array", "_node"), "Node": ("watch",)}.get(kind_of(x), names))
        if isinstance(x, dict | list):
            held = [*dict.keys(x), *dict.values(x)] if isinstance(x, dict) else list(x)
            self.steps.append(functools.partial(refill, x, held))
            return held
        if isinstance(x, tuple):
            return x
        if isinstance(x, np.ndarray):
            values = x.copy()
            self.steps.append(lambda: np.copyto(x, values))
            return ()
        return self.of_library(x)

    def of_library(self, x: Any) -> Iterable[Any]:
        """Remember a module, an optimiser, a schedule or a part of one."""
        if not any(kind.__module__.startswith("tinygrad_rnn.") for kind in type(x).__mro__):
            return ()
        names = [name for kind in type(x).__mro__ for name in vars(kind).get("__slots__", ())]
        if hasattr(x, "__dict__"):
            self.seen[id(vars(x))] = vars(x)
            return [*self.remember(vars(x)), *self.attributes(x, names)]
        return self.attributes(x, names)

    def attributes(self, x: Any, names: Iterable[str]) -> Iterable[Any]:
        """Remember attributes that are no entries of a `__dict__`."""
        held = {name: getattr(x, name) for name in names if hasattr(x, name)}
        for name, value in held.items():
            self.steps.append(lambda name=name, value=value: setattr(x, name, value))  # type: ignore[misc]
        return [v for v in held.values() if not (isinstance(x, Tensor | Watch) and isinstance(v, np.ndarray))]


def watches_in(x: Any) -> Iterator[Watch]:
    """What watches the gradients of the tensors that a call is given: alone, in containers, by their owner or node."""
    if isinstance(x, Tensor | Node | Watch):
        node = x._node if isinstance(x, Tensor) else x
        watch = node.watch if isinstance(node, Node) else node
        yield from () if watch is None else (watch,)
        return
    inside: Iterable[Any] = x if isinstance(x, tuple | list) else ()
    if type(x) is dict:
        inside = (*x.keys(), *x.values())
    elif hasattr(x, "param_groups"):
        inside = [group["params"] for group in x.param_groups]
    elif hasattr(x, "parameters"):
        inside = x.parameters()
    for v in inside:
        yield from watches_in(v)


def kind_of(x: Any) -> str:
    """The class of the engine that an object is of."""
    return next(kind.__name__ for kind in (Tensor, Node, Watch) if isinstance(x, kind))
