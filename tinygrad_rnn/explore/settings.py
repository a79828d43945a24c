"""What can be chosen on the page, and what is said of a choice that is not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tinygrad_rnn.errors import InputError

LARGEST = {"steps": 64, "hidden": 16, "scale": 3.0, "k2": 64, "seed": 9999}
CHOICES = {"cell": ("rnn", "lstm", "gru"), "nonlinearity": ("tanh", "relu", "sigmoid"), "loss": ("last", "every")}


@dataclass(frozen=True)
class Settings:
    """One choice of everything. `k2` counts as all steps where it is at least `steps`, and `nonlinearity` for the cell
    "rnn" alone.

    >>> Settings(cell="gru", steps=12).query()
    'cell=gru&nonlinearity=tanh&steps=12&hidden=4&scale=1.0&loss=last&k2=64&seed=0'
    >>> settings_of("steps=12&cell=gru") == Settings(cell="gru", steps=12)
    True
    """

    cell: str = "rnn"
    nonlinearity: str = "tanh"
    steps: int = 8
    hidden: int = 4
    scale: float = 1.0
    loss: str = "last"
    k2: int = 64
    seed: int = 0

    def query(self) -> str:
        """The settings as the query of an address."""
        return urlencode({field.name: getattr(self, field.name) for field in fields(self)})


def _one_of(name: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in CHOICES[name]:
            *most, last = CHOICES[name]
            raise InputError(f"{name} must be {', '.join(most)} or {last}, not {text!r:.60}")
        return text

    return read


def _whole(name: str, low: int) -> Callable[[str], int]:
    high = LARGEST[name]

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 6 and low <= int(text) <= high):
            raise InputError(f"{name} must be a whole number from {low} to {high}, not {text!r:.60}")
        return int(text)

    return read


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value <= LARGEST["scale"] and text.isascii()):  # NaN is neither
        raise InputError(f"scale must be a number from 0 to {LARGEST['scale']:g}, not {text!r:.60}")
    return value + 0.0  # not -0.0


READ: Mapping[str, Callable[[str], Any]] = {
    "cell": _one_of("cell"),
    "nonlinearity": _one_of("nonlinearity"),
    "steps": _whole("steps", 1),
    "hidden": _whole("hidden", 1),
    "scale": _scale,
    "loss": _one_of("loss"),
    "k2": _whole("k2", 1),
    "seed": _whole("seed", 0),
}


def settings_of(query: str) -> Settings:
    """The settings that a query such as "cell=gru&steps=12" asks for; what it leaves out is as in `Settings()`.

    Raises InputError, a sentence, for a name that is unknown or given twice, and for a value that cannot be chosen.

    >>> settings_of("steps=65")
    Traceback (most recent call last):
    ...
    tinygrad_rnn.errors.InputError: steps must be a whole number from 1 to 64, not '65'
    """
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=len(READ))
    except ValueError:
        raise InputError(f"the settings must be name=value, joined by &, each once, not {query!r:.60}") from None
    for name, text in pairs:
        if name not in READ:
            raise InputError(f"there is no setting {name!r:.60}: the settings are {', '.join(READ)}")
        if name in found:
            raise InputError(f"{name} must be given once, not twice")
        found[name] = READ[name](text)
    return Settings(**found)
