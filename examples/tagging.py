"""Every character of a program, tagged: keyword, name, string, comment, number or operator.

As many tags go out as characters come in. The programs are Python's own standard library, and `tokenize` says what is
right; the modules that are tested with were never seen. A forward LSTM must decide at each character with what came
before it. A bidirectional one has also read what follows, in a second LSTM that runs from the end to the beginning.

Where does that help? Whether `i` begins the keyword `if` or the name `index`, only the future tells. Inside a string
it hardly matters: the quote that opened it is in the past.
"""

from __future__ import annotations

import io
import keyword
import sys
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import tinygrad_rnn as tr
from examples.common.baselines import most_frequent
from examples.common.experiment import Experiment, experiment
from examples.common.plots import BLUE, CELLS, GREEN, GREY, INK, ORANGE, PURPLE, draw_curves, draw_text, tones
from examples.common.use import Answer, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.data import WordVocabulary, read_text
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.training import accuracy

TAGS = ("space", "keyword", "name", "string", "comment", "number", "operator")
COLOURS = ("#ffffff", BLUE, INK, GREEN, GREY, ORANGE, PURPLE)
MODULES = """argparse base64 bisect calendar cmd code codeop colorsys configparser contextlib copy csv dataclasses
difflib dis doctest filecmp fileinput fnmatch fractions ftplib functools gettext glob graphlib gzip heapq hmac inspect
ipaddress linecache mailbox numbers optparse pickle plistlib pprint queue random sched selectors shelve shlex shutil
statistics subprocess tarfile tempfile textwrap threading timeit trace uuid wave"""
LENGTH = 128  # of the pieces that are trained on
WINDOW, MARGIN = 512, 96  # of those that are measured, and how far from an end a character counts: more than a line


class Tagger(nn.Module):
    """Embedding, an LSTM in one direction or in both, and a linear layer at each step."""

    def __init__(self, vocabulary: int, hidden: int, bidirectional: bool) -> None:
        self.embedding = nn.Embedding(vocabulary, 24)
        self.recurrent = nn.LSTM(24, hidden, bidirectional=bidirectional)
        self.head = nn.Linear(hidden * (1 + bidirectional), len(TAGS))

    def forward(self, ids: np.ndarray) -> tr.Tensor:
        """Characters (T, B) give the scores of their tags (T, B, 7)."""
        return self.head(self.recurrent(self.embedding(ids))[0])


def read_source(path: Path) -> str:
    """The text of a program, in the encoding that it declares."""
    with path.open("rb") as file:
        try:
            encoding, _ = tokenize.detect_encoding(file.readline)
        except SyntaxError as error:  # neither UTF-8 nor declared, or unknown
            raise InputError(f"{path}: {error.msg}") from None
    try:
        return read_text(path, encoding)
    except InputError as error:  # an encoding is chosen in the file itself
        if not error.hint:
            raise
        raise InputError(str(error).replace(error.hint, "declare another encoding, # coding: latin-1")) from None


def tags_of(text: str, name: str) -> np.ndarray:
    """The number of the tag of each character, (len(text),), as `tokenize` says."""
    starts = np.cumsum([0, *map(len, io.StringIO(text))])
    tags, inside, begun = np.zeros(len(text), np.int64), 0, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = tokenize.tok_name[token.type]
            first, last = (starts[min(row - 1, len(starts) - 1)] + column for row, column in (token.start, token.end))
            if kind.endswith("STRING_START"):  # since Python 3.12 an f-string is many tokens: here it is one string
                begun, inside = (begun if inside else first), inside + 1
            elif kind.endswith("STRING_END"):
                inside -= 1
                first = begun
            if inside:
                continue
            tag = {"OP": "operator"}.get(kind, "string" if kind.endswith("STRING_END") else kind.lower())
            if keyword.iskeyword(token.string):
                tag = "keyword"
            if tag in TAGS:
                tags[first:last] = TAGS.index(tag)
    except (tokenize.TokenError, SyntaxError) as error:
        line = error.args[1][0] if isinstance(error, tokenize.TokenError) else error.lineno
        raise InputError(f"{name}, line {line}: not Python: {error.args[0]}") from None
    return tags


