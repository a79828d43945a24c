"""The page as one file, which works where no Python is: with the answers to some settings inside, and no others."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from tinygrad_rnn.explore.answer import answer
from tinygrad_rnn.explore.settings import Settings

STEPS, HIDDEN, SCALES, SEEDS = (4, 8, 16, 32), (4,), (0.6, 0.8, 1.0, 1.5, 2.0), (0, 1)
NAMES = ("cell", "nonlinearity", "loss", "steps", "hidden", "scale", "seed")
CELLS = (("rnn", "tanh"), ("rnn", "relu"), ("rnn", "sigmoid"), ("lstm", "tanh"), ("gru", "tanh"))
NOTE = (
    "This is the page as one file: it holds the answers to {count} settings, computed beforehand, and its controls "
    "offer those. Where tinygrad_rnn is installed, tinygrad-rnn explore opens it with all settings and a training run."
)


def inside() -> Iterator[Settings]:
    """The settings whose answers the file holds."""
    for (cell, nonlinearity), loss, T, H, scale, seed in itertools.product(
        CELLS, ("last", "every"), STEPS, HIDDEN, SCALES, SEEDS
    ):
        yield Settings(cell, nonlinearity, T, H, scale, loss, seed=seed)


def one_file(settings: list[Settings] | None = None) -> str:
    """The page as HTML that needs nothing else: scripts, style and answers are in it, and named by their hashes in the
    policy that it carries.

    >>> page = one_file([Settings(steps=2)])
    >>> "src=" in page, "Content-Security-Policy" in page
    (False, True)
    """
    chosen = list(inside()) if settings is None else settings
    page = files("tinygrad_rnn.explore").joinpath("page")
    text = page.joinpath("index.html").read_text(encoding="utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}

    def put(match: re.Match[str]) -> str:
        name = match["name"]
        kind = "style" if name.endswith(".css") else "script"
        content = page.joinpath(name).read_text(encoding="utf-8")
        hashes[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")
        return f"<{kind}>{content}</{kind}>"

    # In the server's page scripts wait until the page has been read; here they stand at its end.
    text = re.sub(r'<link rel="stylesheet" href="(?P<name>[\w.]+)">', put, text)
    tag = re.compile(r'<script src="(?P<name>[\w.]+)" defer></script>\n')
    scripts = "\n".join(put(match) for match in tag.finditer(text))
    text = tag.sub("", text).replace("</body>", f"{_stored(chosen)}\n{scripts}\n</body>")
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{meta}')


def _stored(settings: list[Settings]) -> str:
    """The answers as an element of the page, compressed. A graph that many have is in it once."""
    graphs: dict[str, int] = {}
    answers: dict[str, Any] = {}
    for one in settings:
        found = answer(one)
        found["graph"] = graphs.setdefault(found["graph"], len(graphs))
        answers[" ".join(_value(one, name) for name in NAMES)] = found
    values = {name: list(dict.fromkeys(_value(one, name) for one in settings)) for name in NAMES}
    box = {
        "names": NAMES,
        "values": values,
        "answers": answers,
        "graphs": list(graphs),
        "note": NOTE.format(count=len(answers)),
    }
    packed = gzip.compress(json.dumps(box, separators=(",", ":"), allow_nan=False).encode(), 9, mtime=0)
    return f'<script type="text/plain" id="stored">{base64.b64encode(packed).decode()}</script>'


def _value(settings: Settings, name: str) -> str:
    """A setting as the controls of the page write it."""
    value = getattr(settings, name)
    return f"{value:g}" if isinstance(value, float) else str(value)
