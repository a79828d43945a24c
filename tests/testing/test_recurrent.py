"""check_recurrent lets right layers pass, and refuses wrong ones by the law that they break."""

from __future__ import annotations

import re
import sys
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn import nn
from tinygrad_rnn.tensor.random import generator
from tinygrad_rnn.testing import LawError, check_recurrent
from tinygrad_rnn.testing.calls import leaves_of
from tinygrad_rnn.testing.recurrent import check_case
from tinygrad_rnn.testing.strategies import configurations, sequences
from tinygrad_rnn.testing.subject import LONG, Configuration, Sequences
from tinygrad_rnn.testing.values import RandomChoose

# --- right ones ---------------------------------------------------------------------------------------------


def weights(module: Any, **shapes: tuple[int, ...]) -> None:
    """Parameters of a module by name, drawn from U(-0.5, 0.5)."""
    for name, shape in shapes.items():
        setattr(module, name, nn.Parameter(tr.rand(*shape) - 0.5))


class PeepholeLSTM(nn.Module):
    """A cell of Gers and Schmidhuber (2000), as somebody may write it: no input_size, no hidden_size."""

    def __init__(self, inputs: int, hidden: int) -> None:
        weights(self, W=(4 * hidden, inputs), U=(4 * hidden, hidden), b=(4 * hidden,), p=(3, hidden))
        self.p.assign_(np.zeros((3, hidden), "float32"))

    def forward(self, x: tr.Tensor, hx: Any = None) -> tuple[tr.Tensor, tr.Tensor]:
        if hx is None:
            zeros = tr.zeros(x.shape[0], self.U.shape[1], dtype=x.dtype)
            hx = zeros, zeros
        h, c = hx
        i, f, u, o = tr.split(x @ self.W.T + h @ self.U.T + self.b, 4, axis=-1)
        c = tr.sigmoid(f + self.p[0] * c) * c + tr.sigmoid(i + self.p[1] * c) * tr.tanh(u)
        return self.last(o, c), c

    def last(self, o: tr.Tensor, c: tr.Tensor) -> tr.Tensor:
        return tr.sigmoid(o + self.p[2] * c) * tr.tanh(c)


class Elman(nn.Module):
    """A plain layer with everything that the kit looks at, in ordinary ops; its parts are there to be sabotaged."""

    def __init__(self, inputs: int = 3, hidden: int = 4, bidirectional: bool = False) -> None:
        self.bidirectional = bidirectional
        for tail in ("", "_reverse") if bidirectional else ("",):
            shapes = {"weight_ih": (hidden, inputs), "weight_hh": (hidden, hidden), "bias": (hidden,)}
            weights(self, **{name + tail: shape for name, shape in shapes.items()})

    def forward(self, x: tr.Tensor, hx: Any = None, lengths: Any = None) -> tuple[tr.Tensor, tr.Tensor]:
        T, B, _ = x.shape
        D = 2 if self.bidirectional else 1
        hx = tr.zeros(D, B, self.weight_hh.shape[0], dtype=x.dtype) if hx is None else hx
        mask = np.arange(T)[:, None, None] < np.reshape([T] * B if lengths is None else lengths, (B, 1))
        x, outputs, states = tr.where(mask, x, 0.0), [], []
        for d in range(D):
            self.tail = "_reverse" if d else ""
            turn = self.turned if d else lambda v, mask: v
            y, h = self.run(turn(x, mask), self.start(hx[d]), mask)
            outputs.append(turn(self.padded(mask, y), mask))
            states.append(h)
        return tr.concatenate(outputs, axis=-1), tr.stack(states)

    def of(self, name: str) -> Any:
        return getattr(self, name + self.tail)

    def turned(self, x: tr.Tensor, mask: Any) -> tr.Tensor:
        """Each sequence backwards, from its own last step on."""
        T, B = x.shape[:2]
        ends = mask.sum(0)[:, 0]
        steps = np.array([[n - 1 - t if t < n else t for n in ends] for t in range(T)])
        return x[steps, np.arange(B)]

    def run(self, x: tr.Tensor, h: tr.Tensor, mask: Any) -> tuple[tr.Tensor, tr.Tensor]:
        outputs = []
        for t in range(x.shape[0]):
            new = self.step(x, h, t)
            h = self.masked(mask[t], new, h)
            outputs.append(new)
        return tr.stack(outputs), h

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return tr.tanh(x[t] @ self.of("weight_ih").T + h @ self.of("weight_hh").T + self.of("bias"))

    def start(self, h: tr.Tensor) -> tr.Tensor:
        return h

    def masked(self, mask: Any, new: tr.Tensor, h: tr.Tensor) -> tr.Tensor:
        return tr.where(mask, new, h)

    def padded(self, mask: Any, y: tr.Tensor) -> tr.Tensor:
        return tr.where(mask, y, 0.0)


