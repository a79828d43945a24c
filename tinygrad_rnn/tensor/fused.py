"""Fused ops: a plain definition in ops, which says what they mean, and a kernel that is fast.

Kernels are the only second copies of any derivative. A test ties each to its plain definition, and
the test suite passes with all of them off.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, as_array
from tinygrad_rnn.tensor.functional import pull_through
from tinygrad_rnn.tensor.graph import Node
from tinygrad_rnn.tensor.mode import ANOMALY, as_it_is, grad_mode
from tinygrad_rnn.tensor.op import PLAIN, Vjp, boxed, counted, explained, settled, trace, unbox
from tinygrad_rnn.tensor.tensor import Tensor, box

P = ParamSpec("P")


class FusedOp:
    """An op whose `forward` is the plain definition; the kernel and its vjp compute the same."""

    __slots__ = ("name", "forward", "kernel", "vjp", "keeps_y", "arrays", "metadata", "_plans")

    def __init__(
        self, name: str, plain: Callable[..., Tensor], kernel: Callable[..., Array], vjp: Vjp
    ) -> None:
        self.name, self.forward, self.kernel, self.vjp = name, plain, kernel, vjp
        self.keeps_y = list(inspect.signature(vjp).parameters)[1] != "_"
        parameters = inspect.signature(plain).parameters.values()
        self.arrays = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self.metadata = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self._plans: dict[tuple[bool, ...], FusedPlan] = {}

    def plan(self, needs: tuple[bool, ...]) -> FusedPlan:
        """The plan for the arguments that need a gradient."""
        if needs not in self._plans:
            self._plans[needs] = FusedPlan(self, needs)
        return self._plans[needs]


class FusedPlan:
    """How a fused op is pulled through: by the kernel's vjp on raw arrays.

    Where the derivative is itself differentiated, it is that of the plain definition.
    """

    __slots__ = ("op", "name", "needs")

    def __init__(self, op: FusedOp, needs: tuple[bool, ...]) -> None:
        self.op, self.name, self.needs = op, op.name, needs

    def pull(self, g: Array, kept: Any) -> Sequence[Any]:
        y, arrays, metadata = kept
        return counted(self.op.vjp(g, y, self.needs, *arrays, **metadata), len(arrays))

    def pull_recorded(self, node: Node, g: Tensor) -> Sequence[Any]:
        assert node.sources is not None
        _, arrays, metadata = node.kept
        operands = [boxed(a, s) for a, s in zip(arrays, node.sources, strict=True)]
        return pull_through(lambda: self.op.forward(*operands, **metadata), node.sources, g)


def fused(
    name: str,
    plain: Callable[P, Tensor],
    forward: Callable[..., Array],
    vjp: Vjp,
    fits: Callable[[Sequence[Any]], bool] = backend.has_kernels,
) -> Callable[P, Tensor]:
    """The op `name` with a `plain` definition in ops, which says what it means, and a kernel.

    `forward(*arrays, **metadata)` returns the output and `vjp(g, y, needs, *arrays, **metadata)`
    one gradient or None per array argument, on real NumPy or CuPy arrays; `needs` tells which are
    wanted. The output is not kept for a vjp that calls it `_`. Complex arrays, other libraries and
    derivatives that are themselves differentiated take `plain`, and so does whatever else `fits`
    says no to. The two must agree; a property test says so.
    """
    if not (forward.__module__ or "").startswith("tinygrad_rnn."):  # a user has written them
        forward, vjp = as_it_is(forward), as_it_is(vjp)
    op = FusedOp(name, plain, forward, vjp)

    def call(*operands: Any, **metadata: Any) -> Any:
        arrays, sources, like = unbox(operands)
        if not _fused_enabled or not fits(arrays):
            return plain(*operands, **metadata)
        if like is None:
            return forward(*arrays, **metadata)
        for option, value in metadata.items():
            if type(value) not in PLAIN:
                metadata[option] = settled(op, value)
        try:
            y = as_array(forward(*arrays, **metadata), like)
        except Exception as error:
            raise explained(name, arrays, error) from None
        needs = tuple([s is not None for s in sources])
        if True not in needs or not (mode := grad_mode.get()):
            return box(y, None)
        kept = (y if op.keeps_y else None, arrays, metadata)
        node = Node(op.plan(needs), sources, kept, y.shape, y.dtype)
        if mode == ANOMALY:
            trace(node)
        return box(y, node)

    made: Any = wraps(plain)(call)
    made.op = op
    return made  # type: ignore[no-any-return]


_fused_enabled = True


def fused_enabled() -> bool:
    """Whether kernels are used."""
    return _fused_enabled


def enable_fused(on: bool) -> None:
    """Use kernels, or the plain definitions everywhere."""
    global _fused_enabled
    _fused_enabled = on
