"""What a training was asked for: by its arguments, by a file of options, or by the run that it goes on with.

Whatever it comes from, it is checked by the parser of the command, as what is typed is.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygrad_rnn.cli.options import listed
from tinygrad_rnn.cli.parser import CHANGEABLE, DEFAULTS, PROGRAM, RATES, parser
from tinygrad_rnn.data.text import unreadable
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.language.trained import Trained, load
from tinygrad_rnn.scalars import whole
from tinygrad_rnn.training import RunFolder

SIZES = {"word": 10_000, "bpe": 1000}
"""Tokens of each kind, where it is not said how many."""
BUDGET = ("steps", "epochs", "minutes")
PLACES = ("config", "resume", "replace")  # what a file of options cannot say


def settings_of(args: argparse.Namespace) -> argparse.Namespace:
    """A value for every option of `DEFAULTS`. Besides, of a run that is resumed, `begun`, what its `config.json` says,
    and of one that begins with another one's model, `source`, that model.
    """
    given = {key: value for key, value in vars(args).items() if key in DEFAULTS}
    if "config" in given:
        given = _over(options_of(given.pop("config")), given)
    _check(given)
    if given.get("vocabulary") and given.get("tokens", "char") == "char" and "init_from" not in given:
        raise InputError("--vocabulary is the number of words or byte pairs: choose --tokens word or --tokens bpe, too")
    if "resume" in given:
        return _resumed(given)
    settings = argparse.Namespace(
        **{**DEFAULTS, **given}, begun=None, source=None, another_lr=False, measured=None, sampled=None
    )
    settings.steps = settings.steps or (None if settings.minutes or settings.epochs else 3000)
    if settings.init_from:
        _begin_with(settings, given)
    settings.lr = settings.lr or RATES[settings.model]
    return settings


def _begin_with(settings: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Load the model to begin with: the network is its own. Raises InputError for one that was asked for otherwise."""
    settings.source = load(settings.init_from)
    config = settings.source.model.config
    sizes = {"model": config.cell, **{key: getattr(config, key) for key in ("hidden", "layers", "embedding")}}
    coding = settings.source.vocabulary
    sizes |= {"tokens": coding.kind} | ({} if coding.kind == "char" else {"vocabulary": len(coding)})
    for key, value in sizes.items():
        if given.get(key, value) != value:
            other = f"the network of {settings.init_from} has {_flag(key)} {value}"
            raise InputError(f"{_flag(key)} {given[key]}: {other}, which a training that begins with it keeps")
    vars(settings).update({"dropout": config.dropout, **sizes, **given})


def _resumed(given: dict[str, Any]) -> argparse.Namespace:
    """The settings that a run was started with, and those given now in their place."""
    folder = given.pop("resume")
    config = RunFolder(folder).config()
    if fixed := [_flag(key) for key in given if key not in CHANGEABLE]:
        raise InputError(f"{listed(fixed)} cannot be changed when a run is resumed")
    try:
        tokens = {key: config["text"].get(key, DEFAULTS[key]) for key in ("tokens", "vocabulary", "split")}
        tokens["held_out"] = config["text"].get("other_files")
        asked = {**config["text"], **config["model"], **config["training"], "model": config["model"]["cell"], **tokens}
        asked = {key: value for key, value in asked.items() if key in DEFAULTS and value is not None}
        asked |= {"text": config["text"]["files"]} if config["text"]["files"] else {}
        asked = _parsed(asked)  # what was edited by hand is checked as what is typed
        str(config["text"]["sha256"]), list(config["baselines"])
        # As before, whatever the budget is now: figures of another part of the text could not be compared.
        measured = whole("measured", config["text"].get("measured", 250_000), 1)
        sampled = whole("sampled", config["text"].get("sampled", measured), 1)
    except (KeyError, TypeError, AttributeError, InputError) as error:
        why = f"has no {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise InputError(f"{folder}: its config.json {why}") from None
    own = {"resume": folder, "begun": config, "source": _source(folder, config), "another_lr": "lr" in given}
    own |= {"measured": measured, "sampled": sampled}
    return argparse.Namespace(**{**DEFAULTS, **_over(asked, given), **own})


