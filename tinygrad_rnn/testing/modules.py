"""check_module: are the derivatives of a layer right, by its inputs and by every parameter, and does it keep the laws?

The parameters become inputs of a function: they are bound to the arrays of an evaluation, for its duration, and the
function is then checked as any other is. Random layers draw the same numbers in each evaluation, buffers start each
from the same values, and all is done in float64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

import numpy as np

from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.backend import is_complex, is_floating, namespace
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.tensor.random import own_generator
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing import laws
from tinygrad_rnn.testing.calls import Array, Call, brief, constant, flat, pull_into_leaves, variable
from tinygrad_rnn.testing.domains import Domain
from tinygrad_rnn.testing.errors import Broken, KinkError
from tinygrad_rnn.testing.example import Example
from tinygrad_rnn.testing.judge import Counts, Law, explore, hypothesis_strategies, judge, law
from tinygrad_rnn.testing.values import Distinct, laid_out

__all__ = ["LAWS", "ModuleExample", "check_case", "check_module"]

Factory = Callable[[], Module]

ATTEMPTS = 5  # how often an example that lies on a kink of an inner layer is moved


def check_module(module_factory: Factory, inputs: Any, *, order: int = 1, examples: int | None = None) -> Counts:
    """Check a module by its inputs and by every parameter; needs Hypothesis.

    Arguments:
        module_factory: makes the module, `lambda: LSTMCell(3, 4)`; it is called for each example, and what it makes
            is converted with `.to("float64")`. The parameters are then moved a little: the zeros and ones that
            they start with hide mistakes.
        inputs: what `forward` is called with. A Hypothesis strategy of its arguments, a tuple of them or one alone;
            or one such example; or a signature, "*3" for vectors of three features (see `domains.shapes_of`).
            Floating arrays, in tuples and lists too, are varied; integers and booleans become constant Tensors,
            and everything else is passed on as it is.
        order: 2 also checks second derivatives.
        examples: how many to draw; as many as the Hypothesis profile says unless given.

    Each example is checked in train or in eval mode. The laws are those of `check_op`, without a reference, and of
    modules:

    - "state": a call changes nothing about the module: no parameter, no attribute, and no buffer but, in train
      mode, one that the docstring of its class names;
    - "reached": a gradient reaches each parameter that the output depends on;
    - "frozen": a parameter that does not require a gradient gets none, and the others get what they did.

    Returns how many examples each law was checked on.

    Raises:
        LawError: for the smallest example found, naming the law and the parameter; `GradientError` where a
            derivative disagrees with numbers. An example on a kink (a relu inside) is moved off it, by its
            parameters; one that stays there is a `KinkError`.
        ImportError: if Hypothesis is missing.

    >>> import tinygrad_rnn as tr
    >>> class Scale(tr.nn.Module):
    ...     def __init__(self):
    ...         self.weight = tr.nn.Parameter(tr.ones(3))
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> check_module(Scale, "*3", examples=10)["reached"]
    10
    >>> class Detached(Scale):
    ...     def forward(self, x):
    ...         return x * self.weight.detach()
    >>> check_module(Detached, "*3", examples=10)
    Traceback (most recent call last):
        ...
    tinygrad_rnn.testing.errors.LawError: reached: no gradient reaches weight, though ...
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    strategies = hypothesis_strategies("check_module")
    from hypothesis import strategies as st

    if isinstance(inputs, str):
        domain = Domain(module_factory, inputs, values=(Distinct(),))
        arguments = strategies.cases(domain, layouts=("C",)).map(lambda case: case.arrays(domain))
    else:
        arguments = inputs if isinstance(inputs, st.SearchStrategy) else st.just(inputs)

    def check(example: tuple[Any, bool, int]) -> Counts:
        return check_case(module_factory, example[0], training=example[1], seed=example[2], order=order)

    name = getattr(module_factory, "__name__", type(module_factory).__name__)
    return explore(f"check_module of {name}", st.tuples(arguments, st.booleans(), strategies.seeds()), check, examples)


def check_case(module_factory: Factory, inputs: Any, *, training: bool = True, seed: int = 0, order: int = 1) -> Counts:
    """Check a module on one example, as `check_module` does on many; without Hypothesis.

    Returns the laws that were checked, each once. Raises LawError.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> counts = check_case(lambda: tr.nn.Linear(3, 2), np.ones((4, 3)), order=2)
    >>> counts["gradient"], counts["second derivative"], counts["frozen"]
    (1, 1, 1)
    """
    for attempt in range(ATTEMPTS):
        try:
            return judge(LAWS, ModuleExample(module_factory, inputs, training, seed, attempt, order))
        except KinkError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError  # unreachable: the last attempt returns or raises


