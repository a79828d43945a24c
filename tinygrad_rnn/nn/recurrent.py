"""RNN, LSTM and GRU over whole sequences: project the input with one product, then unroll step by step.

What the unrolled steps record is an ordinary graph, so back-propagation through time is the ordinary
backward. With `fused=True` a step is one node with a kernel, and on a GPU a whole stretch of steps is
(`sequences`); with `fused=False` it is the equations of `cells`, op by op. Values and gradients are the same.
With `layer_norm` or `recurrent_dropout` it is one of `recurrent_options`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.kernels.copies import transposed
from tinygrad_rnn.kernels.recurrent import SHORT
from tinygrad_rnn.nn import recurrent_options
from tinygrad_rnn.nn.cells import (
    NONLINEARITIES,
    add_biases,
    check_nonlinearity,
    gru_biases,
    gru_cell,
    gru_step,
    lstm_cell,
    lstm_step,
    make_weights,
    rnn_cell,
    rnn_step,
    set_forget_bias,
    stack_rows,
    zeros_for,
)
from tinygrad_rnn.nn.checks import (
    beside,
    check_input,
    check_lengths,
    check_pair,
    check_probability,
    check_recurrent_dropout,
    check_sizes,
    check_state,
)
from tinygrad_rnn.nn.functional import dropout
from tinygrad_rnn.nn.layers import Embedding
from tinygrad_rnn.nn.looked_up import moved
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.precision import check_precision
from tinygrad_rnn.nn.recurrent_options import RecurrentOptions, make_norms, options_of
from tinygrad_rnn.nn.sequences import gru_sequence, kept, lstm_sequence, rnn_sequence, run_as_one, to_save
from tinygrad_rnn.nn.watching import Steps, watcher
from tinygrad_rnn.tensor import ops
from tinygrad_rnn.tensor.backend import Array, asarray, dot, has_kernels, namespace
from tinygrad_rnn.tensor.graph import Product
from tinygrad_rnn.tensor.mode import active_tape, is_recording
from tinygrad_rnn.tensor.op import op
from tinygrad_rnn.tensor.tensor import Tensor

States = tuple[Tensor, ...]
Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
Span = tuple[int, int, int]  # first step, last + 1, and how many sequences run
Order = list[int] | None  # of the sequences of a batch; None as they are
Runs = Array | None  # numbers (T, B, 1): 1 where a sequence has a step; None if all run that are there
AT_ONCE = 1024  # rows, those of all sequences, whose gates are in memory where no graph is built


@op(lambda g, W: dot(g, W), lambda g, h: Product(g, h))
def _linear(h: Array, W: Array) -> Array:
    """h Wᵀ, forwards by the copy of Wᵀ that all steps share, backwards by W itself: with a view BLAS is slower."""
    y: Array = dot(h, transposed(W))
    return y


class _SharedWeight(Tensor):
    """The recurrent weight W of many steps, for which `h @ W.T` is `_linear`."""

    __slots__ = ("_transposed",)

    def __init__(self, W: Tensor) -> None:
        self._array, self._node = W._array, W._node
        self._transposed = _SharedTranspose(W)

    @property
    def T(self) -> Tensor:
        return self._transposed


class _SharedTranspose(Tensor):
    """What stands on the right of `h @ W.T`: Python asks it first, as a special case of what stands on the left."""

    __slots__ = ("_weight",)

    def __init__(self, W: Tensor) -> None:
        self._weight = W

    def __rmatmul__(self, h: Any) -> Tensor:
        return _linear(h, self._weight)


class _Recurrent(Module):
    """The base of RNN, LSTM and GRU: shapes, layers, directions, dropout. A subclass unrolls one direction.

    The data goes one way: `_run` brings the input to (T, B, I), sorts a batch of unequal lengths, takes it through
    `_layers`, layer by layer and `_direction` by `_direction`, which project it and `_unroll` the steps, and undoes
    the sorting. Lengths in an array are not looked at: then all sequences go through all steps, and one that has ended
    keeps its state.
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
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        precision: str = "float32",
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        name = type(self).__name__
        input_size, hidden_size, num_layers = check_sizes(
            name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers
        )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.fused = bool(bias), bool(batch_first), bool(fused)
        self.bidirectional, self.layer_norm = bool(bidirectional), bool(layer_norm)
        self.dropout = check_probability(f"{name}: dropout", dropout)
        self.recurrent_dropout = check_recurrent_dropout(name, recurrent_dropout)
        self.precision = check_precision(name, precision)
        self._tails = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else hidden_size * len(self._tails)
            for tail in self._tails:
                sizes = (self.gates, inputs, hidden_size)
                make_weights(self, f"_l{layer}{tail}", sizes, bias, dtype, device, generator)
                if layer_norm:
                    make_norms(self, f"_l{layer}{tail}", self.gates, hidden_size, dtype, device)

    def extra_repr(self) -> str:
        options: dict[str, Any] = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        options |= {"bidirectional": False, "fused": True, "layer_norm": False, "recurrent_dropout": 0.0}
        options["precision"] = "float32"
        changed = [f"{k}={getattr(self, k)!r}" for k, default in options.items() if getattr(self, k) != default]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])

    def _biases(self, b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The bias of the projection, and the one that must wait for the step."""
        return add_biases(b_ih, b_hh), None

    def _unroll(
        self, x: Tensor, steps: Steps, state: States, W: Tensor, b: Tensor | None, options: RecurrentOptions, runs: Runs
    ) -> tuple[Tensor, States]:
        """Run the projected input x (T, B, G*H) through `steps`: the outputs (T, B, H) and the final states."""
        raise NotImplementedError

    def _run(
        self,
        x: Any,
        states: tuple[Any, ...] | None,
        names: tuple[str, ...],
        lengths: Any,
        embedding: Embedding | None,
    ) -> tuple[Tensor, States]:
        """Outputs and final states, one for each of `names`."""
        x, table = self._looked_up(x, embedding)
        single = x.ndim == (2 if table is None else 1)
        x = self._time_first(x, single)
        T, B = x.shape[:2]
        initial = self._initial(states, names, B, single)
        order, spans, runs = self._order(lengths, T, B, single)
        x, initial = permuted(x, order), tuple(permuted(s, order) for s in initial)
        x = x if runs is None or table is not None else ops.where(runs > 0, x, 0.0)  # past an end may be NaN
        x, last = self._layers(x, table, initial, spans, runs)
        x = x if runs is None else ops.where(runs > 0, x, 0.0)
        back = inverse(order)
        x, last = permuted(x, back), tuple(permuted(s, back) for s in last)
        if single:
            return x[:, 0], tuple(s[:, 0] for s in last)
        return self._time_first(x, single), last

    def _looked_up(self, x: Any, embedding: Embedding | None) -> tuple[Tensor, Tensor | None]:
        """What the first layer reads: the input and None, or ids (T, B) and the table (V, I) of their rows."""
        name, (_, weight, _, _) = type(self).__name__, self._weights("_l0")
        batch = "B, T" if self.batch_first else "T, B"
        axes = f"({batch}, input_size), or (T, input_size) without a batch"
        if embedding is None:
            return check_input(name, x, self.input_size, weight, (2, 3), axes), None
        if not (isinstance(embedding, Embedding) and embedding.reads_rows()):
            return check_input(f"{name}, embedding=", embedding(x), self.input_size, weight, (2, 3), axes), None
        ids, table = embedding.checked(x), embedding.table()
        if ids.ndim not in (1, 2):
            raise ShapeError(
                f"{name}: the ids for embedding= must be ({batch}), or (T,) without a batch, got {ids.shape}"
            )
        check_input(f"{name}, embedding=", table, self.input_size, weight, (2, 2), "a table")
        if ids.size >= len(table):
            return ids, table
        return check_input(name, embedding(ids), self.input_size, weight, (2, 3), axes), None  # row by row

    def _time_first(self, x: Tensor, single: bool) -> Tensor:
        """The input with its axes T, B, or an output with those of the input."""
        if single:
            return moved(x, lambda v: ops.expand_dims(v, 1))
        return moved(x, lambda v: ops.swapaxes(v, 0, 1)) if self.batch_first else x

    def _initial(self, states: tuple[Any, ...] | None, names: tuple[str, ...], B: int, single: bool) -> States:
        """The states to begin with, each (layers * directions, B, H): zeros, or those given."""
        _, weight, _, _ = self._weights("_l0")
        rows, H = self.num_layers * len(self._tails), self.hidden_size
        if states is None:
            return (zeros_for(weight, (rows, B, H)),) * len(names)
        shape = (rows, H) if single else (rows, B, H)
        axes = "(layers * directions, H)" if single else "(layers * directions, B, H)"
        given = zip(names, states, strict=True)
        initial = tuple(check_state(type(self).__name__, n, s, shape, axes, weight) for n, s in given)
        return tuple(ops.expand_dims(s, 1) for s in initial) if single else initial

    def _order(self, lengths: Any, T: int, B: int, single: bool) -> tuple[Order, list[Span], Runs]:
        """The order in which the sequences run, longest first: whoever still runs at a step is then a slice. And which
        of them run at which steps: stretches by slices or, of lengths in an array, all at all, with a mask.
        """
        name = type(self).__name__
        if lengths is None:
            return None, [(0, T, B)] if T else [], None
        if single:
            raise ShapeError(f"{name}: lengths= is for a batch; of one sequence pass the steps that count")
        found = check_lengths(name, lengths, T, B)
        if hasattr(lengths, "shape") and watcher.get() is None:
            weight = self._weights("_l0")[1]
            xp = namespace(found)
            runs = beside(weight, (xp.arange(T)[:, None] < found)[..., None])
            return None, [(0, T, B)] if T else [], namespace(runs).astype(runs, weight.dtype)
        steps = found.tolist()
        order = sorted(range(B), key=lambda b: -steps[b])
        spans = spans_of([steps[b] for b in order], T)
        return (None if order == list(range(B)) else order), spans, None

    def _layers(
        self, x: Tensor, table: Tensor | None, initial: States, spans: Sequence[Span], runs: Runs
    ) -> tuple[Tensor, States]:
        """One layer after the other over x (T, B, I), or ids (T, B) into `table`: outputs and final states."""
        D, finals = len(self._tails), []
        for layer in range(self.num_layers):
            outputs = []
            for d, tail in enumerate(self._tails):
                start = tuple(s[layer * D + d] for s in initial)
                y, end = self._direction(x, table, start, f"_l{layer}{tail}", spans, runs, d == 1)
                outputs.append(y)
                finals.append(end)
            x, table = outputs[0] if D == 1 else ops.concatenate(outputs, axis=-1), None
            if self.dropout and layer + 1 < self.num_layers:
                x = dropout(x, self.dropout, self.is_training())
        last = tuple(
            ops.expand_dims(of_layers[0], 0) if len(of_layers) == 1 else ops.stack(of_layers)
            for of_layers in zip(*finals, strict=True)
        )
        return x, last

    def _direction(
        self,
        x: Tensor,
        table: Tensor | None,
        state: States,
        name: str,
        spans: Sequence[Span],
        runs: Runs,
        backward: bool,
    ) -> tuple[Tensor, States]:
        """One direction of one layer over x (T, B, I), or ids (T, B) into `table`: its outputs (T, B, H), final states.

        Each of `spans` (first, last + 1, n) is a stretch of steps in which the first n sequences run: no step reads or
        computes anything past the end of a sequence. The states of the others wait: forwards they are final, backwards
        they have not begun. With `runs` all run at all steps, and at those where that is 0 a state stays what it was.
        """
        T, B = x.shape[:2]
        W_ih, W_hh, b_ih, b_hh = self._weights(name)
        options = self._options(name, B)
        before, inside = self._biases(b_ih, b_hh)
        rows = None if table is None else options.project(table, W_ih, before)  # once each, however often they are used
        W = _SharedWeight(W_hh) if not (self.fused or options) and has_kernels([W_hh._array]) else W_hh
        outputs = []
        joined = None
        if rows is not None and not is_recording() and active_tape.get() is None and watcher.get() is None:
            spans = in_pieces(spans)
            joined = zeros_for(W_hh, (T, B, self.hidden_size))  # whose array is ours alone, and is filled below
        for first, stop, n in reversed(spans) if backward else spans:
            whole = n == B
            piece = x if whole and stop - first == T else x[first:stop, :n]
            order = range(stop - first - 1, -1, -1) if backward else range(stop - first)
            begin = state if whole else tuple(s[:n] for s in state)
            piece = options.project(piece, W_ih, before) if rows is None else ops.take(rows, piece, axis=0)
            steps = Steps(self, name, first, order, n)
            steps.note(T, piece, begin, W, inside, options)
            of_these = runs if runs is None or stop - first == T else runs[first:stop]
            y, end = self._unroll(piece, steps, begin, W, inside, options, of_these)
            state = end if whole else tuple(ops.concatenate([e, s[n:]]) for e, s in zip(end, state, strict=True))
            if joined is not None:
                joined._array[first:stop, :n] = y._array
            else:
                outputs.append(y if whole else ops.pad(y, ((0, 0), (0, B - n), (0, 0))))
        if joined is not None:
            return joined, state
        rest = T - (spans[-1][1] if spans else 0)
        if backward:
            outputs.reverse()
        if rest or not outputs:
            outputs.append(zeros_for(W_hh, (rest, B, self.hidden_size)))
        return outputs[0] if len(outputs) == 1 else ops.concatenate(outputs), state

    def _as_one(
        self, steps: Steps, options: RecurrentOptions, runs: Runs, *arrays: Tensor | None
    ) -> dict[str, Any] | None:
        """What a stretch over these is given as one node of the graph; None where it is none. It is one on a GPU, where
        nobody looks at the steps.
        """
        if not self.fused or options or steps.shown is not None or not run_as_one(*arrays):
            return None
        return {"reverse": steps.reverse, "runs": runs, "precision": self.precision}

    def _weights(self, tail: str) -> Weights:
        """The four arrays of one direction of one layer."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        W_ih, W_hh, b_ih, b_hh = (getattr(self, name + tail) for name in names)
        return W_ih, W_hh, b_ih, b_hh

    def _options(self, tail: str, B: int) -> RecurrentOptions:
        """The options of one direction of one layer; the mask of recurrent dropout is drawn here, for all steps."""
        mask = None
        if self.recurrent_dropout and self.is_training():
            like, shape = self._weights("_l0")[1], (B, self.hidden_size)
            mask = dropout(zeros_for(like, shape) + 1, self.recurrent_dropout)
        return options_of(self, tail, mask)


class RNN(_Recurrent):
    """A plain recurrent network: h_t = f(x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh), f = tanh, relu or sigmoid.

    `forward(x, hx=None, *, lengths=None, embedding=None)` returns `output, h_n`, as PyTorch does:

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

    With `precision="tf32"` a GPU may round what it multiplies: `nn/precision.py` says how.

    Two more options, by name only. With one of them the plain graph runs, whatever `fused` says: the kernels do not
    know them.

    `layer_norm=True` is Ba, Kiros and Hinton (2016, arXiv:1607.06450): what input and state give to the
    pre-activations is normalised separately, h_t = f(LN(x_t W_ihᵀ) + b_ih + LN(h_{t-1} W_hhᵀ) + b_hh), each with a
    gain, 1 at first, and a bias, 0 at first. They are `norm_weight_ih_lk`, `norm_bias_ih_lk`, `norm_weight_hh_lk` and
    `norm_bias_hh_lk` (H,), and are there with `bias=False`, too.

    `recurrent_dropout=p` is Gal and Ghahramani (2016, arXiv:1512.05287): while training, each number of h_{t-1} (B, H)
    is 0 with probability p, else scaled by 1/(1 - p), where it enters the product with W_hh. The mask is drawn from
    the library's generator once a call, for each layer and direction: a sequence has the same at all its steps. Only
    the product sees it; the state that is carried over, put out and returned is not masked.

    T = 0 gives an empty output and h_n = hx. To carry a state from chunk to chunk pass `h_n.detach()`.

    `lengths` (B,), integers from 1 to T in any order, are for sequences that end before step T. With
    lengths=[3, 1, 2] of T = 3 steps the batch runs as

        step          0    1    2
        sequence 0   x_0  x_1  x_2      h_n: forwards the state after x_2, backwards after x_0
        sequence 1   x_0   0    0       h_n: after x_0 in both directions
        sequence 2   x_0  x_1   0       h_n: forwards after x_1, backwards (which begins at x_1) after x_0

    `output` is 0 past the end of a sequence, and h_n holds each sequence's own last state. What the input
    holds past an end is never read, NaN included, and its gradient is exactly 0.

    In a list or tuple they are looked at, and no step past an end is computed; draws of dropout are for the longest
    sequence first. In an array or a Tensor they are not: all sequences go through all T steps, and one that has ended
    keeps its state. That is more work where they differ much, but `tr.compile` then makes one recording for all
    lengths. The results are the same but for rounding.

    Of `x = embedding(ids)`, an `Embedding` in training with no more rows than x, each row of the table is multiplied
    by W_ihᵀ once, and then looked up as often as its id occurs. Of characters, or of any vocabulary smaller than T B,
    that saves nearly half of all products. With `embedding=`, x are ids (T, B), and what is read is `embedding(x)`,
    without being formed: that saves as much where nothing is trained, or the table is not, or where `lengths` differ.

    How the gradient reaches the states: `output.retain_grad()` shows what comes through `output` alone, 0 at every step
    that the loss does not read. dL/dh_t has the way through the later states, too:

        with tr.explain.watch() as seen:
            output, h_n = rnn(x)
            loss = ...                                  # of output, of h_n, of a whole model
        seen.gradient_flow(loss)[0].dh                  # dL/dh_t (T, B, H); call it before loss.backward()

    has one entry for each row of h_n; `tr.explain.gradient_flow(rnn, x, loss)` does all of it where the loss is a
    function of `output`. An LSTM has dL/dc_t beside it.

    Raises `ShapeError` if the input, the state or the number of lengths does not fit, `ValueError` naming a
    length that is not in 1 ... T, `DTypeError` for another dtype than the weights', or lengths that are no
    integers. An option out of its range is a `ValueError` when the layer is made.

    >>> import tinygrad_rnn as tr
    >>> output, h_n = tr.nn.RNN(4, 8, num_layers=2)(tr.randn(5, 3, 4))
    >>> output.shape, h_n.shape
    ((5, 3, 8), (2, 3, 8))
    >>> output, h_n = tr.nn.RNN(4, 1)(tr.ones(3, 2, 4), lengths=[3, 1])
    >>> output[1:, 1].tolist(), h_n[0, 1].item() == output[0, 1].item()
    ([[0.0], [0.0]], True)
    >>> rnn, x = tr.nn.RNN(2, 3), tr.randn(4, 1, 2)
    >>> output, h_n = rnn(x)
    >>> output.retain_grad()
    >>> output[-1].sum().backward()
    >>> (tr.norm(output.grad, axis=-1) > 0).tolist()  # what came through `output`
    [[False], [False], [False], [True]]
    >>> flow = tr.explain.gradient_flow(rnn, x, lambda output: output[-1].sum())
    >>> (flow[0].states > 0).tolist()  # |dL/dh_t|
    [True, True, True, True]
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        fused: bool = True,
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        precision: str = "float32",
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        check_nonlinearity("RNN", nonlinearity)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            fused=fused,
            layer_norm=layer_norm,
            recurrent_dropout=recurrent_dropout,
            precision=precision,
            dtype=dtype,
            device=device,
            generator=generator,
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", nonlinearity={self.nonlinearity!r}" if self.nonlinearity != "tanh" else "")

    def forward(
        self, x: Any, hx: Any = None, *, lengths: Any = None, embedding: Embedding | None = None
    ) -> tuple[Tensor, Tensor]:
        """`output, h_n`; see the class."""
        output, (h_n,) = self._run(x, None if hx is None else (hx,), ("h_0",), lengths, embedding)
        return output, h_n

    def _unroll(
        self, x: Tensor, steps: Steps, state: States, W: Tensor, b: Tensor | None, options: RecurrentOptions, runs: Runs
    ) -> tuple[Tensor, States]:
        (h,) = state
        if (given := self._as_one(steps, options, runs, x, h, W)) is not None:
            y = rnn_sequence(x, h, W, nonlinearity=self.nonlinearity, **given)
            return y, (y[steps.order[-1]],)
        outputs = []
        for t in steps:
            if self.fused and not options:
                h = rnn_step(x, h, W, nonlinearity=self.nonlinearity, t=t, runs=runs)
            elif options:
                new = recurrent_options.rnn_with_options(options, x[t], h, W, NONLINEARITIES[self.nonlinearity])
                (h,) = kept((new,), (h,), runs, t)
            else:
                (h,) = kept((rnn_cell(x[t], h, W, nonlinearity=self.nonlinearity),), (h,), runs, t)
            outputs.append(h)
        return ops.stack(steps.in_time(outputs)), (h,)


class LSTM(_Recurrent):
    """A long short-term memory (Hochreiter and Schmidhuber 1997) with a forget gate (Gers et al. 2000).

        i, f, g, o = x_t W_ihᵀ + b_ih + h_{t-1} W_hhᵀ + b_hh      (four blocks of H, in this order, as PyTorch has them)
        c_t = σ(f) c_{t-1} + σ(i) tanh(g)
        h_t = σ(o) tanh(c_t)

    `forward(x, hx=None, *, lengths=None, embedding=None)` returns `output, (h_n, c_n)`, as PyTorch does:

        x          (T, B, input_size)             (B, T, input_size) with batch_first; (T, input_size) without a batch
        hx         the pair (h, c), each          the states before the first step: zeros if omitted; never batch first
                   (layers * directions, B, H)
        output     (T, B, directions * H)         h of the last layer at every step
        h_n, c_n   (layers * directions, B, H)    both states of every layer and direction after its last step

        rows of h_n and c_n:   [0] layer 0 forward    [2] layer 1 forward    ...
        (bidirectional)        [1] layer 0 backward   [3] layer 1 backward

    `RNN` draws them, and tells what `lengths`, `embedding` and the options mean, what is raised, and how dL/dh_t is
    read. Weights of layer k: `weight_ih_lk` (4H, input_size or directions * H), `weight_hh_lk` (4H, H), `bias_ih_lk`,
    `bias_hh_lk` (4H,).
    An option of its own: `forget_bias`, the initial bias of every forget gate (1.0 is usual; None: drawn like
    the rest, as PyTorch does). `bias_ih` holds it and `bias_hh` 0 there, so that their sum is exactly it.

    `layer_norm` is that of `RNN`, with parameters (4H,): the four gates have one mean and one variance. The cell is
    normalised, too, before its tanh: h' = σ(o) tanh(LN(c')), with `norm_weight_c_lk` and `norm_bias_c_lk` (H,); c'
    itself is carried over as it is. `recurrent_dropout` masks h in the product, not c.

    >>> import tinygrad_rnn as tr
    >>> lstm = tr.nn.LSTM(4, 8)
    >>> output, (h_n, c_n) = lstm(tr.randn(5, 3, 4))
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 3, 8), (1, 3, 8), (1, 3, 8))
    >>> output, state = lstm(tr.randn(5, 3, 4), (h_n.detach(), c_n.detach()))  # the next chunk
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        forget_bias: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        fused: bool = True,
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        precision: str = "float32",
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            fused=fused,
            layer_norm=layer_norm,
            recurrent_dropout=recurrent_dropout,
            precision=precision,
            dtype=dtype,
            device=device,
            generator=generator,
        )
        set_forget_bias(self, (f"_l{k}{tail}" for k in range(num_layers) for tail in self._tails), forget_bias)

    def forward(
        self, x: Any, hx: Any = None, *, lengths: Any = None, embedding: Embedding | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`output, (h_n, c_n)`; see the class."""
        output, (h_n, c_n) = self._run(x, check_pair("LSTM", hx), ("h_0", "c_0"), lengths, embedding)
        return output, (h_n, c_n)

    def _unroll(
        self, x: Tensor, steps: Steps, state: States, W: Tensor, b: Tensor | None, options: RecurrentOptions, runs: Runs
    ) -> tuple[Tensor, States]:
        h, c = state
        if (given := self._as_one(steps, options, runs, x, h, c, W)) is not None:
            y = lstm_sequence(x, h, c, W, saved=to_save(), **given)
            return y[: len(steps.order)], (y[steps.order[-1]], y[len(steps.order)])
        outputs = []
        if self.fused and not options:
            packed = ops.stack(state)
            for t in steps:
                packed = lstm_step(x, packed, W, t=t, runs=runs)
                outputs.append(packed)
            return stack_rows(*steps.in_time(outputs), row=-2), (packed[-2], packed[-1])
        for t in steps:
            if options:
                rows = recurrent_options.lstm_with_options(options, x[t], h, c, W)
            else:
                rows = lstm_cell(x[t], h, c, W)
            h, c = kept(rows[-2:], (h, c), runs, t)
            outputs.append(h)
            if steps.shown is not None:
                steps.shown.append(rows)
        return ops.stack(steps.in_time(outputs)), (h, c)


class GRU(_Recurrent):
    """A gated recurrent unit (Cho et al. 2014), with the reset after the product as cuDNN and PyTorch have it.

        r_t, z_t = σ(x_t W_irᵀ + b_ir + h_{t-1} W_hrᵀ + b_hr), σ(x_t W_izᵀ + b_iz + h_{t-1} W_hzᵀ + b_hz)
        n_t      = tanh(x_t W_inᵀ + b_in + r_t (h_{t-1} W_hnᵀ + b_hn))
        h_t      = (1 - z_t) n_t + z_t h_{t-1}

    The blocks r, z, n of the weights stand in this order.

    `forward(x, hx=None, *, lengths=None, embedding=None)` returns `output, h_n`, as PyTorch does:

        x        (T, B, input_size)             (B, T, input_size) with batch_first; (T, input_size) without a batch
        hx       (layers * directions, B, H)    zeros if omitted; never batch first
        output   (T, B, directions * H)         the states of the last layer at every step
        h_n      (layers * directions, B, H)    the state of every layer and direction after its last step

        rows of h_n:      [0] layer 0 forward    [2] layer 1 forward    ...
        (bidirectional)   [1] layer 0 backward   [3] layer 1 backward

    `RNN` draws them, and tells what `lengths`, `embedding` and the options mean, what is raised, and how dL/dh_t is
    read. Weights of layer k: `weight_ih_lk` (3H, input_size or directions * H), `weight_hh_lk` (3H, H), `bias_ih_lk`,
    `bias_hh_lk` (3H,).

    `layer_norm` is that of `RNN`, with parameters (3H,): r and z have one mean and one variance, n its own, since the
    reset gate scales the state's part of n after it is normalised. `recurrent_dropout` masks h in the product alone:
    the h of z h, which the update gate lets through, is not masked.

    >>> import tinygrad_rnn as tr
    >>> output, h_n = tr.nn.GRU(4, 8, bidirectional=True)(tr.randn(5, 3, 4))
    >>> output.shape, h_n.shape
    ((5, 3, 16), (2, 3, 8))
    """

    gates = 3

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
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        precision: str = "float32",
        dtype: Any = None,
        device: str | None = None,
        generator: Any = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            fused=fused,
            layer_norm=layer_norm,
            recurrent_dropout=recurrent_dropout,
            precision=precision,
            dtype=dtype,
            device=device,
            generator=generator,
        )

    def forward(
        self, x: Any, hx: Any = None, *, lengths: Any = None, embedding: Embedding | None = None
    ) -> tuple[Tensor, Tensor]:
        """`output, h_n`; see the class."""
        output, (h_n,) = self._run(x, None if hx is None else (hx,), ("h_0",), lengths, embedding)
        return output, h_n

    def _biases(self, b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        return gru_biases(b_ih, b_hh)

    def _unroll(
        self, x: Tensor, steps: Steps, state: States, W: Tensor, b: Tensor | None, options: RecurrentOptions, runs: Runs
    ) -> tuple[Tensor, States]:
        outputs = []
        (h,) = state
        if (given := self._as_one(steps, options, runs, x, h, W, b)) is not None:
            y = gru_sequence(x, h, W, b, saved=to_save(), **given)
            return y, (y[steps.order[-1]],)
        if self.fused and not options:
            packed = ops.expand_dims(h, 0)
            for t in steps:
                packed = gru_step(x, packed, W, b, t=t, runs=runs)
                outputs.append(packed)
            return stack_rows(*steps.in_time(outputs), row=-1), (packed[-1],)
        for t in steps:
            if options:
                rows = recurrent_options.gru_with_options(options, x[t], h, W, b)
            else:
                rows = (gru_cell(x[t], h, W, b),)
            (h,) = kept(rows[-1:], (h,), runs, t)
            outputs.append(h)
            if steps.shown is not None:
                steps.shown.append(rows)
        return ops.stack(steps.in_time(outputs)), (h,)


def spans_of(lengths: Sequence[int], T: int) -> list[Span]:
    """(first, last + 1, n) for each stretch of steps in which the same first n of the sequences run, longest first.

    >>> spans_of([5, 3, 3], 6)
    [(0, 3, 3), (3, 5, 1)]
    """
    if not lengths:
        return [(0, T, 0)] if T else []
    spans, first = [], 0
    for n in range(len(lengths), 0, -1):
        if lengths[n - 1] > first:
            spans.append((first, lengths[n - 1], n))
            first = lengths[n - 1]
    return spans


def in_pieces(spans: Sequence[Span]) -> list[Span]:
    """The same stretches, cut into equal ones of about `AT_ONCE` rows. For where nobody goes back through the steps, so
    that their gates need not be in memory all at once; none is so short that its values would be computed otherwise.

    >>> in_pieces([(0, 100, 32), (100, 101, 8)])
    [(0, 25, 32), (25, 50, 32), (50, 75, 32), (75, 100, 32), (100, 101, 8)]
    """
    found = []
    for first, stop, n in spans:
        T = stop - first
        count = max(1, -(-T // max(4 * SHORT, AT_ONCE // max(n, 1))))
        found += [(first + k * T // count, first + (k + 1) * T // count, n) for k in range(count)]
    return found


def _permute_back(g: Any, order: Array, back: Array) -> Any:
    return _permuted(g, order=back, back=order)


@op(_permute_back)
def _permuted(x: Array, *, order: Array, back: Array) -> Array:
    return namespace(x).take(x, order, axis=1)


def permuted(x: Tensor, order: Order) -> Tensor:
    """`x` (T, B, ...) with the sequences of a batch in another order. That is undone by a permutation, where the
    gradient of `take` would have to sort: ids may repeat there.
    """
    if order is None:
        return x
    ids, back = (asarray(i, "int64", x.device if "cuda" in x.device else None) for i in (order, inverse(order)))
    xp = namespace(x._array)
    return _permuted(x, order=xp.asarray(ids), back=xp.asarray(back))


def inverse(order: Order) -> Order:
    """The order that undoes another.

    >>> inverse([2, 0, 1])
    [1, 2, 0]
    """
    return None if order is None else sorted(range(len(order)), key=order.__getitem__)
