"""Readers of files: what was written comes back, and every kind of damage is one line that names file and place."""

from __future__ import annotations

import csv
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data import (
    read_blocks,
    read_csv,
    read_idx,
    read_labelled,
    read_parts,
    read_text,
    read_texts,
    read_tsv,
    read_wav,
    read_waveforms,
)
from tinygrad_rnn.errors import InputError

IDX = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that each example writes anew."""
    return tmp_path_factory.mktemp("readers") / "file"


def refused(read: Callable[[Path], Any], path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def idx(array: np.ndarray) -> bytes:
    code = IDX[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


# --- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_idx, read_tsv, read_labelled, read_csv, read_wav, read_waveforms])
def test_files_that_are_not_there(read: Callable[[Path], Any], tmp_path: Path) -> None:
    refused(read, tmp_path / "none", "none: no such file")
    if read is read_waveforms:
        (tmp_path / "f").write_bytes(b"")
        refused(read, tmp_path / "f", "is no folder")
    else:
        refused(read, tmp_path, "is a folder, not a file")


@pytest.mark.parametrize("read", [read_idx, read_tsv, read_labelled, read_csv, read_wav])
@given(raw=st.binary(max_size=80), start=st.sampled_from([b"", b"\0\0\x08\x01", b"\x1f\x8b\x08\0", b"RIFF", b"a,b\n"]))
def test_no_bytes_raise_anything_else(read: Callable[[Path], Any], raw: bytes, start: bytes, file: Path) -> None:
    file.write_bytes(start + raw)
    try:
        read(file)
    except InputError as error:
        assert str(file) in str(error) and "\n" not in str(error)


NO_NAMES: tuple[Any, ...] = (None, 1.5, b"a", [1], [b"a"], print)
OPTIONS: dict[str, tuple[Callable[[Path, Any], Any], tuple[Any, ...], str]] = {
    "columns of a CSV": (lambda p, v: read_csv(p, v), (*NO_NAMES, 2, np.array([1, 2])), "columns are names"),
    "missing": (lambda p, v: read_csv(p, missing=v), ("", None, 0, [], np.array([1, 2])), 'missing must be "error"'),
    "delimiter": (
        lambda p, v: read_csv(p, delimiter=v),
        (",,", None, 5, b",", '"', "\n", "\r", "#", "1", "a", ".", "-", "+", "_", [","]),
        "a delimiter is one character",
    ),
    "encoding": (lambda p, v: read_csv(p, encoding=v), (None, 5, b"utf-8", ["utf-8"]), "an encoding is a name"),
    "columns of a TSV": (lambda p, v: read_tsv(p, v), NO_NAMES, "columns are names"),
    "no columns of a TSV": (lambda p, v: read_tsv(p, v), ([], (), set()), "columns are how many, or the names"),
    "count of columns": (lambda p, v: read_tsv(p, v), (0, -1), "number of columns must be .* at least 1"),
    "two columns": (lambda p, v: read_labelled(p, v), (["a"], "ab", (), ("a", "b", "c")), "columns are two names"),
    "labels": (lambda p, v: read_labelled(p, ("a", "b"), v), NO_NAMES, "names are names"),
    "labels twice": (lambda p, v: read_labelled(p, ("a", "b"), v), (("x", "x"),), "names of labels are given twice"),
    "parts": (lambda p, v: read_parts(p, read_tsv, v), ((), ("a", "b", "c", "d")), "names are those of one to three"),
    "names of parts": (lambda p, v: read_parts(p, read_tsv, v), NO_NAMES, "names are names"),
    "size": (lambda p, v: list(read_blocks(p, size=v)), (0, -1, 1.5, None, True), "the size of a piece must be"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_are_refused_by_name_and_value(option: str, file: Path) -> None:
    read, values, message = OPTIONS[option]
    file.write_text("a,b\n1,2\n3,4\n")
    for value in values:
        with pytest.raises(InputError, match=message) as error:
            print(read(file, value))
        assert repr(value)[:40] in str(error.value)


@pytest.mark.parametrize("read", [read_idx, read_tsv, read_labelled, read_csv, read_wav, read_waveforms, read_text])
def test_what_names_no_file(read: Callable[[Any], Any]) -> None:
    """A number would be the file that is open under it, which is closed when it is read."""
    for value in (None, 0, 7, True, 1.5, ["a.csv"]):
        with pytest.raises(InputError, match="a file has a name, a text or a path, not"):
            read(value)
    with pytest.raises(InputError, match="no file has a zero character in its name"):
        read("a\0b")


def test_bytes_and_numpys_numbers_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("x\ty\n")
    assert read_tsv(os.fsencode(tmp_path / "a.tsv"), np.int64(1)) == [("x",)]  # type: ignore[arg-type]
    assert read_text(os.fsencode(tmp_path / "a.tsv")) == read_texts(tmp_path / "a.tsv")  # type: ignore[arg-type]


# --- IDX ----------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(IDX)), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans(), st.integers(0, 99)
)
def test_idx(file: Path, dtype: str, shape: list[int], compressed: bool, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    raw = idx(array)
    file.write_bytes(gzip.compress(raw) if compressed else raw)
    found = read_idx(file)
    assert found.dtype == array.dtype and found.dtype.isnative and found.flags.writeable
    assert found.shape == array.shape and (found == array).all()


def test_idx_that_is_damaged(file: Path) -> None:
    good = idx(np.arange(24, dtype="u1").reshape(2, 3, 4))
    for raw, message in (
        (b"", "not an IDX file: it begins with the bytes of nothing"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file: a PNG picture"),
        (b"IDX3\r\n", "not an IDX file: it begins with the bytes 49 44 58 33"),
        (b"\0\0\x07\x01" + bytes(8), "not an IDX file"),
        (b"\0\0\x08\x00", "not an IDX file"),
        (good[:10], "cut off: 10 bytes, and the lengths of 3 axes end at byte 16"),
        (good[:-1], r"cut off: 39 bytes, and an array \(2, 3, 4\) of uint8 needs 40"),
        (good + b"x", "too long: 41 bytes"),
        (gzip.compress(good)[:-9], "damaged: "),
        (gzip.compress(good)[:20] + b"spoilt", "damaged: "),
        (b"\0\0\x0e\x02" + b"\xff" * 8, r"cut off: 12 bytes, and an array \(4294967295, 4294967295\) of float64"),
    ):
        file.write_bytes(raw)
        refused(read_idx, file, message)


# --- TSV ----------------------------------------------------------------------------------------------------

FIELD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=4)


@given(
    st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from(["\n", "\r\n"]),
)
def test_tsv(file: Path, rows: list[tuple[str, str, str]], columns: int, newline: str) -> None:
    file.write_bytes(newline.join(["\t".join(row) for row in rows] + [""]).encode())
    assert read_tsv(file, columns) == [row[:columns] for row in rows]
    file.write_bytes(newline.join(["one\ttwo \tthree", "", *("\t".join(row) for row in rows)]).encode())
    assert read_tsv(file, ("three", "two")) == [(row[2], row[1]) for row in rows]


def test_labelled(file: Path) -> None:
    file.write_text('label\tid\tsentence\npos\t7\ta good film \nneg\t8\tnot "good\n\npos\t9\tfine\n')
    found = read_labelled(file)
    assert found.texts == ["a good film", 'not "good', "fine"]
    assert found.names == ("neg", "pos") and found.labels.tolist() == [1, 0, 1] and found.labels.dtype == np.int64
    assert read_labelled(file, names=("pos", "neg")).labels.tolist() == [0, 1, 0]
    assert read_labelled(file, ("id", "label")).texts == ["7", "8", "9"]


def test_labels_in_any_table(file: Path) -> None:
    rows = '1.0;"Good; really.\n\nVery ""good""."\n0.5;#dull\n'
    file.write_text("\ufeffstars;review\n" + rows, encoding="utf-8")
    found = read_labelled(file, ("review", "stars"))
    assert found.texts == ['Good; really.\n\nVery "good".', "#dull"] and found.names == ("0.5", "1.0")
    refused(
        lambda path: read_labelled(path, ("text", "stars")), file, "no column 'text': the header has stars, review: ch"
    )
    cases = {
        'sentence,label\n"fine, I say,pos\n': "line 2: a quote is opened and never closed",
        'sentence,label\n"fine,pos\ndull,neg\n"so, so",pos\n': "line 2: a quote is opened and not closed where its",
        'sentence,label\n"fine,pos\ndull,neg\nso",pos\nbad,neg\n': (
            "line 2: a quote is opened, and in it is 'dull,neg', which looks like another row"
        ),
        "sentence,label\nfine, I say,pos\n": "line 2: 3 fields, and the header has 2",
    }
    for text, message in cases.items():
        file.write_text(text)
        refused(read_labelled, file, message)


def test_tsv_that_is_wrong(file: Path) -> None:
    cases: list[tuple[str, Callable[[Path], Any], str]] = [
        ("a\tb\n\nc\n", read_tsv, "line 3: 1 field between tabs, 2 are needed"),
        ("a\tb\n", lambda path: read_tsv(path, 3), "line 1: 2 fields between tabs, 3 are needed"),
        ("a\tb\n\t\nc\td\n", lambda path: read_tsv(path, filled=True), "line 2: field 1 of 2 is empty"),
        ("sentence\tlabel\na\t1\n\t\n", read_labelled, "line 3: the sentence is empty"),
        ("\nsentence\tlabel\na\t1\n", lambda path: read_tsv(path, ("who",)), "line 2: no column 'who'"),
        ("a\tb\n\n \tc\td\n", lambda path: read_tsv(path, filled=True), "line 3: field 1 of 2 is empty"),
        ("a\tb\nc\t\td\n", lambda path: read_tsv(path, filled=True), "line 2: field 2 of 2 is empty"),
        ("\n \n", read_tsv, "no rows in it"),
        ("sentence\tlabel\n", read_labelled, "no rows under a header in it"),
        ("text\tlabel\na\t1\n", read_labelled, "line 1: no column 'sentence': the header has text, label"),
        ("label\tlabel\tsentence\n1\t2\ta\n", read_labelled, "line 1: 2 columns are called 'label'"),
        ("sentence\tlabel\na\t1\n\t0\n", read_labelled, "line 3: the sentence is empty"),
        ("sentence\tlabel\na\t1\nb\t \n", read_labelled, "line 3: the label is empty"),
        ("sentence\tlabel\na\t1\nb\t2\n", lambda path: read_labelled(path, names=("0", "1")), "'2', none of 0, 1"),
    ]
    for text, read, message in cases:
        file.write_text(text)
        refused(read, file, message)
    file.write_text("a\tb\n\t\n \nc\td\n")
    assert read_tsv(file) == [("a", "b"), ("", ""), ("c", "d")]  # a tab divides two empty fields
    file.write_bytes("a\tb\r\n".encode("utf-16"))
    assert read_tsv(file) == [("a", "b")]
    file.write_bytes(b"caf\xe9\t1\n")
    refused(read_tsv, file, "not utf-8")
    assert read_tsv(file, encoding="latin-1") == [("café", "1")]


# --- CSV ----------------------------------------------------------------------------------------------------

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_csv(file: Path, rows: list[tuple[float, float]], delimiter: str) -> None:
    lines = ["year| x |who", *(f'{a!r}|"{b!r}"|"a, ""b"""' for a, b in rows)]
    file.write_text("# a note\n\n" + "\n".join(line.replace("|", delimiter) for line in lines) + "\n")
    table = read_csv(file, ["x", "year"], delimiter=delimiter)
    assert table.names == ("x", "year") and table.values.dtype == np.float64
    assert table.values.tolist() == [[b, a] for a, b in rows] and table["year"].tolist() == [a for a, _ in rows]
    assert table.lines.tolist() == [k + 4 for k in range(len(rows))]


