from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tr
from examples import forecast
from examples.common.experiment import experiment
from tinygrad_rnn.data import read_csv


def test_the_sunspots_are_complete() -> None:
    table = read_csv(Path(forecast.__file__).parent / "data" / "sunspots.csv")
    np.testing.assert_array_equal(table["year"], np.arange(1700, 2009))
    assert table["sunspots"].max() == table["sunspots"][1957 - 1700] == 190.2  # the strongest cycle on record


def series(n: int = 100) -> forecast.Series:
    return forecast.Series("s", np.arange(n), np.exp(np.random.default_rng(0).normal(size=n).cumsum() / 9), season=4)


def test_what_is_forecast_is_undone() -> None:
    s = series()
    values = s.undone(np.repeat(s.target[..., None], 3, axis=-1))
    known = s.ahead >= 0
    np.testing.assert_allclose(values[known], np.repeat(s.values[s.ahead[known]][:, None], 3, axis=1))


def test_an_interval_of_counts_does_not_go_below_0() -> None:
    """A root below 0, squared, would be a lower end above the upper one."""
    s = forecast.Series("s", np.arange(100), np.arange(100) % 7.0, season=4)
    low, middle, high = np.moveaxis(s.undone(np.full((100, 4, 3), (-50.0, -1.0, 1.0))), -1, 0)
    assert low.min() == 0 and (low <= middle).all() and (middle <= high).all()


def test_nothing_is_known_of_what_comes_after() -> None:
    s, cut = series(), 80
    other = forecast.Series("s", s.times, np.concatenate([s.values[:cut], s.values[cut:] * 3]), s.season)
    np.testing.assert_array_equal(s.features[:cut], other.features[:cut])


def test_the_parts_have_no_step_in_common() -> None:
    s = series()
    steps = [set(s.ahead[s.counted(part)].tolist()) for part in (s.train, s.choose, s.test)]
    assert not steps[0] & steps[1] and not steps[1] & steps[2]
    assert steps[2] == set(s.test.tolist())


def test_the_quantile_has_the_least_loss() -> None:
    y = np.random.default_rng(0).normal(size=1000)
    grid = np.linspace(-2, 2, 401)
    losses = forecast.pinball(tr.Tensor(np.repeat(grid[:, None, None], 3, axis=-1)), tr.Tensor(y[None])).numpy()
    found = grid[losses.mean(axis=1).argmin(axis=0)]
    np.testing.assert_allclose(found, np.quantile(y, forecast.QUANTILES), atol=0.03)


def test_ones_own_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file, name = tmp_path / "[b] $x$.csv", "EUR/USD [bold] $a$ :x: $b$"  # a name is data
    file.write_text("\n".join([f"day,{name}", *(f"day {k},{20 + k % 7}" for k in range(150))]))
    command = ["--quick", "--steps", "2", "--data", str(file), "--season", "7", "--out", str(tmp_path / "out")]

    def run(*more: str) -> int:
        more_options = {"data": "CSV", "encoded": True, "data_options": forecast.data_options}
        return experiment(forecast.main, steps=1, quick=1, **more_options, argv=[*command, *more])

    assert run("--column", name) == 0
    shown = capsys.readouterr().out
    assert shown.count(name) == 7 and str(file) in shown
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert all(name in text for text in (results["tables"][0]["title"], *results["notes"][:2]))
    assert results["tables"][0]["columns"][2] == "1 to 7 ahead" and f"150 values of {name}" in results["source"]
    rows = file.read_text().splitlines()
    rows = [row.rpartition(",")[0] + "," if k in (9, 30) else row for k, row in enumerate(rows)]
    file.write_text("\n".join([*rows, "# day 150,21"]))
    assert run("--column", name) == 2
    missing = f"{name} is missing for 2 of 150 rows, the first after line 9: choose what fills the gaps (--gaps)"
    assert missing in capsys.readouterr().err
    assert run("--column", name, "--gaps", "linear") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    said = "1 line passed over, comments that begin with #; in the order of the file; 2 gaps filled (linear)"
    assert f"150 values of {name} ({said})" in results["source"]
    assert run() == 2
    assert "choose the column of the series (--column)" in capsys.readouterr().err
    assert run("--column", "bought") == 2
    assert "no column 'bought'" in capsys.readouterr().err
    assert run("--column", name, "--season", "30", "--gaps", "linear") == 0
    assert run("--column", name, "--season", "31", "--gaps", "zero") == 2
    assert f"150 values of {name}, and 155 are needed" in capsys.readouterr().err
    file.write_text("\n".join([f"day,{name}", *(f"day {k},3" for k in range(150))]))
    assert run("--column", name) == 2
    assert f"{name} is from 3 to 3: nothing can be forecast" in capsys.readouterr().err


def forecast_of(folder: Path, values: list[float], season: int, column: str = "x") -> int:
    file = folder / "mine.csv"
    file.write_text("\n".join([f"{column},y", *(f"{value},0" for value in values)]), encoding="utf-8")
    command = ["--quick", "--steps", "1", "--data", str(file), "--season", str(season), "--column", column]
    more: dict[str, Any] = {"data": "CSV", "data_options": forecast.data_options}
    return experiment(forecast.main, steps=1, quick=1, **more, argv=[*command, "--out", str(folder / "out")])


WAVE = [2 + math.sin(k / 2) for k in range(400)]


