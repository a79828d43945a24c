"""Sounds in WAV files: every format there is comes back or is refused by name, and no length is believed blindly."""

from __future__ import annotations

import io
import math
import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_readers import refused
from tests.profiles import examples
from tinygrad_rnn.data import read_sound, read_wav, read_waveforms
from tinygrad_rnn.errors import InputError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that each example writes anew."""
    return tmp_path_factory.mktemp("waves") / "file"


def write_wav(path: Path, values: np.ndarray, width: int, rate: int = 8000) -> None:
    """Integers (N, channels) as PCM of `width` bytes."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        shifted = values + 128 * (width == 1)
        file.writeframes(b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in shifted.reshape(-1)))


@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 3), st.integers(1, 20), st.integers(1, 48000), st.integers(0, 99))
def test_wav(file: Path, width: int, channels: int, count: int, rate: int, seed: int) -> None:
    top = 2 ** (8 * width - 1)
    values = np.random.default_rng(seed).integers(-top, top, (count, channels))
    values[0] = -top
    write_wav(file, values, width, rate)
    samples, found = read_wav(file)
    assert found == rate and samples.dtype == np.float32 and samples.shape == (count,)
    np.testing.assert_allclose(samples, (values / top).mean(axis=1), rtol=1e-6, atol=1e-9)
    assert samples[0] == -1 and samples.max() <= 1


def test_wav_that_is_damaged(file: Path) -> None:
    write_wav(file, np.zeros((10, 1), int), 2)
    good = file.read_bytes()
    float_format = good[:20] + struct.pack("<H", 3) + good[22:]
    for raw, message in (
        (b"", "not a WAV file that can be read: it begins with the bytes of nothing"),
        (b"OggS" + bytes(40), "not a WAV file that can be read: an Ogg sound"),
        (float_format, "floats of 16 bits: those of 32, 64 bits are read"),
        (good[:-1], "cut off: 9 of 10 samples are there"),
        (good[:-20], "cut off: 0 of 10 samples are there"),
        (good[:30], "cut off: there is no chunk 'data' in it"),
    ):
        file.write_bytes(raw)
        refused(read_wav, file, message)
    write_wav(file, np.zeros((0, 1), int), 2)
    refused(read_wav, file, "no samples in it")


@given(st.data())
@examples(dev=50, ci=200, thorough=2000)
def test_a_spoilt_wav_is_read_or_refused(file: Path, data: st.DataObject) -> None:
    write_wav(file, np.arange(12).reshape(6, 2), 2)
    raw = bytearray(file.read_bytes())
    for at in data.draw(st.lists(st.integers(0, 43), min_size=1, max_size=3)):
        raw[at] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        samples, rate = read_wav(file)
    except InputError as error:
        assert str(file) in str(error) and "\n" not in str(error)
    else:
        assert len(samples) and rate > 0 and np.isfinite(samples).all() and math.isfinite(rate)


def test_recordings(tmp_path: Path) -> None:
    for k, name in enumerate(("7_ann_0.wav", "0_bob_1.WAV", "0_ann_2.wav")):
        write_wav(tmp_path / name, np.full((k + 1, 1), 64), 1)
    (tmp_path / "notes.txt").write_text("who spoke")
    found = read_waveforms(tmp_path)
    assert [(r.label, len(r.samples), r.rate, r.path.name) for r in found] == [
        ("0", 3, 8000, "0_ann_2.wav"),
        ("0", 2, 8000, "0_bob_1.WAV"),
        ("7", 1, 8000, "7_ann_0.wav"),
    ]
    assert found[0].samples.tolist() == [0.5] * 3
    write_wav(tmp_path / "8_ann_0.wav", np.zeros((1, 1), int), 2, 16000)
    refused(read_waveforms, tmp_path, "8_ann_0.wav: 16,000 samples a second, but 7_ann_0.wav has 8,000")
    write_wav(tmp_path / "4.wav", np.zeros((1, 1), int), 2)
    refused(read_waveforms, tmp_path, "4.wav: the name does not begin with a label")
    (tmp_path / "empty").mkdir()
    refused(read_waveforms, tmp_path / "empty", "no sounds in it: files whose names end in .wav, .flac, .ogg")


