"""Layers, losses and initialisers, with PyTorch's names, arguments, shapes and results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_rnn.nn import functional, init
from tinygrad_rnn.nn.attention import AdditiveAttention, DotAttention, MultiheadAttention, TransformerEncoderLayer
from tinygrad_rnn.nn.cells import GRUCell, LSTMCell, RNNCell, gru_cell, lstm_cell, rnn_cell
from tinygrad_rnn.nn.convolution import AvgPool1d, AvgPool2d, Conv1d, Conv2d, MaxPool1d, MaxPool2d
from tinygrad_rnn.nn.layers import (
    ELU,
    GELU,
    Dropout,
    Embedding,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinygrad_rnn.nn.module import Module, ModuleList, Parameter, Sequential
from tinygrad_rnn.nn.normalisation import BatchNorm1d, BatchNorm2d
from tinygrad_rnn.nn.recurrent import GRU, LSTM, RNN

__all__ = [
    "Module",
    "ModuleList",
    "Parameter",
    "Sequential",
    "Linear",
    "Embedding",
    "LayerNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "Dropout",
    "Conv1d",
    "Conv2d",
    "MaxPool1d",
    "MaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "Tanh",
    "Sigmoid",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "GELU",
    "SiLU",
    "Softplus",
    "Softmax",
    "LogSoftmax",
    "AdditiveAttention",
    "DotAttention",
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "RNN",
    "LSTM",
    "GRU",
    "RNNCell",
    "LSTMCell",
    "GRUCell",
    "rnn_cell",
    "lstm_cell",
    "gru_cell",
    "functional",
    "init",
]


if not TYPE_CHECKING:  # to a type checker no name is missing then

    def __getattr__(name: str) -> Any:
        from tinygrad_rnn.pytorch import no_name

        raise no_name(__name__, name)
