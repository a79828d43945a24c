from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from examples import char_lm
from examples.common.experiment import experiment
from tinygrad_rnn.data import Vocabulary
from tinygrad_rnn.language.model import CharModel, CharModelConfig


def test_the_surprise_is_minus_the_logarithm_of_what_the_model_says() -> None:
    vocabulary = Vocabulary.of("abc")
    model = CharModel(CharModelConfig(3, hidden=4))
    model.eval()
    prompt, ids = vocabulary.encode("ab"), vocabulary.encode("cab")
    scores = model(np.concatenate([prompt, ids])[:-1, None])[0].numpy()[1:, 0].astype(float)
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(char_lm.surprise(model, prompt, ids), -np.log2(p[np.arange(3), ids]), rtol=1e-5)


def test_ones_own_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(char_lm, "WRITTEN", 60)
    file = tmp_path / "mine.txt"
    file.write_text("one two three four five six seven\n" * 600)
    command = ["--quick", "--steps", "2", "--data", str(file), "--out", str(tmp_path / "out")]
    assert experiment(char_lm.main, steps=1, quick=1, data="a text", argv=command) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "17,442 characters to learn from, 918 to choose by, 2,040 to test with" in results["source"]
    assert [picture["file"] for picture in results["pictures"]] == ["learning.png", "samples.png"]
    file.write_text("too short")
    assert experiment(char_lm.main, steps=1, quick=1, data="a text", argv=command) == 2
    assert "mine.txt: 9 characters are too few" in capsys.readouterr().err
    file.write_text("a" * 20_000)
    assert experiment(char_lm.main, steps=1, quick=1, data="a text", argv=command) == 2
    assert "mine.txt: all characters are 'a': there is nothing to learn\n" in capsys.readouterr().err
    file.write_text("".join(map(chr, range(0x4E00, 0x4E00 + 20_000))))
    assert experiment(char_lm.main, steps=1, quick=1, data="a text", argv=command) == 2
    said = capsys.readouterr().err  # before anything was trained
    assert said == "char_lm: 20000 different characters are too many for a 5-gram model\n"
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
