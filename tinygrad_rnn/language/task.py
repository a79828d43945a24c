"""Learning to predict the next character, by truncated back-propagation through time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress
from time import perf_counter
from typing import Any

import numpy as np

from tinygrad_rnn import nn
from tinygrad_rnn.data.sequences import Passage, Streams, passage
from tinygrad_rnn.data.vocabularies import Coding, Ids
from tinygrad_rnn.errors import InputError, ShapeError
from tinygrad_rnn.scalars import whole
from tinygrad_rnn.tensor.backend import to_host
from tinygrad_rnn.tensor.creation import zeros_like
from tinygrad_rnn.tensor.mode import no_grad
from tinygrad_rnn.tensor.tensor import Tensor

SCORES = 2**23
"""So many scores are computed at once where nothing is learnt: 32 MB, and some times as much for what is made of it."""


class NextCharacter:
    """The `training.Task` of a language model, which maps (ids (T, B), state) to (scores (T, B, V), state).

    Each training step is one chunk of the streams. The state that a chunk ends in begins the next one, but
    detached: its values are carried over, its graph is not, so gradients reach back to the beginning of their
    own chunk. With `parts` above 1 so many equal parts of the streams are read one after the other, and the step is
    made with the mean of their gradients: that of all the streams at once, in the memory that a part takes.

    Where ids are more than a character, `lengths` are the characters of each: what is told are bits per character.
    Raises InputError for streams that cannot be divided so.
    """

    goal = "held_out_bits_per_char"

    def __init__(
        self,
        model: nn.Module,
        streams: Streams,
        held_out: Passage,
        chunk: int = 256,
        parts: int = 1,
        lengths: np.ndarray | None = None,
    ) -> None:
        self.model, self.streams, self.held_out, self.chunk = model, streams, held_out, chunk
        self.lengths = lengths
        self.unit = "chars" if lengths is None else "tokens"
        self.per_id = 1.0 if lengths is None else mean_length(streams.ids, lengths)
        self.parts = whole("the parts of a batch", parts, 1)
        if streams.batch % self.parts:
            raise InputError(f"{streams.batch} streams cannot be divided into {self.parts} equal parts")
        self.state: Any = None

    def batch(self, step: int) -> tuple[tuple[Any, ...], int]:
        """Chunk number `step` with the state that it begins with, part by part if it has `parts`, and its number of
        characters. Where no chunk came before, as after a change of the batch, that state is zeros.
        """
        chunk = self.streams[step]
        state = self._zeros() if chunk.fresh or self.state is None else self.state
        if self.parts == 1:
            return (chunk.x, chunk.y, state), chunk.y.size
        ids = (np.split(ids, self.parts, axis=1) for ids in (chunk.x, chunk.y))
        return tuple(zip(*ids, state, strict=True)), chunk.y.size

    def loss(self, x: Ids, y: Ids, state: Any) -> tuple[Tensor, Any]:
        """The mean cross-entropy of a chunk in nats, and the state that it ends in."""
        scores, state = self.model(x, state)
        return nn.functional.cross_entropy(scores, y), _mapped(Tensor.detach, state)

    def keep(self, state: Any) -> None:
        """Take the state that the next chunk begins with, a list of those of its parts if it has `parts`."""
        self.state = state

    def state_dict(self) -> dict[str, Tensor]:
        """The state that the next chunk begins with, tensor by tensor; empty before the first."""
        return {str(k): tensor for k, tensor in enumerate(_flat(self.state)) if tensor is not None}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on with the state of a `state_dict`. All or nothing: raises ShapeError for parts of other shapes than the
        model's state has, KeyError for other names.
        """
        like = next(iter(self.model.parameters()))
        tensors = [Tensor(state[str(k)], like.dtype, like.device) for k in range(len(state))]
        here = self._new_state()
        if tensors and (given := _shapes(tensors)) != (shapes := _shapes(_flat(here))):
            raise ShapeError(f"the carried state has the shapes {given}, that of this model and batch {shapes}")
        left = iter(tensors)
        self.state = _mapped(lambda _: next(left), here) if tensors else None

    def _zeros(self) -> Any:
        """The state before the first character. It is passed as any other, so that one recording fits all chunks."""
        return _mapped(zeros_like, self._new_state())

    @no_grad()
    def _new_state(self) -> Any:
        """The state after one character of each stream, part by part if it has `parts`."""
        training = self.model.training
        self.model.eval()
        try:
            state = self.model(np.zeros((1, self.streams.batch // self.parts), np.int32), None)[1]
            return state if self.parts == 1 else [state] * self.parts
        finally:
            self.model.train(training)

    def describe(self, loss: float) -> dict[str, float]:
        """Bits per character: the loss in nats over ln 2, and over the characters of an id, as many as the text has."""
        return {"bits_per_char": loss / math.log(2) / self.per_id}

    def evaluate(self) -> dict[str, float]:
        """Bits per character of the held-out text, all of it, in evaluation mode, and their standard error, if it is
        read in several streams.
        """
        self.model.eval()
        try:
            bits, error = bits_and_error(self.model, self.held_out, self.chunk, self.lengths)
        finally:
            self.model.train()
        return {self.goal: bits} if math.isnan(error) else {self.goal: bits, "held_out_standard_error": error}


def mean_length(ids: Ids, lengths: np.ndarray) -> float:
    """The characters of an id, as many as these have on average: `lengths` says how many each has.

    >>> mean_length(np.array([0, 1, 1]), np.array([4, 1]))
    2.0
    """
    counts = sum(np.bincount(ids[k : k + 2**24], minlength=len(lengths)) for k in range(0, len(ids), 2**24))
    return float((counts * lengths).sum() / max(1, len(ids)))


def bits_per_char(
    model: Callable[..., tuple[Any, Any]], text: Passage, chunk: int = 256, lengths: np.ndarray | None = None
) -> float:
    """The sum of -log2 p over the counted targets of `text`, over their characters, one each or as `lengths` says;
    state is carried through all of it.
    """
    return bits_and_error(model, text, chunk, lengths)[0]


def bits_and_error(
    model: Callable[..., tuple[Any, Any]], text: Passage, chunk: int = 256, lengths: np.ndarray | None = None
) -> tuple[float, float]:
    """Bits per character, as `bits_per_char`, and the standard error of that mean, by how far those of the streams are
    from one another: NaN for less than two.
    """
    bits = character_bits(model, text, chunk)
    if lengths is None:
        mean = float(bits[text.counted].mean())
        counts = text.counted.sum(axis=0)
    else:
        counts = np.where(text.counted, lengths[text.y], 0).sum(axis=0)
        mean = float(bits[text.counted].sum() / max(1, counts.sum()))
    streams = np.where(text.counted, bits, 0.0).sum(axis=0)[counts > 0] / counts[counts > 0]
    if len(streams) < 2:
        return mean, math.nan
    return mean, float(streams.std(ddof=1) / math.sqrt(len(streams)))


@no_grad()
def character_bits(model: Callable[..., tuple[Any, Any]], text: Passage, chunk: int = 256) -> np.ndarray:
    """-log2 p of every target of `text`, float64 of its shape (T, B); state is carried through all of it. It is read
    `chunk` steps at a time, fewer where a model with a `config` has scores for many ids.
    """
    bits, state = np.zeros(text.x.shape), None
    of_a_step = text.x.shape[1] * getattr(getattr(model, "config", None), "vocabulary", 1)
    chunk = max(1, min(chunk, SCORES // max(1, of_a_step)))
    for start in range(0, len(text.x), chunk):
        part = slice(start, start + chunk)
        bits[part], state = _bits_and_state(model, text.x[part], text.y[part], state)
    return bits


def _bits_and_state(model: Callable[..., tuple[Any, Any]], x: Ids, y: Ids, state: Any) -> tuple[np.ndarray, Any]:
    """-log2 p of the targets `y`, and the state after the last step."""
    scores, state = model(x, state)
    z = to_host(scores.data)
    z = z - z.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(z, y[..., None], axis=-1)[..., 0]
    return (np.log(np.exp(z, out=z).sum(axis=-1, dtype=np.float64)) - chosen) / math.log(2), state


def measuring_speed(model: nn.Module, ids: Ids, seconds: float = 0.1) -> float:
    """The characters in a second that `character_bits` reads in 64 streams, in evaluation mode: of ever longer pieces
    of `ids`, until one takes so many seconds.
    """
    training, steps, taken = model.training, 4, 0.0
    model.eval()
    try:
        while taken < seconds and steps < 256:
            steps *= 2
            text = passage(ids[:1], np.resize(ids[1:], 64 * steps), batch=64, warm_up=0)
            started = perf_counter()
            character_bits(model, text)
            taken = perf_counter() - started
    finally:
        model.train(training)
    return 64 * steps / taken


def text_bits(
    model: Callable[..., tuple[Any, Any]],
    vocabulary: Coding,
    pieces: Iterable[tuple[str, str]],
    allowed: float = 0.1,
) -> Iterator[tuple[str, np.ndarray]]:
    """The pieces of a text, each with the bits that the model needs for each of its characters: infinitely many for one
    that is not in the vocabulary, which the model is not given to read either. With each piece stands where it is from.

    It begins as after a new line. The first 2,048 characters of a piece are read in one go, the rest as parallel
    streams, each led by the 128 characters before it. Raises InputError at the end where more than the part `allowed`
    of the characters are not in the vocabulary.
    """
    before = vocabulary.encode(vocabulary.beginning)
    unseen = _Unseen(vocabulary)
    for source, block in pieces:
        seen = unseen.take(source, block)
        kept = block if seen.all() else "".join(compress(block, seen))
        found, at = np.full(len(block), math.inf), 0
        cut = 2048 if len(before) == 1 else 0
        for text in (kept[:cut], kept[cut:]):
            if text:
                ids = vocabulary.encode(text)
                batch = 1 if len(before) == 1 else max(1, min(64, len(ids) // 1024))
                streams = passage(before, ids, batch, warm_up=len(before) - 1)
                bits = vocabulary.spread(text, ids, character_bits(model, streams).T[streams.counted.T])
                found[np.flatnonzero(seen)[at : at + len(text)]] = bits
                at += len(text)
                before = np.concatenate([before, ids])[-129:]
        yield block, found
    if unseen.count > allowed * unseen.total:
        raise InputError(f"{unseen.first}, and {unseen.count:,} of {unseen.total:,} are too many to leave out")


class _Unseen:
    """The characters of some texts that are not in a vocabulary: how many, and which was the `first`."""

    def __init__(self, vocabulary: Coding) -> None:
        self.vocabulary = vocabulary
        self.count = self.total = self.of_source = 0
        self.source = self.first = ""

    def take(self, source: str, block: str) -> np.ndarray:
        """Count those of the next piece of a text; returns which of its characters are in the vocabulary."""
        if source != self.source:
            self.source, self.of_source = source, 0
        seen = self.vocabulary.known(block)
        if not seen.all() and not self.first:
            at = int(seen.argmin())
            place = f"character {self.of_source + at + 1:,} of it"
            self.first = f"{source}: the model has never seen {block[at]!r} ({place})"
        self.count += int((~seen).sum())
        self.total, self.of_source = self.total + len(block), self.of_source + len(block)
        return seen


def _flat(state: Any) -> list[Any]:
    """The tensors of a state, or of a list of states."""
    return [tensor for part in state for tensor in _flat(part)] if isinstance(state, tuple | list) else [state]


def _shapes(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return [tensor.shape for tensor in tensors]


def _mapped(f: Callable[[Tensor], Tensor], state: Any) -> Any:
    return type(state)(_mapped(f, part) for part in state) if isinstance(state, tuple | list) else f(state)
