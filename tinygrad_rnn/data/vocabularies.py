"""Vocabularies: characters or words as ids, and back.

`Vocabulary` is for one long text of which every character is known. `WordVocabulary` is for sentences, lists of tokens:
it has places for padding, for what is unknown, and for the two ends.

>>> vocabulary = Vocabulary.of("to be or not to be")
>>> vocabulary.characters
' benort'
>>> vocabulary.encode("bet").tolist()
[1, 2, 6]
>>> vocabulary.decode([1, 2, 6])
'bet'

>>> vocabulary = WordVocabulary.of([words("Good, very good."), words("Not good.")], min_count=2)
>>> vocabulary.tokens
('<pad>', '<unk>', 'good', '.')
>>> vocabulary.encode(words("Good grief.")).tolist()
[2, 1, 3]
>>> vocabulary.decode([2, 1, 3, 0])
['good', '<unk>', '.']
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.errors import DTypeError, InputError
from tinygrad_rnn.tensor.backend import host_array

Ids = npt.NDArray[np.integer[Any]]  # int32, or as small as the vocabulary allows


def integers(what: str, ids: Any) -> Ids:
    """Ids as an array on the host. Raises DTypeError for what is no integer: 1.9 would be taken for 1."""
    found = ids if isinstance(ids, np.memmap) else host_array(ids)  # which may be larger than the memory
    if found.dtype.kind not in "iu" and found.size:
        raise DTypeError(f"{what} must be integers, got {found.dtype}")
    return found if found.size else found.astype(np.int64)


class Coding(Protocol):
    """Texts as ids, whatever an id stands for: what language models need to know of a vocabulary."""

    @property
    def kind(self) -> str:
        """What an id is: "char", "word", "bpe"."""

    @property
    def beginning(self) -> str:
        """What stands before a text that nothing else stands before: a new line, if there is one."""

    @property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """The characters that begin in each id, (len(self),); None where each is one character."""

    def __len__(self) -> int: ...

    def known(self, text: str) -> npt.NDArray[np.bool_]:
        """Which characters of a text can be encoded, (len(text),)."""

    def encode(self, text: str) -> Ids:
        """The ids of a text. Raises InputError naming the first character that cannot be encoded."""

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """The text of some ids."""

    def decoder(self) -> Callable[[int], str]:
        """A function of one id after the other that returns the characters that are whole then."""

    def spread(self, text: str, ids: Ids, values: np.ndarray) -> np.ndarray:
        """Values of the ids of a text as values of its characters, with the same sum."""

    def describe(self) -> Any:
        """What JSON can hold, to be made again from."""


# --- characters ---------------------------------------------------------------------------------------------


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The Unicode numbers of a text, uint32 of shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows, sorted; the place of a character is its id.

    `characters` is a string without repetitions. Use `Vocabulary.of(text)` to collect them from a text.
    """

    characters: str
    _table: Ids = field(init=False, repr=False, compare=False)
    kind: ClassVar[str] = "char"
    lengths: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not self.characters or "".join(sorted(set(self.characters))) != self.characters:
            raise InputError("a vocabulary is a string of sorted, different characters, at least one")
        points = code_points(self.characters)
        table = np.full(int(points[-1]) + 1, -1, dtype=np.int32)
        table[points] = np.arange(len(points), dtype=np.int32)
        object.__setattr__(self, "_table", table)

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The vocabulary of a text."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def beginning(self) -> str:
        """A new line, or the first character where there is none."""
        return "\n" if "\n" in self.characters else self.characters[0]

    def known(self, text: str) -> npt.NDArray[np.bool_]:
        """Which characters of a text are in the vocabulary, (len(text),)."""
        points = code_points(text)
        return (points < len(self._table)) & (self._table[np.minimum(points, len(self._table) - 1)] >= 0)

    def decoder(self) -> Callable[[int], str]:
        """The character of an id."""
        return self.characters.__getitem__

    def spread(self, text: str, ids: Ids, values: np.ndarray) -> np.ndarray:
        """The values: an id is a character."""
        return values

    def describe(self) -> str:
        """The characters."""
        return self.characters

    def encode(self, text: str) -> Ids:
        """The ids of a text, int32 of shape (len(text),).

        Raises InputError naming the first character that is not in the vocabulary, and where it stands.

            >>> Vocabulary("ab").encode("abc")
            Traceback (most recent call last):
            ...
            tinygrad_rnn.errors.InputError: character 'c' at position 2 is none of the 2 in the vocabulary
        """
        points = code_points(text)
        ids = self._table[np.minimum(points, len(self._table) - 1)]
        unseen = (ids < 0) | (points >= len(self._table))
        if unseen.any():
            where = int(unseen.argmax())
            raise InputError(
                f"character {text[where]!r} at position {where} is none of the {len(self)} in the vocabulary"
            )
        return ids

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """The text of some ids; an id outside the vocabulary is an IndexError, what is no integer a DTypeError."""
        at = integers("Vocabulary.decode: ids", ids).astype(np.int64)
        if at.size and not 0 <= at.min() <= at.max() < len(self):
            raise IndexError(f"an id outside 0 ... {len(self) - 1}")
        return code_points(self.characters)[at].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


# --- words --------------------------------------------------------------------------------------------------

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<bos>", "<eos>"
"""Tokens that no text has: what fills a sequence up, what the vocabulary lacks, before the first, after the last."""

