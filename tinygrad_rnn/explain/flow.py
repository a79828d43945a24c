"""How the gradient flows back through the steps of a recurrent layer: where it vanishes, where it explodes, and why."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.explain import pictures, text, verdicts
from tinygrad_rnn.explain.chains import Chain, Floats, chains, run_layer
from tinygrad_rnn.explain.verdicts import EXPLODES, VANISHES
from tinygrad_rnn.explain.watch import Watch, looking
from tinygrad_rnn.tensor.mode import record
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_ONCE = 10**8  # N S³ up to which the step Jacobians are a matter of about two seconds, and shown unasked


class LayerFlow:
    """The gradient's way back through one direction of one layer, or through a cell in a loop.

    T, B, H are the steps, the sequences and the units; h_t is the state after x_t was read. Past the end of a sequence
    every array has NaN: there is no step. A backward direction runs from T-1 to 0: its "step before" t is t + 1.

        dh, dc           (T, B, H)   dL/dh_t and dL/dc_t, total derivatives: c_t acts through h_t, too. dc is None
                                     where there is no c
        states, cells    (T,)        their norms over batch and units
        explicit         (T,)        the norm of what reaches h_t (and c_t) other than through the next step
        carried          (T,)        the gradient at the last step alone, carried back to t, of h, or of h and c: how
                                     long it is there
        left             (steps,)    the same, as a part of it, by how many steps before the last
        jacobians        (T, B, S, S)  of each step: d state_t / d state_{t-1}; S = H, for an LSTM 2H, h and c
        norms, radii     (T, B)      their largest singular values, and the largest moduli of their eigenvalues
        step_bounds      (T, B)      what a step can multiply the gradient by at most; see `bound_by`
        bound            (T,)        never below `states`

    The bound is that of the tutorials, made to hold for any loss: bound_t = explicit_t + step_bound_{t+1} bound_{t+1},
    for each sequence. With a loss on the last state alone it is the product of the step bounds from the end to t. For a
    plain RNN a step's bound is ||W_hh||₂ max |f'(a_t)|, the largest slope among its units. An LSTM, a GRU and a layer
    with layer normalisation have no such bound by the weights: there it is the norm of the step's Jacobian as it was
    measured (for an LSTM of h and c together, so it also bounds |dL/dh_t|).

    Jacobians, norms, radii and such a bound are computed when asked for: S backward passes, and S³ operations for each
    of T B steps.
    """

    def __init__(self, chain: Chain, loss: Tensor) -> None:
        self.chain = chain
        total, self._apart = chain.gradients(loss)
        self._total, self._carried_rows = total, _lengths(chain.carried(self._apart))
        self.title, self.kind = chain.title, chain.kind
        self.name = chain.place.name.removeprefix("_")
        self.order = list(chain.order)  # the times in the order in which they were run
        H = chain.H
        self.dh = chain.dense(total[:, :H])
        self.dc = chain.dense(total[:, H:]) if chain.kind == "LSTM" else None
        self.bound_by = "weights" if chain.kind == "RNN" and not chain.norms else "jacobians"

    @cached_property
    def states(self) -> Floats:
        """|dL/dh_t|."""
        return self._over_batch(_lengths(self._total[:, : self.chain.H]))

    @cached_property
    def cells(self) -> Floats | None:
        """|dL/dc_t|; None where there is no c."""
        return None if self.dc is None else self._over_batch(_lengths(self._total[:, self.chain.H :]))

    @cached_property
    def _explicit_rows(self) -> Floats:
        """What reaches the states after each row other than through the next step: (N,)."""
        chain, g = self.chain, self._apart.copy()
        later = chain.previous >= 0
        g[chain.previous[later]] -= chain.pull(self._apart)[later]
        return _lengths(g)

    @cached_property
    def explicit(self) -> Floats:
        """|what reaches h_t, and c_t, other than through the next step|."""
        return self._over_batch(self._explicit_rows)

    @cached_property
    def carried(self) -> Floats:
        """How much of the gradient at the last step is left at t."""
        return self._over_batch(self._carried_rows)

    @cached_property
    def _jacobian_rows(self) -> Floats:
        return self.chain.jacobians()

    @property
    def jacobians(self) -> Floats:
        """d state_t / d state_{t-1}, the first with respect to the initial state."""
        return self.chain.dense(self._jacobian_rows)

    @cached_property
    def _norm_rows(self) -> Floats:
        found: Floats = np.linalg.norm(self._jacobian_rows, 2, axis=(-2, -1))
        return found

    @property
    def norms(self) -> Floats:
        """The largest singular values of the step Jacobians: by how much a step can lengthen a gradient."""
        return self.chain.dense(self._norm_rows)

    @cached_property
    def radii(self) -> Floats:
        """The largest moduli of the eigenvalues of the step Jacobians."""
        return self.chain.dense(np.abs(np.linalg.eigvals(self._jacobian_rows)).max(axis=-1))

    @cached_property
    def slopes(self) -> Floats:
        """f'(a_t) of the units of a plain RNN, a row for each step of each sequence: (N, H)."""
        y = self.chain.after
        found = {"tanh": 1 - y * y, "sigmoid": y * (1 - y), "relu": (y > 0).astype(float)}
        slopes: Floats = found[self.chain.layer.nonlinearity]
        return slopes

    @cached_property
    def _step_bound_rows(self) -> Floats:
        chain = self.chain
        if self.bound_by == "jacobians":
            return self._norm_rows
        slope = self.slopes.max(axis=-1)
        masked = chain.mask.max(axis=-1)  # recurrent dropout scales the columns of W_hh
        found: Floats = np.linalg.norm(chain.W.numpy(), 2) * slope * masked
        return found

    @property
    def step_bounds(self) -> Floats:
        """What each step can multiply the gradient by at most."""
        return self.chain.dense(self._step_bound_rows)

    @cached_property
    def bound(self) -> Floats:
        """What |dL/dh_t| can be at most."""
        chain, factor, bound = self.chain, self._step_bound_rows, self._explicit_rows.copy()
        for rows in reversed(chain.steps):
            before = chain.previous[rows]
            here = before >= 0
            bound[before[here]] += (factor[rows] * bound[rows])[here]
        return self._over_batch(bound)

    def _over_batch(self, rows: Floats) -> Floats:
        """Norms of each row as those of the batch at each time: NaN where no sequence has a step."""
        dense = self.chain.dense(rows)
        found: Floats = np.sqrt(np.nansum(dense * dense, axis=1))
        found[np.isnan(dense).all(axis=1)] = np.nan
        return found

    # --- what it means -----------------------------------------------------------------------------

    @cached_property
    def left(self) -> Floats:
        """What is left of the gradient at the last step, as a part of it, 0, 1, 2 ... steps before: (steps,). NaN where
        there is none.
        """
        chain, rows = self.chain, self._carried_rows
        back, end = np.zeros(len(rows), int), rows.copy()  # of each row: how far its sequence's last is, and that
        for step in reversed(chain.steps):
            before = chain.previous[step]
            later = before >= 0
            back[before[later]], end[before[later]] = back[step][later] + 1, end[step][later]
        squares, all_of_it = np.bincount(back, rows**2), np.bincount(back, end**2)
        parts: Floats = np.divide(squares, all_of_it, out=np.full(len(squares), np.nan), where=all_of_it > 0)
        return np.sqrt(parts)

    @property
    def distance(self) -> int:
        """The steps between the first and the last of the longest sequence."""
        return len(self.left) - 1

    @property
    def arrives(self) -> float:
        """What arrives at the first step of the gradient at the last one, as a part of it. NaN where there is none."""
        return float(self.left[-1])

    @property
    def reach(self) -> int:
        """How many steps before the last one at least 1 % of its gradient is left."""
        lost = np.flatnonzero(~(self.left >= VANISHES))
        return max(0, int(lost[0]) - 1) if len(lost) else self.distance

    @property
    def state(self) -> str:
        """ "vanishes", "explodes", "holds", or "none" where no gradient comes to the last step."""
        if math.isnan(self.arrives) or not self.distance:
            return "none"
        return "vanishes" if self.arrives < VANISHES else "explodes" if self.arrives > EXPLODES else "holds"

    def verdict(self) -> str:
        """One sentence: whether the gradient vanishes or explodes on its way, and what helps.

        It goes by `left`: where less than 1 % of the gradient at the last step arrives at the first one, it vanishes,
        where it has grown to more than 100 times, it explodes. Where a step leaves less than nine tenths of it, it
        fades, and where all of them leave less than a tenth, it fades slowly: it would vanish over more steps. What
        helps goes by the layer: whether W_hh is orthogonal, how steep f is, how open f or z are.
        """
        return verdicts.sentence(self)

    # --- shown -------------------------------------------------------------------------------------

    def columns(self) -> dict[str, Floats]:
        """What there is to show of each step, (T,) by name; what the Jacobians tell only where that takes no time."""
        found = {"|dL/dh|": self.states}
        if self.cells is not None:
            found["|dL/dc|"] = self.cells
        if not np.allclose(self.carried, self.states, rtol=1e-3, equal_nan=True):
            found["carried"] = self.carried
        N, S = self.chain.before.shape
        at_once = N * S**3 <= AT_ONCE
        if self.bound_by == "weights" or at_once:
            found["bound"] = self.bound
        if self.bound_by == "weights":
            found["step"] = _mean(self.step_bounds)
        if at_once:
            found["|J|"], found["radius"] = _mean(self.norms), _mean(self.radii)
        return found

    def __str__(self) -> str:
        columns = self.columns()
        bars = text.bars(self.states)
        lines = [self.verdict(), "  ".join([f"{'t':>5}", *(f"{name:>9}" for name in columns)])]
        for t in text.picked(self.T, 24):
            numbers = [f"{values[t]:>9.3g}" for values in columns.values()]
            lines.append("  ".join([f"{t:>5}", *numbers, bars[t]]).rstrip())
        return "\n".join([*lines, f"  {self.legend()}"])

    __repr__ = __str__

    @property
    def T(self) -> int:
        """The number of steps."""
        return self.chain.T

    def legend(self) -> str:
        """What the columns mean, and what is left out."""
        columns = self.columns()
        by = "step" if self.bound_by == "weights" else "|J|"
        says = {
            "carried": "of the gradient at the last step alone, by which the verdict goes",
            "bound": f"what |dL/dh| can be at most, by {by}",
            "step": "||W_hh|| max|f'|",
            "|J|": "the norm of the step's Jacobian",
            "radius": "its spectral radius",
        }
        found = [f"{name}: {what}" for name, what in says.items() if name in columns] + ["bars: |dL/dh|, logarithmic"]
        some, count = verdicts.longest(self)
        if some < count:
            found.append("norms are of all sequences, the verdict of the longest")
        if "|J|" not in columns:
            found.append("norms, radii and jacobians would take a while: they are computed when asked for")
        return "; ".join(found)


