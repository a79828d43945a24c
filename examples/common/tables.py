"""Options that say how a table of one's own is read."""

from __future__ import annotations

import argparse

from tinygrad_rnn.errors import InputError

DELIMITERS = {",": ",", ";": ";", "|": "|", "tab": "\t", "space": " "}


def add_delimiter(group: argparse._ArgumentGroup) -> None:
    """The option for what stands between fields."""
    found = "what stands between fields (default: what the header is divided by)"
    group.add_argument("--delimiter", choices=DELIMITERS, help=found)


def delimiter(options: argparse.Namespace) -> str:
    """What the option says, "" for nothing."""
    return DELIMITERS[options.delimiter] if options.delimiter else ""


def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """COLUMN=VALUE as columns and values.

    >>> pairs("--only", ["shop=Berlin", "x=a=b"])
    {'shop': 'Berlin', 'x': 'a=b'}
    """
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputError(f"argument {option}: must be COLUMN=VALUE, not {text!r}")
        found[name.strip()] = value.strip()
    return found
