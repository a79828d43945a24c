"""Choosing characters: the distribution asked for, and the same text for the same seed."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.data import Vocabulary
from tinygrad_rnn.decoding import (
    beam_search,
    ctc_beam_search,
    ctc_best_path,
    generate,
    greedy_search,
    one_step,
    sample,
)
from tinygrad_rnn.errors import DTypeError, InputError, NonFiniteError, ShapeError
from tinygrad_rnn.language.model import CharModel, CharModelConfig

SCORES = st.lists(st.floats(-30, 30), min_size=1, max_size=12).map(np.array)


@given(SCORES, st.integers(0, 9), st.floats(0.01, 5), st.integers(1, 15))
def test_only_the_top_k_are_chosen(scores: np.ndarray, seed: int, temperature: float, k: int) -> None:
    chosen = sample(scores, np.random.default_rng(seed), temperature, k)
    assert scores[chosen] >= np.sort(scores)[::-1][min(k, len(scores)) - 1]
    assert scores[sample(scores, np.random.default_rng(seed), 0)] == scores.max()
    assert sample(scores, np.random.default_rng(seed), temperature, 1) == scores.argmax()


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 2)])
def test_the_frequencies_are_those_of_the_softmax(temperature: float, top_k: int | None) -> None:
    scores = np.array([0.0, 1.0, -1.0, 0.5])
    p = np.exp(scores / temperature)
    if top_k:
        p[np.argsort(scores)[:-top_k]] = 0
    p /= p.sum()
    generator = np.random.default_rng(0)
    counts = np.bincount([sample(scores, generator, temperature, top_k) for _ in range(20_000)], minlength=4)
    assert np.allclose(counts / 20_000, p, atol=4 * np.sqrt(0.25 / 20_000))


@pytest.mark.parametrize(("temperature", "top_k"), [(-0.1, None), (float("nan"), None), (float("inf"), 3), (1, 0)])
def test_numbers_out_of_range(temperature: float, top_k: int | None) -> None:
    with pytest.raises(InputError):
        sample(np.zeros(3), np.random.default_rng(0), temperature, top_k)


def model(cell: str = "lstm") -> tuple[CharModel, Vocabulary]:
    tr.manual_seed(0)
    return CharModel(CharModelConfig(4, cell, embedding=3, hidden=5)), Vocabulary("\nabc")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_same_seed_writes_the_same_text(cell: str) -> None:
    network, vocabulary = model(cell)

    def text(seed: int) -> str:
        return "".join(generate(network, vocabulary, "ab", 50, 1.0, seed=seed))

    assert text(1) == text(1) != text(2)
    assert len(text(1)) == 50 and set(text(1)) <= set(vocabulary.characters)


def test_each_character_follows_from_all_before_it() -> None:
    network, vocabulary = model()
    written = "".join(generate(network, vocabulary, "ab", 6, temperature=0))
    for n in range(6):
        scores, _ = network(vocabulary.encode("ab" + written[:n])[:, None], None)
        assert written[n] == vocabulary.characters[int(scores.numpy()[-1, 0].argmax())]


def test_characters_come_as_they_are_made() -> None:
    network, vocabulary = model()
    stream = generate(network, vocabulary, length=10**12)
    assert len(list(itertools.islice(stream, 3))) == 3
    assert tr.is_recording()  # a generator that was left alone changes nothing outside
    stream.close()
    assert tr.is_recording()


def test_the_prompt_must_be_known() -> None:
    network, vocabulary = model()
    with pytest.raises(InputError, match="the prompt: character 'x' at position 1"):
        next(generate(network, vocabulary, "axb"))


# --- labels that a network has heard ----------------------------------------------------------------------


def log_probs(rng: np.random.Generator, T: int, B: int, C: int) -> np.ndarray:
    x = rng.choice([1.0, 4.0]) * rng.standard_normal((T, B, C))
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def said(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def by_enumeration(x: np.ndarray, blank: int) -> dict[tuple[int, ...], float]:
    """The probability of every labelling that x (T, C) can say, from all C ** T alignments."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        labels = said(path, blank)
        found[labels] = found.get(labels, 0) + math.exp(sum(x[t, c] for t, c in enumerate(path)))
    return found


