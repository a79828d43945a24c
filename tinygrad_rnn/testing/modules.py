"""check_module: are the derivatives of a layer right, by its inputs and by every parameter, and does it keep the laws?

The parameters become inputs of a function: they are bound to the arrays of an evaluation, for its duration, and the
function is then checked as any other is. Random layers draw the same numbers in each evaluation, buffers start each
from the same values, and all is done in float64.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.backend import is_complex, is_floating, namespace
from tinygrad_rnn.tensor.graph import leaf, newest_first
from tinygrad_rnn.tensor.random import own_generator
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing.domains import Distinct, Domain, laid_out
from tinygrad_rnn.testing.errors import KinkError
from tinygrad_rnn.testing.laws import (
    Laws,
    Point,
    brief,
    broken,
    explore,
    flat,
    hypothesis_strategies,
    only_reading,
    pull_into_leaves,
)

__all__ = ["check_case", "check_module"]

Array = NDArray[Any]
Counts = Counter[str]
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
            return _Example(module_factory, inputs, training, seed, attempt).check(order)
        except KinkError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError  # unreachable: the last attempt returns or raises


class _Example:
    """A module, the arguments of a call, and the function of inputs and parameters that they make."""

    def __init__(self, factory: Factory, inputs: Any, training: bool, seed: int, attempt: int) -> None:
        self.rng = np.random.default_rng((seed, attempt))
        self.random_state = np.random.default_rng(seed).bit_generator.state
        with own_generator(self.random_state):
            self.module = factory()
        if not isinstance(self.module, Module):
            raise TypeError(
                f"check_module needs a function that makes a Module, it made a {type(self.module).__name__}"
            )
        self.module.to("float64").train(training)
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        self.template, self.names, self.arrays, told = self._taken_apart(arguments)
        self.parameters = {}
        for name, p in self.module.named_parameters():
            p.assign_(p.numpy() + 0.1 * self.rng.uniform(-1, 1, p.shape))
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
        self.where = f"{repr(self.module).splitlines()[0]}, in {mode} mode, seed={seed}, called with {told}"
        self.training, self.seed = training, seed

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
                return box(x, None)
            names.append(name)
            layout = ("C", "F", "strided", "reversed")[int(self.rng.integers(4))]
            arrays.append(laid_out(x.astype(np.float64), layout))
            return _Place(len(arrays) - 1)

        known = list(inspect.signature(self.module.forward).parameters)
        known += [f"argument {i}" for i in range(len(known), len(arguments))]
        template = tuple(visit(a, n) for a, n in zip(arguments, known, strict=False))
        return template, names, arrays, ", ".join(told)

    # --- the function -----------------------------------------------------------------------------

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """The outputs of the module for these inputs and parameters, in that order."""
        given, bound = tensors[: len(self.arrays)], tensors[len(self.arrays) :]
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
            self._restore()

    def _restore(self) -> None:
        """Buffers are what they were before a call."""
        for attributes, name, t, array in self.constants:
            if name in attributes:  # not in a list of parameters
                attributes[name] = t
            t._array = array

    # --- the laws ---------------------------------------------------------------------------------

    def check(self, order: int) -> Counts:
        """All the laws; the counts of those that applied."""
        self.state()
        parameters = [p.numpy() for p in self.parameters.values()]
        names = [*self.names, *self.parameters]
        laws = Laws(self, [*self.arrays, *parameters], seed=self.seed, where=self.where, names=names)
        laws.counts["state"] = 1
        laws.repeats()
        if laws.varied:
            laws.layout()
            laws.linear()
            self.reached(laws)
            laws.gradient(order, None)
            laws.zero()
            laws.transpose()
            laws.backward()
            self.frozen(laws)
            laws.precision(np.float32)
        laws.backend()
        laws.no_mutation()
        return laws.counts

    def state(self) -> None:
        """A call changes nothing about the module but documented buffers, and those in train mode only."""
        before = self._attributes()
        with only_reading(self.where), own_generator(self.random_state), np.errstate(all="ignore"):
            self.module(*_filled(self.template, [box(x, None) for x in self.arrays]))
        after = self._attributes()
        for path in [*before, *(set(after) - set(before))]:
            owner, name, value, kept = before.get(path, after.get(path, (None, "", None, None)))
            if path in before and path in after and _unchanged(value, kept, after[path][2]):
                continue
            buffer = name in owner._buffer_names
            if buffer and self.training and _documents(type(owner), name):
                continue
            cure = (
                f"the docstring of {type(owner).__name__} does not name the buffer"
                if buffer and self.training
                else "a buffer that a call changes is registered, changes in train mode only, and is documented"
            )
            raise broken("state", f"a call changes {path}; {cure}", self.where)
        self._restore()

    def _attributes(self) -> dict[str, tuple[Any, str, Any, Any]]:
        """Every attribute of every module by its path: the module, the name, the value, and what tells a change."""
        found = {}
        for path, module in self.module.named_modules():
            for name, value in vars(module).items():
                array = value._array if isinstance(value, Tensor) else value
                kept = array.tobytes() if isinstance(array, np.ndarray) else value
                kept = copy(value) if isinstance(value, list | dict | set) else kept
                found[f"{path}.{name}" if path else name] = (module, name, value, kept)
        return found

    def reached(self, laws: Laws) -> None:
        """A gradient reaches every parameter that the output depends on."""
        if not self.parameters:
            return
        nodes = set(newest_first([y._node for y in laws.point.live if y._node is not None]))
        first = len(self.arrays)
        with laws.law("reached"):
            for k, (name, t) in enumerate(zip(self.parameters, laws.point.inputs[first:], strict=True)):
                if t._node in nodes or not t.size:
                    continue
                moved = list(laws.arrays)
                moved[first + k] = moved[first + k] + 1e-3 * self.rng.uniform(0.5, 1, t.shape)
                values = Point(self, moved, record=False).values
                if any(not np.array_equal(a, b) for a, b in zip(values, laws.point.values, strict=True)):
                    laws.fail(
                        "reached", f"no gradient reaches {name}, though the output depends on it: is it detached?"
                    )

    def frozen(self, laws: Laws) -> None:
        """Without requires_grad a parameter gets no gradient, and the others get what they did. The module's own
        parameters are used, unbound."""
        if not self.parameters:
            return
        frozen = list(self.parameters)[int(self.rng.integers(len(self.parameters)))]
        inputs = [box(x, leaf(x.shape, x.dtype)) for x in self.arrays]
        with laws.law("frozen"):
            self.parameters[frozen].requires_grad = False
            try:
                with own_generator(self.random_state):
                    outputs = flat(self.module(*_filled(self.template, inputs)))
                pull_into_leaves(outputs, laws.cotangents)
                if self.parameters[frozen].grad is not None:
                    laws.fail("frozen", f"{frozen} does not require a gradient, and gets one")
                for j, (name, t) in enumerate(zip(laws.names, [*inputs, *self.parameters.values()], strict=True)):
                    if name != frozen:
                        g = np.zeros(t.shape) if t.grad is None else t.grad._array
                        what = f"the gradient of {name} where {frozen} is frozen"
                        laws.agree("frozen", what, g, laws.gradients[j], None, laws.gradient_spread(j))
            finally:
                self.parameters[frozen].requires_grad = True
                self.module.zero_grad()
                self._restore()


class _Place:
    """Where the i-th floating array belongs in the arguments."""

    def __init__(self, i: int) -> None:
        self.i = i


def _filled(template: Any, tensors: Sequence[Tensor], like: Any = None) -> Any:
    """The arguments, with tensors in their places, and constant ones of the library of `like`."""
    if isinstance(template, _Place):
        return tensors[template.i]
    if isinstance(template, Tensor):
        return box(_cast(template._array, like), None)
    return (
        type(template)([_filled(t, tensors, like) for t in template]) if type(template) in (tuple, list) else template
    )


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
