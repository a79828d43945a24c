"""Decoding: sampling text, greedy and beam search for sequences of tokens, and the labels of a CTC network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_rnn.data.vocabularies import Coding
from tinygrad_rnn.errors import InputError, NonFiniteError, ShapeError
from tinygrad_rnn.nn.checks import as_tensor, check_counts, check_one_of, integer_ids
from tinygrad_rnn.scalars import number, whole
from tinygrad_rnn.tensor.backend import host_array, to_host
from tinygrad_rnn.tensor.mode import no_grad


def sample(
    scores: np.ndarray, generator: np.random.Generator, temperature: float = 1.0, top_k: int | None = None
) -> int:
    """Draw an id with probability softmax(scores / temperature), among the `top_k` highest of the scores (V,).

    Temperature 0 takes the highest score. Raises InputError for a temperature below 0 or a `top_k` that is no integer
    from 1 up, ShapeError for scores that are no row, NonFiniteError for scores that are NaN, +inf, or all -inf.

        >>> sample(np.array([0.1, 2.0, 0.3]), np.random.default_rng(0), temperature=0)
        1
    """
    if not 0 <= number("the temperature", temperature) < float("inf"):
        raise InputError(f"the temperature is a number from 0 up, not {temperature}")
    top_k = None if top_k is None else whole("top-k", top_k, 1)
    x = _scores("sample", scores, ("id",)).astype(np.float64)
    if not np.any(x > -np.inf):
        raise NonFiniteError(f"sample: all {len(x)} scores are -inf: there is nothing to draw")
    if temperature == 0:
        return int(x.argmax())
    candidates = np.arange(len(x))
    if top_k is not None and top_k < len(x):
        candidates = np.argsort(-x, kind="stable")[:top_k]
    with np.errstate(over="ignore"):  # of a temperature near 0 only the highest is left
        x = (x[candidates] - x[candidates].max()) / temperature
    p = np.exp(x)
    return int(
        candidates[np.searchsorted(np.cumsum(p) / p.sum(), generator.random(), side="right").clip(0, len(p) - 1)]
    )


@no_grad()
def generate(
    model: Callable[..., tuple[Any, Any]],
    vocabulary: Coding,
    prompt: str = "",
    length: int = 400,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Yield `length` characters that follow `prompt`, one by one or in pieces, as soon as they are drawn. The same seed
    gives the same text.

    `model(ids (T, B), state)` returns scores (T, B, V) and a state, as CharModel does; put it into evaluation
    mode first. Without a prompt it writes as if a new line had just begun. Raises InputError for a prompt
    with characters that the model has never seen, NonFiniteError as `sample` does.
    """
    try:
        ids = vocabulary.encode(prompt or vocabulary.beginning)
    except InputError as error:
        raise InputError(f"the prompt: {error}") from None
    generator = np.random.default_rng(seed)
    x, state = ids[:, None], None
    decode, left = vocabulary.decoder(), length
    while left > 0:
        scores, state = model(x, state)
        chosen = sample(to_host(scores.data)[-1, 0], generator, temperature, top_k)
        x = np.array([[chosen]], dtype=np.int32)
        if piece := decode(chosen)[:left]:
            left -= len(piece)
            yield piece


def one_step(model: Callable[[np.ndarray, Any], tuple[Any, Any]]) -> Callable[[np.ndarray, Any], tuple[Any, Any]]:
    """Make the step function that the searches take of a model that reads sequences: `model(ids (T, B), state)` returns
    scores (T, B, V) and a state, the step takes the last ids (B,) and a state and returns scores (B, V) and a state.

        >>> step = one_step(lambda ids, state: (np.eye(3)[(ids + 1) % 3], state))
        >>> greedy_search(step, None, begin=0, end=0, count=1)
        [[1, 2]]
    """

    def step(last: np.ndarray, state: Any) -> tuple[Any, Any]:
        scores, state = model(last[None], state)
        return scores[0], state

    return step


