"""The networks of `examples/image_rows.py` see what they should, in the order they should."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from examples import image_rows
from examples.common.experiment import experiment
from examples.image_rows import Rows, Strokes, Sweeps
from tinygrad_rnn import nn


@pytest.mark.parametrize(
    "build", [lambda: Rows(nn.GRU, 5), lambda: Strokes(5), lambda: Sweeps(7, 5)], ids=["rows", "strokes", "sweeps"]
)
def test_pictures_give_scores_one_by_one(build) -> None:
    model = build()
    x = np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)
    together = model(tr.Tensor(x)).numpy()
    assert together.shape == (3, 10)
    for k in range(3):
        np.testing.assert_allclose(model(tr.Tensor(x[k : k + 1])).numpy()[0], together[k], rtol=1e-4, atol=1e-6)


def test_rows_are_read_one_after_the_other() -> None:
    model = Rows(nn.RNN, 5)
    x = np.random.default_rng(0).random((1, 7, 5)).astype(np.float32)
    state = model.layer(tr.Tensor(x[0, :, None]))[1][0]  # the rows as steps of a sequence
    np.testing.assert_allclose(model(tr.Tensor(x)).numpy(), model.head(state).numpy(), rtol=1e-5)


def write_idx(path: Path, array: np.ndarray) -> None:
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(bytes([0, 0, {"u": 8, "i": 9}[array.dtype.kind], array.ndim]) + lengths + array.tobytes())


def write_pictures(folder: Path, **other: np.ndarray) -> None:
    """Thirty pictures to train on and ten to test with, but for what is given."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 6, 5)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / f"{part}-images.idx", other.get(f"{part}_images", images))
        write_idx(folder / f"{part}-labels.idx", other.get(f"{part}_labels", labels))


def run(folder: Path, *argv: str) -> int:
    given = ["--quick", "--data", str(folder), "--out", str(folder / "out"), *argv]
    return experiment(image_rows.main, steps=2, quick=2, data="IDX", options=image_rows.options, argv=given)


WRONG = {
    "none to train on": ({"train_images": np.zeros((0, 6, 5), "u1"), "train_labels": np.zeros(0, "u1")}, "(0, 6, 5)"),
    "none to test with": ({"t10k_images": np.zeros((0, 6, 5), "u1"), "t10k_labels": np.zeros(0, "u1")}, "(0, 6, 5)"),
    "no columns": ({"train_images": np.zeros((30, 6, 0), "u1")}, "(30, 6, 0)"),
    "rows of pixels": ({"train_images": np.zeros((30, 30), "u1")}, "(30, 30)"),
    "a label too few": ({"train_labels": np.zeros(29, "u1")}, "labels of (29,)"),
    "signed bytes": ({"train_images": np.zeros((30, 6, 5), "i1")}, "pictures of int8"),
    "a letter": ({"t10k_labels": np.arange(10, dtype="u1") + 7}, "t10k: the label 10 is no digit"),
    "below zero": ({"train_labels": np.arange(30, dtype="i1") - 1}, "train: the label -1 is no digit"),
    "one digit": ({"train_labels": np.full(30, 3, "u1")}, "all pictures are of the digit 3"),
    "another size": ({"t10k_images": np.zeros((10, 5, 6), "u1")}, "pictures of (6, 5) to train on, of (5, 6) to test"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pictures_are_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    other, message = WRONG[name]
    write_pictures(tmp_path, **other)
    assert run(tmp_path) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"image_rows: {tmp_path}: ") and message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("model", "name"), [("gru", "GRU"), ("convolution", "convolution, then GRU")])
def test_one_model_alone(model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(image_rows, "logistic_regression", lambda *_: ["logistic regression", 1, *["90.0"] * 3, "0"])
    write_pictures(tmp_path)
    assert run(tmp_path, "--model", model) == 0
    table = json.loads((tmp_path / "out" / "results.json").read_text())["tables"][0]
    assert [row[0] for row in table["rows"]] == ["logistic regression", name]