def _source(folder: str, config: Mapping[str, Any]) -> Trained | None:
    """The model that a run has begun with, where it has not yet saved one of its own."""
    told, checkpoints = config.get("init_from"), RunFolder(folder).checkpoints
    if not told or any((checkpoints / f"{name}.json").exists() for name in ("last", "previous")):
        return None
    source = load(told["run"])
    known = getattr(source.vocabulary, "characters", "")
    if source.step != told["step"] or known != told["characters"]:
        raise InputError(f"{told['run']}: is another model now than {folder} was begun with")
    return source


def _over(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options `before`, with those `given` in their place: a budget replaces a budget, however each is told."""
    replaced = {*given, *(BUDGET if given.keys() & set(BUDGET) else ())}
    replaced |= {"plain", "numba"} if given.get("plain") or "numba" in given else set()
    return {**{key: value for key, value in before.items() if key not in replaced}, **given}


def _check(given: Mapping[str, Any]) -> None:
    """Raise InputError for options that exclude each other."""
    for pair in (("plain", "numba"), ("steps", "epochs")):
        if all(given.get(key) for key in pair):
            raise InputError(f"{_flag(pair[0])} and {_flag(pair[1])} exclude each other: choose one")
    if given.get("held_out") and given.get("split", "end") != "end":
        raise InputError("--split and --held-out exclude each other: choose one")


# --- files of options -----------------------------------------------------------------------------------------


def options_of(path: str) -> dict[str, Any]:
    """What a file of options says, in TOML, by the names of the options, such as `hidden = 512` or `seq-len = 64`.

    Raises InputError, in one line, for a file that cannot be read, is no TOML, or has an entry that is no option or
    out of its range.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise InputError(f"{path}: no TOML: {error}") from None
    known = [key for key in DEFAULTS if key not in PLACES]
    options = {}
    for name, value in content.items():
        key = name.replace("-", "_")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"see {PROGRAM} train --help"
            raise InputError(f"{path}: {name!r} is no option that can stand here: {hint}")
        if not _fits(key, value):
            raise InputError(f"{path}: {name} cannot be {json.dumps(value, default=str)}")
        options[key] = value
    try:
        found = _parsed(options)
        _check(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def _fits(key: str, value: Any) -> bool:
    """Whether an option can have a value of this kind; the parser looks at the value itself."""
    if key in ("text", "held_out"):
        return isinstance(value, str) or (
            isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
        )
    if isinstance(DEFAULTS[key], bool) or key == "numba":
        return isinstance(value, bool)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def as_toml(settings: argparse.Namespace) -> str:
    """The options of a training as a file of options, "" where a file's name is bytes that are no text.

    >>> print(as_toml(argparse.Namespace(text=["a.txt"], hidden=64, lr=1e-3, plain=False, minutes=None)), end="")
    text = ["a.txt"]
    hidden = 64
    lr = 0.001
    plain = false
    """
    lines = []
    for key in DEFAULTS:
        value = getattr(settings, key, None)
        if value is not None and key not in (*PLACES, "out", "epochs"):
            lines.append(f"{key.replace('_', '-')} = {_toml(value)}\n")
    text = "".join(lines)
    return text if text == text.encode("utf-8", "replace").decode() else ""


def _toml(value: Any) -> str:
    """A value as TOML has it: strings are those of JSON, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# --- options as they are typed --------------------------------------------------------------------------------


def _parsed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options through the parser. Raises InputError as it does for what is typed."""
    typed = [part for key, value in options.items() for part in _typed(key, value)]
    args = parser().parse_args(["train", *typed])
    return {key: value for key, value in vars(args).items() if key in DEFAULTS}


def _typed(key: str, value: Any) -> list[str]:
    """An option as it is typed."""
    if isinstance(value, bool):
        if value:
            return [_flag(key)]
        return [_flag(f"no_{key}")] if key == "numba" else []
    if isinstance(value, list):
        return [_flag(key), *(re.sub("^-(?=.)", "./-", item) for item in value)]
    return [f"{_flag(key)}={value}"]


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