# --- files as other programs write them ---------------------------------------------------------------------

TAIL = bytes.fromhex("000000001000800000aa00389b71")


def form(code: int, bits: int, channels: int = 1, rate: int = 8000, *, extensible: bool = False) -> bytes:
    """A chunk `fmt `."""
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, rate * frame, frame, bits)
    more = struct.pack("<HHIH", 22, bits, 0, code) + TAIL if extensible else b""
    return b"fmt " + struct.pack("<I", len(head + more)) + head + more


def sound(form: bytes, data: bytes, size: int | None = None, before: bytes = b"", after: bytes = b"") -> bytes:
    """A WAV file; `size` is what its header says instead of the size of the data."""
    body = b"WAVE" + before + form + b"data" + struct.pack("<I", len(data) if size is None else size) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if size is None else min(size + 36, 0xFFFFFFFF)) + body


PCM = np.array([0, 16384, -16384, 32767], "<i2").tobytes()
VALUES = [0, 0.5, -0.5, 32767 / 32768]
MONO = form(1, 16)
LIST = b"LIST\x04\0\0\0INFO"

READ = {
    "extensible": sound(form(1, 16, extensible=True), PCM),
    "a chunk after": sound(MONO, PCM, after=LIST),
    "a chunk before": sound(MONO, PCM, before=LIST),
    "an odd chunk before": sound(MONO, PCM, before=b"note\x03\0\0\0abc\0"),
    "an odd chunk without its padding": sound(MONO, PCM, before=b"note\x03\0\0\0abc"),
    "an odd chunk after": sound(MONO, PCM, after=b"note\x01\0\0\0a\0" + LIST),
    "zeros after": sound(MONO, PCM, after=bytes(3)),
    "many zeros after": sound(MONO, PCM, after=LIST + bytes(100)),
    "a tag after": sound(MONO, PCM, after=b"TAG" + b"x" * 125),
    "an odd chunk at the end without its padding": sound(MONO, PCM, after=b"note\x01\0\0\0a"),
    **{f"of unknown length, {n:#x}": sound(MONO, PCM, n) for n in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000)},
    "of unknown length, less a header": sound(MONO, PCM, 0xFFFFFFFF - 44),
    "of unknown length, 0": sound(MONO, PCM, 0),
    "cut off in a sample, of unknown length": sound(MONO, PCM + b"\1", 0xFFFFFFFF),
    "RF64": b"RF64" + sound(MONO, PCM, 0xFFFFFFFF, b"ds64" + struct.pack("<IQQQI", 28, 0, 8, 4, 0), LIST)[4:],
}


