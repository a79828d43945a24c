"""A character model as a graph of ONNX, which other runtimes compute. The one place that knows the package onnx.

    ids (time, batch), int64                          ->   scores (time, batch, vocabulary)
    h (layers, batch, hidden), for an LSTM c as well  ->   h_next, c_next

Time and batch have any size. A state before the first character is zeros. The gates stand in ONNX's order: i, o, f, c
of an LSTM and z, r, h of a GRU, whose reset acts after the product (`linear_before_reset`), as ours and PyTorch's does.
Source: the ONNX operators LSTM, GRU and RNN, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.model import CharModel
from tinygrad_rnn.training.resume import weights

OPSET, IR = 17, 8
"""Runtimes since 2022 read them."""
INSTALL = "an ONNX file needs the package onnx: pip install onnx"

# Of each kind of layer: the operator, its gates as places among ours, and what else it must be told.
_LAYERS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2), {}),  # ours: i, f, g, o
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),  # ours: r, z, n
    "rnn": ("RNN", (0,), {}),
}


def onnx_bytes(model: CharModel, metadata: Mapping[str, str]) -> bytes:
    """The file of a model, in evaluation mode, and of `metadata`, strings by name.

    Raises ImportError, with what to install, without the package onnx, and InputError for a model of another dtype
    than float32.
    """
    try:
        import onnx
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError:
        raise ImportError(INSTALL) from None

    arrays, config = weights(model), model.config
    if wrong := {array.dtype.name for array in arrays.values()} - {"float32"}:
        raise InputError(f"an ONNX file is of a model in float32, not {wrong.pop()}")
    operator, _, told = _LAYERS[config.cell]
    states = ("h", "c") if config.cell == "lstm" else ("h",)
    layers = range(config.layers)
    constants = _constants(arrays, config.cell, layers)
    nodes: list[Any] = []
    node = helper.make_node
    nodes += [node("Split", [state, "ones"], [f"{state}_{k}" for k in layers], axis=0) for state in states]
    nodes.append(node("Gather", ["embedding", "ids"], ["x_0"], axis=0))
    for k in layers:
        given = [f"x_{k}", f"W_{k}", f"R_{k}", f"B_{k}", "", *(f"{state}_{k}" for state in states)]
        found = [f"y_{k}", *(f"{state}_next_{k}" for state in states)]
        nodes.append(node(operator, given, found, hidden_size=config.hidden, **told))
        nodes.append(node("Squeeze", [f"y_{k}", "directions"], [f"x_{k + 1}"]))
    nodes += [node("Concat", [f"{state}_next_{k}" for k in layers], [f"{state}_next"], axis=0) for state in states]
    nodes.append(node("MatMul", [f"x_{config.layers}", "output"], ["products"]))
    nodes.append(node("Add", ["products", "output_bias"], ["scores"]))

    def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    shape = config.layers, "batch", config.hidden
    graph = helper.make_graph(
        nodes,
        "tinygrad-rnn",
        [value("ids", "time", "batch", kind=TensorProto.INT64), *(value(state, *shape) for state in states)],
        [
            value("scores", "time", "batch", config.vocabulary),
            *(value(f"{state}_next", *shape) for state in states),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="tinygrad-rnn"
    )
    helper.set_model_props(made, dict(metadata))
    checker.check_model(made, full_check=True)
    data: bytes = onnx.ModelProto.SerializeToString(made)
    return data


def _constants(arrays: Mapping[str, np.ndarray], cell: str, layers: range) -> dict[str, np.ndarray]:
    """What the nodes have besides their inputs."""
    found = {
        "ones": np.ones(len(layers), np.int64),
        "directions": np.array([1], np.int64),
        "embedding": arrays["embedding.weight"],
        "output": arrays["output.weight"].T,
        "output_bias": arrays["output.bias"],
    }
    for k in layers:
        w_ih, w_hh, b_ih, b_hh = (
            _gates(arrays[f"recurrent.{name}_l{k}"], cell) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        found |= {f"W_{k}": w_ih[None], f"R_{k}": w_hh[None], f"B_{k}": np.concatenate([b_ih, b_hh])[None]}
    return found


def _gates(array: np.ndarray, cell: str) -> np.ndarray:
    """The rows of a weight or a bias, gate by gate in ONNX's order."""
    order = _LAYERS[cell][1]
    parts = np.split(array, len(order))
    return np.concatenate([parts[place] for place in order])
