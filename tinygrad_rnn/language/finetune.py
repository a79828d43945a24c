"""A trained model over more characters than it was trained on, to go on with."""

from __future__ import annotations

import numpy as np

from tinygrad_rnn.data.vocabularies import Coding, Vocabulary
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.model import CharModel
from tinygrad_rnn.training.resume import weights

TABLES = ("embedding.weight", "output.weight", "output.bias")
"""What has a row for each character."""


def widened(model: CharModel, known: Coding, wider: Coding) -> dict[str, np.ndarray]:
    """The weights of `model`, whose characters are `known`, for a model of the characters `wider`; tokens are the same.

    Known characters keep their scores, to the bit where the products are the same. A new one has the mean of the rows
    of all known ones: its score is the mean of theirs, and so its probability never above that of the mean of them, at
    most 1 / (V + 1) (J. Hewitt, "Initializing new word embeddings for pretrained language models", 2021). Raises
    InputError unless all that is known is in `wider`, and for other tokens.

    >>> from tinygrad_rnn.language.model import CharModelConfig
    >>> model = CharModel(CharModelConfig(2, embedding=3, hidden=4))
    >>> found = widened(model, Vocabulary("ac"), Vocabulary("abc"))["output.bias"]
    >>> bool(np.array_equal(found[[0, 2]], model.output.bias.numpy())), bool(found[1] == found[[0, 2]].mean())
    (True, True)
    """
    if not (isinstance(known, Vocabulary) and isinstance(wider, Vocabulary)):
        if known != wider:
            raise InputError("a model of tokens keeps its tokens")
        return weights(model)
    if lost := sorted(set(known.characters) - set(wider.characters)):
        raise InputError(f"the wider vocabulary lacks {lost[0]!r}")
    at = wider.encode(known.characters)
    found = weights(model)
    for name in TABLES:
        table = found[name]
        found[name] = np.empty((len(wider), *table.shape[1:]), table.dtype)
        found[name][:] = table.mean(axis=0)
        found[name][at] = table
    return found