@no_grad()
def greedy_search(
    step: Callable[[np.ndarray, Any], tuple[Any, Any]],
    state: Any,
    begin: int,
    end: int | None = None,
    *,
    count: int,
    length: int = 100,
) -> list[list[int]]:
    """Take the likeliest token at each step, for `count` sequences at once, until `end`, which is not among the ids, or
    for `length` steps.

    `step`, `state`, `begin` and `end` are those of `beam_search`, but that the state has a row for each sequence.
    Raises InputError for a `count` below 0 or a `length` below 1, ShapeError for scores of another shape,
    NonFiniteError for scores of a sequence that goes on that are NaN, +inf, or all -inf.

        >>> bigram = np.log([[0.1, 0.6, 0.3], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]])
        >>> greedy_search(lambda ids, state: (bigram[ids], state), None, begin=0, end=2, count=2)
        [[1], [1]]
    """
    count, length = whole("greedy_search: count", count), whole("greedy_search: length", length, 1)
    begin, end = _markers("greedy_search", begin, end)
    last = np.full(count, begin)
    rows: list[np.ndarray] = []
    ended = np.zeros(count, bool)
    while len(rows) < length and not ended.all():
        scores, state = step(last, state)
        x = _scores(f"greedy_search: step {len(rows)}", scores, ("sequence", "token"), count, ended[:, None])
        if count and not np.all(np.any(x > -np.inf, axis=-1)):
            raise NonFiniteError(
                f"greedy_search: step {len(rows)}: all scores of a sequence are -inf: no token can follow"
            )
        last = x.argmax(axis=-1)
        rows.append(last)
        ended |= last == end
    written = [column.tolist() for column in np.reshape(rows, (len(rows), count)).T]
    return [ids[: ids.index(end)] if end in ids else ids for ids in written]


@no_grad()
def beam_search(
    step: Callable[[np.ndarray, Any], tuple[Any, Any]],
    state: Any,
    begin: int,
    end: int | None = None,
    *,
    width: int = 5,
    length: int = 100,
    penalty: float = 0.0,
) -> list[tuple[list[int], float]]:
    """Find the likeliest continuations of one sequence, each with its log-probability, best first.

    After each step the `width` likeliest beginnings go on. Those that reach `end` are finished (it is not among their
    ids, but in their probability); those that do not within `length` steps are returned as they are. With a `width` of
    no less than there are continuations, the search is exact.

    Arguments:
        step: maps the last ids of N beginnings (N,) and their state to scores of what comes next (N, V), logits or
            log-probabilities, and the new state.
        state: before the first step, N = 1: None, a Tensor with the beginnings on its last but one axis, as the
            recurrent layers have theirs, (layers, N, H), or a tuple of such.
        begin, end: the id that everything begins with, and the one that ends it.
        penalty: sorts by the log-probability over the length to this power, so that more than 0 favours what is long
            (Wu et al. 2016, arXiv:1609.08144, with their constant 5 as 0).

    A beginning whose scores are all -inf cannot go on, and is dropped. Raises InputError for a `width` or `length` less
    than 1, ShapeError for scores of another shape, NonFiniteError for scores that are NaN or +inf.

        >>> bigram = np.log([[0.0001, 0.5999, 0.4], [0.5, 0.25, 0.25], [0.05, 0.05, 0.9]])
        >>> found = beam_search(lambda ids, state: (bigram[ids], state), None, begin=0, end=2)
        >>> [(ids, round(float(np.exp(p)), 2)) for ids, p in found[:2]]
        [([], 0.4), ([1], 0.15)]
    """
    width, length = whole("beam_search: width", width, 1), whole("beam_search: length", length, 1)
    begin, end = _markers("beam_search", begin, end)
    if not np.isfinite(number("beam_search: penalty", penalty)):
        raise InputError(f"beam_search: penalty is a finite number, not {penalty}")
    ids: list[list[int]] = [[]]
    total, last = np.zeros(1), np.array([begin])
    done: list[tuple[list[int], float]] = []

    def rank(found: tuple[list[int], float]) -> float:
        return float(-found[1] / (len(found[0]) + 1) ** penalty)

    for n in range(length):
        scores, state = step(last, state)
        x = _scores(f"beam_search: step {n}", scores, ("beginning", "token"), len(ids)).astype(np.float64)
        x = x - np.maximum(x.max(axis=-1, keepdims=True), np.finfo(float).min)
        x = total[:, None] + x - np.log(np.maximum(np.exp(x).sum(axis=-1, keepdims=True), 1.0))
        best = np.argsort(-x, axis=None, kind="stable")[:width]
        best = best[x.reshape(-1)[best] > -np.inf]
        rows, tokens = np.divmod(best, x.shape[1])
        ended = tokens == end
        done += [(ids[row], float(x[row, end])) for row in rows[ended]]
        rows, tokens = rows[~ended], tokens[~ended]
        ids = [[*ids[row], token] for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]
        total, last = x[rows, tokens], tokens
        # What goes on can only become less likely.
        if not ids or (not penalty and len(done) >= width and sorted(p for _, p in done)[-width] >= total.max()):
            break
        state = _rows(state, rows)
    else:
        done += zip(ids, total.tolist(), strict=True)
    return sorted(done, key=rank)[:width]


