from __future__ import annotations

import json
from pathlib import Path

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
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["day,sold", *(f"2024-{k},{20 + k % 7}" for k in range(150))]))
    command = ["--quick", "--steps", "2", "--data", str(file), "--season", "7", "--out", str(tmp_path / "out")]

    def run(*more: str) -> int:
        more_options = {"data": "CSV", "encoded": True, "data_options": forecast.data_options}
        return experiment(forecast.main, steps=1, quick=1, **more_options, argv=[*command, *more])

    assert run("--column", "sold") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tables"][0]["columns"][2] == "1 to 7 ahead"
    assert run() == 2
    assert "--column NAME" in capsys.readouterr().err
    assert run("--column", "bought") == 2
    assert "no column 'bought'" in capsys.readouterr().err
    assert run("--column", "sold", "--season", "30") == 2
    assert "150 values of sold, and 300 are needed" in capsys.readouterr().err
    file.write_text("\n".join(["day,sold", *(f"2024-{k},3" for k in range(150))]))
    assert run("--column", "sold") == 2
    assert "sold is from 3 to 3: nothing can be forecast" in capsys.readouterr().err
