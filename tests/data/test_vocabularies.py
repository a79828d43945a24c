"""Vocabularies of words and characters: what they keep, what is unknown, and the way back."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import BEGIN, END, PAD, UNKNOWN, Vocabulary, WordVocabulary, words
from tinygrad_rnn.errors import InputError

# --- characters ---------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXTS)
def test_decode_undoes_encode(text: str) -> None:
    vocabulary = Vocabulary.of(text)
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int32 and ids.shape == (len(text),)
    assert vocabulary.decode(ids) == text
    assert list(vocabulary.characters) == sorted(set(text))


@given(TEXTS, TEXTS)
def test_an_unseen_character_is_named_with_its_place(known: str, text: str) -> None:
    vocabulary = Vocabulary.of(known)
    unseen = [i for i, c in enumerate(text) if c not in known]
    if not unseen:
        assert vocabulary.decode(vocabulary.encode(text)) == text
        return
    with pytest.raises(InputError) as error:
        vocabulary.encode(text)
    assert repr(text[unseen[0]]) in str(error.value) and f"position {unseen[0]} " in str(error.value)


def test_empty_texts_and_bad_ids() -> None:
    vocabulary = Vocabulary("abc")
    assert vocabulary.encode("").tolist() == [] and vocabulary.decode([]) == "" and len(vocabulary) == 3
    for ids in ([3], [-1], [0, 99]):
        with pytest.raises(IndexError):
            vocabulary.decode(ids)
    for characters in ("", "ba", "aa"):
        with pytest.raises(InputError):
            Vocabulary(characters)


# --- words --------------------------------------------------------------------------------------------------

SENTENCES = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "dog", "Dog", "é", "<pad>", "7"]), max_size=6), max_size=6
)


@given(SENTENCES, st.integers(1, 3), st.none() | st.integers(4, 8))
def test_frequent_tokens_come_first(sentences: list[list[str]], min_count: int, max_size: int | None) -> None:
    special = (PAD, UNKNOWN, BEGIN, END)
    vocabulary = WordVocabulary.of(sentences, min_count=min_count, max_size=max_size, special=special)
    counts = Counter(token for sentence in sentences for token in sentence)
    assert vocabulary.tokens[:4] == special and len(vocabulary) == len(vocabulary.tokens)
    kept = vocabulary.tokens[4:]
    assert list(kept) == sorted(kept, key=lambda token: (-counts[token], token))
    left_out = [t for t in counts if t not in vocabulary and counts[t] >= min_count]
    assert max_size is None or len(vocabulary) <= max_size
    assert not left_out or len(vocabulary) == max_size
    assert all(counts[t] <= counts[kept[-1]] for t in left_out if kept)
    assert all(counts[t] >= min_count for t in kept)
    assert vocabulary == WordVocabulary.of(reversed(sentences), min_count=min_count, max_size=max_size, special=special)


@given(
    SENTENCES, st.lists(st.sampled_from(["a", "b", "c", "dog", "nowhere"]), max_size=8), st.booleans(), st.booleans()
)
def test_decode_undoes_encode_but_for_the_unknown(
    sentences: list[list[str]], given_: list[str], begin: bool, end: bool
) -> None:
    vocabulary = WordVocabulary.of(sentences, special=(PAD, UNKNOWN, BEGIN, END))
    ids = vocabulary.encode(given_, begin=begin, end=end)
    assert ids.dtype == np.int32 and ids.shape == (len(given_) + begin + end,)
    assert vocabulary.decode(ids) == [token if token in vocabulary else UNKNOWN for token in given_]
    padded = [*ids, *[vocabulary[PAD]] * 3]
    assert vocabulary.decode(padded) == vocabulary.decode(ids)
    if end:
        assert vocabulary.decode([*ids, 1, 1]) == vocabulary.decode(ids)


def test_characters_are_tokens_too() -> None:
    vocabulary = WordVocabulary.of(["2024-01-31", "31 January"], special=(PAD, BEGIN, END))
    ids = vocabulary.encode("2024", begin=True, end=True)
    assert ids[0] == vocabulary[BEGIN] and "".join(vocabulary.decode(ids)) == "2024"
    with pytest.raises(InputError, match=r"token 'x' at position 1 is none of the \d+ in the vocabulary"):
        vocabulary.encode("2x")


def test_wrong_tokens() -> None:
    for tokens in ((), ("a", "b", "a")):
        with pytest.raises(InputError, match="different tokens"):
            WordVocabulary(tokens)
    vocabulary = WordVocabulary(("a", "b"))
    assert "c" not in vocabulary and vocabulary["b"] == 1
    with pytest.raises(KeyError, match="'<bos>' is none of the 2 tokens"):
        vocabulary.encode("ab", begin=True)
    for ids in ([2], [0, -1]):
        with pytest.raises(IndexError, match=r"outside 0 ... 1"):
            vocabulary.decode(ids)
    assert vocabulary.encode("").tolist() == [] and vocabulary.decode([]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("  \n", []),
        ("It's o'clock -- well-known!", ["it's", "o'clock", "-", "-", "well-known", "!"]),
        ("Größe: 3.5 %", ["größe", ":", "3", ".", "5", "%"]),
        ("l’été", ["l’été"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found
    assert words(text.upper(), lower=False) == words(text.upper(), lower=False)
    assert [w.lower() for w in words(text, lower=False)] == found


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


SCRIPTS = {
    "Devanagari": ("हिन्दी में लिखा हुआ।", ["हिन्दी", "में", "लिखा", "हुआ", "।"]),
    "Bengali": ("আমার সোনার বাংলা", ["আমার", "সোনার", "বাংলা"]),
    "Tamil": ("யாதும் ஊரே, யாவரும் கேளிர்", ["யாதும்", "ஊரே", ",", "யாவரும்", "கேளிர்"]),
    "Telugu": ("తెలుగు భాష", ["తెలుగు", "భాష"]),
    "Malayalam": ("ന്യൂനമർദ്ദം", ["ന്യൂനമർദ്ദം"]),
    "Sinhala, with a joiner": ("ශ්\u200dරී ලංකා", ["ශ්\u200dරී", "ලංකා"]),
    "Thai": ("ที่นี่ ดีมาก", ["ที่นี่", "ดีมาก"]),
    "Khmer": ("ភាសា\u200bខ្មែរ", ["ភាសា", "\u200b", "ខ្មែរ"]),
    "Tibetan": ("བོད་ཡིག", ["བོད", "་", "ཡིག"]),
    "Arabic, with vowels": ("اَلسَّلَامُ عَلَيْكُمْ؟", ["اَلسَّلَامُ", "عَلَيْكُمْ", "؟"]),
    "Persian, with a non-joiner": ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
    "Hebrew, with points": ("שָׁלוֹם עוֹלָם, צה״ל", ["שָׁלוֹם", "עוֹלָם", ",", "צה״ל"]),
    "Korean": ("한국어 문장.", ["한국어", "문장", "."]),
    "Korean, decomposed": (decomposed("한국어 문장."), [decomposed("한국어"), decomposed("문장"), "."]),
    "Japanese": ("ガギグ、カ\u3099だ。", ["ガギグ", "、", "カ\u3099だ", "。"]),
    "Chinese": ("学而时习之，不亦说乎", ["学而时习之", "，", "不亦说乎"]),
    "Vietnamese": ("Tiếng Việt", ["tiếng", "việt"]),
    "Vietnamese, decomposed": (decomposed("Tiếng Việt"), [decomposed("tiếng"), decomposed("việt")]),
    "Greek": ("Ὁ λόγος· δὲν", ["ὁ", "λόγος", "·", "δὲν"]),
    "Russian, with a stress": ("за́мок и замо́к", ["за́мок", "и", "замо́к"]),
    "Ukrainian": ("п’ять п'ять пʼять", ["п’ять", "п'ять", "пʼять"]),
    "Armenian": ("ինչո՞ւ, հա՛", ["ինչո՞ւ", ",", "հա", "՛"]),
    "Turkish": ("İSTANBUL ışık", ["i̇stanbul", "ışık"]),
    "Catalan": ("col·lega l’Hospitalet", ["col·lega", "l’hospitalet"]),
    "Uzbek": ("o‘zbek ‘tili’", ["o‘zbek", "‘", "tili", "’"]),
    "Amharic": ("ሰላም፡ዓለም።", ["ሰላም", "፡", "ዓለም", "።"]),
    "a soft hyphen": ("Wort\u00adende", ["wort\u00adende"]),
    "a mark of direction": ("a\u200f b", ["a", "\u200f", "b"]),
    "emoji": ("👩\u200d👩\u200d👧 👍🏽 ❤️! 1️⃣", ["👩\u200d👩\u200d👧", "👍🏽", "❤️", "!", "1️⃣"]),
    "flags": ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
}


@pytest.mark.parametrize(("text", "found"), SCRIPTS.values(), ids=SCRIPTS)
def test_words_of_every_script(text: str, found: list[str]) -> None:
    assert words(text) == found
    assert words(f"{text} (ab {text}")[-len(found) :] == found


@given(st.text())
def test_words_lose_only_blanks(text: str) -> None:
    assert "".join(words(text, lower=False)) == "".join(text.split())
