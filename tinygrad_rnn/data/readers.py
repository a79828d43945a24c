"""Files that data comes in: IDX (pictures), TSV (labelled or paired sentences), CSV (series).

Each reader returns arrays or plain lists, and raises `InputError` in one line that names the file, the place and the
reason.
"""

from __future__ import annotations

import csv
import gzip
import math
import struct
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.batches import split_at_random
from tinygrad_rnn.data.kinds import HEAD, kind_of
from tinygrad_rnn.data.text import checked_path, read_bytes, read_text
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.scalars import as_integer, whole

Row = TypeVar("Row")
Name = str | PathLike[str]
Floats = npt.NDArray[np.float64]

# --- IDX ----------------------------------------------------------------------------------------------------

_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Name) -> npt.NDArray[Any]:
    """The array in an IDX file, the format of MNIST (yann.lecun.com/exdb/mnist), compressed by gzip or not.

    Two zero bytes, a byte for the dtype, a byte for the number of axes, their lengths as four bytes each, the entries:
    all of them with the high byte first. What is returned has the shape of the file, and its dtype in the machine's
    byte order.

    Raises InputError for a file that cannot be read, is no IDX, or does not have as many bytes as its shape needs.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "labels.idx"
        >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(file)
        array([7, 2, 1], dtype=uint8)
        >>> folder.cleanup()
    """
    raw = read_bytes(path)
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_DTYPES or not raw[3]:
        what = kind_of(raw[:HEAD]) or f"it begins with the bytes {raw[:4].hex(' ') or 'of nothing'}"
        raise InputError(f"{path}: not an IDX file: {what}")
    dtype, start = np.dtype(_IDX_DTYPES[raw[2]]), 4 + 4 * raw[3]
    if len(raw) < start:
        raise InputError(f"{path}: cut off: {len(raw)} bytes, and the lengths of {raw[3]} axes end at byte {start}")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    needed = start + math.prod(shape) * dtype.itemsize
    if len(raw) != needed:
        what = "cut off" if len(raw) < needed else "too long"
        raise InputError(f"{path}: {what}: {len(raw):,} bytes, and an array {shape} of {dtype.name} needs {needed:,}")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


# --- TSV ----------------------------------------------------------------------------------------------------


def read_tsv(
    path: Name, columns: int | Sequence[str] = 2, encoding: str = "utf-8", *, filled: bool = False
) -> list[tuple[str, ...]]:
    r"""The rows of a file with fields between tabs, without blanks around them: the pairs of a translation, say.

    `columns`: how many fields are taken of each line, and there is no header; or the names of columns, to be found
    in the first line. Further fields, and lines without a tab and without anything else, are passed over. Nothing is
    quoted.

    Raises InputError as `read_text` does, and for a line with too few fields, a name that the header lacks, or a file
    without rows; with `filled`, also for a field that is empty.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "reviews.tsv"
        >>> _ = file.write_text("sentence\tlabel\na good film\t1\nnot a good film\t0\n")
        >>> read_tsv(file, columns=("label", "sentence"))
        [('1', 'a good film'), ('0', 'not a good film')]
        >>> folder.cleanup()
    """
    rows = list(_tsv_rows(path, columns, encoding))
    if filled:
        for line, row in rows:
            if "" in row:
                raise InputError(f"{path}, line {line}: field {row.index('') + 1} of {len(row)} is empty")
    return [row for _, row in rows]


@dataclass(frozen=True)
class Labelled:
    """Texts with labels: `texts`, their `labels`, ids as int64 of shape (N,), and the `names` of the labels, by id."""

    texts: list[str]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]


