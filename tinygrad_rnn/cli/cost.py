"""What a training on many tokens is going to take, said before it begins."""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np

from tinygrad_rnn import data, nn, optim
from tinygrad_rnn.cli.reading import Text
from tinygrad_rnn.language.model import CharModel
from tinygrad_rnn.language.task import NextCharacter, mean_length
from tinygrad_rnn.tensor.random import use_generator
from tinygrad_rnn.training import Session
from tinygrad_rnn.training.steps import make_step

MODEL, SCORES = 8, 3
"""Arrays of the size of the model that there are at once (weights, gradients, two of Adam, and a checkpoint while it is
written), and of the size of all scores; a step alone takes somewhat less.
"""


def line(settings: argparse.Namespace, text: Text, session: Session[CharModel]) -> str:
    """What an id is, and what the training takes: memory by its sizes, time by a step that is made for nothing."""
    vocabulary = text.corpus.vocabulary
    assert vocabulary.lengths is not None
    each = mean_length(text.streams.ids, vocabulary.lengths)
    said = f"{len(vocabulary):,} different tokens ({vocabulary.kind}), of {each:.2f} characters each in this text: "
    said += f"about {memory(settings, session.model, len(vocabulary)) / 1e6:,.0f} MB of memory"
    if settings.steps:
        seconds = seconds_of_a_step(settings, text, session) * (settings.steps - session.state.step)
        said += f" and {_time(seconds)} for {settings.steps - session.state.step:,} steps"
    return said


def memory(settings: argparse.Namespace, model: nn.Module, vocabulary: int) -> int:
    """The bytes that a training takes besides the program, about."""
    size = sum(p.size for p in model.parameters())
    return 4 * int(MODEL * size + SCORES * settings.seq_len * settings.batch * vocabulary)


def seconds_of_a_step(settings: argparse.Namespace, text: Text, session: Session[CharModel]) -> float:
    """How long a step takes, op by op: of another model, so that nothing of the training is changed."""
    with use_generator(np.random.default_rng(0)):
        model = CharModel(session.model.config).to(settings.device)
        adam = optim.Adam(model.named_parameters(), lr=1e-9)
        streams = data.Streams(text.streams.ids, settings.batch, settings.seq_len)
        task = NextCharacter(model, streams, text.sample())
        arguments, _ = task.batch(0)
        begun = 0.0
        for _ in range(2):  # the first one takes memory for the first time
            begun = perf_counter()
            make_step(task.loss, adam, [*model.named_parameters()], 1.0, *arguments)
        return (perf_counter() - begun) * float(settings.accumulate)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
