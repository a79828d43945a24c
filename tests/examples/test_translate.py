"""The translator's own data: sentence pairs from a file or a folder, and what it says of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import translate
from examples.common.experiment import experiment

pytest.importorskip("matplotlib")


def run(*argv: str) -> int:
    return experiment(translate.main, steps=3, quick=3, data="pairs", argv=["--quick", "--steps", "3", *argv])


def sentences(count: int) -> str:
    number = ["eins", "zwei", "drei"]
    word = ["one", "two", "three"]
    return "".join(f"{number[k % 3]} {number[k // 3 % 3]}\t{word[k % 3]} {word[k // 3 % 3]}\n" for k in range(count))


def test_dates(tmp_path: Path) -> None:
    pytest.importorskip("babel")
    assert run("--out", str(tmp_path)) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["source"].startswith("generated: 6,000 dates")
    assert [row[0] for row in results["tables"][0]["rows"]] == ["no", "dot", "additive"]
    assert {"attention.png", "learning.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("folder", [False, True])
def test_sentence_pairs(tmp_path: Path, folder: bool) -> None:
    pytest.importorskip("sacrebleu")
    data = tmp_path / "pairs"
    if folder:
        data.mkdir()
        for name, count in {"train": 20, "val": 3, "test": 3}.items():
            (data / f"{name}.tsv").write_text(sentences(count))
    else:
        data.write_text(sentences(40))
    assert run("--out", str(tmp_path / "out"), "--data", str(data)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert ("3 to test" if folder else "4 to test") in results["source"]
    assert results["tables"][0]["title"].startswith("BLEU")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ein Wort\tone word\nnoch eins\n", "line 2: 1 field between tabs, 2 are needed"),
        ("ein Wort\tone word\nnoch eins\t\nund\tand\n", "line 2: field 2 of 2 is empty"),
        ("ein Wort\tone word\n", "1 examples are too few"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text(text)
    assert run("--out", str(tmp_path / "out"), "--data", str(file)) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