@pytest.mark.parametrize(("count", "season"), [(30, 1), (30, 6), (35, 7), (60, 12)])
def test_as_few_values_as_there_may_be(count: int, season: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert forecast_of(tmp_path, WAVE[:count], season) == 0


def test_a_season_longer_than_a_piece_that_is_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert forecast_of(tmp_path, [*WAVE, *WAVE, *WAVE], 90) == 0


@pytest.mark.parametrize(
    ("values", "season", "message"),
    [
        (WAVE[:1], 12, "1 values of x, and 60 are needed, 5 seasons of 12 and 30 at least"),
        (WAVE[:29], 1, "29 values of x, and 30 are needed"),
        (WAVE[:59], 12, "59 values of x, and 60 are needed, 5 seasons of 12 and 30 at least: choose a shorter"),
        ([0.0, 1.0] * 10_001, 1000, "20002 values, and 1000 steps ahead of each, are more than 20,000,000 forecasts"),
        (WAVE, 1000, "400 values of x, and 5000 are needed"),
        ([1e308, -1e308] * 60, 1, "x is from -1e+308 to 1e+308: nothing can be forecast of that"),
        ([1e-300, 1e300] * 60, 1, "x is from 1e-300 to 1e+300: nothing"),
        ([0.3, 0.1 + 0.2] * 60, 1, "x is from 0.3 to 0.3: nothing"),
        ([0, 5e-324] * 60, 1, "x is from 0 to 4.94066e-324: nothing"),
    ],
)
def test_a_series_of_which_nothing_can_be_forecast(
    values: list[float], season: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert forecast_of(tmp_path, values, season) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"forecast: {tmp_path / 'mine.csv'}: {message}") and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("values", [[1.0, *[0.0] * 199], [*WAVE[:150], 1e30]])
def test_a_series_of_which_little_can_be_forecast(values: list[float], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert forecast_of(tmp_path, values, 12) == 0


@pytest.mark.parametrize("column", ["../../sunspots", "é" * 200])
def test_the_name_of_a_column_names_files_in_the_folder(column: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "in").mkdir()
    assert forecast_of(tmp_path / "in", WAVE[:120], 12, column) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["mine.csv", "out"]
    results = json.loads((tmp_path / "in" / "out" / "results.json").read_text())
    assert not results["claims"] and all(note.startswith(column) for note in results["notes"][:2])
    assert len(list((tmp_path / "in" / "out" / "checkpoints").glob("*.json"))) == 2


@pytest.mark.parametrize("option", [["--season", "3"], ["--column", "x"], ["--encoding", "latin-1"]])
def test_options_of_data_need_data(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    more: dict[str, Any] = {"data": "CSV", "encoded": True, "data_options": forecast.data_options}
    assert experiment(forecast.main, steps=1, quick=1, **more, argv=[*option, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"forecast: {option[0]} says how --data is read, and there is none")


def test_a_file_as_people_keep_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first, with a decimal comma and a currency, two shops in one column, and a month that is not there."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    file, out = tmp_path / "umsatz.csv", tmp_path / "out"
    value = lambda k: f"{1200 + 9 * k + 200 * math.sin(k / 2):,.2f} €".translate(str.maketrans(",.", ".,"))
    rows = [f"01.{k % 12 + 1:02d}.{2010 + k // 12};{shop};{value(k)}" for k in range(70) for shop in ("Bonn", "Ulm")]
    file.write_text("\n".join(["Monat;Ort;Umsatz", *reversed(rows[:80] + rows[82:])]), encoding="utf-8-sig")
    more: dict[str, Any] = {"data": "CSV", "encoded": True, "data_options": forecast.data_options}
    command = ["--quick", "--steps", "1", "--data", str(file), "--out", str(out)]

    def run(*options: str) -> int:
        return experiment(forecast.main, steps=1, quick=1, **more, argv=[*command, *options])

    for options, message in (
        ((), "there are the columns Monat, Ort, Umsatz: choose the column of the series (--column)"),
        (("--column", "Umsatz"), "choose one by its value (--only COLUMN=VALUE) in Ort, which has 'Bonn', 'Ulm'"),
        (("--only", "Bonn"), "argument --only: must be COLUMN=VALUE, not 'Bonn'"),
        (("--only", "Ort=Ulm"), "missing for 1 of 70 steps of a month, the first after 01.04.2013 (line 60): choose"),
        (
            ("--only", "Ort=Ulm", "--gaps", "linear", "--decimal", "."),
            "with a decimal point: choose another decimal mark",
        ),
        (("--only", "Ort=Ulm", "--date-column", "Tag"), "no column 'Tag': the header has Monat, Ort, Umsatz"),
        (("--only", "Ort=Ulm", "--date-format", "%Y", "--date-column", "Monat"), "not a date %Y: choose the format of"),
        (
            ("--column", "Umsatz", "--delimiter", "tab"),
            "the header has Monat;Ort;Umsatz: choose the delimiter (--delimiter)",
        ),
    ):
        assert run(*options) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1
    assert run("--only", "Ort=Ulm", "--gaps", "previous") == 0
    source = json.loads((out / "results.json").read_text())["source"]
    assert (
        "70 values of Umsatz, 2010-01-01 to 2015-10-01, in seasons of 12 (in €, with a decimal comma; dated" in source
    )
    assert "%d.%m.%Y, newest first, a month apart; 1 gap filled (previous))" in source


def test_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "mine.csv"
    file.write_bytes("\n".join(["größe", *map(str, WAVE[:120])]).encode("latin-1"))
    more: dict[str, Any] = {"data": "CSV", "encoded": True, "data_options": forecast.data_options}
    command = ["--quick", "--steps", "1", "--data", str(file), "--column", "größe", "--out", str(tmp_path / "out")]
    assert experiment(forecast.main, steps=1, quick=1, **more, argv=command) == 2
    assert "choose another encoding (--encoding), such as latin-1" in capsys.readouterr().err
    assert experiment(forecast.main, steps=1, quick=1, **more, argv=[*command, "--encoding", "latin-1"]) == 0
