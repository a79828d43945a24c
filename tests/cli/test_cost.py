"""What a training on many tokens is said to take, beside what it takes."""

from __future__ import annotations

import argparse
import tracemalloc

import numpy as np
import pytest

import tinygrad_rnn as tr
from tinygrad_rnn import data
from tinygrad_rnn.cli import cost
from tinygrad_rnn.language import CharModel, CharModelConfig, NextCharacter
from tinygrad_rnn.training.steps import make_step


@pytest.mark.parametrize(("vocabulary", "hidden"), [(8000, 16), (3000, 96)])
def test_a_step_takes_no_more_memory_than_is_said_and_not_much_less(vocabulary: int, hidden: int) -> None:
    ids = np.random.default_rng(0).integers(vocabulary, size=3000).astype(np.int32)
    settings = argparse.Namespace(seq_len=16, batch=8)
    tracemalloc.start()
    try:
        model = CharModel(CharModelConfig(vocabulary, embedding=16, hidden=hidden))
        adam = tr.optim.Adam(model.named_parameters(), lr=1e-3)
        task = NextCharacter(model, data.Streams(ids, 8, 16), data.passage(ids[:9], ids[9:99], 2))
        for n in range(2):
            arguments, _ = task.batch(n)
            _, state = make_step(task.loss, adam, [*model.named_parameters()], 1.0, *arguments)
            task.keep(state)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < cost.memory(settings, model, vocabulary) < 2.5 * peak