ALWAYS = {"shape", "dtype", "repeats", "no mutation", "no aliasing", "gradient", "per-step gradients", "zero"}
ALWAYS |= {"batch permutation", "batch of singles", "float32", "second derivative", "frozen", "modes"}
FORWARD = {"causality", "chunking", "truncation"}


def test_a_cell_of_ones_own() -> None:
    laws = check_recurrent(lambda: PeepholeLSTM(3, 4), examples=10)
    assert set(laws) == ALWAYS | FORWARD | {"unbatched", "empty"}


def test_a_layer_of_ones_own() -> None:
    assert set(check_recurrent(Elman, examples=10)) == ALWAYS | FORWARD | {"lengths", "padding", "empty"}
    laws = check_recurrent(lambda: Elman(bidirectional=True), examples=10)
    assert set(laws) == ALWAYS | {"reversal", "lengths", "padding", "empty"}


def test_a_state_that_must_be_given_of_a_shape_of_its_own() -> None:
    class Needs(PeepholeLSTM):
        def forward(self, x: tr.Tensor, hx: Any) -> Any:  # type: ignore[override]
            return super().forward(x, hx)

    class Layer(nn.Module):
        batch_first = True

        def __init__(self) -> None:
            self.cell = nn.GRUCell(2, 3)

        def forward(self, x: tr.Tensor, state: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
            hs = []
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
                hs.append(state)
            return tr.stack(hs, axis=1), state

    assert set(check_recurrent(lambda: Needs(3, 4), examples=1)) >= ALWAYS | FORWARD
    assert set(check_recurrent(Layer, examples=1)) >= ALWAYS | FORWARD | {"fused = plain"}


def test_a_layer_without_a_state_and_one_without_parameters() -> None:
    class Sum(nn.Module):
        def forward(self, x: tr.Tensor) -> tuple[tr.Tensor, tr.Tensor]:
            y = tr.cumsum(x, axis=0)
            return y, y[-1]

    class Leaky(nn.Module):
        def forward(self, x: tr.Tensor, hx: Any = None) -> tr.Tensor:
            return x if hx is None else x + 0.5 * hx

    class Named(Leaky):
        """Its parameter is called as the input is."""

        def __init__(self) -> None:
            self.x = nn.Parameter(tr.rand(2))

        def forward(self, x: tr.Tensor, hx: Any = None) -> tr.Tensor:
            return super().forward(x * self.x, hx)

    laws = check_recurrent(Sum, examples=1, input_size=2)
    assert "causality" in laws and "chunking" not in laws
    for make in (Leaky, Named):
        assert set(check_recurrent(make, examples=1, input_size=2, cell=True)) >= ALWAYS | FORWARD


class Counting(nn.Module):
    """States of these kinds beside h: steps counted for each sequence or for all, what was positive, a slow average."""

    input_size = 3

    def __init__(self, nested: Callable[..., Any]) -> None:
        self.nested, self.cell, self.table = nested, nn.GRUCell(3, 4), {}

    def forward(self, x: tr.Tensor, hx: Any = None) -> tuple[tr.Tensor, Any]:
        B, outputs = x.shape[1], []
        zeros = tr.zeros(B, 4, dtype=x.dtype)
        start = zeros, tr.Tensor(np.zeros(B, int)), tr.Tensor(np.array(0)), tr.Tensor(np.zeros((B, 4), bool)), zeros
        h, n, all_steps, seen, slow = leaves_of(self.nested(*start) if hx is None else hx, lambda part: part)
        for t in range(x.shape[0]):
            n, all_steps, seen = n + 1, all_steps + 1, h > 0
            h = tr.checkpoint(self.cell, x[t], h) / (1 + 0.1 * tr.expand_dims(n, 1) + 0.1 * all_steps)
            h = h * self.table.setdefault(str(x.dtype), np.ones(4, x.dtype)) + 0.1 * tr.where(seen, slow, 0.0)
            slow = 0.9 * slow + h
            outputs.append(h)
        y = tr.stack(outputs) if outputs else tr.zeros(0, B, 4, dtype=x.dtype)
        return y, self.nested(h, n, all_steps, seen, slow)


@pytest.mark.parametrize(
    "nested",
    [
        lambda *parts: parts,
        lambda h, n, a, seen, slow: ((h, [n, a]), {"seen": seen, "slow": slow}),
        namedtuple("State", "h n all seen slow"),
    ],
)
def test_states_of_integers_and_of_several_parts_checkpoints_and_tables(nested: Any) -> None:
    laws = check_recurrent(lambda: Counting(nested), examples=2)
    assert set(laws) >= ALWAYS - {"per-step gradients"} | FORWARD  # what compares has no complex step


def test_where_the_complex_step_is_wrong_the_difference_judges() -> None:
    """abs is not analytic: the steps are then judged by the chunks, of one step where they are shortest."""

    class Rectified(PeepholeLSTM):
        def last(self, o: tr.Tensor, c: tr.Tensor) -> tr.Tensor:
            return tr.abs(o + 3) * tr.tanh(c)

    laws = check_recurrent(lambda: Rectified(2, 3), examples=2)
    assert laws["gradient"] and laws["truncation"] and not laws["per-step gradients"]


def test_weights_that_amplify_rounding_are_no_mistake() -> None:
    """Chaotic: over 40 steps the last bits grow to all there is. What rounding does is measured, not accused."""

    class Wild(Elman):
        def __init__(self) -> None:
            super().__init__()
            self.weight_hh.assign_(5 * self.weight_hh.numpy())

    check_recurrent(Wild, examples=3)


def test_what_is_neither_a_layer_nor_a_cell_is_told_the_protocol() -> None:
    with pytest.raises(TypeError, match=r"Linear was called as a layer, x \(T, B, I\) -> output, state"):
        check_recurrent(lambda: Two(nn.Linear(3, 4)), examples=1)


def test_a_layer_in_place_of_a_factory_is_told() -> None:
    for wrong in (nn.GRUCell(2, 3), lambda: 1):
        with pytest.raises(TypeError, match=r"takes a function that makes a Module: lambda: MyLayer\(3, 4\)"):
            check_recurrent(wrong)  # type: ignore[arg-type]


def test_without_hypothesis_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        check_recurrent(Elman)


class Two(nn.Module):
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        type(self).__name__ = type(inner).__name__

    def forward(self, x: Any, hx: Any = None) -> Any:
        return [1.0]


# --- wrong ones ---------------------------------------------------------------------------------------------


def op(*vjps: Any, joint: Any = None) -> Any:
    return tr.op(*vjps, joint=joint)


def cut(after: int) -> type[Elman]:
    """The gradient ends at one step of the sequence."""

    class Cut(Elman):
        def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
            return super().step(x, h.detach() + 0 * h if t == after else h, t)

    return Cut


class LastSteps(Elman):
    """Only the last 15 steps are gone back through."""

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h.detach() if t == x.shape[0] - 15 else h, t)


