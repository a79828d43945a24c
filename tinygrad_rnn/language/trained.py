"""What a training leaves behind, to be used in Python: a model, its vocabulary and what it was trained with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_rnn import decoding
from tinygrad_rnn.data.vocabularies import Coding
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.exported import read_exported
from tinygrad_rnn.language.model import CharModel, built, load_model
from tinygrad_rnn.language.task import text_bits
from tinygrad_rnn.training.run import RunFolder


@dataclass(frozen=True)
class Trained:
    """A `model` in evaluation mode and its `vocabulary`; the `config` of its run, as `config.json` has it, the `step`
    it is of, and the `figures` it was kept for. Use `load` to get one.

    >>> from tinygrad_rnn.data import Vocabulary
    >>> from tinygrad_rnn.language.model import CharModelConfig
    >>> model = CharModel(CharModelConfig(2, embedding=3, hidden=4)).eval()
    >>> trained = Trained(model, Vocabulary("ab"))
    >>> len(trained.generate("ab", length=5)), 0 < trained.bits_per_char("abba") < 3
    (5, True)
    """

    model: CharModel
    vocabulary: Coding
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)

    def generate(
        self,
        prompt: str = "",
        length: int = 400,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str:
        """`length` characters that follow `prompt`, as `decoding.generate` draws them, which raises what is wrong."""
        return "".join(
            decoding.generate(self.model, self.vocabulary, prompt, length, temperature, top_k=top_k, seed=seed)
        )

    def bits_per_char(self, text: str) -> float:
        """The mean of -log2 of the probabilities that the model gives to the characters of `text`, which begins as
        after a new line. Characters that are not in the vocabulary are neither read nor counted.

        Raises InputError for a text without any character that is, and where more than a tenth are not.
        """
        found = [bits for _, bits in text_bits(self.model, self.vocabulary, [("the text", text)])]
        bits = np.concatenate([np.zeros(0), *found])
        if not np.isfinite(bits).any():
            raise InputError("a text of no character has no bits per character")
        return float(bits[np.isfinite(bits)].mean())


def load(path: str | os.PathLike[str], checkpoint: str | None = None) -> Trained:
    """The model of a run's folder, or of a file that `save_exported` has written, ready to be used.

    Of a run it is the checkpoint named, "best" or "last": the best one unless given, the last one where no best one is
    known yet. Raises InputError if there is no such run or file, and CheckpointError, naming the file and the reason,
    for what is damaged or holds no such model.
    """
    path = Path(path)
    if path.is_file():
        if checkpoint is not None:
            raise InputError(f"{path}: is one model, and not a run with checkpoints of which {checkpoint!r} is one")
        tensors, header = read_exported(path)
        model, vocabulary = built(path, tensors, header)
        return Trained(model, vocabulary, header["config"], header["step"], header["figures"])
    run = RunFolder(path)
    config = run.config()
    if checkpoint is None:
        only_last = (run.checkpoints / "last.json").exists() and not (run.checkpoints / "best.json").exists()
        checkpoint = "last" if only_last else "best"
    model, vocabulary, manifest = load_model(run.checkpoints, checkpoint)
    return Trained(model, vocabulary, config, manifest.get("step", 0), manifest.get("figures", {}))
