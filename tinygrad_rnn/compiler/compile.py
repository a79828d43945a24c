"""`tr.compile`: when a step is recorded, and when its recording is repeated."""

from __future__ import annotations

import copy
import functools
import inspect
import random
import sys
import threading
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from tinygrad_rnn.compiler.boundary import (
    check_parts,
    checked,
    held,
    made_inside,
    mapped,
    outside,
    overlapping,
    parts,
    signature_of,
    with_inputs,
)
from tinygrad_rnn.compiler.compare import compare
from tinygrad_rnn.compiler.engine import Deviation, renew, returned
from tinygrad_rnn.compiler.found import Forms, release
from tinygrad_rnn.compiler.program import Program, input_buffers, placeholder, program_of, put_back, written_inputs
from tinygrad_rnn.compiler.search import Guard, same
from tinygrad_rnn.compiler.tape import Tape
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.kernels import threads
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.fused import fused_enabled
from tinygrad_rnn.tensor.mode import ANOMALY, active_tape, grad_mode

F = TypeVar("F", bound=Callable[..., Any])
MISSES = 16  # calls in a row that were recorded anew, before a warning
RECORDINGS = 8  # how many are kept: the last used, of arguments of as many signatures


def compile(step: F, *, graph: bool = False) -> F:
    """`step`, a training step, say, recorded once and then repeated without building its graph again.

    For the CPU; on a GPU `graph=True` captures it as one CUDA graph, see below.

        @tr.compile
        def step(inputs, targets):
            loss = tr.nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            tr.optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

    The first two calls run `step` as it is, and write down what it does to arrays. From the third call on only that is
    done, into the same memory: the parameters, gradients and results are those of `step` itself, bit for bit, the signs
    of zeros included (of a NaN only that it is one). What is returned is new at each call, and carries no graph.

    Arguments are Tensors and NumPy arrays, also inside of tuples, lists, dictionaries and dataclasses; their values may
    be others at each call, and what the step writes into them is there afterwards. With other shapes, dtypes or
    layouts, or another argument of any other kind (numbers, strings, None: they are part of the recording), the step is
    recorded anew. The last 8 recordings are kept.

    Every tensor that the step uses has the values of the call, wherever it hangs. What the step looks at beside it is
    watched: closures, globals, attributes, containers, small arrays, and all that modules hold, their modes and hooks
    included. If any of that has been replaced, frozen or moved, it is recorded anew; a step that changes itself what it
    looks at (`self.n += 1`) runs as it is at each call, and warns of that. Optimisers and schedules, your own too, run
    at each call, as do clipping, `assign_`, `train()` and `eval()`, `group["lr"] = ...`, the draws of dropout, and the
    functions that `tr.op` was given. What else Python does (print, append) happens while recording only. Not seen are
    what `vars(module)` is written into, containers of more than 10,000 entries, and what NumPy alone, outside of `tr`,
    makes of an array above 64 KB that is no argument. With `enable_numba` most of a replay runs without Python; it then
    warns of no overflow or division by zero, but where `np.seterr` has errors raised, called or logged, it does that.
    It is shared among as many threads as NumPy's BLAS, if that is OpenBLAS, may use (`OPENBLAS_NUM_THREADS`,
    threadpoolctl), and BLAS uses one meanwhile. With more than one, large products are made in parts, at all calls,
    which may round their last digits otherwise than the step by itself: the bits depend on how many threads there are.

    Raises `CompileError`, with the line, for what cannot be repeated: a NumPy function on arrays of the step of which
    it is not known what it does, a value of a tensor as a Python number (float, .item(), int, if), a constant that is
    another at the second call, random numbers that are not the library's, an iterator that it would use up, a shape
    that depends on values, a returned tensor whose graph is still there, arrays on a GPU without `graph=True`.
    Parameters, gradients and optimisers are then as they were before the call. An error of the step itself leaves them
    as the step would, and its `except` catches. A function that is called while another one is recorded becomes a part
    of that recording; under `detect_anomaly` the step runs as it is. Do not use the same modules in another thread
    while it is recorded.

    With `graph=True` the third call captures what the step asks of the GPU as one CUDA graph, and from then on a call
    is one launch and a few copies, with the same results; arguments are tensors on the GPU. Rates, numbers of steps,
    seeds of dropout, and whatever is assigned between calls are those of the call. What cannot be captured raises
    `CompileError` with its line: values that are read, copies from the host, products that are not of two matrices of
    float32 or float64, optimisers of one's own; docs/gpu.md has all of it. Without a GPU it raises
    `BackendMismatchError`. No device has run this yet.

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
    if inspect.iscoroutinefunction(step) or inspect.isgeneratorfunction(step) or inspect.isasyncgenfunction(step):
        raise TypeError(f"tr.compile: {step.__name__} is a coroutine or a generator, of which no recording can be made")
    if graph:
        from tinygrad_rnn.compiler.graphs import Graphed  # for a GPU alone

        return Graphed(step)  # type: ignore[return-value]
    return Compiled(step)  # type: ignore[return-value]


class Compiled:
    """A function and its recordings: a tape after one call, a program after two.

    For one key, the signature of the arguments and the switches, there may be several: of other modes of the modules,
    say. The one that was used last comes first.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        functools.update_wrapper(self, step, updated=())
        self.step = step
        self.found: OrderedDict[Any, list[Any]] = OrderedDict()  # recordings
        self.lock = threading.RLock()
        self.misses = 0  # how many calls in a row no recording fitted
        self.recorded = 0  # how many calls were recorded
        self.changed = ""  # what was another thing at the last of those misses

    @property
    def compiled(self) -> Compiled:
        """Itself: what holds the recordings of a compiled function."""
        return self

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return type(self)(copy.deepcopy(self.step, memo))

    def __copy__(self) -> Compiled:
        return type(self)(self.step)

    def __reduce__(self) -> Any:
        return type(self), (self.step,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = grad_mode.get()
        if active_tape.get() is not None or mode == ANOMALY:
            return self.step(*args, **kwargs)
        n = threads.allowed() if backend.stages is not None else 1
        with self.lock, threads.one_each(n):
            given: list[Any] = []
            signature = signature_of(args, given), signature_of(kwargs, given) if kwargs else None
            key = (signature, mode, fused_enabled(), backend.stages, n)
            recordings = self.found.get(key)
            for k, recording in enumerate(recordings or ()):
                if recording.fits(given):
                    if recording.program is None:
                        return self.record(key, args, kwargs, given, recording)
                    self.misses = 0
                    if k:
                        recordings.insert(0, recordings.pop(k))  # type: ignore[union-attr]
                    self.found.move_to_end(key)
                    try:
                        return recording.program.replay(given)
                    except Deviation:
                        return self.step(*args, **kwargs)
            return self.record(key, args, kwargs, given, None)

    def record(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Any], first: Recording | None
    ) -> Any:
        """Call the step and write down what it does; the second time, make a program of that."""
        self.recorded += 1
        self.note_miss(key, first)
        new = Recording(self.step, args, kwargs, given, key[-1])
        try:
            outcome = new.run(args, kwargs, first)
        except CompileError:
            new.tape.undo.restore()
            raise
        finally:
            if new.program is not None or not new.done:
                new.tape.close()
            else:
                new.tape.rest()
        if first is not None:
            self.found[key].remove(first)
            first.tape.close()
        if new.moving:  # it will fit as little as one before it, and says what moves
            for recording in [r for r in self.found.get(key, ()) if r.moving]:
                self.found[key].remove(recording)
                recording.tape.close()
        if not new.tape.spoiled:
            self.keep(key, new)
        return outcome

    def keep(self, key: Any, new: Any) -> None:
        """Add a recording, and let go of those that were not used for longest."""
        self.found.setdefault(key, []).insert(0, new)
        self.found.move_to_end(key)
        while sum(map(len, self.found.values())) > RECORDINGS:
            oldest = next(iter(self.found))
            self.found[oldest].pop().close()
            if not self.found[oldest]:
                del self.found[oldest]

    def note_miss(self, key: Any, first: Any) -> None:
        """Warn if it is always recorded anew, since something is another thing at each call."""
        if first is None and (recordings := self.found.get(key)):
            self.misses, self.changed = self.misses + 1, recordings[0].changed()
            if self.misses == MISSES:
                name = getattr(self, "__qualname__", type(self.step).__name__)
                warnings.warn(
                    f"tr.compile has recorded {name} anew at {MISSES} calls in a row, and so ran it as it is: "
                    f"{self.changed} was another thing each time. Pass it as an argument, or change it "
                    f"outside of the function",
                    RuntimeWarning,
                    stacklevel=4,
                )


