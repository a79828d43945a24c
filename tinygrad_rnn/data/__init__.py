"""Text as ids, ids as batches, and the simple models that a network has to beat."""

from __future__ import annotations

from .baselines import Baseline, NGram, lzma_bits, measure_baselines
from .corpus import Corpus, read_corpus, size_of
from .sequences import Chunk, Passage, Streams, passage
from .text import Ids, Vocabulary, default_text, read_blocks, read_text, read_texts, split_held_out

__all__ = [
    "Baseline",
    "Chunk",
    "Corpus",
    "Ids",
    "NGram",
    "Passage",
    "Streams",
    "Vocabulary",
    "default_text",
    "lzma_bits",
    "measure_baselines",
    "passage",
    "read_blocks",
    "read_corpus",
    "read_text",
    "read_texts",
    "size_of",
    "split_held_out",
]
