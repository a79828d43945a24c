"""Sounds in files: WAV of plain samples by itself, and what is coded, WAV, FLAC and Ogg, by soundfile (extra `data`).

A WAV file is a RIFF file: chunks of a name, a size and so many bytes, of which `fmt ` says how the samples in `data`
are to be read. Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0 (1991), and
Microsoft's Multiple Channel Audio Data and WAVE Files (2007); RF64: EBU Tech 3306.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.kinds import HEAD, kind_of
from tinygrad_rnn.data.text import checked_path, read_bytes, unreadable
from tinygrad_rnn.errors import InputError

Name = str | PathLike[str]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_READ = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}  # bits
_FORMATS = {
    _PCM: "PCM",
    2: "Microsoft ADPCM",
    _FLOAT: "floats",
    6: "A-law",
    7: "µ-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x50: "MPEG",
    0x55: "MP3",
    0xFF: "AAC",
    0x161: "Windows Media Audio",
    0x2000: "AC-3",
    0xF1AC: "FLAC",
}
_CODED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"fLaC", b"OggS")  # what soundfile is asked to read
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus")
"""How the names of files end that `read_sound` reads."""
_OTHERS = (".mp3", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".au", ".amr", ".mp4", ".webm")  # sounds, but not read
_SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")  # the end of a GUID that begins with a format's number
_PIPED = 2**16  # programs that cannot know a size write the largest there is, less what comes before the data


def read_wav(path: Name) -> tuple[npt.NDArray[np.float32], int]:
    """The samples of a WAV file, float32 of shape (N,), and how many of them there are in a second.

    PCM of 8, 16, 24 or 32 bits, which is in [-1, 1), and floats of 32 or 64 bits, which are as they are; either as a
    WAVE_FORMAT_EXTENSIBLE, too. Several channels become their mean. If the header does not know how long the sound is,
    as where it was written into a pipe or by a recorder that was killed, it goes on to the end of the file, as far as
    its samples are whole. Behind the samples there may be other chunks, a tag of the kind ID3v1, and zeros.

    Raises InputError for a file that cannot be read, is no such WAV (another format is named), is cut off or empty, has
    bytes behind its samples that may be samples, too, or samples that are not finite.
    """
    return _plain(path, read_bytes(path))


class _Coded(InputError):
    """A sound whose samples are not plain numbers."""


def read_sound(path: Name) -> tuple[npt.NDArray[np.float32], int]:
    """The samples of a sound, float32 of shape (N,), and how many of them there are in a second.

    A WAV file of plain samples is read by `read_wav`; one that is coded (A-law, ADPCM and the like) or has the high
    byte first, FLAC and Ogg (Vorbis, Opus, FLAC) by soundfile. Several channels become their mean.

    Raises InputError as `read_wav` does, for other files and for those that are cut off; and without soundfile, where
    it is needed.
    """
    raw = read_bytes(path)
    try:
        return _plain(path, raw)
    except _Coded as error:
        if raw[:4] not in _CODED or (raw[:3] == b"RIF" and raw[8:12] != b"WAVE"):
            raise InputError(str(error), hint="convert it to WAV or FLAC" if kind_of(raw[:HEAD]) else "") from None
        return _decoded(path, raw, str(error))


def _decoded(path: Name, raw: bytes, why: str) -> tuple[npt.NDArray[np.float32], int]:
    """The samples of a coded sound. What soundfile reads in silence, though the file is cut off, is found here."""
    try:
        import soundfile
    except (ImportError, OSError):  # an OSError, where libsndfile is not there
        raise InputError(f"{why}: soundfile reads it: pip install soundfile") from None
    if raw[:4] == b"OggS" and not _has_last_page(raw):
        raise InputError(f"{path}: cut off: its last page is not there")
    if raw[8:12] == b"WAVE":
        order: Literal["<", ">"] = ">" if raw[:4] == b"RIFX" else "<"
        for name, start, size in _chunks(path, raw, order):
            if name == b"data" and start + size > len(raw) and not _unknown(size):
                raise InputError(f"{path}: cut off: {len(raw) - start:,} of {size:,} bytes of samples are there")
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            values, rate, count = file.read(dtype="float64", always_2d=True), int(file.samplerate), file.frames
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read: {error.error_string.rstrip('.')}") from None
    if len(values) < count:
        raise InputError(f"{path}: cut off: {len(values):,} of {count:,} samples are there")
    return _mean(path, values), rate


def _has_last_page(raw: bytes) -> bool:
    """Whether an Ogg file goes on to the end of the page that is marked as its last one (RFC 3533)."""
    at = raw.rfind(b"OggS")
    head = raw[at : at + 27]
    return len(head) == 27 and bool(head[5] & 4) and at + 27 + head[26] + sum(raw[at + 27 :][: head[26]]) <= len(raw)


def _plain(path: Name, raw: bytes) -> tuple[npt.NDArray[np.float32], int]:
    """The samples of a WAV file of PCM or floats."""
    if raw[:4] not in (b"RIFF", b"RF64", b"BW64") or raw[8:12] != b"WAVE":
        what = kind_of(raw[:HEAD]) or f"it begins with the bytes {raw[:12].hex(' ') or 'of nothing'}"
        raise _Coded(f"{path}: not a WAV file that can be read: {what}")
    found: dict[bytes, tuple[int, int]] = {}
    for name, start, size in _chunks(path, raw):
        if name in found and name in (b"fmt ", b"data"):
            raise InputError(f"{path}: has two chunks {name.decode()!r}: one sound is read from a file")
        if name == b"RIFF":
            raise InputError(f"{path}: another WAV file follows in it: one sound is read from a file")
        found.setdefault(name, (start, size))
    for name in (b"fmt ", b"data"):
        if name not in found:
            raise InputError(f"{path}: cut off: there is no chunk {name.decode()!r} in it")
    sound = _format(path, raw, found[b"fmt "][0], found[b"fmt "][1])
    data = _data(path, raw, found, sound)
    return _mean(path, _values(data, sound).reshape(-1, sound.channels)), sound.rate


def _mean(path: Name, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The mean of the channels (N, channels)."""
    if not len(values):
        raise InputError(f"{path}: no samples in it")
    with np.errstate(over="ignore", invalid="ignore"):
        samples: npt.NDArray[np.float32] = values.mean(axis=1).astype(np.float32)
    if not (fine := np.isfinite(samples)).all():
        at = int(fine.argmin())
        raise InputError(f"{path}: sample {at:,} is {samples[at]}, not a finite number")
    return samples


