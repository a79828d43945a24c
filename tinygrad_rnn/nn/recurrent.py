"""RNN, LSTM and GRU over whole sequences: project the input with one product, then unroll step by step.

What the unrolled steps record is an ordinary graph, so back-propagation through time is the ordinary
backward. With `fused=True` a step is one node with a kernel, with `fused=False` it is the equations of
`cells`, op by op; values and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tinygrad_rnn.nn.cells import (
    add_biases,
    check_input,
    check_nonlinearity,
    check_pair,
    check_state,
    gru_biases,
    gru_cell,
    gru_step,
    lstm_cell,
    lstm_step,
    make_weights,
    rnn_cell,
    rnn_step,
    stack_rows,
    transposed,
    zeros_for,
)
from tinygrad_rnn.nn.functional import check_probability, check_sizes, dropout
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.tensor import Tensor

States = tuple[Tensor, ...]


class _Recurrent(Module):
    """What the three layers share: shapes, layers, directions, dropout. A subclass says how one direction is
    unrolled.
    """

    gates: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        fused: bool = True,
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_probability(f"{name}: dropout", dropout)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.fused = bidirectional, fused
        self._tails = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else hidden_size * len(self._tails)
            for tail in self._tails:
                sizes = (self.gates, inputs, hidden_size)
                make_weights(self, f"_l{layer}{tail}", sizes, bias, dtype, device, generator)

    def extra_repr(self) -> str:
        options = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        options |= {"bidirectional": False, "fused": True}
        changed = [f"{k}={getattr(self, k)}" for k, default in options.items() if getattr(self, k) != default]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])

    def _biases(self, b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The bias of the projection, and the one that must wait for the step."""
        return add_biases(b_ih, b_hh), None

    def _unroll(
        self, x: Tensor, order: Sequence[int], state: States, W: Tensor, b: Tensor | None
    ) -> tuple[Tensor, States]:
        """Run the projected input x (T, B, G*H) in the given order: the outputs (T, B, H) and the final states."""
        raise NotImplementedError

    def _run(self, x: Any, states: tuple[Any, ...] | None, names: tuple[str, ...]) -> tuple[Tensor, States]:
        """Outputs and final states, one for each of `names`."""
        layer_name = type(self).__name__
        axes = "(B, T, input_size)" if self.batch_first else "(T, B, input_size)"
        _, weight, _, _ = self._weights("_l0")
        x = check_input(layer_name, x, self.input_size, weight, (2, 3), f"{axes}, or (T, input_size) without a batch")
        single = x.ndim == 2
        if single:
            x = ops.expand_dims(x, 1)
        elif self.batch_first:
            x = ops.swapaxes(x, 0, 1)
        T, B, _ = x.shape
        D, H = len(self._tails), self.hidden_size
        shape = (self.num_layers * D, H) if single else (self.num_layers * D, B, H)
        if states is None:
            initial = (zeros_for(x, (self.num_layers * D, B, H)),) * len(names)
        else:
            axes = "(layers * directions, H)" if single else "(layers * directions, B, H)"
            initial = tuple(
                check_state(layer_name, n, s, shape, axes, weight) for n, s in zip(names, states, strict=True)
            )
            if single:
                initial = tuple(ops.expand_dims(s, 1) for s in initial)
        finals: list[States] = []
        for layer in range(self.num_layers):
            outputs = []
            for d, tail in enumerate(self._tails):
                W_ih, W_hh, b_ih, b_hh = self._weights(f"_l{layer}{tail}")
                before, inside = self._biases(b_ih, b_hh)
                start = tuple(s[layer * D + d] for s in initial)
                order = range(T - 1, -1, -1) if d else range(T)
                if T:
                    y, end = self._unroll(ops.linear(x, W_ih, before), order, start, W_hh, inside)
                else:
                    y, end = zeros_for(x, (0, B, H)), start
                outputs.append(y)
                finals.append(end)
            x = outputs[0] if D == 1 else ops.concatenate(outputs, axis=-1)
            if self.dropout and layer + 1 < self.num_layers:
                x = dropout(x, self.dropout, self.is_training())
        last = tuple(
            ops.expand_dims(of_layers[0], 0) if len(of_layers) == 1 else ops.stack(of_layers)
            for of_layers in zip(*finals, strict=True)
        )
        if single:
            return x[:, 0], tuple(s[:, 0] for s in last)
        return (ops.swapaxes(x, 0, 1) if self.batch_first else x), last

    def _weights(self, tail: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The four arrays of one direction of one layer."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        W_ih, W_hh, b_ih, b_hh = (getattr(self, name + tail) for name in names)
        return W_ih, W_hh, b_ih, b_hh


class RNN(_Recurrent):
    """A plain recurrent network: h_t = f(x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh), f = tanh, relu or sigmoid.

    `forward(x, hx=None)` returns `output, h_n`, as PyTorch does:

        x        (T, B, input_size)             (B, T, input_size) with batch_first; (T, input_size) without a batch
        hx       (layers * directions, B, H)    zeros if omitted; never batch first
        output   (T, B, directions * H)         the states of the last layer at every step
        h_n      (layers * directions, B, H)    the state of every layer and direction after its last step

        with two layers in both directions:

            output[t]   = [ forward of layer 1 at t | backward of layer 1 at t ]

                            x_0     x_1    ...   x_{T-1}
            layer 0  forward  ──►─────►─────►─────►──  h_n[0]      after x_{T-1}
            layer 0  backward ──◄─────◄─────◄─────◄──  h_n[1]      after x_0, at the left end
            layer 1  forward  ──►─────►─────►─────►──  h_n[2]
            layer 1  backward ──◄─────◄─────◄─────◄──  h_n[3]

    Options: `num_layers`, `bias`, `batch_first` (of x and output), `dropout` (on the output of every layer
    but the last, while training), `bidirectional`, `fused` (False: the plain graph). Weights of layer k are
    `weight_ih_lk` (H, input_size or directions * H), `weight_hh_lk` (H, H), `bias_ih_lk`, `bias_hh_lk` (H,),
    with `_reverse` for the backward direction, drawn from U(-1/√H, 1/√H).

    T = 0 gives an empty output and h_n = hx. To carry a state from chunk to chunk pass `h_n.detach()`.

    Raises `ShapeError` if the input or the state does not fit, `DTypeError` for another dtype than the
    weights'.

    >>> import tinygrad_rnn as tr
    >>> output, h_n = tr.nn.RNN(4, 8, num_layers=2)(tr.randn(5, 3, 4))
    >>> output.shape, h_n.shape
    ((5, 3, 8), (2, 3, 8))
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        **options: Any,
    ) -> None:
        check_nonlinearity("RNN", nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, **options)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", nonlinearity={self.nonlinearity!r}" if self.nonlinearity != "tanh" else "")

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """`output, h_n`; see the class."""
        output, (h_n,) = self._run(x, None if hx is None else (hx,), ("h_0",))
        return output, h_n

    def _unroll(
        self, x: Tensor, order: Sequence[int], state: States, W: Tensor, b: Tensor | None
    ) -> tuple[Tensor, States]:
        (h,) = state
        outputs = []
        V = shared_copy(x, W) if self.fused else None
        for t in order:
            if self.fused:
                h = rnn_step(x, h, W, V, nonlinearity=self.nonlinearity, t=t)
            else:
                h = rnn_cell(x[t], h, W, nonlinearity=self.nonlinearity)
            outputs.append(h)
        return ops.stack(in_time(outputs, order)), (h,)


class LSTM(_Recurrent):
    """A long short-term memory; the equations are in `lstm_cell`. Gates in PyTorch's order i, f, g, o.

    `forward(x, hx=None)` returns `output, (h_n, c_n)`; hx is the pair (h_0, c_0), zeros if omitted. Shapes,
    options and the order of h_n and c_n are those of `RNN`, whose docstring has a picture. Weights of layer
    k: `weight_ih_lk` (4H, input_size or directions * H), `weight_hh_lk` (4H, H), `bias_ih_lk`, `bias_hh_lk`
    (4H,).

    Raises `ShapeError` if the input or a state does not fit, `DTypeError` for another dtype than the
    weights'.

    >>> import tinygrad_rnn as tr
    >>> lstm = tr.nn.LSTM(4, 8)
    >>> output, (h_n, c_n) = lstm(tr.randn(5, 3, 4))
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 3, 8), (1, 3, 8), (1, 3, 8))
    >>> output, state = lstm(tr.randn(5, 3, 4), (h_n.detach(), c_n.detach()))  # the next chunk
    """

    gates = 4

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`output, (h_n, c_n)`; see the class."""
        output, (h_n, c_n) = self._run(x, check_pair("LSTM", hx), ("h_0", "c_0"))
        return output, (h_n, c_n)

    def _unroll(
        self, x: Tensor, order: Sequence[int], state: States, W: Tensor, b: Tensor | None
    ) -> tuple[Tensor, States]:
        outputs = []
        if self.fused:
            packed, V = ops.stack(state), shared_copy(x, W)
            for t in order:
                packed = lstm_step(x, packed, W, V, t=t)
                outputs.append(packed)
            return stack_rows(*in_time(outputs, order), row=-2), (packed[-2], packed[-1])
        h, c = state
        for t in order:
            h, c = lstm_cell(x[t], h, c, W)
            outputs.append(h)
        return ops.stack(in_time(outputs, order)), (h, c)