def read_labelled(
    path: Name, columns: tuple[str, str] = ("sentence", "label"), names: Collection[str] = (), encoding: str = "utf-8"
) -> Labelled:
    """The texts and labels of a TSV file with a header, as SST-2 has them.

    `columns` are the names of the two in the header. `names` are the labels there may be, in the order of their ids;
    without them, those that occur, sorted. Raises InputError as `read_tsv` does, and for a line whose text is empty or
    whose label is none of `names`.
    """
    if len(_names("columns", columns)) != 2:
        raise InputError(f"columns are two names, of the texts and of the labels, not {columns!r:.80}")
    if len(set(names := _names("names", names))) < len(names):
        raise InputError(f"names of labels are given twice: {names!r:.80}")
    rows = list(_tsv_rows(path, columns, encoding))
    for line, (text, label) in rows:
        if not text:
            raise InputError(f"{path}, line {line}: the {columns[0]} is empty")
        if not label or (names and label not in names):
            wanted = f"none of {', '.join(names)}" if names else "empty"
            raise InputError(f"{path}, line {line}: the {columns[1]} is {f'{label!r}, ' if label else ''}{wanted}")
    known = tuple(names) or tuple(sorted({label for _, (_, label) in rows}))
    ids = {name: k for k, name in enumerate(known)}
    return Labelled([text for _, (text, _) in rows], np.array([ids[label] for _, (_, label) in rows]), known)


