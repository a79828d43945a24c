"""A model over more characters: what is known scores as before, what is new gets rows."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn.data import Vocabulary
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.finetune import widened
from tinygrad_rnn.language.model import CharModel, CharModelConfig

KNOWN, WIDER = Vocabulary("bdf"), Vocabulary("abcdefg")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_known_characters_score_as_before(cell: str) -> None:
    tr.manual_seed(0)
    model = CharModel(CharModelConfig(3, cell, 4, 6, 2)).eval()
    for weight in model.parameters():
        weight.assign_(3 * weight.numpy())
    wider = CharModel(CharModelConfig(7, cell, 4, 6, 2)).eval()
    wider.load_state_dict(widened(model, KNOWN, WIDER))
    text = "bdfdb" * 6
    before, _ = model(KNOWN.encode(text)[:, None])
    after, _ = wider(WIDER.encode(text)[:, None])
    known = after.numpy()[..., WIDER.encode(KNOWN.characters)]
    np.testing.assert_allclose(known, before.numpy(), rtol=1e-5, atol=1e-5)
    new = np.delete(after.numpy(), WIDER.encode(KNOWN.characters), axis=-1)
    np.testing.assert_allclose(new, before.numpy().mean(axis=-1, keepdims=True) + 0 * new, rtol=1e-4, atol=1e-5)
    p = tr.softmax(after, axis=-1).numpy()
    assert np.delete(p, WIDER.encode(KNOWN.characters), axis=-1).max() <= 1 / 4 + 1e-6
    scores, _ = wider(WIDER.encode("ace")[:, None])
    assert np.isfinite(scores.numpy()).all()


def test_the_same_vocabulary_changes_no_bit() -> None:
    model = CharModel(CharModelConfig(3))
    for name, array in widened(model, KNOWN, KNOWN).items():
        assert array.tobytes() == model.state_dict()[name].numpy().tobytes()
    with pytest.raises(InputError, match="the wider vocabulary lacks 'f'"):
        widened(model, KNOWN, Vocabulary("bd"))
