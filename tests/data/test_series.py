"""Series as people keep them: every usual date, every order, and no gap that is closed in silence."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_readers import refused
from tinygrad_rnn.data import read_series
from tinygrad_rnn.errors import InputError

pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that each example writes anew."""
    return tmp_path_factory.mktemp("series") / "file"


def days(times: Any) -> list[str]:
    return times.astype("datetime64[D]").astype(str).tolist()


def write(file: Path, rows: list[str], header: str = "day;x", encoding: str = "utf-8") -> None:
    file.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)


# --- dates --------------------------------------------------------------------------------------------------

MONTHS = [date(2023 + k // 12, k % 12 + 1, 1) for k in range(24)]
FORMATS = [
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y"),
    *("%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
    *("%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%b %Y", "%B %Y", "%b-%y", "%Y%m", "%YM%m", "%Y-%m-%d %H:%M"),
    *("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00", "%d.%m.%Y %H:%M", "%m/%d/%Y, %I:%M %p", "%Y-%m-%d %H:%M:%S.000"),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("order", ["oldest first", "newest first"])
def test_the_usual_dates(form: str, order: str, file: Path) -> None:
    rows = [f"{day.strftime(form)};{k}" for k, day in enumerate(MONTHS)]
    write(file, rows if order == "oldest first" else rows[::-1])
    found = read_series(file)
    assert found.values.tolist() == list(range(24)) and days(found.times) == [str(day) for day in MONTHS]
    assert (found.name, found.step, found.season) == ("x", "a month", 12) and not found.filled.any()
    assert ("newest first" in found.said) == (order == "newest first") and "day" in found.said
    assert days(found.later(2)) == ["2025-01-01", "2025-02-01"]


@pytest.mark.parametrize(
    ("texts", "step", "season", "later"),
    [
        ([f"{1990 + k}" for k in range(9)], "a year", 0, "1999-01-01"),
        ([f"{1990 + k // 4}-Q{k % 4 + 1}" for k in range(9)], "a quarter", 4, "1992-04-01"),
        ([f"Q{k % 4 + 1} {1990 + k // 4}" for k in range(9)], "a quarter", 4, "1992-04-01"),
        ([f"2024-W{k + 1:02d}" for k in range(9)], "a week", 52, "2024-03-04"),
        ([str(date(2024, 1, 7) + timedelta(7 * k)) for k in range(9)], "a week", 52, "2024-03-10"),
        ([str(date(2024, 1, 7) + timedelta(14 * k)) for k in range(9)], "2 weeks", 26, "2024-05-12"),
        ([str(date(2024, 1, 7) + timedelta(k)) for k in range(9)], "a day", 7, "2024-01-16"),
        (["31.01.2024", "29.02.2024", "31.03.2024", "30.04.2024"], "a month", 12, "2024-05-31"),
        (["15.01.2024", "15.02.2024", "15.03.2024", "15.04.2024"], "a month", 12, "2024-05-15"),
        (["30.06.2023", "31.12.2023", "30.06.2024", "31.12.2024"], "6 months", 2, "2025-06-30"),
        (["31.05.2024", "28.06.2024", "31.07.2024", "30.08.2024"], "a month", 12, "2024-09-30"),
        ([f"2024-03-{1 + k // 24} {k % 24}:00" for k in range(30)], "an hour", 24, "2024-03-02"),
        ([f"2024-03-01 {k // 4}:{k % 4 * 15:02d}" for k in range(30)], "15 minutes", 96, "2024-03-01"),
    ],
)
def test_steps(texts: list[str], step: str, season: int, later: str, file: Path) -> None:
    write(file, [f"{text};{k}" for k, text in enumerate(texts)])
    found = read_series(file)
    assert found.values.tolist() == list(range(len(texts)))
    assert (found.step, found.season, days(found.later(1))) == (step, season, [later])


def test_business_days_have_no_gap_at_the_weekend(file: Path) -> None:
    open_days = [day for k in range(30) if (day := date(2024, 1, 1) + timedelta(k)).weekday() < 5]
    write(file, [f"{day:%d.%m.%Y};{k}" for k, day in enumerate(open_days)])
    found = read_series(file)
    assert (found.step, found.season, len(found.values)) == ("a business day", 5, 22)
    assert days(found.later(2)) == ["2024-01-31", "2024-02-01"]
    write(file, [f"{day:%d.%m.%Y};{k}" for k, day in enumerate(open_days) if k != 5])
    refused(read_series, file, r"missing for 1 of 22 steps of a business day, the first after 05.01.2024 \(line 6\)")


def test_two_readings_of_a_date(file: Path) -> None:
    write(file, [f"{k % 9 + 1}/{k // 9 + 1}/2024;{k}" for k in range(45)])
    refused(read_series, file, "the dates in day fit %d/%m/%Y and %m/%d/%Y: choose the format of the dates")
    write(file, [f"{k:02d}/02/2024;{k}" for k in range(1, 13)])  # twelve days of February, or the 2nd of each month
    refused(read_series, file, "the dates in day fit %d/%m/%Y and %m/%d/%Y: choose the format of the dates")
    write(file, [f"{day:%d/%m/%Y};1" for day in MONTHS])  # by the other one, a day apart and then months
    assert "%d/%m/%Y" in read_series(file).said
    found = read_series(file, date_format="%m/%d/%Y", gaps="close")
    assert days(found.times)[:2] == ["2023-01-01", "2023-01-02"]
    write(file, [f"{day:%Y-%m-%d};1" for day in MONTHS])
    refused(
        lambda path: read_series(path, date_format="%d.%m.%Y", dates="day"), file, "line 2: day is '2023-01-01', not"
    )
    with pytest.raises(InputError, match=r"^'%Q' is no format of dates: "):
        read_series(file, date_format="%Q")


def test_a_year_of_two_digits_is_of_no_century_to_come(file: Path) -> None:
    """By `strptime` 68 is 2068 and 69 is 1969: the oldest would be the newest."""
    write(file, [f"01.{k % 12 + 1:02d}.{60 + k // 12};{k}" for k in range(180)])
    for gaps in ("refuse", "close"):
        refused(
            lambda path, gaps=gaps: read_series(path, gaps=gaps), file, "line 98: day is '01.01.68', of 1968 or 2068"
        )
    write(file, [f"01.{k % 12 + 1:02d}.{98 + k // 12 - 100 * (k > 23):02d};{k}" for k in range(60)])
    assert days(read_series(file).times)[::36] == ["1998-01-01", "2001-01-01"]


def test_dates_in_several_columns(file: Path) -> None:
    rows = [f"{day.year};{day.month};{k}" for k, day in enumerate(MONTHS)]
    write(file, rows[::-1], "Year;Month;x")
    refused(read_series, file, "there are dates in Year: choose the column of dates, or several")
    found = read_series(file, dates=["Year", "Month"])
    assert found.values.tolist() == list(range(24)) and days(found.times) == [str(day) for day in MONTHS]
    write(file, [f"{day};{day};1" for day in MONTHS], "ordered;shipped;x")
    refused(lambda path: read_series(path, "x"), file, "there are dates in ordered and shipped")
    assert len(read_series(file, "x", dates="shipped").values) == 24


def test_a_day_that_there_is_not(file: Path) -> None:
    write(file, [*(f"2024-02-{k:02d};{k}" for k in range(1, 29)), "2024-02-30;29", ";"])
    refused(read_series, file, "line 30: day is '2024-02-30', not a date %Y-%m-%d")
    write(file, [*(f"2024-02-{k:02d};{k}" for k in range(1, 29)), "Sum;29"])
    refused(read_series, file, "line 30: day is 'Sum', not a date %Y-%m-%d")
    write(file, ["2024-02-01;1", ";2", "2024-02-03;3", "2024-02-04;3"])
    refused(read_series, file, "line 3: day is '', and each row needs its date")


def test_dates_that_are_not_understood_are_not_passed_over(file: Path) -> None:
    """The rows may come newest first."""
    write(file, [f"{k}. Januar 2024;{k}" for k in range(31, 0, -1)])
    refused(
        read_series, file, "line 2: day is '31. Januar 2024', which may be a date, in no usual format: choose the fo"
    )
    assert read_series(file, "x", gaps="close").values[0] == 31
    found = read_series(file, "x", dates="day", date_format="%d. Januar %Y")
    assert found.values.tolist() == list(range(1, 32))


def test_an_order_by_numbers(file: Path) -> None:
    write(file, [f"{1700000000 - 60 * k};{k}" for k in range(20)], "t;x")
    found = read_series(file)
    assert found.values.tolist() == list(range(20))[::-1] and found.times[-1] == 1700000000
    assert "ordered by t, newest first, 60 apart" in found.said and found.later(1).tolist() == [1700000060]
    write(file, [f"{k + (k > 4)};{k}" for k in range(20)], "t;x")
    refused(read_series, file, r"x is missing for 1 of 21 steps of 1, the first after 4 \(line 6\)")
    write(file, [f"{k * k};{k}" for k in range(20)], "t;x")
    refused(read_series, file, r"the steps from 0 \(line 2\) to 1 \(line 3\) and to 4 \(line 4\) are not equal: close")
    assert len(read_series(file, gaps="close").values) == 20


# --- gaps ---------------------------------------------------------------------------------------------------

GAPPY = [f"2024-01-{k:02d};{'' if k == 3 else k}" for k in range(1, 12) if k not in (6, 7)]


def test_gaps_are_refused_or_filled(file: Path) -> None:
    write(file, GAPPY)
    message = r"x is missing for 3 of 11 steps of a day, the first after 2024-01-02 \(line 3\): choose what fills"
    refused(read_series, file, message)
    expected = {
        "linear": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        "previous": [1, 2, 2, 4, 5, 5, 5, 8, 9, 10, 11],
        "zero": [1, 2, 0, 4, 5, 0, 0, 8, 9, 10, 11],
        "close": [1, 2, 4, 5, 8, 9, 10, 11],
    }
    for gaps, values in expected.items():
        found = read_series(file, gaps=gaps)  # type: ignore[arg-type]
        assert found.values.tolist() == pytest.approx(values)
        assert ("3 gaps closed" if gaps == "close" else f"3 gaps filled ({gaps})") in found.said
        assert found.filled.sum() == (0 if gaps == "close" else 3) and len(found.times) == len(values)
        assert days(found.later(1)) == ["2024-01-12"]


def test_gaps_without_dates(file: Path) -> None:
    write(file, ["1", "2", "", "4"], "x")
    refused(read_series, file, r"x is missing for 1 of 4 rows, the first after line 3")
    assert read_series(file, gaps="linear").values.tolist() == [1, 2, 3, 4]
    write(file, ["a;1", "b;NA", "c;3"], "who;x")
    refused(lambda path: read_series(path, "x"), file, "x is missing for 1 of 3 rows, the first after line 2")


def test_what_is_missing_at_the_ends_is_no_gap(file: Path) -> None:
    write(file, [f"2024-01-{k:02d};{'-' if k in (1, 8, 9) else k}" for k in range(1, 10)] + [";", ";"])
    found = read_series(file)
    assert found.values.tolist() == [2, 3, 4, 5, 6, 7] and days(found.times)[0] == "2024-01-02"
    assert "2 empty rows at the end" in found.said and "3 rows at the ends without a value left out" in found.said
    assert days(found.later(1)) == ["2024-01-08"]
    write(file, ["2024-01-01;", "2024-01-02;"])
    refused(read_series, file, "x has no value in any row")


@given(st.sets(st.integers(0, 40), min_size=3), st.randoms(use_true_random=False))
def test_each_value_is_where_its_date_is(file: Path, there: set[int], random: Any) -> None:
    """Whatever is left out, and in whatever order the rows come."""
    rows = [f"{date(2023, 12, 20) + timedelta(k)},{k}.5" for k in sorted(there)]
    random.shuffle(rows)
    write(file, rows, "day,x")
    found = read_series(file, gaps="close")
    assert found.values.tolist() == [k + 0.5 for k in sorted(there)]
    assert days(found.times) == [str(date(2023, 12, 20) + timedelta(k)) for k in sorted(there)]


# --- columns ------------------------------------------------------------------------------------------------


def test_several_series_in_one_column(file: Path) -> None:
    rows = [f"{day},{shop},{k * 1.5},{k}" for k, day in enumerate(MONTHS) for shop in ("Bonn", "Ulm")]
    write(file, rows, "day,shop,x,customers")
    message = (
        "line 3: day is 2023-01-01, as in line 2: there are several series: choose one by its value in shop, which"
    )
    refused(lambda path: read_series(path, "x"), file, message)
    refused(
        lambda path: read_series(path, "x", only={"shop": "Rom"}), file, "no row has 'Rom' in shop: there are 'Bonn'"
    )
    refused(lambda path: read_series(path, "x", only={"town": "Ulm"}), file, "line 1: no column 'town'")
    found = read_series(file, "x", only={"shop": "Ulm"})
    assert found.values.tolist() == [k * 1.5 for k in range(24)]
    write(file, [f"{day},{k}" for k, day in enumerate([*MONTHS, MONTHS[3]])], "day,x")
    refused(read_series, file, "line 26: day is 2023-04-01, as in line 5: one value for each date is needed")


def test_the_column_of_the_series(file: Path) -> None:
    write(file, [f"{day};{k};{k}" for k, day in enumerate(MONTHS)], "day;x;y")
    refused(read_series, file, "there are the columns day, x, y: choose the column of the series")
    refused(lambda path: read_series(path, "z"), file, "line 1: no column 'z': the header has day, x, y")
    assert read_series(file, "y").name == "y"


def test_numbers_with_marks(file: Path) -> None:
    write(file, [f"{day};{k}.{k:03d}" for k, day in enumerate(MONTHS, 1)])
    refused(read_series, file, "line 2: x is '1.001', which may be 1.001 or 1001: choose the decimal mark")
    assert read_series(file, decimal=",").values[0] == 1001 and read_series(file, decimal=".").values[0] == 1.001
    write(file, [f"{day},{k}.{k:03d}" for k, day in enumerate(MONTHS, 1)], "day,x")
    assert read_series(file).values[0] == 1.001  # between commas a point is a decimal point


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"gaps": "ignore"}, "gaps must be one of refuse, linear, previous, zero, close, not 'ignore'"),
        ({"gaps": None}, "gaps must be one of refuse, linear, previous, zero, close, not None"),
        ({"decimal": ";"}, r"decimal must be \"\.\" or \",\", not ';'"),
        ({"column": 1}, "column is a text, not 1"),
        ({"date_format": None}, "date_format is a text, not None"),
        ({"dates": 3}, "dates are names, a list of texts, not 3"),
        ({"only": {"shop": 3}}, "only has columns and their values, all of them texts, not "),
        ({"only": "shop"}, "only has columns and their values, all of them texts, not 'shop'"),
        ({"delimiter": ";;"}, "a delimiter is one character"),
    ],
)
def test_options_that_are_none(option: dict[str, Any], message: str, file: Path) -> None:
    write(file, ["1"], "x")
    with pytest.raises(InputError, match=message):
        read_series(file, **option)


def test_a_file_as_a_spreadsheet_writes_it(file: Path) -> None:
    rows = [
        f'"{day:%d.%m.%Y}";"{1000 + k:,.2f} €";"Zeile 1\n{k}"'.replace(",", "\xa0").replace(".00", ",00")
        for k, day in enumerate(MONTHS)
    ]
    file.write_bytes("\r\n".join(["sep=;", "Monat;Umsatz;Notiz", *reversed(rows), ""]).encode("utf-8-sig"))
    found = read_series(file, "Umsatz")
    assert found.values.tolist() == [1000 + k for k in range(24)] and "in €, with a decimal comma" in found.said
    file.write_bytes(file.read_bytes() + b"# exported\r\n")
    assert "1 line passed over" in read_series(file, "Umsatz").said


def test_without_pandas(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    write(file, ["1", "2", "4"], "x")
    assert read_series(file).values.tolist() == [1, 2, 4]
    write(file, [f"{day};1" for day in MONTHS])
    with pytest.raises(InputError, match="dates are read with pandas: pip install pandas"):
        read_series(file)
