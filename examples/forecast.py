"""What comes next in a series: sunspots, which have a rhythm, and a stock price, which has none to be found.

A GRU reads a series and at each step forecasts the steps ahead, each by three quantiles: the median, and two between
which the value should lie in 80 of 100 cases. The origin rolls: at each step of the last part of the series it knows
all that came before, and nothing after. The same is asked of simple methods: the last value stays, or drifts on; the
last season comes again, or as much higher as each one was; a linear model of the last nine values; exponential
smoothing.

Of the sunspots the network knows far more than that they stay or return, and about as much as the linear model, which
is hard to beat with two centuries of yearly values. Of the stock price nobody here knows more than the last value.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tr
from examples.common.baselines import simple_forecasts
from examples.common.experiment import Experiment, experiment
from examples.common.plots import CELLS, GREY, INK, ORANGE, draw_curves, tones
from examples.common.series import Series, margins, share_held, widened
from examples.common.tables import add_delimiter, delimiter, pairs
from examples.common.use import Answer, Kept, OnDevice, Use, Used
from tinygrad_rnn import nn
from tinygrad_rnn.cli.options import whole
from tinygrad_rnn.data import TimeSeries, read_csv, read_series
from tinygrad_rnn.data.series import GAPS
from tinygrad_rnn.errors import InputError

QUANTILES = np.array([0.1, 0.5, 0.9], np.float32)
MOST = 20_000_000  # forecasts: some gigabytes
LEAST, SEASONS = 30, 5  # values of a series: fewer have no test to speak of
LENGTH = 80  # steps of a piece that is trained on; two seasons, if that is more
NAIVE = ("last value", "last season")


class Forecaster(nn.Module):
    """GRU -> at each step a linear layer: the quantiles of all steps ahead."""

    def __init__(self, ahead: int, hidden: int = 32) -> None:
        self.recurrent = nn.GRU(2, hidden)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden, ahead * len(QUANTILES))

    def forward(self, x: tr.Tensor) -> tr.Tensor:
        """Features (T, B, 2) give quantiles (T, B, ahead, 3) of the change from the step to each one ahead."""
        T, B, _ = x.shape
        return self.head(self.dropout(self.recurrent(x)[0])).reshape(T, B, -1, len(QUANTILES))


def pinball(quantiles: tr.Tensor, target: tr.Tensor) -> tr.Tensor:
    """max(q e, (q - 1) e) of the error e = y - ŷ, which is least where ŷ is the quantile q."""
    e = tr.expand_dims(target, -1) - quantiles
    q = tr.Tensor(QUANTILES, device=e.device)
    return tr.maximum(q * e, (q - 1) * e)


def series_in(file: Path, asked: argparse.Namespace, encoding: str) -> TimeSeries:
    """The series in the user's file, as the options say."""
    return read_series(
        file,
        asked.column or "",
        dates=asked.date_column or (),
        date_format=asked.date_format or "",
        only=pairs("--only", asked.only),
        gaps=asked.gaps or "refuse",
        delimiter=delimiter(asked),
        decimal=asked.decimal or "",
        encoding=encoding,
    )


def own_series(run: Experiment, file: Path) -> Series:
    """A column of the user's file. Raises InputError for one that is too short, or has no rhythm."""
    found = series_in(file, run.options, run.encoding)
    column, values, season = found.name, found.values, run.options.season or found.season or 12
    least = max(LEAST, SEASONS * season)
    if len(values) < least:
        needed = f"{least} are needed, {SEASONS} seasons of {season} and {LEAST} at least"
        shorter = f"choose a shorter season, of {len(values) // SEASONS} or less" if len(values) >= LEAST else ""
        raise InputError(f"{file}: {len(values)} values of {column}, and {needed}", hint=shorter)
    lowest, highest = float(values.min()), float(values.max())
    largest = max(highest, -lowest)
    if len(values) * season > MOST:
        raise InputError(
            f"{file}: {len(values)} values, and {season} steps ahead of each, are more than {MOST:,} forecasts"
        )
    if not max(1e-100, 1e-12 * largest) < highest - lowest < 1e100:
        raise InputError(f"{file}: {column} is from {lowest:g} to {highest:g}: nothing can be forecast of that")
    s = Series(column, found.times, values, season, later=next_times(found, season), step=found.step)
    first, last = when(s.times[0]), when(s.times[-1])
    span = f", {first} to {last}, in seasons of {season}" if found.step else ""
    run.source(f"{file}: {len(values)} values of {column}{span} ({found.said})")
    return s


def next_times(found: TimeSeries, count: int) -> list[str]:
    """When the next steps of a series are, as it is shown; nothing if it has no times."""
    return [when(time) for time in found.later(count)] if found.step else []


