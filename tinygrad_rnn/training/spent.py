"""Where the time of a run goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

LEAST = 0.05  # seconds that are worth a word


class Spent:
    """Seconds by what they were spent on, from when it was made.

    >>> spent = Spent()
    >>> with spent.on("reading"):
    ...     pass
    >>> spent.add("training", 3.0)
    >>> list(spent.seconds), spent.line().startswith("training 3.0 s (")
    (['reading', 'training'], True)
    """

    def __init__(self) -> None:
        self.begun = perf_counter()
        self.seconds: dict[str, float] = {}

    def add(self, what: str, seconds: float) -> None:
        """Count seconds that were spent on something."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time inside, also of what ends with an error."""
        begin = perf_counter()
        try:
            yield
        finally:
            self.add(what, perf_counter() - begin)

    def line(self) -> str:
        """All of it in a line, the longest first, with its part of the whole; what took next to none is left out."""
        whole = perf_counter() - self.begun
        parts = sorted(self.seconds.items(), key=lambda entry: -entry[1])
        parts.append(("the rest", whole - sum(self.seconds.values())))
        return ", ".join(f"{what} {s:.1f} s ({s / whole:.0%})" for what, s in parts if s >= LEAST)
