"""The steps of a recurrent layer, one after the other: what each was given and gave, as flat rows of numbers.

A row is a step of a sequence. `flow` and `gates` compute from these rows, by the equations of `nn.recurrent_options`,
so that a fused layer and a plain one give the same. Rows are float64 on the host, whatever the layer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_rnn.errors import NonFiniteError, ShapeError
from tinygrad_rnn.explain.watch import Run, Watch
from tinygrad_rnn.nn import recurrent_options
from tinygrad_rnn.nn.cells import NONLINEARITIES, _Cell, add_biases, gru_biases, zeros_for
from tinygrad_rnn.nn.recurrent import _Recurrent
from tinygrad_rnn.nn.recurrent_options import RecurrentOptions, options_of
from tinygrad_rnn.tensor import functional, ops
from tinygrad_rnn.tensor.backend import to_host
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.tensor.mode import no_grad
from tinygrad_rnn.tensor.tensor import Tensor

Floats = np.ndarray[Any, np.dtype[np.float64]]
KINDS = {1: "RNN", 3: "GRU", 4: "LSTM"}
ROWS = {"RNN": ("h",), "GRU": ("r", "z", "n", "m", "h"), "LSTM": ("i", "f", "o", "g", "h", "c")}
"""What a step computes, in the order in which it is packed."""
ALL = slice(None)


def numbers(x: Tensor) -> Floats:
    """A tensor's values as float64, in memory of their own."""
    return np.array(to_host(x._array), np.float64)


@dataclass(frozen=True)
class Stretch:
    """A run of steps with what they were given: the projected input (S, n, G*H), the `state` before the first of them.

    `columns` are the places in the batch of its n sequences, and `T` is how many steps the call of the layer had.
    """

    run: Run
    columns: np.ndarray
    T: int
    x: Floats
    state: tuple[Tensor, ...]
    W: Tensor
    bias: Tensor | None
    options: RecurrentOptions

    @property
    def held(self) -> list[tuple[Tensor, ...]]:
        """The tensors that hold the states after each step: one that packs them, h alone, or h and c."""
        count = 2 if self.run.steps.layer.gates == 4 else 1
        return [(held,) if isinstance(held, Tensor) else held[-count:] for held in self.run.shown]


