"""The tape: what a step did to arrays, as a flat list of calls on buffers.

Views need no entry, since buffers stay where they are. A NumPy function becomes a call with `out=` its buffer, or an
assignment into it. What changes the engine's state (an optimiser's step, say) becomes a call of the Python function.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from tinygrad_rnn.compiler.arrays import has_arrays, root_of, same_place, shares_memory
from tinygrad_rnn.compiler.compare import signature
from tinygrad_rnn.compiler.engine import Generator, Stages, forget, refresh_grad, refresh_leaf
from tinygrad_rnn.compiler.leaves import LentLeaves
from tinygrad_rnn.compiler.numpy_calls import BY_VALUE, LIKES, METHODS, STATIC, VIEWS, assign, into
from tinygrad_rnn.compiler.traced import NAMESPACE, STALE, Traced, place, untraced, users_place
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.backend import AnyArray, HostArray
from tinygrad_rnn.tensor.graph import Node
from tinygrad_rnn.tensor.mode import active_tape
from tinygrad_rnn.tensor.tensor import Tensor, box


class Entry:
    """One call: `f(*args, **kwargs)`, where the user made it, and whether floating-point warnings were off.

    One of `state` touches more than its arguments: it changes or reads the state of the engine.
    """

    __slots__ = ("f", "args", "kwargs", "signature", "state", "place", "quiet")

    def __init__(self, f: Any, args: Any, kwargs: Any, signature: Any, state: bool) -> None:
        self.f, self.args, self.kwargs, self.signature, self.state = f, args, kwargs, signature, state
        self.place = place()
        self.quiet = np.geterr()["invalid"] == "ignore"

    def changed(self, f: Any, args: tuple[Any, ...]) -> Entry:
        """An entry that does something else at the same place."""
        new = copy.copy(self)
        new.f, new.args, new.kwargs, new.signature, new.state = f, args, {}, None, False
        return new


class Tape:
    """A recording in the making: its entries, and its buffers, the arrays whose values differ at each replay."""

    def __init__(self, leaves: list[Tensor]) -> None:
        self.entries: list[Entry] = []
        self.numbers: dict[int, int] = {}  # of the buffers, by their ids
        self.buffers: list[HostArray] = []
        self.inputs: list[HostArray] = []  # the buffers that the arguments are copied into
        self.result: Any = None
        self.leaves = LentLeaves(leaves, self)
        self.generator = random.used_generator()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write down what is computed inside; at the end the leaves are as the step would leave them."""
        backend.register_namespace(Traced, NAMESPACE)
        try:
            with _active(self, Generator(self, random.generator())):
                self.leaves.lend()
                yield
        finally:
            try:
                self.leaves.give_back()
            finally:
                self.leaves.settle()

    def close(self) -> None:
        """Let go of all, since traced arrays refer to the tape: a program has buffers of its own."""
        del self.leaves, self.result
        for held in (self.entries, self.numbers, self.buffers, self.inputs):
            held.clear()

    # --- buffers ------------------------------------------------------------------------------------------------------

    def adopt(self, raw: HostArray) -> HostArray:
        """Make `raw` a buffer of this recording."""
        root = root_of(raw)
        if id(root) not in self.numbers:
            self.numbers[id(root)] = len(self.buffers)
            self.buffers.append(root)
        return raw

    def owns(self, raw: HostArray) -> bool:
        """Whether `raw` lies in a buffer of this recording."""
        return id(root_of(raw)) in self.numbers

    def fresh(self, raw: HostArray, value: Any) -> Traced:
        """A new buffer, filled with `value` at each replay, or with nothing if that is None."""
        self.adopt(raw)
        if value is not None:
            self.log(np.copyto, (raw, np.asarray(value, raw.dtype)))
        return Traced(raw, self)

    def input(self, array: AnyArray) -> Traced:
        """A buffer for an argument, with its values."""
        self.inputs.append(self.adopt(np.array(array)))
        return Traced(self.inputs[-1], self)

    # --- entries ------------------------------------------------------------------------------------------------------

    def log(self, f: Any, args: Any, kwargs: Any = None, state: bool = False) -> None:
        """Write down a call that has been made."""
        kwargs = kwargs or {}
        same = f, signature(args, self.numbers), signature(kwargs, self.numbers)
        self.entries.append(Entry(f, args, kwargs, same, state))

    def run(self, f: Any, args: Any, kwargs: Any) -> None:
        """Make a call, and write it down."""
        f(*args, **kwargs)
        self.log(f, args, kwargs)

    def function(self, f: Any, args: Any, kwargs: Any) -> Any:
        """Compute a NumPy function or method, and write down how to repeat it."""
        self.check_active()
        f = METHODS.get(f, f)
        args, out = untraced(tuple(args)), kwargs.get("out")
        kwargs = {k: v for k, v in untraced(kwargs).items() if k != "out" and v is not np._NoValue}
        if f in LIKES and not kwargs:
            return self.fresh(f(*args), LIKES[f])
        if f in BY_VALUE:
            raise CompileError(
                f"{users_place()}: np.{f.__name__} in a function that tr.compile records: the shape of its result "
                f"depends on values; compute it outside and pass the result"
            )
        if out is not None:
            if not isinstance(out, Traced) or not self.owns(out.raw):
                raise CompileError(
                    f"{users_place()}: a value of the recording is written into an array that it does not know: make "
                    f"that array by an op of tinygrad_rnn"
                )
            self.run(*into(f, args, kwargs, out.raw))
            return out
        y = f(*args, **kwargs)
        if y is None:  # in place
            self.log(f, args, kwargs)
        return y if y is None or f in STATIC else self._result(y, f, args, kwargs)

    def _result(self, y: Any, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The traced form of a result `y`: views of what the call was given, or a buffer that the call fills."""
        given = (*args[1:], *kwargs.values())
        still = f in VIEWS and not any(self.owns(a) for a in given if isinstance(a, np.ndarray))
        if isinstance(y, tuple | list):
            if not still or not all(shares_memory(v, args) for v in y):
                raise CompileError(f"{users_place()}: {f.__name__} returns several arrays: it cannot be recorded")
            return type(y)(Traced(v, self) for v in y)
        if not isinstance(y, np.ndarray | np.generic):
            raise CompileError(
                f"{users_place()}: {getattr(f, '__name__', f)} returns {type(y).__name__}, which a recording repeats "
                f"as it is now: use an op that returns a tensor"
            )
        if isinstance(y, np.ndarray) and shares_memory(y, args):
            if still:
                return Traced(y, self)
            y = y.copy()
        y = self.adopt(y if isinstance(y, np.ndarray) and y.flags.writeable else np.array(y))
        self.run(*into(f, args, kwargs, y))
        return Traced(y, self)

    def getitem(self, x: Traced, key: Any) -> Traced:
        """Compute `x[key]`: a view, or a buffer that is filled at each replay."""
        key = untraced(key)
        y = x.raw[key]
        if not isinstance(y, np.ndarray):  # a scalar: the same entry as a view
            key = (*key, ...) if isinstance(key, tuple) else (key, ...)
            y = x.raw[key]
        if not has_arrays(key) and (shares_memory(y, (x.raw,)) or not y.size):
            return Traced(y, self)
        self.check_active()
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, np.ndarray) and k.dtype == bool and self.owns(k) for k in keys):
            raise CompileError(
                f"{users_place()}: a boolean mask as an index, in a function that tr.compile records: how many it "
                f"takes depends on values; use tr.where"
            )
        y = self.adopt(y.copy() if shares_memory(y, (x.raw,)) else y)
        self.log(assign, (np.ndarray.__getitem__, y, (x.raw, key), {}))
        return Traced(y, self)

    def setitem(self, x: Traced, key: Any, value: Any) -> None:
        """Do `x[key] = value`, and write it down."""
        self.check_active()
        key, value = untraced(key), untraced(value)
        target = x.raw[key] if not has_arrays(key) else None
        if not isinstance(target, np.ndarray):
            self.run(np.ndarray.__setitem__, (x.raw, key, value), {})
        elif not (isinstance(value, np.ndarray) and same_place(target, value)):  # not the end of `x[k] += y`
            value = np.asarray(value)
            if not self.owns(value):
                value = value.astype(target.dtype)
            same = value.dtype == target.dtype
            self.run(np.copyto, (target, value) if same else (target, value, "unsafe"), {})

    def check_active(self) -> None:
        """Raise `CompileError` unless this recording is going on."""
        if active_tape.get() is not self:
            raise CompileError(f"{users_place()}: {STALE}")

    # --- the engine ---------------------------------------------------------------------------------------------------

    def stages(self, module: ModuleType) -> Any:
        """The stages of `kernels.numba_stages`, whose calls are entries as they are."""
        return Stages(self, module)

    def call(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call `f`, which is marked `@replayed`, on real arrays; at each replay it is called again."""
        args = untraced(tuple(self._given(x) for x in args))
        kwargs = untraced({name: self._given(x) for name, x in kwargs.items()})
        self._begin_new_leaves(args)
        try:
            with _active(None, self.generator):
                self.leaves.give_back()
                y = f(*args, **kwargs)
        finally:
            changed = self.leaves.lend()
        result: Any = y
        pure = hasattr(f, "effects")
        if isinstance(y, np.ndarray | bool | int | float):
            number = None if isinstance(y, np.ndarray) else type(y)
            if isinstance(y, np.ndarray) and shares_memory(y, args) and self.owns(y):
                result = Traced(y, self, number)
            else:
                result = Traced(self.adopt(np.array(y)), self, number)
                f, args, kwargs, pure = assign, (f, result.raw, args, kwargs), {}, False
        self.log(f, args, kwargs, state=not pure)
        for leaf, buffer in changed:
            self.log(refresh_leaf, (leaf, buffer))
        for watch, (_, buffer) in self.leaves.grads.items():
            self.log(refresh_grad, (watch, buffer))
        return result

    def _given(self, x: Any) -> Any:
        """An argument of a `@replayed` function: a computed tensor with its buffer, an iterator as a list."""
        if isinstance(x, Iterator):  # such as `parameters()`
            return list(x)
        leaf = isinstance(x, Tensor) and any(x is leaf for leaf in self.leaves.tensors)
        return box(x._array.raw, None) if isinstance(x, Tensor) and isinstance(x._array, Traced) and not leaf else x

    def _begin_new_leaves(self, args: tuple[Any, ...]) -> None:
        """Have leaves that the step itself has made, whose gradients are to be written, begin anew at each replay."""
        for node in (key for x in args if type(x) is dict for key in x if isinstance(key, Node)):
            if node.watch is not None and node.watch not in self.leaves.watches:
                self.leaves.watches[node.watch] = None
                self.log(forget, (node.watch,), state=True)


@contextmanager
def _active(tape: Tape | None, generator: Any) -> Iterator[None]:
    """Have calls inside be written on `tape`, or on none, and draws be those of `generator`."""
    with random.use_generator(generator):
        token = active_tape.set(tape)
        try:
            yield
        finally:
            active_tape.reset(token)
