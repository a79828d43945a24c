"""`tinygrad-rnn evaluate`: how well a trained model predicts a text."""

from __future__ import annotations

import argparse
import re

import numpy as np
from threadpoolctl import threadpool_limits

from tinygrad_rnn.language.model import load_run
from tinygrad_rnn.language.task import text_bits


def run(args: argparse.Namespace) -> int:
    """Print the bits per character of the texts, before it those of each line if asked to; returns the exit status."""
    total, count, lines = 0.0, 0, _Lines()
    with threadpool_limits(args.threads or 1):
        model, vocabulary, manifest = load_run(args.folder, args.checkpoint)
        for text, bits in text_bits(model, vocabulary, args.text, args.encoding):
            total, count = total + float(bits.sum()), count + len(text)
            if args.per_line:
                lines.take(text, bits)
        lines.end()
    source = ", ".join(map(str, args.text))
    print(f"{total / count:.3f} bits per character: {count:,} of {source}, by the model of step {manifest['step']:,}")
    return 0


class _Lines:
    """Print each line with its own bits per character, of texts that come in pieces."""

    def __init__(self) -> None:
        self.line, self.bits = "", 0.0

    def take(self, text: str, bits: np.ndarray) -> None:
        """Take a piece, with the bits of its characters."""
        at = 0
        for part in re.findall("[^\n]*\n|[^\n]+", text):
            self.line += part
            self.bits += float(bits[at : at + len(part)].sum())
            at += len(part)
            if part.endswith("\n"):
                self.end()

    def end(self) -> None:
        """Print the line so far, if there is one."""
        if self.line:
            print(f"{self.bits / len(self.line):.3f}  " + self.line.removesuffix("\n"))
        self.line, self.bits = "", 0.0
