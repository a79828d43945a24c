"""Tables as text: which delimiter, what a quote is, and every row. What must not be lost is in test_readers.py."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data.rows import read_table
from tinygrad_rnn.errors import InputError


@pytest.mark.parametrize(
    ("text", "columns", "delimiter", "header"),
    [
        ("a,b\n1,2\n", (), ",", ["a", "b"]),
        ("a;b\n1,5;2\n", (), ";", ["a", "b"]),
        ("a\tb\n1,5\t2\n", (), "\t", ["a", "b"]),
        ("a|b\n1|2\n", (), "|", ["a", "b"]),
        ('a;"b, c, d"\n1;2\n', "a", ";", ["a", "b, c, d"]),
        ("t,x;y\n1,2\n", "t", ",", ["t", "x;y"]),
        ("x\n1\n", (), ",", ["x"]),
        ("x\n1,5\n", (), ";", ["x"]),
        ("# a;b;c\na,b\n1,2\n", (), ",", ["a", "b"]),
        ("sep=;\na,b;c,d\n1;2\n", (), ";", ["a,b", "c,d"]),
        ("sep=\t\na\tb\n1\t2\n", (), "\t", ["a", "b"]),
    ],
)
def test_the_header_says_what_the_delimiter_is(text: str, columns: str, delimiter: str, header: list[str]) -> None:
    found = read_table("f", text, columns)
    assert (found.delimiter, found.header.fields) == (delimiter, header)
    assert found.rows[0].line == text.count("\n")


def test_two_delimiters_are_one_too_many() -> None:
    with pytest.raises(
        InputError, match="its header falls into 2 fields by a comma and by a semicolon: choose the del"
    ):
        read_table("f", "a,b;c\n1;2\n")
    assert read_table("f", "a,b;c\n1;2\n", delimiter=";").rows[0].fields == ["1", "2"]


def test_a_title_is_no_header() -> None:
    message = (
        "f, line 2: the header has one column, and a comma divides the lines below it, from line 4 on: take away the"
    )
    with pytest.raises(InputError, match=message):
        read_table("f", "\nCategory: all\n\nweek,x\n2024-01-07,5\n2024-01-14,6\n", "x")
    assert read_table("f", 'x\n"1.234,5 €"\n-5,5\n').rows[1].fields == ["-5,5"]


def test_a_column_that_is_not_there_has_a_hint() -> None:
    read = lambda delimiter: read_table("f", "a;b\n1;2\n", ("c",), delimiter, hints=["choose another column"])
    with pytest.raises(InputError, match="f, line 1: no column 'c': the header has a, b: choose another column"):
        read("")
    with pytest.raises(InputError, match="f, line 1: no column 'c': the header has a;b: choose the delimiter"):
        read(",")


TSV = {
    "no quotes": ("a b\tc\n", [["a b", "c"]]),
    "around every field": ('"a"\t"c"\n"d"\t"e"\n', [["a", "c"], ["d", "e"]]),
    "tabs, quotes and line breaks between them": (
        '"a\tb\n""c"", d"\t"e\n"\nf\tg\n',
        [['a\tb\n"c", d', "e"], ["f", "g"]],
    ),
    "plain, one at a beginning": ('"a" b\tc\nd\te\n', [['"a" b', "c"], ["d", "e"]]),
    "plain, opened and never closed": ('"a\tb\nc\td\n', [['"a', "b"], ["c", "d"]]),
    "plain, in the middle": ('5" by 3\tb\n', [['5" by 3', "b"]]),
}


@pytest.mark.parametrize(("text", "rows"), TSV.values(), ids=TSV)
def test_quotes_in_a_file_with_tabs(text: str, rows: list[list[str]]) -> None:
    assert [row.fields for row in read_table("f", f"x\ty\n{text}").rows] == rows


def test_a_quote_that_may_be_either_is_refused() -> None:
    with pytest.raises(
        InputError, match="f, line 3: a quote is opened that may be plain, or around a field of several"
    ):
        read_table("f", 'x\ty\nc\td\n"a\tb\nc\td\ne"\tf\n')


FIELD = st.text(st.sampled_from('ab"\n,;\t#'), min_size=1, max_size=5).filter(lambda x: x == x.strip())


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=4), st.sampled_from(",;\t|"), st.booleans())
def test_what_python_writes_comes_back(rows: list[tuple[str, str]], delimiter: str, every: bool) -> None:
    """Or it is refused: two stray quotes look the same as a field of two lines."""
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=quoting)
    writer.writerows([("xx", "yy"), *rows])
    try:
        found = read_table("f", file.getvalue(), ("xx", "yy"), notes=False)
    except InputError as error:
        assert delimiter == "\t" and "may be plain" in str(error)
        return
    assert [tuple(row.fields) for row in found.rows] == rows and found.delimiter == delimiter