def when(time: np.generic) -> str:
    """A time as it is shown: a day, a moment or a number."""
    if not isinstance(time, np.datetime64):
        return f"{time:.10g}"
    return str(time.astype("datetime64[s]")).replace("T", " ").removesuffix(":00").removesuffix(" 00:00")


def series_of(run: Experiment) -> list[Series]:
    if run.data:
        return [own_series(run, run.data)]
    import matplotlib

    spots = read_csv(Path(__file__).parent / "data" / "sunspots.csv")
    file = Path(matplotlib.get_data_path()) / "sample_data" / "Stocks.csv"
    prices = read_csv(file, ["IBM"], missing="drop")["IBM"][:-1]  # the last row is a part of a month
    run.source(
        "yearly sunspot numbers, 1700 to 2008 (examples/data/sunspots.csv: NOAA, public domain); the price of IBM in "
        "each month from 1990 on, adjusted for dividends (matplotlib's sample_data/Stocks.csv: finance.yahoo.com)"
    )
    years, months = spots["year"].astype(int), np.datetime64("1990-01") + np.arange(len(prices) + 12)
    return [
        Series("sunspots", years, spots["sunspots"], 11, later=[f"{years[-1] + k}" for k in range(1, 12)]),
        Series("stock price", months[:-12], prices, 12, later=[when(month) for month in months[-12:]]),
    ]


def networks(run: Experiment, s: Series, count: int) -> np.ndarray:
    """The quantiles (N, H, 3) that the trained networks forecast at each step, in the mean."""
    x, goal = run.tensor(s.features[:, None]), np.nan_to_num(s.target)
    usable, held_out = s.counted(s.train), s.counted(s.choose)
    length = min(max(LENGTH, 2 * s.season), len(s.train))
    models = []
    for k in range(count):
        tr.manual_seed(run.seed + k)
        model = Forecaster(s.season).to(run.device)

        def batch(step: int, k=k) -> tuple[tuple, int]:
            rng = np.random.default_rng((run.seed, k, step))
            at = rng.integers(len(s.train) - length + 1, size=16) + np.arange(length)[:, None]
            noisy = s.features[at] + 0.2 * rng.standard_normal((*at.shape, 2))  # there is little to learn from
            mask = usable[at] & (np.arange(length) >= s.season)[:, None, None]  # it must have seen something
            return (run.tensor(noisy), run.tensor(goal[at]), run.tensor(mask[..., None] / mask.sum())), int(mask.sum())

        def loss(x: tr.Tensor, goal: tr.Tensor, weights: tr.Tensor, model=model) -> tr.Tensor:
            return (pinball(model(x), goal) * weights).sum()

        def evaluate(model=model) -> dict[str, float]:
            losses = pinball(model(x)[:, 0], run.tensor(goal)).numpy()
            return {"held_out_loss": float(losses[held_out].mean())}

        name = f"{s.name} {k + 1}"
        how = {"lr": 3e-3, "weight_decay": 1e-2, "evaluations": 20, "unit": "forecasts"}
        kept = {key: getattr(s, key) for key in ("season", "scaling", "later", "step")}
        kept |= {"series": s.name, "values": s.values.tolist()}
        run.fit(name, model, batch, loss, evaluate, use={"sizes": {"ahead": s.season}, **kept}, **how)
        models.append(model)
    change = together(run, s, models)
    return s.undone(widened(change, margins(s, change)))


def together(on: OnDevice, s: Series, models: Sequence[Forecaster]) -> np.ndarray:
    """The quantiles (N, H, 3) of scaled changes that networks forecast at each step, in the mean."""
    x = on.tensor(s.features[:, None])
    with tr.no_grad():
        return np.mean([np.sort(model(x).numpy()[:, 0], axis=-1) for model in models], axis=0)


