"""Texts: what is read comes back, and what cannot be read is said in one line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import default_text, read_blocks, read_text, read_texts, split_held_out
from tinygrad_rnn.errors import InputError


def test_the_default_text_is_the_documentation() -> None:
    text = default_text()
    assert "recursion" in text or "assert" in text
    assert len(text) > 300_000


@given(st.integers(5, 1000))
def test_the_held_out_part_is_the_last_tenth(length: int) -> None:
    ids = np.arange(length, dtype=np.int32)
    train, held_out = split_held_out(ids)
    assert np.array_equal(np.concatenate([train, held_out]), ids)
    assert abs(len(held_out) - length / 10) <= 0.5


MARKS = [
    ("utf-8", b"\xef\xbb\xbf"),
    ("utf-16-le", b"\xff\xfe"),
    ("utf-16-be", b"\xfe\xff"),
    ("utf-32-le", b"\xff\xfe\0\0"),
    ("utf-32-be", b"\0\0\xfe\xff"),
]
ASKED = ["utf-8", "latin-1", "utf-16", "utf-32", "utf-16-be"]  # a mark says more than who asks


@pytest.mark.parametrize(
    ("raw", "encoding", "text"),
    [
        (b"plain", "utf-8", "plain"),
        (b"\xef\xbb\xbfmark", "utf-8", "mark"),
        (b"a\r\nb\rc\n", "utf-8", "a\nb\nc\n"),
        (b"caf\xe9", "latin-1", "café"),
        ("ß".encode("utf-16"), "utf-16", "ß"),
        *((mark + "Grüße\r\n".encode(codec), asked, "Grüße\n") for codec, mark in MARKS for asked in ASKED),
    ],
)
def test_what_is_read(tmp_path: Path, raw: bytes, encoding: str, text: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(raw)
    assert read_text(path, encoding) == text


@pytest.mark.parametrize(
    ("raw", "encoding", "message"),
    [
        (b"", "utf-8", "is empty"),
        (b"\xef\xbb\xbf", "utf-8", "is empty"),
        (b"caf\xe9 au lait", "utf-8", "not utf-8: invalid continuation byte at byte 3"),
        (b"\x7fELF\x00\x01\xff\xfe", "utf-8", "text: a program, not a text"),
        (b"a\nb\ntext\x00text", "utf-8", "line 3: a binary file, not a text: character 8 is zero"),
        (b"a\r\n\xe9\xe9", "utf-8", "line 2: not utf-8: invalid continuation byte at byte 3: choose"),
        (b"\xff\0\x81\x02", "utf-8", "text: a binary file, not a text"),
        ("ab cd".encode("utf-16-le"), "utf-8", "looks like UTF-16 without a mark: choose another encoding, utf-16-le"),
        (
            "ab cd".encode("utf-16-be"),
            "latin-1",
            "looks like UTF-16 without a mark: choose another encoding, utf-16-be",
        ),
        ("abc".encode("utf-16")[:-1], "utf-8", "line 1: not utf-16: truncated data at byte 6"),
        (b"\xef\xbb\xbfa\n\xff", "utf-8", "line 2: not utf-8: invalid start byte at byte 5"),
        (gzip.compress(b"a text", mtime=0)[:-9], "utf-8", "cannot be unpacked: "),
        (gzip.compress(b"a text", mtime=0)[:-8] + bytes(8), "utf-8", "cannot be unpacked: CRC check failed"),
        (lzma.compress(b"a text")[:-9], "utf-8", "cannot be unpacked: "),
        (bz2.compress(b"a text")[:-4], "utf-8", "cannot be unpacked: "),
        (gzip.compress(b"PK\x03\x04\x14", mtime=0), "utf-8", "a ZIP archive"),
        (
            gzip.compress(gzip.compress(b"a text", mtime=0), mtime=0),
            "utf-8",
            "compressed by gzip, not a text: unpack it first",
        ),
        (b"\x28\xb5\x2f\xfd\x04", "latin-1", "compressed by zstd, not a text: unpack it first"),
        (b"PK\x03\x04\x14", "latin-1", "a ZIP archive"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "latin-1", "a PDF, not a text$"),
        (b"text", "klingon", "unknown encoding 'klingon'"),
        (b"text", "hex", "cannot be decoded as hex"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, raw: bytes, encoding: str, message: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message) as error:
        read_text(path, encoding)
    assert "\n" not in str(error.value)


def test_missing_files_folders_and_no_permission(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="-: no such file: name /dev/stdin to read what is piped in"):
        read_text("-")
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    if not os.access(secret, os.R_OK):  # root may read everything
        with pytest.raises(InputError, match="Permission denied"):
            read_text(secret)


def test_files_are_joined_in_the_order_given(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name * 2)
    assert read_texts([tmp_path / "b", tmp_path / "a"]) == "bbaa"


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_is_compressed_is_unpacked(tmp_path: Path, packed: Callable[[bytes], bytes], encoding: str) -> None:
    text = "Grüße,\r\nnoch einmal\n" * 300
    (tmp_path / "text").write_bytes(packed(text.encode(encoding)))
    assert read_text(tmp_path / "text") == text.replace("\r\n", "\n")
    assert len(list(read_blocks(tmp_path / "text", size=100))) > 10
