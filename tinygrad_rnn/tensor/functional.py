"""Derivatives of functions: `grad` and what is built from it.

Nothing here knows a derivative rule. A derivative that is to be differentiated again
(`create_graph`) runs the same rules on Tensors instead of raw arrays, and so records itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.scalars import as_integer
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import is_half, namespace
from tinygrad_rnn.tensor.creation import zeros_like
from tinygrad_rnn.tensor.graph import Node, Part, Product, Shortcut, newest_first, next_serial
from tinygrad_rnn.tensor.mode import is_recording, record
from tinygrad_rnn.tensor.ops.shape import integers
from tinygrad_rnn.tensor.sweep import Gradients, check_finite, sweep
from tinygrad_rnn.tensor.tensor import Tensor, box

Function = Callable[..., Any]


class RecordedGradients(Gradients):
    """The gradients of a sweep as Tensors: nothing in place, and each lazy sum is one op."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[Node, list[Part | Product]] = {}

    def add(self, nodes: Sequence[Node | None], contributions: Sequence[Any]) -> None:
        for node, d in zip(nodes, contributions, strict=True):
            if node is None or d is None or (self.limit is not None and node not in self.limit):
                continue
            if d.shape is None:
                self.add_lazy(node, d)
                continue
            if d.shape != node.shape:
                d = ops.sum_to(d, node.shape)
            if d.dtype != node.dtype:
                d = ops.astype(d, node.dtype)
            self.add_dense(node, d)

    def add_dense(self, node: Node, d: Tensor) -> None:
        held = self.dense.get(node)
        self.dense[node] = d if held is None else _wide(held) + _wide(d)

    def add_lazy(self, node: Node, d: Part | Product | Shortcut) -> None:
        assert not isinstance(d, Shortcut)  # a kernel's: here the plain definitions are pulled
        self.lazy.add(node)
        self.notes.setdefault(node, []).append(d)

    def settle(self, node: Node) -> None:
        notes = self.notes.pop(node, [])
        parts = [d for d in notes if isinstance(d, Part)]
        products = [d for d in notes if isinstance(d, Product)]
        if parts:
            indices = [d.index for d in parts]
            total = ops.assemble(
                *(_wide(cast(Tensor, d.g)) for d in parts), indices=indices, shape=node.shape
            )
            self.add_dense(node, total)
        if products:
            xs, gs = [d.x for d in products], [d.g for d in products]
            self.add((node,), (ops.product(ops.concatenate(xs), ops.concatenate(gs)),))

    def narrowed(self, g: Any, dtype: Any) -> Any:
        return g if g.dtype == dtype else ops.astype(g, dtype)

    def pull(self, node: Node, g: Any) -> Sequence[Any]:
        pulled: Sequence[Any] = node.plan.pull_recorded(node, g)
        if self.checks:
            arrays = [d._array if isinstance(d, Tensor) else None for d in pulled]
            check_finite(node, g._array, arrays)
        return pulled


def _wide(g: Tensor) -> Tensor:
    """A contribution as it is summed: float16 in float32."""
    return ops.astype(g, "float32") if is_half(g) else g


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    gradient: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """The derivative of `outputs` with respect to `inputs`, without touching any `.grad`.

    `inputs` may be leaves or computed tensors; the result is a Tensor for a Tensor, a tuple for a
    sequence, zeros where the outputs do not depend on an input. `gradient` is pulled back from the
    outputs (one per output; 1 may be omitted for one element). With `create_graph` the result can
    itself be differentiated, and the graph is kept; else what leads to the inputs is freed unless
    `retain_graph`.

    Raises `RuntimeError` for an input that does not require a gradient.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor(3.0, requires_grad=True)
    >>> dx = tr.grad(x ** 3, x, create_graph=True)
    >>> dx.item(), tr.grad(dx, x).item()
    (27.0, 18.0)
    """
    outs, ins = _tensors("outputs", outputs), _tensors("inputs", inputs)
    seeds = (gradient,) * len(outs)
    if isinstance(outputs, list | tuple) and gradient is not None:
        seeds = tuple(gradient)
    for i, x in enumerate(ins):
        if x._node is None:
            raise RuntimeError(f"grad: input {i} of shape {x.shape} does not require a gradient")
    retain = create_graph if retain_graph is None else retain_graph
    results = _grad(outs, ins, seeds, create_graph, retain)
    return results[0] if isinstance(inputs, Tensor) else results


def _tensors(what: str, given: Any) -> tuple[Tensor, ...]:
    """A Tensor or a sequence of Tensors as a tuple."""
    if isinstance(given, Tensor):
        return (given,)
    found = tuple(given) if isinstance(given, list | tuple) else ()
    if not found or not all(isinstance(t, Tensor) for t in found):
        raise TypeError(
            f"{what} must be a Tensor or a list of Tensors, "
            f"not {type(given).__name__}: {given!r:.60}"
        )
    return found


