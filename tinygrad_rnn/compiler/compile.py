"""`tr.compile`: when a function is recorded, and when the recording may be repeated."""

from __future__ import annotations

import functools
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from tinygrad_rnn.compiler.program import Program, outside
from tinygrad_rnn.compiler.tape import Generator, Tape, compare, flat, rebuilt, returned
from tinygrad_rnn.compiler.traced import Traced, users_place
from tinygrad_rnn.errors import CompileError
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor import backend, random
from tinygrad_rnn.tensor.backend import AnyArray as Array
from tinygrad_rnn.tensor.fused import fused_enabled
from tinygrad_rnn.tensor.mode import ANOMALY, active_tape, grad_mode
from tinygrad_rnn.tensor.tensor import Tensor, box

F = TypeVar("F", bound=Callable[..., Any])
LIBRARIES = ("tinygrad_rnn", "numpy")  # modules that hold no parameters
RECORDINGS = 8  # how many are kept: the last used, of arguments of as many shapes


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
    compiled = _Compiled(step)

    @functools.wraps(step)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled(args, kwargs)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


class _Compiled:
    """A function, its recordings, and the modules whose mode decides which one holds."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.found: OrderedDict[Any, Tape | Program] = OrderedDict()
        self.modules: list[Module] = []
        self.lock = threading.RLock()

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mode = grad_mode.get()
        if active_tape.get() is not None or mode == ANOMALY:
            return self.step(*args, **kwargs)
        with self.lock:
            arrays: list[Array] = []
            fixed: list[bool] = []
            form = (signature_of(args, arrays, fixed), signature_of(kwargs, arrays, fixed) if kwargs else None)
            stages = backend.stages
            key = (form, mode, fused_enabled(), stages, tuple([m.training for m in self.modules]))
            held = self.found.get(key)
            if type(held) is Program and held.leaves.fits():
                self.found.move_to_end(key)
                return held.replay(arrays, fixed)
            return self.record(key, args, kwargs, held)

    def record(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], held: Any) -> Any:
        """Call the step and write down what it does; at the second time, make it what is repeated."""
        leaves, modules = reachable(self.step, args, kwargs)
        if new := [m for m in modules if not any(m is known for known in self.modules)]:
            self.modules += new  # from now on part of the key
            key = (*key[:-1], tuple(m.training for m in self.modules))
        tape = Tape(leaves)
        inputs: list[Traced] = []
        token, own = active_tape.set(tape), random._own_generator.set(Generator(tape, random.generator()))  # type: ignore[arg-type]
        try:
            tape.lend()
            traced = traced_copy((args, kwargs), tape, inputs)
            result = checked(self.step(*traced[0], **traced[1]), tape)
            tape.log(returned, (result,))
        finally:
            random._own_generator.reset(own)
            active_tape.reset(token)
            self.found.pop(key, None)
            try:
                tape.give_back()
            finally:
                tape.settle()
        outcome = outside(result)
        same = type(held) is Tape and len(held.leaves) == len(leaves)
        if same and all(a is b for a, b in zip(held.leaves, leaves, strict=True)):
            compare(held, tape)
            self.found[key] = Program(tape, inputs, result)
            held.close()
            tape.close()
        else:
            self.found[key] = tape
        while len(self.found) > RECORDINGS:
            self.found.popitem(last=False)
        return outcome


def signature_of(x: Any, arrays: list[Array], fixed: list[bool]) -> Any:
    """What must be equal for a recording to hold; the arrays among the arguments are collected."""
    if isinstance(x, Tensor):
        if x._node is not None:
            if not x.is_leaf:
                raise CompileError(
                    f"{users_place()}: an argument of a compiled function was computed from tensors that require a "
                    f"gradient, which could not flow on: pass it as .detach()"
                )
            return _Identity(x)
        arrays.append(x._array)
        fixed.append(True)
        return Tensor, _host(x._array).shape, x._array.dtype
    if isinstance(x, np.ndarray | np.generic):
        arrays.append(x)
        fixed.append(False)
        return np.ndarray, x.shape, x.dtype
    if type(x) is tuple or type(x) is list or hasattr(x, "_fields"):
        return type(x), *[signature_of(v, arrays, fixed) for v in x]
    if type(x) is dict:
        return dict, *[(k, signature_of(v, arrays, fixed)) for k, v in x.items()]
    if x is None or isinstance(x, int | float | str | bytes | complex):
        return type(x), x
    _host(x)
    return _Identity(x)


class _Identity:
    """Equal to itself alone, whatever the object thinks of equality."""

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x

    def __hash__(self) -> int:
        return id(self.x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.x is self.x


def _host(x: Any) -> Any:
    if type(x).__module__.partition(".")[0] == "cupy":
        raise CompileError(
            "tr.compile records on the CPU only so far, and this is an array on a GPU: call the function as it is"
        )
    return x


def traced_copy(x: Any, tape: Tape, inputs: list[Traced]) -> Any:
    """Arguments with traced arrays, in the order of `signature_of`; each is copied into a buffer."""

    def traced(v: Any) -> Any:
        if isinstance(v, Tensor) and v._node is None:
            return box(_input(v._array, tape, inputs), None)
        return _input(v, tape, inputs) if isinstance(v, np.ndarray | np.generic) else v

    return rebuilt(x, traced)


def _input(array: Array, tape: Tape, inputs: list[Traced]) -> Traced:
    inputs.append(Traced(tape.adopt(np.array(array)), tape))
    return inputs[-1]


def checked(result: Any, tape: Tape) -> Any:
    """What the step returned, if it may be: no tensor of a graph that is still there."""

    def one(v: Any) -> Any:
        if not isinstance(v, Tensor) or any(v is leaf for leaf in tape.leaves):
            return v
        node = v._node
        if node is not None and node.plan is not None and node.sources is not None:
            raise CompileError(
                f"a compiled function returned the output of {node.plan.name}, shape {v.shape}, whose graph is "
                f"still there: a replay builds no graph, so call .backward() inside of the function, or return "
                f".detach() of it"
            )
        array = v._array
        if isinstance(array, np.ndarray) and tape.owns(array):
            array = Traced(array, tape)
        return box(array, None) if isinstance(array, Traced) else v

    return rebuilt(result, one)


def reachable(*roots: Any) -> tuple[list[Tensor], list[Module]]:
    """The tensors and the modules that a function can get at: by its closure, its globals, its object, its arguments;
    in containers, and in attributes of objects. Tensors given as arguments are inputs, but for leaves.
    """
    seen: set[int] = set()
    kept: list[Any] = []
    tensors: list[Tensor] = []
    modules: list[Module] = []
    step, args, kwargs = roots
    waiting = [*_inside(kwargs), *_inside(args), step]
    given = {id(x) for x in flat((args, kwargs)) if isinstance(x, Tensor) and x._node is None}
    while waiting:
        x = waiting.pop()
        if id(x) in seen or x is None or isinstance(x, _ATOMS):
            continue
        seen.add(id(x))
        kept.append(x)  # so that no id is used twice
        if isinstance(x, Tensor):
            if x.is_leaf and id(x) not in given and not isinstance(x._array, Traced):
                _host(x._array)
                tensors.append(x)
            continue
        if isinstance(x, Module):
            modules.append(x)
        waiting.extend(reversed(list(_inside(x))))
    return tensors, modules


_ATOMS = (int, float, str, bytes, complex, np.ndarray, np.generic, type, types.ModuleType)


def _inside(x: Any) -> Iterator[Any]:
    """What an object refers to, as far as a step may use it."""
    if isinstance(x, tuple | list | set | frozenset):
        yield from x
    elif isinstance(x, dict):
        yield from x.values()
    elif isinstance(x, functools.partial):
        yield from (x.func, x.args, x.keywords)
    elif isinstance(x, types.MethodType):
        yield from (x.__self__, x.__func__)
    elif isinstance(x, types.FunctionType):
        for cell in x.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not bound yet
                continue
        yield from x.__defaults__ or ()
        yield from (x.__kwdefaults__ or {}).values()
        names = set(_names(x.__code__))
        for name in names.intersection(x.__globals__):
            value = x.__globals__[name]
            yield value
            if isinstance(value, types.ModuleType) and value.__name__.partition(".")[0] not in (
                "tinygrad_rnn",
                "numpy",
            ):
                yield from (v for n, v in vars(value).items() if n in names)
        if hasattr(x, "__wrapped__"):
            yield x.__wrapped__
    elif isinstance(x, _Compiled):
        yield x.step
    elif hasattr(x, "__dict__"):
        yield from vars(x).values()


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function and those inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
