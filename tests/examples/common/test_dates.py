"""Dates in ten languages: each day once, and what is written is that day."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from examples.common.dates import FORMATS, LANGUAGES, dates
from tinygrad_rnn.errors import InputError


def test_each_day_is_written_once_in_a_known_language() -> None:
    babel = pytest.importorskip("babel.dates")
    found = dates(300, np.random.default_rng(0))
    assert len({truth for _, truth in found}) == len(found) == 300
    for text, truth in found:
        day = date.fromisoformat(truth)
        assert 1950 <= day.year <= 2049
        assert text in {babel.format_date(day, form, language) for form in FORMATS for language in LANGUAGES}
    assert found == dates(300, np.random.default_rng(0)) != dates(300, np.random.default_rng(1))


@pytest.mark.parametrize("count", [-1, 40_000])
def test_more_days_than_there_are(count: int) -> None:
    with pytest.raises(InputError, match="36,524 days to choose from"):
        dates(count, np.random.default_rng(0))
