"""Tables as text: rows of fields between delimiters, between quotes or not, and no row lost in silence.

Python's `csv` splits the fields. What it would pass over is an error here: a quote that hides the rows up to the next
one, and rows of another length than the header. (So do neither pandas nor PyArrow: the first fills up short rows and
takes the first column of long ones for an index, both let a quote swallow rows.)
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from os import PathLike
from typing import Any, NamedTuple

from tinygrad_rnn.data.numbers import is_missing, is_number, is_written
from tinygrad_rnn.errors import InputError

Name = str | PathLike[str]
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# What a spreadsheet says of a cell that it cannot compute: the beginning of a row, and of no comment.
_CELLS = {"#NA", "#N/A", "#N/A N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"}
_LIMIT = threading.Lock()  # the longest field that `csv` takes is one number for all threads


class Row(NamedTuple):
    """The `fields` of a row, without blanks around them, and the `line` that it begins in."""

    line: int
    fields: list[str]


@dataclass(frozen=True)
class Rows:
    """The header and the rows of the table in the file `path`: each row has as many fields as the header.

    `delimiter` is what stands between the fields, `comments` how many lines below the header were passed over because
    they begin with #.
    """

    path: Name
    header: Row
    rows: list[Row]
    delimiter: str
    comments: int

    def names(self) -> str:
        """The names in the header, for a message."""
        return _listed(self.header.fields)

    def where(self, i: int) -> Callable[[int], str]:
        """What says, for a row's number, where its field in column `i` stands: the beginning of a message."""
        name = self.header.fields[i] or f"column {i + 1}"
        return lambda k: f"{self.path}, line {self.rows[k].line}: {name}"


def read_table(
    path: Name,
    text: str,
    columns: str | Sequence[str] = (),
    delimiter: str = "",
    *,
    notes: bool = True,
    hints: Sequence[str] = (),
) -> Rows:
    r"""The header and the rows of a table that is the `text` of the file `path`.

    Without a `delimiter`, one of , ; tab and | that puts the wanted `columns` into the header; of several, the one that
    makes the most fields. A first line `sep=;`, as spreadsheets write it, says which, too.

    Between quotes a field may hold delimiters, quotes that are doubled, and line breaks. In a file with tabs quotes may
    be plain characters: they are, unless all of them are where quotes around fields belong. With `notes`, lines that
    begin with # are comments. `hints` say of each of the `columns` what helps if it is not there.

    Empty lines are passed over, but in a table of one column, where one between others is an empty field.

    Raises InputError, naming the line, for a quote that is not closed where its field ends, for a row that has not as
    many fields as the header, for a header that is not there or could be split in two ways, or no rows below it.

        >>> read_table("a.csv", 'who;said\nAda;"yes;\nno"\n').rows
        [Row(line=2, fields=['Ada', 'yes;\nno'])]
    """
    check_delimiter(delimiter)
    lines = text.removesuffix("\n").split("\n")
    first = next((k for k, line in enumerate(lines) if line.strip()), 0)
    if lines[first].strip().lower() in {f"sep={mark}".strip() for mark in DELIMITERS}:
        delimiter = delimiter or lines[first].strip()[4:] or "\t"
        lines[first] = ""
    delimiter = delimiter or _delimiter(path, lines, columns, notes)
    quoted = delimiter != "\t" or _has_quoted_fields(path, lines, notes)
    source = _Lines(path, lines, delimiter, quoted, notes)
    header, rows = _under_header(path, source.rows())
    if len(header.fields) == 1 and any(mark in header.fields[0] for mark in DELIMITERS):
        hints = ["choose the delimiter"] * len(columns)
    find_columns(path, header, columns, hints)  # a wrong name says more than rows that do not fit
    for row in rows:
        if len(row.fields) != len(header.fields):
            raise InputError(f"{path}, line {row.line}: {count(row.fields)}, and the header has {len(header.fields)}")
    return Rows(path, header, rows, delimiter, sum(line > header.line for line in source.comments))


