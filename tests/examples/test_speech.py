"""The listener's own data: recordings glued together, wrong folders."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from examples import speech
from examples.common.experiment import experiment

pytest.importorskip("matplotlib")


def run(*argv: str) -> int:
    return experiment(speech.main, steps=3, quick=3, data="recordings", argv=["--quick", "--steps", "3", *argv])


def write_wav(path: Path, seed: int, rate: int = 8000) -> None:
    noise = np.random.default_rng(seed).normal(0, 3000, 1600).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(noise.tobytes())


def test_recordings_are_glued_together(tmp_path: Path) -> None:
    """WAV files, and two of another kind."""
    soundfile = pytest.importorskip("soundfile")
    data = tmp_path / "wav"
    data.mkdir()
    for k in range(30):
        write_wav(data / f"{'yes' if k % 2 else 'no'}_somebody_{k}.wav", k)
    for name in ("no_somebody_0.flac", "yes_somebody_1.ogg"):
        wav = (data / name).with_suffix(".wav")
        soundfile.write(data / name, *soundfile.read(wav))
        wav.unlink()
    assert run("--out", str(tmp_path / "out"), "--data", str(data)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "30 recordings of words" in results["source"]
    assert results["pictures"][0]["file"] == "alignment.png" and (tmp_path / "out" / "alignment.png").exists()


def test_a_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(4):
        write_wav(tmp_path / f"yes_{k}.wav", k)
    for name, reason in {"no": "does not begin with a label", "no_1": "1 of 'no': 3 or more are to be trained"}.items():
        write_wav(tmp_path / f"{name}.wav", 9)
        assert run("--out", str(tmp_path / "out"), "--data", str(tmp_path)) == 2
        error = capsys.readouterr().err
        assert reason in error and error.count("\n") == 1
        (tmp_path / f"{name}.wav").unlink()


def test_recordings_that_are_no_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(3):
        write_wav(tmp_path / f"yes_{k}.wav", k, rate=100)
    assert run("--out", str(tmp_path / "out"), "--data", str(tmp_path)) == 2
    assert capsys.readouterr().err == f"speech: {tmp_path}: recordings at 100 Hz: speech needs 2,000 at least\n"
