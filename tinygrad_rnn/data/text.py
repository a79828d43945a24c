"""Characters: where a text comes from, how it becomes integers, and which part of it is held out.

>>> vocabulary = Vocabulary.of("to be or not to be")
>>> vocabulary.characters
' benort'
>>> vocabulary.encode("bet").tolist()
[1, 2, 6]
>>> vocabulary.decode([1, 2, 6])
'bet'
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.errors import InputError

Ids = npt.NDArray[np.integer[Any]]  # int32, or as small as the vocabulary allows


def default_text() -> str:
    """The text that every Python has: the pages behind `help("topics")`, in the order of the file.

    About 465,000 characters of English and Python; the exact text depends on the version of Python.

        >>> len(default_text()) > 300_000
        True
    """
    from pydoc_data.topics import topics

    return "".join(topics.values())


def read_text(path: str | PathLike[str], encoding: str = "utf-8") -> str:
    r"""The text of one file: a byte order mark is dropped, and `\r\n` and `\r` become `\n`.

    Raises InputError, in one line, for a file that is missing, a folder, unreadable, empty, binary (it holds
    a zero character) or not in `encoding` (the message says at which byte).
    """
    return "".join(read_blocks(path, encoding))


def read_blocks(path: str | PathLike[str], encoding: str = "utf-8", size: int = 2**20) -> Iterator[str]:
    """The text of one file in pieces of at most `size` bytes, so that it need not fit into memory; raises as
    `read_text` does.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise InputError(f"unknown encoding {encoding!r} (try utf-8, latin-1 or cp1252)") from None
    fed = count = 0
    start = b""
    try:
        "".encode(codec)  # a LookupError for "hex" and its like, which are codecs, but not of text
        decoder = codecs.getincrementaldecoder("utf-8-sig" if codec == "utf-8" else codec)()
        newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
        with open(path, "rb") as file:
            while True:
                raw = file.read(size)
                fed += len(raw)
                start = start or raw[:65536]
                text = newlines.decode(raw, final=not raw)
                if "\0" in text:
                    where = count + text.index("\0")
                    raise InputError(f"{path}: a binary file, not a text: character {where:,} is zero")
                count += len(text)
                if text:
                    yield text
                if not raw:
                    break
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError as error:
        at = fed - len(error.object) + error.start  # what the decoder was looking at ends with what it was fed
        if b"\0" in start:
            raise InputError(f"{path}: a binary file, not a text") from None
        why = f"not {encoding}: {error.reason} at byte {at:,}"
        raise InputError(f"{path}: {why} (if it is a text in another encoding: --encoding latin-1, say)") from None
    except (UnicodeError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be decoded as {encoding}: {error}") from None
    if not count:
        raise InputError(f"{path}: the file is empty")


def unreadable(path: str | PathLike[str], error: OSError) -> InputError:
    """Why a file cannot be read, as the error to raise."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InputError(
            f"{path}: is {'a folder, not a file' if isinstance(error, IsADirectoryError) else 'no folder'}"
        )
    return InputError(f"{path}: cannot be read: {error.strerror or error}")


def read_texts(paths: Iterable[str | PathLike[str]], encoding: str = "utf-8") -> str:
    """The texts of several files one after another, in the order given; raises as `read_text` does."""
    return "".join(read_text(path, encoding) for path in paths)


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The Unicode numbers of a text, uint32 of shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows, sorted; the place of a character is its id.

    `characters` is a string without repetitions. Use `Vocabulary.of(text)` to collect them from a text.
    """

    characters: str
    _table: Ids = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.characters or "".join(sorted(set(self.characters))) != self.characters:
            raise InputError("a vocabulary is a string of sorted, different characters, at least one")
        points = code_points(self.characters)
        table = np.full(int(points[-1]) + 1, -1, dtype=np.int32)
        table[points] = np.arange(len(points), dtype=np.int32)
        object.__setattr__(self, "_table", table)

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The vocabulary of a text."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Ids:
        """The ids of a text, int32 of shape (len(text),).

        Raises InputError naming the first character that is not in the vocabulary, and where it stands.

            >>> Vocabulary("ab").encode("abc")
            Traceback (most recent call last):
            ...
            tinygrad_rnn.errors.InputError: character 'c' at position 2 is none of the 2 in the vocabulary
        """
        points = code_points(text)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        unseen = (ids < 0) | (points >= len(self._table))
        if unseen.any():
            where = int(unseen.argmax())
            raise InputError(
                f"character {text[where]!r} at position {where} is none of the {len(self)} in the vocabulary"
            )
        return ids

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """The text of some ids; an id outside the vocabulary is an IndexError."""
        at = np.asarray(ids, dtype=np.int64)
        if at.size and not 0 <= at.min() <= at.max() < len(self):
            raise IndexError(f"an id outside 0 ... {len(self) - 1}")
        return code_points(self.characters)[at].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def split_held_out(ids: Ids, fraction: float = 0.1) -> tuple[Ids, Ids]:
    """The first part, to train on, and the last `fraction`, never trained on: (train, held_out), views of
    `ids`.

    In order and not at random, because neighbouring characters would tell a random choice away.

        >>> [part.tolist() for part in split_held_out(np.arange(10, dtype=np.int32), 0.2)]
        [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction lies between 0 and 1, not {fraction}")
    cut = len(ids) - round(len(ids) * fraction)
    return ids[:cut], ids[cut:]
