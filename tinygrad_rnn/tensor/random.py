"""The library's random draws: one generator, which `manual_seed` seeds, unless another is in use.

A checkpointed segment has one of its own, and so has what `tr.compile` records.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from tinygrad_rnn.scalars import as_integer, as_integers
from tinygrad_rnn.tensor.backend import HostArray
from tinygrad_rnn.tensor.mode import replayed

_own_generator: ContextVar[np.random.Generator | None] = ContextVar("own_generator", default=None)
# made at the first draw: numpy.random is slow to import
_generator: np.random.Generator | None = None


@replayed(changes="options")
def manual_seed(seed: int) -> None:
    """Seed every random draw of the library: weights, dropout masks, `randn`, `rand`.

    Raises `TypeError` for what is no integer, nor a sequence of them.

    >>> manual_seed(0)
    """
    global _generator
    one, several = as_integer(seed), as_integers(seed)
    if several is None:
        raise TypeError(f"manual_seed: a seed is an integer, not {seed!r:.60}")
    entropy = several if one is None else one
    if (own := _own_generator.get()) is not None:  # inside a checkpointed segment
        own.bit_generator.state = np.random.default_rng(entropy).bit_generator.state
        return
    _generator = np.random.default_rng(entropy)


def generator() -> np.random.Generator:
    """The library's NumPy generator, or the one in its place here.

    Draws are made on the host and moved, so a seed means the same on any device.
    """
    global _generator
    if (own := _own_generator.get()) is not None:
        return own
    if _generator is None:
        _generator = np.random.default_rng()
    return _generator


@replayed(changes="draws")
def kept(shape: tuple[int, ...], p: float) -> HostArray:
    """Booleans, each False with probability p.

    A random byte tells, or, in one of 256 cases, a number beside it.

    >>> manual_seed(0)
    >>> kept((2, 3), 1.0).tolist()
    [[False, False, False], [False, False, False]]
    """
    draws, size = generator(), math.prod(shape)
    words = draws.integers(0, 2**64 - 1, -(-size // 8), np.uint64, endpoint=True)
    drawn, last = words.view(np.uint8)[:size], int(256 * p)
    found = drawn > last
    open_ = np.flatnonzero(drawn == last)
    found[open_] = draws.random(open_.size) >= 256 * p - last
    return found.reshape(shape)


def keep_generator() -> Callable[[], None]:
    """A function that brings back the library's generator, here, as it is now."""
    kept = generator()
    state = kept.bit_generator.state

    def restore() -> None:
        global _generator
        if _own_generator.get() is None:
            _generator = kept
        kept.bit_generator.state = state

    return restore


def used_generator() -> np.random.Generator | None:
    """The generator that `use_generator` has put in the place of the library's, here; or None."""
    return _own_generator.get()


@contextlib.contextmanager
def use_generator(own: np.random.Generator | None) -> Iterator[None]:
    """Draw from `own` inside, in this thread or task alone; None: from the library's."""
    token = _own_generator.set(own)
    try:
        yield
    finally:
        _own_generator.reset(token)


@contextlib.contextmanager
def own_generator(state: Any) -> Iterator[np.random.Generator]:
    """Draw inside from a new generator in `state`: what a checkpointed segment draws from."""
    own = np.random.default_rng()
    own.bit_generator.state = state
    with use_generator(own):
        yield own
