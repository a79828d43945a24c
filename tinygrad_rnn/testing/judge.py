"""The judge: asks laws about a subject, in order, counts those that applied, and names the one that is broken.

A law is a function of a subject, under a name: it returns False where it does not apply, True where it holds, and
raises `Broken` where it does not. What an op, a module and a recurrent layer must obey are three tuples of laws, in
`ops`, `modules` and `recurrent`; how they are asked, counted, reported and searched with Hypothesis is written here.

>>> @dataclass
... class Number:
...     value: int
...     where: str
>>> @law("even")
... def even(number: Number) -> bool:
...     if number.value % 2:
...         raise Broken(f"{number.value} is odd")
...     return True
>>> judge([even], Number(2, "an example"))
Counter({'even': 1})
>>> judge([even], Number(3, "an example"))
Traceback (most recent call last):
    ...
tinygrad_rnn.testing.errors.LawError: even: 3 is odd
  in an example
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.testing.errors import Broken, GradientError, LawError

__all__ = ["Counts", "Law", "explore", "hypothesis_strategies", "judge", "law"]

Counts = Counter[str]


class Subject(Protocol):
    """What laws are asked about: one example, which `where` describes in a line."""

    @property
    def where(self) -> str: ...


S = TypeVar("S", bound=Subject, contravariant=True)


@dataclass(frozen=True)
class Law(Generic[S]):
    """A law: its name, and the function that asks about it. A call asks; what it raises says which law, and where."""

    name: str
    asked: Callable[[S], bool]

    def __call__(self, subject: S) -> bool:
        with reported(self.name, subject.where):
            return self.asked(subject)


def law(name: str) -> Callable[[Callable[[S], bool]], Law[S]]:
    """Makes a law of a function; several functions may share a name."""
    return lambda asked: Law(name, asked)


def judge(laws: Iterable[Law[S]], subject: S) -> Counts:
    """Ask all laws about one subject: 1 for each name that applied. Raises LawError for the first that is broken."""
    return Counter(dict.fromkeys((law.name for law in laws if law(subject)), 1))


@contextmanager
def reported(law: str, where: str) -> Iterator[None]:
    """What is raised inside becomes a LawError that names the law and the example; other errors get a note."""
    place = f"\n  in {where}" if where else ""
    try:
        yield
    except Broken as error:
        name = error.law or law
        raise LawError(name, f"{name}: {error}{place}") from error.__cause__
    except GradientError as error:  # which says itself what is wrong
        error.args = (f"{error}{place}", *error.args[1:])
        raise
    except Exception as error:
        broken = law_of(error)
        if broken:
            raise LawError(broken.law, f"{broken.law}: {broken}{place}") from error
        if where:
            error.add_note(f"in {where}")
        raise


def law_of(error: Exception) -> Broken | None:
    """The law that an error of the engine or of NumPy is the breaking of, if it is."""
    if isinstance(error, ShapeError) and "the derivative is wrong" in str(error):
        return Broken(str(error), "shape")
    if isinstance(error, ValueError) and "read-only" in str(error):
        return Broken(f"something writes to an array that it was given ({error})", "no mutation")
    if isinstance(error, ValueError) and "other values when it is called again" in str(error):
        return Broken(str(error), "repeats")
    return None


# --- the search with Hypothesis -----------------------------------------------------------------------------


def hypothesis_strategies(caller: str) -> Any:
    """The module `strategies`, which needs Hypothesis; nothing else of the kit does."""
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{caller} draws its examples with Hypothesis: pip install hypothesis") from error
    from tinygrad_rnn.testing import strategies

    return strategies


def explore(
    what: str, strategy: Any, check: Callable[[Any], Counts], examples: int | None = None, first: Iterable[Any] = ()
) -> Counts:
    """Check the examples of `first`, then such as Hypothesis draws from a strategy; return the sum of the counts.

    The first broken law is shrunk to the smallest example, for which its LawError is raised, even by a function
    that does not fail each time it is called. `examples` is how many to draw: as many as the Hypothesis profile says
    unless given, none for 0.
    """
    counts: Counts = Counter()
    for example in first:
        counts.update(check(example))
    if examples != 0:
        _search(what, strategy, lambda example: counts.update(check(example)), examples)
    return counts


def _search(what: str, strategy: Any, check: Callable[[Any], None], examples: int | None) -> None:
    from hypothesis import HealthCheck, Phase, given, settings

    failures: list[LawError] = []

    def test(example: Any) -> None:
        try:
            check(example)
        except LawError as error:
            failures.append(error)
            raise

    test.__name__ = re.sub(r"\W", "_", what)  # by which Hypothesis remembers what failed before
    profile = settings.default
    assert profile is not None
    drawn: Any = given(strategy)  # their types say nothing of a strategy of anything
    searched: Any = settings(
        max_examples=examples or profile.max_examples,
        deadline=None,
        report_multiple_bugs=False,
        phases=[phase for phase in profile.phases if phase is not Phase.explain],  # it runs under a tracer, slowly
        suppress_health_check={*profile.suppress_health_check, HealthCheck.too_slow},
    )
    try:
        searched(drawn(test))()
    except LawError:
        raise
    except Exception:
        if failures:  # it passed when Hypothesis tried it again
            raise failures[-1] from None
        raise
