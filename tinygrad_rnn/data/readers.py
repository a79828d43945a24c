"""Files that data comes in: IDX (pictures), tables of labelled texts, pairs and numbers (TSV, CSV).

Each reader returns arrays or plain lists, and raises `InputError` in one line that names the file, the place and the
reason.
"""

from __future__ import annotations

import gzip
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
from tinygrad_rnn.data.numbers import is_missing, is_number, shown
from tinygrad_rnn.data.rows import Row, Rows, as_names, count, find_columns, read_table
from tinygrad_rnn.data.text import checked_path, read_bytes, read_text
from tinygrad_rnn.errors import InputError
from tinygrad_rnn.scalars import as_integer, whole

Example = TypeVar("Example")
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
    path: Name,
    columns: tuple[str, str] = ("sentence", "label"),
    names: Collection[str] = (),
    encoding: str = "utf-8",
    *,
    delimiter: str = "",
) -> Labelled:
    r"""The texts and labels of a table with a header: of a TSV file, as SST-2 has them, of a CSV file, or another.

    `columns` are the names of the two in the header. `names` are the labels there may be, in the order of their ids;
    without them, those that occur, sorted. `delimiter`, and how line breaks and quotes in a text are read, as in
    `tinygrad_rnn.data.rows.read_table`.

    Raises InputError as `read_text` and `read_table` do, and for a row whose text is empty, whose label is empty or
    none of `names`, or with lines in a quoted text that look like other rows.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "reviews.csv"
        >>> _ = file.write_text('stars,review\n5,"Good.\nReally, good."\n1,Dull\n')
        >>> read_labelled(file, ("review", "stars"))
        Labelled(texts=['Good.\nReally, good.', 'Dull'], labels=array([1, 0]), names=('1', '5'))
        >>> folder.cleanup()
    """
    if len(wanted := as_names("columns", columns)) != 2:
        raise InputError(f"columns are two names, of the texts and of the labels, not {columns!r:.80}")
    if len(set(names := as_names("names", names))) < len(names):
        raise InputError(f"names of labels are given twice: {names!r:.80}")
    hints = ["choose the column of the texts", "choose the column of the labels"]
    table = read_table(path, read_text(path, encoding), wanted, delimiter, notes=False, hints=hints)
    at, of = find_columns(path, table.header, wanted)
    _check_texts(table, of)
    for line, fields in table.rows:
        if not fields[at]:
            raise InputError(f"{path}, line {line}: the {wanted[0]} is empty")
        if not (label := fields[of]) or (names and label not in names):
            why = f"none of {', '.join(names)}" if names else "empty"
            raise InputError(f"{path}, line {line}: the {wanted[1]} is {f'{label!r}, ' if label else ''}{why}")
    labels = [row.fields[of] for row in table.rows]
    known = tuple(names) or tuple(sorted(set(labels)))
    ids = {name: k for k, name in enumerate(known)}
    return Labelled([row.fields[at] for row in table.rows], np.array([ids[label] for label in labels]), known)


def _check_texts(table: Rows, of: int) -> None:
    """Raise InputError for a quoted text that has a row of the table in it: its quote is closed too late."""
    known = {row.fields[of] for row in table.rows if not any("\n" in field for field in row.fields)}
    for line, fields in table.rows:
        for part in (part for field in fields if "\n" in field for part in field.split("\n")):
            inner = part.split(table.delimiter)
            if len(inner) == len(fields) and inner[of].strip() in known:
                what = f"a quote is opened, and in it is {shown(part)}, which looks like another row"
                raise InputError(f"{table.path}, line {line}: {what}")


