"""One step of a recurrent network: the equations, as pure functions of the input, the state and the weights.

`rnn_cell`, `lstm_cell` and `gru_cell` are the equations. `rnn_step`, `lstm_step` and `gru_step` compute the same as one
node of the graph, with a kernel; what the kernel needs on its way back is part of the step's output. All of them take
the *projected* input, `x_t W_ihᵀ` and what bias goes with it: a layer projects a whole sequence at once. The steps with
layer normalisation and recurrent dropout are in `nn/recurrent_options.py`.

The modules `RNNCell`, `LSTMCell` and `GRUCell` add the weights, named and laid out as PyTorch does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from tinygrad_rnn.kernels import recurrent as kernels
from tinygrad_rnn.nn import init, recurrent_options
from tinygrad_rnn.nn.checks import check_input, check_pair, check_sizes, check_state
from tinygrad_rnn.nn.module import Module, Parameter
from tinygrad_rnn.nn.recurrent_options import NO_OPTIONS, make_norms, options_of
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import Array, namespace, zeros_beside
from tinygrad_rnn.tensor.fused import fused
from tinygrad_rnn.tensor.graph import Part
from tinygrad_rnn.tensor.op import op
from tinygrad_rnn.tensor.tensor import Tensor, box

NONLINEARITIES: dict[str, Callable[[Any], Tensor]] = {
    "tanh": ops.tanh,
    "relu": ops.relu,
    "sigmoid": ops.sigmoid,
}


# --- the equations --------------------------------------------------------------------------------


def rnn_cell(x: Tensor, h: Tensor, W: Tensor, *, nonlinearity: str = "tanh") -> Tensor:
    """One step of the network of Elman (1990): the new state h' (B, H).

        h' = f(x + h Wᵀ)

    f is tanh, relu or sigmoid; x (B, H) the projected input with both biases; h (B, H); W (H, H).

    >>> import tinygrad_rnn as tr
    >>> x, h, W = tr.zeros(1, 2), tr.Tensor([[1.0, 2.0]]), tr.Tensor([[0.0, 1.0], [1.0, 1.0]])
    >>> tr.nn.rnn_cell(x, h, W, nonlinearity="relu").tolist()
    [[2.0, 3.0]]
    """
    f = NONLINEARITIES[nonlinearity]
    return f(x + h @ W.T)


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the LSTM of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000):
    (h', c').

        i, f, g, o = x + h Wᵀ                    (four blocks of H, in this order)
        c' = σ(f) c + σ(i) tanh(g)
        h' = σ(o) tanh(c')

    x (B, 4H) is the projected input with both biases; h, c (B, H); W (4H, H).

    >>> import tinygrad_rnn as tr
    >>> h, c = tr.nn.lstm_cell(tr.zeros(1, 4), tr.zeros(1, 1), tr.ones(1, 1), tr.ones(4, 1))
    >>> c.tolist(), round(h.item(), 4)  # half of c is kept, half of its tanh is shown
    ([[0.5]], 0.2311)
    """
    i, f, g, o = ops.split(x + h @ W.T, 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    h = ops.sigmoid(o) * ops.tanh(c)
    return h, c


def gru_cell(x: Tensor, h: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """One step of the GRU of Cho et al. (2014), with the reset after the product as cuDNN and PyTorch have it: h'.

        r, z = σ(x_r + h W_rᵀ), σ(x_z + h W_zᵀ)
        n    = tanh(x_n + r (h W_nᵀ + b))
        h'   = (1 - z) n + z h

    x (B, 3H) is the projected input r, z, n with all biases but b (H,), which the reset gate scales; h (B, H);
    W (3H, H), whose blocks are W_r, W_z and W_n.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.gru_cell(tr.zeros(1, 3), tr.ones(1, 1), tr.zeros(3, 1)).tolist()  # z = 1/2, n = 0
    [[0.5]]
    """
    x_r, x_z, x_n = ops.split(x, 3, axis=-1)
    h_r, h_z, h_n = ops.split(h @ W.T, 3, axis=-1)
    if b is not None:
        h_n = h_n + b
    r, z = ops.sigmoid(x_r + h_r), ops.sigmoid(x_z + h_z)
    n = ops.tanh(x_n + r * h_n)
    return n + z * (h - n)  # (1 - z) n + z h


# --- the same as one node -------------------------------------------------------------------------


def _rnn_plain(
    x: Tensor, h: Tensor, W: Tensor, *, nonlinearity: str, t: int | None = None, runs: Array | None = None
) -> Tensor:
    """`rnn_cell` as one node. With `t`, x is a projected sequence (T, B, H) and its step t is taken. With `runs`
    (T, B, 1) the state of a sequence stays what it was at the steps where that is 0.
    """
    x = x if t is None else x[t]
    new = recurrent_options.rnn_with_options(NO_OPTIONS, x, h, W, NONLINEARITIES[nonlinearity])
    return new if runs is None else ops.where(runs[t, ...] > 0, new, h)


def _lstm_plain(x: Tensor, state: Tensor, W: Tensor, *, t: int | None = None, runs: Array | None = None) -> Tensor:
    """`lstm_cell` as one node: the rows i, f, o, g, h', c' (6, B, H), the gates after their nonlinearities.

    `state` is any array whose last two rows are h and c: (2, B, H) at the start, then the output of the step
    before. With `t`, x is a projected sequence (T, B, 4H) and its step t is taken. `runs` is as in the RNN's; the
    gates of what rests are 0.
    """
    x = x if t is None else x[t]
    rows = recurrent_options.lstm_with_options(NO_OPTIONS, x, state[-2], state[-1], W)
    return ops.stack(rows) if runs is None else _resting(rows, (state[-2], state[-1]), runs[t, ...])


def _gru_plain(
    x: Tensor, state: Tensor, W: Tensor, b: Tensor | None, *, t: int | None = None, runs: Array | None = None
) -> Tensor:
    """`gru_cell` as one node: the rows r, z, n, m = h W_nᵀ + b, h' (5, B, H).

    `state` is any array whose last row is h: (1, B, H) at the start, then the output of the step before. With
    `t`, x is a projected sequence (T, B, 3H) and its step t is taken. `runs` is as in the LSTM's.
    """
    x = x if t is None else x[t]
    rows = recurrent_options.gru_with_options(NO_OPTIONS, x, state[-1], W, b)
    return ops.stack(rows) if runs is None else _resting(rows, (state[-1],), runs[t, ...])


def _resting(rows: Sequence[Tensor], before: Sequence[Tensor], runs: Array) -> Tensor:
    """The rows of a step, where a sequence whose `runs` (B, 1) is 0 has gates of 0 and the states `before` it."""
    otherwise = [*[0.0] * (len(rows) - len(before)), *before]
    return ops.stack([ops.where(runs > 0, new, old) for new, old in zip(rows, otherwise, strict=True)])


rnn_step = fused("rnn_step", _rnn_plain, kernels.rnn_forward, kernels.rnn_vjp)
lstm_step = fused("lstm_step", _lstm_plain, kernels.lstm_forward, kernels.lstm_vjp)
gru_step = fused("gru_step", _gru_plain, kernels.gru_forward, kernels.gru_vjp)


@op(joint=lambda g, row: [Part(g[t, ...], (row, ...), basic=True) for t in range(g.shape[0])])
def stack_rows(*states: Array, row: int) -> Array:
    """Row `row` of each of T packed states (rows, B, H) as one array (T, B, H): what a layer outputs."""
    return namespace(*states).stack([state[row, ...] for state in states])


# --- the modules ----------------------------------------------------------------------------------


def make_weights(
    module: Module,
    tail: str,
    sizes: tuple[int, int, int],
    bias: bool,
    dtype: Any,
    device: str | None,
    generator: Any,
) -> None:
    """Give `module` the four arrays of one direction of one layer, drawn as PyTorch draws them: U(-1/√H, 1/√H)."""
    gates, inputs, H = sizes
    bound = 1 / math.sqrt(H)
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates * H, inputs), "weight_hh": (gates * H, H)}
    shapes |= {"bias_ih": (gates * H,), "bias_hh": (gates * H,)}
    for name, shape in shapes.items():
        value = None
        if bias or name.startswith("weight"):
            value = Parameter(init.uniform(shape, -bound, bound, generator=generator), dtype or "float32", device)
        setattr(module, name + tail, value)


