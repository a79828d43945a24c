"""What an op is: one forward on raw arrays and, beside it, one derivative rule per array argument.

    @op(lambda g, b: g * b, lambda g, a: g * a)
    def multiply(a, b):
        return a * b

A rule (a *vjp*) pulls the gradient `g` of the output back to its argument. **The names of its
parameters are the list of what is kept for it**: `y` the output, an argument's name its value,
`x_shape` the shape of `x` without keeping `x`, the name of an option (metadata, such as `axis`)
that option. So `add` keeps nothing, `tanh` its output, and `x @ W` with a constant `x` only `x`.

Rules are written in operators and ops, and see nothing but what they name. The same line then runs
on raw arrays in an ordinary backward and on Tensors where a derivative is itself differentiated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from numbers import Number
from types import CodeType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from tinygrad_rnn.errors import BackendMismatchError, DTypeError, ShapeError, TinygradRnnError
from tinygrad_rnn.memory import out_of_memory, ran_out
from tinygrad_rnn.scalars import as_number
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, as_array, raw_array, raw_operand
from tinygrad_rnn.tensor.graph import Node, Watch
from tinygrad_rnn.tensor.mode import ANOMALY, as_it_is, grad_mode, users_line
from tinygrad_rnn.tensor.tensor import Tensor, box

P = ParamSpec("P")
Vjp: TypeAlias = Callable[..., Any]
Operand: TypeAlias = Any  # a Tensor, an array, a number or a nested list of numbers


class Op:
    """A forward, its vjps, and the plans made of them."""

    __slots__ = (
        "name",
        "forward",
        "vjps",
        "joint",
        "promote",
        "wide",
        "variadic",
        "arrays",
        "metadata",
        "by_position",
        "_plans",
    )

    def __init__(
        self,
        forward: Callable[..., Any],
        vjps: Sequence[Vjp | None],
        joint: Vjp | None,
        promote: bool,
        wide: bool = False,
    ) -> None:
        self.name = forward.__name__.strip("_")
        own = (forward.__module__ or "").startswith("tinygrad_rnn.")
        if not own:  # a user has written them
            forward = as_it_is(forward)
            vjps = [vjp and as_it_is(vjp) for vjp in vjps]
            joint = joint and as_it_is(joint)
        self.forward, self.vjps, self.joint = forward, vjps, joint
        self.promote, self.wide = promote, wide
        function: Any = inspect.unwrap(forward)  # `inspect.signature` takes ten times as long
        code, names = function.__code__, function.__code__.co_varnames
        given, named = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
        self.variadic = bool(code.co_flags & inspect.CO_VARARGS)
        rest = names[named : named + 1] if self.variadic else ()
        parameters = [*names[:given], *rest, *names[given:named]]
        values = function.__defaults__ or ()
        defaults = dict(zip(names[given - len(values) : given], values, strict=True))
        defaults |= function.__kwdefaults__ or {}
        n = given + len(rest) if joint or self.variadic else len(vjps)
        if not 0 < n <= len(parameters):
            raise TypeError(
                f"op {self.name}: {len(vjps)} vjps for {len(parameters)} arguments: "
                f"one per array (None for ids)"
            )
        if wide and (n > 1 or self.variadic):
            raise TypeError(f"op {self.name}: wide=True is for ops of one array")
        self.arrays = parameters[:n]
        self.metadata = {k: defaults.get(k, inspect.Parameter.empty) for k in parameters[n:]}
        self.by_position = own and code.co_posonlyargcount == len(parameters) == n + 1
        self._plans: dict[tuple[bool, ...], Plan | None] = {}
        self._check_names()

    def _check_names(self) -> None:
        """Raise for a name that is reserved, or that a vjp asks for and the op does not have."""
        if reserved := {"g", "y"}.intersection([*self.arrays, *self.metadata]):
            raise TypeError(
                f"op {self.name}: {reserved} are reserved for the gradient and the output of a vjp"
            )
        if self.variadic and self.joint is None and any(self.vjps):
            raise TypeError(
                f"op {self.name}: an op over *{self.arrays[-1]} needs one joint vjp: op(joint=...)"
            )
        shapes = [f"{name}_shapes" if self.variadic else f"{name}_shape" for name in self.arrays]
        known = {"y", *self.arrays, *self.metadata, *shapes}
        for vjp in filter(None, (*self.vjps, self.joint)):
            first, *names = _parameters(vjp)
            wrong = [name for name in names if name not in known]
            if first != "g":
                wrong = [first]
            if wrong:
                raise TypeError(
                    f"op {self.name}: a vjp asks for {wrong[0]!r}; "
                    f"it may ask for g, then {sorted(known)}"
                )

    def named(self, given: tuple[Any, ...], metadata: dict[str, Any]) -> dict[str, Any]:
        """Metadata given by position, by name."""
        if len(given) > len(self.metadata):
            n = len(self.arrays)
            raise TypeError(
                f"{self.name} takes {n} arrays and {list(self.metadata)}, "
                f"but {n + len(given)} were given"
            )
        return {**dict(zip(self.metadata, given, strict=False)), **metadata}

    def plan(self, needs: tuple[bool, ...]) -> Plan | None:
        """The plan for the arguments that need a gradient; None if no derivative reaches them."""
        if self.variadic:
            needs = (True,)
        if needs not in self._plans:
            reached = any(v and need for v, need in zip(self.vjps, needs, strict=False))
            self._plans[needs] = Plan(self, needs) if reached or self.joint else None
        return self._plans[needs]


class Plan:
    """What an op keeps and pulls back when given arguments need a gradient.

    Two functions are generated, as a namedtuple's methods are, from the names in the op's signature
    alone: `keep` makes the tuple of what the vjps ask for, and `pull` calls them. They are made
    when they are first used, since an import defines a hundred ops, of which a program uses a few.

    >>> import tinygrad_rnn as tr
    >>> print(tr.multiply.op.plan((True, True)).source)
    def keep(y, a, b):
        return (b, a)
    def pull(g, kept):
        (b, a) = kept
        return (vjp0(g, b), vjp1(g, a))
    """

    __slots__ = ("op", "name", "needs", "names", "source", "keep", "pull")
    names: list[str]
    source: str
    keep: Callable[..., tuple[Any, ...]]
    pull: Callable[[Any, tuple[Any, ...]], Sequence[Any]]

    def __init__(self, op: Op, needs: tuple[bool, ...]) -> None:
        self.op, self.name, self.needs = op, op.name, needs

    def __getattr__(self, name: str) -> Any:  # of a slot that is empty
        if name not in Plan.__annotations__:
            raise AttributeError(name)
        self._write()
        return getattr(self, name)

    def _write(self) -> None:
        op = self.op
        vjps: dict[str, Vjp | None] = {}
        for i, vjp in enumerate(op.vjps):
            vjps[f"vjp{i}"] = vjp if self.needs[i] else None
        if op.joint is not None:
            vjps = {"joint": op.joint}
        asked = [name for vjp in vjps.values() if vjp for name in _asked(vjp)]
        names = list(dict.fromkeys(asked))
        calls = [
            f"{f}({', '.join(['g', *_asked(vjp)])})" if vjp else "None" for f, vjp in vjps.items()
        ]
        pulled = _tuple(calls)
        if op.joint is not None:
            names.append(_COUNT)
            pulled = f"counted({calls[0]}, {_COUNT})"

        arrays = [f"*{name}" if op.variadic else name for name in op.arrays]
        metadata = [f"{name}={name}" for name in op.metadata]  # on the right its default, in scope
        unpack = f"    {_tuple(names)} = kept\n" if names else ""
        self.source = (
            f"def keep({', '.join(['y', *arrays, *metadata])}):\n"
            f"    return {_tuple([self._value(name) for name in names])}\n"
            f"def pull(g, kept):\n"
            f"{unpack}    return {pulled}"
        )
        scope: dict[str, Any] = {"counted": counted, **vjps, **op.metadata}
        exec(_compiled(self.source), scope)
        self.names, self.keep, self.pull = names, scope["keep"], scope["pull"]

    def _value(self, name: str) -> str:
        """The expression for what a vjp calls `name`."""
        op = self.op
        if name == _COUNT:
            return f"len({op.arrays[0]})" if op.variadic else str(len(op.arrays))
        array, _, suffix = name.rpartition("_shape")
        if name in op.arrays or array not in op.arrays:
            return name
        return f"tuple([x.shape for x in {array}])" if suffix else f"{array}.shape"

    def pull_recorded(self, node: Node, g: Tensor) -> Sequence[Any]:
        """`pull` on Tensors that know where they came from: the derivative has a derivative."""
        assert node.sources is not None
        sources = node.sources
        values = []
        for name, value in zip(self.names, node.kept, strict=True):
            if name == "y":
                values.append(boxed(value, node))
            elif name not in self.op.arrays:  # a shape, an option
                values.append(value)
            elif self.op.variadic:
                values.append(tuple(boxed(v, s) for v, s in zip(value, sources, strict=True)))
            else:
                values.append(boxed(value, sources[self.op.arrays.index(name)]))
        return self.pull(g, tuple(values))


_COUNT = "count_"  # how many gradients a joint rule owes


def _asked(vjp: Vjp) -> list[str]:
    """The names of what a vjp asks for besides `g`."""
    return _parameters(vjp)[1:]


def _parameters(vjp: Vjp) -> list[str]:
    """The names of its parameters; of a plain function read off its code, ten times as fast."""
    function = inspect.unwrap(vjp)
    if not inspect.isfunction(function):  # a method, a `partial`
        return list(inspect.signature(vjp).parameters)
    code = function.__code__
    more = sum(bool(code.co_flags & flag) for flag in (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS))
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + more])


@lru_cache(maxsize=256)
def _compiled(source: str) -> CodeType:
    """The text of a plan, compiled: many plans have the same."""
    return compile(source, "<string>", "exec")


def _tuple(expressions: Sequence[str]) -> str:
    """The expression for a tuple."""
    return f"({expressions[0]},)" if len(expressions) == 1 else f"({', '.join(expressions)})"


def counted(gradients: Sequence[Any], n: int) -> Sequence[Any]:
    """The gradients of a joint rule, one for each argument: fewer would be dropped silently."""
    if len(gradients) != n:
        raise TypeError(f"{len(gradients)} gradients from a joint vjp for {n} arguments")
    return gradients


def boxed(value: Any, node: Node | None) -> Any:
    """A kept value as the Tensor it was; a Python scalar stays what it is."""
    return box(value, node) if hasattr(value, "dtype") else value


# --- `op`, and the types of what it makes ---------------------------------------------------------

Constant: TypeAlias = "Array | complex | Sequence[Any] | None"  # what is no Tensor


class UnaryOp(Protocol[P]):
    """An op of one array: a Tensor for a Tensor, an array for an array."""

    op: Op

    @overload
    def __call__(self, x: Tensor, /, *options: P.args, **named: P.kwargs) -> Tensor: ...
    @overload
    def __call__(self, x: Constant, /, *options: P.args, **named: P.kwargs) -> Array: ...


class BinaryOp(Protocol[P]):
    """An op of two arrays: a Tensor if one of them is one."""

    op: Op

    @overload
    def __call__(self, a: Tensor, b: Any, /, *options: P.args, **named: P.kwargs) -> Tensor: ...
    @overload
    def __call__(self, a: Any, b: Tensor, /, *options: P.args, **named: P.kwargs) -> Tensor: ...
    @overload
    def __call__(
        self, a: Constant, b: Constant, /, *options: P.args, **named: P.kwargs
    ) -> Array: ...


class NaryOp(Protocol):
    """An op of more arrays, or of any number of them: a Tensor if one of them is one."""

    op: Op

    @overload
    def __call__(self, *xs: Tensor, **named: Any) -> Tensor: ...
    @overload
    def __call__(self, *xs: Constant, **named: Any) -> Array: ...
    @overload
    def __call__(self, *xs: Any, **named: Any) -> Tensor: ...


@overload
def op(
    vjp: Vjp | None, /, *, promote: bool = False, wide: bool = False
) -> Callable[[Callable[Concatenate[Any, P], Array]], UnaryOp[P]]: ...
@overload
def op(
    vjp_a: Vjp | None, vjp_b: Vjp | None, /, *, promote: bool = False
) -> Callable[[Callable[Concatenate[Any, Any, P], Array]], BinaryOp[P]]: ...
@overload
def op(
    *vjps: Vjp | None, joint: Vjp | None = None, promote: bool = False
) -> Callable[[Callable[..., Array]], NaryOp]: ...
def op(
    *vjps: Vjp | None, joint: Vjp | None = None, promote: bool = False, wide: bool = False
) -> Any:
    """Make an op of a forward on raw arrays: as many array arguments as vjps, then metadata.

    Give one vjp per array argument, `None` for one without a derivative (ids, masks), or a `joint`
    vjp that returns one gradient per argument: then all positional arguments are arrays, and `*xs`
    is possible. A vjp undoes neither broadcasting nor casts: the engine does, for all. With
    `promote`, an integer or boolean operand takes the floating type of the other. With `wide`, an
    op of one array computes float16 in float32, forwards and backwards, as `in_float32` has it.

    Called with raw arrays an op returns a raw array, with any Tensor a Tensor. A vjp that names
    what its op does not have is a `TypeError` at the definition.

    >>> import tinygrad_rnn as tr
    >>> @tr.op(lambda g, x: g * 3 * x * x)
    ... def cube(x):
    ...     return x * x * x
    >>> x = tr.Tensor([1.0, 2.0], requires_grad=True)
    >>> cube(x).sum().backward()
    >>> x.grad.numpy()
    array([ 3., 12.], dtype=float32)
    """

    def decorate(forward: Callable[..., Array]) -> Any:
        if not inspect.isfunction(forward):
            raise TypeError(
                "op: write @tr.op(vjp, ...) above the forward, with one vjp per array argument"
            )
        new = Op(forward, vjps, joint, promote, wide)
        call: Any = wraps(forward)(_path_for(new))
        call.op = new
        return call

    return decorate


def _path_for(op: Op) -> Callable[..., Any]:
    """The function that users call."""
    if len(op.arrays) == 1 and not op.variadic:
        if op.by_position:
            return _one_with_option(op)
        return _one_with_metadata(op) if op.metadata else _one(op)
    if len(op.arrays) == 2 and not op.metadata:
        return _two(op)
    return _many(op)


# The call path: the hot page of the forward, so the frequent cases are written out, for one array
# (with metadata or without) and for two; `_many` is the general one.

_new = object.__new__  # half the price of a constructor


def _one(op: Op) -> Callable[..., Any]:
    forward, plan, mode_of, wide = op.forward, op.plan((True,)), grad_mode.get, op.wide

    def call(x: Any, /) -> Any:
        if wide and backend.is_half(x._array if isinstance(x, Tensor) else x):
            return cast(call(cast(x, dtype="float32")), dtype="float16")
        if not isinstance(x, Tensor):
            x = raw_operand(x)
            try:
                return forward(x)
            except Exception as error:
                raise explained(op.name, (x,), error) from None
        source, x = x._node, x._array
        try:
            y = forward(x)
        except Exception as error:
            raise explained(op.name, (x,), error) from None
        t = _new(Tensor)
        if type(y) is not type(x):
            y = as_array(y, x)
        t._array = y
        if source is None or plan is None or not (mode := mode_of()):
            t._node = None
        else:
            t._node = node = Node(plan, (source,), plan.keep(y, x), y.shape, y.dtype)
            if mode == ANOMALY:
                trace(node)
        return t

    return call


def _one_with_option(op: Op) -> Callable[..., Any]:
    forward, plan, mode_of = op.forward, op.plan((True,)), grad_mode.get

    def call(x: Any, option: Any, /) -> Any:
        if not isinstance(x, Tensor):
            return forward(raw_array(x), option)
        source, x = x._node, x._array
        try:
            y = forward(x, option)
        except Exception as error:
            raise explained(op.name, (x,), error) from None
        t = _new(Tensor)
        if type(y) is not type(x):
            y = as_array(y, x)
        t._array = y
        if source is None or plan is None or not (mode := mode_of()):
            t._node = None
        else:
            t._node = node = Node(plan, (source,), plan.keep(y, x, option), y.shape, y.dtype)
            if mode == ANOMALY:
                trace(node)
        return t

    return call


def _one_with_metadata(op: Op) -> Callable[..., Any]:  # noqa: C901 (hot: written out)
    forward, plan, wide = op.forward, op.plan((True,)), op.wide

    def call(x: Any, /, *given: Any, **metadata: Any) -> Any:  # noqa: C901 (hot: written out)
        if wide and backend.is_half(x):
            return cast(call(cast(x, dtype="float32"), *given, **metadata), dtype="float16")
        if given:
            metadata = op.named(given, metadata)
        if not isinstance(x, Tensor):
            x = raw_array(x)
            try:
                return forward(x, **metadata)
            except Exception as error:
                raise explained(op.name, (x,), error) from None
        source, x = x._node, x._array
        for name, value in metadata.items():
            if type(value) not in PLAIN:
                metadata[name] = settled(op, value)
        try:
            y = forward(x, **metadata)
        except Exception as error:
            raise explained(op.name, (x,), error) from None
        if type(y) is not type(x):
            y = as_array(y, x)
        if source is None or plan is None or not (mode := grad_mode.get()):
            return box(y, None)
        node = Node(plan, (source,), plan.keep(y, x, **metadata), y.shape, y.dtype)
        if mode == ANOMALY:
            trace(node)
        return box(y, node)

    return call


def _two(op: Op) -> Callable[..., Any]:  # noqa: C901 (hot: written out)
    forward, promote, mode_of = op.forward, op.promote, grad_mode.get
    plans = (None, op.plan((True, False)), op.plan((False, True)), op.plan((True, True)))

    def call(a: Any, b: Any, /) -> Any:
        source_a = source_b = None
        if isinstance(a, Tensor):
            source_a, a = a._node, a._array
            like = a
            if isinstance(b, Tensor):
                source_b, b = b._node, b._array
            else:
                b = backend.operand(b, like)
        elif isinstance(b, Tensor):
            source_b, b = b._node, b._array
            like = b
            a = backend.operand(a, like)
        else:
            a, b = raw_operand(a), raw_operand(b)
            try:
                return forward(a, b)
            except Exception as error:
                raise explained(op.name, (a, b), error) from None
        try:
            if promote and getattr(a, "dtype", None) is not getattr(b, "dtype", None):
                a, b = backend.promote(a, b)
            y = forward(a, b)
        except Exception as error:
            raise explained(op.name, (a, b), error) from None
        t = _new(Tensor)
        if type(y) is not type(like):
            y = as_array(y, like)
        t._array = y
        plan = plans[(source_a is not None) + 2 * (source_b is not None)]
        if plan is None or not (mode := mode_of()):
            t._node = None
        else:
            t._node = node = Node(plan, (source_a, source_b), plan.keep(y, a, b), y.shape, y.dtype)
            if mode == ANOMALY:
                trace(node)
        return t

    return call


def _many(op: Op) -> Callable[..., Any]:  # noqa: C901 (hot: written out)
    n = len(op.arrays)

    def call(*operands: Any, **metadata: Any) -> Any:
        if len(operands) > n and not op.variadic:
            operands, metadata = operands[:n], op.named(operands[n:], metadata)
        arrays, sources, like = unbox(operands)
        if like is None:
            arrays = [raw_operand(x) for x in operands]
            try:
                return op.forward(*arrays, **metadata)
            except Exception as error:
                raise explained(op.name, arrays, error) from None
        for name, value in metadata.items():
            if type(value) not in PLAIN:
                metadata[name] = settled(op, value)
        try:
            if op.promote:
                arrays = backend.promote(*arrays)
            y = as_array(op.forward(*arrays, **metadata), like)
        except Exception as error:
            raise explained(op.name, arrays, error) from None
        needs = tuple([s is not None for s in sources])
        if True not in needs or not (mode := grad_mode.get()) or (plan := op.plan(needs)) is None:
            return box(y, None)
        node = Node(plan, sources, plan.keep(y, *arrays, **metadata), y.shape, y.dtype)
        if mode == ANOMALY:
            trace(node)
        return box(y, node)

    return call


def unbox(operands: Sequence[Any]) -> tuple[Sequence[Any], tuple[Node | None, ...], Array | None]:
    """The raw arrays of operands, their nodes, and the array of one Tensor among them.

    A constant has no node: None stands for it. Without a Tensor the last is None, too.
    """
    arrays: list[Any] = []
    sources: list[Node | None] = []
    like = None
    loose = False
    for x in operands:
        if isinstance(x, Tensor):
            like = x._array
            arrays.append(like)
            sources.append(x._node)
        else:
            loose = True
            arrays.append(x)
            sources.append(None)
    if loose and like is not None:
        arrays = [
            x._array if isinstance(x, Tensor) else None if x is None else backend.operand(x, like)
            for x in operands
        ]
    return arrays, tuple(sources), like


PLAIN = frozenset({int, float, bool, str, slice, type(...), type(None)})


def settled(op: Any, value: Any) -> Any:
    """A value of metadata that nobody can change under the graph.

    Lists become tuples, NumPy's numbers plain ones, and arrays, dicts and sets are copied.
    """
    if isinstance(value, Tensor):
        names = ", ".join(f"{name}=" for name in op.metadata)
        pair = f"; of two tensors: tr.{op.name}imum(a, b)" if op.name in ("max", "min") else ""
        raise TypeError(
            f"{op.name}: {names} takes plain values, not a Tensor: no gradient could reach it "
            f"(the op has vjps for {', '.join(op.arrays)} only){pair}"
        )
    if type(value) is list or type(value) is tuple:
        if type(value) is tuple and PLAIN.issuperset(map(type, value)):
            return value
        return tuple(settled(op, v) for v in value)
    if type(value) is dict:
        return {k: settled(op, v) for k, v in value.items()}
    if isinstance(value, bytearray | set):
        return type(value)(value)
    number = value if type(value) in PLAIN else as_number(value)
    if number is not None or value is None:
        return number
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return backend.kept(value)
    if isinstance(value, Number):  # complex, Decimal, Fraction
        raise DTypeError(f"{op.name}: an option is a real number of Python or NumPy, not {value!r}")
    return value


def trace(node: Node) -> None:
    """Remember the user's line, under detect_anomaly."""
    node.watch = Watch(keeps=False)
    node.watch.born = users_line()


