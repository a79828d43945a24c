"""The layers without time and the losses, proven with the public kit: derivatives by inputs and parameters, and laws.

Recurrent layers have a kit and tests of their own.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tests.profiles import examples
from tinygrad_rnn import nn
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.testing import Boolean, Case, Distinct, Domain, GradientError, Integer, Real, check_module, check_op
from tinygrad_rnn.testing.ops import check_case
from tinygrad_rnn.testing.strategies import arrays, shapes

EXAMPLES = examples(dev=8, ci=15, thorough=300).max_examples
LOSSES = examples(dev=15, ci=30, thorough=500).max_examples


SEEN = np.array([[True, True], [True, True], [False, True]])  # (S, B): the keys of two sequences, one shorter


class SelfAttention(nn.Module):
    def __init__(self):
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3)

    def forward(self, x):
        return self.attention(x, x, x, is_causal=True, average_attn_weights=False)


class TiedLanguageModel(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(tr.tanh(self.embedding(ids)))


class Outputs(nn.Module):
    """The outputs of a recurrent layer with two of its options; the rest of its laws: test_recurrent_options.py."""

    def __init__(self, layer):
        self.layer = layer(2, 3, layer_norm=True, recurrent_dropout=0.3)

    def forward(self, x):
        return self.layer(x)[0]


LAYERS = {
    "Linear": (lambda: nn.Linear(3, 2), "*3"),
    "Linear without bias": (lambda: nn.Linear(3, 2, bias=False), "*3"),
    "Embedding": (lambda: nn.Embedding(5, 3), arrays(shapes(), Integer(0, 5))),
    "Embedding, padded": (lambda: nn.Embedding(5, 3, padding_idx=0), arrays(shapes(), Integer(1, 5))),
    "LayerNorm": (lambda: nn.LayerNorm(4), "*4"),
    "LayerNorm of two axes": (lambda: nn.LayerNorm((2, 3)), "*23"),
    "LayerNorm without bias": (lambda: nn.LayerNorm(4, bias=False), "*4"),
    "LayerNorm without parameters": (lambda: nn.LayerNorm(4, elementwise_affine=False), "*4"),
    "Dropout": (lambda: nn.Dropout(0.4), "*"),
    "Dropout of all": (lambda: nn.Dropout(1.0), "*"),
    "Tanh": (nn.Tanh, "*"),
    "Sigmoid": (nn.Sigmoid, "*"),
    "ReLU": (nn.ReLU, "*"),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1), "*"),
    "ELU": (lambda: nn.ELU(0.7), "*"),
    "GELU": (nn.GELU, "*"),
    "SiLU": (nn.SiLU, "*"),
    "Softplus": (nn.Softplus, "*"),
    "Softmax": (nn.Softmax, "*3"),
    "Softmax over another axis": (lambda: nn.Softmax(0), "3n"),
    "LogSoftmax": (nn.LogSoftmax, "*3"),
    "Sequential": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), tr.tanh, nn.Dropout(0.3), nn.Linear(4, 2)),
        "*3",
    ),
    "a deep one with kinks": (
        lambda: nn.Sequential(*(m for _ in range(3) for m in (nn.Linear(4, 4), nn.ReLU()))),
        "n4",
    ),
    "an embedding and its transpose": (TiedLanguageModel, arrays(shapes(min_dims=1), Integer(0, 5))),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 2), "n24 | 24"),
    "Conv1d with everything": (
        lambda: nn.Conv1d(4, 2, 3, stride=2, padding=1, dilation=2, groups=2, bias=False),
        arrays((2, 4, 6)),
    ),
    "Conv2d": (lambda: nn.Conv2d(2, 2, (2, 3), padding="same"), arrays((2, 2, 3, 4))),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), arrays((2, 2, 5), Distinct())),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, stride=2, padding=1), arrays((1, 2, 4, 3), Distinct())),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, stride=1, padding=1), arrays((2, 2, 5))),
    "AvgPool2d": (lambda: nn.AvgPool2d(2, padding=1, count_include_pad=False), arrays((1, 2, 4, 3))),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(2), arrays((5, 2), Distinct())),
    "BatchNorm1d of sequences": (lambda: nn.BatchNorm1d(2, momentum=None), arrays((3, 2, 2), Distinct())),
    "AdditiveAttention": (
        lambda: nn.AdditiveAttention(2, 3, 4),
        st.tuples(arrays((2, 2, 2)), arrays((3, 2, 3)), arrays((3, 2, 1)), st.just(SEEN)),
    ),
    "DotAttention": (nn.DotAttention, st.tuples(arrays((2, 3)), arrays((3, 2, 3)))),
    "DotAttention, general": (lambda: nn.DotAttention(2, 3), st.tuples(arrays((2, 2, 2)), arrays((3, 2, 3)))),
    "MultiheadAttention": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=2, bias=False),
        st.tuples(arrays((2, 2, 4)), arrays((3, 2, 3)), arrays((3, 2, 2)), st.just(~SEEN.T), st.booleans()),
    ),
    "MultiheadAttention to itself": (SelfAttention, arrays((3, 2, 4))),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 5, dropout=0.2), arrays((3, 2, 4))),
    "RNN with its options": (lambda: Outputs(nn.RNN), arrays((2, 1, 2))),
    "LSTM with its options": (lambda: Outputs(nn.LSTM), arrays((2, 1, 2))),
    "GRU with its options": (lambda: Outputs(nn.GRU), arrays((2, 1, 2))),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2, affine=False), arrays((2, 2, 1, 3), Distinct())),
}
PROVEN_ELSEWHERE = {
    "Module",
    "ModuleList",
    "RNN",
    "LSTM",
    "GRU",
    "RNNCell",
    "LSTMCell",
    "GRUCell",
}


def test_every_layer_has_a_row():
    layers = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)} - {"Parameter"}
    named = {type(factory()).__name__ for factory, _ in LAYERS.values()}
    assert not layers - named - PROVEN_ELSEWHERE, "layers without a row in LAYERS, above"


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    factory, inputs = LAYERS[name]
    large = "options" in name or name.startswith("Transformer")  # as slow as all the others together
    counts = check_module(factory, inputs, order=2, examples=EXAMPLES // 5 if large else EXAMPLES)
    assert counts["gradient"] == counts["second derivative"] == counts["float32"] == counts["state"]
    if any(True for _ in factory().parameters()):
        assert counts["reached"] == counts["frozen"] == counts["state"]


def test_the_padding_row_gets_no_gradient_on_purpose():
    """And the kit says so: the derivative by that row is not 0."""
    with pytest.raises(GradientError, match=r"input 0 \(weight\)"):
        check_module(lambda: nn.Embedding(3, 2, padding_idx=1), st.just(np.array([1, 0])), examples=5)


def test_batches_of_no_examples():
    for factory, shape in ((lambda: nn.Linear(3, 2), (0, 3)), (lambda: nn.LayerNorm(3), (2, 0, 3))):
        check_module(factory, np.zeros(shape), order=2, examples=3)


# --- losses -------------------------------------------------------------------------------------------------


def reduced(reference):
    """A reference of elements as one with `reduction`."""

    def loss(*arrays, reduction, **options):
        losses = np.asarray(reference(*arrays, **options))
        return {"none": losses, "sum": np.sum(losses), "mean": np.mean(losses)}[reduction]

    return loss


def reductions(choose, _):
    return {"reduction": choose(("mean", "sum", "none"))}


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def softmax(x):
    return np.exp(log_softmax(x))


def smoothed(x, ids, label_smoothing):
    log_p = log_softmax(x)
    picked = np.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
    return -(1 - label_smoothing) * picked - label_smoothing * np.mean(log_p, axis=-1)


def smoothing(choose, shapes):
    return {**reductions(choose, shapes), "label_smoothing": choose((0.0, 0.2))}


def huber(x, target, delta):
    d = abs(x - target)
    return np.where(d <= delta, d * d / 2, delta * (d - delta / 2))


def masked_squares(x, y, mask, reduction):
    squares = np.where(mask[:, None], (x - y) ** 2, 0)
    count = max(1, x.shape[1] * mask.sum())
    return {"none": squares, "sum": squares.sum(), "mean": squares.sum() / count}[reduction]


FUNCTIONS = (
    Domain(F.mse_loss, "mn, mn | , ", reduced(lambda x, y: (x - y) ** 2), metadata=reductions, empty=False),
    Domain(F.l1_loss, "mn, mn | n, n", reduced(lambda x, y: abs(x - y)), (Distinct(),), reductions, empty=False),
    Domain(
        F.huber_loss,
        "mn, mn | n, n",
        reduced(huber),
        (Real(-0.3, 0.3), Real(-3.0, 3.0, kinks=(0.0,), gap=1.5)),
        lambda choose, shapes: {**reductions(choose, shapes), "delta": choose((1.0, 4.0))},
        empty=False,
    ),
    Domain(
        F.binary_cross_entropy_with_logits,
        "mn, mn",
        reduced(lambda x, p: np.log(1 + np.exp(x)) - p * x),
        (Real(-3, 3), Real(0, 1)),
        reductions,
        empty=False,
    ),
    Domain(
        F.cross_entropy,
        "mn3, mn | n3, n | 3, ",
        reduced(smoothed),
        (Real(-3, 3), Integer(0, 3)),
        smoothing,
        empty=False,
    ),
    Domain(
        F.nll_loss,
        "mn3, mn | n3, n",
        reduced(lambda x, ids: -np.take_along_axis(x, ids[..., None], axis=-1)[..., 0]),
        (Real(-3, 3), Integer(0, 3)),
        reductions,
        empty=False,
    ),
    Domain(
        F.mse_loss,
        "mn, mn, m",
        masked_squares,
        (Real(), Real(), Boolean()),
        reductions,
        empty=False,
        call=lambda op, x, y, mask, **options: op(x, y, mask=mask, **options),
        name="mse_loss with a mask",
    ),
    Domain(
        F.cross_entropy,
        "mn3, mn, mn",
        lambda x, ids, mask: np.sum(np.where(mask, smoothed(x, ids, 0.0), 0)) / max(1, mask.sum()),
        (Real(-3, 3), Integer(0, 3), Boolean()),
        empty=False,
        call=lambda op, x, ids, mask: op(x, ids, mask=mask),
        name="cross_entropy with a mask",
    ),
    Domain(
        F.ctc_loss,
        "423",
        values=(Real(-3.0, -0.5),),
        metadata=reductions,
        analytic=None,
        call=lambda op, x, **options: op(x, np.array([[1, 2], [2, 0]]), np.array([4, 2]), np.array([2, 1]), **options),
    ),  # its value: test_ctc.py
    Domain(
        F.scaled_dot_product_attention,
        "bmd, bnd, bne",
        lambda q, k, v: softmax(np.einsum("bmd,bnd->bmn", q, k) / np.sqrt(q.shape[-1])) @ v,
        values=(Distinct(),),  # where all values are equal, the gradient of the rest is rounding
        analytic=None,
        empty=False,
    ),
    Domain(
        F.layer_norm,
        "*4, 4, 4",
        lambda x, w, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b,
        (Distinct(),),  # it divides by the deviation
        analytic=None,
        call=lambda op, x, w, b: op(x, 4, w, b),
    ),
)


@pytest.mark.parametrize("domain", FUNCTIONS, ids=str)
def test_function(domain):
    counts = check_op(domain.op, domain, examples=LOSSES)
    assert counts["gradient"] == counts["second derivative"] == counts["repeats"]
    assert counts["value"] == (counts["repeats"] if domain.reference else 0)


# Found by long runs: what float32 and float16 have left where terms cancel inside.
PINNED = [("cross_entropy with a mask", Case(((2, 2, 3), (2, 2), (2, 2)), seed=4_106_777_278))]


@pytest.mark.parametrize(("name", "case"), PINNED)
def test_pinned(name, case):
    (domain,) = (row for row in FUNCTIONS if str(row) == name)
    assert check_case(domain, case)["float32"]
