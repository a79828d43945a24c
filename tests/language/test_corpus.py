"""Texts as ids: short ones in memory, long ones in a file; the same ids either way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tr
from tinygrad_rnn.data import Streams, Vocabulary, passage, read_blocks, read_text
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language import corpus
from tinygrad_rnn.language.corpus import Corpus, Plan, read_corpus

TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), st.sampled_from("\r\n")))


@given(TEXTS.filter(bool), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]), st.integers(1, 9))
def test_blocks_are_the_text(tmp_path_factory: pytest.TempPathFactory, text: str, encoding: str, size: int) -> None:
    path = tmp_path_factory.mktemp("blocks") / "text"
    path.write_bytes(text.encode(encoding))
    expected = text.removeprefix("\ufeff") if encoding == "utf-8" else text
    if not expected:
        return
    assert "".join(read_blocks(path, encoding, size)) == expected.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_cannot_be_decoded_is_said_with_its_place_in_the_file(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(mark + "ä".encode() * 10 + b"\xe4 and more")
    for size in (1, 2, 3, 7, 100):
        with pytest.raises(InputError, match=f"not utf-8: invalid continuation byte at byte {20 + len(mark)}: "):
            list(read_blocks(path, "utf-8", size))
    path.write_bytes(b"abc" + b"\0")
    with pytest.raises(InputError, match="character 3 is zero"):
        list(read_blocks(path, "utf-8", 2))


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
def test_long_and_short_texts_give_the_same(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    paths = []
    for text in texts:
        paths.append(tmp_path_factory.mktemp("corpus") / "text")
        paths[-1].write_bytes(("." + text).encode())
    text = "".join(map(read_text, paths))
    short, long = read_corpus(paths), read_corpus(paths, in_memory=0)
    assert short.vocabulary == long.vocabulary and short.vocabulary.decode(short.ids) == text
    assert np.array_equal(short.ids, long.ids) and short.ids.dtype == long.ids.dtype
    assert short.sha256 == long.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert isinstance(long.ids, np.memmap) and not long.ids.flags.writeable
    short, long = (read_corpus(paths, in_memory=n, plan=Plan(known="é.\uffff")) for n in (2**24, 0))
    assert short.vocabulary == long.vocabulary == Vocabulary.of(text + "é.\uffff")
    assert short.vocabulary.decode(short.ids) == short.vocabulary.decode(long.ids) == text


@pytest.mark.parametrize(("size", "dtype"), [(256, np.uint8), (257, np.uint16), (2**16 + 1, np.int32)])
def test_ids_are_as_small_as_they_can_be(tmp_path: Path, size: int, dtype: type) -> None:
    text = "".join(chr(k + (0x800 if k >= 0xD800 else 0)) for k in range(0x20, 0x20 + size))
    (tmp_path / "text").write_text(text, encoding="utf-8", newline="")
    for found in (Corpus.of(text), read_corpus([tmp_path / "text"], in_memory=0)):
        assert found.ids.dtype == dtype and found.vocabulary.decode(found.ids[-3:]) == text[-3:]
        assert len(found.vocabulary) == size
    chunk = Streams(found.ids, 2, 5)[0]
    text_ids = passage(found.ids[:20], found.ids[20:40], 2)
    assert {x.dtype for x in (chunk.x, chunk.y, text_ids.x, text_ids.y)} == {np.dtype(np.int32)}


def test_a_text_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = corpus._blocks
    texts = iter(["abc", "abd", "abc", "abcabc", "aab", "baa"])
    monkeypatch.setattr(corpus, "_blocks", lambda paths, encoding: iter([next(texts)]))
    for _ in range(3):
        with pytest.raises(InputError, match="changed while it was read"):
            read_corpus(["text"], in_memory=0)
    monkeypatch.setattr(corpus, "_blocks", real)
    with pytest.raises(InputError, match="no such file"):
        read_corpus([tmp_path / "none"], in_memory=0)


def test_no_room_for_the_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("some text")

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *details: object) -> None: ...

        def write(self, part: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(OSError, match="No space left on device: the ids of the text do not fit into"):
        read_corpus([tmp_path / "text"], in_memory=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process in /proc")
def test_a_long_text_is_read_and_trained_on_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("a sentence of no importance, and another\n" * 800_000)  # 33 MB, which were 160 in memory
    program = """
