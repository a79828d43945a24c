"""Numbers as people write them: right or refused, and never one for another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.data.numbers import read_numbers
from tinygrad_rnn.errors import InputError

READ = {
    "1234.5": (1234.5, ".", ""),
    "1,234.5": (1234.5, ".", ""),
    "1.234,5": (1234.5, ",", ""),
    "1 234,5": (1234.5, ",", ""),
    "1\u202f234\u202f567,5 €": (1234567.5, ",", "€"),
    "CHF 1'234.50": (1234.5, ".", "CHF"),
    "1’234": (1234, ".", ""),
    "1,234,567": (1234567, ".", ""),
    "0,5": (0.5, ",", ""),
    ",5": (0.5, ",", ""),
    "1,5": (1.5, ",", ""),
    "0.123": (0.123, ".", ""),
    "-5e-3": (-0.005, ".", ""),
    "−5": (-5, ".", ""),
    "$.50": (0.5, ".", "$"),
    "-$5": (-5, ".", "$"),
    "$ -5": (-5, ".", "$"),
    "(1,234.50)": (-1234.5, ".", ""),
    "1.234,50- EUR": (-1234.5, ",", "EUR"),
    "Rs.500": (500, ".", "Rs."),
    "US$ 1,200.0": (1200, ".", "US$"),
    "5 kW/m²": (5, ".", "kW/m²"),
    "12%": (12, ".", "%"),
}


@pytest.mark.parametrize("field", READ)
def test_what_people_write(field: str) -> None:
    value, decimal, unit = READ[field]
    found = read_numbers([field, "NA"], "row {}".format)
    assert found.values[0] == value and np.isnan(found.values[1]) and (found.decimal, found.unit) == (decimal, unit)


@pytest.mark.parametrize(
    "field",
    ["0x10", "1_0", "inf", "-Infinity", "1e999", "TRUE", "2024-02-30", "½", "5 m2", "1.2.3", "1 23", "1,23,456", "5,-",
     "01.02.2024", "12:30", "--5", "(-5)", "(5", "5)", "٣", "1٣", "5-7", "1.234'567,8.9", "a" * 99 + "11", "Q1 2024"],
)  # fmt: skip
def test_what_is_no_number(field: str) -> None:
    with pytest.raises(InputError, match=r"^row 1 is .*, not a number"):
        read_numbers(["7", field], "row {}".format)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["€5", "$6"], "row 1 is '.6', not a number in € as those before it are"),
        (["5", "6 €"], "row 1 is '6 €', not a number without a unit as those before it are"),
        (["1.2M", "900K"], "row 1 is '900K', not a number in M"),
        (["2", "1.234", "5"], "row 1 is '1.234', which may be 1.234 or 1234: choose the decimal mark"),
        (["1,234"], "row 0 is '1,234', which may be 1234 or 1.234: choose the decimal mark"),
        (["1,5", "2,5", "2.5"], "row 2 is '2.5', not a number with a decimal comma"),
        (["1.234,5", "1,234.5", "0.7"], "row 0 is '1.234,5', not a number with a decimal point"),
    ],
)
def test_what_is_one_thing_here_and_another_there(fields: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        read_numbers(fields, "row {}".format)
    assert str(error.value).replace("$", ".").startswith(message.replace("$", "."))


def test_the_decimal_mark_is_told_or_likely() -> None:
    for decimal, likely, expected in ((".", "", 1.234), (",", "", 1234), ("", ".", 1.234), ("", ",", 1234)):
        assert read_numbers(["1.234"], "row {}".format, decimal, likely).values.tolist() == [expected]
    with pytest.raises(InputError, match=r"row 0 is '1,5', not a number with a decimal point: choose another decimal"):
        read_numbers(["1,5"], "row {}".format, ".")


@given(
    st.lists(st.decimals(-(10**12), 10**12, places=2), min_size=1, max_size=6),
    st.sampled_from([(".", ","), (",", "."), (".", ""), (",", " "), (".", "’"), (",", "\xa0")]),
    st.sampled_from(["{}", "{} €", "£{}", "USD {}"]),
)
def test_what_was_written_comes_back(numbers: list[object], marks: tuple[str, str], unit: str) -> None:
    decimal, thousands = marks
    swap = str.maketrans({".": decimal, ",": thousands})
    fields = [unit.format(f"{number:,.2f}".translate(swap)) for number in numbers]
    found = read_numbers(fields, "row {}".format)
    assert found.values.tolist() == [float(number) for number in numbers]  # type: ignore[arg-type]


@given(st.lists(st.text("0123456789.,'- €$e()", max_size=9), min_size=1, max_size=4))
def test_any_text_is_a_number_or_refused(fields: list[str]) -> None:
    try:
        found = read_numbers(fields, "row {}".format)
    except InputError as error:
        assert str(error).startswith("row ")
    else:
        assert not np.isinf(found.values).any() and len(found.values) == len(fields)
