"""The texts that a run trains on, as ids of the smallest type. A long text never stands in memory as a whole.

It is read twice, a megabyte at a time: once for its characters, once to write their ids, usually one byte each,
into a temporary file, which is then mapped into memory. The operating system keeps as much of it there as there
is room for, and removes the file when the process ends, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from time import perf_counter

import numpy as np

from tinygrad_rnn.data.text import read_blocks, read_text
from tinygrad_rnn.data.vocabularies import Ids, Vocabulary, code_points
from tinygrad_rnn.errors import InputError

IN_MEMORY = 2**24
"""Texts of fewer bytes are simply read."""


@dataclass(frozen=True)
class Corpus:
    """A text as `ids` and `vocabulary`, the SHA-256 of the text in UTF-8, and the seconds that reading took."""

    ids: Ids
    vocabulary: Vocabulary
    sha256: str
    seconds: float = 0.0

    @classmethod
    def of(cls, text: str, known: str = "") -> Corpus:
        """The corpus of a text that stands in memory; characters that are `known` are in its vocabulary, too.

        >>> Corpus.of("banana").ids.tolist(), Corpus.of("banana").vocabulary.characters
        ([1, 0, 2, 0, 2, 0], 'abn')
        """
        vocabulary = Vocabulary.of(text + known)
        ids = vocabulary.encode(text).astype(_smallest(vocabulary))
        return cls(ids, vocabulary, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def size_of(paths: Iterable[str | PathLike[str]]) -> int:
    """The bytes of those of the files that are ordinary ones."""
    total = 0
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:  # whoever reads it will say why it cannot be read
            continue
        total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def read_corpus(
    paths: Sequence[str | PathLike[str]], encoding: str = "utf-8", in_memory: int = IN_MEMORY, known: str = ""
) -> Corpus:
    """The texts of several files, one after another; the vocabulary has the characters that are `known` as well. Raises
    InputError as `read_text` does.

    From `in_memory` bytes on, the ids are memory-mapped and read-only; an OSError says that the folder for
    temporary files has no room for them.
    """
    started = perf_counter()
    if size_of(paths) < in_memory:
        corpus = Corpus.of("".join(read_text(path, encoding) for path in paths), known)
    else:
        corpus = _mapped(paths, encoding, known)
    return Corpus(corpus.ids, corpus.vocabulary, corpus.sha256, perf_counter() - started)


def _mapped(paths: Sequence[str | PathLike[str]], encoding: str, known: str) -> Corpus:
    seen = np.zeros(0x110000, dtype=bool)
    seen[code_points(known)] = True
    digest, length = hashlib.sha256(), 0
    for block in _blocks(paths, encoding):
        seen[code_points(block)] = True
        digest.update(block.encode("utf-8", "surrogatepass"))
        length += len(block)
    vocabulary = Vocabulary("".join(map(chr, np.flatnonzero(seen))))
    dtype = _smallest(vocabulary)
    again = hashlib.sha256()
    with tempfile.TemporaryFile(prefix="tinygrad-rnn-") as file:
        try:
            for block in _blocks(paths, encoding):
                again.update(block.encode("utf-8", "surrogatepass"))
                file.write(vocabulary.encode(block).astype(dtype).tobytes())
            file.flush()
        except InputError:  # a character that was not there before
            again = hashlib.sha256()
        except OSError as error:
            where = f"the ids of the text do not fit into {tempfile.gettempdir()} (TMPDIR chooses another folder)"
            raise OSError(error.errno, f"{error.strerror}: {where}") from None
        if again.digest() != digest.digest():
            raise InputError(f"{', '.join(map(str, paths))}: changed while it was read")
        ids: Ids = np.memmap(file, dtype=dtype, mode="r", shape=(length,))
    return Corpus(ids, vocabulary, digest.hexdigest())


def _blocks(paths: Iterable[str | PathLike[str]], encoding: str) -> Iterator[str]:
    for path in paths:
        yield from read_blocks(path, encoding)


def _smallest(vocabulary: Vocabulary) -> type[np.integer]:
    """The smallest type that holds every id."""
    if len(vocabulary) <= 2**8:
        return np.uint8
    return np.uint16 if len(vocabulary) <= 2**16 else np.int32
