"""The character model: its shapes, what it saves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.data import Vocabulary
from tinygrad_rnn.errors import CheckpointError, InputError
from tinygrad_rnn.language.model import CharModel, CharModelConfig, load_model, save_model
from tinygrad_rnn.training import load_checkpoint, save_checkpoint

VOCABULARY = Vocabulary("abcdefg")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_model_comes_back_as_it_was(tmp_path: Path, cell: str, layers: int) -> None:
    tr.manual_seed(0)
    model = CharModel(CharModelConfig(7, cell, 4, 6, layers, dropout=0.3))
    save_model(tmp_path, "best", model, VOCABULARY, step=5, extra={"figures": {"bits": 2.5}})
    again, vocabulary, manifest = load_model(tmp_path)
    assert again.config == model.config and vocabulary == VOCABULARY
    assert manifest["step"] == 5 and manifest["figures"] == {"bits": 2.5}
    assert not again.training
    ids = np.arange(12, dtype=np.int32).reshape(4, 3) % 7
    model.eval()
    scores, state = model(ids)
    other, other_state = again(ids)
    assert scores.shape == (4, 3, 7) and np.array_equal(scores.numpy(), other.numpy())
    pairs = zip(state, other_state, strict=True) if cell == "lstm" else [(state, other_state)]
    for a, b in pairs:
        assert a.shape == (layers, 3, 6) and np.array_equal(a.numpy(), b.numpy())


def test_the_same_seed_gives_the_same_model() -> None:
    weights = []
    for seed in (3, 3, 4):
        tr.manual_seed(seed)
        weights.append(np.concatenate([p.numpy().ravel() for p in CharModel(CharModelConfig(7)).parameters()]))
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": 0},
        {"layers": -1},
        {"embedding": 0},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"cell": "tcn"},
    ],
)
def test_what_is_no_model(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        CharModelConfig(7, **wrong)  # type: ignore[arg-type]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "best", {"x": np.zeros(3)}, {"step": 1})
    with pytest.raises(CheckpointError, match="not a character model"):
        load_model(tmp_path)
    save_model(tmp_path, "best", CharModel(CharModelConfig(7)), VOCABULARY, step=1)
    whole = load_checkpoint(tmp_path, "best")
    for change in (
        {"vocabulary": "abc"},
        {"model": {"hidden": 8}},
        {"model": {**whole.manifest["model"], "hidden": 8}},
    ):
        save_checkpoint(tmp_path, "best", whole.tensors, {**whole.manifest, **change})
        with pytest.raises(CheckpointError, match="not a character model") as error:
            load_model(tmp_path)
        assert "\n" not in str(error.value)
    assert json.loads((tmp_path / "best.json").read_text())["version"] == 1
