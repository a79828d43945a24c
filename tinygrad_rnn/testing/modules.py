"""check_module: are the derivatives of a layer right, by its inputs and by every parameter, and does it keep the laws?

The parameters become inputs of a function: they are bound to the arrays of an evaluation, for its duration, and the
function is then checked as any other is. Random layers draw the same numbers in each evaluation, buffers start each
from the same values, and all is done in float64.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor.backend import is_complex, is_floating, namespace
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.tensor.random import own_generator
from tinygrad_rnn.tensor.tensor import Tensor, box
from tinygrad_rnn.testing import laws
from tinygrad_rnn.testing.calls import (
    Array,
    Call,
    Held,
    brief,
    constant,
    flat,
    generator_of,
    pull_into_leaves,
    variable,
)
from tinygrad_rnn.testing.derivatives import Derivatives
from tinygrad_rnn.testing.domains import Domain
from tinygrad_rnn.testing.elsewhere import check_elsewhere
from tinygrad_rnn.testing.errors import Broken, GradientError, KinkError
from tinygrad_rnn.testing.example import Example
from tinygrad_rnn.testing.judge import Counts, Law, explore, hypothesis_strategies, judge, law
from tinygrad_rnn.testing.values import Distinct, laid_out

__all__ = ["LAWS", "ModuleExample", "check_case", "check_module"]

Factory = Callable[[], Module]

FEW = 6  # of up to so many parameters each is frozen alone
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

    The laws are those of `check_op`, without a reference, and of modules:

    - "state": a call changes nothing about the module: no parameter, no attribute, and no buffer but, in train
      mode, one that the docstring of its class names. A table that is kept (of positions, a mask) depends on shapes
      alone, and does not change what later calls give;
    - "reached": a gradient reaches each parameter that the output depends on;
    - "frozen": a parameter that does not require a gradient gets none, and the others get what they did; so they do
      where the inputs require none;
    - "modes": in eval mode nothing is drawn, and the derivative is right in train and in eval mode.

    The first example is also tried at other values and sizes, as in `check_gradients`, and what that cannot see this
    cannot see either. Random numbers are the library's: a module with a generator of its own does not repeat.

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

    first: list[Any] = []

    def noted(example: tuple[Any, bool, int]) -> Counts:
        if not first:
            first.append(example[0])
        return check(example)

    name = getattr(module_factory, "__name__", type(module_factory).__name__)
    drawn = st.tuples(arguments, st.booleans(), strategies.seeds())
    counts = explore(f"check_module of {name}", drawn, noted, examples)
    for given in first:
        for training in (True, False):
            check_beyond(module_factory, given, training=training)
    return counts


def check_case(
    module_factory: Factory,
    inputs: Any,
    *,
    training: bool = True,
    seed: int = 0,
    order: int = 1,
    laws: Sequence[Law[ModuleExample]] = (),
) -> Counts:
    """Check a module on one example, as `check_module` does on many; without Hypothesis.

    Returns the laws that were checked, each once; all that modules have unless `laws` are given. Raises LawError.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> counts = check_case(lambda: tr.nn.Linear(3, 2), np.ones((4, 3)), order=2)
    >>> counts["gradient"], counts["second derivative"], counts["frozen"]
    (1, 1, 1)
    """
    for attempt in range(ATTEMPTS):
        try:
            return judge(laws or LAWS, ModuleExample(module_factory, inputs, training, seed, attempt, order))
        except KinkError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError  # unreachable: the last attempt returns or raises


def check_beyond(module_factory: Factory, inputs: Any, *, training: bool = True, seed: int = 0) -> None:
    """Check the derivative of a module for other values and sizes than `inputs`, where it takes them.

    Raises GradientError.
    """

    def example(arguments: tuple[Any, ...]) -> Example:
        return ModuleExample(module_factory, arguments, training, seed)

    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    check_elsewhere(example, arguments, generator_of(seed, 4))


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
        self.constants = [(t, t._array) for m in self.module.modules() for _, t in m._tensors() if id(t) not in trained]
        self.fresh = [
            (vars(m), {k: (v, _contents(v)) for k, v in vars(m).items() if k != "training"})
            for m in self.module.modules()
        ]
        mode = "train" if training else "eval"
        super().__init__(
            Held(self._outputs, self._bound),
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

    def _outputs(self, *tensors: Tensor) -> list[Tensor]:
        """The outputs of the module for these inputs and for the parameters that it holds."""
        arguments = _filled(self.template, tensors[: len(self.inputs)], tensors[0]._array if tensors else None)
        with own_generator(self.random_state):
            # boxed anew: an output may be a parameter itself, which is unbound in a moment
            return [box(y._array, y._node) for y in flat(self.module(*arguments))]

    @contextmanager
    def _bound(self, tensors: Sequence[Tensor], leave: bool = False) -> Iterator[None]:
        """The parameters are the last of these tensors, inside; all else that the module holds starts from where it
        was, of the library and the dtype of the first. `leave`: the attributes that a call has set stay.
        """
        parameters, like = list(self.parameters.values()), tensors[0]._array if tensors else None
        held = [(p, p._array, p._node) for p in parameters]
        for t, array in self.constants:
            t._array = _cast(array, like)
        for p, t in zip(parameters, tensors[len(self.inputs) :], strict=True):
            p._array, p._node = t._array, t._node
        try:
            yield
        finally:
            for p, array, node in held:
                p._array, p._node = array, node
            if not leave:
                self.restore()

    def restore(self) -> None:
        """Buffers and attributes are what they were before a call: what one leaves behind is a law of its own."""
        for attributes, fresh in self.fresh:
            for name in attributes.keys() - fresh.keys() - {"training"}:
                del attributes[name]
            for name, (value, contents) in fresh.items():
                attributes[name] = value
                _refill(value, contents)
        for t, array in self.constants:
            t._array = array

    def attributes(self) -> dict[str, tuple[Any, str, Any]]:
        """Every attribute of every module by its path: the module, the name, and what tells a change."""
        found = {}
        for path, module in self.module.named_modules():
            for name, value in vars(module).items():
                found[f"{path}.{name}" if path else name] = (module, name, _told(value))
        return found

    @contextmanager
    def in_other_mode(self) -> Iterator[None]:
        """The module is in eval mode instead of train mode inside, or the other way round."""
        self.module.train(not self.training)
        try:
            yield
        finally:
            self.module.train(self.training)


# --- the laws that modules alone have -----------------------------------------------------------------------


@law("state")
def state(example: ModuleExample) -> bool:
    """A call changes nothing about the module but documented buffers, in train mode only, and tables that it keeps."""
    try:
        before = example.attributes()
        with own_generator(example.random_state), np.errstate(all="ignore"):
            example.module(*_filled(example.template, [constant(x) for x in example.inputs]))
        after = example.attributes()
    finally:
        example.restore()
    for path in [*before, *(set(after) - set(before))]:
        owner, name, _ = before.get(path) or after[path]
        if path in before and path in after and _same(before[path][2], after[path][2]):
            continue
        registered = name in owner._buffer_names
        if not (example.training and registered):
            if not registered and _is_table(example, after):
                continue
            rule = "a buffer that a call changes is registered, changes in train mode only, and is documented"
            table = "; a table depends on shapes alone, and later calls give what they would without it"
            raise Broken(f"a call changes {path}; {rule}{table}")
        if not _documents(type(owner), name):
            raise Broken(f"a call changes {path}; the docstring of {type(owner).__name__} does not name the buffer")
    return True


def _is_table(example: ModuleExample, after: dict[str, tuple[Any, str, Any]]) -> bool:
    """Whether what a call has left behind is a table, of positions say: a call of other values, with other weights,
    leaves it alone, and gives what it gives without.
    """
    moved = [
        x + 0.01 * example.draws.uniform(0.5, 1, x.shape) if i in example.varied else x
        for i, x in enumerate(example.arrays)
    ]
    kept = Held(example._outputs, lambda tensors: example._bound(tensors, leave=True))
    us = example.cotangents  # which a call of its own tells
    try:
        with np.errstate(all="ignore"):
            Call(kept, example.arrays, record=False)
            there = Call(kept, moved)
            pulled = there.pull(us)
            left = example.attributes()
    finally:
        example.restore()
    if left.keys() != after.keys() or not all(_same(left[path][2], after[path][2]) for path in left):
        return False
    alone = Call(example.f, moved)
    pairs = zip([*there.values, *pulled], [*alone.values, *alone.pull(us)], strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


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
    """Without requires_grad a parameter gets no gradient, and the others get what they did: with one parameter frozen,
    with all but one, and with inputs that require none. The module's own parameters are used, unbound.
    """
    if not example.parameters:
        return False
    names = [str(n) for n in example.draws.permutation(list(example.parameters))]
    few = names if len(names) <= FEW else names[: FEW - 2]
    asked = [{name} for name in few]
    asked += [set(names) - {names[0]}] if len(names) > 2 else []
    for frozen in asked:
        _as_without_freezing(example, frozen, inputs=True)
    if example.inputs:
        _as_without_freezing(example, set(), inputs=False)
    return True


def _as_without_freezing(example: ModuleExample, frozen: set[str], inputs: bool) -> None:
    """Raise Broken unless what is not frozen has the gradients that it has when all require one."""
    tensors = [variable(x) if inputs else constant(x) for x in example.inputs]
    for name in frozen:
        example.parameters[name].requires_grad = False
    where = " and ".join(sorted(frozen)) + (" are" if len(frozen) > 1 else " is") + " frozen"
    where = where if frozen else "the inputs require none"
    try:
        with own_generator(example.random_state):
            outputs = flat(example.module(*_filled(example.template, tensors)))
        pull_into_leaves(outputs, example.cotangents)
        for name in frozen:
            if example.parameters[name].grad is not None:
                raise Broken(f"{name} does not require a gradient, and gets one")
        pulled = zip(example.names, [*tensors, *example.parameters.values()], strict=True)
        for j, (name, t) in enumerate(pulled):
            if t.requires_grad and name not in frozen:
                g = np.zeros(t.shape) if t.grad is None else t.grad._array
                what = f"the gradient of {name} where {where}"
                example.agree(what, g, example.gradients[j], None, example.gradient_spread(j))
    finally:
        for name in frozen:
            example.parameters[name].requires_grad = True
        example.module.zero_grad()
        example.restore()


@law("modes")
def modes(example: ModuleExample) -> bool:
    """In eval mode nothing is drawn. Where the two modes give the same values they have the same derivative; where not,
    that of the other mode is compared with numbers as well.
    """
    if not example.training:
        _draws_nothing(example)
    with example.in_other_mode():
        if example.training:
            _draws_nothing(example)
        call = Call(example.f, example.arrays)
        if all(np.array_equal(a, b) for a, b in zip(call.values, example.call.values, strict=True)):
            pulled = call.pull(example.cotangents)
            for j, (name, g) in enumerate(zip(example.varied_names, pulled, strict=True)):
                what = f"the gradient of {name} in the other mode, which gives the same values,"
                example.agree(what, g, example.gradients[j], None, example.gradient_spread(j))
        elif example.has_derivative:
            try:
                Derivatives(example.f, example.arrays, example.analytic, seed=example.seed).check_first()
            except GradientError as error:
                error.args = (f"in the other mode: {error}",)
                raise
    return True


def _draws_nothing(example: ModuleExample) -> None:
    """Raise Broken if values in eval mode depend on the library's generator."""
    one = Call(example.f, example.arrays, record=False)
    before, example.random_state = example.random_state, np.random.default_rng((example.seed, 1)).bit_generator.state
    try:
        other = Call(example.f, example.arrays, record=False)
    finally:
        example.random_state = before
    for k, (y, z) in enumerate(zip(one.values, other.values, strict=True)):
        if not np.array_equal(y, z, equal_nan=True):
            raise Broken(f"output {k} in eval mode depends on random numbers: is dropout on that should be off?")


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
    modes,
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


def _told(value: Any) -> Any:
    """What tells a change of an attribute: the bytes of an array, what stands in a container, the thing itself else."""
    array = value._array if isinstance(value, Tensor) else value
    if isinstance(array, np.ndarray):
        return type(value), array.dtype, array.shape, array.tobytes()
    if isinstance(value, dict):
        return dict, [(key, _told(v)) for key, v in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), [_told(v) for v in value]
    return value


def _same(before: Any, after: Any) -> bool:
    """Whether an attribute is what it was."""
    try:
        return before is after or bool(before == after)
    except (TypeError, ValueError):
        return False


def _contents(value: Any) -> Any:
    """A copy of what a container holds; None of anything else."""
    return value.copy() if isinstance(value, list | dict | set) else None


def _refill(value: Any, contents: Any) -> None:
    """A container holds again what it held."""
    if contents is None or value == contents:
        return
    value.clear()
    value.extend(contents) if isinstance(value, list) else value.update(contents)


def _documents(module: type[Module], name: str) -> bool:
    """Whether the docstring of a class, or of one that it is derived from, names an attribute."""
    return any(name in (base.__doc__ or "") for base in module.__mro__)