@dataclass(frozen=True)
class _Format:
    """How the samples of a WAV file are to be read: `width` bytes each."""

    floats: bool
    channels: int
    rate: int
    width: int


def _chunks(path: Name, raw: bytes, order: Literal["<", ">"] = "<") -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, where its bytes start, and how many it says they are.

    What follows the chunk of data and is no chunk may be samples that an old header does not know of: InputError.
    """
    at, data, long = 12, False, 0xFFFFFFFF
    while at + 8 <= len(raw):
        name, size = struct.unpack_from(f"{order}4sI", raw, at)
        if data and name != b"RIFF" and not (_is_name(name) and at + 8 + size <= len(raw)):
            break
        if name == b"ds64" and size >= 16 and at + 24 <= len(raw) and raw[:4] != b"RIFF":
            long = struct.unpack_from("<Q", raw, at + 16)[0]
        size = long if name == b"data" and size == 0xFFFFFFFF else size
        yield name, at + 8, size
        data = data or name == b"data"
        if name == b"RIFF" or (name == b"data" and not _whole(raw, at + 8, size)):
            return
        at += 8 + size
        # A byte is added to an odd number of them, though there are programs that forget it.
        if size % 2 and not (_is_name(raw[at : at + 4]) and not _is_name(raw[at + 1 : at + 5])):
            at += 1
    rest = raw[at:]
    if data and rest.strip(b"\0") and not (rest.startswith(b"TAG") and len(rest) == 128):  # ID3v1
        raise InputError(
            f"{path}: the {len(rest):,} bytes at its end are in no chunk, and may be samples of which the header does "
            f"not know; sox makes a file of all of them, if it is told to ignore the length"
        )


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _whole(raw: bytes, start: int, size: int) -> bool:
    """Whether a chunk of data has the size it says: 0 is right only if other chunks, or nothing, follow."""
    if size:
        return start + size <= len(raw)
    while start + 8 <= len(raw):
        name, size = struct.unpack_from("<4sI", raw, start)
        if not _is_name(name):
            return False
        start += 8 + size + size % 2
    return start >= len(raw)


def _format(path: Name, raw: bytes, start: int, size: int) -> _Format:
    """What the chunk `fmt ` says. Raises InputError for what is not read."""
    if size < 16 or start + size > len(raw):
        raise InputError(f"{path}: cut off: the chunk 'fmt ' has {min(size, len(raw) - start)} bytes")
    code, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", raw, start)
    if code == _EXTENSIBLE:
        if size < 40:
            raise InputError(f"{path}: cut off: the chunk 'fmt ' has {size} bytes, and an extensible one has 40")
        code = struct.unpack_from("<H", raw, start + 24)[0]
        if raw[start + 26 : start + 40] != _SUBFORMAT:
            raise InputError(f"{path}: samples of an unknown sub-format, {raw[start + 24 : start + 40].hex()}")
    if code not in _READ:
        what = _FORMATS.get(code, f"the format 0x{code:04x}")
        raise _Coded(f"{path}: samples in {what}: only PCM and floats are read")
    if bits not in _READ[code]:
        known = ", ".join(map(str, _READ[code]))
        raise _Coded(f"{path}: {_FORMATS[code]} of {bits} bits: those of {known} bits are read")
    if rate < 1 or channels < 1 or frame != channels * bits // 8:
        what = f"{channels} channels of {bits} bits at {rate} Hz, together {frame} bytes"
        raise InputError(f"{path}: damaged: {what}, which no WAV file has")
    return _Format(code == _FLOAT, channels, rate, bits // 8)


def _data(path: Name, raw: bytes, found: dict[bytes, tuple[int, int]], sound: _Format) -> bytes:
    """The bytes of the samples. Raises InputError where there are none, or less than the header says."""
    (start, size), frame = found[b"data"], sound.channels * sound.width
    there = len(raw) - start
    if (size > there and _unknown(size)) or (size == 0 and not _whole(raw, start, 0)):
        size = there // frame * frame
    if there < size:
        raise InputError(f"{path}: cut off: {there // frame:,} of {size // frame:,} samples are there")
    if size % frame:
        raise InputError(f"{path}: damaged: {size:,} bytes of samples, and each has {frame}")
    if not size:
        raise InputError(f"{path}: no samples in it")
    return raw[start : start + size]


def _unknown(size: int) -> bool:
    """Whether a size is what programs write that do not know it."""
    return any(top - _PIPED <= size <= top for top in (0x80000000, 0xFFFFFFFF))


def _values(data: bytes, sound: _Format) -> npt.NDArray[np.float64]:
    """Samples as numbers, those of PCM from -1 to 1."""
    if sound.floats:
        return np.frombuffer(data, f"<f{sound.width}").astype(np.float64)
    if sound.width == 1:  # the only unsigned one
        return np.frombuffer(data, np.uint8) / 2**7 - 1
    wide = np.zeros((len(data) // sound.width, 4), np.uint8)  # into the high bytes of 32 bits
    wide[:, 4 - sound.width :] = np.frombuffer(data, np.uint8).reshape(-1, sound.width)
    return wide.view("<i4")[:, 0] / 2**31


@dataclass(frozen=True)
class Waveform:
    """A labelled sound: its `label`, its `samples` (N,), their `rate` in Hz, and the `path` of its file."""

    label: str
    samples: npt.NDArray[np.float32]
    rate: int
    path: Path


def read_waveforms(folder: Name) -> list[Waveform]:
    """The sounds in a folder, sorted by name, each labelled by the beginning of its name.

    Names are LABEL_ANYTHING.wav, as in the Free Spoken Digit Dataset, 7_jackson_32.wav, or end as others of `SOUNDS`
    do. Raises InputError as `read_sound` does, and for a folder without such files, for another name, and for a rate
    that is not that of the file before.
    """
    folder = checked_path(folder)
    try:
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in SOUNDS + _OTHERS)
    except OSError as error:
        raise unreadable(folder, error) from None
    if not paths:
        raise InputError(f"{folder}: no sounds in it: files whose names end in {', '.join(SOUNDS)}")
    found: list[Waveform] = []
    for path in paths:
        label, underscore, _ = path.stem.partition("_")
        if not label or not underscore:
            raise InputError(
                f"{path}: the name does not begin with a label: LABEL_ANYTHING.wav, as in 7_jackson_32.wav"
            )
        samples, rate = read_sound(path)
        if found and rate != found[-1].rate:
            raise InputError(f"{path}: {rate:,} samples a second, but {found[-1].path.name} has {found[-1].rate:,}")
        found.append(Waveform(label, samples, rate, path))
    return found
