"""`tr.compile`: when a step is recorded, and when its recording is repeated."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from tinygrad_rnn.compiler.boundary import checked, outside, signature_of, traced_copy
from tinygrad_rnn.compiler.compare import compare
from tinygrad_rnn.compiler.engine import returned
from tinygrad_rnn.compiler.program import Program, program_of
from tinygrad_rnn.compiler.search import reachable
from tinygrad_rnn.compiler.tape import Tape
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import AnyArray
from tinygrad_rnn.tensor.fused import fused_enabled
from tinygrad_rnn.tensor.mode import ANOMALY, active_tape, grad_mode

F = TypeVar("F", bound=Callable[..., Any])
RECORDINGS = 8  # how many are kept: the last used, of arguments of as many signatures


def compile(step: F) -> F:
    """`step`, a training step, say, recorded once and then repeated without building its graph again. For the CPU.

        @tr.compile
        def step(inputs, targets):
            loss = tr.nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            tr.optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

    The first two calls run `step` as it is, and write down what it does to arrays. From the third call on only that is
    done, into the same memory: the parameters, gradients and results are those of `step` itself, bit for bit. What is
    returned is copied, and carries no graph.

    Arguments are Tensors and NumPy arrays, also inside of lists, tuples and dictionaries; their values may be others
    at each call. With other shapes or dtypes, or other arguments of any other kind (numbers, strings, None: they are
    part of the recording), the step is recorded anew; so it is when a module changes between training and evaluation, a
    parameter is moved or frozen, or `enable_fused` or `enable_numba` are used. The last 8 recordings are kept.

    What the step finds in its closure and among its globals is not watched: modules, optimisers, schedules and tensors
    there are looked for when it is recorded, and their values are those of each call; everything else stays what it
    was. Python's side effects (print, append, a counter) happen while recording only. Optimisers, clipping, schedules,
    `assign_`, `.grad = None` and the random draws of dropout are done at each call.

    Raises `CompileError`, with the line, for what cannot be repeated: a value of a tensor as a Python number (float,
    .item(), int, if), a constant that is another at the second call, a shape that depends on values, a returned
    tensor whose graph is still there, arrays on a GPU. A function that is called while another one is recorded becomes
    a part of that recording; under `detect_anomaly` the step runs as it is. Do not use the same modules in another
    thread while it is recorded.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.Parameter([1.0])
    >>> optimizer = tr.optim.SGD([w], lr=0.25)
    >>> @tr.compile
    ... def step(x):
    ...     optimizer.zero_grad()
    ...     loss = ((w * x) ** 2).sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> [step(tr.Tensor([1.0])).item() for _ in range(4)]
    [1.0, 0.25, 0.0625, 0.015625]
    """
    if not callable(step):
        raise TypeError(f"tr.compile takes a function, not {type(step).__name__}")
    compiled = Compiled(step)

    @functools.wraps(step)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled(args, kwargs)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


class Compiled:
    """A function and its recordings: a tape after one call, a program after two."""

    # no `__dict__`: what looks for the leaves of a function finds the function that is compiled, not its recordings
    __slots__ = ("step", "found", "modules", "lock")

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.found: OrderedDict[Any, Tape | Program] = OrderedDict()
        self.modules: list[Module] = []  # whose modes are a part of the key
        self.lock = threading.RLock()

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mode = grad_mode.get()
        if active_tape.get() is not None or mode == ANOMALY:
            return self.step(*args, **kwargs)
        with self.lock:
            arrays: list[AnyArray] = []
            fixed: list[bool] = []
            signature = signature_of(args, arrays, fixed), signature_of(kwargs, arrays, fixed) if kwargs else None
            key = (signature, mode, fused_enabled(), backend.stages, self.modes())
            held = self.found.get(key)
            if type(held) is Program and held.leaves.fits():
                self.found.move_to_end(key)
                return held.replay(arrays, fixed)
            return self.record(key, args, kwargs, held)

    def modes(self) -> tuple[bool, ...]:
        """Whether the modules are training, each."""
        return tuple([m.training for m in self.modules])

    def record(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], held: Tape | Program | None) -> Any:
        """Call the step and write down what it does; the second time, make a program of that."""
        leaves, modules = reachable(self.step, args, kwargs)
        self.modules += [m for m in modules if not any(m is known for known in self.modules)]
        key = (*key[:-1], self.modes())
        self.found.pop(key, None)
        tape = Tape(leaves)
        with tape.recording():
            args, kwargs = traced_copy((args, kwargs), tape)
            tape.result = checked(self.step(*args, **kwargs), tape)
            tape.log(returned, (tape.result,))
        outcome = outside(tape.result)
        self.found[key] = finished(held, tape) if isinstance(held, Tape) and same(held, tape) else tape
        while len(self.found) > RECORDINGS:
            self.found.popitem(last=False)
        return outcome


def same(first: Tape, second: Tape) -> bool:
    """Whether two recordings have the same leaves."""
    a, b = first.leaves.tensors, second.leaves.tensors
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def finished(first: Tape, second: Tape) -> Program:
    """The program of two recordings that agree; `CompileError` if they do not."""
    compare(first.entries, second.entries)
    program = program_of(second)
    first.close()
    second.close()
    return program
