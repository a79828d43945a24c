"""`tr.compile(step, graph=True)`: on a GPU a step as one CUDA graph, which is captured once, and launched at each call.

The first two calls run the step as it is, and note which tensors and optimisers it uses. At the third, what it asks of
the device is captured, which computes nothing; from then on a call copies what is new into the graph's memory, launches
it, and copies out what the step has made. So what a graph writes in place is its own memory alone, and whatever anybody
holds (a parameter's array, a gradient, a result) is never written, as everywhere in this library.

- *Memory.* All that is allocated meanwhile comes from a pool of the recording's own, and goes with it.
- *State*: the arrays of tensors, their gradients, the moments of optimisers. Each has a `Slot`, a place in the graph's
  memory, to which a call copies what has been replaced since the last one, and from which what the step changes is
  copied out, all of a dtype at once.
- *Numbers of the host*, of an optimiser and of what is drawn, are made anew before each launch, and copied to where
  kernels look for them (`Capture.of_host`).
- *What the host reads* is read after the launch, before anything is copied out. If a norm is then of no use, nothing
  has happened, and the step runs as it is.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from inspect import unwrap
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from tinygrad_rnn.compiler.arrays import flat as entries_of
from tinygrad_rnn.compiler.arrays import rebuilt
from tinygrad_rnn.compiler.boundary import Given, held, mapped, signature_of
from tinygrad_rnn.compiler.compile import Compiled, going_back, states
from tinygrad_rnn.compiler.engine import DRAWS_INSIDE
from tinygrad_rnn.compiler.found import reading_is_noticed, slot
from tinygrad_rnn.compiler.search import PLAIN, Guard, entries, same, unchanged
from tinygrad_rnn.compiler.traced import users_place
from tinygrad_rnn.compiler.undo import Undo
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.kernels.cuda import cuda_kernels_enabled
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.scalars import plain
from tinygrad_rnn.tensor import device, random
from tinygrad_rnn.tensor.backend import device_of
from tinygrad_rnn.tensor.fused import fused_enabled
from tinygrad_rnn.tensor.mode import ANOMALY, active_tape, grad_mode
from tinygrad_rnn.tensor.tensor import Tensor, twin

WARM_UP = 2  # calls that run as they are: they compile kernels, and make what is made once
WORDS = 1024  # of 8 bytes, for numbers of the host
WORKSPACE = {True: 32 << 20, False: 4 << 20}  # bytes that cuBLAS asks for, by whether the GPU is a Hopper or later
CAPTURED = "in a function that is captured as a CUDA graph"
STEP = unwrap(Optimizer.step)
UNNAMED = ("tinygrad_rnn", "cupy", "numpy")  # packages whose lines are not a user's


class Graphed(Compiled):
    """A function and its graphs, by what it is given."""

    def __init__(self, step: Callable[..., Any]) -> None:
        device.cupy_here()
        super().__init__(step)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = grad_mode.get()
        if active_tape.get() is not None or device.capture.get() is not None or mode == ANOMALY:
            return self.step(*args, **kwargs)
        if not cuda_kernels_enabled():
            raise CompileError("tr.compile(graph=True) needs the library's CUDA kernels: tr.enable_cuda_kernels()")
        with self.lock:
            given: list[Tensor] = []
            signature = signature_of(rebuilt((args, kwargs), lambda v: form_of(v, given)), [])
            key = (signature, mode, fused_enabled(), device.current())
            recording = next((r for r in self.found.get(key, ()) if r.fits()), None)
            if recording is None:
                self.recorded += 1
                self.note_miss(key, None)
                recording = Recording(self.step, args, kwargs)
            self.forget(recording)
            self.keep(key, recording)
            try:
                done, outcome = recording.call(args, kwargs, given)
            except CompileError:
                self.forget(recording)
                raise
            if recording.memory is not None:
                self.misses = 0
            return outcome if done else self.step(*args, **kwargs)

    def forget(self, this: Recording) -> None:
        """Let go of a recording, and of those whose graphs can never fit again."""
        left = {k: [r for r in rs if r is not this and not r.is_over()] for k, rs in self.found.items()}
        self.found = OrderedDict((k, rs) for k, rs in left.items() if rs)


def form_of(v: Any, given: list[Tensor]) -> Any:
    """What must be equal in an argument of two calls; the tensors whose values may differ are added to `given`."""
    if isinstance(v, Tensor):
        a = v._array
        if not device.is_on_device(a):
            raise CompileError(
                f"{users_place()}: tr.compile(graph=True) captures what runs on a GPU, and an argument of shape "
                f'{v.shape} is on {device_of(a)}: pass .to("cuda") of it'
            )
        if v._node is not None and not v.is_leaf:
            raise CompileError(
                f"{users_place()}: an argument was computed from tensors that require a gradient, which could not flow "
                f"on: pass it as .detach()"
            )
        if v._node is not None:
            return "leaf", id(v)
        if not any(x is v for x in given):
            given.append(v)
        return "tensor", next(k for k, x in enumerate(given) if x is v), a.shape, str(a.dtype)
    if isinstance(v, np.ndarray) or device.is_on_device(v):
        raise CompileError(
            f"{users_place()}: tr.compile(graph=True) takes arrays as tensors on the GPU: pass tr.Tensor(array, "
            f'device="cuda")'
        )
    return v


class Slot:
    """Where the engine holds an array that a step may use or replace: and a place for it in the memory of a graph."""

    __slots__ = ("owner", "name", "node", "place", "held", "absent", "after")

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name
        self.node = owner._node if isinstance(owner, Tensor) else None
        self.place: Any = None
        self.held: Any = None  # the array whose values the place has
        self.absent = False  # whether there is none before the step
        self.after: slice | None = None  # its part of what is copied out, if the step changes it

    def now(self) -> Any:
        if isinstance(self.owner, dict):
            return self.owner[self.name]
        return slot(self.owner) if isinstance(self.owner, Tensor) else self.owner.grad

    def put(self, array: Any) -> None:
        if isinstance(self.owner, dict):
            self.owner[self.name] = array
        else:
            setattr(self.owner, self.name, array)

    def fits(self) -> bool:
        """Whether what is there now can be copied to the place."""
        array = self.now()
        if (array is None) is not self.absent or (self.node is not None and self.owner._node is not self.node):
            return False
        if array is None or array is self.held:
            return True
        return device.is_on_device(array) and array.shape == self.place.shape and array.dtype == self.place.dtype

    def refresh(self) -> None:
        """Copy what has been replaced since the last time."""
        array = self.now()
        if array is not None and array is not self.held:
            self.place[...] = array
            self.held = array


class Ids(set[int]):
    """A set in the place of a dictionary: what is made inside of a step is known by its id, and not kept alive."""

    def __setitem__(self, key: int, value: Any) -> None:
        self.add(key)


class Used:
    """The tensors that a step uses and did not make, found by use; with the arrays that they had."""

    def __init__(self, known: Iterable[int], leaves: dict[int, Tensor] | None) -> None:
        self.inside, self.constants = Ids(known), Ids()
        self.complete = leaves is not None  # whether these are all that the step may use
        self.leaves = leaves or {}
        self.before: dict[int, Any] = {}

    def array(self, tensor: Tensor, array: Any) -> Any:
        """The array of a tensor that is read."""
        if id(tensor) in self.inside or id(tensor) in self.leaves:
            return array
        if self.complete:
            raise CompileError(
                f"{users_place()}: a tensor of shape {array.shape} is used that was not at the call before, {CAPTURED}"
            )
        if not device.is_on_device(array):
            raise CompileError(
                f"{users_place()}: tr.compile(graph=True) captures what runs on a GPU, and a tensor of shape "
                f'{array.shape} that the step uses is on {device_of(array)}: move it with .to("cuda") before'
            )
        if tensor._node is not None and not tensor.is_leaf:
            raise CompileError(
                f"{users_place()}: a tensor of shape {array.shape} {CAPTURED} has a graph that was built outside: "
                f"use .detach() of it"
            )
        self.leaves[id(tensor)], self.before[id(tensor)] = tensor, array
        return array

    def grad(self, watch: Any, g: Any) -> Any:
        return g


class Later:
    """A number that is on the GPU, and is read after the launch: until then it can be returned, and nothing else."""

    __slots__ = ("array", "value_of")

    def __init__(self, array: Any, value_of: Callable[[list[float]], float | None]) -> None:
        self.array, self.value_of = array, value_of

    def refuse(self, *args: Any) -> NoReturn:
        graph = device.capture.get()
        if graph is None:
            raise RuntimeError("a number of a step that is captured, which is over")
        raise graph.error("a number that the step computes, such as a norm, is looked at: return it instead")

    __hash__ = None  # type: ignore[assignment]


OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
CONVERSIONS = ("float", "int", "bool", "index", "complex", "str", "repr", "format", "round", "neg", "abs")
for _name in (*CONVERSIONS, "lt", "le", "gt", "ge", "eq", "ne", *OPERATORS, *[f"r{name}" for name in OPERATORS]):
    setattr(Later, f"__{_name}__", Later.refuse)


class Draws:
    """In the place of the library's generator: what is drawn on the host would be the same at each launch."""

    def __init__(self, real: Any) -> None:
        self.bit_generator = real.bit_generator

    def __getattr__(self, name: str) -> Any:
        raise device.capture.get().error("random numbers are drawn on the host: draw them outside, and pass them")


