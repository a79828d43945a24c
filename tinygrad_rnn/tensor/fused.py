"""Fused ops: a plain definition in ops, which is what they mean, and a kernel, which is how they are fast.

Kernels are the only second copies of any derivative. A test ties each to its plain definition, and the test suite
passes with all of them off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, cast

from tinygrad_rnn.tensor import backend
from tinygrad_rnn.tensor.backend import Array, as_array
from tinygrad_rnn.tensor.functional import pull_through
from tinygrad_rnn.tensor.graph import Node
from tinygrad_rnn.tensor.mode import ANOMALY, grad_mode
from tinygrad_rnn.tensor.op import Op, Vjp, boxed, counted, explained, trace, unbox
from tinygrad_rnn.tensor.tensor import Tensor, box

P = ParamSpec("P")


class FusedPlan:
    """The plan of a fused op: its kernel's vjp on raw arrays, its plain definition where that is differentiated."""

    __slots__ = ("name", "plain", "vjp", "needs")

    def __init__(
        self, name: str, plain: Callable[..., Tensor], vjp: Vjp, needs: tuple[bool, ...]
    ) -> None:
        self.name, self.plain, self.vjp, self.needs = name, plain, vjp, needs

    def pull(self, g: Array, kept: Any) -> Sequence[Any]:
        y, arrays, metadata = kept
        return counted(self.vjp(g, y, self.needs, *arrays, **metadata), len(arrays))

    def pull_recorded(self, node: Node, g: Tensor) -> Sequence[Any]:
        assert node.sources is not None
        _, arrays, metadata = node.kept
        operands = [boxed(a, s) for a, s in zip(arrays, node.sources, strict=True)]
        return pull_through(lambda: self.plain(*operands, **metadata), node.sources, g)


def fused(
    name: str, plain: Callable[P, Tensor], forward: Callable[..., Array], vjp: Vjp
) -> Callable[P, Tensor]:
    """The op `name` with a `plain` definition in ops, which is what it means, and a kernel, which is how it is fast.

    `forward(*arrays, **metadata)` returns the output and `vjp(g, y, needs, *arrays, **metadata)` one gradient or None
    per array argument, on real NumPy or CuPy arrays; `needs` tells which are wanted. Complex arrays, other libraries
    and derivatives that are themselves differentiated take `plain`. The two must agree; a property test says so.
    """
    plans: dict[tuple[bool, ...], FusedPlan] = {}
    shell = Op.__new__(Op)  # carries the name and the plain forward for messages and tests
    shell.name, shell.forward = name, plain

    def call(*operands: Any, **metadata: Any) -> Any:
        arrays, sources, like = unbox(operands)
        if not _fused_enabled or not backend.has_kernels(arrays):
            return plain(*operands, **metadata)
        if like is None:
            return forward(*arrays, **metadata)
        try:
            y = as_array(forward(*arrays, **metadata), like)
        except Exception as error:
            raise explained(shell, arrays, error) from None
        needs = tuple([s is not None for s in sources])
        if True not in needs or not (mode := grad_mode.get()):
            return box(y, None)
        if needs not in plans:
            plans[needs] = FusedPlan(name, plain, vjp, needs)
        node = Node(plans[needs], sources, (y, arrays, metadata), y.shape, y.dtype)
        if mode == ANOMALY:
            trace(node)
        return box(y, node)

    call = wraps(plain)(call)
    call.op = shell  # type: ignore[attr-defined]
    return cast("Callable[P, Tensor]", call)


_fused_enabled = True


def fused_enabled() -> bool:
    """Whether kernels are used; the test suite also passes with all of them off."""
    return _fused_enabled


def enable_fused(on: bool) -> None:
    """Use kernels, or the plain definitions everywhere."""
    global _fused_enabled
    _fused_enabled = on
