"""A recurrent layer or cell seen from outside: how it is called, what goes in, and what comes out of a run.

`Sequences` and `Configuration` are cases: batches and layers to be drawn. `Subject` finds out by calling a layer what
it is, and runs it on whole batches or parts of them; `recurrent` compares what comes out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_rnn import nn
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.random import own_generator
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.testing.calls import Array, Held, constant, leaves_of, pull, variable
from tinygrad_rnn.testing.errors import Broken
from tinygrad_rnn.testing.values import Choose, RandomChoose

__all__ = ["Configuration", "Given", "Run", "Sequences", "Subject"]

Factory = Callable[[], Module]

SHORT, LONG, VERY_LONG = 6, 40, 137


# --- cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequences:
    """A batch of sequences, what goes in with them and what is pulled back: all but the numbers, which `seed` makes.

    Attributes:
        T, B: steps and batch.
        lengths: of each sequence, from 1 to T in any order; None where all have T steps.
        initial: whether initial states are given.
        pulled: what gets a cotangent: "all" outputs and final states, the "last" output of each sequence, or the
            final "state".
        seed: of the numbers.
        scale: how large what goes in is; much of a layer saturates at 8.
    """

    T: int
    B: int
    lengths: tuple[int, ...] | None = None
    initial: bool = True
    pulled: str = "all"
    seed: int = 0
    scale: float = field(default=1.0, repr=False)

    @classmethod
    def draw(cls, choose: Choose, seed: int = 0, max_T: int = SHORT, max_B: int = 3) -> Sequences:
        """A batch whose sizes and options `choose` has chosen; a few are `LONG`."""
        T = choose((*range(1, max_T + 1), *range(max_T + 1), LONG))
        B = choose((*range(1, max_B + 1), *range(max_B + 1)))
        lengths = None
        if T and B and choose((False, True)):
            lengths = tuple(choose(range(1, T + 1)) for _ in range(B))
        return cls(T, B, lengths, choose((True, False)), choose(("all", "last", "state")), seed)

    @classmethod
    def sample(cls, seed: int, **limits: Any) -> Sequences:
        """A random batch, without Hypothesis.

        >>> Sequences.sample(2)
        Sequences(T=5, B=2, lengths=None, initial=True, pulled='last', seed=2)
        """
        return cls.draw(RandomChoose(seed), seed, **limits)


KINDS = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


@dataclass(frozen=True)
class Configuration:
    """One of the recurrent layers and cells of `tinygrad_rnn.nn` with its options.

    >>> Configuration("LSTM", 3, 4, {"num_layers": 2}).make().num_layers
    2
    """

    kind: str
    input_size: int
    hidden_size: int
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, **more: Any) -> Any:
        """The layer or cell; `more` overrides its options."""
        return getattr(nn, self.kind)(self.input_size, self.hidden_size, **self.options | more)

    @classmethod
    def draw(cls, choose: Choose, kinds: Sequence[str] = KINDS, min_size: int = 1, max_size: int = 4) -> Configuration:
        """A configuration that `choose` has chosen."""
        kind = choose(kinds)
        options: dict[str, Any] = {"bias": choose((True, False)), "fused": choose((True, False))}
        options["dtype"] = choose(("float32", "float64"))
        if kind.startswith("RNN"):
            options["nonlinearity"] = choose(("tanh", "relu", "sigmoid"))
        if not kind.endswith("Cell"):
            options["num_layers"] = choose((1, 2, 3))
            options["bidirectional"] = choose((False, True))
            options["batch_first"] = choose((False, True))
            options["dropout"] = choose((0.0, 0.4))
        sizes = range(min_size, max_size + 1)
        return cls(kind, choose(sizes), choose(sizes), options)


# --- a layer from outside -----------------------------------------------------------------------------------


@dataclass
class Run:
    """What a run gave, as arrays: `values` has "output" (T, B, O) and "state 0", ..., `gradients` also "x" (T, B, I),
    "hx 0", ... and every parameter by its name.
    """

    values: dict[str, Array]
    gradients: dict[str, Array]


@dataclass
class Given:
    """What goes into a run, as arrays, time major; `hx` and `u` are lists in the order of the states."""

    x: Array
    hx: list[Array] | None
    lengths: tuple[int, ...] | None
    u: list[Array]  # the cotangents of output and states


class Subject:
    """A layer or a cell in float64, and how it is called: found out by calling it."""

    def __init__(self, factory: Factory, seed: int, input_size: int | None, cell: bool | None) -> None:
        self.factory, self.seed = factory, seed
        self.layer = self._made()
        rng = np.random.default_rng(seed)
        for p in self.layer.parameters():  # a weight of 0 would hide the term that it multiplies
            p.assign_(p.numpy() + rng.uniform(-0.1, 0.1, p.shape))
            p._array.flags.writeable = False
        trained = ((name, p) for name, p in self.layer.named_parameters() if p.requires_grad)
        self.parameters = {f"parameter {name}" if name in ("x", "output") else name: p for name, p in trained}
        self.name = type(self.layer).__name__
        forward = inspect.signature(self.layer.forward).parameters
        positional = [p for p in forward.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.takes_state = len(positional) > 1 and positional[1].name != "lengths"
        self.needs_state = self.takes_state and positional[1].default is inspect.Parameter.empty
        self.takes_lengths = "lengths" in forward
        self.batch_first = bool(getattr(self.layer, "batch_first", False))
        self.bidirectional = bool(getattr(self.layer, "bidirectional", False))
        self._find_out(input_size, cell)

    def _made(self) -> Module:
        with own_generator(np.random.default_rng(self.seed).bit_generator.state):
            layer = None if isinstance(self.factory, Module) else self.factory()
        if not isinstance(layer, Module):
            raise TypeError("check_recurrent takes a function that makes a Module: lambda: MyLayer(3, 4)")
        return layer.to("float64").eval()

    def in_float32(self) -> Subject:
        """The same layer made again, in float32, with the same weights."""
        other = copy(self)
        other.layer = self._made().to("float32")
        values = {name: p.numpy() for name, p in self.layer.named_parameters()}
        for name, p in other.layer.named_parameters():
            p.assign_(values[name].astype("float32"))
        other.parameters = {name: p for name, p in other.layer.named_parameters() if name in self.parameters}
        return other

    @property
    def carries(self) -> bool:
        """Whether the past reaches the future through the state alone, which is passed on."""
        return self.takes_state and not self.bidirectional

    # how it is called

    def _find_out(self, input_size: int | None, cell: bool | None) -> None:
        known = input_size or getattr(self.layer, "input_size", None)
        dims = {n for p in self.layer.parameters() for n in p.shape}
        sizes = [known] if isinstance(known, int) else sorted(n for n in dims if n > 1) + [1]
        errors: dict[str, Exception] = {}
        for as_cell in (False, True) if cell is None else (cell,):
            for size in sizes:
                for shapes in self._guesses() if self.needs_state else [None]:
                    try:
                        found = self._shapes(as_cell, size, 2, 5, shapes)
                        again = self._shapes(as_cell, size, 3, 6, shapes)
                        grown = zip(found[0], again[0], state_parts(found[1]), strict=True)
                        self.batch_axes = tuple(_batch_axis(a, b, part) for a, b, part in grown)
                    except Exception as error:  # noqa: BLE001 (a guess that does not fit: the next one)
                        errors.setdefault("cell" if as_cell else "layer", error)
                        continue
                    self.cell, self.input_size = as_cell, size
                    self.state_shapes, self.state, self.width = found
                    return
        raise TypeError(
            f"check_recurrent: {self.name} was called as a layer, x (T, B, I) -> output, state, and as a cell, x (B, "
            f"I) -> state, with I = {', '.join(map(str, sizes))}; neither works (input_size= and cell= say what it is):"
            + "".join(f"\n  as a {what}: {type(e).__name__}: {e}" for what, e in errors.items())
        )

    def _guesses(self) -> Iterator[tuple[bool, tuple[int, ...]]]:
        """States that a layer which cannot do without one might take: one or a pair, by the sizes that it knows."""
        known = getattr(self.layer, "hidden_size", None)
        sizes = [known] if isinstance(known, int) else sorted({n for p in self.layer.parameters() for n in p.shape})
        for size in sizes:
            for shape in ((-1, size), (1, -1, size)):
                yield True, shape
                yield False, shape

    def _shapes(
        self, cell: bool, size: int, B: int, T: int, guess: tuple[bool, tuple[int, ...]] | None
    ) -> tuple[tuple[tuple[int, ...], ...], Any, int]:
        """Shapes of the states for a batch of B, a state, and the width of the output."""
        hx: Any = ()
        if guess:
            alone, shape = guess
            zeros = constant(np.zeros([B if n < 0 else n for n in shape]))
            hx = (zeros,) if alone else ((zeros, zeros),)
        x = (B, size) if cell else (B, T, size) if self.batch_first else (T, B, size)
        result = self.layer(constant(np.ones(x)), *hx)
        if cell:
            state = result
        else:
            if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)):
                raise TypeError("it does not return output, state")
            output, state = result
            if output.ndim != 3 or output.shape[:2] != x[:2]:
                raise TypeError(f"the output for x {x} has shape {output.shape}")
        parts = state_parts(state)
        if cell and any(s.dtype.kind == "f" and (s.ndim < 1 or s.shape[0] != B) for s in parts):
            raise TypeError(f"the states for x {x} have shapes {[s.shape for s in parts]}")
        return tuple(s.shape for s in parts), state, (parts[0] if cell else output).shape[-1]

    def shapes_for(self, B: int) -> list[tuple[int, ...]]:
        """Shapes of the states of a batch of B."""
        pairs = zip(self.state_shapes, self.batch_axes, strict=True)
        return [shape if axis is None else (*shape[:axis], B, *shape[axis + 1 :]) for shape, axis in pairs]

    def take(self, arrays: Sequence[Array], rows: Any) -> list[Array]:
        """The states of some sequences of a batch."""
        pairs = zip(arrays, self.batch_axes, strict=True)
        return [a if axis is None else np.take(a, rows, axis) for a, axis in pairs]

    # calls

    def forward(
        self, x: Tensor, hx: Sequence[Tensor] | None, lengths: tuple[int, ...] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Outputs (T, B, O) and final states of x (T, B, I); a cell is unrolled here."""
        state: Any = None if hx is None else _rebuilt(self.state, iter(hx))
        if not self.cell:
            more = {} if lengths is None else {"lengths": list(lengths)}
            x = ops.swapaxes(x, 0, 1) if self.batch_first else x
            output, state = self.layer(*([x] if state is None else [x, state]), **more)
            return (ops.swapaxes(output, 0, 1) if self.batch_first else output), state_parts(state)
        outputs = []
        for t in range(x.shape[0]):
            state = self.layer(*([x[t]] if state is None else [x[t], state]))
            outputs.append(state_parts(state)[0])
        return ops.stack(outputs), state_parts(state)

    def pull(self, outputs: Sequence[Tensor], u: Sequence[Array], leaves: dict[str, Tensor]) -> dict[str, Array]:
        """Gradients of sum <output, u> by name."""
        live = {name: t for name, t in leaves.items() if t.requires_grad}
        found = dict(zip(live, pull(outputs, u, list(live.values())), strict=True))
        dtype = leaves["x"].dtype if "x" in leaves else np.float64
        # a state of integers has no gradient: it counts as 0
        return {n: found[n]._array if n in found else np.zeros(t.shape, dtype) for n, t in leaves.items()}

    def tensors(self, arrays: Sequence[Array]) -> list[Tensor]:
        """Leaves that hold the arrays; constants, of integers."""
        return [variable(a) if a.dtype.kind in "fc" else constant(a) for a in arrays]

    def run(self, given: Given, constants: Collection[str] = ()) -> Run:
        """Values and gradients; x or hx are constants if these names are among `constants`."""
        x = constant(given.x) if "x" in constants else variable(given.x)
        hx = (
            None
            if given.hx is None
            else self.tensors(given.hx)
            if "hx" not in constants
            else [*map(constant, given.hx)]
        )
        output, states = self.forward(x, hx, given.lengths)
        T, B = x.shape[:2]
        found = [output.shape, *(s.shape for s in states)]
        if found != [(T, B, self.width), *self.shapes_for(B)]:
            expected = ", ".join(map(str, [(T, B, self.width), *self.shapes_for(B)]))
            raise Broken(
                f"output and states of {T} steps, {B} sequences are {', '.join(map(str, found))}, not {expected}",
                "shape",
            )
        leaves = {"x": x, **{f"hx {i}": h for i, h in enumerate(hx or ())}, **self.parameters}
        return Run(named_values(output, states), self.pull([output, *states], given.u, leaves))

    def given(self, case: Sequences, seed: int) -> Given:
        """The arrays of a case."""
        rng = np.random.default_rng(seed)
        T, B = case.T, case.B
        lengths = case.lengths if self.takes_lengths else None
        x = case.scale * rng.standard_normal((T, B, self.input_size))
        shapes = self.shapes_for(B)
        hx = [np.asarray(0.5 * case.scale * rng.standard_normal(s)) for s in shapes]
        counts = {i: n for i, n in enumerate(self._counts(B)) if n.dtype.kind != "f"}
        hx = [counts.get(i, h) for i, h in enumerate(hx)]
        u = [rng.standard_normal((T, B, self.width)), *(np.asarray(rng.standard_normal(s)) for s in shapes)]
        if case.pulled != "all":
            ends = [n - 1 for n in lengths or [T] * B] if T and case.pulled == "last" else []
            kept = u[0].copy()
            u[0][:] = 0
            for b, t in enumerate(ends):
                u[0][t, b] = kept[t, b]
            if ends:
                for v in u[1:]:
                    v[...] = 0
        for b, n in enumerate(lengths or ()):
            u[0][n:, b] = 0  # whether these outputs are 0 is a question of its own
        for i in counts:
            u[1 + i][...] = 0
        for a in (x, *hx, *u):
            a.flags.writeable = False
        return Given(x, hx if self.takes_state and (case.initial or self.needs_state) else None, lengths, u)

    def _counts(self, B: int) -> list[Array]:
        """States after some steps, where one is of integers: those are not drawn, but as the layer makes them."""
        dtypes = [s.dtype for s in state_parts(self.state)]
        if all(dtype.kind == "f" for dtype in dtypes) or not B:
            return [np.zeros(shape, dtype) for shape, dtype in zip(self.shapes_for(B), dtypes, strict=True)]
        steps = constant(np.ones((2, B, self.input_size)))
        return [np.array(s._array) for s in self.forward(steps, None, None)[1]]

    def arrays(self, given: Given) -> list[Array]:
        """All that may be varied: x, initial states, parameters."""
        return [given.x, *(given.hx or []), *(p._array for p in self.parameters.values())]

    def names(self, given: Given) -> list[str]:
        """What `arrays` are."""
        return ["x", *(f"hx {i}" for i in range(len(given.hx or []))), *self.parameters]

    def function(self, given: Given, seed: int | None = None) -> Held:
        """The layer as a function of `arrays`, as Tensors; with a seed of its own where it is random. States of
        integers come out as zeros.
        """
        states = len(given.hx or [])

        def f(x: Tensor, *rest: Tensor) -> list[Tensor]:
            hx = None if given.hx is None else rest[:states]
            if seed is None:
                output, final = self.forward(x, hx, given.lengths)
            else:
                with own_generator(np.random.default_rng(seed).bit_generator.state):
                    output, final = self.forward(x, hx, given.lengths)
            return [output, *(s if s.dtype.kind in "fc" else constant(np.zeros(s.shape)) for s in final)]

        return Held(f, lambda tensors: self.holding(tensors[1 + states :]))

    @contextmanager
    def holding(self, values: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the parameters are what `values` are: the same objects, wherever a layer has put them."""
        parameters = list(self.parameters.values())
        before = [(p._array, p._node) for p in parameters]
        try:
            for p, value in zip(parameters, values, strict=True):
                p._array, p._node = value._array, value._node
            yield
        finally:
            for p, (array, node) in zip(parameters, before, strict=True):
                p._array, p._node = array, node


def state_parts(state: Any) -> list[Tensor]:
    """The Tensors of a state."""
    parts = leaves_of(state, lambda part: part)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        kind = next((type(part).__name__ for part in parts if not isinstance(part, Tensor)), type(state).__name__)
        raise TypeError(f"a state is a Tensor, or tuples, lists and dicts of Tensors, not {kind}")
    return parts


def _rebuilt(state: Any, parts: Iterator[Tensor]) -> Any:
    """A state that is nested as another one, of these Tensors."""
    if isinstance(state, dict):
        return {key: _rebuilt(part, parts) for key, part in state.items()}
    if isinstance(state, tuple | list):
        made = [_rebuilt(part, parts) for part in state]
        return type(state)(*made) if hasattr(state, "_fields") else type(state)(made)
    return next(parts)


def _batch_axis(two: tuple[int, ...], three: tuple[int, ...], state: Tensor) -> int | None:
    """The axis along which a state grows with the batch, and with nothing else; None of integers that do not grow."""
    if two == three and state.dtype.kind in "iub":
        return None
    axes = [i for i, (m, n) in enumerate(zip(two, three, strict=True)) if m != n]
    if len(axes) != 1 or (two[axes[0]], three[axes[0]]) != (2, 3):
        raise TypeError(f"a state of shape {two} for a batch of 2 has shape {three} for one of 3")
    return axes[0]


def named_values(output: Tensor, states: Sequence[Tensor]) -> dict[str, Array]:
    return {"output": output._array, **{f"state {i}": s._array for i, s in enumerate(states)}}