class Recording:
    """One recording of a step, and what must be as it was for it to hold."""

    def __init__(self, step: Callable[..., Any], args: Any, kwargs: Any, given: list[Any], threads: int) -> None:
        self.step, self.given = step, given
        self.guard = Guard(step, (args, kwargs))
        # an argument that the step finds elsewhere, too, is one of its own tensors: no other can take its place
        self.pinned = {k: x for k, x in enumerate(given) if id(x) in self.guard.tensors}
        self.tape = Tape(given, threads)
        watches = [x._node.watch for x in self.guard.tensors.values() if x._node is not None]
        self.tape.found.start = {watch: watch.grad for watch in watches if watch is not None}
        self.program: Program | None = None
        self.made: frozenset[int] = frozenset()  # the ids of constants in the result that each call makes
        self.done = False
        self.moving = ""  # what the step looks at, and has changed itself: no two calls do the same, in words
        self.settling = False  # whether the step, at its first call, has changed containers that it may look at

    def close(self) -> None:
        """Let go of what the recording was made of."""
        self.tape.close()

    def fits(self, given: Sequence[Any]) -> bool:
        """Whether the step would do the same now with these arguments."""
        if self.moving:
            return False
        for k, x in enumerate(given):
            if (k in self.pinned or id(x) in self.own) and self.pinned.get(k) is not x:
                return False
        return self.guard.fits() and self.forms.fit() and self.grads_fit()

    def grads_fit(self) -> bool:
        """Whether there are the gradients that the step reads, and the options by whose values it decides."""
        if not all(same(read.now(), read.value) for read in self.expected):
            return False
        return all((watch.grad is None) is absent for watch, absent in self.absent)

    def changed(self) -> str:
        """What is another thing than when it was recorded, in words."""
        if self.moving:
            return self.moving
        return "the dtype, the shape or requires_grad of a tensor" if self.guard.fits() else self.guard.changed()

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], first: Recording | None) -> Any:
        """The result of the step, which is written down on the way, and compared with the `first` recording."""
        tape, given = self.tape, self.given
        drawn = states(self.guard.generators)
        tape.undo.steps += going_back(self.guard)
        with tape.recording():
            args, kwargs = with_inputs((args, kwargs), tape)
            before = parts(args, kwargs)
            try:
                result = self.step(*args, **kwargs)
            except BaseException as error:
                if tape.refused is None and not isinstance(error, CompileError):  # what it had written is there
                    self.give_back(range(len(given)))
                raise
            made, tape.found.made = tape.found.made, []
            tape.result = checked(result, tape)
            check_parts(before, parts(args, kwargs))
            tape.log(returned, (repr(mapped(tape.result, lambda v: None)), *held(tape.result)))
            del result
        release(made)
        if states(self.guard.generators) != drawn:
            raise CompileError(
                "a function that tr.compile records draws random numbers by itself, which a replay would repeat: draw "
                "by tr.rand, tr.randn or dropout, or pass what is drawn as an argument"
            )
        written = written_inputs(tape, given)
        free = {id(x) for k, x in enumerate(given) if k not in self.pinned}
        leaves = [leaf for i, leaf in tape.found.leaves.items() if i not in free]
        self.own = {id(leaf.tensor) for leaf in leaves}
        self.moving = self.guard.moving(self.own)
        if first is not None and not tape.spoiled and not self.moving and tape.decisions() == first.tape.decisions():
            try:
                self.program = finished(first, self, written)
            except CompileError:  # but a table that the first call has filled, say, is there from then on
                if not first.settling:
                    raise
        self.forms = Forms(leaves)
        self.expected = list(tape.expected)
        self.absent = [(watch, not there) for watch, there in tape.found.before.items() if watch.keeps]
        buffers = input_buffers(tape, given)
        self.give_back(written)
        result = mapped(tape.result, lambda v: placeholder(v, {}, buffers))
        outcome = outside(result, self.made, given, overlapping(result))
        self.settling = self.guard.after(self.own) and first is None
        self.done = True
        return outcome

    def give_back(self, places: Iterable[int]) -> None:
        """Write into arguments what the step has written."""
        buffers = input_buffers(self.tape, self.given)
        for k in places:
            if buffers[k] is not None:
                put_back(self.given[k], buffers[k])