@given(st.integers(0, 5), st.integers(0, 3), st.integers(1, 3), st.data())
def test_labels_of_small_cases_are_found_as_by_enumeration(T: int, B: int, C: int, data: st.DataObject) -> None:
    """The best path is the likeliest alignment; a beam as wide as there are labellings finds all, with their sums."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    blank, width = data.draw(st.integers(0, C - 1)), data.draw(st.integers(1, 6))
    x, lengths = log_probs(rng, T, B, C), rng.integers(0, T + 1, B)
    paths, beams = ctc_best_path(x, lengths, blank), ctc_beam_search(x, lengths, blank, width=1000)
    narrow = ctc_beam_search(tr.Tensor(x), lengths, blank, width)
    assert len(paths) == len(beams) == len(narrow) == B
    for b, n in enumerate(lengths):
        likeliest = max(
            itertools.product(range(C), repeat=n), key=lambda path: sum(x[t, b, c] for t, c in enumerate(path))
        )
        assert paths[b] == list(said(likeliest, blank))
        exact = by_enumeration(x[:n, b], blank)
        assert {tuple(labels): pytest.approx(math.exp(p), rel=1e-9) for labels, p in beams[b]} == exact
        assert [p for _, p in beams[b]] == sorted((p for _, p in beams[b]), reverse=True)
        assert 1 <= len(narrow[b]) <= width and len({tuple(labels) for labels, _ in narrow[b]}) == len(narrow[b])
        for labels, p in narrow[b]:
            assert math.exp(p) <= exact[tuple(labels)] * (1 + 1e-9)


@pytest.mark.parametrize(("seed", "width"), [(0, 6), (2, 8), (70, 6), (70, 8)])
def test_a_prefix_that_left_the_beam_and_came_back_is_the_same(seed: int, width: int) -> None:
    """Its longer relatives have stayed, in these cases: nothing is listed twice, or as likelier than it is."""
    x = 3 * np.random.default_rng(seed).standard_normal((10, 1, 3))
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    found = ctc_beam_search(x, width=width)[0]
    assert len({tuple(labels) for labels, _ in found}) == len(found) == width
    for labels, p in found:
        loss = tr.nn.functional.ctc_loss(tr.Tensor(x[:, 0]), labels, 10, len(labels), reduction="sum")
        assert p <= -loss.item() + 1e-9


def test_a_beam_agrees_with_the_loss_and_beats_the_best_path() -> None:
    x = log_probs(np.random.default_rng(0), 12, 3, 4)
    found = ctc_beam_search(x, [12, 9, 5], width=300)
    for b, n in enumerate((12, 9, 5)):
        labels, p = found[b][0]
        loss = tr.nn.functional.ctc_loss(tr.Tensor(x[:, b]), labels, n, len(labels), reduction="sum")
        assert p == pytest.approx(-loss.item(), rel=1e-3)
        path = ctc_best_path(x[:, b : b + 1], [n])[0]
        of_path = tr.nn.functional.ctc_loss(tr.Tensor(x[:, b]), path, n, len(path), reduction="sum")
        assert p >= -of_path.item() - 1e-3
    assert ctc_best_path(np.log(np.full((2, 1, 2), [0.6, 0.4]))) == [[]]
    assert ctc_beam_search(np.log(np.full((2, 1, 2), [0.6, 0.4])))[0][0][0] == [1]


def test_impossible_classes_and_repeated_labels() -> None:
    with np.errstate(divide="ignore"):
        x = np.log(np.eye(3)[[1, 1, 0, 1, 2, 2]])[:, None]
    assert ctc_best_path(x) == [[1, 1, 2]]
    assert ctc_beam_search(x) == [[([1, 1, 2], 0.0)]]
    nothing = np.full((2, 1, 3), -np.inf)
    assert ctc_beam_search(nothing) == [[]]
    assert ctc_beam_search(np.zeros((0, 1, 3))) == [[([], 0.0)]]


def test_what_cannot_be_decoded() -> None:
    x = np.zeros((4, 2, 3))
    for decode, name in ((ctc_best_path, "ctc_best_path"), (ctc_beam_search, "ctc_beam_search")):
        with pytest.raises(ShapeError, match=rf"{name}: log_probs must be \(T, B, C\), got shape \(4, 2\)"):
            decode(x[..., 0])
        with pytest.raises(ValueError, match=rf"{name}: lengths\[1\] is 5, but log_probs has 0 to 4 steps"):
            decode(x, [4, 5])
        with pytest.raises(ShapeError, match=rf"{name}: a batch of 2 needs 2 lengths, got shape \(1,\)"):
            decode(x, [4])
        with pytest.raises(ValueError, match=rf"{name}: blank 3 is out of range for 3 classes: 0 to 2"):
            decode(x, blank=3)
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, not 0"):
        ctc_beam_search(x, width=0)


# --- beam search --------------------------------------------------------------------------------------------


def all_continuations(table: np.ndarray, begin: int, end: int, length: int) -> list[tuple[list[int], float]]:
    """Every continuation of a bigram model with its log-probability, best first."""
    found, open_ = [], [([], 0.0, begin)]
    for _ in range(length):
        found += [(ids, p + table[last, end]) for ids, p, last in open_]
        open_ = [([*ids, k], p + table[last, k], k) for ids, p, last in open_ for k in range(len(table)) if k != end]
    found += [(ids, p) for ids, p, _ in open_]
    return sorted(found, key=lambda pair: -pair[1])


@given(seed=st.integers(0, 2**31), V=st.integers(2, 4), length=st.integers(1, 4))
def test_a_beam_as_wide_as_the_tree_is_exact(seed: int, V: int, length: int) -> None:
    table = np.random.default_rng(seed).normal(size=(V, V)) * 2
    table -= np.log(np.exp(table).sum(axis=1, keepdims=True))
    found = beam_search(lambda ids, _: (table[ids], None), None, 0, V - 1, width=4**4, length=length)
    wanted = all_continuations(table, 0, V - 1, length)
    assert len(found) == len(wanted)
    assert {tuple(ids): round(p, 9) for ids, p in found} == {tuple(ids): round(p, 9) for ids, p in wanted}
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


@given(seed=st.integers(0, 2**31), width=st.integers(1, 6), penalty=st.sampled_from([0.0, 0.7]))
def test_a_beam_carries_each_beginning_with_its_own_state(seed: int, width: int, penalty: float) -> None:
    rng = np.random.default_rng(seed)
    tr.manual_seed(seed)
    cell, head = tr.nn.LSTM(3, 4), tr.nn.Linear(4, 5)
    embedding = rng.normal(size=(5, 3)).astype(np.float32) * 3

    def step(ids: np.ndarray, state: Any) -> tuple[Any, Any]:
        y, state = cell(tr.Tensor(embedding[ids][None]), state)
        return head(y[0]), state

    found = beam_search(step, None, 0, 4, width=width, length=6, penalty=penalty)
    assert len(found) == width
    for ids, logp in found:  # scored again, alone, from the beginning
        total, state, last = 0.0, None, 0
        for token in [*ids, 4] if len(ids) < 6 else ids:
            scores, state = step(np.array([last]), state)
            total += float(tr.log_softmax(scores, axis=-1)[0, token])
            last = token
        assert abs(total - logp) < 1e-4
    ranks = [logp / (len(ids) + 1) ** penalty for ids, logp in found]
    assert ranks == sorted(ranks, reverse=True)


def test_a_narrow_beam_is_greedy() -> None:
    table = np.log([[0.6, 0.4 - 1e-9, 1e-9], [0.5, 0.25, 0.25], [0.3, 0.3, 0.4]])
    ((ids, _),) = beam_search(lambda i, _: (table[i], None), None, 1, None, width=1, length=5)
    assert ids == [0, 0, 0, 0, 0]


def test_a_penalty_prefers_what_is_long() -> None:
    table = np.log([[0.001, 0.519, 0.48], [0.001, 0.499, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    short = beam_search(lambda i, _: (table[i], None), None, 0, 2, width=8, length=8)[0][0]
    long = beam_search(lambda i, _: (table[i], None), None, 0, 2, width=8, length=8, penalty=1.0)[0][0]
    assert len(short) == 0 < len(long)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"length": 0}])
def test_a_beam_is_at_least_one_wide_and_long(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"beam_search: (width|length) must be a whole number of at least 1, not 0"):
        beam_search(lambda i, _: (np.zeros((1, 2)), None), None, 0, 1, **wrong)


@given(seed=st.integers(0, 2**31), count=st.integers(0, 4), end=st.sampled_from([4, None]))
def test_greedy_search_is_a_beam_of_one_for_each(seed: int, count: int, end: int | None) -> None:
    rng = np.random.default_rng(seed)
    tr.manual_seed(seed)
    cell, head = tr.nn.GRU(3, 4), tr.nn.Linear(4, 5)
    embedding = rng.normal(size=(5, 3)).astype(np.float32) * 3
    states = tr.Tensor(rng.normal(size=(1, count, 4)).astype(np.float32) * 3)

    def step(ids: np.ndarray, state: Any) -> tuple[Any, Any]:
        y, state = cell(tr.Tensor(embedding[ids][None]), state)
        return head(y[0]), state

    found = greedy_search(step, states, 0, end, count=count, length=6)
    alone = [beam_search(step, states[:, k : k + 1], 0, end, width=1, length=6)[0][0] for k in range(count)]
    assert found == alone


def test_greedy_search_stops_when_all_have_ended() -> None:
    called = []

    def step(ids: np.ndarray, turn: int) -> tuple[np.ndarray, int]:
        called.append(ids.tolist())
        return np.eye(3)[[2, 1] if turn == 0 else [2, 2]], turn + 1

    assert greedy_search(step, 0, 0, 2, count=2, length=9) == [[], [1]]
    assert called == [[0, 0], [2, 1]]
    with pytest.raises(InputError, match="length must be a whole number of at least 1, not 0"):
        greedy_search(step, 0, 0, 2, count=2, length=0)
    with pytest.raises(InputError, match="count must be a whole number of at least 0, not -1"):
        greedy_search(step, 0, 0, 2, count=-1, length=3)


def test_one_step_of_a_model_is_what_the_searches_take() -> None:
    vocabulary = Vocabulary.of("abcd\n")
    model = CharModel(CharModelConfig(len(vocabulary), hidden=8))
    model.eval()
    (ids,) = greedy_search(one_step(model), None, begin=0, count=1, length=12)
    assert vocabulary.decode(ids) == "".join(generate(model, vocabulary, vocabulary.characters[0], 12, temperature=0))


# --- scores that are no numbers -----------------------------------------------------------------------------------

inf, nan = np.inf, np.nan


def following(table: Any) -> Any:
    """A step whose scores depend on the last id alone."""
    return lambda ids, state: (np.asarray(table, float)[ids], state)


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0])
@pytest.mark.parametrize("top_k", [None, 1])
def test_sampling_refuses_scores_that_are_no_numbers(temperature: float, top_k: int | None) -> None:
    def draw(*scores: float) -> int:
        return sample(np.array(scores), np.random.default_rng(0), temperature, top_k)

    with pytest.raises(
        NonFiniteError, match="sample: the score of id 1 is nan: the model that computed it has diverged"
    ):
        draw(1.0, nan, 2.0)
    with pytest.raises(NonFiniteError, match="all 2 scores are -inf"):
        draw(-inf, -inf)
    assert draw(-inf, 0.0) == 1
    with pytest.raises(NonFiniteError, match="the score of id 1 is inf"):
        draw(0.0, inf)
    assert sample(np.array([0.0, 1e-300]), np.random.default_rng(0), 5e-324) in (0, 1)


def test_a_model_that_has_diverged_writes_nothing() -> None:
    network, vocabulary = model()
    for p in network.parameters():
        p.assign_(np.full(p.shape, nan))
    with pytest.raises(NonFiniteError, match="the score of id 0 is nan"):
        list(generate(network, vocabulary, "ab", 5))


def test_searches_refuse_scores_that_are_no_numbers() -> None:
    table = [[-inf, 0.0, -inf], [0.0, nan, 0.0], [0.0, 0.0, 0.0]]
    with pytest.raises(NonFiniteError, match="greedy_search: step 1: the score of sequence 0, token 1 is nan"):
        greedy_search(following(table), None, begin=0, end=2, count=2)
    with pytest.raises(NonFiniteError, match="beam_search: step 1: the score of beginning 0, token 1 is nan"):
        beam_search(following(table), None, begin=0, end=2)
    with pytest.raises(NonFiniteError, match="greedy_search: step 0: all scores of a sequence are -inf"):
        greedy_search(following([[-inf, -inf]]), None, begin=0, count=1)
    with pytest.raises(NonFiniteError, match="beam_search: step 0: the score of beginning 0, token 0 is inf"):
        beam_search(following([[inf, 0.0]]), None, begin=0)
    with pytest.raises(NonFiniteError, match="greedy_search: step 0: the score of sequence 0, token 1 is inf"):
        greedy_search(following([[0.0, inf]]), None, begin=0, count=1, length=2)
    # What has ended is not looked at, and a beginning that cannot go on is dropped.
    assert greedy_search(following([[0.0, 1.0], [nan, nan]]), None, begin=0, end=1, count=2, length=5) == [[], []]
    dead = [[-inf, 0.0, -1.0], [-inf, -inf, -inf], [0.0, 0.0, 0.0]]
    ((ids, p),) = beam_search(following(dead), None, begin=0, end=2)
    assert ids == [] and p == pytest.approx(-1 - np.log1p(np.exp(-1)))


@pytest.mark.parametrize("decode", [ctc_best_path, ctc_beam_search])
def test_ctc_decoders_refuse_scores_that_are_no_numbers(decode: Any) -> None:
    x = np.log(np.full((4, 2, 3), 1 / 3))
    x[3, 1, 2] = nan
    with pytest.raises(NonFiniteError, match=f"{decode.__name__}: the score of step 3, entry 1, class 2 is nan"):
        decode(tr.Tensor(x))
    assert len(decode(x, [4, 3])) == 2  # a step that does not count
    x[3, 1, 2] = inf
    with pytest.raises(NonFiniteError, match=f"{decode.__name__}: the score of step 3, entry 1, class 2 is inf"):
        decode(x)
    x[3, 1] = -inf
    if decode is ctc_beam_search:
        assert decode(x)[1] == []  # no labelling is possible
    else:
        with pytest.raises(NonFiniteError, match="ctc_best_path: all scores of step 3, entry 1 are -inf"):
            decode(x)
    assert len(decode(x, [4, 3])) == 2


STEP = lambda ids, state: (np.zeros((len(ids), 3)), state)


@pytest.mark.parametrize(
    "decode",
    [
        lambda n: sample(np.zeros(3), np.random.default_rng(0), top_k=n),
        lambda n: greedy_search(STEP, None, 0, count=n, length=1),
        lambda n: greedy_search(STEP, None, 0, count=1, length=n),
        lambda n: greedy_search(STEP, None, n, count=1, length=1),
        lambda n: greedy_search(STEP, None, 0, n, count=1, length=1),
        lambda n: beam_search(STEP, None, 0, width=n, length=1),
        lambda n: beam_search(STEP, None, 0, length=n),
        lambda n: beam_search(STEP, None, n, length=1),
        lambda n: beam_search(STEP, None, 0, n, length=1),
        lambda n: ctc_best_path(np.zeros((2, 1, 3)), blank=n),
        lambda n: ctc_beam_search(np.zeros((2, 1, 3)), blank=n),
        lambda n: ctc_beam_search(np.zeros((2, 1, 3)), width=n),
    ],
)
def test_counts_and_ids_of_decoders_are_whole(decode: Any) -> None:
    decode(np.int64(2))
    for wrong in (1.5, nan, "2", -1, True):
        with pytest.raises((ValueError, DTypeError)):
            print(wrong, decode(wrong))
    for wrong in (nan, inf, "1"):
        with pytest.raises((InputError, DTypeError)):
            beam_search(STEP, None, 0, length=1, penalty=wrong)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 1, 3), (1, 0), (0,), (0, 3)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    scores = np.zeros(shape)
    if len(shape) != 1 or not shape[0]:
        with pytest.raises(ShapeError, match=r"sample: the scores must be \(V,\), one for each id, got shape"):
            sample(scores, np.random.default_rng(0))
    for search in (lambda f: beam_search(f, None, 0), lambda f: greedy_search(f, None, 0, count=1)):
        with pytest.raises(ShapeError, match=r"search: step 0: the scores must be \(1, V\), one for each token, got"):
            search(lambda ids, state: (scores, state))
