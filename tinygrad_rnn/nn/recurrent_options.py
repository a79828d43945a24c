"""The recurrent steps with layer normalisation and recurrent dropout.

They are the equations of `cells` once more, with `options.product(h, W)` where those have h Wᵀ, and
`options.norm("c", c)` where the LSTM reads its cell. The kernels know no options: with one of them these steps run.
Without any (`NO_OPTIONS`) they are the plain definitions of the kernels, since they have every gate to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinygrad_rnn.nn.functional import layer_norm
from tinygrad_rnn.nn.looked_up import project
from tinygrad_rnn.nn.module import Module, Parameter
from tinygrad_rnn.tensor import creation, ops
from tinygrad_rnn.tensor.tensor import Tensor

# What is normalised, by the number of gates: blocks of so many times H numbers, each with a mean and a variance of its
# own. The GRU's candidate stands apart, since the reset gate scales the state's part of it.
BLOCKS: dict[int, dict[str, tuple[int, ...]]] = {
    1: {"ih": (1,), "hh": (1,)},
    3: {"ih": (2, 1), "hh": (2, 1)},
    4: {"ih": (4,), "hh": (4,), "c": (1,)},
}


@dataclass(frozen=True)
class RecurrentOptions:
    """The options of one direction of one layer; False if there are none.

    Layer normalisation is that of Ba, Kiros and Hinton (2016, arXiv:1607.06450, equations 20 to 22 for the LSTM; the
    GRU is in the supplement, too): `norms` has for "ih" (the projected input), "hh" (the projected state) and "c" (the
    cell) a gain and a bias for each block. The layer's own biases are added afterwards.

    Recurrent dropout is that of Gal and Ghahramani (2016, arXiv:1512.05287): `mask` (B, H), 0 or 1 / (1 - p), is the
    same at every step, and multiplies what enters the product alone. The state itself is not masked: not where it is
    carried over or returned, and not in the GRU's z h.
    """

    norms: Mapping[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    mask: Tensor | None = None
    precision: str = "float32"  # of the products of a GPU that have no options: all but those of the plain steps

    def __bool__(self) -> bool:
        return bool(self.norms) or self.mask is not None

    def project(self, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        """What the input gives to the steps: x Wᵀ, normalised, + b."""
        if "ih" not in self.norms:
            return project(x, W, b, self.precision)
        x = self.norm("ih", project(x, W, None, self.precision))
        return x if b is None else x + b

    def product(self, h: Tensor, W: Tensor) -> Tensor:
        """What the state h (n, H) gives to a step: h Wᵀ of h under the mask, normalised."""
        if self.mask is not None:
            h = h * self.mask[: h.shape[0]]  # the sequences that still run come first
        return self.norm("hh", ops.linear(h, W))

    def norm(self, name: str, x: Tensor) -> Tensor:
        """`x` normalised block by block, where there is such a norm."""
        if name not in self.norms:
            return x
        blocks = self.norms[name]
        pieces = [x] if len(blocks) == 1 else ops.split(x, blocks[0][0].shape, axis=-1)
        done = [layer_norm(p, gain.shape, gain, bias) for p, (gain, bias) in zip(pieces, blocks, strict=True)]
        return done[0] if len(done) == 1 else ops.concatenate(done, axis=-1)


NO_OPTIONS = RecurrentOptions()


def rnn_with_options(
    options: RecurrentOptions, x: Tensor, h: Tensor, W: Tensor, f: Callable[[Tensor], Tensor]
) -> Tensor:
    """`rnn_cell` with options: h'."""
    return f(x + options.product(h, W))


def lstm_with_options(options: RecurrentOptions, x: Tensor, h: Tensor, c: Tensor, W: Tensor) -> tuple[Tensor, ...]:
    """`lstm_cell` with options: the gates after their nonlinearities, and the new states, as i, f, o, g, h', c'."""
    i, f, g, o = ops.split(x + options.product(h, W), 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    c = f * c + i * g
    return i, f, o, g, o * ops.tanh(options.norm("c", c)), c


def gru_with_options(
    options: RecurrentOptions, x: Tensor, h: Tensor, W: Tensor, b: Tensor | None
) -> tuple[Tensor, ...]:
    """`gru_cell` with options: the gates, the state's part m of the candidate, and the new state, as r, z, n, m, h'."""
    x_r, x_z, x_n = ops.split(x, 3, axis=-1)
    h_r, h_z, m = ops.split(options.product(h, W), 3, axis=-1)
    if b is not None:
        m = m + b
    r, z = ops.sigmoid(x_r + h_r), ops.sigmoid(x_z + h_z)
    n = ops.tanh(x_n + r * m)
    return r, z, n, m, n + z * (h - n)


def make_norms(module: Module, tail: str, gates: int, H: int, dtype: Any, device: str | None) -> None:
    """Give `module` the gains, ones, and the biases, zeros, of one direction of one layer."""
    for name, blocks in BLOCKS[gates].items():
        for what, make in (("weight", creation.ones), ("bias", creation.zeros)):
            value = Parameter(make(sum(blocks) * H), dtype or "float32", device)
            setattr(module, f"norm_{what}_{name}{tail}", value)


def options_of(module: Any, tail: str, mask: Tensor | None = None) -> RecurrentOptions:
    """The options of one direction of one layer, or of a cell; `mask` is that of recurrent dropout, where it is on."""
    precision = getattr(module, "precision", "float32")  # which cells have not
    if not module.layer_norm:
        plain = mask is None and precision == "float32"
        return NO_OPTIONS if plain else RecurrentOptions(mask=mask, precision=precision)
    norms = {}
    for name, blocks in BLOCKS[module.gates].items():
        cuts = [n * module.hidden_size for n in blocks[:-1]]  # there are two blocks at most
        gain, bias = (ops.split(getattr(module, f"norm_{what}_{name}{tail}"), cuts) for what in ("weight", "bias"))
        norms[name] = list(zip(gain, bias, strict=True))
    return RecurrentOptions(norms, mask, precision)