def test_missing_values(file: Path) -> None:
    file.write_text("t,x\n1,2\n2,NA\n3,\n4,nan\n5,-1e3\n")
    refused(read_csv, file, r'line 3: x is missing \(missing="keep" or "drop" allows it\)')
    kept = read_csv(file, missing="keep")
    assert kept["t"].tolist() == [1, 2, 3, 4, 5] and np.isnan(kept["x"]).tolist() == [False, True, True, True, False]
    dropped = read_csv(file, missing="drop")
    assert dropped.values.tolist() == [[1, 2], [5, -1000]] and dropped.lines.tolist() == [2, 6]
    assert read_csv(file, ["t"]).values.shape == (5, 1)  # what is not wanted may be missing
    with pytest.raises(ValueError, match='missing must be "error", "keep" or "drop", not \'ignore\''):
        read_csv(file, missing="ignore")


def test_csv_that_is_wrong(file: Path) -> None:
    for text, message in (
        ("t,x\n1,2\n2,three\n", "line 3: x is 'three', not a number"),
        ("t,x\n1,1_000\n", "line 2: x is '1_000', not a number"),
        ("t,x\n1,inf\n", "line 2: x is 'inf', not a number"),
        ("t,x\n1,2,3\n", "line 2: 3 fields, and the header has 2"),
        ("t,x\n1\n", "line 2: 1 field, and the header has 2"),
        ("t,x\n\n", "no rows under a header"),
        ("1,2\n3,4\n", "line 1: no header: its fields are all numbers"),
    ):
        file.write_text(text)
        refused(read_csv, file, message)
    file.write_text("t,x\n1,2\n")
    refused(lambda path: read_csv(path, ["y"]), file, "line 1: no column 'y': the header has t, x")
    file.write_text("t,x\n1,\n")
    refused(lambda path: read_csv(path, missing="drop"), file, "a value is missing in every row")
    file.write_text("t,x,x\n1,2,3\n")
    refused(read_csv, file, "line 1: 2 columns are called 'x'")
    for text, message in (
        ("\n# note\nt,x\n1,2\n", "line 3: no column 'y': the header has t, x"),
        ('"a\nb",x\n1,2\n', r"line 1: no column 'y': the header has 'a\\nb', x"),
    ):
        file.write_text(text)
        refused(lambda path: read_csv(path, ["y"]), file, message)


