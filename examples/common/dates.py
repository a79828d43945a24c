"""Dates as ten languages write them, by Babel's locale data: something to translate of which the truth is known."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from tinygrad_rnn.errors import InputError

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "tr")
FORMATS = ("medium", "long", "full")

_FIRST, _COUNT = date(1950, 1, 1), 36524


def dates(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """So many different days from 1950 to 2049 in random order, each in a random one of the `LANGUAGES` and `FORMATS`,
    and in ISO 8601, `2024-03-09`.

    Raises InputError for more days than there are, and ImportError without Babel.
    """
    if not 0 <= count <= _COUNT:
        raise InputError(f"there are {_COUNT:,} days to choose from, not {count:,}")
    from babel.dates import format_date

    days = [_FIRST + timedelta(days=int(k)) for k in rng.permutation(_COUNT)[:count]]
    return [(format_date(d, FORMATS[rng.integers(3)], LANGUAGES[rng.integers(10)]), d.isoformat()) for d in days]