def find_columns(path: Name, header: Row, columns: str | Sequence[str], hints: Sequence[str] = ()) -> list[int]:
    """Where these columns stand. Raises InputError for one that is not in the header, with its hint, or there twice."""
    columns = [columns] if isinstance(columns, str) else columns
    where = f"{path}, line {header.line}"
    for name, hint in zip_longest(columns, hints, fillvalue=""):
        if name not in header.fields:
            raise InputError(f"{where}: no column {name!r}: the header has {_listed(header.fields)}", hint=hint)
        if header.fields.count(name) > 1:
            what = f"are called {name!r}" if name else "have no name"
            raise InputError(f"{where}: {header.fields.count(name)} columns {what}")
    return [header.fields.index(name) for name in columns]


def check_delimiter(delimiter: Any) -> None:
    """Raise InputError unless it is one character, or none."""
    if delimiter == "" and isinstance(delimiter, str):
        return
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"#+-._\r\n':
        raise InputError(
            f"a delimiter is one character, of which no number is made, such as , or ;, not {delimiter!r:.80}"
        )


def as_names(what: str, given: Any) -> tuple[str, ...]:
    """One name or several. Raises InputError for what is neither."""
    found = (given,) if isinstance(given, str) else given
    if isinstance(found, bytes) or not isinstance(found, Collection) or not all(isinstance(v, str) for v in found):
        raise InputError(f"{what} are names, a list of texts, not {given!r:.80}")
    return tuple(found)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in names)


def count(fields: Sequence[str]) -> str:
    """How many fields there are, in words."""
    return f"{len(fields)} field{'s' * (len(fields) != 1)}"


def _delimiter(path: Name, lines: list[str], columns: str | Sequence[str], notes: bool) -> str:
    """The delimiter that the header speaks for."""
    wanted = {columns} if isinstance(columns, str) else set(columns)
    headers = {}
    for mark in DELIMITERS:
        source = _Lines(path, lines, mark, True, notes)
        headers[mark] = next((row for row in source.split() if any(row)), [])
    fitting = [mark for mark, names in headers.items() if wanted <= {name.strip() for name in names}]
    most = max(len(headers[mark]) for mark in fitting or DELIMITERS)
    best = [mark for mark in fitting or DELIMITERS if len(headers[mark]) == most]
    if most < 2:  # one column: what is in no row, since a comma may be a decimal one
        best = [mark for mark in best if not any(mark in line for line in lines)] or best
        _check_titles(path, lines)
    elif len(best) > 1:
        either = " and by ".join(DELIMITERS[mark] for mark in best)
        raise InputError(f"{path}: its header falls into {most} fields by {either}", hint="choose the delimiter")
    return best[0]


def _check_titles(path: Name, lines: list[str]) -> None:
    """Raise InputError for a header of one column above lines of several: it is a title, it seems."""
    first, *below = [k for k, line in enumerate(lines, 1) if line.strip()] or [1]
    for mark, name in DELIMITERS.items():
        divided = [k for k in below if mark in lines[k - 1] and not is_written(lines[k - 1].strip().strip('"'))]
        if 2 * len(divided) > len(below):
            what = f"the header has one column, and {name} divides the lines below it, from line {divided[0]} on"
            raise InputError(f"{path}, line {first}: {what}", hint="take away the lines above the header")


def _has_quoted_fields(path: Name, lines: list[str], notes: bool) -> bool:
    """Whether the quotes in a file with tabs stand around fields."""
    if not any('"' in line for line in lines):
        return False
    plain = [len(row) for row in _Lines(path, lines, "\t", False, notes).split() if any(map(str.strip, row)) or row[1:]]
    source = _Lines(path, lines, "\t", True, notes)
    source.dialect["strict"] = True
    rows, over = 0, 0
    try:
        for row in source.split():
            rows += bool(any(map(str.strip, row)) or row[1:])
            over = over or (source.start if source.given > source.start else 0)
    except InputError:
        return False
    if rows != len(plain) and len(set(plain)) == 1:
        what = "a quote is opened that may be plain, or around a field of several lines which look like rows"
        raise InputError(f"{path}, line {over}: {what}", hint="put quotes around all fields, or around none")
    return True