def _rows(state: Any, rows: np.ndarray) -> Any:
    """The rows of a state, which may repeat."""
    if isinstance(state, tuple):
        return tuple(_rows(part, rows) for part in state)
    return None if state is None else state[..., rows, :]


def ctc_best_path(log_probs: Any, lengths: Any = None, blank: int = 0) -> list[list[int]]:
    """Take the likeliest class of each step of a network trained with `ctc_loss`, join repeats and drop blanks: the ids
    of the labels for each entry of the batch.

    `log_probs` (T, B, C), logits do as well; `lengths` (B,) from 0 to T, T if omitted. Of one labelling it is the
    likeliest alignment; another may be likelier in all, which `ctc_beam_search` finds. Raises ShapeError or ValueError
    for what does not fit, NonFiniteError for NaN, +inf, or -inf for all classes, at a step that counts.

        >>> log_probs = np.log([[[0.6, 0.4]], [[0.6, 0.4]]])
        >>> ctc_best_path(log_probs)
        [[]]
    """
    frames, steps = _frames("ctc_best_path", log_probs, lengths, blank)
    for b, n in enumerate(steps):
        if (dead := np.all(frames[:n, b] == -np.inf, axis=-1)).any():
            raise NonFiniteError(
                f"ctc_best_path: all scores of step {dead.argmax()}, entry {b} are -inf: no class fits"
            )
    best = frames.argmax(-1)
    changes = np.concatenate([np.ones_like(best[:1], bool), best[1:] != best[:-1]]) & (best != blank)
    return [best[:n, b][changes[:n, b]].tolist() for b, n in enumerate(steps)]


def ctc_beam_search(
    log_probs: Any, lengths: Any = None, blank: int = 0, width: int = 10
) -> list[list[tuple[list[int], float]]]:
    """Find the likeliest labellings of a network trained with `ctc_loss`, each with its log-probability, best first, at
    most `width` of them, for each entry of the batch.

    `log_probs` (T, B, C) is what `log_softmax` returned; `lengths` (B,) from 0 to T, T if omitted. A prefix beam search
    (Hannun et al. 2014, arXiv:1408.2873): after each step the `width` likeliest beginnings go on, every one with the
    sum over the alignments that were followed; with a `width` of no less than there are, it is exact. A labelling
    that is impossible is left out. Raises ShapeError or ValueError for what does not fit, NonFiniteError for NaN or
    +inf at a step that counts.

        >>> log_probs = np.log([[[0.6, 0.4]], [[0.6, 0.4]]])  # a blank is likelier at each step, a label in all
        >>> [(labels, round(float(np.exp(p)), 2)) for labels, p in ctc_beam_search(log_probs)[0]]
        [([1], 0.64), ([], 0.36)]
    """
    width = whole("ctc_beam_search: width", width, 1)
    frames, steps = _frames("ctc_beam_search", log_probs, lengths, blank)
    return [_prefix_search(frames[:n, b], blank, width) for b, n in enumerate(steps)]


def _markers(name: str, begin: Any, end: Any) -> tuple[int, int | None]:
    """The ids that begin and end a sequence, as Python's integers: 1.5 would end none."""
    return whole(f"{name}: begin", begin), None if end is None else whole(f"{name}: end", end)


