"""What a file is by its first bytes: its byte order mark if it is a text, its name if it is something else."""

from __future__ import annotations

import codecs
import re

HEAD = 512
"""So many bytes are enough to tell."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Sources: the specifications of the formats, and file(1).
_KINDS = (
    (rb"\x1f\x8b", "compressed by gzip"),
    (rb"BZh[1-9]1AY&SY", "compressed by bzip2"),
    (rb"\xfd7zXZ\x00", "compressed by xz"),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (rb"\x04\x22\x4d\x18", "compressed by lz4"),
    (rb"\x1f[\x9d\xa0]", "compressed by compress"),
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive (so are .docx, .xlsx, .epub and .npz)"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb".{257}ustar[\x00 ]", "a tar archive"),
    (rb"%PDF-", "a PDF"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an older Office (.doc, .xls)"),
    (rb"PAR1[^ -~]", "a Parquet file"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (rb"SQLite format 3\x00", "an SQLite database"),
    (rb"\x93NUMPY", "an array of NumPy (.npy)"),
    (rb"\x89PNG\r\n", "a PNG picture"),
    (rb"\xff\xd8\xff", "a JPEG picture"),
    (rb"GIF8[79]a(?! )", "a GIF picture"),
    (rb"RIFF.{4}WEBP", "a WebP picture"),
    (rb"(RIFF|RF64|BW64).{4}WAVE", "a WAV file"),
    (rb"RIFX.{4}WAVE", "a WAV file with the high byte first"),
    (rb"RIFF.{4}AVI ", "an AVI film"),
    (rb"FORM.{4}AIF[FC]", "an AIFF sound"),
    (rb"OggS\x00", "an Ogg sound"),
    (rb"fLaC[\x00\x80]", "a FLAC sound"),
    (rb"ID3[\x02-\x04]|\xff[\xf2\xf3\xfa\xfb]", "an MP3 sound"),
    (rb"\x00{3}.ftyp", "an MP4 film or sound (.mp4, .m4a)"),
    (rb"\.snd\x00", "an AU sound"),
    (rb"\x1a\x45\xdf\xa3", "a Matroska film (.mkv, .webm)"),
    (rb"\x7fELF", "a program"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]|%PDF-\d")  # no text has them near its beginning
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _KINDS)


def marked(head: bytes) -> str:
    r"""The encoding whose byte order mark a file begins with, one that drops the mark; "" without a mark.

    >>> marked(b"\xff\xfea\0"), marked(b"\xff\xfe\0\0a\0\0\0"), marked(b"a")
    ('utf-16', 'utf-32', '')
    """
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "")


def kind_of(head: bytes) -> str:
    r"""What a file is that begins with these bytes, `HEAD` of them or all; "" if that is not known, as for a text.

    >>> kind_of(b"\x1f\x8b\x08"), kind_of(b"It was a dark night.")
    ('compressed by gzip', '')
    """
    if not _CONTROL.search(head):  # such as "ятаган" in cp1251, which begins as MP3 does
        return ""
    return next((name for pattern, name in _PATTERNS if pattern.match(head)), "")
