"""What an op is: one forward on raw arrays and, beside it, one derivative rule per array argument.

    @op(lambda g, b: g * b, lambda g, a: g * a)
    def multiply(a, b):
        return a * b

A rule (a *vjp*) pulls the gradient `g` of the output back to its argument. **The names of its parameters are the list
of what is kept for it**: `y` the output, an argument's name its value, `x_shape` the shape of `x` without keeping `x`,
the name of an option (metadata, such as `axis`) that option. So `add` keeps nothing, `tanh` its output, and `x @ W`
with a constant `x` only `x`.

Rules are written in operators and ops, and see nothing but what they name. The same line then runs on raw arrays in an
ordinary backward and on Tensors where a derivative is itself to be differentiated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, cast

from tinygrad_rnn.errors import BackendMismatchError, ShapeError, TinygradRnnError
from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, as_array
from tinygrad_rnn.tensor.graph import Node, Watch
from tinygrad_rnn.tensor.mode import ANOMALY, grad_mode, users_line
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
        "arrays",
        "variadic",
        "metadata",
        "_plans",
    )

    def __init__(
        self,
        forward: Callable[..., Array],
        vjps: Sequence[Vjp | None],
        joint: Vjp | None,
        promote: bool,
    ) -> None:
        parameters = list(inspect.signature(forward).parameters.values())
        self.name = forward.__name__.strip("_")
        self.forward = forward
        self.vjps, self.joint, self.promote = vjps, joint, promote
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        n = (
            sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
            if joint or self.variadic
            else len(vjps)
        )
        self.arrays = [p.name for p in parameters[:n]]
        self.metadata = {p.name: p.default for p in parameters[n:]}
        self._plans: dict[tuple[bool, ...], Plan | None] = {}
        if n == 0 or len(self.arrays) < n:
            arguments = len(self.arrays) or len(parameters)
            raise TypeError(
                f"op {self.name}: {len(vjps)} vjps for {arguments} arguments: one per array (None for ids)"
            )
        if reserved := {"g", "y"}.intersection([*self.arrays, *self.metadata]):
            raise TypeError(
                f"op {self.name}: {reserved} are reserved for the gradient and the output of a vjp"
            )
        if self.variadic and joint is None and any(vjps):
            raise TypeError(
                f"op {self.name}: an op over *{self.arrays[-1]} needs one joint vjp: op(joint=...)"
            )
        known = {
            "y",
            *self.arrays,
            *self.metadata,
            *(f"{a}_shape{'s' * self.variadic}" for a in self.arrays),
        }
        for vjp in filter(None, (*vjps, joint)):
            first, *names = inspect.signature(vjp).parameters
            if first != "g" or not known.issuperset(names):
                wrong = first if first != "g" else next(n for n in names if n not in known)
                raise TypeError(
                    f"op {self.name}: a vjp asks for {wrong!r}; it may ask for g, then {sorted(known)}"
                )

    def named(self, given: tuple[Any, ...], metadata: dict[str, Any]) -> dict[str, Any]:
        """Metadata given by position, by name."""
        if len(given) > len(self.metadata):
            n = len(self.arrays)
            raise TypeError(
                f"{self.name} takes {n} arrays and {list(self.metadata)}, but {n + len(given)} were given"
            )
        return {**dict(zip(self.metadata, given, strict=False)), **metadata}

    def plan(self, needs: tuple[bool, ...]) -> Plan | None:
        """The plan for the arguments that need a gradient; None if no derivative reaches them."""
        key = (True,) if self.variadic else needs
        try:
            return self._plans[key]
        except KeyError:
            reached = self.joint is not None or any(
                v for v, need in zip(self.vjps, needs, strict=False) if need
            )
            self._plans[key] = plan = Plan(self, needs) if reached else None
            return plan


_OUTPUT, _ALL, _NO_TENSOR = -1, -2, -3  # the output; all of `*xs`; a shape or an option


class Plan:
    """What an op keeps and pulls back when given arguments need a gradient.

    Two functions are generated, as a namedtuple's methods are, and from the names in the op's signature alone:
    `keep(y, *arrays, **metadata)` makes the tuple of what the vjps ask for, and `pull(g, kept)` calls them. For
    `multiply` with both arguments they are `lambda y, a, b: (b, a)` and
    `lambda g, k: (vjp0(g, k[0]), vjp1(g, k[1]))`.
    """

    __slots__ = ("name", "keep", "pull", "roles")

    def __init__(self, op: Op, needs: tuple[bool, ...]) -> None:
        kept: dict[str, int] = {}

        def call(name: str, vjp: Vjp) -> str:
            _, *asked = inspect.signature(vjp).parameters
            return f"{name}({', '.join(['g', *(f'k[{kept.setdefault(a, len(kept))}]' for a in asked)])})"

        if op.joint is not None:
            pull = f"counted({call('joint', op.joint)}, k[{kept.setdefault('', len(kept))}])"
        else:
            rules = (v if need else None for v, need in zip(op.vjps, needs, strict=True))
            pull = f"({' '.join((call(f'vjp{i}', v) if v else 'None') + ',' for i, v in enumerate(rules))})"
        scope = {
            "counted": counted,
            "joint": op.joint,
            **{f"vjp{i}": v for i, v in enumerate(op.vjps)},
            **op.metadata,
        }
        arrays = [f"*{a}" if op.variadic else a for a in op.arrays]
        metadata = [
            f"{name}={name}" for name in op.metadata
        ]  # the right-hand side is the default, in scope

        def value(name: str) -> str:
            if not name:  # how many gradients a joint rule owes
                return f"len({op.arrays[0]})" if op.variadic else str(len(op.arrays))
            array, _, suffix = name.rpartition("_shape")
            if array in op.arrays and name not in op.arrays:
                return f"tuple(x.shape for x in {array})" if suffix else f"{array}.shape"
            return name

        keep = f"lambda {', '.join(['y', *arrays, *metadata])}: ({' '.join(value(n) + ',' for n in kept)})"
        self.name = op.name
        self.keep: Callable[..., tuple[Any, ...]] = eval(
            keep, {"tuple": tuple, "len": len, **scope}
        )
        self.pull: Callable[[Any, tuple[Any, ...]], Sequence[Any]] = eval(
            f"lambda g, k: {pull}", scope
        )
        # which value of the graph each of the kept is: an argument, by its position, or one of the constants below
        argument = (
            dict.fromkeys(op.arrays, _ALL)
            if op.variadic
            else {n: i for i, n in enumerate(op.arrays)}
        )
        self.roles = [{"y": _OUTPUT, **argument}.get(n, _NO_TENSOR) for n in kept]

    def pull_recorded(self, node: Node, g: Tensor) -> Sequence[Any]:
        """`pull` on Tensors that know where they came from, so that the derivative has a derivative."""
        assert node.sources is not None
        sources = node.sources
        values = []
        for value, role in zip(node.kept, self.roles, strict=True):
            if role == _NO_TENSOR:
                values.append(value)
            elif role == _ALL:
                values.append(tuple(boxed(v, s) for v, s in zip(value, sources, strict=True)))
            else:
                values.append(boxed(value, node if role == _OUTPUT else sources[role]))
        return self.pull(g, tuple(values))


def counted(gradients: Sequence[Any], n: int) -> Sequence[Any]:
    """The gradients of a joint rule, one for each argument: fewer would be dropped silently."""
    if len(gradients) != n:
        raise TypeError(f"{len(gradients)} gradients from a joint vjp for {n} arguments")
    return gradients


def boxed(value: Any, node: Node | None) -> Any:
    """A kept value as the Tensor it was; a Python scalar stays what it is."""
    return box(value, node) if hasattr(value, "dtype") else value


def op(
    *vjps: Vjp | None, joint: Vjp | None = None, promote: bool = False
) -> Callable[[Callable[P, Array]], Callable[P, Tensor]]:
    """Make an op of a forward on raw arrays: as many array arguments as vjps, then metadata.

    Give one vjp per array argument, `None` for one without a derivative (ids, masks), or a `joint` vjp that returns one
    gradient per argument: then all positional arguments are arrays, and `*xs` is possible. A vjp undoes neither
    broadcasting nor casts: the engine does, for all. With `promote`, an integer or boolean operand takes the floating
    type of the other.

    Called with raw arrays an op returns a raw array, with any Tensor a Tensor. A vjp that names what its op does not
    have is a `TypeError` at the definition.

    >>> import tinygrad_rnn as tr
    >>> @tr.op(lambda g, x: g * 3 * x * x)
    ... def cube(x):
    ...     return x * x * x
    >>> x = tr.Tensor([1.0, 2.0], requires_grad=True)
    >>> cube(x).sum().backward()
    >>> x.grad.numpy()
    array([ 3., 12.], dtype=float32)
    """

    def decorate(forward: Callable[P, Array]) -> Callable[P, Tensor]:
        if not inspect.isfunction(forward):
            raise TypeError(
                "op: write @tr.op(vjp, ...) above the forward, with one vjp per array argument"
            )
        new = Op(forward, vjps, joint, promote)
        if len(new.arrays) == 1 and not new.variadic:
            path = _one_with_metadata if new.metadata else _one
        else:
            path = _two if len(new.arrays) == 2 and not new.metadata else _many
        call = wraps(forward)(path(new))
        call.op = new  # type: ignore[attr-defined]
        return cast("Callable[P, Tensor]", call)

    return decorate


# The call path: the hot page of the forward, so the frequent cases are written out, for one array (with
# metadata or without) and for two; `_many` is the general one.

_new = object.__new__  # half the price of a constructor


def _one(op: Op) -> Callable[..., Any]:
    forward, plan, mode_of = op.forward, op.plan((True,)), grad_mode.get

    def call(x: Any, /) -> Any:
        if not isinstance(x, Tensor):
            return forward(_raw(x))
        source, x = x._node, x._array
        try:
            y = forward(x)
        except Exception as error:
            raise explained(op, (x,), error) from None
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


def _one_with_metadata(op: Op) -> Callable[..., Any]:
    forward, plan = op.forward, op.plan((True,))

    def call(x: Any, /, *given: Any, **metadata: Any) -> Any:
        if given:
            metadata = op.named(given, metadata)
        if not isinstance(x, Tensor):
            return forward(_raw(x), **metadata)
        source, x = x._node, x._array
        for name, value in metadata.items():
            if type(value) not in _PLAIN:
                metadata[name] = _settled(op, value)
        try:
            y = forward(x, **metadata)
        except Exception as error:
            raise explained(op, (x,), error) from None
        if type(y) is not type(x):
            y = as_array(y, x)
        if source is None or plan is None or not (mode := grad_mode.get()):
            return box(y, None)
        node = Node(plan, (source,), plan.keep(y, x, **metadata), y.shape, y.dtype)
        if mode == ANOMALY:
            trace(node)
        return box(y, node)

    return call


def _two(op: Op) -> Callable[..., Any]:
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
            return forward(_raw(a), _raw(b))
        try:
            if promote and getattr(a, "dtype", None) is not getattr(b, "dtype", None):
                a, b = backend.promote(a, b)
            y = forward(a, b)
        except Exception as error:
            raise explained(op, (a, b), error) from None
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


def _many(op: Op) -> Callable[..., Any]:
    n = len(op.arrays)

    def call(*operands: Any, **metadata: Any) -> Any:
        if len(operands) > n and not op.variadic:
            operands, metadata = operands[:n], op.named(operands[n:], metadata)
        arrays, sources, like = unbox(operands)
        if like is None:
            return op.forward(*map(_raw, operands), **metadata)
        for name, value in metadata.items():
            if type(value) not in _PLAIN:
                metadata[name] = _settled(op, value)
        try:
            if op.promote:
                arrays = backend.promote(*arrays)
            y = as_array(op.forward(*arrays, **metadata), like)
        except Exception as error:
            raise explained(op, arrays, error) from None
        needs = tuple([s is not None for s in sources])
        if True not in needs or not (mode := grad_mode.get()) or (plan := op.plan(needs)) is None:
            return box(y, None)
        node = Node(plan, sources, plan.keep(y, *arrays, **metadata), y.shape, y.dtype)
        if mode == ANOMALY:
            trace(node)
        return box(y, node)

    return call


def unbox(operands: Sequence[Any]) -> tuple[Sequence[Array], tuple[Node | None, ...], Array | None]:
    """The raw arrays of operands, their nodes (None for constants), and the array of one Tensor (None without)."""
    arrays: list[Any] = []
    sources: list[Node | None] = []
    like, loose = None, False
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
        arrays = [x._array if isinstance(x, Tensor) else backend.operand(x, like) for x in operands]
    return arrays, tuple(sources), like


def _raw(x: Any) -> Any:
    """An operand of a call without Tensors: a list becomes an array, a number stays one."""
    return x if hasattr(x, "dtype") or not isinstance(x, list | tuple) else backend.asarray(x)


_PLAIN = frozenset({int, float, bool, str, slice, type(...), type(None)})


def _settled(op: Op, value: Any) -> Any:
    """A value of metadata that nobody can change under the graph: lists become tuples, NumPy's numbers plain ones."""
    if isinstance(value, Tensor):
        names = ", ".join(f"{name}=" for name in op.metadata)
        raise TypeError(
            f"{op.name}: {names} takes plain values, not a Tensor: no gradient could reach it "
            f"(the op has vjps for {', '.join(op.arrays)} only)"
        )
    if type(value) is list or type(value) is tuple:
        if type(value) is tuple and _PLAIN.issuperset(map(type, value)):
            return value
        return tuple(v if type(v) in _PLAIN else _settled(op, v) for v in value)
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def trace(node: Node) -> None:
    """Remember the user's line, under detect_anomaly."""
    node.watch = Watch(keeps=False)
    node.watch.born = users_line()


