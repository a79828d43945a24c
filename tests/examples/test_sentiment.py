from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import sentiment
from examples.common.experiment import experiment


def test_ones_own_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    file = tmp_path / "mine.tsv"
    rows = [f"a {'good' if k % 2 else 'bad'} film number {k}\t{k % 2}" for k in range(40)]
    file.write_text("\n".join(["sentence\tlabel", *rows]))
    command = ["--quick", "--steps", "3", "--data", str(file), "--out", str(tmp_path / "out")]
    assert experiment(sentiment.main, steps=1, quick=1, data="a file", argv=command) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "32 sentences to learn from, 4 to choose by, 4 to" in results["source"]
    assert results["tables"][0]["columns"] == ["", "sentences", "all"]
    file.write_text("\n".join(["sentence\tlabel", *rows[:30], "a film\t2"]))
    assert experiment(sentiment.main, steps=1, quick=1, data="a file", argv=command) == 2
    assert "mine.tsv, line 32: the label is '2', none of 0, 1" in capsys.readouterr().err