def programs(run: Experiment) -> list[list[tuple[str, np.ndarray]]]:
    """Texts and their tags: to train on, to choose by, to test with."""
    if run.data:
        paths = sorted(run.data.rglob("*.py")) if run.data.is_dir() else [run.data]
        paths = [path for path in paths if path.is_file() and path.stat().st_size]  # an __init__.py may be empty
        if len(paths) < 5:
            raise InputError(f"{run.data}: {len(paths)} Python files (*.py): a folder with at least 5 is needed")
    else:
        paths = [Path(str(find_spec(name).origin)) for name in MODULES.split()]
    found = []
    for path in paths:
        text = read_source(path)
        found.append((text, tags_of(text, str(path))))
    parts = [[p for k, p in enumerate(found) if k % 5 in which] for which in ((0, 1, 3), (4,), (2,))]
    what = run.data or f"the standard library of Python {sys.version_info.major}.{sys.version_info.minor}, tokenize"
    sizes = [sum(len(text) for text, _ in part) for part in parts]
    if min(sizes) < 2 * LENGTH:
        raise InputError(f"{what}: parts of {sizes} characters, and each must have {2 * LENGTH}")
    run.source(f"{what}: {sizes[0]:,} characters to train on, {sizes[1]:,} to choose by, {sizes[2]:,} to test with")
    return parts


def tagged(model: nn.Module, ids: np.ndarray) -> np.ndarray:
    """The tags (N,) that a model gives to a text, each decided with MARGIN characters or more on both sides."""
    step = WINDOW - 2 * MARGIN
    padded = np.pad(ids, (MARGIN, MARGIN + -len(ids) % step))
    x = padded[np.arange(WINDOW)[:, None] + np.arange(0, len(padded) - 2 * MARGIN, step)]  # the middles are the text
    with tr.no_grad():
        scores = [model(x[:, k : k + 64]).numpy()[MARGIN:-MARGIN] for k in range(0, x.shape[1], 64)]
    return np.concatenate(scores, axis=1).argmax(-1).T.reshape(-1)[: len(ids)]