def main(run: Experiment) -> None:
    for s in series_of(run):
        forecasts = {name: s.back(q) for name, q in simple_forecasts(s.x, s.season, len(s.train), QUANTILES).items()}
        forecasts["GRU"] = networks(run, s, 2 if run.quick else 5)
        counted, true = s.counted(s.test), s.values[s.ahead]
        errors, rows = {}, []
        for name, q in forecasts.items():
            error = np.abs(q[..., 1] - true)
            errors[name] = [error[counted[:, h], h].mean() for h in range(s.season)]
            holds = share_held(s, q)
            width = (q[..., 2] - q[..., 0])[counted].mean()
            figures = f"{errors[name][0]:.2f}", f"{np.mean(errors[name]):.2f}", f"{holds:.0f} %", f"{width:.1f}"
            rows.append([name, *figures])
        run.expect(f"{s.name}: of the GRU's 80 % intervals hold, in %", holds, at_least=60)
        since = when(s.times[s.test[0]])
        title = f"{s.name}, from {since} on: mean absolute error, and the intervals that should hold 80 %"
        best = min(range(len(rows)), key=lambda k: np.mean(errors[rows[k][0]]))
        run.table(title, ["", "1 ahead", f"1 to {s.season} ahead", "they hold", "width"], rows, best=best)
        for ahead, what in ((1, "one step ahead"), (s.season, f"1 to {s.season} steps ahead")):
            mean = {name: float(np.mean(values[:ahead])) for name, values in errors.items()}
            run.verdict(f"{s.name}, {what}, mean absolute error", mean, {*mean} - {"GRU"}, least=True)
            if s.name == "sunspots" and not run.data:
                ratio = mean["GRU"] / min(mean[name] for name in NAIVE)
                what = f"sunspots, {what}: error of the GRU over that of the better of {' and '.join(NAIVE)}"
                run.expect(what, ratio, at_most=0.75 if ahead == 1 else 1.0)
        draw(run, s, forecasts, errors)
    if "Holt-Winters" not in forecasts and "Holt" not in forecasts:
        run.note("Exponential smoothing (Holt-Winters) is not among the simple methods: statsmodels is not installed.")
    run.try_with("--series", s.name, "--steps", str(s.season))


def draw(run: Experiment, s: Series, forecasts: dict[str, np.ndarray], errors: dict[str, list[float]]) -> None:
    """One step ahead over the whole test, many steps ahead from four origins, and the error by the steps ahead."""
    caption = f"{s.name}: forecasts one step ahead, many steps ahead from four origins, and how the error grows."
    with run.picture(f"{s.name.replace(' ', '-')}.png", caption, (9, 6.4)) as figure:
        grid, q, t, own = figure.add_gridspec(2, 5), forecasts["GRU"], s.test, CELLS["GRU"]
        top = figure.add_subplot(grid[0, :], title="one step ahead")
        band = {"color": own, "alpha": 0.25, "linewidth": 0}
        top.fill_between(s.times[t], q[t - 1, 0, 0], q[t - 1, 0, 2], **band, label="GRU, 80 %")
        top.plot(s.times[t], q[t - 1, 0, 1], color=own, linewidth=1.2, label="GRU, median")
        fans = figure.add_subplot(grid[1, :3], title=f"1 to {s.season} steps ahead")
        for origin in np.linspace(t[0], t[-1] - s.season, 4).astype(int):
            at = s.times[s.ahead[origin]]
            fans.fill_between(at, q[origin, :, 0], q[origin, :, 2], **band)
            fans.plot(at, q[origin, :, 1], color=own, linewidth=1.2)
            fans.plot(s.times[origin], s.values[origin], "o", color=own, markersize=4)
        for axes in (top, fans):
            axes.plot(s.times[t], s.values[t], ".-", color=INK, linewidth=0.7, markersize=3, label="observed")
            axes.set_ylabel(s.name)
        top.legend(frameon=False, ncols=3, loc="upper left")
        right = figure.add_subplot(grid[1, 3:], title="mean absolute error", xlabel="steps ahead", ylim=(0, None))
        other = min(errors.keys() - {*NAIVE, "GRU"}, key=lambda name: np.mean(errors[name]))  # the best of the rest
        curves = {name: (range(1, s.season + 1), errors[name]) for name in (*NAIVE, other, "GRU")}
        draw_curves(right, curves, (*tones(GREY, 2), ORANGE, own))
        right.set_ylim(0, 1.45 * max(max(errors[name]) for name in curves))
        right.legend(frameon=False, fontsize=8, loc="upper left")


def data_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--column", metavar="NAME", help="the column to forecast (default: the only one besides the dates)")
    add("--season", type=whole(1, 1000), help="steps in a season, and to forecast (default: by the dates, or 12)")
    dates = "the column of the dates, or one of several that make them (default: the one that holds dates)"
    add("--date-column", metavar="NAME", action="append", help=dates)
    add("--date-format", metavar="FORMAT", help="such as %%d.%%m.%%Y (default: a usual one that fits all dates)")
    add("--only", metavar="COLUMN=VALUE", action="append", help="the rows that count, of several series in one column")
    add(
        "--gaps",
        choices=GAPS,
        help="what fills steps without a value; or refuse them, or close them up (default: refuse)",
    )
    add_delimiter(group)
    add("--decimal", choices=(".", ","), help="the decimal mark (default: the one that fits all values)")