TX = "t,x\n1,2\n"
EVERY_ROW = {
    "delimiters alone": ("t,x\n,\n1,2\n", [[None, None], [1, 2]], [2, 3]),
    "empty between quotes": ('x\n1\n""\n3\n', [[1], [None], [3]], [2, 3, 4]),
    "an empty line in one column": ("x\n1\n\n3\n \n5\n\n\n", [[1], [None], [3], [None], [5]], [2, 3, 4, 5, 6]),
    "empty lines in two columns": ("\n\nt,x\n\n1,2\n  \n3,4\n\n", [[1, 2], [3, 4]], [5, 7]),
    "delimiters above the header": (",\nt,x\n1,2\n", [[1, 2]], [3]),
    "a # between quotes": ('who,t\n"#1",2\n "#2",3\n', [[2], [3]], [2, 3]),
    "a cell that could not be computed": (
        "t,x\n#N/A,2\n#n/a,3\n1,#N/A\n",
        [[None, 2], [None, 3], [1, None]],
        [2, 3, 4],
    ),
    "a column called #": ("#,t\n1,2\n# one, two\n3,4\n", [[1, 2], [3, 4]], [2, 4]),
    "a comment with a quote": (f'# 3, "\n{TX}# a, "b\n3,4\n', [[1, 2], [3, 4]], [3, 5]),
    "a quote in a field": ('t,who\n1,5" by 3"\n2,it\'s\n', [[1], [2]], [2, 3]),
    "text after a quote": ('t,who\n1,"big" dog\n2,b\n', [[1], [2]], [2, 3]),
    "quotes after a blank": ('t, "who, where"\n1, "a, b"\n', [[1]], [2]),
    "a note of several lines": ('t,who\n1,"a\n\nb, c, d"\n2,"x ""y""\n"\n3,\n', [[1], [2], [3]], [2, 5, 7]),
    "a name of several lines": ('"load\n[kW]",t\n1,2\n', [[2]], [3]),
    "a delimiter at each end": ("t,x,\n1,2,\n3,4,\n", [[1, 2], [3, 4]], [2, 3]),
    "columns without a name": (",t\n7,1\n8,2\n", [[7, 1], [8, 2]], [2, 3]),
    "a mark, and no last newline": ("\ufefft,x\r\n1,2\r\n3,4", [[1, 2], [3, 4]], [2, 3]),
    "carriage returns": ("t,x\r1,2\r3,4\r", [[1, 2], [3, 4]], [2, 3]),
    "ways to write NaN": ("x\nNaN\n-nan\n<NA>\n1.#QNAN\nNULL\n--\n", [[None]] * 6, [2, 3, 4, 5, 6, 7]),
}


