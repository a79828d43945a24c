"""The character model: its network, and how it is saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_rnn import nn
from tinygrad_rnn.data.vocabularies import Coding, Vocabulary
from tinygrad_rnn.errors import CheckpointError, InputError, TinygradRnnError
from tinygrad_rnn.language.tokens import described as tokens_of
from tinygrad_rnn.screen import one_line
from tinygrad_rnn.tensor.tensor import Tensor
from tinygrad_rnn.training.checkpoint import load_checkpoint, save_checkpoint
from tinygrad_rnn.training.resume import weights

State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class CharModelConfig:
    """The shape of a character model: everything needed to build it but its weights.

    `cell` is "lstm", "gru" or "rnn"; `dropout` acts on the embedding's and the layers' outputs. Raises
    InputError, naming the number, for one that is out of range.
    """

    vocabulary: int
    cell: str = "lstm"
    embedding: int = 64
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "embedding", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout lies between 0 and 1 (1 excluded), not {self.dropout}")
        if self.cell not in ("lstm", "gru", "rnn"):
            raise InputError(f"the cell is rnn, lstm or gru, not {self.cell!r}")

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON can hold it; `CharModelConfig(**d)` is its inverse."""
        return asdict(self)


class CharModel(nn.Module):
    """Embedding -> LSTM, GRU or RNN -> Linear: the scores of the next character at each step.

    >>> import numpy as np
    >>> model = CharModel(CharModelConfig(vocabulary=7, embedding=3, hidden=5))
    >>> scores, state = model(np.zeros((4, 2), dtype=np.int32))
    >>> scores.shape, [s.shape for s in state]
    ((4, 2, 7), [(1, 2, 5), (1, 2, 5)])
    """

    def __init__(self, config: CharModelConfig) -> None:
        super().__init__()
        self.config = config
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[config.cell]
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        between = config.dropout if config.layers > 1 else 0.0
        self.recurrent = layer(config.embedding, config.hidden, num_layers=config.layers, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, config.vocabulary)

    def forward(self, ids: Any, state: State | None = None) -> tuple[Tensor, State]:
        """Ids (T, B) and a state, None for zeros -> scores (T, B, V) and the state after the last step."""
        y, state = self.recurrent(ids, state, embedding=self.embedding)
        return self.output(self.dropout(y)), state


def describe_model(model: CharModel, vocabulary: Coding) -> dict[str, Any]:
    """What the manifest of a checkpoint must say for `load_model` to build the model again."""
    return {"model": model.config.as_dict(), "vocabulary": vocabulary.describe()}


def save_model(
    folder: str | os.PathLike[str],
    name: str,
    model: CharModel,
    vocabulary: Coding,
    step: int,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as the checkpoint `name` in `folder` (see `training.checkpoint`); returns the manifest's
    path. `extra` goes into the manifest.
    """
    manifest = {"step": step, **describe_model(model, vocabulary), **(extra or {})}
    return save_checkpoint(folder, name, weights(model), manifest)


def load_model(folder: str | os.PathLike[str], name: str = "best") -> tuple[CharModel, Coding, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode, its vocabulary, and the whole manifest.

    Raises CheckpointError, naming the file and the reason, if the checkpoint is damaged or holds no such
    model.
    """
    checkpoint = load_checkpoint(folder, name)
    own = {key: array for key, array in checkpoint.tensors.items() if "/" not in key}
    return *built(Path(folder) / f"{name}.json", own, checkpoint.manifest), checkpoint.manifest


def coding_of(entry: Any) -> Coding:
    """The vocabulary that a file describes: its characters, or tokens. Raises KeyError, TypeError or InputError for
    anything else.
    """
    return Vocabulary(entry) if isinstance(entry, str) else tokens_of(entry)


def built(path: Path, tensors: Mapping[str, np.ndarray], described: Mapping[str, Any]) -> tuple[CharModel, Coding]:
    """The model, in evaluation mode, and the vocabulary of what `describe_model` has written into a file. Raises
    CheckpointError, naming the file and the reason, if that is no such model.
    """
    try:
        model = CharModel(CharModelConfig(**described["model"]))
        vocabulary = coding_of(described["vocabulary"])
        if len(vocabulary) != model.config.vocabulary:
            what = "characters" if vocabulary.kind == "char" else "tokens"
            raise InputError(f"{model.config.vocabulary} {what} in the model, {len(vocabulary)} in its vocabulary")
        model.load_state_dict(dict(tensors))
    except (KeyError, TypeError, TinygradRnnError) as error:
        why = one_line(str(error.args[0] if error.args else error))
        raise CheckpointError(f"{path}: not a character model: {why}") from None
    return model.eval(), vocabulary