def answer(used: Used) -> Iterator[Answer]:
    """What comes after the end of each series that the run was trained on, or of a newer file of one."""
    networks: dict[str, list[Kept]] = {}
    for kept in used.models:
        networks.setdefault(kept["series"], []).append(kept)
    wanted = used.options.series
    if wanted is not None and wanted not in networks:
        raise InputError(f"{used.folder}: no series {wanted!r} in it: there is {', '.join(networks)}")
    networks = {name: found for name, found in networks.items() if wanted in (None, name)}
    if used.files() and len(networks) > 1:
        raise InputError(f"{used.folder}: say which of its series the file goes on with: --series NAME")
    if len(used.files()) > 1:
        raise InputError("--input takes one file here, of one series")
    contents = [ahead(used, name, found) for name, found in sorted(networks.items())]
    for content in contents:
        name, steps = content["series"], content["forecast"]
        lines = [f"{name}: {len(steps)} steps after the last of {content['values']:,} values"]
        times = [str(step.get("time", "")) for step in steps]
        wide = max(map(len, times))
        lines += [f"step  {'':{wide}}     forecast        80 of 100 lie between"]
        for time, k in zip(times, steps, strict=True):
            between = f"{k['low']:11.6g} and {k['high']:11.6g}"
            lines += [f"{k['step']:4}  {time:{wide}}  {k['forecast']:11.6g}  {between}"]
        lines += [
            f"The interval: {content['made']}. Of such intervals {100 * content['held']:.0f} of 100 held on the last "
            f"{content['held_on']} values of what it was trained with, from which nothing was learnt."
        ]
        yield Answer("\n".join(lines), content, [{"series": name, **step} for step in steps])


def ahead(used: Used, name: str, found: Sequence[Kept]) -> dict[str, Any]:
    """The forecast of one series, with how its intervals were made, and how many of them held."""
    season, values, scaling, later = (found[0][key] for key in ("season", "values", "scaling", "later"))
    count = used.options.steps or season
    if count > season:
        raise InputError(f"--steps {count}: of {name} a season is forecast, 1 to {season} steps")
    models = [one.load(Forecaster) for one in found]
    s = Series(name, np.arange(len(values)), np.array(values), season, scaling)
    change, held_on = together(used, s, models), len(s.test)
    margin = margins(s, change)
    held = share_held(s, s.undone(widened(change, margin))) / 100
    for file in used.files():
        new = newer(file, used, found[0])
        s, later = Series(name, new.times, new.values, season, scaling), next_times(new, season)
        change = together(used, s, models)
    steps = []
    for h, quantiles in enumerate(s.undone(widened(change, margin))[-1, :count]):
        low, middle, high = (float(f"{value:.7g}") for value in quantiles)  # of float32 there are no more digits
        time = {"time": later[h]} if later else {}
        steps.append({"step": h + 1, **time, "forecast": middle, "low": low, "high": high})
    made = f"the mean of {len(models)} networks' quantiles 0.1 and 0.9, wider where that held too few"
    shown = {"series": name, "values": len(s.values), "forecast": steps}
    return {**shown, "interval": 0.8, "made": made, "held": round(held, 4), "held_on": held_on}


def newer(file: Path, used: Used, kept: Kept) -> TimeSeries:
    """The series in a newer file. Raises InputError for one that a network cannot go on with."""
    found = series_in(file, used.options, used.options.encoding or "utf-8")
    lowest, season, kind = float(found.values.min()), kept["season"], kept["scaling"]["kind"]
    if len(found.values) <= season:
        raise InputError(f"{file}: {len(found.values)} values, and more than a season is needed, {season + 1}")
    if found.step != kept["step"]:
        steps = [step or "of no known length" for step in (found.step, kept["step"])]
        raise InputError(f"{file}: its steps are {steps[0]}, and those that were trained on {steps[1]}")
    if (kind == "roots" and lowest < 0) or (kind == "logarithms" and lowest <= 0):
        limit = "none is below 0" if kind == "roots" else "all are above 0"
        raise InputError(f"{file}: the value {lowest:g}: of the values that were trained on, {limit}")
    return found


def use_options(group: argparse._ActionsContainer) -> None:
    group.add_argument("--series", metavar="NAME", help="of the series of the run, this one alone")


USE = Use(
    answer,
    files="a newer file of the series: what comes after its end, by the networks as they are",
    needed=False,
    table="the forecast",
    options=use_options,
    allows=("steps",),
    settled=("season",),
)

if __name__ == "__main__":
    about = "a CSV file with a header"
    sys.exit(experiment(main, steps=200, quick=150, data=about, encoded=True, data_options=data_options, use=USE))