@pytest.mark.parametrize("raw", READ.values(), ids=READ)
def test_files_of_other_programs(raw: bytes, file: Path) -> None:
    file.write_bytes(raw)
    samples, rate = read_wav(file)
    assert samples.tolist() == VALUES and rate == 8000


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("bits", [32, 64])
def test_floats_are_as_they_are(bits: int, extensible: bool, file: Path) -> None:
    values = np.array([[0.25, 0.75], [-1.5, 0.5], [2.0, 3.0]], f"<f{bits // 8}")
    file.write_bytes(sound(form(3, bits, channels=2, extensible=extensible), values.tobytes()))
    samples, _ = read_wav(file)
    assert samples.dtype == np.float32 and samples.tolist() == [0.5, -0.5, 2.5]
    for wrong in (np.nan, np.inf, -np.inf, 1e300)[: 3 + bits // 64]:
        values[1, 0] = wrong
        file.write_bytes(sound(form(3, bits, channels=2), values.tobytes()))
        refused(read_wav, file, "sample 1 is -?(nan|inf), not a finite number")


def test_24_bits_in_an_extensible_file(file: Path) -> None:
    values = np.array([0, 2**22, -(2**23), 2**23 - 1], "<i4")
    data = values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    file.write_bytes(sound(form(1, 24, extensible=True), data))
    assert read_wav(file)[0].tolist() == np.float32(values / 2**23).tolist()


WRONG = {
    "samples in A-law: only PCM and floats are read": sound(form(6, 8), PCM),
    "samples in µ-law": sound(form(7, 8, extensible=True), PCM),
    "samples in MP3": sound(form(0x55, 16), PCM),
    "samples in the format 0x1234": sound(form(0x1234, 16), PCM),
    "samples of an unknown sub-format, 0100": sound(form(1, 16, extensible=True)[:-1] + b"\0", PCM),
    "floats of 16 bits: those of 32, 64 bits are read": sound(form(3, 16), PCM),
    "PCM of 12 bits": sound(form(1, 12), PCM),
    "no samples in it": sound(MONO, b"", 0, after=LIST),
    "no chunk 'data' in it": sound(MONO, PCM)[:36],
    "no chunk 'fmt ' in it": sound(b"", PCM),
    "the chunk 'fmt ' has 4 bytes": sound(b"fmt \4\0\0\0abcd", PCM),
    "cut off: 4 of 2,097,152 samples are there": sound(MONO, PCM, 2**22),
    "cut off: 4 of 5 samples are there": sound(MONO, PCM, 10),
    "7 bytes of samples, and each has 2": sound(MONO, PCM[:7] + b"\0", 7),
    "the 4 bytes at its end are in no chunk, and may be samples": sound(MONO, PCM, 4),
    "the 404 bytes at its end": sound(MONO, PCM * 51, 4),
    "the 4 bytes at": sound(form(1, 8), PCM[:3] + b"\0" + PCM[:4], 3),  # 3 bytes and their padding
    "the 36 bytes at its end": sound(MONO, PCM + b"    " * 9, 8),  # which look like the name of a chunk
    "the 24 bytes at its end": sound(MONO, PCM, after=LIST + PCM * 3),
    "the 16 bytes at its end": b"RF64"
    + sound(MONO, PCM * 3, 2**32 - 1, b"ds64" + struct.pack("<IQQQI", 28, 0, 8, 4, 0))[4:],
    "the 13 bytes at its end": sound(MONO, PCM, after=b"LIST\x64\0\0\0INFO."),  # cut off
    "two chunks 'data'": sound(MONO, PCM, after=b"data\x02\0\0\0ab"),
    "another WAV file follows in it": sound(MONO, PCM) + sound(MONO, PCM),
    "0 channels of 16 bits at 8000 Hz": sound(form(1, 16, channels=0), PCM),
    "not a WAV file that can be read: a FLAC sound": b"fLaC\0\0\0\x22" + bytes(40),
    "not a WAV file that can be read: an AVI film": b"RIFF\0\0\0\0AVI " + bytes(40),
    "not a WAV file that can be read: a WAV file with the high byte first": b"RIFX" + sound(MONO, PCM)[4:],
    "not a WAV file that can be read: compressed by gzip": b"\x1f\x8b\x08" + bytes(40),
}


@pytest.mark.parametrize(("message", "raw"), WRONG.items(), ids=WRONG)
def test_files_that_are_refused_by_name(message: str, raw: bytes, file: Path) -> None:
    file.write_bytes(raw)
    refused(read_wav, file, message)


# --- what soundfile reads -----------------------------------------------------------------------------------

CODED = {  # how near the samples come back
    ("WAV", "ALAW"): 0.02,
    ("WAV", "ULAW"): 0.02,
    ("WAV", "IMA_ADPCM"): 0.05,
    ("WAV", "MS_ADPCM"): 0.05,
    ("FLAC", "PCM_16"): 1e-4,
    ("FLAC", "PCM_24"): 1e-6,
    ("OGG", "VORBIS"): 0.05,
    ("OGG", "OPUS"): 0.1,
}


def written(form: str, subtype: str, endian: str = "FILE") -> tuple[np.ndarray, bytes]:
    """A tone in the mean of two channels, and a file of it."""
    soundfile = pytest.importorskip("soundfile")
    tone = 0.5 * np.sin(np.arange(12000) / 20) * np.hanning(12000)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone + 0.1, tone - 0.1], 1), 8000, subtype, endian, form)
    return tone, file.getvalue()