def explained(name: str, arrays: Sequence[Any], error: Exception) -> Exception:
    """What to raise for what the forward of the op `name` raised: with it and every shape."""
    if isinstance(error, TinygradRnnError):
        return error
    shapes = " and ".join(str(x.shape) if hasattr(x, "shape") else repr(x) for x in arrays)
    places = {(type(x), backend.device_of(x)) for x in arrays if hasattr(x, "dtype")}
    if ran_out(error):
        return out_of_memory(error, f"{name} of shapes {shapes}")
    scalars = not all(hasattr(x, "shape") for x in arrays)
    said = str(error).strip() if type(error) is ValueError else ""
    new: Exception
    if len(places) > 1:
        living = [x for x in arrays if hasattr(x, "dtype")]
        new = BackendMismatchError(f"{name}: {backend.mismatch(living)}")
    elif any(x is None for x in arrays):
        new = TypeError(f"{name}: None is no operand")
    elif isinstance(error, AttributeError) and scalars:
        new = ShapeError(
            f"{name}: shapes {shapes} do not fit: a plain number where an array is needed"
        )
    elif "broadcast together" in said:
        new = ShapeError(f"{name}: shapes {shapes} cannot be broadcast together")
    elif any(word in said for word in ("shape", "dimension", "mismatch", "size")):
        new = ShapeError(f"{name}: shapes {shapes} do not fit: {said}")
    else:
        error.add_note(f"in {name} of shapes {shapes}")
        return error
    return new.with_traceback(error.__traceback__)