class ModuleExample(Example):
    """A module, the arguments of a call, and the function of inputs and parameters that they make."""

    def __init__(
        self, factory: Factory, inputs: Any, training: bool = True, seed: int = 0, attempt: int = 0, order: int = 1
    ) -> None:
        self.draws = np.random.default_rng((seed, attempt))
        self.random_state = np.random.default_rng(seed).bit_generator.state
        with own_generator(self.random_state):
            self.module = factory()
        if not isinstance(self.module, Module):
            raise TypeError(
                f"check_module needs a function that makes a Module, it made a {type(self.module).__name__}"
            )
        self.module.to("float64").train(training)
        self.training = training
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        self.template, names, self.inputs, told = self._taken_apart(arguments)
        self.parameters = {}
        for name, p in self.module.named_parameters():
            p.assign_(p.numpy() + 0.1 * self.draws.uniform(-1, 1, p.shape))
            if p.requires_grad:
                self.parameters[name] = p
        trained = {id(p) for p in self.parameters.values()}
        self.constants = [
            (vars(m), name, t, t._array)
            for m in self.module.modules()
            for name, t in m._tensors()
            if id(t) not in trained
        ]
        mode = "train" if training else "eval"
        super().__init__(
            self.called,
            [*self.inputs, *(p.numpy() for p in self.parameters.values())],
            seed=seed,
            where=f"{repr(self.module).splitlines()[0]}, in {mode} mode, seed={seed}, called with {told}",
            names=[*names, *self.parameters],
            order=order,
            low_dtypes=(np.float32,),
        )

    def _taken_apart(self, arguments: tuple[Any, ...]) -> tuple[Any, list[str], list[Array], str]:
        """Arguments with the places of the floating arrays marked; the names of those, and the arrays, each in some
        layout; and all arguments in a line."""
        names: list[str] = []
        arrays: list[Array] = []
        told: list[str] = []

        def visit(value: Any, name: str) -> Any:
            if isinstance(value, tuple | list):
                return type(value)([visit(v, f"{name}[{i}]") for i, v in enumerate(value)])
            value = value.detach().numpy() if isinstance(value, Tensor) else value
            if not isinstance(value, np.ndarray | np.generic):
                told.append(f"{name} = {value!r}")
                return value
            x = np.asarray(value)
            told.append(f"{name} = {brief(x)}")
            if x.dtype.kind != "f":
                return constant(x)
            names.append(name)
            layout = ("C", "F", "strided", "reversed")[int(self.draws.integers(4))]
            arrays.append(laid_out(x.astype(np.float64), layout))
            return _Place(len(arrays) - 1)

        known = list(inspect.signature(self.module.forward).parameters)
        known += [f"argument {i}" for i in range(len(known), len(arguments))]
        template = tuple(visit(a, n) for a, n in zip(arguments, known, strict=False))
        return template, names, arrays, ", ".join(told)

    # --- the function -----------------------------------------------------------------------------

    def called(self, *tensors: Tensor) -> list[Tensor]:
        """The outputs of the module for these inputs and parameters, in that order."""
        given, bound = tensors[: len(self.inputs)], tensors[len(self.inputs) :]
        like = tensors[0]._array if tensors else None
        arguments = _filled(self.template, given, like)
        with self._bound(bound, like), own_generator(self.random_state):
            # boxed anew: an output may be a parameter itself, which is unbound in a moment
            return [box(y._array, y._node) for y in flat(self.module(*arguments))]

    @contextmanager
    def _bound(self, tensors: Sequence[Tensor], like: Any) -> Iterator[None]:
        """The parameters are these tensors, inside; all else that the module holds starts from where it was, of the
        library and the dtype of `like`."""
        parameters = list(self.parameters.values())
        held = [(p, p._array, p._node) for p in parameters]
        for _, _, t, array in self.constants:
            t._array = _cast(array, like)
        for p, t in zip(parameters, tensors, strict=True):
            p._array, p._node = t._array, t._node
        try:
            yield
        finally:
            for p, array, node in held:
                p._array, p._node = array, node
            self.restore()

    def restore(self) -> None:
        """Buffers are what they were before a call."""
        for attributes, name, t, array in self.constants:
            if name in attributes:  # not in a list of parameters
                attributes[name] = t
            t._array = array

    def attributes(self) -> dict[str, tuple[Any, str, Any, Any]]:
        """Every attribute of every module by its path: the module, the name, the value, and what tells a change."""
        found = {}
        for path, module in self.module.named_modules():
            for name, value in vars(module).items():
                array = value._array if isinstance(value, Tensor) else value
                kept = array.tobytes() if isinstance(array, np.ndarray) else value
                kept = copy(value) if isinstance(value, list | dict | set) else kept
                found[f"{path}.{name}" if path else name] = (module, name, value, kept)
        return found


# --- the laws that modules alone have -----------------------------------------------------------------------