class Detached(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h.detach() if t else h, t)


class StartDetached(Elman):
    def start(self, h: tr.Tensor) -> tr.Tensor:
        return h.detach()


def recurrent_step(vjp_h: Any, vjp_w: Any) -> type[Elman]:
    """tanh(x + h Wᵀ) as one op with derivatives of one's own."""

    @op(lambda g, y: g * (1 - y * y), vjp_h, vjp_w)
    def step(x: Any, h: Any, W: Any) -> Any:
        return np.tanh(x + h @ W.T)

    class OwnStep(Elman):
        def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
            return step(x[t] @ self.of("weight_ih").T + self.of("bias"), h, self.of("weight_hh"))

    return OwnStep


def back(g: Any, y: Any) -> Any:
    return g * (1 - y * y)


class LastWeight(Elman):
    """The recurrent weights hear of the last step only."""

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        W = self.weight_hh if t == x.shape[0] - 1 else self.weight_hh.detach()
        return tr.tanh(x[t] @ self.weight_ih.T + h @ W.T + self.bias)


@op(lambda g: g, lambda g: tr.mean(g, axis=0))
def add_mean(x: Any, b: Any) -> Any:
    return x + b


class BiasMean(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return tr.tanh(add_mean(x[t] @ self.weight_ih.T + h @ self.weight_hh.T, self.bias))


class Leaking(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h + 1e-3 * tr.mean(h, axis=0), t)


class NextRow(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h + 1e-3 * tr.concatenate([h[1:], h[:1]]), t)


class LooksAhead(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        ahead = min(t + 1, x.shape[0] - 1)
        return super().step(x + 1e-3 * x[ahead], h, t)


class OneLate(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h, t - 1)


class Reset(Elman):
    def start(self, h: tr.Tensor) -> tr.Tensor:
        return 0 * h


class SomewhatReset(Elman):
    def start(self, h: tr.Tensor) -> tr.Tensor:
        return 0.999 * h


@op(None, lambda g: g, lambda g: g)
def where_without_mask(mask: Any, a: Any, b: Any) -> Any:
    return np.where(mask, a, b)


class MaskIgnored(Elman):
    def masked(self, mask: Any, new: tr.Tensor, h: tr.Tensor) -> tr.Tensor:
        return where_without_mask(mask, new, h)


class Unpadded(Elman):
    def padded(self, mask: Any, y: tr.Tensor) -> tr.Tensor:
        return y


class LastOfAll(Elman):
    def masked(self, mask: Any, new: tr.Tensor, h: tr.Tensor) -> tr.Tensor:
        return new


class ReadsPadding(Elman):
    def forward(self, x: tr.Tensor, hx: Any = None, lengths: Any = None) -> Any:
        y, h = super().forward(x, hx, lengths)
        return y + 0 * tr.sum(x), h


def both_ways(turned: Callable[[tr.Tensor, Any], tr.Tensor]) -> Callable[[], Elman]:
    """A bidirectional layer whose backward direction sees the sequences in an order of one's own."""

    class Turned(Elman):
        def turned(self, x: tr.Tensor, mask: Any) -> tr.Tensor:
            return turned(x, mask)

    return lambda: Turned(bidirectional=True)


class NotTurnedBack(Elman):
    def __init__(self) -> None:
        super().__init__(bidirectional=True)

    def padded(self, mask: Any, y: tr.Tensor) -> tr.Tensor:
        return super().padded(mask, self.turned(y, mask) if self.tail else y)


class SameWeights(Elman):
    """The backward direction runs with the forward direction's weights."""

    def __init__(self) -> None:
        super().__init__(bidirectional=True)

    def of(self, name: str) -> Any:
        return getattr(self, name) + 0 * getattr(self, name + "_reverse")


class Keeps(Elman):
    """The state stays in the layer."""

    kept = 0.0

    def run(self, x: tr.Tensor, h: tr.Tensor, mask: Any) -> Any:
        y, last = super().run(x, h + 1e-3 * self.kept, mask)
        self.kept = float(last.detach().numpy().real.sum())
        return y, last


class DrawsInEval(Elman):
    def run(self, x: tr.Tensor, h: tr.Tensor, mask: Any) -> Any:
        return super().run(nn.functional.dropout(x, 0.5), h, mask)


class Reuses(Elman):
    """All runs of a shape write their output into one buffer."""

    def forward(self, x: tr.Tensor, hx: Any = None, lengths: Any = None) -> Any:
        y, h = super().forward(x, hx, lengths)
        self.buffers_of_mine = getattr(self, "buffers_of_mine", {})
        buffer = self.buffers_of_mine.setdefault((y.shape, y.dtype), np.empty(y.shape, y.dtype))
        np.copyto(buffer, y._array)
        y._array = buffer
        return y, h


class WritesInput(Elman):
    def forward(self, x: tr.Tensor, hx: Any = None, lengths: Any = None) -> Any:
        x._array[...] = np.clip(x._array, -1, 1)
        return super().forward(x, hx, lengths)


class WritesWeights(Elman):
    """Clips its weights at every call: a constraint that belongs into the training loop."""

    def forward(self, x: tr.Tensor, hx: Any = None, lengths: Any = None) -> Any:
        if x.dtype.kind == "f":
            self.weight_hh.assign_(0.999 * self.weight_hh.numpy())
        return super().forward(x, hx, lengths)


class Wide(Elman):
    """A constant array of float64 widens whatever meets it."""

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h, t) * tr.Tensor(np.full(4, 0.5))


class Narrow(Elman):
    """Computes in float32, whatever it is given."""

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        y = super().step(x, h, t)
        return y.to("float32").to("float64") if y.dtype == np.float64 else y


class Half(Elman):
    """Computes in float16, except in float64."""

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        y = super().step(x, h, t)
        return y.to("float16").to("float32") if y.dtype == np.float32 else y


def tanh_with(vjp: Any) -> type[Elman]:
    """tanh with a derivative of one's own."""
    tanh = op(vjp)(lambda x: np.tanh(x))

    class Own(Elman):
        def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
            return tanh(x[t] @ self.weight_ih.T + h @ self.weight_hh.T + self.bias)

    return Own


class CutInTraining(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h.detach() if self.training and t == 2 else h, t)


class CutOftenInTraining(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h.detach() if self.training and t % 64 == 63 else h, t)


class CutOften(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h.detach() if t % 64 == 63 else h, t)


class Reads50(Elman):
    def forward(self, x: tr.Tensor, hx: Any = None, lengths: Any = None) -> Any:
        return super().forward(x[:50], hx, lengths)


class FrozenStops(Elman):
    """Where one weight is frozen another gets no gradient."""

    def of(self, name: str) -> Any:
        weight = getattr(self, name)
        return weight.detach() if name == "weight_hh" and not self.weight_ih.requires_grad else weight


@op(lambda g, y: g * (1 - y * (y.detach() if isinstance(y, tr.Tensor) else y)))
def stashed_tanh(x: Any) -> Any:
    return np.tanh(x)


class Stashed(Elman):
    """The first derivative is right; a part of it is a constant to the second."""

    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return stashed_tanh(x[t] @ self.weight_ih.T + h @ self.weight_hh.T + self.bias)


@op(lambda g, y: tr.where(g == 0, 1e-9, g) * (1 - y * y))
def restless_tanh(x: Any) -> Any:
    return np.tanh(x)


class Restless(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return restless_tanh(x[t] @ self.weight_ih.T + h @ self.weight_hh.T + self.bias)


def mask_of(x: Any) -> Any:
    return 2.0 * (generator().random(x.shape) >= 0.5)


@op(lambda g: g * mask_of(g))
def dropped_again(x: Any) -> Any:
    return x * mask_of(x)


class DropsAgain(Elman):
    def padded(self, mask: Any, y: tr.Tensor) -> tr.Tensor:
        return super().padded(mask, dropped_again(y) if self.training else y)


class OwnDropout(Elman):
    """Draws from a generator that no seed reaches."""

    def padded(self, mask: Any, y: tr.Tensor) -> tr.Tensor:
        drawn = np.random.default_rng().random(y.shape) if self.training else 1.0
        return super().padded(mask, y * drawn)


class Kernel(nn.LSTM):
    """The fused step differs from the plain one."""

    def forward(self, x: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        y, state = super().forward(x, hx, lengths=lengths)
        return (y * (1 + 1e-8) if self.fused else y), state


class Unbatched(nn.GRU):
    """One sequence alone is run backwards."""

    def forward(self, x: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        return super().forward(tr.flip(x, 0) if x.ndim == 2 else x, hx, lengths=lengths)


class NoSteps(nn.GRU):
    """Without steps the state is forgotten."""

    def forward(self, x: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        y, h = super().forward(x, hx, lengths=lengths)
        return y, h if x.shape[0] else 0 * h


class Exchanged(nn.LSTM):
    """Returns c, h."""

    def forward(self, x: Any, hx: Any = None, *, lengths: Any = None) -> Any:
        y, (h, c) = super().forward(x, hx, lengths=lengths)
        return y, (c, h)


class RowNumber(Elman):
    def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
        return super().step(x, h + 1e-3 * np.arange(h.shape[0], dtype=h.dtype)[:, None], t)


def cell(step: Callable[..., tuple[tr.Tensor, tr.Tensor]]) -> Callable[[], nn.Module]:
    """An LSTM cell whose pointwise part is `step(i, f, u, o, c)`."""

    class Cell(PeepholeLSTM):
        def forward(self, x: tr.Tensor, hx: Any = None) -> Any:
            if hx is None:
                zeros = tr.zeros(x.shape[0], self.U.shape[1], dtype=x.dtype)
                hx = zeros, zeros
            gates = tr.split(x @ self.W.T + hx[0] @ self.U.T + self.b, 4, axis=-1)
            return step(*gates, hx[1])

    return lambda: Cell(3, 4)


def sigmoid(v: Any) -> Any:
    return 0.5 * tr.tanh(0.5 * v) + 0.5


@op(
    joint=lambda g, i, f, u, c: (
        g * c * sigmoid(f) * (1 - sigmoid(f)),  # of f, given to i
        g * tr.tanh(u) * sigmoid(i) * (1 - sigmoid(i)),
        g * sigmoid(i) * (1 - tr.tanh(u) * tr.tanh(u)),
        g * sigmoid(f),
    )
)
def gates_swapped(i: Any, f: Any, u: Any, c: Any) -> Any:
    s = lambda v: 0.5 * np.tanh(0.5 * v) + 0.5
    return s(f) * c + s(i) * np.tanh(u)


def swapped(i: Any, f: Any, u: Any, o: Any, c: Any) -> Any:
    c = gates_swapped(i, f, u, c)
    return sigmoid(o) * tr.tanh(c), c


def no_c_path(i: Any, f: Any, u: Any, o: Any, c: Any) -> Any:
    c = sigmoid(f) * c.detach() + sigmoid(i) * tr.tanh(u)
    return sigmoid(o) * tr.tanh(c), c


def no_forget_gradient(i: Any, f: Any, u: Any, o: Any, c: Any) -> Any:
    c = sigmoid(f).detach() * c + sigmoid(i) * tr.tanh(u)
    return sigmoid(o) * tr.tanh(c), c


def transposed_weight(g: Any, y: Any, W: Any) -> Any:
    return back(g, y) @ W.mT


WRONG: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "cut after 15 of 40 steps": (cut(15), "per-step gradients"),
    "cut after 25 of 40 steps": (cut(25), "per-step gradients"),
    "cut after the first step": (cut(1), "gradient"),
    "the last 15 steps only": (LastSteps, "per-step gradients"),
    "state detached between steps": (Detached, "gradient"),
    "initial state detached": (StartDetached, "gradient"),
    "h_t for h_{t-1}": (recurrent_step(lambda g, y, W: back(g, y) @ W, lambda g, y: back(g, y).mT @ y), "gradient"),
    "W for its transpose": (recurrent_step(transposed_weight, lambda g, y, h: back(g, y).mT @ h), "gradient"),
    "derivative of the pre-activation": (
        recurrent_step(lambda g, W: g @ W, lambda g, y, h: back(g, y).mT @ h),
        "gradient",
    ),
    "weights of the last step only": (LastWeight, "gradient"),
    "bias gradient a mean": (BiasMean, "gradient"),
    "gates swapped in backward": (cell(swapped), "gradient"),
    "c-path omitted": (cell(no_c_path), "gradient"),
    "forget gate without a gradient": (cell(no_forget_gradient), "gradient"),
    "second derivative of a stash": (Stashed, "second derivative"),
    "mask ignored in backward": (MaskIgnored, "gradient"),
    "nothing where it saturates": (
        tanh_with(lambda g, y: g * tr.where(tr.abs(y) > 0.999, 0.0, 1 - y * y)),
        "gradient",
    ),
    "second derivative out of the tensors": (
        tanh_with(lambda g, y: g * (1 - (y._array if isinstance(y, tr.Tensor) else y) ** 2)),
        "second derivative",
    ),
    "second derivative that cannot be taken": (
        tanh_with(lambda g, y: g * (1 - np.square(y))),
        "second derivative",
    ),
    "cut in training alone": (CutInTraining, "modes"),
    "cut every 64 steps in training alone": (CutOftenInTraining, "modes"),
    "cut every 64 steps": (CutOften, "per-step gradients"),
    "no more than 50 steps": (Reads50, "shape"),
    "a frozen weight stops another": (FrozenStops, "frozen"),
    "gradient for a cotangent of 0": (Restless, "zero"),
    "rows leak": (Leaking, "batch of singles"),
    "rows see the next": (NextRow, "batch of singles"),
    "rows are numbered": (RowNumber, "batch permutation"),
    "looks one step ahead": (LooksAhead, "causality"),
    "one step late": (OneLate, "causality"),
    "initial state ignored": (Reset, "chunking"),
    "initial state a thousandth too small": (SomewhatReset, "chunking"),
    "h and c exchanged": (lambda: Exchanged(3, 4), "chunking"),
    "output past the ends": (Unpadded, "padding"),
    "NaN past the ends": (ReadsPadding, "padding"),
    "last state at T": (LastOfAll, "lengths"),
    "turned at T, not at the lengths": (both_ways(lambda x, mask: tr.flip(x, 0)), "lengths"),
    "both directions forwards": (both_ways(lambda x, mask: x), "reversal"),
    "not turned back": (NotTurnedBack, "reversal"),
    "one direction's weights for both": (SameWeights, "reversal"),
    "state kept between calls": (Keeps, "repeats"),
    "dropout in eval mode": (DrawsInEval, "repeats"),
    "dropout drawn again in backward": (DropsAgain, "gradient"),
    "dropout that no seed reaches": (OwnDropout, "dropout"),
    "one buffer for all outputs": (Reuses, "no aliasing"),
    "writes to its input": (WritesInput, "no mutation"),
    "writes to its weights": (WritesWeights, "repeats"),
    "float32 becomes float64": (Wide, "dtype"),
    "float64 computed in float32": (Narrow, "kink"),
    "float32 computed in float16": (Half, "float32"),
    "kernel differs": (lambda: Kernel(3, 4), "fused = plain"),
    "without a batch, backwards": (lambda: Unbatched(3, 4), "unbatched"),
    "without steps, no state": (lambda: NoSteps(3, 4), "empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_the_law_that_it_breaks(name: str) -> None:
    factory, law = WRONG[name]
    with pytest.raises(LawError) as caught:
        check_recurrent(factory, examples=1)
    assert caught.value.law == law, (caught.value.law, str(caught.value))
    assert "Sequences(" in str(caught.value)


def test_the_message_says_where() -> None:
    with pytest.raises(LawError, match=r"gradient of x at step 24 of 40 .* is 0, and by the complex step -?\d\.\d+"):
        check_recurrent(cut(25), examples=1)

    class StepSeven(Elman):
        def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
            return super().step(x.detach() if t == 7 else x, h, t)

    with pytest.raises(LawError, match="gradient of x at step 7 of 40"):
        check_recurrent(StepSeven, examples=1)
    with pytest.raises(LawError, match=r"the gradient of bias, of shape \(4,\), is wrong"):
        check_recurrent(BiasMean, examples=1)
    with pytest.raises(LawError, match=r"one by one \(sequence 0\): output at step 0, sequence 0, entry \d is "):
        check_recurrent(Leaking, examples=1)


def test_hypothesis_shows_a_small_case() -> None:
    """The mistake needs five steps of three sequences: no fixed case has them."""

    class OnlyThen(Elman):
        def step(self, x: tr.Tensor, h: tr.Tensor, t: int) -> tr.Tensor:
            wrong = x.shape[0] >= 5 and x.shape[1] == 3 and t == 3
            return super().step(x, h.detach() if wrong else h, t)

    with pytest.raises(LawError) as caught:
        check_recurrent(OnlyThen, examples=300)
    assert re.search(r"Sequences\(T=[56], B=3", str(caught.value))


@given(configurations(), sequences(max_T=4))
@examples(dev=30, ci=50, thorough=200)
def test_the_strategies_draw_what_fits_together(configuration: Configuration, case: Sequences) -> None:
    layer = configuration.make()
    x = tr.ones(case.T, case.B, configuration.input_size, dtype=configuration.options["dtype"])
    if configuration.kind.endswith("Cell"):
        y = layer(tr.ones(case.B, configuration.input_size, dtype=x.dtype))
        y = y[0] if isinstance(y, tuple) else y
        assert y.shape == (case.B, configuration.hidden_size)
    else:
        y, _ = layer(tr.swapaxes(x, 0, 1) if layer.batch_first else x, lengths=case.lengths)
        D = 1 + layer.bidirectional
        shape = (case.B, case.T) if layer.batch_first else (case.T, case.B)
        assert y.shape == (*shape, D * configuration.hidden_size)
    assert y.dtype == x.dtype


def test_a_case_without_hypothesis() -> None:
    cases = [Sequences.sample(seed) for seed in range(200)]
    assert {c.T for c in cases} == {*range(7), LONG} and {c.B for c in cases} == {0, 1, 2, 3}
    assert any(c.lengths for c in cases) and not all(c.initial for c in cases)
    assert Sequences.draw(RandomChoose(5), 5) == Sequences.sample(5)
    for case in cases[:5]:
        check_case(Elman, case)
    laws = check_case(lambda: nn.LSTM(2, 3, num_layers=2, dropout=0.5), Sequences(T=4, B=2, pulled="state"))
    assert laws["dropout"] == laws["fused = plain"] == laws["unbatched"] == 1


def test_the_global_generator_is_left_alone() -> None:
    tr.manual_seed(3)
    expected = tr.rand(2).numpy()
    tr.manual_seed(3)
    check_case(lambda: nn.LSTM(2, 3, num_layers=2, dropout=0.5), Sequences(T=2, B=2))
    assert (tr.rand(2).numpy() == expected).all()
