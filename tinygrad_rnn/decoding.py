"""Writing with a model: choosing the next character from its scores, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .data.text import Vocabulary
from .errors import InputError
from .tensor.backend import to_host
from .tensor.recording import no_grad


def choose(
    scores: np.ndarray, generator: np.random.Generator, temperature: float = 1.0, top_k: int | None = None
) -> int:
    """An id drawn with probability softmax(scores / temperature), among the `top_k` highest scores; scores is
    (V,).

    Temperature 0 takes the highest score. Raises InputError for a temperature below 0 or a `top_k` below 1.

        >>> choose(np.array([0.1, 2.0, 0.3]), np.random.default_rng(0), temperature=0)
        1
    """
    if not 0 <= temperature < float("inf"):
        raise InputError(f"the temperature is a number from 0 up, not {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top-k is at least 1, not {top_k}")
    x = np.asarray(scores, dtype=np.float64)
    if temperature == 0:
        return int(x.argmax())
    candidates = np.arange(len(x))
    if top_k is not None and top_k < len(x):
        candidates = np.argsort(-x, kind="stable")[:top_k]
    x = (x[candidates] - x[candidates].max()) / temperature
    p = np.exp(x)
    return int(
        candidates[np.searchsorted(np.cumsum(p) / p.sum(), generator.random(), side="right").clip(0, len(p) - 1)]
    )


@no_grad()
def generate(
    model: Callable[..., tuple[Any, Any]],
    vocabulary: Vocabulary,
    prompt: str = "",
    length: int = 400,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Characters, one at a time as they come: `length` of them that follow `prompt`. The same seed, the same
    text.

    `model(ids (T, B), state)` returns scores (T, B, V) and a state, as CharModel does; put it into evaluation
    mode first. Without a prompt it writes as if a new line had just begun. Raises InputError for a prompt
    with characters that the model has never seen.
    """
    start = prompt or ("\n" if "\n" in vocabulary.characters else vocabulary.characters[0])
    try:
        ids = vocabulary.encode(start)
    except InputError as error:
        raise InputError(f"the prompt: {error}") from None
    generator = np.random.default_rng(seed)
    x, state = ids[:, None], None
    for _ in range(length):
        scores, state = model(x, state)
        chosen = choose(to_host(scores.data)[-1, 0], generator, temperature, top_k)
        x = np.array([[chosen]], dtype=np.int32)
        yield vocabulary.characters[chosen]
