"""Texts: where they come from, how they are read and checked, and which part is held out."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from os import PathLike
from typing import IO, Any

from tinygrad_rnn.data.kinds import HEAD, kind_of, marked
from tinygrad_rnn.data.vocabularies import Ids
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.scalars import number, whole


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

    A byte order mark (of UTF-8, UTF-16 or UTF-32) says how the file is read, whatever `encoding` says. What gzip, bzip2
    or xz has compressed is unpacked, unless it comes through a pipe.

    Raises InputError, in one line, for a file that is missing, a folder, unreadable, empty, binary (it holds a zero
    character, or begins as a file of another kind does; the message names compressed files, archives, documents,
    pictures and sounds) or not in `encoding` (the message says in which line, and at which byte).

        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "notes.txt"
        >>> _ = file.write_bytes("Grüße\r\n".encode("utf-16"))
        >>> read_text(file)
        'Grüße\n'
        >>> folder.cleanup()
    """
    return "".join(read_blocks(path, encoding))


def read_blocks(path: str | PathLike[str], encoding: str = "utf-8", size: int = 2**20) -> Iterator[str]:
    """The text of one file in pieces of at most `size` bytes, so that it need not fit into memory; raises as
    `read_text` does.
    """
    _check_encoding(path, encoding)
    path, size = checked_path(path), whole("the size of a piece", size, 1)
    try:
        with ExitStack() as opened:
            file: IO[bytes] = opened.enter_context(open(path, "rb"))
            head = file.read(HEAD)
            if (unpacked := _UNPACKED.get(kind_of(head))) and file.seekable():
                file.seek(0)
                file = opened.enter_context(unpacked(file))
                head = file.read(HEAD)
            if kind := kind_of(head):
                unpack = "unpack it first" if "compressed" in kind or "archive" in kind else ""
                raise InputError(f"{path}: {kind}, not a text", hint=unpack)
            pieces = chain((head[k : k + size] for k in range(0, len(head), size)), iter(partial(file.read, size), b""))
            yield from _decoded(path, marked(head) or encoding, pieces)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: cannot be unpacked: {str(error) or 'it is damaged'}") from None
    except OSError as error:
        raise unreadable(path, error) from None


_UNPACKED: dict[str, Callable[[IO[bytes]], Any]] = {
    "compressed by gzip": gzip.open,
    "compressed by bzip2": bz2.open,
    "compressed by xz": lzma.open,
}


def _decoded(path: str | PathLike[str], encoding: str, pieces: Iterable[bytes]) -> Iterator[str]:
    """Pieces of a file, decoded: every line ends with a newline character."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    fed = count = lines = 0
    start = b""
    for raw in chain(pieces, (b"",)):
        fed += len(raw)
        start = start or raw[:65536]
        try:
            text = decoder.decode(raw, final=not raw)
        except (LookupError, ValueError) as error:
            raise _undecodable(path, encoding, error, fed, lines, start) from None
        if "\0" in text:
            at = text.index("\0")
            line = lines + text.count("\n", 0, at) + 1
            raise _binary(f"{path}, line {line:,}", start, f": character {count + at:,} is zero")
        count += len(text)
        lines += text.count("\n")
        if text:
            yield text
    if not count:
        raise InputError(f"{path}: the file is empty")


def _check_encoding(path: str | PathLike[str], encoding: str) -> None:
    """Raise InputError unless `encoding` is one that texts have."""
    if not isinstance(encoding, str):
        raise InputError(f"an encoding is a name, such as utf-8, not {encoding!r:.80}")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise InputError(f"unknown encoding {encoding!r} (try utf-8, latin-1 or cp1252)") from None
    try:
        "".encode(encoding)  # a LookupError for "hex" and its like, which are codecs, but not of text
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError) as error:
        raise InputError(f"{path}: cannot be decoded as {encoding}: {error}") from None


def _undecodable(
    path: str | PathLike[str], encoding: str, error: Exception, fed: int, lines: int, start: bytes
) -> InputError:
    """Why a file is no text in an encoding, as the error to raise, after `fed` bytes that begin with `start`."""
    if not isinstance(error, UnicodeDecodeError):
        return InputError(f"{path}: cannot be decoded as {encoding}: {error}")
    if b"\0" in start and not encoding.lower().startswith(("utf-16", "utf-32")):
        return _binary(path, start)
    at = fed - len(error.object) + error.start  # what the decoder was looking at ends with what it was fed
    before = error.object[: error.start].decode(encoding, "ignore").replace("\r\n", "\n").replace("\r", "\n")
    why = f"not {encoding.removesuffix('-sig')}: {error.reason} at byte {at:,}"
    line = lines + before.count("\n") + 1
    return InputError(f"{path}, line {line:,}: {why}", hint="choose another encoding, such as latin-1, if it is a text")


def _binary(where: str | PathLike[str], start: bytes, why: str = "") -> InputError:
    """The error for a file with zeros in it, which begins with `start`."""
    zeros = [start[k::2].count(0) for k in (0, 1)]
    if 4 * max(zeros) > len(start) and not min(zeros):
        name = "utf-16-le" if zeros[1] else "utf-16-be"
        return InputError(f"{where}: looks like UTF-16 without a mark", hint=f"choose another encoding, {name}")
    return InputError(f"{where}: a binary file, not a text{why}")


def read_bytes(path: str | PathLike[str]) -> bytes:
    """All bytes of a file. Raises InputError for one that cannot be read."""
    path = checked_path(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise unreadable(path, error) from None


def checked_path(path: Any) -> str | PathLike[str]:
    """The path of a file as text, or as it is. Raises InputError for what is none: a number would be taken for a file
    that is open, and closed.
    """
    if not isinstance(path, str | bytes | PathLike):
        raise InputError(f"a file has a name, a text or a path, not {path!r:.80}")
    if "\0" in (name := os.fsdecode(path)):
        raise InputError(f"{name!r:.80}: no file has a zero character in its name")
    return name if isinstance(path, bytes) else path


def unreadable(path: str | PathLike[str], error: OSError) -> InputError:
    """Why a file cannot be read, as the error to raise."""
    if isinstance(error, FileNotFoundError):
        piped = "name /dev/stdin to read what is piped in" if str(path) == "-" else ""
        return InputError(f"{path}: no such file", hint=piped)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InputError(
            f"{path}: is {'a folder, not a file' if isinstance(error, IsADirectoryError) else 'no folder'}"
        )
    return InputError(f"{path}: cannot be read: {error.strerror or error}")


def read_texts(paths: Iterable[str | PathLike[str]], encoding: str = "utf-8") -> str:
    """The texts of several files one after another, in the order given; raises as `read_text` does."""
    if isinstance(paths, str | bytes | PathLike):
        paths = [paths]
    return "".join(read_text(path, encoding) for path in paths)


def split_held_out(ids: Ids, fraction: float = 0.1) -> tuple[Ids, Ids]:
    """A text in two parts, (train, held_out), views of `ids`: the last `fraction` is held out, never trained on.

    They are cut in order, not at random: single characters taken out of a text are told by their neighbours.

        >>> import numpy as np
        >>> [part.tolist() for part in split_held_out(np.arange(10, dtype=np.int32), 0.2)]
        [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    """
    if not 0 < number("the held-out fraction", fraction) < 1:
        raise InputError(f"the held-out fraction lies between 0 and 1, not {fraction}")
    cut = len(ids) - round(len(ids) * fraction)
    return ids[:cut], ids[cut:]