class GRU(_Recurrent):
    """A gated recurrent unit; the equations are in `gru_cell`. Gates in PyTorch's order r, z, n, reset after
    the product.

    `forward(x, hx=None)` returns `output, h_n`. Shapes, options and the order of h_n are those of `RNN`,
    whose docstring has a picture. Weights of layer k: `weight_ih_lk` (3H, input_size or directions * H),
    `weight_hh_lk` (3H, H), `bias_ih_lk`, `bias_hh_lk` (3H,).

    Raises `ShapeError` if the input or the state does not fit, `DTypeError` for another dtype than the
    weights'.

    >>> import tinygrad_rnn as tr
    >>> output, h_n = tr.nn.GRU(4, 8, bidirectional=True)(tr.randn(5, 3, 4))
    >>> output.shape, h_n.shape
    ((5, 3, 16), (2, 3, 8))
    """

    gates = 3

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """`output, h_n`; see the class."""
        output, (h_n,) = self._run(x, None if hx is None else (hx,), ("h_0",))
        return output, h_n

    def _biases(self, b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        return gru_biases(b_ih, b_hh)

    def _unroll(
        self, x: Tensor, order: Sequence[int], state: States, W: Tensor, b: Tensor | None
    ) -> tuple[Tensor, States]:
        outputs = []
        (h,) = state
        if self.fused:
            packed, V = ops.expand_dims(h, 0), shared_copy(x, W)
            for t in order:
                packed = gru_step(x, packed, W, b, V, t=t)
                outputs.append(packed)
            return stack_rows(*in_time(outputs, order), row=-1), (packed[-1],)
        for t in order:
            h = gru_cell(x[t], h, W, b)
            outputs.append(h)
        return ops.stack(in_time(outputs, order)), (h,)


def shared_copy(x: Tensor, W: Tensor) -> Tensor | None:
    """The copy of Wᵀ that the steps of x (T, B, G*H) share, where it pays: not for few steps, nor for B = 1."""
    return transposed(W) if x.shape[0] > 4 and x.shape[1] > 1 else None


def in_time(outputs: list[Tensor], order: Sequence[int]) -> list[Tensor]:
    """What was computed in `order`, in the order of time."""
    return outputs if order[0] <= order[-1] else outputs[::-1]
