"""The node cases of the ONNX wheel judge the values of our recurrent layers.

ONNX has the gates of an LSTM in the order i, o, f, c and those of a GRU in the order z, r, h, one array of weights for
all directions, and both biases in one. Its GRU resets the state before the product unless `linear_before_reset` says
otherwise; ours, as PyTorch's, after it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr

onnx = pytest.importorskip("onnx")

GATES = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}  # where ONNX has ours
RTOL = {"float32": 1e-6, "float64": 1e-12}
CASES = [
    *("simple_rnn_defaults", "simple_rnn_with_initial_bias", "rnn_seq_length", "simple_rnn_batchwise"),
    *("simple_rnn_reverse", "simple_rnn_bidirectional"),
    *("lstm_defaults", "lstm_with_initial_bias", "lstm_batchwise", "lstm_reverse", "lstm_bidirectional"),
    *("gru_defaults", "gru_with_initial_bias", "gru_seq_length", "gru_batchwise", "gru_reverse", "gru_bidirectional"),
]
REFUSED = {"lstm_with_peepholes": "no peepholes"}
RESET_BEFORE = {"gru_seq_length", "gru_reverse", "gru_bidirectional"}  # more than one step, where it matters


@cache
def cases() -> dict[str, Any]:
    from onnx.backend.test.case import node

    for kind in ("rnn", "lstm", "gru"):
        importlib.import_module(f"onnx.backend.test.case.node.{kind}")
    return {case.name.removeprefix("test_"): case for case in node._NodeTestCases}


def opened(case: Any) -> tuple[Any, dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A case: its node, attributes, inputs and expected outputs, by name."""
    (node,), ((inputs, outputs),) = case.model.graph.node, case.data_sets
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    names = [[n for n in given if n] for given in (node.input, node.output)]
    return node, attributes, dict(zip(names[0], inputs, strict=True)), dict(zip(names[1], outputs, strict=True))


def reordered(blocks: np.ndarray, kind: str) -> np.ndarray:
    """Weights or biases (G*H, ...) with the gates in our order."""
    return np.concatenate([np.split(blocks, len(GATES[kind]))[i] for i in GATES[kind]])


def run(kind: str, attributes: dict[str, Any], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our layer on the inputs of a case: Y, Y_h and Y_c as ONNX lays them out."""
    batch_first = attributes.get("layout", 0) == 1
    direction = attributes.get("direction", b"forward").decode()
    W, R, H = given["W"], given["R"], attributes["hidden_size"]
    x = given["X"]
    T = x.shape[1 if batch_first else 0]
    lengths = given.get("sequence_lens")
    D = W.shape[0]
    layer = getattr(tr.nn, kind)(W.shape[2], H, bidirectional=D == 2, dtype=x.dtype)
    B = given.get("B", np.zeros((D, 2 * W.shape[1]), x.dtype))
    weights = {}
    for d, tail in zip(range(D), ("_l0", "_l0_reverse"), strict=False):
        halves = np.split(B[d], 2)
        arrays = {"weight_ih": W[d], "weight_hh": R[d], "bias_ih": halves[0], "bias_hh": halves[1]}
        weights |= {name + tail: reordered(array, kind) for name, array in arrays.items()}
    layer.load_state_dict(weights)
    x = np.swapaxes(x, 0, 1) if batch_first else x
    x = x[::-1] if direction == "reverse" else x
    states = [given[name] for name in ("initial_h", "initial_c") if name in given]
    states = [np.swapaxes(s, 0, 1) if batch_first else s for s in states]
    hx = None if not states else tuple(map(tr.Tensor, states)) if kind == "LSTM" else tr.Tensor(states[0])
    output, final = layer(tr.Tensor(x), hx, lengths=None if lengths is None else lengths.tolist())
    y = output.numpy()[::-1] if direction == "reverse" else output.numpy()
    y = np.swapaxes(y.reshape(T, -1, D, H), 1, 2)  # (T, D, B, H)
    ends = [s.numpy() for s in (final if kind == "LSTM" else (final,))]
    if batch_first:
        y, ends = np.transpose(y, (2, 0, 1, 3)), [np.swapaxes(s, 0, 1) for s in ends]
    return dict(zip(("Y", "Y_h", "Y_c"), (y, *ends), strict=False))


def assert_case(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    assert expected
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
        assert np.abs(found[name] - value).max() <= RTOL[str(value.dtype)] * np.abs(value).max(), name


def test_the_list_is_complete() -> None:
    assert set(cases()) == set(CASES) | set(REFUSED)


@pytest.mark.parametrize("name", [name for name in CASES if name not in RESET_BEFORE])
def test_cases(name: str, record_property: Callable[[str, object], None]) -> None:
    node, attributes, given, expected = opened(cases()[name])
    assert_case(expected, run(node.op_type, attributes, given))
    record_property("witness", [f"ONNX {node.op_type}", {"onnx cases": 1}])


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_random_weights_and_states(
    kind: str, direction: str, layout: int, record_property: Callable[[str, object], None]
) -> None:
    """By ONNX's own evaluator, in float64: most cases have weights that are all the same, one step and no state."""
    from onnx.reference import ReferenceEvaluator

    T, B, I, H, D, G = 5, 3, 4, 2, 1 + (direction == "bidirectional"), len(GATES[kind])  # noqa: E741
    shapes = {"X": (T, B, I), "W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "initial_h": (D, B, H)}
    shapes |= {"initial_c": (D, B, H)} if kind == "LSTM" else {}
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    if layout:
        given |= {name: np.swapaxes(given[name], 0, 1) for name in given if name not in "WRB"}
    inputs = ["X", "W", "R", "B", "", *list(given)[4:]]  # the empty name: no sequence_lens
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (kind == "LSTM")]
    attributes = {"hidden_size": H, "direction": direction, "layout": layout}
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    node = onnx.helper.make_node(kind, inputs, outputs, **attributes, **options)
    values = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in names]
        for names in (given, outputs)
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], kind, *values))
    expected = dict(zip(outputs, ReferenceEvaluator(model).run(None, given), strict=True))
    assert_case(expected, run(kind, attributes | {"direction": direction.encode()}, given))
    record_property("witness", [f"ONNX {kind}", {"onnx cases": 1}])
