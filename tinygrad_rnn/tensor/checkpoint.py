"""`checkpoint`: a segment of a graph that is not kept but recomputed in the backward.

It trades time for memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tinygrad_rnn.tensor import backend, ops, random
from tinygrad_rnn.tensor.functional import Function, pull_through
from tinygrad_rnn.tensor.graph import Node, newest_first, next_serial
from tinygrad_rnn.tensor.mode import is_recording, record, replayed
from tinygrad_rnn.tensor.sweep import Gradients, sweep
from tinygrad_rnn.tensor.tensor import Tensor, box

V = TypeVar("V")

_decisions: ContextVar[tuple[tuple[list[Any], bool], ...]] = ContextVar("decisions", default=())


def recomputed(value: V) -> V:
    """`value`, remembered: where a checkpointed segment is recomputed, what it was at first.

    A layer passes what it decides by (its train/eval mode, say) through this, so that it decides
    the same when it is recomputed.
    """
    # the outermost segment first: what it decided at first, those inside it take over
    for taken, again in _decisions.get():
        if again:
            value = taken.pop(0)
        else:
            taken.append(value)
    return value


@contextmanager
def _noting_decisions(taken: list[Any]) -> Iterator[None]:
    """Inside, `recomputed` adds its values to `taken`, besides what the segments around it do."""
    token = _decisions.set((*_decisions.get(), (taken, False)))
    try:
        yield
    finally:
        _decisions.reset(token)


@contextmanager
def _repeating_decisions(taken: Sequence[Any]) -> Iterator[None]:
    """Inside, `recomputed` returns the values of `taken`, one after the other.

    Nothing around it is asked: the segment is recomputed in whatever backward comes.
    """
    token = _decisions.set(((list(taken), True),))
    try:
        yield
    finally:
        _decisions.reset(token)


class _Segment:
    """The plan of a checkpointed segment: recomputes it, and sweeps what that recorded."""

    name = "checkpoint"

    def __init__(self, run: Callable[[], Tensor], state: Any, taken: list[Any], value: Any) -> None:
        self.run, self.state, self.taken, self.value = run, state, taken, value

    def recompute(self) -> Tensor:
        """The segment's output, recorded, with the random numbers and decisions of the first."""
        with record(), random.own_generator(self.state), _repeating_decisions(self.taken):
            y = self.run()
        _check_same(y._array, self.value)
        return y

    def pull(self, g: Any, kept: tuple[Node, ...]) -> Sequence[Any]:
        floor = next_serial()
        y = self.recompute()
        results: dict[Node, Any] = {}
        if y._node is not None:
            results = sweep([y._node], [g], Gradients(), floor=floor)
        return [results.pop(s, None) for s in kept]

    def pull_recorded(self, node: Node, g: Tensor) -> Sequence[Any]:
        return pull_through(self.recompute, node.kept, g)


@replayed(changes="nothing")
def _check_same(values: Any, first: Any) -> None:
    """Raise `RuntimeError` unless the values of a segment are those of its first run."""
    if not backend.nearly_equal(values, first):
        raise RuntimeError(
            "checkpoint: the function gave other values when it was recomputed than in the "
            "first run. Something that it reads has changed in between (assign_ or an "
            "optimiser step before the backward, a generator of its own, a global): the "
            "gradient would be that of another function"
        )


def checkpoint(f: Function, *args: Any) -> Any:
    """`f(*args)` without keeping what is inside: the backward recomputes it.

    Gradients are the same, memory is less.

    `f` returns Tensors, alone or in nested tuples and lists; it may close over anything, and
    gradients reach what it closes over. Random draws and the layers' train/eval modes are repeated
    as they were. Higher orders work.

    Raises `RuntimeError` in the backward if that gives other values than the first run: a
    weight was changed in between, say.

    >>> import tinygrad_rnn as tr
    >>> x = tr.Tensor([1.0, 2.0], requires_grad=True)
    >>> tr.checkpoint(lambda v: v.tanh() * v, x).sum().backward()
    >>> x.grad.shape
    (2,)
    """
    if not is_recording():
        return f(*args)
    taken: list[Any] = []
    drawn_from = random.generator()
    state = drawn_from.bit_generator.state
    floor = next_serial()
    with _noting_decisions(taken), random.own_generator(state) as own:
        y = f(*args)
    drawn_from.bit_generator.state = own.bit_generator.state
    recorded = [i for i, t in enumerate(_tensors_in(y)) if t._node is not None]
    if not recorded:
        return y
    outputs = [_tensors_in(y)[i] for i in recorded]
    inner = _pack(outputs)
    if inner._node.serial < floor:
        return y
    sources = tuple(node for node in newest_first([inner._node], floor) if node.serial < floor)

    def run() -> Any:  # the same outputs, whether or not a leaf still requires a gradient
        tensors = _tensors_in(f(*args))
        return _pack([tensors[i] for i in recorded])

    segment = _Segment(run, state, taken, inner._array)
    packed = box(inner._array, Node(segment, sources, sources, inner.shape, inner.dtype))
    return _replaced(y, iter([packed] if len(outputs) == 1 else _unpacked(packed, outputs)))


def _tensors_in(y: Any) -> list[Any]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(y, Tensor):
        return [y]
    return [t for part in y for t in _tensors_in(part)] if isinstance(y, tuple | list) else []


def _replaced(y: Any, new: Iterator[Tensor]) -> Any:
    """`y` with `new` in the place of its tensors with a history."""
    if isinstance(y, Tensor):
        return next(new) if y._node is not None else y
    return type(y)([_replaced(part, new) for part in y]) if isinstance(y, tuple | list) else y


def _pack(outputs: Sequence[Tensor]) -> Any:
    """Several tensors as one: a node has one output."""
    if len(outputs) == 1:
        return outputs[0]
    return ops.concatenate([ops.reshape(o, (-1,)) for o in outputs])


def _unpacked(packed: Tensor, outputs: Sequence[Tensor]) -> Iterator[Tensor]:
    """The parts of `packed`, with the shapes and dtypes that `outputs` have."""
    start = 0
    for like in outputs:
        yield ops.astype(ops.reshape(packed[start : start + like.size], like.shape), like.dtype)
        start += like.size