def set_forget_bias(module: Module, tails: Iterable[str], value: float | None) -> None:
    """Call `init.forget_bias_` for each direction of each layer; None leaves the biases as drawn."""
    if value is None:
        return
    for tail in tails:
        b_ih, b_hh = getattr(module, "bias_ih" + tail), getattr(module, "bias_hh" + tail)
        if b_ih is None:
            raise ValueError(f"{type(module).__name__}: forget_bias needs bias=True")
        init.forget_bias_(b_ih, b_hh, value)


def zeros_for(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An initial state for input `x`: zeros of its dtype, on its device."""
    return box(zeros_beside(x._array, shape, x.dtype), None)


class _Cell(Module):
    """The base of the three cells: the weights, and the checks of the input and the state."""

    gates: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        fused: bool = True,
        layer_norm: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        input_size, hidden_size = check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.bias, self.fused, self.layer_norm = bool(bias), bool(fused), bool(layer_norm)
        self.weight_ih: Parameter
        self.weight_hh: Parameter
        self.bias_ih: Parameter | None
        self.bias_hh: Parameter | None
        make_weights(self, "", (self.gates, input_size, hidden_size), bias, dtype, device, generator)
        if layer_norm:
            make_norms(self, "", self.gates, hidden_size, dtype, device)

    def extra_repr(self) -> str:
        options = ("" if self.bias else ", bias=False") + (", layer_norm=True" if self.layer_norm else "")
        return f"{self.input_size}, {self.hidden_size}" + options

    def _enter(self, x: Any, states: tuple[Any, ...] | None, count: int) -> tuple[Tensor, tuple[Tensor, ...], bool]:
        """The input as (B, I), the states as (B, H), and whether a batch axis was added."""
        name = type(self).__name__
        x = check_input(name, x, self.input_size, self.weight_ih, (1, 2), "(B, input_size) or (input_size,)")
        shape = (*x.shape[:-1], self.hidden_size)
        if states is None:
            states = (zeros_for(x, shape),) * count
        axes = "(B, hidden_size)" if x.ndim == 2 else "(hidden_size,)"
        names = ("h_0", "c_0")
        found = tuple(check_state(name, n, s, shape, axes, self.weight_hh) for n, s in zip(names, states, strict=False))
        single = x.ndim == 1
        if single:
            x, found = ops.expand_dims(x, 0), tuple(ops.expand_dims(s, 0) for s in found)
        return x, found, single


def add_biases(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of the two biases, where there are any."""
    return a if b is None else b if a is None else a + b


def gru_biases(b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The bias that joins the projected input, and the part of `b_hh` that the reset gate scales."""
    if b_ih is None or b_hh is None:
        return b_ih, None
    H = b_hh.shape[0] // 3
    return b_ih + ops.pad(b_hh[: 2 * H], (0, H)), b_hh[2 * H :]


class RNNCell(_Cell):
    """One step of a plain recurrent network, h' = f(x W_ihᵀ + b_ih + h W_hhᵀ + b_hh); f is tanh, relu or sigmoid.

    `forward(x, hx=None)`: x (B, input_size) or (input_size,), hx (B, hidden_size), zeros if omitted; returns
    h' of the state's shape. Weights `weight_ih` (H, I), `weight_hh` (H, H), `bias_ih`, `bias_hh` (H,) as in
    PyTorch. With `layer_norm=True` (by name only) the step is normalised as in `RNN`, and there are `norm_weight_ih`,
    `norm_bias_ih`, `norm_weight_hh` and `norm_bias_hh` (H,), too. A cell has no `recurrent_dropout`: it does not know
    where a sequence begins.

    Raises `ShapeError` and `DTypeError` for an input or a state that does not fit.

    >>> import tinygrad_rnn as tr
    >>> cell = tr.nn.RNNCell(3, 5)
    >>> cell(tr.randn(2, 3)).shape
    (2, 5)
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        fused: bool = True,
        layer_norm: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        check_nonlinearity("RNNCell", nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            bias,
            fused=fused,
            layer_norm=layer_norm,
            dtype=dtype,
            device=device,
            generator=generator,
        )
        self.nonlinearity = nonlinearity

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        """The next state; see the class."""
        x, (h,), single = self._enter(x, None if hx is None else (hx,), 1)
        W, options = self.weight_hh, options_of(self, "")
        x = options.project(x, self.weight_ih, add_biases(self.bias_ih, self.bias_hh))
        if options:
            h = recurrent_options.rnn_with_options(options, x, h, W, NONLINEARITIES[self.nonlinearity])
        elif self.fused:
            h = rnn_step(x, h, W, nonlinearity=self.nonlinearity)
        else:
            h = rnn_cell(x, h, W, nonlinearity=self.nonlinearity)
        return h[0] if single else h


class LSTMCell(_Cell):
    """One step of an LSTM, gates in PyTorch's order i, f, g, o; `lstm_cell` is the function alone.

        i, f, g, o = x W_ihᵀ + b_ih + h W_hhᵀ + b_hh      (four blocks of H, in this order)
        c' = σ(f) c + σ(i) tanh(g)
        h' = σ(o) tanh(c')

    `forward(x, hx=None)`: x (B, input_size) or (input_size,), hx the pair (h, c), each (B, hidden_size),
    zeros if omitted; returns the pair (h', c'). Weights `weight_ih` (4H, I), `weight_hh` (4H, H), `bias_ih`,
    `bias_hh` (4H,). `forget_bias` and `layer_norm` are those of `LSTM`, with its parameters but for their `_lk`.

    Raises `ShapeError` and `DTypeError` for an input or a state that does not fit.

    >>> import tinygrad_rnn as tr
    >>> h, c = tr.nn.LSTMCell(3, 5)(tr.randn(2, 3))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        forget_bias: float | None = None,
        fused: bool = True,
        layer_norm: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            bias,
            fused=fused,
            layer_norm=layer_norm,
            dtype=dtype,
            device=device,
            generator=generator,
        )
        set_forget_bias(self, ("",), forget_bias)

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """The next state; see the class."""
        x, (h, c), single = self._enter(x, check_pair("LSTMCell", hx), 2)
        W, options = self.weight_hh, options_of(self, "")
        x = options.project(x, self.weight_ih, add_biases(self.bias_ih, self.bias_hh))
        if options:
            *_, h, c = recurrent_options.lstm_with_options(options, x, h, c, W)
        elif self.fused:
            y = lstm_step(x, ops.stack([h, c]), W)
            h, c = y[-2], y[-1]
        else:
            h, c = lstm_cell(x, h, c, W)
        return (h[0], c[0]) if single else (h, c)


class GRUCell(_Cell):
    """One step of a GRU, in PyTorch's order r, z, n, the reset after the product; `gru_cell` is the function alone.

        r, z = σ(x W_irᵀ + b_ir + h W_hrᵀ + b_hr), σ(x W_izᵀ + b_iz + h W_hzᵀ + b_hz)
        n    = tanh(x W_inᵀ + b_in + r (h W_hnᵀ + b_hn))
        h'   = (1 - z) n + z h

    `forward(x, hx=None)`: x (B, input_size) or (input_size,), hx (B, hidden_size), zeros if omitted; returns
    h' of the state's shape. Weights `weight_ih` (3H, I), `weight_hh` (3H, H), `bias_ih`, `bias_hh` (3H,).
    `layer_norm` is that of `GRU`, with its parameters but for their `_lk`.

    Raises `ShapeError` and `DTypeError` for an input or a state that does not fit.

    >>> import tinygrad_rnn as tr
    >>> tr.nn.GRUCell(3, 5)(tr.randn(2, 3)).shape
    (2, 5)
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        fused: bool = True,
        layer_norm: bool = False,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            bias,
            fused=fused,
            layer_norm=layer_norm,
            dtype=dtype,
            device=device,
            generator=generator,
        )

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        """The next state; see the class."""
        x, (h,), single = self._enter(x, None if hx is None else (hx,), 1)
        before, inside = gru_biases(self.bias_ih, self.bias_hh)
        W, options = self.weight_hh, options_of(self, "")
        x = options.project(x, self.weight_ih, before)
        if options:
            *_, h = recurrent_options.gru_with_options(options, x, h, W, inside)
        elif self.fused:
            h = gru_step(x, ops.expand_dims(h, 0), W, inside)[-1]
        else:
            h = gru_cell(x, h, W, inside)
        return h[0] if single else h


def check_nonlinearity(layer: str, name: str) -> None:
    """Raise `ValueError` for a nonlinearity that a plain recurrent network does not have here."""
    if name not in NONLINEARITIES:
        raise ValueError(f"{layer}: nonlinearity must be one of {', '.join(NONLINEARITIES)}, got {name!r}")
