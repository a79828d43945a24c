"""PyTorch's modules as ours: for each a function that makes ours, with PyTorch's weights, from PyTorch's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tinygrad_rnn as tr
from tests.witness.adapters import (
    F,
    bce_with_logits,
    ctc_loss,
    loss,
    of_axis,
    of_classes,
    refuse_if,
    smooth_l1,
    softplus,
)

Maker = Callable[..., Callable[..., Any]]

RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


def recurrent(name: str) -> Maker:
    def make(*args: Any, proj_size: int = 0, **options: Any) -> Any:
        refuse_if(proj_size, "proj_size")
        return getattr(tr.nn, name)(*args, **options)

    return make


def plain(f: Callable[..., Any]) -> Maker:
    """What has no weights: our function with the options of PyTorch's constructor."""
    return lambda **options: lambda *inputs: f(*inputs, **options)


def layer_norm(shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True, **kind: Any) -> Any:
    return tr.nn.LayerNorm(shape, eps, elementwise_affine, bias, **kind)


def gelu(approximate: str = "none") -> Any:
    refuse_if(approximate == "none", "erf")
    return tr.nn.GELU(approximate)


def batch_norm(name: str) -> Maker:
    def make(*args: Any, bias: bool = True, **options: Any) -> Any:
        refuse_if(not bias, "one bias")
        return getattr(tr.nn, name)(*args, **options)

    return make


def attention(*args: Any, add_bias_kv: bool = False, add_zero_attn: bool = False, **options: Any) -> Any:
    refuse_if(add_bias_kv or add_zero_attn, "added keys")
    return tr.nn.MultiheadAttention(*args, **options)


def encoder_layer(*args: Any, activation: Any = "relu", **options: Any) -> Any:
    refuse_if(activation != "relu" or any(map(callable, args)), "erf")
    return tr.nn.TransformerEncoderLayer(*args, **options)


def max_pool(name: str) -> Maker:
    def make(*args: Any, return_indices: bool = False) -> Any:
        refuse_if(return_indices, "places")
        return getattr(tr.nn, name)(*args)

    return make


def avg_pool(name: str) -> Maker:
    def make(*args: Any, divisor_override: Any = None, **options: Any) -> Any:
        refuse_if(divisor_override is not None, "divisor")
        return getattr(tr.nn, name)(*args, **options)

    return make


def along(f: Callable[..., Any]) -> Maker:
    """PyTorch's `dim`, which may be that of a number."""
    return lambda dim: lambda x: of_axis(f)(x, dim)


def threshold(beta: float = 1, threshold: float = 20) -> Any:
    return lambda x: softplus(x, beta=beta, threshold=threshold)


MODULES: dict[str, Maker] = {
    **{f"nn.{name}": recurrent(name) for name in RECURRENT},
    "nn.Linear": tr.nn.Linear,
    "nn.Embedding": tr.nn.Embedding,
    "nn.LayerNorm": layer_norm,
    "nn.MultiheadAttention": attention,
    "nn.TransformerEncoderLayer": encoder_layer,
    "nn.CTCLoss": plain(ctc_loss),
    "nn.BatchNorm1d": batch_norm("BatchNorm1d"),
    "nn.BatchNorm2d": batch_norm("BatchNorm2d"),
    "nn.Conv1d": tr.nn.Conv1d,
    "nn.Conv2d": tr.nn.Conv2d,
    "nn.MaxPool1d": max_pool("MaxPool1d"),
    "nn.MaxPool2d": max_pool("MaxPool2d"),
    "nn.AvgPool1d": avg_pool("AvgPool1d"),
    "nn.AvgPool2d": avg_pool("AvgPool2d"),
    "nn.Tanh": tr.nn.Tanh,
    "nn.Sigmoid": tr.nn.Sigmoid,
    "nn.ReLU": tr.nn.ReLU,
    "nn.LeakyReLU": tr.nn.LeakyReLU,
    "nn.ELU": tr.nn.ELU,
    "nn.SiLU": tr.nn.SiLU,
    "nn.GELU": gelu,
    "nn.Softplus": threshold,
    "nn.Softmax": along(lambda x, axis: tr.nn.Softmax(axis)(x)),
    "nn.LogSoftmax": along(lambda x, axis: tr.nn.LogSoftmax(axis)(x)),
    "nn.CrossEntropyLoss": plain(of_classes(F.cross_entropy)),
    "nn.NLLLoss": plain(of_classes(F.nll_loss)),
    "nn.MSELoss": plain(loss(F.mse_loss)),
    "nn.L1Loss": plain(loss(F.l1_loss)),
    "nn.HuberLoss": plain(loss(F.huber_loss)),
    "nn.SmoothL1Loss": plain(smooth_l1),
    "nn.BCEWithLogitsLoss": plain(bce_with_logits),
}
LAYERS = (*RECURRENT, "Linear", "Embedding", "LayerNorm", "BatchNorm1d", "BatchNorm2d", "Conv1d", "Conv2d")
WITH_DTYPE = {f"nn.{name}" for name in (*LAYERS, "MultiheadAttention", "TransformerEncoderLayer")}
