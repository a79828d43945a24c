"""The gates of an LSTM or a GRU at every step, and the states, to be looked at."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.explain import pictures, text
from tinygrad_rnn.explain.chains import Chain, chains, run_layer
from tinygrad_rnn.explain.watch import Watch, looking
from tinygrad_rnn.tensor.mode import no_grad

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {"RNN": ("h",), "GRU": ("r", "z", "n", "h"), "LSTM": ("i", "f", "g", "o", "c", "h")}


class LayerGates:
    """The gates and states of one direction of one layer, or of a cell: arrays (T, B, H) by their names.

    An LSTM has i, f, g, o (after their nonlinearities), c and h, a GRU r, z, n and h, an RNN h alone. `gates[0].f` is
    the array; `names` are those there are. h and c are the states after each step. Past the end of a sequence they are
    NaN: there is no step.
    """

    def __init__(self, chain: Chain) -> None:
        self.title, self.kind, self.order = chain.title, chain.kind, list(chain.order)
        self.name = chain.place.name.removeprefix("_")
        self.names = SHOWN[chain.kind]
        found = chain.gates()
        self._arrays = {name: chain.dense(found[name]).astype(str(chain.dtype)) for name in self.names}

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["_arrays"][name]  # type: ignore[no-any-return]
        except KeyError:
            names = ", ".join(self.__dict__.get("names", ()))
            raise AttributeError(
                f"{self.__dict__.get('kind')}: there is no {name!r} among its gates, {names}"
            ) from None

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self.names])

    def means(self) -> dict[str, np.ndarray]:
        """The mean over sequences and units at each step, (T,) by name; of a state, c or h, that of its size."""
        found = {}
        for name in self.names:
            array = np.asarray(getattr(self, name), np.float64)
            array = array if name in pictures.IN_01 else np.abs(array)
            count = (~np.isnan(array)).sum(axis=(1, 2))
            found[name if name in pictures.IN_01 else f"|{name}|"] = np.where(
                count > 0, np.nansum(array, axis=(1, 2)) / np.maximum(count, 1), np.nan
            )
        return found

    def __str__(self) -> str:
        means = self.means()
        lines = [f"{self.title}: means over sequences and units", f"{'t':>5}" + "".join(f"{k:>8}" for k in means)]
        lines += [
            f"{t:>5}" + "".join(f"{v[t]:>8.3f}" for v in means.values()) for t in text.picked(len(means["|h|"]), 24)
        ]
        return "\n".join(lines)

    __repr__ = __str__


class Gates(Sequence[LayerGates]):
    """The gates of some layers: a `LayerGates` for each direction of each, as the rows of h_n stand.

    `gates[0]` or `gates["l0_reverse"]` is one of them; `print(gates)` shows means, `gates.plot(text)` draws them.
    """

    def __init__(self, layers: Sequence[LayerGates]) -> None:
        self.layers = list(layers)

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, at: int | str) -> LayerGates: ...
    @overload
    def __getitem__(self, at: slice) -> Gates: ...
    def __getitem__(self, at: int | str | slice) -> LayerGates | Gates:
        if isinstance(at, slice):
            return Gates(self.layers[at])
        return self.layers[at] if not isinstance(at, str) else text.named(self.layers, at)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))

    __repr__ = __str__

    def plot(
        self,
        labels: str | Sequence[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        sequence: int = 0,
        unit: int | None = None,
    ) -> Figure:
        """A figure of matplotlib of the gates over a sentence: a map for each gate, the steps from left to right, units
        from top to bottom; of one `unit` alone, curves. Saved as `path` if one is given.

        `labels` stand below the steps: a text, a character for each step, or a list, a token for each. `sequence` is
        the place in the batch. Raises ShapeError for another number of labels than the sequence has steps, ImportError,
        with what to install, where matplotlib is missing.
        """
        H = min(layer.h.shape[2] for layer in self)
        for what, index, count in (("sequence", sequence, self[0].h.shape[1]), ("unit", unit, H)):
            if index is not None and not -count <= index < count:
                raise IndexError(f"gates: {what} {index} of {count}")
        steps = int((~np.isnan(self[0].h[:, sequence, 0])).sum())
        tokens = [str(t) for t in range(steps)] if labels is None else [str(label) for label in labels]
        if len(tokens) < steps or len(tokens) > len(self[0].h):
            raise ShapeError(f"gates: {len(tokens)} labels for the {steps} steps of sequence {sequence}")
        rows = sum(len(layer.names) for layer in self) if unit is None else len(self)
        size = (max(6.0, min(24.0, 2 + 0.28 * steps)), 0.8 + (1.15 if unit is None else 2.4) * rows)
        return pictures.picture(
            pictures.draw_gates, self, path, size, tokens=tokens[:steps], sequence=sequence, unit=unit
        )

    def _repr_html_(self) -> str:
        legend = "means over sequences and units; of a state or a candidate, of its size"
        return "".join(text.table(x.title, x.means(), "|h|", legend) for x in self)


def gates(layer: Any, x: Any, hx: Any = None, *, lengths: Any = None, embedding: Any = None) -> Gates:
    """The gates and the states of a recurrent layer at every step of `x`: arrays (T, B, H).

    `layer` is an LSTM, a GRU or an RNN with any options, or a cell, which is run over x (T, B, I) or (T, I). It is
    called with `x`, `hx`, `lengths` and `embedding` in evaluation mode, without a graph, and stays as it is. Of a
    layer of a model that was watched they are `seen.gates()`. What it computes is in `lstm_cell` and `gru_cell`:

        LSTM   i, f, o = σ(...), g = tanh(...), c' = f c + i g, h' = o tanh(c')
        GRU    r, z = σ(...), n = tanh(...), h' = (1 - z) n + z h

    >>> import tinygrad_rnn as tr
    >>> tr.manual_seed(0)
    >>> lstm = tr.nn.LSTM(3, 4, forget_bias=2.0)
    >>> seen = tr.explain.gates(lstm, tr.randn(3, 1, 3))
    >>> seen[0].f.shape, bool((seen[0].f > 0.5).all())
    ((3, 1, 4), True)
    >>> print(seen)
    LSTM.l0: means over sequences and units
        t       i       f     |g|       o     |c|     |h|
        0   0.481   0.873   0.357   0.500   0.178   0.100
        1   0.527   0.872   0.513   0.469   0.399   0.188
        2   0.388   0.883   0.403   0.533   0.387   0.184
    """
    still = copy.copy(layer)
    vars(still)["training"] = False
    with no_grad(), looking() as seen:
        run_layer("gates", still, x, hx, lengths, embedding)
    return gates_of(seen)


def gates_of(seen: Watch, layer: Any = None) -> Gates:
    """The gates of what was watched, or of one `layer` of it."""
    return Gates([LayerGates(chain) for chain in chains(seen, layer)])