class Chain:
    """What one direction of one layer computed over time, or a cell in a loop; its rows lie in the order of running.

    `t` and `b` are the step and the sequence of each row, and `previous` is the row of the step before, -1 for the
    first. `steps` are the rows of each step, `order` its time. `before` and `after` are states: h, or h and c side by
    side. The stretches are those of calls of which each begins with the very state in which the one before had ended.
    """

    def __init__(self, calls: Sequence[Sequence[Stretch]]) -> None:
        first = calls[0][0]
        self.layer, self.place = first.run.steps.layer, first.run.place
        self.kind, self.H = KINDS[self.layer.gates], self.layer.hidden_size
        self.T = sum(stretches[0].T for stretches in calls)
        self.order: list[int] = []
        self.steps: list[slice] = []
        self.held: list[tuple[Tensor, ...]] = []
        rows: dict[str, list[Any]] = {name: [] for name in ("t", "b", "previous", "x", "before", "after", "mask")}
        last: dict[int, int] = {}  # the newest row of each sequence
        offset = count = 0
        for stretches in calls:
            for s in stretches:
                before = np.concatenate([numbers(state) for state in s.state], axis=-1).reshape(len(s.columns), -1)
                for local, held in zip(s.run.steps.order, s.held, strict=True):
                    n, t = len(s.columns), offset + s.run.steps.first + local
                    rows["t"].append(np.full(n, t))
                    rows["b"].append(s.columns)
                    rows["previous"].append([last.get(b, -1) for b in s.columns])
                    rows["x"].append(s.x[local])
                    rows["before"].append(before)
                    before = states_of(held, self.H, self.kind)
                    rows["after"].append(before)
                    rows["mask"].append(np.ones((n, self.H)) if s.options.mask is None else numbers(s.options.mask)[:n])
                    last |= {b: count + k for k, b in enumerate(s.columns)}
                    self.order.append(t)
                    self.steps.append(slice(count, count + n))
                    self.held.append(held)
                    count += n
            offset += stretches[0].T
        joined = {name: np.concatenate(rows[name]) for name in rows}
        self.t, self.b, self.previous = joined["t"], joined["b"], joined["previous"]
        self.x, self.before, self.after, self.mask = (joined[name] for name in ("x", "before", "after", "mask"))
        if not np.isfinite(self.after).all():
            raise NonFiniteError(f"{self.title}: its states hold a NaN or an infinity, and nothing can be told of them")
        self.B = int(self.b.max()) + 1
        self.W, self.bias = Tensor(numbers(first.W)), None if first.bias is None else Tensor(numbers(first.bias))
        self.norms = {
            name: [(Tensor(numbers(gain)), Tensor(numbers(bias))) for gain, bias in blocks]
            for name, blocks in first.options.norms.items()
        }

    # --- the equations -----------------------------------------------------------------------------

    def options(self, rows: slice = ALL) -> RecurrentOptions:
        """The options of these rows, each of which is a sequence of a batch to them."""
        return RecurrentOptions(self.norms, Tensor(self.mask[rows]) if self.masked else None)

    @property
    def dtype(self) -> Any:
        """The dtype of the layer."""
        return next(self.layer.parameters()).dtype

    @property
    def masked(self) -> bool:
        """Whether recurrent dropout was on."""
        return bool((self.mask != 1).any())

    def equations(self, before: Tensor, rows: slice = ALL) -> dict[str, Tensor]:
        """All that the steps of these rows compute from the states `before` them, by name."""
        x, H, options = Tensor(self.x[rows]), self.H, self.options(rows)
        if self.kind == "RNN":
            f = NONLINEARITIES[self.layer.nonlinearity]
            found: tuple[Tensor, ...] = (recurrent_options.rnn_with_options(options, x, before, self.W, f),)
        elif self.kind == "GRU":
            found = recurrent_options.gru_with_options(options, x, before, self.W, self.bias)
        else:
            found = recurrent_options.lstm_with_options(options, x, before[:, :H], before[:, H:], self.W)
        return dict(zip(ROWS[self.kind], found, strict=True))

    def advance(self, before: Tensor, rows: slice = ALL) -> Tensor:
        """The states after the steps of these rows."""
        found = self.equations(before, rows)
        after = ops.concatenate([found["h"], found["c"]], axis=-1) if "c" in found else found["h"]
        known = self.after[rows]
        slack = 10 * np.finfo(str(self.dtype)).eps ** 0.5 * (1 + np.abs(known).max())
        if not np.allclose(numbers(after), known, rtol=0, atol=slack):
            raise ValueError(f"{self.title}: its steps are not those of the equations of {self.kind}")
        return after

    def gates(self) -> dict[str, Floats]:
        """What every row computed, by name (N, H); h and c as the layer itself gave them."""
        with no_grad():
            before = Tensor(self.before)
            self.advance(before)  # which compares it with what the layer gave
            found = {name: numbers(value) for name, value in self.equations(before).items()}
        return found | dict(
            zip(("h", "c"), np.split(self.after, self.after.shape[-1] // self.H, axis=-1), strict=False)
        )

    def pull(self, g: Floats, rows: slice = ALL) -> Floats:
        """What the gradient `g` of the states after these rows is for those before them, through the step alone."""
        _, pulled = functional.vjp(lambda before: self.advance(before, rows), Tensor(self.before[rows]))
        return numbers(pulled(Tensor(g))[0])

    def jacobians(self) -> Floats:
        """d state after / d state before of every row: (N, S, S)."""
        N, S = self.before.shape
        found = np.empty((N, S, S))
        _, pulled = functional.vjp(self.advance, Tensor(self.before))
        for unit in range(S):
            seed = np.zeros((N, S))
            seed[:, unit] = 1
            found[:, unit] = numbers(pulled(Tensor(seed))[0])
        return found

    # --- the graph ---------------------------------------------------------------------------------

    def gradients(self, loss: Tensor) -> tuple[Floats, Floats]:
        """dL / d state after each row: with the way from c through the h of the same step, and without it."""
        if not all(part.requires_grad for held in self.held for part in held):
            raise RuntimeError(
                f"the states of {self.title} have no graph: they were computed in no_grad or in a checkpoint, or no "
                "weight of the layer requires a gradient"
            )
        return self._of_states([loss], None)

    def carried(self, g: Floats) -> Floats:
        """What arrives at the states of each row of their gradient `g` at the last step of each sequence; both without
        the way from c through the h of the same step.
        """
        last = np.ones(len(g), bool)
        last[self.previous[self.previous >= 0]] = False
        ends = [
            (held, np.where(last[rows, None], g[rows], 0)) for held, rows in zip(self.held, self.steps, strict=True)
        ]
        ends = [(held, seed) for held, seed in ends if seed.any()]
        if not ends:
            return np.zeros_like(g)
        outputs = [part for held, _ in ends for part in held]
        seeds = [array for held, seed in ends for array in seeds_for(held, seed)]
        return self._of_states(outputs, seeds)[1]

    def _of_states(self, outputs: list[Tensor], seeds: list[Tensor] | None) -> tuple[Floats, Floats]:
        parts = [part for held in self.held for part in held]
        found = iter(functional.grad(outputs, parts, seeds, retain_graph=True))
        given = [tuple(next(found) for _ in held) for held in self.held]
        g = np.concatenate([states_of(of_step, self.H, self.kind) for of_step in given])
        if self.kind != "LSTM":
            return g, g
        through = np.zeros_like(g)
        through[:, self.H :] = self._through_h(g[:, : self.H])
        return (g + through, g) if self._packed() else (g, g - through)

    def _through_h(self, gh: Floats) -> Floats:
        """What the gradient of h is for the c of the same step: h = o tanh(c), or that of a normalised c."""
        c = self.after[:, self.H :]
        if len(self.held[0]) == 1:  # packed rows have the o
            o = np.concatenate([numbers(held[0][2]) for held in self.held])
            found: Floats = gh * o * (1 - np.tanh(c) ** 2)
            return found
        with no_grad():
            gate = self.equations(Tensor(self.before))["o"]
        norm = self.options().norm
        _, pulled = functional.vjp(lambda c: gate * ops.tanh(norm("c", c)), Tensor(c))
        return numbers(pulled(Tensor(gh))[0])

    def _packed(self) -> bool:
        """Whether h and c are parts of one node, in which h is not computed from c."""
        if isinstance(self.layer, _Cell):
            return self.layer.fused and not self.layer.layer_norm
        return len(self.held[0]) == 1

    # --- for people --------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """What the chain is called: "encoder.lstm.l0 reverse"."""
        place = self.place
        name = place.path + place.name.replace("_", ".", 1).replace("_", " ")
        return f"{name}, call {place.call}" if place.call else name

    def dense(self, rows: Floats) -> Floats:
        """Numbers of each row (N, ...) as (T, B, ...): NaN past the end of a sequence, where there is no step."""
        out = np.full((self.T, self.B, *rows.shape[1:]), np.nan)
        out[self.t, self.b] = rows
        return out


def states_of(held: Sequence[Tensor], H: int, kind: str) -> Floats:
    """The states (n, S) that tensors of one step hold, or their gradients: h, or h and c side by side."""
    arrays = [numbers(part) for part in held]
    if arrays[0].ndim == 3:  # packed rows
        arrays = list(arrays[0][-2:] if kind == "LSTM" else arrays[0][-1:])
    return np.concatenate([array.reshape(-1, H) for array in arrays], axis=-1)


def seeds_for(held: Sequence[Tensor], g: Floats) -> list[Tensor]:
    """The gradient (n, S) of the states of a step as gradients of the tensors that hold them: `states_of` backwards."""
    H = held[0].shape[-1]
    rows = np.split(g, g.shape[-1] // H, axis=-1)
    if held[0].ndim == 3:  # packed rows
        packed = np.zeros(held[0].shape)
        packed[-len(rows) :] = rows
        rows = [packed]
    return [Tensor(row.reshape(x.shape), x.dtype, x.device) for row, x in zip(rows, held, strict=True)]


# --- from what was watched -------------------------------------------------------------------------


def chains(seen: Watch, layer: Any = None) -> list[Chain]:
    """A chain for each direction of each layer, and each cell, of what was watched; of one `layer` alone if given.

    A call that begins with the state in which the call before has ended, with its graph, goes on with its chain; any
    other begins a new one. Raises ValueError where nothing recurrent was watched.
    """
    calls: dict[tuple[int, str], list[list[Stretch]]] = {}
    for run in seen.runs:
        steps = run.steps
        if (layer is not None and steps.layer is not layer) or len(run.shown) < len(steps.order) or not run.shown:
            continue
        of_layer = calls.setdefault((id(steps.layer), steps.name), [])
        if not of_layer or of_layer[-1][0].run.place.call != run.place.call:
            of_layer.append([])
        of_layer[-1].append(stretch(run))
    found = []
    for of_layer in calls.values():
        linked = [of_layer[0]]
        for call in of_layer[1:]:
            if not goes_on(linked[-1], call):
                found.append(Chain(linked))
                linked = []
            linked.append(call)
        found.append(Chain(linked))
    if not found:
        what = (
            "no recurrent layer or cell was called" if layer is None else f"this {type(layer).__name__} was not called"
        )
        raise ValueError(f"{what}, with at least one step, while the watch looked on")
    return found


def stretch(run: Run) -> Stretch:
    """A run with what its steps were given."""
    steps = run.steps
    if steps.given is None:
        name = type(steps.layer).__name__
        raise ValueError(f"{name}: its forward was called, past the watch: call the layer itself, layer(x)")
    if isinstance(steps.layer, _Cell):
        return _of_cell(run, *steps.given)
    T, x, state, W, bias, options = steps.given
    columns = np.arange(steps.count)
    if run.lengths is not None:
        lengths = run.lengths._array if isinstance(run.lengths, Tensor) else run.lengths
        columns = np.argsort(-np.asarray(to_host(lengths)), kind="stable")[: steps.count]
    return Stretch(run, columns, T, numbers(x), state, W, bias, options)


def _of_cell(run: Run, x: Any, hx: Any) -> Stretch:
    """The call of a cell as a stretch of one step."""
    cell = run.steps.layer
    x = x if isinstance(x, Tensor) else Tensor(x)
    if hx is None:
        hx = (zeros_for(cell.weight_hh, (*x.shape[:-1], cell.hidden_size)),) * (2 if cell.gates == 4 else 1)
    state = tuple(s if isinstance(s, Tensor) else Tensor(s) for s in (hx if isinstance(hx, tuple | list) else (hx,)))
    biases = (cell.bias_ih, cell.bias_hh)
    before, inside = gru_biases(*biases) if cell.gates == 3 else (add_biases(*biases), None)
    options = options_of(cell, "")
    with no_grad():
        projected = numbers(options.project(x, cell.weight_ih, before)).reshape(1, -1, cell.gates * cell.hidden_size)
    return Stretch(run, np.arange(projected.shape[1]), 1, projected, state, cell.weight_hh, inside, options)


def goes_on(before: Sequence[Stretch], call: Sequence[Stretch]) -> bool:
    """Whether a call begins with the very states in which the one `before` has ended, and with their graph."""
    first, kind = call[0], KINDS[call[0].run.steps.layer.gates]
    H = first.run.steps.layer.hidden_size
    ends: dict[int, Floats] = {}
    for s in before:
        ends |= dict(zip(s.columns.tolist(), states_of(s.held[-1], H, kind), strict=True))
    begin = np.concatenate([numbers(s).reshape(-1, H) for s in first.state], axis=-1)
    if sorted(ends) != sorted(first.columns.tolist()):
        return False
    if not np.array_equal(begin, np.stack([ends[b] for b in first.columns.tolist()])):
        return False
    last = [part for s in before for part in s.held[-1]]
    if any(state is part for state in first.state for part in last):
        return True
    roots, ends_of = ([s._node for s in tensors if s._node is not None] for tensors in (first.state, last))
    return bool(roots and ends_of) and not set(ends_of).isdisjoint(newest_first(roots, inputs=ends_of))


def run_layer(what: str, layer: Any, x: Any, hx: Any, lengths: Any, embedding: Any) -> Tensor:
    """The output of a layer, or the states h of a cell over the steps of x; `what` looks at it."""
    if isinstance(layer, _Recurrent):
        return layer(x, hx, lengths=lengths, embedding=embedding)[0]  # type: ignore[no-any-return]
    if not isinstance(layer, _Cell):
        raise TypeError(
            f"{what} takes an RNN, LSTM or GRU, or a cell, not a {type(layer).__name__}; of a whole model: "
            f"with tr.explain.watch() as seen: ... model(x) ..., then seen.{what}(...)"
        )
    if lengths is not None:
        raise ValueError(f"{type(layer).__name__}: a cell knows no lengths; give nn.{type(layer).__name__[:-4]} to it")
    x = x if isinstance(x, Tensor) else Tensor(x)
    outputs = []
    for x_t in x if embedding is None else embedding(x):
        hx = layer(x_t, hx)
        outputs.append(hx[0] if isinstance(hx, tuple) else hx)
    if not outputs:
        raise ShapeError(f"{type(layer).__name__}: there is no step in an input of shape {x.shape}")
    return ops.stack(outputs)