class Flow(Sequence[LayerFlow]):
    """The flow of the gradient through some layers: a `LayerFlow` for each direction of each, as the rows of h_n stand.

    `flow[0]` or `flow["l0_reverse"]` is one of them; `print(flow)` shows all, `flow.plot()` draws them.
    """

    def __init__(self, layers: Sequence[LayerFlow]) -> None:
        self.layers = list(layers)

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, at: int | str) -> LayerFlow: ...
    @overload
    def __getitem__(self, at: slice) -> Flow: ...
    def __getitem__(self, at: int | str | slice) -> LayerFlow | Flow:
        if isinstance(at, slice):
            return Flow(self.layers[at])
        return self.layers[at] if not isinstance(at, str) else text.named(self.layers, at)

    def verdict(self) -> str:
        """A sentence for each of the layers, on whether the gradient vanishes or explodes there, and what helps."""
        return "\n".join(layer.verdict() for layer in self)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))

    __repr__ = __str__

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """A figure of matplotlib with a row for each layer: |dL/dh_t| below its bound, and the step Jacobians. Saved as
        `path` if one is given. Raises ImportError, with what to install, where matplotlib is missing.
        """
        return pictures.picture(pictures.draw_flow, self, path, (10, 1 + 3 * len(self)))

    def _repr_html_(self) -> str:
        return "".join(text.table(x.verdict(), x.columns(), "|dL/dh|", x.legend()) for x in self)


