"""How pictures are composed, how the baseline cuts them up, and a run of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from examples import caption
from examples.common.experiment import experiment

pytest.importorskip("matplotlib")
sklearn = pytest.importorskip("sklearn.datasets")


def test_pictures_hold_their_digits_from_left_to_right() -> None:
    """Digit k is a block of 8 x 8 with the grey value (k + 1) / 10."""
    blocks = np.ones((10, 8, 8), np.float32) * (np.arange(1, 11, dtype=np.float32) / 10)[:, None, None]
    pictures = caption.compose(blocks, np.arange(10), 200, np.random.default_rng(0))
    assert pictures.pixels.shape == (200, caption.HEIGHT, caption.WIDTH)
    assert {len(words) for words in pictures.captions} == {2, 3}
    for picture, words in zip(pictures.pixels, pictures.captions, strict=True):
        values = [(caption.WORDS.index(word) + 1) / 10 for word in words]
        found = [np.flatnonzero(np.isclose(picture, value).any(axis=0)) for value in values]
        if len(set(values)) == len(values):
            firsts = [columns[0] for columns in found if len(columns)]
            assert len(firsts) == len(values) and firsts == sorted(firsts)
        assert np.count_nonzero(picture) >= len(words) * 64 - 2 * 2 * 8


def test_the_baseline_reads_digits_that_stand_apart() -> None:
    digits = sklearn.load_digits()
    images = digits.images / 16
    pixels = np.zeros((40, caption.HEIGHT, caption.WIDTH))
    for k in range(40):
        pixels[k, 2:10, 1:9], pixels[k, 5:13, 20:28] = images[k], images[k + 40]
    _, captions = caption.cut_and_read(images, digits.target, pixels)
    truth = [[caption.WORDS[digits.target[k]], caption.WORDS[digits.target[k + 40]]] for k in range(40)]
    assert sum(map(list.__eq__, captions, truth)) >= 35


def test_a_few_steps(tmp_path: Path) -> None:
    argv = ["--quick", "--steps", "3", "--out", str(tmp_path)]
    assert experiment(caption.main, steps=3, quick=3, argv=argv) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row[0] for row in results["tables"][0]["rows"]] == ["network", "cut and read"]
    assert (tmp_path / "captions.png").exists() and (tmp_path / "looks.png").exists()