def read_parts(
    path: Name, read: Callable[[Path], Sequence[Row]], names: Sequence[str] = ("train", "val", "test"), seed: int = 0
) -> list[list[Row]]:
    r"""The rows of a file or folder in three parts: to train on, to choose by, to test with.

    `read` returns the rows of one file. A file is split at random, 80 : 10 : 10. A folder has a file NAME.tsv for each
    of the `names`: three are the three parts; of two, the first is split 95 : 5, and the second is the test. Raises
    InputError as `read` and `split_at_random` do.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "pairs.tsv"
        >>> _ = file.write_text("eins\tone\nzwei\ttwo\n" * 10)
        >>> [len(part) for part in read_parts(file, read_tsv)]
        [16, 2, 2]
        >>> folder.cleanup()
    """
    if not 1 <= len(names := _names("names", names)) <= 3:
        raise InputError(f"names are those of one to three files, not of {len(names)}: {names!r:.80}")
    path = Path(checked_path(path))
    first, *rest = [read(path / f"{name}.tsv") for name in names] if path.is_dir() else [read(path)]
    if len(rest) == 2:
        return [list(first), *map(list, rest)]
    try:
        cuts = split_at_random(len(first), (0.95, 0.05) if rest else (0.8, 0.1, 0.1), seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return [*([first[i] for i in cut] for cut in cuts), *map(list, rest)]


def _tsv_rows(path: Name, columns: int | Sequence[str], encoding: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The number of each line that is not empty, and its fields that are wanted."""
    count = as_integer(columns)
    wanted = range(whole("the number of columns", count, 1)) if count is not None else _names("columns", columns)
    if not wanted:
        raise InputError(f"columns are how many, or the names of some, not {columns!r:.80}")
    numbered = enumerate(read_text(path, encoding).split("\n"), 1)
    lines = ((k, line) for k, line in numbered if "\t" in line or line.strip())  # a tab divides two empty fields
    if isinstance(wanted, range):
        picked = list(wanted)
    else:
        first, header = next(lines, (1, ""))
        picked = _picked(path, [name.strip() for name in header.split("\t")], wanted, first)
    found = False
    for k, line in lines:
        fields = line.split("\t")
        if len(fields) <= max(picked):
            raise InputError(f"{path}, line {k}: {_count(fields, 'field')} between tabs, {max(picked) + 1} are needed")
        found = True
        yield k, tuple(fields[i].strip() for i in picked)
    if not found:
        raise InputError(f"{path}: no rows in it")


def _picked(path: Name, header: list[str], columns: Sequence[str], line: int) -> list[int]:
    """Where the columns stand that are wanted; the header is on this line."""
    for name in columns:
        if name not in header:
            there = ", ".join(name if name.isprintable() else repr(name) for name in header)
            raise InputError(f"{path}, line {line}: no column {name!r}: the header has {there}")
        if header.count(name) > 1:
            what = f"are called {name!r}" if name else "have no name"
            raise InputError(f"{path}, line {line}: {header.count(name)} columns {what}")
    return [header.index(name) for name in columns]


def _names(what: str, given: Any) -> tuple[str, ...]:
    """One name or several. Raises InputError for what is neither."""
    found = (given,) if isinstance(given, str) else given
    if isinstance(found, bytes) or not isinstance(found, Collection) or not all(isinstance(v, str) for v in found):
        raise InputError(f"{what} are names, a list of texts, not {given!r:.80}")
    return tuple(found)


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


# --- CSV ----------------------------------------------------------------------------------------------------

# What stands for a value that is missing: in files of R and pandas, of spreadsheets, and of C on Windows.
_MISSING = {"", "-", "--", ".", "?", "na", "n/a", "<na>", "nan", "-nan", "+nan", "nat", "null", "none"}
_MISSING |= {"#na", "#n/a", "#n/a n/a", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "nan(ind)", "-nan(ind)"}
# What a spreadsheet says of a cell that it cannot compute: the beginning of a row, and of no comment.
_CELLS = {"#NA", "#N/A", "#N/A N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"}
_LIMIT = threading.Lock()  # the longest field that `csv` takes is one number for all threads


@dataclass(frozen=True)
class Table:
    """Columns of numbers: their `names`, their `values`, float64 of shape (rows, columns), and the `lines` of the file
    that the rows stand on, int64 of shape (rows,).

    `dropped` is how many rows were left out for a missing value, `comments` how many lines below the header were passed
    over because they begin with #.
    """

    names: tuple[str, ...]
    values: Floats
    lines: npt.NDArray[np.int64]
    dropped: int = 0
    comments: int = 0

    def __getitem__(self, name: str) -> Floats:
        """One column, (rows,)."""
        return self.values[:, self.names.index(name)]


def read_csv(
    path: Name,
    columns: Sequence[str] = (),
    *,
    missing: str = "error",
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> Table:
    r"""Columns of numbers of a CSV file with a header: a series in time, say.

    `columns` are the names of those that are wanted, all unless given; others may hold anything. A value is missing
    where its field is empty or "NA", "NaN", "?" and the like: then `missing` says whether that is an error ("error"),
    is kept as NaN ("keep"), or the row is left out ("drop"), and the table says how many were. A row of nothing but
    delimiters has missing values. So has, in a file of one column, an empty line between others; of more columns, empty
    lines are passed over. Lines that begin with # are comments; a row may begin with "#" between quotes.

    Raises InputError as `read_text` does, and naming the line for a row that has not as many fields as the header, for
    a field that is no finite number, for a missing one, a quote that is not closed where its field ends, a column that
    is not there or there twice, or a file without rows.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "spots.csv"
        >>> _ = file.write_text("year,spots,who\n1749,80.9,Wolf\n1750,,Wolf\n1751,47.7,Wolf\n")
        >>> table = read_csv(file, ["year", "spots"], missing="drop")
        >>> table.values.tolist(), table.dropped
        ([[1749.0, 80.9], [1751.0, 47.7]], 1)
        >>> read_csv(file, ["spots"])
        Traceback (most recent call last):
        ...
        tinygrad_rnn.errors.InputError: .../spots.csv, line 3: spots is missing (missing="keep" or "drop" allows it)
        >>> folder.cleanup()
    """
    if not isinstance(missing, str) or missing not in ("error", "keep", "drop"):
        raise InputError(f'missing must be "error", "keep" or "drop", not {missing!r:.80}')
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"#+-._\r\n':
        raise InputError(
            f"a delimiter is one character, of which no number is made, such as , or ;, not {delimiter!r:.80}"
        )
    wanted = _names("columns", columns)
    lines = _Lines(path, read_text(path, encoding), delimiter)
    (first, header), rows = _under_header(path, lines.rows())
    picked = _picked(path, header, wanted or _named_columns(header, rows), first)
    values: list[list[float]] = []
    numbers: list[int] = []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {_count(row, 'field')}, and the header has {len(header)}")
        found = [_number(path, line, header, i, row[i]) for i in picked]
        gone = any(map(math.isnan, found))
        if gone and missing == "error":
            name = _named(header, next(i for i, x in zip(picked, found, strict=True) if math.isnan(x)))
            raise InputError(f'{path}, line {line}: {name} is missing (missing="keep" or "drop" allows it)')
        if not gone or missing == "keep":
            values.append(found)
            numbers.append(line)
    if not values:
        raise InputError(f"{path}: a value is missing in every row")
    comments = sum(line > first for line in lines.comments)
    names = tuple(header[i] for i in picked)
    return Table(names, np.array(values), np.array(numbers), len(rows) - len(values), comments)


class _Fields(NamedTuple):
    """A row of a CSV file, and the line that it begins in."""

    line: int
    fields: list[str]


class _Lines:
    """The lines of a CSV file, as `csv.reader` takes them: without comments, which may hold what looks like a quote."""

    def __init__(self, path: Name, text: str, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter
        self.dialect: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": delimiter != " "}
        self.lines = text.removesuffix("\n").split("\n")
        self.given = self.start = 0  # lines given so far, and the number of the first one of the row
        self.fresh = True
        self.comments: list[int] = []
        self.longest = len(text) + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.given < len(self.lines):
            line = self.lines[self.given]
            self.given += 1
            if self.fresh:
                self.start = self.given
                if self._is_comment(line):
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

    def rows(self) -> list[_Fields]:
        """Each row, without blanks around its fields; an empty line has none."""
        found: list[_Fields] = []
        with _LIMIT:
            before = csv.field_size_limit(max(self.longest, csv.field_size_limit()))
            try:
                for row in csv.reader(self, **self.dialect):
                    if self.given > self.start or (row and row[-1].endswith("\n")):
                        self._check_quotes(row, found)
                    blank = len(row) < 2 and not self.lines[self.start - 1].strip()
                    found.append(_Fields(self.start, [] if blank else list(map(str.strip, row))))
                    self.fresh = True
            except csv.Error as error:
                raise InputError(f"{self.path}, line {self.start}: {error}") from None
            finally:
                csv.field_size_limit(before)
        return found

    def _check_quotes(self, row: list[str], before: list[_Fields]) -> None:
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
        known = [i for i, field in enumerate(row[:width]) if _is_number(field)] or range(width)
        for number, line in enumerate(lines[1:], self.start + 1):
            fields = [field.strip() for field in next(csv.reader([line], **self.dialect), [])]
            if len(fields) == width and any(_is_number(fields[i]) for i in known):
                raise InputError(f"{where} and closed in line {self.given}, but line {number} looks like another row")


def _under_header(path: Name, rows: list[_Fields]) -> tuple[_Fields, list[_Fields]]:
    """The header, and the rows below it."""
    at = next((k for k, row in enumerate(rows) if any(row.fields)), len(rows))
    end = max((k for k, row in enumerate(rows) if row.fields), default=-1) + 1
    header = rows[at].fields if at < end else []
    below = [row for row in rows[at + 1 : end] if row.fields or len(header) == 1]
    if not below:
        raise InputError(f"{path}: no rows under a header in it")
    if any(map(_is_number, header)) and all(_is_number(field) or field.lower() in _MISSING for field in header):
        raise InputError(f"{path}, line {rows[at].line}: no header: its fields are all numbers")
    return rows[at], [row if row.fields else _Fields(row.line, [""]) for row in below]


def _named_columns(header: list[str], rows: list[_Fields]) -> list[str]:
    """All columns but those without a name and without values: a delimiter at the end of each line makes one."""
    return [name for i, name in enumerate(header) if name or any(row[i : i + 1] != [""] for _, row in rows)]


def _named(header: list[str], i: int) -> str:
    return header[i] or f"column {i + 1}"


def _number(path: Name, line: int, header: list[str], i: int, field: str) -> float:
    """The finite number in a column, or NaN where it is missing."""
    if _is_number(field):
        return float(field)
    if field.lower() in _MISSING:
        return math.nan
    shown = repr(field) if len(field) < 80 else f"{field[:60]!r} and {len(field) - 60:,} characters more"
    raise InputError(f"{path}, line {line}: {_named(header, i)} is {shown}, not a number")


def _is_number(field: str) -> bool:
    """Whether a field is a finite number. (Python's own notation, 1_000, is none.)"""
    try:
        return "_" not in field and math.isfinite(float(field))
    except ValueError:
        return False
