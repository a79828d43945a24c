"""What `tinygrad-rnn train` reads: the text in two parts, as it is trained on and measured with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from tinygrad_rnn import data, language
from tinygrad_rnn.cli.settings import SIZES
from tinygrad_rnn.data.vocabularies import Coding, Ids, Vocabulary
from tinygrad_rnn.errors import CheckpointError, InputError
from tinygrad_rnn.language.corpus import IN_MEMORY, Corpus, Plan
from tinygrad_rnn.language.model import coding_of
from tinygrad_rnn.training import RunFolder, newest_checkpoint

MOST = 2_000_000  # that are read, of what is held out; so many are enough for four digits
LED = 64  # ids that lead each of the streams in which is measured


@dataclass
class Text:
    """The text as it is trained on and measured with: of what is held out the first `count` ids, of which an
    evaluation reads a sample, `sampled` ids with those that lead them.
    """

    corpus: Corpus
    streams: data.Streams
    held_out: Ids
    count: int = MOST
    sampled: int = MOST

    @property
    def measured(self) -> Ids:
        """The part of what is held out that is measured."""
        return self.held_out[: self.count]

    def whole(self) -> data.Passage:
        """That part, all of it."""
        return data.passage(self.streams.ids, self.measured, batch=_streams(len(self.measured)), warm_up=LED)

    def sample(self) -> data.Passage:
        """What an evaluation reads: streams that begin all over that part, and end early where it is large."""
        streams = _streams(min(len(self.measured), self.sampled))
        found = data.passage(self.streams.ids, self.measured, batch=streams, warm_up=LED)
        steps = max(2 * LED, self.sampled // streams)
        return data.Passage(found.x[:steps], found.y[:steps], found.counted[:steps])

    def characters(self, most: int) -> tuple[Vocabulary, Ids, Ids]:
        """A vocabulary of characters, and in it the last ones to learn from, about as many, and those measured."""
        vocabulary = self.corpus.vocabulary
        if isinstance(vocabulary, Vocabulary):
            return vocabulary, self.streams.ids, self.measured
        train = vocabulary.decode(self.streams.ids[-most:])
        measured = vocabulary.decode(self.measured)
        found = Vocabulary.of(train + measured)
        return found, found.encode(train), found.encode(measured)


def source(settings: argparse.Namespace) -> str:
    """The text in words."""
    return ", ".join(map(str, settings.text)) if settings.text else "Python's help pages (pydoc_data.topics)"


def read(settings: argparse.Namespace) -> Text:
    """Read the text and split it. Raises InputError for one that is too short, or that a run was not begun with."""
    corpus = _corpus(settings)
    if settings.begun and settings.begun["text"]["sha256"] != corpus.sha256:
        raise InputError(f"{settings.resume}: was trained on another text than {source(settings)} is now")
    streams = data.Streams(corpus.train, settings.batch * settings.accumulate, settings.seq_len, settings.seed)
    if not len(corpus.held_out):
        raise InputError(f"the text is too short: {corpus.characters} characters leave none to hold out")
    return Text(corpus, streams, corpus.held_out)


def _corpus(settings: argparse.Namespace) -> Corpus:
    """The text to train on; says how long reading a large one takes."""
    plan = _plan(settings)
    if settings.held_out and not settings.text:
        raise InputError("--held-out goes with --text, the files to learn from")
    if not settings.text:
        return Corpus.of(data.default_text(), plan)
    size = language.size_of(settings.text)
    if size >= IN_MEMORY:
        print(f"Reading {size / 1e6:,.0f} MB", flush=True)
    corpus = language.read_corpus(settings.text, settings.encoding, plan=plan, held_out=settings.held_out or ())
    if size >= IN_MEMORY:
        what = "characters" if corpus.vocabulary.kind == "char" else "tokens"
        print(f"Read in {corpus.seconds:.1f} s: {len(corpus.vocabulary)} different {what}", flush=True)
    return corpus


def _plan(settings: argparse.Namespace) -> Plan:
    """What an id is, and which part is held out."""
    size = settings.vocabulary or SIZES.get(settings.tokens, 0)
    known, vocabulary = "", None
    if settings.source:
        vocabulary = settings.source.vocabulary
    elif settings.begun and settings.tokens != "char":
        vocabulary = _kept(settings)
    elif settings.begun and settings.begun.get("init_from"):
        known = str(settings.begun["init_from"]["characters"])
    if isinstance(vocabulary, Vocabulary):  # which may get more
        known, vocabulary = vocabulary.characters, None
    return Plan(settings.tokens, size, known, vocabulary, settings.split, settings.seed)


def _kept(settings: argparse.Namespace) -> Coding | None:
    """The tokens of a run that goes on; None for one that has saved none yet, and learns the same ones again."""
    checkpoint, _ = newest_checkpoint(RunFolder(settings.resume).checkpoints)
    if checkpoint is None:
        return None
    try:
        return coding_of(checkpoint.manifest["vocabulary"])
    except (KeyError, TypeError, InputError) as error:
        raise CheckpointError(f"{checkpoint.path}: has no tokens: {error}") from None


def _streams(count: int) -> int:
    """The parallel streams in which so many ids are measured: each is led by others, which take time, too."""
    return max(1, min(64, count // (2 * LED)))
