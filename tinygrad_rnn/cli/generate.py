"""`tinygrad-rnn generate`: write with a trained model."""

from __future__ import annotations

import argparse
import sys

from threadpoolctl import threadpool_limits

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.cli.options import SEEDS
from tinygrad_rnn.data.text import read_text
from tinygrad_rnn.decoding import generate
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.trained import load

BETWEEN = "---------------"
"""The line between two samples."""


def run(args: argparse.Namespace) -> int:
    """Write the prompt and what follows it, a character at a time, as often as asked for; returns the exit status."""
    check_output()
    prompt = _prompt(args)
    if args.seed + args.num_samples - 1 > SEEDS:
        raise InputError(f"--seed {args.seed} leaves no seeds for {args.num_samples} samples: the largest is {SEEDS}")
    with threadpool_limits(args.threads or 1):  # one character is too little work to share
        trained = load(args.folder, args.checkpoint)
        known = trained.vocabulary.known(prompt)
        if not known.all():
            raise InputError(f"the model has never seen the character {prompt[int(known.argmin())]!r} of the prompt")
        for k in range(args.num_samples):
            if k:
                print(BETWEEN)
            sys.stdout.write(prompt)
            options = args.length, args.temperature, args.top_k, args.seed + k
            for character in generate(trained.model, trained.vocabulary, prompt, *options):
                sys.stdout.write(character)
                sys.stdout.flush()
            sys.stdout.write("\n")
            sys.stdout.flush()
    return 0


def _prompt(args: argparse.Namespace) -> str:
    """The prompt as it is typed, or as a file holds it, without the end of its last line."""
    if args.prompt_file is None:
        return str(args.prompt or "")
    if args.prompt is not None:
        raise InputError("--prompt and --prompt-file exclude each other: choose one")
    return read_text(args.prompt_file, args.encoding).removesuffix("\n")
