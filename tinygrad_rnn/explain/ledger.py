"""The ledger of back-propagation through time: of which losses and uses of a weight its gradient is the sum."""

from __future__ import annotations

import html
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.errors import GraphFreedError, InputError, ShapeError
from tinygrad_rnn.explain import heat
from tinygrad_rnn.explain.terms import Key, Term, steps_of, terms
from tinygrad_rnn.tensor.graph import newest_first
from tinygrad_rnn.tensor.tensor import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

Losses = "Tensor | Sequence[Tensor] | Mapping[int, Tensor]"


@dataclass(frozen=True)
class Truncated:
    """What truncated BPTT keeps of a gradient, and what it cuts.

    `gradient` is the band of the ledger with t - k < k2, `cut` the rest, `angle` the one between the band and the whole
    in degrees (NaN if one of them is 0), `kept` the ratio of their norms.
    """

    k2: int
    gradient: NDArray[np.float64]
    cut: NDArray[np.float64]
    angle: float
    kept: float

    def __str__(self) -> str:
        return (
            f"tbptt(1, {self.k2}): {self.angle:.1f} degrees from the whole gradient, of {self.kept:.1%} of its length; "
            f"cut off is a gradient of norm {np.linalg.norm(self.cut):.3g}"
        )


class Ledger:
    """The table [loss of step t][use at step k] of the gradient of a weight; see `ledger`.

    `rows` are the steps of the losses, `columns` those of the uses; a column None holds what reached the weight outside
    of every step. `counted` is "step", or "use" where no watch has seen steps: then a column is the k-th use.

        ledger[t, k]      the entry, an array of the weight's shape in float64
        ledger.norms      (rows, columns), the norm of each entry
        ledger.total()    the sum of all entries: the gradient of the sum of the losses
        ledger.explicit(t), ledger.implicit(t)     the entry [t, t], and the sum of the others of row t
        ledger.truncated(k2)                       what tbptt(1, k2) keeps, and the angle between the two
    """

    def __init__(
        self,
        entries: Mapping[Key, Term],
        rows: Sequence[int],
        columns: Sequence[int | None],
        counted: str,
        shape: Any,
        one: bool = False,
    ) -> None:
        self._entries, self._one = entries, one
        self.rows, self.columns, self.counted, self.shape = list(rows), list(columns), counted, tuple(shape)

    def __getitem__(self, at: tuple[int, int | None]) -> NDArray[np.float64]:
        t, k = at
        if t not in self.rows or k not in self.columns:
            raise IndexError(
                f"ledger[{t}, {k}]: there are losses of steps {_listed(self.rows)} and uses at {_listed(self.columns)}"
            )
        term = self._entries.get((self.rows.index(t), k))
        return np.zeros(self.shape) if term is None else np.array(term.dense())

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """The norm of each entry, (rows, columns)."""
        norms = np.zeros((len(self.rows), len(self.columns)))
        for (i, k), term in self._entries.items():
            norms[i, self.columns.index(k)] = term.norm()
        return norms

    def total(self) -> NDArray[np.float64]:
        """The sum of all entries, which is the gradient."""
        return self._sum(list(self._entries))

    def row(self, t: int) -> NDArray[np.float64]:
        """The gradient of the loss of step t: the sum over the uses."""
        return self._sum([key for key in self._entries if self.rows[key[0]] == t])

    def column(self, k: int | None) -> NDArray[np.float64]:
        """What the use at step k contributes to the gradient of all losses."""
        return self._sum([key for key in self._entries if key[1] == k])

    def explicit(self, t: int) -> NDArray[np.float64]:
        """The term of loss t in which the weight acts at its own step, the earlier state taken for a constant."""
        return self[t, t]

    def implicit(self, t: int) -> NDArray[np.float64]:
        """The sum of the other terms of loss t, in which the weight acts through the state of other steps."""
        return self.row(t) - self.explicit(t)

    def truncated(self, k2: int) -> Truncated:
        """The gradient of `tbptt(1, k2)`: the band t - k < k2 of the table. Raises InputError for a k2 below 1."""
        if isinstance(k2, bool) or not isinstance(k2, int) or k2 < 1:
            raise InputError(f"ledger: k2 must be a whole number of at least 1, not {k2!r}")
        whole = self.total()
        band = self._sum([(i, k) for i, k in self._entries if k is None or self.rows[i] - k < k2])
        long, short = float(np.linalg.norm(whole)), float(np.linalg.norm(band))
        return Truncated(k2, band, whole - band, angle(whole, band), short / long if long else math.nan)

    def by_distance(self) -> NDArray[np.float64]:
        """The sum of the entries at each distance t - k = 0, 1, ...: (steps, ...), what has come back over that many.

        The first k2 of them add up to what tbptt(1, k2) keeps. A use after its loss, as a backward direction has it, is
        at the distance 0, and so is what reached the weight outside of every step.
        """
        keys: dict[int, list[Key]] = defaultdict(list)
        for i, k in self._entries:
            keys[0 if k is None else max(self.rows[i] - k, 0)].append((i, k))
        return np.stack([self._sum(keys[d]) for d in range(max(keys, default=0) + 1)])

    def _sum(self, keys: Sequence[Key]) -> NDArray[np.float64]:
        total = Term(self.shape)
        for key in keys:
            total.take(self._entries[key])
        found: NDArray[np.float64] = np.zeros(self.shape) + total.dense()
        return found

    # --- for people -------------------------------------------------------------------------------

    @property
    def note(self) -> str:
        """What a reader should know of the columns; "" if nothing."""
        notes = []
        if self.counted == "use" and len(self.columns) == 1 and len(self.rows) > 1:
            notes.append(
                "The weight is used once, for all steps: to tell them apart, run the forward inside "
                "`with tr.explain.watch():`."
            )
        if self._one and len(self.columns) > 1:
            notes.append(
                "The loss is taken for that of the last step: of a sum over steps, pass the losses one by one."
            )
        if any(k is not None and k > self.rows[i] for i, k in self._entries if self._entries[i, k].norm()):
            notes.append(
                f"A loss reaches later {self.counted}s than its own. That is right where something runs backwards; "
                "else these are not the losses of these steps: pass them in the order of time, or by step, {5: loss}."
            )
        if None in self.columns:
            notes.append("The column - is what reaches the weight outside of every step.")
        return "\n".join(notes)

    def _labels(self) -> tuple[list[str], list[str]]:
        return [str(t) for t in self.rows], ["-" if k is None else str(k) for k in self.columns]

    def __str__(self) -> str:
        rows, columns = self._labels()
        title = f"|dL_t/dW|, shape {self.shape}: row t the loss of step t, column k W at {self.counted} k"
        body = heat.table(self.norms, rows, columns, corner="t \\ k")
        return "\n".join(filter(None, [title, body, self.note]))

    def __repr__(self) -> str:
        return f"<Ledger of {len(self.rows)} losses and {len(self.columns)} {self.counted}s, weight {self.shape}>"

    def _repr_html_(self) -> str:
        rows, columns = self._labels()
        caption = f"|dL_t/dW| by the {self.counted} k at which W acts"
        return heat.as_html(self.norms, rows, columns, caption, "t \\ k") + html.escape(self.note)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The table as a heat map, on a figure of matplotlib, saved at `path` if that is given.

        Raises ImportError, with what to install, where matplotlib is missing.
        """
        rows, columns = self._labels()
        return heat.plot(
            self.norms,
            rows,
            columns,
            title="Of which terms the gradient is the sum",
            x_label=f"{self.counted} k at which the weight acts",
            y_label="loss of step t",
            path=path,
        )


def ledger(losses: Tensor | Sequence[Tensor] | Mapping[int, Tensor], parameter: Tensor) -> Ledger:
    """Take dL/dW apart: the table [loss of step t][use of W at step k].

    L is the sum of losses L_t, and W is used at each step. Entry [t][k] is the sum over all paths from W to L_t whose
    first step is k: as if the steps had weights of their own, and this were the derivative of L_t with respect to that
    of step k. On the diagonal stand the explicit terms of the textbooks, before it the implicit ones:

        dL_t/dW = sum_{k <= t} dL_t/dh_t (dh_t/dh_{t-1} ... dh_{k+1}/dh_k) d⁺h_k/dW

    (d⁺: with h_{k-1} held constant; Werbos, "Backpropagation through time: what it does and how to do it", 1990). The
    entries add up to what `backward` gives, to rounding.

    `losses` are scalars, one a step, in the order of time; a mapping gives their steps, as one loss of the last step
    alone needs it: `{T - 1: loss}`. One tensor by itself is taken for the loss of the last step. `parameter` is any
    tensor with a gradient: a weight, a bias, an embedding, an initial state.

    Which step a node belongs to is known where the forward ran inside `with tr.explain.watch():`. Else a step is what
    uses the weight once more, as in a loop that is written by hand. Where a batch has `lengths`, or a layer goes
    backwards, columns are the steps of the input all the same.

    The graph is kept, and `.grad` untouched. The cost is that of a backward for each loss through what lies before it;
    fused steps of small layers pull the gradients of all losses at once. Hooks are refused: they would meet the parts.

    Raises InputError if there is no loss, none depends on `parameter`, or there are fewer than steps and a mapping does
    not say of which they are; ShapeError for one that is no scalar; GraphFreedError after a backward.

    >>> import tinygrad_rnn as tr
    >>> w = tr.nn.Parameter(0.5)
    >>> h, losses = tr.Tensor(1.0), []
    >>> for t in range(3):
    ...     h = w * h
    ...     losses.append(h)
    >>> table = tr.explain.ledger(losses, w)  # h_t = w^(t+1): each of its t + 1 uses adds w^t
    >>> table.norms.tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.25]]
    >>> table.total().item() == tr.grad(losses[0] + losses[1] + losses[2], w).item()
    True
    >>> print(table.truncated(1))
    tbptt(1, 1): 0.0 degrees from the whole gradient, of 63.6% of its length; cut off is a gradient of norm 1
    """
    given = _given(losses)
    node = parameter._node if isinstance(parameter, Tensor) else None
    if node is None:
        raise InputError("ledger: the second argument is a tensor that requires a gradient, a weight say")
    nodes = [loss._node for loss in given.values()]
    try:
        order = newest_first([root for root in nodes if root is not None], inputs=[node])
    except GraphFreedError as error:
        raise GraphFreedError(
            "ledger: this graph was freed by a backward: ask for the ledger before it, or pass it retain_graph=True"
        ) from error
    if node not in order:
        raise InputError(f"ledger: no loss depends on this tensor of shape {node.shape}")
    if any(n.watch is not None and n.watch.hooks for n in order):
        raise InputError("ledger: a tensor of this graph has a hook, which would meet its gradient in parts: remove it")
    step_of, counted = steps_of(nodes, node)
    found = terms(nodes, node, step_of)
    used = {k for _, k in found}
    steps = sorted(k for k in used if k is not None)
    columns: list[int | None] = list(range(steps[0], steps[-1] + 1)) if steps else []
    one = isinstance(losses, Tensor) and losses.ndim == 0
    rows = steps[-1:] or [0] if one else list(given)
    if not one and not isinstance(losses, Mapping) and len(rows) < len(columns):
        raise InputError(_too_few(len(rows), len(columns), steps[-1], counted))
    return Ledger(found, rows, columns + ([None] if None in used else []), counted, node.shape, one)


def _too_few(losses: int, columns: int, last: int, counted: str) -> str:
    """The message for losses of which it is not known what steps they are of."""
    said = f"ledger: {losses} loss{'es' * (losses != 1)} for {columns} {counted}s"
    mark = (
        "; where a step uses the weight more than once, mark it: `with tr.explain.step(t):`" if counted == "use" else ""
    )
    return f"{said}: of which steps? Pass a mapping, {{{last}: loss}} for one of the last{mark}"


def angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The angle between two arrays in degrees; NaN if one of them is 0. By the tangent of its half, as a cosine has no
    digits for small angles.

    >>> angle(np.array([1.0, 0.0]), np.array([2.0, 2.0]))
    45.0
    """
    long, short = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not long or not short:
        return math.nan
    a, b = a / long, b / short
    return math.degrees(2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b))))


def _given(losses: Tensor | Sequence[Tensor] | Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The losses by their steps."""
    if isinstance(losses, Tensor):
        given = dict(enumerate(losses)) if losses.ndim else {0: losses}
    else:
        given = dict(losses) if isinstance(losses, Mapping) else dict(enumerate(losses))
    if not given:
        raise InputError("ledger: there is no loss")
    for t, loss in given.items():
        if not isinstance(loss, Tensor):
            raise InputError(
                f"ledger: the loss of step {t} is no tensor but {type(loss).__name__}: pass it as it is before .item()"
            )
        if loss.size != 1:
            raise ShapeError(f"ledger: the loss of step {t} has shape {loss.shape}, but a loss is a scalar: add it up")
    return given


def _listed(steps: Sequence[int | None]) -> str:
    numbers = [k for k in steps if k is not None]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, steps))
