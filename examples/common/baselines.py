"""Simple methods that a network has to beat: for tags, sentences, sounds and series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygrad_rnn.data.batches import last_values
from tinygrad_rnn.data.vocabularies import Ids, words
from tinygrad_rnn.errors import InputError, ShapeError

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# --- tags ---------------------------------------------------------------------------------------------------


def most_frequent(train: Ids, tags: npt.ArrayLike, ids: Ids, before: int = 0, after: int = 0) -> Codes:
    """The tag (N,) that each of `ids` (N,) had most often in `train` (M,), whose `tags` (M,) are known, with the same
    neighbours: `before` ids before it and `after` ids after it. If those are new, with fewer; the tag 0 if it is new
    itself.

    Raises ShapeError unless every id of `train` has its tag, and InputError if that many neighbours of so many
    different ids are more than an integer can tell apart.

        >>> most_frequent(np.array([1, 2, 1, 2, 3, 2]), [5, 6, 5, 6, 7, 8], np.array([1, 2, 3, 2]), before=1).tolist()
        [5, 6, 7, 8]
    """
    known = np.asarray(tags)
    if known.shape != train.shape or train.ndim != 1 or not len(train):
        raise ShapeError(f"most_frequent: train and tags must be (M,), got {train.shape} and {known.shape}")
    size, count = 1 + max(int(train.max()), int(ids.max(initial=0))), 1 + int(known.max())
    if size ** (before + 1 + after) * count > 2**62:
        raise InputError(f"{size} different ids are too many for {before} neighbours before and {after} after")

    def neighbours(x: Ids, b: int, a: int) -> Codes:
        """Each id with `b` before it and `a` after it, as one number."""
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x.astype(np.int64), (b, a)), b + 1 + a)
        return np.asarray(windows @ size ** np.arange(b + 1 + a, dtype=np.int64))

    guess = np.zeros(len(ids), np.int64)
    for width in range(max(before, after) + 1):
        b, a = min(width, before), min(width, after)
        seen, counts = np.unique(neighbours(train, b, a) * count + known, return_counts=True)
        seen = seen[np.lexsort((counts, seen // count))][::-1]  # of equal neighbours, the most frequent tag first
        keys, first = np.unique(seen // count, return_index=True)
        wanted = neighbours(ids, b, a)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        guess = np.where(keys[at] == wanted, seen[first][at] % count, guess)
    return guess


# --- sentences ----------------------------------------------------------------------------------------------


def bag_of_words(
    texts: Sequence[str], labels: npt.ArrayLike, held_out: tuple[Sequence[str], npt.ArrayLike], longest: int = 1
) -> Any:
    """Logistic regression over how often each word occurs in a text, and each string of up to `longest` words: a
    pipeline of scikit-learn, with its `predict(texts)` and `predict_proba(texts)`.

    Of four strengths of regularisation it has the one that is most often right on the `held_out` texts and labels.
    Raises ImportError without scikit-learn.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    models = []
    for C in (0.01, 0.1, 1.0, 10.0):
        counts = CountVectorizer(tokenizer=words, token_pattern=None, ngram_range=(1, longest))
        models.append(make_pipeline(counts, LogisticRegression(C=C, max_iter=2000)).fit(texts, labels))
    return max(models, key=lambda model: model.score(*held_out))


# --- sounds -------------------------------------------------------------------------------------------------


def join_templates(x: npt.ArrayLike, templates: Sequence[tuple[str, npt.ArrayLike]], penalty: float = 0.0) -> list[str]:
    """The words whose templates, stretched and joined, are nearest to the sound `x` (T, bands), in squared distance.

    Each of the `templates` is a word and one example of it, (steps, bands); a word may have many. At each step the
    sound stays at a piece of a template or goes on by one or two; where a word begins, that costs the `penalty`. One
    pass of dynamic programming (H. Ney, IEEE Transactions on Acoustics, Speech, and Signal Processing 32, 1984).
    Raises ShapeError unless the bands are the same everywhere.

        >>> templates = [("up", [[1.0], [2.0], [3.0]]), ("down", [[3.0], [2.0], [1.0]])]
        >>> join_templates([[1.0], [2.0], [2.0], [3.0], [3.0], [2.0], [1.0]], templates)
        ['up', 'down']
    """
    sound, examples = np.asarray(x), [np.asarray(example) for _, example in templates]
    if sound.ndim != 2 or not examples or {e.shape[1:] for e in examples} != {sound.shape[1:]}:
        shapes = ", ".join(sorted({str(e.shape) for e in examples})) or "none"
        raise ShapeError(f"join_templates: templates (steps, bands) for a sound {sound.shape}, got {shapes}")
    # All pieces stand in a row, with two places before each template that no way leads to: its first pieces are reached
    # as its others are.
    gap = np.zeros((2, sound.shape[1]))
    pieces = np.concatenate([part for example in examples for part in (gap, example)])
    lengths = np.array([len(example) for example in examples])
    ends = (lengths + 2).cumsum() - 1
    begins = ends + 1 - lengths
    away = (sound**2).sum(axis=1)[:, None] - 2 * (sound @ pieces.T) + (pieces**2).sum(axis=1)
    away[:, np.concatenate([begins - 2, begins - 1])] = np.inf
    # Of each piece of each template: the distance of the best way to be there by now, and when its word began.
    cost, since = np.full(len(pieces), np.inf), np.zeros(len(pieces), int)
    before, best_end = penalty, []
    for t, distance in enumerate(away):
        best, began = cost[2:], since[2:]
        for on in (1, 2):
            closer = cost[2 - on : -on] < best
            best, began = np.minimum(cost[2 - on : -on], best), np.where(closer, since[2 - on : -on], began)
        here = begins[best[begins - 2] > before] - 2
        best[here], began[here] = before, t
        cost, since = np.concatenate([[0, 0], best]) + distance, np.concatenate([[0, 0], began])
        word = int(cost[ends].argmin())
        before = cost[ends[word]] + penalty
        best_end.append((templates[word][0], int(since[ends[word]])))
    said, t = [], len(sound)
    while t > 0:
        word_said, t = best_end[t - 1]
        said.append(word_said)
    return said[::-1]


