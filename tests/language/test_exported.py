"""A model as one file: what stands in it, and what is refused when it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.language.exported import exported, read_exported

TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.ones(2)}
HEADER = {"vocabulary": '\n "é\ud800', "step": 3, "figures": {"bits": 0.1}, "config": {}}


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(exported(TENSORS, HEADER))
    tensors, header = read_exported(path)
    assert header == HEADER and tensors.keys() == TENSORS.keys()
    assert all(np.array_equal(tensors[name], TENSORS[name]) for name in TENSORS)
    with safe_open(str(path), framework="numpy") as file:
        assert file.metadata()["format"] == "tinygrad-rnn model" and file.metadata()["step"] == "3"


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = exported(TENSORS, HEADER)
    path = tmp_path / "m.safetensors"
    places = np.random.default_rng(0).choice(len(data), 200, replace=False)
    for at in (*places.tolist(), len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            tensors, header = read_exported(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:  # a blank that fills the header up
            assert header == HEADER and all(np.array_equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (None, "not a model that tinygrad-rnn has exported"),
        ({"format": "pt"}, "not a model that tinygrad-rnn has exported"),
        ({"format": "tinygrad-rnn model", "version": "2"}, "format version 2, this program reads 1: upgrade it"),
        ({"format": "tinygrad-rnn model", "version": "1", "step": "1"}, "damaged: its SHA-256 differs"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, metadata: dict[str, str] | None, why: str) -> None:
    save_file({"a": np.ones(2)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(CheckpointError, match=why):
        read_exported(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read: "):
        read_exported(tmp_path / "none.safetensors")
