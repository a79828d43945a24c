"""Reviews in one sentence, for or against, in which the words alone do not tell: "funny but dull" and "dull but funny"
have the same words and opposite verdicts, and so have many sentences with "not", "very" and "a bit". A small grammar
writes them, and knows the verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tinygrad_rnn.data.batches import Numbers
from tinygrad_rnn.data.readers import Labelled
from tinygrad_rnn.errors import InputError

KINDS = ("plain", "negation", "intensity", "contrast", "both")
"""What decides: the adjectives alone; also "not"; the stronger word; what follows "but"; that and "not"."""

GOOD = ["good", "great", "funny", "clever", "moving", "lively", "fresh", "charming", "bright", "gripping", "warm"]
BAD = ["bad", "awful", "dull", "silly", "boring", "flat", "stale", "clumsy", "dark", "tiresome", "cold", "false"]
THINGS = ["film", "plot", "acting", "music", "ending", "dialogue", "camera", "script", "cast", "hero", "story"]
NOT = ["was not", "was never", "was hardly", "seemed anything but", "did not seem", "was by no means"]
STRONG, WEAK = ["very", "really", "extremely", "wonderfully"], ["a bit", "slightly", "somewhat", "rather"]
_OPENINGS = ["", "", "i think", "last night", "to be honest ,", "all in all ,"]


def review(kind: str, rng: np.random.Generator) -> tuple[str, int]:
    """A sentence of this kind, one of `KINDS`, and 1 if it is favourable, 0 if not. Raises InputError for another kind.

    >>> review("contrast", np.random.default_rng(1))
    ('the hero was warm but the film was tiresome', 0)
    """
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no kind of review; they are {', '.join(KINDS)}")
    good, negated = int(rng.integers(2)), [bool(rng.integers(2)) and kind in ("negation", "both") for _ in range(2)]
    first, second = (f"the {thing}" for thing in rng.choice(THINGS, 2, replace=False))

    def pick(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    def clause(thing: str, verdict: int, negate: bool, how: str = "") -> str:
        adjective = pick(GOOD if verdict != negate else BAD)
        return " ".join(f"{thing} {pick(NOT) if negate else 'was'} {how} {adjective}".split())

    if kind in ("plain", "negation"):
        text = clause(first, good, negated[0])
        if rng.integers(2):
            text += f" and {clause(second, good, negated[1])}"
    elif kind == "intensity":  # the stronger word decides
        halves = [clause(first, good, False, pick(STRONG)), clause(second, 1 - good, False, pick(WEAK))]
        text = " and ".join(halves if rng.integers(2) else halves[::-1])
    else:  # what follows "but" decides, and what "although" does not belong to
        main, aside = clause(first, good, negated[0]), clause(second, 1 - good, negated[1])
        text = pick(
            [f"{aside} but {main}", f"{aside} , but {main}", f"although {aside} , {main}", f"{main} although {aside}"]
        )
    return f"{pick(_OPENINGS)} {text}".strip(), good


def reviews(count: int, rng: np.random.Generator, known: Collection[str] = ()) -> tuple[Labelled, Numbers]:
    """So many different sentences that are not among the `known`, and for each the number of its kind, int64 (N,).

    All kinds are equally frequent, to within one.

        >>> found, kinds = reviews(10, np.random.default_rng(0))
        >>> len(found.texts), sorted(kinds.tolist())
        (10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    """
    found: dict[str, tuple[int, int]] = {}
    while len(found) < count:
        text, good = review(KINDS[len(found) % len(KINDS)], rng)
        if text not in known:
            found.setdefault(text, (good, len(found) % len(KINDS)))
    labels, kinds = np.array(list(found.values())).T
    return Labelled(list(found), labels, ("against", "in favour")), kinds
