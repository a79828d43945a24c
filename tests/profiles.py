"""How many examples a test draws, where the profile's own number does not suit it."""

from __future__ import annotations

from hypothesis import settings


def examples(dev: int, ci: int, thorough: int) -> settings:
    """A decorator: so many examples in each profile of `conftest.py`; ci's number in a profile of somebody's own.

    >>> examples(dev=10, ci=30, thorough=300).max_examples in (5, 10, 30, 300)
    True
    """
    numbers = {"dev": dev, "ci": ci, "thorough": thorough, "fast": min(dev, 5)}
    return settings(max_examples=numbers.get(settings.get_current_profile_name(), ci))