@pytest.mark.parametrize(("text", "rows", "lines"), EVERY_ROW.values(), ids=EVERY_ROW)
def test_no_row_is_lost(text: str, rows: list[list[float | None]], lines: list[int], file: Path) -> None:
    file.write_text(text, encoding="utf-8", newline="")
    header = ["t"] if "who" in text or "load" in text else ()
    kept = read_csv(file, header, missing="keep")
    assert [[None if np.isnan(x) else x for x in row] for row in kept.values.tolist()] == rows
    assert kept.lines.tolist() == lines and kept.dropped == 0 and kept.comments == text.count("\n# ")
    whole = [row for row in rows if None not in row]
    if len(whole) < len(rows):
        gone = lines[[None in row for row in rows].index(True)]
        refused(lambda path: read_csv(path, header), file, f"line {gone}: .* is missing")
    if whole:
        table = read_csv(file, header, missing="drop")
        assert table.values.tolist() == whole and table.dropped == len(rows) - len(whole)


def test_fields_may_be_long(file: Path) -> None:
    before = csv.field_size_limit()
    file.write_text(f'x,note\n1,{"a" * 200_000}\n2,"{"b" * 300_000}"\n')
    assert read_csv(file, ["x"])["x"].tolist() == [1, 2] and csv.field_size_limit() == before
    refused(read_csv, file, r"line 2: note is 'a{60}' and 199,940 characters more, not a number")