class Capture:
    """What stands for the tape of `tr.compile` while a step runs, and notes what it uses; and captures, if it does."""

    namespace = np  # whose arrays are the host's

    def __init__(
        self, known: Iterable[int], leaves: dict[int, Tensor] | None = None, memory: Memory | None = None
    ) -> None:
        self.found = Used(known, leaves)
        self.memory = memory
        self.undo = Undo()
        self.optimizers: list[Optimizer] = []
        self.steps: list[tuple[Optimizer, Any, tuple[int, ...], Any]] = []  # optimiser, group, parameters, flat
        self.checks: list[tuple[Any, Callable[[], Exception]]] = []  # of ids
        self.made: list[tuple[slice, Any, Callable[[], Any]]] = []  # numbers of the host: words, dtype, how
        self.read: list[Later] = []
        self.expected: list[tuple[Callable[..., Any], Any, Any]] = []  # options that the step looks at
        self.after: list[tuple[Callable[..., Any], Any, Any]] = []  # what the host does when the step is over
        self.refused: CompileError | None = None
        self.draws = Draws(random.generator())

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Have what the step does inside come here."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(reading_is_noticed())
            tokens = [(active_tape, active_tape.set(self))]
            if self.memory is not None:
                stack.enter_context(random.use_generator(self.draws))  # type: ignore[arg-type]
                tokens.append((device.capture, device.capture.set(self)))
            try:
                yield
            finally:
                for variable, token in tokens:
                    variable.reset(token)

    def error(self, message: str) -> CompileError:
        """The error of what cannot be captured, with its line; the step may not catch it."""
        if self.refused is None:
            self.refused = CompileError(f"{users_place()}: {message}, {CAPTURED}")
        return self.refused

    def reading(self) -> CompileError:
        """The error of a value that the host asks for."""
        return self.error(
            "a value is read from the GPU, where nothing is computed yet: return the tensor, and read it outside of "
            "the function"
        )

    # --- what the engine asks of a tape -------------------------------------------------------------------------------

    def call(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function that is marked `@replayed`."""
        args = tuple([list(x) if isinstance(x, Iterator) else x for x in args])
        for tensor in tensors_in((args, kwargs)):
            self.found.array(tensor, slot(tensor))
        changes = getattr(f, "changes", "leaves")
        if f is STEP:
            self.optimizers.append(args[0])
        if changes not in ("nothing", "reads", "draws"):
            self.undo.save([*args, *kwargs.values()])
        if self.memory is not None:
            if changes == "options" and f.__name__ == "_set_again" and same(vars(args[0]).get(args[1]), args[2]):
                return None
            self.check_call(f, changes, args, kwargs)
        token = active_tape.set(None)
        try:
            y = f(*args, **kwargs)
        finally:
            active_tape.reset(token)
        if changes == "reads":
            self.expected.append((f, args, y))
        elif changes == "options":
            self.after.append((f, args, kwargs))
        return y

    def check_call(self, f: Callable[..., Any], changes: str, args: Any, kwargs: Any) -> None:
        """Raise `CompileError` for what the host would have to do in the middle of a graph."""
        name = f.__qualname__
        if changes == "leaves" and (f is not STEP or not_ours(args[0])):
            raise self.error(f"{name}, which no graph holds: do it outside of the function")
        if changes == "draws":
            raise self.error("random numbers are drawn on the host: draw them outside, and pass them")
        if not f.__module__.startswith("tinygrad_rnn."):
            raise self.error(f"{name}, which has to run at each call: call it outside of the function")
        if changes == "itself" and id(args[0]) in self.found.inside:
            raise self.error(f"{name} of an argument, or of what the step computes: return the new values")
        if changes == "options" and self.computes((args, kwargs)):
            raise self.error(f"{name} of what the step computes: return it, and call that outside of the function")
        if changes == "reads" and self.after:
            raise self.error(f"an option is read after {self.after[-1][0].__qualname__}, which runs after the launch")

    def run_as_it_is(self, f: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return f(*args, **kwargs)

    def at_replay(self, f: Callable[..., Any], args: Any) -> None:
        if self.memory is not None:
            raise self.error(f"{args[1]!r} of a module is set to what the step computes: return that, and pass it")

    def stages(self, module: Any) -> Any:
        return module

    def computes(self, x: Any) -> bool:
        """Whether a value holds a tensor that the step has made."""
        return any(isinstance(v, Tensor) and id(v) in self.found.inside for v in entries_of(x))

    def differs(self, x: Any) -> bool:
        return isinstance(x, Tensor) or device.is_on_device(x)

    # --- what kernels ask of a graph ----------------------------------------------------------------------------------

    @property
    def workspace(self) -> Any:
        """The workspace of cuBLAS."""
        assert self.memory is not None
        return self.memory.workspace

    def slot(self) -> int:
        """The place of a flag that no other check has."""
        assert self.memory is not None
        if not device.free_slots:
            raise self.error(f"more than {device.OF_GRAPHS} checks of ids in all graphs that are kept")
        self.memory.slots.append(device.free_slots.pop())
        return self.memory.slots[-1]

    def of_host(self, make: Callable[[], Any], count: int, dtype: Any) -> Any:
        """Numbers that are made before each launch, where kernels find them."""
        assert self.memory is not None
        drawing: Any = random.used_generator()
        if drawing is not self.draws:
            raise self.error(DRAWS_INSIDE)
        if self.after:
            raise self.error(f"{self.after[-1][0].__qualname__} before an optimiser's step: call it behind that")
        dtype = np.dtype(dtype)
        first = self.made[-1][0].stop if self.made else 0
        words = slice(first, first - -count * dtype.itemsize // 8)
        if words.stop > WORDS:
            raise self.error(f"more than {WORDS} numbers of optimisers and of what is drawn")
        self.made.append((words, dtype, make))
        return self.memory.words[words].view(dtype)[:count]

    def later(self, array: Any, value_of: Callable[[list[float]], float | None]) -> Later:
        """A number that `value_of` makes of an array after the launch; None: the step has to run as it is."""
        self.read.append(Later(array, value_of))
        return self.read[-1]

    def stepped(self, optimizer: Optimizer, group: Any, indices: tuple[int, ...], flat: Any) -> None:
        """Have the host count a step of these parameters after each launch."""
        self.steps.append((optimizer, group, indices, flat))


def not_ours(optimizer: Optimizer) -> bool:
    """Whether a rule is a user's own: which of its numbers change from step to step is not known."""
    return not type(optimizer).update.__module__.startswith("tinygrad_rnn.")


def tensors_in(x: Any) -> Iterator[Tensor]:
    """The tensors that a call of the engine may touch: alone, in containers, by their owner."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, Optimizer):
        yield from x._parameters
    elif isinstance(x, Module):
        yield from (t for _, t in x._names())
    elif isinstance(x, tuple | list | dict):
        for v in x.values() if isinstance(x, dict) else x:
            yield from tensors_in(v)


class Memory:
    """The memory of a graph, in a pool of its own: places for state and arguments, numbers of the host, a workspace."""

    def __init__(self, cupy: Any) -> None:
        self.cupy, self.pool = cupy, cupy.cuda.MemoryPool()
        self.slots: list[int] = []  # flags that are this graph's
        weakref.finalize(self, device.free_slots.extend, self.slots)
        device.new_flag()  # so that there are flags
        with self.used():
            self.words = cupy.zeros((WORDS,), dtype="uint64")
            self.workspace = cupy.empty((WORKSPACE[int(cupy.cuda.Device().compute_capability) >= 90],), dtype="uint8")
        self.blocks: list[Any] = []  # of state that changes, one for each dtype
        self.graph: Any = None

    def used(self) -> Any:
        """A context in which arrays are made here."""
        return self.cupy.cuda.using_allocator(self.pool.malloc)

    def copy(self, array: Any) -> Any:
        """A place with the values of an array."""
        with self.used():
            place = self.cupy.empty(array.shape, dtype=array.dtype)
        place[...] = array
        return place

    def place(self, slots: Sequence[Slot], changed: dict[Slot, tuple[tuple[int, ...], Any]]) -> None:
        """Give each slot a place: those that are `changed`, to a shape and a dtype, in one block for each dtype."""
        for dtype in {dtype: None for _, dtype in changed.values()}:
            mine = [(s, shape) for s, (shape, of) in changed.items() if of == dtype]
            with self.used():
                block = self.cupy.empty((sum(math.prod(shape) for _, shape in mine),), dtype=dtype)
            start = 0
            for s, shape in mine:
                s.after = slice(start, start + math.prod(shape))
                s.place = block[s.after].reshape(shape)
                start = s.after.stop
            self.blocks.append((block, [s for s, _ in mine]))
        for s in slots:
            array = s.now()
            s.absent, s.held = array is None, None
            if s.place is None and array is not None:
                s.place = self.copy(array)
            s.refresh()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Have what is asked of the device inside become the graph."""
        main, stream = self.cupy.cuda.get_current_stream(), self.cupy.cuda.Stream(non_blocking=True)
        self.cupy.cuda.get_cublas_handle()  # made before, if it is not there
        stream.wait_event(main.record())
        with self.used(), stream:
            stream.begin_capture()
            try:
                yield
            except BaseException:
                with contextlib.suppress(Exception):  # which says that the capture was ended by an error
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()


class Recording:
    """What a step does with arguments of one form, around which all is as it was: noted, and then captured."""

    def __init__(self, step: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.step = step
        self.guard = Guard(step, (args, kwargs))
        self.calls = 0
        self.memory: Memory | None = None
        self.noted: Capture
        self.slots: list[Slot] = []
        self.given: list[Any] = []  # the places of the arguments, and the arrays whose values they have
        self.last = 0  # the number of the last launch

    def close(self) -> None:
        """Let go of the graph and its memory."""
        self.memory, self.slots, self.given, self.calls = None, [], [], 0
        vars(self).pop("noted", None)
        vars(self).pop("result", None)

    def changed(self) -> str:
        """What is another thing than when it was recorded, in words."""
        if not self.guard.fits():
            return self.guard.changed()
        return "a gradient, an option or the shape of a tensor"

    def is_over(self) -> bool:
        """Whether the graph can never fit again: its optimisers have other moments now."""
        if self.memory is None:
            return False
        return any(
            o._flats.get(indices) is not f or any(o._owner[i] is not f for i in indices)
            for o, _, indices, f in self.noted.steps
        )

    def fits(self) -> bool:
        """Whether the step would do the same now."""
        if self.is_over() or not self.guard.fits():
            return False
        if self.memory is None:
            return True
        if [state_of(*step[:3]) for step in self.noted.steps] != self.states:
            return False
        if not all(same(f(*args), value) for f, args, value in self.noted.expected):
            return False
        return all(s.fits() for s in self.slots)

    def call(self, args: Any, kwargs: Any, given: list[Tensor]) -> tuple[bool, Any]:
        """Run the step, capture it or launch its graph. False if the graph must be passed by, and nothing was done."""
        if self.calls < WARM_UP:
            self.note(args, kwargs, given)
            self.calls += 1
            return True, self.outcome
        if self.memory is None:
            self.capture(args, kwargs, given)
        return self.replay(given)

    # --- as it is -----------------------------------------------------------------------------------------------------

    def note(self, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        """Run the step as it is, and note what it uses."""
        noted = Capture([id(x) for x in given if id(x) not in self.guard.tensors])
        with undone(noted, Guard(self.step, (args, kwargs)), CompileError):
            with noted.noticing():
                self.outcome = self.step(*args, **kwargs)
            leaves = set(noted.found.leaves)
            if changed := self.guard.moving(leaves):
                raise CompileError(f"{users_place()}: {changed} is changed by the step itself, {CAPTURED}: pass it")
        self.guard.after(leaves)
        noted.undo = Undo()
        self.noted = noted
        self.changes = {
            (id(s.owner), s.name): (a.shape, a.dtype)
            for s in slots_of(noted.found.leaves.values(), noted.optimizers)
            if (a := s.now()) is not None and replaced(s, noted.found)
        }

    # --- captured -----------------------------------------------------------------------------------------------------

    def capture(self, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        """Make the graph; nothing is computed, and all is as it was, but for what else Python does."""
        cupy = device.cupy_here()
        memory, found = Memory(cupy), self.noted.found
        self.slots = list(slots_of(found.leaves.values(), self.noted.optimizers))
        changed = {s: self.changes.get((id(s.owner), s.name)) for s in self.slots}
        memory.place(self.slots, {s: form for s, form in changed.items() if form is not None})
        self.given = [[memory.copy(x._array), x._array] for x in given]
        twins = {id(x): twin(x, place) for x, (place, _) in zip(given, self.given, strict=True)}
        held_before, around = [s.now() for s in self.slots], Guard(self.step, (args, kwargs))
        new = Capture([id(t) for t in twins.values()], dict(found.leaves), memory)
        inside: Any = rebuilt((args, kwargs), lambda v: twins.get(id(v), v))
        try:
            with undone(new, around, BaseException), refusals():
                for s in self.slots:
                    s.put(None if s.absent else s.place)
                with memory.capturing():
                    with new.noticing():
                        result = self.step(*inside[0], **inside[1])
                    self.commit(new)
                self.result = self.results(result, new, [id(t) for t in twins.values()])
                if where := kept_in(around, new.found.inside):
                    raise new.error(f"what the step computes is kept in {where}: return it")
            new.undo.restore()
        finally:
            for s, array in zip(self.slots, held_before, strict=True):
                s.put(array)
        for _, _, _, flat in new.steps:  # the places have what they were given
            flat.values, flat.bound = None, []
        del self.outcome
        new.undo, new.optimizers, new.memory, self.noted = Undo(), [], None, new
        self.states = [state_of(*step[:3]) for step in new.steps]
        self.draws = any(dtype == np.uint64 for _, dtype, _ in new.made)
        self.memory = memory

    def commit(self, new: Capture) -> None:
        """Have the graph end by bringing what the step has made of the state to its places."""
        if new.refused is not None:
            raise new.refused
        pending = []
        for s in self.slots:
            array = s.now()
            if array is None or array is s.place:
                continue
            if s.after is None or array.shape != s.place.shape or array.dtype != s.place.dtype:
                raise new.error("a tensor or a gradient changes that did not at the call before, or its shape does")
            pending.append((s.place, array))
        assert new.memory is not None
        spans = [(block.data.ptr, block.data.ptr + block.nbytes) for block, _ in new.memory.blocks]
        for k, (place, a) in enumerate(pending):
            if any(first <= a.data.ptr < end for first, end in spans):  # in a place that may be written before
                pending[k] = place, a.copy()
        for place, a in pending:
            place[...] = a
        self.gone = {s for s in self.slots if s.now() is None and s.place is not None}

    def results(self, result: Any, new: Capture, given: list[int]) -> Any:
        """The result of the step with what stands for it at each call in the place of tensors."""
        before = held(self.outcome)

        def one(v: Any) -> Any:
            if isinstance(v, Tensor):
                if id(v) in given:
                    return Given(given.index(id(v)))
                if id(v) in new.found.leaves:
                    return v
                node = v._node
                if node is not None and node.plan is not None and node.sources is not None:
                    raise new.error(
                        f"the output of {node.plan.name}, shape {v.shape}, is returned, whose graph is still there: "
                        f"call .backward() inside, or return .detach() of it"
                    )
                return v if device.is_on_device(slot(v)) else refused(v)
            if isinstance(v, Later) or device.is_on_device(v):
                return v
            if isinstance(v, PLAIN) or v is Ellipsis:
                if not any(same(v, b) for b in before):
                    raise new.error(f"{v!r} is returned, which was another thing at the call before: return a tensor")
                return v
            return v if any(v is b for b in before) else refused(v)

        def refused(v: Any) -> NoReturn:
            raise new.error(f"a {type(v).__name__} that is not on the GPU is returned: return tensors and numbers")

        made = mapped(result, one)
        there = [v for v in held(made) if isinstance(v, Tensor) or device.is_on_device(v)]
        own = [v for v in there if id(v) not in new.found.leaves]
        self.outputs = [(id(v), v, slot(v) if isinstance(v, Tensor) else v) for v in own]
        return made

    # --- launched -----------------------------------------------------------------------------------------------------

    def replay(self, given: Sequence[Tensor]) -> tuple[bool, Any]:
        """Launch the graph. False if the step has to run as it is, and nothing was done."""
        memory, noted = self.memory, self.noted
        assert memory is not None
        self.take(given)
        back = random.keep_generator() if self.draws and noted.read else None
        self.launch(memory)
        made = {i: twin(v, a.copy()) if isinstance(v, Tensor) else a.copy() for i, v, a in self.outputs}
        state = list(self.new_state(memory))  # all asked for before anything is waited for
        if not all(self.reads(later, made) for later in noted.read):
            if back is not None:
                back()
            return False, None
        self.leave(state)
        return True, mapped(self.result, lambda v: given[v.k] if isinstance(v, Given) else made.get(id(v), v))

    def take(self, given: Sequence[Tensor]) -> None:
        """Copy what is new to the places of the graph."""
        for entry, x in zip(self.given, given, strict=True):
            if x._array is not entry[1]:
                entry[0][...] = entry[1] = x._array
        for _, _, _, flat in self.noted.steps:
            if flat.bound:  # a step that ran as it is, which writes moments in place
                for s in self.slots:
                    s.held = None if s.owner is flat.moments else s.held
        for s in self.slots:
            s.refresh()

    def leave(self, state: Iterable[tuple[Slot, Any]]) -> None:
        """Leave behind what the step does."""
        for s, array in state:
            s.put(array)
            s.held = array
        for optimizer, _, indices, flat in self.noted.steps:
            flat.values, flat.bound = None, []  # what is joined at the next step that runs as it is
            for i in indices:
                optimizer._steps[i] += 1
        for f, args, kwargs in self.noted.after:
            f(*args, **kwargs)

    def reads(self, later: Later, numbers: dict[int, Any]) -> bool:
        """Read a number, and whether it is of use."""
        numbers[id(later)] = value = later.value_of(device.read(later.array).tolist()[:1])
        return value is not None

    def launch(self, memory: Memory) -> None:
        """Bring the numbers of the host to where the graph looks for them, and launch it."""
        made = self.noted.made
        if made:
            words = np.zeros(made[-1][0].stop, np.uint64)
            for place, dtype, make in made:
                numbers = make()
                words[place].view(dtype)[: len(numbers)] = numbers
            memory.words[: words.size] = memory.cupy.asarray(words)
        memory.graph.launch()
        for s in self.slots:
            if s.after is not None:
                s.held = None  # until it is copied out
        self.last = now = self.last + 1
        for flag, error in self.noted.checks:
            flag.raise_later(lambda error=error: self.blamed(error, now))

    def new_state(self, memory: Memory) -> Iterator[tuple[Slot, Any]]:
        """What the state is after a launch, in memory that nothing will write: of each dtype in one array."""
        for block, slots in memory.blocks:
            copy = block.copy()
            yield from ((s, copy[s.after].reshape(s.place.shape)) for s in slots if s not in self.gone)
        yield from ((s, None) for s in self.gone)

    def blamed(self, error: Callable[[], Exception], launch: int) -> Exception:
        """The error of an id that is out of range. Ids of an earlier launch are there no more."""
        found = error()
        if launch == self.last:
            return found
        return type(found)(
            "an id is out of range at an earlier call of a step that is captured as a CUDA graph: read a result after "
            "each call to be told which"
        )


@contextmanager
def undone(noted: Capture, guard: Guard, kinds: type[BaseException]) -> Iterator[None]:
    """Have an error of these kinds inside leave all as it was."""
    drawn, back = states(guard.generators), going_back(guard)
    try:
        yield
        if states(guard.generators) != drawn:
            raise CompileError(
                f"{users_place()}: random numbers that are not the library's are drawn, {CAPTURED}: pass them"
            )
        if noted.refused is not None:
            raise noted.refused
    except kinds:
        noted.undo.restore()
        for step in reversed(back):
            step()
        raise


def kept_in(around: Guard, made: set[int]) -> str:
    """Where, of what a guard has found before a step, something is now that the step has made; "" if nowhere."""

    def held(x: Any) -> bool:
        return any(isinstance(v, Tensor) and id(v) in made for v in entries_of(x))

    for container, items in around.containers:
        if not unchanged(container, items) and held(tuple(entries(container))):
            return f"a {type(container).__name__}"
    for _, name, _, now in around.seen_anew():
        if held(now):
            return repr(name)
    for own, before in around.objects:
        for name, now in own.items():
            if now is not before.get(name) and held(now):
                return repr(name)
    return ""


def state_of(optimizer: Optimizer, group: Any, indices: tuple[int, ...]) -> Any:
    """What must be so for a step of these parameters to be the same: which others have as many steps, the options."""
    steps = optimizer._steps
    options = {k: repr(plain(v)) for k, v in dict.items(group) if k not in ("lr", "params")}
    return [n - steps[indices[0]] for n in steps], options


def slots_of(leaves: Iterable[Tensor], optimizers: Iterable[Optimizer]) -> Iterator[Slot]:
    """All state that a step may use."""
    for tensor in leaves:
        yield Slot(tensor, "_array")
        if tensor._node is not None and tensor._node.watch is not None:
            yield Slot(tensor._node.watch, "grad")
    for optimizer in {id(o): o for o in optimizers}.values():
        for found in optimizer._flats.values():
            yield from (Slot(found.moments, name) for name in found.moments)


def replaced(s: Slot, found: Used) -> bool:
    """Whether a step has given a slot another array; a gradient, or a moment, it may always have."""
    return not isinstance(s.owner, Tensor) or found.before[id(s.owner)] is not s.now()


@contextmanager
def refusals() -> Iterator[None]:
    """Have what CuPy and CUDA refuse while a stream captures be a `CompileError` with its line."""
    try:
        yield
    except CompileError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        said = " ".join(str(error).split())
        if "captur" not in said.lower():
            raise
        raise CompileError(f"{line_of(error.__traceback__)}: {why(said)} ({said}), {CAPTURED}") from error


REASONS = {
    "H2D": "something is copied from the host, such as a list, an array of NumPy, or a table of more than 8 arrays",
    "D2H": "something is read from the GPU, or a shape depends on values",
    "cuBLAS": "a product that is not of two matrices of float32 or float64, which CuPy makes by cuBLAS",
}


def why(said: str) -> str:
    """What CuPy or CUDA has refused, in words."""
    return next((reason for word, reason in REASONS.items() if word in said), "the GPU is waited for")


def line_of(trace: TracebackType | None) -> str:
    """The innermost line of a user's that an error has come through, in words."""
    found = "?"
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in UNNAMED and ".cupy" not in name:
            found = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
