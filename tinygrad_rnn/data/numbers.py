"""Numbers as people write them: with a decimal comma, thousands apart, a currency or another unit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.errors import InputError

# What stands for a value that is missing: in files of R and pandas, of spreadsheets and statistical offices, and of C
# on Windows.
_MISSING = {"", "-", "--", ".", "..", ":", "?", "na", "n/a", "<na>", "nan", "-nan", "+nan", "nat", "null", "none"}
_MISSING |= {"#na", "#n/a", "#n/a n/a", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "nan(ind)", "-nan(ind)"}

_LONGEST = 100  # characters of a number: what follows takes the third power of that at worst
_SIGN, _UNIT, _POWER = r"([-+−–]?)", r"([^\d()+−–-]*?)", r"(?:[eE][+-]?[0-9]+)?"
_DIGITS = rf"(?:(?<![^\W\d_])[.,])?[0-9](?:[0-9.,'’\s]*[0-9])?[.,]?{_POWER}"  # a mark after letters: Rs.500
_WRITTEN = re.compile(rf"(\(?)\s*{_SIGN}\s*{_UNIT}\s*{_SIGN}\s*({_DIGITS})((?<=[0-9])[-−])?\s*{_UNIT}\s*(\)?)")
_READINGS = {  # by the decimal mark: plain, and with thousands apart, all by the same mark
    ".": re.compile(rf"[0-9]*(?:\.[0-9]*)?{_POWER}|[1-9][0-9]{{0,2}}([,'’\s])[0-9]{{3}}(?:\1[0-9]{{3}})*(?:\.[0-9]*)?"),
    ",": re.compile(rf"[0-9]*(?:,[0-9]*)?{_POWER}|[1-9][0-9]{{0,2}}([.'’\s])[0-9]{{3}}(?:\1[0-9]{{3}})*(?:,[0-9]*)?"),
}


def is_number(field: str) -> bool:
    """Whether a field is a finite number as programs write it. (Python's own notation, 1_000, is none.)"""
    try:
        return "_" not in field and math.isfinite(float(field))
    except ValueError:
        return False


def is_missing(field: str) -> bool:
    """Whether a field says that there is no value."""
    return field.lower() in _MISSING


def is_written(field: str) -> bool:
    """Whether a field looks like a number as people write it."""
    return len(field) <= _LONGEST and bool(_WRITTEN.fullmatch(field))


def shown(field: str) -> str:
    """A field in a message: of a long one the beginning."""
    return repr(field) if len(field) < 80 else f"{field[:60]!r} and {len(field) - 60:,} characters more"


class Column(NamedTuple):
    """`values`, float64 of shape (N,), NaN where one is missing; their `decimal` mark; their `unit`, "" for none."""

    values: npt.NDArray[np.float64]
    decimal: str
    unit: str


def read_numbers(fields: Sequence[str], where: Callable[[int], str], decimal: str = "", likely: str = "") -> Column:
    """The numbers of a column, as people write them.

    Thousands may be apart by a comma or point (what the decimal mark is not), a blank or an apostrophe, all by the
    same one and in threes. Before or behind the digits may stand a unit, the same in all rows: a currency, a per cent
    sign. Parentheses and a minus on any side make a number negative.

    `decimal` is the decimal mark, "." or ",". Without it, it is the one with which every field is a number; where both
    give one, and not the same, it is the `likely` one.

    Raises InputError, which begins with `where(k)`, for field k that is no number or has another unit than those before
    it, and where both marks are possible and neither is likely.

        >>> read_numbers(["1.234,50 €", "−3 €", "n/a"], "row {}".format)
        Column(values=array([1234.5,   -3. ,     nan]), decimal=',', unit='€')
        >>> read_numbers(["1.234"], "row {}".format)
        Traceback (most recent call last):
        ...
        tinygrad_rnn.errors.InputError: row 0 is '1.234', which may be 1.234 or 1234: choose the decimal mark
    """
    digits: list[str] = []  # "" for a missing value
    signs = np.ones(len(fields))
    unit: tuple[str, str] | None = None
    for k, field in enumerate(fields):
        if is_missing(field):
            digits.append("")
            continue
        found = _WRITTEN.fullmatch(field) if len(field) <= _LONGEST else None
        negative = [found[i] for i in (1, 2, 4, 6) if found[i]] if found else []
        if not found or len(negative) > 1 or bool(found[1]) != bool(found[8]):
            raise InputError(f"{where(k)} is {shown(field)}, not a number")
        here = found[3].strip(), found[7].strip()
        if here != (unit := here if unit is None else unit):
            others = f"in {_named(unit)}" if any(unit) else "without a unit"
            raise InputError(f"{where(k)} is {shown(field)}, not a number {others} as those before it are")
        digits.append(found[5])
        signs[k] = -1 if negative and negative[0] != "+" else 1
    values, mark = _decided(digits, fields, where, decimal, likely)
    return Column(signs * values, mark, _named(unit or ("", "")))


def _decided(
    digits: Sequence[str], fields: Sequence[str], where: Callable[[int], str], decimal: str, likely: str
) -> tuple[npt.NDArray[np.float64], str]:
    """The values of digits with marks among them, and the decimal mark."""
    readings = {mark: [_value(x, mark) for x in digits] for mark in (decimal or ".,")}
    whole = [mark for mark, values in readings.items() if None not in values]
    if not whole:  # where it fails by the mark that most of them have
        mark = min(readings, key=lambda mark: readings[mark].count(None))
        k = readings[mark].index(None)
        if len({values.index(None) for values in readings.values()}) > 1 or decimal:
            name = "point" if mark == "." else "comma"
            advice = "choose another decimal mark" if decimal else ""
            raise InputError(f"{where(k)} is {shown(fields[k])}, not a number with a decimal {name}", hint=advice)
        raise InputError(f"{where(k)} is {shown(fields[k])}, not a number")
    arrays = {mark: np.array(readings[mark], np.float64) for mark in whole}
    if len(whole) == 2 and likely not in whole:
        differ = np.flatnonzero(~((arrays["."] == arrays[","]) | np.isnan(arrays["."])))
        if len(differ):
            k = int(differ[0])
            either = f"{arrays['.'][k]:.15g} or {arrays[','][k]:.15g}"
            raise InputError(f"{where(k)} is {shown(fields[k])}, which may be {either}", hint="choose the decimal mark")
    mark = likely if likely in whole else whole[0]
    return arrays[mark], mark


def _value(digits: str, mark: str) -> float | None:
    """What digits are worth by a decimal mark; None if nothing, NaN if there are none."""
    if not digits:
        return math.nan
    found = _READINGS[mark].fullmatch(digits)
    if not found:
        return None
    value = float(digits.replace(found[1] or " ", "").replace(mark, "."))
    return value if math.isfinite(value) else None


def _named(unit: tuple[str, str]) -> str:
    return " ".join(filter(None, unit))
