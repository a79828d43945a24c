"""`tinygrad-rnn generate`: write with a trained model."""

from __future__ import annotations

import argparse
import sys

from threadpoolctl import threadpool_limits

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.decoding import generate
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.trained import load


def run(args: argparse.Namespace) -> int:
    """Write the prompt and what follows it, a character at a time; returns the exit status."""
    check_output()
    with threadpool_limits(args.threads or 1):  # one character is too little work to share
        trained = load(args.folder, args.checkpoint)
        model, vocabulary = trained.model, trained.vocabulary
        unseen = [c for c in args.prompt if c not in vocabulary.characters]
        if unseen:
            raise InputError(f"the model has never seen the character {unseen[0]!r} of the prompt")
        sys.stdout.write(args.prompt)
        for character in generate(model, vocabulary, args.prompt, args.length, args.temperature, args.top_k, args.seed):
            sys.stdout.write(character)
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
    return 0