def _scores(
    name: str, given: Any, axes: tuple[str, ...], count: int | None = None, unread: np.ndarray | None = None
) -> np.ndarray:
    """Scores as an array on the host, of `axes` of which the first has `count` entries, and 0 where they are `unread`;
    ShapeError or NonFiniteError for what is none.
    """
    x = host_array(given)
    if x.ndim != len(axes) or not x.shape[-1] or (count is not None and len(x) != count):
        wanted = "(V,)" if count is None else f"({count}, V)"
        raise ShapeError(f"{name}: the scores must be {wanted}, one for each {axes[-1]}, got shape {x.shape}")
    x = x if unread is None else np.where(unread, 0.0, x)
    _check_scores(name, x, axes)
    return x


def _check_scores(name: str, scores: np.ndarray, axes: tuple[str, ...]) -> None:
    """Raise NonFiniteError naming the first score that is NaN or +inf by its place on `axes`."""
    wrong = ~(scores < np.inf)
    if wrong.any():
        place = [int(i) for i in np.unravel_index(wrong.argmax(), scores.shape)]
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, place, strict=True))
        raise NonFiniteError(
            f"{name}: the score of {where} is {scores[tuple(place)]}: the model that computed it has diverged, or its "
            f"input is not finite"
        )


def _frames(name: str, log_probs: Any, lengths: Any, blank: int) -> tuple[np.ndarray, list[int]]:
    """The scores (T, B, C) in float64 on the host, and how many steps of each count."""
    x = host_array(log_probs)
    if x.ndim != 3:
        raise ShapeError(f"{name}: log_probs must be (T, B, C), got shape {x.shape}")
    T, B, C = x.shape
    check_one_of(f"{name}: blank", blank, C, f"classes: 0 to {C - 1}")
    given = np.full(B, T) if lengths is None else to_host(integer_ids(f"{name}: lengths", as_tensor(lengths)))
    check_counts("lengths", given, B, T, f"log_probs has 0 to {T} steps", name)
    counts = (np.arange(T)[:, None] < given)[..., None]
    _check_scores(name, np.where(counts, x, 0.0), ("step", "entry", "class"))
    return x.astype(np.float64), given.tolist()


def _prefix_search(frames: np.ndarray, blank: int, width: int) -> list[tuple[list[int], float]]:
    """A prefix beam search over one sequence of frames (T, C)."""
    # Prefixes are the nodes of a tree: each has a parent, which lacks its last label. Node 0 is the empty one.
    parents, labels, children = [-1], [blank], {}
    nodes = [0]
    silent, spoken = np.zeros(1), np.full(1, -np.inf)  # of each prefix in the beam: the last step was blank, or not
    for frame in frames:
        either = np.logaddexp(silent, spoken)
        last = np.array([labels[node] for node in nodes], dtype=int)
        each = np.arange(len(nodes))
        on_silent, on_spoken = either + frame[blank], spoken + frame[last]
        longer = either[:, None] + frame  # by a label; the last one again counts as new only after a blank
        longer[each, last] = silent + frame[last]
        longer[:, blank] = -np.inf
        place = {node: i for i, node in enumerate(nodes)}
        for i, node in enumerate(nodes):
            if (j := place.get(parents[node])) is not None:  # that prefix and its last label are this one
                on_spoken[i] = np.logaddexp(on_spoken[i], longer[j, last[i]])
                longer[j, last[i]] = -np.inf
        scores = np.concatenate([np.logaddexp(on_silent, on_spoken), longer.reshape(-1)])
        best = np.argpartition(-scores, width - 1)[:width] if width < len(scores) else np.arange(len(scores))
        best = np.sort(best[scores[best] > -np.inf])
        stay, grow = best[best < len(nodes)], best[best >= len(nodes)] - len(nodes)
        silent = np.concatenate([on_silent[stay], np.full(len(grow), -np.inf)])
        spoken = np.concatenate([on_spoken[stay], longer.reshape(-1)[grow]])
        before, nodes = nodes, [nodes[i] for i in stay]
        for i, label in zip(*(x.tolist() for x in np.divmod(grow, len(frame))), strict=True):
            edge = before[i], label
            if edge not in children:
                children[edge] = len(parents)
                parents.append(before[i])
                labels.append(label)
            nodes.append(children[edge])
    found = np.logaddexp(silent, spoken)

    def spelt(node: int) -> list[int]:
        backwards = []
        while node:
            backwards.append(labels[node])
            node = parents[node]
        return backwards[::-1]

    return [(spelt(nodes[i]), float(found[i])) for i in np.argsort(-found, kind="stable")]