def states(generators: Sequence[Any]) -> Any:
    """How far the generators that a step may draw from by itself have come: those that it finds, Python's, NumPy's."""
    numpys: Any = np.random.get_state() if "numpy.random" in sys.modules else ()
    numbers = [x.tobytes() if isinstance(x, np.ndarray) else x for x in numpys]
    return [repr(g.state()) for g in generators], random.getstate(), numbers


def going_back(guard: Guard) -> list[Callable[[], None]]:
    """What brings back what a guard has found, and the generators of Python and NumPy, as they are now."""
    found: list[Callable[[], None]] = [functools.partial(g.go_to, g.state()) for g in guard.generators]
    found += [functools.partial(np.copyto, array, array.copy()) for array, _ in guard.arrays if array.flags.writeable]
    if "numpy.random" in sys.modules:
        found.append(functools.partial(np.random.set_state, np.random.get_state()))
    found.append(guard.restore)
    return [*found, functools.partial(random.setstate, random.getstate())]


def finished(first: Recording, second: Recording, written: Sequence[int]) -> Program:
    """The program of two recordings that agree; `CompileError` if they do not."""
    tape, given = second.tape, second.given
    compare(first.tape.entries, tape.entries)
    second.made = made_inside(first.tape.result, tape.result, tape.given)
    count = len(tape.entries)
    for a, b in zip(first.tape.found.leaves.values(), tape.found.leaves.values(), strict=True):
        if a.tensor is not b.tensor and not any(b.tensor is x for x in given):  # the step makes it at each call
            tape.log(renew, (b.tensor, b.initial), state=True)
    tape.entries[:] = [*tape.entries[count:], *tape.entries[:count]]
    return program_of(tape, given, written, second.made)