# --- float16, computed in float32 -----------------------------------------------------------------


@op(lambda g: g)  # the engine casts what comes back
def cast(x: Array, dtype: str) -> Array:
    """`x` in the floating `dtype` of this name."""
    xp = backend.namespace(x)
    return xp.astype(x, getattr(xp, dtype), copy=False)


F = TypeVar("F", bound=Callable[..., Any])


def in_float32(f: F) -> F:
    """`f(x, ...)`, but computed in float32 where `x` is float16; the result is float16 again.

    float16 ends at 65504, counts to 2048 and has no number below 6e-8. What squares, exponentiates
    or adds up many numbers on its way to a result that fits would overflow or vanish there. So `x`
    is cast, all between is float32, its derivatives too, and what comes out is cast back: two nodes
    more in the graph, of float16 alone. `op(..., wide=True)` does the same for an op.

    >>> import numpy as np, tinygrad_rnn as tr
    >>> tr.norm(tr.Tensor(np.array([300, 400], np.float16))).item()  # the squares are no float16
    500.0
    """

    @wraps(f)
    def call(x: Any, *args: Any, **named: Any) -> Any:
        if not backend.is_half(x):
            return f(x, *args, **named)
        return cast(f(cast(x, dtype="float32"), *args, **named), dtype="float16")

    return call  # type: ignore[return-value]
