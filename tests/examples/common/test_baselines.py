"""The simple methods for tags, sentences, sounds and series: what they find, and what they cannot know."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.common.baselines import bag_of_words, holt_winters, join_templates, most_frequent, simple_forecasts
from tinygrad_rnn.errors import InputError, ShapeError


def test_the_most_frequent_tag_falls_back_to_fewer_neighbours() -> None:
    train, tags = np.array([1, 2, 1, 3, 1, 3]), np.array([0, 1, 2, 3, 2, 3])
    # 3 after 1 is a 3; 2 after 3 was never seen, 2 alone is a 1; the last id that is known alone is a 2
    assert most_frequent(train, tags, np.array([1, 3, 2, 1]), before=1).tolist() == [0, 3, 1, 2]
    assert most_frequent(train, tags, np.array([1, 9]), before=1).tolist() == [0, 0]  # 9 was never seen


@given(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 2))
def test_the_most_frequent_tag_is_that_of_a_dictionary(seed: int, before: int, after: int) -> None:
    rng = np.random.default_rng(seed)
    train, ids = rng.integers(1, 4, 40), rng.integers(1, 5, 20)
    tags = rng.permutation(40)  # all different: with equal neighbours, each is as frequent; the largest counts

    def around(x: np.ndarray, i: int, b: int, a: int) -> tuple[int, ...]:
        return tuple(int(x[k]) if 0 <= k < len(x) else 0 for k in range(i - b, i + a + 1))

    for i, found in enumerate(most_frequent(train, tags, ids, before, after).tolist()):
        expected = 0
        for width in range(max(before, after) + 1):
            b, a = min(width, before), min(width, after)
            same = [tags[k] for k in range(40) if around(train, k, b, a) == around(ids, i, b, a)]
            expected = max(same, default=expected)
        assert found == expected


def test_what_has_no_most_frequent_tag() -> None:
    ids = np.arange(5)
    with pytest.raises(ShapeError, match=r"\(5,\) and \(4,\)"):
        most_frequent(ids, ids[:4], ids)
    with pytest.raises(InputError, match="5 different ids are too many for 20 neighbours before and 20 after"):
        most_frequent(ids, ids, ids, 20, 20)


def test_a_bag_of_words_knows_words_and_of_their_order_only_pairs() -> None:
    pytest.importorskip("sklearn")
    texts = [f"{a} but {b}" for a, b in (("good", "bad"), ("bad", "good"))] * 20
    labels = np.array([0, 1] * 20)
    words, pairs = (
        bag_of_words(texts, labels, (texts, labels), longest).predict(texts) == labels for longest in (1, 2)
    )
    assert words.mean() == 0.5 and pairs.all()


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_templates_are_found_stretched_and_joined(penalty: float) -> None:
    rng = np.random.default_rng(0)
    templates = [(name, rng.normal(size=(length, 6))) for name, length in {"a": 4, "b": 1, "c": 7}.items()]
    known = dict(templates)
    for said in ("a", "b", "cab", "aacca"):
        x = np.concatenate([np.repeat(known[name], rng.integers(1, 3), axis=0) for name in said])
        assert join_templates(x + rng.normal(0, 0.01, x.shape), templates, penalty) == list(said)


def test_templates_of_other_bands() -> None:
    for templates in ([], [("a", np.zeros((3, 2)))]):
        with pytest.raises(ShapeError, match=r"for a sound \(5, 4\)"):
            join_templates(np.zeros((5, 4)), templates)


def test_a_simple_forecast_knows_nothing_of_what_comes_after() -> None:
    x, cut = np.random.default_rng(0).normal(size=100).cumsum(), 80
    found, other = (simple_forecasts(y, 4, 60, [0.1, 0.5, 0.9]) for y in (x, np.r_[x[:cut], 3 * x[cut:]]))
    names = ["last value", "drift", "last season", "seasonal drift", "linear, 9 values"]
    assert list(found) == names + ["Holt-Winters"] * (find_spec("statsmodels") is not None)
    for name, q in found.items():
        assert q.shape == (100, 4, 3)
        np.testing.assert_allclose(q[:cut], other[name][:cut], err_msg=name)
    np.testing.assert_array_equal(found["last value"][:, :, 1], np.repeat(x[:, None], 4, axis=1))
    np.testing.assert_array_equal(found["last season"][10, :, 1], x[7:11])
    step = np.diff(x[:11]).mean()
    np.testing.assert_allclose(found["drift"][10, :, 1], x[10] + step * np.arange(1, 5))
    rise = np.mean([x[k] - x[k - 4] for k in range(4, 11)])
    np.testing.assert_allclose(found["seasonal drift"][10, :, 1], x[7:11] + rise)


def test_the_quantiles_of_a_simple_forecast_hold() -> None:
    x = np.random.default_rng(0).normal(size=2000).cumsum()
    q = simple_forecasts(x, 2, 1000, [0.1, 0.5, 0.9])["linear, 9 values"]
    inside = (q[1000:-1, 0, 0] <= x[1001:]) & (x[1001:] <= q[1000:-1, 0, 2])
    assert 0.75 < inside.mean() < 0.85


def test_a_rising_season_is_known_by_what_knows_a_trend() -> None:
    """A line with a season on it: drift knows the line, seasonal drift and Holt-Winters both."""
    t = np.arange(144)
    found = simple_forecasts(0.1 * t + np.sin(2 * np.pi * t / 12), 12, 86, [0.5])
    ahead = t[86:-12, None] + np.arange(1, 13)
    true = 0.1 * ahead + np.sin(2 * np.pi * ahead / 12)
    error = {name: np.abs(q[86:-12, :, 0] - true).mean() for name, q in found.items()}
    assert error["seasonal drift"] < 1e-9 and error["drift"] < error["last value"]
    assert error["last season"] == pytest.approx(1.2)
    if "Holt-Winters" in error:
        assert error["Holt-Winters"] < 0.05


def test_holt_winters_is_that_of_statsmodels() -> None:
    """What it says at each step is the forecast of a model that was given the values up to it, and no others."""
    smoothing = pytest.importorskip("statsmodels.tsa.holtwinters")
    rng, t = np.random.default_rng(0), np.arange(80)
    x = 5 + 0.05 * t + np.sin(2 * np.pi * t / 4) + rng.normal(0, 0.2, 80)
    shape = {"trend": "add", "damped_trend": True, "seasonal": "add", "seasonal_periods": 4}
    model = smoothing.ExponentialSmoothing(x[:50], **shape, initialization_method="estimated").fit()
    found = holt_winters(x, 4, 50)["Holt-Winters"]
    np.testing.assert_allclose(found[49], model.forecast(4))
    np.testing.assert_allclose(found[:49, 0], model.fittedvalues[1:])
    p = model.params
    start = {
        f"initial_{to}": p[f"initial_{of}"]
        for to, of in {"level": "level", "trend": "trend", "seasonal": "seasons"}.items()
    }
    smooth = {f"smoothing_{part}": p[f"smoothing_{part}"] for part in ("level", "trend", "seasonal")}
    later = smoothing.ExponentialSmoothing(x[:71], **shape, initialization_method="known", **start)
    later = later.fit(**smooth, damping_trend=p["damping_trend"], optimized=False)
    np.testing.assert_allclose(found[70], later.forecast(4))
    assert list(holt_winters(x, 1, 50)) == list(holt_winters(x, 61, 50)) == ["Holt"]  # without a season


def test_without_statsmodels_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.holtwinters", None)
    assert len(simple_forecasts(np.arange(60.0), 4, 40, [0.5])) == 5


def test_a_series_that_is_too_short_to_forecast() -> None:
    with pytest.raises(InputError, match="12 values are too few to learn from for 4 steps ahead and 9 values back"):
        simple_forecasts(np.arange(20.0), 4, 12, [0.5])
