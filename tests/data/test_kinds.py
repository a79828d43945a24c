"""What a file is by its first bytes: files that are written here are recognised, texts are not."""

from __future__ import annotations

import io
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data.kinds import HEAD, kind_of, marked


def written(name: str) -> bytes:
    """A small file of a kind that Python or NumPy writes."""
    file = io.BytesIO()
    match name:
        case "tar":
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.addfile(tarfile.TarInfo("a"))
        case "ZIP":
            with zipfile.ZipFile(file, "w") as zipped:
                zipped.writestr("a", "a text")
        case "WAV":
            with wave.open(file, "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", ""))
        case "NumPy":
            np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("name", ["tar", "ZIP", "WAV", "NumPy"])
def test_files_of_many_kinds(name: str) -> None:
    assert name in kind_of(written(name)[:HEAD])


@pytest.mark.parametrize(
    ("text", "encoding"), [("ятаган", "cp1251"), ("яШя", "cp1251"), ("“NUMPY” it is", "cp1252"), ("(µ/ý", "latin-1")]
)
def test_what_begins_as_another_file_does_is_a_text(text: str, encoding: str) -> None:
    assert kind_of(text.encode(encoding)) == ""
    assert kind_of(text.encode(encoding) + b"\0\1\2") != ""


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30))
def test_no_text_is_something_else(text: str) -> None:
    assert kind_of(text.encode()) == ""
    assert marked(text.encode()) == ("utf-8-sig" if text.startswith("\ufeff") else "")


def test_the_files_here_are_texts() -> None:
    for path in Path(__file__).parent.glob("*.py"):
        head = path.read_bytes()[:HEAD]
        assert kind_of(head) == marked(head) == ""
