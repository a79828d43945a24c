"""Sixty right layers of the kinds that people write: each makes a function or a module of an rng, and its inputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tinygrad_rnn as tr
from tinygrad_rnn import nn
from tinygrad_rnn.nn import functional as F

RIGHT: dict[str, Callable[[np.random.Generator], tuple[Any, ...]]] = {}


def right(make: Any) -> Any:
    """A layer by the name of the function that makes it, with its inputs."""
    RIGHT[make.__name__.strip("_").replace("_", " ")] = make
    return make


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape)


class Layer(nn.Module):
    """Parameters of these shapes, and `forward`, a function of itself and its inputs."""

    def __init__(self, rng: np.random.Generator, forward: Callable[..., Any], **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(0.5 * rng.standard_normal(shape)))
        self.f = forward

    def forward(self, *args: Any) -> Any:
        return self.f(self, *args)


# --- without memory -----------------------------------------------------------------------------------------


@right
def linear(rng):
    return lambda x, W, b: x @ W.mT + b, normal(rng, 4, 3), normal(rng, 2, 3), normal(rng, 2)


@right
def linear_module(rng):
    return nn.Linear(3, 2), normal(rng, 4, 3)


@right
def two_layers_of_tanh(rng):
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), normal(rng, 5, 3)


@right
def two_layers_of_relu(rng):
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), normal(rng, 5, 3)


@right
def relu_of_what_is_off_its_kink(rng):
    return tr.relu, rng.permutation(np.linspace(-3, 3, 12)).reshape(3, 4)


@right
def activations(rng):
    fs = (tr.gelu, tr.silu, tr.softplus, tr.elu, tr.leaky_relu, tr.sigmoid)
    return lambda x: tuple(f(x) for f in fs), rng.permutation(np.linspace(-3, 3, 6)).reshape(3, 2)


@right
def prelu_with_a_slope_of_no_axes(rng):
    return Layer(rng, lambda m, x: tr.where(x > 0, x, m.a * x), a=()), normal(rng, 4, 3)


@right
def swish_with_a_temperature(rng):
    return lambda x, b: x * tr.sigmoid(b * x), normal(rng, 3, 2), normal(rng)


@right
def maxout(rng):
    return lambda x, W: tr.max(tr.reshape(x @ W, (-1, 2, 3)), axis=-1), normal(rng, 4, 3), normal(rng, 3, 6)


@right
def gated_linear_unit(rng):
    def glu(x):
        a, b = tr.split(x, 2, axis=-1)
        return a * tr.sigmoid(b)

    return glu, normal(rng, 3, 4)


@right
def highway(rng):
    def f(m, x):
        t = tr.sigmoid(x @ m.T + m.b)
        return t * tr.tanh(x @ m.H) + (1 - t) * x

    return Layer(rng, f, T=(3, 3), H=(3, 3), b=(3,)), normal(rng, 4, 3)


@right
def residual_with_norm_first(rng):
    layer = Layer(rng, lambda m, x: x + m.scale * m.inner(x), scale=(4,))
    layer.inner = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU())
    return layer, normal(rng, 3, 4)


@right
def layer_norm(rng):
    return nn.LayerNorm(4), normal(rng, 3, 4)


@right
def rms_norm(rng):
    return Layer(rng, lambda m, x: m.w * x / tr.sqrt(tr.mean(x * x, axis=-1, keepdims=True) + 1e-6), w=(4,)), normal(
        rng, 3, 4
    )


@right
def group_norm_by_hand(rng):
    def f(x):
        y = tr.reshape(x, (x.shape[0], 2, -1))
        y = (y - tr.mean(y, axis=-1, keepdims=True)) / tr.std(y, axis=-1, keepdims=True)
        return tr.reshape(y, x.shape)

    return f, normal(rng, 3, 6)


@right
def batch_norm(rng):
    return nn.BatchNorm1d(3), normal(rng, 5, 3)


@right
def batch_norm_after_linear(rng):
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), normal(rng, 5, 3)


@right
def batch_norm_after_linear_of_large_inputs(rng):
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), 100 * normal(rng, 5, 3)


@right
def centred_over_the_batch(rng):
    def f(x, W, b):
        y = x @ W + b
        return y - tr.mean(y, axis=0)

    return f, normal(rng, 4, 3), normal(rng, 3, 2), normal(rng, 2)


@right
def softmax_of_shifted_logits(rng):
    return lambda x, c: tr.softmax(x + c), normal(rng, 4, 3), normal(rng, 1)


@right
def weight_norm(rng):
    def f(m, x):
        return x @ (m.v * (m.g / tr.sqrt(tr.sum(m.v * m.v, axis=1, keepdims=True)))).mT

    return Layer(rng, f, v=(2, 3), g=(2, 1)), normal(rng, 4, 3)


@right
def dropout(rng):
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.4), nn.Linear(4, 2)), normal(rng, 5, 3)


@right
def dropout_that_scales_by_a_drawn_number(rng):
    def f(m, x):
        return x * m.w * (1 + 0.1 * tr.randn(1, dtype=x.dtype)) if m.training else x * m.w

    return Layer(rng, f, w=(3,)), normal(rng, 4, 3)


@right
def bilinear(rng):
    return (
        lambda a, b, W: tr.einsum("ni,oij,nj->no", a, W, b),
        normal(rng, 3, 2),
        normal(rng, 3, 4),
        normal(rng, 2, 2, 4),
    )


@right
def cosine_similarity(rng):
    def f(a, b):
        return tr.sum(a * b, axis=-1) / (tr.norm(a, axis=-1) * tr.norm(b, axis=-1))

    return f, normal(rng, 3, 4), normal(rng, 3, 4)


@right
def factorisation_machine(rng):
    def f(x, V):
        return 0.5 * tr.sum(tr.square(x @ V) - tr.square(x) @ tr.square(V), axis=-1)

    return f, normal(rng, 4, 3), normal(rng, 3, 2)


@right
def mixture_of_experts(rng):
    def f(m, x):
        return tr.einsum("ne,enh->nh", tr.softmax(x @ m.gate), tr.einsum("ni,eih->enh", x, m.W))

    return Layer(rng, f, gate=(3, 2), W=(2, 3, 2)), normal(rng, 4, 3)


# --- ids, masks, windows ------------------------------------------------------------------------------------


@right
def embedding(rng):
    return nn.Embedding(5, 3), rng.integers(0, 5, (2, 4))


@right
def rows_of_a_table_with_repeated_and_negative_ids(rng):
    return lambda W: W[np.array([1, -1, 1, 4, 0])], normal(rng, 5, 2)


@right
def tied_language_model(rng):
    class Tied(nn.Module):
        def __init__(self):
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)
            self.head.weight = self.embedding.weight

        def forward(self, ids):
            return tr.log_softmax(self.head(tr.tanh(self.embedding(ids))))

    return Tied(), rng.integers(0, 5, (2, 3))


@right
def bag_of_embeddings_without_padding(rng):
    def f(m, ids):
        mask = (ids._array > 0)[..., None].astype(m.W.dtype)
        return tr.sum(m.W[ids] * mask, axis=1) / np.maximum(mask.sum(1), 1)

    return Layer(rng, f, W=(5, 2)), rng.integers(0, 5, (3, 4))


@right
def positions_kept_in_a_table(rng):
    class Positions(nn.Module):
        def __init__(self):
            self.scale, self.table = nn.Parameter(tr.ones(())), {}

        def forward(self, x):
            key = x.shape[0], x.shape[-1], str(x.dtype)
            if key not in self.table:
                self.table[key] = F.positional_encoding(*key[:2]).to(x.dtype)[:, None]
            return x + self.scale * self.table[key]

    return Positions(), normal(rng, 4, 2, 6)


@right
def causal_mask_that_grows(rng):
    class Causal(nn.Module):
        def __init__(self):
            self.mask = np.zeros((0, 0), bool)

        def forward(self, scores):
            n = scores.shape[-1]
            if len(self.mask) < n:
                self.mask = np.tril(np.ones((n, n), bool))
            return tr.softmax(tr.where(self.mask[:n, :n], scores, -1e9))

    return Causal(), normal(rng, 2, 4, 4)


@right
def attention_by_hand(rng):
    def f(q, k, v):
        return tr.softmax(q @ k.mT / np.sqrt(q.shape[-1])) @ v

    return f, normal(rng, 2, 3, 4), normal(rng, 2, 5, 4), normal(rng, 2, 5, 2)


@right
def attention_with_a_mask(rng):
    mask = np.array([[True, True, False], [True, False, False]])

    def f(q, k, v):
        return tr.softmax(tr.where(mask[:, None], q @ k.mT, -np.inf)) @ v

    return f, normal(rng, 2, 2, 4), normal(rng, 2, 3, 4), normal(rng, 2, 3, 4)


@right
def multihead_attention(rng):
    layer = Layer(rng, lambda m, x: m.attention(x, x, x, is_causal=True)[0] * m.w, w=(4,))
    layer.attention = nn.MultiheadAttention(4, 2)
    return layer, normal(rng, 3, 2, 4)


@right
def additive_attention(rng):
    return nn.AdditiveAttention(2, 3, 4), (normal(rng, 2, 2, 2)), normal(rng, 3, 2, 3)


@right
def transformer_layer(rng):
    return nn.TransformerEncoderLayer(4, 2, 4, dropout=0.1), normal(rng, 2, 2, 4)


@right
def convolution(rng):
    return nn.Conv1d(2, 3, 3, padding=1), normal(rng, 2, 2, 5)


@right
def convolution_as_windows(rng):
    def f(x, w):
        return tr.sum(tr.stack([x[:, i : i + 3] for i in range(x.shape[1] - 2)], axis=1) * w, axis=-1)

    return f, normal(rng, 2, 6), normal(rng, 3)


@right
def convolution_and_max_pooling(rng):
    return nn.Sequential(nn.Conv1d(2, 2, 2), nn.ReLU(), nn.MaxPool1d(2)), normal(rng, 2, 2, 6)


@right
def max_pooling_of_windows_that_overlap(rng):
    return nn.MaxPool1d(3, stride=1), rng.permutation(16.0 * np.arange(12)).reshape(2, 1, 6) / 16 - 5.7


@right
def maximum_over_time(rng):
    return lambda x: tr.max(x, axis=0), normal(rng, 4, 3)


@right
def the_two_largest(rng):
    def f(x):
        return tr.take_along_axis(x, np.argsort(x._array.real, axis=-1)[..., -2:], axis=-1)

    return f, normal(rng, 3, 4)


# --- losses -------------------------------------------------------------------------------------------------


@right
def cross_entropy(rng):
    ids = rng.integers(0, 4, 3)
    return lambda x: F.cross_entropy(x, ids, label_smoothing=0.1), normal(rng, 3, 4)


@right
def huber_and_l1(rng):
    return lambda x, y: F.huber_loss(x, y) + F.l1_loss(x, y), normal(rng, 3, 4), 1.7 + normal(rng, 3, 4)


@right
def binary_cross_entropy_by_hand(rng):
    t = rng.integers(0, 2, (3, 2))
    return lambda x: -tr.mean(t * tr.log(tr.sigmoid(x)) + (1 - t) * tr.log(1 - tr.sigmoid(x))), normal(rng, 3, 2)


@right
def divergence_of_two_gaussians(rng):
    return lambda m, s: 0.5 * tr.sum(tr.exp(s) + m * m - 1 - s), normal(rng, 3, 2), normal(rng, 3, 2)


@right
def gradient_penalty(rng):
    def f(x, W):
        x = x if x.requires_grad else tr.Tensor(x._array, requires_grad=True)
        g = tr.grad(tr.sum(tr.tanh(x @ W)), x, create_graph=True)
        return tr.sum(g * g)

    return f, normal(rng, 3, 2), normal(rng, 2, 2)


# --- with memory --------------------------------------------------------------------------------------------


@right
def gru_cell(rng):
    return nn.GRUCell(2, 3), normal(rng, 4, 2), normal(rng, 4, 3)


@right
def lstm_cell_of_two_states(rng):
    return nn.LSTMCell(2, 3), normal(rng, 2, 2), (normal(rng, 2, 3), normal(rng, 2, 3))


@right
def lstm_of_both_directions(rng):
    return nn.LSTM(2, 2, bidirectional=True), normal(rng, 3, 2, 2)


@right
def gru_of_two_layers_with_dropout(rng):
    return nn.GRU(2, 2, num_layers=2, dropout=0.3), normal(rng, 3, 2, 2)


@right
def elman_that_returns_a_dict(rng):
    def f(x, h, W, U):
        hs = []
        for t in range(x.shape[0]):
            h = tr.tanh(x[t] @ W + h @ U)
            hs.append(h)
        return {"hs": hs, "last": h, "nothing": None}

    return f, normal(rng, 3, 2, 2), normal(rng, 2, 3), normal(rng, 2, 3), normal(rng, 3, 3)


class State(NamedTuple):
    h: Any
    steps: Any


@right
def cell_that_counts_its_steps(rng):
    def f(m, x, h, n):
        n = n + 1
        return State(tr.tanh(x @ m.W + h) / n, n)

    return Layer(rng, f, W=(2, 3)), normal(rng, 4, 2), normal(rng, 4, 3), np.array([[0], [1], [5], [2]])


@right
def checkpointed_network(rng):
    inner = nn.Linear(3, 3)

    class Checkpointed(nn.Module):
        def __init__(self):
            self.inner, self.drop = inner, nn.Dropout(0.3)

        def forward(self, x):
            return tr.checkpoint(lambda v: self.drop(tr.tanh(self.inner(v))), x)

    return Checkpointed(), normal(rng, 4, 3)


@right
def checkpointed_steps(rng):
    class Checkpointed(nn.Module):
        def __init__(self):
            self.cell = nn.GRUCell(2, 2)

        def forward(self, x, h):
            for t in range(x.shape[0]):
                h = tr.checkpoint(self.cell, x[t], h)
            return h

    return Checkpointed(), normal(rng, 3, 2, 2), normal(rng, 2, 2)


@right
def linear_memory_as_a_sum_of_powers(rng):
    return (
        lambda x, a: tr.stack([tr.sum(x * a ** float(k), axis=0) for k in range(3)]),
        normal(rng, 3, 2),
        0.5 + rng.random(2),
    )


# --- modules with more in them ------------------------------------------------------------------------------


@right
def running_average_that_is_a_buffer(rng):
    class Averaged(nn.Module):
        """Takes off the running `average`."""

        def __init__(self):
            self.register_buffer("average", tr.zeros(3))
            self.scale = nn.Parameter(tr.ones(3))

        def forward(self, x):
            before = self.average
            if self.is_training():
                self.average = (0.9 * before + 0.1 * tr.mean(x, axis=0)).detach()
            return (x - before) * self.scale

    return Averaged(), normal(rng, 4, 3)


@right
def a_parameter_that_only_training_uses(rng):
    return Layer(rng, lambda m, x: x * m.w + (m.noise if m.training else 0.0), w=(3,), noise=(3,)), normal(rng, 4, 3)


@right
def a_frozen_part(rng):
    inner = Layer(rng, lambda m, x: tr.tanh(x @ m.W) @ m.V, W=(3, 4), V=(4, 2))
    inner.W.requires_grad = False
    return inner, normal(rng, 4, 3)


@right
def a_weight_that_is_an_output(rng):
    return Layer(rng, lambda m, x: OrderedDict(y=x @ m.W, penalty=tr.sum(m.W * m.W), W=m.W), W=(3, 2)), normal(
        rng, 4, 3
    )


@right
def own_op_of_a_layer(rng):
    @tr.op(joint=lambda g, x, W, b: (g @ W.mT, x.mT @ g, tr.sum(g, axis=0)))
    def affine(x, W, b):
        return x @ W + b

    return lambda x, W, b: tr.tanh(affine(x, W, b)), normal(rng, 4, 3), normal(rng, 3, 2), normal(rng, 2)


@right
def own_op_with_a_rule_for_arrays_alone(rng):
    @tr.op(lambda g, y: np.multiply(g, 1 - np.square(y)))
    def tanh(x):
        return np.tanh(x)

    return tanh, normal(rng, 4, 3)


@right
def complex_rotation_of_pairs(rng):
    angle = rng.uniform(0, 6, (4, 1))

    def f(x):
        a, b = x[..., 0::2], x[..., 1::2]
        c, s = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
        return tr.reshape(tr.stack([a * c - b * s, a * s + b * c], axis=-1), x.shape)

    return f, normal(rng, 4, 4)