@pytest.mark.parametrize(("form", "subtype"), CODED)
def test_coded_sounds(form: str, subtype: str, file: Path) -> None:
    tone, raw = written(form, subtype)
    file.write_bytes(raw)
    samples, rate = read_sound(file)
    assert (
        rate == 8000 and samples.dtype == np.float32 and 0 <= len(samples) - len(tone) < 1024
    )  # whole blocks of ADPCM
    assert np.abs(samples[: len(tone)] - tone).max() < CODED[form, subtype]
    refused(read_wav, file, "samples in|not a WAV file that can be read")
    for share in (0.95, 0.6, 0.3):  # a part of the sound is no sound
        file.write_bytes(raw[: int(share * len(raw))])
        refused(read_sound, file, "cut off|cannot be read: ")


def test_a_wav_file_with_the_high_byte_first(file: Path) -> None:
    tone, raw = written("WAV", "PCM_16", "BIG")
    assert raw[:4] == b"RIFX"
    file.write_bytes(raw)
    assert np.abs(read_sound(file)[0] - tone).max() < 1e-4
    file.write_bytes(raw[:-2000])
    refused(read_sound, file, "cut off: 46,000 of 48,000 bytes of samples are there")


def test_plain_samples_need_no_soundfile(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    file.write_bytes(READ["extensible"])
    assert read_sound(file)[0].tolist() == VALUES
    file.write_bytes(sound(form(6, 8), PCM))
    refused(
        read_sound, file, "samples in A-law: only PCM and floats are read: soundfile reads it: pip install soundfile"
    )
    file.write_bytes(b"fLaC\0\0\0\x22" + bytes(40))
    refused(read_sound, file, "a FLAC sound: soundfile reads it: pip install soundfile")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"ID3\4\0" + bytes(40), "an MP3 sound: convert it to WAV or FLAC"),
        (bytes(3) + b"\x20ftypM4A " + bytes(40), "an MP4 film or sound .*: convert it to WAV or FLAC"),
        (b"not a sound", "it begins with the bytes 6e 6f 74 20 61 20 73 6f 75 6e 64$"),
        (b"fLaC" + bytes(100), "cannot be read: "),
        (b"OggS" + bytes(100), "cut off: its last page is not there"),
        (b"OggS\0\4" + bytes(100), "cannot be read: "),
        (b"OggS\0\4" + bytes(20), "cut off: its last page is not there"),
    ],
)
def test_other_files(raw: bytes, message: str, file: Path) -> None:
    pytest.importorskip("soundfile")
    file.write_bytes(raw)
    refused(read_sound, file, message)


def test_a_folder_of_sounds_of_several_kinds(tmp_path: Path) -> None:
    for k, (form, subtype) in enumerate((("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"))):
        ending = "opus" if subtype == "OPUS" else form.lower()
        (tmp_path / f"{k}_ann.{ending}").write_bytes(written(form, subtype)[1])
    assert [(s.label, s.path.suffix) for s in read_waveforms(tmp_path)] == [
        ("0", ".wav"),
        ("1", ".flac"),
        ("2", ".ogg"),
        ("3", ".opus"),
    ]
    (tmp_path / "5_bob.m4a").write_bytes(bytes(3) + b"\x20ftypM4A " + bytes(40))  # not passed over
    refused(read_waveforms, tmp_path, "5_bob.m4a: not a WAV file that can be read: an MP4 film or sound")