def read_parts(
    path: Name,
    read: Callable[[Path], Sequence[Example]],
    names: Sequence[str] = ("train", "val", "test"),
    seed: int = 0,
    *,
    endings: Sequence[str] = (".tsv",),
) -> list[list[Example]]:
    r"""The rows of a file or folder in three parts: to train on, to choose by, to test with.

    `read` returns the rows of one file. A file is split at random, 80 : 10 : 10. A folder has a file for each of the
    `names`, with one of the `endings`: three are the three parts; of two, the first is split 95 : 5, and the second is
    the test. Raises InputError as `read` and `split_at_random` do, and for a name with two endings.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "pairs.tsv"
        >>> _ = file.write_text("eins\tone\nzwei\ttwo\n" * 10)
        >>> [len(part) for part in read_parts(file, read_tsv)]
        [16, 2, 2]
        >>> folder.cleanup()
    """
    if not 1 <= len(names := as_names("names", names)) <= 3:
        raise InputError(f"names are those of one to three files, not of {len(names)}: {names!r:.80}")
    path = Path(checked_path(path))
    first, *rest = [read(_part(path, name, endings)) for name in names] if path.is_dir() else [read(path)]
    if len(rest) == 2:
        return [list(first), *map(list, rest)]
    try:
        cuts = split_at_random(len(first), (0.95, 0.05) if rest else (0.8, 0.1, 0.1), seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return [*([first[i] for i in cut] for cut in cuts), *map(list, rest)]


def _part(folder: Path, name: str, endings: Sequence[str]) -> Path:
    """The file of a part."""
    found = [file for ending in endings if (file := folder / f"{name}{ending}").exists()]
    if len(found) > 1:
        raise InputError(f"{folder}: there are {' and '.join(file.name for file in found)}: which is the part?")
    return found[0] if found else folder / f"{name}{endings[0]}"


def _tsv_rows(path: Name, columns: int | Sequence[str], encoding: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The number of each line that is not empty, and its fields that are wanted."""
    many = as_integer(columns)
    wanted = range(whole("the number of columns", many, 1)) if many is not None else as_names("columns", columns)
    if not wanted:
        raise InputError(f"columns are how many, or the names of some, not {columns!r:.80}")
    numbered = enumerate(read_text(path, encoding).split("\n"), 1)
    lines = ((k, line) for k, line in numbered if "\t" in line or line.strip())  # a tab divides two empty fields
    if isinstance(wanted, range):
        picked = list(wanted)
    else:
        first, header = next(lines, (1, ""))
        picked = find_columns(path, Row(first, [name.strip() for name in header.split("\t")]), wanted)
    found = False
    for k, line in lines:
        fields = line.split("\t")
        if len(fields) <= max(picked):
            raise InputError(f"{path}, line {k}: {count(fields)} between tabs, {max(picked) + 1} are needed")
        found = True
        yield k, tuple(fields[i].strip() for i in picked)
    if not found:
        raise InputError(f"{path}: no rows in it")


# --- CSV ----------------------------------------------------------------------------------------------------


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
    delimiter: str = "",
    encoding: str = "utf-8",
) -> Table:
    r"""Columns of numbers of a CSV file with a header: a series in time, say.

    `columns` are the names of those that are wanted, all unless given; others may hold anything. A value is missing
    where its field is empty or "NA", "NaN", "?" and the like: then `missing` says whether that is an error ("error"),
    is kept as NaN ("keep"), or the row is left out ("drop"), and the table says how many were. A row of nothing but
    delimiters has missing values. So has, in a file of one column, an empty line between others; of more columns, empty
    lines are passed over. Lines that begin with # are comments; a row may begin with "#" between quotes. Without a
    `delimiter`, it is what the header is divided by: , ; tab or |. Numbers are written as programs write them;
    `read_series` reads those that people write.

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
    columns = as_names("columns", columns)
    table = read_table(path, read_text(path, encoding), columns, delimiter)
    header = table.header.fields
    picked = find_columns(path, table.header, columns or _named_columns(table))
    values: list[list[float]] = []
    numbers: list[int] = []
    where = {i: table.where(i) for i in picked}
    for k, row in enumerate(table.rows):
        found = [_number(row.fields[i], k, where[i]) for i in picked]
        gone = next((i for i, x in zip(picked, found, strict=True) if math.isnan(x)), None)
        if gone is not None and missing == "error":
            raise InputError(f'{where[gone](k)} is missing (missing="keep" or "drop" allows it)')
        if gone is None or missing == "keep":
            values.append(found)
            numbers.append(row.line)
    if not values:
        raise InputError(f"{path}: a value is missing in every row")
    names = tuple(header[i] for i in picked)
    return Table(names, np.array(values), np.array(numbers), len(table.rows) - len(values), table.comments)


def _named_columns(table: Rows) -> list[str]:
    """All columns but those without a name and without values: a delimiter at the end of each line makes one."""
    return [name for i, name in enumerate(table.header.fields) if name or any(row.fields[i] for row in table.rows)]


def _number(field: str, k: int, where: Callable[[int], str]) -> float:
    """The finite number in a field, or NaN where it is missing."""
    if is_number(field):
        return float(field)
    if is_missing(field):
        return math.nan
    raise InputError(f"{where(k)} is {shown(field)}, not a number")