def main(run: Experiment) -> None:
    parts = programs(run)
    limits = None, 20_000 if run.quick else 60_000, 40_000 if run.quick else None  # the rest takes long to measure
    texts = ["".join(text for text, _ in part)[:n] for part, n in zip(parts, limits, strict=True)]
    tags = [np.concatenate([labels for _, labels in part])[:n] for part, n in zip(parts, limits, strict=True)]
    vocabulary = WordVocabulary.of(texts[0], min_count=5)
    ids = [vocabulary.encode(text) for text in texts]
    shown = [np.array([not c.isspace() for c in text]) for text in texts]  # what is measured: what can be seen
    if not all(seen.any() for seen in shown):
        raise InputError(f"{run.data}: the files to choose by, or to test with, are nothing but blanks")

    guesses = {  # the baselines: the tag that is most frequent
        "character": most_frequent(ids[0], tags[0], ids[2], 0, 0),
        "+ 5 before": most_frequent(ids[0], tags[0], ids[2], 5, 0),
        "+ 3 around": most_frequent(ids[0], tags[0], ids[2], 3, 3),
    }
    for name, hidden, both in (("forward", 96, False), ("both ways", 64, True)):
        tr.manual_seed(run.seed)
        sizes = {"vocabulary": len(vocabulary), "hidden": hidden, "bidirectional": both}
        model = Tagger(**sizes).to(run.device)

        def batch(step: int) -> tuple[tuple, int]:
            starts = np.random.default_rng((run.seed, step)).integers(len(ids[0]) - LENGTH, size=8)
            at = starts + np.arange(LENGTH)[:, None]
            return (ids[0][at], tags[0][at]), at.size

        def loss(ids: np.ndarray, tags: np.ndarray, model=model) -> tr.Tensor:
            return F.cross_entropy(model(ids), tags)

        def evaluate(model=model) -> dict[str, float]:
            return {"error": 1 - accuracy(tagged(model, ids[1]), tags[1], shown[1])}

        use = {"sizes": sizes, "characters": vocabulary.tokens}
        run.fit(name, model, batch, loss, evaluate, lr=2e-2, evaluations=5, unit="chars", use=use)
        guesses[name] = tagged(model, ids[2])

    right = {name: guess == tags[2] for name, guess in guesses.items()}
    rows = []
    for name, guess in guesses.items():
        each = [accuracy(guess, tags[2], shown[2] & (tags[2] == k)) for k in range(1, len(TAGS))]
        each.append(accuracy(guess, tags[2], shown[2]))
        rows.append([name, *("–" if np.isnan(a) else f"{100 * a:.2f}" for a in each)])
    run.table("Characters tagged right, in %", ["", *TAGS[1:], "all"], rows, best=4)
    *baselines, forward, both = (float(row[-1]) for row in rows)
    first = (first_of_word(tags[2]) == 0) & (tags[2] == TAGS.index("keyword"))
    guessed, known = (100 * accuracy(guesses[name], tags[2], first) for name in ("forward", "both ways"))
    if first.any():
        run.note(f"The first letter of a keyword: {guessed:.1f} % right forward, {known:.1f} % both ways.")
    each = zip(TAGS[1:], rows[-2][1:], rows[-1][1:], strict=False)
    worse = [tag for tag, a, b in each if a != "–" and float(a) > float(b)]
    run.note(f"Where forward alone is better: {', '.join(worse) or 'nowhere'}.")
    run.verdict(
        "Characters tagged right, in %", {row[0]: float(row[-1]) for row in rows}, [row[0] for row in rows[:-2]]
    )
    ahead = forward - max(baselines)
    run.expect("both ways: accuracy in %", both, at_least=80 if run.quick else 96)
    run.expect("forward, ahead of the best baseline by", ahead, at_least=10 if run.quick else 20)
    if not run.quick:  # two networks that have only begun to learn may stand either way
        run.expect("both ways, ahead of forward by", both - forward, at_least=0.5)
        run.expect("the same at the first letter of a keyword", known - guessed, at_least=3)
    draw_where(run, tags[2], right)
    draw_source(run, texts[2], guesses, {name: ~ok for name, ok in right.items()})
    run.try_with("--text", "def f(x): return x + 1  # more")


def first_of_word(tags: np.ndarray) -> np.ndarray:
    """How many characters of the same tag stand directly before each one: 0 where a word begins."""
    at = np.arange(len(tags))
    return at - np.maximum.accumulate(np.where(np.diff(tags, prepend=-1) != 0, at, 0))


def draw_where(run: Experiment, tags: np.ndarray, right: dict[str, np.ndarray]) -> None:
    """Accuracy at the first, second, ... character of keywords, names and strings."""
    place = first_of_word(tags)
    caption = "Tagged right at the first, second, ... character of a word, forward and both ways."
    if run.data is None:
        caption = "Tagged right at the first, second, ... character of a word: at first, only the future can tell."
    with run.picture("where.png", caption, (9, 3.6)) as figure:
        for k, tag in enumerate(("keyword", "name", "string")):
            axes = figure.add_subplot(1, 3, k + 1, title=tag, xticks=range(1, 7), sharey=(figure.axes or [None])[0])
            here = [(tags == TAGS.index(tag)) & (place == n) for n in range(6)]
            share = lambda ok, here=here: [100 * ok[at].mean() if at.any() else np.nan for at in here]
            curves = {name: (range(1, 7), share(right[name])) for name in ("forward", "both ways")}
            draw_curves(axes, curves, tones(CELLS["LSTM"], 2), marker="o", clip_on=False)
            axes.grid(axis="y", color="#e5e5e5")
        figure.axes[0].set(ylabel="tagged right, in %", ylim=(None, 100))
        figure.axes[0].legend(loc="lower right", frameon=False)
        figure.supxlabel("character of the keyword, name or string", fontsize=10)


