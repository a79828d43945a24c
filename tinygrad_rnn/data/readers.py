"""Files that data comes in: IDX (pictures), TSV (labelled or paired sentences), CSV (series).

Each reader returns arrays or plain lists, and raises `InputError` in one line that names the file, the place and the
reason.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.batches import split_at_random
from tinygrad_rnn.data.kinds import HEAD, kind_of
from tinygrad_rnn.data.text import read_bytes, read_text
from tinygrad_rnn.errors import InputError

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
    in the first line. Further fields, and lines that are empty, are passed over. Nothing is quoted.

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
    path = Path(path)
    first, *rest = [read(path / f"{name}.tsv") for name in names] if path.is_dir() else [read(path)]
    if len(rest) == 2:
        return [list(first), *map(list, rest)]
    cuts = split_at_random(len(first), (0.95, 0.05) if rest else (0.8, 0.1, 0.1), seed)
    return [*([first[i] for i in cut] for cut in cuts), *map(list, rest)]


def _tsv_rows(path: Name, columns: int | Sequence[str], encoding: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The number of each line that is not empty, and its fields that are wanted."""
    lines = ((k, line) for k, line in enumerate(read_text(path, encoding).split("\n"), 1) if line.strip())
    picked = list(range(columns)) if isinstance(columns, int) else []
    if not isinstance(columns, int):
        _, header = next(lines, (1, ""))
        picked = _picked(path, [name.strip() for name in header.split("\t")], columns)
    found = False
    for k, line in lines:
        fields = line.split("\t")
        if len(fields) <= max(picked):
            raise InputError(f"{path}, line {k}: {_count(fields, 'field')} between tabs, {max(picked) + 1} are needed")
        found = True
        yield k, tuple(fields[i].strip() for i in picked)
    if not found:
        raise InputError(f"{path}: no rows in it")


def _picked(path: Name, header: list[str], columns: Sequence[str]) -> list[int]:
    """Where the columns stand that are wanted."""
    for name in columns:
        if name not in header:
            raise InputError(f"{path}, line 1: no column {name!r}: the header has {', '.join(header)}")
        if header.count(name) > 1:
            raise InputError(f"{path}, line 1: {header.count(name)} columns are called {name!r}")
    return [header.index(name) for name in columns]


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


# --- CSV ----------------------------------------------------------------------------------------------------

_MISSING = {"", "-", ".", "?", "na", "n/a", "nan", "null", "none"}


@dataclass(frozen=True)
class Table:
    """Columns of numbers: their `names`, their `values`, float64 of shape (rows, columns), and the `lines` of the file
    that the rows stand on, int64 of shape (rows,).
    """

    names: tuple[str, ...]
    values: Floats
    lines: npt.NDArray[np.int64]

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
    is kept as NaN ("keep"), or the row is left out ("drop"). Lines that are empty, or begin with #, are passed over.

    Raises InputError as `read_text` does, and naming the line for a row that has not as many fields as the header, for
    a field that is no finite number, for a missing one, a column that is not there, or a file without rows.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "spots.csv"
        >>> _ = file.write_text("year,spots,who\n1749,80.9,Wolf\n1750,,Wolf\n1751,47.7,Wolf\n")
        >>> read_csv(file, ["year", "spots"], missing="drop").values.tolist()
        [[1749.0, 80.9], [1751.0, 47.7]]
        >>> read_csv(file, ["spots"])
        Traceback (most recent call last):
        ...
        tinygrad_rnn.errors.InputError: .../spots.csv, line 3: spots is missing (missing="keep" or "drop" allows it)
        >>> folder.cleanup()
    """
    if missing not in ("error", "keep", "drop"):
        raise ValueError(f'missing must be "error", "keep" or "drop", not {missing!r}')
    reader = csv.reader(io.StringIO(read_text(path, encoding), newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [f.strip() for f in row]) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None
    rows = [(line, row) for line, row in rows if any(row) and not row[0].startswith("#")]
    if len(rows) < 2:
        raise InputError(f"{path}: no rows under a header in it")
    first, header = rows[0]
    if all(_is_number(field) for field in header):
        raise InputError(f"{path}, line {first}: no header: its fields are all numbers")
    picked = _picked(path, header, columns) if columns else list(range(len(header)))
    values: list[list[float]] = []
    lines: list[int] = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {_count(row, 'field')}, and the header has {len(header)}")
        numbers = [_number(path, line, header[i], row[i]) for i in picked]
        gone = [header[i] for i, x in zip(picked, numbers, strict=True) if math.isnan(x)]
        if gone and missing == "error":
            raise InputError(f'{path}, line {line}: {gone[0]} is missing (missing="keep" or "drop" allows it)')
        if not gone or missing == "keep":
            values.append(numbers)
            lines.append(line)
    if not values:
        raise InputError(f"{path}: a value is missing in every row")
    return Table(tuple(header[i] for i in picked), np.array(values), np.array(lines))


def _number(path: Name, line: int, column: str, field: str) -> float:
    """A finite number, or NaN where it is missing."""
    if field.lower() in _MISSING:
        return math.nan
    if not _is_number(field):
        raise InputError(f"{path}, line {line}: {column} is {field!r}, not a number")
    return float(field)


def _is_number(field: str) -> bool:
    """Whether a field is a finite number. (Python's own notation, 1_000, is none.)"""
    try:
        return "_" not in field and math.isfinite(float(field))
    except ValueError:
        return False
