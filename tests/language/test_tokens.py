"""Tokens: they are the text, whatever it is written in, and what is told of them is told of its characters."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from tests.cli.command import TEXT
from tinygrad_rnn.cli.main import main
from tinygrad_rnn.data import passage
from tinygrad_rnn.errors import CheckpointError, InputError
from tinygrad_rnn.language import CharModel, CharModelConfig, bits_per_char, text_bits
from tinygrad_rnn.language.tokens import KINDS, Tokens, described

pytest.importorskip("tokenizers")
CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。\n"
HINDI = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।\n"
ENGLISH = "All human beings are born free and equal in dignity and rights.  They\tare\n\n  endowed.\n"
TEXTS = {"Chinese": CHINESE, "Hindi": HINDI, "English": ENGLISH, "mixed": f"a{CHINESE}é\U0001f600\u0301{HINDI}"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_tokens_are_the_text(kind: str, text: str) -> None:
    tokens = Tokens.learnt(kind, 400, [text * 3], characters="Ω")
    ids = tokens.encode(text)
    assert len(ids) < len(text.encode()) and tokens.decode(ids) == text and ids.dtype == np.int32
    assert tokens.lengths[ids].sum() == len(text)
    decode = tokens.decoder()
    assert "".join(decode(k) for k in ids.tolist()) == text
    values = np.random.default_rng(0).random(len(ids))
    spread = tokens.spread(text, ids, values)
    assert spread.shape == (len(text),) and spread.sum() == pytest.approx(values.sum(), rel=1e-12)
    again = described(json.loads(json.dumps(tokens.describe())))
    assert again == tokens and np.array_equal(again.encode(text), ids)
    assert Tokens.learnt(kind, 400, [text * 3], characters="Ω") == tokens  # the same each time
    unseen = "Ω" + ("ψ" if kind == "bpe" else "")
    assert tokens.known(unseen).all() and tokens.decode(tokens.encode(unseen)) == unseen


def test_what_words_cannot_write_is_said() -> None:
    tokens = Tokens.learnt("word", 400, [ENGLISH])
    assert tokens.known("beΩing").tolist() == [True, True, False, True, True, True]
    with pytest.raises(InputError, match="character 'Ω' at position 2 is in none of the"):
        tokens.encode("beΩing")
    assert [len(tokens.encode(text)) for text in (" beings", " beingsa")] == [1, 2]
    with pytest.raises(IndexError, match="an id outside"):
        tokens.decode([len(tokens)])


def test_what_is_no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="at least 257"):
        Tokens.learnt("bpe", 256, [ENGLISH])
    with pytest.raises(InputError, match="word or bpe, not 'letters'"):
        Tokens("letters", "{}")
    with pytest.raises(InputError, match="no tokenizer: "):
        Tokens("bpe", "{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install tokenizers$"):
        Tokens.learnt("bpe", 300, [ENGLISH])


@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_those_of_the_characters(kind: str) -> None:
    """The probability of a text is the product of those of its tokens, whoever counts."""
    tr.manual_seed(0)
    text = TEXTS["mixed"]
    tokens = Tokens.learnt(kind, 300, [text])
    model = CharModel(CharModelConfig(len(tokens), embedding=4, hidden=6)).eval()
    ids = tokens.encode(text)
    before = tokens.encode("\n")
    scores, _ = model(np.concatenate([before, ids])[:-1, None])
    p = tr.log_softmax(scores, axis=-1).numpy()[-len(ids) :, 0]
    bits = -p[np.arange(len(ids)), ids].sum() / np.log(2)
    pieces = list(text_bits(model, tokens, [("text", text)]))
    if len(before) == 1:
        assert pieces[0][1].sum() == pytest.approx(bits, rel=1e-5)
        found = bits_per_char(model, passage(before, ids, 1, warm_up=0), lengths=tokens.lengths)
        assert found == pytest.approx(bits / len(text), rel=1e-5)
    assert pieces[0][1].shape == (len(text),) and np.isfinite(pieces[0][1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_trains_uses_and_goes_on(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinygrad_rnn.cli.report.plot_loss", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text((CHINESE + HINDI + TEXT) * 2, encoding="utf-8")
    options = ["--text=text.txt", f"--tokens={kind}", "--vocabulary=300", "--hidden=8", "--seq-len=8", "--batch=4"]
    options += ["--plain", "--threads=1"]
    assert main(["train", *options, "--steps=12", "--out=whole"]) == 0
    said = capsys.readouterr().out
    assert f"different tokens ({kind}), of " in said and "MB of memory and " in said and "seconds for 12 steps" in said
    assert "tokens to learn from" in said and "bits/char" in said
    assert main(["train", *options, "--steps=7", "--out=parts", "--schedule=constant"]) == 0
    assert main(["train", *options, "--steps=12", "--out=constant", "--schedule=constant"]) == 0
    assert main(["train", "--resume=parts", "--steps=12"]) == 0
    one, other = (tr.language.load(run, "last").model.state_dict() for run in ("parts", "constant"))
    assert all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)
    capsys.readouterr()
    assert main(["generate", "whole", "--prompt", "सभी ", "--length", "30"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("सभी ") and len(written) == 4 + 30 + 1
    assert main(["evaluate", "whole", "--text", "text.txt"]) == 0
    assert f"{len((CHINESE + HINDI + TEXT) * 2):,} of text.txt" in capsys.readouterr().out
    assert main(["export", "whole"]) == 0
    file, run = tr.language.load("whole.safetensors"), tr.language.load("whole")
    assert file.vocabulary == run.vocabulary and file.generate(length=20) == run.generate(length=20)
    assert main(["train", "--init-from=whole", "--text=text.txt", "--steps=2", "--out=tuned", *options[4:]]) == 0
    assert tr.language.load("tuned").vocabulary == run.vocabulary
    capsys.readouterr()
    assert main(["train", "--init-from=whole", "--text=text.txt", "--tokens=char"]) == 2
    assert f"the network of whole has --tokens {kind}" in capsys.readouterr().err


def test_a_vocabulary_needs_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--vocabulary", "300"]) == 2
    assert "choose --tokens word or --tokens bpe, too" in capsys.readouterr().err


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    tokens: Any = Tokens.learnt("bpe", 300, [ENGLISH])
    model = CharModel(CharModelConfig(len(tokens) + 1, embedding=4, hidden=6))
    tr.language.save_model(tmp_path, "best", model, tokens, step=1)
    with pytest.raises(CheckpointError, match="tokens in the model, "):
        tr.language.load_model(tmp_path)
