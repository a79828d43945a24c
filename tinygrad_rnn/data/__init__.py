"""Read files as arrays, turn texts into ids, and put examples together in batches."""

from __future__ import annotations

from tinygrad_rnn.data.batches import Batches, folds, last_values, pad_sequences, split_at_random, split_in_time
from tinygrad_rnn.data.fetch import SETS, DataFile, DataSet, fetch
from tinygrad_rnn.data.readers import (
    Labelled,
    Table,
    read_csv,
    read_idx,
    read_labelled,
    read_parts,
    read_tsv,
)
from tinygrad_rnn.data.sequences import Chunk, Passage, Streams, passage
from tinygrad_rnn.data.series import TimeSeries, read_series
from tinygrad_rnn.data.sound import log_mel, mel_filters
from tinygrad_rnn.data.text import default_text, read_blocks, read_text, read_texts, split_held_out
from tinygrad_rnn.data.vocabularies import BEGIN, END, PAD, UNKNOWN, Coding, Ids, Vocabulary, WordVocabulary, words
from tinygrad_rnn.data.waves import Waveform, read_sound, read_wav, read_waveforms

__all__ = [
    "BEGIN",
    "Batches",
    "Chunk",
    "Coding",
    "DataFile",
    "DataSet",
    "END",
    "Ids",
    "Labelled",
    "PAD",
    "Passage",
    "SETS",
    "Streams",
    "Table",
    "TimeSeries",
    "UNKNOWN",
    "Vocabulary",
    "Waveform",
    "WordVocabulary",
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
    "read_series",
    "read_sound",
    "read_text",
    "read_texts",
    "read_tsv",
    "read_wav",
    "read_waveforms",
    "split_at_random",
    "split_held_out",
    "split_in_time",
    "words",
]