# --- series -------------------------------------------------------------------------------------------------


LONGEST_SEASON, MOST_FITTED = 60, 3000
"""Steps: Holt-Winters keeps a number for each of a season, and takes minutes to be fitted to many more values."""


def simple_forecasts(
    x: npt.ArrayLike, season: int, known: int, quantiles: Sequence[float] | Floats, lags: int = 9
) -> dict[str, Floats]:
    """What simple methods say at each step of a series (N,) of the next `season` steps, quantiles (N, season, Q).

    The last value stays, or goes on by the mean step there has been (drift). The last season comes again, or so much
    higher as each was than the one before, in the mean (seasonal drift). A linear model of the last `lags` values, by
    least squares. And, where statsmodels is installed, exponential smoothing with a damped trend and a season of at
    most `LONGEST_SEASON` steps (Holt-Winters).

    Only the first `known` values are learnt from. The quantile 0.5 is the forecast itself; the others have, beside it,
    the quantiles of the errors among those. Raises InputError where `known` values are too few for that.

        >>> found = simple_forecasts([1, 2, 3] * 10, season=3, known=20, quantiles=[0.5], lags=3)
        >>> says = {name: q[20, :, 0].round(6).tolist() for name, q in found.items()}  # the value at step 20 is 3
        >>> says["last value"], says["last season"], says["linear, 3 values"]
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    """
    values, share = np.asarray(x, np.float64), np.asarray(quantiles)
    n, H = len(values), season
    if known <= season + max(season, lags):
        raise InputError(f"{known} values are too few to learn from for {season} steps ahead and {lags} values back")
    t, h = np.arange(n)[:, None], np.arange(H)
    ahead = t + 1 + h
    usable = ahead < known
    past = np.concatenate([last_values(values, lags, mode="edge")[:, ::-1], np.ones((n, 1))], axis=1)
    linear = np.zeros((n, H))
    for k in range(H):
        rows = usable[:, k] & (t[:, 0] >= lags)
        linear[:, k] = past @ np.linalg.lstsq(past[rows], values[ahead[rows, k]], rcond=None)[0]
    last, before = np.repeat(values[:, None], H, axis=1), values[np.maximum(ahead - H, 0)]
    step = (values - values[0]) / np.maximum(np.arange(n), 1)  # in the mean, up to each one
    rise = np.cumsum(np.where(np.arange(n) >= H, values - values[np.maximum(np.arange(n) - H, 0)], 0))
    rise /= np.maximum(np.arange(n) - H + 1, 1)
    points = {
        "last value": last,
        "drift": last + step[:, None] * (1 + h),
        "last season": before,
        "seasonal drift": before + rise[:, None],
        f"linear, {lags} values": linear,
        **holt_winters(values, season, known),
    }
    found = {}
    for name, point in points.items():
        errors = values[np.minimum(ahead, n - 1)] - point
        use = usable & (t >= H)
        q = np.stack([np.quantile(errors[use[:, k], k], share) for k in range(H)])
        q[:, share == 0.5] = 0  # the forecast itself, not shifted by what was usual
        found[name] = point[..., None] + q
    return found


def holt_winters(x: Floats, season: int, known: int) -> dict[str, Floats]:
    """Exponential smoothing of a series (N,), under its name: at each step a forecast of each of the next `season`
    steps, (N, season). It is fitted to the first `known` values, `MOST_FITTED` at most, and from then on only brought
    up to date (P. R. Winters, Management Science 6, 1960; the trend damped as by E. S. Gardner and E. McKenzie,
    Management Science 31, 1985).

    Nothing without statsmodels, and of a series to which it cannot be fitted.
    """
    try:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing
    except ImportError:
        return {}
    seasonal = 2 <= season <= LONGEST_SEASON and known >= 3 * season
    shape = {"trend": "add", "damped_trend": True}
    if seasonal:
        shape |= {"seasonal": "add", "seasonal_periods": season}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that the best fit lies at a bound, or was not found to the last digit
        try:
            first = x[: min(known, MOST_FITTED)]
            fit = ExponentialSmoothing(first, **shape, initialization_method="estimated").fit().params
            start = {"initial_level": fit["initial_level"], "initial_trend": fit["initial_trend"]}
            smooth = {"smoothing_level": fit["smoothing_level"], "smoothing_trend": fit["smoothing_trend"]}
            if seasonal:
                start["initial_seasonal"] = fit["initial_seasons"]
                smooth["smoothing_seasonal"] = fit["smoothing_seasonal"]
            model = ExponentialSmoothing(x, **shape, initialization_method="known", **start)
            state = model.fit(**smooth, damping_trend=fit["damping_trend"], optimized=False)
        except (ValueError, np.linalg.LinAlgError):
            return {}
        ahead = np.arange(1, season + 1)
        point = state.level[:, None] + state.trend[:, None] * np.cumsum(fit["damping_trend"] ** ahead)
        if seasonal:
            seasons = np.concatenate([fit["initial_seasons"], state.season])  # that of step t stands at season + t
            point += seasons[np.arange(len(x))[:, None] + ahead]
    return {"Holt-Winters" if seasonal else "Holt": point} if np.isfinite(point).all() else {}
