"""A series in time, as a network forecasts it: what is known at each step, on a scale of its own, and what comes after;
intervals that hold as often as they should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_rnn.data import split_in_time


def squared(roots: np.ndarray) -> np.ndarray:
    """What counts the roots are of; a root below 0 means that none is left."""
    return np.square(np.maximum(roots, 0))


KINDS = {"values": (np.copy, np.copy), "roots": (np.sqrt, squared), "logarithms": (np.log, np.exp)}


@dataclass
class Series:
    """Values in time (N,), when they are from, and the length of a season: also how far ahead is forecast.

    What the values are scaled by is found in those that are trained on, unless it is given: that of another series,
    which is then read as that one was. `later` is when the steps after the last value are, as it is shown, and `step`
    how far they are apart, in words; nothing where that is not known.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    season: int
    scaling: dict[str, Any] | None = None
    later: Sequence[str] = ()
    step: str = ""

    def __post_init__(self) -> None:
        lowest, highest, n = self.values.min(), self.values.max(), len(self.values)
        kind = "values"
        if lowest >= 0:  # Logarithms of prices and roots of counts vary alike everywhere.
            kind = "logarithms" if lowest > 1e-30 * highest else "roots"
        kind = self.scaling["kind"] if self.scaling else kind
        to, self.back = KINDS[kind]
        self.x = x = to(self.values)
        least = 1e-3 * np.std(x)  # for a series that repeats itself
        self.train, self.choose, self.test = split_in_time(n, (0.6, 0.15, 0.25))
        H, end = self.season, len(self.train)
        ahead = np.arange(n)[:, None] + 1 + np.arange(H)
        self.ahead = np.where(ahead < n, ahead, -1)  # the steps that are forecast at each step, -1 past the end
        change = np.where(self.ahead >= 0, x[self.ahead] - x[:, None], np.nan)
        known = (self.ahead >= 0) & (self.ahead < end)
        step = np.diff(x, prepend=x[0])
        mean = np.array([x[max(0, t - H + 1) : t + 1].mean() for t in range(n)])
        features = np.stack([step, x - mean], axis=-1)
        if self.scaling is None:
            scale = [max(least, np.std(change[known[:, h], h])) for h in range(H)]
            spread = [max(least, np.std(f[:end])) for f in features.T]
            self.scaling = {"kind": kind, "scale": scale, "features": spread}
        self.scale = np.array(self.scaling["scale"])
        self.target = change / self.scale  # (N, H), NaN past the end
        self.features = features / self.scaling["features"]

    def counted(self, part: np.ndarray) -> np.ndarray:
        """Which forecasts (N, H) are of a step in this part, made at the step before it or later."""
        return (self.ahead >= part[0]) & (self.ahead <= part[-1]) & (np.arange(len(self.x))[:, None] >= part[0] - 1)

    def undone(self, change: np.ndarray) -> np.ndarray:
        """Quantiles (N, H, 3) of scaled changes as values."""
        return self.back(self.x[:, None, None] + np.sort(change, axis=-1) * self.scale[:, None])


def margins(s: Series, change: np.ndarray) -> np.ndarray:
    """By how much the interval of each step ahead must be wider at both ends (H,) to hold 80 of 100 values of the part
    to choose by: networks that have learnt little are too sure (Y. Romano, E. Patterson and E. Candès, Conformalized
    quantile regression, 2019). None is made narrower: that part may have been a quiet one.
    """
    outside = np.maximum(change[..., 0] - s.target, s.target - change[..., 2])
    counted, found = s.counted(s.choose), [0.0]
    for h in range(s.season):
        score = np.sort(outside[counted[:, h], h])
        enough = int(np.ceil(0.8 * (len(score) + 1))) - 1
        found.append(max(0.0, score[min(enough, len(score) - 1)]) if len(score) else found[-1])
    return np.array(found[1:])


def widened(change: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Quantiles (N, H, 3), the lowest and the highest so much (H,) farther away."""
    return change + margin[:, None] * np.array([-1.0, 0.0, 1.0])


def share_held(s: Series, q: np.ndarray) -> float:
    """How many of a hundred of the intervals, of steps in the part to test with, hold the value that came."""
    counted, true = s.counted(s.test), s.values[s.ahead]
    return 100 * float(((q[..., 0] <= true) & (true <= q[..., 2]))[counted].mean())