def _one(what: str, y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(
            f"{what}: the function must return one Tensor, not {type(y).__name__}: {y!r:.60}"
        )
    return y


def _paired(what: str, tangents: Sequence[Any], primals: Sequence[Any]) -> None:
    if len(tangents) != len(primals):
        raise ValueError(
            f"{len(primals)} primals, but {len(tangents)} {what}: one for each is needed"
        )


def _grad(
    outs: Sequence[Tensor], ins: Sequence[Tensor], seeds: Sequence[Any], create: bool, retain: bool
) -> tuple[Tensor, ...]:
    """The derivative of `outs` by `ins`, recorded with `create`; the graph stays with `retain`."""
    if len(seeds) != len(outs):
        raise ShapeError(f"{len(outs)} outputs, but {len(seeds)} gradients")
    pairs = [(o._node, o, s) for o, s in zip(outs, seeds, strict=True) if o._node is not None]
    nodes = [cast(Node, x._node) for x in ins]
    roots = [node for node, _, _ in pairs]
    if create:
        boxes = [_recorded_seed(o, s) for _, o, s in pairs]
        with record():
            results = sweep(roots, boxes, RecordedGradients(), inputs=nodes, retain=retain)
    else:
        gradients = Gradients()
        arrays = [o._output_gradient(s) for _, o, s in pairs]
        found = sweep(roots, arrays, gradients, inputs=nodes, retain=retain)
        results = {n: box(gradients.own(n, g), None) for n, g in found.items()}
    return tuple(
        results[n] if n in results else zeros_like(x) for n, x in zip(nodes, ins, strict=True)
    )


def _recorded_seed(out: Tensor, seed: Any) -> Tensor:
    """A seed as a Tensor with its history: a new one, so that `assign_` does not reach it."""
    if isinstance(seed, Tensor) and seed.shape == out.shape:
        return box(seed._array, seed._node)
    return box(out._output_gradient(seed), None)


def pull_through(
    run: Callable[[], Any], sources: Sequence[Node | None], g: Tensor
) -> Sequence[Any]:
    """What `run`, recorded anew, pulls back to `sources`, which it closes over.

    It is differentiable, and goes no further than to the sources.
    """
    floor = next_serial()
    results: dict[Node, Any] = {}
    with record():
        y = run()
        if y._node is not None:
            results = sweep([y._node], [g], RecordedGradients(), floor=floor, retain=True)
    return [results.pop(s, None) if s is not None else None for s in sources]


# --- derivatives of functions ---------------------------------------------------------------------


def _fresh(x: Any) -> Tensor:
    """An input of a function under a new node, where a sweep of the function stops."""
    given = x if isinstance(x, Tensor) else Tensor(x)
    if given._node is not None and is_recording():
        return ops.identity(given)
    fresh = box(given._array, None)
    fresh.requires_grad = True
    return fresh


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function that returns `f`'s value and its derivative by the arguments at `argnums`.

    `f` must return one element. Nested uses differentiate again: `grad_of(grad_of(f))` is the
    second derivative.

    >>> import tinygrad_rnn as tr
    >>> value, slope = tr.value_and_grad(lambda x: (x * x).sum())(tr.Tensor([1.0, 2.0]))
    >>> value.item(), slope.tolist()
    (5.0, [2.0, 4.0])
    """
    positions, alone = integers("argnums", argnums), as_integer(argnums) is not None

    def with_gradient(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        at = _checked_positions(positions, args)
        inputs = {i: _fresh(args[i]) for i in at}
        with record():
            y = f(*(inputs.get(i, a) for i, a in enumerate(args)), **kwargs)
        if not isinstance(y, Tensor) or y.size != 1:
            shape = y.shape if isinstance(y, Tensor) else type(y).__name__
            raise ShapeError(
                f"value_and_grad: the function must return a tensor of one element, not {shape}"
            )
        xs = [inputs[i] for i in at]
        create = _differentiated_further((y,), xs)
        gradients = _grad((y,), xs, (None,), create, create)
        value = y if create else y.detach()
        return value, gradients[0] if alone else gradients

    return with_gradient


def _differentiated_further(
    outs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Any] = ()
) -> bool:
    """Whether the derivative must be recorded, too.

    That is so if a seed requires a gradient, or `outs` depend on anything older than the fresh
    `inputs` (what is older still is not looked at).
    """
    if not is_recording():
        return False
    if any(isinstance(s, Tensor) and s.requires_grad for s in seeds):
        return True
    floor = min(cast(Node, x._node).serial for x in inputs)
    roots = [y._node for y in outs if y._node is not None]
    return any(node.serial < floor for node in newest_first(roots, floor))


def _checked_positions(argnums: Sequence[int], args: Sequence[Any]) -> list[int]:
    """Positions of arguments, negative ones counted from the end."""
    if any(not -len(args) <= i < len(args) for i in argnums):
        wrong = ", ".join(map(str, argnums))
        raise ValueError(f"argnums {wrong} of a function called with {len(args)} arguments")
    return [i % len(args) for i in argnums]


def grad_of(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function that returns the derivative of `f`; see `value_and_grad`.

    >>> import tinygrad_rnn as tr
    >>> tr.grad_of(tr.grad_of(lambda x: x ** 3))(tr.Tensor(2.0)).item()
    12.0
    """
    both = value_and_grad(f, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def vjp(f: Function, *primals: Any) -> tuple[Any, Function]:
    """`f(*primals)` and the function that pulls a gradient of it back to the primals.

    That function returns a tuple, one gradient for each.

    >>> import tinygrad_rnn as tr
    >>> y, pull = tr.vjp(lambda x: x * x, tr.Tensor([1.0, 3.0]))
    >>> pull(tr.Tensor([1.0, 1.0]))[0].tolist()
    [2.0, 6.0]
    """
    xs = [_fresh(x) for x in primals]
    with record():
        y = f(*xs)

    def pull(g: Any) -> tuple[Tensor, ...]:
        outs = (y,) if isinstance(y, Tensor) else tuple(y)
        seeds = (g,) if isinstance(y, Tensor) else tuple(g)
        return _grad(outs, xs, seeds, _differentiated_further(outs, xs, seeds), True)

    return y, pull


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """`f(*primals)` and its derivative along `tangents`.

    The vjp is linear in its gradient, so differentiating it by that gives the jvp.

    >>> import tinygrad_rnn as tr
    >>> y, dy = tr.jvp(lambda x: x * x, (tr.Tensor([1.0, 3.0]),), (tr.Tensor([1.0, 10.0]),))
    >>> dy.tolist()
    [2.0, 60.0]
    """
    _paired("tangents", tangents, primals)
    xs = [_fresh(x) for x in primals]
    with record():
        y = _one("jvp", f(*xs))
        if y._node is None:
            return y, zeros_like(y)
        u = zeros_like(y)
        u.requires_grad = True
        pulled = _grad((y,), xs, (u,), True, True)
    reached = [(p, t) for p, t in zip(pulled, tangents, strict=True) if p._node is not None]
    outer = _differentiated_further((y,), xs, tangents)
    (dy,) = _grad([p for p, _ in reached], (u,), [t for _, t in reached], outer, True)
    return (y if outer else y.detach()), dy


def jacobian(f: Function, argnums: int = 0) -> Function:
    """A function that returns the Jacobian of `f`, of shape `f(x).shape + x.shape`.

    It takes one sweep per element of the output.

    >>> import tinygrad_rnn as tr
    >>> tr.jacobian(lambda x: x * x)(tr.Tensor([1.0, 3.0])).tolist()
    [[2.0, 0.0], [0.0, 6.0]]
    """

    def matrix(*args: Any, **kwargs: Any) -> Tensor:
        (at,) = _checked_positions((argnums,), args)

        def of_one(x: Tensor) -> Any:
            return f(*args[:at], x, *args[at + 1 :], **kwargs)

        y, pull = vjp(of_one, args[at])
        y = _one("jacobian", y)
        x_shape = args[at].shape if isinstance(args[at], Tensor) else Tensor(args[at]).shape
        if not y.size:
            return ops.reshape(zeros_like(y), (*y.shape, *x_shape))
        xp = namespace(y._array)
        rows = []
        for i in range(y.size):
            seed = xp.reshape(xp.arange(y.size) == i, y.shape)  # cast as any gradient is
            rows.append(pull(box(seed, None))[0])
        return ops.reshape(ops.stack(rows), (*y.shape, *x_shape))

    return matrix


def hessian(f: Function) -> Function:
    """A function that returns the matrix of second derivatives of `f`.

    `f` takes one argument and returns one element.

    >>> import tinygrad_rnn as tr
    >>> tr.hessian(lambda x: (x ** 3).sum())(tr.Tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacobian(grad_of(f))


def hvp(f: Function, primals: Sequence[Any], vectors: Sequence[Any]) -> tuple[Tensor, ...]:
    """The Hessian of `f` at `primals` times `vectors`, without forming it: two sweeps.

    >>> import tinygrad_rnn as tr
    >>> x, v = tr.Tensor([1.0, 2.0]), tr.Tensor([1.0, 1.0])
    >>> tr.hvp(lambda x: (x ** 3).sum(), (x,), (v,))[0].tolist()
    [6.0, 12.0]
    """
    _paired("vectors", vectors, primals)
    xs = [_fresh(x) for x in primals]
    with record():
        y = _one("hvp", f(*xs))
        slopes = _grad((y,), xs, (None,), True, True)
    reached = [(s, v) for s, v in zip(slopes, vectors, strict=True) if s._node is not None]
    outer = _differentiated_further((y,), xs, vectors)
    return _grad([s for s, _ in reached], xs, [v for _, v in reached], outer, outer)