QUOTES = {
    "line 3: a quote is opened and never closed": 't,who\n1,a\n2,"b\n3,c\n',
    "line 4: a quote is opened and never closed": 'x\n1\n2\n"3',
    "line 2: a quote is opened and never closed": 't,who\n1,"a\n',
    "line 3: a quote is opened and not closed where its field ends: the next quote is in line 5": (
        't,who\n1,a\n2,"b\n3,c\n4,"d"\n5,e\n'
    ),
    "line 3: a quote is opened and closed in line 5, but line 4 looks like another row": (
        't,who\n1,a\n2,"b\n3,c\n4,d"\n5,e\n'
    ),
    "line 2: a quote is opened and closed in line 3, but line 3 looks like another row": 'who,t\n"a,1\nb",2\n',
    "line 1: a quote is opened and closed in line 3, but line 2 looks like another row": 't,"x\n1,2\n3,4"\n5,6\n',
    "line 2: x is '1.n2', not a number": 'x\n"1\n2"\n',
}


@pytest.mark.parametrize(("message", "text"), QUOTES.items(), ids=QUOTES)
def test_a_quote_that_is_not_closed_hides_no_row(message: str, text: str, file: Path) -> None:
    file.write_text(text)
    refused(lambda path: read_csv(path, ["t"] if "t" in text else ["x"], missing="keep"), file, message)


@pytest.mark.parametrize(
    "field",
    ["1,5", "1.234,5", "1,234.5", "1 234", "1'234", "12%", "€5", "0x10", "1_0", "inf", "-Infinity", "1e999", "TRUE",
     "2024-02-30", "−5", "½", "5 kW"],
)  # fmt: skip
def test_what_is_no_number_is_refused(field: str, file: Path) -> None:
    file.write_text(f"t;x\n1;2\n3;{field}\n", encoding="utf-8")
    refused(lambda path: read_csv(path, ["x"], delimiter=";"), file, f"line 3: x is {field!r}, not a number")
    assert read_csv(file, "t", delimiter=";")["t"].tolist() == [1, 3]


@pytest.mark.parametrize("text", ["1,NA\n2,3\n", "1,\n2,\n", "5,nan\n6,7\n"])
def test_a_first_row_is_no_header_though_a_value_is_missing(text: str, file: Path) -> None:
    file.write_text(text)
    refused(lambda path: read_csv(path, missing="keep"), file, "line 1: no header: its fields are all numbers")


@given(
    st.lists(
        st.lists(st.sampled_from(["", "1", "-2.5", "nan", '"3"', '" 4 "', '""']), min_size=2, max_size=2), min_size=1
    ),
    st.sampled_from(["keep", "drop"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_each_row_is_kept_or_counted(file: Path, rows: list[list[str]], missing: str, newline: str, last: bool) -> None:
    text = newline.join(["t,x", *(",".join(row) for row in rows)]) + newline * last
    file.write_text(text, newline="")
    try:
        table = read_csv(file, missing=missing)
    except InputError as error:
        assert missing == "drop" and "missing in every row" in str(error)
    else:
        assert len(table.values) + table.dropped == len(rows) and (missing == "drop" or not table.dropped)
        assert 2 <= table.lines[0] <= table.lines[-1] <= len(rows) + 1


# --- parts --------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[str]:
    return path.read_text().split()


def test_a_file_is_split_at_random(tmp_path: Path) -> None:
    file = tmp_path / "all.txt"
    file.write_text("\n".join(map(str, range(50))))
    parts, again, other = (read_parts(file, lines, seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in parts] == [40, 5, 5] and parts == again != other
    assert sorted(int(row) for part in parts for row in part) == list(range(50))


def test_a_folder_has_its_parts_as_files(tmp_path: Path) -> None:
    for name, count in {"train": 40, "val": 3, "test": 4}.items():
        (tmp_path / f"{name}.tsv").write_text("\n".join(f"{name}-{k}" for k in range(count)))
    parts = read_parts(tmp_path, lines)
    assert [len(part) for part in parts] == [40, 3, 4] and parts[1] == ["val-0", "val-1", "val-2"]
    train, choose, test = read_parts(tmp_path, lines, ("train", "val"))
    assert (len(train), len(choose)) == (38, 2) and test == ["val-0", "val-1", "val-2"]
    assert sorted(train + choose) == sorted(f"train-{k}" for k in range(40))


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("eins\tone")
    with pytest.raises(InputError, match=r"val\.tsv"):
        read_parts(tmp_path, read_tsv)
    with pytest.raises(InputError, match="1 examples are too few"):
        read_parts(tmp_path / "train.tsv", read_tsv)
