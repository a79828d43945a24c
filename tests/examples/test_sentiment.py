from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from examples import sentiment
from tinygrad_rnn.experiment import experiment


def verdict(clause: str) -> bool:
    """What one clause says, by another way than the grammar's."""
    good = any(word in sentiment.GOOD for word in clause.split())
    return good != any(phrase in clause for phrase in sentiment.NOT)


@pytest.mark.parametrize("kind", sentiment.KINDS)
def test_the_label_is_what_the_sentence_says(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        text, label = sentiment.review(kind, rng)
        if kind in ("plain", "negation"):
            assert {verdict(clause) for clause in text.split(" and ")} == {bool(label)}
        elif kind == "intensity":
            strong = [c for c in text.split(" and ") if set(c.split()) & set(sentiment.STRONG)]
            assert [verdict(c) for c in strong] == [bool(label)]
        else:
            before, _, after = text.partition("but the " if " but the " in text else "although ")
            main = after if " but the " in text else before if "the " in before else after.rpartition(" , ")[2]
            assert verdict(main) == bool(label), text


def test_no_sentence_is_in_two_parts() -> None:
    rng = np.random.default_rng(0)
    train, _ = sentiment.reviews(200, rng, set())
    test, kinds = sentiment.reviews(200, rng, set(train.texts))
    assert not set(train.texts) & set(test.texts)
    assert np.bincount(kinds).tolist() == [40] * 5


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
