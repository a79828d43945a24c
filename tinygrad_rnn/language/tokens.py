"""Pieces of text as tokens: words, or what byte-pair encoding finds. The one place that knows the package tokenizers.

    bpe     the most frequent pairs of neighbours become one token, again and again, beginning with the 256 bytes
            (R. Sennrich, B. Haddow and A. Birch, 2016, over bytes as in GPT-2): any text can be written in them
    word    the most frequent words, with the blank before them, and every character; a word that is none of them is
            written in the longest pieces that are, from its beginning on

Either way the tokens of a text, one after the other, are the text. So the bits that a model needs for them are those of
its characters, and can be compared: per character.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.vocabularies import Ids, integers
from tinygrad_rnn.errors import InputError

INSTALL = "words and byte pairs as tokens need the package tokenizers: pip install tokenizers"
KINDS = ("word", "bpe")
LEARNT_FROM = 50_000_000
"""So many characters of a text are enough to find its tokens, at some seconds for ten millions."""
_WORDS = r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s"  # as in GPT-2: a word or marks with the blank before it; blanks
_UNKNOWN = "\0"  # no text has it


class Tokens:
    """A vocabulary of tokens; the place of a token is its id. `Tokens.learnt` finds one in a text.

    It has what `data.Vocabulary` has. Raises ImportError, with what to install, without the package tokenizers, and
    InputError for what is no definition of one.

    >>> tokens = Tokens.learnt("bpe", 260, ["banana, banana, banana"])
    >>> ids = tokens.encode("a banana\u00e9")
    >>> len(tokens), len(ids), tokens.decode(ids), int(tokens.lengths[ids].sum())
    (260, 5, 'a banana\u00e9', 9)
    """

    def __init__(self, kind: str, tokenizer: str) -> None:
        library = _library()
        if kind not in KINDS:
            raise InputError(f"tokens are of the kind {' or '.join(KINDS)}, not {kind!r}")
        try:
            self._tokenizer = library.Tokenizer.from_str(tokenizer)
        except Exception as error:  # noqa: BLE001 (what the library raises has no type of its own)
            raise InputError(f"no tokenizer: {error}") from None
        self.kind, self.definition = kind, json.loads(self._tokenizer.to_str())
        by_id = sorted(self._tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if [place for _, place in by_id] != list(range(len(by_id))):
            raise InputError("no tokenizer: its ids are not 0, 1, 2 and so on")
        code = _bytes_of_letters() if kind == "bpe" else None
        self.pieces = [bytes(code[c] for c in token) if code else token.encode() for token, _ in by_id]
        """The bytes of each token: of byte pairs they may be a part of a character."""
        self.lengths = np.array([sum(b & 0xC0 != 0x80 for b in piece) for piece in self.pieces], np.int64)
        """The characters that begin in each token: those of all tokens of a text are all of its characters."""
        self._characters = None if code else frozenset(token for token, _ in by_id if len(token) == 1)
        self.beginning = "\n"

    @classmethod
    def learnt(cls, kind: str, size: int, pieces: Iterable[str], characters: str = "") -> Tokens:
        """The `size` tokens of a text that comes in pieces, or as many as it has; words can write all of `characters`,
        and those of the text, whatever that takes. Raises InputError for less than 257 byte pairs.
        """
        library = _library()
        if kind == "bpe":
            if size < 257:
                raise InputError(f"byte pairs are at least 257, the bytes and a pair, not {size}")
            tokenizer = library.Tokenizer(library.models.BPE())
            tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = library.pre_tokenizers.ByteLevel.alphabet()
            trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
            tokenizer.train_from_iterator(_first(pieces, LEARNT_FROM), trainer)
            return cls(kind, tokenizer.to_str())
        seen = set(characters)

        def noted() -> Iterator[str]:
            for piece in _first(pieces, LEARNT_FROM):
                seen.update(piece)
                yield piece

        split = library.pre_tokenizers.Split(library.Regex(_WORDS), "isolated")
        counted = library.Tokenizer(library.models.WordLevel(unk_token=_UNKNOWN))
        counted.pre_tokenizer = split
        trainer = library.trainers.WordLevelTrainer(vocab_size=size, show_progress=False)
        counted.train_from_iterator(noted(), trainer)
        by_count = sorted(counted.get_vocab().items(), key=lambda entry: entry[1])
        found = dict.fromkeys([_UNKNOWN, *sorted(seen)])
        for word, _ in by_count:
            if len(found) >= size:
                break
            found[word] = None
        places = {token: place for place, token in enumerate(found)}
        model = library.models.WordPiece(
            places, unk_token=_UNKNOWN, continuing_subword_prefix="", max_input_chars_per_word=2**31
        )
        tokenizer = library.Tokenizer(model)
        tokenizer.pre_tokenizer = split
        return cls(kind, tokenizer.to_str())

    def __len__(self) -> int:
        return len(self.pieces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and (self.kind, self.definition) == (other.kind, other.definition)

    def __hash__(self) -> int:
        return hash((self.kind, *self.pieces))

    def known(self, text: str) -> npt.NDArray[np.bool_]:
        """Which characters of a text can be written in these tokens, (len(text),)."""
        if self._characters is None or self._characters.issuperset(text):
            return np.ones(len(text), bool)
        return np.fromiter((c in self._characters for c in text), bool, len(text))

    def encode(self, text: str) -> Ids:
        """The ids of a text, int32. Raises InputError naming the first character that no token has."""
        known = self.known(text)
        if not known.all():
            at = int(known.argmin())
            raise InputError(f"character {text[at]!r} at position {at} is in none of the {len(self)} tokens")
        return np.array(self._tokenizer.encode_batch_fast([text])[0].ids, np.int32)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """The text of some ids, with U+FFFD for a part of a character; an id out of range is an IndexError."""
        at = integers("Tokens.decode: ids", ids)
        if at.size and not 0 <= at.min() <= at.max() < len(self):
            raise IndexError(f"an id outside 0 ... {len(self) - 1}")
        return b"".join(self.pieces[k] for k in at.tolist()).decode("utf-8", "replace")

    def decoder(self) -> Callable[[int], str]:
        """A function of one id after the other that returns the characters that are whole then."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda k: decoder.decode(self.pieces[k])

    def spread(self, text: str, ids: Ids, values: np.ndarray) -> np.ndarray:
        """Values of the tokens `ids` of `text` as values of its characters, float64 (len(text),): that of a token is
        shared by its bytes. The sums are the same.
        """
        sizes = np.array([len(self.pieces[k]) for k in ids.tolist()])
        if not len(text):
            return np.zeros(0)
        of_bytes = np.repeat(values / np.maximum(sizes, 1), sizes)
        begins = np.flatnonzero((np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) & 0xC0) != 0x80)
        return np.asarray(np.add.reduceat(of_bytes, begins), np.float64)

    def describe(self) -> dict[str, Any]:
        """What JSON can hold; `described` is its inverse."""
        return {"tokens": self.kind, "tokenizer": self.definition}


def described(entry: Any) -> Tokens:
    """The tokens that `Tokens.describe` has described. Raises KeyError, TypeError or InputError for anything else."""
    return Tokens(entry["tokens"], json.dumps(entry["tokenizer"], ensure_ascii=False))


def _first(pieces: Iterable[str], most: int) -> Iterator[str]:
    """The first pieces, until they have so many characters."""
    for piece in pieces:
        if most <= 0:
            return
        yield piece[:most]
        most -= len(piece)


def _bytes_of_letters() -> dict[str, int]:
    """The byte that each letter of a token of byte pairs stands for: GPT-2's `bytes_to_unicode`, turned round."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printed)
    return {chr(byte): byte for byte in printed} | {chr(256 + k): byte for k, byte in enumerate(others)}


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ImportError(INSTALL) from None
    return tokenizers