def draw_source(run: Experiment, text: str, guesses: dict[str, np.ndarray], wrong: dict[str, np.ndarray]) -> None:
    """A piece of the test, coloured by what the networks say."""
    lines, height, width = text.split("\n"), 26, 62
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)])
    tops = range(max(1, len(lines) - height))
    fitting = [top for top in tops if max(map(len, lines[top : top + height])) <= width and lines[top]]
    pieces = [slice(starts[top], starts[min(top + height, len(lines))]) for top in fitting or tops[:1]]
    at = np.arange(len(text))[max(pieces, key=lambda piece: np.sum(wrong["forward"][piece]))]
    column = at - starts[np.searchsorted(starts, at, side="right") - 1]
    at = at[(column < width) | [text[i] == "\n" for i in at]]  # of a longer line the beginning
    shown = "".join(text[i] for i in at)
    caption = "A piece of a program that was never seen, coloured as tagged: where the forward LSTM errs most (boxes)."
    with run.picture("source.png", caption, (10, 5.6)) as figure:
        for k, name in enumerate(("forward", "both ways")):
            axes = figure.add_subplot(1, 2, k + 1, xlim=(0, width), ylim=(height + 1, -1))
            mistakes = [bad and not c.isspace() for c, bad in zip(shown, wrong[name][at], strict=True)]
            draw_text(axes, shown, [COLOURS[tag] for tag in guesses[name][at]], mistakes)
            axes.set_title(f"{name}: {sum(mistakes)} characters wrong", fontsize=11, loc="left")
        for k, tag in enumerate(TAGS[1:], 1):
            figure.text(0.02 + 0.1 * k, 0.01, tag, color=COLOURS[k], fontsize=10, weight="bold")


def answer(used: Used) -> Iterator[Answer]:
    """The tags of each program: pieces of one tag each, where they stand, and how many `tokenize` would tag so, too."""
    kept = used.models[0]
    model, vocabulary = kept.load(Tagger), WordVocabulary(tuple(kept["characters"]))
    given = [("", text) for text in used.options.text or ()] + [(str(f), read_source(f)) for f in used.files()]
    for place, text in given:
        if not text.strip():
            raise InputError(f"{place or '--text'}: there is nothing in it but blanks")
        blank = "\n" * MARGIN  # where a text begins and ends, as in a file between others
        tags = tagged(model, vocabulary.encode(blank + text + blank))[MARGIN:-MARGIN]
        pieces = list(pieces_of(text, tags))
        try:
            right = accuracy(tags, tags_of(text, place or "--text"), np.array([not c.isspace() for c in text]))
        except InputError:  # a piece of a program may be none
            right = None
        said = [f"{row}:{column}\t{tag}\t{piece}" for row, column, tag, piece in pieces]
        if place:
            known = "no Python, says tokenize" if right is None else f"{right:.1%} of the characters as tokenize says"
            said.insert(0, f"{place}: {known}")
        names = ("line", "column", "tag", "text")
        content = {"text": text} if not place else {"file": place}
        found = [dict(zip(names, piece, strict=True)) for piece in pieces]
        yield Answer("\n".join(said), {**content, "pieces": found, "as_tokenize": right})


def pieces_of(text: str, tags: np.ndarray) -> Iterator[tuple[int, int, str, str]]:
    """Line, column, tag and text of each piece of one line that has one tag, but for blanks."""
    cut = np.array([c.isspace() for c in text])
    named = np.where(cut & (tags != TAGS.index("string")) & (tags != TAGS.index("comment")), 0, tags)
    row = column = 1
    start = 0
    for k in range(1, len(text) + 1):
        if k == len(text) or named[k] != named[start] or text[k] == "\n" or text[k - 1] == "\n":
            piece = text[start:k]
            if named[start] and piece.strip():
                yield row, column, TAGS[named[start]], piece
            column += k - start
            if piece.endswith("\n"):
                row, column = row + 1, 1
            start = k


USE = Use(answer, text="a piece of Python", files="files of Python")

if __name__ == "__main__":
    sys.exit(experiment(main, steps=4000, quick=250, data="a folder of your own Python files", use=USE))
