"""`tinygrad-rnn evaluate`: how well a trained model predicts a text."""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from itertools import compress

import numpy as np
from threadpoolctl import threadpool_limits

from tinygrad_rnn.cli.answers import check_output
from tinygrad_rnn.data.text import read_blocks
from tinygrad_rnn.language.task import text_bits
from tinygrad_rnn.language.trained import load


def run(args: argparse.Namespace) -> int:
    """Print the bits per character of the texts, before it those of each line if asked to; returns the exit status."""
    check_output()
    total, count, lines, unseen = 0.0, 0, _Lines(), Counter[str]()
    with threadpool_limits(args.threads or 1):
        trained = load(args.folder, args.checkpoint)
        pieces = ((path, block) for path in args.text for block in read_blocks(path, args.encoding))
        for text, bits in text_bits(trained.model, trained.vocabulary, pieces):
            seen = bits != math.inf
            if not seen.all():
                unseen.update(compress(text, ~seen))
            total, count = total + float(bits[seen].sum()), count + int(seen.sum())
            if args.per_line:
                lines.take(text, bits)
        lines.end()
    source = ", ".join(map(str, args.text))
    print(f"{total / count:.3f} bits per character: {count:,} of {source}, by the model of step {trained.step:,}")
    if number := unseen.total():
        which = ", ".join(f"{c!r}: {n:,}" for c, n in unseen.most_common(5)) + ", ..." * (len(unseen) > 5)
        what = "character that the model has" if number == 1 else "characters that the model has"
        print(f"Left out, neither read nor counted: {number:,} {what} never seen ({which})")
    return 0


class _Lines:
    """Print each line with its own bits per character, of texts that come in pieces."""

    def __init__(self) -> None:
        self.line, self.bits, self.count = "", 0.0, 0

    def take(self, text: str, bits: np.ndarray) -> None:
        """Take a piece, with the bits of its characters."""
        at = 0
        for part in re.findall("[^\n]*\n|[^\n]+", text):
            self.line += part
            found = bits[at : at + len(part)]
            seen = found != math.inf
            self.bits, self.count = self.bits + float(found[seen].sum()), self.count + int(seen.sum())
            at += len(part)
            if part.endswith("\n"):
                self.end()

    def end(self) -> None:
        """Print the line so far, if there is one; a dash before one of which no character was ever seen."""
        if self.line:
            bits = f"{self.bits / self.count:.3f}" if self.count else "-    "
            print(f"{bits}  " + self.line.removesuffix("\n"))
        self.line, self.bits, self.count = "", 0.0, 0