def explained(op: Op, arrays: Sequence[Any], error: Exception) -> Exception:
    """What to raise for what a forward raised: with the op and every shape in it, and the line of the forward."""
    if isinstance(error, TinygradRnnError):
        return error
    shapes = " and ".join(str(x.shape) if hasattr(x, "shape") else repr(x) for x in arrays)
    places = {(type(x), backend.device_of(x)) for x in arrays if hasattr(x, "dtype")}
    new: Exception
    if len(places) > 1:
        new = BackendMismatchError(
            f"{op.name}: {backend.mismatch([x for x in arrays if hasattr(x, 'dtype')])}"
        )
    elif any(x is None for x in arrays):
        new = TypeError(f"{op.name}: None is no operand")
    elif isinstance(error, AttributeError) and len(arrays) != sum(
        hasattr(x, "shape") for x in arrays
    ):
        new = ShapeError(
            f"{op.name}: shapes {shapes} do not fit: a plain number where an array is needed"
        )
    elif type(error) is ValueError and "broadcast together" in str(error):
        new = ShapeError(f"{op.name}: shapes {shapes} cannot be broadcast together")
    elif type(error) is ValueError and any(
        word in str(error) for word in ("shape", "dimension", "mismatch", "size")
    ):
        new = ShapeError(f"{op.name}: shapes {shapes} do not fit: {str(error).strip()}")
    else:
        error.add_note(f"in {op.name} of shapes {shapes}")
        return error
    return new.with_traceback(error.__traceback__)
