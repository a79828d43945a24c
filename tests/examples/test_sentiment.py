from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from examples import sentiment
from examples.common.experiment import experiment

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def run(data: Path, *more: str) -> int:
    command = ["--quick", "--steps", "3", "--data", str(data), "--out", str(data.parent / "out"), *more]
    options: dict[str, Any] = {"data": "a file", "encoded": True, "data_options": sentiment.data_options}
    return experiment(sentiment.main, steps=1, quick=1, **options, argv=command)


def test_ones_own_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.tsv"
    rows = [f"a {'good' if k % 2 else 'bad'} film number {k}\t{k % 2}" for k in range(40)]
    file.write_text("\n".join(["sentence\tlabel", *rows]))
    assert run(file) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "32 sentences to learn from, 4 to choose by, 4 to" in results["source"]
    assert results["tables"][0]["columns"] == ["", "0", "1", "all"]
    for more, message in {
        "a film\t": "mine.tsv, line 42: the label is empty",
        "a film": "mine.tsv, line 42: 1 field, and the header has 2",
    }.items():
        file.write_text("\n".join(["sentence\tlabel", *rows, more]))
        assert run(file) == 2 and message in capsys.readouterr().err
    for labels, message in (
        ("0" * 40, "only one of the labels occurs among those to learn from: '0'"),
        (
            [str(k / 7) for k in range(40)],
            "32 different labels of 32 sentences to learn from are no labels: choose the",
        ),
        (
            [*"01" * 19, "2", "2"],
            "of them to learn from: 3 or more are to be learnt from, and tested",
        ),
    ):
        file.write_text("\n".join(["sentence\tlabel", *(f"film {k}\t{x}" for k, x in enumerate(labels))]))
        assert run(file) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


STARS = ("1.0", "2.0", "3.0", "4.0", "5.0")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_any_labels_in_any_table(delimiter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five classes, quoted reviews with line breaks, delimiters and quotes in them, columns by name."""
    file = tmp_path / "reviews.csv"
    words = ("awful", "dull", "so-so", "good", "great")
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow(["id", "stars", "review"])
        for k in range(60):
            writer.writerow([k, STARS[k % 5], f'"{words[k % 5]}", I said;\n\n{words[k % 5]},\tnumber {k}'])
    assert run(file) == 2
    message = f"{file}, line 1: no column 'sentence': the header has id, stars, review: choose the column of the texts "
    assert message + "(--text-column)" in capsys.readouterr().err
    assert run(file, "--text-column", "review") == 2
    assert "choose the column of the labels (--label-column)" in capsys.readouterr().err
    assert run(file, "--text-column", "review", "--label-column", "stars") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "48 sentences to learn from" in results["source"]
    assert results["tables"][0]["columns"] == ["", *STARS, "all"]
    assert "5 labels, of those to learn from: " in capsys.readouterr().out


def test_a_folder_of_csv_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, count in {"train": 60, "dev": 10}.items():
        rows = [f"film {k},{('neg', 'pos')[k % 2]}" for k in range(count)]
        (data / f"{name}.csv").write_text("\n".join(["sentence,label", *rows]))
    assert run(data) == 0
    (data / "dev.tsv").write_text("")
    assert run(data) == 2
    assert "data: there are dev.tsv and dev.csv: which is the part?" in capsys.readouterr().err
