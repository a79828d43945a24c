"""Series in time: one column of a table, in the order of its dates, equally far apart, and no gap closed in silence.

What a date is, and which one comes a month or a working day later, pandas says (extra `data`); a table without dates
is read without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.numbers import is_missing, is_number, read_numbers, shown
from tinygrad_rnn.data.rows import Name, Rows, as_names, find_columns, read_table
from tinygrad_rnn.data.text import read_text
from tinygrad_rnn.errors import InputError

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Gaps = Literal["refuse", "linear", "previous", "zero", "close"]
GAPS = ("refuse", "linear", "previous", "zero", "close")

_DAYS = [
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y"),
    *("%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y"),
    *("%Y %m %d", "%Y %b %d", "%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%m-%Y", "%b %Y", "%B %Y", "%b-%y", "%b-%Y"),
    *("%Y-%b", "%Y %m", "%Y %b", "%Y %B", "%YM%m", "%G-W%V-%u"),
]
_TIMES = ["%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p"]
_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}  # of a date that is nothing but digits
_QUARTER = re.compile(r"(\d{4})[ /-]?Q([1-4])|Q([1-4])[ /-]?(\d{4})|([1-4])Q(\d{4})", re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})-?W(\d\d)")
_CLOCK = re.compile(r"(.*\d)(, | |T)(\d{1,2}:[0-9:.]+(?: [AP]M)?)(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)
_LOOKS = re.compile(r"\d{4,8}$|\d{1,4}[-/. ](?:\d|[a-z]{3})|[a-z]{3,9}[- ]\d|\d{4}-?[MQW]\d|[1-4Q]+[ /-]?\d{4}", re.I)
_YEARLY = re.compile(r"(?<!\d)(?:1[5-9]|20|21)\d\d(?!\d)")
_DAY = 86_400_000_000  # microseconds
_LENGTHS = {"week": 7 * _DAY, "day": _DAY, "hour": _DAY // 24, "minute": _DAY // 1440, "second": 10**6}
_LENGTHS |= {"millisecond": 1000, "microsecond": 1}
_SEASONS = {"week": 52, "day": 7, "hour": 24, "minute": 60, "second": 60}


@dataclass(frozen=True)
class TimeSeries:
    """Values in time, each one step after the one before it.

    Attributes:
        name: of the column.
        values: (N,), float64, finite.
        times: (N,), of each value: datetime64[us], in UTC where the file has time zones, or numbers.
        filled: (N,), booleans: what was not in the file.
        step: how far apart the values are, in words; "" without dates.
        season: how many values usually come again: 12 of months, 7 of days; 0 if that is not known.
        said: how the file was read, in a line.
    """

    name: str
    values: npt.NDArray[np.float64]
    times: npt.NDArray[Any]
    filled: npt.NDArray[np.bool_]
    step: str
    season: int
    said: str
    _later: Callable[[int], npt.NDArray[Any]] = field(repr=False, compare=False)

    def later(self, count: int) -> npt.NDArray[Any]:
        """The times of the next `count` steps, (count,), as `times` has them."""
        return self._later(count)


def read_series(
    path: Name,
    column: str = "",
    *,
    dates: str | Sequence[str] = (),
    date_format: str = "",
    only: Mapping[str, str] | None = None,
    gaps: Gaps = "refuse",
    delimiter: str = "",
    decimal: str = "",
    encoding: str = "utf-8",
) -> TimeSeries:
    r"""The series in one column of a table with a header, as people keep them: a CSV file of a spreadsheet, say.

    Arguments:
        column: the one with the values; "" is the only one besides those of dates. Numbers are read by
            `tinygrad_rnn.data.numbers.read_numbers`.
        dates: the column of dates, or several that make one together, such as a date and a time of day; of numbers, if
            it is no date that they are. Without it, the one column that is full of dates; if there is none, the first
            one, if its numbers rise or fall from row to row; else the rows come in the order of the file.
        date_format: of the dates, as `strptime` knows it. Without it, one of the usual ones that fits all of them: ISO
            8601, 31.12.2024, 31/12/2024, 12/31/2024, 31 Dec 2024, Dec 2024, 2024-12, 2024-Q4, 2024-W52, with a time of
            day or without. If two fit that differ, the one by which the series has equal steps.
        only: the values that columns must have in the rows that count: of several series in one column, one.
        gaps: what becomes of steps without a value: an error ("refuse"), between its neighbours ("linear"), as the one
            before it ("previous") or 0 ("zero"); "close" takes the rows as equally far apart, whatever their dates.
            Before the first value and after the last one there is no gap.
        delimiter, decimal, encoding: as in `read_table`, `read_numbers` and `read_text`.

    Rows may come newest first, or in any order; steps may be months, business days, or anything that is always as long.

    Raises InputError as those do, and for a date that is none, dates that could be read in two ways or stand there
    twice, steps that are not equal, and gaps. Needs pandas if there are dates.

        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "sales.csv"
        >>> rows = ["01.06.2024;1.300,50 €", "01.04.2024;1.100,00 €", "01.03.2024;990,00 €", "01.02.2024;0,00 €"]
        >>> _ = file.write_text("\n".join(["Monat;Umsatz", *rows, "01.01.2024;0,00 €"]))
        >>> read_series(file)
        Traceback (most recent call last):
        ...
        tinygrad_rnn.errors.InputError: .../sales.csv: Umsatz is missing for 1 of 6 steps of a month, the first after
        01.04.2024 (line 3): choose what fills the gaps
        >>> found = read_series(file, gaps="linear")
        >>> found.values.tolist(), found.season
        ([0.0, 0.0, 990.0, 1100.0, 1200.25, 1300.5], 12)
        >>> found.said
        'in €, with a decimal comma; dated by Monat, %d.%m.%Y, newest first, a month apart; 1 gap filled (linear)'
        >>> found.later(2).astype("datetime64[D]").astype(str).tolist()
        ['2024-07-01', '2024-08-01']
        >>> folder.cleanup()
    """
    only = {} if only is None else only
    _check_options(column, date_format, only, gaps, decimal)
    dates = as_names("dates", dates) if dates != "" else ()
    wanted = dict.fromkeys(dates, "choose the column of dates") | dict.fromkeys(only, "choose one by its value")
    wanted |= {column: "choose the column of the series"} if column else {}
    table = read_table(path, read_text(path, encoding), list(wanted), delimiter, hints=list(wanted.values()))
    table, empty = _chosen(table, only)
    when = _dates(table, column, dates, date_format, gaps, only)
    at = _column(table, column, when.columns if when else [], only)
    name = table.header.fields[at]
    likely = "." if table.delimiter == "," and not any("," in row.fields[at] for row in table.rows) else ""
    found = read_numbers([row.fields[at] for row in table.rows], table.where(at), decimal, likely)
    said = [f"in {found.unit}"] if found.unit else []
    said += ["with a decimal comma"] if found.decimal == "," else []
    said = [", ".join(said)] if said else []
    if table.comments:
        said.append(f"{_many(table.comments, 'line')} passed over, comments that begin with #")
    if empty:
        said.append(f"{_many(empty, 'empty row')} at the end")
    if not when:
        said.append("in the order of the file")
        return _complete(table, name, found.values, None, _by_number(np.arange(len(table.rows)), "row"), gaps, said)
    order = np.argsort(when.stamps, kind="stable")
    said.append(when.said(order))
    when, values = when.sorted(order), found.values[order]
    _check_once(table, when, only)
    steps = _by_calendar(when.stamps) if when.dated else _by_number(when.stamps)
    if steps and steps.places[-1] >= 2 * len(values):  # more gaps than values: no steps at all
        steps = None
    if steps is None and gaps != "close":
        d = np.diff(when.stamps)
        k = int(np.flatnonzero(d != d[0])[0])
        what = f"the steps from {when.place(k - 1)} to {when.place(k)} and to {when.place(k + 1)} are not equal"
        raise InputError(f"{path}: {what}", hint="close the gaps, if the rows are to count as equally far apart")
    said[-1] += f", {steps.words} apart" if steps else ""
    return _complete(table, name, values, when, steps, gaps, said)


def _check_options(column: Any, date_format: Any, only: Any, gaps: Any, decimal: Any) -> None:
    """Raise InputError for an option that is none."""
    if not isinstance(gaps, str) or gaps not in GAPS:
        raise InputError(f"gaps must be one of {', '.join(GAPS)}, not {gaps!r:.80}")
    if not isinstance(decimal, str) or decimal not in ("", ".", ","):
        raise InputError(f'decimal must be "." or ",", not {decimal!r:.80}')
    for what, text in (("column", column), ("date_format", date_format)):
        if not isinstance(text, str):
            raise InputError(f"{what} is a text, not {text!r:.80}")
    if not isinstance(only, Mapping) or not all(isinstance(text, str) for pair in only.items() for text in pair):
        raise InputError(f"only has columns and their values, all of them texts, not {only!r:.80}")


# --- which rows and columns ---------------------------------------------------------------------------------


def _chosen(table: Rows, only: Mapping[str, str]) -> tuple[Rows, int]:
    """The rows in which columns have the values that are wanted; without the empty ones at the end, so many."""
    end = max((k for k, row in enumerate(table.rows, 1) if any(row.fields)), default=0)
    rows = table.rows[:end]
    for name, value in only.items():
        (at,) = find_columns(table.path, table.header, name)
        there = sorted({row.fields[at] for row in rows})
        rows = [row for row in rows if row.fields[at] == value]
        if not rows:
            raise InputError(f"{table.path}: no row has {value!r} in {name}: there are {_some(there)}")
    if not rows:
        raise InputError(f"{table.path}: all rows are empty")
    return Rows(table.path, table.header, rows, table.delimiter, table.comments), len(table.rows) - end


def _some(values: Sequence[str]) -> str:
    few = ", ".join(shown(value) for value in values[:5])
    return f"{few} and {len(values) - 5:,} more" if len(values) > 5 else few


def _column(table: Rows, column: str, dates: Sequence[int], only: Mapping[str, str]) -> int:
    """Where the values stand."""
    if column:
        return find_columns(table.path, table.header, column)[0]
    names = table.header.fields
    left = [i for i in range(len(names)) if i not in dates and names[i] not in only and names[i]]
    if len(left) != 1:
        raise InputError(f"{table.path}: there are the columns {table.names()}", hint="choose the column of the series")
    return left[0]


# --- dates --------------------------------------------------------------------------------------------------


class _When(NamedTuple):
    """The `columns` of the dates and their `names`; of each row the `lines` and `texts`; `stamps` (N,) in microseconds
    or, if they are not `dated`, as they are; the `form` of the dates.
    """

    columns: list[int]
    names: str
    lines: list[int]
    texts: list[str]
    stamps: npt.NDArray[Any]
    dated: bool
    form: str

    def said(self, order: Numbers) -> str:
        """How they were read, and how they came."""
        same, back = np.arange(len(order)), np.arange(len(order))[::-1]
        came = "" if (order == same).all() else ", newest first" if (order == back).all() else ", in another order"
        return f"{'dated' if self.dated else 'ordered'} by {self.names}{self.form and ', '}{self.form}{came}"

    def sorted(self, order: Numbers) -> _When:
        lines, texts = ([x[k] for k in order] for x in (self.lines, self.texts))
        return self._replace(lines=lines, texts=texts, stamps=self.stamps[order])

    def place(self, k: int) -> str:
        return f"{self.texts[k]} (line {self.lines[k]})"


def _dates(
    table: Rows, column: str, dates: Sequence[str], date_format: str, gaps: str, only: Mapping[str, str]
) -> _When | None:
    """The dates of the rows, None where the file has none that were asked for or can be found."""
    if dates:
        return _read_dates(table, find_columns(table.path, table.header, dates), date_format, numbers=True)
    names = table.header.fields
    others = [i for i, name in enumerate(names) if name != column and name not in only]
    found, years = _dated_columns(table, others, date_format)
    if len(found) == 1:
        return _read_dates(table, found, date_format)
    if gaps != "close":
        if found or years:
            what = " and ".join(names[i] for i in found or years)
            raise InputError(f"{table.path}: there are dates in {what}", hint="choose the column of dates, or several")
        for i in others:
            texts = [row.fields[i] for row in table.rows]
            if 2 * sum(bool(_YEARLY.search(text)) and not is_number(text) for text in texts) > len(texts):
                message = f"{table.where(i)(0)} is {shown(texts[0])}, which may be a date, in no usual format"
                raise InputError(message, hint="choose the format of the dates")
    return None if found or years or 0 not in others or len(names) < 2 else _counted(table)


def _dated_columns(table: Rows, columns: Sequence[int], date_format: str) -> tuple[list[int], list[int]]:
    """Which columns hold dates, and which years or the like that stay the same for some rows: parts of dates."""
    found, years = [], []
    for i in columns:
        texts = [row.fields[i] for row in table.rows]
        if not _is_dated(texts, date_format):
            continue
        if not texts[0].isdecimal():
            found.append(i)
            continue
        rising = np.diff([int(text) if text.isdecimal() else 0 for text in texts])
        if (rising > 0).all() or (rising < 0).all():
            found.append(i)
        elif (rising >= 0).all() or (rising <= 0).all():
            years.append(i)
    return found, years


def _counted(table: Rows) -> _When | None:
    """The order that the first column gives, where it counts the rows, or seconds."""
    texts = [row.fields[0] for row in table.rows]
    if not all(map(is_number, texts)):
        return None
    numbers = np.array([float(text) for text in texts])
    if not ((np.diff(numbers) > 0).all() or (np.diff(numbers) < 0).all()):
        return None
    return _When([0], table.header.fields[0] or "column 1", [row.line for row in table.rows], texts, numbers, False, "")


def _is_dated(texts: Sequence[str], date_format: str) -> bool:
    """Whether a column holds dates: most of its fields are some, and they are not numbers with a point."""
    some = texts[:: max(1, len(texts) // 50)]
    if sum(bool(_LOOKS.match(text)) for text in some) * 2 <= len(some):
        return False
    if all(map(is_number, some)) and not all(map(str.isdecimal, some)):
        return False
    return bool(_formats(list(map(_normal, some)), [date_format] if date_format else []))


def _read_dates(table: Rows, columns: list[int], date_format: str, *, numbers: bool = False) -> _When:
    """The dates in these columns, together."""
    names = " ".join(table.header.fields[i] for i in columns)
    texts = [" ".join(row.fields[i] for i in columns) for row in table.rows]
    where, hint, lines = table.where(columns[0]), "choose the format of the dates", [row.line for row in table.rows]
    for k, text in enumerate(texts):
        if is_missing(text):
            raise InputError(f"{where(k)} is {shown(text)}, and each row needs its date")
    normal = list(map(_normal, texts))
    formats = [date_format] if date_format else _formats(normal[:: max(1, len(normal) // 50)])
    if numbers and not formats and all(map(is_number, texts)):
        return _When(columns, names, lines, texts, np.array([float(text) for text in texts]), False, "")
    read: dict[str, Numbers] = {}
    for form in formats:
        parsed = _parsed(normal, form)
        stamps, bad = parsed.astype(np.int64), np.flatnonzero(np.isnat(parsed))
        if len(bad) and len(formats) == 1:
            k = int(bad[0])
            message = f"{where(k)} is {shown(texts[k])}, not a date {form}"
            raise InputError(message, hint=hint if date_format else "")
        if not len(bad) and not any((stamps == other).all() for other in read.values()):
            read[form] = stamps
    if not read:
        k = next((k for k, text in enumerate(normal) if not set(_formats([text])) & set(formats)), 0)
        raise InputError(f"{where(k)} is {shown(texts[k])}, not a date{' as others are' if formats else ''}", hint=hint)
    form, stamps = _decided(table, names, read)
    years = stamps.astype("datetime64[us]").astype("datetime64[Y]").astype(int) + 1970
    if "%y" in form and years.max() > datetime.now().year + 10:  # strptime takes 68 for 2068, and 69 for 1969
        k = int(years.argmax())
        raise InputError(f"{where(k)} is {texts[k]!r}, of {years[k] - 100} or {years[k]}", hint="write years in full")
    return _When(columns, names, lines, texts, stamps, True, form if normal == texts else "")


def _decided(table: Rows, names: str, read: Mapping[str, Numbers]) -> tuple[str, Numbers]:
    """The format of dates that fit several, and the dates by it: that by which they are equally far apart."""
    if len(read) > 1:
        even = {form: stamps for form, stamps in read.items() if _is_even(stamps)}
        if len(even) != 1:
            what = f"the dates in {names} fit {' and '.join(sorted(read))}"
            raise InputError(f"{table.path}: {what}", hint="choose the format of the dates")
        read = even
    return next(iter(read.items()))


def _is_even(stamps: Numbers) -> bool:
    """Whether dates are equally far apart, without a gap."""
    stamps = np.unique(stamps)
    steps = _by_calendar(stamps)
    return steps is not None and bool(steps.places[-1] == len(stamps) - 1)


def _normal(text: str) -> str:
    """A date, of a quarter its first month, of a week its Monday."""
    if found := _QUARTER.fullmatch(text):
        year, quarter = (found[1], found[2]) if found[1] else (found[4] or found[6], found[3] or found[5])
        return f"{year}-{3 * int(quarter) - 2:02d}"
    if found := _WEEK.fullmatch(text):
        return f"{found[1]}-W{found[2]}-1"
    return text


def _formats(some: Sequence[str], forms: Sequence[str] = ()) -> list[str]:
    """The usual formats, or those of `forms`, that most of these dates have."""
    if not forms and (found := _CLOCK.fullmatch(some[0])):  # with a time of day
        days = [match[1] for text in some if (match := _CLOCK.fullmatch(text))]
        times = [form + "%z" * bool(found[4]) for form in _TIMES if ("%p" in form) == (found[3][-1] in "Mm")]
        forms = [f"{day}{found[2]}{time}" for day in _formats(days) for time in times]
    elif not forms:
        digits = _DIGITS.get(len(some[0]), "") if some[0].isdecimal() else ""
        forms = [digits] if digits else _DAYS
    return [form for form in forms if np.isnat(_parsed(some, form)).sum() * 2 < len(some)]


def _parsed(texts: Sequence[str], form: str) -> npt.NDArray[np.datetime64]:
    """Dates of this format, (N,), in UTC if they have a time zone; NaT for what is none."""
    try:
        import pandas
    except ImportError:
        raise InputError("dates are read with pandas: pip install pandas") from None
    try:
        found = pandas.to_datetime(list(texts), format=form, errors="coerce", utc="%z" in form)
    except ValueError as error:
        raise InputError(f"{form!r} is no format of dates: {error}") from None
    stamps = found.tz_localize(None).to_numpy().astype("datetime64[us]")
    if form in _DIGITS.values():  # which pandas also takes with fewer digits
        wide = next(width for width, digits in _DIGITS.items() if digits == form)
        stamps[[not (text.isdecimal() and len(text) == wide and "1000" <= text[:4] < "3000") for text in texts]] = "NaT"
    return np.asarray(stamps)


# --- steps --------------------------------------------------------------------------------------------------


class _Steps(NamedTuple):
    """The `places` (N,) that sorted times have on a grid of equal steps, from 0 on; how far apart these are, in words,
    and how many make a season; the `grid` of the first (count,) times.
    """

    places: Numbers
    words: str
    season: int
    grid: Callable[[int], npt.NDArray[Any]]


def _by_number(stamps: npt.NDArray[Any], unit: str = "") -> _Steps | None:
    """The steps of numbers that rise; None if they are not equal."""
    step = _most(np.diff(stamps)) if len(stamps) > 1 else 1
    places = np.rint((stamps - stamps[0]) / step).astype(np.int64)
    if not np.allclose(stamps[0] + places * step, stamps, rtol=1e-9, atol=1e-3 * step):
        return None
    return _Steps(places, f"a {unit}" if unit else f"{step:g}", 0, lambda n: stamps[0] + step * np.arange(n))


def _by_calendar(stamps: Numbers) -> _Steps | None:
    """The steps of dates in microseconds that rise; None if they are not equal: not so many months, or as long."""
    import pandas

    times = pandas.DatetimeIndex(stamps.astype("datetime64[us]"))
    shift = pandas.Timedelta(0)
    if (times.day == times.day[0]).all():  # of each month the 15th, say
        shift = pandas.Timedelta(days=int(times.day[0]) - 1)

    def on_grid(freq: str) -> tuple[Numbers, int]:
        """The places on all days of a kind, and the usual number of these from one to the next; 0 for no such days."""
        places = pandas.date_range(first, last, freq=freq).get_indexer(times - shift)
        d = np.diff(places)
        usual = int(_most(d)) if len(d) else 1
        return places // max(1, usual), 0 if (places < 0).any() or (d % usual).any() else usual

    first, last = times[0] - shift, times[-1] - shift
    for freq in ("MS", "ME", "BMS", "BME"):  # from a month's beginning or end to another, or a working day of it
        places, months = on_grid(freq)
        if months:
            words = {1: "a month", 3: "a quarter", 12: "a year"}.get(months, f"{months} months")
            season = 0 if 12 % months or months == 12 else 12 // months
            return _Steps(places, words, season, lambda n: _range(first, n, f"{months}{freq}", shift))  # noqa: B023
    d = np.diff(stamps)
    step = int(_most(d)) if len(d) else _DAY
    if (
        step == _DAY
        and len(times) > 10
        and np.is_busday(times.to_numpy().astype("datetime64[D]")).all()
        and on_grid("B")[1]
    ):
        return _Steps(on_grid("B")[0], "a business day", 5, lambda n: _range(first, n, "B", shift))
    if (d % step).any():
        return None
    unit, length = next((unit, length) for unit, length in _LENGTHS.items() if step % length == 0)
    n, season = step // length, _SEASONS.get(unit, 0)
    if unit == "minute" and n >= 5:
        season = 1440  # a day
    words = f"{'an' if unit == 'hour' else 'a'} {unit}" if n == 1 else f"{n} {unit}s"
    return _Steps(
        np.asarray((stamps - stamps[0]) // step),
        words,
        0 if season % n else season // n,
        lambda n: (stamps[0] + step * np.arange(n)).astype("datetime64[us]"),
    )


def _range(first: Any, count: int, freq: str, shift: Any) -> npt.NDArray[np.datetime64]:
    """So many dates of a kind, from the first one on."""
    import pandas

    return np.asarray((pandas.date_range(first, periods=count, freq=freq) + shift).to_numpy().astype("datetime64[us]"))


def _most(d: npt.NDArray[Any]) -> Any:
    """The number that occurs most often, the least of several."""
    values, counts = np.unique(d, return_counts=True)
    return values[counts.argmax()]


# --- gaps ---------------------------------------------------------------------------------------------------


def _check_once(table: Rows, when: _When, only: Mapping[str, str]) -> None:
    """Raise InputError for two rows of one time: there are several series, it seems."""
    twice = np.flatnonzero(np.diff(when.stamps) == 0)
    if not len(twice):
        return
    k = int(twice[0])
    first, again = sorted((when.lines[k], when.lines[k + 1]))
    message = f"{table.path}, line {again}: {when.names} is {when.texts[k]}, as in line {first}"
    rows = {row.line: row.fields for row in table.rows}
    differ = [i for i, name in enumerate(table.header.fields) if i not in when.columns and name and name not in only]
    differ = [i for i in differ if rows[first][i] != rows[again][i] and not is_number(rows[first][i])]
    keys = [i for i in differ if len({row.fields[i] for row in table.rows}) <= len(table.rows) // 2]
    if not keys:
        raise InputError(message, hint="one value for each date is needed")
    values = sorted({row.fields[keys[0]] for row in table.rows})
    named = f"{table.header.fields[keys[0]]}, which has {_some(values)}"
    raise InputError(f"{message}: there are several series", hint=f"choose one by its value in {named}")


def _complete(
    table: Rows, name: str, values: Floats, when: _When | None, steps: _Steps | None, gaps: str, said: list[str]
) -> TimeSeries:
    """The series without what is missing at its ends, and with its gaps filled, closed or refused."""
    there = np.flatnonzero(~np.isnan(values))
    if not len(there):
        raise InputError(f"{table.path}: {name} has no value in any row")
    first, last = int(there[0]), int(there[-1])
    if left := len(values) - (last + 1 - first):
        said.append(f"{_many(left, 'row')} at the ends without a value left out")
    if steps is None:  # it is to be closed
        assert when is not None
        stamps = when.stamps[there].astype("datetime64[us]") if when.dated else when.stamps[there]
        usual = np.median(np.diff(stamps.astype(np.int64 if when.dated else float))) if len(there) > 1 else 1
        usual = np.timedelta64(int(usual), "us") if when.dated else usual
        none = np.zeros(len(there), bool)
        said.append("unequal steps taken as equal")
        later = lambda n: stamps[-1] + usual * np.arange(1, n + 1)
        return TimeSeries(name, values[there], stamps, none, "", 0, "; ".join(said), later)
    start, places = int(steps.places[first]), steps.places[there] - steps.places[first]
    count = int(places[-1]) + 1
    later = lambda n: steps.grid(start + count + n)[start + count :]
    times, missing = steps.grid(start + count)[start:], count - len(there)
    filled = np.ones(count, bool)
    filled[places] = False
    if missing and gaps == "refuse":
        k = int(there[np.flatnonzero(np.diff(places) > 1)[0]])
        after = when.place(k) if when else f"line {table.rows[k].line}"
        what = f"{count} rows" if not when else f"{count} steps of {steps.words}"
        message = f"{table.path}: {name} is missing for {missing} of {what}, the first after {after}"
        raise InputError(message, hint="choose what fills the gaps")
    if missing:
        said.append(f"{_many(missing, 'gap')} {'closed' if gaps == 'close' else f'filled ({gaps})'}")
    if gaps == "close":
        times, filled, full = times[places], filled[places], values[there]
    elif gaps == "zero":
        full = np.zeros(count)
        full[places] = values[there]
    elif gaps == "previous":
        full = values[there][np.searchsorted(places, np.arange(count), side="right") - 1]
    else:
        full = np.interp(np.arange(count), places, values[there])
    return TimeSeries(name, full, times, filled, steps.words if when else "", steps.season, "; ".join(said), later)


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' * (count != 1)}"
