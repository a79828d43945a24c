"""Files as arrays, text as ids, examples as batches."""

from __future__ import annotations

from tinygrad_rnn.data.batches import Batches, folds, last_values, pad_sequences, split_at_random, split_in_time
from tinygrad_rnn.data.fetch import SETS, DataFile, DataSet, fetch
from tinygrad_rnn.data.readers import (
    Labelled,
    Table,
    Waveform,
    read_csv,
    read_idx,
    read_labelled,
    read_parts,
    read_tsv,
    read_wav,
    read_waveforms,
)
from tinygrad_rnn.data.sequences import Chunk, Passage, Streams, passage
from tinygrad_rnn.data.sound import log_mel, mel_filters, shape_spectrum
from tinygrad_rnn.data.text import Ids, Vocabulary, default_text, read_blocks, read_text, read_texts, split_held_out
from tinygrad_rnn.data.tokens import BEGIN, END, PAD, UNKNOWN, Tokens, words

__all__ = [
    "BEGIN",
    "Batches",
    "Chunk",
    "DataFile",
    "DataSet",
    "END",
    "Ids",
    "Labelled",
    "PAD",
    "Passage",
    "Waveform",
    "SETS",
    "Streams",
    "Table",
    "Tokens",
    "UNKNOWN",
    "Vocabulary",
    "default_text",
    "fetch",
    "folds",
    "last_values",
    "log_mel",
    "mel_filters",
    "pad_sequences",
    "passage",
    "read_blocks",
    "read_csv",
    "read_idx",
    "read_labelled",
    "read_parts",
    "read_waveforms",
    "read_text",
    "read_texts",
    "read_tsv",
    "read_wav",
    "shape_spectrum",
    "split_at_random",
    "split_held_out",
    "split_in_time",
    "words",
]