@law("state")
def state(example: ModuleExample) -> bool:
    """A call changes nothing about the module but documented buffers, and those in train mode only."""
    before = example.attributes()
    with own_generator(example.random_state), np.errstate(all="ignore"):
        example.module(*_filled(example.template, [constant(x) for x in example.inputs]))
    after = example.attributes()
    for path in [*before, *(set(after) - set(before))]:
        owner, name, value, kept = before.get(path, after.get(path, (None, "", None, None)))
        if path in before and path in after and _unchanged(value, kept, after[path][2]):
            continue
        trained_buffer = example.training and name in owner._buffer_names
        if not trained_buffer:
            rule = "a buffer that a call changes is registered, changes in train mode only, and is documented"
            raise Broken(f"a call changes {path}; {rule}")
        if not _documents(type(owner), name):
            raise Broken(f"a call changes {path}; the docstring of {type(owner).__name__} does not name the buffer")
    example.restore()
    return True


@law("reached")
def reached(example: ModuleExample) -> bool:
    """A gradient reaches every parameter that the output depends on."""
    if not example.parameters:
        return False
    nodes = set(newest_first([y._node for y in example.call.live if y._node is not None]))
    first = len(example.inputs)
    for k, (name, t) in enumerate(zip(example.parameters, example.call.inputs[first:], strict=True)):
        if t._node in nodes or not t.size:
            continue
        moved = list(example.arrays)
        moved[first + k] = moved[first + k] + 1e-3 * example.draws.uniform(0.5, 1, t.shape)
        values = Call(example.f, moved, record=False).values
        if any(not np.array_equal(a, b) for a, b in zip(values, example.call.values, strict=True)):
            raise Broken(f"no gradient reaches {name}, though the output depends on it: is it detached?")
    return True


@law("frozen")
def frozen_parameter(example: ModuleExample) -> bool:
    """Without requires_grad a parameter gets no gradient, and the others get what they did. The module's own
    parameters are used, unbound.
    """
    if not example.parameters:
        return False
    frozen = list(example.parameters)[int(example.draws.integers(len(example.parameters)))]
    inputs = [variable(x) for x in example.inputs]
    example.parameters[frozen].requires_grad = False
    try:
        with own_generator(example.random_state):
            outputs = flat(example.module(*_filled(example.template, inputs)))
        pull_into_leaves(outputs, example.cotangents)
        if example.parameters[frozen].grad is not None:
            raise Broken(f"{frozen} does not require a gradient, and gets one")
        pulled = zip(example.names, [*inputs, *example.parameters.values()], strict=True)
        for j, (name, t) in enumerate(pulled):
            if name != frozen:
                g = np.zeros(t.shape) if t.grad is None else t.grad._array
                what = f"the gradient of {name} where {frozen} is frozen"
                example.agree(what, g, example.gradients[j], None, example.gradient_spread(j))
    finally:
        example.parameters[frozen].requires_grad = True
        example.module.zero_grad()
        example.restore()
    return True


LAWS: tuple[Law[ModuleExample], ...] = (
    state,
    laws.no_mutation,
    laws.outputs,
    laws.repeats,
    laws.shape,
    laws.dtype,
    laws.no_aliasing,
    laws.layout,
    laws.linear,
    reached,
    laws.gradient,
    laws.second_derivative,
    laws.zero,
    laws.transpose,
    laws.backward,
    frozen_parameter,
    laws.low_precision,
    laws.backend,
    laws.no_mutation,
)


# --- arguments ----------------------------------------------------------------------------------------------


class _Place:
    """Where the i-th floating array belongs in the arguments."""

    def __init__(self, i: int) -> None:
        self.i = i


def _filled(template: Any, tensors: Sequence[Tensor], like: Any = None) -> Any:
    """The arguments, with tensors in their places, and constant ones of the library of `like`."""
    if isinstance(template, _Place):
        return tensors[template.i]
    if isinstance(template, Tensor):
        return constant(_cast(template._array, like))
    if type(template) in (tuple, list):
        return type(template)([_filled(t, tensors, like) for t in template])
    return template


def _cast(array: Any, like: Any) -> Any:
    """A buffer beside `like`: of its library, and of its floating dtype unless that is complex."""
    if like is None or (cast(Any, namespace(like)) is np and (is_complex(like.dtype) or not is_floating(array.dtype))):
        return array
    xp = namespace(like)
    return xp.asarray(np.array(array), dtype=like.dtype if is_floating(array.dtype) else None)


def _unchanged(before: Any, kept: Any, after: Any) -> bool:
    """Whether an attribute is what it was: the same values, for an array; the same thing or an equal one, else."""
    array = after._array if isinstance(after, Tensor) else after
    if isinstance(array, np.ndarray):
        return type(after) is type(before) and array.tobytes() == kept
    try:
        return after is kept or bool(after == kept)
    except (TypeError, ValueError):  # a list with another Tensor in it
        return False


def _documents(module: type[Module], name: str) -> bool:
    """Whether the docstring of a class, or of one that it is derived from, names an attribute."""
    return any(name in (base.__doc__ or "") for base in module.__mro__)