def gradient_flow(
    layer: Any,
    x: Any,
    loss: Callable[[Tensor], Tensor],
    hx: Any = None,
    *,
    lengths: Any = None,
    embedding: Any = None,
) -> Flow:
    """How the gradient of `loss(output)` flows back through the steps of a recurrent layer: |dL/dh_t| for each t.

    `layer` is an RNN, LSTM or GRU, with any options, or a cell, which is run over x (T, B, I) or (T, I). It is called
    with `x`, `hx`, `lengths` and `embedding`, and what `loss` makes of its `output`, a cell's h_0 ... h_{T-1} one above
    the other, is a scalar. No `.grad` is touched. For a loss of anything else, or of a whole model, look on:

        with tr.explain.watch() as seen:
            loss = criterion(model(x), y)
        flow = seen.gradient_flow(loss)          # before loss.backward(), which frees the graph

    Raises ShapeError for a loss that is no scalar, RuntimeError for a layer whose weights are all frozen.

    >>> import tinygrad_rnn as tr
    >>> tr.manual_seed(0)
    >>> rnn = tr.nn.RNN(3, 4)
    >>> flow = tr.explain.gradient_flow(rnn, tr.randn(6, 2, 3), lambda output: tr.square(output[-1]).sum())
    >>> flow[0].dh.shape
    (6, 2, 4)
    >>> bool((flow[0].states <= flow[0].bound).all())
    True
    """
    if not callable(loss):
        raise TypeError(
            "gradient_flow: loss must be a function of the output, such as lambda output: output[-1].sum(), not a "
            f"{type(loss).__name__}; for a loss that is computed: with tr.explain.watch() as seen: ..., then "
            "seen.gradient_flow(loss)"
        )
    with record(), looking() as seen:
        output = run_layer("gradient_flow", layer, x, hx, lengths, embedding)
        value = loss(output)
    return flow_of(seen, value, layer)


def flow_of(seen: Watch, loss: Tensor, layer: Any = None) -> Flow:
    """The flow of the gradient of `loss` through what was watched, or through one `layer` of it."""
    if not isinstance(loss, Tensor) or loss.size != 1:
        got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ShapeError(f"gradient_flow: the loss must be a scalar tensor, got {got}")
    return Flow([LayerFlow(chain, loss) for chain in chains(seen, layer)])


def _lengths(rows: Floats) -> Floats:
    """The norm of each row."""
    found: Floats = np.linalg.norm(rows, axis=-1)
    return found


def _mean(dense: Floats) -> Floats:
    """The mean over the sequences that have a step: NaN where none has."""
    there = ~np.isnan(dense)
    count = there.sum(axis=1)
    return np.where(count > 0, np.where(there, dense, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
