"""The text model as an application: the character model, its task, its corpus, what it has to beat, its picture."""

from __future__ import annotations

from tinygrad_rnn.language.baselines import Baseline, NGram, lzma_bits, measure_baselines
from tinygrad_rnn.language.corpus import Corpus, Plan, read_corpus, size_of
from tinygrad_rnn.language.finetune import widened
from tinygrad_rnn.language.model import CharModel, CharModelConfig, describe_model, load_model, save_model
from tinygrad_rnn.language.picture import draw_loss, plot_loss
from tinygrad_rnn.language.task import NextCharacter, bits_per_char, character_bits, text_bits
from tinygrad_rnn.language.tokens import Tokens
from tinygrad_rnn.language.trained import Trained, load

__all__ = [
    "Baseline",
    "CharModel",
    "CharModelConfig",
    "Corpus",
    "NGram",
    "NextCharacter",
    "Plan",
    "Tokens",
    "Trained",
    "bits_per_char",
    "character_bits",
    "describe_model",
    "draw_loss",
    "load",
    "load_model",
    "lzma_bits",
    "measure_baselines",
    "plot_loss",
    "read_corpus",
    "save_model",
    "size_of",
    "text_bits",
    "widened",
]
