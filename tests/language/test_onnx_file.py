"""The graph of ONNX computes what the model does."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.model import CharModel, CharModelConfig
from tinygrad_rnn.language.onnx_file import onnx_bytes

rng = np.random.default_rng(0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_onnxruntime_computes_the_same(cell: str, layers: int) -> None:
    """Scores and states, over any time and batch, from any state, and carried over."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    tr.manual_seed(layers)
    model = CharModel(CharModelConfig(11, cell, 5, 8, layers, dropout=0.5)).eval()
    for weight in model.parameters():
        weight.assign_(3 * weight.numpy())  # or else all gates are about the same
    session = onnxruntime.InferenceSession(onnx_bytes(model, {"step": "3"}))
    assert session.get_modelmeta().custom_metadata_map == {"step": "3"}
    names = ("h", "c") if cell == "lstm" else ("h",)
    assert [value.name for value in session.get_inputs()] == ["ids", *names]
    assert next(value.shape for value in session.get_outputs()) == ["time", "batch", 11]
    for steps, batch in ((7, 3), (1, 1)):
        state: Any = [rng.standard_normal((layers, batch, 8)).astype(np.float32) for _ in names]
        for _ in range(2):
            ids = rng.integers(0, 11, (steps, batch))
            scores, *after = session.run(None, {"ids": ids, **dict(zip(names, state, strict=True))})
            ours = tuple(map(tr.Tensor, state))
            expected, ours = model(ids, ours if cell == "lstm" else ours[0])
            np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-5)
            for found, part in zip(after, ours if cell == "lstm" else (ours,), strict=True):
                np.testing.assert_allclose(found, part.numpy(), rtol=0, atol=1e-5)
            state = after


def test_what_has_no_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    model = CharModel(CharModelConfig(3, hidden=2, embedding=2))
    with pytest.raises(InputError, match="in float32, not float64"):
        onnx_bytes(CharModel(CharModelConfig(3, hidden=2, embedding=2)).to("float64"), {})
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install onnx$"):
        onnx_bytes(model, {})