class _Lines:
    """The lines of a table, as `csv.reader` takes them: without comments, which may hold what looks like a quote."""

    def __init__(self, path: Name, lines: list[str], delimiter: str, quoted: bool, notes: bool) -> None:
        self.path, self.lines, self.delimiter, self.notes = path, lines, delimiter, notes
        self.dialect: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": delimiter != " "}
        if not quoted:
            self.dialect["quoting"] = csv.QUOTE_NONE
        self.given = self.start = 0  # lines given so far, and the number of the first one of the row
        self.fresh = True
        self.comments: list[int] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.given < len(self.lines):
            line = self.lines[self.given]
            self.given += 1
            if self.fresh:
                self.start = self.given
                if self.notes and self._is_comment(line):
                    self.comments.append(self.given)
                    continue
            self.fresh = False
            return line + "\n"
        raise StopIteration

    def _is_comment(self, line: str) -> bool:
        if "#" not in line or not (line := line.lstrip()).startswith("#"):
            return False
        first, delimiter, _ = line.partition(self.delimiter)  # a column of numbers of rows may have the name #
        return first.strip().upper() not in _CELLS and not (delimiter and first.strip() == "#")

    def split(self) -> Iterator[list[str]]:
        """The fields of each row, as they stand there."""
        longest = sum(map(len, self.lines)) + len(self.lines)
        reader = csv.reader(self, **self.dialect)
        while True:
            with _LIMIT:
                before = csv.field_size_limit(max(longest, csv.field_size_limit()))
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise InputError(f"{self.path}, line {self.start}: {error}") from None
                finally:
                    csv.field_size_limit(before)
            yield row
            self.fresh = True

    def rows(self) -> list[Row]:
        """Each row, without blanks around its fields; an empty line has none."""
        found: list[Row] = []
        for row in self.split():
            if self.given > self.start or (row and row[-1].endswith("\n")):
                self._check_quotes(row, found)
            blank = len(row) < 2 and not self.lines[self.start - 1].strip()
            found.append(Row(self.start, [] if blank else list(map(str.strip, row))))
        return found

    def _check_quotes(self, row: list[str], before: list[Row]) -> None:
        """Raise InputError for a row over several lines that is one because a quote is missing."""
        where = f"{self.path}, line {self.start}: a quote is opened"
        lines = self.lines[self.start - 1 : self.given]
        try:
            list(csv.reader([f"{line}\n" for line in lines], **self.dialect, strict=True))
        except csv.Error:
            if row[-1].endswith("\n"):  # the end of the file is in it
                raise InputError(f"{where} and never closed") from None
            end = f"the next quote is in line {self.given}"
            raise InputError(f"{where} and not closed where its field ends: {end}") from None
        width = len(next((fields for _, fields in before if any(fields)), row))
        known = [i for i, field in enumerate(row[:width]) if is_number(field)] or range(width)
        for number, line in enumerate(lines[1:], self.start + 1):
            fields = [field.strip() for field in next(csv.reader([line], **self.dialect), [])]
            if len(fields) == width and any(is_number(fields[i]) for i in known):
                raise InputError(f"{where} and closed in line {self.given}, but line {number} looks like another row")


def _under_header(path: Name, rows: list[Row]) -> tuple[Row, list[Row]]:
    """The header, and the rows below it."""
    at = next((k for k, row in enumerate(rows) if any(row.fields)), len(rows))
    end = max((k for k, row in enumerate(rows) if row.fields), default=-1) + 1
    header = rows[at].fields if at < end else []
    below = [row for row in rows[at + 1 : end] if row.fields or len(header) == 1]
    if not below:
        raise InputError(f"{path}: no rows under a header in it")
    if any(map(is_number, header)) and all(is_number(field) or is_missing(field) for field in header):
        raise InputError(f"{path}, line {rows[at].line}: no header: its fields are all numbers")
    return rows[at], [row if row.fields else Row(row.line, [""]) for row in below]
