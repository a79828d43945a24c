"""What the options `layer_norm` and `recurrent_dropout` add to a recurrent step.

The equations of `cells` say `extras.product(h, W, V)` where the state meets its weights, and `extras.norm("c", c)`
where the LSTM reads its cell. Without the options that is h Wᵀ and c. The kernels do not know them: with an option on,
the plain steps run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinygrad_rnn.nn.functional import check_probability, layer_norm
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.tensor import creation, ops
from tinygrad_rnn.tensor.backend import Array, dot
from tinygrad_rnn.tensor.graph import Product
from tinygrad_rnn.tensor.op import op
from tinygrad_rnn.tensor.tensor import Tensor

# What is normalised, by the number of gates: blocks of so many times H numbers, each with a mean and a variance of its
# own. The GRU's candidate stands apart, since the reset gate scales the state's part of it.
BLOCKS: dict[int, dict[str, tuple[int, ...]]] = {
    1: {"ih": (1,), "hh": (1,)},
    3: {"ih": (2, 1), "hh": (2, 1)},
    4: {"ih": (4,), "hh": (4,), "c": (1,)},
}


@op(lambda g, W: g @ W, lambda g, h: Product(g, h), None)
def _product(h: Array, W: Array, V: Array | None) -> Array:
    return dot(h, W.T if V is None else V)


@op(lambda g: g, lambda g, W: g @ W, lambda g, h: Product(g, h), None)
def _add_product(x: Array, h: Array, W: Array, V: Array | None) -> Array:
    return x + dot(h, W.T if V is None else V)


@dataclass(frozen=True)
class Extras:
    """The additions of one direction of one layer; `PLAIN` is none.

    Layer normalisation is that of Ba, Kiros and Hinton (2016, arXiv:1607.06450, equations 20 to 22 for the LSTM; the
    GRU is in the supplement, too): `norms` has for "ih" (the projected input), "hh" (the projected state) and "c" (the
    cell) a gain and a bias for each block. The layer's own biases are added afterwards.

    Recurrent dropout is that of Gal and Ghahramani (2016, arXiv:1512.05287): `mask` (B, H), 0 or 1 / (1 - p), is the
    same at every step, and multiplies what enters the product alone. The state itself is not masked: not where it is
    carried over or returned, and not in the GRU's z h.
    """

    norms: Mapping[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    mask: Tensor | None = None

    def project(self, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        """What the input gives to the steps: x Wᵀ, normalised, + b."""
        if "ih" not in self.norms:
            return ops.linear(x, W, b)
        x = self.norm("ih", ops.linear(x, W))
        return x if b is None else x + b

    def product(self, h: Tensor, W: Tensor, V: Tensor | None, x: Tensor | None = None) -> Tensor:
        """What the state h (n, H) gives to a step: h Wᵀ of h under the mask, normalised; with `x`, x + that.

        V is None or a copy of Wᵀ, which many steps share: it makes the product faster and means nothing.
        """
        if self.mask is not None:
            h = h * self.mask[: h.shape[0]]  # the sequences that still run come first
        if x is not None and "hh" not in self.norms:
            return _add_product(x, h, W, V)
        y = self.norm("hh", _product(h, W, V))
        return y if x is None else x + y

    def norm(self, name: str, x: Tensor) -> Tensor:
        """`x` normalised block by block, where there is such a norm."""
        if name not in self.norms:
            return x
        blocks = self.norms[name]
        pieces = [x] if len(blocks) == 1 else ops.split(x, blocks[0][0].shape, axis=-1)
        done = [layer_norm(p, gain.shape, gain, bias) for p, (gain, bias) in zip(pieces, blocks, strict=True)]
        return done[0] if len(done) == 1 else ops.concatenate(done, axis=-1)


PLAIN = Extras()


def make_norms(module: Module, tail: str, gates: int, H: int, dtype: Any, device: str | None) -> None:
    """Give `module` the gains, ones, and the biases, zeros, of one direction of one layer."""
    for name, blocks in BLOCKS[gates].items():
        for what, make in (("weight", creation.ones), ("bias", creation.zeros)):
            value = Parameter(make(sum(blocks) * H), dtype or "float32", device)
            setattr(module, f"norm_{what}_{name}{tail}", value)


def extras_of(module: Any, tail: str, mask: Tensor | None = None) -> Extras:
    """The additions of one direction of one layer, or of a cell: `PLAIN` without any."""
    if not module.layer_norm:
        return PLAIN if mask is None else Extras(mask=mask)
    norms = {}
    for name, blocks in BLOCKS[module.gates].items():
        cuts = [n * module.hidden_size for n in blocks[:-1]]  # there are two blocks at most
        gain, bias = (ops.split(getattr(module, f"norm_{what}_{name}{tail}"), cuts) for what in ("weight", "bias"))
        norms[name] = list(zip(gain, bias, strict=True))
    return Extras(norms, mask)


def check_recurrent_dropout(layer: str, p: float) -> None:
    """Raise `ValueError` unless `p` lies in [0, 1): with 1 no state would be left to scale."""
    check_probability(f"{layer}: recurrent_dropout", p)
    if p == 1:
        raise ValueError(
            f"{layer}: recurrent_dropout must be less than 1, got {p!r}: nothing of the state would be left"
        )
