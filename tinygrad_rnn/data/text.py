"""Texts: where they come from, how they are read and checked, and which part is held out."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from os import PathLike

from tinygrad_rnn.data.vocabularies import Ids
from tinygrad_rnn.errors import InputError


def default_text() -> str:
    """The text that comes with every Python: the pages behind `help("topics")`, in the order of the file.

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
    decoder = _decoder(path, encoding)
    fed = count = 0
    start = b""
    try:
        with open(path, "rb") as file:
            while True:
                raw = file.read(size)
                fed += len(raw)
                start = start or raw[:65536]
                text = decoder.decode(raw, final=not raw)
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
    except InputError:
        raise
    except (LookupError, ValueError) as error:
        raise _undecodable(path, encoding, error, fed, start) from None
    if not count:
        raise InputError(f"{path}: the file is empty")


def _decoder(path: str | PathLike[str], encoding: str) -> io.IncrementalNewlineDecoder:
    """A decoder of this encoding that drops a byte order mark and makes every line end with `\\n`."""
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise InputError(f"unknown encoding {encoding!r} (try utf-8, latin-1 or cp1252)") from None
    try:
        "".encode(codec)  # a LookupError for "hex" and its like, which are codecs, but not of text
        decoder = codecs.getincrementaldecoder("utf-8-sig" if codec == "utf-8" else codec)()
    except (LookupError, ValueError) as error:
        raise _undecodable(path, encoding, error) from None
    return io.IncrementalNewlineDecoder(decoder, translate=True)


def _undecodable(
    path: str | PathLike[str], encoding: str, error: Exception, fed: int = 0, start: bytes = b""
) -> InputError:
    """Why a file is no text in an encoding, as the error to raise, after `fed` bytes that begin with `start`."""
    if not isinstance(error, UnicodeDecodeError):
        return InputError(f"{path}: cannot be decoded as {encoding}: {error}")
    if b"\0" in start:
        return InputError(f"{path}: a binary file, not a text")
    at = fed - len(error.object) + error.start  # what the decoder was looking at ends with what it was fed
    why = f"not {encoding}: {error.reason} at byte {at:,}"
    return InputError(f"{path}: {why}", hint="choose another encoding, such as latin-1, if it is a text")


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


def split_held_out(ids: Ids, fraction: float = 0.1) -> tuple[Ids, Ids]:
    """A text in two parts, (train, held_out), views of `ids`: the last `fraction` is held out, never trained on.

    They are cut in order, not at random: single characters taken out of a text are told by their neighbours.

        >>> import numpy as np
        >>> [part.tolist() for part in split_held_out(np.arange(10, dtype=np.int32), 0.2)]
        [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction lies between 0 and 1, not {fraction}")
    cut = len(ids) - round(len(ids) * fraction)
    return ids[:cut], ids[cut:]
