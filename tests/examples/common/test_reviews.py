"""What a review says, read by another way than the grammar's, is its label."""

from __future__ import annotations

import numpy as np
import pytest

from examples.common import reviews
from tinygrad_rnn.errors import InputError


def verdict(clause: str) -> bool:
    """What one clause says, by another way than the grammar's."""
    good = any(word in reviews.GOOD for word in clause.split())
    return good != any(phrase in clause for phrase in reviews.NOT)


@pytest.mark.parametrize("kind", reviews.KINDS)
def test_the_label_is_what_the_sentence_says(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        text, label = reviews.review(kind, rng)
        if kind in ("plain", "negation"):
            assert {verdict(clause) for clause in text.split(" and ")} == {bool(label)}
        elif kind == "intensity":
            strong = [c for c in text.split(" and ") if set(c.split()) & set(reviews.STRONG)]
            assert [verdict(c) for c in strong] == [bool(label)]
        else:
            before, _, after = text.partition("but the " if " but the " in text else "although ")
            main = after if " but the " in text else before if "the " in before else after.rpartition(" , ")[2]
            assert verdict(main) == bool(label), text


def test_no_sentence_is_in_two_parts() -> None:
    rng = np.random.default_rng(0)
    train, _ = reviews.reviews(200, rng, set())
    test, kinds = reviews.reviews(200, rng, set(train.texts))
    assert not set(train.texts) & set(test.texts)
    assert np.bincount(kinds).tolist() == [40] * 5


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(InputError, match="'ironic' is no kind of review; they are plain, negation"):
        reviews.review("ironic", np.random.default_rng(0))
