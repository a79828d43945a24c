"""The texts that a run trains on, as ids of the smallest type, and which part is held out. A long text never stands in
memory as a whole.

It is read twice, a megabyte at a time: once for its characters, once to write their ids, usually one byte each,
into a temporary file, which is then mapped into memory. The operating system keeps as much of it there as there
is room for, and removes the file when the process ends, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import PathLike
from time import perf_counter
from typing import IO, Any

import numpy as np

from tinygrad_rnn.data.text import read_blocks, read_text
from tinygrad_rnn.data.vocabularies import Coding, Ids, Vocabulary, code_points
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.tokens import Tokens

Blocks = Callable[[], Iterator[str]]

FRACTION = 0.1
"""The part that is held out."""
SPLITS = ("end", "lines", "random")
STRETCH = 1000
"""The characters, at least, of a stretch that is held out as a whole: a page or so tells a model what comes next."""
IN_MEMORY = 2**24
"""Texts of fewer bytes are simply read."""


@dataclass(frozen=True)
class Plan:
    """What an id is, and which tenth of the text is held out.

    `tokens` are "char", or "word" or "bpe", `size` of them, learnt from the part to learn from; or those of a
    `vocabulary` that is there. Characters have those that are `known` in their vocabulary anyway. The `split` is at the
    "end" of the text; or one of each ten "lines", drawn by the `seed`; or one of each ten stretches of lines of 1,000
    characters or more, "random".
    """

    tokens: str = "char"
    size: int = 0
    known: str = ""
    vocabulary: Coding | None = None
    split: str = "end"
    seed: int = 0


@dataclass(frozen=True)
class Corpus:
    """A text as `ids` and `vocabulary`: first those to learn from, `train`, and from `cut` on those `held_out`; the
    SHA-256 of the text in UTF-8, its number of `characters`, and the seconds that reading took.
    """

    ids: Ids
    vocabulary: Coding
    sha256: str
    cut: int
    characters: int
    seconds: float = 0.0

    @property
    def train(self) -> Ids:
        """The ids to learn from."""
        return self.ids[: self.cut]

    @property
    def held_out(self) -> Ids:
        """The ids that are held out."""
        return self.ids[self.cut :]

    @classmethod
    def of(cls, text: str, plan: Plan | None = None) -> Corpus:
        """The corpus of a text that stands in memory.

        >>> found = Corpus.of("banana banana")
        >>> found.ids.tolist(), found.vocabulary.describe(), found.cut
        ([2, 1, 3, 1, 3, 1, 0, 2, 1, 3, 1, 3, 1], ' abn', 12)
        """
        return _corpus(lambda: iter([text]), None, plan or Plan(), None)


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
    paths: Sequence[str | PathLike[str]],
    encoding: str = "utf-8",
    in_memory: int = IN_MEMORY,
    *,
    plan: Plan | None = None,
    held_out: Sequence[str | PathLike[str]] = (),
) -> Corpus:
    """The texts of several files, one after another, of which a part is held out as `plan` says, or all those of the
    files `held_out`. Raises InputError as `read_text` does.

    From `in_memory` bytes on, the ids are memory-mapped and read-only; an OSError says that the folder for
    temporary files has no room for them.
    """
    started, plan = perf_counter(), plan or Plan()
    if size_of([*paths, *held_out]) < in_memory:
        text, other = ("".join(read_text(path, encoding) for path in files) for files in (paths, held_out))
        corpus = _corpus(lambda: iter([text]), (lambda: iter([other])) if held_out else None, plan, None)
    else:
        blocks = lambda: _blocks(paths, encoding)
        others = (lambda: _blocks(held_out, encoding)) if held_out else None
        corpus = _corpus(blocks, others, plan, ", ".join(map(str, [*paths, *held_out])))
    return Corpus(corpus.ids, corpus.vocabulary, corpus.sha256, corpus.cut, corpus.characters, perf_counter() - started)


def _corpus(text: Blocks, held_out: Blocks | None, plan: Plan, mapped: str | None) -> Corpus:
    """The corpus of a text, and of another that is held out, in blocks that can be read again. Its ids are mapped if
    the names of the files are given.
    """
    seen = np.zeros(0x110000, dtype=bool)
    seen[code_points(plan.known)] = True
    digest, lengths = hashlib.sha256(), [0, 0]
    for k, blocks in enumerate((text, held_out)):
        for block in blocks() if blocks else ():
            seen[code_points(block)] = True
            digest.update(block.encode("utf-8", "surrogatepass"))
            lengths[k] += len(block)
    again = hashlib.sha256()
    parts = partial(_parts, text, held_out, plan, lengths[0])
    vocabulary = _vocabulary(plan, seen, parts)
    with ExitStack() as stack:
        store = _store(stack, vocabulary, mapped is not None)
        try:
            for held, piece in _in_blocks(parts(again.update)):
                store.take(held, vocabulary.encode(piece))
            ids = store.ids()
        except InputError:  # a character that was not there before
            if mapped is None:
                raise
            again = hashlib.sha256()
        except OSError as error:
            where = f"the ids of the text do not fit into {tempfile.gettempdir()} (TMPDIR chooses another folder)"
            raise OSError(error.errno, f"{error.strerror}: {where}") from None
        if again.digest() != digest.digest():
            raise InputError(f"{mapped}: changed while it was read")
    return Corpus(ids, vocabulary, digest.hexdigest(), store.counts[0], sum(lengths))


def _vocabulary(plan: Plan, seen: np.ndarray, parts: Callable[[Callable[[bytes], object]], Any]) -> Coding:
    """The vocabulary of a plan: one that is there, the characters, or tokens of the part to learn from."""
    if plan.vocabulary is not None:
        return plan.vocabulary
    characters = "".join(map(chr, np.flatnonzero(seen)))
    if plan.tokens == "char":
        return Vocabulary(characters)
    learnt_from = (piece for held, piece in _in_blocks(parts(lambda _: None)) if not held)
    return Tokens.learnt(plan.tokens, plan.size, learnt_from, characters)


# --- which part is held out -----------------------------------------------------------------------------------


def _parts(
    text: Blocks, held_out: Blocks | None, plan: Plan, length: int, note: Callable[[bytes], object]
) -> Iterator[tuple[bool, str]]:
    """The text in pieces, each with whether it is held out; the bytes of what is read are noted, in its order."""

    def read(blocks: Blocks) -> Iterator[str]:
        for block in blocks():
            note(block.encode("utf-8", "surrogatepass"))
            yield block

    if held_out is not None:
        yield from ((False, block) for block in read(text))
        yield from ((True, block) for block in read(held_out))
    elif plan.split == "end":
        left = length - round(length * FRACTION)
        for block in read(text):
            yield False, block[:left]
            yield True, block[left:]
            left = max(0, left - len(block))
    else:
        draws, chosen = np.random.default_rng(plan.seed), 0
        every = round(1 / FRACTION)
        least = 1 if plan.split == "lines" else min(STRETCH, length // 40 + 1)  # some stretches of a short text, too
        for k, stretch in enumerate(_stretches(read(text), least)):
            if k % every == 0:
                chosen = k + int(draws.integers(every))
            yield k == chosen, stretch


def _stretches(blocks: Iterable[str], least: int) -> Iterator[str]:
    """A text in stretches of whole lines, of at least so many characters each but for the last."""
    rest = ""
    for block in blocks:
        rest += block
        begin = 0
        while (end := rest.find("\n", begin + least - 1) + 1) > 0:
            yield rest[begin:end]
            begin = end
        rest = rest[begin:]
    if rest:
        yield rest


def _in_blocks(parts: Iterable[tuple[bool, str]], size: int = 2**18) -> Iterator[tuple[bool, str]]:
    """The same in pieces of about one size, of either side: to encode one takes a call, and tokenizers much memory."""
    waiting: tuple[list[str], list[str]] = [], []
    counts = [0, 0]
    for held, piece in parts:
        for part in (piece[k : k + size] for k in range(0, len(piece), size)):
            waiting[held].append(part)
            counts[held] += len(part)
            if counts[held] >= size:
                yield held, "".join(waiting[held])
                waiting[held].clear()
                counts[held] = 0
    for held in (False, True):
        if counts[held]:
            yield held, "".join(waiting[held])


# --- where the ids are ----------------------------------------------------------------------------------------


class _InMemory:
    """Ids in memory, of both sides."""

    def __init__(self, dtype: type[np.integer]) -> None:
        self.dtype, self.counts = dtype, [0, 0]
        self.arrays: tuple[list[Ids], list[Ids]] = [], []

    def take(self, held: bool, ids: Ids) -> None:
        """Take the next ones of a side."""
        self.counts[held] += len(ids)
        self.arrays[held].append(ids.astype(self.dtype))

    def ids(self) -> Ids:
        """All, those that are held out at the end."""
        return np.concatenate([np.zeros(0, self.dtype), *self.arrays[0], *self.arrays[1]])


class _Mapped:
    """Ids in temporary files."""

    def __init__(self, dtype: type[np.integer], files: Sequence[IO[bytes]]) -> None:
        self.dtype, self.files, self.counts = dtype, files, [0, 0]

    def take(self, held: bool, ids: Ids) -> None:
        """Take the next ones of a side."""
        self.counts[held] += len(ids)
        self.files[held].write(ids.astype(self.dtype).tobytes())

    def ids(self) -> Ids:
        """All, those that are held out at the end, mapped into memory."""
        train, held_out = self.files
        held_out.seek(0)
        shutil.copyfileobj(held_out, train)
        train.flush()
        return np.memmap(train, dtype=self.dtype, mode="r", shape=(sum(self.counts),))


def _store(stack: ExitStack, vocabulary: Coding, mapped: bool) -> _InMemory | _Mapped:
    dtype = _smallest(vocabulary)
    if not mapped:
        return _InMemory(dtype)
    return _Mapped(dtype, [stack.enter_context(tempfile.TemporaryFile(prefix="tinygrad-rnn-")) for _ in range(2)])


def _blocks(paths: Iterable[str | PathLike[str]], encoding: str) -> Iterator[str]:
    for path in paths:
        yield from read_blocks(path, encoding)


def _smallest(vocabulary: Coding) -> type[np.integer]:
    """The smallest type that holds every id."""
    if len(vocabulary) <= 2**8:
        return np.uint8
    return np.uint16 if len(vocabulary) <= 2**16 else np.int32
