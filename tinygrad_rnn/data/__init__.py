"""Files as arrays, text as ids, examples as batches, and the simple models that a network has to beat."""

from __future__ import annotations

from .baselines import (
    Baseline,
    NGram,
    bag_of_words,
    join_templates,
    lzma_bits,
    measure_baselines,
    most_frequent,
    simple_forecasts,
)
from .batches import Batches, folds, last_values, pad_sequences, split_at_random, split_in_time
from .corpus import Corpus, read_corpus, size_of
from .fetch import SETS, DataFile, DataSet, fetch
from .readers import (
    Labelled,
    Recording,
    Table,
    read_csv,
    read_idx,
    read_labelled,
    read_parts,
    read_recordings,
    read_tsv,
    read_wav,
)
from .sequences import Chunk, Passage, Streams, passage
from .sound import log_mel, mel_filters, shape_spectrum
from .text import Ids, Vocabulary, default_text, read_blocks, read_text, read_texts, split_held_out
from .tokens import BEGIN, END, PAD, UNKNOWN, Tokens, words

__all__ = [
    "BEGIN",
    "Baseline",
    "Batches",
    "Chunk",
    "Corpus",
    "DataFile",
    "DataSet",
    "END",
    "Ids",
    "Labelled",
    "NGram",
    "PAD",
    "Passage",
    "Recording",
    "SETS",
    "Streams",
    "Table",
    "Tokens",
    "UNKNOWN",
    "Vocabulary",
    "bag_of_words",
    "default_text",
    "fetch",
    "folds",
    "join_templates",
    "last_values",
    "log_mel",
    "lzma_bits",
    "measure_baselines",
    "mel_filters",
    "most_frequent",
    "pad_sequences",
    "passage",
    "read_blocks",
    "read_corpus",
    "read_csv",
    "read_idx",
    "read_labelled",
    "read_parts",
    "read_recordings",
    "read_text",
    "read_texts",
    "read_tsv",
    "read_wav",
    "shape_spectrum",
    "simple_forecasts",
    "size_of",
    "split_at_random",
    "split_held_out",
    "split_in_time",
    "words",
]