# Within a word: apostrophes, hyphens, the middle dot of Catalan, marks of Armenian and Hebrew.
_INSIDE = "'\u2018\u2019\uff07\\-\u2010\u2011\u00b7\u055a-\u055c\u055e\u05f3\u05f4"
# What is invisible and may stand there, too, such as a soft hyphen, or a mark of the direction.
_INVISIBLE = "\u00ad\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
_WORD = re.compile(rf"\w+(?:[{_INSIDE}]\w+)*|[^\w\s]")


@cache
def _combining() -> tuple[frozenset[str], re.Pattern[str]]:
    """The characters that combine with others, and a word or a mark of punctuation with all that combines with it.

    After Unicode's rules (Standard Annex 29): marks and joiners belong to what stands before them. A symbol has its
    variation, skin colour or tags with it, symbols that are joined are one, and so are the two letters of a flag.
    """
    marks = "".join(chr(k) for k in range(sys.maxunicode + 1) if unicodedata.category(chr(k))[0] == "M")
    extends = f"{marks}\u200c\u200d"
    flags = "".join(map(chr, range(0x1F1E6, 0x1F200)))
    looks = "".join(map(chr, (*range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080))))
    letters = rf"\w+(?:[{extends}]+\w*)*"
    word = rf"{letters}(?:[{_INSIDE}{_INVISIBLE}]{letters})*"
    symbol = rf"[^\w\s][{extends}{looks}]*"
    whole = rf"{word}|[{flags}]{{2}}|{symbol}(?:(?<=\u200d){symbol})*"
    invisible = re.findall(f"[{_INVISIBLE}]", "".join(map(chr, range(0x10000))))
    return frozenset(extends + flags + looks).union(invisible), re.compile(whole)


def words(text: str, lower: bool = True) -> list[str]:
    """The words of a text and its marks of punctuation, in lower case unless told otherwise.

    A word may have an apostrophe or a hyphen inside, and has all the vowel signs, accents and joiners that belong to
    its letters; they are left as they are, composed or not (`unicodedata.normalize` makes them alike). Nothing divides
    what is written without blanks: of Chinese, Japanese and Thai, each run of letters is one word. For characters as
    tokens, `list(text)` is all it takes.

        >>> words("Don't panic: it's a well-known trick!")
        ["don't", 'panic', ':', "it's", 'a', 'well-known', 'trick', '!']
    """
    text = text.lower() if lower else text
    if text.isascii():
        return _WORD.findall(text)
    some, whole = _combining()
    return (_WORD if some.isdisjoint(text) else whole).findall(text)


@dataclass(frozen=True)
class WordVocabulary:
    """A vocabulary: the place of a token in `tokens` is its id. Use `WordVocabulary.of` to collect one.

    Raises InputError for a token that occurs twice, and for none at all.
    """

    tokens: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {token: k for k, token in enumerate(self.tokens)}
        if not ids or len(ids) < len(self.tokens):
            raise InputError("a vocabulary is a row of different tokens, at least one")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def of(
        cls,
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        special: Sequence[str] = (PAD, UNKNOWN),
    ) -> WordVocabulary:
        """The tokens of some sequences: `special` ones first, then the frequent before the rare, equals sorted.

        Those that occur less than `min_count` times are left out, and the rarest where there are more than `max_size`
        in all. Collect it from what is trained on only: what else there is, is unknown to the model, too.
        """
        counts = Counter(token for sequence in sequences for token in sequence)
        found = sorted(
            (t for t, n in counts.items() if n >= min_count and t not in special), key=lambda t: (-counts[t], t)
        )
        return cls((*special, *found)[:max_size])

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    def __getitem__(self, token: str) -> int:
        """The id of a token; a KeyError if it has none."""
        if token not in self._ids:
            raise KeyError(f"{token!r} is none of the {len(self)} tokens of the vocabulary")
        return self._ids[token]

    def encode(self, tokens: Iterable[str], *, begin: bool = False, end: bool = False) -> npt.NDArray[np.int32]:
        """The ids of some tokens, int32 of shape (N,), between those of `BEGIN` and of `END` if wanted.

        A token that is not in the vocabulary becomes `UNKNOWN`; InputError names it and its place if there is no
        such token either.

            >>> WordVocabulary(("a", "b")).encode("abc")
            Traceback (most recent call last):
            ...
            tinygrad_rnn.errors.InputError: token 'c' at position 2 is none of the 2 in the vocabulary
        """
        unknown = self._ids.get(UNKNOWN, -1)
        given = list(tokens)
        ids = [self._ids.get(token, unknown) for token in given]
        if unknown < 0 and -1 in ids:
            at = ids.index(-1)
            raise InputError(f"token {given[at]!r} at position {at} is none of the {len(self)} in the vocabulary")
        if begin:
            ids.insert(0, self[BEGIN])
        if end:
            ids.append(self[END])
        return np.array(ids, dtype=np.int32)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> list[str]:
        """The tokens of some ids up to the first `END`, without `PAD` and `BEGIN`.

        An id that is out of range is an IndexError, what is no integer a DTypeError.
        """
        found: list[str] = []
        for k in integers("WordVocabulary.decode: ids", ids).reshape(-1).tolist():
            if not 0 <= k < len(self):
                raise IndexError(f"id {k} is outside 0 ... {len(self) - 1}")
            if self.tokens[k] == END:
                break
            if self.tokens[k] not in (PAD, BEGIN):
                found.append(self.tokens[k])
        return found