import re, sys
from pathlib import Path
import numpy as np
from tinygrad_rnn.data import Streams, passage
from tinygrad_rnn.language import read_corpus
from tinygrad_rnn.language import NextCharacter
def memory(which):
    return int(re.search(which + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before = memory("VmRSS")
found = read_corpus([sys.argv[1]])
assert isinstance(found.ids, np.memmap)
streams = Streams(found.ids, 16, 32)
for n in range(200):
    streams[n]
print(memory("VmHWM") - before)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(tr.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 50, done.stdout  # MiB; most are the tables of one block


LINES = [f"line {k}, {'x' * (k * 7 % 50)}\n" for k in range(230)]


@pytest.mark.parametrize("in_memory", [0, 2**24])
def test_one_of_each_ten_lines_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """Drawn by the seed; nothing is lost, and nothing is on both sides, however the text is read."""
    path = tmp_path / "text"
    path.write_text("".join(LINES))
    monkeypatch.setattr(corpus, "read_blocks", lambda path, encoding: read_blocks(path, encoding, 37))
    found = {}
    for seed in (0, 1):
        it = read_corpus([path], in_memory=in_memory, plan=Plan(split="lines", seed=seed))
        train, held = (it.vocabulary.decode(ids).splitlines(keepends=True) for ids in (it.train, it.held_out))
        assert sorted(train + held) == sorted(LINES) and train == [line for line in LINES if line in set(train)]
        assert [LINES.index(line) // 10 for line in held] == list(range(23))
        assert it.sha256 == Corpus.of("".join(LINES)).sha256 and it.characters == len("".join(LINES))
        found[seed] = held
    assert found[0] != found[1]


def test_stretches_are_held_out_as_a_whole(tmp_path: Path) -> None:
    text = "".join(LINES) * 10
    it = Corpus.of(text, Plan(split="random"))
    train, held = it.vocabulary.decode(it.train), it.vocabulary.decode(it.held_out)
    assert 0.05 * len(text) < len(held) < 0.15 * len(text) and len(train) + len(held) == len(text)
    assert held[:1000] in text and sorted((train + held).splitlines()) == sorted(text.splitlines())


def test_another_file_is_held_out(tmp_path: Path) -> None:
    for name, text in (("a", "one\ntwo\n"), ("b", "three §")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for in_memory in (0, 2**24):
        it = read_corpus([tmp_path / "a"], in_memory=in_memory, held_out=[tmp_path / "b"])
        assert it.vocabulary.decode(it.train) == "one\ntwo\n" and it.vocabulary.decode(it.held_out) == "three §"


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_tokens_are_learnt_from_the_part_to_learn_from(tmp_path: Path, kind: str) -> None:
    """And the same part is held out as of characters."""
    pytest.importorskip("tokenizers")
    text = "the sun and the moon\n" * 80 + "unbelievable §\n" * 12
    (tmp_path / "text").write_text(text, encoding="utf-8")
    plain = Corpus.of(text)
    for in_memory in (0, 2**24):
        it = read_corpus([tmp_path / "text"], in_memory=in_memory, plan=Plan(kind, 300))
        assert it.vocabulary.decode(it.held_out) == plain.vocabulary.decode(plain.held_out)
        assert it.vocabulary.decode(it.train) == plain.vocabulary.decode(plain.train)
        assert len(it.vocabulary.encode(" sun")) == 1 and len(it.vocabulary.encode("unbelievable")) > 1
