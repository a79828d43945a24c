"""Texts: what is read comes back, and what cannot be read is said in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import default_text, read_text, read_texts, split_held_out
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


@pytest.mark.parametrize(
    ("raw", "encoding", "text"),
    [
        (b"plain", "utf-8", "plain"),
        (b"\xef\xbb\xbfmark", "utf-8", "mark"),
        (b"a\r\nb\rc\n", "utf-8", "a\nb\nc\n"),
        (b"caf\xe9", "latin-1", "café"),
        ("ß".encode("utf-16"), "utf-16", "ß"),
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
        (b"\x7fELF\x00\x01\xff\xfe", "utf-8", "binary"),
        (b"text\x00text", "utf-8", "binary"),
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
